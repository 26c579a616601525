"""Chandra, the trainer: recordings in, a partner out.

It listens to each recording through the same `FeatureExtractor` that hears a live player, learns a vocabulary per source from
every audible frame, turns the recordings into tokens and gestures through the same `Tokenizer`, and lays the gestures and their
notes down in a memory.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from musichal.audio.files import encode_flac, flac_holds_rate
from musichal.audio.recording import Recording
from musichal.errors import InputError
from musichal.hearing.encoders import LEARNED, create_encoder
from musichal.hearing.encoders.runtimes import package_of
from musichal.hearing.front_end import FrontEnd
from musichal.hearing.listener import Analysis, FeatureExtractor, Tokenizer, resolve_spec
from musichal.hearing.percepts import SOURCES, Gesture, Percept, SegmentFeatures, Window
from musichal.hearing.vocabulary import Vocabulary, fit_vocabulary, nearest
from musichal.machine import SHAPES_NUMBERS, installed
from musichal.memory.information_rate import choose_threshold
from musichal.memory.memory import Memory, assign_notes
from musichal.memory.partner_file import KEPT, PartnerModel, StoredRecording
from musichal.note import HeardNote
from musichal.own_process import single_blas_thread
from musichal.spec import PerceptionSpec
from musichal.training.workers import Analyst, analysts

Progress = Callable[[str, float], None]
"""Told what is being done and how far it is, from 0 to 1."""

_BLOCK_S = 1.0
# The information rate is searched over a stretch of the memory that is long enough to know the music by.
_THRESHOLD_STATES = 4000


@dataclass(frozen=True)
class _HeardRecording:
    """A recording through the ear."""

    heard: list[SegmentFeatures]
    notes: list[HeardNote]
    end_sample: int


@single_blas_thread()
def train(
    recordings: Sequence[Recording],
    spec: PerceptionSpec,
    *,
    keep_audio: bool = True,
    processes: int = 1,
    vocabularies: tuple[Vocabulary, Vocabulary] | None = None,
    progress: Progress | None = None,
    warn: Callable[[str], None] | None = None,
) -> PartnerModel:
    """Train a partner.

    The same recordings, spec and installation give the same partner, bit for bit.

    Parameters
    ----------
    recordings : sequence of Recording
        At least one, none shorter than a segment.
    spec : PerceptionSpec
    keep_audio : bool
        Whether the partner holds the recordings themselves.
    processes : int
        How many may listen; only an encoder with weights is worth more than this one. The partner is the same for any number.
    vocabularies : tuple of Vocabulary, optional
        Kept instead of learned: their sounds are those of an earlier training.
    progress : callable, optional
    warn : callable, optional
        Told what a user should know about the recordings as a whole.

    Raises
    ------
    InputError
        Nothing to hear, too little of it for the vocabulary, or a rate that cannot be stored.
    """
    tell = progress or (lambda _what, _share: None)
    if not recordings:
        raise InputError("there is no recording to learn from")
    spec = resolve_spec(spec)
    if keep_audio:
        for recording in recordings:
            if not flac_holds_rate(recording.sample_rate_hz):
                raise InputError(
                    f"{recording.name}: a rate of {recording.sample_rate_hz} Hz cannot be stored as FLAC; use --no-audio"
                )
    heard = _hear_all(recordings, spec, tell, processes=processes if spec.encoder.name in LEARNED else 1)
    every = [h for r in heard for h in r.heard]
    if vocabularies is None:
        learned = _learn_vocabularies(every, spec, tell, warn or (lambda _text: None))
    else:
        learned = _counted_again(vocabularies, every)
    percepts, gestures = [], []
    for item in heard:
        stage = Tokenizer(spec, learned)
        own = [stage.step(h) for h in item.heard]
        percepts.append(own)
        gestures.append([g for p in own for g in p.gestures] + list(stage.flush(item.end_sample)))
    memory = _remember(gestures, [item.notes for item in heard], tell)
    stored = [_store(recording, own, keep_audio=keep_audio) for recording, own in zip(recordings, percepts, strict=True)]
    tell("Done", 1.0)
    return PartnerModel(
        spec=spec,
        vocabularies=learned,
        memory=memory,
        recordings=tuple(stored),
        encoder_licence=create_encoder(spec, ready=False).licence,
        trained_with=_versions(spec) | ({KEPT: "kept"} if vocabularies is not None else {}),
    )


def _versions(spec: PerceptionSpec) -> dict[str, str]:
    names = list(SHAPES_NUMBERS)
    if spec.encoder.runtime:
        names.append(package_of(spec.encoder.runtime))
    return {name: installed(name) for name in names}


def _hear_all(
    recordings: Sequence[Recording], spec: PerceptionSpec, tell: Progress, *, processes: int
) -> list[_HeardRecording]:
    total = sum(r.duration_s for r in recordings)
    done = 0.0
    out = []
    with contextlib.ExitStack() as stack:
        elsewhere = stack.enter_context(analysts(spec, processes=processes)) if processes > 1 else None
        for recording in recordings:
            # With processes that analyse, this one hears what they found, and has no need of a network of its own.
            encoder = create_encoder(spec, ready=elsewhere is None)
            front_end = FrontEnd(spec, source_rate_hz=recording.sample_rate_hz)
            extractor = FeatureExtractor(spec, encoder)
            heard: list[SegmentFeatures] = []
            for window, analysis in _analysed(front_end, recording, elsewhere):
                heard.append(extractor.step(window, analysis))
                share = min(recording.duration_s, (window.start_sample + window.length_samples) / spec.sample_rate_hz)
                tell(f"Listening to {recording.name}", (done + share) / total)
            done += recording.duration_s
            notes = [note for h in heard for note in h.notes] + list(extractor.flush())
            out.append(_HeardRecording(heard, notes, front_end.samples_heard))
        if out:
            tell(f"Listening to {recordings[-1].name}", 1.0)
    return out


def _analysed(front_end: FrontEnd, recording: Recording, elsewhere: Analyst | None) -> Iterator[tuple[Window, Analysis | None]]:
    """Yield the windows of a recording in order, with their analysis where it is made elsewhere."""
    block = round(_BLOCK_S * recording.sample_rate_hz)
    windows = (w for result in front_end.stream(recording.samples, block_samples=block) for w in result.windows)
    return elsewhere(windows) if elsewhere is not None else ((window, None) for window in windows)


def _counted_again(
    vocabularies: tuple[Vocabulary, Vocabulary], heard: Sequence[SegmentFeatures]
) -> tuple[Vocabulary, Vocabulary]:
    """Return vocabularies that are kept, with counts of how often each of their sounds is heard now."""
    out = []
    for number, vocabulary in enumerate(vocabularies):
        frames = np.concatenate([h.features[number][h.audible[number]] for h in heard])
        if frames.shape[0] < vocabulary.size:
            frames = np.concatenate([h.features[number] for h in heard])
        tokens = nearest(vocabulary.distances(vocabulary.normalise(frames)))
        out.append(replace(vocabulary, counts=np.bincount(tokens, minlength=vocabulary.size).astype(np.int64)))
    return out[0], out[1]


def _learn_vocabularies(
    heard: Sequence[SegmentFeatures], spec: PerceptionSpec, tell: Progress, warn: Callable[[str], None]
) -> tuple[Vocabulary, Vocabulary]:
    total = sum(h.audible.shape[1] for h in heard)
    most = max(sum(int(h.audible[number].sum()) for h in heard) for number in range(len(SOURCES)))
    if most < spec.vocabulary.size <= total:
        raise InputError(
            f"nearly all of the sound is below the gate of {spec.gate.open_db:g} dBFS: give Chandra a louder recording"
        )
    learned = []
    for number, source in enumerate(SOURCES):
        tell(f"Learning {spec.vocabulary.size} {source} sounds", number / len(SOURCES))
        frames = np.concatenate([h.features[number][h.audible[number]] for h in heard])
        if frames.shape[0] < spec.vocabulary.size <= total:
            # A flute has next to nothing percussive. What little there is must not shut it out; it stays SILENCE.
            warn(
                f"nearly all of the {source} sound ({total - frames.shape[0]} of {total} frames) is below the gate of"
                f" {spec.gate.open_db:g} dBFS: its vocabulary was learned from below the gate"
            )
            frames = np.concatenate([h.features[number] for h in heard])
        learned.append(fit_vocabulary(frames, spec.vocabulary, source=source))
    return learned[0], learned[1]


def _remember(gestures: Sequence[list[Gesture]], notes: Sequence[list[HeardNote]], tell: Progress) -> Memory:
    tell("Choosing the oracle's threshold", 0.0)
    vectors = np.stack([g.vector for own in gestures for g in own])
    search = choose_threshold(vectors[:_THRESHOLD_STATES], rng=np.random.default_rng(0))
    memory = Memory(dims=vectors.shape[1], threshold=search.threshold)
    total = len(vectors)
    for recording, (own, heard_notes) in enumerate(zip(gestures, notes, strict=True)):
        for gesture, assigned in zip(own, assign_notes(own, heard_notes), strict=True):
            state = memory.append(gesture, assigned, recording=recording)
            if state % 500 == 0:
                tell("Remembering", state / total)
    return memory


def _store(recording: Recording, percepts: Sequence[Percept], *, keep_audio: bool) -> StoredRecording:
    return StoredRecording(
        name=recording.name,
        sample_rate_hz=recording.sample_rate_hz,
        n_samples=recording.samples.shape[0],
        digest=recording.digest,
        tokens=np.concatenate([p.tokens for p in percepts], axis=1),
        frame_samples=np.concatenate([p.heard.frame_samples for p in percepts]),
        level_db=np.concatenate([p.heard.level_db for p in percepts]),
        onset_samples=np.array([o for p in percepts for o in p.heard.onset_samples], dtype=np.int64),
        flac=encode_flac(recording.samples, recording.sample_rate_hz) if keep_audio else None,
    )
