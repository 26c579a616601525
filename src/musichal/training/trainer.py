"""Chandra, the trainer: recordings in, a partner out.

It hears each recording once, with the same `FeatureExtractor` that hears a live player, and keeps what was heard on disk
(`musichal.training.heard`). From the audible frames it learns a vocabulary per source, turns the recordings into tokens and
gestures with the same `Tokenizer`, and stores the gestures and their notes in a memory, recording by recording. So the memory
that training needs does not grow with features.
"""

import contextlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from musichal.arrays import Bool, Float32, Int64, Records, RowFile
from musichal.audio.files import flac_holds_rate
from musichal.audio.midi_take import MidiTake
from musichal.audio.recording import Recording
from musichal.errors import InputError, MusicHalError, PartnerFileError
from musichal.hearing.encoders import LEARNED, create_encoder
from musichal.hearing.encoders.runtimes import package_of
from musichal.hearing.exact_notes import is_exact
from musichal.hearing.listener import Vocabularies, resolve_spec
from musichal.hearing.model_weights import model_digest
from musichal.hearing.percepts import SILENCE, SOURCES
from musichal.hearing.vocabulary import Vocabulary, fit_vocabulary
from musichal.machine import SHAPES_NUMBERS, installed, single_blas_thread
from musichal.memory.beat_places import BeatPlace, beat_places
from musichal.memory.container import as_bytes
from musichal.memory.memory import NOTE, Memory, Pair, PlayersPast, assign_notes, note_rows
from musichal.memory.oracle_threshold import choose_threshold, sampled
from musichal.memory.partner_file import KEPT, PartnerModel, StoredRecording, in_the_beat
from musichal.spec import PerceptionSpec
from musichal.text import printable, reason
from musichal.training.alignment import MORE_AT_ONCE, Sounding, align_notes, aligned, check_pairs, parts_at_once
from musichal.training.heard import Heard, Tokenised, frame_hashes, hear, is_whole, ready_encoder, tokenise
from musichal.training.influence_worth import MOST_REHEARSALS, Rehearsal, influence_worth
from musichal.training.workers import DiedError, Engine, each, worker_pool

Progress = Callable[[str, float], None]
"""Receives what is being done, and the share of it that is done, 0 to 1."""

SAMPLE_FRAMES = 2_000_000
"""A vocabulary is learned from at most so many frames (seven hours and a half); of more, from as many, chosen by hash."""
# The oracle tells as many sounds apart, in a short memory one for four gestures.
_LEAST_CLUSTERS = 64


