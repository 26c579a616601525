"""Writing sessions: as a whole when offline, and live so that a crash loses no more than the last moment.

Live, a thread of its own writes; the engine only queues. The input is kept in closed chunks of FLAC, each whole or absent,
and the open chunk as raw samples. Everything else is lines of JSON that are only appended. Queued data reaches the operating
system within `_WRITE_S`, which a ``kill -9`` survives, and the disk within a second, which a power cut does.

If the disk fails, the recording ends there, whole up to that moment, and the music goes on. Some space is reserved from the
start to write down why. A chunk that cannot be encoded stays raw.
"""

import contextlib
import os
import tempfile
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, groupby
from json import dumps
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from musichal.arrays import Float32, Int32
from musichal.atomic import open_atomically
from musichal.audio.files import encode_flac
from musichal.audio.recording import ingest
from musichal.audio.session_input import EVENT_LOG, FULL_SCALE, INPUT, SETTINGS
from musichal.errors import MusicHalError
from musichal.hearing.percepts import Percept
from musichal.live.drift import DriftReport
from musichal.live.engine import EngineObserver, Performance
from musichal.live.session.event_log import Ended, Entry, Staged, as_sounded, entry_to_json, percept_to_json, to_line
from musichal.live.session.session import (
    DECISIONS,
    DRIFT,
    EVENTS,
    PERCEPTS,
    REPLY,
    SUMMARY,
    TROUBLE,
    SessionSettings,
    reply_bytes,
    settings_json,
)
from musichal.note import Note
from musichal.partner.decision import Decision
from musichal.text import printable, reason

CHUNK_S = 10.0
_WRITE_S = 0.25
_SYNC_S = 1.0
_LARGEST_BACKLOG = 64 << 20  # bytes queued for a disk that hangs: five minutes of sound
_RESERVE = ".reserve"
_RESERVE_BYTES = 1 << 16


def write_session(folder: Path, settings: SessionSettings, samples: Float32, performance: Performance) -> None:
    """Write an offline performance into a `session_folder`, all of it or nothing.

    Settings are written last: a folder without them is not a session, so not even a power cut leaves half of one.
    """
    written: list[Path] = []
    try:
        (folder / INPUT).mkdir()
        for name, parts in _files(settings, samples, performance):
            written.append(folder / name)
            with open_atomically(folder / name) as stream:
                stream.writelines(parts)
    except BaseException:
        for path in reversed(written):
            with contextlib.suppress(OSError):
                path.unlink()
        with contextlib.suppress(OSError):
            (folder / INPUT).rmdir()
        raise


def _files(settings: SessionSettings, samples: Float32, performance: Performance) -> Iterator[tuple[str, Iterable[bytes]]]:
    chunk = round(CHUNK_S * settings.sample_rate_hz)
    for number, first in enumerate(range(0, samples.shape[0], chunk)):
        flac = encode_flac(ingest(samples[first : first + chunk]), settings.sample_rate_hz)
        yield f"{INPUT}/{number:05d}.flac", [flac]
    decisions = performance.decisions
    lines: Iterable[str]
    for name, lines in (
        (EVENT_LOG, map(entry_to_json, performance.entries)),
        (PERCEPTS, performance.percept_lines),
        (DECISIONS, (d.to_json(before) for before, d in zip(chain([None], decisions), decisions, strict=False))),
        (DRIFT, (report.to_json() for report in performance.drift)),
    ):
        yield name, (line.encode() + b"\n" for line in lines)
    yield REPLY, [reply_bytes(decisions, channel=settings.channel, program=settings.program)]
    yield SUMMARY, [_summary({"duration_s": round(performance.duration_s, 3)}, trouble=None)]
    yield SETTINGS, [settings_json(settings).encode()]


def _decisions_of(played: Sequence[float]) -> Iterator[Decision]:
    """Yield decisions with notes, from six numbers for each note."""
    rows = (played[n : n + 6] for n in range(0, len(played), 6))
    for number, (time_s, group) in enumerate(groupby(rows, key=itemgetter(0))):
        notes = tuple(Note(row[1], row[2], int(row[3]), int(row[4]), int(row[5])) for row in group)
        yield Decision(number=number, time_s=time_s, kind="play", notes=notes)


def _summary(summary: dict[str, Any], *, trouble: str | None) -> bytes:
    return (dumps({**summary, "trouble": trouble}, indent=2, allow_nan=False) + "\n").encode()


