"""Gestures: the best segmentation, cut at onsets, tiling the stream."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musichal.arrays import Float32, Float64
from musichal.hearing.gestures import (
    GestureSmoother,
    Segmentation,
    boundaries,
    extend_segmentation,
    frame_costs,
    gesture_tokens,
)
from musichal.hearing.percepts import SILENCE, Gesture, SegmentFeatures, frame_centres
from musichal.spec import GestureSpec, PerceptionSpec

RATE = 24000
SEGMENT = 8400
FRAMES = 26
WEIGHTS = (1.0, 0.3)


# The segmentation itself


def sums_of(costs: tuple[Float64, ...]) -> tuple[Float64, ...]:
    return tuple(np.concatenate([np.zeros((1, c.shape[1])), np.cumsum(c, axis=0)]) for c in costs)


def empty() -> Segmentation:
    return Segmentation(np.zeros(1), np.zeros(1, dtype=np.int64))


def segment(costs: tuple[Float64, ...], *, penalty: float, least: int = 1, most: int = 1000) -> list[int]:
    n = len(costs[0])
    known = extend_segmentation(empty(), sums_of(costs), WEIGHTS, penalty=penalty, min_frames=least, max_frames=most)
    return boundaries(known, n)


def cost_of(ends: list[int], costs: tuple[Float64, ...], penalty: float) -> float:
    total = 0.0
    for a, b in pairwise([0, *ends]):
        total += penalty + sum(w * c[a:b].sum(axis=0).min() for w, c in zip(WEIGHTS, costs, strict=True))
    return total


def all_segmentations(n: int, least: int, most: int) -> list[list[int]]:
    """Return every list of ends with lengths from `least` to `most`."""
    found: list[list[int]] = [[n]] if least <= n <= most else []
    for first in range(least, min(most, n) + 1):
        found += [[first, *(first + e for e in rest)] for rest in all_segmentations(n - first, least, most)]
    return [list(t) for t in {tuple(f) for f in found}]


@st.composite
def random_costs(draw: st.DrawFn, most: int = 11) -> tuple[Float64, Float64]:
    n, seed = draw(st.integers(1, most)), draw(st.integers(0, 10**6))
    rng = np.random.default_rng(seed)
    return rng.exponential(size=(n, 4)), rng.exponential(size=(n, 3))


@given(random_costs(), st.floats(0, 5), st.integers(1, 4), st.integers(0, 4))
def test_no_segmentation_is_better(costs: tuple[Float64, Float64], penalty: float, least: int, extra: int) -> None:
    most = max(1, 2 * least - 1) + extra
    ends = segment(costs, penalty=penalty, least=least, most=most)
    n = len(costs[0])
    # A stream that is shorter than the shortest gesture is one gesture.
    allowed = all_segmentations(n, least, most) or [[n]]
    assert ends in allowed
    assert cost_of(ends, costs, penalty) == pytest.approx(min(cost_of(other, costs, penalty) for other in allowed))


@given(random_costs(60), st.floats(0, 20), st.floats(0, 20))
def test_a_higher_penalty_never_gives_more_gestures(costs: tuple[Float64, Float64], a: float, b: float) -> None:
    fewer, more = (len(segment(costs, penalty=p)) for p in (max(a, b), min(a, b)))
    assert fewer <= more


@given(random_costs(60), st.lists(st.integers(0, 60), max_size=6), st.integers(1, 5))
def test_extending_step_by_step_is_segmenting_at_once(costs: tuple[Float64, Float64], steps: list[int], least: int) -> None:
    numbers = {"penalty": 2.0, "min_frames": least, "max_frames": 20}
    sums = sums_of(costs)
    known = empty()
    for n in sorted({min(s, len(costs[0])) for s in steps} | {len(costs[0])}):
        known = extend_segmentation(known, tuple(s[: n + 1] for s in sums), WEIGHTS, **numbers)
    whole = extend_segmentation(empty(), sums, WEIGHTS, **numbers)
    np.testing.assert_array_equal(known.best, whole.best)
    np.testing.assert_array_equal(known.back, whole.back)


def test_a_first_gesture_that_is_too_short_is_not_built_on_behind_the_longest_one() -> None:
    """With the longest gesture's length of frames and a few more, a short first gesture is the cheapest, but not allowed."""
    costs = np.full((8, 2), 1.0)
    costs[:2, 0], costs[2:, 1] = 0, 0
    assert segment((costs, np.zeros((8, 1))), penalty=0.1, least=3, most=6)[0] >= 3


