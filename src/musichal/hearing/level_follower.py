"""The level of the metre while the music plays: which of the pulses that a tracker may follow is the beat.

A tracker follows *a* pulse surely, which may be half a beat or two, or lie between the beats. With each of its beats, the
candidates of `musichal.hearing.beat_level` are scored by what was heard at the last ones. Scores add up and are forgotten: they
are a running mean over some 16 beats. Where the last few beats alone say clearly and repeatedly that the beat is elsewhere, it
is elsewhere at once. What was believed of a candidate goes over to the one that has the same beats now, also where the tracker
itself changes its level. Tempos that are known beforehand, as those of memory, are likelier.
"""

from functools import cache

import numpy as np

from musichal.arrays import Bool, Float32, Float64, Int64, rounded
from musichal.hearing.beat_evidence import N_KINDS, STEP_S
from musichal.hearing.beat_level import (
    AS_FOUND,
    CANDIDATES,
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
_AT_ONCE, _TIMES = 5.0, 3  # nepers by which the last few beats say another level, so many times one after the other
_LEAST = -50.0
# Music begins on a beat: where the first pulse had it, counts, also if the tracker changes its mind. A pulse that is less sure
# than this is chance; after a gap each one is, until a level is known.
_SURE_BEGIN = 0.05
_OTHER = -2.0  # nepers against any level but the tracker's at first
_NEW_BEAT, _SAME_PERIOD, _SAME_PLACE, _SAME_BEAT, _ELSEWHERE = 0.6, 0.15, 0.15, 0.12, 0.25
_USUAL_S, _USUAL = 0.5, 4.0
_KNOWN_OCTAVES, _UNKNOWN, _KNOWN = 0.08, 1e-3, 2.0
_PERIODS, _PHASES = (np.array(column) for column in zip(*CANDIDATES, strict=True))


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
        self._rival: tuple[int, int] | None = None  # the level that the last few beats say, and how often they did

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
        beat_s = found.nearest_s(anchor.beat_s) + _PHASES[self._level] * found.period_s
        return Pulse(round(beat_s, 5), round(_PERIODS[self._level] * found.period_s, 5), found.confidence)

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
            if self._rival is not None:
                own = np.flatnonzero(same[:, self._rival[0]])
                self._rival = (int(own[0]), self._rival[1]) if len(own) else None
        self._anchor = found
        self._beats_s = [*self._beats_s[1 - 4 * _BEATS :], found.beat_s]
        beats_s = self._back(found)
        if len(beats_s) < _FEW_BEATS:
            return
        self._scored = True
        belief = (1 - _FORGETS) * self._belief + self._counts * np.maximum(self._scores(beats_s, found.period_s), _LEAST)
        self._belief = rounded(belief - np.logaddexp.reduce(belief))
        best = int(self._belief.argmax())
        if self._belief[best] > self._belief[self._level] + self._clearly:
            self._level = best
        self._at_once(self._scores(beats_s[-_FEW_BEATS:], found.period_s))

    def _at_once(self, scores: Float64) -> None:
        """Take the level that the last few beats say, if they say so clearly and repeatedly."""
        best = int(scores.argmax())
        if scores[best] - max(scores[self._level], _LEAST) <= _AT_ONCE:
            self._rival = None
            return
        times = self._rival[1] + 1 if self._rival is not None and self._rival[0] == best else 1
        self._rival = best, times
        if times >= _TIMES:
            self._level, self._rival = best, None
            self._belief = np.full(len(CANDIDATES), -self._clearly)
            self._belief[best] = 0.0

    def _scores(self, beats_s: Float64, period_s: float) -> Float64:
        """Return how likely each candidate is by what was heard at these beats, the last of which is the present one."""
        first = max(self._first, int(beats_s[0] / STEP_S) - 1)
        from_s = first * STEP_S
        strokes = self._strokes[self._strokes[:, 0] >= from_s] - [from_s, 0, 0]
        heard = with_strokes(self._heard[first - self._first :].copy(), strokes)
        scores = log_likelihood(features(heard, beats_s - from_s, 0, len(beats_s) - 1))
        # The candidates' phases count from the first of these beats; here they count from the last.
        scores = scores[_from_last(len(beats_s) - 1)] + self._likely(period_s)
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
            return np.asarray(-_USUAL * np.log2(_PERIODS * period_s / _USUAL_S) ** 2)
        periods_s, share = self._known
        away = np.log2(_PERIODS[:, None] * period_s / periods_s[None, :]) / _KNOWN_OCTAVES
        return np.asarray(_KNOWN * np.log(_UNKNOWN + np.exp(-0.5 * away**2) @ share))


def _as_found() -> Float64:
    belief: Float64 = np.full(len(CANDIDATES), _OTHER)
    belief[AS_FOUND] = 0.0
    return belief


def _same(found: Pulse, before: Pulse) -> Bool:
    """Return which candidates of a pulse (rows) have the beats of which of the pulse before (columns)."""
    periods_s, old_s = _PERIODS[:, None] * found.period_s, _PERIODS[None, :] * before.period_s
    apart_s = found.beat_s + _PHASES[:, None] * found.period_s - before.beat_s - _PHASES[None, :] * before.period_s
    places = apart_s / periods_s
    near = np.abs(places - np.round(places)) * _PERIODS[:, None] < _SAME_PLACE
    return np.asarray((np.abs(np.log(periods_s / old_s)) < _SAME_PERIOD) & near)


@cache
def _from_last(count: int) -> Int64:
    """Return which candidate, counted from `count` pulses before, each one is."""
    places = (count + _PHASES[:, None] - _PHASES[None, :]) / _PERIODS[:, None]
    same = (_PERIODS[:, None] == _PERIODS[None, :]) & (np.abs(places - np.round(places)) < 1e-6)
    return np.asarray(same.argmax(axis=1))
