"""Beats and drum hits from sound to memory: odd metres, a drift, no beat at all, drums alone."""

import itertools

import numpy as np
import pytest

from musichal.audio.instrument import EmbeddedInstrument, render_notes
from musichal.audio.recording import Recording, ingest
from musichal.evaluate.partner_stats import partner_stats
from musichal.evaluate.verify import subjects, verify_partner
from musichal.memory.beat_places import beat_places
from musichal.memory.partner_file import PartnerModel, load_partner, save_partner
from musichal.note import PERCUSSION_CHANNEL, Note
from musichal.spec import PerceptionSpec
from musichal.training.trainer import train

pytestmark = pytest.mark.usefixtures("heard_once")

RATE = 24_000
SECONDS = 14.0


def steady(bpm: float) -> np.ndarray:
    return np.arange(0.2, SECONDS, 60 / bpm)


def drifting(first_bpm: float, last_bpm: float) -> np.ndarray:
    times = [0.2]
    while times[-1] < SECONDS:
        times.append(times[-1] + 60 / (first_bpm + (last_bpm - first_bpm) * times[-1] / SECONDS))
    return np.array(times)


def drum_pattern(beats_s: np.ndarray, per_bar: int) -> list[Note]:
    """Return a kick on the first beat of a bar, a snare on the last, and hats on all beats and between them."""
    notes = []
    for number, (at, following) in enumerate(zip(beats_s[:-1].tolist(), beats_s[1:].tolist(), strict=True)):
        place = number % per_bar
        keys = [(at, 42, 80), ((at + following) / 2, 42, 60)]
        keys += [(at, 36, 120)] if place == 0 else [(at, 38, 110)] if place == per_bar - 1 else []
        notes += [Note(onset, 0.1, key, velocity, PERCUSSION_CHANNEL) for onset, key, velocity in keys]
    return notes


def chords(beats_s: np.ndarray, per_bar: int) -> list[Note]:
    """Return a chord for each bar."""
    firsts = beats_s[::per_bar].tolist()
    roots = [48, 53, 55, 45]
    return [
        Note(at, until - at, roots[n % 4] + step, 80)
        for n, (at, until) in enumerate(itertools.pairwise(firsts))
        for step in (0, 4, 7)
    ]


def recording(name: str, notes: list[Note]) -> Recording:
    sound = render_notes(notes, EmbeddedInstrument(), sample_rate_hz=RATE).mean(axis=1)
    return Recording(name, RATE, ingest(np.pad(sound, (0, max(0, round(SECONDS * RATE) - len(sound)))).astype(np.float32)))


def noise() -> Recording:
    rng = np.random.default_rng(0)
    swell = 0.05 + 0.04 * np.sin(2 * np.pi * np.arange(round(SECONDS * RATE)) / RATE / 7.3)
    return Recording("wind.wav", RATE, ingest((swell * rng.normal(size=round(SECONDS * RATE))).astype(np.float32)))


MUSIC = {
    "5/4": (steady(130), 5),
    "7/8": (steady(190), 7),
    "a drift": (drifting(90, 140), 4),
}


def kept_whole(model: PartnerModel, tmp_path) -> PartnerModel:
    """Return the model from its file, which training, loading and verifying agree on."""
    save_partner(tmp_path / "p.hal", model)
    loaded = load_partner(tmp_path / "p.hal")
    assert loaded.memory.states.tobytes() == model.memory.states.tobytes()
    assert loaded.memory.hits.tobytes() == model.memory.hits.tobytes()
    verification = verify_partner(loaded, subjects(loaded), quick=True)
    assert verification.passed, [check.name for check in verification.failed]
    assert any("beats, live" in check.name for check in verification.checks)
    for number, stored in enumerate(loaded.recordings):
        states = loaded.memory.states[loaded.memory.states["recording"] == number]
        places = beat_places(stored.beats, states["start_s"])
        for name in places.dtype.names:
            assert np.array_equal(places[name], states[name])
    return loaded


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> PartnerModel:
    recordings = [recording(f"{name}.wav", drum_pattern(b, n) + chords(b, n)) for name, (b, n) in MUSIC.items()]
    return kept_whole(train(recordings, PerceptionSpec()), tmp_path_factory.mktemp("odd"))


@pytest.mark.slow
def test_odd_metres_and_a_drift_are_kept_whole(odd):
    stats = partner_stats(odd).recordings
    assert all(said.tempo is not None and sum(said.hits.values()) > 30 for said in stats)


@pytest.mark.slow
def test_tempo_and_its_course_are_those_that_were_played(odd):
    stats = partner_stats(odd).recordings
    for said, (beats_s, _) in zip(stats, MUSIC.values(), strict=True):
        true_bpm = float(np.median(60 / np.diff(beats_s)))
        assert said.tempo.median_bpm is not None
        # The level of the metre may be another one; the tempo and its course are not.
        octave = 2 ** np.rint(np.log2(said.tempo.median_bpm / true_bpm))
        assert said.tempo.median_bpm == pytest.approx(octave * true_bpm, rel=0.06)
        assert said.tempo.sure_share > 0.5
    assert [said.tempo.beats_per_bar for said in stats[:2]] == [5, 7]
    assert "getting faster" in stats[-1].tempo.words


def test_without_a_beat_none_is_claimed(tmp_path):
    model = kept_whole(train([noise()], PerceptionSpec()), tmp_path)
    (said,) = partner_stats(model).recordings
    assert said.tempo.words == "free, no steady beat"
    assert (model.memory.states["beat_confidence"] >= 0.5).mean() < 0.05


def test_a_memory_of_drums_alone_is_a_memory(tmp_path):
    model = kept_whole(train([recording("drums.wav", drum_pattern(steady(120), 4))], PerceptionSpec()), tmp_path)
    memory = model.memory
    (said,) = partner_stats(model).recordings
    assert len(memory.hits) > 2 * len(memory.notes)
    assert {"kick", "snare", "closed hat"} <= set(said.hits)
    assert np.sum(memory.states["hit_count"]) == len(memory.hits)
