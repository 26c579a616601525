"""The part of a checkpoint's network that one layer needs, as one ONNX file that light runtimes read.

torch and transformers compute here only, in a process of its own: playing needs neither. The network is transformers' own
HubertModel or Wav2Vec2Model, built from the sizes of the checkpoint, loaded strictly, and cut after the layer. Hidden state
0 is what enters the first transformer layer, k is what leaves layer k. The result is compared with torch before it is kept.

A converted model lies in the cache as ``DIGEST.onnx``, beside ``DIGEST.json``, which is written last and has the model's
SHA-256: a damaged or half-made one counts as absent and is made again.
"""

import hashlib
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from musichal.arrays import Float32
from musichal.atomic import open_atomically
from musichal.errors import InputError, MusicHalError
from musichal.hearing.encoders.checkpoint import Checkpoint, find_checkpoint, import_extra
from musichal.hearing.encoders.runtimes import (
    INPUT,
    OUTPUT,
    SAMPLES_AXIS,
    Choice,
    check_choice,
    installed_choices,
    open_runtime,
)
from musichal.machine import cache_folder, run_module, sha256_of
from musichal.text import printable, reason

CONVERSION_VERSION = 4
"""Increases when a conversion gives other numbers than before."""

_MODULE = "musichal.hearing.encoders.conversion"
_PURPOSE = "converting a learned encoder"
# Rounding in float32 of another order of computation, relative to the largest feature. A wrong graph is off by far more.
_TOLERANCE = 1e-4
_PROBE_SAMPLES = 8400
_PREFIXES = ("hubert.", "wav2vec2.")
# What published models carry beside the network: heads for speech recognition, classification and pre-training.
_HEADS = ("lm_head.", "classifier.", "projector.", "layer_weights", "quantizer.", "project_hid.", "project_q.")


@dataclass(frozen=True)
class GraphKey:
    """Which layer of which checkpoint, and as what: 'fp32', or 'int8' with matrix products in 8-bit integers."""

    checkpoint: str
    layer: int
    kind: str

    @property
    def path(self) -> Path:
        """Return where the model lies in the cache."""
        text = f"musichal graph {CONVERSION_VERSION} {self.checkpoint} {self.layer} {self.kind}"
        return cache_folder() / "converted" / f"{hashlib.sha256(text.encode()).hexdigest()}.onnx"


@dataclass(frozen=True)
class Graph:
    """A converted model that was checked: its file and SHA-256, the name and licence of its weights, its output's sizes."""

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
    try:
        entry = json.loads(key.path.with_suffix(".json").read_text("utf-8"))
        graph = Graph(path=key.path, **entry["graph"])
        named = graph.weights.isprintable() and graph.licence.isprintable()
        return graph if entry["key"] == asdict(key) and named and sha256_of(graph.path) == graph.sha256 else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def convert(checkpoint: Checkpoint, *, layer: int, kind: str, say: Callable[[str], None] = lambda _text: None) -> Graph:
    """Return the converted model ('fp32' or 'int8') of a checkpoint's layer, from the cache or made now; `say` is told first.

    Raises `InputError` if the conversion fails or differs from torch, or the cache cannot be written; `MissingExtraError` if a
    package is missing.
    """
    checkpoint.check_layer(layer)
    key = GraphKey(checkpoint.digest, layer, "fp32")
    graph = find_graph(key)
    if graph is None:
        kept = printable(key.path.parent)
        say(f"converting layer {layer} of {checkpoint.name}, once, in about a minute; kept in {kept}")
        sizes = ("licence", "dims", "sample_rate_hz", "frame_samples", "stride_samples")

        def export(target: Path) -> None:
            job = {"folder": str(checkpoint.folder), "layer": layer, "digest": checkpoint.digest, "target": str(target)}
            run_module(_MODULE, [json.dumps(job)], threads=None, what="converting the encoder")

        graph = _make(key, export, {"weights": checkpoint.name} | {name: getattr(checkpoint, name) for name in sizes})
    return graph if kind == "fp32" else quantised(key, graph)


