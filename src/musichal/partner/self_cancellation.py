"""Self-cancellation: what of the microphone is the partner's own sound, and what is heard without it.

*Salience.* The partner knows its notes. What they would add to the salience of each semitone is known up to a gain: 0 with
headphones, large beside a loudspeaker. The gain is the median rise of the salience of own notes when they are struck, since
now and then the player strikes the same note at the same time. Without leakage a rise is rarer than none, and the gain is 0.
In which semitones a note comes out (the timbre of instrument and room) is learned in the same way. Salience grows with a
power of the level and has the mean of its neighbourhood subtracted (`musichal.hearing.pitch`), so that subtracting powers is
not exact: a leak at the player's level is more than halved, not removed. In unison with the player, what they play is kept.

*Power* (`SelfLevel`). Powers add. The power of an own note is a step function of its age and of the time since its release; the
heights of the steps are non-negative least squares over what was heard lately, with a constant for the player (regression
with forgetting; coordinate descent, Franc, Hlaváč & Navara 2005). A frame is weighted by the inverse of its power.

*Gestures.* Tokens cannot be cleaned. A gesture is the partner's, and left out, if own notes explain a good part of its power
and that power lies in their semitones. An onset is the partner's unless it brings twice the power that own notes explain.

*Alone.* While the partner sounds and leaks, something must speak for the player soon, or they count as silent: more sound than
the partner's own, strokes where it struck none, or sound after its notes. A player in unison with a loud loudspeaker is taken
for it until the partner's next rest at worst.
"""

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from musichal.arrays import AnyArray, Bool, Float32, Float64, Int64, rounded
from musichal.hearing.percepts import LOWEST_PITCH, N_PITCHES, SILENT_DB, Gesture, Percept, SegmentFeatures
from musichal.hearing.pitch import fold
from musichal.note import PERCUSSION_CHANNEL, HeardNote, Note

_AGES_S = (0.0, 0.08, 0.2, 0.5, 1.2, 4.0)
_RELEASED_S = (0.0, 0.2, 0.6, 1.5)
_STEPS = len(_AGES_S) + len(_RELEASED_S) - 2
_SOUNDS_LATE_S = 0.015
# Amplitude grows with about the 1.5th power of velocity, between the linear synthesisers and those that square it.
_VELOCITY_POWER = 3.0
_FORGETS_S = 12.0
_FLOOR = 1e-7
_SWEEPS = 8
RINGS_S = _RELEASED_S[-1]
"""How long after its end a note may still sound."""


class SelfLevel:
    """Learns the power of the partner's own sound while it sounds."""

    def __init__(self) -> None:
        # The player's constant is the last.
        self._products: Float64 = np.zeros((_STEPS + 1, _STEPS + 1))
        self._with_power: Float64 = np.zeros(_STEPS + 1)
        self._heights: Float64 = np.zeros(_STEPS + 1)
        self._heard_s: float | None = None

    def hear(self, times_s: AnyArray, level_db: AnyArray, notes: Sequence[Note]) -> Float64:
        """Take levels in dBFS at times, both of shape (n,), while `notes` sounded; return `expected` of them by now."""
        own = _steps(times_s, notes)
        if len(times_s):
            self._learn(own, times_s, level_db)
        return rounded(own @ self._heights[:-1])

    def _learn(self, own: Float64, times_s: AnyArray, level_db: AnyArray) -> None:
        power = 10 ** (np.asarray(level_db, dtype=np.float64) / 10)
        steps = np.column_stack([own, np.ones(len(times_s))])
        weighed = steps / (power + _FLOOR)[:, None]
        now_s = float(times_s[-1])
        fade = 0.0 if self._heard_s is None else float(np.exp((self._heard_s - now_s) / _FORGETS_S))
        self._heard_s = now_s
        self._products = fade * self._products + weighed.T @ steps
        self._with_power = fade * self._with_power + weighed.T @ power
        self._fit()

    def expected(self, times_s: AnyArray, notes: Sequence[Note]) -> Float64:
        """Return the power that notes have at each time, shape (n,), full scale being 1."""
        return rounded(_steps(times_s, notes) @ self._heights[:-1])

    def _fit(self) -> None:
        """Improve the heights; they change little from one percept to the next."""
        heights, products = self._heights, self._products
        for _ in range(_SWEEPS):
            for k in range(len(heights)):
                if products[k, k] > 0:
                    miss = float(self._with_power[k] - products[k] @ heights)
                    heights[k] = max(0.0, heights[k] + miss / products[k, k])


