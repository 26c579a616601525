"""Keys at a terminal, and what a player sees there and elsewhere."""

import io
import os
import queue
import sys
import time
from types import SimpleNamespace

import pytest
from rich.console import Console

from musichal.audio.levels import LevelMeter
from musichal.commands.board import WIDTH, Board, Display
from musichal.commands.play import keys_to
from musichal.commands.terminal import RETAKEN, Terminal, keys
from musichal.live.control import KEYS, Command, key_command
from musichal.live.stage import Stage, StageState
from musichal.partner.decision import Decision
from musichal.partner.explanation import PartnerStatus
from musichal.partner.form import FormPlace
from partners_by_hand import played, rested


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
    assert key_command("-", modes) == Command("less_like_this", True)
    assert key_command(" ", modes) == Command("pause", None)
    assert key_command("\x7f", modes) == Command("panic", True)
    assert key_command("x", modes) is None


def test_without_a_terminal_there_is_only_the_waiting():
    with keys(io.StringIO("qqq")) as poll:
        assert poll(0.01) == ""


def state(time_s: float, **values) -> StageState:
    partner = PartnerStatus(mode="mirror", chosen_by="auto", mode_left_s=24.0, form=values.pop("form", None))
    return StageState(
        **{"time_s": time_s, "does": "breathes", "left_s": 1.8, "peak_db": -12.0, "zone": "good", "partner": partner} | values
    )


def shown(board: Board) -> list[str]:
    lines = [line for line, _ in board.lines()]
    assert all(len(line) <= WIDTH for line in lines)
    return lines


def test_the_board_answers_what_a_player_asks():
    board = Board(lambda _: "At 0:01.00 played C4 " * 9)
    board.title, board.modes, board.duration_s = (
        "MusicHal listens to [mic] with a name that is longer than a line",
        ["shadow"],
        300.0,
    )
    section = FormPlace(number=2, count=4, name="hush", left_s=8.2, next_name="out", end_left_s=120.0)
    board.stage(state(12.0, form=section))
    assert shown(board)[1:6] == [
        "MIRROR    auto, 0:24 more at least",
        "BREATHES  2 s",
        "section   2/4 hush 0:08 left, then out",
        "time      0:12 · 2:00 left",
        "level     ████████████████████████───··· good",
    ]
    board.stage(state(13.0, does="plays", why="answers your phrase", plays=True, left_s=None))
    assert "PLAYS     answers your phrase" in shown(board)
    news = board.news
    board.stage(state(13.2, does="plays", why="it goes on", plays=True, left_s=None, peak_db=-13.0))
    assert board.news == news, "a new reason waits for the next second"
    board.stage(state(14.0, has_input=False, peak_db=-120.0, zone="none"))
    assert any(line.startswith("NO INPUT") for line in shown(board))
    assert ("level     " + "·" * 30 + " NO INPUT", "bold red") in board.lines()
    board.key("help")
    assert any("Backspace" in line for line in shown(board))
    board.key("figures")
    board.decision(None)
    assert any("tokens/s" in line for line in shown(board))


def test_an_alarm_stands_until_it_is_over_and_pushes_out_no_command():
    board = Board()
    board.event(1.0, "control", "change (now mirror)")
    for k in range(20):
        board.event(2.0 + k, "lost", "2.0 % of the last minute lost in 7 places: raise the period, --block 512")
    text = " ".join(shown(board))
    assert text.count("raise the period, --block 512") == 1
    assert "change (now mirror)" in text
    board.event(90.0, "lost-over", "no more of the input is lost")
    assert "raise the period" not in " ".join(shown(board))
    for k in range(8):
        board.event(100.0 + k, "control", f"temperature 0.{k}")
    assert [line for line in shown(board) if "temperature" in line] == ["temperature 0.7"], "of a fader that moves, where it is"


def test_of_two_ports_or_inputs_that_are_gone_the_alarm_of_the_other_stands():
    board = Board()
    for name in ("a", "b"):
        board.event(1.0, "port-lost", f"{name}: cannot send to Synth {name}: refused")
        board.event(1.0, "input-gone", f"Mic {name}, ALSA is gone: waiting for it to come back")
    board.event(2.0, "port-back", "a: Synth a (ALSA) is back")
    board.event(2.0, "input-returned", "Mic b, ALSA is back")
    assert [text for _, text in board._alarms.values()] == [
        "Mic a, ALSA is gone: waiting for it to come back",
        "b: cannot send to Synth b: refused",
    ]


