import dataclasses
import gc
from itertools import pairwise

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from musichal.hearing.encoders import create_encoder
from musichal.hearing.listener import Listener
from musichal.hearing.percepts import SILENCE, Percept
from musichal.live.engine import Engine, note_events, perform, slice_events
from musichal.memory.memory import Memory
from musichal.note import HeardNote
from musichal.partner.partner import Partner
from musichal.partner.settings import PartnerSettings
from partners_by_hand import gesture
from players_by_hand import RATE, SEGMENT, ScriptedListener, answer, percept

pytestmark = pytest.mark.usefixtures("heard_once")

SEGMENT_S = SEGMENT / RATE


def memory() -> Memory:
    out = Memory(dims=2, threshold=0.5)
    start = 0.0
    for i in range(40):
        duration = (0.06, 0.35, 0.2, 0.7)[i % 4]
        out.append(gesture(start, duration, (i % 5, i % 3)), [HeardNote(start, duration, 40 + i, 90)], recording=0)
        start += duration
    return out


def player(segments: int):
    return [
        percept(i, gestures=[gesture(i * SEGMENT_S, 0.3, (i % 5, SILENCE))], chroma=np.eye(12)[i % 5]) for i in range(segments)
    ]


def cut(listener, partner, n: int, cuts) -> tuple[list, list]:
    engine = Engine(listener, partner, sample_rate_hz=RATE)
    percepts, decisions = [], []
    bounds = [0, *sorted(cuts), n]
    for first, last in pairwise(bounds):
        step = engine.push(np.zeros(last - first, np.float32))
        assert engine.now_s == last / RATE
        assert all(d.time_s < engine.now_s or d.time_s == engine.now_s for d in step.decisions), "nothing from the future"
        percepts += step.percepts
        decisions += step.decisions
    last = engine.finish()
    return [*percepts, *last.percepts], [*decisions, *last.decisions]


@pytest.fixture(scope="module")
def whole():
    found = answer(memory(), player(12), PartnerSettings(rest_below=0.0, temperature=0.3), block=12 * SEGMENT)
    assert any(d.kind == "play" for d in found)
    return found


@given(cuts=st.lists(st.integers(0, 12 * SEGMENT), max_size=60))
def test_decisions_do_not_depend_on_how_the_input_was_cut(whole, cuts):
    chosen = PartnerSettings(rest_below=0.0, temperature=0.3)
    partner = Partner(memory(), chosen, rng=np.random.default_rng(0), sample_rate_hz=RATE)
    percepts, decisions = cut(ScriptedListener(player(12)), partner, 12 * SEGMENT, cuts)
    assert decisions == whole
    assert len(percepts) == 12


def test_a_percept_counts_before_a_decision_that_is_due_at_the_same_moment():
    heard = []

    class Watching(Partner):
        def hear(self, percept, now_s):
            heard.append(("percept", now_s))
            super().hear(percept, now_s)

        def decide(self, now_s):
            heard.append(("decision", now_s))
            return super().decide(now_s)

    exact = Memory(dims=2, threshold=0.5)
    for i in range(40):
        exact.append(gesture(i * 0.25, 0.25, (0, 0)), [], recording=0)
    quarters = [
        dataclasses.replace(p, heard=dataclasses.replace(p.heard, available_at=6000 * (i + 1))) for i, p in enumerate(player(5))
    ]
    chosen = PartnerSettings(rest_below=0.0, no_repeat=0)
    partner = Watching(exact, chosen, rng=np.random.default_rng(0), sample_rate_hz=RATE)
    cut(ScriptedListener(quarters), partner, 5 * 6000, [])
    assert heard == [(what, 0.25 * i) for i in range(1, 6) for what in ("percept", "decision")]


def test_each_play_follows_the_last_without_a_gap_and_a_rest_waits_for_a_percept():
    heard = [*player(6), *(percept(i, audible=False) for i in range(6, 12)), *player(20)[12:]]
    decisions = answer(memory(), heard, PartnerSettings(rest_below=0.2, rest_after_silence_s=0.5))
    assert {d.kind for d in decisions} == {"play", "rest"}
    arrivals = {p.heard.available_at / RATE for p in heard}
    for before, after in pairwise(decisions):
        if before.kind == "play":
            assert after.time_s == before.time_s + before.duration_s
        else:
            assert after.time_s in arrivals
            assert after.rest != before.rest, "one record for one rest"


def test_nothing_heard_nothing_decided():
    assert answer(memory(), []) == []
    partner = Partner(memory(), PartnerSettings(), rng=np.random.default_rng(0), sample_rate_hz=RATE)
    engine = Engine(ScriptedListener([]), partner, sample_rate_hz=RATE)
    assert engine.push(np.zeros(0, np.float32)).decisions == ()
    assert engine.finish().decisions == ()


