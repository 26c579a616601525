import json
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musichal.audio.recording import ingest, read_recording
from musichal.errors import InputError
from musichal.hearing.encoders import create_encoder
from musichal.hearing.listener import Listener
from musichal.live.engine import perform
from musichal.live.session import recorder
from musichal.live.session.event_log import DecisionLog
from musichal.live.session.recorder import LiveSessionWriter, write_session
from musichal.live.session.session import (
    DECISIONS,
    SessionSettings,
    read_session,
    replay,
    reply_bytes,
    session_folder,
    settings_json,
)
from musichal.machine import sha256_of
from musichal.note import Note
from musichal.partner.decision import Alternative, Context, Decision, Influence
from musichal.partner.explanation import summarise
from musichal.partner.settings import PartnerSettings
from stage_by_hand import partner_of

pytestmark = pytest.mark.usefixtures("heard_once")

WRITTEN = [
    "input/00000.flac", "transcript.jsonl", "percepts.jsonl", "decisions.jsonl", "drift.jsonl", "reply.mid", "summary.json",
    "settings.json",
]  # fmt: skip


@pytest.fixture(scope="module")
def played(trained, short_guitar):
    guitar = read_recording(short_guitar)
    samples = guitar.samples[: 4 * guitar.sample_rate_hz]
    chosen = PartnerSettings(temperature=0.2)
    return samples, perform(trained, samples, sample_rate_hz=guitar.sample_rate_hz, settings=chosen, seed=7)


@pytest.fixture(scope="module")
def wanted(trained_path) -> SessionSettings:
    return SessionSettings(
        partner_path=str(trained_path), partner_sha256=sha256_of(trained_path), partner=PartnerSettings(temperature=0.2),
        seed=7, channel=0, program=4, sample_rate_hz=44_100, input_name="guitar.wav",
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path, played, wanted) -> Path:
    path = tmp_path / "session"
    with session_folder(path):
        write_session(path, wanted, *played)
    return path


def test_a_session_comes_back_and_plays_the_same_bytes_again(folder, played, wanted, trained):
    session = read_session(folder)
    assert session.settings == wanted
    assert session.recovered == ()
    assert np.array_equal(session.samples(), played[0])
    assert session.decisions == played[1].decisions
    assert session.entries == played[1].entries
    assert session.reply == reply_bytes(played[1].decisions, channel=wanted.channel, program=wanted.program)
    assert json.loads((folder / "summary.json").read_text())["duration_s"] == round(played[1].duration_s, 3)
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()) == sorted(WRITTEN)
    rate = wanted.sample_rate_hz
    again = perform(trained, session.samples(), sample_rate_hz=rate, settings=wanted.partner, seed=wanted.seed)
    assert again.decisions == session.decisions
    assert any(d.notes for d in again.decisions)
    assert [entry.at_sample for entry in session.entries] == sorted(entry.at_sample for entry in session.entries)
    other = perform(trained, session.samples(), sample_rate_hz=rate, settings=wanted.partner, seed=8)
    assert other.decisions != again.decisions


@pytest.mark.parametrize("more", [0, 1, 4410, 9000])
def test_its_replay_follows_the_transcript_to_the_last_percept(tmp_path, trained, wanted, short_guitar, more):
    """What the light path held back at the end of the recording is heard again, and notes ring on behind it."""
    guitar = read_recording(short_guitar)
    samples = guitar.samples[: 3 * guitar.sample_rate_hz + more]
    performance = perform(trained, samples, sample_rate_hz=guitar.sample_rate_hz, settings=wanted.partner, seed=wanted.seed)
    write_session(tmp_path, wanted, samples, performance)
    session = read_session(tmp_path)
    spec = trained.spec
    listener = Listener(spec, create_encoder(spec), trained.vocabularies, source_rate_hz=guitar.sample_rate_hz)
    partner = partner_of(trained, wanted.partner, wanted.seed)
    found = replay(session, listener, partner, sample_rate_hz=spec.sample_rate_hz)
    assert (found.heard, found.unlike, found.onsets_unlike, found.missing) == (len(performance.percept_lines), (), 0, 0)
    assert found.decided == found.decisions_alike == len(performance.decisions)
    assert session.decisions == performance.decisions
    assert found.reply == session.reply