def test_a_fader_takes_back_no_line_but_its_own():
    board = Board()
    board.event(1.0, "control", "temperature 0.1")
    board.drift(SimpleNamespace(event="raised", text="not as trained"))
    board.event(2.0, "control", "temperature 0.2")
    board.event(2.1, "control", "temperature 0.3")
    assert list(board.unsaid) == ["0:01.00 temperature 0.1", "not as trained", "0:02.10 temperature 0.3"]


@pytest.mark.parametrize("kind", ["terminal", "dumb", "file"])
def test_lines_stay_in_place_only_at_a_terminal(kind):
    environment = {"TERM": "dumb" if kind == "dumb" else "xterm"}
    err = Console(file=io.StringIO(), force_terminal=kind != "file", width=80, height=30, _environ=environment)
    board = Board()
    board.title = "MusicHal listens to [mic]"
    with Display(board, Terminal(Console(file=io.StringIO()), err)) as display:
        board.stage(state(12.0, does="plays", why="answers your phrase", plays=True, left_s=None))
        board.event(12.0, "control", "muted [now]")
        display.update()
    text = err.file.getvalue()
    assert "MusicHal listens to [mic]" in text
    assert "muted [now]" in text
    assert ("\x1b[" in text) == (kind == "terminal")
    if kind != "terminal":
        assert "0:12 MIRROR auto, 0:24 more at least, plays answers your phrase; level good" in text


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo terminals are POSIX")
def test_a_key_becomes_a_command_though_nobody_asks(monkeypatch):
    """Keys are read beside the display: a tap is put when it is pressed."""
    import termios

    ours, theirs = os.openpty()
    put: queue.SimpleQueue[Command] = queue.SimpleQueue()
    with os.fdopen(theirs, "r") as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        board = Board()
        with keys_to(put.put, ["shadow"], board):
            for key in (b"t", b"1", b"x", b"t"):
                os.write(ours, key)
            assert [put.get(timeout=30.0) for _ in range(3)] == [
                Command("tap", True),
                Command("mode", "shadow"),
                Command("tap", True),
            ]
            os.write(ours, b"q")
            until = time.monotonic() + 30
            while "press q again to end" not in [line for line, _ in board.lines()]:
                assert time.monotonic() < until
            assert put.empty()
            os.write(ours, b"\x1b")
            assert put.get(timeout=30.0) == Command("quit", True)
            os.write(ours, b"?")
            until = time.monotonic() + 30
            while not any("Backspace" in line for line, _ in board.lines()):
                assert time.monotonic() < until
        assert "the key 'x' does nothing: ? shows the keys" in [line for line, _ in board.lines()]
        # A shell that had the terminal has left it as it likes it.
        with keys(terminal) as poll:
            attributes = termios.tcgetattr(terminal)
            attributes[3] |= termios.ICANON | termios.ECHO
            termios.tcsetattr(terminal, termios.TCSANOW, attributes)
            assert poll(0.0) == RETAKEN
            os.write(ours, b"m")
            assert poll(5.0) == "m"
    os.close(ours)


def test_a_mode_that_waits_for_pauses_of_a_player_who_makes_none_is_told_of():
    stage = Stage()
    waits = PartnerStatus(mode="mirror", waits_for_pauses=True)
    silence = LevelMeter().take()

    def decision(number: int, time_s: float, kind: str, rest: str | None = None) -> None:
        stage.decided(Decision(number=number, time_s=time_s, kind=kind, rest=rest, duration_s=1.0))

    decision(0, 0.0, "play")
    decision(1, 1.0, "rest", "listening")
    assert not stage.at(20.0, waits, level=silence).advice
    assert stage.at(27.0, waits, level=silence).advice == "mirror waits for your pauses: make one, or press n"
    decision(2, 28.0, "play")
    decision(3, 32.0, "rest", "your turn")
    assert not stage.at(33.0, waits, level=silence).advice
    assert stage.at(33.0, waits, level=silence).does == "waits: it is your turn"
    assert not stage.at(34.0, PartnerStatus(mode="couple"), level=silence).advice


def test_while_it_sounds_the_reason_is_that_of_what_sounds():
    stage, silence = Stage(), LevelMeter().take()
    stage.decided(played(0, 0.0, 3.0, 1.0))
    reason = stage.at(0.5, PartnerStatus(), level=silence).why
    assert reason
    stage.decided(rested(1, 0.9, "beat"))
    state = stage.at(0.95, PartnerStatus(), level=silence)
    assert (state.does, state.why) == ("plays", reason)
    assert stage.at(3.0, PartnerStatus(), level=silence).why == ""
