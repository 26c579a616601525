"""Drift on real recordings: each cause by its name, and no alarm where the music is the training's own."""

import io
import json

import numpy as np
import pytest
import soundfile
import soxr
from rich.console import Console

from musichal.audio.recording import Recording, read_recording
from musichal.chandra.trainer import train
from musichal.commands.outcome import Voice
from musichal.commands.play import PlayRequest, play_command
from musichal.hearing.encoders.registry import create_encoder
from musichal.hearing.levels import full_scale_share
from musichal.hearing.listener import Listener
from musichal.memory.partner_file import save_partner
from musichal.spec import PerceptionSpec
from musichal.stage.drift import DriftMonitor, DriftReport, DriftSettings, training_statistics


def listen(model, samples, rate, *, block_s=1.0, subscribers=()) -> list[DriftReport]:
    listener = Listener(model.spec, create_encoder(model.spec), model.vocabularies, source_rate_hz=rate)
    monitor = DriftMonitor(model, subscribers=subscribers)
    block, percepts = round(block_s * rate), []
    for first in range(0, len(samples), block):
        percepts += listener.push(samples[first : first + block])
    percepts += listener.flush().percepts
    return [report for percept in percepts for report in monitor.step(percept)]


def raised(reports) -> list[str]:
    return [r.cause for r in reports if r.event == "raised"]


@pytest.fixture(scope="module")
def rock(rock_mix) -> Recording:
    return read_recording(rock_mix)


@pytest.fixture(scope="module")
def partner(rock):
    """Trained on 34 s of a rock band."""
    return train([rock], PerceptionSpec(), keep_audio=False)


def noise(rate: int, *, exponent: float, level_db: float) -> np.ndarray:
    """Twenty seconds with a spectrum of 1 / f ** exponent."""
    n = 20 * rate
    spectrum = np.fft.rfft(np.random.default_rng(1).standard_normal(n))
    spectrum /= np.maximum(np.arange(spectrum.shape[0]), 1) ** (exponent / 2)
    sound = np.fft.irfft(spectrum, n)
    return (sound / sound.std() * 10 ** (level_db / 20)).astype(np.float32)


def hum(rate: int) -> np.ndarray:
    t = np.arange(20 * rate) / rate
    return (0.05 * sum(np.sin(2 * np.pi * 50 * k * t) / k for k in range(1, 6))).astype(np.float32)


TROUBLE = {
    "60 dB down": ("too quiet", lambda x, rate: x * np.float32(1e-3)),
    "40 dB down": ("too quiet", lambda x, rate: x * np.float32(1e-2)),
    "clipped by 12 dB": ("clipped", lambda x, rate: np.clip(x * 4, -1, 1)),
    "clipped by 20 dB": ("clipped", lambda x, rate: np.clip(x * 10, -1, 1)),
    "white noise": ("noise only", lambda x, rate: noise(rate, exponent=0, level_db=-20)),
    "soft white noise": ("noise only", lambda x, rate: noise(rate, exponent=0, level_db=-40)),
    "pink noise": ("noise only", lambda x, rate: noise(rate, exponent=1, level_db=-20)),
    "no signal": ("wrong channel", lambda x, rate: x * np.float32(0)),
    "the noise of a preamplifier": ("wrong channel", lambda x, rate: noise(rate, exponent=0, level_db=-75)),
    "hum": ("wrong channel", lambda x, rate: hum(rate)),
    "channels that cancel": ("wrong channel", lambda x, rate: np.stack([x, -x], axis=1)),
}


@pytest.mark.parametrize("trouble", TROUBLE)
def test_each_cause_is_named_once(partner, rock, trouble):
    cause, make = TROUBLE[trouble]
    rate = rock.sample_rate_hz
    told: list[DriftReport] = []
    reports = listen(partner, make(rock.samples[: 20 * rate], rate), rate, subscribers=(told.append,))
    assert raised(reports) == [cause]
    assert len(reports) == 1
    assert told == reports
    assert 10 <= reports[0].time_s < 16
    line = json.loads(reports[0].to_json())
    assert (line["cause"], line["event"]) == (cause, "raised")
    assert set(line["figures"]["sources"]) == {"harmonic", "percussive"}
    assert cause in reports[0].text


@pytest.mark.parametrize("clip", ["ballad95_guitar", "ballad95_backing", "ballad95_mix"])
def test_another_instrument_is_named(partner, audio_dir, clip):
    other = read_recording(audio_dir / f"{clip}.ogg")
    assert raised(listen(partner, other.samples, other.sample_rate_hz)) == ["other instrument"]


def test_the_band_and_its_solos_raise_none(partner, audio_dir):
    for clip in ("rock140_mix", "rock140_guitar", "rock140_backing"):
        own = read_recording(audio_dir / f"{clip}.ogg")
        assert listen(partner, own.samples[12_345 : 25 * own.sample_rate_hz], own.sample_rate_hz) == []


def test_an_alarm_is_raised_once_and_cleared_once(partner, rock):
    rate, x = rock.sample_rate_hz, rock.samples
    stream = np.concatenate([x[: 14 * rate], noise(rate, exponent=0, level_db=-25)[: 14 * rate], x[14 * rate : 32 * rate]])
    reports = listen(partner, stream, rate)
    assert [(r.event, r.cause) for r in reports] == [("raised", "noise only"), ("cleared", "noise only")]
    assert 14 < reports[0].time_s < 28 < reports[1].time_s < 42
    assert listen(partner, stream, rate, block_s=0.31) == reports


