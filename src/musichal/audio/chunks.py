"""Containers of chunks (WAV, RF64, BW64, Wave64, AIFF, CAF) and AU: where the sound is, and a header that says so."""

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

from musichal.audio.flac_frames import Data
from musichal.audio.streams import NOT_ZERO, Contents, Part, Piece, mpeg

_MOST_CHUNKS = 10_000  # a hostile file of empty chunks must not keep us for hours
_MOST_BEHIND_BYTES = 1 << 16
_4_GIB = 1 << 32
_UNSTOPPED = "its header says that it has no sound, as when a recorder loses power: all that lies behind is heard"


@dataclass(frozen=True)
class Chunks:
    """How a container lays out its chunks; `before_sound` bytes of the sound's are none."""

    kind: str
    data_id: bytes
    first: int
    size_format: str
    size_includes_header: bool = False
    alignment: int = 2
    before_sound: int = 0
    needed: tuple[bytes, ...] = ()
    """Beginnings of the names of what says how the sound is to be read."""


@dataclass(frozen=True)
class _Sound:
    """The chunk with the sound: where its size is, where it begins and ends, what the header says, and what that means."""

    field: int
    start: int
    end: int
    declared: int
    share: float = 1.0
    remark: str | None = None

    @property
    def wrong(self) -> bool:
        """Whether the header gives another size."""
        return self.declared != self.end - self.start


