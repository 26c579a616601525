"""Harmony: chroma compared in every transposition, and an index of a memory's states by their harmony.

Chroma is centred and of length 1, so that the product of two is their correlation. The index files a state in the *bin* of
its three strongest pitch classes, in order. A search looks at a bounded number of states in the bins that fit the present
best; a small memory is searched completely, and exactly. The transposition that memory is played in is chosen where a phrase
begins, and kept unless the harmony moves.
"""

from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np

from musichal.arrays import AnyArray, Bool, Float64, Int64, rounded, rounded_number
from musichal.memory.ready import keepable

EXAMINED = 512
"""How many states of a large memory a search looks at untransposed, at most."""
EXAMINED_MOVED = 48
"""How many it looks at in each transposition."""
LOOKED_THROUGH = 2048
"""A memory of no more states is looked through completely."""
_RANKED = 330
"""How many bins are considered: the best quarter."""
_BINS = tuple(permutations(range(12), 3))
_STRENGTHS = (1.0, 0.8, 0.6)
_ROUNDED = 1e-6
_NOISE_SPREAD, _MUSIC_SPREAD = 0.15, 0.33
_STATES = 2**32  # more than there can be
_ANOTHER = 2.0  # so many times likelier must another transposition be where a phrase begins
_MOVED, _SURELY = 6.0, 0.6  # so many times likelier, and so likely, inside of one


def unit_chroma(chroma: AnyArray) -> Float64:
    """Return chroma, shape (…, 12), centred and of length 1; zero where it is flat."""
    values = np.asarray(chroma, dtype=np.float64)
    # `numpy.mean` and `numpy.linalg.norm` are several times slower for the single chroma of a decision.
    centred = values - np.add.reduce(values, axis=-1, keepdims=True) / values.shape[-1]
    return centred / np.maximum(np.sqrt(np.add.reduce(centred * centred, axis=-1, keepdims=True)), 1e-12)


def moved(present: AnyArray, transpositions: Int64) -> Float64:
    """Return a chroma moved *down* by each transposition, shape (12, t).

    A state moved up by t has at pitch class c what it had at c − t: moving the present down compares the same.
    """
    return np.asarray(present, dtype=np.float64).take(_MOVED_CLASSES.take(transpositions % 12, axis=1))


def tonalness(chroma: AnyArray) -> float:
    """Return how much of a chroma is harmony rather than noise, 0 to 1.

    The spread of its twelve values relative to their mean is 0.06 to 0.15 for white and pink noise heard by `FeatureExtractor`,
    and 0.33 to 1.3 for the bundled music (5 to 95 % of segments).
    """
    # `numpy.mean` and `numpy.std` take several times as long for twelve values.
    mean = np.add.reduce(chroma) / len(chroma)
    if mean <= 0:
        return 0.0
    apart = chroma - mean
    spread = float(np.sqrt(np.add.reduce(apart * apart) / len(chroma))) / float(mean)
    return min(1.0, max(0.0, (spread - _NOISE_SPREAD) / (_MUSIC_SPREAD - _NOISE_SPREAD)))


def clashes_below(tonal: float, tension: float) -> float:
    """Return how far a pitch class must sound not to clash, 0 to 1: the further, the more `tonal` and the less `tension`."""
    return rounded_number(tonal * (1 - tension))


def sounding_classes(chroma: AnyArray) -> Float64:
    """Return how far each pitch class of a chroma (12,) sounds, 0 to 1: fully from two thirds of the strongest one on."""
    values = np.asarray(chroma, dtype=np.float64)
    strongest = float(np.maximum.reduce(values))
    if strongest <= 0:
        return np.zeros(12)
    return np.minimum(1.0, 1.5 * values / strongest)


def fitting_classes(chroma: AnyArray, *, least: float, least_likely: float = 0.0) -> Bool:
    """Return which pitch classes fit a harmony (12,): those that sound by `least` (0 to 1) and have `least_likely` there."""
    values = np.asarray(chroma, dtype=np.float64)
    fitting: Bool = (sounding_classes(values) >= least) & (values >= least_likely)
    return fitting


