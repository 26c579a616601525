"""The level of the metre: which of the pulses that are found in a recording is its beat.

A path through periods and phases finds *a* pulse surely, which is often half a beat, or lies between the beats. Each likely
period and phase in units of the found pulse is a candidate. What is heard at it, at its halves, thirds and quarters, how alike
it is one to four beats on (a backbeat alternates), whether kick and snare take turns, and the tempo make its score: a
conditional logit (McFadden, in Zarembka, *Frontiers in Econometrics*, 1974), fitted to songs of known beats by
`tools/train_beat_level.py`. With a whole recording in view, how alike beats and their parts are one to eight beats on, and how
often there are onsets at each part, count as well. Stretches of it are scored by themselves; the course of levels through them
counts whose beats are likely to meet most of the right ones, where a change has a cost.
"""

from collections.abc import Iterable
from functools import cache

import numpy as np
from scipy.ndimage import maximum_filter1d

from musichal.arrays import Bool, Float32, Float64, Int64, Rows
from musichal.hearing.beat_evidence import STEP_S
from musichal.hearing.metre import likeliest_course, log_chances
from musichal.hearing.model_weights import model_weights
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
PERIODS, PHASES = np.array(CANDIDATES).T
"""The same as two columns."""
PERIODS.setflags(write=False)
PHASES.setflags(write=False)
_ODD: Float64 = np.isin(PERIODS, (1.5, 3.0, 2 / 3)).astype(np.float64)
AS_FOUND = CANDIDATES.index((1.0, 0.0))
STRETCH, HOP = 40, 20
"""Found pulses that are scored together, and from one stretch to the next."""
_SHORTEST_S, _LONGEST_S = 0.25, 1.25
_FEWEST = 4  # beats of a candidate in a stretch
_CHANGE = 1.0  # nepers of the F-measure to be expected, against another level in the next stretch
_LAGS, _PATTERN_LAGS = (1, 2, 3, 4), (1, 2, 3, 4, 6, 8)
_SHARES = np.array([0.0, 0.5, 0.25, 0.75, 1 / 3, 2 / 3])  # of a beat, at which it is heard
# Columns of the evidence: percussive rises low, middle, high; rises of registers; chord change; rise of harmonic sound; onsets.
_GROUPS = ((0, 2), (2, 5), (5, 8), (8, 9), (9, 10), (10, 12), (16, 17), (17, 18), (23, 24))
_DRUM_OF_KEY = {36: 0, 38: 1, 42: 2, 46: 2, 49: 3}
N_DRUMS = 4
_BLOCK_STEPS = 1 << 15
N_FEATURES = (N_DRUMS + len(_GROUPS)) * (4 + len(_LAGS)) + 3 + 4
N_WHOLE = N_FEATURES + len(_PATTERN_LAGS) + len(_SHARES)
"""Features where a whole recording is in view."""
_SAME_PLACE = 0.14  # of a found pulse


def grouped(evidence: Float32) -> Float64:
    """Return the columns of what is heard in each step: a zero for each drum, then the mean of each group of the evidence."""
    out = np.zeros((len(evidence), N_DRUMS + len(_GROUPS)))
    for number, (a, b) in enumerate(_GROUPS, N_DRUMS):
        out[:, number] = evidence[:, a:b].mean(axis=1, dtype=np.float64)
    return out


def strokes_of(hits: Iterable[HeardNote]) -> Float64:
    """Return second, drum and strength of each hit of a drum that is told apart, (n, 3)."""
    strokes = [(hit.onset_s, _DRUM_OF_KEY[hit.pitch], hit.velocity / 127) for hit in hits if hit.pitch in _DRUM_OF_KEY]
    return np.array(strokes, dtype=np.float64).reshape(-1, 3)


def with_strokes(columns: Float64, strokes: Float64) -> Float64:
    """Return `columns` of `grouped`, changed in place: with strokes, and each the loudest within a step."""
    steps = (strokes[:, 0] / STEP_S).astype(int)
    inside = steps < len(columns)
    np.maximum.at(columns, (steps[inside], strokes[inside, 1].astype(int)), strokes[inside, 2])
    maximum_filter1d(columns, 3, axis=0, output=columns)
    return columns


def what_is_heard(evidence: Rows, hits: Iterable[HeardNote]) -> Float64:
    """Return what is heard in each step: drums struck, then groups of the evidence, each the loudest within a step."""
    out = np.empty((evidence.shape[0], N_DRUMS + len(_GROUPS)))
    for first in range(0, len(out), _BLOCK_STEPS):
        out[first : first + _BLOCK_STEPS] = grouped(evidence[first : first + _BLOCK_STEPS])
    return with_strokes(out, strokes_of(hits))