@single_blas_thread()
def train(
    recordings: Sequence[Recording | StoredRecording],
    spec: PerceptionSpec,
    *,
    keep_audio: bool = True,
    processes: int = 1,
    vocabularies: Vocabularies | None = None,
    pairs: Sequence[tuple[int, int]] = (),
    notes: Mapping[int, MidiTake] | None = None,
    sample_frames: int = SAMPLE_FRAMES,
    progress: Progress | None = None,
    warn: Callable[[str], None] | None = None,
) -> PartnerModel:
    """Train a partner.

    The same recordings, spec and installation give the same partner, bit for bit. Raises `InputError` if there is too little
    sound for the vocabulary, a rate cannot be stored, or a pair is not of the same music.

    * `recordings`: At least one, none shorter than a segment. Those of a partner are decoded one by one.
    * `keep_audio`: Whether the partner holds the recordings themselves.
    * `processes`: How many processes hear; the partner is the same for any number.
    * `vocabularies`: Vocabularies of an earlier training to keep, instead of learning them.
    * `pairs`: Numbers of recordings that sounded together: what the others did is remembered by how the player sounded beside
      it.
    * `notes`: What MIDI files say of recordings, by number; each is aligned with the sound.
    * `sample_frames`: From how many frames a vocabulary is learned at most.
    * `warn`: Receives what a user should know about the recordings as a whole.
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
        heard = _hear_all(recordings, spec, Path(folder), tell, processes, keep_audio=keep_audio)
        for number, take in (notes or {}).items():
            item = heard[number]
            sound = Sounding.of(item.name, item.segments(features=False), spec)
            moved = align_notes(sound, take, name=f"the notes of {item.name}").moved(take, duration_s=item.duration_s)
            heard[number] = replace(item, take=moved)
        few = processes == 1 or len(recordings) == 1
        model = learn(
            heard,
            spec,
            Path(folder),
            engine=partial(each, processes=1 if few else processes),
            vocabularies=vocabularies,
            pairs=pairs,
            sample_frames=sample_frames,
            progress=tell,
            warn=warn,
        )
        kept = [replace(stored, flac=None if stored.flac is None else as_bytes(stored.flac)) for stored in model.recordings]
        return replace(model, recordings=tuple(kept))


@single_blas_thread()
def learn(
    heard: Sequence[Heard],
    spec: PerceptionSpec,
    folder: Path,
    *,
    engine: Engine,
    vocabularies: Vocabularies | None = None,
    pairs: Sequence[tuple[int, int]] = (),
    sample_frames: int = SAMPLE_FRAMES,
    choose: Callable[[Sequence[Tokenised]], Sequence[int]] | None = None,
    worth: Callable[[Sequence[Heard]], Mapping[str, float]] = lambda _: {},
    progress: Progress,
    warn: Callable[[str], None] | None = None,
) -> PartnerModel:
    """Return the partner of what was heard; its sound stays in the files of `heard`.

    Tokens are kept in `folder`; what is there already is not done again. `engine` does it, `choose` says what of all recordings
    the partner remembers, `worth` what influences are worth to that, if it is known. Raises `InputError` as `train` does.
    """
    sounding = {n: Sounding.of(heard[n].name, heard[n].segments(features=False), spec) for pair in pairs for n in pair}
    found = tuple(Pair(*pair, offset_s=aligned(*(sounding[n] for n in pair), warn=warn)) for pair in pairs)
    for numbers in pairs if warn is not None else ():
        a, b = (parts_at_once(heard[n].notes, heard[n].hits, duration_s=heard[n].duration_s) for n in numbers)
        if a > b + MORE_AT_ONCE and warn is not None:
            player, others = (heard[n].name for n in numbers)
            warn(f"more goes on in {player} than in {others}: are the player and the others swapped?")
    kept = {KEPT: "kept"} if vocabularies is not None else {}
    counted = vocabularies is None
    if vocabularies is None:
        audible = np.stack([np.append(mask.sum(axis=1), mask.shape[1]) for mask in (item.audible() for item in heard)])
        counted = int(audible[:, -1].sum()) <= sample_frames
        vocabularies = _learn_vocabularies(heard, audible, spec, sample_frames, folder, progress, warn or (lambda _text: None))
    tokenised = _tokenise_all(heard, spec, vocabularies, folder, engine, progress)
    if choose is not None:
        chosen = choose(tokenised)
        if len(chosen) < len(heard):
            tokenised, counted, kept = [tokenised[n] for n in chosen], False, {KEPT: "kept"}
    if not counted:
        vocabularies = _counted_again(vocabularies, tokenised)
    beats = [item.heard.beats(sample_rate_hz=spec.sample_rate_hz) for item in tokenised]
    stored = [_store(item, own) for item, own in zip(tokenised, beats, strict=True)]
    players = {pair.player for pair in found}
    memory = _remember({n: (item, beats[n]) for n, item in enumerate(tokenised) if n not in players}, progress)
    past = {n: (tokenised[n], beats[n]) for n in sorted(players)}
    memory.players = PlayersPast(_remember(past, progress), found) if found else None
    progress("Weighing influences", 0.0)
    asked = {pair.player: (pair.others, pair.offset_s) for pair in found} or {n: (n, 0.0) for n in range(len(tokenised))}
    some = np.unique(np.linspace(0, len(asked) - 1, min(len(asked), MOST_REHEARSALS)).astype(np.int64))
    rehearsals = [Rehearsal(*asked[n], tokenised[n].percepts) for n in np.array(list(asked))[some].tolist()]
    known = worth([item.heard for item in tokenised])
    memory.worth = known or influence_worth(memory, rehearsals, sample_rate_hz=spec.sample_rate_hz)
    progress("Done", 1.0)
    names = SHAPES_NUMBERS if not spec.encoder.runtime else (*SHAPES_NUMBERS, package_of(spec.encoder.runtime))
    return PartnerModel(
        spec=spec,
        vocabularies=vocabularies,
        memory=memory,
        recordings=tuple(stored),
        encoder_licence=create_encoder(spec, ready=False).licence,
        trained_with={name: installed(name) for name in names} | kept,
    )


@dataclass(frozen=True)
class _ToHear:
    recording: Recording | StoredRecording
    spec: PerceptionSpec
    path: Path
    keep_audio: bool

    @property
    def words(self) -> str:
        return self.recording.name


@single_blas_thread()
def _hear_one(task: _ToHear) -> Path:
    hear(as_recording(task.recording), task.spec, ready_encoder(task.spec), task.path, keep_audio=task.keep_audio)
    return task.path


def _hear_all(
    recordings: Sequence[Recording | StoredRecording],
    spec: PerceptionSpec,
    folder: Path,
    tell: Progress,
    processes: int,
    *,
    keep_audio: bool,
) -> list[Heard]:
    done, total = 0.0, sum(r.duration_s for r in recordings)
    paths = [folder / f"heard-{number:06d}" for number in range(len(recordings))]
    if processes > 1 and len(recordings) > 1 and (spec.encoder.name not in LEARNED or len(recordings) >= processes):
        tell(f"Listening to {recordings[0].name}", 0.0)
        tasks = [_ToHear(*item, keep_audio) for item in zip(recordings, [spec] * len(paths), paths, strict=True)]
        for number, result in each(_hear_one, tasks, processes=processes):
            if isinstance(result, DiedError):
                raise InputError(f"{recordings[number].name}: {result}")
            if isinstance(result, MusicHalError):
                raise result
            done += recordings[number].duration_s
            tell(f"Listening to {recordings[number].name}", done / total)
    else:
        split = processes > 1 and spec.encoder.name in LEARNED
        with worker_pool(spec, processes=processes) if split else contextlib.nullcontext() as analyse:
            # If workers analyse, this process needs no network of its own.
            encoder = create_encoder(spec, ready=not split)
            for recording, path in zip(recordings, paths, strict=True):
                name, before = f"Listening to {recording.name}", done
                hear(
                    as_recording(recording),
                    spec,
                    encoder,
                    path,
                    keep_audio=keep_audio,
                    analyse=analyse,
                    tell=lambda s, name=name, before=before: tell(name, (before + s) / total),  # type: ignore[misc]
                )
                done += recording.duration_s
    tell(f"Listening to {recordings[-1].name}", 1.0)
    return [Heard.load(path, name=recording.name) for path, recording in zip(paths, recordings, strict=True)]


def _sample(heard: Sequence[Heard], source: int, mask: Callable[[Heard], Bool], total: int, most: int, folder: Path) -> RowFile:
    """Write at most so many frames (n, dims) of a source: all `total` of a mask, or those with the smallest hashes."""
    limit = np.uint64(2**64 - 1)
    if total > most:
        lowest = np.zeros(0, np.uint64)
        for item in heard:
            lowest = np.concatenate([lowest, frame_hashes(item, np.flatnonzero(mask(item)))])
            if len(lowest) > most:
                lowest = np.partition(lowest, most)[: most + 1]
        limit = lowest.max()
    out: RowFile | None = None
    for item in heard:
        chosen = mask(item)
        if total > most:
            chosen = chosen & (frame_hashes(item, np.arange(len(chosen))) < limit)
        for features in item.features(source, chosen):
            out = out or RowFile(features.shape[1], folder)
            out.append(features)
    assert out is not None
    return out


def _counted_again(vocabularies: Vocabularies, tokenised: Sequence[Tokenised]) -> Vocabularies:
    """Return vocabularies with counts of how often each of their tokens occurs in these recordings."""
    counts = sum(item.token_counts(vocabularies[0].size) for item in tokenised)
    out: list[Vocabulary] = []
    for source, vocabulary in enumerate(vocabularies):
        own = np.asarray(counts, np.int64)[source]
        if own.sum() < vocabulary.size:  # it was learned from below the gate
            own = np.asarray(
                sum(vocabulary.count(part) for item in tokenised for part in item.heard.features(source)), np.int64
            )
        out.append(replace(vocabulary, counts=own))
    return out[0], out[1]


def _learn_vocabularies(
    heard: Sequence[Heard],
    audible: Int64,
    spec: PerceptionSpec,
    sample_frames: int,
    folder: Path,
    tell: Progress,
    warn: Callable[[str], None],
) -> Vocabularies:
    """Learn the vocabularies; `audible` (recordings, sources + 1) counts the frames of each source, and all."""
    *counts, total = audible.sum(axis=0).tolist()
    size = spec.vocabulary.size
    if max(counts) < size <= total:
        raise InputError(
            f"nearly all of the sound is below the gate of {spec.gate.open_db:g} dBFS: give Chandra a louder recording"
        )
    learned = []
    for number, source in enumerate(SOURCES):
        quiet = counts[number] < size <= total
        if quiet:
            # A flute has next to nothing percussive. What little there is must not exclude it; it stays SILENCE.
            warn(
                f"nearly all of the {source} sound ({total - counts[number]} of {total} frames) is below the gate of"
                f" {spec.gate.open_db:g} dBFS: its vocabulary was learned from below the gate"
            )

        def mask(item: Heard, number: int = number, quiet: bool = quiet) -> Bool:
            return np.asarray(item.audible()[number] | quiet)

        tell(f"Choosing frames of the {source} sound", number / len(SOURCES))
        try:
            sample = _sample(heard, number, mask, total if quiet else counts[number], sample_frames, folder)
            tell(f"Learning {size} {source} sounds", (number + 0.5) / len(SOURCES))
            learned.append(fit_vocabulary(sample, spec.vocabulary, source=source, folder=folder))
        except OSError as error:
            raise InputError(f"cannot keep a sample of what was heard in {printable(folder)}: {reason(error)}") from error
    return learned[0], learned[1]


@dataclass(frozen=True)
class _ToTokenise:
    heard: Heard
    spec: PerceptionSpec
    vocabularies: Vocabularies
    path: Path

    @property
    def words(self) -> str:
        return self.heard.name


@single_blas_thread()
def _tokenise_one(task: _ToTokenise) -> None:
    tokenise(task.heard, task.spec, task.vocabularies, task.path)


def _tokenise_all(
    heard: Sequence[Heard], spec: PerceptionSpec, vocabularies: Vocabularies, folder: Path, engine: Engine, tell: Progress
) -> list[Tokenised]:
    digest = "".join(vocabulary.digest()[:8] for vocabulary in vocabularies)
    probes = (str(item.container.content.get("probe", ""))[:8] for item in heard)
    paths = [folder / f"{item.container.path.name}-{digest}{probe}" for item, probe in zip(heard, probes, strict=True)]
    left = [number for number, path in enumerate(paths) if not is_whole(path)]
    tasks = [_ToTokenise(heard[number], spec, vocabularies, paths[number]) for number in left]
    engine = engine if len(tasks) > 1 else partial(each, processes=1)
    for done, (number, result) in enumerate(engine(_tokenise_one, tasks)):
        if isinstance(result, MusicHalError):
            raise result
        tell(f"Naming the sounds of {heard[left[number]].name}", done / len(tasks))
    return [Tokenised.load(item, path) for item, path in zip(heard, paths, strict=True)]


def _remember(recordings: Mapping[int, tuple[Tokenised, Records]], tell: Progress) -> Memory:
    """Return a memory of recordings and their beats by their numbers, which ascend."""
    tell("Choosing the oracle's threshold", 0.0)
    total = sum(len(item) for item, _ in recordings.values())
    if total < 2:
        raise InputError("nothing changes in this recording: it is heard as a single gesture; give Chandra a longer one")
    rows, parts, first = sampled(total), [], 0
    for item, _ in recordings.values():
        own = rows[(rows >= first) & (rows < first + len(item))] - first
        if len(own):
            parts.append(item.vectors()[own])
        first += len(item)
    vectors = np.concatenate(parts)
    search = choose_threshold(vectors, rng=np.random.default_rng(0), least_clusters=min(_LEAST_CLUSTERS, total // 4))
    memory = Memory(dims=vectors.shape[1], threshold=search.threshold)
    memory.indexes = ()
    for number, (item, beats) in recordings.items():
        gestures, exact = list(item.gestures()), is_exact(item.heard.take)
        notes, hits = (assign_notes(gestures, some, exact=exact) for some in (item.heard.notes, item.heard.hits))
        places = beat_places(beats, [gesture.start_s for gesture in gestures])
        memory.extend(gestures, notes, recording=number, beats=[BeatPlace.of(place) for place in places], hits=hits)
        tell("Remembering", len(memory) / total)
    memory.index_all()
    return memory


def _store(item: Tokenised, beats: Records) -> StoredRecording:
    heard = item.heard
    return StoredRecording(
        name=heard.name,
        sample_rate_hz=heard.sample_rate_hz,
        n_samples=heard.n_samples,
        digest=heard.digest,
        tokens=item.tokens(),
        frame_samples=heard.every("frame_samples"),
        level_db=heard.every("level_db"),
        onset_samples=heard.every("onset_samples"),
        flac=heard.flac,
        beats=beats,
        take=heard.take,
        tags=heard.tags,
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


def as_recording(stored: Recording | StoredRecording, samples: Float32 | None = None) -> Recording:
    """Return a partner's recording as one to train on; `samples` (n,) are its sound, by default that in the partner."""
    if isinstance(stored, Recording):
        return stored
    return Recording(stored.name, stored.sample_rate_hz, stored.samples() if samples is None else samples, take=stored.take)


