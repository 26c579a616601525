"""`musichal verify` and `compare`: whether a partner hears live as in training, how two differ; and a partner's figures."""

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from musichal.audio.recording import Recording, read_recordings
from musichal.commands.options import Force, PartnerFile, Report
from musichal.commands.terminal import Terminal, table_of
from musichal.errors import CheckFailedError, InputError
from musichal.evaluate.checks import Retrain
from musichal.evaluate.compare import Comparison, SourceComparison, Split, compare_partners
from musichal.evaluate.partner_stats import Diversity, HearingStats, MemoryStats, PartnerStats, RecordingStats
from musichal.evaluate.tempo_and_chords import ChordStats
from musichal.evaluate.verify import OFFSETS, Verification, subjects, verify_partner
from musichal.hearing.percepts import SOURCES
from musichal.live.output.files import REPORT, check_outputs
from musichal.machine import processors, run_module
from musichal.memory.partner_file import PartnerModel, load_partner, save_partner
from musichal.text import clock, counted, pitch_name, printable, shortened
from musichal.training.trainer import SAMPLE_FRAMES, as_recording, tagged, train

# Terminals of at least this many columns have room for the details of a check.
_WIDE = 120
_VERDICTS = {True: Text("passed", "green"), False: Text("FAILED", "bold red"), None: Text("")}
# A second of frames: agreement of fewer is mostly chance.
_LEAST_MOMENTS = 75
_REST_SHOWN = 0.005
_MOST_CHORDS, _MOST_CHANGES = 6, 16


def verify_command(
    *,
    partner: PartnerFile,
    recordings: Annotated[list[Path] | None, typer.Argument(help="Recordings; default: the partner's own.")] = None,
    report: Report = None,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out other rates, other grids and training again.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random block sizes.")] = 0,
    hours: Annotated[
        float, typer.Option(min=0.001, help="Of a partner of an archive: hear so much of it, evenly spread.")
    ] = 2.0,
    force: Force = False,
    terminal: Terminal,
) -> Verification:
    """Verify a partner with its own recordings, or with others, and show each check.

    Raises `CheckFailedError` if a check fails; what was asked for is shown and written before; `MusicHalError` if the partner
    or a recording cannot be used, or the report cannot be written.
    """
    recordings = recordings or []
    if report is not None:
        report = report / f"{shortened(partner.stem)}-verified.html" if report.is_dir() else report
        check_outputs([(report, REPORT)], inputs=[partner, *recordings], force=force)
    with terminal.progress("Loading the partner") as progress, _again(partner, recordings) as retrain:
        model = load_partner(partner)
        given = read_recordings(recordings, warn=terminal.warn, progress=progress) if recordings else []
        asked = subjects(model, given, most_s=3600 * hours)
        own = sum(r.flac is not None for r in model.recordings)
        sampled = not given and len(asked) < own
        if sampled:
            terminal.warn(f"verified with {len(asked)} of {own} recordings, evenly spread: --hours takes more")
        for subject in asked:
            if subject.stored is None:
                terminal.warn(f"{subject.name} is not one of the partner's recordings: it is heard as new")
        digests = {recording.digest for recording in given}
        complete = not sampled and all(r.flac is not None or r.digest in digests for r in model.recordings)
        verification = verify_partner(
            model,
            asked,
            name=printable(partner.name),
            quick=quick,
            seed=seed,
            partner=partner,
            retrain=retrain if complete else None,
            processors=processors(),
            progress=progress,
        )
        if report is not None:
            from musichal.plots.report import report_html, write_page

            progress("Drawing the report", 1.0)
            write_page(report, report_html(verification))
    terminal.result(verification.to_dict())
    for table in _verification_tables(verification, narrow=terminal.out.width < _WIDE):
        terminal.show(table)
    for check in verification.failed:
        terminal.say(f"{check.group}: {check.name}: {check.detail or check.found}. Likely cause: {check.cause or 'not known'}.")
    if not complete and not quick:
        terminal.say("Training again was skipped: not all of the recordings were heard.")
    if report is not None:
        terminal.say(f"Wrote {printable(report)}")
    if not verification.passed:
        failed = ", ".join(f"{c.group}: {c.name}" for c in verification.failed)
        count = sum(c.passed is not None for c in verification.checks)
        raise CheckFailedError(f"{len(verification.failed)} of {count} checks failed: {failed}")
    terminal.say(f"All {sum(c.passed is True for c in verification.checks)} checks passed.")
    return verification


@contextlib.contextmanager
def _again(partner: Path, recordings: Sequence[Path]) -> Iterator[Retrain]:
    """Give a function that trains the partner again in a process of its own with some number of threads."""
    with tempfile.TemporaryDirectory(prefix="musichal-verify-") as folder:

        def retrain(threads: int) -> Path:
            output = Path(folder) / f"threads-{threads}.hal"
            arguments = [str(path) for path in (partner, output, *recordings)]
            run_module("musichal.commands.check", arguments, threads=threads, what="training again")
            return output

        yield retrain


