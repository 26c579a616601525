"""Evidence for beats: what rises and changes in what is heard, in steps of 20 ms, and what a network makes of it.

It is made of what a front end always gives, whatever its encoder: levels, salience, chroma and onsets; and of the rise of
percussive bands where the encoder is the embedded one. All of it is relative to the loudest of the last seconds, which fades,
and none of it looks ahead: a step is complete once what was heard reaches `SETTLE_S` behind its end.

The network says how likely a step is a beat, half a beat, or a bar's first beat. One gated recurrent layer (Cho et al., EMNLP
2014) reads evidence forwards only, as in Böck, Krebs & Widmer, ISMIR 2014. `tools/train_beats.py` trained it, on rendered songs
of known beats, to answer `DELAY_S` late, when the attack has been heard whole.
"""

import math
from itertools import pairwise

import numpy as np
from scipy.ndimage import maximum_filter1d

from musichal.arrays import Float32, Float64
from musichal.hearing.model_weights import model_weights
from musichal.hearing.percepts import N_PITCHES, SegmentFeatures

STEP_S = 0.02
SETTLE_S = 0.04
"""An onset is decided so much after it at most."""
LONGEST_GAP_S = 20.0
"""A longer gap is passed over: to go through an hour of it would take ten seconds."""
_MEL_BANDS, _MEL_GROUPS = 40, 8
_REGISTERS = (0, 12, 24, 40, N_PITCHES)
_LAG = 3  # frames over which a rise is measured
_LONG_LAG = 12  # frames, less those of the lag, that a chord change is measured against
_FADE_PER_S = 0.07  # nepers a second that the loudest of each kind fades
_SALIENCE_GAIN = 20.0
_QUIETEST_SALIENCE, _QUIETEST_RISE, _QUIETEST_DB = 1e-4, 0.05, -70.0
N_KINDS = _MEL_GROUPS + 2 * (len(_REGISTERS) - 1) + 1 + 3 + 3 + 1
"""Kinds of evidence: percussive rises, rises and levels of registers, chord change, rises and levels of sources, onsets."""
PERCUSSIVE = slice(0, _MEL_GROUPS)
"""Those that only the embedded encoder gives."""
ONSET = N_KINDS - 1
DELAY_S = 2 * STEP_S
"""How late the network answers."""


