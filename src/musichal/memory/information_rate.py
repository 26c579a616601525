"""Information rate of a memory, and the distance threshold of an Audio Oracle that has most of it.

A sequence is coded as literals and copies of its own past from its repeat lengths (Compror: Lefebvre & Lecroq, SOFSEM
2002). The information rate of a frame is what the past tells about it (Dubnov, Assayag & Cont, ICSC 2011; Wang &
Dubnov, AIIDE 2014), here in the cumulative form: for a frame in code word number m, L frames long, when k literals
have been sent so far,

    max(0, alpha · log2 k - log2(m) / L)   bits,

and the rate of a sequence is the sum over its frames. It is 0 where nothing repeats (k = m, L = 1) and where everything
does (k = 1); in between lies the threshold that makes a memory neither noise nor drone.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from musichal.arrays import AnyArray, Float32, Float64, Int64
from musichal.errors import InputError
from musichal.memory.audio_oracle import (
    OracleLinks,
    checked_vectors,
    exact_squared_distance,
    nearest_target,
    rounding_bound,
)

LOWEST_QUANTILE = 0.0005
HIGHEST_QUANTILE = 0.5
_SAMPLED_PAIRS = 20_000
_BLOCK_VALUES = 1 << 21
_BLOCK_ROWS = 128


def code_words(repeat_lengths: AnyArray) -> tuple[Int64, npt.NDArray[np.bool_]]:
    """Return the lengths of the code words that cover a sequence, and which of them are literals; both shape (words,).

    `repeat_lengths`, shape (n,), holds per position how many tokens up to there occurred earlier.
    """
    repeats = _checked_repeats(repeat_lengths)
    lengths: list[int] = []
    literals: list[bool] = []
    n = len(repeats)
    start = 0
    while start < n:
        end = start
        while end < n and repeats[end] >= end - start + 1:
            end += 1
        literals.append(end == start)
        end = max(end, start + 1)
        lengths.append(end - start)
        start = end
    return np.array(lengths, dtype=np.int64), np.array(literals, dtype=np.bool_)


def information_rates(repeat_lengths: AnyArray, *, alpha: float = 1.0) -> Float64:
    """Return the information rate of each frame in bits, shape (n,), from repeat lengths of shape (n,).

    They may come from a `TokenIndex` (exact) or from an `AudioOracle`. Raises `InputError` for anything but a row of
    integers.
    """
    lengths, literals = code_words(repeat_lengths)
    words = np.arange(1, len(lengths) + 1)
    # The first word is always a literal, so that there is always one to take the logarithm of.
    per_word = alpha * np.log2(np.maximum(np.cumsum(literals), 1)) - np.log2(words) / np.maximum(lengths, 1)
    return np.repeat(np.maximum(per_word, 0.0), lengths)


def information_rate(repeat_lengths: AnyArray, *, alpha: float = 1.0) -> float:
    """Return the sum of `information_rates` in bits; divide by the frames to compare memories."""
    return float(information_rates(repeat_lengths, alpha=alpha).sum())


def _checked_repeats(repeat_lengths: AnyArray) -> list[int]:
    if not isinstance(repeat_lengths, np.ndarray) or repeat_lengths.ndim != 1 or repeat_lengths.dtype.kind not in "iu":
        raise InputError("repeat lengths must be a row of integers")
    values: list[int] = repeat_lengths.tolist()
    return values


@dataclass(frozen=True)
class ThresholdSearch:
    """What a search for a threshold found.

    `thresholds` (k,) are the distances that were tried, ascending; `rates` (k,) the information rate of the whole
    sequence at each, in bits; `clusters` (k,) how many clusters there were. `chosen` is the index of the highest
    rate, the lowest threshold of equals.
    """

    thresholds: tuple[float, ...]
    rates: tuple[float, ...]
    clusters: tuple[int, ...]
    chosen: int

    @property
    def threshold(self) -> float:
        """The chosen distance."""
        return self.thresholds[self.chosen]


def choose_threshold(vectors: AnyArray, *, rng: np.random.Generator, n_values: int = 20) -> ThresholdSearch:
    """Return the threshold at which the oracle of `vectors`, shape (n, dims), has the highest information rate.

    Tried are up to `n_values` quantiles of distances between vectors, at levels in geometric steps from
    `LOWEST_QUANTILE` to `HIGHEST_QUANTILE`: equal vectors are few among all pairs, so the low levels matter most. All
    pairs are taken where they are few, a sample of them from `rng` otherwise. Where every distance is 0, the one
    threshold tried is the smallest that joins equal vectors. Costs O(n² · dims) for the distances, which all trials
    share. Raises `InputError` for fewer than two vectors, NaN or infinite values, or `n_values` below 1.
    """
    checked = checked_vectors(vectors)
    if len(checked) < 2:
        raise InputError(f"a threshold needs at least 2 vectors, not {len(checked)}")
    if n_values < 1:
        raise InputError(f"a threshold search needs at least 1 value, not {n_values}")
    thresholds = quantile_thresholds(checked, rng=rng, n_values=n_values)
    trials = grow_oracles(checked, thresholds)
    rates = [information_rate(np.array(links.repeat[1:], dtype=np.int32)) for links in trials]
    return ThresholdSearch(
        thresholds=tuple(thresholds),
        rates=tuple(rates),
        clusters=tuple(len(links.members) for links in trials),
        chosen=int(np.argmax(rates)),
    )


def quantile_thresholds(vectors: Float32, *, rng: np.random.Generator, n_values: int) -> list[float]:
    """Return up to `n_values` different positive distances, ascending: quantiles of pairs of different vectors."""
    n = len(vectors)
    if n * (n - 1) // 2 <= _SAMPLED_PAIRS:
        first, second = np.triu_indices(n, 1)
    else:
        first = rng.integers(0, n, _SAMPLED_PAIRS)
        second = (first + rng.integers(1, n, _SAMPLED_PAIRS)) % n
    distances = np.sqrt([exact_squared_distance(vectors[i], vectors[j]) for i, j in zip(first, second, strict=True)])
    levels = np.geomspace(LOWEST_QUANTILE, HIGHEST_QUANTILE, n_values)
    quantiles = np.unique(np.quantile(distances, levels))
    # Equality is "closer than": the smallest normal number joins what is equal and nothing else.
    smallest = float(np.finfo(np.float32).tiny)
    return sorted({max(float(value), smallest) for value in quantiles})


def grow_oracles(vectors: Float32, thresholds: list[float]) -> list[OracleLinks]:
    """Return the links of one oracle per threshold, grown side by side on shared blocks of distances.

    They are those of `AudioOracle.from_vectors` at each threshold, bit for bit: the same `OracleLinks` grow, and
    distances here, too, only stand in for exact ones where the outcome is the same.
    """
    n, dims = vectors.shape
    wide = vectors.astype(np.float64)
    norms = np.einsum("ij,ij->i", wide, wide)
    trials = [_Trial(vectors, threshold) for threshold in thresholds]
    start = 0
    while start < n:
        rows = min(_BLOCK_ROWS, max(1, _BLOCK_VALUES // (start + 1)), n - start)
        end = start + rows
        block = wide[start:end] @ wide[:end].T
        block *= -2.0
        block += norms[:end]
        block += norms[start:end, np.newaxis]
        bound = rounding_bound(dims, float(norms[:end].max()))
        for trial in trials:
            trial.grow(block, start, bound)
        start = end
    return [trial.links for trial in trials]


class _Trial:
    """One oracle of the search: links, and the targets of state 0 as an array."""

    def __init__(self, vectors: Float32, threshold: float) -> None:
        self.links = OracleLinks()
        self._vectors = vectors
        self._limit = threshold * threshold
        self._roots: Int64 = np.empty(len(vectors), dtype=np.int64)

    def grow(self, block: Float64, start: int, bound: float) -> None:
        """Add the vectors of `block`, whose columns are approximate squared distances to vectors 0, 1, ..."""
        links, roots, vectors = self.links, self._roots, self._vectors
        forward, members, limit = links.forward, links.members, self._limit
        low, high = limit - bound, limit + bound
        row = start
        distances = block[0]
        value = distances.item

        def exact(target: int) -> float:
            return exact_squared_distance(vectors[row], vectors[target - 1])

        def nearest(state: int) -> int:
            if not state:
                targets = roots[: len(members)]
                return nearest_target(targets, distances[targets - 1], exact, limit=limit, bound=bound)
            more = forward.get(state)
            if more is None:
                approximate = value(state)
                if approximate >= high:
                    return 0
                return state + 1 if approximate < low or exact(state + 1) < limit else 0
            several = [state + 1, *more]
            picked = np.array([value(target - 1) for target in several])
            return nearest_target(several, picked, exact, limit=limit, bound=bound)

        for offset in range(len(block)):
            row = start + offset
            distances = block[offset]
            value = distances.item
            count = len(members)
            state = links.add(nearest)
            if len(members) > count:
                roots[count] = state
