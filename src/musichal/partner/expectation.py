"""What will sound: the harmony that memory expects to come next, in the key of the player.

Memory's recordings are cut into cells of a quarter of a beat (of `FREE_PERIOD_S` / 4 where there is no beat). A hidden Markov
model follows the player through them: its hidden state is a cell and a transposition, it goes on from cell to cell, now and
then jumps anywhere, and rarely changes its transposition (Rabiner, Proc. IEEE 77, 1989; of chords in chroma: Sheh & Ellis,
ISMIR 2003). What is heard of the player in a cell speaks for the cells of memory with these pitch classes. So a line of single
notes finds the harmonies that memory has for it, and where they lead. What the player has just played counts beside that.

A memory of pairs has each cell twice: once the others' harmony says what a player plays there, once what their player played
then. So the model finds out how far this player plays what was played then, and where; the influence "pairs" goes by it.

Where in memory's beat the likely cells lie tells where the beat in the room is.

The model looks at no more than `MOST_STATES` states, in stretches spread evenly over memory: a step costs the same for any
memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from musichal.arrays import AnyArray, Bool, Float64, Int64, rounded, rounded_number
from musichal.hearing.percepts import SILENCE, Percept
from musichal.memory.beat_places import in_sure_beat
from musichal.memory.memory import Memory, PlayersPast
from musichal.memory.ready import keepable
from musichal.partner.chords import CHORDS, TONES, ChordFollower, chord_name, chords_of, key_name
from musichal.partner.harmony import tonalness, unit_chroma
from musichal.pulse import BeatChances, Pulse

MOST_STATES = 2048
"""So many states of memory are followed at most."""
FREE_PERIOD_S = 0.5
"""A beat where there is none."""
_STRETCH_STATES = 256
_PARTS = 4  # cells in a beat
_NAMED = 2  # so many of them together are named as a chord
_LONGEST_BEATS = 16  # so many beats of a stretch's last state count
_MOST_CELLS = 8  # so many cells a state, on average
_CATCH_UP = 16  # a gap is stepped through up to so many cells; behind a longer one the model goes on from where it was
_JUMP = 0.025  # chance that memory goes on elsewhere, in each cell
_MOVE = 0.005  # chance that the transposition is another one
_HOME, _AT_HOME = 0.8, 0.99  # chance that it is none: before anything was heard, and where memory knows the player
_WEIGHT = 0.5  # how far what is played in a cell counts: cells beside it mostly say the same
_FOREIGN = 0.2  # share of what is played that memory's harmony does not account for
_AS_THEN = 0.8  # share of what is played that what was played then accounts for, where memory knows that
_OTHER = 0.1  # and what of it is played otherwise
_KEY_WEIGHT = 1.5  # weight of a cell's evidence for a transposition
# The logit of the probability that a pitch class sounds: the constant, and the weights of what memory has next, what it has at
# all, the chords that it has next, what the player played lately and what they play now; from the bands of 13 songs to tune on
# of which memory knew the first half. What memory has at all weighs less than it would by that: it tells keys, and no chords.
_SOUNDS: Float64 = np.array([-3.4, 1.3, 1.0, 1.5, 0.6, 1.3])
_SOUNDS.setflags(write=False)
_UNLIKE = 0.02  # what a transposition is worth in which memory has no harmony like the present one
_NOW_S = 0.3
_NO_STATE: Int64 = np.zeros(0, dtype=np.int64)
_NO_STATE.setflags(write=False)
_AHEAD = 6  # cells after the one that was heard last that the expectation is for
_MEMORY_CELLS = 16.0  # time constant of how well memory accounts for the player
_LATELY_CELLS = 4.0  # and of how well it did just now
_ACCOUNTS = 0.25  # nats a cell above chance that memory fully accounts for the player with
_FOREIGN_KEYS = -0.2  # nats a cell above chance below which what is played is two keys at once; no song to tune on has so few
_SURPRISED, _TRUSTED = -0.3, -0.05  # nats a cell above chance, just now, with which memory tells nothing and with which all
_LEAST_KNOWN = 0.5  # so likely memory must be in a cell whose place in the beat is known, to tell the beat

_TURNED: Int64 = (np.arange(12)[:, None] + np.arange(12)) % 12
"""At [t, c] pitch class c + t: what memory has at c sounds there, moved up by t."""
_UNTURNED: Int64 = (np.arange(12) - np.arange(12)[:, None]) % 12
for _table in (_TURNED, _UNTURNED):
    _table.setflags(write=False)


@dataclass(frozen=True)
class Expectation:
    """What is expected to sound next.

    `classes` (12,) is how likely each pitch class is to sound, zero where nothing is known; `transpositions` (12,) the
    probability that memory, moved up by t semitones, is in the player's key; `confidence` how far memory accounts for what the
    player plays, 0 to 1. `key` and `chord` (24,) are how likely each is to be the player's, `next_chord` (24,) how likely each
    is to be memory's next (`musichal.partner.chords`).
    """

    classes: Float64
    transpositions: Float64
    confidence: float
    key: Float64
    chord: Float64
    next_chord: Float64

    @cached_property
    def named(self) -> dict[str, Any]:
        """The likeliest key, chord and next chord by name, and how likely they are, as a `HarmonyUse` has them."""
        key, chord, following = (int(likely.argmax()) for likely in (self.key, self.chord, self.next_chord))
        return {
            "key": key_name(key), "key_chance": float(self.key[key]),
            "chord": chord_name(chord), "chord_chance": float(self.chord[chord]),
            "expected": chord_name(following), "expected_chance": float(self.next_chord[following]),
        }  # fmt: skip


@keepable()
@dataclass(frozen=True)
class HarmonicCells:
    """Memory's harmony, cell by cell.

    `strengths` (n, 12) is how strong each pitch class is beside the strongest, `evidence` (n, 12) the logarithm of its
    probability in what a player plays there, `chords` (n, 24) the probability of each chord (`musichal.partner.chords`);
    `goes_on` (n,) says which cells are followed by the next, `beat_parts` (n,) which part of its beat each cell is, from 0 on,
    −1 where that is not known. A memory of pairs has n more rows of evidence: by what its player played there. `of_states`
    (m,) are the cells in which the `states` (m,) begin that were looked at. A beat lasts `period_s`; `home` is the chance that
    a player is in memory's key.
    """

    strengths: Float64
    evidence: Float64
    chords: Float64
    goes_on: Bool
    beat_parts: Int64
    states: Int64
    of_states: Int64
    period_s: float
    home: float = _HOME


def harmonic_cells(memory: Memory) -> HarmonicCells | None:
    """Return the harmony of a memory, None where it has none."""
    states = memory.states
    known = in_sure_beat(states)
    usual_s = float(np.median(states["beat_period_s"][known])) if known.any() else FREE_PERIOD_S
    chromas, played, parts, numbers, begun, ends = [], [], [_NO_STATE], [_NO_STATE], [_NO_STATE], [0]
    for first, last in _stretches(states["recording"]):
        own = states[first:last]
        chosen, times_s, cells, part = _cell_states(own, usual_s)
        chromas.append(own["chroma"][chosen].reshape(-1, 2, 12).astype(np.float64).mean(axis=1))
        if memory.players is not None:
            played.append(_played_then(memory.players, int(own["recording"][0]), times_s).reshape(-1, 2, 12).mean(axis=1))
        parts.append(np.where(known[first:last][chosen[::2]], part, -1))
        numbers.append(np.arange(first, last))
        begun.append(ends[-1] + np.minimum(cells, len(chromas[-1]) - 1))
        ends.append(ends[-1] + len(chromas[-1]))
    chroma = np.concatenate(chromas) if chromas else np.zeros((0, 12))
    strengths, tonal = _strengths(chroma)
    if not tonal.any():
        return None
    goes_on = np.ones(len(chroma), dtype=bool)
    goes_on[np.array(ends[1:]) - 1] = False
    likely = _probabilities(strengths, tonal)
    if memory.players is not None:
        theirs, sure = _strengths(np.concatenate(played))
        as_then = (1 - _AS_THEN * sure) * likely + _AS_THEN * sure * ((1 - _OTHER) * _shares(theirs) + _OTHER / 12)
        likely = np.concatenate([likely, as_then])
    chords = chords_of(tonal * _shares(strengths))
    home = _HOME if memory.players is None else _AT_HOME
    return HarmonicCells(
        strengths * tonal, np.log(likely), chords, goes_on, np.concatenate(parts), np.concatenate(numbers),
        np.concatenate(begun), usual_s, home,
    )  # fmt: skip


def _strengths(chroma: Float64) -> tuple[Float64, Float64]:
    """Return how strong each pitch class is beside the strongest, shape (n, 12), and how far that is harmony, (n, 1)."""
    tonal = np.array([tonalness(row) for row in chroma])[:, None]
    return chroma / np.maximum(chroma.max(axis=1, keepdims=True), 1e-12), tonal


def _shares(strengths: Float64) -> Float64:
    """Return the share of each pitch class in a harmony, shape (n, 12)."""
    return strengths**2 / np.maximum((strengths**2).sum(axis=1, keepdims=True), 1e-12)


def _probabilities(strengths: Float64, tonal: Float64) -> Float64:
    """Return the probability of each pitch class in what is played to a harmony, shape (n, 12)."""
    own = (1 - _FOREIGN) * tonal
    return own * _shares(strengths) + (1 - own) / 12


def _stretches(recordings: AnyArray) -> Iterator[tuple[int, int]]:
    """Yield where stretches of states begin and end: whole recordings, or as many parts as may be looked at."""
    n = len(recordings)
    edges = [0, *(np.flatnonzero(np.diff(recordings.astype(np.int64))) + 1).tolist(), n] if n else []
    if n <= MOST_STATES:
        yield from pairwise(edges)
        return
    parts = MOST_STATES // _STRETCH_STATES
    for part in range(parts):
        first = part * (n - _STRETCH_STATES) // (parts - 1)
        # Within one recording: up to where that ends.
        following = edges[int(np.searchsorted(edges, first, side="right"))]
        yield first, min(first + _STRETCH_STATES, following)


def _played_then(past: PlayersPast, recording: int, times_s: Float64) -> Float64:
    """Return the chroma of what the player of a recording of the others played at some times in it, shape (n, 12)."""
    for pair in past.pairs:
        states = past.memory.states[past.memory.states["recording"] == pair.player]
        if pair.others == recording and len(states):
            at_s = times_s - pair.offset_s
            rows = states[np.maximum(np.searchsorted(states["start_s"], at_s, side="right") - 1, 0)]
            since_s = at_s - rows["start_s"]
            sounds = (since_s >= 0) & (since_s < rows["duration_s"]) & (rows["tokens"] != SILENCE).any(axis=1)
            return np.asarray(rows["chroma"] * sounds[:, None], dtype=np.float64)
    return np.zeros((len(times_s), 12))


def _cell_states(states: AnyArray, usual_s: float) -> tuple[Int64, Float64, Int64, Int64]:
    """Return which states sound a quarter and three quarters through each cell of a stretch and when that is, both (2 n,).

    The third array (m,) is the number of the cell in which each state begins, the last (n,) the part of the beat of each cell.
    """
    known = in_sure_beat(states).tolist()
    periods_s, phases = states["beat_period_s"].tolist(), states["beat_phase"].tolist()
    place, before_s, places = 0.0, float(states["start_s"][0]), []
    for number, start_s in enumerate(states["start_s"].tolist()):
        place += (start_s - before_s) / (periods_s[number] if known[number] else usual_s)
        if known[number]:
            place += (phases[number] - place + 0.5) % 1 - 0.5
        before_s = start_s
        places.append(place)
    beats = np.maximum.accumulate(np.array(places))
    last_s = min(float(states["duration_s"][-1]), _LONGEST_BEATS * usual_s)
    first, end = np.floor(beats[0] * _PARTS), np.ceil((beats[-1] + last_s / usual_s) * _PARTS)
    cells = np.arange(first, min(end, first + _MOST_CELLS * len(states) + _LONGEST_BEATS * _PARTS))
    sampled = ((cells[:, None] + (0.25, 0.75)) / _PARTS).ravel()
    chosen: Int64 = np.maximum(np.searchsorted(beats, sampled, side="right") - 1, 0)
    times_s = states["start_s"][chosen] + (sampled - beats[chosen]) * usual_s
    return chosen, times_s, (np.floor(beats * _PARTS) - first).astype(np.int64), cells.astype(np.int64) % _PARTS


class HarmonyFollower:
    """Follows the player through memory's harmony; `cells` is None where memory has none."""

    def __init__(self, cells: HarmonicCells | None, *, sample_rate_hz: int) -> None:
        self._cells = cells
        self._rate_hz = sample_rate_hz
        home = _HOME if cells is None else cells.home
        self._home: Float64 = np.full(12, (1 - home) / 11)
        self._home[0] = home
        self._keys = self._home.copy()
        n = 0 if cells is None else len(cells.strengths)
        copies = 1 if cells is None else len(cells.evidence) // n
        self._cell_count = n
        self._places = np.full((12, copies * n), 1 / max(1, copies * n))
        self._accounted = self._lately = 0.0
        self._edge_s: float | None = None  # where the cell that is heard ends
        self._heard: Float64 = np.zeros(12)
        self._now: Float64 = np.zeros(12)
        self._chords = ChordFollower()
        self._unnamed: Float64 = np.zeros(12)
        # What follows from where memory is, until the next cell was heard.
        self._carried: tuple[Float64, Float64, Float64] | None = None
        self._next: dict[int, Float64] = {}
        self._nearest: dict[tuple[int, int], Int64] = {}
        if cells is not None:
            self._goes_on = np.tile(cells.goes_on, copies)
            # Cells lie side by side: what is done with rows of twelve takes several times as long.
            self._stays = (1 - _JUMP) * self._goes_on[:-1]
            self._evidence = np.ascontiguousarray(cells.evidence.T)
            self._units = np.ascontiguousarray(unit_chroma(cells.strengths).T)
            self._following = np.tile(_following(cells), (copies, 1))
            self._usual = cells.strengths.mean(axis=0)
            self._beat_parts = np.tile(np.arange(_PARTS) == cells.beat_parts[:, None], (copies, 1)) / 1.0

    def hear(self, percept: Percept, pulse: Pulse | None) -> None:
        """Take a percept: whole cells of it move the model on."""
        heard = percept.heard
        times_s = heard.frame_samples / self._rate_hz
        audible: Bool = np.asarray(heard.audible.any(axis=0))
        end_s = (heard.start_sample + heard.length_samples) / self._rate_hz
        step_s = self._step_s(pulse)
        begin_s = heard.start_sample / self._rate_hz
        if self._edge_s is None or self._edge_s + _CATCH_UP * step_s < begin_s:
            self._edge_s = self._next_edge_s(begin_s, step_s, pulse)
        if audible.any():
            self._now *= np.exp(-(end_s - begin_s) / _NOW_S)
            self._now += _relative(_salient(heard.chroma[audible].sum(axis=0)))
        first = 0
        while self._edge_s <= end_s:
            last = int(np.searchsorted(times_s, self._edge_s))
            self._take(heard.chroma[first:last][audible[first:last]])
            cells = round((self._edge_s - (0.0 if pulse is None else pulse.beat_s)) / step_s)
            self._step(names=cells % _NAMED == 0)
            first, self._edge_s = last, self._next_edge_s(self._edge_s, step_s, pulse)
        self._take(heard.chroma[first:][audible[first:]])

    def expected(self, present: AnyArray) -> Expectation:
        """Return what is expected behind what was heard, beside the `present` chroma (12,) of the player."""
        heard = _relative(_salient(present))
        own = rounded(self._chords.keys), rounded(self._chords.chords)
        if self._cells is None:
            return Expectation(rounded(heard), rounded(self._keys), 0.0, *own, np.full(CHORDS, 1 / CHORDS))
        if self._carried is None:
            carried = self._places @ self._following
            chords = np.concatenate([self._in_keys(carried[:, 12:24]), self._in_keys(carried[:, 24:])])
            usual = _relative(self._in_keys(np.tile(self._usual, (12, 1))))
            self._carried = _relative(self._in_keys(carried[:, :12])), usual, rounded(chords / chords.sum())
        next_one, usual, chords = self._carried
        evidence = np.array([np.ones(12), next_one, usual, chords @ TONES, heard, _relative(self._now)])
        # Where the player has just surprised memory, as behind a jump of the key, what they play tells more.
        trust = min(1.0, max(0.0, (self._lately - _SURPRISED) / (_TRUSTED - _SURPRISED)))
        weights = _SOUNDS * [1.0, trust, trust, trust, 2 - trust, 2 - trust]
        classes = 1 / (1 + np.exp(-(weights @ evidence)))
        # A key in which memory has no harmony like the present one is none to play in.
        fits = (unit_chroma(heard)[_TURNED] @ self._units).max(axis=1)
        likely = self._keys * np.maximum(fits, _UNLIKE)
        confidence = min(1.0, max(0.0, self._accounted / _ACCOUNTS))
        return Expectation(
            rounded(classes), rounded(likely / likely.sum()), rounded_number(confidence), *own, chords
        )  # fmt: skip

    def near(self, states: Int64, transposition: int) -> Float64:
        """Return how likely memory is to be next where each of some states begins, beside the likeliest place, shape (k,)."""
        if self._cells is None:
            return np.zeros(len(states))
        rows = np.minimum(self._cells.states.searchsorted(states), len(self._cells.states) - 1)
        near = self._next_places(transposition).take(self._cells.of_states.take(rows))
        return np.where(self._cells.states.take(rows) == states, near, 0.0)

    def nearest(self, transposition: int, *, most: int) -> Int64:
        """Return the states that begin in the `most` likeliest cells, ascending."""
        if self._cells is None:
            return _NO_STATE
        asked = transposition, most
        if asked not in self._nearest:
            likely = np.argsort(-self._next_places(transposition), kind="stable")[:most]
            begins: Bool = np.zeros(self._cell_count, dtype=bool)
            begins[likely] = True
            self._nearest[asked] = self._cells.states[begins.take(self._cells.of_states)]
        return self._nearest[asked]

    def beat_chances(self, pulse: Pulse) -> BeatChances | None:
        """Return where the beats of a pulse are likely to be, by where memory is.

        None where memory's beats are not known, or the pulse is on another level of the metre than they are.
        """
        step_s = self._step_s(pulse)
        if self._cells is None or self._edge_s is None or round(pulse.period_s / step_s) != _PARTS:
            return None
        likely = self._keys @ (self._places @ self._beat_parts)
        if rounded_number(float(likely.sum())) < _LEAST_KNOWN:
            return None
        # The cell that was heard last began two steps before that time: the one that is heard now ends there. A cell of part p
        # begins p steps behind its beat.
        return BeatChances(self._edge_s, step_s, rounded(np.roll(likely / likely.sum(), 2)))

    @property
    def foreign(self) -> bool:
        """Whether what the player plays is in no key of memory, as two keys at once are."""
        return self._accounted < _FOREIGN_KEYS

    @property
    def familiar(self) -> float:
        """How far the player plays what memory's player played then, 0 to 1; 1 where memory has none."""
        if self._places.shape[1] == self._cell_count:
            return 1.0
        return rounded_number(float(self._keys @ self._places[:, self._cell_count :].sum(axis=1)))

    def _next_places(self, transposition: int) -> Float64:
        """Return how likely each cell is to come next in a transposition, beside the likeliest, shape (n,)."""
        if transposition not in self._next:
            on = self._places[transposition % 12] * self._goes_on
            self._next[transposition] = rounded(_relative(np.roll(on.reshape(-1, self._cell_count).sum(axis=0), 1)))
        return self._next[transposition]

    def _in_keys(self, of_memory: Float64) -> Float64:
        """Return memory's pitch classes, one row for each transposition (12, 12), where they sound; shape (12,)."""
        # What memory has at c − t sounds at c.
        return np.asarray((self._keys[:, None] * np.take_along_axis(of_memory, _UNTURNED, axis=1)).sum(axis=0))

    def _step_s(self, pulse: Pulse | None) -> float:
        """Return how long a cell lasts in the room, on the level of the beat that is nearest to memory's."""
        memory_s = FREE_PERIOD_S if self._cells is None else self._cells.period_s
        if pulse is None:
            return memory_s / _PARTS
        level = 2.0 ** float(np.rint(np.log2(pulse.period_s / memory_s)))
        return pulse.period_s / level / _PARTS

    @staticmethod
    def _next_edge_s(after_s: float, step_s: float, pulse: Pulse | None) -> float:
        if pulse is None:
            return after_s + step_s
        return pulse.beat_s + np.ceil((after_s + step_s / 2 - pulse.beat_s) / step_s) * step_s

    def _take(self, chroma: AnyArray) -> None:
        if len(chroma):
            self._heard += chroma.sum(axis=0, dtype=np.float64)

    def _step(self, *, names: bool) -> None:
        """Move on by a cell, then weigh by what was heard in it; where a half of a beat ends, its chord is named."""
        heard, self._heard = self._heard, np.zeros(12)
        self._unnamed += heard
        if names:
            self._chords.step(_played(self._unnamed))
            self._unnamed = np.zeros(12)
        if self._cells is None:
            return
        played = _WEIGHT * _played(heard)
        places = np.empty_like(self._places)
        places[:, 0] = 0
        np.multiply(self._places[:, :-1], self._stays, out=places[:, 1:])
        places += (1 - places.sum(axis=1, keepdims=True)) / places.shape[1]
        self._keys = (1 - _MOVE) * self._keys + _MOVE * self._home
        if played.any():
            likely = played[_TURNED] @ self._evidence
            places *= np.exp(likely, out=likely)
            fits = places.sum(axis=1)
            places /= fits[:, None]
            above = float(np.log(fits @ self._keys)) + float(played.sum()) * float(np.log(12))
            self._accounted += (above - self._accounted) / _MEMORY_CELLS
            self._lately += (above - self._lately) / _LATELY_CELLS
            self._keys *= fits**_KEY_WEIGHT
            self._keys /= self._keys.sum()
        self._places = places
        self._carried, self._next, self._nearest = None, {}, {}


