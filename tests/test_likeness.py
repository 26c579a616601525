"""Likeness: memory is found by what its last seconds sounded like, in any transposition, in small and large memories."""

import dataclasses

import numpy as np
import pytest

from musichal.hearing.percepts import Gesture
from musichal.memory.memory import Memory
from musichal.partner.harmony import unit_chroma
from musichal.partner.likeness import EXAMINED, LOOKED_THROUGH, PAST, Pasts, pasts
from tests.partners_by_hand import gesture

TWELVE = np.arange(-5, 7)


def walk(n: int, seed: int) -> np.ndarray:
    """Return chroma of a wandering harmony, shape (n, 12)."""
    rng = np.random.default_rng(seed)
    roots = np.cumsum(rng.choice([0, 5, 7, 9, 2], n)) % 12
    chroma = 0.1 * rng.random((n, 12))
    for step, strength in ((0, 1.0), (4, 0.7), (7, 0.8)):
        chroma[np.arange(n), (roots + step) % 12] += strength
    return chroma


def remembered(chroma: np.ndarray, each_s: float = 0.25) -> Memory:
    memory = Memory(dims=2, threshold=0.5)
    for i, row in enumerate(chroma):
        root = int(row.argmax())
        memory.append(sounding(gesture(each_s * i, each_s, (root, 0), (root, 0)), row), [], recording=0)
    return memory


def sounding(like: Gesture, chroma: np.ndarray) -> Gesture:
    return dataclasses.replace(like, chroma=chroma.astype(np.float32))


def past_of(chroma: np.ndarray, each_s: float) -> np.ndarray:
    starts_s = each_s * np.arange(len(chroma))
    return pasts(starts_s, starts_s + each_s, unit_chroma(chroma), np.array([each_s * len(chroma)]))[0]


def asked(memory: Memory, chroma: np.ndarray, each_s: float = 0.25, home: int = 0):
    known = Pasts(memory, memory.states["start_s"])
    return known.alike(past_of(chroma, each_s), chroma[-1], TWELVE, home=home, penalty=0.01, most=8, turn=3)


@pytest.mark.parametrize("n", [400, LOOKED_THROUGH + 400])
@pytest.mark.parametrize("moved", [0, 3])
def test_a_place_is_found_again_in_its_key_or_another(n: int, moved: int) -> None:
    chroma, memory = walk(n, 1), remembered(walk(n, 1))
    then = 300
    heard = np.roll(chroma[then - 40 : then + 1], moved, axis=1) + 0.05 * np.random.default_rng(2).random((41, 12))
    found = asked(memory, heard)
    assert len(found.states) <= 8
    if n <= LOOKED_THROUGH or then in found.states:  # of a large memory each turn looks at some
        best = int(found.fits.argmax())
        assert (found.states[best], found.transpositions[best]) == (then, moved)
    strengths = found.strengths(found.usual, found.spread)
    assert (strengths >= 0).all() and (strengths < 1).all()
    assert strengths.max() > 0.6


def test_time_counts_not_how_it_is_cut_into_gestures() -> None:
    """Another player cuts the same harmony into gestures of other lengths."""
    chroma = walk(400, 1)
    finer = np.repeat(chroma[260:301], 5, axis=0)
    assert past_of(finer, 0.05) == pytest.approx(past_of(chroma[260:301], 0.25), abs=1)
    assert asked(remembered(chroma), finer, 0.05).states[0] == 300


def test_pasts_do_not_depend_on_how_much_is_appended_at_once() -> None:
    chroma = walk(300, 4)
    whole = remembered(chroma)
    grown = remembered(chroma[:100])
    known = Pasts(grown, grown.states["start_s"])
    for i in range(100, 300):
        grown.append(sounding(gesture(0.25 * i, 0.25, (1, 0), (1, 0)), chroma[i]), [], recording=0)
        known.extend(grown.states["start_s"])
    everything = Pasts(whole, whole.states["start_s"])
    assert known._pasts.view.shape == (300, PAST)
    assert np.abs(known._pasts.view.astype(int) - everything._pasts.view).max() <= 1


def test_a_large_memory_is_not_looked_through() -> None:
    memory = remembered(walk(LOOKED_THROUGH + 400, 1))
    clusters = Pasts(memory, memory.states["start_s"])._clusters
    assert clusters is not None
    looked = [clusters.states(unit_chroma(walk(5, 1)[4]), TWELVE, np.zeros(12), turn) for turn in range(3)]
    assert all(0 < len(states) <= EXAMINED for states in looked)
    assert looked[0].tolist() != looked[1].tolist()
