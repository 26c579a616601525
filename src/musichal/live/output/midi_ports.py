"""MIDI ports of the system: CoreMIDI, WinMM and ALSA by RtMidi, JACK by `jack_midi`.

RtMidi has two bindings: python-rtmidi, and rtmidi2 for Python 3.13, for which the first has no wheels. rtmidi2 cannot report
all errors of opening a port: those end the process. Its wheels are built for JACK 1, so it is not used for JACK.
"""

import contextlib
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from musichal.errors import InputError, MissingExtraError, install_hint
from musichal.live.output.jack_midi import JackInput, JackPort, jack_ports
from musichal.live.output.ports import Port, PortLostError
from musichal.live.output.scheduler_protocol import Outgoing
from musichal.machine import silent_stderr

INSTEAD = "file:reply.mid, osc:127.0.0.1:9001 or synth: work without MIDI"
_CLIENT = "MusicHal"
_PLACE = re.compile(r"^\w+::\w+: ")  # in RtMidi's source
_FLUSH_S = 0.2
"""A system may take what was sent a little later; closing before that would lose the last note-offs."""


class _Client:
    """A client of one MIDI system through python-rtmidi; `inputs` or outputs."""

    @staticmethod
    def compiled(rtmidi: Any) -> list[int]:
        return list(rtmidi.get_compiled_api())

    def __init__(self, rtmidi: Any, system: str, api: int, name: str, *, inputs: bool) -> None:
        self.system = system
        self.again: Callable[[], _Client] = lambda: type(self)(rtmidi, system, api, name, inputs=inputs)
        self._midi: Any = (rtmidi.MidiIn if inputs else rtmidi.MidiOut)(api, name=name)

    def names(self) -> list[str]:
        return list(self._midi.get_ports())

    def open(self, number: int, name: str) -> None:
        self._midi.open_port(number, name)

    def open_virtual(self, name: str) -> None:
        self._midi.open_virtual_port(name)

    def send(self, data: bytes) -> None:
        self._midi.send_message(data)

    def receive(self, take: Callable[[Sequence[int]], None]) -> None:
        """Call `take` with each message but system exclusive and active sensing, on a thread of the system."""
        self._midi.ignore_types(sysex=True, timing=False, active_sense=True)
        self._midi.set_callback(lambda event, _: take(event[0]))

    def close(self) -> None:
        for method in ("cancel_callback", "close_port", "delete"):  # an output has no callback
            with contextlib.suppress(Exception):
                getattr(self._midi, method)()


class _Client2(_Client):
    """The same through rtmidi2."""

    @staticmethod
    def compiled(rtmidi: Any) -> list[int]:
        native = {"darwin": rtmidi.API_MACOSX_CORE, "win32": rtmidi.API_WINDOWS_MM}
        return [native.get(sys.platform, rtmidi.API_LINUX_ALSA)]

    def __init__(self, rtmidi2: Any, system: str, api: int, name: str, *, inputs: bool) -> None:
        self.system = system
        self.again: Callable[[], _Client] = lambda: type(self)(rtmidi2, system, api, name, inputs=inputs)
        self._midi = rtmidi2.MidiIn(name, api=api) if inputs else rtmidi2.MidiOut(name, api)

    def names(self) -> list[str]:
        return list(self._midi.ports)

    def open(self, number: int, name: str) -> None:
        if number >= len(self._midi.ports):
            raise ValueError("the port is gone")
        self._midi.open_port(number)

    def send(self, data: bytes) -> None:
        self._midi.send_raw(*data)

    def receive(self, take: Callable[[Sequence[int]], None]) -> None:
        self._midi.ignore_types(midi_sysex=True, midi_time=False, midi_sense=True)
        self._midi.callback = lambda message, _: take(message)

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._midi.callback = None
        with contextlib.suppress(Exception):
            self._midi.close_port()


def _binding() -> tuple[Any, type[_Client]]:
    """Return a binding of RtMidi and the class for it; raises `MissingExtraError` where none can be loaded."""
    for name, client in (("rtmidi", _Client), ("rtmidi2", _Client2)):
        with contextlib.suppress(ImportError, OSError):
            return __import__(name), client
    needed = "rtmidi2" if sys.version_info >= (3, 13) else "python-rtmidi"
    raise MissingExtraError(f"MIDI ports need {needed}: {install_hint('live')}; {INSTEAD}")


