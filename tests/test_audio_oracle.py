"""The Audio Oracle against a plain implementation of the papers, and against what must hold for every oracle."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from musichal.errors import InputError
from musichal.memory.audio_oracle import AudioOracle, exact_squared_distance, nearest_target, rounding_bound
from musichal.memory.oracle_threshold import grow_oracles
from musichal.memory.token_index import TokenIndex


def reverse_links(oracle: AudioOracle, state: int) -> list[int]:
    return (np.flatnonzero(oracle.suffix_links() == state) + 1).tolist()


def members(oracle: AudioOracle, cluster: int) -> list[int]:
    return (np.flatnonzero(oracle.clusters() == cluster) + 1).tolist()


def one_hot(symbols):
    symbols = np.asarray(symbols, dtype=np.int64)
    return np.eye(int(symbols.max(initial=0)) + 1, dtype=np.float32)[symbols]


class PlainOracle:
    """The construction as it is written down: every distance exact, refinement by scanning all reverse links."""

    def __init__(self, vectors, threshold):
        self.sfx, self.lrs, self.trn, self.rsfx, self.label = [None], [0], [[]], [[]], [None]
        for vector in vectors.astype(np.float64):
            self._add(vector, vectors, threshold)

    def _add(self, vector, vectors, threshold):
        sfx, lrs, trn, rsfx, label = self.sfx, self.lrs, self.trn, self.rsfx, self.label
        i = len(sfx)
        sfx.append(0)
        lrs.append(0)
        trn.append([])
        rsfx.append([])
        trn[i - 1].append(i)
        k, p, hit = sfx[i - 1], i - 1, None
        while k is not None:
            ranked = sorted((exact_squared_distance(vector, vectors[t - 1]), t) for t in trn[k])
            if ranked and ranked[0][0] < threshold * threshold:
                hit = ranked[0][1]
                break
            trn[k].append(i)
            p, k = k, sfx[k]
        if hit is None:
            label.append(1 + max((x for x in label if x is not None), default=-1))
        else:
            label.append(label[hit])
            q = hit - 1
            if q == sfx[p]:
                common = lrs[p]
            else:
                while q and sfx[q] != sfx[p]:
                    q = sfx[q]
                common = min(lrs[p], lrs[q])
            sfx[i], lrs[i] = hit, common + 1
            for j in rsfx[hit]:
                if lrs[j] == lrs[i] and label[j - lrs[i]] == label[i - lrs[i]]:
                    sfx[i], lrs[i] = j, lrs[i] + 1
                    break
        rsfx[sfx[i]].append(i)


def columns(oracle):
    n = len(oracle)
    return (
        oracle.suffix_links().tolist(),
        oracle.repeat_lengths().tolist(),
        oracle.clusters().tolist(),
        [oracle.forward_links(s) for s in range(n + 1)],
        [reverse_links(oracle, s) for s in range(n + 1)],
    )


# Coordinates on a coarse grid: many equal vectors, many equal distances, distances that equal the threshold.
GRIDS = hnp.arrays(np.float32, st.tuples(st.integers(1, 40), st.integers(1, 3)), elements=st.integers(-2, 2))
THRESHOLDS = st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0, 10.0])


def test_the_published_example():
    """A b b c a b c d a b c: links, repeat lengths and clusters, worked by hand from the papers."""
    oracle = AudioOracle.from_vectors(one_hot([ord(c) - 97 for c in "abbcabcdabc"]), threshold=0.5)
    assert oracle.suffix_links().tolist() == [0, 0, 2, 0, 1, 2, 4, 0, 1, 2, 7]
    assert oracle.repeat_lengths().tolist() == [0, 0, 1, 0, 1, 2, 2, 0, 1, 2, 3]
    assert oracle.clusters().tolist() == [0, 1, 1, 2, 0, 1, 2, 3, 0, 1, 2]
    assert oracle.forward_links(0) == [1, 2, 4, 8]
    assert oracle.forward_links(2) == [3, 4]
    assert reverse_links(oracle, 2) == [3, 6, 10]
    assert members(oracle, 1) == [2, 3, 6, 10]
    assert oracle.link_count == 16


@given(GRIDS, THRESHOLDS)
def test_it_is_the_oracle_of_the_papers(vectors, threshold):
    oracle, plain = AudioOracle.from_vectors(vectors, threshold=threshold), PlainOracle(vectors, threshold)
    (grown,) = grow_oracles(vectors, [threshold])
    assert (grown.suffix[1:].tolist(), grown.repeat[1:].tolist()) == (plain.sfx[1:], plain.lrs[1:])
    assert columns(oracle) == (
        plain.sfx[1:],
        plain.lrs[1:],
        plain.label[1:],
        [sorted(targets) for targets in plain.trn],
        plain.rsfx,
    )


@given(GRIDS, THRESHOLDS)
def test_no_state_finds_itself_and_every_walk_ends(vectors, threshold):
    oracle = AudioOracle.from_vectors(vectors, threshold=threshold)
    for state in range(1, len(oracle) + 1):
        link = oracle.suffix_link(state)
        assert 0 <= link < state
        assert oracle.repeat_lengths()[state - 1] <= link
        assert (link == 0) == (oracle.repeat_lengths()[state - 1] == 0)
        assert state in reverse_links(oracle, link)
        assert oracle.forward_links(state - 1)[0] == state
        assert state in members(oracle, oracle.clusters()[state - 1])


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60))
def test_links_of_a_string_are_between_n_and_2n_minus_1(symbols):
    """Links to every state within a threshold would make a near-complete graph: a mistake made by others."""
    oracle = AudioOracle.from_vectors(one_hot(symbols), threshold=0.5)
    n = len(symbols)
    assert n <= oracle.link_count <= max(1, 2 * n - 1)
    assert oracle.cluster_count == len(set(symbols))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60))
def test_repeats_of_a_string_are_true_and_bounded_by_the_exact_ones(symbols):
    oracle, exact = AudioOracle.from_vectors(one_hot(symbols), threshold=0.5), TokenIndex.from_symbols(symbols)
    assert (oracle.repeat_lengths() <= exact.repeat_lengths()).all()
    for state in range(1, len(symbols) + 1):
        length, link = oracle.repeat_lengths()[state - 1], oracle.suffix_link(state)
        assert symbols[link - length : link] == symbols[state - length : state]


def test_links_stay_few_where_everything_is_close():
    rng = np.random.default_rng(0)
    vectors = rng.normal(scale=0.01, size=(2000, 8))
    oracle = AudioOracle.from_vectors(vectors, threshold=1.0)
    assert oracle.link_count == 2000
    assert oracle.cluster_count == 1


def phrases(rng, n, dims, noise):
    centres = rng.normal(size=(24, dims))
    bank = rng.integers(0, 24, (12, 10))
    return (centres[bank[rng.integers(0, 12, n // 10)].ravel()] + noise * rng.normal(size=(n, dims))).astype(np.float32)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.2]), st.sampled_from([0.0, 1e4]), st.lists(st.integers(1, 90)))
def test_one_by_one_in_pieces_and_side_by_side_are_equal_bit_for_bit(seed, noise, offset, cuts):
    """An offset makes the fast distances less exact, so that more of them must be decided by the exact one."""
    rng = np.random.default_rng(seed)
    vectors = phrases(rng, 150, 6, noise) + np.float32(offset)
    thresholds = [0.3, 0.8, 1.5, 3.0]
    trials = grow_oracles(vectors, thresholds)
    for threshold, links in zip(thresholds, trials, strict=True):
        whole = AudioOracle.from_vectors(vectors, threshold=threshold)
        single = AudioOracle(6, threshold=threshold)
        assert [single.append(vector) for vector in vectors] == list(range(1, 151))
        pieces = AudioOracle(6, threshold=threshold)
        for piece in np.split(vectors, sorted({cut for cut in cuts if cut < 150})):
            pieces.extend(piece)
        assert columns(single) == columns(whole) == columns(pieces)
        plain = PlainOracle(vectors, threshold)
        assert whole.suffix_links().tolist() == plain.sfx[1:] == links.suffix[1:].tolist()
        assert whole.repeat_lengths().tolist() == plain.lrs[1:] == links.repeat[1:].tolist()
        assert whole.clusters().tolist() == plain.label[1:] == links.cluster[1:].tolist()
        assert [whole.forward_links(s)[1:] for s in range(150)] == [links.forward(s)[::-1] for s in range(150)]


@given(st.integers(0, 2**32 - 1))
def test_distances_a_hair_below_the_threshold_are_hits_everywhere(seed):
    """Where only the exact distance can tell, it does: thresholds just above distances that occur."""
    rng = np.random.default_rng(seed)
    vectors = phrases(rng, 60, 3, 0.0) + np.float32(100)
    known = {exact_squared_distance(a, b) for a in vectors[:12] for b in vectors[:12]} - {0.0}
    thresholds = [float(np.nextafter(np.sqrt(d), np.inf)) for d in sorted(known)][::7]
    for threshold, links in zip(thresholds, grow_oracles(vectors, thresholds), strict=True):
        plain = PlainOracle(vectors, threshold)
        assert plain.sfx[1:] == links.suffix[1:].tolist()
        assert plain.sfx[1:] == AudioOracle.from_vectors(vectors, threshold=threshold).suffix_links().tolist()


def test_side_by_side_across_blocks_of_distances():
    vectors = phrases(np.random.default_rng(3), 1500, 8, 0.3)
    thresholds = [0.2, 0.6, 1.0, 1.4, 2.0]
    for threshold, links in zip(thresholds, grow_oracles(vectors, thresholds), strict=True):
        oracle = AudioOracle.from_vectors(vectors, threshold=threshold)
        assert oracle.suffix_links().tolist() == links.suffix[1:].tolist()
        assert oracle.repeat_lengths().tolist() == links.repeat[1:].tolist()
        assert [oracle.forward_links(s)[1:] for s in range(1500)] == [links.forward(s)[::-1] for s in range(1500)]


@given(
    hnp.arrays(np.float64, (7, 5), elements=st.floats(-1e3, 1e3, width=32)),
    hnp.arrays(np.float64, 5, elements=st.floats(-1e3, 1e3, width=32)),
)
def test_fast_distances_are_within_their_bound(rows, vector):
    exact = np.array([exact_squared_distance(row, vector) for row in rows])
    norms = (rows**2).sum(axis=1)
    bound = rounding_bound(5, max(norms.max(), vector @ vector))
    assert (np.abs(norms - 2 * (rows @ vector) + vector @ vector - exact) <= bound).all()
    difference = rows - vector
    assert (np.abs(np.einsum("ij,ij->i", difference, difference) - exact) <= bound).all()


@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
def test_wrong_approximations_within_the_bound_change_nothing(seed, n):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 9, n)
    expected = min(zip(truth.tolist(), range(1, n + 1), strict=True))
    approximate = truth + rng.uniform(-1, 1, n)
    found = nearest_target(list(range(1, n + 1)), approximate, lambda i: float(truth[i - 1]), limit=5.0, bound=1.0)
    assert found == (expected[1] if expected[0] < 5 else 0)


@given(GRIDS, THRESHOLDS, st.integers(0, 40))
def test_arrays_restore_an_oracle_that_grows_on_alike(vectors, threshold, cut):
    whole = AudioOracle.from_vectors(vectors, threshold=threshold)
    first = AudioOracle(vectors.shape[1], threshold=threshold)
    first.extend(vectors[:cut])
    again = AudioOracle.from_arrays(first.to_arrays())
    assert columns(again) == columns(first)
    again.extend(vectors[cut:])
    assert columns(again) == columns(whole)
    assert again.vectors().tobytes() == whole.vectors().tobytes()
    assert again.threshold == threshold


INT_ROWS = hnp.arrays(np.int32, 6, elements=st.integers(-2, 8))
PAIRS = hnp.arrays(np.int32, st.tuples(st.integers(0, 6), st.just(2)), elements=st.integers(-2, 8))


@given(INT_ROWS, INT_ROWS, PAIRS, st.booleans())
def test_arrays_of_a_stranger_are_refused_or_harmless(suffix, repeat, pairs, keep):
    vectors = one_hot([0, 1, 1, 0, 1, 0])
    arrays = AudioOracle.from_vectors(vectors, threshold=0.5).to_arrays()
    if keep:  # hostile in one column only, so that some get through
        arrays["repeat_lengths"] = np.minimum(np.abs(repeat), arrays["suffix_links"]).astype(np.int32)
    else:
        arrays |= {"suffix_links": suffix, "repeat_lengths": repeat, "forward_links": pairs}
    try:
        oracle = AudioOracle.from_arrays(arrays)
    except InputError:
        return
    oracle.extend(np.concatenate([vectors, vectors]))
    assert len(oracle) == 18
    assert all(0 <= oracle.suffix_link(s) < s and oracle.repeat_lengths()[s - 1] < s for s in range(1, 19))


@pytest.mark.parametrize(
    "change",
    [
        {"vectors": np.full((6, 2), np.nan, np.float32)},
        {"vectors": np.zeros((5, 2), np.float32)},
        {"vectors": np.zeros(6, np.float32)},
        {"vectors": np.array([["a", "b"]] * 6)},
        {"threshold": np.array(np.nan)},
        {"threshold": np.array(0.0)},
        {"threshold": np.array([0.5])},
        {"suffix_links": np.zeros(6, np.float32)},
        {"suffix_links": np.array([1, 0, 2, 1, 3, 4], np.int32)},
        {"suffix_links": np.zeros(6, np.int32)},
        {"repeat_lengths": np.array([0, 0, 9, 1, 1, 1], np.int32)},
        {"repeat_lengths": np.zeros((6, 1), np.int32)},
        {"repeat_lengths": np.zeros(6, np.int32)},
        {"forward_links": np.zeros((0, 2), np.int32)},
        {"forward_links": np.zeros((2, 3), np.int32)},
        {"forward_links": np.array([[0, 2], [0, 2]], np.int32)},
        {"forward_links": np.array([[0, 2], [1, 99]], np.int32)},
        {"more": np.zeros(1)},
    ],
)
def test_damaged_arrays_are_refused(change):
    arrays = AudioOracle.from_vectors(one_hot([0, 1, 1, 0, 1, 0]), threshold=0.5).to_arrays()
    AudioOracle.from_arrays(arrays)
    with pytest.raises(InputError):
        AudioOracle.from_arrays(arrays | change)


@pytest.mark.parametrize("threshold", [0.0, -1.0, np.nan, np.inf])
def test_a_bad_threshold_is_refused(threshold):
    with pytest.raises(InputError):
        AudioOracle(2, threshold=threshold)


@pytest.mark.parametrize(
    "vectors",
    [
        np.array([[1.0, np.nan]]),
        np.array([[1.0, np.inf]]),
        np.array([[1.0, 1e300]]),
        np.zeros((1, 3)),
        np.zeros(2),
        np.array([[1j, 0]]),
        [[0.0, 0.0]],
    ],
)
def test_bad_vectors_are_refused_and_nothing_is_appended(vectors):
    oracle = AudioOracle.from_vectors(np.eye(2), threshold=0.5)
    with pytest.raises(InputError):
        oracle.extend(vectors)
    with pytest.raises(InputError):
        oracle.append(np.array([np.nan, 0.0]))
    assert len(oracle) == 2


def test_bad_places_are_refused():
    oracle = AudioOracle.from_vectors(np.eye(2), threshold=0.5)
    with pytest.raises(IndexError):
        oracle.suffix_link(0)
    for call in (oracle.suffix_link, oracle.forward_links):
        for state in (-1, 3):
            with pytest.raises(IndexError):
                call(state)
    with pytest.raises(InputError):
        AudioOracle(0, threshold=1.0)


def test_an_empty_oracle():
    oracle = AudioOracle(4, threshold=1.0)
    oracle.extend(np.empty((0, 4)))
    assert (len(oracle), oracle.link_count, oracle.cluster_count) == (0, 0, 0)
    assert oracle.forward_links(0) == reverse_links(oracle, 0) == []
    assert len(AudioOracle.from_arrays(oracle.to_arrays())) == 0


def test_alike_are_the_states_that_share_a_context_the_longest_first() -> None:
    symbols = [0, 1, 2, 0, 1, 3, 0, 1, 2]
    oracle = AudioOracle.from_vectors(one_hot(symbols), threshold=0.5)
    assert oracle.alike(9, 4) == [(3, 3)]
    assert oracle.alike(8, 4) == [(2, 2), (5, 2)]
    assert oracle.alike(6, 4) == []
    for state in range(1, 10):
        for other, length in oracle.alike(state, 16):
            assert symbols[other - length : other] == symbols[state - length : state]