def retrain_from(model: PartnerModel, given: Sequence[Recording] = ()) -> PartnerModel:
    """Train on a partner's own recordings again, with its spec; `trained_with` is the partner's, so that bytes can agree."""
    by_digest = {recording.digest: recording for recording in given}
    recordings = []
    for stored in model.recordings:
        samples = by_digest[stored.digest].samples if stored.digest in by_digest else stored.samples()
        recordings.append(as_recording(stored, samples))
    keep = all(recording.flac is not None for recording in model.recordings)
    kept = model.vocabularies if model.keeps_vocabularies else None
    frames = int(model.archive.get("sample_frames", SAMPLE_FRAMES))
    again = train(recordings, model.spec, keep_audio=keep, vocabularies=kept, pairs=model.pairs, sample_frames=frames)
    return replace(tagged(again, model), trained_with=model.trained_with, archive=model.archive)


def _verification_tables(verification: Verification, *, narrow: bool) -> Iterator[Table]:
    if verification.diversity:
        columns = ("heard", "source", "unique", "top", "top 3", "perplexity", "silent")
        rows = [
            (
                "" if number else row.label,
                source,
                f"{d.unique}/{d.size} ({d.unique / d.size:.1%})",
                f"{d.top_share:.1%}",
                f"{d.top_three_share:.1%}",
                f"{d.perplexity:.1f}",
                f"{d.silent_share:.1%}",
            )
            for row in verification.diversity
            for number, (source, d) in enumerate(zip(SOURCES, row.diversity, strict=True))
        ]
        yield table_of("Token diversity", columns, rows, box=SIMPLE_HEAD)
    if verification.shift:
        shifts = [
            (
                f"{row.offset_s * 1000:.1f} ms{' (between frames)' if number >= OFFSETS else ''}",
                *(f"{share:.1%}" for share in row.shares),
            )
            for number, row in enumerate(verification.shift)
        ]
        title = "Share of tokens that stay the same when the grid is shifted"
        yield table_of(title, ("offset", *SOURCES), shifts, right=True, box=SIMPLE_HEAD)
    details = [] if narrow else ["detail"]
    checks: list[tuple[str | Text, ...]] = []
    group = ""
    for check in verification.checks:
        words = (check.group if check.group != group else "", check.name, check.expected, check.found)
        checks.append((*words, _VERDICTS[check.passed], *([] if narrow else [check.detail])))
        group = check.group
    title = f"{verification.partner}: live against training"
    yield table_of(title, ("", "check", "expected", "found", "", *details), checks, box=SIMPLE_HEAD)


# ── compare ──────────────────────────────────────────────────────────────────


def compare_command(
    *,
    first: Annotated[Path, typer.Argument(help="A partner file.")],
    second: Annotated[Path, typer.Argument(help="Another one.")],
    recording: Annotated[
        Path | None, typer.Argument(help="What both hear; default: the longest recording in the first partner.")
    ] = None,
    terminal: Terminal,
) -> Comparison:
    """Let two partners hear a recording (default: the longest in the first partner) and show what differs."""
    with terminal.progress("Loading the partners") as progress:
        models = load_partner(first), load_partner(second)
        if recording is not None:
            (read,) = read_recordings([recording], warn=terminal.warn)
            name, rate, samples, take = read.name, read.sample_rate_hz, read.samples, read.take
        else:
            stored = [r for r in models[0].recordings if r.flac is not None]
            if not stored:
                raise InputError(f"{printable(first)} was trained with --no-audio: name a recording for both partners to hear")
            longest = max(stored, key=lambda r: r.duration_s)
            name, rate, samples, take = longest.name, longest.sample_rate_hz, longest.samples(), longest.take
        comparison = compare_partners(*models, samples, name=name, sample_rate_hz=rate, take=take, progress=progress)
    terminal.result({"first": str(first), "second": str(second), **comparison.to_dict()})
    for source in comparison.sources:
        if source.agreement.moments < _LEAST_MOMENTS:
            terminal.warn(f"{name}: only {source.agreement.moments} {source.source} frames sound to both: too few to judge")
    for table in _comparison_tables(comparison, (printable(first.name), printable(second.name))):
        terminal.show(table)
    if comparison.hear_alike:
        terminal.say(f"Both hear {comparison.recording} alike: the same sounds at the same times.")
    else:
        words = [f"{s.source} {s.agreement.adjusted_rand:.2f} (Rand index {s.agreement.rand:.1%})" for s in comparison.sources]
        terminal.say(
            f"Agreement on which frames of {comparison.recording} sound the same (0: chance, 1: perfect): {', '.join(words)}."
        )
    return comparison


