"""What is dropped on the page: recordings and MIDI files, taken into one folder, under names of which none exists yet.

A page gives a name and bytes, never a path. The folder is the one that the command line names, or a fresh one that is made for
the first file.
"""

import json
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO

from musichal.text import counted, printable, reason

LARGEST_FILE, LARGEST_SUM, SPARE = 1 << 30, 4 << 30, 1 << 30
MOST_FILES = 200
PART_BYTES = 1 << 17
"""A part of a file is at most so large; the page sends 64 kB."""
_LONGEST_STEM = 80
_UNSAFE = frozenset('<>:"/\\|?*')
_MOST_FOLDERS = 1000


class RefusedError(Exception):
    """Says in a sentence why a file is not taken."""


def safe_name(name: str, suffixes: Collection[str]) -> str:
    """Return the name under which a file is kept: no path, no sign that a system could take for one.

    Raises `RefusedError` for a kind of file that cannot be learned from.
    """
    last = printable(name).replace("\\", "/").rpartition("/")[2]
    stem, suffix = os.path.splitext(last)  # noqa: PTH122 - a name, not a path
    if suffix.lower() not in suffixes:
        raise RefusedError(f"{last[:60]!r} is neither a recording nor a MIDI file")
    stem = "".join("_" if c in _UNSAFE or not c.isprintable() else c for c in stem).strip(" .")[:_LONGEST_STEM]
    return (stem or "recording") + suffix.lower()


class Upload:
    """A file on its way in; `keep` makes it one of the folder's, `drop` leaves nothing."""

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.size, self.taken = path, size, 0
        self._partial = path.with_name(f".{path.name}.partial")
        self._stream: BinaryIO = self._partial.open("xb")

    def write(self, part: bytes) -> bool:
        """Write a part; return whether that was all."""
        self.taken += len(part)
        if self.taken > self.size:
            raise RefusedError("it is longer than it said")
        self._stream.write(part)
        return self.taken == self.size

    def keep(self) -> Path:
        """Give the file its name, or another where that has been taken in the meantime; return the path."""
        self._stream.close()
        for path in _names(self.path):
            try:
                path.touch(exist_ok=False)
            except FileExistsError:
                continue
            self._partial.replace(path)
            return path
        raise RefusedError("there are too many files of this name")

    def drop(self) -> None:
        """Remove what was written."""
        self._stream.close()
        self._partial.unlink(missing_ok=True)


class Intake:
    """Takes files.

    Parameters
    ----------
    folder : Path
        Where they go.
    is_fresh : bool
        Whether a new folder is made, of this name or of one with a number.
    suffixes : collection of str
        What can be learned from.
    """

    def __init__(self, folder: Path, *, is_fresh: bool, suffixes: Collection[str]) -> None:
        self._wanted, self._is_fresh, self._suffixes = folder, is_fresh, frozenset(suffixes)
        self._folder: Path | None = None
        self._sum = self._count = 0

    def begin(self, text: str | bytes) -> Upload:
        """Return the file that a page wants to send: ``{"name": …, "size": …}``. Raises `RefusedError`."""
        try:
            values: Any = json.loads(text) if isinstance(text, str) else None
        except (ValueError, RecursionError):
            values = None
        match values:
            case {"name": str(name), "size": int(size), **rest} if not rest and 0 < len(name) <= 1000:
                pass
            case _:
                raise RefusedError("a file has a name and a size")
        name = safe_name(name, self._suffixes)
        if not 0 < size <= LARGEST_FILE:
            raise RefusedError(f"{name} is empty" if size <= 0 else f"{name} is larger than {LARGEST_FILE >> 30} GB")
        if self._sum + size > LARGEST_SUM or self._count >= MOST_FILES:
            raise RefusedError(f"that is more than {counted(MOST_FILES, 'file')} or {LARGEST_SUM >> 30} GB in all")
        try:
            folder = self._made()
            if shutil.disk_usage(folder).free < size + SPARE:
                raise RefusedError("there is no room for it on the disk")
            upload = Upload(next(path for path in _names(folder / name) if not path.exists()), size)
        except FileExistsError as error:
            raise RefusedError(f"{name} is on its way already") from error
        except OSError as error:
            raise RefusedError(f"it cannot be written: {reason(error)}") from error
        self._sum += size
        self._count += 1
        return upload

    def drop(self, upload: Upload) -> None:
        """Forget a file that did not come whole."""
        upload.drop()
        self._sum -= upload.size
        self._count -= 1

    def _made(self) -> Path:
        if self._folder is None:
            if not self._is_fresh:
                self._wanted.mkdir(parents=True, exist_ok=True)
                self._folder = self._wanted
            else:
                for path in _names(self._wanted):
                    try:
                        path.mkdir(parents=True)
                    except FileExistsError:
                        continue
                    self._folder = path
                    break
                else:
                    raise RefusedError("there are too many folders of this name")
        return self._folder


def _names(path: Path) -> list[Path]:
    """Return a path, and others like it with a number."""
    return [path, *(path.with_name(f"{path.stem}-{number}{path.suffix}") for number in range(2, _MOST_FOLDERS))]
