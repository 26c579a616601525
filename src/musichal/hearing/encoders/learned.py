"""Encoders with weights: MERT, HuBERT, wav2vec 2.0, computed by a light runtime from a converted model.

The network sees as much left context as is a whole number of its strides, the segment, and the lookahead, so its frames fall
on the segment's, and the segment's are cut out of what it gives. Both sources go in as one batch, in training and live alike,
so no number can depend on how many windows were computed together.
"""

import hashlib
import platform
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from musichal.arrays import Float32
from musichal.errors import InputError, MissingExtraError, MusicHalError
from musichal.hearing.encoders.checkpoint import HUB_NAME, MERT, PREFIX, Checkpoint, find_checkpoint, import_extra
from musichal.hearing.encoders.conversion import (
    CONVERSION_VERSION,
    Graph,
    GraphKey,
    convert,
    find_graph,
    load_module,
    quantised,
)
from musichal.hearing.encoders.runtimes import (
    AUTO,
    LEAST_COSINE,
    Choice,
    Measured,
    Runtime,
    candidates,
    check_choice,
    fastest,
    frame_cosines,
    installed_choices,
    measure,
    open_runtime,
)
from musichal.hearing.percepts import SOURCES, PitchFrames, Stems, Window, frame_count
from musichal.hearing.separation import separate
from musichal.spec import EncoderSpec, PerceptionSpec, spec_at_rate
from musichal.text import printable

ALGORITHM_VERSION = 1
CONTEXT_S = 0.175
"""Default left context of learned encoders: docs/results/learned-encoders.md has the measurements."""

_EPSILON = 1e-7  # what transformers' feature extractor adds to the variance, so that digital silence stays silence
_MEASURED_WINDOWS = 4
_LONGEST_NAME = 200


class LearnedEncoder:
    """Implements `Encoder` by a converted model in the cache, for a spec that `unmeasured_spec` and `with_choice` filled in.

    If not `ready`, the first call of `encode` opens the model. Raises `InputError` if the converted weights are missing or this
    machine cannot compute as the spec says, with what to do, and `MissingExtraError` if the runtime is not installed.
    """

    normalisation = "l2-pca"

    def __init__(self, spec: PerceptionSpec, *, ready: bool = True) -> None:
        encoder = spec.encoder
        check_runs_here(encoder)
        choice = Choice(encoder.runtime, encoder.precision)
        graph = graph_of(encoder, choice.graph)
        if (encoder.frame_samples, encoder.stride_samples) != (graph.frame_samples, graph.stride_samples):
            raise InputError(
                f"{graph.weights} gives frames of {graph.frame_samples} samples every {graph.stride_samples}, but the spec has"
                f" {encoder.frame_samples} every {encoder.stride_samples}"
            )
        self.name = encoder.name
        self.digest = encoder_digest(encoder)
        self.sample_rate_hz = graph.sample_rate_hz
        self.licence = graph.licence
        self._spec = spec
        self._first_frame = spec.context_samples // encoder.stride_samples
        sizes = {"frame_samples": encoder.frame_samples, "stride_samples": encoder.stride_samples}
        self._frames = frame_count(spec.segment_samples, **sizes)
        samples = spec.window_samples - first_seen_sample(spec)
        self._open = partial(_opened, graph, choice, samples)
        self._runtime = self._open() if ready else None
        self._shape = (len(SOURCES), frame_count(samples, **sizes), graph.dims)

    def encode(self, stems: Stems, pitch: PitchFrames) -> tuple[Float32, ...]:
        """Return the features (n, dims) of the segment's n frames, one array per source, float32."""
        if self._runtime is None:
            self._runtime = self._open()
        features = self._runtime.run(network_input(stems, self._spec))
        if features.shape != self._shape:
            raise InputError(f"the encoder gives features of shape {features.shape}, expected {self._shape}")
        mine = features[:, self._first_frame : self._first_frame + self._frames]
        return tuple(np.ascontiguousarray(source) for source in mine)


@lru_cache(maxsize=2)
def _opened(graph: Graph, choice: Choice, samples: int) -> Runtime:
    """Open a model, which takes a second and its memory, once for all encoders of a spec."""
    runtime = open_runtime(graph.path, choice, batch=len(SOURCES), samples=samples)
    # The first call takes memory and prepares its programs: better now than at a player's first note.
    runtime.run(np.zeros((len(SOURCES), samples), np.float32))
    return runtime


