import dataclasses
import json
from unittest.mock import patch

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from musichal.evaluate.evaluation import trials
from musichal.hearing.percepts import SILENCE
from musichal.memory.memory import Memory
from musichal.note import HeardNote
from musichal.partner.candidates import draw
from musichal.partner.decision import Decision, chance_class
from musichal.partner.influences import INFLUENCES
from musichal.partner.learner import WAIT_S
from musichal.partner.modes import built_in_modes
from musichal.partner.partner import Partner
from musichal.partner.player import SituationTracker
from musichal.partner.settings import Direction, PartnerSettings
from musichal.partner.symbols import CONTOUR_LEVEL
from musichal.partner.voices import into_register
from partners_by_hand import gesture
from players_by_hand import SEGMENT, answer, hear, percept, plays

SEGMENT_S = SEGMENT / 24_000
tokens = st.tuples(st.integers(-1, 4), st.integers(-1, 4))
FREE = PartnerSettings(rest_below=0.0, rest_after_silence_s=1000.0, no_repeat=0)


@st.composite
def memories(draw, notes: bool = True):
    memory = Memory(dims=2, threshold=0.5)
    for recording in range(draw(st.integers(1, 3))):
        start = 0.0
        for pair in draw(st.lists(tokens, min_size=1, max_size=12)):
            duration = draw(st.sampled_from([0.06, 0.2, 0.35, 0.7]))
            pitches = draw(st.lists(st.integers(0, 127), max_size=3)) if notes else []
            own = [HeardNote(start + 0.01 * i, 0.2, p, 90) for i, p in enumerate(pitches)]
            memory.append(gesture(start, duration, pair, pair), own, recording=recording)
            start += duration
    return memory


@st.composite
def players(draw):
    out = []
    for index in range(draw(st.integers(1, 14))):
        pairs = draw(st.lists(tokens, max_size=3))
        own = [gesture(index * SEGMENT_S + 0.1 * i, 0.1, pair) for i, pair in enumerate(pairs)]
        chroma = np.eye(12)[draw(st.integers(0, 11))]
        out.append(percept(index, gestures=own, chroma=chroma, audible=draw(st.booleans())))
    return out


partner_settings = st.builds(
    PartnerSettings,
    no_repeat=st.integers(0, 12),
    max_run=st.integers(1, 5),
    min_context=st.integers(1, 3),
    rest_below=st.sampled_from([0.0, 0.1, 0.25]),
    temperature=st.sampled_from([0.0, 1e-300, 0.03, 1.0, 5.0]),
    max_transposition=st.integers(0, 6),
    noteless_factor=st.sampled_from([0.0, 0.7, 1.0]),
    chroma_candidates=st.integers(0, 8),
    rest_after_silence_s=st.sampled_from([0.0, 0.5, 2.0]),
    live_weight=st.sampled_from([0.0, 0.8]),
    activation_s=st.sampled_from([0.05, 1.5, 100.0]),
    jump_after=st.sampled_from([0, 2, 1_000_000]),
)


def _pitch(note, decision):
    """Return the pitch at which a note of memory is played, inside of MIDI's range."""
    return into_register(int(note["pitch"]) + decision.transposition, 0, 127)


