"""What is to be known of a port before it is opened."""

import math
from dataclasses import dataclass

from musichal.live.output.mpe import MpeZone

LONGEST_LATENCY_S = 1.0
MOST_PORTS = 32


@dataclass(frozen=True, slots=True)
class PortSettings:
    """A port: the name that notes are sent to, its address (as `registry.ADDRESSES` lists them), and how to treat it.

    Messages leave `latency_s` (0 to 1) early, for what the instrument behind the port takes to sound. `zone` makes it an
    MPE port. `setup` are messages that go first, whenever it was opened. Raises `ValueError` for values out of range.
    """

    name: str
    address: str
    latency_s: float = 0.0
    zone: MpeZone | None = None
    setup: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if not (math.isfinite(self.latency_s) and 0 <= self.latency_s <= LONGEST_LATENCY_S):
            raise ValueError(f"latency_s must be from 0 to {LONGEST_LATENCY_S:g}, not {self.latency_s!r}")
