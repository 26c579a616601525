"""Causal onset detection: SuperFlux, frame by frame (Böck & Widmer, DAFx 2013).

The spectral flux of a logarithmically filtered and compressed spectrogram is taken against the maximum of neighbouring bands a
few frames before, so that vibrato is no attack. A frame is an onset if its flux is the largest of the recent frames, exceeds
the running mean by a threshold, and the last onset is far enough behind. No later frame is needed: an onset is known within
one hop of the moment when the analysis window contains enough of it.

A tongued note begins without flux: the level falls and comes back over 0.1 s. So a quick return from a dip is an onset, too.
A dip is deep against the loudest frame since the last onset, less what a note that dies away loses meanwhile.
"""

import math
from collections import deque
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.fft import rfft
from scipy.ndimage import maximum_filter1d
from scipy.sparse import csr_array

from musichal.arrays import Float32
from musichal.errors import InputError
from musichal.hearing.percepts import Onset
from musichal.spec import OnsetSpec

_SILENT_DB, _QUIETEST_DB = -120.0, -60.0


@dataclass(frozen=True)
class OnsetBlock:
    """The onsets that a block of sound decided, and up to where in the stream onsets are known."""

    onsets: tuple[Onset, ...]
    decided_until: int


class OnsetDetector:
    """Finds onsets in a mono stream at the spec's rate; the result does not depend on how the stream is cut."""

    def __init__(self, spec: OnsetSpec, *, sample_rate_hz: int) -> None:
        self._spec = spec
        self._bands = log_filterbank(spec, sample_rate_hz=sample_rate_hz)
        window = np.hanning(spec.n_fft + 1)[:-1]
        # A full-scale sine has a magnitude of 1.
        self._window = (window / (window.sum() / 2)).astype(np.float32)
        self._average_frames = max(1, round(spec.average_s * sample_rate_hz / spec.hop_samples))
        self._max_frames = max(1, round(spec.max_s * sample_rate_hz / spec.hop_samples))
        self._min_ioi_samples = round(spec.min_ioi_s * sample_rate_hz)
        self._buffer: Float32 = np.zeros(spec.n_fft - spec.hop_samples, dtype=np.float32)
        self._frame = 0
        self._previous: Float32 = np.zeros((spec.lag_frames, self._bands.shape[0]), dtype=np.float32)
        self._dip_ioi_samples = round(spec.dip_ioi_s * sample_rate_hz)
        self._return_frames = max(1, round(spec.dip_return_s * sample_rate_hz / spec.hop_samples))
        self._fade_db = spec.dip_fade_db_per_s * spec.hop_samples / sample_rate_hz
        # The level to fall from, then the level at the dip's bottom (none: infinite) and its frame.
        self._crest_db, self._bottom_db, self._bottom_frame = _SILENT_DB, math.inf, 0
        self._flux: deque[float] = deque([0.0] * self._average_frames, maxlen=self._average_frames)
        self._last_onset = -self._min_ioi_samples

    def push(self, samples: Float32) -> OnsetBlock:
        """Take the next samples, shape (n,), and return the onsets that they decided."""
        spec = self._spec
        self._buffer = np.concatenate([self._buffer, samples])
        n_frames = max(0, (self._buffer.shape[0] - spec.n_fft) // spec.hop_samples + 1)
        onsets: list[Onset] = []
        if n_frames:
            for flux, level_db in zip(*self._novelty(n_frames), strict=True):
                self._frame += 1
                now = self._frame * spec.hop_samples
                position = max(0, now - spec.report_lag_samples)
                sharp = self._is_onset(float(flux), position)
                if self._is_return(float(level_db), position, sharp=sharp) or sharp:
                    onsets.append(Onset(position, now))
                    self._last_onset = position
                self._flux.append(float(flux))
            self._buffer = self._buffer[n_frames * spec.hop_samples :]
        # The next frame can report no onset before its own position.
        decided = max(0, (self._frame + 1) * spec.hop_samples - spec.report_lag_samples)
        return OnsetBlock(tuple(onsets), decided)

    def _novelty(self, n_frames: int) -> tuple[Float32, Float32]:
        """Return each frame's flux and its level in dB."""
        spec = self._spec
        frames = np.lib.stride_tricks.sliding_window_view(self._buffer, spec.n_fft)[:: spec.hop_samples][:n_frames]
        magnitude = np.abs(rfft(frames * self._window, axis=1))
        bands = (self._bands @ magnitude.T).T
        compressed = np.log10(1 + np.float32(spec.compression) * bands)
        history = np.concatenate([self._previous, compressed])
        self._previous = history[-spec.lag_frames :]
        reference = maximum_filter1d(history[: -spec.lag_frames], spec.max_filter_bins, axis=1)
        latest = frames[:, spec.n_fft // 2 :]
        level_db = 10 * np.log10(latest.var(axis=1) + np.float32(10 ** (_SILENT_DB / 10)))
        return np.maximum(0, compressed - reference).sum(axis=1), level_db

    def _is_onset(self, flux: float, position: int) -> bool:
        if position - self._last_onset < self._min_ioi_samples:
            return False
        recent = list(self._flux)
        if flux < max(recent[-self._max_frames :]):
            return False
        return flux >= sum(recent) / len(recent) + self._spec.threshold

    def _is_return(self, level_db: float, position: int, *, sharp: bool) -> bool:
        """Return whether the level has just come back from a dip; `sharp`: the flux had an onset here."""
        spec = self._spec
        if not spec.dip_db:
            return False
        returned = False
        if not sharp:
            if level_db <= min(self._crest_db - spec.dip_db, self._bottom_db):
                self._bottom_db, self._bottom_frame = level_db, self._frame
            if level_db < self._bottom_db + spec.dip_return_db:
                self._crest_db = max(self._crest_db, level_db) - self._fade_db
                return False
            returned = (
                self._frame - self._bottom_frame <= self._return_frames
                and position - self._last_onset >= self._dip_ioi_samples
                and level_db > _QUIETEST_DB
            )
        self._crest_db, self._bottom_db = level_db, math.inf
        return returned


def onsets_known_at(sample: int, spec: OnsetSpec) -> int:
    """Return how much of the stream must be there until every onset before `sample` is decided."""
    return max(0, -(-(sample + spec.report_lag_samples) // spec.hop_samples) - 1) * spec.hop_samples


@lru_cache(maxsize=8)
def log_filterbank(spec: OnsetSpec, *, sample_rate_hz: int) -> csr_array:
    """Return triangular filters on a logarithmic frequency scale, area-normalised; sparse, shape (bands, n_fft // 2 + 1).

    Where bands would be narrower than a bin of the transform, bins take their place, each once.
    """
    bin_hz = sample_rate_hz / spec.n_fft
    high_hz = min(spec.high_hz, sample_rate_hz / 2)
    n_steps = max(0, int(np.floor(spec.bands_per_octave * np.log2(high_hz / spec.low_hz))))
    corners = np.unique(np.round(spec.low_hz * 2 ** (np.arange(n_steps + 1) / spec.bands_per_octave) / bin_hz))
    corners = corners[(corners >= 1) & (corners <= spec.n_fft // 2)].astype(int)
    if len(corners) < 3:
        raise InputError("perception spec: the onset bands hold no bin of the transform")
    weights = np.zeros((len(corners) - 2, spec.n_fft // 2 + 1), dtype=np.float32)
    for row, (low, centre, high) in enumerate(zip(corners[:-2], corners[1:-1], corners[2:], strict=True)):
        weights[row, low : centre + 1] = np.linspace(0, 1, centre - low + 1)
        weights[row, centre : high + 1] = np.linspace(1, 0, high - centre + 1)
        weights[row] /= weights[row].sum()
    return csr_array(weights)
