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

from musichal.arrays import Float32, Int64
from musichal.hearing.percepts import Stems
from musichal.spec import SeparationSpec

# Keeps masks defined where both estimates vanish; far below 24-bit noise.
_FLOOR = np.float32(1e-10)


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
    harmonic = running_median(magnitude, spec.kernel_time_frames, axis=0)
    percussive = running_median(magnitude, spec.kernel_frequency_bins, axis=1)
    masks = (
        _soft_mask(harmonic, percussive, spec.margin_harmonic, spec.power),
        _soft_mask(percussive, harmonic, spec.margin_percussive, spec.power),
    )
    stems = [_overlap_add(spectrum * mask, plan, spec)[: samples.shape[0]] for mask in masks]
    return Stems(harmonic=stems[0], percussive=stems[1])


def running_median(values: Float32, kernel: int, *, axis: int) -> Float32:
    """Return the median of the `kernel` (odd) values around each one along an axis of an array (n, m), the ends mirrored.

    Neighbouring medians have most of their values in common. The middle of these is sorted once for some neighbours, by a
    network of comparisons of whole arrays, and for each of them the few that it has besides are put in. Each comparison keeps
    the interpreter for microseconds: live a decision may wait for it.
    """
    if axis == 1:  # along columns, so that what is compared lies in one piece
        return np.ascontiguousarray(running_median(np.ascontiguousarray(values.T), kernel, axis=0).T)
    half, n = kernel // 2, values.shape[0]
    together = 1 << max(0, round(np.log2(kernel / 6)))
    phases = [values.take(places, axis=0) for places in _phases(n, kernel, together)]
    count = -(-n // together)

    def at(place: int) -> Float32:
        first = place // together
        return phases[place % together][first : first + count]

    common = [at(place) for place in range(together - 1, kernel)]
    _sort(common, tuple(range(half - together + 1, half + 1)))
    found = np.empty((count, together, *values.shape[1:]), values.dtype)
    for number in range(together):
        own = [at(place) for place in (*range(number, together - 1), *range(kernel, kernel + number))]
        _sort(own, tuple(range(len(own))))
        median = common[half]
        for rank, value in enumerate(own):
            median = np.minimum(median, np.maximum(common[half - 1 - rank], value))
        found[:, number] = median
    return found.reshape(count * together, *values.shape[1:])[:n]


@lru_cache(maxsize=8)
def _phases(n: int, kernel: int, together: int) -> list[Int64]:
    """Return the places of `n` mirrored values, every so manieth from the first on, from the second on, and so on."""
    places = np.pad(np.arange(n), (kernel // 2, kernel // 2 + -n % together), mode="symmetric")
    return [places[first::together] for first in range(together)]


def _sort(arrays: list[Float32], wanted: tuple[int, ...]) -> None:
    """Put those of the sorted arrays, element by element, in their places that are `wanted`."""
    for low, high, keeps_low, keeps_high in _comparisons(len(arrays), wanted):
        a, b = arrays[low], arrays[high]
        if keeps_low:
            arrays[low] = np.minimum(a, b)
        if keeps_high:
            arrays[high] = np.maximum(a, b)


@lru_cache(maxsize=32)
def _comparisons(count: int, wanted: tuple[int, ...]) -> list[tuple[int, int, bool, bool]]:
    """Return Batcher's odd-even merge sort (AFIPS 1968) as far as `wanted` places need it, and which ends they need."""
    size = 1 << max(0, count - 1).bit_length()  # as if the least and the greatest of so many stood at the ends already
    first, network = (size - count) // 2, []
    for run in (1 << k for k in range(size.bit_length() - 1)):
        for step in (run >> k for k in range(run.bit_length())):
            for start in range(step % run, size - step, 2 * step):
                network += [
                    (low - first, low + step - first)
                    for low in range(start, min(start + step, size - step))
                    if low // (2 * run) == (low + step) // (2 * run)
                ]
    needed, kept = {*wanted}, []
    for low, high in reversed(network):
        if low >= 0 and high < count and (low in needed or high in needed):
            kept.append((low, high, low in needed, high in needed))
            needed |= {low, high}
    return kept[::-1]


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