@given(memories(), players(), partner_settings, st.integers(0, 5))
def test_what_holds_for_every_performance(memory, player, chosen, seed):
    decisions = answer(memory, player, chosen, seed=seed)
    end_s = player[-1].heard.available_at / 24_000
    times = [d.time_s for d in decisions]
    assert times == sorted(times)
    assert all(t <= end_s for t in times)
    history: list[int] = []
    run, before = 0, None
    for d in decisions:
        again = Decision.from_json(d.to_json())
        assert again == d
        if d.kind == "rest":
            assert d.rest is not None
            assert (d.state, d.notes, d.duration_s) == (None, (), 0.0)
            run, before = 0, None
            continue
        assert d.duration_s > 0
        assert d.live == (d.state >= len(memory))
        if d.live:
            # The player's own: a gesture of theirs, in the recording after the memory's last.
            assert chosen.live_weight
            assert d.recording == memory.states["recording"][-1] + 1
            assert d.source_start_s in [g.start_s for p in player for g in p.gestures]
            assert d.source_start_s + d.duration_s / d.stretch + WAIT_S <= d.time_s + 1e-6
            assert d.run <= chosen.max_run
            before, history, run = d.state, [*history, d.state], d.run
            check_score(json.loads(d.to_json()), chosen)
            continue
        # Nothing is played that is not in memory, there, in that transposition.
        place = memory.place(d.state)
        assert (d.recording, d.source_start_s) == (place.recording, place.start_s)
        assert d.duration_s == pytest.approx(place.duration_s * d.stretch)
        assert abs(d.transposition) <= chosen.max_transposition
        own = memory.notes_of(d.state)
        # But what clashes is left out, and named.
        kept = [note for note in own if _pitch(note, d) not in d.harmony.left_out]
        assert len(d.notes) == len(kept) == len(own) - len(d.harmony.left_out)
        for planned, note in zip(d.notes, kept, strict=True):
            assert 0 <= planned.pitch <= 127
            exact = int(note["pitch"]) + d.transposition
            assert planned.pitch == exact or ((planned.pitch - exact) % 12 == 0 and not 0 <= exact <= 127)
            together = memory.states["starts_at_onset"][d.state] and note["offset_s"] <= 0.05
            offset_s = 0.0 if together else float(note["offset_s"])
            assert planned.onset_s == pytest.approx(d.begin_s + offset_s * d.stretch)
            assert planned.duration_s == pytest.approx(float(note["duration_s"]) * d.stretch)
            assert planned.velocity == min(127, max(1, round(int(note["velocity"]) * 10 ** (d.gain_db / 40))))
        # Not again while it is among the last ones, and not on in order for too long.
        assert d.state not in history[len(history) - chosen.no_repeat :] or not chosen.no_repeat
        history.append(d.state)
        follows = before is not None and before < len(memory) and memory.successor(before) == d.state
        run = run + 1 if follows else 1
        assert (d.run, d.jumped) == (run, not follows)
        assert run <= chosen.max_run
        before = d.state
        check_score(json.loads(d.to_json()), chosen)
        check_contexts(memory, d, chosen)


def check_score(record: dict, chosen: PartnerSettings) -> None:
    """Compute score and shares again, from the record alone."""
    influences = record["influences"]
    assert tuple(i["name"] for i in influences) == INFLUENCES
    assert all(0 <= i["value"] <= 1 for i in influences)
    total = sum(i["weight"] * i["value"] for i in influences)
    assert record["score"] == pytest.approx(record["filter"] * total)
    assert record["filter"] == pytest.approx(np.prod([f["factor"] for f in record["filters"]]))
    assert all(0 < f["factor"] <= 1 for f in record["filters"])
    assert [i["weight"] for i in influences] == [getattr(chosen, f"{name}_weight") for name in INFLUENCES]
    assert record["earnable"] <= chosen.total_weight * (1 + 1e-9)
    noteless = next((f["factor"] for f in record["filters"] if f["name"] == "notes"), 1.0)
    assert record["score"] >= chosen.rest_below * record["earnable"] * noteless * (1 - 1e-9)
    assert record["score"] <= chosen.total_weight * (1 + 1e-9)
    if total:
        assert sum(i["share"] for i in influences) == pytest.approx(1)
        for i in influences:
            assert i["share"] == pytest.approx(i["weight"] * i["value"] / total)
    others = [a["score"] for a in record["alternatives"]]
    assert others == sorted(others, reverse=True)
    assert record["state"] not in [a["state"] for a in record["alternatives"]]
    if chosen.temperature == 0:
        assert all(score <= record["score"] for score in others)


