"""Harmony measures of a duo: whether an answer's pitches fit what the others play, and what its choices were made of.

A note counts for as long as it lasts, and each pitch modulo the octave. Drums have no part in it.

* *Agreement* is the share of the answer's notes, weighed by their length, whose pitch class sounds in a true part while they
  do, or within `REACH_S` of that. Beside it stands the same answer moved in time (`SHIFTS_S`, the end of the stretch coming
  first): what a common key alone would give.
* *In chord* is the share of the answer's time in which its pitch class belongs to the chart's chord, as the note-in-chord
  ratio of frames [1]_.
* *Consonant* is the share of the player's time in which it is a unison, third, fifth or sixth (modulo the octave) above a note
  of the answer, *unsupported* the share in which the answer is silent [2]_.
* *Like the band* is the cosine of two chromas of `PLACE_S`: of the place in memory that a choice plays, and of the band then;
  above that of any place.
* The *push test* is the number of beats behind a jump of the player's key until agreement is `PUSH_SHARE` of before [1]_.

References
----------
.. [1] Wu, Y. et al.: Adaptive accompaniment with ReaLchords. ICML 2024, arXiv 2506.14723.
.. [2] StreamMUSE, the consonant and unsupported ratios of streaming accompaniment, 2026.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Self

import numpy as np

from musichal.arrays import Bool, Float64, Int64
from musichal.evaluate.answers import memory_use
from musichal.evaluate.time_together import PUSH_SHARE, BeatMap
from musichal.memory.memory import Memory
from musichal.note import PERCUSSION_CHANNEL, HeardNote, Note
from musichal.partner.decision import Decision, chance_class

CONSONANT = (0, 3, 4, 7, 8, 9)
"""Semitones, modulo 12, from a note of the answer up to the player's: unison, thirds, fifth, sixths."""
LEARNED = frozenset(("harmonic", "percussive", "likeness", "oracle", "pairs"))
"""Influences that go by learned sounds; chroma, rhythm and loudness are made by hand."""
REACH_S = 0.1
_INSTANT_S = 1e-6
SHIFTS_S = (3.1, 5.3, 7.7, 11.9, 13.7)
WINDOW_BEATS = 4.0
PLACE_S = 0.35
_FEWEST_S = 0.25
"""So much of the answer must sound in a window to say whether it is in tune."""
_LONGEST_16THS = 32


@dataclass(frozen=True)
class PitchedNotes:
    """Notes with a pitch as arrays of shape (n,): when they begin and end, and their MIDI pitch."""

    onsets_s: Float64
    ends_s: Float64
    pitches: Int64

    @classmethod
    def of(cls, notes: Iterable[Note | HeardNote]) -> Self:
        """Return notes, but for drums."""
        kept = [n for n in notes if not isinstance(n, Note) or n.channel != PERCUSSION_CHANNEL]
        onsets_s, lengths_s = np.array([(n.onset_s, n.duration_s) for n in kept], dtype=np.float64).reshape(-1, 2).T
        return cls(onsets_s, onsets_s + lengths_s, np.array([n.pitch for n in kept], dtype=np.int64))

    @classmethod
    def joined(cls, parts: Sequence["PitchedNotes"]) -> Self:
        """Return the notes of several parts as one."""
        if not parts:
            return cls(np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64))
        names = ("onsets_s", "ends_s", "pitches")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    @property
    def duration_s(self) -> float:
        """Return how long all of them last together."""
        return float((self.ends_s - self.onsets_s).sum())

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.pitches)

    def chosen(self, which: Bool) -> Self:
        """Return those that a mask of shape (n,) chooses."""
        return replace(self, onsets_s=self.onsets_s[which], ends_s=self.ends_s[which], pitches=self.pitches[which])

    def cut(self, start_s: float, end_s: float) -> Self:
        """Return what sounds of them in a stretch, in time from its start."""
        there = self.chosen((self.ends_s > start_s) & (self.onsets_s < end_s))
        onsets_s, ends_s = there.onsets_s.clip(start_s, end_s), there.ends_s.clip(start_s, end_s)
        return replace(there, onsets_s=onsets_s - start_s, ends_s=ends_s - start_s)

    def moved(self, shift_s: float, *, duration_s: float) -> Self:
        """Return them that much later in a stretch; what begins behind its end begins as much behind its start."""
        onsets_s = (self.onsets_s + shift_s) % duration_s
        ends_s = np.minimum(onsets_s + self.ends_s - self.onsets_s, duration_s)
        return replace(self, onsets_s=onsets_s, ends_s=ends_s)


