"""`run.py` sets a bare checkout up with the bundled pip: tested on a tiny project, without a network."""

import ast
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

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
# The smallest build backend that installs a checkout in place.
BACKEND = """\
import pathlib, zipfile

def build_editable(folder, config_settings=None, metadata_directory=None):
    files = {
        "musichal.pth": str(pathlib.Path("src").resolve()),
        "musichal-1.dist-info/METADATA": "Metadata-Version: 2.1\\nName: musichal\\nVersion: 1\\nProvides-Extra: sound\\n",
        "musichal-1.dist-info/WHEEL": "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }
    files["musichal-1.dist-info/RECORD"] = "".join(f"{name},,\\n" for name in [*files, "musichal-1.dist-info/RECORD"])
    with zipfile.ZipFile(pathlib.Path(folder) / "musichal-1-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
    return "musichal-1-py3-none-any.whl"
"""
# `demo 7` ends with 7; `demo wait` ends with 42 on Ctrl-C.
MAIN = """\
import pathlib, sys, time
try:
    print("started in", pathlib.Path.cwd(), flush=True)
    time.sleep(60 if sys.argv[2] == "wait" else 0)
except KeyboardInterrupt:
    sys.exit(42)
sys.exit(int(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a") / "check out"
    (folder / "src" / "musichal").mkdir(parents=True)
    shutil.copy(ROOT / "run.py", folder)
    shutil.copytree(ROOT / "tools" / "bootstrap", folder / "tools" / "bootstrap")
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "backend.py").write_text(BACKEND)
    (folder / "src" / "musichal" / "__init__.py").touch()
    (folder / "src" / "musichal" / "__main__.py").write_text(MAIN)
    return folder


def command(checkout: Path, *arguments: str) -> dict[str, object]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    environ |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_NO_COMPILE": "1", "PYTHONPATH": "/nowhere"}
    return {"args": [sys.executable, str(checkout / "run.py"), *arguments], "env": environ, "text": True}


def run(checkout: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(**command(checkout, *arguments), cwd=cwd, capture_output=True, check=False)  # type: ignore[call-overload]


@pytest.mark.slow
def test_a_checkout_is_set_up_once_and_again_when_it_changes_or_says_what_failed(checkout: Path, tmp_path: Path) -> None:
    first, second = (run(checkout, "demo", "7", cwd=tmp_path) for _ in range(2))
    assert first.returncode == second.returncode == 7, first.stderr
    assert first.stdout.startswith("Setting up")
    assert second.stdout == f"started in {tmp_path}\n"
    with (checkout / "pyproject.toml").open("a") as project:
        project.write("# changed\n")
    assert run(checkout, "demo", "0", cwd=tmp_path).stdout.startswith("Setting up")
    set_up = (checkout / "pyproject.toml").read_text()
    (checkout / "pyproject.toml").write_text(PROJECT.replace("requires = []", 'requires = ["hatchling"]'))
    failed = run(checkout, "demo", "0", cwd=tmp_path)
    assert failed.returncode == 1
    assert "hatchling" in failed.stderr
    assert "run the same command again" in failed.stderr
    (checkout / "pyproject.toml").write_text(set_up)
    process = subprocess.Popen(**command(checkout, "demo", "wait"), stdout=subprocess.PIPE, start_new_session=True)  # type: ignore[call-overload]
    with process.stdout:
        assert process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 42


def test_trouble_is_said(checkout: Path, tmp_path: Path) -> None:
    shutil.copytree(checkout, tmp_path / "c", ignore=shutil.ignore_patterns(".venv"))
    (tmp_path / "c" / ".venv").mkdir()
    (tmp_path / "c" / ".venv" / "thesis.txt").touch()
    refused = run(tmp_path / "c", "demo", "0", cwd=tmp_path)
    assert refused.returncode == 1
    assert "move it away" in refused.stderr
    assert (tmp_path / "c" / ".venv" / "thesis.txt").exists()
    usage = run(checkout, "dance", cwd=tmp_path)
    assert (usage.returncode, usage.stdout[:6]) == (2, "usage:")


def test_the_bundled_pip_is_the_one_its_readme_names_and_has_its_licence() -> None:
    (wheel,) = (ROOT / "tools" / "bootstrap").glob("*.whl")
    assert wheel.name in (ROOT / "run.py").read_text("utf-8")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert f"{digest}  {wheel.name}\n" in (wheel.parent / "README.md").read_text("utf-8")
    with zipfile.ZipFile(wheel) as content:
        licence = next(name for name in content.namelist() if name.endswith(".dist-info/licenses/LICENSE.txt"))
        assert content.read(licence).decode().split() == (wheel.parent / "LICENSE.txt").read_text("utf-8").split()


def test_an_older_python_reads_the_script_as_far_as_its_message() -> None:
    tree = ast.parse((ROOT / "run.py").read_text("utf-8"), feature_version=(3, 7))
    check = next(number for number, node in enumerate(tree.body) if isinstance(node, ast.If))
    assert "version_info" in ast.unparse(tree.body[check])
    assert all(isinstance(node, ast.Import | ast.ImportFrom | ast.Expr) for node in tree.body[:check])
