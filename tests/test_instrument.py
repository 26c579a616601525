"""The instrument without a data file: in tune, as loud as asked, finite, and silent after release."""

import importlib.util
import sys

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from musichal.audio import instrument
from musichal.audio.instrument import EmbeddedInstrument, find_instrument, find_soundfont, render_notes
from musichal.audio.soundfont import SoundFont
from musichal.cli import app
from musichal.errors import InputError
from musichal.note import Note

RATE = 44100
PIANO, BASS = 4, 33


def render(*notes, program=PIANO, rate=RATE):
    return render_notes(notes, EmbeddedInstrument(), sample_rate_hz=rate, programs={0: program})


def rms(samples):
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def spectrum(samples, pad=8):
    return np.abs(np.fft.rfft(samples * np.hanning(len(samples)), pad * len(samples)))


@pytest.mark.parametrize(("program", "rate"), [(PIANO, 44100), (PIANO, 48000), (BASS, 44100), (0, 22050)])
@pytest.mark.parametrize("pitch", [21, 33, 48, 60, 69, 83, 96, 108])
def test_every_note_is_within_a_cent(pitch, program, rate):
    tone = render(Note(0.0, 2.0, pitch, 100), program=program, rate=rate)[: 2 * rate].mean(axis=1)
    expected_hz, bins_per_hz = 440 * 2 ** ((pitch - 69) / 12), 16
    power = spectrum(tone)
    low = int(0.95 * expected_hz * bins_per_hz)
    peak = low + power[low : int(1.05 * expected_hz * bins_per_hz)].argmax()
    below, at, above = np.log(power[peak - 1 : peak + 2])
    heard_hz = (peak + 0.5 * (below - above) / (below - 2 * at + above)) / bins_per_hz
    assert abs(1200 * np.log2(heard_hz / expected_hz)) < 1


@pytest.mark.parametrize("pitch", [60, 84, 100, 108])
def test_a_high_hard_note_does_not_alias(pitch):
    tone = render(Note(0.0, 1.0, pitch, 127))[4410:RATE].mean(axis=1).astype(np.float64)
    power = spectrum(tone, 1) ** 2
    f0 = 440 * 2 ** ((pitch - 69) / 12) * len(tone) / RATE
    harmonics = np.arange(len(power)) / f0
    off = np.abs(harmonics - np.round(harmonics)) * f0 > 8
    off &= np.abs(harmonics - 7.1) * f0 > 40  # the bell partial is meant
    assert 10 * np.log10(power[off].sum() / power.sum()) < -55


@pytest.mark.parametrize("program", [PIANO, BASS])
def test_velocity_makes_louder_and_brighter(program):
    tones = [render(Note(0.0, 0.5, 48, v), program=program)[: RATE // 2].mean(axis=1) for v in range(1, 128, 9)]
    assert all(after > 1.05 * before for before, after in zip(map(rms, tones), map(rms, tones[1:]), strict=False))

    def centroid(tone):
        power = spectrum(tone, 1) ** 2
        return (power * np.arange(len(power))).sum() / power.sum()

    assert centroid(tones[-1]) > 1.1 * centroid(tones[0])


def test_a_note_decays_and_is_silent_after_its_release():
    out = render(Note(0.5, 1.0, 60, 100))
    assert not out[: RATE // 2].any()
    assert rms(out[RATE // 2 : RATE]) > 1.1 * rms(out[RATE : 3 * RATE // 2]) > 0.01
    assert RATE * 1.55 < len(out) < RATE * 1.7
    assert np.abs(out[-50:]).max() < 1e-4
    assert np.abs(np.diff(out, 2, axis=0)).max() < 0.05  # no click
    held = render(Note(0.0, 60.0, 60, 100))
    assert not held[RATE * 9 :].any()


def test_chords_do_not_clip_and_are_the_sum_of_their_notes():
    notes = [Note(0.0, 1.0, pitch, 127) for pitch in (48, 64, 67)]
    out = render(*notes)
    assert 0.3 < np.abs(out).max() < 1
    np.testing.assert_array_equal(out, render(*notes[::-1]))
    np.testing.assert_allclose(out, sum(render(note) for note in notes), atol=1e-6)
    assert render().shape == (0, 2)
    with pytest.raises(InputError, match="hours"):
        render(Note(20_000.0, 1.0, 60, 64))


def test_channel_9_plays_drums():
    hits = {key: render(Note(0.0, 0.1, key, 110, 9)) for key in range(128)}
    for hit in hits.values():
        assert np.isfinite(hit).all()
        assert 0.01 < np.abs(hit).max() < 1
        assert np.abs(hit[-20:]).max() < 0.01

    def low_share(hit):
        power = spectrum(hit.mean(axis=1), 1) ** 2
        return power[: int(150 * len(hit) / RATE)].sum() / power.sum()

    assert low_share(hits[36]) > 0.8
    assert low_share(hits[42]) < 0.01
    assert len(hits[46]) > 4 * len(hits[42])
    closed = render(Note(0.0, 0.1, 46, 110, 9), Note(0.2, 0.1, 42, 1, 9))
    assert rms(closed[round(0.35 * RATE) :]) < 0.02 * rms(closed[: round(0.2 * RATE)])
    for rate in (8000, 96000):
        assert np.isfinite(render(Note(0.0, 0.1, 49, 127, 9), rate=rate)).all()


def test_a_soundfont_is_used_where_there_is_one(monkeypatch, tmp_path):
    loaded = "pretty_midi" in sys.modules
    assert find_soundfont().name == "TimGM6mb.sf2"
    assert ("pretty_midi" in sys.modules) == loaded
    assert isinstance(find_instrument(), SoundFont)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert isinstance(find_instrument(), EmbeddedInstrument)
    with pytest.raises(InputError, match="cannot read the soundfont"):
        find_instrument(tmp_path / "none.sf2")


def test_play_sounds_without_any_soundfont(monkeypatch, tmp_path, trained_path, short_guitar):
    # As after `pip install musichal`, without extras: `demo` calls the same.
    monkeypatch.setattr(instrument, "find_soundfont", lambda: None)
    duo, reply = tmp_path / "duo.wav", tmp_path / "reply.wav"
    arguments = ["play", trained_path, "--input", short_guitar, "--mix-out", duo, "--audio-out", reply]
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    for path in (duo, reply):
        samples, _ = soundfile.read(path)
        assert rms(samples) > 0.01
        assert np.abs(samples).max() < 1
