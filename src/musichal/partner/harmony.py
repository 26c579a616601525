"""States by their harmony: which of a memory fit best what sounds, without asking all of them.

A state is filed by its three strongest pitch classes, in order; chroma is centred and of length 1, so that the product of two
is their correlation. A search looks through the drawers whose three classes fit the present best, at a bounded number of
states; a memory that is no larger than that is looked through completely, and the answer is exact.
"""

from dataclasses import dataclass
from itertools import permutations

import numpy as np

from musichal.arrays import AnyArray, Float64, Int64

EXAMINED = 512
"""How many states of a large memory a search looks at as they are, at most."""
EXAMINED_MOVED = 48
"""How many it looks at in each transposition."""
LOOKED_THROUGH = 2048
"""A memory of no more states is looked through completely."""
_RANKED = 330
"""How many drawers are thought of, the best: a quarter of them."""
_DRAWERS = tuple(permutations(range(12), 3))
_STRENGTHS = (1.0, 0.8, 0.6)
_ROUNDED = 1e-6
_STATES = 2**32  # more than there can be


def unit_chroma(chroma: AnyArray) -> Float64:
    """Return chroma, shape (…, 12), centred and of length 1; zero where it has no colour."""
    values = np.asarray(chroma, dtype=np.float64)
    # `numpy.mean` and `numpy.linalg.norm` are several times slower for the single chroma of a decision.
    centred = values - np.add.reduce(values, axis=-1, keepdims=True) / values.shape[-1]
    return centred / np.maximum(np.sqrt(np.add.reduce(centred * centred, axis=-1, keepdims=True)), 1e-12)


def moved(present: AnyArray, transpositions: Int64) -> Float64:
    """Return a chroma moved *down* by each transposition, shape (12, t).

    A state moved up by t has at pitch class c what it had at c − t: moving the present down compares the same.
    """
    return np.asarray(present, dtype=np.float64).take(_MOVED_CLASSES.take(transpositions % 12, axis=1))


def _drawer_chromas() -> Float64:
    chromas = np.zeros((len(_DRAWERS), 12))
    for strength, classes in zip(_STRENGTHS, np.array(_DRAWERS).T, strict=True):
        chromas[np.arange(len(_DRAWERS)), classes] = strength
    return unit_chroma(chromas)


def _drawer_numbers() -> Int64:
    numbers = np.full((12, 12, 12), -1, dtype=np.int64)
    for number, classes in enumerate(_DRAWERS):
        numbers[classes] = number
    return numbers


_DRAWER_CHROMAS, _NUMBERS = _drawer_chromas(), _drawer_numbers()
# At [c, t] pitch class c + t; at [t, d] the drawer whose classes lie t below those of drawer d.
_MOVED_CLASSES: Int64 = (np.arange(12)[:, None] + np.arange(12)) % 12
_MOVED_DRAWERS: Int64 = _NUMBERS[tuple(np.moveaxis((np.array(_DRAWERS) - np.arange(12)[:, None, None]) % 12, -1, 0))]
for _table in (_DRAWER_CHROMAS, _NUMBERS, _MOVED_CLASSES, _MOVED_DRAWERS):
    _table.setflags(write=False)


