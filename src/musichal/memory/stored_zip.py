"""A zip archive with one possible form: members stored, in order, nothing between, before or behind them.

The format is a strict part of PKWARE's APPNOTE 6.3: no compression, no encryption, no comments, no extra fields, no zip64,
a fixed date. So equal members make equal bytes, any zip tool can open the result, and the reader does not have to
understand what a stranger may have put into an archive: whatever differs from what the writer would have written is
refused. Entries that overlap, point outside the file, or unpack to more than the file holds cannot be expressed.
"""

import os
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_NEEDED, _MADE_BY = 20, 0x0314  # version 2.0; made on Unix by 2.0
_DATE = 0x21  # 1 January 1980, the first day of zip
_FILE_MODE = 0o100644 << 16
_MAX_NAME_BYTES = 255
MAX_ARCHIVE_BYTES = 0xFFFFFFFE
"""Larger archives would need zip64."""


class ArchiveError(ValueError):
    """Why an archive is refused, as a phrase that follows the name of its file."""


@dataclass(frozen=True)
class StoredEntry:
    """A member: its name, where its bytes start in the file, how many they are, and their CRC-32."""

    name: str
    offset: int
    size: int
    crc: int


def archive_size(members: Iterable[tuple[str, int]]) -> int:
    """Return the size in bytes of an archive of members with these names and sizes."""
    return _END.size + sum(_LOCAL.size + _CENTRAL.size + 2 * len(name) + size for name, size in members)


def write_stored_zip(stream: BinaryIO, members: Iterable[tuple[str, bytes]]) -> None:
    """Write `members`, (name, bytes) in this order, to a stream that stands at its start; names are ASCII."""
    position, directory, count = 0, b"", 0
    for name, data in members:
        entry = StoredEntry(name, position + _LOCAL.size + len(name), len(data), zlib.crc32(data))
        stream.write(_local_header(entry))
        stream.write(data)
        directory += _central_header(entry, position)
        position = entry.offset + entry.size
        count += 1
    stream.write(directory)
    stream.write(_end_record(count, len(directory), position))


def read_first_entry(stream: BinaryIO, *, name: str, max_bytes: int) -> bytes:
    """Return the bytes of the first member, which must be `name`, without a look at the rest of the archive."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    header = stream.read(_LOCAL.size + len(name))
    if size == 0:
        raise ArchiveError("is empty")
    if len(header) < _LOCAL.size + len(name) or header[:4] != b"PK\3\4" or header[_LOCAL.size :] != name.encode():
        raise ArchiveError(f"is not a partner file: it does not begin with its {name}")
    _, _, flags, method, _, _, crc, _, length, _, _ = _LOCAL.unpack(header[: _LOCAL.size])
    _check_plain(name, flags, method)
    entry = StoredEntry(name, len(header), length, crc)
    if length > max_bytes:
        raise ArchiveError(f"{name} is too large ({length} bytes, at most {max_bytes} are read)")
    return read_entry(stream, entry)


def read_directory(stream: BinaryIO, *, max_entries: int) -> list[StoredEntry]:
    """Return the members of an archive, each byte of which is accounted for; raises `ArchiveError` otherwise."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - _END.size))
    end = stream.read(_END.size)
    if len(end) < _END.size or end[:4] != b"PK\5\6":
        raise ArchiveError("is cut short, or something was added to it")
    _, _, _, _, count, directory_size, directory_start, _ = _END.unpack(end)
    if end != _end_record(count, directory_size, directory_start):
        raise ArchiveError("is damaged")
    if count > max_entries:
        raise ArchiveError(f"has too many members ({count}, at most {max_entries} are read)")
    if directory_start + directory_size != size - _END.size or directory_size > count * (_CENTRAL.size + _MAX_NAME_BYTES):
        raise ArchiveError("is cut short or damaged")
    stream.seek(directory_start)
    directory = stream.read(directory_size)
    entries: list[StoredEntry] = []
    position = at = 0
    for _ in range(count):
        entry, used = _read_central(directory[at : at + _CENTRAL.size + _MAX_NAME_BYTES], position)
        stream.seek(position)
        if stream.read(entry.offset - position) != _local_header(entry):
            raise ArchiveError(f"is damaged: its member {entry.name} is not where it should be")
        entries.append(entry)
        at += used
        position = entry.offset + entry.size
    if at != directory_size or position != directory_start:
        raise ArchiveError("is damaged: it holds bytes that belong to no member")
    if len({entry.name for entry in entries}) < count:
        raise ArchiveError("has two members of one name")
    return entries


def read_entry(stream: BinaryIO, entry: StoredEntry) -> bytes:
    """Return the bytes of a member; raises `ArchiveError` where they are not those that were written."""
    stream.seek(entry.offset)
    data = stream.read(entry.size)
    if len(data) < entry.size:
        raise ArchiveError("is cut short")
    if zlib.crc32(data) != entry.crc:
        raise ArchiveError(f"is damaged: its member {entry.name} was changed")
    return data


def _read_central(record: bytes, position: int) -> tuple[StoredEntry, int]:
    """Parse the directory's record of the member that starts at `position`; return it and the record's length."""
    if len(record) < _CENTRAL.size or record[:4] != b"PK\1\2":
        raise ArchiveError("is damaged: its directory does not list its members")
    (_, _, _, flags, method, _, _, crc, _, size, name_bytes, *_) = _CENTRAL.unpack(record[: _CENTRAL.size])
    used = _CENTRAL.size + name_bytes
    try:
        name = record[_CENTRAL.size : used].decode("ascii")
    except UnicodeDecodeError:
        name = ""
    if not name or not name.isprintable() or len(name) != name_bytes:
        raise ArchiveError("has a member with a name that is not allowed")
    _check_plain(name, flags, method)
    entry = StoredEntry(name, position + _LOCAL.size + name_bytes, size, crc)
    if record[:used] != _central_header(entry, position):
        raise ArchiveError(f"has a member, {name}, that MusicHal did not write")
    return entry, used


def _check_plain(name: str, flags: int, method: int) -> None:
    if flags & 1:
        raise ArchiveError(f"has an encrypted member, {name}")
    if method != 0:
        raise ArchiveError(f"has a compressed member, {name}")


def _local_header(entry: StoredEntry) -> bytes:
    name = entry.name.encode("ascii")
    fixed = _LOCAL.pack(b"PK\3\4", _NEEDED, 0, 0, 0, _DATE, entry.crc, entry.size, entry.size, len(name), 0)
    return fixed + name


def _central_header(entry: StoredEntry, start: int) -> bytes:
    name = entry.name.encode("ascii")
    sizes = (entry.crc, entry.size, entry.size, len(name))
    return _CENTRAL.pack(b"PK\1\2", _MADE_BY, _NEEDED, 0, 0, 0, _DATE, *sizes, 0, 0, 0, 0, _FILE_MODE, start) + name


def _end_record(count: int, directory_size: int, directory_start: int) -> bytes:
    return _END.pack(b"PK\5\6", 0, 0, count, count, directory_size, directory_start, 0)
