"""A sound input and a MIDI input together: a pianist who sings, a drummer with triggers and a microphone.

What is played on the keys is rendered into the sound as it comes, each with its weight, and both are one stream for the one
front end. Onsets and notes of the keys are exact; those of the sound are found in it, and what only repeats a key is left out.
Each is taken `for` what it is named for: a sound, onsets, notes.
"""

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from musichal.audio.instrument import Keys
from musichal.audio.recording import ingest
from musichal.errors import InputError
from musichal.live.input.blocks import Block
from musichal.live.input.input_process import AudioDevice
from musichal.live.input.live_input import Channels, InputEvent, LiveInput
from musichal.live.input.midi_input import MIDI_SCHEME, MidiInput

ALL = frozenset(("sound", "onsets", "notes"))
"""What an input can be taken for."""
_PART = f"(?:{'|'.join(sorted(ALL))})"
_TERM = re.compile(rf"\s*(?:(\d+(?:\.\d+)?)\s+(?=\S))?(.*?)(?:\s+for\s+({_PART}(?:\s*,\s*{_PART})*))?\s*", re.DOTALL)
_MOST_WEIGHT = 4.0


@dataclass(frozen=True)
class Mix:
    """The names and weights of a sound input and a MIDI input, and for what of `ALL` each is taken.

    The sound input is always for its sound: onsets and notes are found in it, or neither.
    """

    sound: str | None
    midi: str
    sound_weight: float = 1.0
    midi_weight: float = 1.0
    sound_for: frozenset[str] = ALL
    midi_for: frozenset[str] = ALL


def parse_mix(text: str) -> Mix | None:
    """Return the inputs of a text such as ``Scarlett + midi:Keystation`` or ``0.5 Scarlett + 2 midi:Pads for onsets``.

    None for a single one. Raises `InputError` where the sound input is not for its sound, or for onsets or notes alone.
    """
    first, plus, second = text.rpartition(" + ")
    weight, name, midi_for = _term(second)
    if not plus or not name.startswith(MIDI_SCHEME):
        return None
    sound_weight, sound, sound_for = _term(first)
    if sound_for not in (ALL, {"sound"}):
        raise InputError(f"{sound or 'the sound input'} can be for sound, or for all of sound, onsets and notes")
    return Mix(sound or None, name.removeprefix(MIDI_SCHEME), sound_weight, weight, sound_for, midi_for)


def _term(text: str) -> tuple[float, str, frozenset[str]]:
    match = _TERM.fullmatch(text)
    assert match is not None
    parts = ALL if match[3] is None else frozenset(part.strip() for part in match[3].split(","))
    return min(float(match[1] or 1), _MOST_WEIGHT), match[2], parts


class MixedInput(LiveInput):
    """The `Source` of a sound device with a MIDI input; it is open inside its context.

    Parameters
    ----------
    mix : Mix
    spec_rate_hz : int
        The rate at which keys are counted: the spec's.
    keys : Keys, optional
        What a key sounds like; the embedded instrument.
    monitor : callable, optional
        Gets every channel message.
    channels, block_samples, on_event
        As for `LiveInput`.
    """

    def __init__(
        self,
        mix: Mix,
        *,
        spec_rate_hz: int,
        keys: Keys | None = None,
        monitor: Callable[[bytes], None] | None = None,
        channels: Channels = None,
        block_samples: int = 0,
        on_event: Callable[[InputEvent], None] | None = None,
    ) -> None:
        super().__init__(mix.sound, channels=channels, block_samples=block_samples, on_event=on_event)
        self._mix, self._spec_rate_hz, self._keys, self._monitor = mix, spec_rate_hz, keys, monitor
        self._told = on_event
        self._midi: MidiInput
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Open both; raises as `LiveInput` and `MidiInput` do."""
        with contextlib.ExitStack() as stack:
            super().__enter__()
            stack.callback(super().__exit__, None, None, None)
            midi = MidiInput(
                self._mix.midi,
                sample_rate_hz=self.sample_rate_hz,
                keys=self._keys,
                monitor=self._monitor,
                on_event=self._told,
            )
            self._midi = stack.enter_context(midi)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    @property
    def keys_beside(self) -> bool:
        """Whether onsets and notes are found in the sound, too."""
        return self._mix.sound_for == ALL

    @property
    def device(self) -> AudioDevice:
        """Return the sound device, named after both."""
        sound = super().device
        return replace(sound, name=f"{sound.name} + {self._midi.device.name}")

    def read(self) -> list[Block]:
        """Return the blocks that arrived, with what was played on the keys meanwhile. Never waits."""
        return [self._mixed(block) for block in super().read()]

    def _mixed(self, block: Block) -> Block:
        played = self._midi.beside(block, self.clock.position_at)
        rate, taken = self._spec_rate_hz / self.sample_rate_hz, self._mix.midi_for
        weight = self._mix.midi_weight * ("sound" in taken)
        pressed = played.pressed if "onsets" in taken else ()
        return replace(
            played,
            samples=ingest(self._mix.sound_weight * block.samples + weight * played.samples),
            pressed=tuple(replace(key, sample=round(key.sample * rate)) for key in pressed),
            ended=played.ended if "notes" in taken else (),
            ended_hits=played.ended_hits if "notes" in taken else (),
        )
