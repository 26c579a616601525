"""The input of the note network: log-frequency levels at two resolutions, gathered around each pitch's partials.

A frame is centred on a multiple of the hop (75 frames a second) from the start of the stream. A long window (171 ms) resolves
pitches, a short one (43 ms) resolves when their partials begin. Each pitch sees the levels at its own harmonics and at the
sub- and inter-harmonics that distinguish it from other pitches; since the view is the same for every pitch, one network with
shared weights serves them all (Bittner et al., ICASSP 2022).

The bins follow the tuning: the circular mean of the spectral peaks' distances from equal temperament, weighted by amplitude,
with a memory of 10 s (a causal form of Dressler & Streich, ISMIR 2007). Levels are relative to the loudest partial of the last
seconds (it fades by 6 dB a second and looks `AHEAD_FRAMES` ahead): 0 at -60 dB, 1 at the reference.
"""

from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.fft import rfft
from scipy.sparse import csr_matrix

from musichal.arrays import AnyArray, Float32, Int64

LOWEST_NOTE = 28
"""MIDI number of the lowest pitch that can be heard as a note (E1)."""
N_NOTES = 73
"""Pitches from E1 to E7."""
FRAMES_PER_S = 75
AHEAD_FRAMES = 6
"""Frames that the reference level looks ahead, so that an onset is not measured against the silence before it."""

_LOWEST_BIN, _HIGHEST_BIN = 12, 132  # MIDI numbers
_LONG_PER_SEMITONE = 3
_PASS_BAND_HZ = (30.0, 11500.0)
_RANGE_BELS = 6.0
_FADE_BELS_PER_S = 0.6
_FLOOR_POWER = 3e-7  # -65 dBFS: what stands for silence in the absolute level
_TUNING_BAND_HZ = (290.0, 2600.0)  # Below, bins are too wide for cents; above, high partials of struck strings are sharp.
_TUNING_MEMORY_S = 10.0
_TUNING_PRIOR = 20.0  # What stands for A = 440 Hz, in the weight of as many frames with one loud partial each.
_TUNING_STEPS = 12  # Filters exist at each 1/12 of a semitone.
_QUIETEST_REFERENCE = 3e-5  # -45 dBFS: below it a sound is not brought up to full scale
_HARMONICS = 8
_OTHER_RATIOS = (1 / 6, 1 / 5, 1 / 4, 1 / 3, 2 / 5, 1 / 2, 3 / 5, 2 / 3, 3 / 4, 4 / 5, 4 / 3, 3 / 2, 5 / 3, 5 / 2, 7 / 2)


def _bins(ratio: float) -> int:
    return round(12 * _LONG_PER_SEMITONE * float(np.log2(ratio)))


# Offsets from a pitch's own bin: each harmonic with its two neighbours; then other ratios and the next semitones.
HARMONIC_OFFSETS = tuple(sorted({_bins(h) + d for h in range(1, _HARMONICS + 1) for d in (-1, 0, 1)}))
OTHER_OFFSETS = (*(_bins(r) for r in _OTHER_RATIOS), -6, -3, 3, 6, 33, 39, 54, 60)
SHORT_OFFSETS = (0, 12, 19, 24, 28, 31, -1, 1, -12, -19)
N_LONG = len(HARMONIC_OFFSETS) + len(OTHER_OFFSETS)
N_SHORT = len(SHORT_OFFSETS)


class NoteFrames(NamedTuple):
    """Views of consecutive frames, n of them.

    `long` (n, N_NOTES, N_LONG) and `short` (n, N_NOTES, N_SHORT) are relative levels, `loudness` (n,) the reference level,
    0 at -65 dBFS and 1 at -5 dBFS; `reference_db` (n,) is the same in dBFS.
    """

    long: Float32
    short: Float32
    loudness: Float32
    reference_db: Float32


@lru_cache(maxsize=8)
def _hann(n: int) -> Float32:
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)
    return (window * (2 / window.sum())).astype(np.float32)


