"""Reading standard MIDI files."""

import io
import struct
from contextlib import suppress

import mido
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musichal.audio import score as score_module
from musichal.audio.instrument import EmbeddedInstrument
from musichal.audio.midi_recording import read_midi_recording, read_take
from musichal.audio.midi_take import MidiChoice
from musichal.audio.score import chosen, melody_of, parse_midi_channels, parse_score, read_score, render_tracks
from musichal.errors import InputError


def midi_bytes(*tracks, kind=1, ticks_per_beat=480):
    midi = mido.MidiFile(type=kind, ticks_per_beat=ticks_per_beat)
    midi.tracks += [mido.MidiTrack(messages) for messages in tracks]
    out = io.BytesIO()
    midi.save(file=out)
    return out.getvalue()


def meta(kind, **values):
    return mido.MetaMessage(kind, **values)


def played(*notes, channel=0, program=None, name=""):
    """Return a track of (tick, ticks, pitch)."""
    events = [(0, mido.Message("program_change", channel=channel, program=program))] if program is not None else []
    for tick, ticks, pitch in notes:
        events.append((tick, mido.Message("note_on", channel=channel, note=pitch, velocity=80)))
        events.append((tick + ticks, mido.Message("note_off", channel=channel, note=pitch)))
    events.sort(key=lambda event: (event[0], event[1].type == "note_on"))
    track, before = [meta("track_name", name=name)], 0
    for tick, message in events:
        track.append(message.copy(time=tick - before))
        before = tick
    return track


BAND = midi_bytes(
    played(*((i * 240, 200, 60 + i * 5 % 12) for i in range(16)), name="Lead"),
    played((0, 480, 36), (480, 480, 38), channel=2, name="Bass"),
    played((0, 60, 42), channel=9, name="Kit"),
)


def test_times_follow_the_tempo_map_whatever_track_it_is_in():
    tempo = [meta("set_tempo", tempo=500_000), meta("set_tempo", tempo=1_000_000, time=960)]
    data = midi_bytes(played((0, 480, 60), (960, 480, 62), (1440, 240, 64), program=73, name="Flute"), tempo)
    score = parse_score(data, name="x.mid")
    (track,) = score.tracks
    assert (track.name, track.program, track.channel) == ("Flute", 73, 0)
    assert [(n.onset_s, n.duration_s, n.pitch) for n in track.notes] == [(0.0, 0.5, 60), (1.0, 1.0, 62), (2.0, 0.5, 64)]
    assert score.beats_s.tolist() == [0.0, 0.5, 1.0, 2.0, 3.0], "up to the first beat behind the last note"
    assert score.downbeats_s.tolist() == [0.0, 3.0]


def test_bars_follow_the_time_signatures():
    meters = [
        meta("time_signature", numerator=3, denominator=4),
        meta("time_signature", numerator=6, denominator=8, time=1440),
        meta("time_signature", numerator=2, denominator=4, time=1440),
    ]
    score = parse_score(midi_bytes(meters, played((0, 4800, 60))), name="x.mid")
    assert score.beats_s.tolist() == [0.0, 0.5, 1.0, 1.5, 2.25, 3.0, 3.5, 4.0, 4.5, 5.0]
    assert score.downbeats_s.tolist() == [0.0, 1.5, 3.0, 4.0, 5.0]


def test_a_track_on_two_channels_is_two_and_a_note_without_end_ends_with_it():
    messages = [mido.Message("note_on", note=60, velocity=9), mido.Message("note_on", note=36, channel=9, time=480)]
    messages.append(meta("text", text="end", time=480))
    score = parse_score(midi_bytes(messages), name="x.mid")
    assert [(t.channel, t.is_drums, t.notes[0].duration_s) for t in score.tracks] == [(0, False, 1.0), (9, True, 0.5)]


def test_the_melody_is_the_line_and_not_bass_chords_or_drums():
    line = [(i * 240, 200, 60 + i * 5 % 12) for i in range(64)]
    bass = [(i * 240, 200, 36 + i * 5 % 12) for i in range(64)]
    chords = [(i * 480, 400, pitch) for i in range(32) for pitch in (60, 64 + i % 3, 67)]
    hits = [(i * 240, 60, 42) for i in range(64)]
    data = midi_bytes(
        played(*chords, channel=1, name="Keys"), played(*bass, channel=2, program=33, name="Bass"),
        played(*line, channel=3, name="Lead"), played(*hits, channel=9, name="Drums"),
    )  # fmt: skip
    score = parse_score(data, name="x.mid")
    assert melody_of(score) is score.track("lead") is score.track("3")
    with pytest.raises(InputError, match=r"no track 'Horn'; there are: 1 Keys, 2 Bass, 3 Lead, 4 Drums"):
        score.track("Horn")


