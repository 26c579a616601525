"""`python -m benchmarks`: measure speed and quality in a checkout, with the `bench` extra."""

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.command import LEARNED_PART, USUAL_PARTS, bench_command
from benchmarks.duo_command import CACHE, DuoOptions
from musichal.commands.options import Json
from musichal.commands.terminal import open_terminal
from musichal.errors import InputError

app = typer.Typer(add_completion=False)


@app.command(epilog="Example: `python -m benchmarks memory hearing --recording take1.wav`")
def bench(
    parts: Annotated[
        list[str] | None,
        typer.Argument(
            help="What to measure: hearing, memory, tokens, notes, pulse, partner (all of them, if none is named),"
            " drift, scheduler, live, soak, archive, drums, duo, influences, encoder."
        ),
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="The part live: sound in, MIDI out, through a JACK server.")] = False,
    encoder: Annotated[
        str, typer.Option(help="'mert' measures the learned encoder, as the part `encoder` does: runtimes, hearing, training.")
    ] = "spectral",
    weights: Annotated[
        Path | None, typer.Option(help="A folder with MERT's weights; random ones of its size, if none is named.")
    ] = None,
    recording: Annotated[
        list[Path] | None,
        typer.Option(help="A recording to measure hearing or drift on; repeatable. The demo's, if none is named."),
    ] = None,
    split: Annotated[
        str, typer.Option(help="duo: 'tune' for the songs to tune on, 'report' for those only reported.")
    ] = "report",
    songs: Annotated[int | None, typer.Option(min=1, help="duo: so many songs of the split. default: 18.")] = None,
    modes: Annotated[str, typer.Option(help="duo: modes to play in, with commas.")] = "couple,lead,contrast,shadow",
    set_: Annotated[list[str] | None, typer.Option("--set", help="duo: NAME=VALUE of a parameter; repeatable.")] = None,
    pairs: Annotated[
        bool,
        typer.Option(
            "--pairs", help="duo: the melody alone, with a memory of the band alone and of pairs, and the difference."
        ),
    ] = False,
    midi: Annotated[
        bool,
        typer.Option("--midi", help="duo: melody alone and with drums, as recordings and as MIDI files, and the difference."),
    ] = False,
    cache: Annotated[Path, typer.Option(help="duo: a folder that keeps what was trained and heard.")] = CACHE,
    write: Annotated[
        Path | None, typer.Option(help="A folder that gets one dated page of results per part, such as docs/results.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure speed and quality on this machine, beside goals and peers. Needs the `bench` extra; takes minutes."""
    with open_terminal(as_json) as terminal:
        if encoder not in ("spectral", "mert"):
            raise InputError(f"--encoder must be 'spectral' or 'mert', not {encoder!r}")
        asked = list(parts or ([] if live or encoder == "mert" else USUAL_PARTS))
        if live and "live" not in asked:
            asked.append("live")
        if encoder == "mert" and LEARNED_PART not in asked:
            asked.append(LEARNED_PART)
        if weights is not None and LEARNED_PART not in asked:
            raise InputError("--weights is for the part encoder")
        duo = DuoOptions(split, songs, tuple(modes.split(",")), tuple(set_ or ()), cache, pairs, midi)
        bench_command(asked, recording or [], weights=weights, duo=duo, write=write, terminal=terminal)


if __name__ == "__main__":
    app()
