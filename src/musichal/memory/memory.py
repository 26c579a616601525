"""The memory: every gesture that was heard, in order, with its notes, its drum hits and the indexes over it.

A *state* is one gesture. States, notes and hits are columns; each of the two token streams has an exact longest-context index,
the gestures' vectors an Audio Oracle. All are append-only, in training and while playing. A state's number is its position
in both indexes; the oracle, whose state 0 is the empty past, counts one higher.

A memory may be one of *pairs*: of some of its recordings it knows how a player sounded beside them. The player's gestures are
a memory of their own (`PlayersPast`), in which the present is looked up; what is played is what the others did there.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import numpy as np

from musichal.arrays import Columns, Records
from musichal.errors import InputError
from musichal.hearing.percepts import SOURCES, Gesture
from musichal.memory.audio_oracle import AudioOracle
from musichal.memory.beat_places import BEAT_PLACE, LAST_PHASE, NO_BEAT, BeatPlace
from musichal.memory.container import require_range
from musichal.memory.ready import KEPT_FROM, KeptObjects, keepable, name_of
from musichal.memory.token_index import HIGHEST_SYMBOL, LOWEST_SYMBOL, TokenIndex
from musichal.note import HEARD_NOTE_FIELDS, HeardNote
from musichal.pulse import LONGEST_PERIOD_S

Made = TypeVar("Made")
STATE = np.dtype(
    [
        ("recording", np.uint32),
        ("start_s", np.float64),
        ("duration_s", np.float32),
        ("ioi_s", np.float32),
        ("tokens", np.int16, (len(SOURCES),)),
        ("level_db", np.float32),
        ("chroma", np.float32, (12,)),
        ("starts_at_onset", np.bool_),
        ("first_note", np.uint32),
        ("note_count", np.uint32),
        ("first_hit", np.uint32),
        ("hit_count", np.uint32),
        *((name, BEAT_PLACE[name]) for name in BEAT_PLACE.names or ()),
    ]
)
"""One gesture: where it was heard (recording, second), how long, how long after the one before it (`ioi_s`, 0 for a
recording's first), its tokens, its sound, its notes and drum hits as slices of their columns, and where in the beat it starts
(`BeatPlace`)."""

NOTE = np.dtype(HEARD_NOTE_FIELDS)
"""One note or drum hit of a state, `offset_s` after the state's start."""

# A note and the gesture that it begins are timed by different evidence; so much they may differ.
_NOTE_TOLERANCE_S = 0.05
_EXACT_TOLERANCE_S = 0.0005
_LARGEST = float(np.finfo(np.float32).max)
_DURATIONS_S = (1e-4, _LARGEST)  # the clock moves on by a state's duration: it must move
_STATE_RANGES = {
    "start_s": (0, _LARGEST),
    "duration_s": _DURATIONS_S,
    "ioi_s": (0, _LARGEST),
    "tokens": (LOWEST_SYMBOL, HIGHEST_SYMBOL),
    "level_db": (-_LARGEST, _LARGEST),
    "chroma": (0, _LARGEST),
    "beat_phase": (0, LAST_PHASE),
    "beat_period_s": (0, LONGEST_PERIOD_S),
    "bar_place": (-1, 127),
    "beat_confidence": (0, 1),
}
_EXTREMES = np.minimum.reduce, np.maximum.reduce
_FEW = 12  # that many values are sooner compared than their extremes are found
_NOTE_RANGES = {"offset_s": (0, _LARGEST), "duration_s": _DURATIONS_S, "pitch": (0, 127), "velocity": (1, 127)}


@dataclass(frozen=True)
class Place:
    """Where a state was heard."""

    recording: int
    start_s: float
    duration_s: float


@keepable()
@dataclass(frozen=True)
class Pair:
    """A player's recording and that of the others, by number; what is at t in the first is at t + `offset_s` in the second."""

    player: int
    others: int
    offset_s: float


@keepable()
@dataclass(frozen=True)
class PlayersPast:
    """How players sounded beside recordings of others: their gestures, which are never played, and what they belong to."""

    memory: "Memory"
    pairs: tuple[Pair, ...]

    def __post_init__(self) -> None:
        """Raise `InputError` where pairs and gestures do not belong together."""
        players, others = [pair.player for pair in self.pairs], [pair.others for pair in self.pairs]
        if len({*players, *others}) != 2 * len(self.pairs):
            raise InputError("memory: a recording is in more than one pair")
        if not {*self.memory.states["recording"].tolist()} <= {*players}:
            raise InputError("memory: a player's gesture belongs to no pair")


@keepable(_derived=dict, kept=lambda: None)
class Memory:
    """States in order, with their notes, drum hits, vectors and indexes.

    * `dims`: Length of a gesture's vector.
    * `threshold`: Distance below which the oracle takes two vectors for the same.
    * `players`: How players sounded beside some of its recordings; not to be changed once it is played from.
    * `worth`: What influences are worth here, by name: factors of their weights, 1 where nothing is said.
    """

    def __init__(self, *, dims: int, threshold: float) -> None:
        self.states_column = Columns(STATE)
        self.notes_column = Columns(NOTE)
        self.hits_column = Columns(NOTE)
        self.indexes: tuple[TokenIndex, ...] = tuple(TokenIndex() for _ in SOURCES)
        self.oracle = AudioOracle(dims, threshold=threshold)
        self.players: PlayersPast | None = None
        self.worth: Mapping[str, float] = {}
        self.kept: KeptObjects | None = None  # what is derived of it, made ready
        self._derived: dict[Callable[..., Any], Any] = {}

    @classmethod
    def restore(
        cls,
        states: Records,
        notes: Records,
        oracle: AudioOracle,
        *,
        hits: Records | None = None,
        players: PlayersPast | None = None,
    ) -> Self:
        """Return the memory with these columns; raises `InputError` where they contradict each other.

        The token indexes are built again: that is faster than reading and checking them.
        """
        hits = np.zeros(0, dtype=NOTE) if hits is None else hits
        _check_columns(states, notes, hits)
        if len(oracle) != len(states):
            raise InputError(f"memory: {len(states)} states, but an oracle of {len(oracle)}")
        memory = cls(dims=oracle.dims, threshold=oracle.threshold)
        memory.states_column.extend(states)
        memory.notes_column.extend(notes)
        memory.hits_column.extend(hits)
        memory.oracle, memory.players = oracle, players
        memory.index_all()
        return memory

    def index_all(self) -> None:
        """Build the token indexes anew, one after the other, and keep only what is asked of a large memory.

        Who appends many states may take the indexes off before, and call this at the end: it takes less memory.
        """
        starts = np.flatnonzero(np.diff(self.states["recording"])) + 1
        self.indexes = ()
        for source in range(len(SOURCES)):
            index = TokenIndex()
            for part in np.split(self.states["tokens"][:, source], starts):
                index.start_sequence()
                index.extend(part)
            self.indexes = (*self.indexes, index.compact() if len(self) >= KEPT_FROM else index)
        if len(self) >= KEPT_FROM:
            self.oracle.stop_growing()

    def __len__(self) -> int:
        return len(self.states_column)

    @property
    def states(self) -> Records:
        """Return the states so far, `STATE` of shape (n,)."""
        return self.states_column.view

    @property
    def notes(self) -> Records:
        """Return the notes so far, `NOTE` of shape (m,)."""
        return self.notes_column.view

    @property
    def hits(self) -> Records:
        """Return the drum hits so far, `NOTE` of shape (m,)."""
        return self.hits_column.view

    def derived(self, make: Callable[[Self], Made]) -> Made:
        """Return `make(memory)`, computed once and kept until the memory grows; callers share it and must not change it."""
        if make not in self._derived:
            name = name_of(make)
            self._derived[make] = self.kept.get(name) if self.kept is not None and name in self.kept else make(self)
        made: Made = self._derived[make]
        return made

    def of_recording(self, recording: int) -> "Memory":
        """Return the memory that holds the gestures of a recording: that of the players for one of theirs."""
        past = self.players
        return past.memory if past is not None and any(pair.player == recording for pair in past.pairs) else self

    def notes_of(self, state: int) -> Records:
        """Return the notes of a state, `NOTE` of shape (k,)."""
        row = self.states[state]
        return self.notes[int(row["first_note"]) : int(row["first_note"]) + int(row["note_count"])]

    def hits_of(self, state: int) -> Records:
        """Return the drum hits of a state, `NOTE` of shape (k,)."""
        row = self.states[state]
        return self.hits[int(row["first_hit"]) : int(row["first_hit"]) + int(row["hit_count"])]

    def gestures(self, recording: int) -> list[Gesture]:
        """Return the gestures of a recording."""
        own = self.states["recording"] == recording
        return [
            Gesture(
                start_s=float(row["start_s"]),
                duration_s=float(row["duration_s"]),
                tokens=(int(row["tokens"][0]), int(row["tokens"][1])),
                level_db=float(row["level_db"]),
                chroma=row["chroma"],
                vector=vector,
                starts_at_onset=bool(row["starts_at_onset"]),
            )
            for row, vector in zip(self.states[own], self.oracle.vectors(own), strict=True)
        ]

    def beat_place(self, state: int) -> BeatPlace:
        """Return where in the beat a state starts."""
        return BeatPlace.of(self.states[state])

    def place(self, state: int) -> Place:
        """Return where a state was heard."""
        row = self.states[state]
        return Place(int(row["recording"]), float(row["start_s"]), float(row["duration_s"]))

    def successor(self, state: int) -> int | None:
        """Return the state that followed in the same recording, if one did."""
        if state + 1 >= len(self):
            return None
        return state + 1 if self.states["recording"][state + 1] == self.states["recording"][state] else None

    def append(
        self,
        gesture: Gesture,
        notes: Sequence[HeardNote],
        *,
        recording: int,
        beat: BeatPlace = NO_BEAT,
        hits: Sequence[HeardNote] = (),
    ) -> int:
        """Append one gesture, as `extend` does, and return its state."""
        self.extend([gesture], [notes], recording=recording, beats=[beat], hits=[hits])
        return len(self) - 1

    def extend(
        self,
        gestures: Sequence[Gesture],
        notes: Sequence[Sequence[HeardNote]],
        *,
        recording: int,
        beats: Sequence[BeatPlace],
        hits: Sequence[Sequence[HeardNote]],
    ) -> None:
        """Append gestures of a recording, each with the notes and drum hits that began in it and its place in the beat.

        Raises `InputError` if they belong to an earlier recording than the last one, or a value of what is appended is out of
        range.
        """
        last, start_s = (-1, 0.0) if not len(self) else (int(self.states[-1]["recording"]), float(self.states[-1]["start_s"]))
        if recording < last:
            raise InputError("a memory only grows at its end: recordings must come in order")
        rows, starts_sequence = np.zeros(len(gestures), dtype=STATE), recording != last
        columns: list[list[Records]] = [[np.zeros(0, dtype=NOTE)], [np.zeros(0, dtype=NOTE)]]
        firsts = [len(self.notes_column), len(self.hits_column)]
        previous_s = None if starts_sequence else start_s
        for number, (gesture, beat, *kinds) in enumerate(zip(gestures, beats, notes, hits, strict=True)):
            if previous_s is not None and gesture.start_s <= previous_s:
                raise InputError("a memory only grows at its end: gestures must come in order")
            slices = [(first, len(own)) for first, own in zip(firsts, kinds, strict=True)]
            rows[number] = state_row(
                gesture, recording=recording, previous_start_s=previous_s, notes=slices[0], hits=slices[1], beat=beat
            )
            for column, own in zip(columns, kinds, strict=True):
                if own:
                    column.append(note_rows(gesture, own))
            firsts, previous_s = [sum(one) for one in slices], gesture.start_s
        # To join records of one kind takes long: they are compared field by field.
        own_notes, own_hits = (column[-1] if len(column) <= 2 else np.concatenate(column) for column in columns)
        # Refuse what could not be restored, before anything has grown.
        _check_values(rows, own_notes, own_hits)
        self.kept = None
        self._derived.clear()
        self.oracle.extend(np.array([gesture.vector for gesture in gestures]))
        for index, tokens in zip(self.indexes, rows["tokens"].T, strict=bool(self.indexes)):
            if starts_sequence:
                index.start_sequence()
            index.extend(tokens)
        self.notes_column.extend(own_notes)
        self.hits_column.extend(own_hits)
        self.states_column.extend(rows)


def state_row(
    gesture: Gesture,
    *,
    recording: int,
    previous_start_s: float | None,
    notes: tuple[int, int],
    hits: tuple[int, int],
    beat: BeatPlace,
) -> Records:
    """Return a gesture as the memory keeps it, `STATE` of shape (); `notes` and `hits` are the first of it, and how many."""
    row = np.zeros((), dtype=STATE)
    for name in ("start_s", "duration_s", "tokens", "level_db", "chroma", "starts_at_onset"):
        row[name] = getattr(gesture, name)
    row["recording"] = recording
    (row["first_note"], row["note_count"]), (row["first_hit"], row["hit_count"]) = notes, hits
    row["ioi_s"] = 0.0 if previous_start_s is None else gesture.start_s - previous_start_s
    row["beat_phase"] = min(np.float32(beat.phase), LAST_PHASE)
    row["beat_period_s"], row["bar_place"], row["beat_confidence"] = beat.period_s, beat.bar_place, beat.confidence
    return row


def note_rows(gesture: Gesture, notes: Sequence[HeardNote]) -> Records:
    """Return the notes, or the drum hits, of a gesture as the memory keeps them, in order of time, `NOTE` of shape (k,)."""
    rows = np.zeros(len(notes), dtype=NOTE)
    for number, note in enumerate(sorted(notes, key=lambda n: (n.onset_s, n.pitch))):
        rows[number] = (max(0.0, note.onset_s - gesture.start_s), note.duration_s, note.pitch, note.velocity)
    return rows


def assign_notes(gestures: Sequence[Gesture], notes: Sequence[HeardNote], *, exact: bool = False) -> list[list[HeardNote]]:
    """Return, for each gesture of a recording, the notes, or the drum hits, that began in it.

    A note belongs to the gesture that holds its onset, or to the next one where that starts at an onset at most 50 ms after
    the note: both then mean the same attack. A note before the first gesture belongs to that one. `exact` notes, and the
    gestures that they begin, are at the same time to a sample.
    """
    assigned: list[list[HeardNote]] = [[] for _ in gestures]
    if not gestures:
        return assigned
    starts = [g.start_s for g in gestures]
    for note in notes:
        index = max(0, bisect_right(starts, note.onset_s) - 1)
        follows = index + 1 < len(gestures) and gestures[index + 1].starts_at_onset
        if follows and starts[index + 1] - note.onset_s <= (_EXACT_TOLERANCE_S if exact else _NOTE_TOLERANCE_S):
            index += 1
        assigned[index].append(note)
    return assigned


def _check_columns(states: Records, notes: Records, hits: Records) -> None:
    columns = ((states, STATE), (notes, NOTE), (hits, NOTE))
    if any(column.dtype != dtype or column.ndim != 1 for column, dtype in columns):
        raise InputError("memory: the columns of states, notes or hits have another layout")
    _check_values(states, notes, hits)
    if (np.diff(states["recording"].astype(np.int64)) < 0).any():
        raise InputError("memory: recordings are not in order")
    same = np.diff(states["recording"]) == 0
    if (np.diff(states["start_s"])[same] <= 0).any():
        raise InputError("memory: the states of a recording are not in order")
    for kind, rows in (("note", notes), ("hit", hits)):
        counts, first = states[f"{kind}_count"], states[f"first_{kind}"].astype(np.int64)
        ends = np.cumsum(counts.astype(np.int64))
        if not np.array_equal(first, ends - counts) or ends[-1:].sum() != len(rows):
            raise InputError(f"memory: states and {kind}s do not belong together")


def _check_values(states: Records, notes: Records, hits: Records) -> None:
    for columns, ranges in ((states, _STATE_RANGES), (notes, _NOTE_RANGES), (hits, _NOTE_RANGES)):
        for name, (lowest, highest) in ranges.items() if len(columns) else ():
            values = columns[name]
            extremes = values.ravel().tolist() if values.size <= _FEW else [f(values, axis=None) for f in _EXTREMES]
            if not all(lowest <= value <= highest for value in extremes):  # nor for NaN
                require_range(values, lowest, highest, f"memory: {name}")
