"""Modes: how the partner plays with the player, as a table that users can copy and extend.

A mode states when the partner plays (turn, trigger, lengths of phrases and pauses) and which settings it changes. The built-in
modes are in `modes.toml`; a user's file has the same columns, and `like` copies those of another mode. A `ModeKeeper` stays
in a mode for a while and leaves it at the end of a phrase, or at once by hand or by a form.
"""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from musichal.errors import InputError
from musichal.parameters import MODE_NUMBERS, ModeParameters
from musichal.partner.settings import PartnerSettings
from musichal.text import number_in, parse_toml, printable, read_text, text_in, unknown_name

TRIGGERS: Mapping[str, tuple[str, ...]] = {
    "along": ("onset", "own end", "phrase end"),
    "answer": ("phrase end",),
    "own": ("own end",),
    "rest": ("never",),
}
"""The triggers that go with each turn."""
_COLUMNS = ("about", "turn", "trigger", *MODE_NUMBERS, "stay_s", "next")
_STAY_RANGE_S = (1.0, 3600.0)
_GOES_BACK = 16


@dataclass(frozen=True, kw_only=True)
class Mode(ModeParameters):
    """One mode; `modes.toml` explains the columns. `settings` holds the partner's settings that it changes."""

    name: str
    about: str = ""
    turn: str = "along"
    trigger: str = "own end"
    stay_s: tuple[float, float] = (30.0, 90.0)
    next: tuple[tuple[str, float], ...] = ()
    settings: tuple[tuple[str, Any], ...] = ()

    def applied(self, base: PartnerSettings, by_hand: Mapping[str, Any]) -> PartnerSettings:
        """Return `base` with this mode's settings, then with what the user gave.

        Raises `InputError` if the two together are not valid settings.
        """
        try:
            return base.changed({**dict(self.settings), **by_hand})
        except InputError as error:
            raise InputError(f"mode {self.name}: {error}") from error


ModeTable = Mapping[str, Mode]


def built_in_modes() -> dict[str, Mode]:
    """Return the built-in modes by name."""
    return dict(_built_in_modes())


@cache
def _built_in_modes() -> ModeTable:
    text = (files("musichal.partner") / "modes.toml").read_text(encoding="utf-8")
    return parse_modes(text, {}, source="modes.toml")


def read_modes(path: Path) -> dict[str, Mode]:
    """Return the modes of a user's file and the built-in modes that it does not replace.

    Raises `InputError` if the file cannot be read or is not a table of modes: names the mode, the column and the valid values.
    """
    return parse_modes(read_text(path), built_in_modes(), source=printable(path))


def parse_modes(text: str, known: ModeTable, *, source: str) -> dict[str, Mode]:
    """Return the modes of a TOML text together with `known` ones; see `read_modes`."""
    tables = parse_toml(text, source=source)
    modes = dict(known)
    for name, columns in tables.items():
        where = f"{source}: mode {name!r}"
        if not isinstance(columns, dict):
            raise InputError(f"{source}: {name!r} is outside a mode; begin a mode with a line such as [{name}]")
        if not name.replace("_", "").replace("-", "").isalnum() or len(name) > 40 or name == AUTO:
            raise InputError(f"{where}: a name must be made of letters, digits, - and _, and must not be {AUTO!r}")
        modes[name] = _mode(name, columns, modes, where)
    for mode in modes.values():
        for following, _ in mode.next:
            if following not in modes:
                raise unknown_name("mode", following, modes, where=f"{source}: mode {mode.name!r}: next")
    return modes


def _mode(name: str, columns: Mapping[str, Any], known: ModeTable, where: str) -> Mode:
    values = dict(columns)
    like = values.pop("like", None)
    if like is not None and (not isinstance(like, str) or like not in known):
        raise InputError(f"{where}: like must be a built-in mode or one above it ({', '.join(known)}), got {like!r}")
    base = Mode(name=name) if like is None else replace(known[like], name=name)
    settings = dict(base.settings)
    own: dict[str, Any] = {}
    for column, value in values.items():
        if column in MODE_NUMBERS:
            own[column] = MODE_NUMBERS[column].check(value, f"{where}: {column}")
        elif column == "stay_s":
            own[column] = _stay(value, where)
        elif column == "next":
            own[column] = _next(value, name, where)
        elif column in ("about", "turn", "trigger"):
            own[column] = text_in(value, f"{where}: {column}")
        elif column == "direction":
            raise InputError(f"{where}: a mode cannot set the direction that it is part of")
        else:
            settings[column] = value
    mode = replace(base, **own, settings=tuple(settings.items()))
    _check_turn(mode, values, where)
    try:
        PartnerSettings().changed(settings)
    except InputError as error:
        also = f" (columns of a mode: {', '.join(_COLUMNS)}, like)" if "unknown setting" in str(error) else ""
        raise InputError(f"{where}: {error}{also}") from error
    return mode


def _check_turn(mode: Mode, given: Mapping[str, Any], where: str) -> None:
    if mode.turn not in TRIGGERS:
        raise InputError(f"{where}: turn must be one of {', '.join(map(repr, TRIGGERS))}, got {mode.turn!r}")
    if mode.trigger not in TRIGGERS[mode.turn]:
        allowed = " or ".join(map(repr, TRIGGERS[mode.turn]))
        raise InputError(f"{where}: turn {mode.turn!r} contradicts trigger {mode.trigger!r}; it goes with {allowed}")
    if mode.recall and mode.turn != "answer":
        raise InputError(f"{where}: recall needs turn 'answer', got {mode.turn!r}")
    waits = mode.turn == "answer" or mode.trigger == "phrase end"
    if "patience_s" in given and not waits:
        raise InputError(
            f"{where}: turn {mode.turn!r} with trigger {mode.trigger!r} waits for no phrase: patience_s contradicts it"
        )
    if mode.turn == "rest":
        playing = [column for column in given if column in MODE_NUMBERS]
        if playing:
            raise InputError(f"{where}: turn 'rest' plays nothing: {', '.join(playing)} contradicts it")


