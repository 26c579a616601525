"""OpenVINO: the quickest on processors, and the one that computes in bfloat16."""

from functools import lru_cache
from pathlib import Path
from threading import Lock

import numpy as np

from musichal.arrays import Float32
from musichal.errors import InputError

# "f32" must be asked for: where the processor has bfloat16, OpenVINO would use it unasked.
_HINTS = {"fp32": "f32", "bf16": "bf16"}


@lru_cache(maxsize=1)
def precisions_here() -> tuple[str, ...]:
    """Return the precisions that this processor really has, not those that OpenVINO would emulate."""
    import openvino

    capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ("fp32", "bf16") if "BF16" in capabilities else ("fp32",)


class OpenVinoRuntime:
    """Implements `runtimes.Runtime`; raises `InputError` where OpenVINO cannot read or compile the model."""

    name = "openvino"

    def __init__(self, graph: Path, *, precision: str, batch: int, samples: int) -> None:
        import openvino

        self.precision = precision
        self._shape = (batch, samples)
        self._turn = Lock()
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            # Pinned, the processes of a training would share one core.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            core = openvino.Core()
            model = core.read_model(graph)
            model.reshape(list(self._shape))
            self._request = core.compile_model(model, "CPU", settings).create_infer_request()
        except RuntimeError as error:
            raise InputError(f"OpenVINO cannot read the converted model: {_first_line(error)}") from error

    def run(self, batch: Float32) -> Float32:
        """Return the features (batch, frames, dims) of samples (batch, samples)."""
        if batch.shape != self._shape:
            raise ValueError(f"opened for {self._shape}, given {batch.shape}")
        # One at a time: listeners of one spec share this. A copy: the next call writes over OpenVINO's own array.
        with self._turn:
            return np.array(self._request.infer([np.ascontiguousarray(batch, np.float32)])[0], np.float32)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
