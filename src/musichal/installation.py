"""What is installed here: the versions of what shapes numbers, and the kind of machine."""

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