def _comparison_tables(comparison: Comparison, names: tuple[str, str]) -> Iterator[Table]:
    differences = [
        *((name, str(a), str(b)) for name, a, b in comparison.spec_differences),
        *((f"trained with {name}", a, b) for name, a, b in comparison.installation_differences),
    ]
    yield table_of("How they hear", ("", *names), differences or [("spec", "the same", "the same")])
    sources = comparison.sources
    yield table_of(
        f"In {comparison.recording}, {clock(comparison.duration_s)}",
        ("", *names),
        [
            ("was trained on it", *("yes" if learned else "no" for learned in comparison.learned)),
            ("frames", *map(str, comparison.frames)),
            ("gestures per second", *(f"{value:.2f}" for value in comparison.gestures_per_second)),
            ("gesture starts in common (F)", f"{comparison.shared_gesture_starts:.2f}", ""),
            ("notes", *map(str, comparison.notes)),
            *((f"{s.source} sounds used", *(f"{d.unique} of {d.size}" for d in s.diversity)) for s in sources),
            *((f"{s.source} perplexity", *(f"{d.perplexity:.1f}" for d in s.diversity)) for s in sources),
            *((f"{s.source} silent", *(f"{d.silent_share:.1%}" for d in s.diversity)) for s in sources),
        ],
    )
    yield table_of(
        "Agreement",
        ("", *SOURCES),
        [
            ("same vocabulary", *("yes" if same else "no" for same in comparison.same_vocabularies)),
            ("frames compared", *(str(s.frames) for s in sources)),
            ("both or neither silent", *(f"{s.silence_agreement:.1%}" for s in sources)),
            ("same or different sound (Rand index)", *(f"{s.agreement.rand:.1%}" for s in sources)),
            ("the same beyond chance (adjusted Rand)", *(f"{s.agreement.adjusted_rand:.2f}" for s in sources)),
            ("mutual information, bits", *(f"{s.agreement.information_bits:.2f}" for s in sources)),
            ("normalised mutual information", *(f"{s.agreement.normalised_information:.2f}" for s in sources)),
        ],
    )
    rows = [row for s in sources for row in _split_rows(s, names)]
    if rows:
        yield table_of("Where they differ most", ("source", "one sound to", "heard as", "first at"), rows)


def _split_rows(comparison: SourceComparison, names: tuple[str, str]) -> Iterator[tuple[str, ...]]:
    def row(split: Split, one: str, other: str) -> tuple[str, ...]:
        parts = [f"{token} ({share:.0%})" for token, share in split.parts]
        rest = 1 - sum(share for _, share in split.parts)
        if rest > _REST_SHOWN:
            parts.append(f"others ({rest:.0%})")
        words = f"{other}: {', '.join(parts)}" if split.parts else f"{other}: many sounds, none above 10%"
        return (comparison.source, f"{one}: {split.token}, {split.frames} frames", words, clock(split.first_s))

    yield from (row(split, *names) for split in comparison.split_by_second)
    yield from (row(split, names[1], names[0]) for split in comparison.split_by_first)


if __name__ == "__main__":
    source, output, *others = map(Path, sys.argv[1:])
    own = read_recordings(others, warn=lambda _text: None) if others else []
    save_partner(output, retrain_from(load_partner(source), own))


def stats_tables(stats: PartnerStats) -> Iterator[Table]:
    """Return the statistics as tables for a terminal."""
    yield table_of("How it hears", ("", ""), _hearing_rows(stats.hearing))
    columns = ("name", "length", "segments", "frames", "closed form", "onsets", "sound")
    yield table_of("Recordings", columns, [_recording_row(r) for r in stats.recordings], right=True)
    yield table_of("Beats", ("name", "tempo", "sure", "drum hits"), [_beat_row(r) for r in stats.recordings])
    yield from chord_tables(stats)
    yield table_of("Vocabulary", ("", *SOURCES), _diversity_rows(stats.diversity), right=True)
    yield table_of("Memory", ("", ""), _memory_rows(stats.memory))
    yield table_of("Repetition", ("", *SOURCES, "oracle"), _repetition_rows(stats), right=True)


def chord_tables(stats: PartnerStats) -> Iterator[Table]:
    """Return chords, regions and pairs as tables for a terminal."""
    if stats.chords:
        yield table_of("Chords", ("name", "of the time", "begins with"), [_chord_row(chords) for chords in stats.chords])
    if regions := [(c.recording, text, f"{clock(s)} to {clock(end_s)}") for c in stats.chords for text, s, end_s in c.regions]:
        yield table_of("Regions, by their markers", ("name", "region", ""), regions)
    if stats.pairs:
        rows = [(pair.player, pair.others, f"{pair.offset_s:+.2f} s", str(pair.gestures)) for pair in stats.pairs]
        yield table_of("Pairs", ("player", "answered by", "offset", "gestures of the player"), rows, right=True)


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


def _beat_row(recording: RecordingStats) -> tuple[str, ...]:
    if recording.tempo is None:
        how = "`musichal rehear` finds it" if recording.has_audio else "its sound was left out: train again"
        return (recording.name, f"not looked for, from before beats were kept: {how}", "", "")
    hits = ", ".join(f"{count} {name}" for name, count in recording.hits.items())
    return (recording.name, recording.tempo.words, f"{recording.tempo.sure_share:.0%} of the time", hits or "none")


def _chord_row(chords: ChordStats) -> tuple[str, ...]:
    shares = [f"{name} {share:.0%}" for name, share in chords.shares.items()]
    names = [name for _, name in chords.changes]
    words = (", ".join(shares[:_MOST_CHORDS]), " ".join(names[:_MOST_CHANGES]) + " …" * (len(names) > _MOST_CHANGES))
    return (chords.recording, *words)


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
