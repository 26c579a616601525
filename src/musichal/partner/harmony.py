"""States by their harmony: which of a memory fit best what sounds, without asking all of them.

A state is filed by its three strongest pitch classes, in order; chroma is centred and of length 1, so that the product of two
is their correlation. A search looks through the drawers whose three classes fit the present best, at a bounded number of
states; a memory that is no larger than that is looked through completely, and the answer is exact.
"""

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
_FIRST_RANKED = 64
_DRAWERS = tuple(permutations(range(12), 3))
_STRENGTHS = (1.0, 0.8, 0.6)
_ROUNDED = 1e-6


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
_FIRST: Int64 = np.zeros(1, dtype=np.int64)
# At [c, t] pitch class c + t; at [t, d] the drawer whose classes lie t below those of drawer d.
_MOVED_CLASSES: Int64 = (np.arange(12)[:, None] + np.arange(12)) % 12
_MOVED_DRAWERS: Int64 = _NUMBERS[tuple(np.moveaxis((np.array(_DRAWERS) - np.arange(12)[:, None, None]) % 12, -1, 0))]
for _table in (_DRAWER_CHROMAS, _NUMBERS, _FIRST, _MOVED_CLASSES, _MOVED_DRAWERS):
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

    def near(self, present: Float64, transpositions: Int64, *, turn: int) -> tuple[Int64, Int64]:
        """Return states worth looking at and the column of the transposition in which each is; both of shape (k,).

        Parameters
        ----------
        present : array of shape (12,)
            Of `unit_chroma`.
        transpositions : array of shape (t,)
        turn : int
            Where a drawer holds more than is looked at, each turn looks at others.
        """
        fits, moves = _DRAWER_CHROMAS @ present, transpositions % 12
        least = np.partition(fits, len(fits) - _RANKED)[len(fits) - _RANKED]
        ranked = (fits >= least).nonzero()[0]
        ranked = ranked.take((-fits.take(ranked)).argsort(kind="stable")[:_RANKED])
        # Where little is looked at, the first few drawers hold enough, as a rule.
        unmoved = self._looked_at(ranked, moves, (moves == 0).nonzero()[0], EXAMINED, first=_RANKED)
        others = self._looked_at(ranked, moves, moves.nonzero()[0], EXAMINED_MOVED, first=_FIRST_RANKED)
        take, drawer, column = (np.concatenate(both) for both in zip(unmoved, others, strict=True))
        count, start, before = self._counts.take(drawer), self._starts.take(drawer), np.add.accumulate(take) - take
        # From here on, one for each state that is looked at.
        which = np.arange(len(take)).repeat(take)
        count, spread, steps = count.take(which), take.take(which), np.arange(len(which)) - before.take(which)
        picks = (turn * spread + steps * count // spread) % count
        return self._filed.take(start.take(which) + picks), column.take(which)

    def _looked_at(self, ranked: Int64, moves: Int64, columns: Int64, budget: int, *, first: int) -> tuple[Int64, Int64, Int64]:
        """Return how many states are looked at of which drawer, in which of the `columns`: `budget` in each, of the best."""
        moved_by = moves.take(columns)[:, None]
        for thought_of in (first, _RANKED):
            takes = self._takes[moved_by, ranked[:thought_of]]
            until = np.add.accumulate(takes, axis=1)
            if (until[:, -1] >= budget).all():
                break
        # What a drawer may give, less what goes beyond the budget.
        takes = np.minimum(np.maximum(budget - until + takes, 0), takes).ravel()
        looked = takes.nonzero()[0]
        row, rank = looked // thought_of, looked % thought_of
        # A state in drawer (a, b, c), moved up by t, is one in (a + t, b + t, c + t).
        drawers = _MOVED_DRAWERS[moved_by.ravel().take(row), ranked.take(rank)]
        return takes.take(looked), drawers, columns.take(row)


def in_harmony(
    index: HarmonyIndex | None,
    present: Float64,
    units: AnyArray,
    transpositions: Int64,
    *,
    penalty: float,
    most: int,
    turn: int,
) -> Int64:
    """Return up to `most` states that fit `present` best in one of the transpositions, ascending.

    What does not fit at all is not among them.

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
    turn : int
        See `HarmonyIndex.near`.
    """
    if not most or not len(units):
        return np.zeros(0, dtype=np.int64)
    # In double precision: what is equal must be equal behind the rounding of `_best` too, whatever adds it up in which order.
    presents = moved(present, transpositions)
    costs = penalty * np.abs(transpositions)
    if index is None:
        # One row for each transposition: the larger of two rows is found many at a time.
        fit = (presents.T @ units.T.astype(np.float64) - costs[:, None]).max(axis=0)
        return _best(np.arange(len(units)), fit, most)
    states, columns = index.near(present, transpositions, turn=turn)
    fit = np.einsum("kc,kc->k", units.take(states, axis=0), presents.T.take(columns, axis=0)) - costs.take(columns)
    # A state is there once for each transposition at most: so many hold the best states for certain.
    worth = _worth_sorting(fit, most * len(transpositions))
    states, fit = states.take(worth), fit.take(worth)
    if not len(states):
        return states
    order = states.argsort()
    states, fit = states.take(order), fit.take(order)
    first = np.concatenate([_FIRST, (states[1:] != states[:-1]).nonzero()[0] + 1])
    return _best(states.take(first), np.maximum.reduceat(fit, first), most)


def _best(states: Int64, fit: Float64, most: int) -> Int64:
    """Return the states, ascending, that fit best, of equally good ones the first; none that does not fit."""
    kept = _worth_sorting(fit, most)
    if len(kept) > most:
        keys = np.round(fit.take(kept), 6) - np.arange(len(kept)) * (1e-7 / len(kept))
        kept = np.sort(kept.take((-keys).argpartition(most - 1)[:most]))
    return states.take(kept)


def _worth_sorting(fit: Float64, most: int) -> Int64:
    """Return which of the values can be among the `most` best after rounding, of those that fit at all; ascending."""
    kept = (fit > _ROUNDED).nonzero()[0]
    if len(kept) <= most:
        return kept
    values = fit.take(kept)
    least = np.partition(values, len(kept) - most)[len(kept) - most]
    return kept.take((values >= least - 2 * _ROUNDED).nonzero()[0])
