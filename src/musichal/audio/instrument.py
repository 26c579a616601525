"""Render notes to sound: with a SoundFont 2 file where there is one, else with an instrument that needs no data.

Conventions
-----------
`EmbeddedInstrument` has an electric piano, a bass (General MIDI programs 33 to 40 on a panel, 32 to 39 here) and a drum kit
(channel 9, counted from 0, with General MIDI's keys). Pitched tones are sums of exact harmonics, those above the Nyquist
frequency inaudible: they are in tune and do not alias. Higher harmonics decay faster. Loudness follows (velocity / 127)², as
in `musichal.audio.soundfont`; a harder touch is also brighter, in eight steps.
"""

import importlib.util
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from musichal.arrays import Float32, Float64
from musichal.audio.soundfont import open_soundfont
from musichal.errors import InputError
from musichal.note import PERCUSSION_CHANNEL, Note
from musichal.text import PathLike

_LONGEST_S = 4 * 3600.0
_TOUCHES = 8
_HIGHEST_HZ = 14_000.0
_ATTACK_S, _LONGEST_TONE_S, _FADE_S = 0.003, 8.0, 0.25
_FONT_STRETCH_S, _FONT_LASTS_S, _FONT_GAIN = 0.5, 16.0, 0.5
RELEASE_S = 0.12
"""How long a tone takes to end once its key is released."""
_PITCHED_LEVEL, _DRUM_LEVEL = 0.6, 0.35
_BASS_PROGRAMS = range(32, 40)
HI_HATS = (42, 44, 46)
"""Keys of which one ends the other."""


class Instrument(Protocol):
    """Renders single notes; see `SoundFont` and `EmbeddedInstrument`."""

    def sounds(
        self, notes: Iterable[Note], *, sample_rate_hz: int, programs: Mapping[int, int]
    ) -> Iterator[tuple[int, Float32]]:
        """Yield the first sample and the stereo sound (n, 2) of each note, in an order that depends on the notes alone."""


def find_instrument(soundfont: PathLike | None = None) -> Instrument:
    """Return the soundfont that is named, else the one of the installed pretty_midi package, else the embedded instrument.

    Raises `InputError` where the named file is not a soundfont.
    """
    font = soundfont or find_soundfont()
    return EmbeddedInstrument() if font is None else open_soundfont(font)


def find_soundfont() -> Path | None:
    """Return the General MIDI soundfont in the installed pretty_midi package, without importing it; None without one."""
    try:
        spec = importlib.util.find_spec("pretty_midi")
    except ValueError:  # a module of that name without a spec
        return None
    fonts = (Path(folder) / "TimGM6mb.sf2" for folder in ((spec and spec.submodule_search_locations) or ()))
    return next((font for font in fonts if font.is_file()), None)


def render_notes(
    notes: Iterable[Note],
    instrument: Instrument,
    *,
    sample_rate_hz: int = 44100,
    programs: Mapping[int, int] | None = None,
    gain: float = 0.5,
) -> Float32:
    """Render `notes` to stereo samples (n, 2), from time 0 to the end of the last release.

    `programs` maps channels to General MIDI programs (default 0); channel 9 plays drums. `gain` is linear; many loud notes
    together can exceed 1. Raises `InputError` where the instrument lacks a program, or the notes last over four hours.
    """
    notes = list(notes)
    end_s = max((note.onset_s + note.duration_s for note in notes), default=0.0)
    if end_s > _LONGEST_S:
        raise InputError(f"an answer of {end_s / 3600:.1f} hours is too long to render")
    mix, length = np.zeros((math.ceil((end_s + 1) * sample_rate_hz), 2), np.float32), 0
    for start, sound in instrument.sounds(notes, sample_rate_hz=sample_rate_hz, programs=programs or {}):
        end = start + len(sound)
        if end > len(mix):
            mix = np.pad(mix, [(0, end - len(mix) + sample_rate_hz), (0, 0)])
        mix[start:end] += sound * np.float32(gain)
        length = max(length, end)
    return mix[:length]


