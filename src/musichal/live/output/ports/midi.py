"""MIDI ports of the system through python-rtmidi: CoreMIDI, WinMM, ALSA, JACK."""

import contextlib
import re
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from musichal.errors import InputError, MissingExtraError, install_hint
from musichal.live.output.ports.protocol import PortLostError
from musichal.live.output.scheduler_protocol import Outgoing

INSTEAD = "file:reply.mid, osc:127.0.0.1:9001 or synth: work without one"
_CLIENT = "MusicHal"
_PLACE = re.compile(r"^\w+::\w+: ")  # in RtMidi's source
_OUT = "out"  # of a port of our own, which nothing has to be there for
_FLUSH_S = 0.2
"""JACK takes what was sent with its next periods; closing before that would lose the last note-offs."""


def rtmidi_module() -> Any:
    """Return python-rtmidi; raises `MissingExtraError` where it is not installed or cannot be loaded."""
    try:
        import rtmidi
    except (ImportError, OSError) as error:
        raise MissingExtraError(
            f"MIDI ports need python-rtmidi: {install_hint('live')}; {INSTEAD.replace('without one', 'without it')}"
        ) from error
    return rtmidi


def _system_names(rtmidi: Any) -> dict[int, str]:
    return {
        rtmidi.API_MACOSX_CORE: "CoreMIDI",
        rtmidi.API_WINDOWS_MM: "WinMM",
        rtmidi.API_LINUX_ALSA: "ALSA",
        rtmidi.API_UNIX_JACK: "JACK",
    }


def opened_outputs(only: str | None = None) -> "_Opened":
    """Give an opened client per MIDI system that works here, and why the others do not; deletes what is not taken out."""
    return _opened("MidiOut", _CLIENT, only)


def opened_inputs() -> "_Opened":
    """Give the same for inputs."""
    return _opened("MidiIn", f"{_CLIENT} control")


_Opened = AbstractContextManager[tuple[list[tuple[str, Any]], list[str]]]


@contextmanager
def _opened(kind: str, client: str, only: str | None = None) -> Iterator[tuple[list[tuple[str, Any]], list[str]]]:
    rtmidi = rtmidi_module()
    working: list[tuple[str, Any]] = []
    reasons: list[str] = []
    names = _system_names(rtmidi)
    try:
        for api in rtmidi.get_compiled_api():
            system = names.get(api)
            if system is None or only not in (None, system):
                continue
            try:
                working.append((system, getattr(rtmidi, kind)(api, name=client)))
            except (rtmidi.RtMidiError, SystemError, RuntimeError) as error:
                reasons.append(f"{system}: {_PLACE.sub('', str(error).strip().rstrip('.'))}")
        yield working, reasons
    finally:
        for _, opened in working:
            opened.delete()


def _no_system(reasons: list[str]) -> InputError:
    why = f" ({'; '.join(reasons)})" if reasons else ""
    return InputError(f"there is no MIDI system here{why}; {INSTEAD}")


def output_names() -> list[str]:
    """Return the names of the MIDI outputs that there are.

    Raises `InputError` where no MIDI system works here, with the reasons, and `MissingExtraError`.
    """
    with opened_outputs() as (clients, reasons):
        if not clients:
            raise _no_system(reasons)
        return [name for _, client in clients for name in client.get_ports()]


def _chosen(wanted: str, ports: list[tuple[str, Any, int]]) -> tuple[str, Any, int]:
    """Return the one port that `wanted` is the name of, or else a part of the name of, upper or lower case."""
    exact = [port for port in ports if port[0] == wanted]
    found = exact or [port for port in ports if wanted.casefold() in port[0].casefold()]
    if len(found) == 1 or len(exact) > 1:
        return found[0]
    what = f"{len(found)} MIDI outputs have" if found else "no MIDI output has"
    names = ", ".join(repr(port[0]) for port in (found or ports))
    there_are = f"give more of the name: {names}" if found else f"there are: {names}" if names else f"there is none; {INSTEAD}"
    raise InputError(f"{what} {wanted!r} in the name; {there_are}")


