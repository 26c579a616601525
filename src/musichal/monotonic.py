"""The clock of what runs in real time: one for all processes of a machine, never set back."""

import time
from collections.abc import Callable

_FINE_S = 0.001


def _fine_clock() -> Callable[[], float]:
    """Return `time.monotonic`; on Windows before Python 3.13, where that ticks 64 times a second, `time.perf_counter`.

    On every system both count from the start of the machine, so two processes agree.
    """
    return time.monotonic if time.get_clock_info("monotonic").resolution <= _FINE_S else time.perf_counter


now_s = _fine_clock()
"""The moment now, in seconds, for all processes of this machine alike."""
