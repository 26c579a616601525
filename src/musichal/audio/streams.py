"""Parts of sound files, and the streams that come in pieces: FLAC (RFC 9639), Ogg (RFC 3533), MPEG audio (ISO/IEC 11172-3).

A part is made of stretches of a file and of mended headers that are one sound; `Spliced` is the file that a decoder sees.
"""

import io
import re
import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from musichal.audio.flac_frames import Data, FlacFrames
from musichal.text import counted

Piece = bytes | tuple[int, int]
"""New bytes, or a stretch of the file."""


@dataclass(frozen=True)
class Part:
    """Sound of one rate and one number of channels, as a file that libsndfile reads to its end.

    `share` is how much of what the file promises is there, `promised` the number of samples that it promises, if any.
    `delay` counts samples that libsndfile leaves out at the start and other decoders do not. `bounded` are the pieces as
    they end by the granule position of the last page, where `pieces` have no such end. `frames` are the places and first
    samples of frames at which decoding may go on behind damage, and of the end; `lost` is how many samples are missing.
    """

    kind: str
    pieces: tuple[Piece, ...]
    share: float = 1.0
    promised: int | None = None
    delay: int = 0
    bounded: tuple[Piece, ...] = ()
    frames: tuple[Sequence[int], Sequence[int]] = ((), ())
    lost: int = 0


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
        # A size that a header gives may reach over the end of the data.
        self._data, last = data, len(data)
        self._pieces = [p if isinstance(p, bytes) else (min(p[0], p[1], last), min(p[1], last)) for p in pieces]
        self._ends: list[int] = []
        for piece in self._pieces:
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


MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"uuid", b"styp")
"""With which MP4 and QuickTime may begin, behind four bytes of a size."""
MPEG_PROGRAM = b"\0\0\1\xba"
NOT_ZERO = re.compile(rb"[^\0]")
"""Finds what follows zeros."""


def after_tags(data: Data, at: int) -> int:
    """Return where the tags (ID3, APE) and zeros at a place end."""
    while True:
        head = bytes(data[at : at + 32])
        if head[:3] == b"ID3" and len(head) >= 10:  # seven bits of its size in each byte; a footer is as long as the header
            size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
            at += 10 if at + size > len(data) else 10 + size + 10 * (head[5] >> 4 & 1)  # some sizes cannot be
        elif head[:3] == b"TAG":
            at += 128
        elif head[:8] == b"APETAGEX":
            at += 32 * (head[23:24] >= b"\x80") + int.from_bytes(head[12:16], "little") if len(head) == 32 else 32
        elif head[:1] == b"\0" and head[4:8] not in MP4_BOXES and head[:4] != MPEG_PROGRAM:
            found = NOT_ZERO.search(data, at)
            if found is None:
                return len(data)
            if (following := bytes(data[found.start() : found.start() + 8]))[1:5] == b"ftyp":  # never behind zeros alone
                return at + following.index(b"ftyp") - 4
            at = found.start()
        else:
            return min(at, len(data))


_MOST_JUNK_BYTES = 1 << 16  # before the first frame of MPEG audio, besides tags and zeros
_DECODER_DELAY = 529  # mpg123 leaves out its own delay where a frame says how many frames there are

# ── FLAC ─────────────────────────────────────────────────────────────────────

FLAC_START = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")


def flac(data: Data, start: int) -> Contents:
    """Part joined files; where a length is given it is kept as a promise, and each is read to its end."""
    starts = [start, *(found.start() for found in FLAC_START.finditer(data, start + 1))]
    ends = [*starts[1:], len(data)]
    parts, twice = [], 0
    for first, end in zip(starts, ends, strict=True):
        frames = FlacFrames(data, first, end)
        part = _flac_part([*frames.stretches], bytes(data[first : first + 42]))
        parts.append(replace(part, frames=(frames.places, frames.samples), lost=frames.lost))
        twice += frames.twice
    return Contents(tuple(parts), _copies(twice, "frame"))


def _copies(twice: int, what: str) -> tuple[str, ...]:
    return (f"{counted(twice, what)} {'is' if twice == 1 else 'are'} there twice: heard once",) if twice else ()


