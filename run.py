"""Set MusicHal up in ``.venv`` and run it: ``python3 run.py demo`` or ``python3 run.py test``.

Needs Python 3.11 or newer and a package index; no other package, no system package, no administrator. Deleting ``.venv`` undoes
it. Only the standard library is used, and an older Python can still parse this file and say what is wrong.
"""
# ruff: noqa: S603, T201

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 - an older Python must reach this line
    sys.exit("MusicHal needs Python 3.11 or newer; this is " + sys.version.split()[0])

USAGE = """\
usage: python3 run.py COMMAND [ARGUMENTS]

  demo [FOLDER]      train a partner and let it answer a guitar; writes MIDI, sound and a picture
  test               run the fast tests on all cores
  test live          run the tests in real time, through JACK
  test slow          run the tests that take minutes
  test fuzz          read malformed files for a minute
  test [OPTIONS]     run pytest with these options
  check              check style, formatting and types

Each command first installs what it needs in .venv.
"""
ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = str(VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
PIP = ROOT / "tools" / "bootstrap" / "pip-26.3-py3-none-any.whl"


def suites() -> dict[str, list[list[str]]]:
    """Return the pytest runs of each suite. Those of live and slow tests import only the files that have some."""
    texts = {f"tests/{file.name}": file.read_text("utf-8") for file in sorted((ROOT / "tests").glob("test_*.py"))}
    live, slow = ([file for file, text in texts.items() if f"mark.{kind}" in text] for kind in ("live", "slow"))
    on_all_cores = ["-n", "auto", "--dist", "worksteal"]
    # Live tests wait for most of their time, each in a JACK server of its own: three at once keep two cores busy. Of the slow
    # ones two go at once: they need each sample of a longer time. Those alone measure time, or run a browser.
    alone = ["tests/test_bench_live.py", "tests/test_latency.py", "tests/test_web_browser.py"]
    together = ["--dist", "loadfile", *(file for file in live if file not in alone)]
    return {
        "fast": [["-m", "not slow and not live and not fuzz", *on_all_cores]],
        "live": [["-m", "live and not slow", "-n", "3", *together], ["-m", "live and not slow", *alone]],
        "fuzz": [["-m", "fuzz"]],
        "slow": [
            ["-m", "slow and not live", *on_all_cores, *slow],
            ["-m", "slow and live", "-n", "2", *together],
            ["-m", "slow and live", *alone],
        ],
    }


def commands(name: str, arguments: list[str]) -> tuple[str, list[list[str]]]:
    """Return the extra that a command needs, and the modules it runs; no modules for an unknown command."""
    if name == "demo":
        return "sound", [["musichal", "demo", *arguments]]
    if name == "test":
        return "dev", [["pytest", *options] for options in suites().get(" ".join(arguments) or "fast", [arguments])]
    if name == "check":
        return "dev", [["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]]
    return "", []


def environment() -> dict[str, str]:
    """Return the environment without variables that add packages, install elsewhere, or keep no bytecode.

    Without bytecode each of the hundreds of programs that tests start would compile MusicHal again.
    """
    dropped = {
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONHOME",
        "PYTHONPATH",
        "PIP_TARGET",
        "PIP_PREFIX",
        "PIP_USER",
        "PIP_REQUIRE_VIRTUALENV",
    }
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    path = os.pathsep.join([str(Path(PYTHON).parent), kept.get("PATH", os.defpath)])
    return {**kept, "PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore", "PATH": path}


def set_up(extra: str) -> None:
    """Install the checkout with an extra in ``.venv``, unless that was done for these requirements."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    wanted = hashlib.sha256(f"{version} {ROOT}".encode() + (ROOT / "pyproject.toml").read_bytes()).hexdigest()
    stamps = [VENV / f"musichal-{name}.stamp" for name in (extra, "dev")]  # dev includes every other extra
    if any(stamp.exists() and stamp.read_text() == wanted for stamp in stamps) and Path(PYTHON).exists():
        return
    print(f"Setting up MusicHal in {VENV}; this takes a minute or two.", flush=True)
    if VENV.exists() and any(VENV.iterdir()) and not (VENV / "pyvenv.cfg").exists():
        sys.exit(f"run.py: {VENV} is not a virtual environment; move it away")
    command = [PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    if not Path(PYTHON).exists() or subprocess.run(command, capture_output=True, text=True).stdout.strip() != version:  # noqa: PLW1510
        # Without pip: Debian's Python has no ensurepip.
        run_step([sys.executable, "-m", "venv", "--clear", "--without-pip", str(VENV)])
    run_step([PYTHON, str(PIP / "pip"), "install", "--quiet", "--no-index", str(PIP)])
    pip = [PYTHON, "-m", "pip", "install", "--quiet", "--prefer-binary", "--editable", f"{ROOT}[{extra}]"]
    run_step(pip)
    stamps[0].write_text(wanted)


def run_step(command: list[str]) -> None:
    """Run one step of the set-up; exit with one line if it fails."""
    if subprocess.call(command, env=environment()):
        sys.exit(f"run.py: this failed: {' '.join(command)}\nSee the lines above; then run the same command again.")


def main(arguments: list[str]) -> int:
    """Carry out one command line; return its exit code."""
    extra, modules = commands(arguments[0], arguments[1:]) if arguments else ("", [])
    if not modules:
        print(USAGE)
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    try:
        set_up(extra)
    except KeyboardInterrupt:
        sys.exit("\nrun.py: interrupted; run the same command again")
    except OSError as error:
        sys.exit(f"run.py: cannot set up {VENV}: {error}")
    signal.signal(signal.SIGINT, lambda *_: None)  # the child answers Ctrl-C; unlike SIG_IGN, this is not inherited
    folder = None if arguments[0] == "demo" else ROOT
    return max(subprocess.call([PYTHON, "-P", "-m", *module], env=environment(), cwd=folder) % 256 for module in modules)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
