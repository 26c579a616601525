"""Memories that were made ready are kept on this machine, laid out so that opening one maps it instead of building it.

What is kept belongs to one partner file, by the SHA-256 of its manifest, which names the digest of every other byte in it, and
to one state of MusicHal's own code. So it is never out of date, and nothing that a partner file of somebody else says is
trusted here: what is kept was built on this machine, from members that matched their digests.

A file of the cache holds numbers first, then a tree of JSON that says which objects they make. Objects are of the classes
that are `keepable`, and no others: nothing in such a file runs.
"""

import contextlib
import hashlib
import json
import mmap
import os
import zlib
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from musichal.arrays import AnyArray, Columns
from musichal.atomic import open_atomically
from musichal.errors import InputError
from musichal.machine import cache_folder

KEPT_FROM = 50_000
"""A memory of fewer states is built each time: that takes less than a second."""
MOST_KEPT = 8
"""So many are kept at most, those that were used last."""
_ALIGNED = 64
_MAGIC = b"mhready1"
_SHAPES = ("memory", "partner", "hearing")  # the rooms whose code shapes what is kept
_PLAIN = (bool, int, float, str, type(None))

Kept = TypeVar("Kept", bound=type)
_CLASSES: dict[str, type] = {}
_LEFT_OUT: dict[type, dict[str, Callable[[], object]]] = {}


def keepable(**left_out: Callable[[], object]) -> Callable[[Kept], Kept]:
    """Let objects of a class be kept, but for the attributes `left_out`, each with what makes it anew."""

    def named(cls: Kept) -> Kept:
        _CLASSES[f"{cls.__module__}.{cls.__qualname__}"] = cls
        _LEFT_OUT[cls] = left_out
        return cls

    return named