@lru_cache(maxsize=128)
def _bank(sample_rate_hz: int, n_fft: int, per_semitone: int, tuning_step: int) -> csr_matrix:
    """Return triangular filters on power, (bins, n_fft // 2 + 1), evenly spaced in pitch and at least a main lobe wide."""
    pitches = _LOWEST_BIN + np.arange((_HIGHEST_BIN - _LOWEST_BIN) * per_semitone + 1) / per_semitone
    centres_hz = 440.0 * 2.0 ** ((pitches - 69 + tuning_step / _TUNING_STEPS) / 12)
    centres = centres_hz * n_fft / sample_rate_hz
    half_widths = np.maximum(centres * (2.0 ** (1 / (12 * per_semitone)) - 1), 1.5)
    distance = np.abs(np.arange(n_fft // 2 + 1) - centres[:, None]) / half_widths[:, None]
    # 1.5 bins is the noise bandwidth of a Hann window: a partial of amplitude a has the power a² at any frequency.
    filters = np.maximum(0.0, 1.0 - distance) / 1.5
    filters[(centres_hz < _PASS_BAND_HZ[0]) | (centres_hz > min(_PASS_BAND_HZ[1], 0.48 * sample_rate_hz))] = 0.0
    return csr_matrix(filters.astype(np.float32))


class NoteFrontEnd:
    """Streams samples into `NoteFrames`; frame k is centred on sample k·hop."""

    def __init__(self, sample_rate_hz: int) -> None:
        self._rate = sample_rate_hz
        self.hop_samples = round(sample_rate_hz / FRAMES_PER_S)
        self._long_fft, self._short_fft = (2 * round(half * sample_rate_hz / 24000) for half in (2048, 512))
        self._half = self._long_fft // 2
        self._fade = np.float32(10 ** (-_FADE_BELS_PER_S / FRAMES_PER_S))
        # Silence before the stream; the buffer starts half a window before the next frame's centre.
        self._samples: Float32 = np.zeros(self._half, dtype=np.float32)
        # All filters are made now (0.1 s, once in a process), so that no segment has to wait for them.
        for step in range(-_TUNING_STEPS // 2, _TUNING_STEPS // 2 + 1):
            banks = [_bank(sample_rate_hz, n, per, step) for n, per in self._sizes]
        self._powers = tuple(np.zeros((0, bank.shape[0]), dtype=np.float32) for bank in banks)
        self._reference = np.float32(_QUIETEST_REFERENCE)
        self._tuning = complex(_TUNING_PRIOR)

    @property
    def _sizes(self) -> tuple[tuple[int, int], ...]:
        """FFT length and filters per semitone, of the long and the short window."""
        return (self._long_fft, _LONG_PER_SEMITONE), (self._short_fft, 1)

    def push(self, samples: Float32) -> NoteFrames:
        """Take the next samples, shape (n,), and return the frames whose future is known far enough."""
        self._analyse(samples)
        return self._release(max(0, self._powers[0].shape[0] - AHEAD_FRAMES))

    def flush(self) -> NoteFrames:
        """End the stream, with silence behind it, and return the rest of its frames."""
        self._analyse(np.zeros(self._half, dtype=np.float32))
        return self._release(self._powers[0].shape[0])

    def _analyse(self, samples: Float32) -> None:
        self._samples = np.concatenate([self._samples, samples])
        whole = (len(self._samples) - 2 * self._half) // self.hop_samples + 1
        if whole <= 0:
            return
        windows = sliding_window_view(self._samples, 2 * self._half)[:: self.hop_samples][:whole]
        margin = (self._long_fft - self._short_fft) // 2
        spectra = [_power(windows), _power(windows[:, margin : margin + self._short_fft])]
        steps = self._tuning_steps(spectra[0])
        self._powers = tuple(
            np.concatenate([known, self._filtered(power, steps, per_semitone)])
            for known, power, (_, per_semitone) in zip(self._powers, spectra, self._sizes, strict=True)
        )
        self._samples = self._samples[whole * self.hop_samples :].copy()

    def _filtered(self, power: Float32, steps: Int64, per_semitone: int) -> Float32:
        """Return the log-frequency powers of frames, each by the filters of its tuning."""
        n_fft = 2 * (power.shape[1] - 1)
        runs = np.flatnonzero(np.diff(steps, prepend=steps[0] + 1, append=steps[-1] + 1))
        parts = []
        for start, end in pairwise(runs.tolist()):
            filters = _bank(self._rate, n_fft, per_semitone, int(steps[start]))
            parts.append((filters @ power[start:end].T).T)
        return np.concatenate(parts).astype(np.float32)

    def _tuning_steps(self, power: Float32) -> Int64:
        """Follow the tuning through frames of power spectra; return it, in filter steps, for each of them."""
        low, high = (int(f * self._long_fft / self._rate) for f in _TUNING_BAND_HZ)
        directions = _peak_directions(
            power[:, low - 1 : min(high, power.shape[1]) + 1],
            power.max(axis=1, keepdims=True),
            low,
            self._rate / self._long_fft,
        )
        keep = 1 - 1 / (_TUNING_MEMORY_S * FRAMES_PER_S)
        steps = np.empty(len(directions), dtype=np.int64)
        for i, direction in enumerate(directions.tolist()):
            self._tuning = (self._tuning - _TUNING_PRIOR) * keep + direction + _TUNING_PRIOR
            steps[i] = round(float(np.angle(self._tuning)) / (2 * np.pi) * _TUNING_STEPS)
        return steps

    def _release(self, count: int) -> NoteFrames:
        reference = self._references(count)
        long, short = (_relative(power[:count], reference) for power in self._powers)
        self._powers = (self._powers[0][count:], self._powers[1][count:])
        bels = np.log10(reference / np.float32(_FLOOR_POWER))
        loudness = np.clip(np.divide(bels, np.float32(_RANGE_BELS)), 0, 1.2)
        return NoteFrames(*_gather(long, short), loudness, np.float32(10) * np.log10(reference))

    def _references(self, count: int) -> Float32:
        peaks = self._powers[0].max(axis=1)
        peaks = np.concatenate([peaks, np.zeros(AHEAD_FRAMES, dtype=np.float32)])
        references = np.empty(count, dtype=np.float32)
        for i in range(count):
            ahead = peaks[i : i + AHEAD_FRAMES + 1].max()
            self._reference = max(self._reference * self._fade, ahead, np.float32(_QUIETEST_REFERENCE))
            references[i] = self._reference
        return references


def _power(windows: Float32) -> Float32:
    n = windows.shape[1]
    # Periodic Hann, scaled so that a sine of amplitude a peaks at a².
    spectrum = rfft(windows * _hann(n), axis=1)
    power: Float32 = spectrum.real**2 + spectrum.imag**2
    return power


def _peak_directions(power: Float32, loudest: Float32, first_bin: int, bin_hz: float) -> AnyArray:
    """Return, per frame, the sum of unit vectors of its peaks' tuning, each weighted by its amplitude relative to `loudest`.

    `power` starts one bin below `first_bin`. Frames softer than -60 dBFS have no say.
    """
    here = power[:, 1:-1]
    peak = (here > power[:, :-2]) & (here >= power[:, 2:]) & (here > 1e-3 * loudest) & (loudest > 1e-6)
    frame, column = np.nonzero(peak)
    before, top, after = (np.log(power[frame, column + i] + 1e-20) for i in range(3))
    place = column + first_bin + 0.5 * (before - after) / (before - 2 * top + after)
    semitones = 12 * np.log2(place * bin_hz / 440.0)
    weight = np.sqrt(here[frame, column] / loudest[frame, 0])
    out = np.zeros(len(power), dtype=np.complex128)
    np.add.at(out, frame, weight * np.exp(2j * np.pi * semitones))
    return out


def _relative(power: Float32, reference: Float32) -> Float32:
    bels = np.log10(np.maximum(power, np.float32(1e-12)) / reference[:, None])
    return np.clip(1 + bels / np.float32(_RANGE_BELS), 0, np.float32(1.2))


def _columns(offsets: tuple[int, ...], per_semitone: int) -> Int64:
    """Return the bins (N_NOTES, len(offsets)) around each pitch, with those that do not exist led to a silent one."""
    pitches = np.arange(LOWEST_NOTE, LOWEST_NOTE + N_NOTES)
    columns = (pitches[:, None] - _LOWEST_BIN) * per_semitone + np.array(offsets)
    silent = (_HIGHEST_BIN - _LOWEST_BIN) * per_semitone + 1
    return np.where((columns < 0) | (columns > silent), silent, columns)


_HARMONIC_COLUMNS = _columns(HARMONIC_OFFSETS, _LONG_PER_SEMITONE)
_OTHER_COLUMNS = _columns(OTHER_OFFSETS, _LONG_PER_SEMITONE)
_SHORT_COLUMNS = _columns(SHORT_OFFSETS, 1)


def _gather(long: Float32, short: Float32) -> tuple[Float32, Float32]:
    # One silent bin behind the last, and one before the first for its neighbour's sake.
    padded = np.pad(long, ((0, 0), (1, 2)))
    widest = np.pad(np.maximum(np.maximum(padded[:, :-3], padded[:, 2:-1]), padded[:, 1:-2]), ((0, 0), (0, 1)))
    views = np.concatenate([padded[:, 1:][:, _HARMONIC_COLUMNS], widest[:, _OTHER_COLUMNS]], axis=2)
    return views, np.pad(short, ((0, 0), (0, 1)))[:, _SHORT_COLUMNS]
