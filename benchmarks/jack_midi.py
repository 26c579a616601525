"""A private JACK server, and a client that writes down the MIDI that reaches it: what a receiver gets, and in which frame."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from musichal.errors import InputError, MissingExtraError, install_hint

_START_S = 20.0
_WRAP = 2**32
_MOST_CYCLES = 1 << 16
_MOST_SERVERS = 8
_BANNER = ("jackdmp ", "Copyright ", "This is free software", "under certain conditions")


@dataclass(frozen=True)
class Received:
    """A message, its frame on the server's clock, and when the cycle that brought it was worked on."""

    frame: int
    data: bytes
    monotonic_s: float


def sounding(messages: Iterable[bytes]) -> set[tuple[int, int]]:
    """Return the (channel, pitch) pairs that sound after `messages`.

    Only note-offs count as ends: no receiver need know of "all notes off".
    """
    now: set[tuple[int, int]] = set()
    for data in messages:
        kind, channel = data[0] & 0xF0, data[0] & 0x0F
        if kind == 0x90 and data[2] > 0:
            now.add((channel, data[1]))
        elif kind in (0x80, 0x90):
            now.discard((channel, data[1]))
    return now


class JackReceiver:
    """A JACK client with one MIDI input; open within a `with` block.

    In the block the calling thread has real-time priority, where that is allowed: JACK's thread needs the interpreter, and if
    whoever holds it could be put aside by a busy process, the receiver would miss cycles, and with them messages.
    """

    def __init__(self, name: str = "receiver") -> None:
        self._jack = _jack()
        self.client: Any = self._jack.Client(name, no_start_server=True)
        self._port = self.client.midi_inports.register("in")
        self._raw: deque[tuple[int, bytes, float]] = deque()
        self._cycles: deque[tuple[int, float]] = deque(maxlen=_MOST_CYCLES)
        self._frame = 0
        self._last: int | None = None
        self.xruns = 0
        self.origin = 0
        """The server's frame where its own count of frames begins."""
        self.client.set_process_callback(self._process)
        self.client.set_xrun_callback(self._xrun)

    def __enter__(self) -> Self:
        _take_priority(True)
        self.client.activate()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Leave the server."""
        _take_priority(False)
        with contextlib.suppress(Exception):
            self.client.deactivate()
            self.client.close()

    def _process(self, _frames: int) -> None:
        began = self.client.last_frame_time
        if self._last is None:
            self.origin = began
        self._frame += 0 if self._last is None else (began - self._last) % _WRAP
        self._last = began
        self._cycles.append((self._frame, time.monotonic()))
        for offset, data in self._port.incoming_midi_events():
            self._raw.append((self._frame + offset, bytes(data), time.monotonic()))

    def _xrun(self, _delay_us: float) -> None:
        self.xruns += 1

    def senders(self) -> list[str]:
        """Return the names of all MIDI outputs."""
        return [port.name for port in self.client.get_ports(is_midi=True, is_output=True)]

    def connect(self, sender: str, *, timeout_s: float = 10.0) -> str:
        """Connect the newest output with `sender` in its name, once there is one; returns its name.

        Raises `InputError` where none appears.
        """
        found: list[str] = []

        def connected() -> bool:
            found[:] = [name for name in self.senders() if sender in name][-1:]
            try:
                return bool(found) and self.client.connect(found[0], self._port) is None
            except self._jack.JackErrorCode:
                # Connected already; or it has only just come, and takes connections once its client is active.
                return any(port.name in found for port in self.client.get_all_connections(self._port))

        if not wait_for(connected, timeout_s):
            raise InputError(f"no JACK MIDI output with {sender!r} in its name appeared that can be connected")
        return found[0]

    def clear(self) -> None:
        """Forget what was received."""
        self._raw.clear()

    def messages(self) -> list[Received]:
        """Return what was received, in order."""
        return [Received(*entry) for entry in list(self._raw)]

    def cycles(self) -> list[tuple[int, float]]:
        """Return the frame of each cycle, and when it was worked on (`time.monotonic`), in order."""
        return list(self._cycles)

    def sounding(self) -> set[tuple[int, int]]:
        """Return the (channel, pitch) pairs that sound."""
        return sounding(message.data for message in self.messages())


def _take_priority(real_time: bool) -> None:
    if sys.platform == "linux":
        # Not for processes that are started meanwhile.
        policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK if real_time else os.SCHED_OTHER
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, policy, os.sched_param(4 if real_time else 0))


def wait_for(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Wait until `condition` holds; returns whether it did in time."""
    until_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > until_s:
            return False
        time.sleep(0.005)
    return True


