"""Live input over a real JACK server: what comes in, what is missing, and what is said about it."""

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from jack_server import FakeMicrophone, JackServer
from musichal.errors import InputError
from musichal.live.input import live_input
from musichal.live.input.blocks import Block
from musichal.live.input.input_process import NoSuchDeviceError
from musichal.live.input.live_input import InputEvent, LiveInput, parse_channels, scan_devices

pytestmark = pytest.mark.live

Plug = Callable[..., FakeMicrophone]


@pytest.fixture
def ramp(tmp_path: Path) -> Path:
    """Two seconds in which sample i has the value (i + 1) / 2**18: each one knows its place."""
    path = tmp_path / "ramp.wav"
    soundfile.write(path, ((np.arange(96_000) + 1) / 2**18).astype(np.float32), 48_000, subtype="FLOAT")
    return path


def collect(live: LiveInput, *, for_s: float = 30.0, until: Callable[[list[Block]], bool]) -> list[Block]:
    """Read until `until` holds; fails after `for_s`."""
    blocks: list[Block] = []
    end_s = time.monotonic() + for_s
    while not until(blocks):
        assert time.monotonic() < end_s, f"it did not come within {for_s} s; {len(blocks)} blocks came"
        live.wait(0.1)
        blocks += live.read()
    return blocks


def late_s(blocks: list[Block], rate_hz: int) -> float:
    """Return how late blocks came for their places, the least of them all: a machine that is busy makes some of them later."""
    return min(block.arrived_s - block.end_sample / rate_hz for block in blocks)


def heard(blocks: list[Block]) -> np.ndarray:
    return np.concatenate([block.samples for block in blocks] or [np.zeros(0, np.float32)])


@contextlib.contextmanager
def listening_to(microphone: FakeMicrophone) -> Iterator[tuple[LiveInput, list[InputEvent], list[Block]]]:
    """Give an input that hears the microphone, what happened so far, and the blocks up to its first sound."""
    events: list[InputEvent] = []
    with LiveInput("fakemic", on_event=events.append) as live:
        microphone.go()
        yield live, events, collect(live, until=lambda b: heard(b).any())


def test_every_sample_comes_in_once(jack_server: JackServer, fake_microphone: Plug, ramp: Path) -> None:
    microphone = fake_microphone(ramp, after_s=0.5)
    events: list[InputEvent] = []
    opened_s = time.monotonic()
    with LiveInput("fakemic", on_event=events.append) as live:
        assert live.sample_rate_hz == 48_000
        assert (live.device.name, live.device.channels) == ("fakemic", 1)
        started = microphone.go()
        blocks = collect(live, until=lambda b: bool(b) and not heard(b[-3:]).any() and heard(b).any())
        finished = microphone.wait_until_finished()
    for before, after in itertools.pairwise(blocks):
        assert after.first_sample == before.end_sample + after.lost_before
    assert events[0].kind == "opened"
    values = heard(blocks)
    if finished.xruns or live.xruns or jack_server.xruns():
        assert set((values * 2**18).tolist()) <= set(range(96_001)), "what came is of the file"
        assert blocks[-1].end_sample / 48_000 < time.monotonic() - opened_s, "no more is lost than there was"
    else:
        np.testing.assert_array_equal(values[values > 0] * 2**18, np.arange(96_000) + 1)
        assert live.lost_samples == 0
    # A block stands for the time before it arrived; the microphone's process tells when it handed the first sample over.
    first = next(block.first_sample + int(np.flatnonzero(block.samples)[0]) for block in blocks if block.samples.any())
    assert live.clock.time_of(first) == pytest.approx(started.monotonic_s - jack_server.period / 48_000, abs=0.05)


def test_channels_are_chosen(jack_server: JackServer, fake_microphone: Plug, tmp_path: Path) -> None:
    values = np.array([0.25, 0.5, -0.125], dtype=np.float32)
    soundfile.write(tmp_path / "three.wav", np.tile(values, (4800, 1)), 48_000, subtype="FLOAT")
    fake_microphone(tmp_path / "three.wav", loop=True).go()
    for channels, expected in [
        (None, (0.25 + 0.5) / 2),
        ((), (0.25 + 0.5 - 0.125) / 3),
        ((3,), -0.125),
        ((2, 3), (0.5 - 0.125) / 2),
    ]:
        with LiveInput(channels=channels) as live:  # the default input
            (block, *_) = collect(live, until=lambda b: bool(b) and b[-1].samples.any())[-1:]
        assert block.samples[-1] == pytest.approx(expected, abs=2**-23)
    with pytest.raises(InputError, match="has 3 channels: there is no channel 4"), LiveInput("fakemic", channels=(4,)):
        pass


