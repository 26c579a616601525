"""MIDI files: of a whole answer, and one that grows while it is played."""

import hashlib
import io
import itertools
import math

import mido
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midi_notes import read_midi_notes
from musichal.live.output.midi_file import LONGEST_TIME_S, MidiRecorder, balance, midi_bytes, to_ticks
from musichal.live.output.note_scheduler import NoteScheduler
from musichal.note import Note, Slice

# Few keys and short times, so that notes collide in every way; and now and then any value at all.
crowded = st.builds(
    Note,
    onset_s=st.integers(0, 60).map(lambda n: n / 1500),
    duration_s=st.sampled_from([1e-9, 0.0004, 0.001, 0.0016, 0.01, 0.04]),
    pitch=st.integers(60, 61),
    velocity=st.integers(1, 127),
    channel=st.integers(0, 1),
)
anything = st.builds(
    Note,
    onset_s=st.floats(0, LONGEST_TIME_S / 2),
    duration_s=st.floats(0, LONGEST_TIME_S / 2, exclude_min=True),
    pitch=st.integers(0, 127),
    velocity=st.integers(1, 127),
    channel=st.integers(0, 15),
)
answers = st.lists(crowded | anything, max_size=40)
ANSWER = [Note(0.0, 0.5, 60, 100), Note(0.25, 0.5, 60, 90), Note(1.001, 0.0005, 64, 1), Note(1.001, 2.0, 127, 127, 3)]


def read(content: bytes) -> list[Note]:
    return read_midi_notes(io.BytesIO(content))


def struck(note: Note) -> tuple[int, int, int]:
    return to_ticks(note.onset_s), note.channel, note.pitch


@given(answers, st.randoms())
def test_what_is_written_is_read_back_balanced_and_no_strike_is_lost(notes, random):
    balanced = balance(notes)
    assert read(midi_bytes(notes, percussion=True)) == balanced
    assert [struck(note) for note in balanced] == sorted({struck(note) for note in notes})
    for note in balanced:
        assert note.velocity == max(other.velocity for other in notes if struck(other) == struck(note))
    by_key = sorted(balanced, key=lambda note: (note.channel, note.pitch, note.onset_s))
    for note, after in itertools.pairwise(by_key):
        if (note.channel, note.pitch) == (after.channel, after.pitch):
            assert to_ticks(note.onset_s + note.duration_s) <= to_ticks(after.onset_s), "two notes overlap on one key"
    assert balance(balanced) == balanced
    random.shuffle(shuffled := list(notes))
    assert balance(shuffled) == balanced


def test_a_key_struck_again_cuts_the_note_before_and_strikes_of_one_tick_are_one():
    notes = [Note(0.0, 1.0, 60, 100), Note(0.25, 0.1, 60, 90), Note(0.25, 0.3, 60, 20), Note(0.3, 9, 61, 5)]
    assert balance(notes) == [Note(0.0, 0.25, 60, 100), Note(0.25, 0.3, 60, 90), Note(0.3, 9.0, 61, 5)]


def test_the_bytes_are_the_same_every_time_and_everywhere():
    first = midi_bytes(ANSWER, programs={3: 40, 0: 26})
    assert first == midi_bytes(reversed(ANSWER), programs={0: 26, 3: 40})
    assert hashlib.sha256(first).hexdigest() == "788695c5973120e95d7c3e5a948c5a81900fed0867d9ae505b16e771ad411c84"


def test_other_programs_see_real_times_programs_and_title():
    midi = mido.MidiFile(file=io.BytesIO(midi_bytes(ANSWER, programs={0: 26})))
    assert (midi.type, [track.name for track in midi.tracks]) == (1, ["MusicHal", "MusicHal 1", "MusicHal 4"])
    assert midi.length == pytest.approx(3.001, abs=1e-9)
    assert [message.program for message in midi if message.type == "program_change"] == [26]
    assert read(midi_bytes([])) == []


@pytest.mark.parametrize(
    ("notes", "options", "says"),
    [
        ([Note(0, 1, 36, 90, 9)], {}, "drums"),
        ([], {"programs": {9: 0}}, "drums"),
        *(([], {"programs": programs}, "programs") for programs in ({16: 0}, {0: 128}, {-1: 0}, {0: -1})),
        ([Note(LONGEST_TIME_S, 1.0, 60, 90)], {}, "must end before"),
    ],
)
def test_what_cannot_be_written_is_refused(notes, options, says):
    with pytest.raises(ValueError, match=says):
        midi_bytes(notes, **options)


