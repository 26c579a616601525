import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.note_quality import group_quality, heard_notes, note_scores
from benchmarks.scores import (
    INSTRUMENTS,
    Rendering,
    ScoreNote,
    chorales,
    detuned,
    drum_loops,
    drummed,
    render_notes,
    single_lines,
)
from musichal.audio import instrument as embedded
from musichal.errors import InputError
from musichal.hearing.front_end import FrontEnd
from musichal.hearing.model_weights import model_digest, model_weights
from musichal.hearing.note_frames import AHEAD_FRAMES, FRAMES_PER_S, LOWEST_NOTE, N_NOTES, NoteFrontEnd
from musichal.hearing.notes import NoteModel, NoteTracker, velocity_of
from musichal.hearing.percepts import Window
from musichal.note import HeardNote, Note
from musichal.spec import NoteSpec, PerceptionSpec

AUDIO = Path(__file__).parent / "audio"
RATE = 24000
SPEC = PerceptionSpec()


def scale(pitches: Sequence[int], *, step_s: float = 0.4, duration_s: float = 0.35, program: int = 0) -> list[ScoreNote]:
    return [ScoreNote(0.25 + i * step_s, duration_s, p, 90, program) for i, p in enumerate(pitches)]


def rendering(notes: Sequence[ScoreNote]) -> Rendering:
    return Rendering("test", render_notes(notes), RATE, tuple(notes), ())


def sine(frequency_hz: float, *, seconds: float, level: float = 0.2) -> np.ndarray:
    t = np.arange(int(seconds * RATE)) / RATE
    return (level * np.sin(2 * np.pi * frequency_hz * t)).astype(np.float32)


def windows_of(samples: np.ndarray, spec: PerceptionSpec = SPEC) -> list[Window]:
    results = FrontEnd(spec, source_rate_hz=spec.sample_rate_hz).stream(samples)
    return [window for result in results for window in result.windows]


def recording(name: str, seconds: float = 20.0) -> np.ndarray:
    samples, rate = soundfile.read(AUDIO / name, dtype="float32", always_2d=True)
    return soxr.resample(samples.mean(axis=1)[: int(seconds * rate)], rate, RATE).astype(np.float32)


@pytest.mark.parametrize("program", [0, 24, 40, 73])
def test_a_scale_is_heard_note_by_note(program: int) -> None:
    notes = scale([60, 62, 64, 65, 67, 69, 71, 72], program=program)
    heard = heard_notes(render_notes(notes), SPEC)
    assert [n.pitch for n in heard] == [n.pitch for n in notes]
    for note, truth in zip(heard, notes, strict=True):
        # A blown note has no sharp beginning; 50 ms is what transcription is usually held to.
        assert abs(note.onset_s - truth.onset_s) < (0.03 if program in (0, 24) else 0.05)
        # What a player hears may ring on after the key is released, but not into the note after the next.
        assert 0.15 < note.duration_s < 0.8


@pytest.mark.parametrize(
    "chord", [(48, 55, 64), (60, 64, 67), (57, 60, 64), (50, 57, 62, 66), (55, 59, 62, 65), (62, 65, 69, 72)]
)
def test_chords_have_their_notes(chord: tuple[int, ...]) -> None:
    notes = [ScoreNote(0.25 + 0.8 * i, 0.7, p, 90, program) for i, program in enumerate((0, 24, 48)) for p in chord]
    quality = note_scores(rendering(notes), heard_notes(render_notes(notes), SPEC))
    assert quality[0] >= 0.8
    assert quality[1] >= 0.7


@pytest.mark.parametrize("program", [0, 24])
def test_repeated_notes_are_struck_again(program: int) -> None:
    notes = scale([64] * 8, step_s=0.25, duration_s=0.22, program=program)
    heard = heard_notes(render_notes(notes), SPEC)
    assert [n.pitch for n in heard] == [64] * 8
    np.testing.assert_allclose([n.onset_s for n in heard], [n.onset_s for n in notes], atol=0.03)


