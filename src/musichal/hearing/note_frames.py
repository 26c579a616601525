"""The input of the note network: log-frequency levels at two resolutions, gathered around each pitch's partials.

A frame is centred on a multiple of the hop (75 frames a second) from the start of the stream. A long window (171 ms) resolves
pitches, a short one (43 ms) resolves when their partials begin. Each pitch sees the levels at its own harmonics and at the
sub- and inter-harmonics that distinguish it from other pitches; since the view is the same for every pitch, one network with
shared weights serves them all (Bittner et al., ICASSP 2022).

A string that is struck while it sounds need not get louder, but its phase starts anew. So a third view has what the short
window did not foresee: the distance of each bin from a steady amplitude and frequency (complex-domain novelty: Bello et al.,
IEEE Signal Processing Letters 2004). Its means over all bins and over the high ones tell how much of a stroke has no pitch.

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

from musichal.arrays import AnyArray, Complex64, Float32, Int64

LOWEST_NOTE = 21
"""MIDI number of the lowest pitch that can be heard as a note (A0)."""
N_NOTES = 80
"""Pitches from A0 to E7."""
FRAMES_PER_S = 75
AHEAD_FRAMES = 6
"""Frames that the reference level looks ahead, so that an onset is not measured against the silence before it."""

_LOWEST_BIN, _HIGHEST_BIN = 12, 132  # MIDI numbers
_LONG_PER_SEMITONE = 3
_PASS_BAND_HZ = (25.0, 11500.0)
_RANGE_BELS = 6.0
_FADE_BELS_PER_S = 0.6
_FLOOR_POWER = 3e-7  # -65 dBFS: what stands for silence in the absolute level
_TUNING_BAND_HZ = (290.0, 2600.0)  # Below, bins are too wide for cents; above, high partials of struck strings are sharp.
_TUNING_MEMORY_S = 10.0
_TUNING_PRIOR = 20.0  # What stands for A = 440 Hz, in the weight of as many frames with one loud partial each.
_TUNING_STEPS = 12  # Filters exist at each 1/12 of a semitone.
_QUIETEST_REFERENCE = 3e-5  # -45 dBFS: below it a sound is not brought up to full scale
_HARMONICS = 8
_OTHER_RATIOS: tuple[float, ...] = (1 / 6, 1 / 5, 1 / 4, 1 / 3, 2 / 5, 1 / 2, 3 / 5, 2 / 3, 3 / 4, 4 / 5, 4 / 3, 3 / 2)
_OTHER_RATIOS += (5 / 3, 5 / 2, 7 / 2, 10, 12)


def _bins(ratio: float) -> int:
    return round(12 * _LONG_PER_SEMITONE * float(np.log2(ratio)))


# Offsets from a pitch's own bin: each harmonic with its two neighbours; then other ratios and the next semitones.
HARMONIC_OFFSETS = tuple(sorted({_bins(h) + d for h in range(1, _HARMONICS + 1) for d in (-1, 0, 1)}))
OTHER_OFFSETS = (*(_bins(r) for r in _OTHER_RATIOS), -6, -3, 3, 6, 33, 39, 54, 60)
SHORT_OFFSETS = (0, 12, 19, 24, 28, 31, -1, 1, -12, -19)
FRESH_OFFSETS = (0, 12, 19, 24, 28, 31, 36)
N_LONG = len(HARMONIC_OFFSETS) + len(OTHER_OFFSETS)
N_SHORT = len(SHORT_OFFSETS)
N_FRESH = len(FRESH_OFFSETS)
_HIGH_BIN = 96 - _LOWEST_BIN  # of the short window's: above 2 kHz


class NoteFrames(NamedTuple):
    """Views of consecutive frames, n of them.

    `long` (n, N_NOTES, N_LONG) and `short` (n, N_NOTES, N_SHORT) are relative levels, `fresh` (n, N_NOTES, N_FRESH) those of
    what was not foreseen, `burst` (n, 2) its means over all bins and over the high ones, `loudness` (n,) the reference
    level, 0 at -65 dBFS and 1 at -5 dBFS; `reference_db` (n,) is the same in dBFS.
    """

    long: Float32
    short: Float32
    fresh: Float32
    burst: Float32
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
        self._before = np.zeros((2, self._short_fft // 2 + 1), dtype=np.complex64)
        self._reference = np.float32(_QUIETEST_REFERENCE)
        self._tuning = complex(_TUNING_PRIOR)

    @property
    def _sizes(self) -> tuple[tuple[int, int], ...]:
        """FFT length and filters per semitone of the long window, the short one and what that one did not foresee."""
        return (self._long_fft, _LONG_PER_SEMITONE), (self._short_fft, 1), (self._short_fft, 1)

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
        short = np.concatenate([self._before, _spectrum(windows[:, margin : margin + self._short_fft])])
        self._before = short[-2:]
        spectra = [_power(_spectrum(windows)), _power(short[2:]), _power(short[2:] - _steady(short))]
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
        long, short, fresh = (_relative(power[:count], reference) for power in self._powers)
        self._powers = tuple(power[count:] for power in self._powers)
        bels = np.log10(reference / np.float32(_FLOOR_POWER))
        loudness = np.clip(np.divide(bels, np.float32(_RANGE_BELS)), 0, 1.2)
        burst = np.stack([fresh.mean(axis=1), fresh[:, _HIGH_BIN:].mean(axis=1)], axis=1)
        return NoteFrames(*_gather(long, short, fresh), burst, loudness, np.float32(10) * np.log10(reference))

    def _references(self, count: int) -> Float32:
        peaks = self._powers[0].max(axis=1)
        peaks = np.concatenate([peaks, np.zeros(AHEAD_FRAMES, dtype=np.float32)])
        references = np.empty(count, dtype=np.float32)
        for i in range(count):
            ahead = peaks[i : i + AHEAD_FRAMES + 1].max()
            self._reference = max(self._reference * self._fade, ahead, np.float32(_QUIETEST_REFERENCE))
            references[i] = self._reference
        return references


def _spectrum(windows: Float32) -> Complex64:
    # Periodic Hann, scaled so that a sine of amplitude a peaks at a.
    spectrum: Complex64 = rfft(windows * _hann(windows.shape[1]), axis=1)
    return spectrum


def _power(spectrum: Complex64) -> Float32:
    power: Float32 = spectrum.real**2 + spectrum.imag**2
    return power


def _steady(spectra: Complex64) -> Complex64:
    """Return what each spectrum but the first two would be, had amplitudes and frequencies stayed as in the two before."""
    last, before = spectra[1:-1], spectra[:-2]
    turned = last * np.conj(before)
    steady = last * (turned / np.maximum(np.abs(turned), np.float32(1e-20)))
    return np.asarray(steady, dtype=np.complex64)


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
    turn = 2 * np.pi * semitones
    parts = (np.bincount(frame, weight * wave(turn), minlength=len(power)) for wave in (np.cos, np.sin))
    return next(parts) + 1j * next(parts)


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
_FRESH_COLUMNS = _columns(FRESH_OFFSETS, 1)


def _gather(long: Float32, short: Float32, fresh: Float32) -> tuple[Float32, Float32, Float32]:
    # One silent bin behind the last, and one before the first for its neighbour's sake.
    padded = np.pad(long, ((0, 0), (1, 2)))
    widest = np.pad(np.maximum(np.maximum(padded[:, :-3], padded[:, 2:-1]), padded[:, 1:-2]), ((0, 0), (0, 1)))
    views = np.concatenate([padded[:, 1:][:, _HARMONIC_COLUMNS], widest[:, _OTHER_COLUMNS]], axis=2)
    short, fresh = (np.pad(part, ((0, 0), (0, 1))) for part in (short, fresh))
    return views, short[:, _SHORT_COLUMNS], fresh[:, _FRESH_COLUMNS]
