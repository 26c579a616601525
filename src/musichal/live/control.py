"""Control while playing: commands by OSC, MIDI controllers and keys, in one form, through one bounded queue.

`COMMANDS` is the one table: keys, OSC addresses, the card of keys and the reference come from it. Some commands are the
engine's, some the display's; the others are the partner's, as are its settings by their names. An unknown name is refused here,
a value by the partner; the sender is told what became of a command.
"""

import math
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from musichal.errors import InputError
from musichal.machine import now_s
from musichal.parameters import NUMBERS, UNLIMITED, WORDS, setting
from musichal.partner.modes import AUTO
from musichal.text import check_keys, integer_in, number_in, printable, read_toml, unknown_name


@dataclass(frozen=True, kw_only=True)
class LiveCommand:
    """One command: whom it concerns, what values it takes, and the keys that give it.

    A button takes none, a switch 1 or 0 (none turns it over). `values` says in words what it takes.
    """

    name: str
    help: str
    of: Literal["stage", "partner", "controllers", "display"] = "partner"
    takes: Literal["button", "switch", "value"] = "button"
    values: str = ""
    keys: str = ""


_TURNS_OVER = "1, 0, or none to turn it over"
COMMANDS = (
    LiveCommand(
        name="pause", of="stage", takes="switch", values=_TURNS_OVER, keys=" p",
        help="hold: notes end, the form waits; again: go on",
    ),
    LiveCommand(name="mark", of="stage", values="none, or a few words", keys="\n\r", help="mark this moment in the session"),
    LiveCommand(name="tap", keys="t", help="a beat is now; two or more give the tempo"),
    LiveCommand(name="more_like_this", keys="+", help="stay near what was played last"),
    LiveCommand(name="less_like_this", keys="-", help="keep away for a while from what was played last"),
    LiveCommand(name="change", keys="n", help="play something else, in another mode"),
    LiveCommand(name="go_back", keys="b", help="the phrase and the mode before"),
    LiveCommand(name="hold_section", takes="switch", values=_TURNS_OVER, keys="h", help="stay in this section; again: go on"),
    LiveCommand(name="next_section", keys=">s", help="begin the next section of the form now"),
    LiveCommand(name="end", keys="e", help="come to an end now, with a last phrase"),
    LiveCommand(name="mute", of="stage", takes="switch", values=_TURNS_OVER, keys="m", help="play silently, or aloud again"),
    LiveCommand(name="listen", of="stage", takes="switch", values=_TURNS_OVER, keys="l", help="listen to you, or not"),
    LiveCommand(name="panic", of="stage", keys="\x7f\x08", help="end all notes at once"),
    LiveCommand(name="help", of="display", keys="?", help="show or hide this card"),
    LiveCommand(name="figures", of="display", keys="f", help="show or hide figures and reasons"),
    LiveCommand(name="quit", of="stage", keys="q\x1b", help="stop playing and close the session; as a key, press it twice"),
    LiveCommand(
        name="intensity", takes="value", values="0 to 1, or `auto`",
        help="louder, with longer phrases and shorter breaths, until the form's next section; auto gives it back",
    ),
    LiveCommand(
        name="mode", takes="value", values="a mode, or `auto`",
        help="take up a mode by its name; auto lets the partner change modes",
    ),
    LiveCommand(
        name="region", takes="value", values='"0:10-20.5", or 0 10 20.5, or "all"',
        help="play from a region only: a recording's number, start and end",
    ),
    LiveCommand(
        name="learn_controller", of="controllers", takes="value", values="a command or a setting",
        help="the next MIDI controller that moves gives this (--control-in; --map keeps it)",
    ),
    LiveCommand(
        name="forget_controller", of="controllers", takes="value", values="a command or a setting",
        help="no MIDI controller gives this any more",
    ),
    LiveCommand(
        name="clock", takes="value", values="beats per minute", help="follow a tempo; a beat is when it is sent"
    ),
)  # fmt: skip
"""The commands of live playing, beside the settings."""
_GIVEN = tuple(c for c in COMMANDS if c.of != "display")
COMMANDS_HELP: Mapping[str, str] = MappingProxyType({c.name: c.help for c in _GIVEN})
"""What each command does that can be sent: all but those of the display."""
STAGE_COMMANDS = tuple(c.name for c in COMMANDS if c.of == "stage")
"""Commands of the engine."""
PARTNER_COMMANDS = tuple(c.name for c in COMMANDS if c.of == "partner")
CONTROLLER_COMMANDS = tuple(c.name for c in COMMANDS if c.of == "controllers")
"""Commands about what controllers do."""
DISPLAY_COMMANDS = tuple(c.name for c in COMMANDS if c.of == "display")
"""Commands that change only what is shown."""
TRIGGERS = tuple(c.name for c in _GIVEN if c.takes == "button")
SWITCHES = tuple(c.name for c in _GIVEN if c.takes == "switch")
KEYS = {key: c.name for c in COMMANDS for key in c.keys}
"""What single keys ask for; see `key_command` for the digits."""
NAMES = (*STAGE_COMMANDS, *PARTNER_COMMANDS, *CONTROLLER_COMMANDS, *NUMBERS, *WORDS)
"""Every command, besides the settings of a voice such as ``bass.low_pitch``."""
NAME = re.compile(r"[a-z][a-z0-9_]{0,39}(\.[a-z][a-z0-9_]{0,39})?")
LONGEST_TEXT = 200
_MOST_VALUES = 8
_MOST_COMMANDS = 64
_PACE_S = 0.02
KEY_NAMES = {"\x1b": "Escape", " ": "space", "\n": "Enter", "\x7f": "Backspace"}
"""What keys are called that have no sign."""
_UNNAMED_KEYS = "\r\x08"  # the same keys as others, on other terminals

