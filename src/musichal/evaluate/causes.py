"""Why two ways of hearing part, judged from the first segment in which they do.

The stage where they part says where to look; what the two segments look like beside each other says what for.
"""

from typing import Protocol

import numpy as np

from musichal.arrays import AnyArray, Float32, Int16
from musichal.hearing.percepts import SILENCE, SOURCES

MEANING = {
    "samples": "the sound itself arrives differently: lost or repeated blocks, gain, resampling, or another segment grid",
    "stems": "the separation into harmonic and percussive sound is another one",
    "features": "the encoder is another one, or something is done to its frames",
    "tokens": "the vocabulary or the gate is another one",
}
"""What can be wrong where a stage is the first to differ."""

# Sounds that correlate less are not one another's.
_RELATED = 0.5
_LARGEST_ROLL = 4


class Segment(Protocol):
    """What is asked of a segment: stems and features per source, tokens (sources, n)."""

    @property
    def stems(self) -> tuple[Float32, ...]: ...  # noqa: D102
    @property
    def features(self) -> tuple[Float32, ...]: ...  # noqa: D102
    @property
    def tokens(self) -> Int16: ...  # noqa: D102


def cause_of(stage: str, mine: Segment, theirs: Segment) -> str:
    """Return in words why a segment heard in two ways, `mine` the right one, parts at `stage`.

    Samples have a judge of their own, `samples.SampleAudit`, who has the whole recording beside them.
    """
    judges = {"stems": _stems, "features": _features, "tokens": _tokens}
    return (judges[stage](mine, theirs) if stage in judges else "") or MEANING[stage]


def _stems(mine: Segment, theirs: Segment) -> str:
    pairs = list(zip(mine.stems, theirs.stems, strict=True))
    if any(a.shape != b.shape for a, b in pairs):
        return ""
    likeness = [_correlation(a, b) for a, b in pairs]
    words = ", ".join(f"{source} {value:.2f}" for source, value in zip(SOURCES, likeness, strict=True))
    if min(likeness) < _RELATED:
        return f"what is taken for stems is not the separated sound: masks, or the wrong source (correlation {words})"
    return f"the separation has other settings (correlation with the right stems: {words})"


def _features(mine: Segment, theirs: Segment) -> str:
    pairs = list(zip(mine.features, theirs.features, strict=True))
    if any(a.shape != b.shape for a, b in pairs):
        return "the encoder is another one: its features have another shape"
    which = [number for number, (a, b) in enumerate(pairs) if not np.array_equal(a, b)]
    where = "both sources" if len(which) == len(SOURCES) else f"the {SOURCES[which[0]]} source only"
    if all(len(pairs[n][1]) > 1 and not np.ptp(pairs[n][1], axis=0).any() and np.ptp(pairs[n][0], axis=0).any() for n in which):
        return f"every frame of a segment has the same features: frames are averaged ({where})"
    for shift in range(1, _LARGEST_ROLL + 1):
        for sign in (shift, -shift):
            if all(np.array_equal(np.roll(pairs[n][0], sign, axis=1), pairs[n][1]) for n in which):
                return f"the features are the right ones, moved by {sign:+d}: a band or layer off by {shift} ({where})"
    likeness = ", ".join(f"{SOURCES[n]} {_correlation(*pairs[n]):.2f}" for n in which)
    return f"the encoder is another one, or has other constants or another layer: {where} (correlation {likeness})"


def _tokens(mine: Segment, theirs: Segment) -> str:
    if mine.tokens.shape != theirs.tokens.shape:
        return ""
    differs = mine.tokens != theirs.tokens
    if ((mine.tokens == SILENCE) != (theirs.tokens == SILENCE))[differs].mean() > _RELATED:
        return "the same features, but silence against sound: the gate is another one"
    return "the same features, but other tokens: the vocabulary is another one, such as another recording's"


def _correlation(a: AnyArray, b: AnyArray) -> float:
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / norm if norm else 0.0
