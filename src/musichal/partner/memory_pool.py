"""Memories with everything beside them that a decision asks for.

A `MemorySegment` is one memory with columns and indexes beside it, all of which grow by appending, so that neither a decision
nor learning ever walks through all states. A `MemoryPool` is the partner's memory, which never changes, and what is learned
while playing in two small segments: the older one is dropped whenever the newer has half of what may be kept. A state's
number counts through: the partner's states, then the player's gestures in the order in which they were learned.

A memory of pairs is asked by how the player sounded: `PlayersSegment` holds the players' gestures, and where the others were
then. Its states are never played.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from musichal.arrays import AnyArray, Bool, Columns, Float32, Float64, Int64, Records
from musichal.hearing.percepts import SILENCE, Gesture
from musichal.memory.beat_places import NO_BEAT, BeatPlace
from musichal.memory.memory import STATE, Memory, Place, PlayersPast
from musichal.memory.ready import KEPT_FROM, keepable
from musichal.memory.token_index import TokenIndex
from musichal.note import HeardNote
from musichal.partner.harmony import LOOKED_THROUGH, HarmonyIndex, unit_chroma
from musichal.partner.likeness import Pasts
from musichal.partner.sounds import HEARD_LATE_S, SOUNDS, SoundIndex, recent_sounds
from musichal.partner.symbols import contour_symbol, contour_symbols, rhythm_symbol, rhythm_symbols

STRUCK_S = 0.05
"""A note that begins so soon after the onset of its state was struck with it."""
_DENSITY_REACH_S = 1.0
_BLOCK_ROWS = 1 << 20
_GAP_S = 60.0

BESIDE = np.dtype(
    [
        ("pitch_classes", np.float32, (12,)),
        ("notes", np.float32),
        ("lowest", np.uint8),
        ("highest", np.uint8),
        ("noted_before", np.int32),
        ("density_hz", np.float32),
        ("level_db", np.float32),
        ("struck", np.bool_),
    ]
)
"""Beside each state: the share of each pitch class in its notes, their number, the lowest and highest, how many states with
notes came before, how many of them a second are around it, its level, and whether it was struck: it
begins at an onset, and its first note with it."""


@keepable()
@dataclass(frozen=True)
class Usual:
    """Medians over a memory's states with notes: their density and the middle of their registers."""

    density_hz: float
    pitch: float


