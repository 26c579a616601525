"""The live input as the engine takes it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from musichal.audio.levels import FLOOR_DB
from musichal.live.input.live_input import InputEvent, LiveInput
from musichal.live.live_engine import Arrived

_LEVEL_S = 0.1


@dataclass(frozen=True)
class Level:
    """The level of the input, in dBFS."""

    peak_db: float = FLOOR_DB
    rms_db: float = FLOOR_DB


class LiveSource:
    """A `LiveInput` as a source of sound; what it tells of itself can be taken by `events`."""

    def __init__(self, live: LiveInput) -> None:
        self._live = live
        self._levelled_s = -math.inf
        self.level = Level()
        """Of the latest tenth of a second; replaced as a whole, for any thread."""

    def read(self) -> Sequence[Arrived]:
        """Return what arrived since the last call, without waiting."""
        blocks = []
        while (block := self._live.read()) is not None:
            arrivals = tuple((place - block.end_sample, moment_s) for place, moment_s in block.arrivals)
            blocks.append(Arrived(block.samples, block.lost_before, block.arrived_s, arrivals))
            if block.arrived_s - self._levelled_s >= _LEVEL_S:
                self._levelled_s = block.arrived_s
                levels = self._live.levels()
                self.level = Level(levels.peak_db, levels.rms_db)
        return blocks

    def wait(self, timeout_s: float) -> None:
        """Return as soon as something arrived, or the time is over."""
        self._live.wait(timeout_s)


class InputNews:
    """Hands the events of an input on to whoever is there by then: the input is opened before the engine is made."""

    def __init__(self) -> None:
        self._tell: Callable[[str, str], None] | None = None
        self._early: list[tuple[str, str]] = []

    def __call__(self, event: InputEvent) -> None:
        """Take an event."""
        if event.kind not in ("lost", "behind") or not event.lost_samples:  # those the engine tells of itself
            self.pass_on(f"input-{event.kind}", event.text)

    def pass_on(self, kind: str, text: str) -> None:
        """Take any other news."""
        if self._tell is None:
            self._early.append((kind, text))
        else:
            self._tell(kind, text)

    def give_to(self, tell: Callable[[str, str], None]) -> None:
        """Tell of what was and what will be."""
        self._tell = tell
        early, self._early = self._early, []
        for kind, text in early:
            tell(kind, text)
