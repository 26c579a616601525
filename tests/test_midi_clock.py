"""MIDI clock: bytes become beats in the time of the stream, and reach the partner through a real port."""

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midi_receiver import MidiSender
from musichal.hearing.front_end import input_latency_s
from musichal.live.control import Command, CommandQueue
from musichal.live.input.controllers import CONTINUE, START, STOP, TICK, MidiClock
from musichal.partner.clocks import read_clock
from musichal.partner.settings import PartnerSettings
from stage_by_hand import hand_stage


def ticks(clock: MidiClock, first_s: float, period_s: float, number: int) -> None:
    for k in range(number):
        clock.take(TICK, first_s + k * period_s / 24)


def test_a_clock_is_told_once_where_it_is_steady_and_again_where_it_is_not():
    told = []
    clock = MidiClock(lambda moment_s: moment_s - 100, told.append)
    clock.take(START, 109.9)
    ticks(clock, 110.0, 0.5, 48)
    assert len(told) == 1
    assert told[0]["period_s"] == pytest.approx(0.5)
    assert math.remainder(told[0]["beat_s"] - 10.0, 0.5) == pytest.approx(0, abs=1e-6)
    ticks(clock, 111.0, 0.5, 24 * 10)
    assert len(told) == 2, "so that the partner knows that it is still there"
    ticks(clock, 116.0, 0.4, 24 * 4)
    assert told[-1]["period_s"] == pytest.approx(0.4, rel=0.01)
    clock.take(STOP, 118.0)
    clock.take(STOP, 118.0)
    assert told[-1] is None
    assert told.count(None) == 1
    count = len(told)
    ticks(clock, 118.1, 0.4, 48)  # many senders go on ticking
    assert len(told) == count
    clock.take(CONTINUE, 120.0)
    ticks(clock, 120.05, 0.4, 24)
    assert math.remainder(told[-1]["beat_s"] - 20.05, 0.4) == pytest.approx(0, abs=1e-6)


@given(st.lists(st.tuples(st.integers(0, 255), st.floats(0, 0.3)), max_size=200))
def test_any_bytes_give_pulses_that_the_partner_takes(received):
    told = []
    clock = MidiClock(lambda moment_s: None if moment_s < 2 else moment_s - 2, told.append)
    now_s = 0.0
    for status, later_s in received:
        now_s += later_s
        clock.take(status, now_s)
    for value in told:
        pulse = read_clock(value, now_s).pulse
        assert pulse is None or math.isfinite(pulse.beat_s)


def test_its_beats_reach_the_partner_in_the_time_of_the_stream(trained, short_guitar):
    """A note that is sent `latency_ms` before a beat of a clock sounds at the moment of that beat."""
    capture_s, out_s = 0.006, 0.03
    stage = hand_stage(trained, rate_hz=48_000, settings=PartnerSettings(), capture_s=capture_s)
    engine = stage.engine
    latency_s = out_s + input_latency_s(trained.spec, source_rate_hz=48_000, block=256, capture_s=capture_s)
    assert engine.stream_s(0.0) is None or math.isfinite(engine.stream_s(0.0))
    for _ in range(100):
        stage.send(np.zeros(480, dtype=np.float32))
    for moment_s in (999.0, 1000.5, 1007.25):
        beat_s = engine.stream_s(moment_s)
        assert engine._moment_of(beat_s - latency_s) + out_s == pytest.approx(moment_s, abs=1e-6)
        assert stage.line.time_of(beat_s * 48_000) - capture_s == pytest.approx(moment_s, abs=1e-6), "as a sound then"


def test_a_clock_in_the_box_is_no_switch():
    box = CommandQueue(pace_s=0.0)
    box.put(Command("clock", {"beat_s": 1.0, "period_s": 0.5}))
    box.put(Command("clock", None))
    assert [c.value for c in box.take(0.0)] == [None]


@pytest.mark.live
def test_clock_arrives_from_a_real_midi_port(jack_server):
    from musichal.live.control import CcMap, CcMapping
    from musichal.live.input.controllers import midi_commands
    from musichal.live.output.midi_ports import open_midi_input

    with MidiSender("drum machine") as out:
        for _ in range(5):
            told, box, late_s, missed = [], CommandQueue(pace_s=0.0), 0.0, jack_server.xruns()
            clock = MidiClock(lambda moment_s: moment_s, told.append)
            with open_midi_input("drum machine", midi_commands(CcMap([CcMapping(20, "temperature")]), box.put, clock)):
                time.sleep(0.2)
                out.send(START)
                next_s = time.monotonic()
                for _ in range(60):
                    out.send(TICK)
                    next_s += 0.02
                    late_s = max(late_s, time.monotonic() - next_s)
                    time.sleep(max(0.0, next_s - time.monotonic()))
                out.send(0xB0, 20, 127)
                out.send(STOP)
                until = time.monotonic() + 20
                while None not in told and time.monotonic() < until:
                    time.sleep(0.02)
            # A drum machine that a busy computer stops for longer keeps no time, and a cycle that the server misses takes what
            # is in it with it; then it begins again.
            if late_s < 0.02 and (None in told or jack_server.xruns() == missed):
                break
    assert told[-1] is None
    assert told[-2]["period_s"] == pytest.approx(0.48, rel=0.1)
    assert [c.name for c in box.take(0.0)] == ["temperature"]
