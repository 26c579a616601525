"""Samples that may be more than memory holds."""

import tempfile
from typing import BinaryIO, cast

import numpy as np

from musichal.arrays import Float32

_MOST_IN_MEMORY = 1 << 24  # samples: 6 minutes at 44.1 kHz


class SampleStore:
    """Samples that come block by block; many lie in a temporary file, so that memory does not grow with them."""

    def __init__(self) -> None:
        self._blocks: list[Float32] = []
        self._file: BinaryIO | None = None
        self.length = 0

    def append(self, block: Float32) -> None:
        """Keep the next samples, shape (n,)."""
        self.length += len(block)
        if self._file is not None:
            self._file.write(block.tobytes())
            return
        self._blocks.append(block)
        if self.length > _MOST_IN_MEMORY:
            self._file = cast(BinaryIO, tempfile.TemporaryFile(prefix="musichal-"))  # noqa: SIM115 - the array keeps it
            for part in self._blocks:
                self._file.write(part.tobytes())
            self._blocks = []

    def samples(self) -> Float32:
        """Return all samples, shape (n,), read-only."""
        if self._file is None:
            samples = np.concatenate([np.zeros(0, np.float32), *self._blocks])
        else:
            self._file.flush()
            samples = np.memmap(self._file, np.float32, "r+")
        samples.flags.writeable = False
        return samples
