"""Hearing for tokens alone, in little more than half of the time: notes and drum hits shape no token."""

import numpy as np

from musichal.arrays import Float32
from musichal.hearing.listener import FeatureExtractor
from musichal.hearing.percepts import PitchFrames
from musichal.hearing.pitch import pitch_analyser
from musichal.note import HeardNote


class _None:
    """Hears nothing."""

    def step(self, _window: object) -> tuple[HeardNote, ...]:
        return ()

    def flush(self) -> tuple[HeardNote, ...]:
        return ()


def without_notes(extractor: FeatureExtractor) -> FeatureExtractor:
    """Return an extractor, made deaf to notes and drum hits; all else stays as it is."""
    vars(extractor).update(_notes=_None(), _drums=_None())
    return extractor


class _NoPitch:
    """Finds the pitch of silence in everything."""

    def __init__(self, silence: PitchFrames) -> None:
        self._silence = silence

    def analyse(self, _harmonic: Float32) -> PitchFrames:
        return self._silence


def without_pitch(extractor: FeatureExtractor) -> FeatureExtractor:
    """Return an extractor, made deaf to pitch: for the features of an encoder that does not look at it."""
    spec = extractor.spec
    silence = pitch_analyser(spec).analyse(np.zeros(spec.window_samples, np.float32))
    vars(extractor).update(_pitch=_NoPitch(silence))
    return extractor
