"""Notes to sound with a SoundFont 2 file, in NumPy and soxr.

The synthesisers that pip can install were measured first: symusic 0.5.8 plays every velocity at one level, cuts each
note at its end, is out of tune where samples loop, and takes the process down on a damaged font; tinysoundfont has no
wheels for half of our platforms.

Each region of a note is its sample resampled to the note's pitch, through its low-pass filter, its volume envelope
(linear attack, decay and release straight in dB) and its pan. Velocity v plays at (v / 127)², the default modulator of
the SoundFont 2.04 specification.
"""

import bisect
import importlib.util
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import soxr
from scipy.signal import lfilter

from musichal.arrays import Float32, Float64
from musichal.audio.sf2 import Envelope, Region, SoundFont
from musichal.errors import InputError, MissingExtraError, install_hint

_PERCUSSION_CHANNEL = 9
_LONGEST_S = 4 * 3600.0
_ENVELOPE_DB = 100.0
"""A decay or release time is the time in which the level falls by this much."""
_SHORTEST_RELEASE_S = 0.02
"""Shorter releases click."""
_CENT_0_HZ = 8.176
_FILTER_STEP, _FILTER_CENTS = 128, 25
"""Samples and cents in which a moving cutoff is stepped."""
_ATTENUATION_SCALE = 0.4
"""Fonts are voiced by ear on hardware that plays 0.4 of the attenuation they ask for; players follow it."""


class Note(Protocol):
    """What is needed of a note to play it: see `musichal.live.events.NoteEvent`."""

    @property
    def onset_s(self) -> float: ...  # noqa: D102
    @property
    def duration_s(self) -> float: ...  # noqa: D102
    @property
    def pitch(self) -> int: ...  # noqa: D102
    @property
    def velocity(self) -> int: ...  # noqa: D102
    @property
    def channel(self) -> int: ...  # noqa: D102


@dataclass(frozen=True)
class _Voice:
    """One region of one note, in samples of the output; `choke` is how long it may sound before it is cut."""

    region: Region
    key: int
    velocity: int
    channel: int
    start: int
    length: int
    choke: int | None = None


def find_soundfont() -> Path:
    """Return the General MIDI font in the installed pretty_midi package, without importing it.

    Raises `MissingExtraError` where there is none.
    """
    try:
        spec = importlib.util.find_spec("pretty_midi")
    except ValueError:  # a module of that name without a spec
        spec = None
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        font = Path(folder) / "TimGM6mb.sf2"
        if font.is_file():
            return font
    raise MissingExtraError(
        f"there is no soundfont to play with; name one with --soundfont FILE.sf2, or {install_hint('sound')}"
    )


def render_notes(
    notes: Iterable[Note],
    font: SoundFont,
    *,
    sample_rate_hz: int = 44100,
    programs: Mapping[int, int] | None = None,
    gain: float = 0.5,
) -> Float32:
    """Play `notes` and return stereo samples (n, 2), from time 0 to the end of the last release.

    `programs` gives channels their General MIDI program (0 where none is given); channel 9 plays the drum kit of that
    number. `gain` is linear; many loud notes together can exceed 1. Raises `InputError` where the font lacks a program,
    and where the answer would last more than four hours.
    """
    programs = programs or {}
    voices = _choked([voice for note in notes for voice in _voices(note, font, programs, sample_rate_hz)])
    length = max((voice.start + _sounding_samples(voice, sample_rate_hz) for voice in voices), default=0)
    if length > _LONGEST_S * sample_rate_hz:
        raise InputError(f"an answer of {length / sample_rate_hz / 3600:.1f} hours is too long to render")
    mix = np.zeros((length, 2), np.float32)
    samples: dict[tuple[int, int], Float32] = {}
    for voice in voices:
        span = voice.region.start, voice.region.end
        if span not in samples:
            samples[span] = font.samples(*span)
        sound = _sound(voice, samples[span], sample_rate_hz)
        mix[voice.start : voice.start + len(sound)] += sound[:, None] * _sides(voice, gain)
    return mix


