"""The program, as `musichal` and as `python -m musichal`: runs the command line and handles signals from its first moment.

SIGINT (Ctrl-C), SIGTERM and SIGHUP (closed terminal) have the same effect, also while modules are being imported:
half-written files are removed, one line is printed, and the exit code is 128 plus the signal's number. Repeated signals within
one second are ignored, so that they cannot interrupt the clean-up.

Python drops an exception that is raised inside a callback of its own, such as a finaliser; it runs many while it imports
modules. A signal whose exception is dropped is sent again.
"""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    del sys.path[0]  # `python -m` puts the current folder there, and a json.py in it would be imported (CWE-427)

import _thread
import contextlib
import signal
import threading
import time
from types import FrameType
from typing import Any

_IMPATIENCE_S = 1.0
_AGAIN_S = 0.01


class _Stopped(KeyboardInterrupt):
    """A `KeyboardInterrupt` of our own: `python -m` ends as if killed when it sees `KeyboardInterrupt` itself."""


class _Stop:
    """Turn signals into `KeyboardInterrupt`, except signals that are ignored or handled already."""

    def __init__(self) -> None:
        self.number = 0
        self._come_s = -_IMPATIENCE_S
        names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
        usual = (signal.SIG_DFL, signal.default_int_handler)
        self._numbers = [signal.Signals[name] for name in names if signal.getsignal(signal.Signals[name]) in usual]
        for number in self._numbers:
            signal.signal(number, self._come)
        self._before = sys.unraisablehook
        sys.unraisablehook = self._lost

    def _come(self, number: int, frame: FrameType | None) -> None:
        before_s, self._come_s = self._come_s, time.monotonic()
        if self._come_s - before_s < _IMPATIENCE_S:
            return
        self.number = number
        while frame is not None and frame.f_code is not _Stop._lost.__code__:
            frame = frame.f_back
        if frame is not None:
            self._send_again()
            return
        raise _Stopped

    def _lost(self, unraisable: Any) -> None:
        if issubclass(unraisable.exc_type, _Stopped):
            self._send_again()
        else:
            self._before(unraisable)

    def _send_again(self) -> None:
        """Send the signal later, from a thread: where an exception was dropped, the next one would be dropped too."""
        self._come_s = -_IMPATIENCE_S
        _thread.start_new_thread(self._again, ())  # `threading` would take a lock, which this may have interrupted

    def _again(self) -> None:
        time.sleep(_AGAIN_S)
        if sys.platform == "win32":
            signal.raise_signal(self.number)
        else:
            signal.pthread_kill(threading.main_thread().ident or 0, self.number)

    def leave(self) -> None:
        """Ignore SIGINT during shutdown; give the other signals their default effect."""
        sys.unraisablehook = self._before
        for number in self._numbers:
            signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)


def main() -> None:
    """Run the command line."""
    stop = _Stop()
    interrupted = 128 + signal.SIGINT
    code: str | int | None = 0
    try:
        try:
            from musichal.cli import main as command_line

            command_line()
        finally:
            stop.leave()
    except KeyboardInterrupt:
        code = interrupted
    except SystemExit as ended:
        code = ended.code
    except Exception:  # a compiled module may turn the interruption into another error: "initialisation failed"
        if not stop.number:
            raise
        code = interrupted
    if stop.number and code:
        code = 128 + stop.number
        word = "interrupted" if stop.number == signal.SIGINT else "told to end"
        with contextlib.suppress(OSError):
            sys.stderr.write(f"musichal: {word}; nothing was left half-written\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
