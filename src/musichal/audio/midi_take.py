"""What a MIDI file, or the log of a MIDI player, says of a recording, exactly, and what of a file is chosen."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from musichal.arrays import Float64
from musichal.note import HeardNote

LABEL_KINDS = ("marker", "lyric", "text", "key")
LONGEST_LABEL = 120
KEY_NAME = re.compile(r"[A-G][#b]? (?:major|minor)")
_LONGEST_S = 1e6


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
    """A text at a time of a MIDI file; `kind` is one of `LABEL_KINDS`. A "key" is as in "Bb major"."""

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

    def between(self, start_s: float, end_s: float) -> "MidiTake":
        """Return what begins in a stretch, its times from the start of that on."""

        def moved(notes: tuple[HeardNote, ...]) -> tuple[HeardNote, ...]:
            return tuple(replace(n, onset_s=n.onset_s - start_s) for n in notes if start_s <= n.onset_s < end_s)

        beats_s, downbeats_s = (at[(at >= start_s) & (at < end_s)] - start_s for at in (self.beats_s, self.downbeats_s))
        return MidiTake(moved(self.notes), moved(self.hits), beats_s, downbeats_s, self.is_rendered)

    def regions(self, *, duration_s: float) -> tuple[tuple[str, float, float], ...]:
        """Return what markers name: text, start and end in seconds, in order; each lasts until the next one."""
        markers = [label for label in self.labels if label.kind == "marker" and label.time_s < duration_s]
        ends = [*(label.time_s for label in markers[1:]), duration_s][: len(markers)]
        return tuple((m.text, m.time_s, end_s) for m, end_s in zip(markers, ends, strict=True) if end_s > m.time_s)

    def key(self, *, duration_s: float) -> tuple[str, float] | None:
        """Return the key that it says for most of the time, and the share of that; None where it says none."""
        keys = [label for label in self.labels if label.kind == "key" and label.time_s < duration_s]
        lasts_s: dict[str, float] = {}
        for label, end_s in zip(keys, [*(label.time_s for label in keys[1:]), duration_s], strict=False):
            lasts_s[label.text] = lasts_s.get(label.text, 0.0) + end_s - label.time_s
        longest = max(lasts_s, key=lasts_s.__getitem__, default=None)
        return None if longest is None else (longest, lasts_s[longest] / duration_s)


def count_of(value: object, most: int = (1 << 53) - 1) -> int:
    """Return an integer that was read from JSON; raises `ValueError` for anything else."""
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"expected an integer from 0 to {most}, got {str(value)[:40]}")
    return value


def played_of(
    notes: Sequence[object], values: Mapping[str, object]
) -> tuple[tuple[HeardNote, ...], tuple[HeardNote, ...], tuple[Control, ...]]:
    """Return notes, "hits" and "controls" that were read from a session's log; raises `ValueError` for what is none."""
    hits, controls = (values.get(name, []) for name in ("hits", "controls"))
    if not isinstance(hits, list) or not isinstance(controls, list):
        raise ValueError("not a list")
    return tuple(map(_note, notes)), tuple(map(_note, hits)), tuple(map(_control, controls))


def _note(values: object) -> HeardNote:
    match values:
        case [int() | float() as onset_s, int() | float() as duration_s, pitch, velocity]:
            if 0 <= onset_s < _LONGEST_S and 0 < duration_s < _LONGEST_S:
                return HeardNote(float(onset_s), float(duration_s), count_of(pitch, 127), count_of(velocity, 127))
    raise ValueError("not a note")


def _control(values: object) -> Control:
    match values:
        case [int() | float() as time_s, status, *data] if 0 <= time_s < _LONGEST_S and 1 <= len(data) <= 2:
            return Control(float(time_s), bytes([count_of(status, 239), *(count_of(value, 127) for value in data)]))
    raise ValueError("not a control")
