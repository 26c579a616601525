"""What the scheduler's two sides say to each other: frames over a stream socket, fixed records where there are many.

A frame is its length, its kind and its body. Nothing in it can run; the two sides are one program of one version.
"""

import json
import struct
from collections.abc import Iterator
from typing import Any

from musichal.live.output.messages import Control, Message, Note, Outgoing, SliceSource

# To the scheduler.
NOTE, CONTROL, ALIVE, CANCEL, PANIC, MUTE, CLOSE, CONFIG = range(1, 9)
# From the scheduler.
SENT, READY, FAILED, TROUBLE, COUNTS = range(101, 106)

_HEADER = struct.Struct("<IB")
_NOTE = struct.Struct("<ddfIBBBB")
_SLICE = struct.Struct("<Iddd")
_CONTROL = struct.Struct("<dIB")
_MOMENT = struct.Struct("<d")
_SENT = struct.Struct("<dddIB")
LONGEST_BODY = 1 << 20


def frame(kind: int, body: bytes = b"") -> bytes:
    """Return a whole frame."""
    return _HEADER.pack(len(body), kind) + body


def message_frame(message: Message, port: int) -> bytes:
    """Return the frame of a note or a control for the port number `port`."""
    if isinstance(message, Note):
        m = message
        body = _NOTE.pack(m.due_s, m.duration_s, m.bend_semitones, m.tag, port, m.channel, m.pitch, m.velocity)
        if m.source is not None:
            s = m.source
            body += _SLICE.pack(s.recording, s.source_start_s, s.transposition_semitones, s.gain)
        return frame(NOTE, body)
    return frame(CONTROL, _CONTROL.pack(message.due_s, message.tag, port) + message.data)


def read_message(kind: int, body: bytes) -> tuple[int, Message]:
    """Return the port number and the message of a frame."""
    if kind == NOTE:
        due_s, duration_s, bend, tag, port, channel, pitch, velocity = _NOTE.unpack_from(body)
        source = SliceSource(*_SLICE.unpack_from(body, _NOTE.size)) if len(body) > _NOTE.size else None
        return port, Note(due_s, duration_s, "", pitch, velocity, channel, tag, bend, source)
    due_s, tag, port = _CONTROL.unpack_from(body)
    return port, Control(due_s, "", body[_CONTROL.size :], tag)


def moment_frame(kind: int, moment_s: float) -> bytes:
    """Return a frame that holds a moment."""
    return frame(kind, _MOMENT.pack(moment_s))


def read_moment(body: bytes) -> float:
    """Return the moment in a frame."""
    moment_s: float = _MOMENT.unpack(body)[0]
    return moment_s


def sent_frame(message: Outgoing, sent_s: float, port: int) -> bytes:
    """Return the frame that tells of a message that left."""
    return frame(SENT, _SENT.pack(sent_s, message.target_s, message.ready_s, message.tag, port) + message.data)


def read_sent(body: bytes) -> tuple[int, float, Outgoing]:
    """Return the port number, when it left, and the message."""
    sent_s, target_s, ready_s, tag, port = _SENT.unpack_from(body)
    return port, sent_s, Outgoing(body[_SENT.size :], target_s, ready_s, tag)


def json_frame(kind: int, values: dict[str, Any]) -> bytes:
    """Return a frame that holds a JSON object."""
    return frame(kind, json.dumps(values).encode())


def read_json(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a frame."""
    values: dict[str, Any] = json.loads(body)
    return values


class FrameBuffer:
    """Puts frames together again that came in pieces."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def __len__(self) -> int:
        return len(self._bytes)

    def add(self, piece: bytes) -> None:
        """Take what was received."""
        self._bytes += piece

    def frames(self, most: int) -> Iterator[tuple[int, bytes]]:
        """Give up to `most` whole frames, as (kind, body), and forget them. Raises `ValueError` for nonsense."""
        at = 0
        try:
            for _ in range(most):
                if len(self._bytes) - at < _HEADER.size:
                    return
                length, kind = _HEADER.unpack_from(self._bytes, at)
                if length > LONGEST_BODY:
                    raise ValueError("not a frame")
                end = at + _HEADER.size + length
                if len(self._bytes) < end:
                    return
                body = bytes(self._bytes[at + _HEADER.size : end])
                at = end
                yield kind, body
        finally:
            del self._bytes[:at]