def harmonic_fit(
    classes: Float64, chroma: AnyArray, transpositions: Int64, *, least: float = 0.0, least_likely: float = 0.0
) -> Float64:
    """Return how far states' notes fit a harmony, 0 to 1, in each of the transpositions (t,), shape (n, t).

    `classes` (n, 12) is the share of each pitch class in a state's notes, `chroma` (12,) the harmony to fit. A pitch class fits
    by the square of its strength beside the strongest; what is none of the `fitting_classes` does not fit at all.
    """
    values = np.asarray(chroma, dtype=np.float64)
    relative = values / max(float(np.maximum.reduce(values)), 1e-12)
    fits = relative * relative * fitting_classes(values, least=least, least_likely=least_likely)
    fit = (moved(fits, transpositions).T @ classes.T).T
    return np.minimum(np.maximum(fit, 0, out=fit), 1, out=fit)


def _bin_chromas() -> Float64:
    chromas = np.zeros((len(_BINS), 12))
    for strength, classes in zip(_STRENGTHS, np.array(_BINS).T, strict=True):
        chromas[np.arange(len(_BINS)), classes] = strength
    return unit_chroma(chromas)


def _bin_numbers() -> Int64:
    numbers = np.full((12, 12, 12), -1, dtype=np.int64)
    for number, classes in enumerate(_BINS):
        numbers[classes] = number
    return numbers


_BIN_CHROMAS, _NUMBERS = _bin_chromas(), _bin_numbers()
# At [c, t] pitch class c + t; at [t, d] the bin whose classes lie t below those of bin d.
_MOVED_CLASSES: Int64 = (np.arange(12)[:, None] + np.arange(12)) % 12
_MOVED_BINS: Int64 = _NUMBERS[tuple(np.moveaxis((np.array(_BINS) - np.arange(12)[:, None, None]) % 12, -1, 0))]
for _table in (_BIN_CHROMAS, _NUMBERS, _MOVED_CLASSES, _MOVED_BINS):
    _table.setflags(write=False)


