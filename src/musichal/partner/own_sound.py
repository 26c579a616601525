"""The partner's own sound in the microphone: how much of it there is, and what is heard without it.

The partner knows what it plays. From its notes follows what its sound would add to the salience of each semitone, up to a gain
that nobody knows: none with headphones, a great one beside a loudspeaker. The gain is how much the salience of own notes rises
when they are struck: the median over the last strikes, for now and then the player strikes the same note at the same time.
Without leakage a rise is rarer than none, and the gain is 0: a player in harmony with the partner loses nothing.

Salience grows with a power of the level and has the mean of its neighbourhood taken off (`musichal.hearing.pitch`), so that to
subtract is not exact: what leaks at the player's own level is halved, not removed. It errs towards hearing too little harmony.
Tokens cannot be cleaned in this way; a gesture that is mostly own sound is left out altogether.

While the partner sounds and leaks, something else must soon speak for the player, or they count as silent: more salience than
the partner's own can be, strokes where it struck none, or sound behind its notes. So a partner that hears only itself falls
silent as it would without, and with that hears who is there. Who plays in unison with a loud loudspeaker is taken for it at
worst until the partner's next rest.
"""

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np

from musichal.arrays import AnyArray, Bool, Float32, Float64, Int64
from musichal.hearing.percepts import LOWEST_PITCH, N_PITCHES, SILENT_DB, Gesture, Heard, Note, Percept
from musichal.partner.decision import PlannedNote

_REMEMBERED_S = 8.0
_BEFORE_S, _FROM_S, _UNTIL_S = 0.15, 0.05, 0.2
_STRIKES, _FEWEST_STRIKES = 32, 6
_DECAY_S = 1.0
_RELEASE_S = 0.15
_LATE_S, _EARLY_S = 0.12, 0.03
_FRAMES = 1024
_MOST_NOTES = 512
# Rises are means over a strike's first 0.15 s and over loud and soft notes: the peak is about twice that.
_PEAK = 2.0
_FAINTEST_GAIN = 0.006
# Own salience comes out at up to so many times what is expected of it, in rooms and with instruments that ring long.
_EXPLAINED = 6.0
_RINGS_S = 0.3
_COVERED_S = 0.5
# The player's are strokes of which there are so many in so long: now and then one of the partner's own is heard late.
_STROKES, _WITHIN_S = 2, 2.0
OWN_SHARE = 0.5
"""From this share of own sound on, a gesture is the partner's, not the player's."""
# Where a note comes out in salience: itself, its octaves, its twelfth.
_PARTIALS = ((0, 1.0), (12, 0.7), (-12, 0.3), (19, 0.3))


