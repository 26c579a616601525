"""The process that holds the input device and sends its blocks through a pipe; `live_input` runs it as a program.

It is a process of its own because PortAudio 19.6 cannot close a stream of a JACK server that has died: it waits for ten minutes
or aborts. Here that ends this process alone, and the next one gets a new list of devices. The audio callback also shares
Python's lock with no computation.

Standard output carries messages: one byte of kind, the length of the payload, the payload. ``J`` is a JSON object: `opened`,
`waiting`, `looking` (at each try), `failed`, `gone`, `devices`, or `callbacks` with the counts of their durations. ``B`` is a
block: its arrival, samples lost before it, flags, channels, float32 samples. The process closes the device and ends when
standard input ends.

`find_device` and `choose` find the device that a text names. PortAudio comes with sounddevice (the extra `live`),
imported when it is first needed. It freezes its list of devices when it is initialised; `rescan` makes a new one.
"""

import contextlib
import gc
import json
import os
import statistics
import struct
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import IO, Any, Literal

import numpy as np

from musichal.arrays import Float32
from musichal.errors import InputError, MissingExtraError, MusicHalError, install_hint
from musichal.live.input.blocks import Block, BlockQueue, Durations
from musichal.machine import end_with_stdin, now_s, own_output

Kind = Literal["input", "output"]
# Where a system offers one device several times, the way to it that is the most direct and still shares it comes first.
_HOST_APIS = ("Core Audio", "Windows WASAPI", "ASIO", "JACK Audio Connection Kit", "ALSA", "Windows DirectSound", "MME")
# PortAudio's error codes.
_WRONG_CHANNELS, _WRONG_RATE, _WRONG_DEVICE, _UNAVAILABLE, _HOST_ERROR = -9998, -9997, -9996, -9985, -9999
# What it says of an ALSA device that is gone, and on JACK where the server is.
_WRONG_COMBINATION, _NO_MEMORY = -9993, -9992


@dataclass(frozen=True)
class AudioDevice:
    """One direction of a sound device, as PortAudio numbers it."""

    number: int
    name: str
    host_api: str
    channels: int
    default_rate_hz: float
    is_default: bool

    @property
    def label(self) -> str:
        """Return name and host API, which identify the device."""
        return f"{self.name}, {self.host_api}"

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**vars(self), "label": self.label}


class NoSuchDeviceError(InputError):
    """The named device is not available."""


def portaudio() -> ModuleType:
    """Return sounddevice; raises `MissingExtraError` where it or its PortAudio library is missing."""
    try:
        import sounddevice
    except ImportError as error:
        raise MissingExtraError(f"sounddevice, for live sound, is not installed; {install_hint('live')}") from error
    except OSError as error:  # it is installed, and finds no library
        raise MissingExtraError(
            "the PortAudio library is not installed; Debian, Ubuntu: apt-get install libportaudio2;"
            " Fedora: dnf install portaudio (sounddevice brings it along on macOS and Windows)"
        ) from error
    except Exception as error:  # PortAudio itself failed to start
        raise InputError(f"PortAudio does not start here: {error}") from error
    return sounddevice


def rescan() -> None:
    """Make PortAudio list the devices anew. It closes every stream of this process."""
    sounddevice = portaudio()
    sounddevice._terminate()
    sounddevice._initialize()


def find_device(text: str | None = None, *, kind: Kind = "input") -> AudioDevice:
    """Return the device of a number, or with this text in its name (None: the system's default)."""
    return choose(list_devices(kind), text, what=f"audio {kind}")


def choose(devices: Sequence[AudioDevice], text: str | None, *, what: str) -> AudioDevice:
    """Return the device that `text` names: by number, whole name or label, or a part of one that fits no other.

    A device that is offered by several host APIs is taken from the best of them. `what` names the kind for the message. Raises
    `NoSuchDeviceError` where none matches; the message lists what there is; `InputError` where several match; the message lists
    them.
    """
    if text is None or not text.strip():
        defaults = [device for device in devices if device.is_default] or list(devices[:1])
        if not defaults:
            raise NoSuchDeviceError(f"no {what} is available. Is it plugged in, and may this program use it?")
        return defaults[0]
    wanted = text.strip().casefold()
    if wanted.isdecimal():
        for device in devices:
            if device.number == int(wanted):
                return device
    for matches in (
        [d for d in devices if d.label.casefold() == wanted],
        [d for d in devices if d.name.casefold() == wanted],
        [d for d in devices if wanted in d.label.casefold()],
    ):
        best = _of_the_best_host_api(matches)
        if len(best) == 1:
            return best[0]
        if best:
            raise InputError(f"{text.strip()!r} fits several devices: {_listed(best)}; give more of the name, or the number")
    raise not_there(devices, text.strip(), what=what)


