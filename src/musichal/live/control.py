"""Control while playing: commands by OSC, MIDI controllers and keys, in one form, through one bounded queue.

Some commands are the engine's (`STAGE_COMMANDS`); the others are the partner's: its settings by their names, and
`PARTNER_COMMANDS`. An unknown name is refused here, a value by the partner; the sender gets the error.
"""

import math
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from musichal.errors import InputError
from musichal.machine import now_s
from musichal.parameters import NUMBERS, UNLIMITED, WORDS, setting
from musichal.partner.modes import AUTO
from musichal.text import check_keys, integer_in, number_in, printable, read_toml, unknown_name

COMMANDS_HELP: Mapping[str, str] = MappingProxyType(
    {
        "mute": "mute or unmute the answer; with 1 or 0 either",
        "listen": "listen to the player, or stop listening; with 1 or 0 either",
        "panic": "end all notes at once",
        "quit": "stop playing and close the session",
        "mode": "take up a mode by its name; auto lets the partner change modes",
        "region": "play from a region only: all, or as 0:10-20.5, or a recording's number, start and end",
        "clock": "follow a tempo in beats per minute; on the beat, when it is sent",
        "tap": "a beat is now: one tap moves the beat, two or more give the tempo",
        "go_back": "return to the phrase and the mode before",
        "more_like_this": "stay near what was played last, and in the mode",
        "change": "play something else, in another mode",
    }
)
"""What each command does, beside the settings; also the commands that the engine takes."""
STAGE_COMMANDS = ("mute", "listen", "panic", "quit")
"""Commands of the engine; the others are the partner's."""
PARTNER_COMMANDS = tuple(name for name in COMMANDS_HELP if name not in STAGE_COMMANDS)
TRIGGERS = ("panic", "quit", "tap", "go_back", "more_like_this", "change")
NAMES = (*STAGE_COMMANDS, *PARTNER_COMMANDS, *NUMBERS, *WORDS)
"""Every command, besides the settings of a voice such as ``bass.low_pitch``."""
KEYS = {
    "q": "quit",
    "\x1b": "quit",
    "p": "panic",
    " ": "panic",
    "m": "mute",
    "l": "listen",
    "n": "change",
    "b": "go_back",
    "+": "more_like_this",
    "t": "tap",
}
"""What single keys ask for; see `key_command` for the digits."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}(\.[a-z][a-z0-9_]{0,39})?")
_LONGEST_TEXT = 200
_MOST_VALUES = 8
_MOST_COMMANDS = 64
_PACE_S = 0.02
_MOST_MAPPINGS = 512
_HIGH = 64

Value = float | int | bool | str | tuple[float | int | bool | str, ...] | Mapping[str, object] | None
Answer = Callable[[str], None]


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


def command(name: str, arguments: Sequence[object] = (), *, answer: Answer | None = None) -> Command:
    """Return the command of a name and its arguments, as a controller sent them.

    Raises
    ------
    InputError
        For an unknown name, or arguments that the command cannot have.
    """
    if not _NAME.fullmatch(name):
        raise InputError("a command must be a name in small letters, such as mute or temperature")
    check_name(name)
    if len(arguments) > _MOST_VALUES:
        raise InputError(f"{name} takes at most {_MOST_VALUES} values")
    values = tuple(_value(name, argument) for argument in arguments)
    if name in ("mute", "listen"):
        return Command(name, _switch(name, values), answer)
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
    return None if name is None else Command(name, None if name in ("mute", "listen") else True)


def _value(name: str, argument: object) -> float | int | bool | str:
    if isinstance(argument, bool | int):
        if abs(argument) < 1 << 53:
            return argument
    elif isinstance(argument, float):
        if math.isfinite(argument):
            return argument
    elif isinstance(argument, str) and len(argument) <= _LONGEST_TEXT and argument.isprintable():
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
    if name in TRIGGERS:
        return name.replace("_", " ")
    values = value if isinstance(value, list) else [value]
    return f"{name} " + ", ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in values)


def check_name(name: str) -> None:
    """Raise `InputError` for a name that is neither a command nor a setting."""
    if "." in name:
        setting(name)
    elif name not in NAMES:
        raise unknown_name("command", name, NAMES, hint="and a voice's as bass.low_pitch")


def check_number(name: str, value: float) -> None:
    """Raise `InputError` for a number that a setting cannot have."""
    if "." in name or name in NUMBERS:
        setting(name).check(int(value) if is_whole(name) and value == int(value) else value, name)


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
        """Keep a command; False, and counted, where there are too many different ones."""
        if asked.name in TRIGGERS and asked.value is False:
            return True  # the button was let go
        if asked.moment_s is None:
            asked = replace(asked, moment_s=self._now_s())
        key = _merged_by(asked)
        with self._lock:
            before = self._waiting.pop(key, None)
            if before is not None:
                self.merged += 1
                if asked.value is None and asked.name in ("mute", "listen"):
                    if before.value is None:
                        return True  # over, and over again
                    asked = replace(asked, value=not before.value)
            elif len(self._waiting) >= _MOST_COMMANDS:
                self.refused += 1
                return False
            self._waiting[key] = asked
        return True

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
    if asked.name == "tap":
        return f"tap {asked.moment_s}"
    if asked.name == "clock" and isinstance(asked.value, Mapping) and "source" in asked.value:
        return f"clock {asked.value['source']}"
    return asked.name


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
            elif mapping.name in STAGE_COMMANDS:
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
    ``low`` and ``high``, or ``choices``.

    Raises
    ------
    InputError
        For a file that is none, naming what is wrong in it.
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
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(f"{where} needs a command, such as mute or temperature")
    try:
        check_name(name)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    if note and name not in (*TRIGGERS, *STAGE_COMMANDS):
        raise InputError(f"{where}: a note is a button, for {', '.join((*TRIGGERS, 'mute', 'listen'))}, not for {name}")
    what = "note" if note else "controller"
    controller = integer_in(entry.get(what), 0, 127, f"{where}: {what}")
    channel = None if channel is None else integer_in(channel, 1, 16, f"{where}: channel") - 1
    if not isinstance(choices, list) or not all(isinstance(c, str) and 0 < len(c) <= _LONGEST_TEXT for c in choices):
        raise InputError(f"{where}: choices must be a list of words")
    return CcMapping(
        controller=controller,
        name=name,
        channel=channel,
        low=number_in(entry.get("low", 0.0), -UNLIMITED, UNLIMITED, f"{where}: low"),
        high=number_in(entry.get("high", 1.0), -UNLIMITED, UNLIMITED, f"{where}: high"),
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
    elif m.name not in (*STAGE_COMMANDS, *TRIGGERS):
        entry |= {"low": m.low, "high": m.high}
    return entry
