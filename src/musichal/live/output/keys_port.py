"""A keyboard's own sound on a sound output: what `--monitor` opens.

It has a scheduler of its own, as slices have, for PortAudio can hang on a sound system that died.
"""

from collections import deque
from pathlib import Path

import numpy as np

from musichal.arrays import Float32
from musichal.audio.instrument import find_keys
from musichal.audio.keyboard import KeyboardSynth
from musichal.errors import InputError
from musichal.live.input.input_process import find_output
from musichal.live.output.ports import PortLostError
from musichal.live.output.scheduler_protocol import Outgoing
from musichal.live.output.sound_stream import SoundStream

_MOST_WAITING = 4096


class KeysPort:
    """Renders the messages that it gets, at once, on a sound output: a device's number, part of its name, or the default.

    Raises `InputError` for a soundfont that is none, or a device that does not exist or cannot be opened; `MissingExtraError`
    without sounddevice or PortAudio.
    """

    lead_s = 0.0

    def __init__(self, font: str, device: str | None = None) -> None:
        output = find_output(device)
        rate_hz = round(output.default_rate_hz)
        self.name = f"what you play, on {output.label}"
        self._synth = KeyboardSynth(rate_hz, find_keys(Path(font) if font else None))
        self._waiting: deque[bytes] = deque(maxlen=_MOST_WAITING)
        self._sound = SoundStream(output, rate_hz, self._fill)
        if not self._sound.has_begun():
            self.close(flush=False)
            raise InputError(f"{output.label} opened, and asks for no samples")

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
            raise PortLostError("the sound output of --monitor is gone")
        return None

    def close(self, *, flush: bool = True) -> None:
        """Close."""
        self._sound.close()
