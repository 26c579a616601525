"""The stage's engine on a clock by hand: order, pace, sleep, trouble."""

import contextlib
import json
import math
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from musichal.hearing.front_end import light_path_delay_s
from musichal.hearing.percepts import Onset
from musichal.live.control import CommandQueue, command
from musichal.live.engine import EngineObserver, ObserverThread, perform
from musichal.live.parts import AnalysisThread, overload_advice
from musichal.live.session.event_log import (
    Changed,
    Ended,
    Lost,
    Marked,
    Perceived,
    Skipped,
    Staged,
    Struck,
    as_sounded,
    entry_from_json,
    entry_to_json,
)
from musichal.live.session.recorder import SessionRecorder
from musichal.machine import short_pauses, suspended_s
from musichal.note import Note
from musichal.partner.decision import Decision
from musichal.partner.settings import PartnerSettings
from musichal.spec import PerceptionSpec
from stage_by_hand import SlowAnalysis, hand_stage


class Notebook(EngineObserver):
    def __init__(self):
        self.events, self.entries, self.decisions, self.figures = [], [], [], []

    def event(self, at_s, kind, text):
        self.events.append((kind, text))

    def entry(self, entry):
        self.entries.append(entry)

    def decision(self, decision):
        self.decisions.append(decision)

    def statistics(self, values):
        self.figures.append(values)


class AtOnsets:
    """A player that strikes a note at each onset, at once, and goes on every quarter of a second if `steady`."""

    def __init__(self, *, steady: bool = False):
        self.due_s = None
        self.steady, self.number, self.changes = steady, 0, []

    def hear(self, percept, now_s):
        if self.steady and self.due_s is None:
            self.due_s = now_s

    def hear_onset(self, onset_s, now_s, pitches=(), *, is_drum=False):
        self.due_s = now_s

    def change(self, changes, now_s):
        self.changes.append((dict(changes), now_s))

    def decide(self, now_s):
        self.due_s = now_s + 0.25 if self.steady else None
        self.number += 1
        return (Decision(self.number, now_s, "play", duration_s=0.2, notes=(Note(now_s, 0.2, 60, 90),)),)


@pytest.fixture(scope="module")
def guitar(short_guitar):
    return soundfile.read(short_guitar, dtype="float32")


def play(stage, samples, block=256):
    for first in range(0, len(samples) - block + 1, block):
        stage.send(samples[first : first + block])


def test_heard_at_once_it_begins_as_offline_and_plays_as_much(trained, guitar):
    """With hearing that takes no time, things reach the partner at most a block and the resampler's burst later."""
    samples, rate = guitar
    chosen = PartnerSettings(rest_below=0.02)
    stage = hand_stage(trained, rate_hz=rate, settings=chosen)
    play(stage, samples)
    offline = perform(trained, samples, sample_rate_hz=rate, settings=chosen, seed=0).decisions
    live = [d for d, _ in stage.output.played]
    assert live[0].state == offline[0].state
    assert 0 <= live[0].time_s - offline[0].time_s < 0.06
    assert len(live) == pytest.approx(len(offline), rel=0.2)


@pytest.mark.parametrize("block", [64, 256, 1024])
@pytest.mark.parametrize("resampler", ["soxr-HQ", "soxr-VR"])
def test_what_is_played_in_order_is_decided_before_its_moment(trained, guitar, block, resampler):
    samples, rate = guitar
    model = replace(trained, spec=replace(trained.spec, resampler=resampler))
    stage = hand_stage(model, rate_hz=rate, block=block, player=AtOnsets(steady=True))
    late = []
    played = 0
    for first in range(0, len(samples) - block + 1, block):
        stage.send(samples[first : first + block])
        for decision, moment_s in stage.output.played[played:]:
            if decision.number > 1 and round(decision.time_s * 24_000) != stage.engine._last_at:
                late.append(stage.clock.now - moment_s)
        played = len(stage.output.played)
    assert len(late) > 10
    assert max(late) <= 1 / 24_000, "asked for before it is due, to a sample"


