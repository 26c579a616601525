"""Sound devices through PortAudio: list them, and find the one that a text names.

PortAudio comes with sounddevice, which is imported when it is first needed (the extra `live`). It freezes its list when it is
initialised; `rescan` makes a new one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from musichal.errors import InputError, MissingExtraError, install_hint

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


def list_inputs() -> list[AudioDevice]:
    """Return the input devices. Raises `MissingExtraError`."""
    return _devices("input")


def list_outputs() -> list[AudioDevice]:
    """Return the output devices. Raises `MissingExtraError`."""
    return _devices("output")


def find_input(text: str | None = None) -> AudioDevice:
    """Return the input of a number, or with this text in its name (None: the system's default).

    Raises `NoSuchDeviceError` where there is none, `InputError` where several match, `MissingExtraError` without PortAudio.
    """
    return choose(list_inputs(), text, what="audio input")


def find_output(text: str | None = None) -> AudioDevice:
    """Return the output of a number, or with this text in its name; raises as `find_input` does."""
    return choose(list_outputs(), text, what="audio output")


def choose(devices: Sequence[AudioDevice], text: str | None, *, what: str) -> AudioDevice:
    """Return the device that `text` names: by number, whole name or label, or a part of one that fits no other.

    A device that is offered by several host APIs is taken from the best of them. `what` names the kind for the message.

    Raises
    ------
    NoSuchDeviceError
        None matches; the message lists what there is.
    InputError
        Several match; the message lists them.
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


def _devices(kind: str) -> list[AudioDevice]:
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
