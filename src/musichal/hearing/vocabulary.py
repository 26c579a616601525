"""A vocabulary of sounds: k-means over the frames of one source, and the nearest centre as token.

Conventions
-----------
Features are (n, dims) float32. Before any distance they are normalised as the encoder asks: ``scale`` divides by one global
scale, ``l2-pca`` brings each vector to unit length and projects it on the leading principal components. Distances are
squared Euclidean in the normalised space. Tokens are 0 … size - 1; silent frames never get here.

References
----------
Arthur & Vassilvitskii, "k-means++: The advantages of careful seeding", SODA 2007. Lloyd, IEEE Trans. IT 28(2), 1982.
"""

import hashlib
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.special import entr

from musichal.arrays import AnyArray, Bool, Float32, Float64, Int16, Int64, RowFile, Rows
from musichal.errors import InputError
from musichal.hearing.percepts import SILENCE
from musichal.machine import processors
from musichal.spec import VocabularySpec
from musichal.text import counted

# Distances are computed in blocks of fixed height, so that memory is bounded and results do not depend on the total.
_BLOCK_ROWS = 4096
_SUMMED_ROWS = 1 << 18
# Restarts compete on a sample; only the winner is refined on every frame.
_SEEDING_ROWS = 6000
_SEEDING_ITERATIONS = 12
_TOLERANCE = 1e-4
_PCA_DIMS = 64
_LEAST_VARIANCE = 1e-9
# Projected values are sums of products of whole numbers: the projection in steps of 2^-14, unit vectors in steps of 2^-36.
# A partial sum in any order is below 2^51 steps (Cauchy-Schwarz), and float64 holds whole numbers up to 2^53: nothing is
# rounded, so any matrix product gives the same bits on every machine, for any number of threads and frames.
_PROJECTION_GRID = 2.0**14
_UNIT_GRID = 2.0**36
# The spread is the unit of distances: never zero, at least the rounding of squared distances in the normalised space.
_LEAST_SPREAD = 1e-7
_ALIKE = 0.05


@dataclass(frozen=True)
class Vocabulary:
    """The learned sounds of one source.

    `centres` (size, k) in the normalised space; `scale` the global scale (1 for ``l2-pca``); `mean` (dims,) and
    `projection` (dims, k) for ``l2-pca``, empty otherwise; `spread` the mean squared distance of the training frames to
    their centres; `counts` (size,) how many training frames each token got.
    """

    normalisation: str
    centres: Float32
    scale: float
    mean: Float32
    projection: Float32
    spread: float
    counts: Int64

    @property
    def size(self) -> int:
        """Return the number of tokens."""
        return int(self.centres.shape[0])

    @property
    def dims(self) -> int:
        """Return the length of the feature vectors it was learned from."""
        return int(self.centres.shape[1] if self.normalisation == "scale" else self.mean.shape[0])

    def normalise(self, features: Float32) -> Float32:
        """Return features (n, dims) in the space of the centres, shape (n, k)."""
        if self.normalisation == "scale":
            return (features / np.float32(self.scale)).astype(np.float32)
        return _project(features, self._plane)

    @cached_property
    def _plane(self) -> "_Plane":
        return _plane(self.mean, self.projection)

    @cached_property
    def _squares(self) -> Float32:
        return np.einsum("kd,kd->k", self.centres, self.centres)

    def distances(self, x: Float32) -> Float32:
        """Return squared distances (n, size) of normalised features (n, k) to every centre.

        Sums run in a fixed order whatever the number of threads, so tokens do not depend on the machine's load.
        """
        cross = np.einsum("nd,kd->nk", x, self.centres)
        squares = np.einsum("nd,nd->n", x, x)[:, None] + self._squares[None]
        return np.maximum(squares - 2 * cross, 0).astype(np.float32)

    def count(self, features: Float32) -> Int64:
        """Return how many frames (n, dims) get each token, (size,).

        The tokens are those that are heard: of a steady sound many centres are equally near but for rounding, and k-means,
        which computes distances in another way, may find another of them the nearest.
        """
        return self._count(map(self.normalise, _blocks(features)))

    def _count(self, blocks: Iterable[Float32]) -> Int64:
        counts = np.zeros(self.size, np.int64)
        for block in blocks:
            counts += np.bincount(nearest(self.distances(block)), minlength=self.size)
        return counts

    def alike(self) -> Bool:
        """Return which sounds are one but for rounding, (size, size): nearer to one another than a twentieth of their size.

        Of a drone a vocabulary has many such, and of clicks many for what is left when they have died away, all but zero;
        sounds of music lie a sixth of their size apart, or more.
        """
        x = self.centres.astype(np.float64)
        squares = np.einsum("kd,kd->k", x, x)
        size = (squares[:, None] + squares) / 2 if self.normalisation == "scale" else 1.0  # of unit vectors
        return np.asarray(squares[:, None] + squares - 2 * (x @ x.T) <= np.maximum(_ALIKE**2 * size, _LEAST_SPREAD))

    def digest(self) -> str:
        """Return the SHA-256 over everything that shapes a token, a frame's or a gesture's."""
        h = hashlib.sha256(f"{self.normalisation} {self.scale!r} {self.spread!r}".encode())
        for array in (self.centres, self.mean, self.projection):
            h.update(str(array.shape).encode() + np.ascontiguousarray(array).tobytes())
        return h.hexdigest()


