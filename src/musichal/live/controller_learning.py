"""Learning what a controller is to do: by words, and by moving it, before or while it plays."""

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from musichal.atomic import open_atomically
from musichal.errors import InputError, MusicHalError
from musichal.live.control import (
    BUTTONS,
    PARTNER_COMMANDS,
    Answer,
    CcMap,
    CcMapping,
    Command,
    cc_map_toml,
    check_number,
    command,
    is_whole,
    usual_range,
)
from musichal.parameters import WORDS
from musichal.partner.settings import VOICES, PartnerSettings
from musichal.text import printable, read_text

LEARN, FORGET = "learn_controller", "forget_controller"
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

    Choices that have commas themselves are parted by semicolons: ``voices=all;melody,bass``. Raises `InputError` for a name
    that neither the stage nor the partner has, or values that do not go with it.
    """
    name, equals, values = (part.strip() for part in text.partition("="))
    command(name, (0,))  # raises for a name that there is not
    words = name in (*WORDS, *PARTNER_COMMANDS) and name != "intensity"
    if name in BUTTONS:
        if equals:
            raise InputError(f"{name} is a button and takes no values")
        return Wish(name=name)
    if not equals:
        if words:
            raise InputError(f"{name} needs its ends or choices, such as {_EXAMPLES[name]}")
        low, high = usual_range(name)
        return Wish(name=name, low=low, high=high)
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


def learned(mappings: Sequence[CcMapping], wish: Wish, place: tuple[int, int], *, note: bool = False) -> list[CcMapping]:
    """Return a map with a wish on a controller or a note; what the same did before is replaced, the rest stays."""
    channel, controller = place
    new = CcMapping(controller, wish.name, channel, wish.low, wish.high, is_whole(wish.name), wish.choices, note)
    kept = [m for m in mappings if not ((m.controller, m.note) == (controller, note) and m.channel in (None, channel))]
    return [*kept, new]


def struck(data: Sequence[int]) -> tuple[int, int] | None:
    """Return the channel (from 0) and the pitch of a MIDI message that begins a note, None for any other."""
    return (data[0] & 0x0F, data[1]) if len(data) == 3 and data[0] & 0xF0 == 0x90 and data[2] else None


class LiveLearning:
    """Learns controllers while it plays: the next that moves gives what was asked for.

    Parameters
    ----------
    control_map : CcMap
        Which is changed.
    path : Path, optional
        The map's file, which keeps what is learned; without it that lasts until the end.
    modes : sequence of str
        What a controller can choose from.
    works : bool
        Whether there is an input of controllers.
    """

    def __init__(self, control_map: CcMap, path: Path | None, modes: Sequence[str] = (), *, works: bool = True) -> None:
        self._map, self._path, self.works, self._lock = control_map, path, works, threading.Lock()
        self._choices = {"mode": ("auto", *modes), "time": ("auto", "pulse", "free")}
        self._choices["voices"] = tuple(voice.name for voice in VOICES)
        self._wish: Wish | None = None
        self._mover = Mover()
        self._answer: Answer = lambda _obeyed, _text: None
        self.on_change: Callable[[], object] = lambda: None

    @property
    def mappings(self) -> tuple[CcMapping, ...]:
        """What the controllers do."""
        return self._map.mappings

    @property
    def waits_for(self) -> str | None:
        """What the next controller that moves will do."""
        return None if self._wish is None else self._wish.name

    @property
    def is_kept(self) -> bool:
        """Return whether a file keeps what is learned."""
        return self._path is not None

    def obey(self, asked: Command) -> None:
        """Learn or forget what a command names; an empty name waits no longer."""
        name, wanted, answer = asked.name, asked.value, asked.reply
        try:
            if not self.works:
                raise InputError("name the MIDI input of your controllers with --control-in")
            if not isinstance(wanted, str):
                raise InputError(f"{name} takes the name of a command or setting")
            if name == FORGET:
                self._change([m for m in self._map.mappings if m.name != wanted])
                answer(True, f"no controller gives {wanted}")
            elif not wanted:
                self._wish = None
            else:
                choices = self._choices.get(wanted)
                wish = parse_wish(wanted if choices is None else f"{wanted}={';'.join(choices)}")
                with self._lock:
                    self._mover, self._answer, self._wish = Mover(), answer, wish
        except MusicHalError as error:
            answer(False, str(error))
        self.on_change()

    def take(self, data: Sequence[int]) -> bool:
        """Take a MIDI message; return whether it was to learn from, not to obey."""
        if self._wish is None:
            return False
        with self._lock:
            wish = self._wish
            if wish is None:
                return False
            note = struck(data) if wish.name in BUTTONS else None
            place = self._mover.take(data) or note
            if place is None:
                return data[0] & 0xF0 in (0x80, 0x90, 0xB0)
            self._wish = None
        # A disk may be slow, and this is a thread of the port.
        threading.Thread(target=self._learn, args=(wish, place, note is not None), daemon=True).start()
        return True

    def _learn(self, wish: Wish, place: tuple[int, int], note: bool) -> None:
        others = [m for m in self._map.mappings if m.name != wish.name]
        what = f"{'note' if note else 'controller'} {place[1]} on channel {place[0] + 1} gives {wish.name}"
        try:
            self._change(learned(others, wish, place, note=note))
        except (MusicHalError, OSError) as error:
            self._answer(True, f"{what}, for now: {error}")
        else:
            kept = "" if self._path is None else f"; {printable(self._path)} keeps it"
            self._answer(True, what + kept)
        self.on_change()

    def _change(self, mappings: Sequence[CcMapping]) -> None:
        self._map.mappings = tuple(mappings)
        if self._path is not None:
            text = cc_map_toml(mappings, before=read_text(self._path))
            with open_atomically(self._path) as stream:
                stream.write(text.encode())
