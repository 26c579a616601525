"""Levels in dBFS and the gate."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from musichal.hearing.listener import Gate, frame_levels_db
from musichal.hearing.percepts import SILENT_DB
from musichal.spec import GateSpec


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.ones(4096), 0.0),
        (-np.ones(4096), 0.0),
        (np.sin(np.arange(4096) * np.pi / 16), -3.0103),
        (np.full(4096, 0.001), -60.0),
        (np.zeros(4096), SILENT_DB),
        (np.full(4096, 1e-9), SILENT_DB),
    ],
)
def test_known_levels(samples: np.ndarray, expected: float) -> None:
    levels = frame_levels_db(samples.astype(np.float32), np.array([1024, 2048]), window_samples=1024)
    np.testing.assert_allclose(levels, expected, atol=1e-3)
    assert levels.dtype == np.float32


def test_a_window_at_an_end_measures_what_is_there() -> None:
    samples = np.full(1000, 0.1, dtype=np.float32)
    levels = frame_levels_db(samples, np.array([0, 10, 990, 999]), window_samples=512)
    np.testing.assert_allclose(levels, -20, atol=1e-3)


def test_silence_after_a_loud_passage_is_silence() -> None:
    """A running sum in float32 would leave the rounding of the loud passage behind."""
    samples = np.concatenate([np.ones(100_000), np.zeros(2000)]).astype(np.float32)
    assert frame_levels_db(samples, np.array([101_000]), window_samples=1024)[0] == SILENT_DB


@given(
    hnp.arrays(np.float32, st.integers(1, 400), elements=st.floats(-1, 1, width=32)),
    st.integers(1, 600),
    st.data(),
)
def test_levels_equal_the_plain_definition(samples: np.ndarray, window: int, data: st.DataObject) -> None:
    centre = data.draw(st.integers(0, len(samples) - 1))
    part = samples[max(0, centre - window // 2) : centre + window - window // 2].astype(np.float64)
    expected = 10 * np.log10(max(float(np.mean(part**2)), 1e-12)) if len(part) else SILENT_DB
    level = frame_levels_db(samples, np.array([centre]), window_samples=window)[0]
    assert level == pytest.approx(expected, abs=0.01)


levels = st.lists(st.floats(-120, 0), max_size=60)


@given(levels, st.lists(st.integers(0, 60), max_size=8))
def test_the_gate_does_not_depend_on_cuts(values: list[float], cuts: list[int]) -> None:
    whole = Gate(GateSpec()).step(np.array(values, dtype=np.float32))
    gate = Gate(GateSpec())
    parts = [
        gate.step(part) for part in np.split(np.array(values, dtype=np.float32), sorted(min(c, len(values)) for c in cuts))
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@given(levels)
def test_the_gate_has_hysteresis(values: list[float]) -> None:
    spec = GateSpec(open_db=-50.0, close_db=-60.0)
    is_open = Gate(spec).step(np.array(values, dtype=np.float32))
    before = False
    for level, now in zip(np.array(values, dtype=np.float32).tolist(), is_open.tolist(), strict=True):
        if level >= spec.open_db:
            assert now
        elif level < spec.close_db:
            assert not now
        else:
            assert now == before
        before = now


def test_the_gate_starts_closed_and_stays_open_between_the_thresholds() -> None:
    gate = Gate(GateSpec(open_db=-50.0, close_db=-60.0))
    heard = gate.step(np.array([-55, -50, -55, -60, -60.1, -55, -49], dtype=np.float32))
    assert heard.tolist() == [False, True, True, True, False, False, True]
