"""Recordings as FLAC in memory: 24 bits, mono, back bit for bit; decoding is safe for data from strangers.

The format is that of RFC 9639. Only what `encode_flac` writes is read: one channel, 24 bits, a declared length and the
MD5 sum of the samples, which is checked.
"""

import hashlib
import io
from dataclasses import dataclass

import numpy as np
import soundfile

from musichal.arrays import Float32, Int32
from musichal.errors import InputError

_FULL_SCALE = 2.0**23
_BLOCK_SAMPLES = 1 << 18
_STREAMINFO_END = 42  # "fLaC", a block header of 4 bytes, STREAMINFO of 34


def flac_holds_rate(sample_rate_hz: int) -> bool:
    """Return whether FLAC's streamable subset can name this rate: up to 65535 Hz any, above in steps of 10 Hz."""
    return 0 < sample_rate_hz <= 65535 or (65535 < sample_rate_hz <= 655350 and sample_rate_hz % 10 == 0)


def encode_flac(samples: Float32, sample_rate_hz: int) -> bytes:
    """Return `samples` as a FLAC file.

    Parameters
    ----------
    samples
        Shape (n,), n > 0, float32 on the 24-bit grid: multiples of 2**-23 from -1 to 1 - 2**-23, as `ingest` gives them
        (integers know no -0.0, and `ingest` returns none).

    Raises
    ------
    ValueError
        The samples are not on the grid: coding them would lose something.
    InputError
        FLAC cannot hold the rate.
    """
    if not isinstance(sample_rate_hz, int) or not flac_holds_rate(sample_rate_hz):
        raise InputError(f"FLAC cannot hold a sample rate of {sample_rate_hz} Hz")
    if samples.dtype != np.float32 or samples.ndim != 1 or samples.size == 0:
        raise ValueError("samples must be a non-empty float32 vector")
    out = io.BytesIO()
    with soundfile.SoundFile(out, "w", samplerate=sample_rate_hz, channels=1, format="FLAC", subtype="PCM_24") as encoder:
        for start in range(0, samples.size, _BLOCK_SAMPLES):
            scaled = samples[start : start + _BLOCK_SAMPLES].astype(np.float64) * _FULL_SCALE
            if not (np.all(scaled == np.rint(scaled)) and np.all((scaled >= -_FULL_SCALE) & (scaled < _FULL_SCALE))):
                raise ValueError("samples must lie on the 24-bit grid")
            encoder.write(scaled.astype(np.int32) << 8)  # libsndfile takes the upper 24 bits
    return out.getvalue()


def decode_flac(data: bytes, *, max_samples: int) -> tuple[Float32, int]:
    """Return the samples, float32 of shape (n,) on the 24-bit grid, and the sample rate in Hz.

    Raises `InputError` for anything that `encode_flac` would not have written, or that declares more than
    `max_samples`; memory stays within that bound.
    """
    head = _read_head(data)
    if head.n_samples > max_samples:
        raise InputError(f"FLAC data declares {head.n_samples} samples, more than the {max_samples} expected")
    samples = np.empty(head.n_samples, dtype=np.float32)
    digest = hashlib.md5(usedforsecurity=False)
    done = 0
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as decoder:
            if (decoder.format, decoder.channels, decoder.samplerate) != ("FLAC", 1, head.sample_rate_hz):
                raise InputError("FLAC data contradicts its own header")
            block: Int32 = np.empty(_BLOCK_SAMPLES, dtype=np.int32)
            while len(part := decoder.read(out=block)):
                if done + len(part) > head.n_samples:
                    raise InputError("FLAC data holds more samples than it declares")
                grid = part >> 8
                digest.update(grid.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes())
                samples[done : done + len(part)] = grid / _FULL_SCALE
                done += len(part)
    except soundfile.SoundFileError as error:
        raise InputError("FLAC data is damaged") from error
    if done < head.n_samples:
        raise InputError(f"FLAC data is cut short: {done} of {head.n_samples} samples")
    if digest.digest() != head.md5:
        raise InputError("FLAC data is damaged: its samples do not match its MD5 sum")
    return samples, head.sample_rate_hz


@dataclass(frozen=True)
class _Head:
    sample_rate_hz: int
    n_samples: int
    md5: bytes


def _read_head(data: bytes) -> _Head:
    """Read STREAMINFO (RFC 9639, section 8.2) before any decoder sees the data."""
    if len(data) < _STREAMINFO_END or data[:4] != b"fLaC" or data[4] & 0x7F != 0 or data[5:8] != b"\0\0\x22":
        raise InputError("not FLAC data")
    # 20 bits of rate, 3 of channels - 1, 5 of bits per sample - 1, 36 of length
    packed = int.from_bytes(data[18:26], "big")
    rate, channels = packed >> 44, (packed >> 41 & 7) + 1
    bits, n_samples = (packed >> 36 & 31) + 1, packed & (1 << 36) - 1
    if channels != 1 or bits != 24 or rate == 0 or n_samples == 0:
        raise InputError("FLAC data must be mono, 24 bits, and of a declared length")
    return _Head(sample_rate_hz=rate, n_samples=n_samples, md5=data[26:42])