class EmbeddedInstrument:
    """Electric piano, bass and drums, synthesised without any data file."""

    def sounds(
        self, notes: Iterable[Note], *, sample_rate_hz: int, programs: Mapping[int, int]
    ) -> Iterator[tuple[int, Float32]]:
        """Yield the first sample and the stereo sound (n, 2) of each note; see `Instrument`."""
        ordered = sorted(notes, key=lambda n: (n.onset_s, n.channel, n.pitch, n.velocity, n.duration_s))
        open_until = math.inf
        for note in reversed(ordered):
            is_drum, held_s = note.channel == PERCUSSION_CHANNEL, note.duration_s
            if is_drum:
                held_s = math.inf
                if note.pitch in HI_HATS:  # the next hi-hat ends this one
                    held_s, open_until = open_until - note.onset_s, note.onset_s
            bass = programs.get(note.channel, 0) in _BASS_PROGRAMS
            sound = _struck(note, held_s + RELEASE_S, sample_rate_hz, is_drum=is_drum, bass=bass)
            if held_s < len(sound) / sample_rate_hz:
                sound = _released(sound, held_s, sample_rate_hz)
            sides = np.array(_sides(note, is_drum=is_drum))
            yield round(note.onset_s * sample_rate_hz), sound[:, None] * sides.astype(np.float32)


class Keys(Protocol):
    """What a key sounds like that is struck and stays down, mono."""

    def sound(self, note: Note, first: int, last: int, *, sample_rate_hz: int, program: int) -> Float32:
        """Return samples [first, last) of it, fewer where it has ended, whatever else is asked for; `note` has no end.

        `program` is a General MIDI program, plus 128 for each bank.
        """

    def lasts_s(self, note: Note) -> float:
        """Return how long it sounds."""


class StruckKeys:
    """The keys of the embedded instrument."""

    def sound(self, note: Note, first: int, last: int, *, sample_rate_hz: int, program: int) -> Float32:
        """Return samples of a key; see `Keys`."""
        is_drum = note.channel == PERCUSSION_CHANNEL
        bass = program % 128 in _BASS_PROGRAMS
        sound = _struck(note, last / sample_rate_hz, sample_rate_hz, is_drum=is_drum, bass=bass)
        return sound[first:last] * np.float32(sum(_sides(note, is_drum=is_drum)) / 2)

    def lasts_s(self, note: Note) -> float:
        """Return how long a key sounds."""
        return _drum_s(_drum(note.pitch)) if note.channel == PERCUSSION_CHANNEL else _LONGEST_TONE_S


