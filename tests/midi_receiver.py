"""A real JACK client that writes down the MIDI that reaches it, with the frame of each message; and what it should look like.

with JackReceiver() as receiver:
    receiver.connect("MusicHal")           # waits for an output with this in its name
    ...
    receiver.messages()                    # (frame, data), in order
    receiver.sounding()                    # what a synthesiser would have sounding now
"""

import contextlib
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Received:
    """A message, its frame on the server's clock, and when the cycle that brought it was worked on."""

    frame: int
    data: bytes
    monotonic_s: float


class JackReceiver:
    def __init__(self, name: str = "receiver") -> None:
        import jack

        self._jack: Any = jack
        self.client: Any = jack.Client(name, no_start_server=True)
        self._port = self.client.midi_inports.register("in")
        self._raw: deque[tuple[int, bytes, float]] = deque()
        self.xruns = 0
        self.client.set_process_callback(self._process)
        self.client.set_xrun_callback(self._xrun)

    def __enter__(self) -> "JackReceiver":
        self.client.activate()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):
            self.client.deactivate()
            self.client.close()

    def _process(self, _frames: int) -> None:
        began = self.client.last_frame_time
        for offset, data in self._port.incoming_midi_events():
            self._raw.append((began + offset, bytes(data), time.monotonic()))

    def _xrun(self, _delay_us: float) -> None:
        self.xruns += 1

    def connect(self, sender: str, timeout_s: float = 10.0) -> str:
        """Connect the output with `sender` in its name; returns its name."""
        until_s = time.monotonic() + timeout_s
        while time.monotonic() < until_s:
            found = [p.name for p in self.client.get_ports(is_midi=True, is_output=True) if sender in p.name]
            if found:
                with contextlib.suppress(self._jack.JackErrorCode):
                    self.client.connect(found[-1], self._port)
                return str(found[-1])
            time.sleep(0.02)
        raise AssertionError(f"no JACK MIDI output with {sender!r} in its name appeared")

    def senders(self) -> list[str]:
        return [p.name for p in self.client.get_ports(is_midi=True, is_output=True)]

    def clear(self) -> None:
        self._raw.clear()

    def messages(self) -> list[Received]:
        return [Received(*entry) for entry in list(self._raw)]

    def sounding(self) -> set[tuple[int, int]]:
        return sounding(message.data for message in self.messages())

    def wait_for(self, condition: Any, timeout_s: float) -> bool:
        until_s = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > until_s:
                return False
            time.sleep(0.005)
        return True


def sounding(messages: Any) -> set[tuple[int, int]]:
    """Return what sounds after `messages`, only note-offs counting as ends: no receiver need know of "all notes off"."""
    now: set[tuple[int, int]] = set()
    for data in messages:
        kind, channel = data[0] & 0xF0, data[0] & 0x0F
        if kind == 0x90 and data[2] > 0:
            now.add((channel, data[1]))
        elif kind in (0x80, 0x90):
            now.discard((channel, data[1]))
    return now


def unbalanced(messages: Any) -> list[str]:
    """Return what a strict receiver would mind: a note struck while it sounds, or ended while it does not."""
    now: set[tuple[int, int]] = set()
    wrong = []
    for data in messages:
        key = data[0] & 0x0F, data[1] if len(data) > 1 else -1
        if data[0] & 0xF0 == 0x90:
            if key in now:
                wrong.append(f"{key} struck while it sounds")
            now.add(key)
        elif data[0] & 0xF0 == 0x80:
            if key not in now:
                wrong.append(f"{key} ended but not struck")
            now.discard(key)
    return wrong


class UdpReceiver:
    """A real UDP socket that parses OSC."""

    def __init__(self) -> None:
        import socket

        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.1)
        self.port = int(self._socket.getsockname()[1])
        self.messages: list[tuple[str, list[Any]]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        from pythonosc.osc_message import OscMessage

        while not self._ended.is_set():
            try:
                datagram = self._socket.recv(65536)
            except TimeoutError:
                continue
            message = OscMessage(datagram)
            self.messages.append((message.address, list(message.params)))

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()
