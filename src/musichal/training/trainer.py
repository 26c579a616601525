"""Chandra, the trainer: recordings in, a partner out.

It analyses each recording with the same `FeatureExtractor` that hears a live player, learns a vocabulary per source from the
audible frames, turns the recordings into tokens and gestures with the same `Tokenizer`, and stores the gestures and their notes
in a memory. Features are kept on disk, so that memory does not grow with them.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from musichal.arrays import Bool, Float32, Records
from musichal.audio.files import encode_flac, flac_holds_rate
from musichal.audio.keyboard import MidiTake
from musichal.audio.recording import Recording
from musichal.errors import InputError, PartnerFileError
from musichal.hearing.drums import drum_model_digest
from musichal.hearing.encoders import LEARNED, create_encoder
from musichal.hearing.encoders.runtimes import package_of
from musichal.hearing.exact_notes import NoteQueue, OnsetQueue, is_exact, known_of, known_or_found_beats
from musichal.hearing.front_end import FrontEnd
from musichal.hearing.listener import FeatureExtractor, Tokenizer, Vocabularies, resolve_spec
from musichal.hearing.percepts import N_PITCHES, SILENCE, SOURCES, Gesture, Percept, SegmentFeatures
from musichal.hearing.vocabulary import fit_vocabulary
from musichal.machine import SHAPES_NUMBERS, installed
from musichal.memory.beat_places import BeatPlace, beat_places
from musichal.memory.memory import NOTE, Memory, Pair, PlayersPast, assign_notes, note_rows
from musichal.memory.oracle_threshold import choose_threshold
from musichal.memory.partner_file import KEPT, PartnerModel, StoredRecording, in_the_beat
from musichal.note import HeardNote
from musichal.own_process import single_blas_thread
from musichal.spec import PerceptionSpec
from musichal.text import printable, reason
from musichal.training.influence_worth import Rehearsal, influence_worth
from musichal.training.note_alignment import align_notes
from musichal.training.pair_alignment import MORE_AT_ONCE, Sounding, aligned, check_pairs, parts_at_once
from musichal.training.workers import Analyse, worker_pool

Progress = Callable[[str, float], None]
"""Receives what is being done, and the share of it that is done, 0 to 1."""

_BLOCK_S = 1.0
# A vocabulary is learned from at most so many frames (an hour and a half), evenly spread: more moves the centres hardly.
_MOST_FRAMES = 400_000
# The oracle tells as many sounds apart, in a short memory one for four gestures.
_LEAST_CLUSTERS = 64


@single_blas_thread()
def train(
    recordings: Sequence[Recording],
    spec: PerceptionSpec,
    *,
    keep_audio: bool = True,
    processes: int = 1,
    vocabularies: Vocabularies | None = None,
    pairs: Sequence[tuple[int, int]] = (),
    notes: Mapping[int, MidiTake] | None = None,
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
        How many processes analyse, if the encoder has weights; the partner is the same for any number.
    vocabularies : tuple of Vocabulary, optional
        Vocabularies of an earlier training to keep, instead of learning them.
    pairs : sequence of (player, others)
        Numbers of recordings that sounded together: what the others did is remembered by how the player sounded beside it.
    notes : mapping, optional
        What MIDI files say of recordings, by number; each is aligned with the sound.
    progress : callable, optional
    warn : callable, optional
        Receives what a user should know about the recordings as a whole.

    Raises
    ------
    InputError
        If there is too little sound for the vocabulary, a rate cannot be stored, or a pair is not of the same music.
    """
    tell = progress or (lambda _what, _share: None)
    check_pairs(recordings, pairs)
    if not recordings:
        raise InputError("there is no recording to learn from")
    spec = resolve_spec(spec)
    for recording in recordings if keep_audio else ():
        if not flac_holds_rate(recording.sample_rate_hz):
            raise InputError(
                f"{recording.name}: a rate of {recording.sample_rate_hz} Hz cannot be stored as FLAC; use --no-audio"
            )
    with tempfile.TemporaryDirectory(prefix="musichal-", ignore_cleanup_errors=True) as folder:
        analysed = _analyse_all(recordings, spec, Path(folder), tell, processes if spec.encoder.name in LEARNED else 1)
        recordings = list(recordings)
        for number, take in (notes or {}).items():
            recordings[number] = _with_notes(recordings[number], take, analysed[number], spec)
        sounding = {n: Sounding.of(recordings[n].name, analysed[n].segments(), spec) for pair in pairs for n in pair}
        found = tuple(Pair(*pair, offset_s=aligned(*(sounding[n] for n in pair))) for pair in pairs)
        for numbers in pairs if warn is not None else ():
            a, b = (parts_at_once(analysed[n].notes, analysed[n].hits, duration_s=recordings[n].duration_s) for n in numbers)
            if a > b + MORE_AT_ONCE and warn is not None:
                player, others = (recordings[n].name for n in numbers)
                warn(f"more goes on in {player} than in {others}: are the player and the others swapped?")
        if vocabularies is None:
            learned = _learn_vocabularies(analysed, spec, tell, warn or (lambda _text: None))
        else:
            learned = _counted_again(vocabularies, analysed)
        memory_input: list[_ToRemember] = []
        stored: list[StoredRecording] = []
        heard: list[Sequence[Percept]] = []
        for recording, item in zip(recordings, analysed, strict=True):
            percepts, gestures = item.tokenised(Tokenizer(spec, learned))
            tell(f"Finding the beats of {recording.name}", len(stored) / len(recordings))
            beats = known_or_found_beats(recording.take, item.segments(), sample_rate_hz=spec.sample_rate_hz)
            exact = is_exact(recording.take)
            memory_input.append(_ToRemember(gestures, item.notes, item.hits, beats, exact))
            stored.append(_store(recording, percepts, beats, keep_audio=keep_audio))
            heard.append(percepts)
    players = {pair.player: memory_input[pair.player] for pair in found}
    memory = _remember({n: heard for n, heard in enumerate(memory_input) if n not in players}, tell)
    memory.players = PlayersPast(_remember(players, tell), found) if found else None
    tell("Weighing influences", 0.0)
    asked = {pair.player: (pair.others, pair.offset_s) for pair in found} or {n: (n, 0.0) for n in range(len(heard))}
    rehearsals = [Rehearsal(*asked[n], heard[n]) for n in asked]
    memory.worth = influence_worth(memory, rehearsals, sample_rate_hz=spec.sample_rate_hz)
    tell("Done", 1.0)
    names = SHAPES_NUMBERS if not spec.encoder.runtime else (*SHAPES_NUMBERS, package_of(spec.encoder.runtime))
    return PartnerModel(
        spec=spec,
        vocabularies=learned,
        memory=memory,
        recordings=tuple(stored),
        encoder_licence=create_encoder(spec, ready=False).licence,
        trained_with={name: installed(name) for name in names} | ({KEPT: "kept"} if vocabularies is not None else {}),
    )


