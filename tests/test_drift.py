"""Drift on real recordings: each cause by its name, and no alarm where the music is the training's own."""

import io
import json

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy import signal

from benchmarks.drift_quality import cut
from benchmarks.tokens_alone import without_notes
from musichal.audio.recording import Recording, read_recording
from musichal.commands.options import PlayOptions
from musichal.commands.play import play_command
from musichal.commands.terminal import Terminal
from musichal.hearing.encoders import create_encoder
from musichal.hearing.listener import FeatureExtractor, Listener, Tokenizer, full_scale_share
from musichal.live.drift import DriftMonitor, DriftReport, DriftSettings, passage_around, training_statistics
from musichal.memory.partner_file import save_partner
from musichal.spec import PerceptionSpec
from musichal.training.trainer import train


def listen(model, samples, rate) -> list[DriftReport]:
    """Return all reports. Notes and drum hits have no say in them, and are not heard; a session's drift is tested whole."""
    monitor, tokenizer = DriftMonitor(model), Tokenizer(model.spec, model.vocabularies)
    extractor = without_notes(FeatureExtractor(model.spec, create_encoder(model.spec)))
    heard = extractor.stream(samples, source_rate_hz=rate, block_samples=rate)
    return [report for segment in heard for report in monitor.step(tokenizer.step(segment))]


def raised(reports) -> list[str]:
    return [r.cause for r in reports if r.event == "raised"]


def noted(reports) -> list[str]:
    return [r.cause for r in reports if r.event == "noted"]


@pytest.fixture(scope="module")
def rock(rock_mix) -> Recording:
    return read_recording(rock_mix)


@pytest.fixture(scope="module")
def partner(rock_mix, partner_of):
    """Trained on 34 s of a rock band."""
    return partner_of(rock_mix)


def noise(rate: int, *, exponent: float, level_db: float) -> np.ndarray:
    """Twenty seconds with a spectrum of 1 / f ** exponent."""
    n = 20 * rate
    spectrum = np.fft.rfft(np.random.default_rng(1).standard_normal(n))
    spectrum /= np.maximum(np.arange(spectrum.shape[0]), 1) ** (exponent / 2)
    sound = np.fft.irfft(spectrum, n)
    return (sound / sound.std() * 10 ** (level_db / 20)).astype(np.float32)


def hum(rate: int, mains_hz: float = 50) -> np.ndarray:
    t = np.arange(20 * rate) / rate
    return (0.05 * sum(np.sin(2 * np.pi * mains_hz * k * t) / k for k in range(1, 6))).astype(np.float32)


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
    "hum of 60 Hz": ("wrong channel", lambda x, rate: hum(rate, 60)),
    "brown noise": ("noise only", lambda x, rate: noise(rate, exponent=2, level_db=-20)),
    "channels that cancel": ("wrong channel", lambda x, rate: np.stack([x, -x], axis=1)),
}


ALIKE = {"hum of 60 Hz", "brown noise", "40 dB down", "clipped by 20 dB", "soft white noise", "the noise of a preamplifier"}


@pytest.mark.parametrize("trouble", [pytest.param(name, marks=[pytest.mark.slow] * (name in ALIKE)) for name in TROUBLE])
def test_each_cause_is_named_once(partner, rock, trouble):
    cause, make = TROUBLE[trouble]
    rate = rock.sample_rate_hz
    reports = listen(partner, make(rock.samples[: 20 * rate], rate)[: 17 * rate], rate)
    assert raised(reports) == [cause]
    assert len(reports) == 1
    assert 6 <= reports[0].time_s <= 10
    line = json.loads(reports[0].to_json())
    assert (line["cause"], line["event"]) == (cause, "raised")
    assert set(line["figures"]["sources"]) == {"harmonic", "percussive"}
    assert cause in reports[0].text


@pytest.mark.parametrize(
    "clip", ["ballad95_mix", *(pytest.param(f"ballad95_{name}", marks=pytest.mark.slow) for name in ("guitar", "backing"))]
)
def test_another_instrument_is_noted_and_no_alarm(partner, audio_dir, clip):
    other = read_recording(audio_dir / f"{clip}.ogg")
    reports = listen(partner, other.samples[: 28 * other.sample_rate_hz], other.sample_rate_hz)
    assert (noted(reports), raised(reports), len(reports)) == (["other instrument"], [], 1)


