import itertools
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from musichal.audio.slices import render_slices
from musichal.note import Slice

AUDIO = Path(__file__).parent / "audio"
RATE = 44100
FADE_S = 0.01


@pytest.fixture(scope="module")
def guitar():
    samples, rate = soundfile.read(AUDIO / "rock140_guitar.ogg", dtype="float32")
    assert rate == RATE
    return samples[: 20 * RATE]


def sine(hz, seconds, rate=RATE):
    return np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate).astype(np.float32)


def roughness(samples):
    """Largest fourth difference: 1 for a jump of 1, next to nothing for anything smooth."""
    return np.abs(np.diff(samples.astype(np.float64), 4)).max()


def pitch_hz(samples, rate):
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 8 * len(samples)))
    return spectrum.argmax() * rate / (8 * len(samples))


def test_slices_that_run_on_reproduce_the_recording(guitar):
    starts = np.cumsum([0.0, 0.35, 0.35, 0.1234567, 0.7, 0.004, 0.9, 0.35])
    events = [Slice(t, d, 0, 2 + t) for t, d in zip(starts[:-1], np.diff(starts), strict=True)]
    out = render_slices(events, [(guitar, RATE)], sample_rate_hz=RATE, fade_s=FADE_S)
    fade = round(FADE_S * RATE)
    inside = slice(fade, len(out) - fade)
    np.testing.assert_array_equal(out[inside], guitar[2 * RATE : 2 * RATE + len(out)][inside])
    assert len(out) == round(starts[-1] * RATE)


def test_a_jump_to_the_same_sound_keeps_its_level():
    # 441 Hz repeats every 100 samples: the slices do not run on in the recording, but their sound does.
    tone = sine(441, 4)
    events = [Slice(k * 0.5, 0.5, 0, (22100 + 22550 * k) / RATE) for k in range(5)]
    out = render_slices(events, [(tone, RATE)], sample_rate_hz=RATE, fade_s=FADE_S)
    np.testing.assert_allclose(out[1000:-1000], tone[1000 : len(out) - 1000], atol=2e-4)


