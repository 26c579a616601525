"""The Audio Oracle: a factor oracle over vectors, online and append-only.

References: Allauzen, Crochemore & Raffinot 1999 (factor oracle); Lefebvre & Lecroq, "Compror" (repeat lengths);
Assayag & Dubnov 2004 (music); Assayag & Bloch 2007 (navigation); Dubnov, Assayag & Cont, ICMC 2007 (vectors); Wang & Dubnov,
AIIDE 2014 (clusters).

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

import sys
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from musichal.arrays import AnyArray, Columns, Float32, Float64, Int32
from musichal.errors import InputError
from musichal.memory.ready import keepable


def exact_squared_distance(a: AnyArray, b: AnyArray) -> float:
    """Return the squared Euclidean distance of two vectors, summed in an order that no library can change."""
    difference = np.subtract(a, b, dtype=np.float64)
    return float(np.add.reduce(difference * difference))


def rounding_bound(dims: int, largest_squared_norm: float) -> float:
    """Return a bound on how far any approximate squared distance of such vectors is from the exact one.

    Covers |a - b|² and |a|² + |b|² - 2 a·b in double precision with sums in any order (Higham, Accuracy and Stability
    of Numerical Algorithms, section 3.1), with room to spare.
    """
    return 8.0 * (dims + 8) * sys.float_info.epsilon * largest_squared_norm


def nearest_target(
    targets: Sequence[int], distances: Float64, exact: Callable[[int], float], *, limit: float, bound: float
) -> int:
    """Return the nearest of `targets`, the earliest of equally near ones, whose squared distance is below `limit`, or 0.

    `distances` are approximations that are wrong by `bound` at most; `exact` is called only where that matters.
    """
    least = float(np.minimum.reduce(distances))
    if least >= limit + bound:
        return 0
    rivals = (distances <= least + 2.0 * bound).nonzero()[0].tolist()
    if len(rivals) == 1 and least < limit - bound:
        return targets[rivals[0]]
    nearest, winner = min((exact(targets[i]), targets[i]) for i in rivals)
    return winner if nearest < limit else 0


_BLOCK_ROWS = 1 << 14


def _int32(values: AnyArray) -> bytes:
    return np.asarray(values, dtype=np.int32).tobytes()


@dataclass(slots=True)
class Distances:
    """Squared distances of a vector that is added to those of earlier states, wrong by `bound` at most."""

    vector: Float32
    vectors: Float32
    limit: float
    bound: float

    def one(self, target: int) -> float:
        """Return the distance to one target."""
        difference = np.subtract(self.vector, self.vectors[target - 1], dtype=np.float64)
        return float(difference @ difference)

    def several(self, targets: Sequence[int]) -> Float64:
        """Return the distances to several targets."""
        differences = np.subtract(self.vectors.take(np.array(targets) - 1, axis=0), self.vector, dtype=np.float64)
        distances: Float64 = np.einsum("ij,ij->i", differences, differences)
        return distances

    def roots(self, targets: Sequence[int]) -> Float64:
        """Return the distances to the roots, which may be many."""
        return self.several(targets)

    def exact(self, target: int) -> float:
        """Return the distance to one target, exactly."""
        return exact_squared_distance(self.vector, self.vectors[target - 1])


@keepable(_refinement=lambda: None)
class OracleLinks:
    """The structure of an oracle without its vectors: what `AudioOracle` and the threshold search both grow.

    `suffix`, `repeat` and `cluster` have an entry per state, 0 included. The forward links of a state besides the one to its
    successor, and its reverse suffix links, are lists in columns, the newest first: `_latest` and `_reverse` say where those
    of a state begin, `_before` and `_sibling` what comes before. State 0's forward links and its successor are the `roots`,
    the first states of the clusters.
    """

    def __init__(self) -> None:
        self.suffix, self.repeat, self.cluster = array("i", [-1]), array("i", [0]), array("i", [-1])
        self.roots = array("i")
        self._latest, self._target, self._before = array("i", [0]), array("i", [0]), array("i", [0])
        self._reverse, self._sibling = array("i", [0]), array("i", [0])
        # The first state with a given suffix link, repeat length and cluster just before the repeat: what refinement
        # would find by scanning all reverse links, which can be many. None until the next state is added.
        self._refinement: dict[int, int] | None = {}

    def __len__(self) -> int:
        return len(self.suffix) - 1

    @classmethod
    def restore(cls, suffix: Int32, repeat: Int32, pairs: Int32) -> Self:
        """Return links from columns of states 1 to n and pairs of forward links that `_check_links` has passed."""
        links = cls()
        n = len(suffix)
        links.suffix.frombytes(_int32(suffix))
        links.repeat.frombytes(_int32(repeat))
        # The root of a state is where its suffix links end: jump twice as far each time.
        root = np.concatenate([[0], np.where(suffix > 0, suffix, np.arange(1, len(suffix) + 1))])
        while not np.array_equal(further := root[root], root):
            root = further
        roots, cluster = np.unique(root[1:], return_inverse=True)
        links.roots.frombytes(_int32(roots))
        links.cluster.frombytes(_int32(cluster))
        # The lists as they would have grown: each element names the one before it, and its owner the last.
        sources = pairs[:, 0]
        links._target.frombytes(_int32(pairs[:, 1]))
        follows = np.concatenate([[False], sources[1:] == sources[:-1]])[: len(pairs)]
        links._before.frombytes(_int32(np.where(follows, np.arange(len(pairs)), 0)))
        ends = np.searchsorted(sources, np.arange(n + 1), side="right")
        links._latest = array("i", _int32(np.where(np.bincount(sources, minlength=n + 1) > 0, ends, 0)))
        order = np.argsort(suffix, kind="stable") + 1
        hangs = suffix[order - 1]
        siblings, reverse = np.zeros(n + 1, dtype=np.int64), np.zeros(n + 1, dtype=np.int64)
        same = np.flatnonzero(hangs[1:] == hangs[:-1])
        siblings[order[same + 1]] = order[same]
        last = np.append(np.flatnonzero(hangs[1:] != hangs[:-1]), n - 1)[: 2 * n]
        reverse[hangs[last]] = order[last]
        links._sibling, links._reverse = array("i", _int32(siblings)), array("i", _int32(reverse))
        links._refinement = None
        return links

    def growing(self) -> "OracleLinks":
        """Return links that can grow: these, or a copy where they lie in a file."""
        if isinstance(self.suffix, array):
            return self
        copied = OracleLinks()
        vars(copied).update({name: array("i", column) for name, column in vars(self).items() if name != "_refinement"})
        copied._refinement = None
        return copied

    def forward(self, state: int) -> list[int]:
        """Return the forward links of a state besides the one to its successor, the newest first."""
        found, place = [], self._latest[state]
        while place:
            found.append(self._target[place])
            place = self._before[place]
        return found

    def pairs(self) -> Int32:
        """Return all forward links but those to successors as pairs of states, in order, shape (k, 2)."""
        source, before = np.zeros(len(self._target), np.int32), self._before
        latest = np.array(self._latest, np.int32)
        source[latest] = np.arange(len(latest), dtype=np.int32)
        for place in range(len(source) - 1, 0, -1):
            if before[place]:
                source[before[place]] = source[place]
        order = np.argsort(source[1:], kind="stable") + 1
        return np.stack([source, np.array(self._target, np.int32)], axis=1)[order]

    @property
    def forward_count(self) -> int:
        """Number of forward links besides those to successors."""
        return len(self._target) - 1

    def alike(self, state: int, most: int) -> list[tuple[int, int]]:
        """Return up to `most` other states that share a context with a state, and how long it is at least, the longest first.

        They are those on its suffix path and those whose suffix links lead to it or to states on that path: the suffix link
        tree of Assayag & Bloch ("Navigating the oracle: a heuristic approach", ICMC 2007).
        """
        suffix, repeat = self.suffix, self.repeat
        found: dict[int, int] = {}
        top, length, below = state, len(suffix), 0
        while top and len(found) < most:
            if top != state:
                found.setdefault(top, length)
            child, steps = self._reverse[top], 0
            while child and steps < most:
                if child not in (state, below):
                    found.setdefault(child, min(length, repeat[child]))
                child, steps = self._sibling[child], steps + 1
            length, below, top = min(length, repeat[top]), top, suffix[top]
        return sorted(found.items(), key=lambda item: (-item[1], item[0]))[:most]

    def _link(self, source: int, target: int) -> None:
        """Add a forward link."""
        self._before.append(self._latest[source])
        self._latest[source] = len(self._target)
        self._target.append(target)

    def _hang(self, state: int, link: int) -> None:
        """Hang the newest state on its suffix link."""
        self._reverse.append(0)
        self._sibling.append(self._reverse[link])
        self._reverse[link] = state

    def add(self, distances: Distances) -> int:
        """Add a state and return it."""
        if self._refinement is None:
            self._refinement = {}
            for state in range(1, len(self.suffix)):
                self._register(state)
        suffix, cluster = self.suffix, self.cluster
        new = len(suffix)
        previous, state, target = new - 1, suffix[new - 1], 0
        while state >= 0:
            target = self._nearest(state, distances)
            if target:
                break
            self._link(state, new)
            previous, state = state, suffix[state]
        length, label = 0, len(self.roots)
        if target:
            length, label = self._common_suffix(previous, target - 1) + 1, cluster[target]
            better = self._refinement.get(self._key(target, length, cluster[new - length]), 0)
            if better:
                target, length = better, length + 1
        else:
            self.roots.append(new)
        suffix.append(target)
        self.repeat.append(length)
        cluster.append(label)
        self._latest.append(0)
        self._hang(new, target)
        self._register(new)
        return new

    def _nearest(self, state: int, distances: Distances) -> int:
        """Return the nearest equal target of a state, or 0."""
        limit, bound = distances.limit, distances.bound
        if not state:
            return nearest_target(self.roots, distances.roots(self.roots), distances.exact, limit=limit, bound=bound)
        if self._latest[state]:
            targets = [state + 1, *self.forward(state)]
            return nearest_target(targets, distances.several(targets), distances.exact, limit=limit, bound=bound)
        approximate = distances.one(state + 1)
        if approximate >= limit + bound:
            return 0
        return state + 1 if approximate < limit - bound or distances.exact(state + 1) < limit else 0

    def _register(self, state: int) -> None:
        assert self._refinement is not None
        length = self.repeat[state]
        if length:
            self._refinement.setdefault(self._key(self.suffix[state], length, self.cluster[state - length]), state)

    @staticmethod
    def _key(link: int, length: int, cluster: int) -> int:
        return (link << 62) | (length << 31) | (cluster + 1)

    def _common_suffix(self, first: int, second: int) -> int:
        suffix = self.suffix
        link = suffix[first]
        if second == link:
            return self.repeat[first]
        while second and suffix[second] != link:
            second = suffix[second]
        return min(self.repeat[first], self.repeat[second])


@keepable()
class AudioOracle:
    """An oracle over vectors of `dims` float32 values; `threshold` is fixed for its life.

    Appending compares a vector with the forward targets of the states on one suffix path, so it is fast where the
    threshold lets vectors repeat. Too small a threshold makes each vector a cluster of its own, which costs
    O(n · dims) per vector; `musichal.memory.oracle_threshold` finds one that does not.

    Raises `InputError` for a threshold that is not positive and finite, or no dimensions.
    """

    def __init__(self, dims: int, *, threshold: float) -> None:
        if dims < 1:
            raise InputError(f"an oracle needs vectors of at least 1 dimension, got {dims}")
        if not (threshold > 0 and np.isfinite(threshold)):
            raise InputError(f"an oracle's threshold must be positive and finite, got {threshold}")
        self.dims = dims
        self.threshold = float(threshold)
        self._links = OracleLinks()
        self._vectors = Columns(np.float32, (dims,))
        self._largest = 0.0
        # The vectors of the roots lie together, for they are compared most.
        self._roots, self._root_norms = Columns(np.float64, (dims,)), Columns(np.float64)

    @classmethod
    def from_vectors(cls, vectors: AnyArray, *, threshold: float) -> Self:
        """Return the oracle of `vectors`, shape (n, dims). Raises `InputError`."""
        checked = checked_vectors(vectors)
        oracle = cls(checked.shape[1], threshold=threshold)
        oracle.extend(checked)
        return oracle

    def __len__(self) -> int:
        return len(self._links)

    @property
    def cluster_count(self) -> int:
        """Number of vectors that equalled nothing when they came; each opened a cluster."""
        return len(self._links.roots)

    @property
    def link_count(self) -> int:
        """Number of forward links."""
        return len(self) + self._links.forward_count

    def append(self, vector: AnyArray) -> int:
        """Append one vector, shape (dims,), and return its state. Raises `InputError`."""
        self.extend(np.asarray(vector)[np.newaxis])
        return len(self)

    def extend(self, vectors: AnyArray) -> None:
        """Append vectors, shape (k, dims); all, or none where one is not finite. Raises `InputError`."""
        checked = checked_vectors(vectors, dims=self.dims)
        self._links = self._links.growing()
        self._vectors.extend(checked)
        for vector in checked:
            wide = vector.astype(np.float64)
            norm = float(wide @ wide)
            self._largest = max(self._largest, norm)
            bound = rounding_bound(self.dims, self._largest)
            distances = _ToRoots(vector, self._vectors.view, self.threshold**2, bound, self._roots, self._root_norms)
            if not self._links.suffix[self._links.add(distances)]:
                self._roots.append(vector)
                self._root_norms.append(norm)

    def stop_growing(self) -> None:
        """Forget what only growing needs; it is found again when it grows."""
        self._links._refinement = None

    def suffix_link(self, state: int) -> int:
        """Return the state that has the longest known common past with `state`; 0 where there is none."""
        return self._links.suffix[self._checked(state)]

    def forward_links(self, state: int) -> list[int]:
        """Return the states that `state`, 0 to n, can go on to, ascending."""
        if state:
            self._checked(state)
        successor = [state + 1] if state < len(self) else []
        return successor + self._links.forward(state)[::-1]

    def alike(self, state: int, most: int) -> list[tuple[int, int]]:
        """Return up to `most` states that share a context with a state, and how long it is at least, the longest first."""
        return self._links.alike(self._checked(state), most)

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

    def vectors(self, chosen: AnyArray | None = None) -> Float32:
        """Return a copy of the vectors, shape (n, dims), or of those `chosen`, a mask or numbers."""
        rows = self._vectors.view
        return rows.copy() if chosen is None else rows[chosen]

    def to_arrays(self) -> dict[str, AnyArray]:
        """Return what `from_arrays` needs, for a partner file."""
        return {
            "vectors": self._vectors.view,
            "threshold": np.array(self.threshold, dtype=np.float64),
            "suffix_links": self.suffix_links(),
            "repeat_lengths": self.repeat_lengths(),
            "forward_links": self._links.pairs(),
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
            raise InputError(f"audio oracle: threshold must be one number, got {threshold!r:.40}")
        vectors = checked_vectors(arrays["vectors"])
        oracle = cls(vectors.shape[1], threshold=float(threshold))
        columns = arrays["suffix_links"], arrays["repeat_lengths"], arrays["forward_links"]
        _check_links(len(vectors), *columns)
        oracle._vectors.extend(vectors)
        oracle._links = OracleLinks.restore(*columns)
        for first in range(0, len(vectors), _BLOCK_ROWS):
            wide = vectors[first : first + _BLOCK_ROWS].astype(np.float64)
            oracle._largest = max(oracle._largest, float(np.einsum("ij,ij->i", wide, wide).max()))
        roots = vectors[np.array(oracle._links.roots, dtype=np.int64) - 1].astype(np.float64)
        oracle._roots.extend(roots)
        oracle._root_norms.extend(np.einsum("ij,ij->i", roots, roots))
        return oracle


@dataclass(slots=True)
class _ToRoots(Distances):
    """Distances whose roots come from one matrix product."""

    root_vectors: Columns
    root_norms: Columns

    def roots(self, targets: Sequence[int]) -> Float64:
        vector = self.vector.astype(np.float64)
        distances: Float64 = self.root_norms.view - 2.0 * (self.root_vectors.view @ vector) + vector @ vector
        return distances


def checked_vectors(vectors: AnyArray, *, dims: int | None = None) -> Float32:
    """Return `vectors`, shape (n, dims), as float32. Raises `InputError` for other shapes, types, NaN or infinity."""
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
        got = f"{vectors.dtype} of {vectors.shape}" if isinstance(vectors, np.ndarray) else f"a {type(vectors).__name__}"
        raise InputError(f"an oracle takes real numbers of shape (vectors, dimensions), got {got}")
    if vectors.shape[1] < 1 or (dims is not None and vectors.shape[1] != dims):
        raise InputError(f"an oracle of {dims or 'any'} dimensions cannot take vectors of {vectors.shape[1]}")
    single = vectors
    if vectors.dtype != np.float32:
        with np.errstate(over="ignore"):
            single = vectors.astype(np.float32)
    if not np.logical_and.reduce(np.isfinite(single), axis=None):
        raise InputError("an oracle cannot take vectors with NaN or infinite values")
    return single


def _check_links(n: int, suffix: AnyArray, repeat: AnyArray, pairs: AnyArray) -> None:
    """Raise `InputError` for columns that no oracle could have."""
    for name, column, shape in (
        ("suffix_links", suffix, (n,)),
        ("repeat_lengths", repeat, (n,)),
        ("forward_links", pairs, (len(pairs) if pairs.ndim else 0, 2)),
    ):
        if not isinstance(column, np.ndarray) or column.shape != shape or column.dtype.kind not in "iu":
            got = f"{column.dtype} of {column.shape}" if isinstance(column, np.ndarray) else f"a {type(column).__name__}"
            raise InputError(f"audio oracle: {name} must be integers of shape {shape}, got {got}")
        if column.size and not 0 <= int(column.min()) <= int(column.max()) <= n:
            raise InputError(f"audio oracle: {name} must be in [0, {n}], got [{column.min()}, {column.max()}]")
    suffix, repeat, pairs = (column.astype(np.int64) for column in (suffix, repeat, pairs))
    # Links that go back, and repeats that fit in front of them, are what makes every walk end.
    if not ((suffix < np.arange(1, n + 1)) & (repeat <= suffix) & ((repeat > 0) == (suffix > 0))).all():
        raise InputError("audio oracle: a state has an impossible suffix link")
    if (np.diff(pairs @ np.array([n + 1, 1])) <= 0).any() or (pairs[:, 0] >= pairs[:, 1] - 1).any():
        raise InputError("audio oracle: forward_links must ascend and lead forward")
    if not np.array_equal(pairs[pairs[:, 0] == 0, 1], np.flatnonzero(suffix[1:] == 0) + 2):
        raise InputError("audio oracle: forward links of state 0 and suffix links disagree")
