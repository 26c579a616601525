"""The report of `musichal verify`: one HTML file with everything in it, and its pictures.

What a page is and how it stays harmless: `musichal.plots.page`.
"""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from musichal.arrays import AnyArray, Bool, Float64
from musichal.atomic import open_atomically
from musichal.evaluate.alignment import HeardRecording
from musichal.evaluate.checks import GROUPS, Check
from musichal.evaluate.token_stats import Diversity, DiversityRow
from musichal.evaluate.verify import OFFSETS, ShiftRow, Verification
from musichal.hearing.percepts import SOURCES
from musichal.plots.canvas import (
    GREEN,
    INK,
    PALE,
    SOURCE_COLOURS,
    VERMILION,
    new_figure,
    picture_style,
    shortened,
    time_ticks,
)
from musichal.plots.page import escaped, image, page, table
from musichal.plots.panels import COLUMNS, hide_frame
from musichal.text import PathLike

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPORT_NAME = "verification.html"
"""What the report is called where a folder is named."""

_QUESTIONS = {
    "count": "Was the vocabulary trained on exactly as many frames as the recordings hold?",
    "parity": "Does live hearing give the very tokens that training gave?",
    "diversity": "Are as many different sounds heard live as in training?",
    "shift": "How far do tokens depend on where the grid of segments begins?",
    "frame scaling": "Does a window give the number of frames that its length promises?",
    "repeatability": "Does training again, or on another number of threads, give the same?",
    "spec": "Is this installation the one that trained the partner, as far as it matters?",
}
_VERDICTS = {True: ("pass", "passed"), False: ("FAIL", "failed"), None: ("info", "told")}
_DIFFERS, _AGREES, _NO_FRAME = 2, 1, 0
_STRIP_INCHES = 0.42
_MOST_STRIPS = 40


def write_report(verification: Verification, path: PathLike) -> Path:
    """Write the report as one HTML file, whole or not at all; the same verification gives the same bytes.

    Returns
    -------
    Path
        The file: `path`, or `verification.html` in it where that is a folder.

    Raises
    ------
    InputError
        If the path cannot be written.
    """
    file = Path(path) / REPORT_NAME if Path(path).is_dir() else Path(path)
    text = report_html(verification)
    with open_atomically(file) as stream:
        stream.write(text.encode("utf-8"))
    return file


def report_html(verification: Verification) -> str:
    """Return the report as the text of an HTML page."""
    body = [*_head(verification), *_failures(verification)]
    for group in GROUPS:
        checks = verification.group(group)
        if not checks and not (group == "parity" and verification.recordings):
            continue
        body += [f"<h2>{escape(group.capitalize())}</h2>", f"<p>{escape(_QUESTIONS.get(group, ''))}</p>", _checks_table(checks)]
        if group == "parity" and verification.recordings:
            words = "Where the stored and the live stream of tokens differ, over time"
            body.append(image(draw_parity(verification.recordings, sample_rate_hz=verification.sample_rate_hz), words))
        if group == "diversity" and verification.diversity:
            body.append(_diversity_table(verification.diversity))
            if len(verification.diversity) > 1:
                body.append(image(draw_histograms(verification.diversity), "Share of each token in training and live"))
        if group == "shift" and verification.shift:
            body.append(image(draw_shift(verification.shift), "Share of tokens that stay when the grid is moved"))
    return page(f"Alignment of {escaped(verification.partner)}", body)


def _head(verification: Verification) -> Iterable[str]:
    asked = [c for c in verification.checks if c.passed is not None]
    passed = sum(1 for c in asked if c.passed)
    if verification.passed:
        verdict, kind = f"All {passed} checks passed", "passed"
    else:
        verdict, kind = f"{len(asked) - passed} of {len(asked)} checks failed", "failed"
    yield f"<h1>Alignment of {escaped(verification.partner)}</h1>"
    rate = f"{verification.sample_rate_hz} Hz"
    yield f"<p>Perception spec <code>{escaped(verification.fingerprint)}</code>, heard at {rate}</p>"
    yield f'<div class="verdict {kind}">{verdict}</div>'
    if not verification.complete:
        yield "<p>A quick look: not every question was asked.</p>"


def _failures(verification: Verification) -> Iterable[str]:
    if verification.failed:
        yield "<h2>What failed</h2>"
        yield _checks_table(verification.failed)


