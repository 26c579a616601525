"""The notes that sound: the one place that decides which note-off belongs to which note-on.

A synthesiser knows one note per channel and pitch. Two that overlap there share one note-off, and the second hangs or is
cut at random; so a key that is struck again is released first.
"""

from dataclasses import dataclass

Key = tuple[int, int]
"""Channel and pitch."""


@dataclass(slots=True)
class Active:
    """A note that sounds from `onset` to `until`, in any one unit of time."""

    key: Key
    onset: float
    until: float
    velocity: int
    tag: int = 0


class ActiveNotes:
    """The notes that sound now. Has no clock: times are the caller's. Each method returns the notes that it ended, in order."""

    def __init__(self) -> None:
        self._active: dict[Key, Active] = {}

    @property
    def sounding(self) -> frozenset[Key]:
        """The keys that sound."""
        return frozenset(self._active)

    @property
    def next_end(self) -> float | None:
        """The earliest time at which a note is due to end, or None where nothing sounds."""
        return min([note.until for note in self._active.values()], default=None)

    def get(self, key: Key) -> Active | None:
        """Return the note that sounds on a key."""
        return self._active.get(key)

    def strike(self, note: Active) -> list[Active]:
        """Begin a note. Where its key sounds already, that note ends at its onset."""
        ended = self.end(note.key)
        for before in ended:
            before.until = min(before.until, note.onset)
        self._active[note.key] = note
        return ended

    def end(self, key: Key) -> list[Active]:
        """End a note."""
        note = self._active.pop(key, None)
        return [] if note is None else [note]

    def end_due(self, now: float) -> list[Active]:
        """End every note that is due by `now`, the earliest first."""
        due = sorted((note.until, key) for key, note in self._active.items() if note.until <= now)
        return [self._active.pop(key) for _, key in due]

    def end_all(self) -> list[Active]:
        """End everything that sounds."""
        ended = [self._active[key] for key in sorted(self._active)]
        self._active.clear()
        return ended
