"""Plays notes from a SoundFont 2 file, in numpy: what is asked for is what sounds, at its pitch.

Why our own: symusic 0.5.8's synthesiser, the only pip-installable one on all platforms, plays the looped samples of small
General MIDI fonts up to two semitones out of tune (it loops on whole output samples), which makes it useless as truth and
unpleasant as sound.

Covered of the SoundFont 2.04 specification: presets, instruments and their zones with key and velocity ranges, global
zones, sample offsets and loops, root key and tuning, volume envelope, attenuation, pan, initial low-pass cut-off, and the
default velocity-to-attenuation curve. Left out: modulation envelope, LFOs, effects, custom modulators, exclusive classes.
"""

import itertools
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np
import scipy.signal
import soxr

from musichal.arrays import Float32, Float64, Int16
from musichal.errors import InputError

DRUM_BANK = 128

# Generators of the specification, section 8.1.2, by number.
_START, _END, _LOOP_START, _LOOP_END, _START_COARSE, _END_COARSE = 0, 1, 2, 3, 4, 12
_FILTER_CUTOFF, _PAN, _DELAY, _ATTACK, _HOLD, _DECAY, _SUSTAIN, _RELEASE = 8, 17, 33, 34, 35, 36, 37, 38
_INSTRUMENT, _KEY_RANGE, _VELOCITY_RANGE, _LOOP_START_COARSE, _ATTENUATION = 41, 43, 44, 45, 48
_LOOP_END_COARSE, _COARSE_TUNE, _FINE_TUNE, _SAMPLE, _LOOP_MODE, _SCALE_TUNING, _ROOT_KEY = 50, 51, 52, 53, 54, 56, 58
_DEFAULTS = {
    **{_FILTER_CUTOFF: 13500, _SCALE_TUNING: 100, _ROOT_KEY: -1},
    **{_DELAY: -12000, _ATTACK: -12000, _HOLD: -12000, _DECAY: -12000, _RELEASE: -12000},
}
_SILENT_DB = 100.0
"""Attenuation at which a decay or a release ends, and the range over which their times are meant."""


@dataclass(frozen=True)
class PlayedNote:
    """A note for the synthesiser; `bank` is `DRUM_BANK` for drums, whose `program` is the kit."""

    onset_s: float
    duration_s: float
    pitch: int
    velocity: int
    program: int = 0
    bank: int = 0


@dataclass(frozen=True)
class _Sample:
    start: int
    end: int
    loop_start: int
    loop_end: int
    rate_hz: int
    root_key: int
    correction_cents: int


Generators = dict[int, int]


@dataclass(frozen=True)
class _Zone:
    keys: tuple[int, int]
    velocities: tuple[int, int]
    generators: Generators

    def holds(self, pitch: int, velocity: int) -> bool:
        return self.keys[0] <= pitch <= self.keys[1] and self.velocities[0] <= velocity <= self.velocities[1]


