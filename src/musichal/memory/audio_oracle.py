"""The Audio Oracle: a factor oracle over vectors, online and append-only.

References: Allauzen, Crochemore & Raffinot 1999 (factor oracle); Lefebvre & Lecroq, "Compror" (repeat lengths);
Assayag & Dubnov 2004 (music); Dubnov, Assayag & Cont, ICMC 2007 (vectors); Wang & Dubnov, AIIDE 2014 (clusters).

Conventions
-----------
Vectors become states 1 to n, state 0 is the empty past; the vector of state i is row i - 1. Two vectors count as equal
where their Euclidean distance is below `threshold`, by squared distance in double precision; normalising is the
caller's. Of several targets within the threshold the nearest wins, the earliest of equally near ones, at the first
state of the suffix path that has any. Repeat lengths are lower bounds of the true ones, as in every factor oracle.

Distances
---------
Which link is made depends on comparisons of distances only. These are decided from fast approximations (one dot
product, a matrix product) wherever their rounding error cannot change the outcome, and from `exact_squared_distance`
otherwise. So one vector at a time, many at once, and any BLAS give the same links, bit for bit.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Self

import numpy as np
import numpy.typing as npt

from musichal.arrays import AnyArray, Float32, Float64, Int32
from musichal.errors import InputError

_FEW = 4
"""Up to so many targets are compared one by one, more in one matrix product."""


def exact_squared_distance(a: AnyArray, b: AnyArray) -> float:
    """Return the squared Euclidean distance of two vectors, summed in an order that no library can change."""
    difference = np.subtract(a, b, dtype=np.float64)
    return float(np.add.reduce(difference * difference))


def rounding_bound(dims: int, largest_squared_norm: float) -> float:
    """Return a bound on how far any approximate squared distance of such vectors is from the exact one.

    Covers |a - b|² and |a|² + |b|² - 2 a·b in double precision with sums in any order (Higham, Accuracy and Stability
    of Numerical Algorithms, section 3.1), with room to spare.
    """
    return 8.0 * (dims + 8) * float(np.finfo(np.float64).eps) * largest_squared_norm


class OracleLinks:
    """The structure of an oracle without its vectors: what `AudioOracle` and the threshold search both grow."""

    def __init__(self) -> None:
        self.suffix: list[int] = [-1]
        self.repeat: list[int] = [0]
        self.cluster: list[int] = [-1]
        self.members: list[list[int]] = []
        self.forward: dict[int, list[int]] = {}
        """Forward links of a state besides the one to its successor, ascending."""
        self.reverse: dict[int, list[int]] = {}
        # The first state with a given suffix link, repeat length and cluster just before the repeat: what refinement
        # would find by scanning all reverse links, which can be many.
        self._refinement: dict[tuple[int, int, int], int] = {}

    def add(self, nearest: Callable[[int], int]) -> int:
        """Add a state and return it; `nearest(k)` is the target of a forward link of k that equals it, or 0."""
        suffix, repeat, cluster = self.suffix, self.repeat, self.cluster
        new = len(suffix)
        previous = new - 1
        state = suffix[previous]
        target = 0
        while state >= 0:
            target = nearest(state)
            if target:
                break
            links = self.forward.get(state)
            if links is None:
                self.forward[state] = [new]
            else:
                links.append(new)
            previous = state
            state = suffix[state]
        if target:
            length = self._common_suffix(previous, target - 1) + 1
            label = cluster[target]
            better = self._refinement.get((target, length, cluster[new - length]), 0)
            if better:
                target = better
                length += 1
            self.members[label].append(new)
        else:
            length = 0
            label = len(self.members)
            self.members.append([new])
        suffix.append(target)
        repeat.append(length)
        cluster.append(label)
        self._register(new)
        return new

    def _register(self, state: int) -> None:
        target, length = self.suffix[state], self.repeat[state]
        self.reverse.setdefault(target, []).append(state)
        if length:
            self._refinement.setdefault((target, length, self.cluster[state - length]), state)

    def _common_suffix(self, first: int, second: int) -> int:
        suffix = self.suffix
        link = suffix[first]
        if second == link:
            return self.repeat[first]
        while second and suffix[second] != link:
            second = suffix[second]
        return min(self.repeat[first], self.repeat[second])

    @classmethod
    def restore(cls, suffix: list[int], repeat: list[int], sources: list[int], targets: list[int]) -> Self:
        """Return links from columns that `validated_links` has passed."""
        links = cls()
        for state in range(1, len(suffix)):
            target = suffix[state]
            links.suffix.append(target)
            links.repeat.append(repeat[state])
            if target:
                label = links.cluster[target]
                links.members[label].append(state)
            else:
                label = len(links.members)
                links.members.append([state])
            links.cluster.append(label)
            links._register(state)
        for source, target in zip(sources, targets, strict=True):
            links.forward.setdefault(source, []).append(target)
        return links


class AudioOracle:
    """An oracle over vectors of `dims` float32 values; `threshold` is fixed for its life.

    Appending compares a vector with the forward targets of the states on one suffix path, so it is fast where the
    threshold lets vectors repeat. Too small a threshold makes each vector a cluster of its own, which costs
    O(n · dims) per vector; `information_rate.choose_threshold` finds one that does not.

    Raises `InputError` for a threshold that is not positive and finite, or no dimensions.
    """

    def __init__(self, dims: int, *, threshold: float) -> None:
        if dims < 1:
            raise InputError(f"an oracle needs vectors of at least 1 dimension, not {dims}")
        if not (threshold > 0 and np.isfinite(threshold)):
            raise InputError(f"an oracle's threshold must be positive and finite, not {threshold}")
        self._dims = dims
        self._threshold = float(threshold)
        self._limit = self._threshold * self._threshold
        self._links = OracleLinks()
        self._vectors: Float32 = np.empty((0, dims), dtype=np.float32)
        self._largest = 0.0
        # The targets of state 0, one per cluster, lie together, for they are asked most.
        self._roots: Float64 = np.empty((0, dims), dtype=np.float64)
        self._root_norms: Float64 = np.empty(0, dtype=np.float64)
        self._root_count = 0

    @classmethod
    def from_vectors(cls, vectors: AnyArray, *, threshold: float) -> Self:
        """Return the oracle of `vectors`, shape (n, dims). Raises `InputError`."""
        checked = checked_vectors(vectors)
        oracle = cls(checked.shape[1], threshold=threshold)
        oracle._append_all(checked)
        return oracle

    def __len__(self) -> int:
        return len(self._links.suffix) - 1

    @property
    def dims(self) -> int:
        """Dimensions of a vector."""
        return self._dims

    @property
    def threshold(self) -> float:
        """Distance below which two vectors count as equal."""
        return self._threshold

    @property
    def cluster_count(self) -> int:
        """Number of vectors that equalled nothing when they came; each opened a cluster."""
        return len(self._links.members)

    @property
    def link_count(self) -> int:
        """Number of forward links."""
        return len(self) + sum(map(len, self._links.forward.values()))

    def append(self, vector: AnyArray) -> int:
        """Append one vector, shape (dims,), and return its state. Raises `InputError`."""
        checked = checked_vectors(np.asarray(vector)[np.newaxis], dims=self._dims)
        self._append_all(checked)
        return len(self)

    def extend(self, vectors: AnyArray) -> None:
        """Append vectors, shape (k, dims); all, or none where one is not finite. Raises `InputError`."""
        self._append_all(checked_vectors(vectors, dims=self._dims))

    def _append_all(self, vectors: Float32) -> None:
        start = len(self)
        self._store(vectors, start)
        links = self._links
        for row in range(start, start + len(vectors)):
            vector = self._vectors[row].astype(np.float64)
            norm = float(vector @ vector)
            self._largest = max(self._largest, norm)
            state = links.add(self._finder(vector, norm))
            if not links.suffix[state]:
                self._add_root(vector, norm)

    def _store(self, vectors: Float32, start: int) -> None:
        end = start + len(vectors)
        if end > len(self._vectors):
            grown = np.empty((max(end, start + start // 2 + 16), self._dims), dtype=np.float32)
            grown[:start] = self._vectors[:start]
            self._vectors = grown
        self._vectors[start:end] = vectors

    def _add_root(self, vector: Float64, norm: float) -> None:
        count = self._root_count
        if count == len(self._roots):
            grown = np.empty((count + count // 2 + 16, self._dims), dtype=np.float64)
            norms = np.empty(len(grown), dtype=np.float64)
            grown[:count], norms[:count] = self._roots, self._root_norms
            self._roots, self._root_norms = grown, norms
        self._roots[count], self._root_norms[count] = vector, norm
        self._root_count = count + 1

    def _finder(self, vector: Float64, norm: float) -> Callable[[int], int]:
        """Return the function that finds the nearest equal target of a state."""
        bound = rounding_bound(self._dims, self._largest)
        low, high = self._limit - bound, self._limit + bound
        vectors, forward = self._vectors, self._links.forward

        def exact(target: int) -> float:
            return exact_squared_distance(vector, vectors[target - 1])

        def nearest(state: int) -> int:
            more = forward.get(state)
            if more is None:
                difference = vector - vectors[state]
                approximate = float(difference @ difference)
                if approximate >= high:
                    return 0
                return state + 1 if approximate < low or exact(state + 1) < self._limit else 0
            targets = [state + 1, *more]
            if len(targets) <= _FEW:
                distances = np.empty(len(targets))
                for i, target in enumerate(targets):
                    difference = vector - vectors[target - 1]
                    distances[i] = difference @ difference
            elif state:
                differences = vectors[np.array(targets) - 1] - vector
                distances = np.einsum("ij,ij->i", differences, differences)
            else:
                count = self._root_count
                distances = self._root_norms[:count] - 2.0 * (self._roots[:count] @ vector) + norm
            return nearest_target(targets, distances, exact, limit=self._limit, bound=bound)

        return nearest

    def suffix_link(self, state: int) -> int:
        """Return the state that has the longest known common past with `state`; 0 where there is none."""
        return self._links.suffix[self._checked(state)]

    def repeat_length(self, state: int) -> int:
        """Return how many vectors up to `state` repeat those up to its suffix link."""
        return self._links.repeat[self._checked(state)]

    def cluster(self, state: int) -> int:
        """Return the cluster of `state`, from 0."""
        return self._links.cluster[self._checked(state)]

    def members(self, cluster: int) -> list[int]:
        """Return the states of a cluster, ascending. Raises `IndexError` where it does not exist."""
        if not 0 <= cluster < self.cluster_count:
            raise IndexError(f"no cluster {cluster} among {self.cluster_count}")
        return list(self._links.members[cluster])

    def forward_links(self, state: int) -> list[int]:
        """Return the states that `state`, 0 to n, can go on to, ascending."""
        if state:
            self._checked(state)
        successor = [state + 1] if state < len(self) else []
        return successor + self._links.forward.get(state, [])

    def reverse_links(self, state: int) -> list[int]:
        """Return the states, ascending, whose suffix link is `state`, 0 to n."""
        if state:
            self._checked(state)
        return list(self._links.reverse.get(state, []))

    def _checked(self, state: int) -> int:
        if not 0 < state <= len(self):
            raise IndexError(f"state {state} is outside an oracle of {len(self)} states")
        return state

    def suffix_links(self) -> Int32:
        """Return `suffix_link` of states 1 to n, shape (n,)."""
        return np.array(self._links.suffix[1:], dtype=np.int32)

    def repeat_lengths(self) -> Int32:
        """Return `repeat_length` of states 1 to n, shape (n,)."""
        return np.array(self._links.repeat[1:], dtype=np.int32)

    def clusters(self) -> Int32:
        """Return `cluster` of states 1 to n, shape (n,)."""
        return np.array(self._links.cluster[1:], dtype=np.int32)

    def vectors(self) -> Float32:
        """Return a copy of the vectors, shape (n, dims)."""
        return self._vectors[: len(self)].copy()

    def to_arrays(self) -> dict[str, AnyArray]:
        """Return what `from_arrays` needs, for a partner file."""
        pairs = [(s, t) for s, targets in self._links.forward.items() for t in targets]
        forward = np.array(sorted(pairs), dtype=np.int32).reshape(-1, 2)
        return {
            "vectors": self.vectors(),
            "threshold": np.array(self._threshold, dtype=np.float64),
            "suffix_links": self.suffix_links(),
            "repeat_lengths": self.repeat_lengths(),
            "forward_links": forward,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, AnyArray]) -> Self:
        """Return the oracle that `to_arrays` was asked of. Raises `InputError` for arrays no oracle could have.

        Links are not compared with the vectors again; what is checked is all that walking and growing rely on.
        """
        expected = {"vectors", "threshold", "suffix_links", "repeat_lengths", "forward_links"}
        if set(arrays) != expected:
            raise InputError(f"audio oracle: expected {sorted(expected)}, got {sorted(map(str, arrays))}")
        threshold = arrays["threshold"]
        if not isinstance(threshold, np.ndarray) or threshold.shape != () or threshold.dtype.kind != "f":
            raise InputError("audio oracle: threshold must be one number")
        vectors = checked_vectors(arrays["vectors"])
        oracle = cls(vectors.shape[1], threshold=float(threshold))
        columns = _checked_links(len(vectors), arrays)
        oracle._store(vectors, 0)
        oracle._links = OracleLinks.restore(*columns)
        wide = vectors.astype(np.float64)
        norms = np.einsum("ij,ij->i", wide, wide)
        oracle._largest = float(norms.max(initial=0.0))
        roots = np.array([members[0] - 1 for members in oracle._links.members], dtype=np.int64)
        oracle._roots, oracle._root_norms, oracle._root_count = wide[roots], norms[roots], len(roots)
        return oracle


def nearest_target(
    targets: list[int] | npt.NDArray[np.int64],
    distances: Float64,
    exact: Callable[[int], float],
    *,
    limit: float,
    bound: float,
) -> int:
    """Return the nearest of `targets` (ascending) whose squared distance is below `limit`, or 0.

    `distances` are approximations that are wrong by `bound` at most; `exact` is asked only where that matters.
    """
    best = int(distances.argmin())
    least = float(distances[best])
    if least >= limit + bound:
        return 0
    rivals = np.flatnonzero(distances <= least + 2.0 * bound)
    if len(rivals) == 1 and least < limit - bound:
        return int(targets[best])
    nearest, winner = min((exact(int(targets[i])), int(targets[i])) for i in rivals.tolist())
    return winner if nearest < limit else 0


def checked_vectors(vectors: AnyArray, *, dims: int | None = None) -> Float32:
    """Return `vectors`, shape (n, dims), as float32. Raises `InputError` for other shapes, types, NaN or infinity."""
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
        raise InputError("an oracle takes real numbers of shape (vectors, dimensions)")
    if vectors.shape[1] < 1 or (dims is not None and vectors.shape[1] != dims):
        raise InputError(f"an oracle of {dims or 'any'} dimensions cannot take vectors of {vectors.shape[1]}")
    with np.errstate(over="ignore"):
        single = vectors.astype(np.float32, copy=False)
    if not np.isfinite(single).all():
        raise InputError("an oracle cannot take vectors with NaN or infinite values")
    return single


def _checked_links(n: int, arrays: Mapping[str, AnyArray]) -> tuple[list[int], list[int], list[int], list[int]]:
    for name, shape in (("suffix_links", (n,)), ("repeat_lengths", (n,))):
        column = arrays[name]
        if not isinstance(column, np.ndarray) or column.shape != shape or column.dtype.kind not in "iu":
            raise InputError(f"audio oracle: {name} must be {n} integers")
    forward = arrays["forward_links"]
    if not isinstance(forward, np.ndarray) or forward.shape[1:] != (2,) or forward.dtype.kind not in "iu":
        raise InputError("audio oracle: forward_links must be pairs of integers")
    suffix, repeat = [-1, *arrays["suffix_links"].tolist()], [0, *arrays["repeat_lengths"].tolist()]
    # Links that go back, and repeats that fit in front of them, are what makes every walk end.
    for state in range(1, n + 1):
        target, length = suffix[state], repeat[state]
        if not (0 <= target < state and 0 <= length <= target and (length > 0) == (target > 0)):
            raise InputError(f"audio oracle: state {state} has an impossible suffix link")
    pairs = [(source, target) for source, target in forward.tolist()]
    if any(a >= b for a, b in pairwise(pairs)):
        raise InputError("audio oracle: forward_links must ascend")
    if any(not 0 <= source < target - 1 < n for source, target in pairs):
        raise InputError("audio oracle: a forward link leads nowhere")
    opened = [state for state in range(2, n + 1) if not suffix[state]]
    if [target for source, target in pairs if source == 0] != opened:
        raise InputError("audio oracle: forward links of state 0 and suffix links disagree")
    return suffix, repeat, [source for source, _ in pairs], [target for _, target in pairs]
