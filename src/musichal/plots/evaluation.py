"""The report of `musichal evaluate`: one HTML file with its pictures."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from musichal.atomic import open_atomically
from musichal.evaluate.evaluation import Contestant, Evaluation
from musichal.evaluate.listening import DIMENSIONS
from musichal.evaluate.traces import STEP_S, Trace
from musichal.plots.canvas import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PALE,
    PURPLE,
    VERMILION,
    new_figure,
    picture_style,
    time_ticks,
)
from musichal.plots.page import escaped, image, page, table
from musichal.plots.panels import hide_frame
from musichal.text import PathLike

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = (INK, BLUE, GREEN, ORANGE, PURPLE)
_MEMORY = (
    ("continued", "goes on as recorded"),
    ("mean_run", "states in a row"),
    ("visited", "of memory visited"),
    ("longest_quote_s", "longest quote, s"),
    ("repeated", "repeated"),
    ("learned", "the player's own"),
)
_PHRASING = (
    ("gap_s", "gap after the player, s"),
    ("overlap", "over the player"),
    ("silence", "silent"),
    ("phrases", "phrases"),
    ("phrase_s", "phrase, s"),
)


def write_evaluation(evaluation: Evaluation, path: PathLike) -> None:
    """Write the report as one HTML file, whole or not at all; the same evaluation gives the same bytes.

    Raises
    ------
    InputError
        If the path cannot be written.
    """
    with open_atomically(path) as stream:
        stream.write(evaluation_html(evaluation).encode("utf-8"))


def evaluation_html(evaluation: Evaluation) -> str:
    """Return the report as the text of an HTML page."""
    contestants = evaluation.contestants
    names = ", ".join(dict.fromkeys(escaped(e.name) for e in evaluation.excerpts))
    first = contestants[0]
    body = [
        f"<h1>Does {escaped(evaluation.partner)} listen?</h1>",
        f"<p>{len(evaluation.excerpts)} excerpts of {evaluation.excerpt_s:g} s from {names}.</p>",
        "<h2>Listening</h2>",
        "<p>How surely an answer points to what it answered: the probability that its true input fits it better than another"
        " one. 0.5 is deaf, 1 is always. Bars are 95 % intervals.</p>",
        image(draw_listening(contestants), "Area under the ROC curve of each contestant"),
        _listening_table(contestants),
        "<h2>One answer</h2>",
        "<p>Density and loudness of the player and of the answer over time, in the first excerpt.</p>",
        image(
            draw_traces(evaluation.players[0], first.traces[0], duration_s=evaluation.excerpt_s, name=first.name),
            "A player and an answer over time",
        ),
        "<h2>Memory</h2>",
        f"<p>In {evaluation.long_run_s / 60:g} minutes: the excerpts in turn, over and over.</p>",
        _table(_MEMORY, evaluation.long_runs),
        "<h2>Harmony</h2>",
        "<p>Notes in harmony with what sounds, and the same notes moved in time.</p>",
        _harmony_table(contestants),
        "<h2>Phrases</h2>",
        _table(_PHRASING, {c.name: c.phrasing for c in contestants}),
        f"<p>The players themselves are silent for {first.phrasing.player_silence:.0%} of the time, with phrases of"
        f" {first.phrasing.player_phrase_s:.1f} s; the recordings in memory for {first.phrasing.memory_silence:.0%}, with"
        f" phrases of {first.phrasing.memory_phrase_s:.1f} s.</p>",
    ]
    if evaluation.effects:
        body += [
            "<h2>What each parameter does</h2>",
            "<p>Both ends of its range on the same excerpts: the outcome that moves most, in standard deviations, how often"
            " chance alone moves any as consistently, and how many of the notes are others.</p>",
            _effects_table(evaluation),
        ]
    return page(f"Evaluation of {escaped(evaluation.partner)}", body)


@picture_style()
def draw_listening(contestants: Sequence[Contestant]) -> "Figure":
    """Draw the areas with their intervals, a group of bars per contestant."""
    height = 4.2
    figure = new_figure(height_inches=height, title="Listening", subtitle="is an answer's true input told from others?")
    axes = figure.add_axes((0.065, 0.14, 0.92, 0.62))
    labels = ("together", *DIMENSIONS)
    x = np.arange(len(contestants))
    width = 0.8 / len(labels)
    for k, (label, colour) in enumerate(zip(labels, _COLOURS, strict=True)):
        areas = [c.listening.together if k == 0 else c.listening.by_dimension[label] for c in contestants]
        values = np.array([a.value for a in areas])
        errors = np.array([[a.value - a.low for a in areas], [a.high - a.value for a in areas]])
        at = x + (k - (len(labels) - 1) / 2) * width
        axes.bar(at, values, width=0.92 * width, color=colour, label=label, alpha=0.9)
        axes.errorbar(at, values, yerr=np.maximum(errors, 0), fmt="none", ecolor=GREY, elinewidth=1, capsize=2)
    axes.axhline(0.5, color=VERMILION, linewidth=0.8)
    axes.text(len(contestants) - 0.45, 0.505, "deaf", color=VERMILION, size=9, ha="right")
    for level in (0.25, 0.75, 1.0):
        axes.axhline(level, color=PALE, linewidth=0.6, zorder=0)
    axes.set_ylim(0, 1.05)
    axes.set_xticks(x, [c.name for c in contestants])
    figure.legend(loc="upper right", ncols=len(labels), frameon=False, bbox_to_anchor=(0.98, 0.98))
    return figure


@picture_style()
def draw_traces(player: Trace, answer: Trace, *, duration_s: float, name: str) -> "Figure":
    """Draw density and loudness of a player and of an answer over time."""
    height = 4.4
    figure = new_figure(
        height_inches=height, title=f"A player, and the answer of '{name}'", subtitle="blue: player; purple: answer"
    )
    t = np.arange(len(player.density_hz)) * STEP_S
    panels = (("onsets per second", "density_hz"), ("dBFS", "loudness_db"))
    for row, (label, field) in enumerate(panels):
        axes = figure.add_axes((0.065, 0.52 - 0.42 * row, 0.92, 0.30))
        for trace, colour in ((player, BLUE), (answer, PURPLE)):
            axes.step(t, getattr(trace, field)[: len(t)], where="post", color=colour, linewidth=1.2)
        axes.set_ylabel(label)
        axes.set_xlim(0, duration_s)
        hide_frame(axes, keep=("left", "bottom"))
        time_ticks(axes, duration_s)
    return figure


def _row(cells: Sequence[str]) -> str:
    first, *rest = cells
    return f"<tr><td>{first}</td>" + "".join(f'<td class="number">{cell}</td>' for cell in rest) + "</tr>"


def _head(columns: Sequence[str]) -> str:
    return "<th></th>" + "".join(f'<th class="number">{escaped(column)}</th>' for column in columns)


def _listening_table(contestants: Sequence[Contestant]) -> str:
    rows = []
    for c in contestants:
        areas = [c.listening.together, *(c.listening.by_dimension[d] for d in DIMENSIONS)]
        rows.append(_row([escaped(c.name), *(f"{a.value:.2f} ({a.low:.2f}–{a.high:.2f})" for a in areas)]))
    return table(_head(("together", *DIMENSIONS)), rows)


def _table(columns: Sequence[tuple[str, str]], rows: Mapping[str, object]) -> str:
    def cell(value: float | None) -> str:
        return "–" if value is None else f"{value:.3g}"

    lines = [_row([escaped(name), *(cell(getattr(values, field)) for field, _ in columns)]) for name, values in rows.items()]
    return table(_head([words for _, words in columns]), lines)


def _harmony_table(contestants: Sequence[Contestant]) -> str:
    rows = [
        _row(
            [
                escaped(c.name),
                str(c.harmony.notes),
                f"{c.harmony.consonant:.1%}",
                f"{c.harmony.consonant_when_shifted:.1%}",
                f"{c.harmony.consonant / c.harmony.consonant_when_shifted:.2f}" if c.harmony.consonant_when_shifted else "–",
            ]
        )
        for c in contestants
    ]
    return table(_head(("notes", "in harmony", "moved in time", "ratio")), rows)


def _effects_table(evaluation: Evaluation) -> str:
    rows = [
        _row(
            [
                escaped(e.parameter),
                " to ".join(e.ends),
                escaped(e.outcome),
                f"{e.size:+.2f}",
                f"{e.p_value:.3f}",
                f"{e.others:.0%}",
            ]
        )
        for e in sorted(evaluation.effects, key=lambda e: -abs(e.size))
    ]
    return table(_head(("ends", "what moves most", "by", "p", "other notes")), rows)
