"""The table of sounding notes: what turns notes into a stream of messages in which every note ends exactly once.

A synthesiser knows one note per channel and pitch. Two that overlap there share one note-off, and the second hangs or is
cut at random; so a key that is struck again is released first. `balance` does this for a whole answer, `ActiveNotes` one
event at a time for a stage, and they agree.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from musichal.note import Note

TICKS_PER_SECOND = 1000
"""One tick is one millisecond."""


@dataclass(frozen=True)
class NoteMessage:
    """A note-on (velocity 1 to 127) or a note-off (velocity 0)."""

    channel: int
    pitch: int
    velocity: int

    @property
    def is_on(self) -> bool:
        """Whether this strikes a note."""
        return self.velocity > 0


@dataclass(frozen=True)
class TimedMessage:
    """A message and its time in ticks from the start of the stream."""

    tick: int
    message: NoteMessage


def to_ticks(time_s: float) -> int:
    """Return the tick nearest to `time_s`."""
    return round(time_s * TICKS_PER_SECOND)


def balance(events: Iterable[Note]) -> list[Note]:
    """Return `events` on whole ticks, in order of onset, no two overlapping on one channel and pitch.

    A note whose key is struck again is cut there. Every note lasts at least one tick. Notes that fall on the same tick,
    channel and pitch are one strike: the loudest velocity, the longest duration; the count of notes lost in this way is
    the difference in length. Balancing twice changes nothing.
    """
    strikes: defaultdict[tuple[int, int], dict[int, tuple[int, int]]] = defaultdict(dict)
    for event in events:
        start = to_ticks(event.onset_s)
        end = max(start + 1, to_ticks(event.onset_s + event.duration_s))
        key = strikes[event.channel, event.pitch]
        other_end, other_velocity = key.get(start, (0, 0))
        key[start] = max(end, other_end), max(event.velocity, other_velocity)
    notes = []
    for (channel, pitch), key in strikes.items():
        starts = sorted(key)
        for start, following in zip(starts, [*starts[1:], None], strict=True):
            end, velocity = key[start]
            end = end if following is None else min(end, following)
            notes.append((start, channel, pitch, end, velocity))
    return [
        Note(start / TICKS_PER_SECOND, (end - start) / TICKS_PER_SECOND, pitch, velocity, channel)
        for start, channel, pitch, end, velocity in sorted(notes)
    ]


def note_messages(events: Iterable[Note]) -> list[TimedMessage]:
    """Return the messages of `events`, balanced, in order of time; at one tick every note-off comes before any note-on."""
    timed = []
    for note in balance(events):
        start = to_ticks(note.onset_s)
        timed.append((start, note.velocity, note.channel, note.pitch))
        timed.append((start + to_ticks(note.duration_s), 0, note.channel, note.pitch))
    timed.sort(key=lambda entry: (entry[0], entry[1] > 0, entry[2:]))
    return [TimedMessage(tick, NoteMessage(channel, pitch, velocity)) for tick, velocity, channel, pitch in timed]


class ActiveNotes:
    """The notes that sound now, each with the time at which it is due to end.

    Every method returns the messages to send, in order, and knows no clock: times are the caller's, in any one unit.
    """

    def __init__(self) -> None:
        self._ends: dict[tuple[int, int], float] = {}

    @property
    def sounding(self) -> frozenset[tuple[int, int]]:
        """The (channel, pitch) pairs that sound."""
        return frozenset(self._ends)

    @property
    def next_end(self) -> float | None:
        """The earliest time at which a note is due to end, or None where nothing sounds."""
        return min(self._ends.values(), default=None)

    def note_on(self, channel: int, pitch: int, velocity: int, *, until: float) -> list[NoteMessage]:
        """Strike a note that is due to end at `until`; where it sounds already, it is released first."""
        if not 1 <= velocity <= 127:
            raise ValueError(f"velocity must be from 1 to 127, not {velocity}")
        messages = self.note_off(channel, pitch)
        self._ends[channel, pitch] = until
        return [*messages, NoteMessage(channel, pitch, velocity)]

    def note_off(self, channel: int, pitch: int) -> list[NoteMessage]:
        """End a note; nothing to send where it does not sound."""
        if self._ends.pop((channel, pitch), None) is None:
            return []
        return [NoteMessage(channel, pitch, 0)]

    def extend(self, channel: int, pitch: int, *, until: float) -> None:
        """Let a note that sounds go on until `until`, if that is later than it was due to end."""
        if (channel, pitch) in self._ends:
            self._ends[channel, pitch] = max(until, self._ends[channel, pitch])

    def end_due(self, now: float) -> list[NoteMessage]:
        """End every note that is due by `now`, the earliest first."""
        due = sorted((end, key) for key, end in self._ends.items() if end <= now)
        return [message for _, (channel, pitch) in due for message in self.note_off(channel, pitch)]

    def end_all(self) -> list[NoteMessage]:
        """End everything that sounds."""
        return [message for key in sorted(self._ends) for message in self.note_off(*key)]
