"""The pulse: by hand, on the clips whose tempo is known, and from a clock."""

import dataclasses
import json
import time
from pathlib import Path

import mir_eval
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musichal.audio.instrument import EmbeddedInstrument, render_notes
from musichal.audio.recording import read_recording
from musichal.errors import InputError
from musichal.hearing import beat_level, beats, metre
from musichal.hearing.beats import (
    LONGEST_BEAT_S,
    PLACES,
    SHORTEST_BEAT_S,
    BeatHabit,
    BeatTracker,
    find_beats,
    find_pulse,
    predicted_beats,
)
from musichal.hearing.percepts import Percept
from musichal.note import PERCUSSION_CHANNEL, Note
from musichal.partner.clocks import TickClock, read_clock
from musichal.partner.room_pulse import PulseKeeper
from musichal.partner.settings import PartnerSettings
from musichal.partner.timing import quantised_s
from musichal.pulse import BeatChances, Pulse
from players_by_hand import RATE, SEGMENT, hear, percept

pytestmark = pytest.mark.usefixtures("heard_once")


def after(onsets, *, until_s: float) -> Pulse | None:
    tracker = BeatTracker()
    tracker.advance([(t, 1.0) for t in onsets], until_s=until_s)
    return tracker.pulse()


@pytest.mark.parametrize("period_s", [0.41, 0.43, 0.5, 0.632, 0.75])
def test_a_steady_beat_is_found_with_its_phase(period_s):
    onsets = np.arange(0.2, 15, period_s)
    pulse = after(onsets, until_s=15)
    assert pulse is not None
    assert pulse.period_s == pytest.approx(period_s, rel=0.01)
    assert pulse.nearest_s(onsets[-1]) == pytest.approx(onsets[-1], abs=0.02)
    assert pulse.confidence > 0.8
    assert pulse.tempo_bpm == pytest.approx(60 / period_s, rel=0.01)


def test_it_follows_when_the_player_gets_faster():
    gaps = np.linspace(0.6, 0.45, 40)
    onsets = np.cumsum(gaps)
    pulse = after(onsets, until_s=float(onsets[-1]) + 0.05)
    assert pulse is not None
    assert pulse.period_s == pytest.approx(0.45, rel=0.05)
    assert pulse.nearest_s(onsets[-1]) == pytest.approx(onsets[-1], abs=0.05)


@pytest.mark.parametrize("factor", [0.926, 1.08])
@pytest.mark.parametrize("period_s", [0.5, 0.6])
def test_bare_clicks_are_followed_after_five_beats_when_the_tempo_leaps(period_s, factor):
    before = np.arange(0.2, 12, period_s)
    after_it = before[-1] + factor * period_s * np.arange(1, 10)
    for count in range(5, 9):
        heard_s = float(after_it[count - 1]) + 0.01
        pulse = after([*before, *after_it[:count]], until_s=heard_s)
        assert pulse is not None
        assert pulse.nearest_s(after_it[count]) == pytest.approx(after_it[count], abs=0.06)


def test_known_beats_say_where_a_shuffle_has_its_beat():
    onsets = [beat_s + late_s for beat_s in 0.2 + 0.81 * np.arange(16) for late_s in (0, 0.54)]
    tracker = BeatTracker(BeatHabit(np.array([0.81]), np.array([1.0]), np.array([1, 0, 0, 0, 0.4, 0, 0, 0, 0.8, 0, 0, 0])))
    tracker.advance([(t, 0.8) for t in onsets], until_s=13)
    pulse = tracker.pulse()
    assert pulse is not None
    assert pulse.period_s == pytest.approx(0.81, rel=0.02)
    assert pulse.nearest_s(onsets[-2]) == pytest.approx(onsets[-2], abs=0.03)


def test_a_known_tempo_is_believed_sooner_also_where_two_of_its_beats_are_found():
    struck = np.flatnonzero(np.random.default_rng(3).random(80) < 0.45)
    onsets = 0.3 + 0.25 * struck
    sure = []
    for known_s in (0.25, 0.28):
        tracker = BeatTracker(BeatHabit(np.array([known_s]), np.array([1.0]), np.array([1, 0, 0, 0, 0, 0, 0.9, 0, 0, 0, 0, 0])))
        tracker.advance([(t, 0.8) for t in onsets], until_s=15)
        pulse = tracker.pulse()
        assert pulse is not None
        assert pulse.period_s == pytest.approx(0.5, rel=0.01)
        sure.append(pulse.confidence)
    assert sure[0] > 0.35
    assert sure[1] < 0.2


