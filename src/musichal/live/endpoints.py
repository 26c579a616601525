"""What a live engine reads from and plays to, and what it counts meanwhile."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from musichal.live.input.blocks import Block
from musichal.partner.decision import Decision
from musichal.pulse import Pulse

_TIMES = 2048


class Source(Protocol):
    """An input: blocks of mono, finite samples, shape (n,)."""

    def read(self) -> Sequence[Block]:
        """Return the blocks that arrived since the last call, without waiting."""

    def wait(self, timeout_s: float) -> object:
        """Return as soon as blocks may have arrived, at the latest after `timeout_s`."""


class Output(Protocol):
    """Where the answer goes. Nothing here may wait."""

    def play(self, decision: Decision, moment_of: Callable[[float], float]) -> int:
        """Play a decision; `moment_of` maps a time of the stream to a moment. Return how many notes were accepted."""

    def follow(self, pulse: Callable[[], Pulse | None], moment_of: Callable[[float], float]) -> None:
        """Keep the time of a pulse of the stream, for who asks for it."""

    def mute(self, muted: bool) -> None:
        """End what sounds, and start nothing until it is unmuted."""

    def panic(self) -> None:
        """End every note, and drop those to come."""

    def tend(self) -> Sequence[tuple[str, str]]:
        """Do what is due, at least twice a second; return events for the player: (kind, text)."""

    def statistics(self) -> Mapping[str, object]:
        """Return statistics."""


@dataclass
class LiveCounts:
    """Counts of the performance so far."""

    segments: int = 0
    skipped: int = 0
    deaf: int = 0
    onsets: int = 0
    decisions: int = 0
    plays: int = 0
    notes: int = 0
    changes: int = 0
    refused_changes: int = 0
    marks: int = 0
    lost_samples: int = 0
    gaps: int = 0
    jumps: int = 0
    alarms: int = 0
    tokens: int = 0


@dataclass
class LiveTimes:
    """The latest durations, in seconds."""

    hearing: deque[float] = field(default_factory=lambda: deque(maxlen=_TIMES))
    percept: deque[float] = field(default_factory=lambda: deque(maxlen=_TIMES))
    onset: deque[float] = field(default_factory=lambda: deque(maxlen=_TIMES))
    step: deque[float] = field(default_factory=lambda: deque(maxlen=_TIMES))

    def percentiles(self) -> dict[str, float]:
        """Return median, 99th percentile and maximum of each, in ms."""
        values: dict[str, float] = {}
        for name in self.__dataclass_fields__:
            if durations := list(getattr(self, name)):
                found = np.percentile(durations, [50, 99, 100])
                names = (f"{name}_p50_ms", f"{name}_p99_ms", f"{name}_max_ms")
                values |= {n: round(1000 * float(v), 3) for n, v in zip(names, found, strict=True)}
        return values