@dataclass(frozen=True)
class PitchTruth:
    """The pitches of a duo's true parts; `source` says where they come from.

    `parts` are those of the band, `chords` the tones of the chart's chords while they hold, None without a chart, and `jumps_s`
    when the player's key changes and changes back.
    """

    parts: tuple[PitchedNotes, ...]
    player: PitchedNotes
    source: str
    chords: PitchedNotes | None = None
    jumps_s: tuple[float, ...] = ()

    @property
    def band(self) -> PitchedNotes:
        """Return the notes of the whole band."""
        return PitchedNotes.joined(self.parts)

    def cut(self, start_s: float, end_s: float) -> Self:
        """Return the truth of a stretch, in time from its start."""
        return replace(
            self,
            parts=tuple(part.cut(start_s, end_s) for part in self.parts),
            player=self.player.cut(start_s, end_s),
            chords=None if self.chords is None else self.chords.cut(start_s, end_s),
            jumps_s=tuple(jump_s - start_s for jump_s in self.jumps_s if start_s < jump_s < end_s),
        )


@dataclass(frozen=True)
class HarmonyTogether:
    """How an answer's pitches lie beside the others', and what its choices were; None where there is nothing to measure.

    * `notes`: Notes with a pitch.
    * `agreement`, `agreement_moved`: Share of them, weighed by length, that agree with the band or the player, and of the
      same answer moved in time.
    * `band`, `band_moved`, `band_above_moved`: The same with the band alone, and the first less the second.
    * `in_chord`: Share of their time that is in the chord of the chart; None without a chart.
    * `consonant`, `unsupported`: Shares of the player's time: with a consonant note of the answer; without any.
    * `entropy_bits`: Entropy of the notes' lengths in 16ths of the beat, rounded, at least one and at most 32; 0 where all
      are alike.
    * `longest_quote`: Length of the longest run of states in recorded order and one transposition. None for what has no
      memory.
    * `memory_used`: Share of memory's states that were played.
    * `learned`: Share of the influences in `LEARNED` in all choices, on average.
    * `transposition_changes`: Share of choices, but the first of each phrase, that are in another transposition than the one
      before.
    * `like_band`, `like_above_any`: How like the band the places of the choices are, and by how much more than any place of
      memory.
    * `no_support`, `under_half`: Shares of choices that no influence spoke for, and, of others, with less than half the score
      of the best other place.
    """

    notes: int
    agreement: float | None
    agreement_moved: float | None
    band: float | None
    band_moved: float | None
    band_above_moved: float | None
    in_chord: float | None
    consonant: float | None
    unsupported: float | None
    entropy_bits: float | None
    longest_quote: float | None = None
    memory_used: float | None = None
    learned: float | None = None
    transposition_changes: float | None = None
    like_band: float | None = None
    like_above_any: float | None = None
    no_support: float | None = None
    under_half: float | None = None


def harmony_together(
    answer: PitchedNotes,
    truth: PitchTruth,
    beats: BeatMap | None,
    *,
    duration_s: float,
    decisions: Sequence[Decision] = (),
    memory: Memory | None = None,
    learned: PitchedNotes | None = None,
) -> HarmonyTogether:
    """Return how an answer's pitches lie beside the true parts'.

    * `truth`: In time from the start of the answer.
    * `beats`: None for music without a beat.
    * `duration_s`: Length of the stretch that is answered.
    * `decisions`: What made the notes, if a partner did.
    * `memory`: The memory it played from.
    * `learned`: What the band plays in the recording that the memory is of.
    """
    answer, band = answer.cut(0.0, duration_s), truth.band
    both = PitchedNotes.joined([band, truth.player])
    with_band, moved = agreement(answer, band), moved_agreement(answer, band, duration_s=duration_s)
    consonant, unsupported = support(truth.player, answer)
    found = HarmonyTogether(
        notes=len(answer),
        agreement=agreement(answer, both),
        agreement_moved=moved_agreement(answer, both, duration_s=duration_s),
        band=with_band,
        band_moved=moved,
        band_above_moved=None if with_band is None or moved is None else with_band - moved,
        in_chord=None if truth.chords is None else time_inside(answer, truth.chords),
        consonant=consonant,
        unsupported=unsupported,
        entropy_bits=None if beats is None else length_entropy(answer, beats),
    )
    if learned is not None:
        like, usual = like_the_band(decisions, learned, band)
        found = replace(found, like_band=like, like_above_any=None if like is None or usual is None else like - usual)
    return found if memory is None else _with_choices(found, decisions, memory)