def test_a_rest_is_no_alarm_until_it_is_too_long_for_one(partner, rock):
    rate, x = rock.sample_rate_hz, rock.samples[: 12 * rock.sample_rate_hz]
    for room in (noise(rate, exponent=1, level_db=-75), hum(rate) * np.float32(0.01)):
        assert listen(partner, np.concatenate([x, room, x]), rate) == []
    assert raised(listen(partner, np.concatenate([x, room, room, room]), rate)) == ["wrong channel"]


def test_limits_are_the_extremes_of_the_recordings_own_windows(partner):
    """Each ten seconds against all the rest, by another way of counting."""
    settings = DriftSettings()
    known = training_statistics(partner, settings)
    (recording,) = partner.recordings
    for number, source in enumerate(known.sources):
        tokens = recording.tokens[number]
        assert np.array_equal(source.histogram, [(tokens == t).sum() for t in range(64)])
        found = []
        for first in range(0, len(tokens) - 750 + 1, 18):
            inside = np.zeros(len(tokens), dtype=bool)
            inside[first : first + 750] = True
            p, q = (np.bincount(tokens[part & (tokens >= 0)], minlength=64) for part in (inside, ~inside))
            p, q = p / p.sum(), q / q.sum()
            m = (p + q) / 2
            with np.errstate(divide="ignore", invalid="ignore"):
                found.append(sum(np.nansum(a * np.log2(a / m)) for a in (p, q)) / 2)
        assert source.largest_divergence == pytest.approx(max(found), rel=1e-9)
        assert source.high_divergence == pytest.approx(np.percentile(found, 90), rel=1e-9)
        assert source.high_divergence < source.largest_divergence < 1
    assert known.least_audible_share > 0.9
    assert known.least_level_db == pytest.approx(-17, abs=1.5)


def test_the_share_at_full_scale_counts_clipped_samples(rock):
    assert full_scale_share(np.array([0.5, 1.0, -1.0, 0.97], dtype=np.float32)) == 0.5
    assert full_scale_share(np.zeros(0, dtype=np.float32)) == 0
    loudest = rock.samples / np.abs(rock.samples).max()
    assert full_scale_share(loudest) < 1e-3 < full_scale_share(np.clip(loudest * 2, -1, 1))


def test_settings_that_make_no_sense_are_refused():
    for wrong in ({"window_s": 0}, {"least_audible_s": 11}, {"hold_s": -1}, {"divergence_margin": 1.5}):
        with pytest.raises(ValueError, match="drift"):
            DriftSettings(**wrong)


def test_alarms_reach_console_json_and_session(partner, rock, tmp_path):
    save_partner(tmp_path / "rock.hal", partner)
    soundfile.write(tmp_path / "in.wav", rock.samples[: 16 * rock.sample_rate_hz] * 1e-3, rock.sample_rate_hz, subtype="PCM_24")
    out, err = io.StringIO(), io.StringIO()
    request = PlayRequest(partner=tmp_path / "rock.hal", input=tmp_path / "in.wav", session=tmp_path / "session")
    performance = play_command(request, Voice(Console(file=out), Console(file=err, width=200), as_json=True))
    assert raised(performance.drift) == ["too quiet"]
    assert "turn the gain up" in err.getvalue()
    lines = [json.loads(line) for line in (tmp_path / "session" / "drift.jsonl").read_text().splitlines()]
    assert lines == json.loads(out.getvalue())["drift"] == [r.to_dict() for r in performance.drift]


def test_a_partner_of_ten_seconds_hears_its_own_guitar_without_alarm(trained, rock, rock_guitar):
    own = read_recording(rock_guitar)
    assert raised(listen(trained, rock.samples * np.float32(1e-3), rock.sample_rate_hz)) == ["too quiet"]
    assert listen(trained, own.samples[8 * own.sample_rate_hz : 24 * own.sample_rate_hz], own.sample_rate_hz) == []


@pytest.fixture(scope="module")
def song(audio_dir) -> Recording:
    return read_recording(audio_dir / "feelings_full.ogg")


@pytest.mark.slow
def test_four_minutes_of_the_training_music_from_another_place_raise_none(song, audio_dir):
    rate, x = song.sample_rate_hz, song.samples
    whole = train([song], PerceptionSpec(), keep_audio=False)
    for first_s in (7.777, 40.26):
        stream = x[round(first_s * rate) :]
        assert len(stream) >= 240 * rate
        assert listen(whole, stream, rate) == []
    parts = ((100.05, 160), (20.2, 90), (200.1, 288), (0, 30))  # other parts, in another order
    stream = np.concatenate([x[round(a * rate) : round(b * rate)] for a, b in parts])
    assert listen(whole, stream, rate) == []
    assert listen(whole, soxr.resample(x, rate, 48_000).astype(np.float32), 48_000) == []
    other = read_recording(audio_dir / "war_of_freedom_full.ogg")
    assert raised(listen(whole, other.samples[: 60 * rate], rate)) == ["other instrument"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "learned_s", "played_s"),
    [
        ("feelings_full", (144, 288), (0, 144)),
        ("war_of_freedom_full", (0, 88), (88, 175)),
        ("war_of_freedom_full", (88, 175), (0, 88)),
    ],
)
def test_the_half_of_a_song_that_was_not_learned_raises_none(tmp_path, audio_dir, name, learned_s, played_s):
    """Not so the other way round: the first half of Feelings does not know the second's drums, and two alarms say so."""
    samples, rate = soundfile.read(audio_dir / f"{name}.ogg", dtype="float32")
    first, last = (round(s * rate) for s in learned_s)
    soundfile.write(tmp_path / "half.wav", samples[first:last], rate, subtype="PCM_24")
    half = train([read_recording(tmp_path / "half.wav")], PerceptionSpec(), keep_audio=False)
    first, last = (round(s * rate) for s in played_s)
    assert listen(half, samples[first:last], rate) == []
