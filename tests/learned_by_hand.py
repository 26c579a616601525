"""Partners that hear with a tiny learned encoder, made without the command line."""

import dataclasses
from pathlib import Path

from musichal.audio.recording import Recording
from musichal.hearing.encoders.checkpoint import find_checkpoint
from musichal.hearing.encoders.conversion import convert
from musichal.hearing.encoders.learned import parse_encoder, unmeasured_spec, with_choice
from musichal.hearing.encoders.runtimes import Choice
from musichal.spec import PerceptionSpec, VocabularySpec

EXTRA = "the extra 'mert' is not installed"


def learned_spec(weights: Path, choice: Choice, *, layer: int | None = None, encoder: str = "mert") -> PerceptionSpec:
    """Return the spec of a checkpoint in a folder, its model converted; a small vocabulary, for short recordings."""
    request = parse_encoder(encoder)
    assert request is not None
    checkpoint = find_checkpoint(str(weights))
    spec = with_choice(unmeasured_spec(dataclasses.replace(request, layer=layer), checkpoint), choice)
    convert(checkpoint, layer=spec.encoder.layer, kind=choice.graph)
    return dataclasses.replace(spec, vocabulary=VocabularySpec(size=16))


def part(recording: Recording, first_s: float, last_s: float) -> Recording:
    """Return a stretch of a recording as a recording."""
    rate = recording.sample_rate_hz
    samples = recording.samples[round(first_s * rate) : round(last_s * rate)]
    return dataclasses.replace(recording, samples=samples)
