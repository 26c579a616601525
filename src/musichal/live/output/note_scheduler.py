"""The pure core of the scheduler, for one port: notes, a pulse and the moment now in; MIDI messages and clock ticks out.

It knows no clock, no port and no process. Whatever the order of what is asked, and however late it is called, it ends every
note that it struck, on the channel on which that began; what it holds is bounded.

A synthesiser knows one note per channel and pitch. Two that overlap there share one note-off, and the second hangs or is
cut at random; so a key that is struck again is released first (`ActiveNotes`). A pulse that moves is followed over a beat, so
that no tick is early, late or missing: the receiver hears a tempo that changes, not one that jumps.

References
----------
MIDI Polyphonic Expression 1.1 (MIDI Association, M1-100-UM): the configuration message is RPN 6 on the master channel;
RPN 0 is the range of the bend; a note gets the channel that has been free for longest, and its bend before its note-on.
"""

import heapq
import itertools
import math
from collections import deque
from dataclasses import dataclass

from musichal.live.output.scheduler_protocol import LONGEST_NOTE_S, Counts, MpeZone, Outgoing
from musichal.note import Key, Note, Slice

CAPACITY = 20_000
LATE_LIMIT_S = 0.25
"""A note that is later than this is not played: after a pause of the machine it would be one of a heap of notes."""
_SHORTEST_S = 0.01
"""A note that is struck late keeps this much of its length."""
_SAME_STRIKE_S = 0.0005
"""Two strikes of one key closer than this are one: its note would have no length that a MIDI file could hold."""
_BEHIND_S = 0.001
AGAIN_S = 0.1
"""After everything was ended at once, the note-offs are repeated so much later: JACK loses messages where a cycle is missed,
UDP may lose any, and these must get through."""
SILENCE = tuple(bytes((0xB0 | channel, controller, 0)) for channel in range(16) for controller in (64, 123, 120))
"""Pedal up, all notes off, all sound off, on every channel: for what a receiver holds that we do not know of."""
_SLICE_KEY = 0, 0
"""All slices are one key, so that each ends the one before."""
_BEND_CENTRE = 8192


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