@pytest.mark.parametrize(
    ("tracks", "channels", "names"),
    [
        ((), (), ["Lead", "Bass", "Kit"]),
        (("melody",), (), ["Lead"]),
        (("no-drums",), (), ["Lead", "Bass"]),
        ((" kit", "1"), (), ["Lead", "Kit"]),
        (("drums",), (), ["Kit"]),
        ((), (3, 10), ["Bass", "Kit"]),
        (("no-drums",), (3,), ["Bass"]),
    ],
)
def test_tracks_are_chosen_by_name_number_word_and_channel(tracks, channels, names):
    score = chosen(parse_score(BAND, name="band"), MidiChoice(tracks, frozenset(channels)))
    assert [track.name for track in score.tracks] == names


@pytest.mark.parametrize(
    ("tracks", "channels", "message"),
    [
        (("Flute",), (), "no track 'Flute'; there are: 1 Lead, 2 Bass, 3 Kit"),
        (("drums",), (1,), r"nothing is left of the chosen tracks and channels; there are: 1 Lead \(channel 1\), 2 Bass"),
    ],
)
def test_a_choice_of_nothing_is_refused_with_what_there_is(tracks, channels, message):
    with pytest.raises(InputError, match=message):
        chosen(parse_score(BAND, name="band"), MidiChoice(tracks, frozenset(channels)))


def test_what_is_not_chosen_is_not_heard(tmp_path):
    for name, data in (
        ("band.mid", BAND),
        ("bass.mid", midi_bytes(played((0, 480, 36), (480, 480, 38), channel=2, name="Bass"))),
    ):
        (tmp_path / name).write_bytes(data)
    band = read_midi_recording(tmp_path / "band.mid", MidiChoice(("Bass",)))
    bass = read_midi_recording(tmp_path / "bass.mid")
    assert (band.take.notes, band.samples.tolist()) == (bass.take.notes, bass.samples.tolist())


def test_channels_are_numbers_and_ranges():
    assert parse_midi_channels("1-3, 16") == {1, 2, 3, 16}
    for wrong in ("", "0", "17", "3-1", "1;2", "x"):
        with pytest.raises(InputError, match="MIDI channels are numbers from 1 to 16"):
            parse_midi_channels(wrong)


def test_a_change_of_tempo_moves_notes_and_beats_alike():
    score = parse_score(midi_bytes(played((0, 480, 60), (960, 960, 62))), name="x.mid").with_tempo(2.0, from_s=1.5)
    assert [(n.onset_s, n.duration_s) for n in score.tracks[0].notes] == [(0.0, 0.5), (1.0, 0.75)]
    assert score.beats_s.tolist() == [0.0, 0.5, 1.0, 1.5, 1.75]


def test_rendered_notes_sound_where_the_score_has_them():
    score = parse_score(midi_bytes(played((480, 240, 60), (1440, 240, 67))), name="x.mid")
    sound = render_tracks(score.tracks, EmbeddedInstrument(), sample_rate_hz=8000, duration_s=2.5)
    assert sound.shape == (20000,)
    assert np.abs(sound[:4000]).max() == 0
    assert np.abs(sound[4000:4400]).max() > 0.01
    assert np.abs(sound[11000:12000]).max() < np.abs(sound[12000:12400]).max() <= 1


def test_songs_of_type_2_come_one_behind_the_other():
    score = parse_score(midi_bytes(played((0, 480, 60)), played((480, 480, 62)), kind=2), name="x.mid")
    assert [(t.notes[0].pitch, t.notes[0].onset_s) for t in score.tracks] == [(60, 0.0), (62, pytest.approx(1.0))]


@pytest.mark.parametrize(("frames_hz", "ticks", "tick_s"), [(25, 40, 1 / 1000), (29, 80, 1001 / 30_000 / 80), (24, 4, 1 / 96)])
def test_time_in_film_frames_is_read(frames_hz, ticks, tick_s):
    data = bytearray(midi_bytes([meta("set_tempo", tempo=123_456)], played((1000, 1000, 60))))
    data[12:14] = bytes((256 - frames_hz, ticks))
    note = parse_score(bytes(data), name="x.mid").tracks[0].notes[0]
    assert (note.onset_s, note.duration_s) == (pytest.approx(1000 * tick_s, abs=1e-4), pytest.approx(1000 * tick_s, abs=1e-4))


def test_a_midi_file_in_a_riff_container_is_read():
    data = midi_bytes(played((0, 480, 60)))
    riff = b"RIFF" + (len(data) + 12).to_bytes(4, "little") + b"RMIDdata" + len(data).to_bytes(4, "little") + data
    assert parse_score(riff, name="x.rmi").tracks[0].notes[0].pitch == 60


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"RIFF", "x.mid is not a standard MIDI file"),
        (b"MThd\0\0\0\6\0\1", "x.mid is a damaged MIDI file"),
        (midi_bytes([]), "x.mid: there is no note in this MIDI file"),
        (
            midi_bytes([meta("set_tempo", tempo=0)], played((0, 1, 60))),
            "x.mid: a tempo of 0 µs a quarter note cannot be played",
        ),
        (
            midi_bytes(played((200_000_000, 1, 60)), ticks_per_beat=1),
            "x.mid: this MIDI file lasts 27777.8 hours; the longest that is read is 4 hours",
        ),
    ],
)
def test_what_is_no_score_is_one_line(data, message):
    with pytest.raises(InputError) as caught:
        parse_score(data, name="x.mid")
    assert str(caught.value) == message