def test_silence_and_sound_cost_what_they_should() -> None:
    distances = np.array([[2.0, 4.0], [6.0, 1.0]], dtype=np.float32)
    costs = frame_costs(distances, np.array([True, False]), spread=2.0, silence_cost=5.0)
    np.testing.assert_array_equal(costs, [[1, 2, 5], [5, 5, 0]])


def test_a_sound_unlike_every_other_is_no_silence() -> None:
    """Another instrument lies many spreads from every centre; its tokens are those of the nearest, not SILENCE."""
    distances = np.array([[2.0, 4.0], [400.0, 300.0]], dtype=np.float32)
    audible = np.array([True, True])
    costs = frame_costs(distances, audible, spread=2.0, silence_cost=5.0, strange_cost=3.0)
    np.testing.assert_allclose(costs, [[1, 2, 5], [4, 3, 5]])


@pytest.mark.parametrize(
    ("silent", "share", "tokens"),
    [(0, 0.5, (1, 2)), (2, 0.5, (1, 2)), (3, 0.5, (SILENCE, SILENCE)), (0, 0.0, (SILENCE, SILENCE))],
)
def test_what_changes_while_it_sounds_is_no_silence(silent: int, share: float, tokens: tuple[int, int]) -> None:
    """Each frame is near another sound, and so the gesture far from each; only where half of it is silent it is silence."""
    costs = []
    for nearest in (1, 2):
        distances = np.full((6, 8), 9.0)
        distances[np.arange(6), np.arange(6)] = 0.5
        distances[:, nearest] -= 1.0
        costs.append(frame_costs(distances.astype(np.float32), np.arange(6) < 6 - silent, spread=1.0, silence_cost=4.0))
    assert gesture_tokens((costs[0], costs[1]), share) == tokens


# The smoother, fed with frames


def features(labels: list[int], size: int = 6, seed: int = 0) -> tuple[Float64, Float64]:
    """Return costs of frames that clearly belong to one token each (-1: silence), the same in both sources."""
    rng = np.random.default_rng(seed)
    distances = np.full((len(labels), size), 8.0) + rng.random((len(labels), size))
    for i, label in enumerate(labels):
        if label >= 0:
            distances[i, label] = 0.5 + 0.2 * rng.random()
    audible = np.array(labels) >= 0
    costs = frame_costs(distances.astype(np.float32), audible, spread=1.0, silence_cost=4.0)
    return costs, costs


def heard(index: int, n: int, onsets: tuple[int, ...]) -> SegmentFeatures:
    centres = frame_centres(0, n) + index * SEGMENT
    nothing: Float32 = np.zeros(n, dtype=np.float32)
    return SegmentFeatures(
        index=index,
        start_sample=index * SEGMENT,
        length_samples=SEGMENT,
        available_at=(index + 1) * SEGMENT,
        frame_samples=centres,
        features=(),
        source_level_db=np.stack([nothing, nothing]),
        audible=np.ones((2, n), dtype=bool),
        level_db=nothing - np.float32(20),
        chroma=np.tile(np.arange(12, dtype=np.float32), (n, 1)),
        salience=np.zeros((n, 61), dtype=np.float32),
        onset_samples=onsets,
        notes=(),
    )


