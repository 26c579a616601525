"""Style, axes, panels and grids of beats shared by all figures, and files.

Figures use matplotlib's objects on the Agg canvas: no pyplot, no display. matplotlib is imported when something is drawn. Times
are in seconds. A panel holds a bounded number of columns, so that an hour is drawn as quickly as a minute.

References
----------
Colours that remain distinct in colour blindness: Okabe & Ito, "Color Universal Design", 2008.
"""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from musichal.arrays import AnyArray, Bool, Float32, Float64, Int64
from musichal.atomic import open_atomically
from musichal.errors import InputError
from musichal.evaluate.tempo_and_chords import tempo_curve, tempo_stats
from musichal.hearing.percepts import SILENCE
from musichal.memory.partner_file import StoredRecording
from musichal.text import PathLike, clock, pitch_name, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILION, GREEN, PURPLE, ORANGE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"
INK, GREY, PALE = "#222222", "#8A8A8A", "#E4E4E4"
SOURCE_COLOURS = {"harmonic": BLUE, "percussive": VERMILION}
COLUMNS = 1500
"""Columns of a panel: about one per pixel."""

_WIDTH_INCHES = 16.0  # 1600 pixels
_TITLE_INCHES = 0.85
_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 36_000)
_STYLE: dict[Any, Any] = {
    "figure.dpi": 100,
    "savefig.dpi": 100,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titlepad": 5,
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": PALE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a recording's name is a dollar sign
    "hatch.linewidth": 0.5,
    "svg.hashsalt": "musichal",  # reproducible identifiers
}
# Without dates, so that the same figure gives the same file.
_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": "MusicHal"},
    "svg": {"Creator": "MusicHal", "Date": None},
    "pdf": {"Creator": "MusicHal", "Producer": None, "CreationDate": None},
}


@contextmanager
def plot_style() -> Iterator[None]:
    """Apply MusicHal's matplotlib settings instead of the user's; usable as a decorator."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


# Files ----------------------------------------------------------------------------------------------------------------


def picture_format(path: PathLike) -> str:
    """Return 'png', 'svg' or 'pdf' by the suffix of `path`; raise `InputError` for another suffix."""
    suffix = Path(path).suffix.lower().removeprefix(".")
    if suffix not in _METADATA:
        raise InputError(f"{printable(path)}: a picture is a .png, .svg or .pdf file")
    return suffix


def save_figure(figure: "Figure", path: PathLike) -> None:
    """Write a figure in the format of the suffix of `path`, completely or not at all; raise `InputError` if impossible."""
    drawn = figure_bytes(figure, picture_format(path))
    with open_atomically(path) as stream:
        stream.write(drawn)


@plot_style()
def figure_bytes(figure: "Figure", kind: str) -> bytes:
    """Return a figure as a 'png', 'svg' or 'pdf' file; the same figure and versions of libraries give the same bytes."""
    drawn = io.BytesIO()
    with warnings.catch_warnings():
        # The font lacks some scripts and draws boxes instead.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(drawn, format=kind, metadata=_METADATA[kind])
    return drawn.getvalue()


# Figures and axes -----------------------------------------------------------------------------------------------------


def new_figure(*, height_inches: float, title: str, subtitle: str) -> "Figure":
    """Return an empty figure with constrained layout and its title at the top left."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    top = 1 - _TITLE_INCHES / height_inches
    layout = ConstrainedLayoutEngine(rect=(0.01, 0.0, 0.98, top), h_pad=0.07, w_pad=0.06)
    figure = Figure(figsize=(_WIDTH_INCHES, height_inches), facecolor="white", layout=layout)
    FigureCanvasAgg(figure)
    figure.text(0.02, 1 - 0.15 / height_inches, title, size=17, weight="bold", va="top")
    figure.text(0.02, 1 - 0.48 / height_inches, subtitle, size=11, va="top", color="#555555")
    return figure


