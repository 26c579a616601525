from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import lfilter

from musichal.audio.recording import ingest, read_recording
from musichal.hearing.encoders import create_encoder
from musichal.hearing.front_end import HighPass, _linear_filter
from musichal.hearing.listener import FeatureExtractor
from musichal.spec import PerceptionSpec

RATE = 24_000


def filtered(samples: np.ndarray, cuts: list[int]) -> np.ndarray:
    highpass = HighPass(cutoff_hz=20.0, sample_rate_hz=RATE)
    bounds = [0, *sorted(min(c, len(samples)) for c in cuts), len(samples)]
    return np.concatenate([highpass.push(samples[a:b]) for a, b in pairwise(bounds)])


@given(cuts=st.lists(st.integers(0, 5000), max_size=30), seed=st.integers(0, 99))
def test_blocks_change_nothing(cuts, seed):
    samples = np.random.default_rng(seed).standard_normal(5000).astype(np.float32)
    assert filtered(samples, cuts).tobytes() == filtered(samples, []).tobytes()


@pytest.mark.parametrize(("hz", "gain_db"), [(20, -3.0), (41.2, -0.92), (100, -0.17), (1000, 0.0)])
def test_what_is_heard_passes(hz, gain_db):
    tone = np.sin(2 * np.pi * hz * np.arange(RATE) / RATE).astype(np.float32)
    level = np.sqrt(2 * np.mean(filtered(tone, [])[RATE // 2 :] ** 2))
    assert 20 * np.log10(level) == pytest.approx(gain_db, abs=0.1)


def test_an_offset_goes_without_a_click():
    assert not filtered(np.full(1000, 0.7, dtype=np.float32), [300]).any()


def test_zero_switches_it_off():
    samples = np.ones(10, dtype=np.float32)
    assert HighPass(cutoff_hz=0.0, sample_rate_hz=RATE).push(samples) is samples


def test_an_offset_changes_neither_notes_nor_tokens_heard(rock_guitar):
    """A recording with DC is heard as the one without; only rounding to 24 bits may differ."""
    recording = read_recording(rock_guitar)
    samples = 0.3 * recording.samples[: 8 * recording.sample_rate_hz]

    def hear(offset: float) -> tuple[list[int], np.ndarray]:
        spec = PerceptionSpec()
        extractor = FeatureExtractor(spec, create_encoder(spec))
        heard = list(extractor.stream(ingest(samples + np.float32(offset)), source_rate_hz=recording.sample_rate_hz))
        notes = extractor.flush()
        pitches = [n.pitch for h in heard for n in h.notes] + [n.pitch for n in notes]
        return pitches, np.concatenate([h.features[0] for h in heard])

    plain, offset = hear(0.0), hear(0.5)
    assert len(plain[0]) > 10
    assert offset[0] == plain[0]
    assert np.abs(offset[1] - plain[1]).max() < 1e-2


def test_the_filter_is_scipys():
    samples = np.random.default_rng(0).standard_normal(3000)
    ahead, back, state = np.array([1.0, -1.0]), np.array([1.0, -0.995]), np.array([0.3])
    for ours, theirs in zip(
        _linear_filter()(ahead, back, samples, -1, state), lfilter(ahead, back, samples, zi=state), strict=True
    ):
        assert ours.tobytes() == theirs.tobytes()
