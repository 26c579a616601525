"""How punctual the scheduler is, and what is left sounding when MusicHal is killed.

Conventions
-----------
*Lateness* is the scheduler's own: from the moment at which a message could have left to the moment at which it was given to
the port, here one that goes nowhere. *At the receiver* is what another JACK client got: how far the frame of each note is, in
time, from the frame of its moment, but for a constant latency. *Busy* is with one busy process per core. *Killed* is `kill -9`
of a process that plays chords, twenty times, until the receiver has got the last note-off.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from benchmarks.figure import Figure
from benchmarks.jack_midi import JackReceiver, private_server, wait_for
from musichal.arrays import Float64
from musichal.errors import InputError
from musichal.live.output.scheduler import Scheduler
from musichal.live.output.scheduler_protocol import PortSettings, Sent, Trouble
from musichal.machine import now_s
from musichal.note import Note

_MODULE = "benchmarks.scheduler_speed"
_NOTES, _INTERVAL_S = 1500, 0.011
"""16.5 s; the interval is no multiple of a period, so every place in a period is met."""
_FIRST_PITCH, _PITCHES = 36, 60
_LEAST_SHARE = 0.9
_AROUND_S = 0.25
_KILLS = 20
_JACK = "jack:MusicHal"
_GOAL_MS = {"idle": 1.0, "busy": 3.0}
_PERIOD = 256


def measure_scheduler(*, notes: int = _NOTES, kills: int = _KILLS) -> list[Figure]:
    """Measure jitter idle and busy, at the scheduler and at a receiver over JACK, and what a kill leaves sounding.

    Raises
    ------
    MissingExtraError
        Without jackd or JACK-Client.
    InputError
        Where JACK does not start.
    """
    figures = []
    with private_server(period=_PERIOD):
        for load in ("idle", "busy"):
            with _busy_cores() if load == "busy" else contextlib.nullcontext():
                figures += _lateness(load, notes) + _jitter(load, notes)
        figures += _killing(_JACK, "JACK", kills)
    return figures


def _lateness(load: str, notes: int) -> list[Figure]:
    with Scheduler([PortSettings("out", "none:")]) as scheduler:
        lateness_ms = _played(scheduler, now_s() + 0.3 + _INTERVAL_S * np.arange(notes, dtype=np.float64))
    return _three(f"scheduler lateness, {load}", lateness_ms, "ms", _GOAL_MS[load])


def _jitter(load: str, notes: int) -> list[Figure]:
    with JackReceiver() as receiver, Scheduler([PortSettings("out", _JACK)]) as scheduler:
        receiver.connect("MusicHal")
        time.sleep(0.5)
        receiver.clear()
        dues: Float64 = now_s() + 0.3 + _INTERVAL_S * np.arange(notes, dtype=np.float64)
        _played(scheduler, dues)
        wait_for(lambda: len(receiver.messages()) >= 2 * notes, 2.0)
        arrived = {_number(m.data): float(m.frame) for m in reversed(receiver.messages()) if m.data[0] == 0x90}
        rate_hz, xruns, cycles = receiver.client.samplerate, receiver.xruns, receiver.cycles()
    if len(arrived) < _LEAST_SHARE * notes:
        raise InputError(f"{len(arrived)} of {notes} notes reached the receiver ({load}, {xruns} xruns)")
    numbers = sorted(arrived)
    frames = np.array([arrived[number] for number in numbers])
    off_frames = np.abs(_off_their_moments(dues[numbers], frames, cycles, rate_hz))
    off_ms = 1000 * off_frames / rate_hz
    figures = _three(f"at the receiver, JACK, {load}", off_ms, "ms", _GOAL_MS[load])
    figures += _three(f"off the frame, JACK, {load}", off_frames, "frames", None)
    # Where JACK or the receiver misses a cycle, what was in it is gone.
    figures.append(Figure(f"notes lost in {xruns} xruns, JACK, {load}", notes - len(arrived), f"of {notes}"))
    return figures


def _played(scheduler: Scheduler, dues: Float64) -> Float64:
    """Play a short note at each moment, a third of a second ahead like an engine; returns how late each left, in ms."""
    lateness_ms, asked, ended, number = [], 0, 0, len(dues)
    until_s = float(dues[-1]) + 5.0
    while ended < number:
        scheduler.alive()
        while asked < number and dues[asked] < now_s() + 0.33:
            pitch, velocity = _FIRST_PITCH + asked % _PITCHES, 1 + asked // _PITCHES
            scheduler.play("out", [Note(float(dues[asked]), _INTERVAL_S / 2, pitch, velocity)])
            asked += 1
        for event in scheduler.events():
            if isinstance(event, Trouble):
                raise InputError(f"the scheduler had trouble: {event.text}")
            if isinstance(event, Sent) and event.data[0] == 0x90:
                lateness_ms.append(1000 * event.lateness_s)
            ended += isinstance(event, Sent) and event.data[0] == 0x80
        if now_s() > until_s:
            raise InputError(f"{number - ended} of {number} notes were not played")
        time.sleep(0.02)
    return np.array(lateness_ms)


def _number(data: bytes) -> int:
    """Return which note of the measurement a note-on is: its pitch and its velocity tell."""
    return data[1] - _FIRST_PITCH + (data[2] - 1) * _PITCHES


def _off_their_moments(dues_s: Float64, frames: Float64, cycles: Sequence[tuple[int, float]], rate_hz: float) -> Float64:
    """Return how far each frame is from that of its moment, but for a constant latency.

    Which frame a moment is, the cycles of the half second around it tell: the median, for they are worked on at uneven
    times. (The dummy driver's frames do not follow the clock for ever: it drops what it is late with.)
    """
    cycle_frames, cycle_s = (np.array(values, dtype=np.float64) for values in zip(*cycles, strict=True))
    starts = cycle_frames - rate_hz * cycle_s
    off = np.empty(len(dues_s))
    for k, due_s in enumerate(dues_s):
        low, high = np.searchsorted(cycle_s, (due_s - _AROUND_S, due_s + _AROUND_S))
        off[k] = frames[k] - rate_hz * due_s - np.median(starts[low:high])
    distances: Float64 = off - np.median(off)
    return distances


def _three(name: str, values: Float64, unit: str, goal: float | None) -> list[Figure]:
    return [
        Figure(f"{name}: median", float(np.median(values)), unit),
        Figure(f"{name}: p99", float(np.percentile(values, 99)), unit, goal),
        Figure(f"{name}: largest", float(values.max()), unit),
    ]


def _killing(address: str, name: str, kills: int) -> list[Figure]:
    rng = np.random.default_rng(1)
    took_s, left = [], 0
    with JackReceiver() as receiver:
        for _ in range(kills):
            took, still = _kill_once(address, receiver, float(rng.uniform(0.0, 0.3)))
            took_s.append(took)
            left += still
    return [
        Figure(f"notes left sounding after {kills} × kill -9, {name}", left, "notes", 0),
        Figure(f"kill -9 to the last note-off, {name}: median", 1000 * float(np.median(took_s)), "ms"),
        Figure(f"kill -9 to the last note-off, {name}: largest", 1000 * max(took_s), "ms", 1500),
    ]


def _kill_once(address: str, receiver: JackReceiver, after_s: float) -> tuple[float, int]:
    """Kill a process in the middle of its chords; returns when the last note-off came, and how many notes never got one."""
    receiver.clear()
    command = [sys.executable, "-m", _MODULE, json.dumps({"job": "play", "address": address})]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own module
        try:
            assert process.stdout is not None
            process.stdout.readline()
            receiver.connect("MusicHal")
            receiver.clear()
            if not wait_for(lambda: len(receiver.sounding()) >= 6, 10.0):
                raise InputError("no chord reached the receiver")
            time.sleep(after_s)
            killed_s = time.monotonic()
        finally:
            process.kill()
    wait_for(lambda: not receiver.sounding(), killed_s + 3.0 - time.monotonic())
    left = len(receiver.sounding())
    last_s = receiver.messages()[-1].monotonic_s
    # Its port goes too, before the next one comes.
    wait_for(lambda: not any("MusicHal" in name for name in receiver.senders()), 5.0)
    return last_s - killed_s, left


@contextmanager
def _busy_cores() -> Iterator[None]:
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        time.sleep(0.5)
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def play_chords(address: str, *, patience_s: float = 60.0) -> None:
    """Play overlapping chords of six until killed, or for `patience_s`; writes one line when it begins."""
    with Scheduler([PortSettings("out", address)]) as scheduler:
        due_s, chord = now_s() + 0.05, 0
        until_s = due_s + patience_s
        sys.stdout.write(json.dumps({"scheduler": scheduler.pid}) + "\n")
        sys.stdout.flush()
        while now_s() < until_s:
            scheduler.alive()
            while due_s < now_s() + 0.3:
                scheduler.play("out", [Note(due_s, 3.0, 36 + chord % 12 + 7 * k, 90) for k in range(6)])
                due_s, chord = due_s + 0.1, chord + 1
            time.sleep(0.01)


def main(arguments: Sequence[str]) -> None:
    """Run a job for a measurement in another process."""
    settings = json.loads(arguments[0])
    if settings.pop("job") == "play":
        # Ctrl-C of a measurement must end it at any moment, as it would MusicHal.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        play_chords(**settings)


if __name__ == "__main__":
    main(sys.argv[1:])
