"""Segments and their context: the same cuts however the stream arrives."""

import gc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musichal.arrays import Float32
from musichal.hearing.front_end import Segmenter
from musichal.hearing.onsets import onsets_known_at
from musichal.hearing.percepts import Onset, Window
from musichal.spec import OnsetSpec, PerceptionSpec

LAG = OnsetSpec().report_lag_samples
HOP = OnsetSpec().hop_samples

SPECS = (
    PerceptionSpec(),
    PerceptionSpec(hop_samples=2100),
    PerceptionSpec(context_samples=0, segment_samples=4000, hop_samples=3333),
    PerceptionSpec(policy="onset"),
    PerceptionSpec(policy="onset", context_samples=20_000, min_segment_samples=400),
)


def stream(n: int) -> Float32:
    """Return samples that tell their own position; position 0 is 1, so that padding stands out."""
    return np.arange(1, n + 1, dtype=np.float32)


def onset_frames(n: int, seed: int) -> list[Onset]:
    """Return random onsets as a detector would find them in a stream of n samples."""
    rng = np.random.default_rng(seed)
    frames = np.flatnonzero(rng.random(n // HOP) < 0.03) + 1
    return [Onset(max(0, int(f) * HOP - LAG), int(f) * HOP) for f in frames]


def cut_up(spec: PerceptionSpec, n: int, onsets: list[Onset], cuts: list[int]) -> list[tuple[int, Window]]:
    """Return the windows, each with the length of the stream when it came."""
    segmenter, samples, out = Segmenter(spec), stream(n), []
    for a, b in pairwise([0, *sorted(min(c, n) for c in cuts), n]):
        new = [o for o in onsets if a < o.decided_at <= b]
        decided = max(0, (b // HOP + 1) * HOP - LAG)
        out += [(b, w) for w in segmenter.push(samples[a:b], new, decided)]
    return out + [(n, w) for w in segmenter.flush()]


def same(a: Window, b: Window) -> bool:
    names = ("index", "start_sample", "length_samples", "first_frame", "end_frame", "available_at", "real_samples")
    return all(getattr(a, x) == getattr(b, x) for x in names) and a.samples.tobytes() == b.samples.tobytes()


lengths = st.integers(0, 60_000)
cut_lists = st.lists(st.integers(0, 60_000), max_size=30)


@given(spec=st.sampled_from(SPECS), n=lengths, cuts=cut_lists, seed=st.integers(0, 9))
def test_the_windows_do_not_depend_on_the_blocks(spec: PerceptionSpec, n: int, cuts: list[int], seed: int) -> None:
    onsets = onset_frames(n, seed)
    whole, parts = cut_up(spec, n, onsets, []), cut_up(spec, n, onsets, cuts)
    assert len(whole) == len(parts)
    assert all(same(a, b) for (_, a), (_, b) in zip(whole, parts, strict=True))


@given(spec=st.sampled_from(SPECS), n=lengths, cuts=cut_lists, seed=st.integers(0, 9))
def test_a_window_comes_with_the_block_that_completes_it(spec: PerceptionSpec, n: int, cuts: list[int], seed: int) -> None:
    bounds = [0, *sorted(min(c, n) for c in cuts), n]
    available = []
    for came_at, window in cut_up(spec, n, onset_frames(n, seed), cuts):
        available.append(window.available_at)
        assert window.start_sample + window.length_samples <= window.available_at <= n
        assert came_at == min(b for b in bounds if b >= window.available_at)
    assert available == sorted(available)


@given(spec=st.sampled_from(SPECS), n=lengths, seed=st.integers(0, 9))
def test_a_window_holds_context_segment_and_lookahead_and_no_more(spec: PerceptionSpec, n: int, seed: int) -> None:
    end = 0
    for _, window in cut_up(spec, n, onset_frames(n, seed), []):
        context = spec.context_samples
        positions = np.arange(-context, spec.segment_samples + spec.lookahead_samples) + window.start_sample
        # A segment that an onset cut short must not see what the onset begins.
        whole = window.length_samples == spec.segment_samples
        seen_until = min(n, window.start_sample + window.length_samples + whole * spec.lookahead_samples)
        real = (positions >= 0) & (positions < seen_until)
        assert window.samples.shape == (spec.window_samples,)
        assert window.real_samples == seen_until - window.start_sample + context
        np.testing.assert_array_equal(window.samples, np.where(real, positions + 1, 0))
        if spec.policy == "onset" or spec.hop_samples == spec.segment_samples:
            assert window.start_sample == end
        end = window.start_sample + window.length_samples
    assert n - end < 400 if spec.hop_samples == spec.segment_samples else True


@given(lookahead=st.integers(0, 24_000), n=lengths)
def test_a_whole_segment_waits_for_its_lookahead_or_the_end(lookahead: int, n: int) -> None:
    spec = PerceptionSpec(lookahead_samples=lookahead)
    for _, window in cut_up(spec, n, [], []):
        assert window.available_at == min(n, window.start_sample + 8400 + lookahead)


def test_an_onset_starts_a_segment_and_cuts_the_one_before() -> None:
    onset = Onset(5000 - LAG, 5000)
    windows = [w for _, w in cut_up(PerceptionSpec(policy="onset"), 20_000, [onset], [])]
    assert [(w.start_sample, w.length_samples) for w in windows] == [(0, 4760), (4760, 8400), (13160, 6840)]
    assert [w.end_frame for w in windows] == [14, 26, 21]
    assert windows[0].available_at == 5000


def test_a_segment_cut_short_waits_for_the_lookahead_of_the_one_before() -> None:
    """Windows come in order, so none can be complete before an earlier one is."""
    spec = PerceptionSpec(policy="onset", min_segment_samples=400)
    onset = Onset(8900, 8900 + LAG)
    first, second = (w for _, w in cut_up(spec, 30_000, [onset], [])[:2])
    assert (first.length_samples, second.length_samples) == (8400, 500)
    assert first.available_at == second.available_at == 8400 + spec.lookahead_samples


@pytest.mark.parametrize(("sample", "cuts"), [(2399, False), (2400, True), (8399, True), (8400, False)])
def test_an_onset_cuts_only_between_the_shortest_and_the_longest_segment(sample: int, cuts: bool) -> None:
    onset = Onset(sample, sample + LAG)
    first = cut_up(PerceptionSpec(policy="onset"), 30_000, [onset], [])[0][1]
    assert first.length_samples == (sample if cuts else 8400)


def test_onsets_are_ignored_on_the_grid() -> None:
    windows = [w for _, w in cut_up(PerceptionSpec(), 30_000, onset_frames(30_000, 1), [])]
    assert [w.start_sample for w in windows] == [0, 8400, 16800, 25200]


@pytest.mark.parametrize("policy", ["grid", "onset"])
def test_onsets_are_let_go_when_their_time_is_over(policy: str) -> None:
    spec = PerceptionSpec(policy=policy)
    segmenter, silence = Segmenter(spec), np.zeros(4800, dtype=np.float32)
    kept = []
    for start in range(0, 60 * 24_000, 4800):
        segmenter.push(silence, [Onset(start + 100, start + 1000)], start + 4800)
        if start + 4800 in (30 * 24_000, 60 * 24_000):
            kept.append(sum(type(thing) is Onset for thing in gc.get_objects()))
    assert kept[1] <= kept[0] + 5  # so many are waited for at most


def test_the_end_of_a_stream_completes_what_waited_for_onsets() -> None:
    """A whole segment waits until onsets in it are known; where the stream ends before that, it is complete at the end."""
    spec = PerceptionSpec(policy="onset")
    assert onsets_known_at(8400, spec.onsets) > 8400
    (_, window), *rest = cut_up(spec, 8401, [], [])
    assert (window.length_samples, window.available_at, rest) == (8400, 8401, [])


@pytest.mark.parametrize("n", [0, 1, 399])
def test_a_stream_without_a_whole_frame_has_no_window(n: int) -> None:
    for spec in SPECS:
        assert cut_up(spec, n, [], []) == []


@given(st.integers(0, 100_000), st.integers(0, 1024), st.integers(32, 1024))
def test_onsets_before_a_sample_are_known_as_soon_as_they_can_be(sample: int, lag: int, hop: int) -> None:
    spec = OnsetSpec(report_lag_samples=lag, hop_samples=hop)
    known_at = onsets_known_at(sample, spec)
    assert known_at % hop == 0
    # The frame after `known_at` reports no onset before `sample`; one hop earlier a frame still could.
    assert known_at + hop - lag >= sample
    assert known_at == 0 or known_at - lag < sample
