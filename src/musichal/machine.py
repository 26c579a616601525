"""The machine that runs MusicHal: clocks, processors, versions, cache, files, real time; and its child processes.

Every child is a module of this package, run by the same interpreter with its own memory. A long-lived child writes to its
standard output and ends when its standard input ends: it uses `own_output` and `end_with_stdin`, its parent `end_reader`.
"""

import contextlib
import ctypes
import gc
import hashlib
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from musichal import __version__
from musichal.errors import InputError
from musichal.text import open_file, printable, reason

SHAPES_NUMBERS = ("musichal", "python", "machine", "numpy", "scipy", "soxr", "soundfile")
"""What `installed` is asked for when a partner is trained."""
_FINE_S = 0.001


def installed(name: str) -> str:
    """Return the version of a package or of ``python``, or the kind of ``machine``; "unknown" for an unknown package."""
    if name == "musichal":
        return __version__
    if name == "python":
        return platform.python_version()
    if name == "machine":
        return platform.machine()
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def processors() -> int:
    """Return how many processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cache_folder() -> Path:
    """Return the folder for what can be made again, ``MUSICHAL_CACHE`` or the system's; it may not exist yet."""
    named = os.environ.get("MUSICHAL_CACHE")
    if named:
        return Path(named).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "musichal" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "musichal"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "musichal"


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, read once in a program while it stays the same; `InputError` if it cannot be read."""
    try:
        now = path.stat()
        return _sha256_as_of(path, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)
    except OSError as error:
        raise InputError(f"cannot read {printable(path)}: {reason(error)}") from error


@lru_cache(maxsize=8)
def _sha256_as_of(path: Path, *_state: int) -> str:
    with open_file(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _fine_clock() -> Callable[[], float]:
    """Return `time.monotonic`; on Windows before Python 3.13, where it ticks 64 times a second, `time.perf_counter`.

    Both count from the start of the machine, so that all processes agree.
    """
    return time.monotonic if time.get_clock_info("monotonic").resolution <= _FINE_S else time.perf_counter


now_s = _fine_clock()
"""Monotonic time in seconds, the same for all processes of this machine."""


PRIORITY = 8
"""Below JACK's own threads (10 by default), above everything that is not real time."""
SWITCH_INTERVAL_S = 0.0002
_QOS_USER_INTERACTIVE = 0x21
_HIGH_PRIORITY_CLASS = 0x80


def suspended_s() -> float:
    """Return how long the system was suspended since it started, so far as its clocks tell; 0 where they do not.

    On Windows `time.monotonic` itself goes on while the system sleeps. A clock on the wall that is set changes nothing here.
    """
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
    if sys.platform == "darwin":
        return time.clock_gettime(time.CLOCK_MONOTONIC) - time.clock_gettime(time.CLOCK_UPTIME_RAW)
    return 0.0


@contextlib.contextmanager
def short_pauses() -> Iterator[None]:
    """Keep Python's pauses short while the block runs: threads take turns often, and old objects are not collected.

    With Python's default interval of 5 ms, a thread that wakes beside the analysis was up to 5 ms late (99th percentile), with
    0.2 ms up to 2 ms. A partner is millions of objects that stay; a collection of them takes as long as many decisions.
    """
    before_s = sys.getswitchinterval()
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(min(before_s, SWITCH_INTERVAL_S))
    try:
        yield
    finally:
        sys.setswitchinterval(before_s)
        gc.unfreeze()


def raise_priority(level: int = PRIORITY) -> str:
    """Raise the priority of the calling thread, and of those it starts, as far as the system allows; return what was granted.

    `level` is the real-time priority on Linux, from 1.
    """
    given: str | None = None
    if sys.platform == "linux":
        given = _linux(level)
    elif sys.platform == "darwin":
        given = _macos()
    elif sys.platform == "win32":
        given = _windows()
    return given or "ordinary"


def _linux(level: int) -> str | None:
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(level))
        return f"SCHED_FIFO {level}"
    with contextlib.suppress(OSError):
        return f"niceness {os.nice(-15)}"
    return "ordinary (for real time, allow it in /etc/security/limits.d: @audio - rtprio 95)"


def _macos() -> str | None:
    with contextlib.suppress(OSError, AttributeError):
        if ctypes.CDLL(None).pthread_set_qos_class_self_np(_QOS_USER_INTERACTIVE, 0) == 0:
            return "user-interactive"
    return None