played_notes = st.lists(
    st.tuples(st.floats(0, 5), st.floats(0.0001, 2), st.integers(60, 62), st.integers(1, 127), st.integers(0, 2)), max_size=30
)


@given(played_notes, st.sets(st.integers(0, 59), max_size=6))
def test_a_growing_file_is_whole_whenever_it_is_looked_at_and_has_what_was_played(notes, looks):
    scheduler, recorder, now_s, number, onsets = NoteScheduler(), MidiRecorder(), 0.0, 0, 0
    for onset_s, duration_s, pitch, velocity, channel in notes:
        scheduler.play(Note(onset_s, duration_s, pitch, velocity, channel), 0.0)
    begun: dict[tuple[int, int], float] = {}
    spans = []
    while (next_s := scheduler.next_s) is not None:
        now_s = max(now_s + 0.0004, next_s)
        for message in scheduler.step(now_s):
            recorder.message(message.data, message.ready_s)
            onsets += message.is_on
            if message.is_on:
                begun[message.key] = message.ready_s
            elif message.is_off:
                spans.append((begun.pop(message.key), message.ready_s, message.key))
            if number in looks:
                assert len(read(recorder.snapshot(now_s))) == onsets
            number += 1
    read_back = [
        (note.onset_s, note.onset_s + note.duration_s, (note.channel, note.pitch)) for note in read(recorder.snapshot(9))
    ]
    by_place = sorted(spans, key=lambda span: (span[2], span[0])), sorted(read_back, key=lambda span: (span[2], span[0]))
    for (begin, end, key), (other_begin, other_end, other_key) in zip(*by_place, strict=True):
        assert key == other_key
        # A note of no length in ticks gets one, and what follows on its channel may wait for it.
        assert math.isclose(begin, other_begin, abs_tol=0.006)
        assert math.isclose(end, other_end, abs_tol=0.006)


def test_a_growing_file_keeps_other_messages_and_the_order_of_a_channel():
    recorder = MidiRecorder()
    for data, at_s in (
        (bytes((0xC0, 5)), 0.0),
        (bytes((0x90, 60, 90)), 0.0),
        (bytes((0x80, 60, 0)), 0.2),
        (bytes((0xE0, 0, 64)), 0.2),
        (bytes((0x90, 61, 90)), 0.2),
        (bytes((0x80, 99, 0)), 0.2),  # ends nothing
        (bytes((0xF8,)), 0.2),
    ):
        recorder.message(data, at_s)
    content = recorder.snapshot(0.4)
    assert recorder.snapshot(0.4) == content
    track = mido.MidiFile(file=io.BytesIO(content)).tracks[1]
    assert [(m.type, m.time) for m in track] == [
        *(("track_name", 0), ("program_change", 0), ("note_on", 0), ("note_off", 200)),
        *(("pitchwheel", 0), ("note_on", 0), ("note_off", 200), ("end_of_track", 0)),
    ]


@pytest.mark.parametrize(
    "values",
    [
        *((t, 1.0, 60, 64, 0) for t in (-0.001, math.nan, math.inf)),
        *((0.0, d, 60, 64, 0) for d in (0.0, -1.0, math.nan, math.inf)),
        *((0.0, 1.0, p, 64, 0) for p in (-1, 128, 60.0, True)),
        *((0.0, 1.0, 60, v, 0) for v in (0, 128, 64.5)),
        *((0.0, 1.0, 60, 64, c) for c in (-1, 16, None)),
    ],
)
def test_a_note_that_cannot_be_is_refused(values):
    with pytest.raises(ValueError, match=r"must be .*, got"):
        Note(*values)


@pytest.mark.parametrize(
    "values",
    [
        *((0.0, 1.0, -1, 0.0), (0.0, 1.0, 0, -0.1), (0.0, 1.0, 0, math.nan), (0.0, 1.0, 0, 0.0, 25.0)),
        *((0.0, 1.0, 0, 0.0, 0.0, -1.0), (0.0, 1.0, 0, 0.0, 0.0, 5.0), (0.0, 0.0, 0, 0.0)),
    ],
)
def test_a_slice_that_cannot_be_is_refused(values):
    with pytest.raises(ValueError, match=r"must be .*, got"):
        Slice(*values)
