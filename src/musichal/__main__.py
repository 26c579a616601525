"""The program, as `musichal` and as `python -m musichal`: the command line, which can be stopped from its first moment on.

Ctrl-C, a request to end (SIGTERM) and a terminal that is closed (SIGHUP) are answered alike, also while modules are loaded:
what is half-written is removed, one line is said, and the exit code is 128 and the signal's number. While that is done,
impatience does not spoil it: what comes within a second of the first is passed over.

Python loses an exception that is raised while it calls back by itself, when an object goes for instance, which it does a lot
while it loads modules. One lost like that is raised again.
"""

import contextlib
import signal
import sys
import threading
import time
from typing import Any

_IMPATIENCE_S = 1.0
_AGAIN_S = 0.01


class _Stopped(KeyboardInterrupt):
    """A `KeyboardInterrupt` of ours: `python -m` ends as if killed where that very class has passed through its hands."""


class _Stop:
    """Turns signals into `KeyboardInterrupt`; those that somebody ignores or answers already are left to them."""

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

    def _come(self, number: int, _frame: object) -> None:
        before_s, self._come_s = self._come_s, time.monotonic()
        if self._come_s - before_s >= _IMPATIENCE_S:
            self.number = number
            raise _Stopped

    def _lost(self, unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, _Stopped):
            self._before(unraisable)
            return
        self._come_s = -_IMPATIENCE_S
        # In a moment: here and now it would be lost again.
        threading.Thread(target=self._again, daemon=True).start()

    def _again(self) -> None:
        time.sleep(_AGAIN_S)
        if sys.platform == "win32":
            signal.raise_signal(self.number)
        else:
            signal.pthread_kill(threading.main_thread().ident or 0, self.number)

    def leave(self) -> None:
        """Let Ctrl-C interrupt nothing on the way out; whoever asks for the end does not wait for that either."""
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
            from musichal.own_process import use_one_thread

            use_one_thread()
            from musichal.cli import main as command_line

            command_line()
        finally:
            stop.leave()
    except KeyboardInterrupt:
        code = interrupted
    except SystemExit as ended:
        code = ended.code
    except Exception:  # what a compiled module makes of an interruption, for instance: that its initialisation failed
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
