"""`musichal evaluate`: whether a partner listens, with baselines in the same run."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table
from rich.text import Text

from musichal.atomic import printable
from musichal.audio.recording import collect_recordings, read_recording
from musichal.commands.outcome import Voice
from musichal.commands.outputs import check_outputs
from musichal.evaluate.answering import DeafWalker, Echo, MakePlayer, answer, joined
from musichal.evaluate.evaluation import Contestant, Evaluation, contest, cut_excerpts
from musichal.evaluate.figures import MemoryUse, memory_use
from musichal.evaluate.listening import DIMENSIONS, Area
from musichal.memory.partner_file import PartnerModel, load_partner
from musichal.partner.partner import Partner
from musichal.partner.settings import PartnerSettings

if TYPE_CHECKING:
    from rich.console import RenderableType

ECHO, DEAF = "echo (no memory)", "deaf (random walk)"


def evaluate_command(
    partner: Path,
    recordings: Sequence[Path],
    *,
    excerpt_s: float,
    most: int,
    minutes: float,
    settings: PartnerSettings,
    report: Path | None,
    seed: int,
    voice: Voice,
) -> Evaluation:
    """Let a partner answer excerpts of recordings, and show how far its answers listen, remember, fit and breathe.

    Raises
    ------
    MusicHalError
        If the partner or a recording cannot be used, or the report cannot be written.
    """
    if report is not None:
        report = report / f"{partner.stem}-evaluated.html" if report.is_dir() else report
        check_outputs([report], inputs=[partner, *recordings])
    with voice.progress("Loading the partner") as tell:
        model = load_partner(partner)
        given = [read_recording(file) for file in collect_recordings(recordings)]
        excerpts = cut_excerpts(model, given, excerpt_s=excerpt_s, most=most, progress=tell)
        ways = players_of(model, settings)
        players, contestants = contest(ways, excerpts, model.memory, seed=seed, progress=tell)
        stream = joined(excerpts, duration_s=60 * minutes)
        long_runs = {}
        for number, (name, make) in enumerate(ways.items()):
            tell(f"Playing {minutes:g} minutes as {name}", number / len(ways))
            long_runs[name] = memory_use(answer(stream, make(seed)), model.memory)
        evaluation = Evaluation(printable(partner.name), excerpt_s, excerpts, players, contestants, 60 * minutes, long_runs)
        if report is not None:
            from musichal.pictures.evaluation import write_evaluation

            tell("Drawing the report", 1.0)
            write_evaluation(evaluation, report)
    voice.result(evaluation.to_dict())
    for table in _tables(evaluation):
        voice.show(table)
    if report is not None:
        voice.say(f"Wrote {printable(report)}")
    return evaluation


def players_of(model: PartnerModel, settings: PartnerSettings) -> dict[str, MakePlayer]:
    """Return who is measured: the partner as it plays, and the baselines: one that only listens, one that is deaf."""
    rate = model.spec.sample_rate_hz
    return {
        "the partner": lambda seed: Partner(model.memory, settings, rng=np.random.default_rng(seed), sample_rate_hz=rate),
        ECHO: lambda _seed: Echo(),
        DEAF: lambda seed: DeafWalker(model.memory, rng=np.random.default_rng(seed)),
    }


def _tables(evaluation: Evaluation) -> "Iterator[RenderableType]":
    contestants = evaluation.contestants

    def table(title: str, columns: Sequence[str], cells: Callable[[Contestant], Sequence[str]]) -> Table:
        made = Table(title=title, title_justify="left")
        made.add_column("")
        for column in columns:
            made.add_column(column, justify="right")
        for contestant in contestants:
            made.add_row(Text(contestant.name), *cells(contestant))
        return made

    count = len(evaluation.excerpts)
    yield table(
        f"Listening: is the true input of {count} answers told from the others? 0.5 is deaf, 1 always (95 % interval)",
        ("together", *DIMENSIONS),
        lambda c: [_area(a) for a in (c.listening.together, *(c.listening.by_dimension[d] for d in DIMENSIONS))],
    )
    yield table(
        f"Memory, in {evaluation.long_run_s / 60:g} minutes",
        ("goes on as recorded", "states in a row", "visited", "longest quote", "repeated", "the player's own"),
        lambda c: _use(evaluation.long_runs[c.name]),
    )
    yield table(
        "Harmony with what sounds",
        ("notes", "in harmony", "moved in time"),
        lambda c: [str(c.harmony.notes), f"{c.harmony.consonant:.1%}", f"{c.harmony.consonant_when_shifted:.1%}"],
    )
    first = contestants[0].phrasing
    yield table(
        f"Phrases (players: {first.player_silence:.0%} silent, phrases of {first.player_phrase_s:.1f} s;"
        f" memory: {first.memory_silence:.0%}, {first.memory_phrase_s:.1f} s)",
        ("gap after the player", "over the player", "silent", "phrases", "length"),
        lambda c: [
            "–" if c.phrasing.gap_s is None else f"{c.phrasing.gap_s:.2f} s",
            f"{c.phrasing.overlap:.0%}",
            f"{c.phrasing.silence:.0%}",
            str(c.phrasing.phrases),
            f"{c.phrasing.phrase_s:.1f} s",
        ],
    )


def _area(area: Area) -> str:
    return f"{area.value:.2f} ({area.low:.2f}–{area.high:.2f})"


def _use(use: MemoryUse) -> list[str]:
    shares = (f"{use.continued:.0%}", f"{use.mean_run:.1f}", f"{use.visited:.0%}")
    return [*shares, f"{use.longest_quote_s:.1f} s", f"{use.repeated:.1%}", f"{use.learned:.0%}"]
