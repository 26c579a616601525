"""How commands speak: progress and words to the terminal, JSON to a program."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn


@dataclass(frozen=True)
class Terminal:
    """Where a command speaks: `out` for what was asked for, `err` for progress and warnings; `as_json` for programs."""

    out: Console
    err: Console
    as_json: bool = False

    def say(self, text: str) -> None:
        """Say one thing to a person; a program is told by `result`."""
        if not self.as_json:
            self.out.print(escape(text), highlight=False, soft_wrap=True)

    def show(self, renderable: Any) -> None:
        """Show a table or the like to a person."""
        if not self.as_json:
            self.out.print(renderable)

    def warn(self, text: str) -> None:
        """Warn on the error stream."""
        self.err.print(f"[yellow]warning:[/yellow] {escape(text)}", highlight=False, soft_wrap=True)

    def result(self, values: dict[str, Any]) -> None:
        """Give a program its answer, as one JSON object."""
        if self.as_json:
            self.out.print(json.dumps(values, indent=2, allow_nan=False), markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def progress(self, first: str) -> Iterator[Callable[[str, float], None]]:
        """Show a progress bar while the block runs; the block tells it (what, share from 0 to 1)."""
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.err, transient=True, disable=not self.err.is_terminal) as bar:
            task = bar.add_task(escape(first), total=1.0)

            def tell(what: str, share: float) -> None:
                bar.update(task, description=escape(what), completed=share)

            yield tell