def _with_notes(recording: Recording, take: MidiTake, item: "_AnalysedRecording", spec: PerceptionSpec) -> Recording:
    """Return a recording with the notes of a MIDI file of the same performance, at its own times."""
    sound = Sounding.of(recording.name, item.segments(), spec)
    moved = align_notes(sound, take, name=f"the notes of {recording.name}").moved(take, duration_s=recording.duration_s)
    item.notes, item.hits = list(moved.notes), list(moved.hits)
    return replace(recording, take=moved)


class _AnalysedRecording:
    """A recording's segments with their features and salience on disk, each in its file, in the order of the frames."""

    def __init__(self, folder: Path, number: int) -> None:
        self._files = tuple(folder / f"{number}-{source}.f32" for source in (*SOURCES, "salience"))
        self._segments: list[SegmentFeatures] = []
        self.notes: list[HeardNote] = []
        self.hits: list[HeardNote] = []
        self.end_sample = 0

    def append(self, segment: SegmentFeatures) -> None:
        """Take the next segment."""
        for path, features in zip(self._files, (*segment.features, segment.salience), strict=True):
            try:
                with path.open("ab") as stream:
                    stream.write(features.tobytes())
            except OSError as error:
                raise InputError(f"cannot write the temporary file {printable(path)}: {reason(error)}") from error
        salience = np.zeros((0, N_PITCHES), np.float32)
        self._segments.append(replace(segment, features=(), salience=salience))
        self.notes.extend(segment.notes)
        self.hits.extend(segment.hits)

    def audible(self, source: int) -> Bool:
        """Return which frames of a source are above the gate, shape (n,)."""
        return np.concatenate([np.zeros(0, np.bool_), *(segment.audible[source] for segment in self._segments)])

    def features(self, source: int) -> Float32:
        """Return the features of every frame of a source, or behind the sources the salience, shape (n, dims)."""
        n = sum(segment.frame_samples.shape[0] for segment in self._segments)
        return np.memmap(self._files[source], np.float32, "r").reshape(n, -1) if n else np.zeros((0, 1), np.float32)

    def tokenised(self, tokenizer: Tokenizer) -> tuple[list[Percept], list[Gesture]]:
        """Return the percepts, without features, and the gestures of the whole recording."""
        percepts: list[Percept] = []
        gestures: list[Gesture] = []
        for segment, whole in zip(self._segments, self.segments(), strict=True):
            percept = tokenizer.step(whole)
            percepts.append(replace(percept, heard=segment))
            gestures += percept.gestures
        return percepts, gestures + list(tokenizer.flush(self.end_sample))

    def segments(self) -> Iterator[SegmentFeatures]:
        """Yield the segments as they were heard."""
        *every, salience = (self.features(number) for number in range(len(self._files)))
        first = 0
        for segment in self._segments:
            end = first + segment.frame_samples.shape[0]
            features = tuple(features[first:end] for features in every)
            yield replace(segment, features=features, salience=salience[first:end])
            first = end


