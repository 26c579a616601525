"""What lies at hand for the page: sessions and partners in the folders that the command line names, and what each is."""

import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musichal.audio.session_input import EVENT_LOG, SETTINGS, chunk_samples, chunks_of
from musichal.errors import InputError, MusicHalError
from musichal.live.session.session import SUMMARY, read_settings
from musichal.text import parse_json, printable, text_path

SUFFIX = ".hal"
_MOST = 200
_LARGEST_SUMMARY = 1 << 20


@dataclass(frozen=True)
class Shelf:
    """Sessions and partners, the latest first. A page knows them by their numbers: their places here."""

    sessions: tuple[Path, ...] = ()
    partners: tuple[Path, ...] = ()


def is_session(path: Path) -> bool:
    """Return whether a path is a session's folder."""
    return (path / SETTINGS).is_file()


def find_shelf(named: Sequence[Path], *, beside: bool) -> Shelf:
    """Return what is named, and what lies in the folders that are named; with `beside`, also beside what is named.

    Raises `InputError` for what is neither.
    """
    sessions, partners, folders = dict[Path, None](), dict[Path, None](), dict[Path, None]()
    for path in named:
        if is_session(path):
            sessions[path.resolve()] = None
        elif path.is_dir():
            folders[path.resolve()] = None
        elif path.is_file():
            partners[path.resolve()] = None
        else:
            raise InputError(f"{printable(path)} does not exist: name a session, a partner file, or a folder of them")
    if beside:
        folders |= {path.parent: None for path in (*sessions, *partners)}
    for folder in folders:
        with contextlib.suppress(OSError):
            for path in sorted(folder.iterdir()):
                if is_session(path):
                    sessions[path] = None
                elif path.suffix == SUFFIX and path.is_file():
                    partners[path] = None
    return Shelf(_latest(sessions), _latest(partners))


def _latest(paths: dict[Path, None]) -> tuple[Path, ...]:
    return tuple(sorted(paths, key=_age_s)[:_MOST])


def _age_s(path: Path) -> float:
    try:
        return time.time() - (path / SETTINGS if path.is_dir() else path).stat().st_mtime
    except OSError:
        return time.time()


def _made_s(path: Path) -> float:
    return round(time.time() - _age_s(path))


def shelf_message(shelf: Shelf, opened: Path | None, **more: object) -> dict[str, Any]:
    """Return the message that lists a shelf; `opened` is what is shown now."""
    return {
        "k": "shelf",
        "sessions": [_session_row(path) | {"number": n, "open": path == opened} for n, path in enumerate(shelf.sessions)],
        "partners": [_partner_row(path) | {"number": n, "open": path == opened} for n, path in enumerate(shelf.partners)],
        **more,
    }


def _session_row(folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"name": printable(folder.name), "made_s": _made_s(folder), "trouble": ""}
    try:
        settings = read_settings(folder)
        summary = _summary(folder)
        row["duration_s"] = summary.get("duration_s") or _length_s(folder, settings.sample_rate_hz)
        row |= {"notes": summary.get("notes"), "input": settings.input_name, "mode": settings.partner.direction.mode or "auto"}
        row |= {"partner": printable(text_path(settings.partner_path).name), "marks": _marks(folder)}
        row["trouble"] = "" if summary else "ended while it played"
    except (MusicHalError, OSError) as error:
        row["trouble"] = str(error).replace(printable(folder), row["name"])
    return row


def _summary(folder: Path) -> dict[str, Any]:
    path = folder / SUMMARY
    try:
        if path.stat().st_size <= _LARGEST_SUMMARY and isinstance(values := parse_json(path.read_bytes(), max_depth=8), dict):
            return values
    except (OSError, ValueError):
        pass
    return {}


def _length_s(folder: Path, rate_hz: int) -> float:
    return sum(chunk_samples(path, rate_hz) for path in chunks_of(folder)) / rate_hz


def _marks(folder: Path) -> list[str]:
    """Return the words of the marks, without reading the whole log as entries."""
    found = []
    with (folder / EVENT_LOG).open("rb") as lines:
        for line in lines:
            if b'"mark"' in line:
                with contextlib.suppress(ValueError):
                    found.append(str(json.loads(line).get("mark") or ""))
    return found[:50]


def _partner_row(path: Path) -> dict[str, Any]:
    size = path.stat().st_size if path.is_file() else 0
    return {"name": printable(path.name), "made_s": _made_s(path), "size_mb": round(size / 1e6, 1)}
