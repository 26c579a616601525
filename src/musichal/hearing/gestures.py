"""Gestures: runs of frames that belong together, by duration-penalised segmentation.

Frame tokens flicker up to 74 times a second. A gesture is a run of frames explained by one token per source; the best
sequence of gestures minimises the distances of all frames to their gesture's centres plus a penalty per gesture (Kamper & van
Niekerk, Interspeech 2021). Here it is joint over both sources, causal with a bounded look-back, and an onset always cuts,
except inside a roll: strokes closer than `GestureSpec.roll_ioi_s` make one gesture.

Distances are in units of the training frames' mean distance to their centres: with a penalty of 20, a change must save as
much as twenty average frames cost.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from musichal.arrays import Bool, Float32, Float64, Int64
from musichal.hearing.percepts import SILENCE, SILENT_DB, Gesture, SegmentFeatures
from musichal.spec import GestureSpec, PerceptionSpec


def frame_costs(distances: Float32, audible: Bool, *, spread: float, silence_cost: float, strange_cost: float = 0.0) -> Float64:
    """Return what it costs to explain each frame by each token, the last column being SILENCE; shape (n, size + 1).

    A sound that is unlike every other, as that of another instrument, is no silence: its costs are scaled down until the
    nearest one is `strange_cost`, if that is not 0.
    """
    n, size = distances.shape
    costs = np.empty((n, size + 1))
    costs[:, :size] = distances / spread
    if strange_cost:
        nearest = costs[:, :size].min(axis=1, keepdims=True)
        costs[:, :size] *= strange_cost / np.maximum(nearest, strange_cost)
    costs[:, size] = silence_cost
    costs[~audible, :size] = silence_cost
    costs[~audible, size] = 0
    return costs


def gesture_tokens(costs: tuple[Float64, Float64], silent_share: float) -> tuple[int, int]:
    """Return the tokens that explain the frames of a gesture best, from their costs in both sources, (n, size + 1).

    What changes while it sounds may be far from each single sound in both sources, and is no silence for that.
    """
    silence = costs[0].shape[1] - 1
    tokens = [int(np.argmin(each.sum(axis=0))) for each in costs]
    if silent_share and tokens == [silence, silence]:
        sounding = [np.count_nonzero(each[:, silence]) > (1 - silent_share) * len(each) for each in costs]
        nearest = [int(np.argmin(each[:, :silence].sum(axis=0))) for each in costs]
        tokens = [near if sounds else silence for near, sounds in zip(nearest, sounding, strict=True)]
    first, second = (SILENCE if token == silence else token for token in tokens)
    return first, second


@dataclass
class Segmentation:
    """The best segmentation of the first i frames, for each i: least cost (n + 1,) and start of its last gesture (n + 1,)."""

    best: Float64
    back: Int64


def extend_segmentation(
    known: Segmentation,
    sums: tuple[Float64, ...],
    weights: tuple[float, ...],
    *,
    penalty: float,
    min_frames: int,
    max_frames: int,
) -> Segmentation:
    """Extend a segmentation to all frames whose running cost sums, (n + 1, tokens) per source, are given.

    A gesture has from `min_frames` to `max_frames` frames; only the first may be shorter, where no more frames are there.
    Of equally good segmentations the one with the longest last gesture is taken.
    """
    n = sums[0].shape[0] - 1
    first = known.best.shape[0]
    best, back = np.empty(n + 1), np.zeros(n + 1, dtype=np.int64)
    best[:first], back[:first] = known.best, known.back
    if first > n:
        return known
    # What a stretch costs by its best token, (ends, starts): all at once, which costs a fifth.
    oldest, costs = max(0, first - max_frames), []
    for source, weight in zip(sums, weights, strict=True):
        ends, starts = (np.ascontiguousarray(source[since:].T) for since in (first, oldest))
        costs.append(weight * np.minimum.reduce(ends[:, :, None] - starts[:, None, :], axis=0))
    for end in range(first, n + 1):
        low = max(0, end - max_frames)
        high = max(low, end - min_frames) + 1
        total = best[low:high] + penalty
        for cost in costs:
            total += cost[end - first, low - oldest : high - oldest]
        # No later gesture may follow a first one that is still too short.
        total[max(1 - low, 0) : max(min_frames - low, 0)] = np.inf
        start = int(total.argmin())
        best[end], back[end] = total[start], low + start
    return Segmentation(best, back)


def boundaries(segmentation: Segmentation, end: int) -> list[int]:
    """Return the ends of the gestures in the best segmentation of the first `end` frames, ascending, the last being `end`."""
    ends: list[int] = []
    while end > 0:
        ends.append(end)
        end = int(segmentation.back[end])
    return ends[::-1]


class _Frames(NamedTuple):
    """Frames that no closed gesture holds yet, oldest first."""

    centres: Int64
    harmonic_costs: Float64
    percussive_costs: Float64
    vectors: Float32
    chroma: Float32
    level_db: Float32

    @property
    def n(self) -> int:
        return self.centres.shape[0]

    @property
    def costs(self) -> tuple[Float64, Float64]:
        return self.harmonic_costs, self.percussive_costs

    def tail(self, first: int) -> "_Frames":
        return _Frames._make(column[first:] for column in self)

    def joined(self, later: "_Frames") -> "_Frames":
        return _Frames._make(np.concatenate([mine, theirs]) for mine, theirs in zip(self, later, strict=True))


class GestureSmoother:
    """Groups frames into gestures as they come; a gesture is handed out once it is closed."""

    def __init__(self, spec: PerceptionSpec) -> None:
        self._spec: GestureSpec = spec.gestures
        self._rate_hz = spec.sample_rate_hz
        seconds_to_frames = spec.sample_rate_hz / spec.encoder.stride_samples
        self._min_frames = max(1, round(spec.gestures.min_s * seconds_to_frames))
        self._max_frames = max(self._min_frames, round(spec.gestures.max_s * seconds_to_frames))
        self._settle_frames = round(spec.gestures.settle_s * seconds_to_frames)
        self._roll_samples = round(spec.gestures.roll_ioi_s * spec.sample_rate_hz)
        self._last_onset: int | None = None
        self._cuts: list[int] = []
        self._start_sample = 0
        self._starts_at_onset = False
        self._frames: _Frames | None = None
        self._next_index = self._heard_until = 0
        self._segmentation = Segmentation(np.zeros(1), np.zeros(1, dtype=np.int64))

    def step(self, heard: SegmentFeatures, costs: tuple[Float64, Float64], vectors: Float32) -> list[Gesture]:
        """Take the next segment's frames and return the gestures that they completed.

        `costs` (n, size + 1) per source are from `frame_costs`; a gesture's vector is the mean of its `vectors` (n, dims).
        Where segments were skipped, open gestures end, and a gesture of silence stands for the gap.
        """
        gap = self._bridge(heard, vectors.shape[1]) if heard.index != self._next_index else []
        self._next_index, self._heard_until = heard.index + 1, heard.start_sample + heard.length_samples
        new = _Frames(heard.frame_samples, *costs, vectors, heard.chroma, heard.level_db)
        self._frames = new if self._frames is None else self._frames.joined(new)
        self._note_cuts(heard.onset_samples)
        closed = self._apply_cuts()
        self._segment()
        ends = boundaries(self._segmentation, self._frames.n)[:-1]
        settled = [end for end in ends if end <= self._frames.n - self._settle_frames]
        return gap + closed + self._close(settled)

    def _bridge(self, heard: SegmentFeatures, dims: int) -> list[Gesture]:
        """Close what is open and return it with a gesture of silence up to the next segment's new frames."""
        closed = self.flush(self._heard_until)
        # Frames of overlapping segments begin behind the segment's start: half a stride before the first centre.
        end = heard.start_sample
        if heard.frame_samples.shape[0] > 1:
            stride = int(heard.frame_samples[1] - heard.frame_samples[0])
            end = max(end, int(heard.frame_samples[0]) - stride // 2)
        start = max(self._heard_until, self._start_sample)
        end = max(end, start)
        self._cuts = [cut for cut in self._cuts if cut >= end]
        self._start_sample, self._starts_at_onset = end, False
        if end == start:
            return closed
        silence = Gesture(
            start_s=start / self._rate_hz,
            duration_s=(end - start) / self._rate_hz,
            tokens=(SILENCE, SILENCE),
            level_db=SILENT_DB,
            chroma=np.zeros(12, dtype=np.float32),
            vector=np.zeros(dims, dtype=np.float32),
            starts_at_onset=False,
        )
        return [*closed, silence]

    def flush(self, end_sample: int) -> list[Gesture]:
        """End the stream at `end_sample` and return the gestures that were still open."""
        if self._frames is None or not self._frames.n:
            return []
        self._segment()
        return self._close(boundaries(self._segmentation, self._frames.n), end_sample=end_sample)

    def _note_cuts(self, onsets: tuple[int, ...]) -> None:
        for onset in onsets:
            in_roll = self._last_onset is not None and onset - self._last_onset <= self._roll_samples
            if not in_roll:
                self._cuts.append(onset)
            self._last_onset = onset

    def _apply_cuts(self) -> list[Gesture]:
        """Close everything before each onset that cuts, as far as the frames behind the onset are there."""
        assert self._frames is not None
        closed: list[Gesture] = []
        while self._cuts and self._frames.n and self._frames.centres[-1] >= self._cuts[0]:
            onset = self._cuts.pop(0)
            index = int(np.searchsorted(self._frames.centres, onset))
            if index:
                self._segment()
                closed += self._close(boundaries(self._segmentation, index), end_sample=onset)
            # Else the frames before the onset are closed already, and the gesture that is open begins with it.
            self._starts_at_onset = True
        return closed

    def _segment(self) -> None:
        assert self._frames is not None
        sums = [np.concatenate([np.zeros((1, c.shape[1])), np.cumsum(c, axis=0)]) for c in self._frames.costs]
        self._segmentation = extend_segmentation(
            self._segmentation,
            tuple(sums),
            (1.0, self._spec.percussive_weight),
            penalty=self._spec.penalty,
            min_frames=self._min_frames,
            max_frames=self._max_frames,
        )

    def _close(self, ends: list[int], end_sample: int | None = None) -> list[Gesture]:
        """Hand out the gestures that end at these frames; the last one ends at `end_sample` if that is given."""
        assert self._frames is not None
        if not ends:
            return []
        frames, gestures, first = self._frames, [], 0
        for end in ends:
            last = end == ends[-1]
            if last and end_sample is not None:
                stop = max(end_sample, self._start_sample + 1)
            else:
                stop = int(frames.centres[end - 1] + frames.centres[end]) // 2
            gestures.append(self._gesture(first, end, stop))
            self._start_sample, self._starts_at_onset, first = stop, False, end
        self._frames = frames.tail(first)
        self._segmentation = Segmentation(np.zeros(1), np.zeros(1, dtype=np.int64))
        return gestures

    def _gesture(self, first: int, end: int, stop: int) -> Gesture:
        assert self._frames is not None
        part = slice(first, end)
        harmonic, percussive = self._frames.costs
        tokens = gesture_tokens((harmonic[part], percussive[part]), self._spec.silent_share)
        power = np.mean(10 ** (self._frames.level_db[part].astype(np.float64) / 10))
        return Gesture(
            start_s=self._start_sample / self._rate_hz,
            duration_s=(stop - self._start_sample) / self._rate_hz,
            tokens=tokens,
            level_db=float(10 * np.log10(power)),
            chroma=self._frames.chroma[part].mean(axis=0),
            vector=self._frames.vectors[part].mean(axis=0),
            starts_at_onset=self._starts_at_onset,
        )
