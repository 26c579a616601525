"""Set MusicHal up and run it: ``python3 run.py demo`` or ``python3 run.py test``.

Needs Python 3.11 or newer and a package index that pip is configured for; no other package, no system package, no
administrator. Everything goes into ``.venv`` beside this file, so deleting that folder undoes it. Only the standard
library is used, and an older Python can still parse this file and say what is wrong.
"""
# ruff: noqa: S603, T201 - this script's trade is to run commands and to talk.

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if sys.version_info < (3, 11):  # noqa: UP036 - the one thing that an older Python is meant to reach
    newer = [name for name in ("python3.12", "python3.11", "python3.13") if shutil.which(name)]
    hint = "try: " + newer[0] + " run.py" if newer else "install Python 3.12"
    sys.exit("MusicHal needs Python 3.11 or newer, and this is " + sys.version.split()[0] + "; " + hint)

ROOT = Path(__file__).resolve().parent
WINDOWS = os.name == "nt"
VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
PIP_WHEEL = "tools/bootstrap/pip-26.3-py3-none-any.whl"
PIP_SHA256 = "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13"
INTERRUPTED = 130

USAGE = """\
usage: python3 run.py COMMAND [ARGUMENTS]

  demo [FOLDER]   train a partner, let it answer a guitar; leaves MIDI, sound and a picture
  test [OPTIONS]  run the tests and show what they cover; options go to pytest
  check           what else must hold before a commit: ruff, formatting, types

Each first sets up what it needs in .venv, which takes a while once and nothing after that.
"""

# What pip's output means for the user; the first that is found there counts.
ADVICE = (
    (r"no space left", "the disk is full; free some space and run this again"),
    (r"certificate_verify|sslerror", "the index's certificate is not trusted here; set PIP_CERT to your authority's file"),
    (
        r"connection|name resolution|timed out|proxy|unreachable|getaddrinfo",
        "the package index cannot be reached; check the network, PIP_INDEX_URL and HTTPS_PROXY, then run this again",
    ),
    (
        r"no matching distribution found for (\S+)",
        "the index has no {} for this Python; check PIP_INDEX_URL, or use Python 3.11 or 3.12",
    ),
    (
        r"failed building|failed to build|requires a different python",
        "a package has no build for this Python or machine; try Python 3.11 or 3.12",
    ),
)


class SetupError(Exception):
    """Setting up failed; the message is one line that says what to do."""


def say(text: str) -> None:
    """Print one line now, also into a pipe."""
    print(text, flush=True)


def advice(output: Sequence[str]) -> str:
    """Return what to do about a pip that failed with this output."""
    for pattern, text in ADVICE:
        found = re.search(pattern, "\n".join(output), re.IGNORECASE)
        if found:
            return text.format(*found.groups())
    return "see the lines above, then run this again"


# Running other programs -----------------------------------------------------------------------------------------------


def scripts(venv: Path) -> Path:
    """Return the folder of a virtual environment's programs."""
    return venv / ("Scripts" if WINDOWS else "bin")


def program(venv: Path, name: str) -> str:
    """Return the path of one of its programs."""
    return str(scripts(venv) / (name + ".exe" if WINDOWS else name))


def clean_environment(environ: Mapping[str, str], venv: Path) -> dict[str, str]:
    """Return `environ` with `venv` active and without what brings in other packages or installs elsewhere."""
    dropped = {"PYTHONHOME", "PYTHONPATH", "__PYVENV_LAUNCHER__"}
    dropped |= {"PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_PYTHON", "PIP_DRY_RUN", "PIP_REQUIRE_VIRTUALENV"}
    result = {name: value for name, value in environ.items() if name not in dropped}
    result.update(PIP_USER="0", PIP_NO_INPUT="1", PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_PROGRESS_BAR="off")
    result.update(PIP_ROOT_USER_ACTION="ignore", PYTHONUNBUFFERED="1", VIRTUAL_ENV=str(venv))
    result["PATH"] = os.pathsep.join([str(scripts(venv)), environ.get("PATH", os.defpath)])
    return result


def run(command: list[str], *, environ: Mapping[str, str], cwd: Path | None = None) -> int:
    """Run a program in the foreground and return its exit code; Ctrl-C is the program's to answer."""
    before = signal.signal(signal.SIGINT, lambda *_: None)  # unlike SIG_IGN, a program does not inherit this
    try:
        code = subprocess.call(command, env=dict(environ), cwd=cwd)
    finally:
        signal.signal(signal.SIGINT, before)
    return code if code >= 0 else 128 - code