def like_the_band(
    decisions: Sequence[Decision], learned: PitchedNotes, band: PitchedNotes
) -> tuple[float | None, float | None]:
    """Return how like the band the places of the choices are, and how like it any place would be; None without choices."""
    choices = [d for d in decisions if d.kind == "play" and not d.live and d.source_start_s is not None]
    own = list({d.choice: d for d in choices}.values())
    then = _unit_chromas(band, np.array([d.begin_s for d in own]))
    places = _unit_chromas(learned, np.array([d.source_start_s for d in own], dtype=np.float64))
    moved = np.array([np.roll(place, d.transposition) for place, d in zip(places, own, strict=True)]).reshape(-1, 12)
    sounding = then.any(axis=1) & moved.any(axis=1)
    every = _unit_chromas(learned, np.arange(0.0, float(learned.ends_s.max(initial=0.0)), PLACE_S))
    every = every[every.any(axis=1)]
    if not sounding.any() or not len(every):
        return None, None
    then = then[sounding]
    return float((then * moved[sounding]).sum(axis=1).mean()), float((then @ every.T).mean())


def _unit_chromas(notes: PitchedNotes, starts_s: Float64) -> Float64:
    """Return the chroma of the `PLACE_S` from each time on (k,), of length 1, shape (k, 12); zero where nothing sounds."""
    ends_s = np.minimum(notes.ends_s, starts_s[:, None] + PLACE_S)
    lengths_s = np.maximum(ends_s - np.maximum(notes.onsets_s, starts_s[:, None]), 0.0)
    chroma = lengths_s @ (notes.pitches[:, None] % 12 == np.arange(12)).astype(np.float64)
    return np.asarray(chroma / np.maximum(np.linalg.norm(chroma, axis=1, keepdims=True), 1e-12))


def agreement(notes: PitchedNotes, others: PitchedNotes) -> float | None:
    """Return the share of notes, weighed by length, whose pitch class sounds in the others near them; None without notes."""
    return _share(notes, (_together_s(notes, others, reach_s=REACH_S) > _INSTANT_S) * (notes.ends_s - notes.onsets_s))


def time_inside(notes: PitchedNotes, others: PitchedNotes) -> float | None:
    """Return the share of the notes' time in which their pitch class sounds in the others; None without notes."""
    return _share(notes, _together_s(notes, others))


def _together_s(notes: PitchedNotes, others: PitchedNotes, *, reach_s: float = 0.0) -> Float64:
    """Return how long each note sounds with its pitch class in the others."""
    found = np.zeros(len(notes))
    for pitch_class in range(12):
        mine = notes.pitches % 12 == pitch_class
        found[mine] = overlaps_s(notes.chosen(mine), others.chosen(others.pitches % 12 == pitch_class), reach_s=reach_s)
    return found


def _share(notes: PitchedNotes, times_s: Float64) -> float | None:
    return float(times_s.sum()) / notes.duration_s if notes.duration_s else None


def moved_agreement(notes: PitchedNotes, others: PitchedNotes, *, duration_s: float) -> float | None:
    """Return the mean agreement of the same notes moved in time."""
    found = [agreement(notes.moved(shift_s, duration_s=duration_s), others) for shift_s in SHIFTS_S]
    return float(np.mean([share for share in found if share is not None])) if len(notes) else None


