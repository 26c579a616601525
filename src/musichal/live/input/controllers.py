"""MIDI controllers and MIDI clock: learning what a controller is to do, and the inputs they come from.

Inputs are opened if they are there, taken up when they appear and when they are back. MIDI clock becomes a pulse in the time of
the stream.
"""

import contextlib
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

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
from musichal.live.output.midi_ports import MidiInputPort, NoSuchPortError, open_midi_input
from musichal.machine import now_s
from musichal.parameters import WORDS
from musichal.partner.clocks import TickClock
from musichal.partner.settings import VOICES, PartnerSettings
from musichal.pulse import Pulse
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

    Choices that have commas themselves are parted by semicolons: ``voices=all;melody,bass``.
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

    * `control_map`: Which is changed.
    * `path`: The map's file, which keeps what is learned; without it that lasts until the end.
    * `modes`: What a controller can choose from.
    * `works`: Whether there is an input of controllers.
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


# ── inputs of controllers and of MIDI clock ───────────────────────────────────

POSITION, TICK, START, CONTINUE, STOP = 0xF2, 0xF8, 0xFA, 0xFB, 0xFC
_AGAIN_S = 4.0  # the partner drops a clock without news for 10 s
_MOVED_S, _CHANGED = 0.004, 0.005
_SOON_S, _FAR_S = 0.25, 0.02  # a clock that trembles is not told at every tick


class MidiClock:
    """Turns the messages of MIDI clock into a pulse, and reports it when it changes, every few seconds, and when it stops.

    Start puts a beat on the next tick, Continue goes on at the song position. Before any of them, and after a stretch without
    ticks, the tempo is known and the phase of the beat is not: `TickClock`. After Stop there is no pulse until the next Start
    or Continue, although many senders go on ticking.

    * `stream_s`: Maps a moment to the time of the stream; None before the stream has one.
    * `report`: Called with {"beat_s": …, "period_s": …} in the time of the stream, with "phase_known": False where it is not,
      or None if the clock has stopped.
    """

    def __init__(
        self, stream_s: Callable[[float], float | None], report: Callable[[Mapping[str, object] | None], object]
    ) -> None:
        self._stream_s, self._report = stream_s, report
        self._ticks = TickClock()
        self._stopped = False
        self._reported: tuple[float, Pulse] | None = None

    def take(self, message: int | Sequence[int], moment_s: float) -> None:
        """Take a message of MIDI clock that arrived at a moment; any other is ignored."""
        data = (message,) if isinstance(message, int) else tuple(message)
        status = data[0] if data else 0
        if status in (START, CONTINUE):
            self._ticks.start() if status == START else self._ticks.go_on()
            self._stopped, self._reported = False, None
        elif status == POSITION and len(data) == 3:
            self._ticks.locate(data[1] + (data[2] << 7))
            self._reported = None
        elif status == STOP:
            self._ticks.stop()
            if not self._stopped:
                self._stopped, self._reported = True, None
                self._report(None)
        elif status == TICK:
            pulse = self._ticks.tick(moment_s)
            if pulse is not None and not self._stopped and self._is_news(pulse, moment_s):
                beat_s = self._stream_s(pulse.beat_s)
                if beat_s is not None:
                    self._reported = moment_s, pulse
                    unknown = {} if self._ticks.phase_known else {"phase_known": False}
                    self._report({"beat_s": beat_s, "period_s": pulse.period_s, **unknown})

    def _is_news(self, pulse: Pulse, moment_s: float) -> bool:
        if self._reported is None:
            return True
        reported_s, before = self._reported
        age_s = moment_s - reported_s
        moved_s = abs(before.nearest_s(pulse.beat_s) - pulse.beat_s)
        changed = abs(pulse.period_s / before.period_s - 1)
        if age_s > _AGAIN_S or pulse.confidence != before.confidence or moved_s > _FAR_S:
            return True
        return age_s > _SOON_S and (moved_s > _MOVED_S or changed > _CHANGED)


_LOOK_S = 0.5
Take = Callable[[Sequence[int]], None]


class ControlInputs:
    """MIDI inputs that are open inside its context; one that is not there keeps nothing from starting.

    Raises `MusicHalError` on entering, where several inputs have the name, or no binding of MIDI is installed.

    * `takes`: What takes the messages of an input, by its name or a part of it.
    * `tell`: Called with a kind and a sentence when an input is missing, goes or comes, on any thread.
    """

    def __init__(self, takes: Mapping[str, Take], tell: Callable[[str, str], object]) -> None:
        self._takes, self._tell = takes, tell
        self._closing = threading.Event()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            ports = []
            for name, take in self._takes.items():
                try:
                    ports.append(stack.enter_context(open_midi_input(name, take, patient=True)))
                except NoSuchPortError as error:
                    self._tell("controls", f"{error}: it plays without it")
                    continue
                if ports[-1].missing:
                    self._tell("controls", f"{ports[-1].missing}. It plays without it, and takes it up when it appears")
            watch = threading.Thread(target=self._watch, args=(ports,), name="controls", daemon=True)
            stack.callback(watch.join)
            stack.callback(self._closing.set)
            watch.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _watch(self, ports: Sequence[MidiInputPort]) -> None:
        there = [not port.missing for port in ports]
        while not self._closing.wait(_LOOK_S):
            for number, port in enumerate(ports):
                is_there = False
                with contextlib.suppress(Exception):  # RtMidi raises several kinds for a port that goes while it is looked for
                    is_there = port.check()
                if is_there != there[number]:
                    there[number] = is_there
                    self._tell(
                        "controls", f"{port.name} is {'there: it is taken up' if is_there else 'gone: plug it in again'}"
                    )


def midi_commands(
    control_map: CcMap,
    put: Callable[[Command], object],
    clock: MidiClock | None,
    learning: LiveLearning | None = None,
) -> Take:
    """Return what takes the messages of a MIDI input.

    Controllers and notes become commands, unless `learning` waits for one; MIDI clock goes to `clock`.
    """

    def take(data: Sequence[int]) -> None:
        if learning is not None and data and learning.take(data):
            return
        if len(data) == 3 and data[0] & 0xF0 == 0xB0:
            for command in control_map.commands(data[0] & 0x0F, data[1] & 0x7F, data[2] & 0x7F):
                put(command)
        elif len(data) == 3 and data[0] & 0xF0 == 0x90 and data[2]:
            for command in control_map.struck(data[0] & 0x0F, data[1] & 0x7F):
                put(command)
        elif clock is not None and data:
            clock.take(data, now_s())

    return take