def test_an_onset_is_answered_with_the_block_that_shows_it_even_while_hearing_works(trained, guitar):
    samples, rate = guitar
    gate = threading.Event()

    def hear_slowly(hear):
        def slow(window):
            gate.wait(120)
            return hear(window)

        return AnalysisThread(slow)

    notebook = Notebook()
    stage = hand_stage(trained, rate_hz=rate, analysis=hear_slowly, player=AtOnsets(), observer=notebook)
    play(stage, samples[: 2 * rate])
    struck = [e for e in notebook.entries if isinstance(e, Struck)]
    assert len(struck) == len(notebook.decisions) > 2
    assert stage.engine.counts.segments == 0, "no segment has been heard"
    for entry, decision in zip(struck, notebook.decisions, strict=True):
        assert decision.time_s == entry.at_sample / 24_000
        assert 0 <= entry.at_sample - entry.onset.decided_at <= 24_000 * (256 / rate + 0.04)
    gate.set()


def test_the_variable_resampler_lets_onsets_through_at_once(guitar):
    spec = PerceptionSpec()
    least, most = light_path_delay_s(spec, source_rate_hz=48_000, block=256)
    assert most > 0.03
    least, most = light_path_delay_s(replace(spec, resampler="soxr-VR"), source_rate_hz=48_000, block=256)
    assert 0.004 < least <= most < 0.007


def test_while_it_does_not_listen_nothing_reaches_the_partner(trained, guitar):
    samples, rate = guitar
    box, notebook, player = CommandQueue(pace_s=0), Notebook(), AtOnsets()
    stage = hand_stage(trained, rate_hz=rate, player=player, commands=box, observer=notebook)
    box.put(command("listen", (0,)))
    play(stage, samples[: 2 * rate])
    assert player.number == 0
    assert stage.engine.counts.segments == 0
    assert {type(e) for e in notebook.entries} == {Staged, Skipped}
    box.put(command("listen"))
    play(stage, samples[2 * rate : 4 * rate])
    assert player.number > 0
    assert stage.engine.counts.segments > 0


def test_a_refused_change_is_answered_and_does_not_stop_the_music(trained, guitar):
    samples, rate = guitar
    box, notebook, answers = CommandQueue(pace_s=0), Notebook(), []
    stage = hand_stage(trained, rate_hz=rate, commands=box, observer=notebook)
    for name, value in (("bass.gain_db", 3), ("temperature", 99.0), ("chroma_weight", 0.5), ("mark", "good"), ("pause", 1)):
        box.put(command(name, (value,), answer=lambda *told: answers.append(told)))
    play(stage, samples[:rate])
    assert [obeyed for obeyed, _ in answers] == [False, False, True, True, True]
    assert "needs a voice 'bass'" in answers[0][1]
    assert "Choose voices first, as voices=melody,bass,chords" in answers[0][1]
    assert answers[1][1] == "temperature must be in [0, 5], got 99"
    assert [text for _, text in answers[2:]] == ["chroma_weight 0.5", "mark 1 at 0:00 good", "paused"]
    assert stage.output.done == ["panic"], "what sounds ends with a pause"
    assert [e.text for e in notebook.entries if isinstance(e, Marked)] == ["good"]
    assert [e.changes for e in notebook.entries if isinstance(e, Changed)] == [{"chroma_weight": 0.5}, {"pause": True}]
    assert (stage.engine.counts.changes, stage.engine.counts.refused_changes) == (2, 2)


def test_a_flood_of_what_is_refused_is_answered_and_told_of_now_and_then(trained, guitar):
    samples, rate = guitar
    box, notebook, answers = CommandQueue(pace_s=0), Notebook(), []
    stage = hand_stage(trained, rate_hz=rate, commands=box, observer=notebook)
    asked = 0
    for first in range(0, 2 * rate, 256):
        box.put(command("temperature", (-1.0,), answer=lambda *told: answers.append(told)))
        asked += 1
        stage.send(samples[first : first + 256])
    assert len(answers) == stage.engine.counts.refused_changes == asked
    assert 5 <= [kind for kind, _ in notebook.events].count("refused") <= 15


