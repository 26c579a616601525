"""Activation: where in memory the player's past still points to, as time goes on.

A match of context sets a peak on the memory's line of time. Peaks fade with exp(−Δt / τ) and travel along the line at the
player's pace, so that an old match predicts what would sound *now*. After Somax2 (Borg; Assayag et al., Computer Music
Journal 46(4)). Of the peaks that come to the same state, the strongest counts.

Peaks lie in rings of fixed size, one for each memory and kind of context; new ones overwrite the oldest. So nothing grows.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from musichal.arrays import AnyArray, Float64, Int64
from musichal.partner.influences import CONTEXTS, Match
from musichal.partner.library import Shelf

_PEAKS = 1024
_PASTS = 256
FAINTEST = 0.05
"""A peak that is weaker is over."""

_PEAK = np.dtype(
    [
        ("line_s", np.float64),
        ("since_s", np.float64),
        ("pace", np.float64),
        ("strength", np.float64),
        ("state", np.int64),
        ("length", np.int32),
        ("past", np.int32),
    ]
)


@dataclass(frozen=True)
class Active:
    """The states of one shelf that one kind of context points to now.

    `states` (n,), in the shelf, ascending; `values` (n,) how strongly; `peaks` (n,) by which peak.
    """

    states: Int64
    values: Float64
    peaks: Int64


@dataclass(frozen=True)
class Source:
    """The match behind an activation: the state where it ended, how much agreed, what was heard, and how long ago."""

    state: int
    symbols: tuple[int, ...]
    strength: float
    age_s: float
    pace: float


class Activation:
    """The peaks of one memory."""

    def __init__(self) -> None:
        self._peaks = {name: np.zeros(_PEAKS, dtype=_PEAK) for name in CONTEXTS}
        self._count = dict.fromkeys(CONTEXTS, 0)
        self._pasts: list[tuple[int, ...]] = [()] * _PASTS
        self._past = 0

    def clear(self, name: str) -> None:
        """Let go of the peaks of one kind of context."""
        self._count[name] = 0

    def insert(self, name: str, matches: Iterable[Match], symbols: tuple[int, ...]) -> None:
        """Set peaks for matches of the context that ended in `symbols`."""
        peaks, number = self._peaks[name], self._past % _PASTS
        self._pasts[number] = symbols
        self._past += 1
        for match in matches:
            peaks[self._count[name] % _PEAKS] = (
                match.line_s, match.since_s, match.pace, match.strength, match.state, match.length, number,
            )  # fmt: skip
            self._count[name] += 1

    def active(self, shelf: Shelf, name: str, now_s: float, *, time_constant_s: float, most: int) -> Active:
        """Return the states that this context points to at `now_s`, at most `most`, the strongest."""
        ring = self._peaks[name]
        rows = np.arange(min(self._count[name], _PEAKS))
        peaks = ring[rows]
        values = peaks["strength"] * np.exp(-np.maximum(0, now_s - peaks["since_s"]) / time_constant_s)
        rows = rows[values >= FAINTEST]
        if len(rows) > 4 * most:  # the strongest, of equals the newest ones
            rows = np.sort(rows[np.argsort(-values[rows], kind="stable")[: 4 * most]])
        peaks, values = ring[rows], values[rows]
        states = _reached(shelf, peaks, now_s)
        alive = states >= 0
        rows, states, values = rows[alive], states[alive], values[alive]
        # The strongest peak of each state; of equally strong ones the longest context, then the newest match.
        order = np.lexsort((-ring["since_s"][rows], -ring["length"][rows], -values, states))
        _, first = np.unique(states[order], return_index=True)
        best = order[first]
        if len(best) > most:
            best = np.sort(best[np.lexsort((states[best], -values[best]))[:most]])
            best = best[np.argsort(states[best], kind="stable")]
        return Active(states[best], values[best], rows[best])

    def source(self, name: str, peak: int, now_s: float) -> Source:
        """Return the match behind a peak."""
        row = self._peaks[name][peak]
        length = int(row["length"])
        symbols = self._pasts[int(row["past"])][-length:]
        age_s = max(0.0, now_s - float(row["since_s"]))
        return Source(int(row["state"]), symbols, float(row["strength"]), age_s, float(row["pace"]))


def _reached(shelf: Shelf, peaks: AnyArray, now_s: float) -> Int64:
    """Return the state whose beginning is nearest to where each peak is now, but behind its match; −1 beyond the recording."""
    line_s = shelf.beside["line_s"]
    recordings = shelf.memory.states["recording"]
    last = len(line_s) - 1
    at_s = peaks["line_s"] + peaks["pace"] * np.maximum(0, now_s - peaks["since_s"])
    after = np.minimum(np.searchsorted(line_s, at_s), last)
    before = np.maximum(after - 1, 0)
    nearest = np.where(at_s - line_s[before] < line_s[after] - at_s, before, after)
    # Behind a recording's last state nothing is left to play.
    beyond = at_s - line_s[nearest] > shelf.memory.states["duration_s"][nearest]
    nearest = np.maximum(nearest, peaks["state"] + 1)
    there = ~beyond & (nearest <= last)
    there[there] = recordings[nearest[there]] == recordings[peaks["state"][there]]
    return np.where(there, nearest, -1)
