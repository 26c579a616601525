"""Work on a Dask cluster (extra ``[dask]``): the same tasks as on this machine, wherever its workers are.

A task names files: each worker needs MusicHal, and the recordings and the work folder under the same paths. What a worker that
died was doing is done again by another one. See docs/how-to/archives.md for TLS.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from musichal.errors import InputError, MissingExtraError, install_hint
from musichal.training.workers import DiedError, Engine, caught

_SCHEME = "dask://"
_PATIENCE_S = 20


@contextmanager
def dask_engine(address: str) -> Iterator[tuple[Engine, int]]:
    """Give the engine of a cluster, ``dask://HOST:PORT`` or the path of its scheduler file, and how many workers it has.

    Raises `InputError` where no scheduler answers or it has no worker; `MissingExtraError` without Dask.
    """
    distributed = _distributed()
    if not address.startswith(_SCHEME) or not address.removeprefix(_SCHEME):
        raise InputError(f"--engine must be dask://HOST:PORT, got {address!r}")
    place = address.removeprefix(_SCHEME)
    where: dict[str, Any] = {"scheduler_file": place} if place.endswith(".json") else {"address": place}
    try:
        client = distributed.Client(**where, timeout=_PATIENCE_S)
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
    if not address.startswith(_SCHEME):
        raise InputError(f"a scheduler is dask://HOST:PORT, got {address!r}")
    place = address.removeprefix(_SCHEME)
    where: dict[str, Any] = {"scheduler_file": place} if place.endswith(".json") else {"scheduler_ip": place}

    async def work() -> None:
        nannies = [distributed.Nanny(**where, nthreads=1, death_timeout=_PATIENCE_S) for _ in range(processes)]
        for nanny in nannies:
            await nanny
        for nanny in nannies:
            await nanny.finished()

    import asyncio

    try:
        asyncio.run(work())
    except (OSError, ValueError, TimeoutError, RuntimeError) as error:
        raise InputError(f"no Dask scheduler answers at {place}: {error}") from error


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise MissingExtraError(f"a Dask cluster needs the package distributed: {install_hint('dask')}") from error
    logging.getLogger("distributed").setLevel(logging.ERROR)
    return distributed
