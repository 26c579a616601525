"""K-means vocabularies: the same frames give the same tokens, on every machine load."""

import hashlib
import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from musichal.arrays import Float32, RowFile
from musichal.errors import InputError
from musichal.hearing.gestures import frame_costs
from musichal.hearing.vocabulary import Vocabulary, _assign, _means, fit_vocabulary, nearest
from musichal.spec import VocabularySpec

NORMALISATIONS = ("scale", "l2-pca")


def spec(size: int, normalisation: str = "scale", **more: int) -> VocabularySpec:
    return VocabularySpec(size=size, normalisation=normalisation, **more)


def planted(clusters: int, *, dims: int = 12, each: int = 100, seed: int = 0) -> tuple[Float32, np.ndarray]:
    """Return frames around well separated centres, shuffled, with the cluster that each belongs to."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, dims))
    labels = rng.permutation(np.repeat(np.arange(clusters), each))
    return (centres[labels] + 0.01 * rng.standard_normal((len(labels), dims))).astype(np.float32), labels


def music(n: int = 3000, dims: int = 73, seed: int = 0) -> Float32:
    """Return frames as music gives them: correlated in time, of uneven size, non-negative."""
    rng = np.random.default_rng(seed)
    walk = np.einsum("ni,id->nd", np.cumsum(rng.standard_normal((n, 6)), axis=0), rng.standard_normal((6, dims)))
    return np.abs(walk + rng.standard_normal((n, dims))).astype(np.float32)


def tokens(vocabulary: Vocabulary, features: Float32) -> np.ndarray:
    return nearest(vocabulary.distances(vocabulary.normalise(features)))


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("clusters", [2, 8, 16])
def test_planted_clusters_are_recovered(clusters: int, normalisation: str) -> None:
    features, labels = planted(clusters)
    vocabulary = fit_vocabulary(features, spec(clusters, normalisation, restarts=4), source="harmonic")
    found = tokens(vocabulary, features)
    pairs = set(zip(labels.tolist(), found.tolist(), strict=True))
    assert len(pairs) == clusters
    assert vocabulary.counts.tolist() == [100] * clusters


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_frames_in_a_file_give_the_same_bytes(tmp_path, normalisation: str) -> None:
    features = music(9000)
    rows = RowFile(features.shape[1], tmp_path)
    for first in range(0, len(features), 777):
        rows.append(features[first : first + 777])
    in_memory, in_file = (fit_vocabulary(x, spec(16, normalisation), source="a", folder=tmp_path) for x in (features, rows))
    assert in_memory.digest() == in_file.digest()
    assert np.array_equal(in_memory.counts, in_file.counts)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_training_twice_gives_the_same_bytes(normalisation: str) -> None:
    """Other trainers repaired empty clusters with an unseeded generator: two trainings of one recording differed."""
    features = music()
    np.random.seed(1)  # noqa: NPY002 - a global generator must not matter
    first = fit_vocabulary(features, spec(64, normalisation), source="harmonic")
    np.random.seed(2)  # noqa: NPY002
    second = fit_vocabulary(features, spec(64, normalisation), source="harmonic")
    assert first.digest() == second.digest()
    assert first.centres.tobytes() == second.centres.tobytes()
    assert (first.spread, first.scale) == (second.spread, second.scale)


_FRESH = """
import sys
sys.path.insert(0, sys.argv[1])
from test_vocabulary import fingerprint
print(fingerprint())
"""


def fingerprint() -> str:
    h = hashlib.sha256()
    for normalisation in NORMALISATIONS:
        features = music(5000)
        vocabulary = fit_vocabulary(features, spec(64, normalisation), source="harmonic")
        h.update(vocabulary.digest().encode() + vocabulary.counts.tobytes() + tokens(vocabulary, features).tobytes())
    return h.hexdigest()


def test_a_fresh_process_with_other_threads_learns_the_same() -> None:
    threads = "2"  # conftest has one
    environment = dict(os.environ) | {"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads, "PYTHONHASHSEED": threads}
    here = os.path.dirname(__file__)  # noqa: PTH120
    done = subprocess.run([sys.executable, "-c", _FRESH, here], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == fingerprint()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_token_is_left_without_frames(seed: int) -> None:
    """Two distant heaps and many repeated frames: plain Lloyd iterations leave clusters empty here."""
    rng = np.random.default_rng(seed)
    rare = rng.standard_normal((40, 8))
    features = np.concatenate([np.repeat(rare, 30, axis=0), 20 + 0.1 * rng.standard_normal((2000, 8))]).astype(np.float32)
    vocabulary = fit_vocabulary(features, spec(48, seed=seed), source="harmonic")
    assert vocabulary.counts.min() > 0
    assert vocabulary.counts.sum() == len(features)
    assert len(np.unique(vocabulary.centres, axis=0)) == 48


def test_a_loop_with_as_many_frames_as_tokens_can_be_learned() -> None:
    """Each frame is its own centre then, and the mean distance zero; distances are still measured in its units."""
    frames = np.repeat(np.random.default_rng(0).standard_normal((16, 5)), 10, axis=0).astype(np.float32)
    vocabulary = fit_vocabulary(frames, spec(16), source="harmonic")
    assert vocabulary.spread > 0
    distances = vocabulary.distances(vocabulary.normalise(frames))
    costs = frame_costs(distances, np.ones(len(frames), dtype=bool), spread=vocabulary.spread, silence_cost=4.0)
    assert np.isfinite(costs).all()
    assert len(set(nearest(distances).tolist())) == 16


@pytest.mark.parametrize("features", [np.zeros((0, 4)), np.ones((7, 4)), np.ones((500, 4)), np.repeat(np.eye(4), 100, axis=0)])
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_too_few_different_frames_are_refused(features: np.ndarray, normalisation: str) -> None:
    with pytest.raises(InputError, match="too little sound for 8 tokens: the percussive source"):
        fit_vocabulary(features.astype(np.float32), spec(8, normalisation), source="percussive")


def test_learning_needs_no_more_than_a_few_times_the_frames() -> None:
    features = np.random.default_rng(0).standard_normal((60_000, 40)).astype(np.float32)
    spec = VocabularySpec(size=4, restarts=1, max_iterations=1)
    tracemalloc.start()
    try:
        fit_vocabulary(features, spec, source="harmonic")
        assert tracemalloc.get_traced_memory()[1] < 3.5 * features.nbytes
    finally:
        tracemalloc.stop()


def test_scale_divides_by_one_number_and_keeps_the_geometry() -> None:
    features = music(500, 9)
    vocabulary = fit_vocabulary(features, spec(8), source="harmonic")
    np.testing.assert_allclose(vocabulary.normalise(features) * vocabulary.scale, features, rtol=1e-5)
    assert vocabulary.scale == pytest.approx(np.sqrt(features.var(axis=0, dtype=np.float64).sum()), rel=1e-5)
    louder = fit_vocabulary(features * np.float32(4), spec(8), source="harmonic")
    np.testing.assert_array_equal(tokens(louder, features * np.float32(4)), tokens(vocabulary, features))


def test_l2_pca_ignores_level_and_keeps_the_directions_that_matter() -> None:
    features = music(800, 100)
    vocabulary = fit_vocabulary(features, spec(16, "l2-pca"), source="harmonic")
    assert vocabulary.normalise(features).shape == (800, 64)
    np.testing.assert_allclose(vocabulary.normalise(features * np.float32(8)), vocabulary.normalise(features), atol=1e-6)
    unit = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float64)
    centred = unit - unit.mean(axis=0)
    values = np.linalg.svd(centred, compute_uv=False) ** 2
    kept = np.sum(vocabulary.normalise(features).astype(np.float64) ** 2)
    assert kept == pytest.approx(values[:64].sum(), rel=1e-4)
    basis = vocabulary.projection
    np.testing.assert_allclose(basis.T @ basis, np.eye(64), atol=5e-4)
    assert (basis[np.argmax(np.abs(basis), axis=0), np.arange(64)] > 0).all()


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 4), st.just(300)), elements=st.floats(-(2.0**60), 2.0**60, width=32)))
def test_a_projection_is_exact_so_that_no_order_of_its_sums_can_matter(features: Float32) -> None:
    """Held against whole numbers of Python, which have no largest, and no partial sum may pass what float64 holds exactly."""
    vocabulary = fit_vocabulary(music(500, 300), spec(8, "l2-pca"), source="harmonic")
    squares = np.einsum("nd,nd->n", features, features).astype(np.float64)
    unit = features.astype(np.float64) * (2.0**36 / np.maximum(np.sqrt(squares), 1e-12))[:, None]
    origin = np.rint(vocabulary.mean.astype(np.float64) * 2.0**36)
    directions = np.rint(vocabulary.projection.astype(np.float64) * 2.0**14)
    np.testing.assert_array_equal(directions, vocabulary.projection.astype(np.float64) * 2.0**14)
    parts = [np.vectorize(int, otypes=[object])(a) for a in (np.rint(unit), origin, directions)]
    exact = (parts[0] @ parts[2] - parts[1] @ parts[2]).astype(np.float64) * 2.0**-50
    assert vocabulary.normalise(features).tobytes() == exact.astype(np.float32).tobytes()
    assert (abs(parts[0]) @ abs(parts[2]) + abs(parts[1]) @ abs(parts[2])).max() < 2**53


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 30), st.just(5)), elements=st.floats(-3, 3, width=32)),
    st.sampled_from(NORMALISATIONS),
)
def test_tokens_are_the_nearest_centres(features: Float32, normalisation: str) -> None:
    vocabulary = fit_vocabulary(music(200, 5), spec(8, normalisation), source="harmonic")
    x = vocabulary.normalise(features)
    exact = ((x[:, None].astype(np.float64) - vocabulary.centres[None]) ** 2).sum(axis=2)
    found = nearest(vocabulary.distances(x))
    np.testing.assert_allclose(vocabulary.distances(x), exact, atol=1e-3, rtol=1e-4)
    own = exact[np.arange(len(x)), found]
    assert (own <= exact.min(axis=1) + 1e-4 * (1 + exact.min(axis=1))).all()
    assert found.dtype == np.int16


@given(cuts=st.lists(st.integers(0, 300), max_size=10), normalisation=st.sampled_from(NORMALISATIONS))
def test_a_frame_has_the_same_token_in_any_company(cuts: list[int], normalisation: str) -> None:
    features = music(300, 73)
    vocabulary = fit_vocabulary(features, spec(32, normalisation), source="harmonic")
    parts = [p for p in np.split(features, sorted(cuts)) if len(p)]
    single = np.concatenate([vocabulary.distances(vocabulary.normalise(p)) for p in parts])
    assert single.tobytes() == vocabulary.distances(vocabulary.normalise(features)).tobytes()


def test_of_equally_near_centres_the_first_is_taken() -> None:
    assert nearest(np.array([[3, 1, 1], [2, 2, 2]], dtype=np.float32)).tolist() == [1, 0]


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_the_digest_tells_whatever_shapes_a_token(normalisation: str) -> None:
    vocabulary = fit_vocabulary(music(500, 20), spec(8, normalisation), source="harmonic")
    changed = [
        replace(vocabulary, centres=np.nextafter(vocabulary.centres, np.float32(9))),
        replace(vocabulary, centres=vocabulary.centres[::-1].copy()),
        replace(vocabulary, scale=vocabulary.scale * (1 + 1e-12)),
        replace(vocabulary, spread=vocabulary.spread * (1 + 1e-12)),
        replace(vocabulary, mean=vocabulary.mean + 1) if normalisation == "l2-pca" else replace(vocabulary, normalisation="x"),
    ]
    assert len({v.digest() for v in [vocabulary, *changed]}) == 1 + len(changed)
    assert vocabulary.digest() == replace(vocabulary, counts=vocabulary.counts + 1).digest()


def test_another_seed_starts_elsewhere() -> None:
    features = music()
    assert (
        fit_vocabulary(features, spec(64), source="a").digest()
        != fit_vocabulary(features, spec(64, seed=1), source="a").digest()
    )


def test_the_counts_and_the_spread_are_those_of_the_tokens() -> None:
    features = music()
    vocabulary = fit_vocabulary(features, spec(32), source="harmonic")
    distances = vocabulary.distances(vocabulary.normalise(features))
    np.testing.assert_allclose(np.bincount(nearest(distances), minlength=32), vocabulary.counts, atol=2)
    assert vocabulary.spread == pytest.approx(float(distances.min(axis=1).mean()), rel=1e-3)
    assert (vocabulary.size, vocabulary.dims) == (32, 73)


def test_an_empty_cluster_restarts_at_the_frame_farthest_from_its_centre() -> None:
    """Each empty cluster at another frame, the same in every run: nothing is drawn at random."""
    frames = np.array([[0.0], [1.0], [2.0], [30.0], [40.0]], dtype=np.float32)
    labels = np.zeros(5, dtype=np.int64)
    centres = _means(frames, labels, ((frames - 1) ** 2).sum(axis=1).astype(np.float64), 3)
    np.testing.assert_allclose(centres[:, 0], [14.6, 40, 30])


def test_near_ties_are_decided_by_sums_in_a_fixed_order() -> None:
    """Frames half way between two centres: there the rounding of a matrix product, which varies with threads, would decide."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((64, 137)).astype(np.float32)
    a, b = rng.integers(0, 64, (2, 6000))
    frames = ((centres[a] + centres[b]) / 2).astype(np.float32)
    labels, distance = _assign(frames, centres)
    squares = np.einsum("kd,kd->k", centres, centres)
    np.testing.assert_array_equal(labels, np.argmin(squares - 2 * np.einsum("nd,kd->nk", frames, centres), axis=1))
    np.testing.assert_allclose(distance, ((frames - centres[labels]) ** 2).sum(axis=1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_a_vocabulary_read_back_gives_the_same_bits(normalisation: str) -> None:
    """A partner file keeps values, not how they lay in memory; sums must not follow that layout."""
    features = music(dims=300)
    learned = fit_vocabulary(features, spec(16, normalisation), source="harmonic")
    read = replace(
        learned,
        **{
            name: np.frombuffer(getattr(learned, name).tobytes(), np.float32).reshape(getattr(learned, name).shape)
            for name in ("centres", "mean", "projection")
        },
    )
    x = learned.normalise(features[:26])
    assert x.tobytes() == read.normalise(features[:26]).tobytes()
    assert learned.distances(x).tobytes() == read.distances(x).tobytes()


def test_of_a_drone_the_tokens_that_are_heard_are_counted():
    """Its frames differ by rounding alone: which of many centres is the nearest depends on how distances are computed."""
    rng = np.random.default_rng(0)
    drone = (1 + 1e-5 * rng.normal(size=(1500, 24))).astype(np.float32)
    vocabulary = fit_vocabulary(drone, VocabularySpec(), source="harmonic")
    tokens = nearest(vocabulary.distances(vocabulary.normalise(drone)))
    assert vocabulary.counts.tolist() == np.bincount(tokens, minlength=64).tolist()
    assert vocabulary.alike().all()
    music = fit_vocabulary(rng.normal(size=(1500, 24)).astype(np.float32), VocabularySpec(), source="harmonic")
    assert np.array_equal(music.alike(), np.eye(64, dtype=bool))


def test_what_is_left_of_clicks_is_one_sound_but_for_rounding():
    """Two of three sounds are all but zero; relative to their own size they are far apart."""
    rng = np.random.default_rng(0)
    x = np.zeros((600, 4), np.float32)
    x[:200, 0] = 1.0
    x[200:] = 1e-7 * rng.standard_normal((400, 4))
    alike = fit_vocabulary(x, VocabularySpec(size=8, restarts=2), source="clicks").alike()
    assert alike.sum(axis=1).max() >= 4
    assert not alike.all()
