"""What a partner's memory is made of, for musicians: each take, what they have in common, and whom that suits.

Conventions
-----------
Shares are from 0 to 1 of the time. What does not exist, such as the range of a take without notes, is None.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from musichal.arrays import AnyArray
from musichal.evaluate.partner_stats import PartnerStats, RecordingStats
from musichal.hearing.percepts import SILENCE
from musichal.memory.memory import Memory
from musichal.memory.partner_file import PartnerModel
from musichal.partner.chords import key_name, key_number, keys_of
from musichal.text import clock, counted, pitch_name

_LEAST_CHROMA = 1e-6
_MIDDLE = (10, 90)  # percentiles between which most notes lie
_ENOUGH_S = ((30.0, "enough to try it"), (300.0, "enough for a few minutes"), (1200.0, "enough for a set"))
_PARTNER = "5 to 20 minutes make a partner"
_SURE_BEAT = 0.5
_NEAR_TEMPO = 0.04
_COMPARED = 6  # takes; of more, pairs are too many to read
_SPARSE, _DENSE = 1.5, 5.0
_DRUMMED = 0.1  # drum hits a second: from here on someone plays drums, and below it a few are misheard
_SUNG = 1.0  # gestures: with longer repeats on average, memory knows phrases


@dataclass(frozen=True)
class Take:
    """A recording as a musician knows it.

    `of_memory` is its share of the time that memory can play from. `key` is that of most of its time, with its share; where a
    MIDI file says one (`key_is_said`), that one, as it spells it.
    `lowest` and `highest` are MIDI pitches of all notes, `middle` those between which 80 % of them lie; `notes_per_s` and
    `hits_per_s` count while it sounds.
    """

    name: str
    duration_s: float
    sounding_s: float
    of_memory: float
    key: str | None
    key_share: float
    key_is_said: bool
    lowest: int | None
    highest: int | None
    middle: tuple[int, int] | None
    notes_per_s: float
    hits_per_s: float
    bpm: float | None


@dataclass(frozen=True)
class Alike:
    """What two takes have in common: `turns` is the share of the first's turns, two sounds in a row, that the second has."""

    first: str
    second: str
    turns: float
    same_key: bool
    same_tempo: bool


@dataclass(frozen=True)
class Overview:
    """A memory for musicians: `enough` says how far its music reaches, `suits` and `lacks` whom it suits, and what it lacks."""

    takes: tuple[Take, ...]
    alike: tuple[Alike, ...]
    sounding_s: float
    enough: str
    suits: tuple[str, ...]
    lacks: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def enough_words(sounding_s: float) -> str:
    """Return how far so much music reaches, in words."""
    length = f"{clock(sounding_s, decimals=0)} of music"
    for until_s, words in _ENOUGH_S:
        if sounding_s < until_s:
            return f"{length}: {words}" + ("" if until_s == _ENOUGH_S[-1][0] else f"; {_PARTNER}")
    return f"{length}: plenty for an evening"


def sounding_s(memory: Memory) -> float:
    """Return how long something sounds in a memory."""
    return float(memory.states["duration_s"][_sounds(memory)].sum())


def _sounds(memory: Memory) -> AnyArray:
    return np.asarray((memory.states["tokens"] != SILENCE).any(axis=1))


def overview(model: PartnerModel, stats: PartnerStats) -> Overview:
    """Return what the memory of a partner is made of; `stats` are its statistics."""
    every_s = sounding_s(model.memory)
    takes = tuple(_take(model.memory, number, row, every_s) for number, row in enumerate(stats.recordings))
    pairs = combinations(range(len(takes)), 2) if len(takes) <= _COMPARED else ()
    return Overview(
        takes=takes,
        alike=tuple(_alike(model.memory, takes, a, b) for a, b in pairs),
        sounding_s=every_s,
        enough=enough_words(every_s),
        suits=tuple(_suits(takes, stats)),
        lacks=tuple(_lacks(takes, stats)),
    )


def _take(memory: Memory, number: int, row: RecordingStats, every_s: float) -> Take:
    part = memory.of_recording(number)  # of a player in a pair it is another one, which is answered, not played from
    inside = part.states["recording"] == number
    own_s = float(part.states["duration_s"][inside & _sounds(part)].sum())
    owners = np.repeat(inside, part.states["note_count"])
    pitches = part.notes["pitch"][owners]
    key, key_share = row.key or _key(part.states[inside])
    middle = np.percentile(pitches, _MIDDLE).round().astype(int).tolist() if len(pitches) else None
    return Take(
        name=row.name,
        duration_s=row.duration_s,
        sounding_s=own_s,
        of_memory=own_s / every_s if every_s and part is memory else 0.0,
        key=key,
        key_share=key_share,
        key_is_said=row.key is not None,
        lowest=int(pitches.min()) if len(pitches) else None,
        highest=int(pitches.max()) if len(pitches) else None,
        middle=None if middle is None else (middle[0], middle[1]),
        notes_per_s=len(pitches) / own_s if own_s else 0.0,
        hits_per_s=sum(row.hits.values()) / own_s if own_s else 0.0,
        bpm=None if row.tempo is None or row.tempo.sure_share < _SURE_BEAT else row.tempo.median_bpm,
    )


