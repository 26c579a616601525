"""The picture of a partner: what it heard, in which sounds, with which notes, and what came back.

All recordings lie one behind the other on one axis, as in its memory. Sounds are in the order of first appearance, so that new
material climbs and returning material falls back. Arcs join a stretch of gestures to where its like was heard first
(Wattenberg, "Arc diagrams: visualizing structure in strings", InfoVis 2002), and the longest of them is shown close up,
gesture by gesture.
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
from musichal.plots.canvas import (
    GREY,
    INK,
    ORANGE,
    PALE,
    SOURCE_COLOURS,
    new_figure,
    picture_style,
    shortened,
    time_step_s,
    time_ticks,
)
from musichal.plots.panels import (
    COLUMNS,
    Envelope,
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
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEIGHT_INCHES = 17.0
_ARCS_PER_SOURCE = 150
_SHORTEST_CLOSE_UP_S, _LONGEST_CLOSE_UP_S = 4.0, 8.0
_LEAD_IN_S = 0.5


@dataclass(frozen=True)
class TimeLine:
    """Recordings one behind the other: where each begins, how long it is, and how long they are together, in seconds."""

    starts_s: Float64
    durations_s: Float64

    @classmethod
    def of(cls, recordings: Sequence[StoredRecording]) -> "TimeLine":
        """Return the line of recordings, with gaps between them to be seen: 0.3 % each, and no more than 3 % in all."""
        durations = np.array([r.duration_s for r in recordings])
        gap = min(0.003, 0.03 / max(len(durations) - 1, 1)) * durations.sum()
        return cls(np.concatenate([[0.0], np.cumsum(durations + gap)[:-1]]), durations)

    @property
    def total_s(self) -> float:
        """Where the last recording ends."""
        return float(self.starts_s[-1] + self.durations_s[-1])

    def states_s(self, states: AnyArray) -> tuple[Float64, Float64]:
        """Return where states (n,) begin and end on the line."""
        starts = self.starts_s[states["recording"]] + states["start_s"]
        return starts, starts + states["duration_s"]


def repeats(index: TokenIndex, *, most: int) -> tuple[Int64, Int64, Int64]:
    """Return the longest repeats of an index: first state, state where it comes again, length; each (k,), k <= `most`.

    A repeat ends where it cannot be continued, and holds two different sounds at least: the same one over and over says
    nothing. Of repeats that overlap where they come again, one is left out if more than half of it is in a longer one.
    """
    lengths, symbols = index.repeat_lengths().astype(np.int64), index.symbols()
    firsts = index.repeat_positions()
    extends = np.append(lengths[1:] == lengths[:-1] + 1, False)
    ends = np.flatnonzero((lengths >= 2) & ~extends[: len(lengths)])
    # How many places up to here differ in sound from the one before: no difference within a stretch, one sound only.
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


@picture_style()
def draw_partner(model: PartnerModel) -> "Figure":
    """Return the picture of a partner, 1600 pixels wide at 100 dots per inch."""
    memory, line = model.memory, TimeLine.of(model.recordings)
    n = len(model.recordings)
    figure = new_figure(
        height_inches=_HEIGHT_INCHES,
        title="What this partner learned",
        subtitle=f"{counted(n, 'recording')}, {clock(float(line.durations_s.sum()))} long · "
        f"{counted(len(memory), 'gesture')} · {counted(len(memory.notes), 'note')} · encoder: {model.spec.encoder.name}",
    )
    outer = figure.add_gridspec(
        2, 1, height_ratios=(10.4, 4.6), left=0.065, right=0.985, top=1 - 1.28 / _HEIGHT_INCHES, bottom=0.045, hspace=0.13
    )
    upper = outer[0].subgridspec(5, 1, height_ratios=(0.9, 2.0, 2.0, 1.9, 2.7), hspace=0.26)
    panels = [figure.add_subplot(upper[row]) for row in range(5)]
    shapes = [_shape(recording, line, number) for number, recording in enumerate(model.recordings)]
    _draw_waveforms(panels[0], shapes, model.recordings, line)
    for source, axes in enumerate(panels[1:3]):
        _draw_tokens(axes, model, line, source)
    _draw_memory_notes(panels[3], memory, line)
    found = [repeats(index, most=_ARCS_PER_SOURCE) for index in memory.indexes]
    _draw_arcs(panels[4], found, memory, line)
    for axes in panels:
        _time_axis(axes, line)
        axes.tick_params(axis="x", labelbottom=axes is panels[-1])
        axes.xaxis.grid(True, color=PALE, linewidth=0.6)
        axes.set_axisbelow(True)
    lower = outer[1].subgridspec(2, 2, height_ratios=(2.4, 1.7), hspace=0.42, wspace=0.07)
    _draw_close_ups([figure.add_subplot(lower[0, column]) for column in range(2)], model, line, shapes, found)
    for source in range(len(SOURCES)):
        _draw_usage(figure.add_subplot(lower[1, source]), model, source)
    return figure


def _shape(recording: StoredRecording, line: TimeLine, number: int) -> Envelope:
    """Return the waveform of a recording, or its level where the sound was left out, as loud as it is."""
    start = float(line.starts_s[number])
    if recording.flac is not None:
        # Eight columns per pixel, for the close-ups; the whole of it is thinned when drawn.
        return envelope(recording.samples(), sample_rate_hz=recording.sample_rate_hz, columns=24 * COLUMNS, start_s=start)
    spread = (10 ** (recording.level_db / 20)).astype(np.float32)
    n = len(spread)
    times = np.linspace(0, recording.duration_s, n, endpoint=False) + recording.duration_s / (2 * max(n, 1))
    return Envelope(start + times, -spread, spread)


def _thinned(shape: Envelope, columns: int) -> Envelope:
    n = len(shape.times_s)
    if n <= columns or columns < 1:
        return shape
    edges = np.linspace(0, n, columns + 1).astype(np.int64)[:-1]
    return Envelope(shape.times_s[edges], np.minimum.reduceat(shape.low, edges), np.maximum.reduceat(shape.high, edges))


def _loudest(shapes: Sequence[Envelope]) -> float:
    peaks = [float(max(-s.low.min(), s.high.max())) for s in shapes if len(s.times_s)]
    return max([*peaks, 1e-6])


def _draw_waveforms(axes: "Axes", shapes: Sequence[Envelope], recordings: Sequence[StoredRecording], line: TimeLine) -> None:
    peak = _loudest(shapes)
    for number, shape in enumerate(shapes):
        share = line.durations_s[number] / line.total_s
        draw_envelope(axes, _thinned(shape, max(2, round(COLUMNS * share))))
        # Names take turns on two lines, so that each has room until the one after the next begins.
        until_s = float(line.starts_s[number + 2]) if number + 2 < len(shapes) else line.total_s
        characters = int((until_s - float(line.starts_s[number])) / line.total_s * 165)
        if characters >= 5:
            name = shortened(recordings[number].name, characters=characters)
            height = peak * (1.15 if number % 2 == 0 else 1.62)
            axes.text(line.starts_s[number], height, name, size=9.5, va="bottom", weight="bold", parse_math=False)
    axes.set_ylim(-peak, peak)
    axes.set_yticks([])
    left_out = sum(r.flac is None for r in recordings)
    axes.set_ylabel("level (sound\nleft out)" if left_out == len(recordings) else "sound")
    hide_frame(axes, keep=["bottom"])


def _draw_tokens(axes: "Axes", model: PartnerModel, line: TimeLine, source: int) -> None:
    name, spec = SOURCES[source], model.spec
    rate = spec.sample_rate_hz
    longest_s = 2 * spec.encoder.frame_samples / rate
    columns = COLUMNS
    frames = sum(r.tokens.shape[1] for r in model.recordings)
    moments_per_column = max(8, -(-2 * frames // columns))
    moments = (np.arange(columns * moments_per_column) + 0.5) * line.total_s / (columns * moments_per_column)
    held = np.full(len(moments), SILENCE - 1, dtype=np.int64)
    for recording, start in zip(model.recordings, line.starts_s, strict=True):
        starts = start + (recording.frame_samples - spec.encoder.frame_samples / 2) / rate
        own = held_tokens(recording.tokens[source], starts, moments, longest_s=longest_s)
        held = np.where(own >= SILENCE, own, held)
    rows = by_first_appearance(np.concatenate([r.tokens[source] for r in model.recordings]), size=spec.vocabulary.size)
    raster, silence = token_raster(held, rows, columns=columns)
    draw_raster(axes, raster, silence, extent_s=(0.0, line.total_s), colour=SOURCE_COLOURS[name])
    axes.set_title(f"Its {name} sounds, in the order of their first appearance: new ones climb, returning ones fall back")
    axes.set_ylabel(f"nth {name} sound")


def _draw_memory_notes(axes: "Axes", memory: Memory, line: TimeLine) -> None:
    states, notes = memory.states, memory.notes
    owners = np.repeat(np.arange(len(states)), states["note_count"])
    starts = line.states_s(states)[0][owners] + notes["offset_s"]
    draw_notes(axes, starts, notes["duration_s"].astype(np.float64), notes["pitch"].tolist(), notes["velocity"])
    axes.set_title(
        "The notes that it can play: heard in its gestures, darker where louder" if len(notes) else "It heard no notes"
    )
    axes.set_ylabel("pitch")


def arc_outline(first_s: tuple[float, float], again_s: tuple[float, float], *, sign: int, points: int = 40) -> Float64:
    """Return the outline (2 · points, 2) of a band that joins two stretches of the time axis by half circles.

    Widths stay true: the band stands on exactly the two stretches. Where they overlap, the hole in it closes.
    """
    angles = np.linspace(np.pi, 0, points)
    outer, inner = (first_s[0], again_s[1]), (first_s[1], max(first_s[1], again_s[0]))
    sides = []
    for (left, right), turn in ((outer, angles), (inner, angles[::-1])):
        middle, radius = (left + right) / 2, (right - left) / 2
        sides.append(np.stack([middle + radius * np.cos(turn), sign * radius * np.sin(turn)], axis=1))
    return np.concatenate(sides)


def _draw_arcs(axes: "Axes", found: Sequence[tuple[Int64, Int64, Int64]], memory: Memory, line: TimeLine) -> None:
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgba

    starts, ends = line.states_s(memory.states)
    shown, highest = [], 0.0
    for source, sign, (first, again, lengths) in zip(SOURCES, (1, -1), found, strict=True):
        outlines = [
            arc_outline((starts[a], ends[a + n - 1]), (starts[b], ends[b + n - 1]), sign=sign)
            for a, b, n in zip(first.tolist(), again.tolist(), lengths.tolist(), strict=True)
        ]
        shown.append(f"{len(outlines)} {source}")
        highest = max([highest, *(float(np.abs(o[:, 1]).max()) for o in outlines)])
        if not outlines:
            continue
        longest = int(lengths.max())
        faces = [to_rgba(SOURCE_COLOURS[source], 0.06 + 0.34 * n / longest) for n in lengths.tolist()]
        edges = [to_rgba(SOURCE_COLOURS[source], 0.15 + 0.45 * n / longest) for n in lengths.tolist()]
        order = slice(None, None, -1)  # the longest on top
        axes.add_collection(
            PolyCollection(outlines[order], facecolors=faces[order], edgecolors=edges[order], linewidths=0.5, label=source)
        )
    axes.axhline(0, color=GREY, linewidth=0.8)
    height = 1.04 * highest or 1.0
    axes.set_ylim(-height, height)
    axes.set_yticks([height / 2, -height / 2], ["harmonic", "percussive"], rotation=90, va="center")
    axes.tick_params(axis="y", length=0)
    axes.set_title(
        f"What comes back: arcs join stretches of gestures that repeat, the longest strongest ({' and '.join(shown)} shown)"
    )
    hide_frame(axes, keep=["bottom"])


def _time_axis(axes: "Axes", line: TimeLine) -> None:
    """Label each recording's own time, as far as there is room, and show where one ends and the next begins."""
    total = line.total_s
    step = time_step_s(total, labels=16)
    ticks: list[tuple[float, float]] = []
    for start, duration in zip(line.starts_s.tolist(), line.durations_s.tolist(), strict=True):
        for k in range(int(duration / step) + 1):
            place = start + k * step
            if not ticks or place - ticks[-1][0] > 0.035 * total:
                ticks.append((place, k * step))
    axes.set_xticks([place for place, _ in ticks], [clock(t, decimals=int(step < 1)) for _, t in ticks])
    for start in line.starts_s[1:].tolist():
        axes.axvline(start, color=INK, linewidth=0.8, zorder=3)
    axes.set_xlim(0, total)


