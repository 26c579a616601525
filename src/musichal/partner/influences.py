"""What can speak for a place in memory, and how the player's past finds it.

Four kinds of context are followed: harmonic tokens, percussive tokens, rhythm and loudness; a fifth is the partner's own last
choices. Each finds the places whose past agrees longest with the present, exactly, and with back-off to shorter contexts
(`musichal.memory.token_index`). After Somax2's influences (Borg; Assayag et al., Computer Music Journal 46(4)), which look up
contexts of one fixed length.

A match of n symbols speaks with n / (n + 1). For rhythm and loudness n counts only what is not steady: that all beats are
alike, or that nothing became louder, leads everywhere.
"""

from dataclasses import dataclass

import numpy as np

from musichal.hearing.percepts import SILENCE
from musichal.memory.token_index import TokenIndex
from musichal.partner.library import Shelf
from musichal.partner.settings import PartnerSettings
from musichal.partner.situation import Situation
from musichal.partner.streams import CONTOUR_BREAK, CONTOUR_LEVEL, RHYTHM_BREAK

CONTEXTS = ("harmonic", "percussive", "rhythm", "loudness", "own")
"""Influences by context: what followed where memory was in the same situation."""
INFLUENCES = ("harmonic", "percussive", "chroma", "rhythm", "loudness", "own", "continuity")
PLAYER_INFLUENCES = ("harmonic", "percussive", "chroma", "rhythm", "loudness")
"""Those in which it is the player who speaks."""

_SLOWEST, _FASTEST = 0.5, 2.0


def weights(settings: PartnerSettings) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the weight of each influence, shape (7,)."""
    return np.array([getattr(settings, f"{name}_weight") for name in INFLUENCES])


@dataclass(frozen=True)
class Match:
    """A place in a memory whose past agrees with the present.

    `state` is the last one that agrees, in its shelf; `length` how many symbols agree, `strength` what that is worth (0 to 1).
    From there memory goes on: it was at `line_s` of its line of time at the stream's `since_s`, and moves on at `pace`.
    """

    state: int
    length: int
    strength: float
    line_s: float
    since_s: float
    pace: float


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
    for name, symbols, nothing in (
        ("harmonic", situation.tokens[0], SILENCE),
        ("percussive", situation.tokens[1], SILENCE),
        ("loudness", situation.contour, CONTOUR_BREAK),
    ):
        if symbols and symbols[-1] != nothing:
            out[name] = Recent(symbols, ended_s, situation.starts_s)
    if situation.rhythm and situation.rhythm[-1] != RHYTHM_BREAK and situation.onsets_s:
        out["rhythm"] = Recent(situation.rhythm, situation.onsets_s[-1], situation.onsets_s)
    return out


def find_matches(shelf: Shelf, name: str, recent: Recent, *, settings: PartnerSettings) -> list[Match]:
    """Return where a memory was in the same situation, the longest common past first; only places that something follows."""
    index, source = _index(shelf, name)
    found = index.candidates(
        recent.symbols, limit=settings.max_candidates, min_length=settings.min_context, max_length=settings.memory_gestures
    )
    if not len(found):
        return []
    beside, memory = shelf.beside, shelf.memory
    matches = []
    speaks = _counted(recent.symbols, name)
    for position, length in zip(found["position"].tolist(), found["length"].tolist(), strict=True):
        state = int(shelf.onset_states[position]) if source == "onsets" else position
        if memory.successor(state) is None:
            continue
        n = speaks[length]
        if not n:
            continue
        first = int(shelf.onset_states[position - length + 1]) if source == "onsets" else position - length + 1
        here_s = float(beside["line_s"][state])
        pace = _pace(here_s - float(beside["line_s"][first]), recent.starts_s, length)
        if source == "states":  # the gesture has ended, and memory is where the next one begins
            here_s = float(beside["line_s"][state + 1])
        matches.append(Match(state, length, n / (n + 1), here_s, recent.since_s, pace))
    return matches


def _index(shelf: Shelf, name: str) -> tuple[TokenIndex, str]:
    if name == "rhythm":
        return shelf.rhythm, "onsets"
    if name == "loudness":
        return shelf.contour, "states"
    return shelf.memory.indexes[1 if name == "percussive" else 0], "states"


def _counted(symbols: tuple[int, ...], name: str) -> list[int]:
    """Return how many of the last 0, 1, … symbols speak."""
    steady = {"loudness": CONTOUR_LEVEL}.get(name)
    counts = [0]
    for symbol in reversed(symbols):
        counts.append(counts[-1] + (symbol != steady))
    return counts


def _pace(memory_s: float, starts_s: tuple[float, ...], length: int) -> float:
    """Return how fast memory goes by for the player: its time over the player's, between the first and the last start."""
    if length < 2 or len(starts_s) < length:
        return 1.0
    player_s = starts_s[-1] - starts_s[-length]
    return float(np.clip(memory_s / player_s, _SLOWEST, _FASTEST)) if player_s > 0 and memory_s > 0 else 1.0
