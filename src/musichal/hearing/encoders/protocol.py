"""What an encoder is, so that a new one joins without touching a caller."""

from typing import Protocol

from musichal.arrays import Float32
from musichal.hearing.percepts import PitchFrames, Stems


class Encoder(Protocol):
    """Turns the stems of one window into features: every frame of the segment, one array per source, never a mean.

    An encoder is a pure function of its input: the same stems give the same features, bit for bit, whatever it was
    given before.
    """

    @property
    def name(self) -> str:
        """Name in the registry."""
        ...

    @property
    def digest(self) -> str:
        """Identifies everything inside that shapes a feature: weights, or the version of an algorithm."""
        ...

    @property
    def sample_rate_hz(self) -> int:
        """Sample rate that the stems must have."""
        ...

    @property
    def normalisation(self) -> str:
        """What the vocabulary should do before k-means: 'scale' (one global scale) or 'l2-pca'."""
        ...

    @property
    def licence(self) -> str:
        """Licence of what it carries or was trained to."""
        ...

    def encode(self, stems: Stems, pitch: PitchFrames) -> tuple[Float32, ...]:
        """Return one (frames, dims) array per source, for the frames of the segment at the end of the window."""
        ...
