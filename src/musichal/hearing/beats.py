"""Beats: the pulse of what is heard.

The beat is a hidden variable, period and phase on a grid of frames. Its posterior is filtered forwards only, so that every
beat is *predicted* (the state space of Krebs, Böck & Widmer, An efficient state-space model for joint tempo and meter
tracking, ISMIR 2015: one state per frame of a beat; tempo changes on the beat alone, large ones are unlikely). Observed are
onsets, weighed by how much they stand out: likeliest on the beat, less so on its half and its quarters. The prior of the
period is the resonance curve around 0.5 s (van Noorden & Moelants, J. New Music Research 28(1), 1999).
"""

import math
from collections import deque
from collections.abc import Iterable

import numpy as np

from musichal.arrays import Float64, Records
from musichal.hearing.percepts import Percept, SegmentFeatures
from musichal.pulse import Pulse

BEAT = np.dtype([("time_s", np.float64), ("confidence", np.float32), ("bar_place", np.int8)])
"""One beat of a grid: when, how sure (0 to 1), and its place in the bar: 0 for the first beat, -1 where it is not known."""

SHORTEST_BEAT_S, LONGEST_BEAT_S = 0.3, 0.8
"""Periods that the tracker considers: little more than an octave, so that one level of the metre is preferred."""
_FRAME_S, _USUAL_S = 0.01, 0.5
_TEMPO_RIGIDITY = 120.0  # rate at which a relative change of tempo from beat to beat becomes unlikely
# So many times likelier is an onset of strength 1 there, within the width; and what a beat without an onset speaks against it.
_ON_BEAT, _ON_HALF, _ON_QUARTER, _WIDTH_S, _MISSING = 6.0, 2.5, 0.8, 0.025, 0.02