def check_contexts(memory: Memory, d: Decision, chosen: PartnerSettings) -> None:
    """What a decision names as its context really is in memory before the state that was chosen."""
    for context in d.contexts:
        end = context.state + 1
        if context.source in ("harmonic", "percussive"):
            source = int(context.source == "percussive")
            found = memory.states["tokens"][end - len(context.tokens) : end, source].tolist()
            assert tuple(found) == context.tokens
            spoke = len(context.tokens)
        elif context.source == "loudness":
            spoke = sum(symbol != CONTOUR_LEVEL for symbol in context.tokens)
        else:
            spoke = len(context.tokens)
        # From there memory went on to what was chosen: at once, or as far as it would have come meanwhile.
        assert d.state >= end
        assert (memory.states["recording"][end - len(context.tokens) : d.state + 1] == d.recording).all()
        starts, lengths = memory.states["start_s"], memory.states["duration_s"]
        came_s = context.age_s * context.pace + starts[end - (context.source == "rhythm")]
        assert d.state == end or abs(starts[d.state] - came_s) <= max(lengths[d.state - 1 : d.state + 1]) + 1e-6
        # What it says follows from how much agreed and how long ago that was.
        like = context.source in ("likeness", "own")
        assert bool(context.tokens) != like
        assert 0 < context.strength < 1 if like else context.strength == pytest.approx(spoke / (spoke + 1))
        assert context.value == pytest.approx(context.strength * np.exp(-context.age_s / chosen.activation_s))
        value = next(i.value for i in d.influences if i.name == context.source)
        assert value == pytest.approx(context.value * (d.tonalness if context.source in ("harmonic", "likeness") else 1))
        assert value > 0


any_settings = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0.0, 1e-300, 0.03, 5.0]),
        "floor": st.sampled_from([0.0, 0.5, 1.0]),
        "rest_below": st.sampled_from([0.0, 0.3]),
        "phrasing": st.sampled_from([0.0, 1.0]),
        "beat_weight": st.sampled_from([3.0, 100.0]),
        "no_repeat": st.sampled_from([0, 24]),
        **dict.fromkeys((f"{name}_weight" for name in INFLUENCES), st.sampled_from([0.0, 1.0])),
        **dict.fromkeys(
            ("follow_register", "follow_density", "follow_loudness", "follow_harmony"), st.sampled_from([-1.0, 1.0])
        ),
    },
)


@given(memories(), players(), st.sampled_from([*built_in_modes(), "auto"]), any_settings, st.integers(0, 5))
def test_nothing_is_played_without_a_reason(memory, player, mode, values, seed):
    chosen = PartnerSettings(direction=Direction(mode=mode)).changed(values)
    for d in answer(memory, player, chosen, seed=seed):
        if d.kind == "play":
            assert max(i.share for i in d.influences) > 0
            assert chance_class(d) in ("best", "lesser") or chosen.floor < 0.5 or d.returns
            best = max([d.score, *(a.score for a in d.alternatives)])
            assert d.score >= chosen.floor * best * (1 - 1e-9) or d.returns


@given(st.lists(st.floats(0, 2), min_size=1, max_size=30), st.sampled_from([0.0, 0.03, 1.0]), st.sampled_from([0.125, 8.0]))
def test_a_draw_depends_on_scores_relative_to_the_best(values, temperature, factor):
    scores = np.array(values)[:, None] + [[1e-3, 0.0]]
    first, second = (
        draw(scale * scores, temperature=temperature, floor=0.5, rng=np.random.default_rng(1)) for scale in (1.0, factor)
    )
    assert (first.candidate, first.transposition) == (second.candidate, second.transposition)
    assert second.score >= 0.5 * factor * scores.max() - 1e-9
    assert first.chance == pytest.approx(second.chance)


@given(memories(), players(), partner_settings)
def test_the_same_seed_decides_alike(memory, player, chosen):
    assert answer(memory, player, chosen, seed=3) == answer(memory, player, chosen, seed=3)
    cold = dataclasses.replace(chosen, temperature=0.0)
    assert answer(memory, player, cold, seed=1) == answer(memory, player, cold, seed=2), (
        "without temperature there is no chance"
    )


def song(pairs, pitches=None) -> Memory:
    memory = Memory(dims=2, threshold=0.5)
    for i, pair in enumerate(pairs):
        own = [] if pitches is None else [HeardNote(0.25 * i, 0.2, pitches[i], 90)]
        memory.append(gesture(0.25 * i, 0.25, pair, pair), own, recording=0)
    return memory


