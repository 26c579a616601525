"""A probe of the arithmetic: whether two machines hear the same numbers in the same sound."""

import hashlib
from functools import lru_cache

import numpy as np

from musichal.hearing.listener import FeatureExtractor
from musichal.own_process import single_blas_thread
from musichal.spec import PerceptionSpec
from musichal.training.heard import ready_encoder

_LENGTH_S = 1.2


@lru_cache(maxsize=1)
@single_blas_thread()
def probe(spec: PerceptionSpec) -> str:
    """Return a digest of what this process hears in a sound of whole numbers: noise, and a tone that starts in its middle."""
    n = round(_LENGTH_S * spec.sample_rate_hz)
    whole = np.random.default_rng(17).integers(-(1 << 19), 1 << 19, n)
    whole[n // 2 :] += np.where(np.arange(n - n // 2) // 55 % 2, 1 << 21, -(1 << 21))
    digest = hashlib.sha256()
    samples = (whole / 2.0**23).astype(np.float32)
    for segment in FeatureExtractor(spec, ready_encoder(spec)).stream(samples, source_rate_hz=spec.sample_rate_hz):
        for array in (*segment.features, segment.level_db, segment.chroma, segment.audible):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
