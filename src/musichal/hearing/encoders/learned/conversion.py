"""The network of a checkpoint as one ONNX file that light runtimes read, kept in the cache by digest.

Playing needs neither torch nor transformers: they are used once, in a process of its own, to write the part of a network that
one layer needs. The result is compared with torch before it is kept.

An entry of the cache is a folder, named by a digest of what it was made from (checkpoint, layer, kind, version of the
conversion). It appears whole, by one renaming, or not at all; ``entry.json`` holds the SHA-256 of the model, which is asked
each time before the model is used. A damaged entry counts as absent and is made again.
"""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from musichal.arrays import Float32
from musichal.errors import InputError, MissingExtraError, MusicHalError, install_hint
from musichal.hearing.encoders.learned.cache import cache_folder
from musichal.hearing.encoders.learned.extras import EXTRA, torch_package
from musichal.hearing.encoders.learned.onnx_runtime import INPUT, OUTPUT, SAMPLES_AXIS
from musichal.hearing.encoders.learned.runtimes import Choice, check_choice, installed_choices, open_runtime
from musichal.machine import installed
from musichal.own_process import run_module
from musichal.text import printable, reason

if TYPE_CHECKING:
    from musichal.hearing.encoders.learned.checkpoint import Checkpoint

CONVERSION_VERSION = 3
"""Goes up when a conversion gives other numbers than before."""

KINDS = ("fp32", "int8")
MODEL, ENTRY = "model.onnx", "entry.json"

CONVOLUTIONS = "convolutions."
"""What names of the convolutions' weights begin with."""

_MODULE = "musichal.hearing.encoders.learned.conversion"
_PARTIAL_AGE_S = 24 * 3600
# What computing in another order leaves in float32, relative to the largest feature. A wrong graph is off by far more.
_TOLERANCE = 1e-4
_PROBE_SAMPLES = 8400


@dataclass(frozen=True)
class GraphKey:
    """Which part of which checkpoint, and as what: `kind` is 'fp32', or 'int8' with matrix products in 8-bit integers."""

    checkpoint: str
    layer: int
    kind: str

    def digest(self) -> str:
        """Return the name of the entry: a SHA-256, 64 hexadecimal digits."""
        text = f"musichal graph {CONVERSION_VERSION} {self.checkpoint} {self.layer} {self.kind}"
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Graph:
    """A converted model that was checked.

    `sha256` is of its file, `weights` what its weights are called, `licence` theirs; `dims` is the length of a feature vector.
    """

    path: Path
    sha256: str
    weights: str
    licence: str
    dims: int
    sample_rate_hz: int
    frame_samples: int
    stride_samples: int


def find_graph(key: GraphKey) -> Graph | None:
    """Return a converted model from the cache if it is there and whole, otherwise None."""
    folder = _entry_folder(key)
    try:
        entry = json.loads((folder / ENTRY).read_text("utf-8"))
        graph = Graph(
            path=folder / MODEL,
            sha256=_text(entry["sha256"]),
            weights=_text(entry["weights"]),
            licence=_text(entry["licence"]),
            dims=int(entry["dims"]),
            sample_rate_hz=int(entry["sample_rate_hz"]),
            frame_samples=int(entry["frame_samples"]),
            stride_samples=int(entry["stride_samples"]),
        )
        whole = entry["key"] == asdict(key) and _sha256(graph.path) == graph.sha256
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return graph if whole else None


def entry_exists(key: GraphKey) -> bool:
    """Return whether the cache has anything for a key, whole or not."""
    return _entry_folder(key).exists()


