"""`musichal explain`: the words and the sounds of a decision are those of the record."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from musichal.cli import app
from musichal.commands.explain import _Sounded, _write_spans, decision_at
from musichal.errors import InputError
from musichal.evaluate.moments import find_moments, stretches
from musichal.live.session.session import read_session
from musichal.memory.partner_file import load_partner
from musichal.partner.decision import Decision
from musichal.partner.explanation import explain
from musichal.text import clock

pytestmark = pytest.mark.usefixtures("heard_once")


def run(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def take(trained_path, short_guitar, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("explain") / "take"
    options = ("--set", "rest_after_silence_s=0.3", "--mode", "couple")
    result = run("play", trained_path, "--input", short_guitar, "--session", folder, *options)
    assert result.exit_code == 0, result.output
    return folder


def test_the_decision_at_a_moment_is_the_last_one_taken():
    decisions = [Decision(number=i, time_s=t, kind="rest", rest="silence") for i, t in enumerate((1.0, 2.0, 2.5))]
    assert [decision_at(decisions, t).number for t in (1.0, 1.9, 2.0, 2.4, 99)] == [0, 0, 1, 1, 2]
    with pytest.raises(InputError, match=r"there is no decision by 0:00.50; the first decision is at 0:01.00"):
        decision_at(decisions, 0.5)
    with pytest.raises(InputError, match=r"there is no decision by 0:05\.00"):
        decision_at([], 5.0)


def test_a_whole_session_is_told_in_order(take, trained):
    result = run("explain", take, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    decisions = read_session(take).decisions
    names = [r.name for r in trained.recordings]
    assert [d["words"] for d in told["decisions"]] == [explain(d, names) for d in decisions]
    assert told["summary"][0].startswith("Played ")


def test_one_moment_is_told_in_full_and_can_be_listened_to(take, trained_path, tmp_path):
    chosen = next(d for d in read_session(take).decisions if d.kind == "play" and d.notes and d.alternatives)
    moment = tmp_path / "moment"
    result = run("explain", take, "--at", clock(chosen.time_s), "--listen", moment, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["decision"]["number"] == chosen.number
    sounds = {path.name.rsplit("-", 1)[1]: soundfile.read(path) for path in moment.iterdir()}
    assert set(sounds) == {"source.wav", "answer.wav", "player.wav"}
    assert all(np.abs(samples).max() > 0.01 for samples, _ in sounds.values())
    # What can be heard is that place of the recording: its loudest sample is where the recording has it.
    source, rate = sounds["source.wav"]
    recording = load_partner(trained_path).recordings[chosen.recording]
    first = max(0, round((chosen.source_start_s - 1.0) * rate))
    original = recording.samples()[first : first + len(source)]
    assert np.corrcoef(source if source.ndim == 1 else source[:, 0], original)[0, 1] > 0.99
    assert str(moment) in told["written"][0]
    shown = run("explain", take, "--at", clock(chosen.time_s))
    assert "Influences" not in shown.stdout
    shown = run("explain", take, "--at", clock(chosen.time_s), "--figures")
    assert "Influences" in shown.stdout
    assert "The best of" in shown.stdout


def test_without_the_partner_the_words_remain_and_the_sounds_are_refused(take, trained_path, tmp_path):
    gone = tmp_path / "take"
    shutil.copytree(take, gone)
    settings = json.loads((gone / "settings.json").read_text())
    settings["partner_path"] = str(tmp_path / "nowhere.hal")
    (gone / "settings.json").write_text(json.dumps(settings))
    result = run("explain", gone, "--all")
    assert result.exit_code == 0, result.output
    assert "recording 1" in result.output
    refused = run("explain", gone, "--at", "0:05", "--listen", tmp_path / "moment")
    assert refused.exit_code == 2
    assert "name it with --partner" in refused.output.replace("\n", " ")
    assert not (tmp_path / "moment").exists()
    again = run("explain", gone, "--at", "9:05", "--partner", trained_path)
    assert again.exit_code == 0, again.output
    (tmp_path / "nowhere.hal").write_bytes(b"trained anew under the same name")
    assert run("explain", gone, "--at", "9:05", "--partner", tmp_path / "nowhere.hal").exit_code == 2
    anew = run("explain", gone, "--at", "9:05")
    assert anew.exit_code == 0, anew.output
    assert "is no longer the partner of this session" in anew.output.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--at", "3-2"), "--at 3-2 ends before it begins"),
        (("--at", "9:00-9:10"), "the session ends at 0:09.00"),
        (("--at", "mirrored"), "or one of couple, best, least"),
        (("--at", "0:00"), "there is no decision by 0:00.00"),
        (("--at", "soon"), "--at must be a time such as"),
    ],
)
def test_what_cannot_be_explained_is_one_line(take, arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("explain", take, *arguments)
    assert result.exit_code == 2
    assert words in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_rest_is_explained_and_has_nothing_to_listen_to(take, tmp_path):
    decisions = read_session(take).decisions
    rest = next((d for d in decisions if d.kind == "rest"), None)
    assert rest is not None, "the guitar ends in a second of silence"
    result = run("explain", take, "--at", clock(rest.time_s), "--listen", tmp_path / "moment")
    assert result.exit_code == 0
    assert "rested:" in result.stdout
    said = result.stderr.replace("\n", " ")
    assert f"there is nothing to listen to at {clock(rest.time_s)}: it rested" in said
    later = [d for d in decisions if d.kind == "play" and d.time_s > rest.time_s]
    assert (f"; it plays next at {clock(later[0].time_s)}" in said) if later else "next" not in said
    assert not (tmp_path / "moment").exists()


def test_what_is_no_session_is_refused(tmp_path):
    result = run("explain", tmp_path)
    assert result.exit_code == 2
    assert "is not a session" in result.output.replace("\n", " ")


def test_a_gesture_learned_from_the_player_is_listened_to_in_the_sessions_own_input(trained_path, short_guitar, tmp_path):
    take = tmp_path / "take"
    result = run("play", trained_path, "--input", short_guitar, "--session", take, "--mode", "shadow")
    assert result.exit_code == 0, result.output
    chosen = next(d for d in read_session(take).decisions if d.live and d.notes)
    result = run("explain", take, "--at", clock(chosen.time_s), "--listen", tmp_path / "moment")
    assert result.exit_code == 0, result.output
    source, rate = soundfile.read(next((tmp_path / "moment").glob("*-source.wav")))
    guitar, guitar_rate = soundfile.read(short_guitar)
    assert rate == guitar_rate
    first = max(0, round((chosen.source_start_s - 1.0) * rate))
    original = guitar[first : first + len(source)]
    assert original.shape == source.shape
    assert np.corrcoef(source.reshape(-1), original.reshape(-1))[0, 1] > 0.99


def test_without_arguments_it_is_a_page(take):
    told = run("explain", take).stdout
    assert len(told.splitlines()) <= 40
    for words in ("Played ", "Modes: couple 0:0", "More: --at 1:23"):
        assert words in told
    assert ("Best founded:" in told) == bool(stretches(read_session(take).decisions))
    every = run("explain", take, "--all").stdout.splitlines()
    assert len(every) > len(read_session(take).decisions)


def test_a_part_is_told_briefly_and_heard_as_it_was(take, tmp_path):
    decisions = [d for d in read_session(take).decisions if 2.0 <= d.time_s < 4.5]
    result = run("explain", take, "--at", "2-4.5", "--listen", tmp_path / "part")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("\nAt 0:0") == len(decisions)
    assert len(json.loads(run("explain", take, "--at", "couple", "--json").stdout)["decisions"]) == len(
        read_session(take).decisions
    )
    sounds = {path.stem.split("-")[1]: soundfile.read(path) for path in (tmp_path / "part").iterdir()}
    assert set(sounds) == {"player", "answer", "duo"}
    assert {len(samples) for samples, _ in sounds.values()} == {round(2.5 * 44100)}
    whole = run("explain", take, "--listen", tmp_path / "duo")
    assert whole.exit_code == 0, whole.output
    assert sorted(path.name for path in (tmp_path / "duo").iterdir()) == ["answer.wav", "duo.wav", "player.wav"]
    assert soundfile.info(tmp_path / "duo" / "duo.wav").frames == 9 * 44100
    again = run("explain", take, "--listen", tmp_path / "duo")
    assert again.exit_code == 0, "its own files are replaced"


def test_what_begins_after_the_input_has_no_sound(take, tmp_path):
    session = read_session(take)
    assert _write_spans(session, [(9.5, 10.0)], tmp_path / "out", force=False, whole=False) == []


def test_marks_and_what_stands_out_are_listed_with_sound(take, tmp_path):
    marked = tmp_path / "take"
    shutil.copytree(take, marked)
    log = marked / "transcript.jsonl"
    lines = log.read_text().splitlines()
    here = next(n for n, line in enumerate(lines) if json.loads(line)["at"] >= 3 * 24000)
    lines[here:here] = [json.dumps({"at": 3 * 24000, "mark": text}) for text in ("", "the good one")]
    log.write_text("\n".join(lines) + "\n")
    result = run("moments", marked, "--listen", tmp_path / "sounds", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["moments"]
    assert [(m["why"], m["start_s"]) for m in found if m["kind"] == "mark"] == [("mark 1", 3.0), ("the good one", 3.0)]
    by_itself = find_moments(read_session(take).decisions, [], end_s=9.0)
    assert len(found) == 2 + len([moment for moment in by_itself if moment.start_s < 9.0]) > 2
    assert all(soundfile.info(m["sound"]).frames for m in found)
    assert "your mark: the good one" in run("moments", marked).stdout
    assert run("replay", marked).exit_code == 0, "a mark changes nothing that is played"
    log.write_text("\n".join([json.dumps({"at": 0, "stage": "mute"}), *lines]) + "\n")
    assert not any(d.notes for d in _Sounded(read_session(marked))), "muted, it plays no note"
    log.write_text("\n".join(lines) + "\n")
    near = run("explain", marked, "--at", "the good one")
    assert near.stdout.startswith("0:00.00 to 0:08.00:"), near.output
    exported = run("export", marked, "-o", tmp_path / "out", "--marks")
    assert exported.exit_code == 0, exported.output
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["mark-1-0m03", "mark-2-0m03"]


def test_a_session_in_which_nothing_was_decided_is_told_and_exported(take, tmp_path):
    silent = tmp_path / "take"
    shutil.copytree(take, silent)
    (silent / "decisions.jsonl").write_text("")
    for arguments, said in (
        (("explain", silent), "Nothing was decided"),
        (("moments", silent), "Nothing stands out"),
        (("export", silent, "-o", tmp_path / "out"), "Wrote 7 files"),
    ):
        result = run(*arguments)
        assert result.exit_code == 0, result.output
        assert said in result.output
    assert run("explain", silent, "--at", "couple").exit_code == 2
