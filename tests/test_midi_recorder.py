"""A MIDI file along the way: the bytes of the file at the end, whole at every moment."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from musichal.live.output import messages
from musichal.live.output.midi_file import midi_bytes, read_midi_notes
from musichal.live.output.midi_recorder import MidiRecorder
from musichal.live.output.note_scheduler import NoteScheduler
from musichal.note import Note

NOTES = st.lists(
    st.tuples(st.floats(0, 5), st.floats(0.0001, 2), st.integers(60, 62), st.integers(1, 127), st.integers(0, 2)), max_size=30
)


def played(notes, step_s: float = 0.0004):
    """Return the (data, moment) of what a timeline sends for the notes."""
    timeline = NoteScheduler()
    for onset_s, duration_s, pitch, velocity, channel in notes:
        timeline.play(messages.Note(onset_s, duration_s, "", pitch, velocity, channel), 0.0)
    sent, now_s = [], 0.0
    while (next_s := timeline.next_s) is not None:
        now_s = max(now_s + step_s, next_s)
        sent += [(message.data, message.ready_s) for message in timeline.step(now_s)]
    return sent


@given(NOTES, st.sets(st.integers(0, 59), max_size=6))
def test_the_file_is_what_midi_bytes_writes_however_often_it_was_looked_at(notes, looks) -> None:
    recorder, last_s = MidiRecorder(), 0.0
    struck: dict[tuple[int, int], tuple[float, int]] = {}
    events = []
    for number, (data, at_s) in enumerate(played(notes)):
        last_s = max(last_s, at_s)
        recorder.message(data, last_s)
        key = data[0] & 0x0F, data[1]
        if data[0] & 0xF0 == 0x90:
            struck[key] = last_s, data[2]
        else:
            onset_s, velocity = struck.pop(key)
            events.append(Note(onset_s, max(last_s - onset_s, 0.001), key[1], velocity, key[0]))
        if number in looks:
            recorder.snapshot(last_s)
    assert recorder.snapshot(last_s + 1.0) == midi_bytes(events, percussion=True)


@given(notes=NOTES)
def test_every_look_at_it_is_a_whole_file(tmp_path_factory, notes) -> None:
    path: Path = tmp_path_factory.mktemp("midi") / "reply.mid"
    recorder, last_s, struck = MidiRecorder(), 0.0, 0
    for data, at_s in played(notes):
        last_s = max(last_s, at_s)
        recorder.message(data, last_s)
        struck += data[0] & 0xF0 == 0x90
        path.write_bytes(recorder.snapshot(last_s))
        assert len(read_midi_notes(path)) <= struck


def test_other_messages_stand_between_ends_and_strikes() -> None:
    recorder = MidiRecorder(title="T")
    for data, at_s in (
        (bytes((0xC0, 5)), 0.0),
        (bytes((0x90, 60, 90)), 0.0),
        (bytes((0x80, 60, 0)), 0.2),
        (bytes((0xE0, 0, 64)), 0.2),
        (bytes((0x90, 61, 90)), 0.2),
        (bytes((0xF8,)), 0.2),
    ):
        recorder.message(data, at_s)
    content = recorder.snapshot(0.4)
    track = content[content.rindex(b"MTrk") + 8 :]
    assert track == bytes.fromhex("00 ff 03 03") + b"T 1" + bytes.fromhex(
        "00 c0 05 00 90 3c 5a 81 48 80 3c 00 00 e0 00 40 00 90 3d 5a 81 48 80 3d 00 00 ff 2f 00"
    )
    assert recorder.snapshot(0.4) == content
