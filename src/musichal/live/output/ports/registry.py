"""From the address of a port to the open port."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from musichal.errors import InputError, MissingExtraError, MusicHalError
from musichal.live.output.ports.protocol import Port

_NAME = "MusicHal"
ADDRESSES = {
    "auto:": "a virtual MIDI port where the system has them, or nowhere",
    "virtual:NAME": "a MIDI port of our own, for others to connect to",
    "jack:NAME": "a MIDI port of our own in JACK, exact to the frame (jack:NAME>INPUT connects it)",
    "jack-rtmidi:NAME": "a MIDI port of our own in JACK, by python-rtmidi",
    "file:PATH": "a MIDI file, whole on the disk every second",
    "osc:HOST:PORT": "OSC over UDP",
    "synth:FONT.sf2": "sound by FluidSynth; without a font, the one that was installed with MusicHal",
    "slices:PARTNER.hal>DEVICE": "the partner's own recordings, slice by slice, on a sound output or the default one",
    "none:": "nowhere; what is played is told as events",
    "NAME": "the MIDI output with this in its name",
}


@dataclass(frozen=True)
class Opened:
    """An open port, and what should be said of it."""

    port: Port
    notice: str | None = None


def open_port(address: str, *, origin_s: float) -> Opened:
    """Open the port at `address` (see `ADDRESSES`); a MIDI file counts its times from `origin_s`.

    Raises
    ------
    InputError
        For a port that is not there, is not the only one of the name, or cannot be used.
    MissingExtraError
        Where what it needs is not installed.
    """
    scheme, colon, rest = address.partition(":")
    if colon and scheme in ("auto", *_OPENERS):
        return _open_auto(rest) if scheme == "auto" else Opened(_OPENERS[scheme](rest, origin_s))
    # A name may have a colon of its own, such as JACK's client:port.
    from musichal.live.output.ports.midi import open_midi

    if not address.strip():
        raise InputError("name a MIDI output, or part of its name")
    return Opened(open_midi(address))


# What a scheme needs is imported when it is asked for: the scheduler's process stays small.


def _open_null(_rest: str, _origin_s: float) -> Port:
    from musichal.live.output.ports.null import NullPort

    return NullPort()


def _open_virtual(name: str, _origin_s: float) -> Port:
    from musichal.live.output.ports.midi import open_virtual

    return open_virtual(name or _NAME)


def _open_jack_by_rtmidi(name: str, _origin_s: float) -> Port:
    from musichal.live.output.ports.midi import open_virtual

    return open_virtual(name or _NAME, only="JACK")


def _open_jack(rest: str, _origin_s: float) -> Port:
    from musichal.live.output.ports.jack_midi import JackPort

    name, arrow, target = rest.partition(">")
    return JackPort(name or _NAME, target if arrow else None)


def _open_osc(target: str, _origin_s: float) -> Port:
    from musichal.live.output.ports.osc import OscPort

    return OscPort(target)


def _open_file(path: str, origin_s: float) -> Port:
    from musichal.live.output.midi_file import MidiFilePort

    return MidiFilePort(path, origin_s=origin_s)


def _open_slices(rest: str, _origin_s: float) -> Port:
    from musichal.live.output.ports.slices import SlicesPort

    path, arrow, device = rest.partition(">")
    return SlicesPort(path, device if arrow else None)


def _open_synth(font: str, _origin_s: float) -> Port:
    from musichal.live.output.ports.synth import SynthPort

    return SynthPort(font)


_OPENERS: Mapping[str, Callable[[str, float], Port]] = MappingProxyType(
    {
        "none": _open_null,
        "virtual": _open_virtual,
        "jack-rtmidi": _open_jack_by_rtmidi,
        "jack": _open_jack,
        "osc": _open_osc,
        "file": _open_file,
        "synth": _open_synth,
        "slices": _open_slices,
    }
)


def _open_auto(name: str) -> Opened:
    from musichal.live.output.ports.midi import open_virtual
    from musichal.live.output.ports.null import NullPort

    try:
        port = open_virtual(name or _NAME)
    except (InputError, MissingExtraError) as error:
        return Opened(NullPort(), f"notes are not heard anywhere: {error}")
    return Opened(port, f"{port.name} is a port of our own: connect an instrument to it")


def describe(error: MusicHalError) -> tuple[str, str]:
    """Return the kind and the words of an error, for another process."""
    return type(error).__name__, str(error)
