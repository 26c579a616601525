"""How dense a player is of late, from their onsets."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musichal.partner.player import lately_hz


@pytest.mark.parametrize("rate_hz", [1.0, 2.0, 5.0, 10.0])
def test_a_steady_player_is_as_dense_as_they_play(rate_hz):
    onsets_s = np.arange(0, 10, 1 / rate_hz)
    found = [lately_hz(onsets_s[onsets_s <= now_s], now_s, window_s=3.0) for now_s in np.linspace(5, 9, 41)]
    assert np.mean(found) == pytest.approx(rate_hz, rel=0.3), "a slow one a little denser: both ends count"


def test_a_pause_and_a_new_beginning_are_noticed_within_a_second_or_two():
    phrases_s = [t for begins_s in (0.0, 9.0) for t in (begins_s + np.arange(0, 5, 0.2)).tolist()]

    def at(now_s):
        return lately_hz([t for t in phrases_s if t <= now_s], now_s, window_s=3.0)

    assert at(4.9) == pytest.approx(5, rel=0.15)
    assert at(6.5) < 1.0, "over three seconds it would be 2.5 still"
    assert at(10.0) == pytest.approx(5, rel=0.25), "over three seconds it would be 2"


@given(st.lists(st.floats(0, 100), max_size=40), st.floats(0, 100))
def test_it_is_a_rate_whatever_there_is(times_s, now_s):
    found = lately_hz(sorted(times_s), now_s, window_s=3.0)
    assert 0 <= found <= len(times_s)
    if not any(now_s - 3.0 <= t <= now_s for t in times_s):
        assert found == 0
