"""MIDI inputs through python-rtmidi: controllers, and MIDI clock as a pulse in the time of the stream."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from musichal.errors import InputError
from musichal.live.output.ports.midi import opened_inputs
from musichal.live.output.ports.silence_stderr import library_chatter_off
from musichal.partner.timing import Pulse, TickClock

TICK, START, CONTINUE, STOP = 0xF8, 0xFA, 0xFB, 0xFC
_AGAIN_S = 4.0  # the partner drops a clock without news for 10 s
_MOVED_S, _CHANGED = 0.004, 0.005
_CLIENT = "MusicHal control"


@contextmanager
def open_midi_input(wanted: str, take: Callable[[Sequence[int]], None]) -> Iterator[str]:
    """Call `take` with each message of a MIDI input, on a thread of the system, while the block runs; yields its name.

    `wanted` is the name or a part of it, or ``virtual:NAME`` for an input of our own that others connect to.

    Raises
    ------
    InputError
        If there is no such input, several, or no MIDI system.
    MissingExtraError
        Without python-rtmidi.
    """
    with contextlib.ExitStack() as stack:
        with library_chatter_off():
            opened, reasons = stack.enter_context(opened_inputs())
        if not opened:
            raise InputError(f"no MIDI system is available for controllers ({'; '.join(reasons)})")
        client, name = _open([client for _, client in opened], wanted)
        stack.callback(_close, client)
        client.ignore_types(sysex=True, timing=False, active_sense=True)
        client.set_callback(lambda event, _: take(event[0]))
        yield name


def _close(client: Any) -> None:
    with contextlib.suppress(Exception):
        client.cancel_callback()
    with contextlib.suppress(Exception):
        client.close_port()


def _open(clients: list[Any], wanted: str) -> tuple[Any, str]:
    scheme, colon, own = wanted.partition(":")
    if colon and scheme == "virtual":
        clients[0].open_virtual_port(own or _CLIENT)
        return clients[0], own or _CLIENT
    ports = [(name, client, number) for client in clients for number, name in enumerate(client.get_ports())]
    exact = [port for port in ports if port[0] == wanted]
    found = exact or [port for port in ports if wanted.casefold() in port[0].casefold()]
    if len(found) != 1 and not exact:
        names = ", ".join(repr(port[0]) for port in (found or ports)) or "none"
        raise InputError(f"{len(found) or 'no'} MIDI inputs have {wanted!r} in the name. Available: {names}")
    name, client, number = found[0]
    try:
        client.open_port(number, "control")
    except Exception as error:
        raise InputError(f"cannot open the MIDI input {name}: {error}") from error
    return client, name


class MidiClock:
    """Turns the bytes of MIDI clock into a pulse, and reports it when it changes, every few seconds, and when it stops.

    Start and Continue put a beat on the next tick; before any of them, beats are counted from the first tick. After Stop, ticks
    are ignored until the next Start or Continue: many senders go on ticking.

    Parameters
    ----------
    stream_s : callable
        Maps a moment to the time of the stream; None before the stream has one.
    report : callable
        Called with {"beat_s": …, "period_s": …} in the time of the stream, or None if the clock has stopped.
    """

    def __init__(
        self, stream_s: Callable[[float], float | None], report: Callable[[Mapping[str, float] | None], object]
    ) -> None:
        self._stream_s, self._report = stream_s, report
        self._ticks = TickClock()
        self._stopped = False
        self._reported: tuple[float, Pulse] | None = None

    def take(self, status: int, moment_s: float) -> None:
        """Take a byte of MIDI clock that arrived at a moment; any other byte is ignored."""
        if status in (START, CONTINUE):
            self._ticks.start()
            self._stopped = False
        elif status == STOP:
            if not self._stopped:
                self._stopped, self._reported = True, None
                self._report(None)
        elif status == TICK and not self._stopped:
            pulse = self._ticks.tick(moment_s)
            if pulse is not None and self._is_news(pulse, moment_s):
                beat_s = self._stream_s(pulse.beat_s)
                if beat_s is not None:
                    self._reported = moment_s, pulse
                    self._report({"beat_s": beat_s, "period_s": pulse.period_s})

    def _is_news(self, pulse: Pulse, moment_s: float) -> bool:
        if self._reported is None:
            return True
        reported_s, before = self._reported
        moved_s = abs(before.nearest_s(pulse.beat_s) - pulse.beat_s)
        changed = abs(pulse.period_s / before.period_s - 1)
        return moment_s - reported_s > _AGAIN_S or moved_s > _MOVED_S or changed > _CHANGED
