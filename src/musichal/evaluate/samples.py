"""The sound that hearing begins with, beside the sound itself: each window of the live path, sample by sample.

Quantisation swallows most of what another resampler does, so tokens may agree where samples do not. This costs next to
nothing: the recording is filtered and resampled once more, by other parts than those that the live path runs on, and each
window that the live path hears is laid beside its place in that.
"""

import numpy as np
from scipy.signal import correlate

from musichal.arrays import Float32, Float64
from musichal.audio.recording import ingest
from musichal.audio.resample import StreamResampler
from musichal.evaluate.verification import Check
from musichal.hearing.front_end import HighPass
from musichal.hearing.percepts import Stems, Window
from musichal.spec import PerceptionSpec

_BLOCK_S = 1.0
_LONGEST_LOSS_S = 5.0
# A window's place is where it correlates so well with the sound; music repeats itself less closely.
_SURE = 0.95
# Of pieces of 256 samples, most fit with a gain of their own but for -25 dB, and the gain is none of the rounding's.
_PIECE_SAMPLES, _GAIN_FITS_DB, _LEAST_GAIN_DB, _MOST = 256, -25.0, 0.3, 0.6
_SMALL_DB = -15.0
_QUIET = 1e-5


class SampleAudit:
    """Compares the windows of a live path: give it `tap`.

    Parameters
    ----------
    spec : PerceptionSpec
    samples : array of shape (n,)
        The recording.
    sample_rate_hz : int
        Its rate.
    """

    def __init__(self, spec: PerceptionSpec, samples: Float32, *, sample_rate_hz: int) -> None:
        self._spec = spec
        self._stream = resampled(spec, samples, sample_rate_hz=sample_rate_hz)
        self._windows = 0
        self._differing = 0
        self._largest = 0.0
        self._first: Window | None = None
        self._latest: Window | None = None

    def tap(self, window: Window, _stems: Stems) -> None:
        """Take the next window."""
        self._windows += 1
        expected = self._expected(window)
        same = window.samples.shape[0] == self._spec.window_samples and np.array_equal(window.samples, expected)
        if same:
            return
        self._differing += 1
        self._largest = max(self._largest, float(np.abs(window.samples - expected).max(initial=0.0)))
        self._first = self._first or window
        self._latest = window

    def _expected(self, window: Window) -> Float32:
        """Return the sound where a window says that it is, shape (window,), silence outside."""
        first = window.start_sample - self._spec.context_samples
        out = np.zeros(window.samples.shape[0], dtype=np.float32)
        begin, end = max(0, first), min(first + window.real_samples, len(self._stream))
        if end > begin:
            out[begin - first : end - first] = self._stream[begin:end]
        return out

    @property
    def first_s(self) -> float | None:
        """Where the first window that differs starts, in seconds; None where none does."""
        return None if self._first is None else self._first.start_sample / self._spec.sample_rate_hz

    def check(self, name: str) -> Check:
        """Return the check that every window is the sound itself, bit for bit."""
        same = self._windows - self._differing
        detail = "filtered and resampled once more, sample by sample"
        if self._first is not None:
            detail = f"first in window {self._first.index} ({self.first_s:.3f} s): off by up to {self._largest:.3g}"
        return Check(
            group="parity",
            name=f"{name}, samples, live",
            expected=f"{self._windows} of {self._windows} windows",
            found=f"{same} of {self._windows} windows",
            passed=not self._differing,
            detail=detail,
            cause=self.cause(),
            values={
                "windows": self._windows,
                "equal": same,
                "first_window": None if self._first is None else self._first.index,
                "largest": self._largest,
            },
        )

    def cause(self) -> str:
        """Return in words why samples differ, judged from how they do; empty where they do not."""
        first, latest, spec = self._first, self._latest, self._spec
        if first is None or latest is None:
            return ""
        rate = spec.sample_rate_hz
        if first.samples.shape[0] != spec.window_samples:
            now, usual = (1000 * n / rate for n in (first.length_samples, spec.segment_samples))
            return f"another segment length: {now:.0f} ms instead of {usual:.0f} ms"
        lag = self._lag(latest)
        if lag:
            words = "were lost" if lag > 0 else "came twice, or from elsewhere,"
            return f"{abs(lag)} samples ({1000 * abs(lag) / rate:.0f} ms) {words} on the way, near {self.first_s:.1f} s"
        expected = self._expected(first)
        gains = _gains_db(expected, first.samples)
        if gains is not None:
            return f"the level is another one: gains from {gains[0]:+.1f} to {gains[1]:+.1f} dB within one window"
        error, power = np.square(first.samples - expected).sum(), np.square(expected).sum()
        if error <= power * 10 ** (_SMALL_DB / 10):
            return "another resampler, or another quality of it: the same sound, a little off everywhere"
        return "the sound itself is another one: another file or channel, gain, or lost blocks"

    def _lag(self, window: Window) -> int:
        """Return by how many samples the sound of a window lies behind its place; 0 where it is found nowhere else."""
        context, real = self._spec.context_samples, window.real_samples
        piece = window.samples[max(context, real - self._spec.segment_samples) : real]
        if len(piece) < _PIECE_SAMPLES or float(np.abs(piece).max()) < _QUIET:
            return 0
        place = window.start_sample - context + real - len(piece)
        reach = round(_LONGEST_LOSS_S * self._spec.sample_rate_hz)
        begin = max(0, place - reach)
        around = self._stream[begin : place + len(piece) + reach]
        if len(around) < len(piece):
            return 0
        products = correlate(around.astype(np.float64), piece.astype(np.float64), mode="valid", method="fft")
        sums = np.concatenate([[0.0], np.cumsum(np.square(around, dtype=np.float64))])
        norms = np.sqrt(np.maximum(sums[len(piece) :] - sums[: -len(piece)], 1e-12) * np.square(piece, dtype=np.float64).sum())
        likeness = products / norms
        best = int(likeness.argmax())
        at_its_place = float(likeness[place - begin]) if place - begin < len(likeness) else 0.0
        return begin + best - place if likeness[best] > _SURE and at_its_place < _SURE else 0


