"""Devices that are listed and then cannot be opened: through PortAudio itself, over a real JACK server and over ALSA.

What happens between listing and opening is made to happen there: over JACK the process that holds the input waits in between
(`paused_input.py`); over ALSA, whose devices need hardware, a device of alsa-lib's own kind stands in for a sound card
(`stand_in_alsa.c`) and fails as the driver of one would. PortAudio, alsa-lib, JACK and our process are the real ones.
"""

import contextlib
import ctypes.util
import errno
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from jack_server import FakeMicrophone, JackServer
from musichal.errors import InputError
from musichal.live.input import live_input
from musichal.live.input.input_process import NoSuchDeviceError
from musichal.live.input.live_input import LiveInput, scan_devices
from musichal.live.output.scheduler import Scheduler
from musichal.live.output.scheduler_protocol import PortSettings

pytestmark = pytest.mark.live


@contextlib.contextmanager
def between_listing_and_opening(do: Callable[[], object], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Do something once the input's process has found its device and before it opens it."""
    monkeypatch.setattr(live_input, "MODULE", "paused_input")
    monkeypatch.setenv("PAUSED_INPUT", str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    done = threading.Event()

    def wait() -> None:
        until = time.monotonic() + 60
        while not (folder / "found").exists() and time.monotonic() < until:
            time.sleep(0.01)
        do()
        done.set()
        (folder / "go").touch()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        assert done.is_set()
    assert (folder / "found").exists()


@pytest.fixture
def tone(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "tone.wav", np.full(48_000, 0.1, np.float32), 48_000)
    return tmp_path / "tone.wav"


@pytest.mark.parametrize("how", ["kill", "close"])
def test_a_microphone_that_goes_before_it_is_opened(
    jack_server: JackServer, fake_microphone: Callable[..., FakeMicrophone], tone, tmp_path, monkeypatch, how
) -> None:
    microphone = fake_microphone(tone, loop=True)
    with (
        between_listing_and_opening(getattr(microphone, how), tmp_path, monkeypatch),
        pytest.raises(
            InputError, match=r"^fakemic, JACK Audio Connection Kit is no longer available, .*choose another device$"
        ),
        LiveInput("fakemic"),
    ):
        pass


def test_a_sound_server_that_dies_before_the_input_is_opened(
    jack_server: JackServer, fake_microphone: Callable[..., FakeMicrophone], tone, tmp_path, monkeypatch
) -> None:
    """PortAudio says "insufficient memory" to that."""
    fake_microphone(tone, loop=True)
    with (
        between_listing_and_opening(jack_server.kill, tmp_path, monkeypatch),
        pytest.raises(InputError, match=r"^fakemic, JACK Audio Connection Kit and the sound server are no longer available"),
        LiveInput("fakemic"),
    ):
        pass


class StandIn:
    """A sound card named Scarlett, and a file as a device named take, in an ALSA configuration of its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log, self._monkeypatch, self.take = folder / "opened", monkeypatch, folder / "take.raw"
        library = folder / "libstandin.so"
        source = Path(__file__).with_name("stand_in_alsa.c")
        compiler = shutil.which("cc") or shutil.which("gcc")
        assert compiler is not None
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-l:libasound.so.2"], check=True)
        self.take.write_bytes(bytes(48_000))
        hint = 'hint { show on description "for tests" }'
        (folder / ".asoundrc").write_text(
            f'pcm_type.stand_in {{ lib "{library}" open "_snd_pcm_stand_in_open" }}\n'
            f"pcm.Scarlett {{ type stand_in {hint} }}\n"
            f'pcm.take {{ type file slave.pcm "null" file "/dev/null" infile "{self.take}" format "raw" {hint} }}\n'
        )
        for name, value in {
            "HOME": str(folder),
            "STAND_IN_LOG": str(self.log),
            "JACK_NO_START_SERVER": "1",
            "JACK_DEFAULT_SERVER": "none",
        }.items():
            monkeypatch.setenv(name, value)
        self.fail_after(10_000, errno.ENODEV)

    def fail_after(self, opens: int, number: int) -> None:
        self.log.unlink(missing_ok=True)
        self._monkeypatch.setenv("STAND_IN_OPENS", str(opens))
        self._monkeypatch.setenv("STAND_IN_ERRNO", str(number))

    def names(self) -> list[str]:
        return [device.name for device in scan_devices().inputs]

    def opens_for_a_list(self) -> int:
        """Return how often PortAudio opens the device to list it."""
        self.log.unlink(missing_ok=True)
        assert "Scarlett" in self.names()
        return self.log.stat().st_size


@pytest.fixture
def alsa(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Set up the stand-in; skips where it cannot be built, or PortAudio does not use ALSA."""
    if not sys.platform.startswith("linux"):
        pytest.skip("ALSA is on Linux only")
    if not (shutil.which("cc") or shutil.which("gcc")):
        pytest.skip("there is no C compiler for the device that stands in for a sound card")
    for library in ("portaudio", "asound"):
        if ctypes.util.find_library(library) is None:
            pytest.skip(f"lib{library} is not installed (Debian: apt-get install libportaudio2)")
    found = StandIn(tmp_path, monkeypatch)
    if "Scarlett" not in found.names():
        pytest.skip("PortAudio finds no ALSA devices of this user's own here")
    return found


def test_a_device_that_is_taken_before_it_is_opened(alsa: StandIn) -> None:
    alsa.fail_after(alsa.opens_for_a_list(), errno.EBUSY)
    with (
        pytest.raises(InputError, match=r"^Scarlett, ALSA is busy: another program has it; close that one"),
        LiveInput("Scarlett"),
    ):
        pass


def test_a_device_that_is_unplugged_before_it_is_opened(alsa: StandIn) -> None:
    """PortAudio says "illegal combination of devices" to that."""
    alsa.fail_after(alsa.opens_for_a_list(), errno.ENODEV)
    with pytest.raises(InputError, match=r"^Scarlett, ALSA is no longer available, .*plug it in again"), LiveInput("Scarlett"):
        pass


def test_a_device_that_is_taken_is_not_listed_and_the_list_says_so(alsa: StandIn) -> None:
    """PortAudio opens a device to list it, and leaves out what it cannot open."""
    alsa.fail_after(0, errno.EBUSY)
    with (
        pytest.raises(NoSuchDeviceError, match=r"no audio input 'Scarlett'; available: .*take.*another program .* not listed"),
        LiveInput("Scarlett"),
    ):
        pass


def test_an_output_that_is_taken_before_it_is_opened(alsa: StandIn, trained_path: Path) -> None:
    alsa.fail_after(alsa.opens_for_a_list(), errno.EBUSY)
    with (
        pytest.raises(InputError, match="Scarlett, ALSA is busy: another program has it"),
        Scheduler([PortSettings("voice", f"slices:{trained_path}>Scarlett")]),
    ):
        pass


def test_a_file_that_stands_for_a_device_and_is_gone(alsa: StandIn, tmp_path, monkeypatch) -> None:
    with (
        between_listing_and_opening(alsa.take.unlink, tmp_path, monkeypatch),
        pytest.raises(InputError, match=r"^take, ALSA is no longer available"),
        LiveInput("take"),
    ):
        pass
