"""The values that hearing hands on: windows, stems, features, percepts, gestures, notes.

Conventions
-----------
Sample positions count from the start of the stream at the spec's rate. Arrays have time on the first axis
(``n`` frames), except where a leading ``sources`` axis is named: source 0 is harmonic, source 1 percussive.
"""

from dataclasses import dataclass, field

from musichal.arrays import Bool, Float32, Int16, Int64

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
    """Where in the stream an onset is, and at which sample of it that was decided."""

    sample: int
    decided_at: int


@dataclass(frozen=True)
class Window:
    """One segment as the encoder will see it.

    `samples` has shape (context + segment + lookahead,), zero-padded on the left at the start of a stream and from
    `real_samples` on, behind the stream's end or an onset that cut the segment short. `start_sample` is where the segment
    starts, `length_samples` how much of it there is, and frames [`first_frame`, `end_frame`) of the segment's own grid are
    the new ones. The window is complete once `available_at` samples of the stream are there, whatever the blocks.
    `onset_samples` are the onsets that became known since the window before it.
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
    `chroma` (n, 12) with bin 0 = C; salience and chroma are non-negative and not normalised.
    """

    spectrum: Float32
    salience: Float32
    chroma: Float32


@dataclass(frozen=True)
class Note:
    """A note that was heard. Times in seconds from the start of the stream."""

    onset_s: float
    duration_s: float
    pitch: int
    velocity: int


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
class Heard:
    """What a segment sounded like, before any vocabulary.

    `features` holds one (n, dims) array per source, `frame_samples` (n,) the centre of each frame in the stream,
    `source_level_db` (sources, n) and `level_db` (n,) RMS levels in dBFS, `chroma` (n, 12), `salience` (n, N_PITCHES),
    `onset_samples` the onsets that were decided by the segment's end, `notes` the notes that ended meanwhile, `audible`
    (sources, n) where the gate is open. `full_scale_share` is the share of the segment's samples at full scale.
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
    notes: tuple[Note, ...]
    full_scale_share: float = 0.0


@dataclass(frozen=True)
class Percept:
    """A heard segment with its tokens (sources, n) and the gestures that were completed by it."""

    heard: Heard
    tokens: Int16
    gestures: tuple[Gesture, ...] = field(default=())


@dataclass(frozen=True)
class Rest:
    """What the end of a stream still brings."""

    percepts: tuple[Percept, ...]
    gestures: tuple[Gesture, ...]
    notes: tuple[Note, ...]
    onsets: tuple[Onset, ...] = ()
