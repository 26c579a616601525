"""Does it listen? Whether the true input of an answer can be told from false ones by how well the answer follows it.

Each excerpt is answered, and each answer held against every excerpt: `follow` says how well the answer follows that input
in harmony (centred cosine of chroma), density, loudness and register (Pearson correlation). An answer may come at once, or after the
phrase that it answers; so it is taken in pieces, its phrases or `PIECE_S` of a long one, and each piece is held against the
input at the lag, from none to `LONGEST_LAG_S`, at which the first three together fit best. A true and a false input get the same
choice of lags. The area under the ROC curve is the probability
that the true input fits its answer better than a false one, ties counting half (Hanley & McNeil, Radiology 143, 1982):
0.5 for a partner that is deaf, 1 for one whose every answer points to its input. Its interval is a bootstrap over excerpts
(Efron & Tibshirani 1993, percentile method), since answers, not pairs, are what was drawn independently.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from musichal.arrays import Bool, Float64
from musichal.evaluate.figures import PHRASE_GAP_S
from musichal.evaluate.traces import STEP_S, Trace

DIMENSIONS = ("harmony", "density", "loudness", "register")
TOGETHER = len(DIMENSIONS) - 1
"""So many of the dimensions make up how an answer follows all in all. Register is measured beside them: a player and an answer
share it on purpose in few modes, and a drummer has none."""
LONGEST_LAG_S = 12.0
PIECE_S = 8.0
AT_ONCE_S = 0.5
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
    """How well answers follow their inputs: the first `TOGETHER` dimensions together, and each by itself.

    `at_once` are areas for each dimension at the one lag of `AT_ONCE_S`, which is about what hearing takes. There, what goes
    against the player is below 0.5; a free choice of lags would find where it happens to agree.
    """

    together: Area
    by_dimension: dict[str, Area]
    at_once: dict[str, Area]
    excerpts: int


def follow(answer: Trace, player: Trace) -> Float64:
    """Return how well an answer follows a player, shape (4,), one value from −1 to 1 per dimension; 0 where unknown."""
    n = min(len(answer.density_hz), len(player.density_hz))
    total, steps = np.zeros(len(DIMENSIONS)), 0
    for first, end in _pieces(answer.sounding[:n]):
        values = [_fit(answer, player, slice(first, end), lag) for lag in range(min(first, round(LONGEST_LAG_S / STEP_S)) + 1)]
        best = max(values, key=lambda v: float(v[:TOGETHER].sum()))
        total += best * (end - first)
        steps += end - first
    return total / steps if steps else total


def _at_once(answer: Trace, player: Trace) -> Float64:
    n, lag = min(len(answer.density_hz), len(player.density_hz)), round(AT_ONCE_S / STEP_S)
    return _fit(answer, player, slice(lag, n), lag) if n - lag >= _FEWEST_STEPS else np.zeros(len(DIMENSIONS))


def _pieces(sounding: Bool) -> list[tuple[int, int]]:
    """Return the steps of an answer in pieces, first and end of each: phrases, long ones in equal parts, none too short."""
    gap, longest = round(PHRASE_GAP_S / STEP_S), round(PIECE_S / STEP_S)
    at = np.flatnonzero(sounding)
    if not len(at):
        return []
    out = []
    for phrase in np.split(at, np.flatnonzero(np.diff(at) > gap) + 1):
        first, end = int(phrase[0]), int(phrase[-1]) + 1
        parts = -(-(end - first) // longest)
        edges = np.linspace(first, end, parts + 1).round().astype(int).tolist()
        out += [(a, b) for a, b in pairwise(edges) if b - a >= _FEWEST_STEPS]
    return out


def _fit(answer: Trace, player: Trace, piece: slice, lag: int) -> Float64:
    """Return how well a piece of an answer fits what the player did `lag` steps before."""
    then = slice(piece.start - lag, piece.stop - lag)
    return np.array(
        [
            _harmony(answer.chroma[piece], player.chroma[then]),
            _correlation(answer.density_hz[piece], player.density_hz[then]),
            _correlation(answer.loudness_db[piece], player.loudness_db[then]),
            _register(answer.pitch[piece], player.pitch[then]),
        ]
    )


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
    now = np.array([[_at_once(answer, player) for player in players] for answer in answers])
    # Each dimension in its own units, answer by answer: a loud answer must not outweigh a harmonic one.
    spread = scores.std(axis=1, keepdims=True)
    standard = (scores - scores.mean(axis=1, keepdims=True)) / np.where(spread > 1e-9, spread, 1.0)
    return Listening(
        together=area(standard[:, :, :TOGETHER].mean(axis=2), rng=rng),
        by_dimension={name: area(scores[:, :, k], rng=rng) for k, name in enumerate(DIMENSIONS)},
        at_once={name: area(now[:, :, k], rng=rng) for k, name in enumerate(DIMENSIONS)},
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


def _register(answer: Float64, player: Float64) -> float:
    both = np.isfinite(answer) & np.isfinite(player)
    return _correlation(answer[both], player[both]) if both.sum() >= _FEWEST_STEPS else 0.0


def _correlation(a: Float64, b: Float64) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm > 1e-9 else 0.0
