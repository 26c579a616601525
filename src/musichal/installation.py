"""What is installed here: the versions of what shapes numbers, the kind of machine and its processors."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from musichal import __version__

SHAPES_NUMBERS = ("musichal", "python", "machine", "numpy", "scipy", "soxr", "soundfile")


def installed(name: str) -> str:
    """Return the version of `name` here: of a package, of ``python``, or the kind of ``machine``; "unknown" if it has none."""
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