def support(melody: PitchedNotes, answer: PitchedNotes) -> tuple[float | None, float | None]:
    """Return the shares of a melody's time with a consonant note of the answer, and without any note of it."""
    if not melody.duration_s:
        return None, None
    fitting = (answer.chosen(np.isin((pitch_class - answer.pitches) % 12, CONSONANT)) for pitch_class in range(12))
    consonant_s = sum(overlaps_s(melody.chosen(melody.pitches % 12 == pc), fits).sum() for pc, fits in enumerate(fitting))
    return float(consonant_s) / melody.duration_s, 1 - float(overlaps_s(melody, answer).sum()) / melody.duration_s


def length_entropy(notes: PitchedNotes, beats: BeatMap) -> float | None:
    """Return the entropy in bits of the notes' lengths in 16ths of the beat; None without notes."""
    if not len(notes):
        return None
    lengths = 4 * (beats.places(notes.ends_s) - beats.places(notes.onsets_s))
    _, counts = np.unique(lengths.round().clip(1, _LONGEST_16THS), return_counts=True)
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def beats_until_in_tune(
    answer: PitchedNotes, truth: PitchTruth, beats: BeatMap, *, duration_s: float
) -> tuple[float | None, ...]:
    """Return for each jump of the key how many beats behind it agreement is back; None where it never is.

    The agreement with band and player in a window of `WINDOW_BEATS` that begins so many beats behind the jump, before the next
    one, must be `PUSH_SHARE` of that of all before the first jump. Windows with less than 0.25 s of notes do not count.
    """
    if not truth.jumps_s:
        return ()
    both = PitchedNotes.joined([truth.band, truth.player])
    level = agreement(answer.cut(0.0, truth.jumps_s[0]), both)
    places = beats.places(np.array([*truth.jumps_s, duration_s]))

    def back(first: float, last: float) -> float | None:
        for behind in np.arange(0.0, last - first - WINDOW_BEATS + 1e-6, 0.5):
            edges = first + float(behind) + np.array([0.0, WINDOW_BEATS])
            start_s, end_s = np.interp(edges, np.arange(len(beats.beats_s)), beats.beats_s).tolist()
            there = answer.cut(start_s, end_s)
            share = agreement(there, both.cut(start_s, end_s)) if there.duration_s >= _FEWEST_S else None
            if share is not None and level is not None and share >= PUSH_SHARE * level:
                return float(behind)
        return None

    return tuple(back(float(first), float(last)) for first, last in pairwise(places))


def overlaps_s(notes: PitchedNotes, others: PitchedNotes, *, reach_s: float = 0.0) -> Float64:
    """Return how long each note sounds while any of the others does, or has or will within `reach_s`; shape (n,)."""
    order = np.argsort(others.onsets_s, kind="stable")
    starts, ends = others.onsets_s[order] - reach_s, np.maximum.accumulate(others.ends_s[order] + reach_s)
    if not len(starts):
        return np.zeros(len(notes))
    begins = np.concatenate([[True], starts[1:] > ends[:-1]])  # of stretches without a gap
    edges = np.stack([starts[begins], ends[np.concatenate([begins[1:], [True]])]], axis=1).ravel()
    sounded_s = np.concatenate([[0.0], np.cumsum(np.diff(edges) * (np.arange(len(edges) - 1) % 2 == 0))])
    return np.asarray(np.interp(notes.ends_s, edges, sounded_s) - np.interp(notes.onsets_s, edges, sounded_s))


def _with_choices(found: HarmonyTogether, decisions: Sequence[Decision], memory: Memory) -> HarmonyTogether:
    """Return the measures with those of the choices."""
    use = memory_use(decisions, memory)
    found = replace(found, longest_quote=float(use.longest_quote) if use.states else None, memory_used=use.visited)
    choices = list({d.choice: d for d in decisions if d.kind == "play" and d.influences}.values())
    if not choices:
        return found
    classes = [chance_class(choice) for choice in choices]
    learned = [sum(i.share for i in choice.influences if i.name in LEARNED) for choice in choices]
    pairs = [(a, b) for a, b in pairwise(choices) if a.phrase == b.phrase]
    return replace(
        found,
        learned=float(np.mean(learned)),
        transposition_changes=float(np.mean([a.transposition != b.transposition for a, b in pairs])) if pairs else None,
        no_support=classes.count("no support") / len(classes),
        under_half=classes.count("under half") / len(classes),
    )
