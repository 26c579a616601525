"""`musichal keep`: what was learned live becomes part of a partner."""

import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from conftest import _cut
from musichal.audio.recording import ingest, read_recording, samples_digest
from musichal.audio.recording_files import find_recordings
from musichal.cli import app
from musichal.errors import InputError
from musichal.evaluate.verify import subjects, verify_partner
from musichal.live.session.session import read_session
from musichal.memory.partner_file import load_partner

pytestmark = pytest.mark.usefixtures("heard_once")


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return done.exit_code, done.output if not done.exit_code else done.stderr


@pytest.fixture(scope="module")
def take(tmp_path_factory, trained_path, short_guitar):
    folder = tmp_path_factory.mktemp("keep") / "take"
    guitar = _cut(short_guitar, folder.with_name("guitar.wav"), 0, 6)
    code, said = run("play", trained_path, "--input", guitar, "--session", folder, "--mode", "couple")
    assert not code, said
    return folder


def test_a_session_is_kept_beside_what_was_known(take, trained_path, trained, tmp_path):
    code, said = run("keep", take, "-o", tmp_path / "new.hal")
    assert not code, said
    kept = load_partner(tmp_path / "new.hal")
    assert [r.name for r in kept.recordings] == [trained.recordings[0].name, "take"]
    assert np.array_equal(kept.recordings[0].tokens, trained.recordings[0].tokens)
    assert np.array_equal(kept.memory.states[: len(trained.memory)], trained.memory.states)
    assert len(kept.memory) > len(trained.memory) + 10
    assert verify_partner(kept, subjects(kept), quick=True).passed
    again = tmp_path / "again.hal"
    assert run("keep", take, "-o", again)[0] == 0
    assert again.read_bytes() == (tmp_path / "new.hal").read_bytes()


def test_a_partner_of_sessions_alone(take, tmp_path):
    code, said = run("keep", take, "--alone", "-o", tmp_path / "alone.hal")
    assert not code, said
    kept = load_partner(tmp_path / "alone.hal")
    assert [r.name for r in kept.recordings] == ["take"]
    assert not kept.keeps_vocabularies
    assert f"The memory holds {len(kept.memory)} gestures with {len(kept.memory.notes)} notes" in said
    assert verify_partner(kept, subjects(kept), quick=True).passed


def test_what_cannot_be_kept_is_one_line(take, trained_path, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(take, other)
    settings = other / "settings.json"
    moved = settings.read_text().replace(str(trained_path), str(tmp_path / "gone.hal"))
    settings.write_text(moved)
    for arguments, why in (
        ((take, take), "a session is given twice"),
        ((tmp_path,), "session"),
        ((other,), "gone.hal, the partner of this session, does not exist"),
    ):
        code, said = run("keep", *arguments, "-o", tmp_path / "x.hal")
        assert code == 2
        assert why in said
        assert said.count("\n") == 1
    assert not (tmp_path / "x.hal").exists()


def test_a_session_is_one_recording_in_training_wherever_it_lies(take, tmp_path):
    folder = tmp_path / "evening"
    shutil.copytree(take, folder / "take")
    shutil.copy(take / "input" / "00000.flac", folder / "warm-up.flac")
    code, said = run("train", folder, "-o", tmp_path / "all.hal", "--no-audio")
    assert not code, said
    heard = load_partner(tmp_path / "all.hal").recordings
    assert [r.name for r in heard] == ["take", "warm-up.flac"]
    alone = find_recordings([take]).files
    assert alone == (take,)
    assert heard[0].digest == read_recording(take).digest == samples_digest(ingest(read_session(take).samples()))
    shutil.rmtree(folder / "take" / "input")
    (folder / "take" / "input").mkdir()
    with pytest.raises(InputError, match="nothing was played in this session"):
        read_recording(folder / "take")
