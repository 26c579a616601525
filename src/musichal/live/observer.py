"""Who is told what happens on stage: a session, a display, a receiver of OSC."""

from musichal.arrays import Float32
from musichal.hearing.percepts import Percept
from musichal.live.drift import DriftReport
from musichal.live.session.event_log import Entry
from musichal.partner.decision import Decision


class EngineObserver:
    """Told in the engine's thread, so each of these must return at once; here they all do nothing."""

    def sound(self, samples: Float32) -> None:
        """Take samples of the input, shape (n,), as hearing gets them."""

    def entry(self, entry: Entry) -> None:
        """Learn what reached the partner."""

    def percept(self, percept: Percept) -> None:
        """Learn what was heard."""

    def decision(self, decision: Decision, reason: str) -> None:
        """Learn of a decision, and its reason in words."""

    def drift(self, report: DriftReport) -> None:
        """Learn of an alarm about the input."""

    def event(self, at_s: float, kind: str, text: str) -> None:
        """Learn what else happened, at a time of the stream; `kind` is a fixed word for programs."""

    def statistics(self, values: dict[str, object]) -> None:
        """Learn figures of the performance so far, about once a second."""
