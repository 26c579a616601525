"""The picture of a performance: the player, what was heard, where in memory the partner was and why, and its answer.

One axis of time runs through all panels. The partner's place in its memory is a line that climbs as the recording went on;
where it starts anew, the partner jumped. A line and the notes that came of it have the colour of the influence that carried
the choice. Silence is shown with its reason, in every panel of the partner: it was meant.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from musichal.arrays import Float32, Float64
from musichal.hearing.percepts import SILENCE, SOURCES
from musichal.live.drift import Cause, DriftReport
from musichal.live.performance import HeardStream, Performance
from musichal.note import Note
from musichal.partner.decision import REST_REASONS, Decision
from musichal.partner.explanation import RestSpan, rest_spans
from musichal.plots.canvas import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PALE,
    PURPLE,
    SOURCE_COLOURS,
    VERMILION,
    new_figure,
    picture_style,
    shortened,
    time_step_s,
    time_ticks,
)
from musichal.plots.panels import (
    COLUMNS,
    by_first_appearance,
    draw_envelope,
    draw_notes,
    draw_raster,
    envelope,
    held_tokens,
    hide_frame,
    token_raster,
)
from musichal.text import clock, counted

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEIGHT_INCHES = 13.5
_FRAME_S = 0.035
# A jump is drawn as one where no rest lay between: that began a new phrase.
_JOINED_S = 0.001
INFLUENCE_LOOKS = {
    "harmonic": (BLUE, "your harmonic sounds led there before"),
    "percussive": (VERMILION, "your percussive sounds led there before"),
    "chroma": (GREEN, "its harmony fits what sounds"),
    "rhythm": (ORANGE, "your rhythm led there before"),
    "loudness": ("#56B4E9", "your rise and fall led there before"),
    "own": ("#B79BD1", "its own last choices led there before"),
    "continuity": (PURPLE, "it goes on from what it played"),
}
"""Colour and words of the influence that carried a choice most."""
_REST_LOOKS = {
    "waiting": ("#EFEFEF", ""),
    "silence": ("#E3EAF2", "//"),
    "no match": ("#F6EBD8", "\\\\"),
    "weak match": ("#F6EBD8", ".."),
    "repeats": ("#EDE3EC", "xx"),
    "regions": ("#EDE3EC", "++"),
    # Silence on purpose looks calm, and never like a fault.
    "listening": ("#E6F0E6", ""),
    "your turn": ("#E6F0E6", "//"),
    "yields": ("#E6F0E6", "\\\\"),
    "breath": ("#E6F0E6", ".."),
    "next note": ("#E6F0E6", "||"),
    "on purpose": ("#E6F0E6", "xx"),
    "score": ("#E6F0E6", "--"),
    "ending": ("#E6F0E6", "++"),
    "ended": ("#E6F0E6", "oo"),
}
_LEGEND_COLUMNS, _USUAL_LEGEND_ROWS, _LEGEND_ROW_INCHES = 3, 3, 0.23
_OTHER_LOOK = (INK, "another influence")
ALARM_COLOURS: dict[Cause, str] = {
    "too quiet": "#3B6FB6",
    "clipped": "#C0392B",
    "other instrument": "#7D3C98",
    "noise only": "#6E6E6E",
    "wrong channel": "#1B1B1B",
}
# A cause is written into its bar where the bar is so wide, in shares of the picture, for each letter of it.
_LETTER = 0.0065


@dataclass(frozen=True)
class AlarmSpan:
    """What was heard was unlike the training from `start_s` to `end_s`; `cause` as the alarm named it."""

    start_s: float
    end_s: float
    cause: Cause


def alarm_spans(reports: Sequence[DriftReport], *, end_s: float) -> list[AlarmSpan]:
    """Return when alarms stood: each until it was cleared, one that never was until `end_s`."""
    spans: list[AlarmSpan] = []
    standing: DriftReport | None = None
    for report in reports:
        if standing is not None:
            spans.append(AlarmSpan(standing.time_s, report.time_s, standing.cause))
        standing = report if report.event == "raised" else None
    if standing is not None:
        spans.append(AlarmSpan(standing.time_s, max(standing.time_s, end_s), standing.cause))
    return [span for span in spans if span.end_s > span.start_s]


def strongest_influence(decision: Decision) -> str | None:
    """Return the name of the influence with the largest share of a choice; None where none had any."""
    carried = [i for i in decision.influences if i.share > 0]
    return max(carried, key=lambda i: i.share).name if carried else None


def influence_colour(decision: Decision) -> str:
    """Return the colour of a choice."""
    return INFLUENCE_LOOKS.get(strongest_influence(decision) or "", _OTHER_LOOK)[0]


@picture_style()
def draw_performance(
    performance: Performance,
    player_samples: Float32,
    *,
    sample_rate_hz: int,
    recording_names: Sequence[str],
    notes: Sequence[Note],
) -> "Figure":
    """Return the picture of a performance, 1600 pixels wide at 100 dots per inch.

    Parameters
    ----------
    performance : Performance
    player_samples : array of shape (n,) or (n, channels)
    sample_rate_hz : int
        Rate of `player_samples`.
    recording_names : sequence of str
        Names of the memory's recordings, by number.
    notes : sequence of Note
        What was played.
    """
    decisions = performance.decisions
    end_s = max([performance.duration_s, *(n.onset_s + n.duration_s for n in notes)])
    played = [d for d in decisions if d.kind == "play"]
    rests = rest_spans(decisions, end_s=end_s)
    rested = sum(s.end_s - s.start_s for s in rests)
    jumps = sum(d.jumped for d in played)
    alarms = alarm_spans(performance.drift, end_s=end_s)
    handles = _legend(played, rests)
    more_inches = _LEGEND_ROW_INCHES * max(0, -(-len(handles) // _LEGEND_COLUMNS) - _USUAL_LEGEND_ROWS)
    height_inches = _HEIGHT_INCHES + more_inches
    figure = new_figure(
        height_inches=height_inches,
        title="A performance: the player, and how MusicHal answered",
        subtitle=f"{clock(performance.duration_s, decimals=0)} long · {counted(len(notes), 'note')} in answer,"
        f" from {counted(len(played), 'gesture')} of memory"
        f" · {counted(jumps, 'jump')} · rested {rested:.1f} s" + (f" · {counted(len(alarms), 'alarm')}" if alarms else ""),
    )
    heights = [1.1, *([0.3] if alarms else []), 1.6, 1.6, 3.2, 3.2]
    grid = figure.add_gridspec(
        len(heights), 1, height_ratios=heights, left=0.065, right=0.915, top=1 - 1.1 / height_inches,
        bottom=(1.25 + more_inches) / height_inches, hspace=0.24,
    )  # fmt: skip
    sound = figure.add_subplot(grid[0])
    rows = range(len(heights) - 4, len(heights))
    panels = [sound, *(figure.add_subplot(grid[row], sharex=sound) for row in rows)]
    if alarms:
        _draw_alarms(figure.add_subplot(grid[1], sharex=sound), panels, alarms, end_s)
    _draw_player(sound, player_samples, sample_rate_hz)
    for source, axes in enumerate(panels[1:3]):
        _draw_heard(axes, performance.heard, source, end_s)
    _draw_places(panels[3], played, recording_names)
    _draw_answer(panels[4], notes, played)
    for axes in panels[3:]:
        _draw_rests(axes, rests)
    _draw_noteless(panels[4], played)
    time_ticks(sound, end_s)
    sound.set_xlim(0, end_s)
    for axes in figure.axes:
        if axes is not panels[-1]:
            axes.tick_params(axis="x", labelbottom=False)
    for axes in panels:
        axes.xaxis.grid(True, color=PALE, linewidth=0.6)
        axes.set_axisbelow(True)
    panels[-1].set_xlabel("time, minutes:seconds")
    if handles:
        figure.legend(
            handles=handles, loc="lower left", bbox_to_anchor=(0.058, 0.004), ncols=_LEGEND_COLUMNS, frameon=False, fontsize=9.5
        )
    return figure


def _draw_player(axes: "Axes", samples: Float32, sample_rate_hz: int) -> None:
    mono = samples.mean(axis=1, dtype=np.float32) if samples.ndim == 2 else samples
    shape = envelope(mono, sample_rate_hz=sample_rate_hz)
    draw_envelope(axes, shape)
    peak = float(max([1e-6, *(-shape.low), *shape.high]))
    axes.set_ylim(-peak * 1.02, peak * 1.02)
    axes.set_yticks([])
    axes.set_ylabel("sound")
    axes.set_title("The player")
    hide_frame(axes, keep=["bottom"])


def _draw_alarms(axes: "Axes", panels: "Sequence[Axes]", alarms: Sequence[AlarmSpan], end_s: float) -> None:
    """Draw a bar for as long as each alarm stood, and a line through all panels where it was raised."""
    from matplotlib.patches import Patch

    for span in alarms:
        colour, length = ALARM_COLOURS[span.cause], span.end_s - span.start_s
        axes.broken_barh([(span.start_s, length)], (0, 1), color=colour, label=span.cause)
        if length / end_s > _LETTER * (len(span.cause) + 2):
            axes.text(
                span.start_s + 0.3 * _LETTER * end_s, 0.46, span.cause, color="white", size=9, weight="bold", va="center",
                clip_on=True,
            )  # fmt: skip
        for panel in panels:
            panel.axvline(span.start_s, color=colour, linewidth=0.9, linestyle=(0, (4, 2)), zorder=4)
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.set_title("Alarms: what was heard was unlike the training")
    causes = {span.cause for span in alarms}
    handles = [Patch(color=colour, label=cause) for cause, colour in ALARM_COLOURS.items() if cause in causes]
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 0.9), ncols=len(handles), frameon=False, fontsize=9.5)
    hide_frame(axes, keep=["bottom"])


def _draw_heard(axes: "Axes", heard: HeardStream, source: int, end_s: float) -> None:
    tokens = heard.tokens[source]
    size = max(int(tokens.max(initial=0)) + 1, 1)
    used = int(np.unique(tokens[tokens != SILENCE]).size)
    moments_per_column = max(8, -(-2 * len(tokens) // COLUMNS))
    moments = (np.arange(COLUMNS * moments_per_column) + 0.5) * end_s / (COLUMNS * moments_per_column)
    # Frames are named by their centre and touch each other.
    centres = heard.frame_samples / heard.sample_rate_hz
    half_s = float(np.median(np.diff(centres))) / 2 if len(centres) > 1 else 0.0
    held = held_tokens(tokens, centres - half_s, moments, longest_s=_FRAME_S)
    rows = by_first_appearance(tokens, size=size)
    raster, silence = token_raster(held, rows, columns=COLUMNS)
    draw_raster(axes, raster[: max(used, 1)], silence, extent_s=(0.0, end_s), colour=SOURCE_COLOURS[SOURCES[source]])
    axes.set_title(f"What MusicHal heard: {used} {SOURCES[source]} sounds, in the order of their first appearance")
    axes.set_ylabel(f"nth {SOURCES[source]} sound")


def _draw_places(axes: "Axes", played: Sequence[Decision], recording_names: Sequence[str]) -> None:
    """Draw where in memory the partner was: a line per gesture, joined by a thin one where it jumped."""
    from matplotlib.collections import LineCollection

    axes.set_title("Where in its memory the partner was; lines that start anew are jumps")
    axes.set_ylabel("place in memory")
    bottoms, heights = _bands(played)
    total = sum(heights.values())
    if not played:
        axes.set_yticks([])
        axes.set_ylim(0, 1)
        return
    lines: list[list[tuple[float, float]]] = []
    joints: list[list[tuple[float, float]]] = []
    for number, decision in enumerate(played):
        y = bottoms[decision.recording or 0] + (decision.source_start_s or 0.0)
        if decision.jumped and number and decision.time_s - lines[-1][1][0] < _JOINED_S:
            joints.append([lines[-1][1], (decision.time_s, y)])
        lines.append([(decision.time_s, y), (decision.time_s + decision.duration_s, y + decision.duration_s)])
    axes.add_collection(LineCollection(joints, colors=GREY, linewidths=0.6, linestyles=(0, (2, 2)), label="jumps", zorder=2))
    colours = [influence_colour(d) for d in played]
    axes.add_collection(LineCollection(lines, colors=colours, linewidths=4, label="places", zorder=3, capstyle="butt"))
    axes.set_ylim(-0.02 * total, 1.02 * total)
    step = time_step_s(total, labels=9)
    ticks: list[tuple[float, str]] = []
    for recording, bottom in bottoms.items():
        for k in range(int(heights[recording] / step) + 1):
            place = bottom + k * step
            if not ticks or place - ticks[-1][0] > 0.06 * total:
                ticks.append((place, clock(k * step, decimals=int(step < 1))))
        if recording != min(bottoms):
            axes.axhline(bottom, color=GREY, linewidth=0.8)
        if heights[recording] > 0.05 * total:
            axes.annotate(
                shortened(_name(recording, recording_names), characters=14), (1, bottom + heights[recording] / 2),
                xycoords=("axes fraction", "data"), xytext=(5, 0), textcoords="offset points",
                va="center", size=9, color="#444444", parse_math=False, annotation_clip=False,
            )  # fmt: skip
    axes.set_yticks([place for place, _ in ticks], [text for _, text in ticks])


def _name(recording: int, names: Sequence[str]) -> str:
    return names[recording] if recording < len(names) else "you, now"


def _bands(played: Sequence[Decision]) -> tuple[dict[int, float], dict[int, float]]:
    """Return bottom and height of the band of each recording that was played from, one above the other, in seconds."""
    ends: dict[int, float] = {}
    for decision in played:
        number = decision.recording or 0
        ends[number] = max(ends.get(number, 0.0), (decision.source_start_s or 0.0) + decision.duration_s)
    heights = {number: ends[number] * 1.02 for number in sorted(ends)}
    bottoms, bottom = {}, 0.0
    for number, height in heights.items():
        bottoms[number] = bottom
        bottom += height
    return bottoms, heights


def note_colours(notes: Sequence[Note], played: Sequence[Decision]) -> list[str]:
    """Return the colour of each note: that of the choice that was being played when it began."""
    if not played:
        return [INK] * len(notes)
    times = np.array([d.time_s for d in played])
    onsets = np.array([n.onset_s for n in notes])
    # MIDI times are rounded, so a note may begin a moment before its decision.
    at = np.maximum(np.searchsorted(times, onsets + 1e-3, side="right") - 1, 0)
    colours = [influence_colour(d) for d in played]
    return [colours[i] for i in at.tolist()]


def _draw_answer(axes: "Axes", notes: Sequence[Note], played: Sequence[Decision]) -> None:
    starts: Float64 = np.array([n.onset_s for n in notes], dtype=np.float64)
    durations: Float64 = np.array([n.duration_s for n in notes], dtype=np.float64)
    velocities = np.array([n.velocity for n in notes], dtype=np.int64)
    draw_notes(axes, starts, durations, [n.pitch for n in notes], velocities, note_colours(notes, played))
    axes.set_title(
        "Its answer, coloured like the choice that brought each note, darker where louder" if notes else "It played no note"
    )
    axes.set_ylabel("pitch")


def _draw_rests(axes: "Axes", rests: Sequence[RestSpan]) -> None:
    """Shade rests by their reason."""
    for span in rests:
        face, hatch = _REST_LOOKS[span.reason]
        axes.axvspan(
            span.start_s,
            span.end_s,
            facecolor=face,
            hatch=hatch,
            edgecolor="#B5B5B5",
            linewidth=0,
            zorder=0.5,
            label=span.reason,
        )


def _draw_noteless(axes: "Axes", played: Sequence[Decision]) -> None:
    """Mark along the bottom where the memory itself had no note to give."""
    from matplotlib.transforms import blended_transform_factory

    along = blended_transform_factory(axes.transData, axes.transAxes)
    for decision in played:
        if not decision.notes:
            left, right = decision.time_s, decision.time_s + decision.duration_s
            axes.plot([left, right], [0.008, 0.008], transform=along, color=GREY, linewidth=3, solid_capstyle="butt", zorder=1)


def _legend(played: Sequence[Decision], rests: Sequence[RestSpan]) -> "list[Artist]":
    """Return an entry for everything that is really in the picture."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    seen = {strongest_influence(d) for d in played}
    handles: list[Artist] = [
        Line2D([], [], color=colour, linewidth=4, label=f"chosen mostly because {words}")
        for name, (colour, words) in INFLUENCE_LOOKS.items()
        if name in seen
    ]
    if seen - set(INFLUENCE_LOOKS):
        handles.append(Line2D([], [], color=_OTHER_LOOK[0], linewidth=4, label="chosen for another reason"))
    reasons = {span.reason for span in rests}
    for reason, (face, hatch) in _REST_LOOKS.items():
        if reason in reasons:
            words = f"rested: {REST_REASONS[reason]}"
            handles.append(Patch(facecolor=face, hatch=hatch, edgecolor="#B5B5B5", linewidth=0, label=words))
    if any(not d.notes for d in played):
        handles.append(Line2D([], [], color=GREY, linewidth=3, label="the memory itself has no note here"))
    return handles
