"""Token quality: the measures by hand-made cases, and the figures on held-out rendered scores."""

import dataclasses

import numpy as np
import pytest

from musichal.bench import token_quality as tq
from musichal.bench.scores import DrumHit, Rendering, ScoreNote
from musichal.hearing.percepts import SILENCE
from musichal.hearing.vocabulary import fit_vocabulary
from musichal.spec import PerceptionSpec, VocabularySpec

# Measured on this part of the corpus: 0.925, 0.964, 0.695, 0.944, 0.886, 0.945. Five pieces of polyphony are too few for 64
# tokens to learn their chords from; on the whole corpus F1 is 0.857.
FLOORS = {
    "pitch_class_accuracy": 0.91,
    "pitch_class_accuracy_50ms": 0.95,
    "pitch_class_set_f1": 0.67,
    "shift_lines": 0.92,
    "shift_polyphony": 0.86,
    "drum_accuracy": 0.92,
}
TIME_S = np.arange(40) * 0.025 + 0.0125


def piece(notes=(), hits=(), tokens=None, time_s=TIME_S) -> tq.HeardPiece:
    """A piece whose token in frame i is tokens[i], by one-hot features."""
    rendering = Rendering("made", np.zeros(0, np.float32), 24000, tuple(notes), tuple(hits))
    tokens = np.zeros(len(time_s), int) if tokens is None else np.asarray(tokens)
    features = np.eye(4, dtype=np.float32)[np.maximum(tokens, 0)]
    return tq.HeardPiece(rendering, time_s, (features, features), (tokens != SILENCE, tokens != SILENCE))


@pytest.fixture(scope="module")
def labelled() -> tq.LabelledTokens:
    eye = np.tile(np.eye(4, dtype=np.float32), (8, 1))
    vocabulary = fit_vocabulary(eye, VocabularySpec(size=4, restarts=4), source="made")
    order = tq.tokens_of(piece(tokens=[0, 1, 2, 3], time_s=TIME_S[:4]), vocabulary, 0)
    assert sorted(order) == [0, 1, 2, 3]
    # Feature 0 means C, 1 means G, 2 means the fifth C-G, 3 means E; as drums: none, hat, snare, kick.
    pitch_class, drum = np.zeros(4, np.int64), np.zeros(4, np.int64)
    pitch_class[order], drum[order] = [0, 7, 0, 4], [0, 1, 2, 3]
    sets = np.zeros((4, 12), bool)
    for token, classes in zip(order, ((0,), (7,), (0, 7), (4,)), strict=True):
        sets[token, list(classes)] = True
    return tq.LabelledTokens((vocabulary, vocabulary), pitch_class, sets, drum, drum)


def test_pitch_class_accuracy(labelled: tq.LabelledTokens) -> None:
    notes = (ScoreNote(0.0, 0.5, 60, 80), ScoreNote(0.5, 0.25, 67, 80))
    right = [0] * 20 + [1] * 10 + [0] * 10
    assert tq.pitch_class_accuracy([piece(notes, tokens=right)], labelled) == 1
    late = [0] * 22 + [1] * 8 + [0] * 10
    assert tq.pitch_class_accuracy([piece(notes, tokens=late)], labelled) == pytest.approx(28 / 30)
    assert tq.pitch_class_accuracy([piece(notes, tokens=late)], labelled, tolerance_s=0.05) == 1
    silent = [SILENCE] * 20 + [1] * 10 + [0] * 10
    assert tq.pitch_class_accuracy([piece(notes, tokens=silent)], labelled) == pytest.approx(10 / 30)


def test_pitch_class_set_f1(labelled: tq.LabelledTokens) -> None:
    fifth = (ScoreNote(0.0, 1.0, 60, 80), ScoreNote(0.0, 1.0, 67, 80))
    assert tq.pitch_class_set_f1([piece(fifth, tokens=[2] * 40)], labelled) == 1
    assert tq.pitch_class_set_f1([piece(fifth, tokens=[0] * 40)], labelled) == pytest.approx(2 / 3)
    assert tq.pitch_class_set_f1([piece(fifth, tokens=[3] * 40)], labelled) == 0


def test_shift_consistency(labelled: tq.LabelledTokens) -> None:
    vocabulary = labelled.vocabularies[0]
    tokens = np.arange(40) // 10
    same = piece(tokens=tokens[8:], time_s=TIME_S[8:] + 0.004)
    assert tq.shift_consistency([(piece(tokens=tokens), same)], vocabulary, 0.025) == 1
    late = piece(tokens=tokens[7:-1], time_s=TIME_S[8:] + 0.004)
    assert tq.shift_consistency([(piece(tokens=tokens), late)], vocabulary, 0.025) == pytest.approx(29 / 32)


def test_drum_accuracy_is_balanced(labelled: tq.LabelledTokens) -> None:
    hits = (DrumHit(0.0, "hat", 90), DrumHit(0.0, "kick", 90), DrumHit(0.25, "snare", 90), DrumHit(0.5, "hat", 90))
    tokens = np.zeros(40, int)
    tokens[0:2], tokens[10:12], tokens[20:22] = 3, 2, 1
    assert tq.drum_accuracy([piece(hits=hits, tokens=tokens)], labelled) == 1
    tokens[20:22] = 0
    assert tq.drum_accuracy([piece(hits=hits, tokens=tokens)], labelled) == pytest.approx(0.75)


def test_changes_per_second(labelled: tq.LabelledTokens) -> None:
    tokens = np.arange(40) // 10
    vocabulary = labelled.vocabularies[0]
    rate = tq.changes_per_s([piece(tokens=tokens)], lambda p: tq.tokens_of(p, vocabulary, 0))
    assert rate == pytest.approx(3 / 0.975)


@pytest.mark.slow
def test_figures_on_held_out_scores() -> None:
    """A part of the corpus of `musichal bench`: no figure may fall behind what was measured."""
    corpus = tq.Corpus(lines_per_instrument=1, chorales=4, ensembles=1, length_s=6.0)
    quality, labelled = tq.measure_token_quality(PerceptionSpec(), corpus)
    assert dataclasses.asdict(quality) == dict(tq.as_rows(quality))
    for name, floor in FLOORS.items():
        assert getattr(quality, name) >= floor, name
    assert quality.changes_lines <= 6
    assert quality.changes_polyphony <= 6
    assert labelled.pitch_set.any(axis=1).sum() > 32
    assert set(labelled.drum) == {0, 1, 2, 3}
