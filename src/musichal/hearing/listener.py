"""The one listener: push blocks of samples, get percepts.

The trainer pushes a file through it, a live performance pushes a sound card through it; nothing else in MusicHal turns sound
into features or tokens. It has three parts, each with the state of one stream:

`FrontEnd.push` (block → windows), `FeatureExtractor.step` (window → features; needs no vocabulary, so the trainer can learn
one from its output) and `Tokenizer.step` (features → tokens and gestures). A `Listener` is the three in a row.

The output depends on the samples alone, not on how they were cut into blocks.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from musichal.arrays import AnyArray, Bool, Float32, Int64
from musichal.errors import InputError
from musichal.hearing.drums import DrumTracker
from musichal.hearing.encoders import Encoder, pinned
from musichal.hearing.exact_notes import OnsetQueue
from musichal.hearing.front_end import FrontEnd, blocks
from musichal.hearing.gestures import GestureSmoother, frame_costs
from musichal.hearing.model_weights import model_digest
from musichal.hearing.notes import NoteTracker
from musichal.hearing.percepts import (
    SILENCE,
    SILENT_DB,
    SOURCES,
    Gesture,
    ListenerResult,
    Percept,
    PitchFrames,
    SegmentFeatures,
    Stems,
    Window,
    frame_centres,
)
from musichal.hearing.pitch import pitch_analyser
from musichal.hearing.separation import separate
from musichal.hearing.vocabulary import Vocabulary, nearest
from musichal.note import HeardNote
from musichal.spec import GateSpec, PerceptionSpec

Vocabularies = tuple[Vocabulary, Vocabulary]
Tap = Callable[[Window, Stems], None]
"""Observer of a segment before its features, for `verify`; it must change neither argument."""

# Resampling rounds the flat top of a clipped wave off: a little below full scale counts.
_FULL_SCALE = 0.98


def resolve_spec(spec: PerceptionSpec) -> PerceptionSpec:
    """Return the spec with the digests of its encoder, note and drum models, and the encoder's normalisation, written in.

    Raises `InputError` if the encoder is unknown, or the spec has another digest of it.
    """
    return replace(pinned(spec), notes=replace(spec.notes, digest=model_digest("note")), drum_digest=model_digest("drum"))


@dataclass(frozen=True)
class Analysis:
    """What a window gives by itself: its stems, its pitch, and the features of its segment's frames, one per source."""

    stems: Stems
    pitch: PitchFrames
    features: tuple[Float32, ...]


