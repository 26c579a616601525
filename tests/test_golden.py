"""What the demo and each mode play stays what it was, byte for byte, offline and replayed; `tools/golden.py` freezes it anew."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

import golden


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["", "Haswell"])
def test_golden_bytes_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: str) -> None:
    if kernel:
        monkeypatch.setenv("OPENBLAS_CORETYPE", kernel)
    assert golden.golden(tmp_path) == json.loads(golden.GOLDEN.read_text("utf-8"))
