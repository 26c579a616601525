"""Places in the beat: even between beats, one beat beyond the ends, none where there is no beat."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musichal.hearing.beats import BEAT
from musichal.memory.beat_places import NO_BEAT, BeatPlace, beat_places, passages


def grid(times_s, confidence=1.0, bar=4) -> np.ndarray:
    beats = np.zeros(len(times_s), dtype=BEAT)
    beats["time_s"], beats["confidence"], beats["bar_place"] = times_s, confidence, np.arange(len(times_s)) % bar
    return beats


def places(beats, times_s) -> list[BeatPlace]:
    return [BeatPlace.of(row) for row in beat_places(beats, times_s)]


def test_time_runs_evenly_from_beat_to_beat():
    found = places(grid([1.0, 1.5, 2.5, 3.5], bar=2), [1.0, 1.125, 1.5, 1.75, 2.4375])
    assert found == [
        BeatPlace(0.0, 0.5, 0, 1.0),
        BeatPlace(0.25, 0.5, 0, 1.0),
        BeatPlace(0.0, 1.0, 1, 1.0),
        BeatPlace(0.25, 1.0, 1, 1.0),
        BeatPlace(0.9375, 1.0, 1, 1.0),
    ]


def test_a_grid_reaches_one_beat_beyond_its_ends():
    found = places(grid([1.0, 1.5, 2.25]), [0.4375, 0.5, 0.75, 2.25, 2.8125, 3.0])
    assert found == [
        NO_BEAT,
        BeatPlace(0.0, 0.5, -1, 1.0),
        BeatPlace(0.5, 0.5, -1, 1.0),
        BeatPlace(0.0, 0.75, 2, 1.0),
        BeatPlace(0.75, 0.75, 2, 1.0),
        NO_BEAT,
    ]


@pytest.mark.parametrize("times_s", [[], [1.0], [1.0, 30.0], [1.0, 1.05]])
def test_where_beats_make_no_pulse_there_is_no_beat(times_s):
    assert places(grid(times_s), [0.0, 0.99, 1.0, 1.02, 15.0, 31.0]) == [NO_BEAT] * 6


def test_an_unsure_beat_and_a_passage_without_beats_are_none():
    beats = grid([0.0, 0.5, 1.0, 1.5, 2.0, 7.0, 7.5, 8.0], confidence=[1, 1, 0.5, 0, 1, 0.75, 0.75, 0.75])
    found = places(beats, [0.25, 0.75, 1.25, 1.75, 2.25, 4.5, 6.75, 7.25])
    assert [place.confidence for place in found] == [1.0, 0.5, 0.0, 0.0, 1.0, 0.0, 0.75, 0.75]
    assert [place == NO_BEAT for place in found] == [False, False, True, True, False, True, False, False]


@pytest.mark.parametrize(
    ("intervals_s", "gaps"),
    [
        ([0.5] * 4 + [1.0] * 4, []),
        ([0.5, 0.5, 1.0, 0.5, 0.5], [2]),
        ([0.5, 0.5, 1.0, 1.0, 0.5, 0.5], [2, 3]),
        ([0.5, 5.0, 6.0, 0.5, 0.5], [1, 2]),
        ([5.0, 0.5, 0.5], [0]),
        ([0.5, 0.5, 5.0], [2]),
        ([0.4, 0.45, 0.5, 0.6, 0.75, 1.0], []),
    ],
)
def test_a_hole_in_the_grid_is_told_from_another_tempo(intervals_s, gaps):
    times = np.concatenate([[0.0], np.cumsum(intervals_s)])
    held = [passage["time_s"].tolist() for passage in passages(grid(times))]
    expected = [part.tolist() for part in np.split(times, np.array(gaps, dtype=int) + 1) if len(part) > 1]
    assert held == expected


@given(
    st.lists(st.floats(0.11, 2.0), min_size=1, max_size=30),
    st.floats(-0.5, 5.0),
    st.lists(st.floats(-5.0, 70.0, width=32), max_size=30),
)
def test_every_place_is_possible_and_leads_back_to_its_beat(periods_s, first_s, times_s):
    beats = grid(np.concatenate([[first_s], first_s + np.cumsum(periods_s)]))
    found = beat_places(beats, times_s)
    assert ((found["beat_phase"] >= 0) & (found["beat_phase"] < 1)).all()
    period = float(np.max(periods_s))
    for time_s, row in zip(times_s, found, strict=True):
        if not row["beat_period_s"]:
            assert BeatPlace.of(row) == NO_BEAT
            continue
        begin_s = time_s - float(row["beat_phase"]) * float(row["beat_period_s"])
        beside = np.concatenate([beats["time_s"], beats["time_s"] - row["beat_period_s"]])
        assert np.abs(beside - begin_s).min() < 1e-5 * (1 + period)


@given(st.lists(st.floats(0.0, 20.0), min_size=1, max_size=20))
def test_one_by_one_is_all_at_once(times_s):
    beats = grid(np.cumsum([0.5, 0.5, 0.6, 0.7, 4.0, 0.5, 0.5]))
    one_by_one = np.concatenate([beat_places(beats, [time_s]) for time_s in times_s])
    assert one_by_one.tobytes() == beat_places(beats, times_s).tobytes()
