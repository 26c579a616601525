"""The frame grid: how many frames a stream has, and where they are.

Frame i of a segment covers samples [stride·i, stride·i + frame) of it, so that n samples hold
floor((n − frame) / stride) + 1 frames: the count of a conv stack with the strides of MERT (frame 400, stride 320 at
24 kHz), where 100, 200, 350, 500 and 1000 ms give 7, 14, 26, 37 and 74 frames.
"""

import numpy as np

from musichal.arrays import Int64
from musichal.spec import PerceptionSpec


def frame_count(n_samples: int, *, frame_samples: int = 400, stride_samples: int = 320) -> int:
    """Return how many whole frames `n_samples` hold; 0 where there is not even one."""
    if n_samples < frame_samples:
        return 0
    return (n_samples - frame_samples) // stride_samples + 1


def frame_centres(first: int, end: int, *, frame_samples: int = 400, stride_samples: int = 320) -> Int64:
    """Return the centres, in samples from the start of the segment, of frames [first, end); shape (end - first,)."""
    return np.arange(first, end, dtype=np.int64) * stride_samples + frame_samples // 2


def first_new_frame(spec: PerceptionSpec) -> int:
    """Return the first frame of an overlapping segment whose centre lies behind the end of the segment before it.

    It is 0 where segments do not overlap. Every segment but the first emits only its frames from here on, so that each
    moment of the stream is heard once.
    """
    overlap = spec.segment_samples - spec.hop_samples
    if overlap == 0:
        return 0
    half, stride = spec.encoder.frame_samples // 2, spec.encoder.stride_samples
    return max(0, -((half - overlap) // stride))


def stream_frame_count(n_samples: int, spec: PerceptionSpec) -> int:
    """Return the exact number of frames, per source, of a stream of `n_samples` heard on the grid.

    Whole segments count in full, and the rest of the stream counts as far as whole frames fit into it. This is the
    closed form that training and `verify` are held to; it sums, it does not estimate. Raises `ValueError` for the
    onset-synchronous policy, whose count depends on the music.
    """
    if spec.policy != "grid":
        raise ValueError("the closed form exists for segments on a grid only")
    sizes = {"frame_samples": spec.encoder.frame_samples, "stride_samples": spec.encoder.stride_samples}
    whole = 0 if n_samples < spec.segment_samples else (n_samples - spec.segment_samples) // spec.hop_samples + 1
    per_segment, first_new = frame_count(spec.segment_samples, **sizes), first_new_frame(spec)
    total = per_segment + (whole - 1) * (per_segment - first_new) if whole else 0
    rest = frame_count(n_samples - whole * spec.hop_samples, **sizes)
    return total + max(0, rest - (first_new if whole else 0))
