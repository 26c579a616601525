"""What an archive consists of: recordings and parts of recordings, from files, folders, patterns and manifests.

A manifest is a table: CSV with a line of names, or JSON Lines. `path` is a file, from the folder of the manifest on; `start`
and `end` are times in it, as 83, 1:23.5 or 2h; `title` is its name in the partner; `tags` are words between spaces.
Only `path` is needed. The order of lines does not matter: recordings are taken by path and start.
"""

import csv
import fnmatch
import glob
import io
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from musichal.audio.recording_files import FoundFiles, find_recordings
from musichal.errors import InputError
from musichal.text import PathLike, clock, parse_seconds, printable, read_text

_COLUMNS = ("path", "start", "end", "title", "tags")
_LARGEST_BYTES = 1 << 28
_LONGEST_TITLE = 1000  # a partner's texts, of which it is a part, have up to 4096


@dataclass(frozen=True)
class Entry:
    """A recording of an archive, or the part of it from `start_s` to `end_s`; a manifest may give a title and tags."""

    path: Path
    start_s: float = 0.0
    end_s: float | None = None
    title: str = ""
    tags: tuple[str, ...] = ()
    where: str = ""
    """The line of its manifest, for messages."""

    @property
    def is_part(self) -> bool:
        """Whether it is less than the whole file."""
        return self.start_s > 0 or self.end_s is not None

    @property
    def words(self) -> str:
        """Return what to call it in a message."""
        part = (
            f" from {clock(self.start_s)}" + ("" if self.end_s is None else f" to {clock(self.end_s)}") if self.is_part else ""
        )
        return f"{printable(self.path)}{part}{f' ({self.where})' if self.where else ''}"


@dataclass(frozen=True)
class Archive:
    """The entries of an archive in order, what of it is left out, in a line each, and files passed over, by suffix."""

    entries: tuple[Entry, ...]
    left_out: tuple[str, ...] = ()
    passed_over: Mapping[str, int] = field(default_factory=dict)


def read_archive(paths: Sequence[PathLike], manifests: Sequence[Path] = (), *, exclude: Sequence[str] = ()) -> Archive:
    """Return what files, folders, patterns such as ``concert/**/*.wav`` and manifests name.

    Entries that are twice there, overlap another or have no length are left out, as are those whose path or name matches one of
    the patterns `exclude`. Raises `InputError` where nothing is there, or a manifest cannot be read.
    """
    found = find_recordings(expanded(paths)) if paths else FoundFiles()
    entries = [Entry(path) for path in found.files]
    listed = [entry for manifest in manifests for entry in _read_manifest(manifest)]
    listed.sort(key=lambda entry: os.path.normpath(entry.path))
    real = {entry.path: os.path.realpath(entry.path) for entry in (*entries, *listed)}
    first = {real[entry.path]: number for number, entry in reversed([*enumerate(listed)])}  # links go with what they lead to
    listed.sort(
        key=lambda e: (first[real[e.path]], e.start_s, e.end_s or float("inf"), e.title, e.tags, os.path.normpath(e.path))
    )
    kept: list[Entry] = []
    left_out: list[str] = []
    last: dict[str, Entry] = {}
    for entry in (*entries, *listed):
        if any(fnmatch.fnmatch(text, pattern) for pattern in exclude for text in (entry.path.as_posix(), entry.path.name)):
            continue
        before = last.get(real[entry.path])
        if entry.end_s is not None and entry.end_s <= entry.start_s:
            left_out.append(f"{entry.words}: it has no length")
        elif before is not None and (before.start_s, before.end_s) == (entry.start_s, entry.end_s):
            left_out.append(f"{entry.words}: it is there twice")
        elif before is not None and (before.end_s is None or entry.start_s < before.end_s):
            left_out.append(f"{entry.words}: it overlaps {before.words}")
        else:
            kept.append(entry)
            last[real[entry.path]] = entry
    if not kept:
        raise InputError(f"there is no recording in it: {left_out[0]}" if left_out else "no recording was given")
    return Archive(tuple(kept), tuple(left_out), found.passed_over)


