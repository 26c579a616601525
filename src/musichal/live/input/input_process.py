"""The process that holds the input device and sends its blocks through a pipe; `live_input` runs it as a program.

It is a process of its own because PortAudio 19.6 cannot close a stream of a JACK server that has died: it waits for ten minutes
or aborts. Here that ends this process alone, and the next one gets a new list of devices. The audio callback also shares
Python's lock with no computation.

Standard output carries messages: one byte of kind, the length of the payload, the payload. ``J`` is a JSON object: `opened`,
`waiting`, `looking` (at each try), `failed`, `gone`, `devices`, or `callbacks` with the counts of their durations. ``B`` is a
block: its arrival, samples lost before it, flags, channels, float32 samples. The process closes the device and ends when
standard input ends.
"""

import contextlib
import gc
import json
import os
import struct
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from typing import IO, Any

import numpy as np

from musichal.arrays import Float32
from musichal.errors import InputError, MissingExtraError, MusicHalError
from musichal.live.input.blocks import Block, BlockQueue, Durations
from musichal.live.input.devices import (
    AudioDevice,
    NoSuchDeviceError,
    find_input,
    list_inputs,
    list_outputs,
    not_there,
    portaudio,
    rescan,
    why_not_opened,
)
from musichal.machine import now_s
from musichal.own_process import end_with_stdin, own_output

MODULE = "musichal.live.input.input_process"
XRUN = 1
"""Flag of a block before which the system reported lost samples."""

_HEADER = struct.Struct("<cI")
_BLOCK = struct.Struct("<dqii")
_WAITING_S = 10.0
_LOOK_AGAIN_S = 1.0
_LOOK_TWICE_S = 0.3
_SILENT_CALLBACK_S = 1.0
_TELL_EVERY_S = 1.0
_CLOSE_S = 1.0
_PROBE_S = 0.5
_DEFAULT_BLOCK = 512

Message = dict[str, Any] | Block


def write_json(pipe: IO[bytes], **values: Any) -> None:
    """Send a JSON message."""
    payload = json.dumps(values).encode()
    pipe.write(_HEADER.pack(b"J", len(payload)) + payload)
    pipe.flush()


def write_block(pipe: IO[bytes], block: Block) -> None:
    """Send a block of shape (n, channels)."""
    payload = _BLOCK.pack(block.arrived_s, block.lost_before, block.flags, block.samples.shape[1]) + block.samples.tobytes()
    pipe.write(_HEADER.pack(b"B", len(payload)) + payload)


def read_message(pipe: IO[bytes]) -> Message | None:
    """Return the next message; None at the end of the pipe, also within a message."""
    header = pipe.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    kind, size = _HEADER.unpack(header)
    payload = pipe.read(size)
    if len(payload) < size:
        return None
    if kind == b"J":
        values: dict[str, Any] = json.loads(payload)
        return values
    arrived_s, lost, flags, channels = _BLOCK.unpack_from(payload)
    samples = np.frombuffer(payload, dtype=np.float32, offset=_BLOCK.size).reshape(-1, channels)
    return Block(samples, arrived_s, lost, flags=flags)


