"""Memories with what belongs beside them: what grows is what was built at once, and what was learned stays bounded."""

import dataclasses

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from musichal.hearing.percepts import SILENCE
from musichal.memory.memory import Memory
from musichal.note import HeardNote
from musichal.partner import harmony
from musichal.partner.harmony import HarmonyIndex, HarmonySearch, unit_chroma
from musichal.partner.learner import WAIT_S, Learner
from musichal.partner.memory_pool import (
    MemoryPool,
    MemorySegment,
    ascending,
)
from musichal.partner.symbols import (
    CONTOUR_BREAK,
    CONTOUR_LEVEL,
    RHYTHM_BREAK,
    RHYTHM_EQUAL,
    contour_symbol,
    contour_symbols,
    rhythm_symbol,
    rhythm_symbols,
)
from partners_by_hand import gesture, row_of_gestures
from players_by_hand import percept

SHIFTS = np.arange(-5, 7)


@st.composite
def recordings(draw):
    """Gestures with levels, onsets, silences, notes and pauses, in recordings."""
    out = []
    for number in range(draw(st.integers(1, 3))):
        start = draw(st.sampled_from([0.0, 1.3]))
        for token in draw(st.lists(st.integers(-1, 3), min_size=1, max_size=12)):
            duration = draw(st.sampled_from([0.1, 0.25, 0.5]))
            own = dataclasses.replace(
                gesture(start, duration, (token, token)),
                level_db=draw(st.sampled_from([-50.0, -20.0, -14.0, -10.0])),
                starts_at_onset=draw(st.booleans()),
                chroma=np.array(draw(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=12, max_size=12)), np.float32),
            )
            notes = [HeardNote(start, 0.1, p, 80) for p in draw(st.lists(st.integers(30, 90), max_size=3))]
            out.append((own, notes, number))
            start += duration + draw(st.sampled_from([0.0, 0.0, 4.0]))
    return out


@given(recordings())
def test_what_grows_gesture_by_gesture_is_what_is_built_at_once(parts):
    memory = Memory(dims=2, threshold=0.5)
    for own, notes, number in parts:
        memory.append(own, notes, recording=number)
    built = MemorySegment(memory)
    grown = MemorySegment(Memory(dims=2, threshold=0.5))
    for own, notes, number in parts:
        grown.append(own, notes, recording=number)
    assert len(built) == len(grown) == len(parts)
    assert np.allclose(built.line_s, grown.line_s)
    assert np.allclose(built.units, grown.units, atol=1e-6)
    assert built.rhythm.symbols().tolist() == grown.rhythm.symbols().tolist()
    assert built.rhythm.sequence_starts().tolist() == grown.rhythm.sequence_starts().tolist()
    assert built.contour.symbols().tolist() == grown.contour.symbols().tolist()
    assert built.contour.sequence_starts().tolist() == grown.contour.sequence_starts().tolist()
    assert built.onset_states.tolist() == grown.onset_states.tolist()
    for name in ("pitch_classes", "lowest", "highest", "noted_before"):
        assert np.allclose(built.beside[name], grown.beside[name]), name
    # Time runs on through all recordings, and what belongs to two of them is never near.
    assert (np.diff(built.line_s) > 0).all()
    apart = np.diff(memory.states["recording"]) > 0
    assert (np.diff(built.line_s)[apart] > 30).all()


def test_rhythm_is_the_ratio_of_intervals_and_knows_no_tempo():
    iois = np.array([np.nan, 0.25, 0.25, 0.5, 0.25, 5.0, 0.25, 0.25])
    expected = (
        [RHYTHM_BREAK, RHYTHM_BREAK, RHYTHM_EQUAL, RHYTHM_EQUAL + 2, RHYTHM_EQUAL - 2] + [RHYTHM_BREAK] * 2 + [RHYTHM_EQUAL]
    )
    assert rhythm_symbols(iois).tolist() == expected
    assert rhythm_symbols(iois[:5] * 1.7).tolist() == expected[:5]
    assert rhythm_symbols(np.array([0.1, 3.0])).tolist() == [RHYTHM_BREAK, 8]


