"""Work in several processes, of this machine or of a Dask cluster (extra ``[dask]``): the same numbers, sooner.

Recordings are heard side by side, one in each process (`each`). Where there are fewer recordings than processes and the encoder
is a network, the windows of one recording are analysed side by side instead (`worker_pool`).

What a window sounds like depends on the window alone (`FeatureExtractor.analyse`), so windows can be analysed anywhere and in
any order. Each process computes on one thread, one window at a time, exactly as live hearing does: a larger batch need not
give the same last bits.

A task of a cluster names files: each worker needs MusicHal, and the recordings and the work folder under the same paths. What a
worker that died was doing is done again by another one. See docs/how-to/archives.md for TLS.
"""

import contextlib
import logging
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor
from concurrent.futures import wait as first_of
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

from musichal.errors import InputError, MissingExtraError, MusicHalError, install_hint
from musichal.hearing.encoders import create_encoder
from musichal.hearing.listener import Analysis, FeatureExtractor
from musichal.hearing.percepts import Window
from musichal.machine import processors, starting_children
from musichal.spec import PerceptionSpec

Task = TypeVar("Task")
Result = TypeVar("Result")
Engine = Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[tuple[int, Any]]]
"""Does a function of a module to each task, anywhere and in any order: yields the number of a task with its result, or with
the error that was raised."""
Analyse = Callable[[Iterable[Window]], Iterator[tuple[Window, Analysis]]]
"""Yields each window with its analysis, in the order of the windows."""

# Some seconds of work: enough to hide the way to the process and back, little enough to stop soon.
_WINDOWS_PER_PIECE = 8
# Starting a process and opening a model of true size in it takes seconds.
_WORTH_PROCESSES_S = 60.0
_DASK = "dask://"
_DASK_PATIENCE_S = 20


def usual_processes(duration_s: float) -> int:
    """Return how many processes are worth their start for so much sound: one for each processor, or just this one."""
    return processors() if duration_s >= _WORTH_PROCESSES_S else 1


_DIED = "a process of the training died: is there enough memory? --workers 1 needs the least"
_MOST_DEATHS, _MOST_NAMED = 3, 3
_AHEAD = 2


class DiedError(InputError):
    """The process that did a task died, twice."""


def each(
    work: Callable[[Task], Result], tasks: Sequence[Task], *, processes: int
) -> Iterator[tuple[int, Result | MusicHalError]]:
    """Do a function of a module to each task in so many processes of this machine, as an `Engine` does.

    What processes did when one died is done again, one by one: the task that ends its process again gives a `DiedError`.
    Raises `InputError` if they die one after the other and nothing is done; it names the `words` of tasks that have them.
    """
    if processes == 1:
        for number, task in enumerate(tasks):
            yield number, caught(work, task)
        return
    left, suspects = deque(range(len(tasks))), deque[int]()
    deaths = 0
    while left or suspects:
        queue, count = (suspects, 1) if suspects else (left, min(processes, len(left)))
        most = 1 if suspects else _AHEAD * count
        is_alone = most == 1
        running: dict[Future[Result | MusicHalError], int] = {}
        pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_end_with_parent)
        try:
            while queue or running:
                with starting_children(threads=1):
                    while queue and len(running) < most:
                        running[pool.submit(caught, work, tasks[queue[0]])] = queue[0]
                        queue.popleft()
                for future in first_of(running, return_when=FIRST_COMPLETED).done:
                    result = future.result()
                    deaths = -len(tasks)  # something is done
                    yield running.pop(future), result
        except BrokenProcessPool as error:
            deaths += 1
            if deaths == _MOST_DEATHS:
                words = [word for number in sorted(running.values()) if (word := getattr(tasks[number], "words", ""))]
                raise InputError(": ".join([", ".join(words[:_MOST_NAMED]), _DIED] if words else [_DIED])) from error
            if not is_alone:
                suspects.extend(sorted(running.values()))
                running.clear()
        finally:
            children = list((pool._processes or {}).values())
            pool.shutdown(wait=False, cancel_futures=True)
            for child in children:
                child.kill()  # it has nothing to lose
        for number in running.values():
            yield number, DiedError(_DIED)


def caught(work: Callable[[Task], Result], task: Task) -> Result | MusicHalError:
    """Return what a function gives, or the error that it raises."""
    try:
        return work(task)
    except MusicHalError as error:
        return error


def _end_with_parent() -> None:
    """End this process when the parent has ended: a parent that was killed ends nobody."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


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
        raise InputError(_DIED) from error
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


@contextmanager
def dask_engine(address: str) -> Iterator[tuple[Engine, int]]:
    """Give the engine of a cluster, ``dask://HOST:PORT`` or the path of its scheduler file, and how many workers it has.

    Raises `InputError` where no scheduler answers or it has no worker; `MissingExtraError` without Dask.
    """
    distributed = _distributed()
    place, where = _scheduler(address, "--engine", "address")
    try:
        client = distributed.Client(**where, timeout=_DASK_PATIENCE_S)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(f"no Dask scheduler answers at {place}: {error}") from error
    try:
        workers = sum(client.nthreads().values())
        if not workers:
            raise InputError(f"the Dask scheduler at {place} has no worker: start one with `musichal worker {address}`")

        def engine(work: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
            futures = client.map(caught, [work] * len(tasks), tasks, pure=False, retries=3)
            numbers = {future.key: number for number, future in enumerate(futures)}
            try:
                for future in distributed.as_completed(futures):
                    error = future.exception()
                    died = isinstance(error, distributed.KilledWorker)
                    yield numbers[future.key], DiedError(f"the workers that did it died: {error}") if died else future.result()
            except (ImportError, OSError, RuntimeError, distributed.CancelledError) as error:
                raise InputError(f"the Dask cluster failed: {type(error).__name__}: {error}") from error
            finally:
                client.cancel(futures)

        yield engine, workers
    finally:
        client.close()


def run_worker(address: str, *, processes: int) -> None:
    """Work for a scheduler until it ends: so many processes of one thread; raises `InputError` where it does not answer."""
    distributed = _distributed()
    place, where = _scheduler(address, "a scheduler", "scheduler_ip")

    async def work() -> None:
        nannies = [distributed.Nanny(**where, nthreads=1, death_timeout=_DASK_PATIENCE_S) for _ in range(processes)]
        for nanny in nannies:
            await nanny
        for nanny in nannies:
            await nanny.finished()

    import asyncio

    try:
        asyncio.run(work())
    except (OSError, ValueError, TimeoutError, RuntimeError) as error:
        raise InputError(f"no Dask scheduler answers at {place}: {error}") from error


def _scheduler(address: str, what: str, by_address: str) -> tuple[str, dict[str, Any]]:
    """Return where a scheduler is, and how `distributed` is told: by its file, or `by_address`; raises `InputError`."""
    place = address.removeprefix(_DASK)
    if not place or place == address:
        raise InputError(f"{what} must be {_DASK}HOST:PORT, got {address!r}")
    return place, {"scheduler_file" if place.endswith(".json") else by_address: place}


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise MissingExtraError(f"a Dask cluster needs the package distributed: {install_hint('dask')}") from error
    logging.getLogger("distributed").setLevel(logging.ERROR)
    return distributed
