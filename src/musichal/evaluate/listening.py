"""Does it listen? Whether the true input of an answer can be told from false ones by how well the answer follows it.

Each excerpt is answered, and each answer held against every excerpt: `follow` says how well the answer follows that input
in harmony (centred cosine of chroma), density and loudness (Pearson correlation), each at the lag that fits best, from none
to `LONGEST_LAG_S`; a true and a false input get the same choice of lags. The area under the ROC curve is the probability
that the true input fits its answer better than a false one, ties counting half (Hanley & McNeil, Radiology 143, 1982):
0.5 for a partner that is deaf, 1 for one whose every answer points to its input. Its interval is a bootstrap over excerpts
(Efron & Tibshirani 1993, percentile method), since answers, not pairs, are what was drawn independently.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from musichal.arrays import Float64
from musichal.evaluate.traces import STEP_S, Trace

DIMENSIONS = ("harmony", "density", "loudness")
LONGEST_LAG_S = 4.0
_FEWEST_STEPS = 8
_DRAWS = 2000


@dataclass(frozen=True)
class Area:
    """An area under the ROC curve with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Listening:
    """How well answers follow their inputs: all dimensions together, and each by itself."""

    together: Area
    by_dimension: dict[str, Area]
    excerpts: int


def follow(answer: Trace, player: Trace) -> Float64:
    """Return how well an answer follows a player, shape (3,), one value from −1 to 1 per dimension; 0 where unknown."""
    n = min(len(answer.density_hz), len(player.density_hz))
    best = np.full(len(DIMENSIONS), -np.inf)
    for lag in range(round(LONGEST_LAG_S / STEP_S) + 1):
        if n - lag < _FEWEST_STEPS:
            break
        early, late = slice(0, n - lag), slice(lag, n)
        values = (
            _harmony(answer.chroma[late], player.chroma[early]),
            _correlation(answer.density_hz[late], player.density_hz[early]),
            _correlation(answer.loudness_db[late], player.loudness_db[early]),
        )
        best = np.maximum(best, values)
    return np.where(np.isfinite(best), best, 0.0)


def listening(answers: Sequence[Trace], players: Sequence[Trace], *, rng: np.random.Generator) -> Listening:
    """Return how surely answers point to their inputs.

    Parameters
    ----------
    answers, players : sequences of Trace
        Answer i is the answer to player i; at least two.
    rng : numpy.random.Generator
        For the bootstrap.
    """
    scores = np.array([[follow(answer, player) for player in players] for answer in answers])
    # Each dimension in its own units, answer by answer: a loud answer must not outweigh a harmonic one.
    spread = scores.std(axis=1, keepdims=True)
    standard = (scores - scores.mean(axis=1, keepdims=True)) / np.where(spread > 1e-9, spread, 1.0)
    return Listening(
        together=area(standard.mean(axis=2), rng=rng),
        by_dimension={name: area(scores[:, :, k], rng=rng) for k, name in enumerate(DIMENSIONS)},
        excerpts=len(answers),
    )


def area(scores: Float64, *, rng: np.random.Generator) -> Area:
    """Return the area for a matrix (answers, inputs) whose diagonal holds the true inputs' scores."""
    true = np.diagonal(scores)[:, None]
    wins = (true > scores) + 0.5 * (np.abs(true - scores) <= 1e-12)
    n = len(scores)
    of_answer = (wins.sum(axis=1) - 0.5) / (n - 1)
    drawn = of_answer[rng.integers(n, size=(_DRAWS, n))].mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Area(float(of_answer.mean()), float(low), float(high))


def _harmony(answer: Float64, player: Float64) -> float:
    both = (answer.sum(axis=1) > 0) & (player.sum(axis=1) > 0)
    if both.sum() < _FEWEST_STEPS:
        return 0.0
    a, p = (x[both] - x[both].mean(axis=1, keepdims=True) for x in (answer, player))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(p, axis=1)
    return float(np.mean(np.einsum("nd,nd->n", a, p) / np.maximum(norms, 1e-12)))


def _correlation(a: Float64, b: Float64) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm > 1e-9 else 0.0
