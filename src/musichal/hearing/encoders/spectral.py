"""The embedded encoder: no weights, nothing to download, about 74 frames a second.

The harmonic source gives pitch: chroma and harmonic salience, so that a token means "these pitch classes, about here". The
percussive source gives timbre and attack: log-mel bands and their rise, so that a token means "this drum, just struck".
Both are arranged for k-means after one global scale: the weights between the blocks are part of the encoder.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import csr_array

from musichal.arrays import Float32
from musichal.hearing.percepts import PitchFrames, Stems
from musichal.hearing.pitch import PitchSettings, ShortTime, at_rate
from musichal.spec import PerceptionSpec

ALGORITHM_VERSION = 2


@dataclass(frozen=True, kw_only=True)
class SpectralSettings:
    """Every constant that shapes a feature. Lengths are in samples at 24 kHz and scale with the rate.

    Harmonic source: `chroma_weight` and `salience_weight` weigh two unit vectors. Percussive source: `mel_bands` triangular
    bands from `mel_low_hz` to `mel_high_hz` in windows of `mel_length_samples`, as log(1 + gain · mean magnitude), and how
    much each rose in `rise_frames` frames. The gain is `mel_gain` in the lowest band and grows with the square root of a
    band's width, so that a hat's thin spread of energy counts beside a kick's peak.
    """

    pitch: PitchSettings = field(default_factory=PitchSettings)
    chroma_weight: float = 1.0
    salience_weight: float = 0.2
    mel_bands: int = 40
    mel_low_hz: float = 30.0
    mel_high_hz: float = 11000.0
    mel_length_samples: int = 768
    mel_right_samples: int = 300
    mel_gain: float = 60.0
    rise_frames: int = 4

    def digest(self) -> str:
        """Return the SHA-256 over the algorithm's version and every constant, 64 hexadecimal digits."""
        constants = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(f"spectral {ALGORITHM_VERSION} {constants}".encode()).hexdigest()


class SpectralEncoder:
    """Implements `musichal.hearing.encoders.Encoder` without weights."""

    name = "spectral"
    normalisation = "scale"
    licence = "MIT, no weights"

    def __init__(self, spec: PerceptionSpec, settings: SpectralSettings | None = None) -> None:
        self._settings = settings = settings or SpectralSettings()
        self.digest = settings.digest()
        self.sample_rate_hz = spec.sample_rate_hz
        length = at_rate(settings.mel_length_samples, spec.sample_rate_hz)
        self._short_time = ShortTime(
            spec,
            length_samples=length,
            ahead_samples=0,
            right_samples=at_rate(settings.mel_right_samples, spec.sample_rate_hz),
            before_frames=settings.rise_frames,
        )
        self._mel, widths = _mel_filters(settings, length, spec.sample_rate_hz)
        self._gain = (settings.mel_gain * np.sqrt(widths / widths[0])).astype(np.float32)

    def encode(self, stems: Stems, pitch: PitchFrames) -> tuple[Float32, ...]:
        """Return harmonic features (n, 12 + N_PITCHES) and percussive features (n, 2 · mel_bands), float32."""
        settings = self._settings
        harmonic = np.concatenate(
            [settings.chroma_weight * _unit(pitch.chroma), settings.salience_weight * _unit(pitch.salience)], axis=1
        )
        magnitudes = self._short_time.magnitudes(stems.percussive)
        bands = np.log1p(self._gain * (self._mel @ magnitudes.T).T)
        now, before = bands[settings.rise_frames :], bands[: -settings.rise_frames]
        percussive = np.concatenate([now, np.maximum(now - before, np.float32(0))], axis=1)
        return np.ascontiguousarray(harmonic, np.float32), np.ascontiguousarray(percussive, np.float32)


def _unit(rows: Float32) -> Float32:
    norm = np.sqrt(np.einsum("nd,nd->n", rows, rows))[:, None]
    return np.asarray(rows / np.maximum(norm, np.float32(1e-6)), np.float32)


def _mel_filters(settings: SpectralSettings, length_samples: int, rate_hz: int) -> tuple[csr_array, Float32]:
    """Return triangular filters (mel_bands, FFT bins) of unit sum, equally spaced in mel, and their widths in FFT bins."""

    def mel(hz: float) -> float:
        return 2595 * float(np.log10(1 + hz / 700))

    high_hz = min(settings.mel_high_hz, 0.49 * rate_hz)
    edges_mel = np.linspace(mel(settings.mel_low_hz), mel(high_hz), settings.mel_bands + 2)
    edges_hz = 700 * (10 ** (edges_mel / 2595) - 1)
    fft_hz = np.arange(length_samples // 2 + 1) * rate_hz / length_samples
    resolution_hz = rate_hz / length_samples
    matrix = np.zeros((settings.mel_bands, len(fft_hz)), np.float32)
    widths = np.zeros(settings.mel_bands, np.float32)
    for band in range(settings.mel_bands):
        low, centre, high = edges_hz[band : band + 3]
        rise = (fft_hz - centre) / max(centre - low, resolution_hz)
        fall = (fft_hz - centre) / max(high - centre, resolution_hz)
        weights = np.maximum(0, 1 - np.maximum(-rise, fall))
        # At low rates a band can be narrower than the FFT resolves and fall between two of its bins.
        weights[np.argmin(np.abs(fft_hz - centre))] += 1e-3
        widths[band] = weights.sum() / weights.max()
        matrix[band] = weights / weights.sum()
    return csr_array(matrix), widths
