"""What the note tracker looks at: log-frequency levels at two resolutions, gathered around each pitch's partials.

A frame is centred on a multiple of the hop (75 frames a second) from the start of the stream. A long window (171 ms) tells
pitches apart, a short one (43 ms) tells when their partials begin. Each pitch sees the levels at its own harmonics and at the
sub- and inter-harmonics that would betray another pitch as the true one; since the view is the same for every pitch, one
small network serves them all (weights shared along log-frequency, as in Bittner et al., ICASSP 2022).

Levels are relative to the loudest partial of the last seconds (it fades by 6 dB a second and looks `AHEAD_FRAMES` ahead):
0 at -60 dB, 1 at the reference.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.fft import rfft
from scipy.sparse import csr_matrix

from musichal.arrays import Float32, Int64

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
_QUIETEST_REFERENCE = 3e-5  # -45 dBFS: below it a sound is not brought up to full scale
_HARMONICS = 8
_OTHER_RATIOS = (1 / 4, 1 / 3, 1 / 2, 2 / 3, 3 / 4, 4 / 3, 3 / 2, 5 / 2, 7 / 2)


def _bins(ratio: float) -> int:
    return round(12 * _LONG_PER_SEMITONE * float(np.log2(ratio)))


# Offsets from a pitch's own bin: each harmonic with its two neighbours; then other ratios and the next semitones.
HARMONIC_OFFSETS = tuple(sorted({_bins(h) + d for h in range(1, _HARMONICS + 1) for d in (-1, 0, 1)}))
OTHER_OFFSETS = (*(_bins(r) for r in _OTHER_RATIOS), -6, -3, 3, 6, 33, 39, 54, 60)
SHORT_OFFSETS = (0, 12, 19, 24, 28, 31, -1, 1)
N_LONG = len(HARMONIC_OFFSETS) + len(OTHER_OFFSETS)
N_SHORT = len(SHORT_OFFSETS)


@dataclass(frozen=True)
class NoteFrames:
    """Views of consecutive frames, n of them.

    `long` (n, N_NOTES, N_LONG) and `short` (n, N_NOTES, N_SHORT) are relative levels, `loudness` (n,) the reference level,
    0 at -65 dBFS and 1 at -5 dBFS; `reference_db` (n,) is the same in dBFS.
    """

    long: Float32
    short: Float32
    loudness: Float32
    reference_db: Float32


@dataclass(frozen=True)
class _Bank:
    window: Float32
    filters: csr_matrix


@lru_cache(maxsize=8)
def _bank(sample_rate_hz: int, n_fft: int, per_semitone: int) -> _Bank:
    """Return a Hann window and triangular filters on power, evenly spaced in pitch and at least a main lobe wide."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    pitches = _LOWEST_BIN + np.arange((_HIGHEST_BIN - _LOWEST_BIN) * per_semitone + 1) / per_semitone
    centres_hz = 440.0 * 2.0 ** ((pitches - 69) / 12)
    centres = centres_hz * n_fft / sample_rate_hz
    half_widths = np.maximum(centres * (2.0 ** (1 / (12 * per_semitone)) - 1), 1.5)
    distance = np.abs(np.arange(n_fft // 2 + 1) - centres[:, None]) / half_widths[:, None]
    # 1.5 bins is the noise bandwidth of a Hann window: a partial of amplitude a has the power a² at any frequency.
    filters = np.maximum(0.0, 1.0 - distance) / 1.5
    filters[(centres_hz < _PASS_BAND_HZ[0]) | (centres_hz > min(_PASS_BAND_HZ[1], 0.48 * sample_rate_hz))] = 0.0
    scaled = (window * (2 / window.sum())).astype(np.float32)
    return _Bank(scaled, csr_matrix(filters.astype(np.float32)))


class NoteFrontEnd:
    """Streams samples into `NoteFrames`; frame k is centred on sample k·hop.

    Parameters
    ----------
    sample_rate_hz : int
    """

    def __init__(self, sample_rate_hz: int) -> None:
        self.hop_samples = round(sample_rate_hz / FRAMES_PER_S)
        long_fft, short_fft = (2 * round(half * sample_rate_hz / 24000) for half in (2048, 512))
        self._long = _bank(sample_rate_hz, long_fft, _LONG_PER_SEMITONE)
        self._short = _bank(sample_rate_hz, short_fft, 1)
        self._half = long_fft // 2
        self._fade = np.float32(10 ** (-_FADE_BELS_PER_S / FRAMES_PER_S))
        # Silence before the stream; the buffer starts half a window before the next frame's centre.
        self._samples: Float32 = np.zeros(self._half, dtype=np.float32)
        self._powers: tuple[Float32, Float32] = (self._empty(self._long), self._empty(self._short))
        self._reference = np.float32(_QUIETEST_REFERENCE)

    @staticmethod
    def _empty(bank: _Bank) -> Float32:
        return np.zeros((0, bank.filters.shape[0]), dtype=np.float32)

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
        margin = self._half - len(self._short.window) // 2
        narrow = windows[:, margin : margin + len(self._short.window)]
        added = [self._power(windows, self._long), self._power(narrow, self._short)]
        self._powers = (np.concatenate([self._powers[0], added[0]]), np.concatenate([self._powers[1], added[1]]))
        self._samples = self._samples[whole * self.hop_samples :].copy()

    @staticmethod
    def _power(windows: Float32, bank: _Bank) -> Float32:
        spectrum = rfft(windows * bank.window, axis=1)
        power = spectrum.real**2 + spectrum.imag**2
        return np.ascontiguousarray((bank.filters @ power.T).T, dtype=np.float32)

    def _release(self, count: int) -> NoteFrames:
        reference = self._references(count)
        long, short = (_relative(power[:count], reference) for power in self._powers)
        self._powers = (self._powers[0][count:], self._powers[1][count:])
        loudness = np.clip(np.log10(reference / np.float32(_FLOOR_POWER)) / np.float32(_RANGE_BELS), 0, 1.2)
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


def _relative(power: Float32, reference: Float32) -> Float32:
    bels = np.log10(np.maximum(power, np.float32(1e-12)) / reference[:, None])
    return np.clip(1 + bels / np.float32(_RANGE_BELS), 0, np.float32(1.2))


@lru_cache(maxsize=1)
def _columns() -> tuple[Int64, Int64, Int64, int, int]:
    """Return the gathered columns of (harmonics, others, short) and the zeros to put below and above the bins."""
    pitches = np.arange(LOWEST_NOTE, LOWEST_NOTE + N_NOTES)
    long_bin, short_bin = (pitches - _LOWEST_BIN) * _LONG_PER_SEMITONE, pitches - _LOWEST_BIN
    below = max(0, -min(OTHER_OFFSETS) - int(long_bin[0]))
    top = int(long_bin[-1]) + max(*HARMONIC_OFFSETS, *OTHER_OFFSETS)
    above = max(0, top - (_HIGHEST_BIN - _LOWEST_BIN) * _LONG_PER_SEMITONE)
    harmonics, others = (long_bin[:, None] + np.array(offsets) + below for offsets in (HARMONIC_OFFSETS, OTHER_OFFSETS))
    return harmonics, others, short_bin[:, None] + np.array(SHORT_OFFSETS), below, above


def _gather(long: Float32, short: Float32) -> tuple[Float32, Float32]:
    harmonics, others, short_columns, below, above = _columns()
    padded = np.pad(long, ((0, 0), (below + 1, above + 1)))
    widest = np.maximum(np.maximum(padded[:, :-2], padded[:, 2:]), padded[:, 1:-1])
    views = np.concatenate([padded[:, 1:-1][:, harmonics], widest[:, others]], axis=2)
    # Partials above the bins are silent.
    beyond = max(0, int(short_columns.max()) + 1 - short.shape[1])
    return views, np.pad(short, ((0, 0), (0, beyond)))[:, short_columns]
