import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musichal.live.output.active_notes import ActiveNotes, NoteMessage, balance, note_messages, to_ticks
from musichal.note import Note, Slice

# Few keys and short times, so that notes collide in every way; and now and then any value at all.
crowded = st.builds(
    Note,
    onset_s=st.integers(0, 60).map(lambda n: n / 1500),
    duration_s=st.sampled_from([1e-9, 0.0004, 0.001, 0.0016, 0.01, 0.04]),
    pitch=st.integers(60, 61),
    velocity=st.integers(1, 127),
    channel=st.integers(0, 1),
)
anything = st.builds(
    Note,
    onset_s=st.floats(0, 268_435.0 / 2),
    duration_s=st.floats(0, 268_435.0 / 2, exclude_min=True),
    pitch=st.integers(0, 127),
    velocity=st.integers(1, 127),
    channel=st.integers(0, 15),
)
events = st.lists(crowded | anything, max_size=40)


def spans(notes):
    keys = {}
    for note in notes:
        start = to_ticks(note.onset_s)
        keys.setdefault((note.channel, note.pitch), []).append((start, start + to_ticks(note.duration_s)))
    return keys


@given(events)
def test_balanced_notes_never_overlap_on_a_key_and_last_at_least_one_tick(events):
    balanced = balance(events)
    for key in spans(balanced).values():
        assert all(end - start >= 1 for start, end in key)
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(key))
    assert [n.onset_s for n in balanced] == sorted(n.onset_s for n in balanced)


@given(events, st.randoms())
def test_balance_keeps_every_strike_whatever_the_order_and_changes_nothing_twice(events, random):
    balanced = balance(events)
    assert balance(balanced) == balanced
    shuffled = list(events)
    random.shuffle(shuffled)
    assert balance(shuffled) == balanced
    struck = {(to_ticks(e.onset_s), e.channel, e.pitch) for e in events}
    assert [(to_ticks(n.onset_s), n.channel, n.pitch) for n in balanced] == sorted(struck)
    for note in balanced:
        same = [
            e for e in events if (to_ticks(e.onset_s), e.channel, e.pitch) == (to_ticks(note.onset_s), note.channel, note.pitch)
        ]
        assert note.velocity == max(e.velocity for e in same)


@given(events)
def test_messages_end_every_note_exactly_once_and_off_comes_before_on(events):
    sounding = set()
    messages = note_messages(events)
    for timed in messages:
        key = timed.message.channel, timed.message.pitch
        assert (key in sounding) != timed.message.is_on
        sounding ^= {key}
    assert not sounding
    assert [(m.tick, m.message.is_on) for m in messages] == sorted((m.tick, m.message.is_on) for m in messages)


@given(events)
def test_the_ledger_run_by_a_clock_sends_what_balance_has(events):
    ledger, sent = ActiveNotes(), []
    for note in sorted(events, key=lambda e: (to_ticks(e.onset_s), e.channel, e.pitch)):
        start = to_ticks(note.onset_s)
        while ledger.next_end is not None and ledger.next_end <= start:
            end = ledger.next_end
            sent += [(end, m) for m in ledger.end_due(end)]
        end = max(start + 1, to_ticks(note.onset_s + note.duration_s))
        sent += [(start, m) for m in ledger.note_on(note.channel, note.pitch, note.velocity, until=end)]
    while ledger.next_end is not None:
        end = ledger.next_end
        sent += [(end, m) for m in ledger.end_due(end)]
    ends = sorted((t, m.channel, m.pitch) for t, m in sent if not m.is_on)
    # A key struck twice in one tick is one note to balance, and two, one of no length, to the ledger.
    twice = len(events) - len({(to_ticks(e.onset_s), e.channel, e.pitch) for e in events})
    expected = [(m.tick, m.message.channel, m.message.pitch) for m in note_messages(events) if not m.message.is_on]
    assert len(ends) == len(expected) + twice
    if not twice:
        assert ends == sorted(expected)


actions = st.lists(
    st.tuples(st.sampled_from(["on", "off", "due", "all"]), st.integers(0, 1), st.integers(60, 62), st.floats(0, 10)),
    max_size=60,
)


@given(actions)
def test_any_interleaving_leaves_nothing_hanging(actions):
    ledger, sounding = ActiveNotes(), set()

    def take(messages):
        for message in messages:
            key = message.channel, message.pitch
            assert (key in sounding) != message.is_on
            sounding.symmetric_difference_update({key})

    for action, channel, pitch, time in actions:
        if action == "on":
            take(ledger.note_on(channel, pitch, 64, until=time))
        elif action == "off":
            take(ledger.note_off(channel, pitch))
        elif action == "due":
            take(ledger.end_due(time))
            assert ledger.next_end is None or ledger.next_end > time
        else:
            take(ledger.end_all())
            assert ledger.next_end is None
        assert ledger.sounding == sounding
    take(ledger.end_all())
    assert not sounding


def test_a_note_struck_again_is_released_first_and_its_old_end_is_forgotten():
    ledger = ActiveNotes()
    assert ledger.note_on(0, 60, 100, until=1.0) == [NoteMessage(0, 60, 100)]
    assert ledger.note_on(0, 60, 90, until=2.0) == [NoteMessage(0, 60, 0), NoteMessage(0, 60, 90)]
    assert ledger.end_due(1.0) == []
    assert ledger.end_due(2.0) == [NoteMessage(0, 60, 0)]
    with pytest.raises(ValueError, match="velocity"):
        ledger.note_on(0, 60, 0, until=1.0)


def test_balance_cuts_at_the_next_strike():
    notes = [Note(0.0, 1.0, 60, 100), Note(0.25, 0.1, 60, 90), Note(0.25, 0.3, 60, 20), Note(0.3, 9, 61, 5)]
    assert balance(notes) == [Note(0.0, 0.25, 60, 100), Note(0.25, 0.3, 60, 90), Note(0.3, 9.0, 61, 5)]


@pytest.mark.parametrize(
    "values",
    [
        *((t, 1.0, 60, 64, 0) for t in (-0.001, math.nan, math.inf)),
        *((0.0, d, 60, 64, 0) for d in (0.0, -1.0, math.nan, math.inf)),
        *((0.0, 1.0, p, 64, 0) for p in (-1, 128, 60.0, True)),
        *((0.0, 1.0, 60, v, 0) for v in (0, 128, 64.5)),
        *((0.0, 1.0, 60, 64, c) for c in (-1, 16, None)),
    ],
)
def test_a_note_that_cannot_be_is_refused(values):
    with pytest.raises(ValueError, match="must"):
        Note(*values)


@pytest.mark.parametrize(
    "values",
    [
        (0.0, 1.0, -1, 0.0),
        (0.0, 1.0, 0, -0.1),
        (0.0, 1.0, 0, math.nan),
        (0.0, 1.0, 0, 0.0, 25.0),
        (0.0, 1.0, 0, 0.0, 0.0, -1.0),
        (0.0, 0.0, 0, 0.0),
    ],
)
def test_a_slice_that_cannot_be_is_refused(values):
    with pytest.raises(ValueError, match="must"):
        Slice(*values)