def nearest(distances: Float32) -> Int16:
    """Return the index of the nearest centre for each row; the lowest index wins a tie."""
    return np.argmin(distances, axis=1).astype(np.int16)


def fit_vocabulary(features: Rows, spec: VocabularySpec, *, source: str, folder: Path | None = None) -> Vocabulary:
    """Learn a vocabulary from frames (n, dims) of one source; the same frames and spec give the same one, bit for bit.

    Frames are read block by block, so they may lie in a file. What is made of many goes into a file of `folder`, by default of
    the system's.

    Raises `InputError`, which names the `source`, if there are fewer different frames than tokens.
    """
    if not _has_distinct_rows(features, spec.size):
        raise InputError(
            f"too little sound for {spec.size} tokens: the {source} source has {counted(features.shape[0], 'audible frame')},"
            f" of which fewer than {spec.size} differ; give Chandra a longer recording, or one with more in it"
        )
    mean, projection, scale = _normalisation(features, spec)
    if spec.normalisation == "scale":
        x: Rows = _Scaled(features, np.float32(scale))
    else:
        projected = RowFile(projection.shape[1], folder or Path(tempfile.gettempdir()))
        plane = _plane(mean, projection)
        for block in _blocks(features):
            projected.append(_project(block, plane))
        x = projected
    rng = np.random.default_rng(spec.seed)
    centres = _best_start(x, spec, rng)
    centres, spread = _lloyd(x, centres, spec.max_iterations)
    none = np.zeros(spec.size, np.int64)
    fitted = Vocabulary(spec.normalisation, centres, scale, mean, projection, max(spread, _LEAST_SPREAD), none)
    return replace(fitted, counts=fitted._count(_blocks(x)))


def _blocks(rows: Rows) -> Iterator[Float32]:
    return (rows[first : first + _BLOCK_ROWS] for first in range(0, rows.shape[0], _BLOCK_ROWS))


@dataclass(frozen=True)
class _Scaled:
    """Rows divided by a scale when they are read."""

    rows: Rows
    scale: np.float32

    @property
    def shape(self) -> tuple[int, ...]:
        return self.rows.shape

    def __getitem__(self, chosen: Any) -> Float32:
        return np.asarray(self.rows[chosen] / self.scale, np.float32)


def _has_distinct_rows(features: Rows, count: int) -> bool:
    """Return whether at least `count` rows differ; stops at the first that suffice."""
    seen: set[bytes] = set()
    for block in _blocks(features):
        for row in block:
            seen.add((row + np.float32(0)).tobytes())  # -0.0 + 0.0 is 0.0
            if len(seen) >= count:
                return True
    return False


def _sum(blocks: Iterable[AnyArray]) -> Float64:
    """Return the sum over all rows of blocks (k, dims), added row by row, whatever the blocks."""
    total = np.zeros((0, 1))
    for block in blocks:
        total = np.add.reduce(np.concatenate([total, block]) if len(total) else block, axis=0, dtype=np.float64)[np.newaxis]
    return np.asarray(total[0])


def _normalisation(features: Rows, spec: VocabularySpec) -> tuple[Float32, Float32, float]:
    none, count = np.zeros(0, dtype=np.float32), features.shape[0]
    if spec.normalisation == "scale":
        mean = _sum(_blocks(features)) / count
        deviations = np.concatenate([np.sum(np.square(block - mean), axis=1) for block in _blocks(features)])
        return none, none.reshape(0, 0), float(np.sqrt(np.mean(deviations))) or 1.0
    mean = _sum(map(_unit, _blocks(features))) / count
    centred = (_unit(block) - mean for block in _blocks(features))
    values, vectors = np.linalg.eigh(sum(block.T @ block for block in centred))
    order = np.argsort(values)[::-1][:_PCA_DIMS]
    # Directions without variance are arbitrary, and so is an eigenvector's sign: make its largest component positive.
    leading = vectors[:, order[values[order] > _LEAST_VARIANCE * values[order[0]]]]
    signs = np.sign(leading[np.argmax(np.abs(leading), axis=0), np.arange(leading.shape[1])])
    # Whatever the number of threads leaves in the last bits of an eigenvector is rounded away.
    projection = np.rint(leading * signs * _PROJECTION_GRID) / _PROJECTION_GRID
    return mean.astype(np.float32), np.ascontiguousarray(projection, dtype=np.float32), 1.0


