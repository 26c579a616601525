"""A real JACK server and a microphone for it, for tests: fixtures `jack_server`, `jack_server_at`, `fake_microphone`.

The server is a private `jackd` with the dummy driver: a name of its own (tests may run side by side), real time, no inputs of
its own, so that the fake microphone is the default input. While a fixture's server runs, ``JACK_DEFAULT_SERVER`` names it,
also for child processes and for PortAudio and rtmidi in this one.

    def test_x(jack_server, fake_microphone, tmp_path):
        microphone = fake_microphone(tmp_path / "take.wav", before_s=0.5)   # its rate must be the server's
        ...                                                                 # open the device microphone.name
        started = microphone.go()                                           # .frame, .monotonic_s of the file's first sample
        ...
        finished = microphone.wait_until_finished()                         # .xruns

    def test_y(jack_server_at, fake_microphone):
        server = jack_server_at(rate_hz=44_100, period=256)

Where jackd, libportaudio2 or JACK-Client is missing, the tests that ask for a server are skipped and say why.
"""

import contextlib
import ctypes
import ctypes.util
import importlib.util
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from benchmarks.jack_midi import end_process, server_name, start_server, why_it_ended

_START_S = 20.0


def why_no_jack() -> str | None:
    """Return what is missing for tests with a real JACK server, or None."""
    if not sys.platform.startswith("linux"):
        return "the JACK tests run on Linux only"
    if shutil.which("jackd") is None:
        return "jackd is not installed (Debian: apt-get install jackd2)"
    if importlib.util.find_spec("jack") is None:
        return "JACK-Client is not installed (the extra `jack`)"
    if importlib.util.find_spec("sounddevice") is None:
        return "sounddevice is not installed (the extra `live`)"
    if ctypes.util.find_library("portaudio") is None:
        return "PortAudio is not installed (Debian: apt-get install libportaudio2)"
    return None


@dataclass
class JackServer:
    """A running server; `pid` is jackd's own."""

    name: str
    rate_hz: int
    period: int
    playback: int
    log: Path
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def pid(self) -> int:
        return self.process.pid

    def xruns(self) -> int:
        """Return how many xruns the server wrote down so far."""
        return self.log.read_text(errors="replace").count("XRun")

    def kill(self) -> None:
        """End the server; also used by tests that take it away while it is in use."""
        end_process(self.process)

    def start_again(self, *, rate_hz: int | None = None) -> None:
        """Start it anew, under the same name, after `kill`; at another rate, if one is given."""
        self.rate_hz = rate_hz or self.rate_hz
        self.process = start_server(self.name, self.log, rate_hz=self.rate_hz, period=self.period, playback=self.playback)
        _wait_for(self)


@dataclass(frozen=True)
class Started:
    """When the first sample of the file is in: the server's frame, and `time.monotonic` (to a cycle's jitter)."""

    frame: int
    monotonic_s: float


@dataclass(frozen=True)
class Finished:
    """The server's frame behind the last sample, and how many xruns there were since the start."""

    frame: int
    xruns: int


class FakeMicrophone:
    """The other end of a `fake_microphone.py`; `name` is the name of the audio input."""

    def __init__(self, file: Path, server: str, *, name: str, before_s: float, after_s: float, loop: bool) -> None:
        self.name = name
        script = Path(__file__).with_name("fake_microphone.py")
        command = [sys.executable, str(script), str(file), "--server", server, "--name", name]
        command += ["--before-s", str(before_s), "--after-s", str(after_s), *(["--loop"] if loop else [])]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(command, text=True, bufsize=1, **pipes)
        self._news: queue.Queue[dict[str, Any]] = queue.Queue()
        self._errors: list[str] = []
        threading.Thread(target=self._listen, daemon=True).start()
        threading.Thread(target=self._listen_to_errors, daemon=True).start()
        self.ports: list[str] = self._await("ready", _START_S)["ports"]

    def go(self, timeout_s: float = 10.0) -> Started:
        """Start the file at the next cycle; return when its first sample comes (after `before_s`)."""
        self._send("go")
        return Started(**self._await("started", timeout_s))

    def stop(self) -> None:
        """Fall silent; `go` starts the file anew."""
        self._send("stop")

    def wait_until_finished(self, timeout_s: float = 60.0) -> Finished:
        """Wait for the end of the file and of the silence behind it."""
        return Finished(**self._await("finished", timeout_s))

    def close(self) -> None:
        """Unplug it: the JACK client leaves the server in order."""
        with contextlib.suppress(OSError, ValueError):
            assert self.process.stdin is not None
            self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(3)
        end_process(self.process)

    def kill(self) -> None:
        """Take it away as a crash would."""
        self.process.kill()
        self.process.wait(5)

    def _send(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with contextlib.suppress(ValueError):  # libjack talks on standard output too
                self._news.put(json.loads(line))
        self._news.put({"error": "it ended"})

    def _listen_to_errors(self) -> None:
        assert self.process.stderr is not None
        self._errors.extend(self.process.stderr)

    def _await(self, what: str, timeout_s: float) -> dict[str, Any]:
        until = time.monotonic() + timeout_s
        while True:
            try:
                news = self._news.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"the fake microphone did not say {what!r} in {timeout_s:g} s") from None
            if what in news:
                return dict(news[what])
            if "error" in news:
                raise AssertionError(f"the fake microphone: {news['error']}; {''.join(self._errors[-8:])}")


