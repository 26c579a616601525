"""What README and docs tell a reader to type and to open is there, and works."""

import re
import shlex
import shutil
import tomllib
from pathlib import Path

import mido
import numpy as np
import pytest
import reference
import soundfile
import typer.main
from typer.testing import CliRunner

import musichal as mh
from conftest import _cut
from musichal.audio.recording import read_recording
from musichal.cli import app
from musichal.commands.reference import parameters_markdown

pytestmark = pytest.mark.usefixtures("heard_once")

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted((ROOT / "docs").rglob("*.md"))
GUIDES = [path for path in PAGES if "results" not in path.parts and path.name != "CHANGELOG.md"]


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[list[str]]:
    """Return the arguments of each `musichal` command in the shell blocks of a page."""
    lines = "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    lines = [line.partition(" > ")[0] for line in lines if line.startswith("musichal ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


EVERY_COMMAND = [(page.name, arguments) for page in GUIDES for arguments in commands(page)]


@pytest.mark.parametrize(("page", "arguments"), EVERY_COMMAND, ids=lambda value: " ".join(value) if type(value) is list else "")
def test_every_command_is_understood(page: str, arguments: list[str]) -> None:
    group = typer.main.get_command(app)
    context = group.make_context("musichal", list(arguments), resilient_parsing=True)
    name, command, rest = group.resolve_command(context, list(arguments))
    assert command is not None, f"{page}: no command {name}"
    command.make_context(name, rest, parent=context)


def test_the_readme_has_the_two_commands_and_ci_runs_them() -> None:
    readme, contributing, ci = ((ROOT / name).read_text("utf-8") for name in ("README.md", "CONTRIBUTING.md", ".ci/run"))
    assert "\npython3 run.py demo\n" in readme
    assert "python3 run.py test" in readme
    assert "python3 run.py check" in contributing
    for command in ("demo", "test"):
        assert f'"$python" run.py {command}' in ci


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs" / "tutorial" / "notebook.md"], ids=lambda path: path.name)
def test_the_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code is the page's; each example is cut to ten seconds."""
    examples = {name: _cut(mh.example(name), tmp_path / f"{name}.wav", 0, 10) for name in ("band", "guitar")}
    monkeypatch.setattr(mh, "example", examples.__getitem__)
    monkeypatch.chdir(tmp_path)
    code = "\n".join(blocks(page, "python"))
    assert "mh.train" in code
    exec(compile(code, str(page), "exec"), {"__name__": "page", "print": lambda *_: None})  # noqa: S102 - our own page


def test_the_generated_reference_is_current() -> None:
    assert reference.PAGE.read_text("utf-8") == reference.commands_page()
    assert reference.PARAMETERS_PAGE.read_text("utf-8") == parameters_markdown()


def test_every_table_is_toml() -> None:
    tables = [tomllib.loads(text) for page in GUIDES for text in blocks(page, "toml")]
    assert {"section", "cc", "voice", "chords", "ghost"} <= {key for table in tables for key in table}


def write_song(path: Path) -> None:
    """Write a MIDI file of sixteen bars of a random melody, and a piano that plays it an octave lower."""
    rng, track = np.random.default_rng(len(str(path))), mido.MidiTrack()
    for pitch, ticks in zip(rng.integers(55, 80, 64).tolist(), rng.choice([240, 480, 720], 64).tolist(), strict=True):
        track += [mido.Message("note_on", note=pitch), mido.Message("note_off", note=pitch, time=ticks)]
    piano = mido.MidiTrack([mido.MetaMessage("track_name", name="Piano"), *(m.copy(note=m.note - 12) for m in track)])
    mido.MidiFile(type=1, tracks=[track, piano], ticks_per_beat=480).save(path)


@pytest.mark.slow(45)
def test_the_commands_of_the_tutorial_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short_mix: Path, short_guitar: Path
) -> None:
    """Run every command that needs no device, in the order of the pages, in one folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(short_mix, "my-take.wav")
    shutil.copy(short_guitar, "guitar.wav")
    Path("more-takes").mkdir()
    for source, name in ((short_mix, "take1.wav"), (short_mix, "more-takes/take3.wav"), (short_guitar, "take2.wav")):
        _cut(source, Path(name), 0, 5)
    shutil.copy("take2.wav", "take2.flac")
    Path("more-songs").mkdir()
    for name in ("song.mid", "more-songs/other.mid", "take.mid"):
        write_song(Path(name))
    take = read_recording("take.mid")
    soundfile.write("take.wav", take.samples, take.sample_rate_hz)
    for page in GUIDES:
        for text in blocks(page, "toml"):
            (key,) = [k for k in ("section", "cc", "port", "voice", "chords", "ghost") if k in tomllib.loads(text)][:1]
            names = {"section": "form", "cc": "map", "port": "voices", "voice": "voices", "chords": "song", "ghost": "my-modes"}
            Path(f"{names[key]}.toml").write_text(text, "utf-8")
    ran = 0
    pages = [p for p in GUIDES if p.parent.name in ("tutorial", "how-to")]
    order = ["first-partner", "first-duo", "own-recordings", "modes-and-form"]
    for page in sorted((p for p in pages if p.stem in order), key=lambda p: order.index(p.stem)):
        for arguments in commands(page):
            if arguments[0] == "compare":
                shutil.copy("mine.hal", "old.hal")
            if "--session" in arguments:
                shutil.rmtree(arguments[arguments.index("--session") + 1], ignore_errors=True)
            result = CliRunner().invoke(app, arguments)
            # verify may fail a check of diversity on ten seconds of music; it must not refuse its input
            assert result.exit_code == 0 or (arguments[0] in ("verify", "compare") and result.exit_code == 1), (
                f"musichal {' '.join(arguments)}: {result.output}"
            )
            if arguments == ["modes", "--toml"]:
                Path("my-modes.toml").write_text(result.stdout + "\n" + Path("my-modes.toml").read_text("utf-8"), "utf-8")
            ran += 1
    assert ran >= 18