@pytest.mark.parametrize("asleep_s", [0.0, 3.0])
def test_what_piles_up_while_the_machine_slept_is_no_sign_of_a_slow_one(trained, guitar, asleep_s):
    samples, rate = guitar
    notebook = Notebook()
    stage = hand_stage(
        trained, rate_hz=rate, observer=notebook, analysis=lambda hear: SlowAnalysis(hear, lambda k: 0 if k < 2 else 10_000)
    )
    play(stage, samples[:rate])
    stage.clock.now += asleep_s
    play(stage, samples[rate : 5 * rate])
    assert stage.engine.counts.skipped >= 3
    assert [kind for kind, _ in notebook.events].count("overload") == (asleep_s == 0)


@pytest.mark.parametrize(("stood_still_s", "asleep_s"), [(300.0, 0.0), (0.0, 3600.0)])
def test_after_sleep_every_note_is_ended_and_it_plays_on(trained, guitar, stood_still_s, asleep_s):
    samples, rate = guitar
    notebook, suspended = Notebook(), [7.0]
    stage = hand_stage(trained, rate_hz=rate, player=AtOnsets(), observer=notebook, suspended_s=lambda: suspended[0])
    play(stage, samples[:rate])
    before = stage.output.played[:]
    stage.clock.now += stood_still_s
    suspended[0] += asleep_s
    play(stage, samples[rate : 4 * rate])
    assert stage.output.done == ["panic"]
    assert [kind for kind, _ in notebook.events].count("jump") == 1
    assert any(isinstance(e, Staged) and e.control == "panic" for e in notebook.entries)
    assert len(stage.output.played) > len(before)
    _, moment_s = stage.output.played[-1]
    assert abs(moment_s - stage.clock.now) < 3, "moments are on the clock as it is now"


def test_a_clock_that_was_set_is_no_reason_to_end_the_notes(trained, guitar, monkeypatch):
    """NTP moved the clock on the wall by an hour: the system did not sleep."""
    samples, rate = guitar
    stage = hand_stage(trained, rate_hz=rate, player=AtOnsets(steady=True), suspended_s=suspended_s)
    play(stage, samples[:rate])
    monkeypatch.setattr(time, "time", lambda: 3600.0)
    play(stage, samples[rate : 2 * rate])
    assert stage.output.done == []
    assert stage.engine.counts.jumps == 0


def test_what_hearing_raises_ends_the_performance_in_order(trained, guitar):
    samples, rate = guitar

    def broken(_hear):
        def raising(_window):
            raise RuntimeError("no more memory")

        return AnalysisThread(raising)

    stage = hand_stage(trained, rate_hz=rate, analysis=broken)
    for first in range(0, rate, 512):
        stage.clock.now += 512 / rate
        stage.arrive(samples[first : first + 512])
    runner = threading.Thread(target=stage.engine.run, args=(threading.Event(),))
    runner.start()
    runner.join(120)
    assert not runner.is_alive()
    assert isinstance(stage.engine.error, RuntimeError)
    assert stage.output.done == ["panic"]
    assert stage.engine.quitting.is_set()


def test_a_thread_hears_in_order_skips_the_oldest_and_ends(trained, guitar):
    gate, busy, heard = threading.Event(), threading.Event(), []

    class Numbered:
        def __init__(self, index):
            self.index = index

    def hear(window):
        busy.set()
        gate.wait(120)
        heard.append(window.index)
        return window

    hearing = AnalysisThread(hear, most_waiting=2)
    assert hearing.submit(Numbered(0)) == []
    assert busy.wait(60)
    assert [hearing.submit(Numbered(i)) for i in (1, 2, 3, 4)] == [[], [], [1], [2]]
    gate.set()
    until = time.monotonic() + 60
    got = []
    while len(got) < 3 and time.monotonic() < until:
        got += hearing.take()
    assert heard == [0, 3, 4]
    assert hearing.close(), "the thread has ended"


def test_an_encoder_that_never_returns_holds_up_neither_the_end_nor_the_session(trained, guitar):
    samples, rate = guitar
    begun, never = threading.Event(), threading.Event()
    notebook = Notebook()

    def hang(_window):
        begun.set()
        never.wait()

    stage = hand_stage(trained, rate_hz=rate, observer=notebook, analysis=lambda _: AnalysisThread(hang))
    stop = threading.Event()
    runner = threading.Thread(target=stage.engine.run, args=(stop,), daemon=True)
    for first in range(0, rate, 512):
        stage.clock.now += 512 / rate
        stage.arrive(samples[first : first + 512])
    runner.start()
    assert begun.wait(30)
    stop.set()
    runner.join(30)
    assert not runner.is_alive()
    assert isinstance(notebook.entries[-1], Ended), "the event log has its end"
    assert "hangs" in dict(notebook.events)["analysis"]
    never.set()


