"""The level meter: levels of known signals, and the same ones however the sound was cut."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musichal.audio.level_meter import FLOOR_DB, LevelMeter


def measure(samples, cuts=()):
    meter = LevelMeter()
    for part in np.split(samples, sorted(cuts)):
        meter.see(part, part.mean(axis=1))
    return meter.take()


def test_known_signals():
    sine = np.sin(2 * np.pi * np.arange(48_000) / 100)[:, None].astype(np.float32)
    levels = measure(sine)
    assert levels.peak_db == pytest.approx(0.0, abs=0.001)
    assert levels.rms_db == pytest.approx(-3.01, abs=0.01)
    assert (levels.clipped_samples, levels.samples, levels.digital_silence) == (0, 48_000, False)
    assert measure(sine / 100).peak_db == pytest.approx(-40, abs=0.001)


def test_silence_and_nothing():
    for samples in (np.zeros((100, 2), np.float32), np.zeros((0, 2), np.float32)):
        levels = measure(samples)
        assert (levels.peak_db, levels.rms_db, levels.digital_silence) == (FLOOR_DB, FLOOR_DB, True)


def test_the_peak_is_that_of_any_channel_and_the_rms_that_of_what_is_heard():
    """Two channels that cancel one another are loud, and inaudible."""
    levels = measure(np.tile(np.array([0.5, -0.5], np.float32), (100, 1)))
    assert levels.peak_db == pytest.approx(-6.02, abs=0.01)
    assert levels.rms_db == FLOOR_DB


@pytest.mark.parametrize(("run", "clipped"), [(1, 0), (2, 0), (3, 3), (7, 7)])
def test_clipping_is_what_stays_at_full_scale(run, clipped):
    samples = np.full((100, 1), 0.5, np.float32)
    samples[40 : 40 + run] = -1.0
    assert measure(samples).clipped_samples == clipped


@given(seed=st.integers(0, 99), cuts=st.lists(st.integers(0, 400), max_size=8))
def test_it_does_not_matter_how_it_was_cut(seed, cuts):
    rng = np.random.default_rng(seed)
    samples = np.clip(rng.normal(size=(400, 2)), -1, 1).astype(np.float32)
    whole, parts = measure(samples), measure(samples, cuts)
    assert (parts.peak_db, parts.clipped_samples, parts.samples) == (whole.peak_db, whole.clipped_samples, 400)
    assert parts.rms_db == pytest.approx(whole.rms_db, abs=1e-9)


def test_asking_starts_again():
    meter = LevelMeter()
    loud = np.ones((10, 1), np.float32)
    meter.see(loud, loud[:, 0])
    assert meter.take().clipped_samples == 10
    assert meter.take().samples == 0
