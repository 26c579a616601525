"""Light runtimes that compute a converted model, and the choice of the fastest one.

A runtime and its precision move tokens a little, so both are in the spec of a partner:

=====================  =============  ===========================================================================
runtime                precision      computes
=====================  =============  ===========================================================================
``openvino``           ``fp32``       on the processor
``openvino``           ``int8``       matrix products in 8-bit integers (x86)
``openvino``           ``bf16``       in bfloat16, where the processor has it
``openvino``           ``bf16-int8``  in bfloat16, matrix products in 8-bit integers
``onnxruntime``        ``fp32``       on the processor
``onnxruntime``        ``int8``       matrix products in 8-bit integers
``onnxruntime-cuda``   ``fp32``       on an NVIDIA card (for training; used only if named)
=====================  =============  ===========================================================================

Each is opened for one shape of input and computes on one thread: two were slower whenever the other core was busy.
Convolutions are never in 8-bit integers: that destroyed features (cosine 0.71).
"""

import contextlib
import importlib.util
import io
import os
import platform
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from musichal.arrays import Float32, Float64
from musichal.errors import InputError, MissingExtraError, install_hint
from musichal.machine import installed
from musichal.text import printable

if TYPE_CHECKING:
    from openvino import Model

INPUT, OUTPUT, SAMPLES_AXIS = "samples", "features", "n_samples"
"""Names in a converted model: its input (2, n_samples), its output (2, frames, dims), and the axis that is open."""
AUTO = "auto"
LEAST_COSINE = 0.999
"""Least cosine, over all frames, between a runtime's features and those of fp32."""

# "f32" must be named: where the processor has bfloat16, OpenVINO uses it by default.
_HINTS = {"fp32": "f32", "int8": "f32", "bf16": "bf16", "bf16-int8": "bf16"}
_PRECISIONS: dict[str, tuple[str, ...]] = {
    "openvino": tuple(_HINTS),
    "onnxruntime": ("fp32", "int8"),
    "onnxruntime-cuda": ("fp32",),
}
_GROUP = 128  # values of one frame that share a scale in 8-bit integers
_LEAST_SUM = 256  # products over fewer values are a small share of a network's work
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
# TF32 and a search for the quickest algorithm would make the numbers of a card vary from day to day.
_CUDA_SETTINGS = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC", "cudnn_conv_use_max_workspace": "0"}
_NEEDS_CUDA = 'it needs an NVIDIA card, and `pip uninstall onnxruntime`, `pip install "onnxruntime-gpu[cuda,cudnn]"`'
_CUDA_FAILURE = re.compile(r"CUDA failure \d+: [^;\n]+")
_WARM_UP_ROUNDS, _ROUNDS = 2, 7


@dataclass(frozen=True, order=True)
class Choice:
    """A runtime and a precision."""

    runtime: str
    precision: str

    def __str__(self) -> str:
        return f"{self.runtime} {self.precision}"

    @property
    def graph(self) -> str:
        """Return which conversion of the model it opens: 'fp32' or 'int8'."""
        return "int8" if self == Choice("onnxruntime", "int8") else "fp32"


class Runtime(Protocol):
    """A model opened for batches of one shape: the same batch gives the same bytes, whatever it was given before."""

    def run(self, batch: Float32) -> Float32:
        """Return the features (batch, frames, dims) of samples (batch, samples)."""


def package_of(runtime: str) -> str:
    """Return the installed package behind a runtime; ONNX Runtime with CUDA is a package of its own."""
    package = _package(runtime)
    return next((name for name in (package, f"{package}-gpu") if installed(name) != "unknown"), package)


def installed_choices(*, on_cpu_only: bool = True) -> tuple[Choice, ...]:
    """Return what this machine can compute with, in the order of the table; empty if no runtime is installed."""
    names = [name for name in _PRECISIONS if not (on_cpu_only and name == "onnxruntime-cuda")]
    return tuple(
        Choice(name, precision)
        for name in names
        if importlib.util.find_spec(_package(name)) is not None
        for precision in _precisions_here(name)
    )


