import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musichal.audio.instrument import EmbeddedInstrument, render_notes
from musichal.hearing.beat_evidence import N_KINDS, STEP_S
from musichal.hearing.beat_level import CANDIDATES, N_FEATURES, N_WHOLE, beat_places, features, places_of
from musichal.hearing.beats import find_beats
from musichal.hearing.encoders import create_encoder
from musichal.hearing.level_follower import LevelFollower
from musichal.hearing.listener import FeatureExtractor
from musichal.note import PERCUSSION_CHANNEL, HeardNote, Note
from musichal.pulse import Pulse
from musichal.spec import PerceptionSpec

RATE = 24_000


def beats_of(notes: list[Note]) -> np.ndarray:
    spec = PerceptionSpec()
    sound = render_notes(notes, EmbeddedInstrument(), sample_rate_hz=RATE).mean(axis=1).astype(np.float32)
    segments = FeatureExtractor(spec, create_encoder(spec)).stream(sound, source_rate_hz=RATE)
    return find_beats(segments, sample_rate_hz=RATE)


def rock(bpm: float, hats: int, bars: int) -> list[Note]:
    """Return a backbeat with so many hats a beat, a bass on kicks and halves, and a chord a bar."""
    notes, beat_s = [], 60 / bpm
    for beat in range(4 * bars):
        at, root = 0.3 + beat * beat_s, (40, 45, 43, 38)[beat // 4 % 4]
        drums = [(at, 38 if beat % 2 else 36, 110), *((at + i * beat_s / hats, 42, 80 - 20 * (i > 0)) for i in range(hats))]
        notes += [Note(onset, 0.1, key, velocity, PERCUSSION_CHANNEL) for onset, key, velocity in drums]
        notes += [Note(at, 0.4 * beat_s, root, 90), Note(at + beat_s / 2, 0.4 * beat_s, root, 80)]
        notes += [Note(at, 3.8 * beat_s, root + 12 + step, 70) for step in (0, 7, 16)] if beat % 4 == 0 else []
    return notes


@pytest.mark.parametrize(("bpm", "hats"), [(84.0, 4), (96.0, 2), (140.0, 2)])
def test_a_backbeat_tells_the_level_of_the_beat(bpm, hats):
    beats = beats_of(rock(bpm, hats, 8))
    assert 60 / np.median(np.diff(beats["time_s"])) == pytest.approx(bpm, rel=0.03)
    away = (beats["time_s"] - 0.3 + 30 / bpm) % (60 / bpm) - 30 / bpm
    assert np.median(np.abs(away)) < 0.03


def test_free_playing_has_no_beats():
    rng = np.random.default_rng(12)
    notes, at, pace = [], 0.3, 0.0
    while at < 28:
        pace = 0.8 * pace + rng.normal(0, 0.35)
        gap = 0.4 * np.exp(pace) * rng.lognormal(0, 0.45)
        notes += [Note(at, 1.2 * gap, int(rng.integers(50, 80)), int(rng.integers(50, 100))) for _ in range(rng.integers(1, 3))]
        at += gap
    assert not len(beats_of(notes))


@given(st.integers(0, len(CANDIDATES) - 1), st.integers(0, 50), st.integers(1, 60))
def test_places_go_on_from_stretch_to_stretch(candidate, first, length):
    period, phase = CANDIDATES[candidate]
    whole = places_of(candidate, 0, first + length)
    parts = np.concatenate([places_of(candidate, 0, first), places_of(candidate, first, first + length)])
    assert np.allclose(whole, parts)
    assert np.allclose((whole - phase) % period, 0, atol=1e-6) or np.allclose((whole - phase + period / 2) % period, period / 2)


def test_silence_and_few_pulses_stay_as_found():
    heard = np.zeros((1000, 13))
    assert np.array_equal(beat_places(heard, np.arange(9) * 0.5), np.arange(9.0))
    assert features(heard, np.arange(40) * 0.45, 0, 39).shape == (len(CANDIDATES), N_FEATURES)
    assert features(heard, np.arange(40) * 0.45, 0, 39, whole=True).shape == (len(CANDIDATES), N_WHOLE)
    assert np.all(np.diff(beat_places(heard, np.arange(40) * 0.45)) > 0)


@pytest.mark.parametrize("moved_beat", [12, 13])
def test_a_pattern_that_goes_on_half_a_beat_off_moves_the_beat_within_four(moved_beat: int) -> None:
    follower, period_s = LevelFollower(), 0.7
    steps = round(period_s / STEP_S)
    for beat in range(moved_beat + 5):
        off_s = period_s / 2 if beat >= moved_beat else 0.0
        struck = [(0.0, 42), (period_s / 2, 42), (off_s, (36, 38)[beat % 2])]
        hits = tuple(HeardNote(beat * period_s + at_s, 0.1, key, 100) for at_s, key in struck)
        follower.hear(np.zeros((steps, N_KINDS), np.float32), hits)
        pulse = follower.of(Pulse(beat * period_s, period_s, 0.9))
        away = (pulse.beat_s / period_s + 0.25) % 1 - 0.25
        assert abs(away - (0.5 if beat >= moved_beat + 4 else 0.0)) < 0.01
