"""The scheduler's own process: it owns the ports, plays at absolute moments, and ends every note when its parent is gone.

`musichal.live.output.scheduler` starts it with one end of a socket. It imports nothing heavy. One thread does all: it waits
for the socket until shortly before the next deadline, then sleeps to it in ever shorter steps. The end of the socket means
that the parent died. Its silence means that it hangs: every note is ended, and the ports stay open for a while, since a
virtual port that is closed loses its connections; when the parent answers again, playing goes on.
"""

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from types import FrameType
from typing import Any

from musichal.errors import MusicHalError
from musichal.live.output import scheduler_protocol as protocol
from musichal.live.output.note_scheduler import AGAIN_S, SILENCE, TICK, ClockTicks, NoteScheduler, mpe_configuration
from musichal.live.output.ports import Port, PortLostError, open_port
from musichal.live.output.scheduler_protocol import Outgoing, PortSettings
from musichal.machine import now_s, raise_priority
from musichal.note import Key

_COARSE_S = 0.02 if sys.platform == "win32" else 0.0015
"""Waiting for a socket may end this much too late; what is left to a deadline is slept."""
_LONGEST_WAIT_S = 0.05
_LONGEST_SLEEP_S = 0.001
_FINE_S = 0.0002
_FRAMES_AT_ONCE = 64
_RECEIVE_BYTES = 16_384
_MOST_EVENT_BYTES = 1 << 18
_CHECK_S = 1.0
_QUIET_S = 0.05
"""Ports are checked only where nothing is due for so long, or where there was no such gap for ten times `_CHECK_S`."""
_COUNTS_S = 0.25
_JUMP_S = 1.0
_SWITCH_S = 0.0001
"""How long a thread may keep the interpreter while JACK's own waits for it."""
RETRY_S = 1.0
"""How long to wait before a lost port is opened again."""


class ReconnectingPort:
    """A port that may vanish and come back. Ends the notes that its receiver still holds when it is back.

    * `reopen`: Opens it anew; may raise `MusicHalError`.
    * `setup`: Messages that the port gets first, each time it is opened, and after a panic: programs, the MPE configuration.
    """

    def __init__(self, port: Port, *, reopen: Callable[[], Port], setup: tuple[bytes, ...] = ()) -> None:
        self._port: Port | None = port
        self._reopen, self._setup = reopen, setup
        self._held: set[Key] = set()
        self._retry_s = 0.0
        self.unsent = 0

    @property
    def held(self) -> frozenset[Key]:
        """The keys for which the receiver got a note-on and no note-off yet."""
        return frozenset(self._held)

    def begin(self, origin_s: float) -> None:
        """Count from this moment, if the port counts time."""
        if self._port is not None:
            self._port.begin(origin_s)

    def set_up(self, now_s: float) -> None:
        """Send the setup messages, if the port is open. Raises `PortLostError`."""
        if self._port is None:
            return
        try:
            for data in self._setup:
                self._port.send(Outgoing(data, now_s, now_s))
        except PortLostError:
            self._lose(now_s)
            raise

    def send(self, message: Outgoing, now_s: float) -> bool:
        """Send a message; returns whether the port took it. What it does not take is counted.

        Raises `PortLostError`, once, where the port was lost over it.
        """
        if message.is_off and message.key not in self._held and not message.again:
            return False  # ended when the port came back, or never struck
        if self._port is None:
            self.unsent += 1
            return False
        try:
            self._port.send(message)
        except PortLostError:
            self.unsent += 1
            self._lose(now_s)
            raise
        if message.is_on:
            self._held.add(message.key)
        elif message.is_off:
            self._held.discard(message.key)
        return True

    def check(self, now_s: float) -> tuple[str, str] | None:
        """Check the port, or reopen it; returns (kind of trouble, text), or None where nothing changed."""
        if self._port is not None:
            try:
                warning = self._port.check()
            except PortLostError as error:
                self._lose(now_s)
                return "port-lost", str(error)
            return None if warning is None else ("port", warning)
        if now_s < self._retry_s:
            return None
        self._retry_s = now_s + RETRY_S
        try:
            self._port = self._reopen()
            self.set_up(now_s)
            for channel, pitch in sorted(self._held):
                self._port.send(Outgoing(bytes((0x80 | channel, pitch, 0)), now_s, now_s))
        except (MusicHalError, PortLostError):
            self._close(flush=False)
            return None
        self._held.clear()
        return "port-back", f"{self._port.name} is back"

    def close(self) -> None:
        """Close the port."""
        self._close(flush=True)

    def _lose(self, now_s: float) -> None:
        self._close(flush=False)
        self._retry_s = now_s + RETRY_S

    def _close(self, *, flush: bool) -> None:
        if self._port is not None:
            self._port.close(flush=flush)
            self._port = None


