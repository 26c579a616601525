"""What the player sounded like: the recent harmonic sounds, and the places in a memory of pairs before which they were alike.

The recent sounds are a histogram of tokens in which each fades with exp(−age / `SOUNDS_S`). Two of them are compared by their
Bhattacharyya coefficient, 1 for the same sounds in the same proportions. A memory knows those of the player before each state
of the others as a few tokens with their weights; a large one files its states by the strongest of them.
"""

import numpy as np

from musichal.arrays import Float32, Float64, Int64, Records, rounded
from musichal.hearing.percepts import SILENCE
from musichal.memory.ready import keepable

SOUNDS_S = 0.7
HEARD_LATE_S = 0.2
"""So much of the player's latest sound is not known yet when a state is chosen, on average; nor is it of memory's player."""
SOUNDS = 4
"""How many of them are known of a place in memory."""
_GESTURES = 8
_EXAMINED = 2048
_STATES = 2**32  # more than there can be


def recent_sounds(states: Records, times_s: Float64) -> tuple[Int64, Float32]:
    """Return the recent sounds of one recording's states (n,) at each time (m,): tokens and weights (m, 4), strongest first.

    The squares of the weights are shares; a weight of 0 is no token.
    """
    last = np.searchsorted(states["start_s"], times_s) - 1
    which = last[:, None] - np.arange(_GESTURES)
    known = which >= 0
    rows = states[np.maximum(which, 0)]
    tokens = rows["tokens"][..., 0].astype(np.int64)
    ends_s = np.minimum(rows["start_s"] + rows["duration_s"], times_s[:, None])
    ages_s = np.minimum([rows["start_s"] - times_s[:, None], ends_s - times_s[:, None]], 0) / SOUNDS_S
    weights = np.where(known & (tokens != SILENCE), np.exp(ages_s[1]) - np.exp(ages_s[0]), 0.0)
    for first in range(_GESTURES):  # a token that comes again adds to its latest place
        again = tokens[:, first + 1 :] == tokens[:, first : first + 1]
        weights[:, first] += (weights[:, first + 1 :] * again).sum(axis=1)
        weights[:, first + 1 :][again] = 0.0
    shares = rounded(weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-9))
    order = np.argsort(-shares, axis=1, kind="stable")[:, :SOUNDS]
    shares = np.take_along_axis(shares, order, axis=1)
    return np.take_along_axis(tokens, order, axis=1), np.sqrt(shares).astype(np.float32)


@keepable()
class SoundIndex:
    """Finds the states before which a player sounded like now; `tokens` and `weights` (n, 4) are of `recent_sounds`."""

    def __init__(self, tokens: Int64, weights: Float32) -> None:
        self._tokens, self._weights = tokens, weights
        filed = np.flatnonzero(weights[:, 0] > 0)
        first = tokens[filed, 0]
        self._filed = filed[np.argsort(first, kind="stable")]
        self._starts = np.searchsorted(np.sort(first), np.arange(int(tokens.max(initial=0)) + 2))

    def likeness(self, sounds: Float64, states: Int64) -> Float64:
        """Return how like the player's sounds before each of some states were to `sounds` (v,), 0 to 1."""
        tokens = self._tokens.take(states, axis=0)
        shares: Float64 = np.sqrt(sounds / max(float(sounds.sum()), 1e-12))
        known: Float64 = np.append(shares, 0.0).take(tokens, mode="clip")  # a token beyond was never heard live
        alike: Float64 = (known * self._weights.take(states, axis=0)).sum(axis=1)
        return np.minimum(alike, 1.0)

    def search(self, sounds: Float64, *, most: int, turn: int) -> Int64:
        """Return the `most` states that are most alike, ascending; of a large memory each turn looks at others."""
        looked = self._filed
        if len(looked) > _EXAMINED:
            strongest = np.argsort(-sounds, kind="stable")[:SOUNDS]
            known = [token for token in strongest.tolist() if token + 1 < len(self._starts)]
            parts = [self._filed[self._starts[token] : self._starts[token + 1]] for token in known]
            share = _EXAMINED // SOUNDS
            looked = np.concatenate([np.roll(part, -turn * share)[:share] for part in parts] or [looked[:0]])
        alike = np.rint(1e6 * self.likeness(sounds, looked)).astype(np.int64)
        keys = np.sort(looked - alike * _STATES)[:most]
        return np.sort(keys[keys < 0] % _STATES)
