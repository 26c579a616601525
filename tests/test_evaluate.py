"""What `musichal evaluate` measures, against numbers worked out by hand, and on real sound."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from musichal.audio.recording import read_recording
from musichal.cli import app
from musichal.errors import InputError
from musichal.evaluate import evaluation
from musichal.evaluate.answers import (
    DeafWalker,
    Echo,
    answer,
    cut_excerpts,
    harmony,
    hear_excerpt,
    joined,
    memory_use,
    phrases_of_notes,
    phrasing,
    player_phrases,
    with_pauses,
)
from musichal.evaluate.evaluation import OUTCOMES, against_chance, chosen_trials, effect, parameter_effects, trials
from musichal.evaluate.listening import (
    AT_ONCE_S,
    FLOOR_DB,
    STEP_S,
    Answer,
    Trace,
    answer_of,
    answer_trace,
    area,
    follow,
    listening,
    player_trace,
)
from musichal.live.engine import HeardStream
from musichal.memory.memory import Memory
from musichal.note import HeardNote, Note
from musichal.parameters import VoiceParameters
from musichal.partner.decision import Decision
from musichal.partner.mode_controller import directed_by
from musichal.partner.modes import Mode
from musichal.partner.partner import Partner
from musichal.partner.settings import PartnerSettings
from partners_by_hand import gesture

pytestmark = pytest.mark.usefixtures("heard_once")


def silent(n: int) -> Trace:
    return Trace(np.zeros((n, 12)), np.zeros(n), np.full(n, FLOOR_DB), np.full(n, np.nan))


def at_once(trace: Trace) -> Answer:
    return Answer(trace, np.full(len(trace.density_hz), 2))


def a_trace(seed: int, n: int = 120) -> Trace:
    rng = np.random.default_rng(seed)
    return Trace(rng.random((n, 12)), rng.random(n) * 8, rng.uniform(-50, -10, n), rng.uniform(40, 80, n))


def play(choice: int, state: int, *, jumped: bool, transposition: int = 0, live: bool = False) -> Decision:
    return Decision(
        number=0,
        choice=choice,
        time_s=0.0,
        kind="play",
        state=state,
        duration_s=0.5,
        transposition=transposition,
        jumped=jumped,
        live=live,
    )


@pytest.fixture(scope="module")
def memory() -> Memory:
    out = Memory(dims=2, threshold=0.5)
    for i in range(10):
        out.append(gesture(i * 0.5, 0.5, (i % 3, 0)), [HeardNote(i * 0.5, 0.5, 60 + i, 90)], recording=0)
    return out


def test_an_area_is_the_share_of_inputs_that_fit_worse():
    rng = np.random.default_rng(0)
    assert area(np.eye(6), rng=rng).value == 1.0
    assert area(-np.eye(6), rng=rng).value == 0.0
    ties = area(np.zeros((6, 6)), rng=rng)
    assert (ties.value, ties.low, ties.high) == (0.5, 0.5, 0.5)
    # By hand: answer 0 beats both others, answer 1 one of two, answer 2 ties with one and loses to the other.
    scores = np.array([[3.0, 1.0, 2.0], [5.0, 4.0, 1.0], [2.0, 7.0, 2.0]])
    assert area(scores, rng=rng).value == pytest.approx((2 / 2 + 1 / 2 + 0.5 / 2) / 3)


def test_chance_is_inside_the_interval_of_answers_to_nothing():
    inside = 0
    for seed in range(40):
        found = area(np.random.default_rng(seed).standard_normal((20, 20)), rng=np.random.default_rng(seed))
        inside += found.low <= 0.5 <= found.high
    assert inside >= 34, "a 95 % interval holds the truth nearly always"


def test_an_answer_that_follows_late_is_told_from_answers_to_others():
    players = [a_trace(seed) for seed in range(8)]
    late = [Trace(*(np.roll(x, 5, axis=0) for x in (p.chroma, p.density_hz, p.loudness_db, p.pitch))) for p in players]
    answers = [Answer(trace, np.full(120, 5)) for trace in late]
    found = listening(answers, players, rng=np.random.default_rng(0))
    assert found.together.value == 1.0
    assert [a.value for a in found.by_dimension.values()] == [1.0, 1.0, 1.0, 1.0]
    assert found.excerpts == 8
    at_another = [Answer(trace, np.full(120, 9)) for trace in late]
    assert listening(at_another, players, rng=np.random.default_rng(0)).together.value < 0.75, "it is told where it says"


@given(st.integers(0, 10_000), st.integers(0, 200), st.integers(0, 200))
def test_following_is_bounded_whatever_is_held_against_whatever(seed, n, m):
    values = follow(at_once(a_trace(seed, n)), a_trace(seed + 1, m))
    assert values.shape == (4,)
    assert (np.abs(values) <= 1 + 1e-9).all()
    assert (follow(at_once(silent(n)), a_trace(seed, n)) <= 1e-9).all()


def test_following_oneself_is_perfect():
    assert follow(Answer(a_trace(3), np.zeros(120, dtype=np.int64)), a_trace(3)) == pytest.approx([1, 1, 1, 1])


def test_what_goes_back_over_a_phrase_is_held_against_that_phrase():
    """One second of the player's at 1 s is answered from 5 s on; what comes after it answers the present."""
    decisions = [
        dataclasses.replace(play(0, 0, jumped=True), time_s=5.0, phrase=1, answers=(1.0, 2.0)),
        dataclasses.replace(play(1, 1, jumped=True), time_s=5.5, phrase=1, answers=(1.0, 2.0)),
        dataclasses.replace(play(2, 2, jumped=True), time_s=7.0, phrase=2),
    ]
    found = answer_of(decisions, duration_s=8.0)
    lag = found.lag * STEP_S
    assert lag.tolist() == [AT_ONCE_S] * 20 + [4.0] * 5 + [AT_ONCE_S] * 7
    # Over a player who plays on, the harmony is that of now.
    assert (found.harmony_lag * STEP_S == AT_ONCE_S).all()
    silent = [dataclasses.replace(decision, silent_s=1.0) for decision in decisions]
    assert (answer_of(silent, duration_s=8.0).harmony_lag == found.lag).all()


