"""The one front end: push blocks of samples, get percepts.

The trainer pushes a file through it, the stage pushes a sound card through it; nothing else in MusicHal turns sound into
features or tokens. It has two stations. The `Ear` goes from samples to what was heard in each segment; it needs no
vocabulary, so the trainer can learn one from it. The `TokenStage` goes from there to tokens and gestures. A `Listener` is
both, one behind the other.

What comes out depends on the samples alone, not on how they were cut into blocks.
"""

from collections.abc import Callable

import numpy as np

from musichal.arrays import AnyArray, Float32
from musichal.audio.recording import ingest
from musichal.audio.resample import StreamResampler
from musichal.errors import InputError
from musichal.hearing.encoders.protocol import Encoder
from musichal.hearing.frames import frame_centres
from musichal.hearing.gestures import GestureSmoother, frame_costs
from musichal.hearing.highpass import HighPass
from musichal.hearing.levels import Gate, frame_levels_db, full_scale_share
from musichal.hearing.notes import NoteTracker
from musichal.hearing.onsets import Onset, OnsetDetector
from musichal.hearing.percepts import SILENCE, SOURCES, Gesture, Heard, Note, Percept, Rest, Stems, Window
from musichal.hearing.pitch import PitchAnalyser
from musichal.hearing.segments import Segmenter
from musichal.hearing.separation import separate
from musichal.hearing.vocabulary import Vocabulary, nearest
from musichal.spec import PerceptionSpec

Vocabularies = tuple[Vocabulary, Vocabulary]
Tap = Callable[[Window, Stems], None]
"""Shown what a segment was before its features; it must change neither."""


class Ear:
    """From samples at any rate and channel count to what was heard in each segment.

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
        self.samples_heard = 0
        self._encoder = encoder
        self._tap = tap
        # Before the resampler, which would make a click of an offset's beginning.
        self._highpass = HighPass(cutoff_hz=spec.highpass_hz, sample_rate_hz=source_rate_hz)
        self._resampler = StreamResampler(
            source_rate_hz=source_rate_hz, target_rate_hz=spec.sample_rate_hz, quality=spec.resampler
        )
        self._onset_detector = OnsetDetector(spec.onsets, sample_rate_hz=spec.sample_rate_hz)
        self._segmenter = Segmenter(spec)
        self._pitch = PitchAnalyser(spec)
        self._notes = NoteTracker(spec)
        self._gates = [Gate(spec.gate) for _ in SOURCES]
        self._onsets: list[Onset] = []

    def push(self, block: AnyArray) -> list[Heard]:
        """Take a block of shape (n,) or (n, channels) and return the segments that it completed.

        Raises
        ------
        InputError
            If a sample is not finite.
        """
        return self._advance(self._resampler.push(self._highpass.push(ingest(block))))

    def flush(self) -> tuple[list[Heard], tuple[Note, ...]]:
        """End the stream; return the rest of its segments and the notes that still sounded."""
        heard = self._advance(self._resampler.flush())
        heard += [self._hear(window) for window in self._segmenter.flush()]
        return heard, tuple(self._notes.flush())

    def _advance(self, samples: Float32) -> list[Heard]:
        self.samples_heard += samples.shape[0]
        found = self._onset_detector.push(samples)
        self._onsets.extend(found.onsets)
        windows = self._segmenter.push(samples, found.onsets, found.decided_until)
        return [self._hear(window) for window in windows]

    def _hear(self, window: Window) -> Heard:
        spec = self.spec
        stems = self._separate(window)
        if self._tap is not None:
            self._tap(window, stems)
        pitch = self._pitch.analyse(stems.harmonic)
        features = self._encoder.encode(stems, pitch)
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
            onset_samples=self._onsets_decided_by(window.available_at),
            notes=tuple(self._notes.step(stems, window)),
            full_scale_share=full_scale_share(
                window.samples[spec.context_samples : spec.context_samples + window.length_samples]
            ),
        )

    def _separate(self, window: Window) -> Stems:
        return separate(window.samples, self.spec.separation)

    def _onsets_decided_by(self, end_sample: int) -> tuple[int, ...]:
        """Take the onsets decided by a segment's end: the same ones whatever else the last block brought."""
        taken = [onset for onset in self._onsets if onset.decided_at <= end_sample]
        self._onsets = self._onsets[len(taken) :]
        return tuple(onset.sample for onset in taken)


class TokenStage:
    """From what was heard to tokens and gestures."""

    def __init__(self, spec: PerceptionSpec, vocabularies: Vocabularies) -> None:
        self._spec = spec
        self._vocabularies = vocabularies
        self._smoother = GestureSmoother(spec)

    def step(self, heard: Heard) -> Percept:
        """Quantise every frame of a segment and return its percept, with the gestures that it closed."""
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
        self._ear = Ear(spec, encoder, source_rate_hz=source_rate_hz, tap=tap)
        self._tokens = TokenStage(spec, vocabularies)

    def push(self, block: AnyArray) -> list[Percept]:
        """Take a block of shape (n,) or (n, channels) and return the percepts of the segments that it completed."""
        return [self._tokens.step(heard) for heard in self._ear.push(block)]

    def flush(self) -> Rest:
        """End the stream and return what is left of it."""
        heard, notes = self._ear.flush()
        percepts = tuple(self._tokens.step(h) for h in heard)
        return Rest(percepts, self._tokens.flush(self._ear.samples_heard), notes)

    @property
    def samples_heard(self) -> int:
        """Return how many samples, at the spec's rate, have come in."""
        return self._ear.samples_heard
