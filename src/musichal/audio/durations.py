"""How long something takes, counted in bins: cheap enough for an audio callback, small enough to send.

Bins are a tenth of a decade wide, from 1 µs to 10 s; a quantile is the upper edge of the bin it falls in, so at most 26 % too
long, and never too short.
"""

import math
from collections.abc import Sequence

_LOWEST_S, _BINS_PER_DECADE, _DECADES = 1e-6, 10, 7


class Durations:
    """Counts durations."""

    def __init__(self) -> None:
        self._counts = [0] * (_BINS_PER_DECADE * _DECADES + 1)

    def add(self, duration_s: float) -> None:
        """Count one duration; what is longer than 10 s counts as that."""
        decades = math.log10(duration_s / _LOWEST_S) if duration_s > _LOWEST_S else 0.0
        self._counts[min(math.ceil(decades * _BINS_PER_DECADE), len(self._counts) - 1)] += 1

    @property
    def counts(self) -> list[int]:
        """Return the count of each bin."""
        return list(self._counts)


def quantile_ms(counts: Sequence[int], share: float) -> float | None:
    """Return the duration that `share` of those counted do not exceed, in ms; None where nothing was counted."""
    wanted, seen = share * sum(counts), 0
    if not wanted:
        return None
    for number, count in enumerate(counts):
        seen += count
        if seen >= wanted:
            return float(1000 * _LOWEST_S * 10 ** (number / _BINS_PER_DECADE))
    return None