class _Process:
    """Holds the device from opening to the end of standard input."""

    def __init__(self, pipe: IO[bytes], *, device: str | None, channels: int | None, block: int, exactly: bool) -> None:
        self._pipe = pipe
        self._wanted = device
        self._exactly = exactly
        self._channels = channels  # None: the first two; 0: all
        self._block = block or _DEFAULT_BLOCK
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._last_s = 0.0
        self._took = Durations()
        end_with_stdin(self._end, patience_s=2 * _CLOSE_S)

    def run(self, *, wait: bool, rate_hz: int | None) -> None:
        """Open the device, after waiting for it if `wait`, and send its blocks until the end."""
        said, looked_twice = "", False
        while not self._stop.is_set():
            try:
                device = self._find()
                stream, blocks = self._open(device, rate_hz or round(device.default_rate_hz))
            except MissingExtraError:
                raise
            except InputError as error:
                # A sound server that is busy may not answer at once, and then its devices are not listed.
                if not wait and (looked_twice or not isinstance(error, NoSuchDeviceError)):
                    raise
                looked_twice = True
                if wait and str(error) != said:
                    said = str(error)
                    write_json(self._pipe, kind="waiting", text=said)
                write_json(self._pipe, kind="looking")  # or else it hangs
                self._stop.wait(_LOOK_AGAIN_S if wait else _LOOK_TWICE_S)
                with contextlib.suppress(MusicHalError):
                    rescan()
                continue
            self._send(stream, blocks)
            return

    def _find(self) -> AudioDevice:
        if not self._exactly:
            return find_input(self._wanted)
        # The same one as before, whatever number it has now.
        devices, label = list_inputs(), str(self._wanted)
        found = [device for device in devices if device.label == label]
        if not found:
            raise not_there(devices, label, what="audio input")
        return found[0]

    def _open(self, device: AudioDevice, rate_hz: int) -> tuple[Any, BlockQueue]:
        sounddevice = portaudio()
        channels = min(2, device.channels) if self._channels is None else self._channels or device.channels
        if channels > device.channels:
            has = "1 channel" if device.channels == 1 else f"{device.channels} channels"
            raise InputError(f"{device.label} has {has}: there is no channel {channels}")
        blocks = BlockQueue(round(_WAITING_S * rate_hz))

        def callback(block: Float32, _frames: int, _times: Any, status: Any) -> None:
            # PortAudio's own times are wrong on JACK.
            self._last_s = now_s()
            blocks.put(block.copy(), self._last_s, flags=XRUN if status.input_overflow else 0)
            self._wake.set()
            self._took.add(now_s() - self._last_s)

        self._last_s = now_s()
        try:
            stream = sounddevice.InputStream(
                device=device.number,
                channels=channels,
                samplerate=rate_hz,
                blocksize=self._block,
                dtype="float32",
                callback=callback,
                finished_callback=self._wake.set,
            )
            stream.start()
        except sounddevice.PortAudioError as error:
            raise InputError(why_not_opened(device, channels, rate_hz, error)) from error
        opened = {**asdict(device), "sample_rate_hz": round(stream.samplerate), "opened_channels": channels}
        write_json(self._pipe, kind="opened", device=opened, block=self._block)
        return stream, blocks

    def _send(self, stream: Any, blocks: BlockQueue) -> None:
        told_s = now_s()
        while not self._stop.is_set():
            self._wake.wait(0.2)
            self._wake.clear()
            while (block := blocks.get()) is not None:
                write_block(self._pipe, block)
            if now_s() - told_s > _TELL_EVERY_S:
                told_s = now_s()
                write_json(self._pipe, kind="callbacks", counts=self._took.counts)
            self._pipe.flush()
            if not stream.active or now_s() - self._last_s > _SILENT_CALLBACK_S:
                write_json(self._pipe, kind="gone", text="its callbacks stopped")
                return
        # A device that does not close must not keep this process.
        guard = threading.Timer(_CLOSE_S, os._exit, [0])
        guard.daemon = True
        guard.start()
        stream.abort()
        stream.close()

    def _end(self) -> None:
        self._stop.set()
        self._wake.set()


def gives_sound(device: AudioDevice, channels: Sequence[int]) -> bool:
    """Return whether a new stream of the device has anything but digital silence on `channels` (from 0) within `_PROBE_S`."""
    sounddevice = portaudio()
    heard = threading.Event()

    def callback(block: Float32, *_: Any) -> None:
        if block[:, channels].any():
            heard.set()

    try:
        stream = sounddevice.InputStream(
            device=device.number,
            channels=max(channels) + 1,
            samplerate=device.default_rate_hz,
            dtype="float32",
            callback=callback,
        )
        stream.start()
        heard.wait(_PROBE_S)
        stream.abort()
    except sounddevice.PortAudioError:
        return False
    return heard.is_set()


def _list(pipe: IO[bytes], label: str | None, channels: Sequence[int]) -> None:
    """Send the lists of devices, and whether a new stream of the input with this label has sound."""
    inputs, outputs = list_inputs(), list_outputs()
    heard = any(device.label == label and gives_sound(device, channels) for device in inputs)
    write_json(pipe, kind="devices", inputs=[asdict(d) for d in inputs], outputs=[asdict(d) for d in outputs], heard=heard)


def main(arguments: str) -> None:
    """Do what the JSON in `arguments` says, and write messages to standard output."""
    pipe = own_output(buffering=1 << 20)
    sys.setswitchinterval(0.0005)
    options = json.loads(arguments)
    try:
        if options.pop("list", False):
            _list(pipe, options.get("hear"), options.get("channels", ()))
        else:
            wait, rate_hz = options.pop("wait"), options.pop("rate_hz")
            gc.disable()
            _Process(pipe, **options).run(wait=wait, rate_hz=rate_hz)
    except MusicHalError as error:
        write_json(pipe, kind="failed", error=type(error).__name__, text=str(error))
    except BrokenPipeError:
        pass
    except Exception as error:
        write_json(pipe, kind="failed", error="InputError", text=f"the audio input failed: {type(error).__name__}: {error}")
    # Python would close PortAudio, which may abort.
    with contextlib.suppress(OSError):
        pipe.flush()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
