"""The choice: scores of candidates, and one of them drawn.

The score of a candidate is the product of its filters times Σ weight · value over its influences. Only scores relative to the
best matter. What lies under a floor is never drawn, as many poor candidates would outvote a few good ones, and neither is what
nothing speaks for. What a choice depends on is rounded first (`musichal.arrays.rounded`): matrix products and exponentials
differ in their last bits between processors and between BLAS kernels, and rounded they give the same draw, except where a value
lies on the edge between two rounded ones.
"""

import math
from dataclasses import dataclass

import numpy as np

from musichal.arrays import Float64, rounded


@dataclass(frozen=True)
class Draw:
    """Row and column of the scores, the score, and the probability with which it was drawn."""

    candidate: int
    transposition: int
    score: float
    chance: float


def scores(influences: Float64, weights: Float64, factors: Float64) -> Float64:
    """Return the score of each candidate in each transposition, rounded, shape (n, t).

    Parameters
    ----------
    influences : array of shape (k, n, t)
    weights : array of shape (k,)
    factors : array of shape (n, t)
        The product of the filters.
    """
    kinds, n, t = influences.shape
    return rounded((weights @ influences.transpose(0, 2, 1).reshape(kinds, t * n)).reshape(t, n).T * factors)


def draw(values: Float64, *, temperature: float, floor: float, rng: np.random.Generator) -> Draw:
    """Choose one of `values`, shape (n, t); where one is above 0, only of those that are.

    At temperature 0 take the best, the first among equals; above, draw one of those that have at least `floor` times the best
    score, with probability exp(score / best / temperature). Scores on another scale give the same draw.
    """
    flat = values.ravel()
    index, drawn = int(np.argmax(flat)), 1.0
    best = float(flat[index])
    if temperature > 0 and best > 0:
        near = ((flat >= floor * best) & (flat > 0)).nonzero()[0]
        with np.errstate(over="ignore"):  # near temperature 0 all but the best are infinitely far away
            chance = np.cumsum(rounded(np.exp((flat[near] / best - 1) / temperature)))
        # The last sum itself, so that a draw can only fall on a candidate with a chance.
        place = int(np.searchsorted(chance, rng.random() * chance[-1], side="right"))
        index, drawn = int(near[place]), float((chance[place] - (chance[place - 1] if place else 0.0)) / chance[-1])
    candidate, transposition = divmod(index, values.shape[1])
    return Draw(candidate, transposition, float(flat[index]), drawn)


def runners_up(values: Float64, drawn: Draw, *, most: int) -> list[tuple[int, int]]:
    """Return candidate and transposition of the best others, each candidate in its best transposition."""
    best = values.max(axis=1)
    best[drawn.candidate] = -np.inf
    order = (-best).argsort(kind="stable")[:most].tolist()
    return [(row, int(values[row].argmax())) for row in order if math.isfinite(best[row])]
