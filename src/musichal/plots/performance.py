"""Figure of a performance: the player, the tokens heard, the partner's place in memory, and its answer.

All panels share one time axis. The place in memory is a line that climbs as the recording goes on; where it starts anew, it
jumped. A line and its notes have the colour of the influence with the largest share of the choice. Rests are shaded by reason.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from musichal.arrays import Float32, Float64
from musichal.hearing.percepts import SILENCE, SOURCES
from musichal.live.drift import Cause, DriftReport
from musichal.live.engine import HeardStream, Performance
from musichal.note import Note
from musichal.partner.decision import REST_REASONS, Decision
from musichal.partner.explanation import RestSpan, rest_spans
from musichal.plots import style
from musichal.plots.style import BEAT_COLOUR, BLUE, GREEN, GREY, INK, ORANGE, PURPLE, VERMILION, draw_beats
from musichal.text import clock, counted

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FRAME_S = 0.035
_JOINED_S = 0.001  # a jump after a rest is not drawn: it begins a new phrase
INFLUENCE_LOOKS = {
    "harmonic": (BLUE, "your harmonic tokens led there before"),
    "percussive": (VERMILION, "your percussive tokens led there before"),
    "likeness": ("#882255", "your last seconds were like what led there"),
    "pairs": ("#8C6D46", "you sounded like this when they played so"),
    "chroma": (GREEN, "its harmony fits what sounds"),
    "rhythm": (ORANGE, "your rhythm led there before"),
    "loudness": ("#56B4E9", "your rise and fall led there before"),
    "own": ("#B79BD1", "its own last choices led there before"),
    "continuity": (PURPLE, "it goes on from what it played"),
}
"""Colour of the influence with the largest share of a choice, and its words in the legend."""
_OTHER_LOOK = (INK, "of another reason")
_CALM = "#E6F0E6"  # intended silence must not look like a fault
_REST_LOOKS = {
    "waiting": ("#EFEFEF", ""),
    "silence": ("#E3EAF2", "//"),
    "no match": ("#F6EBD8", "\\\\"),
    "no support": ("#F6EBD8", "--"),
    "weak match": ("#F6EBD8", ".."),
    "no key": ("#F6EBD8", "xx"),
    "repeats": ("#EDE3EC", "xx"),
    "regions": ("#EDE3EC", "++"),
    "listening": (_CALM, ""),
    "your turn": (_CALM, "//"),
    "yields": (_CALM, "\\\\"),
    "breath": (_CALM, ".."),
    "beat": (_CALM, "|"),
    "pulse": (_CALM, "-"),
    "next note": (_CALM, "||"),
    "on purpose": (_CALM, "xx"),
    "score": (_CALM, "--"),
    "ending": (_CALM, "++"),
    "ended": (_CALM, "oo"),
    "paused": (_CALM, "OO"),
}
ALARM_COLOURS: dict[Cause, str] = {
    "too quiet": "#3B6FB6",
    "clipped": "#C0392B",
    "other instrument": "#7D3C98",
    "noise only": "#6E6E6E",
    "wrong channel": "#1B1B1B",
}


@dataclass(frozen=True)
class AlarmSpan:
    """From `start_s` to `end_s`, the input differed from training; `cause` as the alarm named it."""

    start_s: float
    end_s: float
    cause: Cause


def alarm_spans(reports: Sequence[DriftReport], *, end_s: float) -> list[AlarmSpan]:
    """Return when alarms were active: until cleared or replaced, else until `end_s`."""
    ends = [*(report.time_s for report in reports[1:]), end_s]
    raised = [(r, max(end, r.time_s)) for r, end in zip(reports, ends, strict=False) if r.event == "raised"]
    return [AlarmSpan(r.time_s, end, r.cause) for r, end in raised if end > r.time_s]


def strongest_influence(decision: Decision) -> str | None:
    """Return the name of the influence with the largest share of a choice; None without one."""
    found = max(decision.influences, key=lambda i: i.share, default=None)
    return found.name if found is not None and found.share > 0 else None


def _colour(decision: Decision) -> str:
    return INFLUENCE_LOOKS.get(strongest_influence(decision) or "", _OTHER_LOOK)[0]


@style.plot_style()
def draw_performance(
    performance: Performance,
    player_samples: Float32,
    *,
    sample_rate_hz: int,
    recording_names: Sequence[str],
    notes: Sequence[Note],
) -> "Figure":
    """Return the figure of a performance, 1600 pixels wide at 100 dots per inch.

    `player_samples` has shape (n,) or (n, channels); `recording_names` are those of the memory, `notes` what was played.
    """
    decisions = performance.decisions
    end_s = max([performance.duration_s, *(n.onset_s + n.duration_s for n in notes)])
    played = [d for d in decisions if d.kind == "play"]
    rests = rest_spans(decisions, end_s=end_s)
    alarms = alarm_spans(performance.drift, end_s=end_s)
    figure = style.new_figure(
        height_inches=13.5,
        title="A performance: the player, and MusicHal's answer",
        subtitle=f"{clock(performance.duration_s, decimals=0)} long · {counted(len(notes), 'note')} in answer,"
        f" from {counted(len(played), 'gesture')} of memory · {counted(sum(d.jumped for d in played), 'jump')}"
        f" · rested {sum(s.end_s - s.start_s for s in rests):.1f} s"
        + (f" · {counted(len(alarms), 'alarm')}" if alarms else ""),
    )
    heights = [1.1, 1.6, 1.6, 3.2, 3.2, *([0.25] if alarms else [])]
    panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0].tolist()
    _draw_player(panels[0], player_samples, sample_rate_hz)
    for source, axes in enumerate(panels[1:3]):
        _draw_heard(axes, performance.heard, source, end_s)
    _draw_places(panels[3], played, recording_names)
    beats_s = room_beats(decisions, end_s=end_s)
    for axes in (panels[0], *panels[3:5]):
        draw_beats(axes, beats_s, np.zeros(len(beats_s), dtype=bool), shown_s=end_s)
    _draw_answer(panels[4], notes, played)
    for axes in panels[3:5]:
        for span in rests:
            face, hatch = _REST_LOOKS[span.reason]
            look = {"facecolor": face, "hatch": hatch, "edgecolor": "#B5B5B5", "linewidth": 0, "zorder": 0.5}
            axes.axvspan(span.start_s, span.end_s, label=span.reason, **look)
    if alarms:
        _draw_alarms(panels, alarms)
    style.time_ticks(panels[-1], 0.0, end_s)
    panels[-1].set_xlabel("time, minutes:seconds")
    for axes in panels:
        axes.xaxis.grid(True)
    figure.legend(handles=_legend(played, rests, alarms, has_beats=len(beats_s) > 0), loc="outside lower left", ncols=3)
    return figure


def room_beats(decisions: Sequence[Decision], *, end_s: float) -> Float64:
    """Return the beats that the partner went by, shape (n,): each choice's pulse from its start to the next decision."""
    beats: list[float] = []
    timed = sorted((d.begin_s, n) for n, d in enumerate(decisions))
    for (start_s, number), (until_s, _) in itertools.pairwise([*timed, (end_s, len(decisions))]):
        decision = decisions[number]
        if decision.pulse is None or not decision.tempo_bpm:
            continue
        period_s = 60 / decision.tempo_bpm
        first = start_s + (1 - decision.pulse.got) % 1 * period_s
        found = first + period_s * np.arange(max(0, int(np.ceil((until_s - first) / period_s))))
        # The next choice may place the same beat a little later.
        beats += [b for b in found.tolist() if not beats or b - beats[-1] > 0.5 * period_s]
    return np.array(beats)


