"""The live input: mono blocks from any sound device, with their positions, lost samples and moments.

    with LiveInput("Scarlett", channels=(1,)) as live:
        listener = Listener(spec, encoder, vocabularies, source_rate_hz=live.sample_rate_hz)
        while playing:
            live.wait(0.1)
            for block in live.read():
                ...

A process of its own holds the device (`input_process`). When the device or the process goes, a new process waits for the same
device, and the stream goes on at the position that the time says: what is missing counts as lost. So does sound that a device
loses without a report; it shows in the arrivals of the blocks.
"""

import contextlib
import json
import queue
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any, Self

import numpy as np

from musichal.audio.levels import LevelMeter, Levels
from musichal.audio.recording import ingest
from musichal.errors import InputError, MissingExtraError, MusicHalError
from musichal.live.input.blocks import Block, BlockQueue, ClockFit, quantile_ms
from musichal.live.input.input_process import MODULE, XRUN, AudioDevice, NoSuchDeviceError, read_message
from musichal.machine import command, end_reader, now_s, starting_children

Channels = tuple[int, ...] | None
"""The channels whose mean is heard, counted from 1. Empty: all. None: the first two, or the only one."""

CAPACITY_S = 30.0
_REOPENED = 2  # flag of the first block of a new process
_OPEN_S = 20.0
_HUNG_S, _STUCK_S = 4.0, 15.0
_CLOSE_S = 2.0
_AGAIN_S = 1.0
# Blocks that are all this late for half a second, or for a second if the system did not report it, mean lost sound.
_LOST_S, _LOST_BLOCKS, _LOST_BLOCKS_TOLD = 0.004, 0.75, 0.5
_TOLD_WINDOWS = 2  # the window in which it happened has blocks from before
_SILENT_DB, _SILENT_S = -70.0, 10.0
_UNPLUGGED_S, _LOOK_S = 1.5, 5.0
_CLIPPING_AGAIN_S = 30.0  # without clipping
_LEVEL_S = 0.1
_SCAN_S = 20.0


@dataclass(frozen=True)
class InputEvent:
    """An event of the input for the player.

    `kind` is ``opened``, ``gone``, ``waiting``, ``returned``, ``lost`` (samples are missing), ``behind`` (samples are missing
    because they were not read in time), ``clipping``, ``silent``, ``sound`` (after silence), or ``broken`` (non-finite samples
    were replaced by 0). `at_sample` is the position, `lost_samples` the number of samples missing there.
    """

    kind: str
    text: str
    at_sample: int
    lost_samples: int = 0


@dataclass(frozen=True)
class Scan:
    """The audio devices of the system at one moment."""

    inputs: tuple[AudioDevice, ...]
    outputs: tuple[AudioDevice, ...]


def scan_devices() -> Scan:
    """List the devices in a process of its own, whatever this process has open; raises `MissingExtraError`."""
    message = _ask_for_devices({})
    inputs, outputs = (tuple(AudioDevice(**device) for device in message[kind]) for kind in ("inputs", "outputs"))
    return Scan(inputs, outputs)


def _ask_for_devices(options: dict[str, Any]) -> dict[str, Any]:
    process = _start({"list": True, **options})
    guard = threading.Timer(_SCAN_S, process.kill)
    guard.start()
    try:
        assert process.stdout is not None
        message = read_message(process.stdout)
    finally:
        guard.cancel()
        _end(process)
    if not isinstance(message, dict):
        raise InputError("the sound system does not answer: no list of devices came")
    if message["kind"] == "failed":
        raise _error(message)
    return message


def parse_channels(text: str) -> tuple[int, ...]:
    """Return the channels of a text such as ``1``, ``1,2`` or ``all``; raises `InputError` for any other."""
    if text.strip().casefold() == "all":
        return ()
    parts = [part.strip() for part in text.split(",")]
    numbers = [int(part) for part in parts if part.isdecimal()]
    if len(numbers) != len(parts) or min(numbers) < 1 or len(set(numbers)) != len(numbers):
        raise InputError(f"channels are numbers from 1, as in 1 or 1,2, or 'all'; got {text!r}")
    return tuple(numbers)


