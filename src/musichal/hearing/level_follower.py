"""The level of the metre while the music plays: which of the pulses that a tracker may follow is the beat.

A tracker follows *a* pulse surely, which may be half a beat or two, or lie between the beats. With each of its beats, the
candidates of `musichal.hearing.beat_level` are scored by what was heard at the last ones. Scores add up and are forgotten: they
are a running mean over some 16 beats. Where what was played had a pattern, and the last four beats do not go on with it, they
alone decide: the same pattern half a beat off moves the beat by that, a new one moves it where it says so clearly. What was
believed of a candidate goes over to the one that has the same beats now, also where the tracker itself changes its level.
Tempos that are known beforehand, as those of memory, are likelier.
"""

from functools import cache

import numpy as np

from musichal.arrays import Bool, Float32, Float64, Int64, rounded
from musichal.hearing.beat_evidence import N_KINDS, STEP_S
from musichal.hearing.beat_level import (
    AS_FOUND,
    CANDIDATES,
    N_DRUMS,
    PERIODS,
    PHASES,
    features,
    grouped,
    log_likelihood,
    strokes_of,
    with_strokes,
)
from musichal.note import HeardNote
from musichal.pulse import Pulse

_BEATS, _FEW_BEATS = 16, 8
_STEPS, _MOST_STEPS = 1200, 1600  # of evidence that are kept: more than so many of the slowest beats
_SWITCH = 0.02  # how likely another level is at each beat
# How much is forgotten with each beat: weak evidence that stays the same adds up to no more than so much, however long.
_FORGETS = 0.06
# How far one beat's score counts, which shares most with the last one's, and nepers by which another level must be likelier:
# more is asked for where no tempo is known.
_COUNTS, _CLEARLY = 0.1, 4.0
_KNOWN_COUNTS, _KNOWN_CLEARLY = 0.4, 2.0
# Beats that are compared with earlier ones, how alike they are where a pattern goes on, and where a new one has begun; by how
# many nepers the new one must say that the beat is elsewhere, and how much more alike it must be half a beat off.
_SPAN, _ALIKE, _IS_NEW, _NEW_SAYS, _CLEARLY_MOVED = 4, 0.8, 0.45, 2.5, 0.3
_LEAST = -50.0
# Music begins on a beat: where the first pulse had it, counts, also if the tracker changes its mind. A pulse that is less sure
# than this is chance; after a gap each one is, until a level is known.
_SURE_BEGIN = 0.05
_OTHER = -2.0  # nepers against any level but the tracker's at first
_NEW_BEAT, _SAME_PERIOD, _SAME_PLACE, _SAME_BEAT, _ELSEWHERE = 0.6, 0.15, 0.15, 0.12, 0.25
_USUAL_S, _USUAL = 0.5, 4.0
# How near a level must be to a known tempo, how likely any other tempo is beside those, and how far that counts.
_KNOWN_OCTAVES, _UNKNOWN, _KNOWN = 0.05, 0.02, 2.0


