"""Pinning a spec: writing in what is really here, so that it can be compared elsewhere and later."""

from dataclasses import replace

from musichal.hearing.encoders.registry import pinned
from musichal.hearing.note_model import note_model_digest
from musichal.spec import PerceptionSpec


def pin(spec: PerceptionSpec) -> PerceptionSpec:
    """Return the spec with its encoder's digest and normalisation and its note model's digest written in.

    Raises
    ------
    InputError
        For an encoder that is not known, or an encoder digest in the spec that is not the encoder's own.
    """
    return replace(pinned(spec), notes=replace(spec.notes, digest=note_model_digest()))
