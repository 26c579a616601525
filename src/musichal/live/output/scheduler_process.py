"""The scheduler's own process: it owns the ports, plays at absolute moments, and ends every note when nobody is there.

It is started by `musichal.live.output.scheduler` with one end of a socket and imports nothing heavy. One thread does all: it
waits for the socket until shortly before the next deadline, then sleeps to it in ever shorter steps. The end of the socket is
the death of the parent. Silence of it is a hang: every note is ended, and the ports stay open for a while, for a port of our
own that is closed loses what was connected to it; when the parent speaks again, playing goes on.
"""

import contextlib
import gc
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
from musichal.live.output import wire
from musichal.live.output.messages import Message, Outgoing
from musichal.live.output.mpe import MpeZone, configuration
from musichal.live.output.note_scheduler import AGAIN_S, NoteScheduler
from musichal.live.output.ports.protocol import Port, PortLostError
from musichal.live.output.ports.registry import describe, open_port
from musichal.live.output.reconnecting_port import ReconnectingPort
from musichal.live.realtime import raise_priority
from musichal.machine import now_s

_COARSE_S = 0.02 if sys.platform == "win32" else 0.0015
"""Waiting for a socket may end this much too late; what is left to a deadline is slept."""
_LONGEST_WAIT_S = 0.05
_LONGEST_SLEEP_S = 0.001
_FINE_S = 0.0002
_FRAMES_AT_ONCE = 64
_RECEIVE_BYTES = 16_384
_MOST_EVENT_BYTES = 1 << 18
_TEND_S = 1.0
_QUIET_S = 0.05
"""Ports are looked after only where nothing is due for so long, or where there was no such gap for ten times `_TEND_S`."""
_COUNTS_S = 0.25
_JUMP_S = 1.0
_SWITCH_S = 0.0001
"""How long a thread may keep the interpreter while JACK's own waits for it."""