class OwnSound:
    """Follows what the partner plays and what of it is heard.

    Parameters
    ----------
    sample_rate_hz : int
        Rate of the stream that percepts count in.
    """

    def __init__(self, *, sample_rate_hz: int) -> None:
        self._rate_hz = sample_rate_hz
        self._notes: deque[PlannedNote] = deque(maxlen=_MOST_NOTES)
        self._waiting: deque[PlannedNote] = deque(maxlen=_MOST_NOTES)
        self._rises: deque[float] = deque(maxlen=_STRIKES)
        self._times_s: Float64 = np.zeros(0)
        self._salience: Float32 = np.zeros((0, N_PITCHES), dtype=np.float32)
        self._alone_frames: Bool = np.zeros(0, dtype=bool)
        self._strokes_s: deque[float] = deque(maxlen=_STROKES)
        self._alone_since_s: float | None = None
        self.gain = 0.0

    def played(self, notes: Iterable[PlannedNote]) -> None:
        """Take notes that will be played."""
        for note in notes:
            self._notes.append(note)
            self._waiting.append(note)

    def without(self, percept: Percept) -> Percept:
        """Return a percept less the partner's own sound: less chroma, no onset, gesture or audible frame that is its own."""
        heard = percept.heard
        if not self._notes:
            return percept
        times_s = heard.frame_samples / self._rate_hz
        self._times_s = np.concatenate([self._times_s, times_s])[-_FRAMES:]
        self._salience = np.concatenate([self._salience, heard.salience])[-_FRAMES:]
        now_s = float(times_s[-1]) if len(times_s) else 0.0
        self._measure(now_s)
        while self._notes and self._notes[0].onset_s + self._notes[0].duration_s < now_s - _REMEMBERED_S:
            self._notes.popleft()
        if not self.gain:
            self._alone_frames = np.concatenate([self._alone_frames, np.zeros(len(times_s), dtype=bool)])[-_FRAMES:]
            return percept
        expected = self.expected(times_s)
        own = np.minimum(expected, heard.salience)
        onsets = tuple(s for s in heard.onset_samples if not self._struck(s / self._rate_hz))
        self._strokes_s.extend(s / self._rate_hz for s in onsets)
        alone = self._alone(heard, times_s, expected)
        self._alone_frames = np.concatenate([self._alone_frames, alone])[-_FRAMES:]
        gestures = tuple(g for g in (self._of_player(g) for g in percept.gestures) if g is not None)
        cleared = dataclasses.replace(
            heard,
            chroma=np.maximum(heard.chroma - _folded(own), 0).astype(np.float32),
            salience=(heard.salience - own).astype(np.float32),
            audible=heard.audible & ~alone,
            level_db=np.where(alone, np.float32(SILENT_DB), heard.level_db),
            onset_samples=onsets,
            notes=tuple(n for n in heard.notes if not self._played_note(n)),
        )
        return dataclasses.replace(percept, heard=cleared, gestures=gestures)

    def expected(self, times_s: AnyArray) -> Float64:
        """Return the salience that the partner's notes add at each time, shape (n, N_PITCHES)."""
        out = np.zeros((len(times_s), N_PITCHES))
        for note, since_s, sounds in self._sounding(times_s):
            size = self.gain * _PEAK * np.where(sounds, np.exp(-np.maximum(since_s, 0) / _DECAY_S), 0.0)
            for bin_, strength in _bins(note.pitch):
                out[:, bin_] = np.maximum(out[:, bin_], strength * size)
        return out

    def _alone(self, heard: Heard, times_s: AnyArray, expected: Float64) -> Bool:
        """Return in which frames nothing speaks for the player, shape (n,), where own sound is `expected` in them."""
        sounds = np.zeros(len(times_s), dtype=bool)
        for note in self._notes:
            sounds |= (times_s >= note.onset_s) & (times_s <= note.onset_s + note.duration_s + _RINGS_S)
        own = float(expected[sounds].sum())
        if float(heard.salience[sounds].sum()) > _EXPLAINED * own:
            sounds[:] = False
        if len(self._strokes_s) == _STROKES:
            first_s, last_s = self._strokes_s[0], self._strokes_s[-1]
            if last_s - first_s <= _WITHIN_S:
                sounds &= (times_s < first_s) | (times_s > last_s + _WITHIN_S)
        if (heard.audible.any(axis=0) & ~sounds).any():
            self._alone_since_s = None
        elif sounds.any() and self._alone_since_s is None:
            self._alone_since_s = float(times_s[sounds][0])
        # For a moment anyone may be covered by it.
        since_s = np.inf if self._alone_since_s is None else self._alone_since_s + _COVERED_S
        return sounds & (times_s >= since_s)

    def own_share(self, gesture: Gesture) -> float:
        """Return how much of a gesture's salience lies where the partner's notes sound, 0 to 1; 0 where nothing leaks."""
        frames = self._frames_of(gesture)
        heard, times_s = self._salience[frames], self._times_s[frames]
        total = float(heard.sum())
        if not total or not self.gain:
            return 0.0
        where = np.zeros(heard.shape, dtype=bool)
        for note, _, sounds in self._sounding(times_s):
            for bin_, _ in _bins(note.pitch):
                where[sounds, bin_] = True
        return float(heard[where].sum()) / total

    def _sounding(self, times_s: AnyArray) -> Iterator[tuple[PlannedNote, AnyArray, AnyArray]]:
        """Yield each note that sounds at one of the times, how long since it was struck, and when it sounds."""
        for note in self._notes if len(times_s) else ():
            since_s = times_s - note.onset_s
            sounds = (since_s >= 0) & (since_s <= note.duration_s + _RELEASE_S)
            if sounds.any():
                yield note, since_s, sounds

    def _of_player(self, gesture: Gesture) -> Gesture | None:
        """Return a gesture less the partner's own sound, or None where that is most of it."""
        frames = self._frames_of(gesture)
        if self.own_share(gesture) >= OWN_SHARE or (len(frames) and self._alone_frames[frames].mean() >= OWN_SHARE):
            return None
        chroma = gesture.chroma
        if len(frames):
            own = np.minimum(self.expected(self._times_s[frames]), self._salience[frames]).mean(axis=0)
            chroma = np.maximum(chroma - _folded(own[None])[0], 0).astype(np.float32)
        onset = gesture.starts_at_onset and not self._struck(gesture.start_s)
        return dataclasses.replace(gesture, chroma=chroma, starts_at_onset=onset)

    def _frames_of(self, gesture: Gesture) -> Int64:
        end_s = gesture.start_s + gesture.duration_s
        return np.flatnonzero((self._times_s >= gesture.start_s) & (self._times_s < end_s))

    def _struck(self, time_s: float) -> bool:
        """Return whether the partner struck a note at the time that would be heard as an onset at `time_s`."""
        return any(-_EARLY_S <= time_s - note.onset_s <= _LATE_S for note in self._notes)

    def _played_note(self, heard: Note) -> bool:
        return any(note.pitch == heard.pitch and -_EARLY_S <= heard.onset_s - note.onset_s <= _LATE_S for note in self._notes)

    def _measure(self, now_s: float) -> None:
        """Take the rise of salience at every strike whose surroundings have been heard by now."""
        while self._waiting and self._waiting[0].onset_s + _UNTIL_S <= now_s:
            note = self._waiting.popleft()
            bin_, since_s = note.pitch - LOWEST_PITCH, self._times_s - note.onset_s
            # Frames are in order of time.
            begin, end, begin_after, end_after = since_s.searchsorted((-_BEFORE_S, -0.02, _FROM_S, _UNTIL_S)).tolist()
            if 0 <= bin_ < N_PITCHES and begin < end and begin_after < end_after:
                before, after = self._salience[begin:end, bin_], self._salience[begin_after:end_after, bin_]
                self._rises.append(float(after.mean() - before.mean()))
        if len(self._rises) >= _FEWEST_STRIKES:
            # `numpy.median` takes longer than all the rest of this.
            rises = sorted(self._rises)
            gain = (rises[(len(rises) - 1) // 2] + rises[len(rises) // 2]) / 2
            self.gain = gain if gain > _FAINTEST_GAIN else 0.0


def _bins(pitch: int) -> list[tuple[int, float]]:
    """Return where in salience a note comes out, and how strongly."""
    places = ((pitch + step - LOWEST_PITCH, strength) for step, strength in _PARTIALS)
    return [(bin_, strength) for bin_, strength in places if 0 <= bin_ < N_PITCHES]


def _folded(salience: AnyArray) -> Float64:
    """Return the chroma of a salience, shape (n, 12)."""
    out = np.zeros((len(salience), 12))
    for bin_ in range(N_PITCHES):
        out[:, (bin_ + LOWEST_PITCH) % 12] += salience[:, bin_]
    return out