def test_loudness_is_the_step_of_the_level_and_knows_no_room():
    levels, silent = np.array([-30.0, -30, -24, -33, -90, -20, -20]), np.array([0, 0, 0, 0, 1, 0, 0], dtype=bool)
    expected = [CONTOUR_BREAK, CONTOUR_LEVEL, CONTOUR_LEVEL + 2, 0, CONTOUR_BREAK, CONTOUR_BREAK, CONTOUR_LEVEL]
    assert contour_symbols(levels, silent).tolist() == expected
    assert contour_symbols(levels - 12, silent).tolist() == expected


@pytest.mark.parametrize("most", [1, 2, 7, 100])
def test_what_is_learned_live_is_bounded_and_the_partners_memory_is_not_touched(most):
    base = Memory(dims=2, threshold=0.5)
    for own in row_of_gestures([(0, 0), (1, 1), (2, 2)]):
        base.append(own, [], recording=0)
    library = MemoryPool(base)
    known = []
    for i in range(60):
        own = gesture(0.25 * i, 0.25, (i % 5, 0))
        known.append((library.learn(own, [HeardNote(own.start_s, 0.1, 60, 90)], most=most), own.start_s))
        live = sum(len(segment) for segment in library.segments if segment.live)
        assert live <= most
        assert live >= min(i + 1, max(1, most // 2))
    assert len(base) == 3
    assert [state for state, _ in known] == list(range(3, 63)), "numbers count through"
    for state, start_s in known:
        if library.holds(state):
            place = library.place(state)
            assert (place.recording, place.start_s) == (1, start_s)
        else:
            assert library.successor(state) is None
            with pytest.raises(IndexError):
                library.find(state)
    assert library.holds(62)


def test_a_large_memory_is_searched_by_bins_nearly_as_well_as_completely(monkeypatch):
    rng = np.random.default_rng(0)
    roots, kinds = rng.integers(0, 12, 20_000), rng.integers(0, 2, 20_000)
    chroma = 0.3 * rng.random((20_000, 12))
    for step in (0, 4, 7):
        chroma[np.arange(20_000), (roots + step - (kinds & (step == 4))) % 12] += rng.uniform(0.5, 1, 20_000)
    units = unit_chroma(chroma).astype(np.float32)
    index = HarmonyIndex(units)
    found, exact = [], []
    for turn in range(40):
        present = unit_chroma(chroma[rng.integers(20_000)])
        near = HarmonySearch(index, present, units, np.zeros(1, np.int64), penalty=0.0, most=16).states(turn)
        all_of_it = HarmonySearch(None, present, units, np.zeros(1, np.int64), penalty=0.0, most=16).states(turn)
        assert len(near) == 16
        assert (np.diff(near) > 0).all()
        found.append((units[near] @ present).mean())
        exact.append((units[all_of_it] @ present).mean())
    assert np.mean(exact) > 0.95
    assert np.mean(found) > np.mean(exact) - 0.05
    # Turn by turn it looks at others.
    turns = {tuple(HarmonySearch(index, present, units, SHIFTS, penalty=0.0, most=16).states(t).tolist()) for t in range(5)}
    assert len(turns) > 1
    assert harmony.EXAMINED + 11 * harmony.EXAMINED_MOVED < 2000


def test_a_search_in_all_keys_finds_a_chord_in_each():
    triad = np.zeros(12)
    triad[[0, 4, 7]] = 1, 0.8, 0.9
    units = unit_chroma(np.tile(triad, (3000, 1))).astype(np.float32)
    for index in (None, HarmonyIndex(units)):
        for key in range(12):
            present = unit_chroma(np.roll(triad, key))
            found = HarmonySearch(index, present, units, SHIFTS, penalty=0.03, most=8).states(0)
            assert len(found) == 8
        assert not len(HarmonySearch(index, np.zeros(12), units, SHIFTS, penalty=0.0, most=8).states(0))


def test_a_gesture_waits_for_its_notes():
    learner = Learner()
    first = percept(0, gestures=[gesture(0.0, 0.3, (1, 1)), gesture(0.3, 0.3, (2, 2))])
    learner.hear(dataclasses.replace(first, heard=dataclasses.replace(first.heard, notes=(HeardNote(0.31, 0.2, 64, 80),))))
    assert learner.complete(0.35) == []
    late = percept(3)
    learner.hear(dataclasses.replace(late, heard=dataclasses.replace(late.heard, notes=(HeardNote(0.01, 1.2, 60, 80),))))
    (one,) = learner.complete(0.3 + WAIT_S)
    assert (one.gesture.start_s, [n.pitch for n in one.notes]) == (0.0, [60])
    (two,) = learner.complete(0.6 + WAIT_S)
    assert (two.gesture.start_s, [n.pitch for n in two.notes]) == (0.3, [64])
    assert learner.complete(100.0) == []
    assert SILENCE not in first.gestures[0].tokens


def test_libraries_of_one_memory_share_what_is_beside_it_until_it_grows():
    memory = Memory(dims=2, threshold=0.5)
    for own in row_of_gestures([(i % 5, i % 3) for i in range(20)]):
        memory.append(own, [], recording=0)
    first, second = MemoryPool(memory), MemoryPool(memory)
    assert first.base is second.base
    first.learn(gesture(0.0, 0.25, (0, 0)), [], most=10)
    assert len(first.segments) == 2
    assert len(second.segments) == 1
    assert len(second.base) == 20
    memory.append(gesture(99.0, 0.25, (7, 7)), [], recording=0)
    assert len(MemoryPool(memory).base) == 21
    assert len(second.base) == 20, "what is shared is not changed"


@given(st.lists(st.integers(0, 20)))
def test_few_states_ascend_as_many_do(states):
    assert ascending(np.array(states, dtype=np.int64)).tolist() == sorted(set(states))


IOIS = st.none() | st.sampled_from([0.0, 5e-324, 2.2e-311, 0.25, 0.5, 1.0, 3.0, 3.1]) | st.floats(0, 4)


@given(IOIS, IOIS)
def test_one_symbol_of_rhythm_is_that_of_many(before_s, ioi_s):
    pair = [np.nan if value is None else value for value in (before_s, ioi_s)]
    assert rhythm_symbol(before_s, ioi_s) == rhythm_symbols(np.array(pair))[1]


@given(st.floats(-120, 20, width=32), st.floats(-120, 20, width=32), st.booleans(), st.booleans())
def test_one_symbol_of_loudness_is_that_of_many(before_db, level_db, was_silent, silent):
    expected = contour_symbols(np.array([before_db, level_db]), np.array([was_silent, silent]))[1]
    assert contour_symbol(before_db, level_db, was_silent=was_silent, silent=silent) == expected


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 5, 16, 200]), st.integers(0, 1000), st.sampled_from([40, 700, 4000]))
@example(seed=228, most=200, turn=0, n=40)  # a state of which one move fits no more than its own penalty takes off
def test_the_best_that_a_search_by_bins_looked_at_are_what_it_finds(seed, most, turn, n):
    """Each state counts in its best transposition; of what is equally good to six places, the first."""
    rng = np.random.default_rng(seed)
    # Few levels, so that many fit equally well.
    units = unit_chroma(rng.integers(0, 4, (n, 12)) / 3).astype(np.float32)
    index, present = HarmonyIndex(units), unit_chroma(rng.integers(0, 4, 12) / 3)
    bins = index.bins(present, SHIFTS)
    states, columns = bins.states(turn), bins.columns
    presents = harmony.moved(present, SHIFTS)
    fit = np.einsum("kc,kc->k", units[states].astype(np.float64), presents.T[columns]) - 0.03 * np.abs(SHIFTS)[columns]
    best: dict[int, float] = {}
    for state, value in zip(states.tolist(), fit.tolist(), strict=True):
        best[state] = max(value, best.get(state, -np.inf))
    wanted = sorted((-round(value, 6), state) for state, value in best.items() if value > 1e-6)[:most]
    found = HarmonySearch(index, present, units, SHIFTS, penalty=0.03, most=most).states(turn)
    assert found.tolist() == sorted(state for _, state in wanted)