def distinct_names(files: Sequence[PurePath]) -> list[str]:
    """Return a name for each file: its own, and where names are equal with as many parent folders as tell them apart.

    The folders are those that were given: no more of where a recording lay is written into a partner. Folders are parted
    by "/" on every system. Different paths get different names.
    """
    alike: dict[str, list[int]] = defaultdict(list)
    for number, file in enumerate(files):
        alike[file.name].append(number)
    names = [""] * len(files)
    for group in alike.values():
        depth = 1
        while len({files[n].parts[-depth:] for n in group}) < len(group):
            depth += 1
        for number in group:
            names[number] = printable(PurePath(*files[number].parts[-depth:]).as_posix())
    return names


def expanded(paths: Iterable[PathLike]) -> list[PathLike]:
    """Return paths with what patterns match in their place; a pattern that matches nothing stays."""
    out: list[PathLike] = []
    for path in paths:
        is_pattern = not Path(path).exists() and glob.has_magic(os.fspath(path))
        matches = sorted(glob.glob(os.fspath(path), recursive=True)) if is_pattern else []  # noqa: PTH207 - may be absolute
        out += matches or [path]
    return out


def _read_manifest(file: Path) -> list[Entry]:
    text = read_text(file, limit=_LARGEST_BYTES)
    if file.suffix.lower() in (".jsonl", ".ndjson", ".json"):
        rows = [(number, _json(line, f"{printable(file)}, line {number}")) for number, line in _lines(text)]
    else:
        body = text.lstrip("\n")
        before, head = len(text) - len(body), body.partition("\n")[0]
        separator = max(",;\t", key=head.count)  # spreadsheets write what their country does
        reader = csv.DictReader(io.StringIO(body), skipinitialspace=True, strict=True, delimiter=separator)
        try:
            reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
            if "path" not in reader.fieldnames:
                raise InputError(
                    f"{printable(file)} has no column 'path': its first line must name the columns {', '.join(_COLUMNS)}"
                )
            rows = [(before + reader.line_num, row) for row in reader]
        except csv.Error as error:
            raise InputError(
                f"{printable(file)}, line {before + reader.line_num + 1}: {error}: is a quote not closed?"
            ) from error
        for number, row in rows:
            if any("\n" in str(cell) for cell in row.values()):
                raise InputError(f"{printable(file)}, line {number}: a cell has several lines: is a quote not closed?")
    if not rows:
        raise InputError(f"{printable(file)} lists no recording")
    return [_entry(row, file.parent, f"{printable(file.name)}, line {number}") for number, row in rows]


def _lines(text: str) -> list[tuple[int, str]]:
    return [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def _json(line: str, where: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON") from error
    if not isinstance(row, dict):
        raise InputError(f"{where}: not an object with a path")
    return row


def _entry(row: Mapping[str | Any, Any], folder: Path, where: str) -> Entry:
    def text(name: str) -> str:
        value = row.get(name)
        if value is not None and not isinstance(value, str | int | float):
            raise InputError(f"{where}: {name} must be a text")
        return "" if value is None else str(value).strip()

    path = text("path")
    if not path or "\0" in path or not _is_path(path):
        raise InputError(f"{where}: it names no path")
    given = row.get("tags")
    tags = [str(tag) for tag in given] if isinstance(given, list) else text("tags").replace(";", " ").split()
    start, end = text("start"), text("end")
    title, *tags = map(printable, (text("title"), *tags))
    if any(len(one) > _LONGEST_TITLE for one in (title, *tags)):
        raise InputError(f"{where}: a title or tag has more than {_LONGEST_TITLE} characters")
    return Entry(
        path=folder / path,
        start_s=parse_seconds(start, f"{where}: start") if start else 0.0,
        end_s=parse_seconds(end, f"{where}: end") if end else None,
        title=title,
        tags=tuple(tags),
        where=where,
    )


def _is_path(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True
