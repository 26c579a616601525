"""What the demo and each mode play stays what it was, offline and replayed; `tools/golden.py` freezes it anew."""

import json
from pathlib import Path

import golden
import pytest
from typer.testing import CliRunner

from heard_once import hear_once
from musichal.cli import app

KERNELS = {
    "": {},
    "Haswell": {"OPENBLAS_CORETYPE": "Haswell"},
    # An old processor: no vector instructions beyond SSE in OpenBLAS, and none but its baseline in NumPy.
    "Prescott": {"OPENBLAS_CORETYPE": "Prescott", "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"},
}


MODES = {"": golden.MODES, "Haswell": ("couple",), "Prescott": ("shadow", "contrast")}
"""What is played under each kernel: every mode under the usual one, a few under the others."""


def in_this_process(*arguments: str | Path) -> None:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output


@pytest.mark.slow(25)
@pytest.mark.parametrize("kernel", KERNELS)
def test_golden_bytes_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: str) -> None:
    """Under the usual kernel what all modes hear is heard once, in this process; under the others each command hears."""
    for name, value in KERNELS[kernel].items():
        monkeypatch.setenv(name, value)
    frozen = json.loads(golden.GOLDEN.read_text("utf-8"))
    wanted = {name: value for name, value in frozen.items() if name.partition("/")[0] in ("demo", *MODES[kernel])}
    run = golden.musichal
    if not kernel:
        hear_once(monkeypatch)
        run = in_this_process
    assert golden.golden(tmp_path, modes=MODES[kernel], run=run) == wanted
    assert kernel or wanted == frozen