def not_there(devices: Sequence[AudioDevice], name: str, *, what: str) -> NoSuchDeviceError:
    """Return the error for a device that is not available, with the list of those that are."""
    there = f"available: {_listed(devices)}" if devices else f"no {what} is available"
    if any(device.host_api == "ALSA" for device in devices):
        there += "; what another program holds for itself is not listed"
    return NoSuchDeviceError(f"no {what} {name!r}; {there}")


def why_not_opened(device: AudioDevice, channels: int, rate_hz: int, error: Exception) -> str:
    """Return in one line why PortAudio could not open a device, by the error that sounddevice raised, and what to do."""
    code = error.args[1] if len(error.args) > 1 else 0
    if code == _WRONG_RATE:
        return f"{device.label} does not run at {rate_hz} Hz (it says {device.default_rate_hz:.0f} Hz): set it to that rate"
    if code == _WRONG_CHANNELS:
        return f"{device.label} cannot be opened with {channels} channels: choose others"
    if code == _UNAVAILABLE:
        return f"{device.label} is busy: another program has it; close that one, or choose another device"
    if code == _NO_MEMORY and device.host_api.startswith("JACK"):
        return f"{device.label} and the sound server are no longer available. Restart the sound server"
    if code in (_WRONG_DEVICE, _HOST_ERROR, _WRONG_COMBINATION):
        detail = error.args[2][2] if len(error.args) > 2 else ""
        why = f" ({detail})" if detail and detail != "unknown error" else ""
        return f"{device.label} is no longer available, or the system keeps it{why}: plug it in again, or choose another device"
    return f"{device.label} cannot be opened: {error.args[0] if error.args else error}"


def _of_the_best_host_api(devices: Sequence[AudioDevice]) -> list[AudioDevice]:
    def rank(device: AudioDevice) -> int:
        return _HOST_APIS.index(device.host_api) if device.host_api in _HOST_APIS else len(_HOST_APIS)

    best = min(map(rank, devices), default=0)
    return [device for device in devices if rank(device) == best]


def _listed(devices: Sequence[AudioDevice]) -> str:
    return "; ".join(f"{device.number} {device.label}" for device in devices)


def list_devices(kind: Kind) -> list[AudioDevice]:
    """Return the input or output devices."""
    sounddevice = portaudio()
    host_apis = sounddevice.query_hostapis()
    # The default is that of the first host API that has one; PortAudio's own may have no device at all.
    default = sounddevice.default.device[0 if kind == "input" else 1]
    if default < 0:
        default = next((api[f"default_{kind}_device"] for api in host_apis if api[f"default_{kind}_device"] >= 0), -1)
    return [
        AudioDevice(
            number=device["index"],
            name=device["name"],
            host_api=host_apis[device["hostapi"]]["name"],
            channels=device[f"max_{kind}_channels"],
            default_rate_hz=device["default_samplerate"],
            is_default=device["index"] == default,
        )
        for device in sounddevice.query_devices()
        if device[f"max_{kind}_channels"] > 0
    ]


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
_AGES, _AGES_S, _LARGEST_AGE_S = 8, 0.5, 0.25
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
        self._ages_s: list[float] = []  # of the newest sample of a block
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
            return find_device(self._wanted)
        # The same one as before, whatever number it has now.
        devices, label = list_devices("input"), str(self._wanted)
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

        def callback(block: Float32, frames: int, times: Any, status: Any) -> None:
            # PortAudio's own times are wrong on JACK.
            self._last_s = now_s()
            if len(self._ages_s) < _AGES:
                self._ages_s.append(times.currentTime - times.inputBufferAdcTime - frames / rate_hz)
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
        capture_s = self._capture_s(device, float(stream.latency))
        opened = {
            **asdict(device),
            "sample_rate_hz": round(stream.samplerate),
            "opened_channels": channels,
            "capture_s": capture_s,
        }
        write_json(self._pipe, kind="opened", device=opened, block=self._block)
        return stream, blocks

    def _capture_s(self, device: AudioDevice, reported_s: float) -> float:
        """Return how old the newest sample of a block is when it arrives, by the system; 0 where it says nothing likely."""
        if device.host_api.startswith("JACK"):
            age_s = reported_s  # the port's latency, without the period that a block waits for its end
        else:
            until_s = now_s() + _AGES_S
            while len(self._ages_s) < _AGES and now_s() < until_s and not self._stop.is_set():
                self._stop.wait(0.01)
            age_s = statistics.median(self._ages_s) if self._ages_s else 0.0
        return age_s if 0 < age_s < _LARGEST_AGE_S else 0.0

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
    inputs, outputs = list_devices("input"), list_devices("output")
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
