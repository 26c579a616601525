"""What tokens know: pitch classes, chords and drums, asked of rendered scores that the vocabulary has not heard.

Conventions
-----------
Vocabularies are fitted on the frames of the training pieces of `benchmarks.scores`, heard through `FeatureExtractor`, the path
that training and playing use; each token gets its label from the training pieces and is scored on others. Frames are those
of the grid (26 per 350 ms), each at its centre. SILENCE is a token of its own that means "nothing sounds".

- *Pitch class*: a token's label is the pitch class that sounded most often with it in single lines. Accuracy is the share of
  frames, of those in which exactly one pitch class sounds by the score, that carry its label. There is no tolerance
  in time; `pitch_class_accuracy_50ms` also accepts a pitch class that sounds up to 50 ms from the frame's centre, the
  onset tolerance of mir_eval's transcription metrics.
- *Pitch-class set*: a token's set is the pitch classes that sounded in more than half of its frames of polyphony. F1 is
  over all pairs of frame (in which something sounds) and pitch class.
- *Shift*: the same music again without its first 160 ms. Each frame is compared with the frame nearest in time, at most
  half a stride away; the share of equal tokens, of pairs that are not both silent.
- *Changes*: how often two neighbouring frames have different tokens, per second. The score's own rate stands beside it.
- *Drum*: a frame is of the drum that was struck in the 50 ms before its centre (a snare or kick before a hat), else "none". A
  token's label is the class that it is most typical of: whose training frames chose it most often for their number, the
  best rule for balanced accuracy, which is the mean recall of the four classes. `drum_accuracy_majority` labels by the
  most frequent class instead, which favours "none".

The peer is `benchmarks.probe_encoder`, heard without lookahead, asked the same of the same music.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks import scores
from benchmarks.figure import Figure
from benchmarks.probe_encoder import ProbeEncoder
from benchmarks.scores import DrumHit, Rendering, ScoreNote
from benchmarks.tokens_alone import without_notes, without_pitch
from musichal.arrays import AnyArray, Bool, Float32, Float64, Int64
from musichal.hearing.encoders import Encoder, create_encoder, pinned
from musichal.hearing.listener import FeatureExtractor
from musichal.hearing.percepts import SILENCE
from musichal.hearing.pitch import PitchAnalyser
from musichal.hearing.separation import separate
from musichal.hearing.vocabulary import Vocabulary, fit_vocabulary, nearest
from musichal.spec import PerceptionSpec

SHIFT_S = 0.16
TOLERANCE_S = 0.05
HIT_S = 0.05
DRUM_CLASSES = ("none", "hat", "snare", "kick")


@dataclass(frozen=True)
class TokenQuality:
    """Figures of one measurement; see the conventions of the module. Rates are per second."""

    pitch_class_accuracy: float
    pitch_class_accuracy_50ms: float
    pitch_class_set_f1: float
    shift_lines: float
    shift_polyphony: float
    changes_lines: float
    changes_polyphony: float
    score_changes_lines: float
    score_changes_polyphony: float
    drum_accuracy: float
    drum_accuracy_alone: float
    drum_accuracy_over_harmony: float
    drum_accuracy_majority: float
    train_frames: int
    test_frames: int


@dataclass(frozen=True)
class Robustness:
    """The same vocabulary asked about music that is unlike what it was fitted on."""

    detuned_accuracy: float
    detuned_f1: float
    noisy_accuracy: float
    noisy_f1: float
    other_instruments_accuracy: float
    other_kit_accuracy: float


@dataclass(frozen=True)
class Corpus:
    """How much of `benchmarks.scores` is used; None means all."""

    lines_per_instrument: int = 2
    chorales: int | None = None
    ensembles: int | None = None
    length_s: float = 10.0


@dataclass(frozen=True)
class HeardPiece:
    """A rendering as it was heard: frame times (n,), per source the features (n, dims) and what is above the gate (n,)."""

    rendering: Rendering
    time_s: Float64
    features: tuple[Float32, ...]
    audible: tuple[Bool, ...]


@dataclass(frozen=True)
class LabelledTokens:
    """Two vocabularies and what their tokens mean: `pitch_class` (size,), `pitch_set` (size, 12), `drum` (size,).

    `drum_majority` (size,) is the drum class that was most frequent, `drum` the one that the token is most typical of.
    """

    vocabularies: tuple[Vocabulary, ...]
    pitch_class: Int64
    pitch_set: Bool
    drum: Int64
    drum_majority: Int64


def hear(rendering: Rendering, spec: PerceptionSpec, *, encoder: Encoder | None = None, start_s: float = 0.0) -> HeardPiece:
    """Hear a rendering from `start_s` on, by the spec's encoder or another; times stay those of the rendering."""
    first = round(start_s * rendering.sample_rate_hz)
    extractor = without_notes(FeatureExtractor(spec, encoder or create_encoder(spec)))
    if isinstance(encoder, ProbeEncoder):
        extractor = without_pitch(extractor)
    heard = list(extractor.stream(rendering.samples[first:], source_rate_hz=rendering.sample_rate_hz))
    return HeardPiece(
        rendering=rendering,
        time_s=np.concatenate([h.frame_samples for h in heard]) / spec.sample_rate_hz + start_s,
        features=tuple(np.concatenate([h.features[source] for h in heard]) for source in (0, 1)),
        audible=tuple(np.concatenate([h.audible[source] for h in heard]) for source in (0, 1)),
    )