def at_level(x: np.ndarray, level_db: float) -> np.ndarray:
    return (x / np.sqrt(np.mean(np.square(x))) * 10 ** (level_db / 20)).astype(np.float32)


def held(rate: int, pitches_hz, level_db: float) -> np.ndarray:
    t = np.arange(17 * rate) / rate
    return at_level(sum(np.sin(2 * np.pi * f * k * t) / k for f in pitches_hz for k in range(1, 7)), level_db)


def strokes(
    rate: int, level_db: float, *, every_s: float, decay: float, low_hz: float = 200, high_hz: float = 9000
) -> np.ndarray:
    """Bursts of noise, as of snares, shakers and hats."""
    rng, n = np.random.default_rng(2), rate // 4
    sound, filtering = np.zeros(17 * rate), signal.butter(4, [low_hz, high_hz], "bandpass", fs=rate, output="sos")
    for at_s in np.arange(0.05, 16.7, every_s):
        burst = signal.sosfilt(filtering, rng.standard_normal(n)) * np.exp(-np.arange(n) / rate * decay)
        sound[round(at_s * rate) :][:n] += burst * rng.uniform(0.6, 1)
    return at_level(sound, level_db)


def soft_notes(rate: int, level_db: float) -> np.ndarray:
    rng, t, sound = np.random.default_rng(4), np.arange(rate) / rate, np.zeros(17 * rate)
    for at_s in np.arange(0.1, 15.9, 0.4):
        f = 220 * 2 ** (rng.integers(0, 20) / 12)
        sound[round(at_s * rate) :][:rate] += sum(np.sin(2 * np.pi * f * k * t) / k * np.exp(-3 * t) for k in range(1, 6))
    return at_level(sound, level_db)


def sparse(rate: int) -> np.ndarray:
    t, sound = np.arange(rate) / rate, np.zeros(17 * rate)
    for at_s in (1, 5, 9.5, 14):
        sound[round(at_s * rate) :][:rate] += 0.4 * np.sin(2 * np.pi * 330 * t) * np.exp(-3 * t)
    return sound.astype(np.float32)


NO_TROUBLE = {
    "a loud organ chord": lambda x, rate: held(rate, (220, 277.18, 329.63), -23),
    "a soft pad on G, near 50 Hz": lambda x, rate: held(rate, (49, 98), -30),
    "a soft pad on B, near 60 Hz": lambda x, rate: held(rate, (61.74, 123.47), -30),
    "a soft fifth on G": lambda x, rate: held(rate, (98, 146.83), -33),
    "a soft clarinet that swells": lambda x, rate: held(rate, (233.1,), -38) * (0.6 + 0.4 * sine(rate, 0.25)[: 17 * rate]),
    "brushes": lambda x, rate: noise(rate, exponent=0, level_db=-28) * (0.4 + 0.6 * abs(sine(rate, 1.1))),
    "a low drone": lambda x, rate: held(rate, (55,), -28),
    "a sine": lambda x, rate: held(rate, (440,), -17),
    "closed hats": lambda x, rate: strokes(rate, -41, every_s=0.125, decay=90, low_hz=6000, high_hz=16000),
    "a shaker": lambda x, rate: strokes(rate, -30, every_s=0.11, decay=30, low_hz=3000, high_hz=12000),
    "a snare roll": lambda x, rate: strokes(rate, -22, every_s=0.045, decay=25),
    "slow snares": lambda x, rate: strokes(rate, -22, every_s=0.5, decay=12),
    "a swelling cymbal": lambda x, rate: noise(rate, exponent=0, level_db=-25) * (0.3 + 0.7 * abs(sine(rate, 0.19))),
    "soft notes": lambda x, rate: soft_notes(rate, -42),
    "notes far apart": lambda x, rate: sparse(rate),
    "limited by 9 dB": lambda x, rate: np.tanh(2.8 * x) / np.tanh(2.8 * x).max(),
    "12 dB down": lambda x, rate: x / 4,
    "a floor of noise": lambda x, rate: x + noise(rate, exponent=0, level_db=-45),
    "another part, louder": lambda x, rate: np.clip(1.4 * x, -1, 1),
}
ONE_OF_EACH = {"a soft pad on G, near 50 Hz", "closed hats", "a snare roll"}


def sine(rate: int, hz: float) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(20 * rate) / rate).astype(np.float32)