@contextmanager
def _clients(*, inputs: bool, name: str = _CLIENT) -> Iterator[tuple[list[_Client], list[str]]]:
    """Yield a client per MIDI system that works here, and why others do not; closes those that are still in the list.

    JACK is among them for inputs with python-rtmidi only: its client does not need the interpreter in each cycle.
    """
    rtmidi, make = _binding()
    systems = [("CoreMIDI", rtmidi.API_MACOSX_CORE), ("WinMM", rtmidi.API_WINDOWS_MM), ("ALSA", rtmidi.API_LINUX_ALSA)]
    if inputs and make is _Client:
        systems.append(("JACK", rtmidi.API_UNIX_JACK))
    working: list[_Client] = []
    reasons: list[str] = []
    compiled = make.compiled(rtmidi)
    try:
        for system, api in systems:
            if api not in compiled:
                continue
            try:
                working.append(make(rtmidi, system, api, name, inputs=inputs))
            except (OSError, RuntimeError, SystemError, getattr(rtmidi, "RtMidiError", RuntimeError)) as error:
                reasons.append(f"{system}: {_PLACE.sub('', str(error).strip().rstrip('.'))}")
        yield working, reasons
    finally:
        for client in working:
            client.close()


class NoSuchPortError(InputError):
    """There is no port of this name, or no MIDI system at all."""


class _Found(NamedTuple):
    """A port that exists; without a client it is JACK's."""

    name: str
    client: _Client | None
    number: int


def _find(wanted: str, kind: str, clients: list[_Client], jack: list[str]) -> _Found:
    """Return the one port whose name is `wanted` or contains it, ignoring case."""
    ports = [_Found(name, client, k) for client in clients for k, name in enumerate(client.names())]
    ports += [_Found(name, None, 0) for name in jack]
    exact = [port for port in ports if port.name == wanted]
    found = exact or [port for port in ports if wanted.casefold() in port.name.casefold()]
    if len(found) == 1 or len(exact) > 1:
        return found[0]
    names = ", ".join(repr(port.name) for port in (found or ports))
    if found:
        raise InputError(f"{len(found)} MIDI {kind}s have {wanted!r} in the name; give more of it: {names}")
    raise NoSuchPortError(f"no MIDI {kind} has {wanted!r} in the name. Available: {names or f'none; {INSTEAD}'}")


def _systems(stack: contextlib.ExitStack, *, inputs: bool, name: str = _CLIENT) -> tuple[list[_Client], list[str] | None]:
    """Return clients of RtMidi, and the ports of JACK, None without a server."""
    clients: list[_Client] = []
    reasons: list[str] = []
    missing: MissingExtraError | None = None
    try:
        clients, reasons = stack.enter_context(_clients(inputs=inputs, name=name))
    except MissingExtraError as error:
        missing = error
    jack: list[str] | None = None
    if not any(client.system == "JACK" for client in clients):
        try:
            jack = jack_ports(inputs=not inputs)  # JACK's inputs are what outputs connect to
        except InputError as error:
            reasons.append(f"JACK: {error}")
        except MissingExtraError:
            pass
    if not clients and jack is None:
        if missing is not None:
            raise missing
        raise NoSuchPortError(f"no MIDI system is available ({'; '.join(reasons)}); {INSTEAD}")
    return clients, jack


class MidiPort(Port):
    """A MIDI output by RtMidi: one of the system, or one of our own that others connect to (`virtual`)."""

    def __init__(self, client: _Client, port_name: str, *, virtual: bool) -> None:
        self._client, self._port_name, self._virtual = client, port_name, virtual
        self.name = f"{port_name} ({client.system}{', virtual' if virtual else ''})"

    def send(self, message: Outgoing) -> None:
        """Send a message at once."""
        try:
            self._client.send(message.data)
        except Exception as error:
            raise PortLostError(f"cannot send to {self._port_name}: {error}") from error

    def check(self) -> str | None:
        """Raise if the port is not listed any more."""
        if not self._virtual and self._port_name not in self._client.names():
            raise PortLostError(f"{self._port_name} is gone")
        return None

    def close(self, *, flush: bool = True) -> None:
        """Close, after what was sent is out."""
        if flush:
            time.sleep(_FLUSH_S)
        self._client.close()


def open_midi(wanted: str) -> Port:
    """Open the MIDI output whose name is or contains `wanted`."""
    with contextlib.ExitStack() as stack:
        clients, jack = _systems(stack, inputs=False)
        found = _find(wanted, "output", clients, jack or [])
        if found.client is None:
            return JackPort(_CLIENT, found.name)
        try:
            found.client.open(found.number, "out")
        except Exception as error:
            raise InputError(f"cannot open the MIDI output {found.name}: {error}") from error
        clients.remove(found.client)
        return MidiPort(found.client, found.name, virtual=False)


def open_virtual(name: str) -> Port:
    """Open a virtual MIDI output under `name`, for others to connect to."""
    if sys.platform == "win32":
        raise InputError("Windows has no virtual MIDI ports; install a loopback driver such as loopMIDI, and give its name")
    with contextlib.ExitStack() as stack:
        clients, _ = _systems(stack, inputs=False, name=name)
        if not clients:
            return JackPort(name)
        client = clients[0]
        try:
            client.open_virtual("out")
        except Exception as error:
            raise InputError(f"cannot open the virtual MIDI output {name}: {error}") from error
        clients.remove(client)
        return MidiPort(client, name, virtual=True)


