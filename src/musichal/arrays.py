"""Array types that cross rooms, arrays that grow, and rounding that does not depend on the processor."""

from typing import Any

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


class Columns:
    """A growing array of rows of one dtype (structured, or plain with a fixed row shape).

    Capacity doubles when it runs out: appending n rows costs O(n) in all, and readers see one contiguous array.
    """

    def __init__(self, dtype: npt.DTypeLike, row_shape: tuple[int, ...] = ()) -> None:
        self._rows = np.zeros((_FIRST_CAPACITY, *row_shape), dtype=dtype)
        self._length = 0
        self._view: AnyArray | None = None

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


def rounded(values: Float64) -> Float64:
    """Return values rounded to 30 binary digits, about nine decimal ones; the same on every processor."""
    mantissa, exponent = np.frexp(values)
    return np.asarray(np.ldexp(np.rint(mantissa * 2.0**30), exponent - 30))
