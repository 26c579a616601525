"""Clocks: the pulse that the player sends, by MIDI clock, Link, OSC or a tempo."""

from collections import deque
from collections.abc import Mapping
from typing import TypeGuard

import numpy as np

from musichal.errors import InputError
from musichal.pulse import Pulse

TICKS_PER_BEAT = 24
"""Of MIDI clock."""


def clock_pulse(value: object, now_s: float) -> Pulse | None:
    """Return the pulse that a clock gives, None for a clock that has stopped.

    `value` is a `Pulse`, {"beat_s": …, "period_s": …}, a tempo from 6 to 600 beats per minute with a beat now, or None. Raises
    `InputError` for anything else.
    """
    if value is None:
        return None
    if isinstance(value, Pulse):
        return Pulse(value.beat_s, value.period_s, value.confidence, "clock")
    if _is_number(value) and 6 <= value <= 600:
        return Pulse(now_s, 60 / value, 1.0, "clock")
    if isinstance(value, Mapping) and set(value) == {"beat_s", "period_s"} and all(map(_is_number, value.values())):
        return Pulse(float(value["beat_s"]), float(value["period_s"]), 1.0, "clock")
    raise InputError(
        "clock must be a tempo in [6, 600] beats per minute, {'beat_s': second, 'period_s': seconds per beat}, or None,"
        f" got {value!r}"
    )


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


class TickClock:
    """A pulse from MIDI clock: 24 ticks a beat, their jitter smoothed by a straight line through the last ones.

    `start` says that the next tick is a beat; a tick later than `lost_s` after the one before it begins anew.
    """

    def __init__(self, *, ticks: int = 2 * TICKS_PER_BEAT, lost_s: float = 0.5) -> None:
        self._times: deque[float] = deque(maxlen=ticks)
        self._lost_s = lost_s
        self._number = -1

    def start(self) -> None:
        """Take MIDI's Start, or Continue: the next tick is a beat."""
        self._times.clear()
        self._number = -1

    def tick(self, time_s: float) -> Pulse | None:
        """Take a tick; return the pulse, or None while there are too few of them for one."""
        if self._times and not 0 < time_s - self._times[-1] <= self._lost_s:
            # The count goes on, although which tick of the beat this is is not known.
            self._times.clear()
        self._times.append(time_s)
        self._number += 1
        if len(self._times) < TICKS_PER_BEAT // 2:
            return None
        numbers = np.arange(self._number - len(self._times) + 1, self._number + 1)
        step_s, first_s = np.polyfit(numbers - self._number, np.array(self._times), 1)
        period_s = float(step_s) * TICKS_PER_BEAT
        if not 0.1 <= period_s <= 10:
            return None
        since_beat = self._number % TICKS_PER_BEAT
        return Pulse(float(first_s) - since_beat * float(step_s), period_s, 1.0, "clock")