def label_tokens(
    lines: Sequence[HeardPiece], polyphony: Sequence[HeardPiece], drums: Sequence[HeardPiece], spec: PerceptionSpec
) -> LabelledTokens:
    """Fit both vocabularies on all frames above the gate, and learn what their tokens mean."""
    vocabularies = []
    for source, name in enumerate(("harmonic", "percussive")):
        # Drum loops have nothing for the harmonic source but what separation leaves of them.
        pieces = [*lines, *polyphony, *drums]
        frames = np.concatenate([p.features[source][p.audible[source]] for p in pieces if source or p.rendering.notes])
        vocabularies.append(fit_vocabulary(frames, spec.vocabulary, source=name))
    harmonic, percussive = vocabularies
    size = spec.vocabulary.size
    line_counts, set_counts, set_frames = np.zeros((size, 12)), np.zeros((size, 12)), np.zeros(size)
    for piece in lines:
        tokens, sounding = tokens_of(piece, harmonic, 0), _pitch_classes(piece.rendering.notes, piece.time_s)
        one = (sounding.sum(axis=1) == 1) & (tokens != SILENCE)
        np.add.at(line_counts, tokens[one], sounding[one].astype(float))
    for piece in polyphony:
        tokens, sounding = tokens_of(piece, harmonic, 0), _pitch_classes(piece.rendering.notes, piece.time_s)
        heard = tokens != SILENCE
        np.add.at(set_counts, tokens[heard], sounding[heard].astype(float))
        np.add.at(set_frames, tokens[heard], 1.0)
    # A token that never sounded in a single line answers with its most frequent pitch class in polyphony.
    classes = np.where(line_counts.any(axis=1), line_counts.argmax(axis=1), set_counts.argmax(axis=1))
    drum_counts = np.zeros((size, len(DRUM_CLASSES)))
    for piece in [*lines, *polyphony, *drums]:
        tokens = tokens_of(piece, percussive, 1)
        heard = tokens != SILENCE
        np.add.at(drum_counts, (tokens[heard], _drum_classes(piece.rendering.drum_hits, piece.time_s)[heard]), 1.0)
    return LabelledTokens(
        vocabularies=(harmonic, percussive),
        pitch_class=classes.astype(np.int64),
        pitch_set=set_counts > 0.5 * set_frames[:, None],
        drum=(drum_counts / np.maximum(drum_counts.sum(axis=0), 1)).argmax(axis=1).astype(np.int64),
        drum_majority=drum_counts.argmax(axis=1).astype(np.int64),
    )


def tokens_of(piece: HeardPiece, vocabulary: Vocabulary, source: int) -> Int64:
    """Return the tokens of a source, (n,), SILENCE below the gate."""
    tokens = nearest(vocabulary.distances(vocabulary.normalise(piece.features[source])))
    return np.where(piece.audible[source], tokens, SILENCE).astype(np.int64)


def pitch_class_accuracy(pieces: Iterable[HeardPiece], labelled: LabelledTokens, *, tolerance_s: float = 0.0) -> float:
    """Return the share of frames with one sounding pitch class whose token means it."""
    right = total = 0
    for piece in pieces:
        notes = piece.rendering.notes
        sounding = _pitch_classes(notes, piece.time_s)
        accepted = _pitch_classes(notes, piece.time_s, tolerance_s=tolerance_s)
        tokens = tokens_of(piece, labelled.vocabularies[0], 0)
        asked = sounding.sum(axis=1) == 1
        said = labelled.pitch_class[np.maximum(tokens, 0)]
        found = accepted[np.arange(len(tokens)), said] & (tokens != SILENCE)
        right, total = right + int(found[asked].sum()), total + int(asked.sum())
    return right / total


