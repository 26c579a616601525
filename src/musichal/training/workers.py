"""Windows analysed in several processes: the same numbers in the same order, sooner.

What a window sounds like depends on the window alone (`FeatureExtractor.analyse`), so windows can be analysed anywhere and in
any order. Each process computes on one thread, one window at a time, exactly as live hearing does: a larger batch need not
give the same last bits.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from multiprocessing import connection, get_context, parent_process

from musichal.errors import InputError
from musichal.hearing.encoders import create_encoder
from musichal.hearing.listener import Analysis, FeatureExtractor
from musichal.hearing.percepts import Window
from musichal.machine import processors
from musichal.own_process import starting_children
from musichal.spec import PerceptionSpec

Analyse = Callable[[Iterable[Window]], Iterator[tuple[Window, Analysis]]]
"""Yields each window with its analysis, in the order of the windows."""

# Some seconds of work: enough to hide the way to the process and back, little enough to stop soon.
_WINDOWS_PER_PIECE = 8
_PIECES_AHEAD = 2  # per process, so that none waits for its next piece
# Starting a process and opening a model of true size in it takes seconds.
_WORTH_PROCESSES_S = 60.0


def usual_processes(duration_s: float) -> int:
    """Return how many processes are worth their start for so much sound: one for each processor, or just this one."""
    return processors() if duration_s >= _WORTH_PROCESSES_S else 1


@contextmanager
def worker_pool(spec: PerceptionSpec, *, processes: int) -> Iterator[Analyse]:
    """Give a function that analyses windows in so many processes (at least 1), which end with the block.

    Raises `InputError` if a process dies, and as `create_encoder` does.
    """
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_end_with_parent)

    def analyse(windows: Iterable[Window]) -> Iterator[tuple[Window, Analysis]]:
        source = iter(windows)
        ahead: deque[tuple[list[Window], Future[list[Analysis]]]] = deque()
        while True:
            while len(ahead) < _PIECES_AHEAD * processes and (piece := list(islice(source, _WINDOWS_PER_PIECE))):
                with starting_children(threads=1):
                    ahead.append((piece, pool.submit(_analyse, spec, piece)))
            if not ahead:
                return
            piece, future = ahead.popleft()
            yield from zip(piece, future.result(), strict=True)

    try:
        yield analyse
    except BrokenProcessPool as error:
        raise InputError("a process of the training died: is there enough memory? --processes 1 needs the least") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """End this worker when its parent has ended, however that was."""
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@lru_cache(maxsize=1)
def _extractor(spec: PerceptionSpec) -> FeatureExtractor:
    return FeatureExtractor(spec, create_encoder(spec))


def _analyse(spec: PerceptionSpec, piece: list[Window]) -> list[Analysis]:
    return [_extractor(spec).analyse(window) for window in piece]