@keepable()
class MemorySegment:
    """A memory and what belongs beside it.

    `first` is the number of its first state in the pool, `live` whether it holds the player's gestures. The memory changes only
    by `append`, which is for small memories: harmony is indexed once, at the beginning.
    """

    def __init__(self, memory: Memory, *, first: int = 0, live: bool = False) -> None:
        self.memory = memory
        self.first = first
        self.live = live
        self.rhythm = TokenIndex()
        self.contour = TokenIndex()
        self.harmony: HarmonyIndex | None = None
        self._pasts: Pasts | None = None
        self._beside = Columns(BESIDE)
        # What is searched lies together; of recordings, their last states do.
        self._line_s = Columns(np.float64)
        self._units = Columns(np.float32, (12,))
        self._onset_states = Columns(np.int64)
        self._recordings: list[int] = []
        self._ends: list[int] = []
        self._known_ends: Int64 | None = None
        self._last_ioi_s: float | None = None
        self._last_silent = True
        self._take_in_all()
        self.usual_level_db = _usual_level_db(memory)
        self.usual = _usual(self.beside)
        self.players = None if memory.players is None else PlayersSegment(self, memory.players)

    def __len__(self) -> int:
        return len(self._beside)

    @property
    def beside(self) -> AnyArray:
        """What is beside the states, `BESIDE` of shape (n,)."""
        return self._beside.view

    @property
    def line_s(self) -> Float64:
        """Where states begin on one line of time through all recordings, with gaps between them, shape (n,)."""
        return self._line_s.view

    @property
    def units(self) -> Float32:
        """The states' `unit_chroma`, shape (n, 12)."""
        return self._units.view

    @property
    def pasts(self) -> Pasts:
        """The past of each state."""
        if self._pasts is None:
            self._pasts = Pasts(self.memory, self.line_s)
        self._pasts.extend(self.line_s)
        return self._pasts

    @property
    def onset_states(self) -> Int64:
        """The states that the symbols of `rhythm` belong to, shape (k,)."""
        return self._onset_states.view

    def last_of_recording(self, states: Int64) -> Int64:
        """Return the last state of the recording of each of `states`, or that of the only one there is."""
        if self._known_ends is None:
            self._known_ends = np.array(self._ends, dtype=np.int64)
        ends = self._known_ends
        return ends if len(ends) == 1 else ends.take(ends.searchsorted(states))

    def is_last(self, state: int) -> bool:
        """Return whether a state is the last of its recording."""
        return self._ends[bisect_left(self._ends, state)] == state

    def span(self, recording: int) -> tuple[int, int, float] | None:
        """Return a recording's first and last state, and where its beginning is on the line of time; None where it has none."""
        if recording not in self._recordings:
            return None
        place = self._recordings.index(recording)
        first = self._ends[place - 1] + 1 if place else 0
        return first, self._ends[place], float(self.line_s[first]) - float(self.memory.states["start_s"][first])

    def append(
        self,
        gesture: Gesture,
        notes: Sequence[HeardNote],
        *,
        recording: int,
        beat: BeatPlace = NO_BEAT,
        hits: Sequence[HeardNote] = (),
    ) -> int:
        """Learn a gesture, and return its state here. Raises `InputError` as `Memory.append` does."""
        state = self.memory.append(gesture, notes, recording=recording, beat=beat, hits=hits)
        self._take_in_last()
        return state

    def _take_in_all(self) -> None:
        """Make what is beside all states of a memory."""
        memory = self.memory
        states, n = memory.states, len(memory)
        if not n:
            return
        starts = np.concatenate([[0], np.flatnonzero(np.diff(states["recording"])) + 1, [n]]).astype(np.int64)
        self._ends, self._recordings = (starts[1:] - 1).tolist(), states["recording"][starts[:-1]].tolist()
        silent = (states["tokens"] == SILENCE).all(axis=1)
        beside, line_s = np.zeros(n, dtype=BESIDE), np.zeros(n)
        begin_s = 0.0
        for first, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
            own = states[first:end]
            line_s[first:end] = begin_s + own["start_s"]
            begin_s = float(line_s[end - 1]) + float(own["duration_s"][-1]) + _GAP_S
            self.rhythm.start_sequence()
            onsets = np.flatnonzero(own["starts_at_onset"] & ~silent[first:end])
            iois = np.diff(own["start_s"][onsets], prepend=np.nan)
            self.rhythm.extend(rhythm_symbols(iois))
            self._onset_states.extend(first + onsets)
            self._last_ioi_s = float(iois[-1]) if len(iois) > 1 else None
        if n >= KEPT_FROM:
            self.rhythm.compact()  # before the next one grows, which takes less memory
        for first, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
            self.contour.start_sequence()
            self.contour.extend(contour_symbols(states["level_db"][first:end], silent[first:end]))
        if n >= KEPT_FROM:
            self.contour.compact()
        units = np.empty((n, 12), np.float32)
        for first in range(0, n, _BLOCK_ROWS):  # of a large memory it takes gigabytes at once
            part = slice(first, first + _BLOCK_ROWS)
            units[part] = unit_chroma(states["chroma"][part])
        _describe_notes(beside, memory.notes, states["note_count"].astype(np.int64))
        noted = states["note_count"] > 0
        beside["noted_before"] = np.concatenate([[0], np.cumsum(noted)[:-1]])
        beside["density_hz"] = _density_hz(line_s, noted)
        beside["level_db"] = states["level_db"]
        beside["struck"][noted] = _struck(states[noted], memory.notes)
        self._beside, self._line_s, self._units = Columns.of(beside), Columns.of(line_s), Columns.of(units)
        if n > LOOKED_THROUGH:
            self.harmony = HarmonyIndex(units)
        self._last_silent = bool(silent[-1])

    def _take_in_last(self) -> None:
        """Make what is beside the state that was appended last."""
        memory, state = self.memory, len(self.memory) - 1
        rows = memory.states
        row, before = rows[state], rows[state - 1] if state else None
        silent = set(row["tokens"].tolist()) == {SILENCE}
        start_s, struck = float(row["start_s"]), bool(row["starts_at_onset"])
        follows = before is not None and bool(before["recording"] == row["recording"])
        line_s, noted_before, since = start_s, 0, 0
        if before is not None:
            # Looking back only: what follows is not known yet.
            line_s = float(self.line_s[-1]) + float(row["start_s"] - before["start_s"])
            noted = self.beside["noted_before"]
            since = noted_before = int(noted[-1]) + int(before["note_count"] > 0)
        if before is not None and not follows:
            line_s = float(self.line_s[-1]) + float(before["duration_s"]) + _GAP_S + start_s
            self.rhythm.start_sequence()
            self.contour.start_sequence()
            self._last_ioi_s, self._last_silent = None, True
        self._ends[len(self._ends) - follows :] = [state]
        self._known_ends = None
        self._recordings[len(self._recordings) - follows :] = [int(row["recording"])]
        if (reach := int(self.line_s.searchsorted(line_s - 2 * _DENSITY_REACH_S))) < state:
            since = int(noted[reach])
        own = memory.notes_of(state)
        pitches, n = own["pitch"].tolist(), len(own)
        self._beside.append(
            (
                np.bincount(own["pitch"] % 12, minlength=12) / max(n, 1), n, min(pitches, default=0), max(pitches, default=0),
                noted_before, (noted_before - since + (n > 0)) / (2 * _DENSITY_REACH_S), row["level_db"],
                n > 0 and struck and bool(own["offset_s"][0] <= STRUCK_S),
            )
        )  # fmt: skip
        self._line_s.append(line_s)
        self._units.append(unit_chroma(row["chroma"]))
        level_db = float(row["level_db"])
        before_db = level_db if before is None else float(before["level_db"])
        self.contour.append(contour_symbol(before_db, level_db, was_silent=self._last_silent, silent=silent))
        self._last_silent = silent
        if struck and not silent:
            ioi_s = None
            if len(self._onset_states):
                last = rows[int(self.onset_states[-1])]
                if last["recording"] == row["recording"]:
                    ioi_s = start_s - float(last["start_s"])
            self.rhythm.append(rhythm_symbol(self._last_ioi_s, ioi_s))
            self._last_ioi_s = ioi_s
            self._onset_states.append(state)
        # Followed as it grows: a mean over the whole would have to be made again.
        if not silent:
            self.usual_level_db += (level_db - self.usual_level_db) / min(len(self), 200)


