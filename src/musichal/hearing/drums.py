"""Drum hits: which drum of a kit is struck, when, how loud; causal but for a bounded look ahead, streaming.

For every 10 ms a small network, trained on rendered drums by `tools/train_drums.py`, gives for each drum the probability that
it is struck there. It sees log-frequency levels of the mix at moments up to 0.24 s before and 0.2 s after (onsets by
activation functions: Southall, Stables & Hockman, ISMIR 2016; Vogl, Dorfer, Widmer & Knees, ISMIR 2017). A hit is where the
sum of its probability over neighbouring frames peaks above the drum's threshold, at its centre of mass. The threshold is higher
until some sure hits say that drums play at all, so that a melody alone brings few false ones. A hit near the end of a segment
comes with the next one, with its true time.

Levels are relative to the loudest frame of the last seconds, so that a soft recording of drums has hits too. A hit's velocity
is by how much the level rises in the drum's band, on a line from -60 dBFS (1) to 0 dBFS (127).
"""

from collections import deque
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.fft import rfft

from musichal.arrays import Float32, Float64
from musichal.hearing.model_weights import model_weights
from musichal.hearing.percepts import Window
from musichal.note import DRUMS, HeardNote
from musichal.spec import PerceptionSpec

HIT_S = 0.1
"""How long a hit lasts: a drum rings by itself."""
FRAMES_PER_S = 100
N_BANDS = 40
LAGS = (-24, -16, -11, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 8, 11, 15, 20)
"""Frames, relative to the current one, at which the network sees the levels."""
BEHIND, AHEAD = -min(LAGS), max(LAGS)
_PASS_BAND_HZ = (35.0, 11500.0)
_N_FFT_S = 1024 / 24000
_RANGE_BELS = 6.0
_FADE_BELS_PER_S = 0.5
_QUIETEST_REFERENCE = 3e-6  # power; below about -55 dBFS a sound is not brought up to full scale
_SPREAD_FRAMES = 1  # A hit's probability is summed over so many frames either way.
_PEAK_FRAMES = 4  # The same drum is struck once within 40 ms.
_MARGIN = _PEAK_FRAMES + _SPREAD_FRAMES
_RISE_FRAMES = 4
# Where fewer than three sure hits came in the last 8 s, nobody plays drums: only surer ones than those count there.
_SURE, _SURE_HITS, _LATELY_FRAMES, _LONE = 2.0, 3, 8 * FRAMES_PER_S, 2.4
_AHEAD_ROWS = max(_MARGIN, _RISE_FRAMES)
_CHUNK = 32  # frames per product: so small that no BLAS splits it, and its rounding does not depend on the threads
_SOFTEST_DB, _LOUDEST_DB = -60.0, 0.0
_BANDS_HZ = ((35, 130), (150, 5000), (5000, 11500), (5000, 11500), (60, 400), (3000, 11500))


