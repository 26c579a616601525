"""Tempo and chords of a recording: what its beats and its states in memory say, in numbers and in words."""

from collections import Counter
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from musichal.arrays import Float64, Records
from musichal.memory.beat_places import passages
from musichal.memory.memory import Memory
from musichal.partner.chords import chord_name, chords_of

SURE = 0.5
"""From this confidence on a beat counts as sure."""
# The tempo at a beat is the mean over so many beats on either side: a single interval is mostly micro-timing.
_REACH = 4
_STEADY, _CHANGED = 0.04, 0.06  # shares by which tempo may vary and be steady, and must differ to have got faster
_LEAST_SHARE, _MOSTLY = 0.1, 0.7  # of the time with a sure beat: for there to be one at all, and for nothing to be free
_BAR_SHARE = 0.6  # of the bars must be as long for a metre


@dataclass(frozen=True)
class TempoStats:
    """The beats of a recording.

    The tempo is over `_REACH` beats on either side of each sure one; between `slowest_bpm` and `fastest_bpm` lie 90 % of it.
    These are None where there is no steady beat, and `beats_per_bar` where bars are not known or have no common length.
    `sure_share` is the share of the time that lies between sure beats; `words` says all of it.
    """

    beats: int
    median_bpm: float | None
    slowest_bpm: float | None
    fastest_bpm: float | None
    beats_per_bar: int | None
    sure_share: float
    words: str


def sure_passages(beats: Records) -> list[Records]:
    """Return the stretches of a grid, of two beats or more, in which every beat is sure."""
    found = []
    for passage in passages(beats):
        sure = passage["confidence"] >= SURE
        runs = np.split(passage, np.flatnonzero(np.diff(sure)) + 1)
        found += [run for run in runs if len(run) > 1 and run["confidence"][0] >= SURE]
    return found


def tempo_curve(beats: Records) -> list[tuple[Float64, Float64]]:
    """Return, for each sure passage, its beats in seconds (n,) and the tempo there in BPM (n,)."""
    curve = []
    for run in sure_passages(beats):
        times_s, places = run["time_s"], np.arange(len(run))
        first, last = np.maximum(places - _REACH, 0), np.minimum(places + _REACH, len(run) - 1)
        curve.append((times_s, 60 * (last - first) / (times_s[last] - times_s[first])))
    return curve


def tempo_stats(beats: Records, *, duration_s: float) -> TempoStats:
    """Return what a grid, `BEAT` of shape (n,), says of a recording of `duration_s`."""
    curve = tempo_curve(beats)
    share = min(1.0, sum(float(times_s[-1] - times_s[0]) for times_s, _ in curve) / duration_s)
    if share < _LEAST_SHARE:
        return TempoStats(len(beats), None, None, None, None, share, "free, no steady beat")
    bpm = np.concatenate([tempo for _, tempo in curve])
    slowest, median, fastest = np.percentile(bpm, [5, 50, 95]).tolist()
    per_bar = _beats_per_bar(beats)
    words = _tempo_words(bpm, slowest, median, fastest)
    words += f", {per_bar} beats to the bar" if per_bar else ""
    words += ", free in between" if share < _MOSTLY else ""
    return TempoStats(len(beats), median, slowest, fastest, per_bar, share, words)


def _tempo_words(bpm: Float64, slowest: float, median: float, fastest: float) -> str:
    if fastest - slowest <= _STEADY * median:
        return f"about {median:.0f} BPM, steady"
    quarter = max(1, len(bpm) // 4)
    change = float(np.median(bpm[-quarter:]) / np.median(bpm[:quarter])) - 1
    course = "getting faster" if change > _CHANGED else "getting slower" if change < -_CHANGED else "going up and down"
    return f"{slowest:.0f} to {fastest:.0f} BPM, {course}"


def _beats_per_bar(beats: Records) -> int | None:
    """Return how many beats most bars have, None where most have no common length."""
    lengths: Counter[int] = Counter()
    for passage in passages(beats):
        lengths.update(np.diff(np.flatnonzero(passage["bar_place"] == 0)).tolist())
    if not lengths:
        return None
    length, count = lengths.most_common(1)[0]
    return length if count >= _BAR_SHARE * lengths.total() else None


# ── chords ───────────────────────────────────────────────────────────────────

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
