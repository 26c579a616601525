"""Blocks of the live input: type, queue between two threads, clock fitted to their arrivals, duration of their callbacks.

Conventions
-----------
A position is a number of samples since the input was opened; lost samples count. Moments are `musichal.machine.now_s`.

The clock: a block arrives late by some jitter (scheduling, bursts), never early, so the least late block of a window tells the
most. A second-order delay-locked loop (F. Adriaensen, "Using a DLL to filter time", Linux Audio Conference 2005) follows those:
wide at first to lock, narrow later, so that jitter does not pass and the true rate of the device does.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from musichal.arrays import Float32
from musichal.audio.keyboard import KeyPress
from musichal.audio.midi_take import Control
from musichal.note import HeardNote

JUMP_S = 0.05
"""A window whose blocks are all this late, or one of them this early, is no jitter: the fit is anchored anew."""
_MOST_BLOCKS = 1 << 16
_WINDOW_S = 0.5
_LOCKED_AFTER_S = 2.0
_WIDE_HZ_S, _NARROW_HZ = 0.3, 0.02  # loop bandwidth: 0.3 / seconds since the start, down to 0.02 Hz
_LARGEST_STEP_S = 0.002
_LARGEST_RATE_ERROR = 0.005
_LOWEST_S, _BINS_PER_DECADE, _DECADES = 1e-6, 10, 7


@dataclass(frozen=True)
class Block:
    """Samples of the input.

    * `samples`: Shape (n, channels) as the device gives them; shape (n,), mono and finite, as a `Source` gives them.
    * `arrived_s`: When the last of the samples arrived.
    * `lost_before`: Number of samples lost directly before them.
    * `first_sample`: Position of the first sample.
    * `flags`: What the device said of it: see `musichal.live.input.input_process`.
    * `pressed`, `ended`, `ended_hits`, `controls`: Of a MIDI player the keys struck in it, the notes and drum hits that
      ended, and its other messages. Times are of the stream of samples, those lost counted.
    """

    samples: Float32
    arrived_s: float
    lost_before: int = 0
    first_sample: int = 0
    flags: int = 0
    pressed: tuple[KeyPress, ...] = ()
    ended: tuple[HeardNote, ...] = ()
    ended_hits: tuple[HeardNote, ...] = ()
    controls: tuple[Control, ...] = ()

    @property
    def end_sample(self) -> int:
        """Return the position behind the last sample."""
        return self.first_sample + len(self.samples)

    def earlier(self, by_s: float, *, rate_hz: int) -> "Block":
        """Return the block with what a MIDI player did, whose keys are counted at a rate, so much earlier."""
        samples = round(by_s * rate_hz)
        ended, hits = (
            tuple(replace(note, onset_s=max(0.0, note.onset_s - by_s)) for note in some)
            for some in (self.ended, self.ended_hits)
        )
        return replace(
            self,
            pressed=tuple(replace(key, sample=key.sample - samples) for key in self.pressed),
            ended=ended,
            ended_hits=hits,
            controls=tuple(replace(control, time_s=max(0.0, control.time_s - by_s)) for control in self.controls),
        )


class BlockQueue:
    """Passes blocks from one writing to one reading thread; neither waits.

    A block that does not fit is dropped whole; the next one that fits counts its samples in `lost_before` and has its flags.
    The blocks are in a `deque`, and each counter belongs to one side, so it is correct without the global lock too.
    `capacity_samples`: how many samples may wait.
    """

    def __init__(self, capacity_samples: int) -> None:
        if capacity_samples < 1:
            raise ValueError(f"capacity_samples must be at least 1, got {capacity_samples}")
        self.lost_samples = 0
        """Samples that did not fit, or that the writer had lost, so far."""
        self._capacity_samples = capacity_samples
        self._blocks: deque[Block] = deque()
        self._samples_in = self._lost = self._flags = 0  # the writer's
        self._samples_out = 0  # the reader's

    def put(self, samples: Float32, arrived_s: float, *, lost_before: int = 0, flags: int = 0) -> bool:
        """Add a block of shape (n, channels), which the queue keeps and nobody may change; return whether it fitted."""
        n = len(samples)
        self.lost_samples += lost_before
        self._lost += lost_before
        self._flags |= flags
        if self._samples_in - self._samples_out + n > self._capacity_samples or len(self._blocks) >= _MOST_BLOCKS:
            self.lost_samples += n
            self._lost += n
            return False
        self._samples_in += n
        self._blocks.append(Block(samples, arrived_s, self._lost, flags=self._flags))
        self._lost = self._flags = 0
        return True

    def get(self) -> Block | None:
        """Return the oldest block, None if the queue is empty."""
        try:
            block = self._blocks.popleft()
        except IndexError:
            return None
        self._samples_out += len(block.samples)
        return block

    def __len__(self) -> int:
        """Return the number of blocks that wait."""
        return len(self._blocks)


class Line(NamedTuple):
    """A line from positions to moments: through (`position`, `time_s`), `period_s` for each sample."""

    position: float
    time_s: float
    period_s: float

    def time_of(self, position: float) -> float:
        """Return the moment of a position."""
        return self.time_s + (position - self.position) * self.period_s

    def position_at(self, time_s: float) -> float:
        """Return the position at a moment."""
        return self.position + (time_s - self.time_s) / self.period_s


class ClockFit:
    """Maps positions of the input to moments and back, by a line fitted to (end of a block, its arrival).

    One thread calls `observe`; any thread may ask. The line goes through the ends of the blocks, so a sample has the moment at
    which the device took it, without the latency of converter and system. At observed positions, moments never decrease.
    `nominal_rate_hz`: the rate that the device states.
    """

    def __init__(self, nominal_rate_hz: float) -> None:
        if nominal_rate_hz <= 0:
            raise ValueError(f"nominal_rate_hz must be positive, got {nominal_rate_hz}")
        self.jumps = 0
        """How often the line was anchored anew: the system slept, or samples were lost that nobody counted."""
        self._line: Line | None = None  # replaced as a whole
        self._nominal_period_s = 1 / nominal_rate_hz
        self._started_s = self._window_since_s = self._updated_s = 0.0
        self._position = 0.0
        self._least_late_s: float | None = None

    def time_of(self, position: float) -> float:
        """Return the moment at which the device took, or will take, a sample. Raises `ValueError` before the first block."""
        return self._known_line().time_of(position)

    def position_at(self, moment_s: float) -> float:
        """Return the position of the sample that the device takes at a moment. Raises `ValueError` before the first block."""
        return self._known_line().position_at(moment_s)

    @property
    def rate_hz(self) -> float:
        """Return the estimate of the true rate."""
        return 1 / self._line.period_s if self._line else 1 / self._nominal_period_s

    def restart(self, position: float, time_s: float) -> None:
        """Anchor the line anew, and keep the estimate of the rate."""
        period = self._line.period_s if self._line else self._nominal_period_s
        self._line = Line(position, time_s, period)
        self._started_s = self._window_since_s = self._updated_s = time_s
        self._position, self._least_late_s = position, None

    def observe(self, position: float, time_s: float, *, hold_above_s: float = math.inf) -> float | None:
        """Take the position behind a block and its arrival.

        At the end of each window, return how late its least late block was, in seconds; else None. A window later than
        `hold_above_s` does not move the line: the caller may know what is missing.
        """
        line = self._line
        if line is None:
            self.restart(position, time_s)
            return None
        if position < self._position:
            raise ValueError(f"positions must not decrease, got {position} after {self._position}")
        before, self._position = self._position, position
        late_s = time_s - line.time_of(position)
        if self._least_late_s is not None:
            late_s = min(late_s, self._least_late_s)
        self._least_late_s = late_s
        age_s = time_s - self._started_s
        if time_s - self._window_since_s < min(_WINDOW_S, age_s / 4):
            return None
        self._window_since_s, self._least_late_s = time_s, None
        if late_s < hold_above_s:
            if abs(late_s) > JUMP_S:
                self.jumps += 1
                self.restart(position, max(line.time_of(position) + late_s, line.time_of(before)))
            else:
                self._step(line, position, time_s, late_s, age_s, since_last=position - before)
        return late_s

    def _step(self, line: Line, position: float, time_s: float, late_s: float, age_s: float, *, since_last: float) -> None:
        since_s, self._updated_s = time_s - self._updated_s, time_s
        if since_s <= 0:
            return
        # After a long pause the loop must not overshoot; its gains are made for windows.
        turn = 2 * math.pi * max(_NARROW_HZ, _WIDE_HZ_S / max(age_s, 0.01)) * min(since_s, _WINDOW_S, age_s)
        turn = min(turn, 0.5)
        error, period = late_s, line.period_s
        if age_s > _LOCKED_AFTER_S:
            error = min(max(error, -_LARGEST_STEP_S), _LARGEST_STEP_S)
            period += turn * turn * error / since_s * self._nominal_period_s
            low, high = (1 - _LARGEST_RATE_ERROR) * self._nominal_period_s, (1 + _LARGEST_RATE_ERROR) * self._nominal_period_s
            period = min(max(period, low), high)
        # Never back by more than half a block, so that times at observed positions never decrease.
        moved = max(math.sqrt(2) * turn * error, -since_last * line.period_s / 2)
        self._line = Line(position, line.time_of(position) + moved, period)

    def _known_line(self) -> Line:
        if self._line is None:
            raise ValueError("the clock has no time before the first block")
        return self._line


class Durations:
    """Counts durations in bins of a tenth of a decade, 1 µs to 10 s: cheap enough for an audio callback, short to send."""

    def __init__(self) -> None:
        self._counts = [0] * (_BINS_PER_DECADE * _DECADES + 1)

    def add(self, duration_s: float) -> None:
        """Count one duration; longer ones than 10 s count as 10 s."""
        decades = math.log10(duration_s / _LOWEST_S) if duration_s > _LOWEST_S else 0.0
        self._counts[min(math.ceil(decades * _BINS_PER_DECADE), len(self._counts) - 1)] += 1

    @property
    def counts(self) -> list[int]:
        """Return the count of each bin."""
        return list(self._counts)


def quantile_ms(counts: Sequence[int], share: float) -> float | None:
    """Return the duration in ms that `share` of those counted do not exceed, None for no counts.

    It is the upper edge of a bin: never too short, and at most 26 % too long.
    """
    wanted, seen = share * sum(counts), 0
    if not wanted:
        return None
    for number, count in enumerate(counts):
        seen += count
        if seen >= wanted:
            return float(1000 * _LOWEST_S * 10 ** (number / _BINS_PER_DECADE))
    return None