@keepable()
class HarmonyIndex:
    """Files the states of a memory by their `unit_chroma`, shape (n, 12), except those without harmony."""

    def __init__(self, units: AnyArray) -> None:
        classes = np.argsort(-units, axis=1, kind="stable")[:, :3]
        tonal = np.flatnonzero(units.any(axis=1))
        bins = _NUMBERS[classes[:, 0], classes[:, 1], classes[:, 2]][tonal]
        self._filed = tonal[np.argsort(bins, kind="stable")].astype(np.int64)
        self._counts = np.bincount(bins, minlength=len(_BINS)).astype(np.int64)
        self._starts = np.cumsum(self._counts) - self._counts
        # At [t, d] how many states are looked at of bin d moved by t: at most a quarter of all from one, so that
        # neighbouring harmonies are heard too.
        self._takes = np.minimum(self._counts[_MOVED_BINS], np.array([EXAMINED, *11 * [EXAMINED_MOVED]])[:, None] // 4)

    def bins(self, present: Float64, transpositions: Int64) -> "Bins":
        """Return where to look for what fits `present`, shape (12,), of `unit_chroma`, in one of the transpositions (t,)."""
        fits, moves = rounded(_BIN_CHROMAS @ present), transpositions % 12
        least = np.partition(fits, len(fits) - _RANKED)[len(fits) - _RANKED]
        ranked = (fits >= least).nonzero()[0]
        ranked = ranked.take((-fits.take(ranked)).argsort(kind="stable")[:_RANKED])
        # What a bin may give, less what goes beyond the budget: one row for each transposition, the best bins first.
        takes = self._takes.take(ranked, axis=1).take(moves, axis=0)
        left = np.where(moves == 0, EXAMINED, EXAMINED_MOVED)[:, None] - np.add.accumulate(takes, axis=1)
        takes = np.minimum(takes, np.maximum(takes + left, 0)).ravel()
        looked = (takes > 0).nonzero()[0]
        take, column = takes.take(looked), looked // _RANKED
        # A state in bin (a, b, c), moved up by t, is one in (a + t, b + t, c + t).
        bin = _MOVED_BINS[moves.take(column), ranked.take(looked % _RANKED)]
        before = np.add.accumulate(take) - take
        # From here on, one for each state that is looked at.
        which = np.arange(len(take)).repeat(take)
        count, spread = self._counts.take(bin).take(which), take.take(which)
        steps = (np.arange(len(which)) - before.take(which)) * count // spread
        return Bins(self._filed, self._starts.take(bin).take(which), count, spread, steps, column.take(which))


@dataclass(frozen=True)
class Bins:
    """Which states a search looks at: so many in all, k.

    Of the `filed` states each is in a bin that begins at `starts` (k,) and holds `counts`; of those `spreads` are looked
    at, and it lies `steps` behind the first of them, in another place each turn where a bin holds more than is looked at.
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
    """A search for the `most` states of a memory whose `units` (n, 12) fit the `present` (12,) best.

    Each semitone of a transposition takes off the `penalty`. Without an `index` it looks at all states. What is the same in
    each turn is done at the beginning.
    """

    def __init__(
        self, index: HarmonyIndex | None, present: Float64, units: AnyArray, transpositions: Int64, *, penalty: float, most: int
    ) -> None:
        self._units, self._most, self._times = units, most, len(transpositions)
        self._found: Int64 = np.zeros(0, dtype=np.int64)
        self._bins: Bins | None = None
        self._of_turns: dict[int, Int64] = {}
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
            self._bins = index.bins(present, transpositions)
            self._presents = presents.T.take(self._bins.columns, axis=0)
            self._costs = costs.take(self._bins.columns)

    def states(self, turn: int) -> Int64:
        """Return the states that fit best in one of the transpositions, ascending; none that does not fit at all.

        Of a large memory each turn looks at others, and has them at hand if it is asked again.
        """
        if self._bins is None:
            return self._found
        if turn not in self._of_turns:
            states = self._bins.states(turn)
            fit = np.einsum("kc,kc->k", self._units.take(states, axis=0).astype(np.float64), self._presents) - self._costs
            # A state is there once for each transposition at most.
            self._of_turns[turn] = _best(states, fit, self._most, times=self._times)
        return self._of_turns[turn]


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
    best = list(dict.fromkeys((keys % _STATES).tolist()))[:most]
    return np.array(sorted(best), dtype=np.int64)


@dataclass(frozen=True)
class KeptTransposition:
    """A `transposition` in semitones, `why` it is that one, in words, and whether a choice has `told` that."""

    transposition: int = 0
    why: str = ""
    told: bool = False

    def at(self, likely: Float64, allowed: Int64, *, penalty: float, begins: bool) -> "KeptTransposition":
        """Return the transposition to play in now, one of those `allowed` (t,).

        Memory moved up by t is in the player's key with the probability `likely` (12,), of which each semitone takes off the
        share `penalty`. A phrase that `begins` may take another one; else it takes one only where the harmony moved.
        """
        chances = likely.tolist()
        worth = {t: chances[t % 12] * max(0.0, 1 - penalty * abs(t)) for t in allowed.tolist()}
        best = max(worth, key=lambda t: (worth[t], -abs(t)))
        kept = worth.get(self.transposition, 0.0)
        # A phrase that was to begin in another one, and rested first, has still to say why.
        same = KeptTransposition(self.transposition) if begins and self.told else self
        if best == self.transposition:
            return same
        if begins and worth[best] > _ANOTHER * kept:
            return KeptTransposition(best, f"it fits your key ({likely[best % 12]:.0%} likely)")
        if worth[best] > _MOVED * kept and likely[best % 12] >= _SURELY:
            return KeptTransposition(best, f"your harmony has moved ({likely[best % 12]:.0%} likely)")
        return same if self.transposition in worth else KeptTransposition(best)

    def says(self, transposition: int) -> str:
        """Return why a choice has this transposition, nothing where it is not the one that is kept."""
        return self.why if transposition == self.transposition else ""

    def played(self, transposition: int) -> "KeptTransposition":
        """Return it after a choice was played in this transposition."""
        return replace(self, told=True) if transposition == self.transposition else self
