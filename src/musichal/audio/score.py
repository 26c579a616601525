"""Scores: standard MIDI files, read to tracks of notes in seconds with their beats.

Conventions
-----------
A *track* is what one track of the file plays on one channel. Times are seconds by the file's tempo map from its start, as one
`TempoMap` converts them. Beats are those of the time signatures (4/4 where there is none; three eighths in 6/8, 9/8, 12/8), up
to the end of the last note. A note that is struck again before it ends, ends in the order of striking; one that never ends,
ends with the file. Pedals and bends are not read.

A file is not trusted: `read_score` takes a bounded time and memory, and anything else than a score is one `InputError`.
(Standard MIDI Files 1.0, MIDI Manufacturers Association 1988.)
"""

import contextlib
import dataclasses
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

import mido
import numpy as np
from mido.midifiles.meta import KeySignatureError

from musichal.arrays import Float32, Float64, Int64
from musichal.audio.instrument import Instrument, render_notes
from musichal.audio.midi_take import LONGEST_LABEL, Label, MidiChoice
from musichal.errors import InputError
from musichal.note import PERCUSSION_CHANNEL, Note
from musichal.text import PathLike, open_file, printable, reason

MOST_BYTES = 2_500_000
"""So that reading takes less than 5 s, whatever is in it; 40 minutes of piano have 0.4 MB."""
MOST_NOTES = 200_000
LONGEST_S = 4 * 3600.0
_LONGEST_PAUSE_S = 1200.0
_MOST_TRACKS = 1024
_RIFF_HEAD = 4096
_MOST_BEATS = 200_000
_SHORTEST_S = 0.005
_USUAL_TEMPO_US = 500_000
_SLOWEST_US, _FASTEST_US = 6_000_000, 60_000
"""From 10 to 1000 quarter notes a minute; beyond, a tempo is not one."""
_COMPOUND = (6, 9, 12)
_BASS_PROGRAMS = range(32, 40)
_EFFECT_PROGRAMS = range(112, 128)
_LOWEST_MELODY, _MELODY_RANGE = 36, 24
_FAST_HZ = 4.0
_IMPOSSIBLE_KEY = re.compile(rb"\xff\x59\x02(?:[\x08-\xf8].|.[^\x00\x01])", re.DOTALL)
_NOTHING = b"\xff\x7f\x02\0\0"
_LABELS = {"marker": "marker", "cue_marker": "marker", "lyrics": "lyric", "text": "text", "key_signature": "key"}
_MOST_LABELS = 20_000
_MELODY, _DRUMS, _NO_DRUMS = "melody", "drums", "no-drums"


@dataclass(frozen=True)
class TempoMap:
    """The tempos of a file: from `ticks` (n,) on, ascending from 0, a tick lasts `tick_s` (n,)."""

    ticks: Int64
    tick_s: Float64

    def seconds(self, ticks: "Int64 | Sequence[int]") -> Float64:
        """Return when ticks sound."""
        at = np.asarray(ticks, dtype=np.int64)
        place = np.searchsorted(self.ticks, at, side="right") - 1
        begins = np.concatenate([[0.0], np.cumsum(np.diff(self.ticks) * self.tick_s[:-1])])
        found: Float64 = begins[place] + (at - self.ticks[place]) * self.tick_s[place]
        return found


@dataclass(frozen=True)
class Track:
    """What one track plays on one channel; `program` is the first that it asks for, `notes` are ordered by onset and pitch.

    `place` is that of the track in the file.
    """

    name: str
    channel: int
    program: int
    notes: tuple[Note, ...]
    place: int = 0

    @property
    def is_drums(self) -> bool:
        """Whether it plays General MIDI drums."""
        return self.channel == PERCUSSION_CHANNEL

    @cached_property
    def onsets_s(self) -> Float64:
        """Onsets of its notes, ascending."""
        return np.array([note.onset_s for note in self.notes])


