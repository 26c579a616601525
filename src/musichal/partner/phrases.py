"""Phrases and motifs in memory.

Phrases: where the recordings begin and end one, how long they are, and how long the breaths between them are. A boundary
lies where the music pauses or changes. The strength of a boundary before an event is its size times the change to its
neighbours, over three profiles: duration, level, harmony (after Cambouropoulos, The Local Boundary Detection Model, ICMC 2001,
whose profiles are intervals of time, rest and pitch). Every silence and every peak that stands out is a boundary, the
strongest first, unless a phrase would become too short. Where a recording never pauses, the strongest change in each stretch
of the longest length is one.

Motifs: short runs of states worth coming back to, the player's and the partner's own. A motif is the most distinctive run of
a phrase: its tokens are rare and its notes move. It comes back transposed to the harmony of the moment, at another pace, or in
part (as in Cope, Experiments in Musical Intelligence, 1996; here only what has just been played).
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from musichal.arrays import AnyArray, Bool, Float64, Int64, Records, rounded
from musichal.hearing.percepts import SILENCE
from musichal.memory.memory import Memory
from musichal.memory.ready import keepable
from musichal.partner.memory_pool import MemoryPool, token_counts
from musichal.text import clock

SHORTEST_PHRASE_S, LONGEST_PHRASE_S = 1.5, 10.0
SHORTEST_BREATH_S, LONGEST_BREATH_S = 0.2, 4.0
_SILENCE_S = 0.25  # a silence is a boundary from this length on
_DEVIATIONS = 1.0  # a peak stands out where it exceeds the mean by so many standard deviations
_WEIGHTS = (0.5, 0.25, 0.25)  # duration, level, harmony

Whose = Literal["yours", "its own"]
PACES = (0.5, 2 / 3, 1.0, 1.5, 2.0)
"""Factors by which a motif's length may change: diminished, as it was, augmented."""
_FEWEST_STATES, _MOST_STATES = 3, 10
_SHORTEST_MOTIF_S, _LONGEST_MOTIF_S = 0.8, 5.0
_SHORT = 0.2  # what a short motif is worth less at most


# ── phrases ──────────────────────────────────────────────────────────────────


@keepable()
@dataclass(frozen=True)
class PhraseMap:
    """Phrases of a memory: `begins` and `ends` (n,) mark states; `lengths_s` and `breaths_s` are those found, sorted."""

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

    def ends_with(self, state: int) -> bool:
        """Return whether a phrase ends with a state; False for what was learned since."""
        return state < len(self.ends) and bool(self.ends[state])


def find_phrases(memory: Memory) -> PhraseMap:
    """Return the phrases of a memory."""
    states = memory.states
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
        places = np.searchsorted(sounding, [0, *_boundaries(own, silent).tolist(), len(own)])
        places = places[np.flatnonzero(np.diff(places, prepend=-1))]
        begin, end = sounding[places[:-1]], sounding[places[1:] - 1]
        begins[first + begin] = ends[first + end] = True
        end_s = (own["start_s"][end] + own["duration_s"][end]).astype(np.float64)
        lengths += (end_s - own["start_s"][begin]).tolist()
        breaths += (own["start_s"][begin[1:]] - end_s[:-1]).tolist()
    kept = np.sort(np.clip(lengths or [4.0], SHORTEST_PHRASE_S, LONGEST_PHRASE_S))
    pauses = [b for b in breaths if b >= SHORTEST_BREATH_S]
    if not pauses:  # a recording that never falls silent breathes as long as its longer gestures last
        pauses = np.quantile(states["duration_s"], [0.75, 0.9, 0.97]).tolist() if n else [0.5]
    return PhraseMap(begins, ends, kept, np.sort(np.clip(pauses, SHORTEST_BREATH_S, LONGEST_BREATH_S)))


