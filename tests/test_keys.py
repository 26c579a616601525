"""Keys at a terminal, and what a player sees there and elsewhere."""

import io
import os
import queue
import sys

import pytest
from rich.console import Console

from musichal.audio.levels import Levels
from musichal.commands.live import Board, Display, keys_to
from musichal.commands.terminal import Terminal, keys
from musichal.live.control import KEYS, Command, key_command


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo terminals are POSIX")
def test_single_keys_arrive_and_the_terminal_is_as_before():
    import termios

    ours, theirs = os.openpty()
    with os.fdopen(theirs, "r") as terminal:
        before = termios.tcgetattr(terminal)
        with keys(terminal) as poll:
            assert poll(0.0) == ""
            os.write(ours, b"m")
            assert poll(5.0) == "m"
            os.write(ours, b" p")
            assert poll(5.0) == " p"
            os.write(ours, b"\x1b[A")
            assert poll(5.0) == "", "an arrow is no Escape"
            os.write(ours, b"\x1b")
            assert poll(5.0) == "\x1b"
        assert termios.tcgetattr(terminal) == before
    os.close(ours)
    assert {KEYS[key] for key in ("m", " ", "\x7f", "\x1b")} == {"mute", "pause", "panic", "quit"}


def test_keys_ask_for_commands():
    modes = ["shadow", "mirror"]
    assert key_command("1", modes) == Command("mode", "shadow")
    assert key_command("2", modes) == Command("mode", "mirror")
    assert key_command("0", modes) == Command("mode", "auto")
    assert key_command("3", modes) is None
    assert key_command("²", modes) is None
    assert key_command("M", modes) == Command("mute", None)
    assert key_command("+", modes) == Command("more_like_this", True)
    assert key_command(" ", modes) == Command("pause", None)
    assert key_command("\x7f", modes) == Command("panic", True)
    assert key_command("x", modes) is None


def test_without_a_terminal_there_is_only_the_waiting():
    with keys(io.StringIO("qqq")) as poll:
        assert poll(0.01) == ""


@pytest.mark.parametrize("terminal", [True, False])
def test_what_happened_is_seen(terminal):
    err = Console(file=io.StringIO(), force_terminal=terminal, width=250, height=30)
    board = Board()
    voice = Terminal(Console(file=io.StringIO()), err)
    with Display(
        board,
        lambda: Levels(1, 10 ** (-3 / 20), 0.0, 0.0, 10 ** (-12 / 10), 0.0, 0),
        voice,
        title="MusicHal listens to [mic]",
        modes=["shadow", "[ghost]"],
    ) as display:
        board.statistics({"time_s": 12.0, "tokens_per_s": 148.0, "skipped": 3, "notes": 7, "muted": True})
        board.event(1.5, "lost", "0.5 s of the input were [lost]")
        board.event(1.6, "link", "Link: 2 peers, 97.0 beats per minute")
        for k in range(8):
            board.event(2.0 + k, "control", f"setting_{k} 1")
        for k in range(8):
            board.event(10.0 + k, "control", f"temperature 0.{k}")
        board.event(20.0, "lost", "0.5 s of the input were [lost]")
        display.update()
    text = err.file.getvalue()
    for words in ("MusicHal listens to [mic]", "0.5 s of the input were [lost]", "148 tokens/s", "3 segments skipped", "MUTED"):
        assert words in text
    assert "Link: 2 peers, 97.0 beats per minute" in text, "the board keeps it when other news has come"
    assert "temperature 0.6" not in text, "of a fader that moves, where it is"
    assert "0:17.00 temperature 0.7" in text
    assert ("dBFS" in text) == ("1 to 2 shadow, [ghost]" in text) == terminal


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo terminals are POSIX")
def test_a_key_becomes_a_command_though_nobody_asks(monkeypatch):
    """Keys are read beside the display: a tap is put when it is pressed."""
    ours, theirs = os.openpty()
    put: queue.SimpleQueue[Command] = queue.SimpleQueue()
    with os.fdopen(theirs, "r") as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        with keys_to(put.put, ["shadow"]):
            for key in (b"t", b"1", b"x", b"t"):
                os.write(ours, key)
            assert [put.get(timeout=5.0) for _ in range(3)] == [
                Command("tap", True),
                Command("mode", "shadow"),
                Command("tap", True),
            ]
    os.close(ours)
