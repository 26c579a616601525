"""The information rate of a sequence, and the threshold of an Audio Oracle: the distance at which it is highest.

References: Dubnov, Assayag & Cont, ICMC 2007; Wang & Dubnov, AIIDE 2014. The information rate of a short memory is highest
where much that sounds different is equal, so that there can be a floor on the number of clusters. A long memory is searched in
a sample of it: stretches of one length, evenly spread.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from musichal.arrays import AnyArray, Bool, Float32, Float64, Int64
from musichal.errors import InputError
from musichal.memory.audio_oracle import Distances, OracleLinks, checked_vectors, exact_squared_distance, rounding_bound

LOWEST_QUANTILE = 0.0005
HIGHEST_QUANTILE = 0.5
SEARCHED = 4000
"""So many vectors are searched at most,"""
STRETCHES = 8
"""in so many stretches."""
_SAMPLED_PAIRS = 20_000
_BLOCK_VALUES = 1 << 21
_BLOCK_ROWS = 128


@dataclass(frozen=True)
class ThresholdSearch:
    """What a search for a threshold found.

    `thresholds` (k,) are the distances that were tried, ascending; `rates` (k,) the information rate of the whole
    sequence at each, in bits; `clusters` (k,) how many clusters there were. `chosen` is the index of the highest
    rate among those with enough clusters, the lowest threshold of equals.
    """

    thresholds: tuple[float, ...]
    rates: tuple[float, ...]
    clusters: tuple[int, ...]
    chosen: int

    @property
    def threshold(self) -> float:
        """The chosen distance."""
        return self.thresholds[self.chosen]


def choose_threshold(
    vectors: AnyArray, *, rng: np.random.Generator, n_values: int = 20, least_clusters: int = 0
) -> ThresholdSearch:
    """Return the threshold at which the oracle of `vectors`, shape (n, dims), has the highest information rate.

    Of a long sequence `sampled` is searched. Tried are up to `n_values` quantiles of distances between vectors, at levels in
    geometric steps from `LOWEST_QUANTILE` to `HIGHEST_QUANTILE`: equal vectors are few among all pairs, so the low levels
    matter most. All pairs are taken where they are few, a sample of them from `rng` otherwise. Where every distance is 0, the
    one threshold tried is the smallest that joins equal vectors. There must be `least_clusters`, if a threshold gives as many.
    Costs O(n² · dims) for the distances, which all trials share. Raises `InputError` for fewer than two vectors, NaN or
    infinite values, or `n_values` below 1.
    """
    checked = checked_vectors(vectors)
    if len(checked) < 2:
        raise InputError(f"a threshold needs at least 2 vectors, got {len(checked)}")
    if n_values < 1:
        raise InputError(f"a threshold search needs at least 1 value, got {n_values}")
    checked = checked[sampled(len(checked))]
    thresholds = quantile_thresholds(checked, rng=rng, n_values=n_values)
    trials = grow_oracles(checked, thresholds)
    rates = [information_rate(np.array(links.repeat[1:], dtype=np.int32)) for links in trials]
    clusters = [len(links.roots) for links in trials]
    # Larger thresholds give fewer clusters; where even the smallest gives too few, it is the one.
    enough = [count >= least_clusters for count in clusters]
    chosen = int(np.argmax(np.where(enough, rates, -np.inf))) if any(enough) else 0
    return ThresholdSearch(thresholds=tuple(thresholds), rates=tuple(rates), clusters=tuple(clusters), chosen=chosen)


def sampled(n: int) -> Int64:
    """Return which of n vectors are searched, at most `SEARCHED`: all, or stretches of one length that begin evenly spread."""
    if n <= SEARCHED:
        return np.arange(n)
    length = SEARCHED // STRETCHES
    starts = np.arange(STRETCHES) * (n - length) // (STRETCHES - 1)
    return np.asarray((starts[:, None] + np.arange(length)).ravel())


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
    # Equality is "closer than": the smallest normal number joins what is equal and nothing else.
    smallest = float(np.finfo(np.float32).tiny)
    return sorted({max(float(value), smallest) for value in np.quantile(distances, levels)})


def grow_oracles(vectors: Float32, thresholds: list[float]) -> list[OracleLinks]:
    """Return the links of one oracle per threshold, grown side by side on shared blocks of distances.

    They are those of `AudioOracle.from_vectors` at each threshold, bit for bit: distances here, too, only stand in for
    exact ones where the outcome is the same.
    """
    n, dims = vectors.shape
    wide = vectors.astype(np.float64)
    norms = np.einsum("ij,ij->i", wide, wide)
    trials = [OracleLinks() for _ in thresholds]
    start = 0
    while start < n:
        end = start + min(_BLOCK_ROWS, max(1, _BLOCK_VALUES // (start + 1)), n - start)
        block = wide[start:end] @ wide[:end].T
        block *= -2.0
        block += norms[:end]
        block += norms[start:end, np.newaxis]
        bound = rounding_bound(dims, float(norms[:end].max()))
        for links, threshold in zip(trials, thresholds, strict=True):
            for row in range(start, end):
                links.add(_InBlock(vectors[row], vectors, threshold * threshold, bound, block[row - start]))
        start = end
    return trials


@dataclass(slots=True)
class _InBlock(Distances):
    """Distances that are a row of a matrix of distances."""

    row: Float64

    def one(self, target: int) -> float:
        return self.row.item(target - 1)

    def several(self, targets: Sequence[int]) -> Float64:
        return self.row[np.array(targets) - 1]


def code_words(repeat_lengths: AnyArray) -> tuple[Int64, Bool]:
    """Return the lengths of the code words that cover a sequence, and which of them are literals; both shape (words,).

    Words are literals and copies of the sequence's own past (Compror: Lefebvre & Lecroq, SOFSEM 2002).
    `repeat_lengths`, shape (n,), holds per position how many tokens up to there occurred earlier. Raises `InputError` for
    anything but a row of integers.
    """
    if not isinstance(repeat_lengths, np.ndarray) or repeat_lengths.ndim != 1 or repeat_lengths.dtype.kind not in "iu":
        raise InputError("repeat lengths must be a row of integers")
    repeats: list[int] = repeat_lengths.tolist()
    lengths: list[int] = []
    literals: list[bool] = []
    start = 0
    while start < len(repeats):
        end = start
        while end < len(repeats) and repeats[end] >= end - start + 1:
            end += 1
        literals.append(end == start)
        lengths.append(max(1, end - start))
        start += lengths[-1]
    return np.array(lengths, dtype=np.int64), np.array(literals, dtype=np.bool_)


def information_rates(repeat_lengths: AnyArray, *, alpha: float = 1.0) -> Float64:
    """Return the information rate of each frame in bits, shape (n,), from repeat lengths of shape (n,).

    It is what the past tells about a frame (Dubnov, Assayag & Cont, ICSC 2011; Wang & Dubnov, AIIDE 2014), cumulative: for a
    frame in code word number m, L frames long, when k literals have been sent so far, max(0, alpha · log2 k - log2(m) / L).
    It is 0 where nothing repeats (k = m, L = 1) and where everything does (k = 1). Repeat lengths come from a `TokenIndex`
    (exact) or an `AudioOracle`. Raises `InputError` for anything but a row of integers.
    """
    lengths, literals = code_words(repeat_lengths)
    words = np.arange(1, len(lengths) + 1)
    # The first word is always a literal, so that there is always one to take the logarithm of.
    per_word = alpha * np.log2(np.maximum(np.cumsum(literals), 1)) - np.log2(words) / np.maximum(lengths, 1)
    return np.repeat(np.maximum(per_word, 0.0), lengths)


def information_rate(repeat_lengths: AnyArray, *, alpha: float = 1.0) -> float:
    """Return the sum of `information_rates` in bits; divide by the frames to compare memories."""
    return float(information_rates(repeat_lengths, alpha=alpha).sum())