@dataclass(frozen=True)
class Score:
    """A score in seconds; `downbeats_s` are the first beats of the bars, `labels` its markers, lyrics, texts, keys."""

    name: str
    tracks: tuple[Track, ...]
    beats_s: Float64
    downbeats_s: Float64
    labels: tuple[Label, ...] = ()

    @property
    def duration_s(self) -> float:
        """End of the last note."""
        return max((n.onset_s + n.duration_s for track in self.tracks for n in track.notes), default=0.0)

    def track(self, which: str) -> Track:
        """Return a track by its name or its number, counted from 1; raises `InputError` where there is none."""
        if which.isdecimal() and 1 <= int(which) <= len(self.tracks):
            return self.tracks[int(which) - 1]
        named = [track for track in self.tracks if track.name.casefold() == which.strip().casefold()]
        if len(named) != 1:
            there = ", ".join(f"{n} {printable(track.name)}" for n, track in enumerate(self.tracks, start=1))
            what = "no" if not named else "more than one"
            raise InputError(f"{self.name} has {what} track {printable(which)!r}; there are: {there[:400]}")
        return named[0]

    def with_tempo(self, factor: float, *, from_s: float) -> "Score":
        """Return the score `factor` times as fast from a time on."""

        def moved(time_s: float) -> float:
            return time_s if time_s <= from_s else from_s + (time_s - from_s) / factor

        def note(old: Note) -> Note:
            onset_s, end_s = moved(old.onset_s), moved(old.onset_s + old.duration_s)
            return dataclasses.replace(old, onset_s=onset_s, duration_s=end_s - onset_s)

        tracks = tuple(dataclasses.replace(t, notes=tuple(note(n) for n in t.notes)) for t in self.tracks)
        beats_s, downbeats_s = (np.array([moved(t) for t in times.tolist()]) for times in (self.beats_s, self.downbeats_s))
        labels = tuple(dataclasses.replace(label, time_s=moved(label.time_s)) for label in self.labels)
        return dataclasses.replace(self, tracks=tracks, beats_s=beats_s, downbeats_s=downbeats_s, labels=labels)

    def transposed(self, semitones: int, *, from_s: float, to_s: float) -> "Score":
        """Return the score with the notes that begin in a stretch moved, but for drums; raises `InputError` beyond MIDI."""

        def note(old: Note) -> Note:
            if not from_s <= old.onset_s < to_s:
                return old
            if not 0 <= old.pitch + semitones <= 127:
                raise InputError(f"{self.name}: a note cannot be moved by {semitones:+d} semitones")
            return dataclasses.replace(old, pitch=old.pitch + semitones)

        moved = (t if t.is_drums else dataclasses.replace(t, notes=tuple(map(note, t.notes))) for t in self.tracks)
        return dataclasses.replace(self, tracks=tuple(moved))


def read_score(path: PathLike) -> Score:
    """Read a standard MIDI file.

    Raises `InputError` if it cannot be read, is damaged, has no note, or holds too much.
    """
    return parse_score(read_midi_bytes(path), name=printable(Path(path).name))


def read_midi_bytes(path: PathLike) -> bytes:
    """Return a file's bytes, at most just more than is read of a MIDI file; raises `InputError` if it cannot be read."""
    try:
        with open_file(path) as stream:
            return stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read {printable(path)}: {reason(error)}") from error


def parse_score(data: bytes, *, name: str) -> Score:
    """Read the bytes of a standard MIDI file; raises as `read_score` does."""
    return score_of(parse_midi(data, name=name), name=name)


def score_of(midi: mido.MidiFile, *, name: str) -> Score:
    """Return the score of a file that was read; raises as `read_score` does."""
    tempos, meters = _maps(midi, name)
    tracks = tuple(_tracks(midi, tempos, name))
    if not tracks:
        raise InputError(f"{name}: there is no note in this MIDI file")
    last_s = max(n.onset_s + n.duration_s for track in tracks for n in track.notes)
    if last_s > LONGEST_S:
        raise InputError(f"{name}: this MIDI file lasts {last_s / 3600:.1f} hours; the longest that is read is 4 hours")
    onsets_s = np.sort(np.concatenate([[0.0, last_s], *(track.onsets_s for track in tracks)]))
    pause_s = float(np.diff(onsets_s).max())
    if pause_s > _LONGEST_PAUSE_S:
        raise InputError(f"{name}: for {pause_s / 60:.0f} minutes no note begins in this MIDI file; 20 are the most")
    beats, downbeats = _beats(meters, tempos, last_s, midi.ticks_per_beat, name)
    labels = tuple(_labels(midi, tempos, last_s))
    return Score(name, tracks, tempos.seconds(beats), tempos.seconds(downbeats), labels)


