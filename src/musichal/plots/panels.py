"""The panels that pictures are made of: a waveform, a raster of tokens, a piano roll.

Conventions
-----------
What is drawn is computed first, by pure functions on arrays, and then drawn; positions on the time axis are seconds.
Panels hold a bounded number of columns, so that an hour is drawn as quickly, and read as well, as a minute.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from musichal.arrays import AnyArray, Float32, Float64, Int64
from musichal.hearing.percepts import SILENCE
from musichal.plots.canvas import GREY, INK, pitch_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

COLUMNS = 1500
"""Columns of a panel over the whole width: about one per pixel."""
_SILENCE_ROWS = 0.12


@dataclass(frozen=True)
class Envelope:
    """Lowest and highest sample of each column; `times_s` (k,) are the columns' middles."""

    times_s: Float64
    low: Float32
    high: Float32


def envelope(samples: Float32, *, sample_rate_hz: int, columns: int = COLUMNS, start_s: float = 0.0) -> Envelope:
    """Return the envelope of samples of shape (n,), which begin at `start_s`."""
    n = samples.shape[0]
    k = max(1, min(columns, n))
    edges = np.linspace(0, n, k + 1).astype(np.int64)
    if not n:
        none = np.zeros(0, dtype=np.float32)
        return Envelope(np.zeros(0), none, none)
    low = np.minimum.reduceat(samples, edges[:-1])
    high = np.maximum.reduceat(samples, edges[:-1])
    return Envelope(start_s + (edges[:-1] + edges[1:]) / 2 / sample_rate_hz, low, high)


def draw_envelope(axes: "Axes", shape: Envelope, *, colour: str = INK) -> None:
    """Draw a waveform."""
    axes.fill_between(shape.times_s, shape.low, shape.high, color=colour, linewidth=0.4)


def hide_frame(axes: "Axes", *, keep: Sequence[str] = ()) -> None:
    """Leave only the named sides of the frame."""
    for side, spine in axes.spines.items():
        spine.set_visible(side in keep)


def held_tokens(tokens: AnyArray, starts_s: Float64, moments_s: Float64, *, longest_s: float) -> Int64:
    """Return the token that holds at each moment, shape (k,); -2 where there is no frame.

    A frame holds from its start until the next one's, and no longer than `longest_s`.
    """
    if not len(tokens):
        return np.full(len(moments_s), SILENCE - 1, dtype=np.int64)
    at = np.searchsorted(starts_s, moments_s, side="right") - 1
    known = (at >= 0) & (moments_s - starts_s[np.maximum(at, 0)] < longest_s)
    return np.where(known, tokens[np.maximum(at, 0)].astype(np.int64), SILENCE - 1)


def by_first_appearance(tokens: AnyArray, *, size: int) -> Int64:
    """Return the row of each token, shape (size,): those that occur in order of appearance, then the others."""
    used, first = np.unique(tokens[tokens != SILENCE], return_index=True)
    order = np.concatenate([used[np.argsort(first)], np.setdiff1d(np.arange(size), used)]).astype(np.int64)
    rows = np.empty(size, dtype=np.int64)
    rows[order] = np.arange(size)
    return rows


def token_raster(held: Int64, rows: Int64, *, columns: int) -> tuple[Float32, Float32]:
    """Return which sounds fill which part of each column: sounds (rows, columns) and silence (columns,), 0 to 1.

    `held` (columns · k,) are tokens at evenly spaced moments, as `held_tokens` gives them.
    """
    per_column = len(held) // columns
    column = np.repeat(np.arange(columns), per_column)
    raster = np.zeros((len(rows), columns), dtype=np.float32)
    sounding = held >= 0
    np.add.at(raster, (rows[held[sounding]], column[sounding]), 1 / per_column)
    silence = np.bincount(column[held == SILENCE], minlength=columns) / per_column
    return raster, silence.astype(np.float32)


def draw_raster(
    axes: "Axes", raster: Float32, silence: Float32, *, extent_s: tuple[float, float], colour: str
) -> tuple["AxesImage", "AxesImage"]:
    """Draw sounds as rows, the first one lowest, and silence as a grey band under them; return both images."""
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm

    n = raster.shape[0]
    band = max(1.0, n * _SILENCE_ROWS)
    # A power below 1 keeps short sounds visible among many.
    norm = PowerNorm(0.4, vmin=0, vmax=1)
    sounds = axes.imshow(
        raster,
        cmap=LinearSegmentedColormap.from_list("sounds", ["white", colour]),
        norm=norm,
        aspect="auto",
        origin="lower",
        extent=(*extent_s, -0.5, n - 0.5),
        interpolation="nearest",
    )
    quiet = axes.imshow(
        silence[np.newaxis],
        cmap=LinearSegmentedColormap.from_list("silence", ["white", GREY]),
        norm=norm,
        aspect="auto",
        extent=(*extent_s, -0.5 - band, -0.5),
        interpolation="nearest",
    )
    axes.axhline(-0.5, color=GREY, linewidth=0.6)
    axes.set_xlim(*extent_s)
    axes.set_ylim(-0.5 - band, max(n - 0.5, 0.5))
    ticks = sorted({t for t in (n // 4, n // 2, 3 * n // 4, n) if t > 1})
    axes.set_yticks([-0.5 - band / 2, *(t - 1 for t in ticks)], ["silence", *map(str, ticks)])
    return sounds, quiet


def draw_notes(
    axes: "Axes",
    starts_s: Float64,
    durations_s: Float64,
    pitches: Sequence[int],
    velocities: AnyArray,
    colours: Sequence[str] | str = INK,
) -> None:
    """Draw a piano roll: a bar per note, the fainter the softer it is."""
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgba_array

    pitch = np.asarray(pitches, dtype=np.float64)
    left, right = starts_s, starts_s + durations_s
    corners = np.stack(
        [np.stack([x, pitch + y], axis=1) for x, y in ((left, -0.45), (right, -0.45), (right, 0.45), (left, 0.45))], axis=1
    ).reshape(-1, 4, 2)
    if isinstance(colours, str):
        colours = [colours] * len(pitches)
    faces = to_rgba_array(list(colours)).reshape(-1, 4).copy()
    faces[:, 3] = 0.3 + 0.7 * np.clip(np.asarray(velocities, dtype=np.float64) / 110, 0, 1)
    # A hairline in the same colour keeps a note of a few milliseconds in sight.
    axes.add_collection(PolyCollection(list(corners), facecolors=faces, edgecolors=faces, linewidths=0.5))
    pitch_ticks(axes, [int(p) for p in pitches])
