"""Encoders by name, so that a new one joins by one entry here and no caller changes.

An entry is a factory: an encoder with heavy dependencies imports them when it is asked for, not before.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from musichal.errors import InputError
from musichal.hearing.encoders.protocol import Encoder
from musichal.spec import PerceptionSpec


@dataclass(frozen=True)
class _Entry:
    """How to make an encoder, and the licence of what it learned from or carries."""

    factory: Callable[[PerceptionSpec], Encoder]
    licence: str


def _spectral(spec: PerceptionSpec) -> Encoder:
    from musichal.hearing.encoders.spectral import SpectralEncoder

    return SpectralEncoder(spec)


_ENTRIES: dict[str, _Entry] = {"spectral": _Entry(_spectral, "MIT, no weights")}


def encoder_names() -> tuple[str, ...]:
    """Return the names that `create_encoder` knows, sorted."""
    return tuple(sorted(_ENTRIES))


def encoder_licence(name: str) -> str:
    """Return the licence note of an encoder; raises `InputError` for an unknown name."""
    return _entry(name).licence


def create_encoder(spec: PerceptionSpec) -> Encoder:
    """Return the encoder that the spec names.

    An empty digest in the spec asks for the encoder as it is; any other must be the encoder's own.

    Raises
    ------
    InputError
        If the name is unknown, or the encoder's digest is not the one in the spec.
    """
    encoder = _entry(spec.encoder.name).factory(spec)
    if spec.encoder.digest not in ("", encoder.digest):
        raise InputError(
            f"encoder '{spec.encoder.name}' is not the one this partner was trained with:"
            f" partner has {spec.encoder.digest}, this MusicHal has {encoder.digest}"
        )
    return encoder


def pinned(spec: PerceptionSpec) -> PerceptionSpec:
    """Return the spec with its encoder's digest and the normalisation that the encoder asks for written in.

    Raises `InputError` as `create_encoder` does.
    """
    encoder = create_encoder(spec)
    return dataclasses.replace(
        spec,
        encoder=dataclasses.replace(spec.encoder, digest=encoder.digest),
        vocabulary=dataclasses.replace(spec.vocabulary, normalisation=encoder.normalisation),
    )


def _entry(name: str) -> _Entry:
    if name not in _ENTRIES:
        raise InputError(f"unknown encoder '{name}'; known: {', '.join(encoder_names())}")
    return _ENTRIES[name]
