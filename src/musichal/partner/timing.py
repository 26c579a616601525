"""When the notes of a choice fall.

Notes keep memory's own time, stretched to the player's pace, and move onto a pulse where `quantise` asks for it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from musichal.note import Note
from musichal.pulse import Pulse

_RINGING = 2.5
_SHORTEST_S = 0.02
_LONGEST_HELD_S = 1.2


def quantised_s(time_s: float, pulse: Pulse, *, strength: float, subdivision: int, earliest_s: float) -> float:
    """Return a time moved towards the pulse: not at all at a `strength` of 0, onto it at 1, never before `earliest_s`."""
    target_s = pulse.nearest_s(time_s, subdivision=subdivision)
    if target_s < earliest_s:
        target_s = pulse.next_s(earliest_s, subdivision=subdivision)
    return max(earliest_s, time_s + strength * (target_s - time_s))


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