def _flac_part(pieces: list[Piece], head: bytes) -> Part:
    """Return a part without a declared length. `head` is its first 42 bytes, all in the first piece."""
    if len(head) < 42:
        return Part("FLAC", tuple(pieces))
    promised = int.from_bytes(head[21:26], "big") & (1 << 36) - 1
    mended = head[:21] + bytes([head[21] & 0xF0]) + bytes(4) + head[26:]
    first = pieces[0]
    assert not isinstance(first, bytes)
    return Part("FLAC", (mended, (first[0] + 42, first[1]), *pieces[1:]), promised=promised or None)


# ── Ogg ──────────────────────────────────────────────────────────────────────

_CODECS = {b"\x01vorbis": "Vorbis", b"OpusHead": "Opus", b"\x7fFLAC": "FLAC in Ogg", b"Speex   ": "Speex"}


@dataclass
class _Stream:
    """The pages of one logical stream: place of each, of its packets, and its end."""

    codec: str | None
    pages: list[tuple[int, int, int]] = field(default_factory=list)
    places: dict[int, tuple[int, int]] = field(default_factory=dict)  # of pages, by their number
    damaged: set[int] = field(default_factory=set)
    expected: int = 0
    begun: bool = False  # with sound, behind the headers
    ended: bool = False


def ogg(data: Data, start: int) -> Contents | Foreign:
    """Part a chain into its links, and take the first sound of each; a link begins where a stream begins behind sound."""
    links: list[dict[bytes, _Stream]] = []
    at, holes, twice, torn, sounding = start, 0, 0, False, False
    while (page := data.find(b"OggS\0", at)) >= 0:
        holes += page != at and sounding
        count = data[page + 26] if page + 27 <= len(data) else 255
        lacing = bytes(data[page + 27 : page + 27 + count])
        body = page + 27 + count
        end = body + sum(lacing)
        if len(lacing) < count or end > len(data):
            following = data.find(b"OggS\0", page + 4)
            torn, at = following < 0, max(following, page + 4)
            holes += not torn
            continue
        flags, granule, serial, number = struct.unpack("<BqII", data[page + 5 : page + 22])
        if flags & 2:
            if not links or sounding:
                links.append({})
                sounding = False
            head = bytes(data[body : body + 8])
            codec = next((codec for magic, codec in _CODECS.items() if head.startswith(magic)), None)
            links[-1][serial] = _Stream(codec, expected=number)
        else:
            sounding = True
        stream = links[-1].get(serial) if links else None
        before = stream.places.get(number, (0, 0)) if stream is not None else (0, 0)
        if data[slice(*before)] == data[page:end]:
            twice += 1
        elif stream is not None:
            stream.places[number] = page, end
            holes += stream.begun and number != stream.expected
            stream.expected, stream.begun, stream.ended = number + 1, stream.begun or granule > 0, bool(flags & 4)
            stream.pages.append((page, body, end))
            if _ogg_crc(data[page : page + 22] + bytes(4) + data[page + 26 : end]) != data[page + 22 : page + 26]:
                stream.damaged.add(page)
        at = end
    streams = [next((s for s in link.values() if s.codec), None) for link in links]
    heard = [stream for stream in streams if stream is not None]
    if any(stream.codec == "Speex" for stream in heard):
        return Foreign("Speex", "ogg")
    holes += sum(len(stream.damaged) for stream in heard if len(stream.damaged) < len(stream.pages))
    remarks: tuple[str, ...] = (
        (f"pages are missing or damaged at {counted(holes, 'place')}: what is left is heard",) if holes else ()
    )
    remarks += _copies(twice, "page")
    if any(sum(s.codec is not None for s in link.values()) > 1 for link in links):
        remarks += ("it holds several sounds at the same time: the first is heard",)
    parts = tuple(_ogg_part(data, stream) for stream in heard)
    return Contents(parts, remarks, endless=torn or bool(heard and not heard[-1].ended))