def convert(checkpoint: "Checkpoint", *, layer: int, kind: str, say: Callable[[str], None] | None = None) -> Graph:
    """Return the converted model of a checkpoint's layer, from the cache or made now.

    Parameters
    ----------
    checkpoint : Checkpoint
    layer : int
    kind : str
        One of `KINDS`.
    say : callable, optional
        Told what is being made.

    Raises
    ------
    InputError
        If the conversion fails or does not compute what torch computes, or the cache cannot be written.
    MissingExtraError
        If torch, transformers or onnx is not installed and has to be.
    """
    if kind == "int8":
        return quantised(GraphKey(checkpoint.digest, layer, "fp32"), convert(checkpoint, layer=layer, kind="fp32", say=say))
    key = GraphKey(checkpoint.digest, layer, kind)
    found = find_graph(key)
    if found is not None:
        return found
    if say is not None:
        kept = printable(_entry_folder(key).parent)
        say(f"converting layer {layer} of {checkpoint.name}, once, in about a minute; kept in {kept}")
    _require("torch", "transformers", "onnx", "onnxscript")
    job = {"kind": kind, "folder": str(checkpoint.folder), "layer": layer, "digest": checkpoint.digest}
    return _make(key, job, weights=checkpoint.name, described=checkpoint)


def quantised(key: GraphKey, graph: Graph) -> Graph:
    """Return an fp32 model with its matrix products in 8-bit integers, from the cache or made now; `key` is the model's.

    Raises
    ------
    InputError, MissingExtraError
        As `convert` does; torch is not needed.
    """
    wanted = replace(key, kind="int8")
    found = find_graph(wanted)
    if found is not None:
        return found
    check_choice(Choice("onnxruntime", "int8"))
    _require("onnx")
    job = {"kind": "int8", "from": str(graph.path)}
    return _make(wanted, job, weights=graph.weights, described=graph)


def _entry_folder(key: GraphKey) -> Path:
    return cache_folder() / "converted" / key.digest()


