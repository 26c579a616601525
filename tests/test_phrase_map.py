"""Phrases in the memory, by hand and in a trained one."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musichal.hearing.percepts import SILENCE
from musichal.memory.memory import Memory
from musichal.partner.phrases import LONGEST_BREATH_S, LONGEST_PHRASE_S, SHORTEST_BREATH_S, SHORTEST_PHRASE_S, find_phrases
from partners_by_hand import gesture


def memory_of(*recordings) -> Memory:
    """Return a memory of recordings, each a list of (duration, tokens or None for silence, level)."""
    memory = Memory(dims=2, threshold=0.5)
    for number, events in enumerate(recordings):
        start = 0.0
        for duration, tokens, level in events:
            pair = (SILENCE, SILENCE) if tokens is None else tokens
            own = dataclasses.replace(gesture(start, duration, pair), level_db=level)
            memory.append(own, [], recording=number)
            start += duration
    return memory


def test_silences_part_phrases_and_are_the_breaths():
    phrase = [(0.25, (1, 0), -20.0)] * 8
    memory = memory_of([*phrase, (0.5, None, -90.0), *phrase[:6], (1.0, None, -90.0), *phrase])
    found = find_phrases(memory)
    assert np.flatnonzero(found.begins).tolist() == [0, 9, 16]
    assert np.flatnonzero(found.ends).tolist() == [7, 14, 23]
    assert found.lengths_s.tolist() == pytest.approx([1.5, 2.0, 2.0], abs=1e-4)
    assert found.breaths_s.tolist() == pytest.approx([0.5, 1.0], abs=1e-4)


def test_where_nothing_is_silent_the_long_event_ends_a_phrase():
    events = (
        [(0.2, (i % 3, 0), -20.0) for i in range(15)] + [(1.2, (4, 0), -20.0)] + [(0.2, (i % 3, 0), -20.0) for i in range(15)]
    )
    found = find_phrases(memory_of(events))
    assert found.ends_with(15)
    assert found.begins[16]


def test_recordings_end_phrases():
    phrase = [(0.5, (1, 0), -20.0)] * 5
    found = find_phrases(memory_of(phrase, phrase))
    assert found.ends_with(4)
    assert found.begins[5]


def test_states_learned_since_are_neither():
    found = find_phrases(memory_of([(0.5, (1, 0), -20.0)]))
    assert not found.ends_with(7)


def test_lengths_are_drawn_from_those_that_were_found():
    phrase = [(0.25, (1, 0), -20.0)]
    memory = memory_of([*phrase * 8, (0.5, None, -90.0), *phrase * 16])
    found = find_phrases(memory)
    rng = np.random.default_rng(0)
    assert {round(found.draw_length_s(rng), 3) for _ in range(50)} == {2.0, 4.0}
    assert {round(found.draw_length_s(rng, factor=0.5), 3) for _ in range(50)} == {1.0, 2.0}
    assert found.draw_breath_s(rng, factor=0.0) == 0


def test_a_trained_memory_has_phrases_of_a_musical_length(trained):
    found = find_phrases(trained.memory)
    assert found.begins.sum() >= 2
    assert found.lengths_s.min() >= 1.5
    assert found.lengths_s.max() <= 10


event = st.tuples(
    st.sampled_from([0.06, 0.2, 0.35, 1.0, 2.0]),
    st.one_of(st.none(), st.tuples(st.integers(0, 4), st.integers(0, 4))),
    st.floats(-60, -5),
)


@given(st.lists(st.lists(event, min_size=1, max_size=60), min_size=1, max_size=3))
def test_what_holds_for_every_memory(recordings):
    memory = memory_of(*recordings)
    states = memory.states
    found = find_phrases(memory)
    silent = (states["tokens"] == SILENCE).all(axis=1)
    assert found.begins.sum() == found.ends.sum()
    assert not (found.begins & silent).any()
    assert not (found.ends & silent).any()
    for number in range(len(recordings)):
        own = states["recording"] == number
        begins, ends = np.flatnonzero(found.begins & own), np.flatnonzero(found.ends & own)
        assert (begins <= ends).all()
        assert (begins[1:] > ends[:-1]).all()
        if not silent[own].all():
            assert len(begins)
    assert len(found.lengths_s)
    assert ((found.lengths_s >= SHORTEST_PHRASE_S) & (found.lengths_s <= LONGEST_PHRASE_S)).all()
    assert ((found.breaths_s >= SHORTEST_BREATH_S) & (found.breaths_s <= LONGEST_BREATH_S)).all()
