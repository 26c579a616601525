"""What libraries of the system write to the error stream on their own, kept out of a player's sight."""

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def library_chatter_off() -> Iterator[None]:
    """Keep what ALSA and JACK write to the error stream out of the way while the block runs: errors that matter are raised."""
    sys.stderr.flush()
    with contextlib.ExitStack() as stack:
        try:
            kept = os.dup(2)
        except OSError:  # a program without an error stream
            yield
            return
        stack.callback(os.close, kept)
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device, not a path
            os.dup2(nowhere.fileno(), 2)
        stack.callback(os.dup2, kept, 2)
        yield