def phrase(harmonic, *, chroma=(1.0,) + (0.0,) * 11, first=0):
    return [
        percept(first + i, gestures=[gesture((first + i) * SEGMENT_S, 0.3, (t, SILENCE))], chroma=chroma)
        for i, t in enumerate(harmonic)
    ]


def test_nothing_is_decided_but_waiting_before_anything_is_heard():
    memory = song([(0, 0), (1, 1)], [60, 62])
    decisions = answer(memory, [percept(i, audible=False) for i in range(10)])
    assert [(d.kind, d.rest) for d in decisions] == [("rest", "waiting")]


def test_it_goes_on_from_where_memory_was_in_the_same_situation():
    memory = song([(7, 0), (3, 0), (4, 0), (5, 0), (6, 0)], [40, 50, 60, 70, 80])
    decisions = answer(memory, phrase([3, 4]), PartnerSettings(temperature=0, max_transposition=0, rest_below=0))
    assert [d.state for d in decisions if d.kind == "play"][:2] == [2, 3]


def test_it_rests_when_the_player_is_silent_long_enough_and_says_so():
    memory = song([(i % 3, 0) for i in range(30)], [60] * 30)
    player = [*phrase([0, 1, 2]), *(percept(i, audible=False) for i in range(3, 20))]
    decisions = answer(memory, player, PartnerSettings(rest_after_silence_s=1.0, rest_below=0, no_repeat=0))
    silent_from = 3 * SEGMENT_S
    last = decisions[-1]
    assert last.rest == "silence"
    assert last.silent_s > 1.0
    assert silent_from + 0.9 < last.time_s < silent_from + 1.0 + 0.25 + SEGMENT_S
    assert all(d.time_s <= last.time_s for d in decisions)


def test_a_player_who_does_what_memory_never_heard_gets_a_rest_with_that_reason():
    memory = song([(0, 0), (1, 1)], [60, 62])
    alone = answer(memory, phrase([9, 9, 9], chroma=np.eye(12)[6]), PartnerSettings(max_transposition=0))
    assert {d.rest for d in alone} == {"no match"}


TRIAD = np.isin(np.arange(12), [0, 4, 7]).astype(np.float32)


@pytest.fixture
def triads() -> Memory:
    memory = Memory(dims=2, threshold=0.5)
    for i in range(12):
        own = dataclasses.replace(gesture(0.25 * i, 0.25, (i, i)), chroma=TRIAD)
        memory.append(own, [HeardNote(0.25 * i, 0.2, 60, 90)], recording=0)
    return memory


def test_a_decision_finds_searched_what_fits_also_where_the_key_moves(triads, monkeypatch):
    decide = Partner.decide

    def without_searching(partner, now_s):
        with patch("musichal.partner.candidates.HarmonySearch", side_effect=AssertionError("it searches now")):
            return decide(partner, now_s)

    monkeypatch.setattr(Partner, "decide", without_searching)
    player = [*phrase([50] * 6, chroma=TRIAD), *phrase([50] * 12, chroma=np.roll(TRIAD, 5), first=6)]
    decisions = answer(triads, player, PartnerSettings(no_repeat=0))
    assert {d.transposition for d in decisions if d.kind == "play"} == {0, 5}


def test_a_player_in_another_key_is_answered_in_that_key(triads):
    for key in range(-5, 7):
        decisions = answer(triads, phrase([50, 51, 52], chroma=np.roll(TRIAD, key)))
        assert {d.transposition for d in decisions if d.kind == "play"} == {key}
        assert {n.pitch for d in decisions for n in d.notes} == {60 + key}


def test_what_fits_badly_or_was_just_played_is_not_played_and_it_says_which():
    memory = song([(0, 0), (1, 1), (9, 9)], [60, 62, 64])
    weak = answer(memory, phrase([0], chroma=np.eye(12)[6]), PartnerSettings(rest_below=0.9))
    assert [d.rest for d in weak] == ["weak match"]
    assert weak[0].candidates > 0
    only = dataclasses.replace(FREE, no_repeat=1, chroma_candidates=0, live_weight=0)
    two = song([(0, 0)], [60])
    two.append(gesture(0.25, 2.0, (1, 1)), [HeardNote(0.25, 0.2, 62, 90)], recording=0)
    again = answer(two, phrase([0] * 8), only)
    assert [d.rest or d.state for d in again] == [1, "repeats"]


