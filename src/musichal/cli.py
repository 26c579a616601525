"""The command line: declarations only. Each command imports its module when it runs."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from musichal import __version__
from musichal.commands.options import (
    LOOPBACK,
    EvaluateOptions,
    Force,
    Json,
    Layer,
    MemoryHours,
    Mixed,
    MovedPartner,
    NoBrowser,
    Offline,
    PartnerFile,
    Picture,
    PlayOptions,
    Precision,
    Processes,
    Report,
    Revision,
    Runtime,
    SampleFrames,
    Seed,
    Select,
    SessionFolder,
    SoundFontFile,
    Strict,
    WebHost,
    WebPort,
    with_options_of,
)
from musichal.commands.terminal import flush_output, open_terminal

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="An AI partner for improvising musicians: it learns sounds from recordings, listens to a player, answers in MIDI, and"
    " gives a reason for each note. Start with `musichal demo`; `musichal docs` prints the guide.",
    epilog="Exit codes: 0 success, 1 a check failed, 2 bad input or usage, 130 interrupted.",
)


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets a replacement, not a crash.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        with open_terminal():  # for what is printed outside of a command: help and version
            try:
                app()
            finally:
                flush_output()
    except typer.Exit as ended:
        sys.exit(ended.exit_code)


def _run(command: str, options: dict[str, Any]) -> None:
    """Call ``MODULE.NAME`` of `musichal.commands` with a terminal and a command's options, which are its parameters."""
    module, name = command.split(".")
    with open_terminal(options.pop("as_json", False)) as terminal:
        getattr(import_module(f"musichal.commands.{module}"), name)(terminal=terminal, **options)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"musichal {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command(
    epilog="Example: `musichal train take1.wav concert/ -o partner.hal`"
    " — how others answered you: `musichal train --player me.wav --others band.wav -o partner.hal`"
)
def train(
    output: Annotated[Path, typer.Option("-o", "--output", help="The partner file to write.")],
    recordings: Annotated[
        list[Path] | None, typer.Argument(help="Recordings, sessions, or folders of them (WAV, AIFF, FLAC, OGG, MP3 …).")
    ] = None,
    player: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="A player's recording; --others is what the others played beside it. Or of one file with both: the channel"
            " ('left', 'right', a number) or the MIDI track. Repeatable.",
        ),
    ] = None,
    others: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="The others' recording or MIDI file of each --player.")
    ] = None,
    notes: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="The MIDI file of the recording in the same place: its notes are kept. Repeatable."),
    ] = None,
    tracks: Annotated[
        str | None,
        typer.Option(
            help="Of MIDI files: the tracks to learn, as 1,Piano (numbers, names), or melody, drums, no-drums; default: all."
        ),
    ] = None,
    channels: Annotated[
        str | None, typer.Option(help="Of MIDI files: the channels to learn, as 1-9,11-16; default: all.")
    ] = None,
    soundfont: Annotated[
        Path | None, typer.Option(help="Of MIDI files: the SoundFont 2 file that plays them; default: the built-in instrument.")
    ] = None,
    encoder: Annotated[
        str, typer.Option(help="The encoder: 'spectral', 'mert', 'mert:LAYER', 'hf:OWNER/NAME' or 'hf:FOLDER'.")
    ] = "spectral",
    weights: Annotated[Path | None, typer.Option(help="A folder with MERT's weights, instead of the hub's.")] = None,
    layer: Layer = None,
    revision: Revision = None,
    runtime: Runtime = "auto",
    precision: Precision = "auto",
    offline: Offline = False,
    workers: Processes = None,
    manifest: Annotated[
        list[Path] | None,
        typer.Option(help="Archives: a list of recordings, CSV or JSON Lines: path, start, end, title, tags. Repeatable."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Archives: leave out such paths or names, as '*live*'. Repeatable."),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Archives: keep here what was heard; default: beside the partner until it is written."
        ),
    ] = None,
    sample_frames: SampleFrames = 2_000_000,
    memory_hours: MemoryHours = None,
    select: Select = None,
    sounds_of: Annotated[
        Path | None, typer.Option(metavar="PARTNER", help="Archives: keep the sounds of a partner, instead of learning them.")
    ] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="N/COUNT", help="Archives: hear only this share, as 2/8, for `musichal join`.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(metavar="URL", help="Archives: hear on a Dask cluster, dask://HOST:PORT.")
    ] = None,
    allow_mixed: Mixed = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Archives: say what it would take in time, memory and disk, and train nothing.")
    ] = False,
    vocabulary: Annotated[int, typer.Option(help="Number of sounds to learn for each source.")] = 64,
    segment: Annotated[str | None, typer.Option(help="Length of a segment, as 350ms; that is the default.")] = None,
    hop: Annotated[str | None, typer.Option(help="Distance of segments; default: a segment. If shorter, they overlap.")] = None,
    context: Annotated[
        str | None, typer.Option(help="Past audio that the encoder sees beside a segment; default: 350ms, 175ms if learned.")
    ] = None,
    lookahead: Annotated[
        str | None,
        typer.Option(help="Audio after a segment that the encoder waits for; default: 67ms. 0ms is faster."),
    ] = None,
    policy: Annotated[str, typer.Option(help="Where segments start: on a 'grid', or at each 'onset'.")] = "grid",
    resampler: Annotated[
        str, typer.Option(help="'soxr-HQ', 'soxr-VHQ', or 'soxr-VR', which finds onsets 20 ms sooner live.")
    ] = "soxr-HQ",
    no_audio: Annotated[bool, typer.Option("--no-audio", help="Leave the recordings out of the partner file.")] = False,
    compact: Annotated[
        bool, typer.Option("--compact", help="Hear and keep the recordings at 24 kHz with 16 bits: a third of the size.")
    ] = False,
    force: Force = False,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Train a partner: learn the sounds of recordings, and how they follow one another."""
    _run("train.train_command", locals())


def _play(options: PlayOptions, as_json: bool) -> None:
    """Let a partner answer a player, live or from a recording, in MIDI and in sound, with a reason for each note."""
    with open_terminal(as_json) as terminal:
        options.check()
        if options.is_live and options.web:
            from musichal.commands.web import live_web_command

            live_web_command(options, terminal)
        elif options.is_live:
            from musichal.commands.live import live_command

            live_command(options, terminal)
        else:
            from musichal.commands.play import play_command

            play_command(options, terminal)


app.command(
    "play",
    epilog="Example: `musichal play partner.hal --input guitar.wav --midi-out reply.mid --audio-out reply.wav`"
    ' — live: `musichal play partner.hal --input Scarlett --midi-out "IAC Bus 1" --session tonight`',
)(with_options_of(PlayOptions, _play))


def _check(options: PlayOptions, as_json: bool) -> None:
    """Look, for ten seconds, at what could go wrong tonight: input, level, ports, power, disk; say what to do."""
    with open_terminal(as_json) as terminal:
        from musichal.commands.evening import check_command

        check_command(options, terminal)


app.command(
    "check",
    epilog='Example: `musichal check partner.hal --input Scarlett --midi-out "IAC Bus 1" --session tonight --for 20min`'
    " — the options are those of `play`; exits with 1 if something is to be done.",
)(with_options_of(PlayOptions, _check))


@app.command(epilog="Example: `musichal parameters temperature`")
def parameters(
    name: Annotated[str | None, typer.Argument(help="One parameter; default: all.")] = None, as_json: Json = False
) -> None:
    """Show the parameters: default, range and meaning of each setting."""
    _run("reference.parameters_command", locals())


@app.command(epilog="Example: `musichal modes --toml > my-modes.toml`")
def modes(
    table: Annotated[Path | None, typer.Argument(help="Your own table of modes (TOML); it is checked.")] = None,
    as_toml: Annotated[bool, typer.Option("--toml", help="Print the built-in table, to copy.")] = False,
    as_json: Json = False,
) -> None:
    """Show the modes in which the partner plays with you."""
    _run("reference.modes_command", locals())


@app.command(epilog="Example: `musichal keys`")
def keys(as_json: Json = False) -> None:
    """Show the keys that work while playing live."""
    _run("reference.keys_command", locals())


@app.command(epilog="Example: `musichal docs osc`")
def docs(
    topic: Annotated[str | None, typer.Argument(help="A topic; default: the list of topics.")] = None, as_json: Json = False
) -> None:
    """Print the guide: first steps, parameters, modes, form, OSC, files, Python."""
    _run("reference.docs_command", locals() | {"commands": [(c.name, c.help) for c in _commands()]})


def _commands() -> list[Any]:
    return list(typer.main.get_command(app).commands.values())  # type: ignore[attr-defined]


@app.command(epilog="Example: `musichal inspect partner.hal --picture partner.png`")
def inspect(
    partner: PartnerFile,
    figures: Annotated[bool, typer.Option("--figures", help="Show figures of hearing, sounds, memory and repetition.")] = False,
    picture: Picture = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Show what a partner learned: each take, how far its music reaches, whom it suits."""
    _run("inspect.inspect_command", locals())