Value = float | int | bool | str | tuple[float | int | bool | str, ...] | Mapping[str, object] | None
Answer = Callable[[bool, str], None]
"""Takes whether a command was obeyed, and a sentence: what it did, or why not."""


@dataclass(frozen=True)
class Command:
    """What a player asks for: a name, and a value or None.

    `answer` tells the sender what became of it, if that matters; `moment_s` is when it arrived, on the machine's clock.
    """

    name: str
    value: Value = None
    answer: Answer | None = field(default=None, compare=False)
    moment_s: float | None = field(default=None, compare=False)

    @property
    def concerns_stage(self) -> bool:
        """Whether it is for the stage, not the partner."""
        return self.name in STAGE_COMMANDS

    def reply(self, obeyed: bool, text: str) -> None:
        """Tell the sender what became of it, if that matters."""
        if self.answer is not None:
            self.answer(obeyed, text)


def command(name: str, arguments: Sequence[object] = (), *, answer: Answer | None = None) -> Command:
    """Return the command of a name and its arguments, as a controller sent them."""
    if not NAME.fullmatch(name):
        raise InputError("a command must be a name in small letters, such as mute or temperature")
    check_name(name)
    if len(arguments) > _MOST_VALUES:
        raise InputError(f"{name} takes at most {_MOST_VALUES} values")
    values = tuple(_value(name, argument) for argument in arguments)
    if name in SWITCHES:
        return Command(name, _switch(name, values), answer)
    if name == "mark" and len(values) == 1 and isinstance(values[0], str):
        return Command(name, values[0], answer)
    if name in TRIGGERS:
        # A button sends 1 when it is pressed and 0 when it is let go.
        return Command(name, not values or _switch(name, values), answer)
    if not values:
        raise InputError(f"{name} needs a value")
    return Command(name, values[0] if len(values) == 1 else values, answer)


def key_command(key: str, modes: Sequence[str]) -> Command | None:
    """Return what a key asks for, if anything; a digit chooses from `modes`, 1 the first, and 0 leaves it to the partner."""
    if key.isdecimal() and key.isascii():
        number = int(key)
        return None if number > len(modes) else Command("mode", modes[number - 1] if number else AUTO)
    name = KEYS.get(key.lower())
    return None if name is None else Command(name, None if name in SWITCHES else True)


