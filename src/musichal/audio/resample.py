"""Streaming resampling to the rate that hearing works at.

``soxr-HQ`` and ``soxr-VHQ`` hand their output out in bursts of 34 ms, so a sample comes out 4 to 39 ms after it went in.
``soxr-VR``, soxr's filter for variable rates, hands it out after 5 ms, always (0.08 ms of them are in the sound): what an
answer at the onset needs.
"""

import math

import numpy as np
import soxr

from musichal.arrays import Float32
from musichal.errors import InputError

# Device and file rates that make sense; soxr itself would take anything.
LOWEST_RATE_HZ = 4000
HIGHEST_RATE_HZ = 768_000


class StreamResampler:
    """Resamples a mono stream block by block.

    The output is one and the same stream, bit for bit, however the input is cut into blocks (a test holds soxr to it); only the
    moment at which a sample comes out depends on the blocks. Where both rates agree, samples pass unchanged. `quality`:
    ``soxr-HQ``, ``soxr-VHQ`` or ``soxr-VR``, as in `PerceptionSpec.resampler`. Raises `InputError` for a source rate outside 4
    to 768 kHz.
    """

    def __init__(self, *, source_rate_hz: int, target_rate_hz: int, quality: str = "soxr-HQ") -> None:
        if not LOWEST_RATE_HZ <= source_rate_hz <= HIGHEST_RATE_HZ:
            raise InputError(f"a sample rate of {source_rate_hz} Hz cannot be heard: use 4 to 768 kHz")
        self._stream = None
        self._ratio = target_rate_hz / source_rate_hz
        self._taken = self._given = 0
        if source_rate_hz != target_rate_hz:
            variable = quality == "soxr-VR"
            grade = "HQ" if variable else quality.removeprefix("soxr-")
            self._stream = soxr.ResampleStream(source_rate_hz, target_rate_hz, 1, dtype="float32", quality=grade, vr=variable)

    def push(self, samples: Float32) -> Float32:
        """Take a block of shape (n,) and return what comes out for it, possibly nothing; shape (m,)."""
        if self._stream is None:
            return samples
        out = self._stream.resample_chunk(samples, last=False)
        self._taken, self._given = self._taken + samples.shape[0], self._given + out.shape[0]
        return out

    def flush(self) -> Float32:
        """End the stream and return its rest; what came out in all is as long as what went in, to the nearest sample."""
        if self._stream is None:
            return np.zeros(0, dtype=np.float32)
        rest = self._stream.resample_chunk(np.zeros(0, dtype=np.float32), last=True)
        # Variable rates end a sample early or late.
        missing = math.floor(self._taken * self._ratio + 0.5) - self._given
        return np.pad(rest, (0, missing - rest.shape[0])) if rest.shape[0] < missing else rest[: max(0, missing)]


def resampled_length(n_samples: int, *, source_rate_hz: int, target_rate_hz: int) -> int:
    """Return how many samples `StreamResampler` makes of `n_samples`.

    soxr rounds n · target / source to the nearest integer, halves up. Integer arithmetic is exact for any length.
    """
    return (2 * n_samples * target_rate_hz + source_rate_hz) // (2 * source_rate_hz)
