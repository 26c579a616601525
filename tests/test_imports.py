"""The house stays a house: imports point one way, the core stays light, and some things are nowhere."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src"

# A room may import itself and rooms of a lower floor; rooms on one floor do not know each other.
FLOORS = (
    ("", "errors", "arrays"),  # "" is `import musichal`, for the version
    ("text",),
    ("spec", "note", "pulse", "parameters", "atomic", "machine"),
    ("audio",),
    ("hearing",),
    ("memory",),
    ("partner",),
    ("training",),
    ("live",),
    ("evaluate",),
    ("plots",),
    ("web",),
    ("api",),
    ("plot",),
    ("commands",),
    ("cli",),
    ("__main__",),
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

# What the core must start without: extras, and what is slow to import or heavy to install.
HEAVY = {"torch", "torchaudio", "transformers", "librosa", "numba", "sklearn", "music21", "symusic", "pretty_midi", "vmo"}
HEAVY |= {
    "sounddevice",
    "rtmidi",
    "rtmidi2",
    "pythonosc",
    "jack",
    "fluidsynth",
}  # and the libraries of the system that they need
HEAVY |= {"huggingface_hub", "onnxruntime", "openvino", "aalink"}
PICKLING = {"pickle", "cPickle", "_pickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"}


@cache
def modules(src: Path) -> list[tuple[str, bool, ast.Module]]:
    """Return the dotted name of each module of the package, whether it is a package, and its syntax tree."""
    found = []
    for path in sorted((src / "musichal").rglob("*.py")):
        parts = path.relative_to(src).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        tree = ast.parse(path.read_text("utf-8"), str(path))
        found.append((".".join(parts[:-1] if is_package else parts), is_package, tree))
    return found


@cache
def nodes(tree: ast.Module) -> list[ast.AST]:
    return list(ast.walk(tree))


def last_name(of: ast.expr) -> str:
    """Return what stands behind the last dot of an expression, or all of it, if it is a name; "" for another one."""
    return of.attr if isinstance(of, ast.Attribute) else of.id if isinstance(of, ast.Name) else ""


def imported(name: str, is_package: bool, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield (line, module) of every import, wherever it stands: in functions, under TYPE_CHECKING, by importlib."""
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = name.split(".")[: None if is_package else -1]
            start = ".".join(base[: len(base) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [start, node.module]))
            # `from musichal import spec` imports the module musichal.spec
            yield from ((node.lineno, f"{module}.{alias.name}" if module == "musichal" else module) for alias in node.names)
        elif isinstance(node, ast.Call) and last_name(node.func) in ("import_module", "__import__"):
            yield from ((node.lineno, arg.value) for arg in node.args[:1] if isinstance(arg, ast.Constant))


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and not parts[1].startswith("__version") else ""


def upward_imports(src: Path) -> list[str]:
    """Return each import that does not point downwards, as `module:line imports module`."""
    found = []
    for name, is_package, tree in modules(src):
        if name == "musichal":  # the public names, each loaded when it is first used
            continue
        for line, target in imported(name, is_package, tree):
            if target.split(".")[0] != "musichal":
                continue
            mine, theirs = room_of(name), room_of(target)
            unknown = {mine, theirs} - FLOOR_OF.keys()
            if unknown:
                found.append(f"{name}:{line} imports {target}: {sorted(unknown)} has no floor in FLOORS")
            elif mine != theirs and FLOOR_OF[theirs] >= FLOOR_OF[mine]:
                found.append(f"{name}:{line} imports {target}")
    return found


