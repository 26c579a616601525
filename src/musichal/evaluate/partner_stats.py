"""Statistics of token streams and of a partner: everything that `musichal inspect` reports.

A vocabulary that collapsed live shows in its diversity first: few tokens, one of them most of the time, low perplexity.

Conventions
-----------
Times are in seconds from the start of a recording. Shares are from 0 to 1, sources in the order of `SOURCES`. What does not
exist (the pitch range of a memory without notes) is None. Token arrays have shape (n,), one per recording, so that nothing is
counted across the seam of two. Silent frames count in `silent_share` and as changes, but in no histogram; other shares are of
audible frames. Logarithms are to base 2.

References
----------
Perplexity: Jelinek, Mercer, Bahl & Baker, J. Acoust. Soc. Am. 62(S1), 1977.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from musichal.arrays import AnyArray, Int16
from musichal.audio.resample import resampled_length
from musichal.evaluate.checks import grid_counts
from musichal.evaluate.tempo_and_chords import ChordStats, TempoStats, chord_stats, tempo_stats
from musichal.hearing.percepts import SILENCE, SOURCES
from musichal.hearing.vocabulary import perplexity, token_histogram, top_share
from musichal.memory.memory import Memory
from musichal.memory.oracle_threshold import information_rate
from musichal.memory.partner_file import PartnerModel, StoredRecording
from musichal.memory.token_index import TokenIndex
from musichal.note import DRUMS


@dataclass(frozen=True)
class Diversity:
    """Token statistics of one source.

    Of `size` tokens `unique` occur; the commonest has `top_share` of the audible frames, the three commonest
    `top_three_share`. `perplexity` is 2 to the entropy of the histogram (0 if nothing is audible). `silent_share` is of all
    `frames`. `changes_per_second` counts frames whose token differs from the frame before, with silence as one more token.
    """

    size: int
    frames: int
    unique: int
    top_share: float
    top_three_share: float
    perplexity: float
    silent_share: float
    changes_per_second: float


@dataclass(frozen=True, kw_only=True)
class DiversityRow:
    """The diversity of one way of hearing, over `stretch_s` of sound, one value and one histogram per source."""

    label: str
    stretch_s: float
    diversity: tuple[Diversity, ...]
    histograms: tuple[tuple[int, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dataclasses.asdict(self)


def token_diversity(sequences: Sequence[AnyArray], *, size: int, duration_s: float) -> Diversity:
    """Return the statistics of one source.

    Raises `ValueError` for tokens outside the vocabulary, or a duration that is not positive.

    * `sequences`: shape (n,). Its tokens, one array per recording.
    * `size`: Tokens in the vocabulary.
    * `duration_s`: Length of the recordings together.
    """
    if not duration_s > 0:
        raise ValueError(f"duration_s must be positive, got {duration_s}")
    histogram = _histogram(sequences, size)
    frames = sum(len(tokens) for tokens in sequences)
    return Diversity(
        size=size,
        frames=frames,
        unique=int(np.count_nonzero(histogram)),
        top_share=top_share(histogram),
        top_three_share=top_share(histogram, k=3),
        perplexity=perplexity(histogram),
        silent_share=1.0 - int(histogram.sum()) / frames if frames else 0.0,
        changes_per_second=sum(int(np.count_nonzero(t[1:] != t[:-1])) for t in sequences) / duration_s,
    )


def diversity_row(label: str, streams: Sequence[Int16], *, size: int, duration_s: float) -> DiversityRow:
    """Return the row of token streams (sources, n), one per recording, of `duration_s` together."""
    own = [[tokens[source] for tokens in streams] for source in range(len(SOURCES))]
    return DiversityRow(
        label=label,
        stretch_s=duration_s,
        diversity=tuple(token_diversity(sequences, size=size, duration_s=duration_s) for sequences in own),
        histograms=tuple(tuple(_histogram(sequences, size).tolist()) for sequences in own),
    )


def _histogram(sequences: Sequence[AnyArray], size: int) -> AnyArray:
    return sum((token_histogram(tokens, size=size) for tokens in sequences), start=np.zeros(size, dtype=np.int64))


@dataclass(frozen=True)
class HearingStats:
    """How the partner hears: its spec's fingerprint and the numbers that people ask about.

    `frames_per_second` is measured: the frames that the recordings hold over their duration. It is below the rate of the
    encoder's stride, because a segment starts its own row of frames and a frame needs its whole view.
    """

    fingerprint: str
    encoder: str
    encoder_digest: str
    encoder_licence: str
    sample_rate_hz: int
    policy: str
    segment_s: float
    hop_s: float
    context_s: float
    lookahead_s: float
    frames_per_second: float
    vocabulary_size: int
    gate_open_db: float
    gate_close_db: float


@dataclass(frozen=True)
class RecordingStats:
    """One recording. `frames_expected` is the closed form's count, None where segments follow onsets.

    `tempo` is None where beats were not looked for (a file of version 1); `hits` counts its drum hits by name. `key` is what a
    MIDI file says for most of its time, with the share of that.
    """

    name: str
    digest: str
    duration_s: float
    sample_rate_hz: int
    has_audio: bool
    resampled_samples: int
    segments: int | None
    frames: int
    frames_expected: int | None
    onsets: int
    diversity: tuple[Diversity, ...]
    tempo: TempoStats | None
    hits: dict[str, int]
    key: tuple[str, float] | None

    @property
    def count_agrees(self) -> bool | None:
        """Whether exactly the expected frames are held; None where no closed form exists."""
        return None if self.frames_expected is None else self.frames == self.frames_expected


@dataclass(frozen=True)
class MemoryStats:
    """States and notes; `lowest_pitch` and `highest_pitch` are MIDI numbers, or None without notes."""

    states: int
    notes: int
    notes_per_second: float
    states_per_second: float
    median_duration_s: float
    share_with_notes: float
    share_at_onsets: float
    lowest_pitch: int | None
    highest_pitch: int | None


@dataclass(frozen=True)
class Repeat:
    """A stretch of `gestures` states that occurred before: state numbers, recordings and seconds of both."""

    gestures: int
    duration_s: float
    first_state: int
    first_recording: int
    first_start_s: float
    again_state: int
    again_recording: int
    again_start_s: float


@dataclass(frozen=True)
class RepetitionStats:
    """How far one source's gestures repeat. `information_rate_bits` is per gesture, from exact repeat lengths."""

    source: str
    mean_repeat: float
    information_rate_bits: float
    longest: Repeat | None


