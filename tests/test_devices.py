"""Which device is meant, and what `musichal devices` says where there is much, little or nothing."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from jack_server import FakeMicrophone, JackServer
from musichal.errors import InputError
from musichal.live.input import input_process
from musichal.live.input.input_process import AudioDevice, NoSuchDeviceError, choose, why_not_opened

WASAPI, MME, ALSA = "Windows WASAPI", "MME", "ALSA"


def device(number: int, name: str, host_api: str = ALSA, *, is_default: bool = False) -> AudioDevice:
    return AudioDevice(number, name, host_api, 2, 48_000.0, is_default)


STUDIO = [
    device(0, "Scarlett 2i2 USB"),
    device(1, "Scarlett 18i20 USB"),
    device(4, "Built-in", is_default=True),
    device(7, "Loopback 4"),
]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (None, 4),
        ("", 4),
        ("2i2", 0),
        ("scarlett 18", 1),
        ("7", 7),
        ("4", 4),
        ("built-IN", 4),
        ("Scarlett 2i2 USB, ALSA", 0),
        ("loop", 7),
    ],
)
def test_the_one_that_is_meant(text: str | None, number: int) -> None:
    assert choose(STUDIO, text, what="audio input").number == number


def test_what_is_not_there_lists_what_is() -> None:
    with pytest.raises(
        NoSuchDeviceError, match=r"no audio input 'Apollo'; available: 0 Scarlett 2i2 USB, ALSA; 1 .*7 Loopback"
    ):
        choose(STUDIO, "Apollo", what="audio input")
    with pytest.raises(NoSuchDeviceError, match="no audio input '5'"):
        choose(STUDIO, "5", what="audio input")
    with pytest.raises(NoSuchDeviceError, match="no audio input is available"):
        choose([], "Apollo", what="audio input")
    with pytest.raises(NoSuchDeviceError, match="Is it plugged in"):
        choose([], None, what="audio input")


def test_what_fits_several_lists_those() -> None:
    with pytest.raises(
        InputError, match=r"'scarlett' fits several devices: 0 Scarlett 2i2 USB, ALSA; 1 Scarlett 18i20 USB, ALSA; give"
    ):
        choose(STUDIO, "scarlett", what="audio input")


def test_a_device_that_windows_offers_several_times_is_taken_by_its_best_way() -> None:
    offered = [device(0, "Scarlett 2i2", MME), device(9, "Scarlett 2i2", WASAPI), device(5, "Scarlett 2i2", "Windows WDM-KS")]
    assert choose(offered, "scarlett", what="audio input").number == 9
    assert choose(offered, "Scarlett 2i2, MME", what="audio input").number == 0
    assert choose(offered, "WDM-KS", what="audio input").number == 5


@given(st.lists(st.text(st.characters(exclude_categories=["C", "Z", "N"]), min_size=1), min_size=1, unique_by=str.casefold))
def test_a_whole_label_always_says_which(names: list[str]) -> None:
    devices = [device(number, name) for number, name in enumerate(names)]
    for one in devices:
        same = [other for other in devices if other.label.casefold() == one.label.casefold()]
        if len(same) == 1:
            assert choose(devices, one.label, what="audio input") == one
            assert choose(devices, str(one.number), what="audio input") == one


@pytest.mark.parametrize(
    ("error", "text"),
    [
        # As sounddevice raised them over JACK and ALSA.
        (("Error opening InputStream: Invalid sample rate", -9997), "does not run at 44100 Hz (it says 48000 Hz): set it"),
        (("Error opening InputStream: Device unavailable", -9985), "is busy: another program has it"),
        (("Error opening InputStream: Invalid number of channels", -9998), "cannot be opened with 2 channels"),
        (
            ("Error opening InputStream: Unanticipated host error", -9999, (2, -1, "unknown error")),
            "is no longer available, or",
        ),
        (("Error opening InputStream: Illegal combination of I/O devices", -9993), "is no longer available, or"),
        (("Error opening InputStream: Insufficient memory", -9992), "cannot be opened: Error opening"),
        (("something new",), "cannot be opened: something new"),
    ],
)
def test_why_a_device_does_not_open(error: tuple[object, ...], text: str) -> None:
    message = why_not_opened(device(0, "Scarlett"), 2, 44_100, Exception(*error))
    assert message.startswith("Scarlett, ALSA ")
    assert text in message
    assert "\n" not in message


def test_an_input_that_is_not_listed_is_looked_for_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sound server that is busy now and then does not answer PortAudio at once, and then its devices are not listed."""
    listed: list[list[AudioDevice]] = [[], STUDIO]
    looked: list[int] = []
    monkeypatch.setattr(input_process, "end_with_stdin", lambda *_args, **_options: None)
    monkeypatch.setattr(input_process, "rescan", lambda: looked.append(1))
    monkeypatch.setattr(input_process, "list_devices", lambda _kind: listed.pop(0))
    opened: list[AudioDevice] = []
    process = input_process._Process(io.BytesIO(), device="loop", exactly=False, channels=None, block=0)
    monkeypatch.setattr(process, "_open", lambda device, _rate: (opened.append(device), None))
    monkeypatch.setattr(process, "_send", lambda *_: None)
    process.run(wait=False, rate_hz=None)
    assert [one.number for one in opened] == [7]
    listed += [[], []]
    with pytest.raises(NoSuchDeviceError):
        process.run(wait=False, rate_hz=None)
    assert len(looked) == 2
    assert not listed