def _steps(times_s: AnyArray, notes: Sequence[Note]) -> Float64:
    """Return the weight of notes in each step of age or release at each time, shape (n, _STEPS)."""
    out = np.zeros((len(times_s), _STEPS))
    if not len(times_s):
        return out
    first_s, last_s = float(times_s[0]), float(times_s[-1])
    near = [n for n in notes if n.onset_s <= last_s and n.onset_s + n.duration_s + _SOUNDS_LATE_S + RINGS_S >= first_s]
    if not near:
        return out
    onset_s = np.array([n.onset_s for n in near])[:, None] + _SOUNDS_LATE_S
    end_s = onset_s + np.array([n.duration_s for n in near])[:, None]
    weight = (np.array([n.velocity for n in near]) / 127.0) ** _VELOCITY_POWER
    age_s, released_s = times_s[None, :] - onset_s, times_s[None, :] - end_s
    held = released_s < 0
    for k, (begin_s, until_s) in enumerate(pairwise(_AGES_S)):
        out[:, k] = weight @ (held & (age_s >= begin_s) & (age_s < until_s))
    for k, (begin_s, until_s) in enumerate(pairwise(_RELEASED_S), start=len(_AGES_S) - 1):
        out[:, k] = weight @ ((released_s >= begin_s) & (released_s < until_s))
    return out


_REMEMBERED_S = 8.0
_BEFORE_S, _FROM_S, _UNTIL_S = 0.15, 0.05, 0.2
_STRIKES, _FEWEST_STRIKES = 32, 6
_DECAY_S = 1.0
_RELEASE_S = 0.15
# No sound is heard before it is made; a note's place is found a little less surely than a stroke's.
_LATE_S, _EARLY_S = 0.12, 0.03
_ONSET_EARLY_S = 0.01  # the grid of onsets is so coarse, and a return from a dip is known a hop before a flux
_FRAMES = 1024
_MOST_NOTES = 512
# Rises are means over a strike's first 0.15 s and over loud and soft notes: the peak is about twice that.
_PEAK = 2.0
_FAINTEST_GAIN = 0.006
# Own salience comes out at up to so many times what is expected of it, in rooms and with instruments that ring long,
_EXPLAINED = 6.0
# and own power, over two segments, at so many times: 1 dB.
_EXPLAINED_POWER = 1.26
_SEGMENTS = 2
_RINGS_S = 0.3
# What is so much fainter than the partner just was is its own tail, in its instrument or in the room: 18 dB.
_TAIL, _TAIL_S = 0.016, 2.5
_COVERED_S = 0.5
# The player's are strokes of which there are so many in so long: now and then one of the partner's own is heard late.
_STROKES, _WITHIN_S = 2, 2.0
_STROKE_S, _BEFORE_STROKE_S = 0.1, (-0.08, -0.02)
_STROKE_POWER = 2.0
OWN_SHARE = 0.35
"""From this share of own sound on, a gesture is the partner's. The share is estimated low: half own sound reads as a third."""
# Salience goes with magnitude to the power of 0.8; to this power it is as power is.
_AS_POWER = 2.5
_SURE_POWER = 4.0
# Where a note comes out in salience until that has been learned: itself, its octaves, its twelfth.
_PARTIALS = ((0, 1.0), (12, 0.7), (-12, 0.3), (19, 0.3))
_LEAST_PARTIAL = 0.15


