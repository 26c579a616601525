"""What the partner plays: notes, or the same answer as slices of its recording.

Conventions
-----------
Times are seconds from the start of the stream. Channels count from 0, so that General MIDI's percussion channel, "10"
on the panel of an instrument, is 9 here.
"""

import math
from dataclasses import dataclass

PERCUSSION_CHANNEL = 9
"""The channel on which General MIDI plays drums, whatever the program."""
LONGEST_TIME_S = (2**28 - 1) / 1000
"""The largest time there is, 74 hours: the longest delta time of a MIDI file at one tick per millisecond."""


def _check_times(onset_s: float, duration_s: float) -> None:
    if not (math.isfinite(onset_s) and onset_s >= 0):
        raise ValueError(f"onset_s must be finite and not negative, not {onset_s!r}")
    if not (math.isfinite(duration_s) and duration_s > 0):
        raise ValueError(f"duration_s must be finite and positive, not {duration_s!r}")
    if onset_s + duration_s > LONGEST_TIME_S:
        raise ValueError(f"an event must end before {LONGEST_TIME_S:.0f} s")


def _check_integer(name: str, value: int, lowest: int, highest: int) -> None:
    if type(value) is not int or not lowest <= value <= highest:
        raise ValueError(f"{name} must be an integer from {lowest} to {highest}, not {value!r}")


@dataclass(frozen=True)
class NoteEvent:
    """One note to play. `pitch` is a MIDI number (0 to 127), `velocity` 1 to 127, `channel` 0 to 15.

    Raises `ValueError` for anything else: velocity 0 would be a note-off.
    """

    onset_s: float
    duration_s: float
    pitch: int
    velocity: int
    channel: int = 0

    def __post_init__(self) -> None:
        _check_times(self.onset_s, self.duration_s)
        _check_integer("pitch", self.pitch, 0, 127)
        _check_integer("velocity", self.velocity, 1, 127)
        _check_integer("channel", self.channel, 0, 15)


@dataclass(frozen=True)
class SliceEvent:
    """A stretch of recording number `recording`, from `source_start_s` on, that sounds for `duration_s`.

    `transposition_semitones` (−24 to 24) is by varispeed: the stretch that is read is longer or shorter by
    2^(transposition / 12), so that it still sounds for `duration_s`. `gain` (0 to 4) is linear. Raises `ValueError`
    for values outside these ranges.
    """

    onset_s: float
    duration_s: float
    recording: int
    source_start_s: float
    transposition_semitones: float = 0.0
    gain: float = 1.0

    def __post_init__(self) -> None:
        _check_times(self.onset_s, self.duration_s)
        if type(self.recording) is not int or self.recording < 0:
            raise ValueError(f"recording must be a number of a recording, not {self.recording!r}")
        if not (math.isfinite(self.source_start_s) and self.source_start_s >= 0):
            raise ValueError(f"source_start_s must be finite and not negative, not {self.source_start_s!r}")
        if not -24 <= self.transposition_semitones <= 24:
            raise ValueError(f"transposition_semitones must be from -24 to 24, not {self.transposition_semitones!r}")
        if not 0 <= self.gain <= 4:
            raise ValueError(f"gain must be from 0 to 4, not {self.gain!r}")
