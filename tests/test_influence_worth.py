"""What influences are worth is found by leaving out, kept in the partner file, and multiplies their weights."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from musichal.errors import PartnerFileError
from musichal.memory.memory import Memory
from musichal.memory.partner_file import PartnerModel, load_partner, save_partner
from musichal.partner.partner import Partner
from musichal.partner.settings import PartnerSettings
from musichal.training.influence_worth import Rehearsal, influence_worth
from tests.partners_by_hand import gesture
from tests.players_by_hand import RATE, SEGMENT, percept

EACH_S = 2 * SEGMENT / RATE


def rehearsed(tokens: np.ndarray, roots: np.ndarray) -> dict[str, float]:
    """Return what influences are worth to a memory of these tokens and roots, one in 0.7 s."""
    memory, heard = Memory(dims=2, threshold=0.5), []
    for i, (token, root) in enumerate(zip(tokens.tolist(), roots.tolist(), strict=True)):
        chroma = np.roll(np.array([1, 0.1, 0.1, 0.1, 0.7, 0.1, 0.1, 0.8, 0.1, 0.1, 0.1, 0.1], np.float32), root)
        own = dataclasses.replace(gesture(EACH_S * i, EACH_S, (token, 0), (token, 0)), chroma=chroma)
        memory.append(own, [], recording=0)
        heard += [percept(2 * i, gestures=[own], chroma=chroma), percept(2 * i + 1, chroma=chroma)]
    return influence_worth(memory, [Rehearsal(0, 0.0, lambda: heard)], sample_rate_hz=RATE)


def test_tokens_that_tell_what_comes_next_are_worth_more_than_tokens_by_chance() -> None:
    rng = np.random.default_rng(0)
    roots = np.tile(rng.integers(0, 12, 16), 6)
    order = np.tile(np.arange(16), 6)
    telling, by_chance = rehearsed(order, roots), rehearsed(rng.integers(0, 16, len(order)), roots)
    assert telling["harmonic"] > by_chance["harmonic"]
    assert all(0.5 <= worth <= 2 for worth in [*telling.values(), *by_chance.values()])
    assert rehearsed(order, roots) == telling
    assert rehearsed(order[:10], roots[:10]) == {}, "too little to tell"


def test_the_partner_file_keeps_it_and_it_multiplies_weights(trained: PartnerModel, tmp_path: Path) -> None:
    memory = Memory.restore(trained.memory.states, trained.memory.notes, trained.memory.oracle, hits=trained.memory.hits)
    memory.worth = {"harmonic": 1.5, "chroma": 0.5}
    save_partner(tmp_path / "a.hal", dataclasses.replace(trained, memory=memory))
    loaded = load_partner(tmp_path / "a.hal")
    assert loaded.memory.worth == memory.worth
    partner = Partner(loaded.memory, PartnerSettings(), rng=np.random.default_rng(0), sample_rate_hz=RATE)
    assert partner._worth.tolist() == [1.5 if n == 0 else 0.5 if n == 4 else 1.0 for n in range(len(partner._worth))]
    memory.worth = {"harmonic": float("nan")}
    with pytest.raises(ValueError, match="JSON"):
        save_partner(tmp_path / "b.hal", dataclasses.replace(trained, memory=memory))
    memory.worth = {"harmonic": -1.0}
    save_partner(tmp_path / "b.hal", dataclasses.replace(trained, memory=memory))
    with pytest.raises(PartnerFileError, match=r"the worth of an influence must be in \[0.01, 100\], got -1"):
        load_partner(tmp_path / "b.hal")
