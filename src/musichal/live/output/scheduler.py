"""The engine's side of the scheduler: play notes, report being alive, receive what was really sent.

    with Scheduler([PortSettings("melody", "virtual:MusicHal")]) as scheduler:
        while playing:
            scheduler.alive()                      # at least once a second, from the loop that decides
            scheduler.play("melody", [Note(now_s() + 0.1, 0.5, 60, 90)])
            for event in scheduler.events():
                ...

The ports live in a process of their own (`musichal.live.output.scheduler_process`). It ends every note when this process
dies, at once, or hangs, after a second; so only the loop itself may call `alive`, no helper thread. Only starting and closing
wait: what the process does not take at once is kept, up to a bound, and refused beyond it.
"""

import contextlib
import importlib.util
import itertools
import json
import select
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from musichal import machine
from musichal.errors import InputError, MissingExtraError, MusicHalError
from musichal.live.output import scheduler_protocol as protocol
from musichal.live.output.note_scheduler import CAPACITY, LATE_LIMIT_S
from musichal.live.output.scheduler_protocol import MOST_PORTS, Counts, Event, PortSettings, Sent, Statistics, Trouble
from musichal.machine import now_s
from musichal.note import Key, Note, Slice

_MOST_BACKLOG = 20_000
_MOST_EVENTS = 20_000
_LATENESSES = 8192
_RECEIVE_BYTES = 1 << 16
_MOST_PIECES = 64
_UNRESPONSIVE_S = 2.0
_START_S = 30.0
_CLOSE_S = 8.0
_ERRORS: dict[str, type[MusicHalError]] = {"InputError": InputError, "MissingExtraError": MissingExtraError}


@dataclass(frozen=True)
class SchedulerSettings:
    """When the scheduler ends notes by itself, and how much it keeps.

    It ends every note after `silence_s` without a message of its parent, and itself after `give_up_s`.
    A note later than `late_limit_s` is not struck. At most `capacity` notes wait per port.
    """

    silence_s: float = 1.0
    give_up_s: float = 10.0
    late_limit_s: float = LATE_LIMIT_S
    capacity: int = CAPACITY

    def __post_init__(self) -> None:
        if not 0.05 <= self.silence_s <= self.give_up_s:
            raise ValueError(f"silence_s must be in [0.05, give_up_s], got {self.silence_s!r}")
        if not self.late_limit_s >= 0:
            raise ValueError(f"late_limit_s must not be negative, got {self.late_limit_s!r}")
        if self.capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {self.capacity!r}")


