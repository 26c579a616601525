"""The container under a partner file: a manifest, arrays and recordings in one file that cannot do harm.

Conventions
-----------
A container is an archive (`stored_zip`) whose first member is ``manifest.json``, an object of four keys: ``format``, which
is "musichal-partner"; ``version``, a number that grows when an old reader would misread the file; ``members``, the size and
SHA-256 of every other member; ``content``, plain JSON that belongs to the caller. Members are safetensors under
``arrays/`` and FLAC under ``recordings/``, and nothing else.

Reading runs no code from the file, and takes no more memory than the file's size and a bounded manifest. Every byte is
checked: the manifest and the archive's own records when the container is opened, a member when it is read.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from musichal.arrays import AnyArray
from musichal.atomic import open_atomically
from musichal.errors import InputError, PartnerFileError
from musichal.memory.stored_zip import (
    MAX_ARCHIVE_BYTES,
    ArchiveError,
    StoredEntry,
    archive_size,
    read_directory,
    read_entry,
    read_first_entry,
    write_stored_zip,
)
from musichal.text import PathLike, printable, reason

FORMAT = "musichal-partner"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
_MEMBER_NAME = re.compile(r"arrays/[a-z0-9_-]{1,64}\.safetensors|recordings/[a-z0-9_-]{1,64}\.flac")
_MANIFEST_KEYS = {"format", "version", "members", "content"}
_SHA256 = re.compile(r"[0-9a-f]{64}")
_JSON_PARTS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)
_ARRAY_TYPES = frozenset(("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"))
_ARRAY_TYPES |= frozenset(("float16", "float32", "float64"))
_MAX_ARRAY_HEADER_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much a reader is willing to look at. Members are bounded by the size of the file itself."""

    max_manifest_bytes: int = 1 << 20
    max_members: int = 4096
    max_depth: int = 32


@dataclass(frozen=True)
class Container:
    """An open container: its content, and its members, each read from the file and checked when it is asked for.

    `members` maps a name to a function that returns the member's bytes or raises `PartnerFileError`.
    """

    path: Path
    content: dict[str, Any]
    members: Mapping[str, Callable[[], bytes]]

    def read(self, name: str) -> bytes:
        """Return the bytes of a member, checked against their digest; `PartnerFileError` where they are not whole."""
        if name not in self.members:
            raise _refused(self.path, f"lacks its member {name}")
        return self.members[name]()

    def read_arrays(self, name: str) -> dict[str, AnyArray]:
        """Return the arrays of a member that `pack_arrays` made, read-only."""
        try:
            return unpack_arrays(self.read(name))
        except ArchiveError as error:
            raise _refused(self.path, f"{error} (in {name})") from error

    def check(self) -> None:
        """Read every member once, so that damage shows now; raises `PartnerFileError`."""
        for name in self.members:
            self.read(name)


Migration = Callable[[Container], Container]
"""Takes a container of one version to the next; it sees the members and may replace them."""

MIGRATIONS: Mapping[int, Migration] = MappingProxyType({})
"""From version n to n + 1. Version 1 is the first, so there is none yet."""