def parse_midi(data: bytes, *, name: str) -> mido.MidiFile:
    """Return the messages of a standard MIDI file; raises `InputError` for what is none."""
    if data[:4] == b"RIFF" and data[8:12] == b"RMID":  # a MIDI file in a RIFF container
        at = data.find(b"MThd", 12, 12 + _RIFF_HEAD)
        data = data[at:] if at > 0 else data
    if not data.startswith(b"MThd"):
        raise InputError(f"{name} is not a standard MIDI file")
    if len(data) > MOST_BYTES:
        raise InputError(f"{name}: a MIDI file of more than {MOST_BYTES / 1e6:g} MB is not read")
    try:
        try:
            midi = mido.MidiFile(file=io.BytesIO(data), clip=True)
        except KeySignatureError:  # a key that there is not, as some editors write it
            midi = mido.MidiFile(file=io.BytesIO(_IMPOSSIBLE_KEY.sub(_NOTHING, data)), clip=True)
    except (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, OverflowError, KeySignatureError) as error:
        raise InputError(f"{name} is a damaged MIDI file") from error
    if not midi.ticks_per_beat:
        raise InputError(f"{name} is a damaged MIDI file: a beat has no ticks")
    if midi.ticks_per_beat < 0:
        _count_in_beats(midi, name)
    if midi.type == 2:
        _chain(midi)
    if len(midi.tracks) > _MOST_TRACKS:
        raise InputError(f"{name}: a MIDI file of more than {_MOST_TRACKS} tracks is not read")
    return midi


def _count_in_beats(midi: mido.MidiFile, name: str) -> None:
    """Turn a file whose time counts film frames (SMPTE) into one that counts ticks of a beat, at a tempo of about 120."""
    frames_hz, ticks = -(midi.ticks_per_beat >> 8), midi.ticks_per_beat & 0xFF
    if frames_hz not in (24, 25, 29, 30) or not ticks:
        raise InputError(f"{name} is a damaged MIDI file: {frames_hz} film frames a second")
    tick_s = 1 / ((30_000 / 1001 if frames_hz == 29 else frames_hz) * ticks)
    midi.ticks_per_beat = round(_USUAL_TEMPO_US / 1e6 / tick_s)
    for track in midi.tracks:
        waiting = 0
        for message in list(track):
            message.time, waiting = message.time + waiting, 0
            if message.type == "set_tempo":
                waiting = message.time
                track.remove(message)
    tempo = mido.MetaMessage("set_tempo", tempo=round(midi.ticks_per_beat * tick_s * 1e6))
    midi.tracks.insert(0, mido.MidiTrack([tempo]))


def _chain(midi: mido.MidiFile) -> None:
    """Put the songs of a file of type 2, which lie beside each other, one behind the other."""
    before = 0
    for track in midi.tracks:
        length = sum(message.time for message in track)
        if track:
            track[0].time += before
        before += length


def _labels(midi: mido.MidiFile, tempos: TempoMap, last_s: float) -> Iterator[Label]:
    """Yield the first of its markers, lyrics, texts and keys, in order of time; without the headers of karaoke."""
    found: list[tuple[int, str, str]] = []
    for track in midi.tracks:
        tick = 0
        for message in track:
            tick += message.time
            if (kind := _LABELS.get(message.type)) is not None and len(found) < _MOST_LABELS:
                if kind == "key":
                    mode = "minor" if message.key.endswith("m") else "major"
                    found.append((tick, kind, f"{message.key.removesuffix('m')} {mode}"))
                    continue
                with contextlib.suppress(UnicodeError):  # the standard says ASCII, and many files have UTF-8
                    message.text = message.text.encode("latin-1").decode()
                text = printable(message.text.lstrip("/\\").strip())[:LONGEST_LABEL]
                if text and not text.startswith("@"):
                    found.append((tick, kind, text))
    found.sort(key=itemgetter(0))
    times = tempos.seconds([tick for tick, *_ in found]).tolist() if found else []
    for time_s, (_, kind, text) in zip(times, found, strict=True):
        if time_s <= last_s:
            yield Label(time_s, kind, text)


def channel_messages(midi: mido.MidiFile, tempos: TempoMap, score: Score) -> list[tuple[float, bytes]]:
    """Return channel messages in order of time, seconds and bytes: of notes, those of the score's tracks; of others, all."""
    found: list[tuple[int, bytes]] = []
    chosen = {(track.place, track.channel) for track in score.tracks}
    for place, track in enumerate(midi.tracks):
        tick = 0
        for message in track:
            tick += message.time
            if message.is_meta or message.type == "sysex":
                continue
            if message.type not in ("note_on", "note_off") or (place, message.channel) in chosen:
                found.append((tick, bytes(message.bytes())))
    found.sort(key=lambda one: one[0])
    times = tempos.seconds([tick for tick, _ in found]).tolist() if found else []
    return [(time_s, data) for time_s, (_, data) in zip(times, found, strict=True)]