def first_seen_sample(spec: PerceptionSpec) -> int:
    """Return where in a window the network begins to see: a whole number of its strides before the segment."""
    return spec.context_samples % spec.encoder.stride_samples


def network_input(stems: Stems, spec: PerceptionSpec) -> Float32:
    """Return what the network gets for the stems of a window: (sources, samples), prepared as its checkpoint asks."""
    start = first_seen_sample(spec)
    return prepare(np.stack([stems.harmonic[start:], stems.percussive[start:]]), normalise=spec.encoder.normalise)


def prepare(samples: Float32, *, normalise: bool) -> Float32:
    """Return windows (…, samples) as a checkpoint asks: with `normalise`, each with zero mean and unit variance.

    As transformers' `Wav2Vec2FeatureExtractor`, in float64: the mean of a quiet window on an offset loses nothing. It stands
    before the network, so that no runtime's precision touches it.
    """
    if not normalise:
        return np.ascontiguousarray(samples, np.float32)
    wide = samples.astype(np.float64)
    centred = wide - wide.mean(axis=-1, keepdims=True)
    return (centred / np.sqrt(np.mean(centred * centred, axis=-1, keepdims=True) + _EPSILON)).astype(np.float32)


def encoder_digest(encoder: EncoderSpec) -> str:
    """Return the SHA-256 of all that shapes a feature of a learned encoder, 64 hexadecimal digits."""
    text = (
        f"learned {ALGORITHM_VERSION} {CONVERSION_VERSION} {encoder.weights_digest} {encoder.layer} {encoder.normalise}"
        f" {encoder.runtime} {encoder.precision}"
    )
    return hashlib.sha256(text.encode()).hexdigest()


def check_runs_here(encoder: EncoderSpec) -> None:
    """Raise if this machine cannot compute as the spec of a learned encoder says; the message names the remedy."""
    if not encoder.weights_digest or not encoder.runtime:
        raise InputError(f"encoder '{encoder.name}' needs weights and a runtime: `musichal train` chooses them")
    try:
        check_choice(Choice(encoder.runtime, encoder.precision))
    except InputError as error:
        raise InputError(
            f"this partner hears by {encoder.runtime} in {encoder.precision}, but {error}; analyse its recordings again"
            " with what this machine has: musichal rehear PARTNER.hal"
        ) from error


def graph_of(encoder: EncoderSpec, kind: str) -> Graph:
    """Return the converted model from the cache, made again if it is missing or damaged and its weights are at hand.

    A partner may be a stranger's: its weights are looked for by digest, then by name in the hub's cache on this machine.
    Nothing is downloaded, and no folder that a partner names is read. Raises `InputError` with the command that fetches it.
    """
    key = GraphKey(encoder.weights_digest, encoder.layer, "fp32")
    exact = find_graph(key)
    if exact is not None:
        return exact if kind == "fp32" else quantised(key, exact)
    on_hub = HUB_NAME.fullmatch(encoder.weights) and not Path(encoder.weights).exists()
    try:
        if not on_hub:
            raise InputError("not a name on the hub, and a folder that a partner names is not read")
        checkpoint = find_checkpoint(encoder.weights, revision=encoder.revision or None, offline=True)
    except MusicHalError as error:
        name = shlex.quote(encoder.weights) if HUB_NAME.fullmatch(encoder.weights) else "FOLDER"
        revision = f" --revision {shlex.quote(encoder.revision)}" if encoder.revision and name != "FOLDER" else ""
        raise InputError(
            f"the converted weights of {encoder.weights} (digest {encoder.weights_digest[:12]}, layer {encoder.layer}) are"
            f" missing or damaged; fetch and convert them once: musichal encoder {name}{revision} --convert --layer"
            f" {encoder.layer}"
        ) from error
    if checkpoint.digest != encoder.weights_digest:
        raise InputError(
            f"this partner was trained with other weights than {checkpoint.name} here:"
            f" partner has {encoder.weights_digest}, here is {checkpoint.digest}"
        )
    return convert(checkpoint, layer=encoder.layer, kind=kind)


