"""Listening: whether the true input of an answer can be told from false ones by how well the answer follows it.

Each excerpt is answered, and each answer compared with every excerpt in harmony (centred cosine of chroma), density,
loudness and register (Pearson correlation). The lag is not searched for: a decision answers the present, `AT_ONCE_S` ago, or
its record has `answers`, the stretch of the player's past that it goes back over; over a player who plays on, it does so in
the harmony of now, and harmony is compared with the present. Each stretch of an answer, a phrase or
`PIECE_S` of a long one, is compared at one lag, with a true and a false input at the same one. (The best of many lags
hides a true agreement among chance ones.)

The area under the ROC curve is the probability that the true input fits its answer better than a false one, ties counting
half (Hanley & McNeil, Radiology 143, 1982): 0.5 for a partner that does not listen, 1 for one whose every answer points to its
input. Its interval is a bootstrap over excerpts (Efron & Tibshirani 1993, percentile method).

Conventions
-----------
A trace has a row every `STEP_S`; row k covers [k, k + 1) steps. Density is smoothed over `SMOOTH_S`. Loudness of notes is
their velocity on the line on which hearing puts it, −54 to −6 dBFS, summed as power while they sound; below `FLOOR_DB` it is
silence. Register is the mean pitch of the notes that sound, each as long as it does, over `SMOOTH_S`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from musichal.arrays import AnyArray, Bool, Float64, Int64
from musichal.live.engine import HeardStream
from musichal.note import HeardNote, Note
from musichal.partner.decision import Decision

PHRASE_GAP_S = 0.75
"""A phrase is sound without a gap of so much or more."""
DIMENSIONS = ("harmony", "density", "loudness", "register")
TOGETHER = len(DIMENSIONS) - 1
"""So many of the dimensions make up how an answer follows all in all. Register is measured beside them: a player and an answer
share it on purpose in few modes, and a drummer has none."""
PIECE_S = 8.0
AT_ONCE_S = 0.5
_FEWEST_STEPS = 8
_DRAWS = 2000

STEP_S = 0.25
SMOOTH_S = 1.0
FLOOR_DB = -60.0
_CHORD_S = 0.03
_SOFTEST_DB, _LOUDEST_DB = -54.0, -6.0


@dataclass(frozen=True)
class Trace:
    """What one player does, row by row.

    `chroma` (n, 12), zero where nothing has a pitch; `density_hz` (n,) onsets per second; `loudness_db` (n,); `pitch` (n,) the
    mean MIDI pitch, NaN where no note sounds.
    """

    chroma: Float64
    density_hz: Float64
    loudness_db: Float64
    pitch: Float64

    @property
    def sounding(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Return in which steps anything sounds, shape (n,)."""
        return self.loudness_db > FLOOR_DB


def steps_in(duration_s: float) -> int:
    """Return how many whole steps fit."""
    return int(duration_s / STEP_S + 1e-9)


def player_trace(heard: HeardStream, notes: Sequence[HeardNote], *, duration_s: float) -> Trace:
    """Return the trace of what was heard of a player, and of the notes among it, `duration_s` from the start."""
    n = steps_in(duration_s)
    at = heard.frame_samples / heard.sample_rate_hz / STEP_S
    inside = at < n
    row = at[inside].astype(np.int64)
    frames = np.bincount(row, minlength=n)
    chroma = np.zeros((n, 12))
    np.add.at(chroma, row, heard.chroma[inside].astype(np.float64))
    power = np.bincount(row, weights=10 ** (heard.level_db[inside].astype(np.float64) / 10), minlength=n)
    return Trace(
        chroma=chroma / np.maximum(frames, 1)[:, None],
        density_hz=_density(heard.onset_samples / heard.sample_rate_hz, n),
        loudness_db=_decibels(power / np.maximum(frames, 1)),
        pitch=_pitch(notes, n),
    )


def answer_trace(notes: Sequence[Note], *, duration_s: float) -> Trace:
    """Return the trace of notes, `duration_s` from the start; what was struck within 30 ms counts as one onset."""
    n = steps_in(duration_s)
    chroma, power = np.zeros((n, 12)), np.zeros(n)
    for note in notes:
        rows, share = _sounds(note, n)
        strength = 10 ** ((_SOFTEST_DB + (note.velocity - 1) / 126 * (_LOUDEST_DB - _SOFTEST_DB)) / 10)
        chroma[rows, note.pitch % 12] += share * np.sqrt(strength)
        power[rows] += share * strength
    onsets = np.sort([note.onset_s for note in notes])
    struck = onsets[np.diff(onsets, prepend=-1.0) > _CHORD_S] if len(onsets) else onsets
    return Trace(chroma, _density(np.asarray(struck, dtype=np.float64), n), _decibels(power), _pitch(notes, n))


def _sounds(note: HeardNote | Note, n: int) -> tuple[AnyArray, AnyArray]:
    """Return the steps of `n` in which a note sounds, and for what share of each."""
    first, last = note.onset_s / STEP_S, (note.onset_s + note.duration_s) / STEP_S
    rows = np.arange(int(first), min(n, int(np.ceil(last))))
    return rows, np.minimum(rows + 1, last) - np.maximum(rows, first)


def _pitch(notes: Sequence[HeardNote] | Sequence[Note], n: int) -> Float64:
    pitch, sounding = np.zeros(n), np.zeros(n)
    for note in notes:
        rows, share = _sounds(note, n)
        pitch[rows] += share * note.pitch
        sounding[rows] += share
    width = round(SMOOTH_S / STEP_S)
    if n >= width:
        pitch, sounding = (np.convolve(values, np.ones(width), mode="same") for values in (pitch, sounding))
    return np.where(sounding > 1e-9, pitch / np.maximum(sounding, 1e-9), np.nan)


