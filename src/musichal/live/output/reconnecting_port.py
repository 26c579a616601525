"""A port that may vanish and come back, without a note left hanging in what it leads to."""

from collections.abc import Callable

from musichal.errors import MusicHalError
from musichal.live.output.messages import Outgoing
from musichal.live.output.ports.protocol import Port, PortLostError

RETRY_S = 1.0


class ReconnectingPort:
    """Sends to a port; where it is lost, remembers which notes the receiver still holds, and ends them when it is back.

    Parameters
    ----------
    port : Port
    reopen : callable
        Opens it anew; may raise `MusicHalError`.
    setup : sequence of bytes
        Messages that a port gets first, whenever it was opened, and after a panic: programs, the configuration of MPE.
    """

    def __init__(self, port: Port, *, reopen: Callable[[], Port], setup: tuple[bytes, ...] = ()) -> None:
        self._port: Port | None = port
        self._reopen, self._setup = reopen, setup
        self._held: set[tuple[int, int]] = set()
        self._retry_s = 0.0
        self.unsent = 0

    @property
    def is_open(self) -> bool:
        """Whether the port is there."""
        return self._port is not None

    @property
    def held(self) -> frozenset[tuple[int, int]]:
        """The (channel, pitch) pairs that the receiver was told to begin and not yet to end."""
        return frozenset(self._held)

    def set_up(self, now_s: float) -> None:
        """Send the messages that come first, to a port that is there. Raises `PortLostError`."""
        if self._port is None:
            return
        try:
            for data in self._setup:
                self._port.send(Outgoing(data, now_s, now_s))
        except PortLostError:
            self._lose(now_s)
            raise

    def send(self, message: Outgoing, now_s: float) -> bool:
        """Send a message; returns whether the port took it. What it does not take is counted.

        Raises `PortLostError`, once, where the port was lost over it.
        """
        if message.is_off and message.key not in self._held and not message.again:
            return False  # ended when the port came back, or never begun
        if self._port is None:
            self.unsent += 1
            return False
        try:
            self._port.send(message)
        except PortLostError:
            self.unsent += 1
            self._lose(now_s)
            raise
        if message.is_on:
            self._held.add(message.key)
        elif message.is_off:
            self._held.discard(message.key)
        return True

    def tend(self, now_s: float) -> tuple[str, str] | None:
        """Look after the port, when there is time: returns (kind of trouble, words), or None where nothing changed."""
        if self._port is not None:
            try:
                warning = self._port.check()
            except PortLostError as error:
                self._lose(now_s)
                return "port-lost", str(error)
            return None if warning is None else ("port", warning)
        if now_s < self._retry_s:
            return None
        self._retry_s = now_s + RETRY_S
        try:
            self._port = self._reopen()
            self.set_up(now_s)
            for channel, pitch in sorted(self._held):
                self._port.send(Outgoing(bytes((0x80 | channel, pitch, 0)), now_s, now_s))
        except (MusicHalError, PortLostError):
            self._close(flush=False)
            return None
        self._held.clear()
        return "port-back", f"{self._port.name} is back"

    def close(self) -> None:
        """Close the port."""
        self._close(flush=True)

    def _lose(self, now_s: float) -> None:
        self._close(flush=False)
        self._retry_s = now_s + RETRY_S

    def _close(self, *, flush: bool) -> None:
        if self._port is not None:
            self._port.close(flush=flush)
            self._port = None
