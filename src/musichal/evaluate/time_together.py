"""Time measures of a duo: whether an answer lies on the beat of the music, and together with the others' onsets.

A *place* counts beats: onset times are mapped to places by linear interpolation between the true beats. The concentration of
onsets on the grid of k parts of a beat is the mean resultant length R = |mean exp(2πi k place)|, 1 where all lie on one phase
of the grid; n onsets anywhere have about √(π / 4n) [1]_. R does not say which phase: the asynchrony does, the signed time from
the nearest line of the grid, late positive, as in studies of ensemble timing [2]_.

References
----------
.. [1] Fisher, N. I.: Statistical Analysis of Circular Data. Cambridge University Press, 1993.
.. [2] Rasch, R. A.: Synchronization in performed ensemble music. Acustica 43, 1979.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from musichal.arrays import Float64
from musichal.evaluate.listening import PHRASE_GAP_S
from musichal.partner.decision import Decision

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Measures = TypeVar("Measures", bound="DataclassInstance")

WINDOW_S = 0.04
"""Onsets so near to each other are together."""
CHORD_S = 0.03
"""What is struck within so much is one onset."""
GRIDS = {"8ths": 2, "16ths": 4, "triplets": 3}
"""Parts of a beat, by name."""
PUSH_WINDOW_BEATS = 8.0
PUSH_SHARE = 0.9
_FEWEST_IN_WINDOW = 4
_DRAWS = 2000
_IN_TIME_R = 0.5
"""What is less concentrated before a change of tempo was not in time: chance would be back at once."""
_CLEARLY = 0.1
"""Onsets on the beat alone fit both grids, but for chance."""
_SHIFTS_S = (-4.37, -2.71, -1.13, 1.37, 2.93, 4.61)


@dataclass(frozen=True)
class BeatMap:
    """The true beats of a stretch of music, at least two, ascending; `source` says where they come from."""

    beats_s: Float64
    source: str

    def places(self, times_s: Float64) -> Float64:
        """Return times in beats since the first one; outside, the nearest beat's length goes on."""
        beats, number = self.beats_s, np.arange(len(self.beats_s), dtype=np.float64)
        places = np.interp(times_s, beats, number)
        places = np.where(times_s < beats[0], (times_s - beats[0]) / (beats[1] - beats[0]), places)
        after = number[-1] + (times_s - beats[-1]) / (beats[-1] - beats[-2])
        return np.where(times_s > beats[-1], after, places)

    def period_s(self, places: Float64) -> Float64:
        """Return the length of the beat that each place lies in."""
        lengths = np.diff(self.beats_s)
        found: Float64 = lengths[np.clip(np.floor(places).astype(np.int64), 0, len(lengths) - 1)]
        return found


@dataclass(frozen=True)
class TimeTogether:
    """How an answer lies in time; None where there is nothing to measure.

    * `onsets`: Onsets, chords counted once.
    * `r8`, `r16`, `r_triplets`: Concentration on the grids of 2, 4 and 3 parts of a beat.
    * `r_grid`: The same on the grid that the real parts are on: 16ths or triplets.
    * `within`: Share of onsets with an onset of the band within `WINDOW_S`. The player's own never count.
    * `within_moved`: The same of the answer moved in time, on average: chance.
    * `asynchrony_ms`, `spread_ms`: Median of the signed distance from the nearest line of that grid (late is positive), and
      the standard deviation.
    * `phrase_beats`: Median length of a phrase in beats.
    * `in_time`: Share of decisions to play that were made in time; None for what makes none.
    """

    onsets: int
    r8: float | None
    r16: float | None
    r_triplets: float | None
    r_grid: float | None
    within: float | None
    within_moved: float | None
    asynchrony_ms: float | None
    spread_ms: float | None
    phrase_beats: float | None = None
    in_time: float | None = None


def struck(onsets_s: Sequence[float] | Float64) -> Float64:
    """Return onsets, ascending, each chord once: the first of those within `CHORD_S`."""
    kept: list[float] = []
    for onset_s in np.sort(np.asarray(onsets_s, dtype=np.float64)).tolist():
        if not kept or onset_s - kept[-1] > CHORD_S:
            kept.append(onset_s)
    return np.array(kept, dtype=np.float64)


def concentration(places: Float64, parts: int) -> float | None:
    """Return the mean resultant length of places on the grid of so many parts of a beat; None without a place."""
    return float(abs(np.exp(2j * np.pi * parts * places).mean())) if len(places) else None


def chance_concentration(count: int) -> float | None:
    """Return what so many onsets at any time have, on average."""
    return min(1.0, float(np.sqrt(np.pi / (4 * count)))) if count else None


def grid_of(places: Float64) -> int:
    """Return the parts of a beat that onsets are on: 4, or 3 where triplets fit clearly better."""
    straight, triplets = (concentration(places, parts) or 0.0 for parts in (4, 3))
    return 3 if triplets > straight + _CLEARLY else 4


def share_within(onsets_s: Float64, true_s: Float64) -> float | None:
    """Return the share of onsets that have a true one (ascending) within `WINDOW_S`; None without onsets."""
    if not len(onsets_s):
        return None
    if not len(true_s):
        return 0.0
    after = np.clip(np.searchsorted(true_s, onsets_s), 1, max(1, len(true_s) - 1))
    before = true_s[after - 1]
    nearest = np.minimum(np.abs(onsets_s - before), np.abs(onsets_s - true_s[np.minimum(after, len(true_s) - 1)]))
    return float(np.mean(nearest <= WINDOW_S + 1e-9))


