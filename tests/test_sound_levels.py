import io
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from musichal.audio.files import write_sound
from musichal.audio.levels import CEILING_DB, FLOOR_DB, LOUDNESS_DB, LevelMeter, at_loudness, gated_rms_db, mix
from musichal.errors import InputError

AUDIO = Path(__file__).parent / "audio"
RATE = 44100


@pytest.fixture(scope="module")
def stems():
    return [soundfile.read(AUDIO / f"rock140_{name}.ogg", dtype="float32")[0] for name in ("guitar", "backing")]


def db(samples):
    return 10 * np.log10(np.mean(np.square(samples, dtype=np.float64)) + 1e-20)


NOTHING = np.zeros(0, np.float32)
RATES = {"player_rate_hz": RATE, "answer_rate_hz": RATE}


def test_the_player_is_left_and_the_answer_right_at_constant_power(stems):
    player, answer = (0.2 * stem for stem in stems)
    alone, other = mix(player, NOTHING, **RATES), mix(NOTHING, answer, **RATES)
    for part, source, loud, soft in ((alone, player, 0, 1), (other, answer, 1, 0)):
        assert db(part[:, loud]) - db(part[:, soft]) == pytest.approx(-20 * np.log10(np.tan(0.3 * np.pi / 4)), abs=1e-3)
        assert db(part) == pytest.approx(db(source), abs=0.01)
    both = mix(player, answer, **RATES)
    np.testing.assert_allclose(both, alone + other, atol=1e-6)
    # A file of one channel is played in two.
    np.testing.assert_array_equal(mix(np.stack([player, player], 1), answer, **RATES), both)


def test_too_loud_is_turned_down_to_the_ceiling_and_the_balance_stays(stems):
    player, answer = stems
    held, free = mix(player, 4 * answer, **RATES), 10 * mix(0.1 * player, 0.4 * answer, **RATES)
    assert np.abs(free).max() > 1
    assert 20 * np.log10(np.abs(held).max()) == pytest.approx(-1, abs=1e-4)
    assert np.abs(held).max() <= 10 ** (-1 / 20)
    np.testing.assert_allclose(held, free * (np.abs(held).max() / np.abs(free).max()), atol=1e-6)


def test_rates_and_lengths_are_brought_together():
    t = np.arange(24000) / 24000
    tone = (0.5 * np.sin(2 * np.pi * 1000 * t)).astype(np.float32)
    both = mix(tone, np.zeros((2 * 48000, 2), np.float32), player_rate_hz=24000, answer_rate_hz=48000, sample_rate_hz=44100)
    assert both.shape == (2 * 44100, 2)
    assert both.dtype == np.float32
    assert np.abs(np.fft.rfft(both[:44100, 0])).argmax() == 1000
    assert not both[44200:].any()
    assert mix(NOTHING, NOTHING, **RATES).shape == (0, 2)
    with pytest.raises(ValueError, match="finite"):
        mix(np.array([0, np.nan], np.float32), NOTHING, **RATES)


@given(
    hnp.arrays(np.float32, st.integers(0, 400), elements=st.floats(-1e6, 1e6, width=32)),
    hnp.arrays(np.float32, st.tuples(st.integers(0, 400), st.just(2)), elements=st.floats(-8, 8, width=32)),
    st.sampled_from([8000, 44100]),
)
def test_no_mix_exceeds_the_ceiling(player, answer, rate):
    both = mix(player, answer, player_rate_hz=rate, answer_rate_hz=44100)
    assert np.abs(both).max(initial=0) <= 10 ** (-1 / 20)
    assert both.shape[1] == 2


def test_loudness_is_that_of_the_sounding_parts():
    tone = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE).astype(np.float32)
    assert gated_rms_db(tone, sample_rate_hz=RATE) == pytest.approx(-3.0103, abs=1e-3)
    with_rest = np.concatenate([tone, np.zeros(3 * RATE, np.float32)])
    assert gated_rms_db(with_rest, sample_rate_hz=RATE) == pytest.approx(-3.0103, abs=1e-3)
    quieter = np.concatenate([tone, 10 ** (-39 / 20) * tone])  # still within the gate: half the power
    assert gated_rms_db(quieter, sample_rate_hz=RATE) == pytest.approx(-6.02, abs=1e-2)
    too_quiet = np.concatenate([tone, 10 ** (-41 / 20) * tone])
    assert gated_rms_db(too_quiet, sample_rate_hz=RATE) == pytest.approx(-3.0103, abs=1e-3)
    twice = np.stack([tone, tone], 1)
    assert gated_rms_db(twice, sample_rate_hz=RATE) == pytest.approx(-3.0103, abs=1e-3)
    assert gated_rms_db(tone[:30], sample_rate_hz=RATE) == pytest.approx(db(tone[:30]))  # shorter than a block


@pytest.mark.parametrize("gain_db", [-30, -7, 20])
def test_real_music_comes_to_the_nominal_loudness_from_any(stems, gain_db):
    for stem in stems:
        changed = stem * np.float32(10 ** (gain_db / 20))
        loud = at_loudness(changed, sample_rate_hz=RATE)
        assert np.abs(loud).max() <= 10 ** (CEILING_DB / 20)
        assert gated_rms_db(loud, sample_rate_hz=RATE) == pytest.approx(LOUDNESS_DB, abs=1e-3)
        assert np.corrcoef(loud, stem)[0, 1] == pytest.approx(1, abs=1e-6)