def run_devices(*arguments: str, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `musichal devices`; `site` is a folder whose sitecustomize.py every Python in it runs first."""
    paths = [str(site), *sys.path] if site else sys.path
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "COLUMNS": "200"}
    command = [sys.executable, "-m", "musichal", "devices", *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


def parts(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, object]]:
    assert done.returncode == 0, done.stderr
    return {part["name"]: part for part in json.loads(done.stdout)["parts"]}


def test_without_anything_installed_it_says_what_is_missing(tmp_path: Path) -> None:
    missing = ["sounddevice", "rtmidi", "rtmidi2", "jack", "fluidsynth", "aalink"]
    hidden = f"import sys\nsys.modules.update(dict.fromkeys({missing}))\n"
    (tmp_path / "sitecustomize.py").write_text(hidden)
    found = parts(run_devices("--json", site=tmp_path))
    assert [name for name, part in found.items() if part["works"]] == ["OSC"]
    assert '"musichal[live]"' in str(found["live sound"]["detail"])
    assert '"musichal[live]"' in str(found["MIDI ports"]["detail"])
    assert '"musichal[jack]"' in str(found["JACK MIDI, exact to the sample"]["detail"])
    words = run_devices(site=tmp_path)
    assert words.returncode == 0
    assert "Audio inputs: none" in words.stdout
    assert "pip install" in words.stdout
    assert words.stderr == ""


def test_without_the_portaudio_library_the_package_is_named(tmp_path: Path) -> None:
    pytest.importorskip("sounddevice", exc_type=OSError) if sys.platform == "linux" else pytest.skip("it comes along here")
    (tmp_path / "sitecustomize.py").write_text(
        "import ctypes.util\nfind = ctypes.util.find_library\n"
        "ctypes.util.find_library = lambda name: None if 'portaudio' in name.lower() else find(name)\n"
    )
    detail = str(parts(run_devices("--json", site=tmp_path))["live sound"]["detail"])
    assert "apt-get install libportaudio2" in detail


@pytest.mark.live
def test_with_a_sound_server_everything_is_listed(
    jack_server: JackServer, fake_microphone: Callable[..., FakeMicrophone], tmp_path: Path
) -> None:
    import jack

    soundfile.write(tmp_path / "x.wav", np.zeros((10, 2), np.float32), jack_server.rate_hz)
    fake_microphone(tmp_path / "x.wav", name="amp")
    client = jack.Client("knobs", servername=jack_server.name, no_start_server=True)
    client.midi_outports.register("out")
    with client:
        done = run_devices("--json")
        words = run_devices().stdout
    found = parts(done)
    assert found["live sound"] == {"name": "live sound", "works": True, "detail": "1 input, 1 output"}
    assert found["MIDI by JACK"] == {"name": "MIDI by JACK", "works": True, "detail": "0 outputs, 1 input"}
    assert json.loads(done.stdout)["midi_inputs"] == [{"system": "JACK", "name": "knobs:out"}]
    (amp,) = json.loads(done.stdout)["inputs"]
    assert (amp["name"], amp["channels"], amp["default_rate_hz"], amp["is_default"]) == ("amp", 2, 48_000, True)
    assert "amp" in words
    assert "knobs:out" in words
    assert "48000 Hz" in words
