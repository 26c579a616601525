"""MIDI clock for one port: the pulse and the moment now in, ticks out (24 a beat), with start and stop.

It knows no clock and no port, as `NoteScheduler`. A pulse that moves is followed over a beat, so that no tick is early, late or
missing: the receiver hears a tempo that changes, not one that jumps.
"""

import math

from musichal.live.output.scheduler_protocol import Counts, Outgoing

TICKS = 24
START, STOP, TICK = b"\xfa", b"\xfc", b"\xf8"
_START_AHEAD_S = 0.005
"""Start comes so much before the tick that is the first beat."""
_MOST_AT_ONCE = 4
"""After a pause of the machine, older ticks are left out."""


class ClockTicks:
    """What one port has to send.

    Parameters
    ----------
    lead_s : float
        How long before a message is to leave the port wants to have it.
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
