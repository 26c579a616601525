"""Any name that a file system takes: through training, playing, sessions, pictures and reports, and back."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from musichal.cli import app
from musichal.memory.partner_file import load_partner
from musichal.text import path_text, printable, shortened, text_path

pytestmark = pytest.mark.usefixtures("heard_once")

NAMES = [
    "夜\u3000曲",
    "a\u00a0b\u202fc",
    "family 👨\u200d👩\u200d👧 🏴\U000e0067\U000e0062",
    "می\u200cخواهم",
    "שלום \u200fאבג",
    "e\u0301te\u0301 … café",
    "-dash",
    "--help",
    "[take 1] (live)",
    "[bold]red[/bold] :bell: $x$ 100% {0} &amp; <b>",
    " spaces at the ends ",
    'quote\'s "double"',
    "new in Unicode 17 \U0001fac8 \ue000",
    "ü" * 125,
    "CON.nul",
    "a.b.c.",
]
POSIX_ONLY = [
    "line\nfeed\ttab",
    "back\\slash",
    "bell\x07 \x1b[31mred",
    os.fsdecode(b"latin-1 caf\xe9"),
    os.fsdecode(b"\xff\xfe"),
]


def run(*arguments: object):
    return CliRunner().invoke(app, [os.fspath(a) if isinstance(a, Path) else str(a) for a in arguments])


def places(folder: Path) -> list[Path]:
    """Return a path for each name that this system takes."""
    found = []
    for name in NAMES + (POSIX_ONLY if sys.platform == "linux" else []):
        path = folder / f"{name}.wav"
        try:
            path.touch()
        except OSError:
            continue
        found.append(path)
    return found


def test_names_are_told_as_one_line_and_come_back(tmp_path):
    for path in places(tmp_path):
        assert text_path(path_text(path)) == path
        path_text(path).encode()
        assert len(printable(path).splitlines()) == 1
        assert len(os.fsencode(shortened(path.stem))) <= 200


def test_a_folder_of_any_names_trains_and_keeps_them(tmp_path, short_mix):
    (tmp_path / "in").mkdir()
    paths = places(tmp_path / "in")
    samples, rate = soundfile.read(short_mix, dtype="float32")
    for number, path in enumerate(paths):
        soundfile.write(path.with_name("x.wav"), np.roll(samples, 1000 * number)[: rate // 2], rate)
        path.with_name("x.wav").replace(path)
    assert len(paths) >= 10
    result = run("train", tmp_path / "in", "-o", tmp_path / "p.hal")
    assert result.exit_code == 0, result.output
    names = [recording.name for recording in load_partner(tmp_path / "p.hal").recordings]
    assert sorted(names) == sorted(printable(path.name) for path in paths)
    for arguments in (("inspect", "--picture", tmp_path / "p.svg"), ("inspect", "--json")):
        result = run(*arguments[:1], tmp_path / "p.hal", *arguments[1:])
        assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    "name",
    [
        "夜\u3000 \u202f\u200d 曲",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("[take 1] (live)", os.fsdecode(b"caf\xe9 \xff"))),
    ],
)
def test_a_session_of_any_name_plays_again(name, tmp_path, trained_path, short_guitar):
    folder = tmp_path / name
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this system has no such names")
    shutil.copy(trained_path, partner := folder / f"{name}.hal")
    shutil.copy(short_guitar, player := folder / f"{name}.ogg")
    outputs = ("--session", folder / "s", "--midi-out", folder / f"{name}.mid", "--picture", folder / f"{name}.png")
    for arguments in (
        ("play", "--input", player, *outputs, "--", partner),
        ("replay", folder / "s", "--midi-out", folder / "again.mid"),
        ("explain", folder / "s"),
        ("explain", folder / "s", "--at", "3", "--listen", folder / "listen"),
    ):
        result = run(*arguments)
        assert result.exit_code == 0, result.output
        assert not result.exception