class LevelFollower:
    """Follows the level; `known` are periods in seconds that are likely beforehand, and how likely each is."""

    def __init__(self, known: tuple[Float64, Float64] | None = None) -> None:
        self._known = known
        self._counts, self._clearly = (_COUNTS, _CLEARLY) if known is None else (_KNOWN_COUNTS, _KNOWN_CLEARLY)
        self._heard: Float64 = grouped(np.zeros((0, N_KINDS), np.float32))
        self._strokes: Float64 = strokes_of(())
        self._first = 0  # the step that is the first of those kept
        self._beats_s: list[float] = []
        self._anchor: Pulse | None = None
        self._belief, self._level, self._least_sure = _as_found(), AS_FOUND, _SURE_BEGIN
        self._scored = False
        self._alike_s: Float64 = np.full(2, -np.inf)  # the last beat until which all, or drums, went on with a pattern

    def hear(self, evidence: Float32, hits: tuple[HeardNote, ...]) -> None:
        """Take the next steps of evidence, and the drum hits that were decided since."""
        self._heard = np.concatenate([self._heard, grouped(evidence)])
        self._strokes = np.concatenate([self._strokes, strokes_of(hits)])
        if len(self._heard) > _MOST_STEPS:
            self._first += len(self._heard) - _STEPS
            self._heard = self._heard[-_STEPS:]
            self._strokes = self._strokes[self._strokes[:, 0] >= self._first * STEP_S]

    def after_gap(self, steps: int) -> "LevelFollower":
        """Return a follower that knows nothing yet, for what comes after a gap of so many steps of evidence."""
        follower = LevelFollower(self._known)
        follower._least_sure = 1.0
        follower._first = self._first + len(self._heard) + steps
        return follower

    def of(self, found: Pulse) -> Pulse:
        """Return the pulse whose beats are *the* beats, from the pulse that the tracker found."""
        if not len(self._heard):
            return found
        before = self._anchor
        if before is None or found.beat_s - before.beat_s > _NEW_BEAT * found.period_s or self._leapt(found, before):
            self._next(found, before)
        anchor = self._anchor or found
        beat_s = found.nearest_s(anchor.beat_s) + PHASES[self._level] * found.period_s
        return Pulse(round(beat_s, 5), round(PERIODS[self._level] * found.period_s, 5), found.confidence)

    def _leapt(self, found: Pulse, before: Pulse) -> bool:
        """Return whether a pulse has another period than the one before, or its beats elsewhere once a level is known."""
        away = abs(before.nearest_s(found.beat_s) - found.beat_s) / found.period_s
        return bool(abs(np.log(found.period_s / before.period_s)) > _SAME_PERIOD or (self._scored and away > _ELSEWHERE))

    def _next(self, found: Pulse, before: Pulse | None) -> None:
        """Take a new beat of the tracker's."""
        if before is not None and not self._scored and before.confidence < self._least_sure:
            self._belief, self._level = _as_found(), AS_FOUND
        elif before is not None:
            same = _same(found, before)
            moved = np.where(same, self._belief[None, :], _LEAST).max(axis=1)
            moved = np.where(same.any(axis=1), moved, np.log(_SWITCH / len(CANDIDATES)))
            moved -= np.logaddexp.reduce(moved)
            self._belief = np.logaddexp(moved + np.log(1 - _SWITCH), np.log(_SWITCH / len(CANDIDATES)))
            own = np.flatnonzero(same[:, self._level])
            self._level = int(own[0]) if len(own) else AS_FOUND
        self._anchor = found
        self._beats_s = [*self._beats_s[1 - 4 * _BEATS :], found.beat_s]
        beats_s = self._back(found)
        if len(beats_s) < _FEW_BEATS:
            return
        self._scored = True
        first = max(self._first, int(beats_s[0] / STEP_S) - 1)
        from_s = first * STEP_S
        strokes = self._strokes[self._strokes[:, 0] >= from_s] - [from_s, 0, 0]
        heard, beats_s = with_strokes(self._heard[first - self._first :].copy(), strokes), beats_s - from_s
        scores = self._scores(heard, beats_s, len(beats_s), found.period_s)
        belief = (1 - _FORGETS) * self._belief + self._counts * np.maximum(scores, _LEAST)
        self._belief = rounded(belief - np.logaddexp.reduce(belief))
        best = int(self._belief.argmax())
        if self._belief[best] > self._belief[self._level] + self._clearly:
            self._level = best
        alike, also_half_off = _alike(heard, beats_s)
        self._alike_s[alike > _ALIKE] = found.beat_s
        since = (found.beat_s - self._alike_s) / found.period_s
        ended = (since > _SPAN - 1 - _SAME_BEAT) & (since < 2 * _SPAN - 1)
        if ended[0] and also_half_off[0] > max(_ALIKE, alike[0] + _CLEARLY_MOVED):
            self._take(_half_away(self._level))
        elif (ended & (alike < _IS_NEW)).any() and heard[int(beats_s[-1 - _SPAN] / STEP_S) :, :N_DRUMS].any():
            scores = self._scores(heard, beats_s, _SPAN + 1, found.period_s)
            best = int(np.where(PERIODS[self._level] > PERIODS, -np.inf, scores).argmax())
            if scores[best] > scores[self._level] + _NEW_SAYS and scores[self._level] > _LEAST:
                self._take(best)

    def _take(self, level: int) -> None:
        """Take a level at once, whatever was believed."""
        self._level, self._alike_s = level, np.full(2, -np.inf)
        self._belief = np.full(len(CANDIDATES), -self._clearly)
        self._belief[level] = 0.0

    def _scores(self, heard: Float64, beats_s: Float64, most: int, period_s: float) -> Float64:
        """Return how likely each candidate is by what was heard at the last of these beats, which is the present one."""
        last = len(beats_s) - 1
        scores = log_likelihood(features(heard, beats_s, max(0, last + 1 - most), last))
        # The candidates' phases count from the first of these beats; here they count from the last.
        scores = scores[_from_last(last)] + self._likely(period_s)
        return rounded(scores - np.logaddexp.reduce(scores))

    def _back(self, found: Pulse) -> Float64:
        """Return the last beats at this period, ascending: as they were found, or else a period before the next one."""
        seen, beats_s = np.array(self._beats_s), [found.beat_s]
        while len(beats_s) < _BEATS:
            wanted_s = beats_s[-1] - found.period_s
            nearest_s = float(seen[np.abs(seen - wanted_s).argmin()])
            beats_s.append(nearest_s if abs(nearest_s - wanted_s) < _SAME_BEAT * found.period_s else wanted_s)
        all_s = np.array(beats_s[::-1])
        return all_s[all_s >= self._first * STEP_S]

    def _likely(self, period_s: float) -> Float64:
        """Return the logarithm of how likely each candidate's tempo is beforehand."""
        if self._known is None:
            return np.asarray(-_USUAL * np.log2(PERIODS * period_s / _USUAL_S) ** 2)
        periods_s, share = self._known
        away = np.log2(PERIODS[:, None] * period_s / periods_s[None, :]) / _KNOWN_OCTAVES
        return np.asarray(_KNOWN * np.log(_UNKNOWN + np.exp(-0.5 * away**2) @ share))


