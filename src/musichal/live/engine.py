"""The engine: listening and deciding on one clock.

The clock is the input stream itself: a moment is a number of samples heard, at the spec's rate. Things happen in order of
that clock: an onset counts from the sample at which it was decided, a percept from the sample at which it is complete (live:
at which it had been heard), a decision falls due when the partner says so. What is played depends on these events and the
seed alone, not on block sizes or on how fast the machine is.

The `EventLoop` takes events in order and asks the partner. The `Engine` makes them from a listener on the virtual clock, as
fast as the samples are read; on stage they come from a sound card. Both use the same conductor.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from musichal.arrays import AnyArray
from musichal.hearing.listener import Listener
from musichal.hearing.percepts import Onset, Percept
from musichal.live.drift import DriftMonitor, DriftReport
from musichal.partner.decision import Decision


class Player(Protocol):
    """What a conductor asks of a partner. All times are seconds of the input stream, and never go back."""

    @property
    def due_s(self) -> float | None:
        """When it wants to decide next, if nothing happens before; None while it waits for something to happen."""
        ...

    def hear(self, percept: Percept, now_s: float) -> None:
        """Take the next percept of the player."""
        ...

    def hear_onset(self, onset_s: float, now_s: float) -> None:
        """Learn at once that the player struck a note at `onset_s`; the percept follows once its segment is complete."""
        ...

    def change(self, changes: Mapping[str, object], now_s: float) -> None:
        """Take changes by the player's own hand, such as settings; InputError where one is not possible."""
        ...

    def decide(self, now_s: float) -> tuple[Decision, ...]:
        """Decide what is due at `now_s`; `due_s` lies behind `now_s` afterwards, or is None."""
        ...


@dataclass(frozen=True)
class Step:
    """What a block of input brought, each in order of time."""

    percepts: tuple[Percept, ...]
    decisions: tuple[Decision, ...]
    drift: tuple[DriftReport, ...] = ()
    onsets: tuple[Onset, ...] = ()


class EventLoop:
    """Tells a partner what happens, in order, and collects what it decides.

    Parameters
    ----------
    partner : Player
    sample_rate_hz : int
        The rate of the clock.
    """

    def __init__(self, partner: Player, *, sample_rate_hz: int) -> None:
        self._partner = partner
        self._rate_hz = sample_rate_hz
        self._decided_s = -1.0

    @property
    def decided_s(self) -> float:
        """Return the latest time at which it asked the partner to decide; what comes later must lie behind it."""
        return self._decided_s

    def events(self, onsets: Iterable[Onset], percepts: Iterable[Percept]) -> list[Decision]:
        """Take what was heard, each at the sample at which it was complete; return what was decided meanwhile."""
        events: list[tuple[int, Onset | Percept]] = [(onset.decided_at, onset) for onset in onsets]
        events += [(percept.heard.available_at, percept) for percept in percepts]
        decisions: list[Decision] = []
        # Sorting keeps an onset before the percept that is complete at the same sample.
        for at_sample, event in sorted(events, key=lambda e: e[0]):
            decisions += self.onset(event, at_sample) if isinstance(event, Onset) else self.percept(event, at_sample)
        return decisions

    def percept(self, percept: Percept, at_sample: int) -> list[Decision]:
        """Let the partner hear a percept; return what was decided before and because of it."""
        now_s = at_sample / self._rate_hz
        decisions = self.until(at_sample)
        self._partner.hear(percept, now_s)
        return decisions + self._due(now_s)

    def onset(self, onset: Onset, at_sample: int) -> list[Decision]:
        """Let the partner hear an onset; return what was decided before and because of it."""
        now_s = at_sample / self._rate_hz
        decisions = self.until(at_sample)
        self._partner.hear_onset(onset.sample / self._rate_hz, now_s)
        return decisions + self._due(now_s)

    def change(self, changes: Mapping[str, object], at_sample: int) -> list[Decision]:
        """Let the player change something by hand; return what was decided before and because of it."""
        now_s = at_sample / self._rate_hz
        decisions = self.until(at_sample)
        self._partner.change(changes, now_s)
        return decisions + self._due(now_s)

    def until(self, at_sample: int) -> list[Decision]:
        """Take the decisions that fall due before `at_sample`: at that moment itself, events come first."""
        now_s = at_sample / self._rate_hz
        decisions: list[Decision] = []
        while (due_s := self._partner.due_s) is not None and due_s < now_s:
            self._decided_s = max(self._decided_s, due_s)
            decisions += self._partner.decide(due_s)
        return decisions

    def _due(self, now_s: float) -> list[Decision]:
        decisions: list[Decision] = []
        while (due_s := self._partner.due_s) is not None and due_s <= now_s:
            decisions += self._partner.decide(due_s)
        return decisions


class Engine:
    """Lets a partner listen and answer on the virtual clock.

    Parameters
    ----------
    listener : Listener
        Fresh, at the rate of the samples to come.
    partner : Player
    sample_rate_hz : int
        The rate that the listener counts in.
    drift : DriftMonitor, optional
        Watches what is heard; it changes nothing that is played.
    """

    def __init__(self, listener: Listener, partner: Player, *, sample_rate_hz: int, drift: DriftMonitor | None = None) -> None:
        self._listener = listener
        self._conductor = EventLoop(partner, sample_rate_hz=sample_rate_hz)
        self._rate_hz = sample_rate_hz
        self._drift = drift

    @property
    def now_s(self) -> float:
        """Return the time: how much of the stream has been heard, in seconds."""
        return self._listener.samples_heard / self._rate_hz

    def push(self, block: AnyArray) -> Step:
        """Take a block of shape (n,) or (n, channels) and return what came of it."""
        brought = self._listener.push(block)
        return self._step(brought.onsets, brought.percepts)

    def change(self, changes: Mapping[str, object]) -> Step:
        """Change settings now; return what was decided because of it. Raises `InputError` where a change is not possible."""
        return Step((), tuple(self._conductor.change(changes, self._listener.samples_heard)))

    def finish(self) -> Step:
        """End the stream. What was decided is played to its end; nothing new is decided behind the end."""
        rest = self._listener.flush()
        return self._step(rest.onsets, rest.percepts)

    def _step(self, onsets: tuple[Onset, ...], percepts: tuple[Percept, ...]) -> Step:
        decisions = self._conductor.events(onsets, percepts)
        decisions += self._conductor.until(self._listener.samples_heard)
        return Step(percepts, tuple(decisions), self._watch(percepts), onsets)

    def _watch(self, percepts: Iterable[Percept]) -> tuple[DriftReport, ...]:
        return () if self._drift is None else tuple(r for p in percepts for r in self._drift.step(p))
