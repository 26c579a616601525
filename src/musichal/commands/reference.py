"""`musichal parameters`, `modes`, `keys` and `docs`: what can be set and pressed, from the tables that the program uses."""

from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from itertools import groupby
from pathlib import Path

from rich.markdown import Markdown

from musichal.commands.terminal import Terminal, table_of
from musichal.errors import InputError
from musichal.live.control import COMMANDS_HELP, KEYS
from musichal.live.input.osc import PREFIX
from musichal.parameters import MODE_NUMBERS, PARAMETERS, Parameter, setting
from musichal.partner.modes import Mode, built_in_modes, read_modes
from musichal.text import unknown_name

_KEY_NAMES = {"\x1b": "Escape", " ": "space"}
_SCOPES = {"partner": "", "voice": "VOICE.", "mode": ""}


# ── parameters ───────────────────────────────────────────────────────────────


def modes_that_set(parameter: Parameter, modes: Mapping[str, Mode]) -> list[str]:
    """Return the names of the modes that set a parameter."""
    if parameter.scope == "mode":
        return list(modes)
    return [name for name, mode in modes.items() if parameter.scope == "partner" and parameter.name in dict(mode.settings)]


def parameters_command(*, terminal: Terminal, name: str | None = None) -> None:
    """Show the table of parameters, or one of them.

    Raises
    ------
    InputError
        For an unknown name.
    """
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


def modes_command(*, terminal: Terminal, table: Path | None = None, as_toml: bool = False) -> None:
    """Show the built-in modes, and those of a file.

    Raises
    ------
    InputError
        If the file is not a table of modes.
    """
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


def keys_command(*, terminal: Terminal) -> None:
    """Show the keys that work while playing live."""
    pressed: dict[str, list[str]] = {}
    for key, command in KEYS.items():
        pressed.setdefault(command, []).append(_KEY_NAMES.get(key, key))
    rows = [(" or ".join(keys), COMMANDS_HELP[command]) for command, keys in pressed.items()]
    modes = list(built_in_modes())
    rows += [(f"1 to {len(modes)}", f"take up a mode: {', '.join(modes)}"), ("0", "let the partner change modes")]
    terminal.result({"keys": [{"key": key, "meaning": meaning} for key, meaning in rows]})
    terminal.show(table_of("Keys while playing live", ("key", "meaning"), rows))


# ── docs ─────────────────────────────────────────────────────────────────────


def docs_command(*, commands: Sequence[tuple[str, str]], terminal: Terminal, topic: str | None = None) -> None:
    """Print a topic of the guide, or the list of topics; `commands` holds the name and the help of each command.

    Raises
    ------
    InputError
        For an unknown topic.
    """
    topics: dict[str, tuple[str, Callable[[], str]]] = {
        "start": ("install, first partner, first duo, first concert", lambda: _START),
        "commands": ("what each command does", lambda: _listed("Commands", commands)),
        "parameters": ("every setting, with default and range", parameters_markdown),
        "modes": ("modes and your own table of them", lambda: _MODES),
        "form": ("a form: sections, silences, an ending", lambda: _FORM),
        "osc": ("OSC addresses in and out", _osc_page),
        "files": ("partner files and session folders", lambda: _FILES),
        "python": ("the Python API", lambda: _PYTHON),
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


def _listed(title: str, rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join([f"# {title}", "", *(f"- `{name}`: {about}" for name, about in rows), ""])


def _osc_page() -> str:
    rows = [(f"{PREFIX}{name}", about) for name, about in COMMANDS_HELP.items()]
    rows += [(f"{address} VALUE", p.help) for p in PARAMETERS if (address := _osc_address(p)) is not None]
    return _listed("OSC: `musichal play … --osc 9000:9001`", rows)


_START = """\
# Start

1. `musichal demo` trains on a bundled band, answers a bundled guitar, and writes the results into `musichal-demo`.
2. `musichal train take1.wav take2.wav -o partner.hal` trains a partner on your recordings.
3. `musichal play partner.hal --input guitar.wav --midi-out reply.mid --audio-out reply.wav` answers a recording.
4. `musichal devices` lists audio and MIDI ports; live playing needs the extra `live`: `pip install "musichal[live]"`.
5. `musichal play partner.hal --input Scarlett --midi-out "IAC Bus 1" --session tonight` plays live; see `musichal keys`.
6. `musichal explain tonight --at 1:23` explains a decision; `musichal replay tonight` plays the session again.
7. `musichal verify partner.hal` checks that the partner hears live as it heard in training.
"""
_MODES = """\
# Modes

`musichal modes` lists the modes; `musichal play … --mode mirror` chooses one; `--mode auto` lets the partner change.
`musichal modes --toml > my-modes.toml` writes the built-in table, with a comment for each column. Edit it, or add a mode:

    [ghost]
    like = "shadow"
    about = "a shadow far away"
    gain_db = -12
    breath = 2.0

`musichal modes my-modes.toml` checks it, and `musichal play … --modes my-modes.toml --mode ghost` plays with it. A mode sets
parameters (`musichal docs parameters`); what you give with `--set` holds in every mode.
"""
_FORM = """\
# Form

`musichal play … --form arc.toml` follows a score of sections. Times are minutes:seconds.

    title = "Arc"
    end = "3:00"
    fade_s = 8

    [[section]]
    from = "0:00"
    mode = "mirror"
    intensity = 0.4          # or [0.2, 0.8]: from … to …
    use = "0:10-20.5, 2"     # regions of the recordings

    [[section]]
    from = "1:00"
    until = "1:10"
    silence = true
"""
_FILES = """\
# Files

A **partner file** (`.hal`) is a zip archive: `manifest.json` (format version, spec, digests), arrays as safetensors,
recordings as FLAC. It holds no code. `musichal inspect partner.hal` shows what is in it.

A **session folder** (`musichal play … --session NAME`) holds `settings.json`, `input/` (the player as FLAC), `transcript.jsonl`
(what was heard, and when), `decisions.jsonl` (each decision with its reason) and `reply.mid`.
`musichal replay NAME` plays it again.
"""
_PYTHON = """\
# Python

    import musichal as mh

    partner = mh.train(["take1.wav"], seed=0)
    partner.save("partner.hal")
    y, sr = mh.read_audio("guitar.wav")
    answer = partner.respond(y, sr, mode="mirror", temperature=0.4)
    answer.to_midi("reply.mid")
    for decision in answer.decisions[:3]:
        print(decision.time_s, decision.reason)

`help(mh)` lists the functions; each has an example.
"""
