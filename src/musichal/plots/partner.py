"""Figure of a partner: its recordings, the tokens heard in them, its notes, and what repeats.

All recordings follow one another on one time axis, as in memory. Tokens are ordered by first appearance, so that new material
climbs and returning material falls back. Arcs join repeated stretches of gestures (Wattenberg, "Arc diagrams: visualizing
structure in strings", InfoVis 2002); the longest repeat is shown close up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from musichal.arrays import AnyArray, Float64, Int64
from musichal.hearing.percepts import SILENCE, SOURCES
from musichal.hearing.vocabulary import perplexity
from musichal.memory.memory import Memory
from musichal.memory.partner_file import PartnerModel, StoredRecording
from musichal.memory.token_index import TokenIndex
from musichal.plots import style
from musichal.plots.style import COLUMNS, GREY, INK, ORANGE, SOURCE_COLOURS, draw_beats, draw_tempo, grid_lines, has_tempo
from musichal.text import clock, counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ARCS_PER_SOURCE, _ARC_POINTS = 150, 40
_SHORTEST_CLOSE_UP_S, _LONGEST_CLOSE_UP_S, _LEAD_IN_S = 4.0, 8.0, 0.5
Repeats = tuple[Int64, Int64, Int64]


@dataclass(frozen=True)
class TimeLine:
    """Recordings one after the other, with small gaps: start and duration of each, in seconds."""

    starts_s: Float64
    durations_s: Float64

    @classmethod
    def of(cls, recordings: Sequence[StoredRecording]) -> "TimeLine":
        """Return the time line of recordings; a gap is 0.3 % of the whole, all gaps at most 3 %."""
        durations = np.array([r.duration_s for r in recordings])
        gap = min(0.003, 0.03 / max(len(durations) - 1, 1)) * durations.sum()
        return cls(np.concatenate([[0.0], np.cumsum(durations + gap)[:-1]]), durations)

    @property
    def total_s(self) -> float:
        """End of the last recording."""
        return float(self.starts_s[-1] + self.durations_s[-1])

    def states_s(self, states: AnyArray) -> tuple[Float64, Float64]:
        """Return start and end of states (n,) on the time line."""
        starts = self.starts_s[states["recording"]] + states["start_s"]
        return starts, starts + states["duration_s"]


def repeats(index: TokenIndex, *, most: int) -> Repeats:
    """Return the longest repeats: first state, state where it comes again, and length, each of shape (k,), k <= `most`.

    A repeat is as long as it can be and has at least two different tokens. Of repeats that overlap where they come again, one
    is left out if more than half of it is in a longer one.
    """
    lengths, symbols = index.repeat_lengths().astype(np.int64), index.symbols()
    firsts = index.repeat_positions()
    extends = np.append(lengths[1:] == lengths[:-1] + 1, False)
    ends = np.flatnonzero((lengths >= 2) & ~extends[: len(lengths)])
    # Number of changes of token up to each state: a stretch without a change has one token only.
    changes = np.concatenate([[0], np.cumsum(symbols[1:] != symbols[:-1])]) if len(symbols) else np.zeros(0)
    ends = ends[changes[ends] > changes[ends - lengths[ends] + 1]]
    covered = np.zeros(len(lengths), dtype=bool)
    found = []
    for end in ends[np.argsort(-lengths[ends], kind="stable")].tolist():
        n = int(lengths[end])
        stretch = slice(end - n + 1, end + 1)
        if 2 * int(covered[stretch].sum()) > n:
            continue
        covered[stretch] = True
        found.append((int(firsts[end]) - n + 1, end - n + 1, n))
        if len(found) == most:
            break
    table = np.array(found, dtype=np.int64).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2]


@style.plot_style()
def draw_partner(model: PartnerModel) -> "Figure":
    """Return the figure of a partner, 1600 pixels wide at 100 dots per inch."""
    memory, line = model.memory, TimeLine.of(model.recordings)
    tempo = has_tempo(model.recordings)
    figure = style.new_figure(
        height_inches=17.0 + tempo,
        title="What this partner learned",
        subtitle=f"{counted(len(model.recordings), 'recording')}, {clock(float(line.durations_s.sum()))} long · "
        f"{counted(len(memory), 'gesture')} · {counted(len(memory.notes), 'note')} · encoder: {model.spec.encoder.name}",
    )
    heights = [0.9, *([0.75] if tempo else []), 2.0, 2.0, 1.9, 2.7, 2.4, 1.7]
    grid = figure.add_gridspec(len(heights), 2, height_ratios=heights)
    panels = [figure.add_subplot(grid[0, :])]
    panels += [figure.add_subplot(grid[row, :], sharex=panels[0]) for row in range(1, len(heights) - 2)]
    shapes = [_shape(recording, line, number) for number, recording in enumerate(model.recordings)]
    _draw_waveforms(panels[0], shapes, model.recordings, line)
    if tempo:
        draw_tempo(panels[1], model.recordings, line.starts_s)
    for source, axes in enumerate(panels[-4:-2]):
        _draw_tokens(axes, model, line, source)
    beats_s, is_bar = grid_lines(model.recordings, line.starts_s)
    for axes in (panels[0], panels[-2]):
        draw_beats(axes, beats_s, is_bar, shown_s=line.total_s)
    grid_words = "; lines are beats" * tempo + ", stronger where a bar begins" * bool(is_bar.any())
    _draw_memory_notes(panels[-2], memory, line, words=f"The notes that it can play, darker where louder{grid_words}")
    found = [repeats(index, most=_ARCS_PER_SOURCE) for index in memory.indexes]
    _draw_arcs(panels[-1], found, memory, line)
    ticks = style.own_time_ticks(line.starts_s.tolist(), line.durations_s.tolist(), labels=16, apart=0.035)
    panels[0].set_xticks(*ticks)
    panels[0].set_xlim(0, line.total_s)
    for axes in panels:
        axes.tick_params(axis="x", labelbottom=axes is panels[-1])
        axes.xaxis.grid(True)
        for start in line.starts_s[1:].tolist():
            axes.axvline(start, color=INK, linewidth=0.8, zorder=3)
    _draw_close_ups([figure.add_subplot(grid[-2, column]) for column in range(2)], model, line, shapes, found)
    for source in range(len(SOURCES)):
        _draw_usage(figure.add_subplot(grid[-1, source]), model, source)
    return figure


def _shape(recording: StoredRecording, line: TimeLine, number: int) -> style.Envelope:
    """Return the waveform of a recording, finely; its level where the sound is not stored."""
    start = float(line.starts_s[number])
    if recording.flac is not None:
        return style.envelope(recording.samples(), sample_rate_hz=recording.sample_rate_hz, columns=24 * COLUMNS, start_s=start)
    spread = (10 ** (recording.level_db / 20)).astype(np.float32)
    times = (np.arange(len(spread)) + 0.5) * recording.duration_s / max(len(spread), 1)
    return style.Envelope(start + times, -spread, spread)


def _draw_waveforms(
    axes: "Axes", shapes: Sequence[style.Envelope], recordings: Sequence[StoredRecording], line: TimeLine
) -> None:
    for number, (shape, recording) in enumerate(zip(shapes, recordings, strict=True)):
        share = line.durations_s[number] / line.total_s
        shape.thinned(max(2, round(COLUMNS * share))).draw(axes)
        characters = int(165 * share)
        if characters >= 5:  # narrower ones stay without a name
            axes.annotate(
                style.shortened(recording.name, characters=characters), (line.starts_s[number], 1.02),
                xycoords=("data", "axes fraction"), size=9.5, weight="bold", parse_math=False, annotation_clip=False,
            )  # fmt: skip
    peak = max(shape.peak for shape in shapes)
    axes.set_ylim(-peak, peak)
    axes.set_ylabel("level (sound\nnot stored)" if all(r.flac is None for r in recordings) else "sound")


def _draw_tokens(axes: "Axes", model: PartnerModel, line: TimeLine, source: int) -> None:
    frame_s, rate = model.spec.encoder.frame_samples / model.spec.sample_rate_hz, model.spec.sample_rate_hz
    tokens = np.concatenate([r.tokens[source] for r in model.recordings])
    starts = np.concatenate(
        [start + r.frame_samples / rate - frame_s / 2 for r, start in zip(model.recordings, line.starts_s, strict=True)]
    )
    held = style.held_tokens(tokens, starts, style.column_moments(len(tokens), line.total_s), longest_s=2 * frame_s)
    raster, silence = style.token_raster(held, style.by_first_appearance(tokens, size=model.spec.vocabulary.size))
    style.draw_raster(axes, raster, silence, end_s=line.total_s, source=SOURCES[source])
    axes.set_title(f"Its {SOURCES[source]} tokens in order of first appearance: new ones climb, returning ones fall back")


def _draw_memory_notes(axes: "Axes", memory: Memory, line: TimeLine, *, words: str) -> None:
    states, notes = memory.states, memory.notes
    owners = np.repeat(np.arange(len(states)), states["note_count"])
    starts = line.states_s(states)[0][owners] + notes["offset_s"]
    style.draw_notes(axes, starts, notes["duration_s"].astype(np.float64), notes["pitch"].tolist(), notes["velocity"])
    axes.set_title(words if len(notes) else "It heard no notes")


def arc_outline(first_s: tuple[float, float], again_s: tuple[float, float], *, sign: int) -> Float64:
    """Return the outline (2 · `_ARC_POINTS`, 2) of a band of half circles that joins two stretches of the time axis.

    The band stands on exactly these stretches. Where they overlap, its hole closes.
    """
    angles = np.linspace(np.pi, 0, _ARC_POINTS)
    outer, inner = (first_s[0], again_s[1]), (first_s[1], max(first_s[1], again_s[0]))
    sides = []
    for (left, right), turn in ((outer, angles), (inner, angles[::-1])):
        middle, radius = (left + right) / 2, (right - left) / 2
        sides.append(np.stack([middle + radius * np.cos(turn), sign * radius * np.sin(turn)], axis=1))
    return np.concatenate(sides)


def _draw_arcs(axes: "Axes", found: Sequence[Repeats], memory: Memory, line: TimeLine) -> None:
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgba

    starts, ends = line.states_s(memory.states)
    highest = 0.0
    for source, sign, (first, again, lengths) in zip(SOURCES, (1, -1), found, strict=True):
        outlines = [
            arc_outline((starts[a], ends[a + n - 1]), (starts[b], ends[b + n - 1]), sign=sign)
            for a, b, n in zip(first.tolist(), again.tolist(), lengths.tolist(), strict=True)
        ][::-1]  # the longest on top
        if outlines:
            strengths = (lengths[::-1] / lengths.max()).tolist()
            faces = [to_rgba(SOURCE_COLOURS[source], 0.06 + 0.34 * s) for s in strengths]
            edges = [to_rgba(SOURCE_COLOURS[source], 0.15 + 0.45 * s) for s in strengths]
            bands = PolyCollection(outlines, facecolors=faces, edgecolors=edges, linewidths=0.5, label=source)
            axes.add_collection(bands, autolim=False)
            highest = max(highest, *(float(np.abs(outline[:, 1]).max()) for outline in outlines))
    axes.axhline(0, color=GREY, linewidth=0.8)
    height = 1.04 * highest or 1.0
    axes.set_ylim(-height, height)
    axes.set_yticks([height / 2, -height / 2], SOURCES, rotation=90, va="center")
    axes.tick_params(axis="y", length=0)
    shown = " and ".join(f"{len(f[0])} {source}" for source, f in zip(SOURCES, found, strict=True))
    axes.set_title(f"What comes back: arcs join stretches of gestures that repeat, the longest strongest ({shown} shown)")
    style.hide_frame(axes)


def _draw_close_ups(
    panels: Sequence["Axes"], model: PartnerModel, line: TimeLine, shapes: Sequence[style.Envelope], found: Sequence[Repeats]
) -> None:
    """Show the longest harmonic repeat at both its places, else the longest percussive one, else how the memory begins."""
    states = model.memory.states
    source, (first, again, lengths) = next(((s, f) for s, f in zip(SOURCES, found, strict=True) if len(f[0])), ("", found[0]))
    n, length_s = 0, _LONGEST_CLOSE_UP_S
    if len(lengths):
        n, start, last = int(lengths[0]), int(again[0]), int(again[0] + lengths[0]) - 1
        places = [(int(first[0]), f"Close up: the longest {source} repeat, first heard"), (start, "… and again")]
        repeat_s = float(states["start_s"][last] + states["duration_s"][last] - states["start_s"][start])
        length_s = min(max(repeat_s + 2 * _LEAD_IN_S, _SHORTEST_CLOSE_UP_S), _LONGEST_CLOSE_UP_S)
    else:
        audible = np.flatnonzero((states["tokens"] != SILENCE).any(axis=1))
        places = [(int(audible[0]) if len(audible) else 0, "Close up: how it begins (nothing repeats),")]
    for axes, (state, title) in zip(panels, places, strict=False):
        number = int(states["recording"][state])
        start_s = max(0.0, float(states["start_s"][state]) - _LEAD_IN_S)
        where = clock(float(states["start_s"][state]), decimals=1)
        named = f" of {style.shortened(model.recordings[number].name, characters=24)}" if len(model.recordings) > 1 else ""
        axes.set_title(f"{title} at {where}{named}", parse_math=False)
        shape = shapes[number]
        own = style.Envelope(shape.times_s - line.starts_s[number], shape.low, shape.high)
        beats_s, is_bar = grid_lines([model.recordings[number]], np.zeros(1))
        shown = (beats_s >= start_s) & (beats_s <= start_s + length_s)
        draw_beats(axes, beats_s[shown], is_bar[shown], shown_s=length_s, pixels=COLUMNS // 2)
        _draw_close_up(axes, model.memory, own, number, start_s, start_s + length_s, range(state, state + n))
    panels[1].set_yticks([])
    for axes in panels[len(places) :]:
        axes.set_axis_off()


def _draw_close_up(
    axes: "Axes", memory: Memory, shape: style.Envelope, number: int, start_s: float, end_s: float, repeated: range
) -> None:
    """Draw the waveform above gestures as numbered boxes, the repeat shaded; times are the recording's own."""
    from matplotlib import colormaps

    inside = slice(*np.searchsorted(shape.times_s, (start_s, end_s)))
    part = style.Envelope(shape.times_s[inside], shape.low[inside], shape.high[inside])
    axes.fill_between(part.times_s, 3 + part.low / part.peak, 3 + part.high / part.peak, color=INK, linewidth=0.3)
    states = memory.states
    ends = states["start_s"] + states["duration_s"]
    shown = np.flatnonzero((states["recording"] == number) & (ends > start_s) & (states["start_s"] < end_s))
    for state in shown.tolist():
        left, right = float(states["start_s"][state]), float(ends[state])
        visible = max(left, start_s), min(right, end_s)
        axes.axvline(left, color=GREY, linewidth=0.5, alpha=0.7, zorder=0)
        if state in repeated:
            axes.axvspan(left, right, color=ORANGE, alpha=0.22, linewidth=0, zorder=-1)
        for token, bottom in zip(states["tokens"][state].tolist(), (1.0, 0.0), strict=True):
            hue = token * 0.618034 % 1.0  # golden steps give neighbouring numbers distinct colours
            face = "white" if token == SILENCE else colormaps["viridis"](hue)
            axes.bar(left, 0.86, right - left, bottom + 0.07, align="edge", color=face, edgecolor="white", linewidth=0.8)
            if visible[1] - visible[0] > 0.022 * (end_s - start_s):
                text, ink = ("–", INK) if token == SILENCE else (str(token), INK if hue > 0.55 else "white")
                axes.text(sum(visible) / 2, bottom + 0.5, text, size=7, ha="center", va="center", color=ink)
    axes.set_ylim(0, 4.05)
    axes.set_yticks([3, 1.5, 0.5], ["sound", *(f"{source}\ntoken" for source in SOURCES)])
    axes.tick_params(axis="y", length=0)
    style.time_ticks(axes, start_s, end_s, labels=10)
    style.hide_frame(axes)


def _draw_usage(axes: "Axes", model: PartnerModel, source: int) -> None:
    """Draw how often each token occurs, the most frequent first."""
    size = model.spec.vocabulary.size
    tokens = np.concatenate([r.tokens[source] for r in model.recordings])
    counts = np.bincount(tokens[tokens != SILENCE], minlength=size)
    shares = np.sort(counts)[::-1] / max(int(counts.sum()), 1)
    axes.bar(np.arange(1, size + 1), 100 * shares, width=0.82, color=SOURCE_COLOURS[SOURCES[source]])
    axes.axhline(100 / size, color=INK, linewidth=0.8, linestyle="--")
    axes.text(size + 0.5, 100 / size, "if all were equally frequent", size=8, ha="right", va="bottom")
    axes.set_xlim(0.4, size + 0.6)
    used = f"{np.count_nonzero(counts)} of {size} in use, perplexity {perplexity(counts):.1f}"
    axes.set_title(f"{SOURCES[source].capitalize()} tokens: {used}")
    axes.set_xticks([])
    axes.set_xlabel("tokens, the most frequent first")
    axes.set_ylabel("% of frames")
    axes.yaxis.grid(True)
