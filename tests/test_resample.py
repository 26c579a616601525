"""Streaming resampling: one stream however it is cut."""

from itertools import pairwise

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from musichal.arrays import Float32
from musichal.audio.resample import HIGHEST_RATE_HZ, LOWEST_RATE_HZ, StreamResampler
from musichal.errors import InputError


def resampled(samples: Float32, cuts: list[int], *, source: int, target: int = 24000, quality: str = "soxr-HQ") -> Float32:
    resampler = StreamResampler(source_rate_hz=source, target_rate_hz=target, quality=quality)
    bounds = [0, *sorted(cuts), len(samples)]
    out = [resampler.push(samples[a:b]) for a, b in pairwise(bounds)]
    return np.concatenate([*out, resampler.flush()])


@pytest.fixture(scope="module")
def clip(request: pytest.FixtureRequest) -> Float32:
    path = request.getfixturevalue("rock_mix")
    samples: Float32 = soundfile.read(path, frames=60_000, start=441_000, dtype="float32")[0]
    return samples


@given(
    cuts=st.lists(st.integers(0, 60_000), max_size=40),
    source=st.sampled_from([8000, 22050, 24000, 32000, 44100, 48000, 96000, 192000, 44101]),
    quality=st.sampled_from(["soxr-HQ", "soxr-VHQ", "soxr-VR"]),
)
def test_any_cut_gives_the_same_bits(clip: Float32, cuts: list[int], source: int, quality: str) -> None:
    whole = resampled(clip, [], source=source, quality=quality)
    assert resampled(clip, cuts, source=source, quality=quality).tobytes() == whole.tobytes()


@pytest.mark.parametrize("source", [24000, 44100, 48000])
def test_single_samples_give_the_same_bits(clip: Float32, source: int) -> None:
    part = clip[:9000]
    single = resampled(part, list(range(len(part))), source=source)
    assert single.tobytes() == resampled(part, [], source=source).tobytes()


@given(n=st.integers(0, 30_000), source=st.integers(LOWEST_RATE_HZ, 200_000), quality=st.sampled_from(["soxr-HQ", "soxr-VR"]))
def test_the_length_follows_from_the_rates(n: int, source: int, quality: str) -> None:
    length = len(resampled(np.zeros(n, dtype=np.float32), [], source=source, quality=quality))
    assert abs(length - n * 24000 / source) <= 0.5 + 1e-9


def test_equal_rates_pass_samples_unchanged(clip: Float32) -> None:
    assert resampled(clip, [100, 5000], source=24000).tobytes() == clip.tobytes()


@pytest.mark.parametrize("source", [44100, 48000, 96000])
def test_a_tone_keeps_its_pitch_level_and_place(source: int) -> None:
    seconds = np.arange(source) / source
    out = resampled((0.5 * np.sin(2 * np.pi * 1000 * seconds)).astype(np.float32), [777], source=source)
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(24000) / 24000)
    np.testing.assert_allclose(out[2000:-2000], expected[2000:-2000], atol=1e-4)


def test_what_the_target_cannot_hold_is_removed_not_folded() -> None:
    seconds = np.arange(48000) / 48000
    out = resampled((0.5 * np.sin(2 * np.pi * 15_000 * seconds)).astype(np.float32), [], source=48000)
    assert np.abs(out[1000:-1000]).max() < 1e-4


@pytest.mark.parametrize("rate", [0, -44100, LOWEST_RATE_HZ - 1, HIGHEST_RATE_HZ + 1])
def test_rates_that_cannot_be_heard_are_refused(rate: int) -> None:
    with pytest.raises(InputError, match=f"{rate} Hz"):
        StreamResampler(source_rate_hz=rate, target_rate_hz=24000)


@pytest.mark.parametrize("rate", [LOWEST_RATE_HZ, HIGHEST_RATE_HZ])
def test_the_limits_themselves_are_heard(rate: int) -> None:
    assert len(resampled(np.zeros(rate // 4, dtype=np.float32), [], source=rate)) == 6000


@pytest.mark.parametrize("source", [44_100, 48_000, 96_000])
def test_variable_rate_gives_each_sample_within_seven_milliseconds(source: int) -> None:
    """What makes it worth having; HQ keeps samples for up to 39 ms."""
    resampler = StreamResampler(source_rate_hz=source, target_rate_hz=24_000, quality="soxr-VR")
    given = 0
    for number in range(1, 400):
        given += len(resampler.push(np.zeros(128, np.float32)))
        assert 0 <= number * 128 / source - given / 24_000 <= 0.007


def test_variable_rate_keeps_a_tone_as_it_is_but_for_two_samples() -> None:
    seconds = np.arange(48_000) / 48_000
    tone = (0.5 * np.sin(2 * np.pi * 1000 * seconds)).astype(np.float32)
    ours, best = (resampled(tone, [777], source=48_000, quality=quality)[2000:-2000] for quality in ("soxr-VR", "soxr-HQ"))
    late = 2 * np.pi * 1000 * np.arange(-3, 4, 0.01)[:, None] / 24_000
    at = 2 * np.pi * 1000 * np.arange(2000, 2000 + len(ours))[None, :] / 24_000
    errors = np.abs(0.5 * np.sin(at - late) - ours).max(axis=1)
    assert errors.min() < 2e-4
    assert abs(np.arange(-3, 4, 0.01)[errors.argmin()]) <= 2
    folded = resampled((0.5 * np.sin(2 * np.pi * 15_000 * seconds)).astype(np.float32), [], source=48_000, quality="soxr-VR")
    assert np.abs(folded[1000:-1000]).max() < 1e-4
    assert best.shape == ours.shape
