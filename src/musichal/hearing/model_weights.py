"""The weights of the networks that come with the package."""

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from safetensors.numpy import load

from musichal.arrays import Float32


@cache
def _stored(model: str) -> bytes:
    return files("musichal.hearing").joinpath(f"{model}_model.safetensors").read_bytes()


@cache
def model_digest(model: str) -> str:
    """Return the SHA-256 of a packaged model, "note" or "drum", as 64 hexadecimal digits."""
    return hashlib.sha256(_stored(model)).hexdigest()


@cache
def _packaged(model: str) -> Mapping[str, Float32]:
    return load(_stored(model))


def model_weights(model: str, rows: Mapping[str, int], weights: Mapping[str, Float32] | None = None) -> Mapping[str, Float32]:
    """Return the arrays of a packaged model, or `weights`, once those named in `rows` have as many rows as stated there.

    Raises `ValueError` where they have not: the network would be given other features than it was trained on.
    """
    weights = _packaged(model) if weights is None else weights
    for name, count in rows.items():
        if len(weights[name]) != count:
            raise ValueError(f"{name} of the {model} model must have {count} rows, got {len(weights[name])}")
    return weights
