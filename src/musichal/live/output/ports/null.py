"""The port that goes nowhere: where there is no MIDI system, the partner plays on, and what it plays is told as events."""

from musichal.live.output.scheduler_protocol import Outgoing


class NullPort:
    """Takes everything."""

    name = "nowhere (notes are only told as events)"
    lead_s = 0.0

    def send(self, message: Outgoing) -> None:
        """Do nothing."""

    def check(self) -> str | None:
        """Look after nothing."""
        return None

    def close(self, *, flush: bool = True) -> None:
        """Close nothing."""
