"""Windows analysed in several processes: the same numbers in the same order, sooner.

What a window sounds like depends on the window alone (`Ear.analyse`), so windows can be analysed anywhere and in any order.
Each process opens its own encoder and computes on one thread, one window at a time, exactly as live hearing does: the batch
is not made larger, because a larger one need not give the same last bits.
"""

import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from multiprocessing import get_context, parent_process
from typing import Protocol

from musichal.errors import InputError
from musichal.hearing.encoders.registry import create_encoder
from musichal.hearing.listener import Analysis, Ear
from musichal.hearing.percepts import Window
from musichal.installation import processors
from musichal.own_process import THREAD_SETTINGS
from musichal.spec import PerceptionSpec

# Some seconds of work a piece: enough to hide the way to the process and back, little enough to stop soon.
_WINDOWS_PER_PIECE = 8
_PIECES_AHEAD = 3
# Starting a process and opening a model of true size in it takes seconds.
_WORTH_PROCESSES_S = 60.0


class Analyst(Protocol):
    """Analyses windows; what comes out is in the order of what went in."""

    def __call__(self, windows: Iterable[Window]) -> Iterator[tuple[Window, Analysis]]:
        """Yield each window with its analysis."""
        ...


def usual_processes(duration_s: float) -> int:
    """Return how many processes are worth their start for so much sound: one for each processor, or just this one."""
    return processors() if duration_s >= _WORTH_PROCESSES_S else 1


@contextmanager
def analysts(spec: PerceptionSpec, *, processes: int) -> Iterator[Analyst]:
    """Give a way to analyse windows in so many processes (at least 1), which end with the block, however it ends.

    Raises
    ------
    InputError
        If a process dies.
    MusicHalError
        As `create_encoder` does.
    """
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_start)

    def analyse(windows: Iterable[Window]) -> Iterator[tuple[Window, Analysis]]:
        source = iter(windows)
        waiting: deque[tuple[list[Window], Future[list[Analysis]]]] = deque()
        more = True
        while more or waiting:
            while more and len(waiting) < _PIECES_AHEAD * processes:
                piece = list(islice(source, _WINDOWS_PER_PIECE))
                more = len(piece) == _WINDOWS_PER_PIECE
                if piece:
                    waiting.append((piece, pool.submit(_analyse, spec, piece)))
            if waiting:
                piece, future = waiting.popleft()
                yield from zip(piece, future.result(), strict=True)

    try:
        with _one_thread_each():
            yield analyse
    except BrokenProcessPool as error:
        raise InputError("a process of the training died: is there enough memory? --processes 1 needs the least") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let processes that are started within the block use one thread each."""
    before = {name: os.environ.get(name) for name in THREAD_SETTINGS}
    os.environ.update(dict.fromkeys(THREAD_SETTINGS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _start() -> None:
    """Prepare a process: Ctrl-C is for the parent to hear, and nobody outlives it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@lru_cache(maxsize=1)
def _ear(spec: PerceptionSpec) -> Ear:
    """Return an ear for its `analyse`; what it would hear from window to window is not asked of it."""
    return Ear(spec, create_encoder(spec), source_rate_hz=spec.sample_rate_hz)


def _analyse(spec: PerceptionSpec, windows: Sequence[Window]) -> list[Analysis]:
    ear = _ear(spec)
    return [ear.analyse(window) for window in windows]