def _boundaries(states: Records, silent: Bool) -> Int64:
    """Return the states before which a phrase of one recording ends, in order."""
    starts = states["start_s"].astype(np.float64)
    strength = _strength(states)
    strength[silent & (states["duration_s"] >= _SILENCE_S)] = np.inf
    middle = np.arange(1, len(states))
    peaks = middle[(strength[1:] >= strength[:-1]) & (strength[1:] > np.append(strength[2:], -np.inf))]
    finite = strength[np.isfinite(strength)]
    clear = finite.mean() + _DEVIATIONS * finite.std() if len(finite) else np.inf
    peaks = peaks[np.argsort(-strength[peaks], kind="stable")]
    cuts_s = [float(starts[0]), float(starts[-1] + states["duration_s"][-1])]
    chosen: list[int] = []
    standing_out = strength[peaks] >= clear
    for wanted in (peaks[standing_out], peaks[~standing_out]):
        # What does not stand out only divides stretches that are too long, and stretches only become shorter.
        places = np.minimum(np.searchsorted(cuts_s, starts[wanted]), len(cuts_s) - 1)
        long = np.diff(cuts_s, prepend=-np.inf)[places] > LONGEST_PHRASE_S
        for peak in wanted[long | (strength[wanted] >= clear)].tolist():
            start_s, place = float(starts[peak]), bisect_left(cuts_s, starts[peak])
            before_s, after_s = cuts_s[place - 1], cuts_s[min(place, len(cuts_s) - 1)]
            apart = min(start_s - before_s, after_s - start_s) >= SHORTEST_PHRASE_S
            if (strength[peak] >= clear or after_s - before_s > LONGEST_PHRASE_S) and (apart or np.isinf(strength[peak])):
                cuts_s.insert(place, start_s)
                chosen.append(peak)
    return np.array(sorted(chosen), dtype=np.int64)


def _strength(states: Records) -> Float64:
    """Return the strength of a boundary before each state, rounded, 0 at the first."""
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
    return rounded(total)


# ── motifs ───────────────────────────────────────────────────────────────────


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
    """A motif as it comes back: which of its states, moved by how much, at which pace, and whether it is the `whole`.

    What the performer `asked` for comes back in any harmony.
    """

    whose: Whose
    heard_s: float
    states: tuple[int, ...]
    transpositions: tuple[int, ...]
    moved: int
    pace: float
    whole: bool
    asked: bool = False

    @property
    def words(self) -> str:
        """What comes back and how it is changed, in words."""
        words = [f"{'your' if self.whose == 'yours' else 'its own'} motif of {clock(int(self.heard_s), decimals=0)}"]
        if self.moved:
            words.append(f"moved {'up' if self.moved > 0 else 'down'} {abs(self.moved)}")
        if self.pace != 1:
            words.append(f"{'slower' if self.pace > 1 else 'faster'}, {self.pace:.2g} times as long")
        if not self.whole:
            words.append("in part")
        return ", ".join(words)


class MotifStore:
    """Keeps motifs and brings them back.

    * `library`: Where the states of motifs are.
    * `most`: How many motifs to remember; the least distinctive and oldest are forgotten first.
    * `rest_s`: How long after it was heard, or last came back, a motif may come back.
    """

    def __init__(self, library: MemoryPool, *, most: int = 16, rest_s: float = 15.0) -> None:
        self._library = library
        self._most, self._rest_s = most, rest_s
        self._counts = library.base.memory.derived(token_counts)
        self._last_s: dict[Motif, float] = {}  # the oldest motif first

    def __len__(self) -> int:
        return len(self._last_s)

    def keep(
        self, states: Sequence[int], transpositions: Sequence[int], *, whose: Whose, heard_s: Sequence[float]
    ) -> Motif | None:
        """Keep the most distinctive run of a phrase, if there is one; `heard_s` is when each of its states began."""
        if not all(map(self._library.holds, states)):
            return None
        found = distinctive_run(self._library, states, self._counts)
        if found is None:
            return None
        first, last, distinction = found
        motif = Motif(whose, heard_s[first], tuple(states[first:last]), tuple(transpositions[first:last]), distinction)
        if any(motif.states == other.states for other in self._last_s):
            return None
        self._last_s[motif] = heard_s[last - 1]
        if len(self._last_s) > self._most:
            # Each place further back costs a motif a sixteenth of the largest distinction.
            worth = [m.distinction + age / self._most for age, m in enumerate(self._last_s)]
            del self._last_s[list(self._last_s)[int(np.argmin(worth[:-1]))]]
        return motif

    def bring_back(
        self, now_s: float, *, chroma: AnyArray, pace: float, max_transposition: int, rng: np.random.Generator
    ) -> Return | None:
        """Return a motif that fits the `chroma` (12,) of the moment, near a `pace`; None where none is due."""
        self._last_s = {m: at_s for m, at_s in self._last_s.items() if all(map(self._library.holds, m.states))}
        due = [m for m, at_s in self._last_s.items() if now_s - at_s >= self._rest_s]
        if not due:
            return None
        weights = np.array([(2.0 if m.whose == "yours" else 1.0) * (0.25 + m.distinction) for m in due])
        motif = due[int(np.searchsorted(np.cumsum(weights), rng.random() * weights.sum(), side="right"))]
        self._last_s[motif] = now_s
        states, transpositions = motif.states, motif.transpositions
        whole = len(states) <= _FEWEST_STATES or rng.random() < 0.5
        if not whole:
            size = int(rng.integers(_FEWEST_STATES, len(states)))
            first = 0 if rng.random() < 0.7 else len(states) - size  # beginnings are remembered best
            states, transpositions = states[first : first + size], transpositions[first : first + size]
        moved = _best_move(self._library, states, transpositions, chroma, max_transposition)
        nearest = min(PACES, key=lambda p: round(abs(float(np.log2(p / max(pace, 1e-3)))), 9))
        return Return(motif.whose, motif.heard_s, states, tuple(t + moved for t in transpositions), moved, nearest, whole)


