"""Set MusicHal up and run it: ``python3 run.py demo`` or ``python3 run.py test``.

Needs Python 3.11 or newer and a package index to install from; no other package, no system package, no administrator.
Everything goes into ``.venv`` beside this file, so deleting that folder undoes it. Only the standard library is used,
and an older Python can still parse this file and say what is wrong.

What pip was told by ``PIP_*`` variables, its configuration files and the proxy variables holds here too.
"""
# ruff: noqa: S310, S603, T201 - this script's trade is to fetch from the configured index, to run commands and to talk.

import base64
import configparser
import contextlib
import hashlib
import html.parser
import io
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

if sys.version_info < (3, 11):  # noqa: UP036 - the one thing that an older Python is meant to reach
    newer = [name for name in ("python3.12", "python3.11", "python3.13") if shutil.which(name)]
    hint = "try: " + newer[0] + " run.py" if newer else "install Python 3.12 from python.org or your package manager"
    sys.exit("MusicHal needs Python 3.11 or newer, and this is " + sys.version.split()[0] + "; " + hint)

ROOT = Path(__file__).resolve().parent
WINDOWS = os.name == "nt"
DEFAULT_INDEX = "https://pypi.org/simple"
OLDEST_PIP = (22, 3)  # the first that has --python
INTERRUPTED = 130
INCLUDES = {"sound": {"sound"}, "dev": {"dev", "sound"}}  # what an extra of pyproject.toml brings with it

USAGE = """\
usage: python3 run.py COMMAND [ARGUMENTS]

  demo [FOLDER]   train a partner, let it answer a guitar; leaves MIDI, sound and a picture
  test [OPTIONS]  run the tests and show what they cover; options go to pytest
  check           what else must hold before a commit: ruff, formatting, types

Each first sets up what it needs in .venv, which takes a while once and nothing after that.
"""


class SetupError(Exception):
    """Setting up failed; the message is one line that says what to do."""


def say(text: str) -> None:
    """Print one line now, also into a pipe."""
    print(text, flush=True)


# What pip was told ----------------------------------------------------------------------------------------------------


def pip_config_files(environ: Mapping[str, str]) -> list[Path]:
    """Return where pip looks for its configuration, the strongest place first."""
    chosen = environ.get("PIP_CONFIG_FILE")
    if chosen == os.devnull:
        return []
    home = Path.home()
    if WINDOWS:
        folders = [Path(environ.get("APPDATA", home)) / "pip", home / "pip"]
        folders.append(Path(environ.get("PROGRAMDATA", "C:/ProgramData")) / "pip")
    else:
        mac = [home / "Library/Application Support/pip"] if sys.platform == "darwin" else []
        own = [Path(environ.get("XDG_CONFIG_HOME", home / ".config")) / "pip", home / ".pip"]
        folders = [*mac, *own, Path("/etc"), Path("/etc/xdg/pip")]
    name = "pip.ini" if WINDOWS else "pip.conf"
    return [*([Path(chosen)] if chosen else []), *(folder / name for folder in folders)]


def pip_setting(name: str, environ: Mapping[str, str]) -> str:
    """Return a setting of pip such as ``index-url`` from the environment or pip's files; empty if nobody set it."""
    value = environ.get("PIP_" + name.upper().replace("-", "_"))
    if value:
        return value.strip()
    for path in pip_config_files(environ):
        config = configparser.RawConfigParser()
        with contextlib.suppress(OSError, configparser.Error, UnicodeDecodeError):
            config.read_string(path.read_text(encoding="utf-8"))
        for section in ("install", "global"):
            value = config.get(section, name, fallback="").strip()
            if value:
                return value
    return ""


# pip from the package index, for a Python that came without it ------------------------------------------------------


class Wheel(NamedTuple):
    """A wheel on an index page: where it is and what its bytes must hash to."""

    name: str
    url: str
    sha256: str


