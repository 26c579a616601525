"""Token diversity: how many of its sounds a vocabulary uses, how evenly, and how often they change.

A vocabulary that collapsed live shows here first: few tokens, one of them most of the time, low perplexity.

Conventions
-----------
Tokens are integer arrays of shape (n,), 0 … size - 1 or `SILENCE`; one array per recording, so that nothing is counted
across the seam of two. Silent frames count in `silent_share` and as changes, but in no histogram. Shares are of audible
frames, 0 if there are none. Logarithms are to base 2.

References
----------
Perplexity: Jelinek, Mercer, Bahl & Baker, J. Acoust. Soc. Am. 62(S1), 1977.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from musichal.arrays import AnyArray, Int16
from musichal.hearing.percepts import SOURCES
from musichal.hearing.vocabulary import perplexity, token_histogram, top_share


@dataclass(frozen=True)
class Diversity:
    """Token statistics of one source.

    Of `size` tokens `unique` occur; the commonest has `top_share` of the audible frames, the three commonest
    `top_three_share`. `perplexity` is 2 to the entropy of the histogram (0 if nothing is audible). `silent_share` is of all
    `frames`. `changes_per_second` counts frames whose token differs from the frame before, with silence as one more token.
    """

    size: int
    frames: int
    unique: int
    top_share: float
    top_three_share: float
    perplexity: float
    silent_share: float
    changes_per_second: float


@dataclass(frozen=True, kw_only=True)
class DiversityRow:
    """The diversity of one way of hearing, over `stretch_s` of sound, one value and one histogram per source."""

    label: str
    stretch_s: float
    diversity: tuple[Diversity, ...]
    histograms: tuple[tuple[int, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dataclasses.asdict(self)


def token_diversity(sequences: Sequence[AnyArray], *, size: int, duration_s: float) -> Diversity:
    """Return the statistics of one source.

    Parameters
    ----------
    sequences : sequence of arrays of shape (n,)
        Its tokens, one array per recording.
    size : int
        Tokens in the vocabulary.
    duration_s : float
        Length of the recordings together.

    Raises
    ------
    ValueError
        For tokens outside the vocabulary, or a duration that is not positive.
    """
    if not duration_s > 0:
        raise ValueError(f"duration_s must be positive, got {duration_s}")
    histogram = _histogram(sequences, size)
    frames = sum(len(tokens) for tokens in sequences)
    return Diversity(
        size=size,
        frames=frames,
        unique=int(np.count_nonzero(histogram)),
        top_share=top_share(histogram),
        top_three_share=top_share(histogram, k=3),
        perplexity=perplexity(histogram),
        silent_share=1.0 - int(histogram.sum()) / frames if frames else 0.0,
        changes_per_second=sum(int(np.count_nonzero(t[1:] != t[:-1])) for t in sequences) / duration_s,
    )


def diversity_row(label: str, streams: Sequence[Int16], *, size: int, duration_s: float) -> DiversityRow:
    """Return the row of token streams (sources, n), one per recording, of `duration_s` together."""
    own = [[tokens[source] for tokens in streams] for source in range(len(SOURCES))]
    return DiversityRow(
        label=label,
        stretch_s=duration_s,
        diversity=tuple(token_diversity(sequences, size=size, duration_s=duration_s) for sequences in own),
        histograms=tuple(tuple(_histogram(sequences, size).tolist()) for sequences in own),
    )


def _histogram(sequences: Sequence[AnyArray], size: int) -> AnyArray:
    return sum((token_histogram(tokens, size=size) for tokens in sequences), start=np.zeros(size, dtype=np.int64))
