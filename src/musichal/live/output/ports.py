"""The ports that notes go to, and how an address becomes an open port.

What a port needs is imported when it is opened: the scheduler's process stays small.

OSC addresses
-------------
``/musichal/note/on``   channel (1 to 16), pitch, velocity (1 to 127), tag (the number that the note was asked with)
``/musichal/note/off``  channel, pitch, tag
``/musichal/midi``      any other message, as OSC's MIDI type: port 0, status, two bytes
All arguments of notes are int32. One message per datagram.
"""

import contextlib
import io
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from musichal.errors import InputError, MissingExtraError, install_hint
from musichal.live.output.scheduler_protocol import Outgoing
from musichal.note import PERCUSSION_CHANNEL
from musichal.text import printable

_NAME = "MusicHal"
ADDRESSES = {
    "auto:": "a virtual MIDI port where the system has them, or nowhere",
    "virtual:NAME": "a virtual MIDI port, for others to connect to",
    "jack:NAME": "a virtual MIDI port in JACK, exact to the frame (jack:NAME>INPUT connects it)",
    "file:PATH": "a MIDI file, whole on the disk every second",
    "osc:HOST:PORT": "OSC over UDP",
    "synth:FONT.sf2": "sound by FluidSynth; without a font or FluidSynth, a built-in sound",
    "slices:PARTNER.hal>DEVICE": "the partner's own recordings, slice by slice, on a sound output or the default one",
    "none:": "nowhere; what is played is reported as events",
    "NAME": "the MIDI output with this in its name",
}


class PortLostError(Exception):
    """The port is gone, or refuses what is sent; the message says why, in one line."""


class Port(ABC):
    """An open port. One thread uses it; nothing in it waits for longer than a moment.

    `name` is what was really opened, for people, and `notice` what else should be said of it.
    """

    name: str
    notice = ""
    lead_s = 0.0
    """How long before its moment (`Outgoing.target_s`) the port wants to be given a message; 0 sends it at once."""

    @abstractmethod
    def send(self, message: Outgoing) -> None:
        """Send a message, or take it to be sent at its moment; in order. Raises `PortLostError`."""

    def begin(self, origin_s: float) -> None:  # noqa: B027 - most ports count no time
        """Count times from a moment."""

    def check(self) -> str | None:
        """Raise `PortLostError` if the port is gone; return what else a player should know, once.

        Called about once a second, when nothing is due.
        """
        return None

    def close(self, *, flush: bool = True) -> None:  # noqa: B027 - some have nothing to close
        """Close; with `flush` let what was sent get out first. Never raises."""


def open_port(address: str, *, origin_s: float) -> Port:
    """Open the port at `address` (see `ADDRESSES`); a MIDI file counts its times from `origin_s`."""
    scheme, colon, rest = address.partition(":")
    if colon and scheme == "auto":
        return _open_auto(rest)
    if colon and scheme in _OPENERS:
        return _OPENERS[scheme](rest, origin_s)
    # A name may have a colon of its own, such as JACK's client:port.
    from musichal.live.output.midi_ports import open_midi

    if not address.strip():
        raise InputError("name a MIDI output, or part of its name")
    return open_midi(address)


def _open_auto(name: str) -> Port:
    try:
        port = _open_virtual(name, 0.0)
        port.notice = f"{port.name} is a virtual port: connect an instrument to it"
    except (InputError, MissingExtraError) as error:
        port = NullPort()
        port.notice = f"notes are not heard anywhere: {error}"
    return port


def _open_virtual(name: str, _origin_s: float) -> Port:
    from musichal.live.output.midi_ports import open_virtual

    return open_virtual(name or _NAME)


def _open_jack(rest: str, _origin_s: float) -> Port:
    from musichal.live.output.jack_midi import JackPort

    name, arrow, target = rest.partition(">")
    return JackPort(name or _NAME, target if arrow else None)


def _open_file(path: str, origin_s: float) -> Port:
    from musichal.live.output.midi_file import MidiFilePort

    return MidiFilePort(path, origin_s=origin_s)


def _open_slices(rest: str, _origin_s: float) -> Port:
    from musichal.live.output.sound_ports import SlicesPort

    path, arrow, device = rest.partition(">")
    return SlicesPort(path, device if arrow else None)


def _open_keys(rest: str, _origin_s: float) -> Port:
    from musichal.live.output.sound_ports import KeysPort

    font, arrow, device = rest.partition(">")
    return KeysPort(font, device if arrow else None)


class NullPort(Port):
    """Takes everything and sends nothing: without a MIDI system the partner plays on, and events report what it plays."""

    name = "nowhere (notes are only reported as events)"

    def send(self, message: Outgoing) -> None:
        """Do nothing."""


