"""The event loop: what was heard goes to the partner in order, and its decisions come out.

The clock is the input stream: a time is a number of samples heard, at the spec's rate. An onset counts from the sample at which
it was decided, a percept from the sample at which it is complete (live: at which it was analysed), and a decision is made when
the partner says that it is due. The decisions depend on these events and the seed, not on block sizes or the machine's speed.

`EventLoop` is the one loop: ``for event in events: partner hears it, partner decides``. `Engine` feeds it from a listener, as
fast as samples are pushed; `musichal.live.live_engine.LiveEngine` feeds it from a sound card, `replay` from an event log.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from musichal.arrays import AnyArray, Float32
from musichal.hearing.listener import Listener
from musichal.hearing.percepts import Onset, Percept
from musichal.live.drift import DriftMonitor, DriftReport
from musichal.live.session.event_log import Entry
from musichal.partner.decision import Decision

Changes = Mapping[str, object]
Event = Onset | Percept | Changes


class Player(Protocol):
    """What an event loop needs of a partner. Times are seconds of the input stream and never decrease."""

    @property
    def due_s(self) -> float | None:
        """When it decides next if no event comes before; None while it waits for an event."""
        ...

    def hear(self, percept: Percept, now_s: float) -> None:
        """Take the next percept."""
        ...

    def hear_onset(self, onset_s: float, now_s: float) -> None:
        """Take an onset as soon as it is known; the percept follows when its segment is complete."""
        ...

    def change(self, changes: Changes, now_s: float) -> str | None:
        """Take changes by the player, such as settings; return a sentence for them, if there is something to say.

        Raises `InputError` for what is not possible.
        """
        ...

    def decide(self, now_s: float) -> tuple[Decision, ...]:
        """Decide what is due at `now_s`; afterwards `due_s` is later than `now_s`, or None."""
        ...


class EventLoop:
    """Gives events to a partner, in order, and returns what it decides.

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
        self.said = ""
        """What the partner said to the last change."""

    @property
    def decided_s(self) -> float:
        """Return the latest time that was decided ahead of an event; all later events must come after it."""
        return self._decided_s

    def listen(self, heard: Iterable[Onset | Percept], *, until: int) -> list[Decision]:
        """Take what was heard, each at the sample at which it was complete, up to the sample `until`; return the decisions."""
        decisions = [d for event in in_order(heard) for d in self.respond(event, complete_at(event))]
        return decisions + self.until(until)

    def respond(self, event: Event, at_sample: int) -> list[Decision]:
        """Take an event; return the decisions that were due before it and those that it caused."""
        now_s = at_sample / self._rate_hz
        decisions = self.until(at_sample)
        if isinstance(event, Percept):
            self._partner.hear(event, now_s)
        elif isinstance(event, Onset):
            self._partner.hear_onset(event.sample / self._rate_hz, now_s)
        else:
            self.said = self._partner.change(event, now_s) or ""
        while (due_s := self._partner.due_s) is not None and due_s <= now_s:
            decisions += self._partner.decide(due_s)
        return decisions

    def until(self, at_sample: int) -> list[Decision]:
        """Return the decisions that are due before `at_sample`; at that sample itself, events come first."""
        now_s = at_sample / self._rate_hz
        decisions: list[Decision] = []
        while (due_s := self._partner.due_s) is not None and due_s < now_s:
            self._decided_s = max(self._decided_s, due_s)
            decisions += self._partner.decide(due_s)
        return decisions


def complete_at(event: Onset | Percept) -> int:
    """Return the sample at which an onset was decided, or a percept was complete."""
    return event.decided_at if isinstance(event, Onset) else event.heard.available_at


def in_order(heard: Iterable[Onset | Percept]) -> list[Onset | Percept]:
    """Return what was heard in order of completion; an onset comes before the percept that is complete at the same sample."""
    return sorted(heard, key=lambda event: (complete_at(event), isinstance(event, Percept)))


@dataclass(frozen=True)
class Step:
    """What a block of input caused, each in order of time."""

    percepts: tuple[Percept, ...]
    decisions: tuple[Decision, ...]
    drift: tuple[DriftReport, ...] = ()
    onsets: tuple[Onset, ...] = ()


