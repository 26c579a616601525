"""Voices: one state of memory, shared out among melody, bass, chords and drums.

All voices play from the state that was chosen for all of them, so that they belong together. Melody takes the highest note
that is struck at a time, bass the lowest, chords what lies between. Bass and chords may take what memory was still sounding,
or had just sounded, when the state began: a chord outlasts the gesture in which it was struck. Each note of a chord goes to the
octave nearest to where the last chord was. No voice plays a note that memory did not have there, but for octaves.

Drums take the drum hits of the state, at their own keys, on General MIDI's percussion channel; hits that fall together stay
together.
"""

import dataclasses
from collections.abc import Sequence
from itertools import takewhile
from typing import TypeVar

import numpy as np

from musichal.arrays import AnyArray
from musichal.hearing.percepts import SILENCE
from musichal.memory.memory import Memory
from musichal.note import PERCUSSION_CHANNEL, HeardNote, Note
from musichal.partner.harmony import fitting_classes
from musichal.partner.memory_pool import STRUCK_S, MemoryPool
from musichal.partner.player import Situation
from musichal.partner.settings import PartnerSettings, VoiceSettings
from musichal.partner.timing import Parts

_TOGETHER_S = 0.05
_REACH_S = 1.0
_REACH_STATES = 16
_MOST_IN_CHORD = 4
_SPLIT_PITCH = 52
_OCTAVE = 12
_LOUDEST_FOLLOWED_DB = 12.0
_DRUMS_ALONE = 5  # so many hits for each note: what sounds like notes is drums


Struck = TypeVar("Struck", HeardNote, Note)


class Voices:
    """Shares out states among voices, and remembers what each struck last."""

    def __init__(self) -> None:
        self._last_s: dict[str, float] = {}
        self._held: dict[str, tuple[frozenset[int], float]] = {}
        self._centres: dict[str, float] = {}

    def share(
        self, library: MemoryPool, state: int, *, transposition: int, now_s: float, duration_s: float, gain_db: float,
        settings: PartnerSettings,
    ) -> Parts:  # fmt: skip
        """Return what each voice takes of a state that begins at `now_s`, in the order of the settings; maybe nothing."""
        own = state_notes(library, state)
        around = notes_around(library, state) if any(v.part in ("bass", "chords") for v in settings.voices) else []
        parts = {}
        for voice in settings.voices:
            louder_db, ends = gain_db + voice.gain_db, _register_of(voice, settings)
            if voice.part == "drums":
                notes = [_stroke(hit, now_s, louder_db) for hit in state_hits(library, state)]
            else:
                chosen = _share(own, around, voice)
                notes = [_planned(note, now_s, transposition, duration_s, louder_db, voice, ends) for note in chosen]
                if voice.part == "chords":
                    notes = self._led(notes, voice, ends)
            parts[voice.name] = tuple(notes)
        return parts

    def _led(self, notes: list[Note], voice: VoiceSettings, ends: tuple[int, int]) -> list[Note]:
        """Lead a chord by octaves to where the voice's last one was, unless it goes to another register."""
        centre, pitches = self._centres.get(voice.name), [note.pitch for note in notes]
        if centre is None or not pitches or abs(sum(pitches) / len(pitches) - centre) >= _OCTAVE:
            return notes
        near = [into_register(pitch + _OCTAVE * round((centre - pitch) / _OCTAVE), *ends) for pitch in pitches]
        return [
            note if note.pitch == pitch else dataclasses.replace(note, pitch=pitch)
            for note, pitch in zip(notes, near, strict=True)
        ]

    def strike(self, parts: Parts, settings: PartnerSettings) -> Parts:
        """Return what each voice strikes of what it could play, as its limits allow."""
        alone = any(voice.solo for voice in settings.voices)
        silent = {voice.name for voice in settings.voices if voice.mute or (alone and not voice.solo)}
        return {v.name: () if v.name in silent else self._struck(v, parts[v.name]) for v in settings.voices}

    def _struck(self, voice: VoiceSettings, notes: tuple[Note, ...]) -> tuple[Note, ...]:
        """Leave out strikes that come too soon after the last one, and what a holding voice still holds."""
        out: list[Note] = []
        for strike in _strikes(notes):
            at_s = strike[0].onset_s
            if voice.most_per_s and at_s - self._last_s.get(voice.name, -np.inf) < 1 / voice.most_per_s - 1e-9:
                continue
            classes = frozenset(note.pitch % 12 for note in strike)
            held, until_s = self._held.get(voice.name, (frozenset(), -np.inf))
            if voice.hold and classes == held and at_s < until_s:
                continue
            self._last_s[voice.name] = at_s
            self._held[voice.name] = classes, max(note.onset_s + note.duration_s for note in strike)
            self._centres[voice.name] = sum(note.pitch for note in strike) / len(strike)
            out += strike
        return tuple(out)


