"""What was heard of a recording, on disk, and what a vocabulary makes of it: heard once, however often it is trained on.

A file holds the segments of a recording in parts of some minutes, each with its features, and the recording's notes, beats and
sound. It is a container (`musichal.memory.container`): whole or not there, each member checked against its digest when it is
read. Features stay as they were heard, for a token must be that of live hearing: 0.18 GB an hour with `spectral`, about as much
as the sound itself. Salience, which only beats need, is not kept.
"""

import hashlib
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from musichal.arrays import AnyArray, Bool, Float32, Int16, Int64, Records
from musichal.audio.files import write_flac
from musichal.audio.midi_take import MidiTake
from musichal.audio.recording import Recording, ingest
from musichal.audio.resample import StreamResampler
from musichal.errors import InputError, PartnerFileError
from musichal.hearing.beats import BEAT
from musichal.hearing.encoders import Encoder, create_encoder
from musichal.hearing.exact_notes import NoteQueue, OnsetQueue, known_of, known_or_found_beats
from musichal.hearing.front_end import FrontEnd
from musichal.hearing.listener import FeatureExtractor, Tokenizer, Vocabularies
from musichal.hearing.percepts import N_PITCHES, SOURCES, Gesture, Percept, SegmentFeatures
from musichal.machine import single_blas_thread
from musichal.memory.container import Blob, Container, Data, pack_arrays, read_container, write_container
from musichal.memory.partner_file import columns_to_arrays
from musichal.memory.take_arrays import take_of_arrays, take_to_arrays
from musichal.note import HeardNote
from musichal.spec import PerceptionSpec
from musichal.text import printable, reason
from musichal.training.workers import Analyse

_PROBE_S = 1.2
_BLOCK_S = 1.0
_COMPACT_SCALE = 2**15
_PART_FRAMES = 1 << 14
_NOTE = np.dtype([("onset_s", np.float64), ("duration_s", np.float64), ("pitch", np.uint8), ("velocity", np.uint8)])
_SEGMENT = ("index", "start_sample", "length_samples", "available_at", "full_scale_share")
_FRAMES = ("frame_samples", "level_db", "chroma")
_FLAC = "recordings/sound.flac"