def test_without_a_beat_it_is_not_sure():
    assert after([], until_s=10) is None
    rng = np.random.default_rng(1)
    scattered = [after(np.sort(rng.uniform(0, 20, 40)), until_s=20) for _ in range(5)]
    assert max(p.confidence for p in scattered if p is not None) < 0.2


def test_speech_has_no_pulse(trained):
    """Noise in syllables of uneven length, which is full of onsets."""
    rng = np.random.default_rng(3)
    syllables = []
    for _ in range(60):
        n = int(rng.uniform(0.08, 0.32) * RATE)
        syllables += [rng.normal(size=n) * np.hanning(n), np.zeros(int(rng.exponential(0.05) * RATE))]
    tracker = BeatTracker()
    sure = []
    for heard in hear(trained, 0.2 * np.concatenate(syllables).astype(np.float32), RATE):
        tracker.hear(heard, sample_rate_hz=RATE)
        pulse = tracker.pulse()
        sure.append(pulse.confidence if pulse else 0.0)
    assert max(sure) < 0.6 * PartnerSettings().pulse_confidence  # nothing is gone by below that


def clicks(*times_s: float) -> list[Percept]:
    """Return percepts of a little longer than the last of the times, with an onset at each."""
    onsets = np.round(np.array(times_s) * RATE).astype(int)
    found = []
    for i in range(int(onsets[-1]) // SEGMENT + 1):
        own = tuple(int(o) for o in onsets if i * SEGMENT <= o < (i + 1) * SEGMENT)
        silent = percept(i)
        found.append(dataclasses.replace(silent, heard=dataclasses.replace(silent.heard, onset_samples=own)))
    return found


@pytest.mark.parametrize(("beats", "held"), [(40, True), (9, False)])
def test_what_was_sure_for_long_is_held_through_a_rest(beats, held):
    keeper, chosen = PulseKeeper(sample_rate_hz=RATE), PartnerSettings()
    played = [0.2 + 0.5 * k for k in range(beats)]
    for heard in clicks(*played):
        keeper.hear(heard, chosen)
    for i in range(len(clicks(*played)), len(clicks(*played)) + 12):
        keeper.hear(percept(i), chosen)
    room = keeper.at(played[-1] + 8 * 0.5, chosen)
    assert (room.strength == 1) == held


@given(st.floats(-9, 9), st.floats(0.1, 2), st.floats(-9, 9), st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_beats_are_moved_to_where_they_are_likeliest(beat_s, period_s, time_s, chances):
    pulse, told = Pulse(beat_s, period_s), BeatChances(time_s, period_s / len(chances), np.array(chances))
    steps = told.likeliest(pulse)
    moved = told.later(pulse, steps)
    assert abs(steps) <= len(chances) / 2
    assert told.of(pulse) in chances
    assert (moved == pulse) if steps == 0 else (moved.source == "memory")
    likeliest_s = time_s - int(np.argmax(chances)) * told.step_s
    assert abs(moved.nearest_s(likeliest_s) - likeliest_s) <= told.step_s / 2 + 1e-3


def told_of(*relative: float):
    """Return what tells how likely a beat is where the tracker has it, and a quarter, a half and three quarters earlier."""
    return lambda pulse: BeatChances(pulse.beat_s, pulse.period_s / 4, np.array(relative) / sum(relative))


def test_the_beat_is_where_memory_has_it_as_far_as_that_is_clear():
    keeper, chosen, found = PulseKeeper(sample_rate_hz=RATE), PartnerSettings(), []
    heard = clicks(*(0.2 + 0.5 * k for k in range(80)))
    for where in (
        told_of(1, 1, 5, 1),  # likelier elsewhere, and not clearly
        told_of(1, 1, 8, 1),  # clearly
        told_of(1, 1, 2, 1),  # still likelier
        told_of(1, 1, 2, 3),  # likelier at a third place, and not clearly
        told_of(1, 1, 1.2, 1),  # hardly likelier than where it is heard
        told_of(1, 1, 2, 1),  # and not clearly again
        told_of(1, 1, 8, 1),
        lambda _: None,  # memory tells nothing
        told_of(1, 1, 2, 1),
    ):
        for _ in range(10):
            keeper.hear(now := heard.pop(0), chosen, where)
        room = keeper.at(now.heard.available_at / RATE, chosen).pulse
        assert room is not None
        found.append((round(((room.beat_s - 0.2 + 0.06) % 0.5 - 0.06) / 0.125), room.source))
    home, moved = (0, "heard"), (2, "memory")
    assert found == [home, moved, moved, moved, home, home, moved, home, home]


def test_a_tap_moves_the_beat_that_is_held_through_a_rest():
    keeper, chosen = PulseKeeper(sample_rate_hz=RATE), PartnerSettings()
    played = clicks(*(0.2 + 0.5 * k for k in range(40)))
    for heard in played:
        keeper.hear(heard, chosen)
    for i in range(len(played), len(played) + 10):
        keeper.hear(percept(i), chosen)
    now_s = (len(played) + 10) * SEGMENT / RATE
    held = keeper.at(now_s, chosen).pulse
    assert held is not None
    tap_s = held.nearest_s(now_s) + 0.2
    assert "the beat moves" in keeper.change({"tap": {"at_s": float(tap_s)}}, tap_s, chosen)
    moved = keeper.at(tap_s, chosen)
    assert moved.pulse is not None and moved.strength == 1
    assert moved.pulse.nearest_s(tap_s) == pytest.approx(tap_s, abs=0.02)


@pytest.mark.parametrize(("clip", "bpm"), [("rock140_mix", 140), ("ballad95_mix", 95)])
@pytest.mark.parametrize("of_memory", [3 / 4, 4 / 3])
def test_a_player_at_another_tempo_than_memorys_keeps_it(audio_dir: Path, trained, clip, bpm, of_memory):
    recording = read_recording(audio_dir / f"{clip}.ogg")
    habit = BeatHabit(np.array([60 / (bpm * of_memory)]), np.array([1.0]), np.eye(PLACES)[0] + 0.9 * np.eye(PLACES)[6])
    tracker, found_bpm = BeatTracker(habit), []
    for heard in hear(trained, recording.samples[: 16 * recording.sample_rate_hz], recording.sample_rate_hz):
        tracker.hear(heard, sample_rate_hz=RATE)
        if (pulse := tracker.pulse()) is not None:
            found_bpm.append(pulse.tempo_bpm)
    octaves = np.log2(np.array(found_bpm[len(found_bpm) // 2 :]) / bpm)
    assert np.mean(np.abs(octaves - np.rint(octaves)) < 0.08) > 0.9


def test_a_held_pulse_is_let_go_when_the_player_goes_on_without_it():
    keeper, chosen = PulseKeeper(sample_rate_hz=RATE), PartnerSettings()
    rng = np.random.default_rng(3)
    steady = [0.2 + 0.5 * k for k in range(40)]
    free = steady[-1] + np.cumsum(rng.lognormal(-0.3, 0.6, 60))
    before = set()
    for heard in clicks(*steady, *free.tolist()):
        keeper.hear(heard, chosen)
        now_s = heard.heard.available_at / RATE
        pulse = keeper.at(now_s, chosen).pulse
        if now_s < steady[-1] + 9:
            before.add(pulse)
        elif now_s > steady[-1] + 18:  # more than 16 beats later
            assert pulse is None or pulse not in before


def test_an_hour_that_was_not_heard_takes_no_time_and_leaves_the_tempo():
    heard = clicks(*(0.2 + 0.5 * k for k in range(60)))
    hour = SEGMENT * (3600 * RATE // SEGMENT)
    later = []
    for here in heard:
        own = here.heard
        moved = dataclasses.replace(own, start_sample=own.start_sample + hour, frame_samples=own.frame_samples + hour)
        later.append(
            dataclasses.replace(
                here, heard=dataclasses.replace(moved, onset_samples=tuple(o + hour for o in own.onset_samples))
            )
        )
    tracker = BeatTracker()
    for here in heard:
        tracker.hear(here, sample_rate_hz=RATE)
    began_s = time.process_time()
    tracker.hear(later[0], sample_rate_hz=RATE)
    assert time.process_time() - began_s < 0.5  # it was 10 s
    assert (pulse := tracker.pulse()) is not None and pulse.confidence < 0.5
    for here in later[1:]:
        tracker.hear(here, sample_rate_hz=RATE)
    assert (pulse := tracker.pulse()) is not None and pulse.confidence > 0.8
    assert pulse.period_s == pytest.approx(0.5, abs=0.01)
    assert (pulse.beat_s - hour / RATE - 0.2 + 0.05) % 0.5 < 0.1


def test_it_forgets_a_beat_that_stops():
    onsets = np.arange(0.2, 15, 0.5)
    sure = after(onsets, until_s=15)
    later = after(onsets, until_s=75)
    assert sure is not None and later is not None
    assert later.confidence < sure.confidence - 0.2


def test_how_the_stream_is_cut_changes_nothing():
    onsets = np.arange(0.1, 12, 0.41)
    whole = BeatTracker()
    whole.advance([(t, 0.8) for t in onsets], until_s=12)
    parts = BeatTracker()
    for first in np.arange(0, 12, 0.35):
        last = min(12.0, first + 0.35)
        parts.advance([(t, 0.8) for t in onsets if first <= t < last], until_s=last)
    assert parts.pulse() == whole.pulse()


@pytest.mark.parametrize("clip", ["rock140_mix", "rock140_guitar", "rock140_backing", "ballad95_backing"])
def test_beats_of_real_music_are_predicted(audio_dir: Path, trained, clip):
    recording = read_recording(audio_dir / f"{clip}.ogg")
    beats = predicted_beats(hear(trained, recording.samples, recording.sample_rate_hz), sample_rate_hz=RATE)
    truth = np.array(json.loads((audio_dir / f"{clip.split('_')[0]}.json").read_text())["beats"])
    assert mir_eval.beat.f_measure(mir_eval.beat.trim_beats(truth), mir_eval.beat.trim_beats(beats)) > 0.85


@pytest.mark.parametrize("clip", ["ballad95_mix", "ballad95_guitar"])
def test_where_the_beat_is_ambiguous_the_tempo_is_right(audio_dir: Path, trained, clip):
    """The ballad's guitar plays off the beat: half a beat away is as good by onsets alone, the period is not."""
    recording = read_recording(audio_dir / f"{clip}.ogg")
    beats = predicted_beats(hear(trained, recording.samples, recording.sample_rate_hz), sample_rate_hz=RATE)
    truth = np.array(json.loads((audio_dir / "ballad95.json").read_text())["beats"])
    scores = mir_eval.beat.continuity(mir_eval.beat.trim_beats(truth), mir_eval.beat.trim_beats(beats))
    assert scores[3] > 0.9  # any metrical level, in total


@pytest.mark.slow
def test_an_off_beat_is_left_when_drums_say_so(trained):
    half_s, changed, count, kick, snare, hat = 0.28, 24, 48, (36, 42), (38, 42), (42,)
    groove = [kick, hat, snare, hat]
    hits = [
        Note(0.2 + k * half_s, 0.2, key, 60 if key == hat[0] else 95, PERCUSSION_CHANNEL)
        for k in range(count)
        for key in groove[(k - (k >= changed)) % 4]
    ]
    sound = render_notes(hits, EmbeddedInstrument(), sample_rate_hz=RATE).mean(axis=1)
    tracker, places = BeatTracker(), {}
    for heard in hear(trained, sound, RATE):
        tracker.hear(heard, sample_rate_hz=RATE)
        now_s, pulse = heard.heard.available_at / RATE, tracker.pulse()
        if pulse is not None:
            assert now_s < 5 or pulse.period_s == pytest.approx(2 * half_s, rel=0.03)
            places[now_s] = (pulse.next_s(now_s) - 0.2) / half_s % 2
    changed_s, period_s = 0.2 + changed * half_s, 2 * half_s
    off = {now_s - changed_s: abs((place + 1) % 2 - 1) > 0.5 for now_s, place in places.items()}
    assert not any(is_off for late_s, is_off in off.items() if 5 - changed_s < late_s < 0)
    assert all(is_off for late_s, is_off in off.items() if late_s > 9 * period_s)


@given(st.lists(st.tuples(st.floats(0.02, 2.0), st.floats(0, 1)), max_size=60))
def test_what_holds_for_all_onsets(gaps):
    tracker = BeatTracker()
    time_s = 0.0
    for gap_s, strength in gaps:
        time_s += gap_s
        tracker.advance([(time_s, strength)], until_s=time_s + 0.01)
        pulse = tracker.pulse()
        if pulse is not None:
            assert 0 <= pulse.confidence <= 1
            assert SHORTEST_BEAT_S * 0.99 <= pulse.period_s <= LONGEST_BEAT_S * 1.01
            assert abs(pulse.beat_s - time_s) < 2 * LONGEST_BEAT_S


@given(
    st.floats(0, 1000), st.floats(-5, 5), st.floats(0.2, 2), st.floats(0, 1), st.sampled_from([1, 2, 3, 4, 8]), st.floats(0, 1)
)
def test_quantising_moves_towards_the_pulse_and_never_into_the_past(now_s, beat_s, period_s, strength, subdivision, later_s):
    pulse = Pulse(beat_s, period_s)
    moved = quantised_s(now_s + later_s, pulse, strength=strength, subdivision=subdivision, earliest_s=now_s)
    assert moved >= now_s
    assert abs(moved - now_s - later_s) <= 1.5 * period_s / subdivision + 1e-6
    if strength == 0:
        assert moved == now_s + later_s
    if strength == 1:
        assert pulse.nearest_s(moved, subdivision=subdivision) == pytest.approx(moved, abs=1e-6)


def test_midi_clock_gives_a_pulse_and_its_jitter_none():
    rng = np.random.default_rng(0)
    clock = TickClock()
    clock.start()
    pulse = None
    for number in range(24 * 8 + 1):
        pulse = clock.tick(3.0 + number * 0.5 / 24 + rng.uniform(-0.002, 0.002))
    assert pulse is not None
    assert pulse.source == "midi"
    assert pulse.period_s == pytest.approx(0.5, rel=0.005)
    assert pulse.beat_s == pytest.approx(7.0, abs=0.003)


def test_midi_clock_that_was_away_keeps_its_tempo_and_no_phase_until_it_starts():
    clock = TickClock()
    clock.start()
    for number in range(48):
        clock.tick(number * 0.02)
    assert clock.phase_known
    away = clock.tick(10.0)
    assert not clock.phase_known
    assert (away.period_s, away.confidence) == (pytest.approx(0.48), 0.3)
    for number in range(1, 12):
        pulse = clock.tick(10.0 + number * 0.03)
    assert pulse.period_s == pytest.approx(24 * 0.03, rel=0.01)
    clock.start()
    pulse = clock.tick(10.0 + 12 * 0.03)
    assert clock.phase_known
    assert (pulse.beat_s, pulse.confidence) == (pytest.approx(10.36), 1.0)


def test_a_clock_is_a_time_and_a_period():
    assert read_clock({"beat_s": 1, "period_s": 0.5}, 9.0).pulse == Pulse(1.0, 0.5, 1.0, "clock")
    assert read_clock(None, 9.0).pulse is None
    assert read_clock(120, 9.0).pulse == Pulse(9.0, 0.5, 1.0, "clock")
    for wrong in (
        5,
        {"beat_s": 1},
        {"beat_s": "1", "period_s": 0.5},
        {"beat_s": 1, "period_s": 0},
        {"beat_s": float("nan"), "period_s": 1},
    ):
        with pytest.raises(InputError):
            read_clock(wrong, 9.0)


def test_the_beats_of_a_recording_are_found(audio_dir: Path, trained):
    recording = read_recording(audio_dir / "rock140_mix.ogg")
    percepts = hear(trained, recording.samples, recording.sample_rate_hz)
    found = find_beats((p.heard for p in percepts), sample_rate_hz=RATE)
    truth = np.array(json.loads((audio_dir / "rock140.json").read_text())["beats"])
    assert mir_eval.beat.f_measure(mir_eval.beat.trim_beats(truth), mir_eval.beat.trim_beats(found["time_s"])) > 0.9
    assert np.all(np.diff(found["time_s"]) > 0)
    assert np.all((found["confidence"] >= 0) & (found["confidence"] <= 1))


def test_hours_are_read_in_blocks_that_change_nothing(monkeypatch):
    heard = [here.heard for here in clicks(*(0.2 + 0.5 * k for k in range(20)))]
    whole = find_pulse(heard, sample_rate_hz=RATE)
    for module, name in ((beats, "_BLOCK_FRAMES"), (metre, "_BLOCK_FRAMES"), (beat_level, "_BLOCK_STEPS")):
        monkeypatch.setattr(module, name, 37)
    in_blocks = find_pulse(heard, sample_rate_hz=RATE)
    assert len(whole.times_s) > 4
    assert all(np.array_equal(a, b) for a, b in zip(whole, in_blocks, strict=True))


def test_silence_and_nothing_have_no_beats(trained):
    assert not len(find_beats([], sample_rate_hz=RATE))
    percepts = hear(trained, np.zeros(10 * RATE, np.float32), RATE)
    assert not len(find_beats((p.heard for p in percepts), sample_rate_hz=RATE))
