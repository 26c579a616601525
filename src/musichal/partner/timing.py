"""When the notes of a choice fall: beat to beat on a pulse, or in memory's own time.

A state of memory knows its place in its recording's beat. With a pulse in the room, memory's time is mapped to the room's from
beat to beat: a state begins where the room's beat has the state's phase, and lasts as many beats as it did. Recorded deviations
from the beat stay, at any tempo. A room that counts half or twice as fast as memory is met on the level nearest to memory's.
Candidates are weighed by how near their phase is to the one wanted, by exp(s (cos 2πΔφ − 1)) as in Somax2 (Borg; Assayag et
al., Computer Music Journal 46(4)), so that the time that they must be moved by is small; and by how often memory strikes notes
there.

Without a pulse, notes keep memory's own time, stretched to the player's pace. `quantise` moves notes onto the pulse's grid.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from musichal.arrays import Bool, Float64, Int64
from musichal.hearing.beats import PLACES, beat_part
from musichal.memory.beat_places import in_sure_beat
from musichal.memory.memory import Memory
from musichal.note import PERCUSSION_CHANNEL, Note
from musichal.partner.memory_pool import MemoryPool
from musichal.pulse import Pulse

_RINGING = 2.5
_SHORTEST_S = 0.02
ATTACK_S = 0.05  # what begins later in a state than this was not struck with it
_LONGEST_HELD_S = 1.2
_UNKNOWN = 0.4  # factor of a state whose place in the beat is not known, beside 1 for one that lies where it is wanted
_UNSTRUCK = 0.25  # factor of a state whose notes swell: when they begin, cannot be told to a part of a beat


def quantised_s(time_s: float, pulse: Pulse, *, strength: float, subdivision: int, earliest_s: float) -> float:
    """Return a time moved towards the pulse: not at all at a `strength` of 0, onto it at 1, never before `earliest_s`."""
    target_s = pulse.nearest_s(time_s, subdivision=subdivision)
    if target_s < earliest_s:
        target_s = pulse.next_s(earliest_s, subdivision=subdivision)
    return max(earliest_s, time_s + strength * (target_s - time_s))


def struck_places(memory: Memory) -> Float64:
    """Return how often memory strikes notes in each part of a beat, beside the part where it does so most, shape (PLACES,).

    The notes of a part count half for those beside it. All parts have 1 where no beat is sure.
    """
    states = memory.states
    of = np.repeat(np.arange(len(states)), states["note_count"])
    known = in_sure_beat(states)[of]
    of, offsets_s = of[known], memory.notes["offset_s"][known].astype(np.float64)
    phases = states["beat_phase"][of] + offsets_s / states["beat_period_s"][of]
    struck = np.bincount(beat_part(phases), minlength=PLACES) / 1.0
    struck += (np.roll(struck, 1) + np.roll(struck, -1)) / 2
    return struck / struck.max() if struck.any() else np.ones(PLACES)


@dataclass(frozen=True)
class BeatFit:
    """How states of memory meet a pulse, each of shape (n,).

    `known` says whether a state's place in the beat is known, `unstruck` whether its notes began without an attack; the rest
    holds for those that are known. `usual` is how often memory strikes notes at the state's `phase`, beside the place in the
    beat where it does so most. A state's beat lasts `beat_s` in the room, a `stretch` of what it lasted in memory; `away` is
    the part of that by which the state's phase lies behind the phase wanted, and `step_s` the time from one place that it fits
    to the next.
    """

    known: Bool
    unstruck: Bool
    usual: Float64
    phase: Float64
    away: Float64
    beat_s: Float64
    stretch: Float64
    step_s: Float64


@dataclass(frozen=True)
class BeatPlan:
    """What is decided goes by a `pulse`, with a `strength` from 0 to 1.

    It should begin at `start_s` and not before `earliest_s`; `offset` is the part of a beat by which it lies behind memory's
    place in the beat. A `bound` choice begins at `start_s` whatever its place in the beat, as where it answers an onset.
    """

    pulse: Pulse
    strength: float
    start_s: float
    earliest_s: float
    offset: float = 0.0
    bound: bool = False

    def fit(self, library: MemoryPool, states: Int64) -> BeatFit:
        """Return how ascending `states` meet the pulse."""
        of_memory = library.rows(states)
        rows, beside = of_memory.rows, of_memory.beside
        unstruck = ~beside["struck"] & (beside["notes"] > 0)
        phase, memory_s = rows["beat_phase"].astype(np.float64), rows["beat_period_s"].astype(np.float64)
        known = in_sure_beat(rows)
        memory_s = np.where(known, memory_s, self.pulse.period_s)
        level = 2.0 ** np.rint(np.log2(self.pulse.period_s / memory_s))
        beat_s = self.pulse.period_s / level
        # Where memory's beat spans several of the room's, each of these may be where it begins.
        step = np.minimum(1.0, level)
        wanted = (self.start_s - self.pulse.beat_s) / beat_s
        away = (phase + self.offset - wanted + step / 2) % step - step / 2
        usual = library.base.memory.derived(struck_places).take(beat_part(phase))
        return BeatFit(known, unstruck, usual, phase, away, beat_s, beat_s / memory_s, step * beat_s)

    def factors(self, fit: BeatFit, *, sharpness: float) -> Float64:
        """Return the factor of each state, shape (n,): 1 where it lies where it is wanted, and where memory strikes most."""
        near = np.exp(sharpness * (np.cos(2 * np.pi * fit.away * fit.beat_s / fit.step_s) - 1))
        factors = np.where(fit.known, near * fit.usual, _UNKNOWN)
        return 1 - self.strength * (1 - np.where(fit.unstruck, _UNSTRUCK, 1.0) * factors)

    def begin_s(self, fit: BeatFit, row: int) -> float:
        """Return when a state begins."""
        if self.bound or not fit.known[row]:
            return max(self.earliest_s, self.start_s)
        begin_s = self.start_s + self.strength * float(fit.away[row] * fit.beat_s[row])
        step_s = float(fit.step_s[row])
        return begin_s + max(0, math.ceil((self.earliest_s - begin_s) / step_s - 1e-9)) * step_s

    def stretch(self, fit: BeatFit, row: int) -> float | None:
        """Return how much longer than recorded a state lasts, None where its beat is not known."""
        return float(fit.stretch[row]) ** self.strength if fit.known[row] else None


Parts = dict[str, tuple[Note, ...]]
"""The notes of each voice, by its name."""


@dataclass(frozen=True, kw_only=True)
class NoteTiming:
    """How the notes of a choice move in time.

    `plan` is the pulse that it goes by, None for none. `stretch` lengthens everything; onsets move by the strength `quantise`
    onto the `pulse`, which has `subdivision` places a beat; the notes of a `last` choice ring on; the first note of one that is
    `at_once` sounds without waiting; `until_s` is when the next choice must begin.
    """

    plan: BeatPlan | None = None
    stretch: float = 1.0
    pulse: Pulse | None = None
    quantise: float = 0.0
    subdivision: int = 4
    last: bool = False
    at_once: bool = False
    until_s: float | None = None

    def stretched(self, stretch: float) -> "NoteTiming":
        """Return the same with another stretch."""
        return NoteTiming(**{**vars(self), "stretch": stretch})  # `replace` takes longer


FREE = NoteTiming()
"""Notes as memory has them."""


def in_time(parts: Parts, timing: NoteTiming, *, start_s: float, duration_s: float) -> tuple[Parts, float]:
    """Return what voices play from `start_s` on, and how long it lasts, where memory took `duration_s`."""
    if timing.at_once:
        parts = _begun(parts, start_s)
    if timing.plan is not None:
        parts = _each(parts, lambda note: _on_pulse(note, timing, start_s))
    if timing.stretch == 1 and timing.pulse is None and not timing.last:
        return _until(parts, duration_s, timing.until_s, start_s)

    def moved(time_s: float) -> float:
        later_s = start_s + (time_s - start_s) * timing.stretch
        if timing.pulse is None or not timing.quantise:
            return later_s
        return quantised_s(
            later_s, timing.pulse, strength=timing.quantise, subdivision=timing.subdivision, earliest_s=start_s
        )  # fmt: skip

    longer = timing.stretch * (_RINGING if timing.last else 1.0)
    parts = _each(parts, lambda note: _moved(note, moved(note.onset_s), note.duration_s * longer))
    return _until(parts, max(_SHORTEST_S, moved(start_s + duration_s) - start_s), timing.until_s, start_s)


def _on_pulse(note: Note, timing: NoteTiming, start_s: float) -> Note:
    """Return a note that began without an attack, inside its state, on the pulse: when it began was heard only roughly."""
    plan, after_s = timing.plan, note.onset_s - start_s
    if plan is None or after_s <= ATTACK_S or note.channel == PERCUSSION_CHANNEL:
        return note
    at_s, parts = start_s + after_s * timing.stretch, timing.subdivision
    at_s = quantised_s(at_s, plan.pulse, strength=plan.strength, subdivision=parts, earliest_s=start_s)
    return _moved(note, start_s + (at_s - start_s) / timing.stretch, note.duration_s)


def _until(parts: Parts, duration_s: float, until_s: float | None, start_s: float) -> tuple[Parts, float]:
    """Return what is played, over at `until_s`: without notes that begin later, held until then if it is a little shorter."""
    if until_s is None:
        return parts, duration_s
    longer = (until_s - start_s) / duration_s
    if longer > 1 and until_s - start_s > _LONGEST_HELD_S:
        return parts, duration_s
    parts = {voice: tuple(n for n in notes if n.onset_s < until_s) for voice, notes in parts.items()}
    held = _each(parts, lambda note: _moved(note, note.onset_s, note.duration_s * max(1.0, longer)))
    return held, max(_SHORTEST_S, until_s - start_s)


def _begun(parts: Parts, start_s: float) -> Parts:
    """Return what voices play, with the first of all notes at once."""
    wait_s = min((note.onset_s - start_s for notes in parts.values() for note in notes), default=0.0)
    return _each(parts, lambda note: _moved(note, max(start_s, note.onset_s - wait_s), note.duration_s))


def _moved(note: Note, onset_s: float, duration_s: float) -> Note:
    return Note(onset_s, duration_s, note.pitch, note.velocity, note.channel)  # `replace` takes three times as long


def _each(parts: Parts, change: Callable[[Note], Note]) -> Parts:
    return {voice: tuple(map(change, notes)) for voice, notes in parts.items()}
