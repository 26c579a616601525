"""The pure core of the scheduler, for one port: what was asked for and the moment now in, messages to send out.

It knows no clock, no port and no process. Whatever the order of what is asked, and however late it is called, every note
that it strikes it ends on the channel on which it began; what it holds is bounded.
"""

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass

from musichal.live.output.active_notes import ActiveNotes, NoteMessage
from musichal.live.output.messages import Control, Message, Note, Outgoing
from musichal.live.output.mpe import MpeChannels, MpeZone, bend

CAPACITY = 20_000
LATE_LIMIT_S = 0.25
"""A note that is later than this is not played: after a pause of the machine it would be one of a heap of notes."""
_SHORTEST_S = 0.01
"""A note that is struck late keeps this much of its length."""
_SAME_STRIKE_S = 0.0005
"""Two strikes of one key closer than this are one: its note would have no length that a MIDI file could hold."""
_BEHIND_S = 0.001
AGAIN_S = 0.1
"""After everything was ended at once, the ends are told again so much later: JACK loses messages where a cycle is missed,
UDP where it likes, and this must get through."""


@dataclass(slots=True)
class Counts:
    """What became of the notes; see `musichal.live.output.messages.Statistics`."""

    struck: int = 0
    ended: int = 0
    behind: int = 0
    late: int = 0
    muted: int = 0
    cancelled: int = 0
    silent: int = 0
    refused: int = 0
    stolen: int = 0
    merged: int = 0


@dataclass(frozen=True, slots=True)
class _Strike:
    """What is known of a sounding note beyond its end: when it was struck, what for, and how loud."""

    target_s: float
    tag: int


