"""Reports of `musichal verify` and `musichal evaluate` (also of duos): one HTML file each, with its figures inside.

A page loads nothing from elsewhere and runs no script; every text from outside, such as a recording's name, is escaped. The
same results give the same bytes.
"""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from musichal.arrays import AnyArray, Bool, Float64
from musichal.atomic import open_atomically
from musichal.evaluate.alignment import HeardRecording
from musichal.evaluate.checks import GROUPS, Check
from musichal.evaluate.duos import choice_rows, harmony_rows, text_of, time_rows
from musichal.evaluate.evaluation import Contestant, Evaluation, Sheet
from musichal.evaluate.listening import DIMENSIONS, STEP_S, Trace
from musichal.evaluate.partner_stats import DiversityRow
from musichal.evaluate.together import ANCHORS, DuoEvaluation, DuoSong
from musichal.evaluate.verify import OFFSETS, ShiftRow, Verification
from musichal.hearing.percepts import SOURCES
from musichal.plots import style
from musichal.plots.style import BLUE, COLUMNS, GREEN, GREY, INK, ORANGE, PALE, PURPLE, SOURCE_COLOURS, VERMILION
from musichal.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_QUESTIONS = {
    "count": "Was the vocabulary trained on exactly as many frames as the recordings hold?",
    "parity": "Does live hearing give exactly the tokens of training?",
    "diversity": "Are as many different tokens heard live as in training?",
    "shift": "How far do tokens depend on where the grid of segments begins?",
    "frame scaling": "Does a window give the number of frames that its length promises?",
    "repeatability": "Does training again, or with another number of threads, give the same?",
    "spec": "Does this installation match the one that trained the partner, where it matters?",
}
_VERDICTS = {True: ("pass", "passed"), False: ("FAIL", "failed"), None: ("info", "told")}
_NO_FRAME, _AGREES, _DIFFERS = 0, 1, 2
_MOST_STRIPS = 40
_EXCERPT_S = 12.0  # of a duo


# Pages ----------------------------------------------------------------------------------------------------------------


