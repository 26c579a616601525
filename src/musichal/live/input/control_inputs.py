"""MIDI inputs of controllers and clock: opened if they are there, taken up when they appear, and again when they are back."""

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from musichal.live.control import CommandQueue
from musichal.live.controller_map import CcMap
from musichal.live.input.midi_clock import MidiClock
from musichal.live.output.midi_ports import MidiInputPort, NoSuchPortError, open_midi_input
from musichal.machine import now_s

_LOOK_S = 0.5
Take = Callable[[Sequence[int]], None]


class ControlInputs:
    """MIDI inputs that are open inside its context; one that is not there keeps nothing from starting.

    Parameters
    ----------
    takes : mapping
        What takes the messages of an input, by its name or a part of it.
    tell : callable
        Called with a kind and a sentence when an input is missing, goes or comes, on any thread.

    Raises
    ------
    MusicHalError
        On entering, where several inputs have the name, or no binding of MIDI is installed.
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

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
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


def midi_commands(control_map: CcMap, commands: CommandQueue, clock: MidiClock | None) -> Take:
    """Return what takes the messages of a MIDI input: controllers and notes become commands, MIDI clock goes to `clock`."""

    def take(data: Sequence[int]) -> None:
        if len(data) == 3 and data[0] & 0xF0 == 0xB0:
            for command in control_map.commands(data[0] & 0x0F, data[1] & 0x7F, data[2] & 0x7F):
                commands.put(command)
        elif len(data) == 3 and data[0] & 0xF0 == 0x90 and data[2]:
            for command in control_map.struck(data[0] & 0x0F, data[1] & 0x7F):
                commands.put(command)
        elif clock is not None and data:
            clock.take(data, now_s())

    return take
