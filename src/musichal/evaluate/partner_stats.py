"""What a partner learned, in figures: everything that `musichal inspect` reports.

Each figure is computed from the partner itself, none from another figure that was rounded for display.

Conventions
-----------
Times are in seconds from the start of a recording. Shares are from 0 to 1. Figures of sources are in the order of `SOURCES`.
A figure that does not exist (the pitch range of a memory without notes) is None, never a number that stands for it.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from musichal.arrays import AnyArray
from musichal.evaluate.token_diversity import Diversity, token_diversity
from musichal.hearing.percepts import SILENCE, SOURCES, stream_frame_count
from musichal.memory.information_rate import information_rate
from musichal.memory.memory import Memory
from musichal.memory.partner_file import PartnerModel, StoredRecording
from musichal.memory.token_index import TokenIndex
from musichal.spec import PerceptionSpec
from musichal.text import clock, counted, pitch_name

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class HearingFigures:
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
class RecordingFigures:
    """One recording. `frames_expected` is the closed form's count, None where segments follow onsets."""

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

    @property
    def count_agrees(self) -> bool | None:
        """Whether exactly the expected frames are held; None where no closed form exists."""
        return None if self.frames_expected is None else self.frames == self.frames_expected


@dataclass(frozen=True)
class MemoryFigures:
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
class RepetitionFigures:
    """How far one source's gestures repeat. `information_rate_bits` is per gesture, from exact repeat lengths."""

    source: str
    mean_repeat: float
    information_rate_bits: float
    longest: Repeat | None


@dataclass(frozen=True)
class OracleFigures:
    """The Audio Oracle over the gestures' vectors."""

    dims: int
    threshold: float
    clusters: int
    links: int
    mean_repeat: float
    longest_repeat: int
    information_rate_bits: float


@dataclass(frozen=True)
class PartnerFigures:
    """Everything together; `diversity` per source over all recordings."""

    hearing: HearingFigures
    trained_with: dict[str, str]
    duration_s: float
    recordings: tuple[RecordingFigures, ...]
    diversity: tuple[Diversity, ...]
    memory: MemoryFigures
    repetition: tuple[RepetitionFigures, ...]
    oracle: OracleFigures

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


def resampled_length(n_samples: int, *, source_rate_hz: int, target_rate_hz: int) -> int:
    """Return how many samples `StreamResampler` makes of `n_samples`.

    soxr rounds n · target / source to the nearest integer, halves up; a test holds it to that over many rates and lengths,
    halves included. Integer arithmetic keeps it exact for any length.
    """
    return (2 * n_samples * target_rate_hz + source_rate_hz) // (2 * source_rate_hz)


def partner_figures(model: PartnerModel) -> PartnerFigures:
    """Return every figure of a partner."""
    size, duration_s = model.spec.vocabulary.size, sum(r.duration_s for r in model.recordings)
    return PartnerFigures(
        hearing=_hearing(model, duration_s),
        trained_with=dict(model.trained_with),
        duration_s=duration_s,
        recordings=tuple(_recording(r, model.spec) for r in model.recordings),
        diversity=tuple(
            token_diversity([r.tokens[source] for r in model.recordings], size=size, duration_s=duration_s)
            for source in range(len(SOURCES))
        ),
        memory=_memory(model.memory, duration_s),
        repetition=tuple(
            _repetition(source, index, model.memory) for source, index in zip(SOURCES, model.memory.indexes, strict=True)
        ),
        oracle=_oracle(model.memory),
    )


