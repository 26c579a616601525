"""The state space of the beat: period and phase on a grid of frames, searched as a whole.

It is that of Krebs, Böck & Widmer (ISMIR 2015): one state per frame of a beat; tempo changes on the beat alone, large ones are
unlikely. The prior of the period is the resonance curve around 0.5 s (van Noorden & Moelants, J. New Music Research 28(1),
1999). What is observed are the probabilities of a beat and of half a beat; what speaks for a metre at all is how much more
likely it makes them than a metre at any other place would.
"""

import math
import tempfile
from functools import cache
from typing import NamedTuple

import numpy as np

from musichal.arrays import Float64, Int64

FRAME_S = 0.01
_USUAL_S, _OCTAVES = 0.52, 0.6
_TEMPO_RIGIDITY = 100.0  # rate at which a relative change of tempo from beat to beat becomes unlikely
_WIDTH_S = 0.025
_USUAL = 0.12
"""Share of steps that the beat network calls a beat."""
_SHARPNESS, _HALF = 0.45, 0.5
_LEAST = 0.02
# So many times likelier is an onset there.
_ON_BEAT, _ON_HALF, _ON_QUARTER = 6.0, 1.8, 0.8
_FORGET = math.exp(-FRAME_S / 0.6)
_BLOCK_FRAMES = 1 << 12
AWAKE = 0.15
"""How much must have been heard lately for a frame to count in full."""


class Space(NamedTuple):
    """The states: `lengths` of the rows in frames; what each place has of a beat and of half a beat; tempo changes.

    `first` is the prior of a state, `even` (rows, 2) the mean of `on_beat` and `on_half` over a row.
    An onset of strength 1 makes a state 1 + `struck` times as likely; the mean of that over a row is 1.
    """

    lengths: Int64
    on_beat: Float64
    on_half: Float64
    change: Float64
    first: Float64
    even: Float64
    struck: Float64


@cache
def space() -> Space:
    """Return the state space; periods get coarser as they get longer."""
    lengths = np.concatenate([np.arange(28, 62), np.arange(62, 82, 2), np.arange(83, 111, 3)])
    phase = np.arange(lengths[-1])
    inside = phase[None, :] < lengths[:, None]
    prior = np.exp(-0.5 * (np.log2(lengths * FRAME_S / _USUAL_S) / _OCTAVES) ** 2) * np.gradient(lengths) / lengths
    prior /= prior.sum()
    part = phase[None, :] / lengths[:, None]

    def near(place: float) -> Float64:
        away = np.abs((part - place + 0.5) % 1 - 0.5) * lengths[:, None] * FRAME_S
        return np.exp(-0.5 * (away / _WIDTH_S) ** 2) * inside

    change = np.exp(-_TEMPO_RIGIDITY * np.abs(lengths[None, :] / lengths[:, None] - 1)) * prior[None, :] ** 0.02
    first = inside * (prior / lengths)[:, None]
    beat, half = near(0.0), near(0.5)
    even = np.stack([beat.sum(axis=1), half.sum(axis=1)], axis=1) / lengths[:, None]
    bumps = inside * (1 + _ON_BEAT * beat + _ON_HALF * half + _ON_QUARTER * (near(0.25) + near(0.75)))
    struck = np.where(inside, bumps / (bumps.sum(axis=1) / lengths)[:, None] - 1, 0)
    return Space(lengths, beat, half, change / change.sum(axis=1, keepdims=True), first / first.sum(), even, struck)


def rests(probabilities: Float64, heard: float, *, sharpness: float = _SHARPNESS) -> tuple[Float64, Float64]:
    """Return how much was heard lately (n,), which was `heard` before, and how likely each frame is as a beat, half, neither.

    The latter has shape (n, 3). `probabilities` (n, 2) are those of a beat and of half a beat. Where nothing has been heard
    lately, nothing is learned: a rest speaks for no tempo. `sharpness` is how far the network counts.
    """
    beat, half = probabilities[:, 0], probabilities[:, 1]
    lately = np.empty(len(beat))
    for frame, now in enumerate(probabilities.max(axis=1).tolist() if len(beat) else []):
        lately[frame] = heard = max(now, heard * _FORGET)
    on = np.maximum(beat, _LEAST) / _USUAL
    on_half = (np.maximum(half, _LEAST) / _USUAL) ** _HALF
    off = (1 - np.minimum(0.98, beat)) / (1 - _USUAL)
    sharp = sharpness * np.minimum(1.0, lately / AWAKE)
    return lately, np.stack([on, on_half, off], axis=1) ** sharp[:, None]


def best_path(observed: Float64) -> tuple[Int64, Int64]:
    """Return the frames of the beats of the likeliest path, and the row of each (Viterbi).

    `observed` (n, 4) is how likely a frame is as a beat, half a beat and neither, and the strength of an onset there.
    """
    s = space()
    rows = np.arange(len(s.lengths))
    # Of the rows, which have different lengths, only what is inside them, one row behind the other.
    inside = np.arange(s.on_beat.shape[1]) < s.lengths[:, None]
    on_beat, on_half, struck = s.on_beat[inside], s.on_half[inside], s.struck[inside]
    last = np.cumsum(s.lengths) - 1
    begin = last + 1 - s.lengths
    score, change = np.log(s.first[inside]), np.log(s.change)
    moved = np.empty_like(score)
    # Which row each row came from at each frame, a byte each: in a file, for of hours it is much.
    with tempfile.TemporaryFile(prefix="musichal-") as came:
        for first in range(0, len(observed), _BLOCK_FRAMES):
            for on, half, off, strength in observed[first : first + _BLOCK_FRAMES].tolist():
                ways = score.take(last)[:, None] + change
                best = ways.argmax(axis=0)
                came.write(best.astype(np.uint8).tobytes())
                moved[1:] = score[:-1]
                moved[begin] = ways[best, rows]
                moved += np.log(off + on_beat * (on - off) + on_half * (half - off))
                if strength > 0:
                    moved += np.log1p(strength * struck)
                moved -= moved.max()
                score, moved = moved, score
        at = int(score.argmax())
        row = int(np.searchsorted(last, at))
        frame = len(observed) - 1 - (at - int(begin[row]))
        beats, of = [], []
        while frame >= 0:
            beats.append(frame)
            of.append(row)
            came.seek(frame * len(rows) + row)
            row = came.read(1)[0]
            frame -= int(s.lengths[row])
    return np.array(beats[::-1], dtype=np.int64), np.array(of[::-1], dtype=np.int64)


def log_chances(scores: Float64) -> Float64:
    """Return the logarithm of the chance of each candidate of a conditional logit; a score of minus infinity has none."""
    top = scores.max()
    if not np.isfinite(top):
        return np.zeros(len(scores))
    return np.asarray(scores - top - np.log(np.exp(scores - top).sum()))


def likeliest_course(log_chance: Float64, change: float) -> Int64:
    """Return the candidate of each stretch on the likeliest course (Viterbi); `log_chance` is (stretches, candidates).

    A change of candidate from one stretch to the next costs `change` nepers.
    """
    best, came = log_chance[0], []
    for row in log_chance[1:]:
        leap = best.max() - change
        came.append(np.where(best >= leap, np.arange(len(best)), int(best.argmax())))
        best = np.maximum(best, leap) + row
    course = [int(best.argmax())]
    for back in reversed(came):
        course.append(int(back[course[-1]]))
    return np.array(course[::-1])