@dataclass(frozen=True)
class Heard:
    """What was heard of a recording, in a file of a work folder.

    `take` is what a MIDI file says of it; its notes and hits then stand in the place of those heard.
    """

    container: Container
    name: str
    take: MidiTake | None = None
    tags: tuple[str, ...] = ()

    @classmethod
    def load(cls, path: Path, *, name: str, tags: tuple[str, ...] = ()) -> "Heard":
        """Open a file that `hear` wrote; raises `PartnerFileError` where it is damaged, or not where it was written."""
        container = _read(path)
        take = container.read_arrays("arrays/midi.safetensors") if "arrays/midi.safetensors" in container.members else None
        return cls(container, name, None if take is None else take_of_arrays(take, name), tags)

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the recording."""
        return int(self.container.content["sample_rate_hz"])

    @property
    def n_samples(self) -> int:
        """Length of the recording."""
        return int(self.container.content["n_samples"])

    @property
    def digest(self) -> str:
        """SHA-256 of the samples."""
        return str(self.container.content["digest"])

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.n_samples / self.sample_rate_hz

    @property
    def end_sample(self) -> int:
        """How many samples, at the spec's rate, were heard."""
        return int(self.container.content["end_sample"])

    @property
    def flac(self) -> Blob | None:
        """The recording's sound, None where it was not kept."""
        return self.container.blob(_FLAC)

    @property
    def notes(self) -> list[HeardNote]:
        """Its notes."""
        return list(self.take.notes) if self.take is not None else self._every("notes")

    @property
    def hits(self) -> list[HeardNote]:
        """Its drum hits."""
        return list(self.take.hits) if self.take is not None else self._every("hits")

    def beats(self, *, sample_rate_hz: int) -> Records:
        """Return its grid of beats, `BEAT` of shape (n,)."""
        if self.take is not None and len(self.take.beats_s):
            return known_or_found_beats(self.take, (), sample_rate_hz=sample_rate_hz)
        return _records(self._end(), "beats", BEAT)

    def audible(self) -> Bool:
        """Return which frames of the sources are above the gate, shape (sources, n)."""
        return np.concatenate([np.zeros((len(SOURCES), 0), np.bool_), *(p["audible"] for p in self._parts())], axis=1)

    def features(self, source: int, chosen: Bool | None = None) -> Iterator[Float32]:
        """Yield the features of the frames of a source, or of those `chosen` (n,), part by part, each of shape (k, dims)."""
        first = 0
        for part in self._members(SOURCES[source]):
            features: Float32 = self.container.read_arrays(part)["features"]
            yield features if chosen is None else features[chosen[first : first + len(features)]]
            first += len(features)

    def every(self, name: str) -> AnyArray:
        """Return one of the arrays of all segments, such as `frame_samples`, shape (n,)."""
        return np.concatenate([part[name] for part in self._parts()])

    def segments(self, *, features: bool = True) -> Iterator[SegmentFeatures]:
        """Yield the segments as they were heard, without salience, and without features where not asked for."""
        every = zip(*(self._members(source) for source in SOURCES), strict=True)
        for part, members in zip(self._parts(), every, strict=True):
            vectors = [self.container.read_arrays(member)["features"] for member in members] if features else []
            first = struck = 0
            notes, hits = _notes(part, "notes"), _notes(part, "hits")
            places = {"notes": 0, "hits": 0}

            def take(kind: str, every: list[HeardNote], count: int, places: dict[str, int] = places) -> tuple[HeardNote, ...]:
                places[kind] += count
                return tuple(every[places[kind] - count : places[kind]])

            for row in range(len(part["index"])):
                n, onsets = int(part["frames"][row]), int(part["onsets"][row])
                frames = slice(first, first + n)
                yield SegmentFeatures(
                    index=int(part["index"][row]),
                    start_sample=int(part["start_sample"][row]),
                    length_samples=int(part["length_samples"][row]),
                    available_at=int(part["available_at"][row]),
                    full_scale_share=float(part["full_scale_share"][row]),
                    features=tuple(vector[frames] for vector in vectors),
                    source_level_db=part["source_level_db"][:, frames],
                    audible=part["audible"][:, frames],
                    salience=np.zeros((n, N_PITCHES), np.float32),
                    onset_samples=tuple(part["onset_samples"][struck : struck + onsets].tolist()),
                    notes=take("notes", notes, int(part["note_count"][row])),
                    hits=take("hits", hits, int(part["hit_count"][row])),
                    **{name: part[name][frames] for name in _FRAMES},
                )
                first, struck = first + n, struck + onsets

    def check(self) -> None:
        """Raise `PartnerFileError` where a member does not match its digest."""
        for name in self.container.members:
            self.container.check(name)

    def _members(self, kind: str) -> list[str]:
        return sorted(name for name in self.container.members if name.startswith(f"arrays/{kind}-"))

    def _parts(self) -> Iterator[dict[str, AnyArray]]:
        return map(self.container.read_arrays, self._members("part"))

    def _end(self) -> dict[str, AnyArray]:
        return self.container.read_arrays("arrays/end.safetensors")

    def _every(self, kind: str) -> list[HeardNote]:
        return [note for arrays in (*self._parts(), self._end()) for note in _notes(arrays, kind)]


def _read(path: Path) -> Container:
    """Open a file that is named by its key; raises `PartnerFileError` where it is damaged, or has the name of another."""
    container = read_container(path)
    if container.content.get("key") != path.name:
        raise PartnerFileError(f"{printable(path)} is what was heard of another recording")
    return container