@keepable()
class PlayersSegment:
    """How the players sounded beside the others of a memory, and where the others were then.

    `segment` holds the players' gestures. What was at `line_s` of its line of time was at `line_s` + `shift_s` (n,) of that of
    the others, whose states in that recording are those from `firsts` (n,) to `lasts` (n,), −1 for none. `paired` (m,) says
    which of the others' states have a player beside them, and `sounds` how that one sounded before each of these.
    """

    def __init__(self, others: MemorySegment, past: PlayersPast) -> None:
        self.segment = MemorySegment(past.memory)
        self._beside = {pair.others: pair for pair in past.pairs}
        n = len(self.segment)
        self.shift_s, self.firsts, self.lasts = np.zeros(n), np.zeros(n, dtype=np.int64), np.full(n, -1, dtype=np.int64)
        self.paired = np.zeros(len(others), dtype=bool)
        tokens, weights = np.zeros((len(others), SOUNDS), dtype=np.int64), np.zeros((len(others), SOUNDS), dtype=np.float32)
        for pair in past.pairs:
            player, other = self.segment.span(pair.player), others.span(pair.others)
            if other is not None:
                self.paired[other[0] : other[1] + 1] = True
            if player is not None and other is not None:
                own = slice(player[0], player[1] + 1)
                self.shift_s[own] = other[2] - player[2] + pair.offset_s
                self.firsts[own], self.lasts[own] = other[:2]
                theirs = slice(other[0], other[1] + 1)
                heard_s = others.memory.states["start_s"][theirs] - pair.offset_s - HEARD_LATE_S
                tokens[theirs], weights[theirs] = recent_sounds(past.memory.states[own], heard_s)
        self.sounds = SoundIndex(tokens, weights)

    def beside(self, place: Place) -> Place | None:
        """Return where the player was while the others were at a place; None where none was beside them."""
        pair = self._beside.get(place.recording)
        return None if pair is None else Place(pair.player, max(0.0, place.start_s - pair.offset_s), place.duration_s)


