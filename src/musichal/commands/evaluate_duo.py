"""`musichal evaluate --duo`: whether answers are together with a band, one row for each contestant."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.table import Table

from musichal.commands.options import settings_from
from musichal.commands.terminal import Terminal, table_of
from musichal.evaluate.duo_tables import choice_rows, harmony_rows, text_of, time_rows
from musichal.evaluate.duos import duos_from, evaluate_duos
from musichal.evaluate.together import ANCHORS, DuoEvaluation, DuoSong
from musichal.live.output.files import REPORT, check_outputs
from musichal.partner.settings import Direction
from musichal.text import printable, shortened

_MAIN_TIME, _MAIN_HARMONY = (1, 2, 5, 6, 7), (1, 2, 3, 4, 5)


def evaluate_duo_command(
    *,
    files: Sequence[Path],
    terminal: Terminal,
    beats: Path | None,
    player_track: str | None,
    push: float,
    jump: int,
    train_share: float,
    pairs: bool,
    directions: Mapping[str, Direction],
    report: Path | None,
    seed: int,
    set_: Sequence[str],
    force: bool = False,
) -> DuoEvaluation:
    """Measure duos and show how each mode does beside the anchors.

    Raises
    ------
    MusicHalError
        If a file cannot be used, or the report cannot be written.
    """
    settings = settings_from(set_)
    if report is not None:
        report = report / f"{shortened(files[0].stem)}-duo.html" if report.is_dir() else report
        check_outputs([(report, REPORT)], inputs=files, force=force)
    with terminal.progress("Reading") as progress:
        duos = duos_from(
            files, beats=beats, player_track=player_track, push=push, jump=jump, train_share=train_share, progress=progress
        )
        found = evaluate_duos(
            duos, directions, settings=settings, train_share=train_share, pairs=pairs, seed=seed, progress=progress
        )
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
    """Yield the tables of all contestants, of time and of harmony, and, for more than one song, one of the songs."""
    songs, chance = evaluation.songs, evaluation.chance_r
    count = f"{len(songs)} {'song' if len(songs) == 1 else 'songs'}"
    beats = sorted({"unknown" if song.beats is None else song.beats.source for song in songs})
    title = f"Together in time, {count}; beats: {', '.join(beats)}"
    if chance is not None:
        title += f"; R by chance is {chance:.2f}"
    notes = ", ".join(sorted({song.notes_from for song in songs}))
    for titles, rows, main in (
        ((title, "More of time"), time_rows(evaluation), _MAIN_TIME),
        ((f"Together in harmony, {count}; notes: {notes}", "More of harmony"), harmony_rows(evaluation), _MAIN_HARMONY),
    ):
        for columns in (main, [n for n in range(1, len(rows[0])) if n not in main]):  # for a window of 80 columns
            header, *picked = [(row[0], *(row[n] for n in columns)) for row in rows]
            yield table_of(titles[columns is not main], header, picked, right=True)
    header, *choices = choice_rows(evaluation)
    yield table_of("Choices", header, choices, right=True)
    if len(songs) > 1:
        ways = [c.name for c in evaluation.contestants if c.name not in ANCHORS]
        yield table_of(
            "By song: R on its grid / within 40 ms / agrees",
            ("", "grid", *ways),
            [(song.name, "triplets" if song.grid == 3 else "16ths", *(_summary(song, way) for way in ways)) for song in songs],
            right=True,
        )


def _summary(song: DuoSong, way: str) -> str:
    time, harmony = song.played[way].time, song.played[way].harmony
    parts = (("r_grid", time.r_grid), ("within", time.within), ("agreement", harmony.agreement))
    return " / ".join(text_of(name, value) for name, value in parts)
