"""Windows analysed in several processes: the same numbers in the same order, sooner.

What a window sounds like depends on the window alone (`FeatureExtractor.analyse`), so windows can be analysed anywhere and in
any order. Each process computes on one thread, one window at a time, exactly as live hearing does: a larger batch need not
give the same last bits.
"""

import contextlib
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from musichal.errors import InputError, MusicHalError
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
# Starting a process and opening a model of true size in it takes seconds.
_WORTH_PROCESSES_S = 60.0


def usual_processes(duration_s: float) -> int:
    """Return how many processes are worth their start for so much sound: one for each processor, or just this one."""
    return processors() if duration_s >= _WORTH_PROCESSES_S else 1


@contextmanager
def worker_pool(spec: PerceptionSpec, *, processes: int) -> Iterator[Analyse]:
    """Give a function that analyses windows in so many processes (at least 1), which end with the block.

    Each process has a pipe of its own and at most one piece at a time, and pieces go round in turn. So they come back in
    order, and a process that dies while it reads or writes ends its pipe. (A `ProcessPoolExecutor` then waits for ever
    for its own feeder thread: CPython issue 94777, not mended in Python 3.11.)

    Raises `InputError` if a process dies, and as `create_encoder` does.
    """
    context = get_context("spawn")
    started: list[SpawnProcess] = []
    pipes: list[Connection] = []

    def analyse(windows: Iterable[Window]) -> Iterator[tuple[Window, Analysis]]:
        source = iter(windows)
        pieces = iter(lambda: list(islice(source, _WINDOWS_PER_PIECE)), [])
        sent: deque[tuple[Connection, list[Window]]] = deque()

        def send_next(pipe: Connection) -> None:
            piece = next(pieces, None)
            if piece is not None:
                pipe.send(piece)
                sent.append((pipe, piece))

        for pipe in pipes:
            send_next(pipe)
        while sent:
            pipe, piece = sent.popleft()
            found = pipe.recv()
            if isinstance(found, MusicHalError):
                raise found
            send_next(pipe)
            yield from zip(piece, found, strict=True)

    try:
        with starting_children(threads=1):
            for _ in range(processes):
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(spec, theirs), daemon=True)
                process.start()
                theirs.close()  # held open here, the pipe would not end with the process
                started.append(process)
                pipes.append(ours)
        yield analyse
    except (EOFError, ConnectionError) as error:
        raise InputError("a process of the training died: is there enough memory? --processes 1 needs the least") from error
    finally:
        for process in started:
            process.kill()  # it has nothing to lose
        for process in started:
            process.join()
        for pipe in pipes:
            pipe.close()


def _work(spec: PerceptionSpec, pipe: Connection) -> None:
    """Analyse pieces until the pipe ends: with the block, or with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C
    with contextlib.suppress(EOFError, ConnectionError):
        try:
            extractor = FeatureExtractor(spec, create_encoder(spec))
        except MusicHalError as error:
            pipe.send(error)
            return
        while True:
            piece: list[Window] = pipe.recv()
            pipe.send([extractor.analyse(window) for window in piece])