@app.command(
    epilog="Example: `musichal devices --latency --input Scarlett --midi-out FLUID` — the microphone hears the loudspeaker."
)
def devices(
    latency: Annotated[
        bool, typer.Option("--latency", help="Measure what the output takes to sound: the value for `play --latency`.")
    ] = False,
    input: Annotated[str | None, typer.Option(help="--latency: the input that hears the output.")] = None,
    midi_out: Annotated[str, typer.Option(help="--latency: the port that plays the clicks, as of `play`; or synth:")] = "auto:",
    by_ear: Annotated[bool, typer.Option("--by-ear", help="--latency: without an input: tap a key along with clicks.")] = False,
    as_json: Json = False,
) -> None:
    """Show audio and MIDI inputs and outputs, what works here, what is missing and how to get it; or measure a latency."""
    _run("devices.devices_command", locals())


@app.command(epilog="Example: `musichal learn map.toml temperature mode=shadow,mirror pause --control-in nanoKONTROL`")
def learn(
    path: Annotated[Path, typer.Argument(metavar="MAP", help="The map of controllers (TOML); its entries stay.")],
    wishes: Annotated[
        list[str],
        typer.Argument(metavar="COMMAND...", help="For each controller NAME (a button), NAME=LOW:HIGH or NAME=CHOICE,CHOICE."),
    ],
    control_in: Annotated[str, typer.Option(help="The MIDI input: part of its name, or virtual:NAME.")],
    within: Annotated[str, typer.Option(help="How long to wait for each controller.")] = "60s",
    as_json: Json = False,
) -> None:
    """Write a map of MIDI controllers: for each command, move the controller that shall give it."""
    _run("devices.learn_command", locals())


