"""The input of a live session: closed chunks of FLAC, and the raw samples of a chunk that was never closed."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from musichal.arrays import Float32
from musichal.audio.flac import decode_flac
from musichal.errors import InputError
from musichal.text import printable, reason

INPUT_FOLDER = "input"
_LARGEST_CHUNK_SAMPLES = 120 * 192_000
_FULL_SCALE = np.float32(2.0**23)


def read_chunks(folder: Path, sample_rate_hz: int) -> Iterator[Float32]:
    """Yield the input of a live session, chunk by chunk, the last one as far as it was written.

    Raises `InputError` for what is damaged otherwise than by being cut off.
    """
    number = 0
    while True:
        flac, raw = (folder / INPUT_FOLDER / f"{number:05d}{suffix}" for suffix in (".flac", ".raw"))
        if flac.is_file():
            try:
                samples, rate = decode_flac(_read(flac), max_samples=_LARGEST_CHUNK_SAMPLES)
            except InputError as error:
                raise InputError(f"{printable(flac)}: {error}") from error
            if rate != sample_rate_hz:
                raise InputError(f"{printable(flac)} has another sample rate than the session")
            yield samples
        elif raw.is_file():
            if raw.stat().st_size > 4 * _LARGEST_CHUNK_SAMPLES:
                raise InputError(f"{printable(raw)} is larger than a session's last chunk can be")
            data = _read(raw)
            grid = np.frombuffer(data[: len(data) // 4 * 4], dtype="<i4")
            if np.abs(grid.astype(np.int64)).max(initial=0) > 1 << 23:
                raise InputError(f"{printable(raw)} does not hold samples of 24 bits")
            yield (grid / _FULL_SCALE).astype(np.float32)
            return
        else:
            return
        number += 1


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {printable(path)}: {reason(error)}") from error