class FeatureExtractor:
    """From the windows of one stream to the features of each segment.

    `analyse` is a function of the window alone, so it may run anywhere and in any order; `step` adds what goes on from window
    to window: gates, notes and drum hits. Those are left out without `transcribes`: a MIDI player's are known. Raises
    `InputError` if the encoder was made for another rate than the spec's.
    """

    def __init__(self, spec: PerceptionSpec, encoder: Encoder, *, tap: Tap | None = None, transcribes: bool = True) -> None:
        if encoder.sample_rate_hz != spec.sample_rate_hz:
            raise InputError(
                f"encoder {encoder.name} needs {encoder.sample_rate_hz} Hz, but the spec has {spec.sample_rate_hz} Hz"
            )
        self.spec = spec
        self._encoder = encoder
        self._tap = tap
        self._pitch = pitch_analyser(spec)
        self._notes = NoteTracker(spec) if transcribes else None
        self._drums = DrumTracker(spec) if transcribes else None
        self._gates = [Gate(spec.gate) for _ in SOURCES]
        self._next_index = 0

    def analyse(self, window: Window) -> Analysis:
        """Return what a window sounds like: a function of the window alone."""
        stems = self._separate(window)
        pitch = self._pitch.analyse(stems.harmonic)
        return Analysis(stems, pitch, self._encoder.encode(stems, pitch))

    def step(self, window: Window, analysis: Analysis | None = None) -> SegmentFeatures:
        """Return the features of the next window of the stream; `analysis` is its analysis if made already.

        Windows may be skipped, but not taken later: where one is missing, gates close and notes end.
        """
        spec = self.spec
        if window.index != self._next_index:
            self._gates = [Gate(spec.gate) for _ in SOURCES]
        self._next_index = window.index + 1
        analysis = analysis or self.analyse(window)
        stems, pitch = analysis.stems, analysis.pitch
        if self._tap is not None:
            self._tap(window, stems)
        new = slice(window.first_frame, window.end_frame)
        centres = frame_centres(
            window.first_frame,
            window.end_frame,
            frame_samples=spec.encoder.frame_samples,
            stride_samples=spec.encoder.stride_samples,
        )
        # Padding at the end of a window must not count as quiet sound.
        real = window.real_samples
        levels = [
            frame_levels_db(samples[:real], centres + spec.context_samples, window_samples=spec.gate.window_samples)
            for samples in (stems.harmonic, stems.percussive, window.samples)
        ]
        segment = window.samples[spec.context_samples : spec.context_samples + window.length_samples]
        return SegmentFeatures(
            index=window.index,
            start_sample=window.start_sample,
            length_samples=window.length_samples,
            available_at=window.available_at,
            frame_samples=centres + window.start_sample,
            features=tuple(np.ascontiguousarray(f[new]) for f in analysis.features),
            source_level_db=np.stack(levels[:2]),
            audible=np.stack([gate.step(level) for gate, level in zip(self._gates, levels[:2], strict=True)]),
            level_db=levels[2],
            chroma=pitch.chroma[new],
            chroma_beside=pitch.beside[:, new],
            thirds=pitch.thirds[new],
            salience=pitch.salience[new],
            onset_samples=window.onset_samples,
            notes=() if self._notes is None else tuple(self._notes.step(window)),
            full_scale_share=full_scale_share(segment),
            hits=() if self._drums is None else self._drums.step(window),
        )

    def flush(self) -> tuple[HeardNote, ...]:
        """End the stream after the last window and return the notes that still sounded."""
        return () if self._notes is None else tuple(self._notes.flush())

    def flush_hits(self) -> tuple[HeardNote, ...]:
        """End the stream after the last window and return the drum hits near its end."""
        return () if self._drums is None else self._drums.flush()

    def stream(self, samples: AnyArray, *, source_rate_hz: int, block_samples: int | None = None) -> Iterator[SegmentFeatures]:
        """Yield the features of each segment of a whole stream, (n,) or (n, channels), pushed in blocks (one if None)."""
        for result in FrontEnd(self.spec, source_rate_hz=source_rate_hz).stream(samples, block_samples=block_samples):
            yield from map(self.step, result.windows)

    def _separate(self, window: Window) -> Stems:
        return separate(window.samples, self.spec.separation)


class Tokenizer:
    """From the features of one stream's segments to tokens and gestures."""

    def __init__(self, spec: PerceptionSpec, vocabularies: Vocabularies) -> None:
        self._spec = spec
        self._vocabularies = vocabularies
        self._smoother = GestureSmoother(spec)

    def step(self, heard: SegmentFeatures) -> Percept:
        """Quantise every frame of a segment and return its percept, with the gestures that it completed.

        Where segments are missing, open gestures end, and a gesture of silence fills the gap.
        """
        normalised, tokens, costs = [], [], []
        for vocabulary, features, audible in zip(self._vocabularies, heard.features, heard.audible, strict=True):
            if features.shape[1] != vocabulary.dims:
                raise InputError(
                    f"the encoder gives vectors of {features.shape[1]} values,"
                    f" the vocabulary was learned from vectors of {vocabulary.dims}"
                )
            x = vocabulary.normalise(features)
            distances = vocabulary.distances(x)
            normalised.append(x)
            tokens.append(np.where(audible, nearest(distances), np.int16(SILENCE)))
            spec = self._spec.gestures
            costs.append(
                frame_costs(
                    distances, audible, spread=vocabulary.spread, silence_cost=spec.silence_cost, strange_cost=spec.strange_cost
                )
            )
        normalised[1] = normalised[1] * np.float32(self._spec.gestures.percussive_scale)
        gestures = self._smoother.step(heard, (costs[0], costs[1]), np.concatenate(normalised, axis=1))
        return Percept(heard, np.stack(tokens), tuple(gestures))

    def flush(self, end_sample: int) -> tuple[Gesture, ...]:
        """End the stream at `end_sample` and return the gestures that were still open."""
        return tuple(self._smoother.flush(end_sample))


