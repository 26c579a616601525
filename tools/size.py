"""Print the size of MusicHal: `python tools/size.py [--durations FILE] [--rooms]`.

`--durations` names the output of the suite, whose closing line says how long it took. The block path is the page of docs/ with
the line ``<!-- block path -->``: each function of the package that its table numbers counts.
"""

import argparse
import ast
import re
import tomllib
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src" / "musichal"
_PITCHED = {"onset_s", "start_s", "offset_s", "duration_s", "velocity"}


def functions(tree: ast.Module) -> set[str]:
    """Return the names of functions and, as ``Class.method``, of methods."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
    return found


def note_types(tree: ast.Module) -> list[str]:
    """Return classes that are a note: with a pitch and at least two of onset, duration and velocity."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            fields = {
                part.target.id for part in node.body if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
            }
            if "pitch" in fields and len(fields & _PITCHED) > 1:
                found.append(node.name)
    return found


def kinds_of_lines(text: str, tree: ast.Module) -> Counter[str]:
    """Return how many lines of a module are docstrings, blank, imports, and code (with comments)."""
    found = Counter(lines=len(text.splitlines()), blank=sum(not line.strip() for line in text.splitlines()))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False) is not None:
            first = node.body[0]
            found["docstrings"] += (first.end_lineno or first.lineno) - first.lineno + 1
            found["blank"] -= (ast.get_docstring(node, clean=False) or "").count("\n\n")
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    found["imports"] = sum((node.end_lineno or node.lineno) - node.lineno + 1 for node in imports)
    found["code"] = found["lines"] - found["docstrings"] - found["blank"] - found["imports"]
    return found


def block_path(names: set[str]) -> str:
    """Return how many functions the page about the block path walks."""
    for page in sorted((ROOT / "docs").rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        if "<!-- block path -->" in text:
            spans = set(re.findall(r"^\| \d+ \| `([\w.]+)`", text, re.MULTILINE))
            walked = {span for span in spans if span in names or ".".join(span.split(".")[-2:]) in names}
            return f"{len(walked)} ({page.relative_to(ROOT)})"
    return "no page has the line <!-- block path -->"


def wheel() -> str:
    """Return the packages that the wheel holds, with their files of data, and what of the repository stays outside."""
    built = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    held = [ROOT / package for package in built["packages"]]
    files = [path for folder in held for path in folder.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}]
    outside = [name for name in ("benchmarks", "docs", "tests", "tools") if ROOT / name not in held]
    data_mb = sum(path.stat().st_size for path in files) / 1e6
    names = ", ".join(folder.name for folder in held)
    return f"{names}, with {len(files)} files of data ({data_mb:.1f} MB); without {', '.join(outside)}"


def suite_time(output: Path | None) -> str:
    """Return what pytest's closing line says."""
    lines = output.read_text(encoding="utf-8").splitlines() if output else []
    closing = [line.strip("= ") for line in lines if re.search(r"\d+ passed.* in [\d.]+s", line)]
    return closing[-1] if closing else "not given (--durations FILE)"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Print the size of MusicHal.")
    parser.add_argument("--durations", type=Path, help="output of the test suite")
    parser.add_argument("--rooms", action="store_true", help="lines and modules of each room too")
    options = parser.parse_args()
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sorted(SRC.rglob("*.py"))}
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in lines}
    names = {name for tree in trees.values() for name in functions(tree)}
    notes = [f"{path.stem}.{name}" for path, tree in trees.items() for name in note_types(tree)]
    over = [f"{path.relative_to(SRC)} {n}" for path, n in lines.items() if n > 500]
    under = [f"{path.relative_to(SRC)} {n}" for path, n in lines.items() if n < 30 and path.name != "__init__.py"]
    tests = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / "tests").rglob("*.py"))
    rows = [
        ("lines in the package", f"{sum(lines.values()):,}", "≤ 25,000"),
        ("modules", str(len(lines)), "≤ 110"),
        ("modules over 500 lines", f"{len(over)}  {', '.join(over)}", "0"),
        ("modules under 30 lines", f"{len(under)}  {', '.join(under)}", "0"),
        ("types for a note", f"{len(notes)}  {', '.join(notes)}", "3"),
        ("functions on the block path", block_path(names), "≤ 30"),
        ("suite", suite_time(options.durations), "≤ 240 s"),
        ("wheel holds", wheel(), "product"),
        ("lines in tests", f"{tests:,}", ""),
    ]
    for name, value, goal in rows:
        print(f"{name:28}{goal:10}{value}")
    if options.rooms:
        rooms: dict[str, Counter[str]] = {}
        for path, tree in trees.items():
            parts = path.relative_to(SRC).parts
            room = rooms.setdefault(parts[0] if len(parts) > 1 else "(top)", Counter())
            room.update(kinds_of_lines(path.read_text(encoding="utf-8"), tree), modules=1)
        columns = ("modules", "lines", "code", "docstrings", "blank", "imports")
        print(f"\n{'':12}" + "".join(f"{name:>12}" for name in columns))
        rooms["all"] = sum(rooms.values(), Counter())
        for name, room in sorted(rooms.items(), key=lambda item: -item[1]["lines"]):
            print(f"{name:12}" + "".join(f"{room[column]:12,}" for column in columns))


if __name__ == "__main__":
    main()
