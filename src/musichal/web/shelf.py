"""What lies at hand for the page: sessions and partners in the folders that the command line names, and two takes compared."""

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from musichal.audio.session_input import EVENT_LOG, SETTINGS, chunk_samples, chunks_of
from musichal.errors import InputError, MusicHalError
from musichal.evaluate.moments import founded
from musichal.live.session.event_log import Struck
from musichal.live.session.export import session_marks
from musichal.live.session.session import SUMMARY, Session, SessionSettings, read_settings
from musichal.partner.decision import Decision
from musichal.text import clock, parse_json, path_text, pitch_name, printable, text_path

SUFFIX = ".hal"
_MOST = 200
_LARGEST_SUMMARY = 1 << 20


@dataclass(frozen=True)
class Shelf:
    """Sessions and partners, the latest first. A page knows them by their numbers: their places here."""

    sessions: tuple[Path, ...] = ()
    partners: tuple[Path, ...] = ()


def looks_like_session(path: Path) -> bool:
    """Return whether a path has the settings of a session; what else it may lack is told in its row."""
    return (path / SETTINGS).is_file()


def find_shelf(named: Sequence[Path], *, beside: bool) -> Shelf:
    """Return what is named, and what lies in the folders that are named; with `beside`, also beside what is named."""
    sessions, partners, folders = dict[Path, None](), dict[Path, None](), dict[Path, None]()
    for path in named:
        if looks_like_session(path):
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
                if looks_like_session(path):
                    sessions[path] = None
                elif path.suffix == SUFFIX and path.is_file():
                    partners[path] = None
    return Shelf(_latest(sessions), _latest(partners))


def _latest(paths: dict[Path, None]) -> tuple[Path, ...]:
    return tuple(sorted(paths, key=_age_s)[:_MOST])


def _age_s(path: Path) -> float:
    """Return how old a session or a partner is, in seconds: as old as the epoch where it is gone."""
    try:
        return time.time() - (path / SETTINGS if path.is_dir() else path).stat().st_mtime
    except OSError:
        return time.time()


def _made_s(path: Path) -> int:
    """Return when a session or a partner was made, in seconds of the epoch."""
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


# ── two takes beside each other ───────────────────────────────────────────────

_MOST_NOTES = 8_000
_LEAST_ONSETS = 8


@dataclass
class _Course:
    """What is gathered of the decisions, one after the other: there may be more than memory should hold."""

    notes: list[tuple[float, float, int]] = field(default_factory=list)
    played_s: float = 0.0
    until_s: float = 0.0
    choices: int = 0
    jumps: int = 0
    own: int = 0
    founded: float = 0.0
    modes: dict[str, float] = field(default_factory=dict)
    tempi: list[float] = field(default_factory=list)

    def take(self, d: Decision) -> None:
        if d.kind != "play":
            return
        self.notes += [(n.onset_s, n.duration_s, n.pitch) for n in d.notes]
        end_s = d.begin_s + d.duration_s
        self.played_s += max(0.0, end_s - max(self.until_s, d.begin_s))
        self.until_s = max(self.until_s, end_s)
        self.choices += 1
        self.jumps += d.jumped
        self.own += d.live
        self.founded += founded(d)
        self.modes[d.mode or "no mode"] = self.modes.get(d.mode or "no mode", 0.0) + d.duration_s
        if d.pulse is not None and d.tempo_bpm is not None:
            self.tempi.append(d.tempo_bpm)


def compared_message(first: Session, second: Session) -> dict[str, Any]:
    """Return the message that shows two sessions beside each other; ``files`` is for the page's process alone."""
    takes = [_take(session) for session in (first, second)]
    rows = [[name, *(take["figures"].get(name, "–") for take in takes)] for name in takes[0]["figures"]]
    files = [{"session": path_text(session.folder.resolve())} for session in (first, second)]
    return {"k": "compared", "takes": [{**take, "figures": None} for take in takes], "rows": rows, "files": files}


def _take(session: Session) -> dict[str, Any]:
    settings, course = session.settings, _Course()
    for decision in session.sounded():
        course.take(decision)
    onsets = [entry.onset.sample / settings.stream_rate_hz for entry in session.entries if isinstance(entry, Struck)]
    length_s = max(session.duration_s, 1e-9)
    return {
        "name": printable(session.folder.name),
        "duration_s": round(length_s, 2),
        "notes": [[round(t, 2), round(d, 2), p] for t, d, p in course.notes[:: _step(course.notes)]],
        "onsets": [round(t, 2) for t in onsets[:: _step(onsets)]],
        "marks": [[round(mark.at_s, 2), mark.text] for mark in session_marks(session)],
        "figures": dict(_figures(course, len(onsets), length_s, settings)),
    }


def _step(values: Sequence[object]) -> int:
    """Return every how manieth of a long list is drawn."""
    return -(-len(values) // _MOST_NOTES) or 1


def _figures(course: _Course, onsets: int, length_s: float, settings: SessionSettings) -> Iterator[tuple[str, str]]:
    given = settings.partner.given
    changed = [f"{name} {value}" if isinstance(value, int | float | str) else name for name, value in given.items()]
    yield "length", clock(length_s, decimals=0)
    yield "partner", printable(text_path(settings.partner_path).name)
    yield "settings", ", ".join(name for name in changed if not name.startswith("latency_ms")) or "as they come"
    yield "you: attacks a second", f"{onsets / length_s:.1f}"
    yield "it: notes a second", f"{len(course.notes) / length_s:.1f}"
    yield "it plays", f"{min(1.0, course.played_s / length_s):.0%} of the time"
    if course.notes:
        pitches = sorted(p for _, _, p in course.notes)
        low, high = pitches[len(pitches) // 10], pitches[len(pitches) * 9 // 10]
        yield "most of its notes", f"{pitch_name(low)} to {pitch_name(high)}"
    if course.choices:
        yield "how well founded, 0 to 1", f"{course.founded / course.choices:.2f}"
        yield "jumps", f"{course.jumps / course.choices:.0%} of its choices"
        yield "from what you played", f"{course.own / course.choices:.0%}"
        total_s = sum(course.modes.values()) or 1.0
        most = sorted(course.modes.items(), key=lambda item: -item[1])[:4]
        yield "modes", ", ".join(f"{mode} {s / total_s:.0%}" for mode, s in most)
    if len(course.tempi) >= _LEAST_ONSETS:
        tempi = sorted(course.tempi)
        yield "tempo", f"{tempi[len(tempi) // 2]:.0f} BPM, in time in {len(course.tempi) / course.choices:.0%}"
