"""What is asked of the scheduler, and what it tells of.

Conventions
-----------
Moments are seconds of `musichal.machine.now_s`, absolute. Channels count from 0. A note is one value with its end in
it, so that nothing that is lost on the way can leave a note without its end; a note-on or a note-off by itself cannot be
asked for.
"""

import math
from dataclasses import dataclass

LONGEST_NOTE_S = 3600.0
_REAL_TIME = (0xF8, 0xFA, 0xFB, 0xFC)
_LENGTHS = {0xA0: 3, 0xB0: 3, 0xC0: 2, 0xD0: 2, 0xE0: 3}


def _check_moment(due_s: float) -> None:
    if not math.isfinite(due_s):
        raise ValueError(f"due_s must be finite, not {due_s!r}")


def _check_number(name: str, value: int, lowest: int, highest: int) -> None:
    if type(value) is not int or not lowest <= value <= highest:
        raise ValueError(f"{name} must be an integer from {lowest} to {highest}, not {value!r}")


@dataclass(frozen=True, slots=True)
class SliceSource:
    """Where a slice comes from; ranges as of `musichal.note.Slice`. Raises `ValueError` outside of them."""

    recording: int
    source_start_s: float
    transposition_semitones: float = 0.0
    gain: float = 1.0

    def __post_init__(self) -> None:
        _check_number("recording", self.recording, 0, 2**32 - 1)
        if not (math.isfinite(self.source_start_s) and self.source_start_s >= 0):
            raise ValueError(f"source_start_s must be finite and not negative, not {self.source_start_s!r}")
        if not -24 <= self.transposition_semitones <= 24:
            raise ValueError(f"transposition_semitones must be from -24 to 24, not {self.transposition_semitones!r}")
        if not 0 <= self.gain <= 4:
            raise ValueError(f"gain must be from 0 to 4, not {self.gain!r}")


@dataclass(frozen=True, slots=True)
class Note:
    """A note to play at `due_s` on the port named `port`; `tag` comes back with what was sent.

    With a `source` it is a slice of a recording, for a port that plays those (`slice_note`), one at a time.
    `bend_semitones` is heard on MPE ports, where `channel` is chosen by the scheduler. Raises `ValueError` for what no
    MIDI message can hold, and for a duration that is not between 0 and an hour.
    """

    due_s: float
    duration_s: float
    port: str
    pitch: int
    velocity: int
    channel: int = 0
    tag: int = 0
    bend_semitones: float = 0.0
    source: SliceSource | None = None

    def __post_init__(self) -> None:
        _check_moment(self.due_s)
        if not 0 < self.duration_s <= LONGEST_NOTE_S:
            raise ValueError(f"duration_s must be above 0 and at most {LONGEST_NOTE_S:.0f}, not {self.duration_s!r}")
        _check_number("pitch", self.pitch, 0, 127)
        _check_number("velocity", self.velocity, 1, 127)
        _check_number("channel", self.channel, 0, 15)
        _check_number("tag", self.tag, 0, 2**32 - 1)
        if not -96 <= self.bend_semitones <= 96:
            raise ValueError(f"bend_semitones must be from -96 to 96, not {self.bend_semitones!r}")


@dataclass(frozen=True, slots=True)
class Control:
    """One MIDI message other than a note: a controller, a program, a bend, pressure, or a message of the MIDI clock.

    Raises `ValueError` for anything else, notes among it: a note is asked for as a `Note`, so that it ends.
    """

    due_s: float
    port: str
    data: bytes
    tag: int = 0

    def __post_init__(self) -> None:
        _check_moment(self.due_s)
        _check_number("tag", self.tag, 0, 2**32 - 1)
        data = self.data
        if len(data) == 1 and data[0] in _REAL_TIME:
            return
        if not data or len(data) != _LENGTHS.get(data[0] & 0xF0) or any(byte > 127 for byte in data[1:]):
            raise ValueError(f"not a message of a controller, a program, a bend, pressure or the clock: {data.hex(' ')!r}")


Message = Note | Control


def slice_note(due_s: float, duration_s: float, port: str, source: SliceSource, *, tag: int = 0) -> Note:
    """Return the message for a slice: all slices are one key, so that each ends the one before. Raises as `Note` does."""
    return Note(due_s, duration_s, port, pitch=0, velocity=127, tag=tag, source=source)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message on its way to a port.

    It was to leave at `target_s` (its moment less the latency of the port) and could have left at `ready_s`, which is
    later where it was asked for too late. `again` marks the end of a note that has ended already, told once
    more. `note` is there where a slice is struck.
    """

    data: bytes
    target_s: float
    ready_s: float
    tag: int = 0
    again: bool = False
    note: Note | None = None

    @property
    def is_on(self) -> bool:
        """Whether this strikes a note."""
        return self.data[0] & 0xF0 == 0x90

    @property
    def is_off(self) -> bool:
        """Whether this ends a note."""
        return self.data[0] & 0xF0 == 0x80

    @property
    def key(self) -> tuple[int, int]:
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


@dataclass(frozen=True, slots=True)
class Statistics:
    """What the scheduler has done since it began, over all ports; times in seconds.

    Lateness is of the latest 8192 messages of notes. `behind`: messages that were asked for after they should have left.
    Notes that were not played: too `late`, `muted`, `cancelled`, dropped while MusicHal was `silent`, too many to be kept
    (`refused`), or striking a key at the moment of another (`merged`). `stolen`: notes cut because MPE had no channel left.
    `unsent`: messages that a port did not take. `events_lost`: events that nobody fetched.
    """

    lateness_p50_s: float = 0.0
    lateness_p99_s: float = 0.0
    lateness_max_s: float = 0.0
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
