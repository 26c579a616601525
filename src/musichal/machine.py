"""The machine that runs MusicHal: clocks, processors, versions, cache, files, and what a process in real time asks of it."""

import contextlib
import ctypes
import gc
import hashlib
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

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


def cache_folder() -> Path:
    """Return the folder for what can be made again, ``MUSICHAL_CACHE`` or the system's; it may not exist yet."""
    named = os.environ.get("MUSICHAL_CACHE")
    if named:
        return Path(named).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "musichal" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "musichal"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "musichal"


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file; it is read once in a program, as long as it stays the same."""
    now = path.stat()
    return _sha256_as_of(path, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)


@lru_cache(maxsize=8)
def _sha256_as_of(path: Path, *_state: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _fine_clock() -> Callable[[], float]:
    """Return `time.monotonic`; on Windows before Python 3.13, where it ticks 64 times a second, `time.perf_counter`.

    Both count from the start of the machine, so that all processes agree.
    """
    return time.monotonic if time.get_clock_info("monotonic").resolution <= _FINE_S else time.perf_counter


now_s = _fine_clock()
"""Monotonic time in seconds, the same for all processes of this machine."""


PRIORITY = 8
"""Below JACK's own threads (10 by default), above everything that is not real time."""
SWITCH_INTERVAL_S = 0.0002
_QOS_USER_INTERACTIVE = 0x21
_HIGH_PRIORITY_CLASS = 0x80


def suspended_s() -> float:
    """Return how long the system was suspended since it started, so far as its clocks tell; 0 where they do not.

    On Windows `time.monotonic` itself goes on while the system sleeps. A clock on the wall that is set changes nothing here.
    """
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
    if sys.platform == "darwin":
        return time.clock_gettime(time.CLOCK_MONOTONIC) - time.clock_gettime(time.CLOCK_UPTIME_RAW)
    return 0.0


@contextlib.contextmanager
def short_pauses(interval_s: float = SWITCH_INTERVAL_S) -> Iterator[None]:
    """Keep Python's pauses short while the block runs: threads take turns often, and old objects are not collected.

    With Python's default interval of 5 ms, a thread that wakes beside the analysis was up to 5 ms late (99th percentile), with
    0.2 ms up to 2 ms. A partner is millions of objects that stay; a collection of them takes as long as many decisions.
    """
    before_s = sys.getswitchinterval()
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(min(before_s, interval_s))
    try:
        yield
    finally:
        sys.setswitchinterval(before_s)
        gc.unfreeze()


def raise_priority(level: int = PRIORITY) -> str:
    """Raise the priority of the calling thread, and of those it starts, as far as the system allows; return what was granted.

    `level` is the real-time priority on Linux, from 1.
    """
    given: str | None = None
    if sys.platform == "linux":
        given = _linux(level)
    elif sys.platform == "darwin":
        given = _macos()
    elif sys.platform == "win32":
        given = _windows()
    return given or "ordinary"


def _linux(level: int) -> str | None:
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(level))
        return f"SCHED_FIFO {level}"
    with contextlib.suppress(OSError):
        return f"niceness {os.nice(-15)}"
    return "ordinary (for real time, allow it in /etc/security/limits.d: @audio - rtprio 95)"


def _macos() -> str | None:
    with contextlib.suppress(OSError, AttributeError):
        if ctypes.CDLL(None).pthread_set_qos_class_self_np(_QOS_USER_INTERACTIVE, 0) == 0:
            return "user-interactive"
    return None


if sys.platform == "win32":

    def _windows() -> str | None:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.windll.winmm.timeBeginPeriod(1)  # waits end to the millisecond, not to the 64th of a second
            if ctypes.windll.kernel32.SetPriorityClass(ctypes.windll.kernel32.GetCurrentProcess(), _HIGH_PRIORITY_CLASS):
                return "HIGH_PRIORITY_CLASS"
        return None