def tempo_map(midi: mido.MidiFile, *, name: str) -> TempoMap:
    """Return the tempos of a file; raises `InputError` for one that is none."""
    return _maps(midi, name)[0]


def chosen(score: Score, choice: MidiChoice) -> Score:
    """Return the score with the chosen tracks, in the order of the file.

    A track is chosen by its name, its number, or a word: "melody" for the most melodic, "drums", or "no-drums" for all others.
    Raises `InputError` where a track or a channel is not there, or nothing is left.
    """
    picked: list[Track] = []
    for which in choice.tracks:
        word = which.strip().casefold()
        if word in (_DRUMS, _NO_DRUMS) and not any(track.name.casefold() == word for track in score.tracks):
            picked += [track for track in score.tracks if track.is_drums == (word == _DRUMS)]
        elif word == _MELODY and not any(track.name.casefold() == word for track in score.tracks):
            picked.append(melody_of(score) if len(score.tracks) > 1 else score.tracks[0])
        else:
            picked.append(score.track(which))
    left = [t for t in score.tracks if not choice.tracks or any(t is one for one in picked)]
    tracks = tuple(t for t in left if not choice.channels or t.channel + 1 in choice.channels)
    if not tracks:
        names = ", ".join(f"{n} {printable(t.name)} (channel {t.channel + 1})" for n, t in enumerate(score.tracks, start=1))
        raise InputError(f"{score.name}: nothing is left of the chosen tracks and channels; there are: {names[:400]}")
    return dataclasses.replace(score, tracks=tracks)


def parse_midi_channels(text: str) -> frozenset[int]:
    """Return the channels of a text such as ``1`` or ``1-9,11-16``; raises `InputError` for any other."""
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,2})\s*(?:-\s*(\d{1,2})\s*)?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last <= 16:
            raise InputError(f"MIDI channels are numbers from 1 to 16, as in 1 or 1-9,11-16; got {text!r}")
        found.update(range(first, last + 1))
    return frozenset(found)


def melody_of(score: Score) -> Track:
    """Return the most melodic track: mostly one note at a time, busy throughout, of many pitches, neither bass nor drums.

    Raises `InputError` if there are drums alone, or a single track.
    """
    if len(score.tracks) < 2:
        raise InputError(f"{score.name} has a single track; a duo needs a player's and another")
    pitched = [track for track in score.tracks if not track.is_drums]
    if not pitched:
        raise InputError(f"{score.name} has drums alone; a player needs a track with pitches")
    return max(pitched, key=lambda track: melodiousness(track, duration_s=score.duration_s))


def melodiousness(track: Track, *, duration_s: float) -> float:
    """Return how far a track is a melody, 0 to about 2."""
    onsets = Counter(round(note.onset_s, 2) for note in track.notes)
    alone = sum(count == 1 for count in onsets.values()) / len(onsets)
    busy = min(len(onsets) / duration_s, _FAST_HZ)
    filled = len({int(onset_s / 4) for onset_s in onsets}) / max(1.0, duration_s / 4)
    pitches = [note.pitch for note in track.notes]
    variety = min(1.0, len(set(pitches)) / 8)
    height = min(1.2, max(0.1, (float(np.median(pitches)) - _LOWEST_MELODY) / _MELODY_RANGE))
    unlikely = 0.3 if track.program in (*_BASS_PROGRAMS, *_EFFECT_PROGRAMS) else 1.0
    return alone**2 * busy**0.5 * filled**2 * variety * height * unlikely


def render_tracks(tracks: Sequence[Track], instrument: Instrument, *, sample_rate_hz: int, duration_s: float) -> Float32:
    """Return the sound of tracks, each with its own program, mono, as long as asked and at most at full scale."""
    mix = np.zeros(round(duration_s * sample_rate_hz), np.float32)
    for track in tracks:
        channel = PERCUSSION_CHANNEL if track.is_drums else 0
        notes = [dataclasses.replace(note, channel=channel) for note in track.notes]
        stereo = render_notes(notes, instrument, sample_rate_hz=sample_rate_hz, programs={channel: track.program})
        sound = stereo.mean(axis=1)[: len(mix)]
        mix[: len(sound)] += sound
    return mix / max(1.0, float(np.abs(mix).max(initial=0.0)) / 0.99)


