"""The packages of the extra `mert`, imported when they are needed."""

from types import ModuleType

from musichal.errors import MissingExtraError, install_hint

EXTRA = "mert"


def torch_package(purpose: str) -> ModuleType:
    """Return torch; raises `MissingExtraError` that names what it is needed for."""
    try:
        import torch
    except ImportError as error:
        raise _missing("torch", purpose) from error
    return torch


def transformers_package(purpose: str) -> ModuleType:
    """Return transformers; raises `MissingExtraError` that names what it is needed for."""
    try:
        import transformers
    except ImportError as error:
        raise _missing("transformers", purpose) from error
    return transformers


def hub_package(purpose: str) -> ModuleType:
    """Return huggingface_hub; raises `MissingExtraError` that names what it is needed for."""
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ImportError as error:
        raise _missing("huggingface_hub", purpose) from error
    return huggingface_hub


def _missing(package: str, purpose: str) -> MissingExtraError:
    return MissingExtraError(f"{purpose} needs {package}, of the extra '{EXTRA}'; {install_hint(EXTRA)}")
