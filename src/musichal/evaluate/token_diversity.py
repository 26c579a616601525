"""Token diversity: how many of its sounds a vocabulary uses, how evenly, and how often they change.

A vocabulary that collapsed on stage shows here first: few tokens, one of them most of the time, low perplexity.

Conventions
-----------
Tokens are integer arrays of shape (n,), 0 … size - 1 or `SILENCE`; one array per recording, so that nothing is counted
across the seam of two. Histograms are counts of shape (size,). Silent frames are no sound: they count in
`silent_share` and as changes, but in no histogram, so that every other figure is about what was audible. Shares are of
audible frames, 0 where there are none. Logarithms are to base 2: entropies and divergences are in bits.

References
----------
Perplexity: Jelinek, Mercer, Bahl & Baker, J. Acoust. Soc. Am. 62(S1), 1977. Divergence: Lin, IEEE Trans. IT 37(1), 1991.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from musichal.arrays import AnyArray
from musichal.hearing.vocabulary import jensen_shannon_divergence, perplexity, token_histogram, top_share

__all__ = [
    "Diversity",
    "jensen_shannon_divergence",
    "perplexity",
    "token_changes",
    "token_diversity",
    "token_histogram",
    "top_share",
]


@dataclass(frozen=True)
class Diversity:
    """Figures of one source.

    Of `size` tokens `unique` occur; the commonest has `top_share` of the audible frames, the three commonest
    `top_three_share`. `perplexity` is 2 to the entropy of the histogram: the size of an evenly used vocabulary that would
    be as hard to guess (0 where nothing is audible). `silent_share` is of all `frames`. `changes_per_second` counts frames
    whose token differs from the frame before, silence being one more token.
    """

    size: int
    frames: int
    unique: int
    top_share: float
    top_three_share: float
    perplexity: float
    silent_share: float
    changes_per_second: float


def token_changes(tokens: AnyArray) -> int:
    """Return how many of the tokens, shape (n,), differ from the one before; silence is a token like any other."""
    return int(np.count_nonzero(tokens[1:] != tokens[:-1]))


def token_diversity(sequences: Sequence[AnyArray], *, size: int, duration_s: float) -> Diversity:
    """Return the figures of one source.

    Parameters
    ----------
    sequences : sequence of arrays of shape (n,)
        Its tokens, one array per recording.
    size : int
        Tokens in the vocabulary.
    duration_s : float
        How long the recordings are together.

    Raises
    ------
    ValueError
        For tokens outside the vocabulary, or a duration that is not positive.
    """
    if not duration_s > 0:
        raise ValueError(f"duration_s must be positive, not {duration_s}")
    histogram = np.zeros(size, dtype=np.int64)
    for tokens in sequences:
        histogram += token_histogram(tokens, size=size)
    frames = sum(len(tokens) for tokens in sequences)
    return Diversity(
        size=size,
        frames=frames,
        unique=int(np.count_nonzero(histogram)),
        top_share=top_share(histogram),
        top_three_share=top_share(histogram, k=3),
        perplexity=perplexity(histogram),
        silent_share=1.0 - int(histogram.sum()) / frames if frames else 0.0,
        changes_per_second=sum(map(token_changes, sequences)) / duration_s,
    )
