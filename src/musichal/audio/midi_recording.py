"""MIDI files as recordings: rendered to the sound that is heard, with what they say exactly.

The sound is that of `KeyboardSynth`, at one rate, so that a file is heard like a keyboard that plays it live. Notes, drum hits
and beats are the file's. Its beats are a grid only where its notes lie on it: a performance that was recorded without a click
has the tempo of the sequencer, which nobody played to.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from musichal.arrays import Float32, Float64, SampleStore
from musichal.audio.instrument import Keys, find_keys
from musichal.audio.keyboard import KeyboardSynth
from musichal.audio.midi_take import Control, MidiChoice, MidiTake
from musichal.audio.recording import Recording, ingest
from musichal.audio.score import Score, Track, channel_messages, chosen, parse_midi, read_midi_bytes, score_of, tempo_map
from musichal.errors import InputError
from musichal.note import PERCUSSION_CHANNEL, HeardNote
from musichal.text import PathLike, printable

MIDI_RATE_HZ = 24_000
"""The rate of the sound of a MIDI file or keyboard."""
_BLOCK = 24_000  # a long file is rendered quickly by the second
_TAIL_S = 0.5
_LEAST_ONSETS, _LEAST_CONCENTRATION = 8, 0.5


def read_midi_recording(path: PathLike, choice: MidiChoice = MidiChoice()) -> Recording:  # noqa: B008 - frozen
    """Read a standard MIDI file, render what is chosen of it, and keep what that says exactly.

    Raises `InputError` if it cannot be read, is damaged, has no note or no such track, or holds too much.
    """
    name = printable(Path(path).name)
    score, messages = _read(path, choice)
    keys, duration_s = find_keys(choice.soundfont), score.duration_s + _TAIL_S
    samples = render_messages(messages, duration_s=duration_s, sample_rate_hz=MIDI_RATE_HZ, keys=keys)
    if not samples.any():
        raise InputError(f"{printable(path)}: is digital silence throughout: its volume or expression is 0")
    return Recording(name, MIDI_RATE_HZ, samples, take=take_of(score, messages))


def played_recording(score: Score, tracks: Sequence[Track], *, duration_s: float) -> Recording:
    """Return tracks of a score as a MIDI file of them would be: rendered, with their notes; each has a channel of its own."""
    free = [channel for channel in range(16) if channel != PERCUSSION_CHANNEL]
    messages: list[tuple[float, bytes]] = []
    for number, track in enumerate(tracks):
        channel = PERCUSSION_CHANNEL if track.is_drums else free[number % len(free)]
        messages.append((0.0, bytes((0xC0 | channel, track.program))))
        for note in track.notes:
            messages.append((note.onset_s, bytes((0x90 | channel, note.pitch, note.velocity))))
            messages.append((note.onset_s + note.duration_s, bytes((0x80 | channel, note.pitch, 0))))
    messages.sort(key=lambda one: (one[0], one[1][0] & 0xF0 == 0x90))  # a key is released before it is struck again
    samples = render_messages(messages, duration_s=duration_s, sample_rate_hz=MIDI_RATE_HZ)
    return Recording(score.name, MIDI_RATE_HZ, samples, take=take_of(replace(score, tracks=tuple(tracks))))


def read_take(path: PathLike, choice: MidiChoice = MidiChoice()) -> MidiTake:  # noqa: B008 - frozen
    """Return what a MIDI file says, without its sound; raises as `read_midi_recording` does."""
    return take_of(*_read(path, choice))


def _read(path: PathLike, choice: MidiChoice) -> tuple[Score, list[tuple[float, bytes]]]:
    """Return the score of what is chosen of a file, and its channel messages."""
    name = printable(path)
    midi = parse_midi(read_midi_bytes(path), name=name)
    score = chosen(score_of(midi, name=name), choice)
    return score, channel_messages(midi, tempo_map(midi, name=name), score)


def render_messages(
    messages: list[tuple[float, bytes]], *, duration_s: float, sample_rate_hz: int, keys: Keys | None = None
) -> Float32:
    """Return the sound of channel messages, given with their times in order, (n,), at most at full scale."""
    synth = KeyboardSynth(sample_rate_hz, keys)
    end = round(duration_s * sample_rate_hz)
    raw, sound, loudest, at = SampleStore(), SampleStore(), 1.0, 0
    while synth.position < end:
        until = min(end, synth.position + _BLOCK)
        while at < len(messages) and (sample := round(messages[at][0] * sample_rate_hz)) < until:
            synth.take(messages[at][1], sample)
            at += 1
        part = synth.render(until - synth.position)
        loudest = max(loudest, float(np.abs(part).max()) / 0.99)
        raw.append(part)
    samples = raw.samples()
    for first in range(0, end, _BLOCK):
        sound.append(ingest(samples[first : first + _BLOCK] / loudest))
    return sound.samples()


def take_of(score: Score, messages: Sequence[tuple[float, bytes]] = ()) -> MidiTake:
    """Return what a score says exactly, and of its channel messages those that are no notes."""
    heard: tuple[list[HeardNote], list[HeardNote]] = [], []
    for track in score.tracks:
        for note in track.notes:
            heard[track.is_drums].append(HeardNote(note.onset_s, note.duration_s, note.pitch, note.velocity))
    notes, hits = (tuple(sorted(some, key=lambda n: (n.onset_s, n.pitch))) for some in heard)
    beats_s, downbeats_s = score.beats_s, score.downbeats_s
    onsets_s = np.array([note.onset_s for note in (*notes, *hits)])
    if not on_grid(onsets_s, beats_s):
        beats_s = downbeats_s = np.zeros(0)
    channels, until_s = {track.channel for track in score.tracks}, score.duration_s
    controls = tuple(
        Control(time_s, data)
        for time_s, data in messages
        if data[0] & 0xF0 not in (0x80, 0x90) and data[0] & 0x0F in channels and time_s <= until_s
    )
    return MidiTake(notes, hits, beats_s, downbeats_s, controls=controls, labels=score.labels)


def on_grid(onsets_s: Float64, beats_s: Float64) -> bool:
    """Return whether onsets lie on beats, or on their quarters or thirds (mean resultant length)."""
    if len(onsets_s) < _LEAST_ONSETS or len(beats_s) < 2:
        return False
    places = np.interp(onsets_s, beats_s, np.arange(len(beats_s)))
    return any(abs(np.exp(2j * np.pi * parts * places).mean()) >= _LEAST_CONCENTRATION for parts in (4, 3))
