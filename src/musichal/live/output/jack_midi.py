"""MIDI ports of our own in JACK, through JACK-Client: each message out goes into the frame of its moment.

Conventions
-----------
JACK counts frames; a cycle begins at a frame, and our callback reads which, and how long ago that was. The map from seconds
to frames is the nominal rate through a point that follows these reports slowly, so that their jitter does not become ours.
A message is given to the port a little more than two cycles early; what comes too late for its frame leaves in the first
frame of the next cycle.
"""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from musichal.errors import InputError, MissingExtraError, install_hint
from musichal.live.output.ports import Port, PortLostError
from musichal.live.output.scheduler_protocol import Outgoing
from musichal.machine import now_s

_MOST_QUEUED = 4096
_MARGIN_S = 0.002
_WRAP = 2**32
_SLOWNESS, _JUMP_S = 64, 0.005
_SYSTEM_EXCLUSIVE, _ACTIVE_SENSING = 0xF0, 0xFE


class FrameClock:
    """Maps moments to the frames of a sound system, by following its reports slowly.

    `report` takes (frame of the cycle's start, its moment). The first reports are averaged, later ones move the map by
    1/`_SLOWNESS` of their distance, and one that is off by more than `_JUMP_S` (frames were lost) restarts it.
    """

    def __init__(self, rate_hz: float) -> None:
        self._rate_hz = rate_hz
        self._anchor, self._reports = (0, 0.0), 0

    def report(self, frame: int, moment_s: float) -> None:
        """Take the report that the cycle at `frame` began at `moment_s`."""
        before_frame, before_s = self._anchor
        expected_s = before_s + (frame - before_frame) / self._rate_hz
        off_s = moment_s - expected_s
        if self._reports and abs(off_s) > _JUMP_S:
            self._reports = 0
        self._reports = min(self._reports + 1, _SLOWNESS)
        # One assignment: another thread may be asking.
        self._anchor = frame, expected_s + off_s / self._reports if self._reports > 1 else moment_s

    def frame_at(self, moment_s: float) -> int:
        """Return the frame nearest to a moment."""
        frame, anchor_s = self._anchor
        return frame + round((moment_s - anchor_s) * self._rate_hz)


def _new_client(name: str) -> tuple[Any, Any]:
    """Return a client of a running JACK server, and the error that JACK raises."""
    try:
        import jack
    except ImportError as error:
        raise MissingExtraError(f"JACK MIDI needs JACK-Client: {install_hint('jack')}") from error
    except OSError as error:
        raise MissingExtraError(
            "JACK MIDI needs libjack (Debian: apt-get install libjack-jackd2-0; macOS: brew install jack)"
        ) from error
    try:
        return jack.Client(name, no_start_server=True), jack.JackError
    except jack.JackError as error:
        raise InputError("there is no JACK server; start jackd, or PipeWire with pw-jack") from error


def jack_ports(*, inputs: bool) -> list[str]:
    """Return the names of the MIDI ports in JACK: its inputs, which take messages, or its outputs."""
    client, _ = _new_client("MusicHal list")
    try:
        return [port.name for port in client.get_ports(is_midi=True, is_input=inputs, is_output=not inputs)]
    finally:
        client.close()


