"""Token quality: the measures by hand-made cases, and the figures on held-out rendered scores."""

import dataclasses

import numpy as np
import pytest

from benchmarks import scores
from benchmarks import token_quality as tq
from benchmarks.probe_encoder import ProbeEncoder
from benchmarks.scores import DrumHit, Rendering, ScoreNote
from musichal.hearing import encoders as registry
from musichal.hearing.percepts import SILENCE, PitchFrames, Stems
from musichal.hearing.vocabulary import fit_vocabulary
from musichal.spec import PerceptionSpec, VocabularySpec

NO_PITCH = PitchFrames(*(np.zeros(shape, np.float32) for shape in ((26, 276), (26, 61), (26, 12), (2, 26, 12), (26, 3))))
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


def tone(midi: float, spec: PerceptionSpec) -> np.ndarray:
    time_s = np.arange(spec.window_samples) / spec.sample_rate_hz
    hz = 440 * 2 ** ((midi - 69) / 12)
    return sum(0.1 * 0.7**k * np.sin(2 * np.pi * k * hz * time_s) for k in range(1, 6)).astype(np.float32)


@pytest.mark.parametrize("midi", [45, 57, 64, 78])
def test_the_probe_hears_pitch_as_described(midi: int) -> None:
    spec = PerceptionSpec(lookahead_samples=0)
    harmonic, percussive = ProbeEncoder(spec).encode(Stems(tone(midi, spec), tone(midi, spec)), NO_PITCH)
    assert harmonic.shape == (26, 85)
    assert percussive.shape == (26, 128)
    assert harmonic.dtype == percussive.dtype == np.float32
    assert set(harmonic[:, :61].argmax(axis=1)) == {midi - 36}
    assert set(harmonic[:, 61:73].argmax(axis=1)) == {midi % 12}


def test_the_probe_sees_nothing_behind_the_segment() -> None:
    short, long = PerceptionSpec(lookahead_samples=0), PerceptionSpec(lookahead_samples=2400)
    sound = tone(60, long)
    alone = ProbeEncoder(short).encode(Stems(sound[:-2400], sound[:-2400]), NO_PITCH)
    for a, b in zip(alone, ProbeEncoder(long).encode(Stems(sound, sound), NO_PITCH), strict=True):
        np.testing.assert_array_equal(a, b)


def test_another_encoder_is_heard_in_the_place_of_the_specs_own() -> None:
    spec = PerceptionSpec(lookahead_samples=0)
    rendering = scores.single_lines("test", per_instrument=1, instruments=scores.INSTRUMENTS[:1], length_s=2.0)[0]
    probe, own = tq.hear(rendering, spec, encoder=ProbeEncoder(spec)), tq.hear(rendering, spec)
    assert [f.shape[1] for f in probe.features] == [85, 128]
    assert [f.shape[1] for f in own.features] == [73, 80]
    np.testing.assert_array_equal(probe.time_s, own.time_s)


def test_figures_have_the_goals_of_the_issue_and_the_probe_beside_them(monkeypatch: pytest.MonkeyPatch, labelled) -> None:
    fields = [f.name for f in dataclasses.fields(tq.TokenQuality)]
    own, peer = tq.TokenQuality(*np.linspace(0.5, 0.9, len(fields))), tq.TokenQuality(*np.linspace(0.1, 0.4, len(fields)))

    def measured(spec, corpus, *, encoder=None):
        assert spec.lookahead_samples == (PerceptionSpec().lookahead_samples if encoder is None else 0)
        return (own if encoder is None else peer), labelled

    monkeypatch.setattr(tq, "measure_token_quality", measured)
    monkeypatch.setattr(tq, "measure_robustness", lambda *_: tq.Robustness(0.1, 0.2, 0.3, 0.4, 0.5, 0.6))
    figures = {figure.name: figure for figure in tq.measure_tokens()}
    goals = {figure.goal for figure in figures.values() if figure.at_least and figure.goal is not None}
    assert goals == {0.97, 0.85, 0.95, 0.92}
    accuracy = figures["token → pitch class, single lines, to the frame"]
    assert (accuracy.value, accuracy.peer_value) == (own.pitch_class_accuracy, peer.pitch_class_accuracy)
    assert not accuracy.met
    encoding = next(figure for figure in figures.values() if figure.unit == "ms")
    assert encoding.goal == 4
    assert encoding.value > 0
    assert encoding.peer_value > 0


@pytest.mark.slow
def test_a_small_vocabulary_already_knows_pitches_and_drums() -> None:
    """A minute and a half of training pieces, half a minute of others; the whole corpus is asked by `musichal bench`."""
    spec = registry.pinned(PerceptionSpec())

    def heard(renderings) -> list[tq.HeardPiece]:
        return [tq.hear(rendering, spec) for rendering in renderings]

    labelled = tq.label_tokens(
        heard(scores.single_lines("train", per_instrument=1, length_s=4.0)),
        heard(scores.chorales("train", limit=2, length_s=4.0)),
        heard(scores.drum_loops("train", length_s=5.0)),
        spec,
    )
    lines = heard(scores.single_lines("test", per_instrument=1, length_s=3.0)[::2])
    loops = heard(scores.drum_loops("test", length_s=4.0))
    # Measured: 0.953, 0.991, 0.971.
    assert tq.pitch_class_accuracy(lines, labelled) > 0.94
    assert tq.pitch_class_accuracy(lines, labelled, tolerance_s=0.05) > 0.98
    assert tq.drum_accuracy(loops, labelled) > 0.95


# Measured on the whole corpus, in this order: 0.967, 0.996, 0.857, 0.991, 0.973, 0.957, 0.949. The first is below its goal
# of 0.97; the others have the issue's goals as floors, or what was measured where that is more.
FLOORS = {
    "pitch_class_accuracy": 0.963,
    "pitch_class_accuracy_50ms": 0.99,
    "pitch_class_set_f1": 0.85,
    "shift_lines": 0.98,
    "shift_polyphony": 0.965,
    "drum_accuracy": 0.945,
    "drum_accuracy_majority": 0.93,
}


@pytest.mark.slow(105)
def test_figures_on_held_out_scores_and_on_music_unlike_what_tokens_were_fitted_on() -> None:
    """No figure may fall behind what was measured, and each on held-out scores is better than the probe's."""
    quality, labelled = tq.measure_token_quality()
    probe_spec = PerceptionSpec(lookahead_samples=0)
    probe, _ = tq.measure_token_quality(probe_spec, encoder=ProbeEncoder(probe_spec))
    for name, floor in FLOORS.items():
        assert getattr(quality, name) >= floor, name
        assert getattr(quality, name) > getattr(probe, name), name
    assert quality.changes_lines <= 5
    assert quality.changes_polyphony <= 5
    assert labelled.pitch_set.any(axis=1).sum() > 32
    assert set(labelled.drum) == {0, 1, 2, 3}
    robustness = tq.measure_robustness(labelled)
    # Measured: 0.962, 0.861, 0.965, 0.886, 0.937, 0.822 (docs/results/tokens.md).
    for name, floor in zip(dataclasses.asdict(robustness), (0.95, 0.85, 0.955, 0.875, 0.93, 0.81), strict=True):
        assert getattr(robustness, name) >= floor, name
