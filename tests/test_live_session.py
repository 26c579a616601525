"""What was played on stage can be played again: late hearing, gaps, changes by hand, crashes and all."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from musichal.cli import app
from musichal.errors import InputError
from musichal.hearing.encoders import create_encoder
from musichal.hearing.listener import Listener
from musichal.live.control import Command, CommandQueue, command
from musichal.live.session.event_log import Changed, Ended, Lost, Perceived, Skipped, Staged, Struck
from musichal.live.session.recorder import LiveSessionWriter
from musichal.live.session.session import Replay, SessionSettings, read_session, replay, session_folder
from musichal.machine import sha256_of
from musichal.partner.settings import PartnerSettings
from stage_by_hand import HandStage, SlowAnalysis, hand_stage, partner_of

CHOSEN = PartnerSettings(temperature=0.3, rest_below=0.02)


@pytest.fixture(scope="module")
def guitar(short_guitar):
    return soundfile.read(short_guitar, dtype="float32")


@pytest.fixture(scope="module")
def wanted(trained_path) -> SessionSettings:
    return SessionSettings(
        partner_path=str(trained_path), partner_sha256=sha256_of(trained_path), partner=CHOSEN, seed=3, channel=0, program=4,
        sample_rate_hz=44_100, input_name="guitar",
    )  # fmt: skip


def perform(
    folder: Path, model, wanted, samples, *, script=(), delays=lambda _: 0, block=512, close=True, chunk_s=10.0
) -> tuple[HandStage, LiveSessionWriter]:
    """Play a session; `script` gives for a block's number what happens before it."""
    rate = wanted.sample_rate_hz
    writer = LiveSessionWriter(folder, wanted, clock_rate_hz=model.spec.sample_rate_hz, chunk_s=chunk_s)
    box = CommandQueue(pace_s=0.0)
    stage = hand_stage(
        model, rate_hz=rate, block=block, settings=CHOSEN, seed=3, commands=box, observer=writer,
        analysis=lambda hear: SlowAnalysis(hear, delays),
    )  # fmt: skip
    script = dict(script)
    for number in range(len(samples) // block):
        what = script.get(number, ())
        lost = 0
        for name, *arguments in [what] if what else []:
            if name == "lost":
                lost = arguments[0]
            elif name == "tap":
                box.put(Command("tap", moment_s=stage.clock.now))
            else:
                box.put(command(name, arguments))
        stage.send(samples[number * block : (number + 1) * block], lost_before=lost)
    if close:
        stage.engine.finish()
        writer.finish({})
    return stage, writer


def again(folder: Path, model) -> tuple[Replay, object]:
    session = read_session(folder)
    listener = Listener(
        model.spec, create_encoder(model.spec), model.vocabularies, source_rate_hz=session.settings.sample_rate_hz
    )
    played = replay(session, listener, partner_of(model, CHOSEN, 3), sample_rate_hz=model.spec.sample_rate_hz)
    return played, session


SCRIPT = st.dictionaries(
    st.integers(1, 230),
    st.one_of(
        st.tuples(st.just("mute")),
        st.tuples(st.just("panic")),
        st.tuples(st.just("listen")),
        st.tuples(st.just("lost"), st.sampled_from([1, 512, 20_000, 100_000])),
        st.tuples(st.just("temperature"), st.floats(0, 1)),
        st.tuples(st.just("chroma_weight"), st.floats(-1, 2)),
        st.tuples(st.just("mode"), st.sampled_from(["shadow", "mirror", "couple", "lead", "contrast", "rest", "waltz"])),
        st.tuples(st.just("region"), st.sampled_from(["0:2-6", "", "nonsense"])),
        st.tuples(
            st.sampled_from(
                ["go_back", "more_like_this", "less_like_this", "change", "tap", "pause", "mark", "next_section", "end"]
            )
        ),
        st.tuples(st.just("intensity"), st.one_of(st.floats(-0.1, 1), st.just("auto"))),
        st.tuples(st.just("bass.low_pitch"), st.integers(0, 9)),
    ),
    max_size=8,
)


@settings(
    max_examples=8,
    phases=[Phase.explicit, Phase.generate],
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@example(script={119: ("region", "nonsense"), 191: ("listen",), 130: ("mute",), 79: ("bass.low_pitch", 8)}, late=100, seed=63)
@example(script={60: ("intensity", 0.9), 110: ("less_like_this",), 170: ("intensity", "auto")}, late=0, seed=0)
@example(script=dict.fromkeys((20, 63, 106, 149, 192), ("tap",)), late=0, seed=0)
@given(script=SCRIPT, late=st.integers(0, 120), seed=st.integers(0, 100))
def test_whatever_happened_a_replay_gives_the_same_decisions_and_bytes(request, tmp_path_factory, script, late, seed):
    trained, wanted, guitar = (request.getfixturevalue(name) for name in ("trained", "wanted", "guitar"))
    folder = tmp_path_factory.mktemp("session")
    delays = np.random.default_rng(seed).integers(0, late + 1, 1000)
    stage, _ = perform(folder, trained, wanted, guitar[0][:120_000], script=script, delays=lambda k: int(delays[k]))
    played, session = again(folder, trained)
    assert session.recovered == ()
    assert [d for d, _ in stage.output.played] == list(session.decisions)
    assert played.decided == played.decisions_alike == len(session.decisions)
    assert played.reply == session.reply
    assert (played.unlike, played.onsets_unlike, played.missing) == ((), 0, 0)
    entries = session.entries
    assert played.heard == sum(isinstance(e, Perceived) for e in entries) == stage.engine.counts.segments
    known = [e.index for e in entries if isinstance(e, Perceived | Skipped)]
    assert len(set(known)) == len(known), "each segment is heard or skipped, once"
    at_the_end = set(range(max(known, default=-1) + 1)) - set(known)
    assert len(at_the_end) <= 2, "but for the one that is being heard at the end, and the one that waits behind it"
    assert session.input_samples == stage.engine.position
    assert sum(e.samples for e in entries if isinstance(e, Lost)) == stage.engine.counts.lost_samples


def test_a_slow_machine_skips_whole_segments_and_says_what_would_help(tmp_path, trained, wanted, guitar):
    stage, _ = perform(tmp_path, trained, wanted, guitar[0], delays=lambda _: 100)
    played, session = again(tmp_path, trained)
    skipped = [e for e in session.entries if isinstance(e, Skipped)]
    assert len(skipped) == stage.engine.counts.skipped > 5
    assert {e.why for e in skipped} == {"late"}
    assert played.reply == session.reply
    told = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert any(e["kind"] == "overload" and "hearing" in e["text"] for e in told)


def test_lost_sound_is_silence_of_the_same_length_and_a_long_gap_is_left_out(tmp_path, trained, wanted, guitar):
    stage, _ = perform(
        tmp_path, trained, wanted, guitar[0][:100_000], block=500, script={50: ("lost", 300), 100: ("lost", 80 * 44_100)}
    )
    session = read_session(tmp_path)
    sound = np.concatenate(list(session.sound()))
    assert np.array_equal(sound[:25_000], guitar[0][:25_000])
    assert not sound[25_000:25_300].any()
    assert np.array_equal(sound[25_300:50_300], guitar[0][25_000:50_000])
    assert not sound[50_300 : 50_300 + 60 * 44_100].any()
    assert np.array_equal(sound[50_300 + 60 * 44_100 :], guitar[0][50_000:100_000])
    lost = [(e.samples, e.left_out) for e in session.entries if isinstance(e, Lost)]
    assert lost == [(300, False), (20 * 44_100, True), (60 * 44_100, False)]
    assert stage.engine.counts.skipped == 0
    assert "lost" in {e.why for e in session.entries if isinstance(e, Skipped)}
    assert again(tmp_path, trained)[0].reply == session.reply


def test_changes_mute_and_panic_are_in_the_answer(tmp_path, trained, wanted, guitar):
    script = {100: ("mute", 1), 200: ("mute", 0), 300: ("panic",), 350: ("temperature", 0.9)}
    perform(tmp_path, trained, wanted, guitar[0], script=script)
    played, session = again(tmp_path, trained)
    assert [e.control for e in session.entries if isinstance(e, Staged)] == ["mute", "unmute", "panic"]
    assert [e.changes for e in session.entries if isinstance(e, Changed)] == [{"temperature": 0.9}]
    assert any(isinstance(e, Struck) for e in session.entries)
    assert isinstance(session.entries[-1], Ended)
    from midi_notes import read_midi_notes

    (tmp_path / "again.mid").write_bytes(played.reply)
    notes = read_midi_notes(tmp_path / "again.mid")
    at = {e.control: e.at_sample / 24_000 for e in session.entries if isinstance(e, Staged)}
    assert notes
    assert not [n for n in notes if at["mute"] + 0.001 < n.onset_s < at["unmute"] - 0.001]
    for cut in (at["mute"], at["panic"]):
        assert not [n for n in notes if n.onset_s < cut - 0.001 and n.onset_s + n.duration_s > cut + 0.001]


def test_a_whole_session_has_its_summary_and_no_raw_sound(tmp_path, trained, wanted, guitar):
    with session_folder(tmp_path / "s"):
        perform(tmp_path / "s", trained, wanted, guitar[0][:44_100], chunk_s=0.2)
    assert json.loads((tmp_path / "s" / "summary.json").read_text()) == {"trouble": None}
    session = read_session(tmp_path / "s")
    assert session.settings == wanted
    assert session.recovered == ()
    assert np.array_equal(session.samples(), guitar[0][: session.input_samples])
    assert session.reply[:4] == b"MThd"
    assert not list((tmp_path / "s" / "input").glob("*.raw"))
    assert len(list((tmp_path / "s" / "input").glob("*.flac"))) == 5


@pytest.mark.parametrize("cut_bytes", [0, 1, 7, 1000])
def test_a_session_cut_off_anywhere_opens_up_to_there_and_replays(tmp_path, trained, wanted, guitar, cut_bytes):
    """As `kill -9` leaves it: no answer, no summary, half lines, half samples."""
    (tmp_path / "whole").mkdir()
    _, writer = perform(tmp_path / "whole", trained, wanted, guitar[0][:150_000], chunk_s=1.0, close=False)
    writer.settle()
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    writer.close()
    folder = tmp_path / "cut"
    (tail,) = folder.glob("input/*.raw")
    for path in (folder / "transcript.jsonl", folder / "decisions.jsonl", tail):
        data = path.read_bytes()
        path.write_bytes(data[: len(data) - cut_bytes])
    played, session = again(folder, trained)
    assert session.reply is None
    assert any("ended while it played" in line for line in session.recovered)
    assert session.input_samples == pytest.approx(150_000, abs=512 + cut_bytes)
    assert played.unlike == ()
    assert played.decisions_alike == len(session.decisions) > 0
    assert played.reply[:4] == b"MThd"
    told = CliRunner().invoke(app, ["explain", str(folder)])
    assert told.exit_code == 0, told.output
    assert "ended while it played" in told.stderr
    assert told.stdout.startswith("Played ")


DAMAGE = {
    "a line that is none": ("transcript.jsonl", b'{"at": "x"}\n'),
    "no JSON": ("transcript.jsonl", b"[[[[\n"),
    "back in time": ("transcript.jsonl", b'{"at":1,"end":true}\n'),
    "unknown": ("transcript.jsonl", b'{"at":99999999,"what":1}\n'),
    "another decision": ("decisions.jsonl", b"{}\n"),
    "no FLAC": ("input/00000.flac", b"RIFF"),
    "settings": ("settings.json", b"nothing"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_live_session_is_refused_in_one_line_that_names_the_file(tmp_path, trained, wanted, guitar, damage):
    perform(tmp_path, trained, wanted, guitar[0][:60_000])
    name, data = damage
    with (tmp_path / name).open("ab") as stream:
        if name.endswith(("flac", "json")):
            stream.truncate(0)
        stream.write(data)
    with pytest.raises(InputError) as caught:
        read_session(tmp_path)
    assert str(caught.value).isprintable()
    assert str(tmp_path / name.split("/")[0]) in str(caught.value)
