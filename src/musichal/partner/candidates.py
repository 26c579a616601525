"""Candidates: where in memory to go on from, what speaks for each place, what holds it back, and which one is drawn.

Candidates are the states that the player's past points to now (`musichal.partner.influences`), those whose harmony fits best,
those before which a player sounded like now (`musichal.partner.sounds`) and those where memory is likely to be next, both in a
memory of pairs (`musichal.partner.expectation`), those that the partner's own last choices lead to, and the successor of the
state played last. Harmonic tokens are at absolute pitch, so that their match counts for the untransposed state only; likeness
counts in the transposition in which it was found; chroma is compared in every one. All three count as far as what sounds is
tonal.

A filter gives a factor for each candidate, and some for each transposition; a score is multiplied by all of them. A factor
of 0 rules a candidate out.

The score of a candidate is the product of its filters times Σ weight · value over its influences. Only scores relative to the
best matter. What lies under a floor is never drawn, as many poor candidates would outvote a few good ones, and neither is what
nothing speaks for. What a choice depends on is rounded first (`musichal.arrays.rounded`): matrix products and exponentials
differ in their last bits between processors and between BLAS kernels, and rounded they give the same draw, except where a value
lies on the edge between two rounded ones.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from musichal.arrays import AnyArray, Bool, Float32, Float64, Int64, rounded
from musichal.partner.expectation import HarmonyFollower
from musichal.partner.harmony import HarmonySearch, clashes_below, harmonic_fit, moved, tonalness, unit_chroma
from musichal.partner.influences import CONTEXTS, INFLUENCES, Activation
from musichal.partner.memory_pool import MemoryPool, ascending
from musichal.partner.player import Situation
from musichal.partner.settings import PartnerSettings, Region

_NONE: Int64 = np.zeros(0, dtype=np.int64)
_NONE.setflags(write=False)
_HARMONIC, _PAIRS, _CHROMA, _OWN, _CONTINUITY = map(INFLUENCES.index, ("harmonic", "pairs", "chroma", "own", "continuity"))
_HARMONIC_CONTEXT, _OWN_CONTEXT, _LIKE_CONTEXT = map(CONTEXTS.index, ("harmonic", "own", "likeness"))
_LIKENESS = INFLUENCES.index("likeness")
_PLACES = 16  # the states that begin in so many of memory's likeliest cells are candidates
_BY_PLACE = 0.5  # so much of "pairs" goes by where memory is likely to be, the rest by sounds
_COLDEST = 1e-300
_TURNS_AHEAD = 3  # as many decisions as there can be between two percepts, mostly
_TIMED = ("percussive", "rhythm", "loudness")
_EVERYWHERE = tuple((INFLUENCES.index(name), CONTEXTS.index(name)) for name in _TIMED)


@dataclass(frozen=True)
class Candidates:
    """Candidate states, ascending, with their influences.

    `influences` (9, n, t) is the value, 0 to 1, of each influence on each of the `states` (n,) in each of the `transpositions`
    (t,); `peaks` (n, 6) which peak of each kind of context points to it, −1 for none; `tonal` how far the present is harmony.
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
    """The harmony to fit and searches for it in each memory: the same for all decisions between two percepts.

    `tonal` is how far the player's is harmony; the product of `fits` (12, t) with a state's `unit_chroma` is how well that fits
    in each of the `transpositions` (t,). `of` is what it was made from: it is valid while that is the same.
    """

    of: tuple[object, ...]
    transpositions: Int64
    tonal: float
    fits: Float64
    searches: tuple[HarmonySearch, ...]


def sounding(
    library: MemoryPool, chroma: Float32, settings: PartnerSettings, before: Sounding | None = None, *,
    expected: Float64 | None = None, shifts: Int64 | None = None,
) -> Sounding:  # fmt: skip
    """Return what to fit for the player's `chroma` (12,): what it was `before`, if nothing has changed.

    What is fitted is the harmony `expected` (12,), where there is one. `shifts` are the transpositions to look in, by default
    all that are allowed.
    """
    most, penalty = settings.chroma_candidates, settings.transposition_penalty
    shifts, next_one = transpositions(settings) if shifts is None else shifts, chroma if expected is None else expected
    of = (chroma.tobytes(), next_one.tobytes(), library.learned, shifts.tobytes(), penalty, most)
    if before is not None and before.of == of:
        return before
    tonal, present = tonalness(chroma), unit_chroma(next_one)
    searches = tuple(
        HarmonySearch(segment.harmony, present, segment.units, shifts, penalty=penalty, most=most)
        for segment in library.segments if tonal
    )  # fmt: skip
    return Sounding(of, shifts, tonal, moved(present, shifts), searches)


