"""Phrases in the memory: where the recordings themselves begin and end one, how long they are, and how long they breathe.

A boundary lies where the music pauses or changes: the strength of a boundary before an event is its size times the change to
its neighbours, over three profiles, duration, level and harmony (after Cambouropoulos, The Local Boundary Detection Model,
ICMC 2001, whose profiles are intervals of time, rest and pitch). Peaks of it that stand out, and every silence, are
boundaries; the strongest first, none closer to another than a phrase is long at least. Where a recording never pauses,
the strongest change in every stretch of `longest_s` has to do.
"""

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np

from musichal.arrays import Bool, Float64, Int64, Records
from musichal.errors import InputError
from musichal.hearing.percepts import SILENCE

_WEIGHTS = (0.5, 0.25, 0.25)  # duration, level, harmony


@dataclass(frozen=True, kw_only=True)
class PhraseLimits:
    """Phrases last from `shortest_s` to `longest_s`, breaths from `shortest_breath_s` to `longest_breath_s`.

    A silence is a boundary from `silence_s` on. A peak of boundary strength stands out where it exceeds the mean by
    `deviations` standard deviations.
    """

    shortest_s: float = 1.5
    longest_s: float = 10.0
    silence_s: float = 0.25
    shortest_breath_s: float = 0.2
    longest_breath_s: float = 4.0
    deviations: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.shortest_s < self.longest_s or not 0 < self.shortest_breath_s < self.longest_breath_s:
            raise InputError("phrase limits: the shortest must be below the longest, and positive")


@dataclass(frozen=True)
class PhraseMap:
    """Phrases of a memory: `begins` and `ends` (n,) mark states, `lengths_s` and `breaths_s` are what was found, sorted."""

    begins: Bool
    ends: Bool
    lengths_s: Float64
    breaths_s: Float64

    def draw_length_s(self, rng: np.random.Generator, *, factor: float = 1.0) -> float:
        """Return the length of a phrase of the recordings, drawn at random, times `factor`."""
        return factor * float(self.lengths_s[rng.integers(len(self.lengths_s))])

    def draw_breath_s(self, rng: np.random.Generator, *, factor: float = 1.0) -> float:
        """Return the length of a pause between two phrases, drawn at random, times `factor`."""
        return factor * float(self.breaths_s[rng.integers(len(self.breaths_s))])

    def begins_at(self, state: int) -> bool:
        """Return whether a phrase begins with a state; False for what was learned since."""
        return state < len(self.begins) and bool(self.begins[state])

    def ends_with(self, state: int) -> bool:
        """Return whether a phrase ends with a state; False for what was learned since."""
        return state < len(self.ends) and bool(self.ends[state])


def find_phrases(states: Records, limits: PhraseLimits | None = None) -> PhraseMap:
    """Return the phrases of a memory's states.

    Parameters
    ----------
    states : structured array of shape (n,)
        `musichal.memory.memory.STATE`.
    limits : PhraseLimits, optional
    """
    limits = limits or PhraseLimits()
    n = len(states)
    begins, ends = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    lengths: list[float] = []
    breaths: list[float] = []
    edges = np.flatnonzero(np.diff(states["recording"])) + 1
    for first, last in zip([0, *edges.tolist()], [*edges.tolist(), n], strict=True):
        if first == last:
            continue
        own = states[first:last]
        silent = (own["tokens"] == SILENCE).all(axis=1)
        sounding = np.flatnonzero(~silent)
        # Where in what sounds each part begins, and the next one does; a part of nothing but silence is no phrase.
        places = np.searchsorted(sounding, [0, *_boundaries(own, silent, limits).tolist(), len(own)])
        places = places[np.flatnonzero(np.diff(places, prepend=-1))]
        begin, end = sounding[places[:-1]], sounding[places[1:] - 1]
        begins[first + begin] = ends[first + end] = True
        end_s = (own["start_s"][end] + own["duration_s"][end]).astype(np.float64)
        lengths += (end_s - own["start_s"][begin]).tolist()
        breaths += (own["start_s"][begin[1:]] - end_s[:-1]).tolist()
    kept = np.sort(np.clip(lengths or [4.0], limits.shortest_s, limits.longest_s))
    # A recording that never falls silent still breathes: as long as its longer gestures last.
    pauses = [b for b in breaths if b >= limits.shortest_breath_s]
    if not pauses:
        pauses = np.quantile(states["duration_s"], [0.75, 0.9, 0.97]).tolist() if n else [0.5]
    return PhraseMap(begins, ends, kept, np.sort(np.clip(pauses, limits.shortest_breath_s, limits.longest_breath_s)))


