"""An archive gives the same partner whoever hears it, in whatever order, and however often that is interrupted."""

import contextlib
import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mido
import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner, Result

from musichal.audio.files import encode_flac
from musichal.audio.midi_take import MidiChoice
from musichal.audio.recording import read_recording
from musichal.cli import app
from musichal.commands.archive import ArchiveOptions, _kept_worth, _Pace, _write_shard, entry_names, length_s
from musichal.commands.keep import _read_shard
from musichal.errors import InputError
from musichal.memory.container import write_container
from musichal.memory.partner_file import load_partner
from musichal.spec import PerceptionSpec
from musichal.training import archive, heard
from musichal.training.archive import (
    Found,
    HearTask,
    _key,
    choose_diverse,
    choose_recent,
    choose_tagged,
    hear_archive,
    hear_entry,
    heard_path,
    work_folder,
)
from musichal.training.heard import compacted
from musichal.training.manifest import Archive, Entry, read_archive
from musichal.training.workers import DiedError, each

AUDIO = Path(__file__).parent / "audio"


def run(*arguments: str | Path, code: int = 0) -> Result:
    done = CliRunner().invoke(app, [*map(str, arguments)])
    assert done.exit_code == code, done.output
    return done


@pytest.fixture(scope="module")
def songs(tmp_path_factory) -> Path:
    """Six recordings of some seconds, a file that is none, and a manifest."""
    folder = tmp_path_factory.mktemp("songs")
    for name in ("rock140_mix", "ballad95_guitar"):
        whole = read_recording(AUDIO / f"{name}.ogg")
        for number in range(3):
            part = whole.samples[number * 5 * whole.sample_rate_hz :][: 5 * whole.sample_rate_hz]
            soundfile.write(folder / f"{name}-{number}.wav", part, whole.sample_rate_hz, subtype="PCM_24")
    (folder / "bad.wav").write_text("no sound")
    rows = ["path,start,end,title,tags", "bad.wav", "rock140_mix-0.wav,0,2.5,Rock,loud fast"]
    rows += [f"{file.name},,,," for file in sorted(folder.glob("*-[12].wav"))]
    (folder / "list.csv").write_text("\n".join(rows))
    return folder


# ── what an archive consists of ──────────────────────────────────────────────


