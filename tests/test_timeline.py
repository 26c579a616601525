"""The scheduler's pure core: every note ends once, on the channel on which it began, whatever is asked in whatever order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musichal.live.output.messages import Control, Note, Outgoing
from musichal.live.output.mpe import MpeZone, bend, configuration
from musichal.live.output.note_scheduler import AGAIN_S, SILENCE, NoteScheduler


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


def note(due_s: float, duration_s: float = 1.0, pitch: int = 60, *, channel: int = 0, velocity: int = 90, tag: int = 0) -> Note:
    return Note(due_s, duration_s, "port", pitch, velocity, channel, tag)


def data(messages: list[Outgoing]) -> list[bytes]:
    return [message.data for message in messages]


ON, OFF = bytes((0x90, 60, 90)), bytes((0x80, 60, 0))


def test_a_note_is_struck_at_its_moment_and_ended_at_its_end() -> None:
    timeline = NoteScheduler()
    timeline.play(note(1.0, 0.5, tag=7), 0.0)
    assert timeline.next_s == 1.0
    assert timeline.step(0.999) == []
    assert timeline.step(1.0) == [Outgoing(ON, 1.0, 1.0, 7)]
    assert timeline.next_s == 1.5
    assert timeline.step(1.5) == [Outgoing(OFF, 1.5, 1.5, 7)]
    assert timeline.next_s is None
    assert (timeline.counts.struck, timeline.counts.ended) == (1, 1)


def test_latency_sends_earlier_and_what_cannot_be_goes_at_once_and_is_counted() -> None:
    timeline = NoteScheduler(latency_s=0.1)
    timeline.play(note(1.0), 0.0)
    timeline.play(note(1.0, pitch=62), 0.95)
    assert timeline.next_s == pytest.approx(0.9)
    on_time, behind = timeline.step(0.95)
    assert (on_time.target_s, on_time.ready_s) == (pytest.approx(0.9), pytest.approx(0.9))
    assert (behind.target_s, behind.ready_s) == (pytest.approx(0.9), 0.95)
    assert timeline.counts.behind == 1


def test_a_lead_hands_messages_over_early_with_the_moments_they_are_meant_for() -> None:
    timeline = NoteScheduler(lead_s=0.02)
    timeline.play(note(1.0, 0.01), 0.0)
    assert timeline.next_s == pytest.approx(0.98)
    assert [(m.data, m.target_s) for m in timeline.step(0.995)] == [(ON, 1.0), (OFF, 1.01)]


def test_at_one_moment_ends_come_first() -> None:
    timeline = NoteScheduler()
    timeline.play(note(1.0, 1.0, 62), 0.0)
    timeline.play(note(0.0, 1.0, 60), 0.0)
    timeline.step(0.0)
    assert data(timeline.step(1.0)) == [OFF, bytes((0x90, 62, 90))]


def test_a_key_struck_again_is_released_first_and_two_strikes_at_once_are_one() -> None:
    timeline = NoteScheduler()
    for one in (note(0.0, 2.0), note(1.0, 0.25), note(1.0, 0.5)):
        timeline.play(one, 0.0)
    assert data(timeline.step(0.0)) == [ON]
    assert data(timeline.step(1.2)) == [OFF, ON]
    assert data(timeline.step(1.25)) == []
    assert data(timeline.step(1.5)) == [OFF]
    assert timeline.counts.merged == 1


def test_after_a_jump_of_the_clock_overdue_notes_are_dropped_and_ends_are_sent_at_once() -> None:
    timeline = NoteScheduler()
    timeline.play(note(0.0, 1.0), 0.0)
    assert data(timeline.step(0.0)) == [ON]
    for k in range(50):
        timeline.play(note(2.0 + k, 0.5, 62), 0.0)
    timeline.play(Control(3.0, "port", bytes((0xC0, 5))), 0.0)
    assert data(timeline.step(3600.0)) == [OFF, bytes((0xC0, 5))]
    assert timeline.counts.late == 50
    timeline.play(note(3600.1), 3600.0)
    assert data(timeline.step(3600.1)) == [ON]


def test_a_note_struck_late_but_in_time_keeps_its_end_and_some_length() -> None:
    timeline = NoteScheduler()
    timeline.play(note(1.0, 1.0), 0.0)
    timeline.play(note(1.0, 0.02, 62), 0.0)
    timeline.step(1.2)
    assert timeline.next_s == pytest.approx(1.21)
    assert data(timeline.step(1.21)) == [bytes((0x80, 62, 0))]
    assert timeline.next_s == 2.0


def test_cancel_drops_what_is_scheduled_and_lets_what_sounds_end() -> None:
    timeline = NoteScheduler()
    timeline.play(note(0.0, 2.0), 0.0)
    timeline.play(note(0.5, 2.0, 62), 0.0)
    timeline.play(note(1.0, 1.0, 64), 0.0)
    timeline.step(0.1)
    timeline.cancel(1.0)
    assert data(timeline.step(5.0 - 2.6)) == [OFF]  # the note at 0.5 is by now too late
    assert timeline.counts.cancelled == 1
    assert timeline.sounding == frozenset()


def test_mute_ends_what_sounds_and_swallows_what_is_due_until_it_is_lifted() -> None:
    timeline = NoteScheduler()
    for k in range(3):
        timeline.play(note(float(k), 0.5), 0.0)
    timeline.step(0.0)
    assert data(timeline.mute(True, 0.1)) == [OFF]
    assert [message.again for message in timeline.step(1.0)] == [True]
    assert timeline.mute(False, 1.1) == []
    assert data(timeline.step(2.0)) == [ON]
    assert timeline.counts.muted == 1


def test_panic_ends_everything_and_tells_every_channel_to_be_silent() -> None:
    timeline = NoteScheduler()
    timeline.play(note(0.0, 9.0), 0.0)
    timeline.play(note(1.0), 0.0)
    timeline.step(0.0)
    assert data(timeline.panic(0.5)) == [OFF, *SILENCE]
    assert {message[0] & 0x0F for message in SILENCE} == set(range(16))
    assert {message[1] for message in SILENCE} == {64, 120, 123}
    assert timeline.next_s == 0.5 + AGAIN_S


@pytest.mark.parametrize("end", ["panic", "go_silent", "mute"])
def test_when_everything_was_ended_the_ends_are_told_again_but_not_of_what_was_struck_since(end: str) -> None:
    timeline = NoteScheduler()
    for pitch in (60, 61):
        timeline.play(note(0.0, 9.0, pitch), 0.0)
    timeline.step(0.0)
    assert data({"panic": timeline.panic, "go_silent": timeline.go_silent, "mute": lambda s: timeline.mute(True, s)}[end](1.0))
    timeline.mute(False, 1.0)
    timeline.play(note(1.05, 1.0, 61), 1.0)
    timeline.step(1.05)
    assert timeline.step(1.0 + AGAIN_S) == [Outgoing(OFF, 1.0 + AGAIN_S, 1.0 + AGAIN_S, again=True)]
    assert data(timeline.step(3.0)) == [bytes((0x80, 61, 0))]
    assert timeline.next_s is None
    assert (timeline.counts.struck, timeline.counts.ended) == (3, 3)


def test_what_it_holds_is_bounded() -> None:
    timeline = NoteScheduler(capacity=100)
    kept = [timeline.play(note(1.0 + k), 0.0) for k in range(1000)]
    assert kept == [True] * 100 + [False] * 900
    assert (timeline.pending, timeline.counts.refused) == (100, 900)


ACTIONS = st.one_of(
    st.tuples(
        st.just("play"),
        st.floats(-1, 3),
        st.floats(0.001, 2),
        st.integers(58, 63),
        st.integers(0, 2),
    ),
    st.tuples(st.just("control"), st.floats(-1, 3)),
    st.tuples(st.just("cancel"), st.floats(-1, 3)),
    st.tuples(st.just("panic")),
    st.tuples(st.just("go_silent")),
    st.tuples(st.just("mute"), st.booleans()),
    st.tuples(st.just("wait"), st.one_of(st.floats(0, 0.1), st.floats(0, 2), st.just(3600.0))),
)
ZONES = st.one_of(st.none(), st.builds(MpeZone, members=st.integers(1, 15)))


@given(st.lists(ACTIONS, max_size=80), ZONES, st.sampled_from([0.0, 0.05]), st.sampled_from([0.0, 0.02]))
def test_every_note_ends_once_under_any_interleaving(actions, zone, latency_s, lead_s) -> None:
    timeline = NoteScheduler(zone=zone, latency_s=latency_s, lead_s=lead_s, capacity=20)
    receiver, now_s = Receiver(), 0.0
    moments: list[float] = []
    asked = 0

    def take(messages: list[Outgoing]) -> None:
        receiver.take(messages)
        moments.extend(max(message.target_s, now_s) for message in messages)
        assert timeline.sounding == receiver.sounding
        assert timeline.pending <= 20

    for name, *values in actions:
        if name == "play":
            after_s, duration_s, pitch, channel = values
            asked += 1
            timeline.play(note(now_s + after_s, duration_s, pitch, channel=channel), now_s)
        elif name == "control":
            timeline.play(Control(now_s + values[0], "port", bytes((0xB0, 1, 2))), now_s)
        elif name == "cancel":
            timeline.cancel(now_s + values[0])
        elif name == "panic":
            take(timeline.panic(now_s))
            assert not receiver.sounding
        elif name == "go_silent":
            take(timeline.go_silent(now_s))
            assert not receiver.sounding
        elif name == "mute":
            take(timeline.mute(values[0], now_s))
            assert not (values[0] and receiver.sounding)
        else:
            now_s += values[0]
        take(timeline.step(now_s))
        following_s = timeline.next_s
        assert following_s is None or following_s > now_s, "nothing that is due is left"
    now_s += 10.0
    take(timeline.step(now_s))
    take(timeline.step(now_s + 10.0))
    assert not receiver.sounding
    counts = timeline.counts
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
    timeline = NoteScheduler(zone=zone, late_limit_s=10.0)
    for due_s, duration_s, pitch, semitones in notes:
        timeline.play(Note(due_s, duration_s, "port", pitch, 90, bend_semitones=semitones), 0.0)
    sounding: dict[int, int] = {}
    released = list(zone.channels)
    before = b""
    for k in range(1000):
        for message in timeline.step(k * 0.01):
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
    if timeline.counts.stolen == 0:
        assert timeline.counts.struck == len(notes)


def test_where_mpe_has_no_channel_left_the_oldest_note_gives_way() -> None:
    timeline = NoteScheduler(zone=MpeZone(members=2))
    for k in range(3):
        timeline.play(note(float(k), 10.0, 60 + k), 0.0)
    timeline.step(0.0)
    timeline.step(1.0)
    assert data(timeline.step(2.0)) == [bytes((0x81, 60, 0)), bytes((0xE1, 0, 64)), bytes((0x91, 62, 90))]
    assert timeline.counts.stolen == 1


def test_mpe_configuration_and_bend_by_the_numbers_of_the_specification() -> None:
    zone = MpeZone(members=2, bend_semitones=48)
    messages = [message.hex(" ") for message in configuration(zone)]
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


@pytest.mark.parametrize(
    "data", [b"", b"\x90\x3c\x40", b"\x80\x3c\x40", b"\xb0\x07", b"\xc0\x01\x02", b"\xb0\x07\x80", b"\xf0\xf7"]
)
def test_a_control_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a message"):
        Control(0.0, "port", data)


@pytest.mark.parametrize(
    "values",
    [
        {"due_s": float("nan")},
        {"duration_s": 0.0},
        {"duration_s": float("inf")},
        {"pitch": 128},
        {"velocity": 0},
        {"channel": 16},
        {"tag": -1},
        {"bend_semitones": 97.0},
    ],
)
def test_a_note_that_cannot_be_is_refused(values) -> None:
    with pytest.raises(ValueError, match="must be"):
        Note(**{"due_s": 0.0, "duration_s": 1.0, "port": "port", "pitch": 60, "velocity": 90} | values)