class SelfCancellation:
    """Follows what the partner plays and what of it is heard.

    `gain` is how much salience rises where it strikes, 0 where nothing leaks. `alone_since_s` is since when the player has
    been silent if the last percept was the partner's own sound alone, or else None.
    """

    def __init__(self, *, sample_rate_hz: int) -> None:
        self._rate_hz = sample_rate_hz
        self._notes: deque[Note] = deque(maxlen=_MOST_NOTES)
        self._waiting: deque[Note] = deque(maxlen=_MOST_NOTES)
        # One row for each strike: how salience rose, by the distance in semitones from the note struck.
        self._rises: deque[Float64] = deque(maxlen=_STRIKES)
        self._timbre = _usual_timbre()
        self._level = SelfLevel()
        self._times_s: Float64 = np.zeros(0)
        self._salience: Float32 = np.zeros((0, N_PITCHES), dtype=np.float32)
        self._power: Float64 = np.zeros(0)
        self._own_power: Float64 = np.zeros(0)
        self._alone_frames: Bool = np.zeros(0, dtype=bool)
        self._segments: deque[tuple[float, float]] = deque(maxlen=_SEGMENTS)
        self._strokes_s: deque[float] = deque(maxlen=_STROKES)
        self._explained_since_s: float | None = None
        self.alone_since_s: float | None = None
        self.gain = 0.0

    def played(self, notes: Iterable[Note]) -> None:
        """Take notes that will be played."""
        for note in notes:
            self._notes.append(note)
            if _is_pitched(note):
                self._waiting.append(note)

    def without(self, percept: Percept) -> Percept:
        """Return a percept without the partner's own chroma, onsets, gestures and audible frames."""
        heard = percept.heard
        self.alone_since_s = None
        if not self._notes:
            return percept
        times_s = heard.frame_samples / self._rate_hz
        now_s = float(times_s[-1]) if len(times_s) else 0.0
        while self._notes and self._notes[0].onset_s + self._notes[0].duration_s < now_s - _REMEMBERED_S:
            self._notes.popleft()
        notes = list(self._notes)
        own_power = self._level.hear(times_s, heard.level_db, notes)
        power = 10 ** (heard.level_db.astype(np.float64) / 10)
        self._times_s = np.concatenate([self._times_s, times_s])[-_FRAMES:]
        self._salience = np.concatenate([self._salience, heard.salience])[-_FRAMES:]
        self._power = np.concatenate([self._power, power])[-_FRAMES:]
        self._own_power = np.concatenate([self._own_power, own_power])[-_FRAMES:]
        self._segments.append((float(power.sum()), float(own_power.sum())))
        self._measure(now_s)
        if not self.gain:
            self._alone_frames = np.concatenate([self._alone_frames, np.zeros(len(times_s), dtype=bool)])[-_FRAMES:]
            return percept
        expected = self.expected(times_s)
        own = _own_part(expected, heard.salience)
        onsets = tuple(s for s in heard.onset_samples if not self._own_stroke(s / self._rate_hz))
        self._strokes_s.extend(s / self._rate_hz for s in onsets)
        alone = self._alone(heard, times_s, expected, own_power)
        self._alone_frames = np.concatenate([self._alone_frames, alone])[-_FRAMES:]
        gestures = tuple(g for g in (self._of_player(g) for g in percept.gestures) if g is not None)
        cleared = dataclasses.replace(
            heard,
            chroma=np.maximum(heard.chroma - fold(own), 0).astype(np.float32),
            salience=(heard.salience - own).astype(np.float32),
            audible=heard.audible & ~alone,
            level_db=np.where(alone, np.float32(SILENT_DB), heard.level_db),
            onset_samples=onsets,
            notes=tuple(n for n in heard.notes if not self._played_note(n, pitched=True)),
            hits=tuple(n for n in heard.hits if not self._played_note(n, pitched=False)),
        )
        return dataclasses.replace(percept, heard=cleared, gestures=gestures)

    def struck(self, time_s: float) -> bool:
        """Return whether an onset may be the partner's own stroke, judged by its notes; False where nothing leaks."""
        return bool(self.gain) and self._struck(time_s)

    def expected(self, times_s: AnyArray) -> Float64:
        """Return the salience that the partner's notes add at each time, shape (n, N_PITCHES)."""
        out = np.zeros((len(times_s), N_PITCHES))
        for note, since_s, sounds in self._sounding(times_s):
            size = self.gain * _PEAK * np.where(sounds, np.exp(-np.maximum(since_s, 0) / _DECAY_S), 0.0)
            np.maximum(out, size[:, None] * self._strengths(note.pitch)[None, :], out=out)
        return out

    def _strengths(self, pitch: int) -> Float64:
        """Return how strongly a note comes out in each semitone, shape (N_PITCHES,), 1 in its own."""
        place = min(max(pitch - LOWEST_PITCH, 0), N_PITCHES - 1)
        return self._timbre[N_PITCHES - 1 - place : 2 * N_PITCHES - 1 - place]

    def _alone(self, heard: SegmentFeatures, times_s: AnyArray, expected: Float64, own_power: Float64) -> Bool:
        """Return in which frames nothing speaks for the player, shape (n,), given own salience (n, N_PITCHES) and power."""
        sounds = np.zeros(len(times_s), dtype=bool)
        for note in self._notes:
            sounds |= (times_s >= note.onset_s) & (times_s <= note.onset_s + note.duration_s + _RINGS_S)
        power, explained = map(sum, zip(*self._segments, strict=True))
        if power <= _EXPLAINED_POWER * explained:
            sounds |= own_power > 0
        elif float(heard.salience[sounds].sum()) > _EXPLAINED * float(expected[sounds].sum()):
            sounds[:] = False
        sounds |= self._tail(times_s)
        if (heard.audible.any(axis=0) & ~sounds).any():
            self._explained_since_s = None
        elif sounds.any() and self._explained_since_s is None:
            self._explained_since_s = float(times_s[sounds][0])
        if self._explained_since_s is None:
            return np.zeros(len(times_s), dtype=bool)
        # For a moment anyone may be covered by it.
        alone = sounds & (times_s >= self._explained_since_s + _COVERED_S)
        if len(self._strokes_s) == _STROKES:
            first_s, last_s = self._strokes_s[0], self._strokes_s[-1]
            if last_s - first_s <= _WITHIN_S:
                alone &= (times_s < first_s) | (times_s > last_s + _WITHIN_S)
        if alone.any():
            # Looking back, the player has been silent since their last stroke, or since nothing else was heard.
            self.alone_since_s = max([self._explained_since_s, *list(self._strokes_s)[-1:]])
        return alone

    def _tail(self, times_s: AnyArray) -> Bool:
        """Return which of the last frames, those at `times_s`, are far fainter than the partner was shortly before."""
        lately = self._own_power[self._times_s >= times_s[0] - _TAIL_S] if len(times_s) else np.zeros(0)
        return self._power[len(self._power) - len(times_s) :] <= _TAIL * float(lately.max(initial=0.0))

    def own_share(self, gesture: Gesture) -> float:
        """Return how much of a gesture the partner's notes explain, 0 to 1; 0 where nothing leaks.

        The smaller share counts, that of its power or that of its semitones: as loud but elsewhere is not its sound.
        """
        frames = self._frames_of(gesture)
        strength = self._salience[frames].astype(np.float64) ** _AS_POWER
        total, power = float(strength.sum()), float(self._power[frames].sum())
        if not (total and power and self.gain):
            return 0.0
        where = np.zeros(strength.shape, dtype=bool)
        for note, _, sounds in self._sounding(self._times_s[frames]):
            where |= sounds[:, None] & (self._strengths(note.pitch) >= _LEAST_PARTIAL)[None, :]
        return min(1.0, float(self._own_power[frames].sum()) / power, float(strength[where].sum()) / total)

    def _sounding(self, times_s: AnyArray) -> Iterator[tuple[Note, AnyArray, AnyArray]]:
        """Yield each pitched note that sounds at one of the times, how long since it was struck, and when it sounds."""
        for note in filter(_is_pitched, self._notes) if len(times_s) else ():
            since_s = times_s - note.onset_s
            sounds = (since_s >= 0) & (since_s <= note.duration_s + _RELEASE_S)
            if sounds.any():
                yield note, since_s, sounds

    def _of_player(self, gesture: Gesture) -> Gesture | None:
        """Return a gesture less the partner's own sound, or None where it is the partner's."""
        frames = self._frames_of(gesture)
        if self.own_share(gesture) >= OWN_SHARE or (len(frames) and self._alone_frames[frames].mean() >= 0.5):
            return None
        chroma = gesture.chroma
        if len(frames):
            own = _own_part(self.expected(self._times_s[frames]), self._salience[frames]).mean(axis=0, keepdims=True)
            chroma = np.maximum(chroma - fold(own)[0], 0).astype(np.float32)
        onset = gesture.starts_at_onset and not self._own_stroke(gesture.start_s)
        return dataclasses.replace(gesture, chroma=chroma, starts_at_onset=onset)

    def _frames_of(self, gesture: Gesture) -> Int64:
        end_s = gesture.start_s + gesture.duration_s
        return np.flatnonzero((self._times_s >= gesture.start_s) & (self._times_s < end_s))

    def _own_stroke(self, time_s: float) -> bool:
        """Return whether an onset is the partner's: it struck then, and its notes explain the power that came."""
        if not self._struck(time_s):
            return False
        since_s = self._times_s - time_s
        after = (since_s >= 0) & (since_s <= _STROKE_S)
        before = (since_s >= _BEFORE_STROKE_S[0]) & (since_s <= _BEFORE_STROKE_S[1])
        if not after.any() or not before.any():
            return True
        explained = float(self._power[before].mean()) + float(self._own_power[after].max())
        return float(self._power[after].max()) <= _STROKE_POWER * explained

    def _struck(self, time_s: float) -> bool:
        """Return whether the partner struck a note at the time that would be heard as an onset at `time_s`."""
        return any(-_ONSET_EARLY_S <= time_s - note.onset_s <= _LATE_S for note in self._notes)

    def _played_note(self, heard: HeardNote, *, pitched: bool) -> bool:
        return any(
            note.pitch == heard.pitch and _is_pitched(note) == pitched and -_EARLY_S <= heard.onset_s - note.onset_s <= _LATE_S
            for note in self._notes
        )

    def _measure(self, now_s: float) -> None:
        """Take the rise of salience at every strike whose surroundings have been heard by now."""
        taken = False
        while self._waiting and self._waiting[0].onset_s + _UNTIL_S <= now_s:
            note = self._waiting.popleft()
            bin_, since_s = note.pitch - LOWEST_PITCH, self._times_s - note.onset_s
            # Frames are in order of time.
            begin, end, begin_after, end_after = since_s.searchsorted((-_BEFORE_S, -0.02, _FROM_S, _UNTIL_S)).tolist()
            if 0 <= bin_ < N_PITCHES and begin < end and begin_after < end_after:
                rise = self._salience[begin_after:end_after].mean(axis=0) - self._salience[begin:end].mean(axis=0)
                at_distance = np.full(2 * N_PITCHES - 1, np.nan)
                at_distance[N_PITCHES - 1 - bin_ : 2 * N_PITCHES - 1 - bin_] = rise
                self._rises.append(at_distance)
                taken = True
        if not taken or len(self._rises) < _FEWEST_STRIKES:
            return
        rises = np.array(self._rises)
        gain = float(np.median(rises[:, N_PITCHES - 1]))
        self.gain = gain if gain > _FAINTEST_GAIN else 0.0
        if self.gain:
            self._timbre = _timbre(rises, self.gain)


