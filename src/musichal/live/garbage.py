"""Python's collector of garbage, and what it need not look through."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def settled() -> Iterator[None]:
    """Let the collector leave alone what there is now, while the block runs.

    A partner in memory is millions of objects, which stay; looking through them takes as long as many decisions.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
