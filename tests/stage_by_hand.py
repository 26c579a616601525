"""A stage that needs no sound card, ports or time: sound and time by hand, hearing as late as a test wants."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from musichal.hearing.encoders import create_encoder
from musichal.hearing.listener import Listener
from musichal.hearing.percepts import Percept, Window
from musichal.live.engine import EngineObserver, EventLoop, Player
from musichal.live.input.blocks import Block
from musichal.live.live_engine import LiveEngine
from musichal.live.parts import AnalysedWindow, AnalysisThread
from musichal.live.session.event_log import Entry, Played, Struck
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

    def observe(self, position: int, moment_s: float) -> None:
        self.start_s = moment_s - position / self.rate_hz

    def time_of(self, position: float) -> float:
        return self.start_s + position / self.rate_hz

    def position_at(self, moment_s: float) -> float:
        return (moment_s - self.start_s) * self.rate_hz


class KeptEntries(EngineObserver):
    """What reached the partner while it plays, and what was told."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.told: list[str] = []

    def entry(self, entry: Entry) -> None:
        self.entries.append(entry)

    def event(self, at_s: float, kind: str, text: str) -> None:
        self.told.append(f"{kind} {text}")

    def struck(self) -> list[int]:
        """Return the keys whose onset reached the partner."""
        return [pitch for entry in self.entries if isinstance(entry, Struck) for pitch in entry.onset.pitches]

    def played(self) -> list[int]:
        """Return the keys whose note reached the partner, once it had ended."""
        return [note.pitch for entry in self.entries if isinstance(entry, Played) for note in entry.notes]


class HandSource:
    """Blocks that a test puts in."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []

    def read(self) -> Sequence[Block]:
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

    def follow(self, pulse: Callable[[], object], moment_of: Callable[[float], float]) -> None:
        pass

    def mute(self, muted: bool) -> None:
        self.done.append("mute" if muted else "unmute")

    def panic(self) -> None:
        self.done.append("panic")

    def tend(self) -> Sequence[tuple[str, str]]:
        return ()

    def statistics(self) -> Mapping[str, object]:
        return {}


class AnalysisAtOnce:
    """Analyses each window when it is submitted."""

    def __init__(self, hear: Callable[[Window], Percept]) -> None:
        self.hear, self.heard = hear, []

    def submit(self, window: Window) -> list[int]:
        self.heard.append(AnalysedWindow(self.hear(window), 0.0))
        return []

    def take(self) -> list[AnalysedWindow]:
        heard, self.heard = self.heard, []
        return heard

    def close(self) -> bool:
        return True


class SlowAnalysis:
    """Analyses a window only after so many calls of `take`, as `delays` says; skips as `AnalysisThread` does."""

    def __init__(self, hear: Callable[[Window], Percept], delays: Callable[[int], int], *, most_waiting: int = 1) -> None:
        self.hear, self.delays, self.most_waiting = hear, delays, most_waiting
        self.waiting: deque[Window] = deque()
        self.current: tuple[Window, int] | None = None

    def submit(self, window: Window) -> list[int]:
        self.waiting.append(window)
        return [self.waiting.popleft().index for _ in range(len(self.waiting) - self.most_waiting)]

    def take(self) -> list[AnalysedWindow]:
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
        return [AnalysedWindow(self.hear(window), 0.01)]

    def close(self) -> bool:
        self.waiting.clear()
        return True


@dataclass
class HandStage:
    """A `LiveEngine` of a real partner that a test drives block by block."""

    engine: LiveEngine
    source: HandSource
    output: HandOutput
    clock: HandClock
    line: LineClock
    rate_hz: int
    position: int = 0

    def send(self, samples: np.ndarray, *, lost_before: int = 0) -> None:
        """Let time pass, and a block arrive at its end."""
        self.clock.now += (len(samples) + lost_before) / self.rate_hz
        self.arrive(samples, lost_before=lost_before)
        self.engine.step()

    def arrive(self, samples: np.ndarray, *, lost_before: int = 0) -> None:
        """Let a block arrive now."""
        block = Block(samples, self.clock.now, lost_before, first_sample=self.position + lost_before)
        self.position = block.end_sample
        self.line.observe(self.position, self.clock.now)
        self.source.blocks.append(block)


def hand_stage(
    model: PartnerModel,
    *,
    rate_hz: int,
    block: int = 256,
    analysis: Callable[[Callable[[Window], Percept]], "AnalysisThread | AnalysisAtOnce"] = AnalysisAtOnce,
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
    line = LineClock(rate_hz, clock.now)
    engine = LiveEngine(
        source=source,
        front_end=listener.front_end,
        analysis=analysis(listener.step),
        loop=EventLoop(player, sample_rate_hz=spec.sample_rate_hz),
        output=output,
        clock=line,
        spec=spec,
        source_rate_hz=rate_hz,
        block=block,
        now_s=clock,
        **{"suspended_s": lambda: 0.0, **options},
    )
    return HandStage(engine, source, output, clock, line, rate_hz)


def partner_of(model: PartnerModel, settings: PartnerSettings | None = None, seed: int = 0) -> Partner:
    """Return a fresh partner."""
    rng = np.random.default_rng(seed)
    return Partner(model.memory, settings or PartnerSettings(), rng=rng, sample_rate_hz=model.spec.sample_rate_hz)
