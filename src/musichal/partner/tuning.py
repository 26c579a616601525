"""The player's tuning: how far it lies off A4 = 440 Hz, and their harmony as if it did not.

The front end says how strong partials are on semitones and on the thirds between them. As an angle that is how many cents the
player is off (Dressler & Streich, "Tuning frequency estimation using circular statistics", ISMIR 2007). Chroma is given on the
semitones and a third below and above them; what lies between is interpolated. Tokens, notes and features stay as they were
heard. A whole semitone off is another key and needs no correction.
"""

import dataclasses

import numpy as np

from musichal.arrays import Float32, Float64, rounded_number
from musichal.hearing.percepts import Gesture, Percept

_THIRDS = np.exp(2j * np.pi * np.arange(3) / 3)
_FADES_S = 6.0
_SURE = 0.08  # so much of the three together must point one way: of instruments 0.18 to 0.45 does, of noise 0.02
_LEAST_HEARD_S = 1.0
_OFF_CENTS, _IN_TUNE_CENTS = 30.0, 22.0  # from here on it is corrected, and below this no more: less is heard as well without
_FARTHEST_CENTS = 60.0  # it may drift so far before another semitone is nearer
_FRAMES = 1024


class PlayerTuning:
    """Follows the tuning of a player; `cents` is how far it is corrected, 0 for one who is in tune."""

    def __init__(self, *, sample_rate_hz: int) -> None:
        self._rate_hz = sample_rate_hz
        self._pointing = 0j
        self._size = 0.0
        self._heard_s = 0.0
        self._times_s: Float64 = np.zeros(0)
        self._changes: Float32 = np.zeros((0, 12), dtype=np.float32)
        self.cents = 0.0

    def corrected(self, percept: Percept, chroma: Float32) -> Percept:
        """Return a percept with the harmony that it has at 440 Hz; `chroma` (n, 12) is as it was heard, with our own sound."""
        heard = percept.heard
        if heard.chroma_beside is None or heard.thirds is None or not len(chroma):
            return percept
        lower, higher = heard.chroma_beside
        audible, lasted_s = heard.audible.any(axis=0), heard.length_samples / self._rate_hz
        self._follow(heard.thirds[audible].sum(axis=0, dtype=np.float64), heard_s=float(audible.mean()) * lasted_s)
        changes = np.zeros_like(chroma)
        if self.cents:
            changes = _between(lower, chroma, higher, 3 * self.cents / 100) - chroma
        self._times_s = np.concatenate([self._times_s, heard.frame_samples / self._rate_hz])[-_FRAMES:]
        self._changes = np.concatenate([self._changes, changes])[-_FRAMES:]
        if not self._changes.any():
            return percept
        corrected = dataclasses.replace(heard, chroma=np.maximum(heard.chroma + changes, 0))
        return dataclasses.replace(percept, heard=corrected, gestures=tuple(map(self._gesture, percept.gestures)))

    def _follow(self, totals: Float64, *, heard_s: float) -> None:
        """Take how strong partials on the semitones and thirds were in so long, shape (3,)."""
        fade = float(np.exp(-heard_s / _FADES_S))
        self._pointing = self._pointing * fade + complex(_THIRDS @ totals)
        self._size = self._size * fade + float(totals.sum())
        self._heard_s += heard_s
        points, needed = rounded_number(abs(self._pointing)), rounded_number(_SURE * self._size)
        if self._heard_s < _LEAST_HEARD_S or points < needed:
            return
        cents = rounded_number(100 * float(np.angle(self._pointing)) / (2 * np.pi))
        # The nearest to what it was: a quarter tone off, it must not change sides.
        nearest = cents + 100 * round((self.cents - cents) / 100)
        cents = nearest if abs(nearest) <= _FARTHEST_CENTS else cents
        self.cents = cents if abs(cents) >= (_IN_TUNE_CENTS if self.cents else _OFF_CENTS) else 0.0

    def _gesture(self, gesture: Gesture) -> Gesture:
        own = (self._times_s >= gesture.start_s) & (self._times_s < gesture.start_s + gesture.duration_s)
        if not own.any():
            return gesture
        return dataclasses.replace(gesture, chroma=np.maximum(gesture.chroma + self._changes[own].mean(axis=0), 0))


def _between(lower: Float32, on: Float32, higher: Float32, thirds: float) -> Float32:
    """Return chroma so many thirds of a semitone above the semitones, at most two, interpolated."""
    # Two thirds above one semitone is a third below the next.
    grid = [np.roll(higher, 1, axis=1), lower, on, higher, np.roll(lower, -1, axis=1)]
    below = min(int(np.floor(thirds)), 1)
    part = np.float32(thirds - below)
    return (1 - part) * grid[below + 2] + part * grid[below + 3]
