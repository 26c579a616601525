"""What all pictures share: style, colours, axes of time and pitch, and files.

Pictures are drawn with matplotlib's objects on its Agg canvas: no pyplot, no display, no figure that outlives its caller.
matplotlib is imported when something is drawn, so that commands which draw nothing start quickly.

References
----------
Colours that remain apart in all common forms of colour blindness: Okabe & Ito, "Color Universal Design", 2008.
"""

import io
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musichal.atomic import open_atomically
from musichal.errors import InputError
from musichal.text import PathLike, clock, pitch_name, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILION, GREEN, PURPLE, ORANGE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"
INK, GREY, PALE = "#222222", "#8A8A8A", "#E4E4E4"
SOURCE_COLOURS = {"harmonic": BLUE, "percussive": VERMILION}

WIDTH_INCHES = 16.0
"""1600 pixels at the 100 dots per inch that PNG files get."""

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
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a recording's name is a dollar sign
    "hatch.linewidth": 0.5,
    "svg.hashsalt": "musichal",  # else every SVG would get other identifiers
}
# Without dates, so that the same picture is the same file.
_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": "MusicHal"},
    "svg": {"Creator": "MusicHal", "Date": None},
    "pdf": {"Creator": "MusicHal", "Producer": None, "CreationDate": None},
}
_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)


@contextmanager
def picture_style() -> Iterator[None]:
    """Give matplotlib our settings for a while, whatever the user's own file says; usable as a decorator."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def picture_format(path: PathLike) -> str:
    """Return 'png', 'svg' or 'pdf' by the suffix of `path`.

    Raises
    ------
    InputError
        For any other suffix; ask before long work.
    """
    suffix = Path(path).suffix.lower().removeprefix(".")
    if suffix not in _METADATA:
        raise InputError(f"{printable(path)}: a picture is a .png, .svg or .pdf file")
    return suffix


def save_figure(figure: "Figure", path: PathLike) -> None:
    """Write a figure in the format that the suffix of `path` names, whole or not at all.

    The same figure and versions of libraries give the same bytes.

    Raises
    ------
    InputError
        For an unknown suffix, or where the file cannot be written.
    """
    drawn = figure_bytes(figure, picture_format(path))
    with open_atomically(path) as stream:
        stream.write(drawn)


@picture_style()
def figure_bytes(figure: "Figure", kind: str) -> bytes:
    """Return a figure as a 'png', 'svg' or 'pdf' file; the same figure and versions of libraries give the same bytes."""
    drawn = io.BytesIO()
    with warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes; that is no reason to alarm anyone.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(drawn, format=kind, metadata=_METADATA[kind])
    return drawn.getvalue()


def new_figure(*, height_inches: float, title: str, subtitle: str) -> "Figure":
    """Return an empty figure of the usual width with its title at the top left."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_INCHES, height_inches), facecolor="white")
    FigureCanvasAgg(figure)
    left = 0.065
    figure.text(left, 1 - 0.18 / height_inches, title, size=17, weight="bold", va="top")
    figure.text(left, 1 - 0.50 / height_inches, subtitle, size=11, va="top", color="#555555")
    return figure


def time_step_s(duration_s: float, *, labels: int) -> float:
    """Return a round number of seconds, the least that needs at most `labels` labels."""
    for step in _STEPS_S:
        if duration_s / step <= labels:
            return float(step)
    return math.ceil(duration_s / labels / 3600) * 3600.0


def time_ticks(axes: "Axes", duration_s: float, *, labels: int = 16, start_s: float = 0.0) -> None:
    """Label an axis of seconds from `start_s` on with m:ss."""
    step = time_step_s(duration_s, labels=labels)
    first = math.ceil(start_s / step - 1e-9)
    ticks = [k * step for k in range(first, math.floor((start_s + duration_s) / step + 1e-9) + 1)]
    axes.set_xticks(ticks, [clock(t, decimals=int(step < 1)) for t in ticks])


def pitch_ticks(axes: "Axes", pitches: Sequence[int]) -> None:
    """Fit an axis of MIDI pitches to those drawn, with the octaves named; an octave around middle C without any."""
    low, high = (min(pitches), max(pitches)) if len(pitches) else (60, 60)
    low, high = min(low, high - 10) - 1, max(high, low + 10) + 1
    axes.set_ylim(low - 0.5, high + 0.5)
    octaves = [p for p in range(128) if p % 12 == 0 and low <= p <= high]
    axes.set_yticks(octaves, [pitch_name(p) for p in octaves])
    for pitch in octaves:
        axes.axhline(pitch, color=PALE, linewidth=0.6, zorder=0)


def shortened(name: str, *, characters: int) -> str:
    """Return a name that fits so many characters and one line, its end left out where it must be."""
    text = printable(name)
    return text if len(text) <= characters else text[: max(0, characters - 1)] + "…"