@pytest.mark.parametrize(("text", "channels"), [("1", (1,)), ("1,2", (1, 2)), (" 3 , 1", (3, 1)), ("all", ())])
def test_channels_are_read(text: str, channels: tuple[int, ...]) -> None:
    assert parse_channels(text) == channels


@pytest.mark.parametrize("text", ["0", "", "1,1", "left", "1;2", "-1", "1,"])
def test_what_is_no_channel_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="channels are numbers from 1"):
        parse_channels(text)


def test_a_device_that_is_not_there(jack_server: JackServer, fake_microphone: Plug, ramp: Path) -> None:
    fake_microphone(ramp, name="left mic")
    fake_microphone(ramp, name="right mic")
    with (
        pytest.raises(NoSuchDeviceError, match=r"no audio input 'Scarlett'; available: .*left mic.*right mic"),
        LiveInput("Scarlett"),
    ):
        pass
    with pytest.raises(InputError, match=r"'mic' fits several devices: .*left mic.*right mic"), LiveInput("mic"):
        pass
    with LiveInput("LEFT") as live:
        assert live.device.name == "left mic"


def test_nothing_at_all(jack_server: JackServer) -> None:
    with pytest.raises(NoSuchDeviceError, match="no audio input is available"), LiveInput():
        pass
    assert not scan_devices().inputs
    assert [device.name for device in scan_devices().outputs] == ["system"]


def test_a_microphone_that_is_pulled_out_and_put_back(jack_server: JackServer, fake_microphone: Plug, ramp: Path) -> None:
    """On JACK the stream goes on with digital silence; it is noticed, the right one is taken again, and time goes on."""
    microphone = fake_microphone(ramp, loop=True)
    with listening_to(microphone) as (live, events, blocks):
        microphone.kill()
        blocks.extend(collect(live, until=lambda _: any(event.kind == "gone" for event in events)))
        assert not live.is_connected
        fake_microphone(ramp, loop=True).go()
        blocks.extend(collect(live, until=lambda b: heard(b).any()))
        assert live.is_connected
    _the_clock_was_kept(blocks, live, events)


def test_a_microphone_that_is_back_before_anyone_looked(jack_server: JackServer, fake_microphone: Plug, ramp: Path) -> None:
    """It is in the list again, and connected to nobody: that another stream hears it tells that ours was cut off."""
    microphone = fake_microphone(ramp, loop=True)
    with listening_to(microphone) as (live, events, blocks):
        microphone.kill()
        fake_microphone(ramp, loop=True).go()
        blocks.extend(collect(live, until=lambda _: any(event.kind == "returned" for event in events)))
        blocks.extend(collect(live, until=lambda b: heard(b).any()))
    _the_clock_was_kept(blocks, live, events)


def test_a_device_that_is_waited_for_is_not_there_and_what_is_there_is_listed(
    jack_server: JackServer, fake_microphone: Plug, ramp: Path
) -> None:
    microphone = fake_microphone(ramp, loop=True)
    fake_microphone(ramp, name="another")
    with listening_to(microphone) as (live, events, _):
        assert live._process is not None
        microphone.kill()
        live._process.kill()
        collect(live, until=lambda _: any(event.kind == "waiting" for event in events))
    said = [event.text for event in events if event.kind == "waiting"]
    assert len(said) == 1
    assert re.fullmatch(r"no audio input 'fakemic, JACK.*'; available: \d another, JACK.*", said[0])


def test_a_sound_server_that_dies_and_comes_back(jack_server: JackServer, fake_microphone: Plug, ramp: Path) -> None:
    """Closing its stream would hang for minutes or abort; here the process that holds it ends and another takes over."""
    microphone = fake_microphone(ramp, loop=True)
    with listening_to(microphone) as (live, events, blocks):
        jack_server.kill()
        blocks.extend(collect(live, until=lambda _: any(event.kind == "gone" for event in events)))
        microphone.kill()
        jack_server.start_again()
        fake_microphone(ramp, loop=True).go()
        blocks.extend(collect(live, until=lambda b: heard(b).any()))
    _the_clock_was_kept(blocks, live, events)


def test_a_process_that_hangs_while_it_looks_for_the_device(
    jack_server: JackServer, fake_microphone: Plug, ramp: Path, monkeypatch
) -> None:
    """PortAudio may hang over a sound server that dies meanwhile; another process takes its place."""
    monkeypatch.setattr(live_input, "_STUCK_S", 6.0)
    microphone = fake_microphone(ramp, loop=True)
    with listening_to(microphone) as (live, events, blocks):
        assert live._process is not None
        microphone.kill()
        live._process.kill()
        blocks.extend(collect(live, until=lambda _: any(event.kind == "waiting" for event in events)))
        stuck = live._process
        stuck.send_signal(signal.SIGSTOP)
        blocks.extend(collect(live, until=lambda _: stuck.poll() is not None))
        fake_microphone(ramp, loop=True).go()
        blocks.extend(collect(live, until=lambda b: heard(b).any()))
    _the_clock_was_kept(blocks, live, events)