@contextmanager
def server_name() -> Iterator[str]:
    """Give a name for a server that no other process uses; while the block runs, JACK's clients use the server of this name.

    The names are few, and used again: JACK has room for eight servers, and one that was killed keeps its room until a server
    of its name starts.

    Raises
    ------
    InputError
        Where all are in use.
    """
    import fcntl  # not on Windows, where this is never called

    for number in range(_MOST_SERVERS):
        lock = Path(tempfile.gettempdir()) / f"musichal-jack-{os.getuid()}-{number}.lock"
        with lock.open("wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            name = f"musichal-{number}"
            settings = {"JACK_DEFAULT_SERVER": name, "JACK_NO_START_SERVER": "1", "JACK_NO_AUDIO_RESERVATION": "1"}
            before = {key: os.environ.get(key) for key in settings}
            os.environ.update(settings)
            try:
                yield name
            finally:
                for key, value in before.items():
                    if value is None:
                        os.environ.pop(key, None)
                    else:
                        os.environ[key] = value
            return
    raise InputError(f"all {_MOST_SERVERS} JACK servers of the benchmarks and tests are in use")


def start_server(name: str, log: Path, *, rate_hz: int, period: int, playback: int = 2) -> subprocess.Popen[bytes]:
    """Start a real-time `jackd` with the dummy driver and no inputs of its own; it writes to the end of `log`."""
    # The kernel ends the server when this process is killed; setpriv becomes jackd, so that the process is jackd's own.
    command = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
    command += ["jackd", "-R", "-n", name, "-d", "dummy", "-r", str(rate_hz), "-p", str(period), "-C", "0", "-P", str(playback)]
    with log.open("ab") as stream:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)  # noqa: S603


def end_process(process: subprocess.Popen[Any]) -> None:
    """Ask a process to end, and kill it where it does not."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


def why_it_ended(log: str) -> str:
    """Return what jackd said, without its banner; and what to do where too many killed servers are in JACK's register."""
    lines = [line for line in log.splitlines() if line.strip() and not line.startswith(_BANNER)]
    if any("Too many servers" in line for line in lines):
        return "JACK's register is full of servers that were killed; with no jackd running, delete /dev/shm/jack-shm-registry"
    return "; ".join(lines) or "it said nothing"


@contextmanager
def private_server(*, rate_hz: int = 48_000, period: int = 256) -> Iterator[str]:
    """Run a real-time `jackd` with the dummy driver while the block runs; what is started meanwhile uses it. Gives its name.

    Raises
    ------
    MissingExtraError
        Without jackd or JACK-Client.
    InputError
        Where it does not start.
    """
    if shutil.which("jackd") is None:
        raise MissingExtraError("this needs jackd (Debian: apt-get install jackd2)")
    jack = _jack()
    jack.set_error_function(lambda _text: None)
    jack.set_info_function(lambda _text: None)
    with server_name() as name, tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "jackd.log"
        process = start_server(name, log, rate_hz=rate_hz, period=period)
        try:
            if not wait_for(lambda: process.poll() is not None or _answers(jack, name), _START_S) or process.poll() is not None:
                raise InputError(f"jackd does not start here: {why_it_ended(log.read_text(errors='replace'))}")
            yield name
        finally:
            end_process(process)


def _answers(jack: Any, name: str) -> bool:
    # jackd's socket is looked for first: libjack prints to the terminal where it is not there.
    if not Path(f"/dev/shm/jack_{name}_{os.getuid()}_0").exists():  # noqa: S108 - where jackd puts it
        time.sleep(0.05)
        return False
    try:
        jack.Client("waiting", servername=name, no_start_server=True).close()
    except jack.JackError:
        return False
    return True


def _jack() -> Any:
    try:
        import jack
    except (ImportError, OSError) as error:
        raise MissingExtraError(f"this needs JACK-Client and libjack: {install_hint('jack')}") from error
    return jack
