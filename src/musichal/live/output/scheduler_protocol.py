"""What the two sides of the scheduler say to each other: settings, messages, and their frames on a stream socket.

Conventions
-----------
Moments are absolute seconds of `musichal.machine.now_s`. A note is one value with its end in it, so that nothing that is
lost on the way can leave a note without its end; a note-on or a note-off by itself cannot be asked for. A frame is its
length, its kind and its body. Nothing in it can run; the two sides are one program of one version.
"""

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from musichal.note import Key, Note, Slice, check_integer

LONGEST_NOTE_S = 3600.0
"""A longer note ends after this time."""
LONGEST_LATENCY_S = 1.0
MOST_PORTS = 32


@dataclass(frozen=True, slots=True)
class MpeZone:
    """The lower zone: master on channel 0, `members` (1 to 15) above it, bent by up to `bend_semitones` (1 to 96)."""

    members: int = 15
    bend_semitones: int = 48

    def __post_init__(self) -> None:
        check_integer("members", self.members, 1, 15)
        check_integer("bend_semitones", self.bend_semitones, 1, 96)

    @property
    def channels(self) -> range:
        """The member channels."""
        return range(1, self.members + 1)


@dataclass(frozen=True, slots=True)
class PortSettings:
    """A port: the name that notes are sent to, its address (as `ports.ADDRESSES` lists them), and how to treat it.

    Messages leave `latency_s` (0 to 1) early, for the time that the instrument behind the port takes to sound. `zone` makes
    it an MPE port. `setup` are messages that the port gets first, each time it is opened. A port that `is_clock` gets MIDI
    clock and no notes. Raises `ValueError` for values out of range.
    """

    name: str
    address: str
    latency_s: float = 0.0
    zone: MpeZone | None = None
    setup: tuple[bytes, ...] = ()
    is_clock: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.latency_s) and 0 <= self.latency_s <= LONGEST_LATENCY_S):
            raise ValueError(f"latency_s must be in [0, {LONGEST_LATENCY_S:g}], got {self.latency_s!r}")