def _voices(note: Note, font: SoundFont, programs: Mapping[int, int], rate_hz: int) -> list[_Voice]:
    percussion = note.channel == _PERCUSSION_CHANNEL
    start = round(note.onset_s * rate_hz)
    return [
        _Voice(
            region,
            note.pitch if region.key < 0 else region.key,
            note.velocity if region.velocity < 0 else region.velocity,
            note.channel,
            start,
            max(1, round((note.onset_s + note.duration_s) * rate_hz) - start),
        )
        for region in font.regions(programs.get(note.channel, 0), percussion=percussion)
        if region.keys[0] <= note.pitch <= region.keys[1] and region.velocities[0] <= note.velocity <= region.velocities[1]
    ]


def _choked(voices: Sequence[_Voice]) -> list[_Voice]:
    """Return `voices` in order of time, those of an exclusive class cut where its next note starts (hi-hats)."""
    ordered = sorted(voices, key=lambda v: (v.start, v.channel, v.key, v.velocity, v.length, v.region.start))
    starts: dict[tuple[int, int], list[int]] = {}
    for voice in ordered:
        starts.setdefault((voice.channel, voice.region.exclusive_class), []).append(voice.start)
    result = []
    for voice in ordered:
        of_class = starts[voice.channel, voice.region.exclusive_class]
        following = bisect.bisect_right(of_class, voice.start)
        if voice.region.exclusive_class and following < len(of_class):
            result.append(replace(voice, choke=of_class[following] - voice.start))
        else:
            result.append(voice)
    return result


def _speed(voice: _Voice, rate_hz: int) -> float:
    """Return the rate at which the samples of the font are played, in Hz; within what is sensible: 12 octaves down, 5 up."""
    region = voice.region
    cents = (voice.key - region.root_key) * region.scale_cents + region.tuning_cents
    speed_hz = region.rate_hz * 2.0 ** (cents / 1200)
    return float(min(max(speed_hz, rate_hz / 4096), rate_hz * 32))


def _fallen(envelope: Envelope, key: int, time_s: Float64, released_s: float) -> tuple[Float64, Float64]:
    """Return at `time_s` how far an envelope has risen (0 to 1) and fallen since (0 upwards); the key is up at `released_s`.

    A volume is rise × 10^(−fall · 100 dB / 20), a modulation rise − fall.
    """
    held_s = np.minimum(time_s, released_s) - envelope.delay_s
    hold_s = envelope.hold_s * 2.0 ** ((60 - key) * envelope.hold_key_cents / 1200)
    decay_s = envelope.decay_s * 2.0 ** ((60 - key) * envelope.decay_key_cents / 1200)
    rise = (held_s / envelope.attack_s).clip(0, 1)
    fall = ((held_s - envelope.attack_s - hold_s) / decay_s).clip(0, envelope.fall)
    return rise, fall + (time_s - released_s).clip(0) / max(envelope.release_s, _SHORTEST_RELEASE_S)


def _level(voice: _Voice, n: int, rate_hz: int) -> Float32:
    """Return the envelope of the volume, linear, for the first `n` samples of the note."""
    time_s = np.arange(n) / rate_hz
    rise, fall = _fallen(voice.region.envelope, voice.key, time_s, voice.length / rate_hz)
    level: Float32 = (rise * (fall < 1)).astype(np.float32)
    level *= np.exp(fall.astype(np.float32) * np.float32(-_ENVELOPE_DB * math.log(10) / 20))
    if voice.choke is not None:
        level *= np.clip(1 - (time_s - voice.choke / rate_hz) / _SHORTEST_RELEASE_S, 0.0, 1.0).astype(np.float32)
    return level


def _sounding_samples(voice: _Voice, rate_hz: int) -> int:
    """Return how many samples of the output pass before the voice is silent for good."""
    region, released_s = voice.region, voice.length / rate_hz
    _, fall = _fallen(region.envelope, voice.key, np.array([released_s]), released_s)
    ends_s = [released_s + max(region.envelope.release_s, _SHORTEST_RELEASE_S) * (1 - float(fall[0]))]
    if voice.choke is not None:
        ends_s.append(voice.choke / rate_hz + _SHORTEST_RELEASE_S)
    if region.loop_mode == 0:
        ends_s.append((region.end - region.start) / _speed(voice, rate_hz))
    return max(1, math.ceil(min(ends_s) * rate_hz))