class SessionRecorder:
    """Appends to the files of a session in a thread of its own.

    * `folder`: Exists, and holds nothing but what was written before the performance.
    * `sample_rate_hz`: Of the input.
    * `on_trouble`: Called once, usually in the writing thread, with the reason why not everything can be written as it should
      be.
    * `chunk_s`: Length of a chunk of FLAC.
    """

    def __init__(
        self, folder: Path, *, sample_rate_hz: int, on_trouble: Callable[[str], None] | None = None, chunk_s: float = CHUNK_S
    ) -> None:
        self._folder, self._rate_hz = folder, sample_rate_hz
        self._on_trouble = on_trouble
        self._chunk_samples = max(1, round(chunk_s * sample_rate_hz))
        self._lock = threading.Lock()
        self._wake, self._round = threading.Event(), threading.Event()
        self._queue: list[tuple[str, bytes | Float32]] = []
        self._backlog = self._queued = self._written = 0
        self._closing = self._told = False
        self._trouble: str | None = None
        self._files: dict[str, int] = {}
        self._chunk: list[Int32] = []
        self._chunk_filled = self._chunk_number = 0
        self._unsynced_s = 0.0
        self._reserve = folder / _RESERVE
        (folder / INPUT).mkdir(exist_ok=True)
        with contextlib.suppress(OSError):
            self._reserve.write_bytes(bytes(_RESERVE_BYTES))
        self._thread = threading.Thread(target=self._run, name="session", daemon=True)
        self._thread.start()

    @property
    def trouble(self) -> str | None:
        """Why the recording ended, or None."""
        return self._trouble

    def sound(self, samples: Float32) -> None:
        """Append samples of the input, shape (n,), on the 24-bit grid."""
        self._enqueue("", samples, samples.nbytes)

    def line(self, name: str, text: str) -> None:
        """Append a line to the file `name` of the session."""
        data = text.encode() + b"\n"
        self._enqueue(name, data, len(data))

    def settle(self) -> None:
        """Wait until all queued data is with the operating system, or cannot be."""
        with self._lock:
            target = self._queued
        while self._written < target and self._trouble is None and self._thread.is_alive():
            self._round.clear()
            self._wake.set()
            self._round.wait(_WRITE_S)

    def close(self) -> None:
        """Write what is queued, close the last chunk, and return."""
        with self._lock:
            self._closing = True
        self._wake.set()
        self._thread.join()

    def _enqueue(self, name: str, data: bytes | Float32, size: int) -> None:
        with self._lock:
            if self._trouble is not None:
                return
            self._queue.append((name, data))
            self._queued += 1
            self._backlog += size
            too_slow = self._backlog > _LARGEST_BACKLOG
        if too_slow:
            self._give_up("the disk does not keep up")

    def _run(self) -> None:
        closing = noted = False
        while not closing:
            self._wake.wait(_WRITE_S)
            self._wake.clear()
            with self._lock:
                queue, self._queue, self._backlog = self._queue, [], 0
                closing = self._closing
            try:
                self._write(queue)
                if closing and self._trouble is None:
                    self._end_chunk()
            except Exception as error:
                self._give_up(_words(error))
            self._written += len(queue)
            self._round.set()
            if self._trouble is not None and not noted:
                noted = True
                self._note_trouble(self._trouble)
        for descriptor in self._files.values():
            with contextlib.suppress(OSError):
                os.fsync(descriptor)
            with contextlib.suppress(OSError):
                os.close(descriptor)
        with contextlib.suppress(OSError):
            self._reserve.unlink(missing_ok=True)

    def _write(self, queue: list[tuple[str, bytes | Float32]]) -> None:
        if self._trouble is not None:
            return
        sounds: list[Float32] = []
        lines: dict[str, list[bytes]] = {}
        for name, data in queue:
            if isinstance(data, bytes):
                lines.setdefault(name, []).append(data)
            else:
                sounds.append(data)
        # Sound first, so that the sound of every entry in the log is there.
        if sounds:
            self._write_sound(np.concatenate(sounds))
        for name, parts in lines.items():
            self._append(name, b"".join(parts))
        self._unsynced_s += _WRITE_S
        if self._unsynced_s >= _SYNC_S:
            self._unsynced_s = 0.0
            for descriptor in self._files.values():
                os.fsync(descriptor)

    def _write_sound(self, samples: Float32) -> None:
        grid = np.rint(samples * FULL_SCALE).astype("<i4")
        while grid.shape[0]:
            part = grid[: self._chunk_samples - self._chunk_filled]
            self._append(self._raw_name, part.tobytes())
            self._chunk.append(part)
            self._chunk_filled += part.shape[0]
            grid = grid[part.shape[0] :]
            if self._chunk_filled == self._chunk_samples:
                self._end_chunk()

    @property
    def _raw_name(self) -> str:
        return f"{INPUT}/{self._chunk_number:05d}.raw"

    def _end_chunk(self) -> None:
        if not self._chunk_filled:
            return
        samples = (np.concatenate(self._chunk) / FULL_SCALE).astype(np.float32)
        try:
            flac = encode_flac(samples, self._rate_hz)
        except Exception as error:
            flac = b""
            self._tell(f"the input is kept as raw samples in {printable(self._folder)}: {_words(error)}")
        if flac:
            with open_atomically(self._folder / INPUT / f"{self._chunk_number:05d}.flac") as stream:
                stream.write(flac)
        descriptor = self._files.pop(self._raw_name, None)
        if descriptor is not None:
            os.close(descriptor)
        if flac:
            (self._folder / self._raw_name).unlink(missing_ok=True)
        self._chunk, self._chunk_filled = [], 0
        self._chunk_number += 1

    def _append(self, name: str, data: bytes) -> None:
        descriptor = self._files.get(name)
        if descriptor is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
            descriptor = self._files[name] = os.open(self._folder / name, flags, 0o666)
        while data:
            data = data[os.write(descriptor, data) :]

    def _give_up(self, why: str) -> None:
        """End the recording. Called in either thread, so it does not touch the disk."""
        with self._lock:
            if self._trouble is not None:
                return
            self._trouble = f"nothing more is recorded into {printable(self._folder)}: {why}"
            self._queue, self._backlog = [], 0
        self._tell(self._trouble, again=True)

    def _tell(self, text: str, *, again: bool = False) -> None:
        if self._on_trouble is not None and (again or not self._told):
            self._told = True
            self._on_trouble(text)

    def _note_trouble(self, text: str) -> None:
        # On a full disk, the reserve is just the space that the sentence needs.
        with contextlib.suppress(OSError):
            self._reserve.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            (self._folder / TROUBLE).write_text(text + "\n", encoding="utf-8")