def key_card(modes: Sequence[str]) -> list[tuple[str, str]]:
    """Return the keys and what each does, in the order of the table."""
    card = []
    for c in COMMANDS:
        if names := [KEY_NAMES.get(key, key) for key in c.keys if key not in _UNNAMED_KEYS]:
            card.append((" or ".join(names), c.help))
    numbers = f"1 to {len(modes)}" if len(modes) > 1 else "1"
    return [*card, (numbers, f"take up a mode: {', '.join(modes)}"), ("0", "let the partner change modes")]


def _value(name: str, argument: object) -> float | int | bool | str:
    if isinstance(argument, bool | int):
        if abs(argument) < 1 << 53:
            return argument
    elif isinstance(argument, float):
        if math.isfinite(argument):
            return argument
    elif isinstance(argument, str) and len(argument) <= LONGEST_TEXT and argument.isprintable():
        return argument
    raise InputError(f"{name} must be numbers or short words")


def _switch(name: str, values: Sequence[float | int | bool | str]) -> bool | None:
    if not values:
        return None
    value = values[0]
    if len(values) > 1 or isinstance(value, str):
        raise InputError(f"{name} must be 1 or 0")
    return value > 0


def partner_changes(asked: Command) -> dict[str, object]:
    """Return what a command changes in a partner, in plain values that JSON can hold, in the types of its settings."""
    value: object = list(asked.value) if isinstance(asked.value, tuple) else asked.value
    if isinstance(value, Mapping):
        value = dict(value)
    # OSC and MIDI have floats and integers as it suits the sender.
    if is_whole(asked.name) and isinstance(value, float) and value.is_integer():
        value = int(value)
    return {asked.name: value}


def told(changes: Mapping[str, object]) -> str:
    """Return changes in words, for a player."""
    return ", ".join(_told(name, value) for name, value in changes.items())


def _told(name: str, value: object) -> str:
    if value is None or name in (*TRIGGERS, *SWITCHES):
        return name.replace("_", " ")
    values = value if isinstance(value, list) else [value]
    return f"{name} " + ", ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in values)


def check_name(name: str) -> None:
    """Raise `InputError` for a name that is neither a command nor a setting."""
    if "." in name:
        setting(name)
    elif name not in NAMES:
        raise unknown_name("command", name, NAMES, hint="and a voice's as bass.low_pitch")


def usual_range(name: str) -> tuple[float, float]:
    """Return the values from one end of a fader to the other, for a setting that takes numbers; 0 to 1 for others."""
    if name not in NUMBERS and "." not in name:
        return 0.0, 1.0
    return setting(name).usual


def check_number(name: str, value: float) -> None:
    """Raise `InputError` for a number that a setting or the intensity cannot have."""
    if "." in name or name in NUMBERS:
        setting(name).check(int(value) if is_whole(name) and value == int(value) else value, name)
    elif name == "intensity":
        number_in(value, 0, 1, name)


def is_whole(name: str) -> bool:
    """Return whether a setting of the partner, or of one of its voices (``bass.low_pitch``), takes integers."""
    # A region is the number of a recording.
    return name == "region" or (("." in name or name in NUMBERS) and setting(name).kind == "integer")


