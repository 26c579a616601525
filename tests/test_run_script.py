"""`run.py` sets a machine up: tested on a tiny checkout, a real pip and a package index on this machine, no network."""

import ast
import functools
import hashlib
import http.server
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]

PROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "musichal"
version = "1"
[project.optional-dependencies]
sound = []
dev = []
"""

# The smallest build backend that can install a checkout in place: what is under test is run.py, not hatchling.
BACKEND = """\
import pathlib, zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "musichal-1-py3-none-any.whl"
    files = {
        "musichal.pth": str(pathlib.Path("src").resolve()),
        "musichal-1.dist-info/METADATA": "Metadata-Version: 2.1\\nName: musichal\\nVersion: 1\\n"
        "Provides-Extra: sound\\nProvides-Extra: dev\\n",
        "musichal-1.dist-info/WHEEL": "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
        "musichal-1.dist-info/entry_points.txt": "[console_scripts]\\nmusichal = musichal.cli:main\\n",
    }
    files["musichal-1.dist-info/RECORD"] = "".join(f"{name},,\\n" for name in [*files, "musichal-1.dist-info/RECORD"])
    with zipfile.ZipFile(pathlib.Path(folder) / name, "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
    return name

build_editable = build_wheel
"""

# `demo 7` ends with 7; `demo wait` says that it has started and ends with 42 on Ctrl-C.
CLI = """\
import pathlib, sys, time
def main():
    if sys.argv[2:] == ["wait"]:
        try:
            print("started", flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            sys.exit(42)
    print("demo in", pathlib.Path.cwd(), "with", sys.argv[1:])
    sys.exit(int(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_script", ROOT / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_checkout(folder: Path) -> Path:
    (folder / "src" / "musichal").mkdir(parents=True)
    shutil.copy(ROOT / "run.py", folder)
    (folder / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    (folder / "backend.py").write_text(BACKEND, encoding="utf-8")
    (folder / "src" / "musichal" / "__init__.py").touch()
    (folder / "src" / "musichal" / "cli.py").write_text(CLI, encoding="utf-8")
    return folder


def pack_installed_pip(folder: Path) -> Path:
    """Pack the pip that runs these tests back into the wheel that it came from."""
    pip = importlib.metadata.distribution("pip")
    wheel = folder / f"pip-{pip.version}-py3-none-any.whl"
    wanted = re.compile(r"pip/(?!.*__pycache__).*|pip-[^/]+\.dist-info/(METADATA|WHEEL|entry_points\.txt)")
    files = [file for file in pip.files or [] if wanted.fullmatch(file.as_posix())]
    record = f"pip-{pip.version}.dist-info/RECORD"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in files:
            packed.write(file.locate(), file.as_posix())
        packed.writestr(record, "".join(f"{name},,\n" for name in [*(file.as_posix() for file in files), record]))
    return wheel


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A package index that has pip and nothing else; yields its URL."""
    folder = tmp_path_factory.mktemp("index")
    page = folder / "simple" / "pip"
    page.mkdir(parents=True)
    wheel = pack_installed_pip(page)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (page / "index.html").write_text(f'<a href="{wheel.name}#sha256={digest}">{wheel.name}</a>', encoding="utf-8")
    wrong = folder / "wrong" / "pip"
    wrong.mkdir(parents=True)
    (wrong / "index.html").write_text(f'<a href="../../simple/pip/{wheel.name}#sha256={"0" * 64}">x</a>', encoding="utf-8")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/simple"
        server.shutdown()


def environment(index: str) -> dict[str, str]:
    """The environment of a user whose pip is told of one index only, past every proxy."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_") and "PROXY" not in name.upper()}
    return {
        **kept,
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": index,
        "PIP_RETRIES": "0",
        "PIP_NO_COMPILE": "1",
        "PYTHONPATH": "/nowhere",
    }


def run(checkout: Path, *arguments: str, environ: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(checkout / "run.py"), *arguments]
    return subprocess.run(command, env=environ, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, index: str) -> Path:
    """A checkout, in a folder with spaces, in which `run.py demo` has been run once from elsewhere."""
    checkout, elsewhere = make_checkout(tmp_path_factory.mktemp("a") / "check out"), tmp_path_factory.mktemp("else where")
    first = run(checkout, "demo", "7", environ=environment(index), cwd=elsewhere)
    assert first.returncode == 7, first.stderr + first.stdout
    assert "making a virtual environment" in first.stdout
    assert f"demo in {elsewhere} with ['demo', '7']" in first.stdout
    return checkout


def test_a_checkout_is_set_up_once_and_again_when_it_changes(
    prepared: Path, tmp_path: Path, index: str, script: ModuleType
) -> None:
    checkout, elsewhere, environ = prepared, tmp_path, environment(index)

    second = run(checkout, "demo", "0", environ=environ, cwd=elsewhere)
    assert second.returncode == 0
    assert second.stdout.startswith("demo in")  # nothing was set up

    keepsake = checkout / ".venv" / "keepsake"
    keepsake.touch()
    with (checkout / "pyproject.toml").open("a", encoding="utf-8") as project:
        project.write("# changed\n")
    changed = run(checkout, "demo", "0", environ=environ, cwd=elsewhere)
    assert changed.returncode == 0
    assert "installing musichal[sound]" in changed.stdout
    assert keepsake.exists()  # installed into the same environment

    ready = script.Environment(checkout, environ)
    assert ready.ready("sound")
    assert not ready.ready("dev")
    ready.write_note(complete=False, extras=set())  # what an interrupted installation leaves
    mended = run(checkout, "demo", "0", environ=environ, cwd=elsewhere)
    assert mended.returncode == 0
    assert "afresh" in mended.stdout
    assert not keepsake.exists()


@pytest.mark.parametrize("without", [("ensurepip",), ("ensurepip", "--python")], ids=["pip of this Python", "pip of the index"])
def test_pip_is_found_where_python_has_no_ensurepip(
    tmp_path: Path, index: str, script: ModuleType, monkeypatch: pytest.MonkeyPatch, without: tuple[str, ...]
) -> None:
    """Debian and Ubuntu leave ensurepip, and often pip, out of Python; `without` are the ways that fail there."""
    checkout = make_checkout(tmp_path / "checkout")
    original = script.Environment._try
    tried: list[str] = []

    def attempt(self: object, command: list[str], **knobs: object) -> bool:
        way = "ensurepip" if "ensurepip" in command else "--python"
        tried.append(way)
        return way not in without and original(self, command, **knobs)

    monkeypatch.setattr(script.Environment, "_try", attempt)
    prepared = script.Environment(checkout, environment(index))
    prepared.prepare("dev")
    assert tried == ["ensurepip", "--python"]
    assert prepared.ready("dev")
    assert prepared.ready("sound")  # dev brings it
    log = prepared.log.read_text(encoding="utf-8")
    assert (".whl/pip" in log or ".whl\\pip" in log) == ("--python" in without)
    assert not list(prepared.venv.glob("*.whl"))


def test_a_wrong_hash_is_refused(tmp_path: Path, index: str, script: ModuleType) -> None:
    with pytest.raises(script.SetupError, match="SHA-256"):
        script.download_pip(tmp_path, environment(index.replace("/simple", "/wrong")))
    assert list(tmp_path.iterdir()) == []


def test_the_next_index_is_asked_and_no_password_is_shown(tmp_path: Path, index: str, script: ModuleType) -> None:
    environ = environment("http://user:secret@127.0.0.1:9/simple")
    with pytest.raises(script.SetupError, match="check the network") as caught:
        script.download_pip(tmp_path, environ)
    assert "secret" not in str(caught.value)
    assert script.download_pip(tmp_path, {**environ, "PIP_EXTRA_INDEX_URL": index}).is_file()


def test_the_newest_usable_pip_is_chosen(script: ModuleType) -> None:
    good, digest = "a" * 64, "b" * 64
    page = f"""
      <a href="pip-9.0.1-py3-none-any.whl#sha256={digest}">older, though 9 > 2 as text</a>
      <a href="../files/pip-25.1-py3-none-any.whl#sha256={good}" data-requires-python="&gt;=3.9">this one</a>
      <a href="pip-25.2rc1-py3-none-any.whl#sha256={digest}">not released</a>
      <a href="pip-25.3-py3-none-any.whl#sha256={digest}" data-yanked="">withdrawn</a>
      <a href="pip-25.4-py3-none-any.whl#sha256={digest}" data-requires-python="&gt;=3.15">for a newer Python</a>
      <a href="pip-25.5-py3-none-any.whl">without a hash</a>
      <a href="pip-25.6.tar.gz#sha256={digest}">not a wheel</a>
      <a href="https://elsewhere.example/pipe-26.0-py3-none-any.whl#sha256={digest}">another project</a>"""
    wheel = script.newest_pip(page, "https://index.example/simple/pip/", (3, 11))
    assert wheel == ("pip-25.1-py3-none-any.whl", "https://index.example/simple/files/pip-25.1-py3-none-any.whl", good)
    assert script.newest_pip("<p>Not found</p>", "https://index.example/simple/pip/", (3, 11)) is None


def test_what_pip_was_told_holds(tmp_path: Path, script: ModuleType) -> None:
    config = tmp_path / "pip.conf"
    config.write_text("[global]\nindex-url = https://one.example/simple\ncert = /x.pem\n[install]\ncert = /y.pem\n", "utf-8")
    environ = {"PIP_CONFIG_FILE": str(config)}
    assert script.pip_setting("index-url", environ) == "https://one.example/simple"
    assert script.pip_setting("cert", environ) == "/y.pem"
    assert script.pip_setting("index-url", {**environ, "PIP_INDEX_URL": "https://two.example"}) == "https://two.example"
    assert script.pip_setting("index-url", {"PIP_CONFIG_FILE": os.devnull}) == ""
    config.write_text("no section", "utf-8")
    assert script.pip_setting("no-such-setting", environ) == ""


def test_the_users_python_settings_stay_outside(script: ModuleType, tmp_path: Path) -> None:
    clean = script.clean_environment({"PYTHONPATH": "/x", "PIP_TARGET": "/y", "PIP_USER": "1", "PATH": "/bin"}, tmp_path)
    assert not {"PYTHONPATH", "PIP_TARGET"} & clean.keys()
    assert clean["PIP_USER"] == "0"
    assert clean["PATH"].split(os.pathsep) == [str(script.scripts(tmp_path)), "/bin"]


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path, script: ModuleType) -> None:
    checkout = make_checkout(tmp_path / "checkout")
    thesis = checkout / ".venv" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.touch()
    answer = run(checkout, "demo", environ=dict(os.environ), cwd=tmp_path)
    assert answer.returncode == 2
    assert "move it away" in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
    assert thesis.exists()


def test_a_pip_that_fails_shows_its_last_lines_and_what_to_do(tmp_path: Path) -> None:
    checkout = make_checkout(tmp_path / "checkout")
    (checkout / "pyproject.toml").write_text(PROJECT.replace("requires = []", 'requires = ["hatchling"]'), encoding="utf-8")
    environ = environment("http://127.0.0.1:9/simple")
    answer = run(checkout, "demo", environ=environ, cwd=tmp_path)
    assert answer.returncode == 2
    assert "hatchling" in answer.stderr
    assert answer.stderr.splitlines()[-1].startswith("run.py: ")
    assert json.loads((checkout / ".venv" / "musichal-setup.json").read_text("utf-8"))["complete"] is False


@pytest.mark.skipif(os.name == "nt", reason="no process groups to interrupt")
def test_ctrl_c_reaches_the_command_and_its_exit_code_comes_back(prepared: Path, index: str) -> None:
    environ = environment(index)
    command = [sys.executable, str(prepared / "run.py"), "demo", "wait"]
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    with process.stdout as output:
        assert any(line.strip() == "started" for line in output)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(30) == 42


@pytest.mark.skipif(os.name == "nt", reason="no process groups to interrupt")
def test_ctrl_c_while_setting_up_is_mended_by_the_next_run(tmp_path: Path, index: str) -> None:
    checkout, environ = make_checkout(tmp_path / "checkout"), environment(index)
    command = [sys.executable, str(checkout / "run.py"), "demo", "0"]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, env=environ, text=True, start_new_session=True, **pipes)
    log = checkout / ".venv" / "musichal-setup.log"
    while not log.exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "run.py: stopped while setting up; run the same command to start again"
    assert run(checkout, "demo", "0", environ=environ, cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]", "PIP_CERT"),
        ("NewConnectionError: [Errno -3] Temporary failure in name resolution", "network"),
        ("ERROR: No matching distribution found for symusic==0.5.8", "no symusic==0.5.8 for this Python"),
        ("ERROR: Failed building wheel for numpy", "Python 3.11 or 3.12"),
        ("something new", "lines above"),
    ],
)
def test_advice_fits_the_trouble(script: ModuleType, output: str, words: str) -> None:
    assert words in script.advice(["Collecting things", output, "the end"])


def test_usage(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--help"]) == 0
    assert script.main([]) == 2
    assert script.main(["dance"]) == 2
    assert "'dance'" in capsys.readouterr().err


def test_an_older_python_can_read_the_script_far_enough_to_be_told() -> None:
    tree = ast.parse((ROOT / "run.py").read_text(encoding="utf-8"), feature_version=(3, 7))
    check = next(number for number, node in enumerate(tree.body) if isinstance(node, ast.If))
    assert "version_info" in ast.unparse(tree.body[check])
    assert all(isinstance(node, ast.Import | ast.ImportFrom | ast.Expr) for node in tree.body[:check])


def test_what_the_script_knows_of_the_project_is_true(script: ModuleType) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for extra, included in script.INCLUDES.items():
        assert included - {extra} == {other for other in extras if f"musichal[{other}]" in extras[extra]}
    assert {script.plan(command, [], ROOT, ROOT)[0] for command in ("demo", "test", "check")} == {"sound", "dev"}
