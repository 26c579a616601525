"""Notes that are known rather than heard: those of a MIDI keyboard or file.

The sound of such a player passes through the one front end like any other, and its tokens are what training's would be. Its
onsets, notes and drum hits need not be heard: onsets go to the front end with the sound, in the place of those it would find,
and nothing is transcribed.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from musichal.arrays import Records
from musichal.audio.keyboard import KeyPress
from musichal.audio.midi_take import MidiTake
from musichal.hearing.beats import BEAT, find_beats
from musichal.hearing.percepts import Onset, Percept, SegmentFeatures
from musichal.note import PERCUSSION_CHANNEL, HeardNote
from musichal.spec import PerceptionSpec

_MOST_BEATS_IN_BAR = 127
_MOST_STRUCK, _REPEATS_S = 512, 0.12


class KeyOnsets:
    """Makes onsets of the keys that are struck; those of one chord are one onset.

    A key struck soon after an onset, too soon for another one to be heard, gets an `Onset` at the same sample, which tells its
    pitch.
    """

    def __init__(self, spec: PerceptionSpec) -> None:
        self._chord_samples = round(spec.onsets.min_ioi_s * spec.sample_rate_hz)
        self._last: int | None = None

    def of(self, pressed: Iterable[KeyPress]) -> list[Onset]:
        """Return the onsets of keys, in order, each decided with its own sample; samples are the spec's."""
        onsets = []
        for key in pressed:
            if self._last is None or key.sample - self._last > self._chord_samples:
                self._last = key.sample
            onsets.append(Onset(self._last, key.sample + 1, (key.pitch,), key.channel == PERCUSSION_CHANNEL))
        return onsets


@dataclass(frozen=True)
class KnownNotes:
    """The onsets, in order of decision, and the notes and drum hits, by onset, of a whole recording."""

    onsets: tuple[Onset, ...]
    notes: tuple[HeardNote, ...]
    hits: tuple[HeardNote, ...] = ()

    @classmethod
    def of(cls, take: MidiTake, spec: PerceptionSpec) -> "KnownNotes":
        """Return what a MIDI file says, on the clock of a spec."""
        on = [(n, channel) for channel, some in ((0, take.notes), (PERCUSSION_CHANNEL, take.hits)) for n in some]
        on.sort(key=lambda each: (each[0].onset_s, each[0].pitch))
        pressed = [KeyPress(round(n.onset_s * spec.sample_rate_hz), n.pitch, n.velocity, channel) for n, channel in on]
        return cls(tuple(KeyOnsets(spec).of(pressed)), take.notes, take.hits)


def known_beats(take: MidiTake) -> Records:
    """Return the grid that a MIDI file gives, `BEAT` of shape (n,)."""
    grid = np.zeros(len(take.beats_s), dtype=BEAT)
    grid["time_s"], grid["confidence"], grid["bar_place"] = take.beats_s, 1.0, -1
    place = -1
    downbeats = set(take.downbeats_s.tolist())
    for row, time_s in enumerate(take.beats_s.tolist()):
        place = 0 if time_s in downbeats else place + 1 if place >= 0 else -1
        grid["bar_place"][row] = min(place, _MOST_BEATS_IN_BAR)
    return grid


def known_or_found_beats(take: MidiTake | None, segments: Iterable[SegmentFeatures], *, sample_rate_hz: int) -> Records:
    """Return the beats of a recording, `BEAT` of shape (n,): those that a MIDI file gives, else those found in its sound."""
    if take is not None and len(take.beats_s):
        return known_beats(take)
    return find_beats(segments, sample_rate_hz=sample_rate_hz)