# From what a user asked for to a spec.


@dataclass(frozen=True, kw_only=True)
class EncoderRequest:
    """What a user asked for: `name` 'mert' or 'hf', `source` a name on the hub or a folder, `layer` None for the middle one."""

    name: str
    source: str
    revision: str | None = None
    layer: int | None = None
    runtime: str = AUTO
    precision: str = AUTO
    offline: bool = False


def parse_encoder(text: str) -> EncoderRequest | None:
    """Return what ``mert``, ``mert:7`` or ``hf:OWNER/NAME`` asks for; None for an encoder without weights."""
    if text == "mert" or text.startswith("mert:"):
        layer = text.removeprefix("mert").removeprefix(":")
        if layer and not (layer.isascii() and layer.isdigit() and len(layer) <= 3):
            raise InputError(f"--encoder mert:LAYER must have the number of a layer, got {layer!r}")
        return EncoderRequest(name="mert", source=MERT.name, layer=int(layer) if layer else None)
    if text.startswith(PREFIX):
        if text == PREFIX:
            raise InputError("--encoder hf:NAME needs a name on the hub (OWNER/NAME) or a folder")
        return EncoderRequest(name="hf", source=text.removeprefix(PREFIX))
    return None


def find(request: EncoderRequest, *, say: Callable[[str], None] = lambda _text: None) -> Checkpoint:
    """Return the checkpoint that a request names; raises as `find_checkpoint`, and if `mert` is not MERT."""
    checkpoint = find_checkpoint(request.source, revision=request.revision, offline=request.offline, say=say)
    if request.name == "mert" and checkpoint.architecture != "mert":
        raise InputError(
            f"{checkpoint.name} is not MERT but {checkpoint.architecture}; train with --encoder hf:{checkpoint.name}"
        )
    return checkpoint


def unmeasured_spec(request: EncoderRequest, checkpoint: Checkpoint) -> PerceptionSpec:
    """Return the default spec for a checkpoint: its rate, frames and layer; the runtime is chosen later."""
    layer = checkpoint.default_layer if request.layer is None else request.layer
    checkpoint.check_layer(layer)
    base = spec_at_rate(checkpoint.sample_rate_hz)
    encoder = EncoderSpec(
        name=request.name,
        frame_samples=checkpoint.frame_samples,
        stride_samples=checkpoint.stride_samples,
        weights=printable(checkpoint.name)[:_LONGEST_NAME],
        revision=checkpoint.revision,
        weights_digest=checkpoint.digest,
        layer=layer,
        normalise=checkpoint.normalise,
    )
    return replace(base, encoder=encoder, context_samples=round(CONTEXT_S * base.sample_rate_hz))


def with_choice(spec: PerceptionSpec, choice: Choice) -> PerceptionSpec:
    """Return the spec with another runtime and precision; `resolve_spec` writes the digest."""
    return replace(spec, encoder=replace(spec.encoder, runtime=choice.runtime, precision=choice.precision, digest=""))


def choose_runtime(
    spec: PerceptionSpec,
    windows: Sequence[Window],
    *,
    graph: Callable[[str], Graph],
    runtime: str = AUTO,
    precision: str = AUTO,
) -> tuple[PerceptionSpec, tuple[Measured, ...]]:
    """Return the spec with the fastest faithful runtime of this machine, and what was measured on the loudest windows.

    `graph` returns the converted model of a kind, 'fp32' or 'int8'; `runtime` and `precision` are what was asked for. Raises
    `InputError` if no runtime here computes so, or none within the tolerance, and `MissingExtraError` if none is installed.
    """
    choices = []
    for choice in candidates(runtime, precision):
        try:
            graph(choice.graph)
        except MissingExtraError:
            if precision != AUTO or choice.graph == "fp32":
                raise
        else:
            choices.append(choice)
    loudest = sorted(windows, key=lambda w: -float(np.square(w.samples, dtype=np.float64).sum()))[:_MEASURED_WINDOWS]
    if not loudest:
        raise InputError("there is not one whole segment of sound to measure runtimes on")
    batches = [network_input(separate(window.samples, spec.separation), spec) for window in loudest]
    measured = measure(choices, batches, graph=lambda kind: graph(kind).path)
    return with_choice(spec, fastest(measured)), measured


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
