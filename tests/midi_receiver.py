"""What a strict receiver would mind, one that parses OSC, and a sender. In JACK: `benchmarks.jack_midi.JackReceiver`."""

import subprocess
import sys
import threading
from typing import Any

_SO_FAR = b"so far"


def unbalanced(messages: Any) -> list[str]:
    """Return what a strict receiver would mind: a note struck while it sounds, or one ended that never was struck.

    The end of a note may be told twice: after a panic or a missed cycle it is.
    """
    now: set[tuple[int, int]] = set()
    ever: set[tuple[int, int]] = set()
    wrong = []
    for data in messages:
        key = data[0] & 0x0F, data[1] if len(data) > 1 else -1
        if data[0] & 0xF0 == 0x90:
            if key in now:
                wrong.append(f"{key} struck while it sounds")
            now.add(key)
            ever.add(key)
        elif data[0] & 0xF0 == 0x80:
            if key not in ever:
                wrong.append(f"{key} ended but not struck")
            now.discard(key)
    return wrong


def minds(receiver: Any) -> list[str]:
    """Return what a JACK receiver minds; nothing where the server had xruns, in which messages are lost or come twice."""
    return [] if receiver.xruns else unbalanced(message.data for message in receiver.messages())


class MidiSender:
    """A MIDI output in JACK, `NAME:out`, that sends at once. A process of its own: two clients of one can block each other."""

    _PROGRAM = """
import sys
from musichal.live.output.jack_midi import JackPort
from musichal.live.output.scheduler_protocol import Outgoing
from musichal.machine import now_s

port = JackPort(sys.argv[1])
print("ready", flush=True)
for line in sys.stdin:
    port.send(Outgoing(bytes.fromhex(line), now_s(), now_s()))
port.close()
"""

    def __init__(self, name: str) -> None:
        command = [sys.executable, "-c", self._PROGRAM, name]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        while "ready" not in (line := self._process.stdout.readline()):  # libjack talks on standard output too
            assert line, "the sender did not start"

    def __enter__(self) -> "MidiSender":
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()

    def send(self, *data: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(bytes(data).hex() + "\n")
        self._process.stdin.flush()


class UdpReceiver:
    """A real UDP socket that parses OSC."""

    def __init__(self) -> None:
        import socket

        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.1)
        self.port = int(self._socket.getsockname()[1])
        self.messages: list[tuple[str, list[Any]]] = []
        self._ended, self._read = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def all(self) -> list[tuple[str, list[Any]]]:
        """Return what came, once all that is here already has been read: a word to itself waits behind it."""
        import socket

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(_SO_FAR, ("127.0.0.1", self.port))
        assert self._read.wait(20.0)
        self._read.clear()
        return self.messages

    def _listen(self) -> None:
        from pythonosc.osc_message import OscMessage

        while not self._ended.is_set():
            try:
                datagram = self._socket.recv(65536)
            except TimeoutError:
                continue
            if datagram == _SO_FAR:
                self._read.set()
                continue
            message = OscMessage(datagram)
            self.messages.append((message.address, list(message.params)))

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()
