"""The event loop: what was heard goes to the partner in order, and its decisions come out; and a whole performance offline.

The clock is the input stream: a time is a number of samples heard, at the spec's rate. An onset counts from the sample at which
it was decided, a percept from the sample at which it is complete (live: at which it was analysed), and a decision is made when
the partner says that it is due. The decisions depend on these events and the seed, not on block sizes or the machine's speed.

`EventLoop` is the one loop: ``for event in events: partner hears it, partner decides``. `Engine` feeds it from a listener, as
fast as samples are pushed, and `perform` pushes a whole recording; `musichal.live.live_engine.LiveEngine` feeds it from a
sound card, `replay` from an event log.
"""

import functools
import gc
import queue
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from musichal.arrays import AnyArray, Float32, Int16, Int64
from musichal.errors import InputError
from musichal.hearing.encoders import create_encoder
from musichal.hearing.exact_notes import KnownNotes, NoteQueue, OnsetQueue
from musichal.hearing.listener import Listener
from musichal.hearing.percepts import SOURCES, Onset, Percept
from musichal.live.drift import DriftMonitor, DriftReport
from musichal.live.session.event_log import Ended, Entry, entries_of, percept_to_json
from musichal.live.stage import StageState
from musichal.machine import single_blas_thread
from musichal.memory.partner_file import PartnerModel
from musichal.note import PERCUSSION_CHANNEL, Note, Slice
from musichal.partner.decision import Decision
from musichal.partner.partner import Partner
from musichal.partner.settings import PartnerSettings

CHANNEL = 0
"""MIDI channel of an answer, counted from 0."""
_BLOCK_S = 0.02

Changes = Mapping[str, object]
Event = Onset | Percept | Changes


class Player(Protocol):
    """What an event loop needs of a partner. Times are seconds of the input stream and never decrease."""

    @property
    def due_s(self) -> float | None:
        """When it decides next if no event comes before; None while it waits for an event."""

    def hear(self, percept: Percept, now_s: float) -> None:
        """Take the next percept."""

    def hear_onset(self, onset_s: float, now_s: float, pitches: Sequence[int] = (), *, is_drum: bool = False) -> None:
        """Take an onset as soon as it is known, with its pitches, or drum keys, where they are; the percept follows later."""

    def change(self, changes: Changes, now_s: float) -> str | None:
        """Take changes by the player, such as settings; return a sentence for them, if there is something to say."""

    def decide(self, now_s: float) -> tuple[Decision, ...]:
        """Decide what is due at `now_s`; afterwards `due_s` is later than `now_s`, or None."""


class EventLoop:
    """Gives events to a partner, in order, and returns what it decides.

    * `sample_rate_hz`: The rate of the clock.
    """

    def __init__(self, partner: Player, *, sample_rate_hz: int) -> None:
        self._partner = partner
        self._rate_hz = sample_rate_hz
        self._decided_s = -1.0
        self.said = ""
        """What the partner said to the last change."""

    @property
    def decided_s(self) -> float:
        """Return the latest time that was decided ahead of an event; all later events must come after it."""
        return self._decided_s

    def listen(self, heard: Iterable[Onset | Percept], *, until: int) -> list[Decision]:
        """Take what was heard, each at the sample at which it was complete, up to the sample `until`; return the decisions."""
        decisions = [d for event in in_order(heard) for d in self.respond(event, complete_at(event))]
        return decisions + self.until(until)

    def respond(self, event: Event, at_sample: int) -> list[Decision]:
        """Take an event; return the decisions that were due before it and those that it caused."""
        now_s = at_sample / self._rate_hz
        decisions = self.until(at_sample)
        if isinstance(event, Percept):
            self._partner.hear(event, now_s)
        elif isinstance(event, Onset):
            self._partner.hear_onset(event.sample / self._rate_hz, now_s, event.pitches, is_drum=event.is_drum)
        else:
            self.said = self._partner.change(event, now_s) or ""
        while (due_s := self._partner.due_s) is not None and due_s <= now_s:
            decisions += self._partner.decide(due_s)
        if isinstance(event, Percept):
            gc.collect(0)  # here there is time for that, and in a decision there is none
        return decisions

    def until(self, at_sample: int) -> list[Decision]:
        """Return the decisions that are due before `at_sample`; at that sample itself, events come first."""
        now_s = at_sample / self._rate_hz
        decisions: list[Decision] = []
        while (due_s := self._partner.due_s) is not None and due_s < now_s:
            self._decided_s = max(self._decided_s, due_s)
            decisions += self._partner.decide(due_s)
        return decisions


