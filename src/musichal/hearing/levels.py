"""Levels of frames, and the gate that turns quiet frames into SILENCE."""

import numpy as np

from musichal.arrays import Bool, Float32, Int64
from musichal.hearing.percepts import SILENT_DB
from musichal.spec import GateSpec

# Resampling rounds the flat top of a clipped wave off: a little below full scale counts.
_FULL_SCALE = 0.98


def full_scale_share(samples: Float32) -> float:
    """Return the share of samples, shape (n,), at full scale: next to none in a whole wave, many where it was clipped."""
    return float(np.count_nonzero(np.abs(samples) >= _FULL_SCALE) / max(1, samples.shape[0]))


def frame_levels_db(samples: Float32, centres: Int64, *, window_samples: int) -> Float32:
    """Return the RMS level in dBFS around each centre.

    Parameters
    ----------
    samples : array of shape (n,)
    centres : array of shape (frames,)
        Positions in `samples`. A window that reaches over an end is cut off there.
    window_samples : int

    Returns
    -------
    array of shape (frames,)
        A full-scale square wave is 0 dBFS, digital silence is `SILENT_DB`.
    """
    energy = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    low = np.clip(centres - window_samples // 2, 0, samples.shape[0])
    high = np.clip(centres + window_samples - window_samples // 2, 0, samples.shape[0])
    # A running sum leaves rounding of about 1e-16 of the loudest passage behind, which may even be negative.
    mean_square = np.maximum(energy[high] - energy[low], 0.0) / np.maximum(high - low, 1)
    floor = 10 ** (SILENT_DB / 10)
    return (10 * np.log10(np.maximum(mean_square, floor))).astype(np.float32)


class Gate:
    """A gate with hysteresis for one source: opens at `open_db`, closes below `close_db`, starts closed."""

    def __init__(self, spec: GateSpec) -> None:
        self._spec = spec
        self._open = False

    def step(self, level_db: Float32) -> Bool:
        """Take the next frames' levels, shape (n,), and return where the gate is open, shape (n,)."""
        out = np.empty(level_db.shape[0], dtype=np.bool_)
        for i, level in enumerate(level_db.tolist()):
            self._open = level >= (self._spec.close_db if self._open else self._spec.open_db)
            out[i] = self._open
        return out
