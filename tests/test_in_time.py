"""Answers in time: a memory whose beats are known by hand meets a pulse that is given."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musichal.errors import InputError
from musichal.hearing.beats import PLACES
from musichal.memory.beat_places import BeatPlace
from musichal.memory.memory import Memory
from musichal.note import HeardNote, Note
from musichal.partner.decision import Decision
from musichal.partner.explanation import explain
from musichal.partner.memory_pool import MemoryPool
from musichal.partner.settings import PartnerSettings
from musichal.partner.timing import BeatPlan, NoteTiming, in_time, struck_places
from musichal.partner.turn_taking import Metre
from musichal.pulse import Pulse
from partners_by_hand import gesture
from players_by_hand import RATE, SEGMENT, answer, percept

pytestmark = pytest.mark.usefixtures("heard_once")

MICRO_S = 0.013
"""So much behind the start of its state each note of the memory lies, of which playing in time must keep every bit."""


def memory_of(period_s: float, *, states: int = 96, parts: int = 2, first: float = 0.0, beats: bool = True) -> Memory:
    """Return a memory with `parts` states a beat and a note in each; its first state lies `first` beats behind the beat."""
    memory = Memory(dims=2, threshold=0.5)
    step_s = period_s / parts
    for i in range(states):
        start_s = i * step_s
        place = BeatPlace((first + i / parts) % 1, period_s, i // parts % 4, 0.9) if beats else BeatPlace()
        own = dataclasses.replace(gesture(start_s, step_s, (i * 7 % 60, i * 11 % 60)), starts_at_onset=False)
        memory.append(own, [HeardNote(start_s + MICRO_S, step_s / 2, 48 + i % 24, 80)], recording=0, beat=place)
    return memory


def player(segments: int = 48):
    """Return a player who sounds, with a gesture in each segment and no onset: the pulse is the clock's alone."""
    rng = np.random.default_rng(5)
    out = []
    for i in range(segments):
        own = gesture(i * SEGMENT / RATE, SEGMENT / RATE, (int(rng.integers(60)), int(rng.integers(60))))
        out.append(percept(i, gestures=[own], chroma=np.eye(12)[i % 12]))
    return out


def played(memory: Memory, clock: Pulse | None, *, mode: str = "lead", seed: int = 0, **changes) -> list[Decision]:
    # The player's pitch classes go round: in no key at all, which it would rest for.
    chosen = PartnerSettings.from_dict({"direction": {"mode": mode}, "follow_harmony": 0.0, **changes})
    said = [] if clock is None else [
        (t / 2, {"clock": {"beat_s": clock.beat_s, "period_s": clock.period_s}}) for t in range(32)
    ]  # fmt: skip
    return [d for d in answer(memory, player(), chosen, seed=seed, wishes=said) if d.kind == "play"]


def in_beats(time_s: float, clock: Pulse) -> float:
    return (time_s - clock.beat_s) / clock.period_s


def off(phase: float, wanted: float) -> float:
    return abs((phase - wanted + 0.5) % 1 - 0.5)


@pytest.mark.parametrize("mode", ["couple", "lead", "contrast"])
@pytest.mark.parametrize(("memory_s", "room_s"), [(0.5, 0.5), (0.5, 0.55), (0.5, 0.43), (0.42, 0.5)])
def test_a_state_begins_at_its_place_in_the_beat_and_keeps_its_micro_timing(mode, memory_s, room_s):
    clock = Pulse(0.13, room_s)
    decisions = played(memory_of(memory_s), clock, mode=mode)
    assert len(decisions) > 15
    offset = 0.5 if mode == "contrast" else 0.0
    for d in decisions[1:]:
        assert d.pulse is not None and d.pulse.source == "clock" and d.tempo_bpm == pytest.approx(60 / room_s)
        assert off(in_beats(d.begin_s, clock), d.pulse.phase + offset) < 1e-6
        assert d.stretch == pytest.approx(room_s / memory_s)
        for note in d.notes:
            assert note.onset_s - d.begin_s == pytest.approx(MICRO_S * d.stretch, abs=1e-9)


def test_what_began_without_an_attack_begins_on_a_part_of_the_beat():
    """It lies inside its state, where no onset was heard; what was struck with the state keeps its micro-timing."""
    timing = NoteTiming(plan=BeatPlan(Pulse(0.0, 0.5), 1.0, 2.01, 2.0), stretch=1.1)
    struck, swelling = Note(2.03, 0.1, 60, 80), Note(2.16, 0.1, 64, 80)
    parts, _ = in_time({"all": (struck, swelling)}, timing, start_s=2.01, duration_s=0.5)
    onsets_s = [note.onset_s for note in parts["all"]]
    assert onsets_s == pytest.approx([2.01 + 1.1 * 0.02, 2.125])


def test_a_room_that_counts_half_as_fast_is_met_on_the_memorys_level():
    clock = Pulse(0.2, 1.0)
    for d in played(memory_of(0.52), clock)[1:]:
        assert d.stretch == pytest.approx(0.5 / 0.52)
        assert off(2 * in_beats(d.begin_s, clock), d.pulse.phase) < 1e-6


