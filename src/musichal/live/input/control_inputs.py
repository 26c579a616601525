"""MIDI inputs of controllers and clock: opened if they are there, taken up when they appear and when they are back.

MIDI clock becomes a pulse in the time of the stream.
"""

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self

from musichal.live.control import CcMap, Command
from musichal.live.controller_learning import LiveLearning
from musichal.live.output.midi_ports import MidiInputPort, NoSuchPortError, open_midi_input
from musichal.machine import now_s
from musichal.partner.clocks import TickClock
from musichal.pulse import Pulse

POSITION, TICK, START, CONTINUE, STOP = 0xF2, 0xF8, 0xFA, 0xFB, 0xFC
_AGAIN_S = 4.0  # the partner drops a clock without news for 10 s
_MOVED_S, _CHANGED = 0.004, 0.005
_SOON_S, _FAR_S = 0.25, 0.02  # a clock that trembles is not told at every tick


class MidiClock:
    """Turns the messages of MIDI clock into a pulse, and reports it when it changes, every few seconds, and when it stops.

    Start puts a beat on the next tick, Continue goes on at the song position. Before any of them, and after a stretch without
    ticks, the tempo is known and the phase of the beat is not: `TickClock`. After Stop there is no pulse until the next Start
    or Continue, although many senders go on ticking.

    Parameters
    ----------
    stream_s : callable
        Maps a moment to the time of the stream; None before the stream has one.
    report : callable
        Called with {"beat_s": …, "period_s": …} in the time of the stream, with "phase_known": False where it is not, or None
        if the clock has stopped.
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

    Parameters
    ----------
    takes : mapping
        What takes the messages of an input, by its name or a part of it.
    tell : callable
        Called with a kind and a sentence when an input is missing, goes or comes, on any thread.
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


class Commands(Protocol):
    """What takes commands."""

    def put(self, asked: Command, /) -> object:
        """Take a command."""


def midi_commands(
    control_map: CcMap,
    commands: Commands,
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
                commands.put(command)
        elif len(data) == 3 and data[0] & 0xF0 == 0x90 and data[2]:
            for command in control_map.struck(data[0] & 0x0F, data[1] & 0x7F):
                commands.put(command)
        elif clock is not None and data:
            clock.take(data, now_s())

    return take
