import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from musichal.hearing.percepts import SILENCE
from musichal.memory.memory import Memory
from musichal.note import HeardNote
from musichal.partner.candidates import apply_filters, find_candidates, sounding
from musichal.partner.expectation import HarmonyFollower, harmonic_cells
from musichal.partner.harmony import moved, tonalness, unit_chroma
from musichal.partner.influences import CONTEXTS, INFLUENCES, Activation, find_matches, player_contexts
from musichal.partner.memory_pool import MemoryPool
from musichal.partner.player import Situation
from musichal.partner.settings import PartnerSettings
from partners_by_hand import gesture, row_of_gestures

HARMONIC, PERCUSSIVE, CHROMA, CONTINUITY = (
    INFLUENCES.index(name) for name in ("harmonic", "percussive", "chroma", "continuity")
)
TOKENS_ALONE = PartnerSettings(chroma_candidates=0)
chromas = hnp.arrays(np.float32, 12, elements=st.floats(0, 100, width=32))


def situation(harmonic=(), percussive=(), chroma=None) -> Situation:
    return Situation(
        now_s=1.0,
        tokens=(tuple(harmonic), tuple(percussive)),
        chroma=np.zeros(12, np.float32) if chroma is None else np.asarray(chroma, np.float32),
        silent_s=0.0,
    )


def remember(*songs, noted=()) -> Memory:
    memory = Memory(dims=2, threshold=0.5)
    for number, pairs in enumerate(songs):
        for g in row_of_gestures(pairs):
            notes = [HeardNote(g.start_s, 0.1, 60, 80)] if len(memory) in noted else []
            memory.append(g, notes, recording=number)
    return memory


def find(memory, now, *, position=None, transposition=0, settings=TOKENS_ALONE):
    """Return the candidates of a partner that has just heard all of `now`."""
    library = MemoryPool(memory)
    activation = Activation()
    for name, recent in player_contexts(now).items():
        activation.insert(name, find_matches(library, name, recent, settings=settings), recent.symbols)
    sounds = sounding(library, now.chroma, settings)
    follower = HarmonyFollower(harmonic_cells(memory), sample_rate_hz=24_000)
    found = find_candidates(
        library, activation, follower, now, sounds, position=position, transposition=transposition, settings=settings
    )
    assert found.states.tolist() == sorted(set(found.states.tolist()))
    return Found(found, activation, now)


class Found:
    """Candidates, and how many tokens of each source speak for each."""

    def __init__(self, found, activation, now):
        self.states, self.influences, self.transpositions = found.states, found.influences, found.transpositions
        self.contexts = np.zeros((len(found.states), 2), dtype=int)
        for column, name in enumerate(("harmonic", "percussive")):
            for row, peak in enumerate(found.peaks[:, CONTEXTS.index(name)].tolist()):
                if peak >= 0:
                    self.contexts[row, column] = len(activation.source(name, peak, now.now_s)[1])


def chroma_fit(chromas, present, transpositions):
    return np.clip(unit_chroma(chromas) @ moved(unit_chroma(present), np.asarray(transpositions)), 0, 1)