class NoteScheduler:
    """What one port has to play, and what sounds there.

    * `latency_s`: How long the port takes until a message is heard: messages leave that much earlier.
    * `lead_s`: How long before a message is to leave the port wants to have it.
    * `zone`: Give each note a member channel of this zone.
    * `capacity`: How many notes are kept at most; what comes beyond is refused and counted.
    * `late_limit_s`: How late a note may be struck.
    """

    def __init__(
        self,
        *,
        latency_s: float = 0.0,
        lead_s: float = 0.0,
        zone: MpeZone | None = None,
        capacity: int = CAPACITY,
        late_limit_s: float = LATE_LIMIT_S,
    ) -> None:
        self.counts = Counts()
        self._latency_s, self._lead_s = latency_s, lead_s
        self._capacity, self._late_limit_s = capacity, late_limit_s
        self._zone = zone
        self._free = deque(zone.channels if zone else ())
        self._busy: deque[int] = deque()
        self._pending: list[tuple[float, int, float, Note | Slice, int, float]] = []
        self._order = itertools.count()
        self._active = ActiveNotes()
        self._again: tuple[float, tuple[Key, ...]] | None = None
        self._muted = False

    @property
    def sounding(self) -> frozenset[Key]:
        """The keys that sound."""
        return self._active.sounding

    @property
    def next_s(self) -> float | None:
        """The moment at which `step` has something to do, or None."""
        ends = (self._active.next_end, self._again[0] if self._again else None)
        moments = [end for end in ends if end is not None]
        if self._pending:
            moments.append(self._pending[0][0])
        return min(moments) - self._lead_s if moments else None

    def play(self, event: Note | Slice, now_s: float, *, tag: int = 0, bend_semitones: float = 0.0) -> bool:
        """Keep a note or a slice until its moment; False, and counted, where there are too many."""
        if len(self._pending) >= self._capacity:
            self.counts.refused += 1
            return False
        target_s = event.onset_s - self._latency_s
        self.counts.behind += target_s < now_s - _BEHIND_S
        heapq.heappush(self._pending, (target_s, next(self._order), now_s, event, tag, bend_semitones))
        return True

    def step(self, now_s: float) -> list[Outgoing]:
        """Return what is to be handed to the port by `now_s`, in order; at one moment note-offs come first."""
        horizon_s = now_s + self._lead_s
        out = self._repeat_ends() if self._again and self._again[0] <= horizon_s else []
        while True:
            end_s = self._active.next_end
            next_s = self._pending[0][0] if self._pending else None
            if end_s is not None and end_s <= horizon_s and (next_s is None or end_s <= next_s):
                out += self._ended(self._active.end_due(end_s), end_s)
            elif next_s is not None and next_s <= horizon_s:
                out += self._strike(now_s)
            else:
                return out

    def panic(self, now_s: float) -> list[Outgoing]:
        """Drop everything, end every note, and tell every channel to be silent."""
        self.counts.cancelled += self._drop()
        return self._end_all(now_s) + [Outgoing(data, now_s, now_s) for data in SILENCE]

    def go_silent(self, now_s: float) -> list[Outgoing]:
        """Drop everything and end every note, because the parent does not answer."""
        self.counts.silent += self._drop()
        pedals_up = [Outgoing(data, now_s, now_s) for data in SILENCE] if self._active.sounding else []
        return self._end_all(now_s) + pedals_up

    def mute(self, muted: bool, now_s: float) -> list[Outgoing]:
        """Strike no note while muted. What sounds ends; what is due meanwhile is counted and gone."""
        self._muted = muted
        return self._end_all(now_s) if muted else []

    def _drop(self) -> int:
        count = len(self._pending)
        self._pending.clear()
        return count

    def _strike(self, now_s: float) -> list[Outgoing]:
        """Strike the next pending note."""
        target_s, _, arrived_s, event, tag, bend_semitones = heapq.heappop(self._pending)
        if self._muted:
            self.counts.muted += 1
            return []
        if now_s - target_s > self._late_limit_s:
            self.counts.late += 1
            return []
        ready_s = max(target_s, arrived_s)
        duration_s = min(event.duration_s, LONGEST_NOTE_S)
        until_s = max(target_s + duration_s, now_s + min(duration_s, _SHORTEST_S))
        (channel, pitch), velocity, piece = _SLICE_KEY, 127, None
        if isinstance(event, Slice):
            piece = event
        else:
            channel, pitch, velocity = event.channel, event.pitch, event.velocity
        out: list[Outgoing] = []
        if self._zone is not None:
            out, channel = self._member_channel(ready_s)
            out.append(Outgoing(bend(bend_semitones, self._zone, channel), target_s, ready_s, tag))
        before = self._active.get((channel, pitch))
        if before is not None and target_s - before.onset < _SAME_STRIKE_S:
            self.counts.merged += 1
            before.until = max(before.until, until_s)
            return out
        out += self._ended(self._active.strike(Active((channel, pitch), target_s, until_s, velocity, tag)), ready_s)
        self.counts.struck += 1
        return [*out, Outgoing(bytes((0x90 | channel, pitch, velocity)), target_s, ready_s, tag, slice=piece)]

    def _member_channel(self, ready_s: float) -> tuple[list[Outgoing], int]:
        """Return the member channel that has been free for longest; where none is free, the oldest note gives way."""
        out: list[Outgoing] = []
        if not self._free:
            self.counts.stolen += 1
            out = self._ended(self._active.end(next(key for key in self.sounding if key[0] == self._busy[0])), ready_s)
        self._busy.append(self._free.popleft())
        return out, self._busy[-1]

    def _ended(self, notes: list[Active], at_s: float) -> list[Outgoing]:
        out = []
        for note in notes:
            channel, pitch = note.key
            if self._zone is not None:
                self._busy.remove(channel)
                self._free.append(channel)
            self.counts.ended += 1
            out.append(Outgoing(bytes((0x80 | channel, pitch, 0)), at_s, at_s, note.tag))
        return out

    def _end_all(self, now_s: float) -> list[Outgoing]:
        ended = self._ended(self._active.end_all(), now_s)
        if ended:
            before = self._again[1] if self._again else ()
            self._again = now_s + self._lead_s + AGAIN_S, tuple(dict.fromkeys((*before, *(out.key for out in ended))))
        return ended

    def _repeat_ends(self) -> list[Outgoing]:
        assert self._again is not None
        (at_s, keys), self._again = self._again, None
        # What was struck again meanwhile is left alone, and so is the channel of an MPE note.
        busy = self._active.sounding
        channels = {channel for channel, _ in busy} if self._zone is not None else set()
        keys = tuple(key for key in keys if key not in busy and key[0] not in channels)
        return [Outgoing(bytes((0x80 | channel, pitch, 0)), at_s, at_s, again=True) for channel, pitch in keys]


