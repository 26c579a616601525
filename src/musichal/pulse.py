"""A pulse: beats on a straight line through time.

Conventions
-----------
Times are seconds of the input stream, periods seconds per beat: beat number k falls at ``beat_s + k * period_s``.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from musichal.arrays import Float64
from musichal.errors import InputError

SHORTEST_PERIOD_S, LONGEST_PERIOD_S = 0.1, 10.0
"""Of a pulse: 600 and 6 beats per minute."""


@dataclass(frozen=True)
class Pulse:
    """Beats at `beat_s` + k × `period_s`, known with a `confidence` from 0 to 1.

    `source` is "heard"; "memory", where it is heard and its beats were moved to where memory has them; or one of
    `musichal.partner.clocks.SOURCES`.
    """

    beat_s: float
    period_s: float
    confidence: float = 1.0
    source: str = "heard"

    def __post_init__(self) -> None:
        in_range = SHORTEST_PERIOD_S <= self.period_s <= LONGEST_PERIOD_S and 0 <= self.confidence <= 1
        if not (math.isfinite(self.beat_s) and in_range):
            raise InputError("a pulse needs a time, a period from 0.1 to 10 s per beat and a confidence from 0 to 1")

    @property
    def tempo_bpm(self) -> float:
        """Return the tempo in beats per minute."""
        return 60 / self.period_s

    def earlier(self, by_s: float) -> "Pulse":
        """Return the pulse with each beat `by_s` earlier."""
        return replace(self, beat_s=self.beat_s - by_s) if by_s else self

    def nearest_s(self, time_s: float, *, subdivision: int = 1) -> float:
        """Return the time of the nearest beat, or part of a beat."""
        step_s = self.period_s / subdivision
        return self.beat_s + round((time_s - self.beat_s) / step_s) * step_s

    def next_s(self, time_s: float, *, subdivision: int = 1) -> float:
        """Return the time of the first beat, or part of a beat, that does not lie before `time_s`."""
        step_s = self.period_s / subdivision
        return self.beat_s + math.ceil((time_s - self.beat_s) / step_s - 1e-6) * step_s


@dataclass(frozen=True)
class BeatChances:
    """Where the beats of a pulse are likely to be.

    A beat has n steps of `step_s`; `chances` (n,) has at k the probability that one begins k steps before `time_s`.
    """

    time_s: float
    step_s: float
    chances: Float64

    def of(self, pulse: Pulse) -> float:
        """Return the probability that the beats of a pulse are where it has them."""
        return float(self.chances[self._steps_before(pulse)])

    def likeliest(self, pulse: Pulse) -> int:
        """Return how many steps later the beats of a pulse are likeliest, at most half a beat; negative is earlier."""
        steps = len(self.chances)
        return (self._steps_before(pulse) - int(np.argmax(self.chances)) + steps // 2) % steps - steps // 2

    def later(self, pulse: Pulse, steps: int) -> Pulse:
        """Return a pulse that many steps later, where memory has it."""
        return replace(pulse, beat_s=round(pulse.beat_s + steps * self.step_s, 5), source="memory") if steps else pulse

    def _steps_before(self, pulse: Pulse) -> int:
        return round((self.time_s - pulse.beat_s) / self.step_s) % len(self.chances)
