"""Time measures of a duo, on onsets made by hand."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musichal.evaluate import time_together as tt
from musichal.evaluate.time_together import BeatMap

BEATS = BeatMap(np.arange(0, 33) * 0.5, "score")


def measured(onsets_s, true_s, grid=4):
    return tt.time_together(np.asarray(onsets_s), np.asarray(true_s), BEATS, duration_s=16.0, grid=grid)


def test_sixteenths_lie_on_the_grid_of_sixteenths_alone():
    time = measured(np.arange(0, 16, 0.125), np.arange(0, 16, 0.125))
    assert (time.r16, time.r_grid, time.within) == pytest.approx((1.0, 1.0, 1.0))
    assert (time.r8, time.r_triplets, time.asynchrony_ms, time.spread_ms) == pytest.approx((0, 0, 0, 0), abs=1e-9)
    assert time.phrase_beats == pytest.approx(31.75)


def test_triplets_are_told_from_sixteenths():
    onsets_s = np.arange(0, 16, 0.5 / 3)
    assert tt.grid_of(BEATS.places(onsets_s)) == 3
    assert tt.grid_of(BEATS.places(np.arange(0, 16, 0.5))) == 4, "what lies on the beat fits both"
    assert measured(onsets_s, onsets_s, grid=3).r_grid == pytest.approx(1.0)


def test_late_onsets_are_as_concentrated_and_their_asynchrony_says_so():
    time = measured(np.arange(0, 15, 0.25) + 0.02, np.arange(0, 16, 0.25))
    assert (time.r16, time.asynchrony_ms, time.spread_ms) == pytest.approx((1.0, 20.0, 0.0), abs=1e-6)


def test_onsets_are_together_up_to_forty_milliseconds_and_chance_is_the_same_moved():
    true_s = np.arange(0, 16, 1.0)
    assert tt.share_within(np.array([0.03, 1.04, 1.96, 2.97, 3.5]), true_s) == pytest.approx(0.8)
    assert tt.share_within(np.array([5.0]), np.array([5.02])) == 1.0
    assert tt.share_within(np.array([5.0]), np.array([])) == 0.0
    assert tt.share_within(np.array([]), true_s) is None
    assert measured(true_s, true_s).within_moved == 0.0


def test_chords_count_once():
    assert tt.struck([1.02, 1.0, 1.01, 1.029, 1.04, 2.0]).tolist() == [1.0, 1.04, 2.0]


def test_what_is_not_there_is_none():
    time = measured([], [1.0])
    assert time.onsets == 0
    assert not any(value for value in dataclasses.asdict(time).values())
    assert tt.time_together(np.array([1.0]), np.array([1.0]), None, duration_s=2.0).r16 is None


def test_a_tempo_change_is_measured_in_beats():
    """The partner goes on at the old tempo for six beats, then plays on the new beats."""
    old, new = np.arange(0, 10, 0.5), 10 + np.arange(0, 60) * 0.46
    beats = BeatMap(np.concatenate([old, new]), "score")
    late = 10 + np.arange(0, 11) * 0.25
    follows = new[new > late[-1] + 0.1]
    onsets_s = np.concatenate([np.arange(0, 10, 0.25), late, follows])
    back = tt.beats_until_back(onsets_s, beats, push_s=10.0)
    assert back is not None
    assert 3 <= back <= 7
    assert tt.beats_until_back(np.arange(0, 10, 0.25), beats, push_s=10.0) is None
    anywhere_s = np.random.default_rng(0).uniform(0, 30, 120)
    assert tt.beats_until_back(np.sort(anywhere_s), beats, push_s=10.0) is None, "never was in time"
    assert tt.beats_until_back(np.concatenate([np.arange(0, 10, 0.25), new]), beats, push_s=10.0) == 0.0


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50), st.integers(1, 6), st.floats(-10, 10))
def test_concentration_does_not_depend_on_where_the_grid_begins(places, parts, shift):
    r = tt.concentration(np.array(places), parts)
    assert 0 <= r <= 1 + 1e-9
    assert tt.concentration(np.array(places) + shift, parts) == pytest.approx(r, abs=1e-6)


def test_means_are_over_songs_that_have_the_measure():
    one, none = measured(np.arange(0, 16, 0.125), [0.0]), measured([], [0.0])
    mean = tt.mean_over([one, none])
    assert (mean.onsets, mean.r16) == (128, 1.0)
    low, high = tt.intervals([one, one, measured([0.1, 0.33], [0.0])], rng=np.random.default_rng(0))["r16"]
    assert low < high <= 1.0