def _ogg_part(data: Data, stream: _Stream) -> Part:
    assert stream.codec is not None
    every = len(stream.damaged) == len(stream.pages)  # by a writer without check sums
    pages = [page for page in stream.pages if every or page[0] not in stream.damaged]
    if stream.codec == "FLAC in Ogg":  # packets are FLAC's own, behind nine bytes in the first
        pieces: list[Piece] = [(body, end) for _, body, end in pages]
        pieces[0] = (pages[0][1] + 9, pages[0][2])
        return replace(_flac_part(pieces, bytes(data[pages[0][1] + 9 : pages[0][2]])), kind=stream.codec, promised=None)
    stretches = tuple(_joined((page, end) for page, _, end in pages))
    if stream.codec != "Vorbis":
        return Part(stream.codec, stretches)
    # Where a file was cut at its start without coding it anew, its granule positions are less than its sound.
    page, _, end = pages[-1]
    last = bytearray(data[page:end])
    last[6:14], last[22:26] = struct.pack("<q", 1 << 40), bytes(4)
    last[22:26] = _ogg_crc(bytes(last))
    rest = stretches[-1]
    assert not isinstance(rest, bytes)
    return Part(stream.codec, (*stretches[:-1], (rest[0], page), bytes(last)), bounded=stretches)


_BACKWARDS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _ogg_crc(page: bytes) -> bytes:
    """Return the check sum of an Ogg page: of 32 bits, polynomial 04C11DB7, from 0, not reflected as zlib's is."""
    return (zlib.crc32(page.translate(_BACKWARDS), 0xFFFFFFFF) ^ 0xFFFFFFFF).to_bytes(4, "little").translate(_BACKWARDS)[::-1]


def _joined(ranges: Iterable[tuple[int, int]]) -> list[Piece]:
    """Join stretches of a file that follow one another."""
    joined: list[tuple[int, int]] = []
    for first, end in ranges:
        if joined and joined[-1][1] == first:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((first, end))
    return list(joined)


# ── MPEG audio ───────────────────────────────────────────────────────────────

