"""MIDI inputs of the system through python-rtmidi, for controllers."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from musichal.errors import InputError
from musichal.live.output.ports.midi import opened_inputs
from musichal.live.output.ports.silence_stderr import library_chatter_off

_CLIENT = "MusicHal control"


@contextmanager
def open_midi_input(wanted: str, take: Callable[[Sequence[int]], None]) -> Iterator[str]:
    """Hand each message of a MIDI input to `take`, in a thread of the system's, while the block runs; gives its name.

    `wanted` is the name or a part of it, or ``virtual:NAME`` for an input of our own that others connect to.

    Raises
    ------
    InputError
        Where there is no such input, several, or no MIDI system.
    MissingExtraError
        Without python-rtmidi.
    """
    with contextlib.ExitStack() as stack:
        with library_chatter_off():
            opened, reasons = stack.enter_context(opened_inputs())
        if not opened:
            raise InputError(f"there is no MIDI system here to take controllers from ({'; '.join(reasons)})")
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
        raise InputError(f"{len(found) or 'no'} MIDI inputs have {wanted!r} in the name; there are: {names}")
    name, client, number = found[0]
    try:
        client.open_port(number, "control")
    except Exception as error:
        raise InputError(f"cannot open the MIDI input {name}: {error}") from error
    return client, name