def _analyse_all(
    recordings: Sequence[Recording], spec: PerceptionSpec, folder: Path, tell: Progress, processes: int
) -> list[_AnalysedRecording]:
    total = sum(r.duration_s for r in recordings)
    done = 0.0
    out = []
    with contextlib.ExitStack() as stack:
        analyse: Analyse | None = stack.enter_context(worker_pool(spec, processes=processes)) if processes > 1 else None
        # If workers analyse, this process needs no network of its own.
        encoder = create_encoder(spec, ready=analyse is None)
        for number, recording in enumerate(recordings):
            item = _AnalysedRecording(folder, number)
            take = recording.take
            known = known_of(take, spec)
            onsets = OnsetQueue(known.onsets) if known is not None else None
            notes = NoteQueue(known, sample_rate_hz=spec.sample_rate_hz) if known is not None else None
            front_end = FrontEnd(spec, source_rate_hz=recording.sample_rate_hz, known=onsets)
            extractor = FeatureExtractor(spec, encoder, transcribes=known is None)
            results = front_end.stream(recording.samples, block_samples=round(_BLOCK_S * recording.sample_rate_hz))
            windows = (window for result in results for window in result.windows)
            for window, analysis in analyse(windows) if analyse is not None else ((window, None) for window in windows):
                segment = extractor.step(window, analysis)
                item.append(segment if notes is None else notes.put_in(segment))
                share = min(recording.duration_s, (window.start_sample + window.length_samples) / spec.sample_rate_hz)
                tell(f"Listening to {recording.name}", (done + share) / total)
            item.notes += extractor.flush()
            item.hits += extractor.flush_hits()
            if take is not None:
                item.notes, item.hits = list(take.notes), list(take.hits)
            item.end_sample = front_end.samples_heard
            done += recording.duration_s
            out.append(item)
        tell(f"Listening to {recordings[-1].name}", 1.0)
    return out