def test_states_follow_one_another_without_a_gap():
    decisions = played(memory_of(0.5), Pulse(0.1, 0.47))
    joined = [(a, b) for a, b in itertools.pairwise(decisions) if not b.jumped and a.phrase == b.phrase]
    assert len(joined) > 10
    for before, after in joined:
        assert after.begin_s == pytest.approx(before.begin_s + before.duration_s, abs=1e-6)


def test_phrases_begin_on_a_beat_and_last_whole_beats():
    clock = Pulse(0.1, 0.5)
    begins = []
    for seed in range(4):
        decisions = played(memory_of(0.5), clock, mode="couple", seed=seed)
        begins += [d for before, d in itertools.pairwise(decisions) if before.phrase != d.phrase]
    assert len(begins) >= 4
    assert all(off(in_beats(d.begin_s, clock), 0) < 1e-6 for d in begins)


def test_nothing_is_decided_late_and_time_never_stands_still():
    decisions = played(memory_of(0.5, parts=8), Pulse(0.1, 0.31))
    times = [d.time_s for d in decisions]
    assert times == sorted(set(times))
    assert all(note.onset_s >= d.time_s for d in decisions for note in d.notes)


def test_shadow_answers_an_onset_at_once_whatever_the_beat():
    struck = [
        dataclasses.replace(p, heard=dataclasses.replace(p.heard, onset_samples=(p.heard.start_sample + 999,)))
        for p in player()
    ]
    chosen = PartnerSettings.from_dict({"direction": {"mode": "shadow"}, "follow_harmony": 0.0})
    wishes = [(t / 2, {"clock": {"beat_s": 0.1, "period_s": 0.5}}) for t in range(32)]
    decisions = [d for d in answer(memory_of(0.5), struck, chosen, onsets=True, wishes=wishes) if d.kind == "play"]
    assert len(decisions) > 10
    assert all(d.begin_s == d.time_s for d in decisions)


def test_free_time_is_pinned_and_explained():
    for d in played(memory_of(0.5), Pulse(0.1, 0.5), time="free"):
        assert (d.pulse, d.tempo_bpm, d.stretch, d.start_s) == (None, None, 1.0, None)
        assert "free time: its time is free" in explain(d, ["a.wav"])
    for d in played(memory_of(0.5), None):
        assert d.pulse is None
        assert "no pulse is heard" in explain(d, ["a.wav"])


def test_a_record_says_how_it_went_by_the_pulse():
    d = played(memory_of(0.5), Pulse(0.1, 0.5))[3]
    told = explain(d, ["a.wav"])
    assert "the clock's pulse of 120 beats a minute" in told
    assert "It begins half a beat in, as in memory." in told
    by_midi = dataclasses.replace(d, pulse=dataclasses.replace(d.pulse, source="midi"))
    assert "It goes by the MIDI clock's pulse of 120 beats a minute." in explain(by_midi, ["a.wav"])
    moved = dataclasses.replace(d, pulse=dataclasses.replace(d.pulse, wanted=0.51, phase=0.74, got=0.0))
    assert "It begins on the beat; in memory it began three quarters into the beat where half a beat in was wanted." in explain(
        moved, ["a"]
    )
    elsewhere = dataclasses.replace(d, pulse=dataclasses.replace(d.pulse, wanted=0.3, phase=0.5, got=0.5))
    assert "It begins half a beat in where a third into the beat was wanted, as in memory." in explain(elsewhere, ["a"])
    off_beat = dataclasses.replace(d, pulse=dataclasses.replace(d.pulse, wanted=0.5, phase=0.5, got=0.0))
    assert "It begins on the beat; in memory it began half a beat in." in explain(off_beat, ["a"]), "that place was wanted"
    near = dataclasses.replace(d, pulse=dataclasses.replace(d.pulse, wanted=0.06, phase=0.06, got=-0.06))
    assert "It begins on the beat, as in memory." in explain(near, ["a.wav"]), "one name is told once"
    assert "beat" in [f.name for f in d.filters]


def test_a_memory_without_beats_is_played_in_its_own_time_and_says_so():
    decisions = played(memory_of(0.5, beats=False), Pulse(0.1, 0.5))
    assert decisions
    assert all(d.pulse.phase is None and d.stretch == 1.0 for d in decisions)
    assert "whose beat is not known" in explain(decisions[1], ["a.wav"])