@contextlib.contextmanager
def running_jack_server(folder: Path, *, rate_hz: int = 48_000, period: int = 512, playback: int = 2) -> Iterator[JackServer]:
    """Run a private server while the block runs; skips the test where it cannot be had."""
    missing = why_no_jack()
    if missing:
        pytest.skip(missing)
    with server_name() as name:
        log = folder / f"{name}.log"
        process = start_server(name, log, rate_hz=rate_hz, period=period, playback=playback)
        server = JackServer(name, rate_hz, period, playback, log, process)
        try:
            _wait_for(server)
            yield server
        finally:
            server.kill()


@pytest.fixture
def jack_server_at(tmp_path: Path, record_property: Callable[[str, object], None]) -> Iterator[Callable[..., JackServer]]:
    """Start a server with ``(rate_hz=..., period=..., playback=...)``; all that were started end with the test."""
    servers: list[JackServer] = []
    with contextlib.ExitStack() as stack:

        def start(**options: int) -> JackServer:
            servers.append(stack.enter_context(running_jack_server(tmp_path, **options)))
            return servers[-1]

        yield start
    record_property("xruns", sum(server.xruns() for server in servers))


@pytest.fixture
def jack_starts(tmp_path: Path) -> None:
    """Skip the test where no server starts; for tests of what starts one of its own."""
    with running_jack_server(tmp_path):
        pass


@pytest.fixture
def jack_server(jack_server_at: Callable[..., JackServer]) -> JackServer:
    """A server at 48 kHz with periods of 512 frames."""
    return jack_server_at()


@pytest.fixture
def fake_microphone(jack_server_at: Callable[..., JackServer]) -> Iterator[Callable[..., FakeMicrophone]]:
    """Plug in a microphone: ``(file, before_s=0, after_s=0, loop=False, name="fakemic", server=None)``.

    Without `server` it goes to the one that was started last.
    """
    with contextlib.ExitStack() as stack:

        def plug_in(
            file: Path,
            *,
            before_s: float = 0.0,
            after_s: float = 0.0,
            loop: bool = False,
            name: str = "fakemic",
            server: JackServer | None = None,
        ) -> FakeMicrophone:
            target = server.name if server else os.environ["JACK_DEFAULT_SERVER"]
            microphone = FakeMicrophone(file, target, name=name, before_s=before_s, after_s=after_s, loop=loop)
            stack.callback(microphone.close)
            return microphone

        yield plug_in


def _wait_for(server: JackServer) -> None:
    import jack

    jack.set_error_function(lambda _text: None)
    jack.set_info_function(lambda _text: None)
    until = time.monotonic() + _START_S
    while True:
        if server.process.poll() is not None or time.monotonic() > until:
            pytest.skip(f"jackd did not start here: {why_it_ended(server.log.read_text(errors='replace'))}")
        if Path(f"/dev/shm/jack_{server.name}_{os.getuid()}_0").exists():  # noqa: S108 - where jackd puts its socket
            with contextlib.suppress(jack.JackError):
                jack.Client("waiting", servername=server.name, no_start_server=True).close()
                return
        time.sleep(0.05)
