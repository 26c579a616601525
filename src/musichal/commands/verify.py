"""`musichal verify`: whether a partner hears live as it did in training."""

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from musichal.audio.recording import Recording, collect_recordings, read_recording
from musichal.commands.outputs import check_outputs
from musichal.commands.terminal import Terminal
from musichal.errors import CheckFailedError
from musichal.evaluate.checks import Check, Retrain
from musichal.evaluate.token_stats import DiversityRow
from musichal.evaluate.verify import OFFSETS, Verification, subjects, verify_partner
from musichal.hearing.percepts import SOURCES
from musichal.machine import processors
from musichal.memory.partner_file import PartnerModel, load_partner, save_partner
from musichal.own_process import run_module
from musichal.text import printable
from musichal.training.rehearing import as_recording
from musichal.training.trainer import train

if TYPE_CHECKING:
    from rich.console import RenderableType

# Columns of a terminal in which details have room beside what they are of.
_WIDE = 120
_VERDICTS = {True: Text("passed", "green"), False: Text("FAILED", "bold red"), None: Text("")}


def verify_command(
    partner: Path, recordings: Sequence[Path], *, report: Path | None, quick: bool, seed: int, voice: Terminal
) -> Verification:
    """Verify a partner with its own recordings, or with others, and show each check.

    Raises
    ------
    CheckFailedError
        If a check fails; what was asked for is shown and written before.
    MusicHalError
        If the partner or a recording cannot be used, or the report cannot be written.
    """
    if report is not None:
        report = report / f"{partner.stem}-verified.html" if report.is_dir() else report
        check_outputs([report], inputs=[partner, *recordings])
    with voice.progress("Loading the partner") as tell, _again(partner, recordings) as retrain:
        model = load_partner(partner)
        given = [read_recording(file) for file in collect_recordings(recordings)] if recordings else []
        for recording in given:
            for warning in recording.warnings:
                voice.warn(f"{recording.name}: {warning}")
        asked = subjects(model, given)
        for subject in asked:
            if subject.stored is None:
                voice.warn(f"{subject.name} is none of the partner's recordings: it is heard as new")
        whole = _whole(model, given)
        verification = verify_partner(
            model,
            asked,
            name=printable(partner.name),
            quick=quick,
            seed=seed,
            partner=partner,
            retrain=retrain if whole else None,
            processors=processors(),
            progress=tell,
        )
        if report is not None:
            from musichal.plots.report import write_report

            tell("Drawing the report", 1.0)
            write_report(verification, report)
    voice.result(verification.to_dict())
    for table in _tables(verification, narrow=voice.out.width < _WIDE):
        voice.show(table)
    for check in verification.failed:
        voice.say(f"{check.group}: {check.name}: {check.detail or check.found}. Likely cause: {check.cause or 'not known'}.")
    if not whole and not quick:
        voice.say("Training again was not asked: not all of the recordings are here.")
    if report is not None:
        voice.say(f"Wrote {printable(report)}")
    if not verification.passed:
        failed = ", ".join(f"{c.group}: {c.name}" for c in verification.failed)
        asked_checks = sum(c.passed is not None for c in verification.checks)
        raise CheckFailedError(f"{len(verification.failed)} of {asked_checks} checks failed: {failed}")
    voice.say(f"All {sum(c.passed is True for c in verification.checks)} checks passed.")
    return verification


def _whole(model: PartnerModel, given: Sequence[Recording]) -> bool:
    """Return whether the sound of every recording of the partner is at hand."""
    digests = {recording.digest for recording in given}
    return all(r.flac is not None or r.digest in digests for r in model.recordings)


@contextlib.contextmanager
def _again(partner: Path, recordings: Sequence[Path]) -> Iterator[Retrain]:
    """Give a way to train the partner again, in a process of its own with so many threads; its files go afterwards."""
    with tempfile.TemporaryDirectory(prefix="musichal-verify-") as folder:

        def retrain(threads: int) -> Path:
            output = Path(folder) / f"threads-{threads}.hal"
            arguments = [str(path) for path in (partner, output, *recordings)]
            run_module("musichal.commands.verify", arguments, threads=threads, what="training again")
            return output

        yield retrain


def retrain_from(model: PartnerModel, given: Sequence[Recording] = ()) -> PartnerModel:
    """Train on a partner's own recordings again, with its spec; `trained_with` is the partner's, so that bytes can agree.

    Raises
    ------
    MusicHalError
        If the sound of a recording is not at hand.
    """
    by_digest = {recording.digest: recording for recording in given}
    recordings = []
    for stored in model.recordings:
        samples = by_digest[stored.digest].samples if stored.digest in by_digest else stored.samples()
        recordings.append(as_recording(stored, samples))
    keep = all(recording.flac is not None for recording in model.recordings)
    kept = model.vocabularies if model.keeps_vocabularies else None
    again = train(recordings, model.spec, keep_audio=keep, vocabularies=kept)
    return replace(again, trained_with=model.trained_with)


def _tables(verification: Verification, *, narrow: bool) -> "Iterator[RenderableType]":
    if verification.diversity:
        yield _diversity_table(verification.diversity)
    if verification.shift:
        yield _shift_table(verification)
    yield _check_table(verification.checks, f"{verification.partner}: live against training", narrow=narrow)


def _check_table(checks: Sequence[Check], title: str, *, narrow: bool) -> Table:
    """Return the checks; where the terminal is narrow without their details, which are said of those that failed."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for column in ("", "asked", "expected", "found", "", *([] if narrow else ["detail"])):
        table.add_column(column, overflow="fold")
    group = ""
    for check in checks:
        # As `Text`, so that a recording's name cannot be taken for markup.
        words = (check.group if check.group != group else "", check.name, check.expected, check.found)
        table.add_row(*map(Text, words), _VERDICTS[check.passed], *([] if narrow else [Text(check.detail)]))
        group = check.group
    return table


def _diversity_table(rows: Sequence[DiversityRow]) -> Table:
    table = Table(title="Token diversity", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("heard", overflow="fold")
    table.add_column("source", no_wrap=True)
    for column in ("unique", "top", "top 3", "perplexity", "silent"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        for number, (source, d) in enumerate(zip(SOURCES, row.diversity, strict=True)):
            table.add_row(
                "" if number else Text(row.label),
                source,
                f"{d.unique}/{d.size} ({d.unique / d.size:.1%})",
                f"{d.top_share:.1%}",
                f"{d.top_three_share:.1%}",
                f"{d.perplexity:.1f}",
                f"{d.silent_share:.1%}",
            )
    return table


def _shift_table(verification: Verification) -> Table:
    table = Table(title="Tokens that stay when the grid falls elsewhere", title_justify="left", box=SIMPLE_HEAD)
    for column in ("offset", *SOURCES):
        table.add_column(column, justify="right")
    for number, row in enumerate(verification.shift):
        between = " (between frames)" if number >= OFFSETS else ""
        table.add_row(f"{row.offset_s * 1000:.1f} ms{between}", *(f"{share:.1%}" for share in row.shares))
    return table


def _retrain_process(arguments: Sequence[str]) -> None:
    partner, output, *recordings = map(Path, arguments)
    given = [read_recording(file) for file in collect_recordings(recordings)] if recordings else []
    save_partner(output, retrain_from(load_partner(partner), given))


if __name__ == "__main__":
    _retrain_process(sys.argv[1:])
