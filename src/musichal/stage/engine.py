"""The engine: listening and deciding on one clock.

The clock is the input stream itself: a moment is a number of samples heard, at the spec's rate. A percept counts from the
sample at which it is complete; a decision falls due when what was decided before is over. Both are taken strictly in that
order, so what is played depends on the input and the seed alone, not on block sizes or on how fast the machine is. Offline
the samples come as fast as they are read, on stage as the sound card gives them.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from musichal.arrays import AnyArray
from musichal.hearing.listener import Listener
from musichal.hearing.percepts import Percept
from musichal.partner.decision import Decision
from musichal.partner.partner import Partner
from musichal.stage.drift import DriftMonitor, DriftReport


@dataclass(frozen=True)
class Step:
    """What a block of input brought, each in order of time."""

    percepts: tuple[Percept, ...]
    decisions: tuple[Decision, ...]
    drift: tuple[DriftReport, ...] = ()


class Engine:
    """Lets a partner listen and answer.

    Parameters
    ----------
    listener : Listener
        Fresh, at the rate of the samples to come.
    partner : Partner
    sample_rate_hz : int
        The rate that the listener counts in.
    drift : DriftMonitor, optional
        Watches what is heard; it changes nothing that is played.
    """

    def __init__(self, listener: Listener, partner: Partner, *, sample_rate_hz: int, drift: DriftMonitor | None = None) -> None:
        self._listener = listener
        self._partner = partner
        self._rate_hz = sample_rate_hz
        self._drift = drift
        # While it rests, nothing is due: the next percept makes it decide again.
        self._due_s: float | None = None
        self._rest: str | None = None

    @property
    def now_s(self) -> float:
        """Return the time: how much of the stream has been heard, in seconds."""
        return self._listener.samples_heard / self._rate_hz

    def push(self, block: AnyArray) -> Step:
        """Take a block of shape (n,) or (n, channels) and return what came of it."""
        percepts = self._listener.push(block)
        decisions = self._process(percepts)
        decisions += self._decide_until(self.now_s)
        return Step(tuple(percepts), tuple(decisions), self._watch(percepts))

    def finish(self) -> Step:
        """End the stream. What was decided is played to its end; nothing new is decided behind the end."""
        rest = self._listener.flush()
        decisions = self._process(list(rest.percepts))
        decisions += self._decide_until(self.now_s)
        return Step(rest.percepts, tuple(decisions), self._watch(rest.percepts))

    def _process(self, percepts: list[Percept]) -> list[Decision]:
        decisions: list[Decision] = []
        for percept in percepts:
            time_s = percept.heard.available_at / self._rate_hz
            decisions += self._decide_until(time_s)
            self._partner.hear(percept)
            if self._due_s is None:
                decisions += self._decide(time_s)
        return decisions

    def _watch(self, percepts: Iterable[Percept]) -> tuple[DriftReport, ...]:
        return () if self._drift is None else tuple(r for p in percepts for r in self._drift.step(p))

    def _decide_until(self, time_s: float) -> list[Decision]:
        """Take the decisions that fall due before `time_s`: at that moment itself, a percept comes first."""
        decisions: list[Decision] = []
        while self._due_s is not None and self._due_s < time_s:
            decisions += self._decide(self._due_s)
        return decisions

    def _decide(self, time_s: float) -> list[Decision]:
        decision = self._partner.decide(time_s)
        if decision.kind == "play":
            self._due_s, self._rest = time_s + decision.duration_s, None
            return [decision]
        # One record for one rest: it is written again only if its reason changes.
        self._due_s, before, self._rest = None, self._rest, decision.rest
        return [] if decision.rest == before else [decision]
