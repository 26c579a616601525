"""Token diversity against numbers worked out by hand, and what holds for any tokens."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import jensenshannon

from musichal.evaluate.partner_stats import token_diversity
from musichal.hearing.percepts import SILENCE
from musichal.hearing.vocabulary import (
    jensen_shannon_divergence,
    perplexity,
    token_histogram,
    top_share,
)

SIZE = 64
token_rows = hnp.arrays(np.int16, st.integers(0, 200), elements=st.integers(SILENCE, SIZE - 1))
histograms = hnp.arrays(np.int64, 8, elements=st.integers(0, 10**9)).filter(lambda h: h.any())


def test_figures_worked_out_by_hand() -> None:
    # 8 frames: token 3 four times, 5 twice, 9 once, silence once. Entropy of (4, 2, 1)/7 is 1.378783… bits.
    tokens = np.array([3, 3, 3, -1, 3, 5, 5, 9], dtype=np.int16)
    figures = token_diversity([tokens], size=SIZE, duration_s=0.5)
    assert (figures.size, figures.frames, figures.unique) == (64, 8, 3)
    assert figures.top_share == pytest.approx(4 / 7)
    assert figures.top_three_share == pytest.approx(1.0)
    assert figures.perplexity == pytest.approx(2**1.3787834934861758, rel=1e-12)
    assert figures.silent_share == pytest.approx(1 / 8)
    assert figures.changes_per_second == pytest.approx(4 / 0.5)  # 3→silence→3→5→9


def test_the_seam_of_two_recordings_is_no_change() -> None:
    first, second = np.array([1, 1], dtype=np.int16), np.array([2, 2, 1], dtype=np.int16)
    apart = token_diversity([first, second], size=SIZE, duration_s=1.0)
    assert apart.changes_per_second == 1
    assert token_diversity([np.concatenate([first, second])], size=SIZE, duration_s=1.0).changes_per_second == 2
    assert (apart.unique, apart.frames) == (2, 5)


@pytest.mark.parametrize("tokens", [np.zeros(0, dtype=np.int16), np.full(9, SILENCE, dtype=np.int16)])
def test_where_nothing_is_audible_nothing_is_made_up(tokens: np.ndarray) -> None:
    figures = token_diversity([tokens], size=SIZE, duration_s=1.0)
    assert (figures.unique, figures.top_share, figures.perplexity, figures.changes_per_second) == (0, 0, 0, 0)
    assert figures.silent_share == (1.0 if len(tokens) else 0.0)


@pytest.mark.parametrize("size", [1, 2, 7, 64, 1024])
def test_an_even_vocabulary_has_the_perplexity_of_its_size(size: int) -> None:
    assert perplexity(np.full(size, 5)) == pytest.approx(size)
    one = np.zeros(size, dtype=int)
    one[size // 2] = 99
    assert perplexity(one) == pytest.approx(1)


@given(token_rows)
def test_bounds(tokens: np.ndarray) -> None:
    figures = token_diversity([tokens], size=SIZE, duration_s=2.0)
    audible = int((tokens != SILENCE).sum())
    assert 0 <= figures.unique <= min(SIZE, audible)
    if audible:
        assert 1 - 1e-9 <= figures.perplexity <= figures.unique * (1 + 1e-9)
        # The commonest of k tokens has at least one k-th, and perplexity is at least its inverse.
        assert 1 / figures.unique - 1e-9 <= figures.top_share <= figures.top_three_share <= 1
        assert figures.perplexity >= 1 / figures.top_share - 1e-9
    assert 0 <= figures.silent_share <= 1
    assert 0 <= figures.changes_per_second * 2 <= max(0, len(tokens) - 1)
    assert all(math.isfinite(v) for v in vars(figures).values())
    json.dumps(vars(figures), allow_nan=False)


@given(token_rows, st.permutations(range(SIZE)))
def test_names_of_tokens_do_not_matter(tokens: np.ndarray, names: list[int]) -> None:
    renamed = np.where(tokens == SILENCE, SILENCE, np.array(names, dtype=np.int16)[tokens]).astype(np.int16)
    mine = token_diversity([tokens], size=SIZE, duration_s=1.0)
    theirs = token_diversity([renamed], size=SIZE, duration_s=1.0)
    for name, value in vars(mine).items():
        assert getattr(theirs, name) == pytest.approx(value, rel=1e-12), name


@given(token_rows)
def test_time_reversed_and_slowed_down(tokens: np.ndarray) -> None:
    changes = [
        token_diversity([t], size=SIZE, duration_s=1.0).changes_per_second for t in (tokens, tokens[::-1], np.repeat(tokens, 3))
    ]
    assert changes == [changes[0]] * 3


@given(histograms, histograms)
def test_jensen_shannon_against_scipy(p: np.ndarray, q: np.ndarray) -> None:
    mine = jensen_shannon_divergence(p, q)
    assert 0 <= mine <= 1
    assert mine == jensen_shannon_divergence(q, p)
    assert mine == pytest.approx(jensenshannon(p, q, base=2) ** 2, abs=1e-9)
    assert jensen_shannon_divergence(p, p * 3) == pytest.approx(0, abs=1e-12)  # how long one listened does not matter


def test_jensen_shannon_worked_out_by_hand() -> None:
    assert jensen_shannon_divergence(np.array([5, 0, 0]), np.array([0, 1, 1])) == pytest.approx(1)
    # (1, 0) against (1/2, 1/2): H(3/4, 1/4) − 1/2 = 0.811278… − 0.5
    assert jensen_shannon_divergence(np.array([4, 0]), np.array([3, 3])) == pytest.approx(0.31127812445913283)


@given(histograms)
def test_top_share_grows_to_all(histogram: np.ndarray) -> None:
    shares = [top_share(histogram, k=k) for k in range(1, 10)]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1) and shares[7] == pytest.approx(1)


@pytest.mark.parametrize(
    "tokens",
    [np.array([64]), np.array([-2]), np.array([0.0]), np.zeros((2, 2), dtype=int), np.array([True])],
)
def test_what_is_no_row_of_tokens_is_refused(tokens: np.ndarray) -> None:
    with pytest.raises(ValueError, match="tokens must be"):
        token_histogram(tokens, size=SIZE)


def test_what_cannot_be_compared_is_refused() -> None:
    some = np.array([1, 2, 3])
    with pytest.raises(ValueError, match="cannot be compared"):
        jensen_shannon_divergence(some, np.array([1, 2]))
    with pytest.raises(ValueError, match="empty"):
        jensen_shannon_divergence(some, np.zeros(3))
    for bad in (np.array([-1, 2]), np.array([np.nan, 1]), np.zeros((2, 2)), np.zeros(0)):
        with pytest.raises(ValueError, match="histogram"):
            perplexity(bad)
    with pytest.raises(ValueError, match="k must be"):
        top_share(some, k=0)
    with pytest.raises(ValueError, match="duration_s"):
        token_diversity([some], size=SIZE, duration_s=0.0)