@dataclass(frozen=True)
class StateRows:
    """What memory has of some `states` (n,), which ascend: `rows` are their `STATE`s, `beside` their `BESIDE`.

    Their level is beside what is usual in their memory. Those from place `first_live` on were learned while playing. `parts`
    are each segment with some of them, which ones, and their numbers there.
    """

    states: Int64
    parts: tuple[tuple[MemorySegment, slice, Int64], ...]
    rows: Records
    beside: Records
    first_live: int


class MemoryPool:
    """The partner's memory, which never changes, and what is learned while playing.

    Pools of one memory share what belongs beside it. `live_recording` is the number of the player's own recording, the one
    after the memory's last; `learned` counts the player's gestures that were taken in.
    """

    def __init__(self, memory: Memory) -> None:
        self.base = memory.derived(MemorySegment)
        self.live_recording = int(memory.states["recording"][-1]) + 1 if len(memory) else 0
        self.learned = 0
        self._live: list[MemorySegment] = []
        self._segments = [self.base]
        self._rows: tuple[int, StateRows] | None = None

    @property
    def segments(self) -> list[MemorySegment]:
        """All memories that there are, the partner's first; not to be changed."""
        return self._segments

    @property
    def has_notes(self) -> bool:
        """Whether there is a note in the partner's memory."""
        return len(self.base.memory.notes) > 0

    @property
    def usual_ioi_s(self) -> float | None:
        """The median interval between the onsets of the recordings, None without onsets."""
        return self.base.memory.derived(usual_ioi_s)

    def learn(
        self,
        gesture: Gesture,
        notes: Sequence[HeardNote],
        *,
        most: int,
        beat: BeatPlace = NO_BEAT,
        hits: Sequence[HeardNote] = (),
    ) -> int:
        """Learn a gesture of the player's and return its number; keep at most `most` gestures, the newest."""
        half = max(1, most // 2)
        newest = self._live[-1] if self._live else None
        if newest is None or len(newest) >= half:
            oracle = self.base.memory.oracle
            memory = Memory(dims=oracle.dims, threshold=oracle.threshold)
            first = len(self.base) if newest is None else newest.first + len(newest)
            newest = MemorySegment(memory, first=first, live=True)
            self._live = [*self._live[-1:], newest] if most > 1 else [newest]
            self._segments = [self.base, *self._live]
        self.learned += 1
        return newest.first + newest.append(gesture, notes, recording=self.live_recording, beat=beat, hits=hits)

    def find(self, state: int) -> tuple[MemorySegment, int]:
        """Return the segment that holds a state, and its number there. Raises `IndexError` for a state dropped."""
        for segment in self._segments:
            local = state - segment.first
            if 0 <= local < len(segment):
                return segment, local
        raise IndexError(f"there is no state {state}")

    def holds(self, state: int) -> bool:
        """Return whether a state is still there."""
        return any(segment.first <= state < segment.first + len(segment) for segment in self.segments)

    def place(self, state: int) -> Place:
        """Return where a state was heard."""
        segment, local = self.find(state)
        return segment.memory.place(local)

    def heard_place(self, state: int) -> Place:
        """Return where a state of the players' past was heard."""
        assert self.base.players is not None
        return self.base.players.segment.memory.place(state)

    def beside(self, state: int) -> Place | None:
        """Return where a player was beside the others at a state; None where there was none."""
        segment, local = self.find(state)
        return None if segment.players is None else segment.players.beside(segment.memory.place(local))

    def successor(self, state: int) -> int | None:
        """Return the state that followed in the same recording, if one did and it is still there."""
        for segment in self._segments:
            local = state - segment.first
            if 0 <= local < len(segment):
                return None if segment.is_last(local) else state + 1
        return None

    def parts(self, states: Int64) -> Iterator[tuple[MemorySegment, slice, Int64]]:
        """Yield each segment that holds some of `states`, which must ascend, which ones, and their numbers there."""
        edges = [edge for segment in self._segments for edge in (segment.first, segment.first + len(segment))]
        places = states.searchsorted(edges).tolist()
        for segment, begin, end in zip(self._segments, places[::2], places[1::2], strict=True):
            if begin < end:
                yield segment, slice(begin, end), states[begin:end] - segment.first

    def rows(self, states: Int64) -> StateRows:
        """Return what memory has of ascending `states`; those that were asked for last are at hand."""
        if self._rows is None or self._rows[0] != self.learned or self._rows[1].states is not states:
            rows, beside = np.empty(len(states), dtype=STATE), np.empty(len(states), dtype=BESIDE)
            first_live, parts = len(states), tuple(self.parts(states))
            for segment, own, local in parts:
                # Straight to their places: assigning records goes field by field. "clip" only spares a copy.
                segment.memory.states.take(local, out=rows[own], mode="clip")
                segment.beside.take(local, out=beside[own], mode="clip")
                beside["level_db"][own] -= segment.usual_level_db
                if segment.live:
                    first_live = min(first_live, own.start)
            self._rows = self.learned, StateRows(states, parts, rows, beside, first_live)
        return self._rows[1]


def usual_ioi_s(memory: Memory) -> float | None:
    """Return the median interval between the onsets of a memory, None without onsets."""
    states = memory.states
    struck = states["starts_at_onset"] & (states["ioi_s"] > 0) & (states["tokens"] != SILENCE).any(axis=1)
    return float(np.median(states["ioi_s"][struck])) if struck.any() else None


def has_beats(memory: Memory) -> bool:
    """Return whether any state of a memory lies in a beat."""
    return bool(memory.states["beat_period_s"].any())


def token_counts(memory: Memory) -> Int64:
    """Return how often each harmonic token occurs in a memory, SILENCE first."""
    return np.bincount(memory.states["tokens"][:, 0].astype(np.int64) + 1, minlength=1)


def _struck(states: Records, notes: Records) -> Bool:
    """Return which states with notes were struck, shape (n,)."""
    return states["starts_at_onset"] & (notes["offset_s"][states["first_note"]] <= STRUCK_S)


def ascending(states: Int64) -> Int64:
    """Return what `numpy.unique` does, faster for a few states."""
    if len(states) < 2:
        return states
    states = np.sort(states)
    different = np.empty(len(states), dtype=bool)
    different[0] = True
    np.not_equal(states[1:], states[:-1], out=different[1:])
    return states.take(different.nonzero()[0])


def _usual(beside: AnyArray) -> Usual:
    noted = beside[beside["notes"] > 0]
    if not len(noted):
        return Usual(0.0, 60.0)
    middle = (noted["lowest"].astype(np.float64) + noted["highest"]) / 2
    return Usual(float(np.median(noted["density_hz"])), float(np.median(middle)))


def _usual_level_db(memory: Memory) -> float:
    states = memory.states
    audible = (states["tokens"] != SILENCE).any(axis=1)
    return float(np.mean(states["level_db"][audible], dtype=np.float64)) if audible.any() else 0.0


def _describe_notes(beside: AnyArray, notes: AnyArray, counts: Int64) -> None:
    """Fill in what is beside states about their notes, of which each state has so many."""
    owner = np.repeat(np.arange(len(counts)), counts)
    classes = np.zeros((len(counts), 12), dtype=np.float32)
    np.add.at(classes, (owner, notes["pitch"] % 12), 1)
    beside["pitch_classes"] = classes / np.maximum(counts, 1)[:, None]
    lowest = np.full(len(counts), 127, dtype=np.uint8)
    highest = np.zeros(len(counts), dtype=np.uint8)
    np.minimum.at(lowest, owner, notes["pitch"])
    np.maximum.at(highest, owner, notes["pitch"])
    beside["lowest"] = np.where(counts > 0, lowest, 0)
    beside["highest"] = highest
    beside["notes"] = counts


def _density_hz(line_s: Float64, noted: Bool) -> Float64:
    """Return the rate of states with notes around each state."""
    counts = np.concatenate([[0], np.cumsum(noted)])
    low = np.searchsorted(line_s, line_s - _DENSITY_REACH_S)
    high = np.searchsorted(line_s, line_s + _DENSITY_REACH_S)
    return (counts[high] - counts[low]) / (2 * _DENSITY_REACH_S)
