"""A MIDI file as a port: on the disk, whole, every second, so that a crash costs at most the last one."""

import contextlib
import os
import queue
import sys
import threading

from musichal.atomic import check_writable, open_atomically
from musichal.errors import InputError
from musichal.live.output.messages import Outgoing
from musichal.live.output.midi_recorder import MidiRecorder
from musichal.machine import now_s
from musichal.text import printable

_INTERVAL_S = 1.0
_MOST_WAITING = 100_000


class MidiFilePort:
    """Writes what is sent to a MIDI file, its times from the moment `origin_s` on.

    A thread of its own encodes and writes, so that a slow disk delays nothing. Where the disk is full, playing goes on,
    `check` says so, and writing is tried again every second. Raises `InputError` where the file cannot be written at all.
    """

    lead_s = 0.0

    def __init__(self, path: str, *, origin_s: float, interval_s: float = _INTERVAL_S) -> None:
        if not path:
            raise InputError("name the MIDI file: file:reply.mid")
        check_writable(path)
        self.name = f"the file {printable(path)}"
        self._path, self._origin_s, self._interval_s = path, origin_s, interval_s
        self._waiting: queue.SimpleQueue[tuple[bytes, float] | None] = queue.SimpleQueue()
        self._error: str | None = None
        self._thread = threading.Thread(target=self._write_along, name="MIDI file", daemon=True)
        self._thread.start()

    def send(self, message: Outgoing) -> None:
        """Note a message down at the moment it was meant for, or could first have left."""
        if self._waiting.qsize() >= _MOST_WAITING:
            self._error = f"{self.name} cannot be written as fast as there are notes: some are not in it"
            return
        self._waiting.put((message.data, message.ready_s - self._origin_s))

    def check(self) -> str | None:
        """Return, once, why writing failed since the last time: it is tried again, nothing is lost yet."""
        error, self._error = self._error, None
        return error

    def close(self, *, flush: bool = True) -> None:
        """Write the rest."""
        self._waiting.put(None)
        self._thread.join(timeout=5.0)

    def _write_along(self) -> None:
        _step_back()
        recorder, due_s, last_s, changed, open_ = MidiRecorder(), now_s() + self._interval_s, 0.0, True, True
        while open_:
            try:
                item = self._waiting.get(timeout=max(0.0, due_s - now_s()))
            except queue.Empty:
                pass
            else:
                if item is None:
                    open_ = False
                else:
                    # One message may be noted a little before one that was sent earlier: the order counts.
                    last_s = max(last_s, item[1])
                    recorder.message(item[0], last_s)
                changed = True
                if open_ and now_s() < due_s:
                    continue
            if changed:
                changed = not self._write(recorder.snapshot(max(last_s, now_s() - self._origin_s) if open_ else last_s))
            due_s = now_s() + self._interval_s

    def _write(self, content: bytes) -> bool:
        try:
            with open_atomically(self._path) as stream:
                stream.write(content)
        except (InputError, OSError) as error:
            self._error = str(error)
            return False
        return True


def _step_back() -> None:
    """Give the thread the ordinary priority: it must not delay what the process is there for."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))  # of this thread alone