class DrumFrontEnd:
    """Streams samples into levels; frame k is centred on sample k·hop."""

    def __init__(self, sample_rate_hz: int) -> None:
        self.hop_samples = round(sample_rate_hz / FRAMES_PER_S)
        self._n_fft = 2 * round(_N_FFT_S * sample_rate_hz / 2)
        self._filters = _filterbank(sample_rate_hz, self._n_fft)
        n = np.arange(self._n_fft)
        window = 0.5 - 0.5 * np.cos(2 * np.pi * n / self._n_fft)
        self._window = (window * (2 / window.sum())).astype(np.float32)
        self._fade = np.float32(10 ** (-_FADE_BELS_PER_S / FRAMES_PER_S))
        self._reference = np.float32(_QUIETEST_REFERENCE)
        # Silence before the stream; the buffer starts half a window before the next frame's centre.
        self._samples: Float32 = np.zeros(self._n_fft // 2, dtype=np.float32)

    def push(self, samples: Float32) -> tuple[Float32, Float32]:
        """Take the next samples, shape (n,); return the power of complete frames, (k, N_BANDS), and their reference, (k,)."""
        self._samples = np.concatenate([self._samples, samples])
        whole = (len(self._samples) - self._n_fft) // self.hop_samples + 1
        if whole <= 0:
            return np.zeros((0, N_BANDS), dtype=np.float32), np.zeros(0, dtype=np.float32)
        frames = sliding_window_view(self._samples, self._n_fft)[:: self.hop_samples][:whole]
        spectrum = rfft(frames * self._window, axis=1)
        power = in_chunks(spectrum.real**2 + spectrum.imag**2, self._filters)
        loudest, references = power.max(axis=1), np.empty(whole, dtype=np.float32)
        for i in range(whole):
            self._reference = max(self._reference * self._fade, loudest[i], np.float32(_QUIETEST_REFERENCE))
            references[i] = self._reference
        self._samples = self._samples[whole * self.hop_samples :].copy()
        return power, references

    def flush(self) -> tuple[Float32, Float32]:
        """End the stream, with silence behind it, and return the rest of its frames."""
        return self.push(np.zeros(self._n_fft // 2, dtype=np.float32))


def in_chunks(rows: Float32, weights: Float32) -> Float32:
    """Return rows (n, k) @ weights (k, m), a few rows at a time."""
    out = np.empty((len(rows), weights.shape[1]), dtype=np.float32)
    for i in range(0, len(rows), _CHUNK):
        np.matmul(rows[i : i + _CHUNK], weights, out=out[i : i + _CHUNK])
    return out


@lru_cache(maxsize=4)
def _filterbank(sample_rate_hz: int, n_fft: int) -> Float32:
    """Return triangular filters on power, (n_fft // 2 + 1, N_BANDS)."""
    corners = _corners_hz(sample_rate_hz) * n_fft / sample_rate_hz
    bins = np.arange(n_fft // 2 + 1)
    filters = np.zeros((n_fft // 2 + 1, N_BANDS))
    for band, ((before, here), (_, after)) in enumerate(pairwise(pairwise(corners))):
        below, above = max(here - before, 1.0), max(after - here, 1.0)
        filters[:, band] = np.clip(np.minimum((bins - here + below) / below, (here + above - bins) / above), 0, 1)
    return filters.astype(np.float32)


def _corners_hz(sample_rate_hz: int) -> Float64:
    """Return where bands end and others are loudest, (N_BANDS + 2,), even on a scale between linear and octaves."""
    low, high = (np.log2(1 + hz / 150) for hz in (_PASS_BAND_HZ[0], min(_PASS_BAND_HZ[1], 0.48 * sample_rate_hz)))
    return np.asarray(150 * (2 ** np.linspace(low, high, N_BANDS + 2) - 1))


def relative_levels(power: Float32, reference: Float32) -> Float32:
    """Return levels (n, N_BANDS): 1 at the reference, 0 at 60 dB below."""
    bels = np.log10(np.maximum(power, np.float32(1e-12)) / reference[:, None])
    return np.clip(1 + bels / np.float32(_RANGE_BELS), 0, np.float32(1.3))


class DrumModel:
    """The packaged network. It is a pure function of the levels that it is given."""

    def __init__(self, weights: Mapping[str, Float32] | None = None) -> None:
        inputs = len(LAGS) * N_BANDS
        weights = model_weights("drum", {"w0": inputs}, weights)
        self._lagged = [weights["w0"][i : i + N_BANDS].copy() for i in range(0, inputs, N_BANDS)]
        self._bias = weights["b0"]
        self._layers = [(weights[f"w{i}"], weights[f"b{i}"]) for i in (1, 2)]
        self.thresholds = weights["thresholds"]

    def evaluate(self, levels: Float32) -> Float32:
        """Return probabilities (n - BEHIND - AHEAD, len(DRUMS)) for all but the outer frames of n."""
        count = len(levels) - BEHIND - AHEAD
        if count <= 0:
            return np.zeros((0, len(DRUMS)), dtype=np.float32)
        hidden: Float32 = np.repeat(self._bias[None], count, axis=0)
        for lag, weights in zip(LAGS, self._lagged, strict=True):
            hidden += in_chunks(levels[BEHIND + lag : BEHIND + lag + count], weights)
        for weights, bias in self._layers:
            hidden = in_chunks(np.maximum(hidden, 0), weights) + bias
        return np.asarray(1 / (1 + np.exp(-hidden)), dtype=np.float32)


class DrumTracker:
    """Follows the drum hits of one stream, and holds all its state."""

    def __init__(self, spec: PerceptionSpec) -> None:
        self._spec = spec
        self._model = DrumModel()
        hz = _corners_hz(spec.sample_rate_hz)[1:-1].astype(np.float32)
        self._bands = np.stack([(hz >= low) & (hz <= high) for low, high in _BANDS_HZ], axis=1).astype(np.float32)
        self._restart(0)

    def step(self, window: Window) -> tuple[HeardNote, ...]:
        """Take the next window and return the hits that it decides, ordered by onset, then key.

        Samples that an earlier window contained are not analysed twice. Where segments were skipped, the tracker ends what
        it knows and restarts after the gap.
        """
        hits: tuple[HeardNote, ...] = ()
        if window.start_sample > self._end:
            hits = self.flush()
            self._restart(window.start_sample)
        first = self._spec.context_samples + self._end - window.start_sample
        samples = window.samples[first : self._spec.context_samples + window.length_samples]
        self._end += len(samples)
        return hits + self._hear(*self._front_end.push(samples))

    def flush(self) -> tuple[HeardNote, ...]:
        """End the stream and return the hits near its end. The tracker is then as new, at the stream's end."""
        hits = self._hear(*self._front_end.flush())
        silence = np.zeros((AHEAD + _AHEAD_ROWS, N_BANDS), dtype=np.float32)
        hits += self._hear(silence, np.ones(len(silence), dtype=np.float32))
        self._restart(self._end)
        return hits

    def _restart(self, start_sample: int) -> None:
        self._start = self._end = start_sample
        self._front_end = DrumFrontEnd(self._spec.sample_rate_hz)
        self._levels: Float32 = np.zeros((BEHIND, N_BANDS), dtype=np.float32)
        # Rows of consecutive frames start _MARGIN before the next one to decide on.
        self._power: Float32 = np.zeros((_MARGIN, N_BANDS), dtype=np.float32)
        self._probability: Float32 = np.zeros((_MARGIN, len(DRUMS)), dtype=np.float32)
        self._frame = 0
        self._sure: deque[int] = deque()  # frames of the sure hits lately

    def _hear(self, power: Float32, reference: Float32) -> tuple[HeardNote, ...]:
        levels = np.concatenate([self._levels, relative_levels(power, reference)])
        probability = self._model.evaluate(levels)
        self._levels = levels[len(probability) :]
        self._power = np.concatenate([self._power, power])
        self._probability = np.concatenate([self._probability, probability])
        return self._decide()

    def _decide(self) -> tuple[HeardNote, ...]:
        """Decide on all frames that enough is known about."""
        count = len(self._probability) - _MARGIN - _AHEAD_ROWS
        if count <= 0:
            return ()
        mass, places = struck(self._probability, count)
        rise_db = self._rise_db(count)
        hits = []
        hop, rate = self._front_end.hop_samples, self._spec.sample_rate_hz
        for i in np.flatnonzero((mass > self._model.thresholds).any(axis=1)).tolist():
            for drum in np.flatnonzero((mass[i] > self._least(i)) & (rise_db[i] > _SOFTEST_DB)).tolist():
                place = (self._frame + i + float(places[i, drum])) * hop
                onset_s = min(self._end, max(0.0, self._start + place)) / rate
                hits.append(HeardNote(onset_s, HIT_S, _KEYS[drum], velocity_of(float(rise_db[i, drum]))))
            if mass[i].max() > _SURE:
                self._sure.append(self._frame + i)
        self._frame += count
        self._probability = self._probability[count:]
        self._power = self._power[len(self._power) - (len(self._probability) + AHEAD) :]
        return tuple(sorted(hits, key=lambda hit: (hit.onset_s, hit.pitch)))

    def _least(self, row: int) -> Float32:
        """Return how sure a hit must be at a row of the frames to decide on, (len(DRUMS),): very, where no drums play."""
        while self._sure and self._sure[0] < self._frame + row - _LATELY_FRAMES:
            self._sure.popleft()
        return np.maximum(self._model.thresholds, np.float32(0 if len(self._sure) >= _SURE_HITS else _LONE))

    def _rise_db(self, count: int) -> Float32:
        """Return by how much the level rises in each drum's band within 40 ms of each frame, (count, len(DRUMS))."""
        power = in_chunks(self._power[: _MARGIN + count + _AHEAD_ROWS], self._bands)
        before, after = power[_MARGIN - 4 : _MARGIN - 4 + count], power[_MARGIN : _MARGIN + count]
        for ahead in range(1, _RISE_FRAMES):
            before = np.minimum(before, power[_MARGIN - 4 + ahead : _MARGIN - 4 + ahead + count])
            after = np.maximum(after, power[_MARGIN + ahead : _MARGIN + ahead + count])
        return np.asarray(10 * np.log10(np.maximum(after - before, np.float32(1e-12))), dtype=np.float32)


_KEYS = tuple(DRUMS)  # in the order of the network's outputs


def struck(probability: Float32, count: int) -> tuple[Float32, Float32]:
    """Return how sure a hit is at each frame, 0 where its neighbours are surer, and its place relative to the frame.

    `probability` (n, drums) starts `_MARGIN` frames before the first of the `count` frames; both results are (count, drums).
    """
    n = probability.shape[0] - 2 * _SPREAD_FRAMES
    mass: Float32 = np.zeros((n, probability.shape[1]), dtype=np.float32)
    moment: Float32 = np.zeros_like(mass)
    for lag in range(-_SPREAD_FRAMES, _SPREAD_FRAMES + 1):
        part = probability[_SPREAD_FRAMES + lag : _SPREAD_FRAMES + lag + n]
        mass += part
        moment += np.float32(lag) * part
    here = mass[_PEAK_FRAMES : _PEAK_FRAMES + count]
    peak = np.ones(here.shape, dtype=np.bool_)
    for lag in range(1, _PEAK_FRAMES + 1):
        # Of equal neighbours the first one counts.
        peak &= here > mass[_PEAK_FRAMES - lag : _PEAK_FRAMES - lag + count]
        peak &= here >= mass[_PEAK_FRAMES + lag : _PEAK_FRAMES + lag + count]
    places = (moment[_PEAK_FRAMES : _PEAK_FRAMES + count] / np.maximum(here, np.float32(1e-6))).astype(np.float32)
    return np.where(peak, here, np.float32(0)).astype(np.float32), places


def velocity_of(rise_db: float) -> int:
    """Return the velocity, 1 to 127, of a hit that raises its drum's band to `rise_db` dBFS."""
    share = (rise_db - _SOFTEST_DB) / (_LOUDEST_DB - _SOFTEST_DB)
    return round(1 + 126 * min(1.0, max(0.0, share)))
