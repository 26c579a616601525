"""Notes that are known rather than heard: those of a MIDI keyboard or file.

The sound of such a player passes through the one front end like any other, and its tokens are what training's would be. Its
onsets and notes need not be transcribed: they take the place of those that were heard, live at once.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from musichal.audio.keyboard import KeyPress, MidiTake
from musichal.hearing.percepts import Onset, Percept
from musichal.note import HeardNote
from musichal.spec import PerceptionSpec


@dataclass(frozen=True)
class KnownNotes:
    """The onsets, in order of decision, and the notes, by onset, of a whole recording."""

    onsets: tuple[Onset, ...]
    notes: tuple[HeardNote, ...]

    @classmethod
    def of(cls, take: MidiTake, spec: PerceptionSpec) -> "KnownNotes":
        """Return what a MIDI file says, on the clock of a spec."""
        rate_hz = spec.sample_rate_hz
        pressed = [KeyPress(round(n.onset_s * rate_hz), n.pitch, n.velocity, 0) for n in take.onsets]
        onsets = KeyOnsets(chord_samples=round(spec.onsets.min_ioi_s * rate_hz)).of(pressed)
        return cls(tuple(onsets), take.notes)

    def stream(self, sample_rate_hz: int) -> "KnownStream":
        """Return a stream of them from the start; `sample_rate_hz` is the rate of the onsets' samples."""
        return KnownStream(self, sample_rate_hz)


class KeyOnsets:
    """Makes onsets of the keys that are struck; those of one chord are one onset.

    A key struck within `chord_samples` of an onset gets an `Onset` at the same sample, which tells its pitch.
    """

    def __init__(self, *, chord_samples: int) -> None:
        self._chord_samples = chord_samples
        self._last: int | None = None

    def of(self, pressed: Iterable[KeyPress], *, decided_at: int | None = None) -> list[Onset]:
        """Return the onsets of keys, in order, known at a sample; by default each when it is struck."""
        onsets = []
        for key in pressed:
            if self._last is None or key.sample - self._last > self._chord_samples:
                self._last = key.sample
            known = key.sample if decided_at is None else max(key.sample, decided_at)
            onsets.append(Onset(self._last, known, (key.pitch,)))
        return onsets


class ExactNotes:
    """Puts exact onsets and notes in the place of those heard, percept by percept; without any, percepts stay as they are."""

    def __init__(self) -> None:
        self._is_known, self._last = False, -1
        self._onsets: list[int] = []
        self._notes: list[HeardNote] = []

    def strike(self, onset: Onset) -> None:
        """Take an exact onset."""
        self._is_known = True
        if onset.sample > self._last:
            self._last = onset.sample
            self._onsets.append(onset.sample)

    def end(self, notes: Sequence[HeardNote]) -> None:
        """Take exact notes that ended."""
        self._is_known = True
        self._notes.extend(notes)

    def put_in(self, percept: Percept) -> Percept:
        """Return the percept with what became known by its end; call it once for each, in order."""
        if not self._is_known:
            return percept
        end = percept.heard.available_at
        onsets = tuple(sample for sample in self._onsets if sample < end)
        self._onsets = self._onsets[len(onsets) :]
        notes, self._notes = tuple(self._notes), []
        return replace(percept, heard=replace(percept.heard, onset_samples=onsets, notes=notes))


class KnownStream:
    """Gives known notes to percepts as time goes on."""

    def __init__(self, known: KnownNotes, sample_rate_hz: int) -> None:
        self._onsets = deque(known.onsets)
        ends = ((round((note.onset_s + note.duration_s) * sample_rate_hz), note) for note in known.notes)
        self._notes = deque(sorted(ends, key=lambda end: end[0]))
        self._exact = ExactNotes()

    def onsets_until(self, sample: int) -> tuple[Onset, ...]:
        """Return the onsets that are decided up to a sample, each once."""
        onsets = []
        while self._onsets and self._onsets[0].decided_at <= sample:
            onsets.append(self._onsets.popleft())
            self._exact.strike(onsets[-1])
        return tuple(onsets)

    def put_in(self, percept: Percept) -> Percept:
        """Return the percept with the onsets and notes that are known by its end."""
        ended = []
        while self._notes and self._notes[0][0] <= percept.heard.available_at:
            ended.append(self._notes.popleft()[1])
        self._exact.end(ended)
        return self._exact.put_in(percept)
