"""The page that walks a block from the sound card to the MIDI message names functions that exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROW = re.compile(r"^\| (\d+) \| `([\w.]+)`[^|]* \| `([\w/.]+)` \|", re.MULTILINE)


def functions(path: Path) -> set[str]:
    """Return the names of a module's functions, methods as ``Class.method``."""
    found = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
    return found


def test_each_step_is_a_function_and_there_are_at_most_thirty():
    page = (ROOT / "docs" / "explanation" / "block-path.md").read_text("utf-8")
    steps = ROW.findall(page)
    assert [int(number) for number, _, _ in steps] == list(range(1, len(steps) + 1))
    assert 25 <= len(steps) <= 30
    for _, name, file in steps:
        assert name in functions(ROOT / "src" / "musichal" / file), f"{file} has no {name}"