class Scheduler:
    """Plays notes on ports, at their moments, from a process of its own. For one thread: the engine's.

    * `origin_s`: The moment from which MIDI files count; now, where none is given.
    """

    def __init__(
        self,
        ports: Sequence[PortSettings],
        *,
        settings: SchedulerSettings | None = None,
        origin_s: float | None = None,
    ) -> None:
        names = [port.name for port in ports]
        if not 1 <= len(ports) <= MOST_PORTS or len(set(names)) != len(names):
            raise ValueError(f"ports must be 1 to {MOST_PORTS} ports with different names, got {names}")
        self._ports, self._settings = tuple(ports), settings or SchedulerSettings()
        self._address = _whole_address
        self._index = {name: index for index, name in enumerate(names)}
        self._origin_s = now_s() if origin_s is None else origin_s
        self._process: subprocess.Popen[bytes] | None = None
        self._theirs: socket.socket | None = None
        self._connection: socket.socket | None = None
        self._events: deque[Event] = deque(maxlen=_MOST_EVENTS)
        self._latenesses: deque[float] = deque(maxlen=_LATENESSES)
        self._held: list[set[Key]] = [set() for _ in ports]
        self._before = dict.fromkeys((field.name for field in fields(Counts)), 0)
        self._counts: dict[str, int] = {}
        self._refused = self._events_lost = 0
        self._opened: dict[str, str] = {}
        self._priority = ""

    @property
    def ports(self) -> tuple[str, ...]:
        """The names of its ports."""
        return tuple(self._index)

    @property
    def opened(self) -> dict[str, str]:
        """What was really opened for each port, for people; empty until it is."""
        return dict(self._opened)

    @property
    def priority(self) -> str:
        """What the system gave the process, to be woken in time."""
        return self._priority

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return None if self._process is None else self._process.pid

    def __enter__(self) -> Self:
        """Start the process, and wait until its ports are open."""
        self._start()
        until_s = now_s() + _START_S
        try:
            while not self._opened:
                if self._connection is None or now_s() > until_s:
                    raise InputError("the scheduler did not start")
                select.select([self._connection], [], [], 0.1)
                self._receive(raising=True)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def play(self, port: str, notes: Iterable[Note | Slice], *, tag: int = 0, bend_semitones: float = 0.0) -> int:
        """Play notes on a port; `onset_s` is a moment of `now_s`. Returns how many were taken; others count as refused.

        `tag` (0 to 2^32 − 1) comes back with what was sent. `bend_semitones` (−96 to 96) is heard on MPE ports. Raises
        `ValueError` for an unknown port.
        """
        index = self._index.get(port)
        if index is None:
            raise ValueError(f"unknown port {port!r}. Valid ports: {', '.join(self._index)}")
        taken = 0
        for note in notes:
            if self._connection is None or len(self._backlog) >= _MOST_BACKLOG:
                self._refused += 1
                continue
            self._backlog.append(protocol.note_frame(note, index, tag=tag, bend_semitones=bend_semitones))
            taken += 1
        self._flush()
        return taken

    def follow(self, port: str, beat_s: float, period_s: float) -> None:
        """Send MIDI clock on a port for it: beats at the moments `beat_s` + k `period_s`; a period of 0 stops it."""
        self._command(protocol.pulse_frame(beat_s, period_s, self._index[port]))

    def forward(self, port: str, data: bytes) -> None:
        """Send a message on a port at once. Who does so ends the notes; all end where this process hangs or dies."""
        self._command(protocol.frame(protocol.FORWARD, bytes((self._index[port], *data))))

    def alive(self) -> bool:
        """Report that the engine's loop is running; returns whether the scheduler is. Call it at least twice a second."""
        if self._connection is not None:
            self._command(protocol.frame(protocol.ALIVE))
            self._receive()
            self._watch()
        return self._connection is not None

    def begin(self, origin_s: float) -> None:
        """Let MIDI files count from this moment, whatever their latency. Call it before the first note."""
        self._origin_s = origin_s
        self._command(protocol.json_frame(protocol.ORIGIN, {"origin_s": origin_s}))

    def panic(self) -> None:
        """Drop everything, end every note, and tell every channel of every port to be silent."""
        self._backlog.clear()
        self._command(protocol.frame(protocol.PANIC))

    def mute(self, muted: bool) -> None:
        """End what sounds and strike no note, until it is lifted."""
        self._command(protocol.frame(protocol.MUTE, bytes((muted,))))

    def events(self) -> list[Event]:
        """Return what happened since the last call, in order: what was sent, and what a player should know."""
        self._receive()
        events = list(self._events)
        self._events.clear()
        return events

    def statistics(self) -> Statistics:
        """Return counts, up to a quarter of a second old, and lateness."""
        self._receive()
        counts = {name: self._before[name] + self._counts.get(name, 0) for name in self._before}
        counts["refused"] += self._refused
        counts["events_lost"] += self._events_lost
        times: dict[str, Any] = {}
        if self._latenesses:
            ordered = sorted(self._latenesses)
            last = len(ordered) - 1
            times = {
                "lateness_p50_s": ordered[round(0.5 * last)],
                "lateness_p99_s": ordered[round(0.99 * last)],
                "lateness_max_s": ordered[last],
            }
        return Statistics(**counts | times)

    def restart(self) -> None:
        """Start a new process without waiting for it; it first ends the notes that the old one left sounding.

        A MIDI file goes on under another name: the one that the old process wrote stays.
        """
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
        self._end_process(0.0)
        self._address = lambda address: _next_address(_whole_address(address))
        self._start()

    def close(self) -> None:
        """End every note, close every port, and end the process."""
        if self._connection is not None:
            self._backlog.clear()
            self._command(protocol.frame(protocol.CLOSE))
            # Receive its last events, until it closes the connection.
            until_s = now_s() + _CLOSE_S
            while self._connection is not None and now_s() < until_s:
                select.select([self._connection], [], [], 0.05)
                self._flush()
                self._receive(ending=True)
        self._end_process(_CLOSE_S)

    # ── the process ──────────────────────────────────────────────────────────

    def _start(self) -> None:
        self._backlog: deque[bytes] = deque()
        self._unsent = b""
        self._buffer = protocol.FrameBuffer()
        ours, theirs = socket.socketpair()
        command = machine.command("musichal.live.output.scheduler_process")
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        if sys.platform == "win32":
            flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
            pipe: dict[str, Any] = {"stdin": subprocess.PIPE, "creationflags": flags}
            self._process = subprocess.Popen(command, **quiet, **pipe)  # noqa: S603 - our own module
            assert self._process.stdin is not None
            with self._process.stdin as stdin:
                stdin.write(theirs.share(self._process.pid))
            self._theirs = theirs  # not closed before the process has it
        else:
            # A session of its own: a closed terminal or Ctrl-C must not end it before it has ended the notes.
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - our own module
                    [*command, str(theirs.fileno())],
                    **quiet,
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
        self._connection = ours
        ours.setblocking(False)
        with contextlib.suppress(OSError):
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
        self._counts, self._opened = {}, {}
        self._spoke_s, self._told_unresponsive = now_s(), False
        self._command(protocol.json_frame(protocol.CONFIG, self._config()))

    def _config(self) -> dict[str, Any]:
        ports = []
        for port, held in zip(self._ports, self._held, strict=True):
            # What a process that was killed left sounding, the next one ends first.
            ends = [bytes((0x80 | channel, pitch, 0)) for channel, pitch in sorted(held)]
            ports.append(asdict(replace(port, address=self._address(port.address), setup=(*ends, *port.setup))))
        return {"origin_s": self._origin_s, **asdict(self._settings), "ports": ports}

    def _command(self, frame: bytes) -> None:
        if self._connection is not None:
            self._backlog.append(frame)
            self._flush()

    def _flush(self) -> None:
        """Flush as much as the socket accepts without blocking."""
        while self._connection is not None and (self._unsent or self._backlog):
            if not self._unsent:
                batch = [self._backlog.popleft() for _ in range(min(len(self._backlog), 256))]
                self._unsent = b"".join(batch)
            try:
                self._unsent = self._unsent[self._connection.send(self._unsent) :]
            except BlockingIOError:
                return
            except OSError:
                self._gone()

    def _receive(self, *, raising: bool = False, ending: bool = False) -> None:
        """Handle what the process sent, without waiting."""
        for _ in range(_MOST_PIECES):
            if self._connection is None:
                return
            try:
                piece = self._connection.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                piece = b""
            if not piece:
                self._gone(expected=ending)
                if raising:
                    raise InputError("the scheduler ended while it started")
                return
            self._spoke_s = now_s()
            if self._theirs is not None:
                self._theirs.close()
                self._theirs = None
            self._buffer.add(piece)
            for kind, body in self._buffer.frames(1 << 30):
                self._take(kind, body, raising=raising)

    def _take(self, kind: int, body: bytes, *, raising: bool) -> None:
        if kind == protocol.SENT:
            index, sent_s, message = protocol.read_sent(body)
            lateness_s = max(0.0, sent_s - message.ready_s)
            if message.is_on or message.is_off:
                self._latenesses.append(lateness_s)
                (self._held[index].add if message.is_on else self._held[index].discard)(message.key)
            name = self._ports[index].name
            self._add(Sent(name, message.data, sent_s, message.target_s, lateness_s, message.tag))
            return
        values = json.loads(body)
        if kind == protocol.COUNTS:
            self._counts = values
        elif kind == protocol.TROUBLE:
            self._add(Trouble(**values))
        elif kind == protocol.READY:
            self._opened = {port["name"]: port["opened"] for port in values["ports"]}
            self._priority = values["priority"]
            for held in self._held:
                held.clear()
        elif kind == protocol.FAILED:
            if raising:
                raise _ERRORS.get(values["error"], InputError)(values["text"])
            self._add(Trouble(now_s(), "gone", values["text"]))

    def _add(self, event: Event) -> None:
        self._events_lost += len(self._events) == self._events.maxlen
        self._events.append(event)

    def _watch(self) -> None:
        """Report a process that runs and does not answer."""
        silent_s = now_s() - self._spoke_s
        if silent_s < _UNRESPONSIVE_S:
            self._told_unresponsive = False
        elif not self._told_unresponsive:
            self._told_unresponsive = True
            self._add(Trouble(now_s(), "unresponsive", f"the scheduler has not answered for {silent_s:.0f} s"))

    def _gone(self, *, expected: bool = False) -> None:
        """Handle a connection that the process closed."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        self._backlog.clear()
        self._unsent = b""
        for name, count in self._counts.items():
            self._before[name] += count
        self._counts = {}
        if not expected:
            self._add(Trouble(now_s(), "gone", "the scheduler ended: no note is played until it is restarted"))

    def _end_process(self, patience_s: float) -> None:
        if self._connection is not None:
            self._gone(expected=True)
        if self._process is None:
            return
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def _whole_address(address: str) -> str:
    """Return the address with what only heavy imports can find, which the process must not need."""
    if address != "synth:":
        return address
    from musichal.audio.instrument import find_soundfont

    font = find_soundfont() if importlib.util.find_spec("fluidsynth") else None
    return "keys:" if font is None else f"synth:{font}"


def _next_address(address: str) -> str:
    """Return the address of a MIDI file that is not there yet, ``file:reply-2.mid``; any other address as it is."""
    kind, _, name = address.partition(":")
    path = Path(name)
    if kind != "file" or not path.exists():
        return address
    names = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in itertools.count(2))
    return f"file:{next(new for new in names if not new.exists())}"
