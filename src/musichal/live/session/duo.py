"""The two of a session, player and partner, as notes and as sound, whole or a stretch of it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from musichal.arrays import Float32
from musichal.audio.instrument import Instrument, render_notes
from musichal.audio.levels import at_loudness, mix
from musichal.audio.slices import render_slices
from musichal.live.engine import slice_events
from musichal.live.output.midi_score import Part
from musichal.live.session.event_log import Played, Silences, as_sounded
from musichal.live.session.session import Session
from musichal.note import PERCUSSION_CHANNEL, Note, Slice
from musichal.partner.decision import Decision

_RINGS_S = 10.0  # what was struck so long before a stretch may still sound in it
_CHANNELS = [channel for channel in range(16) if channel != PERCUSSION_CHANNEL]


class Duo:
    """What a player and a partner did in a session.

    Parameters
    ----------
    instrument : Instrument
        Plays the partner's notes.
    recordings : sequence of (samples, sample rate), optional
        The partner's own: where given, it sounds in slices of them.
    """

    def __init__(
        self, session: Session, instrument: Instrument, *, recordings: Sequence[tuple[Float32, int]] | None = None
    ) -> None:
        self.session, self._instrument = session, instrument
        self.rate_hz = session.settings.sample_rate_hz
        self._voices: dict[str, list[Note]] = {}
        self._recordings = recordings
        self._slices: list[Slice] = []
        if recordings is None:
            for _ in self._sounded():
                pass
        else:
            silences = Silences(session.entries, sample_rate_hz=session.settings.stream_rate_hz)
            self._slices = slice_events(self._sounded(), live_recording=len(recordings), sounded=silences.sounded)

    def _sounded(self) -> Iterator[Decision]:
        """Yield the decisions as they sounded, and keep their notes: more of a performance may not fit into memory."""
        session = self.session
        for d in as_sounded(session.decisions, session.entries, sample_rate_hz=session.settings.stream_rate_hz):
            if d.notes:
                self._voices.setdefault(d.voice, []).extend(d.notes)
            yield d

    @cached_property
    def samples(self) -> Float32:
        """The whole input."""
        return self.session.samples()

    @property
    def duration_s(self) -> float:
        """Length of the input."""
        return self.session.input_samples / self.rate_hz

    @property
    def notes_s(self) -> float:
        """When the last note ends; 0 without notes."""
        return max((n.onset_s + n.duration_s for notes in self._voices.values() for n in notes), default=0.0)

    def parts(self, start_s: float, end_s: float) -> list[Part]:
        """Return a part for each voice that plays in a stretch, whose start becomes 0; notes that reach into it are cut."""
        program, parts = self.session.settings.program, []
        for number, (voice, notes) in enumerate(self._voices.items()):
            channel = _CHANNELS[number % len(_CHANNELS)]
            if inside := _within([_on(note, channel) for note in notes], start_s, end_s):
                pitched = any(note.channel != PERCUSSION_CHANNEL for note in inside)
                parts.append(Part("partner" if voice == "all" else voice, inside, program if pitched else None))
        return parts

    def player_part(self, start_s: float, end_s: float) -> Part | None:
        """Return what a MIDI player played in a stretch; None where the input was sound, or nothing was played."""
        heard = [note for entry in self.session.entries if isinstance(entry, Played) for note in entry.notes]
        notes = [Note(n.onset_s, n.duration_s, n.pitch, max(1, n.velocity)) for n in heard]
        inside = _within(notes, start_s, end_s)
        return Part("player", inside) if inside else None

    def player(self, start_s: float, end_s: float) -> Float32:
        """Return the input of a stretch, shape (n,)."""
        return self.samples[round(start_s * self.rate_hz) : round(end_s * self.rate_hz)]

    def answer(self, start_s: float, end_s: float) -> Float32:
        """Return how the answer sounded in a stretch, at one loudness, shape (n, 2)."""
        first, length = round(start_s * self.rate_hz), round(end_s * self.rate_hz) - round(start_s * self.rate_hz)
        # Rendered from a whole second on, so that each note begins at the same sample as in the whole.
        from_s = float(int(max(0.0, start_s - _RINGS_S)))
        skip = first - round(from_s * self.rate_hz)
        if self._recordings is not None:
            sources = [*self._recordings, (self.samples, self.rate_hz)]
            moved = [piece.at(piece.onset_s - from_s) for piece in self._slices if from_s <= piece.onset_s < end_s]
            sound = render_slices(moved, sources, sample_rate_hz=self.rate_hz)
            sound = np.stack([sound, sound], axis=1) if sound.ndim == 1 else sound
        else:
            channel = self.session.settings.channel
            struck = [n for notes in self._voices.values() for n in notes if from_s <= n.onset_s < end_s]
            moved_notes = [replace(_on(n, channel), onset_s=n.onset_s - from_s) for n in struck]
            programs = {channel: self.session.settings.program}
            sound = render_notes(moved_notes, self._instrument, sample_rate_hz=self.rate_hz, programs=programs)
        sound = sound[skip : skip + length]
        sound = np.pad(sound, [(0, length - len(sound)), (0, 0)])
        return at_loudness(sound, sample_rate_hz=self.rate_hz)

    def mixed(self, player: Float32, answer: Float32) -> Float32:
        """Return both together, equally loud, the player to the left."""
        rates = {"player_rate_hz": self.rate_hz, "answer_rate_hz": self.rate_hz, "sample_rate_hz": self.rate_hz}
        return mix(at_loudness(player, sample_rate_hz=self.rate_hz), answer, **rates)


def _on(note: Note, channel: int) -> Note:
    """Return a note on a channel, a drum on its own."""
    return note if note.channel == PERCUSSION_CHANNEL else replace(note, channel=channel)


def _within(notes: Sequence[Note], start_s: float, end_s: float) -> tuple[Note, ...]:
    """Return the notes that sound from `start_s` to `end_s`, cut to it, with `start_s` as 0."""
    cut = []
    for note in notes:
        first_s, last_s = max(start_s, note.onset_s), min(end_s, note.onset_s + note.duration_s)
        if last_s > first_s:
            cut.append(replace(note, onset_s=first_s - start_s, duration_s=last_s - first_s))
    return tuple(cut)