def pitch_class_set_f1(pieces: Iterable[HeardPiece], labelled: LabelledTokens) -> float:
    """Return the F1 of the tokens' pitch-class sets over frames in which something sounds."""
    both = said_total = true_total = 0
    for piece in pieces:
        sounding = _pitch_classes(piece.rendering.notes, piece.time_s)
        tokens = tokens_of(piece, labelled.vocabularies[0], 0)
        said = labelled.pitch_set[np.maximum(tokens, 0)] & (tokens != SILENCE)[:, None]
        asked = sounding.any(axis=1)
        both += int((said & sounding)[asked].sum())
        said_total, true_total = said_total + int(said[asked].sum()), true_total + int(sounding[asked].sum())
    return 2 * both / (said_total + true_total)


def shift_consistency(pairs: Iterable[tuple[HeardPiece, HeardPiece]], vocabulary: Vocabulary, stride_s: float) -> float:
    """Return the share of harmonic tokens that stay when the same music is heard from elsewhere."""
    same = total = 0
    for piece, shifted in pairs:
        tokens, others = tokens_of(piece, vocabulary, 0), tokens_of(shifted, vocabulary, 0)
        after = np.clip(np.searchsorted(shifted.time_s, piece.time_s), 1, len(shifted.time_s) - 1)
        earlier = piece.time_s - shifted.time_s[after - 1] < shifted.time_s[after] - piece.time_s
        match = np.where(earlier, after - 1, after)
        near = np.abs(shifted.time_s[match] - piece.time_s) <= stride_s / 2 + 1e-9
        asked = near & ((tokens != SILENCE) | (others[match] != SILENCE))
        same, total = same + int((tokens == others[match])[asked].sum()), total + int(asked.sum())
    return same / total


def drum_accuracy(pieces: Iterable[HeardPiece], labelled: LabelledTokens) -> float:
    """Return the balanced accuracy of the percussive tokens over the four drum classes."""
    confusion = np.zeros((len(DRUM_CLASSES), len(DRUM_CLASSES)))
    for piece in pieces:
        tokens = tokens_of(piece, labelled.vocabularies[1], 1)
        said = np.where(tokens == SILENCE, 0, labelled.drum[np.maximum(tokens, 0)])
        np.add.at(confusion, (_drum_classes(piece.rendering.drum_hits, piece.time_s), said), 1.0)
    return float((confusion.diagonal() / confusion.sum(axis=1)).mean())


def changes_per_s(pieces: Iterable[HeardPiece], state: Callable[[HeardPiece], AnyArray]) -> float:
    """Return how often `state`, an array with an entry or row per frame, differs between neighbouring frames."""
    changes = duration_s = 0.0
    for piece in pieces:
        rows = state(piece).reshape(len(piece.time_s), -1)
        changes += float((rows[1:] != rows[:-1]).any(axis=1).sum())
        duration_s += float(piece.time_s[-1] - piece.time_s[0])
    return changes / duration_s