class Listener:
    """Front end, feature extractor and tokenizer of one stream at `source_rate_hz`: blocks of samples in, percepts out.

    `known` gives the onsets of a MIDI player, whose notes are not transcribed. Raises `InputError` if the source's rate is not
    supported, or the encoder was made for another rate than the spec's.
    """

    def __init__(
        self,
        spec: PerceptionSpec,
        encoder: Encoder,
        vocabularies: Vocabularies,
        *,
        source_rate_hz: int,
        tap: Tap | None = None,
        known: OnsetQueue | None = None,
    ) -> None:
        self.front_end = FrontEnd(spec, source_rate_hz=source_rate_hz, known=known)
        self._extractor = FeatureExtractor(spec, encoder, tap=tap, transcribes=known is None or known.beside)
        self._tokenizer = Tokenizer(spec, vocabularies)

    @property
    def samples_heard(self) -> int:
        """Return how many samples, at the spec's rate, have come in."""
        return self.front_end.samples_heard

    def push(self, block: AnyArray) -> ListenerResult:
        """Take a block (n,) or (n, channels); return its onsets and the percepts of the segments it completed.

        Raises `InputError` if a sample is not finite.
        """
        found = self.front_end.push(block)
        return ListenerResult(found.onsets, tuple(self.step(window) for window in found.windows))

    def flush(self) -> ListenerResult:
        """End the stream and return what is left of it."""
        found = self.front_end.flush()
        percepts = tuple(self.step(window) for window in found.windows)
        notes, hits = self._extractor.flush(), self._extractor.flush_hits()
        return ListenerResult(found.onsets, percepts, self._tokenizer.flush(self.samples_heard), notes, hits)

    def stream(self, samples: AnyArray, *, block_samples: int | None = None) -> Iterator[ListenerResult]:
        """Push a whole stream, (n,) or (n, channels), in blocks (one block if None), and flush; yield each result."""
        for block in blocks(samples, block_samples):
            yield self.push(block)
        yield self.flush()

    def listen(self, samples: AnyArray, *, block_samples: int | None = None) -> ListenerResult:
        """Push a whole stream and flush; return all that it brought as one result."""
        return ListenerResult.joined(self.stream(samples, block_samples=block_samples))

    def step(self, window: Window) -> Percept:
        """Return the percept of the next window of the stream; skipped windows before it are a gap of silence."""
        return self._tokenizer.step(self._extractor.step(window))


def full_scale_share(samples: Float32) -> float:
    """Return the share of samples, shape (n,), at full scale: next to none in a whole wave, many where it was clipped."""
    return float(np.count_nonzero(np.abs(samples) >= _FULL_SCALE) / max(1, samples.shape[0]))


def frame_levels_db(samples: Float32, centres: Int64, *, window_samples: int) -> Float32:
    """Return the RMS level in dBFS around each centre, shape (frames,).

    `centres` (frames,) are positions in `samples` (n,); a window that reaches over an end is cut off there. A full-scale square
    wave has 0 dBFS, digital silence `SILENT_DB`.
    """
    energy = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    low = np.clip(centres - window_samples // 2, 0, samples.shape[0])
    high = np.clip(centres + window_samples - window_samples // 2, 0, samples.shape[0])
    # A running sum leaves rounding of about 1e-16 of the loudest passage behind, which may even be negative.
    mean_square = np.maximum(energy[high] - energy[low], 0.0) / np.maximum(high - low, 1)
    floor = 10 ** (SILENT_DB / 10)
    return (10 * np.log10(np.maximum(mean_square, floor))).astype(np.float32)


class Gate:
    """A gate with hysteresis for one source: opens at `open_db`, closes below `close_db`, starts closed."""

    def __init__(self, spec: GateSpec) -> None:
        self._spec = spec
        self._open = False

    def step(self, level_db: Float32) -> Bool:
        """Take the next frames' levels, shape (n,), and return where the gate is open, shape (n,)."""
        out = np.empty(level_db.shape[0], dtype=np.bool_)
        for i, level in enumerate(level_db.tolist()):
            self._open = level >= (self._spec.close_db if self._open else self._spec.open_db)
            out[i] = self._open
        return out
