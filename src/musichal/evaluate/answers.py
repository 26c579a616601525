"""Letting partners answer excerpts of recordings.

What is heard does not depend on who answers, and hearing takes the time. So an excerpt is heard once, by the same listener as
live, and each partner gets the same onsets and percepts from the same event loop. Two baselines take part: `DeafWalker`, which
has a memory and does not listen, and `Echo`, which only listens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

import numpy as np

from musichal.arrays import Float32
from musichal.audio.midi_take import MidiTake
from musichal.audio.recording import Recording
from musichal.errors import InputError
from musichal.hearing.encoders import create_encoder
from musichal.hearing.exact_notes import OnsetQueue, known_of, with_notes
from musichal.hearing.listener import Listener
from musichal.hearing.percepts import Onset, Percept
from musichal.live.engine import EventLoop, HeardStream, Player, heard_stream
from musichal.memory.memory import Memory
from musichal.memory.partner_file import PartnerModel
from musichal.note import HeardNote, Note
from musichal.partner.decision import Decision

FEWEST_EXCERPTS = 4
PHRASE_S = 5.0
"""How long a player plays between pauses that are put in."""
_BLOCK_S = 1.0
MakePlayer = Callable[[int], Player]
"""Makes a fresh partner from a seed."""
Progress = Callable[[str, float], None]


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
        """Length in seconds."""
        return self.end_sample / self.sample_rate_hz

    @property
    def heard(self) -> HeardStream:
        """Return what was heard of it as arrays."""
        return heard_stream(self.percepts, self.sample_rate_hz)

    @property
    def notes(self) -> list[HeardNote]:
        """Return the notes that were heard of it, as they ended."""
        return [note for percept in self.percepts for note in percept.heard.notes]


def hear_excerpt(
    model: PartnerModel,
    samples: Float32,
    *,
    sample_rate_hz: int,
    name: str,
    start_s: float = 0.0,
    take: MidiTake | None = None,
) -> Excerpt:
    """Hear samples of shape (n,) with a partner's ears, from silence; `take` is what is known of a MIDI player in them.

    Raises `InputError` if they cannot be heard, or are too short for a single frame.
    """
    spec = model.spec
    known = known_of(take, spec)
    onsets = OnsetQueue(known.onsets) if known is not None else None
    listener = Listener(spec, create_encoder(spec), model.vocabularies, source_rate_hz=sample_rate_hz, known=onsets)
    heard = listener.listen(samples, block_samples=round(_BLOCK_S * sample_rate_hz))
    percepts = heard.percepts if known is None else with_notes(heard.percepts, known, sample_rate_hz=spec.sample_rate_hz)
    if not percepts:
        raise InputError(f"{name} is too short: there is not one whole frame of sound in it")
    return Excerpt(name, start_s, spec.sample_rate_hz, listener.samples_heard, heard.onsets, percepts)


def joined(excerpts: Sequence[Excerpt], *, duration_s: float) -> Excerpt:
    """Return excerpts one after the other, over and over, as one stream of at least `duration_s`."""
    rate = excerpts[0].sample_rate_hz
    onsets: list[Onset] = []
    percepts: list[Percept] = []
    end = 0
    for excerpt in cycle(excerpts):
        if end >= duration_s * rate:
            break
        onsets += [replace(o, sample=o.sample + end, decided_at=o.decided_at + end) for o in excerpt.onsets]
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
            hits=tuple(replace(h, onset_s=h.onset_s + seconds) for h in heard.hits),
        ),
        gestures=tuple(replace(g, start_s=g.start_s + seconds) for g in percept.gestures),
    )


def answer(excerpt: Excerpt, player: Player) -> tuple[Decision, ...]:
    """Return what a fresh partner decides while it hears an excerpt."""
    loop = EventLoop(player, sample_rate_hz=excerpt.sample_rate_hz)
    return tuple(loop.listen([*excerpt.onsets, *excerpt.percepts], until=excerpt.end_sample))


def cut_excerpts(
    model: PartnerModel, recordings: Sequence[Recording], *, excerpt_s: float, most: int, progress: Progress
) -> tuple[Excerpt, ...]:
    """Hear recordings in excerpts of one length, at most `most`, spread evenly over all that there is.

    Raises `InputError` if there are too few to tell one from another.
    """
    places = [
        (recording, first)
        for recording in recordings
        for first in range(0, recording.samples.shape[0], round(excerpt_s * recording.sample_rate_hz))
        if recording.samples.shape[0] - first >= round(excerpt_s * recording.sample_rate_hz)
    ]
    if len(places) < FEWEST_EXCERPTS:
        raise InputError(
            f"the recordings hold {len(places)} excerpts of {excerpt_s:g} s, and at least {FEWEST_EXCERPTS} are needed"
            " to tell them apart: give more or longer recordings, or a shorter --excerpt"
        )
    chosen = [places[i] for i in np.unique(np.linspace(0, len(places) - 1, min(most, len(places))).round().astype(int))]
    excerpts = []
    for number, (recording, first) in enumerate(chosen):
        progress(f"Listening to {recording.name}", number / len(chosen))
        last = first + round(excerpt_s * recording.sample_rate_hz)
        excerpts.append(
            hear_excerpt(
                model,
                recording.samples[first:last],
                sample_rate_hz=recording.sample_rate_hz,
                name=recording.name,
                start_s=first / recording.sample_rate_hz,
                take=recording.take and recording.take.between(*(at / recording.sample_rate_hz for at in (first, last))),
            )
        )
    return tuple(excerpts)


def with_pauses(recording: Recording, *, pause_s: float) -> Recording:
    """Return a recording with a pause of `pause_s` after every `PHRASE_S`, so that turns can be taken."""
    if not pause_s:
        return recording
    rate = recording.sample_rate_hz
    phrase, fade = round(PHRASE_S * rate), round(0.05 * rate)
    silence = np.zeros(round(pause_s * rate), dtype=np.float32)
    edge = np.linspace(0, 1, fade, dtype=np.float32)
    parts: list[Float32] = []
    for first in range(0, recording.samples.shape[0], phrase):
        part = recording.samples[first : first + phrase].copy()
        if part.shape[0] > 2 * fade:
            part[:fade] *= edge
            part[-fade:] *= edge[::-1]
        parts += [part, silence]
    return replace(recording, samples=np.concatenate(parts), take=None)  # what is known of a MIDI player is out of place


class _Baseline:
    """What the baselines share as players: they hear no onsets and take no changes."""

    due_s: float | None = None
    """When the next decision is due, or None."""
    _count = 0

    def hear_onset(self, _onset_s: float, _now_s: float, _pitches: Sequence[int] = (), *, is_drum: bool = False) -> None:
        """Ignore an onset."""

    def change(self, _changes: object, _now_s: float) -> None:
        """Ignore a change."""

    def _play(self, now_s: float, notes: Sequence[Note], **values: Any) -> tuple[Decision, ...]:
        self._count += 1
        number = self._count - 1
        return (Decision(number=number, choice=number, time_s=now_s, kind="play", notes=tuple(notes), **values),)


class DeafWalker(_Baseline):
    """The baseline that does not listen: a random walk in memory.

    It goes on in recorded order, and after each state jumps, with probability `jump`, anywhere.
    """

    def __init__(self, memory: Memory, *, rng: np.random.Generator, jump: float = 0.1) -> None:
        self._memory, self._rng, self._jump = memory, rng, jump
        self._state: int | None = None

    def hear(self, _percept: Percept, now_s: float) -> None:
        """Begin, if it has not begun."""
        if self.due_s is None:
            self.due_s = now_s

    def decide(self, now_s: float) -> tuple[Decision, ...]:
        """Go on, or jump."""
        following = None if self._state is None else self._memory.successor(self._state)
        jumped = following is None or self._rng.random() < self._jump
        state = int(self._rng.integers(len(self._memory))) if following is None or jumped else following
        self._state = state
        place = self._memory.place(state)
        self.due_s = now_s + place.duration_s
        notes = [
            Note(now_s + float(n["offset_s"]), float(n["duration_s"]), int(n["pitch"]), int(n["velocity"]))
            for n in self._memory.notes_of(state)
        ]
        return self._play(
            now_s,
            notes,
            state=state,
            recording=place.recording,
            source_start_s=place.start_s,
            duration_s=place.duration_s,
            jumped=jumped,
        )


class Echo(_Baseline):
    """The baseline that only listens: it plays each note `after_s` after it was struck, and has no memory.

    A note is known when it is over. What is known too late for its time is played at once.
    """

    def __init__(self, *, after_s: float = 2.0) -> None:
        self._after_s = after_s
        self._notes: tuple[HeardNote, ...] = ()

    def hear(self, percept: Percept, now_s: float) -> None:
        """Take the notes that were heard."""
        self._notes = percept.heard.notes
        self.due_s = now_s if self._notes else None

    def decide(self, now_s: float) -> tuple[Decision, ...]:
        """Play them with the same spacing."""
        notes = [Note(max(now_s, n.onset_s + self._after_s), n.duration_s, n.pitch, n.velocity) for n in self._notes]
        begin_s, end_s = min(n.onset_s for n in notes), max(n.onset_s + n.duration_s for n in notes)
        self._notes, self.due_s = (), None
        answers = begin_s - self._after_s, end_s - self._after_s
        return self._play(
            now_s, notes, start_s=begin_s, duration_s=end_s - begin_s, answers=answers, phrase=self._count,
            silent_s=np.inf,  # its harmony, too, is of then
        )  # fmt: skip