def _checks_table(checks: Sequence[Check]) -> str:
    if not checks:
        return ""
    rows = []
    for check in checks:
        word, kind = _VERDICTS[check.passed]
        more = f"<small>{escaped(check.detail)}</small>" if check.detail else ""
        more += f'<small class="cause">{escaped(check.cause)}</small>' if check.cause else ""
        rows.append(
            f'<tr class="{kind}"><td class="{kind}">{word}</td><td>{escaped(check.name)}{more}</td>'
            f"<td>{escaped(check.expected)}</td><td>{escaped(check.found)}</td></tr>"
        )
    return table("<th></th><th>asked</th><th>expected</th><th>found</th>", rows)


def _diversity_table(rows: Sequence[DiversityRow]) -> str:
    columns = ("sounds used", "commonest", "commonest three", "perplexity", "silent", "changes per second")
    head = "<th>heard</th><th>source</th>" + "".join(f'<th class="number">{c}</th>' for c in columns)
    lines = []
    for row in rows:
        for source, figures in zip(SOURCES, row.diversity, strict=True):
            label = ""
            if source == SOURCES[0]:
                label = f'<td rowspan="{len(SOURCES)}">{escaped(row.label)}<small>{row.stretch_s:.1f} s</small></td>'
            numbers = "".join(f'<td class="number">{n}</td>' for n in _numbers(figures))
            lines.append(f"<tr>{label}<td>{source}</td>{numbers}</tr>")
    return table(head, lines)


def _numbers(d: Diversity) -> tuple[str, ...]:
    return (
        f"{d.unique} of {d.size}",
        f"{d.top_share:.1%}",
        f"{d.top_three_share:.1%}",
        f"{d.perplexity:.1f}",
        f"{d.silent_share:.1%}",
        f"{d.changes_per_second:.1f}",
    )


def token_agreement(recording: HeardRecording, *, source: int) -> tuple[AnyArray, Bool]:
    """Return the positions of all frames of either stream, shape (n,), ascending, and whether both have the same token there.

    A frame that only one of the streams has is one that differs.
    """
    _, mine, theirs = np.intersect1d(
        recording.frame_samples, recording.live_frame_samples, assume_unique=True, return_indices=True
    )
    same = recording.stored_tokens[source][mine] == recording.live_tokens[source][theirs]
    positions = np.union1d(recording.frame_samples, recording.live_frame_samples)
    return positions, np.isin(positions, recording.frame_samples[mine[same]])


def parity_columns(positions: AnyArray, agrees: Bool, *, end_sample: float, columns: int) -> AnyArray:
    """Return what is in each column of a strip, shape (columns,): a frame that differs (2), frames that agree (1), none (0).

    One frame is enough to colour a column, so that in an hour a single one is still seen.
    """
    strip = np.full(columns, _NO_FRAME)
    at = np.clip((positions * columns / end_sample).astype(np.int64), 0, columns - 1)
    np.maximum.at(strip, at, np.where(agrees, _AGREES, _DIFFERS))
    return strip


def _worst_first(recordings: Sequence[HeardRecording]) -> Sequence[HeardRecording]:
    if len(recordings) <= _MOST_STRIPS:
        return recordings

    def equal(recording: HeardRecording) -> bool:
        return all(bool(token_agreement(recording, source=source)[1].all()) for source in range(len(SOURCES)))

    return sorted(recordings, key=equal)[:_MOST_STRIPS]


