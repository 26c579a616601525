"""The network behind the note tracker: whether a pitch begins at a frame, and whether it sounds.

One small network with shared weights looks at each pitch's view (`note_frames`) at a few moments around a frame. It was
trained on random music by `tools.train_notes`; its weights come with the package.
"""

import hashlib
from functools import lru_cache
from importlib.resources import files

import numpy as np
from safetensors.numpy import load

from musichal.arrays import Float32
from musichal.hearing.note_frames import N_LONG, N_NOTES, N_SHORT, NoteFrames

LONG_LAGS = (-9, -4, 0, 3, 6)
SHORT_LAGS = (-4, -2, -1, 0, 1, 3)
"""Frames, around the one asked about, at which the long and the short views are seen."""
BEHIND = -min(*LONG_LAGS, *SHORT_LAGS)
AHEAD = max(*LONG_LAGS, *SHORT_LAGS)
_FILE = "note_model.safetensors"


@lru_cache(maxsize=1)
def _stored() -> bytes:
    return files("musichal.hearing").joinpath(_FILE).read_bytes()


def note_model_digest() -> str:
    """Return the SHA-256 of the weights, as 64 hexadecimal digits."""
    return hashlib.sha256(_stored()).hexdigest()


class NoteModel:
    """The packaged network. It is a pure function of the views that it is given."""

    def __init__(self) -> None:
        weights: dict[str, Float32] = load(_stored())
        inputs = len(LONG_LAGS) * N_LONG + len(SHORT_LAGS) * N_SHORT + 2
        if weights["w0"].shape[0] != inputs:
            raise ValueError(f"the note model has {weights['w0'].shape[0]} inputs, the front end gives {inputs}")
        w0 = weights["w0"]
        split = len(LONG_LAGS) * N_LONG
        self._long = [w0[i : i + N_LONG].copy() for i in range(0, split, N_LONG)]
        self._short = [w0[i : i + N_SHORT].copy() for i in range(split, inputs - 2, N_SHORT)]
        self._loudness = w0[-2]
        pitches = np.arange(N_NOTES, dtype=np.float32) / np.float32(N_NOTES)
        self._bias = pitches[:, None] * w0[-1] + weights["b0"]
        self._layers = [(weights["w1"], weights["b1"]), (weights["w2"], weights["b2"])]

    def evaluate(self, views: NoteFrames) -> Float32:
        """Return probabilities (n - BEHIND - AHEAD, N_NOTES, 2), begins and sounds, for all but the outer frames of n."""
        count = len(views.loudness) - BEHIND - AHEAD
        if count <= 0:
            return np.zeros((0, N_NOTES, 2), dtype=np.float32)
        hidden = self._bias + (views.loudness[BEHIND : BEHIND + count, None] * self._loudness)[:, None, :]
        # One product per frame, so small that no BLAS splits it: its rounding does not depend on the number of threads.
        for lags, view, parts in ((LONG_LAGS, views.long, self._long), (SHORT_LAGS, views.short, self._short)):
            for lag, weights in zip(lags, parts, strict=True):
                seen = view[BEHIND + lag : BEHIND + lag + count]
                hidden += seen @ weights
        for weights, bias in self._layers:
            np.maximum(hidden, 0, out=hidden)
            hidden = hidden @ weights
            hidden += bias
        return 1 / (1 + np.exp(-hidden))
