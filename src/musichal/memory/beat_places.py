"""Places in the beat: where in a grid of beats a moment lies.

Between two beats time runs evenly. Beyond the ends of a passage a grid says something for one more beat. An interval much
longer than those on both sides is no beat but a passage without one.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from musichal.arrays import Bool, Float64, Records
from musichal.pulse import LONGEST_PERIOD_S, SHORTEST_PERIOD_S

BEAT_PLACE = np.dtype(
    [("beat_phase", np.float32), ("beat_period_s", np.float32), ("bar_place", np.int8), ("beat_confidence", np.float32)]
)
"""A `BeatPlace` as the memory keeps it."""

SURE = 0.2
"""The confidence from which on a place in the beat is gone by."""
LAST_PHASE = np.nextafter(np.float32(1), np.float32(0))
"""The last phase before the next beat."""
# An interval that is so many times the median of as many before it, and of as many after it, holds no beat.
_GAP, _NEIGHBOURS = 1.8, 3


@dataclass(frozen=True)
class BeatPlace:
    """A place in the beat.

    `phase` runs from 0 to 1 (excluded) through a beat of `period_s`, 0 where there is no beat; `bar_place` is that of the
    beat, 0 for the first of the bar and -1 where it is not known; `confidence` runs from 0 to 1.
    """

    phase: float = 0.0
    period_s: float = 0.0
    bar_place: int = -1
    confidence: float = 0.0

    @classmethod
    def of(cls, row: Records) -> "BeatPlace":
        """Return the place of a row that has the fields of `BEAT_PLACE`."""
        return cls(*(row[name].item() for name in BEAT_PLACE.names or ()))


NO_BEAT = BeatPlace()
"""The place of what lies in no beat."""


def in_sure_beat(places: Records) -> Bool:
    """Return which of some rows with the fields of `BEAT_PLACE` lie in a beat that is gone by, shape (n,)."""
    sure: Bool = (places["beat_period_s"] > 0) & (places["beat_confidence"] >= SURE)
    return sure


def beat_places(beats: Records, times_s: npt.ArrayLike) -> Records:
    """Return the places of moments (n,) in a grid of beats, `BEAT` of shape (k,); `BEAT_PLACE` of shape (n,)."""
    times = np.asarray(times_s, dtype=np.float64)
    out = np.zeros(times.shape, dtype=BEAT_PLACE)
    out["bar_place"] = NO_BEAT.bar_place
    for passage in passages(beats):
        beat_s, confidence = passage["time_s"], passage["confidence"]
        periods_s = np.diff(beat_s)
        # One beat more at either end, as long as the one beside it.
        periods_s = periods_s[np.r_[0, : len(periods_s), -1]]
        starts_s = np.concatenate([[beat_s[0] - periods_s[0]], beat_s])
        sure = np.concatenate([confidence[:1], np.minimum(confidence[:-1], confidence[1:]), confidence[-1:]])
        bar_places = np.concatenate([[NO_BEAT.bar_place], passage["bar_place"]])
        inside = np.flatnonzero((times >= starts_s[0]) & (times < beat_s[-1] + periods_s[-1]))
        at = np.searchsorted(starts_s, times[inside], side="right") - 1
        inside, at = inside[sure[at] > 0], at[sure[at] > 0]
        phase = ((times[inside] - starts_s[at]) / periods_s[at]).astype(np.float32)
        out["beat_phase"][inside] = np.minimum(phase, LAST_PHASE)
        out["beat_period_s"][inside] = periods_s[at]
        out["bar_place"][inside] = bar_places[at]
        out["beat_confidence"][inside] = sure[at]
    return out


def passages(beats: Records) -> Iterator[Records]:
    """Yield the stretches of a grid, of two beats or more, through which the beat goes on."""
    intervals_s: Float64 = np.diff(beats["time_s"])
    if not len(intervals_s):
        return
    n, near = len(intervals_s), np.arange(1, _NEIGHBOURS + 1)
    number = np.arange(n)[:, None]
    before = np.median(intervals_s[np.maximum(number - near, 0)], axis=1)
    after = np.median(intervals_s[np.minimum(number + near, n - 1)], axis=1)
    before[0], after[-1] = 0, 0  # there is none
    beside = np.maximum(before, after) if n > 1 else intervals_s
    possible = (intervals_s >= SHORTEST_PERIOD_S) & (intervals_s <= LONGEST_PERIOD_S)
    for passage in np.split(beats, np.flatnonzero(~possible | (intervals_s > _GAP * beside)) + 1):
        if len(passage) > 1:
            yield passage
