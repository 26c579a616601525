"""The one front end: push blocks of samples, get percepts.

The trainer pushes a file through it, the stage pushes a sound card through it; nothing else in MusicHal turns sound into
features or tokens. It has two stations. The `FeatureExtractor` goes from samples to what was heard in each segment; it needs no
vocabulary, so the trainer can learn one from it. The `Tokenizer` goes from there to tokens and gestures. A `Listener` is
both, one behind the other.

What comes out depends on the samples alone, not on how they were cut into blocks.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from musichal.arrays import AnyArray, Float32
from musichal.errors import InputError
from musichal.hearing.encoders.protocol import Encoder
from musichal.hearing.frames import frame_centres
from musichal.hearing.front_end import FrontEnd
from musichal.hearing.gestures import GestureSmoother, frame_costs
from musichal.hearing.levels import Gate, frame_levels_db, full_scale_share
from musichal.hearing.notes import NoteTracker
from musichal.hearing.percepts import SILENCE, SOURCES, Gesture, Heard, Note, Onset, Percept, PitchFrames, Rest, Stems, Window
from musichal.hearing.pitch import PitchAnalyser
from musichal.hearing.separation import separate
from musichal.hearing.vocabulary import Vocabulary, nearest
from musichal.spec import PerceptionSpec

Vocabularies = tuple[Vocabulary, Vocabulary]
Tap = Callable[[Window, Stems], None]
"""Shown what a segment was before its features; it must change neither."""


@dataclass(frozen=True)
class Analysis:
    """What a window sounds like by itself: its stems, its pitch, and the features of its segment's frames, one per source."""

    stems: Stems
    pitch: PitchFrames
    features: tuple[Float32, ...]


@dataclass(frozen=True)
class Listened:
    """What a block brought, each in order: onsets, known at once, and the percepts of the segments that it completed."""

    onsets: tuple[Onset, ...]
    percepts: tuple[Percept, ...]


class FeatureExtractor:
    """From samples at any rate and channel count to what was heard in each segment.

    It is an `FrontEnd`, which turns blocks into windows, an analysis of each window by itself, which may be made anywhere and
    in any order, and what goes on from window to window: gates and notes.

    Parameters
    ----------
    spec : PerceptionSpec
    encoder : Encoder
    source_rate_hz : int
        Rate of the samples that will be pushed.
    tap : callable, optional
        For `verify`, which compares hearing stage by stage.

    Raises
    ------
    InputError
        For a rate that cannot be heard, or an encoder made for another rate than the spec's.
    """

    def __init__(self, spec: PerceptionSpec, encoder: Encoder, *, source_rate_hz: int, tap: Tap | None = None) -> None:
        if encoder.sample_rate_hz != spec.sample_rate_hz:
            raise InputError(
                f"encoder {encoder.name} hears at {encoder.sample_rate_hz} Hz, but the spec says {spec.sample_rate_hz} Hz"
            )
        self.spec = spec
        self.intake = FrontEnd(spec, source_rate_hz=source_rate_hz)
        self._encoder = encoder
        self._tap = tap
        self._pitch = PitchAnalyser(spec)
        self._notes = NoteTracker(spec)
        self._gates = [Gate(spec.gate) for _ in SOURCES]
        self._next_index = 0

    @property
    def samples_heard(self) -> int:
        """Return how many samples, at the spec's rate, have come in."""
        return self.intake.samples_heard

    def push(self, block: AnyArray) -> list[Heard]:
        """Take a block of shape (n,) or (n, channels) and return the segments that it completed.

        Raises
        ------
        InputError
            If a sample is not finite.
        """
        return [self.hear(window) for window in self.intake.push(block).windows]

    def flush(self) -> tuple[list[Heard], tuple[Note, ...]]:
        """End the stream; return the rest of its segments and the notes that still sounded."""
        heard = [self.hear(window) for window in self.intake.flush().windows]
        return heard, self.last_notes()

    def last_notes(self) -> tuple[Note, ...]:
        """End the stream behind the last window heard, and return the notes that still sounded."""
        return tuple(self._notes.flush())

    def analyse(self, window: Window) -> Analysis:
        """Return what a window sounds like: a function of the window alone."""
        stems = self._separate(window)
        pitch = self._pitch.analyse(stems.harmonic)
        return Analysis(stems, pitch, self._encoder.encode(stems, pitch))

    def hear(self, window: Window, analysis: Analysis | None = None) -> Heard:
        """Hear the next window of the stream, or go on from its analysis where that has been made already.

        Windows may be left out, though not heard later: where one is missing, gates close and notes end.
        """
        spec = self.spec
        if window.index != self._next_index:
            self._gates = [Gate(spec.gate) for _ in SOURCES]
        self._next_index = window.index + 1
        seen = analysis or self.analyse(window)
        stems, pitch, features = seen.stems, seen.pitch, seen.features
        if self._tap is not None:
            self._tap(window, stems)
        new = slice(window.first_frame, window.end_frame)
        centres = frame_centres(
            window.first_frame,
            window.end_frame,
            frame_samples=spec.encoder.frame_samples,
            stride_samples=spec.encoder.stride_samples,
        )
        # A window that ends in padding must not count that as quiet sound.
        real = window.real_samples
        levels = [
            frame_levels_db(samples[:real], centres + spec.context_samples, window_samples=spec.gate.window_samples)
            for samples in (stems.harmonic, stems.percussive, window.samples)
        ]
        return Heard(
            index=window.index,
            start_sample=window.start_sample,
            length_samples=window.length_samples,
            available_at=window.available_at,
            frame_samples=centres + window.start_sample,
            features=tuple(np.ascontiguousarray(f[new]) for f in features),
            source_level_db=np.stack(levels[:2]),
            audible=np.stack([gate.step(level) for gate, level in zip(self._gates, levels[:2], strict=True)]),
            level_db=levels[2],
            chroma=pitch.chroma[new],
            salience=pitch.salience[new],
            onset_samples=window.onset_samples,
            notes=tuple(self._notes.step(stems, window)),
            full_scale_share=full_scale_share(
                window.samples[spec.context_samples : spec.context_samples + window.length_samples]
            ),
        )

    def _separate(self, window: Window) -> Stems:
        return separate(window.samples, self.spec.separation)


