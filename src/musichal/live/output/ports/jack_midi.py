"""A MIDI port of our own in JACK: each message in the frame that its moment falls into.

Conventions
-----------
JACK counts frames; a cycle begins at a frame, and our callback learns which, and how long ago that was. The line from
seconds to frames is the nominal rate through a point that follows these reports slowly, so that their jitter does not
become ours. A message is given to the port a little more than two cycles early; what comes too late for its frame leaves
in the first frame of the next cycle.
"""

import contextlib
import time
from collections import deque
from typing import Any

from musichal.errors import InputError, MissingExtraError, install_hint
from musichal.live.output.ports.frame_clock import FrameLine
from musichal.live.output.ports.protocol import PortLostError
from musichal.live.output.scheduler_protocol import Outgoing
from musichal.machine import now_s

_MOST_QUEUED = 4096
_MARGIN_S = 0.002
_WRAP = 2**32


class JackPort:
    """A JACK client with one MIDI output; `target`, part of the name of an input, is connected to.

    Raises `InputError` without a JACK server or such an input, `MissingExtraError` without JACK-Client or libjack.
    """

    def __init__(self, name: str, target: str | None = None) -> None:
        try:
            import jack
        except ImportError as error:
            raise MissingExtraError(f"native JACK MIDI needs JACK-Client: {install_hint('jack')}") from error
        except OSError as error:
            raise MissingExtraError(
                "native JACK MIDI needs libjack (Debian: apt-get install libjack-jackd2-0; macOS: brew install jack)"
            ) from error
        try:
            self._client: Any = jack.Client(name, no_start_server=True)
        except jack.JackError as error:
            raise InputError("there is no JACK server to open a port in; start jackd, or PipeWire with pw-jack") from error
        self._error: Any = jack.JackError
        self._queue: deque[tuple[float, bytes]] = deque()
        self._lost: str | None = None
        self._frame, self._last_frame_time, self._sent_frame = 0, None, 0
        self._line = FrameLine(self._client.samplerate)
        self._on: set[bytes] = set()
        self._ends: deque[tuple[int, bytes]] = deque(maxlen=256)
        self._missed = False
        self.name = f"{self._client.name}:out (JACK, exact to the frame)"
        self.lead_s = 2 * self._client.blocksize / self._client.samplerate + _MARGIN_S
        try:
            self._port: Any = self._client.midi_outports.register("out")
            self._client.set_process_callback(self._process)
            self._client.set_shutdown_callback(self._shut_down)
            self._client.set_xrun_callback(self._miss)
            self._client.activate()
            if target is not None:
                self._connect(target)
        except BaseException:
            self._client.close()
            raise

    def _connect(self, target: str) -> None:
        inputs = [port.name for port in self._client.get_ports(is_midi=True, is_input=True)]
        found = [n for n in inputs if n == target] or [n for n in inputs if target.casefold() in n.casefold()]
        if len(found) != 1:
            raise InputError(
                f"{len(found) or 'no'} JACK MIDI inputs have {target!r} in the name; there are: {', '.join(inputs) or 'none'}"
            )
        self._client.connect(self._port, found[0])

    def _shut_down(self, _status: object, reason: str) -> None:
        self._lost = f"the JACK server is gone ({reason})"

    def _miss(self, _delay_us: float) -> None:
        self._missed = True

    def _repair(self, frames: int) -> None:
        """Tell the ends of the last cycles again, where a cycle was missed: what was in it may not have arrived."""
        ends = [data for frame, data in self._ends if frame >= self._frame - 4 * frames and data[:2] not in self._on]
        for data in ends:
            with contextlib.suppress(self._error):
                self._port.write_midi_event(0, data)

    def _note_down(self, data: bytes) -> None:
        """Keep what is on, and the ends of the last cycles."""
        key = bytes((0x80 | data[0] & 0x0F, *data[1:2]))
        if data[0] & 0xF0 == 0x90:
            self._on.add(key)
        elif data[0] & 0xF0 == 0x80:
            self._on.discard(key)
            self._ends.append((self._sent_frame, data))

    def _process(self, frames: int) -> None:
        port, queue = self._port, self._queue
        port.clear_buffer()
        frame_time = self._client.last_frame_time
        began_s = now_s() - self._client.frames_since_cycle_start / self._client.samplerate
        if self._last_frame_time is not None:
            since = (frame_time - self._last_frame_time) % _WRAP
            self._frame += since
            self._missed = self._missed or since != frames
        self._last_frame_time = frame_time
        if self._missed:
            self._missed = False
            self._repair(frames)
        self._line.report(self._frame, began_s)
        while queue:
            target_s, data = queue[0]
            # In order, whatever their moments: a note-off that is due at once may follow a note-on that is not yet.
            frame = max(self._line.frame_at(target_s), self._sent_frame, self._frame)
            if frame >= self._frame + frames:
                return
            try:
                port.write_midi_event(frame - self._frame, data)
            except self._error:  # the cycle's buffer is full: the rest goes with the next
                return
            self._sent_frame = frame
            self._note_down(data)
            queue.popleft()

    def send(self, message: Outgoing) -> None:
        """Take a message for its moment."""
        if self._lost is not None:
            raise PortLostError(self._lost)
        if len(self._queue) >= _MOST_QUEUED:
            self._lost = "JACK takes no messages any more"
            raise PortLostError(self._lost)
        self._queue.append((message.target_s, message.data))

    def check(self) -> str | None:
        """Raise if the server is gone."""
        if self._lost is not None:
            raise PortLostError(self._lost)
        return None

    def close(self, *, flush: bool = True) -> None:
        """Close, after what was sent is out."""
        until_s = now_s() + 0.5
        while flush and self._queue and self._lost is None and now_s() < until_s:
            time.sleep(0.005)
        if flush and self._lost is None:
            time.sleep(2 * self.lead_s)
        with contextlib.suppress(Exception):
            self._client.deactivate()
            self._client.close()
