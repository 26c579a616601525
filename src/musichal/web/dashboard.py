"""The engine's side of the dashboard: events go to the page's process, commands come back.

    with Dashboard(put) as dashboard:            # the page is served from here on: dashboard.address
        dashboard.begin(hello(settings, ...), ...)
        ...                                      # an `EngineObserver` of the performance

The engine's thread and that of its observers only append to a bounded queue, whose oldest entries go where it is full; a
thread of its own makes the messages and writes them, joined, sixty times a second. So neither a slow page nor a process that
hangs can hold up a note.
"""

import contextlib
import ipaddress
import json
import secrets
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from musichal import machine
from musichal.arrays import Float32
from musichal.errors import InputError
from musichal.hearing.percepts import Percept
from musichal.live.control import Answer, Command, command
from musichal.live.drift import DriftReport
from musichal.live.engine import EngineObserver
from musichal.live.session.event_log import Entry
from musichal.live.stage import StageState
from musichal.machine import now_s
from musichal.partner.decision import Decision
from musichal.text import printable, text_path
from musichal.web.messages import Message, decision_message, drift_message, entry_message, percept_message, stage_message

_MOST_WAITING = 4096
_FRAME_S = 1 / 60
_FRAME_CHARACTERS = 1 << 17
_LEVEL_S = 0.05
_START_S, _PATIENCE_S, _KILLED_S = 20.0, 2.0, 2.0
_LEAST_POWER = 1e-12


@dataclass(frozen=True, kw_only=True)
class WebPlace:
    """Where the page is served; `port` 0 chooses a free one."""

    host: str = "127.0.0.1"
    port: int = 0

    @property
    def is_local(self) -> bool:
        """Return whether only this machine can reach it."""
        return ipaddress.ip_address(self.host).is_loopback

    @property
    def is_everywhere(self) -> bool:
        """Return whether it is served at every address of this machine."""
        return ipaddress.ip_address(self.host).is_unspecified

    def own_address(self) -> str:
        """Return the address that this machine has for others, an empty one where it is in no network. Nothing is sent."""
        # The far address is of no machine: it is for documentation.
        family, far = (socket.AF_INET6, "2001:db8::1") if ":" in self.host else (socket.AF_INET, "192.0.2.1")
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((far, 9))
            return str(probe.getsockname()[0])
        return ""


class Desk(Protocol):
    """What does the work that a page asks for where nothing is being played. Called on a thread; must not wait."""

    names: frozenset[str]

    def take(self, name: str, values: Sequence[object], answer: Answer) -> None:
        """Take what is asked for."""

    def received(self, path: Path) -> None:
        """Take a file that was dropped on a page."""


