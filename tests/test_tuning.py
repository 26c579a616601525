"""A player who is not in tune with 440 Hz: real recordings, resampled."""

import numpy as np
import pytest
import soundfile

from musichal.partner.tuning import PlayerTuning
from players_by_hand import hear

RATE = 44_100
LENGTH_S = 5


@pytest.fixture(scope="module")
def heard(trained, ballad_guitar):
    """Give the percepts of a guitar that is so many cents sharp."""
    samples = soundfile.read(ballad_guitar, dtype="float32", frames=LENGTH_S * RATE, start=4 * RATE)[0]

    def sharp(cents):
        ratio = 2 ** (cents / 1200)
        # Slower, or faster: resampled as a turntable does.
        return hear(
            trained, np.interp(np.arange(0, len(samples), ratio), np.arange(len(samples)), samples).astype(np.float32), RATE
        )

    return sharp


def corrected(percepts):
    tuning = PlayerTuning(sample_rate_hz=24_000)
    return [tuning.corrected(p, p.heard.chroma) for p in percepts], tuning.cents


def harmony_of(percepts):
    """Return the mean chroma behind the first two seconds, less its mean, of length 1."""
    chroma = np.concatenate([p.heard.chroma for p in percepts if p.heard.start_sample > 2 * 24_000]).mean(axis=0)
    chroma = chroma.astype(np.float64) - chroma.mean()
    return chroma / np.linalg.norm(chroma)


@pytest.mark.parametrize("cents", [-50, 45])
def test_a_player_a_quarter_tone_off_is_heard_in_tune(heard, cents):
    clean, off = harmony_of(heard(0)), heard(cents)
    kept, found = corrected(off)
    assert min(abs(found - cents), abs(found - cents + 100), abs(found - cents - 100)) < 6
    nearest = round((cents - found) / 100)  # half-way, either semitone is as near
    assert clean @ np.roll(harmony_of(kept), -nearest) > 0.98
    assert clean @ np.roll(harmony_of(off), -nearest) < 0.9
    gestures = [(a, b) for p, q in zip(off, kept, strict=True) for a, b in zip(p.gestures, q.gestures, strict=True)]
    late = [(a, b) for a, b in gestures if a.start_s > 2]
    assert late
    assert all(a.tokens == b.tokens and not np.array_equal(a.chroma, b.chroma) for a, b in late)


@pytest.mark.parametrize("cents", [0, -101])
def test_a_player_in_tune_or_a_semitone_off_is_left_as_heard(heard, cents):
    off = heard(cents)
    kept, found = corrected(off)
    assert found == 0
    assert all(a is b for a, b in zip(off, kept, strict=True))


def test_noise_has_no_tuning(trained):
    percepts = hear(trained, 0.1 * np.random.default_rng(0).normal(size=3 * RATE).astype(np.float32), RATE)
    assert corrected(percepts)[1] == 0
