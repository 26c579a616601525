"""Which MIDI systems there are on this machine, and which outputs and inputs each one has."""

from dataclasses import dataclass

from musichal.live.output.ports.midi import opened_inputs, opened_outputs


@dataclass(frozen=True)
class MidiSystem:
    """A MIDI system: ``CoreMIDI``, ``WinMM``, ``ALSA`` or ``JACK``; where it does not work, `trouble` says why."""

    name: str
    outputs: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    trouble: str = ""

    @property
    def works(self) -> bool:
        """Return whether ports can be opened in it."""
        return not self.trouble


def midi_systems() -> tuple[MidiSystem, ...]:
    """Return the systems that python-rtmidi was built for, each tried.

    ALSA fails without the kernel's sequencer, JACK without a server.

    Raises
    ------
    MissingExtraError
        Without python-rtmidi.
    """
    with opened_outputs() as (clients, reasons):
        outputs = {name: tuple(client.get_ports()) for name, client in clients}
    with opened_inputs() as (clients, _):
        inputs = {name: tuple(client.get_ports()) for name, client in clients}
    working = [MidiSystem(name, there_are, inputs.get(name, ())) for name, there_are in outputs.items()]
    failed = [MidiSystem(name, trouble=why.strip()) for name, _, why in (reason.partition(":") for reason in reasons)]
    return (*working, *failed)