def test_unrelated_sounds_are_joined_at_constant_power():
    noise = np.random.default_rng(0).standard_normal(60 * RATE).astype(np.float32)
    events = [Slice(0.05 * k, 0.05, 0, (7.3 * k) % 59) for k in range(400)]
    out = render_slices(events, [(noise, RATE)], sample_rate_hz=RATE, fade_s=FADE_S)
    slot, fade = round(0.05 * RATE), round(FADE_S * RATE)
    power = (out.reshape(-1, slot)[1:-1] ** 2).mean(axis=0)
    joins = power[-fade:].reshape(-1, fade // 9).mean(axis=1)
    np.testing.assert_allclose(10 * np.log10(joins), 0, atol=0.25)


def test_joins_do_not_click(guitar):
    rng = np.random.default_rng(1)
    edges = np.cumsum(rng.uniform(0.08, 0.5, 40))
    events = [Slice(a, b - a, 0, float(rng.uniform(0, 18))) for a, b in itertools.pairwise(edges)]
    tone = sine(110, 20) * np.float32(0.8)
    out = render_slices(events, [(tone, RATE)], sample_rate_hz=RATE, fade_s=FADE_S)
    hard = np.concatenate([tone[round(e.source_start_s * RATE) :][: round(e.duration_s * RATE)] for e in events])
    assert roughness(out) < 2e-3
    assert roughness(hard) > 0.3
    # On real music: what the joins add above 10 kHz, where a click shows and this guitar does not.
    out = render_slices(events, [(guitar, RATE)], sample_rate_hz=RATE, fade_s=FADE_S)
    sos = scipy.signal.butter(6, 10_000, "high", fs=RATE, output="sos")
    high, own = np.abs(scipy.signal.sosfilt(sos, out)), np.abs(scipy.signal.sosfilt(sos, guitar))
    assert high.max() <= 1.05 * own.max()


def test_the_attack_is_at_full_level_at_the_onset(guitar):
    out = render_slices([Slice(1.0, 0.5, 0, 3.0, 0.0, 0.5)], [(guitar, RATE)], sample_rate_hz=RATE, fade_s=FADE_S)
    whole = slice(RATE, RATE + round(0.49 * RATE) - 1)
    np.testing.assert_array_equal(out[whole], 0.5 * guitar[3 * RATE :][: whole.stop - whole.start])
    assert not out[: RATE - round(FADE_S * RATE)].any()
    assert abs(out[-1]) < 1e-4


@pytest.mark.parametrize("semitones", [-12, -5, 1, 7, 12, 0.5])
@pytest.mark.parametrize("source_rate", [24000, 48000])
def test_a_transposition_changes_pitch_and_not_duration(semitones, source_rate):
    tone = sine(440, 6, source_rate)
    event = Slice(0.25, 1.5, 0, 1.0, semitones)
    out = render_slices([event], [(tone, source_rate)], sample_rate_hz=RATE)
    assert len(out) == round(1.75 * RATE)
    heard = pitch_hz(out[round(0.3 * RATE) : round(1.7 * RATE)], RATE)
    assert 1200 * np.log2(heard / (440 * 2 ** (semitones / 12))) == pytest.approx(0, abs=2)
    assert np.abs(out[round(0.3 * RATE) : round(1.7 * RATE)]).max() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("semitones", [-12.0, 0.0, 5.0, 12.0])
@pytest.mark.parametrize("source_rate", [24000, 44100, 96000])
def test_what_is_at_the_source_start_sounds_at_the_onset(semitones, source_rate):
    click = np.zeros(5 * source_rate, np.float32)
    click[2 * source_rate] = 1
    out = render_slices([Slice(1.0, 1.0, 0, 2.0, semitones)], [(click, source_rate)], sample_rate_hz=RATE)
    assert abs(int(np.abs(out).argmax()) - RATE) <= 1
    ratio = 2 ** (semitones / 12)
    out = render_slices([Slice(1.0, 1.0, 0, 2.0 - 0.5 * ratio, semitones)], [(click, source_rate)], sample_rate_hz=RATE)
    assert abs(int(np.abs(out).argmax()) - round(1.5 * RATE)) <= 1


def test_transposed_slices_that_run_on_are_one(guitar):
    ratio = 2 ** (3 / 12)
    cut = [Slice(0.5 + 0.35 * k, 0.35, 0, 1 + 0.35 * k * ratio, 3.0) for k in range(8)]
    whole = [Slice(0.5, 0.35 * 8, 0, 1.0, 3.0)]
    np.testing.assert_array_equal(
        render_slices(cut, [(guitar, RATE)], sample_rate_hz=RATE), render_slices(whole, [(guitar, RATE)], sample_rate_hz=RATE)
    )


def test_a_slice_stops_at_the_end_of_its_recording_without_a_click():
    tone = sine(110, 2)
    out = render_slices([Slice(0.5, 3.0, 0, 1.5)], [(tone, RATE)], sample_rate_hz=RATE)
    assert len(out) == RATE
    assert roughness(out) < 2e-3
    assert len(render_slices([Slice(0.5, 3.0, 0, 1.5, 12.0)], [(tone, RATE)], sample_rate_hz=RATE)) == 0.75 * RATE
    # The gap of 5 ms behind the end is closed, with a fade that has only 5 ms of the recording left.
    pair = [Slice(0.5, 3.0, 0, 0.5), Slice(1.005, 0.5, 0, 0.1)]
    out = render_slices(pair, [(np.ones(RATE, np.float32), RATE)], sample_rate_hz=RATE)
    assert roughness(out) < 2e-3
    assert len(render_slices([Slice(0.5, 3.0, 0, 2.5)], [(tone, RATE)], sample_rate_hz=RATE)) == 0
    out = render_slices([Slice(0.0, 1.0, 0, 0.0)], [(np.ones(RATE, np.float32), RATE)], sample_rate_hz=RATE)
    assert roughness(np.pad(out, 5)) < 2e-3


def test_overlapping_slices_are_cut_where_the_next_starts(guitar):
    out = render_slices([Slice(0.5, 5.0, 0, 1.0), Slice(1.5, 0.5, 0, 8.0)], [(guitar, RATE)], sample_rate_hz=RATE)
    assert len(out) == 2 * RATE
    np.testing.assert_array_equal(out[round(1.5 * RATE) : round(1.98 * RATE)], guitar[8 * RATE : 8 * RATE + round(0.48 * RATE)])


def test_what_cannot_be_played_is_refused(guitar):
    event = Slice(0.0, 1.0, 1, 0.0)
    with pytest.raises(ValueError, match="unknown recording 1"):
        render_slices([event], [(guitar, RATE)], sample_rate_hz=RATE)
    with pytest.raises(ValueError, match="mono"):
        render_slices([], [(guitar[:, None], RATE)], sample_rate_hz=RATE)
    with pytest.raises(ValueError, match="fade_s"):
        render_slices([], [], sample_rate_hz=RATE, fade_s=0)
    assert render_slices([], [], sample_rate_hz=RATE).shape == (0,)


slices = st.builds(
    Slice,
    onset_s=st.floats(0, 2) | st.sampled_from([0.0, 0.001, 0.5]),
    duration_s=st.floats(1e-6, 2) | st.sampled_from([0.01, 0.5]),
    recording=st.integers(0, 1),
    source_start_s=st.floats(0, 4) | st.sampled_from([0.0, 0.5, 1.0]),
    transposition_semitones=st.sampled_from([0.0, -24.0, 24.0]) | st.floats(-24, 24),
    gain=st.floats(0, 1),
)


@given(st.lists(slices, max_size=8), st.sampled_from([8000, 24000, 48000]), st.floats(1e-6, 0.1))
def test_any_slices_give_smooth_finite_sound_of_the_right_length(events, rate, fade_s):
    recordings = [(sine(60, 3, 8000), 8000), (sine(50, 1, 24000), 24000)]
    out = render_slices(events, recordings, sample_rate_hz=rate, fade_s=fade_s)
    assert np.isfinite(out).all()
    assert len(out) <= round(max((e.onset_s + e.duration_s for e in events), default=0) * rate)
    # A cross-fade of two signals of level 1 has at most √2.
    assert np.abs(out).max(initial=0) <= 1.45
    if events and fade_s >= 0.01:
        assert np.abs(np.diff(out, prepend=0, append=0)).max(initial=0) < 0.12 * 48000 / rate