class CommandQueue:
    """Commands on their way to the engine; what comes faster than it can matter is merged, so it stays small.

    Of several commands with one name the last counts, but every tap, every press of a button that switches over, and the last
    of every clock. Panic and quit are handed out at once, the rest every `pace_s`. A command keeps the moment of its arrival.
    """

    def __init__(self, *, pace_s: float = _PACE_S, now_s: Callable[[], float] = now_s) -> None:
        self._lock = threading.Lock()
        self._now_s = now_s
        self._waiting: dict[str, Command] = {}
        self._pace_s, self._next_s = pace_s, -math.inf
        self.merged = self.refused = 0

    def put(self, asked: Command) -> bool:
        """Keep a command; False, counted and answered, where there are too many different ones."""
        if asked.name in TRIGGERS and asked.value is False:
            return True  # the button was let go
        if asked.moment_s is None:
            asked = replace(asked, moment_s=self._now_s())
        key = _merged_by(asked)
        with self._lock:
            before = self._waiting.pop(key, None)
            if before is not None:
                self.merged += 1
                if asked.value is None and asked.name in SWITCHES:
                    if before.value is None:
                        return True  # over, and over again
                    asked = replace(asked, value=not before.value)
            if before is not None or len(self._waiting) < _MOST_COMMANDS:
                self._waiting[key] = asked
                return True
            self.refused += 1
        asked.reply(False, "too many commands at once")
        return False

    def take(self, now_s: float) -> list[Command]:
        """Return the commands that are due, panic first."""
        if not self._waiting:
            return []
        with self._lock:
            if now_s >= self._next_s:
                taken, self._waiting = list(self._waiting.values()), {}
                self._next_s = now_s + self._pace_s
            else:
                urgent = [name for name in ("panic", "quit") if name in self._waiting]
                taken = [self._waiting.pop(name) for name in urgent]
        return sorted(taken, key=lambda c: c.name not in ("panic", "quit"))


def _merged_by(asked: Command) -> str:
    """Return the key of commands of which only the last counts."""
    if asked.name in ("tap", "mark"):
        return f"{asked.name} {asked.moment_s}"
    if asked.name == "clock" and isinstance(asked.value, Mapping) and "source" in asked.value:
        return f"clock {asked.value['source']}"
    return asked.name


# ── controllers ──────────────────────────────────────────────────────────────

_MOST_MAPPINGS = 512
_HIGH = 64
BUTTONS = (*TRIGGERS, *SWITCHES)
"""Commands without values, for buttons, pads and pedals."""


@dataclass(frozen=True)
class CcMapping:
    """A controller and the command that it gives: of its 128 positions, 0 is `low` and 127 `high`, or one of `choices`.

    `channel` counts from 0; None hears any. A command without values (a button) is given when the controller goes up
    beyond the middle. With `note`, `controller` is the pitch of a note that is such a button, such as a pad.
    """

    controller: int
    name: str
    channel: int | None = None
    low: float = 0.0
    high: float = 1.0
    whole: bool = False
    choices: tuple[str, ...] = ()
    note: bool = False