def hide_frame(axes: "Axes", *, keep: Sequence[str] = ("bottom",)) -> None:
    """Leave only the named sides of the frame."""
    for side, spine in axes.spines.items():
        spine.set_visible(side in keep)


def time_step_s(duration_s: float, *, labels: int) -> float:
    """Return a round number of seconds that divides a duration into at most about `labels` parts."""
    return float(next((step for step in _STEPS_S if duration_s / step <= labels), _STEPS_S[-1]))


def time_ticks(axes: "Axes", start_s: float, end_s: float, *, labels: int = 16) -> None:
    """Show seconds from `start_s` to `end_s`, labelled m:ss."""
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    step = time_step_s(end_s - start_s, labels=labels)
    axes.xaxis.set_major_locator(MultipleLocator(step))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda t, _: clock(max(t, 0.0), decimals=int(step < 1))))
    axes.set_xlim(start_s, end_s)


def own_time_ticks(
    starts_s: Sequence[float], durations_s: Sequence[float], *, labels: int, apart: float
) -> tuple[list[float], list[str]]:
    """Return places and labels on an axis of recordings one after the other: each one's own time, where there is room.

    Places are at least the share `apart` of the axis from each other.
    """
    total = starts_s[-1] + durations_s[-1] if len(starts_s) else 1.0
    step = time_step_s(total, labels=labels)
    places: list[float] = []
    texts: list[str] = []
    for start, duration in zip(starts_s, durations_s, strict=True):
        for own in np.arange(0, duration, step).tolist():
            if not places or start + own - places[-1] > apart * total:
                places.append(start + own)
                texts.append(clock(own, decimals=int(step < 1)))
    return places, texts


def shortened(name: str, *, characters: int) -> str:
    """Return a name as one line of at most `characters` characters."""
    text = printable(name)
    return text if len(text) <= characters else text[: max(0, characters - 1)] + "…"


# Panels ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Envelope:
    """Minimum and maximum of the samples in each column; `times_s` (k,) are the centres of the columns."""

    times_s: Float64
    low: Float32
    high: Float32

    @property
    def peak(self) -> float:
        """Largest absolute value, above 0."""
        return max(1e-6, -float(self.low.min(initial=0)), float(self.high.max(initial=0)))

    def thinned(self, columns: int) -> "Envelope":
        """Return the envelope in at most so many columns."""
        edges = np.linspace(0, len(self.low), min(columns, len(self.low)) + 1).astype(np.int64)[:-1]
        return Envelope(self.times_s[edges], np.minimum.reduceat(self.low, edges), np.maximum.reduceat(self.high, edges))

    def draw(self, axes: "Axes") -> None:
        """Draw the waveform over the whole height of the axes."""
        axes.fill_between(self.times_s, self.low, self.high, color=INK, linewidth=0.4)
        axes.set_ylim(-self.peak, self.peak)
        axes.set_yticks([])
        hide_frame(axes)


def envelope(samples: Float32, *, sample_rate_hz: int, columns: int = COLUMNS, start_s: float = 0.0) -> Envelope:
    """Return the envelope of samples of shape (n,) that begin at `start_s`."""
    n = len(samples)
    if not n:
        return Envelope(np.zeros(0), np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.float32))
    edges = np.linspace(0, n, min(columns, n) + 1).astype(np.int64)
    times = start_s + (edges[:-1] + edges[1:]) / 2 / sample_rate_hz
    return Envelope(times, np.minimum.reduceat(samples, edges[:-1]), np.maximum.reduceat(samples, edges[:-1]))


def held_tokens(tokens: AnyArray, starts_s: Float64, moments_s: Float64, *, longest_s: float) -> Int64:
    """Return the token at each moment, shape (k,); -2 where there is no frame.

    A frame lasts until the next one starts, but at most `longest_s`.
    """
    if not len(tokens):
        return np.full(len(moments_s), SILENCE - 1, dtype=np.int64)
    at = np.searchsorted(starts_s, moments_s, side="right") - 1
    known = (at >= 0) & (moments_s - starts_s[np.maximum(at, 0)] < longest_s)
    return np.where(known, tokens[np.maximum(at, 0)].astype(np.int64), SILENCE - 1)


