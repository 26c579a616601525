"""Levels: measured while sound comes in, brought to one loudness for listening, and mixed in stereo.

Conventions
-----------
Levels are in dBFS: a sine of full scale has a peak of 0 and an RMS of −3. `raw` is sound as it came, (n, channels); `mono`
is what is heard of it, (n,), as `musichal.audio.recording.ingest` gives it.
"""

import math
from dataclasses import dataclass

import numpy as np
import soxr

from musichal.arrays import Bool, Float32, Float64

FLOOR_DB = -120.0
"""The lowest level that is reported."""
LOUDNESS_DB = -20.0
"""The nominal loudness of an answer; it leaves 19 dB to peaks before `CEILING_DB`."""
CEILING_DB = -1.0
"""No sample is louder."""

_CLIPPED_RUN = 3  # a wave touches full scale for a sample or two; only clipping stays there
_BLOCK_S = 0.05
_GATE_DB = 40.0
_MOST_GAIN_DB = 40.0
_WIDTH = 0.7  # of the stereo image of a mix: 0 is the middle, 1 far left and far right
_JUST_BELOW = 1 - 2**-22  # so that rounding does not lift a peak above the ceiling


def decibels(amplitude: float) -> float:
    """Return an amplitude in dBFS, at least `FLOOR_DB`."""
    return max(FLOOR_DB, 20 * math.log10(amplitude)) if amplitude > 0 else FLOOR_DB


@dataclass(frozen=True)
class Levels:
    """Measures of a stretch of sound, linear; those in dBFS are properties.

    `peak` is that of any channel, `power` the mean power of the channels (limited to full scale), `mono_peak`, `mono_power`
    and `dc_offset` are those of what is heard. `clipped` counts the samples at which a channel is beyond full scale, or has
    stayed there for three samples.
    """

    samples: int
    peak: float
    power: float
    mono_peak: float
    mono_power: float
    dc_offset: float
    clipped: int

    @property
    def peak_db(self) -> float:
        """The peak of any channel in dBFS."""
        return decibels(self.peak)

    @property
    def rms_db(self) -> float:
        """The RMS of what is heard in dBFS."""
        return decibels(math.sqrt(self.mono_power))


class LevelMeter:
    """Measures sound block by block; `full_scale` is the highest code of its converter, by default of one of 16 bits."""

    def __init__(self, *, full_scale: float = 1.0 - 2.0**-15) -> None:
        self._full_scale = full_scale
        self._high_before: Bool | None = None
        self._reset()

    def _reset(self) -> None:
        self._samples = self._clipped = 0
        self._peak = self._power = self._mono_peak = self._mono_power = self._sum = 0.0

    def see(self, raw: Float32 | Float64, mono: Float32) -> None:
        """Measure a block."""
        if not len(mono):
            return
        size = np.abs(raw)
        peak, exact = float(size.max()), mono.astype(np.float64)
        self._samples += len(mono)
        self._peak = max(self._peak, peak)
        self._power += float(np.square(np.minimum(size, 1.0), dtype=np.float64).sum()) / raw.shape[1]
        self._mono_peak = max(self._mono_peak, float(np.abs(exact).max()))
        self._mono_power += float(np.square(exact).sum())
        self._sum += float(exact.sum())
        if peak < self._full_scale:
            self._high_before = None
            return
        before = np.zeros((_CLIPPED_RUN - 1, raw.shape[1]), bool) if self._high_before is None else self._high_before
        high = np.concatenate([before, size >= self._full_scale])
        run = high[2:] & high[1:-1] & high[:-2]
        self._clipped += int((run | (size > 1)).any(axis=1).sum())
        self._high_before = high[-(_CLIPPED_RUN - 1) :].copy()

    def take(self) -> Levels:
        """Return the levels since this was last called."""
        n = max(1, self._samples)
        levels = Levels(
            samples=self._samples,
            peak=self._peak,
            power=self._power / n,
            mono_peak=self._mono_peak,
            mono_power=self._mono_power / n,
            dc_offset=self._sum / n,
            clipped=self._clipped,
        )
        self._reset()
        return levels


def gated_rms_db(samples: Float32, *, sample_rate_hz: int) -> float | None:
    """Return the RMS in dBFS of samples (n,) or (n, channels) over their sounding parts; None for silence.

    Sounding are the blocks of 50 ms, from the first sample on, whose power is within 40 dB of the loudest block's, so that
    rests do not count. The RMS is over all channels: mono and the same in two channels are equally loud.
    """
    block = max(1, round(_BLOCK_S * sample_rate_hz))
    power = np.square(samples, dtype=np.float64)
    if not power.any():
        return None
    power = power if power.ndim == 1 else power.mean(axis=1)
    starts = np.arange(0, len(power), block)
    sums, lengths = np.add.reduceat(power, starts), np.minimum(block, len(power) - starts)
    sounding = sums / lengths >= (sums / lengths).max() * 10 ** (-_GATE_DB / 10)
    return 10 * math.log10(sums[sounding].sum() / lengths[sounding].sum())


def at_loudness(samples: Float32, *, sample_rate_hz: int) -> Float32:
    """Return samples (n,) or (n, channels) at a `gated_rms_db` of `LOUDNESS_DB`, silence as it is.

    The gain is one for the whole, without compression, and at most 40 dB, so that hiss does not become music. Where a
    sample would exceed `CEILING_DB` the whole is turned down to it, which leaves it below the loudness asked for. Raises
    `ValueError` for samples that are not finite.
    """
    if not np.isfinite(samples).all():
        raise ValueError("only finite samples have a loudness")
    loudness_db = gated_rms_db(samples, sample_rate_hz=sample_rate_hz)
    if loudness_db is None:
        return samples
    gain_db = min(LOUDNESS_DB - loudness_db, CEILING_DB - 20 * math.log10(float(np.abs(samples).max())), _MOST_GAIN_DB)
    return (samples * np.float64(10 ** (gain_db / 20) * _JUST_BELOW)).astype(np.float32)


def mix(player: Float32, answer: Float32, *, player_rate_hz: int, answer_rate_hz: int, sample_rate_hz: int = 44100) -> Float32:
    """Return both from time 0 in stereo (n, 2), as long as the longer: the player to the left, the answer to the right.

    Each is mono (m,) or stereo (m, 2), panned at constant power. Where the largest sample would exceed `CEILING_DB` the whole
    mix is turned down to it, which leaves the balance as it was. Raises `ValueError` for samples that are not finite.
    """
    parts = []
    for samples, rate_hz, pan in ((player, player_rate_hz, -_WIDTH), (answer, answer_rate_hz, _WIDTH)):
        if rate_hz != sample_rate_hz and len(samples):
            samples = soxr.resample(samples, rate_hz, sample_rate_hz, quality="HQ")  # noqa: PLW2901
        angle = (pan + 1) * math.pi / 4
        sides = math.sqrt(2) * np.array([math.cos(angle), math.sin(angle)], np.float32)  # in the middle as it was
        parts.append((samples[:, None] if samples.ndim == 1 else samples) * sides)
    both = np.zeros((max(map(len, parts)), 2), np.float32)
    for part in parts:
        both[: len(part)] += part
    peak, ceiling = float(np.abs(both).max(initial=0.0)), 10 ** (CEILING_DB / 20)
    if not math.isfinite(peak):
        raise ValueError("only finite samples can be mixed")
    if peak > ceiling:
        both *= np.float32(ceiling / peak * _JUST_BELOW)
    return both
