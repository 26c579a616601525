"""Speed and size of the memory's indexes, beside vmo 0.30.5 on the same strings and vectors in the same run.

Conventions
-----------
Each measurement runs in a process of its own with one BLAS thread. Times are CPU time where the platform's clock is
fine enough for it (it does not count what other programs did meanwhile), wall time elsewhere; a build is the median of
several where it is short. Resident memory is the growth of the process's resident set from before the first token.

The strings are music-like in four ways: phrases from a bank that are varied and slowly replaced, a Markov chain with
few likely successors, uniform noise, and one constant token; figures are those of the worst of the four.
"""

import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from statistics import median
from typing import Any

import numpy as np

from benchmarks.figure import Figure
from benchmarks.process import in_own_process
from musichal.arrays import Float32, Int64
from musichal.errors import InputError, MissingExtraError, install_hint
from musichal.memory.audio_oracle import AudioOracle
from musichal.memory.oracle_threshold import choose_threshold, information_rate
from musichal.memory.token_index import TokenIndex

STRING_KINDS = ("phrases", "markov", "random", "constant")
VOCABULARY = 64
_LARGE_DIMS = 64
PEER = "vmo 0.30.5"
_MODULE = "benchmarks.memory_speed"


def token_string(kind: str, n: int, *, rng: np.random.Generator) -> Int64:
    """Return `n` tokens of one of `STRING_KINDS`. Raises `InputError` for another."""
    if kind == "phrases":
        return _phrases(n, rng)
    if kind == "markov":
        # Some four likely successors for each of 64 tokens and SILENCE.
        chain = rng.dirichlet(np.full(VOCABULARY + 1, 0.05), VOCABULARY + 1).cumsum(axis=1)
        draws, tokens, state = rng.random(n), np.empty(n, dtype=np.int64), 0
        for i in range(n):
            state = min(int(np.searchsorted(chain[state], draws[i])), VOCABULARY)
            tokens[i] = state - 1
        return tokens
    if kind == "random":
        return rng.integers(0, VOCABULARY, n)
    if kind == "constant":
        return np.zeros(n, dtype=np.int64)
    raise InputError(f"no strings of kind {kind!r}; there are {', '.join(STRING_KINDS)}")


def _phrases(n: int, rng: np.random.Generator) -> Int64:
    bank = [rng.integers(0, VOCABULARY, rng.integers(6, 24)) for _ in range(40)]
    played: list[Int64] = []
    count = 0
    while count < n:
        phrase = bank[rng.integers(len(bank))].copy()
        if rng.random() < 0.4:
            for _ in range(rng.integers(1, 3)):
                phrase[rng.integers(len(phrase))] = rng.integers(0, VOCABULARY)
        if rng.random() < 0.02:
            bank[rng.integers(len(bank))] = rng.integers(0, VOCABULARY, rng.integers(6, 24))
        played.append(phrase)
        count += len(phrase)
    return np.concatenate(played)[:n]


def sound_vectors(n: int, dims: int, *, rng: np.random.Generator) -> Float32:
    """Return `n` vectors of `dims`: 64 sounds with variation, in phrases that come back; shape (n, dims)."""
    sounds = rng.normal(size=(VOCABULARY, dims))
    return (sounds[_phrases(n, rng)] + 0.3 * rng.normal(size=(n, dims))).astype(np.float32)


def measure_memory(
    *, small: int = 10_000, large: int = 1_000_000, vectors: int = 10_000, peer_vectors: int = 1_000, seed: int = 0
) -> tuple[Figure, ...]:
    """Measure everything here, in about two minutes at full size.

    The peer's threshold search is compared at `peer_vectors`, for it takes minutes at 10,000. Raises
    `MissingExtraError` where psutil or vmo are missing.
    """
    return (
        *measure_token_index(small=small, large=large, seed=seed),
        *measure_audio_oracle(vectors=vectors, large=large, peer_vectors=peer_vectors, seed=seed),
    )


