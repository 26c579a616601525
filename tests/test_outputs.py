"""Nothing of a user is overwritten or misnamed, and a folder is heard as far as it can be."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

import musichal as mh
from musichal.audio.files import SOUND_FORMATS, write_sound
from musichal.audio.recording import read_recordings
from musichal.cli import app
from musichal.errors import InputError
from musichal.live.output.files import MIDI, PARTNER, PICTURE, REPORT, SOUND, check_outputs
from musichal.live.output.midi_file import MidiRecorder

pytestmark = pytest.mark.usefixtures("heard_once")

RATE = 44_100
TONE = (0.3 * np.sin(np.arange(RATE) * 0.05)).astype(np.float32)
KINDS = {"hal": PARTNER, "mid": MIDI, "wav": SOUND, "flac": SOUND, "mp3": SOUND, "png": PICTURE, "svg": PICTURE, "html": REPORT}


def run(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def foreign(kind: str, path: Path) -> bytes:
    """Write a file of a kind as another program does."""
    if kind in ("wav", "flac", "mp3"):
        soundfile.write(path, TONE, RATE)
    else:
        heads = {
            "hal": b"PK\3\4 some archive",
            "mid": b"MThd\0\0\0\6\0\1\0\1\1\xe0MTrk",
            "png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        }
        path.write_bytes(heads.get(kind, b"<svg>" if kind == "svg" else b"<!doctype html><html>") + b" of a user")
    return path.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("there", [*KINDS, "txt", "empty"])
def test_what_musichal_did_not_write_stays(kind, there, tmp_path):
    path = tmp_path / f"a.{kind}"
    if there == "empty":
        path.touch()
        check_outputs([(path, KINDS[kind])], inputs=[])
        return
    before = b"notes of a user" if there == "txt" else foreign(there, tmp_path / f"b.{there}")
    path.write_bytes(before)
    with pytest.raises(InputError, match="--force") as caught:
        check_outputs([(path, KINDS[kind])], inputs=[])
    if there not in ("txt", "hal") and KINDS[there] is not KINDS[kind]:
        assert f"it is {KINDS[there].name}, not {KINDS[kind].name}" in str(caught.value)
    assert path.read_bytes() == before
    assert check_outputs([(path, KINDS[kind])], inputs=[], force=True) == [path]


@pytest.mark.parametrize("suffix", SOUND_FORMATS)
def test_suffix_and_content_agree_and_are_ours(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    for samples in (TONE, np.stack([TONE, -TONE], axis=1)):
        write_sound(path, samples, sample_rate_hz=RATE)
        with soundfile.SoundFile(path) as sound:
            assert (sound.format, sound.subtype) == SOUND_FORMATS[suffix]
            assert sound.frames / sound.samplerate == pytest.approx(1, abs=0.1)
    check_outputs([(path, SOUND)], inputs=[])
    path.rename(tmp_path / "a.hal")
    with pytest.raises(InputError, match="it is a recording, not a"):
        check_outputs([(tmp_path / "a.hal", PARTNER)], inputs=[])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *[("a.mp3", PARTNER), ("a.wav", MIDI), ("a.m4a", SOUND), ("a.xyz", SOUND), ("a.mid", SOUND), ("a.jpg", PICTURE)],
        *[("a.hal", REPORT), ("a.toml", PARTNER), ("A.WAV", PARTNER)],
    ],
)
def test_a_suffix_of_another_kind_is_refused(name, kind, tmp_path):
    for force in (False, True):
        with pytest.raises(InputError, match=f"{kind.name} is a .*file"):
            check_outputs([(tmp_path / name, kind)], inputs=[], force=force)
    assert list(tmp_path.iterdir()) == []


def test_midi_pictures_and_reports_of_ours_may_be_replaced(tmp_path, trained_path, short_guitar):
    (tmp_path / "a.mid").write_bytes(MidiRecorder().snapshot(1.0))
    check_outputs([(tmp_path / "a.mid", MIDI), (trained_path, PARTNER)], inputs=[])
    foreign("mid", tmp_path / "r.mid")
    for force in (["--force"], []):
        outputs = ("--midi-out", tmp_path / "r.mid", "--audio-out", tmp_path / "r.flac", "--picture", tmp_path / "r.svg")
        result = run("play", trained_path, "--input", short_guitar, *outputs, *force)
        assert result.exit_code == 0, result.output
    assert soundfile.info(tmp_path / "r.flac").format == "FLAC"


def test_the_commands_refuse(tmp_path, trained_path, short_guitar, short_mix):
    take = tmp_path / "take 1.wav"
    before = foreign("wav", take)
    for arguments in (
        ("train", short_mix, "-o", take),
        ("play", trained_path, "--input", short_guitar, "--audio-out", take),
        ("play", trained_path, "--input", short_guitar, "--mix-out", take),
        ("play", trained_path, "--input", short_guitar, "--midi-out", take),
        ("inspect", trained_path, "--picture", take),
        ("verify", trained_path, "--report", take),
    ):
        result = run(*arguments)
        assert result.exit_code == 2, result.output
        assert len(result.stderr.splitlines()) == 1
        assert take.read_bytes() == before


def test_the_api_refuses_too(tmp_path, trained, short_guitar):
    partner = mh.Partner(trained)
    y, sr = mh.read_audio(short_guitar)
    answer = partner.respond(y[: 2 * sr], sr)
    for name, write in (("p.hal", partner.save), ("r.mid", answer.to_midi)):
        path = tmp_path / name
        before = foreign("wav", tmp_path / "take.wav")
        path.write_bytes(before)
        with pytest.raises(InputError, match=r"it is a recording, not a .*; give another name, or force=True"):
            write(path)
        with pytest.raises(InputError, match=r"is a .* file"):
            write(tmp_path / "take.wav")
        assert path.read_bytes() == before == (tmp_path / "take.wav").read_bytes()
        write(path, force=True)
        written = path.read_bytes()
        write(path)  # what MusicHal wrote may be written again
        assert path.read_bytes() == written != before


def test_live_files_refuse_too(tmp_path, trained_path):
    before = foreign("wav", tmp_path / "take.wav")
    (tmp_path / "take.mid").write_bytes(before)
    voices = tmp_path / "voices.toml"
    voices.write_text(f"""[port.a]\nto = "file:{tmp_path / "take.mid"}"\n[voice.melody]\nport = "a"\n""")
    for wanted in (
        ["--midi-out", tmp_path / "take.mid"],
        ["--midi-out", f"file:{tmp_path / 'take.wav'}"],
        ["--voices", voices],
    ):
        result = run("play", trained_path, "--input", "0", *wanted)
        assert result.exit_code == 2, result.output
        assert "cannot write" in result.stderr
        assert len(result.stderr.splitlines()) == 1
    with pytest.raises(InputError, match="it is a recording"):
        mh.Live(trained_path, output=f"file:{tmp_path / 'take.mid'}")
    with pytest.raises(InputError, match="it is read by this command"):
        mh.Live(trained_path, output=f"file:{trained_path}")
    assert (tmp_path / "take.mid").read_bytes() == before == (tmp_path / "take.wav").read_bytes()


def test_learn_and_demo_replace_nothing_of_a_user(tmp_path):
    for name in ("take.wav", "map.toml"):
        before = foreign("wav", tmp_path / "take.wav")
        (tmp_path / name).write_bytes(before)
        result = run("learn", tmp_path / name, "mode=mirror,shadow", "--control-in", "nothing")
        assert result.exit_code == 2
        assert len(result.stderr.splitlines()) == 1
        assert (tmp_path / name).read_bytes() == before
    result = run("learn", tmp_path / "new.wav", "mode=mirror,shadow", "--control-in", "nothing")
    assert "a map of controllers is a .toml file" in result.stderr
    (tmp_path / "guitar.wav").write_bytes(before)
    result = run("demo", tmp_path)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert "MusicHal did not write what is there" in result.stderr
    assert (tmp_path / "guitar.wav").read_bytes() == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is full")
@pytest.mark.parametrize("arguments", [["--help"], ["parameters"], ["inspect"]])
def test_an_output_that_cannot_be_written_ends_in_one_line(arguments, trained_path):
    command = [sys.executable, "-m", "musichal", *arguments, *([str(trained_path)] if arguments == ["inspect"] else [])]
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (result.returncode, result.stderr) == (2, f"musichal: cannot write the output: {'the disk is full'}\n")
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert result.returncode in (1, 2)
    assert len(result.stderr.splitlines()) <= 1


# ── folders ──────────────────────────────────────────────────────────────────


@pytest.fixture
def folder(tmp_path) -> Path:
    """Six good files, and one of each kind that cannot be heard."""
    place = tmp_path / "concert"
    (place / "b").mkdir(parents=True)
    for number in range(6):
        soundfile.write(place / f"good {number}.wav", TONE * (number + 1) / 6, RATE)
    soundfile.write(place / "short.wav", TONE[:1000], RATE)
    soundfile.write(place / "silent.flac", 0 * TONE, RATE)
    (place / "empty.wav").touch()
    (place / "b" / "text.mp3").write_text("la la la " * 100)
    (place / "b" / "song.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(300))
    (place / "cover.jpg").write_bytes(b"\xff\xd8\xff")
    (place / "notes").write_text("none")
    return place


def test_what_cannot_be_heard_of_a_folder_is_left_out_with_a_word(folder):
    warned: list[str] = []
    heard = read_recordings([folder], warn=warned.append, min_duration_s=0.35)
    assert [recording.name for recording in heard] == [f"good {number}.wav" for number in range(6)]
    left_out, passed_over = warned
    assert left_out.startswith("left out 5 files: ")
    assert all(name in left_out for name in ("short.wav", "silent.flac", "empty.wav", "text.mp3", "song.m4a"))
    assert passed_over == "passed over 2 files that are no recordings by their names: without suffix, .jpg"
    assert all(text.isprintable() for text in warned)


@pytest.mark.skipif(sys.platform == "win32", reason="has no such files")
def test_pipes_devices_and_links_in_a_circle_are_left_out(folder):
    os.mkfifo(folder / "pipe.wav")
    (folder / "circle.wav").symlink_to(folder / "circle.wav")
    (folder / "self").symlink_to(folder)
    (folder / "device.wav").symlink_to("/dev/zero")
    warned: list[str] = []
    assert len(read_recordings([folder], warn=warned.append, min_duration_s=0.35)) == 6
    assert all(name in warned[0] for name in ("pipe.wav", "circle.wav", "device.wav"))


@pytest.mark.skipif(sys.platform == "win32", reason="has no such files")
def test_a_pipe_that_nobody_writes_is_refused_by_each_option_that_takes_a_file(
    trained_path, short_mix, short_guitar, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    for command in (
        *(
            f"play {trained_path} --input {short_mix} --midi-out a.mid {option} pipe"
            for option in ("--form", "--modes", "--voices")
        ),
        f"play {trained_path} --input {short_mix} --midi-out a.mid --scenario pipe",
        f"play {trained_path} --input {short_mix} --audio-out a.wav --soundfont pipe",
        f"train {short_mix} -o a.hal --notes pipe",
        f"train {short_mix} -o a.hal --sounds-of pipe",
        f"train --player {short_guitar} --others pipe -o a.hal",
        "train --manifest pipe -o a.hal",
        f"evaluate --duo {short_guitar} {short_mix} --beats pipe",
        *(f"{command} pipe" for command in ("modes", "inspect", "verify", "check")),
    ):
        result = run(*command.split())
        assert result.exit_code == 2, command
        assert "pipe" in result.output and "not an ordinary file" in result.output, command
    assert os.listdir() == ["pipe"]  # noqa: PTH208 - names


def test_strict_stops_and_names_all(folder):
    with pytest.raises(InputError) as caught:
        read_recordings([folder], warn=print, min_duration_s=0.35, strict=True)
    assert all(name in str(caught.value) for name in ("short.wav", "silent.flac", "empty.wav", "text.mp3", "song.m4a"))


def test_named_files_and_folders_without_any_good_one_are_refused_with_all_names(folder):
    with pytest.raises(InputError, match=r"empty\.wav.*silent\.flac"):
        read_recordings([folder, folder / "empty.wav", folder / "silent.flac"], warn=print)
    for good in folder.glob("good*"):
        good.unlink()
    with pytest.raises(InputError, match=r"text\.mp3.*short\.wav"):
        read_recordings([folder], warn=print, min_duration_s=0.35)


def test_train_says_it(folder, tmp_path, short_mix):
    (folder / "music.ogg").write_bytes(Path(short_mix).read_bytes())
    result = run("train", folder, "-o", tmp_path / "p.hal")
    assert result.exit_code == 0, result.output
    assert "left out 5 files" in result.stderr
    assert "passed over 2 files" in result.stderr
    assert run("train", folder, "-o", tmp_path / "q.hal", "--strict").exit_code == 2
    assert not (tmp_path / "q.hal").exists()