def test_peaks_come_before_loudness_and_silence_and_hiss_stay():
    clicks = np.zeros(RATE, np.float32)
    clicks[::2205] = 0.01
    loud = at_loudness(clicks, sample_rate_hz=RATE)
    assert 20 * np.log10(loud.max()) == pytest.approx(-1, abs=1e-4)
    assert gated_rms_db(loud, sample_rate_hz=RATE) < LOUDNESS_DB - 10
    for nothing in (np.zeros(0, np.float32), np.zeros((RATE, 2), np.float32)):
        np.testing.assert_array_equal(at_loudness(nothing, sample_rate_hz=RATE), nothing)
    hiss = (1e-5 * np.random.default_rng(0).standard_normal(RATE)).astype(np.float32)
    np.testing.assert_allclose(at_loudness(hiss, sample_rate_hz=RATE), 100 * hiss, rtol=1e-6)
    with pytest.raises(ValueError, match="finite"):
        at_loudness(np.array([0, np.inf], np.float32), sample_rate_hz=RATE)


@given(
    hnp.arrays(
        np.float32, st.tuples(st.integers(0, 900), st.integers(1, 2)), elements=st.floats(-(2.0**100), 2.0**100, width=32)
    ),
    st.sampled_from([1, 8000, 44100]),
)
def test_loudness_never_exceeds_what_was_asked_for(samples, rate):
    loud = at_loudness(samples, sample_rate_hz=rate)
    assert loud.shape == samples.shape and loud.dtype == np.float32
    assert np.abs(loud).max(initial=0) <= 10 ** (CEILING_DB / 20)
    loudness_db = gated_rms_db(loud, sample_rate_hz=rate)
    assert loudness_db is None or loudness_db <= LOUDNESS_DB + 1e-3


@pytest.mark.parametrize("channels", [1, 2])
def test_a_wav_file_holds_the_samples_to_24_bits(tmp_path, stems, channels):
    samples = stems[0][:RATE] if channels == 1 else np.stack([s[:RATE] for s in stems], axis=1)
    write_sound(tmp_path / "a.wav", samples, sample_rate_hz=RATE)
    read, rate = soundfile.read(tmp_path / "a.wav")
    info = soundfile.info(tmp_path / "a.wav")
    assert (rate, info.channels, info.subtype) == (RATE, channels, "PCM_24")
    np.testing.assert_allclose(read, samples, atol=2**-22)
    first = (tmp_path / "a.wav").read_bytes()
    write_sound(tmp_path / "a.wav", samples, sample_rate_hz=RATE)
    assert (tmp_path / "a.wav").read_bytes() == first


def test_a_wav_file_clips_what_it_cannot_hold_and_takes_nothing_at_all(tmp_path):
    write_sound(tmp_path / "a.wav", np.array([-3, -1, 0, 1, 3], np.float32), sample_rate_hz=8000)
    np.testing.assert_allclose(soundfile.read(tmp_path / "a.wav")[0], [-1, -1, 0, 1, 1], atol=2**-22)
    write_sound(tmp_path / "b.wav", np.zeros((0, 2), np.float32), sample_rate_hz=8000)
    assert soundfile.info(tmp_path / "b.wav").frames == 0


def test_a_path_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match="cannot write"):
        write_sound(tmp_path / "nowhere" / "a.wav", np.zeros(5, np.float32), sample_rate_hz=8000)
    with pytest.raises(InputError, match="folder"):
        write_sound(tmp_path, np.zeros(5, np.float32), sample_rate_hz=8000)
    with pytest.raises(ValueError, match="finite"):
        write_sound(tmp_path / "a.wav", np.array([np.inf], np.float32), sample_rate_hz=8000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux" or not Path("/dev/full").exists(), reason="needs a disk that is full")
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    import musichal.atomic

    path = tmp_path / "a.wav"
    path.write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(musichal.atomic.Path, "open", lambda self, mode: io.open("/dev/full", "wb"))  # noqa: SIM115, UP020
        with pytest.raises(InputError, match="disk is full"):
            write_sound(path, np.zeros(100_000, np.float32), sample_rate_hz=8000)
    assert path.read_bytes() == b"old"


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
    assert (levels.clipped, levels.samples) == (0, 48_000)
    assert measure(sine / 100).peak_db == pytest.approx(-40, abs=0.001)


def test_silence_and_nothing():
    for samples in (np.zeros((100, 2), np.float32), np.zeros((0, 2), np.float32)):
        levels = measure(samples)
        assert (levels.peak_db, levels.rms_db, levels.peak) == (FLOOR_DB, FLOOR_DB, 0)


def test_the_peak_is_that_of_any_channel_and_the_rms_that_of_what_is_heard():
    """Two channels that cancel one another are loud, and inaudible."""
    levels = measure(np.tile(np.array([0.5, -0.5], np.float32), (100, 1)))
    assert levels.peak_db == pytest.approx(-6.02, abs=0.01)
    assert levels.rms_db == FLOOR_DB


@pytest.mark.parametrize(("run", "clipped"), [(1, 0), (2, 0), (3, 1), (7, 5)])
def test_clipping_is_what_stays_at_full_scale(run, clipped):
    samples = np.full((100, 1), 0.5, np.float32)
    samples[40 : 40 + run] = -1.0
    assert measure(samples).clipped == clipped


@given(seed=st.integers(0, 99), cuts=st.lists(st.integers(0, 400), max_size=8))
def test_it_does_not_matter_how_it_was_cut(seed, cuts):
    rng = np.random.default_rng(seed)
    samples = np.clip(rng.normal(size=(400, 2)), -1, 1).astype(np.float32)
    whole, parts = measure(samples), measure(samples, cuts)
    assert (parts.peak_db, parts.clipped, parts.samples) == (whole.peak_db, whole.clipped, 400)
    assert parts.rms_db == pytest.approx(whole.rms_db, abs=1e-9)


def test_asking_starts_again():
    meter = LevelMeter()
    loud = np.ones((10, 1), np.float32)
    meter.see(loud, loud[:, 0])
    assert meter.take().clipped == 8
    assert meter.take().samples == 0