def test_a_manifest_is_read_whatever_the_order_of_its_lines(songs, tmp_path):
    lines = ["a.wav,0:10,20,Take one,solo late", "a.wav,20,30,,", "b.wav,,,,"]
    for number, order in enumerate(([0, 1, 2], [2, 1, 0])):
        (tmp_path / f"{number}.csv").write_text("path,start,end,title,tags\n" + "\n".join(lines[n] for n in order))
    objects = [{"path": "a.wav", "start": 10, "end": "0:20", "title": "Take one", "tags": ["solo", "late"]}]
    objects += [{"path": "a.wav", "start": 20, "end": 30}, {"path": "b.wav"}]
    (tmp_path / "2.jsonl").write_text("\n".join(map(json.dumps, objects)))
    read = [read_archive([], [tmp_path / name]).entries for name in ("0.csv", "1.csv", "2.jsonl")]
    plain = [[(e.path, e.start_s, e.end_s, e.title, e.tags) for e in entries] for entries in read]
    assert plain[0] == plain[1] == plain[2]
    assert plain[0][0] == (tmp_path / "a.wav", 10, 20, "Take one", ("solo", "late"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column 'path'"),
        ("file,start\na.wav,1", "no column 'path'"),
        ("path,start", "lists no recording"),
        ("path,start\na.wav,soon", "line 2: start must be a time"),
        ("path,start\n,1", "line 2: it names no path"),
        ('path,title\na.wav,"A\nb.wav,B', "line 2: unexpected end of data: is a quote not closed"),
        ('path,title\na.wav,"A\nb.wav,"\nc.wav,C', "line 3: a cell has several lines"),
        ("path,title\na.wav," + "A" * 200_000, "line 2: field larger than"),
        ("path,title\na.wav," + "A" * 5_000, "line 2: a title or tag has more than"),
        ("path,start,end\na.wav,2,2", "it has no length"),
    ],
)
def test_a_manifest_that_cannot_be_meant_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_archive([], [tmp_path / "list.csv"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("between", [",", ";", "\t", " ; "])
def test_a_manifest_of_any_spreadsheet_is_read(tmp_path, between):
    rows = [["Path", "TITLE"], ["a b.wav", "A; or B, live" if between == "\t" else "A"]]
    (tmp_path / "list.csv").write_text("\ufeff\n" + "\r\n".join(between.join(row) for row in rows), "utf-8")
    (entry,) = read_archive([], [tmp_path / "list.csv"]).entries
    assert (entry.path, entry.title, entry.where) == (tmp_path / "a b.wav", rows[1][1], "list.csv, line 3")


def test_a_path_of_a_manifest_may_be_any_that_can_be(tmp_path):
    (tmp_path / "list.csv").write_text("path,tags\na\u2028b\x85c.wav,x\n", "utf-8")
    assert read_archive([], [tmp_path / "list.csv"]).entries[0].path == tmp_path / "a\u2028b\x85c.wav"
    (tmp_path / "list.jsonl").write_text(json.dumps({"path": "\ud800.wav"}))
    if sys.platform != "win32":
        with pytest.raises(InputError, match="line 1: it names no path"):
            read_archive([], [tmp_path / "list.jsonl"])


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights")
def test_equal_lines_and_links_are_the_same_in_any_order(tmp_path):
    (tmp_path / "b.wav").write_text("")
    (tmp_path / "a.wav").symlink_to("b.wav")
    lines = ["b.wav,5,9,x", "b.wav,0,3,y", "a.wav,2,6,z", "b.wav,0,3,z", "a.wav,0,3,z"]
    read = []
    for order in itertools.permutations(lines):
        (tmp_path / "list.csv").write_text("path,start,end,tags\n" + "\n".join(order))
        archive = read_archive([], [tmp_path / "list.csv"])
        read.append([(e.path.name, e.start_s, e.tags) for e in archive.entries])
    assert read == [[("b.wav", 0, ("y",)), ("b.wav", 5, ("x",))]] * len(read)


def test_what_is_twice_there_or_overlaps_is_left_out(songs, tmp_path):
    (tmp_path / "list.csv").write_text("path,start,end\na.wav,0,10\na.wav,0,10\na.wav,5,12\na.wav,10,12\nb.wav,,\nb.wav,3,")
    archive = read_archive([], [tmp_path / "list.csv"])
    assert [(e.path.name, e.start_s) for e in archive.entries] == [("a.wav", 0), ("a.wav", 10), ("b.wav", 0)]
    assert [line.split(": ")[-1].split(" ")[1] for line in archive.left_out] == ["is", "overlaps", "overlaps"]
    assert read_archive([songs]).passed_over == {".csv": len([*songs.glob("*.csv")])}
    names = [e.path.name for e in read_archive([f"{songs}/*mix*.wav"], exclude=["*-1.wav"]).entries]
    assert names == ["rock140_mix-0.wav", "rock140_mix-2.wav"]


def test_lengths_are_those_of_headers_notes_and_chunks(songs, tmp_path):
    track = mido.MidiTrack([mido.Message("note_on", note=60), mido.Message("note_off", note=60, time=960 * 480)])
    mido.MidiFile(tracks=[track], ticks_per_beat=480).save(tmp_path / "a.mid")
    (tmp_path / "s" / "input").mkdir(parents=True)
    (tmp_path / "s" / "settings.json").write_text('{"sample_rate_hz": 8000}')
    (tmp_path / "s" / "input" / "00000.raw").write_bytes(bytes(4 * 16_000))
    (tmp_path / "a.mp4").write_bytes(bytes(64_000))
    lengths_s = [length_s(Entry(tmp_path / name)) for name in ("a.mid", "s", "a.mp4", "none")]
    assert lengths_s == pytest.approx([480, 2, 2, 0])
    assert length_s(Entry(songs / "rock140_mix-0.wav", start_s=1)) == pytest.approx(4)


def test_a_work_folder_has_one_run_at_a_time_and_nothing_else_of_anyone(tmp_path):
    with work_folder(tmp_path / "w"), pytest.raises(InputError, match="another run"), work_folder(tmp_path / "w"):
        pass
    shards = [work_folder(tmp_path / "w", alone=False) for _ in range(2)]
    with shards[0], shards[1], pytest.raises(InputError, match="another run"), work_folder(tmp_path / "w"):
        pass
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="not a work folder"), work_folder(tmp_path / "own"):
        pass
    assert [file.name for file in (tmp_path / "own").iterdir()] == ["letter.txt"]


def test_a_work_folder_passes_only_where_no_run_was_to_keep_it(tmp_path):
    for runs, stays in (([True], False), ([True, False, True], True), ([False, True], True)):
        folder = tmp_path / f"{runs}"
        for number, passing in enumerate(runs, 1):
            with contextlib.suppress(KeyError), work_folder(folder, passing=passing):
                if number < len(runs):
                    raise KeyError  # as a run that is stopped
        assert folder.exists() == stays
    (folder / "lock.sqlite").write_text("this is no database " * 100)
    with pytest.raises(InputError, match="cannot lock the work folder"), work_folder(folder):
        pass


def test_a_work_folder_holds_no_recordings_of_anyone(songs, tmp_path):
    with work_folder(tmp_path / "p.hal.work") as work:
        (work / "heard" / "part-x").mkdir()
        for folder in (work / "heard" / "part-x", tmp_path):
            (folder / "sound.flac").write_text("")
    archive = read_archive([tmp_path])
    assert archive.entries == (Entry(tmp_path / "sound.flac"),)
    assert archive.passed_over == {}


def _shard_of(folder: Path, entries: list[Entry], found: list[Found], shard: tuple[int, int] = (0, 1)) -> Path:
    archive = Archive(tuple(entries) * shard[1])
    _write_shard(folder, shard, archive, PerceptionSpec(), entries, found, ArchiveOptions(allow_mixed=True))
    return folder / f"shard-{shard[0] + 1}-of-{shard[1]}.json"


def test_a_shard_is_read_as_it_was_written(tmp_path):
    entries = [Entry(Path(name), 1, 2.5, "T", ("a", "b"), "line 2") for name in ("x/50% é.wav", "x/\udcff.wav")]
    found = [Found("0" * 40, duration_s=1.5), Found(wrong="no sound")]
    assert _read_shard(_shard_of(tmp_path, entries, found))["rows"] == list(zip(entries, found, strict=True))


@pytest.mark.parametrize(
    "change", [{"key": "../../x"}, {"key": 1}, {"tags": None}, {"path": 3}, {"start_s": "1"}, {"where": "\n"}]
)
def test_what_is_no_shard_is_refused_in_one_line(tmp_path, change):
    file = _shard_of(tmp_path, [Entry(Path("a.wav"))], [Found("0" * 40)])
    values = json.loads(file.read_text())
    values["rows"][0] |= change
    file.write_text(json.dumps(values))
    assert "is no shard" in run("join", tmp_path, "-o", tmp_path / "a.hal", code=2).output
    values["rows"] = [{}] if change == {"key": 1} else []
    file.write_text(json.dumps(values))
    assert "is no shard" in run("join", tmp_path, "-o", tmp_path / "a.hal", code=2).output


def test_shards_of_two_counts_are_no_archive(tmp_path):
    for count in (2, 4):
        _shard_of(tmp_path, [Entry(Path("a.wav"))], [Found("0" * 40)], (0, count))
    assert "is one of 4 shards" in run("join", tmp_path, "-o", tmp_path / "a.hal", "--allow-mixed", code=2).output


def test_what_was_heard_is_refused_where_it_was_cut_and_strict(songs, tmp_path):
    (tmp_path / "a.wav").write_bytes((songs / "rock140_mix-0.wav").read_bytes()[:-90_000])
    with work_folder(tmp_path / "w") as folder:
        task = HearTask(Entry(tmp_path / "a.wav"), PerceptionSpec(), folder)
        content = {"warnings": [*read_recording(tmp_path / "a.wav").warnings], "n_samples": 1, "sample_rate_hz": 1}
        write_container(heard_path(folder, _key(task)), content=content, members={})
        assert not hear_entry(task).wrong
        assert "is cut short" in hear_entry(replace(task, strict=True)).wrong


def test_a_file_that_changes_a_full_disk_and_other_numbers_are_told_in_one_line(songs, tmp_path, monkeypatch):
    file = tmp_path / "a.wav"
    soundfile.write(file, np.random.default_rng(0).normal(0, 0.1, 12_000), 24_000)
    with work_folder(tmp_path / "w") as folder:
        task = HearTask(Entry(file), PerceptionSpec(), folder)

        def grows(path: Path, **given: Any) -> Any:
            read = read_recording(path, **given)
            path.write_bytes(path.read_bytes() + b"more")
            return read

        with monkeypatch.context() as patched:
            patched.setattr(archive, "read_recording", grows)
            assert hear_entry(task).wrong == f"{file}: it changed while it was read"

        def full(*_: Any, **__: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(heard, "write_container", full)
            with pytest.raises(InputError, match=r"cannot write what was heard of a.wav: the disk is full"):
                hear_entry(task)
        assert not any((folder / "heard").iterdir())
        with pytest.raises(InputError, match="computes other numbers than the machine that asks"):
            hear_entry(replace(task, probe="of another machine"))


def test_progress_says_how_fast_it_goes_how_long_it_takes_and_how_busy_workers_are(tmp_path, monkeypatch):
    said, now_s = [], iter((0.0, 10.0, 20.0))
    monkeypatch.setattr(time, "monotonic", lambda: next(now_s))
    entries = [Entry(tmp_path / f"{n}.wav", 0.0, 100.0) for n in range(3)]
    pace = _Pace(entries, 2, lambda words, share: said.append((words, round(share, 2))))
    pace.came(entries[0], Found("k", duration_s=100.0, is_new=True, took_s=10.0))
    pace.came(entries[1], Found("k", duration_s=100.0))
    assert said == [
        ("Listening to 0.wav: 10 times real time, 0:20 left, 2 workers 50 % busy", 0.33),
        ("Listening to 1.wav: 5 times real time, 0:20 left, 2 workers 25 % busy", 0.67),
    ]
    assert pace.again == 1


def test_the_content_of_a_soundfont_is_part_of_how_a_midi_file_was_heard(tmp_path):
    (tmp_path / "a.mid").write_bytes(b"")
    keys = []
    for content in ("a", "bc", "a"):
        font = tmp_path / f"{len(keys)}.sf2"
        font.write_text(content)
        keys.append(_key(HearTask(Entry(tmp_path / "a.mid"), PerceptionSpec(), tmp_path, midi=MidiChoice(soundfont=font))))
    assert keys[0] == keys[2] != keys[1]


# ── what of it is remembered ─────────────────────────────────────────────────


class _Counted:
    """A recording by how often tokens occur in it."""

    def __init__(self, counts: list[int], duration_s: float = 10.0) -> None:
        self.counts, self.heard = np.array(counts), self
        self.duration_s = duration_s

    def token_counts(self, size: int) -> np.ndarray:
        return self.counts


def test_a_diverse_choice_has_one_of_each_kind():
    kinds = [[9, 1, 0], [8, 1, 0], [9, 2, 0], [0, 9, 1], [0, 8, 1], [1, 0, 9]]
    chosen = choose_diverse([_Counted(kind) for kind in kinds], size=3, most_s=30)
    assert [sorted(range(3), key=lambda k: -kinds[n][k])[0] for n in chosen] == [0, 1, 2]
    assert choose_diverse([_Counted([1, 0], 50), _Counted([0, 1], 40)], size=2, most_s=30) == [1], "something is remembered"
    assert len(choose_diverse([_Counted(kind) for kind in kinds], size=3, most_s=1e9)) == 6


def test_recent_and_tagged_choices_fill_the_hours():
    assert choose_recent([1000 - number for number in range(4)], [10.0] * 4, most_s=25) == [0, 1]
    assert choose_recent([2, 1, 0], [50.0, 10.0, 10.0], most_s=25) == [1, 2], "what is too long leaves room for others"
    assert choose_recent([2, 1, 0], [50.0, 30.0, 40.0], most_s=25) == [1], "something is remembered"
    entries = [Entry(Path(f"{number}"), tags=("even",) if number % 2 == 0 else ()) for number in range(4)]
    assert choose_tagged(entries, [10.0] * 4, frozenset({"even"}), most_s=25) == [0, 2]
    with pytest.raises(InputError, match="no recording has a tag"):
        choose_tagged(entries, [10.0] * 4, frozenset({"odd"}), most_s=25)


def test_a_tag_that_no_recording_has_is_refused_before_hearing(songs, tmp_path):
    options = ("--memory-hours", 1, "--select", "tags=none")
    done = run("train", "--manifest", songs / "list.csv", "-o", tmp_path / "a.hal", *options, code=2)
    assert "no recording has a tag" in done.output
    assert not (tmp_path / "a.hal.work").exists()


def test_names_of_entries_all_differ():
    titles = ["x", "x", "x (2)", "x", "x (2)", ""]
    names = entry_names([Entry(Path("a.wav"), title=title) for title in titles])
    assert names == ["x", "x (2)", "x (2) (2)", "x (3)", "x (2) (3)", "a.wav"]


def test_compact_recordings_are_kept_as_they_are_heard(songs):
    whole = read_recording(songs / "rock140_mix-0.wav")
    compact = compacted(whole, 24_000)
    assert compact.sample_rate_hz == 24_000
    assert compact.duration_s == pytest.approx(whole.duration_s, abs=0.01)
    assert np.array_equal(compact.samples * 2**15, np.rint(compact.samples * 2**15))
    assert np.array_equal(compacted(compact, 24_000).samples, compact.samples)
    assert len(encode_flac(compact.samples, 24_000)) < 0.45 * len(encode_flac(whole.samples, whole.sample_rate_hz))


# ── workers ──────────────────────────────────────────────────────────────────


def test_a_recording_that_ends_its_worker_is_left_out_by_name(tmp_path):
    entries = [Entry(Path("a.wav")), Entry(Path("b.wav"))]
    (tmp_path / "heard").mkdir()

    def task(entry: Entry) -> HearTask:
        return HearTask(entry, PerceptionSpec(), tmp_path)

    found = hear_archive(entries, task, lambda *_: [(1, DiedError("died")), (0, Found("k"))], each=lambda *_: None)
    assert [one.wrong for one in found] == ["", "b.wav: died"]


def test_what_influences_are_worth_is_kept_while_little_is_new():
    kept = [SimpleNamespace(digest=f"{n}", duration_s=360.0) for n in range(10)]
    before = SimpleNamespace(memory=SimpleNamespace(worth={"chroma": 1.5}), recordings=kept, archive={})
    eleven, twelve = ([*kept, *(SimpleNamespace(digest=f"new {n}", duration_s=359.0) for n in range(new))] for new in (1, 2))
    assert _kept_worth(before, eleven) == {"chroma": 1.5}
    assert _kept_worth(before, twelve) == _kept_worth(before, eleven[1:]) == _kept_worth(None, kept) == {}
    before.archive = {"weighed_hours": "0.95"}
    assert _kept_worth(before, eleven) == {}
    assert _kept_worth(before, kept) == {"chroma": 1.5}
    before.archive = {"weighed_hours": "of a stranger"}
    assert _kept_worth(before, kept) == {}


def _die_once(path: Path) -> str:
    first = path.with_name("0")
    while path.name == "fatal" and not first.exists():
        time.sleep(0.01)
    if path.name == "fatal" or (path == first and not path.exists()):
        path.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return path.name


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is killed so")
@pytest.mark.slow
def test_what_a_killed_worker_did_is_done_again(tmp_path):
    paths = [tmp_path / f"{n}" for n in (0, 1, "fatal", 2)]
    done = dict(each(_die_once, paths, processes=2))
    assert isinstance(done.pop(2), DiedError)
    assert done == {0: "0", 1: "1", 3: "2"}


def _die(path: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class _Fatal:
    words: str


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is killed so")
@pytest.mark.slow
def test_where_nothing_is_done_the_recording_is_named():
    with pytest.raises(InputError, match=r"^b\.wav: a process of the training died"):
        deque(each(_die, [_Fatal("a.wav"), _Fatal("b.wav"), _Fatal("c.wav")], processes=2))


# ── the same bytes ───────────────────────────────────────────────────────────


@pytest.mark.slow
def test_one_digest_whoever_hears_it(songs, tmp_path):
    """One worker, two; a shuffled manifest; shards and a join; a run that was killed; a work folder damaged and poisoned."""
    manifest, work = songs / "list.csv", tmp_path / "work"
    done = run(
        "train", "--manifest", manifest, "-o", tmp_path / "one.hal", "--workers", 1, "--work", work, "--sample-frames", 1000
    )
    assert "left out 1 of 6 recordings" in done.stderr
    assert "bad.wav" in done.stderr
    wanted = (tmp_path / "one.hal").read_bytes()
    model = load_partner(tmp_path / "one.hal")
    assert [r.name for r in model.recordings][-1] == "rock140_mix-2.wav"
    assert [(r.name, r.tags) for r in model.recordings if r.tags] == [("Rock", ("loud", "fast"))]

    first, *rows = manifest.read_text().splitlines()
    (songs / "shuffled.csv").write_text("\n".join([first, *rows[::-1]]))
    for number in (1, 2):
        run(
            "train",
            "--manifest",
            songs / "shuffled.csv",
            "-o",
            tmp_path / "no.hal",
            "--shard",
            f"{number}/2",
            "--work",
            tmp_path / "s",
        )
    run("join", tmp_path / "s", "-o", tmp_path / "joined.hal", "--sample-frames", 1000, "--workers", 1)
    assert not (tmp_path / "no.hal").exists()
    assert (tmp_path / "joined.hal").read_bytes() == wanted

    victim = max((work / "heard").iterdir(), key=lambda file: file.stat().st_size)
    before = victim.stat().st_mtime_ns
    data = bytearray(victim.read_bytes())
    data[-5000] ^= 1
    victim.write_bytes(data)
    gone, poisoned, *_ = (file for file in sorted((work / "heard").iterdir()) if file != victim)
    poisoned.write_bytes(gone.read_bytes())  # whole, and another recording's
    gone.unlink()
    tokens, others, *_ = sorted((work / "tokens").iterdir())
    tokens.write_bytes(others.read_bytes())
    command = [
        "train",
        "--manifest",
        manifest,
        "-o",
        tmp_path / "again.hal",
        "--workers",
        "1",
        "--work",
        work,
        "--sample-frames",
        "1000",
    ]
    killed = subprocess.Popen([sys.executable, "-P", "-m", "musichal", *map(str, command)], stderr=subprocess.DEVNULL)
    for _ in range(600):
        if any((work / "heard").glob("part-*")):
            break
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    assert not (tmp_path / "again.hal").exists()
    assert "of 5 had been heard before" in run(*("2" if part == "1" else part for part in command)).output
    assert (tmp_path / "again.hal").read_bytes() == wanted
    assert victim.stat().st_mtime_ns != before


@pytest.mark.slow
def test_sounds_of_all_and_a_memory_of_a_choice(songs, tmp_path):
    run("train", songs, "-o", tmp_path / "a.hal", "--memory-hours", 0.005, "--select", "diverse", "--no-audio")
    model = load_partner(tmp_path / "a.hal")
    assert model.archive["memory"] == "diverse, 0.005 h"
    assert len(model.recordings) == 3
    assert model.keeps_vocabularies
    assert not (tmp_path / "a.hal.work").exists()


@pytest.mark.slow
def test_verify_hears_a_stated_part_of_an_archive(songs, tmp_path):
    run("train", songs, "-o", tmp_path / "a.hal", "--exclude", "*mix*", "--compact")
    done = run("verify", tmp_path / "a.hal", "--quick", "--hours", 0.003)
    assert "verified with 2 of 3 recordings, evenly spread" in done.output


@pytest.mark.slow
def test_a_machine_of_another_arithmetic_is_refused(songs, tmp_path):
    run("train", songs, "-o", tmp_path / "a.hal", "--shard", "1/2", "--work", tmp_path / "w", "--workers", 1)
    old = {"OPENBLAS_CORETYPE": "Prescott", "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"}
    second = ["train", songs, "-o", tmp_path / "a.hal", "--shard", "2/2", "--work", tmp_path / "w", "--workers", "1"]
    command = [sys.executable, "-P", "-m", "musichal", *map(str, second)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **old})
    shards = [json.loads((tmp_path / "w" / f"shard-{n}-of-2.json").read_text())["probe"] for n in (1, 2)]
    if shards[0] == shards[1]:
        pytest.skip("both hear the same numbers here")
    assert "has another arithmetic than" in run("join", tmp_path / "w", "-o", tmp_path / "a.hal", code=2).output
    run("join", tmp_path / "w", "-o", tmp_path / "a.hal", "--allow-mixed", "--workers", 1)


@pytest.mark.slow(15)
@pytest.mark.skipif(sys.platform == "win32", reason="nothing is killed so")
def test_a_dask_cluster_gives_the_same_bytes_though_a_worker_is_killed_and_another_slow(songs, tmp_path):
    pytest.importorskip("distributed")
    from distributed import LocalCluster

    run("train", songs, "-o", tmp_path / "here.hal", "--work", tmp_path / "w", "--workers", 1)
    with LocalCluster(n_workers=0, scheduler_port=0, host="127.0.0.1", dashboard_address=None, processes=True) as cluster:
        address = "dask://" + cluster.scheduler_address.removeprefix("tcp://")
        assert "has no worker" in run("train", songs, "-o", tmp_path / "a.hal", "--engine", address, code=2).output
        command = [sys.executable, "-P", "-m", "musichal", "worker", address, "--workers", "1"]
        workers = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)]
        try:
            while len(cluster.scheduler_info["workers"]) < 2:
                time.sleep(0.1)
            options = ("--engine", address, "--work", tmp_path / "d")
            killer = threading.Thread(target=_kill_when_heard, args=(tmp_path / "d" / "heard", *_pids_of_workers(cluster)))
            killer.start()
            run("train", songs, "-o", tmp_path / "there.hal", *options)
            killer.join()
        finally:
            for worker in workers:
                worker.terminate()
                worker.wait()
    assert (tmp_path / "there.hal").read_bytes() == (tmp_path / "here.hal").read_bytes()


def _kill_when_heard(folder: Path, victim: int, slow: int) -> None:
    """Kill one of the workers while it hears its first file, and let the other stand still for a while."""
    while not any(folder.glob("part-*")):
        time.sleep(0.02)
    os.kill(victim, signal.SIGKILL)
    os.kill(slow, signal.SIGSTOP)
    time.sleep(1.5)
    os.kill(slow, signal.SIGCONT)


def _pids_of_workers(cluster: Any) -> list[int]:
    from distributed import Client

    with Client(cluster.scheduler_address, set_as_default=False) as client:
        return list(client.run(os.getpid).values())
