"""Notes as OSC messages over UDP.

Addresses
---------
``/musichal/note/on``   channel (1 to 16), pitch, velocity (1 to 127), tag (the number that the note was asked with)
``/musichal/note/off``  channel, pitch, tag
``/musichal/midi``      any other message, as OSC's MIDI type: port 0, status, two bytes
All arguments of notes are int32. One message per datagram.
"""

import contextlib
import socket
from typing import Any

from musichal.errors import InputError, MissingExtraError, install_hint
from musichal.live.output.scheduler_protocol import Outgoing

NOTE_ON, NOTE_OFF, MIDI = "/musichal/note/on", "/musichal/note/off", "/musichal/midi"


class OscPort:
    """Sends to ``HOST:PORT``. A receiver that is not there is no error: UDP cannot know.

    Raises `InputError` for a target that is none, `MissingExtraError` without python-osc.
    """

    lead_s = 0.0

    def __init__(self, target: str) -> None:
        try:
            from pythonosc.osc_message_builder import OscMessageBuilder
        except ImportError as error:
            raise MissingExtraError(f"OSC needs python-osc: {install_hint('live')}") from error
        self._builder: Any = OscMessageBuilder
        host, colon, number = target.rpartition(":")
        if not (colon and host and number.isascii() and number.isdigit() and 1 <= int(number) <= 65535):
            raise InputError(f"osc:{target} is no target; write osc:HOST:PORT, such as osc:127.0.0.1:9001")
        host = host.removeprefix("[").removesuffix("]")
        try:
            family, _, _, _, to = socket.getaddrinfo(host, int(number), type=socket.SOCK_DGRAM)[0]
        except OSError as error:
            raise InputError(f"cannot find the OSC receiver {host}: {error.strerror or error}") from error
        self._to: Any = to
        self.name = f"OSC to {host}:{number}"
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def send(self, message: Outgoing) -> None:
        """Send one datagram; where the system has no room for it, it is lost, as datagrams may be."""
        with contextlib.suppress(OSError):  # an unreachable network comes back by itself
            self._socket.sendto(self._datagram(message), self._to)

    def _datagram(self, message: Outgoing) -> bytes:
        if message.is_on or message.is_off:
            channel, pitch = message.key
            builder = self._builder(address=NOTE_ON if message.is_on else NOTE_OFF)
            # A tag has 32 bits, OSC's integers a sign.
            tag = message.tag - (message.tag >> 31 << 32)
            for value in (channel + 1, pitch, *([message.data[2]] if message.is_on else []), tag):
                builder.add_arg(value, builder.ARG_TYPE_INT)
        else:
            builder = self._builder(address=MIDI)
            builder.add_arg((0, *message.data, *([0] * (3 - len(message.data)))), builder.ARG_TYPE_MIDI)
        datagram: bytes = builder.build().dgram
        return datagram

    def check(self) -> str | None:
        """Tell nothing: UDP cannot know."""
        return None

    def close(self, *, flush: bool = True) -> None:
        """Close the socket."""
        self._socket.close()