class JackInput:
    """A JACK client with one MIDI input, connected to the output `source` where one is named.

    Calls `take` with each message but system exclusive and active sensing, on JACK's thread. Raises as `JackPort` does.
    """

    def __init__(self, name: str, source: str | None, take: Callable[[Sequence[int]], None]) -> None:
        self._client, error = _new_client(name)
        self._take, self._source, self._error = take, source, error
        self._lost = False
        try:
            self._client.set_shutdown_callback(self._shut_down)
            self._port: Any = self._client.midi_inports.register("in")
            self._client.set_process_callback(self._process)
            self._client.activate()
            if source is not None:
                self._client.connect(source, self._port)
        except error as refused:
            self.close()
            raise InputError(f"cannot open the MIDI input {source or name}: {refused}") from refused

    def _shut_down(self, _status: object, _reason: str) -> None:
        self._lost = True

    def check(self) -> bool:
        """Return whether the source is there; one that is back is connected again."""
        if self._lost or self._source is None:
            return not self._lost
        try:
            if not any(port.name == self._source for port in self._client.get_all_connections(self._port)):
                self._client.connect(self._source, self._port)
        except self._error:  # it is gone, or not active yet
            return False
        return True

    def _process(self, _frames: int) -> None:
        for _, data in self._port.incoming_midi_events():
            message = bytes(data)
            if message and message[0] not in (_SYSTEM_EXCLUSIVE, _ACTIVE_SENSING):
                self._take(message)

    def close(self) -> None:
        """Leave JACK."""
        with contextlib.suppress(Exception):
            self._client.deactivate()
            self._client.close()


class JackPort(Port):
    """A JACK client with one MIDI output, connected to the input that has `target` in its name, where one is given."""

    def __init__(self, name: str, target: str | None = None) -> None:
        self._client, self._error = _new_client(name)
        self._queue: deque[tuple[float, bytes]] = deque()
        self._lost: str | None = None
        self._frame, self._last_frame_time, self._sent_frame = 0, None, 0
        self._clock = FrameClock(self._client.samplerate)
        self._on: set[bytes] = set()
        self._ends: deque[tuple[int, bytes]] = deque(maxlen=256)
        self._missed = False
        self._target: str | None = None
        self.lead_s = 2 * self._client.blocksize / self._client.samplerate + _MARGIN_S
        try:
            self._port: Any = self._client.midi_outports.register("out")
            self._client.set_process_callback(self._process)
            self._client.set_shutdown_callback(self._shut_down)
            self._client.set_xrun_callback(self._miss)
            self._client.activate()
            if target is not None:
                self._connect(target)
        except BaseException as error:
            self._client.close()
            if isinstance(error, self._error):
                raise InputError(f"cannot open the JACK MIDI port {name}: {error}") from error
            raise
        self.name = f"{self._target or f'{self._client.name}:out'} (JACK, exact to the frame)"

    def _connect(self, target: str) -> None:
        inputs = [port.name for port in self._client.get_ports(is_midi=True, is_input=True)]
        found = [n for n in inputs if n == target] or [n for n in inputs if target.casefold() in n.casefold()]
        if len(found) != 1:
            names = ", ".join(inputs) or "none"
            raise InputError(f"{len(found) or 'no'} JACK MIDI inputs have {target!r} in the name. Available: {names}")
        self._client.connect(self._port, found[0])
        self._target = found[0]

    def _shut_down(self, _status: object, reason: str) -> None:
        self._lost = f"the JACK server is gone ({reason})"

    def _miss(self, _delay_us: float) -> None:
        self._missed = True

    def _repair(self, frames: int) -> None:
        """Repeat the note-offs of the last cycles, where a cycle was missed: its messages may not have arrived."""
        ends = [data for frame, data in self._ends if frame >= self._frame - 4 * frames and data[:2] not in self._on]
        for data in ends:
            with contextlib.suppress(self._error):
                self._port.write_midi_event(0, data)

    def _note_down(self, data: bytes) -> None:
        """Keep the keys that are on, and the note-offs of the last cycles."""
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
        self._clock.report(self._frame, began_s)
        while queue:
            target_s, data = queue[0]
            # In order, whatever their moments: a note-off that is due at once may follow a note-on that is not yet.
            frame = max(self._clock.frame_at(target_s), self._sent_frame, self._frame)
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
            self._lost = "JACK does not take messages"
            raise PortLostError(self._lost)
        self._queue.append((message.target_s, message.data))

    def check(self) -> str | None:
        """Raise if the server is gone, or the input that it is connected to."""
        if self._lost is not None:
            raise PortLostError(self._lost)
        if self._target and not any(p.name == self._target for p in self._client.get_ports(is_midi=True, is_input=True)):
            raise PortLostError(f"{self._target} is gone")
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
