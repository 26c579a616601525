"""The container under a partner file: a manifest, arrays and recordings in one zip archive that is safe to read.

Conventions
-----------
The members of the archive are stored, not compressed, one after the other: ``manifest.json``, then the others sorted by
name. The manifest is an object of four keys: ``format``, which is "musichal-partner"; ``version``, which grows when an old
reader would misread the file; ``members``, the size and SHA-256 of every other member; ``content``, plain JSON of the
caller. Members are safetensors under ``arrays/`` and FLAC under ``recordings/``, and nothing else.

Any zip tool can open the file. The reader uses nothing of the zip format but the first header: the manifest determines
where each member is, and how long the file must be. So no trick with zip records can reach it, and no size is believed that
the file does not have. Each member is read once and checked against its SHA-256. No code from the file runs.
"""

import hashlib
import json
import re
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError

from musichal.arrays import AnyArray
from musichal.atomic import open_atomically
from musichal.errors import InputError, PartnerFileError
from musichal.text import PathLike, parse_json, printable, reason

FORMAT = "musichal-partner"
FORMAT_VERSION = 3
OLDEST_VERSION = 1
"""Files from this version on are read; what they lack is for the caller to say."""
MANIFEST = "manifest.json"
MAX_ARCHIVE_BYTES = 1 << 44
MAX_MANIFEST_BYTES = 1 << 26
MAX_MEMBERS = 1 << 18
_MAX_DEPTH = 32
_MEMBER_NAME = re.compile(r"arrays/[a-z0-9_-]{1,64}\.safetensors|recordings/[a-z0-9_-]{1,64}\.flac")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LOCAL_HEADER_BYTES, _DIRECTORY_ENTRY_BYTES, _END_BYTES, _END64_BYTES = 30, 46, 22, 76
_BLOCK_BYTES = 1 << 20
_ARRAY_TYPES = {
    **{"uint64": "U64", "int64": "I64", "float64": "F64", "float32": "F32", "uint32": "U32", "int32": "I32"},
    **{"float16": "F16", "uint16": "U16", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL"},
}
"""How safetensors calls the types of arrays, in the order in which it stores them."""
_LONGEST_TEXT = 4096
Layout = Mapping[str, tuple[type[np.generic], int]]
"""Type and number of dimensions of arrays, by name."""


class _RefusedError(Exception):
    """Why a file is refused, as a phrase that follows its name."""


@dataclass(frozen=True)
class Member:
    """Where a member is in the file, and what its bytes must be."""

    offset: int
    size: int
    sha256: str


@dataclass(frozen=True)
class Blob:
    """A member that stays in its file until it is read; those with the same content are equal."""

    path: Path = field(compare=False)
    name: str
    sha256: str

    def read(self) -> bytes:
        """Return its bytes; raises `PartnerFileError` where the file no longer holds them."""
        return b"".join(self.blocks())

    def blocks(self) -> Iterator[bytes]:
        """Yield its bytes block by block; raises as `read` does, at the end where they do not match their digest."""
        container = read_container(self.path)
        with _one_line(self.path):
            if self.name not in container.members or container.members[self.name].sha256 != self.sha256:
                raise _RefusedError("was changed since it was opened")
        yield from container.blocks(self.name)


Data = bytes | Path | Blob | Callable[[], Mapping[str, AnyArray]]
"""What a member is made of: bytes, a file, a member of another container, or arrays that are made when they are written."""


def as_bytes(data: bytes | Blob) -> bytes:
    """Return the bytes of a member, wherever they lie; raises `PartnerFileError`."""
    return data if isinstance(data, bytes) else data.read()


@dataclass(frozen=True)
class Container:
    """An open container: its format version, its content, and where its members are."""

    path: Path
    version: int
    content: dict[str, Any]
    members: Mapping[str, Member]
    digest: str
    """The SHA-256 of the manifest, and so of all that it names."""

    def check(self, name: str) -> None:
        """Raise `PartnerFileError` where a member does not match its digest; nothing of it is kept."""
        deque(self.blocks(name), maxlen=0)

    def read(self, name: str) -> bytes:
        """Return the bytes of a member; raises `PartnerFileError` where they do not match their digest."""
        return b"".join(self.blocks(name, block_bytes=MAX_ARCHIVE_BYTES))

    def blocks(self, name: str, *, block_bytes: int = _BLOCK_BYTES) -> Iterator[bytes]:
        """Yield the bytes of a member; raises `PartnerFileError`, at the end where they do not match their digest."""
        with _one_line(self.path):
            if name not in self.members:
                raise _RefusedError(f"lacks its member {name}")
            digest, left = hashlib.sha256(), self.members[name].size
            with self.path.open("rb") as stream:
                stream.seek(self.members[name].offset)
                while left and (block := stream.read(min(left, block_bytes))):
                    digest.update(block)
                    left -= len(block)
                    yield block
            if digest.hexdigest() != self.members[name].sha256:
                raise _RefusedError(f"is damaged: its member {name} does not match its digest")

    def blob(self, name: str) -> Blob | None:
        """Return a member without reading it, if there is one."""
        return Blob(self.path, name, self.members[name].sha256) if name in self.members else None

    def read_arrays(self, name: str) -> dict[str, AnyArray]:
        """Return the arrays of a member that `pack_arrays` made; raises `PartnerFileError`."""
        data = self.read(name)
        with _one_line(self.path):
            try:
                return safetensors.numpy.load(data)
            except (SafetensorError, ValueError, TypeError, KeyError, OverflowError) as error:
                raise _RefusedError(f"is damaged: {name} holds no arrays") from error


def write_container(path: PathLike, *, content: Mapping[str, Any], members: Mapping[str, Data]) -> None:
    """Write a container, whole or not at all; equal arguments give equal bytes, in any order.

    Raises `InputError` where the path cannot be written, or the container would be larger than a reader accepts: 16 TB, 262,144
    members, or a manifest of 64 MB; `ValueError` or `TypeError` where a name or the content is not what a container can store.

    * `path`: An old file there is replaced.
    * `content`: Plain JSON values: dict with text keys, list, str, int, finite float, bool, None.
    * `members`: ``arrays/NAME.safetensors`` and ``recordings/NAME.flac``, NAME of a-z, 0-9, ``_`` and ``-``; what lies in
      files is copied block by block. Functions are called twice, for the digest and for the bytes.
    """
    for name in members:
        if not _MEMBER_NAME.fullmatch(name):
            raise ValueError(f"member name {name!r} is not allowed in a partner file")
    names = sorted(members)
    table = {name: _described(members[name]) for name in names}
    manifest = {"format": FORMAT, "version": FORMAT_VERSION, "members": table, "content": dict(content)}
    text = json.dumps(manifest, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    for amount, most, what in (
        (_archive_bytes(len(text), {name: table[name]["size"] for name in names}), MAX_ARCHIVE_BYTES, "bytes"),
        (len(names), MAX_MEMBERS, "members"),
        (len(text), MAX_MANIFEST_BYTES, "bytes of manifest"),
    ):
        if amount > most:
            raise InputError(
                f"cannot write {printable(path)}: a partner file holds at most {most} {what}, and this needs {amount}; "
                "train on fewer recordings or leave their sound out"
            )
    if parse_json(text, max_depth=_MAX_DEPTH) != manifest:
        raise ValueError("content must be plain JSON values: dict with text keys, list, str, int, finite float, bool, None")
    with open_atomically(path) as stream, zipfile.ZipFile(stream, "w") as archive:
        for name in (MANIFEST, *names):
            info = zipfile.ZipInfo(name)  # dated 1980
            info.create_system, info.external_attr = 3, 0o100644 << 16
            info.file_size = len(text) if name == MANIFEST else table[name]["size"]
            with archive.open(info, "w") as target:
                for block in _blocks(text if name == MANIFEST else members[name]):
                    target.write(block)


def _blocks(data: Data) -> Iterator[bytes | memoryview]:
    if isinstance(data, Path):
        with data.open("rb") as stream:
            yield from iter(lambda: stream.read(_BLOCK_BYTES), b"")
    elif isinstance(data, bytes):
        yield data
    else:
        yield from data.blocks() if isinstance(data, Blob) else _packed(data())


def _described(data: Data) -> dict[str, Any]:
    if isinstance(data, Blob):
        return {"size": read_container(data.path).members[data.name].size, "sha256": data.sha256}
    digest, size = hashlib.sha256(), 0
    for block in _blocks(data):
        digest.update(block)
        size += len(block)
    return {"size": size, "sha256": digest.hexdigest()}


def read_container(path: PathLike) -> Container:
    """Open a container; raises `PartnerFileError`, one line naming the file, where it is damaged or no container."""
    file = Path(path)
    with _one_line(file):
        if file.is_dir():
            raise _RefusedError("is a folder, not a partner file")
        if file.exists() and not file.is_file():
            raise _RefusedError("is not an ordinary file")
        with file.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(0)
            head = stream.read(_LOCAL_HEADER_BYTES + len(MANIFEST))
            if size == 0:
                raise _RefusedError("is empty")
            if head[:4] != b"PK\3\4" or head[_LOCAL_HEADER_BYTES:] != MANIFEST.encode() or any(head[6:10]):
                raise _RefusedError(f"is not a partner file: it does not begin with its {MANIFEST}")
            length = int.from_bytes(head[22:26], "little")
            if length > MAX_MANIFEST_BYTES:
                raise _RefusedError(f"is not a partner file: its {MANIFEST} is larger than {MAX_MANIFEST_BYTES} bytes")
            text = stream.read(length)
        if len(text) < length:
            raise _RefusedError("is cut short")
        if zlib.crc32(text) != int.from_bytes(head[14:18], "little"):
            raise _RefusedError(f"is damaged: its {MANIFEST} was changed")
        manifest = _checked_manifest(text)
        table: dict[str, dict[str, Any]] = manifest["members"]
        if _archive_bytes(length, {name: described["size"] for name, described in table.items()}) != size:
            raise _RefusedError("is cut short, or something was added to it")
        members, position = {}, len(head) + length
        for name in sorted(table):
            position += _header_bytes(name, table[name]["size"])
            members[name] = Member(position, table[name]["size"], table[name]["sha256"])
            position += table[name]["size"]
        return Container(file, manifest["version"], manifest["content"], members, hashlib.sha256(text).hexdigest())


def pack_arrays(arrays: Mapping[str, AnyArray]) -> bytes:
    """Return arrays as safetensors; equal arrays give equal bytes, in any order and memory layout.

    Booleans, integers and floats of 16 to 64 bits. Raises `ValueError` for other types and unprintable names.
    """
    return b"".join(_packed(arrays))


def _packed(arrays: Mapping[str, AnyArray]) -> Iterator[bytes | memoryview]:
    """Yield the bytes that `safetensors.numpy.save` returns, without a copy of the arrays."""
    for name, array in arrays.items():
        if array.dtype.name not in _ARRAY_TYPES:
            raise ValueError(f"array {name!r} has type {array.dtype}, which cannot be stored")
        if not name or not name.isprintable() or name == "__metadata__":
            raise ValueError(f"{name!r} is not a name for an array")
    order = [*_ARRAY_TYPES]
    names = sorted(arrays, key=lambda name: (order.index(arrays[name].dtype.name), name))
    table, end = {}, 0
    for name in names:
        first, end = end, end + arrays[name].nbytes
        described = {"dtype": _ARRAY_TYPES[arrays[name].dtype.name], "shape": arrays[name].shape, "data_offsets": (first, end)}
        table[name] = described
    text = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in names:
        plain = np.asarray(arrays[name], dtype=arrays[name].dtype.newbyteorder("<"), order="C")
        yield plain.reshape(-1).view(np.uint8).data


def _header_bytes(name: str, size: int) -> int:
    """Return the length of the header before a member, as `zipfile` writes it: longer for large ones (zip64)."""
    return _LOCAL_HEADER_BYTES + len(name) + (20 if size * 1.05 > zipfile.ZIP64_LIMIT else 0)


def _archive_bytes(manifest_bytes: int, sizes: Mapping[str, int]) -> int:
    """Return the size of an archive of a manifest and members with these names and sizes."""
    position = directory = 0
    for name, size in ((MANIFEST, manifest_bytes), *sorted(sizes.items())):
        large = (16 if size > zipfile.ZIP64_LIMIT else 0) + (8 if position > zipfile.ZIP64_LIMIT else 0)
        directory += _DIRECTORY_ENTRY_BYTES + len(name) + large + (4 if large else 0)
        position += _header_bytes(name, size) + size
    is_large = max(position, directory) > zipfile.ZIP64_LIMIT or len(sizes) + 1 > zipfile.ZIP_FILECOUNT_LIMIT
    return position + directory + _END_BYTES + (_END64_BYTES if is_large else 0)


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Turn what reading a file may raise into one line that names it."""
    try:
        yield
    except _RefusedError as error:
        raise PartnerFileError(f"{printable(path)} {error}") from error
    except OSError as error:
        raise PartnerFileError(f"{printable(path)} cannot be read: {reason(error)}") from error


def _checked_manifest(text: bytes) -> dict[str, Any]:
    try:
        manifest = parse_json(text, max_depth=_MAX_DEPTH)
    except ValueError as error:
        raise _RefusedError("is damaged: its manifest is not valid JSON") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise _RefusedError("is not a partner file")
    version = manifest.get("version")
    if type(version) is not int or version < 0:
        raise _RefusedError("is damaged: its manifest names no version")
    if version > FORMAT_VERSION:
        raise _RefusedError(
            f"was made by a newer MusicHal (format {version}, this one reads up to {FORMAT_VERSION}): upgrade MusicHal"
        )
    if version < OLDEST_VERSION:
        raise _RefusedError(f"was made by an older MusicHal (format {version}) that this one cannot read: train it again")
    if set(manifest) != {"format", "version", "members", "content"} or not isinstance(manifest["content"], dict):
        raise _RefusedError("is damaged: its manifest lacks required fields")
    table = manifest["members"]
    if not isinstance(table, dict) or len(table) > MAX_MEMBERS or not all(map(_MEMBER_NAME.fullmatch, table)):
        raise _RefusedError("is damaged: its manifest lists members that do not belong into a partner file")
    for name, described in table.items():
        if (
            not isinstance(described, dict)
            or set(described) != {"size", "sha256"}
            or type(described["size"]) is not int
            or described["size"] < 0
            or not isinstance(described["sha256"], str)
            or not _SHA256.fullmatch(described["sha256"])
        ):
            raise _RefusedError(f"is damaged: its manifest describes {name} wrongly")
    return manifest


def safe_text(value: Any) -> str:
    """Return a text that is safe to print: no control characters, not too long; raises `InputError` for another."""
    require(isinstance(value, str) and value == printable(value) and len(value) <= _LONGEST_TEXT, "it has an improper text")
    return value


def require(condition: bool, message: str) -> None:
    """Raise `InputError` unless a condition holds."""
    if not condition:
        raise InputError(message)


def require_range(values: npt.ArrayLike, low: float, high: float, what: str, *, rising: bool = False) -> None:
    """Raise `InputError` unless values lie in a range, which NaN does not, and if `rising` each is above the one before it."""
    found = np.asarray(values)
    wrong = found[~((found >= low) & (found <= high))]
    if wrong.size:
        raise InputError(f"{what} must be in [{low:g}, {high:g}], got {wrong[0]:g}")
    if rising and (falls := np.flatnonzero(np.diff(found) <= 0)).size:
        raise InputError(f"{what} must rise, got {found[falls[0] :][:2].tolist()}")