def run_quietly(command: list[str], *, environ: Mapping[str, str], cwd: Path, log: Path) -> tuple[int, list[str]]:
    """Run a program, its output into `log` and on one line of a terminal; return its code and its last lines."""
    last: deque[str] = deque(maxlen=200)
    width = shutil.get_terminal_size().columns - 1 if sys.stdout.isatty() else 0
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    text: dict[str, Any] = {"encoding": "utf-8", "errors": "replace"}
    with log.open("a", **text) as record:
        record.write(f"$ {' '.join(command)}\n")
        with subprocess.Popen(command, env=dict(environ), cwd=cwd, **pipes, **text) as process:
            for line in process.stdout or ():
                record.write(line)
                if line.strip():
                    last.append(line.rstrip())
                    print(f"\r{line.strip():<{width}.{width}}" if width else "", end="", flush=True)
    print("\r" + " " * width + "\r" if width else "", end="", flush=True)
    return process.returncode, list(last)


# The virtual environment ----------------------------------------------------------------------------------------------


class Setup:
    """The folder ``.venv`` of a checkout, and the stamp in it: what is installed there, or ``{}`` while that is not whole."""

    def __init__(self, root: Path, environ: Mapping[str, str]) -> None:
        self.root = root
        self.venv = root / ".venv"
        self.stamp = self.venv / "musichal-setup.json"
        self.log = self.venv / "musichal-setup.log"
        self.python = program(self.venv, "python")
        self.environ = clean_environment(environ, self.venv)
        self.home = f"Python {VERSION} in {root}"  # an environment serves one Python and cannot be moved
        self.project = hashlib.sha256((root / "pyproject.toml").read_bytes()).hexdigest()

    def ready(self, extra: str) -> bool:
        """Tell whether `extra` is installed, as this version of the project wants it."""
        stamp = self._read_stamp()
        current = stamp.get("home") == self.home and stamp.get("project") == self.project
        there = "import importlib.util as u; print(u.find_spec('musichal') is not None)"
        return current and extra in stamp["extras"] and self._ask(there) == "True"

    def prepare(self, extra: str) -> None:
        """Make `extra` ready: the environment, pip in it, and the project with what it needs."""
        if self.ready(extra):
            return
        started = time.monotonic()
        say(f"Setting up MusicHal in {self.venv} (only when something has changed)")
        self._make()
        self._install_pip()
        self._install_project(extra)
        say(f"  ready after {time.monotonic() - started:.0f} s")

    def _make(self) -> None:
        """Leave an environment of this Python: the one that is there, if it is whole."""
        version = self._ask("import sys; print('%d.%d' % sys.version_info[:2])")
        ours = self.stamp.exists()
        if version == VERSION and (not ours or self._read_stamp().get("home") == self.home):
            return
        old = list(self.venv.iterdir()) if self.venv.exists() else []
        if old and not ours:
            raise SetupError(f"{self.venv} is not this script's, nor an environment of Python {VERSION}; move it away")
        say(
            f"  making a virtual environment of Python {VERSION}"
            + (" afresh: the old one is incomplete, or of another Python" if old else "")
        )
        self.venv.mkdir(exist_ok=True)
        self.stamp.write_text("{}", encoding="utf-8")
        for path in old:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path != self.stamp:  # stays, so that a run after Ctrl-C knows whose folder this is
                path.unlink()
        # Without pip: where Debian's python3-venv is missing, asking for it fails and leaves half an environment.
        command = [sys.executable, "-m", "venv", "--without-pip", str(self.venv)]
        self._step(command, "the virtual environment could not be made")

    def _install_pip(self) -> None:
        """Leave a pip in the environment: Python's own, else by the pip of this Python, else the one in this checkout."""
        if self._ask("import pip; print('there')"):
            return
        if self._try([self.python, "-m", "ensurepip", "--default-pip"]):
            return
        if self._try([sys.executable, "-m", "pip", "--python", self.python, "install", "pip"]):
            return
        wheel = self.root / PIP_WHEEL
        if hashlib.sha256(wheel.read_bytes()).hexdigest() != PIP_SHA256:
            raise SetupError(f"{wheel} is not the pip that it should be (its SHA-256 differs); check it out again")
        say(f"  this Python comes without pip: using {wheel.name} of this checkout")
        self._step([self.python, str(wheel / "pip"), "install", "--no-index", str(wheel)], "pip could not be installed")

    def _install_project(self, extra: str) -> None:
        """Install the checkout itself, editable, with an extra; the stamp says so once it is done."""
        say(f"  installing musichal[{extra}] and what it needs from the package index")
        stamp = self._read_stamp()
        if self.stamp.exists():  # an environment made by hand stays its owner's until it is whole
            self.stamp.write_text("{}", encoding="utf-8")
        command = [self.python, "-m", "pip", "install", "--prefer-binary", "--editable", f".[{extra}]"]
        self._step(command, "pip could not install what MusicHal needs")
        kept = stamp.get("extras", []) if stamp.get("project") == self.project else []
        extras = sorted({*kept, extra, "sound"})  # each extra in use brings that of the sound
        stamp = {"home": self.home, "project": self.project, "extras": extras}
        self.stamp.write_text(json.dumps(stamp), encoding="utf-8")

    def _read_stamp(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            stamp: dict[str, Any] = json.loads(self.stamp.read_text(encoding="utf-8"))
            return stamp
        return {}

    def _ask(self, code: str) -> str:
        """Return what `code` prints in the environment's Python, or nothing if that Python cannot run it."""
        command = [self.python, "-I", "-c", code]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()
        return ""

    def _try(self, command: list[str]) -> bool:
        return run_quietly(command, environ=self.environ, cwd=self.root, log=self.log)[0] == 0

    def _step(self, command: list[str], trouble: str) -> None:
        code, last = run_quietly(command, environ=self.environ, cwd=self.root, log=self.log)
        if code != 0:
            print(*(f"    {line}" for line in last[-12:]), sep="\n", file=sys.stderr, flush=True)
            raise SetupError(f"{trouble}: {advice(last)} (the whole log: {self.log})")


# The commands ---------------------------------------------------------------------------------------------------------


def plan(command: str, arguments: list[str], venv: Path) -> tuple[str, list[list[str]]]:
    """Return the extra that a command needs and what it runs; nothing for one that does not exist."""
    python = program(venv, "python")
    if command == "demo":
        return "sound", [[program(venv, "musichal"), "demo", *arguments]]
    if command == "test":
        pytest = [python, "-m", "pytest", "--cov"]
        if arguments:
            return "dev", [[*pytest, "--cov-report=term", *arguments]]
        # All cores for what does not care; what plays in real time comes after it, by itself.
        at_once = [*pytest, "--cov-report=", "-m", "not slow and not live", "-n", "auto", "--dist", "loadfile"]
        in_time = [*pytest, "--cov-append", "--cov-report=term", "-m", "live and not slow"]
        return "dev", [at_once, in_time]
    if command == "check":
        ruff = [python, "-m", "ruff"]
        return "dev", [[*ruff, "check"], [*ruff, "format", "--check"], [python, "-m", "mypy"]]
    return "", []


def main(arguments: list[str], *, root: Path = ROOT, environ: Mapping[str, str] = os.environ) -> int:
    """Carry out one command line and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a path that the terminal's encoding lacks is no reason to fail
    if not arguments or arguments[0] in ("-h", "--help"):
        say(USAGE)
        return 0 if arguments else 2
    extra, commands = plan(arguments[0], arguments[1:], root / ".venv")
    if not commands:
        print(f"run.py: no command {arguments[0]!r}\n{USAGE}", file=sys.stderr)
        return 2
    try:
        setup = Setup(root, environ)
        setup.prepare(extra)
    except SetupError as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"run.py: could not set up in {root / '.venv'}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nrun.py: stopped while setting up; run the same command to start again", file=sys.stderr)
        return INTERRUPTED
    codes = []
    for command in commands:
        if len(commands) > 1:
            say(f"$ {' '.join([Path(command[0]).name, *command[1:]])}")
        # The demo leaves its files where the user is; the others are about the checkout.
        codes.append(run(command, environ=setup.environ, cwd=None if arguments[0] == "demo" else root))
        if codes[-1] == INTERRUPTED:
            break
    return max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
