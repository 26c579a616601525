"""`musichal play` as a process, in a real JACK server, to a real receiver: what a concert would do to it."""

import contextlib
import json
import queue
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import mido
import numpy as np
import pytest
import soundfile
import soxr
from typer.testing import CliRunner

from benchmarks.jack_midi import JackReceiver, wait_for
from jack_server import JackServer
from midi_notes import read_midi_notes
from midi_receiver import MidiSender, minds
from musichal.cli import app
from musichal.errors import InputError
from musichal.live.input.osc import osc_message, read_datagram
from musichal.live.session.event_log import Changed, Ended, Marked, Perceived, Staged
from musichal.live.session.session import read_session
from test_slices_port import FeatureExtractor

pytestmark = pytest.mark.live


DUO = "[voice.melody]\nport = 'none:'\n[voice.bass]\nport = 'none:'\nchannel = 2\n"


@pytest.fixture(scope="module")
def take(tmp_path_factory, short_guitar) -> Path:
    samples, rate = soundfile.read(short_guitar, dtype="float32")
    path = tmp_path_factory.mktemp("take") / "take.wav"
    soundfile.write(path, soxr.resample(samples[: 8 * rate], rate, 48_000), 48_000, subtype="PCM_16")
    return path


class Playing:
    """A `musichal play` in a process of its own; what it says on its error stream is read as it comes."""

    def __init__(self, *arguments: object, command: str = "play") -> None:
        command_line = [sys.executable, "-m", "musichal", command, *map(str, arguments)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command_line, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True)
        self.said: list[str] = []
        self._lines: queue.Queue[str] = queue.Queue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            self._lines.put(line)

    def wait_to_hear(self, words: str, timeout_s: float = 60.0) -> str:
        until = time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(queue.Empty):
                line = self._lines.get(timeout=0.2)
                if words in line:
                    return line
            assert time.monotonic() < until, f"not said: {words!r}; said: {''.join(self.said)}"
            assert self.process.poll() is None or not self._lines.empty(), "".join(self.said)

    def end(self, number: int = signal.SIGINT, timeout_s: float = 60.0) -> str:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        assert self.process.stdout is not None
        self.process.wait(timeout_s)
        self._thread.join(5)
        return self.process.stdout.read()


@contextlib.contextmanager
def playing(*arguments: object, command: str = "play") -> Iterator[Playing]:
    running = Playing(*arguments, command=command)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()