def test_whoever_is_deaf_is_at_chance_whatever_they_say_they_answer():
    areas = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        players = [a_trace(100 * seed + k) for k in range(12)]
        deaf = [Answer(a_trace(100 * seed + 50 + k), np.repeat(rng.integers(0, 40, 6), 20)) for k in range(12)]
        areas.append(listening(deaf, players, rng=rng).together.value)
    assert np.mean(areas) == pytest.approx(0.5, abs=0.06)


def test_traces_of_notes_by_hand():
    notes = [Note(0.0, 0.5, 60, 127), Note(0.01, 0.25, 64, 127), Note(1.0, 0.25, 67, 1)]
    trace = answer_trace(notes, duration_s=2.0)
    assert len(trace.density_hz) == 2.0 / STEP_S
    # Two notes at -6 dBFS that share the first quarter of a second, one that goes on alone, and one at -54 dBFS.
    assert trace.loudness_db == pytest.approx(
        [-6 + 10 * np.log10(1.96), -6 + 10 * np.log10(1.04), -60, -60, -54, -60, -60, -60], abs=0.01
    )
    assert np.flatnonzero(trace.chroma[0]).tolist() == [0, 4]
    assert np.flatnonzero(trace.chroma[4]).tolist() == [7]
    assert trace.density_hz.sum() * STEP_S == pytest.approx(2 * STEP_S * 4 - 0.25, abs=0.3), "a chord is one onset"
    # Over the second around each step: C for two steps with E for one of them, then what of C lies beside G, then G alone.
    mixed = (60 + 0.04 * 64 + 67) / 2.04
    assert trace.pitch == pytest.approx([184 / 3, 184 / 3, 184 / 3, mixed, 67, 67, 67, np.nan], nan_ok=True)
    heard = [HeardNote(note.onset_s, note.duration_s, note.pitch, note.velocity) for note in notes]
    stream = HeardStream(
        24_000, np.zeros((2, 2), np.int16), np.array([200, 520]), np.full(2, -20, np.float32), np.zeros((2, 12), np.float32),
        np.zeros(0, np.int64),
    )  # fmt: skip
    assert player_trace(stream, heard, duration_s=2.0).pitch == pytest.approx(trace.pitch, nan_ok=True), "one rule for both"


