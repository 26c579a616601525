"""Bars: how many beats they have, and which beats begin them.

Each length and first beat is a candidate. What is heard on first beats beside all others, and how alike beats are one and two
bars on, make its score, a conditional logit (McFadden, in Zarembka, *Frontiers in Econometrics*, 1974) that
`tools/train_beat_level.py` fits. Stretches of the recording are scored by themselves; the likeliest course through them counts,
where a change has a cost. Bars of five and seven are rare, so that more has to speak for them.
"""

import numpy as np

from musichal.arrays import Float64, Int64
from musichal.hearing.beat_evidence import STEP_S
from musichal.hearing.metre import likeliest_course, log_chances
from musichal.hearing.model_weights import model_weights

BARS = tuple((beats, first) for beats in (3, 4, 5, 7) for first in range(beats))
"""Beats of a bar, and which beat is its first, of each candidate."""
STRETCH, HOP = 42, 21
_FEWEST = 14
_CHANGE = 6.0  # nepers against other bars in the next stretch
_TOLD = 0.5  # the least chance of bars that are told


def bar_features(heard: Float64, first: Float64, beats_s: Float64) -> Float64:
    """Return the features of each of `BARS` over some beats, (candidates, n).

    `heard` has what is heard in each step, `first` (beats,) how likely the beat network takes each beat for a bar's first.
    """
    halves = np.append((beats_s[1:] + beats_s[:-1]) / 2, beats_s[-1])
    on, between = (heard[np.clip((times / STEP_S).astype(int), 0, len(heard) - 1)] for times in (beats_s, halves))
    usual = (on.mean(axis=0) + between.mean(axis=0)) / 2 + 1e-3
    rows = np.concatenate([np.log1p(on / usual), np.log1p(between / usual)], axis=1)
    rows = rows - rows.mean(axis=0)
    lengths = np.sqrt((rows**2).sum(axis=1)) + 0.3
    alike = np.zeros(15)
    for lag in range(1, min(15, len(rows) - 3)):
        alike[lag] = ((rows[lag:] * rows[:-lag]).sum(axis=1) / (lengths[lag:] * lengths[:-lag])).mean()
    places, count = np.arange(len(rows)), on.shape[1]
    sure = np.log(np.maximum(first, 0.01))
    out = []
    for beats, begin in BARS:
        here = places % beats == begin
        others = [alike[other] for other in (3, 4, 5, 7) if other != beats]
        kind = [alike[beats], alike[2 * beats], alike[beats] - max(others), *(float(beats == odd) for odd in (3, 5, 7))]
        out.append(np.concatenate([rows[here, :count].mean(axis=0), [sure[here].mean() - sure.mean()], kind]))
    return np.array(out)


def bar_places(heard: Float64, first: Float64, beats_s: Float64) -> Int64:
    """Return each beat's place in its bar, 0 for the first, -1 where it cannot be told; arguments as of `bar_features`."""
    count = len(beats_s)
    out = np.full(count, -1)
    if count < _FEWEST:
        return out
    weights = model_weights("beat_level", {"bar_weights": heard.shape[1] + 7})
    firsts = list(range(0, max(1, count - HOP), HOP))
    scores = []
    for begin in firsts:
        span = slice(begin, min(count, begin + STRETCH))
        own = bar_features(heard, first[span], beats_s[span])
        rolled = log_chances((own - weights["bar_offsets"]) @ weights["bar_weights"])
        scores.append([rolled[BARS.index((beats, (place - begin) % beats))] for beats, place in BARS])
    chances = np.maximum(np.array(scores), -12.0)
    course = likeliest_course(chances, _CHANGE)
    for begin, end, row, score in zip(firsts, [*firsts[1:], count], course.tolist(), chances, strict=True):
        beats, place = BARS[row]
        if score[row] > np.log(_TOLD):
            out[begin:end] = (np.arange(begin, end) - place) % beats
    return out