class SoundFont:
    """A SoundFont 2 file in memory. Rendering is a pure function of the notes."""

    def __init__(
        self,
        pcm: Int16,
        samples: tuple[_Sample, ...],
        instruments: tuple[tuple[_Zone, ...], ...],
        presets: dict[tuple[int, int], tuple[_Zone, ...]],
    ) -> None:
        self._pcm, self._samples, self._instruments, self._presets = pcm, samples, instruments, presets

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read a font; raises `InputError` where it is missing, damaged or not a SoundFont 2 file."""
        try:
            return cls._parse(path.read_bytes())
        except OSError as error:
            raise InputError(f"soundfont {path} cannot be read: {error.strerror}") from error
        except (struct.error, IndexError, KeyError, ValueError) as error:
            raise InputError(f"soundfont {path} is damaged or not a SoundFont 2 file") from error

    @classmethod
    def _parse(cls, data: bytes) -> Self:
        if data[:4] != b"RIFF" or data[8:12] != b"sfbk":
            raise ValueError("no sfbk header")
        chunks: dict[bytes, bytes] = {}
        for name, body in _riff_chunks(data[12:]):
            if name == b"LIST":
                chunks.update(_riff_chunks(body[4:]))
        pcm = np.frombuffer(chunks[b"smpl"], "<i2").astype(np.int16, copy=False)
        samples = []
        for _, start, end, loop_start, loop_end, rate, key, correction, _, _ in struct.iter_unpack(
            "<20sIIIIIBbHH", chunks[b"shdr"]
        ):
            samples.append(_Sample(start, min(end, len(pcm)), loop_start, loop_end, rate, key, correction))
        headers = list(struct.iter_unpack("<20sH", chunks[b"inst"]))
        bounds = [int(header[1]) for header in headers]
        instruments = _zones(bounds, chunks[b"ibag"], chunks[b"igen"], last=_SAMPLE)
        preset_headers = list(struct.iter_unpack("<20sHHHIII", chunks[b"phdr"]))
        zones = _zones([int(h[3]) for h in preset_headers], chunks[b"pbag"], chunks[b"pgen"], last=_INSTRUMENT)
        presets = {(int(h[2]), int(h[1])): z for h, z in zip(preset_headers[:-1], zones, strict=True)}
        if not presets:
            raise ValueError("no presets")
        return cls(pcm, tuple(samples), instruments, presets)

    def render(self, notes: Iterable[PlayedNote], *, sample_rate_hz: int) -> Float32:
        """Return the notes as stereo, (2, n), up to the end of the last release; no level is changed afterwards.

        A program that the font lacks is played by program 0 of its bank.
        """
        voices: list[tuple[int, Float64, tuple[float, float]]] = []
        for note in notes:
            for generators in self._generators(note):
                voices.append(self._voice(note, generators, sample_rate_hz))
        n = max((first + len(voice) for first, voice, _ in voices), default=0)
        mix = np.zeros((2, n), np.float64)
        for first, voice, gains in voices:
            for channel, gain in enumerate(gains):
                mix[channel, first : first + len(voice)] += gain * voice
        return mix.astype(np.float32)

    def _generators(self, note: PlayedNote) -> Iterator[Generators]:
        """Yield the generators of each sample that sounds: instrument values, to which the preset's are added."""
        preset = self._presets.get((note.bank, note.program)) or self._presets.get((note.bank, 0), ())
        for outer in preset:
            if not outer.holds(note.pitch, note.velocity):
                continue
            for inner in self._instruments[outer.generators[_INSTRUMENT]]:
                if inner.holds(note.pitch, note.velocity):
                    total = {**_DEFAULTS, **inner.generators}
                    for generator, value in outer.generators.items():
                        if generator != _INSTRUMENT:
                            total[generator] = total.get(generator, 0) + value
                    yield total

    def _voice(self, note: PlayedNote, generators: Generators, sample_rate_hz: int) -> tuple[int, Float64, tuple[float, float]]:
        def value(generator: int) -> int:
            return generators.get(generator, 0)

        sample = self._samples[value(_SAMPLE)]
        root = value(_ROOT_KEY) if value(_ROOT_KEY) >= 0 else sample.root_key
        cents = (note.pitch - root) * value(_SCALE_TUNING) + 100 * value(_COARSE_TUNE) + value(_FINE_TUNE)
        rate_hz = sample.rate_hz * 2.0 ** ((cents + sample.correction_cents) / 1200)
        first = round(note.onset_s * sample_rate_hz)
        level = _envelope(generators, note.duration_s, sample_rate_hz)
        start = sample.start + value(_START) + 32768 * value(_START_COARSE)
        end = sample.end + value(_END) + 32768 * value(_END_COARSE)
        loop = (
            sample.loop_start + value(_LOOP_START) + 32768 * value(_LOOP_START_COARSE) - start,
            sample.loop_end + value(_LOOP_END) + 32768 * value(_LOOP_END_COARSE) - start,
        )
        needed = int(np.ceil(len(level) * rate_hz / sample_rate_hz)) + 8
        pcm = self._pcm[start:end]
        if value(_LOOP_MODE) in (1, 3) and 0 <= loop[0] < loop[1] <= len(pcm):
            pcm = _looped(pcm, loop, needed)
        wave = soxr.resample(pcm[:needed].astype(np.float32) / 32768, rate_hz, sample_rate_hz, quality="HQ")
        n = min(len(level), len(wave))
        gain_db = 40 * np.log10(max(note.velocity, 1) / 127) - 0.04 * value(_ATTENUATION)
        voice = wave[:n].astype(np.float64) * level[:n] * 10 ** (gain_db / 20)
        cutoff_hz = 8.176 * 2.0 ** (value(_FILTER_CUTOFF) / 1200)
        if cutoff_hz < min(0.45 * sample_rate_hz, 18000):
            voice = scipy.signal.sosfilt(_low_pass(round(cutoff_hz), sample_rate_hz), voice)
        angle = (min(max(value(_PAN), -500), 500) / 1000 + 0.5) * np.pi / 2
        return first, voice, (float(np.cos(angle)), float(np.sin(angle)))


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        if at + 8 + size > len(data):
            raise ValueError("truncated chunk")
        yield name, data[at + 8 : at + 8 + size]
        at += 8 + size + (size & 1)


