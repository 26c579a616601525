"""When samples really came in: a line through the times at which blocks arrived.

A block arrives late by some jitter (scheduling, bursts), never early, so the least late block of a window tells the most. A
second-order delay-locked loop (F. Adriaensen, "Using a DLL to filter time", Linux Audio Conference 2005) follows those: wide
at first to lock, narrow later, so that jitter does not pass and the true rate of the device, some ten parts per million off
its nominal one, does.
"""

import math
from typing import NamedTuple

_WINDOW_S = 0.5
_LOCKED_AFTER_S = 2.0
_WIDE_HZ_S, _NARROW_HZ = 0.3, 0.02  # loop bandwidth: 0.3 / seconds since the start, down to 0.02 Hz
_LARGEST_STEP_S = 0.002
_LARGEST_RATE_ERROR = 0.005


class Line(NamedTuple):
    """Sample position against `time.monotonic`: through (`position`, `time_s`), `period_s` for each sample."""

    position: float
    time_s: float
    period_s: float

    def time_of(self, position: float) -> float:
        """Return the time of a position."""
        return self.time_s + (position - self.position) * self.period_s

    def position_at(self, time_s: float) -> float:
        """Return the position at a time."""
        return self.position + (time_s - self.time_s) / self.period_s


class ArrivalFilter:
    """Follows (position behind a block, time of its arrival), in order.

    Attributes
    ----------
    line : Line or None
        The best estimate so far, replaced as a whole (other threads may read it); None before the first block.
    """

    def __init__(self, nominal_rate_hz: float) -> None:
        self.line: Line | None = None
        self._nominal_period_s = 1 / nominal_rate_hz
        self._started_s = self._window_since_s = self._updated_s = 0.0
        self._position = 0.0
        self._least_late_s: float | None = None

    def restart(self, position: float, time_s: float) -> None:
        """Begin anew at a place, and keep the rate found so far."""
        period = self.line.period_s if self.line else self._nominal_period_s
        self.line = Line(position, time_s, period)
        self._started_s = self._window_since_s = self._updated_s = time_s
        self._position, self._least_late_s = position, None

    def observe(self, position: float, time_s: float, *, hold_above_s: float = math.inf) -> float | None:
        """Take one arrival; at the end of each window return how late its least late block was, in seconds, else None.

        A window that is later than `hold_above_s` leaves the line as it is: the caller may know better what it means.
        """
        if self.line is None:
            self.restart(position, time_s)
            return None
        before, self._position = self._position, position
        late_s = time_s - self.line.time_of(position)
        if self._least_late_s is not None:
            late_s = min(late_s, self._least_late_s)
        self._least_late_s = late_s
        age_s = time_s - self._started_s
        if time_s - self._window_since_s < min(_WINDOW_S, age_s / 4):
            return None
        if late_s < hold_above_s:
            self._step(position, time_s, late_s, age_s, since_last=position - before)
        self._window_since_s, self._least_late_s = time_s, None
        return late_s

    def _step(self, position: float, time_s: float, late_s: float, age_s: float, *, since_last: float) -> None:
        assert self.line is not None
        since_s, self._updated_s = time_s - self._updated_s, time_s
        if since_s <= 0:
            return
        # After a long pause the loop must not overshoot; its gains are made for windows.
        turn = 2 * math.pi * max(_NARROW_HZ, _WIDE_HZ_S / max(age_s, 0.01)) * min(since_s, _WINDOW_S, age_s)
        turn = min(turn, 0.5)
        error, period = late_s, self.line.period_s
        if age_s > _LOCKED_AFTER_S:
            error = min(max(error, -_LARGEST_STEP_S), _LARGEST_STEP_S)
            period += turn * turn * error / since_s * self._nominal_period_s
            low, high = (1 - _LARGEST_RATE_ERROR) * self._nominal_period_s, (1 + _LARGEST_RATE_ERROR) * self._nominal_period_s
            period = min(max(period, low), high)
        # Never back by more than half a block, so that times at observed positions never decrease.
        moved = max(math.sqrt(2) * turn * error, -since_last * self.line.period_s / 2)
        self.line = Line(position, self.line.time_of(position) + moved, period)
