"""Keys, where there is a terminal to press them at."""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

Poll = Callable[[float], str]
"""Waits up to so many seconds and returns the keys that were pressed, at most a few, or an empty text."""


@contextmanager
def keys(stream: TextIO | None = None) -> Iterator[Poll]:
    """Give single keys while the block runs; where there is no terminal, only the waiting is left. The terminal is put back."""
    stream = sys.stdin if stream is None else stream
    try:
        is_terminal = stream is not None and stream.isatty()
    except ValueError:
        is_terminal = False
    if not is_terminal:
        pause = threading.Event()

        def wait_only(timeout_s: float) -> str:
            pause.wait(timeout_s)
            return ""

        yield wait_only
    elif sys.platform == "win32":
        yield _windows_keys
    else:
        with _posix_keys(stream) as poll:
            yield poll


if sys.platform == "win32":

    def _windows_keys(timeout_s: float) -> str:
        import msvcrt

        threading.Event().wait(timeout_s)
        pressed = ""
        while msvcrt.kbhit() and len(pressed) < 16:
            pressed += msvcrt.getwch()
        return pressed

else:

    @contextmanager
    def _posix_keys(stream: TextIO) -> Iterator[Poll]:
        import os
        import select
        import termios
        import tty

        descriptor = stream.fileno()
        before = termios.tcgetattr(descriptor)

        def poll(timeout_s: float) -> str:
            ready, _, _ = select.select([descriptor], [], [], timeout_s)
            if not ready:
                return ""
            text = os.read(descriptor, 16).decode(errors="ignore")
            # Arrow keys and the like begin with Escape, which alone means to quit.
            return text if text == "\x1b" or not text.startswith("\x1b") else ""

        try:
            tty.setcbreak(descriptor)
            yield poll
        finally:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