def offences(name: str, tree: ast.Module) -> Iterator[str]:
    """Yield what must be nowhere in the package: prints, code from data, hidden state, sleeping where sound passes."""
    sleepless = name.startswith(("musichal.hearing", "musichal.audio", "musichal.live.engine", "musichal.live.input"))
    for line, module in imported(name, False, tree):
        if module.split(".")[0] in PICKLING:
            yield f"{name}:{line} imports {module}: data must never be able to run code"
    for node in nodes(tree):
        where = f"{name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "eval", "exec"):
            yield f"{where} calls {node.func.id}()"
        if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
            yield f"{where} passes trust_remote_code"
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            yield f"{where} allows pickles"
        if isinstance(node, ast.Global):
            yield f"{where} changes module state with `global`"
        if sleepless and isinstance(node, ast.Attribute) and node.attr == "sleep" and ast.unparse(node) == "time.sleep":
            yield f"{where} sleeps in the audio path"
        if sleepless and isinstance(node, ast.ImportFrom) and node.module == "time":
            yield from (f"{where} imports sleep" for alias in node.names if alias.name == "sleep")
    for node in tree.body:  # a table is a constant and is named like one; anything else that can change is state
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        value = getattr(node, "value", None)
        changeable = isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp)
        for target in targets if changeable else []:
            if isinstance(target, ast.Name) and not target.id.isupper() and not target.id.startswith("__"):
                yield f"{name}:{node.lineno} keeps changeable state in {target.id}"


def _house(tmp_path: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = tmp_path / "musichal" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def test_imports_point_one_way() -> None:
    assert upward_imports(SRC) == []


@pytest.mark.parametrize(
    "text",
    [
        "import musichal.live.engine",
        "from musichal.live import engine",
        "from musichal import live",
        "from ..live.engine import Engine",
        "from .. import live",
        "def late():\n    from musichal.live import engine",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import musichal.live",
        "import importlib\nimportlib.import_module('musichal.live')",
        "from musichal.cli import main",
    ],
)
def test_an_upward_import_is_found(tmp_path: Path, text: str) -> None:
    found = upward_imports(_house(tmp_path, {"__init__.py": "", "memory/columns.py": text}))
    assert len(found) == 1
    assert found[0].startswith("musichal.memory.columns:")


def test_neighbours_on_one_floor_and_unknown_rooms_are_found(tmp_path: Path) -> None:
    house = _house(tmp_path, {"plots/parity.py": "import musichal.commands", "attic/box.py": "import musichal.spec"})
    places = [line.split(" imports ")[0] for line in upward_imports(house)]
    assert places == ["musichal.attic.box:1", "musichal.plots.parity:1"]


def test_a_downward_import_is_fine(tmp_path: Path) -> None:
    text = "import numpy\nfrom musichal import __version__, spec\nfrom musichal.hearing import percepts\nfrom . import x"
    assert upward_imports(_house(tmp_path, {"memory/__init__.py": text, "memory/columns.py": text})) == []


def test_nothing_forbidden_is_in_the_package() -> None:
    assert [offence for name, _, tree in modules(SRC) for offence in offences(name, tree)] == []


@pytest.mark.parametrize(
    "text",
    [
        "print('hello')",
        "import joblib",
        "def load():\n    from pickle import load",
        "eval('1')",
        "load(name, trust_remote_code=True)",
        "numpy.load(path, allow_pickle=True)",
        "def f():\n    global x\n    x = 1",
        "import time\ntime.sleep(1)",
        "from time import sleep",
        "cache = {}",
        "seen: list[int] = []",
    ],
)
def test_each_forbidden_thing_is_found(text: str) -> None:
    assert len(list(offences("musichal.hearing.ear", ast.parse(text)))) == 1


def test_what_is_allowed_passes() -> None:
    text = "TABLE = {1: 2}\n__all__ = ['x']\nconsole.print('x')\nnumpy.load(p, allow_pickle=False)\nmodel.eval()"
    assert list(offences("musichal.live.output.scheduler", ast.parse(text))) == []


def test_the_core_depends_on_nothing_heavy() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    names = {re.split(r"[^A-Za-z0-9_-]", line)[0].lower().replace("-", "_") for line in project["dependencies"]}
    assert names & (HEAVY | {"scikit_learn"}) == set()
    allowed = {
        "numpy",
        "scipy",
        "soxr",
        "soundfile",
        "mido",
        "safetensors",
        "matplotlib",
        "rich",
        "threadpoolctl",
        "tomlkit",
        "typer",
        "websockets",  # 226 kB and no dependencies of its own: an extra would cost its users more
    }
    assert names <= allowed, "a new core dependency is a decision: write it down here too"


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    """Every module can be imported, those of the commands too, and none but the benchmarks brings in an extra."""
    names = [name for name, _, _ in modules(SRC) if room_of(name) not in ("__main__",)]
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\nprint(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert {name.split(".")[0] for name in answer.stdout.split()} & HEAVY == set()
