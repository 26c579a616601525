"""The front end: from blocks of samples to windows of sound and onsets, cheap enough to run where sound arrives.

A block is high-pass filtered, resampled, searched for onsets and cut into segments. On the grid, segment k starts at k·hop.
Onset-synchronously, a segment starts where the one before ended, or earlier, at an onset: the segment that the onset cuts
short keeps the frames that fit before it. Windows and onsets carry the sample of the stream at which they were complete, and
depend on the stream alone, never on its blocks.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

import numpy as np
import scipy

from musichal.arrays import AnyArray, Float32, Float64
from musichal.audio.recording import ingest
from musichal.audio.resample import StreamResampler
from musichal.hearing.exact_notes import OnsetQueue
from musichal.hearing.onsets import OnsetDetector, onsets_known_at
from musichal.hearing.percepts import Onset, Window, first_new_frame, frame_count
from musichal.spec import PerceptionSpec

_DELAY_S = 3.0  # bursts and blocks meet in all ways in this time
_KEY_S = 0.05  # an onset in the sound so near a key that is known by then is the key's


@dataclass(frozen=True)
class FrontEndResult:
    """What a block completed: windows to be analysed, and onsets that are known before the segment they lie in."""

    windows: tuple[Window, ...]
    onsets: tuple[Onset, ...]


class FrontEnd:
    """Takes blocks at `source_rate_hz` and any channel count; filters, resamples, finds onsets and cuts segments.

    `known`: the onsets of a MIDI player, which take the place of those that would be found, or go beside them. Raises
    `InputError` if the rate is not supported.
    """

    def __init__(self, spec: PerceptionSpec, *, source_rate_hz: int, known: OnsetQueue | None = None) -> None:
        self.samples_heard = 0
        self.known = known
        self._last_known = -1
        # Before the resampler, which would make a click of an offset's beginning.
        self._highpass = HighPass(cutoff_hz=spec.highpass_hz, sample_rate_hz=source_rate_hz)
        self._resampler = StreamResampler(
            source_rate_hz=source_rate_hz, target_rate_hz=spec.sample_rate_hz, quality=spec.resampler
        )
        self._onset_detector = OnsetDetector(spec.onsets, sample_rate_hz=spec.sample_rate_hz)
        self._segmenter = Segmenter(spec, at_once=known is not None and not known.beside)
        self._keys: deque[Onset] = deque()
        self._key_samples = round(_KEY_S * spec.sample_rate_hz)
        self._onsets: list[Onset] = []

    def push(self, block: AnyArray) -> FrontEndResult:
        """Take a block (n,) or (n, channels); raises `InputError` if a sample is not finite."""
        return self._advance(self._resampler.push(self._highpass.push(ingest(block))))

    def flush(self) -> FrontEndResult:
        """End the stream and return what is left of it."""
        taken = self._advance(self._resampler.flush())
        rest = tuple(self._with_onsets(window) for window in self._segmenter.flush())
        return FrontEndResult(taken.windows + rest, taken.onsets)

    def stream(self, samples: AnyArray, *, block_samples: int | None = None) -> Iterator[FrontEndResult]:
        """Push a whole stream, (n,) or (n, channels), in blocks (one block if None), and flush; yield each result."""
        for block in blocks(samples, block_samples):
            yield self.push(block)
        yield self.flush()

    def _advance(self, samples: Float32) -> FrontEndResult:
        self.samples_heard += samples.shape[0]
        onsets = () if self.known is None else tuple(self.known.until(self.samples_heard))
        once, decided_until = self._new(onsets), self.samples_heard
        if self.known is None or self.known.beside:
            found = self._onset_detector.push(samples)
            own, decided_until = tuple(o for o in found.onsets if not self._is_key(o)), found.decided_until
            onsets, once = (tuple(sorted((*some, *own), key=lambda o: o.decided_at)) for some in (onsets, once))
        while self._keys and self._keys[0].sample < decided_until - self._key_samples:
            self._keys.popleft()
        self._onsets.extend(once)
        windows = self._segmenter.push(samples, once, decided_until)
        return FrontEndResult(tuple(self._with_onsets(window) for window in windows), onsets)

    def _new(self, onsets: Iterable[Onset]) -> tuple[Onset, ...]:
        """Return known onsets without those that only add a pitch to the one before."""
        new = []
        for onset in onsets:
            if onset.sample > self._last_known:
                self._last_known = onset.sample
                self._keys.append(onset)
                new.append(onset)
        return tuple(new)

    def _is_key(self, onset: Onset) -> bool:
        """Return whether an onset that was found is that of a key; keys that come after its decision are not known yet."""
        return any(
            key.decided_at <= onset.decided_at and abs(key.sample - onset.sample) <= self._key_samples for key in self._keys
        )

    def _with_onsets(self, window: Window) -> Window:
        """Give a window the onsets decided by its end: the same ones whatever else the last block brought."""
        decided = [onset for onset in self._onsets if onset.decided_at <= window.available_at]
        self._onsets = self._onsets[len(decided) :]
        return replace(window, onset_samples=tuple(sorted(onset.sample for onset in decided)))


def blocks(samples: AnyArray, block_samples: int | None) -> Iterator[AnyArray]:
    """Yield consecutive blocks of `samples` along the first axis; all of it at once if `block_samples` is None."""
    size = block_samples or max(1, samples.shape[0])
    for first in range(0, samples.shape[0], size):
        yield samples[first : first + size]


@lru_cache(maxsize=1)
def _linear_filter() -> Callable[..., tuple[Float64, Float64]]:
    """Return what `scipy.signal.lfilter` calls, from its compiled module alone: all of `scipy.signal` takes 0.6 s to import."""
    found = PathFinder.find_spec("_sigtools", [str(Path(scipy.__file__).parent / "signal")])
    if found is not None and found.loader is not None:
        module = module_from_spec(found)
        found.loader.exec_module(module)
        if hasattr(module, "_linear_filter"):
            return module._linear_filter
    from scipy.signal import lfilter

    return lfilter


class HighPass:
    """A streaming high-pass that removes DC and rumble: one pole and one zero, no delay, independent of the blocks.

    y[n] = x[n] - x[n - 1] + r·y[n - 1] with r = 1 - 2π·cutoff / rate; the response is down by 3 dB at the cutoff, and 0 leaves
    the stream as it is. A constant offset is no sound, but would bias levels, low pitches and the shape of short windows.
    """

    def __init__(self, *, cutoff_hz: float, sample_rate_hz: int) -> None:
        self._filter = _linear_filter()
        self._pole = 1 - 2 * np.pi * cutoff_hz / sample_rate_hz if cutoff_hz else None
        self._state: Float64 | None = None

    def push(self, samples: Float32) -> Float32:
        """Return the next samples filtered, shape (n,)."""
        if self._pole is None or not samples.size:
            return samples
        if self._state is None:
            # The stream's first value counts as one that was always there, so that an offset makes no click at the start.
            self._state = np.array([-float(samples[0])])
        ahead, back = np.array([1.0, -1.0]), np.array([1.0, -self._pole])
        filtered, self._state = self._filter(ahead, back, samples.astype(np.float64), -1, self._state)
        return np.asarray(filtered, dtype=np.float32)


class Segmenter:
    """Collects samples at the spec's rate and hands out windows as soon as they are complete.

    `at_once` says that an onset is known with its own sample, not after the frames in which it is found.
    """

    def __init__(self, spec: PerceptionSpec, *, at_once: bool = False) -> None:
        self._spec, self._at_once = spec, at_once
        self._first_new = first_new_frame(spec)
        # The buffer begins `context` samples before the next segment; before the stream there is silence.
        self._buffer: Float32 = np.zeros(spec.context_samples, dtype=np.float32)
        self._start = 0
        self._index = 0
        self._onsets: deque[Onset] = deque()
        self._decided_until = 0
        self._ended = False
        self._available_at = 0

    def push(self, samples: Float32, onsets: Iterable[Onset] = (), decided_until: int = 0) -> list[Window]:
        """Take the next samples of the stream, shape (n,), and return the windows that are complete now.

        `onsets` were found since the last call, ascending; up to `decided_until` onsets are known, and only there a segment is
        cut. (Only the onset-synchronous policy uses them.)
        """
        self._buffer = np.concatenate([self._buffer, samples])
        if self._spec.policy == "onset":  # a grid would keep them for ever
            self._onsets.extend(onsets)
        self._decided_until = max(self._decided_until, decided_until)
        windows = []
        while (window := self._next()) is not None:
            windows.append(window)
        return windows

    def flush(self) -> list[Window]:
        """End the stream: return the windows of the rest, the last one zero-padded, as far as whole frames fit."""
        self._decided_until = self._end
        self._ended = True
        windows = self.push(np.zeros(0, dtype=np.float32))
        length = self._end - self._start
        if self._frames_in(length) > self._first_frame:
            windows.append(self._take(length, 0, available_at=self._end, lookahead=0))
        return windows

    @property
    def _end(self) -> int:
        return self._start - self._spec.context_samples + self._buffer.shape[0]

    @property
    def _first_frame(self) -> int:
        return self._first_new if self._index else 0

    def _frames_in(self, length: int) -> int:
        encoder = self._spec.encoder
        return frame_count(length, frame_samples=encoder.frame_samples, stride_samples=encoder.stride_samples)

    def _next(self) -> Window | None:
        spec = self._spec
        if spec.policy == "grid":
            return self._take_whole(spec.hop_samples, known_at=0)
        earliest = self._start + spec.min_segment_samples
        while self._onsets and self._onsets[0].sample < earliest:
            self._onsets.popleft()
        latest = self._start + spec.segment_samples
        if self._onsets and self._onsets[0].sample < latest and self._onsets[0].sample <= self._end:
            onset = self._onsets.popleft()
            length = onset.sample - self._start
            # What the onset begins is not seen by the segment that it ends.
            return self._take(length, length, available_at=onset.decided_at, lookahead=0)
        if min(self._decided_until, self._end) >= latest:
            known_at = latest if self._at_once else onsets_known_at(latest, spec.onsets)
            return self._take_whole(spec.segment_samples, known_at=known_at)
        return None

    def _take_whole(self, advance: int, *, known_at: int) -> Window | None:
        """Take a whole segment if it and its lookahead are there, or it and the end of the stream."""
        spec = self._spec
        end = self._start + spec.segment_samples
        complete = end + spec.lookahead_samples
        if self._end < (end if self._ended else complete):
            return None
        return self._take(spec.segment_samples, advance, available_at=max(complete, known_at), lookahead=spec.lookahead_samples)

    def _take(self, length: int, advance: int, *, available_at: int, lookahead: int) -> Window:
        spec = self._spec
        samples = np.zeros(spec.window_samples, dtype=np.float32)
        real = min(spec.context_samples + length + lookahead, self._buffer.shape[0])
        samples[:real] = self._buffer[:real]
        # Windows come in order: one that an onset cuts short may have to wait for the lookahead of the one before it.
        # What would have waited for its lookahead, or to know its onsets, is complete with the stream.
        self._available_at = max(self._available_at, min(available_at, self._end) if self._ended else available_at)
        window = Window(
            index=self._index,
            start_sample=self._start,
            length_samples=length,
            first_frame=self._first_frame,
            end_frame=self._frames_in(length),
            available_at=self._available_at,
            real_samples=real,
            samples=samples,
        )
        self._buffer = self._buffer[advance:]
        self._start += advance
        self._index += 1
        return window


def light_path_delay_s(spec: PerceptionSpec, *, source_rate_hz: int, block: int) -> tuple[float, float]:
    """Return the delay of the front end's resampler, at least and at most."""
    resampler = StreamResampler(source_rate_hz=source_rate_hz, target_rate_hz=spec.sample_rate_hz, quality=spec.resampler)
    silence, delays, given = np.zeros(block, dtype=np.float32), [], 0
    for number in range(1, max(16, round(_DELAY_S * source_rate_hz / block)) + 1):
        given += resampler.push(silence).shape[0]
        delays.append(number * block / source_rate_hz - given / spec.sample_rate_hz)
    settled = delays[len(delays) // 4 :]
    return max(0.0, min(settled)), max(0.0, *settled)


def input_latency_s(spec: PerceptionSpec, *, source_rate_hz: int, block: int, capture_s: float) -> float:
    """Return how much later than a sound at the microphone a decision at its time of the stream can be sent."""
    return light_path_delay_s(spec, source_rate_hz=source_rate_hz, block=block)[0] + capture_s
