"""An answer beside its player: its use of memory, its harmony with what sounds, its phrases.

Conventions
-----------
Times are seconds. A *run* is a stretch of states played in recorded order and in one transposition without a rest between;
a *phrase* is sound without a gap of `PHRASE_GAP_S` or more.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from musichal.arrays import Float64
from musichal.evaluate.listening import PHRASE_GAP_S, STEP_S, Trace
from musichal.memory.memory import Memory
from musichal.note import Note
from musichal.partner.decision import Decision

_REPEATED = 4
_SHIFTS_S = (3.0, 5.0, 7.0, 11.0, 13.0)

Spans = Float64
"""Stretches of time, shape (n, 2): start and end, ascending, disjoint."""


@dataclass(frozen=True)
class MemoryUse:
    """How an answer goes through memory.

    `continued` is the share of steps from one state to the next that are the recorded ones; `mean_run` in states;
    `visited` the share of memory's states that were played; `longest_quote_s` the longest run in
    seconds, `longest_quote` in states; `repeated` the share of four
    states in a row that had been played in a row before; `learned` the share of states that are the player's own.
    """

    states: int
    continued: float
    mean_run: float
    visited: float
    longest_quote_s: float
    repeated: float
    learned: float
    longest_quote: int = 0


@dataclass(frozen=True)
class Harmony:
    """Share of notes that are in harmony with what sounds, and of the same notes moved in time, on average."""

    notes: int
    consonant: float
    consonant_when_shifted: float


@dataclass(frozen=True)
class Phrasing:
    """Turns and silences.

    `gap_s` is the median time from the end of a player's phrase to the answer's next beginning, None without one; `overlap`
    the share of the answer's sounding time in which the player sounds too; `silence` the share of time without a note;
    `phrase_s` the median length of a phrase, `phrases` how many; beside it the player's own, and the memory's recordings'.
    """

    gap_s: float | None
    overlap: float
    silence: float
    phrases: int
    phrase_s: float
    player_silence: float
    player_phrase_s: float
    memory_silence: float
    memory_phrase_s: float


def mean_of(items: Sequence[Any], **fixed: object) -> Any:
    """Return the mean of dataclass instances, field by field, but for the fields given."""
    names = [f.name for f in dataclasses.fields(items[0]) if f.name not in fixed]
    means = {name: float(np.mean([getattr(item, name) for item in items])) for name in names}
    return dataclasses.replace(items[0], **means, **fixed)


def notes_of(decisions: Sequence[Decision]) -> list[Note]:
    """Return all notes of an answer, in order of onset."""
    return sorted((n for d in decisions for n in d.notes), key=lambda n: (n.onset_s, n.pitch))


def memory_use(decisions: Sequence[Decision], memory: Memory) -> MemoryUse:
    """Return how an answer uses its memory; zeros where nothing was played."""
    runs: list[list[Decision]] = []
    before: Decision | None = None
    for decision in decisions:
        if decision.state is None:
            before = None
        elif before is None or before.choice != decision.choice:  # else another voice of the same choice
            follows = before is not None and not decision.jumped and before.transposition == decision.transposition
            runs[len(runs) - follows :] = [[*(runs[-1] if follows else ()), decision]]
            before = decision
    played = [d for run in runs for d in run]
    if not played:
        return MemoryUse(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    states = [d.state for d in played]
    rows = [tuple(states[i : i + _REPEATED]) for i in range(len(states) - _REPEATED + 1)]
    steps = len(states) - 1
    return MemoryUse(
        states=len(states),
        continued=(len(states) - len(runs)) / steps if steps else 0.0,
        mean_run=len(states) / len(runs),
        visited=len({d.state for d in played if not d.live}) / max(1, len(memory)),
        longest_quote_s=max(sum(d.duration_s for d in run) for run in runs),
        repeated=1 - len(set(rows)) / len(rows) if rows else 0.0,
        learned=sum(d.live for d in played) / len(played),
        longest_quote=max(map(len, runs)),
    )


def harmony(notes: Sequence[Note], player: Trace) -> Harmony:
    """Return how many notes are in harmony with a player.

    A note is, where the mean chroma that sounds while it does is above its own average at the note's pitch class. The same
    notes moved by 3 to 13 s, around the excerpt's end, say what chance and a common key would give. Notes to which nothing
    sounds are not counted.
    """
    counted, there = _consonance(notes, player, 0.0)
    moved = [_consonance(notes, player, shift_s) for shift_s in _SHIFTS_S]
    total = sum(n for n, _ in moved)
    return Harmony(counted, there / counted if counted else 0.0, sum(k for _, k in moved) / total if total else 0.0)


def _consonance(notes: Sequence[Note], player: Trace, shift_s: float) -> tuple[int, int]:
    n = len(player.chroma)
    counted = consonant = 0
    for note in notes:
        first = int((note.onset_s + shift_s) / STEP_S)
        rows = np.arange(first, first + max(1, round(note.duration_s / STEP_S)))
        rows = rows % n if shift_s else rows[rows < n]
        sounding = rows[player.sounding[rows]]
        chroma = player.chroma[sounding].sum(axis=0)
        if not chroma.any():
            continue
        counted += 1
        consonant += bool(chroma[note.pitch % 12] > chroma.mean())
    return counted, consonant


def phrasing(notes: Sequence[Note], player: Spans, *, duration_s: float, memory: Memory) -> Phrasing:
    """Return how an answer takes turns with a player whose phrases are `player`."""
    own = phrases_of_notes([(n.onset_s, n.onset_s + n.duration_s) for n in notes if n.onset_s < duration_s])
    gaps = [float(starts[0] - end) for end in player[:, 1] if len(starts := own[own[:, 0] >= end, 0])]
    both = sum(float(max(0.0, min(a[1], p[1]) - max(a[0], p[0]))) for a in own for p in player)
    own_s, player_s = float((own[:, 1] - own[:, 0]).sum()), float((player[:, 1] - player[:, 0]).sum())
    remembered, remembered_s = _memory_phrases(memory)
    return Phrasing(
        gap_s=float(np.median(gaps)) if gaps else None,
        overlap=both / own_s if own_s else 0.0,
        silence=max(0.0, 1 - own_s / duration_s),
        phrases=len(own),
        phrase_s=_median_length(own),
        player_silence=max(0.0, 1 - player_s / duration_s),
        player_phrase_s=_median_length(player),
        memory_silence=max(0.0, 1 - float((remembered[:, 1] - remembered[:, 0]).sum()) / remembered_s) if remembered_s else 0.0,
        memory_phrase_s=_median_length(remembered),
    )


def phrases_of_notes(spans: Sequence[tuple[float, float]]) -> Spans:
    """Return the phrases that sounding stretches make: joined where less than `PHRASE_GAP_S` lies between."""
    joined: list[list[float]] = []
    for start, end in sorted(spans):
        if joined and start - joined[-1][1] < PHRASE_GAP_S:
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([start, end])
    return np.array(joined, dtype=np.float64).reshape(-1, 2)


def player_phrases(player: Trace, *, quiet_db: float = 30.0) -> Spans:
    """Return the phrases of a player: stretches within `quiet_db` of the loudest step."""
    loud = player.loudness_db > max(float(player.loudness_db.max(initial=-np.inf)) - quiet_db, -59.0)
    return phrases_of_notes([(k * STEP_S, (k + 1) * STEP_S) for k in np.flatnonzero(loud)])


def _memory_phrases(memory: Memory) -> tuple[Spans, float]:
    """Return the phrases of all recordings in memory, one after the other, and how long the recordings are together."""
    phrases, total_s = [np.zeros((0, 2))], 0.0
    starts = np.flatnonzero(np.diff(memory.states["recording"], prepend=-1))
    for first, last in zip(starts, [*starts[1:], len(memory)], strict=True):
        spans = []
        for state in range(int(first), int(last)):
            place = memory.place(state)
            for note in memory.notes_of(state):
                onset = place.start_s + float(note["offset_s"])
                spans.append((onset, onset + float(note["duration_s"])))
        end_s = place.start_s + place.duration_s
        own = phrases_of_notes([(start, min(end, end_s)) for start, end in spans if start < end_s])
        phrases.append(own + total_s)
        total_s += end_s
    return np.concatenate(phrases), total_s


def _median_length(spans: Spans) -> float:
    return float(np.median(spans[:, 1] - spans[:, 0])) if len(spans) else 0.0
