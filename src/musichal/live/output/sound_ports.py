"""Sound outputs as ports: slices of the partner's recordings, and the built-in sound (of `--monitor`, and without FluidSynth).

Such a port needs NumPy and the recordings in memory, and PortAudio can hang on a sound system that died: give it a scheduler
of its own, apart from the MIDI ports.
"""

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from musichal.arrays import Float32
from musichal.audio.instrument import find_keys
from musichal.audio.keyboard import KeyboardSynth
from musichal.audio.slices import SlicePlayer
from musichal.errors import InputError
from musichal.live.input.input_process import AudioDevice, find_device, portaudio, why_not_opened
from musichal.live.output.jack_midi import FrameClock
from musichal.live.output.ports import Port, PortLostError
from musichal.live.output.scheduler_protocol import Outgoing
from musichal.machine import now_s
from musichal.memory.partner_file import load_partner
from musichal.note import Slice
from musichal.text import printable

_START_S = 5.0
_QUIET_S = 2.0
"""A sound system that asked for no samples for so long is gone."""
_MOST_SLICES, _MOST_MESSAGES = 1000, 4096  # that wait


class SoundStream:
    """Asks `fill` for samples, as sounddevice calls back: array (frames, channels), frames, time, status."""

    def __init__(self, output: AudioDevice, rate_hz: int, fill: Callable[[Float32, int, object, Any], None]) -> None:
        sounddevice: Any = portaudio()
        self._fill = fill
        self._called_s: float | None = None
        channels = min(2, output.channels)
        try:
            self._stream: Any = sounddevice.OutputStream(
                device=output.number,
                samplerate=rate_hz,
                channels=channels,
                dtype="float32",
                latency="low",
                callback=self._call,
            )
            self._stream.start()
        except sounddevice.PortAudioError as error:
            raise InputError(why_not_opened(output, channels, rate_hz, error)) from error
        begun, until_s = threading.Event(), now_s() + _START_S
        while self._called_s is None and now_s() < until_s:
            begun.wait(0.01)
        if self._called_s is None:
            self.close()
            raise InputError(f"{output.label} opened, and asks for no samples")

    def _call(self, out: Float32, frames: int, time: object, status: Any) -> None:
        self._called_s = now_s()
        self._fill(out, frames, time, status)

    def is_gone(self) -> bool:
        """Return whether the sound system asks for no samples any more."""
        return not self._stream.active or self._called_s is None or now_s() - self._called_s > _QUIET_S

    def close(self) -> None:
        """Close at once."""
        with contextlib.suppress(Exception):
            self._stream.abort(ignore_errors=True)
            self._stream.close(ignore_errors=True)


class SlicesPort(Port):
    """Plays slices of the recordings of a partner on a sound output: a device's number, part of its name, or the default.

    Slices are rendered by a thread of their own, a little ahead; the callback of the sound system only mixes them. Other
    messages than slices and their ends are ignored.
    """

    lead_s = 0.15

    def __init__(self, path: str, device: str | None = None) -> None:
        output = find_device(device, kind="output")
        rate_hz = round(output.default_rate_hz)
        recordings = [(recording.samples(), recording.sample_rate_hz) for recording in load_partner(path).recordings]
        self.name = f"slices of {printable(path)} on {output.label}"
        self._player = SlicePlayer(recordings, sample_rate_hz=rate_hz)
        self._clock = FrameClock(rate_hz)
        self._recordings = len(recordings)
        self._asked: queue.SimpleQueue[tuple[float, Slice | None] | None] = queue.SimpleQueue()
        self._underflows = self._told_underflows = 0
        self._sound = SoundStream(output, rate_hz, self._fill)
        self._thread = threading.Thread(target=self._render, name="slices", daemon=True)
        self._thread.start()

    def _fill(self, out: Float32, frames: int, _time: object, status: Any) -> None:
        self._clock.report(self._player.position, now_s())
        self._underflows += bool(status.output_underflow)
        out[:] = np.clip(self._player.read(frames), -1.0, 1.0)[:, None]

    def _render(self) -> None:
        while (asked := self._asked.get()) is not None:
            target_s, piece = asked
            frame = self._clock.frame_at(target_s)
            if piece is None:
                self._player.stop(frame)
            elif piece.recording < self._recordings:
                self._player.start(frame, piece)

    def send(self, message: Outgoing) -> None:
        """Take a slice, or its end, for its moment."""
        if self._asked.qsize() >= _MOST_SLICES:
            raise PortLostError("slices cannot be rendered as fast as they are played")
        if message.slice is not None:
            self._asked.put((message.target_s, message.slice))
        elif message.is_off and not message.again:
            self._asked.put((message.target_s, None))

    def check(self) -> str | None:
        """Raise if the sound system asks for no samples any more; returns a warning if the sound was interrupted."""
        if self._sound.is_gone():
            raise PortLostError("the sound output is gone")
        underflows, self._told_underflows = self._underflows - self._told_underflows, self._underflows
        times = "once" if underflows == 1 else f"{underflows} times"
        return f"the sound was interrupted {times}: the machine is too busy" if underflows else None

    def close(self, *, flush: bool = True) -> None:
        """Fade out and close."""
        self._asked.put((now_s(), None))
        self._asked.put(None)
        if flush:
            self._thread.join(timeout=1.0)
            threading.Event().wait(0.1)
        self._sound.close()


class KeysPort(Port):
    """Renders the messages that it gets, at once, on a sound output: a device's number, part of its name, or the default."""

    def __init__(self, font: str, device: str | None = None) -> None:
        output = find_device(device, kind="output")
        rate_hz = round(output.default_rate_hz)
        self.name = f"{printable(Path(font).name) if font else 'the built-in sound'} on {output.label}"
        self._synth = KeyboardSynth(rate_hz, find_keys(Path(font) if font else None))
        self._waiting: deque[bytes] = deque(maxlen=_MOST_MESSAGES)
        self._sound = SoundStream(output, rate_hz, self._fill)

    def _fill(self, out: Float32, frames: int, _time: object, _status: object) -> None:
        while self._waiting:
            self._synth.take(self._waiting.popleft(), self._synth.position)
        self._synth.pressed(), self._synth.ended(), self._synth.controls()
        out[:] = np.clip(self._synth.render(frames), -1.0, 1.0)[:, None]

    def send(self, message: Outgoing) -> None:
        """Render a message from the next block on."""
        self._waiting.append(message.data)

    def check(self) -> str | None:
        """Raise if the sound system asks for no samples any more."""
        if self._sound.is_gone():
            raise PortLostError("the sound output is gone")
        return None

    def close(self, *, flush: bool = True) -> None:
        """Close."""
        self._sound.close()
