"""A streaming high-pass that takes off DC and rumble below hearing.

A constant offset is no sound, but it weighs on levels, on low pitches and on the shape of every short window. One pole and
one zero, y[n] = x[n] - x[n - 1] + r·y[n - 1], with r = 1 - 2π·cutoff / rate, take it off without a delay.
"""

import numpy as np
from scipy.signal import lfilter

from musichal.arrays import Float32, Float64


class HighPass:
    """Filters a mono stream block by block; what comes out does not depend on the blocks.

    Parameters
    ----------
    cutoff_hz : float
        Where the response is down by 3 dB; 0 leaves the stream as it is.
    sample_rate_hz : int
    """

    def __init__(self, *, cutoff_hz: float, sample_rate_hz: int) -> None:
        self._pole = 1 - 2 * np.pi * cutoff_hz / sample_rate_hz if cutoff_hz else None
        self._state: Float64 | None = None

    def push(self, samples: Float32) -> Float32:
        """Return the next samples filtered, shape (n,)."""
        if self._pole is None or not samples.size:
            return samples
        if self._state is None:
            # The stream's first value is taken for one that was always there: an offset makes no click at the start.
            self._state = np.array([-float(samples[0])])
        filtered, self._state = lfilter([1.0, -1.0], [1.0, -self._pole], samples.astype(np.float64), zi=self._state)
        return np.asarray(filtered, dtype=np.float32)