@dataclass(frozen=True)
class MidiInputPort:
    """A MIDI input: its name, and what tells whether its device is there (and opens it, or again when it is back).

    `missing` says what there is instead of one that is waited for; it is empty for one that is open.
    """

    name: str
    check: Callable[[], bool]
    missing: str = ""


@contextmanager
def open_midi_input(wanted: str, take: Callable[[Sequence[int]], None], *, patient: bool = False) -> Iterator[MidiInputPort]:
    """Call `take` with each message of a MIDI input, on a thread of the system, while the block runs.

    `wanted` is the name or a part of it, or ``virtual:NAME`` for a virtual input that others connect to. System exclusive
    messages and active sensing are left out. With `patient`, an input that is not there is waited for: the first `check`
    that finds it opens it.
    """
    scheme, colon, own = wanted.partition(":")
    virtual = bool(colon) and scheme == "virtual"
    name = f"{_CLIENT} control"
    with contextlib.ExitStack() as stack:
        with silent_stderr():
            clients, jack = _systems(stack, inputs=True, name=name)

            def open_found(found: _Found) -> Callable[[], bool]:
                if found.client is not None:
                    return _receive(found, take, clients, virtual=virtual)
                jack_input = JackInput(own or name if virtual else name, None if virtual else found.name, take)
                stack.callback(jack_input.close)
                return jack_input.check

            if virtual:
                port = MidiInputPort(own or name, open_found(_Found(own or name, clients[0] if clients else None, 0)))
            else:
                try:
                    found = _find(wanted, "input", clients, jack or [])
                    port = MidiInputPort(found.name, open_found(found))
                except NoSuchPortError as error:
                    if not patient:
                        raise
                    port = MidiInputPort(wanted, _awaited(wanted, open_found, clients, jack is not None), str(error))
        yield port


def _awaited(
    wanted: str, open_found: Callable[[_Found], Callable[[], bool]], clients: list[_Client], on_jack: bool
) -> Callable[[], bool]:
    """Return the check of an input that is not there yet."""
    opened: Callable[[], bool] | None = None

    def check() -> bool:
        nonlocal opened
        if opened is None:
            opened = open_found(_find(wanted, "input", clients, list(jack_ports(inputs=False)) if on_jack else []))
        return opened()

    return check


def _receive(
    found: _Found, take: Callable[[Sequence[int]], None], clients: list[_Client], *, virtual: bool
) -> Callable[[], bool]:
    assert found.client is not None
    try:
        if virtual:
            found.client.open_virtual(found.name)
        else:
            found.client.open(found.number, "control")
    except Exception as error:
        raise InputError(f"cannot open the MIDI input {found.name}: {error}") from error
    client = found.client
    client.receive(take)
    is_open = True

    def renew() -> None:
        """Make a client anew: a port of RtMidi that was closed receives no more."""
        nonlocal client
        client.close()
        if client in clients:
            clients.remove(client)
        client = client.again()
        clients.append(client)

    def check() -> bool:
        """Return whether the port is open; one that is back is opened, and tried again with the next call where that fails."""
        nonlocal is_open
        try:
            names = client.names()
        except Exception:  # the client of an attempt that failed
            renew()
            names = client.names()
        if virtual or found.name not in names:
            is_open = virtual
        elif not is_open:
            renew()
            client.open(client.names().index(found.name), "control")
            client.receive(take)
            is_open = True
        return is_open

    return check


@dataclass(frozen=True)
class MidiSystem:
    """A MIDI system: ``CoreMIDI``, ``WinMM``, ``ALSA`` or ``JACK``; where it does not work, `trouble` says why."""

    name: str
    outputs: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    trouble: str = ""

    @property
    def works(self) -> bool:
        """Whether ports can be opened in it."""
        return not self.trouble


def midi_systems() -> tuple[MidiSystem, ...]:
    """Return the MIDI systems of this machine, each tried.

    ALSA fails without the kernel's sequencer, JACK without a server. Raises `MissingExtraError` without RtMidi.
    """
    systems = []
    with _clients(inputs=False) as (clients, reasons), _clients(inputs=True) as (in_clients, _):
        inputs = {client.system: tuple(client.names()) for client in in_clients}
        systems = [MidiSystem(c.system, tuple(c.names()), inputs.get(c.system, ())) for c in clients]
        try:
            systems.append(MidiSystem("JACK", tuple(jack_ports(inputs=True)), tuple(jack_ports(inputs=False))))
        except InputError as error:
            reasons.append(f"JACK: {error}")
        except MissingExtraError:
            pass
    failed = [MidiSystem(name, trouble=why.strip()) for name, _, why in (reason.partition(":") for reason in reasons)]
    return (*systems, *failed)
