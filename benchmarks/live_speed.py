"""How quickly MusicHal answers on stage: sound in, MIDI out, through a real JACK server and the real `musichal play`.

Conventions
-----------
*Onset → MIDI* is counted in frames of the server, from the first sample of a plucked note (synthetic, so that its place is
known) to the first note-on of what was decided because of it (`OnsetAnswers`) at a receiver, at periods of 256 frames: a note
that is still to come of what was decided before is no answer. Latencies of converters are not in it. In *shadow* the partner
plays in that mode as it is, and rests at first, while it has heard nothing. Otherwise a player in its place strikes one note at
each onset that the light path reports. An onset without such a note within `_WINDOW_S` is without an answer,
and it is said why: the partner decided to rest; it was taken for one with the stroke that the partner had answered less than
80 ms before; the note was late, or lost; or hearing found no onset within `_SAME_ONSET_S`.
*Sound → tokens* is from the last sample that a segment needs to its percept reaching the partner; a frame at the segment's
beginning waits for the rest of the segment besides. *Skipped* are segments that were not heard, of the whole run.
The player and the receiver are clients in the measuring process, MusicHal runs in one of its own.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figure import Figure
from benchmarks.jack_microphone import JackMicrophone
from benchmarks.jack_midi import JackReceiver, private_server, wait_for
from musichal.arrays import Float32, Float64, Int64
from musichal.audio.recording import read_recording
from musichal.commands.play import PLAYER, RECORDING
from musichal.errors import InputError
from musichal.hearing.percepts import Percept
from musichal.live.engine import EngineObserver
from musichal.live.session.event_log import Entry, Struck
from musichal.memory.partner_file import save_partner
from musichal.note import Note
from musichal.partner.decision import Decision
from musichal.spec import PerceptionSpec
from musichal.training.trainer import train

_PROGRAM = "benchmarks.live_command"
"""`musichal play` for measuring; it lives above this room, and is only named here."""
_RATE_HZ = 48_000
_ONSETS = 200
_SPACING_S = (0.25, 0.45)
_NOTE_S = 0.4
_WINDOW_S = 0.2
_SAME_ONSET_S = 0.05
_START_S = 40.0
_SETTLE_S = 1.0
_SHORT_HOP = 2100
_BETWEEN_NOTES = "next note"
"""Why a partner in `shadow` rests from the end of a gesture to the player's next note."""

ANSWERED, RESTED, SHARED, UNRECEIVED, UNHEARD = (
    "answered",
    "decided to rest",
    "answered with the stroke just before",
    "answered, but not received in time",
    "not heard",
)
"""What becomes of an onset; a rest has its reason behind it."""


class OnsetPlayer:
    """Strikes a short note at each onset, at once."""

    def __init__(self) -> None:
        self.due_s: float | None = None
        self._number = 0

    def hear(self, percept: Percept, now_s: float) -> None:
        """Wait for onsets."""

    def hear_onset(self, onset_s: float, now_s: float, pitches: Sequence[int] = (), *, is_drum: bool = False) -> None:
        """Play now."""
        self.due_s = now_s

    def change(self, changes: Mapping[str, object], now_s: float) -> None:
        """Refuse every change."""
        raise InputError("this partner has no settings")

    def decide(self, now_s: float) -> tuple[Decision, ...]:
        """Strike."""
        self.due_s, self._number = None, self._number + 1
        note = Note(now_s, 0.05, 48 + self._number % 24, 100)
        place = {"state": 0, "recording": 0, "source_start_s": 0.0}
        return (Decision(self._number, now_s, "play", duration_s=0.05, notes=(note,), **place),)  # type: ignore[arg-type]


