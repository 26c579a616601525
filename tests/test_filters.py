"""Filters that follow the player, or go against them: by hand, and where that leads."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musichal.hearing.percepts import Gesture
from musichal.memory.memory import Memory
from musichal.note import HeardNote
from musichal.partner.candidates import Filtered, apply_filters
from musichal.partner.memory_pool import MemoryPool, Usual
from musichal.partner.player import Situation
from musichal.partner.settings import PartnerSettings
from partners_by_hand import gesture

HIGH, LOW, MIDDLE = 84, 36, 60
NOW = Situation(now_s=100.0, tokens=((), ()), chroma=np.zeros(12, np.float32), silent_s=0.0)


def remembered(gestures: list[tuple[Gesture, int]]) -> MemoryPool:
    memory = Memory(dims=2, threshold=0.5)
    for what, pitch in gestures:
        memory.append(what, [HeardNote(what.start_s, 0.1, pitch, 80)], recording=0)
    return MemoryPool(memory)


def loud(number: int, level_db: float) -> Gesture:
    return dataclasses.replace(gesture(number * 4.0, 4.0, (number, 0)), level_db=level_db)


@pytest.fixture(scope="module")
def levels() -> MemoryPool:
    """Gestures at −32, −26, −20, −14 and −8 dB, high to low, far apart."""
    return remembered([(loud(k, -32.0 + 6 * k), HIGH - 12 * k) for k in range(5)])


@pytest.fixture(scope="module")
def paces() -> MemoryPool:
    """Eight gestures of 2 s, then sixteen of 0.5 s, then thirty-two of 0.125 s."""
    lengths = [2.0] * 8 + [0.5] * 16 + [0.125] * 32
    starts = np.cumsum([0.0, *lengths])
    return remembered([(gesture(s, d, (k % 60, 0)), MIDDLE) for k, (s, d) in enumerate(zip(starts, lengths, strict=False))])


def filtered(library: MemoryPool, now: Situation, **values) -> Filtered:
    states = np.arange(len(library.base))
    return apply_filters(
        library, now, states, np.array([0]), played=(), following=None, run=0, tonal=0.0,
        settings=PartnerSettings(**{"follow_density": 0.0, "follow_loudness": 0.0, **values}),
    )  # fmt: skip


def test_what_is_usual_is_the_median(levels, paces):
    assert levels.base.usual == Usual(pytest.approx(0.5, abs=0.01), 60.0)
    # States with notes less than a second away: 8 a second of the short ones, of which the last have nothing behind them.
    assert paces.base.usual.density_hz == pytest.approx(5.25)
    assert MemoryPool(Memory(dims=2, threshold=0.5)).base.usual == Usual(0.0, 60.0)


@pytest.mark.parametrize(("how", "best"), [(1.0, [3, 4]), (-1.0, [0, 1])])
def test_loudness_follows_and_goes_against(levels, how, best):
    """The player is 9 dB louder than usual: as near as it is to −14 and −8 dB is what goes against to −32 and −26 dB."""
    now = dataclasses.replace(NOW, level_db=9.0)
    factor = filtered(levels, now, follow_loudness=how).factors["loudness"][:, 0]
    assert sorted(np.argsort(factor)[-2:].tolist()) == best
    assert factor[best] == pytest.approx(np.exp(-3 / 6))


def test_a_player_as_loud_as_usual_is_answered_as_loud_as_usual_either_way(levels):
    for how in (1.0, -1.0):
        assert np.argmax(filtered(levels, NOW, follow_loudness=how).factors["loudness"]) == 2


@pytest.mark.parametrize(("how", "best"), [(1.0, HIGH - 12), (-1.0, LOW + 12)])
def test_register_follows_and_goes_to_the_other_side_of_the_middle(levels, how, best):
    now = dataclasses.replace(NOW, pitch=float(HIGH - 12))
    factor = filtered(levels, now, follow_register=how).factors["follow register"][:, 0]
    assert np.argmax(factor) == (HIGH - best) // 12
    assert factor.max() == pytest.approx(1.0)


def test_density_is_sparse_where_the_player_is_dense_and_dense_where_they_are_sparse(paces):
    densities = paces.base.beside["density_hz"]

    def chosen(how: float, rate_hz: float) -> float:
        now = dataclasses.replace(NOW, onset_rate_hz=rate_hz)
        factor = filtered(paces, now, follow_density=how).factors["density"][:, 0]
        return float(densities[np.argmax(factor)])

    assert chosen(1.0, 8.0) == pytest.approx(8.0, abs=0.5)
    assert chosen(1.0, 0.5) == pytest.approx(0.5, abs=0.5)
    assert chosen(-1.0, 16.0) < 5
    assert chosen(-1.0, 0.5) == pytest.approx(8.0, abs=0.5), "as dense as memory ever was"


@given(how=st.floats(-1, 1), level_db=st.floats(-40, 40), rate_hz=st.floats(0, 60), pitch=st.none() | st.floats(0, 127))
def test_following_holds_back_and_never_lifts(levels, how, level_db, rate_hz, pitch):
    now = dataclasses.replace(NOW, level_db=level_db, onset_rate_hz=rate_hz, pitch=pitch)
    found = filtered(levels, now, follow_loudness=how, follow_density=how, follow_register=how)
    for name, factor in found.factors.items():
        assert np.isfinite(factor).all(), name
        assert (factor >= 1 - abs(how) - 1e-9).all() or name not in ("loudness", "density", "follow register")
        assert ((factor >= 0) & (factor <= 1 + 1e-9)).all()
