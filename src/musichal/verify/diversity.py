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
from scipy.special import entr

from musichal.arrays import AnyArray, Float64, Int64
from musichal.hearing.percepts import SILENCE


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


def token_histogram(tokens: AnyArray, *, size: int) -> Int64:
    """Return how often each token occurs, shape (size,), silence left out.

    Raises
    ------
    ValueError
        If `tokens` is not a row of integers from SILENCE to size - 1.
    """
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        raise ValueError(f"tokens must be a row of integers, not {tokens.dtype} of shape {tokens.shape}")
    if tokens.size and not (tokens.min() >= SILENCE and tokens.max() < size):
        raise ValueError(f"tokens must be from {SILENCE} to {size - 1}")
    return np.bincount(tokens[tokens != SILENCE], minlength=size).astype(np.int64)


def perplexity(histogram: AnyArray) -> float:
    """Return 2 to the entropy of a histogram, from 1 to its size; 0 where it is empty."""
    counts = _checked_histogram(histogram)
    total = counts.sum()
    if not total:
        return 0.0
    return float(2.0 ** _entropy_bits(counts / total))


def top_share(histogram: AnyArray, *, k: int = 1) -> float:
    """Return the share of the `k` commonest tokens, 0 to 1; 0 where the histogram is empty."""
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    counts = _checked_histogram(histogram)
    total = counts.sum()
    return float(np.sort(counts)[-k:].sum() / total) if total else 0.0


def jensen_shannon_divergence(first: AnyArray, second: AnyArray) -> float:
    """Return the Jensen-Shannon divergence of two histograms in bits: 0 where they agree, 1 where they share no token.

    Raises
    ------
    ValueError
        If their sizes differ or one is empty: what was never heard resembles nothing.
    """
    p, q = _checked_histogram(first), _checked_histogram(second)
    if p.shape != q.shape:
        raise ValueError(f"histograms of {len(p)} and {len(q)} tokens cannot be compared")
    if not (p.sum() and q.sum()):
        raise ValueError("an empty histogram cannot be compared")
    p, q = p / p.sum(), q / q.sum()
    divergence = _entropy_bits((p + q) / 2) - (_entropy_bits(p) + _entropy_bits(q)) / 2
    return min(1.0, max(0.0, divergence))  # rounding may lead a hair's breadth outside


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


def _entropy_bits(p: Float64) -> float:
    return float(entr(p).sum() / np.log(2))


def _checked_histogram(histogram: AnyArray) -> Float64:
    counts = np.asarray(histogram, dtype=np.float64)
    if counts.ndim != 1 or not counts.size or not np.isfinite(counts).all() or (counts < 0).any():
        raise ValueError("a histogram must be a row of counts")
    return counts
