"""The machine that runs MusicHal: its clock, its processors, and the versions of what shapes numbers."""

import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from musichal import __version__

SHAPES_NUMBERS = ("musichal", "python", "machine", "numpy", "scipy", "soxr", "soundfile")
"""What `installed` is asked for when a partner is trained."""
_FINE_S = 0.001


def installed(name: str) -> str:
    """Return the version of a package or of ``python``, or the kind of ``machine``; "unknown" for an unknown package."""
    if name == "musichal":
        return __version__
    if name == "python":
        return platform.python_version()
    if name == "machine":
        return platform.machine()
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def processors() -> int:
    """Return how many processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _fine_clock() -> Callable[[], float]:
    """Return `time.monotonic`; on Windows before Python 3.13, where it ticks 64 times a second, `time.perf_counter`.

    Both count from the start of the machine, so that all processes agree.
    """
    return time.monotonic if time.get_clock_info("monotonic").resolution <= _FINE_S else time.perf_counter


now_s = _fine_clock()
"""Monotonic time in seconds, the same for all processes of this machine."""
