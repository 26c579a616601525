"""What each parameter does: the same excerpts answered with it at both ends of its range.

Outcomes are numbers that a listener would notice, and two that the partner's own reasons give: how well what it plays fits
by its score, and how long the longest context of the player's past was that spoke for it; settings that say how much of
memory is weighed, or of the past, move these first. An effect is the mean difference between the ends over excerpts, in units
of the outcome's standard deviation over excerpts and ends (Cohen's d, pooled). One choice that falls otherwise changes all that
come after it, so that something differs is no effect yet: whether the ends differ by more than chance is an exact test of
the paired differences by change of sign (Fisher 1935), with the largest of all outcomes as its statistic, so that looking at
many of them is paid for (Westfall & Young 1993). What chance alone does is measured beside it, by another seed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from musichal.arrays import Float64
from musichal.evaluate.answering import Excerpt, MakePlayer, answer, notes_of
from musichal.evaluate.duo_stats import memory_use, phrases_of_notes
from musichal.evaluate.listening import DIMENSIONS, answer_of, follow
from musichal.evaluate.traces import player_trace
from musichal.memory.memory import Memory
from musichal.note import Note
from musichal.partner.decision import Decision

OUTCOMES = (
    "notes per second",
    "mean pitch",
    "mean velocity",
    "spread of velocity",
    "note length",
    "onsets even",
    "silence",
    "phrase length",
    "mean run",
    "continued",
    "repeated",
    "visited",
    "learned live",
    "transposed",
    "brought back",
    "how well it fits",
    "longest context",
    *(f"{dimension} follows" for dimension in DIMENSIONS),
)

_CLEAR = 99.0
_SIGNIFICANT = 0.05
_MOST_EXACT = 12
_DRAWS = 4096
_PERIODS_S = np.geomspace(0.1, 0.6, 120)


@dataclass(frozen=True)
class Effect:
    """What moving a parameter from one end to the other does: `size` in standard deviations of `outcome`.

    `p_value` is how often chance alone would move any outcome as consistently; `others` the share of notes of either end that
    the other end lacks, from 0 (nothing changes) to 1.
    """

    parameter: str
    ends: tuple[str, str]
    outcome: str
    size: float
    p_value: float
    others: float


def outcomes(decisions: Sequence[Decision], excerpt: Excerpt, memory: Memory) -> Float64:
    """Return the outcomes of one answer, as many as `OUTCOMES`; what silence does not have is 0."""
    notes = notes_of(decisions)
    use = memory_use(decisions, memory)
    duration_s = excerpt.duration_s
    phrases = phrases_of_notes([(n.onset_s, n.onset_s + n.duration_s) for n in notes])
    lengths = phrases[:, 1] - phrases[:, 0]
    played = [d for d in decisions if d.kind == "play"]
    velocities = [n.velocity for n in notes]
    follows = follow(
        answer_of(decisions, duration_s=duration_s), player_trace(excerpt.heard, excerpt.notes, duration_s=duration_s)
    )
    return np.array(
        [
            len(notes) / duration_s,
            _mean([n.pitch for n in notes]),
            _mean(velocities),
            float(np.std(velocities)) if velocities else 0.0,
            _mean([n.duration_s for n in notes]),
            _evenness(notes),
            max(0.0, 1 - float(lengths.sum()) / duration_s),
            _mean(lengths.tolist()),
            use.mean_run,
            use.continued,
            use.repeated,
            use.visited,
            use.learned,
            _mean([float(d.transposition != 0) for d in played]),
            _mean([float(bool(d.returns)) for d in played]),
            _mean([d.score for d in played]),
            # In doublings: one very long quotation must not outweigh all the rest.
            _mean([math.log2(1 + max((len(c.tokens) for c in d.contexts if c.source != "own"), default=0)) for d in played]),
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
        spread > 1e-9, difference / np.maximum(spread, 1e-9), np.sign(difference) * _CLEAR * (np.abs(difference) > 1e-9)
    )
    p_values = against_chance(values[1] - values[0])
    # Of what is beyond chance the largest, and where nothing is, what is nearest to it.
    clear = p_values <= _SIGNIFICANT
    most = int(np.argmax(np.where(clear, np.abs(size), -1.0) if clear.any() else -p_values))
    pairs = [({_key(n) for n in notes_of(a)}, {_key(n) for n in notes_of(b)}) for a, b in zip(*answers, strict=True)]
    union = sum(len(a | b) for a, b in pairs)
    others = sum(len(a ^ b) for a, b in pairs) / union if union else 0.0
    return Effect(parameter, (low, high), OUTCOMES[most], float(size[most]), float(p_values[most]), others)


def against_chance(differences: Float64) -> Float64:
    """Return for each outcome how often chance moves any of them as consistently, shape (k,).

    Parameters
    ----------
    differences : array of shape (n, k)
        Of each excerpt and outcome between the ends. By chance alone each excerpt's would as well have the other sign, all
        signs together. Consistency is the mean over the root mean square. Up to twelve excerpts all signs are tried.
    """
    n = len(differences)
    scale = np.sqrt(np.mean(differences**2, axis=0))
    units = np.where(scale > 1e-9, differences / np.maximum(scale, 1e-9), 0.0)
    if n <= _MOST_EXACT:
        signs = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        signs = np.vstack([np.ones(n), np.random.default_rng(0).choice([-1.0, 1.0], (_DRAWS - 1, n))])
    largest = np.abs(signs @ units / n).max(axis=1)
    observed = np.abs(units.mean(axis=0))
    return (largest[:, None] >= observed[None, :] - 1e-9).mean(axis=0)


def _evenness(notes: Sequence[Note]) -> float:
    """Return how far onsets lie on one even grid, 0 to 1: the largest mean resultant over periods of 0.1 to 0.6 s."""
    if len(notes) < 2:
        return 0.0
    turns = np.array([n.onset_s for n in notes])[None, :] / _PERIODS_S[:, None]
    return float(np.abs(np.exp(2j * np.pi * turns).mean(axis=1)).max())


def _key(note: Note) -> tuple[float, int, float, int]:
    return round(note.onset_s, 3), note.pitch, round(note.duration_s, 3), note.velocity


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else 0.0