def distinctive_run(library: MemoryPool, states: Sequence[int], counts: Int64) -> tuple[int, int, float] | None:
    """Return (first, last + 1, distinction from 0 to 1) of a phrase's most distinctive run, None where it has none.

    Distinction is half the mean surprise of the harmonic tokens, half the share of notes that move; a short run is worth up to
    a fifth less. Runs have no silence in them, and notes in at least half of their states. `counts` is how often the
    memory has each harmonic token, from silence on; a token that it lacks is as rare as one that it has once.
    """
    found = [library.find(state) for state in states]
    rows = [segment.memory.states[local] for segment, local in found]
    tokens = np.array([row["tokens"] for row in rows], dtype=np.int64).reshape(-1, 2)
    total = max(2, int(counts.sum()))
    known = np.where(tokens[:, 0] + 1 < len(counts), tokens[:, 0] + 1, 0)
    share = np.maximum(1, np.where(known > 0, counts[known], 0)) / total
    surprise = np.where(tokens[:, 0] == SILENCE, 0.0, -np.log2(share) / np.log2(total))
    durations_s = np.array([row["duration_s"] for row in rows], dtype=np.float64)
    sounding = (tokens != SILENCE).any(axis=1)
    noted = np.array([row["note_count"] > 0 for row in rows], dtype=bool)
    highest = np.array([max((int(p) for p in segment.memory.notes_of(local)["pitch"]), default=0) for segment, local in found])
    moves = np.concatenate([[False], (np.diff(highest) != 0) & noted[1:] & noted[:-1]])
    best: tuple[int, int, float] | None = None
    for first in range(len(rows) - _FEWEST_STATES + 1):
        for last in range(first + _FEWEST_STATES, min(len(rows), first + _MOST_STATES) + 1):
            run = slice(first, last)
            length_s = float(durations_s[run].sum())
            if length_s > _LONGEST_MOTIF_S or not sounding[run].all():
                break
            if length_s < _SHORTEST_MOTIF_S or 2 * noted[run].sum() < last - first:
                continue
            distinct = 0.5 * float(surprise[run].mean()) + 0.5 * float(moves[first + 1 : last].mean())
            worth = round(distinct * (1 - _SHORT + _SHORT * (last - first) / _MOST_STATES), 9)
            if best is None or worth > best[2]:
                best = (first, last, worth)
    return best


def _best_move(
    library: MemoryPool, states: Sequence[int], transpositions: Sequence[int], chroma: AnyArray, max_transposition: int
) -> int:
    """Return the transposition in which a run fits what sounds best, the smallest among equals; 0 where nothing sounds."""
    total = np.zeros(12)
    for state, moved in zip(states, transpositions, strict=True):
        segment, local = library.find(state)
        total += np.roll(segment.memory.states["chroma"][local].astype(np.float64), moved)
    centred, present = total - total.mean(), np.asarray(chroma, dtype=np.float64) - np.mean(chroma)
    size = np.linalg.norm(centred) * np.linalg.norm(present)
    if size <= 0:
        return 0
    moves = sorted(range(-max_transposition, max_transposition + 1), key=lambda m: (abs(m), m))
    fits = [round(float(np.roll(centred, m) @ present / size), 6) - 0.01 * abs(m) for m in moves]
    return moves[int(np.argmax(fits))]
