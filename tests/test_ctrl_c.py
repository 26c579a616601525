"""Ctrl-C and its kin, whenever they come: one line, the exit code, nothing half-written and no process left.

What plays live is in `test_play_live.py`; here are the program's own beginning and the commands that work for a while.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals between processes are POSIX")

_BEGINNING = """
import importlib.abc, os, sys, threading, time
number, presses, name = int(sys.argv.pop(1)), int(sys.argv.pop(1)), sys.argv.pop(1)
class Press(importlib.abc.MetaPathFinder):
    def find_spec(self, wanted, path, target=None):
        if wanted == name and presses:
            sys.meta_path.remove(self)
            threading.Thread(target=press, daemon=True).start()
            time.sleep(60)
def press():
    for _ in range(presses):
        os.kill(os.getpid(), number)
        time.sleep(0.02)
sys.meta_path.insert(0, Press())
from musichal.__main__ import main
main()
"""


@pytest.mark.parametrize(
    ("name", "signal_name", "presses"),
    [
        ("musichal.cli", "SIGINT", 1),
        ("typer", "SIGINT", 2),
        ("rich", "SIGTERM", 1),
        ("numpy", "SIGHUP", 1),
        ("musichal.training.trainer", "SIGINT", 5),
    ],
)
def test_from_its_first_moment_on_it_says_one_line(
    short_mix: Path, tmp_path: Path, name: str, signal_name: str, presses: int
) -> None:
    """Loading takes a second or more, and whoever has made a mistake in the arguments presses Ctrl-C then."""
    number = int(getattr(signal, signal_name, 0))
    words = [str(number), str(presses), name, "train", str(short_mix), "-o", str(tmp_path / "p.hal")]
    done = subprocess.run([sys.executable, "-c", _BEGINNING, *words], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 128 + number, done.stderr
    word = "interrupted" if signal_name == "SIGINT" else "told to end"
    assert (done.stdout, done.stderr) == ("", f"musichal: {word}; nothing was left half-written\n")
    assert list(tmp_path.iterdir()) == []


_LOST = """
import os, signal, sys
import musichal.__main__ as program
from musichal import cli
class Goes:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass
def lost():
    Goes()
    signal.pause()
def turned():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()
    except KeyboardInterrupt as error:
        raise ImportError("initialization failed") from error
cli.main = {"turned": turned}.get(sys.argv[1], lost)
if sys.argv[1] == "lost-at-once":  # the signal that is sent again comes before the hook has returned
    program._AGAIN_S = 0.0
program.main()
"""


@pytest.mark.parametrize("how", ["lost", "lost-at-once", "turned"])
def test_one_that_is_lost_on_its_way_or_turned_into_something_else_ends_it_too(how: str) -> None:
    """Where Python calls back by itself it prints an exception and goes on; compiled modules say that they failed to load."""
    done = subprocess.run([sys.executable, "-c", _LOST, how], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (130, "musichal: interrupted; nothing was left half-written\n")


def test_its_exit_code_is_that_of_the_signal_however_it_was_started(tmp_path: Path) -> None:
    """`python -m` ends by the signal itself where the very `KeyboardInterrupt` passed code that was made from text."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\nclass Press:\n    def find_spec(self, name, path, target=None):\n"
        "        if name == 'typer':\n            exec('os.kill(os.getpid(), signal.SIGTERM)\\nfor _ in range(1000): pass')\n"
        "sys.meta_path.insert(0, Press())\n"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    command = [sys.executable, "-m", "musichal", "--version"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (143, "musichal: told to end; nothing was left half-written\n")


_HELD = """
import os, signal
from musichal.commands.play import stop_signals
with stop_signals() as stop:
    with stop._cond:  # as `wait` does for a moment
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(1000):
                pass
    print(stop.wait(30))
"""


def test_one_that_comes_while_the_performance_begins_or_ends_its_waiting_ends_it() -> None:
    """The lock of an event is not to be taken twice: a handler that took it would stop the program for good."""
    done = subprocess.run([sys.executable, "-c", _HELD], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
