"""OSC over UDP: commands come in, and events of the performance go out.

In, ``/musichal/NAME`` with values is the command NAME (see `musichal.live.control`); ``/musichal/bass/low_pitch`` is
``bass.low_pitch``. The socket is bound to loopback unless another address is named. A command has a name, numbers and short
words, and can name no file; what ``learn_controller`` learns goes to the map that the command line names. A command is
answered: ``/musichal/ok`` says what it did, ``/musichal/error`` why it was refused. A sender beyond loopback, whose address may
be forged, gets no more bytes than it sent: no or a short word.

A thread of its own reads at most `_MOST_PER_S` datagrams a second fully; of those beyond, only panic is obeyed, the others are
counted and dropped. Malformed packets are counted and dropped.

Out, the addresses are in docs/reference/osc.md. Sends are non-blocking; no receiver is required.
"""

import contextlib
import ipaddress
import json
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from musichal.errors import InputError
from musichal.hearing.percepts import Percept
from musichal.live.control import Command, command
from musichal.live.drift import DriftReport
from musichal.live.engine import EngineObserver
from musichal.live.session.event_log import Entry, Marked, Skipped, Staged, Struck
from musichal.live.stage import StageState
from musichal.partner.decision import Decision
from musichal.text import reason

Argument = int | float | str | bytes | bool | None
Message = tuple[str, tuple[Argument, ...]]

LARGEST_DATAGRAM = 8192
_DEEPEST = 4
_MOST_ARGUMENTS = 64
_NUMBERS = {"i": ">i", "h": ">q", "f": ">f", "d": ">d", "t": ">Q", "c": ">I", "r": ">I", "m": ">I"}
_CONSTANTS: dict[str, bool | None] = {"T": True, "F": False, "N": None, "I": True}


def read_datagram(data: bytes) -> list[Message]:
    """Return the messages of a datagram; raises `ValueError` for anything that is not whole and well-formed."""
    if len(data) > LARGEST_DATAGRAM:
        raise ValueError("larger than any message for MusicHal")
    return list(_packet(data, 0))


def _packet(data: bytes, depth: int) -> Iterator[Message]:
    if len(data) % 4 or not data:
        raise ValueError("not a multiple of four bytes")
    if not data.startswith(b"#bundle\0"):
        yield _message(data)
        return
    if depth >= _DEEPEST or len(data) < 16:
        raise ValueError("bundles too deep, or cut short")
    at = 16
    while at < len(data):
        (size,) = struct.unpack_from(">i", data, at) if at + 4 <= len(data) else (-1,)
        if size <= 0 or at + 4 + size > len(data):
            raise ValueError("a bundle is cut short")
        yield from _packet(data[at + 4 : at + 4 + size], depth + 1)
        at += 4 + size


def _message(data: bytes) -> Message:
    address, at = _text(data, 0)
    if not address.startswith("/"):
        raise ValueError("an address begins with a slash")
    if at == len(data):
        return address, ()  # old senders leave out the types of nothing
    types, at = _text(data, at)
    if not types.startswith(",") or len(types) > _MOST_ARGUMENTS + 1:
        raise ValueError("no types, or too many arguments")
    arguments: list[Argument] = []
    for kind in types[1:]:
        if kind in "sS":
            text, at = _text(data, at)
            arguments.append(text)
        elif kind == "b":
            size = int(_unpack(">i", data, at)[0])
            if size < 0 or at + 4 + size > len(data):
                raise ValueError("a blob is cut short")
            arguments.append(data[at + 4 : at + 4 + size])
            at += 4 + (size + 3) // 4 * 4
        elif kind in _NUMBERS:
            arguments += _unpack(_NUMBERS[kind], data, at)
            at += struct.calcsize(_NUMBERS[kind])
        elif kind in _CONSTANTS:
            arguments.append(_CONSTANTS[kind])
        else:
            raise ValueError("an unknown type of argument")
    if at != len(data):
        raise ValueError("more bytes than its types say")
    return address, tuple(arguments)


