"""Encoders: from the stems of a window to one feature vector per frame and source.

To add an encoder, write a module with a class that implements `Encoder`, and one entry in `_FACTORIES`. An entry is a
function, so that an encoder with heavy dependencies imports them when it is asked for.
"""

import dataclasses
from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

from musichal.arrays import Float32
from musichal.errors import InputError
from musichal.hearing.percepts import PitchFrames, Stems
from musichal.spec import PerceptionSpec


class Encoder(Protocol):
    """Turns the stems of one window into features: every frame of the segment, one array per source, never a mean.

    An encoder is a pure function of its input: the same stems give the same features, bit for bit. `name` is its name in the
    registry; `digest` identifies everything inside that shapes a feature, weights or the version of an algorithm; stems must
    have `sample_rate_hz`; `normalisation` is what the vocabulary does before k-means, 'scale' (one global scale) or 'l2-pca';
    `licence` is that of its weights.
    """

    name: str
    digest: str
    sample_rate_hz: int
    normalisation: str
    licence: str

    def encode(self, stems: Stems, pitch: PitchFrames) -> tuple[Float32, ...]:
        """Return one (frames, dims) array per source, for the frames of the segment at the end of the window."""


_Factory = Callable[[PerceptionSpec, bool], Encoder]


@lru_cache(maxsize=8)  # it keeps nothing of what it hears
def _spectral(spec: PerceptionSpec, _ready: bool) -> Encoder:
    from musichal.hearing.encoders.spectral import SpectralEncoder

    return SpectralEncoder(spec)


def _learned(spec: PerceptionSpec, ready: bool) -> Encoder:
    from musichal.hearing.encoders.learned import LearnedEncoder

    return LearnedEncoder(spec, ready=ready)


_FACTORIES: dict[str, _Factory] = {"spectral": _spectral, "mert": _learned, "hf": _learned}
LEARNED = ("mert", "hf")
"""Encoders with weights of their own: MERT, and any network of its family by the name of its weights."""


def encoder_names() -> tuple[str, ...]:
    """Return the names that `create_encoder` knows, sorted."""
    return tuple(sorted(_FACTORIES))


def create_encoder(spec: PerceptionSpec, *, ready: bool = True) -> Encoder:
    """Return the encoder that the spec names.

    An empty digest in the spec accepts any version of the encoder; another must be the encoder's own. If not `ready`, it loads
    its network when it is first asked to encode: enough to ask what it is. Raises `InputError` if the name is unknown, the
    digest differs, or its weights are missing, and `MissingExtraError` if what computes it is not installed.
    """
    encoder = _factory(spec.encoder.name)(spec, ready)
    if spec.encoder.digest not in ("", encoder.digest):
        raise InputError(
            f"encoder '{spec.encoder.name}' is not the one this partner was trained with:"
            f" partner has {spec.encoder.digest}, this MusicHal has {encoder.digest}"
        )
    return encoder


def pinned(spec: PerceptionSpec) -> PerceptionSpec:
    """Return the spec with the digest and the normalisation of its encoder written in; raises as `create_encoder` does."""
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
