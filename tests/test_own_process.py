"""Child processes import nothing from the current folder, and BLAS uses one thread where MusicHal computes."""

import os
import re
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import pytest

from musichal.machine import THREAD_SETTINGS, command, processors, starting_children

SRC = Path(__file__).resolve().parents[1] / "src"
HOSTILE = ("json", "multiprocessing", "socket", "threading", "random", "queue")


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder of modules that say so when they are executed."""
    for name in HOSTILE:
        (tmp_path / f"{name}.py").write_text("import pathlib\npathlib.Path(__file__).with_name('executed').touch()\n")
    return tmp_path


@pytest.mark.parametrize("program", [[str(Path(sys.executable).with_name("musichal"))], [sys.executable, "-m", "musichal"]])
def test_devices_executes_nothing_of_the_current_folder(hostile: Path, program: list[str]) -> None:
    """`devices` starts the input process and the scheduler process."""
    environ = {**os.environ, "PYTHONPATH": str(SRC)}
    done = subprocess.run([*program, "devices"], cwd=hostile, env=environ, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    assert not (hostile / "executed").exists()


def test_a_spawned_process_executes_nothing_of_the_current_folder(hostile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(hostile)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    with starting_children():
        process = get_context("spawn").Process(target=print)
        process.start()
    process.join(60)
    assert process.exitcode == 0
    assert not (hostile / "executed").exists()


def test_children_are_started_in_one_way_only() -> None:
    """By `machine.command`, and pools of `multiprocessing` within `starting_children`."""
    for path in SRC.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path.name not in ("machine.py", "errors.py"):
            assert not re.search(r"""sys\.executable|['"]-m['"]""", text), path
        if re.search(r"get_context|ProcessPool|Process\(target|import multiprocessing", text):
            assert "starting_children(" in text, path
    assert command("musichal")[1] == "-P"


_PROGRAM = """
import sys
import numpy as np
import scipy.linalg
from threadpoolctl import threadpool_info
import soundfile
from musichal.audio.recording import read_recording
from musichal.live.engine import perform
from musichal.machine import single_blas_thread
from musichal.partner.settings import PartnerSettings
from musichal.spec import PerceptionSpec
from musichal.training.trainer import train

def threads():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]

before, found = threads(), []
assert len(before) > 0 and set(before) == {int(sys.argv[1])}, before
noise = np.random.default_rng(0).normal(0, 0.1, 3 * 24000).astype(np.float32)
soundfile.write("noise.wav", noise, 24000)
recording = read_recording("noise.wav")
model = train([recording], PerceptionSpec(), progress=lambda *_: found.append(threads()))
settings = PartnerSettings()
perform(model, noise, sample_rate_hz=24000, settings=settings, seed=0, progress=lambda *_: found.append(threads()))
with single_blas_thread():
    with single_blas_thread():
        pass
    found.append(threads())
assert len(found) > 3 and all(set(some) == {int(sys.argv[2])} for some in found), found
assert threads() == before
"""


@pytest.mark.skipif(processors() < 2, reason="needs two processors")
@pytest.mark.parametrize(("asked", "before", "within"), [({}, None, 1), ({"OPENBLAS_NUM_THREADS": "2"}, 2, 2)])
def test_training_and_playing_use_one_blas_thread(
    tmp_path: Path, asked: dict[str, str], before: int | None, within: int
) -> None:
    """As a library too, and only meanwhile; an environment variable takes precedence."""
    environ = {name: value for name, value in os.environ.items() if name not in THREAD_SETTINGS}
    arguments = [str(before or processors()), str(within)]
    program, environ = [sys.executable, "-c", _PROGRAM, *arguments], {**environ, **asked}
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False, env=environ)
    assert not done.returncode, done.stderr
