"""The pitch view: bin 0 is C, levels scale, frames are where the grid says, and nothing depends on the past."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import scores
from musichal.hearing.percepts import LOWEST_PITCH, N_PITCHES
from musichal.hearing.pitch import PitchAnalyser, PitchSettings, ShortTime, fold
from musichal.spec import PerceptionSpec

SPEC = PerceptionSpec()
RATE = SPEC.sample_rate_hz
LENGTH = SPEC.window_samples
ANALYSER = PitchAnalyser(SPEC)
NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


def tones(*midi: float, n: int = LENGTH, rate: int = RATE, harmonics: int = 8) -> np.ndarray:
    time_s = np.arange(n) / rate
    out = np.zeros(n)
    for number in midi:
        hz = 440 * 2 ** ((number - 69) / 12)
        for k in range(1, harmonics + 1):
            if k * hz < 0.45 * rate:
                out += 0.7**k * np.sin(2 * np.pi * k * hz * time_s + k)
    return (0.1 * out).astype(np.float32)


@pytest.mark.parametrize("pitch", range(40, 89, 3))
def test_single_notes(pitch: int) -> None:
    frames = ANALYSER.analyse(tones(pitch))
    assert frames.chroma.shape == (26, 12)
    assert frames.salience.shape == (26, N_PITCHES)
    assert set(frames.chroma.argmax(axis=1)) == {pitch % 12}
    assert set(frames.salience.argmax(axis=1)) == {pitch - LOWEST_PITCH}


@pytest.mark.parametrize("root", range(12), ids=NAMES)
@pytest.mark.parametrize("intervals", [(0, 4, 7), (0, 3, 7)], ids=["major", "minor"])
def test_chords_on_every_pitch_class(root: int, intervals: tuple[int, ...]) -> None:
    chroma = ANALYSER.analyse(tones(*(60 + root + i for i in intervals))).chroma[13]
    assert set(np.argsort(chroma)[-3:]) == {(root + i) % 12 for i in intervals}


def test_bin_0_is_c() -> None:
    salience = np.zeros((1, N_PITCHES), np.float32)
    salience[0, 60 - LOWEST_PITCH] = 1
    np.testing.assert_array_equal(fold(salience)[0], np.eye(12, dtype=np.float32)[0])
    assert ANALYSER.analyse(tones(60)).chroma[13].argmax() == 0


@pytest.mark.parametrize("instrument", scores.INSTRUMENTS, ids=lambda i: i.name)
def test_rendered_notes_on_every_pitch_class(instrument: scores.Instrument) -> None:
    notes = tuple(scores.ScoreNote(0.9 * i, 0.85, 60 + 12 * instrument.octaves + i, 90, instrument.program) for i in range(12))
    samples = scores.render_notes(notes)
    found = []
    for note in notes:
        first = round((note.onset_s + 0.1) * RATE)
        found.append(int(ANALYSER.analyse(samples[first : first + LENGTH]).chroma[8].argmax()))
    assert sum(a == n.pitch % 12 for a, n in zip(found, notes, strict=True)) >= 11


@pytest.mark.parametrize("cents", [-35, -20, 20, 35])
@pytest.mark.parametrize("pitch", [48, 55, 62, 69, 76, 83])
def test_detuned_notes_keep_their_pitch_class(pitch: int, cents: int) -> None:
    frames = ANALYSER.analyse(tones(pitch + cents / 100))
    assert frames.chroma[13].argmax() == pitch % 12


@given(gain=st.floats(1e-3, 8.0), pitch=st.integers(45, 84))
def test_levels_scale_and_shape_does_not_change(gain: float, pitch: int) -> None:
    quiet, loud = ANALYSER.analyse(tones(pitch)), ANALYSER.analyse(np.float32(gain) * tones(pitch))
    factor = gain ** PitchSettings().compression
    np.testing.assert_allclose(loud.salience, factor * quiet.salience, rtol=1e-3, atol=1e-4 * factor)


@given(seed=st.integers(0, 2**32 - 1), level=st.sampled_from([0.0, 1e-30, 1e-6, 1.0, 1e4]))
def test_any_sound_gives_finite_non_negative_frames_and_leaves_no_trace(seed: int, level: float) -> None:
    noise = (level * np.random.default_rng(seed).standard_normal(LENGTH)).astype(np.float32)
    first, _, again = ANALYSER.analyse(noise), ANALYSER.analyse(tones(50)), ANALYSER.analyse(noise)
    for name in ("spectrum", "salience", "chroma"):
        values = getattr(first, name)
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
        assert (values >= 0).all()
        np.testing.assert_array_equal(values, getattr(again, name))


def test_silence_is_zero() -> None:
    frames = ANALYSER.analyse(np.zeros(LENGTH, np.float32))
    assert not frames.spectrum.any()
    assert not frames.salience.any()
    assert not frames.chroma.any()


def test_a_change_of_notes_is_heard_where_it_is() -> None:
    change = SPEC.context_samples + 4000
    samples = np.concatenate([tones(64)[:change], tones(69)[change:]])
    heard = ANALYSER.analyse(samples).chroma.argmax(axis=1)
    switch = int(np.flatnonzero(heard == 9)[0])
    assert set(heard[:switch]) == {4}
    assert set(heard[switch:]) == {9}
    assert abs(320 * switch + 200 - 4000) <= 960  # 40 ms


@pytest.mark.parametrize(
    ("rate", "segment", "context"), [(24000, 2400, 0), (24000, 24000, 1000), (16000, 5600, 5600), (44100, 15435, 7000)]
)
def test_other_windows_and_rates(rate: int, segment: int, context: int) -> None:
    spec = PerceptionSpec(
        sample_rate_hz=rate, segment_samples=segment, hop_samples=segment, context_samples=context,
        min_segment_samples=2400,
    )  # fmt: skip
    frames = PitchAnalyser(spec).analyse(tones(69, n=spec.window_samples, rate=rate))
    n = (segment - 400) // 320 + 1
    assert frames.chroma.shape == (n, 12)
    assert frames.chroma[n // 2].argmax() == 9


def test_frames_are_centred_on_the_grid() -> None:
    view = ShortTime(SPEC, length_samples=1024, ahead_samples=0, right_samples=300)
    for frame in (0, 7, 20):
        click = np.zeros(LENGTH, np.float32)
        click[SPEC.context_samples + 320 * frame + 200] = 1
        assert view.magnitudes(click)[:, 100].argmax() == frame


def test_a_steady_tone_does_not_fade_towards_the_end_of_the_segment() -> None:
    view = ShortTime(SPEC, length_samples=2048, ahead_samples=240, right_samples=600)
    samples = np.sin(2 * np.pi * 1500 / RATE * np.arange(LENGTH)).astype(np.float32)
    np.testing.assert_allclose(view.magnitudes(samples)[:, 128], 1, atol=0.05)


def test_samples_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match=f"expected {LENGTH} samples"):
        ANALYSER.analyse(np.zeros(8400, np.float32))


@pytest.mark.parametrize(
    "change",
    [
        {"compression": 0.6},
        {"whitening_bins": 37},
        {"steady_frames": 1},
        {"ahead_samples": 0},
        {"right_samples": 2400},
        {"harmonic_weights": (1.0,)},
        {"side_weight": 0.0},
        {"bands": ((4096, 0),)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_settings_are_used(change: dict) -> None:
    other = PitchAnalyser(SPEC, dataclasses.replace(PitchSettings(), **change))
    samples = tones(57, 64) + np.random.default_rng(1).normal(0, 0.02, LENGTH).astype(np.float32)
    assert (other.analyse(samples).salience != ANALYSER.analyse(samples).salience).any()
