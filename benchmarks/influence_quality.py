"""Influences: how well each one alone tells what the real band plays next from other places of memory.

Conventions
-----------
A partner learns the first half of a song's band, alone or beside its player, and hears the player's second half
(`benchmarks.duo_quality`). Every 0.35 s in which the player sounds, each influence values each state of memory, in the key of
the recording. What the band plays in the next second, by the score, is compared with what it played from each of these states
on: in *chroma* (correlation), in *notes* (cosine of the durations of pitches), and in *percussion* (cosine of hits by kind and
eighth of the second). The tenth of the states that are most alike are right.

AUC is the chance that a right state is valued higher than another one, equal values half: 0.5 says nothing. *Lift* is how much
more alike the three states valued most are than all are on average. Both are means over moments, then over songs, with 95 %
intervals from a bootstrap over songs. `own` and `continuity` do not depend on the player, and `pairs` needs a memory of pairs.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from benchmarks.duo_quality import Song, heard_song, songs_of
from benchmarks.figure import Figure
from musichal.arrays import Float64
from musichal.evaluate.together import HeardDuo, Progress
from musichal.machine import single_blas_thread
from musichal.partner.harmony import unit_chroma
from musichal.partner.influences import INFLUENCES, PLAYER_INFLUENCES
from musichal.partner.partner import Partner
from musichal.partner.settings import PartnerSettings

ASPECTS = ("chroma", "notes", "percussion")
KINDS = ("the band alone", "pairs")
_SPAN_S, _STEP_S, _EDGE_S = 1.0, 0.35, 3.0
_RIGHT, _BEST = 0.1, 3
_LEAST_CONTRAST = 0.05
_DRUMS = {35: 0, 36: 0, 37: 1, 38: 1, 39: 1, 40: 1} | dict.fromkeys((42, 44, 46, 51, 53, 59, 69, 70, 82), 2)


@dataclass(frozen=True)
class Measured:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} ({self.low:.3f}–{self.high:.3f})"


def measure_influences(
    *, split: str = "report", most: int | None = None, cache: Path | None = None, progress: Progress, write: Path | None = None
) -> list[Figure]:
    """Measure each influence on songs of a split; `write` is a folder that gets the page."""
    found = {}
    for kind in KINDS:
        songs = songs_of(split, most=most, pairs=kind == "pairs")
        values = []
        for number, song in enumerate(songs):
            progress(f"{song.folder.name}, {kind}", number / len(songs))
            values.append(of_song(song, cache))
        found[kind] = np.array(values)
    if write is not None:
        (write / "influences.md").write_text(_page(found, split), encoding="utf-8")
    return [
        Figure(f"AUC of {name} for {aspect}, {kind}", mean_of(values[:, i, j, 0]).mean, "")
        for kind, values in found.items()
        for i, name in enumerate(PLAYER_INFLUENCES)
        for j, aspect in enumerate(ASPECTS)
        if kind == "pairs" or name != "pairs"
    ]


def of_song(song: Song, cache: Path | None) -> Float64:
    """Return AUC and lift of each influence in each aspect, shape (influences, aspects, 2); NaN where nothing can be told."""
    heard, truth = heard_song(song, cache), song.truth
    with single_blas_thread():
        times_s, starts_s, values = _values(heard)
    now, then = (_played(truth, at_s) for at_s in (times_s + heard.start_s, starts_s))
    rng = np.random.default_rng(0)
    out = np.full((len(PLAYER_INFLUENCES), len(ASPECTS), 2), np.nan)
    for j in range(len(ASPECTS)):
        alike = now[j] @ then[j].T
        told = (alike.max(axis=1) - np.median(alike, axis=1) > _LEAST_CONTRAST).nonzero()[0]
        for i in range(len(PLAYER_INFLUENCES)):
            each = [(_auc(values[m, i], alike[m]), _lift(values[m, i], alike[m], rng)) for m in told]
            if len(each) > 3:
                out[i, j] = np.nanmean(each, axis=0)
    return out


def _values(heard: HeardDuo) -> tuple[Float64, Float64, Float64]:
    """Return moments (m,), where states begin (n,), and the value of each influence on each of these, (m, influences, n)."""
    settings, rate = PartnerSettings(live_weight=0.0, max_transposition=0), heard.excerpt.sample_rate_hz
    partner = Partner(heard.model.memory, settings, rng=np.random.default_rng(0), sample_rate_hz=rate)
    rows = heard.model.memory.states
    states = np.flatnonzero((rows["start_s"] > _EDGE_S) & (rows["start_s"] < heard.start_s - _SPAN_S))
    columns = [INFLUENCES.index(name) for name in PLAYER_INFLUENCES]
    times_s, values, next_s = [], [], _EDGE_S
    for percept in heard.excerpt.percepts:
        now_s = percept.heard.available_at / rate
        partner.hear(percept, now_s)
        if now_s < next_s or now_s > heard.excerpt.duration_s - _SPAN_S or not percept.heard.audible.any():
            continue
        values.append(partner.weigh_all(now_s, states)[columns])
        times_s.append(now_s)
        next_s = now_s + _STEP_S
    return np.array(times_s), rows["start_s"][states].astype(np.float64), np.array(values)


def _played(truth: dict[str, list[list[float]]], at_s: Float64) -> tuple[Float64, ...]:
    """Return what the band plays from each moment on, a unit vector for each aspect."""
    begin_s, length_s, pitch, _ = np.array(truth["band_notes"]).T
    sounds_s = np.minimum(begin_s + length_s, at_s[:, None] + _SPAN_S) - np.maximum(begin_s, at_s[:, None])
    pitches = np.maximum(sounds_s, 0) @ (pitch[:, None] == np.arange(128))
    chroma = np.stack([pitches[:, c::12].sum(axis=1) for c in range(12)], axis=1)
    hits = np.zeros((len(at_s), 4, 8))
    for hit_s, key, velocity in truth["drum_hits"]:
        place = np.rint(8 * (hit_s - at_s) / _SPAN_S).astype(int)
        near = np.flatnonzero((place >= 0) & (place < 8))
        hits[near, _DRUMS.get(int(key), 3), place[near]] += velocity / 127
    blurred = hits.copy()
    blurred[..., 1:] += 0.5 * hits[..., :-1]
    blurred[..., :-1] += 0.5 * hits[..., 1:]
    return unit_chroma(chroma), _unit(np.sqrt(pitches)), _unit(blurred.reshape(len(at_s), -1))


def _unit(rows: Float64) -> Float64:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9))


def _auc(values: Float64, alike: Float64) -> float:
    count = max(3, round(_RIGHT * len(alike)))
    right = alike >= np.partition(alike, len(alike) - count)[len(alike) - count]
    n = int(right.sum())
    if n > 0.4 * len(alike):
        return np.nan
    return float((rankdata(values)[right].sum() - n * (n + 1) / 2) / (n * (len(alike) - n)))


def _lift(values: Float64, alike: Float64, rng: np.random.Generator) -> float:
    best = np.argsort(-values - 1e-9 * rng.random(len(values)))[:_BEST]
    return float(alike[best].mean() - alike.mean())


def mean_of(values: Float64) -> Measured:
    """Return the mean over songs, without those where nothing can be told."""
    known = values[np.isfinite(values)]
    if not len(known):
        return Measured(np.nan, np.nan, np.nan)
    means = known[np.random.default_rng(0).integers(0, len(known), (2000, len(known)))].mean(axis=1)
    return Measured(float(known.mean()), *(float(q) for q in np.quantile(means, [0.025, 0.975])))


def _page(found: dict[str, Float64], split: str) -> str:
    lines = ["# Results: influences", ""]
    command = f"python -m benchmarks influences --split {split} --songs {len(found[KINDS[0]])} --write docs/results"
    lines += [f"Generated on {datetime.now(UTC).date()} by `{command}`."]
    lines += ["", *(__doc__ or "").split("-----------\n")[1].strip().splitlines()]
    for kind, values in found.items():
        lines += ["", f"## A memory of {kind}, {len(values)} songs"]
        for measure, name in enumerate(("AUC", "Lift")):
            lines += ["", f"| {name} | " + " | ".join(ASPECTS) + " |", "|---|" + "---|" * len(ASPECTS)]
            lines += [_row(influence, values[:, i, :, measure]) for i, influence in enumerate(PLAYER_INFLUENCES)]
    return "\n".join(lines) + "\n"


def _row(name: str, values: Float64) -> str:
    return f"| {name} | " + " | ".join(str(mean_of(column)) for column in values.T) + " |"
