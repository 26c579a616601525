"""A module of ours run as a program, in an interpreter of its own: with its own threads, memory and warm-up.

One that goes on beside us speaks on its standard output and ends when its standard input does: `own_output` and
`end_with_stdin` are its side of that, `end_reader` is ours.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO

from musichal.errors import InputError

THREAD_SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""Variables that say how many threads numerical libraries may use, asked when these are loaded."""
_OF_NUMPY = ("OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def use_one_thread() -> None:
    """Let numpy's and SciPy's matrix products run on the thread that asks for them; call it before these are loaded.

    The threads that they would share a product with wait for one another without sleeping. Where the other core is busy, a
    product of a tenth of a millisecond took forty, on the way from a player's sound to an answer too, and learning a vocabulary
    seven times as long. What the user's environment says already counts.
    """
    for name in _OF_NUMPY:
        os.environ.setdefault(name, "1")


@contextmanager
def out_of_earshot() -> Iterator[None]:
    """Let processes that are started within the block hear nothing of Ctrl-C, nor that the terminal is closed.

    A terminal tells both to all of a program's processes, also to one that has just begun and cannot yet look away. They are
    ours to answer, by ending those processes in order. Not on Windows.
    """
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run_module(module: str, arguments: Sequence[str], *, threads: int | None, what: str) -> str:
    """Run a module of MusicHal in a new interpreter, and return what it printed.

    Parameters
    ----------
    module : str
        Its dotted name.
    arguments : sequence of str
    threads : int or None
        How many threads numerical libraries may use; None leaves it to them.
    what : str
        What is being done, for the error.

    Raises
    ------
    InputError
        If it fails, with the last line of its errors.
    """
    limits = {} if threads is None else dict.fromkeys(THREAD_SETTINGS, str(threads))
    done = subprocess.run(  # noqa: S603 - our own module, by this very interpreter
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, **limits},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise InputError(f"{what} failed: {reason[-1]}")
    return done.stdout


def own_output(*, buffering: int = -1) -> IO[bytes]:
    """Return this program's standard output as a pipe that is ours alone.

    What libraries write there or to the error stream goes nowhere from now on; Ctrl-C is the parent's to answer, who closes our
    standard input.
    """
    pipe = os.fdopen(os.dup(1), "wb", buffering=buffering)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device, not a path
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return pipe


def end_with_stdin(tell: Callable[[], object], *, patience_s: float) -> None:
    """Call `tell` once standard input has ended, in a thread; end this program at the latest `patience_s` after that."""

    def wait() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        tell()
        # Nothing that hangs, and no pipe that nobody reads, may hold it.
        threading.Event().wait(patience_s)
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def end_reader(
    reader: threading.Thread, process: Callable[[], "subprocess.Popen[bytes] | None"], *, patience_s: float, killed_s: float
) -> None:
    """End the process that a thread of ours reads from, by its standard input, and wait for the thread.

    After `patience_s` the process is killed, whichever it is by then, and `killed_s` are waited.
    """
    current = process()
    if current is not None:
        with contextlib.suppress(OSError):
            assert current.stdin is not None
            current.stdin.close()
    reader.join(patience_s)
    current = process()
    if reader.is_alive() and current is not None:
        current.kill()
        reader.join(killed_s)