@dataclass(frozen=True, slots=True)
class Outgoing:
    """MIDI bytes on their way to a port.

    They were to leave at `target_s` (their moment less the latency of the port) and could have left at `ready_s`, which is
    later where they were asked for too late. `again` marks a repeated note-off of a note that has ended already. `slice` is
    set where a slice of a recording begins.
    """

    data: bytes
    target_s: float
    ready_s: float
    tag: int = 0
    again: bool = False
    slice: Slice | None = None

    @property
    def is_on(self) -> bool:
        """Whether this is a note-on."""
        return self.data[0] & 0xF0 == 0x90

    @property
    def is_off(self) -> bool:
        """Whether this is a note-off."""
        return self.data[0] & 0xF0 == 0x80

    @property
    def key(self) -> Key:
        """Channel and pitch, where it is a note."""
        return self.data[0] & 0x0F, self.data[1]


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that left for `port` at `sent_s`. `lateness_s` is the scheduler's own: from when it could have left."""

    port: str
    data: bytes
    sent_s: float
    target_s: float
    lateness_s: float
    tag: int


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that a player should know: one line. `kind` is a fixed word for programs.

    Kinds: ``port-lost``, ``port-back``, ``port``, ``silent`` (the parent was), ``jump`` (of the clock), ``notice``,
    ``gone`` (the scheduler's process is), ``unresponsive`` (it does not answer).
    """

    at_s: float
    kind: str
    text: str
    port: str | None = None


Event = Sent | Trouble


@dataclass(slots=True)
class Counts:
    """What became of notes, and of the messages made of them.

    `behind`: notes asked for after they should have left. Notes that were not played: too `late`, `muted`, `cancelled` by a
    panic, dropped while MusicHal was `silent`, too many to be kept (`refused`), or striking a key at the moment of another
    (`merged`). `stolen`: notes cut because MPE had no channel left. `unsent`: messages that a port did not take.
    `events_lost`: events that nobody fetched.
    """

    struck: int = 0
    ended: int = 0
    behind: int = 0
    late: int = 0
    muted: int = 0
    cancelled: int = 0
    silent: int = 0
    refused: int = 0
    stolen: int = 0
    merged: int = 0
    unsent: int = 0
    events_lost: int = 0


@dataclass(slots=True)
class Statistics(Counts):
    """The counts of all ports since the scheduler began, and the lateness of the latest 8192 messages of notes."""

    lateness_p50_s: float = 0.0
    lateness_p99_s: float = 0.0
    lateness_max_s: float = 0.0


# To the scheduler.
NOTE, ALIVE, PANIC, MUTE, CLOSE, CONFIG, ORIGIN, PULSE, FORWARD = range(1, 10)
# From the scheduler.
SENT, READY, FAILED, TROUBLE, COUNTS = range(101, 106)

_HEADER = struct.Struct("<IB")
_NOTE = struct.Struct("<ddfIBBBB")
_SLICE = struct.Struct("<Iddd")
_SENT = struct.Struct("<dddIB")
_PULSE = struct.Struct("<ddB")
_LONGEST_BODY = 1 << 20


def frame(kind: int, body: bytes = b"") -> bytes:
    """Return a whole frame."""
    return _HEADER.pack(len(body), kind) + body


def json_frame(kind: int, values: dict[str, Any]) -> bytes:
    """Return a frame that holds a JSON object; bytes in it are written as hexadecimal digits."""
    return frame(kind, json.dumps(values, default=bytes.hex).encode())


def read_port_settings(values: dict[str, Any]) -> PortSettings:
    """Return the settings of a port from its JSON object."""
    zone = MpeZone(**values["zone"]) if values["zone"] else None
    return PortSettings(**values | {"zone": zone, "setup": tuple(bytes.fromhex(text) for text in values["setup"])})


def note_frame(event: Note | Slice, port: int, *, tag: int = 0, bend_semitones: float = 0.0) -> bytes:
    """Return the frame of a note or a slice for the port number `port`."""
    if isinstance(event, Note):
        key = event.channel, event.pitch, event.velocity
        return frame(NOTE, _NOTE.pack(event.onset_s, event.duration_s, bend_semitones, tag, port, *key))
    body = _NOTE.pack(event.onset_s, event.duration_s, 0.0, tag, port, 0, 0, 127)
    return frame(NOTE, body + _SLICE.pack(event.recording, event.source_start_s, event.transposition_semitones, event.gain))


def read_note(body: bytes) -> tuple[int, Note | Slice, int, float]:
    """Return port number, note or slice, tag, and bend in semitones."""
    onset_s, duration_s, bend_semitones, tag, port, channel, pitch, velocity = _NOTE.unpack_from(body)
    if len(body) > _NOTE.size:
        return port, Slice(onset_s, duration_s, *_SLICE.unpack_from(body, _NOTE.size)), tag, 0.0
    return port, Note(onset_s, duration_s, pitch, velocity, channel), tag, bend_semitones


def pulse_frame(beat_s: float, period_s: float, port: int) -> bytes:
    """Return the frame of a pulse for the clock on a port; a period of 0 stops it."""
    return frame(PULSE, _PULSE.pack(beat_s, period_s, port))


def read_pulse(body: bytes) -> tuple[float, float, int]:
    """Return beat, period and port number."""
    beat_s, period_s, port = _PULSE.unpack(body)
    return beat_s, period_s, port


def sent_frame(message: Outgoing, sent_s: float, port: int) -> bytes:
    """Return the frame of a message that left."""
    return frame(SENT, _SENT.pack(sent_s, message.target_s, message.ready_s, message.tag, port) + message.data)


def read_sent(body: bytes) -> tuple[int, float, Outgoing]:
    """Return the port number, when it left, and the message."""
    sent_s, target_s, ready_s, tag, port = _SENT.unpack_from(body)
    return port, sent_s, Outgoing(body[_SENT.size :], target_s, ready_s, tag)


class FrameBuffer:
    """Joins the pieces in which frames arrive."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def __len__(self) -> int:
        return len(self._bytes)

    def add(self, piece: bytes) -> None:
        """Take what was received."""
        self._bytes += piece

    def frames(self, most: int) -> Iterator[tuple[int, bytes]]:
        """Yield up to `most` whole frames as (kind, body), and forget them. Raises `ValueError` for what is no frame."""
        at = 0
        try:
            for _ in range(most):
                if len(self._bytes) - at < _HEADER.size:
                    return
                length, kind = _HEADER.unpack_from(self._bytes, at)
                if length > _LONGEST_BODY:
                    raise ValueError("not a frame")
                end = at + _HEADER.size + length
                if len(self._bytes) < end:
                    return
                body = bytes(self._bytes[at + _HEADER.size : end])
                at = end
                yield kind, body
        finally:
            del self._bytes[:at]
