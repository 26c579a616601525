"""A memory that was made ready answers as one that is built, and what is kept of it can do no harm."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.partner_speed import BUSY, music_like_memory, player
from musichal.memory import ready
from musichal.memory.audio_oracle import AudioOracle
from musichal.memory.container import read_container
from musichal.memory.memory import Memory, Pair, PlayersPast
from musichal.memory.partner_file import PartnerModel, load_partner, load_with_digest, save_partner
from musichal.memory.ready import find_kept, keep, kept_path
from musichal.partner.made_ready import make_ready
from partners_by_hand import partner, song
from players_by_hand import answer

STATES = 4200
"""Harmony and clusters of so many are found by their indexes."""


def large_memory(seed: int) -> Memory:
    memory = music_like_memory(STATES, rng=np.random.default_rng(seed))
    memory.oracle = AudioOracle.from_vectors(memory.oracle.vectors().repeat(2, axis=1), threshold=0.5)
    return memory


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A partner of two recordings that sounded together: what is played, and a player."""
    path = tmp_path_factory.mktemp("large") / "large.hal"
    model = partner([song(name, [0, 1, 2], [0, 1, 2], keep_audio=False) for name in ("others.wav", "player.wav")])
    memory, past = large_memory(0), large_memory(1)
    past.states_column._rows["recording"] = 1
    memory.players = PlayersPast(past, (Pair(1, 0, 0.25),))
    recordings = tuple(replace(r, n_samples=24_000 * 3000) for r in model.recordings)
    save_partner(path, replace(model, memory=memory, recordings=recordings))
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "small.hal"
    save_partner(path, partner([song("one.wav", [0, 1, 2, 0, 1], [4, 5, 4, 5, 4]), song("two.wav", [0, 1], [4, 4])]))
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MUSICHAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ready"


def digest_of(path: Path) -> str:
    return read_container(path).digest


def decisions(model: PartnerModel) -> list[str]:
    percepts = [
        replace(percept, gestures=tuple(replace(g, vector=g.vector.repeat(2)) for g in percept.gestures))
        for percept in player(60, rng=np.random.default_rng(5))
    ]
    return [repr(d) for d in answer(model.memory, percepts, BUSY, onsets=True)]


@pytest.mark.slow
def test_a_memory_made_ready_answers_the_same(large: Path, cache: Path) -> None:
    built = load_partner(large)
    before = decisions(built)
    make_ready(digest_of(large), built, least=1)
    assert len([*cache.iterdir()]) == 1
    kept = load_partner(large)
    assert kept.memory.kept is not None
    for name in ("states", "notes", "hits"):
        assert getattr(kept.memory, name).tobytes() == getattr(built.memory, name).tobytes()
    assert [r.tokens.tobytes() for r in kept.recordings] == [r.tokens.tobytes() for r in built.recordings]
    assert decisions(kept) == decisions(built) == before
    assert len(before) > 20
    # What is kept gives the same file again, byte for byte.
    save_partner(cache / "again.hal", kept)
    assert (cache / "again.hal").read_bytes() == large.read_bytes()


def test_a_memory_made_ready_grows_as_one_that_is_built(small: Path, cache: Path) -> None:
    built = load_partner(small)
    make_ready(digest_of(small), load_partner(small), least=1)
    kept = load_partner(small)
    gestures = [replace(g, start_s=g.start_s + 2) for g in built.memory.gestures(0)]
    for model in (built, kept):
        for gesture in gestures:
            model.memory.append(gesture, [], recording=1)
    a, b = (m.memory for m in (built, kept))
    assert a.states.tobytes() == b.states.tobytes()
    assert [i.repeat_positions().tolist() for i in a.indexes] == [i.repeat_positions().tolist() for i in b.indexes]
    assert {k: v.tolist() for k, v in a.oracle.to_arrays().items()} == {k: v.tolist() for k, v in b.oracle.to_arrays().items()}


def test_small_memories_are_not_kept(small: Path, cache: Path) -> None:
    make_ready(digest_of(small), load_partner(small))
    assert not cache.exists()


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-30], lambda data: data[:-60] + b"x" + data[-59:]])
def test_what_is_damaged_is_built_again(small: Path, cache: Path, damage) -> None:
    make_ready(digest_of(small), load_partner(small), least=1)
    (path,) = cache.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    model = load_partner(small)
    assert model.memory.kept is None
    make_ready(digest_of(small), model, least=1)
    assert load_partner(small).memory.kept is not None


def test_what_is_kept_belongs_to_one_file_and_one_code(small: Path, cache: Path, tmp_path: Path, monkeypatch) -> None:
    make_ready(digest_of(small), load_partner(small), least=1)
    other = tmp_path / "other.hal"
    save_partner(other, replace(load_partner(small), encoder_licence="another"))
    assert load_partner(other).memory.kept is None
    monkeypatch.setattr(ready, "_code", lambda: "another")
    assert load_partner(small).memory.kept is None


def test_a_file_replaced_meanwhile_is_not_taken_for_the_one_loaded(small: Path, cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "partner.hal"
    save_partner(path, load_partner(small))
    model, digest = load_with_digest(path)
    save_partner(path, replace(model, encoder_licence="another"))
    make_ready(digest, model, least=1)
    assert load_partner(path).memory.kept is None
    assert load_partner(small).memory.kept is not None


def test_a_cache_that_cannot_be_written_is_done_without(small: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("MUSICHAL_CACHE", str(tmp_path / "file"))
    make_ready(digest_of(small), load_partner(small), least=1)
    assert load_partner(small).memory.kept is None


def test_only_the_last_ones_are_kept_and_only_known_classes(cache: Path) -> None:
    for number in range(ready.MOST_KEPT + 3):
        assert keep(f"{number}", {"n": number})
    assert len([*cache.iterdir()]) == ready.MOST_KEPT
    kept = find_kept(f"{number}")
    assert kept is not None
    assert kept.get("n") == number
    with pytest.raises(TypeError):
        keep("path", {"p": Path()})
    assert not kept_path("path").exists()
