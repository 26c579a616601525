"""A MIDI keyboard as the player: its messages become sound for the front end, and exact notes for the partner.

The stream runs by the machine's clock: what is rendered up to now is a block. A message is taken at the moment at which it
arrived, so its sound and its onset are exact to the sample, and the answer need not wait for a block of a sound card.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import numpy as np

from musichal.audio.instrument import Keys
from musichal.audio.keyboard import KeyboardSynth
from musichal.audio.levels import LevelMeter
from musichal.audio.recording import ingest
from musichal.live.input.blocks import Block, Line
from musichal.live.input.live_input import InputEvent
from musichal.live.output.midi_ports import open_midi_input
from musichal.machine import now_s

MIDI_SCHEME = "midi:"
ALL_NOTES_OFF = tuple(bytes((0xB0 | channel, controller, 0)) for channel in range(16) for controller in (64, 66, 123))
_MOST_WAITING = 4096
_LONGEST_S = 1.0  # what was not read for longer is lost, as with a sound card
_LEVEL_S = 0.1
_LOOK_S = 0.5


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

    Parameters
    ----------
    name : str
        The port's name or a part of it, or ``virtual:NAME`` for one of our own.
    sample_rate_hz : int
        The rate of the sound: that of the spec, so that nothing is resampled.
    block_samples : int
        How often, at least, a block is made.
    keys : Keys, optional
        What a key sounds like; the embedded instrument.
    monitor : callable, optional
        Gets every channel message as it is read, on the reader's thread.
    on_event : callable, optional
        Callback for each `InputEvent`, on the reader's thread.

    Attributes
    ----------
    clock : Line
        Maps positions to moments.
    level : Levels
        The latest tenth of a second.
    xruns, lost_samples : int
        Messages that were dropped because too many came at once; samples that were not read in time.
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
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Open the port; raises as `open_midi_input` does."""
        with contextlib.ExitStack() as stack:
            port = stack.enter_context(open_midi_input(self._wanted, self._take))
            self.device = MidiDevice(port.name)
            self.clock = Line(0, now_s(), 1 / self.sample_rate_hz)
            watch = threading.Thread(target=self._watch, args=(port.check,), name="MIDI input", daemon=True)
            stack.callback(watch.join)
            stack.callback(self._closing.set)
            watch.start()
            self._stack = stack.pop_all()
        self._events.append(("opened", f"listening to {self.device.label}"))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def callback_ms(self, share: float) -> float | None:
        """Return None: there is no sound card."""
        return None

    @property
    def is_connected(self) -> bool:
        """Return whether the port is there now."""
        return self._is_there

    def wait(self, timeout_s: float) -> bool:
        """Wait for a message, at most a block or `timeout_s`; return whether something can be read."""
        due_s = self.clock.time_of(self._synth.position) + self._block_s
        self._arrived.wait(min(timeout_s, max(0.0, due_s - now_s())))
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
