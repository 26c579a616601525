"""A MIDI keyboard as the player: its messages become sound for the front end, and exact notes for the partner.

The stream runs by the machine's clock: what is rendered up to now is a block. A message is taken at the moment at which it
arrived, so its sound and its onset are exact to the sample, and the answer need not wait for a block of a sound card. Blocks
without one go by the beat of the last one: JACK gives messages at the beginning of a cycle, and behind that is most time for
other work until the next.

`MixedInput` is a sound input and a MIDI input together: a pianist who sings, a drummer with triggers and a microphone. What is
played on the keys is rendered into the sound as it comes, each with its weight, and both are one stream for the one front end.
Onsets and notes of the keys are exact; those of the sound are found in it, and what only repeats a key is left out. Each is
taken `for` what it is named for: a sound, onsets, notes.
"""

import contextlib
import re
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from musichal.audio.instrument import Keys
from musichal.audio.keyboard import KeyboardSynth
from musichal.audio.levels import LevelMeter
from musichal.audio.recording import ingest
from musichal.errors import InputError
from musichal.live.input.blocks import Block, Line
from musichal.live.input.input_process import AudioDevice
from musichal.live.input.live_input import Channels, InputEvent, LiveInput
from musichal.live.output.midi_ports import open_midi_input
from musichal.machine import now_s

MIDI_SCHEME = "midi:"
ALL_NOTES_OFF = tuple(bytes((0xB0 | channel, controller, 0)) for channel in range(16) for controller in (64, 66, 123))
_MOST_WAITING = 4096
_LONGEST_S = 1.0  # what was not read for longer is lost, as with a sound card
_LEVEL_S = 0.1
_LOOK_S = 0.5
_BEHIND_S = 0.0004


@dataclass(frozen=True)
class MidiDevice:
    """The MIDI input that is open."""

    name: str

    @property
    def label(self) -> str:
        """Its name as the player sees it."""
        return f"{self.name} (MIDI)"


