"""The pitch view of a segment: whitened log-frequency spectrum, harmonic salience per semitone, chroma.

Conventions
-----------
Log-frequency bins are a third of a semitone wide; bin 0 is MIDI pitch `PitchSettings.lowest_midi`, and A4 = 440 Hz = 69.
Salience has one value per semitone from C2 (MIDI 36) to C7, chroma has bin 0 = C. All are non-negative, grow as the level
to the power of `compression`, and are zero in digital silence.

Method
------
Windows get shorter towards the treble, as in a constant-Q transform (Brown, JASA 1991). Magnitudes are compressed, the mean of
their neighbourhood is subtracted, which leaves partials and removes timbre and noise floor, and the rest is summed over the
first harmonics of each semitone (Klapuri, ISMIR 2006). Chroma folds that salience, not the spectrum: a fifth harmonic counts
for its fundamental. Around a change of notes, each frame takes the mean of that run of `steady_frames` frames around it in
which chroma changes least (Kuwahara et al. 1976, in time), so changes stay in place and become sudden.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.fft import rfft
from scipy.ndimage import uniform_filter1d
from scipy.sparse import csr_array

from musichal.arrays import Float32, Int64
from musichal.hearing.percepts import LOWEST_PITCH, N_PITCHES, PitchFrames, frame_centres, frame_count
from musichal.spec import PerceptionSpec

BINS_PER_SEMITONE = 3
_SEMITONES_FROM_BIN = 81  # C4


@dataclass(frozen=True, kw_only=True)
class PitchSettings:
    """Every constant of the pitch view. Lengths are in samples at 24 kHz and scale with the rate.

    `bands` are (window length, lowest MIDI pitch that uses it), from the bass up; `ahead_samples` is how far behind a
    frame's centre its window peaks, `right_samples` the shortest right flank at the end of a segment, `compression` the
    power that magnitudes are raised to, `whitening_bins` the width of the neighbourhood whose mean is taken off,
    `harmonic_weights` weigh the harmonics from the fundamental on, `side_weight` the bins beside each, and
    `steady_frames` is the length of the runs that frames are averaged over.
    """

    version: int = 2
    lowest_midi: int = 33
    n_bins: int = 276
    bands: tuple[tuple[int, int], ...] = ((6144, 0), (3072, 52), (2048, 74))
    ahead_samples: int = 360
    right_samples: int = 800
    compression: float = 0.8
    whitening_bins: int = 13
    harmonic_weights: tuple[float, ...] = (1.0, 0.8, 0.6, 0.5, 0.4)
    side_weight: float = 0.5
    steady_frames: int = 4


class PitchAnalyser:
    """Looks at the harmonic stem of a window. A pure function of the samples, with its filters made once."""

    def __init__(self, spec: PerceptionSpec, settings: PitchSettings | None = None) -> None:
        self._settings = settings = settings or PitchSettings()
        rate = spec.sample_rate_hz
        upper = [lowest for _, lowest in settings.bands[1:]] + [128]
        self._bands = []
        # A run may reach as far ahead as there is lookahead for its frames' centres.
        self._after_frames = min(settings.steady_frames - 1, spec.lookahead_samples // spec.encoder.stride_samples)
        for (length, lower), end in zip(settings.bands, upper, strict=True):
            length_samples = at_rate(length, rate)
            short_time = ShortTime(
                spec,
                length_samples=length_samples,
                ahead_samples=at_rate(settings.ahead_samples, rate),
                right_samples=at_rate(settings.right_samples, rate),
                before_frames=settings.steady_frames - 1,
                after_frames=self._after_frames,
            )
            filters = _log_frequency_filters(settings, length_samples, rate, (lower, end))
            used = int(filters.indices.max(initial=0)) + 1  # the bass needs the lowest bins of a long window alone
            self._bands.append((short_time, csr_array(filters[:, :used]), used))
        self._harmonics = _harmonic_filters(settings)
        self._beside = [_harmonic_filters(settings, bins_off=bins) for bins in (-1, 1)]

    def analyse(self, harmonic: Float32) -> PitchFrames:
        """Return the pitch content of the segment's frames from its harmonic stem, shape (window_samples,)."""
        settings = self._settings
        magnitude = sum(
            (filters @ short_time.magnitudes(harmonic, used).T for short_time, filters, used in self._bands), start=0.0
        )
        compressed = np.asarray(magnitude, np.float32).T ** np.float32(settings.compression)
        neighbourhood = uniform_filter1d(compressed, settings.whitening_bins, axis=1, mode="nearest")
        spectrum = np.maximum(compressed - neighbourhood, np.float32(0))
        salience = np.ascontiguousarray((self._harmonics @ spectrum.T).T)
        run = _steadiest_runs(fold(salience), settings.steady_frames, self._after_frames)
        salience = _run_means(salience, settings.steady_frames, run)
        spectrum = _run_means(spectrum, settings.steady_frames, run)
        beside = np.stack([fold((filters @ spectrum.T).T) for filters in self._beside])
        return PitchFrames(spectrum=spectrum, salience=salience, chroma=fold(salience), beside=beside, thirds=_thirds(spectrum))