@pytest.mark.parametrize("sound", [pytest.param(n, marks=[pytest.mark.slow] * (n not in ONE_OF_EACH)) for n in NO_TROUBLE])
def test_what_is_no_trouble_raises_no_alarm(partner, rock, sound):
    rate = rock.sample_rate_hz
    assert raised(listen(partner, NO_TROUBLE[sound](rock.samples[: 20 * rate], rate)[: 17 * rate], rate)) == []


def test_the_band_and_its_solos_raise_none(partner, audio_dir):
    for clip in ("rock140_mix", "rock140_guitar", "rock140_backing"):
        own = read_recording(audio_dir / f"{clip}.ogg")
        assert listen(partner, own.samples[12_345 : 25 * own.sample_rate_hz], own.sample_rate_hz) == []


def test_an_alarm_is_raised_once_and_cleared_once(partner, rock):
    """After noise the window holds half noise and half music for some seconds, which is like no training; its later half is."""
    rate, x = rock.sample_rate_hz, rock.samples
    white, pink = (noise(rate, exponent=exponent, level_db=-25) for exponent in (0, 1))
    stream = np.concatenate([x[: 12 * rate], white[: 14 * rate], x[12 * rate : 28 * rate], pink, x[12 * rate : 32 * rate]])
    reports = listen(partner, stream, rate)
    assert [(r.event, r.cause) for r in reports] == 2 * [("raised", "noise only"), ("cleared", "noise only")]
    times = [r.time_s for r in reports]
    assert 12 < times[0] < 26 < times[1] < 40
    assert 42 < times[2] < 62 < times[3] < 76


@pytest.mark.slow
def test_a_rest_is_no_alarm_until_it_is_too_long_for_one(partner, rock):
    rate, x = rock.sample_rate_hz, rock.samples[: 12 * rock.sample_rate_hz]
    room, soft_hum = noise(rate, exponent=1, level_db=-75), hum(rate) * np.float32(0.01)
    assert listen(partner, np.concatenate([x, room, x, soft_hum, x]), rate) == []
    assert raised(listen(partner, np.concatenate([x, soft_hum, soft_hum]), rate)) == ["wrong channel"]


def test_the_usual_is_that_of_passages_the_rest_does_not_know(partner):
    """Each ten seconds against the recording without the quarter that they lie in, by another way of counting."""
    known = training_statistics(partner, DriftSettings())
    (recording,) = partner.recordings
    n = recording.tokens.shape[1]
    quarter = round(n / 4)
    assert quarter < 750  # a window is longer here: it is all that is left out
    for number, source in enumerate(known.sources):
        tokens = recording.tokens[number]
        assert np.array_equal(source.histogram, [(tokens == t).sum() for t in range(64)])
        found = divergences(tokens, 750)
        assert source.usual_divergence == pytest.approx(np.median(found), rel=1e-9)
        # With half of it left out, a passage is further from what is left.
        more = training_statistics(partner, DriftSettings(left_out_share=0.5)).sources[number]
        assert more.usual_divergence == pytest.approx(np.median(divergences(tokens, round(n / 2))), rel=1e-9)
        assert more.usual_divergence > source.usual_divergence
    assert known.least_audible_share > 0.9
    assert known.least_level_db == pytest.approx(-17, abs=1.5)


