"""The choice: scores of candidates, and one of them drawn.

The score of a candidate is the product of its filters times Σ weight · value over its influences. What a choice depends on is
rounded first (`musichal.arrays.rounded`): matrix products and exponentials differ in their last bits between processors
and between BLAS kernels, and rounded they give the same draw, except where a value lies on the edge between two rounded ones.
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


def draw(values: Float64, *, temperature: float, rng: np.random.Generator) -> Draw:
    """Choose one of `values`, shape (n, t); −inf must not be chosen, and at least one is finite.

    At temperature 0 take the best, the first among equals; above, draw one with probability exp(score / temperature).
    """
    flat = values.ravel()
    if temperature > 0:
        with np.errstate(over="ignore"):  # near temperature 0 all but the best are infinitely far away
            chance = np.cumsum(rounded(np.exp((flat - flat.max()) / temperature)))
        # The last sum itself, so that a draw can only fall on a candidate with a chance.
        index = int(np.searchsorted(chance, rng.random() * chance[-1], side="right"))
        drawn = float((chance[index] - (chance[index - 1] if index else 0.0)) / chance[-1])
    else:
        index, drawn = int(np.argmax(flat)), 1.0
    candidate, transposition = divmod(index, values.shape[1])
    return Draw(candidate, transposition, float(flat[index]), drawn)


def runners_up(values: Float64, drawn: Draw, *, most: int) -> list[tuple[int, int]]:
    """Return candidate and transposition of the best others, each candidate in its best transposition."""
    best = values.max(axis=1)
    best[drawn.candidate] = -np.inf
    order = (-best).argsort(kind="stable")[:most].tolist()
    return [(row, int(values[row].argmax())) for row in order if math.isfinite(best[row])]
