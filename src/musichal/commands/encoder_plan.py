"""How a command comes to an encoder with weights: what was asked for, the checkpoint, the runtime that is quickest here."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from musichal.audio.recording import Recording
from musichal.commands.terminal import Terminal
from musichal.errors import InputError
from musichal.hearing.encoders.checkpoint import Checkpoint
from musichal.hearing.encoders.conversion import convert
from musichal.hearing.encoders.learned import EncoderRequest, choose_runtime, find, parse_encoder, unmeasured_spec
from musichal.hearing.encoders.runtimes import AUTO, LEAST_COSINE, Measured, candidates
from musichal.hearing.front_end import FrontEnd
from musichal.hearing.percepts import Window
from musichal.spec import PerceptionSpec

_MEASURED_S = 20.0


@dataclass(frozen=True)
class EncoderPlan:
    """What was asked for, the weights that were found for it, and the default spec that goes with them."""

    request: EncoderRequest
    checkpoint: Checkpoint
    spec: PerceptionSpec


def encoder_request(
    encoder: str,
    *,
    weights: Path | None,
    layer: int | None,
    revision: str | None,
    runtime: str,
    precision: str,
    offline: bool,
) -> EncoderRequest | None:
    """Return what the options ask for; None for an encoder without weights.

    Raises
    ------
    InputError
        If they contradict each other, or this machine has no such runtime or precision.
    MissingExtraError
        If no runtime is installed.
    """
    request = parse_encoder(encoder)
    if request is None:
        given = {
            "--weights": weights is not None,
            "--layer": layer is not None,
            "--revision": revision is not None,
            "--runtime": runtime != AUTO,
            "--precision": precision != AUTO,
        }
        for option, is_given in given.items():
            if is_given:
                raise InputError(f"{option} is for encoders with weights (mert, hf:…); '{encoder}' has none")
        return None
    if weights is not None:
        if request.name != "mert":
            raise InputError("--weights is for --encoder mert; name the folder as hf:FOLDER")
        if not weights.is_dir():
            raise InputError(f"--weights must be a folder with the files of a checkpoint: {weights} is none")
        request = replace(request, source=str(weights))
    if layer is not None:
        if request.layer not in (None, layer):
            raise InputError(f"--layer {layer} and --encoder {encoder} ask for two layers")
        request = replace(request, layer=layer)
    request = replace(request, revision=revision, runtime=runtime, precision=precision, offline=offline)
    candidates(runtime, precision)
    return request


def encoder_plan(request: EncoderRequest, voice: Terminal) -> EncoderPlan:
    """Find the weights that a request names, and say under which licence they are; raises as `find` does."""
    checkpoint = find(request, say=voice.warn)
    voice.warn(f"the weights of {checkpoint.name} are under this licence: {checkpoint.licence}")
    return EncoderPlan(request, checkpoint, unmeasured_spec(request, checkpoint))


def chosen_spec(plan: EncoderPlan, spec: PerceptionSpec, recordings: Sequence[Recording], voice: Terminal) -> PerceptionSpec:
    """Return the spec with the runtime that is the quickest here on these recordings, and say what was measured.

    Raises
    ------
    MusicHalError
        As `convert` and `choose_runtime` do.
    """
    chosen, measured = choose_runtime(
        spec,
        windows_of(recordings[0], spec),
        graph=lambda kind: convert(plan.checkpoint, layer=spec.encoder.layer, kind=kind, say=voice.warn),
        runtime=plan.request.runtime,
        precision=plan.request.precision,
    )
    for line in measured_lines(measured):
        voice.say(line)
    return chosen


def windows_of(recording: Recording, spec: PerceptionSpec, *, most_s: float = _MEASURED_S) -> list[Window]:
    """Return the windows of the middle of a recording."""
    length = round(most_s * recording.sample_rate_hz)
    first = max(0, (recording.samples.shape[0] - length) // 2)
    front_end = FrontEnd(spec, source_rate_hz=recording.sample_rate_hz)
    results = front_end.stream(recording.samples[first : first + length])
    return [window for result in results for window in result.windows]


def measured_lines(measured: Sequence[Measured]) -> list[str]:
    """Return in words what was measured of each runtime."""
    return [
        f"{m.choice}: {m.median_ms:.1f} ms for a window of both sources, cosine to fp32 at least {m.least_cosine:.5f}"
        + ("" if m.least_cosine >= LEAST_COSINE else f", less than {LEAST_COSINE:g}: not taken")
        for m in measured
    ]