def complete_at(event: Onset | Percept) -> int:
    """Return the sample at which an onset was decided, or a percept was complete."""
    return event.decided_at if isinstance(event, Onset) else event.heard.available_at


def in_order(heard: Iterable[Onset | Percept]) -> list[Onset | Percept]:
    """Return what was heard in order of completion; an onset comes before the percept that is complete at the same sample."""
    return sorted(heard, key=lambda event: (complete_at(event), isinstance(event, Percept)))


@dataclass(frozen=True)
class Step:
    """What a block of input caused, each in order of time."""

    percepts: tuple[Percept, ...]
    decisions: tuple[Decision, ...]
    drift: tuple[DriftReport, ...] = ()
    onsets: tuple[Onset, ...] = ()


class Engine:
    """Lets a partner answer blocks of samples, on the clock of the stream.

    * `listener`: Fresh, at the rate of the samples to come.
    * `sample_rate_hz`: The spec's rate.
    * `drift`: Watches the percepts; it does not change what is played.
    * `notes`: The notes of a MIDI player, which take the place of those heard.
    """

    def __init__(
        self,
        listener: Listener,
        partner: Player,
        *,
        sample_rate_hz: int,
        drift: DriftMonitor | None = None,
        notes: NoteQueue | None = None,
    ) -> None:
        self._listener = listener
        self._notes = notes
        self._loop = EventLoop(partner, sample_rate_hz=sample_rate_hz)
        self._rate_hz = sample_rate_hz
        self._drift = drift

    @property
    def now_s(self) -> float:
        """Return how much of the stream was heard, in seconds."""
        return self._listener.samples_heard / self._rate_hz

    def push(self, block: AnyArray) -> Step:
        """Take a block of shape (n,) or (n, channels) and return what it caused."""
        heard = self._listener.push(block)
        return self._step(heard.onsets, heard.percepts)

    def change(self, changes: Changes) -> Step:
        """Change settings now; return what was decided because of it. Raises `InputError` where a change is not possible."""
        return Step((), tuple(self._loop.respond(changes, self._listener.samples_heard)))

    def finish(self) -> Step:
        """End the stream. What was decided is played to its end; nothing is decided after the end."""
        rest = self._listener.flush()
        return self._step(rest.onsets, rest.percepts)

    def _step(self, onsets: tuple[Onset, ...], percepts: tuple[Percept, ...]) -> Step:
        if self._notes is not None:
            percepts = tuple(replace(percept, heard=self._notes.put_in(percept.heard)) for percept in percepts)
        decisions = self._loop.listen([*onsets, *percepts], until=self._listener.samples_heard)
        drift = () if self._drift is None else tuple(r for p in percepts for r in self._drift.step(p))
        return Step(percepts, tuple(decisions), drift, onsets)


class EngineObserver:
    """Observer of a live performance. Implementations must not block; by default, each method does nothing."""

    def sound(self, samples: Float32) -> None:
        """Take samples of the input, shape (n,), mono."""

    def entry(self, entry: Entry) -> None:
        """Take an entry of the event log: what reached the partner, and when."""

    def percept(self, percept: Percept) -> None:
        """Take a percept."""

    def decision(self, decision: Decision) -> None:
        """Take a decision."""

    def drift(self, report: DriftReport) -> None:
        """Take an alarm about the input."""

    def event(self, at_s: float, kind: str, text: str) -> None:
        """Take any other event, at a time of the stream; `kind` is a fixed word for programs."""

    def stage(self, state: StageState) -> None:
        """Take what a player wants to know at a glance, four times a second and when it changes."""

    def statistics(self, values: dict[str, object]) -> None:
        """Take statistics of the performance so far, about once a second."""

    def pass_on(self) -> None:
        """Work on what was taken: the engine has nothing more urgent to do."""


