"""ONNX Runtime: everywhere, in fp32 and dynamic int8, and on other processors through its providers."""

import contextlib
import io
import os
import re
from pathlib import Path
from types import ModuleType

import numpy as np

from musichal.arrays import Float32
from musichal.errors import InputError
from musichal.text import printable

INPUT, OUTPUT, SAMPLES_AXIS = "samples", "features", "n_samples"
"""Names in a converted model: its input (2, n_samples), its output (2, frames, dims), and the axis that is open."""

# TF32 and a search for the quickest algorithm would make the numbers of a card depend on the day.
_PROVIDERS: dict[str, tuple[str, dict[str, str]]] = {
    "onnxruntime": ("CPUExecutionProvider", {}),
    "onnxruntime-cuda": (
        "CUDAExecutionProvider",
        {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC", "cudnn_conv_use_max_workspace": "0"},
    ),
    "onnxruntime-coreml": (
        "CoreMLExecutionProvider",
        {"ModelFormat": "MLProgram", "MLComputeUnits": "ALL", "RequireStaticInputShapes": "1"},
    ),
}
_CPU = "CPUExecutionProvider"
_MISSING = {
    "onnxruntime-cuda": "it found no libraries of CUDA and cuDNN that fit, or no NVIDIA card; `pip install"
    ' "onnxruntime-gpu[cuda,cudnn]"` brings the libraries',
    "onnxruntime-coreml": "this macOS has no CoreML for it",
}
_CUDA_FAILURE = re.compile(r"CUDA failure \d+: [^;\n]+")
_SILENT = 4  # of ONNX Runtime's levels: what goes wrong is said by us, in one line


def provider_is_here(runtime: str) -> bool:
    """Return whether the ONNX Runtime that is installed has the provider of a runtime."""
    import onnxruntime

    return _PROVIDERS[runtime][0] in onnxruntime.get_available_providers()


class OnnxRuntime:
    """Implements `runtimes.Runtime`; raises `InputError` where ONNX Runtime cannot read the model or use the provider."""

    def __init__(self, graph: Path, *, name: str, precision: str, batch: int, samples: int) -> None:
        import onnxruntime

        self.name = name
        self.precision = precision
        self._shape = (batch, samples)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        options.log_severity_level = 3
        options.add_free_dimension_override_by_name(SAMPLES_AXIS, samples)
        provider, settings = _PROVIDERS[name]
        providers = [(provider, settings)]
        if provider != _CPU:
            # What another processor cannot compute falls back on this one.
            providers.append((_CPU, {}))
            _prepare(onnxruntime, cuda=name == "onnxruntime-cuda")
        try:
            # Without its own fallback, which would print, and go on with this processor for everything.
            self._session = onnxruntime.InferenceSession(str(graph), options, providers=providers, enable_fallback=0)
        except Exception as error:  # its exceptions share no class but this one
            if provider != _CPU:
                raise InputError(f"{name} cannot be used on this machine: {_reason(error)}") from error
            raise InputError(f"ONNX Runtime cannot read the converted model: {_reason(error)}") from error
        if provider not in self._session.get_providers():
            raise InputError(f"{name} cannot be used on this machine: {_MISSING[name]}")

    def run(self, batch: Float32) -> Float32:
        """Return the features (batch, frames, dims) of samples (batch, samples)."""
        if batch.shape != self._shape:
            raise ValueError(f"opened for {self._shape}, given {batch.shape}")
        return np.asarray(self._session.run([OUTPUT], {INPUT: np.ascontiguousarray(batch, np.float32)})[0], np.float32)


def _reason(error: Exception) -> str:
    """Return what an exception of ONNX Runtime says, without the places in its program that come before it."""
    text = str(error).strip() or type(error).__name__
    of_cuda = _CUDA_FAILURE.search(text)
    return printable((of_cuda[0] if of_cuda else text.splitlines()[0]).strip())[:200]


def _prepare(onnxruntime: ModuleType, *, cuda: bool) -> None:
    """Make ready for another processor: silence about what fails, and for CUDA, its libraries and its precision."""
    onnxruntime.set_default_logger_severity(_SILENT)
    if not cuda:
        return
    # The convolutions that cuDNN puts together by itself ask this alone, not the provider's option.
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    # Libraries that pip installed are on no path that the system searches. It prints what it does not find.
    with contextlib.redirect_stdout(io.StringIO()):
        onnxruntime.preload_dlls()