def divergences(tokens: np.ndarray, length: int) -> list[float]:
    """Return the divergence of each window of 750 frames from all but the `length` frames around it."""
    found = []
    for first in range(0, len(tokens) - 750 + 1, 18):
        out = min(max(0, first + (750 - length) // 2), len(tokens) - length)
        inside, left = np.zeros(len(tokens), dtype=bool), np.ones(len(tokens), dtype=bool)
        inside[first : first + 750] = True
        left[out : out + length] = False
        p, q = (np.bincount(tokens[part & (tokens >= 0)], minlength=64) for part in (inside, left))
        p, q = p / p.sum(), q / q.sum()
        m = (p + q) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            found.append(sum(np.nansum(a * np.log2(a / m)) for a in (p, q)) / 2)
    return found


@given(n=st.integers(1, 500), window=st.integers(1, 200), first=st.integers(0, 400), length=st.integers(0, 600))
def test_a_passage_holds_its_window_and_stays_inside(n, window, first, length):
    window = min(window, n)
    first = min(first, n - window)
    passage = passage_around(slice(first, first + window), n, length=length)
    assert 0 <= passage.start <= first
    assert first + window <= passage.stop <= n
    assert passage.stop - passage.start == min(n, max(length, window))


def test_strangeness_is_divergence_beyond_the_usual_and_misfit(partner, rock):
    listener = Listener(partner.spec, create_encoder(partner.spec), partner.vocabularies, source_rate_hz=rock.sample_rate_hz)
    monitor = DriftMonitor(partner)
    for percept in listener.push(rock.samples[: 15 * rock.sample_rate_hz]).percepts:
        monitor.step(percept)
    for own, known in zip(monitor.figures.sources, monitor.training.sources, strict=True):
        expected = own.divergence - known.usual_divergence + 0.2 * np.log(own.misfit)
        assert own.strangeness == pytest.approx(expected, abs=1e-12)
        assert own.misfit == pytest.approx(1, abs=0.5)
        assert own.strangeness < 0.1


def test_the_share_at_full_scale_counts_clipped_samples(rock):
    assert full_scale_share(np.array([0.5, 1.0, -1.0, 0.97], dtype=np.float32)) == 0.5
    assert full_scale_share(np.zeros(0, dtype=np.float32)) == 0
    loudest = rock.samples / np.abs(rock.samples).max()
    assert full_scale_share(loudest) < 1e-3 < full_scale_share(np.clip(loudest * 2, -1, 1))


def test_alarms_reach_console_json_and_session(partner, rock, tmp_path):
    save_partner(tmp_path / "rock.hal", partner)
    soundfile.write(tmp_path / "in.wav", rock.samples[: 16 * rock.sample_rate_hz] * 1e-3, rock.sample_rate_hz, subtype="PCM_24")
    out, err = io.StringIO(), io.StringIO()
    request = PlayOptions(partner=tmp_path / "rock.hal", input=str(tmp_path / "in.wav"), session=tmp_path / "session")
    performance = play_command(request, Terminal(Console(file=out), Console(file=err, width=200), as_json=True))
    assert raised(performance.drift) == ["too quiet"]
    assert "turn the gain up" in err.getvalue()
    lines = [json.loads(line) for line in (tmp_path / "session" / "drift.jsonl").read_text().splitlines()]
    assert lines == json.loads(out.getvalue())["drift"] == [r.to_dict() for r in performance.drift]


def test_a_partner_of_ten_seconds_hears_its_own_guitar_without_alarm(trained, rock, rock_guitar):
    own = read_recording(rock_guitar)
    assert raised(listen(trained, rock.samples[: 16 * rock.sample_rate_hz] * 1e-3, rock.sample_rate_hz)) == ["too quiet"]
    assert listen(trained, own.samples[8 * own.sample_rate_hz : 24 * own.sample_rate_hz], own.sample_rate_hz) == []


@pytest.fixture(scope="module")
def song(audio_dir) -> Recording:
    return read_recording(audio_dir / "feelings_full.ogg")


@pytest.fixture
def tokens_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let training hear no notes and drum hits either: tokens and the statistics of training are the same without."""
    begin = FeatureExtractor.__init__

    def begin_deaf(self: FeatureExtractor, *args: object, **kwargs: object) -> None:
        begin(self, *args, **kwargs)
        without_notes(self)

    monkeypatch.setattr(FeatureExtractor, "__init__", begin_deaf)


@pytest.mark.slow(40)
@pytest.mark.usefixtures("tokens_alone")
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
    reports = listen(whole, other.samples[: 60 * rate], rate)
    assert (noted(reports), raised(reports)) == (["other instrument"], [])


@pytest.mark.slow(20)
@pytest.mark.usefixtures("tokens_alone")
@pytest.mark.parametrize("first_learned", [True, False])
def test_four_minutes_that_were_never_learned_raise_none(audio_dir, first_learned):
    """A half of each song after the other: 144 s of Feelings and 87 s of War of freedom, both ways round."""
    played_s, alarms = 0.0, []
    for name in ("feelings_full", "war_of_freedom_full"):
        song = read_recording(audio_dir / f"{name}.ogg")
        halves = [cut(song, 0, song.duration_s / 2), cut(song, song.duration_s / 2, song.duration_s)]
        half = train([halves[not first_learned]], PerceptionSpec(), keep_audio=False)
        alarms += listen(half, halves[first_learned].samples, song.sample_rate_hz)
        played_s += halves[first_learned].duration_s
    assert alarms == []
    assert played_s > 225  # both ways together seven and a half minutes