def test_memory_use_by_hand(memory):
    rest = Decision(number=0, time_s=0.0, kind="rest", rest="silence")
    decisions = [
        play(0, 0, jumped=True),
        play(1, 1, jumped=False),
        play(2, 2, jumped=False),
        play(2, 2, jumped=False),  # another voice of the same choice
        play(3, 5, jumped=True),
        play(4, 6, jumped=False, transposition=2),
        rest,
        play(5, 7, jumped=False, transposition=2),
        play(6, 10, jumped=True, live=True),
        play(7, 11, jumped=False, live=True),
    ]
    use = memory_use(decisions, memory)
    # Runs: 0 1 2 | 5 | 6 | 7 | 10 11
    assert use.states == 8
    assert use.continued == pytest.approx(3 / 7)
    assert use.mean_run == pytest.approx(8 / 5)
    assert use.visited == pytest.approx(6 / 10)
    assert use.learned == pytest.approx(2 / 8)
    assert use.longest_quote_s == 1.5
    assert use.repeated == 0.0
    assert memory_use([play(i, i % 4, jumped=True) for i in range(8)], memory).repeated == pytest.approx(1 / 5)
    assert memory_use([rest], memory).states == 0


def test_harmony_by_hand():
    n = 80
    chroma = np.zeros((n, 12))
    chroma[: n // 2, [0, 4, 7]] = 1
    chroma[n // 2 :, [1, 5, 8]] = 1
    player = Trace(chroma, np.zeros(n), np.full(n, -20.0), np.full(n, np.nan))
    notes = [Note(k * 0.5, 0.5, 60, 90) for k in range(20)] + [Note(10 + k * 0.5, 0.5, 61, 90) for k in range(20)]
    found = harmony(notes, player)
    assert (found.notes, found.consonant) == (40, 1.0)
    assert found.consonant_when_shifted < 0.75
    assert harmony(notes, silent(n)).notes == 0


def test_phrases_by_hand(memory):
    own = [Note(0.0, 1.0, 60, 90), Note(1.5, 0.5, 60, 90), Note(6.0, 1.0, 60, 90)]
    player = np.array([[2.0, 5.0]])
    found = phrasing(own, player, duration_s=10.0, memory=memory)
    assert phrases_of_notes([(n.onset_s, n.onset_s + n.duration_s) for n in own]).tolist() == [[0, 2], [6, 7]]
    assert (found.gap_s, found.overlap, found.silence, found.phrases) == (1.0, 0.0, pytest.approx(0.7), 2)
    assert found.phrase_s == 1.5
    assert (found.player_silence, found.player_phrase_s) == (pytest.approx(0.7), 3.0)
    assert (found.memory_silence, found.memory_phrase_s) == (pytest.approx(0.0), pytest.approx(5.0))
    assert phrasing([], player, duration_s=10.0, memory=memory).gap_s is None


@pytest.fixture(scope="module")
def excerpts(trained, rock_guitar, ballad_guitar):
    found = []
    for path in (rock_guitar, ballad_guitar):
        recording = read_recording(path)
        n = 10 * recording.sample_rate_hz
        for k in range(2):
            part = recording.samples[k * n : (k + 1) * n]
            found.append(hear_excerpt(trained, part, sample_rate_hz=recording.sample_rate_hz, name=path.name, start_s=10.0 * k))
    return found


def test_an_echo_listens_and_a_deaf_walk_does_not(trained, excerpts):
    players = [player_trace(e.heard, e.notes, duration_s=10.0) for e in excerpts]
    assert all(len(player_phrases(p)) for p in players)
    # Notes are known 0.6 to 3 s after they were struck: an echo that keeps their rhythm waits until most are.
    echo = [answer_of(answer(e, Echo()), duration_s=10.0) for e in excerpts]
    assert listening(echo, players, rng=np.random.default_rng(0)).together.value > 0.85
    # Of four answers one area is a coarse number: chance is seen in the mean of many.
    areas = []
    for seed in range(0, 80, 4):
        walkers = [DeafWalker(trained.memory, rng=np.random.default_rng(seed + i)) for i in range(4)]
        deaf = [answer_of(answer(e, walker), duration_s=10.0) for e, walker in zip(excerpts, walkers, strict=True)]
        areas.append(listening(deaf, players, rng=np.random.default_rng(0)).together.value)
    assert np.mean(areas) == pytest.approx(0.5, abs=0.12)


def test_a_deaf_walk_answers_alike_whatever_it_hears(trained, excerpts):
    one, two = (answer(e, DeafWalker(trained.memory, rng=np.random.default_rng(5))) for e in excerpts[:2])
    n = min(len(one), len(two))
    assert [d.state for d in one[:n]] == [d.state for d in two[:n]]


def test_excerpts_joined_are_one_stream(trained, excerpts):
    stream = joined(excerpts, duration_s=50.0)
    assert stream.duration_s >= 50
    assert (np.diff([p.heard.available_at for p in stream.percepts]) > 0).all()
    assert (np.diff(stream.heard.frame_samples) > 0).all()
    partner = Partner(trained.memory, PartnerSettings(), rng=np.random.default_rng(0), sample_rate_hz=stream.sample_rate_hz)
    times = [d.time_s for d in answer(stream, partner)]
    assert times == sorted(times)
    assert times[-1] > 40


@pytest.mark.slow
def test_an_effect_is_what_a_parameter_does_and_zero_where_it_does_nothing(trained, excerpts):
    def with_(**values):
        return lambda seed: Partner(
            trained.memory,
            PartnerSettings(rest_below=0.0, **values),
            rng=np.random.default_rng(seed),
            sample_rate_hz=trained.spec.sample_rate_hz,
        )

    same = effect("nothing", {"a": with_(), "b": with_()}, excerpts, trained.memory)
    assert (same.size, same.p_value, same.others) == (0.0, 1.0, 0.0)
    found = effect(
        "continuity", {"0": with_(continuity_weight=0.0), "3": with_(continuity_weight=3.0)}, excerpts, trained.memory
    )
    assert found.outcome in OUTCOMES
    assert abs(found.size) > 0.5
    assert found.others > 0


def test_what_is_consistent_is_beyond_chance_and_looking_at_much_is_paid_for():
    rng = np.random.default_rng(0)
    alone = rng.uniform(0.9, 1.1, (8, 1))
    assert against_chance(alone)[0] == pytest.approx(2 / 2**8), "all signs, or all of them turned round"
    assert against_chance(np.zeros((8, 3))).tolist() == [1.0, 1.0, 1.0]
    noise = rng.standard_normal((8, 20))
    beside = against_chance(np.hstack([alone, noise]))
    assert beside[0] == pytest.approx(2 / 2**8)
    assert (beside[1:] >= [against_chance(noise[:, k : k + 1])[0] for k in range(20)]).all()
    once = np.zeros((8, 1))
    once[3] = 5.0
    assert against_chance(once)[0] == 1.0, "one excerpt says nothing"
    assert against_chance(rng.uniform(0.9, 1.1, (20, 1)))[0] < 0.01


def test_chance_alone_is_seldom_called_an_effect():
    rng = np.random.default_rng(1)
    found = [against_chance(rng.standard_normal((8, len(OUTCOMES)))).min() <= 0.05 for _ in range(200)]
    assert np.mean(found) < 0.1


def test_every_setting_every_column_of_a_mode_and_every_setting_of_a_voice_has_a_trial():
    tried = {trial.parameter for trial in trials()}
    assert {f.name for f in dataclasses.fields(PartnerSettings)} - {"explicit"} <= tried
    assert {f"bass.{f.name}" for f in dataclasses.fields(VoiceParameters)} <= tried
    columns = {f.name for f in dataclasses.fields(Mode)} - {"name", "about", "settings"}
    assert {f"mode: {column}" for column in columns} <= tried
    for trial in trials():
        for changes in trial.changes:
            directed_by(PartnerSettings().changed(changes).direction)


@pytest.mark.slow
def test_only_the_parameters_named_are_tried_and_in_processes_alike(trained, trained_path, excerpts):
    chosen = chosen_trials(["gain_db", "mode: phrase"])
    settings = PartnerSettings.from_dict({"direction": {"mode": "couple"}})
    found = [
        parameter_effects(
            trained, settings, excerpts[:2], chosen, file=trained_path, processes=processes, seed=0, progress=lambda *_: None
        )
        for processes in (1, 2)
    ]
    assert found[0] == found[1]
    assert [e.parameter for e in found[0]] == ["(the seed alone)", "gain_db", "mode: phrase"]
    assert found[0][1].size > 1
    with pytest.raises(InputError, match="unknown parameter 'charm'"):
        chosen_trials(["charm"])


def test_a_process_that_tries_parameters_loads_the_partner_once(trained, trained_path, excerpts, monkeypatch):
    loaded = []
    monkeypatch.setattr(evaluation, "load_partner", lambda path: loaded.append(path) or trained)
    evaluation._loaded.cache_clear()
    for trial in chosen_trials(["gain_db", "temperature"]):
        evaluation._try_in_process(trained_path, PartnerSettings(), excerpts[:1], trial, 0)
    assert loaded == [trained_path]


def test_a_player_with_pauses_plays_the_same_with_silence_between(rock_guitar):
    recording = read_recording(rock_guitar)
    rate = recording.sample_rate_hz
    paused = with_pauses(recording, pause_s=2.0)
    phrase, silence = 5 * rate, 2 * rate
    assert not paused.samples[phrase : phrase + silence].any()
    again = paused.samples[phrase + silence : 2 * phrase + silence]
    inner = slice(rate // 10, -rate // 10)
    assert np.array_equal(again[inner], recording.samples[phrase : 2 * phrase][inner])
    assert with_pauses(recording, pause_s=0.0) is recording


def test_recordings_that_are_too_short_are_refused(trained, rock_guitar):
    with pytest.raises(InputError, match="at least 4 are needed"):
        cut_excerpts(trained, [read_recording(rock_guitar)], excerpt_s=20.0, most=9, progress=lambda _what, _share: None)


def test_the_command_shows_tables_and_writes_a_report(trained_path, rock_guitar, ballad_guitar, tmp_path):
    report = tmp_path / "listening.html"
    inputs = [str(trained_path), str(rock_guitar), str(ballad_guitar)]
    short = ["--excerpt", "10", "--most", "4", "--minutes", "0.5"]
    arguments = ["evaluate", *inputs, *short, "--mode", "shadow", "--mode", "couple"]
    result = CliRunner().invoke(app, [*arguments, "--report", str(report), "--json"])
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    names = [c["name"] for c in values["contestants"]]
    assert names[:2] == ["shadow", "couple"]
    assert names[-1].startswith("deaf")
    assert set(values["long_run"]) == set(names)
    page = report.read_text("utf-8")
    assert page.count("<img") == 2
    assert "deaf (random walk)" in page
