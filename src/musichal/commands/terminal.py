"""The terminal: text, tables, progress and keys for a person, JSON for a program."""

import contextlib
import errno
import json
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, NoReturn, TextIO

import typer
from rich.box import HEAVY_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from musichal.errors import InputError, MusicHalError
from musichal.text import printable, reason

Poll = Callable[[float], str]
"""Waits up to so many seconds and returns the keys that were pressed, at most a few, or an empty text."""
RETAKEN = "\x0c"
"""Stands for a key where the terminal was taken back from a shell, after Ctrl-Z and ``fg``; as a key, Ctrl-L."""


@dataclass(frozen=True)
class Terminal:
    """Where a command writes: `out` for its results, `err` for progress and warnings; `as_json` for a program."""

    out: Console
    err: Console
    as_json: bool = False

    def say(self, text: str) -> None:
        """Print a line for a person; a program reads `result`."""
        if not self.as_json:
            self.out.print(escape(text), highlight=False, soft_wrap=True)

    def show(self, renderable: Any) -> None:
        """Print a table or the like for a person."""
        if not self.as_json:
            self.out.print(renderable)

    def warn(self, text: str) -> None:
        """Print a warning on the error stream."""
        self.err.print(f"[yellow]warning:[/yellow] {escape(text)}", highlight=False, soft_wrap=True)

    def result(self, values: dict[str, Any]) -> None:
        """Print the result for a program, as one JSON object; a `Rows` in it is written row by row."""
        if self.as_json:
            for part in json.JSONEncoder(indent=2, allow_nan=False).iterencode(values):
                self.out.file.write(part)
            self.out.file.write("\n")

    @contextmanager
    def progress(self, first: str) -> Iterator[Callable[[str, float], None]]:
        """Show a progress bar while the block runs; the block calls it with a description and a share from 0 to 1."""
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.err, transient=True, disable=not self.err.is_terminal) as bar:
            task = bar.add_task(escape(first), total=1.0)

            def tell(what: str, share: float) -> None:
                bar.update(task, description=escape(what), completed=share)

            yield tell


class Rows(list[Any]):
    """A list for `Terminal.result` whose rows are made when they are written: there may be more than memory holds."""

    def __init__(self, rows: Iterable[Any]) -> None:
        super().__init__()
        self._rows = iter(rows)
        self._first = list(islice(self._rows, 1))

    def __len__(self) -> int:
        """Return 0 where there is none, else 1."""
        return len(self._first)

    def __iter__(self) -> Iterator[Any]:
        """Yield each row, once."""
        return chain(self._first, self._rows)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Raise, instead of ending the program without a word."""
        raise BrokenPipeError(errno.EPIPE, "nobody reads it any more")


@contextmanager
def open_terminal(as_json: bool = False) -> Iterator[Terminal]:
    """Give a command its terminal; an error ends the program with one line and its exit code."""
    # No emoji: a file may really be called ":bell:.wav".
    terminal = Terminal(_Console(emoji=False), _Console(stderr=True, emoji=False), as_json)
    try:
        yield terminal
        flush_output()
    except MusicHalError as error:
        _end(str(error), error.exit_code, error)
    except MemoryError as error:
        _end("not enough memory for this recording", InputError.exit_code, error)
    except OSError as error:
        where = "cannot write the output" if error.filename is None else printable(os.fsdecode(error.filename))
        _end(f"{where}: {reason(error)}", InputError.exit_code, error)


def _end(text: str, code: int, error: BaseException) -> NoReturn:
    """Print one line, if there is still somebody to read it, and end with an exit code."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"musichal: {text}\n")
        sys.stderr.flush()
    raise typer.Exit(code) from error


def flush_output() -> None:
    """Write out what was printed; where that fails nothing is left, so that the end of the program does not fail again."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):  # not a real file, as in a test
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def table_of(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, right: bool = False, box: Any = HEAVY_HEAD
) -> Table:
    """Return a table of texts, which are not read as markup; with `right` all columns but the first are aligned right."""
    table = Table(title=title, title_justify="left", box=box)
    for number, column in enumerate(columns):
        table.add_column(Text(column), overflow="fold", justify="right" if right and number else "left")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return table


@contextmanager
def keys(stream: TextIO | None = None) -> Iterator[Poll]:
    """Read single keys while the block runs, then restore the terminal; without a terminal only wait."""
    stream = sys.stdin if stream is None else stream
    try:
        is_terminal = stream is not None and stream.isatty()
    except ValueError:
        is_terminal = False
    if not is_terminal:
        pause = threading.Event()

        def wait_only(timeout_s: float) -> str:
            pause.wait(timeout_s)
            return ""

        yield wait_only
    elif sys.platform == "win32":
        yield _windows_keys
    else:
        with _posix_keys(stream) as poll:
            yield poll


if sys.platform == "win32":

    def _windows_keys(timeout_s: float) -> str:
        import msvcrt

        threading.Event().wait(timeout_s)
        pressed = ""
        while msvcrt.kbhit() and len(pressed) < 16:
            pressed += msvcrt.getwch()
        return pressed

else:

    @contextmanager
    def _posix_keys(stream: TextIO) -> Iterator[Poll]:
        import os
        import select
        import termios
        import tty

        descriptor = stream.fileno()
        before = termios.tcgetattr(descriptor)

        def is_ours() -> bool:
            try:
                return os.tcgetpgrp(descriptor) == os.getpgrp()
            except OSError:  # it is no program's controlling terminal
                return True

        def poll(timeout_s: float) -> str:
            if not is_ours():  # to read would stop the program
                threading.Event().wait(timeout_s)
                return ""
            if termios.tcgetattr(descriptor)[3] & termios.ICANON:
                tty.setcbreak(descriptor)
                return RETAKEN
            ready, _, _ = select.select([descriptor], [], [], timeout_s)
            if not ready:
                return ""
            text = os.read(descriptor, 16).decode(errors="ignore")
            # Arrow keys and the like begin with Escape, which alone means to quit.
            return text if text == "\x1b" or not text.startswith("\x1b") else ""

        try:
            tty.setcbreak(descriptor)
            yield poll
        finally:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