class OnsetAnswers(EngineObserver):
    """Keeps what was planned to be struck, which of it was decided because of which onset, and what became of the others."""

    def __init__(self, *, sample_rate_hz: int) -> None:
        self._rate_hz = sample_rate_hz
        self._onsets: list[float] = []
        self._became: list[str] = []
        self._struck: tuple[float, int] | None = None
        self._notes: list[tuple[float, int, int | None]] = []
        self._resting: str | None = None

    def entry(self, entry: Entry) -> None:
        """Take an onset, and when the partner learned of it; what comes next is no answer to it."""
        if not isinstance(entry, Struck):
            self._struck = None
            return
        self._struck = entry.at_sample / self._rate_hz, len(self._onsets)
        self._onsets.append(entry.onset.sample / self._rate_hz)
        # A rest that goes on is not decided anew. Between two of the player's notes the partner always rests.
        goes_on = self._resting is not None and self._resting != _BETWEEN_NOTES
        self._became.append(f"{RESTED} ({self._resting})" if goes_on else SHARED)

    def decision(self, decision: Decision) -> None:
        """Take what is decided; in the moment of an onset it is because of it."""
        because = self._struck[1] if self._struck is not None and decision.time_s == self._struck[0] else None
        self._notes += [(note.onset_s, note.pitch, because) for note in decision.notes]
        self._resting = decision.rest
        if because is not None and decision.rest is not None:
            self._became[because] = f"{RESTED} ({decision.rest})"
        elif because is not None and decision.notes:
            self._became[because] = UNRECEIVED

    def to_dict(self) -> dict[str, Any]:
        """Return the onsets, what became of them but for being received, and the notes.

        Notes are (second, pitch, number of the onset or None), all seconds those of the stream.
        """
        return {"onsets": self._onsets, "became": self._became, "notes": self._notes}


@dataclass(frozen=True)
class Answer:
    """What became of an onset in the sound: `ANSWERED` and received at a second, or another of the words and None."""

    became: str
    at_s: float | None = None


def find_answers(told: Mapping[str, Any], places_s: Float64, received: Sequence[tuple[float, int]]) -> list[Answer]:
    """Return what became of each onset in the sound.

    Parameters
    ----------
    told : mapping
        Of `OnsetAnswers`; its seconds may be ahead or behind by any amount.
    places_s : array of shape (n,)
        When the sound's notes begin.
    received : sequence of (float, int)
        The note-ons at the receiver: second and pitch.
    """
    onsets = np.array(told["onsets"], dtype=np.float64)
    if not onsets.size or not len(places_s):
        return [Answer(UNHEARD)] * len(places_s)
    apart = (onsets[:, None] - places_s[None, :]).ravel()
    agree = [int((np.abs(apart - shift) < _SAME_ONSET_S).sum()) for shift in apart.tolist()]
    shift_s = apart[int(np.argmax(agree))]
    # Each note that was received is the one that was planned for about then.
    waiting = list(received)
    answered: dict[int, float] = {}
    for due_s, pitch, because in sorted(told["notes"], key=lambda note: note[0]):
        near = [(abs(at_s + shift_s - due_s), at_s) for at_s, sounded in waiting if sounded == pitch]
        if not near or min(near)[0] > _WINDOW_S:
            continue
        at_s = min(near)[1]
        waiting.remove((at_s, pitch))
        if because is not None:
            answered[because] = min(at_s, answered.get(because, at_s))
    return [_answer(place_s, onsets - shift_s, told["became"], answered) for place_s in places_s.tolist()]


def _answer(place_s: float, onsets_s: Float64, became: Sequence[str], answered: Mapping[int, float]) -> Answer:
    """Return what became of the onset at a place; several that hearing found there count as one."""
    here = np.flatnonzero(np.abs(onsets_s - place_s) < _SAME_ONSET_S).tolist()
    if not here:
        return Answer(UNHEARD)
    at_s = [answered[number] for number in here if number in answered and 0 <= answered[number] - place_s < _WINDOW_S]
    if at_s:
        return Answer(ANSWERED, min(at_s))
    return Answer(became[min(here, key=lambda number: abs(onsets_s[number] - place_s))])


def plucked(onsets: Int64, *, rate_hz: int, length: int, rng: np.random.Generator) -> Float32:
    """Return plucked notes that begin at the samples `onsets`, (length,), over faint noise."""
    out = 1e-4 * rng.standard_normal(length)
    t = np.arange(round(_NOTE_S * rate_hz)) / rate_hz
    # A note that is cut off clicks, and the click is an onset of its own.
    shape = np.minimum(1.0, t / 0.001) * np.minimum(1.0, (_NOTE_S - t) / 0.1)
    for onset in onsets.tolist():
        pitch_hz = 440 * 2 ** ((int(rng.integers(45, 70)) - 69) / 12)
        partials = sum(np.sin(2 * np.pi * k * pitch_hz * t) * np.exp(-t * (6 + 3 * k)) / k for k in range(1, 9))
        note = 0.2 * shape * partials
        end = min(length, onset + len(note))
        out[onset:end] += note[: end - onset]
    return np.clip(out, -0.9, 0.9).astype(np.float32)