def features(heard: Float64, pulses_s: Float64, first: int, last: int, *, whole: bool = False) -> Float64:
    """Return the features of each candidate over pulses `first` to `last`; NaN where it is too fast, too slow or too short.

    Those of a `whole` recording are `N_WHOLE`, others the first `N_FEATURES` of them. All candidates are measured at once,
    (places, candidates): the shorter ones are filled up with zeros, which change no sum.
    """
    number, out = np.arange(len(pulses_s)), np.full((len(CANDIDATES), N_WHOLE if whole else N_FEATURES), np.nan)

    def at(places: Float64) -> Float64:
        steps = (np.interp(places, number, pulses_s) / STEP_S).astype(int)
        return np.asarray(heard.take(steps, axis=0, mode="clip"))

    usual = np.add.reduce(rows := at(np.arange(first, last, 0.25)), axis=0) / len(rows) + 1e-3
    begins, counts = _begins(first, last)
    lasts_s = PERIODS * ((pulses_s[last] - pulses_s[first]) / (last - first))
    usable = np.flatnonzero((counts >= _FEWEST) & (lasts_s >= _SHORTEST_S) & (lasts_s <= _LONGEST_S))
    if not len(usable):
        return out
    periods, counts, octaves = PERIODS[usable], counts[usable], np.log2(lasts_s[usable] / 0.5)
    place = np.arange(counts.max())[:, None]
    there = at(begins[usable] + periods * place + periods * _SHARES[:, None, None])
    there *= (inside := (place < counts)[..., None])
    n = counts[:, None]
    on, means = there[0] / usual, np.add.reduce(there, axis=1) / n
    usually = np.add.reduce(on, axis=0) / n
    parts = [usually, means[1] / usual, (means[2] + means[3]) / 2 / usual, (means[4] + means[5]) / 2 / usual]
    away = np.where(inside, on - usually, 0)
    varied = away / (np.sqrt(np.add.reduce(away * away, axis=0) / n) + 0.15)
    alike = [
        np.where(n > lag + 1, np.add.reduce(varied[lag:] * varied[:-lag], axis=0) / np.maximum(1, n - lag), 0) for lag in _LAGS
    ]
    kick, snare = varied[..., 0], varied[..., 1]
    turns = [np.add.reduce(kick[lag:] * snare[: len(snare) - lag], axis=0) / (counts - lag) for lag in (0, 1, 2)]
    tempo = [octaves, octaves**2, np.abs(octaves) ** 3, _ODD[usable]]
    more = [*_patterns(there[:4] / usual, inside, counts), *means[..., -1]] if whole else []
    out[usable] = np.concatenate([*np.log1p(parts), *alike, np.stack([*turns, *tempo, *more], axis=1)], axis=1)
    return out


def _patterns(there: Float64, inside: Bool, counts: Int64) -> list[Float64]:
    """Return how alike beats with their parts, (parts, beats, candidates, n), are to those one to eight beats on."""
    rows = np.concatenate(list(there), axis=-1)
    rows = np.where(inside, rows - np.add.reduce(rows, axis=0) / counts[:, None], 0)
    rows /= np.sqrt(np.add.reduce(rows * rows, axis=-1, keepdims=True)) + 0.3
    sums = [np.add.reduce(rows[lag:] * rows[: max(0, len(rows) - lag)], axis=(0, 2)) for lag in _PATTERN_LAGS]
    return [np.where(counts > lag + 1, a / np.maximum(1, counts - lag), 0) for lag, a in zip(_PATTERN_LAGS, sums, strict=True)]


def _begins(first: float, last: float) -> tuple[Float64, Int64]:
    """Return each candidate's first beat from `first` on, in found pulses, and how many it has before `last`."""
    begins = np.ceil((first - PHASES) / PERIODS - 1e-6) * PERIODS + PHASES
    return begins, np.maximum(0, np.ceil((last - begins) / PERIODS - 1e-6)).astype(np.int64)


def places_of(candidate: int, first: float, last: float) -> Float64:
    """Return where the beats of a candidate are from `first` on and before `last`, in found pulses."""
    begins, counts = _begins(first, last)
    return np.asarray(begins[candidate] + PERIODS[candidate] * np.arange(counts[candidate]))


def log_likelihood(of: Float64) -> Float64:
    """Return the logarithm of how likely each candidate with these features is the beat."""
    kind = "" if of.shape[1] == N_FEATURES else "whole_"
    weights = model_weights("beat_level", {f"{kind}weights": of.shape[1]})
    scores = (np.where(np.isnan(of), 0, of) - weights[f"{kind}offsets"]) @ weights[f"{kind}weights"]
    return log_chances(np.where(np.isnan(of[:, 0]), -np.inf, scores))


@cache
def _agreement() -> Float64:
    """Return the F-measure of each candidate's beats (rows) where those of another (columns) are right."""
    places = [places_of(row, 0, 12 * STRETCH) for row in range(len(CANDIDATES))]
    same = [[np.count_nonzero(np.abs(a[:, None] - b).min(axis=1) < _SAME_PLACE) for b in places] for a in places]
    counts = np.array([len(a) for a in places])
    return np.asarray(2 * np.array(same) / (counts[:, None] + counts))


def beat_places(heard: Float64, pulses_s: Float64) -> Float64:
    """Return where the beats are, in found pulses, ascending."""
    count = len(pulses_s)
    firsts = list(range(0, max(1, count - HOP), HOP))
    spans = [(first, min(count - 1, first + STRETCH)) for first in firsts]
    if count <= HOP // 2:
        return np.arange(count, dtype=np.float64)
    of = [features(heard, pulses_s, *span, whole=True) for span in spans]
    expected = np.array([np.where(np.isnan(row[:, 0]), 0, _agreement() @ np.exp(log_likelihood(row))) for row in of])
    chosen = likeliest_course(np.log(np.maximum(expected, 1e-9)), _CHANGE)
    places = [places_of(row, a, b) for row, a, b in zip(chosen, firsts, [*firsts[1:], count - 0.75], strict=True)]
    whole = np.concatenate(places)
    # Where one level takes over from another, no beat comes too soon.
    return whole[np.r_[True, np.diff(whole) > 0.4]]
