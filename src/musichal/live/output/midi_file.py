"""Standard MIDI files of what the partner played, at real times: 120 beats a minute, 500 ticks a beat, one tick = 1 ms."""

import contextlib
import io
import os
import queue
import struct
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

import mido
from mido.midifiles.midifiles import write_chunk, write_track

from musichal.atomic import check_writable, open_atomically
from musichal.errors import InputError
from musichal.live.output.note_scheduler import Active, ActiveNotes
from musichal.live.output.ports import Port
from musichal.live.output.scheduler_protocol import Outgoing
from musichal.machine import now_s
from musichal.note import PERCUSSION_CHANNEL, Key, Note
from musichal.text import printable

TICKS_PER_SECOND = 1000
_TICKS_PER_BEAT = 500
_TEMPO_US_PER_BEAT = 500_000
_TITLE = "MusicHal"
LONGEST_TIME_S = (2**28 - 1) / 1000
"""The latest end of a note, 74 hours: the longest delta time of a MIDI file at one tick per millisecond."""
_INTERVAL_S = 1.0
_MOST_WAITING = 100_000


def midi_bytes(
    notes: Iterable[Note],
    *,
    programs: Mapping[int, int] | None = None,
    percussion: bool = False,
) -> bytes:
    """Return a MIDI file (format 1: a tempo track, then a track per channel) of `notes`, balanced.

    `programs` gives channels their General MIDI program (0 to 127). Equal input gives equal bytes. Raises `ValueError`
    for a note on the percussion channel unless `percussion` is set, for a program out of range, and for a note that ends
    after `LONGEST_TIME_S`.
    """
    programs = dict(programs or {})
    for channel, program in programs.items():
        if not (0 <= channel <= 15 and 0 <= program <= 127):
            raise ValueError(f"programs must map channels 0-15 to programs 0-127, got {channel} to {program}")
    notes = list(notes)
    if any(note.onset_s + note.duration_s > LONGEST_TIME_S for note in notes):
        raise ValueError(f"a MIDI file must end before {LONGEST_TIME_S:.0f} s")
    recorder = MidiRecorder()
    for channel, program in programs.items():
        recorder.message(bytes((0xC0 | channel, program)), 0.0)
    for tick, data in _messages(balance(notes)):
        recorder.message(data, tick / TICKS_PER_SECOND)
    if PERCUSSION_CHANNEL in recorder.channels and not percussion:
        raise ValueError("channel 9 plays drums; pass percussion=True to use it")
    return recorder.snapshot(0.0)


def balance(notes: Iterable[Note]) -> list[Note]:
    """Return `notes` on whole ticks, in order of onset, no two overlapping on one channel and pitch.

    A note whose key is struck again ends there. Every note lasts at least one tick. Notes of the same tick, channel and pitch
    are one strike: the loudest velocity, the longest duration. Balancing twice changes nothing.
    """
    return [
        Note(note.onset / TICKS_PER_SECOND, (note.until - note.onset) / TICKS_PER_SECOND, pitch, note.velocity, channel)
        for note in in_ticks(notes, to_ticks)
        for channel, pitch in [note.key]
    ]


def in_ticks(notes: Iterable[Note], tick_of: Callable[[float], int]) -> list[Active]:
    """Return `notes` balanced as `balance` does, their times in the ticks that `tick_of` gives for seconds."""
    strikes: dict[tuple[int, int, int], tuple[int, int]] = {}
    for note in notes:
        start = tick_of(note.onset_s)
        end = max(start + 1, tick_of(note.onset_s + note.duration_s))
        other_end, other_velocity = strikes.get((start, note.channel, note.pitch), (0, 0))
        strikes[start, note.channel, note.pitch] = max(end, other_end), max(note.velocity, other_velocity)
    active, ended = ActiveNotes(), []
    for (start, channel, pitch), (end, velocity) in sorted(strikes.items()):
        ended += active.end_due(start)
        ended += active.strike(Active((channel, pitch), start, end, velocity))
    ended += active.end_all()
    return sorted(ended, key=lambda note: (note.onset, note.key))


def _messages(notes: Iterable[Note]) -> list[tuple[int, bytes]]:
    """Return the messages of balanced notes and their ticks, in order; at one tick every note-off comes before any note-on."""
    messages = []
    for note in notes:
        start = to_ticks(note.onset_s)
        messages.append((start, bytes((0x90 | note.channel, note.pitch, note.velocity))))
        messages.append((start + to_ticks(note.duration_s), bytes((0x80 | note.channel, note.pitch, 0))))
    return sorted(messages, key=lambda message: (message[0], message[1][0] & 0x10, message[1][0] & 0x0F, message[1][1]))


def to_ticks(time_s: float) -> int:
    """Return the tick nearest to `time_s`."""
    return round(time_s * TICKS_PER_SECOND)


def _tempo_track() -> mido.MidiTrack:
    return mido.MidiTrack(
        [
            mido.MetaMessage("track_name", name=_TITLE),
            mido.MetaMessage("set_tempo", tempo=_TEMPO_US_PER_BEAT),
            mido.MetaMessage("time_signature", numerator=4, denominator=4),
        ]
    )


