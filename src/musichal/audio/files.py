"""Sound files of 24 bits: FLAC in memory, which comes back bit for bit; and sound for people, in many formats.

FLAC (RFC 9639) from untrusted files is decoded safely: only what `encode_flac` writes is accepted, one channel of 24 bits and
a declared length, and the samples must match the MD5 sum of the header.
"""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
import soxr

from musichal.arrays import Float32, Float64
from musichal.atomic import open_atomically
from musichal.errors import InputError
from musichal.text import PathLike, printable

_FULL_SCALE = 2.0**23
_BLOCK_SAMPLES = 1 << 18


def flac_holds_rate(sample_rate_hz: int) -> bool:
    """Return whether FLAC's streamable subset has this rate: up to 65535 Hz any, above in steps of 10 Hz."""
    return 0 < sample_rate_hz <= 65535 or (65535 < sample_rate_hz <= 655350 and sample_rate_hz % 10 == 0)


def encode_flac(samples: Float32, sample_rate_hz: int) -> bytes:
    """Return `samples` as a FLAC file.

    Raises `ValueError` where the samples are not on the grid: coding them would lose something, `InputError` where FLAC cannot
    hold the rate.

    * `samples`: Shape (n,), n > 0, float32 on the 24-bit grid: multiples of 2**-23 from -1 to 1 - 2**-23, as `ingest` gives
      them.
    """
    out = io.BytesIO()
    write_flac(out, samples, sample_rate_hz)
    return out.getvalue()


def write_flac(out: BinaryIO, samples: Float32, sample_rate_hz: int) -> None:
    """Write what `encode_flac` returns to a stream, block by block; raises as it does."""
    if not isinstance(sample_rate_hz, int) or not flac_holds_rate(sample_rate_hz):
        raise InputError(f"FLAC cannot hold a sample rate of {sample_rate_hz} Hz")
    if samples.dtype != np.float32 or samples.ndim != 1 or samples.size == 0:
        raise ValueError("samples must be a non-empty float32 vector")
    with soundfile.SoundFile(out, "w", samplerate=sample_rate_hz, channels=1, format="FLAC", subtype="PCM_24") as encoder:
        for start in range(0, samples.size, _BLOCK_SAMPLES):
            scaled = samples[start : start + _BLOCK_SAMPLES].astype(np.float64) * _FULL_SCALE
            if not (np.all(scaled == np.rint(scaled)) and np.all((scaled >= -_FULL_SCALE) & (scaled < _FULL_SCALE))):
                raise ValueError("samples must lie on the 24-bit grid")
            encoder.write(scaled.astype(np.int32) << 8)  # libsndfile takes the upper 24 bits


def decode_flac(data: bytes, *, max_samples: int) -> tuple[Float32, int]:
    """Return the samples, float32 of shape (n,) on the 24-bit grid, and the sample rate in Hz.

    Raises `InputError` for anything that `encode_flac` would not have written, or that declares more than `max_samples`;
    memory stays within that bound.
    """
    if data[:4] != b"fLaC":
        raise InputError("not FLAC data")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as decoder:
            n = decoder.frames
            if (decoder.format, decoder.subtype, decoder.channels) != ("FLAC", "PCM_24", 1) or not 0 < n < 1 << 48:
                raise InputError("FLAC data must be mono, 24 bits, and of a declared length")
            if n > max_samples:
                raise InputError(f"FLAC data declares {n} samples, more than the {max_samples} expected")
            samples = decoder.read(n, dtype="float32")
    except soundfile.SoundFileError as error:
        raise InputError("FLAC data is damaged") from error
    if len(samples) < n:
        raise InputError(f"FLAC data is cut short: {len(samples)} of {n} samples")
    digest = hashlib.md5(usedforsecurity=False)  # FLAC's own, in STREAMINFO; libsndfile does not compare it
    for start in range(0, n, _BLOCK_SAMPLES):
        digest.update(_three_bytes(samples[start : start + _BLOCK_SAMPLES] * np.float32(_FULL_SCALE)))
    if digest.digest() != data[26:42]:
        raise InputError("FLAC data is damaged: its samples do not match its MD5 sum")
    return samples, decoder.samplerate


SOUND_FORMATS = {
    ".wav": ("WAV", "PCM_24"),
    ".wave": ("WAV", "PCM_24"),
    ".flac": ("FLAC", "PCM_24"),
    ".ogg": ("OGG", "VORBIS"),
    ".oga": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".aif": ("AIFF", "PCM_24"),
    ".aiff": ("AIFF", "PCM_24"),
    ".caf": ("CAF", "PCM_24"),
}
"""What is written, by the suffix of a name; a name without suffix gets WAV."""
_OPUS_RATE_HZ = 48_000


def write_sound(path: PathLike, samples: Float32, *, sample_rate_hz: int) -> None:
    """Write mono (n,) or (n, channels) samples in the format of the suffix of `path`, whole or not at all.

    Values beyond ±1 are clipped. 24 bits need no dither, so equal samples give equal bytes in what is not lossy. Raises
    `InputError` where the path cannot be written or has another suffix, `ValueError` for samples that are not finite.
    """
    samples = samples[:, None] if samples.ndim == 1 else samples
    if not np.isfinite(samples).all():
        raise ValueError("only finite samples can be written")
    kind, subtype = SOUND_FORMATS.get(Path(path).suffix.lower() or ".wav", ("", ""))
    if not kind:
        raise InputError(f"cannot write {printable(path)}: sound is a {' or '.join(SOUND_FORMATS)} file")
    if subtype == "OPUS" and sample_rate_hz != _OPUS_RATE_HZ:
        samples = soxr.resample(samples, sample_rate_hz, _OPUS_RATE_HZ, quality="HQ")
        sample_rate_hz = _OPUS_RATE_HZ
    how = {"samplerate": sample_rate_hz, "channels": samples.shape[1], "format": kind, "subtype": subtype}
    with open_atomically(path) as stream:
        sink = _Sink(stream)
        try:
            with soundfile.SoundFile(sink, "w", **how) as file:
                file.software = file.comment = "MusicHal"  # MP3 keeps the second only
                for first in range(0, len(samples), _BLOCK_SAMPLES):
                    block = np.clip(samples[first : first + _BLOCK_SAMPLES].astype(np.float64), -1, 1)
                    if subtype != "PCM_24":
                        file.write(block)
                    else:  # libsndfile takes the upper 24 bits
                        file.write(np.rint(block * (_FULL_SCALE - 1)).astype(np.int32) << 8)
        except (soundfile.SoundFileError, AssertionError) as error:  # soundfile asserts that all was written
            if sink.error is None:
                raise InputError(f"cannot write {printable(path)}: {printable(str(error))}") from error
        if sink.error is not None:
            raise sink.error


class _Sink:
    """A file for libsndfile to write to, which would print the errors of the system and go on: they are kept."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def _kept(self, call: Callable[..., int], *arguments: Any) -> int:
        try:
            return call(*arguments)
        except OSError as error:
            self.error = self.error or error
            return 0

    def write(self, data: bytes) -> int:
        return self._kept(self._stream.write, bytes(data))

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._kept(self._stream.seek, offset, whence)

    def tell(self) -> int:
        return self._kept(self._stream.tell)

    def read(self, _count: int) -> bytes:
        return b""

    def flush(self) -> None:
        """Leave it to the end: an error must be kept."""


def _three_bytes(whole: Float32 | Float64) -> bytes:
    """Return whole numbers as little-endian integers of 24 bits."""
    return np.ascontiguousarray(whole.astype("<i4")).view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
