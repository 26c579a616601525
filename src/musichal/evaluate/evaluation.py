"""The evaluation of a partner: every contestant answers every excerpt, and each answer is measured the same way."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from musichal.arrays import Float32
from musichal.audio.recording import Recording
from musichal.errors import InputError
from musichal.evaluate.answering import Excerpt, MakePlayer, answer, hear_excerpt, notes_of
from musichal.evaluate.duo_stats import Harmony, MemoryUse, Phrasing, harmony, memory_use, phrasing, player_phrases
from musichal.evaluate.effects import Effect
from musichal.evaluate.feedback import Feedback
from musichal.evaluate.listening import Listening, answer_of, listening
from musichal.evaluate.traces import Trace, player_trace
from musichal.memory.memory import Memory
from musichal.memory.partner_file import PartnerModel
from musichal.partner.decision import Decision

FEWEST_EXCERPTS = 4
PHRASE_S = 5.0
"""How long a player plays between pauses that are put in."""
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Contestant:
    """How one way of playing did on all excerpts together; `answers` and their `traces` are per excerpt."""

    name: str
    listening: Listening
    memory: MemoryUse
    harmony: Harmony
    phrasing: Phrasing
    answers: tuple[tuple[Decision, ...], ...]
    traces: tuple[Trace, ...]


@dataclass(frozen=True)
class Room:
    """How one way of playing did where it heard itself."""

    way: str
    feedback: Feedback


@dataclass(frozen=True)
class Evaluation:
    """Everything that was measured; `long_runs` is the use of memory in one go of `long_run_s`, by contestant."""

    partner: str
    excerpt_s: float
    excerpts: tuple[Excerpt, ...]
    players: tuple[Trace, ...]
    contestants: tuple[Contestant, ...]
    long_run_s: float
    long_runs: Mapping[str, MemoryUse]
    effects: tuple[Effect, ...] = ()
    rooms: tuple[Room, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without the answers themselves."""
        return {
            "partner": self.partner,
            "excerpt_s": self.excerpt_s,
            "excerpts": [{"recording": e.name, "start_s": e.start_s} for e in self.excerpts],
            "contestants": [
                {
                    "name": c.name,
                    **{part: dataclasses.asdict(getattr(c, part)) for part in ("listening", "memory", "harmony", "phrasing")},
                }
                for c in self.contestants
            ],
            "long_run_s": self.long_run_s,
            "long_run": {name: dataclasses.asdict(use) for name, use in self.long_runs.items()},
            "effects": [dataclasses.asdict(e) for e in self.effects],
            "rooms": [{"way": r.way, **dataclasses.asdict(r.feedback)} for r in self.rooms],
        }


def cut_excerpts(
    model: PartnerModel, recordings: Sequence[Recording], *, excerpt_s: float, most: int, progress: Progress
) -> tuple[Excerpt, ...]:
    """Hear recordings in excerpts of one length, at most `most`, spread evenly over all that there is.

    Raises
    ------
    InputError
        If there are too few to tell one from another.
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
            )
        )
    return tuple(excerpts)


def with_pauses(recording: Recording, *, pause_s: float) -> Recording:
    """Return a recording as a player would play it who stops for `pause_s` after every `PHRASE_S`: for turns to be taken."""
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
    return dataclasses.replace(recording, samples=np.concatenate(parts))


def contest(
    contestants: Mapping[str, MakePlayer], excerpts: Sequence[Excerpt], memory: Memory, *, seed: int, progress: Progress
) -> tuple[tuple[Trace, ...], tuple[Contestant, ...]]:
    """Let every contestant answer every excerpt.

    Returns
    -------
    (players, contestants)
        The traces of the excerpts themselves, and how each contestant did.
    """
    duration_s = min(e.duration_s for e in excerpts)
    players = tuple(player_trace(e.heard, e.notes, duration_s=duration_s) for e in excerpts)
    done = []
    for number, (name, make) in enumerate(contestants.items()):
        answers = []
        for i, excerpt in enumerate(excerpts):
            progress(f"Answering as {name}", (number + i / len(excerpts)) / len(contestants))
            answers.append(answer(excerpt, make(seed + i)))
        done.append(_measured(name, answers, excerpts, players, memory, duration_s=duration_s, seed=seed))
    return players, tuple(done)


def _measured(
    name: str,
    answers: Sequence[tuple[Decision, ...]],
    excerpts: Sequence[Excerpt],
    players: Sequence[Trace],
    memory: Memory,
    *,
    duration_s: float,
    seed: int,
) -> Contestant:
    notes = [notes_of(a) for a in answers]
    placed = [answer_of(a, duration_s=duration_s) for a in answers]
    uses = [memory_use(a, memory) for a in answers]
    harmonies = [harmony(n, p) for n, p in zip(notes, players, strict=True)]
    phrasings = [
        phrasing(n, player_phrases(p), duration_s=e.duration_s, memory=memory)
        for n, p, e in zip(notes, players, excerpts, strict=True)
    ]
    visited = {d.state for a in answers for d in a if d.state is not None and not d.live}
    counted = max(1, sum(h.notes for h in harmonies))
    gaps = [p.gap_s for p in phrasings if p.gap_s is not None]
    return Contestant(
        name=name,
        listening=listening(placed, players, rng=np.random.default_rng(seed)),
        memory=MemoryUse(
            states=sum(u.states for u in uses),
            continued=_mean([u.continued for u in uses]),
            mean_run=_mean([u.mean_run for u in uses]),
            visited=len(visited) / max(1, len(memory)),
            longest_quote_s=max(u.longest_quote_s for u in uses),
            repeated=_mean([u.repeated for u in uses]),
            learned=_mean([u.learned for u in uses]),
        ),
        harmony=Harmony(
            notes=sum(h.notes for h in harmonies),
            consonant=sum(h.notes * h.consonant for h in harmonies) / counted,
            consonant_when_shifted=sum(h.notes * h.consonant_when_shifted for h in harmonies) / counted,
        ),
        phrasing=Phrasing(
            gap_s=float(np.median(gaps)) if gaps else None,
            phrases=sum(p.phrases for p in phrasings),
            **{
                field: _mean([getattr(p, field) for p in phrasings])
                for field in (
                    "overlap",
                    "silence",
                    "phrase_s",
                    "player_silence",
                    "player_phrase_s",
                    "memory_silence",
                    "memory_phrase_s",
                )
            },
        ),
        answers=tuple(answers),
        traces=tuple(answer.trace for answer in placed),
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else 0.0
