"""A ring buffer between an audio callback and who reads it: one writer, one reader, no locks, nobody waits.

The writer copies a block and returns. Where a block does not fit, it is dropped whole and counted, and the next block that
fits says how many samples are missing before it: what is lost has a place, and positions stay true.

Correct for one writing and one reading thread under CPython's global lock: each counter is changed by one side only, after
the data that it stands for.
"""

from dataclasses import dataclass

import numpy as np

from musichal.arrays import Float32, Float64, Int64


@dataclass(frozen=True)
class RingBlock:
    """A block as it was written: `samples` (n, channels); `first` counts lost samples too, `lost_before` those just before it.

    `arrived_s` and `mark` are what the writer said.
    """

    samples: Float32
    first: int
    lost_before: int
    arrived_s: float
    mark: int

    @property
    def end(self) -> int:
        """Return the position behind the last sample."""
        return self.first + len(self.samples)


class BlockRing:
    """Blocks of float32 samples, in order, up to a number of samples and of blocks.

    Parameters
    ----------
    capacity_samples, channels, max_blocks : int
        How much it holds; all memory is taken at once.
    """

    def __init__(self, *, capacity_samples: int, channels: int, max_blocks: int = 4096) -> None:
        if min(capacity_samples, channels, max_blocks) < 1:
            raise ValueError("a ring holds at least one sample, channel and block")
        self.lost_samples = 0
        """Samples that did not fit so far; the writer counts."""
        self.dropped_blocks = 0
        self._data: Float32 = np.zeros((capacity_samples, channels), dtype=np.float32)
        self._sizes: Int64 = np.zeros(max_blocks, dtype=np.int64)
        self._lost: Int64 = np.zeros(max_blocks, dtype=np.int64)
        self._marks: Int64 = np.zeros(max_blocks, dtype=np.int64)
        self._stamps: Float64 = np.zeros(max_blocks, dtype=np.float64)
        self._lost_since = 0  # not yet told, the writer's
        self._mark_since = 0
        self._samples_in = self._blocks_in = 0  # the writer's
        self._samples_out = self._blocks_out = self._position = 0  # the reader's

    def write(self, block: Float32, arrived_s: float, mark: int = 0) -> bool:
        """Copy a block (n, channels) in, with the time of its arrival; return whether it fitted. Never waits.

        The bits of `mark` go to the reader with this block, or, if it is dropped, with the next that fits.
        """
        n, capacity = len(block), len(self._data)
        full = self._samples_in - self._samples_out + n > capacity
        if full or self._blocks_in - self._blocks_out >= len(self._sizes):
            self.lost_samples += n
            self.dropped_blocks += 1
            self._lost_since += n
            self._mark_since |= mark
            return False
        start = self._samples_in % capacity
        head = min(n, capacity - start)
        self._data[start : start + head] = block[:head]
        self._data[: n - head] = block[head:]
        slot = self._blocks_in % len(self._sizes)
        self._sizes[slot] = n
        self._lost[slot] = self._lost_since
        self._marks[slot] = mark | self._mark_since
        self._stamps[slot] = arrived_s
        self._lost_since = self._mark_since = 0
        self._samples_in += n
        self._blocks_in += 1  # last: now the reader may have it
        return True

    def lose(self, n_samples: int) -> None:
        """Say as the writer that `n_samples` were lost before the next block, which never came here."""
        self.lost_samples += n_samples
        self._lost_since += n_samples

    def read(self) -> RingBlock | None:
        """Take the oldest block out, as a copy; None where there is none. Never waits."""
        if self._blocks_out == self._blocks_in:
            return None
        slot, capacity = self._blocks_out % len(self._sizes), len(self._data)
        n, lost = int(self._sizes[slot]), int(self._lost[slot])
        start = self._samples_out % capacity
        head = min(n, capacity - start)
        samples = np.concatenate([self._data[start : start + head], self._data[: n - head]])
        block = RingBlock(samples, self._position + lost, lost, float(self._stamps[slot]), int(self._marks[slot]))
        self._position = block.end
        self._samples_out += n
        self._blocks_out += 1  # last: now the writer may have the place
        return block

    @property
    def waiting_samples(self) -> int:
        """Return how many samples wait."""
        return self._samples_in - self._samples_out

    def __len__(self) -> int:
        """Return how many blocks wait."""
        return self._blocks_in - self._blocks_out