def check_choice(choice: Choice) -> None:
    """Raise `InputError` if this machine cannot compute so, `MissingExtraError` if the runtime is not installed."""
    package = _package(choice.runtime)
    precisions = _PRECISIONS[choice.runtime]
    if choice.precision not in precisions:
        raise InputError(f"{choice.runtime} has no precision '{choice.precision}'. Valid precisions: {', '.join(precisions)}")
    if importlib.util.find_spec(package) is None:
        raise MissingExtraError(f"{choice.runtime} is not installed; {install_hint(package)}")
    if choice.precision not in _precisions_here(choice.runtime):
        if choice.runtime == "onnxruntime-cuda":
            raise InputError(f"the installed ONNX Runtime cannot compute by {choice.runtime}: {_NEEDS_CUDA}")
        raise InputError(f"this processor cannot compute in {choice.precision}")


def candidates(runtime: str, precision: str) -> tuple[Choice, ...]:
    """Return the choices that a runtime and a precision, either of them 'auto', leave on this machine; raises if none."""
    for option, value, names in (("--runtime", runtime, _PRECISIONS), ("--precision", precision, _HINTS)):
        if value not in (AUTO, *names):
            raise InputError(f"unknown {option} '{value}'. Valid: {', '.join((AUTO, *names))}")
    if runtime != AUTO:
        check_choice(Choice(runtime, "fp32" if precision == AUTO else precision))
    if not installed_choices():
        raise MissingExtraError(f"no runtime is installed that a learned encoder could use; {install_hint('mert')}")
    here = installed_choices(on_cpu_only=runtime == AUTO)
    found = tuple(c for c in here if runtime in (AUTO, c.runtime) and precision in (AUTO, c.precision))
    if not found:
        raise InputError(f"no installed runtime computes in {precision} on this machine")
    return found


def open_runtime(graph: Path, choice: Choice, *, batch: int, samples: int) -> Runtime:
    """Open the ONNX file `graph`, the conversion that the choice asks for, for inputs (batch, samples); raises `InputError`."""
    check_choice(choice)
    if choice.runtime == "openvino":
        return OpenVinoRuntime(graph, choice.precision, (batch, samples))
    return OnnxRuntime(graph, (batch, samples), cuda=choice.runtime == "onnxruntime-cuda")


class OnnxRuntime:
    """ONNX Runtime, on the processor or an NVIDIA card."""

    def __init__(self, graph: Path, shape: tuple[int, int], *, cuda: bool) -> None:
        import onnxruntime

        self._shape = shape
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        options.log_severity_level = 3
        options.add_free_dimension_override_by_name(SAMPLES_AXIS, shape[1])
        # What the card cannot compute falls back on the processor, operation by operation.
        providers: list[Any] = [(_CUDA, _CUDA_SETTINGS), _CPU] if cuda else [_CPU]
        if cuda:
            onnxruntime.set_default_logger_severity(4)  # errors are reported below, in one line
            # The convolutions that cuDNN assembles itself read this variable, not the provider's option.
            os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
            # Libraries installed by pip are on no search path. It prints what it does not find.
            with contextlib.redirect_stdout(io.StringIO()):
                onnxruntime.preload_dlls()
        try:
            # Its own fallback would print, and use the processor for everything.
            self._session = onnxruntime.InferenceSession(str(graph), options, providers=providers, enable_fallback=0)
        except Exception as error:  # its exceptions share no class but this one
            what = "onnxruntime-cuda cannot be used on this machine" if cuda else "ONNX Runtime cannot read the converted model"
            raise InputError(f"{what}: {_first_line(error)}") from error
        if cuda and _CUDA not in self._session.get_providers():
            raise InputError(f"onnxruntime-cuda cannot be used on this machine: {_NEEDS_CUDA}")

    def run(self, batch: Float32) -> Float32:
        """Return the features (batch, frames, dims) of samples (batch, samples)."""
        _check_shape(batch, self._shape)
        return np.asarray(self._session.run([OUTPUT], {INPUT: np.ascontiguousarray(batch, np.float32)})[0], np.float32)


class OpenVinoRuntime:
    """OpenVINO, the fastest on processors, and the one that computes in bfloat16."""

    def __init__(self, graph: Path, precision: str, shape: tuple[int, int]) -> None:
        import openvino

        self._shape = shape
        self._lock = Lock()
        in_integers = precision.endswith("int8")
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # pinned, the processes of a training would share one core
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": _GROUP if in_integers else 0,
        }
        try:
            core = openvino.Core()
            model = core.read_model(graph)
            model.reshape(list(shape))
            if in_integers:
                quantise(model)
            self._request = core.compile_model(model, "CPU", settings).create_infer_request()
        except RuntimeError as error:
            raise InputError(f"OpenVINO cannot read the converted model: {_first_line(error)}") from error

    def run(self, batch: Float32) -> Float32:
        """Return the features (batch, frames, dims) of samples (batch, samples)."""
        _check_shape(batch, self._shape)
        # One at a time: listeners of one spec share this. A copy: the next call overwrites OpenVINO's own array.
        with self._lock:
            return np.array(self._request.infer([np.ascontiguousarray(batch, np.float32)])[0], np.float32)