def test_after_a_long_run_it_must_jump():
    memory = song([(i, i) for i in range(40)], [60] * 40)
    player = phrase([0] + [50] * 25)
    runs = [d.run for d in answer(memory, player, dataclasses.replace(FREE, max_run=4, chroma_candidates=0))]
    assert max(runs) == 4


def test_a_memory_of_drums_alone_keeps_time_without_notes_or_rests():
    memory = song([(SILENCE, i % 3) for i in range(20)])
    player = [percept(i, gestures=[gesture(i * SEGMENT_S, 0.3, (SILENCE, i % 3))]) for i in range(10)]
    decisions = answer(memory, player, PartnerSettings())
    assert any(d.kind == "play" for d in decisions)
    assert all(d.notes == () for d in decisions)
    # It is not held to notes and harmony that it cannot have.
    assert answer(memory, player, PartnerSettings(noteless_factor=0)) == decisions


def test_a_memory_of_one_gesture_plays_it_once_and_rests():
    memory = song([(0, 0)], [60])
    decisions = answer(memory, phrase([0, 0, 0]), FREE)
    assert {d.state for d in decisions if d.kind == "play"} <= {0}
    assert answer(memory, phrase([0, 0, 0]), dataclasses.replace(FREE, chroma_candidates=0))[0].rest == "no match"


def test_the_chroma_that_is_fitted_fades_with_time_but_not_in_silence():
    tracker, chosen = SituationTracker(sample_rate_hz=24_000), PartnerSettings(chroma_s=0.5)
    for i in range(20):
        tracker.hear(percept(i, chroma=np.eye(12)[0 if i < 10 else 7]), chosen)
    sounding = tracker.at(7.0, chosen).chroma
    assert sounding[7] > 100 * sounding[0] > 0
    for i in range(20, 30):
        tracker.hear(percept(i, audible=False), chosen)
    later = tracker.at(10.5, chosen)
    assert later.chroma.tolist() == sounding.tolist()
    assert later.silent_s == pytest.approx(3.5, abs=0.02)


@pytest.mark.parametrize("draw", [0.0, 1 - 2**-53])
def test_a_draw_can_only_fall_on_what_is_allowed(draw):
    class Extreme:
        def random(self) -> float:
            return draw

    memory = song([(i % 2, 0) for i in range(200)], [60] * 200)
    chosen = PartnerSettings(temperature=5, no_repeat=40, rest_below=0, max_candidates=100)
    partner = Partner(memory, chosen, rng=Extreme(), sample_rate_hz=24_000)  # type: ignore[arg-type]
    history: list[int] = []
    for p in phrase([0, 1] * 20):
        partner.hear(p, p.heard.available_at / 24_000)
        (decision,) = partner.decide(p.heard.available_at / 24_000)
        assert decision.state not in history[-40:]
        history.append(decision.state)


@pytest.fixture(scope="module")
def real_player(trained, short_guitar):
    samples, rate = soundfile.read(short_guitar, dtype="float32")
    return hear(trained, samples, rate)


@pytest.mark.parametrize(
    "trial",
    [t for t in trials() if ":" not in t.parameter and "." not in t.parameter and t.parameter != "pairs_weight"],
    ids=lambda t: t.parameter,
)
def test_each_setting_changes_what_is_played_to_real_music(trained, real_player, trial):
    low, high = (PartnerSettings().changed(changes) for changes in trial.changes)
    # Decisions do not look ahead: what differs over the first seconds differs over all.
    for heard in (real_player[:9], real_player):
        if plays(answer(trained.memory, heard, low)) != plays(answer(trained.memory, heard, high)):
            return
    pytest.fail("both ends of the setting sound alike")


def test_real_music_is_answered_alike_by_one_seed_and_otherwise_by_another(trained, real_player):
    warm = PartnerSettings(temperature=0.3)
    first = answer(trained.memory, real_player, warm, seed=1)
    assert plays(first)
    assert first == answer(trained.memory, real_player, warm, seed=1)
    assert plays(first) != plays(answer(trained.memory, real_player, warm, seed=2))