def quantised(key: GraphKey, graph: Graph) -> Graph:
    """Return an fp32 model with its matrix products in 8-bit integers, from the cache or made now; torch is not needed."""
    key = replace(key, kind="int8")
    found = find_graph(key)
    if found is not None:
        return found
    check_choice(Choice("onnxruntime", "int8"))
    import_extra("onnx", _PURPOSE)

    def quantise(target: Path) -> None:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        logging.disable(logging.WARNING)  # it recommends a pre-processing that is of no use here
        try:
            quantize_dynamic(graph.path, target, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"], per_channel=True)
        finally:
            logging.disable(logging.NOTSET)

    return _make(key, quantise, {k: v for k, v in asdict(graph).items() if k not in ("path", "sha256")})


def load_module(checkpoint: Checkpoint, *, layer: int) -> Any:
    """Return a torch module from prepared samples (batch, samples) to the hidden state of a layer (batch, frames, dims).

    It is in eval mode, without gradients, its weight norm folded; attention is plain matrix products ("eager"). In networks
    with the norm before each layer, the last hidden state is after the final norm, as in transformers.

    Raises `InputError` if the layer does not exist, or the weights are damaged, carry code, do not fit the config, or changed;
    `MissingExtraError` if torch or transformers is not installed.
    """
    checkpoint.check_layer(layer)
    torch: Any = import_extra("torch", _PURPOSE)
    transformers = import_extra("transformers", _PURPOSE)
    family = "Wav2Vec2" if checkpoint.architecture == "wav2vec2" else "Hubert"
    known = getattr(transformers, f"{family}Config")().to_dict()
    sizes = {name: value for name, value in checkpoint.config.items() if name in known}
    config = getattr(transformers, f"{family}Config")(**sizes, mask_time_prob=0.0, attn_implementation="eager")
    with torch.device("meta"):  # no memory until the weights are assigned
        model = getattr(transformers, f"{family}Model")(config)
    state = _read_state(torch, checkpoint)
    where = printable(checkpoint.weights_path)
    try:
        missing, unexpected = model.load_state_dict(state, strict=False, assign=True)
    except RuntimeError as error:
        why = printable(str(error).strip().splitlines()[-1].strip())[:160]
        raise InputError(f"{where} does not fit its config: {why}") from error
    for verb, names in (("lacks", missing), ("has also", unexpected)):
        if names:
            raise InputError(f"{where} does not fit its config: it {verb} {printable(names[0])[:80]}")
    del model.encoder.layers[layer:]
    torch.nn.utils.parametrize.remove_parametrizations(model.encoder.pos_conv_embed.conv, "weight")
    if config.do_stable_layer_norm and layer < checkpoint.layers:
        model.encoder.layer_norm = torch.nn.Identity()

    class HiddenState(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, samples: Any) -> Any:
            return self.model(samples).last_hidden_state

    return HiddenState().eval().requires_grad_(False)


def _read_state(torch: Any, checkpoint: Checkpoint) -> dict[str, Any]:
    """Return a checkpoint's tensors in float32 under the names of the bare model; runs no code of the file.

    Safetensors are plain data. A pytorch_model.bin is a pickle: torch reads it with ``weights_only``, safe from 2.6 on.
    """
    path, where = checkpoint.weights_path, printable(checkpoint.weights_path)
    if path.suffix == ".bin" and tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6):
        raise InputError(f"reading {path.name} safely needs torch 2.6 or later, here is {torch.__version__}")
    try:
        if path.suffix == ".safetensors":
            stored = import_extra("safetensors.torch", _PURPOSE).load_file(path)
        else:
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # neither library has an error of its own for a bad file
        first = (str(error).strip().splitlines() or [type(error).__name__])[0].split(". ")[0]
        raise InputError(f"{where} is damaged, cut short or carries code: {printable(first)[:160]}") from error
    if sha256_of(path) != checkpoint.weights_sha256:
        raise InputError(f"{where} has changed since it was read first")
    if not isinstance(stored, dict) or not all(isinstance(v, torch.Tensor) and v.is_floating_point() for v in stored.values()):
        raise InputError(f"{where} is not a table of named floating-point tensors")
    prefix = next((p for p in _PREFIXES if any(name.startswith(p) for name in stored)), "")
    heads = _HEADS if prefix else ()
    state = {}
    for name, tensor in stored.items():
        # Training masks frames by a vector of its own; nothing here uses it.
        if name.removeprefix(prefix) == "masked_spec_embed" or name.startswith(heads):
            continue
        if not torch.isfinite(tensor).all():
            raise InputError(f"{where} is damaged: {printable(name)[:80]} has values that are not finite")
        state[name.removeprefix(prefix)] = tensor.to(torch.float32).contiguous()
    return state


def _make(key: GraphKey, write: Callable[[Path], None], described: dict[str, Any]) -> Graph:
    target = key.path
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=target.parent) as folder:
            model = Path(folder) / "model.onnx"
            write(model)
            with model.open("rb+") as stream:
                os.fsync(stream.fileno())
            entry = {"key": asdict(key), "graph": {"sha256": sha256_of(model), **described}}
            model.replace(target)
        with open_atomically(target.with_suffix(".json")) as stream:
            stream.write(json.dumps(entry, indent=1).encode())
    except OSError as error:
        raise InputError(f"cannot keep a converted model in {printable(target.parent)}: {reason(error)}") from error
    made = find_graph(key)
    if made is None:
        raise InputError(f"the converted model {printable(target)} was damaged as soon as it was written")
    return made


def _export(checkpoint: Checkpoint, layer: int, target: Path) -> None:
    """Write a layer's network as ONNX, and compare it with torch, at another length than it was traced at."""
    torch = import_extra("torch", _PURPOSE)
    module = load_module(checkpoint, layer=layer)
    probe = np.random.default_rng(0).standard_normal((2, max(_PROBE_SAMPLES, 4 * checkpoint.frame_samples)), np.float32)
    other = np.random.default_rng(1).standard_normal((2, probe.shape[1] * 2 + 123), np.float32)
    with torch.inference_mode():
        expected = np.asarray(module(torch.from_numpy(other)).numpy(), np.float32)
    axis = torch.export.Dim(SAMPLES_AXIS, min=2 * checkpoint.frame_samples, max=1 << 24)
    torch.onnx.export(
        module,
        (torch.from_numpy(probe),),
        str(target),
        dynamo=True,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({1: axis},),
        external_data=False,
        verbose=False,
    )
    choice = next((choice for choice in installed_choices() if choice.precision == "fp32"), None)
    if choice is not None:
        found = open_runtime(target, choice, batch=other.shape[0], samples=other.shape[1]).run(other)
        compare(found, expected, checkpoint.name)


def compare(found: Float32, expected: Float32, name: str) -> None:
    """Raise `InputError` if the features of a conversion are not torch's."""
    if found.shape != expected.shape:
        raise InputError(f"the conversion of {name} gives {found.shape} features, torch {expected.shape}: it is not kept")
    difference = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not difference <= _TOLERANCE:
        raise InputError(f"the conversion of {name} is off by {difference:.2g} of the largest feature: it is not kept")


def _main(argument: str) -> int:
    job = json.loads(argument)
    try:
        checkpoint = find_checkpoint(job["folder"], offline=True)
        if checkpoint.digest != job["digest"]:
            raise InputError(f"the weights of {checkpoint.name} changed while they were converted")
        _export(checkpoint, job["layer"], Path(job["target"]))
    except MusicHalError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))