def share_when_moved(onsets_s: Float64, true_s: Float64, *, duration_s: float) -> float | None:
    """Return the mean share of the same onsets moved in time, the end of the stretch coming first."""
    shares = [share_within(np.sort((onsets_s + shift_s) % duration_s), true_s) for shift_s in _SHIFTS_S]
    return float(np.mean([share for share in shares if share is not None])) if len(onsets_s) else None


def asynchrony_s(places: Float64, beats: BeatMap, parts: int) -> Float64:
    """Return the signed time of places from the nearest line of the grid."""
    away: Float64 = (places - np.round(places * parts) / parts) * beats.period_s(places)
    return away


def time_together(
    onsets_s: Float64,
    true_s: Float64,
    beats: BeatMap | None,
    *,
    duration_s: float,
    grid: int = 4,
    decisions: Sequence[Decision] = (),
) -> TimeTogether:
    """Return how onsets lie beside the band's.

    * `onsets_s`: shape (n,). Ascending, as `struck` gives them.
    * `true_s`: shape (m,). Onsets of the band, ascending.
    * `beats`: None for music without a beat.
    * `duration_s`: Length of the stretch that both lie in.
    * `grid`: Parts of a beat that the real parts are on.
    * `decisions`: What made the onsets, if a partner did.
    """
    r8 = r16 = r_triplets = r_grid = asynchrony = spread = phrase = None
    if beats is not None and len(onsets_s):
        places = beats.places(onsets_s)
        r8, r16, r_triplets, r_grid = (concentration(places, parts) for parts in (2, 4, 3, grid))
        away_ms = 1000 * asynchrony_s(places, beats, grid)
        asynchrony, spread = float(np.median(away_ms)), float(np.std(away_ms))
        phrase = _phrase_beats(places, onsets_s)
    return TimeTogether(
        onsets=len(onsets_s),
        r8=r8,
        r16=r16,
        r_triplets=r_triplets,
        r_grid=r_grid,
        within=share_within(onsets_s, true_s),
        within_moved=share_when_moved(onsets_s, true_s, duration_s=duration_s),
        asynchrony_ms=asynchrony,
        spread_ms=spread,
        phrase_beats=phrase,
        in_time=_share_in_time(decisions),
    )


def beats_until_back(onsets_s: Float64, beats: BeatMap, *, push_s: float, grid: int = 4) -> float | None:
    """Return how many beats behind a tempo change the concentration is back; None where it never is, or never was there.

    The concentration in a window of `PUSH_WINDOW_BEATS` that begins so many beats behind the change must be `PUSH_SHARE` of the
    mean in the windows before it, which must be at least one half.
    """
    places = beats.places(onsets_s)
    push = float(beats.places(np.array([push_s]))[0])

    def within(first: float) -> float | None:
        chosen = places[(places >= first) & (places < first + PUSH_WINDOW_BEATS)]
        return concentration(chosen, grid) if len(chosen) >= _FEWEST_IN_WINDOW else None

    last = float(beats.places(np.array([beats.beats_s[-1]]))[0])
    before = [r for first in np.arange(0, push - PUSH_WINDOW_BEATS + 1e-6, 1.0) if (r := within(float(first))) is not None]
    if not before or np.mean(before) < _IN_TIME_R:
        return None
    for behind in np.arange(0, last - push - PUSH_WINDOW_BEATS + 1e-6, 0.5):
        r = within(push + float(behind))
        if r is not None and r >= PUSH_SHARE * np.mean(before):
            return float(behind)
    return None


def mean_over(items: Sequence[Measures]) -> Measures:
    """Return the mean over songs, measure by measure, of those that have it; the first field is a count, and summed."""
    counted, *names = (field.name for field in dataclasses.fields(items[0]))
    values: dict[str, float | None] = {counted: sum(getattr(item, counted) for item in items)}
    for name in names:
        there = [value for item in items if (value := getattr(item, name)) is not None]
        values[name] = float(np.mean(there)) if there else None
    return dataclasses.replace(items[0], **values)


def intervals(
    items: "Sequence[DataclassInstance]", *, rng: np.random.Generator
) -> dict[str, tuple[float, float]]:  # fmt: skip
    """Return the 95 % interval of the mean of each measure: a bootstrap over songs, those that have it."""
    found = {}
    for name in (field.name for field in dataclasses.fields(items[0])[1:]):
        there = np.array([value for item in items if (value := getattr(item, name)) is not None])
        if len(there) > 1:
            drawn = there[rng.integers(len(there), size=(_DRAWS, len(there)))].mean(axis=1)
            low, high = np.quantile(drawn, [0.025, 0.975])
            found[name] = (float(low), float(high))
    return found


def _phrase_beats(places: Float64, onsets_s: Float64) -> float:
    cuts = np.flatnonzero(np.diff(onsets_s) >= PHRASE_GAP_S) + 1
    return float(np.median([phrase[-1] - phrase[0] for phrase in np.split(places, cuts)]))


def _share_in_time(decisions: Sequence[Decision]) -> float | None:
    played = [decision for decision in decisions if decision.kind == "play"]
    return float(np.mean([decision.pulse is not None for decision in played])) if played else None
