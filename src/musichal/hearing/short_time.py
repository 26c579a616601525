"""Short-time magnitudes of the frames of a segment, windows centred on their frame as far as the sound goes.

A segment is complete when it is looked at, so looking ahead inside it is free, but behind its lookahead there is nothing
yet. A frame near the end is therefore seen through a window with a shorter right flank; where even the shortest flank would not
fit, the window's peak moves left. Each window is scaled to unit gain for a steady sinusoid at its peak, so that levels do
not fade towards the end of a segment.
"""

import numpy as np
from scipy.fft import rfft

from musichal.arrays import Float32
from musichal.hearing.frames import frame_centres, frame_count
from musichal.spec import PerceptionSpec

_REFERENCE_RATE_HZ = 24000


def at_rate(samples_at_24_khz: int, sample_rate_hz: int) -> int:
    """Return a length that is given at 24 kHz as an even number of samples at another rate."""
    return max(2, 2 * round(samples_at_24_khz * sample_rate_hz / _REFERENCE_RATE_HZ / 2))


class ShortTime:
    """Magnitude spectra of the frames of the segment at the end of a window.

    Parameters
    ----------
    spec : PerceptionSpec
        Gives the segment, its context and the frame grid.
    length_samples : int
        Length of the analysis window, even.
    ahead_samples : int
        How far behind its frame's centre a window peaks, at most half of `length_samples`: a note's attack takes time.
    right_samples : int
        Shortest right flank of a window.
    before_frames, after_frames : int
        Frames of the context and of the lookahead to give around the segment's own.
    """

    def __init__(
        self,
        spec: PerceptionSpec,
        *,
        length_samples: int,
        ahead_samples: int,
        right_samples: int,
        before_frames: int = 0,
        after_frames: int = 0,
    ) -> None:
        stride, frame = spec.encoder.stride_samples, spec.encoder.frame_samples
        n = frame_count(spec.segment_samples, frame_samples=frame, stride_samples=stride)
        centres = frame_centres(-before_frames, n + after_frames, frame_samples=frame, stride_samples=stride)
        half = length_samples // 2
        seen = spec.segment_samples + spec.lookahead_samples
        self._windows = np.stack(
            [_window(length_samples, seen - int(centre), ahead_samples, right_samples) for centre in centres]
        )
        self._expected = spec.window_samples
        first = spec.context_samples + int(centres[0]) - half
        last = spec.context_samples + int(centres[-1]) + half
        self._padding = (max(0, -first), max(0, last - self._expected))
        self._start, self._stride, self._length = max(0, first), stride, length_samples

    def magnitudes(self, samples: Float32) -> Float32:
        """Return (before + frames + after, length // 2 + 1) magnitudes; a full-scale sinusoid gives 1.

        Raises `ValueError` if `samples` is not as long as a window.
        """
        if samples.shape != (self._expected,):
            raise ValueError(f"expected {self._expected} samples, got an array of shape {samples.shape}")
        padded = np.pad(samples, self._padding)
        frames = np.lib.stride_tricks.sliding_window_view(padded, self._length)[self._start :: self._stride]
        n = self._windows.shape[0]
        return np.abs(rfft(frames[:n] * self._windows, axis=1)).astype(np.float32, copy=False)


def _window(length: int, available: int, ahead: int, right: int) -> Float32:
    """Return a Hann window around its middle + `ahead`, whose right flank ends within `available` samples."""
    offset = np.arange(length) - length // 2
    flank = length // 2 - ahead
    peak, right_flank = ahead, flank
    if peak + flank > available:
        right_flank = max(min(right, flank), available - peak)
        peak = min(peak, available - right_flank)
    position = np.where(offset < peak, (offset - peak) / flank, (offset - peak) / right_flank)
    window = 0.5 + 0.5 * np.cos(np.pi * np.clip(position, -1, 1))
    window[offset >= available] = 0
    return (2 * window / window.sum()).astype(np.float32)