_SECOND = bytes(b for b in range(0xE0, 0x100) if b & 0x18 != 0x08 and b & 0x06)
_THIRD = bytes(b for b in range(0x10, 0xF0) if b & 0x0C != 0x0C)
_SYNC = re.compile(rb"\xff[" + re.escape(_SECOND) + rb"][" + re.escape(_THIRD) + rb"]", re.DOTALL)
_FREE = re.compile(rb"\xff[" + re.escape(_SECOND) + rb"][\x00-\x0b]", re.DOTALL)
_KBPS = {  # of MPEG 1, by layer, and of MPEG 2 and 2.5
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


@cache
def _frame_bytes(second: int, third: int) -> int:
    """Return the length of a frame by two bytes of its header; 0 where they are none of a frame's."""
    if second & 0xE0 != 0xE0 or second & 0x18 == 0x08 or not second & 0x06 or third >> 4 in (0, 15) or third & 0x0C == 0x0C:
        return 0
    version, layer = 1 if second & 0x18 == 0x18 else 2, 4 - (second >> 1 & 3)
    rate = (44_100, 48_000, 32_000)[third >> 2 & 3] // {0x18: 1, 0x10: 2, 0x00: 4}[second & 0x18]
    kbps, padding = _KBPS[version, layer][(third >> 4) - 1], third >> 1 & 1
    if layer == 1:
        return 4 * (12_000 * kbps // rate + padding)
    return (72_000 if layer == 3 and version == 2 else 144_000) * kbps // rate + padding


def _key(data: Data, at: int) -> tuple[int, int, bool]:
    """Return what all frames of a part share: version and layer, rate, whether mono."""
    return data[at + 1] & 0x1E, data[at + 2] & 0x0C, data[at + 3] >> 6 == 3


def _is_frame(data: Data, at: int, end: int, more: int) -> bool:
    """Return whether a frame begins at `at` and `more` of its like follow it, as far as the file goes."""
    key = None
    for _ in range(more + 1):
        if at + 4 > end:
            return key is not None
        length = _frame_bytes(data[at + 1], data[at + 2]) if data[at] == 0xFF else 0
        if key is None and at + length > end:
            return False
        if not length or key not in (None, _key(data, at)):
            return key is not None and data[at] != 0 and after_tags(data, at) > at
        key, at = _key(data, at), at + length
    return True


def _next_frame(data: Data, at: int, last: int, end: int) -> int | None:
    """Return where the next frame begins, not behind `last`, that two of its like follow."""
    while (found := _SYNC.search(data, at, min(last, end))) is not None:
        at = found.start()
        if _is_frame(data, at, end, 2):
            return at
        at += 1
    return None


_ADTS = re.compile(rb"\xff[\xf0\xf1\xf8\xf9]")


def is_adts(data: Data, start: int) -> bool:
    """Return whether three frames of AAC follow one another near a place: a stream that was kept from its middle on."""
    for found in _ADTS.finditer(data, start, min(start + _MOST_JUNK_BYTES, len(data))):
        at = found.start()
        for _ in range(3):
            head = bytes(data[at : at + 6])
            if len(head) < 6 or _ADTS.match(head) is None:
                break
            at += max(7, (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5)
        else:
            return True
    return False


@dataclass
class _Frames:
    """Frames of one kind: where they lie, and how many they are."""

    key: tuple[int, int, bool]
    ranges: list[tuple[int, int]] = field(default_factory=list)
    count: int = 0


def mpeg(data: Data, start: int, end: int) -> Contents | None:
    """Find the frames of MPEG audio; a part ends where version, rate or channels change. Junk and tags are left out."""
    at = _next_frame(data, start, start + _MOST_JUNK_BYTES, end)
    if at is None:
        free = _FREE.match(data, start)  # of a free bit rate: libsndfile finds the length of its frames
        return None if free is None else Contents((Part("MP3", ((start, end),)),))
    parts: list[_Frames] = []
    holes = 0
    while at is not None:
        key, begin = _key(data, at), at
        if not parts or parts[-1].key != key:
            parts.append(_Frames(key))
        while at + 4 <= end and data[at] == 0xFF and _key(data, at) == key:
            length = _frame_bytes(data[at + 1], data[at + 2])
            if not length or at + length > end:
                break
            at += length
            parts[-1].count += 1
        parts[-1].ranges.append((begin, at))
        if at + 4 > end or at == begin or (data[at] == 0xFF and _key(data, at) == key and _frame_bytes(*data[at + 1 : at + 3])):
            break  # the end, or half a frame at it
        after = min(after_tags(data, at), end)
        if _is_frame(data, after, end, 1):
            at = after
        else:
            at = _next_frame(data, after, end, end)
            holes += at is not None
    remarks = (f"damaged at {counted(holes, 'place')}: what is left is heard",) if holes else ()
    return Contents(tuple(_mpeg_part(data, frames) for frames in parts), remarks)


def _mpeg_part(data: Data, frames: _Frames) -> Part:
    """Return frames behind a frame that says how many they are, as that of Xing or LAME does: libsndfile would guess."""
    first, count = frames.ranges[0][0], frames.count
    if frames.key[0] & 0x06 != 0x02:  # no layer III; others have a constant bit rate
        return Part("MPEG audio", tuple(_joined(frames.ranges)))
    head = bytes(data[first : first + _frame_bytes(data[first + 1], data[first + 2])])
    at = next((found for name in (b"Xing", b"Info") if (found := head.find(name, 4, 64)) >= 0), -1)
    share, delay, ranges = 1.0, 0, frames.ranges
    if at >= 0 or head[36:40] == b"VBRI":
        count, ranges = count - 1, [(first + len(head), ranges[0][1]), *ranges[1:]]
    size = sum(end - begin for begin, end in ranges)
    flags = head[at + 7] if 0 <= at < len(head) - 16 else 0
    if flags & 1:  # kept, because what LAME writes behind says what to cut off at both ends
        promised = int.from_bytes(head[at + 8 : at + 12], "big")
        share = count / promised if promised > count + 1 else 1.0
        tag = head[: at + 8] + struct.pack(">I", count) + (struct.pack(">I", size + len(head)) if flags & 2 else b"")
        tag += head[len(tag) :]
    else:
        mpeg_1, mono = head[1] & 0x18 == 0x18, frames.key[2]
        side = (17 if mono else 32) if mpeg_1 else (9 if mono else 17)
        thirds = (index << 4 | head[2] & 0x0C for index in range(1, 15))
        third, length = next((t, n) for t in thirds if (n := _frame_bytes(head[1] | 1, t)) >= 4 + side + 16)
        tag = bytes([0xFF, head[1] | 1, third, head[3]]) + bytes(side) + b"Xing" + struct.pack(">III", 3, count, size + length)
        tag, delay = tag.ljust(length, b"\0"), _DECODER_DELAY
    return Part("MP3", (tag, *_joined(ranges)), share, delay=delay)
