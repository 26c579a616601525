"""ONNX Runtime: everywhere, in fp32 and dynamic int8, and on other processors through its providers."""

from pathlib import Path

import numpy as np

from musichal.arrays import Float32
from musichal.errors import InputError

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
        if provider != "CPUExecutionProvider":
            # What another processor cannot compute falls back on this one.
            providers.append(("CPUExecutionProvider", {}))
        try:
            self._session = onnxruntime.InferenceSession(str(graph), options, providers=providers)
        except Exception as error:  # its exceptions share no class but this one
            raise InputError(f"ONNX Runtime cannot read the converted model: {str(error).splitlines()[0]}") from error
        if provider not in self._session.get_providers():
            raise InputError(f"ONNX Runtime has {provider} but cannot use it on this machine")

    def run(self, batch: Float32) -> Float32:
        """Return the features (batch, frames, dims) of samples (batch, samples)."""
        if batch.shape != self._shape:
            raise ValueError(f"opened for {self._shape}, given {batch.shape}")
        return np.asarray(self._session.run([OUTPUT], {INPUT: np.ascontiguousarray(batch, np.float32)})[0], np.float32)
