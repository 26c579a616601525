"""Whether a checkpoint does here what it should: the check that a user with the real weights runs.

The known signal is made of integers, so that every machine has the same bits of it. Features are floating point: between
machines, and between versions of torch, they differ in the last digits. So there are a few values to compare within a
tolerance, and a digest that is equal only where the whole computation is.
"""

import hashlib
import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from musichal.arrays import Float32
from musichal.errors import MissingExtraError
from musichal.hearing.encoders.learned.checkpoint import Checkpoint
from musichal.hearing.encoders.learned.choose import graphs_of
from musichal.hearing.encoders.learned.extras import torch_package, transformers_package
from musichal.hearing.encoders.learned.known import known_by_weights
from musichal.hearing.encoders.learned.measure import LEAST_COSINE, frame_cosines
from musichal.hearing.encoders.learned.module import load_module
from musichal.hearing.encoders.learned.preprocess import prepare
from musichal.hearing.encoders.learned.runtimes import installed_choices, open_runtime
from musichal.hearing.percepts import SOURCES, frame_count

LENGTHS_MS = (100, 200, 350, 500, 1000)
TOLERANCE = 1e-3
"""How far features may be from the same features elsewhere, as a share of their root mean square."""
_SAME = 1e-4  # two float32 computations of the same thing on one machine; a tensor in the wrong place gives about 1
_COLLAPSED = 0.9999
_QUIET_DB = -40


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: `passed` is None where there was nothing to hold it against."""

    name: str
    passed: bool | None
    found: str


@dataclass(frozen=True)
class KnownFeatures:
    """Features of the known signal: a few values at (frame, dimension), and the SHA-256 of all of them as float32."""

    runtime: str
    layer: int
    shape: tuple[int, int]
    mean: float
    deviation: float
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
    checkpoint: Checkpoint, *, layer: int | None = None, tell: Callable[[str, float], None] | None = None
) -> CheckpointReport:
    """Load the network and hold it against its frame grid, transformers' own model, quiet input, and the runtimes here.

    Parameters
    ----------
    checkpoint
        What `find_checkpoint` found.
    layer
        The hidden state to look at, the default one if None.
    tell
        Told what is being done and how far it is, from 0 to 1.

    Raises
    ------
    InputError, MissingExtraError
        As `load_module` does.
    """
    torch = torch_package("checking a learned encoder")
    transformers_package("checking a learned encoder")
    say = tell or (lambda _what, _share: None)
    layer = checkpoint.default_layer if layer is None else layer
    say("Loading", 0.0)
    module = load_module(checkpoint, layer=layer)

    def features(samples: Float32) -> Float32:
        given = torch.from_numpy(prepare(samples, normalise=checkpoint.normalise)[None])
        return np.asarray(module(given)[0].numpy(), np.float32)

    # One thread: with more, sums may be taken in another order from run to run.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        signal = known_signal(checkpoint.sample_rate_hz)
        say("Listening", 0.3)
        heard = features(signal)
        counted = {ms: len(features(signal[: checkpoint.sample_rate_hz * ms // 1000])) for ms in LENGTHS_MS}
        silence = features(np.zeros_like(signal))
        quiet = features(signal * np.float32(10 ** (_QUIET_DB / 20)))
        say("Comparing with transformers", 0.6)
        theirs = _of_transformers(checkpoint, layer, prepare(signal, normalise=checkpoint.normalise))
    finally:
        torch.set_num_threads(threads)
    expected = frame_counts(checkpoint)
    apart = float(np.abs(heard - theirs).max() / np.sqrt(np.mean(theirs**2)))
    silent_cosine, quiet_cosine = float(frame_cosines(heard, silence).mean()), float(frame_cosines(heard, quiet).mean())
    findings: tuple[Finding, ...] = (
        _weights_finding(checkpoint),
        Finding("frame counts", counted == expected, ", ".join(f"{ms} ms: {n}" for ms, n in counted.items())),
        Finding("same as transformers", apart <= _SAME, f"largest difference {apart:.1e} of the root mean square"),
        Finding("hears", silent_cosine < _COLLAPSED, f"mean cosine to silence {silent_cosine:.4f}"),
        Finding(
            "quiet input",
            quiet_cosine > 0.99 if checkpoint.normalise else None,
            f"mean cosine to the same {-_QUIET_DB} dB down {quiet_cosine:.4f}",
        ),
    )
    say("Comparing runtimes", 0.7)
    if all(finding.passed is not False for finding in findings):  # else there is nothing to compare with
        findings += _runtime_findings(checkpoint, layer, prepare(signal, normalise=checkpoint.normalise), heard)
    runtime = f"torch {torch.__version__} float32, one thread, {platform.machine()}"
    return CheckpointReport(findings, _known_features(heard, layer, runtime))


def _runtime_findings(checkpoint: Checkpoint, layer: int, samples: Float32, heard: Float32) -> tuple[Finding, ...]:
    """Return for each runtime of this machine how near it is to torch, with the digest of what it gives."""
    graph = graphs_of(checkpoint, layer=layer)
    batch = np.stack([samples] * len(SOURCES))  # the shape that converted models are made for
    findings = []
    for choice in installed_choices():
        try:
            opened = open_runtime(graph(choice.graph).path, choice, batch=len(batch), samples=len(samples))
        except MissingExtraError as error:
            findings.append(Finding(str(choice), None, str(error)))
            continue
        given = opened.run(batch)[0]
        least = float(frame_cosines(given, heard).min())
        # Training takes no runtime that is further away; only of float32 is it a fault.
        passed = True if least >= LEAST_COSINE else False if choice.precision == "fp32" else None
        findings.append(Finding(str(choice), passed, f"least cosine of a frame to torch {least:.5f}; SHA-256 {_sha256(given)}"))
    return tuple(findings)


def _sha256(features: Float32) -> str:
    return hashlib.sha256(np.ascontiguousarray(features, "<f4").tobytes()).hexdigest()


def _weights_finding(checkpoint: Checkpoint) -> Finding:
    known = known_by_weights(checkpoint.weights_sha256)
    if known is None:
        return Finding("weights", None, "no published weights that are known here")
    return Finding("weights", True, f"those of {known.name}")


def _of_transformers(checkpoint: Checkpoint, layer: int, samples: Float32) -> Float32:
    """Return the hidden state that transformers' own model gives, loaded by its own loader from the same folder."""
    import torch

    with torch.no_grad():
        output = transformers_model(checkpoint)(torch.from_numpy(samples[None]), output_hidden_states=True)
    state = output.last_hidden_state if layer == checkpoint.layers else output.hidden_states[layer]
    return np.asarray(state[0].numpy(), np.float32)