def measure_live(*, onsets: int = _ONSETS, run_s: float = 600.0) -> list[Figure]:
    """Measure onset → MIDI, sound → tokens, and what is skipped in `run_s` at periods of 1024 frames.

    Raises
    ------
    MissingExtraError
        Without jackd, JACK-Client or sounddevice.
    InputError
        Where JACK or MusicHal does not start.
    """
    base = PerceptionSpec()
    specs = {
        "soxr-VR": replace(base, resampler="soxr-VR"),
        "soxr-HQ": replace(base, resampler="soxr-HQ"),
        "soxr-VR, --hop 87.5ms": replace(base, resampler="soxr-VR", hop_samples=_SHORT_HOP),
    }
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        partners: dict[str, Path] = {}
        for name, spec in specs.items():
            partners[name] = Path(folder) / f"{len(partners)}.hal"
            save_partner(partners[name], train([read_recording(RECORDING)], spec))
        for name, partner in partners.items():
            figures += _latency(name, partner, specs[name], onsets=onsets)
        for name in ("soxr-VR", "soxr-HQ"):
            figures += _latency(f"{name}, shadow", partners[name], specs[name], onsets=onsets, player="shadow")
        figures += _keeping_up(partners["soxr-VR"], run_s)
        from benchmarks.live_timing import measure_timing

        figures += measure_timing(partners["soxr-HQ"])
    return figures


def _latency(name: str, partner: Path, spec: PerceptionSpec, *, onsets: int, player: str = "onsets") -> list[Figure]:
    rng = np.random.default_rng(0)
    places = (np.cumsum(rng.uniform(*_SPACING_S, onsets)) * _RATE_HZ).astype(np.int64)
    length = int(places[-1]) + _RATE_HZ
    sound = plucked(places, rate_hz=_RATE_HZ, length=length, rng=rng)
    with (
        tempfile.TemporaryDirectory() as folder,
        private_server(rate_hz=_RATE_HZ, period=256),
        JackMicrophone(sound) as microphone,
        JackReceiver() as receiver,
    ):
        tells = Path(folder) / "answers.json"
        with _stage(partner, microphone.name, block=256, player=player, answers=tells) as stage:
            receiver.connect("MusicHal", timeout_s=_START_S)
            stage.wait_until_it_listens()
            start = microphone.go()
            time.sleep(length / _RATE_HZ)
            summary = stage.end()
        struck = [
            ((m.frame + receiver.origin - start) / _RATE_HZ, m.data[1])
            for m in receiver.messages()
            if m.data[0] & 0xF0 == 0x90 and m.data[2]
        ]
        xruns = receiver.xruns
        told = json.loads(tells.read_text("utf-8"))
    found = find_answers(told, places / _RATE_HZ, struck)
    late_ms = np.array([1000 * (f.at_s - p / _RATE_HZ) for f, p in zip(found, places, strict=True) if f.at_s is not None])
    others = Counter(answer.became for answer in found if answer.at_s is None)
    if not late_ms.size:
        reasons = ", ".join(f"{number} {became}" for became, number in sorted(others.items()))
        raise InputError(f"no onset was answered ({name}): {reasons}")
    least, p50, p99, most = np.percentile(late_ms, [0, 50, 99, 100])
    goals = (None, None) if spec.hop_samples == _SHORT_HOP else (40, 60)
    segment_ms = 1000 * spec.hop_samples / spec.sample_rate_hz
    return [
        Figure(f"onset → MIDI, {name}: least", float(least), "ms"),
        Figure(f"onset → MIDI, {name}: median", float(p50), "ms", goals[0]),
        Figure(f"onset → MIDI, {name}: p99", float(p99), "ms", goals[1]),
        Figure(f"onset → MIDI, {name}: max", float(most), "ms"),
        Figure(f"onsets without an answer, {name} (xruns: {xruns})", len(places) - len(late_ms), f"of {len(places)}"),
        *(Figure(f"onsets {became}, {name}", number, f"of {len(places)}") for became, number in sorted(others.items())),
        Figure(f"notes beside the first of each answer, {name}", len(struck) - len(late_ms), f"of {len(struck)}"),
        Figure(f"sound → tokens, {name}, one segment every {segment_ms:.4g} ms: median", summary["percept_p50_ms"], "ms"),
        Figure(f"sound → tokens, {name}: p99", summary["percept_p99_ms"], "ms"),
        Figure(f"sound → tokens, {name}: max", summary["percept_max_ms"], "ms"),
        Figure(f"audio callback, {name}: p99", summary["callback_p99_ms"], "ms", 0.5),
        Figure(f"load average meanwhile, {name}", summary["load_average"] or 0.0, ""),
    ]


