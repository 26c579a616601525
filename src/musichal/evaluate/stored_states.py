"""Gestures and notes beside those that the memory keeps: what is played is made of them, not of tokens.

The live path's gestures and notes are laid down as the trainer lays them down, and each value is compared with the memory's,
bit for bit: where a gesture starts and how long it is, its tokens, level, chroma and vector, and the notes in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from musichal.arrays import AnyArray, Float32, Records
from musichal.evaluate.parity import LiveStream
from musichal.evaluate.verification import Check
from musichal.memory.memory import NOTE, STATE, Memory, assign_notes, note_rows, state_row

_GESTURE_VALUES = ("start_s", "duration_s", "ioi_s", "tokens", "level_db", "chroma", "starts_at_onset")
_NOTE_VALUES = ("offset_s", "duration_s", "pitch", "velocity")
_WORDS = {
    "start_s": "start",
    "duration_s": "duration",
    "ioi_s": "time since the one before",
    "tokens": "tokens",
    "level_db": "level",
    "chroma": "chroma",
    "starts_at_onset": "start at an onset",
    "vector": "vector",
    "state": "gesture",
    "offset_s": "onset in its gesture",
    "pitch": "pitch",
    "velocity": "velocity",
}


@dataclass(frozen=True)
class Remembered:
    """One recording's part of a memory: `STATE` (n,), the vectors (n, dims), `NOTE` (m,), and whose notes they are (m,)."""

    states: Records
    vectors: Float32
    notes: Records
    owners: AnyArray


def remembered(memory: Memory, recording: int) -> Remembered:
    """Return what a memory keeps of one of its recordings."""
    own = np.flatnonzero(memory.states["recording"] == recording)
    states = memory.states[own]
    first = int(states["first_note"][0]) if len(own) else 0
    notes = memory.notes[first : first + int(states["note_count"].sum())]
    return Remembered(states, memory.oracle.vectors()[own], notes, np.repeat(np.arange(len(own)), states["note_count"]))


def as_remembered(live: LiveStream) -> Remembered:
    """Return a live pass as the trainer would lay it down in a memory."""
    assigned = assign_notes(live.gestures, live.notes)
    states, notes = np.zeros(len(live.gestures), dtype=STATE), [np.zeros(0, dtype=NOTE)]
    count, before_s = 0, None
    for number, (gesture, own) in enumerate(zip(live.gestures, assigned, strict=True)):
        states[number] = state_row(gesture, recording=0, previous_start_s=before_s, first_note=count, note_count=len(own))
        notes.append(note_rows(gesture, own))
        count, before_s = count + len(own), gesture.start_s
    vectors = np.stack([g.vector for g in live.gestures]) if live.gestures else np.zeros((0, 0), np.float32)
    return Remembered(states, vectors, np.concatenate(notes), np.repeat(np.arange(len(states)), states["note_count"]))


def remembered_checks(name: str, kept: Remembered, live: Remembered, *, is_new: bool) -> tuple[Check, Check]:
    """Return the checks that live gestures and live notes are the kept ones, each value of each, bit for bit."""
    gestures = [(value, kept.states[value], live.states[value]) for value in _GESTURE_VALUES]
    notes = [("state", kept.owners, live.owners), *((value, kept.notes[value], live.notes[value]) for value in _NOTE_VALUES)]
    starts_s = kept.states["start_s"]
    times_s = starts_s[kept.owners] + kept.notes["offset_s"] if len(kept.notes) else np.zeros(0)
    return (
        _check(name, "gesture", [*gestures, ("vector", kept.vectors, live.vectors)], starts_s, is_new=is_new),
        _check(name, "note", notes, times_s, is_new=is_new),
    )


def _check(
    name: str, kind: str, columns: Sequence[tuple[str, AnyArray, AnyArray]], times_s: AnyArray, *, is_new: bool
) -> Check:
    counts = len(columns[0][1]), len(columns[0][2])
    n, longest = min(counts), max(counts)
    differs = {value: _rows_that_differ(a[:n], b[:n]) for value, a, b in columns}
    anywhere = np.logical_or.reduce(list(differs.values())) if n else np.zeros(0, dtype=bool)
    same = int(n - anywhere.sum())
    passed = same == longest
    detail, first = "every value, bit for bit", None
    if not passed:
        first = int(anywhere.argmax()) if anywhere.any() else n
        detail = f"first at {kind} {first}"
        if first < n:
            values = [value for value in differs if differs[value][first]]
            detail += f" ({float(times_s[first]):.3f} s): another {', '.join(_WORDS[v] for v in values)}"
        else:
            detail += f": live has {counts[1]}, not {counts[0]}"
    return Check(
        group="parity",
        name=f"{name}, {kind}s, {'heard again' if is_new else 'live'}",
        expected=f"{longest} of {longest}",
        found=f"{same} of {longest}",
        passed=passed,
        detail=detail,
        cause="" if passed else "follows from what differs before it; by itself, the smoothing of gestures or the note model",
        values={
            "kept": counts[0],
            "live": counts[1],
            "equal": same,
            "first_difference": first,
            "differing": {value: int(rows.sum()) for value, rows in differs.items()},
        },
    )


def _rows_that_differ(a: AnyArray, b: AnyArray) -> AnyArray:
    """Return which rows differ in any value, shape (n,)."""
    if a.shape != b.shape:
        return np.ones(len(a), dtype=bool)
    differs = a != b
    return differs if differs.ndim == 1 else np.asarray(differs.any(axis=1))
