"""A memory of pairs: how a player sounded, beside what the others played then."""

from dataclasses import replace

import numpy as np
import pytest

from musichal.api.partner import Partner
from musichal.audio.recording import Recording, read_recording
from musichal.errors import InputError
from musichal.evaluate.verify import subjects, verify_partner
from musichal.memory.partner_file import PartnerModel, load_partner, save_partner
from musichal.spec import PerceptionSpec
from musichal.training.trainer import train

LEARNED_S, OFFSET_S = 12.0, 0.4


def cut(recording: Recording, first_s: float, last_s: float) -> Recording:
    rate = recording.sample_rate_hz
    return replace(recording, samples=recording.samples[round(first_s * rate) : round(last_s * rate)])


@pytest.fixture(scope="module")
def guitar(rock_guitar) -> Recording:
    return read_recording(rock_guitar)


@pytest.fixture(scope="module")
def backing(audio_dir) -> Recording:
    return read_recording(audio_dir / "rock140_backing.ogg")


@pytest.fixture(scope="module")
def paired(guitar, backing) -> PartnerModel:
    """Return a partner of a guitar and its band, whose recording begins a little later."""
    recordings = [cut(guitar, 0.0, LEARNED_S), cut(backing, OFFSET_S, LEARNED_S)]
    return train(recordings, PerceptionSpec(), pairs=[(0, 1)])


def test_a_pair_is_aligned_and_kept_apart(paired, tmp_path):
    past = paired.memory.players
    assert past is not None
    assert past.pairs[0].offset_s == pytest.approx(-OFFSET_S, abs=0.03)
    assert set(past.memory.states["recording"]) == {0}
    assert set(paired.memory.states["recording"]) == {1}
    save_partner(tmp_path / "a.hal", paired)
    save_partner(tmp_path / "b.hal", load_partner(tmp_path / "a.hal"))
    assert (tmp_path / "a.hal").read_bytes() == (tmp_path / "b.hal").read_bytes()


def test_parity_holds_for_both_sides(paired):
    found = verify_partner(paired, subjects(paired), quick=True)
    assert found.passed
    assert len(found.recordings) == 2


def test_the_present_is_asked_of_the_players_past_and_the_others_answer(paired, guitar):
    heard = cut(guitar, 0.0, LEARNED_S)
    answer = Partner(paired).respond(heard.samples, heard.sample_rate_hz, mode="couple", seed=1, live_weight=0)
    played = [d for d in answer.performance.decisions if d.kind == "play"]
    assert {d.recording for d in played} == {1}
    contexts = [(d, c) for d in played for c in d.contexts if c.source != "own"]
    assert len(contexts) > 20
    assert all(c.paired and c.recording == 0 for _, c in contexts)
    # The same guitar again: the longest matches lead to where the band was then.
    known = [(d, c) for d, c in contexts if len(c.tokens) > 4 and c.source == "harmonic"]
    assert known
    apart_s = [d.source_start_s - (c.end_s - OFFSET_S + c.age_s * c.pace) for d, c in known]
    assert np.median(np.abs(apart_s)) < 0.3


def test_what_is_no_pair_is_refused_in_one_line(guitar, backing):
    a, b = cut(guitar, 0, 8), cut(backing, 0, 8)
    silent = replace(a, samples=np.zeros_like(a.samples), name="silent.wav")
    for pair, why in (
        ((a, cut(backing, 0, 12)), "8.0 s and the other 12.0 s"),
        ((a, replace(a, name="again.wav")), "the same sound"),
        ((silent, b), "silent.wav is silent"),
    ):
        with pytest.raises(InputError, match=why):
            train(pair, PerceptionSpec(), pairs=[(0, 1)])