def _draw_close_ups(
    panels: Sequence["Axes"],
    model: PartnerModel,
    line: TimeLine,
    shapes: Sequence[Envelope],
    found: Sequence[tuple[Int64, Int64, Int64]],
) -> None:
    """Show the longest harmonic repeat at both its places, or, where nothing repeats, how the memory begins."""
    states = model.memory.states
    source, (first, again, lengths) = next(((s, f) for s, f in zip(SOURCES, found, strict=True) if len(f[0])), ("", found[0]))
    if len(lengths):
        title = f"Close up: the longest {source} repeat, first heard"
        places = [(int(first[0]), title), (int(again[0]), "… and again")]
        n = int(lengths[0])
        last = int(again[0]) + n - 1
        repeat_s = float(states["start_s"][last] + states["duration_s"][last] - states["start_s"][int(again[0])])
        length_s = min(max(repeat_s + 2 * _LEAD_IN_S, _SHORTEST_CLOSE_UP_S), _LONGEST_CLOSE_UP_S)
    else:
        audible = np.flatnonzero((states["tokens"] != SILENCE).any(axis=1))
        places = [(int(audible[0]) if len(audible) else 0, "Close up: how it begins (nothing repeats),")]
        n, length_s = 0, _LONGEST_CLOSE_UP_S
    for axes, (state, title) in zip(panels, places, strict=False):
        number = int(states["recording"][state])
        start_s = max(0.0, float(states["start_s"][state]) - _LEAD_IN_S)
        where = clock(float(states["start_s"][state]), decimals=1)
        named = f" of {shortened(model.recordings[number].name, characters=24)}" if len(model.recordings) > 1 else ""
        axes.set_title(f"{title} at {where}{named}", parse_math=False)
        _draw_close_up(axes, model.memory, line, shapes[number], number, start_s, length_s, set(range(state, state + n)))
    panels[1].set_yticks([])
    for axes in panels[len(places) :]:
        axes.set_axis_off()


