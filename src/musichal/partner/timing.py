"""Time: the pulse of the player or of a clock, and when the notes of a choice fall.

The beat is a hidden variable, period and phase on a grid of frames. Its posterior is filtered forwards only, so that every
beat is *predicted* (the state space of Krebs, Böck & Widmer, An efficient state-space model for joint tempo and meter
tracking, ISMIR 2015: one state per frame of a beat; tempo changes on the beat alone, large ones are unlikely). Observed are
onsets, weighed by how much they stand out: likeliest on the beat, less so on its half and its quarters. The prior of the
period is the resonance curve around 0.5 s (van Noorden & Moelants, J. New Music Research 28(1), 1999).

Notes keep memory's own time, stretched to the player's pace, and move onto a pulse where `quantise` asks for it.

Conventions
-----------
Times are seconds of the input stream, periods seconds per beat. A `Pulse` is a straight line through time: beat number k
falls at ``beat_s + k * period_s``.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeGuard

import numpy as np

from musichal.arrays import Float64
from musichal.errors import InputError
from musichal.hearing.percepts import Percept
from musichal.note import Note

SHORTEST_BEAT_S, LONGEST_BEAT_S = 0.3, 0.8
"""Periods that the tracker considers: little more than an octave, so that one level of the metre is preferred."""
_FRAME_S, _USUAL_S = 0.01, 0.5
_TEMPO_RIGIDITY = 120.0  # rate at which a relative change of tempo from beat to beat becomes unlikely
# So many times likelier is an onset of strength 1 there, within the width; and what a beat without an onset speaks against it.
_ON_BEAT, _ON_HALF, _ON_QUARTER, _WIDTH_S, _MISSING = 6.0, 2.5, 0.8, 0.025, 0.02
_RINGING = 2.5
_SHORTEST_S = 0.02
_LONGEST_HELD_S = 1.2
TICKS_PER_BEAT = 24
"""Of MIDI clock."""


@dataclass(frozen=True)
class Pulse:
    """Beats at `beat_s` + k × `period_s`, known with a `confidence` from 0 to 1; `source` is "heard" or "clock"."""

    beat_s: float
    period_s: float
    confidence: float = 1.0
    source: str = "heard"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.beat_s) and 0.1 <= self.period_s <= 10 and 0 <= self.confidence <= 1):
            raise InputError("a pulse needs a time, a period from 0.1 to 10 s per beat and a confidence from 0 to 1")

    @property
    def tempo_bpm(self) -> float:
        """Return the tempo in beats per minute."""
        return 60 / self.period_s

    def nearest_s(self, time_s: float, *, subdivision: int = 1) -> float:
        """Return the time of the nearest beat, or part of a beat."""
        step_s = self.period_s / subdivision
        return self.beat_s + round((time_s - self.beat_s) / step_s) * step_s

    def next_s(self, time_s: float, *, subdivision: int = 1) -> float:
        """Return the time of the first beat, or part of a beat, that does not lie before `time_s`."""
        step_s = self.period_s / subdivision
        return self.beat_s + math.ceil((time_s - self.beat_s) / step_s - 1e-6) * step_s


def quantised_s(time_s: float, pulse: Pulse, *, strength: float, subdivision: int, earliest_s: float) -> float:
    """Return a time moved towards the pulse: not at all at a `strength` of 0, onto it at 1, never before `earliest_s`."""
    target_s = pulse.nearest_s(time_s, subdivision=subdivision)
    if target_s < earliest_s:
        target_s = pulse.next_s(earliest_s, subdivision=subdivision)
    return max(earliest_s, time_s + strength * (target_s - time_s))


def clock_pulse(value: object, now_s: float) -> Pulse | None:
    """Return the pulse that a clock gives, None for a clock that has stopped.

    `value` is a `Pulse`, {"beat_s": …, "period_s": …}, a tempo from 6 to 600 beats per minute with a beat now, or None. Raises
    `InputError` for anything else.
    """
    if value is None:
        return None
    if isinstance(value, Pulse):
        return Pulse(value.beat_s, value.period_s, value.confidence, "clock")
    if _is_number(value) and 6 <= value <= 600:
        return Pulse(now_s, 60 / value, 1.0, "clock")
    if isinstance(value, Mapping) and set(value) == {"beat_s", "period_s"} and all(map(_is_number, value.values())):
        return Pulse(float(value["beat_s"]), float(value["period_s"]), 1.0, "clock")
    raise InputError(
        "clock must be a tempo in [6, 600] beats per minute, {'beat_s': second, 'period_s': seconds per beat}, or None,"
        f" got {value!r}"
    )


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


class TickClock:
    """A pulse from MIDI clock: 24 ticks a beat, their jitter smoothed by a straight line through the last ones.

    `start` says that the next tick is a beat; a tick later than `lost_s` after the one before it begins anew.
    """

    def __init__(self, *, ticks: int = 2 * TICKS_PER_BEAT, lost_s: float = 0.5) -> None:
        self._times: deque[float] = deque(maxlen=ticks)
        self._lost_s = lost_s
        self._number = -1

    def start(self) -> None:
        """Take MIDI's Start, or Continue: the next tick is a beat."""
        self._times.clear()
        self._number = -1

    def tick(self, time_s: float) -> Pulse | None:
        """Take a tick; return the pulse, or None while there are too few of them for one."""
        if self._times and not 0 < time_s - self._times[-1] <= self._lost_s:
            # The count goes on, although which tick of the beat this is is not known.
            self._times.clear()
        self._times.append(time_s)
        self._number += 1
        if len(self._times) < TICKS_PER_BEAT // 2:
            return None
        numbers = np.arange(self._number - len(self._times) + 1, self._number + 1)
        step_s, first_s = np.polyfit(numbers - self._number, np.array(self._times), 1)
        period_s = float(step_s) * TICKS_PER_BEAT
        if not 0.1 <= period_s <= 10:
            return None
        since_beat = self._number % TICKS_PER_BEAT
        return Pulse(float(first_s) - since_beat * float(step_s), period_s, 1.0, "clock")


