"""Encoders by name, so that a new one joins by one entry here and no caller changes.

An entry is a factory: an encoder with heavy dependencies imports them when it is asked for, not before.
"""

import dataclasses
from collections.abc import Callable

from musichal.errors import InputError
from musichal.hearing.encoders.protocol import Encoder
from musichal.spec import PerceptionSpec

_Factory = Callable[[PerceptionSpec, bool], Encoder]


def _spectral(spec: PerceptionSpec, _ready: bool) -> Encoder:
    from musichal.hearing.encoders.spectral import SpectralEncoder

    return SpectralEncoder(spec)


def _learned(spec: PerceptionSpec, ready: bool) -> Encoder:
    from musichal.hearing.encoders.learned.encoder import LearnedEncoder

    return LearnedEncoder(spec, ready=ready)


_FACTORIES: dict[str, _Factory] = {"spectral": _spectral, "mert": _learned, "hf": _learned}
LEARNED = ("mert", "hf")
"""Encoders with weights of their own: MERT, and any network of its family by the name of its weights."""


def encoder_names() -> tuple[str, ...]:
    """Return the names that `create_encoder` knows, sorted."""
    return tuple(sorted(_FACTORIES))


def create_encoder(spec: PerceptionSpec, *, ready: bool = True) -> Encoder:
    """Return the encoder that the spec names.

    An empty digest in the spec asks for the encoder as it is; any other must be the encoder's own. One that is not `ready`
    loads its network when it is first asked to encode, which takes a second: enough for who asks what it is.

    Raises
    ------
    InputError
        If the name is unknown, or the encoder's digest is not the one in the spec, or its weights are not at hand.
    MissingExtraError
        If what computes it is not installed.
    """
    encoder = _factory(spec.encoder.name)(spec, ready)
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
    encoder = create_encoder(spec, ready=False)
    return dataclasses.replace(
        spec,
        encoder=dataclasses.replace(spec.encoder, digest=encoder.digest),
        vocabulary=dataclasses.replace(spec.vocabulary, normalisation=encoder.normalisation),
    )


def _factory(name: str) -> _Factory:
    if name not in _FACTORIES:
        raise InputError(f"unknown encoder '{name}'; known: {', '.join(encoder_names())}")
    return _FACTORIES[name]
