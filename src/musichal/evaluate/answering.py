"""Letting partners answer the same recording many times, hearing it once.

What is heard does not depend on who answers, and it is what takes the time. So an excerpt is heard once, by the same listener
as on stage, and every partner that is measured is told the same onsets and percepts by the same event loop.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle

import numpy as np

from musichal.arrays import Float32
from musichal.errors import InputError
from musichal.hearing.encoders import create_encoder
from musichal.hearing.listener import Listener
from musichal.hearing.percepts import Onset, Percept
from musichal.live.engine import EventLoop, Player
from musichal.live.performance import HeardStream, heard_stream
from musichal.memory.memory import Memory
from musichal.memory.partner_file import PartnerModel
from musichal.note import HeardNote, Note
from musichal.partner.decision import Decision

_BLOCK_S = 1.0


@dataclass(frozen=True)
class Excerpt:
    """A stretch of a recording, heard: what happened in it, in order, up to `end_sample` of the spec's rate."""

    name: str
    start_s: float
    sample_rate_hz: int
    end_sample: int
    onsets: tuple[Onset, ...]
    percepts: tuple[Percept, ...]

    @property
    def duration_s(self) -> float:
        """Return how long it is."""
        return self.end_sample / self.sample_rate_hz

    @property
    def heard(self) -> HeardStream:
        """Return what was heard of it as arrays."""
        return heard_stream(self.percepts, self.sample_rate_hz)

    @property
    def notes(self) -> list[HeardNote]:
        """Return the notes that were heard of it, as they ended."""
        return [note for percept in self.percepts for note in percept.heard.notes]


def hear_excerpt(model: PartnerModel, samples: Float32, *, sample_rate_hz: int, name: str, start_s: float = 0.0) -> Excerpt:
    """Hear samples of shape (n,) with a partner's ears, from silence.

    Raises
    ------
    InputError
        If they cannot be heard, or are too short for a single frame.
    """
    spec = model.spec
    listener = Listener(spec, create_encoder(spec), model.vocabularies, source_rate_hz=sample_rate_hz)
    heard = listener.listen(samples, block_samples=round(_BLOCK_S * sample_rate_hz))
    if not heard.percepts:
        raise InputError(f"{name} is too short: there is not one whole frame of sound in it")
    return Excerpt(name, start_s, spec.sample_rate_hz, listener.samples_heard, heard.onsets, heard.percepts)


def joined(excerpts: Sequence[Excerpt], *, duration_s: float) -> Excerpt:
    """Return excerpts one after the other, over and over, as one stream of at least `duration_s`."""
    rate = excerpts[0].sample_rate_hz
    onsets: list[Onset] = []
    percepts: list[Percept] = []
    end = 0
    for excerpt in cycle(excerpts):
        if end >= duration_s * rate:
            break
        onsets += [Onset(o.sample + end, o.decided_at + end) for o in excerpt.onsets]
        percepts += [_later(p, end, rate) for p in excerpt.percepts]
        end += excerpt.end_sample
    return Excerpt(" + ".join(dict.fromkeys(e.name for e in excerpts)), 0.0, rate, end, tuple(onsets), tuple(percepts))


def _later(percept: Percept, samples: int, rate: int) -> Percept:
    """Return a percept moved in time."""
    heard, seconds = percept.heard, samples / rate
    return replace(
        percept,
        heard=replace(
            heard,
            start_sample=heard.start_sample + samples,
            available_at=heard.available_at + samples,
            frame_samples=heard.frame_samples + samples,
            onset_samples=tuple(o + samples for o in heard.onset_samples),
            notes=tuple(replace(n, onset_s=n.onset_s + seconds) for n in heard.notes),
        ),
        gestures=tuple(replace(g, start_s=g.start_s + seconds) for g in percept.gestures),
    )


def answer(excerpt: Excerpt, player: Player) -> tuple[Decision, ...]:
    """Return what a fresh partner decides while it hears an excerpt."""
    loop = EventLoop(player, sample_rate_hz=excerpt.sample_rate_hz)
    return tuple(loop.listen([*excerpt.onsets, *excerpt.percepts], until=excerpt.end_sample))


def notes_of(decisions: Sequence[Decision]) -> list[Note]:
    """Return all notes of an answer, in order of onset."""
    return sorted((n for d in decisions for n in d.notes), key=lambda n: (n.onset_s, n.pitch))


class DeafWalker:
    """The baseline that does not listen: a random walk in memory, as long as anything goes on.

    It goes on in recorded order, and after each state jumps, with probability `jump`, anywhere.
    """

    def __init__(self, memory: Memory, *, rng: np.random.Generator, jump: float = 0.1) -> None:
        self._memory = memory
        self._rng = rng
        self._jump = jump
        self._state: int | None = None
        self._due_s: float | None = None
        self._number = 0

    @property
    def due_s(self) -> float | None:
        """When what it plays is over."""
        return self._due_s

    def hear(self, _percept: Percept, now_s: float) -> None:
        """Begin, if it has not begun."""
        if self._due_s is None:
            self._due_s = now_s

    def hear_onset(self, _onset_s: float, _now_s: float) -> None:
        """Hear nothing."""

    def change(self, _changes: object, _now_s: float) -> None:
        """Change nothing."""

    def decide(self, now_s: float) -> tuple[Decision, ...]:
        """Go on, or jump."""
        following = None if self._state is None else self._memory.successor(self._state)
        jumped = following is None or self._rng.random() < self._jump
        state = int(self._rng.integers(len(self._memory))) if following is None or jumped else following
        self._state = state
        place = self._memory.place(state)
        self._due_s = now_s + place.duration_s
        notes = tuple(
            Note(now_s + float(n["offset_s"]), float(n["duration_s"]), int(n["pitch"]), int(n["velocity"]))
            for n in self._memory.notes_of(state)
        )
        decision = Decision(
            number=self._number,
            choice=self._number,
            time_s=now_s,
            kind="play",
            state=state,
            recording=place.recording,
            source_start_s=place.start_s,
            duration_s=place.duration_s,
            jumped=jumped,
            notes=notes,
        )
        self._number += 1
        return (decision,)


class Echo:
    """The baseline that only listens: it plays back what it has just heard, and has no memory."""

    def __init__(self) -> None:
        self._notes: tuple[HeardNote, ...] = ()
        self._due_s: float | None = None
        self._number = 0

    @property
    def due_s(self) -> float | None:
        """At once, where it has heard notes."""
        return self._due_s

    def hear(self, percept: Percept, now_s: float) -> None:
        """Take the notes that were heard."""
        self._notes = percept.heard.notes
        self._due_s = now_s if self._notes else None

    def hear_onset(self, _onset_s: float, _now_s: float) -> None:
        """Wait for the notes."""

    def change(self, _changes: object, _now_s: float) -> None:
        """Change nothing."""

    def decide(self, now_s: float) -> tuple[Decision, ...]:
        """Play them, as they lay."""
        first_s = min(n.onset_s for n in self._notes)
        notes = tuple(Note(now_s + n.onset_s - first_s, n.duration_s, n.pitch, n.velocity) for n in self._notes)
        self._notes, self._due_s = (), None
        self._number += 1
        return (
            Decision(number=self._number - 1, choice=self._number - 1, time_s=now_s, kind="play", duration_s=0.0, notes=notes),
        )


MakePlayer = Callable[[int], Player]
"""Makes a fresh partner from a seed."""
