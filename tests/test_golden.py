"""What the demo and each mode play stays what it was, offline and replayed; `tools/golden.py` freezes it anew."""

import json
from pathlib import Path

import golden
import pytest


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["", "Haswell"])
def test_golden_bytes_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: str) -> None:
    if kernel:
        monkeypatch.setenv("OPENBLAS_CORETYPE", kernel)
    assert golden.golden(tmp_path) == json.loads(golden.GOLDEN.read_text("utf-8"))