class _Events:
    """Events for the parent, which may not read them: bounded, and never waits."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._bytes = bytearray()
        self.lost = 0

    def add(self, frame: bytes) -> None:
        if len(self._bytes) + len(frame) > _MOST_EVENT_BYTES:
            self.lost += 1
        else:
            self._bytes += frame

    def flush(self) -> None:
        if self._bytes:
            with contextlib.suppress(OSError):  # full, or gone: reading finds out
                del self._bytes[: self._connection.send(self._bytes)]


class SchedulerProcess:
    """The loop. `config` is what `scheduler.py` sends first."""

    def __init__(self, connection: socket.socket, config: dict[str, Any]) -> None:
        self._connection = connection
        self._buffer, self._events = protocol.FrameBuffer(), _Events(connection)
        self._silence_s, self._give_up_s = float(config["silence_s"]), float(config["give_up_s"])
        self._names = [str(port["name"]) for port in config["ports"]]
        self._ports: list[ReconnectingPort] = []
        self._latencies_s: list[float] = []
        self._schedulers: list[NoteScheduler | ClockTicks] = []
        self._forwards: set[int] = set()
        self._heard_s: float | None = None
        self._silent = self._ended = self._more_frames = False
        try:
            ready = [self._open(protocol.read_port_settings(port), config) for port in config["ports"]]
        except BaseException:
            self.close()
            raise
        self._checked_s = self._counted_s = self._turned_s = now_s()
        self._events.add(protocol.json_frame(protocol.READY, {"ports": ready, "priority": config.get("priority", "")}))
        self._events.flush()

    def _open(self, settings: PortSettings, config: dict[str, Any]) -> dict[str, str]:
        open_it = partial(open_port, settings.address, origin_s=float(config["origin_s"]) - settings.latency_s)
        opened, zone = open_it(), settings.zone
        setup = (*(mpe_configuration(zone) if zone else ()), *settings.setup)
        port = ReconnectingPort(opened, reopen=open_it, setup=setup)
        self._ports.append(port)
        self._latencies_s.append(settings.latency_s)
        port.set_up(now_s())
        if settings.is_clock:
            self._schedulers.append(ClockTicks(lead_s=opened.lead_s))
            return {"name": settings.name, "opened": opened.name}
        self._schedulers.append(
            NoteScheduler(
                latency_s=settings.latency_s,
                lead_s=opened.lead_s,
                zone=zone,
                capacity=int(config["capacity"]),
                late_limit_s=float(config["late_limit_s"]),
            )
        )
        if opened.notice:
            self._trouble("notice", opened.notice, None)
        return {"name": settings.name, "opened": opened.name}

    def end(self, *_: object) -> None:
        """End after this turn of the loop."""
        self._ended = True

    def run(self) -> None:
        """Play until the parent closes, dies, or is silent for too long."""
        try:
            while not self._ended:
                self._turn()
        finally:
            self.close()

    def close(self) -> None:
        """End every note, send the last events, and close the ports."""
        moment_s = now_s()
        for index, scheduler in enumerate(self._schedulers):
            with contextlib.suppress(Exception):
                self._send(index, scheduler.go_silent(moment_s))
        if any(scheduler.next_s is not None for scheduler in self._schedulers):
            self._events.flush()
            time.sleep(AGAIN_S)  # only the repeated note-offs are left to send
            for index, scheduler in enumerate(self._schedulers):
                with contextlib.suppress(Exception):
                    self._send(index, scheduler.step(moment_s + AGAIN_S))
        self._tell_counts()
        self._events.flush()
        for port in self._ports:
            port.close()

    def _turn(self) -> None:
        self._receive()
        moment_s = now_s()
        if moment_s - self._turned_s > _JUMP_S:
            self._trouble("jump", f"the machine paused for {moment_s - self._turned_s:.1f} s; late notes are dropped", None)
            # The parent was paused as well: it has a second again from now on.
            self._heard_s = None if self._heard_s is None else moment_s
        self._turned_s = moment_s
        for index, scheduler in enumerate(self._schedulers):
            if scheduler.next_s is not None and scheduler.next_s <= moment_s:
                self._send(index, scheduler.step(moment_s))
        self._watch(moment_s)
        self._events.flush()
        if not self._more_frames:
            self._wait()

    def _receive(self) -> None:
        """Handle some of what the parent sent: never so much that a deadline would be missed over it."""
        if len(self._buffer) < _RECEIVE_BYTES:
            try:
                piece = self._connection.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                pass
            except OSError:
                self.end()
            else:
                if not piece:
                    self.end()
                self._buffer.add(piece)
        handled = 0
        for kind, body in self._buffer.frames(_FRAMES_AT_ONCE):
            handled += 1
            self._handle(kind, body)
        self._more_frames = handled == _FRAMES_AT_ONCE

    def _handle(self, kind: int, body: bytes) -> None:
        moment_s = now_s()
        self._heard_s = moment_s
        if self._silent:
            self._silent = False
            self._trouble("notice", "MusicHal is back, and playing goes on", None)
        if kind == protocol.NOTE:
            with contextlib.suppress(ValueError):
                index, note, tag, bend_semitones = protocol.read_note(body)
                scheduler = self._schedulers[index]
                if isinstance(scheduler, NoteScheduler):
                    scheduler.play(note, moment_s, tag=tag, bend_semitones=bend_semitones)
        elif kind == protocol.PULSE:
            self._follow(*protocol.read_pulse(body), moment_s)
        elif kind == protocol.FORWARD:
            self._forwards.add(body[0])
            self._send(body[0], [Outgoing(body[1:], moment_s, moment_s)])
        elif kind == protocol.PANIC:
            for index, scheduler in enumerate(self._schedulers):
                self._send(index, scheduler.panic(moment_s))
                # An instrument that was connected since the port was opened never got the setup.
                self._set_up(index, moment_s)
        elif kind == protocol.MUTE:
            for index, scheduler in enumerate(self._schedulers):
                self._send(index, scheduler.mute(body == b"\x01", moment_s))
        elif kind == protocol.ORIGIN:
            origin_s = float(json.loads(body)["origin_s"])
            for port, latency_s in zip(self._ports, self._latencies_s, strict=True):
                port.begin(origin_s - latency_s)
        elif kind == protocol.CLOSE:
            self.end()

    def _follow(self, beat_s: float, period_s: float, index: int, moment_s: float) -> None:
        clock = self._schedulers[index]
        if isinstance(clock, ClockTicks):
            if period_s > 0:
                clock.follow(beat_s, period_s, moment_s)
            else:
                self._send(index, clock.stop(moment_s))

    def _send(self, index: int, messages: list[Outgoing]) -> None:
        port = self._ports[index]
        for message in messages:
            try:
                taken = port.send(message, now_s())
            except PortLostError as error:
                taken = False
                self._trouble("port-lost", str(error), index)
            if taken and not message.again and message.data != TICK:
                self._events.add(protocol.sent_frame(message, max(now_s(), message.target_s), index))

    def _set_up(self, index: int, moment_s: float) -> None:
        try:
            self._ports[index].set_up(moment_s)
        except PortLostError as error:
            self._trouble("port-lost", str(error), index)

    def _watch(self, moment_s: float) -> None:
        """Watch for the parent's silence, send the counts, check the ports: each when it is due."""
        silent_s = 0.0 if self._heard_s is None else moment_s - self._heard_s
        if silent_s > self._silence_s and not self._silent:
            self._silent = True
            for index, scheduler in enumerate(self._schedulers):
                self._send(index, scheduler.go_silent(moment_s))
            for index in self._forwards:
                self._send(index, [Outgoing(data, moment_s, moment_s) for data in SILENCE])
            self._trouble("silent", f"MusicHal did not answer for {silent_s:.1f} s: every note was ended", None)
        if silent_s > self._give_up_s:
            self.end()
        if moment_s - self._counted_s >= _COUNTS_S:
            self._counted_s = moment_s
            self._tell_counts()
        since_s = moment_s - self._checked_s
        if since_s >= _CHECK_S and (self._next_s() - moment_s > _QUIET_S or since_s > 10 * _CHECK_S):
            self._checked_s = moment_s
            for index, port in enumerate(self._ports):
                news = port.check(moment_s)
                if news is not None:
                    self._trouble(*news, index)
            self._turned_s = now_s()

    def _next_s(self) -> float:
        moments = [scheduler.next_s for scheduler in self._schedulers]
        return min((moment for moment in moments if moment is not None), default=float("inf"))

    def _wait(self) -> None:
        left_s = self._next_s() - now_s()
        if left_s > _COARSE_S:
            with contextlib.suppress(InterruptedError):
                select.select([self._connection], [], [], min(left_s - _COARSE_S, _LONGEST_WAIT_S))
            return
        # Shorter and shorter sleeps come as close as the system lets them, without keeping a core busy.
        until_s = now_s() + min(left_s, _LONGEST_SLEEP_S)
        while (left_s := until_s - now_s()) > 0:
            time.sleep(left_s / 2 if left_s > _FINE_S else 0)

    def _trouble(self, kind: str, text: str, index: int | None) -> None:
        port = None if index is None else self._names[index]
        values = {"at_s": now_s(), "kind": kind, "text": text, "port": port}
        self._events.add(protocol.json_frame(protocol.TROUBLE, values))

    def _tell_counts(self) -> None:
        totals: dict[str, int] = {"unsent": sum(o.unsent for o in self._ports), "events_lost": self._events.lost}
        for scheduler in self._schedulers:
            for name, count in asdict(scheduler.counts).items():
                totals[name] = totals.get(name, 0) + count
        self._events.add(protocol.json_frame(protocol.COUNTS, totals))