class BeatTracker:
    """Follows the beat: `hear` takes percepts, `advance` onsets, each up to a time until which all onsets are known."""

    def __init__(self) -> None:
        lengths = np.arange(round(SHORTEST_BEAT_S / _FRAME_S), round(LONGEST_BEAT_S / _FRAME_S) + 1)
        phase = np.arange(lengths[-1])
        self._lengths = lengths
        inside = phase[None, :] < lengths[:, None]
        log_ratio = np.log2(lengths * _FRAME_S / _USUAL_S)
        prior = np.exp(-0.5 * (log_ratio / 0.6) ** 2)
        self._posterior: Float64 = inside * (prior / lengths)[:, None]
        self._posterior /= self._posterior.sum()
        change = np.exp(-_TEMPO_RIGIDITY * np.abs(lengths[None, :] / lengths[:, None] - 1)) * prior[None, :] ** 0.02
        self._change: Float64 = change / change.sum(axis=1, keepdims=True)
        part = phase[None, :] / lengths[:, None]

        def near(*places: float) -> Float64:
            away = np.min([np.abs((part - p + 0.5) % 1 - 0.5) for p in places], axis=0) * lengths[:, None] * _FRAME_S
            return np.exp(-0.5 * (away / _WIDTH_S) ** 2)

        self._unstruck: Float64 = 1 - _MISSING * (near(0.0) * inside)
        bumps = _ON_BEAT * near(0.0) + _ON_HALF * near(0.5) + _ON_QUARTER * near(0.25, 0.75)
        # The mean over a period is 1 for every period: no tempo is likelier for the mere number of onsets.
        likelihood = (1 + bumps) * inside
        # Each place is so much likelier with an onset of full strength: times 1 + that.
        self._struck: Float64 = np.where(inside, likelihood / (likelihood.sum(axis=1) / lengths)[:, None], 0) - 1
        # Places in the posterior, one row after the other: the last of each beat, and those behind it.
        self._last = np.arange(len(lengths)) * lengths[-1] + lengths - 1
        self._behind = self._last[:-1] + 1
        self._frame = 0
        self._waiting: deque[tuple[int, float]] = deque()
        self._known: deque[float] = deque(maxlen=64)
        self._loudest = 1e-6
        self._onsets_seen = 0

    def hear(self, percept: Percept, *, sample_rate_hz: int) -> None:
        """Take a percept: its onsets, each as strong as the level rises there, in what is percussive most of all."""
        heard = percept.heard
        times = heard.frame_samples / sample_rate_hz
        end_s = (heard.start_sample + heard.length_samples) / sample_rate_hz
        levels = np.maximum(heard.source_level_db[1], heard.level_db - 12)
        onsets = []
        for sample in heard.onset_samples:
            onset_s = sample / sample_rate_hz
            around = levels[(times >= onset_s - 0.01) & (times <= onset_s + 0.06)]
            power = 10 ** (float(around.max()) / 20) if len(around) else self._loudest / 2
            self._loudest = max(power, 0.97 * self._loudest)
            onsets.append((onset_s, min(1.0, power / self._loudest)))
        self.advance(onsets, until_s=end_s)

    def advance(self, onsets: list[tuple[float, float]], *, until_s: float) -> None:
        """Move on to `until_s`, past `onsets`: (second, strength from 0 to 1) each, in order."""
        self._waiting.extend((round(onset_s / _FRAME_S), strength) for onset_s, strength in onsets)
        last = math.floor(until_s / _FRAME_S)
        while self._frame < last:
            strength = 0.0
            while self._waiting and self._waiting[0][0] <= self._frame:
                strength = max(strength, self._waiting.popleft()[1])
            self._step(strength)

    def pulse(self) -> Pulse | None:
        """Return the beat as it stands, None before there was an onset.

        The confidence is the share of the posterior that agrees: within 4 % of the period and an eighth of a beat.
        """
        if self._onsets_seen < 2:
            return None
        row, column = np.unravel_index(int(np.argmax(self._smooth())), self._posterior.shape)
        length = int(self._lengths[row])
        rows = np.abs(self._lengths / length - 1) <= 0.04
        near = self._posterior[rows]
        mass = near.sum()
        parts = (np.arange(near.shape[1])[None, :] / self._lengths[rows][:, None] - column / length + 0.5) % 1 - 0.5
        agree = near * (np.abs(parts) <= 0.125)
        confidence = float(agree.sum())
        if confidence <= 0 or mass <= 0:
            return None
        period = float((agree.sum(axis=1) * self._lengths[rows]).sum() / confidence)
        part = column / length + float((agree * parts).sum()) / confidence
        # The posterior is that of the frame before the present one.
        return Pulse((self._frame - 1) * _FRAME_S - part * period * _FRAME_S, period * _FRAME_S, min(1.0, confidence))

    def _smooth(self) -> Float64:
        padded = np.pad(self._posterior, ((2, 2), (0, 0)))
        return padded[:-4] + padded[1:-3] + padded[2:-2] + padded[3:-1] + padded[4:]

    def _step(self, strength: float) -> None:
        posterior = self._posterior
        first = posterior.ravel().take(self._last) @ self._change
        moved = np.empty_like(posterior)
        # All rows at once, as one: what comes to a row's first place from the row before it is overwritten.
        moved.ravel()[1:] = posterior.ravel()[:-1]
        moved.ravel()[self._behind] = 0  # what went past the end of a beat starts the next one
        moved[:, 0] = first
        if strength > 0:
            moved *= 1 + strength * self._struck
            self._onsets_seen += 1
        else:
            moved *= self._unstruck
        moved /= moved.sum()
        self._posterior = moved
        self._frame += 1


