"""Parts of sound files: stretches of a file and mended headers that are one sound, and the file that a decoder sees."""

import io
import mmap
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

Data = bytes | mmap.mmap
Piece = bytes | tuple[int, int]
"""New bytes, or a stretch of the file."""


@dataclass(frozen=True)
class Part:
    """Sound of one rate and one number of channels, as a file that libsndfile reads to its end.

    `share` is how much of what the file promises is there, `promised` the number of samples that it promises, if any.
    `delay` counts samples that libsndfile leaves out at the start and other decoders do not. `bounded` are the pieces as
    they end by the granule position of the last page, where `pieces` have no such end.
    """

    kind: str
    pieces: tuple[Piece, ...]
    share: float = 1.0
    promised: int | None = None
    delay: int = 0
    bounded: tuple[Piece, ...] = ()


@dataclass(frozen=True)
class Contents:
    """The sound of a file, in parts that follow one another, and sentences on what is wrong with the file.

    `endless` says that the file does not end as its kind must, and does not say how long it should be.
    """

    parts: tuple[Part, ...]
    remarks: tuple[str, ...] = ()
    endless: bool = False


@dataclass(frozen=True)
class Foreign:
    """Sound that libsndfile does not decode: its name, and FFmpeg's name of its container."""

    name: str
    demuxer: str


class Spliced(io.RawIOBase):
    """A file for reading, made of pieces of another."""

    def __init__(self, data: Data, pieces: Sequence[Piece]) -> None:
        self._data, self._pieces = data, pieces
        self._ends: list[int] = []
        for piece in pieces:
            size = len(piece) if isinstance(piece, bytes) else piece[1] - piece[0]
            self._ends.append(size + (self._ends[-1] if self._ends else 0))
        self._at = 0

    def seekable(self) -> bool:
        """Return True: pieces are found by bisection."""
        return True

    def readable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def share(self) -> float:
        """Return how much of the file lies before the position."""
        return self._at / max(1, self._ends[-1])

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a position, as any file does."""
        self._at = max(0, (0, self._at, self._ends[-1])[whence] + offset)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer as far as the pieces go, and return how far."""
        done, number = 0, bisect_right(self._ends, self._at)
        while done < len(buffer) and number < len(self._pieces):
            piece, left = self._pieces[number], self._ends[number] - self._at
            count = min(left, len(buffer) - done)
            source, end = (piece, len(piece)) if isinstance(piece, bytes) else (self._data, piece[1])
            buffer[done : done + count] = source[end - left : end - left + count]
            done, self._at, number = done + count, self._at + count, number + 1
        return done


NOT_ZERO = re.compile(rb"[^\0]")
"""Finds what follows zeros."""


def after_tags(data: Data, at: int) -> int:
    """Return where the tags (ID3, APE) and zeros at a place end."""
    while True:
        head = bytes(data[at : at + 32])
        if head[:3] == b"ID3" and len(head) >= 10:  # seven bits of its size in each byte; a footer is as long as the header
            at += 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
            at += 10 * (head[5] >> 4 & 1)
        elif head[:3] == b"TAG":
            at += 128
        elif head[:8] == b"APETAGEX":
            at += 32 * (head[23:24] >= b"\x80") + int.from_bytes(head[12:16], "little") if len(head) == 32 else 32
        elif head[:1] == b"\0" and head[4:8] not in (b"ftyp", b"moov", b"mdat"):
            found = NOT_ZERO.search(data, at)
            if found is None:
                return len(data)
            if (following := bytes(data[found.start() : found.start() + 8]))[1:5] == b"ftyp":  # never behind zeros alone
                return at + following.index(b"ftyp") - 4
            at = found.start()
        else:
            return min(at, len(data))
