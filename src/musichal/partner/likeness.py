"""Likeness: where memory's last seconds are like the player's, not equal to them, in any transposition.

The *past* of a moment is the harmony of five stretches of time before it, each about twice as long as the one after it
(`EDGES_S`): what was lately, finely, and what was before, coarsely. Two pasts are alike as far as the chroma of their stretches
correlates; transposing one rotates it. A small memory is looked through completely. In a large one the clusters of its Audio
Oracle say where to look: those whose harmony is nearest to the player's last gesture. Query by content with an oracle is from
Wang & Dubnov ("Guided music synthesis with variable Markov oracle", MuMe 2014). There gestures are compared one to one; here
time is, so that players who cut the same music into other gestures are alike.

Pasts are whole numbers: their products are exact, in whatever order they are added up.
"""

import math
from dataclasses import dataclass

import numpy as np

from musichal.arrays import AnyArray, Columns, Float64, Int64, rounded
from musichal.hearing.percepts import SILENCE
from musichal.memory.memory import Memory
from musichal.memory.ready import keepable
from musichal.partner.harmony import moved, unit_chroma

EDGES_S = (0.0, 0.35, 0.7, 1.4, 2.8, 5.6)
"""How long before a moment the stretches of its past begin and end."""
LOOKED_THROUGH = 4096
"""A memory of no more states is looked through completely."""
EXAMINED = 1024
"""How many states of a larger one are looked at, at most."""
_STRETCHES = len(EDGES_S) - 1
PAST = 12 * _STRETCHES
"""Length of a past."""
_GRID = 127
_SAME = _STRETCHES * _GRID * _GRID
_LEAST_SPREAD = 0.02 * _SAME
_MOVED = 0.15  # what being transposed at all takes off: of twelve keys one always fits by chance
_CLUSTERS = 4096  # so many of the largest clusters are known
_NEAREST = 24  # so many of them are looked into
_ROWS = 2**32  # more than are looked at at once
_BLOCK, _BACK = 1 << 15, 128  # states at a time, and so many before them belong to their past


def pasts(starts_s: Float64, ends_s: Float64, units: AnyArray, moments_s: Float64) -> AnyArray:
    """Return the pasts of some moments, int8 of shape (k, PAST); zero where nothing sounded.

    `units` (n, 12) are the `unit_chroma` of gestures from `starts_s` (n,) to `ends_s` (n,), which ascend; zero for silence.
    """
    lengths_s = ends_s - starts_s
    sums = np.concatenate([np.zeros((1, 12)), np.add.accumulate(units * lengths_s[:, None])])
    edges_s = (moments_s[:, None] - np.array(EDGES_S)).ravel()
    here = np.maximum(starts_s.searchsorted(edges_s, side="right") - 1, 0)
    within_s = np.minimum(np.maximum(edges_s - starts_s.take(here), 0), lengths_s.take(here))
    until = sums.take(here, axis=0) + within_s[:, None] * units.take(here, axis=0)
    until = until.reshape(len(moments_s), len(EDGES_S), 12)
    stretches = until[:, :-1] - until[:, 1:]
    sizes = np.sqrt(np.add.reduce(stretches * stretches, axis=2, keepdims=True))
    heard = sizes > 1e-9
    return np.rint(rounded(stretches * (heard * _GRID / np.where(heard, sizes, 1.0)))).astype(np.int8).reshape(-1, PAST)


@dataclass(frozen=True)
class Alike:
    """States (k,) that are like a past, best first, each with its `transpositions` (k,) and `fits` (k,).

    `usual` and `spread` are the mean fit of the states that were looked at, and its standard deviation.
    """

    states: Int64
    transpositions: Int64
    fits: Int64
    usual: float
    spread: float

    def strengths(self, usual: float, spread: float) -> Float64:
        """Return the worth of each fit, 0 to 1: z / (z + 1) for z standard deviations more than is `usual`.

        So they compare with those of n symbols, n / (n + 1), whatever the music: where all is alike, likeness says little.
        """
        z = np.maximum(self.fits - max(usual, 0.0), 0.0) / max(spread, _LEAST_SPREAD)
        return rounded(z / (z + 1))