def search_ahead(
    library: MemoryPool, activation: Activation, follower: HarmonyFollower, sounds: Sounding, *, settings: PartnerSettings,
    turn: int,
) -> None:  # fmt: skip
    """Search what `find_candidates` will ask for in this turn and the next ones, so that a decision need not wait."""
    activation.prepare(time_constant_s=settings.activation_s, most=settings.max_candidates)
    for search in sounds.searches:
        for each in range(turn, turn + _TURNS_AHEAD):
            search.states(each)
    if library.base.players is not None:
        for shift in sounds.transpositions.tolist():
            follower.nearest(shift, most=_PLACES)


def find_candidates(
    library: MemoryPool, activation: Activation, follower: HarmonyFollower, situation: Situation, sounds: Sounding, *,
    position: int | None, transposition: int, settings: PartnerSettings, turn: int = 0, also: Int64 = _NONE,
) -> Candidates:  # fmt: skip
    """Return every place in memory that the present leads to.

    `position` is the state played last, in its `transposition`; its successor is a candidate. `also` are more states to weigh.
    `turn` counts decisions: where many places fit equally well, each turn looks at others of them.
    """
    shifts, tonal = sounds.transpositions, sounds.tonal * situation.harmonic_share
    active = activation.active(library, situation.now_s, time_constant_s=settings.activation_s, most=settings.max_candidates)
    following = None if position is None else library.successor(position)
    named = [active.states, also, _NONE if following is None else np.array([following])]
    if tonal:
        named += [
            segment.first + search.states(turn) for segment, search in zip(library.segments, sounds.searches, strict=True)
        ]
    players = library.base.players
    if players is not None:
        if situation.sounds.any():
            # The partner's own memory comes first: its numbers are those of the states.
            named.append(players.sounds.search(situation.sounds, most=settings.max_candidates, turn=turn))
        named += [follower.nearest(shift, most=_PLACES) for shift in shifts.tolist()]
    states = ascending(np.concatenate(named))
    n, t = len(states), len(shifts)
    values, peaks = np.zeros((len(CONTEXTS), n)), np.full((n, len(CONTEXTS)), -1)
    # Of the places that one context has in a state the strongest comes last, and stays.
    places = states.searchsorted(active.states)
    values[active.contexts, places], peaks[places, active.contexts] = active.values, active.peaks
    base = slice(0, int(states.searchsorted(len(library.base))))
    if players is not None:
        # What a player's past says counts as far as this player plays what was played then.
        paired = players.paired.take(states[base])
        of_player = [row for row in range(len(CONTEXTS)) if row not in (_OWN_CONTEXT, _LIKE_CONTEXT)]
        values[of_player, base] *= np.where(paired, follower.familiar, 1.0)
    # The array is laid out with all states side by side: what is done with rows of twelve takes three times as long.
    influences = np.zeros((len(INFLUENCES), t, n)).transpose(0, 2, 1)
    for influence, context in _EVERYWHERE:
        influences[influence] = values[context, :, None]
    influences[_HARMONIC][:, shifts == 0] = values[_HARMONIC_CONTEXT][:, None] * tonal
    like = (peaks[:, _LIKE_CONTEXT] >= 0).nonzero()[0]
    moves = activation.moves("likeness", peaks[like, _LIKE_CONTEXT])
    columns = np.minimum(shifts.searchsorted(moves), t - 1)
    like, columns = (each[shifts[columns] == moves] for each in (like, columns))
    influences[_LIKENESS, like, columns] = values[_LIKE_CONTEXT].take(like) * tonal
    if players is not None:
        if situation.sounds.any():
            alike = players.sounds.likeness(situation.sounds, states[base])
            influences[_PAIRS, base, shifts == 0] = (1 - _BY_PLACE) * follower.familiar * alike
        for column, shift in enumerate(shifts.tolist()):
            influences[_PAIRS, base, column] += _BY_PLACE * paired * follower.near(states[base], shift) * tonal
    # It goes on as it was, also in its transposition.
    for same in (shifts == transposition).nonzero()[0].tolist():
        influences[_OWN, :, same] = values[_OWN_CONTEXT]
        if following is not None:
            influences[_CONTINUITY, states.searchsorted(following), same] = 1
    if tonal:
        units = np.empty((n, 12), dtype=np.float32)
        for segment, own, local in library.rows(states).parts:
            # None is out of bounds; "clip" only spares a copy.
            segment.units.take(local, axis=0, out=units[own], mode="clip")
        fit = np.matmul(sounds.fits.T, units.T, out=influences[_CHROMA].T)
        np.minimum(np.maximum(fit, 0, out=fit), 1, out=fit)
        fit *= np.maximum(0, 1 - settings.transposition_penalty * np.abs(shifts))[:, None]
        fit *= tonal
    return Candidates(states, shifts, influences, peaks, tonal)


