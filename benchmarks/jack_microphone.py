"""A JACK client that plays samples into the server like a microphone, and knows the frame of each of them."""

import contextlib
import threading
from types import TracebackType
from typing import Any, Self

from musichal.arrays import Float32
from musichal.errors import InputError, MissingExtraError, install_hint

_START_S = 10.0


class JackMicrophone:
    """Plays `samples`, (n,) at the server's rate, again and again, once `go` is called; in silence until then."""

    def __init__(self, samples: Float32, *, name: str = "microphone") -> None:
        try:
            import jack
        except (ImportError, OSError) as error:
            raise MissingExtraError(f"this needs JACK-Client and libjack: {install_hint('jack')}") from error
        self._samples = samples
        self.name = name
        self.xruns = 0
        self._client: Any = jack.Client(name, no_start_server=True)
        self._port = self._client.outports.register("out_1")
        self._wanted, self._started = False, threading.Event()
        self._start = 0
        self._client.set_process_callback(self._process)
        self._client.set_xrun_callback(self._xrun)

    def __enter__(self) -> Self:
        self._client.activate()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with contextlib.suppress(Exception):
            self._client.deactivate()
            self._client.close()

    @property
    def rate_hz(self) -> int:
        """The server's rate."""
        return int(self._client.samplerate)

    def go(self) -> int:
        """Begin with the next cycle; return the server's frame of the first sample. Raises `InputError` without a server."""
        self._wanted = True
        if not self._started.wait(_START_S):
            raise InputError("the JACK server does not run")
        return self._start

    def _process(self, frames: int) -> None:
        now = self._client.last_frame_time
        out = self._port.get_array()
        if not self._wanted:
            out[:] = 0
            return
        if not self._started.is_set():
            self._start = now
            self._started.set()
        first = ((now - self._start) & 0xFFFFFFFF) % len(self._samples)
        head = min(frames, len(self._samples) - first)
        out[:head] = self._samples[first : first + head]
        out[head:] = self._samples[: frames - head]

    def _xrun(self, _delay_us: float) -> None:
        self.xruns += 1
