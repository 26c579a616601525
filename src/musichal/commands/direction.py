"""`musichal modes`, and what `musichal play` is given to play by: a mode, a table of modes, a form."""

from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from musichal.commands.terminal import Terminal
from musichal.errors import InputError
from musichal.partner.form import parse_form
from musichal.partner.modes import AUTO, Mode, built_in_modes, parse_modes, read_modes
from musichal.partner.settings import Direction
from musichal.text import printable, read_text, unknown_name


def direction(mode: str, modes: Path | None, form: Path | None) -> Direction:
    """Return what to play by, all of it read and checked.

    Raises
    ------
    InputError
        For an unknown mode, or a file that cannot be read or used: names the file and what is wrong in it.
    """
    table = built_in_modes()
    modes_text = "" if modes is None else read_text(modes)
    if modes is not None:
        table = parse_modes(modes_text, table, source=printable(modes))
    if mode not in (*table, AUTO):
        raise unknown_name("mode", mode, [*table, AUTO])
    form_text = "" if form is None else read_text(form)
    if form is not None:
        parse_form(form_text, table, source=printable(form))
    return Direction(mode=mode, modes=modes_text, form=form_text)


def modes_command(path: Path | None, *, as_toml: bool, voice: Terminal) -> None:
    """Show the modes that there are: those of a file, and those that MusicHal comes with.

    Raises
    ------
    InputError
        If the file is no table of modes.
    """
    if as_toml:
        if path is not None:
            raise InputError("--toml shows the modes that MusicHal comes with; a file of your own is there already")
        voice.out.print(
            (files("musichal.partner") / "modes.toml").read_text(encoding="utf-8"), markup=False, highlight=False, end="",
            soft_wrap=True,
        )  # fmt: skip
        return
    table = built_in_modes() if path is None else read_modes(path)
    voice.result({"modes": {name: _plain(mode) for name, mode in table.items()}})
    voice.show(_shown(table.values()))
    voice.say("Choose one with `musichal play … --mode NAME`; with --mode auto the partner changes modes itself.")


def _plain(mode: Mode) -> dict[str, object]:
    return {
        "about": mode.about,
        "turn": mode.turn,
        "trigger": mode.trigger,
        "phrase": mode.phrase,
        "breath": mode.breath,
        "patience_s": mode.patience_s,
        "recall": mode.recall,
        "returns": mode.returns,
        "stay_s": list(mode.stay_s),
        "next": dict(mode.next),
        "settings": dict(mode.settings),
    }


def _shown(modes: Iterable[Mode]) -> Table:
    shown = Table(title="Modes")
    for column in ("mode", "what it does", "plays", "starts at", "phrases", "breaths"):
        shown.add_column(column)
    for mode in modes:
        lengths = ("", "") if mode.turn == "rest" else (f"× {mode.phrase:g}", f"× {mode.breath:g}")
        shown.add_row(escape(mode.name), escape(mode.about), mode.turn, mode.trigger, *lengths)
    return shown