def page(title: str, body: Iterable[str]) -> str:
    """Return an HTML page; `body` holds HTML, `title` is text."""
    css = (files("musichal.plots") / "report.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped(title)}</title>\n<style>\n{css}</style>\n</head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def escaped(text: str) -> str:
    """Return a text for HTML."""
    return escape(printable(text))


def _table(columns: Sequence[str], rows: Iterable[str], *, kind: str = "") -> str:
    """Return a table that scrolls where it is too wide; `columns` are texts, `rows` HTML."""
    head = "".join(f"<th>{escaped(column)}</th>" for column in columns)
    body = "\n".join(rows)
    return f'<div class="scroll"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def numbers_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of texts: a name and numbers in each row."""
    cells = ("".join(f"<td>{escaped(cell)}</td>" for cell in row) for row in rows)
    return _table(columns, (f"<tr>{row}</tr>" for row in cells), kind="numbers")


def image(figure: "Figure", words: str) -> str:
    """Return a figure as an image inside the page; `words` describe it."""
    data = base64.b64encode(style.figure_bytes(figure, "png")).decode("ascii")
    return f'<img alt="{escape(words)}" src="data:image/png;base64,{data}">'


def write_page(path: Path, html: str) -> None:
    """Write a page, whole or not at all."""
    with open_atomically(path) as stream:
        stream.write(html.encode("utf-8"))


# Verification ---------------------------------------------------------------------------------------------------------


def report_html(verification: Verification) -> str:
    """Return the report of a verification as an HTML page."""
    body = [*_head(verification)]
    if verification.failed:
        body += ["<h2>What failed</h2>", _checks_table(verification.failed)]
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
    return page(f"Alignment of {verification.partner}", body)


def _head(verification: Verification) -> Iterable[str]:
    asked = [c for c in verification.checks if c.passed is not None]
    passed = sum(1 for c in asked if c.passed)
    verdict = f"All {passed} checks passed" if verification.passed else f"{len(asked) - passed} of {len(asked)} checks failed"
    yield f"<h1>Alignment of {escaped(verification.partner)}</h1>"
    rate = f"{verification.sample_rate_hz} Hz"
    yield f"<p>Perception spec <code>{escaped(verification.fingerprint)}</code>, heard at {rate}</p>"
    yield f'<div class="verdict {"passed" if verification.passed else "failed"}">{verdict}</div>'
    if not verification.complete:
        yield "<p>A quick verification: some checks were left out.</p>"


def _checks_table(checks: Sequence[Check]) -> str:
    rows = []
    for check in checks:
        word, kind = _VERDICTS[check.passed]
        more = f"<small>{escaped(check.detail)}</small>" if check.detail else ""
        more += f'<small class="cause">{escaped(check.cause)}</small>' if check.cause else ""
        rows.append(
            f'<tr class="{kind}"><td class="{kind}">{word}</td><td>{escaped(check.name)}{more}</td>'
            f"<td>{escaped(check.expected)}</td><td>{escaped(check.found)}</td></tr>"
        )
    return _table(("", "check", "expected", "found"), rows) if rows else ""


def _diversity_table(rows: Sequence[DiversityRow]) -> str:
    columns = ("heard", "source", "tokens used", "top token", "top three", "perplexity", "silent", "changes per second")
    lines = [
        (
            f"{row.label} ({row.stretch_s:.1f} s)",
            source,
            f"{d.unique} of {d.size}",
            f"{d.top_share:.1%}",
            f"{d.top_three_share:.1%}",
            f"{d.perplexity:.1f}",
            f"{d.silent_share:.1%}",
            f"{d.changes_per_second:.1f}",
        )
        for row in rows
        for source, d in zip(SOURCES, row.diversity, strict=True)
    ]
    return numbers_table(columns, lines)


def token_agreement(recording: HeardRecording, *, source: int) -> tuple[AnyArray, Bool]:
    """Return the positions of all frames of either stream, shape (n,), ascending, and whether both have the same token there.

    A frame that only one of the streams has differs.
    """
    _, mine, theirs = np.intersect1d(
        recording.frame_samples, recording.live_frame_samples, assume_unique=True, return_indices=True
    )
    same = recording.stored_tokens[source][mine] == recording.live_tokens[source][theirs]
    positions = np.union1d(recording.frame_samples, recording.live_frame_samples)
    return positions, np.isin(positions, recording.frame_samples[mine[same]])


def parity_columns(positions: AnyArray, agrees: Bool, *, end_sample: float, columns: int) -> AnyArray:
    """Return the content of each column of a strip, shape (columns,): a differing frame (2), agreeing frames (1), none (0)."""
    strip = np.full(columns, _NO_FRAME)
    at = np.clip((positions * columns / end_sample).astype(np.int64), 0, columns - 1)
    np.maximum.at(strip, at, np.where(agrees, _AGREES, _DIFFERS))
    return strip


@style.plot_style()
def draw_parity(recordings: Sequence[HeardRecording], *, sample_rate_hz: int) -> "Figure":
    """Draw a strip over time for each recording and source, coloured where a token differs.

    Of more than 40 recordings 40 are drawn, those that differ first.
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    found = [(r, [token_agreement(r, source=source) for source in range(len(SOURCES))]) for r in recordings]
    if len(found) > _MOST_STRIPS:
        found = sorted(found, key=lambda one: all(bool(agrees.all()) for _, agrees in one[1]))[:_MOST_STRIPS]
    subtitle = "tokens of training beside tokens heard live"
    if len(recordings) > len(found):
        subtitle += f": {len(found)} of {len(recordings)} recordings, those that differ first"
    figure = style.new_figure(height_inches=1.4 + 1.45 * len(found), title="Parity", subtitle=subtitle)
    panels = figure.subplots(len(found) * len(SOURCES), 1, squeeze=False)[:, 0]
    for number, axes in enumerate(panels):
        source = number % len(SOURCES)
        recording, agreements = found[number // len(SOURCES)]
        positions, agrees = agreements[source]
        # At most one column for two frames, so that each column holds a frame.
        columns = max(1, min(COLUMNS, len(recording.frame_samples) // 2))
        strip = parity_columns(positions, agrees, end_sample=recording.duration_s * sample_rate_hz, columns=columns)
        extent = (0.0, recording.duration_s, 0.0, 1.0)
        colours = ListedColormap([PALE, GREEN, VERMILION])
        axes.imshow(strip[np.newaxis], cmap=colours, vmin=0, vmax=2, aspect="auto", extent=extent, interpolation="nearest")
        different = int((~agrees).sum())
        axes.set_yticks([0.5], [SOURCES[source]])
        right = axes.secondary_yaxis("right")
        right.set_yticks([0.5], [f"{different} differ" if different else "equal"], color=VERMILION if different else INK)
        right.tick_params(length=0)
        right.spines["right"].set_visible(False)
        style.hide_frame(axes, keep=())
        style.time_ticks(axes, 0.0, recording.duration_s)
        axes.tick_params(axis="x", labelbottom=source == len(SOURCES) - 1)
        if source == 0:
            axes.set_title(
                style.shortened(recording.name, characters=90) + (", new to the partner" if recording.is_new else "")
            )
    handles = [Patch(color=GREEN, label="the same token"), Patch(color=VERMILION, label="another token, or no frame")]
    figure.legend(handles=handles, loc="outside lower left", ncols=2)
    return figure


@style.plot_style()
def draw_histograms(rows: Sequence[DiversityRow]) -> "Figure":
    """Draw how often each token occurs: the first row as bars, each other row as a line above them, in the same order."""
    others = rows[1:]
    subtitle = f"bars: {style.shortened(rows[0].label, characters=60)}, most frequent first; line: as each panel says"
    figure = style.new_figure(height_inches=1.1 + 2.2 * len(others), title="How often each token occurs", subtitle=subtitle)
    panels = figure.subplots(len(others), len(SOURCES), sharey="col", squeeze=False)
    for source, name in enumerate(SOURCES):
        trained = _percent(rows[0].histograms[source])
        order = np.argsort(-trained, kind="stable")
        for axes, row in zip(panels[:, source], others, strict=True):
            axes.bar(np.arange(len(order)), trained[order], width=0.9, color=SOURCE_COLOURS[name], alpha=0.35, linewidth=0)
            edges = np.arange(len(order) + 1) - 0.5
            axes.stairs(_percent(row.histograms[source])[order], edges, color=INK, linewidth=1.1, baseline=None)
            axes.set_xlim(-0.7, len(order) - 0.3)
            axes.set_xticks([])
            axes.set_title(f"{name}: {style.shortened(row.label, characters=50)}")
            axes.set_ylim(bottom=0)
            axes.set_ylabel("% of frames")
    return figure


def _percent(histogram: Sequence[int]) -> Float64:
    counts = np.asarray(histogram, dtype=np.float64)
    return 100 * counts / max(counts.sum(), 1.0)


@style.plot_style()
def draw_shift(rows: Sequence[ShiftRow]) -> "Figure":
    """Draw the share of tokens that stay for each offset of the grid; offsets between frames stand apart."""
    subtitle = "share of frames that keep their token when the grid of segments begins later"
    figure = style.new_figure(height_inches=3.9, title="Shift consistency", subtitle=subtitle)
    axes = figure.subplots()
    width = 0.8 / len(SOURCES)
    between = np.arange(len(rows)) >= OFFSETS
    x = np.arange(len(rows)) + 0.5 * between
    for source, (name, colour) in enumerate(SOURCE_COLOURS.items()):
        shares = [100 * row.shares[source] for row in rows]
        bars = axes.bar(x + (source - (len(SOURCES) - 1) / 2) * width, shares, width=width * 0.94, color=colour, label=name)
        axes.bar_label(bars, fmt="%.1f", size=8, color=INK, padding=1)
    labels = [f"{1000 * row.offset_s:.0f} ms" for row in rows]
    labels[OFFSETS:] = [f"{label}\nbetween frames" for label in labels[OFFSETS:]]
    axes.set_xticks(x, labels)
    axes.set_ylim(0, 110)
    axes.set_yticks([0, 25, 50, 75, 100])
    axes.set_ylabel("%")
    axes.yaxis.grid(True)
    figure.legend(loc="outside lower left", ncols=len(SOURCES))
    return figure


# Evaluation -----------------------------------------------------------------------------------------------------------


def evaluation_html(evaluation: Evaluation, sheets: Iterable[Sheet]) -> str:
    """Return the report of an evaluation with its tables as an HTML page."""
    names, first = ", ".join(dict.fromkeys(escaped(e.name) for e in evaluation.excerpts)), evaluation.contestants[0]
    traces = draw_traces(evaluation.players[0], first.traces[0], duration_s=evaluation.excerpt_s, name=first.name)
    body = [
        f"<h1>Does {escaped(evaluation.partner)} listen?</h1>",
        f"<p>{len(evaluation.excerpts)} excerpts of {evaluation.excerpt_s:g} s from {names}.</p>",
        "<p>The probability that the true input of an answer fits it better than another input: 0.5 is chance, 1 is certain."
        " Bars are 95 % intervals.</p>",
        image(draw_listening(evaluation.contestants), "Area under the ROC curve of each contestant"),
        "<p>Density and loudness of the player and of the answer over time, in the first excerpt.</p>",
        image(traces, "A player and an answer over time"),
    ]
    for title, rows in sheets:
        body += [f"<h2>{escaped(title)}</h2>", numbers_table(rows[0], rows[1:])]
    return page(f"Evaluation of {evaluation.partner}", body)


@style.plot_style()
def draw_listening(contestants: Sequence[Contestant]) -> "Figure":
    """Draw the areas under the ROC curve with their intervals, a group of bars for each contestant."""
    figure = style.new_figure(height_inches=4.4, title="Listening", subtitle="is the true input of an answer told from others?")
    axes = figure.subplots()
    labels = ("together", *DIMENSIONS)
    x, width = np.arange(len(contestants)), 0.8 / len(labels)
    for k, (label, colour) in enumerate(zip(labels, (INK, BLUE, GREEN, ORANGE, PURPLE), strict=True)):
        areas = [c.listening.together if k == 0 else c.listening.by_dimension[label] for c in contestants]
        values = np.array([a.value for a in areas])
        errors = np.maximum([[a.value - a.low for a in areas], [a.high - a.value for a in areas]], 0)
        at, bars = x + (k - (len(labels) - 1) / 2) * width, {"ecolor": GREY, "elinewidth": 1, "capsize": 2}
        axes.bar(at, values, width=0.92 * width, color=colour, label=label, alpha=0.9, yerr=errors, error_kw=bars)
    axes.axhline(0.5, color=VERMILION, linewidth=0.8, label="chance")
    axes.yaxis.grid(True)
    axes.set_ylim(0, 1.05)
    axes.set_xticks(x, [c.name for c in contestants])
    figure.legend(loc="outside lower left", ncols=len(labels) + 1)
    return figure


@style.plot_style()
def draw_traces(player: Trace, answer: Trace, *, duration_s: float, name: str) -> "Figure":
    """Draw density and loudness of a player and of an answer over time."""
    title = f"A player, and the answer of '{name}'"
    figure = style.new_figure(height_inches=4.4, title=title, subtitle="blue: player; purple: answer")
    t = np.arange(len(player.density_hz)) * STEP_S
    panels = figure.subplots(2, 1, sharex=True)
    for axes, label, field in zip(panels, ("onsets per second", "dBFS"), ("density_hz", "loudness_db"), strict=True):
        for trace, colour in ((player, BLUE), (answer, PURPLE)):
            axes.step(t, getattr(trace, field)[: len(t)], where="post", color=colour, linewidth=1.2)
        axes.set_ylabel(label)
        style.time_ticks(axes, 0.0, duration_s)
    return figure


@style.plot_style()
def draw_duo(song: DuoSong, *, duration_s: float = _EXCERPT_S) -> "Figure":
    """Draw where the answer of a duo has most onsets: beats and their parts, onsets of player and band, notes of the answer."""
    way = next((name for name in song.played if name not in ANCHORS), next(iter(song.played)))
    answer = song.played[way]
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
        f" Beats: {escaped(', '.join(sources))}.{chance}</p>",
        numbers_table(time[0], time[1:]),
        "<p>R is the concentration of onsets on a grid, 1 where all lie on it; within 40 ms is the share of onsets that have"
        " one of the band so near, and the same of the answer moved in time is chance; asynchrony is the median distance from"
        " the nearest line of the grid, late is positive.</p>",
        f"<h2>In harmony</h2><p>Notes: {escaped(notes)}. Shares of the answer's sounding time: where its pitch class"
        " sounds in the band or the player, or in the band alone; the same of the answer moved in time; in a chart's chord."
        " Shares of the player's time: with a consonant note of the answer, and without any.</p>",
        numbers_table(harmony[0], harmony[1:]),
        "<p>What the choices were made of.</p>",
        numbers_table(choices[0], choices[1:]),
        "<h2>One excerpt</h2>",
        image(draw_duo(first), "Beats, player, band and answer of an excerpt"),
        "<h2>Song by song: R on the band's grid</h2>",
        numbers_table(("", *ways), by_song),
    ]
    return page("Together in time", body)
