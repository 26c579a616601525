"""The types of a note: as heard, and to play. At a port a note is MIDI bytes.

Conventions
-----------
Times are in seconds. `pitch` is a MIDI number (0 to 127), `velocity` 1 to 127. Channels count from 0, so General MIDI's
percussion channel, "10" on the panel of an instrument, is 9 here. Imports no NumPy, for the scheduler process.
"""

import math
from dataclasses import dataclass, replace

Key = tuple[int, int]
"""Channel and pitch of a note to play."""
PERCUSSION_CHANNEL = 9
"""The channel on which General MIDI plays drums, whatever the program."""

DRUMS = {36: "kick", 38: "snare", 42: "closed hat", 46: "open hat", 45: "tom", 49: "cymbal"}
"""The drums that are told apart, by their key in General MIDI's drum kit."""

HEARD_NOTE_FIELDS = [("offset_s", "<f4"), ("duration_s", "<f4"), ("pitch", "u1"), ("velocity", "u1")]
"""Fields of a heard note as the memory stores it, for `numpy.dtype`; `offset_s` counts from the start of its state."""


@dataclass(frozen=True, slots=True)
class HeardNote:
    """A note that was heard. `onset_s` counts from the start of the stream or, where a function says so, of a state."""

    onset_s: float
    duration_s: float
    pitch: int
    velocity: int


@dataclass(frozen=True, slots=True)
class Note:
    """A note to play.

    `onset_s` counts from the start of the stream, for the scheduler from the origin of the machine's clock. Raises `ValueError`
    for a negative onset, a duration that is not positive, and values that MIDI cannot hold.
    """

    onset_s: float
    duration_s: float
    pitch: int
    velocity: int
    channel: int = 0

    def __post_init__(self) -> None:
        _check_times(self.onset_s, self.duration_s)
        check_integer("pitch", self.pitch, 0, 127)
        check_integer("velocity", self.velocity, 1, 127)
        check_integer("channel", self.channel, 0, 15)


@dataclass(frozen=True, slots=True)
class Slice:
    """A stretch of recording number `recording` to play, from `source_start_s` on, sounding for `duration_s`.

    `transposition_semitones` (−24 to 24) is by varispeed: the stretch that is read is longer or shorter by
    2^(transposition / 12), so that it still sounds for `duration_s`. `gain` (0 to 4) is linear. Raises `ValueError` for values
    outside these ranges.
    """

    onset_s: float
    duration_s: float
    recording: int
    source_start_s: float
    transposition_semitones: float = 0.0
    gain: float = 1.0

    def __post_init__(self) -> None:
        _check_times(self.onset_s, self.duration_s)
        check_integer("recording", self.recording, 0, 2**32 - 1)
        if not (math.isfinite(self.source_start_s) and self.source_start_s >= 0):
            raise ValueError(f"source_start_s must be finite and not negative, got {self.source_start_s!r}")
        if not -24 <= self.transposition_semitones <= 24:
            raise ValueError(f"transposition_semitones must be in [-24, 24], got {self.transposition_semitones!r}")
        if not 0 <= self.gain <= 4:
            raise ValueError(f"gain must be in [0, 4], got {self.gain!r}")

    def at(self, onset_s: float) -> "Slice":
        """Return the same slice at another onset."""
        return replace(self, onset_s=onset_s)


def check_integer(name: str, value: int, lowest: int, highest: int) -> None:
    """Raise `ValueError` unless `value` is an `int` in [`lowest`, `highest`]."""
    if type(value) is not int or not lowest <= value <= highest:
        raise ValueError(f"{name} must be an integer in [{lowest}, {highest}], got {value!r}")


def _check_times(onset_s: float, duration_s: float) -> None:
    if not (math.isfinite(onset_s) and onset_s >= 0):
        raise ValueError(f"onset_s must be finite and not negative, got {onset_s!r}")
    if not (math.isfinite(duration_s) and duration_s > 0):
        raise ValueError(f"duration_s must be finite and positive, got {duration_s!r}")