class _JackWitness:
    """Learns that the JACK server ended: RtMidi does not tell, and goes on listing the ports that there were."""

    def __init__(self, client: Any) -> None:
        self.is_gone = False
        self._client = client
        client.set_shutdown_callback(self._shut_down)
        client.activate()

    @classmethod
    def call(cls) -> "_JackWitness | None":
        """Return one, or None without JACK-Client: then the end of a server is not noticed."""
        try:
            import jack

            return cls(jack.Client(f"{_CLIENT} watch", no_start_server=True))
        except Exception:
            return None

    def _shut_down(self, _status: object, _reason: str) -> None:
        self.is_gone = True

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._client.close()


class MidiPort:
    """A MIDI output: one that is there, or one of our own that others connect to (`virtual`)."""

    lead_s = 0.0

    def __init__(self, client: Any, system: str, port_name: str, *, virtual: bool) -> None:
        self._client, self._port_name, self._virtual = client, port_name, virtual
        # ALSA, CoreMIDI and WinMM live as long as the system does; a JACK server may end.
        self._witness = _JackWitness.call() if system == "JACK" else None
        self._error: Any = rtmidi_module().RtMidiError
        self.name = f"{port_name} ({system}{', virtual' if virtual else ''})"

    def send(self, message: Outgoing) -> None:
        """Send a message at once."""
        try:
            self._client.send_message(message.data)
        except (self._error, SystemError, RuntimeError, OSError, ValueError) as error:
            raise PortLostError(f"{self._port_name} takes nothing any more: {error}") from error

    def check(self) -> str | None:
        """Look whether the port is still listed."""
        if not self._virtual and self._port_name not in self._client.get_ports():
            raise PortLostError(f"{self._port_name} is not there any more")
        if self._witness and self._witness.is_gone:
            raise PortLostError("the JACK server is gone")
        return None

    def close(self, *, flush: bool = True) -> None:
        """Close, after what was sent is out."""
        if flush:
            time.sleep(_FLUSH_S)
        with contextlib.suppress(Exception):
            self._client.close_port()
        with contextlib.suppress(Exception):
            self._client.delete()
        if self._witness:
            self._witness.close()


def open_midi(wanted: str) -> MidiPort:
    """Open the MIDI output whose name is or contains `wanted`.

    Raises
    ------
    InputError
        Where there is no such output (with a list of those there are), several, or no MIDI system; or it is busy.
    MissingExtraError
        Without python-rtmidi.
    """
    with opened_outputs() as (clients, reasons):
        if not clients:
            raise _no_system(reasons)
        ports = [(name, entry, k) for entry in clients for k, name in enumerate(entry[1].get_ports())]
        name, entry, number = _chosen(wanted, ports)
        system, client = entry
        try:
            client.open_port(number, "out")
        except Exception as error:
            raise InputError(f"cannot open the MIDI output {name}: {error}") from error
        clients.remove(entry)
        return MidiPort(client, system, name, virtual=False)


def open_virtual(name: str, *, only: str | None = None) -> MidiPort:
    """Open a MIDI output of our own under `name`, for others to connect to; `only` on one system ("JACK").

    Raises
    ------
    InputError
        Where no system here can: none works, or it is Windows.
    MissingExtraError
        Without python-rtmidi.
    """
    if sys.platform == "win32":
        raise InputError("Windows has no virtual MIDI ports; install a loopback driver such as loopMIDI, and give its name")
    rtmidi = rtmidi_module()
    with opened_outputs(only) as (clients, reasons):
        if not clients:
            raise _no_system(reasons)
        system, client = clients[0]
        try:
            client.set_client_name(name)
        except Exception:  # JACK names a client when it is made
            fresh = rtmidi.MidiOut(client.get_current_api(), name=name)
            client.delete()
            client = fresh
            clients[0] = system, client
        try:
            client.open_virtual_port(_OUT)
        except Exception as error:
            raise InputError(f"cannot open the virtual MIDI output {name}: {error}") from error
        clients.pop(0)
        return MidiPort(client, system, name, virtual=True)
