"""The scheduler's pure core: every note ends once, on the channel on which it began, whatever is asked in whatever order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musichal.errors import InputError
from musichal.live.output.note_scheduler import AGAIN_S, SILENCE, NoteScheduler, bend, mpe_configuration
from musichal.live.output.ports import Port, PortLostError
from musichal.live.output.scheduler_process import RETRY_S, ReconnectingPort
from musichal.live.output.scheduler_protocol import MpeZone, Outgoing
from musichal.note import Note


class Receiver:
    """A synthesiser: it knows one note per channel and pitch, and minds what does not fit."""

    def __init__(self) -> None:
        self.sounding: set[tuple[int, int]] = set()
        self.struck = self.ended = 0

    def take(self, messages: list[Outgoing]) -> None:
        for message in messages:
            if message.is_on:
                assert message.key not in self.sounding, "struck while it sounds"
                self.sounding.add(message.key)
                self.struck += 1
            elif message.again:
                assert message.key not in self.sounding, "an end told again must end nothing new"
            elif message.is_off:
                assert message.key in self.sounding, "ended but not struck"
                self.sounding.remove(message.key)
                self.ended += 1


def note(due_s: float, duration_s: float = 1.0, pitch: int = 60, *, channel: int = 0) -> Note:
    return Note(max(0.0, due_s), duration_s, pitch, 90, channel)


def data(messages: list[Outgoing]) -> list[bytes]:
    return [message.data for message in messages]


ON, OFF = bytes((0x90, 60, 90)), bytes((0x80, 60, 0))


def test_a_note_is_struck_at_its_moment_and_ended_at_its_end() -> None:
    scheduler = NoteScheduler()
    scheduler.play(note(1.0, 0.5), 0.0, tag=7)
    assert scheduler.next_s == 1.0
    assert scheduler.step(0.999) == []
    assert scheduler.step(1.0) == [Outgoing(ON, 1.0, 1.0, 7)]
    assert scheduler.next_s == 1.5
    assert scheduler.step(1.5) == [Outgoing(OFF, 1.5, 1.5, 7)]
    assert scheduler.next_s is None
    assert (scheduler.counts.struck, scheduler.counts.ended) == (1, 1)


def test_latency_sends_earlier_and_what_cannot_be_goes_at_once_and_is_counted() -> None:
    scheduler = NoteScheduler(latency_s=0.1)
    scheduler.play(note(1.0), 0.0)
    scheduler.play(note(1.0, pitch=62), 0.95)
    assert scheduler.next_s == pytest.approx(0.9)
    on_time, behind = scheduler.step(0.95)
    assert (on_time.target_s, on_time.ready_s) == (pytest.approx(0.9), pytest.approx(0.9))
    assert (behind.target_s, behind.ready_s) == (pytest.approx(0.9), 0.95)
    assert scheduler.counts.behind == 1


def test_a_lead_hands_messages_over_early_with_the_moments_they_are_meant_for() -> None:
    scheduler = NoteScheduler(lead_s=0.02)
    scheduler.play(note(1.0, 0.01), 0.0)
    assert scheduler.next_s == pytest.approx(0.98)
    assert [(m.data, m.target_s) for m in scheduler.step(0.995)] == [(ON, 1.0), (OFF, 1.01)]


def test_at_one_moment_ends_come_first() -> None:
    scheduler = NoteScheduler()
    scheduler.play(note(1.0, 1.0, 62), 0.0)
    scheduler.play(note(0.0, 1.0, 60), 0.0)
    scheduler.step(0.0)
    assert data(scheduler.step(1.0)) == [OFF, bytes((0x90, 62, 90))]


def test_a_key_struck_again_is_released_first_and_two_strikes_at_once_are_one() -> None:
    scheduler = NoteScheduler()
    for one in (note(0.0, 2.0), note(1.0, 0.25), note(1.0, 0.5)):
        scheduler.play(one, 0.0)
    assert data(scheduler.step(0.0)) == [ON]
    assert data(scheduler.step(1.2)) == [OFF, ON]
    assert data(scheduler.step(1.25)) == []
    assert data(scheduler.step(1.5)) == [OFF]
    assert scheduler.counts.merged == 1


def test_after_a_jump_of_the_clock_overdue_notes_are_dropped_and_ends_are_sent_at_once() -> None:
    scheduler = NoteScheduler()
    scheduler.play(note(0.0, 1.0), 0.0)
    assert data(scheduler.step(0.0)) == [ON]
    for k in range(50):
        scheduler.play(note(2.0 + k, 0.5, 62), 0.0)
    assert data(scheduler.step(3600.0)) == [OFF]
    assert scheduler.counts.late == 50
    scheduler.play(note(3600.1), 3600.0)
    assert data(scheduler.step(3600.1)) == [ON]


def test_a_note_struck_late_but_in_time_keeps_its_end_and_some_length() -> None:
    scheduler = NoteScheduler()
    scheduler.play(note(1.0, 1.0), 0.0)
    scheduler.play(note(1.0, 0.02, 62), 0.0)
    scheduler.step(1.2)
    assert scheduler.next_s == pytest.approx(1.21)
    assert data(scheduler.step(1.21)) == [bytes((0x80, 62, 0))]
    assert scheduler.next_s == 2.0


def test_mute_ends_what_sounds_and_swallows_what_is_due_until_it_is_lifted() -> None:
    scheduler = NoteScheduler()
    for k in range(3):
        scheduler.play(note(float(k), 0.5), 0.0)
    scheduler.step(0.0)
    assert data(scheduler.mute(True, 0.1)) == [OFF]
    assert [message.again for message in scheduler.step(1.0)] == [True]
    assert scheduler.mute(False, 1.1) == []
    assert data(scheduler.step(2.0)) == [ON]
    assert scheduler.counts.muted == 1


def test_panic_ends_everything_and_tells_every_channel_to_be_silent() -> None:
    scheduler = NoteScheduler()
    scheduler.play(note(0.0, 9.0), 0.0)
    scheduler.play(note(1.0), 0.0)
    scheduler.step(0.0)
    assert data(scheduler.panic(0.5)) == [OFF, *SILENCE]
    assert {message[0] & 0x0F for message in SILENCE} == set(range(16))
    assert {message[1] for message in SILENCE} == {64, 120, 123}
    assert scheduler.next_s == 0.5 + AGAIN_S


@pytest.mark.parametrize("end", ["panic", "go_silent", "mute"])
def test_when_everything_was_ended_the_ends_are_told_again_but_not_of_what_was_struck_since(end: str) -> None:
    scheduler = NoteScheduler()
    for pitch in (60, 61):
        scheduler.play(note(0.0, 9.0, pitch), 0.0)
    scheduler.step(0.0)
    assert data(
        {"panic": scheduler.panic, "go_silent": scheduler.go_silent, "mute": lambda s: scheduler.mute(True, s)}[end](1.0)
    )
    scheduler.mute(False, 1.0)
    scheduler.play(note(1.05, 1.0, 61), 1.0)
    scheduler.step(1.05)
    assert scheduler.step(1.0 + AGAIN_S) == [Outgoing(OFF, 1.0 + AGAIN_S, 1.0 + AGAIN_S, again=True)]
    assert data(scheduler.step(3.0)) == [bytes((0x80, 61, 0))]
    assert scheduler.next_s is None
    assert (scheduler.counts.struck, scheduler.counts.ended) == (3, 3)


def test_what_it_holds_is_bounded() -> None:
    scheduler = NoteScheduler(capacity=100)
    kept = [scheduler.play(note(1.0 + k), 0.0) for k in range(1000)]
    assert kept == [True] * 100 + [False] * 900
    assert scheduler.counts.refused == 900
    scheduler.panic(0.0)
    assert scheduler.counts.cancelled == 100


ACTIONS = st.one_of(
    st.tuples(
        st.just("play"),
        st.floats(-1, 3),
        st.floats(0.001, 2),
        st.integers(58, 63),
        st.integers(0, 2),
    ),
    st.tuples(st.just("panic")),
    st.tuples(st.just("go_silent")),
    st.tuples(st.just("mute"), st.booleans()),
    st.tuples(st.just("wait"), st.one_of(st.floats(0, 0.1), st.floats(0, 2), st.just(3600.0))),
)
ZONES = st.one_of(st.none(), st.builds(MpeZone, members=st.integers(1, 15)))


@given(st.lists(ACTIONS, max_size=80), ZONES, st.sampled_from([0.0, 0.05]), st.sampled_from([0.0, 0.02]))
def test_every_note_ends_once_under_any_interleaving(actions, zone, latency_s, lead_s) -> None:
    scheduler = NoteScheduler(zone=zone, latency_s=latency_s, lead_s=lead_s, capacity=20)
    receiver, now_s = Receiver(), 0.0
    moments: list[float] = []
    asked = 0

    def take(messages: list[Outgoing]) -> None:
        receiver.take(messages)
        moments.extend(max(message.target_s, now_s) for message in messages)
        assert scheduler.sounding == receiver.sounding

    for name, *values in actions:
        if name == "play":
            after_s, duration_s, pitch, channel = values
            asked += 1
            scheduler.play(note(now_s + after_s, duration_s, pitch, channel=channel), now_s)
        elif name == "panic":
            take(scheduler.panic(now_s))
            assert not receiver.sounding
        elif name == "go_silent":
            take(scheduler.go_silent(now_s))
            assert not receiver.sounding
        elif name == "mute":
            take(scheduler.mute(values[0], now_s))
            assert not (values[0] and receiver.sounding)
        else:
            now_s += values[0]
        take(scheduler.step(now_s))
        following_s = scheduler.next_s
        assert following_s is None or following_s > now_s, "nothing that is due is left"
    now_s += 10.0
    take(scheduler.step(now_s))
    take(scheduler.step(now_s + 10.0))
    assert not receiver.sounding
    counts = scheduler.counts
    assert (counts.struck, counts.ended) == (receiver.struck, receiver.ended)
    refused = sum((counts.refused, counts.late, counts.muted, counts.cancelled, counts.silent, counts.merged))
    assert counts.struck + refused >= asked
    assert moments == sorted(moments) or lead_s > 0


@given(
    st.integers(1, 15),
    st.lists(st.tuples(st.floats(0, 5), st.floats(0.01, 2), st.integers(40, 50), st.floats(-2, 2)), max_size=60),
)
def test_each_mpe_note_has_a_channel_of_its_own_the_longest_released_and_its_bend_before_it(members, notes) -> None:
    zone = MpeZone(members=members)
    scheduler = NoteScheduler(zone=zone, late_limit_s=10.0)
    for due_s, duration_s, pitch, semitones in notes:
        scheduler.play(Note(due_s, duration_s, pitch, 90), 0.0, bend_semitones=semitones)
    sounding: dict[int, int] = {}
    released = list(zone.channels)
    before = b""
    for k in range(1000):
        for message in scheduler.step(k * 0.01):
            channel, pitch = message.key
            if message.is_on:
                assert channel not in sounding, "two notes on one channel"
                assert channel == released.pop(0), "not the channel that was released longest ago"
                assert before[0] == 0xE0 | channel, "no bend before the note"
                sounding[channel] = pitch
            elif message.is_off:
                assert sounding.pop(channel) == pitch, "ended on another channel"
                released.append(channel)
            assert channel in zone.channels, "a note on the master channel"
            before = message.data
    assert not sounding
    if scheduler.counts.stolen == 0:
        assert scheduler.counts.struck == len(notes)


def test_where_mpe_has_no_channel_left_the_oldest_note_gives_way() -> None:
    scheduler = NoteScheduler(zone=MpeZone(members=2))
    for k in range(3):
        scheduler.play(note(float(k), 10.0, 60 + k), 0.0)
    scheduler.step(0.0)
    scheduler.step(1.0)
    assert data(scheduler.step(2.0)) == [bytes((0x81, 60, 0)), bytes((0xE1, 0, 64)), bytes((0x91, 62, 90))]
    assert scheduler.counts.stolen == 1


def test_mpe_configuration_and_bend_by_the_numbers_of_the_specification() -> None:
    zone = MpeZone(members=2, bend_semitones=48)
    messages = [message.hex(" ") for message in mpe_configuration(zone)]
    assert messages[:6] == ["b0 65 00", "b0 64 06", "b0 06 02", "b0 26 00", "b0 65 7f", "b0 64 7f"]
    assert messages[6:15] == [
        *("b1 65 00", "b1 64 00", "b1 06 30", "b1 26 00", "b1 65 7f", "b1 64 7f"),
        *("e1 00 40", "d1 00", "b1 4a 40"),
    ]
    assert [message[:2] for message in messages[15:]] == ["b2"] * 6 + ["e2", "d2", "b2"]
    assert bend(0, zone, 1) == bytes((0xE1, 0, 64))
    assert bend(-48, zone, 1) == bytes((0xE1, 0, 0))
    assert bend(48, zone, 1) == bytes((0xE1, 127, 127))
    assert bend(96, zone, 1) == bytes((0xE1, 127, 127))
    assert bend(0.5, zone, 2) == bytes((0xE2, (8192 + 85) & 0x7F, (8192 + 85) >> 7))


# A port that vanishes and comes back: no note is left in what it leads to. With real ports: test_scheduler_jack.py.

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


class Cable(Port):
    name = "cable"

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


def note_on(pitch: int) -> Outgoing:
    return Outgoing(bytes((0x90, pitch, 90)), 0.0, 0.0)


def note_off(pitch: int) -> Outgoing:
    return Outgoing(bytes((0x80, pitch, 0)), 0.0, 0.0)


def test_what_is_held_when_a_port_vanishes_is_ended_when_it_is_back() -> None:
    instrument = Instrument()
    port = ReconnectingPort(instrument.open(), reopen=instrument.open, setup=(PROGRAM,))
    port.set_up(0.0)
    assert port.send(note_on(60), 0.0) and port.send(note_on(61), 0.0) and port.send(note_off(61), 0.0)
    instrument.there = False
    with pytest.raises(PortLostError, match="unplugged"):
        port.send(note_on(62), 1.0)
    assert port.send(note_off(60), 1.1) is False
    assert port.send(note_on(63), 1.2) is False
    assert port.unsent == 3
    assert port.check(1.0 + RETRY_S) is None
    instrument.there = True
    assert port.check(1.5 + RETRY_S) is None, "not yet again"
    assert port.check(1.0 + 2 * RETRY_S) == ("port-back", "cable is back")
    assert instrument.messages[-2:] == [PROGRAM, bytes((0x80, 60, 0))]
    assert not instrument.sounding
    assert port.held == frozenset()


def test_a_port_that_vanishes_while_nothing_is_sent_is_noticed_when_it_is_looked_after() -> None:
    instrument = Instrument()
    port = ReconnectingPort(instrument.open(), reopen=instrument.open)
    assert port.check(0.0) is None
    instrument.there = False
    assert port.check(1.0) == ("port-lost", "unplugged")


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
    instrument, scheduler, now_s = Instrument(), NoteScheduler(), 0.0
    port = ReconnectingPort(instrument.open(), reopen=instrument.open)

    def send(messages: list[Outgoing]) -> None:
        for message in messages:
            try:
                port.send(message, now_s)
            except PortLostError:
                assert not instrument.there

    for what, *values in steps:
        if what == "play":
            scheduler.play(Note(now_s + values[0], values[1], values[2], 90), now_s)
        elif what == "there":
            instrument.there = values[0]
        elif what == "panic":
            send(scheduler.panic(now_s))
        else:
            now_s += values[0]
        send(scheduler.step(now_s))
        port.check(now_s)
    instrument.there = True
    for _ in range(8):
        now_s += RETRY_S
        send(scheduler.step(now_s))
        port.check(now_s)
    assert not instrument.sounding
    assert not port.held