def smooth(costs: tuple[Float64, Float64], onsets: list[int], spec: GestureSpec | None = None) -> list[Gesture]:
    """Run frames through a smoother, segment by segment; onsets come with the segment that decides them, 240 samples late."""
    smoother = GestureSmoother(PerceptionSpec(gestures=spec or GestureSpec()))
    n = len(costs[0])
    gestures: list[Gesture] = []
    for index in range(-(-n // FRAMES)):
        part = slice(index * FRAMES, min(n, (index + 1) * FRAMES))
        size = part.stop - part.start
        start, end = index * SEGMENT, (index + 1) * SEGMENT
        now = tuple(o for o in onsets if start < o + 240 <= end)
        vectors = np.repeat(np.arange(part.start, part.stop, dtype=np.float32)[:, None], 3, axis=1)
        gestures += smoother.step(heard(index, size, now), (costs[0][part], costs[1][part]), vectors)
    return gestures + smoother.flush(length(n))


def length(n_frames: int) -> int:
    """Return the samples of a stream with so many frames."""
    return (n_frames // FRAMES) * SEGMENT + (320 * (n_frames % FRAMES) + 80 if n_frames % FRAMES else 0)


def bounds(gestures: list[Gesture]) -> list[int]:
    """Return where gestures start, and the last one's end, in samples; asserts that nothing lies between them."""
    for a, b in pairwise(gestures):
        assert a.start_s + a.duration_s == pytest.approx(b.start_s, abs=1e-9)
    last = gestures[-1]
    return [round(g.start_s * RATE) for g in gestures] + [round((last.start_s + last.duration_s) * RATE)]


label_runs = st.lists(st.tuples(st.integers(-1, 5), st.integers(1, 30)), min_size=1, max_size=12).map(
    lambda runs: [label for label, n in runs for _ in range(n)]
)
gesture_specs = st.builds(
    GestureSpec,
    penalty=st.floats(0, 40),
    min_s=st.floats(0, 0.2),
    max_s=st.floats(0.5, 3),
    settle_s=st.floats(0, 0.3),
    roll_ioi_s=st.floats(0, 0.2),
)


@given(labels=label_runs, onsets=st.lists(st.integers(0, 120_000), max_size=25, unique=True), spec=gesture_specs)
def test_gestures_tile_the_stream(labels: list[int], onsets: list[int], spec: GestureSpec) -> None:
    """Whatever comes in: no gap, no overlap, every frame in one gesture, none longer than allowed."""
    onsets = sorted(onsets)
    gestures = smooth(features(labels), onsets, spec)
    edges = bounds(gestures)
    assert edges[0] == 0
    assert edges[-1] == length(len(labels))
    assert min(np.diff(edges)) > 0
    # The vectors are frame numbers, so a gesture's mean tells which frames it holds: each exactly once.
    centres = np.concatenate([frame_centres(0, FRAMES) + i * SEGMENT for i in range(len(labels) // FRAMES + 1)])[: len(labels)]
    first = 0
    for gesture, (start, end) in zip(gestures, pairwise(edges), strict=True):
        last = first
        while last < len(centres) and centres[last] < end:
            last += 1
        if first < last:
            assert centres[first] >= start - 320
        assert gesture.vector[0] == pytest.approx((first + last - 1) / 2, abs=0.51)
        assert (last - first) / 75 <= spec.max_s + 0.02
        first = round(2 * float(gesture.vector[0])) - first + 1
    assert first == len(labels)


@given(labels=label_runs, onsets=st.lists(st.integers(0, 120_000), max_size=25, unique=True), spec=gesture_specs)
def test_every_onset_that_is_no_roll_cuts(labels: list[int], onsets: list[int], spec: GestureSpec) -> None:
    onsets = sorted(onsets)
    gestures = smooth(features(labels), onsets, spec)
    edges = bounds(gestures)
    end = length(len(labels)) - 400
    before = None
    for onset in onsets:
        in_roll = before is not None and onset - before <= round(spec.roll_ioi_s * RATE)
        before = onset
        if in_roll or onset + 240 > end or onset < 200:
            continue
        # Where the frames behind it were closed already, the gesture that was open then counts as its beginning.
        distance = np.abs(np.array(edges) - onset)
        assert distance.min() <= 400 + 320
        assert gestures[min(int(distance.argmin()), len(gestures) - 1)].starts_at_onset or distance.min() <= 400


def test_a_cut_is_at_the_very_sample_of_the_onset() -> None:
    gestures = smooth(features([2] * 104), [5000, 12_345, 25_000])
    assert bounds(gestures) == [0, 5000, 12_345, 25_000, 4 * SEGMENT]
    assert [g.starts_at_onset for g in gestures] == [False, True, True, True]
    assert {g.tokens for g in gestures} == {(2, 2)}


def test_an_onset_before_the_first_frame_begins_the_first_gesture() -> None:
    for onset in (0, 100, 200):
        gestures = smooth(features([2] * 26), [onset])
        assert bounds(gestures) == [0, SEGMENT]
        assert gestures[0].starts_at_onset


def test_an_onset_that_becomes_known_one_segment_late_still_cuts_at_its_place() -> None:
    """At 8,300 of 8,400 samples an onset is decided in the next segment, when its segment's frames are there already."""
    gestures = smooth(features([2] * 52), [8300])
    assert bounds(gestures) == [0, 8300, 2 * SEGMENT]
    assert [g.starts_at_onset for g in gestures] == [False, True]


def test_two_onsets_between_two_frames_make_one_cut_and_no_gap() -> None:
    gestures = smooth(features([2] * 52), [8450, 8590], GestureSpec(roll_ioi_s=0.0))
    assert bounds(gestures) == [0, 8450, 2 * SEGMENT]


@pytest.mark.parametrize(("ioi_ms", "expected"), [(40, 2), (80, 2), (89, 2), (100, 13)])
def test_a_roll_is_one_gesture(ioi_ms: int, expected: int) -> None:
    """Twelve strokes: faster than 90 ms they are one gesture, slower ones are gestures of their own."""
    strokes = [9000 + i * ioi_ms * 24 for i in range(12)]
    gestures = smooth(features([1] * 156), strokes)
    assert len(gestures) == expected
    assert [round(g.start_s * RATE) for g in gestures[1:2]] == [9000]


def test_flicker_is_smoothed_and_a_lasting_change_is_not() -> None:
    labels = [0] * 20 + [1] + [0] * 20 + [1] * 30
    gestures = smooth(features(labels), [])
    assert [g.tokens for g in gestures] == [(0, 0), (1, 1)]


def test_silence_is_a_gesture_of_its_own() -> None:
    gestures = smooth(features([3] * 40 + [-1] * 40 + [3] * 40), [])
    assert [g.tokens for g in gestures] == [(3, 3), (SILENCE, SILENCE), (3, 3)]


@pytest.mark.parametrize("max_s", [0.5, 1.0, 2.0])
def test_nothing_lasts_longer_than_allowed(max_s: float) -> None:
    gestures = smooth(features([3] * 600), [], GestureSpec(max_s=max_s))
    longest = max(g.duration_s for g in gestures)
    # Frames are up to 400 samples apart where segments meet.
    assert max_s * 0.5 < longest <= max_s * 1.01 + 0.02


def test_a_change_is_believed_only_when_enough_has_followed_it() -> None:
    """Five frames of another sound at the end of a segment may be flicker: with 80 ms to settle, nothing is closed yet."""
    costs = features([0] * 21 + [1] * 5)
    for settle_s, closed in ((0.08, 0), (0.0, 1)):
        smoother = GestureSmoother(PerceptionSpec(gestures=GestureSpec(settle_s=settle_s)))
        assert len(smoother.step(heard(0, FRAMES, ()), costs, np.zeros((FRAMES, 3), dtype=np.float32))) == closed


def test_a_gesture_describes_its_frames() -> None:
    gesture = smooth(features([4] * 26), [])[0]
    np.testing.assert_allclose(gesture.chroma, np.arange(12))
    np.testing.assert_allclose(gesture.vector, 12.5)
    assert gesture.level_db == pytest.approx(-20)


def test_a_stream_without_frames_has_no_gestures() -> None:
    assert GestureSmoother(PerceptionSpec()).flush(0) == []
    assert GestureSmoother(PerceptionSpec()).flush(300) == []