def correlation(a, b) -> float:
    """Return Pearson's correlation; 0 where it is not defined."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / size) if size > 1e-6 else 0.0


@given(hnp.arrays(np.float32, (3, 12), elements=st.floats(0, 100, width=32)), chromas)
def test_chroma_fit_is_the_correlation_of_the_transposed_state(states, present):
    shifts = np.arange(-6, 7)
    fit = chroma_fit(states, present, shifts)
    assert fit.shape == (3, 13)
    assert ((fit >= 0) & (fit <= 1)).all()
    for i, state in enumerate(states):
        for j, shift in enumerate(shifts):
            moved = [state[(c - shift) % 12] for c in range(12)]
            if np.ptp(state) > 1e-3 and np.ptp(present) > 1e-3:
                assert fit[i, j] == pytest.approx(max(0.0, correlation(moved, present)), abs=1e-4)


def test_a_state_in_c_moved_up_two_semitones_fits_a_player_in_d():
    triad = np.zeros(12, np.float32)
    triad[[0, 4, 7]] = 1
    in_d = np.roll(triad, 2)
    assert in_d[[2, 6, 9]].tolist() == [1, 1, 1]
    fit = chroma_fit(triad[None], in_d, np.arange(-6, 7))[0]
    assert np.argmax(fit) - 6 == 2
    assert fit.max() == pytest.approx(1)


def test_nothing_heard_or_no_colour_at_all_fits_nothing():
    one = np.eye(12, dtype=np.float32)[:1]
    assert chroma_fit(one, np.zeros(12), np.arange(-6, 7)).max() == 0
    assert chroma_fit(np.ones((1, 12), np.float32), one[0], np.arange(-6, 7)).max() == pytest.approx(0, abs=1e-6)


pairs = st.tuples(st.integers(-1, 3), st.integers(-1, 3))


@given(
    st.lists(st.lists(pairs, min_size=1, max_size=10), min_size=1, max_size=3), st.lists(pairs, max_size=6), st.integers(1, 3)
)
def test_contexts_are_the_longest_common_pasts_exactly(songs, recent, min_context):
    memory = remember(*songs)
    now = situation([h for h, _ in recent], [p for _, p in recent], chroma=np.eye(12)[0])
    found = find(memory, now, settings=dataclasses.replace(TOKENS_ALONE, min_context=min_context, max_candidates=1000))
    expected: dict[int, list[int]] = {}
    flat = [(number, pair) for number, song in enumerate(songs) for pair in song]
    for source in (0, 1):
        own = now.tokens[source]
        if not own or own[-1] == SILENCE:
            continue
        for end in range(len(flat) - 1):
            if flat[end + 1][0] != flat[end][0]:
                continue
            length = 0
            while (
                length < min(len(own), end + 1)
                and flat[end - length][0] == flat[end][0]
                and flat[end - length][1][source] == own[-1 - length]
            ):
                length += 1
            if length >= min_context:
                expected.setdefault(end + 1, [0, 0])[source] = length
    assert {s: c.tolist() for s, c in zip(found.states.tolist(), found.contexts, strict=True)} == expected
    assert ((found.influences >= 0) & (found.influences <= 1)).all()
    unmoved = found.transpositions == 0
    n = found.contexts
    assert np.allclose(found.influences[HARMONIC][:, unmoved][:, 0], n[:, 0] / (n[:, 0] + 1))
    assert not found.influences[HARMONIC][:, ~unmoved].any(), "harmonic tokens hear absolute pitch"
    assert np.allclose(found.influences[PERCUSSIVE], (n[:, 1] / (n[:, 1] + 1))[:, None])


def test_the_successor_is_a_candidate_and_continuity_holds_in_its_transposition_only():
    memory = remember([(0, 0), (1, 1), (2, 2)], [(3, 3)])
    found = find(memory, situation(), position=0, transposition=-3)
    assert found.states.tolist() == [1]
    assert found.transpositions[found.influences[CONTINUITY, 0] == 1].tolist() == [-3]
    assert found.influences[CONTINUITY, 0].sum() == 1
    assert find(memory, situation(), position=2).states.size == 0, "the next recording is no continuation"
    assert find(memory, situation(), position=3).states.size == 0
    assert find(memory, situation()).states.size == 0


def test_each_semitone_takes_the_penalty_off_the_chroma_influence():
    memory = remember([(0, 0), (2, 1)])  # the hand-made chroma of token 2 is D
    now = situation([0], chroma=np.eye(12)[4])
    found = find(memory, now, settings=dataclasses.replace(TOKENS_ALONE, transposition_penalty=0.1))
    assert found.states.tolist() == [1]
    values = dict(zip(found.transpositions.tolist(), found.influences[CHROMA, 0], strict=True))
    assert values[2] == pytest.approx(0.8)
    assert max(values, key=values.get) == 2
    hard = find(memory, now, settings=dataclasses.replace(TOKENS_ALONE, transposition_penalty=0.9))
    assert hard.influences[CHROMA, 0].max() == 0


def test_states_without_notes_are_held_back():
    memory = remember([(0, 0), (1, 1), (0, 0), (1, 1)], noted=[1])
    found = find(memory, situation([0]))
    chosen = dataclasses.replace(TOKENS_ALONE, noteless_factor=0.25)
    filtered = apply_filters(
        MemoryPool(memory), situation([0]), found.states, found.transpositions,
        played=(), following=None, run=0, tonal=0.0, settings=chosen,
    )  # fmt: skip
    assert dict(zip(found.states.tolist(), filtered.factors["notes"][:, 0].tolist(), strict=True)) == {1: 1.0, 3: 0.25}


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_harmony_names_the_states_that_fit_best(limit):
    memory = remember([(0, 0), (1, 1), (2, 2), (1, 3)])
    present = np.zeros(12)
    present[[1, 2]] = 1, 0.5
    found = find(memory, situation(chroma=present), settings=PartnerSettings(chroma_candidates=limit, max_transposition=0))
    assert found.states.tolist() == {0: [], 1: [1], 3: [1, 2, 3]}[limit]
    assert not found.contexts.any()


def test_what_sounds_is_found_anew_only_where_it_or_the_memory_is_another():
    library, chroma = MemoryPool(remember([(0, 0), (1, 1), (2, 2)])), np.eye(12, dtype=np.float32)[1]
    first = sounding(library, chroma, PartnerSettings())
    assert sounding(library, chroma.copy(), PartnerSettings(), first) is first
    assert sounding(library, chroma, PartnerSettings(temperature=0.5), first) is first, "that changes no harmony"
    assert first.searches[0].states(0).tolist() == [0, 1, 2]
    assert sounding(library, chroma, PartnerSettings(chroma_candidates=1), first).searches[0].states(0).tolist() == [1]
    assert not np.array_equal(sounding(library, 2 * np.roll(chroma, 1), PartnerSettings(), first).fits, first.fits)
    library.learn(gesture(0.0, 0.25, (1, 1)), [], most=10)
    assert [s.states(0).tolist() for s in sounding(library, chroma, PartnerSettings(), first).searches] == [[0, 1, 2], [0]]


def test_transpositions_are_those_allowed():
    memory = remember([(0, 0), (1, 1)])
    for most, lowest in ((0, 0), (2, -2), (6, -5)):  # six semitones up are six down, an octave apart: twelve are all
        found = find(memory, situation([0]), settings=dataclasses.replace(TOKENS_ALONE, max_transposition=most))
        assert found.transpositions.tolist() == list(range(lowest, most + 1))
        assert found.influences.shape == (len(INFLUENCES), 1, most - lowest + 1)


def test_a_source_that_is_silent_now_matches_nothing():
    memory = Memory(dims=2, threshold=0.5)
    for i, tokens in enumerate([(0, SILENCE), (1, SILENCE), (2, 3)]):
        memory.append(gesture(0.25 * i, 0.25, tokens), [], recording=0)
    found = find(memory, situation([7, 9], [SILENCE]))
    assert found.states.size == 0


def test_noise_has_no_harmony_to_agree_with():
    rng = np.random.default_rng(0)
    assert tonalness(np.zeros(12)) == 0
    assert tonalness(1 + 0.1 * rng.random(12)) == 0
    assert tonalness(np.eye(12)[3]) == 1
    memory = remember([(0, 0), (1, 1), (2, 2)])
    flat = find(memory, situation([0], [0], chroma=np.ones(12)), settings=PartnerSettings())
    assert not flat.influences[[HARMONIC, CHROMA]].any()
    assert flat.influences[PERCUSSIVE].any()