def column_moments(frames: int, end_s: float) -> Float64:
    """Return evenly spaced moments from 0 to `end_s`, a multiple of `COLUMNS` and at least two for each frame."""
    moments = COLUMNS * max(8, -(-2 * frames // COLUMNS))
    return (np.arange(moments) + 0.5) * end_s / moments


def by_first_appearance(tokens: AnyArray, *, size: int) -> Int64:
    """Return the row of each token, shape (size,): first those that occur, in order of appearance."""
    used, first = np.unique(tokens[tokens != SILENCE], return_index=True)
    order = np.concatenate([used[np.argsort(first)], np.setdiff1d(np.arange(size), used)]).astype(np.int64)
    return np.argsort(order)


def token_raster(held: Int64, rows: Int64, *, columns: int = COLUMNS) -> tuple[Float32, Float32]:
    """Return the share of each column's time: of each row (rows, columns) and of silence (columns,).

    `held` has shape (columns · k,): tokens at evenly spaced moments, see `held_tokens`.
    """
    per_column = len(held) // columns
    column = np.repeat(np.arange(columns), per_column)
    raster = np.zeros((len(rows), columns), dtype=np.float32)
    sounding = held >= 0
    np.add.at(raster, (rows[held[sounding]], column[sounding]), 1 / per_column)
    silence = np.bincount(column[held == SILENCE], minlength=columns) / per_column
    return raster, silence.astype(np.float32)


def draw_raster(axes: "Axes", raster: Float32, silence: Float32, *, end_s: float, source: str) -> None:
    """Draw tokens as rows, the first one lowest, and silence as a grey band below them."""
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm

    n = raster.shape[0]
    band = max(1.0, 0.12 * n)
    layers = ((raster, SOURCE_COLOURS[source], -0.5, n - 0.5), (silence[np.newaxis], GREY, -0.5 - band, -0.5))
    for values, colour, bottom, top in layers:
        cmap = LinearSegmentedColormap.from_list(source, ["white", colour])
        # An exponent below 1 keeps short tokens visible among many.
        axes.imshow(
            values, cmap=cmap, norm=PowerNorm(0.4, vmin=0, vmax=1), aspect="auto", origin="lower",
            extent=(0.0, end_s, bottom, top), interpolation="nearest",
        )  # fmt: skip
    axes.axhline(-0.5, color=GREY, linewidth=0.6)
    axes.set_ylim(-0.5 - band, max(n - 0.5, 0.5))
    axes.set_yticks([-0.5 - band / 2], ["silence"])
    axes.set_ylabel(f"{source} tokens,\nin order of appearance")


def draw_notes(
    axes: "Axes",
    starts_s: Float64,
    durations_s: Float64,
    pitches: Sequence[int],
    velocities: AnyArray,
    colours: Sequence[str] | str = INK,
) -> None:
    """Draw a piano roll: a bar for each note, the lighter the softer it is; octaves are labelled."""
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgba_array

    left, right, pitch = starts_s, starts_s + durations_s, np.asarray(pitches, dtype=np.float64)
    low, high = pitch - 0.45, pitch + 0.45
    corners = np.stack([np.stack(c, axis=1) for c in ((left, low), (right, low), (right, high), (left, high))], axis=1)
    faces = to_rgba_array([colours] * len(pitches) if isinstance(colours, str) else list(colours)).reshape(-1, 4)
    faces[:, 3] = 0.3 + 0.7 * np.clip(np.asarray(velocities, dtype=np.float64) / 110, 0, 1)
    # A thin edge keeps notes of a few milliseconds visible.
    bars = PolyCollection(list(corners.reshape(-1, 4, 2)), facecolors=faces, edgecolors=faces, linewidths=0.5)
    axes.add_collection(bars, autolim=False)
    bottom, top = (min(pitches), max(pitches)) if len(pitches) else (60, 60)
    bottom, top = min(bottom, top - 10) - 1, max(top, bottom + 10) + 1
    axes.set_ylim(bottom - 0.5, top + 0.5)
    octaves = [p for p in range(0, 128, 12) if bottom <= p <= top]
    axes.set_yticks(octaves, [pitch_name(p) for p in octaves])
    axes.yaxis.grid(True)
    axes.set_ylabel("pitch")


# ── beats ────────────────────────────────────────────────────────────────────

BEAT_COLOUR = "#6A3D9A"
_LEAST_PIXELS = 8.0  # apart, or lines are a grey area
_LEAST_RANGE = 0.1  # of the tempo axis, so that a steady tempo is drawn steady


def draw_beats(axes: "Axes", times_s: Float64, is_bar: Bool, *, shown_s: float, pixels: int = COLUMNS) -> None:
    """Draw beats (n,) as lines from bottom to top, stronger where a bar begins.

    Of a panel of so many pixels for `shown_s` that has no room for all beats, only the bars are drawn, or nothing.
    """
    for chosen, width, alpha, label in ((~is_bar, 0.6, 0.4, "beats"), (is_bar, 1.3, 0.7, "bars")):
        every_s = float(np.median(np.diff(times_s if label == "beats" else times_s[chosen]))) if chosen.sum() > 1 else shown_s
        if chosen.any() and every_s * pixels / shown_s >= _LEAST_PIXELS:
            lines = axes.vlines(
                times_s[chosen], 0, 1, transform=axes.get_xaxis_transform(), color=BEAT_COLOUR, linewidth=width, alpha=alpha
            )
            lines.set(label=label, zorder=0.6)


def grid_lines(recordings: Sequence[StoredRecording], starts_s: Float64) -> tuple[Float64, Bool]:
    """Return the beats (n,) of recordings that begin at `starts_s` of a common time line, and which of them begin a bar."""
    times, bars = [np.zeros(0)], [np.zeros(0, dtype=bool)]
    for recording, start_s in zip(recordings, starts_s.tolist(), strict=True):
        if recording.beats is not None:
            sure = recording.beats[recording.beats["confidence"] > 0]
            times.append(start_s + sure["time_s"])
            bars.append(sure["bar_place"] == 0)
    return np.concatenate(times), np.concatenate(bars)


def draw_tempo(axes: "Axes", recordings: Sequence[StoredRecording], starts_s: Float64) -> None:
    """Draw the tempo of each recording, with gaps where no beat is sure."""
    lowest, highest = np.inf, 0.0
    for recording, start_s in zip(recordings, starts_s.tolist(), strict=True):
        for times_s, bpm in tempo_curve(recording.beats) if recording.beats is not None else ():
            axes.plot(start_s + times_s, bpm, color=INK, linewidth=1.2, label="tempo")
            lowest, highest = min(lowest, float(bpm.min())), max(highest, float(bpm.max()))
    if highest:
        room = max(0.15 * (highest - lowest), _LEAST_RANGE * (highest + lowest) / 2)
        axes.set_ylim(lowest - room, highest + room)
    first = recordings[0]
    if len(recordings) == 1 and first.beats is not None:
        words = tempo_stats(first.beats, duration_s=first.duration_s).words
        axes.set_title(f"Its tempo: {words}")
    else:
        axes.set_title("Its tempo; gaps where no beat is sure")
    axes.set_ylabel("beats per\nminute")
    axes.yaxis.grid(True)


def has_tempo(recordings: Sequence[StoredRecording]) -> bool:
    """Return whether there is a tempo to draw."""
    return any(recording.beats is not None and tempo_curve(recording.beats) for recording in recordings)
