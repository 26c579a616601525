"""Harmonic-percussive separation: sounds come out, not masks."""

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.lib.stride_tricks import sliding_window_view

from musichal.arrays import Float32
from musichal.hearing.separation import running_median, separate
from musichal.spec import SeparationSpec

RATE = 24000


def correlation(a: Float32, b: Float32) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def sdr_db(reference: Float32, estimate: Float32) -> float:
    """Return the scale-invariant signal-to-distortion ratio (Le Roux et al., ICASSP 2019)."""
    target = reference * (np.dot(estimate, reference) / np.dot(reference, reference))
    return float(10 * np.log10(np.sum(target**2) / np.sum((estimate - target) ** 2)))


@pytest.fixture(scope="module")
def chord() -> Float32:
    t = np.arange(2 * RATE) / RATE
    return (sum(0.15 * np.sin(2 * np.pi * f * t) for f in (220, 277.2, 329.6, 660))).astype(np.float32)


@pytest.fixture(scope="module")
def clicks() -> Float32:
    rng = np.random.default_rng(1)
    out = np.zeros(2 * RATE, dtype=np.float32)
    for start in range(2400, len(out) - 1000, 6000):
        out[start : start + 480] = 0.5 * rng.standard_normal(480) * np.exp(-np.arange(480) / 80)
    return out


def clip(path: str, *, start_s: float = 8.0, length_s: float = 8.0) -> Float32:
    samples, rate = soundfile.read(path, dtype="float32", start=int(44100 * start_s), frames=int(44100 * length_s))
    assert rate == 44100
    return np.asarray(soxr.resample(samples, rate, RATE), dtype=np.float32)


def test_sustained_sound_and_hits_come_apart(chord: Float32, clicks: Float32) -> None:
    stems = separate(chord + clicks, SeparationSpec())
    assert sdr_db(chord, stems.harmonic) > 20
    assert sdr_db(clicks, stems.percussive) > 10
    assert correlation(stems.harmonic, clicks) < 0.1
    assert correlation(stems.percussive, chord) < 0.1


def test_stems_are_sounds_not_masks(chord: Float32, clicks: Float32) -> None:
    """Transforming a mask back, as `librosa.effects.hpss(mask=True)` does, gives a click at each frame: correlation 0."""
    mix = chord + clicks
    stems = separate(mix, SeparationSpec())
    assert correlation(stems.harmonic, chord) > 0.99
    assert correlation(stems.percussive, clicks) > 0.95
    # Loudness follows the sound: a mask knows none.
    quiet = separate(mix * np.float32(0.01), SeparationSpec())
    np.testing.assert_allclose(quiet.harmonic, stems.harmonic * 0.01, atol=1e-5)


@pytest.mark.parametrize("song", ["rock140", "ballad95"])
def test_the_guitar_goes_to_the_harmonic_stem_of_a_real_mix(audio_dir: object, song: str) -> None:
    guitar, backing = (clip(f"{audio_dir}/{song}_{part}.ogg") for part in ("guitar", "backing"))
    stems = separate(guitar + backing, SeparationSpec())
    assert sdr_db(guitar, stems.harmonic) > sdr_db(guitar, stems.percussive) + 5
    energy = [float(np.sum(s**2)) for s in (stems.harmonic, stems.percussive)]
    own = separate(guitar, SeparationSpec())
    assert np.sum(own.harmonic**2) > 4 * np.sum(own.percussive**2)
    assert min(energy) > 0.01 * max(energy)


@pytest.mark.slow
def test_agrees_with_librosa(rock_mix: object) -> None:
    librosa = pytest.importorskip("librosa")
    samples = clip(str(rock_mix), length_s=2.0)[: 512 * 80]
    spectrum = librosa.stft(samples, n_fft=2048, hop_length=512, pad_mode="constant")
    for margins in ((1.0, 1.0), (2.0, 3.0)):
        expected = librosa.decompose.hpss(spectrum, kernel_size=(17, 31), margin=margins)
        stems = separate(samples, SeparationSpec(margin_harmonic=margins[0], margin_percussive=margins[1]))
        for stem, peer in zip((stems.harmonic, stems.percussive), expected, strict=True):
            np.testing.assert_allclose(stem, librosa.istft(peer, hop_length=512, length=len(samples)), atol=2e-5)


