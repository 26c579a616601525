"""OSC: control comes in over UDP, and what happens goes out.

In, any ``/musichal/NAME`` with values gives the command NAME (see `musichal.live.control`); ``/musichal/bass/low_pitch`` gives
``bass.low_pitch``. Only loopback is listened to, unless another address is named. Nothing that arrives can read or write a
file: a command has a name, numbers and short words.

A thread takes in what comes. It reads at most `_MOST_PER_S` datagrams a second closely; what comes beyond is looked at for a
panic alone, counted and forgotten, so a flood costs little and never fills memory. What cannot be understood is counted.

Out, to the same host, addresses as in docs/reference/osc.md; nothing waits for a receiver, and nobody need be there.
"""

import contextlib
import json
import select
import socket
import threading
import time
from collections.abc import Callable

from musichal.errors import InputError
from musichal.hearing.percepts import Percept
from musichal.live.control import Command, command
from musichal.live.drift import DriftReport
from musichal.live.input.osc_format import LARGEST_DATAGRAM, osc_message, read_datagram
from musichal.live.observer import EngineObserver
from musichal.live.session.event_log import Entry, Skipped, Staged, Struck
from musichal.partner.decision import Decision
from musichal.text import reason

PREFIX = "/musichal/"
_MOST_PER_S = 500
_BATCH = 256
_REST_S = 0.002
_PANIC = b"/musichal/panic\0"


class OscInput:
    """Listens on a UDP port in a thread of its own and hands commands over.

    Parameters
    ----------
    port : int
        0 takes a free one: see `port`.
    put : callable
        Given each command, in the thread.
    host : str
        Loopback unless told otherwise.

    Raises
    ------
    InputError
        If the port is taken or may not be used.
    """

    def __init__(self, port: int, put: Callable[[Command], object], *, host: str = "127.0.0.1") -> None:
        self.received = self.malformed = self.dropped = 0
        self._put = put
        self._closing = threading.Event()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.bind((host, port))
        except (OSError, OverflowError) as error:
            self._socket.close()
            why = reason(error) if isinstance(error, OSError) else "there is no such port"
            raise InputError(f"cannot listen for OSC on {host}, port {port}: {why}; name another port with --osc") from error
        self._socket.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="osc", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._socket.getsockname()[1])

    def close(self) -> None:
        """Listen no more."""
        self._closing.set()
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        allowance, last_s = float(_MOST_PER_S), time.monotonic()
        while not self._closing.is_set():
            ready, _, _ = select.select([self._socket], [], [], 0.2)
            if not ready:
                continue
            now_s = time.monotonic()
            allowance, last_s = min(float(_MOST_PER_S), allowance + (now_s - last_s) * _MOST_PER_S), now_s
            for _ in range(_BATCH):
                try:
                    data, sender = self._socket.recvfrom(LARGEST_DATAGRAM + 1)
                except BlockingIOError:
                    break
                except OSError:
                    continue  # a receiver of ours is not there: the system says so here
                self.received += 1
                if allowance >= 1:
                    allowance -= 1
                    self._take(data, sender)
                elif _PANIC in data:
                    self._put(Command("panic", True))
                else:
                    self.dropped += 1
            # One datagram at a time would make other threads wait for each.
            self._closing.wait(_REST_S)

    def _take(self, data: bytes, sender: tuple[object, ...]) -> None:
        try:
            messages = read_datagram(data)
        except ValueError:
            self.malformed += 1
            return
        for address, arguments in messages:
            if not address.startswith(PREFIX):
                self.malformed += 1
                continue

            def answer(text: str) -> None:
                self._send(osc_message(PREFIX + "error", [text]), sender)

            name = address[len(PREFIX) :].replace("/", ".")
            try:
                self._put(command(name, arguments, answer=answer))
            except InputError as error:
                self.malformed += 1
                answer(str(error))

    def _send(self, data: bytes, sender: tuple[object, ...]) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendto(data, sender)


class OscOutput(EngineObserver):
    """Tells a receiver what happens.

    Parameters
    ----------
    port : int
    host : str
    sample_rate_hz : int
        The rate of the clock.
    """

    def __init__(self, port: int, *, host: str = "127.0.0.1", sample_rate_hz: int) -> None:
        if not 0 < port < 1 << 16:
            raise InputError(f"there is no OSC port {port}")
        self._rate_hz = sample_rate_hz
        self._socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._to = (host, port)
        self.unsent = 0

    def close(self) -> None:
        """Tell no more."""
        self._socket.close()

    def tell(self, name: str, *arguments: int | float | str | bool) -> None:
        """Send one message, if the system takes it now."""
        try:
            self._socket.sendto(osc_message(PREFIX + name, arguments), self._to)
        except OSError:
            self.unsent += 1

    def entry(self, entry: Entry) -> None:
        """Tell of onsets, skipped segments, and what was done by hand."""
        at_s = entry.at_sample / self._rate_hz
        if isinstance(entry, Struck):
            self.tell("onset", entry.onset.sample / self._rate_hz)
        elif isinstance(entry, Skipped) and entry.why == "late":
            self.tell("skipped", at_s, entry.index)
        elif isinstance(entry, Staged):
            self.tell("stage", entry.control)

    def percept(self, percept: Percept) -> None:
        """Tell the tokens of a segment: when it began, how many frames, then harmonic and percussive token of each."""
        tokens = percept.tokens.T.ravel().tolist()
        self.tell("tokens", percept.heard.start_sample / self._rate_hz, percept.tokens.shape[1], *tokens)

    def decision(self, decision: Decision, reason: str) -> None:
        """Tell a decision: number, time, what kind, how many notes, and why, in words."""
        self.tell("decision", decision.number, decision.time_s, decision.kind, len(decision.notes), reason[:1000])

    def drift(self, report: DriftReport) -> None:
        """Tell an alarm about the input."""
        self.tell("drift", report.event, report.cause, report.text)

    def event(self, at_s: float, kind: str, text: str) -> None:
        """Tell what else happened."""
        self.tell("event", at_s, kind, text[:1000])

    def statistics(self, values: dict[str, object]) -> None:
        """Tell figures of the performance, each by its name, and all as JSON."""
        for name, value in values.items():
            if isinstance(value, int | float):
                self.tell(f"statistics/{name}", value)
        self.tell("statistics", json.dumps(values, default=str))