def without_clashes(
    parts: Parts, harmony: AnyArray, *, least: float, least_likely: float = 0.0
) -> tuple[Parts, tuple[int, ...]]:
    """Return the notes whose pitch class is one of the `fitting_classes` of a `harmony` (12,), and the pitches left out."""
    sounds = fitting_classes(harmony, least=least, least_likely=least_likely)
    kept, left_out = {}, []
    for voice, notes in parts.items():
        kept[voice] = tuple(n for n in notes if n.channel == PERCUSSION_CHANNEL or sounds[n.pitch % 12])
        left_out += [n.pitch for n in notes if n.channel != PERCUSSION_CHANNEL and not sounds[n.pitch % 12]]
    return kept, tuple(left_out)


def state_notes(library: MemoryPool, state: int) -> list[HeardNote]:
    """Return the notes of a state; those that it was struck with begin with it, at the onset that was heard."""
    segment, local = library.find(state)
    struck_s = STRUCK_S if segment.memory.states["starts_at_onset"][local] else 0.0
    notes = segment.memory.notes_of(local).tolist()
    return [HeardNote(0.0 if offset_s <= struck_s else offset_s, *rest) for offset_s, *rest in notes]


def state_hits(library: MemoryPool, state: int) -> list[HeardNote]:
    """Return the drum hits of a state; their pitches are keys of a drum kit."""
    segment, local = library.find(state)
    return [HeardNote(*hit) for hit in segment.memory.hits_of(local).tolist()]


def unheard_voices(memory: Memory, settings: PartnerSettings) -> str:
    """Return a sentence for a user whose voices find nothing in a memory, else an empty one."""
    if settings.plays_drums and not len(memory.hits):
        return "this partner's recordings hold no drums: the voice drums has nothing to play"
    if not settings.plays_drums and len(memory.hits) > _DRUMS_ALONE * len(memory.notes):
        notes = "hardly any notes" if len(memory.notes) else "no notes"
        return (
            f"this partner's recordings hold drums and {notes}: only the voice drums has something to play (--set voices=drums)"
        )
    if settings.plays_drums or len(memory.notes):
        return ""
    if np.all(memory.states["tokens"] == SILENCE):
        return "this partner's recordings are silent: it has no notes to play"
    return "nothing in this partner's recordings has a pitch from A0 to E7: it has no notes to play, only sound"


def notes_around(library: MemoryPool, state: int) -> list[HeardNote]:
    """Return what memory sounded when a state began: notes of its own, and those struck up to 1 s before, oldest first."""
    segment, local = library.find(state)
    rows = segment.memory.states[max(0, local - _REACH_STATES) : local + 1]
    starts_s, counts = rows["start_s"].tolist(), rows["note_count"].tolist()
    same = (rows["recording"] == rows["recording"][-1]).tolist()
    # States and their notes are in order: those that are near enough are the last ones.
    near = takewhile(lambda i: same[i] and starts_s[-1] - starts_s[i] <= _REACH_S, reversed(range(len(rows))))
    before_s = [starts_s[-1] - starts_s[i] for i in near for _ in range(counts[i])][::-1]
    end = int(rows["first_note"][-1]) + counts[-1]
    notes = segment.memory.notes[end - len(before_s) : end].tolist()
    return [HeardNote(offset_s - earlier_s, *rest) for (offset_s, *rest), earlier_s in zip(notes, before_s, strict=True)]