def write_container(path: PathLike, *, content: Mapping[str, Any], members: Mapping[str, bytes]) -> None:
    """Write a container, whole or not at all; equal arguments make equal bytes, in whatever order they come.

    Parameters
    ----------
    path
        An old file there is replaced.
    content
        Plain JSON values: dict with text keys, list, str, int, finite float, bool, None.
    members
        ``arrays/NAME.safetensors`` and ``recordings/NAME.flac``, NAME of a-z, 0-9, ``_`` and ``-``.

    Raises
    ------
    InputError
        The path cannot be written, or the container would be larger than a reader accepts: 4 GB, 4096 members (the
        manifest is one), or a manifest of 1 MB.
    ValueError, TypeError
        A name or the content is not what a container can store.
    """
    for name in members:
        if not _MEMBER_NAME.fullmatch(name):
            raise ValueError(f"a partner file has no place for a member {name!r}")
    names = sorted(members)
    table = {name: {"size": len(members[name]), "sha256": hashlib.sha256(members[name]).hexdigest()} for name in names}
    manifest = {"format": FORMAT, "version": FORMAT_VERSION, "members": table, "content": dict(content)}
    text = json.dumps(manifest, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    limits = Limits()
    size = archive_size([(MANIFEST, len(text)), *((name, len(members[name])) for name in names)])
    for amount, most, what in (
        (size, MAX_ARCHIVE_BYTES, "bytes"),
        (len(names) + 1, limits.max_members, "members"),
        (len(text), limits.max_manifest_bytes, "bytes of manifest"),
    ):
        if amount > most:
            raise InputError(
                f"cannot write {printable(path)}: a partner file holds at most {most} {what}, and this needs {amount}; "
                "train on fewer recordings or leave their sound out"
            )
    if parse_json(text, max_depth=limits.max_depth) != manifest:
        raise ValueError("content must be plain JSON values: dict with text keys, list, str, int, finite float, bool, None")
    with open_atomically(path) as stream:
        write_stored_zip(stream, [(MANIFEST, text), *((name, members[name]) for name in names)])


def read_container(
    path: PathLike, *, limits: Limits | None = None, migrations: Mapping[int, Migration] = MIGRATIONS
) -> Container:
    """Open a container from anyone; raises `PartnerFileError`, one line naming the file, for whatever is not in order.

    An older version is brought up to date by `migrations` on the way; a newer one is refused.
    """
    file, limits = Path(path), limits or Limits()
    with _naming(file):
        if file.is_dir():
            raise ArchiveError("is a folder, not a partner file")
        if file.exists() and not file.is_file():
            raise ArchiveError("is not an ordinary file")
        with file.open("rb") as stream:
            # The version comes first: a newer file may differ in everything but its first member.
            manifest = _read_manifest(read_first_entry(stream, name=MANIFEST, max_bytes=limits.max_manifest_bytes), limits)
            entries = read_directory(stream, max_entries=limits.max_members)
        table = _check_members(manifest, entries)
        members = {e.name: _reader(file, e, table[e.name]["sha256"]) for e in entries if e.name != MANIFEST}
        container = Container(file, manifest["content"], MappingProxyType(members))
        for version in range(manifest["version"], FORMAT_VERSION):
            container = _migrated(container, version, migrations)
        return container


def pack_arrays(arrays: Mapping[str, AnyArray]) -> bytes:
    """Return arrays as safetensors; equal arrays make equal bytes, whatever their order and memory layout.

    Booleans, integers and floats of 16 to 64 bits; a structured array is packed one column at a time. Raises `ValueError`
    for other types and for names that are not text that can be printed.
    """
    plain: dict[str, AnyArray] = {}
    for name, array in arrays.items():  # safetensors puts them in its own order
        if array.dtype.name not in _ARRAY_TYPES:
            raise ValueError(f"array {name!r} has type {array.dtype}, which cannot be stored")
        if not name or not name.isprintable() or name == "__metadata__":
            raise ValueError(f"{name!r} is not a name for an array")
        # safetensors copies memory as it lies: in C order and little-endian, or wrong
        plain[name] = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
    return safetensors.numpy.save(plain)


def unpack_arrays(data: bytes) -> dict[str, AnyArray]:
    """Return the arrays that `pack_arrays` packed, read-only; raises `ArchiveError` for anything else.

    `Container.read_arrays` is the way to use it on a file: its error names the file.
    """
    header_bytes = int.from_bytes(data[:8], "little")
    if len(data) < 8 or header_bytes > min(len(data) - 8, _MAX_ARRAY_HEADER_BYTES):
        raise ArchiveError("is damaged: its arrays have a header longer than it can be")
    try:
        parse_json(data[8 : 8 + header_bytes], max_depth=4)
        return safetensors.numpy.load(data)
    except (SafetensorError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise ArchiveError("is damaged: its arrays have a header that does not describe them") from error


def parse_json(data: bytes, *, max_depth: int) -> Any:
    """Parse JSON strictly: UTF-8, each key once, finite numbers, at most `max_depth` levels, text that can be written.

    Raises `ValueError` (RFC 8259 leaves all of these to the reader).
    """
    text = data.decode("utf-8")
    depth = 0
    for part in _JSON_PARTS.finditer(text):  # before the parser, whose own limit is the stack
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(part[0], 0)
        if depth > max_depth:
            raise ValueError(f"more than {max_depth} levels")
    value = json.loads(text, object_pairs_hook=_once, parse_constant=_not_finite, parse_float=_finite)
    json.dumps(value, ensure_ascii=False).encode("utf-8")  # refuses half surrogates, which no terminal can print
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key twice")
    return values


def _not_finite(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _not_finite(text)


def _refused(path: Path, why: str) -> PartnerFileError:
    return PartnerFileError(f"{printable(path)} {why}")


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn whatever reading a file may raise into one line that names it."""
    try:
        yield
    except ArchiveError as error:
        raise _refused(path, str(error)) from error
    except OSError as error:
        raise _refused(path, f"cannot be read: {reason(error)}") from error


def _read_manifest(data: bytes, limits: Limits) -> dict[str, Any]:
    try:
        manifest = parse_json(data, max_depth=limits.max_depth)
    except ValueError as error:
        raise ArchiveError("is damaged: its manifest is not proper JSON") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ArchiveError("is not a partner file")
    version = manifest.get("version")
    if type(version) is not int or version < 0:
        raise ArchiveError("is damaged: its manifest names no version")
    if version > FORMAT_VERSION:
        raise ArchiveError(
            f"was made by a newer MusicHal (format {version}, this one reads up to {FORMAT_VERSION}): upgrade MusicHal"
        )
    if set(manifest) != _MANIFEST_KEYS or not isinstance(manifest["content"], dict):
        raise ArchiveError("is damaged: its manifest has not the parts it should have")
    return manifest


def _check_members(manifest: dict[str, Any], entries: list[StoredEntry]) -> dict[str, dict[str, Any]]:
    """Return the manifest's table of members, which must be what the archive holds."""
    sizes = {entry.name: entry.size for entry in entries if entry.name != MANIFEST}
    for name in sizes:
        if not _MEMBER_NAME.fullmatch(name):
            raise ArchiveError(f"has a member that does not belong into a partner file: {printable(name)}")
    table = manifest["members"]
    if not isinstance(table, dict) or set(table) != set(sizes):
        raise ArchiveError("is damaged: it does not hold the members that its manifest lists")
    for name, described in table.items():
        if (
            not isinstance(described, dict)
            or set(described) != {"size", "sha256"}
            or type(described["size"]) is not int
            or described["size"] != sizes[name]
            or not isinstance(described["sha256"], str)
            or not _SHA256.fullmatch(described["sha256"])
        ):
            raise ArchiveError(f"is damaged: its manifest describes {name} wrongly")
    return table


def _reader(path: Path, entry: StoredEntry, sha256: str) -> Callable[[], bytes]:
    def read() -> bytes:
        with _naming(path):
            with path.open("rb") as stream:
                data = read_entry(stream, entry)
            if hashlib.sha256(data).hexdigest() != sha256:
                raise ArchiveError(f"is damaged: its member {entry.name} does not match its digest")
            return data

    return read


def _migrated(container: Container, version: int, migrations: Mapping[int, Migration]) -> Container:
    if version not in migrations:
        raise ArchiveError(f"was made by an older MusicHal (format {version}) that this one does not know: train it again")
    try:
        return migrations[version](container)
    except (LookupError, TypeError, ValueError, AttributeError) as error:  # a migration reads what a stranger wrote
        raise ArchiveError(f"is damaged: it cannot be brought from format {version} to {version + 1}") from error
