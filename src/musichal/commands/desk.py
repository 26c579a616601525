"""What the pages of `musichal web` may ask for: open and compare sessions, and train and verify partners, one task at a time.

A page names only numbers of the shelf; what it drops lies where `musichal.web.guard` has put it.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from rich.console import Console

from musichal.audio.recording_files import AUDIO_SUFFIXES, MIDI_SUFFIXES
from musichal.commands.check import verify_command
from musichal.commands.inspect import overview_lines
from musichal.commands.terminal import Terminal
from musichal.commands.train import train_command
from musichal.errors import InputError, MusicHalError
from musichal.live.control import Answer
from musichal.live.session.session import read_session
from musichal.memory.partner_file import load_partner
from musichal.text import path_text, printable
from musichal.web.dashboard import Dashboard
from musichal.web.guard import RefusedError, safe_name
from musichal.web.messages import Message
from musichal.web.shelf import SUFFIX, Shelf, compared_message, shelf_message

_MOST_LINES = 60

Show = Callable[[Path], tuple[Message, Iterable[Message]]]
"""Returns the messages of a session or a partner, the first apart."""


Work = Callable[..., object]
"""Does what is asked for, and tells its `terminal`."""


class _StoppedError(MusicHalError):
    """The page asked a task to stop."""


@dataclass(frozen=True)
class Uploads:
    """Where dropped files go: a folder that the command line names, or a new one (`is_fresh`)."""

    folder: Path
    is_fresh: bool


@dataclass(frozen=True, kw_only=True)
class _PageTerminal(Terminal):
    """A command's terminal on the page: what it says becomes messages."""

    task: "_Task"

    def say(self, text: str) -> None:
        self.task.line("say", text)

    def show(self, renderable: Any) -> None:
        """Show no table: the page has its own."""

    def warn(self, text: str) -> None:
        self.task.line("warn", text)

    def result(self, values: dict[str, Any]) -> None:
        self.task.found(values)

    @contextmanager
    def progress(self, first: str) -> Iterator[Callable[[str, float], None]]:
        self.task.tell(first, 0.0)
        yield self.task.tell


class _Task:
    """A training or a verification that runs, told to the pages."""

    def __init__(self, dashboard: Dashboard, kind: str, name: str) -> None:
        self._dashboard, self._stopping = dashboard, threading.Event()
        self._state: dict[str, Any] = {"kind": kind, "name": name, "state": "runs", "what": "", "share": 0.0, "lines": []}
        self.say()

    def stop(self) -> None:
        self._stopping.set()

    def say(self, **more: object) -> None:
        self._state |= more
        self._dashboard.say({"k": "task", **self._state})

    def tell(self, what: str, share: float) -> None:
        if self._stopping.is_set():
            raise _StoppedError("it was stopped")
        share = round(min(1.0, max(0.0, share)), 2)
        if (what, share) != (self._state["what"], self._state["share"]):
            self.say(what=what, share=share)

    def line(self, kind: str, text: str) -> None:
        self.say(lines=[*self._state["lines"], [kind, text]][-_MOST_LINES:])

    def found(self, values: dict[str, Any]) -> None:
        """Take the result of a verification: its checks."""
        if checks := values.get("checks"):
            names = ("group", "name", "passed", "found")
            self.say(checks=[{name: check.get(name) for name in names} for check in checks])

    def run(self, work: Work) -> None:
        """Run it to its end, whatever that is."""
        quiet = Console(quiet=True, width=200)
        try:
            work(terminal=_PageTerminal(out=quiet, err=quiet, task=self))
        except _StoppedError:
            self.say(state="stopped")
        except MusicHalError as error:
            self.say(state="failed", why=str(error))
        except Exception as error:  # a page must not wait for ever
            self.say(state="failed", why=f"{type(error).__name__}: {error}")
        else:
            self.say(state="done", share=1.0)