def test_a_device_that_comes_back_at_another_rate(jack_server: JackServer, fake_microphone: Plug, ramp: Path) -> None:
    """What is heard has one rate from beginning to end: the device is waited for, and it is said which rate it needs."""
    microphone = fake_microphone(ramp, loop=True)
    with listening_to(microphone) as (live, events, blocks):
        jack_server.kill()
        microphone.kill()
        jack_server.start_again(rate_hz=44_100)
        soundfile.write(ramp.with_name("other.wav"), np.full(44_100, 0.1, np.float32), 44_100)
        microphone = fake_microphone(ramp.with_name("other.wav"), loop=True)
        blocks.extend(collect(live, until=lambda _: any("does not run at 48000 Hz" in event.text for event in events)))
        jack_server.kill()
        microphone.kill()
        jack_server.start_again(rate_hz=48_000)
        fake_microphone(ramp, loop=True).go()
        blocks.extend(collect(live, until=lambda b: heard(b).any()))
        assert live.sample_rate_hz == 48_000
    _the_clock_was_kept(blocks, live, events)


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)])
def test_an_input_process_that_is_killed_or_hangs(
    jack_server: JackServer, fake_microphone: Plug, ramp: Path, how: signal.Signals
) -> None:
    fake_microphone(ramp, loop=True).go()
    events: list[InputEvent] = []
    with LiveInput("fakemic", on_event=events.append) as live:
        blocks = collect(live, until=lambda b: heard(b).any())
        assert live._process is not None
        live._process.send_signal(how)
        blocks += collect(live, until=lambda b: any(block.lost_before for block in b))
    _the_clock_was_kept(blocks, live, events)


def _the_clock_was_kept(blocks: list[Block], live: LiveInput, events: list[InputEvent]) -> None:
    kinds = [event.kind for event in events]
    assert kinds.index("gone") < kinds.index("returned") < len(kinds) - kinds[::-1].index("lost")
    lost = sum(block.lost_before for block in blocks)
    assert lost == live.lost_samples > 0
    gaps = [number for number, block in enumerate(blocks) if block.lost_before]
    before, after = (late_s(part, live.sample_rate_hz) for part in (blocks[: gaps[0]], blocks[gaps[-1] :]))
    assert after == pytest.approx(before, abs=0.1)


def test_a_reader_that_is_too_slow_loses_sound_at_a_place(jack_server: JackServer, fake_microphone: Plug, ramp: Path) -> None:
    microphone = fake_microphone(ramp, loop=True)
    events: list[InputEvent] = []
    begun_s = time.monotonic()
    with LiveInput("fakemic", capacity_s=0.5, on_event=events.append) as live:
        microphone.go()
        time.sleep(2.0)  # nobody reads
        blocks = collect(live, until=lambda b: heard(b).size > 80_000 and b[-1].samples.all())  # time to find other losses
    waited_s = time.monotonic() - begun_s
    _losses_are_told_at_their_places(blocks, events)
    assert live.lost_samples > 48_000
    assert blocks[-1].end_sample / 48_000 < waited_s, "no more is lost than there was"
    behind = [event.at_sample for event in events if event.kind == "behind"]
    late = next(number for number, block in enumerate(blocks) if block.first_sample - block.lost_before in behind)
    assert len(set(behind)) == len(behind), "once for each place"
    if not (live.xruns or jack_server.xruns()):
        (first, *_), (*_, last) = blocks[late].samples * 2**18, blocks[late - 1].samples * 2**18
        assert (first - last - 1 - blocks[late].lost_before) % 96_000 == 0


def _losses_are_told_at_their_places(blocks: list[Block], events: list[InputEvent]) -> None:
    """What is missing before a block is what the events at its place say, whoever lost it."""
    told: Counter[int] = Counter()
    for event in events:
        told[event.at_sample] += event.lost_samples
    lost = {block.first_sample - block.lost_before: block.lost_before for block in blocks if block.lost_before}
    assert {place: samples for place, samples in told.items() if samples} == lost