def _stay(value: object, where: str) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2:
        raise InputError(f"{where}: stay_s must be two numbers of seconds, such as [30, 90], got {value!r}")
    least, most = (number_in(v, *_STAY_RANGE_S, f"{where}: stay_s") for v in value)
    if least > most:
        raise InputError(f"{where}: stay_s must have the shorter stay first, got {value!r}")
    return least, most


def _next(value: object, name: str, where: str) -> tuple[tuple[str, float], ...]:
    if not isinstance(value, dict):
        raise InputError(f"{where}: next must be a table such as {{ couple = 2, mirror = 1 }}, got {value!r}")
    if name in value:
        raise InputError(f"{where}: next must not name {name!r} itself")
    weights = tuple((other, number_in(weight, 0, 1e6, f"{where}: next: {other}")) for other, weight in value.items())
    if weights and not sum(weight for _, weight in weights):
        raise InputError(f"{where}: next must make one of its modes possible")
    return weights


PLAIN = Mode(name="", about="plays by the settings alone", phrase=math.inf, breath=0.0)
"""Stands for no mode: the partner plays along while the player plays."""
AUTO = "auto"
"""Name that leaves the choice of modes to the partner."""


class ModeKeeper:
    """Keeps a mode for as long as it is meant to last; `user_override` says that the player chose it.

    `start` is the name of the first mode; `AUTO` starts with "couple", or else the table's first mode, and goes on by itself.
    `rng` draws how long to stay and what comes next. Raises `InputError` for a mode that the table lacks.
    """

    def __init__(self, table: ModeTable, start: str, *, rng: np.random.Generator) -> None:
        self._table = table
        self._rng = rng
        self._wanders = start == AUTO
        first = ("couple" if "couple" in table else next(iter(table))) if self._wanders else start
        self.mode = self._known(first)
        self._until_s = self._stay_until(0.0)
        self.user_override = False
        self._section: object = None
        self._before: deque[str] = deque(maxlen=_GOES_BACK)

    @property
    def until_s(self) -> float:
        """Until when it stays at least, infinite where only the player or a form will change it."""
        return self._until_s if self._wanders and not self.user_override else math.inf

    def step(self, now_s: float, *, phrase_ended: bool, section: object = None, form_mode: str | None = None) -> bool:
        """Move on to `now_s`; return whether the mode has changed.

        `section` identifies a form's present section and `form_mode` its mode; without one, the time of the mode decides. A
        mode that the player chose stays until the section ends.
        """
        new_section = section != self._section
        self._section = section
        if new_section and section is not None:
            self.user_override = False
        if self.user_override:
            return False
        if form_mode is not None:
            if form_mode == self.mode.name:
                return False
            return self._take(form_mode, now_s)
        if phrase_ended and now_s >= self.until_s:
            following = self._drawn()
            if following is not None:
                return self._take(following, now_s)
        return False

    def choose(self, name: str, now_s: float) -> None:
        """Change to a mode for the player, or leave the choice to the partner again with `AUTO`.

        Raises `InputError` for an unknown mode.
        """
        if name == AUTO:
            self._wanders, self.user_override = True, False
            self._until_s = self._stay_until(now_s)
            return
        self._known(name)
        self._take(name, now_s)
        self.user_override = True

    def another(self, now_s: float) -> None:
        """Change to another mode for the player: one that may come next, or any."""
        following = self._drawn()
        if following is None:
            others = [name for name, mode in self._table.items() if name != self.mode.name and mode.turn != "rest"]
            if not others:
                return
            following = others[int(self._rng.integers(len(others)))]
        by_hand = not self._wanders or self.user_override
        self._take(following, now_s)
        # Where the partner chooses its modes, it goes on doing so from here.
        self.user_override = by_hand or self._section is not None

    def back(self, now_s: float) -> None:
        """Return to the mode before this one for the player, if there is one."""
        if not self._before:
            return
        name = self._before.pop()
        self._take(name, now_s)
        self._before.pop()
        self.user_override = not self._wanders or self._section is not None

    def stay(self, now_s: float) -> None:
        """Stay in the present mode for as long again as it may last, for the player."""
        self._until_s = max(self._until_s, now_s) + self.mode.stay_s[1]

    def _known(self, name: str) -> Mode:
        if name not in self._table:
            raise unknown_name("mode", name, [*self._table, AUTO])
        return self._table[name]

    def _stay_until(self, now_s: float) -> float:
        return now_s + float(self._rng.uniform(*self.mode.stay_s))

    def _drawn(self) -> str | None:
        names = [name for name, weight in self.mode.next if weight > 0]
        weights = np.array([weight for _, weight in self.mode.next if weight > 0])
        if not names:
            return None
        return names[int(np.searchsorted(np.cumsum(weights), self._rng.random() * weights.sum(), side="right"))]

    def _take(self, name: str, now_s: float) -> bool:
        changed = name != self.mode.name
        if changed:
            self._before.append(self.mode.name)
        self.mode = self._known(name)
        self._until_s = self._stay_until(now_s)
        return changed
