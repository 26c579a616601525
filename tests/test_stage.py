"""What goes wrong on a stage, tried with a real JACK server, a shell in a pseudo terminal, and a disk that fills up."""
# ruff: noqa: F811 - fixtures of another file

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import mido
import pytest

from benchmarks.jack_midi import JackReceiver, wait_for
from jack_server import JackServer
from musichal.live.session.session import read_session
from test_play_live import playing, take  # noqa: F401 - a fixture

pytestmark = pytest.mark.live
BASH, MOUNT, UMOUNT = (shutil.which(name) or name for name in ("bash", "mount", "umount"))
PLAY = ("--set", "rest_below=0.02")
SOON_S = 20.0
"""How long a busy machine may take for what takes a free one two seconds to tell, and five to play."""


class Shell:
    """A shell in a pseudo terminal, with job control; keeps what is on its screen, without colours and moves."""

    def __init__(self, **environment: str) -> None:
        self._ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        self.process = subprocess.Popen(
            [BASH, "--norc", "--noprofile", "-i"], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env={**os.environ, "TERM": "xterm", "PS1": "$ ", **environment},
            preexec_fn=lambda: fcntl.ioctl(theirs, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - one line
        )  # fmt: skip
        os.close(theirs)
        self.text = ""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self._ours, 65_536):
                self.text += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode(errors="replace"))

    def type(self, text: str) -> int:
        """Type a text; return how long the screen's text was before."""
        before = len(self.text)
        os.write(self._ours, text.encode())
        return before

    def wait(self, words: str, since: int = 0, timeout_s: float = 60.0) -> None:
        """Wait until some words are on the screen."""
        began = time.monotonic()
        while words not in self.text[since:]:
            assert time.monotonic() - began < timeout_s, f"{words!r} is not in {self.text[since:][-2000:]!r}"
            time.sleep(0.02)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


@pytest.fixture
def shell() -> Iterator[Shell]:
    shell = Shell()
    yield shell
    shell.close()


def plays(receiver: JackReceiver, timeout_s: float = SOON_S) -> bool:
    """Return whether a new note is struck."""
    before = len(receiver.messages())
    return wait_for(lambda: any(m.data[0] & 0xF0 == 0x90 for m in receiver.messages()[before:]), timeout_s)


def test_the_board_and_the_keys_survive_ctrl_z(
    jack_server: JackServer,
    fake_microphone,
    take,
    trained_path,
    shell,
    tmp_path,
) -> None:
    microphone = fake_microphone(take, loop=True)
    session = tmp_path / "tonight"
    with JackReceiver() as receiver:
        shell.type(
            f"{sys.executable} -m musichal play {trained_path} --input fakemic --midi-out jack:MusicHal --session {session}"
            " --set rest_below=0.02\n"
        )
        shell.wait("? keys")
        receiver.connect("MusicHal")
        microphone.go()
        shell.wait("PLAYS", timeout_s=20)
        shell.wait("good")
        before = shell.type("z")
        shell.wait("the key 'z' does nothing", before, SOON_S)
        before = shell.type("?")
        shell.wait("Backspace", before, SOON_S)
        before = shell.type(" ")
        shell.wait("PAUSED", before, SOON_S)
        assert wait_for(lambda: not receiver.sounding(), 5)
        before = shell.type(" ")
        shell.wait("goes on", before, SOON_S)
        assert plays(receiver)
        before = shell.type("\x1a")
        shell.wait("Stopped", before)
        time.sleep(3)
        before = shell.type("fg\n")
        shell.wait("slept or stood still", before, SOON_S)
        assert plays(receiver)
        before = shell.type("m")
        shell.wait("MUTED", before, SOON_S)
        before = shell.type("q")
        shell.wait("press q again to end", before, SOON_S)
        before = shell.type("q")
        shell.wait("Played", before)
        shell.wait("$ ", before)
    for line in shell.text.replace("\r", "\n").splitlines():
        if "more at least" in line or "PLAYS" in line or "level  " in line:
            assert len(line.rstrip()) <= 60, line
    assert read_session(session).recovered == ()


