"""Answers of partners to excerpts of recordings, and how they are measured: use of memory, harmony with what sounds, phrases.

What is heard does not depend on who answers, and hearing takes the time. So an excerpt is heard once, by the same listener as
live, and each partner gets the same onsets and percepts from the same event loop. Two baselines take part: `DeafWalker`, which
has a memory and does not listen, and `Echo`, which only listens.

Conventions
-----------
Times are seconds. A *run* is a stretch of states played in recorded order and in one transposition without a rest between;
a *phrase* is sound without a gap of `PHRASE_GAP_S` or more.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

import numpy as np

from musichal.arrays import Float32, Float64
from musichal.audio.midi_take import MidiTake
from musichal.audio.recording import Recording
from musichal.errors import InputError
from musichal.evaluate.listening import PHRASE_GAP_S, STEP_S, Trace
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
_JUMPS = 0.1
_ECHO_S = 2.0
_QUIET_DB = 30.0
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
    """Hear samples of shape (n,) with a partner's ears, from silence; `take` is what is known of a MIDI player in them."""
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
    """Hear recordings in excerpts of one length, at most `most`, spread evenly over all that there is."""
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

    It goes on in recorded order, and after each state jumps, with probability `_JUMPS`, anywhere.
    """

    def __init__(self, memory: Memory, *, rng: np.random.Generator) -> None:
        self._memory, self._rng = memory, rng
        self._state: int | None = None

    def hear(self, _percept: Percept, now_s: float) -> None:
        """Begin, if it has not begun."""
        if self.due_s is None:
            self.due_s = now_s

    def decide(self, now_s: float) -> tuple[Decision, ...]:
        """Go on, or jump."""
        following = None if self._state is None else self._memory.successor(self._state)
        jumped = following is None or self._rng.random() < _JUMPS
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
    """The baseline that only listens: it plays each note `_ECHO_S` after it was struck, and has no memory.

    A note is known when it is over. What is known too late for its time is played at once.
    """

    def __init__(self) -> None:
        self._notes: tuple[HeardNote, ...] = ()

    def hear(self, percept: Percept, now_s: float) -> None:
        """Take the notes that were heard."""
        self._notes = percept.heard.notes
        self.due_s = now_s if self._notes else None

    def decide(self, now_s: float) -> tuple[Decision, ...]:
        """Play them with the same spacing."""
        notes = [Note(max(now_s, n.onset_s + _ECHO_S), n.duration_s, n.pitch, n.velocity) for n in self._notes]
        begin_s, end_s = min(n.onset_s for n in notes), max(n.onset_s + n.duration_s for n in notes)
        self._notes, self.due_s = (), None
        answers = begin_s - _ECHO_S, end_s - _ECHO_S
        return self._play(
            now_s, notes, start_s=begin_s, duration_s=end_s - begin_s, answers=answers, phrase=self._count,
            silent_s=np.inf,  # its harmony, too, is of then
        )  # fmt: skip


# ── measures of an answer ─────────────────────────────────────────────────────

_REPEATED = 4
_SHIFTS_S = (3.0, 5.0, 7.0, 11.0, 13.0)

Spans = Float64
"""Stretches of time, shape (n, 2): start and end, ascending, disjoint."""


@dataclass(frozen=True)
class MemoryUse:
    """How an answer goes through memory.

    `continued` is the share of steps from one state to the next that are the recorded ones; `mean_run` in states;
    `visited` the share of memory's states that were played; `longest_quote_s` the longest run in
    seconds, `longest_quote` in states; `repeated` the share of four
    states in a row that had been played in a row before; `learned` the share of states that are the player's own.
    """

    states: int
    continued: float
    mean_run: float
    visited: float
    longest_quote_s: float
    repeated: float
    learned: float
    longest_quote: int = 0


@dataclass(frozen=True)
class Harmony:
    """Share of notes that are in harmony with what sounds, and of the same notes moved in time, on average."""

    notes: int
    consonant: float
    consonant_when_shifted: float


@dataclass(frozen=True)
class Phrasing:
    """Turns and silences.

    `gap_s` is the median time from the end of a player's phrase to the answer's next beginning, None without one; `overlap`
    the share of the answer's sounding time in which the player sounds too; `silence` the share of time without a note;
    `phrase_s` the median length of a phrase, `phrases` how many; beside it the player's own, and the memory's recordings'.
    """

    gap_s: float | None
    overlap: float
    silence: float
    phrases: int
    phrase_s: float
    player_silence: float
    player_phrase_s: float
    memory_silence: float
    memory_phrase_s: float


def mean_of(items: Sequence[Any], **fixed: object) -> Any:
    """Return the mean of dataclass instances, field by field, but for the fields given."""
    names = [f.name for f in dataclasses.fields(items[0]) if f.name not in fixed]
    means = {name: float(np.mean([getattr(item, name) for item in items])) for name in names}
    return dataclasses.replace(items[0], **means, **fixed)


def notes_of(decisions: Sequence[Decision]) -> list[Note]:
    """Return all notes of an answer, in order of onset."""
    return sorted((n for d in decisions for n in d.notes), key=lambda n: (n.onset_s, n.pitch))


def memory_use(decisions: Sequence[Decision], memory: Memory) -> MemoryUse:
    """Return how an answer uses its memory; zeros where nothing was played."""
    runs: list[list[Decision]] = []
    before: Decision | None = None
    for decision in decisions:
        if decision.state is None:
            before = None
        elif before is None or before.choice != decision.choice:  # else another voice of the same choice
            follows = before is not None and not decision.jumped and before.transposition == decision.transposition
            runs[len(runs) - follows :] = [[*(runs[-1] if follows else ()), decision]]
            before = decision
    played = [d for run in runs for d in run]
    if not played:
        return MemoryUse(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    states = [d.state for d in played]
    rows = [tuple(states[i : i + _REPEATED]) for i in range(len(states) - _REPEATED + 1)]
    steps = len(states) - 1
    return MemoryUse(
        states=len(states),
        continued=(len(states) - len(runs)) / steps if steps else 0.0,
        mean_run=len(states) / len(runs),
        visited=len({d.state for d in played if not d.live}) / max(1, len(memory)),
        longest_quote_s=max(sum(d.duration_s for d in run) for run in runs),
        repeated=1 - len(set(rows)) / len(rows) if rows else 0.0,
        learned=sum(d.live for d in played) / len(played),
        longest_quote=max(map(len, runs)),
    )


def harmony(notes: Sequence[Note], player: Trace) -> Harmony:
    """Return how many notes are in harmony with a player.

    A note is, where the mean chroma that sounds while it does is above its own average at the note's pitch class. The same
    notes moved by 3 to 13 s, around the excerpt's end, say what chance and a common key would give. Notes to which nothing
    sounds are not counted.
    """
    counted, there = _consonance(notes, player, 0.0)
    moved = [_consonance(notes, player, shift_s) for shift_s in _SHIFTS_S]
    total = sum(n for n, _ in moved)
    return Harmony(counted, there / counted if counted else 0.0, sum(k for _, k in moved) / total if total else 0.0)


def _consonance(notes: Sequence[Note], player: Trace, shift_s: float) -> tuple[int, int]:
    n = len(player.chroma)
    counted = consonant = 0
    for note in notes:
        first = int((note.onset_s + shift_s) / STEP_S)
        rows = np.arange(first, first + max(1, round(note.duration_s / STEP_S)))
        rows = rows % n if shift_s else rows[rows < n]
        sounding = rows[player.sounding[rows]]
        chroma = player.chroma[sounding].sum(axis=0)
        if not chroma.any():
            continue
        counted += 1
        consonant += bool(chroma[note.pitch % 12] > chroma.mean())
    return counted, consonant


def phrasing(notes: Sequence[Note], player: Spans, *, duration_s: float, memory: Memory) -> Phrasing:
    """Return how an answer takes turns with a player whose phrases are `player`."""
    own = phrases_of_notes([(n.onset_s, n.onset_s + n.duration_s) for n in notes if n.onset_s < duration_s])
    gaps = [float(starts[0] - end) for end in player[:, 1] if len(starts := own[own[:, 0] >= end, 0])]
    both = sum(float(max(0.0, min(a[1], p[1]) - max(a[0], p[0]))) for a in own for p in player)
    own_s, player_s = float((own[:, 1] - own[:, 0]).sum()), float((player[:, 1] - player[:, 0]).sum())
    remembered, remembered_s = _memory_phrases(memory)
    return Phrasing(
        gap_s=float(np.median(gaps)) if gaps else None,
        overlap=both / own_s if own_s else 0.0,
        silence=max(0.0, 1 - own_s / duration_s),
        phrases=len(own),
        phrase_s=_median_length(own),
        player_silence=max(0.0, 1 - player_s / duration_s),
        player_phrase_s=_median_length(player),
        memory_silence=max(0.0, 1 - float((remembered[:, 1] - remembered[:, 0]).sum()) / remembered_s) if remembered_s else 0.0,
        memory_phrase_s=_median_length(remembered),
    )


def phrases_of_notes(spans: Sequence[tuple[float, float]]) -> Spans:
    """Return the phrases that sounding stretches make: joined where less than `PHRASE_GAP_S` lies between."""
    joined: list[list[float]] = []
    for start, end in sorted(spans):
        if joined and start - joined[-1][1] < PHRASE_GAP_S:
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([start, end])
    return np.array(joined, dtype=np.float64).reshape(-1, 2)


def player_phrases(player: Trace) -> Spans:
    """Return the phrases of a player: stretches within `_QUIET_DB` of the loudest step."""
    loud = player.loudness_db > max(float(player.loudness_db.max(initial=-np.inf)) - _QUIET_DB, -59.0)
    return phrases_of_notes([(k * STEP_S, (k + 1) * STEP_S) for k in np.flatnonzero(loud)])


def _memory_phrases(memory: Memory) -> tuple[Spans, float]:
    """Return the phrases of all recordings in memory, one after the other, and how long the recordings are together."""
    phrases, total_s = [np.zeros((0, 2))], 0.0
    starts = np.flatnonzero(np.diff(memory.states["recording"], prepend=-1))
    for first, last in zip(starts, [*starts[1:], len(memory)], strict=True):
        spans = []
        for state in range(int(first), int(last)):
            place = memory.place(state)
            for note in memory.notes_of(state):
                onset = place.start_s + float(note["offset_s"])
                spans.append((onset, onset + float(note["duration_s"])))
        end_s = place.start_s + place.duration_s
        own = phrases_of_notes([(start, min(end, end_s)) for start, end in spans if start < end_s])
        phrases.append(own + total_s)
        total_s += end_s
    return np.concatenate(phrases), total_s


def _median_length(spans: Spans) -> float:
    return float(np.median(spans[:, 1] - spans[:, 0])) if len(spans) else 0.0