@lru_cache(maxsize=8)
def pitch_analyser(spec: PerceptionSpec) -> PitchAnalyser:
    """Return the analyser of a spec, made once in a process: it keeps nothing of what it hears."""
    return PitchAnalyser(spec)


def _steadiest_runs(chroma: Float32, length: int, after: int) -> Int64:
    """Return, for each frame of the segment, where the run of `length` frames around it starts that changes least."""
    norm = np.sqrt(np.einsum("nd,nd->n", chroma, chroma))[:, None]
    unit = chroma / np.maximum(norm, np.float32(1e-6))
    runs = np.lib.stride_tricks.sliding_window_view(unit, length, axis=0)
    spread = ((runs - runs.mean(axis=2, keepdims=True)) ** 2).sum(axis=(1, 2))
    # Frame i of the segment is row i + length - 1, and runs i to i + length - 1 hold it, as far as there are runs.
    padded = np.concatenate([spread, np.full(length - 1 - after, np.inf, spread.dtype)])
    around = np.lib.stride_tricks.sliding_window_view(padded, length)
    return np.arange(around.shape[0], dtype=np.int64) + around.argmin(axis=1)


def _run_means(values: Float32, length: int, run: Int64) -> Float32:
    """Return the mean of rows [run, run + length) for each entry of `run`."""
    total = values[run].copy()
    for step in range(1, length):
        total += values[run + step]
    return total / np.float32(length)


def fold(salience: Float32) -> Float32:
    """Return chroma (n, 12), bin 0 = C, of salience (n, N_PITCHES)."""
    chroma = np.zeros((salience.shape[0], 12), np.float32)
    for pitch_class in range(12):
        chroma[:, pitch_class] = salience[:, (pitch_class - LOWEST_PITCH) % 12 :: 12].sum(axis=1)
    return chroma


def _thirds(spectrum: Float32) -> Float32:
    """Return how strong partials are on semitones and one and two thirds above, shape (n, 3); below C4 they are too wide."""
    partials = spectrum[:, _SEMITONES_FROM_BIN:] ** 2
    return np.asarray(partials.reshape(len(spectrum), -1, BINS_PER_SEMITONE).sum(axis=1))


def _bin_midi(settings: PitchSettings) -> Float32:
    return (settings.lowest_midi + np.arange(settings.n_bins) / BINS_PER_SEMITONE).astype(np.float32)