class LiveSessionWriter(SessionRecorder, EngineObserver):
    """Keeps a performance: writes the settings at once, what happens as it happens, and answer and summary in `finish`.

    * `folder`: An empty one: see `musichal.live.session.session.session_folder`.
    * `clock_rate_hz`: Sample rate of the clock: the spec's.
    * `on_trouble`, `chunk_s`: As for `SessionRecorder`.
    """

    def __init__(
        self,
        folder: Path,
        settings: SessionSettings,
        *,
        clock_rate_hz: int,
        on_trouble: Callable[[str], None] | None = None,
        chunk_s: float = CHUNK_S,
    ) -> None:
        with open_atomically(folder / SETTINGS) as stream:
            stream.write(settings_json(settings).encode())
        super().__init__(folder, sample_rate_hz=settings.sample_rate_hz, on_trouble=on_trouble, chunk_s=chunk_s)
        self._settings, self._clock_rate_hz = settings, clock_rate_hz
        self._before: Decision | None = None
        # What the answer is made of, for a disk that fails, six numbers for each note: bytes where the input is megabytes.
        self._played = array("d")
        self._controls: list[Entry] = []
        self.reply_at: Path | None = None
        """Where `finish` wrote the answer."""

    def entry(self, entry: Entry) -> None:
        """Keep an entry of the event log."""
        if isinstance(entry, Staged | Ended):
            self._controls.append(entry)
        self.line(EVENT_LOG, entry_to_json(entry))

    def percept(self, percept: Percept) -> None:
        """Keep what was heard."""
        self.line(PERCEPTS, percept_to_json(percept))

    def decision(self, decision: Decision) -> None:
        """Write a decision; its reason is computed from its record."""
        for n in decision.notes:
            self._played.extend((decision.time_s, n.onset_s, n.duration_s, n.pitch, n.velocity, n.channel))
        self.line(DECISIONS, decision.to_json(self._before))
        self._before = decision

    def drift(self, report: DriftReport) -> None:
        """Keep an alarm about the input."""
        self.line(DRIFT, report.to_json())

    def event(self, at_s: float, kind: str, text: str) -> None:
        """Keep another event, at a time of the stream."""
        self.line(EVENTS, to_line({"at_s": round(at_s, 3), "kind": kind, "text": text}))

    def finish(self, summary: dict[str, Any]) -> None:
        """Write what is queued, then the answer and the summary.

        Where the recording ended before the music, the answer is whole all the same, at another place if need be. Raises
        `InputError` if they cannot be written; the rest of the session is whole even then.
        """
        self.close()
        played = as_sounded(_decisions_of(self._played), self._controls, sample_rate_hz=self._clock_rate_hz)
        reply = reply_bytes(played, channel=self._settings.channel, program=self._settings.program)
        self.reply_at = self._keep(reply)
        with open_atomically(self._folder / SUMMARY) as stream:
            stream.write(_summary(summary, trouble=self.trouble))

    def _keep(self, reply: bytes) -> Path:
        """Write the answer into the session, or, if its disk is full, where there is room; return where."""
        others = (Path.home(), Path(tempfile.gettempdir())) if self.trouble is not None else ()
        places = [self._folder / REPLY]
        for folder in others:
            names = (folder / f"{self._folder.name}-reply{n}.mid" for n in ("", *range(1, 100)))
            places += [path for path in names if not path.exists()][:1]
        for path in places:
            try:
                with open_atomically(path) as stream:
                    stream.write(reply)
                return path
            except (MusicHalError, OSError):
                if path == places[-1]:
                    raise
        return places[0]


def _words(error: Exception) -> str:
    return reason(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