def _sound(voice: _Voice, samples: Float32, rate_hz: int) -> Float32:
    """Return the voice at full level, mono: its sample, unrolled, at its pitch, filtered, under its envelope."""
    speed_hz, n = _speed(voice, rate_hz), _sounding_samples(voice, rate_hz)
    # A few samples more than are played, so that the end is not the edge of the resampler.
    source = _unrolled(voice, samples, math.ceil(n / rate_hz * speed_hz) + 64, voice.length / rate_hz * speed_hz)
    sound = soxr.resample(source, speed_hz, rate_hz, quality="HQ")[:n]
    sound = _filtered(voice, sound, rate_hz)
    sound *= _level(voice, len(sound), rate_hz)
    return sound


def _unrolled(voice: _Voice, samples: Float32, n: int, held: float) -> Float32:
    """Return the `n` samples of the font that are passed in playing, loops written out; `held` of them with the key down."""
    region = voice.region
    loop_start, loop_end = region.loop_start - region.start, region.loop_end - region.start
    if region.loop_mode == 0 or n <= loop_end:
        return samples[:n]
    looped_to = n if region.loop_mode == 1 else min(n, math.ceil(held))
    repeats = max(0, -(-(looped_to - loop_end) // (loop_end - loop_start)))
    rest = samples[loop_end:] if region.loop_mode == 3 else samples[:0]
    return np.concatenate([samples[:loop_end], np.tile(samples[loop_start:loop_end], repeats), rest])[:n]


def _sides(voice: _Voice, gain: float) -> Float32:
    """Return the gains of left and right."""
    region = voice.region
    loudness = gain * (voice.velocity / 127) ** 2 * 10 ** (-_ATTENUATION_SCALE * region.attenuation_db / 20)
    angle = (region.pan + 1) * math.pi / 4
    return np.array([loudness * math.cos(angle), loudness * math.sin(angle)], np.float32)


def _filtered(voice: _Voice, sound: Float32, rate_hz: int) -> Float32:
    """Return `sound` through the region's resonant low-pass, whose cutoff follows its envelope in steps."""
    region = voice.region
    time_s = np.arange(0, len(sound), _FILTER_STEP) / rate_hz
    cents = np.full(len(time_s), float(region.filter_cents))
    if region.filter_swing_cents:
        rise, fall = _fallen(region.filter_envelope, voice.key, time_s, voice.length / rate_hz)
        cents += region.filter_swing_cents * (rise - fall).clip(0)
    # Above this the filter is out of the way: the specification's highest cutoff, or what the rate can carry.
    highest = min(13500.0, 1200 * math.log2(0.45 * rate_hz / _CENT_0_HZ))
    cents = np.minimum(np.round(cents / _FILTER_CENTS) * _FILTER_CENTS, highest)
    if cents.min() >= highest:
        return sound
    starts = np.flatnonzero(np.diff(cents, prepend=-1)) * _FILTER_STEP
    state = np.zeros(2)
    parts = []
    for start, end in itertools.pairwise([*starts.tolist(), len(sound)]):
        b, a = _low_pass(float(cents[start // _FILTER_STEP]), region.filter_q_db, rate_hz)
        part, state = lfilter(b, a, sound[start:end], zi=state)
        parts.append(part)
    return np.concatenate(parts).astype(np.float32)


@lru_cache(maxsize=1024)
def _low_pass(cents: float, q_db: float, rate_hz: int) -> tuple[Float64, Float64]:
    """Return numerator and denominator of a resonant low-pass of two poles, by the bilinear transform."""
    # A resonance of 0 dB is the flat (Butterworth) filter, 3.01 dB down at the cutoff.
    q = 10 ** ((q_db - 3.01) / 20)
    omega = 2 * math.pi * _CENT_0_HZ * 2.0 ** (cents / 1200) / rate_hz
    alpha, cosine = math.sin(omega) / (2 * q), math.cos(omega)
    b = np.array([(1 - cosine) / 2, 1 - cosine, (1 - cosine) / 2]) / (1 + alpha)
    return b, np.array([1 + alpha, -2 * cosine, 1 - alpha]) / (1 + alpha)
