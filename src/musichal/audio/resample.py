"""Streaming resampling to the rate that hearing works at."""

import numpy as np
import soxr

from musichal.arrays import Float32
from musichal.errors import InputError

# Device and file rates that make sense; soxr itself would take anything.
LOWEST_RATE_HZ = 4000
HIGHEST_RATE_HZ = 768_000


class StreamResampler:
    """Resamples a mono stream block by block.

    The output is one and the same stream, bit for bit, however the input is cut into blocks (a test holds soxr to it);
    only the moment at which a sample comes out depends on the blocks. Where both rates agree, samples pass unchanged.

    Parameters
    ----------
    source_rate_hz, target_rate_hz : int
    quality : str
        ``soxr-HQ`` or ``soxr-VHQ``, as in `PerceptionSpec.resampler`.

    Raises
    ------
    InputError
        For a source rate outside 4 to 768 kHz.
    """

    def __init__(self, *, source_rate_hz: int, target_rate_hz: int, quality: str = "soxr-HQ") -> None:
        if not LOWEST_RATE_HZ <= source_rate_hz <= HIGHEST_RATE_HZ:
            raise InputError(f"a sample rate of {source_rate_hz} Hz cannot be heard: use 4 to 768 kHz")
        self._stream = (
            None
            if source_rate_hz == target_rate_hz
            else soxr.ResampleStream(source_rate_hz, target_rate_hz, 1, dtype="float32", quality=quality.removeprefix("soxr-"))
        )

    def push(self, samples: Float32) -> Float32:
        """Take a block of shape (n,) and return what comes out for it, possibly nothing; shape (m,)."""
        if self._stream is None:
            return samples
        return self._stream.resample_chunk(samples, last=False)

    def flush(self) -> Float32:
        """End the stream and return its rest."""
        if self._stream is None:
            return np.zeros(0, dtype=np.float32)
        return self._stream.resample_chunk(np.zeros(0, dtype=np.float32), last=True)
