"""Standard MIDI files of what the partner played, at real times: 120 beats a minute, 500 ticks a beat, one tick = 1 ms."""

import io
from collections.abc import Iterable, Mapping

import mido

from musichal.atomic import open_atomically
from musichal.errors import InputError
from musichal.live.output.active_notes import note_messages
from musichal.note import PERCUSSION_CHANNEL, Note
from musichal.text import PathLike, printable, reason

_TICKS_PER_BEAT = 500
_TEMPO_US_PER_BEAT = 500_000
LONGEST_TIME_S = (2**28 - 1) / 1000
"""The latest end of a note, 74 hours: the longest delta time of a MIDI file at one tick per millisecond."""


def midi_bytes(
    events: Iterable[Note],
    *,
    programs: Mapping[int, int] | None = None,
    title: str = "MusicHal",
    percussion: bool = False,
) -> bytes:
    """Return a MIDI file (format 1: a tempo track, then a track per channel) of `events`, balanced.

    `programs` gives channels their General MIDI program (0 to 127). Equal input gives equal bytes. Raises `ValueError`
    for a note on the percussion channel unless `percussion` says that it is meant, and for a program out of range.
    """
    programs = dict(programs or {})
    for channel, program in programs.items():
        if not (0 <= channel <= 15 and 0 <= program <= 127):
            raise ValueError(f"programs must map channels 0-15 to programs 0-127, not {channel} to {program}")
    events = list(events)
    if any(note.onset_s + note.duration_s > LONGEST_TIME_S for note in events):
        raise ValueError(f"a MIDI file must end before {LONGEST_TIME_S:.0f} s")
    messages = note_messages(events)
    channels = sorted({timed.message.channel for timed in messages} | programs.keys())
    if PERCUSSION_CHANNEL in channels and not percussion:
        raise ValueError("channel 9 plays drums; pass percussion=True where that is meant")

    midi = mido.MidiFile(type=1, ticks_per_beat=_TICKS_PER_BEAT, charset="utf-8")
    conductor = midi.add_track(title)
    conductor.append(mido.MetaMessage("set_tempo", tempo=_TEMPO_US_PER_BEAT))
    conductor.append(mido.MetaMessage("time_signature", numerator=4, denominator=4))
    for channel in channels:
        track = midi.add_track(f"{title} {channel + 1}")
        if channel in programs:
            track.append(mido.Message("program_change", channel=channel, program=programs[channel]))
        now = 0
        for timed in messages:
            message = timed.message
            if message.channel != channel:
                continue
            track.append(
                mido.Message(
                    "note_on" if message.is_on else "note_off",
                    channel=channel,
                    note=message.pitch,
                    velocity=message.velocity,
                    time=timed.tick - now,
                )
            )
            now = timed.tick
    buffer = io.BytesIO()
    midi.save(file=buffer)
    return buffer.getvalue()


def write_midi(
    path: PathLike,
    events: Iterable[Note],
    *,
    programs: Mapping[int, int] | None = None,
    title: str = "MusicHal",
    percussion: bool = False,
) -> None:
    """Write `midi_bytes` to `path`, whole or not at all; raises `InputError` where the path cannot be written."""
    content = midi_bytes(events, programs=programs, title=title, percussion=percussion)
    with open_atomically(path) as stream:
        stream.write(content)


def read_midi_notes(path: PathLike) -> list[Note]:
    """Return the notes of a MIDI file in order of onset, at the times that its tempo map gives.

    Strict, so that a file can be checked with it: `InputError` for a file that is not MIDI, a note struck while it
    sounds, a note-off without a note, a note without length, and a note that never ends.
    """
    name = printable(path)
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a path of any kind
            content = io.BytesIO(file.read())
    except OSError as error:
        raise InputError(f"cannot read {name}: {reason(error)}") from error
    try:
        midi = mido.MidiFile(file=content, charset="utf-8")
    except (OSError, EOFError, ValueError, LookupError, TypeError, mido.KeySignatureError) as error:
        raise InputError(f"{name}: not a MIDI file, or a damaged one") from error
    if midi.ticks_per_beat <= 0:
        raise InputError(f"{name}: time in SMPTE frames is not supported")
    ticks_per_tempo_unit = 1_000_000 * midi.ticks_per_beat
    tempo, tempo_tick, tempo_s, tick = _TEMPO_US_PER_BEAT, 0, 0.0, 0
    sounding: dict[tuple[int, int], tuple[float, int]] = {}
    notes = []
    for message in mido.merge_tracks(midi.tracks):
        tick += message.time
        now_s = tempo_s + (tick - tempo_tick) * tempo / ticks_per_tempo_unit
        if message.type == "set_tempo":
            tempo, tempo_tick, tempo_s = message.tempo, tick, now_s
        if message.type not in ("note_on", "note_off"):
            continue
        key = (message.channel, message.note)
        where = f"{name}: at {now_s:.3f} s, channel {message.channel}, pitch {message.note}"
        if message.type == "note_on" and message.velocity > 0:
            if key in sounding:
                raise InputError(f"{where}: struck while it sounds")
            sounding[key] = now_s, message.velocity
            continue
        if key not in sounding:
            raise InputError(f"{where}: ended but not struck")
        onset_s, velocity = sounding.pop(key)
        if now_s <= onset_s:
            raise InputError(f"{where}: a note without length")
        # On our own grid the difference of two times is the exact count of milliseconds again.
        notes.append(Note(onset_s, round(now_s - onset_s, 9), message.note, velocity, message.channel))
    if sounding:
        raise InputError(f"{name}: {len(sounding)} notes never end")
    return sorted(notes, key=lambda note: (note.onset_s, note.channel, note.pitch))
