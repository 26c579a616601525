"""What each parameter does: the same excerpts answered with it at both ends of its range.

Outcomes are numbers that a listener would notice. An effect is the mean difference between the ends over excerpts, in units
of the outcome's standard deviation over excerpts and ends (Cohen's d, pooled); the outcome that moves most is named. Beside
it, how many of the notes are others: a parameter without any effect on what is played would be a lie in the table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from musichal.arrays import Float64
from musichal.evaluate.answering import Excerpt, MakePlayer, answer, notes_of
from musichal.evaluate.figures import memory_use, phrases_of_notes
from musichal.evaluate.listening import DIMENSIONS, follow
from musichal.evaluate.traces import answer_trace, player_trace
from musichal.memory.memory import Memory
from musichal.partner.decision import Decision

OUTCOMES = (
    "notes per second",
    "mean pitch",
    "mean velocity",
    "note length",
    "silence",
    "phrase length",
    "mean run",
    "continued",
    "repeated",
    "transposed",
    *(f"{dimension} follows" for dimension in DIMENSIONS),
)


_CLEAR = 99.0


@dataclass(frozen=True)
class Effect:
    """What moving a parameter from one end to the other does: `size` in standard deviations of `outcome`.

    `others` is the share of notes of either end that the other end lacks, from 0 (nothing changes) to 1.
    """

    parameter: str
    ends: tuple[str, str]
    outcome: str
    size: float
    others: float


def outcomes(decisions: Sequence[Decision], excerpt: Excerpt, memory: Memory) -> Float64:
    """Return the outcomes of one answer, shape (13,); what silence does not have is 0."""
    notes = notes_of(decisions)
    use = memory_use(decisions, memory)
    duration_s = excerpt.duration_s
    phrases = phrases_of_notes([(n.onset_s, n.onset_s + n.duration_s) for n in notes])
    lengths = phrases[:, 1] - phrases[:, 0]
    played = [d for d in decisions if d.kind == "play"]
    follows = follow(answer_trace(notes, duration_s=duration_s), player_trace(excerpt.heard, excerpt.notes, duration_s=duration_s))
    return np.array(
        [
            len(notes) / duration_s,
            _mean([n.pitch for n in notes]),
            _mean([n.velocity for n in notes]),
            _mean([n.duration_s for n in notes]),
            max(0.0, 1 - float(lengths.sum()) / duration_s),
            _mean(lengths.tolist()),
            use.mean_run,
            use.continued,
            use.repeated,
            _mean([float(d.transposition != 0) for d in played]),
            *follows,
        ]
    )


def effect(
    parameter: str, ends: Mapping[str, MakePlayer], excerpts: Sequence[Excerpt], memory: Memory, *, seed: int = 0
) -> Effect:
    """Return what a parameter does; `ends` holds a partner for each of its two ends, by the words for that end."""
    (low, make_low), (high, make_high) = ends.items()
    answers = [[answer(e, make(seed + i)) for i, e in enumerate(excerpts)] for make in (make_low, make_high)]
    values = np.array([[outcomes(a, e, memory) for a, e in zip(own, excerpts, strict=True)] for own in answers])
    difference = values[1].mean(axis=0) - values[0].mean(axis=0)
    spread = np.sqrt((values[0].var(axis=0) + values[1].var(axis=0)) / 2)
    # Without any spread a difference is as clear as it can be.
    size = np.where(
        spread > 1e-9, difference / np.maximum(spread, 1e-9), np.sign(difference) * 99.0 * (np.abs(difference) > 1e-9)
    )
    most = int(np.argmax(np.abs(size)))
    pairs = [({_key(n) for n in notes_of(a)}, {_key(n) for n in notes_of(b)}) for a, b in zip(*answers, strict=True)]
    union = sum(len(a | b) for a, b in pairs)
    others = sum(len(a ^ b) for a, b in pairs) / union if union else 0.0
    return Effect(parameter, (low, high), OUTCOMES[most], float(size[most]), others)


def _key(note: object) -> tuple[float, int, float, int]:
    return round(note.onset_s, 3), note.pitch, round(note.duration_s, 3), note.velocity  # type: ignore[attr-defined]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else 0.0
