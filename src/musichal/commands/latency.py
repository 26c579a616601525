"""`musichal devices --latency`: what an output takes to sound, by loopback to an input, or by ear and tap."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter1d

from musichal.arrays import Float32, Float64
from musichal.commands.terminal import Poll, Terminal, keys
from musichal.errors import InputError
from musichal.live.input.live_input import LiveInput
from musichal.live.output.scheduler import Scheduler
from musichal.live.output.scheduler_protocol import PortSettings
from musichal.machine import now_s
from musichal.note import Note
from musichal.text import printable

ANTICIPATION_S = 0.02
"""So much before a beat musicians tap who hear it (10 to 50 ms: Repp & Su, Psychonomic Bulletin & Review 2013)."""
_PITCH, _VELOCITY, _NOTE_S = 72, 112, 0.05
_CLICKS, _APART_S = 12, 0.75
_BEATS, _BEAT_S, _FIRST_BEATS = 20, 0.6, 4
_FIRST_S, _BEFORE_S = 1.5, 0.1
_SHORTEST_S, _EARLIEST_TAP_S = 0.0005, 0.15
_LOUDER, _RISEN = 4.0, 0.2
_FEWEST = 4
_POLL_S = 0.05
_SURE_S = 0.01


@dataclass(frozen=True)
class Measured:
    """The median of latencies, half of which lie within `spread_s` around it, and their number."""

    median_s: float
    spread_s: float
    number: int


def measured(latencies_s: Float64) -> Measured:
    """Return the median and the spread of latencies, shape (n,), n > 0."""
    low, median, high = np.percentile(latencies_s, [25, 50, 75])
    return Measured(float(median), float(high - low), len(latencies_s))


def clicks_heard(samples: Float32, sent: Float64, *, rate_hz: int, apart_s: float = _APART_S) -> Float64:
    """Return how long after it was sent each click that is heard begins, in s.

    Parameters
    ----------
    samples : Float32
        Shape (n,).
    sent : Float64
        Where in the samples clicks were sent, shape (m,).
    rate_hz : int
    apart_s : float
        Least time between clicks: one that takes longer is not found.
    """
    smooth = max(1, round(_SHORTEST_S * rate_hz))
    envelope = uniform_filter1d(np.abs(samples).astype(np.float64), smooth)
    before, after = round(_BEFORE_S * rate_hz), round((apart_s - _BEFORE_S) * rate_hz)
    parts, begins = [], []
    for place in np.round(sent).astype(int).tolist():
        if place < before or place + after > len(envelope):
            continue
        quiet, part = envelope[place - before : place], envelope[place : place + after]
        if part.max() > _LOUDER * max(float(quiet.max()), 1e-4):
            parts.append(part)
            begins.append(int(np.argmax(part > _RISEN * part.max())))
    if not parts:
        return np.zeros(0)
    # One that is like most others says where a click begins; the others are laid over it.
    model = parts[int(np.argsort(begins)[len(begins) // 2])]
    begin = int(np.median(begins))
    reach = round(_BEFORE_S * rate_hz)
    shape = model[max(0, begin - smooth) : begin + reach]
    lags = [int(np.argmax(np.correlate(part, shape, mode="valid"))) + min(begin, smooth) for part in parts]
    return np.array(lags) / rate_hz


def taps_after(taps_s: Float64, clicks_s: Float64) -> Float64:
    """Return how long after the click that it belongs to each tap comes, without those of the first clicks, shape (n,)."""
    found = []
    for tap_s in taps_s.tolist():
        since_s = tap_s - clicks_s
        here = since_s[(since_s >= -_EARLIEST_TAP_S) & (since_s < _BEAT_S - _EARLIEST_TAP_S)]
        if here.size and tap_s - clicks_s[0] > _FIRST_BEATS * _BEAT_S - _EARLIEST_TAP_S:
            found.append(here[0])
    return np.array(found)


def latency_command(*, input: str | None, midi_out: str, by_ear: bool, terminal: Terminal) -> None:
    """Measure what an output takes to sound, and say the value for ``--latency``.

    Raises
    ------
    InputError
        Where nothing is heard at the input, or nobody taps.
    """
    with _output(midi_out, terminal) as scheduler:
        latencies_s = np.zeros(0) if by_ear else _by_loopback(scheduler, input, terminal)
        by_ear = by_ear or len(latencies_s) < _FEWEST
        if by_ear:
            latencies_s = _by_tap(scheduler, terminal)
    found = measured(latencies_s)
    latency_s = max(0.0, found.median_s + (ANTICIPATION_S if by_ear else 0.0))
    value = {"latency_ms": round(1000 * latency_s, 1), "median_ms": round(1000 * found.median_s, 2)}
    method = "tap" if by_ear else "loopback"
    terminal.result({**value, "spread_ms": round(1000 * found.spread_s, 2), "number": found.number, "method": method})
    spread = f"median {1000 * found.median_s:.1f} ms of {found.number}, half of them within {1000 * found.spread_s:.1f} ms"
    if by_ear:
        terminal.say(f"You tapped that long after the clicks were sent: {spread}.")
        terminal.say(
            f"People tap 10 to 50 ms before a beat that they hear; {1000 * ANTICIPATION_S:.0f} ms are added for that."
            " A loopback (a microphone before the loudspeaker, or a cable) is exact."
        )
    else:
        terminal.say(f"The clicks were heard that long after they were sent: {spread}.")
    if found.spread_s > _SURE_S:
        terminal.warn("that varies much: measure again, in a quiet room, with a short sound")
    terminal.say(f"Play with --latency {1000 * latency_s:.0f}")


@contextlib.contextmanager
def _output(address: str, terminal: Terminal) -> Iterator[Scheduler]:
    with Scheduler([PortSettings("out", address)]) as scheduler:
        terminal.say(f"Playing to {printable(scheduler.opened['out'])}.")
        yield scheduler


def _plan(scheduler: Scheduler, number: int, apart_s: float) -> Float64:
    """Schedule clicks; return their moments."""
    moments: Float64 = now_s() + _FIRST_S + apart_s * np.arange(number, dtype=np.float64)
    scheduler.play("out", [Note(float(moment_s), _NOTE_S, _PITCH, _VELOCITY) for moment_s in moments])
    return moments


def _by_loopback(scheduler: Scheduler, device: str | None, terminal: Terminal) -> Float64:
    """Return the latencies of the clicks that were heard at an input."""
    with LiveInput(device) as live:
        terminal.say(f"Listening to {printable(live.device.label)}: {_CLICKS} clicks …")
        moments = _plan(scheduler, _CLICKS, _APART_S)
        parts: list[Float32] = []
        while now_s() < moments[-1] + _APART_S + 0.2:
            live.wait(_POLL_S)
            scheduler.alive()
            for block in live.read():
                parts += [np.zeros(block.lost_before, dtype=np.float32), block.samples]
        if not parts:
            return np.zeros(0)
        sent = np.array([live.clock.position_at(moment_s + live.capture_s) for moment_s in moments])
        found = clicks_heard(np.concatenate(parts), sent, rate_hz=live.sample_rate_hz)
        if len(found) < _FEWEST:
            terminal.warn(
                f"{len(found)} of {_CLICKS} clicks were heard at {live.device.label}: is the output connected, and does the"
                " input hear it?"
            )
        return found


def _by_tap(scheduler: Scheduler, terminal: Terminal) -> Float64:
    """Return how long after the clicks a key was pressed."""
    terminal.say(f"Tap the space bar along with the clicks, {_BEATS} of them …")
    taps: list[float] = []
    with keys() as poll:
        moments = _plan(scheduler, _BEATS, _BEAT_S)
        while now_s() < moments[-1] + _BEAT_S:
            taps += _pressed(poll)
            scheduler.alive()
    found = taps_after(np.array(taps), moments)
    if len(found) < _FEWEST:
        raise InputError(
            "nobody tapped, and no loopback was heard: name the input that hears the output with --input, or tap at a terminal"
        )
    return found


def _pressed(poll: Poll) -> list[float]:
    pressed = poll(_POLL_S)
    return [now_s()] if pressed else []