def _hearing(model: PartnerModel, duration_s: float) -> HearingFigures:
    spec = model.spec
    rate = spec.sample_rate_hz
    return HearingFigures(
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


def _recording(recording: StoredRecording, spec: PerceptionSpec) -> RecordingFigures:
    resampled = resampled_length(
        recording.n_samples, source_rate_hz=recording.sample_rate_hz, target_rate_hz=spec.sample_rate_hz
    )
    on_grid = spec.policy == "grid"
    return RecordingFigures(
        name=recording.name,
        digest=recording.digest,
        duration_s=recording.duration_s,
        sample_rate_hz=recording.sample_rate_hz,
        has_audio=recording.flac is not None,
        resampled_samples=resampled,
        segments=_grid_segments(resampled, spec) if on_grid else None,
        frames=len(recording.frame_samples),
        frames_expected=stream_frame_count(resampled, spec) if on_grid else None,
        onsets=len(recording.onset_samples),
        diversity=tuple(
            token_diversity([tokens], size=spec.vocabulary.size, duration_s=recording.duration_s) for tokens in recording.tokens
        ),
    )


def _grid_segments(n_samples: int, spec: PerceptionSpec) -> int:
    """Return how many segments on the grid bring frames; the last may be cut short by the end of the stream."""
    whole = 0 if n_samples < spec.segment_samples else (n_samples - spec.segment_samples) // spec.hop_samples + 1
    in_whole = stream_frame_count((whole - 1) * spec.hop_samples + spec.segment_samples, spec) if whole else 0
    return whole + (stream_frame_count(n_samples, spec) > in_whole)


def _memory(memory: Memory, duration_s: float) -> MemoryFigures:
    states, notes = memory.states, memory.notes
    pitches = notes["pitch"]
    return MemoryFigures(
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


def _repetition(source: str, index: TokenIndex, memory: Memory) -> RepetitionFigures:
    lengths = index.repeat_lengths()
    return RepetitionFigures(
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


def _oracle(memory: Memory) -> OracleFigures:
    oracle = memory.oracle
    lengths = oracle.repeat_lengths()
    return OracleFigures(
        dims=oracle.dims,
        threshold=oracle.threshold,
        clusters=oracle.cluster_count,
        links=oracle.link_count,
        mean_repeat=float(lengths.mean()),
        longest_repeat=int(lengths.max()),
        information_rate_bits=information_rate(lengths) / len(lengths),
    )


def figures_text(figures: PartnerFigures) -> "RenderableType":
    """Return the figures as tables for a terminal, to be rendered by whoever has one."""
    from rich.console import Group

    return Group(*_tables(figures))


def _tables(figures: PartnerFigures) -> Iterator["RenderableType"]:
    from rich.table import Table
    from rich.text import Text

    def table(title: str, *columns: str, rows: list[tuple[str, ...]]) -> Table:
        out = Table(title=title, title_justify="left", show_header=any(columns))
        for number, column in enumerate(columns):
            right = number > 0 and bool(column)
            # Beside a name only the name gives way, and it goes on in the next line: cut short it might equal another.
            whole = "name" in columns and column != "name"
            out.add_column(column, justify="right" if right else "left", no_wrap=whole, overflow="fold")
        for row in rows:
            # As `Text`, so that a recording's name cannot be taken for markup.
            out.add_row(*(Text(cell) for cell in row))
        return out

    yield table("How it hears", "", "", rows=_hearing_rows(figures.hearing))
    yield table(
        "Recordings",
        "name", "length", "segments", "frames", "closed form", "onsets", "sound",
        rows=[_recording_row(r) for r in figures.recordings],
    )  # fmt: skip
    yield table("Vocabulary", "", *SOURCES, rows=_diversity_rows(figures.diversity))
    yield table("Memory", "", "", rows=_memory_rows(figures.memory))
    yield table("Repetition", "", *SOURCES, "oracle", rows=_repetition_rows(figures))


def _hearing_rows(hearing: HearingFigures) -> list[tuple[str, ...]]:
    placed = "on a grid" if hearing.policy == "grid" else "cut at onsets"
    return [
        ("fingerprint", hearing.fingerprint[:16]),
        ("encoder", f"{hearing.encoder} ({hearing.encoder_licence})"),
        ("sounds per source", str(hearing.vocabulary_size)),
        ("segments", f"{_ms(hearing.segment_s)} every {_ms(hearing.hop_s)}, {placed}"),
        ("in view", f"{_ms(hearing.context_s)} before each segment, {_ms(hearing.lookahead_s)} behind it"),
        ("frames", f"{hearing.frames_per_second:.1f} per second at {hearing.sample_rate_hz} Hz"),
        ("gate", f"opens at {hearing.gate_open_db:.0f} dBFS, closes at {hearing.gate_close_db:.0f} dBFS"),
    ]


def _ms(seconds: float) -> str:
    return f"{round(1000 * seconds, 1):g} ms"


def _recording_row(recording: RecordingFigures) -> tuple[str, ...]:
    if recording.frames_expected is None:
        closed_form = "none: segments follow onsets"
    else:
        closed_form = "equal" if recording.count_agrees else f"DIFFERS: {recording.frames_expected}"
    return (
        recording.name,
        clock(recording.duration_s),
        "" if recording.segments is None else str(recording.segments),
        str(recording.frames),
        closed_form,
        str(recording.onsets),
        "kept" if recording.has_audio else "not kept",
    )


def _diversity_rows(diversity: tuple[Diversity, ...]) -> list[tuple[str, ...]]:
    return [
        ("sounds used", *(f"{d.unique} of {d.size}" for d in diversity)),
        ("perplexity", *(f"{d.perplexity:.1f}" for d in diversity)),
        ("commonest sound", *(f"{d.top_share:.1%}" for d in diversity)),
        ("commonest three", *(f"{d.top_three_share:.1%}" for d in diversity)),
        ("silent", *(f"{d.silent_share:.1%}" for d in diversity)),
        ("changes per second", *(f"{d.changes_per_second:.1f}" for d in diversity)),
    ]


def _memory_rows(memory: MemoryFigures) -> list[tuple[str, ...]]:
    if memory.lowest_pitch is None or memory.highest_pitch is None:
        pitches = "no notes"
    else:
        pitches = f"{pitch_name(memory.lowest_pitch)} to {pitch_name(memory.highest_pitch)}"
    return [
        ("gestures", f"{memory.states} ({memory.states_per_second:.1f} per second)"),
        ("median gesture", f"{memory.median_duration_s * 1000:.0f} ms"),
        ("gestures that start at an onset", f"{memory.share_at_onsets:.0%}"),
        ("gestures with notes", f"{memory.share_with_notes:.0%}"),
        ("notes", f"{memory.notes} ({memory.notes_per_second:.1f} per second)"),
        ("pitches", pitches),
    ]


def _repetition_rows(figures: PartnerFigures) -> list[tuple[str, ...]]:
    oracle = figures.oracle
    longest, places = [], []
    for repetition in figures.repetition:
        repeat = repetition.longest
        if repeat is None:
            longest.append("nothing repeats")
            places.append("")
            continue
        longest.append(f"{counted(repeat.gestures, 'gesture')}, {repeat.duration_s:.1f} s")
        ends = ((repeat.first_recording, repeat.first_start_s), (repeat.again_recording, repeat.again_start_s))
        several = len(figures.recordings) > 1
        places.append(", ".join(clock(s) + (f" in {figures.recordings[r].name}" if several else "") for r, s in ends))
    return [
        ("longest repeat", *longest, counted(oracle.longest_repeat, "gesture")),
        ("it is at", *places, ""),
        ("mean repeat, gestures", *(f"{r.mean_repeat:.2f}" for r in figures.repetition), f"{oracle.mean_repeat:.2f}"),
        (
            "information rate, bits per gesture",
            *(f"{r.information_rate_bits:.2f}" for r in figures.repetition),
            f"{oracle.information_rate_bits:.2f}",
        ),
        ("threshold", "", "", f"{oracle.threshold:.4g}"),
        ("clusters, links", "", "", f"{oracle.clusters}, {oracle.links} ({oracle.dims} dimensions)"),
    ]
