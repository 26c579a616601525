"""Harmonic-percussive separation of one window by median filtering.

A sustained sound is smooth along time, a hit is smooth along frequency: the median of each spectrogram bin's neighbours in
time estimates the harmonic part, the median in frequency the percussive part (Fitzgerald, DAFx 2010). Soft masks with margins
(Driedger, Müller & Disch, ISMIR 2014) are applied to the complex spectrogram, and the *masked spectrogram* is transformed
back: the stems are sounds, not masks. Each window (context, segment, lookahead) is separated on its own.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.fft import irfft, rfft
from scipy.ndimage import median_filter

from musichal.arrays import Float32
from musichal.hearing.percepts import Stems
from musichal.spec import SeparationSpec

# Keeps masks defined where both estimates vanish; far below 24-bit noise.
_FLOOR = np.float32(1e-10)
_AT_ONCE = 8192  # samples that the median filter takes: a third of a millisecond


@dataclass(frozen=True)
class _Plan:
    """What depends on the window's length only: analysis window, frame count, overlap-add normalisation."""

    window: Float32
    n_frames: int
    inverse_overlap: Float32


@lru_cache(maxsize=8)
def _plan(spec: SeparationSpec, n_samples: int) -> _Plan:
    n_fft, hop = spec.n_fft, spec.hop_samples
    # Periodic Hann, as for every overlap-add.
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)
    n_frames = 1 + -(-n_samples // hop)
    overlap = np.zeros((n_frames - 1) * hop + n_fft, dtype=np.float32)
    for i in range(n_frames):
        overlap[i * hop : i * hop + n_fft] += window * window
    return _Plan(window, n_frames, (1 / np.maximum(overlap, np.float32(1e-8))).astype(np.float32))


def separate(samples: Float32, spec: SeparationSpec) -> Stems:
    """Separate one window of sound, context, segment and lookahead, mono float32 (n,), into stems of the same shape.

    With margins of 1 they add up to the input; larger margins leave a residual out of both.
    """
    n_fft, hop = spec.n_fft, spec.hop_samples
    plan = _plan(spec, samples.shape[0])
    total = (plan.n_frames - 1) * hop + n_fft
    padded = np.zeros(total, dtype=np.float32)
    padded[n_fft // 2 : n_fft // 2 + samples.shape[0]] = samples
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop]
    spectrum = rfft(frames * plan.window, axis=1)
    magnitude = np.abs(spectrum)
    harmonic = _median_along_time(magnitude, spec.kernel_time_frames)
    percussive = _median_along_frequency(magnitude, spec.kernel_frequency_bins)
    masks = (
        _soft_mask(harmonic, percussive, spec.margin_harmonic, spec.power),
        _soft_mask(percussive, harmonic, spec.margin_percussive, spec.power),
    )
    stems = [_overlap_add(spectrum * mask, plan, spec)[: samples.shape[0]] for mask in masks]
    return Stems(harmonic=stems[0], percussive=stems[1])


def _median_along_frequency(magnitude: Float32, kernel: int) -> Float32:
    """Return the running median along the last axis, the ends mirrored.

    SciPy's one-dimensional median filter costs the same for any kernel, so rows go through it as strings, each row padded so
    that no window reaches into its neighbour. It keeps the interpreter for itself, and live a decision may wait for that: the
    strings are short.
    """
    half = kernel // 2
    padded = np.pad(magnitude, ((0, 0), (half, half)), mode="symmetric")
    filtered, rows = np.empty_like(padded), max(1, _AT_ONCE // padded.shape[1])
    for first in range(0, len(padded), rows):
        part = padded[first : first + rows]
        filtered[first : first + rows] = median_filter(part.ravel(), size=kernel, mode="nearest").reshape(part.shape)
    return filtered[:, half : half + magnitude.shape[1]]


def _median_along_time(magnitude: Float32, kernel: int) -> Float32:
    return _median_along_frequency(np.ascontiguousarray(magnitude.T), kernel).T


def _soft_mask(wanted: Float32, other: Float32, margin: float, power: float) -> Float32:
    """Return the share of `wanted` in each bin, `other` weighed by the margin; between 0 and 1."""
    scale = np.maximum(np.maximum(wanted, other), _FLOOR)
    a = wanted / scale
    b = other / scale * np.float32(margin)
    a, b = (a * a, b * b) if power == 2 else (a ** np.float32(power), b ** np.float32(power))
    mask = (a + _FLOOR) / (a + b + 2 * _FLOOR)
    return mask.astype(np.float32, copy=False)


def _overlap_add(spectrum: Float32, plan: _Plan, spec: SeparationSpec) -> Float32:
    n_fft, hop = spec.n_fft, spec.hop_samples
    frames = irfft(spectrum, n=n_fft, axis=1) * plan.window
    out = np.zeros(plan.inverse_overlap.shape[0], dtype=np.float32)
    for i in range(plan.n_frames):
        out[i * hop : i * hop + n_fft] += frames[i]
    out *= plan.inverse_overlap
    return out[n_fft // 2 :]