class _Events:
    """What is told to the parent. Nobody may listen: it is bounded, and never waits."""

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

    def __init__(self, connection: socket.socket, config: dict[str, Any], *, clock: Callable[[], float] = now_s) -> None:
        self._connection, self._clock = connection, clock
        self._buffer, self._events = wire.FrameBuffer(), _Events(connection)
        self._silence_s, self._give_up_s = float(config["silence_s"]), float(config["give_up_s"])
        self._names = [str(port["name"]) for port in config["ports"]]
        self._outlets: list[ReconnectingPort] = []
        self._timelines: list[NoteScheduler] = []
        self._heard_s: float | None = None
        self._silent = self._ended = self._more_frames = False
        try:
            ready = [self._open(port, config) for port in config["ports"]]
        except BaseException:
            self.close()
            raise
        started_s = clock()
        self._tended_s = self._counted_s = self._turned_s = started_s
        self._events.add(wire.json_frame(wire.READY, {"ports": ready, "priority": config.get("priority", "")}))
        self._events.flush()

    def _open(self, port: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
        open_it = partial(open_port, port["address"], origin_s=float(config["origin_s"]))
        opened = open_it()
        zone = MpeZone(port["members"], port["bend_semitones"]) if port["members"] else None
        setup = [bytes.fromhex(text) for text in port["setup"]]

        def reopen() -> Port:
            return open_it().port

        outlet = ReconnectingPort(opened.port, reopen=reopen, setup=(*(configuration(zone) if zone else ()), *setup))
        self._outlets.append(outlet)
        outlet.set_up(self._clock())
        self._timelines.append(
            NoteScheduler(
                latency_s=float(port["latency_s"]),
                lead_s=opened.port.lead_s,
                zone=zone,
                capacity=int(config["capacity"]),
                late_limit_s=float(config["late_limit_s"]),
            )
        )
        if opened.notice:
            self._trouble("notice", opened.notice, None)
        return {"name": port["name"], "opened": opened.port.name}

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
        """End every note, tell what is left to tell, and close the ports."""
        moment_s = self._clock()
        for index, timeline in enumerate(self._timelines):
            with contextlib.suppress(Exception):
                self._send(index, timeline.go_silent(moment_s))
        if any(timeline.next_s is not None for timeline in self._timelines):
            self._events.flush()
            time.sleep(AGAIN_S)  # nothing but to tell the ends again is left to do
            for index, timeline in enumerate(self._timelines):
                with contextlib.suppress(Exception):
                    self._send(index, timeline.step(moment_s + AGAIN_S))
        self._tell_counts()
        self._events.flush()
        for outlet in self._outlets:
            outlet.close()

    def _turn(self) -> None:
        self._receive()
        moment_s = self._clock()
        if moment_s - self._turned_s > _JUMP_S:
            self._trouble("jump", f"the machine paused for {moment_s - self._turned_s:.1f} s; late notes are dropped", None)
            # The parent was paused as well: it has a second again from now on.
            self._heard_s = None if self._heard_s is None else moment_s
        self._turned_s = moment_s
        for index, timeline in enumerate(self._timelines):
            if timeline.next_s is not None and timeline.next_s <= moment_s:
                self._send(index, timeline.step(moment_s))
        self._watch(moment_s)
        self._events.flush()
        if not self._more_frames:
            self._wait()

    def _receive(self) -> None:
        """Take in some of what the parent said: never so much that a deadline would be missed over it."""
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
        moment_s = self._clock()
        self._heard_s = moment_s
        if self._silent:
            self._silent = False
            self._trouble("notice", "MusicHal is back, and playing goes on", None)
        if kind in (wire.NOTE, wire.CONTROL):
            port, message = self._message(kind, body)
            if message is not None:
                self._timelines[port].play(message, moment_s)
        elif kind == wire.CANCEL:
            for timeline in self._timelines:
                timeline.cancel(wire.read_moment(body))
        elif kind == wire.PANIC:
            for index, timeline in enumerate(self._timelines):
                self._send(index, timeline.panic(moment_s))
                # Whoever was connected since the port was opened never got it.
                self._set_up(index, moment_s)
        elif kind == wire.MUTE:
            for index, timeline in enumerate(self._timelines):
                self._send(index, timeline.mute(body == b"\x01", moment_s))
        elif kind == wire.CLOSE:
            self.end()

    def _message(self, kind: int, body: bytes) -> tuple[int, Message | None]:
        try:
            return wire.read_message(kind, body)
        except ValueError:
            return 0, None

    def _send(self, index: int, messages: list[Outgoing]) -> None:
        outlet = self._outlets[index]
        for message in messages:
            try:
                taken = outlet.send(message, self._clock())
            except PortLostError as error:
                taken = False
                self._trouble("port-lost", str(error), index)
            if taken and not message.again:
                self._events.add(wire.sent_frame(message, max(self._clock(), message.target_s), index))

    def _set_up(self, index: int, moment_s: float) -> None:
        try:
            self._outlets[index].set_up(moment_s)
        except PortLostError as error:
            self._trouble("port-lost", str(error), index)

    def _watch(self, moment_s: float) -> None:
        """Mind the parent's silence, tell the counts, look after the ports: each when its time has come."""
        silent_s = 0.0 if self._heard_s is None else moment_s - self._heard_s
        if silent_s > self._silence_s and not self._silent:
            self._silent = True
            for index, timeline in enumerate(self._timelines):
                self._send(index, timeline.go_silent(moment_s))
            self._trouble("silent", f"MusicHal did not answer for {silent_s:.1f} s: every note was ended", None)
        if silent_s > self._give_up_s:
            self.end()
        if moment_s - self._counted_s >= _COUNTS_S:
            self._counted_s = moment_s
            self._tell_counts()
        since_s = moment_s - self._tended_s
        if since_s >= _TEND_S and (self._next_s() - moment_s > _QUIET_S or since_s > 10 * _TEND_S):
            self._tended_s = moment_s
            for index, outlet in enumerate(self._outlets):
                news = outlet.tend(moment_s)
                if news is not None:
                    self._trouble(*news, index)
            self._turned_s = self._clock()

    def _next_s(self) -> float:
        moments = [timeline.next_s for timeline in self._timelines]
        return min((moment for moment in moments if moment is not None), default=float("inf"))

    def _wait(self) -> None:
        left_s = self._next_s() - self._clock()
        if left_s > _COARSE_S:
            with contextlib.suppress(InterruptedError):
                select.select([self._connection], [], [], min(left_s - _COARSE_S, _LONGEST_WAIT_S))
            return
        # Shorter and shorter sleeps come as close as the system lets them, without keeping a core busy.
        until_s = self._clock() + min(left_s, _LONGEST_SLEEP_S)
        while (left_s := until_s - self._clock()) > 0:
            time.sleep(left_s / 2 if left_s > _FINE_S else 0)

    def _trouble(self, kind: str, text: str, index: int | None) -> None:
        port = None if index is None else self._names[index]
        self._events.add(wire.json_frame(wire.TROUBLE, {"at_s": self._clock(), "kind": kind, "text": text, "port": port}))

    def _tell_counts(self) -> None:
        totals: dict[str, int] = {"unsent": sum(o.unsent for o in self._outlets), "events_lost": self._events.lost}
        for timeline in self._timelines:
            for name, count in asdict(timeline.counts).items():
                totals[name] = totals.get(name, 0) + count
        self._events.add(wire.json_frame(wire.COUNTS, totals))


def _connection(argument: str) -> socket.socket:
    """Return our end of the socket: a descriptor that we inherited or, on Windows, what the parent shares."""
    if sys.platform == "win32":
        return socket.fromshare(sys.stdin.buffer.read())
    return socket.socket(fileno=int(argument))


def _first_frame(connection: socket.socket) -> dict[str, Any]:
    buffer = wire.FrameBuffer()
    while True:
        # One byte at a time: nothing behind the first frame may be taken away from the loop.
        piece = connection.recv(1)
        if not piece:
            raise SystemExit(0)
        buffer.add(piece)
        for kind, body in buffer.frames(1):
            if kind == wire.CONFIG:
                return wire.read_json(body)


def main() -> int:
    """Run as a program, with the socket as the one argument; returns the exit code."""
    # Ctrl-C is for the whole group of processes: the parent ends first, and we after it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A JACK server is used where there is one, and never started behind the user's back.
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
        kind, text = describe(error) if isinstance(error, MusicHalError) else ("InputError", str(error))
        with contextlib.suppress(OSError):
            connection.sendall(wire.json_frame(wire.FAILED, {"error": kind, "text": text}))
        return 2
    except Exception as error:
        with contextlib.suppress(OSError):
            text = f"the scheduler failed: {type(error).__name__}: {error}"
            connection.sendall(wire.json_frame(wire.FAILED, {"error": "InputError", "text": text}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