def proposing(found: Candidates, beginnings: Int64, transposition: int) -> Candidates:
    """Return candidates with `beginnings` of recorded phrases as what comes next, where nothing else speaks for any.

    They are transposed as the last choice was, or as nearly as the settings allow by now.
    """
    influences = found.influences.copy()
    nearest = int(np.abs(found.transpositions - transposition).argmin())
    influences[_CONTINUITY, np.isin(found.states, beginnings), nearest] = 1
    return replace(found, influences=influences)


_LEAST = 0.1
_DB_PER_STEP = 6.0
_SEMITONES_PER_STEP = 12.0
_RATE_FLOOR_HZ = 0.5


@dataclass(frozen=True)
class Filtered:
    """Factors by name, each of shape (n, t) or (n, 1), laid out with all states side by side."""

    factors: dict[str, Float64]

    def product(self, shape: tuple[int, int]) -> Float64:
        """Return the product of all of them, of `shape` (n, t)."""
        # A column as long as all factors are columns: most are, and a column is soon multiplied.
        out = reduce(np.multiply, self.factors.values())
        return out if out.shape == shape else np.repeat(out, shape[1], axis=1)

    def of(self, candidate: int, transposition: int) -> dict[str, float]:
        """Return the factors of one candidate in one transposition (its column)."""
        return {
            name: float(factor[candidate, transposition if factor.shape[1] > 1 else 0]) for name, factor in self.factors.items()
        }


