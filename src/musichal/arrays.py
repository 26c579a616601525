"""Array types that cross rooms, arrays that grow or lie in a file, and rounding that does not depend on the processor."""

import math
import tempfile
import threading
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self, cast

import numpy as np
import numpy.typing as npt

Complex64 = npt.NDArray[np.complex64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int16 = npt.NDArray[np.int16]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
Records = npt.NDArray[np.void]
AnyArray = npt.NDArray[Any]

_FIRST_CAPACITY = 64
_MOST_IN_MEMORY = 1 << 24  # samples: 6 minutes at 44.1 kHz


class Columns:
    """A growing array of rows of one dtype (structured, or plain with a fixed row shape).

    Capacity doubles when it runs out: appending n rows costs O(n) in all, and readers see one contiguous array.
    """

    def __init__(self, dtype: npt.DTypeLike, row_shape: tuple[int, ...] = ()) -> None:
        self._rows = np.zeros((_FIRST_CAPACITY, *row_shape), dtype=dtype)
        self._length = 0
        self._view: AnyArray | None = None

    @classmethod
    def of(cls, rows: AnyArray) -> Self:
        """Return columns of these rows, which are not copied before more are appended."""
        columns = cls(rows.dtype, rows.shape[1:])
        columns._rows, columns._length = rows, len(rows)
        return columns

    def __len__(self) -> int:
        return self._length

    def append(self, row: Any) -> int:
        """Append one row and return its index."""
        self._reserve(1)
        self._rows[self._length] = row
        self._length += 1
        self._view = None
        return self._length - 1

    def extend(self, rows: AnyArray) -> None:
        """Append rows, an array of shape (k, …)."""
        if len(rows) < 2:  # a slice of records is assigned field by field, a record at once
            for row in rows:
                self.append(row)
            return
        self._reserve(len(rows))
        self._rows[self._length : self._length + len(rows)] = rows
        self._length += len(rows)
        self._view = None

    @property
    def view(self) -> AnyArray:
        """Return the rows so far, shape (n, …), read-only; later appends may leave it behind."""
        if self._view is None:
            self._view = self._rows[: self._length]
            self._view.flags.writeable = False
        return self._view

    def _reserve(self, more: int) -> None:
        needed = self._length + more
        if needed > self._rows.shape[0]:
            grown = np.zeros((max(needed, 2 * self._rows.shape[0]), *self._rows.shape[1:]), dtype=self._rows.dtype)
            grown[: self._length] = self._rows[: self._length]
            self._rows = grown


class Rows(Protocol):
    """Rows of float32 that are read by slices and by numbers: an array of shape (n, dims), or a `RowFile`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return how many rows there are, and how long they are."""

    def __getitem__(self, chosen: Any, /) -> Any:
        """Return the rows of a slice, or those with these numbers."""


class RowFile:
    """Rows of float32 in a temporary file of a folder, read without mapping it: memory does not grow with them.

    Threads may read it at once.
    """

    def __init__(self, dims: int, folder: Path) -> None:
        self._file = cast(BinaryIO, tempfile.TemporaryFile(prefix="part-", dir=folder))  # noqa: SIM115 - lives as long as this
        self._lock = threading.Lock()
        self.shape: tuple[int, ...] = (0, dims)

    def append(self, rows: Float32) -> None:
        """Append rows, shape (k, dims)."""
        self._file.seek(0, 2)
        self._file.write(np.ascontiguousarray(rows, np.float32).data)
        self.shape = self.shape[0] + len(rows), self.shape[1]

    def __getitem__(self, chosen: slice | Int64) -> Float32:
        if isinstance(chosen, slice):
            first, end, _ = chosen.indices(self.shape[0])
            return self._read(first, end - first)
        return np.concatenate([np.zeros((0, self.shape[1]), np.float32), *(self._read(row, 1) for row in chosen.tolist())])

    def _read(self, first: int, count: int) -> Float32:
        row_bytes = 4 * self.shape[1]
        with self._lock:
            self._file.seek(first * row_bytes)
            data = self._file.read(count * row_bytes)
        return np.frombuffer(data, np.float32).reshape(count, self.shape[1])


def rounded(values: Float64) -> Float64:
    """Return values rounded to 30 binary digits, about nine decimal ones; the same on every processor."""
    mantissa, exponent = np.frexp(values)
    return np.asarray(np.ldexp(np.rint(mantissa * 2.0**30), exponent - 30))


def rounded_number(value: float) -> float:
    """Return what `rounded` makes of one number, in a tenth of the time."""
    mantissa, exponent = math.frexp(value)
    return math.ldexp(round(mantissa * 2.0**30), exponent - 30)


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
