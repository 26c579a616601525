"""Learning while playing: the player's gestures with their notes, once both are complete.

A note is known when it has ended, later than the gesture that it began in; so a gesture waits a little for its notes. What is
too long for that is learned without its end.
"""

from collections import deque

from musichal.hearing.percepts import Gesture, Note, Percept
from musichal.memory.memory import assign_notes

WAIT_S = 2.0
"""How long a gesture waits for the notes that began in it."""
_MOST_WAITING = 512


class Learner:
    """Collects gestures and notes, and hands them out when they are complete."""

    def __init__(self) -> None:
        self._gestures: deque[Gesture] = deque(maxlen=_MOST_WAITING)
        self._notes: deque[Note] = deque(maxlen=4 * _MOST_WAITING)
        self._last_start_s = -1.0

    def hear(self, percept: Percept) -> None:
        """Take the next percept; a gesture that does not come after the one before it is left out."""
        for gesture in percept.gestures:
            if gesture.start_s > self._last_start_s:
                self._last_start_s = gesture.start_s
                self._gestures.append(gesture)
        self._notes.extend(percept.heard.notes)

    def complete(self, now_s: float) -> list[tuple[Gesture, list[Note]]]:
        """Return the gestures that have waited long enough, with the notes that began in them, in order of time."""
        ready = [g for g in self._gestures if g.start_s + g.duration_s + WAIT_S <= now_s]
        if not ready:
            return []
        # The gesture after the last one is needed to say which of the two a note between them belongs to.
        following = list(self._gestures)[len(ready) : len(ready) + 1]
        notes = sorted(self._notes, key=lambda n: (n.onset_s, n.pitch))
        assigned = assign_notes([*ready, *following], notes)[: len(ready)]
        taken = {id(note) for own in assigned for note in own}
        end_s = ready[-1].start_s + ready[-1].duration_s
        for _ in ready:
            self._gestures.popleft()
        self._notes = deque((n for n in notes if id(n) not in taken and n.onset_s >= end_s - WAIT_S), maxlen=self._notes.maxlen)
        return list(zip(ready, assigned, strict=True))
