"""A strict reader of MIDI files, to check them with."""

import os
from typing import IO

import mido

from musichal.note import Note


def read_midi_notes(file: str | os.PathLike[str] | IO[bytes]) -> list[Note]:
    """Return the notes of a MIDI file in order of onset.

    Fails for a note struck while it sounds, a note-off without a note, a note without length, and a note that never ends.
    """
    now_s, sounding, notes = 0.0, {}, []
    opened = {"filename": file} if isinstance(file, str | os.PathLike) else {"file": file}
    for message in mido.MidiFile(**opened, charset="utf-8"):
        now_s += message.time
        if message.type not in ("note_on", "note_off"):
            continue
        key = message.channel, message.note
        if message.type == "note_on" and message.velocity > 0:
            assert key not in sounding, f"{key} struck while it sounds"
            sounding[key] = round(now_s, 6), message.velocity
            continue
        onset_s, velocity = sounding.pop(key)
        assert round(now_s, 6) > onset_s, f"{key}: a note without length"
        notes.append(Note(onset_s, round(now_s - onset_s, 6), message.note, velocity, message.channel))
    assert not sounding, f"{sounding} never end"
    return sorted(notes, key=lambda note: (note.onset_s, note.channel, note.pitch))
