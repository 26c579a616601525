"""Names for the array types that cross rooms, and rounding that does not depend on the processor."""

from typing import Any

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int16 = npt.NDArray[np.int16]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
Records = npt.NDArray[np.void]
AnyArray = npt.NDArray[Any]


def rounded(values: Float64) -> Float64:
    """Return values rounded to 30 binary digits, about nine decimal ones; the same on every processor."""
    mantissa, exponent = np.frexp(values)
    return np.asarray(np.ldexp(np.rint(mantissa * 2.0**30), exponent - 30))
