"""A MIDI file that grows while it is played, at the cost of what is new.

What is recorded is exactly what `midi_bytes` writes for the same notes: the file of a performance is the same whether it
was written at the end or along the way. Everything before the first note that still sounds is encoded once and kept.
"""

import io
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

import mido

from musichal.live.output.active_notes import TICKS_PER_SECOND, note_messages, to_ticks
from musichal.live.output.midi_file import midi_bytes
from musichal.note import Note

_OFF, _OTHER, _ON = 0, 1, 2
_SHORTEST_S = 1 / TICKS_PER_SECOND
_Entry = tuple[int, int, int, int, bytes]
"""(tick, kind, channel, pitch, data): sorts like `note_messages`, with other messages between ends and strikes."""


@dataclass(slots=True)
class _Track:
    """The events of a channel as bytes, the tick of the last one, and its status: it is not written twice in a row."""

    events: bytearray = field(default_factory=bytearray)
    tick: int = 0
    status: int = 0

    def append(self, tick: int, data: bytes) -> None:
        self.events += _variable_length(tick - self.tick) + (data[1:] if data[0] == self.status else data)
        self.tick, self.status = tick, data[0]


class MidiRecorder:
    """Collects messages at times in seconds from the start of the stream, and gives the file of them at any time."""

    def __init__(self, *, title: str = "MusicHal") -> None:
        self._title = title
        self._sounding: dict[tuple[int, int], tuple[float, int]] = {}
        self._finished: list[Note] = []
        self._entries: list[_Entry] = []
        self._tracks: dict[int, _Track] = {}
        self._order = itertools.count()

    def message(self, data: bytes, at_s: float) -> None:
        """Record a channel message; times must not go back, and what is before the start is at the start."""
        at_s = max(at_s, 0.0)
        kind, channel = data[0] & 0xF0, data[0] & 0x0F
        if data[0] >= 0xF0:
            return
        if kind == 0x90 and data[2] > 0:
            self._end(channel, data[1], at_s)
            self._sounding[channel, data[1]] = at_s, data[2]
        elif kind in (0x80, 0x90):
            self._end(channel, data[1], at_s)
        else:
            self._entries.append((to_ticks(at_s), _OTHER, channel, next(self._order), data))

    def _end(self, channel: int, pitch: int, at_s: float) -> None:
        begun = self._sounding.pop((channel, pitch), None)
        if begun is not None:
            onset_s, velocity = begun
            self._finished.append(Note(onset_s, max(at_s - onset_s, _SHORTEST_S), pitch, velocity, channel))

    def snapshot(self, now_s: float) -> bytes:
        """Return the file as of now: what sounds ends here, in this file."""
        # Notes that begin at one tick with one that sounds may still become one with it.
        settled = min((to_ticks(onset_s) for onset_s, _ in self._sounding.values()), default=to_ticks(max(now_s, 0.0)))
        done = [note for note in self._finished if to_ticks(note.onset_s) < settled]
        self._finished = [note for note in self._finished if to_ticks(note.onset_s) >= settled]
        entries = sorted(self._entries + _entries(done), key=_order)
        self._entries = [entry for entry in entries if entry[0] >= settled]
        _append(self._tracks, [entry for entry in entries if entry[0] < settled])

        open_notes = [
            Note(onset_s, max(now_s - onset_s, _SHORTEST_S), pitch, velocity, channel)
            for (channel, pitch), (onset_s, velocity) in self._sounding.items()
        ]
        tracks = {c: _Track(bytearray(t.events), t.tick, t.status) for c, t in self._tracks.items()}
        _append(tracks, sorted(self._entries + _entries(self._finished + open_notes), key=_order))
        return self._file(tracks)

    def _file(self, tracks: dict[int, _Track]) -> bytes:
        head = midi_bytes([], title=self._title)
        count = (1 + len(tracks)).to_bytes(2, "big")
        # A header chunk: "MThd", its length, the format, the number of tracks, ticks a beat.
        return head[:10] + count + head[12:] + b"".join(self._track(c, bytes(tracks[c].events)) for c in sorted(tracks))

    def _track(self, channel: int, events: bytes) -> bytes:
        midi = mido.MidiFile(type=1, charset="utf-8")
        midi.add_track(f"{self._title} {channel + 1}")
        buffer = io.BytesIO()
        midi.save(file=buffer)
        empty = buffer.getvalue()[14 + 8 :]
        name, end = empty[:-4], empty[-4:]
        body = name + events + end
        return b"MTrk" + len(body).to_bytes(4, "big") + body


def _order(entry: _Entry) -> tuple[int, int, int, int]:
    return entry[:4]


def _entries(notes: Iterable[Note]) -> list[_Entry]:
    entries = []
    for timed in note_messages(notes):
        message = timed.message
        kind, status = (_ON, 0x90) if message.is_on else (_OFF, 0x80)
        data = bytes((status | message.channel, message.pitch, message.velocity))
        entries.append((timed.tick, kind, message.channel, message.pitch, data))
    return entries


def _append(tracks: dict[int, _Track], entries: Iterable[_Entry]) -> None:
    for tick, _, channel, _, data in entries:
        tracks.setdefault(channel, _Track()).append(tick, data)


def _variable_length(number: int) -> bytes:
    """Return a number as MIDI files have them: seven bits a byte, the last one without the high bit."""
    out = [number & 0x7F]
    while number := number >> 7:
        out.append(number & 0x7F | 0x80)
    return bytes(reversed(out))