def _walk(data: Data, start: int, chunks: Chunks) -> Iterator[tuple[bytes, int, int, bool]]:
    """Yield identifier, place and declared size of the content of each chunk, up to the sound's, and whether all are padded.

    Where a size cannot be, what follows is found by the sound's identifier.
    """
    id_bytes, at, tidy = len(chunks.data_id), start + chunks.first, True
    header = id_bytes + struct.calcsize(chunks.size_format)
    for _ in range(_MOST_CHUNKS):
        if at + header > len(data):
            return
        name = bytes(data[at : at + id_bytes])
        (size,) = struct.unpack(chunks.size_format, data[at + id_bytes : at + header])
        size = max(0, size - header) if chunks.size_includes_header and size else size
        yield name, at + header, size, tidy
        if name == chunks.data_id:
            return
        end = at + header + size
        padded = at + max(header, -(-(header + size) // chunks.alignment) * chunks.alignment)
        # Some programs leave the padding out.
        if chunks.alignment == 2 and end < padded and _is_name(data, end) and not _is_name(data, padded):
            at, tidy = end, False
        elif end > len(data) and (sound := data.find(chunks.data_id, at + header)) >= 0:
            at, tidy = sound, False
        else:
            at = padded


def _is_name(data: Data, at: int) -> bool:
    return len(name := bytes(data[at : at + 4])) == 4 and all(32 <= byte < 127 for byte in name)


def _is_placeholder(size: int, width: int) -> bool:
    """Return whether a size is what programs write that cannot go back: all ones, the highest number, or near it."""
    highest = _4_GIB - (1 << 16) <= size < _4_GIB or (1 << 31) - (1 << 16) <= size <= (1 << 31) + (1 << 16)
    return highest or (width == 8 and size >= 1 << 40)


def _sound(data: Data, start: int, declared: int, *, width: int, before_sound: int = 0) -> _Sound:
    """Return the chunk that begins at `start` as the file has it."""
    place, there = start - width, len(data) - start
    if declared <= before_sound:
        empty = there < 8 + before_sound or _only_chunks(data, start + declared)
        return _Sound(place, start, start if empty else len(data), 0, remark=None if empty else _UNSTOPPED)
    if width == 4 and there - declared >= _4_GIB - (1 << 16):  # sizes of 32 bits start anew at 4 GiB
        return _Sound(place, start, len(data), declared)
    if declared <= there:
        return _Sound(place, start, start + declared, declared, remark=_behind(data, start + declared))
    share = 1.0 if _is_placeholder(declared, width) else there / declared
    return _Sound(place, start, len(data), declared, share)


def _only_chunks(data: Data, at: int) -> bool:
    """Return whether nothing but whole RIFF chunks follows."""
    for _ in range(_MOST_CHUNKS):
        if at + 8 > len(data):
            return at >= len(data)
        if not bytes(data[at : at + 4]).isascii() or not bytes(data[at : at + 4]).isalnum():
            return False
        for order in ("<I", ">I"):
            (size,) = struct.unpack(order, data[at + 4 : at + 8])
            if at + 8 + size <= len(data):
                break
        at += 8 + size + size % 2
    return False


def _behind(data: Data, at: int) -> str | None:
    """Return a sentence where more sound, or something long that is no chunk, follows the end that the header gives."""
    name = bytes(data[at + at % 2 : at + at % 2 + 4])
    if name in (b"data", b"SSND"):
        return "has sound in a second chunk, which is not heard"
    if name in (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM", b"caff", b"riff", b".snd"):
        return "another recording lies behind its end, and is not heard"
    tidy = _is_name(data, at + at % 2)
    found = None if tidy or len(data) - at < _MOST_BEHIND_BYTES else NOT_ZERO.search(data, at)
    return None if found is None else "more lies behind the end that its header gives, and is not heard"


def chunked(data: Data, start: int, chunks: Chunks) -> Contents:
    """Find the sound of AIFF, Wave64 and CAF, and mend its size."""
    width = struct.calcsize(chunks.size_format)
    needed: list[Piece] = []
    for name, at, size, tidy in _walk(data, start, chunks):
        if name != chunks.data_id:
            if name.startswith(chunks.needed) and at + size <= len(data):
                needed += [(at - width - len(name), at + size), bytes(-size % chunks.alignment)]
            continue
        sound = _sound(data, at, size, width=width, before_sound=chunks.before_sound)
        if sound.wrong and (table := _packet_table(data, at)) is not None:
            sound = replace(sound, end=table, share=1.0)
        pieces: tuple[Piece, ...] = ((start, len(data)),)
        if sound.wrong or not tidy:
            header = width + len(chunks.data_id) if chunks.size_includes_header else 0
            mended = struct.pack(chunks.size_format, min(sound.end - sound.start + header, (1 << 8 * width) - 1))
            before: tuple[Piece, ...] = ((start, sound.field),)
            if not tidy:
                before = ((start, start + chunks.first), *needed, chunks.data_id)
            pieces = (*before, mended, (sound.start, len(data)))
        return _of(Part(chunks.kind, pieces, sound.share), sound)
    return Contents(())


def _packet_table(data: Data, start: int) -> int | None:
    """Return where CAF's table of packets begins behind the sound, if it is the last chunk of the file."""
    at = data.rfind(b"pakt", start)
    return at if at >= 0 and data[at + 4 : at + 12] == struct.pack(">Q", len(data) - at - 12) else None


def _of(part: Part, sound: _Sound) -> Contents:
    return Contents((part,) if sound.end > sound.start else (), tuple(filter(None, [sound.remark])))


def riff(data: Data, start: int) -> Contents | None:
    """Find the sound of WAV, RF64 and BW64; a header that is wrong or too small for it is written anew, as RF64 if need be."""
    kind = bytes(data[start : start + 4])
    order = ">" if kind == b"RIFX" else "<"
    long_size, tag, form = None, 0, (start, start)
    chunks = Chunks("WAV", b"data", 12, f"{order}I")
    for name, at, size, tidy in _walk(data, start, chunks):
        if name == b"ds64" and len(data) >= at + 16:  # the sizes of the file and of the sound, in 64 bits
            (long_size,) = struct.unpack("<Q", data[at + 8 : at + 16])
        elif name == b"fmt " and len(data) >= at + 2:
            (tag,) = struct.unpack(f"{order}H", data[at : at + 2])
            form = (at - 8, at + size)
        elif name == b"data":
            if long_size is not None and size >= _4_GIB - 1:
                sound = replace(_sound(data, at, long_size, width=8), field=at - 4)
            else:
                sound = _sound(data, at, size, width=4)
            if tag in (0x50, 0x55):  # MPEG audio in WAV
                return mpeg(data, sound.start, sound.end)
            length = sound.end - sound.start
            pieces: tuple[Piece, ...] = ((start, len(data)),)
            if length >= _4_GIB - 1 or kind == b"BW64" or long_size not in (None, length):
                sizes = struct.pack("<IQQQI", 28, len(data) - start + 36, length, 0, 0)
                pieces = (b"RF64\xff\xff\xff\xffWAVEds64" + sizes, *_without(data, start, chunks), b"data\xff\xff\xff\xff")
                pieces += ((sound.start, sound.end),)
            elif not tidy or (sound.wrong and long_size is None):
                before: tuple[Piece, ...] = ((start, at - 8),) if tidy else ((start, start + 12), form)
                pieces = (*before, b"data" + struct.pack(f"{order}I", length), (sound.start, len(data)))
            return _of(Part("WAV", pieces, sound.share), sound)
    return Contents(())


def _without(data: Data, start: int, chunks: Chunks) -> list[Piece]:
    """Return the chunks before the sound, without the one of 64-bit sizes."""
    walked = [(name, at - 8, at + size + size % 2) for name, at, size, _ in _walk(data, start, chunks)]
    return [(first, end) for name, first, end in walked if name not in (b"ds64", b"data") and end <= len(data)]


def au(data: Data, start: int) -> Contents:
    """Find the sound of AU, whose header has its offset and its size."""
    order = "<" if data[start] == ord("d") else ">"
    offset, size = struct.unpack(f"{order}II", bytes(data[start + 4 : start + 12]).ljust(8, b"\0"))
    sound = _sound(data, start + offset, size, width=4)
    pieces: tuple[Piece, ...] = ((start, len(data)),)
    if sound.wrong:
        pieces = ((start, start + 8), b"\xff" * 4, (start + 12, len(data)))
    return _of(Part("AU", pieces, sound.share), sound)


def of_old(kind: str, data: Data, start: int) -> Contents:
    """Return a file whose header is believed, and how much is there of what it promises where it promises anything."""
    head, there = bytes(data[start : start + 1024]), len(data) - start
    whole = there
    if kind == "8SVX" and there >= 8:
        whole = 8 + int.from_bytes(head[4:8], "big")
    elif kind == "AVR":
        channels, size = (2 if head[12:14] == b"\xff\xff" else 1), int.from_bytes(head[14:16], "big") // 8
        whole = 128 + int.from_bytes(head[26:30], "big") * channels * max(1, size)
    elif kind == "NIST":
        names = (b"sample_count", b"channel_count", b"sample_n_bytes")
        found = [re.search(name + rb" -i (\d{1,15})", head) for name in names]
        whole = len(head) + math.prod(int(match[1]) if match else 1 for match in found)
    elif kind == "VOC":
        at = int.from_bytes(head[20:22], "little")
        while 0 < at < there and data[start + at]:
            at += 4 + int.from_bytes(bytes(data[start + at + 1 : start + at + 4]), "little")
        whole = at
    return Contents((Part(kind, ((start, len(data)),), min(1.0, there / max(1, whole))),))