def test_losses_are_told_once_with_the_remedy_and_jack_dies_and_comes_back(
    jack_server: JackServer, fake_microphone, take, trained_path
) -> None:
    microphone = fake_microphone(take, loop=True)
    microphone.go()
    with playing(trained_path, "--input", microphone.name, "--midi-out", "none:", *PLAY, "--json") as concert:
        concert.wait_to_hear("MusicHal listens to")
        time.sleep(3)
        for _ in range(10):
            jack_server.process.send_signal(signal.SIGSTOP)
            time.sleep(0.12)
            jack_server.process.send_signal(signal.SIGCONT)
            time.sleep(0.3)
        concert.wait_to_hear("raise the period", timeout_s=SOON_S)
        told = [line for line in concert.said if "raise the period" in line]
        jack_server.kill()
        concert.wait_to_hear("is gone", timeout_s=SOON_S)
        time.sleep(2)
        jack_server.start_again()
        fake_microphone(take, loop=True).go()
        concert.wait_to_hear("is back", timeout_s=SOON_S)
        summary = json.loads(concert.end())
    assert summary["gaps"] >= 3
    assert len(told) == 1
    assert "--block 512" in told[0]
    assert summary["lost_samples"] > 48_000


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes a small disk")
def test_a_full_disk_keeps_the_midi_and_says_so(
    jack_server: JackServer,
    fake_microphone,
    take,
    trained_path,
    tmp_path,
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run([MOUNT, "-t", "tmpfs", "-o", "size=700k", "none", disk], check=False, capture_output=True).returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        microphone = fake_microphone(take, loop=True)
        microphone.go()
        with playing(
            trained_path, "--input", microphone.name, "--midi-out", "none:", "--session", disk / "s", *PLAY, "--json",
        ) as concert:  # fmt: skip
            concert.wait_to_hear("MusicHal listens to")
            concert.wait_to_hear("the disk is full", timeout_s=30)
            _fill(disk / "more")
            time.sleep(8)
            summary = json.loads(concert.end())
        assert "the answer is whole in" in "".join(concert.said)
        kept = Path(summary["reply"])
        struck = [m for track in mido.MidiFile(kept).tracks for m in track if m.type == "note_on" and m.velocity]
        assert len(struck) > 0.8 * summary["notes"] > 0
        assert read_session(disk / "s").reply is None
        if kept.parent != disk / "s":
            kept.unlink()
    finally:
        subprocess.run([UMOUNT, disk], check=False)


def _fill(path: Path) -> bool:
    """Fill a disk to its end."""
    with contextlib.suppress(OSError), path.open("wb") as stream:
        while True:
            stream.write(bytes(4096))
            stream.flush()
    return True


def test_it_stands_still_goes_on_and_starts_again_after_a_kill(
    jack_server: JackServer, fake_microphone, take, trained_path, tmp_path
) -> None:
    microphone = fake_microphone(take, loop=True)
    microphone.go()
    wanted = [trained_path, "--input", microphone.name, "--midi-out", "jack:MusicHal", *PLAY]
    with JackReceiver() as receiver:
        with playing(*wanted, "--session", tmp_path / "one") as concert:
            concert.wait_to_hear("MusicHal listens to")
            receiver.connect("MusicHal")
            assert plays(receiver, 30)
            concert.process.send_signal(signal.SIGSTOP)
            time.sleep(3)
            assert not receiver.sounding(), "no note hangs while it stands still"
            concert.process.send_signal(signal.SIGCONT)
            concert.wait_to_hear("slept or stood still", timeout_s=SOON_S)
            assert plays(receiver)
            concert.end(signal.SIGKILL)
            assert wait_for(lambda: not receiver.sounding(), 5)
        found = read_session(tmp_path / "one")
        assert found.input_samples > 48_000
        with playing(*wanted, "--session", tmp_path / "two") as concert:
            concert.wait_to_hear("MusicHal listens to")
            receiver.connect("MusicHal")
            assert plays(receiver, 30)
            concert.end()


def test_a_partner_that_is_moved_while_it_plays_is_told_of(
    jack_server: JackServer, fake_microphone, take, trained_path, tmp_path
) -> None:
    partner = tmp_path / "mine.hal"
    shutil.copy(trained_path, partner)
    microphone = fake_microphone(take, loop=True)
    microphone.go()
    form = tmp_path / "form.toml"
    sections = '[[section]]\nname = "one"\nfrom = 0\nmode = "mirror"\n[[section]]\nname = "two"\nfrom = 2\n'
    form.write_text(f'end = "0:06"\nfade_s = 1\n{sections}')
    with playing(partner, "--input", microphone.name, "--midi-out", "none:", *PLAY, "--form", form) as concert:
        concert.wait_to_hear("section 1 of 2: one")
        partner.rename(tmp_path / "yours.hal")
        concert.wait_to_hear("was moved or removed: what plays is what was loaded", timeout_s=SOON_S)
        assert wait_for(lambda: "the form is over: it plays no more" in "".join(concert.said), 30)
        concert.end()
    assert "section 2 of 2: two" in "".join(concert.said)