def test_a_recording_in_stereo_is_kept_as_it_was_heard(tmp_path, trained, wanted, played):
    both = np.stack([played[0], 0.5 * played[0]], axis=1)
    performance = perform(trained, both, sample_rate_hz=wanted.sample_rate_hz, settings=wanted.partner, seed=wanted.seed)
    write_session(tmp_path, wanted, both, performance)
    session = read_session(tmp_path)
    assert np.array_equal(session.samples(), ingest(both))
    again = perform(trained, session.samples(), sample_rate_hz=wanted.sample_rate_hz, settings=wanted.partner, seed=wanted.seed)
    assert again.decisions == session.decisions


def test_the_same_performance_writes_the_same_bytes(folder, tmp_path, played, wanted):
    with session_folder(tmp_path / "deep" / "again"):
        write_session(tmp_path / "deep" / "again", wanted, *played)
    for name in WRITTEN:
        assert (folder / name).read_bytes() == (tmp_path / "deep" / "again" / name).read_bytes()


def test_a_folder_that_is_not_empty_is_refused_and_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"), session_folder(tmp_path):
        pass
    assert (tmp_path / "notes.txt").read_text() == "mine"
    with pytest.raises(InputError, match="cannot make the session folder"), session_folder(tmp_path / "notes.txt"):
        pass


@pytest.mark.parametrize("broken", range(len(WRITTEN)))
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "full")])
def test_interrupted_writing_leaves_nothing(tmp_path, played, wanted, monkeypatch, broken, error):
    real, calls = recorder.open_atomically, []

    def fail_later(path):
        calls.append(path)
        if len(calls) > broken:
            raise error
        return real(path)

    monkeypatch.setattr(recorder, "open_atomically", fail_later)
    kept = tmp_path / "kept"
    kept.mkdir()
    for path in (tmp_path / "new", kept):
        calls.clear()
        with pytest.raises((KeyboardInterrupt, OSError)), session_folder(path):
            write_session(path, wanted, *played)
    assert not (tmp_path / "new").exists()
    assert list(kept.iterdir()) == []
    with pytest.raises(InputError, match="is not a session"):
        read_session(kept)


def change(**values):
    def damage(folder: Path) -> None:
        table = json.loads((folder / "settings.json").read_text())
        (folder / "settings.json").write_text(json.dumps(table | values))

    return damage


def remove(key):
    def damage(folder: Path) -> None:
        table = json.loads((folder / "settings.json").read_text())
        del table[key]
        (folder / "settings.json").write_text(json.dumps(table))

    return damage


def write(name, data: bytes):
    return lambda folder: (folder / name).write_bytes(data)


def cut(name):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-100])