def _density(onsets_s: Float64, n: int) -> Float64:
    counts = np.bincount(np.clip((onsets_s / STEP_S).astype(np.int64), 0, max(0, n)), minlength=n + 1)[:n]
    width = round(SMOOTH_S / STEP_S)
    return np.convolve(counts, np.ones(width), mode="same") / SMOOTH_S if n >= width else counts / STEP_S


def _decibels(power: Float64) -> Float64:
    return np.maximum(10 * np.log10(np.maximum(power, 1e-12)), FLOOR_DB)


@dataclass(frozen=True)
class Area:
    """An area under the ROC curve with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Listening:
    """How well answers follow their inputs: the first `TOGETHER` dimensions together, and each by itself.

    `at_once` are areas for each dimension of the whole answer, its silences too, at the one lag of `AT_ONCE_S`: what goes
    against the player is below 0.5 there, and so is what takes turns with them.
    """

    together: Area
    by_dimension: dict[str, Area]
    at_once: dict[str, Area]
    excerpts: int


@dataclass(frozen=True)
class Answer:
    """What was answered, and at which lag: `lag` (n,) in steps, of each step of the trace.

    `harmony_lag` (n,) is that of its harmony, None for the same.
    """

    trace: Trace
    lag: Int64
    harmony_lag: Int64 | None = None


def answer_of(decisions: Sequence[Decision], *, duration_s: float) -> Answer:
    """Return the answer that decisions make, `duration_s` from the start."""
    trace = answer_trace([note for decision in decisions for note in decision.notes], duration_s=duration_s)
    now = round(AT_ONCE_S / STEP_S)
    lag, harmony_lag = (np.full(len(trace.density_hz), now, dtype=np.int64) for _ in range(2))
    begins_s: dict[int, float] = {}
    for decision in decisions:
        if decision.kind == "play" and decision.answers is not None:
            begin_s = begins_s.setdefault(decision.phrase, decision.begin_s)
            steps = slice(int(decision.begin_s / STEP_S), int((decision.begin_s + decision.duration_s) / STEP_S) + 1)
            lag[steps] = round((begin_s - decision.answers[0]) / STEP_S)
            harmony_lag[steps] = lag[steps] if decision.silent_s > AT_ONCE_S else np.minimum(lag[steps], now)
    return Answer(trace, lag, harmony_lag)


def follow(answer: Answer, player: Trace) -> Float64:
    """Return how well an answer follows a player, shape (4,), one value from −1 to 1 per dimension; 0 where unknown."""
    trace, n = answer.trace, min(len(answer.lag), len(player.density_hz))
    total, steps = np.zeros(len(DIMENSIONS)), 0
    for first, end in _pieces(trace.sounding[:n], answer.lag[:n]):
        piece = slice(first, end)
        total += _fit(trace, player, piece, int(answer.lag[first]), answer.harmony_lag) * (end - first)
        steps += end - first
    return total / steps if steps else total


def _at_once(answer: Trace, player: Trace) -> Float64:
    n, lag = min(len(answer.density_hz), len(player.density_hz)), round(AT_ONCE_S / STEP_S)
    return _fit(answer, player, slice(lag, n), lag) if n - lag >= _FEWEST_STEPS else np.zeros(len(DIMENSIONS))


def _pieces(sounding: Bool, lag: Int64) -> list[tuple[int, int]]:
    """Return the steps of an answer in pieces of one lag, first and end of each, none too short.

    They are phrases, long ones in equal parts; what reaches back behind the beginning is left out.
    """
    gap, longest = round(PHRASE_GAP_S / STEP_S), round(PIECE_S / STEP_S)
    at = np.flatnonzero(sounding)
    if not len(at):
        return []
    out = []
    for phrase in np.split(at, np.flatnonzero((np.diff(at) > gap) | (np.diff(lag[at]) != 0)) + 1):
        first, end = max(int(phrase[0]), int(lag[phrase[0]])), int(phrase[-1]) + 1
        parts = max(1, -(-(end - first) // longest))
        edges = np.linspace(first, end, parts + 1).round().astype(int).tolist()
        out += [(a, b) for a, b in pairwise(edges) if b - a >= _FEWEST_STEPS]
    return out


def _fit(answer: Trace, player: Trace, piece: slice, lag: int, harmony_lag: Int64 | None = None) -> Float64:
    """Return how well a piece of an answer fits what the player did `lag` steps before, its harmony `harmony_lag`."""
    then = slice(piece.start - lag, piece.stop - lag)
    in_harmony = then if harmony_lag is None else np.arange(piece.start, piece.stop) - harmony_lag[piece]
    return np.array(
        [
            _harmony(answer.chroma[piece], player.chroma[in_harmony]),
            _correlation(answer.density_hz[piece], player.density_hz[then]),
            _correlation(answer.loudness_db[piece], player.loudness_db[then]),
            _register(answer.pitch[piece], player.pitch[then]),
        ]
    )


def listening(answers: Sequence[Answer], players: Sequence[Trace], *, rng: np.random.Generator) -> Listening:
    """Return how surely answers point to their inputs.

    * `answers`, `players`: Answer i is the answer to player i; at least two.
    * `rng`: For the bootstrap.
    """
    scores = np.array([[follow(answer, player) for player in players] for answer in answers])
    now = np.array([[_at_once(answer.trace, player) for player in players] for answer in answers])
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
