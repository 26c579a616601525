"""Beats in figures: a grid of thin lines, stronger at bars, and the course of the tempo."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from musichal.arrays import Bool, Float64
from musichal.evaluate.tempo import tempo_curve, tempo_stats
from musichal.memory.partner_file import StoredRecording
from musichal.plots.style import COLUMNS, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
