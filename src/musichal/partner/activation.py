"""Activation: where in memory the player's past still points to, as time goes on.

A match of context sets a peak on the memory's line of time. Peaks fade with exp(−Δt / τ) and travel along the line at the
player's pace, so that an old match predicts what would sound *now*. After Somax2 (Borg; Assayag et al., Computer Music
Journal 46(4)). Of the peaks that come to the same state, the strongest counts.

Peaks lie in rings of fixed size, one for each kind of context; new ones overwrite the oldest. So nothing grows.
"""

from dataclasses import dataclass

import numpy as np

from musichal.arrays import Float64, Int64, Records
from musichal.partner.influences import CONTEXTS, MATCH
from musichal.partner.memory_pool import MemoryPool, ascending

PEAKS = 1024
"""How many peaks of one kind of context there can be, a power of 2."""
_PASTS = 512
FAINTEST = 0.05
"""A peak that is weaker is over."""
# Of equally strong peaks the newest are taken; no two peaks are equal, so that no way of sorting can matter. At [f] what is
# added to the places of a ring in which f is the first, and the oldest.
_NEWER: Float64 = np.lib.stride_tricks.sliding_window_view(np.tile(np.arange(PEAKS) * (1e-9 / PEAKS), 2), PEAKS)[PEAKS:0:-1]


@dataclass(frozen=True)
class Active:
    """The states that the past points to now.

    `states` (n,), ascending, by their numbers in the library; `values` (n, 5) how strongly each kind of context points to
    each, `peaks` (n, 5) by which peak, −1 for none.
    """

    states: Int64
    values: Float64
    peaks: Int64


@dataclass(frozen=True)
class Source:
    """The match behind an activation: the state where it ended, what agreed, how strong it was, and how long ago."""

    state: int
    symbols: tuple[int, ...]
    strength: float
    age_s: float
    pace: float


