"""Whether a checkpoint computes here what it should: `musichal encoder NAME --check`.

The known signal is made of integers, so that every machine has the same bits of it. Features are floating point and differ in
the last digits between machines and versions of torch: so there are a few values to compare within a tolerance, and a digest
that is equal only where the whole computation is.
"""

import hashlib
import platform
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from musichal.arrays import Float32
from musichal.errors import MissingExtraError
from musichal.hearing.encoders.checkpoint import MERT, Checkpoint, import_extra
from musichal.hearing.encoders.conversion import convert, load_module
from musichal.hearing.encoders.learned import prepare
from musichal.hearing.encoders.runtimes import LEAST_COSINE, frame_cosines, installed_choices, open_runtime
from musichal.hearing.percepts import SOURCES, frame_count

LENGTHS_MS = (100, 200, 350, 500, 1000)
TOLERANCE = 1e-3
"""How far features may be from the same features elsewhere, as a share of their root mean square."""
_COLLAPSED = 0.9999
_QUIET_DB = -40


@dataclass(frozen=True)
class Finding:
    """One thing that was checked: `passed` is None where there was nothing to compare with."""

    name: str
    passed: bool | None
    found: str


@dataclass(frozen=True)
class KnownFeatures:
    """Features of the known signal: a few values at (frame, dimension), and the SHA-256 of all of them as float32."""

    runtime: str
    layer: int
    shape: tuple[int, int]
    values: tuple[tuple[int, int, float], ...]
    sha256: str


@dataclass(frozen=True)
class CheckpointReport:
    """What the check found; `passed` if nothing failed."""

    findings: tuple[Finding, ...]
    features: KnownFeatures

    @property
    def passed(self) -> bool:
        """Return whether nothing failed."""
        return all(finding.passed is not False for finding in self.findings)


def frame_counts(checkpoint: Checkpoint) -> dict[int, int]:
    """Return how many frames each of `LENGTHS_MS` gives, by the strides of the convolutions."""
    grid = {"frame_samples": checkpoint.frame_samples, "stride_samples": checkpoint.stride_samples}
    return {ms: frame_count(checkpoint.sample_rate_hz * ms // 1000, **grid) for ms in LENGTHS_MS}


def known_signal(sample_rate_hz: int) -> Float32:
    """Return one second that is the same bit for bit everywhere: a rising triangle wave under four bursts of noise.

    Its samples are 16-bit integers divided by 32768; shape (sample_rate_hz,).
    """
    n = np.arange(sample_rate_hz, dtype=np.int64)
    phase = np.cumsum(110 + 1650 * n // sample_rate_hz) % sample_rate_hz
    wave = (np.abs(2 * phase - sample_rate_hz) * 2 - sample_rate_hz) * 8000 // sample_rate_hz
    noise = (np.random.PCG64(1).random_raw(sample_rate_hz) >> np.uint64(48)).astype(np.int64) - 32768
    burst = sample_rate_hz // 4
    fade = burst - n % burst
    return ((wave + noise * fade // (8 * burst)) / 32768).astype(np.float32)


def check_checkpoint(
    checkpoint: Checkpoint, *, layer: int | None = None, progress: Callable[[str, float], None] = lambda _what, _share: None
) -> CheckpointReport:
    """Load the network and compare it with its frame grid, silence, quiet input, and the runtimes of this machine.

    `layer` is the hidden state to check, the default one if None. Raises as `load_module` does.
    """
    torch = import_extra("torch", "checking a learned encoder")
    layer = checkpoint.default_layer if layer is None else layer
    progress("Loading", 0.0)
    module = load_module(checkpoint, layer=layer)

    def features(samples: Float32) -> Float32:
        given = torch.from_numpy(prepare(samples, normalise=checkpoint.normalise)[None])
        return np.asarray(module(given)[0].numpy(), np.float32)

    # One thread: with more, sums may be taken in another order from run to run.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        signal = known_signal(checkpoint.sample_rate_hz)
        progress("Computing", 0.3)
        found = features(signal)
        counted = {ms: len(features(signal[: checkpoint.sample_rate_hz * ms // 1000])) for ms in LENGTHS_MS}
        silent = float(frame_cosines(found, features(np.zeros_like(signal))).mean())
        quiet = float(frame_cosines(found, features(signal * np.float32(10 ** (_QUIET_DB / 20)))).mean())
    finally:
        torch.set_num_threads(threads)
    published = checkpoint.weights_sha256 == MERT.sha256
    findings: tuple[Finding, ...] = (
        Finding("weights", published or None, f"those of {MERT.name}" if published else "not known here"),
        Finding("frame counts", counted == frame_counts(checkpoint), ", ".join(f"{ms} ms: {n}" for ms, n in counted.items())),
        Finding("hears", silent < _COLLAPSED, f"mean cosine to silence {silent:.4f}"),
        Finding(
            "quiet input",
            quiet > 0.99 if checkpoint.normalise else None,
            f"mean cosine to the same {-_QUIET_DB} dB down {quiet:.4f}",
        ),
    )
    progress("Comparing runtimes", 0.7)
    if all(finding.passed is not False for finding in findings):
        findings += _runtime_findings(checkpoint, layer, prepare(signal, normalise=checkpoint.normalise), found)
    frames, dims = found.shape
    places = [(f, d) for f in (0, frames // 2, frames - 1) for d in (0, dims // 3, 2 * dims // 3, dims - 1)]
    known = KnownFeatures(
        runtime=f"torch {torch.__version__} float32, one thread, {platform.machine()}",
        layer=layer,
        shape=(frames, dims),
        values=tuple((f, d, float(found[f, d])) for f, d in places),
        sha256=_sha256(found),
    )
    return CheckpointReport(findings, known)


def _runtime_findings(checkpoint: Checkpoint, layer: int, samples: Float32, expected: Float32) -> tuple[Finding, ...]:
    """Return for each runtime of this machine how near it is to torch, with the digest of its features."""
    batch = np.stack([samples] * len(SOURCES))  # the shape that converted models are made for
    findings = []
    for choice in installed_choices():
        try:
            graph = convert(checkpoint, layer=layer, kind=choice.graph)
        except MissingExtraError as error:
            findings.append(Finding(str(choice), None, str(error)))
            continue
        found = open_runtime(graph.path, choice, batch=len(batch), samples=len(samples)).run(batch)[0]
        least = float(frame_cosines(found, expected).min())
        # Training chooses no runtime that is further away; only of float32 is it a fault.
        passed = True if least >= LEAST_COSINE else False if choice.precision == "fp32" else None
        findings.append(Finding(str(choice), passed, f"least cosine of a frame to torch {least:.5f}; SHA-256 {_sha256(found)}"))
    return tuple(findings)


def _sha256(features: Float32) -> str:
    return hashlib.sha256(np.ascontiguousarray(features, "<f4").tobytes()).hexdigest()