def own_recordings(model: PartnerModel) -> tuple[StoredRecording, ...]:
    """Return the recordings that a partner holds; raises `PartnerFileError` if one was left out."""
    left_out = [stored.name for stored in model.recordings if stored.flac is None]
    if left_out:
        raise PartnerFileError(
            f"this partner cannot hear its recordings again: {left_out[0]} was left out of it (--no-audio);"
            " train it anew from the recordings"
        )
    return model.recordings


def tagged(again: PartnerModel, model: PartnerModel) -> PartnerModel:
    """Return a partner that was trained on the recordings of `model`, and maybe more, with their tags and sound."""
    own = [
        replace(one, tags=stored.tags, flac=one.flac or stored.flac)
        for one, stored in zip(again.recordings, model.recordings, strict=False)
    ]
    return replace(again, recordings=(*own, *again.recordings[len(own) :]))


@single_blas_thread()
def with_beats(model: PartnerModel, *, processes: int = 1, progress: Progress | None = None) -> PartnerModel:
    """Return the partner with the beats and drum hits of its own recordings, all else as it is; raises as `train` does."""
    tell = progress or (lambda _what, _share: None)
    rate_hz = model.spec.sample_rate_hz
    recordings, hits, count = [], [np.zeros(0, dtype=NOTE)], 0
    states = model.memory.states.copy()
    with tempfile.TemporaryDirectory(prefix="musichal-", ignore_cleanup_errors=True) as folder:
        heard = _hear_all(own_recordings(model), model.spec, Path(folder), tell, processes, keep_audio=False)
        for number, (stored, item) in enumerate(zip(model.recordings, heard, strict=True)):
            beats = item.beats(sample_rate_hz=rate_hz)
            recordings.append(replace(stored, beats=beats))
            own = np.flatnonzero(states["recording"] == number).tolist()
            gestures = model.memory.gestures(number)
            struck = assign_notes(gestures, item.hits, exact=is_exact(stored.take))
            for state, gesture, own_hits in zip(own, gestures, struck, strict=True):
                states["first_hit"][state], states["hit_count"][state] = count, len(own_hits)
                hits.append(note_rows(gesture, own_hits))
                count += len(own_hits)
    states = in_the_beat(states, recordings)
    memory = Memory.restore(
        states, model.memory.notes, model.memory.oracle, hits=np.concatenate(hits), players=model.memory.players
    )
    memory.worth = model.memory.worth
    return replace(
        model, memory=memory, recordings=tuple(recordings), spec=replace(model.spec, drum_digest=model_digest("drum"))
    )


def rehear(
    model: PartnerModel, spec: PerceptionSpec, *, refit: bool = False, processes: int = 1, progress: Progress | None = None
) -> Reheard:
    """Return the partner as it hears its own recordings with another spec that has the same frames; raises as `train` does."""
    kept = None if refit else model.vocabularies
    again = train(
        own_recordings(model),
        spec,
        keep_audio=False,  # it is in the partner
        processes=processes,
        vocabularies=kept,
        pairs=model.pairs,
        progress=progress,
    )
    again = replace(tagged(again, model), archive={} if refit else model.archive)  # which says what taught the vocabularies
    same, frames = [], []
    for source in range(len(SOURCES)):
        pairs = [(a.tokens[source], b.tokens[source]) for a, b in zip(model.recordings, again.recordings, strict=True)]
        before, now = (np.concatenate(side) for side in zip(*pairs, strict=True))
        heard = (before != SILENCE) | (now != SILENCE)
        same.append(int((before == now)[heard].sum()))
        frames.append(int(heard.sum()))
    return Reheard(again, None if refit else tuple(same), tuple(frames))