def replayed(session: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "musichal", "replay", str(session), "--json"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_a_concert_with_everything_and_its_replay(  # noqa: PLR0915 - one long evening
    jack_server: JackServer, fake_microphone, take, trained_path, tmp_path
) -> None:
    """Control by OSC, a partner file that is replaced, a second instance, Ctrl-C; the same MIDI from the replay."""
    partner = tmp_path / "partner.hal"
    shutil.copy(trained_path, partner)
    microphone = fake_microphone(take, loop=True)
    listen, session = free_port(), tmp_path / "session"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control, JackReceiver() as receiver:
        control.bind(("127.0.0.1", 0))
        control.settimeout(10)
        to = ("127.0.0.1", listen)
        wanted = [
            partner, "--input", microphone.name, "--midi-out", "jack:MusicHal", "--json", "--set", "rest_below=0.02",
            "--osc", f"{listen}:{control.getsockname()[1]}",
        ]  # fmt: skip
        with playing(*wanted, "--session", session) as concert:
            concert.wait_to_hear("MusicHal listens to")
            receiver.connect("MusicHal")
            microphone.go()
            assert wait_for(lambda: len(receiver.messages()) > 20, 40)
            control.sendto(osc_message("/musichal/temperature", [0.5]), to)
            control.sendto(osc_message("/musichal/no_such_setting", [1]), to)
            heard: dict[str, int] = {}
            error = ""
            until = time.monotonic() + 20
            while time.monotonic() < until and not (error and {"tokens", "decision", "statistics"} <= heard.keys()):
                for address, arguments in read_datagram(control.recv(65_536)):
                    name = address.removeprefix("/musichal/")
                    heard[name] = heard.get(name, 0) + 1
                    if name == "error":
                        error = str(arguments[0])
            assert "no_such_setting" in error
            assert {"tokens", "decision", "statistics"} <= heard.keys()

            second = Playing(*wanted)  # the port is taken
            second.process.wait(60)
            second.end()
            assert second.process.returncode == 2
            assert "cannot listen for OSC" in second.said[-1]
            assert len(second.said) == 1
            free = [argument if not str(argument).startswith(f"{listen}:") else f"{free_port()}" for argument in wanted]
            with playing(*free, "--session", tmp_path / "other") as other:
                other.wait_to_hear("MusicHal listens to")

                shutil.copy(trained_path, tmp_path / "new.hal")
                (tmp_path / "new.hal").replace(partner)  # the same: nothing to say
                with partner.open("ab") as stream:
                    stream.write(b"another")
                concert.wait_to_hear("was replaced while playing")
                control.sendto(osc_message("/musichal/mute", [1]), to)
                concert.wait_to_hear("muted")
                assert wait_for(lambda: not receiver.sounding(), 5)
                control.sendto(osc_message("/musichal/mute", [0]), to)
                concert.wait_to_hear("no longer muted")
                control.sendto(osc_message("/musichal/panic"), to)
                concert.wait_to_hear("panic")
                other.end()
                assert other.process.returncode == 0
            summary = json.loads(concert.end())
        assert concert.process.returncode == 0
        assert wait_for(lambda: not receiver.sounding(), 5)
        assert minds(receiver) == []
    assert summary["partner_replaced"]
    assert summary["segments"] > 3
    assert summary["osc"]["received"] >= 5
    entries = read_session(session).entries
    assert isinstance(entries[-1], Ended)
    assert {"temperature": 0.5} in [e.changes for e in entries if isinstance(e, Changed)]
    assert [e.control for e in entries if isinstance(e, Staged)] == ["mute", "unmute", "panic"]
    shutil.copy(trained_path, partner)
    again = replayed(session)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["identical"]


def test_killed_in_the_middle_it_leaves_no_note_and_a_session_that_opens(
    jack_server: JackServer, fake_microphone, take, trained_path, tmp_path
) -> None:
    microphone, session = fake_microphone(take, loop=True), tmp_path / "session"
    with JackReceiver() as receiver, playing(
        trained_path, "--input", microphone.name, "--midi-out", "jack:MusicHal", "--session", session,
        "--set", "rest_below=0.02",
    ) as concert:  # fmt: skip
        concert.wait_to_hear("MusicHal listens to")
        receiver.connect("MusicHal")
        started = microphone.go()
        assert wait_for(lambda: len(receiver.messages()) > 10 and receiver.sounding(), 40)
        played_s = time.monotonic() - started.monotonic_s
        concert.end(signal.SIGKILL)
        assert wait_for(lambda: not receiver.sounding(), 5)
        assert minds(receiver) == []
    found = read_session(session)
    assert found.reply is None
    assert any("was ended while it played" in sentence for sentence in found.recovered)
    assert found.input_samples / 48_000 > played_s - 1.0
    again = replayed(session)
    assert again.returncode == 0, again.stderr
    result = json.loads(again.stdout)
    assert result["identical"]
    assert result["segments_heard"] == sum(isinstance(e, Perceived) for e in found.entries)


@pytest.mark.parametrize("attempt", [0, 1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3, 4))])
def test_ctrl_c_at_any_time_ends_every_note_and_leaves_a_whole_session_or_none(
    jack_server: JackServer, fake_microphone, take, trained_path, tmp_path, attempt
) -> None:
    """The moments are random, from the first import to the middle of the music; twice it is pressed twice."""
    moment_s = random.Random(attempt).uniform(*[(0.5, 2.0), (2.0, 4.0), (3.0, 6.0), (0.5, 8.0), (5.0, 9.0)][attempt])  # noqa: S311
    microphone, session = fake_microphone(take, loop=True), tmp_path / "session"
    with JackReceiver() as receiver, playing(
        trained_path, "--input", microphone.name, "--midi-out", "jack:MusicHal", "--session", session,
        "--set", "rest_below=0.02",
    ) as concert:  # fmt: skip
        microphone.go()
        began = time.monotonic()
        with contextlib.suppress(InputError):
            receiver.connect("MusicHal", timeout_s=moment_s)
        time.sleep(max(0.0, began + moment_s - time.monotonic()))
        if attempt % 2:
            concert.process.send_signal(signal.SIGINT)
            time.sleep(0.05)
        concert.end()
        assert wait_for(lambda: not receiver.sounding(), 5)
        assert minds(receiver) == []
    assert concert.process.returncode in (0, 130, -signal.SIGINT)
    if session.exists():
        found = read_session(session)
        assert found.recovered == ()
        assert found.reply is not None
        assert replayed(session).returncode == 0
    else:
        assert concert.process.returncode != 0