def _make(key: GraphKey, job: dict[str, Any], *, weights: str, described: "Checkpoint | Graph") -> Graph:
    target = _entry_folder(key)
    partial = target.parent / f".{key.digest()[:16]}.{secrets.token_hex(8)}.partial"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target.parent)
        partial.mkdir()
        try:
            printed = run_module(
                _MODULE, [json.dumps(job | {"target": str(partial / MODEL)})], threads=None, what="converting the encoder"
            )
            dims = int(json.loads(printed.splitlines()[-1])["dims"])
            entry = {
                "key": asdict(key),
                "version": CONVERSION_VERSION,
                "sha256": _sha256(partial / MODEL),
                "dims": dims,
                "weights": weights,
                **{name: getattr(described, name) for name in ("licence", "sample_rate_hz", "frame_samples", "stride_samples")},
                "made_with": {name: installed(name) for name in ("musichal", "torch", "transformers", "onnx", "onnxruntime")},
            }
            (partial / ENTRY).write_text(json.dumps(entry, indent=1), "utf-8")
            for name in (MODEL, ENTRY):
                _sync(partial / name)
            _put(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise InputError(f"cannot keep a converted model in {printable(target.parent)}: {reason(error)}") from error
    made = find_graph(key)
    if made is None:
        raise InputError(f"the converted model in {printable(target)} was damaged as soon as it was written")
    return made


def _put(partial: Path, target: Path) -> None:
    """Rename a complete entry into place; what is there (damaged, or made meanwhile by another process) gives way."""
    old = target.parent / f".{target.name[:16]}.{secrets.token_hex(8)}.partial"
    with contextlib.suppress(FileNotFoundError):
        target.rename(old)
    try:
        partial.rename(target)
    except OSError:
        if not target.exists():
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what a process that was killed left half-made long ago."""
    for path in folder.glob(".*.partial"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _PARTIAL_AGE_S:
                shutil.rmtree(path, ignore_errors=True)


def _sync(path: Path) -> None:
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def _sha256(path: Path) -> str:
    """Return the SHA-256 of a file; of a large one within a program only once, as long as the file is the same."""
    now = path.stat()
    return _sha256_as_of(path, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)


@lru_cache(maxsize=8)
def _sha256_as_of(path: Path, *_state: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError("not a printable text")
    return value


def _job(job: dict[str, Any]) -> int:
    """Write the model that a job asks for and return the dims of its features."""
    target = Path(job["target"])
    if job["kind"] == "int8":
        return _quantise(Path(job["from"]), target)
    from musichal.hearing.encoders.learned.checkpoint import find_checkpoint

    checkpoint = find_checkpoint(job["folder"], offline=True)
    if checkpoint.digest != job["digest"]:
        raise InputError(f"the weights of {checkpoint.name} changed while they were converted")
    return _export(checkpoint, job["layer"], target)


def _export(checkpoint: "Checkpoint", layer: int, target: Path) -> int:
    from musichal.hearing.encoders.learned.module import load_module
    from musichal.hearing.encoders.learned.rewriting import rewritten

    torch = torch_package("converting a learned encoder")
    module = load_module(checkpoint, layer=layer)
    probe = np.random.default_rng(0).standard_normal((2, max(_PROBE_SAMPLES, 4 * checkpoint.frame_samples)), np.float32)
    # Asked at another length than it is traced at, and as transformers has it.
    other = np.random.default_rng(1).standard_normal((2, probe.shape[1] * 2 + 123), np.float32)
    with torch.inference_mode():
        expected = np.asarray(module(torch.from_numpy(other)).numpy(), np.float32)
    # A dimension of this name is left open; a runtime closes it when it opens the model.
    axis = torch.export.Dim(SAMPLES_AXIS, min=2 * checkpoint.frame_samples, max=1 << 24)
    torch.onnx.export(
        rewritten(module),
        (torch.from_numpy(probe),),
        str(target),
        dynamo=True,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({1: axis},),
        external_data=False,
        verbose=False,
    )
    found = _compute(target, other)
    if found is not None:
        _compare(found, expected, checkpoint.name)
    return int(expected.shape[2])


def _compute(target: Path, batch: Float32) -> Float32 | None:
    """Return what a light runtime makes of the model in fp32; None where none is installed."""
    choices = [choice for choice in installed_choices() if choice.precision == "fp32"]
    if not choices:
        return None
    return open_runtime(target, choices[0], batch=batch.shape[0], samples=batch.shape[1]).run(batch)


def _compare(found: Float32, expected: Float32, name: str) -> None:
    if found.shape != expected.shape:
        raise InputError(f"the conversion of {name} gives {found.shape} features, torch {expected.shape}: it is not kept")
    difference = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not difference <= _TOLERANCE:
        raise InputError(f"the conversion of {name} is off by {difference:.2g} of the largest feature: it is not kept")


def _quantise(source: Path, target: Path) -> int:
    """Write a model whose matrix products are in 8-bit integers, weights by column; convolutions stay in fp32.

    With 8-bit convolutions, too, features were destroyed where that was tried (OpenVINO: cosine 0.71, says issue 4).
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # The first convolution is a matrix product, too, in what `rewritten` makes; all others name no convolution's weights.
    nodes = onnx.load(str(source), load_external_data=False).graph.node
    convolutions = [n.name for n in nodes if n.op_type == "MatMul" and any(i.startswith(CONVOLUTIONS) for i in n.input)]
    quantize_dynamic(
        str(source),
        str(target),
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["MatMul"],
        nodes_to_exclude=convolutions,
        per_channel=True,
    )
    output = onnx.load(str(target), load_external_data=False).graph.output[0]
    return int(output.type.tensor_type.shape.dim[2].dim_value)


def _require(*packages: str) -> None:
    for package in packages:
        if installed(package) == "unknown":
            raise MissingExtraError(
                f"converting a learned encoder needs {package}, of the extra '{EXTRA}'; {install_hint(EXTRA)}"
            )


def _main(argument: str) -> int:
    try:
        dims = _job(json.loads(argument))
    except MusicHalError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write("\n" + json.dumps({"dims": dims}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))
