"""What a MIDI file says of a recording, exactly, and what of a file is chosen."""

from dataclasses import dataclass
from pathlib import Path

from musichal.arrays import Float64
from musichal.note import HeardNote

LABEL_KINDS = ("marker", "lyric", "text")
LONGEST_LABEL = 120


@dataclass(frozen=True)
class MidiChoice:
    """What is played of a MIDI file, and by what.

    `tracks` are names, numbers counted from 1, or the words of `musichal.audio.score.chosen`; `channels` count from 1. Empty
    ones are all. Without a `soundfont` the embedded instrument plays.
    """

    tracks: tuple[str, ...] = ()
    channels: frozenset[int] = frozenset()
    soundfont: Path | None = None


@dataclass(frozen=True)
class Label:
    """A text at a time of a MIDI file; `kind` is one of `LABEL_KINDS`."""

    time_s: float
    kind: str
    text: str


@dataclass(frozen=True)
class Control:
    """A channel message that is no note, at a time: pedal, bend, pressure, controller, program; its bytes."""

    time_s: float
    data: bytes


@dataclass(frozen=True)
class MidiTake:
    """What a MIDI file says of a recording.

    `notes` and drum `hits` are ordered by onset. `beats_s` (n,) and `downbeats_s` (m,) are empty where the notes do not lie on
    the file's grid. The sound `is_rendered` from the file, or another recording of the same performance. `controls` and
    `labels` are in order of time.
    """

    notes: tuple[HeardNote, ...]
    hits: tuple[HeardNote, ...]
    beats_s: Float64
    downbeats_s: Float64
    is_rendered: bool = True
    controls: tuple[Control, ...] = ()
    labels: tuple[Label, ...] = ()

    @property
    def onsets(self) -> tuple[HeardNote, ...]:
        """Notes and hits, by onset."""
        return tuple(sorted((*self.notes, *self.hits), key=lambda note: (note.onset_s, note.pitch)))

    def regions(self, *, duration_s: float) -> tuple[tuple[str, float, float], ...]:
        """Return what markers name: text, start and end in seconds, in order; each lasts until the next one."""
        markers = [label for label in self.labels if label.kind == "marker" and label.time_s < duration_s]
        ends = [*(label.time_s for label in markers[1:]), duration_s]
        return tuple((m.text, m.time_s, end_s) for m, end_s in zip(markers, ends, strict=True) if end_s > m.time_s)
