"""A keyboard's own sound on a sound output: what `--monitor` opens.

It has a scheduler of its own, as slices have, for PortAudio can hang on a sound system that died.
"""

import contextlib
import threading
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from musichal.arrays import Float32
from musichal.audio.instrument import find_keys
from musichal.audio.keyboard import KeyboardSynth
from musichal.errors import InputError
from musichal.live.input.input_process import find_output, portaudio, why_not_opened
from musichal.live.output.ports import PortLostError
from musichal.live.output.scheduler_protocol import Outgoing
from musichal.machine import now_s

_START_S, _QUIET_S = 5.0, 2.0
_MOST_WAITING = 4096


class KeysPort:
    """Renders the messages that it gets, at once, on a sound output: a device's number, part of its name, or the default.

    Raises `InputError` for a soundfont that is none, or a device that does not exist or cannot be opened; `MissingExtraError`
    without sounddevice or PortAudio.
    """

    lead_s = 0.0

    def __init__(self, font: str, device: str | None = None) -> None:
        sounddevice: Any = portaudio()
        output = find_output(device)
        rate_hz = round(output.default_rate_hz)
        self.name = f"what you play, on {output.label}"
        self._synth = KeyboardSynth(rate_hz, find_keys(Path(font) if font else None))
        self._waiting: deque[bytes] = deque(maxlen=_MOST_WAITING)
        self._called_s: float | None = None
        channels = min(2, output.channels)
        try:
            self._stream: Any = sounddevice.OutputStream(
                device=output.number,
                samplerate=rate_hz,
                channels=channels,
                dtype="float32",
                latency="low",
                callback=self._fill,
            )
            self._stream.start()
        except sounddevice.PortAudioError as error:
            raise InputError(why_not_opened(output, channels, rate_hz, error)) from error
        until_s = now_s() + _START_S
        while self._called_s is None and now_s() < until_s:
            threading.Event().wait(0.01)
        if self._called_s is None:
            self.close(flush=False)
            raise InputError(f"{output.label} opened, and asks for no samples")

    def _fill(self, out: Float32, frames: int, _time: object, _status: object) -> None:
        self._called_s = now_s()
        while self._waiting:
            self._synth.take(self._waiting.popleft(), self._synth.position)
        self._synth.pressed(), self._synth.ended(), self._synth.controls()
        out[:] = np.clip(self._synth.render(frames), -1.0, 1.0)[:, None]

    def send(self, message: Outgoing) -> None:
        """Render a message from the next block on."""
        self._waiting.append(message.data)

    def check(self) -> str | None:
        """Raise if the sound system asks for no samples any more."""
        if not self._stream.active or self._called_s is None or now_s() - self._called_s > _QUIET_S:
            raise PortLostError("the sound output of --monitor is gone")
        return None

    def close(self, *, flush: bool = True) -> None:
        """Close."""
        with contextlib.suppress(Exception):
            self._stream.abort(ignore_errors=True)
            self._stream.close(ignore_errors=True)