sounds = hnp.arrays(np.float32, st.integers(1, 9000), elements=st.floats(-1, 1, width=32), fill=st.just(0.25))


@given(sounds)
def test_stems_add_up_to_the_input(samples: Float32) -> None:
    stems = separate(samples, SeparationSpec())
    for stem in (stems.harmonic, stems.percussive):
        assert stem.shape == samples.shape
        assert stem.dtype == np.float32
        assert np.isfinite(stem).all()
    np.testing.assert_allclose(stems.harmonic + stems.percussive, samples, atol=3e-5)


@given(sounds, st.floats(1.5, 5), st.floats(1.5, 5))
def test_margins_leave_a_residual_and_never_add_energy(samples: Float32, harmonic: float, percussive: float) -> None:
    plain = separate(samples, SeparationSpec())
    strict = separate(samples, SeparationSpec(margin_harmonic=harmonic, margin_percussive=percussive))
    for stem, loose in zip((strict.harmonic, strict.percussive), (plain.harmonic, plain.percussive), strict=True):
        assert np.isfinite(stem).all()
        assert np.sum(stem.astype(np.float64) ** 2) <= np.sum(loose.astype(np.float64) ** 2) * 1.5 + 1e-6


def test_margins_leave_noise_out_of_both_stems() -> None:
    noise = (0.1 * np.random.default_rng(0).standard_normal(RATE)).astype(np.float32)
    stems = separate(noise, SeparationSpec(margin_harmonic=3.0, margin_percussive=3.0))
    residual = noise - stems.harmonic - stems.percussive
    assert np.sum(residual**2) > 0.5 * np.sum(noise**2)


def test_silence_stays_silence() -> None:
    stems = separate(np.zeros(16_800, dtype=np.float32), SeparationSpec())
    assert not stems.harmonic.any()
    assert not stems.percussive.any()


def test_a_constant_is_harmonic() -> None:
    stems = separate(np.full(16_800, 0.25, dtype=np.float32), SeparationSpec())
    np.testing.assert_allclose(stems.harmonic[4000:-4000], 0.25, atol=0.01)


def test_the_first_and_last_samples_are_whole(chord: Float32) -> None:
    part = chord[:16_800]
    stems = separate(part, SeparationSpec())
    both = stems.harmonic + stems.percussive
    np.testing.assert_allclose(both[[0, 1, -2, -1]], part[[0, 1, -2, -1]], atol=1e-5)


def test_one_window_does_not_change_another(chord: Float32, clicks: Float32) -> None:
    spec = SeparationSpec()
    before = separate(chord[:16_800], spec)
    separate(clicks[:9000], spec)
    separate(clicks[:16_800], spec)
    after = separate(chord[:16_800], spec)
    assert before.harmonic.tobytes() == after.harmonic.tobytes()
    assert before.percussive.tobytes() == after.percussive.tobytes()


def test_the_input_is_left_alone(chord: Float32) -> None:
    samples = chord[:16_800].copy()
    samples.flags.writeable = False
    separate(samples, SeparationSpec())
    np.testing.assert_array_equal(samples, chord[:16_800])


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 70), st.integers(1, 70)), elements=st.floats(0, 1000, width=32)),
    st.integers(1, 31).map(lambda half: 2 * half + 1),
    st.sampled_from((0, 1)),
)
def test_running_medians_are_the_medians_of_the_mirrored_windows(values: Float32, kernel: int, axis: int) -> None:
    # SciPy 1.18's median_filter mirrors wrongly where a kernel is many times longer than the array: 17 values around [1, 0].
    edges = [(0, 0), (0, 0)]
    edges[axis] = (kernel // 2, kernel // 2)
    windows = sliding_window_view(np.pad(values, edges, mode="symmetric"), kernel, axis=axis)
    assert np.array_equal(running_median(values, kernel, axis=axis), np.median(windows, axis=-1))
