"""OpenVINO: the quickest on processors, and the one that computes in bfloat16.

In ``int8``, the weights of matrix products are rounded to 8-bit integers, each row with a scale of its own, and OpenVINO
rounds what they are multiplied with as it comes, in groups of `_GROUP` values of one frame, each with its own scale. So a
frame's numbers depend on no other frame's, and not on the other source. Convolutions stay as they are: with them in 8-bit
integers, features were destroyed where that was tried (cosine 0.71, says issue 4).
"""

import platform
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from musichal.arrays import Float32
from musichal.errors import InputError

if TYPE_CHECKING:
    from openvino import Model

# "f32" must be asked for: where the processor has bfloat16, OpenVINO would use it unasked.
_HINTS = {"fp32": "f32", "int8": "f32", "bf16": "bf16", "bf16-int8": "bf16"}
# Where products in 8-bit integers were run; elsewhere OpenVINO may do something else with the same settings.
_INT8_MACHINES = ("x86_64", "amd64")
_GROUP = 128
# Products that add up fewer values than this are a small share of a network's work.
_LEAST_SUM = 256


@lru_cache(maxsize=1)
def precisions_here() -> tuple[str, ...]:
    """Return the precisions that this processor really has, not those that OpenVINO would emulate."""
    import openvino

    capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    has = {"bf16": "BF16" in capabilities, "int8": platform.machine().lower() in _INT8_MACHINES}
    return tuple(precision for precision in _HINTS if all(has.get(part, True) for part in precision.split("-")))


class OpenVinoRuntime:
    """Implements `runtimes.Runtime`; raises `InputError` where OpenVINO cannot read or compile the model."""

    name = "openvino"

    def __init__(self, graph: Path, *, precision: str, batch: int, samples: int) -> None:
        import openvino

        self.precision = precision
        self._shape = (batch, samples)
        self._turn = Lock()
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            # Pinned, the processes of a training would share one core.
            "ENABLE_CPU_PINNING": False,
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": _GROUP if precision.endswith("int8") else 0,
        }
        try:
            core = openvino.Core()
            model = core.read_model(graph)
            model.reshape(list(self._shape))
            if precision.endswith("int8"):
                quantise(model)
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


def quantise(model: "Model") -> int:
    """Round the weights of a model's large matrix products to 8-bit integers, in place; return how many there were."""
    from openvino import opset13 as operations

    found = 0
    for node in model.get_ordered_ops():
        if node.get_type_name() != "MatMul":
            continue
        constant = node.input_value(1).get_node()
        if constant.get_type_name() != "Constant" or len(constant.shape) != 2:
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


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