class Desk:
    """Does what a page asks for, on threads of its own.

    * `show`: Makes the messages of a session or a partner.
    * `uploads`: Without it nothing can be dropped, and so nothing trained.
    """

    names = frozenset(("open", "compare", "verify", "train", "drop_out", "stop"))

    def __init__(self, dashboard: Dashboard, shelf: Shelf, show: Show, uploads: Uploads | None = None) -> None:
        self._dashboard, self._show, self._uploads = dashboard, show, uploads
        self._shelf = shelf
        self.shown: Path | None = None
        self._dropped: dict[int, Path] = {}
        self._numbers = count()
        self._lock = threading.Lock()
        self._task: _Task | None = None
        self._opening = threading.Event()

    def say_shelf(self) -> None:
        """Tell the pages what there is."""
        more: dict[str, object] = {"can_train": self._uploads is not None}
        if self._uploads is not None:
            suffixes = sorted(AUDIO_SUFFIXES | MIDI_SUFFIXES)
            folder = path_text(self._uploads.folder.absolute())
            intake = {"folder": folder, "is_fresh": self._uploads.is_fresh, "suffixes": suffixes}
            more |= {"suffixes": suffixes, "intake": intake}
        self._dashboard.say(shelf_message(self._shelf, self.shown, **more))

    def received(self, path: Path) -> None:
        """Take a file that was dropped on a page."""
        self._dropped[next(self._numbers)] = path
        self._say_dropped()

    def take(self, name: str, values: Sequence[object], answer: Answer) -> None:
        """Do what a page asks for; must not wait."""
        try:
            getattr(self, f"_{name}")(values)
        except (InputError, RefusedError) as error:
            answer(False, str(error))

    # ── what can be asked for ────────────────────────────────────────────────

    def _open(self, values: Sequence[object]) -> None:
        kind = values[0] if len(values) == 2 else None
        paths = {"session": self._shelf.sessions, "partner": self._shelf.partners}.get(str(kind), ())
        path = self._of(paths, values[1:])
        self._on_thread(lambda: self.open(path))

    def _compare(self, values: Sequence[object]) -> None:
        if len(values) != 2 or values[0] == values[1]:
            raise InputError("choose two sessions")
        first, second = (self._of(self._shelf.sessions, [value]) for value in values)
        self._on_thread(lambda: self._dashboard.say(compared_message(read_session(first), read_session(second))))

    def _verify(self, values: Sequence[object]) -> None:
        partner, quick = self._of(self._shelf.partners, values[:1]), list(values[1:]) == ["quick"]
        self._begin("verify", printable(partner.name), partial(verify_command, partner=partner, quick=quick))

    def _train(self, values: Sequence[object]) -> None:
        if self._uploads is None:
            raise InputError("nothing can be dropped here: --uploads FOLDER allows it")
        if not self._dropped:
            raise InputError("drop recordings or MIDI files first")
        if len(values) != 1 or not isinstance(values[0], str):
            raise InputError("a partner needs a name")
        taken = dict(self._dropped)
        name = safe_name(f"{values[0].removesuffix(SUFFIX)}{SUFFIX}", (SUFFIX,))
        output = next(iter(taken.values())).parent / name
        if output.exists():
            raise InputError(f"{printable(name)} is there already: choose another name")

        def work(*, terminal: Terminal) -> None:
            train_command(output=output, terminal=terminal, recordings=list(taken.values()))
            self._dropped = {number: path for number, path in self._dropped.items() if number not in taken}
            self._shelf = Shelf(self._shelf.sessions, (output, *self._shelf.partners))
            for line in overview_lines(load_partner(output)):
                terminal.say(line)
            self._say_dropped()
            self.say_shelf()

        self._begin("train", name, work)

    def _drop_out(self, values: Sequence[object]) -> None:
        number = values[0] if len(values) == 1 else None
        if not isinstance(number, int) or number not in self._dropped:
            raise InputError("there is no such file")
        del self._dropped[number]  # the file stays where it is
        self._say_dropped()

    def _stop(self, _values: Sequence[object]) -> None:
        if self._task is not None:
            self._task.stop()

    # ── doing it ─────────────────────────────────────────────────────────────

    def open(self, path: Path) -> None:
        """Show a session or a partner on every page, instead of what is shown."""
        self._opening.set()
        opening = self._opening = threading.Event()
        hello, rest = self._show(path)
        with self._lock:
            if opening.is_set():
                return
            self.shown = path
            self._dashboard.say(hello)
            self.say_shelf()
        self._dashboard.say_all(rest, opening)

    def close(self) -> None:
        """End what runs."""
        self._opening.set()
        self._stop(())

    def _begin(self, kind: str, name: str, work: Work) -> None:
        if not self._lock.acquire(blocking=False):
            raise InputError("one moment")
        try:
            if self._task is not None:
                raise InputError("one task at a time: wait for the one that runs, or stop it")
            self._task = task = _Task(self._dashboard, kind, name)
        finally:
            self._lock.release()

        def run() -> None:
            task.run(work)
            self._task = None

        threading.Thread(target=run, name="task", daemon=True).start()

    def _on_thread(self, work: Callable[[], object]) -> None:
        def run() -> None:
            try:
                work()
            except (MusicHalError, OSError) as error:
                self._dashboard.say({"k": "trouble", "text": str(error)})

        threading.Thread(target=run, name="desk", daemon=True).start()

    def _of(self, paths: Sequence[Path], values: Sequence[object]) -> Path:
        number = values[0] if len(values) == 1 else None
        if type(number) is not int or not 0 <= number < len(paths):
            raise InputError("there is no such session or partner")
        return paths[number]

    def _say_dropped(self) -> None:
        there = {number: path for number, path in self._dropped.items() if path.exists()}
        files = [{"number": n, "name": printable(path.name), "size": path.stat().st_size} for n, path in there.items()]
        self._dashboard.say({"k": "dropped", "files": files})