def quantise(model: "Model") -> int:
    """Round the weights of a model's large matrix products to 8-bit integers, in place; return how many there were.

    Each row has its own scale. OpenVINO rounds the other operand at run time, in groups of `_GROUP` values of one frame, so
    that a frame's numbers depend on no other frame's.
    """
    from openvino import opset13 as operations

    found = 0
    for node in model.get_ordered_ops():
        constant = node.input_value(1).get_node() if node.get_type_name() == "MatMul" else None
        if constant is None or constant.get_type_name() != "Constant" or len(constant.shape) != 2:
            continue
        attributes = node.get_attributes()
        weights = np.asarray(constant.data, np.float32)
        rows = weights if attributes["transpose_b"] else weights.T
        if rows.shape[1] < _LEAST_SUM or rows.shape[1] % _GROUP:
            continue
        scale = np.maximum(np.abs(rows).max(axis=1, keepdims=True) / np.float32(127), np.finfo(np.float32).tiny)
        whole = np.ascontiguousarray(np.rint(rows / scale), np.int8)
        restored = operations.multiply(operations.convert(operations.constant(whole), "f32"), operations.constant(scale))
        product = operations.matmul(node.input_value(0), restored, attributes["transpose_a"], True)
        node.output(0).replace(product.output(0))
        found += 1
    return found


@dataclass(frozen=True)
class Measured:
    """A runtime measured: the median time of a batch, and the least and mean cosine of a frame to fp32."""

    choice: Choice
    median_ms: float
    least_cosine: float
    mean_cosine: float


def measure(
    choices: Sequence[Choice],
    batches: Sequence[Float32],
    *,
    graph: Callable[[str], Path],
    clock: Callable[[], float] = time.perf_counter,
    rounds: int = _ROUNDS,
) -> tuple[Measured, ...]:
    """Measure runtimes on batches (batch, samples) of one shape, in turns, so that other load slows all alike.

    `graph` returns the converted model of a kind, 'fp32' or 'int8'; `clock` returns seconds.
    """
    batch, samples = batches[0].shape
    # The processor's fp32 is the reference, for a graphics card too.
    exact = next((c for c in installed_choices() if c.precision == "fp32"), Choice(choices[0].runtime, "fp32"))
    opened = {c: open_runtime(graph(c.graph), c, batch=batch, samples=samples) for c in dict.fromkeys((exact, *choices))}
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
    """Return the fastest runtime of those within the tolerance; raises `InputError` if there is none."""
    faithful = [m for m in measured if m.least_cosine >= LEAST_COSINE]
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


def _package(runtime: str) -> str:
    if runtime not in _PRECISIONS:
        raise InputError(f"unknown runtime '{runtime}'. Valid runtimes: {', '.join(_PRECISIONS)}")
    return runtime.removesuffix("-cuda")


@lru_cache(maxsize=4)
def _precisions_here(runtime: str) -> tuple[str, ...]:
    """Return the precisions that this machine really has, not those that OpenVINO would emulate."""
    if runtime == "openvino":
        import openvino

        capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        has = {"bf16": "BF16" in capabilities, "int8": platform.machine().lower() in ("x86_64", "amd64")}
        return tuple(precision for precision in _HINTS if all(has.get(part, True) for part in precision.split("-")))
    import onnxruntime

    here = runtime == "onnxruntime" or _CUDA in onnxruntime.get_available_providers()
    return _PRECISIONS[runtime] if here else ()


def _check_shape(batch: Float32, shape: tuple[int, int]) -> None:
    if batch.shape != shape:
        raise ValueError(f"batch must have shape {shape}, got {batch.shape}")


def _first_line(error: Exception) -> str:
    """Return what a runtime's exception says, without the places in its program that come before it."""
    text = str(error).strip() or type(error).__name__
    of_cuda = _CUDA_FAILURE.search(text)
    return printable((of_cuda[0] if of_cuda else text.splitlines()[0]).strip())[:200]
