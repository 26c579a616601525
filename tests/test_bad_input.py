"""The table of bad input, end to end: one clear line, exit code 2, nothing left behind; and what is heard, not refused."""

import os
import resource
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from conftest import _cut
from musichal.cli import app

pytestmark = pytest.mark.usefixtures("heard_once")

RATE = 24_000


@pytest.fixture(scope="module")
def sound(short_mix) -> np.ndarray:
    samples, rate = soundfile.read(short_mix, dtype="float64")
    assert rate == 44_100
    return samples


def run(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def refused(*arguments: object) -> str:
    """Run a command that must fail with one line and exit code 2; return the line."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("musichal: ")
    assert "Traceback" not in lines[0]
    return lines[0]


def noise(seconds: float, rate: int = RATE) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, round(seconds * rate))


def with_bad_sample(value: float):
    def make(path: Path) -> None:
        samples = noise(2).astype(np.float32)
        samples[1000] = value
        soundfile.write(path, samples, RATE, subtype="FLOAT")

    return make


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda _: None, "no such file"),
    "empty": (lambda p: p.touch(), "empty"),
    "not audio": (lambda p: p.write_text("la la la " * 50), "not a recording"),
    "zero length": (lambda p: soundfile.write(p, noise(0), RATE), "zero"),
    "NaN": (with_bad_sample(np.nan), "NaN or infinite"),
    "infinite": (with_bad_sample(-np.inf), "NaN or infinite"),
    "digital silence": (lambda p: soundfile.write(p, np.zeros(2 * RATE), RATE), "silence"),
    "rate too low": (lambda p: soundfile.write(p, noise(2), 4000), "4000 Hz"),
    "a folder": (lambda p: p.mkdir(), ""),
}


@pytest.mark.parametrize(("make", "says"), REFUSED.values(), ids=REFUSED.keys())
def test_a_recording_that_cannot_be_heard_is_refused_by_train_and_by_play(make, says, trained_path, tmp_path):
    bad = tmp_path / "bad.wav"
    make(bad)
    before = sorted(tmp_path.iterdir())
    for line in (
        refused("train", bad, "-o", tmp_path / "out.hal"),
        refused("play", trained_path, "--input", bad, "--midi-out", tmp_path / "out.mid", "--session", tmp_path / "s"),
    ):
        assert says in line
        assert "bad.wav" in line
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(("seconds", "says"), [(0.2, "at least 0.35 s"), (0.5, "too little sound for 64 tokens")])
def test_too_little_to_learn_from(seconds, says, tmp_path):
    soundfile.write(tmp_path / "short.wav", noise(seconds), RATE)
    assert says in refused("train", tmp_path / "short.wav", "-o", tmp_path / "out.hal")
    assert not (tmp_path / "out.hal").exists()


def test_a_recording_below_the_gate_is_told_so(tmp_path):
    soundfile.write(tmp_path / "faint.wav", 0.005 * noise(5), RATE, subtype="PCM_24")
    result = run("train", tmp_path / "faint.wav", "-o", tmp_path / "out.hal")
    assert result.exit_code == 2
    assert "below the gate" in result.stderr.splitlines()[-1]
    assert "louder" in result.stderr.splitlines()[-1]


def test_one_bad_recording_among_good_ones_is_named_before_the_work(short_mix, tmp_path):
    (tmp_path / "empty.wav").touch()
    assert "empty.wav" in refused("train", short_mix, tmp_path / "empty.wav", "-o", tmp_path / "out.hal")
    (tmp_path / "folder").mkdir()
    assert "folder" in refused("train", tmp_path / "folder", "-o", tmp_path / "out.hal")


def channels(n: int):
    def make(path: Path, sound: np.ndarray) -> None:
        soundfile.write(path, np.outer(sound, np.linspace(1, 0.2, n)), 44_100)

    return make


def at_rate(rate: int):
    def make(path: Path, sound: np.ndarray) -> None:
        import soxr

        soundfile.write(path, soxr.resample(sound, 44_100, rate), rate)

    return make


def stored_as(subtype: str, suffix: str = "WAV"):
    return lambda path, sound: soundfile.write(path, sound, 44_100, subtype=subtype, format=suffix)


HEARD: dict[str, tuple[Callable[[Path, np.ndarray], object], str]] = {
    # test_recording reads every encoding, number of channels and rate; these go the whole way.
    "8 channels": (channels(8), ""),
    "8000 Hz": (at_rate(8_000), ""),
    "192000 Hz": (at_rate(192_000), ""),
    "PCM_U8": (stored_as("PCM_U8"), ""),
    "MP3": (stored_as("MPEG_LAYER_III", "MP3"), ""),
    "clipped": (lambda p, s: soundfile.write(p, np.clip(20 * s, -1, 1), 44_100), "clipped"),
    "beyond full scale": (lambda p, s: soundfile.write(p, 8 * s, 44_100, subtype="FLOAT"), "turned down"),
    "DC offset": (lambda p, s: soundfile.write(p, 0.5 * s + 0.3, 44_100), "DC offset"),
}


@pytest.mark.parametrize(("make", "warns"), HEARD.values(), ids=HEARD.keys())
def test_what_is_heard_and_not_refused_trains_and_plays(make, warns, sound, tmp_path):
    heard = tmp_path / "heard.wav"
    make(heard, sound[: 3 * 44_100])
    trained = run("train", heard, "-o", tmp_path / "out.hal")
    assert trained.exit_code == 0, trained.output
    assert warns in trained.stderr
    assert bool(trained.stderr) == bool(warns)
    played = run("play", tmp_path / "out.hal", "--input", heard, "--midi-out", tmp_path / "out.mid")
    assert played.exit_code == 0, played.output
    assert (tmp_path / "out.mid").read_bytes()[:4] == b"MThd"


def pickled(path: Path, _: Path) -> None:
    import pickle

    path.write_bytes(pickle.dumps({"partner": [1, 2, 3]}))


def outside(path: Path, good: Path) -> None:
    shutil.copy(good, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../../evil.txt", "boo")


def bomb(path: Path, _: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", b" " * 50_000_000)


def newer(path: Path, good: Path) -> None:
    from musichal.memory import container

    opened = container.read_container(good)
    members = {name: opened.read(name) for name in opened.members}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(container, "FORMAT_VERSION", 99)
        container.write_container(path, content=opened.content, members=members)


BAD_PARTNERS: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "missing": (lambda _p, _g: None, "no such file"),
    "empty": (lambda p, _: p.touch(), "empty"),
    "text": (lambda p, _: p.write_text("hello"), "not a partner file"),
    "a WAV": (lambda p, _: soundfile.write(p, noise(1), RATE, format="WAV"), "not a partner file"),
    "truncated": (lambda p, g: p.write_bytes(g.read_bytes()[:-1000]), "cut short"),
    "bit flipped": (
        lambda p, g: p.write_bytes(bytes([b ^ (i == len(g.read_bytes()) // 2) for i, b in enumerate(g.read_bytes())])),
        "damaged",
    ),
    "newer": (newer, "newer MusicHal"),
    "zip bomb": (bomb, "hal"),
    "a path outside": (outside, "hal"),
    "pickle": (pickled, "not a partner file"),
    "folder": (lambda p, _: p.mkdir(), "folder"),
}


@pytest.mark.parametrize(("make", "says"), BAD_PARTNERS.values(), ids=BAD_PARTNERS.keys())
def test_a_bad_partner_is_refused_by_play_and_by_inspect(make, says, trained_path, short_guitar, tmp_path):
    bad = tmp_path / "bad.hal"
    if make is BAD_PARTNERS["bit flipped"][0]:
        whole = bytearray(trained_path.read_bytes())
        whole[len(whole) // 2] ^= 1
        bad.write_bytes(whole)
    else:
        make(bad, trained_path)
    for line in (
        refused("inspect", bad),
        refused("play", bad, "--input", short_guitar, "--midi-out", tmp_path / "out.mid", "--session", tmp_path / "session"),
    ):
        assert says in line
        assert "bad.hal" in line
    assert sorted(p.name for p in tmp_path.iterdir() if p != bad) == []


@pytest.mark.parametrize(
    ("output", "says"),
    [("nowhere/out", "does not exist"), (".", "it is a folder"), ("file/out", "folder"), ("n" * 300, "too long")],
)
def test_an_output_that_cannot_be_written_is_refused_before_the_work(output, says, trained_path, short_mix, tmp_path):
    (tmp_path / "file").touch()
    target = tmp_path / output
    for line in (
        refused("train", short_mix, "-o", target),
        refused("play", trained_path, "--input", short_mix, "--midi-out", target),
        refused("play", trained_path, "--input", short_mix, "--audio-out", target),
    ):
        assert says in line
        assert "cannot write" in line
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(short_mix, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "permission denied" in refused("train", short_mix, "-o", tmp_path / "locked" / "out.hal")


def test_a_command_does_not_write_over_what_it_reads(trained_path, short_mix, tmp_path):
    recording, partner = tmp_path / "take.wav", tmp_path / "partner.hal"
    shutil.copy(short_mix, recording)
    shutil.copy(trained_path, partner)
    before = recording.read_bytes(), partner.read_bytes()
    (tmp_path / "link.wav").symlink_to(recording)
    for arguments in (
        ("train", recording, "-o", recording),
        ("train", tmp_path, "-o", recording),
        ("train", recording, "-o", tmp_path / "link.wav"),
        ("play", partner, "--input", recording, "--midi-out", partner),
        ("play", partner, "--input", recording, "--audio-out", recording),
        ("inspect", partner, "--picture", partner.with_suffix(".hal")),
    ):
        refused(*arguments)
    line = refused("play", partner, "--input", recording, "--midi-out", tmp_path / "x", "--audio-out", tmp_path / "x")
    assert "two outputs" in line
    assert (recording.read_bytes(), partner.read_bytes()) == before


def limited(arguments: list[str], file_bytes: int) -> subprocess.CompletedProcess[str]:
    """Run a command whose files may not grow beyond a size: a disk that is full."""

    def limit() -> None:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))

    return subprocess.run(
        [sys.executable, "-B", "-m", "musichal", *arguments], capture_output=True, text=True, check=False, preexec_fn=limit
    )


@pytest.mark.parametrize("command", ["train", "play", "session"])
def test_a_full_disk_leaves_nothing_behind(command, trained_path, short_mix, short_guitar, tmp_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")  # three seconds are more than the 50 kB that there is room for
    mix, guitar = _cut(short_mix, folder / "mix.wav", 0, 3), _cut(short_guitar, folder / "guitar.wav", 0, 3)
    arguments = {
        "train": ["train", str(mix), "-o", str(tmp_path / "out.hal")],
        "play": ["play", str(trained_path), "--input", str(guitar), "--audio-out", str(tmp_path / "out.wav")],
        "session": ["play", str(trained_path), "--input", str(guitar), "--session", str(tmp_path / "session")],
    }[command]
    result = limited(arguments, 50_000)
    assert result.returncode == 2, result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert "cannot write" in result.stderr
    assert list(tmp_path.iterdir()) == []
