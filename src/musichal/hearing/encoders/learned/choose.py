"""From what a user asked for to an encoder that is pinned: which weights, which layer, which runtime."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from musichal.arrays import Float32
from musichal.errors import InputError, MissingExtraError, install_hint
from musichal.hearing.encoders.learned.checkpoint import PREFIX, Checkpoint, find_checkpoint
from musichal.hearing.encoders.learned.conversion import Graph, convert
from musichal.hearing.encoders.learned.encoder import network_input
from musichal.hearing.encoders.learned.known import MERT
from musichal.hearing.encoders.learned.measure import Measured, fastest, measure
from musichal.hearing.encoders.learned.runtimes import Choice, check_choice, installed_choices, precision_names, runtime_names
from musichal.hearing.percepts import Window
from musichal.hearing.separation import separate
from musichal.spec import EncoderSpec, PerceptionSpec, spec_at_rate
from musichal.text import printable

AUTO = "auto"
CONTEXT_S = 0.175
"""Default left context of learned encoders (docs/results/learned-encoders.md)."""

_MEASURED_WINDOWS = 4
_LONGEST_NAME = 200


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
    """Return what ``mert``, ``mert:7`` or ``hf:OWNER/NAME`` asks for; None for an encoder without weights.

    Raises `InputError` where it is not of these forms.
    """
    if text == "mert" or text.startswith("mert:"):
        layer = text.removeprefix("mert").removeprefix(":")
        if layer and not (layer.isascii() and layer.isdigit() and len(layer) <= 3):
            raise InputError(f"--encoder mert:LAYER takes the number of a layer, not {layer!r}")
        return EncoderRequest(name="mert", source=MERT.name, layer=int(layer) if layer else None)
    if text.startswith(PREFIX):
        if text == PREFIX:
            raise InputError("--encoder hf:NAME takes a name on the hub (OWNER/NAME) or a folder")
        return EncoderRequest(name="hf", source=text.removeprefix(PREFIX))
    return None


def check_request(request: EncoderRequest) -> None:
    """Raise now what would be raised after the weights were fetched: an unknown or missing runtime or precision."""
    if request.precision != AUTO and request.precision not in precision_names():
        raise InputError(f"--precision must be one of {', '.join((AUTO, *precision_names()))}, not {request.precision!r}")
    if request.runtime != AUTO and request.runtime not in runtime_names():
        raise InputError(f"--runtime must be one of {', '.join((AUTO, *runtime_names()))}, not {request.runtime!r}")
    candidates(request.runtime, request.precision)


def candidates(runtime: str, precision: str) -> tuple[Choice, ...]:
    """Return what a runtime and a precision, either of them 'auto', leave to choose from on this machine.

    Raises
    ------
    MissingExtraError
        If no runtime, or not the one that was asked for, is installed.
    InputError
        If this machine cannot compute so.
    """
    if runtime != AUTO:
        check_choice(Choice(runtime, "fp32" if precision == AUTO else precision))
    here = [
        choice
        for choice in installed_choices(on_cpu_only=runtime == AUTO)
        if runtime in (AUTO, choice.runtime) and precision in (AUTO, choice.precision)
    ]
    if not here and not installed_choices():
        raise MissingExtraError(f"no runtime is installed that a learned encoder could use; {install_hint('mert')}")
    if not here:
        raise InputError(f"nothing that is installed here computes in {precision} on this machine")
    return tuple(here)


def find(request: EncoderRequest, *, say: Callable[[str], None] | None = None) -> Checkpoint:
    """Return the checkpoint that a request names; raises as `find_checkpoint`, and where `mert` is asked for and it is not."""
    checkpoint = find_checkpoint(request.source, revision=request.revision, offline=request.offline, say=say)
    if request.name == "mert" and checkpoint.architecture != "mert":
        raise InputError(
            f"{checkpoint.name} is not MERT but {checkpoint.architecture}; train with --encoder hf:{checkpoint.name}"
        )
    return checkpoint


def unmeasured_spec(request: EncoderRequest, checkpoint: Checkpoint) -> PerceptionSpec:
    """Return the default spec for a checkpoint: its rate, its frames, its layer; the runtime is yet to be chosen."""
    from musichal.hearing.encoders.learned.module import check_layer

    layer = checkpoint.default_layer if request.layer is None else request.layer
    check_layer(checkpoint, layer)
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


def choose_runtime(
    spec: PerceptionSpec,
    windows: Sequence[Window],
    *,
    graph: Callable[[str], Graph],
    runtime: str = AUTO,
    precision: str = AUTO,
) -> tuple[PerceptionSpec, tuple[Measured, ...]]:
    """Return the spec with the quickest faithful runtime of this machine, and what was measured.

    Parameters
    ----------
    spec : PerceptionSpec
    windows : sequence of Window
        Real sound to measure on: the loudest of them are taken.
    graph : callable
        Gives the converted model of a kind, 'fp32' or 'int8'.
    runtime, precision : str
        What was asked for, or 'auto'.

    Raises
    ------
    InputError
        If nothing here computes so, or not within the tolerance.
    MissingExtraError
        If no runtime is installed.
    """
    choices = [choice for choice in candidates(runtime, precision) if _can_be_made(choice, graph, asked=precision != AUTO)]
    loudest = sorted(windows, key=lambda w: -float(np.square(w.samples, dtype=np.float64).sum()))[:_MEASURED_WINDOWS]
    if not loudest:
        raise InputError("there is not one whole segment of sound to measure runtimes on")
    batches = [batch_of(spec, window) for window in loudest]
    measured = measure(choices, batches, graph=graph)
    chosen = fastest(measured)
    return with_choice(spec, chosen), measured


def _can_be_made(choice: Choice, graph: Callable[[str], Graph], *, asked: bool) -> bool:
    """Return whether the model that a choice needs is there or can be made here; what was asked for must be."""
    try:
        graph(choice.graph)
    except MissingExtraError:
        if asked or choice.graph == "fp32":
            raise
        return False
    return True


def with_choice(spec: PerceptionSpec, choice: Choice) -> PerceptionSpec:
    """Return the spec with another runtime and precision; the digest is for `pin` to write."""
    return replace(spec, encoder=replace(spec.encoder, runtime=choice.runtime, precision=choice.precision, digest=""))


def batch_of(spec: PerceptionSpec, window: Window) -> Float32:
    """Return what the network is given for a window, shape (sources, samples)."""
    return network_input(separate(window.samples, spec.separation), spec)


def graphs_of(checkpoint: Checkpoint, *, layer: int, say: Callable[[str], None] | None = None) -> Callable[[str], Graph]:
    """Return a way to the converted models of a checkpoint's layer, made where they are not there yet."""
    return lambda kind: convert(checkpoint, layer=layer, kind=kind, say=say)
