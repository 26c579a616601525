"""Writing a session while it is played, so that whatever happens to MusicHal, all but its last moment is on disk.

A thread of its own writes; the engine only hands over. The input is kept in closed chunks of FLAC, ``input/00000.flac`` and so
on, each whole or not there, and the chunk that is being filled as plain 24-bit samples in ``input/00001.raw`` (little-endian
32-bit integers). Everything else is lines of JSON that are only ever appended. What is handed over is with the operating system
within `_WRITE_S`, which a ``kill -9`` survives, and on the disk within a second, which a power cut does.

Where the disk fails, recording ends there, whole up to that moment; the music goes on, and the session says so: for that
sentence some room is kept from the start.
"""

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from musichal.arrays import Float32, Int32
from musichal.atomic import open_atomically
from musichal.audio.flac import encode_flac
from musichal.errors import MusicHalError
from musichal.live.input.recorded_input import INPUT_FOLDER
from musichal.text import printable, reason

CHUNK_S = 10.0
TROUBLE = "trouble.txt"
_FULL_SCALE = np.float32(2.0**23)
_WRITE_S = 0.25
_SYNC_S = 1.0
_LARGEST_BACKLOG = 64 << 20  # bytes that wait for a disk that hangs: five minutes of sound
_RESERVE = ".reserve"
_RESERVE_BYTES = 1 << 16


class SessionRecorder:
    """Appends to a session's files in a thread of its own.

    Parameters
    ----------
    folder : Path
        There, and empty but for what was written before the performance.
    sample_rate_hz : int
        Of the input.
    on_trouble : callable, optional
        Told once, in the writing thread, why no more can be written.
    chunk_s : float
        Length of a chunk of FLAC.
    """

    def __init__(
        self,
        folder: Path,
        *,
        sample_rate_hz: int,
        on_trouble: Callable[[str], None] | None = None,
        chunk_s: float = CHUNK_S,
    ) -> None:
        self._folder, self._rate_hz = folder, sample_rate_hz
        self._on_trouble = on_trouble
        self._chunk_samples = max(1, round(chunk_s * sample_rate_hz))
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._waiting: list[tuple[str, bytes | Float32]] = []
        self._backlog = self._handed_over = self._written = 0
        self._round = threading.Event()
        self._closing = False
        self._trouble: str | None = None
        self._files: dict[str, int] = {}
        self._chunk: list[Int32] = []
        self._chunk_filled = 0
        self._chunk_number = 0
        self._unsynced_s = 0.0
        self._reserve = folder / _RESERVE
        (folder / INPUT_FOLDER).mkdir(exist_ok=True)
        with contextlib.suppress(OSError):
            self._reserve.write_bytes(bytes(_RESERVE_BYTES))
        self._thread = threading.Thread(target=self._run, name="session", daemon=True)
        self._thread.start()

    @property
    def trouble(self) -> str | None:
        """Why nothing more is written, or None."""
        return self._trouble

    def sound(self, samples: Float32) -> None:
        """Keep samples of the input, shape (n,), on the 24-bit grid."""
        self._hand_over("", samples, samples.nbytes)

    def line(self, name: str, text: str) -> None:
        """Append a line to the file `name` of the session."""
        data = text.encode() + b"\n"
        self._hand_over(name, data, len(data))

    def settle(self) -> None:
        """Wait until what was handed over is with the operating system, or cannot be."""
        with self._lock:
            target = self._handed_over
        while self._written < target and self._trouble is None and self._thread.is_alive():
            self._round.clear()
            self._wake.set()
            self._round.wait(_WRITE_S)

    def close(self) -> None:
        """Write what waits, close the last chunk, and return."""
        with self._lock:
            self._closing = True
        self._wake.set()
        self._thread.join()

    def _hand_over(self, name: str, data: bytes | Float32, size: int) -> None:
        with self._lock:
            if self._trouble is not None:
                return
            self._waiting.append((name, data))
            self._handed_over += 1
            self._backlog += size
            too_slow = self._backlog > _LARGEST_BACKLOG
        if too_slow:
            self._give_up("the disk does not keep up")

    def _run(self) -> None:
        closing = said = False
        while not closing:
            self._wake.wait(_WRITE_S)
            self._wake.clear()
            with self._lock:
                waiting, self._waiting, self._backlog = self._waiting, [], 0
                closing = self._closing
            try:
                self._write(waiting)
                if closing and self._trouble is None:
                    self._end_chunk()
            except (OSError, MusicHalError) as error:
                self._give_up(reason(error) if isinstance(error, OSError) else str(error))
            self._written += len(waiting)
            self._round.set()
            if self._trouble is not None and not said:
                said = True
                self._leave_word(self._trouble)
        for descriptor in self._files.values():
            with contextlib.suppress(OSError):
                os.fsync(descriptor)
            with contextlib.suppress(OSError):
                os.close(descriptor)
        with contextlib.suppress(OSError):
            self._reserve.unlink(missing_ok=True)

    def _write(self, waiting: list[tuple[str, bytes | Float32]]) -> None:
        if self._trouble is not None:
            return
        sounds: list[Float32] = []
        lines: dict[str, list[bytes]] = {}
        for name, data in waiting:
            if isinstance(data, bytes):
                lines.setdefault(name, []).append(data)
            else:
                sounds.append(data)
        # Sound first: what a transcript speaks of is there.
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
        grid = np.rint(samples * _FULL_SCALE).astype("<i4")
        while grid.shape[0]:
            part = grid[: self._chunk_samples - self._chunk_filled]
            self._append(self._tail_name, part.tobytes())
            self._chunk.append(part)
            self._chunk_filled += part.shape[0]
            grid = grid[part.shape[0] :]
            if self._chunk_filled == self._chunk_samples:
                self._end_chunk()

    @property
    def _tail_name(self) -> str:
        return f"{INPUT_FOLDER}/{self._chunk_number:05d}.raw"

    def _end_chunk(self) -> None:
        if not self._chunk_filled:
            return
        samples = (np.concatenate(self._chunk) / _FULL_SCALE).astype(np.float32)
        with open_atomically(self._folder / INPUT_FOLDER / f"{self._chunk_number:05d}.flac") as stream:
            stream.write(encode_flac(samples, self._rate_hz))
        descriptor = self._files.pop(self._tail_name, None)
        if descriptor is not None:
            os.close(descriptor)
        (self._folder / self._tail_name).unlink(missing_ok=True)
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
        """Record nothing more; called by either thread, so it must not touch the disk."""
        with self._lock:
            if self._trouble is not None:
                return
            self._trouble = f"nothing more is recorded into {printable(self._folder)}: {why}"
            self._waiting, self._backlog = [], 0
        if self._on_trouble is not None:
            self._on_trouble(self._trouble)

    def _leave_word(self, text: str) -> None:
        # The room kept on a full disk is just what the sentence needs.
        with contextlib.suppress(OSError):
            self._reserve.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            (self._folder / TROUBLE).write_text(text + "\n", encoding="utf-8")
