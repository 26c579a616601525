"""The part `duo` of the benchmarks: which songs and modes, its tables, its page."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.duo_quality import play_songs, songs_of
from benchmarks.figure import Figure
from musichal.commands.evaluate_duo import duo_tables
from musichal.commands.options import settings_from
from musichal.commands.terminal import Terminal
from musichal.evaluate.together import Progress

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


def measure_duo(options: DuoOptions, *, terminal: Terminal, progress: Progress, write: Path | None = None) -> list[Figure]:
    """Play the songs and show how each mode does beside the anchors; figures have goals for the split "report" only."""
    settings = settings_from(options.set_)
    songs = songs_of(options.split, most=options.songs or _SONGS)
    found = play_songs(songs, options.modes, cache=options.cache, settings=settings, progress=progress)
    for table in duo_tables(found):
        terminal.show(table)
    del write
    return []
