"""Measuring in a process of its own, so that one measurement does not warm, load or fragment another's."""

import json
import os
import subprocess
import sys
from pathlib import Path

from musichal.errors import InputError
from musichal.machine import THREAD_SETTINGS

_CHECKOUT = Path(__file__).resolve().parents[1]


def in_own_process(module: str, job: str, *, one_thread: bool = True, **settings: int | str) -> dict[str, float]:
    """Run a job of a bench module in a new interpreter and return the figures that it printed.

    The module is run as a program with one argument, JSON of `job` and the settings; its last line of output is JSON.
    Raises `InputError` with the last line of its errors where it fails.
    """
    limits = dict.fromkeys(THREAD_SETTINGS, "1") if one_thread else {}
    command = [sys.executable, "-m", module, json.dumps({"job": job, **settings})]
    done = subprocess.run(  # noqa: S603 - our own module
        command, cwd=_CHECKOUT, env={**os.environ, **limits}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise InputError(f"the benchmark {job} failed: {reason[-1]}")
    values: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return values


def peak_memory_mb() -> float:
    """Return the largest resident set that this process has had, in millions of bytes."""
    if sys.platform == "win32":
        import psutil

        return float(psutil.Process().memory_info().peak_wset) / 1e6
    status = Path("/proc/self/status")
    if status.exists():
        # Linux's `getrusage` would include what the parent had before this program was started.
        peak_kib = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return peak_kib * 1024 / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
