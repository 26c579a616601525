"""The parts of a live engine: the thread that analyses, what is read from and played to, and what is counted.

The analysis thread takes windows and gives percepts, in order; windows that it has no time for are skipped whole.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from musichal.hearing.encoders import Encoder
from musichal.hearing.listener import Listener
from musichal.hearing.percepts import Percept, Window
from musichal.hearing.vocabulary import Vocabulary
from musichal.live.input.blocks import Block
from musichal.partner.decision import Decision
from musichal.pulse import Pulse
from musichal.spec import PerceptionSpec

CLOSE_S = 2.0
_WARM_UP_SEGMENTS = 3


def warm_up(spec: PerceptionSpec, encoder: Encoder, vocabularies: tuple[Vocabulary, Vocabulary]) -> None:
    """Analyse some noise, so that the first segment takes no longer than any other."""
    listener = Listener(spec, encoder, vocabularies, source_rate_hz=spec.sample_rate_hz)
    length = spec.segment_samples * _WARM_UP_SEGMENTS + spec.lookahead_samples
    listener.push((0.1 * np.random.default_rng(0).standard_normal(length)).astype(np.float32))


@dataclass(frozen=True)
class AnalysedWindow:
    """A percept, and how long its analysis took."""

    percept: Percept
    took_s: float


class AnalysisThread:
    """Analyses windows on a thread of its own.

    * `hear`: Called on the thread only, with windows in order.
    * `most_waiting`: How many windows may wait beside the one that is being analysed. If one more comes, the oldest is
      skipped.
    * `in_thread`: Called first on the thread.
    """

    def __init__(
        self,
        hear: Callable[[Window], Percept],
        *,
        most_waiting: int = 1,
        in_thread: Callable[[], object] = lambda: None,
    ) -> None:
        self._hear, self._most_waiting, self._in_thread = hear, max(1, most_waiting), in_thread
        self._changed = threading.Condition()
        self._waiting: deque[Window] = deque()
        self._heard: deque[AnalysedWindow] = deque()
        self._error: BaseException | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="analysis", daemon=True)
        self._thread.start()

    def submit(self, window: Window) -> list[int]:
        """Queue a window; return the numbers of the windows that are skipped for it."""
        with self._changed:
            self._waiting.append(window)
            skipped = [self._waiting.popleft().index for _ in range(len(self._waiting) - self._most_waiting)]
            self._changed.notify()
        return skipped

    def take(self) -> list[AnalysedWindow]:
        """Return what was analysed since the last call, in order; raises what the analysis raised."""
        with self._changed:
            heard = list(self._heard)
            self._heard.clear()
            error, self._error = self._error, None
        if error is not None:
            raise error
        return heard

    def close(self, timeout_s: float = CLOSE_S) -> bool:
        """Discard queued windows and stop the thread.

        Return False if the thread still runs after `timeout_s`: an encoder that hangs cannot be stopped, only left behind.
        """
        with self._changed:
            self._closing = True
            self._waiting.clear()
            self._changed.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        self._in_thread()
        while True:
            with self._changed:
                while not self._waiting and not self._closing:
                    self._changed.wait()
                if self._closing:
                    return
                window = self._waiting.popleft()
            began_s = time.perf_counter()
            try:
                heard = AnalysedWindow(self._hear(window), time.perf_counter() - began_s)
            except BaseException as error:
                with self._changed:
                    self._error = error
                return
            with self._changed:
                self._heard.append(heard)


def overload_advice(spec: PerceptionSpec, hearing_s: float) -> str:
    """Return what would help a machine that takes `hearing_s` for a segment (NaN if none was analysed yet)."""
    rate = spec.sample_rate_hz
    hop_s = spec.hop_samples / rate
    if math.isnan(hearing_s):
        return "hearing does not keep up: no segment was analysed in time. Is the machine busy with another program?"
    found = f"hearing takes {1000 * hearing_s:.0f} ms for each {1000 * hop_s:.0f} ms of sound, and segments are skipped"
    if hearing_s < 0.5 * hop_s:
        return f"{found}: alone it would keep up, so the machine is busy with another program: end that"
    if spec.encoder.precision == "fp32":
        found += ": `musichal rehear` finds the quickest runtime of this machine, or"
    else:
        found += ":"
    if spec.hop_samples < spec.segment_samples:
        return f"{found} train without --hop, so that segments do not overlap"
    # The encoder's work grows with its window; two thirds of the time is what a stage can spare.
    beside_s = (spec.context_samples + spec.lookahead_samples) / rate
    each = hearing_s / (beside_s + spec.segment_samples / rate)
    if each < 0.6:
        segment_s = each * beside_s / (0.66 - each)
        if segment_s < 5.0 and segment_s > hop_s:
            return f"{found} train with --segment {10 * math.ceil(100 * segment_s)}ms, or with a shorter --context"
    return f"{found} train with a faster encoder or runtime (spectral is the fastest), or a shorter --context"


# ── what it reads from and plays to, and what it counts ───────────────────────

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