class FontKeys:
    """The keys of a soundfont: their first 16 s, which end as soon as the key is released."""

    def __init__(self, font: Instrument) -> None:
        self._font = font
        self._stretch = lru_cache(maxsize=256)(self._made)

    def sound(self, note: Note, first: int, last: int, *, sample_rate_hz: int, program: int) -> Float32:
        """Return samples of a key; see `Keys`. A stretch that is twice as long is made each time that one is over."""
        key = note.pitch, note.velocity, note.channel, program, sample_rate_hz
        parts, begins, seconds = [], 0, _FONT_STRETCH_S
        while begins < last and seconds <= _FONT_LASTS_S:
            ends = round(seconds * sample_rate_hz)
            if first < ends:
                parts.append(self._stretch(*key, seconds)[max(first, begins) : min(last, ends)])
            begins, seconds = ends, 2 * seconds
        return np.concatenate([np.zeros(0, np.float32), *parts])

    def lasts_s(self, note: Note) -> float:
        """Return how long a key may sound."""
        return _FONT_LASTS_S

    def _made(self, pitch: int, velocity: int, channel: int, program: int, rate_hz: int, seconds: float) -> Float32:
        mono = np.zeros(round(seconds * rate_hz), np.float32)
        held = [Note(0.0, seconds + 1.0, pitch, velocity, channel)]
        for start, sound in self._font.sounds(held, sample_rate_hz=rate_hz, programs={channel: program}):
            part = sound[: max(0, len(mono) - start)].mean(axis=1)
            mono[start : start + len(part)] += part
        if seconds == _FONT_LASTS_S:
            fade = round(_FADE_S * rate_hz)
            mono[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
        return mono * np.float32(_FONT_GAIN)


def find_keys(soundfont: PathLike | None) -> Keys:
    """Return the keys of a soundfont, without one those of the embedded instrument; raises `InputError` for what is none."""
    return StruckKeys() if soundfont is None else FontKeys(open_soundfont(soundfont))


def _touch(velocity: int) -> int:
    return min(velocity * _TOUCHES // 128, _TOUCHES - 1)


def _sides(note: Note, *, is_drum: bool) -> tuple[float, float]:
    """Return the gains of a note on the left and on the right."""
    pan, level = (_drum(note.pitch).pan, _DRUM_LEVEL) if is_drum else ((note.pitch - 60) / 120, _PITCHED_LEVEL)
    angle = (pan + 1) * math.pi / 4
    gain = level * (note.velocity / 127) ** 2
    return math.cos(angle) * gain, math.sin(angle) * gain


def _struck(note: Note, sounds_s: float, rate_hz: int, *, is_drum: bool, bass: bool) -> Float32:
    if is_drum:
        return _hit(note.pitch, _touch(note.velocity), rate_hz)
    seconds = 0.5
    while seconds < min(sounds_s + _FADE_S, _LONGEST_TONE_S):  # a tone fades at its end
        seconds *= 2
    return _tone(note.pitch, _touch(note.velocity), seconds, rate_hz, bass=bass)


def _released(sound: Float32, held_s: float, rate_hz: int) -> Float32:
    """Return `sound` damped from `held_s` on."""
    held, release = round(held_s * rate_hz), round(RELEASE_S * rate_hz)
    damped = sound[: held + release].copy()
    fall = np.linspace(1, 0, release, endpoint=False)
    damped[held:] *= (fall**3)[: len(damped) - held].astype(np.float32)
    return damped


@lru_cache(maxsize=256)
def _tone(pitch: int, touch: int, seconds: float, rate_hz: int, *, bass: bool) -> Float32:
    """Return a decaying tone whose harmonic k has the amplitude brightness^k, which falls as it sounds.

    The harmonics are summed in closed form (Moorer, The synthesis of complex audio spectra by means of discrete summation
    formulas, JAES 24(9), 1976); `brightness` is low enough that those above `_HIGHEST_HZ` are 60 dB down.
    """
    pitch_hz, hard = 440.0 * 2.0 ** ((pitch - 69) / 12), (touch + 0.5) / _TOUCHES
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    phase = _phase(pitch_hz, time_s)
    seconds_passed = time_s.astype(np.float32)
    register = 2.0 ** ((60 - pitch) / 36)  # low strings and tines ring longer
    highest_hz = min(0.45 * rate_hz, _HIGHEST_HZ)
    alias_free = 10.0 ** (-3 * pitch_hz / highest_hz)
    if bass:
        brightness, decay_s, dulling_s = 0.6 + 0.25 * hard, 1.4 * min(register, 1.6), 0.6
    else:
        brightness, decay_s, dulling_s = (0.15 + 0.5 * hard) * register**0.7, 1.6 * register, 1.2 * register
    brightness = min(brightness, alias_free, 0.85)
    falling = np.float32(brightness) * np.exp(seconds_passed * np.float32(-1 / dulling_s))
    sound = _harmonics(phase, falling)
    if bass:  # plucked at 0.23 of the string
        sound = (sound - _harmonics(phase + np.float32(2 * np.pi * 0.23), falling)) * np.float32(0.8)
    sound *= np.exp(seconds_passed * np.float32(-1 / decay_s)) * np.float32(math.sqrt(1 - brightness**2))
    bell_hz = 7.1 * pitch_hz  # the second mode of a tine, which makes the attack of an electric piano
    if not bass and bell_hz < highest_hz:
        rung = round(1.0 * rate_hz)
        bell = np.sin(_phase(bell_hz, time_s[:rung])) * np.exp(seconds_passed[:rung] * np.float32(-1 / 0.12))
        sound[:rung] += (0.15 * hard * bell).astype(np.float32)
    rise, fade = round(_ATTACK_S * rate_hz), round(_FADE_S * rate_hz)
    sound[:rise] *= (0.5 - 0.5 * np.cos(np.pi * np.arange(rise) / rise)).astype(np.float32)
    sound[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    return sound


def _phase(frequency_hz: float, time_s: Float64) -> Float32:
    """Return the phase in [0, 2π), exact in single precision however long the tone is."""
    cycles = frequency_hz * time_s
    cycles -= np.floor(cycles)
    return cycles.astype(np.float32) * np.float32(2 * np.pi)


def _harmonics(phase: Float32, ratio: Float32) -> Float32:
    """Return the sum of ratio^(k − 1) sin(k phase) over all k from 1 on."""
    return (np.sin(phase) / (1 - 2 * ratio * np.cos(phase) + ratio * ratio)).astype(np.float32, copy=False)


@dataclass(frozen=True)
class _Drum:
    """A tone whose pitch falls to `tone_hz` from `bend` times it, and noise between two frequencies."""

    tone_hz: float = 0.0
    bend: float = 1.0
    tone_s: float = 0.05
    tone: float = 0.0
    low_hz: float = 200.0
    high_hz: float = 12_000.0
    noise_s: float = 0.03
    noise: float = 0.0
    pan: float = 0.0


def _tom(tone_hz: float, pan: float) -> _Drum:
    return _Drum(tone_hz, 1.6, 0.16, 0.8, 150, 2500, 0.05, 0.15, pan)


_KICK = _Drum(48, 4.0, 0.14, 1.0, 800, 5000, 0.006, 0.3)
_SNARE = _Drum(185, 1.4, 0.07, 0.5, 700, 9000, 0.09, 0.6)
_CLOSED_HAT = _Drum(low_hz=6500, noise_s=0.025, noise=0.5, pan=0.3)
_CRASH = _Drum(low_hz=2500, noise_s=0.6, noise=0.6, pan=-0.4)
_RIDE = _Drum(5140, 1.0, 0.3, 0.12, 4000, 14_000, 0.35, 0.25, 0.4)
_BONGO = _Drum(330, 1.2, 0.08, 0.7, 500, 4000, 0.01, 0.2, -0.3)
_CONGA = _Drum(200, 1.2, 0.15, 0.8, 300, 3000, 0.02, 0.2, 0.3)
_SHAKER = _Drum(low_hz=4500, noise_s=0.05, noise=0.35, pan=-0.3)
_WOOD = _Drum(900, 1.0, 0.03, 0.6, 1000, 5000, 0.005, 0.2, 0.2)
_DRUMS = {
    **dict.fromkeys((35, 36), _KICK),
    **dict.fromkeys((38, 40), _SNARE),
    41: _tom(70, 0.4),
    43: _tom(85, 0.3),
    45: _tom(100, 0.1),
    47: _tom(125, -0.1),
    48: _tom(150, -0.3),
    50: _tom(180, -0.4),
    **dict.fromkeys((42, 44), _CLOSED_HAT),
    46: _Drum(low_hz=6000, noise_s=0.22, noise=0.5, pan=0.3),
    **dict.fromkeys((49, 52, 55, 57), _CRASH),
    **dict.fromkeys((51, 53, 59), _RIDE),
    **dict.fromkeys((60, 61), _BONGO),
    **dict.fromkeys((62, 63, 64, 65, 66), _CONGA),
    **dict.fromkeys((54, 69, 70, 82), _SHAKER),
    37: _Drum(1700, 1.0, 0.012, 0.6, 1500, 7000, 0.01, 0.4),
    39: _Drum(low_hz=900, high_hz=4500, noise_s=0.07, noise=0.8),
    56: _Drum(845, 1.0, 0.1, 0.5, 500, 4000, 0.02, 0.1, -0.2),
    **dict.fromkeys((75, 76, 77), _WOOD),
    **dict.fromkeys((80, 81), _Drum(4200, 1.0, 0.4, 0.3, 5000, 12_000, 0.01, 0.05, -0.2)),
}


def _drum(key: int) -> _Drum:
    return _DRUMS.get(key, _DRUMS[76])


def _drum_s(drum: _Drum) -> float:
    return 7 * max(drum.tone_s * (drum.tone > 0), drum.noise_s)


@lru_cache(maxsize=64)
def _hit(key: int, touch: int, rate_hz: int) -> Float32:
    """Return the sound of a drum, to its end; a harder touch gives brighter noise."""
    drum, hard = _drum(key), (touch + 0.5) / _TOUCHES
    n = round(_drum_s(drum) * rate_hz)
    time_s = np.arange(n) / rate_hz
    hz = np.minimum(drum.tone_hz * (1 + (drum.bend - 1) * np.exp(-time_s / 0.03)), 0.45 * rate_hz)
    sound = drum.tone * np.exp(-time_s / drum.tone_s) * np.sin(2 * np.pi * np.cumsum(hz) / rate_hz)
    sound += (
        drum.noise * np.exp(-time_s / drum.noise_s) * _noise(n, drum.low_hz, drum.high_hz * (0.4 + 0.6 * hard), rate_hz, key)
    )
    sound[-(n // 8) :] *= np.linspace(1, 0, n // 8)
    sound[: min(n, 32)] *= np.linspace(0, 1, 32)[:n]
    return sound.astype(np.float32)


def _noise(n: int, low_hz: float, high_hz: float, rate_hz: int, seed: int) -> Float64:
    """Return noise of unit power between two frequencies, with edges of an octave; the same for the same seed."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(n))
    octaves = np.log2(np.maximum(np.fft.rfftfreq(n, 1 / rate_hz), 1.0))
    low_hz = min(low_hz, rate_hz / 4)
    spectrum *= np.clip(octaves - math.log2(low_hz) + 1, 0, 1) * np.clip(math.log2(high_hz) - octaves + 1, 0, 1)
    noise = np.fft.irfft(spectrum, n)
    unit: Float64 = noise / np.sqrt(np.mean(np.square(noise)))
    return unit
