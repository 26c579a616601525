"""Loudness, player and answer together, for listening, and WAV files."""

import math
import wave

import numpy as np
import soxr

from musichal.arrays import Float32
from musichal.atomic import open_atomically
from musichal.text import PathLike

LOUDNESS_DB = -20.0
"""The nominal loudness of an answer, in dBFS; it leaves 19 dB to peaks before `CEILING_DB`."""

CEILING_DB = -1.0
"""No sample is louder, in dBFS."""

_BLOCK_S = 0.05
_GATE_DB = 40.0
_MOST_GAIN_DB = 40.0
_FULL_SCALE_24_BIT = 2**23 - 1
_FRAMES_AT_ONCE = 1 << 20


def at_loudness(
    samples: Float32, *, sample_rate_hz: int, rms_db: float = LOUDNESS_DB, ceiling_db: float = CEILING_DB
) -> Float32:
    """Return samples (n,) or (n, channels) with an RMS of `rms_db` (dBFS) over their sounding parts, silence as it is.

    Sounding are the blocks of 50 ms, from the first sample on, whose power is within 40 dB of the loudest block's, so that
    rests do not count. The RMS is over all channels, so that mono and the same in two channels, as a mono file is played,
    get the same gain. It is one gain for the whole, without compression. Where a sample would exceed `ceiling_db` (dBFS)
    everything is turned down to it, which then leaves the sound below the loudness asked for. Nothing is turned up by more
    than 40 dB, so that a recording of mere hiss does not become music. Raises `ValueError` for samples that are not finite.
    """
    if not np.isfinite(samples).all():
        raise ValueError("only finite samples have a loudness")
    peak, loudness_db = float(np.abs(samples).max(initial=0.0)), gated_rms_db(samples, sample_rate_hz=sample_rate_hz)
    if loudness_db is None:
        return samples
    gain_db = min(rms_db - loudness_db, ceiling_db - 20 * math.log10(peak), _MOST_GAIN_DB)
    # In double precision, and a hair less at the ceiling, so that rounding does not lift the peak above it.
    loud: Float32 = (samples * np.float64(10 ** (gain_db / 20) * (1 - 2**-22))).astype(np.float32)
    return loud


def gated_rms_db(samples: Float32, *, sample_rate_hz: int) -> float | None:
    """Return the RMS in dBFS over the sounding blocks, as `at_loudness` has them; None for silence."""
    block = max(1, round(_BLOCK_S * sample_rate_hz))
    power = np.square(samples, dtype=np.float64)
    if not power.any():
        return None
    power = power if power.ndim == 1 else power.mean(axis=1)
    starts = np.arange(0, len(power), block)
    sums, lengths = np.add.reduceat(power, starts), np.minimum(block, len(power) - starts)
    sounding = sums / lengths >= (sums / lengths).max() * 10 ** (-_GATE_DB / 10)
    return 10 * math.log10(sums[sounding].sum() / lengths[sounding].sum())


def mix(
    player: Float32,
    answer: Float32,
    *,
    player_rate_hz: int,
    answer_rate_hz: int,
    sample_rate_hz: int = 44100,
    player_gain_db: float = 0.0,
    answer_gain_db: float = 0.0,
    width: float = 0.7,
    ceiling_db: float = CEILING_DB,
) -> Float32:
    """Return both from time 0 in stereo (n, 2), as long as the longer: the player to the left, the answer to the right.

    Each may be mono (m,), stereo (m, 2) or have more channels, which are averaged. `width` from 0 (both in the middle)
    to 1 (far left and far right) pans at constant power. Where the largest sample would exceed `ceiling_db` (dBFS) the
    whole mix is turned down to it, which leaves the balance as it was; it is never turned up. Raises `ValueError` for
    samples that are not finite and for a `width` out of range.
    """
    if not 0 <= width <= 1:
        raise ValueError(f"width must be from 0 to 1, not {width}")
    parts = [
        _placed(player, player_rate_hz, sample_rate_hz, gain_db=player_gain_db, pan=-width),
        _placed(answer, answer_rate_hz, sample_rate_hz, gain_db=answer_gain_db, pan=width),
    ]
    both = np.zeros((max(map(len, parts)), 2), np.float32)
    for part in parts:
        both[: len(part)] += part
    peak, ceiling = float(np.abs(both).max(initial=0.0)), 10 ** (ceiling_db / 20)
    if not math.isfinite(peak):
        raise ValueError("only finite samples can be mixed")
    if peak > ceiling:
        # A hair less, so that rounding does not lift the peak above the ceiling again.
        both *= np.float32(ceiling / peak * (1 - 2**-22))
    return both


def _placed(samples: Float32, rate_hz: int, target_rate_hz: int, *, gain_db: float, pan: float) -> Float32:
    """Return `samples` at the common rate, in stereo, at their gain and place (−1 left to 1 right)."""
    if samples.ndim != 1 and samples.shape[1] != 2:
        samples = samples.mean(axis=1, dtype=np.float32)
    if rate_hz != target_rate_hz and len(samples):
        samples = soxr.resample(samples.astype(np.float32, copy=False), rate_hz, target_rate_hz, quality="HQ")
    angle = (pan + 1) * math.pi / 4
    sides = np.array([math.cos(angle), math.sin(angle)]) * 10 ** (gain_db / 20)
    if samples.ndim == 1:
        samples = samples[:, None]
    else:
        # Two channels keep their image: in the middle each plays at its own level, as mono split into two would.
        sides *= math.sqrt(2)
    placed: Float32 = samples * sides.astype(np.float32)
    return placed


def write_wav(path: PathLike, samples: Float32, *, sample_rate_hz: int) -> None:
    """Write mono (n,) or (n, channels) samples as a WAV file of 24 bits, whole or not at all.

    Values beyond ±1 are clipped. 24 bits need no dither, so equal samples give equal bytes. Raises `InputError` where the
    path cannot be written and `ValueError` for samples that are not finite.
    """
    samples = samples[:, None] if samples.ndim == 1 else samples
    if not np.isfinite(samples).all():
        raise ValueError("only finite samples can be written")
    with open_atomically(path) as stream, wave.open(stream, "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(3)
        file.setframerate(sample_rate_hz)
        file.setnframes(len(samples))
        for first in range(0, len(samples), _FRAMES_AT_ONCE):
            block = np.clip(samples[first : first + _FRAMES_AT_ONCE].astype(np.float64), -1, 1)
            whole = np.rint(block * _FULL_SCALE_24_BIT).astype("<i4")
            # The lower three of the four bytes of each sample.
            file.writeframesraw(np.ascontiguousarray(whole).view(np.uint8).reshape(-1, 4)[:, :3].tobytes())