class Activation:
    """The peaks that the player's past, and the partner's own, have set on a library."""

    def __init__(self) -> None:
        self._peaks = np.zeros((len(CONTEXTS), PEAKS), dtype=MATCH)
        # What is asked of every peak at every decision lies together; a strength of 0 is a peak that is not there.
        self._since_s = np.zeros((len(CONTEXTS), PEAKS))
        self._strengths = np.zeros((len(CONTEXTS), PEAKS))
        self._shelves = np.full((len(CONTEXTS), PEAKS), -1, dtype=np.int64)
        self._pasts_of = np.zeros((len(CONTEXTS), PEAKS), dtype=np.int64)
        self._counts = [0] * len(CONTEXTS)
        self._newer = np.repeat(_NEWER[:1], len(CONTEXTS), axis=0)
        self._pasts: list[tuple[int, ...]] = [()] * _PASTS
        self._past = 0

    def clear(self, name: str) -> None:
        """Let go of the peaks of one kind of context."""
        self._shelves[CONTEXTS.index(name)] = -1
        self._strengths[CONTEXTS.index(name)] = 0

    def insert(self, name: str, matches: Records, symbols: tuple[int, ...]) -> None:
        """Set peaks for `MATCH`es of the context that ended in `symbols`."""
        row = CONTEXTS.index(name)
        count = self._counts[row]
        first, last = max(0, len(matches) - PEAKS), len(matches)
        while first < last:
            # As many as there is room for up to the ring's end, then the rest from its beginning.
            place = (count + first) % PEAKS
            end = min(last, first + PEAKS - place)
            own, places = matches[first:end], slice(place, place + end - first)
            self._peaks[row, places] = own
            self._since_s[row, places] = own["since_s"]
            self._strengths[row, places] = own["strength"]
            self._shelves[row, places] = own["shelf"]
            self._pasts_of[row, places] = self._past % _PASTS
            first = end
        self._pasts[self._past % _PASTS] = symbols
        self._counts[row] = count + len(matches)
        self._newer[row] = _NEWER[self._counts[row] % PEAKS]
        self._past += 1

    def active(self, library: MemoryPool, now_s: float, *, time_constant_s: float, most: int) -> Active:
        """Return the states pointed to at `now_s`, by the `most` strongest peaks of each kind of context."""
        # In one array from step to step: it is the largest that a decision makes.
        values = self._since_s - now_s
        np.minimum(values, 0, out=values)
        values /= time_constant_s
        np.exp(values, out=values)
        values *= self._strengths
        keys = values + self._newer
        most = min(most, PEAKS)
        least = np.partition(keys, PEAKS - most, axis=1)[:, PEAKS - most : PEAKS - most + 1]
        # Peaks by their places in all rings, one ring after the other.
        place = (keys >= least).ravel().nonzero()[0]
        place = place.take((values.ravel().take(place) >= FAINTEST).nonzero()[0])
        # One shelf after the other, and in order of strength, so that of the peaks of one state the strongest is written last.
        owners = self._shelves.ravel().take(place)
        order = np.lexsort((keys.ravel().take(place), owners))
        place, owners = place.take(order), owners.take(order)
        peaks = self._peaks.ravel().take(place)
        at_s = peaks["line_s"] + peaks["pace"] * np.maximum(0, now_s - peaks["since_s"])
        reached = _reached(library, owners, peaks["state"], at_s)
        there = (reached >= 0).nonzero()[0]
        place, reached = place.take(there), reached.take(there)
        found = ascending(reached)
        which = found.searchsorted(reached), place // PEAKS
        out = Active(found, np.zeros((len(found), len(CONTEXTS))), np.full((len(found), len(CONTEXTS)), -1))
        out.values[which], out.peaks[which] = values.ravel().take(place), place % PEAKS
        return out

    def source(self, name: str, peak: int, now_s: float) -> Source:
        """Return the match behind a peak."""
        row = CONTEXTS.index(name)
        match = self._peaks[row, peak]
        symbols = self._pasts[int(self._pasts_of[row, peak])][-int(match["length"]) :]
        return Source(
            state=int(match["state"]) + int(self._shelves[row, peak]),
            symbols=symbols,
            strength=float(match["strength"]),
            age_s=max(0.0, now_s - float(match["since_s"])),
            pace=float(match["pace"]),
        )


def _reached(library: MemoryPool, owners: Int64, matched: Int64, at_s: Float64) -> Int64:
    """Return the state, by its number in the library, whose beginning is nearest to each place on the line of time.

    It lies behind the state that `matched`, in the same recording; −1 where there is none. `owners`, ascending, are the first
    states of the shelves.
    """
    firsts = [shelf.first for shelf in library.shelves]
    places = zip(owners.searchsorted(firsts).tolist(), owners.searchsorted(firsts, side="right").tolist(), strict=True)
    n = len(owners)
    after, lasts, past = np.zeros(n, dtype=np.int64), np.full(n, -1), np.zeros(n, dtype=bool)
    before_s, after_s, lasts_s = np.zeros(n), np.zeros(n), np.zeros(n)
    for shelf, (begin, end) in zip(library.shelves, places, strict=True):
        if begin < end:
            own, line_s = slice(begin, end), shelf.line_s
            next_one = line_s.searchsorted(at_s[own])
            one_before = np.maximum(next_one - 1, 0)
            after[own], past[own] = next_one, next_one == len(line_s)
            before_s[own], after_s[own] = line_s.take(one_before), line_s.take(next_one, mode="clip")
            lasts_s[own] = shelf.memory.states["duration_s"][one_before]
            lasts[own] = shelf.last_of_recording(matched[own])
    since_s = at_s - before_s
    nearer = past | (since_s < after_s - at_s)
    nearest = np.maximum(after - nearer, matched + 1)
    # Behind a recording's last state nothing is left to play.
    there = (nearest <= lasts) & ~(nearer & (since_s > lasts_s))
    return np.where(there, nearest + owners, -1)
