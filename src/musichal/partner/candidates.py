"""Where in memory to go on from: candidates and what speaks for each.

A token influence finds the places where the memory heard what the player has just played, by the longest common past
(exact, in the token index), and speaks for what came next there; it saturates with the length n of the context as
n / (n + 1). The chroma influence is the correlation of a candidate's chroma, in each transposition, with what sounds now; it
also names the states that fit best, so that a player with unheard sounds is not left alone. Harmonic tokens and chroma count
as far as what sounds is tonal: noise has no harmony to agree with. Continuity speaks for going on in recorded order.
Influences are weighed and summed (after Somax2's weighted influences: Borg; Assayag et al., CMJ 46(4)); filters multiply the
sum, or strike a candidate out.
"""

from dataclasses import dataclass

import numpy as np

from musichal.arrays import AnyArray, Float64, Int64
from musichal.hearing.percepts import SILENCE, SOURCES
from musichal.memory.memory import Memory
from musichal.partner.settings import PartnerSettings
from musichal.partner.situation import Situation

_NOISE_SPREAD, _MUSIC_SPREAD = 0.15, 0.33

INFLUENCES = ("harmonic", "percussive", "chroma", "continuity")


@dataclass(frozen=True)
class Candidates:
    """Candidate states with their influences.

    `states` (n,) are what would be played; `contexts` (n, 2) how many tokens of each source's recent past agree with what
    led there; `influences` (n, t, 4) the value, 0 to 1, of each influence for each of the `transpositions` (t,); `filters`
    (n,) what the weighed sum of influences is multiplied by.
    """

    states: Int64
    contexts: Int64
    transpositions: Int64
    influences: Float64
    filters: Float64


def find_candidates(
    memory: Memory, situation: Situation, *, position: int | None, transposition: int, settings: PartnerSettings
) -> Candidates:
    """Return every place in memory that the present leads to.

    Parameters
    ----------
    memory : Memory
    situation : Situation
    position : int or None
        The state played last, whose successor is a candidate too.
    transposition : int
        The transposition it was played in.
    settings : PartnerSettings
    """
    contexts: dict[int, list[int]] = {}
    for source in range(len(SOURCES)):
        for state, length in _continuations(memory, situation, source, settings):
            contexts.setdefault(state, [0] * len(SOURCES))[source] = length
    for state in _in_harmony(memory, situation, settings):
        contexts.setdefault(state, [0] * len(SOURCES))
    following = None if position is None else memory.successor(position)
    if following is not None:
        contexts.setdefault(following, [0] * len(SOURCES))
    states = np.array(sorted(contexts), dtype=np.int64)
    lengths = np.array([contexts[s] for s in states.tolist()], dtype=np.int64).reshape(-1, len(SOURCES))
    shifts = np.arange(-settings.max_transposition, settings.max_transposition + 1)
    influences = np.zeros((len(states), len(shifts), len(INFLUENCES)))
    saturated = lengths / (lengths + 1)
    # Harmonic tokens hear absolute pitch, so their match speaks for the untransposed state only.
    tonal = tonalness(situation.chroma)
    influences[:, shifts == 0, 0] = saturated[:, [0]] * tonal
    influences[:, :, 1] = saturated[:, [1]]
    penalty = np.maximum(0, 1 - settings.transposition_penalty * np.abs(shifts))
    influences[:, :, 2] = chroma_fit(memory.states["chroma"][states], situation.chroma, shifts) * penalty * tonal
    if following is not None:
        influences[states == following, shifts == transposition, 3] = 1
    # Where memory has no note at all, being without notes says nothing against a state.
    has_notes = (memory.states["note_count"][states] > 0) | (len(memory.notes) == 0)
    filters = np.where(has_notes, 1.0, settings.noteless_factor)
    return Candidates(states, lengths, shifts, influences, filters)


def _continuations(memory: Memory, situation: Situation, source: int, settings: PartnerSettings) -> list[tuple[int, int]]:
    """Return (state, context length) for what followed the player's recent past in one token stream."""
    recent = situation.tokens[source]
    if not recent or recent[-1] == SILENCE:
        return []
    found = memory.indexes[source].candidates(
        recent, limit=settings.max_candidates, min_length=settings.min_context, max_length=settings.memory_gestures
    )
    out = []
    for position, length in zip(found["position"].tolist(), found["length"].tolist(), strict=True):
        state = memory.successor(position)
        if state is not None:
            out.append((state, length))
    return out


def _in_harmony(memory: Memory, situation: Situation, settings: PartnerSettings) -> list[int]:
    """Return the states whose chroma, untransposed, fits best what sounds now; none where it does not fit at all."""
    if not settings.chroma_candidates or not tonalness(situation.chroma):
        return []
    fit = chroma_fit(memory.states["chroma"], situation.chroma, np.zeros(1, dtype=np.int64))[:, 0]
    best = np.argsort(-fit, kind="stable")[: settings.chroma_candidates]
    return [int(state) for state in best if fit[state] > 0]


def tonalness(chroma: AnyArray) -> float:
    """Return how much of a chroma is harmony rather than noise, 0 to 1.

    The spread of its twelve values, relative to their mean, is 0.06 to 0.15 for white and pink noise heard by `Ear`, and 0.33
    to 1.3 for the bundled music (5 to 95 % of segments); what lies between is neither.
    """
    mean = float(np.mean(chroma))
    if mean <= 0:
        return 0.0
    spread = float(np.std(chroma)) / mean
    return min(1.0, max(0.0, (spread - _NOISE_SPREAD) / (_MUSIC_SPREAD - _NOISE_SPREAD)))


def chroma_fit(chromas: AnyArray, present: AnyArray, transpositions: Int64) -> Float64:
    """Return how well states fit what sounds now, for each transposition: correlation, negative ones as 0.

    Parameters
    ----------
    chromas : array of shape (n, 12)
    present : array of shape (12,)
        Zero where nothing has been heard: the fit is 0 then.
    transpositions : array of shape (t,)
        In semitones, upwards.

    Returns
    -------
    array of shape (n, t)
    """

    def unit(values: Float64) -> Float64:
        centred = values - values.mean(axis=-1, keepdims=True)
        return centred / np.maximum(np.linalg.norm(centred, axis=-1, keepdims=True), 1e-12)

    # State chroma moved up by t has at pitch class c what the state had at c - t.
    rolled = np.stack([np.roll(chromas, int(t), axis=1) for t in transpositions], axis=1).astype(np.float64)
    return np.clip(unit(rolled) @ unit(present.astype(np.float64)), 0, 1)
