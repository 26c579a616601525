"""The level of the metre: which of the pulses that are found in a recording is its beat.

A path through periods and phases finds *a* pulse surely, which is often half a beat, or lies between the beats. Each likely
period and phase in units of the found pulse is a candidate. What is heard at it, at its halves, thirds and quarters, how alike
it is one to four beats on (a backbeat alternates), whether kick and snare take turns, and the tempo make its score: a
conditional logit (McFadden, in Zarembka, *Frontiers in Econometrics*, 1974), fitted to songs of known beats by
`tools/train_beat_level.py`. Stretches of the recording are scored by themselves; the likeliest course of levels through them
counts, where a change has a cost.
"""

from functools import cache
from importlib.resources import files

import numpy as np
from safetensors.numpy import load
from scipy.ndimage import maximum_filter1d

from musichal.arrays import Float64, Rows
from musichal.hearing.beat_evidence import STEP_S
from musichal.hearing.metre import likeliest_course, log_chances
from musichal.note import HeardNote

CANDIDATES = tuple(
    (period, phase)
    for period, phases in (
        (0.5, (0.0,)),
        (2 / 3, (0.0, 1 / 3)),
        (1.0, (0.0, 0.5)),
        (1.5, (0.0, 0.5, 1.0)),
        (2.0, (0.0, 0.5, 1.0, 1.5)),
        (3.0, (0.0, 1.0, 2.0)),
    )
    for phase in phases
)
"""Period and phase of each candidate, in found pulses."""
AS_FOUND = CANDIDATES.index((1.0, 0.0))
STRETCH, HOP = 40, 20
"""Found pulses that are scored together, and from one stretch to the next."""
_SHORTEST_S, _LONGEST_S = 0.25, 1.25
_FEWEST = 4  # beats of a candidate in a stretch
_CHANGE = 6.0  # nepers against another level in the next stretch
_LAGS = (1, 2, 3, 4)
_SHARES = np.array([0.0, 0.5, 0.25, 0.75, 1 / 3, 2 / 3])  # of a beat, at which it is heard
# Columns of the evidence: percussive rises low, middle, high; rises of registers; chord change; rise of harmonic sound; onsets.
_GROUPS = ((0, 2), (2, 5), (5, 8), (8, 9), (9, 10), (10, 12), (16, 17), (17, 18), (23, 24))
_DRUM_OF_KEY = {36: 0, 38: 1, 42: 2, 46: 2, 49: 3}
_N_DRUMS = 4
_BLOCK_STEPS = 1 << 15
N_FEATURES = (_N_DRUMS + len(_GROUPS)) * (4 + len(_LAGS)) + 3 + 4


def what_is_heard(evidence: Rows, hits: list[HeardNote]) -> Float64:
    """Return what is heard in each step: drums struck, then groups of the evidence, each the loudest within a step."""
    count = evidence.shape[0]
    out = np.zeros((count, _N_DRUMS + len(_GROUPS)))
    for hit in hits:
        step = int(hit.onset_s / STEP_S)
        if hit.pitch in _DRUM_OF_KEY and step < count:
            drum = _DRUM_OF_KEY[hit.pitch]
            out[step, drum] = max(out[step, drum], hit.velocity / 127)
    for first in range(0, count, _BLOCK_STEPS):
        block = evidence[first : first + _BLOCK_STEPS]
        for number, (a, b) in enumerate(_GROUPS, _N_DRUMS):
            out[first : first + len(block), number] = block[:, a:b].mean(axis=1, dtype=np.float64)
    for column in out.T:
        column[:] = maximum_filter1d(column, 3)
    return out


def features(heard: Float64, pulses_s: Float64, first: int, last: int) -> Float64:
    """Return the features of each candidate over pulses `first` to `last`; NaN where it is too fast, too slow or too short."""
    number, out = np.arange(len(pulses_s)), np.full((len(CANDIDATES), N_FEATURES), np.nan)

    def at(places: Float64) -> Float64:
        steps = (np.interp(places, number, pulses_s) / STEP_S).astype(int)
        return np.asarray(heard.take(steps, axis=0, mode="clip"))

    usual = _mean(at(np.arange(first, last, 0.25))) + 1e-3
    pulse_s = (pulses_s[last] - pulses_s[first]) / (last - first)
    for row, (period, _) in enumerate(CANDIDATES):
        places = places_of(row, first, last)
        if len(places) < _FEWEST or not _SHORTEST_S <= period * pulse_s <= _LONGEST_S:
            continue
        there = at((places + period * _SHARES[:, None]).ravel()).reshape(len(_SHARES), len(places), -1)
        on, means = there[0] / usual, np.add.reduce(there, axis=1) / len(places)
        parts = [_mean(on), means[1] / usual, _mean(means[2:4]) / usual, _mean(means[4:]) / usual]
        away = on - parts[0]
        varied = away / (np.sqrt(_mean(away * away)) + 0.15)
        alike = [_mean(varied[lag:] * varied[: len(on) - lag]) if len(on) > lag + 1 else 0 * usual for lag in _LAGS]
        kick, snare = varied[:, 0], varied[:, 1]
        turns = [_mean(kick[lag:] * snare[: len(on) - lag]) for lag in (0, 1, 2)]
        octaves = np.log2(period * pulse_s / 0.5)
        tempo = [octaves, octaves**2, abs(octaves) ** 3, float(period in {1.5, 3.0, 2 / 3})]
        out[row] = np.concatenate([*np.log1p(parts), *alike, turns, tempo])
    return out


def _mean(rows: Float64) -> Float64:
    """Return the mean over the first axis: bit for bit that of `numpy.mean`, which takes five times as long here."""
    return np.asarray(np.add.reduce(rows, axis=0) / len(rows))


def places_of(candidate: int, first: float, last: float) -> Float64:
    """Return where the beats of a candidate are from `first` on and before `last`, in found pulses."""
    period, phase = CANDIDATES[candidate]
    begin = np.ceil((first - phase) / period - 1e-6) * period + phase
    return np.asarray(begin + period * np.arange(max(0, int(np.ceil((last - begin) / period - 1e-6)))))


@cache
def _weights() -> tuple[Float64, Float64]:
    kept = load((files("musichal.hearing") / "beat_level_model.safetensors").read_bytes())
    return kept["weights"].astype(np.float64), kept["offsets"].astype(np.float64)


def log_likelihood(of: Float64) -> Float64:
    """Return the logarithm of how likely each candidate with these features is the beat."""
    weights, offsets = _weights()
    return log_chances(np.where(np.isnan(of[:, 0]), -np.inf, (np.nan_to_num(of) - offsets) @ weights))


def beat_places(heard: Float64, pulses_s: Float64) -> Float64:
    """Return where the beats are, in found pulses, ascending."""
    count = len(pulses_s)
    firsts = list(range(0, max(1, count - HOP), HOP))
    spans = [(first, min(count - 1, first + STRETCH)) for first in firsts]
    if count <= HOP // 2:
        return np.arange(count, dtype=np.float64)
    scores = np.array([log_likelihood(features(heard, pulses_s, *span)) for span in spans])
    chosen = likeliest_course(np.maximum(scores, -50.0), _CHANGE)
    places = [places_of(row, a, b) for row, a, b in zip(chosen, firsts, [*firsts[1:], count - 0.75], strict=True)]
    whole = np.concatenate(places)
    # Where one level takes over from another, no beat comes too soon.
    return whole[np.r_[True, np.diff(whole) > 0.4]]
