"""What the scheduler asks of a port."""

from typing import Protocol

from musichal.live.output.scheduler_protocol import Outgoing


class PortLostError(Exception):
    """The port is not there any more, or refuses what is sent; the message says why, in one line."""


class Port(Protocol):
    """An open port. It is used by one thread; nothing in it waits for longer than a moment."""

    @property
    def name(self) -> str:
        """What was really opened, for people."""

    @property
    def lead_s(self) -> float:
        """How long before its moment (`Outgoing.target_s`) the port wants to be given a message; 0 sends it at once."""

    def send(self, message: Outgoing) -> None:
        """Send a message, or take it to be sent at its moment; in order. Raises `PortLostError`."""

    def check(self) -> str | None:
        """Raise `PortLostError` if the port is not there any more; returns what else a player should know, once.

        Called about once a second, when there is time.
        """

    def close(self, *, flush: bool = True) -> None:
        """Close; with `flush` let what was sent get out first. Never raises."""