class Engine:
    """Lets a partner answer blocks of samples, on the clock of the stream.

    Parameters
    ----------
    listener : Listener
        Fresh, at the rate of the samples to come.
    partner : Player
    sample_rate_hz : int
        The spec's rate.
    drift : DriftMonitor, optional
        Watches the percepts; it does not change what is played.
    """

    def __init__(self, listener: Listener, partner: Player, *, sample_rate_hz: int, drift: DriftMonitor | None = None) -> None:
        self._listener = listener
        self._loop = EventLoop(partner, sample_rate_hz=sample_rate_hz)
        self._rate_hz = sample_rate_hz
        self._drift = drift

    @property
    def now_s(self) -> float:
        """Return how much of the stream was heard, in seconds."""
        return self._listener.samples_heard / self._rate_hz

    def push(self, block: AnyArray) -> Step:
        """Take a block of shape (n,) or (n, channels) and return what it caused."""
        heard = self._listener.push(block)
        return self._step(heard.onsets, heard.percepts)

    def change(self, changes: Changes) -> Step:
        """Change settings now; return what was decided because of it. Raises `InputError` where a change is not possible."""
        return Step((), tuple(self._loop.respond(changes, self._listener.samples_heard)))

    def finish(self) -> Step:
        """End the stream. What was decided is played to its end; nothing is decided after the end."""
        rest = self._listener.flush()
        return self._step(rest.onsets, rest.percepts)

    def _step(self, onsets: tuple[Onset, ...], percepts: tuple[Percept, ...]) -> Step:
        decisions = self._loop.listen([*onsets, *percepts], until=self._listener.samples_heard)
        drift = () if self._drift is None else tuple(r for p in percepts for r in self._drift.step(p))
        return Step(percepts, tuple(decisions), drift, onsets)


class EngineObserver:
    """Observer of a live performance. Implementations must not block; by default, each method does nothing."""

    def sound(self, samples: Float32) -> None:
        """Take samples of the input, shape (n,), mono."""

    def entry(self, entry: Entry) -> None:
        """Take an entry of the event log: what reached the partner, and when."""

    def percept(self, percept: Percept) -> None:
        """Take a percept."""

    def decision(self, decision: Decision) -> None:
        """Take a decision."""

    def drift(self, report: DriftReport) -> None:
        """Take an alarm about the input."""

    def event(self, at_s: float, kind: str, text: str) -> None:
        """Take any other event, at a time of the stream; `kind` is a fixed word for programs."""

    def statistics(self, values: dict[str, object]) -> None:
        """Take statistics of the performance so far, about once a second."""


class ObserverThread(EngineObserver):
    """Calls observers on a thread of its own, in order, so that their work does not delay a decision.

    An observer that raises is called no more; `on_error` gets a sentence about it.

    Parameters
    ----------
    observers : sequence of EngineObserver
    on_error : callable
    """

    def __init__(self, observers: Sequence[EngineObserver], *, on_error: Callable[[str], object]) -> None:
        self._observers, self._on_error = list(observers), on_error
        self._calls: queue.SimpleQueue[tuple[str, tuple[Any, ...]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="observers", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float = 10.0) -> None:
        """Deliver what waits, for at most `timeout_s`, and stop."""
        self._calls.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            name, arguments = call
            for observer in list(self._observers):
                try:
                    getattr(observer, name)(*arguments)
                except Exception as error:
                    self._observers.remove(observer)
                    self._on_error(f"{type(observer).__name__} failed: {type(error).__name__}: {error}")

    def sound(self, samples: Float32) -> None:
        """Pass samples on."""
        self._calls.put(("sound", (samples,)))

    def entry(self, entry: Entry) -> None:
        """Pass an entry on."""
        self._calls.put(("entry", (entry,)))

    def percept(self, percept: Percept) -> None:
        """Pass a percept on."""
        self._calls.put(("percept", (percept,)))

    def decision(self, decision: Decision) -> None:
        """Pass a decision on."""
        self._calls.put(("decision", (decision,)))

    def drift(self, report: DriftReport) -> None:
        """Pass an alarm on."""
        self._calls.put(("drift", (report,)))

    def event(self, at_s: float, kind: str, text: str) -> None:
        """Pass an event on."""
        self._calls.put(("event", (at_s, kind, text)))

    def statistics(self, values: dict[str, object]) -> None:
        """Pass statistics on."""
        self._calls.put(("statistics", (values,)))