def apply_filters(
    library: MemoryPool, situation: Situation, states: Int64, transpositions: Int64, *, played: Collection[int],
    following: int | None, run: int, tonal: float, settings: PartnerSettings, key: int | None = None, least_likely: float = 0.0,
) -> Filtered:  # fmt: skip
    """Return what each filter makes of each candidate.

    `played` are the states not to be repeated, `following` the successor of the state played last, `run` how many states were
    played in recorded order, `tonal` how far the present is harmony, 0 to 1, `least_likely` how likely a pitch class must be to
    fit it. Memory is played in the transposition `key`, what was learned from the player as it was; None is any.
    """
    n, known = len(states), library.rows(states)
    rows, beside, first_live = known.rows, known.beside, known.first_live
    noteless = (beside["notes"] == 0).nonzero()[0]
    factors: dict[str, Float64] = {"no repeat": _column(_unplayed(states, played))}
    if settings.use or settings.avoid:
        # What was learned from the player is in no region, and may be played.
        there = factors["regions"] = np.ones((n, 1))
        base = rows[:first_live]
        there[:first_live, 0] = in_regions(base["recording"], base["start_s"], use=settings.use, avoid=settings.avoid)
    if first_live < n:
        learned = factors["learned live"] = np.ones((n, 1))
        learned[first_live:, 0] = settings.live_weight * (situation.now_s - rows["start_s"][first_live:] <= settings.live_s)
    if following is not None:
        worth = 0.0 if run >= settings.max_run else 0.5 ** max(0, min(run - settings.jump_after, 1000))
        factors["auto-jump"] = _column(np.where(states == following, worth, 1.0))
    if library.has_notes:
        # Where memory has no note at all, being without notes says nothing against a state.
        # A gesture of the player's without notes, such as noise, has nothing to bring back. Drums need hits, not notes.
        factors["notes"] = np.ones((n, 1))
        hitless = rows["hit_count"] == 0 if settings.plays_drums else None
        silent = noteless if hitless is None else noteless[hitless[noteless]] if settings.plays_notes else hitless.nonzero()[0]
        noted = np.where(silent >= first_live, 0.0, settings.noteless_factor)
        if following is not None:  # what was struck before may sound on there
            noted[(states[silent] == following) & (noted > 0)] = (1 + settings.noteless_factor) / 2
        factors["notes"][silent, 0] = noted
        if settings.follow_harmony:
            fit = harmonic_fit(
                beside["pitch_classes"].astype(np.float64), situation.harmony, transpositions,
                least=clashes_below(tonal, settings.tension), least_likely=least_likely,
            )  # fmt: skip
            # So much of it may lie outside the harmony.
            fit = 1 - np.abs(1 - fit - settings.tension)
            fit[noteless] = 1.0 if settings.follow_harmony > 0 else 0.0
            factors["harmony"] = _followed(fit, settings.follow_harmony * tonal)
        lowest, highest = beside["lowest"].astype(np.float64), beside["highest"].astype(np.float64)
        factors |= _registers(lowest, highest, noteless, transpositions, wanted_pitch(library, situation, settings), settings)
        if settings.follow_density and situation.onset_rate_hz is not None:
            apart = np.abs(_octaves(beside["density_hz"].astype(np.float64)) - _wanted_octaves(library, situation, settings))
            factors["density"] = _followed(_column(np.exp(-apart)), abs(settings.follow_density))
    factors |= _in_key(n, transpositions, key, first_live=first_live)
    if settings.follow_loudness:
        # What is usual is 0 dB, of the player and of a memory.
        wanted_db = situation.level_db if settings.follow_loudness > 0 else -situation.room_db
        apart = np.abs(beside["level_db"].astype(np.float64) - wanted_db)
        factors["loudness"] = _followed(_column(np.exp(-apart / _DB_PER_STEP)), abs(settings.follow_loudness))
    return Filtered(factors)


def _in_key(n: int, transpositions: Int64, key: int | None, *, first_live: int) -> dict[str, Float64]:
    """Return which transposition each of n states is played in, shape (n, t): `key`, or none from `first_live` on."""
    if key is None or (len(transpositions) == 1 and first_live == n):
        return {}
    there = np.empty((len(transpositions), n)).T
    there[:first_live] = transpositions == key
    there[first_live:] = transpositions == 0
    return {"key": there}


def in_regions(recordings: AnyArray, starts_s: AnyArray, *, use: Sequence[Region], avoid: Sequence[Region]) -> Bool:
    """Return which states begin in a region to use, or anywhere if there is none, and in none to avoid."""

    def inside(regions: Sequence[Region]) -> Bool:
        each = [(recordings == r.recording) & (starts_s >= r.start_s) & (starts_s < r.end_s) for r in regions]
        return reduce(np.logical_or, each)

    allowed = inside(use) if use else np.ones(len(recordings), dtype=bool)
    return allowed & ~inside(avoid) if avoid else allowed


def wanted_pitch(library: MemoryPool, situation: Situation, settings: PartnerSettings) -> float | None:
    """Return the pitch to go towards: the player's, or its mirror about the memory's middle to oppose them; None for none."""
    if situation.pitch is None or settings.follow_register >= 0:
        return situation.pitch
    return 2 * library.base.usual.pitch - situation.pitch


def _wanted_octaves(library: MemoryPool, situation: Situation, settings: PartnerSettings) -> float:
    """Return the density to go towards, in octaves: the player's, or its mirror about the memory's usual one."""
    played = float(_octaves(situation.onset_rate_hz or 0.0))
    return played if settings.follow_density > 0 else 2 * float(_octaves(library.base.usual.density_hz)) - played


def _octaves(rate_hz: AnyArray | float) -> AnyArray:
    return np.log2(np.asarray(rate_hz) + _RATE_FLOOR_HZ)


