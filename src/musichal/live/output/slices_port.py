"""The partner's own recordings as its voice: slices played on a sound output.

Such a port needs NumPy and the recordings in memory, and PortAudio can hang on a sound system that died: give it a scheduler
of its own, apart from the MIDI ports.
"""

import queue
import threading
from typing import Any

import numpy as np

from musichal.arrays import Float32
from musichal.audio.slices import SlicePlayer
from musichal.errors import InputError
from musichal.live.input.input_process import find_output
from musichal.live.output.jack_midi import FrameClock
from musichal.live.output.ports import PortLostError
from musichal.live.output.scheduler_protocol import Outgoing
from musichal.live.output.sound_stream import SoundStream
from musichal.machine import now_s
from musichal.memory.partner_file import load_partner
from musichal.note import Slice
from musichal.text import printable

_LEAD_S = 0.15
_MOST_WAITING = 1000


class SlicesPort:
    """Plays slices of the recordings of a partner on a sound output: a device's number, part of its name, or the default.

    Slices are rendered by a thread of their own, a little ahead; the callback of the sound system only mixes them. Other
    messages than slices and their ends are ignored. Raises `PartnerFileError` for a partner that cannot be read, or has no
    sound in it; `InputError` for a device that does not exist or cannot be opened; `MissingExtraError` without sounddevice or
    PortAudio.
    """

    def __init__(self, path: str, device: str | None = None) -> None:
        output = find_output(device)
        rate_hz = round(output.default_rate_hz)
        recordings = [(recording.samples(), recording.sample_rate_hz) for recording in load_partner(path).recordings]
        self.name = f"slices of {printable(path)} on {output.label}"
        self.lead_s = _LEAD_S
        self._player = SlicePlayer(recordings, sample_rate_hz=rate_hz)
        self._clock = FrameClock(rate_hz)
        self._recordings = len(recordings)
        self._asked: queue.SimpleQueue[tuple[float, Slice | None] | None] = queue.SimpleQueue()
        self._underflows = self._told_underflows = 0
        self._sound = SoundStream(output, rate_hz, self._fill)
        self._thread = threading.Thread(target=self._render, name="slices", daemon=True)
        self._thread.start()
        if not self._sound.has_begun():
            self.close(flush=False)
            raise InputError(f"{output.label} opened, and asks for no samples")

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
        if self._asked.qsize() >= _MOST_WAITING:
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