def _connection(argument: str) -> socket.socket:
    """Return our end of the socket: a descriptor that we inherited or, on Windows, what the parent shares."""
    if sys.platform == "win32":
        return socket.fromshare(sys.stdin.buffer.read())
    return socket.socket(fileno=int(argument))


def _first_frame(connection: socket.socket) -> dict[str, Any]:
    buffer = protocol.FrameBuffer()
    while True:
        # One byte at a time: what follows the first frame is the loop's.
        piece = connection.recv(1)
        if not piece:
            raise SystemExit(0)
        buffer.add(piece)
        for kind, body in buffer.frames(1):
            if kind == protocol.CONFIG:
                config: dict[str, Any] = json.loads(body)
                return config


def main() -> int:
    """Run as a program, with the socket as the one argument; returns the exit code."""
    # Ctrl-C goes to the whole group of processes: the parent ends first, and this process after it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Use a JACK server that runs; never start one.
    os.environ.setdefault("JACK_NO_START_SERVER", "1")
    connection = _connection("".join(sys.argv[1:]))
    config = _first_frame(connection)
    config["priority"] = raise_priority()
    sys.setswitchinterval(_SWITCH_S)
    process: SchedulerProcess | None = None

    def terminate(_signal: int, _frame: FrameType | None) -> None:
        if process is None:
            raise SystemExit(0)
        process.end()

    signal.signal(signal.SIGTERM, terminate)
    try:
        connection.setblocking(True)
        process = SchedulerProcess(connection, config)
        connection.setblocking(False)
        gc.freeze()
        process.run()
    except (MusicHalError, PortLostError) as error:
        kind = type(error).__name__ if isinstance(error, MusicHalError) else "InputError"
        with contextlib.suppress(OSError):
            connection.sendall(protocol.json_frame(protocol.FAILED, {"error": kind, "text": str(error)}))
        return 2
    except Exception as error:
        with contextlib.suppress(OSError):
            text = f"the scheduler failed: {type(error).__name__}: {error}"
            connection.sendall(protocol.json_frame(protocol.FAILED, {"error": "InputError", "text": text}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
