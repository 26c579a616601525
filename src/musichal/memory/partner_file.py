"""The partner file: everything that a training leaves behind, in one `.hal` file.

It holds the perception spec and its fingerprint, the vocabularies, the memory, the token stream of each recording (so that
`verify` can compare live hearing with training), its beats, and the recordings themselves as heard, unless they were left out.
`container` reads it safely; here each value is checked for its meaning. Each member is read and hashed once; sound stays in the
file until it is asked for.

Where states lie in the beat is not stored but derived from the grids of beats. A file of version 1 has neither beats nor drum
hits: it is loaded without them. From version 3 on it may hold pairs: which recording is a player's beside which of others, and
the gestures of the players.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from musichal.arrays import AnyArray, Float32, Float64, Int16, Int64, Records
from musichal.audio.files import decode_flac
from musichal.audio.midi_take import MidiTake
from musichal.errors import InputError, PartnerFileError
from musichal.hearing.beats import BEAT
from musichal.hearing.percepts import SILENCE, SOURCES
from musichal.hearing.vocabulary import Vocabulary
from musichal.memory.audio_oracle import AudioOracle
from musichal.memory.beat_places import BEAT_PLACE, beat_places
from musichal.memory.container import (
    FORMAT_VERSION,
    Blob,
    Container,
    Data,
    Layout,
    as_bytes,
    read_container,
    require,
    require_range,
    safe_text,
    write_container,
)
from musichal.memory.memory import NOTE, STATE, Memory, Pair, PlayersPast
from musichal.memory.ready import KeptObjects, find_kept, keep, keepable
from musichal.memory.take_arrays import CONTROL_ARRAYS, TAKE_ARRAYS, take_of_arrays, take_to_arrays
from musichal.spec import PerceptionSpec
from musichal.text import PathLike, printable

_LONGEST_SAMPLES = 4 * 3600 * 192_000
_HIGHEST_RATE_HZ = 768_000
# What was heard may end a little behind the recording: resampling rounds its length, and its last window is padded.
_SLACK_S = 1.0
# Squares and their sums stay far from the end of float32.
_LARGEST_FEATURE = 1e6
_LEAST_SCALE, _LARGEST_SCALE = 1e-12, 1e12
_LEAST_WORTH = 0.01
_PLAYERS = "player-"  # begins the names of members that hold the players' gestures
_LONGEST_OFFSET_S = 3600.0
# Of a partner with more sound, each recording is checked when it is read.
_CHECKED_BYTES = 1 << 29
KEPT = "vocabularies"
"""In `PartnerModel.trained_with`: the vocabularies were kept from an earlier training when its recordings were heard again."""

# Type and dimensions of the arrays of a vocabulary and of a recording.
_VOCABULARY_ARRAYS: Layout = {
    "centres": (np.float32, 2),
    "mean": (np.float32, 1),
    "projection": (np.float32, 2),
    "counts": (np.int64, 1),
}
_RECORDING_ARRAYS: Layout = {
    "tokens": (np.int16, 2),
    "frame_samples": (np.int64, 1),
    "level_db": (np.float32, 1),
    "onset_samples": (np.int64, 1),
}


def _layout_without(*left_out: str) -> np.dtype[np.void]:
    return np.dtype([(name, STATE[name]) for name in STATE.names or () if name not in left_out])


# The columns of the states that are stored, by the version of the file.
_DERIVED = BEAT_PLACE.names or ()
_STATE_LAYOUTS = {1: _layout_without(*_DERIVED, "first_hit", "hit_count")}
_STATE_LAYOUTS |= dict.fromkeys((2, 3), _layout_without(*_DERIVED))
_SHA256 = re.compile(r"[0-9a-f]{64}")


@keepable()
@dataclass(frozen=True)
class StoredRecording:
    """A recording of a partner: what it was, what was heard in it, and its sound as FLAC (None where left out).

    `tokens` (sources, n), `frame_samples` (n,) positions at the spec's rate, `level_db` (n,), `onset_samples` (k,).
    `digest` is the SHA-256 of its samples, `n_samples` at `sample_rate_hz`. `beats` is its grid, `BEAT` of shape (m,), empty
    where there is no steady beat; None where none was looked for: the file comes from a MusicHal that knew no beats.
    `take` is what a MIDI file said of it, None where there was none; `tags` are those of the manifest of an archive.
    """

    name: str
    sample_rate_hz: int
    n_samples: int
    digest: str
    tokens: Int16
    frame_samples: Int64
    level_db: Float32
    onset_samples: Int64
    flac: bytes | Blob | None
    beats: Records | None = None
    take: MidiTake | None = None
    tags: tuple[str, ...] = ()

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.n_samples / self.sample_rate_hz

    def samples(self) -> Float32:
        """Return the sound, float32 mono; raises `PartnerFileError` where it was left out or is damaged."""
        if self.flac is None:
            raise PartnerFileError(f"{self.name} was left out of the partner (trained with --no-audio)")
        try:
            samples, rate = decode_flac(as_bytes(self.flac), max_samples=self.n_samples)
        except InputError as error:
            raise PartnerFileError(f"the sound of {self.name} in the partner is damaged: {error}") from error
        if (rate, samples.shape[0]) != (self.sample_rate_hz, self.n_samples):
            raise PartnerFileError(f"the sound of {self.name} in the partner is not what was heard")
        return samples


@dataclass(frozen=True)
class PartnerModel:
    """What a training learned: how it hears, what it knows, where it comes from."""

    spec: PerceptionSpec
    vocabularies: tuple[Vocabulary, Vocabulary]
    memory: Memory
    recordings: tuple[StoredRecording, ...]
    encoder_licence: str
    trained_with: Mapping[str, str]
    """Versions of MusicHal and of the libraries that shape numbers; `KEPT` where vocabularies come from another training."""
    archive: Mapping[str, str] = field(default_factory=dict)
    """Of an archive how many `recordings` and `hours` it was learned from, by how many `sample_frames`, what of them is in
    `memory`, and of how many `weighed_hours` the worth of influences is, where those are fewer."""

    @property
    def versions(self) -> dict[str, str]:
        """Return the versions that trained it."""
        return {name: version for name, version in self.trained_with.items() if name != KEPT}

    @property
    def keeps_vocabularies(self) -> bool:
        """Return whether its vocabularies come from another training than its tokens."""
        return KEPT in self.trained_with

    @property
    def knows_beats(self) -> bool:
        """Return whether beats and drum hits were looked for in its recordings; not in a file of version 1."""
        return all(recording.beats is not None for recording in self.recordings)

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Return which recording is a player's beside which of others, by number."""
        past = self.memory.players
        return () if past is None else tuple((pair.player, pair.others) for pair in past.pairs)

    @property
    def beats_advice(self) -> str:
        """Return how to get beats where the partner does not know them, in one line; empty where it does."""
        if self.knows_beats:
            return ""
        kept = all(recording.flac is not None for recording in self.recordings)
        how = "`musichal rehear` finds them" if kept else "its sound was left out (--no-audio), so train it again to have them"
        return f"this partner is from before MusicHal kept beats and drum hits, and knows none: {how}"