class OnsetQueue:
    """Gives known onsets to the front end as time goes on; where they go `beside` a sound, its own are found in it, too."""

    def __init__(self, onsets: Iterable[Onset] = (), *, beside: bool = False) -> None:
        self.beside = beside
        self._onsets = deque(onsets)

    def add(self, onsets: Iterable[Onset]) -> None:
        """Take onsets that come after all before."""
        self._onsets.extend(onsets)

    def until(self, sample: int) -> list[Onset]:
        """Return the onsets that are decided up to a sample, each once."""
        due = []
        while self._onsets and self._onsets[0].decided_at <= sample:
            due.append(self._onsets.popleft())
        return due


def with_notes(percepts: Sequence[Percept], known: KnownNotes, *, sample_rate_hz: int) -> tuple[Percept, ...]:
    """Return the percepts of a whole stream with the known notes and hits."""
    notes = NoteQueue(known, sample_rate_hz=sample_rate_hz)
    return tuple(replace(percept, heard=notes.put_in(percept.heard)) for percept in percepts)


def is_exact(take: MidiTake | None) -> bool:
    """Return whether notes are at the same time as their sound to a sample: it was rendered from them."""
    return take is not None and take.is_rendered


def known_of(take: MidiTake | None, spec: PerceptionSpec) -> KnownNotes | None:
    """Return what is to be taken from a MIDI file; None where it is to be found in the sound."""
    return KnownNotes.of(take, spec) if take is not None and is_exact(take) else None


class ExactNotes:
    """Puts exact notes and hits in the place of those transcribed; without any, what was heard stays as it is.

    Where keys go `beside` a sound, what was transcribed stays, but for what only repeats a key.
    """

    def __init__(self, *, beside: bool = False) -> None:
        self._is_known = False
        self._beside = beside
        self._struck: deque[tuple[float, Onset]] = deque(maxlen=_MOST_STRUCK)
        self._notes: list[HeardNote] = []
        self._hits: list[HeardNote] = []

    def end(self, notes: Sequence[HeardNote], hits: Sequence[HeardNote] = ()) -> None:
        """Take exact notes and hits that ended."""
        self._is_known = True
        self._notes.extend(notes)
        self._hits.extend(hits)

    def put_in(self, heard: SegmentFeatures) -> SegmentFeatures:
        """Return what was heard with the notes that ended since the last segment; call it once for each, in order."""
        if not self._is_known and not self._struck:
            return heard
        notes, self._notes = tuple(self._notes), []
        hits, self._hits = tuple(self._hits), []
        if self._beside:
            notes += tuple(note for note in heard.notes if not self._repeats(note, is_drum=False))
            hits += tuple(hit for hit in heard.hits if not self._repeats(hit, is_drum=True))
        return replace(heard, notes=notes, hits=hits)

    def strike(self, time_s: float, onset: Onset) -> None:
        """Take keys that were struck beside a sound."""
        if self._beside and onset.pitches:
            self._struck.append((time_s, onset))

    def _repeats(self, note: HeardNote, *, is_drum: bool) -> bool:
        """Return whether a note repeats a key, in any octave, or a hit the same drum."""
        near = (o for time_s, o in self._struck if o.is_drum == is_drum and abs(note.onset_s - time_s) <= _REPEATS_S)
        return any((pitch - note.pitch) % (128 if is_drum else 12) == 0 for onset in near for pitch in onset.pitches)


class NoteQueue:
    """Gives the known notes and hits of a whole recording to its segments."""

    def __init__(self, known: KnownNotes, *, sample_rate_hz: int) -> None:
        self._waiting = tuple(
            deque(sorted(((round((n.onset_s + n.duration_s) * sample_rate_hz), n) for n in some), key=lambda end: end[0]))
            for some in (known.notes, known.hits)
        )
        self._exact = ExactNotes()

    def put_in(self, heard: SegmentFeatures) -> SegmentFeatures:
        """Return the next segment with the notes that end by its end."""
        ended: tuple[list[HeardNote], list[HeardNote]] = [], []
        for waiting, some in zip(self._waiting, ended, strict=True):
            while waiting and waiting[0][0] <= heard.available_at:
                some.append(waiting.popleft()[1])
        self._exact.end(*ended)
        return self._exact.put_in(heard)