class Dashboard(EngineObserver):
    """Serves the page of a performance, or of what else is `say`-ed.

    Raises `InputError` on entering, where the port is taken.

    * `put`: Takes the commands of the page, on a thread; without it the page can only be looked at.
    * `most_waiting`: How many events wait for the page's process at most.
    * `address`, `stage_address`: Where the page is, and the one that can only be looked at.
    * `on_end`: Called with a sentence, on a thread, if the page's process ends too early.
    """

    def __init__(
        self,
        put: Callable[[Command], object] | None = None,
        *,
        place: WebPlace | None = None,
        most_waiting: int = _MOST_WAITING,
    ) -> None:
        self.put, self._most_waiting = put, most_waiting
        self.place = place or WebPlace()
        if self.place.host == "localhost":
            self.place = replace(self.place, host="127.0.0.1")
        self.desk: Desk | None = None
        self.address = self.stage_address = ""
        self.on_end: Callable[[str], object] = lambda _: None
        self._rate_hz, self._input_rate_hz = 1, 1
        self._names: Sequence[str] = ()
        self.dropped = 0
        self._waiting: deque[tuple[str, Any]] = deque()
        self._begun, self._wake = threading.Event(), threading.Event()
        self._closing, self._told = threading.Event(), threading.Event()
        self._refusal = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._samples, self._peak, self._power, self._measured = 0, 0.0, 0.0, 0
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        """Start the process, and wait until the page is served."""
        try:
            ipaddress.ip_address(self.place.host)
        except ValueError as error:
            raise InputError(f"--web-host must be an address such as 0.0.0.0, got {printable(self.place.host)!r}") from error
        tokens = [secrets.token_urlsafe(24), secrets.token_urlsafe(24)]
        with machine.starting_children(threads=1):
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                machine.command("musichal.web.server", self.place.host, str(self.place.port)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        assert self._process.stdin is not None
        # Not as arguments, which every user of the machine can read.
        self._process.stdin.write(json.dumps(tokens).encode() + b"\n")
        self._process.stdin.flush()
        for run in (self._read, self._write):
            self._threads.append(threading.Thread(target=run, name="dashboard", daemon=True))
            self._threads[-1].start()
        if not self._told.wait(_START_S) or not self.address:
            self.__exit__(None, None, None)
            raise InputError(self._refusal or "the page's process did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._begun.set()
        self._wake.set()
        self._threads[1].join(_PATIENCE_S)
        if self._threads[1].is_alive() and self._process is not None:
            self._process.kill()  # it does not read, and its pipe cannot be closed while that is written to
        machine.end_reader(self._threads[0], lambda: self._process, patience_s=_PATIENCE_S, killed_s=_KILLED_S)

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return None if self._process is None else self._process.pid

    @property
    def is_serving(self) -> bool:
        """Return whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def begin(self, hello: Message, *, sample_rate_hz: int, input_rate_hz: int) -> None:
        """Send the first message; what came before it follows.

        `sample_rate_hz` is the clock's, `input_rate_hz` that of the sound.
        """
        self._rate_hz, self._input_rate_hz = sample_rate_hz, input_rate_hz
        self._names = [str(recording["name"]) for recording in hello["recordings"]]
        self._waiting.appendleft(("say", hello))
        self._begun.set()
        self._wake.set()

    def say(self, message: Message) -> None:
        """Send a message to every page, and to those that will be opened."""
        self._append("say", message)

    def say_all(self, messages: Iterable[Message], stop: threading.Event) -> None:
        """Send messages no faster than they are read, until all are sent, `stop` is set, or the process has ended."""
        for message in messages:
            while len(self._waiting) > self._most_waiting // 2 and self.is_serving and not stop.wait(_FRAME_S):
                pass
            if stop.is_set() or not self.is_serving:
                return
            self.say(message)

    # ── what the engine's observers get ──────────────────────────────────────

    def sound(self, samples: Float32) -> None:
        """Measure the level of the input."""
        self._samples += len(samples)
        if len(samples):
            self._measured += len(samples)
            self._peak = max(self._peak, float(np.abs(samples).max()))
            self._power += float(np.dot(samples, samples))
        if not self._begun.is_set() or self._measured < _LEVEL_S * self._input_rate_hz:
            return
        power = self._power / self._measured
        level = {"at": round(self._samples / self._input_rate_hz, 4), "rms_db": _db(power), "peak_db": _db(self._peak**2)}
        self._peak, self._power, self._measured = 0.0, 0.0, 0
        self._append("say", {"k": "level", **level})

    def entry(self, entry: Entry) -> None:
        """Pass an entry of the event log on."""
        self._append("entry", entry)

    def percept(self, percept: Percept) -> None:
        """Pass on what was heard."""
        self._append("percept", percept)

    def decision(self, decision: Decision) -> None:
        """Pass a decision on."""
        self._append("decision", decision)

    def drift(self, report: DriftReport) -> None:
        """Pass an alarm on."""
        self._append("drift", report)

    def event(self, at_s: float, kind: str, text: str) -> None:
        """Pass an event on."""
        self._append("say", {"k": "event", "at_s": round(at_s, 3), "kind": kind, "text": text})

    def stage(self, state: StageState) -> None:
        """Pass on what a player wants to know."""
        self._append("stage", state)

    def statistics(self, values: dict[str, object]) -> None:
        """Pass the figures on."""
        self._append("say", {"k": "statistics", "dropped": self.dropped, **values})

    def _append(self, kind: str, value: object) -> None:
        if len(self._waiting) >= self._most_waiting:
            with contextlib.suppress(IndexError):
                self._waiting.popleft()
                self.dropped += 1
        self._waiting.append((kind, value))
        self._wake.set()

    # ── the process ──────────────────────────────────────────────────────────

    def _message(self, kind: str, value: Any) -> Message | None:
        match kind:
            case "decision":
                return decision_message(value, self._names)
            case "percept":
                return percept_message(value, self._rate_hz)
            case "entry":
                return entry_message(value, self._rate_hz)
            case "drift":
                return drift_message(value)
            case "stage":
                return stage_message(value)
        return dict(value)

    def _write(self) -> None:
        assert self._process is not None and self._process.stdin is not None
        pipe = self._process.stdin
        closing = False
        self._begun.wait()
        while not closing:
            self._wake.wait()
            self._wake.clear()
            closing = self._closing.is_set()
            try:
                while self._waiting:
                    pipe.write(("[" + ",".join(self._frame()) + "]\n").encode())
                pipe.flush()
            except OSError:
                return  # its process has ended
            except Exception as error:
                if not self._closing.is_set():  # then the pipe may be closed
                    self.on_end(f"the dashboard is told nothing more: {type(error).__name__}: {error}")
                return
            self._closing.wait(_FRAME_S)

    def _frame(self) -> list[str]:
        """Return what waits as texts, as much as one frame takes."""
        texts: list[str] = []
        size = 0
        while self._waiting and size < _FRAME_CHARACTERS:
            message = self._message(*self._waiting.popleft())
            if message is not None:
                texts.append(json.dumps(message, separators=(",", ":"), default=str))
                size += len(texts[-1])
        return texts

    def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            values = json.loads(line)
            if "serving" in values:
                self.address, self.stage_address = values["serving"]
                self._told.set()
            elif "received" in values:
                if self.desk is not None:
                    self.desk.received(text_path(values["received"]))
            elif "refused" in values:
                self._refusal = values["refused"]
            else:
                self._obey(values)
        if self.address and not self._closing.is_set():
            self.on_end("the dashboard's process has ended: what plays goes on without the page")
        self._told.set()

    def _obey(self, asked: dict[str, Any]) -> None:
        def answer(obeyed: bool, text: str) -> None:
            self.say({"k": "answer", "to": asked["to"], "id": asked["id"], "obeyed": obeyed, "text": text})

        if self.desk is not None and asked["name"] in self.desk.names:
            self.desk.take(asked["name"], asked["values"], answer)
            return
        try:
            wanted = command(asked["name"], asked["values"], answer=answer)
        except InputError as error:
            answer(False, str(error))
            return
        if self.put is None:
            answer(False, "this page is to look at: nothing is being played")
        else:
            # The moment of a tap is when it arrived here.
            self.put(Command(wanted.name, wanted.value, answer, now_s()))


def _db(power: float) -> float:
    return round(10 * float(np.log10(max(power, _LEAST_POWER))), 1)