def _share(own: list[HeardNote], around: list[HeardNote], voice: VoiceSettings) -> list[HeardNote]:
    if voice.part == "all":
        return own
    if voice.part == "melody":
        # The highest of each strike; a single low note is the bass's.
        tops = [max(strike, key=lambda n: n.pitch) for strike in _strikes(own)]
        return [note for note in tops if note.pitch >= _SPLIT_PITCH]
    if not around:
        return []
    if voice.part == "bass":
        lowest = min(around, key=lambda n: (n.pitch, -n.onset_s))
        return [HeardNote(max(0.0, lowest.onset_s), lowest.duration_s, lowest.pitch, lowest.velocity)]
    # Chords: the pitch classes of what sounded, the latest first, without the state's own melody and bass.
    middle = sorted(around, key=lambda n: -n.onset_s)
    ends = {max(around, key=lambda n: n.pitch).pitch, min(around, key=lambda n: n.pitch).pitch} if len(around) > 3 else set()
    chord: dict[int, HeardNote] = {}
    for note in middle:
        if note.pitch not in ends and len(chord) < _MOST_IN_CHORD:
            chord.setdefault(note.pitch % 12, note)
    return [HeardNote(0.0, n.duration_s, n.pitch, n.velocity) for n in sorted(chord.values(), key=lambda n: n.pitch)]


def _strikes(notes: Sequence[Struck]) -> list[list[Struck]]:
    """Return notes in groups that begin together, in order of time."""
    groups: list[list[Struck]] = []
    for note in sorted(notes, key=lambda n: n.onset_s):
        if groups and note.onset_s - groups[-1][0].onset_s <= _TOGETHER_S:
            groups[-1].append(note)
        else:
            groups.append([note])
    return groups


def _planned(
    note: HeardNote, now_s: float, transposition: int, duration_s: float, gain_db: float, voice: VoiceSettings,
    ends: tuple[int, int],
) -> Note:  # fmt: skip
    held_s = max(0.0, duration_s - note.onset_s - note.duration_s) * voice.hold
    pitch = into_register(note.pitch + transposition, *ends)
    return Note(now_s + note.onset_s, note.duration_s + held_s, pitch, louder(note.velocity, gain_db))


def _register_of(voice: VoiceSettings, settings: PartnerSettings) -> tuple[int, int]:
    return max(voice.low_pitch, settings.low_pitch), min(voice.high_pitch, settings.high_pitch)


def _stroke(hit: HeardNote, now_s: float, gain_db: float) -> Note:
    """Return a drum hit to play: a drum has no register, and is never transposed."""
    return Note(now_s + hit.onset_s, hit.duration_s, hit.pitch, louder(hit.velocity, gain_db), PERCUSSION_CHANNEL)


def middle_pitch(library: MemoryPool, state: int) -> float | None:
    """Return the middle between the lowest and the highest note of a state, None for one without notes."""
    segment, local = library.find(state)
    beside = segment.beside[local]
    return (float(beside["lowest"]) + float(beside["highest"])) / 2 if beside["notes"] else None


def octaves_towards(wanted: float | None, middle: float | None, how: float) -> int:
    """Return by how many octaves, at most one, a state moves from its middle towards a pitch; None for either is none.

    It stays in an octave that is near enough: within half an octave at a `how` of 1 or −1, farther the weaker, any at 0.
    """
    if wanted is None or middle is None or not how:
        return 0
    apart = wanted - middle
    if abs(apart) <= _OCTAVE / 2 + _OCTAVE * (1 - abs(how)) / abs(how):
        return 0
    return 1 if apart > 0 else -1


def gain_db(library: MemoryPool, state: int, situation: Situation, settings: PartnerSettings) -> float:
    """Return how much louder than remembered to play a state: as far as dynamics are the player's, not the recording's."""
    segment, local = library.find(state)
    followed_db = _limited_db(situation.level_db if settings.dynamics > 0 else situation.room_db)
    own_db = _limited_db(float(segment.memory.states["level_db"][local]) - segment.usual_level_db)
    return settings.gain_db + settings.dynamics * followed_db - abs(settings.dynamics) * own_db


def _limited_db(level_db: float) -> float:
    return min(_LOUDEST_FOLLOWED_DB, max(-_LOUDEST_FOLLOWED_DB, level_db))


def into_register(pitch: int, low: int, high: int) -> int:
    """Return a pitch moved by octaves into a register, if that has room for it; at least into MIDI's range."""
    if high - low < 11:  # two registers that hardly meet
        low, high = 0, 127
    while pitch < low:
        pitch += 12
    while pitch > high:
        pitch -= 12
    return pitch


def louder(velocity: int, gain_db: float) -> int:
    """Return a velocity `gain_db` louder, 1 to 127: 40 dB are a factor of 10, as in General MIDI."""
    return int(min(127, max(1, round(velocity * 10 ** (gain_db / 40)))))
