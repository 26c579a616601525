"""Figure and report of duos: an excerpt with the beat grid, the player, the band and the answer, and the table of measures."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from musichal.evaluate.duos import choice_rows, harmony_rows, text_of, time_rows
from musichal.evaluate.together import ANCHORS, DuoEvaluation, DuoSong
from musichal.plots import report, style
from musichal.plots.style import BLUE, GREEN, GREY, PURPLE
from musichal.text import PathLike

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN_S = 12.0


@style.plot_style()
def draw_duo(song: DuoSong, *, start_s: float | None = None, duration_s: float = _SHOWN_S) -> "Figure":
    """Draw a stretch of a duo: beats and their parts as lines, onsets of player and band, and the notes of the answer.

    Parameters
    ----------
    song : DuoSong
    start_s : float, optional
        From the start of what was answered; default: where the answer has most onsets.
    duration_s : float
    """
    way = next((name for name in song.played if name not in ANCHORS), next(iter(song.played)))
    answer = song.played[way]
    if start_s is None:
        starts = np.arange(0.0, max(song.duration_s - duration_s, 0.0) + 1e-6, 1.0)
        start_s = float(max(starts, key=lambda s: np.sum((answer.onsets_s >= s) & (answer.onsets_s < s + duration_s))))
    end_s = start_s + duration_s
    figure = style.new_figure(
        height_inches=6.4,
        title=f"{style.shortened(song.name, characters=60)}: the player, the band, and the answer of '{way}'",
        subtitle=f"beats: {'unknown' if song.beats is None else song.beats.source} · thin lines are parts of a beat"
        f" · from {song.start_s + start_s:.1f} s of the recording",
    )
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[1, 2.2])
    for axes in (top, bottom):
        if song.beats is not None:
            beats = song.beats.beats_s
            parts = np.interp(np.arange(0, len(beats) - 1, 1 / song.grid), np.arange(len(beats)), beats)
            axes.vlines(parts, 0, 1, transform=axes.get_xaxis_transform(), color=GREY, linewidth=0.3, alpha=0.6)
            axes.vlines(beats, 0, 1, transform=axes.get_xaxis_transform(), color=GREY, linewidth=1.0)
    for row, (onsets_s, colour) in enumerate(((answer.onsets_s, PURPLE), (song.band_s, GREEN), (song.player_s, BLUE))):
        top.vlines(onsets_s, row + 0.1, row + 0.9, color=colour, linewidth=1.6)
    top.set_ylim(0, 3)
    top.set_yticks([0.5, 1.5, 2.5], ["answer", "band", "player"])
    style.hide_frame(top)
    notes = [note for note in answer.notes if note.onset_s < end_s and note.onset_s + note.duration_s > start_s]
    onsets, lengths = (np.array([getattr(note, name) for note in notes]) for name in ("onset_s", "duration_s"))
    style.draw_notes(bottom, onsets, lengths, [n.pitch for n in notes], np.array([n.velocity for n in notes]), PURPLE)
    for axes in (top, bottom):
        axes.set_xlim(start_s, end_s)
    style.time_ticks(bottom, start_s, end_s)
    return figure


def write_duo(evaluation: DuoEvaluation, path: PathLike) -> None:
    """Write the report of duos; raise `InputError` if the file cannot be written."""
    report.write_page(Path(path), duo_html(evaluation))


def duo_html(evaluation: DuoEvaluation) -> str:
    """Return the report of duos as an HTML page."""
    songs = evaluation.songs
    sources = sorted({"unknown" if song.beats is None else song.beats.source for song in songs})
    first = songs[0]
    ways = [c.name for c in evaluation.contestants]
    by_song = [(song.name, *(text_of("r_grid", song.played[way].time.r_grid) for way in ways)) for song in songs]
    notes = ", ".join(sorted({song.notes_from for song in songs}))
    time, harmony, choices = time_rows(evaluation), harmony_rows(evaluation), choice_rows(evaluation)
    chance = "" if evaluation.chance_r is None else f" As many onsets at any time have R {evaluation.chance_r:.2f}."
    body = [
        f"<h1>Together in time: {len(songs)} duo{'s' * (len(songs) != 1)}</h1>",
        "<p>A partner learned the first part of each band and answered the player on the rest, without hearing the band."
        f" Beats: {report.escaped(', '.join(sources))}.{chance}</p>",
        report.numbers_table(time[0], time[1:]),
        "<p>R is the concentration of onsets on a grid, 1 where all lie on it; within 40 ms is the share of onsets that have"
        " one of the band so near, and the same of the answer moved in time is chance; asynchrony is the median distance from"
        " the nearest line of the grid, late is positive.</p>",
        f"<h2>In harmony</h2><p>Notes: {report.escaped(notes)}. Shares of the answer's sounding time: where its pitch class"
        " sounds in the band or the player, or in the band alone; the same of the answer moved in time; in a chart's chord."
        " Shares of the player's time: with a consonant note of the answer, and without any.</p>",
        report.numbers_table(harmony[0], harmony[1:]),
        "<p>What the choices were made of.</p>",
        report.numbers_table(choices[0], choices[1:]),
        "<h2>One excerpt</h2>",
        report.image(draw_duo(first), "Beats, player, band and answer of an excerpt"),
        "<h2>Song by song: R on the band's grid</h2>",
        report.numbers_table(("", *ways), by_song),
    ]
    return report.page("Together in time", body)
