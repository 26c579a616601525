"""Is a sound file all there? What its container promises, against what the file holds.

libsndfile reads a WAV file that was cut in half without a word, pads an MP3 file with silence, and plays over a hole in
an Ogg file. So the promise is read here: the size of the data chunk (RIFF, RF64, Wave64, AIFF, CAF, AU), the page numbers
and the end-of-stream flag of Ogg (RFC 3533, section 6), the byte count of a Xing header in MP3. An MP3 file without one
promises nothing. FLAC names its length in samples, which the reader compares with what it got.
"""

import struct
from dataclasses import dataclass
from typing import BinaryIO

_MAX_CHUNKS = 10_000  # a hostile file of empty chunks must not keep us for hours
_MP3_SLACK_BYTES = 2_048  # encoders disagree on what they count, by up to about two frames
_W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_W64_DATA = bytes.fromhex("64617461f3acd3118cd100c04f8edb8a")


@dataclass(frozen=True)
class _Chunks:
    """How a family of containers lays out its chunks."""

    data_id: bytes
    first: int
    size_format: str
    size_includes_header: bool = False
    alignment: int = 2
    unknown_sizes: tuple[int, ...] = (0, 0xFFFFFFFF)  # what a program writes that streams into a pipe


_FAMILIES = {
    b"RIFF": _Chunks(b"data", 12, "<I"),
    b"RF64": _Chunks(b"data", 12, "<I"),
    b"RIFX": _Chunks(b"data", 12, ">I"),
    b"FORM": _Chunks(b"SSND", 12, ">I"),
    b"caff": _Chunks(b"data", 8, ">q", alignment=1, unknown_sizes=(-1,)),
    b"riff": _Chunks(_W64_DATA, 40, "<Q", size_includes_header=True, alignment=8, unknown_sizes=(0, 24)),
}


def looks_like_audio(head: bytes) -> bool:
    """Return whether the first bytes of a file (16 or more) are those of a format that is read here."""
    if head[:4] in (b"RIFF", b"RIFX", b"RF64"):
        return head[8:12] == b"WAVE"
    if head[:4] == b"FORM":
        return head[8:12] in (b"AIFF", b"AIFC")
    if head[:4] in (b"fLaC", b"OggS", b"caff", b".snd") or head[:3] == b"ID3":
        return True
    return head[:16] == _W64_RIFF or _is_mpeg_frame(head)


def missing_bytes(stream: BinaryIO, size: int) -> int:
    """Return how many bytes a sound file of `size` bytes lacks of what it promises; 0 where it promises nothing.

    For Ogg, which numbers its pages and says which is the last, the answer is 1 where one is missing.
    """
    stream.seek(0)
    head = stream.read(16)
    chunks = _FAMILIES.get(head[:4])
    if chunks is not None:
        return _missing_of_chunk(stream, size, chunks)
    if head[:4] == b"OggS":
        return _missing_of_ogg(stream, size)
    if head[:4] == b".snd":
        offset, length = struct.unpack(">II", head[4:12].ljust(8, b"\0"))
        return 0 if length == 0xFFFFFFFF else max(0, offset + length - size)
    return _missing_of_mp3(stream, size)


def _missing_of_chunk(stream: BinaryIO, size: int, chunks: _Chunks) -> int:
    id_bytes, size_bytes = len(chunks.data_id), struct.calcsize(chunks.size_format)
    header_bytes, position, long_size = id_bytes + size_bytes, chunks.first, None
    for _ in range(_MAX_CHUNKS):
        stream.seek(position)
        header = stream.read(header_bytes)
        if len(header) < header_bytes:
            return 0
        (length,) = struct.unpack(chunks.size_format, header[id_bytes:])
        if header[:4] == b"ds64":  # RF64 keeps its 64-bit sizes here: the file's, then the data's
            sizes = stream.read(16)
            long_size = int.from_bytes(sizes[8:16], "little") if len(sizes) == 16 else None
        if header[:id_bytes] == chunks.data_id:
            if length == 0xFFFFFFFF and long_size is not None:
                length = long_size
            if length in chunks.unknown_sizes:
                return 0
            end = position + length + (0 if chunks.size_includes_header else header_bytes)
            return max(0, end - size)
        step = length if chunks.size_includes_header else header_bytes + length
        position += max(header_bytes, -(-step // chunks.alignment) * chunks.alignment)
        if position >= size:
            return 0
    return 0


def _missing_of_ogg(stream: BinaryIO, size: int) -> int:
    """Walk the pages: one behind the other, numbered without a gap in each logical stream, the last marked as last."""
    position, ended = 0, False
    expected: dict[bytes, int] = {}
    while position < size:
        stream.seek(position)
        page = stream.read(27 + 255)
        if page[:5] != b"OggS\0" or len(page) < 27:
            break
        lengths = page[27 : 27 + page[26]]
        position += 27 + len(lengths) + sum(lengths)
        serial, (number,) = page[14:18], struct.unpack("<I", page[18:22])
        first = bool(page[5] & 2)
        if len(lengths) < page[26] or position > size or (not first and number != expected.get(serial)):
            return 1
        expected[serial], ended = number + 1, bool(page[5] & 4)
    return 0 if ended else 1  # a tag may follow the last page


def _missing_of_mp3(stream: BinaryIO, size: int) -> int:
    stream.seek(0)
    tag = stream.read(10)
    start = 0
    if tag[:3] == b"ID3" and len(tag) == 10:  # its size has seven bits in each byte
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(tag[6:10], (21, 14, 7, 0), strict=True))
    stream.seek(start)
    frame = stream.read(64)
    if not _is_mpeg_frame(frame):
        return 0
    for name in (b"Xing", b"Info"):
        at = frame.find(name)
        if at < 0 or at + 16 > len(frame):
            continue
        (flags,) = struct.unpack(">I", frame[at + 4 : at + 8])
        if flags & 2:
            field = at + 8 + (4 if flags & 1 else 0)
            (promised,) = struct.unpack(">I", frame[field : field + 4])
            missing: int = start + promised - size
            return missing if missing > _MP3_SLACK_BYTES else 0
    return 0


def _is_mpeg_frame(head: bytes) -> bool:
    """Eleven bits of sync, then no reserved version, layer, bit rate or sample rate."""
    return (
        len(head) >= 4
        and head[0] == 0xFF
        and head[1] & 0xE0 == 0xE0
        and head[1] & 0x18 != 0x08
        and head[1] & 0x06 != 0
        and head[2] & 0xF0 != 0xF0
        and head[2] & 0x0C != 0x0C
    )
