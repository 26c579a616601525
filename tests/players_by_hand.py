"""Players that need no sound: percepts made by hand or heard once, and a listener that hands them out."""

import hashlib
import pickle
from collections.abc import Hashable, Mapping, Sequence
from typing import ClassVar
from unittest.mock import patch

import numpy as np

from musichal.arrays import AnyArray
from musichal.hearing.beats import BeatHabit, BeatTracker
from musichal.hearing.encoders import create_encoder
from musichal.hearing.listener import Listener
from musichal.hearing.percepts import Gesture, ListenerResult, Onset, Percept, SegmentFeatures
from musichal.live.engine import Engine, EventLoop
from musichal.memory.memory import Memory
from musichal.memory.partner_file import PartnerModel
from musichal.partner.decision import Decision
from musichal.partner.partner import Partner
from musichal.partner.settings import PartnerSettings
from musichal.pulse import Pulse

RATE = 24_000
SEGMENT = 8_400
ONSET_LAG = 640
"""About as many samples as it takes to know an onset."""


def percept(
    index: int,
    *,
    gestures: Sequence[Gesture] = (),
    chroma: Sequence[float] | AnyArray = (0.0,) * 12,
    audible: bool = True,
    length: int = SEGMENT,
) -> Percept:
    """Return the percept of segment `index` of the default grid, its chroma the same in all of its frames."""
    frames = np.arange(26, dtype=np.int64) * 320 + 200
    n = len(frames)
    start = index * SEGMENT
    heard = SegmentFeatures(
        index=index,
        start_sample=start,
        length_samples=length,
        available_at=start + length,
        frame_samples=frames + start,
        features=(np.zeros((n, 1), np.float32),) * 2,
        source_level_db=np.full((2, n), -20, np.float32),
        audible=np.full((2, n), audible),
        level_db=np.full(n, -20, np.float32),
        chroma=np.tile(np.asarray(chroma, dtype=np.float32), (n, 1)),
        salience=np.zeros((n, 61), np.float32),
        onset_samples=(),
        notes=(),
    )
    return Percept(heard, np.zeros((2, n), np.int16), tuple(gestures))


class ScriptedListener:
    """Hands out percepts, and their onsets where that is asked for, once as many samples have come as each needs."""

    def __init__(self, percepts: Sequence[Percept], *, onsets: bool = False) -> None:
        self.left = list(percepts)
        self.onsets = [Onset(o, o + ONSET_LAG) for p in percepts for o in p.heard.onset_samples] if onsets else []
        self.samples_heard = 0

    def push(self, block: AnyArray) -> ListenerResult:
        self.samples_heard += len(block)
        ready = tuple(p for p in self.left if p.heard.available_at <= self.samples_heard)
        self.left = self.left[len(ready) :]
        struck = tuple(o for o in self.onsets if o.decided_at <= self.samples_heard)
        self.onsets = self.onsets[len(struck) :]
        return ListenerResult(struck, ready)

    def flush(self) -> ListenerResult:
        rest, self.left = tuple(self.left), []
        return ListenerResult(percepts=rest)


class SharedBeatTracker:
    """Finds the pulse as a `BeatTracker` does, but hears the same percepts once for all tests: that takes long."""

    _known: ClassVar[dict[Hashable, tuple[int, Pulse | None]]] = {}

    def __init__(self, habit: BeatHabit | None = None) -> None:
        self._habit = habit
        self._tracker: BeatTracker | None = None
        self._unheard: list[Percept] = []
        self._past: Hashable = None if habit is None else tuple(map(bytes, habit))
        self._pulse: Pulse | None = None

    def hear(self, percept: Percept, *, sample_rate_hz: int) -> None:
        self._unheard.append(percept)
        key = self._past, hashlib.blake2b(pickle.dumps(percept.heard), digest_size=20).digest(), sample_rate_hz
        if key not in self._known:
            self._tracker = self._tracker or BeatTracker(self._habit)
            for one in self._unheard:
                self._tracker.hear(one, sample_rate_hz=sample_rate_hz)
            self._unheard.clear()
            self._known[key] = len(self._known), self._tracker.pulse()
        self._past, self._pulse = self._known[key]

    def pulse(self) -> Pulse | None:
        return self._pulse


def hear(model: PartnerModel, samples: AnyArray, rate: int) -> list[Percept]:
    """Return what the real listener hears."""
    listener = Listener(model.spec, create_encoder(model.spec), model.vocabularies, source_rate_hz=rate)
    return list(listener.listen(samples).percepts)


def answer(
    memory: Memory, percepts: Sequence[Percept], settings: PartnerSettings | None = None, *, seed: int = 0, block: int = 480,
    onsets: bool = False, wishes: Sequence[tuple[float, Mapping[str, object]]] = (), knows_its_sound: bool = True,
) -> list[Decision]:  # fmt: skip
    """Return what a partner decides while these percepts come, and the player wishes something at some seconds."""
    rng = np.random.default_rng(seed)
    with patch("musichal.partner.room_pulse.BeatTracker", SharedBeatTracker):
        partner = Partner(memory, settings or PartnerSettings(), rng=rng, sample_rate_hz=RATE, knows_its_sound=knows_its_sound)
    loop = EventLoop(partner, sample_rate_hz=RATE)
    listener = ScriptedListener(percepts, onsets=onsets)
    engine = Engine(listener, partner, sample_rate_hz=RATE)  # type: ignore[arg-type]
    end = max((p.heard.available_at for p in percepts), default=0)
    waiting = sorted(wishes, key=lambda wish: wish[0])
    decisions: list[Decision] = []
    for first in range(0, end, block):
        while waiting and waiting[0][0] * RATE <= first:
            decisions += loop.respond(waiting.pop(0)[1], first)
        decisions += engine.push(np.zeros(min(block, end - first), np.float32)).decisions
    return [*decisions, *engine.finish().decisions]


def plays(decisions: Sequence[Decision]) -> list[tuple]:
    """Return what is heard of decisions: states, transpositions and notes in time."""
    return [(d.time_s, d.state, d.transposition, d.notes) for d in decisions if d.kind == "play"]