class ObserverThread(EngineObserver):
    """Calls observers on a thread of its own, in order, so that their work does not delay a decision.

    It begins with `pass_on`: a thread that works beside a decision takes turns with it. An observer that raises is called no
    more; `on_error` gets a sentence about it.
    """

    def __init__(self, observers: Sequence[EngineObserver], *, on_error: Callable[[str], object]) -> None:
        self._observers, self._on_error = list(observers), on_error
        self._taken: list[tuple[str, tuple[Any, ...]]] = []
        self._calls: queue.SimpleQueue[list[tuple[str, tuple[Any, ...]]] | None] = queue.SimpleQueue()
        for name in ("sound", "entry", "percept", "decision", "drift", "event", "stage", "statistics"):
            setattr(self, name, functools.partial(self._take, name))
        self._thread = threading.Thread(target=self._run, name="observers", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float = 10.0) -> None:
        """Deliver what waits, for at most `timeout_s`, and stop."""
        self.pass_on()
        self._calls.put(None)
        self._thread.join(timeout_s)

    def pass_on(self) -> None:
        """Let the thread work on what was taken."""
        if self._taken:
            taken, self._taken = self._taken, []
            self._calls.put(taken)

    def _take(self, name: str, *arguments: object) -> None:
        self._taken.append((name, arguments))

    def _run(self) -> None:
        while (calls := self._calls.get()) is not None:
            for name, arguments in calls:
                self._tell(name, arguments)

    def _tell(self, name: str, arguments: tuple[Any, ...]) -> None:
        for observer in list(self._observers):
            try:
                getattr(observer, name)(*arguments)
            except Exception as error:
                self._observers.remove(observer)
                self._on_error(f"{type(observer).__name__} failed: {type(error).__name__}: {error}")


@dataclass(frozen=True)
class HeardStream:
    """What was heard of the player: `tokens` (sources, n) of frames at `frame_samples` (n,), levels (n,), chroma (n, 12)."""

    sample_rate_hz: int
    tokens: Int16
    frame_samples: Int64
    level_db: Float32
    chroma: Float32
    onset_samples: Int64


@dataclass(frozen=True)
class Performance:
    """A performance, in order of time.

    `entries` is the event log: what reached the partner, and when. `percept_lines` is what was heard of each segment, as a
    session stores it.
    """

    heard: HeardStream
    decisions: tuple[Decision, ...]
    duration_s: float
    drift: tuple[DriftReport, ...] = ()
    percept_lines: tuple[str, ...] = ()
    entries: tuple[Entry, ...] = ()


