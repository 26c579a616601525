"""Motifs: what is kept, how it comes back, and that it stays bounded."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musichal.hearing.percepts import SILENCE
from musichal.memory.memory import Memory
from musichal.note import HeardNote
from musichal.partner.memory_pool import MemoryPool
from musichal.partner.phrases import PACES, MotifStore, Return, distinctive_run
from partners_by_hand import gesture


def library_of(tokens, pitches=None, *, each_s=0.4) -> MemoryPool:
    memory = Memory(dims=2, threshold=0.5)
    for i, token in enumerate(tokens):
        pitch = 60 + (i % 5) if pitches is None else pitches[i]
        own = [] if pitch is None else [HeardNote(each_s * i, each_s, pitch, 90)]
        pair = (token, 0) if token != SILENCE else (SILENCE, SILENCE)
        memory.append(gesture(each_s * i, each_s, pair, (float(token), 0.0)), own, recording=0)
    return MemoryPool(memory)


def run(library: MemoryPool, states):
    counts = np.bincount(library.base.memory.states["tokens"][:, 0].astype(np.int64) + 1)
    return distinctive_run(library, states, counts)


def test_the_rare_part_of_a_phrase_is_its_motif():
    tokens = [1] * 30 + [7, 8, 9] + [1] * 30
    pitches = [60] * 30 + [64, 67, 71] + [60] * 30
    found = run(library_of(tokens, pitches), list(range(20, 45)))
    assert found is not None
    assert found[0] + 20 <= 30
    assert found[1] + 20 >= 33, "the rare part is in it"


@pytest.mark.parametrize(("tokens", "pitches"), [([1, 2], [60, 62]), ([SILENCE] * 9, [None] * 9), ([1, 2, 3, 4], [None] * 4)])
def test_what_is_too_short_silent_or_without_notes_is_none(tokens, pitches):
    assert run(library_of(tokens, pitches), list(range(len(tokens)))) is None


def test_it_comes_back_moved_to_the_harmony_of_the_moment_and_says_so():
    library = library_of([0, 4, 7, 0, 4, 7], [60, 64, 67, 60, 64, 67])
    store = MotifStore(library, rest_s=0.0)
    store.keep([0, 1, 2], [0, 0, 0], whose="yours", heard_s=[42.0, 42.4, 42.8])
    chroma = np.zeros(12)
    chroma[[3, 7, 10]] = 1  # the same chord, three semitones up
    back = store.bring_back(60.0, chroma=chroma, pace=1.0, max_transposition=6, rng=np.random.default_rng(0))
    assert back is not None
    assert back.transpositions == (3, 3, 3)
    assert back.words == "your motif of 0:42, moved up 3"


def test_its_words_tell_every_change():
    back = Return("its own", 75.0, (1,), (0,), -2, 1.5, False)
    assert back.words == "its own motif of 1:15, moved down 2, slower, 1.5 times as long, in part"
    assert Return("its own", 75.0, (1,), (0,), 0, 0.5, True).words == "its own motif of 1:15, faster, 0.5 times as long"


@pytest.mark.parametrize(("pace", "chosen"), [(0.4, 0.5), (0.7, 2 / 3), (1.05, 1.0), (1.6, 1.5), (9.0, 2.0)])
def test_it_is_augmented_or_diminished_to_the_players_pace(pace, chosen):
    store = MotifStore(library_of([1, 2, 3, 4]), rest_s=0.0)
    store.keep([0, 1, 2], [0, 0, 0], whose="yours", heard_s=[0.0, 0.4, 0.8])
    back = store.bring_back(5.0, chroma=np.zeros(12), pace=pace, max_transposition=6, rng=np.random.default_rng(0))
    assert back is not None
    assert back.pace == chosen


def test_it_comes_back_whole_or_in_part_and_not_too_soon():
    store = MotifStore(library_of(list(range(8))), rest_s=10.0)
    kept = store.keep(list(range(8)), [2] * 8, whose="its own", heard_s=[0.4 * i for i in range(8)])
    assert kept is not None
    chances = np.random.default_rng(3)

    def back(now_s):
        return store.bring_back(now_s, chroma=np.zeros(12), pace=1.0, max_transposition=6, rng=chances)

    assert back(5.0) is None
    sizes = set()
    for number in range(30):
        found = back(20.0 + 11 * number)
        assert found is not None
        assert found.whole == (len(found.states) == len(kept.states))
        start = kept.states.index(found.states[0])
        assert kept.states[start : start + len(found.states)] == found.states
        assert start == 0 or found.states[-1] == kept.states[-1]
        assert found.transpositions == (2,) * len(found.states)
        sizes.add(len(found.states))
        assert back(20.5 + 11 * number) is None
    assert len(sizes) > 2


def test_the_players_gestures_that_were_let_go_are_no_motif_any_more():
    library = library_of([1, 2, 3])
    live = [
        library.learn(gesture(0.4 * i, 0.4, (i % 3, 0)), [HeardNote(0.4 * i, 0.4, 60 + i % 4, 90)], most=8) for i in range(4)
    ]
    store = MotifStore(library, rest_s=0.0)
    assert store.keep(live, [0] * 4, whose="yours", heard_s=[0.4 * i for i in range(4)]) is not None
    for i in range(4, 30):
        library.learn(gesture(0.4 * i, 0.4, (i % 3, 0)), [], most=8)
    back = store.bring_back(90.0, chroma=np.zeros(12), pace=1.0, max_transposition=6, rng=np.random.default_rng(0))
    assert back is None
    assert len(store) == 0
    assert store.keep(live, [0] * 4, whose="yours", heard_s=[0.0] * 4) is None


@given(st.lists(st.lists(st.integers(-1, 30), max_size=14), max_size=40), st.integers(1, 8))
def test_the_store_is_bounded_and_every_motif_is_a_run_of_its_phrase(phrases, kept):
    tokens = [token for phrase in phrases for token in phrase] or [1]
    library = library_of(tokens)
    store = MotifStore(library, most=kept, rest_s=0.0)
    first = 0
    for phrase in phrases:
        states = list(range(first, first + len(phrase)))
        first += len(phrase)
        motif = store.keep(states, [0] * len(states), whose="yours", heard_s=[0.4 * s for s in states])
        if motif is not None:
            assert set(motif.states) <= set(states)
            assert np.diff(motif.states).tolist() == [1] * (len(motif.states) - 1)
            assert 0 <= motif.distinction <= 1
            assert all(tokens[s] != SILENCE for s in motif.states)
        assert len(store) <= kept
    back = store.bring_back(1e4, chroma=np.ones(12), pace=1.0, max_transposition=6, rng=np.random.default_rng(0))
    assert (back is None) == (len(store) == 0)
    if back is not None:
        assert back.pace in PACES
        assert abs(back.moved) <= 6