@app.command(epilog="Example: `musichal replay session-1` — exits with 1 if the answer differs.")
def replay(
    folder: SessionFolder,
    partner: MovedPartner = None,
    midi_out: Annotated[Path | None, typer.Option(help="Write the answer as a MIDI file again.")] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Play a session again: the same MIDI, byte for byte."""
    _run("session.replay_command", locals())


@app.command(epilog="Example: `musichal export tonight -o for-the-daw` — a stretch: `--from 1:00 --to 2:30`")
def export(
    folder: SessionFolder,
    output: Annotated[Path, typer.Option("-o", "--output", help="The new folder to write.")],
    from_: Annotated[str | None, typer.Option("--from", help="Where the stretch begins, as 1:00; default: the start.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Where it ends, as 2:30; default: the end.")] = None,
    marks: Annotated[bool, typer.Option("--marks", help="Export the stretch around each mark, each in a folder.")] = False,
    sound: Annotated[str, typer.Option(help="Sound of the answer: 'soundfont', or 'slices' of the recordings.")] = "soundfont",
    soundfont: SoundFontFile = None,
    partner: MovedPartner = None,
    as_json: Json = False,
) -> None:
    """Export a session for a DAW: input, answer and mix as sound, MIDI by voice, tempo, markers, a Reaper project."""
    _run("session.export_command", locals())


@app.command(epilog="Example: `musichal keep take1 take2 -o richer.hal`")
def keep(
    folders: Annotated[list[Path], typer.Argument(metavar="SESSION...", help="Session folders of one partner.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The partner file to write.")],
    partner: MovedPartner = None,
    alone: Annotated[bool, typer.Option("--alone", help="Leave out what the partner knew before.")] = False,
    processes: Processes = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Keep what a partner learned live: a partner with what you played in its sessions, or of that alone."""
    _run("keep.keep_command", locals())


@app.command(epilog="Example: `musichal explain take1 --at 1:23 --listen moment`")
def explain(
    folder: SessionFolder,
    at: Annotated[
        str | None,
        typer.Option(help="A time (1:23): the decision then, in full. A part: 1:00-1:20, a mode, a mark, 'best' or 'least'."),
    ] = None,
    listen: Annotated[
        Path | None,
        typer.Option(help="Write the duo, or a part, as sound into this folder; of one time, its place in the recording."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Tell every decision.")] = False,
    figures: Annotated[bool, typer.Option("--figures", help="Of one time: the figures behind the decision.")] = False,
    partner: MovedPartner = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Explain why a session was played as it was: a page of it all, a part, or one moment in full."""
    _run("explain.explain_command", locals())


@app.command(epilog="Example: `musichal moments tonight --listen moments`")
def moments(
    folder: SessionFolder,
    listen: Annotated[Path | None, typer.Option(help="Write the duo at each moment into this folder (WAV).")] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """List the good moments of a session: your marks, the longest agreement, what came back, endings."""
    _run("explain.moments_command", locals())


@app.command(epilog="Example: `musichal web` — what is in this folder; `musichal web take1` — a session; `musichal web a.hal`.")
def web(
    what: Annotated[
        list[Path] | None,
        typer.Argument(help="Session folders, partner files, or folders of them; default: this folder.", show_default=False),
    ] = None,
    partner: MovedPartner = None,
    uploads: Annotated[
        Path | None,
        typer.Option(
            help="Folder for what is dropped on the page, and for the partners that learn it; default: a new one beside what is"
            " shown, and beyond this machine none."
        ),
    ] = None,
    web_port: WebPort = 0,
    web_host: WebHost = LOOPBACK,
    no_browser: NoBrowser = False,
) -> None:
    """Show sessions and partners in the browser: play, explain, compare and export them; train and verify partners."""
    _run("web.web_command", locals())


@app.command(epilog="Example: `musichal demo my-demo`")
def demo(
    folder: Annotated[Path, typer.Argument(help="Folder for what it writes.")] = Path("musichal-demo"),
    seed: Seed = 0,
) -> None:
    """Learn how the bundled rock band answers its guitar, and answer the guitar's next seconds."""
    _run("demo.demo_command", locals())


@app.command(epilog="Example: `musichal verify partner.hal --report report.html` — exits with 1 if a check fails.")
def verify(
    partner: PartnerFile,
    recordings: Annotated[list[Path] | None, typer.Argument(help="Recordings; default: the partner's own.")] = None,
    report: Report = None,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out other rates, other grids and training again.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random block sizes.")] = 0,
    hours: Annotated[
        float, typer.Option(min=0.001, help="Of a partner of an archive: hear so much of it, evenly spread.")
    ] = 2.0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Verify that the partner hears live as in training: frame counts, each token, diversity, repeatability."""
    _run("check.verify_command", locals())


@app.command(epilog="Example: `musichal join node1/ node2/ -o partner.hal`")
def join(
    works: Annotated[list[Path], typer.Argument(help="Work folders of `musichal train --shard`.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The partner file to write.")],
    sample_frames: SampleFrames = 2_000_000,
    memory_hours: MemoryHours = None,
    select: Select = None,
    workers: Processes = None,
    allow_mixed: Mixed = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Make the partner of an archive that was heard in shards, as on a cluster."""
    _run("keep.join_command", locals())


@app.command(epilog="Example: `musichal worker dask://192.168.1.2:8786`")
def worker(
    scheduler: Annotated[str, typer.Argument(help="The Dask scheduler: dask://HOST:PORT, or dask://FILE.json.")],
    workers: Processes = None,
) -> None:
    """Hear for an archive on another machine (extra `[dask]`), until its scheduler ends."""
    _run("archive.worker_command", locals())


@app.command(epilog="Example: `musichal compare first.hal second.hal take1.wav`")
def compare(
    first: Annotated[Path, typer.Argument(help="A partner file.")],
    second: Annotated[Path, typer.Argument(help="Another one.")],
    recording: Annotated[
        Path | None, typer.Argument(help="What both hear; default: the longest recording in the first partner.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what two partners hear differently in the same recording."""
    _run("check.compare_command", locals())


@app.command(epilog="Example: `musichal rehear partner.hal -o here.hal`")
def rehear(
    partner: Annotated[Path, typer.Argument(help="The partner file; it must hold its recordings.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The file to write; default: the same.")] = None,
    runtime: Runtime = "auto",
    precision: Precision = "auto",
    refit: Annotated[bool, typer.Option("--refit", help="Learn the vocabularies again, too.")] = False,
    processes: Processes = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Let a partner hear its recordings again: by this machine's fastest runtime, or for beats that its file lacks."""
    _run("keep.rehear_command", locals())


def _evaluate(options: EvaluateOptions, as_json: bool) -> None:
    """Measure whether a partner listens, beside a deaf one; with --duo, whether it is together with a band."""
    _run("evaluate.evaluate_command", {**vars(options), "as_json": as_json})


app.command(
    "evaluate",
    epilog="Example: `musichal evaluate partner.hal guitar.wav --report listening.html`"
    " — a duo: `musichal evaluate --duo guitar.wav band.wav --report duo.html`",
)(with_options_of(EvaluateOptions, _evaluate))


@app.command(epilog="Example: `musichal encoder m-a-p/MERT-v1-95M --check` — exits with 1 if a check fails.")
def encoder(
    name: Annotated[str, typer.Argument(help="A folder with a MERT, HuBERT or wav2vec 2.0 checkpoint, or OWNER/NAME of one.")],
    check: Annotated[bool, typer.Option("--check", help="Load and test it; needs the `mert` extra.")] = False,
    convert: Annotated[bool, typer.Option("--convert", help="Convert a layer for playing; it is kept in the cache.")] = False,
    layer: Layer = None,
    revision: Revision = None,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Show a learned encoder's weights and licence, and check that they load and compute correctly."""
    _run("train.encoder_command", locals())
