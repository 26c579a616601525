"""The command line: `musichal.commands.COMMANDS`, of which each is imported when it is asked for, so that help is quick."""

import sys
from importlib import import_module
from typing import Annotated, Any

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup

from musichal import __version__
from musichal.commands import COMMANDS
from musichal.commands.options import command_of
from musichal.commands.terminal import flush_output, open_terminal


class _Commands(TyperGroup):
    """The commands: their help is known without their modules."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {**{name: TyperCommand(name, help=place.help) for name, place in COMMANDS.items()}, **self.commands}

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, load(name) if name in COMMANDS else command, rest


def load(name: str) -> Any:
    """Return a command with its options, as click has it."""
    place = COMMANDS[name]
    module, function = place.function.split(".")
    run = command_of(getattr(import_module(f"musichal.commands.{module}"), function), with_json=place.has_json)
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")
    single.command(name, help=place.help, epilog=f"Example: {place.example}")(run)
    return typer.main.get_command(single)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="An AI partner for improvising musicians: it learns sounds from recordings, listens to a player, answers in MIDI, and"
    " gives a reason for each note. Start with `musichal demo`; `musichal docs` prints the guide.",
    epilog="Exit codes: 0 success, 1 a check failed, 2 bad input or usage, 130 interrupted.",
)


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets a replacement, not a crash.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        with open_terminal():  # for what is printed outside of a command: help and version
            try:
                app()
            finally:
                flush_output()
    except typer.Exit as ended:
        sys.exit(ended.exit_code)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"musichal {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
