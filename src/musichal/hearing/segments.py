"""Cutting a stream into segments, each with its left context.

On the grid, segment k starts at k·hop. Onset-synchronously, a segment starts where the one before ended, or earlier, at an
onset: the segment that the onset cuts short keeps the frames that fit before it. Either way the cuts depend on the stream
alone, never on the blocks in which it arrived.
"""

from collections import deque
from collections.abc import Iterable

import numpy as np

from musichal.arrays import Float32
from musichal.hearing.frames import first_new_frame, frame_count
from musichal.hearing.onsets import onsets_known_at
from musichal.hearing.percepts import Onset, Window
from musichal.spec import PerceptionSpec


class Segmenter:
    """Collects samples at the spec's rate and hands out windows as soon as they are complete."""

    def __init__(self, spec: PerceptionSpec) -> None:
        self._spec = spec
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

        Parameters
        ----------
        samples : array of shape (n,)
        onsets : iterable of Onset
            Found since the last call, ascending (used by the onset-synchronous policy only).
        decided_until : int
            Up to where in the stream onsets are known; a segment is only cut where they are.
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
            return self._take_whole(spec.segment_samples, known_at=onsets_known_at(latest, spec.onsets))
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
