"""A module of ours run as a program, in an interpreter of its own: with its own threads, memory and warm-up."""

import os
import subprocess
import sys
from collections.abc import Sequence

from musichal.errors import InputError

THREAD_SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""Variables that say how many threads numerical libraries may use, asked when these are loaded."""


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
