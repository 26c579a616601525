"""`run.py` sets a machine up: tested on a tiny checkout with a real pip and no network."""

import ast
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import zipfile
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
    shutil.copytree(ROOT / "tools" / "bootstrap", folder / "tools" / "bootstrap")
    (folder / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    (folder / "backend.py").write_text(BACKEND, encoding="utf-8")
    (folder / "src" / "musichal" / "__init__.py").touch()
    (folder / "src" / "musichal" / "cli.py").write_text(CLI, encoding="utf-8")
    return folder


def user_environment() -> dict[str, str]:
    """The environment of a user whose pip finds packages in one folder only, where nothing but pip is."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return {
        **kept,
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": (ROOT / "tools" / "bootstrap").as_uri(),
        "PIP_NO_COMPILE": "1",
        "PYTHONPATH": "/nowhere",
    }


def run(checkout: Path, *arguments: str, environ: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(checkout / "run.py"), *arguments]
    return subprocess.run(command, env=environ, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout, in a folder with spaces, in which `run.py demo` has been run once from elsewhere."""
    checkout, elsewhere = make_checkout(tmp_path_factory.mktemp("a") / "check out"), tmp_path_factory.mktemp("else where")
    first = run(checkout, "demo", "7", environ=user_environment(), cwd=elsewhere)
    assert first.returncode == 7, first.stderr + first.stdout
    assert "making a virtual environment" in first.stdout
    assert f"demo in {elsewhere} with ['demo', '7']" in first.stdout
    return checkout


def test_a_checkout_is_set_up_once_and_again_when_it_changes(prepared: Path, tmp_path: Path, script: ModuleType) -> None:
    checkout, elsewhere, environ = prepared, tmp_path, user_environment()

    second = run(checkout, "demo", "0", environ=environ, cwd=elsewhere)
    assert second.returncode == 0
    assert second.stdout.startswith("demo in")  # nothing was set up

    keepsake = checkout / ".venv" / "keepsake" / "deep"
    keepsake.mkdir(parents=True)
    with (checkout / "pyproject.toml").open("a", encoding="utf-8") as project:
        project.write("# changed\n")
    changed = run(checkout, "demo", "0", environ=environ, cwd=elsewhere)
    assert changed.returncode == 0
    assert "installing musichal[sound]" in changed.stdout
    assert keepsake.exists()  # installed into the same environment

    setup = script.Setup(checkout, environ)
    assert setup.ready("sound")
    assert not setup.ready("dev")
    setup.stamp.write_text("{}", encoding="utf-8")  # what an interrupted installation leaves
    mended = run(checkout, "demo", "0", environ=environ, cwd=elsewhere)
    assert mended.returncode == 0
    assert "afresh" in mended.stdout
    assert not keepsake.exists()


@pytest.mark.parametrize("missing", [(), ("ensurepip",), ("ensurepip", "--python")], ids=["ensurepip", "own pip", "wheel"])
def test_pip_is_found_where_python_lacks_it(
    tmp_path: Path, script: ModuleType, monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...]
) -> None:
    """Debian and Ubuntu leave ensurepip, and often pip, out of Python; `missing` are the ways that fail there."""
    checkout = make_checkout(tmp_path / "checkout")
    really_try = script.Setup._try
    monkeypatch.setattr(
        script.Setup, "_try", lambda self, command: not set(missing) & set(command) and really_try(self, command)
    )
    setup = script.Setup(checkout, user_environment())
    setup.prepare("dev")
    assert setup.ready("dev")
    assert setup.ready("sound")  # dev brings it
    commands = [line for line in setup.log.read_text(encoding="utf-8").splitlines() if line.startswith("$ ")]
    assert len(commands) == 3  # the environment, pip, the project
    assert [" -m ensurepip ", " -m pip --python ", f".whl{os.sep}pip install "][len(missing)] in commands[1]


def test_a_wheel_with_other_bytes_is_not_run(tmp_path: Path, script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = make_checkout(tmp_path / "checkout")
    with (checkout / script.PIP_WHEEL).open("ab") as wheel:
        wheel.write(b"\0")
    monkeypatch.setattr(script.Setup, "_try", lambda *_: False)
    setup = script.Setup(checkout, user_environment())
    with pytest.raises(script.SetupError, match="SHA-256"):
        setup.prepare("sound")
    assert ".whl" not in setup.log.read_text(encoding="utf-8")


def test_the_wheel_of_pip_is_the_one_that_its_readme_names_and_has_its_licence(script: ModuleType) -> None:
    wheel = ROOT / script.PIP_WHEEL
    assert list(wheel.parent.glob("*.whl")) == [wheel]
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() == script.PIP_SHA256
    assert f"{script.PIP_SHA256}  {wheel.name}\n" in (wheel.parent / "README.md").read_text(encoding="utf-8")
    with zipfile.ZipFile(wheel) as content:
        licence = next(name for name in content.namelist() if name.endswith(".dist-info/licenses/LICENSE.txt"))
        assert content.read(licence).decode().split() == (wheel.parent / "LICENSE.txt").read_text(encoding="utf-8").split()


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
    answer = run(checkout, "demo", environ=user_environment(), cwd=tmp_path)
    assert answer.returncode == 2
    assert "the index has no hatchling" in answer.stderr
    assert answer.stderr.splitlines()[-1].startswith("run.py: pip could not install")
    assert json.loads((checkout / ".venv" / "musichal-setup.json").read_text("utf-8")) == {}


@pytest.mark.skipif(os.name == "nt", reason="no process groups to interrupt")
def test_ctrl_c_reaches_the_command_and_its_exit_code_comes_back(prepared: Path) -> None:
    environ = user_environment()
    command = [sys.executable, str(prepared / "run.py"), "demo", "wait"]
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    with process.stdout as output:
        assert any(line.strip() == "started" for line in output)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(120) == 42


@pytest.mark.skipif(os.name == "nt", reason="no process groups to interrupt")
def test_ctrl_c_while_setting_up_is_mended_by_the_next_run(tmp_path: Path) -> None:
    checkout, environ = make_checkout(tmp_path / "checkout"), user_environment()
    command = [sys.executable, str(checkout / "run.py"), "demo", "0"]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, env=environ, text=True, start_new_session=True, **pipes)
    log = checkout / ".venv" / "musichal-setup.log"
    while not log.exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
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
    assert {script.plan(command, [], ROOT)[0] for command in ("demo", "test", "check")} == {"sound", "dev"}
    own = next(entry for entry in extras["dev"] if entry.startswith("musichal["))
    assert "sound" in own.removeprefix("musichal[").removesuffix("]").split(",")
    # With no word of the user's, real time comes after everything else, and nothing is left out but the slow ones.
    at_once, in_time = script.plan("test", [], ROOT)[1]
    assert "not slow and not live" in at_once and "--cov-append" not in at_once
    assert "live and not slow" in in_time and "--cov-append" in in_time and "-n" not in in_time
    assert [c[-2:] for c in script.plan("test", ["-k", "roll"], ROOT)[1]] == [["-k", "roll"]]