_INTERRUPTED_AT = """
import os, signal, sys
from musichal import cli
from musichal.live import live_performance as live
name = sys.argv.pop(1)
made = getattr(live, name)
def interrupted(*args, **kwargs):
    thing = made(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGINT)
    return thing
setattr(live, name, interrupted)
cli.main()
"""


@pytest.mark.parametrize("what", ["Partner", "LiveSessionWriter", "AnalysisThread"])
def test_ctrl_c_while_it_makes_itself_ready_leaves_a_whole_session_or_none(
    jack_server: JackServer, fake_microphone, take, trained_path, tmp_path, what
) -> None:
    fake_microphone(take)
    session = tmp_path / "session"
    command = [sys.executable, "-c", _INTERRUPTED_AT, what, "play", str(trained_path), "--input", "fakemic"]
    command += ["--midi-out", "none:", "--session", str(session), "--for", "30s"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == (0 if session.exists() else 130), done.stderr
    if session.exists():
        assert read_session(session).recovered == ()
        assert replayed(session).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--input", "Scarlett"], ["no audio input 'Scarlett'", "available:", "fakemic"]),
        (["--input", "fakemic", "--midi-out", "IAC Bus 1"], ["IAC Bus 1"]),
        (["--input", "fakemic", "--session", "."], ["is not empty"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_is_refused_in_one_line_before_a_sound(
    jack_server: JackServer, fake_microphone, take, trained_path, tmp_path, arguments, words
) -> None:
    fake_microphone(take)
    (tmp_path / "something").write_text("mine")
    command = [sys.executable, "-m", "musichal", "play", str(trained_path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    for word in words:
        assert word in done.stderr
    assert {p.name for p in tmp_path.iterdir()} - {"something"} <= {p.name for p in tmp_path.glob("*.log")}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--midi-out", "a", "--voices", "v.toml"], ["--voices names its ports itself"]),
        (["--control-in", "no such", "--map", "missing.toml"], ["missing.toml", "no such file"]),
        (["--map", "map.toml"], ["--control-in"]),
        (["--channel", "0"], ["channels are numbers from 1"]),
        (["--for", "soon"], ["--for must be a time"]),
        (["--osc", "70000"], ["--osc must be ports"]),
        (["--picture", "x.png"], ["--picture is only for a recording"]),
        (["--input", "missing.wav", "--midi-out", "x.mid"], ["missing.wav", "no such file"]),
        (["--input", "a/mic", "--midi-out", "x.mid"], ["a/mic", "no such file"]),
        (["--input", "a.wav", "--for", "3s"], ["--for is only for live input"]),
        (["--audio-out", "x.wav"], ["--audio-out default"]),
        (["--voices", "{duo}", "--set", "voices=melody,chords"], ["duo.toml", "'chords'", "[voice.chords]"]),
        (["--voices", "{tenor}"], ["tenor.toml", "unknown voice 'tenor'", "all, melody, bass, chords"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_the_command_line_cannot_mean_is_refused_without_a_device(
    trained_path, tmp_path, tmp_path_factory, monkeypatch, arguments, words
):
    tables = tmp_path_factory.mktemp("tables")
    for name, text in {"duo": DUO, "tenor": "[voice.tenor]\nport = 'none:'\n"}.items():
        (tables / f"{name}.toml").write_text(text)
    arguments = [argument.format(duo=tables / "duo.toml", tenor=tables / "tenor.toml") for argument in arguments]
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["play", str(trained_path), *arguments])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    for word in words:
        assert word in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_a_midi_system_it_plays_and_says_what_it_does_instead(
    jack_server: JackServer, fake_microphone, take, trained_path, tmp_path
) -> None:
    """JACK can be reached here, so `none:` stands for its absence; a MIDI file is written as well as anywhere."""
    microphone = fake_microphone(take, loop=True)
    microphone.go()
    out, session = tmp_path / "reply.mid", tmp_path / "take"
    options = ("--midi-out", out, "--session", session, "--for", "3s", "--json", "--set", "rest_below=0.02")
    with playing(trained_path, "--input", microphone.name, *options) as concert:
        summary = json.loads(concert.end(signal.SIGCONT))
    assert concert.process.returncode == 0, concert.said
    assert 3.0 <= summary["duration_s"] < 30.0
    assert np.isfinite(summary["hearing_p50_ms"])
    # The file has the session's clock, and no track that is empty.
    live, kept = read_midi_notes(out), read_midi_notes(session / "reply.mid")
    assert [n.pitch for n in live[:3]] == [n.pitch for n in kept[:3]]
    assert [n.onset_s for n in live[:3]] == pytest.approx([n.onset_s for n in kept[:3]], abs=0.05)
    assert all(any(m.type == "note_on" for m in track) for track in mido.MidiFile(out).tracks[1:])


def test_a_table_of_voices_says_which_play_and_one_that_it_lacks_is_told_of_while_playing(
    jack_server: JackServer, fake_microphone, take, trained_path, tmp_path
) -> None:
    microphone, session, listen = fake_microphone(take, loop=True), tmp_path / "session", free_port()
    microphone.go()
    (tmp_path / "duo.toml").write_text(DUO)
    with playing(
        trained_path, "--input", microphone.name, "--voices", tmp_path / "duo.toml", "--osc", listen, "--session", session,
        "--set", "rest_below=0.02",
    ) as concert:  # fmt: skip
        concert.wait_to_hear("MusicHal listens to")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            control.sendto(osc_message("/musichal/voices", ["melody,chords"]), ("127.0.0.1", listen))
        concert.wait_to_hear("the voice 'chords' has no route in the table of voices")
        concert.end()
    assert concert.process.returncode == 0, concert.said
    settings = json.loads((session / "settings.json").read_text())
    assert [voice["name"] for voice in settings["partner"]["voices"]] == ["melody", "bass"]


def test_slices_of_the_partner_are_heard_live(jack_server: JackServer, fake_microphone, take, trained_path) -> None:
    microphone = fake_microphone(take, loop=True)
    wanted = [trained_path, "--input", microphone.name, "--sound", "slices", "--set", "rest_below=0.02"]
    with FeatureExtractor() as ear, playing(*wanted, "--json") as concert:
        assert f"slices of {trained_path}" in concert.wait_to_hear("plays to")
        ear.listen_to("PortAudio")
        assert not ear.heard().any()
        microphone.go()
        assert wait_for(lambda: bool(np.abs(ear.heard()[-9600:]).max(initial=0.0) > 0.01), 30.0)
        summary = json.loads(concert.end())
    assert concert.process.returncode == 0, concert.said
    assert summary["plays"] > 0


def test_a_controller_that_is_missing_keeps_nothing_from_starting_and_is_taken_up_when_it_comes(
    jack_server: JackServer, fake_microphone, take, trained_path, tmp_path
) -> None:
    microphone, session = fake_microphone(take, loop=True), tmp_path / "session"
    (tmp_path / "map.toml").write_text(
        '[[cc]]\ncontroller = 20\ncommand = "pause"\n[[cc]]\ncontroller = 21\ncommand = "mark"\n'
    )
    with playing(
        trained_path, "--input", microphone.name, "--midi-out", "none:", "--session", session,
        "--control-in", "knobs", "--map", tmp_path / "map.toml",
    ) as concert:  # fmt: skip
        concert.wait_to_hear("It plays without it, and takes it up when it appears")
        with MidiSender("knobs") as out:
            concert.wait_to_hear("knobs is there: it is taken up")
            out.send(0xB0, 20, 127)
            concert.wait_to_hear("paused")
        concert.wait_to_hear("knobs is gone")
        with MidiSender("knobs") as out:
            concert.wait_to_hear("knobs is there")
            out.send(0xB0, 21, 127)
            concert.wait_to_hear("mark 1 at")
        concert.end()
    assert concert.process.returncode == 0, concert.said
    assert sum(isinstance(entry, Marked) for entry in read_session(session).entries) == 1