def _registers(
    lowest: Float64, highest: Float64, noteless: Int64, transpositions: Int64, pitch: float | None, settings: PartnerSettings
) -> dict[str, Float64]:
    """Return how far each state lies inside the register, and near the wanted pitch."""
    factors: dict[str, Float64] = {}
    moves = transpositions.astype(np.float64)  # once: sums of numbers of two types take several times as long
    if (settings.low_pitch, settings.high_pitch) != (0, 127):
        factors["register"] = _register(lowest, highest, noteless, moves, settings)
    if settings.follow_register and pitch is not None:
        near = (moves[:, None] + (lowest + highest) / 2).T
        near -= pitch
        np.abs(near, out=near)
        near /= -_SEMITONES_PER_STEP
        np.exp(near, out=near)
        near[noteless] = 0.5
        factors["follow register"] = _followed(near, abs(settings.follow_register))
    return factors


def _register(lowest: Float64, highest: Float64, noteless: Int64, moves: Float64, settings: PartnerSettings) -> Float64:
    """Return how far the span of each state's notes lies inside the register."""
    low, high = (moves[:, None] + lowest).T, (moves[:, None] + highest).T
    share = np.minimum(high, settings.high_pitch, out=high)
    share -= np.maximum(low, settings.low_pitch, out=low)
    share += 1
    share /= (highest - lowest + 1)[:, None]
    np.maximum(np.minimum(share, 1, out=share), _LEAST, out=share)
    share[noteless] = 1.0
    return share


def _unplayed(states: Int64, played: Collection[int]) -> Bool:
    """Return which of some ascending states were not played."""
    out = np.ones(len(states), dtype=bool)
    if len(states) and played:
        before = np.fromiter(played, dtype=np.int64, count=len(played))
        places = states.searchsorted(before)
        out[places[states.take(places, mode="clip") == before]] = False
    return out


def _followed(fit: Float64, how: float) -> Float64:
    """Return the factor of a fit that is followed by `how`, or avoided by −`how`."""
    return 1 - how * (1 - fit) if how >= 0 else 1 + how * fit


def _column(values: AnyArray) -> Float64:
    return np.asarray(values, dtype=np.float64)[:, None]


# ── the choice ───────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Draw:
    """Row and column of the scores, the score, and the probability with which it was drawn."""

    candidate: int
    transposition: int
    score: float
    chance: float


def scores(influences: Float64, weights: Float64, factors: Float64) -> Float64:
    """Return the score of each candidate in each transposition, rounded, shape (n, t).

    * `influences`: shape (k, n, t).
    * `weights`: shape (k,).
    * `factors`: shape (n, t). The product of the filters.
    """
    kinds, n, t = influences.shape
    return rounded((weights @ influences.transpose(0, 2, 1).reshape(kinds, t * n)).reshape(t, n).T * factors)


def draw(values: Float64, *, temperature: float, floor: float, rng: np.random.Generator) -> Draw:
    """Choose one of `values`, shape (n, t); where one is above 0, only of those that are.

    At temperature 0 take the best, the first among equals; above, draw one of those that have at least `floor` times the best
    score, with probability exp(score / best / temperature). Scores on another scale give the same draw.
    """
    flat = values.ravel()
    index, drawn = int(flat.argmax()), 1.0
    best = float(flat[index])
    if temperature > 0 and best > 0:
        near = (flat >= max(floor * best, math.ulp(0.0))).nonzero()[0]  # above 0 also where the floor is 0
        # Near temperature 0 all but the best are infinitely far away.
        chance = np.add.accumulate(rounded(np.exp((flat.take(near) / best - 1) / max(temperature, _COLDEST))))
        # The last sum itself, so that a draw can only fall on a candidate with a chance.
        place = int(chance.searchsorted(rng.random() * chance[-1], side="right"))
        index, drawn = int(near[place]), float((chance[place] - (chance[place - 1] if place else 0.0)) / chance[-1])
    candidate, transposition = divmod(index, values.shape[1])
    return Draw(candidate, transposition, float(flat[index]), drawn)


def runners_up(values: Float64, drawn: Draw, *, most: int) -> list[tuple[int, int]]:
    """Return candidate and transposition of the best others, each candidate in its best transposition."""
    best, out = np.maximum.reduce(values, axis=1), list[tuple[int, int]]()
    best[drawn.candidate] = -np.inf
    while len(out) < most and best[row := int(best.argmax())] > -np.inf:
        out.append((row, int(values[row].argmax())))
        best[row] = -np.inf
    return out
