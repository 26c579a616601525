"""Slices of a recording as they are asked for, one at a time, cross-faded: `render_slices` for a stage.

Conventions
-----------
Frames count samples of the output. A slice is at full level at its frame and fades in during the fade before, while what
sounds fades out; so it has to be asked for a fade ahead. What comes too late starts at once. Where slices run on in their
recording, it comes out unchanged; unlike `render_slices`, whose gains follow from the correlation of what is cross-faded,
other cross-fades are straight.

`start` and `stop` may be called by one thread while another calls `read`: what they ask for goes through a queue, and
`read` neither waits nor allocates more than its answer.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from musichal.arrays import Float32
from musichal.audio.concatenative import Slice, render_slices


@dataclass(frozen=True)
class _Source:
    """A slice at the beginning of a stream; see `musichal.audio.concatenative.Slice`."""

    onset_s: float
    duration_s: float
    recording: int
    source_start_s: float
    transposition_semitones: float
    gain: float


@dataclass
class _Sounding:
    first: int
    samples: Float32


class SlicePlayer:
    """Plays slices of mono `recordings`, pairs of samples (n,) and a rate in Hz, at `sample_rate_hz`."""

    def __init__(self, recordings: Sequence[tuple[Float32, int]], *, sample_rate_hz: int, fade_s: float = 0.01) -> None:
        self._recordings, self._rate_hz, self._fade_s = list(recordings), sample_rate_hz, fade_s
        self._fade = max(2, round(fade_s * sample_rate_hz))
        fall = 0.5 + 0.5 * np.cos(np.pi * (np.arange(self._fade) + 0.5) / self._fade)
        self._fall: Float32 = fall.astype(np.float32)
        self._asked: deque[_Sounding | int] = deque()
        self._sounding: list[_Sounding] = []
        self._position = 0

    @property
    def position(self) -> int:
        """The frame that `read` gives next."""
        return self._position

    def start(self, frame: int, piece: Slice) -> None:
        """Play a slice from `frame` on (its `onset_s` is not looked at). Raises `ValueError` for a recording there is not."""
        source = _Source(
            *(self._fade / self._rate_hz, piece.duration_s, piece.recording, piece.source_start_s),
            *(piece.transposition_semitones, piece.gain),
        )
        samples = render_slices([source], self._recordings, sample_rate_hz=self._rate_hz, fade_s=self._fade_s)
        self._asked.append(_Sounding(frame - self._fade, samples))

    def stop(self, frame: int) -> None:
        """Let what sounds have faded out at `frame`, or a fade from now where that is too late; drop what begins later."""
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