def predicted_beats(percepts: Iterable[Percept], *, sample_rate_hz: int) -> Float64:
    """Return the beats of a performance, each as it was predicted before it was heard, shape (n,), in seconds."""
    tracker = BeatTracker()
    beats: list[float] = []
    pulse: Pulse | None = None
    heard_s = 0.0
    for percept in percepts:
        now_s = percept.heard.available_at / sample_rate_hz
        if pulse is not None:
            beat_s = pulse.next_s(heard_s)
            while beat_s < now_s:
                if not beats or beat_s - beats[-1] > 0.6 * pulse.period_s:
                    beats.append(beat_s)
                beat_s += pulse.period_s
        tracker.hear(percept, sample_rate_hz=sample_rate_hz)
        pulse, heard_s = tracker.pulse(), now_s
    return np.array(beats)


Parts = dict[str, tuple[Note, ...]]
"""The notes of each voice, by its name."""


@dataclass(frozen=True, kw_only=True)
class NoteTiming:
    """How the notes of a choice move in time.

    `stretch` lengthens everything; onsets move by the strength `quantise` onto the `pulse`, which has `subdivision` places a
    beat; the notes of a `last` choice ring on; the first note of one that is `at_once` sounds without waiting; `until_s` is
    when the next choice must begin.
    """

    stretch: float = 1.0
    pulse: Pulse | None = None
    quantise: float = 0.0
    subdivision: int = 4
    last: bool = False
    at_once: bool = False
    until_s: float | None = None