def _own_part(expected: Float64, salience: Float32) -> Float32:
    """Return what of each salience is the partner's, where so much of it is expected; all three of one shape.

    Powers add: in unison with a louder player nearly all is theirs. What is below `_SURE_POWER` times the own power is not
    known to be theirs.
    """
    both = salience.astype(np.float64)
    theirs = np.maximum(both**_AS_POWER - _SURE_POWER * expected**_AS_POWER, 0) ** (1 / _AS_POWER)
    return rounded(both - theirs).astype(np.float32)


def _is_pitched(note: Note) -> bool:
    """Return whether a note has a pitch: a drum's adds power, but nothing to the salience of its key."""
    return note.channel != PERCUSSION_CHANNEL


def _usual_timbre() -> Float64:
    """Return how strongly a note comes out at each distance from it, shape (2 * N_PITCHES - 1,), itself in the middle."""
    out = np.zeros(2 * N_PITCHES - 1)
    for step, strength in _PARTIALS:
        out[N_PITCHES - 1 + step] = strength
    return out


def _timbre(rises: Float64, gain: float) -> Float64:
    """Return the same from `rises` of strikes, shape (n, 2 * N_PITCHES - 1); distances that too few reach are as usual."""
    known = np.isfinite(rises).sum(axis=0) >= _FEWEST_STRIKES
    out = _usual_timbre()
    strength = np.nanmedian(rises[:, known], axis=0) / gain
    out[known] = np.where(strength >= _LEAST_PARTIAL, np.minimum(strength, 1.0), 0.0)
    return out
