"""Player and answer together, for listening, and WAV files."""

import math
import wave

import numpy as np
import soxr

from musichal.arrays import Float32
from musichal.atomic import PathLike, open_atomically

_FULL_SCALE_24_BIT = 2**23 - 1
_FRAMES_AT_ONCE = 1 << 20


def mix(
    player: Float32,
    answer: Float32,
    *,
    player_rate_hz: int,
    answer_rate_hz: int,
    sample_rate_hz: int = 44100,
    player_gain_db: float = 0.0,
    answer_gain_db: float = 0.0,
    width: float = 0.3,
    ceiling_db: float = -1.0,
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