@lru_cache(maxsize=1)
def _code() -> str:
    """Return what tells this state of MusicHal from another."""
    root = Path(__file__).parents[1]
    files = [root / "arrays.py", *(file for room in _SHAPES for file in sorted((root / room).rglob("*.py")))]
    states = [(file.relative_to(root).as_posix(), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return json.dumps([np.__version__, states])


def kept_path(digest: str) -> Path:
    """Return where the memory of a partner file is kept whose manifest has this digest; there may be none."""
    return cache_folder() / "ready" / hashlib.sha256(f"{digest} {_code()}".encode()).hexdigest()[:40]


def name_of(make: Callable[..., Any]) -> str:
    """Return by which name what a function makes of a memory is kept."""
    return f"{make.__module__}.{make.__qualname__}"


def keep(digest: str, named: Mapping[str, Any]) -> bool:
    """Keep objects, by name, for a partner file, and return whether that was possible; it need not be."""
    path = kept_path(digest)
    with contextlib.suppress(OSError, InputError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_atomically(path) as stream:
            writer = _Writer(stream)
            tree = {name: writer.node(value) for name, value in named.items()}
            text = json.dumps(tree, separators=(",", ":")).encode()
            stream.write(text + zlib.crc32(text).to_bytes(4, "little") + len(text).to_bytes(8, "little") + _MAGIC)
        for old in sorted(path.parent.iterdir(), key=lambda file: -file.stat().st_mtime_ns)[MOST_KEPT:]:
            old.unlink()
        return True
    return False


def find_kept(digest: str) -> "KeptObjects | None":
    """Return what is kept for a partner file, None where there is nothing, or it is damaged."""
    path = kept_path(digest)
    try:
        with path.open("rb") as stream:
            data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        end = len(data) - len(_MAGIC) - 12
        length = int.from_bytes(data[end + 4 : end + 12], "little")
        text = data[end - length : end]
        if data[-len(_MAGIC) :] != _MAGIC or zlib.crc32(text) != int.from_bytes(data[end : end + 4], "little"):
            return None
        if hasattr(data, "madvise"):
            data.madvise(mmap.MADV_WILLNEED)  # read on in the background: a decision must not wait for the disk
        with contextlib.suppress(OSError):
            os.utime(path)
        return KeptObjects(json.loads(text), data)
    except (OSError, ValueError):
        return None


@dataclass
class _Writer:
    """Writes the numbers of objects and returns their nodes; what is met again is only named."""

    stream: BinaryIO
    met: dict[int, int] = field(default_factory=dict)

    def node(self, value: Any) -> Any:  # noqa: PLR0911 - one for each kind
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, _PLAIN):
            return [value]
        if isinstance(value, np.ndarray):
            return {"array": [self._write(np.ascontiguousarray(value)), _described(value.dtype), value.shape]}
        if isinstance(value, array | memoryview):
            return {"ints": [self._write(np.frombuffer(value, np.int32)), len(value)]}
        if isinstance(value, list | tuple) and type(value) in (list, tuple):
            if all(type(item) in (int, float) for item in value):
                return {type(value).__name__ + "-plain": list(value)}
            return {type(value).__name__: [self.node(item) for item in value]}
        if isinstance(value, dict):
            return {"dict": [[self.node(key), self.node(item)] for key, item in value.items()]}
        if id(value) in self.met:
            return {"met": self.met[id(value)]}
        if isinstance(value, Columns):
            return {"columns": self.node(value.view)}
        name = f"{type(value).__module__}.{type(value).__qualname__}"
        if _CLASSES.get(name) is not type(value):
            raise TypeError(f"an object of {name} cannot be kept")
        self.met[id(value)] = len(self.met)
        left_out = _LEFT_OUT[type(value)]
        fields: Mapping[str, Any] = getattr(value, "_asdict", lambda: vars(value))()
        return {"of": name, "has": {key: self.node(item) for key, item in fields.items() if key not in left_out}}

    def _write(self, values: AnyArray) -> int:
        self.stream.write(bytes(-self.stream.tell() % _ALIGNED))
        place = self.stream.tell()
        if values.size:
            self.stream.write(values.reshape(-1).view(np.uint8).data)
        return place


def _described(dtype: np.dtype[Any]) -> Any:
    return dtype.str if dtype.names is None else [[name, dtype[name].base.str, dtype[name].shape] for name in dtype.names]


def _dtype(described: Any) -> np.dtype[Any]:
    plain = isinstance(described, str)
    return np.dtype(described if plain else [(name, base, tuple(shape)) for name, base, shape in described])


class KeptObjects:
    """Objects that were kept, made when they are asked for; their numbers stay in the file."""

    def __init__(self, tree: Mapping[str, Any], data: mmap.mmap) -> None:
        self._tree, self._data, self._met = tree, data, list[Any]()
        self._made: dict[str, Any] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._tree

    def get(self, name: str) -> Any:
        """Return an object by its name. The first one asked for must be that which others refer to."""
        if name not in self._made:
            self._made[name] = self._make(self._tree[name])
        return self._made[name]

    def _make(self, node: Any) -> Any:  # noqa: PLR0911 - one for each kind
        if isinstance(node, list):
            return node[0]
        (kind, value), *more = node.items()
        match kind:
            case "array":
                place, described, shape = value
                count = int(np.prod(shape, dtype=np.int64))
                return np.frombuffer(self._data, _dtype(described), count, place if count else 0).reshape(shape)
            case "ints":
                place, count = value
                return memoryview(self._data)[place : place + 4 * count].cast("i")
            case "columns":
                return Columns.of(self._make(value))
            case "list-plain" | "tuple-plain":
                return value if kind == "list-plain" else tuple(value)
            case "list" | "tuple":
                made = [self._make(item) for item in value]
                return made if kind == "list" else tuple(made)
            case "dict":
                return {self._make(key): self._make(item) for key, item in value}
            case "met":
                return self._met[value]
        cls: Any = _CLASSES[value]
        fields = more[0][1].items()
        if issubclass(cls, tuple):
            self._met.append(None)  # nothing refers to it
            return cls(*(self._make(item) for _, item in fields))
        made = cls.__new__(cls)
        self._met.append(made)
        vars(made).update({key: self._make(item) for key, item in fields} | {key: new() for key, new in _LEFT_OUT[cls].items()})
        return made