def measure_token_index(*, small: int = 10_000, large: int = 1_000_000, seed: int = 0) -> tuple[Figure, ...]:
    """Measure building, growing and asking a `TokenIndex`. Raises `MissingExtraError`."""
    _bench_module("psutil")
    _bench_module("vmo")
    short = [in_own_process(_MODULE, "small-index", kind=kind, n=small, seed=seed) for kind in STRING_KINDS]
    long = [in_own_process(_MODULE, "large-index", kind=kind, n=large, seed=seed) for kind in STRING_KINDS]

    def worst(runs: list[dict[str, float]], key: str) -> float:
        return max(run[key] for run in runs)

    at_large = f"at {large:,} tokens"
    phrases = short[STRING_KINDS.index("phrases")]
    return (
        Figure(
            f"token index, build of {small:,}",
            worst(short, "build_ms"),
            "ms",
            goal=50,
            peer=f"{PEER}, factor oracle",
            peer_value=worst(short, "peer_build_ms"),
        ),
        Figure(
            f"token index, exact repeat lengths in {small:,} of phrases",
            phrases["exact_share"],
            "share",
            goal=1,
            at_least=True,
            peer=f"{PEER}, factor oracle",
            peer_value=phrases["peer_exact_share"],
        ),
        Figure(f"token index, build of {large:,}", worst(long, "build_s"), "s", goal=10),
        Figure(f"token index, resident {at_large}", worst(long, "resident_mb"), "MB", goal=500),
        Figure(f"token index, append p99 {at_large}", worst(long, "append_p99_ms"), "ms", goal=0.2),
        Figure(f"token index, longest context p99 {at_large}", worst(long, "query_p99_ms"), "ms", goal=0.2),
        Figure(f"token index, 64 candidates p99 {at_large}", worst(long, "candidates_p99_ms"), "ms"),
    )


def measure_audio_oracle(
    *, vectors: int = 10_000, large: int = 1_000_000, dims: int = 128, peer_vectors: int = 1_000, seed: int = 0
) -> tuple[Figure, ...]:
    """Measure building and growing an `AudioOracle`, its links and its threshold. Raises `MissingExtraError`."""
    _bench_module("vmo")
    full = in_own_process(_MODULE, "oracle", n=vectors, dims=dims, seed=seed)
    long = in_own_process(_MODULE, "large-oracle", n=large, dims=_LARGE_DIMS, seed=seed)
    part = in_own_process(_MODULE, "search", n=peer_vectors, dims=dims, seed=seed)
    size, part_size = f"{vectors:,} × {dims}", f"{peer_vectors:,} × {dims}"
    return (
        Figure(
            f"audio oracle, build of {size}",
            full["build_s"],
            "s",
            goal=0.5,
            peer=PEER,
            peer_value=full["peer_build_s"],
        ),
        Figure(f"audio oracle, links equal to the peer's, {size}", full["agreement"], "share", goal=1, at_least=True),
        Figure(f"audio oracle, append p99 at {size}", full["append_p99_ms"], "ms"),
        Figure(f"audio oracle, append p99 at {large:,} × {_LARGE_DIMS}", long["append_p99_ms"], "ms", goal=0.3),
        Figure(f"audio oracle, links of a state p99 at {large:,}", long["alike_p99_ms"], "ms"),
        Figure(f"threshold search, 20 values, {size}", full["search_s"], "s", goal=5),
        Figure(
            f"threshold search, 20 values, {part_size}",
            part["search_s"],
            "s",
            peer=PEER,
            peer_value=part["peer_search_s"],
        ),
        Figure(
            f"information rate at the chosen threshold, {part_size}",
            part["rate"],
            "bits",
            peer=PEER,
            peer_value=part["peer_rate"],
        ),
    )