class CcMap:
    """Turns controller messages into commands."""

    def __init__(self, mappings: Sequence[CcMapping]) -> None:
        self.mappings = tuple(mappings)
        self._last: dict[tuple[int, int], int] = {}

    def commands(self, channel: int, controller: int, position: int) -> list[Command]:
        """Return the commands of a controller message; `channel` counts from 0, `position` is 0 to 127."""
        before = self._last.get((channel, controller), 0)
        self._last[channel, controller] = position
        found = []
        for mapping in self.mappings:
            if mapping.note or mapping.controller != controller or mapping.channel not in (None, channel):
                continue
            if mapping.name in TRIGGERS:
                if before < _HIGH <= position:
                    found.append(Command(mapping.name, True))
            elif mapping.name in SWITCHES:
                if (before < _HIGH) != (position < _HIGH):
                    found.append(Command(mapping.name, position >= _HIGH))
            elif mapping.choices:
                found.append(Command(mapping.name, mapping.choices[position * len(mapping.choices) // 128]))
            else:
                value = mapping.low + (mapping.high - mapping.low) * position / 127
                found.append(Command(mapping.name, round(value) if mapping.whole else value))
        return found

    def struck(self, channel: int, pitch: int) -> list[Command]:
        """Return the commands of a note that begins; one that switches, such as mute, switches over."""
        return [
            Command(m.name, True if m.name in TRIGGERS else None)
            for m in self.mappings
            if m.note and m.controller == pitch and m.channel in (None, channel)
        ]


def read_cc_map(path: Path) -> CcMap:
    """Read a map of controllers: a TOML file of ``[[cc]]`` and ``[[note]]`` tables.

    Each has ``controller`` or ``note`` (0 to 127) and ``command``, and may have ``channel`` (1 to 16); one of a controller
    ``low`` and ``high``, or ``choices``. Raises `InputError` for a file that is none, naming what is wrong in it.
    """
    table = read_toml(path)
    kinds = [table.get("cc", []), table.get("note", [])]
    if table.keys() - {"cc", "note"} or not all(isinstance(k, list) and len(k) <= _MOST_MAPPINGS for k in kinds):
        raise InputError(f"{printable(path)}: a map of controllers has [[cc]] and [[note]] tables and nothing else")
    return CcMap(
        [
            _mapping(entry, f"{printable(path)}: {kind} {number}", note=kind == "note")
            for kind, entries in zip(("cc", "note"), kinds, strict=True)
            for number, entry in enumerate(entries, start=1)
        ]
    )


def _mapping(entry: Any, where: str, *, note: bool) -> CcMapping:
    if not isinstance(entry, dict):
        raise InputError(f"{where} must be a table")
    of_cc = ("controller", "command", "channel", "low", "high", "choices")
    check_keys(entry, ("note", "command", "channel") if note else of_cc, where)
    name, channel, choices = entry.get("command"), entry.get("channel"), entry.get("choices", [])
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InputError(f"{where} needs a command, such as mute or temperature")
    try:
        check_name(name)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    if note and name not in BUTTONS:
        raise InputError(f"{where}: a note is a button, for {', '.join(BUTTONS)}, not for {name}")
    what = "note" if note else "controller"
    controller = integer_in(entry.get(what), 0, 127, f"{where}: {what}")
    channel = None if channel is None else integer_in(channel, 1, 16, f"{where}: channel") - 1
    if not isinstance(choices, list) or not all(isinstance(c, str) and 0 < len(c) <= LONGEST_TEXT for c in choices):
        raise InputError(f"{where}: choices must be a list of words")
    ends = usual_range(name)
    return CcMapping(
        controller=controller,
        name=name,
        channel=channel,
        low=number_in(entry.get("low", ends[0]), -UNLIMITED, UNLIMITED, f"{where}: low"),
        high=number_in(entry.get("high", ends[1]), -UNLIMITED, UNLIMITED, f"{where}: high"),
        whole=is_whole(name),
        choices=tuple(choices),
        note=note,
    )


def cc_map_toml(mappings: Sequence[CcMapping], *, before: str = "") -> str:
    """Return the text of a map's file; what was there `before` keeps its comments and its order."""
    import tomlkit  # only where a map is written

    document: Any = tomlkit.parse(before)
    for kind in ("cc", "note"):
        wanted = [m for m in mappings if m.note == (kind == "note")]
        entries = document.get(kind, [])
        there = [_mapping(entry.unwrap(), kind, note=kind == "note") for entry in entries]
        for number in reversed(range(len(there))):
            if there[number] not in wanted:
                del entries[number]
        new = [m for m in wanted if m not in there]
        if new and kind not in document:
            document[kind] = tomlkit.aot()
        inline = kind in document and not isinstance(document[kind], tomlkit.items.AoT)
        for m in new:
            entry: Any = tomlkit.inline_table() if inline else tomlkit.table()
            entry.update(_entry(m))
            document[kind].append(entry)
    return tomlkit.dumps(document)


def _entry(m: CcMapping) -> dict[str, Any]:
    entry: dict[str, Any] = {"note" if m.note else "controller": m.controller, "command": m.name}
    if m.channel is not None:
        entry["channel"] = m.channel + 1
    if m.choices:
        entry["choices"] = list(m.choices)
    elif m.name not in BUTTONS:
        entry |= {"low": m.low, "high": m.high}
    return entry
