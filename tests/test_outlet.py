"""A port that vanishes and comes back: no note is left in what it leads to. With real ports: test_scheduler_jack.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musichal.errors import InputError
from musichal.live.output.messages import Note, Outgoing
from musichal.live.output.note_scheduler import NoteScheduler
from musichal.live.output.ports.protocol import PortLostError
from musichal.live.output.reconnecting_port import RETRY_S, ReconnectingPort

PROGRAM = bytes((0xC0, 5))


class Instrument:
    """What a port leads to: it keeps its notes while the port is away."""

    def __init__(self) -> None:
        self.sounding: set[tuple[int, int]] = set()
        self.messages: list[bytes] = []
        self.there = True
        self.opened = 0

    def open(self) -> "Cable":
        if not self.there:
            raise InputError("it is not there")
        self.opened += 1
        return Cable(self)


class Cable:
    name, lead_s = "cable", 0.0

    def __init__(self, instrument: Instrument) -> None:
        self._instrument = instrument
        self._closed = False

    def send(self, message: Outgoing) -> None:
        assert not self._closed
        if not self._instrument.there:
            raise PortLostError("unplugged")
        self._instrument.messages.append(message.data)
        if message.is_on:
            self._instrument.sounding.add(message.key)
        elif message.is_off:
            self._instrument.sounding.discard(message.key)

    def check(self) -> str | None:
        if not self._instrument.there:
            raise PortLostError("unplugged")
        return None

    def close(self, *, flush: bool = True) -> None:
        self._closed = True


def on(pitch: int) -> Outgoing:
    return Outgoing(bytes((0x90, pitch, 90)), 0.0, 0.0)


def off(pitch: int) -> Outgoing:
    return Outgoing(bytes((0x80, pitch, 0)), 0.0, 0.0)


def test_what_is_held_when_a_port_vanishes_is_ended_when_it_is_back() -> None:
    instrument = Instrument()
    outlet = ReconnectingPort(instrument.open(), reopen=instrument.open, setup=(PROGRAM,))
    outlet.set_up(0.0)
    assert outlet.send(on(60), 0.0) and outlet.send(on(61), 0.0) and outlet.send(off(61), 0.0)
    instrument.there = False
    with pytest.raises(PortLostError, match="unplugged"):
        outlet.send(on(62), 1.0)
    assert not outlet.is_open
    assert outlet.send(off(60), 1.1) is False
    assert outlet.send(on(63), 1.2) is False
    assert outlet.unsent == 3
    assert outlet.tend(1.0 + RETRY_S) is None
    instrument.there = True
    assert outlet.tend(1.5 + RETRY_S) is None, "not yet again"
    assert outlet.tend(1.0 + 2 * RETRY_S) == ("port-back", "cable is back")
    assert instrument.messages[-2:] == [PROGRAM, bytes((0x80, 60, 0))]
    assert not instrument.sounding
    assert outlet.held == frozenset()


def test_a_port_that_vanishes_while_nothing_is_sent_is_noticed_when_it_is_looked_after() -> None:
    instrument = Instrument()
    outlet = ReconnectingPort(instrument.open(), reopen=instrument.open)
    assert outlet.tend(0.0) is None
    instrument.there = False
    assert outlet.tend(1.0) == ("port-lost", "unplugged")


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("play"), st.floats(0, 2), st.floats(0.01, 2), st.integers(60, 63)),
        st.tuples(st.just("there"), st.booleans()),
        st.tuples(st.just("panic")),
        st.tuples(st.just("wait"), st.floats(0, 1.5)),
    ),
    max_size=60,
)


@given(STEPS)
def test_whenever_it_vanishes_nothing_is_left_sounding_in_the_end(steps) -> None:
    instrument, timeline, now_s = Instrument(), NoteScheduler(), 0.0
    outlet = ReconnectingPort(instrument.open(), reopen=instrument.open)

    def send(messages: list[Outgoing]) -> None:
        for message in messages:
            try:
                outlet.send(message, now_s)
            except PortLostError:
                assert not instrument.there

    for what, *values in steps:
        if what == "play":
            timeline.play(Note(now_s + values[0], values[1], "", values[2], 90), now_s)
        elif what == "there":
            instrument.there = values[0]
        elif what == "panic":
            send(timeline.panic(now_s))
        else:
            now_s += values[0]
        send(timeline.step(now_s))
        outlet.tend(now_s)
    instrument.there = True
    for _ in range(8):
        now_s += RETRY_S
        send(timeline.step(now_s))
        outlet.tend(now_s)
    assert not instrument.sounding
    assert not outlet.held
