"""States by their harmony: which of a memory fit best what sounds, without asking all of them.

A state is filed by its three strongest pitch classes, in order; chroma is centred and of length 1, so that the product of two
is their correlation. A search looks through the drawers whose three classes fit the present best, at a bounded number of
states; a memory that is no larger than that is looked through completely, and the answer is exact.
"""

from array import array
from itertools import permutations

import numpy as np

from musichal.arrays import AnyArray, Float64, Int64

EXAMINED = 1024
"""How many states a search looks at as they are, at most."""
EXAMINED_MOVED = 64
"""How many it looks at in each transposition."""
_DRAWERS = tuple(permutations(range(12), 3))
_STRENGTHS = (1.0, 0.8, 0.6)


def unit_chroma(chroma: AnyArray) -> Float64:
    """Return chroma, shape (…, 12), centred and of length 1; zero where it has no colour."""
    values = np.asarray(chroma, dtype=np.float64)
    centred = values - values.mean(axis=-1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=-1, keepdims=True), 1e-12)


def moved(present: AnyArray, transpositions: Int64) -> Float64:
    """Return a chroma moved *down* by each transposition, shape (12, t).

    A state moved up by t has at pitch class c what it had at c − t: moving the present down compares the same.
    """
    return np.stack([np.roll(np.asarray(present, dtype=np.float64), -int(t)) for t in transpositions], axis=1)


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
_CLASSES = np.array(_DRAWERS, dtype=np.int64)
for _table in (_DRAWER_CHROMAS, _NUMBERS, _CLASSES):
    _table.setflags(write=False)


class HarmonyIndex:
    """Files states by harmony, in the order in which they come."""

    def __init__(self) -> None:
        self._drawers: list[array[int]] = [array("q") for _ in _DRAWERS]
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def extend(self, units: AnyArray) -> None:
        """File more states by their `unit_chroma`, shape (k, 12); what has no colour is counted but not filed."""
        classes = np.argsort(-units, axis=1, kind="stable")[:, :3]
        coloured = np.flatnonzero(units.any(axis=1))
        numbers = _NUMBERS[classes[:, 0], classes[:, 1], classes[:, 2]][coloured]
        order = np.argsort(numbers, kind="stable")
        filed = coloured[order] + self._count
        for part in np.split(np.arange(len(order)), np.flatnonzero(np.diff(numbers[order])) + 1):
            if len(part):
                self._drawers[int(numbers[order[part[0]]])].extend(filed[part].tolist())
        self._count += len(units)

    def search(
        self, present: Float64, units: AnyArray, transpositions: Int64, *, penalty: float, most: int, turn: int
    ) -> Int64:
        """Return up to `most` states that fit `present` best in one of the transpositions, ascending.

        What does not fit at all is not among them.

        Parameters
        ----------
        present : array of shape (12,)
            Of `unit_chroma`.
        units : array of shape (n, 12)
            The states' own.
        transpositions : array of shape (t,)
        penalty : float
            What each semitone of transposition takes off.
        most : int
        turn : int
            Where a drawer holds more than is looked at, each turn looks at others.
        """
        if not most or not self._count:
            return np.zeros(0, dtype=np.int64)
        presents = moved(present, transpositions).astype(np.float32)
        costs = (penalty * np.abs(transpositions)).astype(np.float32)
        if self._count <= EXAMINED:
            fit = (units @ presents - costs).max(axis=1)
            best = np.argsort(-fit, kind="stable")[:most]
            return np.sort(best[fit[best] > 0]).astype(np.int64)
        ranked = np.argsort(-(_DRAWER_CHROMAS @ present), kind="stable")[: len(_DRAWERS) // 4]
        states, fits = [], []
        for column, shift in enumerate(transpositions.tolist()):
            # A state in drawer (a, b, c), moved up by t, is one in (a + t, b + t, c + t).
            classes = (_CLASSES[ranked] - shift) % 12
            drawers = _NUMBERS[classes[:, 0], classes[:, 1], classes[:, 2]]
            looked = self._examined(drawers, EXAMINED_MOVED if shift else EXAMINED, turn)
            states.append(looked)
            fits.append(units[looked] @ presents[:, column] - costs[column])
        found, fit = np.concatenate(states), np.concatenate(fits)
        found, fit = found[fit > 0], fit[fit > 0]
        order = np.lexsort((found, -fit))
        _, first = np.unique(found[order], return_index=True)
        return np.sort(found[order][np.sort(first)[:most]])

    def _examined(self, drawers: Int64, budget: int, turn: int) -> Int64:
        """Return up to `budget` states of these drawers, at most a quarter of them from one."""
        found: list[int] = []
        for drawer in drawers.tolist():
            filed = self._drawers[drawer]
            count = len(filed)
            if not count:
                continue
            take = min(count, budget - len(found), budget // 4)
            found += [filed[(turn * take + k * count // take) % count] for k in range(take)]
            if len(found) >= budget:
                break
        return np.array(found, dtype=np.int64)