FREE = NoteTiming()
"""Notes as memory has them."""


def in_time(parts: Parts, timing: NoteTiming, *, now_s: float, duration_s: float) -> tuple[Parts, float]:
    """Return what voices play from `now_s` on, and how long it lasts, where memory took `duration_s`."""
    if timing.at_once:
        parts = _begun(parts, now_s)
    if timing.stretch == 1 and timing.pulse is None and not timing.last:
        return _until(parts, duration_s, timing.until_s, now_s)

    def moved(time_s: float) -> float:
        later_s = now_s + (time_s - now_s) * timing.stretch
        if timing.pulse is None or not timing.quantise:
            return later_s
        return quantised_s(
            later_s, timing.pulse, strength=timing.quantise, subdivision=timing.subdivision, earliest_s=now_s
        )  # fmt: skip

    longer = timing.stretch * (_RINGING if timing.last else 1.0)
    parts = _each(parts, lambda note: replace(note, onset_s=moved(note.onset_s), duration_s=note.duration_s * longer))
    return _until(parts, max(_SHORTEST_S, moved(now_s + duration_s) - now_s), timing.until_s, now_s)


def _until(parts: Parts, duration_s: float, until_s: float | None, now_s: float) -> tuple[Parts, float]:
    """Return what is played, over at `until_s`: cut there if it is longer, held until then if it is a little shorter."""
    if until_s is None:
        return parts, duration_s
    longer = (until_s - now_s) / duration_s
    if longer > 1 and until_s - now_s > _LONGEST_HELD_S:
        return parts, duration_s
    parts = {voice: tuple(n for n in notes if n.onset_s < until_s) for voice, notes in parts.items()}
    held = _each(parts, lambda note: replace(note, duration_s=note.duration_s * max(1.0, longer)))
    return held, max(_SHORTEST_S, until_s - now_s)


def _begun(parts: Parts, now_s: float) -> Parts:
    """Return what voices play, with the first of all notes at once."""
    wait_s = min((note.onset_s - now_s for notes in parts.values() for note in notes), default=0.0)
    return _each(parts, lambda note: replace(note, onset_s=max(now_s, note.onset_s - wait_s)))


def _each(parts: Parts, change: Callable[[Note], Note]) -> Parts:
    return {voice: tuple(map(change, notes)) for voice, notes in parts.items()}
