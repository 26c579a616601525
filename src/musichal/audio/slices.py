"""The answer as slices of recordings, one at a time, cross-faded: rendered as a whole, or played as it is decided.

Conventions
-----------
A slice is at full level at its onset, so that its attack is kept: it fades in during the `fade_s` before, from what the
recording has there, while the slice before it fades out. A slice ends where the next one starts. Slices that go on in
the recording where the one before left off are played as one: the recording comes out unchanged.

A transposition is by varispeed: the stretch that is read is 2^(semitones / 12) times as long as it sounds. The
recording's own ends are faded too, for it may have been cut in mid-sound; a slice that runs past the end stops there.

`SlicePlayer` counts frames: samples of the output. A slice fades in during the fade before its frame, so it has to be asked
for a fade ahead; one that comes too late starts at once. Its cross-fades are straight.

References
----------
The gains of a cross-fade follow from the correlation of what is cross-faded, so that power stays constant: straight for
equal signals, equal-power for unrelated ones. Fink, Holters, Zölzer: Signal-matched power-complementary cross-fading and
dry-wet mixing, DAFx 2016.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import soxr

from musichal.arrays import Float32
from musichal.note import Slice

_MARGIN = 256
"""Samples read on either side of a slice, so that the resampler's edges are outside it."""
_FADE_S = 0.01
_SAME_PLACE_S = 0.001
"""How far a slice may be from where the one before left off, and still run on."""


@dataclass(frozen=True)
class _Stretch:
    """A slice, or several that run on: samples [`start`, `end`) of the output, from `source_s` of a recording on."""

    start: int
    end: int
    onset_s: float
    recording: int
    source_s: float
    semitones: float
    gain: float

    @property
    def ratio(self) -> float:
        return float(2.0 ** (self.semitones / 12))


def render_slices(
    events: Iterable[Slice],
    recordings: Sequence[tuple[Float32, int]],
    *,
    sample_rate_hz: int,
    fade_s: float = _FADE_S,
) -> Float32:
    """Play slices of `recordings`, pairs of mono samples (n,) and a rate in Hz; returns (m,), to the end of the last.

    Of slices with the same onset the last is played; one that is over within a fade is not heard. Raises `ValueError`
    for a recording that is not mono or not there, and for a fade that is not positive.
    """
    if not fade_s > 0:
        raise ValueError(f"fade_s must be positive, got {fade_s}")
    if any(samples.ndim != 1 for samples, _ in recordings):
        raise ValueError("recordings must be mono, of shape (n,)")
    fade = max(2, round(fade_s * sample_rate_hz))
    stretches = _audible(_stretches(events, sample_rate_hz), recordings, sample_rate_hz, fade)
    out = np.zeros(max((stretch.end for stretch in stretches), default=0), np.float32)
    edged = {number: _edged(*recordings[number], fade_s) for number in {s.recording for s in stretches}}
    rise = _rise(fade)
    before_end, tail = -1, rise
    for stretch in stretches:
        first = max(0, stretch.start - fade)
        sound = _read(edged[stretch.recording], recordings[stretch.recording][1], stretch, first, sample_rate_hz)
        head, next_tail = sound[:fade].copy(), sound[-fade:].copy()
        sound[:fade] *= rise
        sound[-fade:] *= rise[::-1]
        out[first : stretch.end] += sound
        if before_end == stretch.start:
            out[first : stretch.start] /= _fade_level(tail, head, rise)
        before_end, tail = stretch.end, next_tail
    return out


def _stretches(events: Iterable[Slice], rate_hz: int) -> list[_Stretch]:
    """Return the events in order, each cut where the next starts, those that run on joined."""
    stretches: list[_Stretch] = []
    for event in sorted(events, key=lambda event: event.onset_s):
        start, end = round(event.onset_s * rate_hz), round((event.onset_s + event.duration_s) * rate_hz)
        new = _Stretch(
            *(start, end, event.onset_s, event.recording, event.source_start_s),
            *(event.transposition_semitones, event.gain),
        )
        if stretches:
            before = stretches[-1] = replace(stretches[-1], end=min(stretches[-1].end, start))
            if _runs_on(before, new):
                stretches[-1] = replace(before, end=end)
                continue
        stretches.append(new)
    return stretches


def _runs_on(before: _Stretch, new: _Stretch) -> bool:
    expected_s = before.source_s + (new.onset_s - before.onset_s) * before.ratio
    return (
        new.start - before.end <= 1
        and (new.recording, new.semitones, new.gain) == (before.recording, before.semitones, before.gain)
        and abs(new.source_s - expected_s) <= _SAME_PLACE_S
    )


def _audible(
    stretches: Iterable[_Stretch], recordings: Sequence[tuple[Float32, int]], rate_hz: int, fade: int
) -> list[_Stretch]:
    """Return the stretches up to the ends of their recordings, without those shorter than a fade.

    Gaps of up to a fade are closed, so that two neighbours either share a whole cross-fade or have nothing to do with
    each other.
    """
    audible: list[_Stretch] = []
    for stretch in stretches:
        if stretch.recording >= len(recordings):
            raise ValueError(f"unknown recording {stretch.recording}: {len(recordings)} are given")
        samples, source_rate_hz = recordings[stretch.recording]
        left_s = (len(samples) / source_rate_hz - stretch.source_s) / stretch.ratio
        end = min(stretch.end, stretch.start + math.floor(left_s * rate_hz + 1e-6))
        if end - stretch.start < fade:
            continue
        if audible and stretch.start - audible[-1].end <= fade:
            audible[-1] = replace(audible[-1], end=stretch.start)
        audible.append(replace(stretch, end=end))
    return audible