def _unit(features: Float32) -> Float32:
    norm = np.sqrt(np.einsum("nd,nd->n", features, features))[:, None]
    return (features / np.maximum(norm, np.float32(1e-12))).astype(np.float32)


@dataclass(frozen=True)
class _Plane:
    """A projection in whole steps: `directions` (dims, k), and where the mean falls, `origin` (k,)."""

    directions: Float64
    origin: Float64


def _plane(mean: Float32, projection: Float32) -> _Plane:
    directions = np.rint(projection.astype(np.float64) * _PROJECTION_GRID)
    return _Plane(directions, np.rint(mean.astype(np.float64) * _UNIT_GRID) @ directions)


def _project(features: Float32, plane: _Plane) -> Float32:
    """Return unit vectors of features (n, dims), from the mean and along the directions, shape (n, k)."""
    out = np.empty((features.shape[0], plane.directions.shape[1]), dtype=np.float32)
    for first in range(0, features.shape[0], _BLOCK_ROWS):
        block = features[first : first + _BLOCK_ROWS]
        squares = np.einsum("nd,nd->n", block, block).astype(np.float64)
        steps = np.multiply(block, (_UNIT_GRID / np.maximum(np.sqrt(squares), 1e-12))[:, None], dtype=np.float64)
        np.rint(steps, out=steps)
        out[first : first + _BLOCK_ROWS] = (steps @ plane.directions - plane.origin) * (1 / (_UNIT_GRID * _PROJECTION_GRID))
    return out


def _assign(x: Rows, centres: Float32) -> tuple[Int64, Float64]:
    """Return each row's nearest centre and its squared distance.

    A matrix product is fast, but its rounding depends on the number of threads. It decides only where no rounding could
    change the answer; the other rows are compared by sums in a fixed order. Blocks are done side by side, each on its own.
    """
    labels = np.empty(x.shape[0], dtype=np.int64)
    distance = np.empty(x.shape[0], dtype=np.float64)
    squares = np.einsum("kd,kd->k", centres, centres)
    # Either product is off by at most dims · eps · |x| |c| (Higham, Accuracy and Stability, 3.1); with room to spare.
    relative = 8 * (x.shape[1] + 8) * float(np.finfo(np.float32).eps)

    def assign(first: int) -> None:
        block = x[first : first + _BLOCK_ROWS]
        partial = squares[None] - 2 * (block @ centres.T)
        best = np.argmin(partial, axis=1)
        rows = np.arange(len(best))
        least = partial[rows, best]
        partial[rows, best] = np.inf
        largest = np.maximum(np.einsum("nd,nd->n", block, block), squares.max())
        close = np.flatnonzero(partial.min(axis=1) - least <= relative * largest)
        best[close] = np.argmin(squares[None] - 2 * np.einsum("nd,kd->nk", block[close], centres), axis=1)
        labels[first : first + _BLOCK_ROWS] = best
        difference = block - centres[best]
        distance[first : first + _BLOCK_ROWS] = np.einsum("nd,nd->n", difference, difference)

    with ThreadPoolExecutor(processors()) as threads:
        deque(threads.map(assign, range(0, x.shape[0], _BLOCK_ROWS)), maxlen=0)
    return labels, distance


def _seed(x: Float32, size: int, rng: np.random.Generator) -> Float32:
    """Return k-means++ starting centres."""
    centres = np.empty((size, x.shape[1]), dtype=np.float32)
    centres[0] = x[rng.integers(x.shape[0])]
    closest = _squared_distance(x, centres[0])
    for k in range(1, size):
        total = float(closest.sum())
        pick = int(np.searchsorted(np.cumsum(closest), rng.random() * total)) if total > 0 else int(rng.integers(len(x)))
        centres[k] = x[min(pick, x.shape[0] - 1)]
        closest = np.minimum(closest, _squared_distance(x, centres[k]))
    return centres


def _squared_distance(x: Float32, centre: Float32) -> Float64:
    difference = x - centre
    return np.einsum("nd,nd->n", difference, difference).astype(np.float64)