class BeatEvidence:
    """Turns segments into steps of evidence, each of shape (N_KINDS,)."""

    def __init__(self) -> None:
        self._log_loudest = np.log([_QUIETEST_SALIENCE, _QUIETEST_RISE, 10 ** (_QUIETEST_DB / 20)])
        self._before: tuple[Float64, ...] | None = None
        self._open: Float64 = np.zeros((0, N_KINDS))
        self._done = 0
        self._last = np.zeros(N_KINDS)

    def hear(self, segment: SegmentFeatures, *, sample_rate_hz: int) -> Float32:
        """Take the next segment; return the steps that it completed, (n, N_KINDS); step k begins at k · `STEP_S`."""
        end_s = (segment.start_sample + segment.length_samples) / sample_rate_hz
        end = max(self._done, math.floor((end_s - SETTLE_S) / STEP_S + 1e-9))
        kinds = self._kinds(segment) if len(segment.frame_samples) else np.zeros((0, N_KINDS))
        steps = np.floor(segment.frame_samples / sample_rate_hz / STEP_S).astype(int) - self._done
        onsets = [math.floor(sample / sample_rate_hz / STEP_S) - self._done for sample in segment.onset_samples]
        size = max([end - self._done, len(self._open), *(steps + 1), *(o + 1 for o in onsets)])
        held = np.full((size, N_KINDS), -1.0)
        held[: len(self._open)] = self._open
        np.maximum.at(held, np.maximum(steps, 0), kinds)
        for onset in onsets:
            held[max(0, onset), ONSET] = 1.0
        count = end - self._done
        out = held[:count].copy()
        # Between frames, and in what was lost, levels hold and nothing rises.
        for number in np.flatnonzero((out < 0).any(axis=1)).tolist():
            before = out[number - 1] if number else self._last
            out[number] = np.where(out[number] < 0, np.where(_HOLDS, before, 0), out[number])
        self._last = out[-1] if count else self._last
        self._open, self._done = held[count:], end
        return out.astype(np.float32)

    def pass_over(self, segment: SegmentFeatures, *, sample_rate_hz: int) -> int:
        """Leave out a gap before a segment that is longer than `LONGEST_GAP_S`; return how many steps."""
        lost = math.floor(segment.start_sample / sample_rate_hz / STEP_S) - self._done
        if lost * STEP_S <= LONGEST_GAP_S:
            return 0
        self._done += lost
        self._open, self._last, self._before = np.zeros((0, N_KINDS)), np.zeros(N_KINDS), None
        return lost

    def _kinds(self, segment: SegmentFeatures) -> Float64:
        n = len(segment.frame_samples)
        seconds = np.arange(1, n + 1) * (STEP_S / 1.5)
        salience = segment.salience.astype(np.float64)
        percussive = segment.features[1] if segment.features else np.zeros((n, 0))
        rises = np.zeros((n, _MEL_GROUPS))
        if percussive.shape[1] == 2 * _MEL_BANDS:
            rises = percussive[:, _MEL_BANDS:].astype(np.float64).reshape(n, _MEL_GROUPS, -1).mean(axis=2)
        levels = np.stack([*segment.source_level_db, segment.level_db], axis=1).astype(np.float64)
        levels = np.maximum(levels, _QUIETEST_DB)
        loudest = []
        for number, values in enumerate((salience.max(axis=1), rises.max(axis=1), 10 ** (levels[:, 2] / 20))):
            fading = np.log(np.maximum(values, 1e-9)) + _FADE_PER_S * seconds
            log_loudest = np.maximum(np.maximum.accumulate(fading), self._log_loudest[number]) - _FADE_PER_S * seconds
            self._log_loudest[number] = max(log_loudest[-1], _FLOORS[number])
            loudest.append(np.exp(np.maximum(log_loudest, _FLOORS[number])))
        relative = np.log1p(_SALIENCE_GAIN * salience / loudest[0][:, None])
        level = np.clip(1 + (levels - 20 * np.log10(loudest[2])[:, None]) / 60, 0, 1.2)
        now = (relative, segment.chroma.astype(np.float64), level)
        past = self._before or tuple(np.zeros((_LONG_LAG, x.shape[1])) for x in now)
        whole = [np.concatenate([old, new]) for old, new in zip(past, now, strict=True)]
        self._before = tuple(x[-_LONG_LAG:] for x in whole)
        back = slice(_LONG_LAG - _LAG, _LONG_LAG - _LAG + n)
        risen = np.maximum(0, relative - maximum_filter1d(whole[0][back], 3, axis=1))
        parts = list(pairwise(_REGISTERS))
        flux = np.stack([risen[:, a:b].sum(axis=1) for a, b in parts], axis=1) / 8
        register = np.stack([relative[:, a:b].max(axis=1) for a, b in parts], axis=1) / 3
        sums = np.cumsum(np.concatenate([np.zeros((1, 12)), whole[1]]), axis=0)
        here = np.arange(n) + _LONG_LAG + 1
        recent, old = sums[here] - sums[here - _LAG], sums[here - _LAG] - sums[here - _LONG_LAG]
        change = 1 - (recent * old).sum(axis=1) / np.maximum(1e-9, np.sqrt((recent**2).sum(axis=1) * (old**2).sum(axis=1)))
        change = np.where((recent.sum(axis=1) > 0) & (old.sum(axis=1) > 0), change, 0) * level[:, 2]
        rise = np.clip((level - whole[2][back]) * 3, 0, 1)
        percussive_rise = rises / loudest[1][:, None]
        return np.concatenate([percussive_rise, flux, register, change[:, None], rise, level, np.zeros((n, 1))], axis=1)


_FLOORS = np.log([_QUIETEST_SALIENCE, _QUIETEST_RISE, 10 ** (_QUIETEST_DB / 20)])
_HOLDS = np.zeros(N_KINDS, dtype=bool)
_HOLDS[_MEL_GROUPS + 4 : _MEL_GROUPS + 8] = True
_HOLDS[-4:-1] = True


class BeatNetwork:
    """Turns steps of evidence into probabilities."""

    def __init__(self) -> None:
        kept = model_weights("beat", {"input": N_KINDS})
        names = ("input", "recurrent", "input_bias", "recurrent_bias", "output", "output_bias")
        self._weights = tuple(kept[name] for name in names)
        self._state: Float32 = np.zeros(len(kept["recurrent"]), dtype=np.float32)

    def push(self, evidence: Float32) -> Float32:
        """Take the next steps (n, kinds); return probabilities (n, 3): of a beat, of half a beat, of a bar's first beat."""
        inward, recurrent, inward_bias, recurrent_bias, outward, outward_bias = self._weights
        size = len(self._state)
        # One step at a time, so that a result does not depend on how many come at once.
        states = np.empty((len(evidence), size), dtype=np.float32)
        for number, step in enumerate(evidence):
            drive = step @ inward + inward_bias
            own = self._state @ recurrent + recurrent_bias
            gates = 1 / (1 + np.exp(-(drive[: 2 * size] + own[: 2 * size])))
            new = np.tanh(drive[2 * size :] + gates[:size] * own[2 * size :])
            self._state = states[number] = new + gates[size:] * (self._state - new)
        logits = np.array([state @ outward + outward_bias for state in states]).reshape(-1, outward.shape[1])
        return np.asarray(1 / (1 + np.exp(-logits)), np.float32)
