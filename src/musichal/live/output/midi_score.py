"""MIDI files of several parts, on the beats of a tempo map, with markers: for a DAW.

A tick is shorter than a sample at 48 kHz, from 94 beats a minute on; so what is written lies with the sound to the sample.
"""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import mido

from musichal.live.output.midi_file import in_ticks
from musichal.live.session.timeline import TempoMap
from musichal.note import PERCUSSION_CHANNEL, Note

TICKS_PER_BEAT = 30_720
_FOUR_FOUR = {"numerator": 4, "denominator": 4}


@dataclass(frozen=True)
class Part:
    """What one track plays, and the General MIDI program (0 to 127) of its channel, if it has one."""

    name: str
    notes: tuple[Note, ...]
    program: int | None = None

    @property
    def channel(self) -> int:
        """The channel of its pitched notes; where it has none, that of its drums."""
        return next((note.channel for note in self.notes if note.channel != PERCUSSION_CHANNEL), PERCUSSION_CHANNEL)


def part_messages(part: Part, tempo: TempoMap) -> list[tuple[int, bytes]]:
    """Return the messages of a part and their ticks in order; at one tick every note-off comes before any note-on."""
    notes = in_ticks(part.notes, lambda time_s: round(tempo.beat_at(time_s) * TICKS_PER_BEAT))
    found = []
    for note in notes:
        channel, pitch = note.key
        found.append((int(note.onset), bytes((0x90 | channel, pitch, note.velocity))))
        found.append((int(note.until), bytes((0x80 | channel, pitch, 0))))
    return sorted(found, key=lambda message: (message[0], message[1][0] & 0x10, message[1]))


def score_bytes(parts: Sequence[Part], tempo: TempoMap, markers: Iterable[tuple[float, str]] = ()) -> bytes:
    """Return a MIDI file (format 1): a track with tempo and `markers` (seconds and text), then one for each part."""
    steps: list[tuple[int, mido.MetaMessage]] = [(0, mido.MetaMessage("time_signature", **_FOUR_FOUR))]
    steps += [(s.beat * TICKS_PER_BEAT, mido.MetaMessage("set_tempo", tempo=s.beat_us)) for s in tempo.steps]
    for at_s, text in markers:
        steps.append((round(tempo.beat_at(at_s) * TICKS_PER_BEAT), mido.MetaMessage("marker", text=text)))
    tracks = [_track("MusicHal", sorted(steps, key=lambda step: step[0]))]
    for part in parts:
        messages = [(tick, mido.Message.from_bytes(data)) for tick, data in part_messages(part, tempo)]
        if part.program is not None and messages:
            messages.insert(0, (0, mido.Message("program_change", channel=part.channel, program=part.program)))
        tracks.append(_track(part.name, messages))
    out = io.BytesIO()
    mido.MidiFile(type=1, ticks_per_beat=TICKS_PER_BEAT, charset="utf-8", tracks=tracks).save(file=out)
    return out.getvalue()


def _track(name: str, messages: Iterable[tuple[int, mido.Message | mido.MetaMessage]]) -> mido.MidiTrack:
    track, before = mido.MidiTrack([mido.MetaMessage("track_name", name=name)]), 0
    for tick, message in messages:
        track.append(message.copy(time=tick - before))
        before = tick
    return track