def transformers_model(checkpoint: Checkpoint) -> Any:
    """Return transformers' own model of a checkpoint, loaded by its own loader: eager attention, float32, for inference."""
    import torch
    import transformers

    wav2vec2 = checkpoint.architecture == "wav2vec2"
    config_class = transformers.Wav2Vec2Config if wav2vec2 else transformers.HubertConfig
    model_class = transformers.Wav2Vec2Model if wav2vec2 else transformers.HubertModel
    # Read as a table: the class that an auto_map names would be the checkpoint's own program.
    values, _ = config_class.get_config_dict(checkpoint.folder, local_files_only=True)
    values.pop("auto_map", None)
    values.pop("model_type", None)
    config: Any = config_class.from_dict(values)
    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        model = model_class.from_pretrained(
            checkpoint.folder,
            config=config,
            local_files_only=True,
            dtype=torch.float32,
            attn_implementation="eager",
            use_safetensors=checkpoint.weights_path.suffix == ".safetensors",
        )
    finally:
        if bars:
            transformers.utils.logging.enable_progress_bar()
    return model.eval()


def _known_features(features: Float32, layer: int, runtime: str) -> KnownFeatures:
    frames, dims = features.shape
    places = [(f, d) for f in (0, frames // 2, frames - 1) for d in (0, dims // 3, 2 * dims // 3, dims - 1)]
    return KnownFeatures(
        runtime=runtime,
        layer=layer,
        shape=(frames, dims),
        mean=float(features.mean(dtype=np.float64)),
        deviation=float(features.std(dtype=np.float64)),
        values=tuple((f, d, float(features[f, d])) for f, d in places),
        sha256=_sha256(features),
    )
