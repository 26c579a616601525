"""Open Sound Control 1.0: datagrams to messages and back, strict and bounded.

Reads what other programs really send: the types i, h, f, d, s, S, b, T, F, N and I, and bundles within bundles, without their
time tags (what is for later is taken at once). Specification: Wright, "Open Sound Control 1.0", 2002.
"""

import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from musichal.errors import InputError

Argument = int | float | str | bytes | bool | None
Message = tuple[str, tuple[Argument, ...]]

LARGEST_DATAGRAM = 8192
_DEEPEST = 4
_MOST_ARGUMENTS = 64
_NUMBERS = {"i": ">i", "h": ">q", "f": ">f", "d": ">d", "t": ">Q", "c": ">I", "r": ">I", "m": ">I"}
_CONSTANTS: dict[str, bool | None] = {"T": True, "F": False, "N": None, "I": True}


def read_datagram(data: bytes) -> list[Message]:
    """Return the messages of a datagram; raises `ValueError` for anything that is not whole and well-formed."""
    if len(data) > LARGEST_DATAGRAM:
        raise ValueError("larger than any message for MusicHal")
    return list(_packet(data, 0))


def _packet(data: bytes, depth: int) -> Iterator[Message]:
    if len(data) % 4 or not data:
        raise ValueError("not a multiple of four bytes")
    if not data.startswith(b"#bundle\0"):
        yield _message(data)
        return
    if depth >= _DEEPEST or len(data) < 16:
        raise ValueError("bundles too deep, or cut short")
    at = 16
    while at < len(data):
        (size,) = struct.unpack_from(">i", data, at) if at + 4 <= len(data) else (-1,)
        if size <= 0 or at + 4 + size > len(data):
            raise ValueError("a bundle is cut short")
        yield from _packet(data[at + 4 : at + 4 + size], depth + 1)
        at += 4 + size


def _message(data: bytes) -> Message:
    address, at = _text(data, 0)
    if not address.startswith("/"):
        raise ValueError("an address begins with a slash")
    if at == len(data):
        return address, ()  # old senders leave out the types of nothing
    types, at = _text(data, at)
    if not types.startswith(",") or len(types) > _MOST_ARGUMENTS + 1:
        raise ValueError("no types, or too many arguments")
    arguments: list[Argument] = []
    for kind in types[1:]:
        if kind in "sS":
            text, at = _text(data, at)
            arguments.append(text)
        elif kind == "b":
            size = int(_unpack(">i", data, at)[0])
            if size < 0 or at + 4 + size > len(data):
                raise ValueError("a blob is cut short")
            arguments.append(data[at + 4 : at + 4 + size])
            at += 4 + (size + 3) // 4 * 4
        elif kind in _NUMBERS:
            arguments += _unpack(_NUMBERS[kind], data, at)
            at += struct.calcsize(_NUMBERS[kind])
        elif kind in _CONSTANTS:
            arguments.append(_CONSTANTS[kind])
        else:
            raise ValueError("an unknown type of argument")
    if at != len(data):
        raise ValueError("more bytes than its types say")
    return address, tuple(arguments)


def _text(data: bytes, at: int) -> tuple[str, int]:
    end = data.find(b"\0", at)
    if end < 0:
        raise ValueError("a text without an end")
    behind = (end // 4 + 1) * 4
    if behind > len(data):
        raise ValueError("a text is cut short")
    return data[at:end].decode("utf-8"), behind


def _unpack(form: str, data: bytes, at: int) -> tuple[int | float, ...]:
    if at + struct.calcsize(form) > len(data):
        raise ValueError("an argument is cut short")
    return struct.unpack_from(form, data, at)


def open_sender(host: str, port: int) -> tuple[socket.socket, Any]:
    """Return a non-blocking UDP socket and the address to send to: the host is resolved once, here.

    Raises `InputError` where it cannot be resolved.
    """
    try:
        family, _, _, _, to = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    except (OSError, UnicodeError) as error:
        raise InputError(f"cannot resolve the OSC receiver {host!r}: {getattr(error, 'strerror', None) or error}") from error
    sender = socket.socket(family, socket.SOCK_DGRAM)
    sender.setblocking(False)
    return sender, to


def osc_message(address: str, arguments: Sequence[int | float | str | bool | bytes] = ()) -> bytes:
    """Return a message as a datagram.

    Integers are sent as i (h where they need it), floats as f, texts as s, truth as T and F, four bytes of MIDI as m.
    """
    types, parts = ",", []
    for argument in arguments:
        if isinstance(argument, bool):
            types += "T" if argument else "F"
        elif isinstance(argument, int):
            small = -(1 << 31) <= argument < 1 << 31
            types += "i" if small else "h"
            parts.append(struct.pack(">i" if small else ">q", argument))
        elif isinstance(argument, float):
            types += "f"
            parts.append(struct.pack(">f", argument))
        elif isinstance(argument, bytes):
            types += "m"
            parts.append(argument)
        else:
            types += "s"
            parts.append(_padded(argument))
    return b"".join([_padded(address), _padded(types), *parts])


def _padded(text: str) -> bytes:
    data = text.replace("\0", " ").encode("utf-8", errors="replace")
    return data + bytes(4 - len(data) % 4)