def save_partner(path: PathLike, model: PartnerModel) -> None:
    """Write a partner file, whole or not at all; the same model gives the same bytes.

    Raises `InputError` where the path cannot be written.
    """
    members: dict[str, Data] = {**_memory_members(model.memory, "")}
    past = model.memory.players
    if past is not None:
        members |= _memory_members(past.memory, _PLAYERS)
    vocabularies, recordings = [], []
    for source, vocabulary in zip(SOURCES, model.vocabularies, strict=True):
        members[f"arrays/vocabulary-{source}.safetensors"] = partial(_fields, vocabulary, _VOCABULARY_ARRAYS)
        values = {name: getattr(vocabulary, name) for name in ("normalisation", "scale", "spread")}
        vocabularies.append({**values, "digest": vocabulary.digest()})
    for number, recording in enumerate(model.recordings):
        members[f"arrays/recording-{number:04d}.safetensors"] = partial(_fields, recording, _RECORDING_ARRAYS)
        recordings.append({name: getattr(recording, name) for name in ("name", "sample_rate_hz", "n_samples", "digest")})
        if recording.tags:
            recordings[-1]["tags"] = list(recording.tags)
        if recording.beats is not None:
            members[f"arrays/beats-{number:04d}.safetensors"] = partial(columns_to_arrays, recording.beats, BEAT)
        if recording.take is not None:
            members[f"arrays/midi-{number:04d}.safetensors"] = partial(take_to_arrays, recording.take)
        if recording.flac is not None:
            members[f"recordings/{number:04d}.flac"] = recording.flac
    content: dict[str, Any] = {
        "spec": model.spec.to_dict(),
        "fingerprint": model.spec.fingerprint(),
        "encoder_licence": model.encoder_licence,
        "trained_with": dict(model.trained_with),
        "vocabularies": vocabularies,
        "recordings": recordings,
    }
    if model.memory.worth:
        content["influences"] = dict(model.memory.worth)
    if model.archive:
        content["archive"] = dict(model.archive)
    if past is not None:
        content["pairs"] = [vars(pair) for pair in past.pairs]
    write_container(path, content=content, members=members)


