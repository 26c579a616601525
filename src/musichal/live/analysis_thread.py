"""Hearing beside the engine: windows in, percepts out, in order; what it has no time for is left out whole.

A thread is enough. Beside hearing without a pause on the embedded encoder, a thread that wakes every 5 ms woke up to 5 ms
late (99th percentile) with Python's switching interval of 5 ms, and 2 ms late with 0.2 ms, which is what `musichal play` sets;
live, hearing takes 3 % of the time, and encoders on torch, ONNX or OpenVINO leave other threads alone while they compute.
"""

import contextlib
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from musichal.hearing.percepts import Percept, Window

SWITCH_INTERVAL_S = 0.0002


@dataclass(frozen=True)
class HeardWindow:
    """A percept, and how long hearing it took."""

    percept: Percept
    took_s: float


class Hearing(Protocol):
    """Where windows are heard."""

    def submit(self, window: Window) -> list[int]:
        """Take the next window; return the numbers of those that will not be heard because of it."""
        ...

    def take(self) -> list[HeardWindow]:
        """Return what has been heard since the last call, in order."""
        ...

    def close(self) -> None:
        """Hear nothing more."""
        ...


class HearingAtOnce:
    """Hears each window when it is submitted: for the virtual clock."""

    def __init__(self, hear: Callable[[Window], Percept]) -> None:
        self._hear = hear
        self._heard: list[HeardWindow] = []

    def submit(self, window: Window) -> list[int]:
        """Hear a window now."""
        began_s = time.perf_counter()
        percept = self._hear(window)
        self._heard.append(HeardWindow(percept, time.perf_counter() - began_s))
        return []

    def take(self) -> list[HeardWindow]:
        """Return what was heard since the last call."""
        heard, self._heard = self._heard, []
        return heard

    def close(self) -> None:
        """Nothing to do."""


class AnalysisThread:
    """Hears windows in a thread of its own.

    Parameters
    ----------
    hear : callable
        Called in the thread only, with windows in order.
    most_waiting : int
        How many windows may wait beside the one that is being heard. One more, and the one that has waited longest is
        skipped: what is heard is as new as it can be.
    in_thread : callable
        Called first in the thread.
    """

    def __init__(
        self,
        hear: Callable[[Window], Percept],
        *,
        most_waiting: int = 1,
        in_thread: Callable[[], object] = lambda: None,
    ) -> None:
        self._hear, self._most_waiting, self._in_thread = hear, max(1, most_waiting), in_thread
        self._changed = threading.Condition()
        self._waiting: deque[Window] = deque()
        self._heard: deque[HeardWindow] = deque()
        self._error: BaseException | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="hearing", daemon=True)
        self._thread.start()

    def submit(self, window: Window) -> list[int]:
        """Let a window be heard; return the numbers of those that are skipped for it."""
        with self._changed:
            self._waiting.append(window)
            skipped = [self._waiting.popleft().index for _ in range(len(self._waiting) - self._most_waiting)]
            self._changed.notify()
        return skipped

    def take(self) -> list[HeardWindow]:
        """Return what has been heard since the last call; raises what hearing raised."""
        with self._changed:
            heard = list(self._heard)
            self._heard.clear()
            error, self._error = self._error, None
        if error is not None:
            raise error
        return heard

    def close(self) -> None:
        """Leave what waits unheard, and end the thread."""
        with self._changed:
            self._closing = True
            self._waiting.clear()
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        self._in_thread()
        while True:
            with self._changed:
                while not self._waiting and not self._closing:
                    self._changed.wait()
                if self._closing:
                    return
                window = self._waiting.popleft()
            began_s = time.perf_counter()
            try:
                heard = HeardWindow(self._hear(window), time.perf_counter() - began_s)
            except BaseException as error:
                with self._changed:
                    self._error = error
                return
            with self._changed:
                self._heard.append(heard)


@contextlib.contextmanager
def quick_switching(interval_s: float = SWITCH_INTERVAL_S) -> Iterator[None]:
    """Let Python's threads take turns more often while the block runs, so that sound does not wait for hearing."""
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(min(before_s, interval_s))
    try:
        yield
    finally:
        sys.setswitchinterval(before_s)