def _best_start(x: Rows, spec: VocabularySpec, rng: np.random.Generator) -> Float32:
    rows = np.sort(rng.permutation(x.shape[0])[:_SEEDING_ROWS])
    sample = x[rows]
    best: tuple[float, Float32] | None = None
    for _ in range(spec.restarts):
        centres, spread = _lloyd(sample, _seed(sample, spec.size, rng), _SEEDING_ITERATIONS)
        if best is None or spread < best[0]:
            best = (spread, centres)
    assert best is not None
    return best[1]


def _lloyd(x: Rows, centres: Float32, max_iterations: int) -> tuple[Float32, float]:
    """Alternate assignment and means until the mean distance hardly falls; return centres and mean distance."""
    labels, distance = _assign(x, centres)
    spread = float(distance.mean())
    for _ in range(max_iterations):
        centres = _means(x, labels, distance, centres.shape[0])
        labels, distance = _assign(x, centres)
        before, spread = spread, float(distance.mean())
        if before - spread <= _TOLERANCE * before:
            break
    return centres, spread


def _means(x: Rows, labels: Int64, distance: Float64, size: int) -> Float32:
    """Return the mean of each cluster; an empty one restarts at the frame farthest from its centre, each at another."""
    counts = np.bincount(labels, minlength=size)
    sums = np.zeros((size, x.shape[1]))
    part, clusters = sums, np.arange(size)
    for first in range(0, x.shape[0], _BLOCK_ROWS):
        if first % _SUMMED_ROWS == 0:
            sums, part = sums + part, np.zeros_like(sums)
        block = np.concatenate([part, x[first : first + _BLOCK_ROWS]])  # row by row, on from what there is
        rows = np.concatenate([clusters, labels[first : first + _BLOCK_ROWS]])
        part = csr_array((np.ones(len(rows)), (rows, np.arange(len(rows)))), shape=(size, len(rows))) @ block
    sums = sums + part
    centres = sums / np.maximum(counts, 1)[:, None]
    empty = np.flatnonzero(counts == 0)
    if empty.size:
        farthest = np.argsort(-distance, kind="stable")[: empty.size]
        centres[empty] = x[farthest]
    return centres.astype(np.float32)


def token_histogram(tokens: AnyArray, *, size: int) -> Int64:
    """Return how often each token occurs, shape (size,), silence left out.

    Raises `ValueError` if `tokens` is not a row of integers in [SILENCE, size - 1].
    """
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        raise ValueError(f"tokens must be a row of integers, got {tokens.dtype} of shape {tokens.shape}")
    if tokens.size and not (tokens.min() >= SILENCE and tokens.max() < size):
        raise ValueError(f"tokens must be in [{SILENCE}, {size - 1}], got [{tokens.min()}, {tokens.max()}]")
    return np.bincount(tokens[tokens != SILENCE], minlength=size).astype(np.int64)


def perplexity(histogram: AnyArray) -> float:
    """Return 2 to the entropy of a histogram, from 1 to its size; 0 where it is empty."""
    counts = _checked_histogram(histogram)
    total = counts.sum()
    if not total:
        return 0.0
    return float(2.0 ** _entropy_bits(counts / total))


def top_share(histogram: AnyArray, *, k: int = 1) -> float:
    """Return the share of the `k` commonest tokens, 0 to 1; 0 where the histogram is empty."""
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    counts = _checked_histogram(histogram)
    total = counts.sum()
    return float(np.sort(counts)[-k:].sum() / total) if total else 0.0


def jensen_shannon_divergence(first: AnyArray, second: AnyArray) -> float:
    """Return the Jensen-Shannon divergence of two histograms in bits: 0 where they agree, 1 where they share no token.

    Raises `ValueError` if their sizes differ or one is empty. (Lin, IEEE Trans. IT 37(1), 1991)
    """
    p, q = _checked_histogram(first), _checked_histogram(second)
    if p.shape != q.shape:
        raise ValueError(f"histograms of {len(p)} and {len(q)} tokens cannot be compared")
    if not (p.sum() and q.sum()):
        raise ValueError("an empty histogram cannot be compared")
    p, q = p / p.sum(), q / q.sum()
    divergence = _entropy_bits((p + q) / 2) - (_entropy_bits(p) + _entropy_bits(q)) / 2
    return min(1.0, max(0.0, divergence))  # rounding may lead a hair's breadth outside


def _entropy_bits(p: Float64) -> float:
    return float(entr(p).sum() / np.log(2))


def _checked_histogram(histogram: AnyArray) -> Float64:
    counts = np.asarray(histogram, dtype=np.float64)
    if counts.ndim != 1 or not counts.size or not np.isfinite(counts).all() or (counts < 0).any():
        raise ValueError(f"a histogram must be a row of counts, got {counts!r:.80}")
    return counts