@dataclass(frozen=True)
class OracleStats:
    """The Audio Oracle over the gestures' vectors."""

    dims: int
    threshold: float
    clusters: int
    links: int
    mean_repeat: float
    longest_repeat: int
    information_rate_bits: float


@dataclass(frozen=True)
class PairStats:
    """A player's recording and the one that answers it, in which each moment is `offset_s` later."""

    player: str
    others: str
    offset_s: float
    gestures: int


@dataclass(frozen=True)
class PartnerStats:
    """Everything together; `diversity` per source over all recordings."""

    hearing: HearingStats
    trained_with: dict[str, str]
    duration_s: float
    recordings: tuple[RecordingStats, ...]
    diversity: tuple[Diversity, ...]
    memory: MemoryStats
    repetition: tuple[RepetitionStats, ...]
    oracle: OracleStats
    pairs: tuple[PairStats, ...] = ()
    chords: tuple[ChordStats, ...] = ()

    @property
    def counts_agree(self) -> bool:
        """Whether no recording holds another number of frames than the closed form says."""
        return all(r.count_agrees is not False for r in self.recordings)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, the verdicts on frame counts among them."""
        values = dataclasses.asdict(self)
        values["counts_agree"] = self.counts_agree
        values["diversity"] = dict(zip(SOURCES, values["diversity"], strict=True))
        for table, recording in zip(values["recordings"], self.recordings, strict=True):
            table["count_agrees"] = recording.count_agrees
            table["diversity"] = dict(zip(SOURCES, table["diversity"], strict=True))
        return values


def partner_stats(model: PartnerModel) -> PartnerStats:
    """Return the statistics of a partner."""
    size, duration_s = model.spec.vocabulary.size, sum(r.duration_s for r in model.recordings)
    return PartnerStats(
        hearing=_hearing(model, duration_s),
        trained_with=dict(model.trained_with),
        duration_s=duration_s,
        recordings=tuple(_recording(r, model, number) for number, r in enumerate(model.recordings)),
        diversity=tuple(
            token_diversity([r.tokens[source] for r in model.recordings], size=size, duration_s=duration_s)
            for source in range(len(SOURCES))
        ),
        memory=_memory(model.memory, duration_s),
        repetition=tuple(
            _repetition(source, index, model.memory) for source, index in zip(SOURCES, model.memory.indexes, strict=True)
        ),
        oracle=_oracle(model.memory),
        pairs=_pairs(model),
        chords=tuple(filter(None, (_chords(model, number) for number in range(len(model.recordings))))),
    )


def _chords(model: PartnerModel, number: int) -> ChordStats | None:
    recording = model.recordings[number]
    regions = recording.take.regions(duration_s=recording.duration_s) if recording.take is not None else ()
    return chord_stats(model.memory.of_recording(number), number, name=recording.name, regions=regions)


def _pairs(model: PartnerModel) -> tuple[PairStats, ...]:
    past = model.memory.players
    if past is None:
        return ()
    names, owners = [recording.name for recording in model.recordings], past.memory.states["recording"]
    return tuple(PairStats(names[p.player], names[p.others], p.offset_s, int((owners == p.player).sum())) for p in past.pairs)


def _hearing(model: PartnerModel, duration_s: float) -> HearingStats:
    spec = model.spec
    rate = spec.sample_rate_hz
    return HearingStats(
        fingerprint=spec.fingerprint(),
        encoder=spec.encoder.title,
        encoder_digest=spec.encoder.digest,
        encoder_licence=model.encoder_licence,
        sample_rate_hz=rate,
        policy=spec.policy,
        segment_s=spec.segment_samples / rate,
        hop_s=spec.hop_samples / rate,
        context_s=spec.context_samples / rate,
        lookahead_s=spec.lookahead_samples / rate,
        frames_per_second=sum(len(r.frame_samples) for r in model.recordings) / duration_s,
        vocabulary_size=spec.vocabulary.size,
        gate_open_db=spec.gate.open_db,
        gate_close_db=spec.gate.close_db,
    )


def _recording(recording: StoredRecording, model: PartnerModel, number: int) -> RecordingStats:
    spec = model.spec
    counts = grid_counts(recording, spec) if spec.policy == "grid" else None
    length = resampled_length(recording.n_samples, source_rate_hz=recording.sample_rate_hz, target_rate_hz=spec.sample_rate_hz)
    return RecordingStats(
        name=recording.name,
        digest=recording.digest,
        duration_s=recording.duration_s,
        sample_rate_hz=recording.sample_rate_hz,
        has_audio=recording.flac is not None,
        resampled_samples=length,
        segments=counts.segments if counts else None,
        frames=len(recording.frame_samples),
        frames_expected=counts.frames if counts else None,
        onsets=len(recording.onset_samples),
        diversity=tuple(
            token_diversity([tokens], size=spec.vocabulary.size, duration_s=recording.duration_s) for tokens in recording.tokens
        ),
        tempo=None if recording.beats is None else tempo_stats(recording.beats, duration_s=recording.duration_s),
        hits=_hits(model.memory.of_recording(number), number),
        key=None if recording.take is None else recording.take.key(duration_s=recording.duration_s),
    )


def _hits(memory: Memory, recording: int) -> dict[str, int]:
    """Return how often each drum was hit in a recording, the most frequent first."""
    owners = np.repeat(memory.states["recording"], memory.states["hit_count"])
    keys, counts = np.unique(memory.hits["pitch"][owners == recording], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {DRUMS.get(int(keys[n]), f"key {keys[n]}"): int(counts[n]) for n in order}


def _memory(memory: Memory, duration_s: float) -> MemoryStats:
    states, notes = memory.states, memory.notes
    pitches = notes["pitch"]
    return MemoryStats(
        states=len(states),
        notes=len(notes),
        notes_per_second=len(notes) / duration_s,
        states_per_second=len(states) / duration_s,
        median_duration_s=float(np.median(states["duration_s"])),
        share_with_notes=float(np.mean(states["note_count"] > 0)),
        share_at_onsets=float(np.mean(states["starts_at_onset"])),
        lowest_pitch=int(pitches.min()) if len(notes) else None,
        highest_pitch=int(pitches.max()) if len(notes) else None,
    )


def _repetition(source: str, index: TokenIndex, memory: Memory) -> RepetitionStats:
    lengths = index.repeat_lengths()
    return RepetitionStats(
        source=source,
        mean_repeat=float(lengths.mean()),
        information_rate_bits=information_rate(lengths) / len(lengths),
        longest=_longest(lengths, index, memory),
    )


def _longest(lengths: AnyArray, index: TokenIndex, memory: Memory) -> Repeat | None:
    """Return the longest repeat with any sound in it; of equals, the first."""
    audible = np.concatenate([[0], np.cumsum(index.symbols() != SILENCE)])
    ends = np.arange(1, len(lengths) + 1)
    heard = np.where(audible[ends] > audible[ends - lengths], lengths, 0)
    end = int(heard.argmax())
    n = int(heard[end])
    if not n:
        return None
    first, again = index.repeat_position(end) - n + 1, end - n + 1
    before, after, last = memory.place(first), memory.place(again), memory.place(end)
    return Repeat(
        gestures=n,
        duration_s=last.start_s + last.duration_s - after.start_s,
        first_state=first,
        first_recording=before.recording,
        first_start_s=before.start_s,
        again_state=again,
        again_recording=after.recording,
        again_start_s=after.start_s,
    )


def _oracle(memory: Memory) -> OracleStats:
    oracle = memory.oracle
    lengths = oracle.repeat_lengths()
    return OracleStats(
        dims=oracle.dims,
        threshold=oracle.threshold,
        clusters=oracle.cluster_count,
        links=oracle.link_count,
        mean_repeat=float(lengths.mean()),
        longest_repeat=int(lengths.max()),
        information_rate_bits=information_rate(lengths) / len(lengths),
    )