def _log_frequency_filters(settings: PitchSettings, length_samples: int, rate_hz: int, pitches: tuple[int, int]) -> csr_array:
    """Return triangular filters (n_bins, FFT bins), of unit sum, for bins in [lowest, end) of `pitches`."""
    fft_hz = np.arange(length_samples // 2 + 1) * rate_hz / length_samples
    midi = _bin_midi(settings)
    rows, columns, values = [], [], []
    for row in np.flatnonzero((midi >= pitches[0]) & (midi < pitches[1])):
        centre_hz = 440 * 2 ** ((float(midi[row]) - 69) / 12)
        # Half a bin to either side where the FFT resolves that, else interpolation between FFT bins.
        width_hz = max(centre_hz * (2 ** (1 / (12 * BINS_PER_SEMITONE)) - 1), rate_hz / length_samples)
        weights = np.maximum(0, 1 - np.abs(fft_hz - centre_hz) / width_hz)
        if centre_hz >= rate_hz / 2 or not weights.any():
            continue
        found = np.flatnonzero(weights)
        rows += [int(row)] * len(found)
        columns += found.tolist()
        values += (weights[found] / weights[found].sum()).tolist()
    shape = (settings.n_bins, length_samples // 2 + 1)
    return csr_array((np.array(values, np.float32), (rows, columns)), shape=shape)


def _harmonic_filters(settings: PitchSettings, *, bins_off: int = 0) -> csr_array:
    """Return the harmonic sum as a matrix (N_PITCHES, n_bins); each harmonic takes its bin and both sides of it.

    The pitches are so many bins higher than the semitones.
    """
    matrix = np.zeros((N_PITCHES, settings.n_bins), np.float32)
    for pitch in range(N_PITCHES):
        for harmonic, weight in enumerate(settings.harmonic_weights, start=1):
            midi = LOWEST_PITCH + pitch + 12 * np.log2(harmonic)
            centre = round((midi - settings.lowest_midi) * BINS_PER_SEMITONE) + bins_off
            for side in (-1, 0, 1):
                if 0 <= centre + side < settings.n_bins:
                    matrix[pitch, centre + side] += weight * (settings.side_weight if side else 1)
    return csr_array(matrix)


_REFERENCE_RATE_HZ = 24000


def at_rate(samples_at_24_khz: int, sample_rate_hz: int) -> int:
    """Return a length that is given at 24 kHz as an even number of samples at another rate."""
    return max(2, 2 * round(samples_at_24_khz * sample_rate_hz / _REFERENCE_RATE_HZ / 2))


class ShortTime:
    """Magnitude spectra of the frames of the segment at the end of a window.

    An analysis window of `length_samples` (even) is centred on its frame and peaks `ahead_samples` after it (at most half the
    length: a note's attack takes time). A segment is complete when it is analysed, so looking ahead inside it is free, but
    after its lookahead there is nothing yet: near the end the right flank gets shorter, down to `right_samples`, then the peak
    moves left. Each window has unit gain for a steady sinusoid at its peak, so that levels do not fade towards the end of a
    segment. `before_frames` and `after_frames` of context and lookahead are given around the segment's own.
    """

    def __init__(
        self,
        spec: PerceptionSpec,
        *,
        length_samples: int,
        ahead_samples: int,
        right_samples: int,
        before_frames: int = 0,
        after_frames: int = 0,
    ) -> None:
        stride, frame = spec.encoder.stride_samples, spec.encoder.frame_samples
        n = frame_count(spec.segment_samples, frame_samples=frame, stride_samples=stride)
        centres = frame_centres(-before_frames, n + after_frames, frame_samples=frame, stride_samples=stride)
        half = length_samples // 2
        seen = spec.segment_samples + spec.lookahead_samples
        self._windows = np.stack(
            [_window(length_samples, seen - int(centre), ahead_samples, right_samples) for centre in centres]
        )
        self._expected = spec.window_samples
        first = spec.context_samples + int(centres[0]) - half
        last = spec.context_samples + int(centres[-1]) + half
        self._padding = (max(0, -first), max(0, last - self._expected))
        self._start, self._stride, self._length = max(0, first), stride, length_samples

    def magnitudes(self, samples: Float32, bins: int | None = None) -> Float32:
        """Return (before + frames + after, length // 2 + 1) magnitudes, or the first `bins`; a full-scale sinusoid gives 1.

        Raises `ValueError` if `samples` is not as long as a window.
        """
        if samples.shape != (self._expected,):
            raise ValueError(f"expected {self._expected} samples, got an array of shape {samples.shape}")
        padded = np.zeros(self._padding[0] + len(samples) + self._padding[1], samples.dtype)
        padded[self._padding[0] : self._padding[0] + len(samples)] = samples
        frames = np.lib.stride_tricks.sliding_window_view(padded, self._length)[self._start :: self._stride]
        n = self._windows.shape[0]
        return np.abs(rfft(frames[:n] * self._windows, axis=1)[:, :bins]).astype(np.float32, copy=False)


def _window(length: int, available: int, ahead: int, right: int) -> Float32:
    """Return a Hann window around its middle + `ahead`, whose right flank ends within `available` samples."""
    offset = np.arange(length) - length // 2
    flank = length // 2 - ahead
    peak, right_flank = ahead, flank
    if peak + flank > available:
        right_flank = max(min(right, flank), available - peak)
        peak = min(peak, available - right_flank)
    position = np.where(offset < peak, (offset - peak) / flank, (offset - peak) / right_flank)
    window = 0.5 + 0.5 * np.cos(np.pi * np.clip(position, -1, 1))
    window[offset >= available] = 0
    return (2 * window / window.sum()).astype(np.float32)