def _keeping_up(partner: Path, run_s: float) -> list[Figure]:
    """Play the demo's guitar to the demo's partner for a while at periods of 1024 frames."""
    import soxr

    guitar = read_recording(PLAYER)
    sound = soxr.resample(guitar.samples, guitar.sample_rate_hz, _RATE_HZ, quality="HQ").astype(np.float32)
    with private_server(rate_hz=_RATE_HZ, period=1024), JackMicrophone(sound) as microphone, JackReceiver() as receiver:
        with _stage(partner, microphone.name, block=1024, player="usual") as stage:
            receiver.connect("MusicHal", timeout_s=_START_S)
            stage.wait_until_it_listens()
            microphone.go()
            warm_s = min(30.0, run_s / 3)
            time.sleep(warm_s)
            before_mb = stage.memory_mb()
            time.sleep(run_s - warm_s)
            grown_mb = stage.memory_mb() - before_mb
            summary = stage.end()
        wait_for(lambda: not receiver.sounding(), 2.0)
        hanging = len(receiver.sounding())
    minutes = run_s / 60
    where = f"in {minutes:.3g} min at 1024 frames"
    return [
        Figure(f"segments skipped {where}", summary["skipped"], f"of {summary['segments'] + summary['skipped']}", 0),
        Figure(f"input lost {where} (xruns: {summary['xruns']})", summary["lost_samples"], "samples"),
        Figure(f"notes left sounding {where}", hanging, f"of {summary['notes']}", 0),
        Figure(f"memory grown {where}, behind the first {warm_s:.0f} s", grown_mb, "MB"),
        Figure(f"hearing a segment on stage {where}: p99", summary["hearing_p99_ms"], "ms"),
        Figure(f"a step of the engine {where}: p99", summary["step_p99_ms"], "ms"),
        Figure(f"a step of the engine {where}: max", summary["step_max_ms"], "ms"),
        Figure(f"load average {where}", summary["load_average"] or 0.0, ""),
    ]


class _Stage:
    """A `musichal play` in a process of its own."""

    def __init__(self, settings: dict[str, Any], listens: Path) -> None:
        self._listens = listens
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [sys.executable, "-m", _PROGRAM, json.dumps(settings)]
        self.process = subprocess.Popen(command, text=True, **pipes)  # type: ignore[call-overload]  # noqa: S603

    def wait_until_it_listens(self) -> None:
        """Wait until sound comes in: its ports are open before its input is. Raises `InputError` where none does."""
        wait_for(lambda: self._listens.exists() or self.process.poll() is not None, _START_S)
        if self.process.poll() is not None:
            self.end()
        if not self._listens.exists():
            raise InputError(f"MusicHal heard nothing within {_START_S:g} s")
        time.sleep(_SETTLE_S)

    def end(self) -> dict[str, Any]:
        """Let it end in order; returns its summary. Raises `InputError` with its last words where it has none."""
        self.process.terminate()
        out, err = self.process.communicate(timeout=60)
        if self.process.returncode:
            raise InputError(f"MusicHal ended with {self.process.returncode}: {(err.strip().splitlines() or ['?'])[-1]}")
        summary: dict[str, Any] = json.loads(out)
        return summary

    def memory_mb(self) -> float:
        """Return its resident memory; 0 where the system does not tell in /proc."""
        status = Path(f"/proc/{self.process.pid}/status")
        with contextlib.suppress(OSError):
            return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmRSS:")) / 1024
        return 0.0


@contextmanager
def _stage(partner: Path, device: str, *, block: int, player: str, answers: Path | None = None) -> Iterator[_Stage]:
    with tempfile.TemporaryDirectory() as folder:
        listens = Path(folder) / "listens"
        settings = {"partner": str(partner), "device": device, "block": block, "player": player, "listens": str(listens)}
        stage = _Stage({**settings, "answers": None if answers is None else str(answers)}, listens)
        try:
            yield stage
        finally:
            if stage.process.poll() is None:
                stage.process.kill()
            stage.process.wait()