def _text(data: bytes, at: int) -> tuple[str, int]:
    end = data.find(b"\0", at)
    if end < 0:
        raise ValueError("a text without an end")
    behind = (end // 4 + 1) * 4
    if behind > len(data):
        raise ValueError("a text is cut short")
    return data[at:end].decode("utf-8"), behind


def _unpack(form: str, data: bytes, at: int) -> tuple[int | float, ...]:
    if at + struct.calcsize(form) > len(data):
        raise ValueError("an argument is cut short")
    return struct.unpack_from(form, data, at)


def open_sender(host: str, port: int) -> tuple[socket.socket, Any]:
    """Return a non-blocking UDP socket and the address to send to: the host is resolved once, here."""
    try:
        family, _, _, _, to = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    except (OSError, UnicodeError) as error:
        raise InputError(f"cannot resolve the OSC receiver {host!r}: {getattr(error, 'strerror', None) or error}") from error
    sender = socket.socket(family, socket.SOCK_DGRAM)
    sender.setblocking(False)
    return sender, to


def osc_message(address: str, arguments: Sequence[int | float | str | bool | bytes] = ()) -> bytes:
    """Return a message as a datagram.

    Integers are sent as i (h where they need it), floats as f, texts as s, truth as T and F, four bytes of MIDI as m.
    """
    types, parts = ",", []
    for argument in arguments:
        if isinstance(argument, bool):
            types += "T" if argument else "F"
        elif isinstance(argument, int):
            small = -(1 << 31) <= argument < 1 << 31
            types += "i" if small else "h"
            parts.append(struct.pack(">i" if small else ">q", argument))
        elif isinstance(argument, float):
            types += "f"
            parts.append(struct.pack(">f", argument))
        elif isinstance(argument, bytes):
            types += "m"
            parts.append(argument)
        else:
            types += "s"
            parts.append(_padded(argument))
    return b"".join([_padded(address), _padded(types), *parts])


def _padded(text: str) -> bytes:
    data = text.replace("\0", " ").encode("utf-8", errors="replace")
    return data + bytes(4 - len(data) % 4)


# ── in and out ───────────────────────────────────────────────────────────────

PREFIX = "/musichal/"
_MOST_PER_S = 500
_BATCH = 256
_REST_S, _REST_AFTER_ERRORS_S = 0.002, 0.1
_MOST_ERRORS = 8  # at once; more of them, and the socket is broken
_PANIC = b"/musichal/panic\0"


class OscInput:
    """Receives commands on a UDP port, on a thread of its own. Raises `InputError` if the port is taken or may not be used.

    * `port`: 0 chooses a free one: see `port`.
    * `put`: Called with each command, on that thread.
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
            why = reason(error) if isinstance(error, OSError) else "the port is out of range"
            raise InputError(f"cannot listen for OSC on {host}, port {port}: {why}; name another port with --osc") from error
        self._socket.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="osc", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port of the socket."""
        return int(self._socket.getsockname()[1])

    def close(self) -> None:
        """Stop the thread and close the socket."""
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
            errors = 0
            for _ in range(_BATCH):
                try:
                    data, sender = self._socket.recvfrom(LARGEST_DATAGRAM + 1)
                except BlockingIOError:
                    break
                except OSError:  # such as ICMP "port unreachable" from an earlier send
                    errors += 1
                    if errors > _MOST_ERRORS:
                        break
                    continue
                self.received += 1
                if allowance >= 1:
                    allowance -= 1
                    self._take(data, sender)
                elif _PANIC in data:
                    self._put(Command("panic", True))
                else:
                    self.dropped += 1
            # Waking up for each datagram would hold up other threads.
            self._closing.wait(_REST_S if errors <= _MOST_ERRORS else _REST_AFTER_ERRORS_S)

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

            def answer(obeyed: bool, text: str) -> None:
                name = PREFIX + ("ok" if obeyed else "error")
                here = _is_loopback(str(sender[0]))
                reply = osc_message(name, [text] if here else [] if obeyed else ["refused"])
                with contextlib.suppress(OSError):
                    if here or len(reply) <= len(data):
                        self._socket.sendto(reply, sender)

            name = address[len(PREFIX) :].replace("/", ".")
            try:
                self._put(command(name, arguments, answer=answer))
            except InputError as error:
                self.malformed += 1
                answer(False, str(error))


def _left(time_s: float | None) -> float:
    return -1.0 if time_s is None else time_s


def _is_loopback(address: str) -> bool:
    found = ipaddress.ip_address(address.partition("%")[0])
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


class OscOutput(EngineObserver):
    """Sends the events of a performance to a receiver.

    * `host`: Resolved once, here.
    * `sample_rate_hz`: The rate of the clock.
    * `explain`: Returns the reason of a decision in words.
    """

    def __init__(
        self, port: int, *, host: str = "127.0.0.1", sample_rate_hz: int, explain: Callable[[Decision], str] = lambda _: ""
    ) -> None:
        if not 0 < port < 1 << 16:
            raise InputError(f"the OSC port must be in [1, 65535], got {port}")
        self._socket, self._to = open_sender(host, port)
        self._rate_hz, self._explain = sample_rate_hz, explain
        self._shown: dict[str, tuple[object, ...]] = {}
        self._shown_s = -1.0
        self.unsent = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def send(self, name: str, *arguments: int | float | str | bool) -> None:
        """Send one message, if the system takes it now."""
        try:
            self._socket.sendto(osc_message(PREFIX + name, arguments), self._to)
        except OSError:
            self.unsent += 1

    def entry(self, entry: Entry) -> None:
        """Send onsets, skipped segments, marks, and controls of the stage."""
        at_s = entry.at_sample / self._rate_hz
        if isinstance(entry, Struck):
            self.send("onset", entry.onset.sample / self._rate_hz)
        elif isinstance(entry, Skipped) and entry.why == "late":
            self.send("skipped", at_s, entry.index)
        elif isinstance(entry, Staged):
            self.send("stage", entry.control)
        elif isinstance(entry, Marked):
            self.send("mark", at_s, entry.text)

    def percept(self, percept: Percept) -> None:
        """Send the tokens of a segment: its start, its number of frames, then the harmonic and percussive token of each."""
        tokens = percept.tokens.T.ravel().tolist()
        self.send("tokens", percept.heard.start_sample / self._rate_hz, percept.tokens.shape[1], *tokens)

    def decision(self, decision: Decision) -> None:
        """Send a decision: number, time, kind, number of notes, and its reason in words."""
        self.send(
            "decision", decision.number, decision.time_s, decision.kind, len(decision.notes), self._explain(decision)[:1000]
        )

    def drift(self, report: DriftReport) -> None:
        """Send an alarm about the input."""
        self.send("drift", report.event, report.cause, report.text)

    def event(self, at_s: float, kind: str, text: str) -> None:
        """Send any other event."""
        self.send("event", at_s, kind, text[:1000])

    def stage(self, state: StageState) -> None:
        """Send the level, and mode, state and section when they change and once a second; -1 stands for an open time."""
        self.send("level", state.peak_db, state.zone)
        place, status = state.form, state.partner
        what: dict[str, tuple[object, ...]] = {
            "mode": (status.mode, status.chosen_by),
            "state": ("NO INPUT" if not state.has_input else state.does,),
        }
        times: dict[str, tuple[float, ...]] = {"mode": (_left(status.mode_left_s),), "state": (_left(state.left_s),)}
        if place is not None:
            what["section"] = (place.number, place.count, place.name, place.next_name, place.held)
            times["section"] = (_left(place.left_s), _left(place.end_left_s))
        due = not 0 <= state.time_s - self._shown_s < 1
        for name, values in what.items():
            if due or values != self._shown.get(name):
                self.send(name, *values, *times[name])  # type: ignore[arg-type]
        self._shown, self._shown_s = what, state.time_s if due else self._shown_s

    def statistics(self, values: dict[str, object]) -> None:
        """Send statistics, each by its name, and all as JSON."""
        for name, value in values.items():
            if isinstance(value, int | float):
                self.send(f"statistics/{name}", value)
        self.send("statistics", json.dumps(values, default=str))
