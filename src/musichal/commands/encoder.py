"""`musichal encoder`: what a learned encoder's checkpoint is, and whether it does here what it should."""

from dataclasses import asdict
from typing import Any

from rich.table import Table

from musichal.commands.terminal import Terminal
from musichal.errors import CheckFailedError, InputError
from musichal.hearing.encoders.check import TOLERANCE, CheckpointReport, KnownFeatures, check_checkpoint, frame_counts
from musichal.hearing.encoders.checkpoint import Checkpoint, find_checkpoint
from musichal.hearing.encoders.conversion import convert as converted
from musichal.text import printable

_WORDS = {True: "holds", False: "FAILS", None: ""}


def encoder_command(
    name: str, *, revision: str | None, offline: bool, layer: int | None, check: bool, convert: bool = False, voice: Terminal
) -> CheckpointReport | None:
    """Find a checkpoint and show what it is; with `check` load it and look at what it does, with `convert` prepare playing.

    Raises
    ------
    CheckFailedError
        If a check fails.
    InputError, MissingExtraError
        If there is no such checkpoint, it cannot be loaded, or a package is missing.
    """
    if layer is not None and not (check or convert):
        raise InputError("--layer says which layer --check looks at and --convert converts: give one of them, too")
    checkpoint = find_checkpoint(name, revision=revision, offline=offline, say=voice.warn)
    if layer is not None:
        checkpoint.check_layer(layer)
    report = None
    if check:
        with voice.progress("Loading") as tell:
            report = check_checkpoint(checkpoint, layer=layer, progress=tell)
    graph = None
    if convert:
        graph = converted(checkpoint, layer=checkpoint.default_layer if layer is None else layer, kind="fp32", say=voice.warn)
    voice.result(
        _described(checkpoint) | (_checked(report) if report else {}) | ({"converted": str(graph.path)} if graph else {})
    )
    voice.show(_description_table(checkpoint))
    if graph is not None:
        voice.say(f"Converted for playing: {printable(graph.path)} (SHA-256 {graph.sha256[:16]}).")
    if report is None:
        return None
    voice.show(_findings_table(report))
    voice.show(_features_table(report.features))
    failed = [finding.name for finding in report.findings if finding.passed is False]
    if failed:
        raise CheckFailedError(f"{checkpoint.name} does not do here what it should: {', '.join(failed)}")
    return report


def _described(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "name": checkpoint.name,
        "revision": checkpoint.revision,
        "architecture": checkpoint.architecture,
        "layers": checkpoint.layers,
        "default_layer": checkpoint.default_layer,
        "dims": checkpoint.dims,
        "sample_rate_hz": checkpoint.sample_rate_hz,
        "frame_samples": checkpoint.frame_samples,
        "stride_samples": checkpoint.stride_samples,
        "frame_counts": {f"{ms} ms": count for ms, count in frame_counts(checkpoint).items()},
        "normalise": checkpoint.normalise,
        "normalise_source": checkpoint.normalise_source,
        "licence": checkpoint.licence,
        "weights": str(checkpoint.weights_path),
        "weights_sha256": checkpoint.weights_sha256,
        "digest": checkpoint.digest,
    }


def _checked(report: CheckpointReport) -> dict[str, Any]:
    return {
        "passed": report.passed,
        "findings": [asdict(finding) for finding in report.findings],
        "features": asdict(report.features) | {"tolerance": TOLERANCE},
    }


def _description_table(checkpoint: Checkpoint) -> Table:
    table = Table(show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    counts = ", ".join(f"{ms} ms: {count}" for ms, count in frame_counts(checkpoint).items())
    samples = "zero mean and unit variance over the window" if checkpoint.normalise else "as they are"
    rows = {
        "checkpoint": f"{checkpoint.name} {checkpoint.revision}",
        "licence": checkpoint.licence,
        "architecture": f"{checkpoint.architecture}, {checkpoint.layers} layers of {checkpoint.dims},"
        f" {checkpoint.default_layer} taken if none is named",
        "samples": f"{checkpoint.sample_rate_hz} Hz, {samples}, says {checkpoint.normalise_source}",
        "frames": f"{checkpoint.frame_samples} samples every {checkpoint.stride_samples}; {counts}",
        "weights": printable(checkpoint.weights_path),
        "SHA-256": checkpoint.weights_sha256,
        "digest": checkpoint.digest,
    }
    for name, text in rows.items():
        table.add_row(name, text.strip())
    return table


def _findings_table(report: CheckpointReport) -> Table:
    table = Table("looked at", "")
    table.add_column("found", overflow="fold")
    for finding in report.findings:
        table.add_row(finding.name, _WORDS[finding.passed], finding.found)
    return table


def _features_table(features: KnownFeatures) -> Table:
    frames, dims = features.shape
    table = Table(title=f"Known signal, layer {features.layer}, {frames} frames of {dims}", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for frame, dimension, value in features.values:
        table.add_row(f"frame {frame}, dimension {dimension}", f"{value:+.5f}")
    table.add_row("SHA-256 of all", features.sha256)
    table.add_row("computed by", features.runtime)
    return table
