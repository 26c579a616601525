"""An output stream of PortAudio that knows whether the sound system still asks for samples."""

import contextlib
import threading
from collections.abc import Callable
from typing import Any

from musichal.arrays import Float32
from musichal.errors import InputError
from musichal.live.input.input_process import AudioDevice, portaudio, why_not_opened
from musichal.machine import now_s

_START_S = 5.0
_QUIET_S = 2.0
"""A sound system that asked for no samples for so long is gone."""


class SoundStream:
    """Asks `fill` for samples, as sounddevice calls back: array (frames, channels), frames, time, status.

    Raises `InputError` where the device cannot be opened; `MissingExtraError` without sounddevice or PortAudio.
    """

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

    def _call(self, out: Float32, frames: int, time: object, status: Any) -> None:
        self._called_s = now_s()
        self._fill(out, frames, time, status)

    def has_begun(self) -> bool:
        """Wait until the sound system asks for samples; return whether it does."""
        begun = threading.Event()
        until_s = now_s() + _START_S
        while self._called_s is None and now_s() < until_s:
            begun.wait(0.01)
        return self._called_s is not None

    def is_gone(self) -> bool:
        """Return whether the sound system asks for no samples any more."""
        return not self._stream.active or self._called_s is None or now_s() - self._called_s > _QUIET_S

    def close(self) -> None:
        """Close at once."""
        with contextlib.suppress(Exception):
            self._stream.abort(ignore_errors=True)
            self._stream.close(ignore_errors=True)