class _Links(html.parser.HTMLParser):
    """The links of a simple index page (PEP 503)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[dict[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.links.append({name: value or "" for name, value in attrs})


def newest_pip(page: str, page_url: str, python: tuple[int, int]) -> Wheel | None:
    """Return the newest released pip wheel on an index page that this Python can run and whose hash is given."""
    found: list[tuple[tuple[int, ...], Wheel]] = []
    for link in _Links(page).links:
        url, fragment = urllib.parse.urldefrag(urllib.parse.urljoin(page_url, link.get("href", "")))
        name = urllib.parse.unquote(urllib.parse.urlsplit(url).path).rpartition("/")[2]
        release = re.fullmatch(r"pip-(\d+(?:\.\d+)+)-py3-none-any\.whl", name)
        digest = re.fullmatch(r"sha256=([0-9a-f]{64})", fragment)
        lowest = re.search(r">=\s*(\d+)\.(\d+)", link.get("data-requires-python", ""))
        too_old = lowest and python < (int(lowest[1]), int(lowest[2]))
        if release and digest and not too_old and "data-yanked" not in link:
            version = tuple(int(part) for part in release[1].split("."))
            found.append((version, Wheel(name, url, digest[1])))
    return max(found, key=lambda pair: pair[0])[1] if found else None


def fetch(url: str, environ: Mapping[str, str], *, timeout_s: float = 30.0) -> bytes:
    """Return what is at `url`, with the certificates, the proxy and the credentials that pip would use."""
    parts = urllib.parse.urlsplit(url)
    account, _, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(parts._replace(netloc=host).geturl(), headers={"Accept": "text/html, */*;q=0.5"})
    if account:
        token = base64.b64encode(urllib.parse.unquote(account).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    authorities = pip_setting("cert", environ) or environ.get("REQUESTS_CA_BUNDLE") or environ.get("CURL_CA_BUNDLE") or None
    proxy = pip_setting("proxy", environ)
    if authorities and Path(authorities).is_dir():
        context = ssl.create_default_context(capath=authorities)
    else:
        context = ssl.create_default_context(cafile=authorities)
    opener = urllib.request.build_opener(
        urllib.request.HTTPSHandler(context=context),
        urllib.request.ProxyHandler({"http": proxy, "https": proxy} if proxy else None),
    )
    with opener.open(request, timeout=timeout_s) as answer:
        return bytes(answer.read())


def download_pip(folder: Path, environ: Mapping[str, str]) -> Path:
    """Put the newest pip wheel of the configured index into `folder`, its hash checked, and return its path."""
    indexes = [pip_setting("index-url", environ) or DEFAULT_INDEX, *pip_setting("extra-index-url", environ).split()]
    troubles = []
    for index in indexes:
        page_url = index.rstrip("/") + "/pip/"
        shown = re.sub(r"//[^/@]*@", "//", page_url)  # without the password
        try:
            wheel = newest_pip(fetch(page_url, environ).decode("utf-8", "replace"), page_url, sys.version_info[:2])
            if wheel is None:
                troubles.append(f"{shown} lists no usable pip")
                continue
            content = fetch(wheel.url, environ)
        except (OSError, ValueError) as error:
            troubles.append(f"{shown}: {getattr(error, 'reason', error)}")
            continue
        if hashlib.sha256(content).hexdigest() != wheel.sha256:
            raise SetupError(f"what was downloaded as {wheel.name} is not what {shown} announced (SHA-256 differs)")
        path = folder / wheel.name
        path.write_bytes(content)
        return path
    hint = "install pip, or set PIP_INDEX_URL" if all("lists no" in trouble for trouble in troubles) else advice(troubles)
    raise SetupError(f"this Python has no pip, and none could be fetched: {hint} ({'; '.join(troubles)})")


# Running other programs -----------------------------------------------------------------------------------------------


def clean_environment(environ: Mapping[str, str], venv: Path | None = None) -> dict[str, str]:
    """Return `environ` without what brings in other packages or installs elsewhere; with `venv` active, if given."""
    dropped = {"PYTHONHOME", "PYTHONPATH", "__PYVENV_LAUNCHER__", "VIRTUAL_ENV"}
    dropped |= {"PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_PYTHON", "PIP_DRY_RUN", "PIP_REQUIRE_VIRTUALENV"}
    result = {name: value for name, value in environ.items() if name not in dropped}
    result.update(PIP_USER="0", PIP_NO_INPUT="1", PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_PROGRESS_BAR="off")
    result.update(PIP_ROOT_USER_ACTION="ignore", PYTHONUNBUFFERED="1")
    if venv is not None:
        result["VIRTUAL_ENV"] = str(venv)
        result["PATH"] = os.pathsep.join([str(scripts(venv)), environ.get("PATH", os.defpath)])
    return result


def end(process: "subprocess.Popen[Any]", *, patience_s: float) -> int:
    """Wait for a program that was told to stop, make it stop if it does not, and return its code."""
    with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
        return process.wait(patience_s)
    process.kill()
    return process.wait()


def run(command: list[str], *, environ: Mapping[str, str], cwd: Path | None = None) -> int:
    """Run a program in the foreground and return its exit code; Ctrl-C is the program's to answer."""
    process = subprocess.Popen(command, env=dict(environ), cwd=cwd)
    try:
        code = process.wait()
    except KeyboardInterrupt:  # the terminal has told the program as well
        code = end(process, patience_s=20.0) or INTERRUPTED
    return code if code >= 0 else 128 - code


