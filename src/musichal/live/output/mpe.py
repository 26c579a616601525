"""MIDI Polyphonic Expression: a channel for every note, so that each can be bent by itself.

References
----------
MIDI Polyphonic Expression 1.1 (MIDI Association, M1-100-UM): the configuration message is RPN 6 on the master channel;
RPN 0 is the range of the bend; a note gets the channel that has been free for longest, and its bend before its note-on.
"""

from collections import deque
from dataclasses import dataclass

_BEND_CENTRE = 8192


@dataclass(frozen=True, slots=True)
class MpeZone:
    """The lower zone: master on channel 0, `members` (1 to 15) above it, bent by up to `bend_semitones` (1 to 96)."""

    members: int = 15
    bend_semitones: int = 48

    def __post_init__(self) -> None:
        if type(self.members) is not int or not 1 <= self.members <= 15:
            raise ValueError(f"members must be an integer from 1 to 15, not {self.members!r}")
        if type(self.bend_semitones) is not int or not 1 <= self.bend_semitones <= 96:
            raise ValueError(f"bend_semitones must be an integer from 1 to 96, not {self.bend_semitones!r}")

    @property
    def channels(self) -> range:
        """The member channels."""
        return range(1, self.members + 1)


def _registered(channel: int, parameter: int, value: int) -> list[bytes]:
    """Return the messages that set a registered parameter, and then leave it, so that stray data cannot change it."""
    pairs = ((101, 0), (100, parameter), (6, value), (38, 0), (101, 127), (100, 127))
    return [bytes((0xB0 | channel, controller, number)) for controller, number in pairs]


def configuration(zone: MpeZone) -> list[bytes]:
    """Return the messages that set up the zone: the configuration message, then the range of bend on each member."""
    # The MCM has no LSB of data, and parameters of zero bytes after it are ignored by receivers that want none.
    messages = _registered(0, 6, zone.members)
    for channel in zone.channels:
        messages += _registered(channel, 0, zone.bend_semitones)
        messages += [bend(0.0, zone, channel), bytes((0xD0 | channel, 0)), bytes((0xB0 | channel, 74, 64))]
    return messages


def bend(semitones: float, zone: MpeZone, channel: int) -> bytes:
    """Return the pitch bend of `semitones` on a member channel, as far as the zone's range goes."""
    steps = round(semitones / zone.bend_semitones * _BEND_CENTRE)
    value = min(max(_BEND_CENTRE + steps, 0), 2 * _BEND_CENTRE - 1)
    return bytes((0xE0 | channel, value & 0x7F, value >> 7))


class MpeChannels:
    """Which member channel is free, and for how long: the longest first."""

    def __init__(self, zone: MpeZone) -> None:
        self._free = deque(zone.channels)
        self._busy: deque[int] = deque()

    @property
    def free(self) -> int:
        """How many channels no note sounds on."""
        return len(self._free)

    @property
    def oldest(self) -> int | None:
        """The channel whose note began first, or None where nothing sounds."""
        return self._busy[0] if self._busy else None

    def take(self) -> int:
        """Give a note the channel that has been free for longest; raises `IndexError` where none is."""
        channel = self._free.popleft()
        self._busy.append(channel)
        return channel

    def release(self, channel: int) -> None:
        """Take back the channel of a note that ended."""
        self._busy.remove(channel)
        self._free.append(channel)
