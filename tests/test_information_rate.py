"""Information rate on sequences worked by hand, and the choice of a threshold on real and degenerate vectors."""

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from musichal.errors import InputError
from musichal.memory.audio_oracle import AudioOracle
from musichal.memory.oracle_threshold import (
    choose_threshold,
    code_words,
    information_rate,
    information_rates,
    quantile_thresholds,
)
from musichal.memory.token_index import TokenIndex


def test_the_published_example():
    """A b b c a b c d a b c is coded a, b, (b), c, (a b), (c), d, (a b c)."""
    repeats = np.array([0, 0, 1, 0, 1, 2, 2, 0, 1, 2, 3])
    lengths, literals = code_words(repeats)
    assert lengths.tolist() == [1, 1, 1, 1, 2, 1, 1, 3]
    assert literals.tolist() == [True, True, False, True, False, False, True, False]
    expected = [0, 0, 0, 0] + 2 * [np.log2(3) - np.log2(5) / 2] + [0, 0] + 3 * [2 - np.log2(8) / 3]
    np.testing.assert_allclose(information_rates(repeats), expected, atol=1e-12)
    assert information_rate(repeats) == pytest.approx(sum(expected))


def test_neither_noise_nor_drone_tells_anything():
    assert information_rate(np.zeros(100, np.int32)) == 0.0
    assert information_rate(np.arange(100)) == 0.0
    assert information_rate(np.zeros(0, np.int32)) == 0.0


@given(st.lists(st.integers(0, 3), max_size=80), st.sampled_from([0.5, 1.0, 2.0]))
def test_words_cover_the_sequence_and_decode_it(symbols, alpha):
    index = TokenIndex.from_symbols(symbols)
    lengths, literals = code_words(index.repeat_lengths())
    assert lengths.sum() == len(symbols)
    decoded = []
    for length, literal in zip(lengths.tolist(), literals.tolist(), strict=True):
        start = len(decoded)
        if literal:
            assert length == 1
            decoded.append(symbols[start])
            continue
        source = index.repeat_position(start + length - 1) + 1 - length
        for i in range(length):  # a copy may reach into itself
            decoded.append(decoded[source + i])
    assert decoded == symbols
    rates = information_rates(index.repeat_lengths(), alpha=alpha)
    assert rates.shape == (len(symbols),)
    assert (rates >= 0).all()


def test_repetition_tells_more_than_its_shuffle():
    rng = np.random.default_rng(0)
    tune = np.tile(rng.integers(0, 16, 32), 12)
    shuffled = rng.permutation(tune)
    rate = [information_rate(TokenIndex.from_symbols(s).repeat_lengths()) for s in (tune, shuffled)]
    assert rate[0] > 1.5 * rate[1] > 0


@pytest.mark.parametrize("bad", [np.zeros((2, 2), np.int32), np.zeros(3), [0, 1]])
def test_bad_repeats_are_refused(bad):
    with pytest.raises(InputError):
        information_rate(bad)


def spectra(path):
    """Log spectra of a real recording, 25 per second: vectors with the distances of music."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True, frames=20 * 48000)
    mono = samples.mean(axis=1)
    hop = rate // 25
    frames = np.lib.stride_tricks.sliding_window_view(mono, 2048)[::hop] * np.hanning(2048).astype(np.float32)
    magnitudes = np.abs(np.fft.rfft(frames, axis=1))[:, 1:257].reshape(len(frames), 64, 4).sum(axis=2)
    return np.log1p(10 * magnitudes).astype(np.float32)


@pytest.mark.parametrize("name", ["rock140_mix", "ballad95_guitar"])
def test_the_threshold_of_real_music_beats_noise_and_drone(name, audio_dir):
    vectors = spectra(audio_dir / f"{name}.ogg")
    search = choose_threshold(vectors, rng=np.random.default_rng(0))
    assert len(vectors) >= 400
    assert len(search.thresholds) == len(search.rates) == len(search.clusters) == 20
    assert list(search.thresholds) == sorted(search.thresholds)
    assert search.rates[search.chosen] == max(search.rates) > 0
    assert 1 < search.clusters[search.chosen] < len(vectors)
    # What the search reports is what the oracle at that threshold has.
    for threshold, rate, clusters in zip(search.thresholds, search.rates, search.clusters, strict=True):
        oracle = AudioOracle.from_vectors(vectors, threshold=threshold)
        assert information_rate(oracle.repeat_lengths()) == rate
        assert oracle.cluster_count == clusters


def test_equal_symbols_with_little_noise_are_told_apart():
    """Where vectors are symbols and a little noise, the threshold lies between noise and symbol distance."""
    rng = np.random.default_rng(1)
    tune = np.tile(rng.integers(0, 12, 40), 15)
    vectors = (np.eye(12)[tune] + 0.02 * rng.normal(size=(600, 12))).astype(np.float32)
    search = choose_threshold(vectors, rng=rng)
    assert search.threshold < np.sqrt(2)
    assert 12 <= search.clusters[search.chosen] <= 40  # of 600 vectors; more literals score a little higher
    exact = information_rate(TokenIndex.from_symbols(tune).repeat_lengths())
    assert search.rates[search.chosen] > 0.8 * exact


def test_the_same_generator_gives_the_same_search():
    vectors = np.random.default_rng(0).normal(size=(400, 5))
    searches = [choose_threshold(vectors, rng=np.random.default_rng(seed)) for seed in (7, 7, 8)]
    assert searches[0] == searches[1] != searches[2]


def test_few_vectors_need_no_sample():
    vectors = np.random.default_rng(0).normal(size=(150, 5))
    searches = [choose_threshold(vectors, rng=np.random.default_rng(seed)) for seed in (7, 8)]
    assert searches[0] == searches[1]


def test_equal_vectors_join_at_the_only_threshold():
    vectors = np.full((50, 3), 0.7, np.float32)
    search = choose_threshold(vectors, rng=np.random.default_rng(0))
    assert search.clusters == (1,)
    assert search.rates == (0.0,)
    assert AudioOracle.from_vectors(vectors, threshold=search.threshold).cluster_count == 1


def test_a_grid_with_zero_distances_stays_positive():
    vectors = np.repeat(np.eye(4, dtype=np.float32), 30, axis=0)
    thresholds = quantile_thresholds(vectors, rng=np.random.default_rng(0), n_values=20)
    assert all(threshold > 0 for threshold in thresholds)
    assert len(set(thresholds)) == len(thresholds)
    search = choose_threshold(vectors, rng=np.random.default_rng(0))
    assert search.clusters[search.chosen] == 4


@pytest.mark.parametrize(
    ("vectors", "n_values"),
    [
        (np.zeros((0, 3)), 20),
        (np.zeros((1, 3)), 20),
        (np.zeros((5, 0)), 20),
        (np.zeros(5), 20),
        (np.array([[0.0], [np.nan]]), 20),
        (np.array([[0.0], [np.inf]]), 20),
        (np.eye(3), 0),
    ],
)
def test_bad_input_is_refused(vectors, n_values):
    with pytest.raises(InputError):
        choose_threshold(vectors, rng=np.random.default_rng(0), n_values=n_values)


def test_two_vectors_are_enough():
    search = choose_threshold(np.array([[0.0], [1.0]]), rng=np.random.default_rng(0))
    assert search.thresholds == (1.0,)
    assert search.clusters == (2,)  # equal is closer than the threshold