@keepable()
class Pasts:
    """The past of each state of a memory at its end, and a search for those that are like another.

    `line_s` (n,) is where the states begin on a line of time on which recordings lie far apart.
    """

    def __init__(self, memory: Memory, line_s: Float64) -> None:
        self._memory = memory
        self._pasts = Columns(np.int8, (PAST,))
        self.extend(line_s)
        self._clusters = _Clusters(memory) if len(memory) > LOOKED_THROUGH else None

    def extend(self, line_s: Float64) -> None:
        """Take in the states that were appended to the memory."""
        rows = self._memory.states
        for first in range(len(self._pasts), len(rows), _BLOCK):
            end, from_ = min(first + _BLOCK, len(rows)), max(0, first - _BACK)
            own, starts_s = rows[from_:end], line_s[from_:end]
            ends_s = starts_s + own["duration_s"]
            units = unit_chroma(own["chroma"]) * (own["tokens"] != SILENCE).any(axis=1, keepdims=True)
            self._pasts.extend(pasts(starts_s, ends_s, units, ends_s[first - from_ :]))

    def alike(
        self, past: AnyArray, chroma: AnyArray, transpositions: Int64, *, home: int, penalty: float, most: int, turn: int
    ) -> "Alike":
        """Return the `most` states most like a `past` (PAST,), each in its best transposition.

        `chroma` (12,) is that of the player's last gesture. Each semitone takes off the `penalty`, any transposition but
        `home` some more. Of a large memory each `turn` looks at other states.
        """
        costs = np.rint(_SAME * (_MOVED * (transpositions != home) + penalty * np.abs(transpositions)))
        if self._clusters is None:
            states: Int64 = np.arange(len(self._pasts))
        else:
            states = self._clusters.states(unit_chroma(chroma), transpositions, costs / _SAME, turn)
        # A state moved up by t is like the past moved down by t. Whole numbers below 2^24 are exact in single precision.
        keys = past.reshape(_STRETCHES, 12)[:, (np.arange(12) + transpositions[:, None]) % 12].swapaxes(0, 1)
        fit = (
            keys.reshape(len(transpositions), PAST).astype(np.float32)
            @ self._pasts.view.take(states, axis=0).astype(np.float32).T
        )
        fit -= costs[:, None].astype(np.float32)
        column = fit.argmax(axis=0)
        best = fit[column, np.arange(len(states))].astype(np.int64)
        usual = int(best.sum()) / max(1, len(best))
        spread = math.sqrt(max(int((best * best).sum()) / max(1, len(best)) - usual * usual, 0.0))
        if len(best) > most:
            # The fit before the number, in one whole number: the smallest are the best, of equally good ones the first.
            order = np.sort(np.arange(len(best)) - best * _ROWS)[:most] % _ROWS
            states, column, best = states[order], column[order], best[order]
        return Alike(states, transpositions.take(column), best, usual, spread)


@keepable()
class _Clusters:
    """The clusters of a memory's oracle: the harmony of the state that opened each, and the states in it."""

    def __init__(self, memory: Memory) -> None:
        clusters = memory.oracle.clusters().astype(np.int64)
        counts = np.bincount(clusters)
        largest = np.sort(np.argsort(-counts, kind="stable")[:_CLUSTERS])
        filed = np.argsort(clusters, kind="stable")
        starts = (np.cumsum(counts) - counts)[largest]
        self._filed, self._starts, self._counts = filed, starts, counts[largest]
        self._units = unit_chroma(memory.states["chroma"][filed[starts]])

    def states(self, unit: Float64, transpositions: Int64, costs: Float64, turn: int) -> Int64:
        """Return the states to look at for a `unit_chroma`, ascending, at most `EXAMINED`."""
        fit = rounded((self._units @ moved(unit, transpositions) - costs).max(axis=1))
        nearest = np.argsort(-fit, kind="stable")[:_NEAREST]
        counts = self._counts.take(nearest)
        takes = np.minimum(counts, EXAMINED // _NEAREST)
        # One for each state that is looked at: spread over its cluster, others of it each turn.
        which = np.arange(len(takes)).repeat(takes)
        steps = np.arange(len(which)) - (np.cumsum(takes) - takes).take(which)
        count, take = counts.take(which), takes.take(which)
        places = (turn * take + steps * count // take) % count
        return np.sort(self._filed.take(self._starts.take(nearest).take(which) + places))
