import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musichal.errors import InputError
from musichal.hearing.percepts import Gesture
from musichal.memory.audio_oracle import AudioOracle
from musichal.memory.beat_places import NO_BEAT, BeatPlace
from musichal.memory.memory import NOTE, STATE, Memory, assign_notes
from musichal.note import HeardNote
from partners_by_hand import gesture, row_of_gestures

tokens = st.tuples(st.integers(-1, 4), st.integers(-1, 4))
songs = st.lists(st.lists(tokens, min_size=1, max_size=12), min_size=1, max_size=4)


def note(onset_s: float, pitch: int = 60) -> HeardNote:
    return HeardNote(onset_s=onset_s, duration_s=0.1, pitch=pitch, velocity=80)


def remember(pairs_by_recording) -> Memory:
    memory = Memory(dims=2, threshold=0.5)
    for number, pairs in enumerate(pairs_by_recording):
        gestures = row_of_gestures(pairs)
        notes = [note(0.25 * i + 0.01, 40 + t[0]) for i, t in enumerate(pairs) if t[0] >= 0]
        for i, (g, own) in enumerate(zip(gestures, assign_notes(gestures, notes), strict=True)):
            hits = [note(g.start_s + 0.02, 36)] if pairs[i][1] % 2 else []
            memory.append(g, own, recording=number, beat=BeatPlace(i % 4 / 4, 1.0, i // 4 % 4, 0.5), hits=hits)
    return memory


def restored(memory: Memory, states=None, notes=None, hits=None) -> Memory:
    return Memory.restore(
        memory.states.copy() if states is None else states,
        memory.notes.copy() if notes is None else notes,
        AudioOracle.from_arrays(memory.oracle.to_arrays()),
        hits=memory.hits.copy() if hits is None else hits,
    )


def same(a: Memory, b: Memory) -> bool:
    indexes = all(
        x.symbols().tolist() == y.symbols().tolist()
        and x.sequence_starts().tolist() == y.sequence_starts().tolist()
        and x.repeat_lengths().tolist() == y.repeat_lengths().tolist()
        for x, y in zip(a.indexes, b.indexes, strict=True)
    )
    oracle = all(np.array_equal(v, b.oracle.to_arrays()[k]) for k, v in a.oracle.to_arrays().items())
    columns = all(getattr(a, name).tobytes() == getattr(b, name).tobytes() for name in ("states", "notes", "hits"))
    return columns and indexes and oracle


@given(songs)
def test_a_restored_memory_is_the_one_that_was_appended_and_grows_like_it(songs):
    memory = remember(songs)
    again = restored(memory)
    assert same(memory, again)
    last = len(songs) - 1
    more = gesture(0.25 * len(songs[-1]), 0.25, (1, 2), (1, 2))
    for recording in (last, last + 3):
        for grown in (memory, again):
            grown.append(more, [note(more.start_s)], recording=recording)
        more = dataclasses.replace(more, start_s=0.0)
    assert same(memory, again)


@given(songs)
def test_positions_of_the_indexes_are_states_and_successors_stay_in_their_recording(songs):
    memory = remember(songs)
    flat = [pair for pairs in songs for pair in pairs]
    of = [number for number, pairs in enumerate(songs) for _ in pairs]
    assert len(memory) == len(flat) == len(memory.oracle)
    for source, index in enumerate(memory.indexes):
        assert index.symbols().tolist() == [pair[source] for pair in flat] == memory.states["tokens"][:, source].tolist()
        # No context reaches across the start of a recording.
        for state in range(len(flat)):
            context = [p[source] for p, r in zip(flat[: state + 1], of[: state + 1], strict=True) if r == of[state]]
            found = index.candidates(context, limit=10_000, max_length=100)
            assert (state, len(context)) in list(zip(found["position"].tolist(), found["length"].tolist(), strict=True))
    for state in range(len(flat)):
        follows = state + 1 < len(flat) and of[state + 1] == of[state]
        assert memory.successor(state) == (state + 1 if follows else None)
        assert memory.place(state).recording == of[state]
        assert memory.oracle.vectors()[state].tolist() == list(flat[state])


def test_provenance_and_times_are_those_of_the_gestures():
    memory = Memory(dims=2, threshold=0.5)
    memory.append(gesture(0.5, 0.25, (1, 2)), [note(0.6, 62), note(0.55, 64), note(0.6, 50)], recording=0)
    memory.append(gesture(1.0, 0.5, (1, 2)), [note(0.97)], recording=0)
    memory.append(gesture(2.0, 0.5, (3, 2)), [], recording=4)
    assert memory.place(1) == memory.place(1).__class__(0, 1.0, 0.5)
    assert memory.place(2).recording == 4
    assert memory.states["ioi_s"].tolist() == [0.0, 0.5, 0.0]
    assert memory.notes_of(0)["pitch"].tolist() == [64, 50, 62]
    assert memory.notes_of(0)["offset_s"] == pytest.approx([0.05, 0.1, 0.1])
    # An onset just before the gesture that it begins is no negative offset.
    assert memory.notes_of(1)["offset_s"].tolist() == [0.0]
    assert memory.notes_of(2).size == 0


def test_hits_and_the_place_in_the_beat_are_kept_beside_the_notes():
    memory = Memory(dims=2, threshold=0.5)
    place = BeatPlace(phase=0.25, period_s=0.5, bar_place=3, confidence=0.75)
    memory.append(gesture(0.5, 0.25, (1, 2)), [note(0.55)], recording=0, beat=place, hits=[note(0.6, 42), note(0.5, 36)])
    memory.append(gesture(1.0, 0.25, (1, 2)), [], recording=0)
    memory.append(gesture(1.5, 0.25, (1, 2)), [], recording=0, hits=[note(1.5, 38)], beat=BeatPlace(phase=1 - 1e-12))
    assert [memory.hits_of(state)["pitch"].tolist() for state in range(3)] == [[36, 42], [], [38]]
    assert memory.hits_of(0)["offset_s"] == pytest.approx([0.0, 0.1])
    assert [memory.beat_place(state) for state in range(2)] == [place, NO_BEAT]
    assert 0.999 < memory.beat_place(2).phase < 1
    assert same(memory, restored(memory))


@st.composite
def gestures_and_notes(draw):
    starts = np.cumsum(draw(st.lists(st.integers(1, 40), min_size=1, max_size=10))) / 100
    gestures = [
        dataclasses.replace(gesture(float(s), 0.05, (0, 0)), starts_at_onset=draw(st.booleans())) for s in starts.tolist()
    ]
    onsets = draw(st.lists(st.integers(0, 450), max_size=20))
    return gestures, [note(o / 100, pitch=i) for i, o in enumerate(onsets)]


@given(gestures_and_notes())
def test_each_note_is_in_one_gesture_by_the_rule(case):
    gestures, notes = case
    assigned = assign_notes(gestures, notes)
    assert len(assigned) == len(gestures)
    assert sorted(n.pitch for own in assigned for n in own) == list(range(len(notes)))
    for i, own in enumerate(assigned):
        assert [n.pitch for n in own] == sorted(n.pitch for n in own), "order is kept"
        for n in own:
            begun = [k for k, g in enumerate(gestures) if g.start_s <= n.onset_s]
            holder = begun[-1] if begun else 0
            following = gestures[holder + 1] if holder + 1 < len(gestures) else None
            near = following is not None and following.starts_at_onset and following.start_s - n.onset_s <= 0.05
            assert i == holder + near


def test_there_may_be_no_gesture_for_a_note():
    assert assign_notes([], [note(1.0)]) == []


def bad(field, value):
    def change(states, _notes, _hits):
        states[field][1] = value

    return change


def bad_note(field, value):
    def change(_states, notes, _hits):
        notes[field][0] = value

    return change


HOSTILE = {
    "start is NaN": bad("start_s", np.nan),
    "start is negative": bad("start_s", -1),
    "start before the state before": bad("start_s", 0.0),
    "duration is zero": bad("duration_s", 0),
    "duration next to zero": bad("duration_s", 1e-30),
    "duration is infinite": bad("duration_s", np.inf),
    "ioi is negative": bad("ioi_s", -1),
    "level is NaN": bad("level_db", np.nan),
    "chroma is NaN": bad("chroma", np.nan),
    "chroma is negative": bad("chroma", -1),
    "recordings out of order": bad("recording", 7),
    "token too low": bad("tokens", -2),
    "token too high": bad("tokens", 32000),
    "first note wrong": bad("first_note", 2),
    "note count wrong": bad("note_count", 2),
    "note count huge": bad("note_count", 2**32 - 1),
    "first hit wrong": bad("first_hit", 2),
    "hit count wrong": bad("hit_count", 0),
    "phase of the next beat": bad("beat_phase", 1),
    "phase NaN": bad("beat_phase", np.nan),
    "period negative": bad("beat_period_s", -0.5),
    "period endless": bad("beat_period_s", np.inf),
    "place before the bar": bad("bar_place", -2),
    "confidence above 1": bad("beat_confidence", 1.5),
    "hit out of range": lambda _s, _n, hits: hits["pitch"].__setitem__(0, 128),
    "note offset negative": bad_note("offset_s", -0.1),
    "note offset NaN": bad_note("offset_s", np.nan),
    "note duration zero": bad_note("duration_s", 0),
    "note duration infinite": bad_note("duration_s", np.inf),
    "pitch out of range": bad_note("pitch", 128),
    "velocity zero": bad_note("velocity", 0),
    "velocity out of range": bad_note("velocity", 200),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_columns_are_refused(change):
    memory = remember([[(0, 1), (1, 1), (2, 1)]])
    columns = memory.states.copy(), memory.notes.copy(), memory.hits.copy()
    assert restored(memory, *columns)
    change(*columns)
    with pytest.raises(InputError, match=r"^memory: "):
        restored(memory, *columns)


def test_columns_of_another_layout_or_length_are_refused():
    memory = remember([[(0, 1), (1, 1)]])
    states, notes = memory.states.copy(), memory.notes.copy()
    for s, n in (
        (states[:1], notes[:1]),
        (states[["start_s"]], notes),
        (states, notes[:-1]),
        (states, np.append(notes, notes)),
        (states[None], notes),
        (np.zeros(0, STATE), np.zeros(0, NOTE)),
        (states["start_s"], notes),
    ):
        with pytest.raises(InputError, match=r"^memory: "):
            restored(memory, s, n)


@pytest.mark.parametrize(
    ("change", "notes", "recording"),
    [
        ({"vector": np.array([np.nan, 0], np.float32)}, [], 1),
        ({"vector": np.zeros(3, np.float32)}, [], 1),
        ({"tokens": (2000, 0)}, [], 1),
        ({"tokens": (0, -2)}, [], 1),
        ({"duration_s": 0.0}, [], 1),
        ({"level_db": float("nan")}, [], 1),
        ({}, [note(0.5), HeardNote(0.5, 0.0, 60, 80)], 1),
        ({}, [note(0.5), HeardNote(0.5, 0.1, 200, 80)], 1),
        ({}, [note(0.5), HeardNote(0.5, 0.1, 60, 0)], 1),
        ({}, [], 0),
        ({"start_s": 0.25}, [], 1),
    ],
)
def test_what_is_refused_leaves_the_memory_as_it_was(change, notes, recording):
    memory, untouched = remember([[(0, 1)], [(1, 1), (2, 1)]]), remember([[(0, 1)], [(1, 1), (2, 1)]])
    wrong: Gesture = dataclasses.replace(gesture(0.5, 0.25, (0, 0)), **change)
    with pytest.raises(InputError):
        memory.append(wrong, notes, recording=recording)
    with pytest.raises(InputError):
        memory.append(gesture(0.5, 0.25, (0, 0)), [], recording=1, hits=[HeardNote(0.5, 0.1, 200, 80)])
    with pytest.raises(InputError):
        memory.append(gesture(0.5, 0.25, (0, 0)), [], recording=1, beat=BeatPlace(period_s=float("nan")))
    assert same(memory, untouched)
    assert len(memory.oracle) == len(memory)
    memory.append(gesture(0.5, 0.25, (0, 0)), [note(0.5)], recording=1)
    assert same(memory, restored(memory))
