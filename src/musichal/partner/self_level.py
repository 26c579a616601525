"""How loud the partner's own sound is in the microphone, learned while both play.

Power adds: what is heard is the player's power and the partner's. The partner's follows from its notes, up to how loud its
instrument is and how that fades, which nobody tells it. So the power of a note is taken as a step function of its age and,
behind its end, of how long it has been released; the heights of the steps are least squares over what was heard lately, none
below zero, and beside them stands a constant for the player (linear regression with forgetting; non-negative least squares by
coordinate descent, Franc, Hlaváč & Navara 2005). A frame is weighed by the inverse of its power, as the player's loud
moments must not speak louder than the partner's. As far as the player's loudness does not go along with the partner's
notes it does not count for them.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from musichal.arrays import AnyArray, Float64
from musichal.partner.decision import PlannedNote

_AGES_S = (0.0, 0.08, 0.2, 0.5, 1.2, 4.0)
_RELEASED_S = (0.0, 0.2, 0.6, 1.5)
_STEPS = len(_AGES_S) + len(_RELEASED_S) - 2
_SOUNDS_LATE_S = 0.015
# Amplitude grows with about the 1.5th power of velocity, between the linear synthesisers and those that square it.
_VELOCITY_POWER = 3.0
_FORGETS_S = 12.0
_FLOOR = 1e-7
_SWEEPS = 8
RINGS_S = _RELEASED_S[-1]
"""For how long behind its end a note is reckoned with."""


class SelfLevel:
    """Learns the power of the partner's own sound from what is heard while it sounds."""

    def __init__(self) -> None:
        # The player's constant is the last.
        self._products: Float64 = np.zeros((_STEPS + 1, _STEPS + 1))
        self._with_power: Float64 = np.zeros(_STEPS + 1)
        self._heights: Float64 = np.zeros(_STEPS + 1)
        self._heard_s: float | None = None

    def hear(self, times_s: AnyArray, level_db: AnyArray, notes: Sequence[PlannedNote]) -> None:
        """Take what was heard, levels in dBFS at times of shape (n,), while `notes` sounded."""
        if not len(times_s):
            return
        power = 10 ** (np.asarray(level_db, dtype=np.float64) / 10)
        steps = np.column_stack([_steps(times_s, notes), np.ones(len(times_s))])
        weighed = steps / (power + _FLOOR)[:, None]
        now_s = float(times_s[-1])
        fade = 0.0 if self._heard_s is None else float(np.exp((self._heard_s - now_s) / _FORGETS_S))
        self._heard_s = now_s
        self._products = fade * self._products + weighed.T @ steps
        self._with_power = fade * self._with_power + weighed.T @ power
        self._fit()

    def expected(self, times_s: AnyArray, notes: Sequence[PlannedNote]) -> Float64:
        """Return the power that notes have at each time, shape (n,), full scale being 1."""
        return np.asarray(_steps(times_s, notes) @ self._heights[:-1], dtype=np.float64)

    def _fit(self) -> None:
        """Go on from the heights that there are: they change little from one percept to the next."""
        heights, products = self._heights, self._products
        for _ in range(_SWEEPS):
            for k in range(len(heights)):
                if products[k, k] > 0:
                    miss = float(self._with_power[k] - products[k] @ heights)
                    heights[k] = max(0.0, heights[k] + miss / products[k, k])


def _steps(times_s: AnyArray, notes: Sequence[PlannedNote]) -> Float64:
    """Return how much of notes is of each age, or released for so long, at each time, shape (n, _STEPS)."""
    out = np.zeros((len(times_s), _STEPS))
    if not len(times_s):
        return out
    first_s, last_s = float(times_s[0]), float(times_s[-1])
    near = [n for n in notes if n.onset_s <= last_s and n.onset_s + n.duration_s + _SOUNDS_LATE_S + RINGS_S >= first_s]
    if not near:
        return out
    onset_s = np.array([n.onset_s for n in near])[:, None] + _SOUNDS_LATE_S
    end_s = onset_s + np.array([n.duration_s for n in near])[:, None]
    weight = (np.array([n.velocity for n in near]) / 127.0) ** _VELOCITY_POWER
    age_s, released_s = times_s[None, :] - onset_s, times_s[None, :] - end_s
    held = released_s < 0
    for k, (begin_s, until_s) in enumerate(pairwise(_AGES_S)):
        out[:, k] = weight @ (held & (age_s >= begin_s) & (age_s < until_s))
    for k, (begin_s, until_s) in enumerate(pairwise(_RELEASED_S), start=len(_AGES_S) - 1):
        out[:, k] = weight @ ((released_s >= begin_s) & (released_s < until_s))
    return out