def measure_token_quality(
    spec: PerceptionSpec | None = None, corpus: Corpus | None = None, *, encoder: Encoder | None = None
) -> tuple[TokenQuality, LabelledTokens]:
    """Fit vocabularies on training pieces and ask their tokens about test pieces.

    Deterministic. Returns the figures and the labelled tokens, for `measure_robustness`. `encoder` takes the place of
    the spec's own. Raises `MissingExtraError` without the ``bench`` extra.
    """
    spec, corpus = pinned(spec or PerceptionSpec()), corpus or Corpus()
    train, test = (_heard_corpus(split, spec, corpus, encoder) for split in ("train", "test"))
    labelled = label_tokens(train["lines"], train["polyphony"], train["loops"] + train["drummed"], spec)
    harmonic = labelled.vocabularies[0]
    stride_s = spec.encoder.stride_samples / spec.sample_rate_hz

    def shift(pieces: Sequence[HeardPiece]) -> float:
        pairs = ((piece, hear(piece.rendering, spec, encoder=encoder, start_s=SHIFT_S)) for piece in pieces)
        return shift_consistency(pairs, harmonic, stride_s)

    def token_changes(pieces: Sequence[HeardPiece]) -> float:
        return changes_per_s(pieces, lambda piece: tokens_of(piece, harmonic, 0))

    def score_changes(pieces: Sequence[HeardPiece]) -> float:
        return changes_per_s(pieces, lambda piece: _pitch_classes(piece.rendering.notes, piece.time_s))

    quality = TokenQuality(
        pitch_class_accuracy=pitch_class_accuracy(test["lines"], labelled),
        pitch_class_accuracy_50ms=pitch_class_accuracy(test["lines"], labelled, tolerance_s=TOLERANCE_S),
        pitch_class_set_f1=pitch_class_set_f1(test["polyphony"], labelled),
        shift_lines=shift(test["lines"]),
        shift_polyphony=shift(test["polyphony"]),
        changes_lines=token_changes(test["lines"]),
        changes_polyphony=token_changes(test["polyphony"]),
        score_changes_lines=score_changes(test["lines"]),
        score_changes_polyphony=score_changes(test["polyphony"]),
        drum_accuracy=drum_accuracy(test["loops"] + test["drummed"], labelled),
        drum_accuracy_alone=drum_accuracy(test["loops"], labelled),
        drum_accuracy_over_harmony=drum_accuracy(test["drummed"], labelled),
        drum_accuracy_majority=drum_accuracy(
            test["loops"] + test["drummed"], dataclasses.replace(labelled, drum=labelled.drum_majority)
        ),
        train_frames=sum(len(piece.time_s) for pieces in train.values() for piece in pieces),
        test_frames=sum(len(piece.time_s) for pieces in test.values() for piece in pieces),
    )
    return quality, labelled


def measure_robustness(
    labelled: LabelledTokens, spec: PerceptionSpec | None = None, corpus: Corpus | None = None
) -> Robustness:
    """Ask labelled tokens about test pieces 35 cents sharp, in pink noise at 10 dB, by other instruments, on another kit."""
    spec, corpus = pinned(spec or PerceptionSpec()), corpus or Corpus()
    lines = scores.single_lines("test", per_instrument=1, length_s=corpus.length_s)
    polyphony = scores.chorales("test", limit=corpus.chorales, length_s=corpus.length_s)
    others = scores.single_lines("test", instruments=scores.OTHER_INSTRUMENTS, per_instrument=1, length_s=corpus.length_s)
    rng = np.random.default_rng(0)

    def heard(pieces: Iterable[Rendering]) -> list[HeardPiece]:
        return [hear(piece, spec) for piece in pieces]

    def detuned(pieces: Iterable[Rendering]) -> list[HeardPiece]:
        return heard(scores.detuned(piece, cents=35.0) for piece in pieces)

    def noisy(pieces: Iterable[Rendering]) -> list[HeardPiece]:
        return heard(scores.with_pink_noise(piece, snr_db=10.0, rng=rng) for piece in pieces)

    other_kit = scores.drum_loops("test", kit=16) + scores.drummed("test", kit=16)
    return Robustness(
        detuned_accuracy=pitch_class_accuracy(detuned(lines), labelled),
        detuned_f1=pitch_class_set_f1(detuned(polyphony), labelled),
        noisy_accuracy=pitch_class_accuracy(noisy(lines), labelled),
        noisy_f1=pitch_class_set_f1(noisy(polyphony), labelled),
        other_instruments_accuracy=pitch_class_accuracy(heard(others), labelled),
        other_kit_accuracy=drum_accuracy(heard(other_kit), labelled),
    )


def _heard_corpus(
    split: scores.Split, spec: PerceptionSpec, corpus: Corpus, encoder: Encoder | None
) -> dict[str, list[HeardPiece]]:
    length_s = corpus.length_s
    renderings = {
        "lines": scores.single_lines(split, per_instrument=corpus.lines_per_instrument, length_s=length_s),
        "polyphony": scores.chorales(split, limit=corpus.chorales, length_s=length_s, drums=True)
        + scores.ensembles(split, limit=corpus.ensembles, length_s=length_s, drums=True),
        "loops": scores.drum_loops(split),
        "drummed": scores.drummed(split),
    }
    return {name: [hear(rendering, spec, encoder=encoder) for rendering in pieces] for name, pieces in renderings.items()}


def _pitch_classes(notes: Sequence[ScoreNote], time_s: Float64, *, tolerance_s: float = 0.0) -> Bool:
    """Return which pitch classes sound at each time, (n, 12), or within `tolerance_s` of it."""
    sounding = np.zeros((len(time_s), 12), np.bool_)
    for note in notes:
        first, end = note.onset_s - tolerance_s, note.onset_s + note.duration_s + tolerance_s
        sounding[np.searchsorted(time_s, first) : np.searchsorted(time_s, end), note.pitch % 12] = True
    return sounding


