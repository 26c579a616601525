import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from midi_notes import read_midi_notes
from musichal import __version__
from musichal.audio.levels import gated_rms_db
from musichal.cli import app, load
from musichal.commands import COMMANDS
from musichal.parameters import PARAMETERS

pytestmark = pytest.mark.usefixtures("heard_once")


def run(*arguments: object, **kwargs):
    return CliRunner().invoke(app, [str(a) for a in arguments], **kwargs)


def process(*arguments: object, **kwargs) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "musichal", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **kwargs)


def test_the_commands_are_those_of_the_readme():
    assert {"train", "play", "inspect", "replay", "demo"} <= set(COMMANDS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_each_command_has_help_with_an_example_that_it_accepts(command):
    result = run(command, "--help", env={"COLUMNS": "300", "TERM": "dumb"})
    assert result.exit_code == 0
    example = re.search(rf"Example: (musichal {command}\b[^│]*)", result.stdout)
    assert example, result.stdout
    # The options that the example names exist.
    words = example[1].split(" — ")[0].split()
    known = {name for parameter in load(command).params for name in parameter.opts}
    assert {w for w in words if w.startswith("-")} <= known


def test_as_a_module_and_without_arguments():
    result = process("--version")
    assert (result.returncode, result.stdout.strip(), result.stderr) == (0, f"musichal {__version__}", "")
    bare = run()
    assert bare.exit_code == 2
    assert "Usage" in bare.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["sing"],
        ["train"],
        ["train", "a.wav"],
        ["train", "a.wav", "-o", "x.hal", "--loud"],
        ["train", "a.wav", "-o", "x.hal", "--vocabulary", "many"],
        ["play", "p.hal", "--input", "a.wav", "--program", "0"],
        ["play", "p.hal", "--input", "a.wav", "--program", "129"],
        ["play", "p.hal", "--input", "a.wav", "--seed", "-1"],
        ["play", "p.hal", "--input", "a.wav", "--seed", "x"],
        ["replay"],
        ["inspect", "a.hal", "b.hal"],
    ],
)
def test_wrong_usage_is_two(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Error" in result.stderr
    assert list(tmp_path.iterdir()) == []


def one_line(result) -> str:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("musichal: ")
    return lines[0]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--encoder", "ears"], "unknown encoder 'ears'"),
        (["--vocabulary", 1], "vocabulary size"),
        (["--vocabulary", 10**9], "vocabulary size"),
        (["--segment", "350"], "--segment must be in [17, 20000] ms, got 350000"),
        (["--segment", "-1s"], "--segment must be a time such as 350ms"),
        (["--segment", "0s"], "--segment must be in [17, 20000] ms, got 0"),
        (["--segment", "999999999s"], "--segment must be in [17, 20000] ms"),
        (["--segment", f"{'9' * 400}s"], "--segment must be a time"),
        (["--hop", "1s"], "--hop must be in [9, 350] ms, got 1000"),
        (["--hop", "0ms"], "--hop must be in [9, 350] ms, got 0"),
        (["--hop", "0.2s", "--segment", "100ms"], "--hop must be in [12, 100] ms"),
        (["--context", "1h"], "--context must be in [0, 20000] ms"),
        (["--context", "90s"], "--context must be in [0, 20000] ms, got 90000"),
        (["--lookahead", "2s"], "--lookahead must be in [0, 1000] ms, got 2000"),
        (["--policy", "random"], "--policy must be one of grid, onset, got 'random'"),
        (["--policy", "onset", "--hop", "100ms"], "--hop cannot be given with policy onset"),
    ],
)
def test_a_bad_value_for_training_is_one_line_before_the_work(options, says, short_mix, tmp_path):
    assert says in one_line(run("train", short_mix, "-o", tmp_path / "x.hal", *options))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "nothing to write"),
        (["--midi-out", "x.mid", "--sound", "kazoo"], "--sound must be one of soundfont, slices, got 'kazoo'"),
        (["--audio-out", "x.wav", "--soundfont", "none.sf2"], "none.sf2"),
        (["--picture", "x.gif"], ".png, .svg or .pdf"),
        (["--midi-out", "x.mid", "--set", "loudness=1"], "unknown setting 'loudness'"),
        (["--midi-out", "x.mid", "--set", "no_repeat"], "--set must be NAME=VALUE"),
        (["--midi-out", "x.mid", "--set", "no_repeat=many"], "no_repeat must be an integer, got 'many'"),
        (["--midi-out", "x.mid", "--set", "no_repeat=1.5"], "no_repeat must be an integer, got 1.5"),
        (["--midi-out", "x.mid", "--set", "no_repeat=-1"], "no_repeat"),
        (["--midi-out", "x.mid", "--set", "temperature=nan"], "temperature"),
        (["--midi-out", "x.mid", "--set", "temperature=inf"], "temperature"),
        (["--midi-out", "x.mid", "--set", f"temperature={10**400}"], "temperature"),
        (["--midi-out", "x.mid", "--set", f"memory_gestures={10**30}"], "memory_gestures"),
        (["--midi-out", "x.mid", "--set", f"no_repeat={'9' * 5000}"], "no_repeat must be an integer"),
        (["--midi-out", "x.mid", "--set", "max_transposition=7"], "max_transposition"),
        (["--midi-out", "x.mid", "--set", "max_run=0"], "max_run"),
        (["--session", "full"], "not empty"),
        (["--session", "full/file"], "session folder"),
    ],
)
def test_a_bad_value_for_playing_is_one_line(options, says, trained_path, short_guitar, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("full").mkdir()
    Path("full/file").touch()
    assert says in one_line(run("play", trained_path, "--input", short_guitar, *options))
    assert sorted(str(p) for p in Path().rglob("*")) == ["full", "full/file"]


@pytest.fixture(scope="module")
def session(trained_path, short_guitar, tmp_path_factory):
    """Everything that `play` can leave, and what it said."""
    folder = tmp_path_factory.mktemp("played")
    result = run(
        "play", trained_path, "--input", short_guitar, "--midi-out", folder / "reply.mid", "--audio-out", folder / "reply.wav",
        "--mix-out", folder / "duo.wav", "--picture", folder / "p.png", "--session", folder / "session", "--seed", 3,
        "--set", "no_repeat=8", "--set", "temperature=0.1",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return folder, result


def test_play_leaves_all_that_was_asked_for_and_says_why_it_played(session):
    folder, result = session
    assert sorted(p.name for p in folder.iterdir()) == ["duo.wav", "p.png", "reply.mid", "reply.wav", "session"]
    notes = read_midi_notes(folder / "reply.mid")
    assert len(notes) > 3
    assert (folder / "session" / "reply.mid").read_bytes() == (folder / "reply.mid").read_bytes()
    import soundfile

    for name in ("reply.wav", "duo.wav"):
        info = soundfile.info(folder / name)
        assert info.duration >= 8.9
        samples, _ = soundfile.read(folder / name)
        assert 0.01 < abs(samples).max() <= 0.892
    reply, rate = soundfile.read(folder / "reply.wav", dtype="float32")
    assert gated_rms_db(reply, sample_rate_hz=rate) == pytest.approx(-20, abs=0.05)
    assert result.stderr == ""
    assert "guitar.wav" in result.stdout
    assert re.search(r"At \d+:\d\d\.\d\d (played|rested|let)", result.stdout)
    assert result.stdout.count("Wrote ") == 5


def test_replay_is_the_same_or_says_so(session, trained_path, tmp_path):
    folder, _ = session
    same = run("replay", folder / "session", "--midi-out", tmp_path / "again.mid")
    assert same.exit_code == 0, same.output
    assert "byte for byte" in same.stdout
    assert (tmp_path / "again.mid").read_bytes() == (folder / "reply.mid").read_bytes()
    other = tmp_path / "other"
    shutil.copytree(folder / "session", other)
    (other / "reply.mid").write_bytes((other / "reply.mid").read_bytes()[:-1] + b"x")
    differs = run("replay", other, "--json")
    assert differs.exit_code == 1
    assert json.loads(differs.stdout)["identical"] is False
    assert "differs" in differs.stderr
    one_line(run("replay", folder / "session", "--midi-out", folder / "session" / "reply.mid"))


def test_a_partner_that_moved_or_changed(session, trained_path, tmp_path):
    folder, _ = session
    moved = tmp_path / "moved"
    shutil.copytree(folder / "session", moved)
    table = json.loads((moved / "settings.json").read_text())
    (moved / "settings.json").write_text(json.dumps(table | {"partner_path": str(tmp_path / "gone.hal")}))
    line = one_line(run("replay", moved))
    assert "gone.hal" in line
    assert "--partner" in line
    assert run("replay", moved, "--partner", trained_path).exit_code == 0
    changed = tmp_path / "changed.hal"
    changed.write_bytes(trained_path.read_bytes()[:-1])
    line = one_line(run("replay", moved, "--partner", changed))
    assert "not the partner of this session" in line
    assert "not a session" in one_line(run("replay", tmp_path))
    (moved / "input" / "00000.flac").write_bytes(b"fLaC")
    assert "00000.flac" in one_line(run("replay", moved))
    (moved / "input" / "00000.flac").unlink()
    assert "contains no audio" in one_line(run("replay", moved))
    soundfile.write(moved / "input" / "00000.flac", np.zeros(44_100), 44_100, subtype="PCM_24")
    assert "lacks audio" in one_line(run("replay", moved, "--partner", trained_path))


def test_another_seed_another_answer(trained_path, short_guitar, tmp_path):
    replies = []
    for seed in (1, 1, 2):
        out = tmp_path / "reply.mid"
        warm = ("--set", "temperature=0.3")
        assert run("play", trained_path, "--input", short_guitar, "--midi-out", out, "--seed", seed, *warm).exit_code == 0
        replies.append(out.read_bytes())
    assert replies[0] == replies[1] != replies[2]


def only_json(result) -> dict:
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    value = json.loads(result.stdout)
    assert isinstance(value, dict)
    return value


def test_json_is_one_object_and_nothing_else(session, short_mix, short_guitar, trained_path, tmp_path):
    told = only_json(run("train", short_mix, "-o", tmp_path / ":bell: [bold].hal", "--json"))
    assert told["partner"] == str(tmp_path / ":bell: [bold].hal")
    assert (tmp_path / ":bell: [bold].hal").read_bytes() == trained_path.read_bytes()
    seen = only_json(run("inspect", trained_path, "--json", "--picture", tmp_path / "p.svg"))
    assert seen["counts_agree"] is True
    assert seen["memory"]["states"] > 20
    reply = tmp_path / "r.mid"
    played = only_json(run("play", trained_path, "--input", short_guitar, "--midi-out", reply, "--json"))
    assert played["written"] == [str(reply)]
    assert played["notes"] >= len(read_midi_notes(reply)) > 0
    assert played["played"] + sum(played["rests"].values()) == played["decisions"]
    assert only_json(run("replay", session[0] / "session", "--json"))["identical"] is True


def test_a_real_process_ends_as_a_command_in_process_does(trained_path, tmp_path):
    wrong = process("inspect", tmp_path / "none.hal", "--json")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.count("\n") == 1
    # A terminal that knows no line-drawing characters.
    plain = process("inspect", trained_path, env={**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"})
    assert plain.returncode == 0, plain.stderr
    assert "knows 1 take" in plain.stdout


def test_names_of_files_are_shown_as_they_are(short_mix, trained_path, tmp_path):
    odd = tmp_path / "a [red]b :bell:.hal"
    shutil.copy(trained_path, odd)
    line = one_line(run("play", odd, "--input", tmp_path / "[bold]no :bell:.wav", "--midi-out", tmp_path / "x.mid"))
    assert "[bold]no :bell:.wav" in line
    result = run("train", short_mix, "-o", tmp_path / "[x] :bell:.hal")
    assert "[x] :bell:.hal" in result.stdout


def test_without_its_sound_a_partner_plays_midi_but_no_slices(short_mix, short_guitar, tmp_path):
    mute = tmp_path / "mute.hal"
    assert run("train", short_mix, "-o", mute, "--no-audio").exit_code == 0
    play = ("play", mute, "--input", short_guitar)
    sliced = run(*play, "--audio-out", tmp_path / "x.wav", "--midi-out", tmp_path / "x.mid", "--sound", "slices")
    assert "--no-audio" in one_line(sliced)
    assert [p.name for p in tmp_path.iterdir()] == ["mute.hal"]
    assert run(*play, "--midi-out", tmp_path / "x.mid", "--sound", "slices").exit_code == 0


def test_slices_of_the_recording(trained_path, short_guitar, tmp_path):
    out = tmp_path / "slices.wav"
    result = run("play", trained_path, "--input", short_guitar, "--audio-out", out, "--sound", "slices")
    assert result.exit_code == 0, result.output
    import soundfile

    samples, rate = soundfile.read(out)
    assert len(samples) / rate >= 8.9
    # As loud as the same answer from the soundfont.
    assert gated_rms_db(samples, sample_rate_hz=rate) == pytest.approx(-20, abs=0.05)


def test_recordings_of_one_name_are_told_apart(short_mix, short_guitar, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for source, target in ((short_mix, Path("same.wav")), (short_guitar, Path("a/same.wav"))):
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(Path(source).read_bytes())
    result = run("train", "same.wav", "a/same.wav", "-o", "x.hal", "--json")
    assert result.exit_code == 0, result.output
    assert [r["name"] for r in json.loads(result.stdout)["figures"]["recordings"]] == ["same.wav", "a/same.wav"]


@pytest.mark.parametrize(("command", "after_s"), [("train", 0.8), ("play", 0.2), ("demo", 0.2)])
def test_ctrl_c_leaves_nothing_behind(command, after_s, rock_mix, trained_path, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    many = tmp_path / "many"
    many.mkdir()
    for i in range(4):
        shutil.copy(rock_mix, many / f"{i}.ogg")
    samples, rate = soundfile.read(rock_mix, dtype="float32")
    soundfile.write(
        tmp_path / "long.wav", np.tile(samples, 4), rate, subtype="PCM_16"
    )  # quick machines need longer to be early
    arguments = {
        "train": ["train", many, "-o", out / "p.hal"],
        "demo": ["demo", out / "demo"],
        "play": [
            "play",
            trained_path,
            "--input",
            tmp_path / "long.wav",
            "--audio-out",
            out / "r.wav",
            "--session",
            out / "session",
        ],
    }[command]
    # It says when the command has begun: before that, a busy machine may still be reading its arguments.
    module = command
    ready = (
        f"import functools, musichal.commands.{module} as room, musichal.__main__ as program; begin = room.{command}_command\n"
        f"begun = functools.wraps(begin)(lambda *a, **k: (print(1, flush=True), begin(*a, **k)))\n"
        f"room.{command}_command = begun\nprogram.main()"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", ready, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    assert running.stdout.readline() == "1\n"
    time.sleep(after_s)
    running.send_signal(signal.SIGINT)
    stdout, stderr = running.communicate(timeout=60)
    assert running.returncode == 130, stderr
    assert stdout == "" or (command == "demo" and stdout.startswith("1. Learning"))
    assert stderr == "musichal: interrupted; nothing was left half-written\n"
    assert list(out.iterdir()) == []


def test_parameters_keys_and_the_guide_are_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = json.loads(run("parameters", "--json").stdout)["parameters"]
    assert {row["name"] for row in table} == {p.name for p in PARAMETERS}
    (row,) = json.loads(run("parameters", "temperature", "--json").stdout)["parameters"]
    assert (row["default"], row["low"], row["high"], row["osc"]) == (0.03, 0, 5, "/musichal/temperature")
    assert row["set_by_modes"] == []
    assert "[0, 5]" in run("parameters", "temperature").stdout
    assert "temprature" in one_line(run("parameters", "temprature"))
    assert "temperature" in one_line(run("parameters", "temprature"))
    assert {k["key"] for k in json.loads(run("keys", "--json").stdout)["keys"]} >= {
        "q or Escape",
        "space or p",
        "Backspace",
        "0",
    }
    topics = [line.split("`")[1] for line in run("docs").stdout.splitlines() if line.startswith("- `")]
    assert len(topics) == 8
    for topic in topics:
        result = run("docs", topic)
        assert result.exit_code == 0
        assert len(result.stdout.splitlines()) > 5
    assert "/musichal/panic" in run("docs", "osc").stdout
    assert "unknown topic 'music'. Valid topics: start" in one_line(run("docs", "music"))
    assert list(tmp_path.iterdir()) == []
