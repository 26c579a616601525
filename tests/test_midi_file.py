import hashlib

import mido
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musichal.errors import InputError
from musichal.live.output.active_notes import balance
from musichal.live.output.midi_file import LONGEST_TIME_S, midi_bytes, read_midi_notes, write_midi
from musichal.note import Note

events = st.lists(
    st.builds(
        Note,
        onset_s=st.floats(0, 0.05) | st.floats(0, LONGEST_TIME_S / 2),
        duration_s=st.floats(0, 0.05, exclude_min=True) | st.floats(0, LONGEST_TIME_S / 2, exclude_min=True),
        pitch=st.integers(60, 61) | st.integers(0, 127),
        velocity=st.integers(1, 127),
        channel=st.integers(0, 1) | st.integers(0, 15),
    ),
    max_size=20,
)
ANSWER = [
    Note(0.0, 0.5, 60, 100),
    Note(0.25, 0.5, 60, 90),
    Note(1.001, 0.0005, 64, 1),
    Note(1.001, 2.0, 127, 127, 3),
]


@given(events)
def test_what_is_written_is_read_back_to_the_millisecond(tmp_path_factory, events):
    path = tmp_path_factory.mktemp("midi") / "a.mid"
    write_midi(path, events, percussion=True)
    assert read_midi_notes(path) == balance(events)


def test_a_file_of_more_than_74_hours_is_refused():
    with pytest.raises(ValueError, match="must end before"):
        midi_bytes([Note(LONGEST_TIME_S, 1.0, 60, 90)])


def test_the_bytes_are_the_same_every_time_and_everywhere():
    first = midi_bytes(ANSWER, programs={3: 40, 0: 26}, title="antwort – 答え")
    assert first == midi_bytes(reversed(ANSWER), programs={0: 26, 3: 40}, title="antwort – 答え")
    assert hashlib.sha256(first).hexdigest() == "1dbd7deff204600b9f1db9fba77ad134ff4a3db19615bdb6c569cf19abe37c17"


def test_other_programs_see_real_times_programs_and_title(tmp_path):
    path = tmp_path / "a.mid"
    write_midi(path, ANSWER, programs={0: 26}, title="reply")
    midi = mido.MidiFile(path)
    assert (midi.type, [track.name for track in midi.tracks]) == (1, ["reply", "reply 1", "reply 4"])
    assert midi.length == pytest.approx(3.001, abs=1e-9)
    now, struck, programs = 0.0, [], {}
    for message in midi:
        now += message.time
        if message.type == "note_on":
            struck.append((round(now, 6), message.note, message.velocity))
        if message.type == "program_change":
            programs[message.channel] = message.program
    assert struck == [(0.0, 60, 100), (0.25, 60, 90), (1.001, 64, 1), (1.001, 127, 127)]
    assert programs == {0: 26}


def test_an_empty_answer_is_a_valid_file(tmp_path):
    write_midi(tmp_path / "a.mid", [])
    assert read_midi_notes(tmp_path / "a.mid") == []


def test_the_drum_channel_is_never_used_by_accident():
    with pytest.raises(ValueError, match="drums"):
        midi_bytes([Note(0, 1, 36, 90, 9)])
    with pytest.raises(ValueError, match="drums"):
        midi_bytes([], programs={9: 0})
    assert midi_bytes([Note(0, 1, 36, 90, 9)], percussion=True)


@pytest.mark.parametrize("programs", [{16: 0}, {0: 128}, {-1: 0}, {0: -1}])
def test_programs_out_of_range_are_refused(programs):
    with pytest.raises(ValueError, match="programs"):
        midi_bytes([], programs=programs)


def test_a_path_that_cannot_be_written_is_one_clear_line(tmp_path):
    with pytest.raises(InputError, match="cannot write"):
        write_midi(tmp_path / "nowhere" / "a.mid", ANSWER)
    assert list(tmp_path.iterdir()) == []


def test_a_refused_answer_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.mid"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="drums"):
        write_midi(path, [Note(0, 1, 36, 90, 9)])
    assert path.read_bytes() == b"old"


def test_times_follow_the_tempo_map(tmp_path):
    midi = mido.MidiFile(ticks_per_beat=480)
    track = midi.add_track()
    track.append(mido.MetaMessage("set_tempo", tempo=1_000_000))
    track.append(mido.Message("note_on", note=60, velocity=7, time=480))
    track.append(mido.MetaMessage("set_tempo", tempo=250_000, time=240))
    track.append(mido.Message("note_on", note=60, velocity=0, time=480))
    midi.save(tmp_path / "a.mid")
    assert read_midi_notes(tmp_path / "a.mid") == [Note(1.0, 0.75, 60, 7)]


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ([("note_on", 9, 0)], "never end"),
        ([("note_on", 9, 0), ("note_on", 9, 5)], "struck while it sounds"),
        ([("note_off", 0, 5)], "ended but not struck"),
        ([("note_on", 9, 0), ("note_off", 0, 0)], "without length"),
    ],
)
def test_the_reader_refuses_what_is_not_balanced(tmp_path, messages, complaint):
    midi = mido.MidiFile()
    midi.add_track().extend(mido.Message(kind, note=60, velocity=v, time=t) for kind, v, t in messages)
    midi.save(tmp_path / "a.mid")
    with pytest.raises(InputError, match=complaint):
        read_midi_notes(tmp_path / "a.mid")


@given(st.data())
def test_a_damaged_file_is_an_input_error_or_notes(tmp_path_factory, data):
    content = bytearray(midi_bytes(ANSWER))
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[at] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    path = tmp_path_factory.mktemp("midi") / "a.mid"
    path.write_bytes(content)
    complaint = ""
    try:
        assert isinstance(read_midi_notes(path), list)
    except InputError as error:
        complaint = str(error)
    assert "\n" not in complaint


def test_a_missing_file_is_one_clear_line(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        read_midi_notes(tmp_path / "a.mid")
