"""The chords that a memory holds, and the regions that markers of a MIDI file name."""

from dataclasses import dataclass
from itertools import groupby

import numpy as np

from musichal.memory.memory import Memory
from musichal.partner.chords import chord_name, chords_of

_LEAST = 1e-6


@dataclass(frozen=True)
class ChordStats:
    """The chords of a recording: each with its share of the time, the commonest first, and when one begins, in seconds.

    `regions` are what its markers name: text, start and end in seconds.
    """

    recording: str
    shares: dict[str, float]
    changes: tuple[tuple[float, str], ...]
    regions: tuple[tuple[str, float, float], ...] = ()


def chord_stats(
    memory: Memory, recording: int, *, name: str, regions: tuple[tuple[str, float, float], ...] = ()
) -> ChordStats | None:
    """Return the chords in the states of a recording; None where nothing with a pitch sounds in it, and it has no regions."""
    states = memory.states[memory.states["recording"] == recording]
    chroma = states["chroma"].astype(np.float64)
    sounds = chroma.sum(axis=1) > _LEAST
    states, chroma = states[sounds], chroma[sounds]
    if not len(states):
        return ChordStats(name, {}, (), regions) if regions else None
    chords = np.argmax(chords_of(chroma / chroma.sum(axis=1, keepdims=True)), axis=1)
    lasts_s = np.bincount(chords, weights=states["duration_s"], minlength=24)
    commonest = [n for n in np.argsort(-lasts_s, kind="stable").tolist() if lasts_s[n]]
    firsts = [next(run) for _, run in groupby(range(len(chords)), key=lambda n: int(chords[n]))]
    return ChordStats(
        recording=name,
        shares={chord_name(n): float(lasts_s[n] / lasts_s.sum()) for n in commonest},
        changes=tuple((float(states["start_s"][n]), chord_name(int(chords[n]))) for n in firsts),
        regions=regions,
    )