def _frames(analysed: Sequence[_AnalysedRecording], source: int, *, all_frames: bool) -> Float32:
    """Return the audible frames of a source, or all, (n, dims); evenly spread over the recordings if there are too many."""
    masks = [item.audible(source) | all_frames for item in analysed]
    step = max(1, -(-sum(int(mask.sum()) for mask in masks) // _MOST_FRAMES))
    parts = [
        item.features(source)[np.flatnonzero(mask)[::step]] for item, mask in zip(analysed, masks, strict=True) if mask.any()
    ]
    return np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)


def _counted_again(vocabularies: Vocabularies, analysed: Sequence[_AnalysedRecording]) -> Vocabularies:
    """Return vocabularies that are kept, with counts of how often each of their tokens occurs now."""
    out = []
    for source, vocabulary in enumerate(vocabularies):
        all_frames = sum(int(item.audible(source).sum()) for item in analysed) < vocabulary.size
        counts = sum(vocabulary.count(item.features(source)[item.audible(source) | all_frames]) for item in analysed)
        out.append(replace(vocabulary, counts=np.asarray(counts, np.int64)))
    return out[0], out[1]


def _learn_vocabularies(
    analysed: Sequence[_AnalysedRecording], spec: PerceptionSpec, tell: Progress, warn: Callable[[str], None]
) -> Vocabularies:
    audible = [np.concatenate([item.audible(source) for item in analysed]) for source in range(len(SOURCES))]
    total, size = audible[0].shape[0], spec.vocabulary.size
    if max(int(mask.sum()) for mask in audible) < size <= total:
        raise InputError(
            f"nearly all of the sound is below the gate of {spec.gate.open_db:g} dBFS: give Chandra a louder recording"
        )
    learned = []
    for number, source in enumerate(SOURCES):
        tell(f"Learning {size} {source} sounds", number / len(SOURCES))
        n = int(audible[number].sum())
        quiet = n < size <= total
        if quiet:
            # A flute has next to nothing percussive. What little there is must not exclude it; it stays SILENCE.
            warn(
                f"nearly all of the {source} sound ({total - n} of {total} frames) is below the gate of"
                f" {spec.gate.open_db:g} dBFS: its vocabulary was learned from below the gate"
            )
        frames = _frames(analysed, number, all_frames=quiet)
        learned.append(fit_vocabulary(frames, spec.vocabulary, source=source))
    return (learned[0], learned[1]) if total <= _MOST_FRAMES else _counted_again((learned[0], learned[1]), analysed)


@dataclass(frozen=True)
class _ToRemember:
    """What a recording adds to the memory; its `beats` are `BEAT` of shape (n,)."""

    gestures: list[Gesture]
    notes: list[HeardNote]
    hits: list[HeardNote]
    beats: Records
    is_exact: bool


def _remember(recordings: Mapping[int, _ToRemember], tell: Progress) -> Memory:
    """Return a memory of recordings by their numbers, which ascend."""
    tell("Choosing the oracle's threshold", 0.0)
    vectors = np.stack([gesture.vector for recording in recordings.values() for gesture in recording.gestures])
    search = choose_threshold(vectors, rng=np.random.default_rng(0), least_clusters=min(_LEAST_CLUSTERS, len(vectors) // 4))
    memory = Memory(dims=vectors.shape[1], threshold=search.threshold)
    for number, heard in recordings.items():
        gestures = heard.gestures
        notes, hits = (assign_notes(gestures, some, exact=heard.is_exact) for some in (heard.notes, heard.hits))
        places = beat_places(heard.beats, [gesture.start_s for gesture in gestures])
        for gesture, own, own_hits, place in zip(gestures, notes, hits, places, strict=True):
            state = memory.append(gesture, own, recording=number, beat=BeatPlace.of(place), hits=own_hits)
            if state % 500 == 0:
                tell("Remembering", state / len(vectors))
    return memory


def _store(recording: Recording, percepts: Sequence[Percept], beats: Records, *, keep_audio: bool) -> StoredRecording:
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
        beats=beats,
        take=recording.take,
    )


# Hearing a partner's recordings again, on a machine that cannot compute as it was trained, or for what its file lacks.
# Vocabularies stay by default.


@dataclass(frozen=True)
class Reheard:
    """A partner heard again, with, per source, the `frames` that are not silent, and those with the `same` token as before.

    `same` is None if the vocabularies were learned anew.
    """

    model: PartnerModel
    same: tuple[int, ...] | None
    frames: tuple[int, ...]

    @property
    def unchanged(self) -> bool:
        """Whether the other runtime gave every token as it was."""
        return self.same == self.frames


def as_recording(stored: StoredRecording, samples: Float32) -> Recording:
    """Return a partner's recording as one to train on; `samples` (n,) are its sound."""
    return Recording(stored.name, stored.sample_rate_hz, samples, take=stored.take)


def own_recordings(model: PartnerModel) -> list[Recording]:
    """Return the recordings that a partner holds; raises `PartnerFileError` if one was left out or is damaged."""
    left_out = [stored.name for stored in model.recordings if stored.flac is None]
    if left_out:
        raise PartnerFileError(
            f"this partner cannot hear its recordings again: {left_out[0]} was left out of it (--no-audio);"
            " train it anew from the recordings"
        )
    return [as_recording(stored, stored.samples()) for stored in model.recordings]


@single_blas_thread()
def with_beats(model: PartnerModel, *, processes: int = 1, progress: Progress | None = None) -> PartnerModel:
    """Return the partner with the beats and drum hits of its own recordings, all else as it is; raises as `train` does."""
    tell = progress or (lambda _what, _share: None)
    rate_hz = model.spec.sample_rate_hz
    recordings, hits = [], np.zeros(0, dtype=NOTE)
    states = model.memory.states.copy()
    with tempfile.TemporaryDirectory(prefix="musichal-", ignore_cleanup_errors=True) as folder:
        processes = processes if model.spec.encoder.name in LEARNED else 1
        analysed = _analyse_all(own_recordings(model), model.spec, Path(folder), tell, processes)
        for number, (stored, item) in enumerate(zip(model.recordings, analysed, strict=True)):
            tell(f"Finding the beats of {stored.name}", number / len(analysed))
            beats = known_or_found_beats(stored.take, item.segments(), sample_rate_hz=rate_hz)
            recordings.append(replace(stored, beats=beats))
            own = np.flatnonzero(states["recording"] == number).tolist()
            gestures = model.memory.gestures(number)
            for state, gesture, struck in zip(
                own,
                gestures,
                assign_notes(gestures, item.hits, exact=is_exact(stored.take)),
                strict=True,
            ):
                states["first_hit"][state], states["hit_count"][state] = len(hits), len(struck)
                hits = np.concatenate([hits, note_rows(gesture, struck)])
    states = in_the_beat(states, recordings)
    memory = Memory.restore(states, model.memory.notes, model.memory.oracle, hits=hits, players=model.memory.players)
    memory.worth = model.memory.worth
    return replace(
        model, memory=memory, recordings=tuple(recordings), spec=replace(model.spec, drum_digest=drum_model_digest())
    )


def rehear(
    model: PartnerModel, spec: PerceptionSpec, *, refit: bool = False, processes: int = 1, progress: Progress | None = None
) -> Reheard:
    """Return the partner as it hears its own recordings with another spec that has the same frames; raises as `train` does."""
    kept = None if refit else model.vocabularies
    again = train(own_recordings(model), spec, processes=processes, vocabularies=kept, pairs=model.pairs, progress=progress)
    same, frames = [], []
    for source in range(len(SOURCES)):
        pairs = [(a.tokens[source], b.tokens[source]) for a, b in zip(model.recordings, again.recordings, strict=True)]
        before, now = (np.concatenate(side) for side in zip(*pairs, strict=True))
        heard = (before != SILENCE) | (now != SILENCE)
        same.append(int((before == now)[heard].sum()))
        frames.append(int(heard.sum()))
    return Reheard(again, None if refit else tuple(same), tuple(frames))
