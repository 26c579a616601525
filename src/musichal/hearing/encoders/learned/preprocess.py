"""What a checkpoint expects of its samples, applied the same in training and live.

It stands before the network and not inside it: a runtime at low precision must not get to round the mean of a quiet window,
and every runtime is compared by the same network on the same input.
"""

import numpy as np

from musichal.arrays import Float32

# What transformers' feature extractor adds to the variance, so that digital silence stays silence.
_EPSILON = 1e-7


def normalised(samples: Float32) -> Float32:
    """Return windows of samples with zero mean and unit variance, as `Wav2Vec2FeatureExtractor` does with `do_normalize`.

    Parameters
    ----------
    samples
        (…, samples) float32; each row along the last axis is a window of its own.

    Returns
    -------
    Float32
        The same shape. Digital silence, and DC alone, give zeros.
    """
    # In float64: the mean of a quiet window on an offset loses nothing, and a constant is exactly its own mean.
    wide = samples.astype(np.float64)
    centred = wide - wide.mean(axis=-1, keepdims=True)
    variance = np.mean(centred * centred, axis=-1, keepdims=True)
    return (centred / np.sqrt(variance + _EPSILON)).astype(np.float32)


def prepare(samples: Float32, *, normalise: bool) -> Float32:
    """Return (…, samples) float32 as a checkpoint wants them: see `Checkpoint.normalise`."""
    return normalised(samples) if normalise else np.ascontiguousarray(samples, np.float32)
