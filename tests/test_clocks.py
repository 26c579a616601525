"""Clocks and taps that jump, stop, tremble, contradict each other, or come alone; and what of them reaches the partner."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musichal.errors import InputError
from musichal.live.control import Command, CommandQueue, command, key_command, read_cc_map
from musichal.live.input.controllers import CONTINUE, POSITION, START, STOP, TICK, MidiClock, midi_commands
from musichal.partner.clocks import ClockKeeper, TapTempo, TickClock, read_tap
from musichal.partner.settings import PartnerSettings
from musichal.pulse import Pulse
from stage_by_hand import hand_stage


def off_s(pulse: Pulse, beat_s: float) -> float:
    """Return how far a time lies from the next beat."""
    return abs(math.remainder(pulse.beat_s - beat_s, pulse.period_s))


def run(clock: TickClock, first_s: float, period_s: float, ticks: int, *, lost=(), jitter_s=0.0, seed=0) -> Pulse | None:
    rng, pulse = np.random.default_rng(seed), None
    for k in range(ticks):
        if k not in lost:
            pulse = clock.tick(first_s + k * period_s / 24 + rng.uniform(0, jitter_s))
    return pulse


# ── MIDI clock ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize("bpm", [6, 20, 60, 120, 300, 600])
@pytest.mark.parametrize("jitter_s", [0.0, 0.005])
def test_any_tempo_is_followed_though_its_ticks_tremble(bpm, jitter_s):
    clock = TickClock()
    clock.start()
    pulse = run(clock, 3.0, 60 / bpm, 24 * 5, jitter_s=jitter_s)
    assert pulse.tempo_bpm == pytest.approx(bpm, rel=0.03)
    assert off_s(pulse, 3.0) < 0.002 + jitter_s
    assert clock.phase_known


@pytest.mark.parametrize("lost", [{50}, {50, 51, 52}, {30, 55, 80}, set(range(60, 68))])
@pytest.mark.parametrize("jitter_s", [0.0, 0.002])
def test_ticks_that_are_lost_do_not_move_the_beat(lost, jitter_s):
    clock = TickClock()
    clock.start()
    pulse = run(clock, 3.0, 0.5, 24 * 6, lost=lost, jitter_s=jitter_s)
    assert clock.phase_known
    assert pulse.period_s == pytest.approx(0.5, rel=0.01)
    assert off_s(pulse, 3.0) < 0.004


def test_ticks_that_come_late_in_a_burst_are_not_taken_for_lost():
    clock = TickClock()
    clock.start()
    times = [3.0 + k / 48 for k in range(24 * 6)]
    times[60:70] = [times[70] - 0.002 + 0.0002 * k for k in range(10)]
    for time_s in times:
        pulse = clock.tick(time_s)
    assert off_s(pulse, 3.0) < 0.004


@pytest.mark.parametrize(("before", "after"), [(120, 60), (120, 180), (60, 240), (120, 126)])
def test_a_tempo_that_jumps_is_followed_within_a_beat_and_its_phase_holds(before, after):
    clock = TickClock()
    clock.start()
    run(clock, 0.0, 60 / before, 24 * 4)
    at_s = 4 * 60 / before
    pulse = run(clock, at_s, 60 / after, 25)
    assert pulse.tempo_bpm == pytest.approx(after, rel=0.03)
    pulse = run(clock, at_s + 25 / 24 * 60 / after, 60 / after, 48)
    assert off_s(pulse, at_s) < 0.01


def test_after_a_stretch_without_ticks_the_tempo_holds_and_the_phase_is_not_known():
    clock = TickClock()
    clock.start()
    assert run(clock, 0.0, 0.5, 48).confidence == 1
    pulse = clock.tick(5.13)
    assert not clock.phase_known
    assert pulse.period_s == pytest.approx(0.5)
    assert pulse.confidence < 0.5
    clock.locate(0)
    clock.start()
    assert off_s(clock.tick(5.2), 5.2) < 1e-9


@given(st.lists(st.floats(-0.1, 3.0), max_size=120), st.integers(0, 20))
def test_ticks_at_any_times_give_a_pulse_that_can_be_or_none(gaps, started):
    clock, now_s = TickClock(), 0.0
    for number, gap_s in enumerate(gaps):
        now_s += gap_s
        if number == started:
            clock.start()
        pulse = clock.tick(now_s)
        assert pulse is None or 0 < pulse.confidence <= 1


def midi(*messages: tuple[float, object]) -> list:
    told = []
    clock = MidiClock(lambda moment_s: moment_s, told.append)
    for moment_s, message in messages:
        clock.take(message, moment_s)
    return told


def test_continue_goes_on_at_the_song_position():
    first = [(0.0, START), *((k / 48, TICK) for k in range(55)), (1.15, STOP)]  # stopped 7 ticks into the third beat
    again = [(3.0, CONTINUE), *((3.0 + k / 48, TICK) for k in range(60))]
    pulse = midi(*first, *again)[-1]
    assert abs(math.remainder(pulse["beat_s"] - (3.0 - 7 / 48), 0.5)) < 1e-6
    moved = [(2.0, (POSITION, 2, 0)), *again]  # to the off-beat
    pulse = midi(*first, *moved)[-1]
    assert abs(math.remainder(pulse["beat_s"] - (3.0 - 12 / 48), 0.5)) < 1e-6
    assert "phase_known" not in pulse


def test_a_clock_that_is_joined_in_the_middle_has_a_tempo_and_no_phase():
    assert midi(*((k / 48, TICK) for k in range(30)))[-1]["phase_known"] is False


def test_a_clock_that_trembles_is_no_flood():
    rng = np.random.default_rng(0)
    told = midi((0.0, START), *((k / 48 + rng.uniform(0, 0.005), TICK) for k in range(48 * 20)))
    assert 3 < len(told) < 50


# ── taps ─────────────────────────────────────────────────────────────────────


def tapped(*times_s: float) -> TapTempo:
    taps = TapTempo()
    for time_s in times_s:
        taps.tap(time_s)
    return taps


def test_one_tap_is_no_tempo_and_each_further_one_makes_it_surer():
    assert tapped(1.0).pulse() is None
    pulses = [tapped(*[1 + 0.6 * k for k in range(n)]).pulse() for n in (2, 3, 4, 8)]
    assert [pulse.period_s for pulse in pulses] == [pytest.approx(0.6)] * 4
    assert [pulse.source for pulse in pulses] == ["tap"] * 4
    sure = [pulse.confidence for pulse in pulses]
    assert sure == sorted(sure)
    assert sure[0] < 0.65
    assert sure[-1] > 0.95


def test_a_hand_that_trembles_gives_a_straight_line():
    rng = np.random.default_rng(1)
    pulse = tapped(*(2 + 0.5 * np.arange(8) + rng.normal(0, 0.015, 8))).pulse()
    assert pulse.period_s == pytest.approx(0.5, rel=0.03)
    assert off_s(pulse, 2.0 + 7 * 0.5) < 0.02


def test_a_tap_that_slipped_or_was_left_out_or_bounced_does_not_count():
    assert tapped(1.0, 1.5, 2.0, 2.62, 3.0, 3.5).pulse().period_s == pytest.approx(0.5, rel=0.01)
    assert tapped(1.0, 1.5, 2.0, 3.0, 3.5).pulse().period_s == pytest.approx(0.5, rel=0.01)
    taps = tapped(1.0, 1.5, 2.0)
    assert not taps.tap(2.03)
    assert taps.count == 3


@pytest.mark.parametrize("factor", [0.5, 0.7, 1.4])
def test_two_taps_of_another_tempo_begin_it(factor):
    later = 3.0 + 0.5 * factor * np.arange(1, 4)
    assert tapped(1.0, 1.5, 2.0, 2.5, 3.0, *later).pulse().period_s == pytest.approx(0.5 * factor, rel=0.02)


def test_after_a_pause_taps_begin_anew():
    taps = tapped(1.0, 1.5, 2.0, 3.5)
    assert (taps.count, taps.pulse()) == (1, None)
    assert tapped(1.0, 4.1).pulse() is None
    assert tapped(1.0, 3.9).pulse().period_s == pytest.approx(2.9)


@given(st.lists(st.floats(-1, 4), max_size=40))
def test_taps_at_any_times_give_a_pulse_that_can_be_or_none(gaps):
    taps, now_s = TapTempo(), 0.0
    for gap_s in gaps:
        now_s += gap_s
        taps.tap(now_s)
        pulse = taps.pulse()
        assert pulse is None or (0.3 <= pulse.confidence <= 1 and math.isfinite(pulse.beat_s))


# ── who leads ────────────────────────────────────────────────────────────────


def clock(source: str, beat_s: float, period_s: float, **more) -> dict:
    return {"clock": {"beat_s": beat_s, "period_s": period_s, "source": source, **more}}


def test_of_two_clocks_the_first_leads_until_it_stops_and_a_contradiction_is_told_once():
    keeper = ClockKeeper()
    assert keeper.change(clock("midi", 0.0, 0.5), 0.0) == ""
    said = [keeper.change(clock("link", 0.1, 0.6), t) for t in (1.0, 2.0, 3.0)]
    assert said == ["Link (100.0 beats per minute) contradicts MIDI clock (120.0 beats per minute), which came first and leads"
                    " until it stops", "", ""]  # fmt: skip
    wavering = [keeper.change(clock("link", 0.1, 0.5 + 0.1 * (k % 2)), 3 + 0.01 * k) for k in range(50)]
    assert not any(wavering)
    assert keeper.at(3.5).source == "midi"
    assert keeper.change({"clock": {"source": "midi"}}, 4.0) == "MIDI clock has stopped"
    assert keeper.change({"clock": {"source": "midi"}}, 4.0) == "", "it was told"
    assert keeper.at(4.0).source == "link"
    assert keeper.change(clock("midi", 0.0, 0.5), 5.0).startswith("MIDI clock (120.0")
    assert keeper.at(5.0).source == "link"
    assert keeper.at(13.5).source == "midi", "ten seconds without news are a clock that is lost"
    assert keeper.at(30.0) is None


def test_clocks_that_agree_are_no_contradiction():
    keeper = ClockKeeper()
    keeper.change(clock("midi", 0.0, 0.5), 0.0)
    assert keeper.change(clock("link", 2.51, 0.502), 2.6) == ""
    keeper.change({"clock": None}, 3.0)
    assert keeper.at(3.0) is None


def test_taps_lead_for_eight_beats_and_then_the_clock_again():
    keeper = ClockKeeper()
    keeper.change(clock("midi", 0.0, 0.5), 0.0)
    said = [keeper.change({"tap": {"at_s": t}}, t + 0.02) for t in (1.1, 1.7, 2.3, 2.9)]
    assert said[0] == "tap: the beat moves by +100 ms"
    assert "against MIDI clock (120.0 beats per minute), for 8 beats" in said[1]
    assert said[2] == "tap: 100.0 beats per minute"
    assert keeper.at(7.6).period_s == pytest.approx(0.6)
    keeper.change(clock("midi", 0.0, 0.5), 7.7)
    assert keeper.at(7.8).source == "midi"


def test_without_a_clock_taps_fade_into_what_is_heard():
    keeper = ClockKeeper()
    for t in (1.0, 1.5, 2.0, 2.5):
        keeper.change({"tap": {"at_s": t}}, t)
    sure = [0.0 if pulse is None else pulse.confidence for pulse in map(keeper.at, (3.0, 6.4, 8.0, 12.0, 15.0))]
    assert sure[0] == sure[1] > sure[2] > sure[3] > sure[4] == 0


def test_one_tap_moves_a_beat_that_is_there_and_does_nothing_where_none_is():
    keeper = ClockKeeper()
    assert "tap again" in keeper.change({"tap": True}, 1.0)
    assert keeper.at(1.0) is None
    keeper = ClockKeeper()
    heard = Pulse(0.0, 0.5, 0.7)
    assert keeper.change({"tap": {"at_s": 3.05}}, 3.1, heard=heard) == "tap: the beat moves by +50 ms"
    assert keeper.at(3.1, heard=heard) == Pulse(3.05, 0.5, 0.7, "tap")


def test_a_clock_without_a_phase_takes_that_of_the_heard_beat():
    keeper = ClockKeeper()
    keeper.change(clock("midi", 0.0, 0.5, phase_known=False), 0.0)
    assert keeper.at(1.0).confidence < 0.4
    pulse = keeper.at(1.0, heard=Pulse(0.2, 0.51, 0.8))
    assert (pulse.period_s, pulse.confidence, off_s(pulse, 0.2) < 0.01) == (0.5, 0.8, True)
    assert keeper.at(1.0, heard=Pulse(0.2, 0.37, 0.8)).confidence < 0.4


WRONG_CLOCKS = [5, 601, "120", True, {}, {"beat_s": 1.0}, {"source": "radio"}, {"source": []}, {"beat_s": 1, "period_s": 0.01},
                {"beat_s": math.nan, "period_s": 0.5}, {"beat_s": 1, "period_s": 0.5, "phase_known": 1}]  # fmt: skip


@pytest.mark.parametrize(
    "changes", [{"clock": c} for c in WRONG_CLOCKS] + [{"tap": t} for t in (1, "x", {"at_s": math.inf}, {})]
)
def test_what_is_no_clock_or_tap_is_refused_and_nothing_changes(changes):
    keeper = ClockKeeper()
    keeper.change(clock("midi", 0.0, 0.5), 0.0)
    with pytest.raises(InputError):
        keeper.change(changes, 1.0)
    assert keeper.at(1.0).source == "midi"
    assert read_tap(False, 1.0) is None


# ── from the hand to the partner ─────────────────────────────────────────────


def test_taps_come_by_key_osc_controller_and_note_and_a_button_let_go_is_none(tmp_path):
    path = tmp_path / "map.toml"
    path.write_text('[[cc]]\ncontroller = 64\ncommand = "tap"\n[[note]]\nnote = 36\ncommand = "tap"\nchannel = 10\n')
    box = CommandQueue(pace_s=0.0, now_s=iter(range(100)).__next__)
    take = midi_commands(read_cc_map(path), box.put, None)
    for message in ((0xB0, 64, 127), (0xB0, 64, 0), (0x99, 36, 90), (0x99, 36, 0), (0x89, 36, 0), (0x90, 36, 90), (0xF8,)):
        take(message)
    box.put(key_command("t", ()))
    box.put(command("tap", (1,)))
    box.put(command("tap", (0,)))
    taken = box.take(0.0)
    assert [(c.name, c.value) for c in taken] == [("tap", True)] * 4
    assert [c.moment_s for c in taken] == [0, 1, 2, 3], "none of them is merged with another"
    path.write_text('[[note]]\nnote = 36\ncommand = "temperature"\n')
    with pytest.raises(InputError, match="a note is a button"):
        read_cc_map(path)


def test_a_tap_is_in_the_stream_when_it_came_and_not_when_it_was_taken(trained):
    said, changed = [], []

    class Kept:
        def __getattr__(self, name):
            return lambda *a: said.append(a[2]) if name == "event" and a[1] == "clock" else changed.append(a)

    box = CommandQueue(pace_s=0.0)
    stage = hand_stage(trained, rate_hz=48_000, settings=PartnerSettings(), commands=box, observer=Kept())
    for number in range(100):
        stage.send(np.zeros(480, dtype=np.float32))
        if number in (20, 70):
            box.put(Command("tap", True, moment_s=stage.clock.now + 0.0034))
    taps = [entry[0].changes["tap"]["at_s"] for entry in changed if entry and hasattr(entry[0], "changes")]
    assert taps == [pytest.approx(0.2134, abs=1e-4), pytest.approx(0.7134, abs=1e-4)]
    assert said == ["tap: one tap gives no tempo where there is no pulse; tap again", "tap: 120.0 beats per minute"]
