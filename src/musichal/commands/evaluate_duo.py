"""`musichal evaluate --duo`: whether answers are together with a band, one row for each contestant."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.table import Table

from musichal.commands.options import check_outputs, settings_from
from musichal.commands.terminal import Terminal, table_of
from musichal.evaluate.duos import duos_from, evaluate_duos
from musichal.evaluate.together import ANCHORS, DuoContestant, DuoEvaluation
from musichal.partner.settings import Direction
from musichal.text import printable

_TIME_COLUMNS = {
    "onsets": "onsets",
    "r16": "R 16ths",
    "r8": "R 8ths",
    "r_triplets": "R triplets",
    "r_grid": "R their grid",
    "within": "within 40 ms",
    "within_moved": "moved in time",
    "asynchrony_ms": "asynchrony",
    "spread_ms": "spread",
    "phrase_beats": "phrase",
    "in_time": "in time",
}
_MAIN = (1, 2, 5, 6, 7)
_SHARES = ("within", "within_moved", "in_time")
_INTERVALS = ("r16", "r_grid", "within")


def evaluate_duo_command(
    *,
    files: Sequence[Path],
    terminal: Terminal,
    beats: Path | None,
    player_track: str | None,
    push: float,
    train_share: float,
    directions: Mapping[str, Direction],
    report: Path | None,
    seed: int,
    set_: Sequence[str],
) -> DuoEvaluation:
    """Measure duos and show how each mode does beside the anchors.

    Raises
    ------
    MusicHalError
        If a file cannot be used, or the report cannot be written.
    """
    settings = settings_from(set_)
    if report is not None:
        report = report / f"{files[0].stem}-duo.html" if report.is_dir() else report
        check_outputs([report], inputs=files)
    with terminal.progress("Reading") as progress:
        duos = duos_from(files, beats=beats, player_track=player_track, push=push, train_share=train_share, progress=progress)
        found = evaluate_duos(duos, directions, settings=settings, train_share=train_share, seed=seed, progress=progress)
        if report is not None:
            from musichal.plots.duo import write_duo

            progress("Drawing the report", 1.0)
            write_duo(found, report)
    terminal.result(found.to_dict())
    for table in duo_tables(found):
        terminal.show(table)
    if report is not None:
        terminal.say(f"Wrote {printable(report)}")
    return found


def duo_tables(evaluation: DuoEvaluation) -> Iterator[Table]:
    """Yield the table of all contestants and, for more than one song, one of the songs."""
    count, chance = len(evaluation.songs), evaluation.chance_r
    sources = sorted({"unknown" if song.beats is None else song.beats.source for song in evaluation.songs})
    title = f"Together in time, {count} {'song' if count == 1 else 'songs'}; beats: {', '.join(sources)}"
    if chance is not None:
        title += f"; R by chance is {chance:.2f}"
    header, *rows = table_cells(evaluation)
    for columns in (_MAIN, [n for n in range(1, len(header)) if n not in _MAIN]):  # two tables, for a window of 80 columns
        picked = [(row[0], *(row[n] for n in columns)) for row in (header, *rows)]
        yield table_of(title if columns is _MAIN else "More of time", picked[0], picked[1:], right=True)
    if count > 1:
        ways = [c.name for c in evaluation.contestants if c.name not in ANCHORS]
        songs = [
            (
                song.name,
                "triplets" if song.grid == 3 else "16ths",
                *(f"{_number(song.played[way].time.r_grid)} / {_share(song.played[way].time.within)}" for way in ways),
            )
            for song in evaluation.songs
        ]
        yield table_of("By song: R on its grid / within 40 ms", ("", "grid", *ways), songs, right=True)


def table_cells(evaluation: DuoEvaluation) -> list[tuple[str, ...]]:
    """Return the table of contestants as texts, its header first."""
    pushed = any(song.pushed for song in evaluation.songs)
    header = ("", *_TIME_COLUMNS.values(), *(["back after a push"] if pushed else []))
    rows = [
        (c.name, *(_cell(c, name) for name in _TIME_COLUMNS), *([_back(c)] if pushed else [])) for c in evaluation.contestants
    ]
    return [header, *rows]


def _cell(contestant: DuoContestant, name: str) -> str:
    value = getattr(contestant.time, name)
    if name == "onsets":
        return str(value)
    if name.endswith("_ms"):
        return "–" if value is None else f"{value:{'+' if name == 'asynchrony_ms' else ''}.0f} ms"
    if name == "phrase_beats":
        return "–" if value is None else f"{value:.1f} beats"
    text = _share(value) if name in _SHARES else _number(value)
    if name in _INTERVALS and name in contestant.time_intervals:
        low, high = contestant.time_intervals[name]
        text += f" ({_share(low)}–{_share(high)})" if name in _SHARES else f" ({low:.2f}–{high:.2f})"
    return text


def _back(contestant: DuoContestant) -> str:
    never = f", {contestant.never_back} never" if contestant.never_back else ""
    return ("–" if contestant.back_beats is None else f"{contestant.back_beats:.1f} beats") + never


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"
