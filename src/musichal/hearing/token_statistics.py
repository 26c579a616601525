"""Figures of token histograms, for everyone who compares what is heard with what was learned.

Conventions
-----------
Tokens are integer arrays of shape (n,), 0 … size - 1 or `SILENCE`. Histograms are counts of shape (size,), silence left out.
Shares are of audible frames, 0 where there are none. Logarithms are to base 2: entropies and divergences are in bits.

References
----------
Perplexity: Jelinek, Mercer, Bahl & Baker, J. Acoust. Soc. Am. 62(S1), 1977. Divergence: Lin, IEEE Trans. IT 37(1), 1991.
"""

import numpy as np
from scipy.special import entr

from musichal.arrays import AnyArray, Float64, Int64
from musichal.hearing.percepts import SILENCE


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


def _entropy_bits(p: Float64) -> float:
    return float(entr(p).sum() / np.log(2))


def _checked_histogram(histogram: AnyArray) -> Float64:
    counts = np.asarray(histogram, dtype=np.float64)
    if counts.ndim != 1 or not counts.size or not np.isfinite(counts).all() or (counts < 0).any():
        raise ValueError("a histogram must be a row of counts")
    return counts
