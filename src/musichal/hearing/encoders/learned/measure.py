"""Which runtime is the quickest here, found by a short measurement on real windows of sound.

What a processor has decides: bfloat16 is the quickest where it is in the hardware, and was four times slower than fp32 where
it was not; 8-bit integers come next. A runtime competes only if every frame it gives is within a tolerance of fp32.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from musichal.arrays import Float32, Float64
from musichal.errors import InputError, MissingExtraError, install_hint
from musichal.hearing.encoders.learned.conversion import Graph
from musichal.hearing.encoders.learned.runtimes import Choice, Runtime, installed_choices, open_runtime

LEAST_COSINE = 0.999
"""Least cosine, over all frames, between a runtime's features and those of fp32."""

_WARM_UP_ROUNDS, _ROUNDS = 2, 7


@dataclass(frozen=True)
class Measured:
    """A runtime measured: the median time of a batch, and the least and mean cosine of a frame to fp32."""

    choice: Choice
    median_ms: float
    least_cosine: float
    mean_cosine: float

    @property
    def faithful(self) -> bool:
        """Whether every frame is within the tolerance."""
        return self.least_cosine >= LEAST_COSINE


def measure(
    choices: Sequence[Choice],
    batches: Sequence[Float32],
    *,
    graph: Callable[[str], Graph],
    clock: Callable[[], float] = time.perf_counter,
    rounds: int = _ROUNDS,
) -> tuple[Measured, ...]:
    """Measure runtimes on the same batches, turn about, so that what else runs here slows all alike.

    Parameters
    ----------
    choices : sequence of Choice
        What to measure.
    batches : sequence of arrays (batch, samples)
        Windows of sound as the encoder is given them, all of one shape.
    graph : callable
        Gives the converted model of a kind, 'fp32' or 'int8'.
    clock : callable
        Seconds.
    rounds : int

    Raises
    ------
    MissingExtraError
        If there is nothing to measure.
    """
    if not choices:
        raise MissingExtraError(f"no runtime is installed that a learned encoder could use; {install_hint('mert')}")
    batch, samples = batches[0].shape
    # The processor's fp32, which a graphics card is held to as well.
    exact = next((c for c in installed_choices() if c.precision == "fp32"), Choice(choices[0].runtime, "fp32"))
    opened: dict[Choice, Runtime] = {}
    for choice in dict.fromkeys((exact, *choices)):
        opened[choice] = open_runtime(graph(choice.graph).path, choice, batch=batch, samples=samples)
    reference = [opened[exact].run(b) for b in batches]
    times_s: dict[Choice, list[float]] = {choice: [] for choice in choices}
    for number in range(_WARM_UP_ROUNDS + rounds):
        for choice in choices:
            started_s = clock()
            opened[choice].run(batches[number % len(batches)])
            if number >= _WARM_UP_ROUNDS:
                times_s[choice].append(clock() - started_s)
    measured = []
    for choice in choices:
        cosines = np.concatenate([frame_cosines(opened[choice].run(b), r) for b, r in zip(batches, reference, strict=True)])
        measured.append(Measured(choice, 1000 * float(np.median(times_s[choice])), float(cosines.min()), float(cosines.mean())))
    return tuple(measured)


def fastest(measured: Sequence[Measured]) -> Choice:
    """Return the quickest runtime among those within the tolerance; raises `InputError` if there is none."""
    faithful = [m for m in measured if m.faithful]
    if not faithful:
        found = ", ".join(f"{m.choice}: {m.least_cosine:.4f}" for m in measured)
        raise InputError(f"no runtime comes within a cosine of {LEAST_COSINE:g} of fp32 in every frame ({found})")
    return min(faithful, key=lambda m: m.median_ms).choice


def frame_cosines(features: Float32, reference: Float32) -> Float64:
    """Return the cosine of each frame of features (…, dims) to its frame in the reference, shape (n,)."""
    a = features.reshape(-1, features.shape[-1]).astype(np.float64)
    b = reference.reshape(-1, reference.shape[-1]).astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.einsum("nd,nd->n", a, b) / np.maximum(norms, 1e-30)
