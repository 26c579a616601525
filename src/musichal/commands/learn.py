"""`musichal learn`: a map of controllers, made by moving them."""

import queue
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from musichal.atomic import check_writable, open_atomically
from musichal.commands.terminal import Terminal
from musichal.errors import InputError
from musichal.live.control import (
    PARTNER_COMMANDS,
    STAGE_COMMANDS,
    TRIGGERS,
    CcMapping,
    cc_map_toml,
    check_number,
    command,
    is_whole,
    read_cc_map,
)
from musichal.parameters import WORDS
from musichal.partner.settings import PartnerSettings
from musichal.text import printable

_EXAMPLES = {
    "mode": "mode=shadow,mirror",
    "region": "region=all,0:10-20.5",
    "clock": "clock=60:180",
    "voices": "voices=all;melody,bass",
    "use": "use=all,0:10-20.5",
    "avoid": "avoid=none,0:10-20.5",
    "scenario": "scenario=C Am F G,Dm G",
}
_MOVED = 8  # positions: less is a neighbour that was touched, or a fader that trembles


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a controller is to do: a command, and its values from one end to the other, or its choices."""

    name: str
    low: float = 0.0
    high: float = 1.0
    choices: tuple[str, ...] = ()


class Mover:
    """Finds the controller that is moved: one that has gone some way, or a button that was pressed, and is not `taken` yet."""

    def __init__(self, taken: Collection[tuple[int, int]] = ()) -> None:
        self._taken = frozenset(taken)
        self._first: dict[tuple[int, int], int] = {}

    def take(self, data: Sequence[int]) -> tuple[int, int] | None:
        """Take a MIDI message; return the channel (from 0) and the controller, once it is clear which is meant."""
        if len(data) != 3 or data[0] & 0xF0 != 0xB0 or data[1] >= 120:  # from 120 on they are messages about the channel
            return None
        place, position = (data[0] & 0x0F, data[1]), data[2]
        if place in self._taken:
            return None  # it is still on its way from before
        if place not in self._first:
            self._first[place] = position
            # A button gives 127 and nothing on the way there.
            return place if position == 127 else None
        return place if abs(position - self._first[place]) >= _MOVED else None


def parse_wish(text: str) -> Wish:
    """Return the wish in words such as ``mute``, ``temperature=0:2`` or ``mode=shadow,mirror``.

    Choices that have commas themselves are parted by semicolons: ``voices=all;melody,bass``.

    Raises
    ------
    InputError
        For a name that neither the stage nor the partner has, or values that do not go with it.
    """
    name, equals, values = (part.strip() for part in text.partition("="))
    command(name, (0,))  # raises for a name that there is not
    words = name in (*WORDS, *PARTNER_COMMANDS)
    if name in (*STAGE_COMMANDS, *TRIGGERS):
        if equals:
            raise InputError(f"{name} is a button and takes no values")
        return Wish(name=name)
    if not equals:
        if words or is_whole(name) or "." in name:
            raise InputError(f"{name} needs its ends or choices, such as {_EXAMPLES.get(name, name + '=1:16')}")
        return Wish(name=name)
    ends = _ends(values)
    if ends is not None and name not in ("mode", *WORDS):
        for end in ends:
            check_number(name, end)
        return Wish(name=name, low=ends[0], high=ends[1])
    if not words or name == "clock":
        raise InputError(f"{name} goes from one number to another, as {name}=0:2, not {values!r}")
    choices = tuple(choice.strip() for choice in values.split(";" if ";" in values else ","))
    if not all(choice and choice.isprintable() for choice in choices):
        raise InputError(f"{name} has choices, as {_EXAMPLES[name]}; not {values!r}")
    if name != "mode":  # of modes there may be others at the time
        for choice in choices:
            PartnerSettings().changed({"use" if name == "region" else name: choice})
    return Wish(name=name, choices=choices)


def _ends(values: str) -> tuple[float, float] | None:
    """Return the two numbers of ``0:2``, None where it is something else."""
    try:
        low, high = (float(end) for end in values.split(":"))
    except ValueError:
        return None
    return low, high


def learned(mappings: Sequence[CcMapping], wish: Wish, place: tuple[int, int]) -> list[CcMapping]:
    """Return a map with a wish on a controller; what the same controller did before is replaced, the rest stays."""
    channel, controller = place
    new = CcMapping(controller, wish.name, channel, wish.low, wish.high, is_whole(wish.name), wish.choices)
    kept = [m for m in mappings if not (m.controller == controller and m.channel in (None, channel))]
    return [*kept, new]


def learn_command(path: Path, wanted: str, texts: Sequence[str], voice: Terminal, *, timeout_s: float) -> None:
    """Ask for one controller after the other, and write the map after each.

    Raises
    ------
    MusicHalError
        For a wish, a map or a MIDI input that cannot be used; what was learned before is written.
    """
    from musichal.live.input.midi import open_midi_input

    if not texts:
        raise InputError("name what controllers are to do, such as: temperature=0:2 mute mode=shadow,mirror")
    wishes = [parse_wish(text) for text in texts]
    mappings = list(read_cc_map(path).mappings) if path.exists() else []
    check_writable(path)
    taken: set[tuple[int, int]] = set()
    messages: queue.SimpleQueue[tuple[int, ...]] = queue.SimpleQueue()
    with open_midi_input(wanted, lambda data: messages.put(tuple(data))) as port:
        voice.say(f"Listening to {printable(port)}.")
        for wish in wishes:
            voice.say(f"Move the controller for {wish.name} …")
            place = _moved(messages.get, Mover(taken), timeout_s)
            if place is None:
                raise InputError(f"no controller was moved for {wish.name} within {timeout_s:g} s")
            taken.add(place)
            mappings = learned(mappings, wish, place)
            with open_atomically(path) as stream:
                stream.write(cc_map_toml(mappings).encode())
            voice.say(f"  controller {place[1]} on channel {place[0] + 1} is {wish.name}")
    voice.result({"map": str(path), "learned": [w.name for w in wishes], "mappings": len(mappings)})
    voice.say(f"Wrote {printable(path)}; play with --control-in and --map {printable(path)}.")


def _moved(get: Callable[..., tuple[int, ...]], mover: Mover, timeout_s: float) -> tuple[int, int] | None:
    """Return the channel and number of the controller that is moved next, None where none is in time."""
    from musichal.machine import now_s

    until_s = now_s() + timeout_s
    while (left_s := until_s - now_s()) > 0:
        try:
            place = mover.take(get(timeout=left_s))
        except queue.Empty:
            return None
        if place is not None:
            return place
    return None