def _edged(samples: Float32, rate_hz: int, fade_s: float) -> Float32:
    """Return a copy of a recording that rises from silence and falls to it."""
    n = min(round(fade_s * rate_hz), len(samples) // 2)
    edged = samples.astype(np.float32)
    edged[:n] *= _rise(n)
    edged[len(edged) - n :] *= _rise(n)[::-1]
    return edged


def _rise(n: int) -> Float32:
    """Return the gains of a fade-in of `n` samples."""
    return (0.5 - 0.5 * np.cos(np.pi * (np.arange(n) + 0.5) / max(n, 1))).astype(np.float32)


def _read(samples: Float32, source_rate_hz: int, stretch: _Stretch, first: int, rate_hz: int) -> Float32:
    """Return samples [`first`, `stretch.end`) of the output as the recording has them, zero outside of it."""
    n, lead = stretch.end - first, stretch.start - first
    step = source_rate_hz * stretch.ratio / rate_hz
    position = stretch.source_s * source_rate_hz
    if step == 1:
        sound = _cut(samples, round(position) - lead, n)
    else:
        margin = _MARGIN * math.ceil(max(step, 1.0))
        at = position - lead * step
        origin = math.floor(at) - margin
        source = _cut(samples, origin, math.ceil(n * step) + 2 * margin)
        resampled = soxr.resample(source, source_rate_hz * stretch.ratio, rate_hz, quality="VHQ")
        sound = _cut(resampled, round((at - origin) / step), n)
    sound *= np.float32(stretch.gain)
    return sound


def _cut(samples: Float32, start: int, n: int) -> Float32:
    """Return a copy of `n` samples from `start` on, zero where there are none."""
    low, high = min(max(start, 0), len(samples)), min(max(start + n, 0), len(samples))
    cut = np.zeros(n, np.float32)
    cut[low - start : high - start] = samples[low:high]
    return cut


def _fade_level(falling: Float32, rising: Float32, rise: Float32) -> Float32:
    """Return the level that a cross-fade with the gains 1 − `rise` and `rise` has, where both signals have level 1."""
    energy = float(falling @ falling) * float(rising @ rising)
    # Opposite phases are not made up for: that would need more than full gain.
    correlation = np.float32(max(0.0, float(falling @ rising) / math.sqrt(energy)) if energy > 0 else 0.0)
    fall = 1 - rise
    level: Float32 = np.sqrt(fall**2 + rise**2 + 2 * correlation * fall * rise)
    return level


@dataclass
class _Sounding:
    first: int
    samples: Float32


class SlicePlayer:
    """Plays slices of mono `recordings`, pairs of samples (n,) and a rate in Hz, at `sample_rate_hz`.

    One thread may call `start` and `stop` while another calls `read`: requests go through a queue, and `read` neither waits
    nor allocates more than its answer.
    """

    def __init__(self, recordings: Sequence[tuple[Float32, int]], *, sample_rate_hz: int) -> None:
        self._recordings, self._rate_hz = list(recordings), sample_rate_hz
        self._fade = max(2, round(_FADE_S * sample_rate_hz))
        self._fall = _rise(self._fade)[::-1]
        self._asked: deque[_Sounding | int] = deque()
        self._sounding: list[_Sounding] = []
        self._position = 0

    @property
    def position(self) -> int:
        """The frame that `read` gives next."""
        return self._position

    def start(self, frame: int, piece: Slice) -> None:
        """Play a slice from `frame` on; its `onset_s` is ignored. Raises `ValueError` for an unknown recording."""
        source = replace(piece, onset_s=self._fade / self._rate_hz)
        samples = render_slices([source], self._recordings, sample_rate_hz=self._rate_hz)
        self._asked.append(_Sounding(frame - self._fade, samples))

    def stop(self, frame: int) -> None:
        """Fade out what sounds by `frame`, or within a fade from now if that is too late; drop later slices."""
        self._asked.append(frame - self._fade)

    def read(self, frames: int) -> Float32:
        """Return the next samples, of shape (frames,)."""
        while self._asked:
            asked = self._asked.popleft()
            if isinstance(asked, int):
                self._end(max(asked, self._position))
            else:
                first = max(asked.first, self._position)
                self._end(first)
                self._sounding.append(replace(asked, first=first))
        out = np.zeros(frames, np.float32)
        end = self._position + frames
        for sound in self._sounding:
            low, high = max(sound.first, self._position), min(sound.first + len(sound.samples), end)
            if low < high:
                out[low - self._position : high - self._position] += sound.samples[low - sound.first : high - sound.first]
        self._position = end
        self._sounding = [sound for sound in self._sounding if sound.first + len(sound.samples) > end]
        return out

    def _end(self, first: int) -> None:
        """Fade out everything over the fade from the frame `first` on."""
        kept = []
        for sound in self._sounding:
            left = first + self._fade - sound.first
            if first <= sound.first:
                continue  # it has not begun
            if left < len(sound.samples):
                samples = sound.samples[:left].copy()
                tail = min(self._fade, left)
                samples[left - tail :] *= self._fall[self._fade - tail :]
                sound = _Sounding(sound.first, samples)  # noqa: PLW2901
            kept.append(sound)
        self._sounding = kept