def _draw_player(axes: "Axes", samples: Float32, sample_rate_hz: int) -> None:
    mono = samples.mean(axis=1, dtype=np.float32) if samples.ndim == 2 else samples
    style.envelope(mono, sample_rate_hz=sample_rate_hz).draw(axes)
    axes.set_ylabel("sound")
    axes.set_title("The player")


def _draw_alarms(panels: "Sequence[Axes]", alarms: Sequence[AlarmSpan]) -> None:
    """Draw a bar for as long as each alarm was active, and a line through all panels where it was raised."""
    for span in alarms:
        colour = ALARM_COLOURS[span.cause]
        panels[-1].broken_barh([(span.start_s, span.end_s - span.start_s)], (0, 1), color=colour, label=span.cause)
        for panel in panels:
            panel.axvline(span.start_s, color=colour, linewidth=0.9, linestyle="--", zorder=4)
    panels[-1].set_ylim(0, 1)
    panels[-1].set_yticks([])
    panels[-1].set_title("Alarms: the input differed from training")
    style.hide_frame(panels[-1])


def _draw_heard(axes: "Axes", heard: HeardStream, source: int, end_s: float) -> None:
    tokens = heard.tokens[source]
    used = np.unique(tokens[tokens != SILENCE]).size
    centres = heard.frame_samples / heard.sample_rate_hz
    half_s = float(np.median(np.diff(centres))) / 2 if len(centres) > 1 else 0.0
    held = style.held_tokens(tokens, centres - half_s, style.column_moments(len(tokens), end_s), longest_s=_FRAME_S)
    raster, silence = style.token_raster(held, style.by_first_appearance(tokens, size=max(int(tokens.max(initial=0)) + 1, 1)))
    style.draw_raster(axes, raster[: max(used, 1)], silence, end_s=end_s, source=SOURCES[source])
    axes.set_title(f"What MusicHal heard: {used} {SOURCES[source]} tokens, in order of first appearance")