def resampled(spec: PerceptionSpec, samples: Float32, *, sample_rate_hz: int) -> Float32:
    """Return a recording (n,) as hearing begins with it: filtered, at the spec's rate."""
    highpass = HighPass(cutoff_hz=spec.highpass_hz, sample_rate_hz=sample_rate_hz)
    resampler = StreamResampler(source_rate_hz=sample_rate_hz, target_rate_hz=spec.sample_rate_hz, quality=spec.resampler)
    block = max(1, round(_BLOCK_S * sample_rate_hz))
    parts = [
        resampler.push(highpass.push(ingest(samples[first : first + block]))) for first in range(0, samples.shape[0], block)
    ]
    return np.concatenate([*parts, resampler.flush()])


def _gains_db(expected: Float32, found: Float32) -> tuple[float, float] | None:
    """Return the least and the greatest gain, if most pieces are their counterparts at another level; None if not."""
    n = len(expected) // _PIECE_SAMPLES * _PIECE_SAMPLES
    a: Float64 = expected[:n].reshape(-1, _PIECE_SAMPLES).astype(np.float64)
    b: Float64 = found[:n].reshape(-1, _PIECE_SAMPLES).astype(np.float64)
    sounding = (np.square(a).mean(axis=1) > _QUIET**2) & (np.square(b).mean(axis=1) > _QUIET**2)
    if not sounding.any():
        return None
    a, b = a[sounding], b[sounding]
    gains = (a * b).sum(axis=1) / np.square(a).sum(axis=1)
    rest = np.square(b - gains[:, None] * a).sum(axis=1) / np.square(b).sum(axis=1)
    fits = (rest < 10 ** (_GAIN_FITS_DB / 10)) & (gains > 0)
    if fits.mean() < _MOST:
        return None
    levels = 20 * np.log10(gains[fits])
    return (float(levels.min()), float(levels.max())) if np.abs(levels).max() > _LEAST_GAIN_DB else None