def _draw_close_up(
    axes: "Axes",
    memory: Memory,
    line: TimeLine,
    shape: Envelope,
    number: int,
    start_s: float,
    length_s: float,
    repeated: set[int],
) -> None:
    """Draw the waveform over gestures as numbered boxes, those of the repeat framed; times are the recording's own."""
    from matplotlib import colormaps

    own = shape.times_s - line.starts_s[number]
    inside = (own >= start_s) & (own <= start_s + length_s)
    peak = _loudest([Envelope(own[inside], shape.low[inside], shape.high[inside])]) if inside.any() else 1.0
    axes.fill_between(own[inside], 3 + shape.low[inside] / peak, 3 + shape.high[inside] / peak, color=INK, linewidth=0.3)
    states = memory.states
    ends = states["start_s"] + states["duration_s"]
    shown = np.flatnonzero((states["recording"] == number) & (ends > start_s) & (states["start_s"] < start_s + length_s))
    palette = colormaps["viridis"]
    for state in shown.tolist():
        row = states[state]
        left, width = float(row["start_s"]), float(row["duration_s"])
        right = min(left + width, start_s + length_s)
        middle = (max(left, start_s) + right) / 2
        axes.plot([left, left], [0, 4], color=GREY, linewidth=0.5, alpha=0.7, zorder=0)
        if state in repeated:
            axes.axvspan(left, left + width, color=ORANGE, alpha=0.22, linewidth=0, zorder=-1)
        for source, bottom in ((0, 1.0), (1, 0.0)):
            token = int(row["tokens"][source])
            # Golden steps through the colours set numbers apart that are close.
            hue = token * 0.618034 % 1.0
            face = "white" if token == SILENCE else palette(hue)
            axes.bar(left, 0.86, width, bottom + 0.07, align="edge", color=face, edgecolor="white", linewidth=0.8)
            if right - max(left, start_s) > 0.022 * length_s:
                text = "–" if token == SILENCE else str(token)
                ink = INK if token == SILENCE or hue > 0.55 else "white"
                axes.text(middle, bottom + 0.5, text, size=7, ha="center", va="center", color=ink)
    axes.set_ylim(0, 4.05)
    axes.set_yticks([3, 1.5, 0.5], ["sound", *(f"{source}\ntoken" for source in SOURCES)])
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(start_s, start_s + length_s)
    time_ticks(axes, length_s, labels=10, start_s=start_s)
    hide_frame(axes, keep=["bottom"])


def _draw_usage(axes: "Axes", model: PartnerModel, source: int) -> None:
    """Draw how often each sound occurs, the commonest first."""
    size = model.spec.vocabulary.size
    tokens = np.concatenate([r.tokens[source] for r in model.recordings])
    counts = np.bincount(tokens[tokens != SILENCE], minlength=size)
    shares = np.sort(counts)[::-1] / max(int(counts.sum()), 1)
    axes.bar(np.arange(1, size + 1), 100 * shares, width=0.82, color=SOURCE_COLOURS[SOURCES[source]])
    axes.axhline(100 / size, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.text(size + 0.6, 100 / size, "if all were equally common", size=8, ha="right", va="bottom")
    axes.set_xlim(0.4, size + 0.6)
    used = f"{np.count_nonzero(counts)} of {size} in use, perplexity {perplexity(counts):.1f}"
    axes.set_title(f"{SOURCES[source].capitalize()} sounds: {used}")
    axes.set_xlabel("sounds, the commonest first")
    axes.set_ylabel("% of frames")
    axes.yaxis.grid(True, color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