@pytest.fixture(scope="module")
def real(trained, short_guitar):
    samples, rate = soundfile.read(short_guitar, dtype="float32")
    samples = samples[: 4 * rate]
    return samples, rate, perform(trained, samples, sample_rate_hz=rate, settings=PartnerSettings(), seed=0)


@pytest.mark.parametrize("seed", [0, 1])
def test_real_sound_cut_anyhow_is_answered_alike(trained, real, seed):
    samples, rate, expected = real
    spec = trained.spec
    listener = Listener(spec, create_encoder(spec), trained.vocabularies, source_rate_hz=rate)
    partner = Partner(trained.memory, PartnerSettings(), rng=np.random.default_rng(0), sample_rate_hz=spec.sample_rate_hz)
    engine = Engine(listener, partner, sample_rate_hz=spec.sample_rate_hz)
    rng = np.random.default_rng(seed)
    decisions, at = [], 0
    while at < len(samples):
        size = int(rng.choice([1, 17, 480, 5000, 48_000]))
        decisions += engine.push(samples[at : at + size]).decisions
        at += size
    decisions += engine.finish().decisions
    assert tuple(decisions) == expected.decisions
    assert engine.now_s == expected.duration_s


def test_a_performance_ends_with_its_input_and_is_in_order(real):
    samples, rate, performance = real
    assert performance.duration_s == pytest.approx(len(samples) / rate, abs=0.001)
    times = [d.time_s for d in performance.decisions]
    assert times == sorted(times)
    assert times[0] >= 0.35
    assert times[-1] <= performance.duration_s
    assert all(d.duration_s > 0 for d in performance.decisions if d.kind == "play")
    heard = performance.heard
    assert heard.tokens.shape == (2, len(heard.frame_samples))
    assert len(heard.level_db) == len(heard.chroma) == len(heard.frame_samples)
    assert (np.diff(heard.frame_samples) > 0).all()


def test_events_are_the_notes_and_the_places_of_the_decisions(real):
    decisions = real[2].decisions
    notes, slices = note_events(decisions, channel=3), slice_events(decisions)
    assert [(n.onset_s, n.pitch, n.channel) for n in notes] == [(n.onset_s, n.pitch, 3) for d in decisions for n in d.notes]
    played = [d for d in decisions if d.kind == "play"]
    assert [(s.onset_s, s.recording, s.source_start_s, s.duration_s, s.transposition_semitones) for s in slices] == [
        (d.begin_s, d.recording, d.source_start_s, d.duration_s, d.transposition) for d in played
    ]


def test_progress_is_told_up_to_the_end(trained, real):
    samples, rate, _ = real
    told: list[float] = []
    perform(trained, samples[:rate], sample_rate_hz=rate, settings=PartnerSettings(), seed=0, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_a_performance_keeps_no_features(trained, real):
    """A percept holds some 25 kB of features; hours of them would not fit into memory."""
    samples, rate, performance = real
    alive = []

    def count(share: float) -> None:
        if share == 1.0 and not alive:
            gc.collect()
            alive.append(sum(isinstance(thing, Percept) for thing in gc.get_objects()))

    perform(trained, samples, sample_rate_hz=rate, settings=PartnerSettings(), seed=1, progress=count)
    assert len(performance.percept_lines) > 8
    assert alive[0] <= 2


def test_less_than_a_frame_is_refused(trained):
    from musichal.errors import InputError

    with pytest.raises(InputError, match="too short"):
        perform(trained, np.zeros(300, np.float32), sample_rate_hz=24_000, settings=PartnerSettings(), seed=0)


def test_a_partner_that_hears_with_another_encoder_is_refused(trained):
    from musichal.errors import InputError

    other = dataclasses.replace(trained.spec, encoder=dataclasses.replace(trained.spec.encoder, digest="f" * 64))
    with pytest.raises(InputError, match="not the one this partner was trained with"):
        perform(
            dataclasses.replace(trained, spec=other), np.zeros(24_000, np.float32), sample_rate_hz=24_000,
            settings=PartnerSettings(), seed=0,
        )  # fmt: skip


def test_white_noise_is_answered_with_rest(trained):
    """Noise has no harmony, and its tokens lead nowhere for long: nothing is played that nothing spoke for."""
    noise = (0.1 * np.random.default_rng(0).standard_normal(10 * 24_000)).astype(np.float32)
    performance = perform(trained, noise, sample_rate_hz=24_000, settings=PartnerSettings(), seed=0)
    assert sum(d.duration_s for d in performance.decisions if d.kind == "play") < 1.0
    assert {d.rest for d in performance.decisions if d.kind == "rest"} <= {"no match", "no support", "weak match", "repeats"}
