"""A stage that needs no sound card, ports or time: sound and time by hand, hearing as late as a test wants."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from musichal.hearing.encoders import create_encoder
from musichal.hearing.listener import Listener
from musichal.hearing.percepts import Percept, Window
from musichal.live.analysis_thread import HeardWindow, Hearing, HearingAtOnce
from musichal.live.engine import EventLoop, Player
from musichal.live.live_engine import Arrived, LiveEngine
from musichal.memory.partner_file import PartnerModel
from musichal.partner.decision import Decision
from musichal.partner.partner import Partner
from musichal.partner.settings import PartnerSettings


@dataclass
class HandClock:
    """The machine's clock, moved by hand."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


class LineClock:
    """From positions to moments of a `HandClock`, without jitter."""

    def __init__(self, rate_hz: int, start_s: float) -> None:
        self.rate_hz, self.start_s = rate_hz, start_s

    def update(self, sample: int, monotonic_s: float) -> None:
        self.start_s = monotonic_s - sample / self.rate_hz

    def time_of(self, sample: float) -> float:
        return self.start_s + sample / self.rate_hz

    def sample_at(self, monotonic_s: float) -> float:
        return (monotonic_s - self.start_s) * self.rate_hz


class HandSource:
    """Blocks that a test puts in."""

    def __init__(self) -> None:
        self.blocks: list[Arrived] = []

    def read(self) -> Sequence[Arrived]:
        blocks, self.blocks = self.blocks, []
        return blocks

    def wait(self, timeout_s: float) -> None:
        pass


@dataclass
class HandOutput:
    """Keeps what it is asked for."""

    played: list[tuple[Decision, float]] = field(default_factory=list)
    done: list[str] = field(default_factory=list)

    def play(self, decision: Decision, moment_of: Callable[[float], float]) -> int:
        self.played.append((decision, moment_of(decision.time_s)))
        return len(decision.notes)

    def mute(self, muted: bool) -> None:
        self.done.append("mute" if muted else "unmute")

    def panic(self) -> None:
        self.done.append("panic")

    def tend(self) -> Sequence[tuple[str, str]]:
        return ()

    def statistics(self) -> Mapping[str, object]:
        return {}


class SlowHearing:
    """Hears a window only after so many calls of `take`, as `delays` says; skips as `AnalysisThread` does."""

    def __init__(self, hear: Callable[[Window], Percept], delays: Callable[[int], int], *, most_waiting: int = 1) -> None:
        self.hear, self.delays, self.most_waiting = hear, delays, most_waiting
        self.waiting: deque[Window] = deque()
        self.current: tuple[Window, int] | None = None

    def submit(self, window: Window) -> list[int]:
        self.waiting.append(window)
        return [self.waiting.popleft().index for _ in range(len(self.waiting) - self.most_waiting)]

    def take(self) -> list[HeardWindow]:
        if self.current is None and self.waiting:
            window = self.waiting.popleft()
            self.current = window, self.delays(window.index)
        if self.current is None:
            return []
        window, left = self.current
        if left > 0:
            self.current = window, left - 1
            return []
        self.current = None
        return [HeardWindow(self.hear(window), 0.01)]

    def close(self) -> None:
        self.waiting.clear()


@dataclass
class HandStage:
    """A `LiveEngine` of a real partner that a test drives block by block."""

    engine: LiveEngine
    source: HandSource
    output: HandOutput
    clock: HandClock
    rate_hz: int

    def send(self, samples: np.ndarray, *, lost_before: int = 0) -> None:
        """Let time pass, and a block arrive at its end."""
        self.clock.now += (len(samples) + lost_before) / self.rate_hz
        self.source.blocks.append(Arrived(samples, lost_before, self.clock.now))
        self.engine.step()


def hand_stage(
    model: PartnerModel,
    *,
    rate_hz: int,
    block: int = 256,
    hearing: Callable[[Callable[[Window], Percept]], Hearing] = HearingAtOnce,
    settings: PartnerSettings | None = None,
    seed: int = 0,
    player: Player | None = None,
    **options,
) -> HandStage:
    """Set a stage up for a partner."""
    spec = model.spec
    listener = Listener(spec, create_encoder(spec), model.vocabularies, source_rate_hz=rate_hz)
    player = player or partner_of(model, settings, seed)
    clock, source, output = HandClock(), HandSource(), HandOutput()
    engine = LiveEngine(
        source=source,
        intake=listener.front_end,
        hearing=hearing(listener.step),
        conductor=EventLoop(player, sample_rate_hz=spec.sample_rate_hz),
        output=output,
        clock=LineClock(rate_hz, clock.now),
        spec=spec,
        source_rate_hz=rate_hz,
        block=block,
        now_s=clock,
        wall_s=clock,
        **options,
    )
    return HandStage(engine, source, output, clock, rate_hz)


def partner_of(model: PartnerModel, settings: PartnerSettings | None = None, seed: int = 0) -> Partner:
    """Return a fresh partner."""
    rng = np.random.default_rng(seed)
    return Partner(model.memory, settings or PartnerSettings(), rng=rng, sample_rate_hz=model.spec.sample_rate_hz)
