"""What the player plays, collected until it can be learned: a note is known when it has ended, after its gesture."""

from collections import deque
from dataclasses import dataclass

from musichal.hearing.percepts import Gesture, Percept
from musichal.memory.memory import assign_notes
from musichal.note import HeardNote

WAIT_S = 2.0
"""How long a gesture waits for the notes and hits that began in it."""
_MOST_WAITING = 512


@dataclass(frozen=True)
class Learned:
    """A gesture with the notes and drum hits that began in it."""

    gesture: Gesture
    notes: list[HeardNote]
    hits: list[HeardNote]


class Learner:
    """Collects gestures, notes and hits until they are complete: a note is known when it has ended, after its gesture."""

    def __init__(self) -> None:
        self._gestures: deque[Gesture] = deque(maxlen=_MOST_WAITING)
        self._notes: deque[HeardNote] = deque(maxlen=4 * _MOST_WAITING)
        self._hits: deque[HeardNote] = deque(maxlen=4 * _MOST_WAITING)
        self._last_start_s = -1.0

    def hear(self, percept: Percept) -> None:
        """Take the next percept; leave out a gesture that does not come after the one before it."""
        for gesture in percept.gestures:
            if gesture.start_s > self._last_start_s:
                self._last_start_s = gesture.start_s
                self._gestures.append(gesture)
        self._notes.extend(percept.heard.notes)
        self._hits.extend(percept.heard.hits)

    def complete(self, now_s: float) -> list[Learned]:
        """Return the gestures that have waited long enough, with the notes and hits that began in them, in order of time."""
        ready = [g for g in self._gestures if g.start_s + g.duration_s + WAIT_S <= now_s]
        if not ready:
            return []
        # The gesture after the last one is needed to say which of the two a note between them belongs to.
        following = list(self._gestures)[len(ready) : len(ready) + 1]
        for _ in ready:
            self._gestures.popleft()
        notes, hits = (_taken_from(waiting, ready, following) for waiting in (self._notes, self._hits))
        return [Learned(*each) for each in zip(ready, notes, hits, strict=True)]


def _taken_from(waiting: deque[HeardNote], ready: list[Gesture], following: list[Gesture]) -> list[list[HeardNote]]:
    """Return what began in each gesture that is ready, and leave in `waiting` what may belong to a later one."""
    notes = sorted(waiting, key=lambda n: (n.onset_s, n.pitch))
    assigned = assign_notes([*ready, *following], notes)[: len(ready)]
    taken = {id(note) for own in assigned for note in own}
    end_s = ready[-1].start_s + ready[-1].duration_s
    waiting.clear()
    waiting.extend(n for n in notes if id(n) not in taken and n.onset_s >= end_s - WAIT_S)
    return assigned