def test_observers_beside_the_engine_get_all_in_order_and_one_that_fails_is_left_out():
    class Failing(EngineObserver):
        def event(self, at_s, kind, text):
            raise ZeroDivisionError("no")

    notebook, errors, here = Notebook(), [], threading.get_ident()
    notebook.statistics = lambda _values: notebook.figures.append(threading.get_ident())
    beside = ObserverThread([Failing(), notebook], on_error=errors.append)
    for number in range(100):
        beside.event(0.0, "count", str(number))
    beside.statistics({})
    beside.close()
    assert [text for _, text in notebook.events] == [str(number) for number in range(100)]
    assert errors == ["Failing failed: ZeroDivisionError: no"]
    assert notebook.figures != [here], "on a thread of its own"


def test_python_switches_quickly_while_it_plays_and_as_before_afterwards():
    before = sys.getswitchinterval()
    with short_pauses():
        assert sys.getswitchinterval() < before
    assert sys.getswitchinterval() == before


@pytest.mark.parametrize(
    ("hop_samples", "hearing_s", "words"),
    [
        (8400, math.nan, "busy"),
        (8400, 0.05, "machine is busy"),
        (2100, 0.09, "without --hop"),
        (8400, 0.36, "--segment"),
        (8400, 2.0, "faster encoder"),
    ],
)
def test_a_machine_that_cannot_keep_up_says_which_setting_would(hop_samples, hearing_s, words):
    spec = replace(PerceptionSpec(), hop_samples=hop_samples)
    assert words in overload_advice(spec, hearing_s)


def test_a_learned_encoder_that_is_too_slow_in_fp32_is_told_what_needs_no_training():
    for precision, said in (("fp32", True), ("bf16", False)):
        encoder = replace(PerceptionSpec().encoder, name="mert", runtime="openvino", precision=precision)
        advice = overload_advice(replace(PerceptionSpec(), hop_samples=2100, encoder=encoder), 0.09)
        assert ("musichal rehear" in advice) == said
        assert advice.endswith("train without --hop, so that segments do not overlap")


ENTRIES = st.one_of(
    st.builds(Struck, st.integers(0, 1 << 40), st.builds(Onset, st.integers(0, 1 << 40), st.integers(0, 1 << 40))),
    st.builds(Perceived, st.integers(0, 1 << 40), st.integers(0, 1 << 30), st.text("0123456789abcdef", max_size=16)),
    st.builds(Skipped, st.integers(0, 1 << 40), st.integers(0, 1 << 30), st.sampled_from(["late", "deaf", "lost"])),
    st.builds(
        Changed,
        st.integers(0, 1 << 40),
        st.dictionaries(st.text("abc", min_size=1), st.integers(-9, 9) | st.floats(-1, 1) | st.text("xyz") | st.booleans()),
    ),
    st.builds(Staged, st.integers(0, 1 << 40), st.sampled_from(["mute", "unmute", "panic", "listen", "deaf"])),
    st.builds(Lost, st.integers(0, 1 << 40), st.integers(0, 1 << 40), st.booleans()),
    st.builds(Ended, st.integers(0, 1 << 40)),
)


@given(ENTRIES)
def test_an_entry_comes_back_from_its_line(entry):
    line = entry_to_json(entry)
    assert "\n" not in line
    assert entry_from_json(line) == entry


@given(
    st.text(max_size=40) | st.dictionaries(st.sampled_from(["at", "onset", "percept", "lost", "why"]), st.integers()).map(str)
)
def test_any_other_line_is_refused(line):
    with contextlib.suppress(ValueError):
        entry_from_json(line)