def test_sound_that_the_server_lost_is_counted(jack_server: JackServer, fake_microphone: Plug, ramp: Path) -> None:
    """The server stands still for 0.3 s and takes nothing in; only the times of the blocks tell how much is missing."""
    microphone = fake_microphone(ramp, loop=True)
    events: list[InputEvent] = []
    with LiveInput("fakemic", on_event=events.append) as live:
        microphone.go()
        blocks = collect(live, until=lambda b: heard(b).size > 60_000 and b[-1].samples.all())
        jack_server.process.send_signal(signal.SIGSTOP)
        time.sleep(0.3)
        jack_server.process.send_signal(signal.SIGCONT)
        missing = 0.15 * 48_000  # a busy server may have lost a little before
        blocks += collect(live, until=lambda b: any(block.lost_before > missing for block in b) and b[-1].samples.all())
    assert "lost" in [event.kind for event in events]
    _losses_are_told_at_their_places(blocks, events)
    assert live.lost_samples == sum(block.lost_before for block in blocks)
    gap = next(number for number, block in enumerate(blocks) if block.lost_before > missing)
    assert late_s(blocks[gap:], 48_000) == pytest.approx(late_s(blocks[:gap], 48_000), abs=0.05)


def test_clipping_is_said(jack_server: JackServer, fake_microphone: Plug, tmp_path: Path) -> None:
    sound = np.clip(1.5 * np.sin(np.arange(48_000) * 0.02), -1, 1).astype(np.float32)
    soundfile.write(tmp_path / "loud.wav", sound, 48_000, subtype="FLOAT")
    microphone = fake_microphone(tmp_path / "loud.wav")
    events: list[InputEvent] = []
    with LiveInput("fakemic", on_event=events.append) as live:
        microphone.go()
        collect(live, until=lambda b: bool(b) and heard(b).any() and not b[-1].samples.any())
    assert [event.text for event in events if event.kind == "clipping"] == [f"{live.device.label} clips: turn its gain down"]
    assert live.level.peak_db <= 0.0


@pytest.mark.slow
def test_silence_is_said_once_and_sound_again(jack_server: JackServer, fake_microphone: Plug, ramp: Path) -> None:
    microphone = fake_microphone(ramp, before_s=24.0)
    events: list[InputEvent] = []
    with LiveInput("fakemic", on_event=events.append) as live:
        microphone.go()
        collect(live, for_s=60.0, until=lambda _: any(event.kind == "sound" for event in events))
    assert [event.kind for event in events if event.kind in ("silent", "sound")] == ["silent", "sound"]
    assert "digital silence" in next(event.text for event in events if event.kind == "silent")
    assert "gone" not in [event.kind for event in events]


def test_samples_that_are_no_numbers_are_heard_as_silence(
    jack_server: JackServer, fake_microphone: Plug, tmp_path: Path
) -> None:
    sound = np.full(9600, 0.25, np.float32)
    sound[100:200], sound[300] = np.nan, np.inf
    soundfile.write(tmp_path / "bad.wav", sound, 48_000, subtype="FLOAT")
    events: list[InputEvent] = []
    fake_microphone(tmp_path / "bad.wav", loop=True).go()
    with LiveInput("fakemic", on_event=events.append) as live:
        blocks = collect(live, until=lambda b: heard(b).size > 48_000)
    assert "broken" in [event.kind for event in events]
    assert set(np.unique(heard(blocks))) == {0.0, 0.25}


def test_when_its_program_is_killed_it_lets_the_device_go(jack_server: JackServer, fake_microphone: Plug, ramp: Path) -> None:
    import jack

    fake_microphone(ramp)
    code = (
        "from musichal.live.input.live_input import LiveInput\n"
        "with LiveInput('fakemic') as live:\n"
        "    print(live.device.name, flush=True)\n"
        "    while True: live.wait(1.0); live.read()\n"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    program = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environ)
    assert program.stdout is not None
    assert program.stdout.readline() == "fakemic\n"
    client = jack.Client("looking", servername=jack_server.name, no_start_server=True)
    try:
        assert client.get_ports("PortAudio", is_input=True)
        program.kill()
        program.wait()
        end_s = time.monotonic() + 15
        while client.get_ports("PortAudio", is_input=True):
            assert time.monotonic() < end_s, "the input's process is still there"
            time.sleep(0.05)
    finally:
        program.kill()
        program.stdout.close()
        client.close()


def test_nothing_is_left_behind(jack_server: JackServer, fake_microphone: Plug, ramp: Path) -> None:
    fake_microphone(ramp)
    with LiveInput("fakemic") as live:
        process = live._process
    assert process is not None
    assert process.poll() is not None
    with pytest.raises(ZeroDivisionError), LiveInput("fakemic") as live:
        raise ZeroDivisionError
    assert live._process is not None
    assert live._process.poll() is not None
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
