"""The part `duo` of the benchmarks: which songs and modes, its tables, its page."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.duo_quality import play_songs, songs_of
from benchmarks.figure import Figure
from musichal.commands.evaluate_duo import duo_tables, table_cells
from musichal.commands.options import settings_from
from musichal.commands.terminal import Terminal
from musichal.evaluate.together import ANCHORS, REAL, DuoEvaluation, Progress

CACHE = Path(tempfile.gettempdir()) / "musichal-duo-cache"
_SONGS = 18


@dataclass(frozen=True)
class DuoOptions:
    """What the part `duo` plays: songs of a `split` (so many of them), `modes`, settings, and where it keeps what it heard."""

    split: str = "report"
    songs: int | None = None
    modes: tuple[str, ...] = ("couple", "lead", "contrast", "shadow")
    set_: tuple[str, ...] = ()
    cache: Path = CACHE


_KINDS = {
    "melody alone": ({}, _SONGS),
    "player with drums": ({"with_drums": True}, 10),
    "tempo changes by 8 %, melody alone": ({"sets": ("tempo_push",)}, 6),
}
"""Which songs, and at most how many."""
_STEADY_GOALS = {"melody alone": 0.60, "player with drums": 0.85}
_GOAL_MODES = ("couple", "lead", "contrast")


def measure_duo(options: DuoOptions, *, terminal: Terminal, progress: Progress, write: Path | None = None) -> list[Figure]:
    """Play the songs and show how each mode does beside the anchors.

    A number of `songs` plays so many with the melody alone, as for tuning. Without one, songs with drums in the player's
    recording and changes of tempo follow, and the figures have goals. `write` is a folder that gets the page.
    """
    settings = settings_from(options.set_)
    kinds = {"melody alone": ({}, options.songs)} if options.songs else _KINDS
    found: dict[str, DuoEvaluation] = {}
    for kind, (which, most) in kinds.items():
        songs = songs_of(options.split, most=most, **which)  # type: ignore[arg-type]
        found[kind] = play_songs(songs, options.modes, cache=options.cache, settings=settings, progress=progress)
        for table in duo_tables(found[kind]):
            terminal.show(table)
    figures = [] if options.songs else _figures(found)
    if write is not None:
        (write / "duo.md").write_text(_page(options, found, figures), encoding="utf-8")
    return figures


def _figures(found: Mapping[str, DuoEvaluation]) -> list[Figure]:
    figures = []
    for kind, evaluation in found.items():
        real = next(c for c in evaluation.contestants if c.name == REAL).time
        for contestant in evaluation.contestants:
            if contestant.name in ANCHORS:
                continue
            time, goal = contestant.time, _STEADY_GOALS.get(kind) if contestant.name in _GOAL_MODES else None
            name = f"{contestant.name}, {kind}"
            r, part = time.r_grid or 0.0, real.r_grid
            figures.append(Figure(f"R on the band's grid: {name}", r, "", goal, True, "the real parts", part))
            within_goal = 0.85 if contestant.name == "couple" and kind in _STEADY_GOALS else None
            moved, within = time.within_moved, time.within or 0.0
            figures.append(Figure(f"within 40 ms of the band: {name}", within, "", within_goal, True, "moved in time", moved))
    return figures


def _page(options: DuoOptions, found: Mapping[str, DuoEvaluation], figures: Sequence[Figure]) -> str:
    lines = [
        "# Results: duo",
        "",
        f"Generated on {datetime.now(UTC).date()} by `python -m benchmarks duo --split {options.split} --write docs/results`.",
        f"Songs of the split {options.split!r} of `benchmarks.duo_material`: multitrack MIDI of Freedoom and accompaniments",
        "by mma with a melody of ours, rendered, player and band often with different soundfonts. A partner learns the first",
        "half of the band and answers the player on the second; it never hears the band there. No setting is touched. In",
        "brackets 95 % intervals, a bootstrap over songs. R: mean resultant length of onsets on the grid of 16ths, 8ths,",
        "triplets, and on the one of 16ths and triplets that fits the song. The player's own notes are no part of the band.",
        "",
    ]
    for kind, evaluation in found.items():
        header, *rows = table_cells(evaluation)
        chance = "" if evaluation.chance_r is None else f"; R by chance is {evaluation.chance_r:.2f}"
        lines += [f"## {kind.capitalize()}", "", f"{len(evaluation.songs)} songs{chance}.", ""]
        lines += [
            "| " + " | ".join(header) + " |",
            "|" + "---|" * len(header),
            *("| " + " | ".join(row) + " |" for row in rows),
            "",
        ]
    if figures:
        lines += ["## Goals", "", "| figure | measured | goal | | beside it |", "|---|---|---|---|---|"]
    for f in figures:
        verdict = "" if f.goal is None else "met" if f.met else "**missed**"
        peer = "" if f.peer is None or f.peer_value is None else f"{f.peer}: {f.peer_value:.2f}"
        lines.append(f"| {f.name} | {f.value:.2f} | {'' if f.goal is None else f'≥ {f.goal:g}'} | {verdict} | {peer} |")
    return "\n".join(lines).rstrip() + "\n"
