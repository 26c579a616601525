"""Sound from one file and notes from another, aligned."""

from dataclasses import replace
from pathlib import Path

import mido
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from musichal.audio.instrument import EmbeddedInstrument, render_notes
from musichal.audio.midi_take import Control, Label, MidiTake
from musichal.cli import app
from musichal.errors import InputError
from musichal.evaluate import parity
from musichal.memory.partner_file import load_partner
from musichal.note import HeardNote, Note
from musichal.training.alignment import NoteAlignment, Sounding, align_notes


def song(seed: int, *, bars: int = 20) -> tuple[HeardNote, ...]:
    rng = np.random.default_rng(seed)
    scale, notes, at_s = np.array([0, 2, 4, 5, 7, 9, 11]), [], 0.3
    for _ in range(bars * 4):
        length_s = float(rng.choice([0.25, 0.5, 0.75]))
        notes.append(HeardNote(at_s, 0.9 * length_s, int(60 + rng.choice(scale)), int(rng.integers(50, 110))))
        at_s += length_s
    return tuple(notes)


def take_of(notes, *, offset_s: float = 0.0, speed: float = 1.0) -> MidiTake:
    moved = [replace(n, onset_s=offset_s + speed * n.onset_s, duration_s=speed * n.duration_s) for n in notes]
    return MidiTake(tuple(n for n in moved if n.onset_s >= 0), (), np.zeros(0), np.zeros(0))


@settings(max_examples=15)
@given(seed=st.integers(0, 99), offset_s=st.floats(-3, 3), drift=st.floats(-0.005, 0.005), bars=st.sampled_from([8, 20, 40]))
def test_offset_and_drift_are_found(seed, offset_s, drift, bars):
    notes = song(seed, bars=bars)
    sound = Sounding.of_notes("sound", take_of(notes))
    found = align_notes(sound, take_of(notes, offset_s=offset_s, speed=1 + drift), name="notes")
    at_s = np.array([3.0, notes[-1].onset_s])
    assert found.offset_s + (1 + found.drift) * at_s == pytest.approx(offset_s + (1 + drift) * at_s, abs=0.02)
    moved = found.moved(take_of(notes, offset_s=offset_s, speed=1 + drift), duration_s=1000)
    kept = notes[-len(moved.notes) :]
    assert [n.onset_s for n in moved.notes] == pytest.approx([n.onset_s for n in kept], abs=0.02)
    assert [n.velocity for n in moved.notes] == [n.velocity for n in kept]


def test_what_was_set_before_the_recording_begins_holds_from_there_on():
    pedal, bend, late = (
        Control(at_s, data) for at_s, data in ((0.0, b"\xb0\x40\x7f"), (1.3, b"\xe0\x00\x50"), (9.3, b"\xc0\x05"))
    )
    labels = [
        (0.0, "marker", "Count"),
        (0.1, "marker", "Intro"),
        (0.2, "lyric", "Oh"),
        (2.3, "marker", "Verse"),
        (9.3, "text", "end"),
    ]
    take = MidiTake(
        (), (), np.zeros(0), np.zeros(0), controls=(pedal, bend, late), labels=tuple(Label(*label) for label in labels)
    )
    moved = NoteAlignment(offset_s=0.3, drift=0.0, agreement=2.0).moved(take, duration_s=8.0)
    assert moved.controls == (replace(pedal, time_s=0.0), replace(bend, time_s=1.0))
    assert moved.labels == (Label(0.0, "marker", "Intro"), Label(pytest.approx(2.0), "marker", "Verse"))


@pytest.mark.parametrize("seed", range(5))
def test_another_song_is_refused_with_the_measure(seed):
    with pytest.raises(InputError, match=r"not of one performance: .* agree by 0\.\d+ at best"):
        align_notes(Sounding.of_notes("sound", take_of(song(seed))), take_of(song(seed + 50)), name="notes")


@pytest.fixture(scope="module")
def take(tmp_path_factory) -> tuple[Path, Path]:
    """A recording that begins 1.3 s after its MIDI file."""
    folder = tmp_path_factory.mktemp("take")
    notes = song(7, bars=8)
    sound = render_notes([Note(n.onset_s, n.duration_s, n.pitch, n.velocity) for n in notes], EmbeddedInstrument())
    soundfile.write(folder / "take.wav", sound[round(1.3 * 44_100) :], 44_100)
    events = [(n.onset_s, mido.Message("note_on", note=n.pitch, velocity=n.velocity)) for n in notes]
    events += [(n.onset_s + n.duration_s, mido.Message("note_off", note=n.pitch)) for n in notes]
    track, before = mido.MidiTrack(), 0
    for at_s, message in sorted(events, key=lambda event: event[0]):
        track.append(message.copy(time=round(at_s * 960) - before))
        before = round(at_s * 960)
    mido.MidiFile(tracks=[track], ticks_per_beat=480).save(folder / "take.mid")
    return folder / "take.wav", folder / "take.mid"


def test_a_partner_of_sound_and_notes_has_the_notes_where_they_sound_and_is_heard_as_it_was(take, tmp_path):
    sound, notes = take
    run = CliRunner().invoke(app, ["train", str(sound), "--notes", str(notes), "-o", str(tmp_path / "p.hal")])
    assert run.exit_code == 0, run.output
    model = load_partner(tmp_path / "p.hal")
    kept = [n for n in song(7, bars=8) if n.onset_s >= 1.3]
    assert sorted(model.memory.notes["velocity"].tolist()) == sorted(n.velocity for n in kept)
    assert model.recordings[0].take.notes[0].onset_s == pytest.approx(kept[0].onset_s - 1.3, abs=0.02)
    found = parity(model, model.recordings[0].samples(), 44_100)
    assert not [check for check in found.checks if not check.passed]


def test_notes_of_another_song_and_too_many_are_refused(take, tmp_path):
    sound, notes = take
    for arguments, why in (
        ([str(sound), "--notes", str(notes), "--notes", str(notes)], "2 times"),
        ([str(sound), "--notes", str(sound)], "not a standard MIDI file"),
    ):
        run = CliRunner().invoke(app, ["train", *arguments, "-o", str(tmp_path / "p.hal")])
        assert run.exit_code == 2
        assert why in run.output
        assert not (tmp_path / "p.hal").exists()