def _key(states: AnyArray) -> tuple[str | None, float]:
    """Return the key of most of the time, and its share; None where nothing with a pitch sounds."""
    chroma = states["chroma"].astype(np.float64)
    sounds = (chroma.sum(axis=1) > _LEAST_CHROMA) & (states["note_count"] > 0)
    if not sounds.any():
        return None, 0.0
    played = chroma[sounds] / chroma[sounds].sum(axis=1, keepdims=True)
    lasts_s = states["duration_s"][sounds].astype(np.float64)
    shares = np.bincount(np.argmax(keys_of(played), axis=1), weights=lasts_s, minlength=24) / lasts_s.sum()
    return key_name(int(shares.argmax())), float(shares.max())


def _alike(memory: Memory, takes: Sequence[Take], first: int, second: int) -> Alike:
    a, b = takes[first], takes[second]
    turns = [_turns(memory, number) for number in (first, second)]
    shared = sum(turn in set(turns[1]) for turn in turns[0]) / len(turns[0]) if turns[0] else 0.0
    tempo = a.bpm is not None and b.bpm is not None and abs(a.bpm - b.bpm) <= _NEAR_TEMPO * a.bpm
    same_key = a.key is not None and b.key is not None and key_number(a.key) == key_number(b.key)
    return Alike(a.name, b.name, shared, same_key, tempo)


def _turns(memory: Memory, number: int) -> list[tuple[int, int]]:
    tokens = memory.states["tokens"][memory.states["recording"] == number, 0].tolist()
    return [pair for pair in pairwise(tokens) if SILENCE not in pair]


# ── in words ─────────────────────────────────────────────────────────────────


def _suits(takes: Sequence[Take], stats: PartnerStats) -> list[str]:
    found = []
    if tempos := sorted({round(take.bpm) for take in takes if take.bpm is not None}):
        near = f"{tempos[0]}" if len(tempos) == 1 else f"{tempos[0]} to {tempos[-1]}"
        found.append(f"a pulse: it follows yours, and sounds most like its takes near {near} BPM, half or twice that")
    looked = [row.tempo is not None for row in stats.recordings]
    if free := [
        take.name for take, known in zip(takes, looked, strict=True) if known and take.bpm is None and take.notes_per_s
    ]:
        found.append(f"free time: {_named(free)} without a steady beat")
    if keys := list(dict.fromkeys(take.key for take in takes if take.key)):
        found.append(f"any key: it moves what it knows to yours, from {_named(keys)}")
    if middles := [take.middle for take in takes if take.middle is not None]:
        low, high = min(m[0] for m in middles), max(m[1] for m in middles)
        found.append(f"a part above {pitch_name(high)} or below {pitch_name(low)}: most of its notes lie between")
    drummed = [row for take, row in zip(takes, stats.recordings, strict=True) if take.hits_per_s >= _DRUMMED]
    if kinds := list(dict.fromkeys(kind for row in drummed for kind in row.hits)):
        found.append(f"drums: it has {_named(kinds)} (--set voices=melody,bass,chords,drums)")
    return found


def _lacks(takes: Sequence[Take], stats: PartnerStats) -> list[str]:
    found = []
    if any(row.tempo is None for row in stats.recordings):
        found.append("beats and drums were not looked for in all of it: it is from before they were kept")
    elif not any(take.hits_per_s >= _DRUMMED for take in takes):
        found.append(f"{'hardly any' if any(take.hits_per_s for take in takes) else 'no'} drums were heard in it")
    if not any(take.notes_per_s for take in takes):
        found.append("it has no notes with a pitch")
    elif all(take.notes_per_s > _DENSE for take in takes if take.notes_per_s):
        found.append("it has nothing sparse: leave it room, or play in the mode mirror")
    elif all(take.notes_per_s < _SPARSE for take in takes if take.notes_per_s):
        found.append("it has nothing dense: fast playing of yours is answered by few notes")
    if all(take.bpm is not None for take in takes):
        found.append("nothing in it is free: where you leave the pulse, it plays what was recorded in time")
    if max((row.mean_repeat for row in stats.repetition), default=0.0) < _SUNG:
        found.append("hardly anything in it comes back: it recognises single sounds of yours, few phrases")
    return found


def _named(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {counted(len(names) - most, 'other')}" if len(names) > most else "")