def _bench_module(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise MissingExtraError(f"this benchmark needs {name}; {install_hint('bench')}") from None


def _clock() -> Callable[[], float]:
    fine = time.get_clock_info("thread_time").resolution <= 1e-6
    return time.thread_time if fine else time.perf_counter


def _seconds(action: Callable[[], object], *, repeats: int = 1) -> float:
    clock = _clock()
    taken = []
    for _ in range(repeats):
        start = clock()
        action()
        taken.append(clock() - start)
    return median(taken)


def _p99_ms(action: Callable[[Any], object], items: list[Any]) -> float:
    clock = _clock()
    taken = np.empty(len(items))
    for i, item in enumerate(items):
        start = clock()
        action(item)
        taken[i] = clock() - start
    return 1e3 * float(np.percentile(taken, 99))


def _small_index(kind: str, n: int, seed: int) -> dict[str, float]:
    tokens = token_string(kind, n, rng=np.random.default_rng(seed))
    oracles = _bench_module("vmo.VMO.oracle")
    symbols = tokens.tolist()

    def build_peer() -> Any:
        peer = oracles.create_oracle("f")
        for symbol in symbols:
            peer.add_state(symbol)
        return peer

    exact = TokenIndex.from_symbols(tokens).repeat_lengths()
    result = {
        "build_ms": 1e3 * _seconds(lambda: TokenIndex.from_symbols(tokens), repeats=5),
        "peer_build_ms": 1e3 * _seconds(build_peer, repeats=5),
        "peer_exact_share": float(np.mean(exact == np.array(build_peer().lrs[1:]))),
    }
    if kind == "phrases":
        result["exact_share"] = _exact_share(tokens, exact)
    return result


def _exact_share(tokens: Int64, lengths: Any) -> float:
    """Return the share of positions whose repeat length is what a search of the text itself finds."""
    text = (tokens + 2).astype(np.uint8).tobytes()
    right = 0
    for end, length in enumerate(lengths.tolist(), start=1):
        occurs = not length or text.find(text[end - length : end], 0, end - 1) >= 0
        longer_occurs = length < end - 1 and text.find(text[end - length - 1 : end], 0, end - 1) >= 0
        right += occurs and not longer_occurs
    return right / len(tokens)


def _large_index(kind: str, n: int, seed: int) -> dict[str, float]:
    psutil = _bench_module("psutil")
    rng = np.random.default_rng(seed)
    tokens = token_string(kind, n, rng=rng)
    process = psutil.Process()
    before = process.memory_info().rss
    index = TokenIndex()
    build_s = _seconds(lambda: index.extend(tokens))
    resident_mb = (process.memory_info().rss - before) / 1e6
    # What a player plays: places of the memory with one token changed, so that contexts of all lengths match.
    contexts = []
    for _ in range(4000):
        end = int(rng.integers(64, n))
        recent = tokens[end - 64 : end].tolist()
        recent[rng.integers(64)] = int(rng.integers(VOCABULARY))
        contexts.append(recent)
    return {
        "build_s": build_s,
        "resident_mb": resident_mb,
        "query_p99_ms": _p99_ms(index.longest_context, contexts),
        "candidates_p99_ms": _p99_ms(index.candidates, contexts),
        "append_p99_ms": _p99_ms(index.append, token_string(kind, 20_000, rng=rng).tolist()),
    }


def _oracle(n: int, dims: int, seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    vectors = sound_vectors(n, dims, rng=rng)
    clock = _clock()
    start = clock()
    search = choose_threshold(vectors, rng=rng)
    search_s = clock() - start
    threshold = search.threshold
    oracles = _bench_module("vmo.VMO.oracle")

    def build_peer() -> Any:
        return oracles.build_oracle(vectors, flag="a", threshold=threshold, dfunc="euclidean", dim=dims)

    oracle = AudioOracle.from_vectors(vectors, threshold=threshold)
    peer = build_peer()
    grown = AudioOracle.from_vectors(vectors[: n - n // 5], threshold=threshold)
    return {
        "search_s": search_s,
        "build_s": _seconds(lambda: AudioOracle.from_vectors(vectors, threshold=threshold), repeats=3),
        "peer_build_s": _seconds(build_peer),
        "append_p99_ms": _p99_ms(grown.append, list(vectors[n - n // 5 :])),
        "agreement": float(np.mean(oracle.suffix_links() == np.array(peer.sfx[1:]))),
    }


def _large_oracle(n: int, dims: int, seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    vectors = sound_vectors(n + 2000, dims, rng=rng)
    threshold = choose_threshold(vectors, rng=rng, least_clusters=VOCABULARY).threshold
    oracle = AudioOracle.from_vectors(vectors[:n], threshold=threshold)
    return {
        "append_p99_ms": _p99_ms(oracle.append, list(vectors[n:])),
        "alike_p99_ms": _p99_ms(lambda state: oracle.alike(state, 16), rng.integers(1, n, 2000).tolist()),
    }


def _search(n: int, dims: int, seed: int) -> dict[str, float]:
    vectors = sound_vectors(n, dims, rng=np.random.default_rng(seed))
    search = choose_threshold(vectors, rng=np.random.default_rng(seed))
    oracles = _bench_module("vmo.VMO.oracle")
    low, high = search.thresholds[0], search.thresholds[-1]
    grid = (low, high, (high - low) / 20)

    def search_peer() -> Any:
        return oracles.find_threshold(vectors, r=grid, flag="a", dfunc="euclidean", dim=dims)

    threshold = search.threshold
    peer = oracles.build_oracle(vectors, flag="a", threshold=threshold, dfunc="euclidean", dim=dims)
    oracle = AudioOracle.from_vectors(vectors, threshold=threshold)
    return {
        "search_s": _seconds(lambda: choose_threshold(vectors, rng=np.random.default_rng(seed)), repeats=3),
        "peer_search_s": _seconds(search_peer),
        "rate": information_rate(oracle.repeat_lengths()),
        "peer_rate": float(peer.IR()[0].sum()),
    }


_JOBS: dict[str, Callable[..., dict[str, float]]] = {
    "small-index": _small_index,
    "large-index": _large_index,
    "oracle": _oracle,
    "large-oracle": _large_oracle,
    "search": _search,
}


def _main(settings: dict[str, Any]) -> None:
    job = _JOBS[settings.pop("job")]
    sys.stdout.write(json.dumps(job(**settings)))


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
