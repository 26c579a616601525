"""The peer of the embedded encoder: the plain features that a probe found best before this encoder was written.

It exists so that "better than the probe" can be asked on the same music, in the same run, by the same conventions. It is
put together from the probe's description, which leaves the weights between its blocks open; they were chosen on training
pieces, in the probe's favour.

Harmonic source, 85 values a frame: windows of 8192 samples centred on their frame, with silence behind the segment's end;
a log-frequency spectrum of three bins per semitone as log(1 + magnitude); the mean of each bin's neighbourhood taken off; a
sum over five harmonics for each semitone from MIDI 36 to 96 (61, to unit length); chroma (12, to unit length); the rise since
the frame before in four octave groups (4); cosine coefficients of the log spectrum, as MFCCs are of a mel spectrum (8).
Percussive source: 128 log-mel bands in centred windows of 2048 samples.
"""

import hashlib

import numpy as np
from scipy.fft import dct, rfft
from scipy.ndimage import uniform_filter1d

from musichal.arrays import Float32, Float64
from musichal.hearing.percepts import LOWEST_PITCH, N_PITCHES, PitchFrames, Stems, frame_centres, frame_count
from musichal.spec import PerceptionSpec

_BINS_PER_SEMITONE = 3
_N_BINS = 3 * 89
_HARMONICS = (1, 2, 3, 4, 5)
_WHITENING_BINS = 13
_GAIN = 1.0
_SALIENCE_WEIGHT = 0.5
_FLUX_WEIGHT = 0.02
_CEPSTRUM_WEIGHT = 0.02
_MEL_GAIN = 500.0
_HARMONIC_LENGTH = 8192
_MEL_LENGTH = 2048
_MEL_BANDS = 128


class ProbeEncoder:
    """Implements `musichal.hearing.encoders.Encoder`, for benchmarks only; the spec's rate must be 24 kHz."""

    name = "probe"
    normalisation = "scale"
    licence = "MIT, no weights"
    digest = hashlib.sha256(b"probe 1").hexdigest()

    def __init__(self, spec: PerceptionSpec) -> None:
        self.sample_rate_hz = spec.sample_rate_hz
        self._spec = spec
        frame, stride = spec.encoder.frame_samples, spec.encoder.stride_samples
        n = frame_count(spec.segment_samples, frame_samples=frame, stride_samples=stride)
        # The frame in front of the segment is there for the rise of its first.
        self._centres = spec.context_samples + frame_centres(-1, n, frame_samples=frame, stride_samples=stride)
        midi = LOWEST_PITCH + np.arange(_N_BINS) / _BINS_PER_SEMITONE
        centre_hz = 440 * 2 ** ((midi - 69) / 12)
        width_hz = centre_hz * (2 ** (1 / (12 * _BINS_PER_SEMITONE)) - 1)
        self._log_frequency = _triangles(centre_hz, width_hz, _HARMONIC_LENGTH, spec.sample_rate_hz)
        edges_hz = 700 * (10 ** (np.linspace(0, _mel(spec.sample_rate_hz / 2), _MEL_BANDS + 2) / 2595) - 1)
        self._mel = _triangles(edges_hz[1:-1], np.diff(edges_hz)[1:], _MEL_LENGTH, spec.sample_rate_hz)

    def encode(self, stems: Stems, pitch: PitchFrames) -> tuple[Float32, ...]:
        """Return harmonic features (n, 85) and percussive features (n, 128), float32; `pitch` is not looked at."""
        log_spectrum = np.log1p(_GAIN * (self._magnitudes(stems.harmonic, _HARMONIC_LENGTH) @ self._log_frequency))
        whitened = log_spectrum - uniform_filter1d(log_spectrum, _WHITENING_BINS, axis=1, mode="nearest")
        whitened = np.maximum(whitened, 0)
        salience = np.zeros((len(whitened), N_PITCHES), np.float32)
        for harmonic in _HARMONICS:
            first = round(12 * np.log2(harmonic) * _BINS_PER_SEMITONE)
            salience += whitened[:, first : first + _BINS_PER_SEMITONE * N_PITCHES : _BINS_PER_SEMITONE]
        chroma = np.stack([salience[:, (c - LOWEST_PITCH) % 12 :: 12].sum(axis=1) for c in range(12)], axis=1)
        rise = np.maximum(np.diff(log_spectrum, axis=0), 0)
        flux = np.stack([part.sum(axis=1) for part in np.array_split(rise, 4, axis=1)], axis=1)
        cepstrum = dct(log_spectrum, axis=1, norm="ortho")[:, 1:9]
        blocks = [_SALIENCE_WEIGHT * _unit(salience), _unit(chroma), _CEPSTRUM_WEIGHT * cepstrum]
        harmonic_view = np.concatenate([*(block[1:] for block in blocks), _FLUX_WEIGHT * flux], axis=1)
        percussive_view = np.log1p(_MEL_GAIN * (self._magnitudes(stems.percussive, _MEL_LENGTH)[1:] @ self._mel))
        return harmonic_view.astype(np.float32), percussive_view.astype(np.float32)

    def _magnitudes(self, samples: Float32, length: int) -> Float32:
        """Return (1 + frames, length // 2 + 1) magnitudes; a full-scale sinusoid gives 1."""
        end = self._spec.context_samples + self._spec.segment_samples
        padded = np.pad(samples[:end], length // 2)
        frames = np.lib.stride_tricks.sliding_window_view(padded, length)[self._centres]
        window = np.hanning(length + 1)[:-1].astype(np.float32)
        return np.abs(rfft(frames * window, axis=1)) * np.float32(2 / window.sum())


def _mel(hz: float) -> float:
    return 2595 * float(np.log10(1 + hz / 700))


def _triangles(centre_hz: Float64, width_hz: Float64, length: int, rate_hz: int) -> Float32:
    """Return triangular filters (FFT bins, bands) of unit sum, never narrower than the FFT resolves."""
    fft_hz = np.arange(length // 2 + 1) * rate_hz / length
    width = np.maximum(width_hz, rate_hz / length)
    weights = np.maximum(0, 1 - np.abs(fft_hz[:, None] - centre_hz) / width)
    return (weights / np.maximum(weights.sum(axis=0), 1e-9)).astype(np.float32)


def _unit(rows: Float32) -> Float32:
    return np.divide(rows, np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6))