class HarmonyIndex:
    """Files the states of a memory by harmony.

    Parameters
    ----------
    units : array of shape (n, 12)
        Of `unit_chroma`; what has no colour is not filed.
    """

    def __init__(self, units: AnyArray) -> None:
        classes = np.argsort(-units, axis=1, kind="stable")[:, :3]
        coloured = np.flatnonzero(units.any(axis=1))
        drawers = _NUMBERS[classes[:, 0], classes[:, 1], classes[:, 2]][coloured]
        self._filed = coloured[np.argsort(drawers, kind="stable")].astype(np.int64)
        self._counts = np.bincount(drawers, minlength=len(_DRAWERS)).astype(np.int64)
        self._starts = np.cumsum(self._counts) - self._counts
        # At [t, d] how many states are looked at of drawer d moved by t: at most a quarter of all from one, so that
        # neighbouring harmonies are heard too.
        self._takes = np.minimum(self._counts[_MOVED_DRAWERS], np.array([EXAMINED, *11 * [EXAMINED_MOVED]])[:, None] // 4)

    def drawers(self, present: Float64, transpositions: Int64) -> "Drawers":
        """Return where to look for what fits `present`, shape (12,), of `unit_chroma`, in one of the transpositions (t,)."""
        fits, moves = _DRAWER_CHROMAS @ present, transpositions % 12
        least = np.partition(fits, len(fits) - _RANKED)[len(fits) - _RANKED]
        ranked = (fits >= least).nonzero()[0]
        ranked = ranked.take((-fits.take(ranked)).argsort(kind="stable")[:_RANKED])
        # What a drawer may give, less what goes beyond the budget: one row for each transposition, the best drawers first.
        takes = self._takes.take(ranked, axis=1).take(moves, axis=0)
        left = np.where(moves == 0, EXAMINED, EXAMINED_MOVED)[:, None] - np.add.accumulate(takes, axis=1)
        takes = np.minimum(takes, np.maximum(takes + left, 0)).ravel()
        looked = (takes > 0).nonzero()[0]
        take, column = takes.take(looked), looked // _RANKED
        # A state in drawer (a, b, c), moved up by t, is one in (a + t, b + t, c + t).
        drawer = _MOVED_DRAWERS[moves.take(column), ranked.take(looked % _RANKED)]
        before = np.add.accumulate(take) - take
        # From here on, one for each state that is looked at.
        which = np.arange(len(take)).repeat(take)
        count, spread = self._counts.take(drawer).take(which), take.take(which)
        steps = (np.arange(len(which)) - before.take(which)) * count // spread
        return Drawers(self._filed, self._starts.take(drawer).take(which), count, spread, steps, column.take(which))


@dataclass(frozen=True)
class Drawers:
    """Which states a search looks at: so many in all, k.

    Of the `filed` states each is in a drawer that begins at `starts` (k,) and holds `counts`; of those `spreads` are looked
    at, and it lies `steps` behind the first of them, in another place each turn where a drawer holds more than is looked at.
    `columns` is in which transposition it is looked at.
    """

    filed: Int64
    starts: Int64
    counts: Int64
    spreads: Int64
    steps: Int64
    columns: Int64

    def states(self, turn: int) -> Int64:
        """Return the states to look at in a turn, shape (k,)."""
        return self.filed.take(self.starts + (turn * self.spreads + self.steps) % self.counts)


class HarmonySearch:
    """A search for the states of a memory that fit best; all of it that is the same for each turn is done at the beginning.

    Parameters
    ----------
    index : HarmonyIndex or None
        None looks through all states.
    present : array of shape (12,)
        Of `unit_chroma`.
    units : array of shape (n, 12)
        The states' own.
    transpositions : array of shape (t,)
    penalty : float
        What each semitone of transposition takes off.
    most : int
        How many states to find at most.
    """

    def __init__(
        self, index: HarmonyIndex | None, present: Float64, units: AnyArray, transpositions: Int64, *, penalty: float, most: int
    ) -> None:
        self._units, self._most, self._times = units, most, len(transpositions)
        self._found: Int64 = np.zeros(0, dtype=np.int64)
        self._drawers: Drawers | None = None
        self._turn: int | None = None
        # In double precision: what is equal must be equal behind the rounding of `_best` too, in whatever order it is added up.
        presents = moved(present, transpositions)
        costs = penalty * np.abs(transpositions)
        if not most or not len(units):
            return
        if index is None:
            # One row for each transposition: the larger of two rows is found many at a time.
            fit = (presents.T @ units.T.astype(np.float64) - costs[:, None]).max(axis=0)
            self._found = _best(np.arange(len(units)), fit, most)
        else:
            self._drawers = index.drawers(present, transpositions)
            self._presents = presents.T.take(self._drawers.columns, axis=0)
            self._costs = costs.take(self._drawers.columns)

    def states(self, turn: int) -> Int64:
        """Return the states that fit best in one of the transpositions, ascending; none that does not fit at all.

        Of a large memory each turn looks at others, and has them at hand if it is asked again.
        """
        if self._drawers is not None and turn != self._turn:
            states, self._turn = self._drawers.states(turn), turn
            fit = np.einsum("kc,kc->k", self._units.take(states, axis=0).astype(np.float64), self._presents) - self._costs
            # A state is there once for each transposition at most.
            self._found = _best(states, fit, self._most, times=self._times)
        return self._found


def _best(states: Int64, fit: Float64, most: int, *, times: int = 1) -> Int64:
    """Return the states, ascending, that fit best, of equally good ones the first; none that does not fit.

    A state may be there up to so many `times`: the best of them counts.
    """
    kept = (fit > _ROUNDED).nonzero()[0]
    # Fit to six places before the number of the state, in one whole number: the smallest are the best.
    keys = states.take(kept) - np.rint(1e6 * fit.take(kept)).astype(np.int64) * _STATES
    if len(keys) > most * times:
        keys = np.partition(keys, most * times)[: most * times]
    keys.sort()
    best: set[int] = set()
    for state in (keys % _STATES).tolist():
        best.add(state)
        if len(best) == most:
            break
    return np.array(sorted(best), dtype=np.int64)