@single_blas_thread()
def perform(
    model: PartnerModel,
    samples: Float32,
    *,
    sample_rate_hz: int,
    settings: PartnerSettings,
    seed: int,
    progress: Callable[[float], None] | None = None,
    on_drift: Callable[[DriftReport], None] | None = None,
    known: KnownNotes | None = None,
) -> Performance:
    """Let a partner answer a recording.

    The same partner, samples, settings and seed give the same performance.

    * `seed`: For the partner's choices.
    * `progress`: Called with the share of the recording that was played, 0 to 1.
    * `on_drift`: Called when the input is no longer like the training, and when it is again.
    * `known`: The onsets and notes of a MIDI player, at the spec's rate; they take the place of those heard.
    """
    spec = model.spec
    onsets = None if known is None else OnsetQueue(known.onsets)
    notes = None if known is None else NoteQueue(known, sample_rate_hz=spec.sample_rate_hz)
    listener = Listener(spec, create_encoder(spec), model.vocabularies, source_rate_hz=sample_rate_hz, known=onsets)
    partner = Partner(model.memory, settings, rng=np.random.default_rng(seed), sample_rate_hz=spec.sample_rate_hz)
    engine = Engine(listener, partner, sample_rate_hz=spec.sample_rate_hz, drift=DriftMonitor(model), notes=notes)
    drift: list[DriftReport] = []
    heard: list[HeardStream] = []
    lines: list[str] = []
    decisions: list[Decision] = []
    entries: list[Entry] = []
    block = max(1, round(_BLOCK_S * sample_rate_hz))
    for first in range(0, samples.shape[0] + block, block):
        step = engine.push(samples[first : first + block]) if first < samples.shape[0] else engine.finish()
        # Percepts hold the features of all frames; only what a performance needs is kept of them.
        heard += [_heard(percept, spec.sample_rate_hz) for percept in step.percepts]
        lines += [percept_to_json(percept) for percept in step.percepts]
        decisions += step.decisions
        drift += step.drift
        if on_drift is not None:
            for report in step.drift:
                on_drift(report)
        entries += entries_of(step.onsets, step.percepts, known=known is not None)
        if progress is not None:
            progress(min(1.0, (first + block) / max(1, samples.shape[0])))
    if not heard:
        raise InputError("the input is too short: it has not one whole frame")
    entries.append(Ended(round(engine.now_s * spec.sample_rate_hz), plays_out=True))
    return Performance(_joined(heard), tuple(decisions), engine.now_s, tuple(drift), tuple(lines), tuple(entries))


def heard_stream(percepts: Sequence[Percept], sample_rate_hz: int) -> HeardStream:
    """Return the frames of percepts, at least one, as arrays."""
    return _joined([_heard(percept, sample_rate_hz) for percept in percepts])


def _heard(percept: Percept, sample_rate_hz: int) -> HeardStream:
    heard = percept.heard
    onsets = np.array(heard.onset_samples, dtype=np.int64)
    # A copy: `chroma` is a view of the whole window.
    return HeardStream(sample_rate_hz, percept.tokens, heard.frame_samples, heard.level_db, heard.chroma.copy(), onsets)


def _joined(parts: Sequence[HeardStream]) -> HeardStream:
    return HeardStream(
        sample_rate_hz=parts[0].sample_rate_hz,
        tokens=np.concatenate([p.tokens for p in parts], axis=1).reshape(len(SOURCES), -1),
        frame_samples=np.concatenate([p.frame_samples for p in parts]),
        level_db=np.concatenate([p.level_db for p in parts]),
        chroma=np.concatenate([p.chroma for p in parts]),
        onset_samples=np.concatenate([p.onset_samples for p in parts]),
    )


def note_events(decisions: Iterable[Decision], *, channel: int) -> list[Note]:
    """Return the notes of a performance as events on one channel, drums on theirs, in order of decision."""
    return [
        note if note.channel == PERCUSSION_CHANNEL else replace(note, channel=channel)
        for decision in decisions
        for note in decision.notes
    ]


def slice_events(
    decisions: Iterable[Decision],
    *,
    live_recording: int | None = None,
    sounded: Callable[[Slice, float], Slice | None] = lambda piece, _: piece,
) -> list[Slice]:
    """Return the answer as slices of the partner's recordings: the sound of each state at the time it was played.

    States learned from the player are in recording `live_recording`; without one they are left out. Voices that share a state
    give one slice. `sounded` tells what sounded of a slice, if anything, that was decided at a time.
    """
    events = []
    choices: set[tuple[int, float]] = set()
    for decision in decisions:
        if (decision.choice, decision.time_s) in choices or (decision.live and live_recording is None):
            continue
        if decision.recording is not None and decision.source_start_s is not None:
            choices.add((decision.choice, decision.time_s))
            piece = Slice(
                onset_s=decision.begin_s,
                duration_s=decision.duration_s,
                recording=live_recording if decision.live and live_recording is not None else decision.recording,
                source_start_s=decision.source_start_s,
                transposition_semitones=decision.transposition + 12 * decision.octaves,
            )
            events.append(sounded(piece, decision.time_s))
    return [event for event in events if event is not None]