@picture_style()
def draw_parity(recordings: Sequence[HeardRecording], *, sample_rate_hz: int) -> "Figure":
    """Draw a strip over time per recording and source, coloured where a token differs.

    Of more than 40 recordings the first 40 are drawn, those that differ before those that do not.
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    recordings, total = _worst_first(recordings), len(recordings)
    strips = len(recordings) * len(SOURCES)
    # Below each recording's strips its times, and room for the next one's name; below the last its times alone.
    top, between, bottom = 1.15, 0.75, 0.35
    height = top + strips * _STRIP_INCHES + (len(recordings) - 1) * between + bottom
    subtitle = "tokens of training beside tokens heard live"
    if total > len(recordings):
        subtitle += f": {len(recordings)} of {total} recordings, those that differ first"
    figure = new_figure(height_inches=height, title="Parity", subtitle=subtitle)
    colours = ListedColormap([PALE, GREEN, VERMILION])
    y = height - top
    for recording in recordings:
        end = recording.duration_s * sample_rate_hz
        # No more columns than frames: each is then wide enough to hold one.
        columns = max(1, min(COLUMNS, len(recording.frame_samples) // 2))
        for source, name in enumerate(SOURCES):
            y -= _STRIP_INCHES
            axes = figure.add_axes((0.09, y / height, 0.87, (_STRIP_INCHES - 0.06) / height))
            positions, agrees = token_agreement(recording, source=source)
            strip = parity_columns(positions, agrees, end_sample=end, columns=columns)
            extent = (0.0, recording.duration_s, 0.0, 1.0)
            axes.imshow(strip[np.newaxis], cmap=colours, vmin=0, vmax=2, aspect="auto", extent=extent, interpolation="nearest")
            different = int((~agrees).sum())
            axes.set_yticks([0.5], [name])
            hide_frame(axes)
            axes.text(
                1.005, 0.5, "equal" if not different else f"{different}", transform=axes.transAxes, va="center",
                color=VERMILION if different else INK, size=9,
            )  # fmt: skip
            if source == 0:
                axes.set_title(shortened(recording.name, characters=90) + (", new to the partner" if recording.is_new else ""))
            if source == len(SOURCES) - 1:
                time_ticks(axes, recording.duration_s)
            else:
                axes.set_xticks([])
        y -= between
    handles = [Patch(color=GREEN, label="the same token"), Patch(color=VERMILION, label="another token, or no frame")]
    figure.legend(handles=handles, loc="upper right", ncols=2, frameon=False, bbox_to_anchor=(0.97, 1 - 0.1 / height))
    return figure


@picture_style()
def draw_histograms(rows: Sequence[DiversityRow]) -> "Figure":
    """Draw how often each token occurs: the first row as bars, each other row as a line over them, in the bars' order."""
    others = rows[1:]
    height = 1.0 + 2.3 * len(others) + 0.2
    subtitle = f"bars: {shortened(rows[0].label, characters=60)}, commonest first; line: the same, heard as each panel says"
    figure = new_figure(height_inches=height, title="How often each sound is heard", subtitle=subtitle)
    for source, name in enumerate(SOURCES):
        trained = _shares(rows[0].histograms[source])
        order = np.argsort(-trained, kind="stable")
        shares = [_shares(row.histograms[source]) for row in others]
        highest = max([float(trained.max(initial=0.0)), *(float(s.max(initial=0.0)) for s in shares), 0.01])
        for number, (row, share) in enumerate(zip(others, shares, strict=True)):
            bottom = height - 1.0 - 2.3 * (number + 1) + 0.45
            axes = figure.add_axes((0.065 + 0.475 * source, bottom / height, 0.43, 1.45 / height))
            x = np.arange(len(order))
            axes.bar(x, 100 * trained[order], width=0.9, color=SOURCE_COLOURS[name], alpha=0.35, linewidth=0)
            axes.stairs(100 * share[order], np.arange(len(order) + 1) - 0.5, color=INK, linewidth=1.1, baseline=None)
            axes.set_xlim(-0.7, len(order) - 0.3)
            axes.set_ylim(0, 105 * highest)
            axes.set_xticks([])
            axes.set_title(f"{name}: {shortened(row.label, characters=50)}")
            if source == 0:
                axes.set_ylabel("% of frames")
    return figure


def _shares(histogram: Sequence[int]) -> Float64:
    counts = np.asarray(histogram, dtype=np.float64)
    return counts / max(counts.sum(), 1.0)


@picture_style()
def draw_shift(rows: Sequence[ShiftRow]) -> "Figure":
    """Draw the share of tokens that stay for each offset of the grid, a bar per source; what lies between frames apart."""
    height = 3.7
    subtitle = "share of frames that keep their token when the grid of segments begins later"
    figure = new_figure(height_inches=height, title="Shift consistency", subtitle=subtitle)
    axes = figure.add_axes((0.065, 0.19, 0.9, 0.52))
    width = 0.8 / len(SOURCES)
    between = np.array([number >= OFFSETS for number in range(len(rows))])
    x = np.arange(len(rows)) + 0.5 * between
    for source, (name, colour) in enumerate(SOURCE_COLOURS.items()):
        shares = [100 * row.shares[source] for row in rows]
        bars = axes.bar(x + (source - (len(SOURCES) - 1) / 2) * width, shares, width=width * 0.94, color=colour, label=name)
        axes.bar_label(bars, fmt="%.1f", size=8, color=INK, padding=1)
    labels = [f"{1000 * row.offset_s:.0f} ms" for row in rows]
    axes.set_xticks(x, [f"{label}\nbetween frames" if apart else label for label, apart in zip(labels, between, strict=True)])
    axes.set_ylim(0, 110)
    axes.set_yticks([0, 25, 50, 75, 100])
    axes.set_ylabel("%")
    for level in (25, 50, 75, 100):
        axes.axhline(level, color=PALE, linewidth=0.6, zorder=0)
    figure.legend(loc="upper right", ncols=len(SOURCES), frameon=False, bbox_to_anchor=(0.97, 0.98))
    return figure