def _draw_places(axes: "Axes", played: Sequence[Decision], recording_names: Sequence[str]) -> None:
    """Draw the place in memory: a line for each gesture, joined by a thin one where the partner jumped."""
    from matplotlib.collections import LineCollection

    axes.set_title("Its place in memory; a line that starts anew is a jump")
    axes.set_ylabel("place in memory")
    bottoms, heights = _bands(played)
    total = sum(heights.values()) or 1.0
    lines: list[list[tuple[float, float]]] = []
    joints: list[list[tuple[float, float]]] = []
    for decision in played:
        y = bottoms[decision.recording or 0] + (decision.source_start_s or 0.0)
        if decision.jumped and lines and decision.begin_s - lines[-1][1][0] < _JOINED_S:
            joints.append([lines[-1][1], (decision.begin_s, y)])
        lines.append([(decision.begin_s, y), (decision.begin_s + decision.duration_s, y + decision.duration_s)])
    dotted = LineCollection(joints, colors=GREY, linewidths=0.6, linestyles=":", label="jumps", zorder=2)
    colours = [_colour(d) for d in played]
    axes.add_collection(dotted, autolim=False)
    axes.add_collection(LineCollection(lines, colors=colours, linewidths=4, label="places", capstyle="butt"), autolim=False)
    axes.set_ylim(-0.02 * total, 1.02 * total)
    for bottom in [*bottoms.values()][1:]:
        axes.axhline(bottom, color=GREY, linewidth=0.8)
    axes.set_yticks(*style.own_time_ticks([*bottoms.values()], [*heights.values()], labels=9, apart=0.06))
    named = [number for number in bottoms if heights[number] > 0.05 * total]
    names = [recording_names[n] if n < len(recording_names) else "you, now" for n in named]
    right = axes.secondary_yaxis("right")
    right.set_yticks([bottoms[n] + heights[n] / 2 for n in named], [style.shortened(name, characters=14) for name in names])
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)


def _bands(played: Sequence[Decision]) -> tuple[dict[int, float], dict[int, float]]:
    """Return bottom and height of each recording that was played from, one above the other, in seconds."""
    ends: dict[int, float] = {}
    for decision in played:
        number = decision.recording or 0
        ends[number] = max(ends.get(number, 0.0), (decision.source_start_s or 0.0) + decision.duration_s)
    heights = {number: ends[number] * 1.02 for number in sorted(ends)}
    tops = np.cumsum(list(heights.values())).tolist()
    return {number: top - heights[number] for number, top in zip(heights, tops, strict=True)}, heights


def note_colours(notes: Sequence[Note], played: Sequence[Decision]) -> list[str]:
    """Return the colour of each note: that of the choice that was being played at its onset."""
    if not played:
        return [INK] * len(notes)
    # MIDI times are rounded, so a note may begin a moment before its decision.
    onsets = np.array([n.onset_s for n in notes]) + 1e-3
    at = np.searchsorted([d.begin_s for d in played], onsets, side="right") - 1
    return [_colour(played[max(i, 0)]) for i in at.tolist()]


def _draw_answer(axes: "Axes", notes: Sequence[Note], played: Sequence[Decision]) -> None:
    starts = np.array([n.onset_s for n in notes], dtype=np.float64)
    durations = np.array([n.duration_s for n in notes], dtype=np.float64)
    velocities = np.array([n.velocity for n in notes], dtype=np.int64)
    style.draw_notes(axes, starts, durations, [n.pitch for n in notes], velocities, note_colours(notes, played))
    words = "Its answer, coloured by the influence that carried the choice, darker where louder"
    axes.set_title(words if notes else "It played no note")
    for decision in played:
        if not decision.notes:
            span = [decision.begin_s, decision.begin_s + decision.duration_s]
            along = axes.get_xaxis_transform()
            axes.plot(span, [0.008, 0.008], transform=along, color=GREY, linewidth=3, solid_capstyle="butt", zorder=1)


def _legend(
    played: Sequence[Decision], rests: Sequence[RestSpan], alarms: Sequence[AlarmSpan], *, has_beats: bool
) -> "list[Artist]":
    """Return an entry for each kind of thing in the figure."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    seen = {strongest_influence(d) or "" for d in played}
    looks = [look for name, look in INFLUENCE_LOOKS.items() if name in seen] + [_OTHER_LOOK] * bool(seen - set(INFLUENCE_LOOKS))
    handles: list[Artist] = [
        Line2D([], [], color=colour, linewidth=4, label=f"chosen mostly because {words}") for colour, words in looks
    ]
    if any(not d.notes for d in played):
        handles.append(Line2D([], [], color=GREY, linewidth=3, label="this place in memory has no note"))
    if has_beats:
        handles.append(Line2D([], [], color=BEAT_COLOUR, linewidth=0.9, label="the beat that it goes by"))
    reasons = {span.reason for span in rests}
    for reason, (face, hatch) in _REST_LOOKS.items():
        if reason in reasons:
            label = f"rested: {REST_REASONS[reason]}"
            handles.append(Patch(facecolor=face, hatch=hatch, edgecolor="#B5B5B5", linewidth=0, label=label))
    causes = {span.cause for span in alarms}
    handles += [Patch(color=colour, label=f"alarm: {cause}") for cause, colour in ALARM_COLOURS.items() if cause in causes]
    return handles