class MidiInput:
    """The `Source` of a MIDI input; it is open inside its context.

    * `name`: The port's name or a part of it, or ``virtual:NAME`` for one of our own.
    * `sample_rate_hz`: The rate of the sound: that of the spec, so that nothing is resampled.
    * `block_samples`: How often, at least, a block is made.
    * `keys`: What a key sounds like; the embedded instrument.
    * `monitor`: Gets every channel message as it is read, on the reader's thread.
    * `on_event`: Callback for each `InputEvent`, on the reader's thread.
    * `clock`: Maps positions to moments.
    * `level`: The latest tenth of a second.
    * `xruns`, `lost_samples`: Messages that were dropped because too many came at once; samples that were not read in time.
    """

    capture_s = 0.0

    def __init__(
        self,
        name: str,
        *,
        sample_rate_hz: int,
        block_samples: int = 256,
        keys: Keys | None = None,
        monitor: Callable[[bytes], None] | None = None,
        on_event: Callable[[InputEvent], None] | None = None,
    ) -> None:
        self.sample_rate_hz = sample_rate_hz
        self.level = LevelMeter().take()
        self.xruns = self.lost_samples = 0
        self._wanted, self._on_event = name, on_event
        self._block_s = block_samples / sample_rate_hz
        self._messages: deque[tuple[float, bytes]] = deque()
        self._arrived, self._closing = threading.Event(), threading.Event()
        self._synth, self._monitor = KeyboardSynth(sample_rate_hz, keys), monitor
        self._meter, self._levelled_s = LevelMeter(), 0.0
        self._events: deque[tuple[str, str]] = deque()
        self._is_there = True
        self._due_s = self._last_s = 0.0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Open the port; raises as `open_midi_input` does."""
        with contextlib.ExitStack() as stack:
            port = stack.enter_context(open_midi_input(self._wanted, self._take))
            self.device = MidiDevice(port.name)
            self._last_s = now_s()
            self.clock = Line(0, self._last_s, 1 / self.sample_rate_hz)
            watch = threading.Thread(target=self._watch, args=(port.check,), name="MIDI input", daemon=True)
            stack.callback(watch.join)
            stack.callback(self._closing.set)
            watch.start()
            self._stack = stack.pop_all()
        self._events.append(("opened", f"listening to {self.device.label}"))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def callback_ms(self, share: float) -> float | None:
        """Return None: there is no sound card."""
        return None

    @property
    def is_connected(self) -> bool:
        """Return whether the port is there now."""
        return self._is_there

    def wait(self, timeout_s: float) -> bool:
        """Wait for a message, at most about a block or `timeout_s`; return whether something can be read."""
        self._arrived.wait(min(timeout_s, max(0.0, self._due_s - now_s())))
        return True

    def read(self) -> list[Block]:
        """Return what was played up to now, as one block. Never waits."""
        self._arrived.clear()
        self._tell_events()
        at_s = now_s()
        end, position = int(self.clock.position_at(at_s)), self._synth.position
        lost = end - position if end - position > _LONGEST_S * self.sample_rate_hz else 0
        if lost:
            self._synth.skip(lost)
            self.lost_samples += lost
        while self._messages and self._messages[0][0] <= at_s:
            moment_s, data = self._messages.popleft()
            at = max(self._synth.position, int(self.clock.position_at(moment_s)))
            end = max(end, at + 1)  # its onset is known with its own sample
            self._synth.take(data, at)
            self._hear(data)
            self._last_s = moment_s
        self._due_s = self._last_s + self._block_s * (1 + (at_s - self._last_s) // self._block_s) + _BEHIND_S
        first = self._synth.position
        sound = ingest(self._synth.render(max(0, end - first)))
        pressed, (ended, hits), controls = self._synth.pressed(), self._synth.ended(), self._synth.controls()
        if not (len(sound) or pressed or ended or hits or controls or lost):
            return []
        self._meter.see(sound[:, np.newaxis], sound)
        if at_s - self._levelled_s >= _LEVEL_S:
            self._levelled_s, self.level = at_s, self._meter.take()
        return [Block(sound, at_s, lost, first, pressed=pressed, ended=ended, ended_hits=hits, controls=controls)]

    def beside(self, block: Block, position_at: Callable[[float], float]) -> Block:
        """Return a block of another input, by whose clock a position is found, with what was played meanwhile as its sound."""
        self._tell_events()
        if self._synth.position < block.first_sample:
            self._synth.skip(block.first_sample - self._synth.position)
        while self._messages and (at := int(position_at(self._messages[0][0]))) < block.end_sample:
            _, data = self._messages.popleft()
            self._synth.take(data, max(self._synth.position, at))
            self._hear(data)
        sound = self._synth.render(len(block.samples))
        ended, hits = self._synth.ended()
        pressed, controls = self._synth.pressed(), self._synth.controls()
        return replace(block, samples=sound, pressed=pressed, ended=ended, ended_hits=hits, controls=controls)

    def _tell_events(self) -> None:
        while self._events:
            kind, text = self._events.popleft()
            if kind == "gone":
                self._synth.silence()
                self._hear(*ALL_NOTES_OFF)
            if self._on_event is not None:
                self._on_event(InputEvent(kind, text, self._synth.position))

    def _hear(self, *messages: bytes) -> None:
        """Let the player hear channel messages."""
        if self._monitor is None:
            return
        for data in messages:
            if data and data[0] < 0xF0:
                self._monitor(data)

    def _take(self, data: Sequence[int]) -> None:
        """Take a message, on a thread of the system."""
        if len(self._messages) >= _MOST_WAITING:
            self.xruns += 1
            return
        self._messages.append((now_s(), bytes(data)))
        self._arrived.set()

    def _watch(self, check: Callable[[], bool]) -> None:
        """Look whether the port is there, on a thread of its own."""
        while not self._closing.wait(_LOOK_S):
            is_there = False
            with contextlib.suppress(Exception):  # RtMidi raises several kinds for a port that goes while it is looked for
                is_there = check()
            if is_there != self._is_there:
                self._is_there = is_there
                words = ("returned", f"{self.device.label} is back")
                self._events.append(
                    words if is_there else ("gone", f"{self.device.label} is gone: waiting for it to come back")
                )


# ── beside a sound ───────────────────────────────────────────────────────────

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

    * `spec_rate_hz`: The rate at which keys are counted: the spec's.
    * `keys`: What a key sounds like; the embedded instrument.
    * `monitor`: Gets every channel message.
    * `channels`, `block_samples`, `on_event`: As for `LiveInput`.
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

    def __exit__(self, *_: object) -> None:
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