class Tokenizer:
    """From what was heard to tokens and gestures."""

    def __init__(self, spec: PerceptionSpec, vocabularies: Vocabularies) -> None:
        self._spec = spec
        self._vocabularies = vocabularies
        self._smoother = GestureSmoother(spec)

    def step(self, heard: Heard) -> Percept:
        """Quantise every frame of a segment and return its percept, with the gestures that it closed.

        Where segments are missing, what was open ends, and the gap is a gesture of silence.
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
            costs.append(
                frame_costs(distances, audible, spread=vocabulary.spread, silence_cost=self._spec.gestures.silence_cost)
            )
        gestures = self._smoother.step(heard, (costs[0], costs[1]), np.concatenate(normalised, axis=1))
        return Percept(heard, np.stack(tokens), tuple(gestures))

    def flush(self, end_sample: int) -> tuple[Gesture, ...]:
        """End the stream at `end_sample` and return the gestures that were still open."""
        return tuple(self._smoother.flush(end_sample))


class Listener:
    """An ear and a token stage: blocks of samples in, percepts out."""

    def __init__(
        self,
        spec: PerceptionSpec,
        encoder: Encoder,
        vocabularies: Vocabularies,
        *,
        source_rate_hz: int,
        tap: Tap | None = None,
    ) -> None:
        self._ear = FeatureExtractor(spec, encoder, source_rate_hz=source_rate_hz, tap=tap)
        self._tokens = Tokenizer(spec, vocabularies)

    @property
    def intake(self) -> FrontEnd:
        """Return the light path, for a stage that hears its windows elsewhere."""
        return self._ear.intake

    def listen(self, block: AnyArray) -> Listened:
        """Take a block of shape (n,) or (n, channels); return its onsets and the percepts that it completed."""
        taken = self.intake.push(block)
        return Listened(taken.onsets, tuple(self.hear(window) for window in taken.windows))

    def hear(self, window: Window) -> Percept:
        """Return the percept of the next window of the stream; those before it that were not heard are a gap of silence."""
        return self._tokens.step(self._ear.hear(window))

    def push(self, block: AnyArray) -> list[Percept]:
        """Take a block of shape (n,) or (n, channels) and return the percepts of the segments that it completed."""
        return list(self.listen(block).percepts)

    def flush(self) -> Rest:
        """End the stream and return what is left of it."""
        taken = self.intake.flush()
        percepts = tuple(self.hear(window) for window in taken.windows)
        return Rest(percepts, self._tokens.flush(self.samples_heard), self._ear.last_notes(), taken.onsets)

    @property
    def samples_heard(self) -> int:
        """Return how many samples, at the spec's rate, have come in."""
        return self._ear.samples_heard
