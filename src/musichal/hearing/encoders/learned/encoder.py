"""A learned encoder as hearing uses it: both stems of a window in one batch, every frame of the segment out.

The network sees as much of the left context as is a whole number of its strides, the segment, and the lookahead. So its own
grid of frames falls on the segment's, frame for frame, and the segment's frames are cut out of what it gives. Both sources
go in together because one batch of two costs less than two of one; the batch always has this shape, in training and live, so
no number can depend on how many windows were computed together.
"""

import hashlib
import re
import shlex
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from musichal.arrays import Float32
from musichal.errors import InputError, MusicHalError
from musichal.hearing.encoders.learned.checkpoint import Checkpoint, find_checkpoint
from musichal.hearing.encoders.learned.conversion import (
    CONVERSION_VERSION,
    Graph,
    GraphKey,
    convert,
    entry_exists,
    find_graph,
    quantised,
)
from musichal.hearing.encoders.learned.preprocess import prepare
from musichal.hearing.encoders.learned.runtimes import Choice, Runtime, check_choice, open_runtime
from musichal.hearing.percepts import SOURCES, PitchFrames, Stems, frame_count
from musichal.spec import EncoderSpec, PerceptionSpec

ALGORITHM_VERSION = 1

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)


class LearnedEncoder:
    """Implements `musichal.hearing.encoders.Encoder` by a converted model in the cache.

    Parameters
    ----------
    spec : PerceptionSpec
        With an encoder that `resolve` filled in: which weights, layer, runtime and precision.
    ready : bool
        Whether the model is opened now. If not, the first call of `encode` opens it, and may raise what is named below.

    Raises
    ------
    InputError
        If the weights, converted for this runtime, are not at hand, or this machine cannot compute as the spec says; the
        message says what to do.
    MissingExtraError
        If the runtime is not installed.
    """

    normalisation = "l2-pca"

    def __init__(self, spec: PerceptionSpec, *, ready: bool = True) -> None:
        encoder = spec.encoder
        choice = Choice(encoder.runtime, encoder.precision)
        check_runs_here(encoder)
        graph = graph_of(encoder, choice.graph)
        if (encoder.frame_samples, encoder.stride_samples) != (graph.frame_samples, graph.stride_samples):
            raise InputError(
                f"{graph.weights} gives frames of {graph.frame_samples} samples every {graph.stride_samples}, but the spec says"
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


def first_seen_sample(spec: PerceptionSpec) -> int:
    """Return where in a window the network begins to see: a whole number of its strides before the segment."""
    return spec.context_samples % spec.encoder.stride_samples


def network_input(stems: Stems, spec: PerceptionSpec) -> Float32:
    """Return what the network is given for the stems of a window, prepared as its checkpoint asks: (sources, samples)."""
    start = first_seen_sample(spec)
    batch = np.stack([stems.harmonic[start:], stems.percussive[start:]])
    return prepare(batch, normalise=spec.encoder.normalise)


def encoder_digest(encoder: EncoderSpec) -> str:
    """Return the digest of all that shapes a feature of a learned encoder: a SHA-256, 64 hexadecimal digits."""
    text = (
        f"learned {ALGORITHM_VERSION} {CONVERSION_VERSION} {encoder.weights_digest} {encoder.layer} {encoder.normalise}"
        f" {encoder.runtime} {encoder.precision}"
    )
    return hashlib.sha256(text.encode()).hexdigest()


def check_runs_here(encoder: EncoderSpec) -> None:
    """Raise where this machine cannot compute as the spec of a learned encoder says.

    Raises
    ------
    InputError
        If the spec names no weights, or this machine lacks the precision; the message says how to re-hear the partner.
    MissingExtraError
        If the runtime is not installed.
    """
    if not encoder.weights_digest or not encoder.runtime:
        raise InputError(f"encoder '{encoder.name}' needs weights and a runtime: they are chosen by `musichal train`")
    try:
        check_choice(Choice(encoder.runtime, encoder.precision))
    except InputError as error:
        raise InputError(
            f"this partner hears by {encoder.runtime} in {encoder.precision}, but {error}; let it hear its recordings again"
            " with what this machine has: musichal rehear PARTNER.hal"
        ) from error


@lru_cache(maxsize=2)
def _opened(graph: Graph, choice: Choice, samples: int) -> Runtime:
    """Open a model, which takes a second and its memory, once for all encoders of a spec."""
    runtime = open_runtime(graph.path, choice, batch=len(SOURCES), samples=samples)
    # The first call takes memory and prepares its programs: better now than at a player's first note.
    runtime.run(np.zeros((len(SOURCES), samples), np.float32))
    return runtime


def graph_of(encoder: EncoderSpec, kind: str) -> Graph:
    """Return the converted model from the cache, made again where it is gone or damaged and its weights are at hand.

    A partner may be a stranger's: its weights are looked for by digest, then by name in the hub's cache on this machine.
    Nothing is downloaded, and no folder that a partner names is read.

    Raises
    ------
    InputError
        If it is not there and cannot be made; the message has the command that fetches it.
    """
    key = GraphKey(encoder.weights_digest, encoder.layer, kind)
    graph = find_graph(key)
    if graph is not None:
        return graph
    if kind == "int8" and (exact := find_graph(replace(key, kind="fp32"))) is not None:
        return quantised(replace(key, kind="fp32"), exact)
    what = "are damaged" if entry_exists(key) else "are not here"
    try:
        if not _HUB_NAME.fullmatch(encoder.weights) or Path(encoder.weights).exists():
            raise InputError("not a name on the hub, and a folder that a partner names is not read")
        checkpoint = find_checkpoint(encoder.weights, revision=encoder.revision or None, offline=True)
    except MusicHalError as error:
        raise InputError(
            f"the weights of {encoder.weights} (digest {encoder.weights_digest[:12]}, layer {encoder.layer}), converted for"
            f" playing, {what}; fetch and convert them once: {prepare_command(encoder)}"
        ) from error
    check_weights(encoder, checkpoint)
    return convert(checkpoint, layer=encoder.layer, kind=kind)


def check_weights(encoder: EncoderSpec, checkpoint: Checkpoint) -> None:
    """Raise `InputError` where a checkpoint is not the one that a partner was trained with; both digests are shown."""
    if checkpoint.digest != encoder.weights_digest:
        raise InputError(
            f"this partner was trained with other weights than {checkpoint.name} here:"
            f" partner has {encoder.weights_digest}, here is {checkpoint.digest}"
        )


def prepare_command(encoder: EncoderSpec) -> str:
    """Return the command that fetches and converts the weights of a spec."""
    if not _HUB_NAME.fullmatch(encoder.weights):  # a folder's own name: where it is here, only the user knows
        return f"musichal encoder FOLDER --convert --layer {encoder.layer}"
    revision = f" --revision {shlex.quote(encoder.revision)}" if encoder.revision else ""
    return f"musichal encoder {shlex.quote(encoder.weights)}{revision} --convert --layer {encoder.layer}"