class LiveInput:
    """The `Source` of a sound device; it is open inside its context.

    * `device`: Number or (part of the) name; None means the system's default input.
    * `channels`: See `Channels`.
    * `block_samples`: Size of the device's blocks; 0 means 512.
    * `capacity_s`: How much sound waits for the reader before samples are lost.
    * `on_event`: Callback for each `InputEvent`. Called from `read` and `wait`, i.e. on the reader's thread.
    * `clock`: Maps positions to moments, once the input is open.
    * `level`: The latest tenth of a second; replaced as a whole, for any thread.
    * `capture_s`: How long before its arrival a sample was at the converter, as far as the system says, once the input is
      open.
    * `xruns`, `lost_samples`: Blocks before which the system reported lost samples; samples missing so far.

    Notes
    -----
    `read` and `wait` belong to one thread. On JACK a client that vanishes leaves digital silence only, and one that comes back
    is not connected again: where a new stream has sound and ours has none, ours is opened anew.
    """

    def __init__(
        self,
        device: str | None = None,
        *,
        channels: Channels = None,
        block_samples: int = 0,
        capacity_s: float = CAPACITY_S,
        on_event: Callable[[InputEvent], None] | None = None,
    ) -> None:
        if channels and min(channels) < 1:
            raise InputError("channels are counted from 1")
        self.clock: ClockFit
        self._queue: BlockQueue
        self.level = LevelMeter().take()
        self.xruns = self.lost_samples = 0
        self.capture_s = 0.0
        self._wanted = device
        self._channels = channels
        self._block_samples = block_samples
        self._capacity_s = capacity_s
        self._on_event = on_event
        self._device: AudioDevice | None = None
        self._rate_hz = 0
        self._opened_channels = 0
        self._closing = threading.Event()
        self._arrived = threading.Event()
        self._answers: queue.SimpleQueue[MusicHalError | None] = queue.SimpleQueue()
        self._events: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._process: subprocess.Popen[bytes] | None = None
        self._callbacks: list[int] = []
        self._is_open = False
        self._last_block_s = self._last_message_s = 0.0
        self._thread = threading.Thread(target=self._keep_open, name="audio input", daemon=True)
        # The reader's own.
        self._position = 0
        self._told_windows = 0
        self._was_late = False
        self._meter, self._level_meter = LevelMeter(), LevelMeter()
        self._levelled_s = 0.0
        self._zero_s = self._quiet_s = 0.0
        self._is_silent = self._is_broken = False
        self._clipped_s = -_CLIPPING_AGAIN_S
        self._look: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Open the device.

        Raises `InputError` where the device is not there, not unique, busy, or does not open; one line that says which and what
        to do; `MissingExtraError` without sounddevice or PortAudio.
        """
        self._thread.start()
        try:
            error = self._answers.get(timeout=_OPEN_S)
        except queue.Empty:
            error = InputError(f"the audio input did not open within {_OPEN_S:g} s")
        except BaseException:
            self._close()
            raise
        if error is not None:
            self._close()
            raise error
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    @property
    def device(self) -> AudioDevice:
        """Return the device that was opened."""
        assert self._device is not None, "the input is not open"
        return self._device

    @property
    def sample_rate_hz(self) -> int:
        """Return the rate of the samples: that of the device when it was opened."""
        assert self._rate_hz, "the input is not open"
        return self._rate_hz

    def callback_ms(self, share: float) -> float | None:
        """Return the duration in ms that `share` of the audio callbacks did not exceed; None before it is known."""
        return quantile_ms(self._callbacks, share)

    @property
    def is_connected(self) -> bool:
        """Return whether the device is available now."""
        return self._is_open

    def wait(self, timeout_s: float) -> bool:
        """Wait until blocks can be read, at most `timeout_s`; return whether they can."""
        self._arrived.clear()
        self._look_after()
        if len(self._queue):
            return True
        self._arrived.wait(timeout_s)
        return bool(len(self._queue))

    def read(self) -> list[Block]:
        """Return what arrived since the last call, one block up to each place where samples are missing. Never waits."""
        self._look_after()
        runs: list[list[Block]] = []
        while (block := self._queue.get()) is not None:
            lost = self._missing_before(block)
            block = replace(block, lost_before=lost, first_sample=self._position + lost)
            self._position = block.end_sample
            if lost or not runs:
                runs.append([])
            runs[-1].append(block)
        return [self._mono(run) for run in runs]

    # The reader's thread --------------------------------------------------------------------------------------------------

    def _mono(self, run: list[Block]) -> Block:
        """Return adjacent blocks as one, mono and finite; measure its level."""
        raw = run[0].samples if len(run) == 1 else np.concatenate([block.samples for block in run])
        if self._channels:
            raw = raw[:, [channel - 1 for channel in self._channels]]
        bad = ~np.isfinite(raw)
        if bad.any():
            raw = np.where(bad, np.float32(0), raw)
            if not self._is_broken:
                self._tell("broken", f"{self.device.label} delivered non-finite samples; replaced by silence")
        self._is_broken = bool(bad.any())
        mono = ingest(raw)
        self._meter.see(raw, mono)
        self._level_meter.see(raw, mono)
        self._judge(self._meter.take())
        arrived_s = run[-1].arrived_s
        if arrived_s - self._levelled_s >= _LEVEL_S:
            self._levelled_s, self.level = arrived_s, self._level_meter.take()
        return Block(mono, arrived_s, run[0].lost_before, run[0].first_sample)

    def _judge(self, levels: Levels) -> None:
        """Warn of clipping and of silence, once for each time."""
        now_s = self._position / self._rate_hz
        duration_s = levels.samples / self._rate_hz
        if levels.clipped:
            before_s, self._clipped_s = self._clipped_s, now_s
            if now_s - before_s >= _CLIPPING_AGAIN_S:
                self._tell("clipping", f"{self.device.label} clips: turn its gain down")
        self._zero_s = self._zero_s + duration_s if levels.peak == 0 else 0.0
        self._quiet_s = self._quiet_s + duration_s if levels.peak_db < _SILENT_DB else 0.0
        if self._quiet_s >= _SILENT_S and not self._is_silent:
            self._is_silent = True
            what = "has only digital silence" if self._zero_s >= _SILENT_S else f"is silent (below {_SILENT_DB:.0f} dBFS)"
            self._tell("silent", f"{self.device.label} {what}: is the right input chosen, plugged in and turned up?")
        elif self._is_silent and not self._quiet_s:
            self._is_silent = False
            self._tell("sound", f"{self.device.label} has sound again (peak {levels.peak_db:.0f} dBFS)")
        if self._zero_s >= _UNPLUGGED_S and self._look is None:
            # Digital silence is all that shows that a JACK client is gone.
            self._look = threading.Thread(target=self._watch_for_return, daemon=True)
            self._look.start()
        elif not self._zero_s:
            self._look = None

    def _watch_for_return(self) -> None:
        me, process = threading.current_thread(), self._process
        while self._look is me and self._process is process and not self._closing.is_set():
            with contextlib.suppress(MusicHalError):
                if self._is_cut_off():
                    if self._look is me and self._process is process and process is not None:
                        process.kill()
                    break
            self._closing.wait(_LOOK_S)
        if self._look is me:
            self._look = None

    def _is_cut_off(self) -> bool:
        """Return whether the device is gone, or, on JACK, gives sound to a newer stream than ours."""
        label = self.device.label
        chosen = [channel - 1 for channel in self._channels or range(1, self._opened_channels + 1)]
        on_jack = self.device.host_api.startswith("JACK")
        found = _ask_for_devices({"hear": label, "channels": chosen} if on_jack else {})
        return bool(found["heard"]) or all(AudioDevice(**device).label != label for device in found["inputs"])

    def _missing_before(self, block: Block) -> int:
        """Return how many samples are missing before a block: those that were counted, and those that its arrival shows."""
        rate = self._rate_hz
        lost = block.lost_before
        end = self._position + lost + len(block.samples)
        if lost:
            self._tell("behind", f"{lost / rate:.2f} s of sound are lost: they were not read in time", lost)
        if block.flags & XRUN:
            self.xruns += 1
            self._told_windows = _TOLD_WINDOWS
        if block.flags & _REOPENED and self._position:
            gap = max(0, round(self.clock.position_at(block.arrived_s)) - end)
            self.clock.restart(end + gap, block.arrived_s)
            self._tell("lost", f"{gap / rate:.2f} s of sound are missing while {self.device.label} was away", gap)
            self._zero_s = 0.0
        else:
            gap = self._gap(block, end)
        self.lost_samples += lost + gap
        return lost + gap

    def _gap(self, block: Block, end: int) -> int:
        """Return how many samples the device lost without counting them, from the arrivals of the blocks."""
        block_s = len(block.samples) / self._rate_hz
        told = self._told_windows > 0
        limit_s = block_s * _LOST_BLOCKS_TOLD if told else max(_LOST_S, block_s * _LOST_BLOCKS)
        late_s = self.clock.observe(end, block.arrived_s, hold_above_s=limit_s)
        if late_s is None:
            return 0
        self._told_windows = max(0, self._told_windows - 1)
        was_late, self._was_late = self._was_late, late_s >= limit_s
        if not self._was_late or not (told or was_late):
            return 0
        # Positions count lost samples, so the clock holds: the block only has a later position.
        self._was_late = False
        gap = round(late_s * self._rate_hz)
        said = "reported an xrun" if told else "did not report it"
        self._tell("lost", f"{1000 * late_s:.0f} ms of sound were lost by {self.device.label}, which {said}", gap)
        return gap

    def _look_after(self) -> None:
        while not self._events.empty():
            self._tell(*self._events.get())
        process = self._process
        if process is None or self._device is None:
            return
        # A process that hangs is killed, and the thread starts another; one that looks for its device has more time.
        if now_s() - (self._last_block_s if self._is_open else self._last_message_s) > (_HUNG_S if self._is_open else _STUCK_S):
            process.kill()

    def _tell(self, kind: str, text: str, lost_samples: int = 0) -> None:
        if self._on_event is not None:
            self._on_event(InputEvent(kind, text, self._position, lost_samples))

    # The thread that keeps the device open --------------------------------------------------------------------------------

    def _keep_open(self) -> None:
        try:
            while not self._closing.is_set():
                failed = self._run_process()
                if self._closing.is_set():
                    return
                if self._device is None:
                    self._answers.put(failed or InputError("the audio input ended while it was opened"))
                    return
                if failed is not None:
                    self._events.put(("waiting", str(failed)))
                self._closing.wait(_AGAIN_S)
        except Exception as error:  # the thread would end without a trace
            self._answers.put(InputError(f"the audio input failed: {type(error).__name__}: {error}"))
            self._events.put(("gone", f"the audio input failed: {type(error).__name__}: {error}"))

    def _run_process(self) -> MusicHalError | None:
        """Run one process from its start to its end; return why it could not open the device, if it said so."""
        again = self._device is not None
        first = len(self._channels) and max(self._channels) if self._channels is not None else None
        process = self._process = _start(
            {
                "device": self._device.label if self._device else self._wanted,
                "exactly": again,
                "channels": self._opened_channels if again else first,
                "block": self._block_samples,
                "wait": again,
                "rate_hz": self._rate_hz or None,
            }
        )
        self._last_message_s = now_s()
        failed: MusicHalError | None = None
        flags = _REOPENED if again else 0
        try:
            assert process.stdout is not None
            while not self._closing.is_set():
                message = read_message(process.stdout)
                if message is None:
                    break
                self._last_message_s = now_s()
                if isinstance(message, Block):
                    flags |= message.flags
                    self._queue.put(message.samples, message.arrived_s, lost_before=message.lost_before, flags=flags)
                    self._last_block_s, flags = now_s(), 0
                    self._arrived.set()
                elif message["kind"] == "opened":
                    self._take(message["device"])
                elif message["kind"] == "failed":
                    failed = _error(message)
                elif message["kind"] == "callbacks":
                    self._callbacks = message["counts"]
                elif message["kind"] == "waiting":
                    self._events.put(("waiting", message["text"]))
        finally:
            _end(process)
        if self._is_open and self._device is not None and not self._closing.is_set():
            self._is_open = False
            self._events.put(("gone", f"{self._device.label} is gone: waiting for it to come back"))
            self._arrived.set()
        return failed

    def _take(self, opened: dict[str, Any]) -> None:
        rate_hz, channels, capture_s = (opened.pop(name) for name in ("sample_rate_hz", "opened_channels", "capture_s"))
        device = AudioDevice(**opened)
        if self._device is None:
            self._device, self._rate_hz, self._opened_channels = device, rate_hz, channels
            self.capture_s = capture_s
            self._queue, self.clock = BlockQueue(round(self._capacity_s * rate_hz)), ClockFit(rate_hz)
            self._events.put(("opened", f"listening to {device.label} at {rate_hz} Hz"))
            self._answers.put(None)
        else:
            self._device = device
            self._events.put(("returned", f"{device.label} is back"))
        self._last_block_s = now_s()
        self._is_open = True

    def _close(self) -> None:
        self._closing.set()
        end_reader(self._thread, lambda: self._process, patience_s=2 * _CLOSE_S, killed_s=_CLOSE_S)
        self._is_open = False


def _start(options: dict[str, Any]) -> subprocess.Popen[bytes]:
    with starting_children():
        return subprocess.Popen(  # noqa: S603 - our own module
            command(MODULE, json.dumps(options)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let a process close its device; kill it if it does not."""
    pipes: Sequence[IO[bytes] | None] = (process.stdin, process.stdout)
    with contextlib.suppress(OSError):
        if process.stdin is not None:
            process.stdin.close()
    try:
        process.wait(_CLOSE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in pipes:
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _error(message: dict[str, Any]) -> MusicHalError:
    kinds = {"MissingExtraError": MissingExtraError, "NoSuchDeviceError": NoSuchDeviceError}
    return kinds.get(message["error"], InputError)(message["text"])
