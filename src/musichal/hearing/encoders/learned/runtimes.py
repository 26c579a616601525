"""Light runtimes that compute a converted model, behind one small interface.

A runtime and its precision move tokens a little, so both are in the spec of a partner. Which there are:

===================  ==========  ================================================================================
runtime              precision   what it is
===================  ==========  ================================================================================
``openvino``         ``fp32``    OpenVINO on the processor
``openvino``         ``int8``    on x86, the same, its matrix products in 8-bit integers, scaled anew for each frame
``openvino``         ``bf16``    all of it in bfloat16, where the processor has it
``openvino``         ``bf16-int8`` bfloat16, its matrix products in 8-bit integers, scaled anew for each frame
``onnxruntime``      ``fp32``    ONNX Runtime on the processor
``onnxruntime``      ``int8``    the same, its matrix products in 8-bit integers, scaled anew for each input
``onnxruntime-cuda`` ``fp32``    ONNX Runtime on an NVIDIA card (for training)
``onnxruntime-coreml`` ``fp32``  ONNX Runtime through CoreML (macOS)
===================  ==========  ================================================================================

Every one is opened for one shape of input and computes on one thread: two were slower whenever the other core was busy.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from musichal.arrays import Float32
from musichal.errors import InputError, MissingExtraError, install_hint
from musichal.machine import installed


class Runtime(Protocol):
    """A model, opened for batches of one shape; the same batch gives the same bytes, whatever it was given before."""

    @property
    def name(self) -> str:
        """Name in the table of runtimes."""
        ...

    @property
    def precision(self) -> str:
        """What it computes in."""
        ...

    def run(self, batch: Float32) -> Float32:
        """Return the features (batch, frames, dims) of samples (batch, samples)."""
        ...


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
        return "int8" if self.precision == "int8" and self.runtime != "openvino" else "fp32"


@dataclass(frozen=True)
class _Backend:
    """A runtime: the package behind it, the extra with that, its precisions; off the processor, what else it needs."""

    package: str
    extra: str
    precisions: tuple[str, ...]
    needs: str = ""

    @property
    def on_cpu(self) -> bool:
        """Whether it computes on the processor."""
        return not self.needs


_BACKENDS = {
    "openvino": _Backend("openvino", "openvino", ("fp32", "int8", "bf16", "bf16-int8")),
    "onnxruntime": _Backend("onnxruntime", "onnxruntime", ("fp32", "int8")),
    "onnxruntime-cuda": _Backend(
        "onnxruntime",
        "onnxruntime",
        ("fp32",),
        needs='it needs an NVIDIA card, and `pip uninstall onnxruntime`, `pip install "onnxruntime-gpu[cuda,cudnn]"`',
    ),
    "onnxruntime-coreml": _Backend("onnxruntime", "onnxruntime", ("fp32",), needs="it needs macOS"),
}

Opener = Callable[[Path], Runtime]


def runtime_names() -> tuple[str, ...]:
    """Return the names of all runtimes."""
    return tuple(_BACKENDS)


def precision_names() -> tuple[str, ...]:
    """Return every precision that some runtime has."""
    return tuple(dict.fromkeys(p for backend in _BACKENDS.values() for p in backend.precisions))


def package_of(runtime: str) -> str:
    """Return the name under which pip knows the package behind a runtime, as far as it is installed.

    Raises `InputError` for a runtime that is not known.
    """
    package = _backend(runtime).package
    names = (package, f"{package}-gpu")  # one module by two names: ONNX Runtime with CUDA is a package of its own
    return next((name for name in names if installed(name) != "unknown"), package)


def installed_choices(*, on_cpu_only: bool = True) -> tuple[Choice, ...]:
    """Return what this machine can compute with, in the order of the table; empty where no runtime is installed."""
    found = []
    for name, backend in _BACKENDS.items():
        if (backend.on_cpu or not on_cpu_only) and importlib.util.find_spec(backend.package) is not None:
            found += [Choice(name, precision) for precision in backend.precisions if precision in _precisions_here(name)]
    return tuple(found)


def check_choice(choice: Choice) -> None:
    """Raise where this machine cannot compute so.

    Raises
    ------
    MissingExtraError
        If the runtime is not installed; the message has the command that installs it.
    InputError
        If there is no such runtime or precision, or this machine does not have what it needs.
    """
    backend = _backend(choice.runtime)
    if choice.precision not in backend.precisions:
        raise InputError(f"{choice.runtime} has no precision '{choice.precision}'; it has: {', '.join(backend.precisions)}")
    if importlib.util.find_spec(backend.package) is None:
        raise MissingExtraError(f"{choice.runtime} is not installed; {install_hint(backend.extra)}")
    if choice.precision not in _precisions_here(choice.runtime):
        raise InputError(_lacking(choice))


def open_runtime(graph: Path, choice: Choice, *, batch: int, samples: int) -> Runtime:
    """Return a runtime that computes the model in `graph` (the conversion that the choice asks for) on one thread.

    Parameters
    ----------
    graph : Path
        An ONNX file of `conversion`.
    choice : Choice
    batch, samples : int
        The one shape of input that it will be given.

    Raises
    ------
    MissingExtraError, InputError
        As `check_choice`, and where the runtime cannot read the model.
    """
    check_choice(choice)
    if choice.runtime == "openvino":
        from musichal.hearing.encoders.learned.openvino_runtime import OpenVinoRuntime

        return OpenVinoRuntime(graph, precision=choice.precision, batch=batch, samples=samples)
    from musichal.hearing.encoders.learned.onnx_runtime import OnnxRuntime

    return OnnxRuntime(graph, name=choice.runtime, precision=choice.precision, batch=batch, samples=samples)


def _backend(runtime: str) -> _Backend:
    if runtime not in _BACKENDS:
        raise InputError(f"unknown runtime '{runtime}'; known: {', '.join(_BACKENDS)}")
    return _BACKENDS[runtime]


def _precisions_here(runtime: str) -> tuple[str, ...]:
    if runtime == "openvino":
        from musichal.hearing.encoders.learned.openvino_runtime import precisions_here

        return precisions_here()
    from musichal.hearing.encoders.learned.onnx_runtime import provider_is_here

    return _BACKENDS[runtime].precisions if provider_is_here(runtime) else ()


def _lacking(choice: Choice) -> str:
    if choice.runtime == "openvino":
        return f"this processor cannot compute in {choice.precision}"
    return f"the ONNX Runtime that is installed here cannot compute by {choice.runtime}: {_backend(choice.runtime).needs}"
