"""Drift on real recordings: each cause by its name, and no alarm where the music is the training's own."""

import json

import numpy as np
import pytest

from musichal.audio.recording import Recording, read_recording
from musichal.chandra.trainer import train
from musichal.hearing.encoders.registry import create_encoder
from musichal.hearing.listener import Listener
from musichal.spec import PerceptionSpec
from musichal.stage.drift import DriftMonitor, DriftReport


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
        assert listen(partner, own.samples[12_345:], own.sample_rate_hz) == []