def mpe_configuration(zone: MpeZone) -> list[bytes]:
    """Return the messages that set up the zone: the configuration message, then the range of bend on each member."""
    messages = _set_parameter(0, 6, zone.members)
    for channel in zone.channels:
        messages += _set_parameter(channel, 0, zone.bend_semitones)
        messages += [bend(0.0, zone, channel), bytes((0xD0 | channel, 0)), bytes((0xB0 | channel, 74, 64))]
    return messages


def _set_parameter(channel: int, parameter: int, value: int) -> list[bytes]:
    """Return the messages that set a registered parameter, and then leave it, so that stray data cannot change it."""
    pairs = ((101, 0), (100, parameter), (6, value), (38, 0), (101, 127), (100, 127))
    return [bytes((0xB0 | channel, controller, number)) for controller, number in pairs]


def bend(semitones: float, zone: MpeZone, channel: int) -> bytes:
    """Return the pitch bend of `semitones` on a member channel, limited to the zone's range."""
    steps = round(semitones / zone.bend_semitones * _BEND_CENTRE)
    value = min(max(_BEND_CENTRE + steps, 0), 2 * _BEND_CENTRE - 1)
    return bytes((0xE0 | channel, value & 0x7F, value >> 7))


# ── clock ────────────────────────────────────────────────────────────────────

TICKS = 24
START, STOP, TICK = b"\xfa", b"\xfc", b"\xf8"
_START_AHEAD_S = 0.005
"""Start comes so much before the tick that is the first beat."""
_MOST_AT_ONCE = 4
"""After a pause of the machine, older ticks are left out."""


class ClockTicks:
    """What one port has to send.

    `lead_s`: how long before a message is to leave the port wants to have it.
    """

    def __init__(self, *, lead_s: float = 0.0) -> None:
        self.counts = Counts()
        self._lead_s = lead_s
        self._beat_s = self._period_s = 0.0
        self._tick: int | None = None  # the next one, counted from the beat at `_beat_s`; None while it stands
        self._is_started = False
        self._off_s, self._off_from = 0.0, 0  # how far the next tick is from the line, and since which tick

    @property
    def next_s(self) -> float | None:
        """The moment at which `step` has something to do, or None."""
        if self._tick is None:
            return None
        return self._time_s(self._tick) - self._lead_s - (0.0 if self._is_started else _START_AHEAD_S)

    def follow(self, beat_s: float, period_s: float, now_s: float) -> None:
        """Go by a pulse from now on, beats at `beat_s` + k `period_s`."""
        if self._tick is None:
            self._beat_s, self._period_s = beat_s, period_s
            beats = math.ceil((now_s + self._lead_s + _START_AHEAD_S - beat_s) / period_s)
            self._tick, self._off_s, self._is_started = TICKS * beats, 0.0, False
            return
        due_s, place = self._time_s(self._tick), self._tick % TICKS
        self._beat_s, self._period_s = beat_s, period_s
        # The tick of the new line that has the same place in the beat, and is nearest.
        beats = round(((due_s - beat_s) / period_s * TICKS - place) / TICKS)
        self._tick = self._off_from = TICKS * beats + place
        self._off_s = due_s - (beat_s + self._tick * period_s / TICKS)

    def stop(self, now_s: float) -> list[Outgoing]:
        """Stand still; return what says so."""
        was, self._tick = self._is_started, None
        self._is_started = False
        return [Outgoing(STOP, now_s, now_s)] if was else []

    def step(self, now_s: float) -> list[Outgoing]:
        """Return what is to be handed to the port by `now_s`, in order."""
        out: list[Outgoing] = []
        while self._tick is not None and (next_s := self.next_s) is not None and next_s <= now_s:
            at_s = self._time_s(self._tick)
            if not self._is_started:
                self._is_started = True
                out.append(Outgoing(START, at_s - _START_AHEAD_S, at_s - _START_AHEAD_S))
                continue
            self._tick += 1
            out.append(Outgoing(TICK, at_s, at_s))
        return out[-_MOST_AT_ONCE:]

    def panic(self, now_s: float) -> list[Outgoing]:
        """Return nothing: a clock goes on."""
        return []

    def mute(self, muted: bool, now_s: float) -> list[Outgoing]:
        """Return nothing: a clock goes on."""
        return []

    def go_silent(self, now_s: float) -> list[Outgoing]:
        """Stop: nobody says how to go on."""
        return self.stop(now_s)

    def _time_s(self, tick: int) -> float:
        left = max(0.0, 1 - (tick - self._off_from) / TICKS) if self._off_s else 0.0
        return self._beat_s + tick * self._period_s / TICKS + self._off_s * left