class MidiRecorder:
    """A MIDI file that grows while it is played: each message is encoded once, and the file is whole at any time."""

    def __init__(self) -> None:
        self._encoded: defaultdict[int, bytearray] = defaultdict(bytearray)
        self._new: defaultdict[int, list[mido.Message]] = defaultdict(list)
        self._last_tick: defaultdict[int, int] = defaultdict(int)
        self._struck: dict[Key, int] = {}
        self._sounded: set[int] = set()

    @property
    def channels(self) -> set[int]:
        """The channels with a message so far."""
        return self._encoded.keys() | self._new.keys()

    def message(self, data: bytes, at_s: float) -> None:
        """Record a channel message at a time in seconds from the start of the file; other messages are left out.

        Messages of a channel keep their order. Every note lasts at least one tick, and a note-off without a note is left out.
        """
        if data[0] >= 0xF0:
            return
        kind, channel = data[0] & 0xF0, data[0] & 0x0F
        tick = max(to_ticks(at_s), self._last_tick[channel])
        if kind == 0x80:
            struck = self._struck.pop((channel, data[1]), None)
            if struck is None:
                return
            tick = max(tick, struck + 1)
        elif kind == 0x90:
            self._sounded.add(channel)
            self.message(bytes((0x80 | channel, data[1], 0)), at_s)
            tick = self._struck[channel, data[1]] = max(tick, self._last_tick[channel])
        self._new[channel].append(mido.Message.from_bytes(data, time=tick - self._last_tick[channel]))
        self._last_tick[channel] = tick

    def snapshot(self, now_s: float, *, silent: bool = True) -> bytes:
        """Return the file as of now: notes that sound end here, in this file. With `silent`, channels without a note, too."""
        for channel, messages in self._new.items():
            self._encoded[channel] += _events(messages)
        self._new.clear()
        ends: defaultdict[int, list[mido.Message]] = defaultdict(list)
        for channel, pitch in sorted(self._struck):
            end = max(to_ticks(now_s), self._last_tick[channel] + 1)
            delta = 0 if ends[channel] else end - self._last_tick[channel]
            ends[channel].append(mido.Message("note_off", channel=channel, note=pitch, velocity=0, time=delta))
        out = io.BytesIO()
        shown = sorted(self._encoded if silent else self._sounded)
        write_chunk(out, b"MThd", struct.pack(">hhh", 1, 1 + len(shown), _TICKS_PER_BEAT))
        write_track(out, _tempo_track())
        for channel in shown:
            name = _events([mido.MetaMessage("track_name", name=f"{_TITLE} {channel + 1}")])
            write_chunk(out, b"MTrk", name + self._encoded[channel] + _events(ends[channel]) + b"\0\xff\x2f\0")
        return out.getvalue()


def _events(messages: Iterable[mido.Message | mido.MetaMessage]) -> bytes:
    """Return the events of a track without its head and its end."""
    out = io.BytesIO()
    write_track(out, mido.MidiTrack(messages))
    return out.getvalue()[8:-4]


class MidiFilePort(Port):
    """A MIDI file as a port, its times counted from the moment `origin_s`: whole on the disk every second.

    Channels without a note have no track.

    A thread of its own encodes and writes, so that a slow disk delays nothing. Where the disk is full, playing goes on,
    `check` reports it, and writing is tried again every second. Raises `InputError` where the file cannot be written at all.
    """

    def __init__(self, path: str, *, origin_s: float) -> None:
        if not path:
            raise InputError("name the MIDI file: file:reply.mid")
        check_writable(path)
        self.name = f"the file {printable(path)}"
        self._path, self.origin_s = path, origin_s
        self._waiting: queue.SimpleQueue[tuple[bytes, float] | None] = queue.SimpleQueue()
        self._error: str | None = None
        self._thread = threading.Thread(target=self._write_along, name="MIDI file", daemon=True)
        self._thread.start()

    def begin(self, origin_s: float) -> None:
        """Count times from a moment."""
        self.origin_s = origin_s

    def send(self, message: Outgoing) -> None:
        """Record a message at the moment it was meant for, or could first have left."""
        if self._waiting.qsize() >= _MOST_WAITING:
            self._error = f"{self.name} cannot be written as fast as there are notes: some are not in it"
            return
        self._waiting.put((message.data, message.ready_s - self.origin_s))

    def check(self) -> str | None:
        """Return, once, why writing failed since the last time: it is tried again, nothing is lost yet."""
        error, self._error = self._error, None
        return error

    def close(self, *, flush: bool = True) -> None:
        """Write the rest."""
        self._waiting.put(None)
        self._thread.join(timeout=5.0)

    def _write_along(self) -> None:
        _use_ordinary_priority()
        recorder, due_s, last_s, changed, open_ = MidiRecorder(), now_s() + _INTERVAL_S, 0.0, True, True
        while open_:
            try:
                item = self._waiting.get(timeout=max(0.0, due_s - now_s()))
            except queue.Empty:
                pass
            else:
                if item is None:
                    open_ = False
                else:
                    # A message may have a slightly earlier moment than one that was sent before it: the order counts.
                    last_s = max(last_s, item[1])
                    recorder.message(item[0], last_s)
                changed = True
                if open_ and now_s() < due_s:
                    continue
            if changed:
                at_s = max(last_s, now_s() - self.origin_s) if open_ else last_s
                changed = not self._write(recorder.snapshot(at_s, silent=False))
            due_s = now_s() + _INTERVAL_S

    def _write(self, content: bytes) -> bool:
        try:
            with open_atomically(self._path) as stream:
                stream.write(content)
        except (InputError, OSError) as error:
            self._error = str(error)
            return False
        return True


def _use_ordinary_priority() -> None:
    """Give the thread ordinary priority: it must not delay the scheduler."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))  # of this thread alone
