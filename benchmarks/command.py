"""Measure the parts, compare each figure with its goal and its peer, and write result pages."""

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.table import Table

from benchmarks.duo_command import DuoOptions, measure_duo
from benchmarks.figure import Figure
from benchmarks.influence_quality import measure_influences
from musichal.commands.play import RECORDING
from musichal.commands.terminal import Terminal
from musichal.errors import CheckFailedError, InputError

LEARNED_PART = "encoder"
PARTS = (
    *("hearing", "memory", "tokens", "notes", "pulse", "partner", "drift", "scheduler", "live", "soak"),
    *("archive", "drums", "duo", "influences", LEARNED_PART),
)
USUAL_PARTS = PARTS[:-9]
"""Measured where nothing is named.

Drift needs recordings of its own, archive an hour and tens of GB, drums, duo and influences their material, scheduler and live
a JACK server, soak many minutes, the learned encoder an extra."""


def bench_command(
    parts: Sequence[str],
    recordings: Sequence[Path],
    *,
    weights: Path | None = None,
    duo: DuoOptions | None = None,
    write: Path | None = None,
    terminal: Terminal,
) -> None:
    """Measure the parts asked for and show each figure beside its goal and its peer.

    `weights` is a folder for the part `encoder`, which has random ones otherwise; `duo` says which songs and modes. `write` is
    a folder that gets one dated Markdown page per part.

    Raises
    ------
    CheckFailedError
        If a figure misses its goal.
    MusicHalError
        For an unknown part, a missing extra, or a recording that cannot be heard.
    """
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise InputError(f"there is no benchmark {unknown[0]!r}; there are: {', '.join(PARTS)}")
    if write is not None:
        write.mkdir(parents=True, exist_ok=True)  # before minutes of measuring
    figures: list[Figure] = []
    measured: Sequence[Figure]
    with terminal.progress("Measuring") as tell:
        for number, part in enumerate(parts):
            tell(f"Measuring {part}", number / len(parts))
            if part == "duo":
                measured = measure_duo(duo or DuoOptions(), terminal=terminal, progress=tell, write=write)
                figures += measured
                continue
            if part == "influences":
                options = duo or DuoOptions()
                figures += measure_influences(
                    split=options.split, most=options.songs, cache=options.cache, progress=tell, write=write
                )
                continue
            measured = _measure(part, recordings or [RECORDING], weights)
            figures += measured
            if write is not None:
                page = write / f"{part}.md"
                _, begins, by_hand = (page.read_text("utf-8") if page.exists() else "").partition("\n## ")
                page.write_text(_page(part, recordings, measured) + begins + by_hand, encoding="utf-8")
    terminal.result({"machine": _machine(), "figures": [asdict(f) | {"met": f.met} for f in figures]})
    if figures:
        terminal.show(_table(figures))
    missed = [f for f in figures if not f.met]
    if missed:
        raise CheckFailedError(f"{len(missed)} of {len(figures)} figures miss their goal: {', '.join(f.name for f in missed)}")


def _measure(part: str, recordings: Sequence[Path], weights: Path | None) -> Sequence[Figure]:
    if part == LEARNED_PART:
        from benchmarks.encoder_speed import measure_encoder

        return measure_encoder(recordings, weights)
    from benchmarks import (
        archive_speed,
        drift_quality,
        drum_quality,
        hearing_speed,
        live_speed,
        memory_speed,
        note_quality,
        partner_speed,
        pulse_quality,
        scheduler_speed,
        soak,
        token_quality,
    )

    measures: dict[str, Callable[[], Sequence[Figure]]] = {
        "hearing": lambda: hearing_speed.measure_hearing(recordings),
        "memory": memory_speed.measure_memory,
        "tokens": token_quality.measure_tokens,
        "notes": note_quality.measure_notes,
        "pulse": pulse_quality.measure_pulse,
        "partner": partner_speed.measure_partner,
        "drift": lambda: drift_quality.measure_drift(recordings),
        "scheduler": scheduler_speed.measure_scheduler,
        "live": live_speed.measure_live,
        "soak": soak.measure_soak,
        "archive": lambda: archive_speed.measure_archive(recordings),
        "drums": drum_quality.measure_drums,
    }
    return measures[part]()


def _page(part: str, recordings: Sequence[Path], figures: Sequence[Figure]) -> str:
    """Return the results of a part as a Markdown page."""
    given = "".join(f" --recording {path}" for path in recordings)
    lines = [
        f"# Results: {part}",
        "",
        f"Generated on {datetime.now(UTC).date()} by `python -m benchmarks {part}{given} --write docs/results`.",
        f"{_machine()}, {os.cpu_count()} processors. Compare ratios: speed differs between machines and days.",
        "",
        "| figure | measured | goal | | peer in the same run |",
        "|---|---|---|---|---|",
    ]
    for f in figures:
        goal = "" if f.goal is None else f"{'≥' if f.at_least else '≤'} {f.goal:g}"
        verdict = "" if f.goal is None else "met" if f.met else "**missed**"
        peer = "" if f.peer is None or f.peer_value is None else f"{f.peer}: {f.peer_value:.4g}"
        lines.append(f"| {f.name} | {f.value:.4g} {f.unit} | {goal} | {verdict} | {peer} |")
    return "\n".join(lines) + "\n"


def _machine() -> str:
    return f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"


def _table(figures: Sequence[Figure]) -> Table:
    table = Table(title=f"Measured on {_machine()}")
    for column in ("figure", "measured", "goal", "", "peer"):
        table.add_column(column, justify="left" if column in ("figure", "peer") else "right")
    for f in figures:
        goal = "" if f.goal is None else f"{'≥' if f.at_least else '≤'} {f.goal:g}"
        verdict = "" if f.goal is None else ("met" if f.met else "missed")
        peer = "" if f.peer is None or f.peer_value is None else f"{f.peer}: {f.peer_value:.4g}"
        table.add_row(f.name, f"{f.value:.4g} {f.unit}".rstrip(), goal, verdict, peer)
    return table