def _drum_classes(hits: Sequence[DrumHit], time_s: Float64) -> Int64:
    """Return the class of each frame, (n,), as an index of `DRUM_CLASSES`."""
    classes = np.zeros(len(time_s), np.int64)
    for number, kind in enumerate(DRUM_CLASSES):
        for hit in hits:
            if hit.kind == kind:
                classes[np.searchsorted(time_s, hit.onset_s) : np.searchsorted(time_s, hit.onset_s + HIT_S)] = number
    return classes


_PROBE = "the probe's encoder"
# Name in the table, unit, goal; the goals are floors.
_FIGURES: dict[str, tuple[str, str, float | None]] = {
    "pitch_class_accuracy": ("token → pitch class, single lines, to the frame", "", 0.97),
    "pitch_class_accuracy_50ms": ("token → pitch class, single lines, ± 50 ms", "", None),
    "pitch_class_set_f1": ("token → pitch-class set, polyphony (F1)", "", 0.85),
    "shift_lines": ("tokens unchanged under a shift of 160 ms, single lines", "", 0.95),
    "shift_polyphony": ("tokens unchanged under a shift of 160 ms, polyphony", "", 0.95),
    "changes_lines": ("token changes, single lines", "/s", None),
    "changes_polyphony": ("token changes, polyphony", "/s", None),
    "drum_accuracy": ("token → drum class (balanced)", "", 0.92),
    "drum_accuracy_alone": ("token → drum class, drums alone", "", None),
    "drum_accuracy_over_harmony": ("token → drum class, drums over chorales", "", None),
    "drum_accuracy_majority": ("token → drum class, labelled by the most frequent", "", None),
}
_ROBUSTNESS_NAMES = {
    "detuned_accuracy": "35 cents sharp: token → pitch class",
    "detuned_f1": "35 cents sharp: token → pitch-class set (F1)",
    "noisy_accuracy": "pink noise at 10 dB: token → pitch class",
    "noisy_f1": "pink noise at 10 dB: token → pitch-class set (F1)",
    "other_instruments_accuracy": "instruments not trained on: token → pitch class",
    "other_kit_accuracy": "drum kit not trained on: token → drum class",
}
_ENCODING_GOAL_MS = 4.0


def measure_tokens(corpus: Corpus | None = None) -> list[Figure]:
    """Return every figure of token quality with its goal and the probe's figure, and the time of encoding.

    Raises `MissingExtraError` without the ``bench`` extra.
    """
    spec, probe_spec = PerceptionSpec(), PerceptionSpec(lookahead_samples=0)
    probe = ProbeEncoder(probe_spec)
    quality, labelled = measure_token_quality(spec, corpus)
    peer, _ = measure_token_quality(probe_spec, corpus, encoder=probe)
    figures = [
        Figure(name, getattr(quality, key), unit, goal, at_least=True, peer=_PROBE, peer_value=getattr(peer, key))
        for key, (name, unit, goal) in _FIGURES.items()
    ]
    for source in ("lines", "polyphony"):
        figures.append(Figure(f"note changes of the score, {source}", getattr(quality, f"score_changes_{source}"), "/s"))
    robustness = measure_robustness(labelled, spec, corpus)
    figures += [Figure(name, getattr(robustness, key), "") for key, name in _ROBUSTNESS_NAMES.items()]
    mine_ms, peer_ms = encoding_ms(spec, None), encoding_ms(probe_spec, probe)
    name = "pitch view and encoder, a segment (CPU, median)"
    return [*figures, Figure(name, mine_ms, "ms", _ENCODING_GOAL_MS, peer=_PROBE, peer_value=peer_ms)]


def encoding_ms(spec: PerceptionSpec, encoder: Encoder | None, *, segments: int = 60) -> float:
    """Return the median CPU time, in ms, from the stems of a segment to its features; an encoder given has no pitch view."""
    own, analyser = encoder or create_encoder(spec), PitchAnalyser(spec)
    rng = np.random.default_rng(0)
    stems = separate((0.1 * rng.standard_normal(spec.window_samples)).astype(np.float32), spec.separation)
    pitch = analyser.analyse(stems.harmonic)
    times_ms = []
    for _ in range(segments):
        started_s = time.process_time()
        if encoder is None:
            pitch = analyser.analyse(stems.harmonic)
        own.encode(stems, pitch)
        times_ms.append(1000 * (time.process_time() - started_s))
    return float(np.median(times_ms))