def frame_hashes(heard: Heard, frames: AnyArray) -> AnyArray:
    """Return a number for each frame of a recording, uint64 (n,), from its sound and the frame's number alone (SplitMix64)."""
    with np.errstate(over="ignore"):
        x = np.uint64(int(heard.digest[:16], 16)) + frames.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(x ^ (x >> np.uint64(31)))


def compacted(recording: Recording, rate_hz: int) -> Recording:
    """Return a recording at the rate of hearing and with 16 bits, to be heard and kept so: a third of the size."""
    resampler = StreamResampler(source_rate_hz=recording.sample_rate_hz, target_rate_hz=rate_hz)
    samples = np.concatenate([resampler.push(recording.samples), resampler.flush()])
    whole = np.clip(np.rint(samples * np.float32(_COMPACT_SCALE)), -_COMPACT_SCALE, _COMPACT_SCALE - 1)
    return replace(recording, sample_rate_hz=rate_hz, samples=ingest((whole / _COMPACT_SCALE).astype(np.float32)))


@lru_cache(maxsize=1)
def ready_encoder(spec: PerceptionSpec) -> Encoder:
    """Return the encoder of a spec, opened once in a process."""
    return create_encoder(spec)


def hear(
    recording: Recording,
    spec: PerceptionSpec,
    encoder: Encoder,
    path: Path,
    *,
    keep_audio: bool,
    remarks: Mapping[str, Any] = MappingProxyType({}),
    analyse: Analyse | None = None,
    tell: Callable[[float], None] | None = None,
) -> None:
    """Push a recording through the front end and write what was heard, with some `remarks`.

    `tell` receives how many seconds are done.

    Raises `InputError` where the file cannot be written.
    """
    known = known_of(recording.take, spec)
    onsets = OnsetQueue(known.onsets) if known is not None else None
    notes = NoteQueue(known, sample_rate_hz=spec.sample_rate_hz) if known is not None else None
    front_end = FrontEnd(spec, source_rate_hz=recording.sample_rate_hz, known=onsets)
    extractor = FeatureExtractor(spec, encoder, transcribes=known is None)
    results = front_end.stream(recording.samples, block_samples=round(_BLOCK_S * recording.sample_rate_hz))
    windows = (window for result in results for window in result.windows)
    try:
        with tempfile.TemporaryDirectory(prefix="part-", dir=path.parent, ignore_cleanup_errors=True) as folder:
            writer = _Writer(Path(folder))

            def heard() -> Iterator[SegmentFeatures]:
                for window, analysis in analyse(windows) if analyse is not None else ((window, None) for window in windows):
                    segment = extractor.step(window, analysis)
                    segment = segment if notes is None else notes.put_in(segment)
                    writer.append(segment)
                    if tell is not None:
                        end = window.start_sample + window.length_samples
                        tell(min(recording.duration_s, end / spec.sample_rate_hz))
                    yield segment

            segments = heard()
            beats = known_or_found_beats(recording.take, segments, sample_rate_hz=spec.sample_rate_hz)
            deque(segments, maxlen=0)
            end = columns_to_arrays(beats, BEAT, prefix="beats_")
            end |= _note_arrays("notes", extractor.flush()) | _note_arrays("hits", extractor.flush_hits())
            members: dict[str, Data] = {**writer.members(), "arrays/end.safetensors": pack_arrays(end)}
            if recording.take is not None:
                members["arrays/midi.safetensors"] = pack_arrays(take_to_arrays(recording.take))
            if keep_audio:
                with (Path(folder) / "sound").open("xb") as stream:
                    write_flac(stream, recording.samples, recording.sample_rate_hz)
                members[_FLAC] = Path(folder) / "sound"
            content = {
                "key": path.name,
                "sample_rate_hz": recording.sample_rate_hz,
                "n_samples": recording.samples.shape[0],
                "digest": recording.digest,
                "end_sample": front_end.samples_heard,
                "dims": writer.dims,
                **remarks,
            }
            write_container(path, content=content, members=members)
    except OSError as error:
        raise InputError(f"cannot write what was heard of {recording.name}: {reason(error)}") from error