def test_places_elsewhere_in_the_beat_are_held_back_as_far_as_the_pulse_is_sure():
    memory = memory_of(0.5, parts=4)
    pool, states = MemoryPool(memory), np.arange(8)
    sure = BeatPlan(Pulse(0.0, 0.5), 1.0, 10.0, 9.9)
    fit = sure.fit(pool, states)
    assert fit.away == pytest.approx([0, 0.25, -0.5, -0.25] * 2, abs=1e-6)
    struck = dataclasses.replace(fit, unstruck=np.zeros(8, dtype=bool))
    factors = sure.factors(struck, sharpness=3.0)
    assert factors[:3] == pytest.approx([1, np.exp(-3), np.exp(-6)], rel=1e-4)
    half = dataclasses.replace(sure, strength=0.5)
    assert half.factors(struck, sharpness=3.0) == pytest.approx((1 + factors) / 2)
    # Its notes begin without an attack: less is known of when.
    assert fit.unstruck.all()
    assert (sure.factors(fit, sharpness=3.0) < factors).all()
    # What should have begun before the earliest time begins a beat later.
    assert sure.begin_s(fit, 1) == pytest.approx(10.125)
    assert sure.begin_s(fit, 3) == pytest.approx(10.375)


def test_where_in_the_beat_memory_strikes_seldom_the_partner_does_too():
    memory = Memory(dims=2, threshold=0.5)
    for i in range(64):
        # A note on each beat; on the second half of every fourth one.
        place = BeatPlace(i % 2 / 2, 0.5, i // 2 % 4, 0.9)
        notes = [HeardNote(i * 0.25, 0.1, 48 + i % 24, 80)] if i % 2 == 0 or i % 8 == 7 else []
        memory.append(gesture(i * 0.25, 0.25, (i * 7 % 60, i * 11 % 60)), notes, recording=0, beat=place)
    struck = struck_places(memory)
    assert struck[[0, PLACES // 2, PLACES // 4]] == pytest.approx([1, 0.25, 0])
    plan = BeatPlan(Pulse(0.0, 0.5), 1.0, 10.25, 9.9)
    factors = plan.factors(plan.fit(MemoryPool(memory), np.arange(8)), sharpness=0.0)
    assert factors == pytest.approx([1, 0.25] * 4)
    # Without a sure beat no part of it is preferred.
    assert (struck_places(memory_of(0.5, beats=False)) == 1).all()


@settings(max_examples=40, deadline=None)
@given(
    period_s=st.floats(0.1, 10), memory_s=st.floats(0.15, 2.0), start_s=st.floats(0, 1000), ahead_s=st.floats(0, 0.5),
    strength=st.floats(0.01, 1), offset=st.floats(0, 1), first=st.floats(0, 0.999),
)  # fmt: skip
def test_whatever_the_tempo_nothing_begins_early_or_stretches_beyond_half_an_octave(
    period_s, memory_s, start_s, ahead_s, strength, offset, first
):
    memory = memory_of(memory_s, states=4, first=first)
    plan = BeatPlan(Pulse(0.0, period_s), strength, start_s + ahead_s, start_s, offset)
    fit = plan.fit(MemoryPool(memory), np.arange(4))
    factors = plan.factors(fit, sharpness=3.0)
    assert ((factors >= 0) & (factors <= 1)).all()
    for row in range(4):
        assert plan.begin_s(fit, row) >= start_s - 1e-9
        assert plan.begin_s(fit, row) <= start_s + ahead_s + fit.step_s[row] + 1e-9
        assert 0.7 <= plan.stretch(fit, row) <= 1.42


def test_a_voice_strikes_no_faster_than_it_may_at_any_tempo():
    decisions = played(
        memory_of(0.5, parts=8), Pulse(0.1, 0.36), voices=[{"name": "all", "part": "all", "most_per_s": 5.0}], seed=2
    )
    onsets = sorted({note.onset_s for d in decisions for note in d.notes})
    assert len(onsets) > 20
    assert np.diff(onsets).min() >= 0.2 - 1e-6


def test_a_clock_that_jumps_from_600_to_6_bpm_makes_no_voice_faster_than_it_may():
    jumps = [(t / 2, {"clock": {"beat_s": t / 2 + 0.1, "period_s": (0.1, 10.0, 0.4)[t % 3]}}) for t in range(32)]
    limited = {
        "follow_harmony": 0.0,
        "direction": {"mode": "lead"},
        "voices": [{"name": "all", "part": "all", "most_per_s": 5.0}],
    }
    decisions = answer(memory_of(0.5, parts=8), player(), PartnerSettings.from_dict(limited), seed=2, wishes=jumps)
    onsets = sorted({note.onset_s for d in decisions for note in d.notes})
    assert len(onsets) > 10
    assert np.diff(onsets).min() >= 0.2 - 1e-6


def test_a_metre_counts_whole_beats():
    metre = Metre(Pulse(0.1, 0.5), 0.5)
    assert metre.next_s(1.0) == pytest.approx(1.35)
    assert metre.next_s(1.36) == pytest.approx(1.35), "all but on the beat"
    assert [metre.whole_s(d) for d in (0.1, 0.8, 3.2)] == [0.5, 1.0, 3.0]
    assert metre.from_s(0.3).next_s(0.9) == pytest.approx(1.3)


def test_time_must_be_one_of_three():
    with pytest.raises(InputError, match="time must be one of auto, pulse, free, got 'swing'"):
        PartnerSettings().changed({"time": "swing"})
