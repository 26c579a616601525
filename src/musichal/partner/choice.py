"""One choice out of many: the best, or one drawn by how close it comes to the best."""

import math
from dataclasses import dataclass

import numpy as np

from musichal.arrays import Float64


@dataclass(frozen=True)
class Choice:
    """Row and column of the scores, the score, and the probability with which it was drawn."""

    candidate: int
    transposition: int
    score: float
    chance: float


def choose(scores: Float64, *, temperature: float, rng: np.random.Generator) -> Choice:
    """Choose one of `scores`, shape (n, t); what must not be chosen is −inf, and not everything is.

    At temperature 0 the best is taken, of equals the first; above, one is drawn with probability exp(score / temperature).
    """
    flat = scores.ravel()
    if temperature > 0:
        with np.errstate(over="ignore"):  # at a temperature next to 0 all but the best are infinitely far
            chance = np.cumsum(np.exp((flat - flat.max()) / temperature))
        # The last sum itself, not another way of adding: a draw can then only fall on a candidate with a chance.
        index = int(np.searchsorted(chance, rng.random() * chance[-1], side="right"))
        drawn = float((chance[index] - (chance[index - 1] if index else 0.0)) / chance[-1])
    else:
        index, drawn = int(np.argmax(flat)), 1.0
    candidate, transposition = divmod(index, scores.shape[1])
    return Choice(candidate, transposition, float(flat[index]), drawn)


def runners_up(scores: Float64, choice: Choice, *, most: int) -> list[tuple[int, int]]:
    """Return candidate and transposition of the best others, each candidate in its best transposition."""
    best = scores.max(axis=1)
    best[choice.candidate] = -np.inf
    order = (-best).argsort(kind="stable")[:most].tolist()
    return [(row, int(scores[row].argmax())) for row in order if math.isfinite(best[row])]