class _Writer:
    """Takes segments and keeps them in files, one for each part."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._segments: list[SegmentFeatures] = []
        self._frames = 0
        self._files: dict[str, Path] = {}
        self.dims = [1 for _ in SOURCES]

    def append(self, segment: SegmentFeatures) -> None:
        self._segments.append(segment)
        self._frames += len(segment.frame_samples)
        if self._frames >= _PART_FRAMES:
            self._write()

    def members(self) -> dict[str, Path]:
        """Write what is left and return every part."""
        if self._segments:
            self._write()
        return self._files

    def _write(self) -> None:
        s = self._segments
        arrays: dict[str, AnyArray] = {name: np.array([getattr(one, name) for one in s]) for name in _SEGMENT}
        arrays |= {name: np.concatenate([getattr(one, name) for one in s]) for name in _FRAMES}
        arrays |= {name: np.concatenate([getattr(one, name) for one in s], axis=1) for name in ("source_level_db", "audible")}
        arrays["frames"] = np.array([len(one.frame_samples) for one in s])
        arrays["onsets"] = np.array([len(one.onset_samples) for one in s])
        arrays["onset_samples"] = np.array([onset for one in s for onset in one.onset_samples], dtype=np.int64)
        for kind, count in (("notes", "note_count"), ("hits", "hit_count")):
            arrays[count] = np.array([len(getattr(one, kind)) for one in s])
            arrays |= _note_arrays(kind, [note for one in s for note in getattr(one, kind)])
        every = {"part": arrays}
        every |= {source: {"features": np.concatenate([one.features[n] for one in s])} for n, source in enumerate(SOURCES)}
        self.dims = [every[source]["features"].shape[1] for source in SOURCES]
        number = len(self._files) // len(every)
        for kind, values in every.items():
            file = self._folder / f"{kind}-{number:06d}.safetensors"
            file.write_bytes(pack_arrays(values))
            self._files[f"arrays/{file.name}"] = file
        self._segments, self._frames = [], 0


def _note_arrays(kind: str, notes: Sequence[HeardNote]) -> dict[str, AnyArray]:
    rows = np.array([(n.onset_s, n.duration_s, n.pitch, n.velocity) for n in notes], dtype=_NOTE)
    return columns_to_arrays(rows, _NOTE, prefix=f"{kind}_")


def _notes(arrays: dict[str, AnyArray], kind: str) -> list[HeardNote]:
    return [HeardNote(*row) for row in _records(arrays, kind, _NOTE).tolist()]


def _records(arrays: dict[str, AnyArray], kind: str, dtype: np.dtype[np.void]) -> Records:
    names: Iterable[str] = dtype.names or ()
    out = np.zeros(len(arrays[f"{kind}_{next(iter(names))}"]), dtype=dtype)
    for name in names:
        out[name] = arrays[f"{kind}_{name}"]
    return out


@lru_cache(maxsize=1)
@single_blas_thread()
def probe(spec: PerceptionSpec) -> str:
    """Return a digest of what this process hears in a sound of whole numbers: noise, and a tone that starts in its middle."""
    n = round(_PROBE_S * spec.sample_rate_hz)
    whole = np.random.default_rng(17).integers(-(1 << 19), 1 << 19, n)
    whole[n // 2 :] += np.where(np.arange(n - n // 2) // 55 % 2, 1 << 21, -(1 << 21))
    digest = hashlib.sha256()
    samples = (whole / 2.0**23).astype(np.float32)
    for segment in FeatureExtractor(spec, ready_encoder(spec)).stream(samples, source_rate_hz=spec.sample_rate_hz):
        for array in (*segment.features, segment.level_db, segment.chroma, segment.audible):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


# ── tokens ───────────────────────────────────────────────────────────────────

_MEMBER = "arrays/tokenised.safetensors"
_BLOCK_GESTURES = 4096
_SCALARS = ("start_s", "duration_s", "level_db", "starts_at_onset", "tokens")


def tokenise(heard: Heard, spec: PerceptionSpec, vocabularies: Vocabularies, path: Path) -> None:
    """Write the tokens and gestures of a recording; raises `InputError` where the file cannot be written."""
    tokenizer = Tokenizer(spec, vocabularies)
    tokens: list[Int16] = []
    gestures: list[Gesture] = []
    blocks: list[dict[str, AnyArray]] = []
    counts = []
    for segment in heard.segments():
        percept = tokenizer.step(segment)
        tokens.append(percept.tokens)
        gestures += percept.gestures
        counts.append(len(percept.gestures))
        if len(gestures) >= _BLOCK_GESTURES:
            blocks.append(_columns(gestures))
            gestures = []
    blocks.append(_columns([*gestures, *tokenizer.flush(heard.end_sample)]))
    arrays = {name: np.concatenate([block[name] for block in blocks if len(block["tokens"])]) for name in blocks[0]}
    count = len(arrays["tokens"])
    arrays |= {"frame_tokens": np.concatenate(tokens, axis=1), "counts": np.array(counts)}
    write_container(path, content={"key": path.name, "gestures": count}, members={_MEMBER: lambda: arrays})


def _columns(gestures: Sequence[Gesture]) -> dict[str, AnyArray]:
    return {name: np.array([getattr(gesture, name) for gesture in gestures]) for name in (*_SCALARS, "chroma", "vector")}


def is_whole(path: Path) -> bool:
    """Return whether there is a file of tokens, not damaged and where it was written."""
    try:
        _read(path).check(_MEMBER)
    except PartnerFileError:
        return False
    return True


@dataclass(frozen=True)
class Tokenised:
    """A recording's tokens and gestures, in a file that `tokenise` wrote."""

    heard: Heard
    container: Container

    @classmethod
    def load(cls, heard: Heard, path: Path) -> "Tokenised":
        """Open a file; raises `PartnerFileError` where it is damaged."""
        return cls(heard, _read(path))

    def __len__(self) -> int:
        """Return how many gestures there are."""
        return int(self.container.content["gestures"])

    def tokens(self) -> Int16:
        """Return the tokens of every frame, shape (sources, n)."""
        return self.container.read_arrays(_MEMBER)["frame_tokens"]

    def token_counts(self, size: int) -> Int64:
        """Return how often each token occurs, shape (sources, size)."""
        return np.stack([np.bincount(row[row >= 0], minlength=size) for row in self.tokens()])

    def vectors(self) -> Records:
        """Return the vectors of the gestures, shape (n, dims)."""
        return self.container.read_arrays(_MEMBER)["vector"]

    def gestures(self) -> Iterator[Gesture]:
        """Yield the gestures in order."""
        arrays = self.container.read_arrays(_MEMBER)
        for first in range(0, len(self), _BLOCK_GESTURES):
            block = slice(first, first + _BLOCK_GESTURES)
            rows = zip(
                *(arrays[name][block].tolist() for name in _SCALARS),
                arrays["chroma"][block],
                arrays["vector"][block],
                strict=True,
            )
            for start_s, duration_s, level_db, starts_at_onset, tokens, chroma, vector in rows:
                yield Gesture(start_s, duration_s, (tokens[0], tokens[1]), level_db, chroma, vector, starts_at_onset)

    def percepts(self) -> Iterator[Percept]:
        """Yield what was heard, segment by segment, without features."""
        arrays = self.container.read_arrays(_MEMBER)
        gestures, frame = self.gestures(), 0
        for segment, count in zip(self.heard.segments(features=False), arrays["counts"].tolist(), strict=True):
            end = frame + len(segment.frame_samples)
            yield Percept(replace(segment, features=()), arrays["frame_tokens"][:, frame:end], tuple(islice(gestures, count)))
            frame = end
