"""Being woken in time: what each system gives an ordinary process for that, and what it gave."""

import contextlib
import ctypes
import os
import sys

PRIORITY = 8
"""Below JACK's own threads (10 by default), above everything that is not real time."""
_QOS_USER_INTERACTIVE = 0x21
_HIGH_PRIORITY_CLASS = 0x80


def raise_priority(level: int = PRIORITY) -> str:
    """Ask for the timeliest scheduling there is, for the calling thread and those it starts; returns what was given.

    `level` is that of real-time threads on Linux, from 1.
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
