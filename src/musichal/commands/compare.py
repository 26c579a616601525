"""`musichal compare`: what two partners hear differently in the same recording."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from musichal.audio.recording import read_recording
from musichal.commands.terminal import Terminal
from musichal.errors import InputError
from musichal.evaluate.comparison import Comparison, SourceComparison, Split, compare_partners
from musichal.hearing.percepts import SOURCES
from musichal.memory.partner_file import load_partner
from musichal.text import clock, printable

if TYPE_CHECKING:
    from rich.console import RenderableType

# A second of frames: agreement of fewer is mostly chance.
_LEAST_MOMENTS = 75
_REST_SHOWN = 0.005


def compare_command(first: Path, second: Path, recording: Path | None, *, voice: Terminal) -> Comparison:
    """Let two partners hear a recording (the longest in the first partner, if none is given) and show what differs.

    Raises
    ------
    MusicHalError
        If a partner or the recording cannot be used.
    """
    with voice.progress("Loading the partners") as tell:
        models = load_partner(first), load_partner(second)
        if recording is not None:
            read = read_recording(recording)
            for warning in read.warnings:
                voice.warn(f"{read.name}: {warning}")
            name, rate, samples = read.name, read.sample_rate_hz, read.samples
        else:
            stored = [r for r in models[0].recordings if r.flac is not None]
            if not stored:
                raise InputError(f"{printable(first)} was trained with --no-audio: name a recording for both partners to hear")
            longest = max(stored, key=lambda r: r.duration_s)
            name, rate, samples = longest.name, longest.sample_rate_hz, longest.samples()
        comparison = compare_partners(*models, samples, name=name, sample_rate_hz=rate, progress=tell)
    voice.result({"first": str(first), "second": str(second), **comparison.to_dict()})
    for source in comparison.sources:
        if source.agreement.moments < _LEAST_MOMENTS:
            voice.warn(f"{name}: only {source.agreement.moments} {source.source} frames sound to both: too few to say much")
    for table in _tables(comparison, (printable(first.name), printable(second.name))):
        voice.show(table)
    voice.say(_verdict(comparison))
    return comparison


def _verdict(comparison: Comparison) -> str:
    if comparison.hear_alike:
        return f"Both hear {comparison.recording} alike: the same sounds at the same moments."
    words = [f"{s.source} {s.agreement.adjusted_rand:.2f} (Rand index {s.agreement.rand:.1%})" for s in comparison.sources]
    return (
        f"Agreement on which moments of {comparison.recording} are the same sound, 0 by chance, 1 at best: {', '.join(words)}."
    )


def _tables(comparison: Comparison, names: tuple[str, str]) -> "Iterator[RenderableType]":
    differences = [
        *((name, str(a), str(b)) for name, a, b in comparison.spec_differences),
        *((f"trained with {name}", a, b) for name, a, b in comparison.installation_differences),
    ]
    yield _table("How they hear", ("", *names), differences or [("spec", "the same", "the same")])
    sources = comparison.sources
    yield _table(
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
    yield _table(
        "Agreement",
        ("", *SOURCES),
        [
            ("same vocabulary", *("yes" if same else "no" for same in comparison.same_vocabularies)),
            ("frames compared", *(str(s.frames) for s in sources)),
            ("both or neither silent", *(f"{s.silence_agreement:.1%}" for s in sources)),
            ("same or different sound (Rand index)", *(f"{s.agreement.rand:.1%}" for s in sources)),
            ("the same beyond chance (adjusted Rand)", *(f"{s.agreement.adjusted_rand:.2f}" for s in sources)),
            ("information in common, bits", *(f"{s.agreement.information_bits:.2f}" for s in sources)),
            ("of what there is (normalised)", *(f"{s.agreement.normalised_information:.2f}" for s in sources)),
        ],
    )
    rows = [row for s in sources for row in _split_rows(s, names)]
    if rows:
        yield _table("Where they differ most", ("source", "one sound to", "heard as", "first at"), rows)


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


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        # As `Text`, so that a file's name cannot be taken for markup.
        table.add_column(Text(column), overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table