DAMAGE = {
    "no settings": lambda f: (f / "settings.json").unlink(),
    "no input": lambda f: (f / "input" / "00000.flac").unlink(),
    "settings empty": write("settings.json", b""),
    "settings no table": write("settings.json", b"[1]"),
    "settings no text": write("settings.json", b"\xff\xfe"),
    "settings deep": write("settings.json", b"[" * 100_000),
    "settings NaN": change(seed=float("nan")),
    "newer version": change(version=3),
    "key missing": remove("seed"),
    "partner missing": remove("partner"),
    "partner no table": change(partner=[1]),
    "partner setting unknown": change(partner={"loudness": 1}),
    "partner setting wrong": change(partner={"temperature": "hot"}),
    "partner setting huge": change(partner={"temperature": 10**400}),
    "seed text": change(seed="7"),
    "seed negative": change(seed=-1),
    "channel of drums": change(channel=9),
    "channel out of range": change(channel=16),
    "rate wrong": change(sample_rate_hz=48_000),
    "rate true": change(sample_rate_hz=True),
    "path with a null": change(partner_path="a\0b"),
    "name of two lines": change(input_name="a\nb"),
    "input cut short": cut("input/00000.flac"),
    "input empty": write("input/00000.flac", b""),
    "input no FLAC": write("input/00000.flac", b"RIFF" * 100),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_session_is_refused_in_one_line_that_names_the_file(folder, damage):
    damage(folder)
    with pytest.raises(InputError) as caught:
        list(read_session(folder).sound())
    assert str(caught.value).isprintable()
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("line", ["", "{", "null", "[]", "{}", "7", '{"number": 1}', "[" * 100_000, '"a"'])
def test_a_damaged_decision_is_refused_with_its_line(folder, line):
    path = folder / "decisions.jsonl"
    path.write_text(path.read_text() + line + "\n" + path.read_text())
    with pytest.raises(InputError, match=r"decisions\.jsonl: line \d+ is not a decision"):
        read_session(folder)


def test_a_session_is_readable_by_others(folder, played):
    samples, rate = soundfile.read(folder / "input" / "00000.flac", dtype="float32")
    assert rate == 44_100
    assert np.array_equal(samples, played[0])
    lines = (folder / "decisions.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == [d.kind for d in played[1].decisions]


def test_reading_a_session_decodes_no_sound(folder, played, monkeypatch):
    monkeypatch.setattr("musichal.audio.session_input.decode_flac", None)
    assert read_session(folder).input_samples == len(played[0])


PART = Decision(
    0, 1.0, "play", state=3, recording=0, source_start_s=1.5, duration_s=0.25, answers=(0.1, 0.5),
    contexts=tuple(Context("harmonic", tuple(range(12)), n, 0, 1.0 * n) for n in range(8)),
    influences=tuple(Influence(f"influence {n}", 0.1 * n, 1.0, 0.1) for n in range(8)),
    alternatives=tuple(Alternative(n, 0, 0.5 * n, 0, 0.1) for n in range(8)),
    notes=(Note(1.0, 0.25, 60, 80),),
)  # fmt: skip


def voices(choice: int) -> list[Decision]:
    """Return one choice as three voices play it."""
    at_s, pitches = 0.5 * choice, {"melody": 72, "bass": 40, "chords": 60}
    return [
        replace(PART, number=3 * choice + n, choice=choice, time_s=at_s, voice=voice, notes=(Note(at_s, 0.25, pitch, 80),))
        for n, (voice, pitch) in enumerate(pitches.items())
    ]


def test_voices_share_the_record_of_their_choice_and_closing_needs_no_memory_for_it(tmp_path, wanted):
    """An hour of three voices took 143 MB to close."""
    live = LiveSessionWriter(tmp_path, wanted, clock_rate_hz=24_000)
    decisions = [d for choice in range(250) for d in voices(choice)]
    for decision in decisions:
        live.decision(decision)
    live.settle()
    text = (tmp_path / "decisions.jsonl").read_text()
    assert len(text) < 0.5 * sum(len(d.to_json()) for d in decisions)
    log = DecisionLog(tmp_path / DECISIONS)
    assert (tuple(log), len(log), log[7], log[-1], log[5:9]) == (
        tuple(decisions), 750, decisions[7], decisions[-1], decisions[5:9],
    )  # fmt: skip
    summary = summarise(decisions, end_s=125.0)
    tracemalloc.start()
    live.finish({})
    assert summarise(DecisionLog(tmp_path / DECISIONS), end_s=125.0) == summary
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000  # 750 decisions take 2.9 MB
    assert (tmp_path / "reply.mid").read_bytes() == reply_bytes(decisions, channel=wanted.channel, program=wanted.program)
    (tmp_path / "decisions.jsonl").write_text("".join(d.to_json() + "\n" for d in decisions))
    assert tuple(DecisionLog(tmp_path / DECISIONS)) == tuple(decisions), "a session from before voices shared a record"


def test_a_chunk_that_cannot_be_encoded_stays_raw_and_the_recording_goes_on(tmp_path, wanted, played, monkeypatch):
    def refuse(_samples, _rate_hz):
        raise soundfile.LibsndfileError(1)

    monkeypatch.setattr(recorder, "encode_flac", refuse)
    told = []
    writing = recorder.SessionRecorder(tmp_path, sample_rate_hz=44_100, on_trouble=told.append, chunk_s=1.0)
    (tmp_path / "settings.json").write_text(settings_json(wanted))
    writing.sound(played[0])
    writing.close()
    assert len(told) == 1 and "raw samples" in told[0]
    session = read_session(tmp_path)
    assert session.input_samples == len(played[0])
    assert np.array_equal(session.samples(), played[0])


def test_any_error_of_the_writing_thread_is_told_once_and_written_down(tmp_path, monkeypatch):
    told = []
    writing = recorder.SessionRecorder(tmp_path, sample_rate_hz=44_100, on_trouble=told.append)
    writing.line("events.jsonl", "1")
    writing.settle()
    monkeypatch.setattr(recorder.SessionRecorder, "_append", lambda *_: [].pop())
    for _ in range(3):
        writing.line("events.jsonl", "2")
        writing.settle()
    writing.close()
    assert len(told) == 1 and "IndexError" in told[0]
    assert "IndexError" in (tmp_path / "trouble.txt").read_text()
    assert (tmp_path / "events.jsonl").read_text() == "1\n"