def run_quietly(command: list[str], *, environ: Mapping[str, str], cwd: Path, log: Path) -> tuple[int, list[str]]:
    """Run a program, its output into `log` and on one line of a terminal; return its code and its last lines."""
    last: deque[str] = deque(maxlen=200)
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns - 1
    started = time.monotonic()
    with log.open("a", encoding="utf-8") as record:
        record.write(f"$ {' '.join(command)}\n")
        process = subprocess.Popen(
            command,
            env=dict(environ),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                record.write(line)
                last.append(line.rstrip())
                if terminal and line.strip():
                    text = f"    {time.monotonic() - started:3.0f} s  {line.strip()}"
                    print("\r" + text[:width].ljust(width), end="", flush=True)
            code = process.wait()
        except BaseException:
            end(process, patience_s=5.0)
            raise
        finally:
            if terminal:
                print("\r" + " " * width + "\r", end="", flush=True)
    return code, [line for line in last if line]


# The virtual environment ----------------------------------------------------------------------------------------------


def scripts(venv: Path) -> Path:
    """Return the folder of a virtual environment's programs."""
    return venv / ("Scripts" if WINDOWS else "bin")


def program(venv: Path, name: str) -> str:
    """Return the path of one of its programs."""
    return str(scripts(venv) / (name + ".exe" if WINDOWS else name))


def probe(venv: Path, code: str) -> str:
    """Return what `code` prints in the environment's Python, or nothing if that Python cannot run it."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        answer = subprocess.run(
            [program(venv, "python"), "-I", "-c", code], capture_output=True, text=True, timeout=60, check=True
        )
        return answer.stdout.strip()
    return ""


class Environment:
    """The folder ``.venv`` of a checkout and the note in it that says what was installed, and from what."""

    def __init__(self, root: Path, environ: Mapping[str, str]) -> None:
        self.root = root
        self.venv = root / ".venv"
        self.note = self.venv / "musichal-setup.json"
        self.log = self.venv / "musichal-setup.log"
        self.environ = environ
        self.version = f"{sys.version_info[0]}.{sys.version_info[1]}"

    def key(self) -> str:
        """Return a digest of everything that makes an installation stale when it changes."""
        project = (self.root / "pyproject.toml").read_bytes()
        return hashlib.sha256(b"\0".join([project, self.version.encode(), str(self.root).encode()])).hexdigest()

    def read_note(self) -> dict[str, Any] | None:
        """Return the note, empty if it cannot be read, None if there is none: then this script did not make .venv."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            return {}
        return note if isinstance(note, dict) else {}

    def write_note(self, *, complete: bool, extras: set[str]) -> None:
        """Leave the note, whole or not at all."""
        part = self.note.with_suffix(".part")
        part.write_text(json.dumps({"complete": complete, "key": self.key(), "extras": sorted(extras)}), "utf-8")
        part.replace(self.note)

    def ready(self, extra: str) -> bool:
        """Tell whether `extra` is installed, of this version of the project, for this Python, at this place."""
        note = self.read_note() or {}
        return (
            note.get("complete") is True
            and note.get("key") == self.key()
            and extra in note.get("extras", [])
            and probe(self.venv, _FACTS) == f"{self.version} True"
        )

    def prepare(self, extra: str) -> None:
        """Make `extra` ready: the environment, pip in it, and the project with what it needs."""
        if self.ready(extra):
            return
        with _alone(self.root):
            if self.ready(extra):  # another run has done it meanwhile
                return
            started = time.monotonic()
            say(f"Setting up MusicHal in {self.venv} (only when something has changed)")
            self._make()
            self._install_pip()
            self._install_project(extra)
            say(f"  ready after {time.monotonic() - started:.0f} s")

    def _make(self) -> None:
        """Leave an environment of this Python: the one that is there, if it is whole."""
        if self.venv.is_symlink() or (self.venv.exists() and not self.venv.is_dir()):
            raise SetupError(f"{self.venv} is not a folder of its own; move it away")
        note = self.read_note()
        there = self.venv.is_dir() and any(self.venv.iterdir())
        works = probe(self.venv, _FACTS).split(" ")[0]
        if works == self.version and (note is None or note.get("complete") is True):
            return
        if there and note is None and works:
            raise SetupError(f"{self.venv} was made by hand with Python {works}; use that Python, or move it away")
        if there and note is None and not _looks_like_venv(self.venv):
            raise SetupError(f"{self.venv} holds something else than a virtual environment; move it away")
        if there:
            why = f"it was made for Python {works}" if works and works != self.version else "it is not complete"
            say(f"  making the virtual environment afresh: {why}")
            shutil.rmtree(self.venv)
        else:
            say(f"  making a virtual environment of Python {sys.version.split()[0]}")
        self.venv.mkdir(exist_ok=True)
        self.write_note(complete=False, extras=set())
        # Without pip: where Debian's python3-venv is missing, asking for it fails and leaves half an environment.
        base = getattr(sys, "_base_executable", None) or sys.executable
        self._step([base, "-m", "venv", "--without-pip", str(self.venv)], "the virtual environment could not be made")

    def _install_pip(self) -> None:
        """Leave a pip in the environment: Python's own, else with the pip of this Python, else from the index."""
        if probe(self.venv, "import pip; print(pip.__version__)"):
            return
        python = program(self.venv, "python")
        if self._try([python, "-m", "ensurepip", "--default-pip"]):
            return
        version = _pip_version(self.environ)
        if version >= OLDEST_PIP:
            say("  this Python comes without ensurepip: using its pip {}.{}".format(*version))
            command = [sys.executable, "-m", "pip", "--python", python, "install", "pip"]
            if self._try(command, environ=clean_environment(self.environ)):
                return
        say("  this Python comes without ensurepip and pip: fetching pip from the package index")
        wheel = download_pip(self.venv, self.environ)
        self._step([python, str(wheel / "pip"), "install", "--no-index", str(wheel)], "pip could not be installed")
        wheel.unlink()

    def _install_project(self, extra: str) -> None:
        """Install the checkout itself, editable, with an extra; the note says so once it is done."""
        say(f"  installing musichal[{extra}] and what it needs from the package index")
        note = self.read_note() or {}
        self.write_note(complete=False, extras=set())
        command = [program(self.venv, "python"), "-m", "pip", "install", "--prefer-binary", "--editable", f".[{extra}]"]
        self._step(command, "pip could not install what MusicHal needs")
        kept = set(note.get("extras", [])) if note.get("key") == self.key() else set()
        self.write_note(complete=True, extras=kept | INCLUDES[extra])

    def _try(self, command: list[str], environ: Mapping[str, str] | None = None) -> bool:
        chosen = clean_environment(self.environ, self.venv) if environ is None else environ
        return run_quietly(command, environ=chosen, cwd=self.root, log=self.log)[0] == 0

    def _step(self, command: list[str], trouble: str) -> None:
        environ = clean_environment(self.environ, self.venv)
        code, last = run_quietly(command, environ=environ, cwd=self.root, log=self.log)
        if code != 0:
            for line in last[-12:]:
                print(f"    {line}", file=sys.stderr, flush=True)
            raise SetupError(f"{trouble}: {advice(last)} (the whole log: {self.log})")


_FACTS = "import sys, importlib.util as u; print('%d.%d' % sys.version_info[:2], u.find_spec('musichal') is not None)"


def advice(output: Sequence[str]) -> str:
    """Return what to do about a pip that failed with this output."""
    text = "\n".join(output).lower()
    missing = re.search(r"no matching distribution found for (\S+)", text)
    if "no space left" in text:
        return "the disk is full; free some space and run this again"
    if re.search(r"certificate_verify|ssl", text):
        return "the index's certificate is not trusted here; set PIP_CERT to your authority's file and run this again"
    if re.search(r"connection|name resolution|timed out|proxy|unreachable|getaddrinfo", text):
        return "the package index cannot be reached; check the network, PIP_INDEX_URL and HTTPS_PROXY, run this again"
    if missing:
        return f"the index has no {missing[1]} for this Python; check PIP_INDEX_URL, or use Python 3.11 or 3.12"
    if re.search(r"failed building|failed to build|requires a different python", text):
        return "a package has no build for this Python or machine; try Python 3.11 or 3.12"
    return "see the lines above, then run this again"


def _pip_version(environ: Mapping[str, str]) -> tuple[int, int]:
    """Return the version of the pip that this Python has, (0, 0) if it has none."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = [sys.executable, "-m", "pip", "--version"]
        clean = clean_environment(environ)
        answer = subprocess.run(command, env=clean, capture_output=True, text=True, timeout=60, check=True).stdout
        found = re.match(r"pip (\d+)\.(\d+)", answer)
        if found:
            return int(found[1]), int(found[2])
    return 0, 0


def _looks_like_venv(folder: Path) -> bool:
    """Tell a virtual environment, also half of one, from a folder that happens to have its name."""
    own = {"bin", "include", "lib", "lib64", "share", "pyvenv.cfg", "scripts", ".gitignore"}
    return {path.name.lower() for path in folder.iterdir()} <= own


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Let one process at a time set this checkout up (on Windows, which has no flock, that is left to the user)."""
    if WINDOWS:
        yield
        return
    import fcntl

    with (root / "run.py").open("rb") as itself:
        try:
            fcntl.flock(itself, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another run.py is setting up; waiting for it")
            fcntl.flock(itself, fcntl.LOCK_EX)
        except OSError:  # a file system without locks
            pass
        yield


# The commands ---------------------------------------------------------------------------------------------------------


def plan(command: str, arguments: list[str], root: Path, venv: Path) -> tuple[str, Path | None, list[list[str]]]:
    """Return the extra that a command needs, the folder it runs in (None: where the user is) and what it runs."""
    python = program(venv, "python")
    if command == "demo":
        return "sound", None, [[program(venv, "musichal"), "demo", *arguments]]
    if command == "test":
        return "dev", root, [[python, "-m", "pytest", "--cov", "--cov-report=term", *arguments]]
    if command == "check":
        ruff = [python, "-m", "ruff"]
        return "dev", root, [[*ruff, "check"], [*ruff, "format", "--check"], [python, "-m", "mypy"]]
    raise ValueError(command)


def main(arguments: list[str], *, root: Path = ROOT, environ: Mapping[str, str] = os.environ) -> int:
    """Carry out one command line and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a path that the terminal's encoding lacks is no reason to fail
    if not arguments or arguments[0] in ("-h", "--help"):
        say(USAGE)
        return 0 if arguments else 2
    environment = Environment(root, environ)
    try:
        extra, folder, commands = plan(arguments[0], arguments[1:], root, environment.venv)
    except ValueError:
        print(f"run.py: no command {arguments[0]!r}\n{USAGE}", file=sys.stderr)
        return 2
    try:
        environment.prepare(extra)
    except SetupError as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"run.py: could not set up in {environment.venv}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nrun.py: stopped while setting up; run the same command to start again", file=sys.stderr)
        return INTERRUPTED
    codes = []
    for command in commands:
        if len(commands) > 1:
            say(f"$ {' '.join([Path(command[0]).name, *command[1:]])}")
        codes.append(run(command, environ=clean_environment(environ, environment.venv), cwd=folder))
        if codes[-1] == INTERRUPTED:
            break
    return max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
