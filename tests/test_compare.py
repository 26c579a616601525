"""`musichal compare`: what two partners hear differently."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from typer.testing import CliRunner

from musichal.audio.recording import read_recording
from musichal.cli import app
from musichal.evaluate.compare import Comparison, compare_partners, contingency, partition_agreement, shared_starts
from musichal.memory.partner_file import PartnerModel, save_partner
from musichal.spec import PerceptionSpec, VocabularySpec
from musichal.training.trainer import train

pytestmark = pytest.mark.usefixtures("heard_once")

LABELS = arrays(np.int64, st.shared(st.integers(2, 40), key="n"), elements=st.integers(0, 5))


def run(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def other(short_guitar) -> PartnerModel:
    """A partner of another recording, with fewer sounds and a gate that closes early."""
    spec = PerceptionSpec(vocabulary=VocabularySpec(size=16))
    return train([read_recording(short_guitar)], replace(spec, gate=replace(spec.gate, open_db=-34.0, close_db=-40.0)))


def compared(first: PartnerModel, second: PartnerModel) -> Comparison:
    stored = first.recordings[0]
    return compare_partners(first, second, stored.samples(), name=stored.name, sample_rate_hz=stored.sample_rate_hz)


def test_a_partner_hears_like_itself(trained):
    comparison = compared(trained, trained)
    assert comparison.hear_alike
    assert comparison.learned == (True, True)
    assert comparison.spec_differences == comparison.installation_differences == ()
    assert comparison.same_vocabularies == (True, True)
    assert comparison.frames == (trained.recordings[0].tokens.shape[1],) * 2
    assert comparison.shared_gesture_starts == 1
    for source in comparison.sources:
        assert (source.silence_agreement, source.agreement.rand, source.agreement.adjusted_rand) == (1, 1, 1)
        assert source.agreement.normalised_information == pytest.approx(1)
        assert source.split_by_first == source.split_by_second == ()


def test_numbers_of_tokens_mean_nothing(trained):
    """A vocabulary in another order is the same hearing: every token has another number, no moment another meaning."""
    order = np.random.default_rng(0).permutation(64)
    shuffled = tuple(replace(v, centres=v.centres[order].copy(), counts=v.counts[order].copy()) for v in trained.vocabularies)
    comparison = compared(trained, replace(trained, vocabularies=(shuffled[0], shuffled[1])))
    assert comparison.hear_alike
    assert comparison.same_vocabularies == (False, False)


def test_a_sound_that_another_divides_is_found(trained):
    """The second partner cannot tell two sounds apart that the first can."""
    harmonic, percussive = trained.vocabularies
    common, rare = np.argsort(-harmonic.counts, kind="stable")[:2]
    centres = harmonic.centres.copy()
    centres[rare] = centres[common]
    # Nothing is nearest to `rare` any more; what was goes elsewhere.
    merged = replace(trained, vocabularies=(replace(harmonic, centres=centres), percussive))
    comparison = compared(trained, merged)
    assert not comparison.hear_alike
    assert comparison.sources[1].agreement.rand == 1
    assert 0.5 < comparison.sources[0].agreement.adjusted_rand < 1
    assert comparison.sources[0].diversity[1].unique < comparison.sources[0].diversity[0].unique
    split = comparison.sources[0].split_by_first[0]
    tokens = trained.recordings[0].tokens[0]
    assert split.parts[0][0] != split.parts[1][0]
    assert rare in {token for s in comparison.sources[0].split_by_first for token, _ in s.parts}
    assert split.frames > (tokens == split.token).sum()


def test_two_partners_differ_in_spec_silence_and_sounds(trained, other):
    comparison = compared(trained, other)
    assert comparison.learned == (True, False)
    assert {name: (a, b) for name, a, b in comparison.spec_differences} == {
        "vocabulary.size": (64, 16),
        "gate.open_db": (-54.0, -34.0),
        "gate.close_db": (-60.0, -40.0),
    }
    for source in comparison.sources:
        assert 0 < source.agreement.adjusted_rand < 0.9
        assert source.silence_agreement == pytest.approx(1 - source.only_first_silent - source.only_second_silent)
        assert source.diversity[1].unique <= 16
    assert any(s.only_second_silent > 0 for s in comparison.sources)
    # Notes come from a network that both share.
    assert comparison.notes[0] == comparison.notes[1]
    # It is the same the other way round, from the other side.
    turned = compare_partners(
        other,
        trained,
        trained.recordings[0].samples(),
        name="x",
        sample_rate_hz=trained.recordings[0].sample_rate_hz,
    )
    assert [s.agreement.adjusted_rand for s in turned.sources] == pytest.approx(
        [s.agreement.adjusted_rand for s in comparison.sources]
    )
    assert turned.gestures_per_second == comparison.gestures_per_second[::-1]


def test_grids_that_differ_are_paired_in_time(trained, short_mix):
    spec = PerceptionSpec(segment_samples=12_000, hop_samples=12_000)
    comparison = compared(trained, train([read_recording(short_mix)], spec))
    for source in comparison.sources:
        # Some frames have no partner within half a stride, none has two.
        assert 0.8 * comparison.frames[0] < source.frames <= min(comparison.frames)


@given(first=LABELS, second=LABELS)
def test_agreement_is_that_of_scikit_learn(first, second):
    metrics = pytest.importorskip("sklearn.metrics")
    ours = partition_agreement(first, second)
    assert ours.rand == pytest.approx(metrics.rand_score(first, second))
    assert ours.adjusted_rand == pytest.approx(metrics.adjusted_rand_score(first, second))
    assert ours.information_bits == pytest.approx(metrics.mutual_info_score(first, second) / np.log(2), abs=1e-9)
    constant = len(set(first)) == len(set(second)) == 1
    expected = 1.0 if constant else metrics.normalized_mutual_info_score(first, second)
    assert ours.normalised_information == pytest.approx(expected, abs=1e-9)


@given(labels=LABELS, shift=st.integers(1, 5))
def test_another_numbering_is_the_same_partition(labels, shift):
    same = partition_agreement(labels, (labels + shift) % 6)
    assert (same.rand, same.adjusted_rand) == (1, 1)
    assert contingency(labels, (labels + shift) % 6).sum() == len(labels)


def test_agreement_of_too_little():
    none = np.zeros(0, dtype=np.int64)
    assert partition_agreement(none, none).rand == 1
    with pytest.raises(ValueError, match="cannot be compared"):
        partition_agreement(none, np.zeros(1, dtype=np.int64))


def test_shared_starts_match_once():
    assert shared_starts(np.array([0.0, 1.0, 2.0]), np.array([0.02, 1.2, 2.04]), tolerance_s=0.05) == pytest.approx(4 / 6)
    assert shared_starts(np.array([1.0]), np.array([0.97, 1.03]), tolerance_s=0.05) == pytest.approx(2 / 3)
    assert shared_starts(np.array([]), np.array([]), tolerance_s=0.05) == 1
    assert shared_starts(np.array([]), np.array([1.0]), tolerance_s=0.05) == 0


def test_command(trained_path, other, short_guitar, tmp_path):
    second = tmp_path / "[other].hal"
    save_partner(second, other)
    result = run("compare", trained_path, second, short_guitar, "--json")
    assert result.exit_code == 0
    values = json.loads(result.stdout)
    assert values["recording"] == "guitar.wav"
    assert values["hear_alike"] is False
    words = run("compare", trained_path, second).stdout
    assert "mix.wav" in words
    assert "[other].hal" in words
    assert "gate.open_db" in words
    assert "adjusted Rand" in words
    (learned,) = (line for line in words.splitlines() if "was trained on it" in line)
    assert [cell.strip() for cell in learned.split("│")[2:4]] == ["yes", "no"]
    # What a sound is heard as is all of it, the rest named as such, but for what rounding takes.
    splits = [line for line in words.splitlines() if re.search(r"\d frames +│", line) and "none above" not in line]
    shares = [[int(share) for share in re.findall(r"\((\d+)%\)", line)] for line in splits]
    assert len(shares) > 6
    assert [sum(s) for s in shares] == [pytest.approx(100, abs=len(s)) for s in shares]
    assert "alike" in run("compare", trained_path, trained_path).stdout


def test_too_little_to_say_much_is_said(trained_path, other, short_guitar, tmp_path):
    save_partner(tmp_path / "other.hal", other)
    samples, rate = soundfile.read(short_guitar, dtype="float32")
    soundfile.write(tmp_path / "half a second.wav", samples[rate : rate + rate // 2], rate, subtype="PCM_16")
    result = run("compare", trained_path, tmp_path / "other.hal", tmp_path / "half a second.wav")
    assert result.exit_code == 0
    assert "half a second.wav: only" in result.stderr
    assert "too few to judge" in result.stderr
    assert "too few" not in run("compare", trained_path, tmp_path / "other.hal", short_guitar).stderr


def test_what_cannot_be_compared_is_one_line(trained, trained_path, tmp_path):
    silent = tmp_path / "silent.hal"
    save_partner(silent, replace(trained, recordings=(replace(trained.recordings[0], flac=None),)))
    result = run("compare", silent, trained_path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "name a recording" in result.stderr
    missing = run("compare", trained_path, tmp_path / "missing.hal")
    assert (missing.exit_code, missing.stdout) == (2, "")
