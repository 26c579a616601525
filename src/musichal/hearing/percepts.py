"""The values that hearing returns, and the frame grid that they share.

Conventions
-----------
Sample positions count from the start of the stream at the spec's rate. Arrays have time on the first axis
(``n`` frames), except where a leading ``sources`` axis is named: source 0 is harmonic, source 1 percussive.

Frame i of a segment covers its samples [stride·i, stride·i + frame), so n samples hold floor((n − frame) / stride) + 1
frames: the count of a convolution stack with the strides of MERT (frame 400, stride 320 at 24 kHz), where 100, 200, 350,
500 and 1000 ms give 7, 14, 26, 37 and 74 frames.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from musichal.arrays import Bool, Float32, Int16, Int64
from musichal.note import HeardNote
from musichal.spec import PerceptionSpec

SOURCES = ("harmonic", "percussive")
SILENCE = -1
"""Token of a frame below the gate: counted, never quantised."""

LOWEST_PITCH = 36
"""MIDI number of the first salience bin."""
N_PITCHES = 61
"""Salience bins, one per semitone, C2 to C7."""
SILENT_DB = -120.0
"""Level that stands for digital silence."""


@dataclass(frozen=True)
class Onset:
    """Where in the stream an onset is, and at which sample of it that was decided.

    Its `pitches` where they are known; those of a drum (`is_drum`) are keys of a drum kit.
    """

    sample: int
    decided_at: int
    pitches: tuple[int, ...] = ()
    is_drum: bool = False


@dataclass(frozen=True)
class Window:
    """One segment as the encoder sees it.

    `samples` has shape (context + segment + lookahead,): zeros on the left at the start of a stream, and from `real_samples`
    on, after the stream's end or an onset that cut the segment short. The segment starts at `start_sample` and has
    `length_samples`; frames [`first_frame`, `end_frame`) of its grid are new. The window is complete once `available_at`
    samples of the stream are there, whatever the blocks. `onset_samples` became known since the window before.
    """

    index: int
    start_sample: int
    length_samples: int
    first_frame: int
    end_frame: int
    available_at: int
    real_samples: int
    samples: Float32
    onset_samples: tuple[int, ...] = ()


@dataclass(frozen=True)
class Stems:
    """Separated sources of a window, each of shape (context + segment + lookahead,)."""

    harmonic: Float32
    percussive: Float32


@dataclass(frozen=True)
class PitchFrames:
    """Pitch content of a segment's frames, from its harmonic stem.

    `spectrum` (n, bins) whitened log-frequency magnitudes, `salience` (n, N_PITCHES) harmonic salience per semitone,
    `chroma` (n, 12) with bin 0 = C, `beside` (2, n, 12) the same for pitches a third of a semitone lower and higher, `thirds`
    (n, 3) how strong partials on semitones are, and those a third and two thirds above; none is negative or normalised.
    """

    spectrum: Float32
    salience: Float32
    chroma: Float32
    beside: Float32
    thirds: Float32


@dataclass(frozen=True)
class Gesture:
    """A run of frames that belong together: one state of a memory."""

    start_s: float
    duration_s: float
    tokens: tuple[int, int]
    level_db: float
    chroma: Float32
    vector: Float32
    starts_at_onset: bool


@dataclass(frozen=True)
class SegmentFeatures:
    """What a segment sounds like, before any vocabulary.

    `features` holds one (n, dims) array per source, `frame_samples` (n,) the centre of each frame in the stream,
    `source_level_db` (sources, n) and `level_db` (n,) RMS levels in dBFS, `audible` (sources, n) where the gate is open,
    `chroma` (n, 12), `chroma_beside` (2, n, 12) and `thirds` (n, 3) as in `PitchFrames`, None where not kept, `salience`
    (n, N_PITCHES), `onset_samples` the onsets decided by the segment's end, `notes` the notes that ended since the segment
    before, `hits` the drum hits that were decided since then, whose `pitch` is a key of General MIDI's drum kit.
    `full_scale_share` is the share of the segment's samples at full scale.
    """

    index: int
    start_sample: int
    length_samples: int
    available_at: int
    frame_samples: Int64
    features: tuple[Float32, ...]
    source_level_db: Float32
    audible: Bool
    level_db: Float32
    chroma: Float32
    salience: Float32
    onset_samples: tuple[int, ...]
    notes: tuple[HeardNote, ...]
    full_scale_share: float = 0.0
    hits: tuple[HeardNote, ...] = ()
    chroma_beside: Float32 | None = None
    thirds: Float32 | None = None


@dataclass(frozen=True)
class Percept:
    """A segment's features with its tokens (sources, n) and the gestures that it completed."""

    heard: SegmentFeatures
    tokens: Int16
    gestures: tuple[Gesture, ...] = ()