def _maps(midi: mido.MidiFile, name: str) -> tuple[TempoMap, Mapping[int, tuple[int, int]]]:
    """Return the tempos, and the time signatures by their ticks."""
    tempos, meters = {0: _USUAL_TEMPO_US}, {0: (4, 4)}
    for track in midi.tracks:
        tick = 0
        for message in track:
            tick += message.time
            if message.type == "set_tempo":
                if not _FASTEST_US <= message.tempo <= _SLOWEST_US:
                    raise InputError(f"{name}: a tempo of {message.tempo} µs a quarter note cannot be played")
                tempos[tick] = message.tempo
            elif message.type == "time_signature" and message.numerator > 0:
                meters[tick] = (message.numerator, message.denominator)
    ticks = np.array(sorted(tempos), dtype=np.int64)
    tick_s = np.array([tempos[tick] for tick in ticks.tolist()]) / 1e6 / midi.ticks_per_beat
    return TempoMap(ticks, tick_s), dict(sorted(meters.items()))


def _tracks(midi: mido.MidiFile, tempos: TempoMap, name: str) -> Iterator[Track]:
    count = 0
    for number, track in enumerate(midi.tracks, start=1):
        title = next((m.name for m in track if m.type == "track_name" and m.name.strip()), "").strip()
        for channel, (program, rows) in sorted(_note_rows(track).items()):
            count += len(rows)
            if count > MOST_NOTES:
                raise InputError(f"{name}: a MIDI file of more than {MOST_NOTES} notes is not read")
            onsets, ends = tempos.seconds([row[0] for row in rows]), tempos.seconds([row[1] for row in rows])
            notes = [
                Note(onset_s, max(end_s - onset_s, _SHORTEST_S), pitch, velocity, channel)
                for onset_s, end_s, (_, _, pitch, velocity) in zip(onsets.tolist(), ends.tolist(), rows, strict=True)
            ]
            notes.sort(key=lambda note: (note.onset_s, note.pitch))
            yield Track(title or f"track {number}", channel, program, tuple(notes), place=number - 1)


def _note_rows(track: mido.MidiTrack) -> Mapping[int, tuple[int, list[tuple[int, int, int, int]]]]:
    """Return by channel the first program and, for each note, its onset and end in ticks, pitch and velocity."""
    found: dict[int, list[tuple[int, int, int, int]]] = {}
    programs: dict[int, int] = {}
    sounding: dict[tuple[int, int], list[tuple[int, int]]] = {}
    tick = 0

    def end(channel: int, pitch: int, struck: tuple[int, int]) -> None:
        found.setdefault(channel, []).append((struck[0], tick, pitch, struck[1]))

    message: Any
    for message in track:
        tick += message.time
        if message.type == "program_change":
            programs.setdefault(message.channel, message.program)
        elif message.type == "note_on" and message.velocity:
            sounding.setdefault((message.channel, message.note), []).append((tick, message.velocity))
        elif message.type in ("note_on", "note_off") and (waiting := sounding.get((message.channel, message.note))):
            end(message.channel, message.note, waiting.pop(0))
    for (channel, pitch), waiting in sounding.items():
        for struck in waiting:
            end(channel, pitch, struck)
    return {channel: (programs.get(channel, 0), rows) for channel, rows in found.items()}


def _beats(
    meters: Mapping[int, tuple[int, int]], tempos: TempoMap, last_s: float, ticks_per_quarter: int, name: str
) -> tuple[Int64, Int64]:
    """Return the ticks of all beats, and of those that are the first of a bar, up to the first one at or behind `last_s`."""
    place = int(np.searchsorted(tempos.seconds(tempos.ticks), last_s, side="right")) - 1
    behind_s = last_s - float(tempos.seconds([int(tempos.ticks[place])])[0])
    last = int(tempos.ticks[place]) + int(np.ceil(behind_s / tempos.tick_s[place] - 1e-6))
    beats: list[int] = []
    downbeats: list[int] = []
    for tick, until in pairwise([*(t for t in meters if t < last), last]):
        numerator, denominator = meters[tick]
        compound = denominator >= 8 and numerator in _COMPOUND
        beat = 4 * ticks_per_quarter * (3 if compound else 1) / denominator
        count = int(np.ceil((until - tick) / beat - 1e-6)) + (until == last)
        if len(beats) + count > _MOST_BEATS:
            raise InputError(f"{name}: a MIDI file of more than {_MOST_BEATS} beats is not read")
        every = [round(tick + number * beat) for number in range(count)]
        beats += every
        downbeats += every[:: numerator // 3 if compound else numerator]
    return np.array(beats, dtype=np.int64), np.array(downbeats, dtype=np.int64)
