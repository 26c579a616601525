import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musichal.audio.durations import Durations, quantile_ms


@given(st.lists(st.floats(0, 9.9), min_size=1, max_size=200), st.floats(0.01, 1))
def test_a_quantile_is_never_too_short_and_hardly_too_long(durations_s, share):
    counted = Durations()
    for duration_s in durations_s:
        counted.add(duration_s)
    true_ms = 1000 * float(np.quantile(durations_s, share, method="inverted_cdf"))
    found = quantile_ms(counted.counts, share)
    assert true_ms * (1 - 1e-9) <= found <= max(0.001, true_ms * 10**0.1) * (1 + 1e-9)


def test_nothing_counted_and_longer_than_the_last_bin():
    counted = Durations()
    assert quantile_ms(counted.counts, 0.99) is None
    assert quantile_ms([], 0.5) is None
    counted.add(1e9)
    assert quantile_ms(counted.counts, 0.5) == pytest.approx(10_000)