@dataclass(frozen=True)
class ListenerResult:
    """What a block of a stream, or its end, brought, each in order.

    `onsets` are known before the segments that they lie in, whose `percepts` follow when the segments are complete. The
    `gestures` and `notes` that were still open, and the last drum `hits`, come with the end of the stream only.
    """

    onsets: tuple[Onset, ...] = ()
    percepts: tuple[Percept, ...] = ()
    gestures: tuple[Gesture, ...] = ()
    notes: tuple[HeardNote, ...] = ()
    hits: tuple[HeardNote, ...] = ()

    @staticmethod
    def joined(results: "Iterable[ListenerResult]") -> "ListenerResult":
        """Return consecutive results of a stream as one."""
        every = list(results)
        return ListenerResult(
            tuple(onset for r in every for onset in r.onsets),
            tuple(percept for r in every for percept in r.percepts),
            tuple(gesture for r in every for gesture in r.gestures),
            tuple(note for r in every for note in r.notes),
            tuple(hit for r in every for hit in r.hits),
        )


def frame_count(n_samples: int, *, frame_samples: int = 400, stride_samples: int = 320) -> int:
    """Return how many whole frames `n_samples` hold."""
    if n_samples < frame_samples:
        return 0
    return (n_samples - frame_samples) // stride_samples + 1


def frame_centres(first: int, end: int, *, frame_samples: int = 400, stride_samples: int = 320) -> Int64:
    """Return the centres, in samples from the start of the segment, of frames [first, end); shape (end - first,)."""
    return np.arange(first, end, dtype=np.int64) * stride_samples + frame_samples // 2


def first_new_frame(spec: PerceptionSpec) -> int:
    """Return the first frame of a segment whose centre lies after the end of the segment before it.

    It is 0 where segments do not overlap. Every segment but the first emits its frames from here on, so that each moment
    of the stream is heard once.
    """
    overlap = spec.segment_samples - spec.hop_samples
    if overlap == 0:
        return 0
    half, stride = spec.encoder.frame_samples // 2, spec.encoder.stride_samples
    return max(0, -((half - overlap) // stride))


def stream_frame_count(n_samples: int, spec: PerceptionSpec) -> int:
    """Return the exact number of frames, per source, of a stream of `n_samples` segmented on the grid.

    Whole segments count in full; the rest of the stream counts as far as whole frames fit. Training and `verify` are held to
    this closed form. Raises `ValueError` for the onset-synchronous policy, whose count depends on the music.
    """
    if spec.policy != "grid":
        raise ValueError("the closed form exists for segments on a grid only")
    sizes = {"frame_samples": spec.encoder.frame_samples, "stride_samples": spec.encoder.stride_samples}
    whole = 0 if n_samples < spec.segment_samples else (n_samples - spec.segment_samples) // spec.hop_samples + 1
    per_segment, first_new = frame_count(spec.segment_samples, **sizes), first_new_frame(spec)
    total = per_segment + (whole - 1) * (per_segment - first_new) if whole else 0
    rest = frame_count(n_samples - whole * spec.hop_samples, **sizes)
    return total + max(0, rest - (first_new if whole else 0))