def _as_found() -> Float64:
    belief: Float64 = np.full(len(CANDIDATES), _OTHER)
    belief[AS_FOUND] = 0.0
    return belief


def _same(found: Pulse, before: Pulse) -> Bool:
    """Return which candidates of a pulse (rows) have the beats of which of the pulse before (columns)."""
    periods_s, old_s = PERIODS[:, None] * found.period_s, PERIODS[None, :] * before.period_s
    apart_s = found.beat_s + PHASES[:, None] * found.period_s - before.beat_s - PHASES[None, :] * before.period_s
    places = apart_s / periods_s
    near = np.abs(places - np.round(places)) * PERIODS[:, None] < _SAME_PLACE
    return np.asarray((np.abs(np.log(periods_s / old_s)) < _SAME_PERIOD) & near)


def _alike(heard: Float64, beats_s: Float64) -> Float64:
    """Return how alike the last beats are to any before them (first row), and to any half a beat off those: correlations.

    The first column is of all that is heard, the second of drums.
    """
    beats = len(beats_s) - 1
    places_s = np.interp(np.arange(0, beats, 0.25), np.arange(beats + 1), beats_s)
    there = heard.take((places_s / STEP_S).astype(int), axis=0, mode="clip")
    away = (there - there.mean(axis=0)) / (there.std(axis=0) + 0.15 * there.mean(axis=0) + 0.01)
    alike = np.zeros((2, 2))
    for kind, columns in enumerate((away, away[:, :N_DRUMS])):
        halves = columns.reshape(2 * beats, -1)
        spans = np.stack([halves[k : k + 2 * _SPAN].ravel() for k in range(2 * (beats - _SPAN) + 1)])
        lengths = np.sqrt((spans * spans).sum(axis=1)) + 1e-3
        of = (spans[: -2 * _SPAN] * spans[-1]).sum(axis=1) / (lengths[: -2 * _SPAN] * lengths[-1])
        of = np.where(lengths[: -2 * _SPAN] + lengths[-1] < 0.1, 1.0, of)[::-1]  # nothing is like nothing
        alike[:, kind] = of[::2].max(initial=0.0), of[1::2].max(initial=0.0)
    return rounded(alike)


def _half_away(level: int) -> int:
    """Return the candidate that is half a found pulse later, the same one if there is none."""
    away = (PHASES - PHASES[level] - 0.5) % PERIODS[level]
    there = np.flatnonzero((PERIODS[level] == PERIODS) & (np.abs(away) < 1e-6))
    return int(there[0]) if len(there) else level


@cache
def _from_last(count: int) -> Int64:
    """Return which candidate, counted from `count` pulses before, each one is."""
    places = (count + PHASES[:, None] - PHASES[None, :]) / PERIODS[:, None]
    same = (PERIODS[:, None] == PERIODS[None, :]) & (np.abs(places - np.round(places)) < 1e-6)
    return np.asarray(same.argmax(axis=1))