class NoteScheduler:
    """What one port has to play, and what sounds there.

    Parameters
    ----------
    latency_s : float
        How long the port takes until a message is heard: messages leave that much earlier.
    lead_s : float
        How long before a message is to leave the port wants to have it.
    zone : MpeZone, optional
        Give each note a member channel of this zone.
    capacity : int
        How many messages are kept at most; what comes beyond is refused and counted.
    late_limit_s : float
        How late a note may be struck.
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
        self._zone, self._channels = zone, None if zone is None else MpeChannels(zone)
        self._pending: list[tuple[float, int, float, Message]] = []
        self._order = itertools.count()
        self._ledger = ActiveNotes()
        self._strikes: dict[tuple[int, int], _Strike] = {}
        self._again: tuple[float, tuple[tuple[int, int], ...]] | None = None
        self._muted = False

    @property
    def sounding(self) -> frozenset[tuple[int, int]]:
        """The (channel, pitch) pairs that sound."""
        return self._ledger.sounding

    @property
    def pending(self) -> int:
        """How many messages wait for their moment."""
        return len(self._pending)

    @property
    def next_s(self) -> float | None:
        """The moment at which `step` has something to do, or None."""
        ends = (self._ledger.next_end, self._again[0] if self._again else None)
        moments = [end for end in ends if end is not None]
        if self._pending:
            moments.append(self._pending[0][0])
        return min(moments) - self._lead_s if moments else None

    def play(self, message: Message, now_s: float) -> bool:
        """Keep a message until its moment; False, and counted, where there are too many."""
        if len(self._pending) >= self._capacity:
            self.counts.refused += 1
            return False
        target_s = message.due_s - self._latency_s
        if target_s < now_s - _BEHIND_S:
            self.counts.behind += 1
        heapq.heappush(self._pending, (target_s, next(self._order), now_s, message))
        return True

    def step(self, now_s: float) -> list[Outgoing]:
        """Return what is to be handed to the port by `now_s`, in order; at one moment ends come first."""
        horizon_s = now_s + self._lead_s
        out = self._tell_again() if self._again and self._again[0] <= horizon_s else []
        while True:
            end_s = self._ledger.next_end
            next_s = self._pending[0][0] if self._pending else None
            if end_s is not None and end_s <= horizon_s and (next_s is None or end_s <= next_s):
                out += self._ended(self._ledger.end_due(end_s), end_s)
            elif next_s is not None and next_s <= horizon_s:
                target_s, _, arrived_s, message = heapq.heappop(self._pending)
                ready_s = max(target_s, arrived_s)
                if isinstance(message, Control):
                    out.append(Outgoing(message.data, target_s, ready_s, message.tag))
                else:
                    out += self._strike(message, target_s, ready_s, now_s)
            else:
                return out

    def cancel(self, after_s: float) -> None:
        """Drop what is due at `after_s` or later. What sounds goes on to its end."""
        self._drop(lambda message: message.due_s >= after_s, "cancelled")

    def panic(self, now_s: float) -> list[Outgoing]:
        """Drop everything, end every note, and tell every channel to be silent."""
        self._drop(lambda _: True, "cancelled")
        return self._end_all(now_s) + [Outgoing(data, now_s, now_s) for data in SILENCE]

    def go_silent(self, now_s: float) -> list[Outgoing]:
        """Drop everything and end every note, because nobody is there who could want them."""
        self._drop(lambda _: True, "silent")
        pedals_up = [Outgoing(data, now_s, now_s) for data in SILENCE] if self._ledger.sounding else []
        return self._end_all(now_s) + pedals_up

    def mute(self, muted: bool, now_s: float) -> list[Outgoing]:
        """Strike no note while muted. What sounds ends; what is due meanwhile is counted and gone."""
        self._muted = muted
        return self._end_all(now_s) if muted else []

    def _drop(self, is_dropped: Callable[[Message], bool], count: str) -> None:
        kept = [entry for entry in self._pending if not is_dropped(entry[3])]
        notes = sum(isinstance(entry[3], Note) for entry in self._pending) - sum(isinstance(e[3], Note) for e in kept)
        setattr(self.counts, count, getattr(self.counts, count) + notes)
        heapq.heapify(kept)
        self._pending = kept

    def _strike(self, note: Note, target_s: float, ready_s: float, now_s: float) -> list[Outgoing]:
        if self._muted:
            self.counts.muted += 1
            return []
        if now_s - target_s > self._late_limit_s:
            self.counts.late += 1
            return []
        until_s = max(target_s + note.duration_s, now_s + min(note.duration_s, _SHORTEST_S))
        out: list[Outgoing] = []
        channel = note.channel
        if self._zone is not None and self._channels is not None:
            if not self._channels.free:
                self.counts.stolen += 1
                stolen = next(key for key in self._ledger.sounding if key[0] == self._channels.oldest)
                out += self._ended(self._ledger.note_off(*stolen), ready_s)
            channel = self._channels.take()
            out.append(Outgoing(bend(note.bend_semitones, self._zone, channel), target_s, ready_s, note.tag))
        key = channel, note.pitch
        before = self._strikes.get(key)
        if before is not None and target_s - before.target_s < _SAME_STRIKE_S:
            self.counts.merged += 1
            self._ledger.extend(*key, until=until_s)
            return out
        messages = self._ledger.note_on(channel, note.pitch, note.velocity, until=until_s)
        out += self._ended(messages[:-1], ready_s)
        self._strikes[key] = _Strike(target_s, note.tag)
        self.counts.struck += 1
        data, sliced = bytes((0x90 | channel, note.pitch, note.velocity)), None if note.source is None else note
        return [*out, Outgoing(data, target_s, ready_s, note.tag, note=sliced)]

    def _ended(self, messages: list[NoteMessage], at_s: float) -> list[Outgoing]:
        out = []
        for message in messages:
            strike = self._strikes.pop((message.channel, message.pitch))
            if self._channels is not None:
                self._channels.release(message.channel)
            self.counts.ended += 1
            out.append(Outgoing(bytes((0x80 | message.channel, message.pitch, 0)), at_s, at_s, strike.tag))
        return out

    def _end_all(self, now_s: float) -> list[Outgoing]:
        ended = self._ended(self._ledger.end_all(), now_s)
        if ended:
            before = self._again[1] if self._again else ()
            self._again = now_s + self._lead_s + AGAIN_S, tuple(dict.fromkeys((*before, *(out.key for out in ended))))
        return ended

    def _tell_again(self) -> list[Outgoing]:
        assert self._again is not None
        (at_s, keys), self._again = self._again, None
        # What was struck again meanwhile is left alone, and so is the channel of an MPE note.
        busy = self._ledger.sounding
        channels = {channel for channel, _ in busy} if self._zone is not None else set()
        keys = tuple(key for key in keys if key not in busy and key[0] not in channels)
        return [Outgoing(bytes((0x80 | channel, pitch, 0)), at_s, at_s, again=True) for channel, pitch in keys]


SILENCE = tuple(bytes((0xB0 | channel, controller, 0)) for channel in range(16) for controller in (64, 123, 120))
"""Pedal up, all notes off, all sound off, on every channel: for what a receiver holds that we know nothing of."""