def _following(cells: HarmonicCells) -> Float64:
    """Return the sums of pitch classes and chords of the `_AHEAD` cells after each, shape (n, 36): usual ones past an end."""
    carried = np.concatenate([cells.strengths, cells.chords], axis=1)
    n, usual = len(carried), carried.mean(axis=0)
    out, goes_on = np.zeros_like(carried), np.ones((n, 1), dtype=bool)
    for ahead in range(1, _AHEAD + 1):
        ends = np.concatenate([cells.goes_on[ahead - 1 :], np.zeros(ahead - 1, dtype=bool)])[:n]
        goes_on &= ends[:, None]
        out += np.where(goes_on, np.roll(carried, -ahead, axis=0), usual)
    return out


def _played(heard: Float64) -> Float64:
    """Return the share of each pitch class in what was played, as far as that is harmony; zero where nothing was."""
    salient = _salient(heard)
    return salient * (tonalness(heard) / salient.sum()) if salient.any() else salient


def _relative(values: Float64) -> Float64:
    """Return values relative to the largest."""
    return values / max(float(values.max()), 1e-12)


def _salient(chroma: AnyArray) -> Float64:
    """Return what of a chroma stands out over its median."""
    values = np.asarray(chroma, dtype=np.float64)
    return np.maximum(values - np.median(values), 0)