class OscPort(Port):
    """Sends notes to ``HOST:PORT``, resolved once. A missing receiver is no error: UDP does not report it."""

    def __init__(self, target: str) -> None:
        host, colon, number = target.rpartition(":")
        if not (colon and host and number.isascii() and number.isdigit() and 1 <= int(number) <= 65535):
            raise InputError(f"osc:{target} is not a target; write osc:HOST:PORT, such as osc:127.0.0.1:9001")
        host = host.removeprefix("[").removesuffix("]")
        from musichal.live.input.osc import open_sender  # with NumPy, which the scheduler does without

        self._socket, self._to = open_sender(host, int(number))
        self.name = f"OSC to {host}:{number}"

    def send(self, message: Outgoing) -> None:
        """Send one datagram; where the system has no room for it, it is lost, as datagrams may be."""
        with contextlib.suppress(OSError):  # an unreachable network comes back by itself
            self._socket.sendto(_datagram(message), self._to)

    def close(self, *, flush: bool = True) -> None:
        """Close the socket."""
        self._socket.close()


def _datagram(message: Outgoing) -> bytes:
    from musichal.live.input.osc import osc_message

    if not (message.is_on or message.is_off):
        return osc_message("/musichal/midi", [bytes((0, *message.data, *([0] * (3 - len(message.data)))))])
    channel, pitch = message.key
    # A tag has 32 bits, OSC's integers a sign.
    tag = message.tag - (message.tag >> 31 << 32)
    if message.is_on:
        return osc_message("/musichal/note/on", [channel + 1, pitch, message.data[2], tag])
    return osc_message("/musichal/note/off", [channel + 1, pitch, tag])


_GAIN = 0.5
_BANKS = 128, 0
"""General MIDI's drums are in bank 128 of a soundfont."""
_DRIVERS = (None, "jack", "pulseaudio", "alsa") if sys.platform == "linux" else (None,)
"""FluidSynth's default first; on Linux that is one system of several, whether or not it runs."""


class SynthPort(Port):
    """FluidSynth with a soundfont on a sound output, by pyfluidsynth (MIT) and the system's libfluidsynth."""

    def __init__(self, font: str) -> None:
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it prints where it found its library
                import fluidsynth
        except ImportError as error:
            if "library" in str(error):
                raise MissingExtraError(
                    "the live synth needs FluidSynth (Debian: apt-get install libfluidsynth3; macOS: brew install fluid-synth)"
                ) from error
            raise MissingExtraError(f"the live synth needs pyfluidsynth: {install_hint('synth')}") from error
        if not Path(font).is_file():
            raise InputError(f"there is no soundfont {printable(font)}")
        options: dict[str, Any] = {"audio.jack.id": "MusicHal synth", "audio.jack.autoconnect": 1}
        self._synth: Any = fluidsynth.Synth(gain=_GAIN, channels=16, **options)
        self._font = self._synth.sfload(font)
        if self._font < 0:
            self._synth.delete()
            raise InputError(f"{printable(font)} is not a soundfont that FluidSynth can play")
        for driver in _DRIVERS:
            if driver is not None:
                self._synth.setting("audio.driver", driver)
            # Not Synth.start: that would open a MIDI input as well.
            self._synth.audio_driver = fluidsynth.new_fluid_audio_driver(self._synth.settings, self._synth.synth)
            if self._synth.audio_driver:
                break
        else:
            self._synth.delete()
            raise InputError("FluidSynth found no sound output to play to")
        for channel in range(16):
            self._synth.program_select(channel, self._font, _BANKS[channel != PERCUSSION_CHANNEL], 0)
        self.name = f"FluidSynth with {printable(Path(font).name)}"

    def send(self, message: Outgoing) -> None:
        """Play a message at once."""
        data = message.data
        kind, channel = data[0] & 0xF0, data[0] & 0x0F
        if kind == 0x90:
            self._synth.noteon(channel, data[1], data[2])
        elif kind == 0x80:
            self._synth.noteoff(channel, data[1])
        elif kind == 0xB0:
            self._synth.cc(channel, data[1], data[2])
        elif kind == 0xC0:
            self._synth.program_change(channel, data[1])
        elif kind == 0xE0:
            self._synth.pitch_bend(channel, (data[1] | data[2] << 7) - 8192)

    def close(self, *, flush: bool = True) -> None:
        """Fall silent and close."""
        with contextlib.suppress(Exception):
            self._synth.delete()


_OPENERS: Mapping[str, Callable[[str, float], Port]] = MappingProxyType(
    {
        "none": lambda _rest, _origin_s: NullPort(),
        "virtual": _open_virtual,
        "jack": _open_jack,
        "osc": lambda target, _origin_s: OscPort(target),
        "file": _open_file,
        "synth": lambda font, _origin_s: SynthPort(font),
        "slices": _open_slices,
        "keys": _open_keys,
    }
)
