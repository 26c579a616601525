"""Where in memory to go on from: candidates, and what speaks for each.

Candidates are the states that the player's past points to now (`musichal.partner.activation`), those whose harmony fits best,
so that a player with unheard sounds is not left alone, those that the partner's own last choices lead to, and the successor of
the state played last. Harmonic tokens hear absolute pitch, so their match speaks for the untransposed state only; chroma is
compared in every transposition, and both count as far as what sounds is tonal: noise has no harmony to agree with.
"""

from dataclasses import dataclass

import numpy as np

from musichal.arrays import AnyArray, Float32, Float64, Int64
from musichal.partner.activation import Activation
from musichal.partner.harmony import HarmonySearch, moved, unit_chroma
from musichal.partner.influences import CONTEXTS, INFLUENCES
from musichal.partner.memory_pool import MemoryPool, ascending
from musichal.partner.settings import PartnerSettings
from musichal.partner.situation import Situation

_NOISE_SPREAD, _MUSIC_SPREAD = 0.15, 0.33
_NONE: Int64 = np.zeros(0, dtype=np.int64)
_NONE.setflags(write=False)
_HARMONIC, _CHROMA, _OWN, _CONTINUITY = map(INFLUENCES.index, ("harmonic", "chroma", "own", "continuity"))
_HARMONIC_CONTEXT, _OWN_CONTEXT = map(CONTEXTS.index, ("harmonic", "own"))
_TIMED = ("percussive", "rhythm", "loudness")
_EVERYWHERE = tuple((INFLUENCES.index(name), CONTEXTS.index(name)) for name in _TIMED)


@dataclass(frozen=True)
class Candidates:
    """Candidate states with their influences.

    `states` (n,), ascending, are what would be played, by their numbers in the library; `influences` (7, n, t) the value, 0 to
    1, of each influence for each of the `transpositions` (t,); `peaks` (n, 5) which peak of each kind of context points to it,
    −1 for none; `tonal` how far what sounds is harmony.
    """

    states: Int64
    transpositions: Int64
    influences: Float64
    peaks: Int64
    tonal: float


def transpositions(settings: PartnerSettings) -> Int64:
    """Return the transpositions allowed, at most the twelve that differ."""
    most = settings.max_transposition
    return np.arange(-most + (most == 6), most + 1)


@dataclass(frozen=True)
class Sounding:
    """What sounds, as a harmony, and where in memory that is: the same for all decisions between two percepts.

    `tonal` is how far it is a harmony; `fits` (12, t) what a state's `unit_chroma` is multiplied with to fit it in each of the
    `transpositions` (t,); `searches` are for the states that fit best, one for each memory. It is good for what it is `of`.
    """

    of: tuple[object, ...]
    transpositions: Int64
    tonal: float
    fits: Float64
    searches: tuple[HarmonySearch, ...]


def sounding(library: MemoryPool, chroma: Float32, settings: PartnerSettings, before: Sounding | None = None) -> Sounding:
    """Return what sounds, where that is a `chroma` of shape (12,): what it was `before`, if that is still so."""
    most, penalty = settings.chroma_candidates, settings.transposition_penalty
    of = (chroma.tobytes(), library.learned, settings.max_transposition, penalty, most)
    if before is not None and before.of == of:
        return before
    shifts, tonal, present = transpositions(settings), tonalness(chroma), unit_chroma(chroma)
    searches = tuple(
        HarmonySearch(shelf.harmony, present, shelf.units, shifts, penalty=penalty, most=most)
        for shelf in library.shelves if tonal
    )  # fmt: skip
    return Sounding(of, shifts, tonal, moved(present, shifts), searches)


def find_candidates(
    library: MemoryPool,
    activation: Activation,
    situation: Situation,
    sounds: Sounding,
    *,
    position: int | None,
    transposition: int,
    settings: PartnerSettings,
    turn: int = 0,
    also: Int64 = _NONE,
) -> Candidates:
    """Return every place in memory that the present leads to.

    Parameters
    ----------
    library : MemoryPool
    activation : Activation
    situation : Situation
    sounds : Sounding
        For the situation's chroma.
    position : int or None
        The state played last, whose successor is a candidate too.
    transposition : int
        The transposition it was played in.
    settings : PartnerSettings
    turn : int
        Counts decisions: where a great many places fit equally well, each turn looks at others of them.
    also : array of int
        States to weigh besides, by their numbers in the library.
    """
    shifts, tonal = sounds.transpositions, sounds.tonal * situation.harmonic_share
    active = activation.active(library, situation.now_s, time_constant_s=settings.activation_s, most=settings.max_candidates)
    following = None if position is None else library.successor(position)
    named = [active.states, also, _NONE if following is None else np.array([following])]
    if tonal:
        named += [shelf.first + search.states(turn) for shelf, search in zip(library.shelves, sounds.searches, strict=True)]
    states = ascending(np.concatenate(named))
    n, t = len(states), len(shifts)
    values, peaks = np.zeros((len(CONTEXTS), n)), np.full((n, len(CONTEXTS)), -1)
    rows = states.searchsorted(active.states)
    values[:, rows], peaks[rows] = active.values.T, active.peaks
    # In memory all states lie side by side: what is done with rows of twelve takes three times as long.
    influences = np.zeros((len(INFLUENCES), t, n)).transpose(0, 2, 1)
    for influence, context in _EVERYWHERE:
        influences[influence] = values[context, :, None]
    lowest = int(shifts[0])
    influences[_HARMONIC, :, -lowest] = values[_HARMONIC_CONTEXT] * tonal
    # It goes on as it was, also in its transposition.
    same = transposition - lowest
    if 0 <= same < t:
        influences[_OWN, :, same] = values[_OWN_CONTEXT]
        if following is not None:
            influences[_CONTINUITY, states.searchsorted(following), same] = 1
    if tonal:
        units = np.empty((n, 12), dtype=np.float32)
        for shelf, own, local in library.parts(states):
            # None is out of bounds; "clip" only spares a copy.
            shelf.units.take(local, axis=0, out=units[own], mode="clip")
        fit = np.matmul(sounds.fits.T, units.T, out=influences[_CHROMA].T)
        np.minimum(np.maximum(fit, 0, out=fit), 1, out=fit)
        fit *= np.maximum(0, 1 - settings.transposition_penalty * np.abs(shifts))[:, None]
        fit *= tonal
    return Candidates(states, shifts, influences, peaks, tonal)


def tonalness(chroma: AnyArray) -> float:
    """Return how much of a chroma is harmony rather than noise, 0 to 1.

    The spread of its twelve values, relative to their mean, is 0.06 to 0.15 for white and pink noise heard by
    `FeatureExtractor`, and 0.33 to 1.3 for the bundled music (5 to 95 % of segments); what lies between is neither.
    """
    # `numpy.mean` and `numpy.std` take several times as long for twelve values.
    mean = np.add.reduce(chroma) / len(chroma)
    if mean <= 0:
        return 0.0
    apart = chroma - mean
    spread = float(np.sqrt(np.add.reduce(apart * apart) / len(chroma))) / float(mean)
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
    return np.clip(unit_chroma(chromas) @ moved(unit_chroma(present), transpositions), 0, 1)
