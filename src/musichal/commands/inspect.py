"""`musichal inspect`: what a partner learned."""

from collections.abc import Iterator
from pathlib import Path

from rich.console import Group
from rich.table import Table

from musichal.commands.options import check_outputs
from musichal.commands.terminal import Terminal, table_of
from musichal.evaluate.partner_stats import Diversity, HearingStats, MemoryStats, PartnerStats, RecordingStats, partner_stats
from musichal.hearing.percepts import SOURCES
from musichal.memory.partner_file import load_partner
from musichal.plots.partner import draw_partner
from musichal.plots.style import picture_format, save_figure
from musichal.text import clock, counted, pitch_name, printable


def inspect_command(*, partner: Path, terminal: Terminal, picture: Path | None = None) -> None:
    """Show what a partner learned, as tables, JSON and a picture."""
    if picture is not None:
        picture_format(picture)
        check_outputs([picture], inputs=[partner])
    model = load_partner(partner)
    stats = partner_stats(model)
    terminal.result({"partner": str(partner), **stats.to_dict()})
    terminal.show(Group(*stats_tables(stats)))
    if picture is not None:
        with terminal.progress("Drawing"):
            save_figure(draw_partner(model), picture)
        terminal.say(f"Wrote {printable(picture)}")


def stats_tables(stats: PartnerStats) -> Iterator[Table]:
    """Return the statistics as tables for a terminal."""
    yield table_of("How it hears", ("", ""), _hearing_rows(stats.hearing))
    columns = ("name", "length", "segments", "frames", "closed form", "onsets", "sound")
    yield table_of("Recordings", columns, [_recording_row(r) for r in stats.recordings], right=True)
    yield table_of("Vocabulary", ("", *SOURCES), _diversity_rows(stats.diversity), right=True)
    yield table_of("Memory", ("", ""), _memory_rows(stats.memory))
    yield table_of("Repetition", ("", *SOURCES, "oracle"), _repetition_rows(stats), right=True)


def _hearing_rows(hearing: HearingStats) -> list[tuple[str, ...]]:
    placed = "on a grid" if hearing.policy == "grid" else "cut at onsets"
    return [
        ("fingerprint", hearing.fingerprint[:16]),
        ("encoder", f"{hearing.encoder} ({hearing.encoder_licence})"),
        ("sounds per source", str(hearing.vocabulary_size)),
        ("segments", f"{_ms(hearing.segment_s)} every {_ms(hearing.hop_s)}, {placed}"),
        ("in view", f"{_ms(hearing.context_s)} before each segment, {_ms(hearing.lookahead_s)} behind it"),
        ("frames", f"{hearing.frames_per_second:.1f} per second at {hearing.sample_rate_hz} Hz"),
        ("gate", f"opens at {hearing.gate_open_db:.0f} dBFS, closes at {hearing.gate_close_db:.0f} dBFS"),
    ]


def _ms(seconds: float) -> str:
    return f"{round(1000 * seconds, 1):g} ms"


def _recording_row(recording: RecordingStats) -> tuple[str, ...]:
    if recording.frames_expected is None:
        closed_form = "none: segments follow onsets"
    else:
        closed_form = "equal" if recording.count_agrees else f"DIFFERS: {recording.frames_expected}"
    return (
        recording.name,
        clock(recording.duration_s),
        "" if recording.segments is None else str(recording.segments),
        str(recording.frames),
        closed_form,
        str(recording.onsets),
        "kept" if recording.has_audio else "not kept",
    )


def _diversity_rows(diversity: tuple[Diversity, ...]) -> list[tuple[str, ...]]:
    return [
        ("sounds used", *(f"{d.unique} of {d.size}" for d in diversity)),
        ("perplexity", *(f"{d.perplexity:.1f}" for d in diversity)),
        ("commonest sound", *(f"{d.top_share:.1%}" for d in diversity)),
        ("commonest three", *(f"{d.top_three_share:.1%}" for d in diversity)),
        ("silent", *(f"{d.silent_share:.1%}" for d in diversity)),
        ("changes per second", *(f"{d.changes_per_second:.1f}" for d in diversity)),
    ]


def _memory_rows(memory: MemoryStats) -> list[tuple[str, ...]]:
    if memory.lowest_pitch is None or memory.highest_pitch is None:
        pitches = "no notes"
    else:
        pitches = f"{pitch_name(memory.lowest_pitch)} to {pitch_name(memory.highest_pitch)}"
    return [
        ("gestures", f"{memory.states} ({memory.states_per_second:.1f} per second)"),
        ("median gesture", f"{memory.median_duration_s * 1000:.0f} ms"),
        ("gestures that start at an onset", f"{memory.share_at_onsets:.0%}"),
        ("gestures with notes", f"{memory.share_with_notes:.0%}"),
        ("notes", f"{memory.notes} ({memory.notes_per_second:.1f} per second)"),
        ("pitches", pitches),
    ]


def _repetition_rows(stats: PartnerStats) -> list[tuple[str, ...]]:
    oracle = stats.oracle
    longest, places = [], []
    for repetition in stats.repetition:
        repeat = repetition.longest
        if repeat is None:
            longest.append("nothing repeats")
            places.append("")
            continue
        longest.append(f"{counted(repeat.gestures, 'gesture')}, {repeat.duration_s:.1f} s")
        ends = ((repeat.first_recording, repeat.first_start_s), (repeat.again_recording, repeat.again_start_s))
        several = len(stats.recordings) > 1
        places.append(", ".join(clock(s) + (f" in {stats.recordings[r].name}" if several else "") for r, s in ends))
    return [
        ("longest repeat", *longest, counted(oracle.longest_repeat, "gesture")),
        ("it is at", *places, ""),
        ("mean repeat, gestures", *(f"{r.mean_repeat:.2f}" for r in stats.repetition), f"{oracle.mean_repeat:.2f}"),
        (
            "information rate, bits per gesture",
            *(f"{r.information_rate_bits:.2f}" for r in stats.repetition),
            f"{oracle.information_rate_bits:.2f}",
        ),
        ("threshold", "", "", f"{oracle.threshold:.4g}"),
        ("clusters, links", "", "", f"{oracle.clusters}, {oracle.links} ({oracle.dims} dimensions)"),
    ]
