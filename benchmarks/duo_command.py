"""The part `duo` of the benchmarks: which songs and modes, its tables, its page."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.duo_quality import play_songs, songs_of
from benchmarks.figure import Figure
from musichal.commands.evaluate import duo_tables
from musichal.commands.options import settings_from
from musichal.commands.terminal import Terminal, table_of
from musichal.evaluate.duos import choice_rows, harmony_rows, time_rows
from musichal.evaluate.harmony_together import HarmonyTogether
from musichal.evaluate.time_together import intervals
from musichal.evaluate.together import ANCHORS, REAL, DuoContestant, DuoEvaluation, Played, Progress

CACHE = Path(tempfile.gettempdir()) / "musichal-duo-cache"


@dataclass(frozen=True)
class DuoOptions:
    """What the part `duo` plays: songs of a `split` (so many of them), `modes`, settings, and where it keeps what it heard.

    With `pairs` it plays the melody alone, with a memory of the band alone and of pairs; with `midi` the melody alone and with
    drums, as recordings and as MIDI files that are learned and play with their own notes.
    """

    split: str = "report"
    songs: int | None = None
    modes: tuple[str, ...] = ("couple", "lead", "contrast", "shadow")
    set_: tuple[str, ...] = ()
    cache: Path = CACHE
    pairs: bool = False
    midi: bool = False


_ALONE, _PAIRS = "melody alone", "melody alone, learned beside the player (pairs)"
_DRUMS, _MIDI, _MIDI_DRUMS = "player with drums", "melody alone, MIDI files", "player with drums, MIDI files"
_KINDS: Mapping[str, tuple[Mapping[str, Any], int | None, int]] = {
    _ALONE: ({}, None, 1),
    _PAIRS: ({"pairs": True}, None, 1),
    _MIDI: ({"midi": True}, None, 1),
    _DRUMS: ({"with_drums": True}, 10, 1),
    _MIDI_DRUMS: ({"with_drums": True, "midi": True}, 10, 1),
    # Beats until back differ from one performance of these few songs to the next.
    "tempo changes by 8 %, melody alone": ({"sets": ("tempo_push",)}, 6, 5),
    "the key jumps by a tritone and back, melody alone": ({"sets": ("key_push",)}, 8, 1),
}
"""Which songs, at most how many (None for all), and how often each is played."""
_TUNE_GOALS = {"couple": (0.86, 0.15), "shadow": (0.88, 0.15), "contrast": (0.84, None)}
"""Agreement with band and player, and with the band alone above the same answer moved."""
_STEADY_GOALS = {"melody alone": 0.60, "player with drums": 0.85}
_GOAL_MODES = ("couple", "lead", "contrast")


def measure_duo(options: DuoOptions, *, terminal: Terminal, progress: Progress, write: Path | None = None) -> list[Figure]:
    """Play the songs and show how each mode does beside the anchors.

    A number of `songs` plays so many with the melody alone, as for tuning. Without one, songs with drums in the player's
    recording and changes of tempo follow, and the figures have goals. `write` is a folder that gets the page.
    """
    settings = settings_from(options.set_)
    found: dict[str, DuoEvaluation] = {}
    for kind in _chosen(options):
        which, most, times = _KINDS[kind]
        songs = songs_of(options.split, most=options.songs or most, **which)
        found[kind] = play_songs(
            songs, options.modes, cache=options.cache, settings=settings, times=times, progress=progress
        )  # fmt: skip
        for table in duo_tables(found[kind]):
            terminal.show(table)
    for title, (header, *rows) in _gains(found):
        terminal.show(table_of(f"{title}, 95 % intervals over songs", header, rows, right=True))
    figures = [] if options.songs or options.pairs or options.midi else _figures(found)
    if write is not None:
        page = "midi.md" if options.midi else "duo.md"
        (write / page).write_text(_page(options, found, figures), encoding="utf-8")
    return figures


def _chosen(options: DuoOptions) -> tuple[str, ...]:
    if options.pairs:
        return _ALONE, _PAIRS
    if options.midi:
        return _ALONE, _MIDI, _DRUMS, _MIDI_DRUMS
    return (_ALONE,) if options.songs else tuple(kind for kind in _KINDS if kind not in (_MIDI, _MIDI_DRUMS))


def _gains(found: Mapping[str, DuoEvaluation]) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """Yield a title and a table for each kind that is measured beside another."""
    for title, before, after in (
        ("Pairs less the band alone", _ALONE, _PAIRS),
        ("MIDI files less recordings, melody alone", _ALONE, _MIDI),
        ("MIDI files less recordings, player with drums", _DRUMS, _MIDI_DRUMS),
    ):
        if before in found and after in found:
            yield title, list(gain_rows(found[before], found[after]))


@dataclass(frozen=True)
class _Gain:
    """By how much one way is better than another in one song."""

    song: str
    agreement: float | None
    band_above_moved: float | None
    within: float | None
    like_above_any: float | None
    r_grid: float | None


def gain_rows(alone: DuoEvaluation, other: DuoEvaluation) -> Iterator[tuple[str, ...]]:
    """Yield a header and a row for each mode: the difference of each measure in the same songs, and its interval."""
    yield "", "agrees with band and player", "band alone, above moved", "within 40 ms", "like the band", "R their grid"
    names = [field.name for field in fields(_Gain)[1:]]
    for mode in (name for name in alone.songs[0].played if name not in ANCHORS):
        gains = [
            _Gain(song.name, *(_difference(before.played[mode], song.played[mode], name) for name in names))
            for before, song in zip(alone.songs, other.songs, strict=True)
        ]
        limits = intervals(gains, rng=np.random.default_rng(0))
        known = {name: [gain for each in gains if (gain := getattr(each, name)) is not None] for name in names}
        yield (
            mode,
            *(
                f"{np.mean(known[name]):+.3f} ({limits[name][0]:+.3f} to {limits[name][1]:+.3f})" if name in limits else ""
                for name in names
            ),
        )


def _difference(before: Played, after: Played, name: str) -> float | None:
    low, high = (getattr(played.time if name in ("within", "r_grid") else played.harmony, name) for played in (before, after))
    return None if low is None or high is None else high - low


def _figures(found: Mapping[str, DuoEvaluation]) -> list[Figure]:
    figures = []
    for kind, evaluation in found.items():
        real = next(c for c in evaluation.contestants if c.name == REAL)
        for contestant in evaluation.contestants:
            if contestant.name in ANCHORS:
                continue
            time, goal = contestant.time, _STEADY_GOALS.get(kind) if contestant.name in _GOAL_MODES else None
            name = f"{contestant.name}, {kind}"
            r, part = time.r_grid or 0.0, real.time.r_grid
            figures.append(Figure(f"R on the band's grid: {name}", r, "", goal, True, "the real parts", part))
            within_goal = 0.85 if contestant.name == "couple" and kind in _STEADY_GOALS else None
            moved, within = time.within_moved, time.within or 0.0
            figures.append(Figure(f"within 40 ms of the band: {name}", within, "", within_goal, True, "moved in time", moved))
            figures += _harmony_figures(contestant, real.harmony, kind)
    return figures


def _harmony_figures(contestant: DuoContestant, real: HarmonyTogether, kind: str) -> Iterator[Figure]:
    mode, found = contestant.name, contestant.harmony
    name = f"{mode}, {kind}"
    agrees, above = _TUNE_GOALS.get(mode, (None, None)) if kind == "melody alone" else (None, None)
    yield Figure(
        f"agrees with band and player: {name}", found.agreement or 0.0, "", agrees, True, "the real parts", real.agreement
    )
    if kind != "melody alone":
        return
    yield Figure(f"with the band alone, above moved: {name}", found.band_above_moved or 0.0, "", above, True)
    in_chord = 0.71 if mode == "couple" else None
    yield Figure(f"in the chord: {name}", found.in_chord or 0.0, "", in_chord, True, "the real parts", real.in_chord)
    yield Figure(f"choices without support: {name}", found.no_support or 0.0, "", 0.0, False)
    yield Figure(f"choices under half of the best: {name}", found.under_half or 0.0, "", 0.05, False)
    if mode == "couple":
        yield Figure(f"learned influences: {name}", found.learned or 0.0, "", 0.25, True)
        yield Figure(f"moves the key within a phrase: {name}", found.transposition_changes or 0.0, "", 0.125, False)


def _count(kind: str, evaluation: DuoEvaluation) -> str:
    """Return what was played."""
    times = _KINDS[kind][2]
    often = f", {times} performances of each (brackets over these; the median beats until back)" if times > 1 else ""
    return f"{len(evaluation.songs) // times} songs{often}"


def _page(options: DuoOptions, found: Mapping[str, DuoEvaluation], figures: Sequence[Figure]) -> str:
    lines = [
        f"# Results: duo{', MIDI files beside recordings' if options.midi else ''}",
        "",
        f"Generated on {datetime.now(UTC).date()} by `python -m benchmarks duo --split {options.split}"
        f"{' --midi' * options.midi} --write docs/results`.",
        f"Songs of the split {options.split!r} of `benchmarks.duo_material`: multitrack MIDI of Freedoom and accompaniments",
        "by mma with a melody of ours, rendered, player and band often with different soundfonts. A partner learns the first",
        "half of the band and answers the player on the second; it never hears the band there. No setting is touched. In",
        "brackets 95 % intervals, a bootstrap over songs. R: mean resultant length of onsets on the grid of 16ths, 8ths,",
        "triplets, and on the one of 16ths and triplets that fits the song. The player's own notes are no part of the band.",
        "",
    ]
    for kind, evaluation in found.items():
        chance = "" if evaluation.chance_r is None else f"; R by chance is {evaluation.chance_r:.2f}"
        lines += [f"## {kind.capitalize()}", "", f"{_count(kind, evaluation)}{chance}.", ""]
        for header, *rows in (time_rows(evaluation), harmony_rows(evaluation), choice_rows(evaluation)):
            lines += [
                "| " + " | ".join(header) + " |",
                "|" + "---|" * len(header),
                *("| " + " | ".join(row) + " |" for row in rows),
                "",
            ]
    for title, (header, *rows) in _gains(found):
        lines += [f"## {title}, in the same songs", "", "| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
        lines += ["| " + " | ".join(row) + " |" for row in rows]
        lines.append("")
    if figures:
        lines += ["## Goals", "", "| figure | measured | goal | | beside it |", "|---|---|---|---|---|"]
    for f in figures:
        verdict = "" if f.goal is None else "met" if f.met else "**missed**"
        peer = "" if f.peer is None or f.peer_value is None else f"{f.peer}: {f.peer_value:.2f}"
        goal = "" if f.goal is None else f"{'≥' if f.at_least else '≤'} {f.goal:g}"
        lines.append(f"| {f.name} | {f.value:.2f} | {goal} | {verdict} | {peer} |")
    return "\n".join(lines).rstrip() + "\n"
