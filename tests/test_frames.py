"""The frame grid, and the exact number of frames of a stream."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from musichal.hearing.front_end import Segmenter
from musichal.hearing.percepts import first_new_frame, frame_centres, frame_count, stream_frame_count
from musichal.spec import PerceptionSpec


@pytest.mark.parametrize(("milliseconds", "expected"), [(100, 7), (200, 14), (350, 26), (500, 37), (1000, 74)])
def test_counts_of_the_conv_stack(milliseconds: int, expected: int) -> None:
    assert frame_count(24 * milliseconds) == expected


@given(st.integers(0, 10**7), st.integers(1, 4000), st.integers(1, 4000))
def test_the_count_is_how_many_whole_frames_fit(n: int, frame: int, stride: int) -> None:
    count = frame_count(n, frame_samples=frame, stride_samples=stride)
    if count:
        assert (count - 1) * stride + frame <= n
    assert count * stride + frame > n


def test_a_conv_stack_layer_by_layer_gives_the_same_count() -> None:
    """MERT's stack has kernels 10, 3, 3, 3, 3, 2, 2 and strides 5, 2, 2, 2, 2, 2, 2."""
    for n in [*range(380, 3000, 7), 8400, 24000, 123456]:
        length = n
        for kernel, stride in ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2)):
            length = max(0, (length - kernel) // stride + 1)
        assert frame_count(n) == length


def test_frames_are_centred_on_what_they_cover() -> None:
    assert frame_centres(0, 3).tolist() == [200, 520, 840]
    assert frame_centres(2, 3, frame_samples=100, stride_samples=10).tolist() == [70]
    assert frame_centres(3, 3).shape == (0,)


@st.composite
def grids(draw: st.DrawFn) -> PerceptionSpec:
    segment = draw(st.integers(2400, 12000))
    return PerceptionSpec(segment_samples=segment, hop_samples=draw(st.integers(520, segment)), context_samples=0)


@given(grids())
def test_the_first_new_frame_lies_behind_the_segment_before(spec: PerceptionSpec) -> None:
    first = first_new_frame(spec)
    overlap = spec.segment_samples - spec.hop_samples
    centres = frame_centres(0, frame_count(spec.segment_samples))
    assert centres[first:].min() >= overlap
    assert first == 0 or centres[first - 1] < overlap


@given(grids(), st.integers(0, 100_000))
@example(PerceptionSpec(segment_samples=2918, hop_samples=1097, context_samples=0), 27_547)
def test_the_closed_form_counts_what_the_segmenter_cuts(spec: PerceptionSpec, n: int) -> None:
    segmenter = Segmenter(spec)
    windows = segmenter.push(np.zeros(n, dtype=np.float32)) + segmenter.flush()
    centres = np.concatenate(
        [np.zeros(0, dtype=np.int64), *(w.start_sample + frame_centres(w.first_frame, w.end_frame) for w in windows)]
    )
    assert stream_frame_count(n, spec) == len(centres)
    # Each moment once, in order, and none left out: at most a frame's tail, the rest of a segment and a stride apart.
    furthest = 200 + 319 + 320
    if len(centres) > 1:
        assert np.diff(centres).min() > 0
        assert np.diff(centres).max() <= furthest
    if n >= 400:
        assert centres[0] == 200
        # The next moment, at most so far behind the last, would have needed the 200 samples behind it that a frame covers.
        assert centres[-1] + furthest + 200 > n


def test_fixtures_of_the_closed_form() -> None:
    spec = PerceptionSpec()
    whole = [stream_frame_count(n, spec) for n in (0, 399, 400, 8399, 8400, 8799, 8800, 16800, 24000, 24 * 60_000)]
    assert whole == [0, 0, 1, 25, 26, 26, 27, 52, 74, 4457]
    overlapping = PerceptionSpec(hop_samples=2100)
    assert [stream_frame_count(n, overlapping) for n in (8400, 10500, 12600, 12599)] == [26, 32, 38, 37]


def test_no_closed_form_where_the_count_depends_on_the_music() -> None:
    with pytest.raises(ValueError, match="grid"):
        stream_frame_count(24000, PerceptionSpec(policy="onset"))