def _boundaries(states: Records, silent: Bool, limits: PhraseLimits) -> Int64:
    """Return the states before which a phrase of one recording ends, in order."""
    starts = states["start_s"].astype(np.float64)
    strength = _strength(states)
    # The state after a silence begins something, and so does the first of a silence end it: the cut is before the silence.
    pause = silent & (states["duration_s"] >= limits.silence_s)
    strength[pause] = np.inf
    middle = np.arange(1, len(states))
    peaks = middle[(strength[1:] >= strength[:-1]) & (strength[1:] > np.append(strength[2:], -np.inf))]
    finite = strength[np.isfinite(strength)]
    clear = finite.mean() + limits.deviations * finite.std() if len(finite) else np.inf
    peaks = peaks[np.argsort(-strength[peaks], kind="stable")]
    end_s = float(starts[-1] + states["duration_s"][-1])
    cuts_s = [float(starts[0]), end_s]
    chosen: list[int] = []
    standing_out = strength[peaks] >= clear
    for wanted in (peaks[standing_out], peaks[~standing_out]):
        # What does not stand out is wanted in the middle of long stretches only, and stretches only become shorter.
        places = np.minimum(np.searchsorted(cuts_s, starts[wanted]), len(cuts_s) - 1)
        long = np.diff(cuts_s, prepend=-np.inf)[places] > limits.longest_s
        for peak in wanted[long | (strength[wanted] >= clear)].tolist():
            start_s, place = float(starts[peak]), bisect_left(cuts_s, starts[peak])
            before_s, after_s = cuts_s[place - 1], cuts_s[min(place, len(cuts_s) - 1)]
            apart = min(start_s - before_s, after_s - start_s) >= limits.shortest_s
            if (strength[peak] >= clear or after_s - before_s > limits.longest_s) and (apart or np.isinf(strength[peak])):
                cuts_s.insert(place, start_s)
                chosen.append(peak)
    return np.array(sorted(chosen), dtype=np.int64)


def _strength(states: Records) -> Float64:
    """Return the strength of a boundary before each state, 0 at the first."""
    durations = states["duration_s"].astype(np.float64)
    levels = np.abs(np.diff(states["level_db"].astype(np.float64), prepend=states["level_db"][:1]))
    chroma = states["chroma"].astype(np.float64)
    chroma /= np.maximum(np.linalg.norm(chroma, axis=1, keepdims=True), 1e-12)
    harmony = np.concatenate([[0.0], 1 - (chroma[1:] * chroma[:-1]).sum(axis=1)])
    # The boundary before a state is the one after a long event: the interval that leads to it.
    waited = np.concatenate([[0.0], durations[:-1]])
    total = np.zeros(len(states))
    for weight, profile in zip(_WEIGHTS, (waited, levels, harmony), strict=True):
        padded = np.concatenate([profile[:1], profile, profile[-1:]])
        change = np.abs(np.diff(padded)) / np.maximum(padded[:-1] + padded[1:], 1e-9)
        strength = profile * (change[:-1] + change[1:])
        total += weight * strength / max(float(strength.max(initial=0.0)), 1e-9)
    total[:1] = 0.0
    return total
