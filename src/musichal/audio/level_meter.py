"""The level of what comes in: peak and RMS, and whether it clips or is silent."""

import math
from dataclasses import dataclass

import numpy as np

from musichal.arrays import Float32

FLOOR_DB = -120.0
_FULL_SCALE = 1.0 - 2.0**-15  # the highest code of a 16-bit converter
_CLIPPED_RUN = 3  # a wave touches full scale for a sample or two; only clipping stays there


@dataclass(frozen=True)
class Levels:
    """Of the sound since the levels were last asked for: peak of any channel, RMS of the mono sum, clipped samples.

    Both levels are dBFS (a sine of full scale: 0 and -3), at least `FLOOR_DB`; `digital_silence` where every sample was 0.
    """

    peak_db: float
    rms_db: float
    clipped_samples: int
    samples: int
    digital_silence: bool


class LevelMeter:
    """Adds up blocks until it is asked."""

    def __init__(self) -> None:
        self._run = self._clipped = self._samples = 0
        self._peak = self._power = 0.0

    def see(self, raw: Float32, mono: Float32) -> None:
        """Take a block as it came, (n, channels), and as it is heard, (n,)."""
        if not len(mono):
            return
        size = np.abs(raw).max(axis=1)
        peak = float(size.max())
        self._peak = max(self._peak, peak)
        self._power += float(np.square(mono, dtype=np.float64).sum())
        self._samples += len(mono)
        if peak < _FULL_SCALE:
            self._run = 0
            return
        for full in (size >= _FULL_SCALE).tolist():
            self._run = self._run + 1 if full else 0
            if self._run >= _CLIPPED_RUN:
                self._clipped += _CLIPPED_RUN if self._run == _CLIPPED_RUN else 1

    def take(self) -> Levels:
        """Return the levels since this was last called."""
        power = self._power / max(1, self._samples)
        levels = Levels(
            peak_db=decibel(self._peak),
            rms_db=decibel(math.sqrt(power)),
            clipped_samples=self._clipped,
            samples=self._samples,
            digital_silence=self._peak == 0.0,
        )
        self._peak = self._power = 0.0
        self._clipped = self._samples = 0
        return levels


def decibel(amplitude: float) -> float:
    """Return an amplitude in dBFS, at least `FLOOR_DB`."""
    return max(FLOOR_DB, 20 * math.log10(amplitude)) if amplitude > 0 else FLOOR_DB
