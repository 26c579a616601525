"""A keyboard that is heard: MIDI messages become sound as they come, and exact notes.

The sound is that of the embedded instrument, mono, so that a keyboard live, a MIDI file offline and a MIDI file in training are
heard alike. It does not depend on how the stream is cut. Pedals hold notes as on a piano (MIDI 1.0, controllers 64 and 66);
bends and pressure are not heard. A note lasts, exactly, as long as its key is down.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from musichal.arrays import Float32, Float64
from musichal.audio.instrument import HI_HATS, RELEASE_S, lasts_s, mono_gain, struck_sound
from musichal.note import PERCUSSION_CHANNEL, HeardNote, Note

_GAIN = 1.0
_MOST_VOICES = 64
_SUSTAIN, _SOSTENUTO, _SOUND_OFF, _RESET, _NOTES_OFF = 64, 66, 120, 121, range(123, 128)
_SHORTEST_S = 0.005


@dataclass
class _Voice:
    """A note that sounds: struck at a sample, damped from `damped` on, silent from `struck + length` on."""

    note: Note
    program: int
    struck: int
    length: int
    is_down: bool = True
    is_held: bool = False  # by the sostenuto pedal
    damped: int | None = None


@dataclass(frozen=True)
class KeyPress:
    """A key that was struck, at a sample of the stream."""

    sample: int
    pitch: int
    velocity: int
    channel: int


@dataclass(frozen=True)
class MidiChoice:
    """What is played of a MIDI file, and by what.

    `tracks` are names, numbers counted from 1, or the words of `musichal.audio.score.chosen`; `channels` count from 1. Empty
    ones are all.
    """

    tracks: tuple[str, ...] = ()
    channels: frozenset[int] = frozenset()


@dataclass(frozen=True)
class MidiTake:
    """What a MIDI file says of a recording.

    `notes` and drum `hits` are ordered by onset. `beats_s` (n,) and `downbeats_s` (m,) are empty where the notes do not lie on
    the file's grid. The sound `is_rendered` from the file, or another recording of the same performance.
    """

    notes: tuple[HeardNote, ...]
    hits: tuple[HeardNote, ...]
    beats_s: Float64
    downbeats_s: Float64
    is_rendered: bool = True

    @property
    def onsets(self) -> tuple[HeardNote, ...]:
        """Notes and hits, by onset."""
        return tuple(sorted((*self.notes, *self.hits), key=lambda note: (note.onset_s, note.pitch)))


class KeyboardSynth:
    """Renders MIDI channel messages block by block.

    Messages are taken in order; one that comes for a sample already rendered sounds with the next one. When more notes sound
    than there are voices, the oldest ends.

    Parameters
    ----------
    sample_rate_hz : int

    Attributes
    ----------
    position : int
        How many samples were rendered.

    Examples
    --------
    >>> synth = KeyboardSynth(24_000)
    >>> synth.take(bytes([0x90, 60, 100]), 0)
    >>> synth.render(2400).shape
    (2400,)
    """

    def __init__(self, sample_rate_hz: int) -> None:
        self.position = 0
        self._rate_hz = sample_rate_hz
        self._release = round(RELEASE_S * sample_rate_hz)
        self._fall = (np.linspace(1, 0, self._release, endpoint=False) ** 3).astype(np.float32)
        self._voices: list[_Voice] = []
        self._programs = [0] * 16
        self._sustained = [False] * 16
        self._down: dict[tuple[int, int], list[KeyPress]] = {}
        self._pressed: list[KeyPress] = []
        self._ended: tuple[list[HeardNote], list[HeardNote]] = [], []
        self._last = 0

    def take(self, data: bytes, at_sample: int) -> None:
        """Take a channel message at a sample; others are ignored."""
        at = self._last = max(at_sample, self.position, self._last)
        kind, channel = (data[0] & 0xF0, data[0] & 0x0F) if data else (0, 0)
        if kind == 0xC0 and len(data) == 2:
            self._programs[channel] = data[1] & 0x7F
        if len(data) != 3:
            return
        first, second = data[1] & 0x7F, data[2] & 0x7F
        if kind == 0x90 and second:
            self._strike(channel, first, second, at)
        elif kind in (0x80, 0x90):
            self._release_key(channel, first, at)
            for voice in self._of(channel):
                if voice.note.pitch == first and voice.is_down:
                    voice.is_down = False
                    self._let_go(voice, at)
        elif kind == 0xB0:
            self._control(channel, first, second, at)

    def render(self, samples: int) -> Float32:
        """Return the next samples, shape (n,)."""
        start, end = self.position, self.position + samples
        mix = np.zeros(samples, dtype=np.float32)
        for voice in self._voices:
            self._add(voice, mix, start, end)
        self.position = end
        for voice in self._voices:
            if end >= voice.struck + voice.length:
                self._end(voice, voice.struck + voice.length)
        self._voices = [v for v in self._voices if v.damped is None or v.damped + self._release > end]
        return mix

    def skip(self, samples: int) -> None:
        """Leave out the next samples; what sounds ends before them."""
        self.silence()
        self._voices = []
        self.position += samples

    def pressed(self) -> tuple[KeyPress, ...]:
        """Return the keys that were struck since the last call, in order."""
        keys, self._pressed = self._pressed, []
        return tuple(keys)

    def ended(self) -> tuple[tuple[HeardNote, ...], tuple[HeardNote, ...]]:
        """Return the notes, and the drum hits, whose keys were released since the last call, by onset."""
        ended, self._ended = self._ended, ([], [])
        notes, hits = (tuple(sorted(some, key=lambda note: (note.onset_s, note.pitch))) for some in ended)
        return notes, hits

    def silence(self) -> None:
        """End every note now."""
        self._release_all(range(16), max(self.position, self._last))
        self._sustained = [False] * 16
        for voice in self._voices:
            voice.is_down = voice.is_held = False
            self._let_go(voice, max(self.position, self._last))

    def _of(self, channel: int) -> Iterator[_Voice]:
        return (voice for voice in self._voices if voice.note.channel == channel and voice.damped is None)

    def _strike(self, channel: int, pitch: int, velocity: int, at: int) -> None:
        is_drum = channel == PERCUSSION_CHANNEL
        if is_drum:
            self._release_key(channel, pitch, at)  # many pads never do
        for voice in self._of(channel):
            if voice.note.pitch in (HI_HATS if is_drum and pitch in HI_HATS else (pitch,) if not is_drum else ()):
                self._end(voice, at)
        sounding = [voice for voice in self._voices if voice.damped is None]
        if len(sounding) >= _MOST_VOICES:
            self._end(sounding[0], at)
        note = Note(at / self._rate_hz, _SHORTEST_S, pitch, velocity, channel)
        self._voices.append(_Voice(note, self._programs[channel], at, round(lasts_s(note) * self._rate_hz)))
        self._pressed.append(KeyPress(at, pitch, velocity, channel))
        self._down.setdefault((channel, pitch), []).append(self._pressed[-1])

    def _release_key(self, channel: int, pitch: int, at: int) -> None:
        """Release the key that was struck first of those that are down on a pitch."""
        if down := self._down.get((channel, pitch)):
            key = down.pop(0)
            duration_s = max((at - key.sample) / self._rate_hz, _SHORTEST_S)
            ended = self._ended[channel == PERCUSSION_CHANNEL]
            ended.append(HeardNote(key.sample / self._rate_hz, duration_s, pitch, key.velocity))

    def _release_all(self, channels: Iterable[int], at: int) -> None:
        for channel, pitch in [key for key in self._down if key[0] in channels]:
            while self._down[channel, pitch]:
                self._release_key(channel, pitch, at)

    def _control(self, channel: int, number: int, value: int, at: int) -> None:
        if number == _SOUND_OFF or number in _NOTES_OFF:
            self._release_all((channel,), at)
        for voice in self._of(channel):
            if number == _SOSTENUTO:
                voice.is_held = value >= 64 and (voice.is_held or voice.is_down)
            elif number == _RESET:
                voice.is_held = False
            elif number == _SOUND_OFF:
                self._end(voice, at)
            elif number in _NOTES_OFF:
                voice.is_down = False
        if number in (_SUSTAIN, _RESET):
            self._sustained[channel] = number == _SUSTAIN and value >= 64
        for voice in self._of(channel):
            self._let_go(voice, at)

    def _let_go(self, voice: _Voice, at: int) -> None:
        """End a note that neither key nor pedal holds; a drum sounds to its end."""
        held = voice.is_down or voice.is_held or self._sustained[voice.note.channel]
        if not held and voice.note.channel != PERCUSSION_CHANNEL:
            self._end(voice, at)

    def _end(self, voice: _Voice, at: int) -> None:
        if voice.damped is None:
            voice.damped = at

    def _add(self, voice: _Voice, mix: Float32, start: int, end: int) -> None:
        first, last = max(start, voice.struck), min(end, voice.struck + voice.length)
        if voice.damped is not None:
            last = min(last, voice.damped + self._release)
        if first >= last:
            return
        needed_s = (last - voice.struck) / self._rate_hz
        sound = struck_sound(voice.note, needed_s, sample_rate_hz=self._rate_hz, program=voice.program)
        part = sound[first - voice.struck : last - voice.struck] * np.float32(_GAIN * mono_gain(voice.note))
        if voice.damped is not None and last > voice.damped:
            from_ = max(first, voice.damped)
            part[from_ - first :] *= self._fall[from_ - voice.damped : last - voice.damped][: part.shape[0]]
        mix[first - start : first - start + part.shape[0]] += part