def test_a_key_that_there_is_not_is_passed_over():
    data = midi_bytes([meta("key_signature", key="F"), *played((0, 480, 60))])
    assert parse_score(data.replace(b"\xff\x59\x02\xff\0", b"\xff\x59\x02\xff\xff"), name="x").duration_s == 0.5


def test_a_pause_of_an_hour_is_refused():
    with pytest.raises(InputError, match="for 60 minutes no note begins"):
        parse_score(midi_bytes(played((0, 480, 60), (960 * 3600, 480, 62))), name="x")


def test_a_million_notes_are_refused_at_once():
    notes = b"\0\x3c\x40\1\x3c\0" * 1_000_000
    data = b"MThd" + struct.pack(">IHHH4sI", 6, 0, 1, 480, b"MTrk", len(notes) + 2) + b"\0\x90" + notes
    with pytest.raises(InputError, match=r"of more than 2\.5 MB is not read"):
        parse_score(data, name="black.mid")


def test_running_status_thirty_tracks_empty_ones_and_notes_without_length_are_read(tmp_path):
    thirty = [played((0, 480, 40 + n), channel=n % 9, name=f"part {n}") for n in range(30)]
    assert len(parse_score(midi_bytes([], *thirty, []), name="x").tracks) == 30
    # Running status: three notes after one status byte, the last of no length; no tempo.
    body = b"\0\x90\x3c\x40\x60\x3c\0\0\x40\x40\x60\x40\0\0\x43\x40\0\x43\0\0\xff\x2f\0"
    data = b"MThd" + struct.pack(">IHHH4sI", 6, 0, 1, 96, b"MTrk", len(body)) + body
    (tmp_path / "x.mid").write_bytes(data)
    notes = read_midi_recording(tmp_path / "x.mid").take.notes
    assert [(n.onset_s, n.duration_s, n.pitch) for n in notes] == [(0, 0.5, 60), (0.5, 0.5, 64), (1.0, 0.005, 67)]


def test_markers_lyrics_and_texts_are_labels_and_markers_name_regions(tmp_path):
    texts = [
        meta("text", text="@KMIDI KARAOKE FILE"), meta("marker", text="Intro"),
        meta("lyrics", text="/Hé".encode().decode("latin-1"), time=480),
        meta("cue_marker", text="Verse", time=480), meta("text", text="\\la", time=480),
    ]  # fmt: skip
    (tmp_path / "x.mid").write_bytes(midi_bytes(texts, played((0, 1920, 60))))
    take = read_take(tmp_path / "x.mid")
    assert [(label.time_s, label.kind, label.text) for label in take.labels] == [
        (0.0, "marker", "Intro"), (0.5, "lyric", "Hé"), (1.0, "marker", "Verse"), (1.5, "text", "la"),
    ]  # fmt: skip
    assert take.regions(duration_s=2.0) == (("Intro", 0.0, 1.0), ("Verse", 1.0, 2.0))


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*none\.mid: "):
        read_score(tmp_path / "none.mid")


def test_too_many_notes_are_refused(monkeypatch):
    monkeypatch.setattr(score_module, "MOST_NOTES", 3)
    with pytest.raises(InputError, match="more than 3 notes"):
        parse_score(midi_bytes(played((0, 1, 60), (5, 1, 61)), played((0, 1, 60), (5, 1, 61))), name="x.mid")


WHOLE = midi_bytes(
    [meta("set_tempo", tempo=400_000), meta("time_signature", numerator=3, denominator=4), meta("key_signature", key="C")],
    played((0, 480, 60), (480, 480, 64), name="a"),
    played((0, 480, 36), channel=9, name="b"),
)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=8), st.integers(0, len(WHOLE)))
def test_damaged_files_are_read_or_refused(changes, length):
    data = bytearray(WHOLE)
    for place, value in changes:
        data[place] = value
    with suppress(InputError):
        score = parse_score(bytes(data[:length] if length % 3 == 0 else data), name="x.mid")
        assert np.all(np.diff(score.beats_s) > 0)
        assert all(n.onset_s >= 0 and n.duration_s > 0 for track in score.tracks for n in track.notes)
        assert score.beats_s[-1] >= score.duration_s - 1e-6 or len(score.beats_s) == 1


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 2000), st.integers(0, 127)), min_size=1, max_size=30))
def test_all_notes_are_read(notes):
    apart, last = [], {}
    for tick, ticks, pitch in sorted(notes):
        if tick >= last.get(pitch, 0):  # one note of a pitch at a time
            apart.append((tick, ticks, pitch))
            last[pitch] = tick + ticks
    (track,) = parse_score(midi_bytes(played(*apart)), name="x.mid").tracks
    read = [(round(n.onset_s * 960), round(n.duration_s * 960), n.pitch) for n in track.notes]
    shortest = 0.005 * 960
    assert read == sorted(
        ((tick, max(ticks, round(shortest)), pitch) for tick, ticks, pitch in apart), key=lambda r: (r[0], r[2])
    )
