"""What can speak for a place in memory, and how the player's past finds it.

Four kinds of context are followed: harmonic tokens, percussive tokens, rhythm and loudness; a fifth is the partner's own last
choices. Each finds the places whose past agrees longest with the present, exactly, and with back-off to shorter contexts
(`musichal.memory.token_index`). After Somax2's influences (Borg; Assayag et al., Computer Music Journal 46(4)), which look up
contexts of one fixed length.

A match of n symbols speaks with n / (n + 1). For loudness n counts only what is not steady: that nothing became louder leads
everywhere.
"""

from dataclasses import dataclass
from operator import attrgetter

import numpy as np

from musichal.arrays import Float64, Int64, Records
from musichal.hearing.percepts import SILENCE
from musichal.memory.token_index import TokenIndex
from musichal.partner.memory_pool import MemoryPool, MemorySegment
from musichal.partner.settings import PartnerSettings
from musichal.partner.situation import Situation
from musichal.partner.streams import CONTOUR_BREAK, CONTOUR_LEVEL, RHYTHM_BREAK

CONTEXTS = ("harmonic", "percussive", "rhythm", "loudness", "own")
"""Influences by context: what followed where memory was in the same situation."""
INFLUENCES = ("harmonic", "percussive", "chroma", "rhythm", "loudness", "own", "continuity")
PLAYER_INFLUENCES = ("harmonic", "percussive", "chroma", "rhythm", "loudness")
"""Those in which it is the player who speaks."""

_weights = attrgetter(*(f"{name}_weight" for name in INFLUENCES))
_SLOWEST, _FASTEST = 0.5, 2.0
_NOTHING: Int64 = np.zeros(1, dtype=np.int64)
_NOTHING.setflags(write=False)


def weights(settings: PartnerSettings) -> Float64:
    """Return the weight of each influence, shape (7,)."""
    return np.array(_weights(settings))


MATCH = np.dtype(
    [
        ("shelf", np.int64),
        ("state", np.int64),
        ("length", np.int32),
        ("strength", np.float64),
        ("line_s", np.float64),
        ("since_s", np.float64),
        ("pace", np.float64),
    ],
    align=True,
)
"""A place in a memory whose past agrees with the present.

`state` is the last one that agrees, counted in its shelf, which begins with the library's state `shelf`; `length` how many
symbols agree, `strength` what that is worth (0 to 1). From there memory goes on: it was at `line_s` of its line of time at the
stream's `since_s`, and moves on at `pace`.
"""


@dataclass(frozen=True)
class Recent:
    """The present of one kind of context: its symbols, and when they were heard, in seconds of the stream.

    `since_s` is the moment at which memory would have come to the end of the last one; `starts_s` (as many as symbols, or
    none) when each began.
    """

    symbols: tuple[int, ...]
    since_s: float
    starts_s: tuple[float, ...]


def player_contexts(situation: Situation) -> dict[str, Recent]:
    """Return what the player did last, by context; nothing for a context whose last symbol is a silence or a break."""
    out: dict[str, Recent] = {}
    ended_s = situation.now_s if situation.ended_s is None else situation.ended_s
    for name, heard, nothing in (
        ("harmonic", situation.tokens[0], SILENCE),
        ("percussive", situation.tokens[1], SILENCE),
        ("loudness", situation.contour, CONTOUR_BREAK),
    ):
        symbols, starts_s, since_s = heard, situation.starts_s, ended_s
        if name in ("harmonic", "percussive"):
            # A source that fell silent meanwhile, as drums do between strokes, still points on from its last sound.
            silent = next((i for i, symbol in enumerate(reversed(symbols)) if symbol != nothing), len(symbols))
            if 0 < silent < len(symbols) == len(starts_s):
                since_s, symbols, starts_s = starts_s[-silent], symbols[:-silent], starts_s[:-silent]
        if symbols and symbols[-1] != nothing:
            out[name] = Recent(symbols, since_s, starts_s)
    if situation.rhythm and situation.rhythm[-1] != RHYTHM_BREAK and situation.onsets_s:
        out["rhythm"] = Recent(situation.rhythm, situation.onsets_s[-1], situation.onsets_s)
    return out


def find_matches(
    library: MemoryPool,
    name: str,
    recent: Recent,
    *,
    settings: PartnerSettings,
    limit: int | None = None,
    but: int | None = None,
) -> Records:
    """Return where memory was in the same situation, `MATCH` of shape (k,), in each shelf the longest common past first.

    Only places that something follows, and not the state `but`; `limit` of them at most in each shelf (by default,
    `PartnerSettings.max_candidates`).
    """
    found = [
        _index(shelf, name).candidates(
            recent.symbols, limit=limit or settings.max_candidates, min_length=settings.min_context,
            max_length=settings.memory_gestures,
        )
        for shelf in library.shelves
    ]  # fmt: skip
    matches = np.empty(sum(map(len, found)), dtype=MATCH)
    kept, memory_s = np.empty(len(matches), dtype=bool), np.zeros(len(matches))
    first = 0
    for shelf, candidates in zip(library.shelves, found, strict=True):
        ends, lengths, own = candidates["position"], candidates["length"], slice(first, first + len(candidates))
        first = own.stop
        begins = ends - lengths + 1
        if name == "rhythm":
            ends, begins = shelf.onset_states.take(ends), shelf.onset_states.take(begins)
        here = matches[own]
        here["shelf"], here["state"], here["length"] = shelf.first, ends, lengths
        # An onset was heard when it came; a gesture when it had ended, and memory is where the next one begins.
        here["line_s"] = shelf.line_s.take(ends if name == "rhythm" else ends + 1, mode="clip")
        kept[own] = ends < shelf.last_of_recording(ends)
        if len(recent.starts_s) > 1:
            memory_s[own] = shelf.line_s.take(ends) - shelf.line_s.take(begins)
    lengths = matches["length"]
    speaks = _counted(recent.symbols).take(lengths) if name == "loudness" else lengths
    matches["strength"] = speaks / (speaks + 1)
    matches["since_s"] = recent.since_s
    matches["pace"] = _pace(memory_s, recent.starts_s, lengths)
    if name == "loudness":
        kept &= speaks > 0
    if but is not None:
        kept &= matches["shelf"] + matches["state"] != but
    return matches if kept.all() else matches[kept]


def _index(shelf: MemorySegment, name: str) -> TokenIndex:
    if name == "rhythm":
        return shelf.rhythm
    return shelf.contour if name == "loudness" else shelf.memory.indexes[int(name == "percussive")]


def _counted(symbols: tuple[int, ...]) -> Int64:
    """Return how many of the last 0, 1, … symbols of loudness speak, shape (n + 1,)."""
    spoke = (np.array(symbols) != CONTOUR_LEVEL).astype(np.int64)
    return np.concatenate([_NOTHING, np.add.accumulate(spoke[::-1])])


def _pace(memory_s: Float64, starts_s: tuple[float, ...], lengths: Int64) -> Float64:
    """Return how fast memory goes by for the player: its time over the player's, between the first and the last start."""
    if len(starts_s) < 2:
        return np.ones(len(memory_s))
    starts = np.array(starts_s)
    firsts = len(starts) - lengths
    player_s = starts[-1] - starts.take(np.maximum(firsts, 0))
    known = (firsts >= 0) & (player_s > 0) & (memory_s > 0)
    pace = np.minimum(np.maximum(memory_s / np.where(known, player_s, 1.0), _SLOWEST), _FASTEST)
    return np.where(known, pace, 1.0)
