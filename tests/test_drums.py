import numpy as np
import pytest

from musichal.audio.instrument import EmbeddedInstrument, render_notes
from musichal.hearing.drums import HIT_S, DrumTracker
from musichal.hearing.encoders import create_encoder
from musichal.hearing.front_end import Segmenter
from musichal.hearing.listener import FeatureExtractor
from musichal.note import DRUMS, PERCUSSION_CHANNEL, HeardNote, Note
from musichal.spec import PerceptionSpec

SPEC = PerceptionSpec()
RATE_HZ = SPEC.sample_rate_hz


def rendered(notes: list[Note], *, seconds: float) -> np.ndarray:
    stereo = render_notes(notes, EmbeddedInstrument(), sample_rate_hz=RATE_HZ)
    mono = np.zeros(round(seconds * RATE_HZ), np.float32)
    mono[: len(stereo)] += stereo.mean(axis=1)[: len(mono)]
    return mono


def beat(*, seconds: float = 6.0, step_s: float = 0.25) -> list[tuple[float, int]]:
    """Closed hats on every step, kick and snare in turn on every other one."""
    times = np.arange(0.1, seconds - 0.5, step_s)
    hats = [(float(t), 42) for t in times]
    return hats + [(float(t), 36 if i % 2 else 38) for i, t in enumerate(times[::2])]


def struck(hits: list[tuple[float, int]]) -> np.ndarray:
    return rendered([Note(t, 0.2, key, 100, PERCUSSION_CHANNEL) for t, key in hits], seconds=6.0)


def heard(samples: np.ndarray, *, cut: int | None = None) -> list[HeardNote]:
    segmenter, tracker = Segmenter(SPEC), DrumTracker(SPEC)
    windows = []
    for first in range(0, len(samples), cut or len(samples)):
        windows += segmenter.push(samples[first : first + (cut or len(samples))])
    hits = [hit for window in [*windows, *segmenter.flush()] for hit in tracker.step(window)]
    return [*hits, *tracker.flush()]


def test_a_beat_is_heard_drum_by_drum_at_its_times():
    wanted, got = beat(), heard(struck(beat()))
    for key in (36, 38, 42):
        true = [t for t, k in wanted if k == key]
        found = [hit.onset_s for hit in got if hit.pitch == key]
        near = [min(abs(t - f) for f in found) for t in true]
        assert np.mean(np.array(near) < 0.02) > 0.9, DRUMS[key]
        assert len(found) <= 1.1 * len(true) + 1, DRUMS[key]
    assert all(hit.duration_s == HIT_S and hit.pitch in DRUMS and 1 <= hit.velocity <= 127 for hit in got)
    assert [hit.onset_s for hit in got] == sorted(hit.onset_s for hit in got)


def test_hits_do_not_depend_on_the_blocks_nor_on_when_they_are_asked_for():
    samples = struck(beat())
    assert heard(samples) == heard(samples, cut=1000) == heard(samples, cut=7777)


def test_a_hit_right_before_the_end_of_the_stream_is_heard():
    samples = struck(beat())[: round(4.16 * RATE_HZ)]  # a snare at 4.1 s
    assert 38 in {hit.pitch for hit in heard(samples) if hit.onset_s > 4.0}


def test_a_louder_stroke_has_a_higher_velocity():
    notes = [Note(1.0 + i, 0.2, 36, velocity, PERCUSSION_CHANNEL) for i, velocity in enumerate((40, 80, 120))]
    kicks = [hit.velocity for hit in heard(rendered(notes, seconds=5.0)) if hit.pitch == 36]
    assert len(kicks) == 3
    assert kicks == sorted(kicks)
    assert len(set(kicks)) == 3


def test_silence_noise_and_a_melody_hold_no_drums():
    rng = np.random.default_rng(0)
    notes = [Note(0.2 + 0.4 * i, 0.38, 60 + int(rng.integers(24)), 90) for i in range(14)]
    assert heard(np.zeros(3 * RATE_HZ, np.float32)) == []
    noise = 0.05 * rng.standard_normal(5 * RATE_HZ) * np.hanning(5 * RATE_HZ)
    assert len(heard(noise.astype(np.float32))) <= 2
    assert len(heard(rendered(notes, seconds=6.0))) <= 2


def test_after_a_gap_hits_go_on_at_their_places_in_the_stream():
    samples, tracker = struck(beat()), DrumTracker(SPEC)
    windows = [w for w in Segmenter(SPEC).push(samples) if w.index not in (5, 6, 7)]
    hits = [hit for window in windows for hit in tracker.step(window)]
    missing = windows[5].start_sample / RATE_HZ
    late = [hit for hit in hits if hit.pitch == 42 and hit.onset_s > missing + 0.3]
    assert len(late) > 5
    assert all(min(abs(hit.onset_s - t) for t, key in beat() if key == 42) < 0.02 for hit in late)


def test_the_front_end_brings_the_same_hits_and_changes_nothing_else():
    samples = struck(beat())
    extractor = FeatureExtractor(SPEC, create_encoder(SPEC))
    segments = list(extractor.stream(samples, source_rate_hz=RATE_HZ))
    hits = [hit for segment in segments for hit in segment.hits] + list(extractor.flush_hits())
    assert {hit.pitch for hit in hits} >= {36, 38, 42}
    assert len(hits) == pytest.approx(len(heard(samples)), abs=2)  # the front end's high-pass lies between
