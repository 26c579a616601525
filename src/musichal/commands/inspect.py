"""`musichal inspect`: what a partner learned, for musicians; its figures where they are asked for."""

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Group

from musichal.commands.check import chord_tables, stats_tables
from musichal.commands.options import Force, PartnerFile, Picture
from musichal.commands.terminal import Terminal
from musichal.evaluate.partner_stats import PartnerStats, RecordingStats, partner_stats
from musichal.evaluate.takes import Overview, Take, overview
from musichal.live.output.files import PICTURE, check_outputs
from musichal.memory.partner_file import PartnerModel, load_partner
from musichal.partner.settings import PartnerSettings
from musichal.partner.voices import unheard_voices
from musichal.plots.partner import draw_partner
from musichal.plots.style import picture_format, save_figure
from musichal.text import clock, counted, pitch_name, printable

_LEAST_IN_COMMON = 0.05
_MOST_DRUMS = 6
_MOST_TAKES = 20
_WHOLE = 0.99


def inspect_command(
    *,
    partner: PartnerFile,
    figures: Annotated[bool, typer.Option("--figures", help="Show figures of hearing, sounds, memory and repetition.")] = False,
    picture: Picture = None,
    force: Force = False,
    terminal: Terminal,
) -> None:
    """Show what a partner learned, its `figures` too, as JSON and as a picture."""
    if picture is not None:
        picture_format(picture)
        check_outputs([(picture, PICTURE)], inputs=[partner], force=force)
    model = load_partner(partner)
    stats = partner_stats(model)
    known = overview(model, stats)
    terminal.result({"partner": str(partner), **stats.to_dict(), "overview": known.to_dict()})
    if not terminal.as_json:
        for line in _head(printable(partner.name), known):
            terminal.say(line)
        for line in () if figures else _take_lines(known, stats):
            terminal.say(line)
        terminal.show(Group(*(stats_tables(stats) if figures else chord_tables(stats))))
        for line in _lines(known):
            terminal.say(line)
        if not figures:
            terminal.say("--figures shows how it hears, its sounds and what repeats; --picture draws it.")
    if unheard := unheard_voices(model.memory, PartnerSettings()):
        terminal.warn(unheard)
    if picture is not None:
        with terminal.progress("Drawing"):
            save_figure(draw_partner(model), picture)
        terminal.say(f"Wrote {printable(picture)}")


def overview_lines(model: PartnerModel) -> Iterator[str]:
    """Yield what a partner suits, what it lacks and what its takes have in common, as sentences for musicians."""
    return _lines(overview(model, partner_stats(model)))


def _head(name: str, known: Overview) -> Iterator[str]:
    yield f"{name} knows {counted(len(known.takes), 'take')}. {known.enough}."


def _take_lines(known: Overview, stats: PartnerStats) -> Iterator[str]:
    """Yield two lines for each take: what it is, and what is played in it."""
    players = {pair.player for pair in stats.pairs}
    for take, row in list(zip(known.takes, stats.recordings, strict=True))[:_MOST_TAKES]:
        share = "you, answered" if take.name in players else f"{take.of_memory:.0%} of the memory"
        yield f"{printable(take.name)}  {clock(take.duration_s, decimals=0)}, {share}"
        yield f"   {' · '.join(_played(take, row))}"
    if len(known.takes) > _MOST_TAKES:
        yield f"and {counted(len(known.takes) - _MOST_TAKES, 'take')} more: --figures has all"


def _played(take: Take, row: RecordingStats) -> Iterator[str]:
    if row.tempo is None:
        yield f"tempo not known: {'`musichal rehear` finds it' if row.has_audio else 'train again'}"
    else:
        sure = f", sure {row.tempo.sure_share:.0%} of the time" if row.tempo.median_bpm else ""
        yield row.tempo.words + sure
    if take.key is not None:
        whole = "" if take.key_share > _WHOLE else f" {take.key_share:.0%} of the time"
        yield f"{take.key}{whole}{' (file)' if take.key_is_said else ''}"
    if take.lowest is None or take.highest is None:
        yield "no notes"
    else:
        most = "" if take.middle is None else f", most {pitch_name(take.middle[0])} to {pitch_name(take.middle[1])}"
        yield f"{take.notes_per_s:.1f} notes a second, {pitch_name(take.lowest)} to {pitch_name(take.highest)}{most}"
    drums = ", ".join(f"{count} {name}" for name, count in list(row.hits.items())[:_MOST_DRUMS])
    if drums or row.tempo is not None:
        yield drums or "no drums"


def _lines(known: Overview) -> Iterator[str]:
    alike = [_alike_words(a.first, a.second, a.turns, same_key=a.same_key, same_tempo=a.same_tempo) for a in known.alike]
    for title, lines in (("It suits", known.suits), ("Mind", known.lacks), ("In common", [a for a in alike if a])):
        for number, line in enumerate(lines):
            yield f"{'' if number else title + ':':<10} {line}."


def _alike_words(first: str, second: str, turns: float, *, same_key: bool, same_tempo: bool) -> str:
    said = [f"{turns:.0%} of the turns of {first} are in {second}"] if turns >= _LEAST_IN_COMMON else []
    said += ["the same key"] if same_key else []
    said += ["the same tempo"] if same_tempo else []
    return f"{first} and {second}: {', '.join(said)}" if said else ""
