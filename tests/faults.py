"""Alignment broken on purpose, in each of the ways in which it was lost before. For tests alone: the package has no such door.

A fault is a way to make a listener and a way to deliver its blocks; what it breaks lies in exactly one place, so that the
stage where hearing goes wrong is known.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import soxr
from scipy.signal import istft, stft

from musichal.arrays import AnyArray, Float32
from musichal.hearing.encoders import Encoder, create_encoder
from musichal.hearing.encoders.spectral import SpectralEncoder, SpectralSettings
from musichal.hearing.listener import FeatureExtractor, Listener, Tap, Vocabularies
from musichal.hearing.percepts import ListenerResult, PitchFrames, Stems, Window
from musichal.hearing.separation import separate
from musichal.memory.partner_file import PartnerModel
from musichal.spec import PerceptionSpec

Delivery = Callable[[Float32, int], Float32]
"""What becomes of a block on its way, told how many samples came before it."""


class _WrappedEncoder:
    """Does something to an encoder's features, and claims to be that encoder."""

    def __init__(self, inner: Encoder, change: Callable[[Float32], Float32], sources: Sequence[int] = (0, 1)) -> None:
        self._inner, self._change, self._sources = inner, change, sources
        self.name, self.digest = inner.name, inner.digest
        self.sample_rate_hz, self.normalisation = inner.sample_rate_hz, inner.normalisation

    def encode(self, stems: Stems, pitch: PitchFrames) -> tuple[Float32, ...]:
        features = self._inner.encode(stems, pitch)
        return tuple(self._change(f) if i in self._sources else f for i, f in enumerate(features))


class _MaskExtractor(FeatureExtractor):
    """Takes the separation's masks for sound: what a library returns when it is asked for masks and not for stems."""

    def _separate(self, window: Window) -> Stems:
        stems = separate(window.samples, self.spec.separation)
        harmonic, percussive = (np.abs(stft(s, nperseg=2048, noverlap=1536)[2]) for s in (stems.harmonic, stems.percussive))
        total = np.maximum(harmonic + percussive, 1e-9)
        level = float(np.sqrt(np.mean(np.square(window.samples))))
        sounds = [self._sound(mask / total, level, window.samples.shape[0]) for mask in (harmonic, percussive)]
        return Stems(harmonic=sounds[0], percussive=sounds[1])

    @staticmethod
    def _sound(mask: AnyArray, level: float, n: int) -> Float32:
        """Return a mask as a waveform at the level of the sound, so that it is not the gate that tells."""
        wave = istft(mask, nperseg=2048, noverlap=1536)[1][:n]
        return (wave * (level / max(float(np.sqrt(np.mean(np.square(wave)))), 1e-9))).astype(np.float32)


class _BrokenListener(Listener):
    def __init__(
        self,
        spec: PerceptionSpec,
        encoder: Encoder,
        vocabularies: Vocabularies,
        *,
        source_rate_hz: int,
        tap: Tap | None = None,
        extractor: type[FeatureExtractor],
        resampler: str | None,
        deliver: Delivery,
    ) -> None:
        super().__init__(spec, encoder, vocabularies, source_rate_hz=source_rate_hz, tap=tap)
        self._extractor = extractor(spec, encoder, tap=tap)
        if resampler is not None:
            self.front_end._resampler._stream = soxr.ResampleStream(
                source_rate_hz, spec.sample_rate_hz, 1, dtype="float32", quality=resampler
            )
        self._deliver, self._delivered = deliver, 0

    def push(self, block: AnyArray) -> ListenerResult:
        before, self._delivered = self._delivered, self._delivered + len(block)
        return super().push(self._deliver(block, before))


@dataclass(frozen=True)
class Fault:
    """One way to lose alignment: `stage` is where it is lost, `cause` words that `verify` must find for it."""

    name: str
    stage: str
    cause: str = ""
    extractor: type[FeatureExtractor] = FeatureExtractor
    resampler: str | None = None
    encoder: Callable[[PerceptionSpec], Encoder] = create_encoder
    spec: Callable[[PerceptionSpec], PerceptionSpec] = lambda spec: spec
    other_vocabulary: bool = False
    deliver: Delivery = lambda block, _before: block

    def listener(self, model: PartnerModel, other: PartnerModel, *, source_rate_hz: int, tap: Tap | None = None) -> Listener:
        """Return a live listener of `model` that is broken in this way; `other` lends its vocabulary."""
        spec = self.spec(model.spec)
        encoder = self.encoder(spec)
        vocabularies = (other if self.other_vocabulary else model).vocabularies
        return _BrokenListener(
            spec,
            encoder,
            vocabularies,
            source_rate_hz=source_rate_hz,
            tap=tap,
            extractor=self.extractor,
            resampler=self.resampler,
            deliver=self.deliver,
        )


def _mean(features: Float32) -> Float32:
    return np.repeat(features.mean(axis=0, keepdims=True), len(features), axis=0)


def _next_band(features: Float32) -> Float32:
    return np.ascontiguousarray(np.roll(features, 1, axis=1))


def _long_windows(spec: PerceptionSpec) -> PerceptionSpec:
    samples = round(1.5 * spec.sample_rate_hz)
    return dataclasses.replace(spec, segment_samples=samples, hop_samples=samples)


def _levelled(block: Float32, _before: int) -> Float32:
    """Bring every block to the same peak, as a careless input stage does."""
    peak = float(np.abs(block).max(initial=0.0))
    return (block * np.float32(0.9 / peak)).astype(np.float32) if peak > 0 else block


def _one_lost(block: Float32, before: int) -> Float32:
    """Lose the one block in which the fourth second of a stream at 44.1 kHz begins."""
    return block[:0] if before <= 4 * 44_100 < before + len(block) else block


HEALTHY = Fault("none", "")
FAULTS = (
    Fault(
        "mean over frames",
        "features",
        "frames are averaged (both sources)",
        encoder=lambda spec: _WrappedEncoder(create_encoder(spec), _mean),
    ),
    Fault("masks instead of stems", "stems", "not the separated sound: masks", extractor=_MaskExtractor),
    Fault("resampling at low quality", "samples", "another resampler, or another quality", resampler="LQ"),
    Fault("resampling at very high quality", "samples", "another resampler, or another quality", resampler="VHQ"),
    Fault("window of 1.5 s", "samples", "another segment length: 1500 ms instead of 350 ms", spec=_long_windows),
    Fault("vocabulary of another recording", "tokens", "the vocabulary is another one", other_vocabulary=True),
    # The spectral encoder has no layers; its bands and its constants are what a layer is to a network.
    Fault(
        "bands off by one",
        "features",
        "moved by +1: a band or layer off by 1 (both sources)",
        encoder=lambda spec: _WrappedEncoder(create_encoder(spec), _next_band),
    ),
    Fault(
        "drum bands off by one",
        "features",
        "a band or layer off by 1 (the percussive source only)",
        encoder=lambda spec: _WrappedEncoder(create_encoder(spec), _next_band, (1,)),
    ),
    Fault(
        "rise off by one frame",
        "features",
        "the encoder is another one, or has other constants",
        encoder=lambda spec: SpectralEncoder(spec, SpectralSettings(rise_frames=3)),
    ),
    Fault("gain per block", "samples", "the level is another one: gains from", deliver=_levelled),
    Fault("dropped block", "samples", "were lost on the way", deliver=_one_lost),
)