REPEATED = json.loads((Path(__file__).parent / "repeated_notes.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", REPEATED["struck"], ids=lambda case: case["name"])
def test_each_stroke_of_a_repeated_note_is_a_note_and_an_onset(case: dict[str, Any]) -> None:
    every_s, pitch = case["every_s"], case["pitch"]
    notes = [ScoreNote(0.25 + i * every_s, case["lasts_s"], pitch, 90, case["program"]) for i in range(case["count"])]
    samples = render_notes(notes)
    heard = [n for n in heard_notes(samples, SPEC) if n.pitch == pitch]
    least, most = case["notes"]
    assert least <= len(heard) <= most
    times = np.array([n.onset_s for n in heard])
    # A blown note begins late: what counts is one note to each stroke.
    assert np.diff(times).min() > 0.6 * every_s
    onsets = FrontEnd(SPEC, source_rate_hz=RATE).push(samples).onsets
    assert abs(len(onsets) - case["onsets"]) <= 1


@pytest.mark.parametrize(("pitch", "every_s"), [(40, 0.08), (60, 0.125), (84, 0.25)])
def test_each_stroke_of_the_embedded_instrument_is_a_note(pitch: int, every_s: float) -> None:
    notes = [Note(0.25 + i * every_s, 0.9 * every_s, pitch, 90, 0) for i in range(24)]
    samples = embedded.render_notes(notes, embedded.EmbeddedInstrument(), sample_rate_hz=RATE, programs={0: 4}).mean(axis=1)
    heard = [n for n in heard_notes(samples, SPEC) if n.pitch == pitch]
    assert 22 <= len(heard) <= 24


@pytest.mark.parametrize("case", REPEATED["held"], ids=lambda case: case["name"])
def test_what_is_held_is_not_struck_again(case: dict[str, Any]) -> None:
    samples = render_notes([ScoreNote(0.25, 4.0, pitch, 90, case["program"]) for pitch in case["pitches"]])
    heard = heard_notes(samples, SPEC)
    assert set(case["pitches"]) <= {n.pitch for n in heard}
    assert len(heard) <= case["most"]


def test_a_chord_that_sounds_before_anyone_listens_has_its_notes() -> None:
    chord = (48, 55, 64)
    samples = render_notes([ScoreNote(0.25, 12.0, pitch, 90, 48) for pitch in chord])[RATE : 7 * RATE]
    heard = [n for n in heard_notes(samples, SPEC) if n.pitch in chord]
    assert {n.pitch for n in heard} == set(chord)
    assert all(n.onset_s < 1.0 and n.duration_s > 3.0 for n in heard)


@pytest.mark.parametrize("program", [16, 19])
def test_a_held_organ_chord_has_notes_of_the_chord(program: int) -> None:
    samples = render_notes([ScoreNote(0.25, 12.0, pitch, 90, program) for pitch in (48, 55, 64)])[RATE : 9 * RATE]
    heard = heard_notes(samples, SPEC)
    # An organ sounds octaves and fifths of its keys: which of them are heard is open.
    long = [n for n in heard if n.duration_s > 2]
    assert long
    assert {n.pitch % 12 for n in long} <= {0, 4, 7, 11, 2}


def test_every_pitch_from_c2_to_c7_is_heard_as_itself() -> None:
    pitches = list(range(36, 97))
    found = note_scores(rendering(scale(pitches)), heard_notes(render_notes(scale(pitches)), SPEC))
    assert found[1] >= 0.93
    assert found[0] >= 0.9


@pytest.mark.parametrize("cents", [-35.0, 35.0])
def test_a_detuned_instrument_keeps_its_pitches(cents: float) -> None:
    piece = detuned(rendering(scale([48, 55, 60, 64, 67, 72, 79, 84])), cents=cents)
    assert note_scores(piece, heard_notes(piece.samples, SPEC))[2] >= 0.9


def test_what_has_no_notes_yields_none() -> None:
    rng = np.random.default_rng(1)
    silence = np.zeros(RATE * 4, np.float32)
    assert heard_notes(silence, SPEC) == []
    assert heard_notes(silence + np.float32(0.5), SPEC) == []  # an offset, switched on
    for level in (1e-4, 0.01, 0.3):
        noise = (level * rng.normal(size=RATE * 4)).astype(np.float32)
        assert len(heard_notes(noise, SPEC)) <= 1
    quiet_room = (1e-4 * np.cumsum(rng.normal(size=RATE * 4)) / 50).astype(np.float32)
    assert len(heard_notes(quiet_room, SPEC)) <= 1


def test_drums_alone_yield_few_notes() -> None:
    assert group_quality("drums", drum_loops("test", length_s=6.0), SPEC).notes_per_s < 0.5


@pytest.mark.parametrize("pitch", [57, 69, 81])
def test_a_steady_sine_is_one_note(pitch: int) -> None:
    tone = np.concatenate([np.zeros(RATE // 2, np.float32), sine(440 * 2 ** ((pitch - 69) / 12), seconds=4)])
    heard = heard_notes(tone, SPEC)
    assert [n.pitch for n in heard] == [pitch]
    assert abs(heard[0].onset_s - 0.5) < 0.03


def test_velocity_rises_with_level() -> None:
    loud = render_notes(scale([60]))
    velocities = [heard_notes(loud * np.float32(10 ** (-db / 20)), SPEC)[0].velocity for db in (0, 6, 12, 18, 24)]
    assert velocities == sorted(velocities, reverse=True)
    assert len(set(velocities)) == 5


@given(st.floats(-200, 50), st.floats(-200, 50))
def test_velocity_is_monotone_and_in_range(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert 1 <= velocity_of(low) <= velocity_of(high) <= 127


def test_level_does_not_change_what_is_heard() -> None:
    notes = scale([60, 64, 67, 72])
    for gain in (0.1, 2.0):
        heard = heard_notes(render_notes(notes) * np.float32(gain), SPEC)
        assert [n.pitch for n in heard] == [60, 64, 67, 72]


def test_two_trackers_interleaved_hear_what_each_hears_alone() -> None:
    one, other = recording("rock140_guitar.ogg", 7), recording("ballad95_guitar.ogg", 7)
    alone = [heard_notes(one, SPEC), heard_notes(other, SPEC), heard_notes(one, SPEC)]
    trackers = [NoteTracker(SPEC), NoteTracker(SPEC)]
    together: list[list[HeardNote]] = [[], []]
    for pair in zip(windows_of(one), windows_of(other), strict=True):
        for i, window in enumerate(pair):
            together[i] += trackers[i].step(window)
    for i in (0, 1):
        together[i] = sorted(together[i] + trackers[i].flush(), key=lambda n: (n.onset_s, n.pitch))
    assert alone[0]
    assert alone[0] == alone[2]
    assert together == alone[:2]


def test_only_the_past_is_used() -> None:
    samples = recording("rock140_guitar.ogg", 7)
    changed = samples.copy()
    changed[8400 * 12 :] = 0
    outputs = []
    for version in (samples, changed):
        tracker = NoteTracker(SPEC)
        outputs.append([tracker.step(w) for w in windows_of(version)])
    assert outputs[0][:12] == outputs[1][:12]
    assert sum(map(len, outputs[0][:12])) > 0


@pytest.mark.parametrize(
    "spec",
    [
        PerceptionSpec(hop_samples=4200),
        PerceptionSpec(context_samples=0),
        PerceptionSpec(segment_samples=12000, hop_samples=12000),
    ],
)
def test_segmentation_does_not_move_notes(spec: PerceptionSpec) -> None:
    samples = render_notes(scale([60, 64, 67, 72, 48, 55]))
    expected, heard = heard_notes(samples, SPEC), heard_notes(samples, spec)
    assert [n.pitch for n in heard] == [n.pitch for n in expected]
    np.testing.assert_allclose([n.onset_s for n in heard], [n.onset_s for n in expected], atol=1e-3)


def test_behind_skipped_segments_times_are_right_and_nothing_hangs() -> None:
    notes = [ScoreNote(0.25, 9.0, 60, 90, 19), ScoreNote(6.0, 0.5, 76, 90, 0)]
    windows = windows_of(render_notes(notes))
    tracker, heard = NoteTracker(SPEC), []
    for window in windows[:6] + windows[12:]:
        heard += tracker.step(window)
    heard += tracker.flush()
    organ = [n for n in heard if n.pitch == 60]
    gap_start, gap_end = 6 * 0.35, 12 * 0.35
    assert all(n.onset_s + n.duration_s <= gap_start + 0.02 or n.onset_s >= gap_end - 0.02 for n in heard)
    assert organ
    assert any(n.pitch == 76 and abs(n.onset_s - 6.0) < 0.03 for n in heard)
    assert tracker.flush() == []


@given(st.data())
def test_notes_are_well_formed_whatever_is_heard(data: st.DataObject) -> None:
    seed, n = data.draw(st.integers(0, 2**32 - 1)), data.draw(st.integers(0, 30000))
    rng = np.random.default_rng(seed)
    samples = rng.uniform(-1, 1, n).astype(np.float32) * np.float32(data.draw(st.sampled_from([0.0, 1e-30, 1e-3, 1.0, 8.0])))
    samples += sine(float(rng.uniform(20, 11000)), seconds=n / RATE + 1)[:n]
    heard = heard_notes(samples, SPEC)
    for note in heard:
        assert 0 <= note.onset_s <= note.onset_s + note.duration_s <= n / RATE + 1e-9
        assert note.duration_s >= NoteSpec().min_duration_s
        assert LOWEST_NOTE <= note.pitch < LOWEST_NOTE + N_NOTES
        assert 1 <= note.velocity <= 127
    for a in heard:
        later = [b for b in heard if b.pitch == a.pitch and b.onset_s > a.onset_s]
        assert all(b.onset_s >= a.onset_s + a.duration_s - 0.02 for b in later)


def test_frames_do_not_depend_on_blocks() -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 30000).astype(np.float32)
    whole, parts = NoteFrontEnd(RATE), NoteFrontEnd(RATE)
    expected = np.concatenate([whole.push(samples).long, whole.flush().long])
    found = np.concatenate([*(parts.push(samples[i : i + 777]).long for i in range(0, 30000, 777)), parts.flush().long])
    np.testing.assert_array_equal(found, expected)
    assert len(expected) == 30000 // (RATE // FRAMES_PER_S) + 1
    assert len(expected) > AHEAD_FRAMES


def test_a_tone_is_where_its_pitch_looks() -> None:
    front_end = NoteFrontEnd(RATE)
    views = front_end.push(sine(440 * 2 ** ((60 - 69) / 12), seconds=1.0))
    # Column 1 is the fundamental itself, of eight harmonics with their neighbours.
    assert int(views.long[30, :, 1].argmax()) == 60 - LOWEST_NOTE
    assert views.long[30, 60 - LOWEST_NOTE, 1] == pytest.approx(1.0, abs=0.01)
    assert views.reference_db[30] == pytest.approx(20 * np.log10(0.2), abs=2.0)


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
def test_other_rates_hear_the_same_pitches(rate: int) -> None:
    spec = PerceptionSpec(sample_rate_hz=rate, segment_samples=rate // 2, hop_samples=rate // 2, context_samples=0)
    samples = soxr.resample(render_notes(scale([55, 60, 64, 67])), RATE, rate).astype(np.float32)
    assert [n.pitch for n in heard_notes(samples, spec)] == [55, 60, 64, 67]


def test_settings_out_of_range_are_refused() -> None:
    for bad in ({"begin": 0.0}, {"sound": 1.0}, {"min_duration_s": -1.0}):
        with pytest.raises(InputError):
            NoteSpec(**bad)


def test_the_packaged_model_is_small_and_identified() -> None:
    assert len(model_digest("note")) == 64
    n = NoteFrontEnd(RATE).push(np.zeros(RATE, np.float32))
    model = NoteModel()
    probability = model.second_look(*model.first_look(n))
    assert len(probability) > 20
    assert probability.max() < 0.05


def test_quality_on_single_lines() -> None:
    quality = group_quality("lines", single_lines("test", per_instrument=1, instruments=INSTRUMENTS[:3], length_s=5.0), SPEC)
    assert quality.f_measure >= 0.85


@pytest.mark.slow
def test_quality_on_polyphony() -> None:
    quality = group_quality("chorales", chorales("test", limit=5, length_s=7.0), SPEC)
    assert quality.f_measure >= 0.7
    assert quality.precision >= 0.7


@pytest.mark.slow
def test_quality_under_drums() -> None:
    assert group_quality("drummed", drummed("test", length_s=6.0)[:3], SPEC).f_measure >= 0.5


@pytest.mark.parametrize("name", ["rock140_guitar.ogg", "ballad95_guitar.ogg", "rock140_mix.ogg"])
def test_real_recordings_give_plausible_notes(name: str) -> None:
    heard = heard_notes(recording(name), SPEC)
    assert 1.0 < len(heard) / 20.0 < 16.0
    assert 40 <= np.median([n.pitch for n in heard]) <= 80
    assert 0.08 < np.median([n.duration_s for n in heard]) < 1.5


def test_another_note_model_than_the_partners_is_refused() -> None:
    spec = PerceptionSpec(notes=NoteSpec(digest="0" * 64))
    with pytest.raises(InputError, match="0000.*this MusicHal has " + model_digest("note")):
        NoteTracker(spec)
    NoteTracker(PerceptionSpec(notes=NoteSpec(digest=model_digest("note"))))


def test_a_network_takes_only_the_features_that_it_was_trained_on() -> None:
    with pytest.raises(ValueError, match=r"^w0 of the drum model must have 799 rows, got 800$"):
        model_weights("drum", {"w0": 799})