def _zones(bounds: list[int], bags: bytes, generators: bytes, *, last: int) -> tuple[tuple[_Zone, ...], ...]:
    """Return the zones of each item; a first zone without the generator `last` is global and lends its values."""
    starts = [int(bag[0]) for bag in struct.iter_unpack("<HH", bags)]
    values = [(int(g[0]), int(g[1])) for g in struct.iter_unpack("<HH", generators)]
    out = []
    for begin, end in itertools.pairwise(bounds):
        zones: list[_Zone] = []
        shared: Generators = {}
        for bag in range(begin, end):
            own = dict(values[starts[bag] : starts[bag + 1]])
            if last not in own:
                shared = own if bag == begin else shared
                continue
            both = {**shared, **own}
            keys, velocities = both.pop(_KEY_RANGE, 0x7F00), both.pop(_VELOCITY_RANGE, 0x7F00)
            signed = {k: v - 65536 if v >= 32768 and k not in (_SAMPLE, _INSTRUMENT) else v for k, v in both.items()}
            zones.append(_Zone((keys & 255, keys >> 8), (velocities & 255, velocities >> 8), signed))
        out.append(tuple(zones))
    return tuple(out)


def _looped(pcm: Int16, loop: tuple[int, int], needed: int) -> Int16:
    if needed <= loop[1]:
        return pcm
    cycle = pcm[loop[0] : loop[1]]
    repeats = -(-(needed - loop[1]) // len(cycle))
    return np.concatenate([pcm[: loop[1]], np.tile(cycle, repeats)])


def _envelope(generators: Generators, duration_s: float, sample_rate_hz: int) -> Float64:
    """Return the volume envelope: attack linear in amplitude, decay and release linear in decibels."""
    delay, attack, hold, decay, release = (2.0 ** (generators[g] / 1200) for g in (_DELAY, _ATTACK, _HOLD, _DECAY, _RELEASE))
    sustain_db = min(max(generators.get(_SUSTAIN, 0), 0) / 10, _SILENT_DB)
    held = round(duration_s * sample_rate_hz)
    time_s = np.arange(held + 1) / sample_rate_hz
    rise = np.clip((time_s - delay) / attack, 0, 1)
    fall_db = np.clip((time_s - delay - attack - hold) / decay * _SILENT_DB, 0, sustain_db)
    level = rise * 10 ** (-fall_db / 20)
    # A release never shorter than 5 ms: a cut would click.
    released_s = np.arange(1, round(max(release, 0.005) * sample_rate_hz)) / sample_rate_hz
    tail = level[-1] * 10 ** (-released_s / max(release, 0.005) * _SILENT_DB / 20)
    return np.concatenate([level[:-1], tail])


@lru_cache(maxsize=256)
def _low_pass(cutoff_hz: int, sample_rate_hz: int) -> Float64:
    sos: Float64 = scipy.signal.butter(2, cutoff_hz, fs=sample_rate_hz, output="sos")
    return sos
