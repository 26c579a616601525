"""The map of MIDI controllers: which fader, button or pad gives which command; read from and written to a TOML file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musichal.errors import InputError
from musichal.live.control import LONGEST_TEXT, NAME, SWITCHES, TRIGGERS, Command, check_name, is_whole, usual_range
from musichal.parameters import UNLIMITED
from musichal.text import check_keys, integer_in, number_in, printable, read_toml

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