if sys.platform == "win32":

    def _windows() -> str | None:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.windll.winmm.timeBeginPeriod(1)  # waits end to the millisecond, not to the 64th of a second
            if ctypes.windll.kernel32.SetPriorityClass(ctypes.windll.kernel32.GetCurrentProcess(), _HIGH_PRIORITY_CLASS):
                return "HIGH_PRIORITY_CLASS"
        return None


# ── child processes, and the threads of the numerical libraries ───────────────

THREAD_SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""Environment variables that numerical libraries read when they are loaded: how many threads they may use."""


def command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of this package. It imports nothing from the current folder (CWE-427)."""
    return [sys.executable, "-P", "-m", module, *arguments]


@contextmanager
def starting_children(*, threads: int | None = None) -> Iterator[None]:
    """Prepare this process for starting children, also those of `multiprocessing`.

    They import nothing from the current folder, and they do not receive SIGINT and SIGHUP: a terminal sends both to every
    process of a program, but only the parent answers them and then ends its children in order. (Windows: no signals are
    blocked.) `threads` limits their numerical libraries.
    """
    changes = {"PYTHONSAFEPATH": "1", **({} if threads is None else dict.fromkeys(THREAD_SETTINGS, str(threads)))}
    before = {name: os.environ.get(name) for name in changes}
    mask = None if sys.platform == "win32" else signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGHUP))
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if sys.platform != "win32" and mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class _BlasLimit:
    """Counts who needs a single BLAS thread: the first sets the limit, the last restores what was before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._limits = contextlib.ExitStack()
        self._libraries: Any = None
        self._modules = 0

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1 and not any(name in os.environ for name in THREAD_SETTINGS):
                self._limits.enter_context(self._found().limit(limits=1, user_api="blas"))

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._limits.close()

    def _found(self) -> Any:
        """Return the loaded libraries; looking for them takes milliseconds, so only after an import."""
        from threadpoolctl import ThreadpoolController

        if self._modules != len(sys.modules):
            self._libraries, self._modules = ThreadpoolController(), len(sys.modules)
        return self._libraries


_blas_limit = _BlasLimit()  # the number of BLAS threads is a state of the whole process


@contextmanager
def single_blas_thread() -> Iterator[None]:
    """Limit BLAS (of NumPy and SciPy) to the calling thread in this context; also a decorator: ``@single_blas_thread()``.

    BLAS threads wait for one another by spinning. With another core busy, a product of 0.1 ms took 40 ms, also on the path
    from sound to answer, and learning a vocabulary took seven times as long. An environment variable such as
    ``OPENBLAS_NUM_THREADS`` takes precedence.
    """
    with _blas_limit:
        yield


def run_module(module: str, arguments: Sequence[str], *, threads: int | None, what: str) -> str:
    """Run a module of this package in a new process, and return what it printed.

    Raises `InputError` if the process fails, with the last line of its error output.

    * `module`: Its dotted name.
    * `threads`: Number of threads for numerical libraries. None: their own choice.
    * `what`: Name of the task, for the error message.
    """
    limits = {} if threads is None else dict.fromkeys(THREAD_SETTINGS, str(threads))
    environment = {**os.environ, **limits}
    done = subprocess.run(  # noqa: S603 - our own module
        command(module, *arguments), env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise InputError(f"{what} failed: {lines[-1]}")
    return done.stdout


def own_output(*, buffering: int = -1) -> IO[bytes]:
    """Return this process's standard output as a private pipe.

    From now on, output of libraries to the standard streams is discarded, and SIGINT is ignored: the parent ends this process
    by closing its standard input.
    """
    pipe = os.fdopen(os.dup(1), "wb", buffering=buffering)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device, not a path
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return pipe


@contextmanager
def silent_stderr() -> Iterator[None]:
    """Discard what libraries in C write to standard error while the block runs; errors that matter are raised."""
    sys.stderr.flush()
    try:
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except OSError:  # there is no standard error
        yield
        return
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def end_with_stdin(on_end: Callable[[], object], *, patience_s: float) -> None:
    """Call `on_end` in a thread when standard input ends; exit `patience_s` later, even if something hangs."""

    def wait() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        on_end()
        threading.Event().wait(patience_s)
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def end_reader(
    reader: threading.Thread, process: Callable[[], "subprocess.Popen[bytes] | None"], *, patience_s: float, killed_s: float
) -> None:
    """End the child that the thread `reader` reads from, and join the thread.

    Closes the child's standard input, waits `patience_s`, then kills the current child and waits `killed_s`.
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
    if current is not None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            current.wait(killed_s)  # its output ends a moment before it does