def _memory_members(memory: Memory, prefix: str) -> dict[str, Data]:
    arrays: dict[str, Data] = {
        "states": partial(columns_to_arrays, memory.states, _STATE_LAYOUTS[FORMAT_VERSION]),
        "notes": partial(columns_to_arrays, memory.notes, NOTE),
        "hits": partial(columns_to_arrays, memory.hits, NOTE),
        "oracle": memory.oracle.to_arrays,
    }
    return {f"arrays/{prefix}{name}.safetensors": values for name, values in arrays.items()}


def _fields(value: Vocabulary | StoredRecording, layout: Layout) -> dict[str, AnyArray]:
    return {name: getattr(value, name) for name in layout}


def load_partner(path: PathLike) -> PartnerModel:
    """Read a partner file, which may come from an untrusted source.

    Raises `PartnerFileError`: One line that names the fault. No code from the file runs, and no more is allocated than it
      holds.
    """
    return load_with_digest(path)[0]


def load_with_digest(path: PathLike) -> tuple[PartnerModel, str]:
    """Read a partner file as `load_partner` does; return also the digest of what was read."""
    container = read_container(path)
    try:
        return _build(container, find_kept(container.digest)), container.digest
    except PartnerFileError:
        raise
    except InputError as error:
        raise PartnerFileError(f"{printable(path)}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        # The members match their digests, so this was written on purpose, and not by MusicHal.
        raise PartnerFileError(
            f"{printable(path)}: not a partner that MusicHal made ({type(error).__name__}: {error})"
        ) from error


def _build(container: Container, kept: KeptObjects | None) -> PartnerModel:
    content = container.content
    sound = [name for name in container.members if name.endswith(".flac")]
    if kept is None and sum(container.members[name].size for name in sound) <= _CHECKED_BYTES:
        for name in sound:
            container.check(name)
    spec = PerceptionSpec.from_dict(content["spec"])
    kept_as, known_as = content["fingerprint"], spec.fingerprint()
    require(known_as == kept_as, f"the fingerprint of its perception spec must be {kept_as!r:.80}, got {known_as!r}")
    count = len(content["vocabularies"])
    require(count == len(SOURCES), f"it must have {len(SOURCES)} vocabularies, got {count}")
    vocabularies = [
        _vocabulary(container, source, values, spec) for source, values in zip(SOURCES, content["vocabularies"], strict=True)
    ]
    if kept is None:
        recordings = tuple(_recording(container, number, values, spec) for number, values in enumerate(content["recordings"]))
        memory = _memories(container, spec, vocabularies, recordings)
    else:
        memory = kept.get("memory")
        recordings = tuple(_with_members(r, container, n) for n, r in enumerate(kept.get("recordings")))
        memory.kept = kept
    trained_with = {safe_text(k): safe_text(v) for k, v in content["trained_with"].items()}
    archive = {safe_text(k): safe_text(v) for k, v in content.get("archive", {}).items()}
    licence = safe_text(content["encoder_licence"])
    return PartnerModel(spec, (vocabularies[0], vocabularies[1]), memory, recordings, licence, trained_with, archive)


def keep_partner(digest: str, model: PartnerModel, derived: Mapping[str, object]) -> None:
    """Keep the memory of the partner whose file has this digest, and what was derived of it."""
    bare = tuple(replace(recording, flac=None, take=None) for recording in model.recordings)
    keep(digest, {"memory": model.memory, "recordings": bare, **derived})


def _with_members(recording: StoredRecording, container: Container, number: int) -> StoredRecording:
    flac, take = container.blob(f"recordings/{number:04d}.flac"), _take(container, number)
    return recording if flac is None and take is None else replace(recording, flac=flac, take=take)


def _memories(
    container: Container, spec: PerceptionSpec, vocabularies: Sequence[Vocabulary], recordings: Sequence[StoredRecording]
) -> Memory:
    """Return the memory, with that of the players where there are pairs, checked."""
    content, past = container.content, None
    require(len(recordings) > 0, "it holds no recording")
    if "pairs" in content:
        pairs = tuple(_pair(values, len(recordings)) for values in content["pairs"])
        past = PlayersPast(_memory(container, _PLAYERS, spec, vocabularies, recordings), pairs)
    memory = _memory(container, "", spec, vocabularies, recordings, players=past)
    memory.worth = {safe_text(name): _number(value) for name, value in content.get("influences", {}).items()}
    require_range(list(memory.worth.values()), _LEAST_WORTH, 1 / _LEAST_WORTH, "the worth of an influence")
    heard = {pair.player for pair in past.pairs} if past is not None else set()
    both = heard & {*np.unique(memory.states["recording"]).tolist()}
    require(not both, f"its memory must not play what a player played, got recording {min(both, default=0)}")
    return memory


def _pair(values: dict[str, Any], recordings: int) -> Pair:
    pair = Pair(values["player"], values["others"], _number(values["offset_s"]))
    numbers = (pair.player, pair.others)
    known = all(type(n) is int and 0 <= n < recordings for n in numbers)
    require(known, f"a pair must be recordings in [0, {recordings - 1}], got {numbers!r:.40}")
    require_range(pair.offset_s, -_LONGEST_OFFSET_S, _LONGEST_OFFSET_S, "the offset of a pair in s")
    return pair


def _memory(
    container: Container,
    prefix: str,
    spec: PerceptionSpec,
    vocabularies: Sequence[Vocabulary],
    recordings: Sequence[StoredRecording],
    *,
    players: PlayersPast | None = None,
) -> Memory:
    """Return the memory whose members begin with `prefix`, checked against the recordings."""

    def read(name: str) -> dict[str, AnyArray]:
        return container.read_arrays(f"arrays/{prefix}{name}.safetensors")

    states = in_the_beat(_arrays_to_columns(read("states"), _STATE_LAYOUTS[container.version]), recordings)
    hits = _arrays_to_columns(read("hits"), NOTE) if container.version > 1 else None
    oracle = AudioOracle.from_arrays(read("oracle"))
    memory = Memory.restore(states, _arrays_to_columns(read("notes"), NOTE), oracle, hits=hits, players=players)
    require(len(states) > 0, "it holds no recording")
    dims = sum(v.centres.shape[1] for v in vocabularies)
    require(oracle.dims == dims, f"vectors in its memory must have {dims} dimensions, got {oracle.dims}")
    require_range(states["recording"], 0, len(recordings) - 1, "recordings in its memory")
    _require_tokens(states["tokens"], spec, "its memory")
    lengths_s = np.array([r.duration_s for r in recordings])[states["recording"]]
    _require_ends(states["start_s"] + states["duration_s"], lengths_s, "a state")
    for kind, rows in (("note", memory.notes), ("hit", memory.hits)):
        owner = np.repeat(np.arange(len(states)), states[f"{kind}_count"])
        rows_end_s = states["start_s"][owner] + rows["offset_s"] + rows["duration_s"]
        _require_ends(rows_end_s, lengths_s[owner], f"a {kind}")
    return memory


def _require_ends(ends_s: Float64, lengths_s: Float64, what: str) -> None:
    late = np.flatnonzero(~(ends_s <= lengths_s + _SLACK_S))
    if len(late):
        raise InputError(f"{what} in its memory must end by {lengths_s[late[0]]:g} s, got {ends_s[late[0]]:g} s")


def _vocabulary(container: Container, source: str, values: dict[str, Any], spec: PerceptionSpec) -> Vocabulary:
    vocabulary = Vocabulary(
        normalisation=values["normalisation"],
        scale=_number(values["scale"]),
        spread=_number(values["spread"]),
        **_arrays(container, f"arrays/vocabulary-{source}.safetensors", _VOCABULARY_ARRAYS),
    )
    of = f"of the {source} vocabulary"
    for name in ("normalisation", "size"):
        found, wanted = getattr(vocabulary, name), getattr(spec.vocabulary, name)
        require(found == wanted, f"{name} {of} must be {wanted!r}, got {found!r:.40}")
    require_range([vocabulary.scale, vocabulary.spread], _LEAST_SCALE, _LARGEST_SCALE, f"scale and spread {of}")
    for array in (vocabulary.centres, vocabulary.mean, vocabulary.projection):
        require_range(array, -_LARGEST_FEATURE, _LARGEST_FEATURE, f"centres, mean and projection {of}")
    _require_shape(vocabulary.counts, (vocabulary.size,), f"counts {of}")
    require_range(vocabulary.counts, 0, np.inf, f"counts {of}")
    kept_as, known_as = values["digest"], vocabulary.digest()
    require(known_as == kept_as, f"the digest {of} must be {kept_as!r:.80}, got {known_as!r}")
    if vocabulary.normalisation == "l2-pca":
        shape = (vocabulary.mean.shape[0], vocabulary.centres.shape[1])
        _require_shape(vocabulary.projection, shape, f"the projection {of}")
    return vocabulary


def _require_shape(array: AnyArray, shape: tuple[int, ...], what: str) -> None:
    require(array.shape == shape, f"{what} must have shape {shape}, got {array.shape}")


def _recording(container: Container, number: int, values: dict[str, Any], spec: PerceptionSpec) -> StoredRecording:
    flac_name = f"recordings/{number:04d}.flac"
    recording = StoredRecording(
        name=safe_text(values["name"]),
        sample_rate_hz=_integer(values["sample_rate_hz"], largest=_HIGHEST_RATE_HZ),
        n_samples=_integer(values["n_samples"], largest=_LONGEST_SAMPLES),
        digest=safe_text(values["digest"]),
        **_arrays(container, f"arrays/recording-{number:04d}.safetensors", _RECORDING_ARRAYS),
        flac=container.blob(flac_name),
        beats=_beats(container, number),
        take=_take(container, number),
        tags=tuple(safe_text(tag) for tag in values.get("tags", ())),
    )
    of, n = f"of recording {number}", recording.frame_samples.shape[0]
    require(_SHA256.fullmatch(recording.digest) is not None, f"the digest {of} must be 64 digits, got {recording.digest!r:.80}")
    require(n > 0, f"recording {number} has no frames")
    end = (recording.duration_s + _SLACK_S) * spec.sample_rate_hz
    for what, positions in (("frames", recording.frame_samples), ("onsets", recording.onset_samples)):
        require_range(positions, 0, end, f"{what} {of}", rising=True)
    _require_shape(recording.tokens, (len(SOURCES), n), f"tokens {of}")
    _require_shape(recording.level_db, (n,), f"levels {of}")
    _require_tokens(recording.tokens, spec, f"recording {number}")
    require_range(recording.level_db, -_LARGEST_FEATURE, _LARGEST_FEATURE, f"levels {of}")
    if recording.beats is not None:
        _check_beats(recording.beats, number, last_s=recording.duration_s + _SLACK_S)
    return recording


def _beats(container: Container, number: int) -> Records | None:
    member = f"arrays/beats-{number:04d}.safetensors"
    return _arrays_to_columns(container.read_arrays(member), BEAT) if member in container.members else None


def _take(container: Container, number: int) -> MidiTake | None:
    member = f"arrays/midi-{number:04d}.safetensors"
    if member not in container.members:
        return None
    arrays = container.read_arrays(member)
    more = CONTROL_ARRAYS if "labels_s" in arrays else {}
    return take_of_arrays(_fitting(arrays, {**TAKE_ARRAYS, **more}), f"recording {number}")


def _check_beats(beats: Records, number: int, *, last_s: float) -> None:
    require_range(beats["time_s"], -_SLACK_S, last_s, f"beats of recording {number} in s", rising=True)
    require_range(beats["confidence"], 0, 1, f"confidences of the beats of recording {number}")
    require_range(beats["bar_place"], -1, np.inf, f"places in the bar of the beats of recording {number}")


def in_the_beat(states: Records, recordings: Sequence[StoredRecording]) -> Records:
    """Return states, `STATE` or a part of its fields, with their places in the beats of their recordings."""
    out = np.zeros(states.shape, dtype=STATE)
    for name in states.dtype.names or ():
        out[name] = states[name]
    edges = np.searchsorted(states["recording"], np.arange(len(recordings) + 1))
    for recording, first, end in zip(recordings, edges[:-1], edges[1:], strict=True):
        beats = np.zeros(0, dtype=BEAT) if recording.beats is None else recording.beats
        places = beat_places(beats, states["start_s"][first:end])
        for name in _DERIVED:
            out[name][first:end] = places[name]
    return out


def _require_tokens(tokens: AnyArray, spec: PerceptionSpec, where: str) -> None:
    require_range(tokens, SILENCE, spec.vocabulary.size - 1, f"tokens of {where}")


def columns_to_arrays(columns: Records, layout: np.dtype[np.void], *, prefix: str = "") -> dict[str, AnyArray]:
    """Return the fields of columns as arrays, by name."""
    return {prefix + name: np.ascontiguousarray(columns[name]) for name in layout.names or ()}


def _arrays_to_columns(arrays: Mapping[str, AnyArray], dtype: np.dtype[np.void]) -> Records:
    assert dtype.names is not None and dtype.fields is not None
    require(set(arrays) == set(dtype.names), f"its columns must be {sorted(dtype.names)}, got {sorted(arrays)!r:.200}")
    n = arrays[dtype.names[0]].shape[:1]
    columns = np.zeros(n, dtype=dtype)
    for name in dtype.names:
        field, array = dtype.fields[name][0], arrays[name]
        _require_shape(array, n + field.shape, f"its column {name}")
        require(array.dtype == field.base, f"its column {name} must be {field.base}, got {array.dtype}")
        columns[name] = array
    return columns


def _arrays(container: Container, member: str, layout: Layout) -> dict[str, AnyArray]:
    return _fitting(container.read_arrays(member), layout)


def _fitting(arrays: Mapping[str, AnyArray], layout: Layout) -> dict[str, AnyArray]:
    """Return the arrays of a layout; raise `InputError` where one is of another type, `KeyError` where it is missing."""
    for name, (dtype, ndim) in layout.items():
        found = arrays[name]
        wanted = f"{ndim} dimensions of {np.dtype(dtype)}, got {found.ndim} of {found.dtype}"
        require(found.dtype == dtype and found.ndim == ndim, f"its array {name} must have {wanted}")
    return {name: arrays[name] for name in layout}


def _integer(value: Any, *, largest: int) -> int:
    require(type(value) is int and 0 < value <= largest, f"a count must be an integer in [1, {largest}], got {value!r:.40}")
    return value


def _number(value: Any) -> float:
    require(type(value) in (int, float), f"a value must be a number, got {value!r:.40}")
    return float(value)
