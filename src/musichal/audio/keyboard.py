"""A keyboard that is heard: MIDI messages become sound as they come, and exact notes.

The sound is that of the embedded instrument, mono, so that a keyboard live, a MIDI file offline and a MIDI file in training are
heard alike; a soundfont can take its place. It does not depend on how the stream is cut. Pedals hold notes as on a piano (MIDI
1.0, controllers 64 and 66), pitch bend moves what sounds (its range by RPN 0, tuning by RPN 1 and 2, MPE zones by RPN 6), and
programs and banks choose the sound. Volume and expression set its level as General MIDI 2 says, 40 log10 of the value in dB;
pressure, of the channel or of one key, swells it by up to 6 dB. A note lasts, exactly, as long as its key is down.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from operator import itemgetter

import numpy as np

from musichal.arrays import Float32, Float64, Int64
from musichal.audio.instrument import HI_HATS, RELEASE_S, Keys, StruckKeys
from musichal.audio.midi_take import Control
from musichal.note import PERCUSSION_CHANNEL, HeardNote, Note

_MOST_VOICES = 64
_SUSTAIN, _SOSTENUTO, _SOUND_OFF, _RESET, _NOTES_OFF = 64, 66, 120, 121, range(123, 128)
_SHORTEST_S = 0.005
_BANK, _DATA, _DATA_FINE, _RPN_FINE, _RPN = 0, 6, 38, 100, 101
_VOLUME, _EXPRESSION = 7, 11
_USUAL_VOLUME, _GLIDE_S = 100, 0.01  # as General MIDI says
_BEND_RANGE, _MPE_BEND_RANGE, _BENDS_BY = 2.0, 48.0, 8192
_MOST_CONTROLS = 200_000  # those that nobody took are forgotten


class _Gain:
    """A gain, 1 at first, that glides to each value that is set at a sample of the stream."""

    def __init__(self, glide: int) -> None:
        self._glide = glide
        self._steps: list[tuple[int, float, float]] = []  # from a sample on, from one value to another

    def set(self, at: int, value: float, *, at_once: bool = False) -> None:
        """Go to a value from a sample on, which is no earlier than those before."""
        if value != (1.0 if self.is_one else self._steps[-1][2]):
            self._steps.append((at, value if at_once else float(self.over(at, at + 1)[0]), value))

    def over(self, first: int, last: int) -> Float64:
        """Return the gains of samples [first, last), which do not depend on how they are cut."""
        samples = np.arange(first, last)
        since, before, after = (np.array(column) for column in zip((first, 1.0, 1.0), *self._steps, strict=True))
        since[0] = min(first, self._steps[0][0] if self._steps else first) - self._glide
        row = np.searchsorted(since, samples, side="right") - 1
        share = np.minimum((samples - since[row]) / self._glide, 1.0)
        gains: Float64 = np.where(share < 1.0, before[row] + (after[row] - before[row]) * share, after[row])
        return gains

    def apply(self, part: Float32, first: int, last: int) -> None:
        """Multiply what sounds in samples [first, last), or begins to, by its gains."""
        if self._steps and first >= self._steps[-1][0] + self._glide:  # as nearly always
            part *= np.float32(self._steps[-1][2])
        elif self._steps:
            part *= self.over(first, last)[: part.shape[0]].astype(np.float32)

    def forget(self, until: int) -> None:
        """Forget what is over before a sample."""
        self._steps = self._steps[max(0, bisect_right(self._steps, until, key=itemgetter(0)) - 1) :]

    @property
    def is_one(self) -> bool:
        """Whether nothing was ever set."""
        return not self._steps

    @property
    def is_moving(self) -> bool:
        """Whether it was set more often than is remembered forever."""
        return len(self._steps) > 1


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
    bends: list[tuple[int, float, float]] = field(default_factory=list)
    """From a sample on, the place in the sound, and how fast it goes on; empty where it was never bent."""
    gain: _Gain | None = None
    """By how much its key is pressed."""

    def bend(self, at: int, ratio: float) -> None:
        """Go on `ratio` times as fast from a sample on."""
        since, place, before = self.bends[-1] if self.bends else (self.struck, 0.0, 1.0)
        if ratio != before:
            self.bends.append((at, place + (at - since) * before, ratio))

    def places(self, first: int, last: int) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
        """Return the places in the sound of samples [first, last), which do not depend on how they are cut."""
        samples = np.arange(first, last)
        since, place, ratio = (np.array(column) for column in zip((self.struck, 0.0, 1.0), *self.bends, strict=True))
        row = np.searchsorted(since, samples, side="right") - 1
        out: np.ndarray[tuple[int], np.dtype[np.float64]] = place[row] + (samples - since[row]) * ratio[row]
        return out


@dataclass
class _Channel:
    """What the controllers of a channel say."""

    gain: _Gain
    program: int = 0
    bank: int = 0
    is_sustained: bool = False
    is_sostenuto: bool = False
    bend: int = 0
    bend_range: float = _BEND_RANGE
    fine: float = 0.0
    coarse: int = 0
    rpn: tuple[int, int] = (127, 127)
    volume: int = _USUAL_VOLUME
    expression: int = 127
    pressure: int = 0

    @property
    def level(self) -> float:
        """By how much it sounds louder than at the usual volume."""
        return float((self.volume / _USUAL_VOLUME) ** 2 * (self.expression / 127) ** 2 * (1 + self.pressure / 127))

    @property
    def ratio(self) -> float:
        """How much higher it sounds than it is struck."""
        return float(2 ** ((self.bend / _BENDS_BY * self.bend_range + self.fine + self.coarse) / 12))


@dataclass(frozen=True)
class KeyPress:
    """A key that was struck, at a sample of the stream."""

    sample: int
    pitch: int
    velocity: int
    channel: int


class KeyboardSynth:
    """Renders MIDI channel messages block by block.

    Messages are taken in order; one that comes for a sample already rendered sounds with the next one. When more notes sound
    than there are voices, the oldest ends.

    * `keys`: What a key sounds like; the embedded instrument.
    * `position`: How many samples were rendered.

    Examples
    --------
    >>> synth = KeyboardSynth(24_000)
    >>> synth.take(bytes([0x90, 60, 100]), 0)
    >>> synth.render(2400).shape
    (2400,)
    """

    def __init__(self, sample_rate_hz: int, keys: Keys | None = None) -> None:
        self.position = 0
        self._rate_hz, self._keys = sample_rate_hz, keys or StruckKeys()
        self._release = round(RELEASE_S * sample_rate_hz)
        self._fall = (np.linspace(1, 0, self._release, endpoint=False) ** 3).astype(np.float32)
        self._voices: list[_Voice] = []
        self._moving: list[_Gain] = []
        self._glide = round(_GLIDE_S * sample_rate_hz)
        self._channels = [_Channel(_Gain(self._glide)) for _ in range(16)]
        self._controls: list[Control] = []
        self._down: dict[tuple[int, int], list[KeyPress]] = {}
        self._pressed: list[KeyPress] = []
        self._ended: tuple[list[HeardNote], list[HeardNote]] = [], []
        self._last = 0

    def take(self, data: bytes, at_sample: int) -> None:
        """Take a channel message at a sample; others are ignored."""
        at = self._last = max(at_sample, self.position, self._last)
        kind, channel = (data[0] & 0xF0, data[0] & 0x0F) if data else (0, 0)
        if kind in (0xA0, 0xB0, 0xC0, 0xD0, 0xE0) and len(self._controls) < _MOST_CONTROLS:
            self._controls.append(Control(at / self._rate_hz, bytes(data)))
        if kind == 0xC0 and len(data) == 2:
            self._channels[channel].program = data[1] & 0x7F
        if kind == 0xD0 and len(data) == 2:
            self._channels[channel].pressure = data[1] & 0x7F
            self._level(channel, at)
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
        elif kind == 0xA0:
            self._press(channel, first, second, at)
        elif kind == 0xE0:
            self._channels[channel].bend = (first | second << 7) - _BENDS_BY
            self._bend(channel, at)
        elif kind == 0xB0:
            self._control(channel, first, second, at)

    def render(self, samples: int) -> Float32:
        """Return the next samples, shape (n,)."""
        start, end = self.position, self.position + samples
        mix = np.zeros(samples, dtype=np.float32)
        for voice in self._voices:
            self._add(voice, mix, start, end)
        self.position = end
        for gain in self._moving:
            gain.forget(end)
        self._moving = [gain for gain in self._moving if gain.is_moving]
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

    def controls(self) -> tuple[Control, ...]:
        """Return the channel messages that are no notes since the last call, in order."""
        controls, self._controls = self._controls, []
        return tuple(controls)

    def silence(self) -> None:
        """End every note now."""
        self._release_all(range(16), max(self.position, self._last))
        for channel in self._channels:
            channel.is_sustained = channel.is_sostenuto = False
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
        sounding = [voice for voice in self._voices if voice.damped is None and at < self._silent_from(voice)]
        if len(sounding) >= _MOST_VOICES:
            self._end(sounding[0], at)
        note = Note(at / self._rate_hz, _SHORTEST_S, pitch, velocity, channel)
        state = self._channels[channel]
        program = state.program + 128 * state.bank
        voice = _Voice(note, program, at, round(self._keys.lasts_s(note) * self._rate_hz))
        if not is_drum:
            voice.bend(at, state.ratio)
        self._voices.append(voice)
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
        state = self._channels[channel]
        for voice in self._of(channel):
            if number == _SOSTENUTO:  # it holds what is down when it goes down
                voice.is_held = value >= 64 and (voice.is_held or (voice.is_down and not state.is_sostenuto))
            elif number == _RESET:
                voice.is_held = False
            elif number == _SOUND_OFF:
                self._end(voice, at)
            elif number in _NOTES_OFF:
                voice.is_down = False
        self._set(channel, number, value, at)
        for voice in self._of(channel):
            self._let_go(voice, at)

    def _set(self, channel: int, number: int, value: int, at: int) -> None:
        """Take what a controller says of its channel."""
        state = self._channels[channel]
        if number in (_SUSTAIN, _RESET):
            state.is_sustained = number == _SUSTAIN and value >= 64
        if number in (_SOSTENUTO, _RESET):
            state.is_sostenuto = number == _SOSTENUTO and value >= 64
        if number == _BANK:
            state.bank = value
        elif number in (_VOLUME, _EXPRESSION):
            state.volume, state.expression = (value, state.expression) if number == _VOLUME else (state.volume, value)
            self._level(channel, at)
        elif number in (_RPN, _RPN_FINE):
            state.rpn = (value, state.rpn[1]) if number == _RPN else (state.rpn[0], value)
        elif number in (98, 99):  # another kind of parameter
            state.rpn = (127, 127)
        elif number in (_DATA, _DATA_FINE):
            self._tune(channel, value, is_fine=number == _DATA_FINE)
            self._bend(channel, at)
        elif number == _RESET:
            state.bend, state.rpn, state.expression, state.pressure = 0, (127, 127), 127, 0
            self._bend(channel, at)
            self._level(channel, at)
            for voice in self._of(channel):
                self._press(channel, voice.note.pitch, 0, at)

    def _level(self, channel: int, at: int) -> None:
        """Go to the level of a channel, at once where nothing sounds on it."""
        sounds = any(voice.note.channel == channel and at < self._silent_from(voice) for voice in self._voices)
        gain = self._channels[channel].gain
        gain.set(at, self._channels[channel].level, at_once=not sounds)
        self._moving += [gain] * (gain not in self._moving)

    def _press(self, channel: int, pitch: int, pressure: int, at: int) -> None:
        """Press a key that is down."""
        for voice in self._of(channel):
            if voice.note.pitch == pitch:
                voice.gain = voice.gain or _Gain(self._glide)
                voice.gain.set(at, 1 + pressure / 127)
                self._moving += [voice.gain] * (voice.gain not in self._moving)

    def _tune(self, channel: int, value: int, *, is_fine: bool) -> None:
        """Set the parameter of a channel that was chosen before."""
        state = self._channels[channel]
        if state.rpn == (0, 0):
            state.bend_range = int(state.bend_range) + value / 100 if is_fine else float(value)
        elif state.rpn == (0, 1):
            before = round((state.fine + 1) * _BENDS_BY)
            after = (before & ~0x7F) | value if is_fine else (value << 7) | (before & 0x7F)
            state.fine = after / _BENDS_BY - 1
        elif state.rpn == (0, 2) and not is_fine:
            state.coarse = value - 64
        elif state.rpn == (0, 6) and not is_fine and channel in (0, 15):  # an MPE zone from either end
            for member in self._channels[1 : 1 + value] if channel == 0 else self._channels[max(0, 15 - value) : 15]:
                member.bend_range = _MPE_BEND_RANGE

    def _bend(self, channel: int, at: int) -> None:
        """Move what sounds on a channel to where its bend is."""
        for voice in self._voices:
            if voice.note.channel == channel != PERCUSSION_CHANNEL:
                voice.bend(at, self._channels[channel].ratio)

    def _let_go(self, voice: _Voice, at: int) -> None:
        """End a note that neither key nor pedal holds; a drum sounds to its end."""
        held = voice.is_down or voice.is_held or self._channels[voice.note.channel].is_sustained
        if not held and voice.note.channel != PERCUSSION_CHANNEL:
            self._end(voice, at)

    def _end(self, voice: _Voice, at: int) -> None:
        if voice.damped is None:
            voice.damped = at

    def _silent_from(self, voice: _Voice) -> int:
        over = voice.struck + voice.length
        return over if voice.damped is None else min(over, voice.damped + self._release)

    def _add(self, voice: _Voice, mix: Float32, start: int, end: int) -> None:
        first, last = max(start, voice.struck), min(end, self._silent_from(voice))
        if first >= last:
            return
        part = self._bent(voice, first, last)
        if voice.damped is not None and last > voice.damped:
            from_ = max(first, voice.damped)
            part[from_ - first :] *= self._fall[from_ - voice.damped : last - voice.damped][: part.shape[0]]
        for gain in (self._channels[voice.note.channel].gain, voice.gain):
            if gain is not None:
                gain.apply(part, first, last)
        mix[first - start : first - start + part.shape[0]] += part

    def _sound(self, voice: _Voice, first: int, last: int) -> Float32:
        """Return samples [first, last) of a key that stays down, fewer where it has ended, to be changed at will."""
        return self._keys.sound(voice.note, first, last, sample_rate_hz=self._rate_hz, program=voice.program)

    def _bent(self, voice: _Voice, first: int, last: int) -> Float32:
        """Return samples [first, last) of the stream, of a voice whose sound is read faster or slower where it is bent."""
        if not voice.bends:
            return self._sound(voice, first - voice.struck, last - voice.struck)
        voice.bends = voice.bends[max(0, bisect_right(voice.bends, first, key=itemgetter(0)) - 1) :]
        places = voice.places(first, last)
        whole: Int64 = np.floor(np.minimum(places, voice.length)).astype(np.int64)  # however far it is bent: then it is silent
        sound = self._sound(voice, int(whole[0]), int(whole[-1]) + 2)
        sound = np.pad(sound, (0, max(0, int(whole[-1]) + 2 - int(whole[0]) - len(sound))))
        share = (places - whole).astype(np.float32)
        at = whole - whole[0]
        mixed: Float32 = sound[at] * (1 - share) + sound[at + 1] * share
        return mixed
