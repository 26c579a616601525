"""When notes fall: memory's own time, stretched to the player's pace, and moved onto a pulse where that is asked for."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from musichal.partner.decision import PlannedNote
from musichal.partner.pulse import quantised_s
from musichal.partner.turn import Turn
from musichal.partner.voices import Part

_RINGING = 2.5
_SHORTEST_S = 0.02
_LONGEST_HELD_S = 1.2


@dataclass(frozen=True)
class Timed:
    """What each voice plays, and how long the state lasts."""

    parts: tuple[Part, ...]
    duration_s: float


def in_time(parts: Sequence[Part], turn: Turn, *, now_s: float, duration_s: float) -> Timed:
    """Return what voices play from `now_s` on in the time of a turn.

    The turn's stretch lengthens everything, the strength of its settings' `quantise` moves onsets, and where the next
    state begins, onto its pulse; the last notes of all ring on. What answers an onset sounds with its first note at once.
    """
    settings = turn.settings
    if turn.at_once:
        parts = _begun(parts, now_s)
    if turn.stretch == 1 and turn.pulse is None and not turn.last:
        return _until(Timed(tuple(parts), duration_s), turn.until_s, now_s)

    def moved(time_s: float) -> float:
        later_s = now_s + (time_s - now_s) * turn.stretch
        if turn.pulse is None or not settings.quantise:
            return later_s
        return quantised_s(later_s, turn.pulse, strength=settings.quantise, subdivision=settings.subdivision, earliest_s=now_s)

    longer = turn.stretch * (_RINGING if turn.last else 1.0)
    timed = []
    for part in parts:
        notes = tuple(
            PlannedNote(moved(note.onset_s), note.duration_s * longer, note.pitch, note.velocity) for note in part.notes
        )
        timed.append(dataclasses.replace(part, notes=notes))
    return _until(Timed(tuple(timed), max(_SHORTEST_S, moved(now_s + duration_s) - now_s)), turn.until_s, now_s)


def _until(timed: Timed, until_s: float | None, now_s: float) -> Timed:
    """Return what is played, over at `until_s`.

    What is longer is cut there, though what sounds rings on; what would be over before is held, unless that is long.
    """
    if until_s is None:
        return timed
    longer = (until_s - now_s) / timed.duration_s
    if longer > 1 and until_s - now_s > _LONGEST_HELD_S:
        return timed
    notes = [[n for n in part.notes if n.onset_s < until_s] for part in timed.parts]
    held = [[dataclasses.replace(n, duration_s=n.duration_s * max(1.0, longer)) for n in own] for own in notes]
    parts = tuple(dataclasses.replace(p, notes=tuple(own)) for p, own in zip(timed.parts, held, strict=True))
    return Timed(parts, max(_SHORTEST_S, until_s - now_s))


def _begun(parts: Sequence[Part], now_s: float) -> list[Part]:
    """Return what voices play, all of it earlier by as much as the first note of a state lies behind the state's beginning."""
    wait_s = min((note.onset_s - now_s for part in parts for note in part.notes), default=0.0)
    return [
        dataclasses.replace(
            part, notes=tuple(dataclasses.replace(n, onset_s=max(now_s, n.onset_s - wait_s)) for n in part.notes)
        )
        for part in parts
    ]
