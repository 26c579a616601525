"""`musichal parameters`, `modes`, `keys` and `docs`: what can be set and pressed, from the tables that the program uses."""

from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown

from musichal import commands
from musichal.commands.terminal import Terminal, table_of
from musichal.errors import InputError
from musichal.live.control import COMMANDS, key_card
from musichal.live.input.osc import PREFIX
from musichal.parameters import MODE_NUMBERS, PARAMETERS, Parameter, setting
from musichal.partner.modes import Mode, built_in_modes, read_modes
from musichal.text import unknown_name

_SCOPES = {"partner": "", "voice": "VOICE.", "mode": ""}


# ── parameters ───────────────────────────────────────────────────────────────


def modes_that_set(parameter: Parameter, modes: Mapping[str, Mode]) -> list[str]:
    """Return the names of the modes that set a parameter."""
    if parameter.scope == "mode":
        return list(modes)
    return [name for name, mode in modes.items() if parameter.scope == "partner" and parameter.name in dict(mode.settings)]


def parameters_command(
    *,
    name: Annotated[str | None, typer.Argument(help="One parameter; default: all.")] = None,
    terminal: Terminal,
) -> None:
    """Show the table of parameters, or one of them. Raises `InputError` for an unknown name."""
    chosen = PARAMETERS if name is None else (MODE_NUMBERS.get(name) or setting(name),)
    modes = built_in_modes()
    rows = [p.to_dict() | {"set_by_modes": modes_that_set(p, modes), "osc": _osc_address(p)} for p in chosen]
    terminal.result({"parameters": rows})
    for group, members in groupby(sorted(chosen, key=lambda p: p.group), key=lambda p: p.group):
        cells = [(_SCOPES[p.scope] + p.name, f"{_shown(p.default)} {p.unit}".strip(), p.range, p.help) for p in members]
        terminal.show(table_of(group, ("name", "default", "range", "meaning"), cells))
    terminal.say("Set one with `musichal play … --set NAME=VALUE`, by OSC, or in a table of modes (`musichal docs modes`).")


def parameters_markdown() -> str:
    """Return docs/reference/parameters.md."""
    modes = built_in_modes()
    lines = [
        "# Parameters",
        "",
        "Generated from `musichal.parameters` by `python tools/reference.py`. `musichal parameters` shows the same table, and",
        "`musichal parameters --json` gives it to other programs.",
        "",
        "Set a parameter with `--set NAME=VALUE`, while playing by OSC (`/musichal/NAME VALUE`) or a",
        "controller, and in a table of modes. A value that you give holds in every mode; a mode sets only what you have",
        "not given. A voice's parameters are",
        "set as `bass.hold`, by OSC as `/musichal/bass/hold`. A mode's are columns of its table only.",
    ]
    for group, members in groupby(sorted(PARAMETERS, key=lambda p: p.group), key=lambda p: p.group):
        lines += [
            "",
            f"## {group}",
            "",
            "| name | default | range | unit | meaning | set by modes |",
            "|---|---|---|---|---|---|",
        ]
        for p in members:
            by = "" if p.scope == "mode" else ", ".join(modes_that_set(p, modes))
            cells = (f"`{_SCOPES[p.scope]}{p.name}`", _shown(p.default), p.range, p.unit, p.help, by)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _osc_address(parameter: Parameter) -> str | None:
    if parameter.scope == "mode":
        return None
    return PREFIX + ("VOICE/" if parameter.scope == "voice" else "") + parameter.name


# ── modes and keys ───────────────────────────────────────────────────────────


def modes_command(
    *,
    table: Annotated[Path | None, typer.Argument(help="Your own table of modes (TOML); it is checked.")] = None,
    as_toml: Annotated[bool, typer.Option("--toml", help="Print the built-in table, to copy.")] = False,
    terminal: Terminal,
) -> None:
    """Show the built-in modes, and those of a file. Raises `InputError` if the file is not a table of modes."""
    if as_toml:
        if table is not None:
            raise InputError("--toml prints the built-in modes and takes no file")
        text = (files("musichal.partner") / "modes.toml").read_text(encoding="utf-8")
        terminal.out.print(text, markup=False, highlight=False, end="", soft_wrap=True)
        return
    modes = built_in_modes() if table is None else read_modes(table)
    columns = ("about", "turn", "trigger", *MODE_NUMBERS)
    plain = {
        name: {column: getattr(mode, column) for column in columns}
        | {"stay_s": list(mode.stay_s), "next": dict(mode.next), "settings": dict(mode.settings)}
        for name, mode in modes.items()
    }
    terminal.result({"modes": plain})
    rows = []
    for mode in modes.values():
        lengths = ("", "") if mode.turn == "rest" else (f"× {mode.phrase:g}", f"× {mode.breath:g}")
        rows.append((mode.name, mode.about, mode.turn, mode.trigger, *lengths))
    terminal.show(table_of("Modes", ("mode", "what it does", "plays", "starts at", "phrases", "breaths"), rows))
    terminal.say("Choose one with `musichal play … --mode NAME`; with --mode auto the partner changes modes.")


def keys_command(
    *,
    terminal: Terminal,
) -> None:
    """Show the keys that work while playing live."""
    rows = key_card(list(built_in_modes()))
    terminal.result({"keys": [{"key": key, "meaning": meaning} for key, meaning in rows]})
    terminal.show(table_of("Keys while playing live", ("key", "meaning"), rows))


# ── docs ─────────────────────────────────────────────────────────────────────


def docs_command(
    *, topic: Annotated[str | None, typer.Argument(help="A topic; default: the list of topics.")] = None, terminal: Terminal
) -> None:
    """Print a topic of the guide, or the list of topics. Raises `InputError` for an unknown topic."""
    topics: dict[str, tuple[str, Callable[[], str]]] = {
        "start": ("install, first partner, first duo, first concert", lambda: _guide("start")),
        "commands": (
            "what each command does",
            lambda: _listed("Commands", [(name, place.help) for name, place in commands.COMMANDS.items()]),
        ),
        "parameters": ("every setting, with default and range", parameters_markdown),
        "modes": ("modes and your own table of them", lambda: _guide("modes")),
        "form": ("a form: sections, silences, an ending", lambda: _guide("form")),
        "osc": ("OSC addresses in and out", _osc_page),
        "files": ("partner files and session folders", lambda: _guide("files")),
        "python": ("the Python API", lambda: _guide("python")),
    }
    if topic is None:
        text = _listed("Topics: `musichal docs TOPIC`", [(name, about) for name, (about, _) in topics.items()])
    elif topic in topics:
        text = topics[topic][1]()
    else:
        raise unknown_name("topic", topic, topics)
    terminal.result({"topic": topic, "text": text})
    if terminal.out.is_terminal:
        terminal.show(Markdown(text))
    else:
        for line in text.splitlines():
            terminal.say(line)


def _guide(topic: str) -> str:
    return (files("musichal.commands") / "guide" / f"{topic}.md").read_text(encoding="utf-8")


def _listed(title: str, rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join([f"# {title}", "", *(f"- `{name}`: {about}" for name, about in rows), ""])


def _osc_page() -> str:
    rows = [(f"{PREFIX}{c.name} {c.values}".strip(), c.help) for c in COMMANDS if c.of != "display"]
    rows += [(f"{address} VALUE", p.help) for p in PARAMETERS if (address := _osc_address(p)) is not None]
    return _listed("OSC: `musichal play … --osc 9000:9001`", rows)