NOTES = st.lists(
    st.tuples(st.floats(0, 9), st.floats(0.01, 3), st.floats(0, 0.5)).map(
        lambda t: Decision(0, max(0.0, t[0] - t[2]), "play", notes=(Note(t[0], t[1], 60, 80),))
    ),
    max_size=12,
)
CUTS = st.lists(
    st.tuples(st.integers(0, 10 * 24_000), st.sampled_from(["mute", "unmute", "panic"])).map(lambda t: Staged(*t)), max_size=6
).map(lambda cuts: sorted(cuts, key=lambda s: s.at_sample))


@given(NOTES, CUTS)
def test_nothing_sounds_while_muted_across_a_panic_or_behind_the_end(decisions, cuts):
    entries = [*cuts, Ended(10 * 24_000)]
    for before, after in zip(decisions, as_sounded(decisions, entries, sample_rate_hz=24_000), strict=True):
        for note in after.notes:
            end_s = note.onset_s + note.duration_s
            assert note.duration_s > 0
            assert note.onset_s == before.notes[0].onset_s
            muted = False
            for cut in entries:
                at_s = cut.at_sample / 24_000
                if isinstance(cut, Ended) or cut.control == "panic":
                    assert not note.onset_s < at_s - 1e-9 < end_s - 2e-9
                elif cut.control == "mute":
                    muted = True
                    assert not note.onset_s < at_s - 1e-9 < end_s - 2e-9
                elif cut.control == "unmute" and muted:
                    muted = False


def test_a_disk_that_is_full_stops_the_recording_and_not_the_music(tmp_path, trained, guitar):
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full on this system")
    samples, rate = guitar
    told = []
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "00000.raw").symlink_to("/dev/full")
    recorder = SessionRecorder(tmp_path, sample_rate_hz=rate, on_trouble=told.append)

    class Recording(EngineObserver):
        def sound(self, block):
            recorder.sound(block)

        def entry(self, entry):
            recorder.line("transcript.jsonl", entry_to_json(entry))

    stage = hand_stage(trained, rate_hz=rate, player=AtOnsets(), observer=Recording())
    play(stage, samples[: 2 * rate])
    recorder.settle()
    before = len(stage.output.played)
    play(stage, samples[2 * rate : 4 * rate])
    recorder.close()
    assert len(stage.output.played) > before
    assert len(told) == 1
    assert "the disk is full" in told[0]
    assert "the disk is full" in (tmp_path / "trouble.txt").read_text()
    assert not (tmp_path / ".reserve").exists()


FILL = """
import resource, sys, time
import numpy as np
from pathlib import Path
from musichal.live.session.recorder import SessionRecorder
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
told = []
recorder = SessionRecorder(Path(sys.argv[1]), sample_rate_hz=48_000, on_trouble=told.append, chunk_s=1.0)
noise = (np.round(np.random.default_rng(0).uniform(-0.5, 0.5, 48_000) * 2**23) / 2**23).astype(np.float32)
for number in range(3):
    recorder.sound(noise)
    recorder.line("transcript.jsonl", '{"at":%d,"percept":%d}' % (number, number))
    recorder.settle()
recorder.close()
sys.stdout.write(told[0] if told else "no trouble")
"""


@pytest.mark.skipif(os.name == "nt", reason="limits of file sizes are POSIX")
def test_a_limit_of_the_system_leaves_what_was_written_readable(tmp_path):
    done = subprocess.run([sys.executable, "-c", FILL, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60)
    assert "nothing more is recorded" in done.stdout
    assert "larger than the system allows" in done.stdout
    from musichal.live.session.session import read_chunks

    sound = np.concatenate(list(read_chunks(tmp_path, 48_000)))
    assert 20_000 <= len(sound) <= 25_000
    assert "larger" in (tmp_path / "trouble.txt").read_text()


def test_figures_are_told_about_once_a_second(trained, guitar):
    samples, rate = guitar
    notebook = Notebook()
    stage = hand_stage(trained, rate_hz=rate, observer=notebook)
    play(stage, samples[: 3 * rate])
    assert 3 <= len(notebook.figures) <= 5
    json.dumps(notebook.figures[-1], allow_nan=False)
    assert {"onsets", "skipped", "tokens_per_s", "hearing_p99_ms"} <= notebook.figures[-1].keys()
