"""Phrases in the memory: where the recordings themselves begin and end one, how long they are, and how long they breathe.

A boundary lies where the music pauses or changes: the strength of a boundary before an event is its size times the change to
its neighbours, over three profiles, duration, level and harmony (after Cambouropoulos, The Local Boundary Detection Model,
ICMC 2001, whose profiles are intervals of time, rest and pitch). Peaks of it that stand out, and every silence, are
boundaries; the strongest first, none closer to another than a phrase is long at least. Where a recording never pauses,
the strongest change in every stretch of `longest_s` has to do.

Motifs: short runs of gestures worth coming back to, the player's and the partner's own, and how they come back changed.

A motif is a run of states of the memory (the player's own gestures are states too, once they are learned), cut from a phrase
where it is most distinctive: tokens that are rare, notes that move. It comes back transposed to the harmony of the moment, at
another pace, or in part: the classical means of developing a theme (as in Cope, Experiments in Musical Intelligence, 1996,
recombination; here of what has just been played, and never of anything that was not). The store is bounded: what is least
distinctive and longest ago is forgotten first.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from musichal.arrays import AnyArray, Bool, Float64, Int64, Records
from musichal.errors import InputError
from musichal.hearing.percepts import SILENCE
from musichal.partner.memory_pool import MemoryPool
from musichal.text import clock

_WEIGHTS = (0.5, 0.25, 0.25)  # duration, level, harmony


@dataclass(frozen=True, kw_only=True)
class PhraseLimits:
    """Phrases last from `shortest_s` to `longest_s`, breaths from `shortest_breath_s` to `longest_breath_s`.

    A silence is a boundary from `silence_s` on. A peak of boundary strength stands out where it exceeds the mean by
    `deviations` standard deviations.
    """

    shortest_s: float = 1.5
    longest_s: float = 10.0
    silence_s: float = 0.25
    shortest_breath_s: float = 0.2
    longest_breath_s: float = 4.0
    deviations: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.shortest_s < self.longest_s or not 0 < self.shortest_breath_s < self.longest_breath_s:
            raise InputError("phrase limits: the shortest must be below the longest, and positive")


@dataclass(frozen=True)
class PhraseMap:
    """Phrases of a memory: `begins` and `ends` (n,) mark states, `lengths_s` and `breaths_s` are what was found, sorted."""

    begins: Bool
    ends: Bool
    lengths_s: Float64
    breaths_s: Float64

    def draw_length_s(self, rng: np.random.Generator, *, factor: float = 1.0) -> float:
        """Return the length of a phrase of the recordings, drawn at random, times `factor`."""
        return factor * float(self.lengths_s[rng.integers(len(self.lengths_s))])

    def draw_breath_s(self, rng: np.random.Generator, *, factor: float = 1.0) -> float:
        """Return the length of a pause between two phrases, drawn at random, times `factor`."""
        return factor * float(self.breaths_s[rng.integers(len(self.breaths_s))])

    def begins_at(self, state: int) -> bool:
        """Return whether a phrase begins with a state; False for what was learned since."""
        return state < len(self.begins) and bool(self.begins[state])

    def ends_with(self, state: int) -> bool:
        """Return whether a phrase ends with a state; False for what was learned since."""
        return state < len(self.ends) and bool(self.ends[state])


def find_phrases(states: Records, limits: PhraseLimits | None = None) -> PhraseMap:
    """Return the phrases of a memory's states.

    Parameters
    ----------
    states : structured array of shape (n,)
        `musichal.memory.memory.STATE`.
    limits : PhraseLimits, optional
    """
    limits = limits or PhraseLimits()
    n = len(states)
    begins, ends = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    lengths: list[float] = []
    breaths: list[float] = []
    edges = np.flatnonzero(np.diff(states["recording"])) + 1
    for first, last in zip([0, *edges.tolist()], [*edges.tolist(), n], strict=True):
        if first == last:
            continue
        own = states[first:last]
        silent = (own["tokens"] == SILENCE).all(axis=1)
        sounding = np.flatnonzero(~silent)
        # Where in what sounds each part begins, and the next one does; a part of nothing but silence is no phrase.
        places = np.searchsorted(sounding, [0, *_boundaries(own, silent, limits).tolist(), len(own)])
        places = places[np.flatnonzero(np.diff(places, prepend=-1))]
        begin, end = sounding[places[:-1]], sounding[places[1:] - 1]
        begins[first + begin] = ends[first + end] = True
        end_s = (own["start_s"][end] + own["duration_s"][end]).astype(np.float64)
        lengths += (end_s - own["start_s"][begin]).tolist()
        breaths += (own["start_s"][begin[1:]] - end_s[:-1]).tolist()
    kept = np.sort(np.clip(lengths or [4.0], limits.shortest_s, limits.longest_s))
    # A recording that never falls silent still breathes: as long as its longer gestures last.
    pauses = [b for b in breaths if b >= limits.shortest_breath_s]
    if not pauses:
        pauses = np.quantile(states["duration_s"], [0.75, 0.9, 0.97]).tolist() if n else [0.5]
    return PhraseMap(begins, ends, kept, np.sort(np.clip(pauses, limits.shortest_breath_s, limits.longest_breath_s)))


def _boundaries(states: Records, silent: Bool, limits: PhraseLimits) -> Int64:
    """Return the states before which a phrase of one recording ends, in order."""
    starts = states["start_s"].astype(np.float64)
    strength = _strength(states)
    # The state after a silence begins something, and so does the first of a silence end it: the cut is before the silence.
    pause = silent & (states["duration_s"] >= limits.silence_s)
    strength[pause] = np.inf
    middle = np.arange(1, len(states))
    peaks = middle[(strength[1:] >= strength[:-1]) & (strength[1:] > np.append(strength[2:], -np.inf))]
    finite = strength[np.isfinite(strength)]
    clear = finite.mean() + limits.deviations * finite.std() if len(finite) else np.inf
    peaks = peaks[np.argsort(-strength[peaks], kind="stable")]
    end_s = float(starts[-1] + states["duration_s"][-1])
    cuts_s = [float(starts[0]), end_s]
    chosen: list[int] = []
    standing_out = strength[peaks] >= clear
    for wanted in (peaks[standing_out], peaks[~standing_out]):
        # What does not stand out is wanted in the middle of long stretches only, and stretches only become shorter.
        places = np.minimum(np.searchsorted(cuts_s, starts[wanted]), len(cuts_s) - 1)
        long = np.diff(cuts_s, prepend=-np.inf)[places] > limits.longest_s
        for peak in wanted[long | (strength[wanted] >= clear)].tolist():
            start_s, place = float(starts[peak]), bisect_left(cuts_s, starts[peak])
            before_s, after_s = cuts_s[place - 1], cuts_s[min(place, len(cuts_s) - 1)]
            apart = min(start_s - before_s, after_s - start_s) >= limits.shortest_s
            if (strength[peak] >= clear or after_s - before_s > limits.longest_s) and (apart or np.isinf(strength[peak])):
                cuts_s.insert(place, start_s)
                chosen.append(peak)
    return np.array(sorted(chosen), dtype=np.int64)


def _strength(states: Records) -> Float64:
    """Return the strength of a boundary before each state, 0 at the first."""
    durations = states["duration_s"].astype(np.float64)
    levels = np.abs(np.diff(states["level_db"].astype(np.float64), prepend=states["level_db"][:1]))
    chroma = states["chroma"].astype(np.float64)
    chroma /= np.maximum(np.linalg.norm(chroma, axis=1, keepdims=True), 1e-12)
    harmony = np.concatenate([[0.0], 1 - (chroma[1:] * chroma[:-1]).sum(axis=1)])
    # The boundary before a state is the one after a long event: the interval that leads to it.
    waited = np.concatenate([[0.0], durations[:-1]])
    total = np.zeros(len(states))
    for weight, profile in zip(_WEIGHTS, (waited, levels, harmony), strict=True):
        padded = np.concatenate([profile[:1], profile, profile[-1:]])
        change = np.abs(np.diff(padded)) / np.maximum(padded[:-1] + padded[1:], 1e-9)
        strength = profile * (change[:-1] + change[1:])
        total += weight * strength / max(float(strength.max(initial=0.0)), 1e-9)
    total[:1] = 0.0
    return total


Whose = Literal["yours", "its own"]

_SHORT = 0.2
PACES = (0.5, 2 / 3, 1.0, 1.5, 2.0)
"""Of what length a motif comes back, as a factor: diminished, as it was, augmented."""


@dataclass(frozen=True, kw_only=True)
class MotifSettings:
    """Motifs have `fewest` to `most` gestures and last from `shortest_s` to `longest_s`; at most `kept` are remembered.

    One comes back at the earliest `rest_s` after it was heard or last came back.
    """

    fewest: int = 3
    most: int = 10
    shortest_s: float = 0.8
    longest_s: float = 5.0
    kept: int = 16
    rest_s: float = 15.0

    def __post_init__(self) -> None:
        if not 1 <= self.fewest <= self.most or not 0 <= self.shortest_s < self.longest_s or self.kept < 1 or self.rest_s < 0:
            raise InputError("motif settings: the fewest must be below the most, the shortest below the longest")


@dataclass(frozen=True)
class Motif:
    """A run of states with the transposition that each was played in; `heard_s` is when it was first played."""

    whose: Whose
    heard_s: float
    states: tuple[int, ...]
    transpositions: tuple[int, ...]
    distinction: float


@dataclass(frozen=True)
class Return:
    """A motif as it comes back: which of its gestures, moved by how much, at which pace."""

    whose: Whose
    heard_s: float
    states: tuple[int, ...]
    transpositions: tuple[int, ...]
    moved: int
    pace: float
    whole: bool

    @property
    def words(self) -> str:
        """Say what came back, and how it was changed."""
        whose = "your motif" if self.whose == "yours" else "its own motif"
        changes = []
        if self.moved:
            changes.append(f"moved {'up' if self.moved > 0 else 'down'} {abs(self.moved)}")
        if self.pace != 1:
            changes.append(f"{'slower' if self.pace > 1 else 'faster'}, {self.pace:.2g} times as long")
        if not self.whole:
            changes.append("in part")
        return ", ".join([f"{whose} of {clock(int(self.heard_s), decimals=0)}", *changes])


class MotifStore:
    """Keeps motifs and brings them back.

    Parameters
    ----------
    settings : MotifSettings
    library : MemoryPool
        Where the states of motifs are.
    """

    def __init__(self, settings: MotifSettings, library: MemoryPool) -> None:
        self._settings = settings
        self._library = library
        tokens = library.base.memory.states["tokens"][:, 0].astype(np.int64)
        self._counts = np.bincount(tokens + 1, minlength=1)
        self._motifs: list[Motif] = []
        self._last_s: dict[Motif, float] = {}

    def __len__(self) -> int:
        return len(self._motifs)

    @property
    def motifs(self) -> tuple[Motif, ...]:
        """The motifs that are remembered, the oldest first."""
        return tuple(self._motifs)

    def keep(
        self, states: Sequence[int], transpositions: Sequence[int], *, whose: Whose, heard_s: Sequence[float]
    ) -> Motif | None:
        """Keep the most distinctive run of a phrase, if there is one and its states are still there.

        Parameters
        ----------
        states, transpositions : sequence of int
            The phrase as it was played.
        whose : str
        heard_s : sequence of float
            When each of its gestures began.
        """
        if not all(map(self._library.holds, states)):
            return None
        found = distinctive_run(describe(self._library, states, self._counts), self._settings)
        if found is None:
            return None
        first, last, distinction = found
        motif = Motif(whose, heard_s[first], tuple(states[first:last]), tuple(transpositions[first:last]), distinction)
        if any(motif.states == other.states for other in self._motifs):
            return None
        self._motifs.append(motif)
        self._last_s[motif] = heard_s[last - 1]
        if len(self._motifs) > self._settings.kept:
            # Each place further back costs a motif a sixteenth of the largest distinction.
            worth = [m.distinction + age / self._settings.kept for age, m in enumerate(self._motifs)]
            self._last_s.pop(self._motifs.pop(int(np.argmin(worth[:-1]))))
        return motif

    def bring_back(
        self,
        now_s: float,
        *,
        chroma: AnyArray,
        pace: float,
        max_transposition: int,
        rng: np.random.Generator,
        whose: Whose | None = None,
    ) -> Return | None:
        """Return a motif changed to fit the moment, None where none is due.

        Parameters
        ----------
        now_s : float
        chroma : array of shape (12,)
            What sounds now.
        pace : float
            How long the player's intervals are now against those of the memory, the pace to come near to.
        max_transposition : int
        rng : numpy.random.Generator
        whose : str, optional
            Only the player's, or only its own.
        """
        self._motifs = [m for m in self._motifs if all(map(self._library.holds, m.states))]
        self._last_s = {m: self._last_s[m] for m in self._motifs}
        due = [m for m in self._motifs if now_s - self._last_s[m] >= self._settings.rest_s and whose in (None, m.whose)]
        if not due:
            return None
        weights = np.array([(2.0 if m.whose == "yours" else 1.0) * (0.25 + m.distinction) for m in due])
        motif = due[int(np.searchsorted(np.cumsum(weights), rng.random() * weights.sum(), side="right"))]
        self._last_s[motif] = now_s
        states, transpositions = motif.states, motif.transpositions
        whole = len(states) <= self._settings.fewest or rng.random() < 0.5
        if not whole:
            size = int(rng.integers(self._settings.fewest, len(states)))
            first = 0 if rng.random() < 0.7 else len(states) - size  # beginnings are remembered best
            states, transpositions = states[first : first + size], transpositions[first : first + size]
        moved = _best_move(self._library, states, transpositions, chroma, max_transposition)
        nearest = float(min(PACES, key=lambda p: abs(np.log2(p / max(pace, 1e-3)))))
        return Return(
            whose=motif.whose,
            heard_s=motif.heard_s,
            states=states,
            transpositions=tuple(t + moved for t in transpositions),
            moved=moved,
            pace=nearest,
            whole=whole,
        )


@dataclass(frozen=True)
class Described:
    """States as motifs are found in them, each of shape (n,).

    How rare their harmonic tokens are (0 to 1), how long they last, whether they sound and have notes, and their highest notes,
    0 where there are none.
    """

    surprise: Float64
    durations_s: Float64
    sounding: Bool
    noted: Bool
    highest: Int64


def describe(library: MemoryPool, states: Sequence[int], counts: Int64) -> Described:
    """Return what is to be known of states; `counts` is how often the memory has each harmonic token, from silence on."""
    rows = [shelf.memory.states[local] for shelf, local in map(library.find, states)]
    tokens = np.array([row["tokens"] for row in rows], dtype=np.int64).reshape(-1, 2)
    total = max(2, int(counts.sum()))
    # A token that the memory has not is as rare as one that it has once.
    known = np.where(tokens[:, 0] + 1 < len(counts), tokens[:, 0] + 1, 0)
    share = np.maximum(1, np.where(known > 0, counts[known], 0)) / total
    highest = [
        max((int(p) for p in shelf.memory.notes_of(local)["pitch"]), default=0) for shelf, local in map(library.find, states)
    ]
    return Described(
        surprise=np.where(tokens[:, 0] == SILENCE, 0.0, -np.log2(share) / np.log2(total)),
        durations_s=np.array([row["duration_s"] for row in rows], dtype=np.float64),
        sounding=(tokens != SILENCE).any(axis=1),
        noted=np.array([row["note_count"] > 0 for row in rows], dtype=bool),
        highest=np.array(highest, dtype=np.int64),
    )


def distinctive_run(phrase: Described, settings: MotifSettings) -> tuple[int, int, float] | None:
    """Return (first, last + 1, distinction from 0 to 1) of a phrase's most distinctive run, None where it has none.

    Distinction is the mean surprise of the harmonic tokens and the share of notes that move, half each; a short run is worth
    up to a fifth less. Runs have no silence in them, and notes in at least half of their gestures.
    """
    n = len(phrase.durations_s)
    moves = np.concatenate([[False], (np.diff(phrase.highest) != 0) & phrase.noted[1:] & phrase.noted[:-1]])
    best: tuple[int, int, float] | None = None
    for first in range(n - settings.fewest + 1):
        for last in range(first + settings.fewest, min(n, first + settings.most) + 1):
            run = slice(first, last)
            length_s = float(phrase.durations_s[run].sum())
            if length_s > settings.longest_s or not phrase.sounding[run].all():
                break
            if length_s < settings.shortest_s or 2 * phrase.noted[run].sum() < last - first:
                continue
            distinct = 0.5 * float(phrase.surprise[run].mean()) + 0.5 * float(moves[first + 1 : last].mean())
            worth = distinct * (1 - _SHORT + _SHORT * (last - first) / settings.most)
            if best is None or worth > best[2]:
                best = (first, last, worth)
    return best


def _best_move(
    library: MemoryPool, states: Sequence[int], transpositions: Sequence[int], chroma: AnyArray, max_transposition: int
) -> int:
    """Return the transposition in which a run fits what sounds now best, the smallest among equals; 0 where nothing sounds."""
    total = np.zeros(12)
    for state, moved in zip(states, transpositions, strict=True):
        shelf, local = library.find(state)
        total += np.roll(shelf.memory.states["chroma"][local].astype(np.float64), moved)
    centred, present = total - total.mean(), np.asarray(chroma, dtype=np.float64) - np.mean(chroma)
    size = np.linalg.norm(centred) * np.linalg.norm(present)
    if size <= 0:
        return 0
    moves = sorted(range(-max_transposition, max_transposition + 1), key=lambda m: (abs(m), m))
    fits = [round(float(np.roll(centred, m) @ present / size), 6) - 0.01 * abs(m) for m in moves]
    return moves[int(np.argmax(fits))]
