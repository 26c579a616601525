"""`musichal devices`: what sound and MIDI there is on this machine, what works, what is missing and how to get it."""

import contextlib
import importlib.util
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.table import Table
from rich.text import Text

from musichal.commands.terminal import Terminal
from musichal.errors import MusicHalError, install_hint
from musichal.live.input.devices import AudioDevice
from musichal.live.input.live_input import Scan, scan_devices
from musichal.live.output.midi_systems import MidiSystem, midi_systems
from musichal.live.output.ports.midi import INSTEAD
from musichal.live.output.ports.silence_stderr import library_chatter_off


@dataclass(frozen=True)
class Part:
    """Something that live playing can use: whether it `works`, and in `detail` what it gives or how to get it."""

    name: str
    works: bool
    detail: str


def devices_command(voice: Terminal) -> None:
    """Show the devices, and what works; what is missing is no error."""
    scan, sound = _sound()
    with library_chatter_off():
        systems, midi = _midi()
    parts = [sound, *midi, _jack(), _osc(), _synth(), _link()]
    voice.result(
        {
            "inputs": [device.to_dict() for device in scan.inputs],
            "outputs": [device.to_dict() for device in scan.outputs],
            "midi_outputs": [{"system": system.name, "name": name} for system in systems for name in system.outputs],
            "midi_inputs": [{"system": system.name, "name": name} for system in systems for name in system.inputs],
            "parts": [asdict(part) for part in parts],
        }
    )
    for title, devices in (("Audio inputs", scan.inputs), ("Audio outputs", scan.outputs)):
        _show_devices(title, devices, voice)
    _show_midi("MIDI outputs", [(system.name, name) for system in systems for name in system.outputs], voice)
    _show_midi("MIDI inputs", [(system.name, name) for system in systems for name in system.inputs], voice)
    table = Table("part", "", title="What works here", title_justify="left")
    table.add_column("what it gives, or how to get it", overflow="fold")  # a command is of use whole only
    for part in parts:
        table.add_row(Text(part.name), Text("works", "green") if part.works else Text("missing", "yellow"), Text(part.detail))
    voice.show(table)


def _show_devices(title: str, devices: tuple[AudioDevice, ...], voice: Terminal) -> None:
    if not devices:
        voice.say(f"{title}: none")
        return
    table = Table("number", "name", "by", "channels", "rate", "default", title=title, title_justify="left")
    for device in devices:
        row = (str(device.number), device.name, device.host_api, str(device.channels), f"{device.default_rate_hz:.0f} Hz")
        table.add_row(*map(Text, (*row, "yes" if device.is_default else "")))
    voice.show(table)


def _show_midi(title: str, ports: Sequence[tuple[str, str]], voice: Terminal) -> None:
    if not ports:
        voice.say(f"{title}: none")
        return
    table = Table("name", "system", title=title, title_justify="left")
    for system, name in ports:
        table.add_row(Text(name), Text(system))
    voice.show(table)


def _sound() -> tuple[Scan, Part]:
    try:
        scan = scan_devices()
    except MusicHalError as error:
        return Scan((), ()), Part("live sound", False, str(error))
    if not scan.inputs:
        return scan, Part("live sound", False, "PortAudio works, and finds no input: plug one in, or start a sound server")
    return scan, Part("live sound", True, f"{_count(len(scan.inputs), 'input')}, {_count(len(scan.outputs), 'output')}")


def _midi() -> tuple[tuple[MidiSystem, ...], list[Part]]:
    try:
        systems = midi_systems()
    except MusicHalError as error:
        return (), [Part("MIDI ports", False, str(error))]
    if not any(system.works for system in systems):
        reasons = "; ".join(f"{system.name}: {system.trouble}" for system in systems)
        return systems, [Part("MIDI ports", False, f"no MIDI system works here ({reasons}); {INSTEAD}")]
    return systems, [
        Part(
            f"MIDI by {system.name}",
            system.works,
            system.trouble or f"{_count(len(system.outputs), 'output')}, {_count(len(system.inputs), 'input')}",
        )
        for system in systems
    ]


def _jack() -> Part:
    try:
        import jack  # noqa: F401
    except ImportError:
        return Part("JACK MIDI, exact to the sample", False, f"JACK-Client is not installed; {install_hint('jack')}")
    except OSError:
        return Part("JACK MIDI, exact to the sample", False, "libjack is not installed; Debian, Ubuntu: apt-get install jackd2")
    return Part("JACK MIDI, exact to the sample", True, "needs a running JACK server")


def _osc() -> Part:
    try:
        import pythonosc  # noqa: F401
    except ImportError:
        detail = f"--osc works; for notes by OSC, python-osc is not installed: {install_hint('live')}"
        return Part("OSC", False, detail)
    return Part("OSC", True, "control in, notes and decisions out")


def _synth() -> Part:
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it says on standard output where it found its library
            import fluidsynth  # noqa: F401
    except ImportError as error:  # pyfluidsynth says the same where it does not find the library
        if error.name == "fluidsynth":
            return Part("live synth", False, f"pyfluidsynth is not installed; {install_hint('synth')}")
        return Part("live synth", False, "FluidSynth is not installed; Debian, Ubuntu: apt-get install libfluidsynth3")
    return Part("live synth", True, "plays a soundfont by FluidSynth")


def _link() -> Part:
    if importlib.util.find_spec("aalink") is None:
        return Part("Ableton Link", False, f"aalink, which is under the GPL, is not installed; {install_hint('link')}")
    return Part("Ableton Link", True, "tempo and beat of a session on the local network: `musichal play --link`")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