class BeatTracker:
    """Follows the beat: `hear` takes percepts, `advance` onsets, each up to a time until which all onsets are known."""

    def __init__(self) -> None:
        lengths = np.arange(round(SHORTEST_BEAT_S / _FRAME_S), round(LONGEST_BEAT_S / _FRAME_S) + 1)
        phase = np.arange(lengths[-1])
        self._lengths = lengths
        inside = phase[None, :] < lengths[:, None]
        log_ratio = np.log2(lengths * _FRAME_S / _USUAL_S)
        prior = np.exp(-0.5 * (log_ratio / 0.6) ** 2)
        self._posterior: Float64 = inside * (prior / lengths)[:, None]
        self._posterior /= self._posterior.sum()
        change = np.exp(-_TEMPO_RIGIDITY * np.abs(lengths[None, :] / lengths[:, None] - 1)) * prior[None, :] ** 0.02
        self._change: Float64 = change / change.sum(axis=1, keepdims=True)
        part = phase[None, :] / lengths[:, None]

        def near(*places: float) -> Float64:
            away = np.min([np.abs((part - p + 0.5) % 1 - 0.5) for p in places], axis=0) * lengths[:, None] * _FRAME_S
            return np.exp(-0.5 * (away / _WIDTH_S) ** 2)

        self._unstruck: Float64 = 1 - _MISSING * (near(0.0) * inside)
        bumps = _ON_BEAT * near(0.0) + _ON_HALF * near(0.5) + _ON_QUARTER * near(0.25, 0.75)
        # The mean over a period is 1 for every period: no tempo is likelier for the mere number of onsets.
        likelihood = (1 + bumps) * inside
        # Each place is so much likelier with an onset of full strength: times 1 + that.
        self._struck: Float64 = np.where(inside, likelihood / (likelihood.sum(axis=1) / lengths)[:, None], 0) - 1
        # Places in the posterior, one row after the other: the last of each beat, and those behind it.
        self._last = np.arange(len(lengths)) * lengths[-1] + lengths - 1
        self._behind = self._last[:-1] + 1
        self._frame = 0
        self._waiting: deque[tuple[int, float]] = deque()
        self._known: deque[float] = deque(maxlen=64)
        self._loudest = 1e-6
        self._onsets_seen = 0

    def hear(self, percept: Percept, *, sample_rate_hz: int) -> None:
        """Take a percept: its onsets, each as strong as the level rises there, in what is percussive most of all."""
        heard = percept.heard
        times = heard.frame_samples / sample_rate_hz
        end_s = (heard.start_sample + heard.length_samples) / sample_rate_hz
        levels = np.maximum(heard.source_level_db[1], heard.level_db - 12)
        onsets = []
        for sample in heard.onset_samples:
            onset_s = sample / sample_rate_hz
            around = levels[(times >= onset_s - 0.01) & (times <= onset_s + 0.06)]
            power = 10 ** (float(around.max()) / 20) if len(around) else self._loudest / 2
            self._loudest = max(power, 0.97 * self._loudest)
            onsets.append((onset_s, min(1.0, power / self._loudest)))
        self.advance(onsets, until_s=end_s)

    def advance(self, onsets: list[tuple[float, float]], *, until_s: float) -> None:
        """Move on to `until_s`, past `onsets`: (second, strength from 0 to 1) each, in order."""
        self._waiting.extend((round(onset_s / _FRAME_S), strength) for onset_s, strength in onsets)
        last = math.floor(until_s / _FRAME_S)
        while self._frame < last:
            strength = 0.0
            while self._waiting and self._waiting[0][0] <= self._frame:
                strength = max(strength, self._waiting.popleft()[1])
            self._step(strength)

    def pulse(self) -> Pulse | None:
        """Return the beat as it stands, None before there was an onset.

        The confidence is the share of the posterior that agrees: within 4 % of the period and an eighth of a beat.
        """
        if self._onsets_seen < 2:
            return None
        row, column = np.unravel_index(int(np.argmax(self._smooth())), self._posterior.shape)
        length = int(self._lengths[row])
        rows = np.abs(self._lengths / length - 1) <= 0.04
        near = self._posterior[rows]
        mass = near.sum()
        parts = (np.arange(near.shape[1])[None, :] / self._lengths[rows][:, None] - column / length + 0.5) % 1 - 0.5
        agree = near * (np.abs(parts) <= 0.125)
        confidence = float(agree.sum())
        if confidence <= 0 or mass <= 0:
            return None
        period = float((agree.sum(axis=1) * self._lengths[rows]).sum() / confidence)
        part = column / length + float((agree * parts).sum()) / confidence
        # The posterior is that of the frame before the present one.
        return Pulse((self._frame - 1) * _FRAME_S - part * period * _FRAME_S, period * _FRAME_S, min(1.0, confidence))

    def _smooth(self) -> Float64:
        padded = np.pad(self._posterior, ((2, 2), (0, 0)))
        return padded[:-4] + padded[1:-3] + padded[2:-2] + padded[3:-1] + padded[4:]

    def _step(self, strength: float) -> None:
        posterior = self._posterior
        first = posterior.ravel().take(self._last) @ self._change
        moved = np.empty_like(posterior)
        # All rows at once, as one: what comes to a row's first place from the row before it is overwritten.
        moved.ravel()[1:] = posterior.ravel()[:-1]
        moved.ravel()[self._behind] = 0  # what went past the end of a beat starts the next one
        moved[:, 0] = first
        if strength > 0:
            moved *= 1 + strength * self._struck
            self._onsets_seen += 1
        else:
            moved *= self._unstruck
        moved /= moved.sum()
        self._posterior = moved
        self._frame += 1


def predicted_beats(percepts: Iterable[Percept], *, sample_rate_hz: int) -> Float64:
    """Return the beats of a performance, each as it was predicted before it was heard, shape (n,), in seconds."""
    tracker = BeatTracker()
    beats: list[float] = []
    pulse: Pulse | None = None
    heard_s = 0.0
    for percept in percepts:
        now_s = percept.heard.available_at / sample_rate_hz
        if pulse is not None:
            beat_s = pulse.next_s(heard_s)
            while beat_s < now_s:
                if not beats or beat_s - beats[-1] > 0.6 * pulse.period_s:
                    beats.append(beat_s)
                beat_s += pulse.period_s
        tracker.hear(percept, sample_rate_hz=sample_rate_hz)
        pulse, heard_s = tracker.pulse(), now_s
    return np.array(beats)


def find_beats(segments: Iterable[SegmentFeatures], *, sample_rate_hz: int) -> Records:
    """Return the beats of a whole recording, `BEAT` of shape (n,), ascending; none where there is no steady beat."""
    del segments, sample_rate_hz
    return np.zeros(0, dtype=BEAT)
