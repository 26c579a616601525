"""Exact longest-context index over a string of tokens, online and append-only.

A suffix automaton (Blumer, Blumer, Haussler, Ehrenfeucht, Chen & Seiferas, Theoretical Computer Science 40, 1985): its
states are the sets of end positions of the substrings, its links lead from a context to the next shorter one that also
occurs elsewhere. Where a factor oracle bounds the longest repeated suffix from below, this has it exactly.

Conventions
-----------
Tokens are integers from `LOWEST_SYMBOL` (SILENCE) to `HIGHEST_SYMBOL`. Positions count tokens from 0, in the order of
appending; an occurrence is named by the position of its *last* token, so that what came next is at position + 1.

Layout
------
State 2i is the one of the prefix of i rows, state 2i + 1 the clone, if any, that was born with row i - 1. A prefix
state needs no stored length (it is i) and no stored edge for the row that follows it: that edge is solid and therefore
never redirected. So only clones own a table of edges, and everything else is a column of 32-bit integers. The links
form a tree whose children are kept as doubly linked lists, which makes all occurrences of a context one subtree.

A `compact` index has its edges in columns too: those of state s are from `_first_edge[s]` to `_first_edge[s + 1]`, ascending.
It answers the same in a fifth of the memory, and its columns may lie in a file. When it grows it is built again.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import index as as_index
from typing import Self

import numpy as np

from musichal.arrays import AnyArray, Int32, Int64, Records
from musichal.errors import InputError
from musichal.memory.ready import keepable

LOWEST_SYMBOL = -1
HIGHEST_SYMBOL = 1023
CANDIDATE = np.dtype([("position", np.int64), ("length", np.int64)])
"""An occurrence (its end position) and how many tokens before and at it agree with the context that was asked for."""

_LATEST_STEPS = 16
"""How far up the links an append refreshes `latest`; longer paths exist only in very repetitive strings."""
_ROWS_PER_GROWTH = 4096
_EMPTY: dict[int, int] = {}


@dataclass(frozen=True)
class ContextMatch:
    """The longest suffix of a context that occurs in the memory.

    `length` is 0 where not even the last token does; `first_position` is where the matched tokens ended for the first
    time, `latest_position` where they ended most recently as far as is known (both -1 at length 0). A match stays
    valid while its index grows.
    """

    length: int
    first_position: int
    latest_position: int
    state: int


_NO_MATCH = ContextMatch(length=0, first_position=-1, latest_position=-1, state=0)


@keepable()
class TokenIndex:
    """Every context that ever occurred in a string of tokens, and where.

    Appending is amortised O(1), a query takes time proportional to the length of the context asked for, whatever the
    length of the memory.
    """

    def __init__(self) -> None:
        self._rows = 0
        self._capacity = 0
        # Per row: the token (a sequence start has a negative key of its own), the repeat, and the clone's own columns.
        self._symbol = array("i")
        self._repeat_length = array("i")
        self._repeat_row = array("i")
        self._clone_length = array("i")
        self._clone_first = array("i")
        self._clone_edges: list[dict[int, int] | None] = [None]
        # Per state.
        self._link = array("i")
        self._latest = array("i")
        self._child = array("i")
        self._next = array("i")
        self._previous = array("i")
        # Edges of prefix states besides the one to the next prefix; few prefixes have any.
        self._prefix_edges: dict[int, dict[int, int]] = {}
        self._start_rows: list[int] = []
        self._start_positions: list[int] = []
        # Of a compact index; both others are empty then.
        self._first_edge: Sequence[int] = ()
        self._edge_keys: Sequence[int] = ()
        self._edge_targets: Sequence[int] = ()
        self._reserve()

    @classmethod
    def from_symbols(cls, symbols: Iterable[int]) -> Self:
        """Return the index of one sequence. Raises `InputError` for a token out of range."""
        index = cls()
        index.extend(symbols)
        return index

    def __len__(self) -> int:
        return self._rows - len(self._start_rows)

    def append(self, symbol: int) -> None:
        """Append one token. Raises `InputError` where it is not an integer in range."""
        self._push((_checked_symbol(symbol),))

    def extend(self, symbols: Iterable[int]) -> None:
        """Append tokens, all or, where one of them is out of range, none. Raises `InputError`."""
        if isinstance(symbols, np.ndarray) and symbols.shape != (1,):
            self._push(_checked_symbols("tokens", symbols).tolist())
        else:
            self._push([_checked_symbol(symbol) for symbol in symbols])

    def start_sequence(self) -> None:
        """Begin another sequence: no context reaches across this place. Has no effect where nothing was appended."""
        position = len(self)
        if position == (self._start_positions[-1] if self._start_positions else 0):
            return
        # A key that occurs nowhere else: no repeated context can hold it, and no query can ask for it.
        key = LOWEST_SYMBOL - 1 - len(self._start_rows)
        self._start_rows.append(self._rows)
        self._start_positions.append(position)
        self._push((key,))

    def _reserve(self) -> None:
        self._capacity += _ROWS_PER_GROWTH
        for column in (
            self._symbol,
            self._repeat_length,
            self._repeat_row,
            self._clone_length,
            self._clone_first,
        ):
            column.frombytes(bytes((self._capacity + 1 - len(column)) * column.itemsize))
        for column in (self._link, self._latest, self._child, self._next, self._previous):
            column.frombytes(bytes((2 * self._capacity + 4 - len(column)) * column.itemsize))

    def compact(self) -> Self:
        """Make the index compact, and return it."""
        if self._first_edge:
            return self
        rows = self._rows
        counts, keys, targets = array("i", bytes(4 * (2 * rows + 3))), array("i"), array("i")
        for half, clone in enumerate(self._clone_edges):
            for state, edges in ((2 * half, self._prefix_edges.get(half)), (2 * half + 1, clone)):
                if edges:
                    # The keys of sequence starts lead nowhere that a query could go.
                    own = sorted(key for key in edges if key >= LOWEST_SYMBOL)
                    counts[state + 1] = len(own)
                    keys.extend(own)
                    targets.extend([edges[key] for key in own])
        self._first_edge = array("i", np.cumsum(np.frombuffer(counts, np.int32), dtype=np.int32).tobytes())
        self._edge_keys, self._edge_targets = keys, targets
        for name in ("_symbol", "_repeat_length", "_repeat_row", "_clone_length", "_clone_first"):
            setattr(self, name, getattr(self, name)[: rows + 1])
        for name in ("_link", "_latest", "_child", "_next"):
            setattr(self, name, getattr(self, name)[: 2 * rows + 2])
        self._clone_edges, self._prefix_edges, self._previous, self._capacity = [], {}, array("i"), 0
        return self

    def _build_again(self) -> None:
        keys = list(self._symbol[: self._rows])
        starts, positions = list(self._start_rows), list(self._start_positions)
        self.__init__()  # type: ignore[misc]
        self._push(keys)
        self._start_rows, self._start_positions = starts, positions

    def _push(self, keys: Iterable[int]) -> None:  # noqa: PLR0912, PLR0915 - one loop, kept flat for speed
        if self._first_edge:
            self._build_again()
        symbol, link, latest, clone_length = self._symbol, self._link, self._latest, self._clone_length
        child, following, previous = self._child, self._next, self._previous
        clone_edges, prefix_edges = self._clone_edges, self._prefix_edges
        clone_first, repeat_length, repeat_row = self._clone_first, self._repeat_length, self._repeat_row
        for key in keys:
            row = self._rows
            if row == self._capacity:
                self._reserve()
            symbol[row] = key
            new = 2 * row + 2
            clone_edges.append(None)
            # Climb from the last state's link: states without an edge for `key` get one to the new state.
            state = link[new - 2]
            parent = 0
            target = 0
            size = 0
            while row:
                half = state >> 1
                if state & 1:
                    edges = clone_edges[half]
                    assert edges is not None  # odd states are clones
                    target = edges.get(key, 0)
                    if not target:
                        edges[key] = new
                        state = link[state]
                        continue
                    size = clone_length[half] + 1
                    break
                if symbol[half] == key:
                    target = state + 2
                    size = half + 1
                    break
                own = prefix_edges.get(half)
                if own is None:
                    prefix_edges[half] = {key: new}
                else:
                    target = own.get(key, 0)
                    if target:
                        size = half + 1
                        break
                    own[key] = new
                if not state:
                    break
                state = link[state]
            if target:
                half = target >> 1
                if (clone_length[half] if target & 1 else half) == size:
                    parent = target
                else:
                    parent = self._clone(state, target, key, size)
            # The new state becomes the first child of its link.
            link[new] = parent
            sibling = child[parent]
            following[new] = sibling
            if sibling:
                previous[sibling] = new
            child[parent] = new
            latest[new] = row
            if parent:
                repeat_length[row] = size
                repeat_row[row] = clone_first[parent >> 1] if parent & 1 else (parent >> 1) - 1
                steps = _LATEST_STEPS
                while parent and steps:
                    latest[parent] = row
                    parent = link[parent]
                    steps -= 1
            self._rows = row + 1

    def _clone(self, state: int, target: int, key: int, size: int) -> int:
        """Split from `target` its contexts of up to `size` tokens, which now end at one more place than the rest."""
        link, child, following, previous = self._link, self._child, self._next, self._previous
        clone_edges, prefix_edges = self._clone_edges, self._prefix_edges
        half = self._rows + 1
        clone = 2 * half + 1
        whole = target >> 1
        if target & 1:
            edges = (clone_edges[whole] or _EMPTY).copy()
            first = self._clone_first[whole]
        else:
            edges, first = {self._symbol[whole]: target + 2}, whole - 1
            if whole in prefix_edges:
                edges.update(prefix_edges[whole])
        clone_edges[half] = edges
        self._clone_length[half] = size
        self._clone_first[half] = first
        # The clone takes the target's place among its siblings; the target becomes the clone's child.
        parent, before, after = link[target], previous[target], following[target]
        link[clone], previous[clone], following[clone] = parent, before, after
        if before:
            following[before] = clone
        else:
            child[parent] = clone
        if after:
            previous[after] = clone
        link[target], previous[target], following[target] = clone, 0, 0
        child[clone] = target
        while True:
            table = clone_edges[state >> 1] if state & 1 else prefix_edges.get(state >> 1)
            if table is None or table.get(key) != target:
                break
            table[key] = clone
            if not state:
                break
            state = link[state]
        return clone

    def _first_row(self, state: int) -> int:
        return self._clone_first[state >> 1] if state & 1 else (state >> 1) - 1

    def _length(self, state: int) -> int:
        return self._clone_length[state >> 1] if state & 1 else state >> 1

    def _position(self, row: int) -> int:
        return row - bisect_right(self._start_rows, row) if self._start_rows else row

    def _match(self, state: int, length: int) -> ContextMatch:
        if not length:
            return _NO_MATCH
        first, latest = self._position(self._first_row(state)), self._position(self._latest[state])
        return ContextMatch(length=length, first_position=first, latest_position=latest, state=state)

    def _settle(self, state: int, length: int) -> int:
        """Return the state that holds the context now; clones may have taken it over from `state`."""
        link = self._link
        while state and self._length(link[state]) >= length:
            state = link[state]
        return state

    def longest_context(self, recent: Iterable[int], *, max_length: int = 64) -> ContextMatch:
        """Return the longest suffix of `recent`, of at most `max_length` tokens, that occurs in the memory.

        Tokens that no memory can hold match nothing.
        """
        return self._match(*self._walk(deque(recent, maxlen=_checked_length(max_length))))

    def _walk(self, keys: Iterable[int]) -> tuple[int, int]:
        """Return state and length of the longest match after `keys`; flat for speed."""
        rows, symbol, link, clone_length = self._rows, self._symbol, self._link, self._clone_length
        clone_edges, prefix_edges = self._clone_edges, self._prefix_edges
        first_edge, edge_keys, edge_targets = self._first_edge, self._edge_keys, self._edge_targets
        is_compact = len(first_edge) > 0
        state = length = 0
        for key in keys:
            if key < LOWEST_SYMBOL:  # the keys of sequence starts are no symbols
                state = length = 0
                continue
            while True:
                half = state >> 1
                if not state & 1 and half < rows and symbol[half] == key:
                    target = state + 2
                elif is_compact:
                    end = first_edge[state + 1]
                    place = bisect_left(edge_keys, key, first_edge[state], end)
                    target = edge_targets[place] if place < end and edge_keys[place] == key else 0
                elif state & 1:
                    target = (clone_edges[half] or _EMPTY).get(key, 0)
                else:
                    target = prefix_edges.get(half, _EMPTY).get(key, 0)
                if target:
                    state, length = target, length + 1
                    break
                if not state:
                    length = 0
                    break
                state = link[state]
                length = clone_length[state >> 1] if state & 1 else state >> 1
        return state, length

    def occurrences(self, match: ContextMatch, *, limit: int = 64) -> Int64:
        """Return up to `limit` positions where `match` ended, most recent first; shape (k,), k <= limit.

        Where there are more, one stays for each different longer past, as far as `limit` goes, each time the latest
        known one: the choice is between places that differ in what led to them. Work is O(limit + alphabet).
        """
        rows: list[int] = []
        if match.length:
            rows = self._subtree(self._settle(match.state, match.length), 0, _checked_limit(limit))
        return np.array([self._position(row) for row in rows], dtype=np.int64)

    def candidates(self, recent: Iterable[int], *, limit: int = 64, min_length: int = 1, max_length: int = 64) -> Records:
        """Return where the memory was in the same situation as `recent`, longest context first.

        Shape (k,) of `CANDIDATE`, k <= `limit`. `length` is exact: so many tokens agree (up to `max_length`), and no
        more. Every occurrence of a longer context comes before any of a shorter one; within a length the order is that
        of `occurrences`.
        """
        _checked_limit(limit)
        _checked_length(min_length)
        found: list[int] = []
        lengths: list[int] = []
        match = self.longest_context(recent, max_length=max_length)
        state, length, skip = self._settle(match.state, match.length), match.length, 0
        while state and length >= min_length and len(found) < limit:
            rows = self._subtree(state, skip, limit - len(found))
            found += rows
            lengths += [length] * len(rows)
            skip, state = state, self._link[state]
            length = self._length(state)
        out = np.empty(len(found), dtype=CANDIDATE)
        out["position"] = [self._position(row) for row in found] if self._start_rows else found
        out["length"] = lengths
        return out

    def _subtree(self, top: int, skip: int, limit: int) -> list[int]:
        """Return rows below `top` but not below its child `skip`, breadth first, sorted downwards."""
        child, following, latest = self._child, self._next, self._latest
        found: list[int] = []
        queue = [top]
        head = 0
        # A clone has two children or more, so each turn adds a row to come; branches share none.
        while head < len(queue) and (head == 0 or len(found) + len(queue) - head < limit):
            state = queue[head]
            head += 1
            if not state & 1:
                found.append((state >> 1) - 1)
            state = child[state]
            while state:
                if state != skip:
                    queue.append(state)
                state = following[state]
        found += [latest[state] for state in queue[head:]]
        found.sort(reverse=True)
        return found[:limit]

    def symbols(self) -> Int32:
        """Return the tokens, shape (n,)."""
        return self._tokens_only(self._symbol)

    def sequence_starts(self) -> Int64:
        """Return the positions at which sequences after the first begin, ascending."""
        return np.array(self._start_positions, dtype=np.int64)

    def repeat_lengths(self) -> Int32:
        """Return, per position, the length of the longest suffix ending there that had ended earlier; shape (n,)."""
        return self._tokens_only(self._repeat_length)

    def repeat_length(self, position: int) -> int:
        """Return `repeat_lengths` at one position. Raises `IndexError` outside the memory."""
        return self._repeat_length[self._checked_row(position)]

    def repeat_positions(self) -> Int64:
        """Return, per position, where that suffix ended for the first time, -1 where nothing repeats; shape (n,)."""
        rows = self._tokens_only(self._repeat_row)
        positions = rows - np.searchsorted(np.array(self._start_rows, dtype=np.int64), rows, side="right")
        return np.where(self.repeat_lengths() > 0, positions, -1).astype(np.int64)

    def repeat_position(self, position: int) -> int:
        """Return `repeat_positions` at one position. Raises `IndexError` outside the memory."""
        row = self._checked_row(position)
        return self._position(self._repeat_row[row]) if self._repeat_length[row] else -1

    def _checked_row(self, position: int) -> int:
        if not 0 <= position < len(self):
            raise IndexError(f"position {position} is outside a memory of {len(self)} tokens")
        return position + bisect_right(self._start_positions, position)

    def _tokens_only(self, column: "array[int]") -> Int32:
        # A copy at once: a column that lends its buffer could not grow.
        rows = np.array(column[: self._rows], dtype=np.int32)
        return np.delete(rows, self._start_rows) if self._start_rows else rows


def _checked_symbol(symbol: int) -> int:
    try:
        value = as_index(symbol)
    except TypeError:
        raise InputError(f"token {symbol!r} is not an integer") from None
    if not LOWEST_SYMBOL <= value <= HIGHEST_SYMBOL:
        raise InputError(f"token {value} is not between {LOWEST_SYMBOL} and {HIGHEST_SYMBOL}")
    return value


def _checked_symbols(name: str, symbols: AnyArray) -> AnyArray:
    if not isinstance(symbols, np.ndarray) or symbols.ndim != 1 or symbols.dtype.kind not in "iu":
        raise InputError(f"token index: {name} must be a row of integers")
    if symbols.size and (symbols.min() < LOWEST_SYMBOL or symbols.max() > HIGHEST_SYMBOL):
        raise InputError(f"token index: {name} must be in [{LOWEST_SYMBOL}, {HIGHEST_SYMBOL}]")
    return symbols


def _checked_length(length: int) -> int:
    if length < 1:
        raise InputError(f"a context must have at least 1 token, got {length}")
    return length


def _checked_limit(limit: int) -> int:
    if limit < 1:
        raise InputError(f"limit must be at least 1, got {limit}")
    return limit
