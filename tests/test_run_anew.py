"""A live test that fails while the machine keeps no time is run anew and told of; any other failure stays one (conftest.py)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TRIED = """
import conftest, pytest, time

conftest._waited_s = lambda: {share} * time.monotonic()
tried = []

@pytest.mark.{mark}
def test_it(record_property):
    record_property("xruns", {xruns})
    tried.append(1)
    assert len(tried) > {failures}, "not yet"
"""


@pytest.mark.parametrize(
    ("mark", "share", "xruns", "failures", "tries", "passes"),
    [
        ("live", 0.9, 0, 2, 3, True),
        ("live", 0.0, 1, 1, 2, True),
        ("live", 0.9, 1, 3, 3, False),
        ("live", 0.1, 0, 1, 1, False),
        ("slow", 0.9, 1, 1, 1, False),
    ],
)
def test_only_a_live_test_on_a_machine_that_kept_no_time_is_run_anew(tmp_path, mark, share, xruns, failures, tries, passes):
    path = tmp_path / "test_tried.py"
    path.write_text(TRIED.format(mark=mark, share=share, xruns=xruns, failures=failures))
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-c", str(ROOT / "pyproject.toml"), "-m", mark, str(path)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT), *filter(None, sys.path)])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ, cwd=tmp_path)
    assert done.returncode == (0 if passes else 1), done.stdout
    assert done.stdout.count("RunAnewWarning: it failed") == tries - 1
    assert ("1 passed" in done.stdout) == passes
