"""The command line: reads arguments, calls one command, turns errors into one line and an exit code."""

import math
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from musichal import __version__
from musichal.commands.terminal import Terminal
from musichal.errors import InputError, MusicHalError
from musichal.parameters import NUMBERS, WORDS, setting
from musichal.partner.settings import PartnerSettings
from musichal.spec import (
    MAX_CONTEXT_S,
    MAX_LOOKAHEAD_S,
    RESAMPLERS,
    EncoderSpec,
    PerceptionSpec,
    VocabularySpec,
    hop_range,
    segment_range,
)

if TYPE_CHECKING:
    from musichal.commands.encoder_plan import EncoderPlan

if TYPE_CHECKING:
    from musichal.commands.live import OscPorts

app = typer.Typer(
    name="musichal",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="An AI partner for improvising musicians: it hears in sounds that it has learned, answers in MIDI, and has a"
    " reason for every note. Start with `musichal demo`.",
    epilog="Exit codes: 0 fine, 1 a check failed, 2 bad input or usage, 130 interrupted.",
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for a program instead of words for a person.")]
_SETTING_NAMES = ", ".join((*NUMBERS, *WORDS))


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets a replacement, not a crash.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    app()


@contextmanager
def _voice(as_json: bool = False) -> Iterator[Terminal]:
    """Give a command its voice, and turn its errors into one line and an exit code."""
    # No emoji: a file may really be called ":bell:.wav".
    voice = Terminal(Console(emoji=False), Console(stderr=True, emoji=False), as_json)
    try:
        yield voice
    except MusicHalError as error:
        voice.err.print(f"musichal: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(error.exit_code) from error
    except MemoryError as error:
        voice.err.print("musichal: not enough memory for this recording", markup=False, highlight=False)
        raise typer.Exit(InputError.exit_code) from error


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


@app.command(epilog="Example: `musichal train take1.wav concert/ -o partner.hal`")
def train(
    recordings: Annotated[list[Path], typer.Argument(help="Recordings, or folders of them (WAV, AIFF, FLAC, OGG, MP3 …).")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The partner file to write.")],
    encoder: Annotated[
        str,
        typer.Option(
            help="How to hear: 'spectral', 'mert', 'mert:LAYER', or 'hf:OWNER/NAME' or 'hf:FOLDER' for its relatives."
        ),
    ] = "spectral",
    weights: Annotated[Path | None, typer.Option(help="A folder with the weights of MERT, instead of the hub's.")] = None,
    layer: Annotated[
        int | None, typer.Option(min=0, help="Layer of a learned encoder; the middle one, if none is named.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="A commit, tag or branch of the weights on the hub.")] = None,
    runtime: Annotated[
        str, typer.Option(help="What computes a learned encoder: 'auto' measures which is the quickest here.")
    ] = "auto",
    precision: Annotated[str, typer.Option(help="What it computes in: 'auto', 'fp32', 'int8', 'bf16', 'bf16-int8'.")] = "auto",
    offline: Annotated[bool, typer.Option("--offline", help="Stay off the network.")] = False,
    processes: Annotated[
        int | None,
        typer.Option(min=1, help="How many processes listen with a learned encoder; one for each core, if it is worth it."),
    ] = None,
    vocabulary: Annotated[int, typer.Option(help="How many sounds to learn for each source.")] = 64,
    segment: Annotated[str, typer.Option(help="Length of a segment, as 350ms or 0.35s.")] = "350ms",
    hop: Annotated[
        str | None, typer.Option(help="From one segment to the next; shorter than a segment, segments overlap.")
    ] = None,
    context: Annotated[
        str | None,
        typer.Option(
            help="How much of the past the encoder sees beside a segment; if not given, 350 ms, or 175 ms if learned."
        ),
    ] = None,
    lookahead: Annotated[
        str | None,
        typer.Option(help="How much behind a segment the encoder waits for: 67 ms if not given; 0ms is sooner, less steady."),
    ] = None,
    policy: Annotated[str, typer.Option(help="Where segments start: 'grid', or at each 'onset'.")] = "grid",
    resampler: Annotated[
        str, typer.Option(help="'soxr-HQ' or 'soxr-VHQ'; 'soxr-VR' lets onsets through 20 ms sooner on stage.")
    ] = "soxr-HQ",
    no_audio: Annotated[bool, typer.Option("--no-audio", help="Leave the recordings out of the partner file.")] = False,
    as_json: Json = False,
) -> None:
    """Train a partner: Chandra listens to recordings and learns their sounds and how they follow one another."""
    with _voice(as_json) as voice:
        from musichal.commands.train import train_command

        plan = _encoder_plan(
            encoder,
            weights=weights,
            layer=layer,
            revision=revision,
            runtime=runtime,
            precision=precision,
            offline=offline,
            voice=voice,
        )
        base = plan.spec if plan is not None else replace(PerceptionSpec(), encoder=replace(EncoderSpec(), name=encoder))
        rate, heard_by = base.sample_rate_hz, base.encoder
        segment_samples = _samples(segment, "--segment", segment_range(heard_by, rate), rate)
        hop_samples = segment_samples
        if hop is not None:
            hop_samples = _samples(hop, "--hop", hop_range(heard_by, segment_samples), rate)
        context_samples, lookahead_samples = base.context_samples, base.lookahead_samples
        if context is not None:
            context_samples = _samples(context, "--context", (0, MAX_CONTEXT_S * rate), rate)
        if lookahead is not None:
            lookahead_samples = _samples(lookahead, "--lookahead", (0, MAX_LOOKAHEAD_S * rate), rate)
        if _policy(policy) == "onset" and hop_samples != segment_samples:
            raise InputError("--hop cannot be given with --policy onset: segments that start at onsets do not overlap")
        spec = replace(
            base,
            vocabulary=replace(VocabularySpec(), size=vocabulary),
            segment_samples=segment_samples,
            hop_samples=hop_samples,
            context_samples=context_samples,
            lookahead_samples=lookahead_samples,
            resampler=_resampler(resampler),
            min_segment_samples=min(base.min_segment_samples, segment_samples),
            policy=policy,
        )
        train_command(recordings, output, spec, keep_audio=not no_audio, plan=plan, processes=processes, voice=voice)


@app.command(
    epilog="Example: `musichal play partner.hal --input guitar.wav --midi-out reply.mid --audio-out reply.wav`"
    ' — live: `musichal play partner.hal --input Scarlett --midi-out "IAC Bus 1" --session tonight`'
)
def play(
    partner: Annotated[Path, typer.Argument(help="The partner file.")],
    input_: Annotated[
        str | None,
        typer.Option(
            "--input", help="A recording of the player, or an audio input: part of its name, or its number. The default input."
        ),
    ] = None,
    midi_out: Annotated[
        str | None, typer.Option(help="The answer as MIDI: a file; live, a port too (`musichal devices` lists them).")
    ] = None,
    audio_out: Annotated[
        str | None,
        typer.Option(help="The answer as sound: a WAV file; live, 'default', or for slices an output's name."),
    ] = None,
    mix_out: Annotated[Path | None, typer.Option(help="Write player and answer together (WAV).")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw what happened (PNG, SVG or PDF).")] = None,
    session: Annotated[Path | None, typer.Option(help="Keep everything in this folder, for `musichal replay`.")] = None,
    sound: Annotated[
        str, typer.Option(help="What the answer sounds like: 'soundfont', or 'slices' of the recording.")
    ] = "soundfont",
    soundfont: Annotated[
        Path | None, typer.Option(help="A SoundFont 2 file to play with; else an installed one, else the built-in instrument.")
    ] = None,
    program: Annotated[int, typer.Option(min=1, max=128, help="General MIDI instrument; 5 is an electric piano.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the partner's choices.")] = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help=f"Set a parameter; repeatable: {_SETTING_NAMES}, bass.hold, …; see `musichal parameters`.",
        ),
    ] = None,
    for_: Annotated[str | None, typer.Option("--for", help="Live: how long to play, as 60s.")] = None,
    channel: Annotated[str | None, typer.Option(help="Live: which input channels to hear, as 1 or 1,2 or all.")] = None,
    block: Annotated[int, typer.Option(min=0, max=8192, help="Live: frames in a block of the input; 0 leaves it open.")] = 256,
    voices: Annotated[Path | None, typer.Option(help="Live: ports, channels and ranges of the voices (TOML).")] = None,
    osc: Annotated[str | None, typer.Option(help="Live: OSC ports, IN or IN:OUT, as 9000:9001.")] = None,
    osc_host: Annotated[
        str, typer.Option(help="Live: the address to take OSC at. Anything but loopback is open to others.")
    ] = ("127.0.0.1"),
    osc_to: Annotated[str, typer.Option(help="Live: the address to send OSC to.")] = "127.0.0.1",
    control_in: Annotated[str | None, typer.Option(help="Live: a MIDI input with controllers, and MIDI clock.")] = None,
    clock_in: Annotated[str | None, typer.Option(help="Live: a MIDI input with MIDI clock, if it is another one.")] = None,
    link: Annotated[
        bool,
        typer.Option("--link", help="Live: follow the Ableton Link session of the local network (extra `link`, GPL)."),
    ] = False,
    control_map: Annotated[Path | None, typer.Option("--map", help="Live: what the controllers do (TOML).")] = None,
    mode: Annotated[
        str, typer.Option(help="How to play with you: one of `musichal modes`, or 'auto' to let the partner change.")
    ] = "auto",
    modes: Annotated[Path | None, typer.Option(help="A table of modes of your own (TOML).")] = None,
    form: Annotated[
        Path | None, typer.Option(help="A form to follow: sections with modes, silences, an ending (TOML).")
    ] = None,
    scenario: Annotated[
        Path | None, typer.Option(help="Chords, tokens or another recording to follow, planning ahead (TOML).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Let a partner answer a player, live or from a recording, in MIDI and in sound, and say why it played what it played."""
    with _voice(as_json) as voice:
        from musichal.audio.recording import AUDIO_SUFFIXES
        from musichal.commands.direction import direction

        if sound not in ("soundfont", "slices"):
            raise InputError(f"--sound must be 'soundfont' or 'slices', not {sound!r}")
        chosen = replace(_settings(set_ or []), direction=direction(mode, modes, form))
        if scenario is not None:
            from musichal.commands.scenario import read_scenario

            chosen = replace(chosen, scenario=read_scenario(scenario, partner))
        path = None if input_ is None else Path(input_)
        if path is None or not (path.exists() or path.suffix.lower() in AUDIO_SUFFIXES or len(path.parts) > 1):
            _only_for("a recording", mix_out=mix_out, picture=picture)
            if audio_out is not None and Path(audio_out).suffix.lower() in AUDIO_SUFFIXES:
                raise InputError("live, sound goes to a sound output and not to a file: --audio-out default")
            if sound == "soundfont" and audio_out not in (None, "default"):
                raise InputError("live, a soundfont plays on the system's own output: --audio-out default")
            audio_out = audio_out or ("default" if sound == "slices" else None)
            from musichal.commands.live import LiveRequest, live_command
            from musichal.live.input.live_input import parse_channels

            live_command(
                LiveRequest(
                    partner=partner,
                    input=input_,
                    channels=None if channel is None else parse_channels(channel),
                    midi_out=midi_out,
                    audio_out=audio_out,
                    sound=sound,
                    soundfont=soundfont,
                    program=program - 1,
                    voices=voices,
                    session=session,
                    osc=_osc_ports(osc, host=osc_host, to_host=osc_to),
                    control_in=control_in,
                    clock_in=clock_in,
                    link=link,
                    control_map=control_map,
                    duration_s=None if for_ is None else _seconds(for_, "--for"),
                    block=block,
                    seed=seed,
                    settings=chosen,
                ),
                voice,
            )
            return
        _only_for(
            "live input",
            for_=for_,
            channel=channel,
            voices=voices,
            osc=osc,
            control_in=control_in,
            clock_in=clock_in,
            link=link or None,
            map=control_map,
        )
        from musichal.commands.play import PlayRequest, play_command

        request = PlayRequest(
            partner=partner,
            input=path,
            midi_out=None if midi_out is None else Path(midi_out),
            audio_out=None if audio_out is None else Path(audio_out),
            mix_out=mix_out,
            picture=picture,
            session=session,
            sound=sound,
            soundfont=soundfont,
            program=program - 1,
            seed=seed,
            settings=chosen,
        )
        play_command(request, voice)


@app.command("modes", epilog="Example: `musichal modes --toml > my-modes.toml`")
def show_modes(
    table: Annotated[Path | None, typer.Argument(help="A table of modes of your own (TOML); it is checked.")] = None,
    as_toml: Annotated[bool, typer.Option("--toml", help="Print the table that MusicHal comes with, to copy.")] = False,
    as_json: Json = False,
) -> None:
    """Show the modes in which the partner plays with you."""
    with _voice(as_json) as voice:
        from musichal.commands.direction import modes_command

        modes_command(table, as_toml=as_toml, voice=voice)


@app.command(epilog="Example: `musichal inspect partner.hal --picture partner.png`")
def inspect(
    partner: Annotated[Path, typer.Argument(help="The partner file.")],
    picture: Annotated[Path | None, typer.Option(help="Draw what it learned (PNG, SVG or PDF).")] = None,
    as_json: Json = False,
) -> None:
    """Show what a partner learned: its tokens, its memory, and figures to trust it by."""
    with _voice(as_json) as voice:
        from musichal.commands.inspect import inspect_command

        inspect_command(partner, picture=picture, voice=voice)


@app.command(epilog="Example: `musichal devices`")
def devices(as_json: Json = False) -> None:
    """Show audio and MIDI inputs and outputs, what works here, what is missing and how to get it."""
    with _voice(as_json) as voice:
        from musichal.commands.devices import devices_command

        devices_command(voice)


@app.command(epilog="Example: `musichal learn map.toml temperature=0:2 mode=shadow,mirror mute --control-in nanoKONTROL`")
def learn(
    map_: Annotated[Path, typer.Argument(metavar="MAP", help="The map of controllers (TOML); what is in it stays.")],
    wishes: Annotated[
        list[str],
        typer.Argument(
            metavar="WISH...", help="NAME for a button, NAME=LOW:HIGH, or NAME=CHOICE,CHOICE, one for each controller."
        ),
    ],
    control_in: Annotated[str, typer.Option(help="The MIDI input: part of its name, or virtual:NAME.")],
    within: Annotated[str, typer.Option(help="How long to wait for each controller.")] = "60s",
    as_json: Json = False,
) -> None:
    """Learn which MIDI controller does what: asks for each command, waits for a controller to move, and writes the map."""
    with _voice(as_json) as voice:
        from musichal.commands.learn import learn_command

        learn_command(map_, control_in, wishes, voice, timeout_s=_seconds(within, "--within"))


@app.command(epilog="Example: `musichal replay session-1` — exits with 1 if the answer is not the same.")
def replay(
    folder: Annotated[Path, typer.Argument(help="A session folder that `musichal play --session` wrote.")],
    partner: Annotated[Path | None, typer.Option(help="The partner file, if it has moved since.")] = None,
    midi_out: Annotated[Path | None, typer.Option(help="Write the answer as a MIDI file again.")] = None,
    as_json: Json = False,
) -> None:
    """Play a session again: the same MIDI, byte for byte."""
    with _voice(as_json) as voice:
        from musichal.commands.replay import replay_command

        replay_command(folder, partner=partner, midi_out=midi_out, voice=voice)


@app.command(epilog="Example: `musichal demo my-demo`")
def demo(
    folder: Annotated[Path, typer.Argument(help="Where to leave the partner, the answer and the pictures.")] = Path(
        "musichal-demo"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the partner's choices.")] = 0,
) -> None:
    """Train on the bundled rock band and answer its guitar: the whole road."""
    with _voice() as voice:
        from musichal.commands.demo import demo_command

        demo_command(folder, seed=seed, voice=voice)


@app.command(epilog="Example: `musichal verify partner.hal --report report.html` — exits with 1 if a check fails.")
def verify(
    partner: Annotated[Path, typer.Argument(help="The partner file.")],
    recordings: Annotated[
        list[Path] | None, typer.Argument(help="Recordings to verify with; the partner's own, if none is named.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write a report with pictures: an HTML file, or a folder for it.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out other rates, other grids and training again.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random block sizes.")] = 0,
    as_json: Json = False,
) -> None:
    """Verify that live hearing is training's hearing: counts, every token, diversity, repeatability."""
    with _voice(as_json) as voice:
        from musichal.commands.verify import verify_command

        verify_command(partner, recordings or [], report=report, quick=quick, seed=seed, voice=voice)


@app.command(epilog="Example: `musichal rehear partner.hal -o here.hal`")
def rehear(
    partner: Annotated[Path, typer.Argument(help="The partner file; it must hold its recordings.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The partner file to write; the old one is replaced, if none is named."),
    ] = None,
    runtime: Annotated[
        str, typer.Option(help="What computes its encoder: 'auto' measures which is the quickest here.")
    ] = "auto",
    precision: Annotated[str, typer.Option(help="What it computes in: 'auto', 'fp32', 'int8', 'bf16', 'bf16-int8'.")] = "auto",
    refit: Annotated[bool, typer.Option("--refit", help="Learn the vocabularies anew, too.")] = False,
    processes: Annotated[
        int | None, typer.Option(min=1, help="How many processes listen; one for each core, if it is worth it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Let a partner hear its own recordings again with what this machine computes in, and keep everything else."""
    with _voice(as_json) as voice:
        from musichal.commands.rehear import rehear_command

        rehear_command(
            partner, output or partner, runtime=runtime, precision=precision, refit=refit, processes=processes, voice=voice
        )


@app.command(epilog="Example: `musichal compare first.hal second.hal take1.wav`")
def compare(
    first: Annotated[Path, typer.Argument(help="A partner file.")],
    second: Annotated[Path, typer.Argument(help="Another one.")],
    recording: Annotated[
        Path | None, typer.Argument(help="What both hear; the longest recording in the first partner, if none is named.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what two partners hear differently in the same recording."""
    with _voice(as_json) as voice:
        from musichal.commands.compare import compare_command

        compare_command(first, second, recording, voice=voice)


@app.command(epilog="Example: `musichal explain take1 --at 1:23 --listen moment`")
def explain(
    folder: Annotated[Path, typer.Argument(help="A session folder that `musichal play --session` wrote.")],
    at: Annotated[str | None, typer.Option(help="One moment, such as 1:23: the decision then, in full.")] = None,
    listen: Annotated[
        Path | None, typer.Option(help="Write the moment in the recording, the answer and the player into this folder (WAV).")
    ] = None,
    partner: Annotated[Path | None, typer.Option(help="The partner file, if it has moved since.")] = None,
    as_json: Json = False,
) -> None:
    """Say in words why a session was played as it was: what spoke for it, what nearly won, and where it is from."""
    with _voice(as_json) as voice:
        from musichal.commands.explain import explain_command

        explain_command(folder, at=at, listen=listen, partner=partner, voice=voice)


@app.command(epilog="Example: `musichal evaluate partner.hal guitar.wav --report listening.html`")
def evaluate(
    partner: Annotated[Path, typer.Argument(help="The partner file.")],
    recordings: Annotated[list[Path], typer.Argument(help="Recordings of players, or folders of them: what it answers.")],
    excerpt: Annotated[float, typer.Option(min=10, max=300, help="Length of the excerpts it answers, in seconds.")] = 30.0,
    most: Annotated[int, typer.Option(min=4, max=200, help="At most so many excerpts.")] = 24,
    pause: Annotated[
        float,
        typer.Option(min=0, max=60, help="Let the players stop for so many seconds after each 5 s: for taking turns."),
    ] = 0,
    minutes: Annotated[
        float, typer.Option(min=0.5, max=120, help="How long it plays in one go, to see its use of memory.")
    ] = 15,
    mode: Annotated[
        list[str] | None, typer.Option(help="A mode to play in, as in `play`; repeatable. All that play, if none is named.")
    ] = None,
    effects: Annotated[
        bool, typer.Option("--effects", help="Also what each parameter does between its ends; takes many minutes.")
    ] = False,
    effect: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Of `--effects`, only that of this parameter; repeatable.")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, max=64, help="How many processes try parameters.")] = 1,
    room: Annotated[
        bool, typer.Option("--room", help="Also how it does where it hears itself; needs the `sound` extra, takes minutes.")
    ] = False,
    report: Annotated[Path | None, typer.Option(help="Write a report with pictures: an HTML file, or a folder for it.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the partner's choices.")] = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the partner, as in `play`; repeatable."),
    ] = None,
    modes: Annotated[Path | None, typer.Option(help="A table of modes of your own (TOML).")] = None,
    as_json: Json = False,
) -> None:
    """Measure whether a partner listens: its answers beside those of a deaf one, its memory, harmony and phrases."""
    with _voice(as_json) as voice:
        from musichal.commands.direction import direction
        from musichal.commands.evaluate import PLAYING_MODES, chosen_trials, evaluate_command

        evaluate_command(
            partner,
            recordings,
            excerpt_s=excerpt,
            most=most,
            pause_s=pause,
            minutes=minutes,
            directions={name: direction(name, modes, None) for name in mode or PLAYING_MODES},
            effects=chosen_trials(effect or []) if effects or effect else (),
            processes=processes,
            room=room,
            settings=_settings(set_ or []),
            report=report,
            seed=seed,
            voice=voice,
        )


@app.command(epilog="Example: `musichal encoder m-a-p/MERT-v1-95M --check` — exits with 1 if a check fails.")
def encoder(
    name: Annotated[
        str, typer.Argument(help="A folder with a MERT, HuBERT or wav2vec 2.0 checkpoint, or OWNER/NAME on the hub.")
    ],
    check: Annotated[bool, typer.Option("--check", help="Load it and look at what it does; needs the `mert` extra.")] = False,
    convert: Annotated[
        bool, typer.Option("--convert", help="Convert a layer for playing; partners that hear with it find it in the cache.")
    ] = False,
    layer: Annotated[int | None, typer.Option(min=0, help="Which layer; the middle one, if none is named.")] = None,
    revision: Annotated[str | None, typer.Option(help="A commit, tag or branch on the hub.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Stay off the network.")] = False,
    as_json: Json = False,
) -> None:
    """Show what a learned encoder's weights are, their licence too, and check that they load and compute as they should."""
    with _voice(as_json) as voice:
        from musichal.commands.encoder import encoder_command

        encoder_command(name, revision=revision, offline=offline, layer=layer, check=check, convert=convert, voice=voice)


def _samples(text: str, option: str, limits: tuple[int, int], sample_rate_hz: int) -> int:
    """Return a duration such as 350ms or 0.35s in samples, if it is within `limits`, in samples too."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s)\s*", text)
    if match is None:
        raise InputError(f"{option} must be a duration such as 350ms or 0.35s, not {text!r}")
    samples = float(match[1]) * (0.001 if match[2] == "ms" else 1) * sample_rate_hz
    least, most = limits
    if not least - 0.5 < samples < most + 0.5:  # it is infinite, with enough digits
        # Whole milliseconds inside the limits, so that what the message names is accepted.
        least_ms, most_ms = math.ceil(1000 * least / sample_rate_hz), 1000 * most // sample_rate_hz
        raise InputError(f"{option} must be from {least_ms} to {most_ms} ms, not {text.strip()}")
    return round(samples)


def _encoder_plan(
    encoder: str,
    *,
    weights: Path | None,
    layer: int | None,
    revision: str | None,
    runtime: str,
    precision: str,
    offline: bool,
    voice: Terminal,
) -> "EncoderPlan | None":
    """Return how to hear with a learned encoder; None for one without weights, which takes none of these options."""
    from musichal.commands.encoder_plan import encoder_plan, encoder_request

    request = encoder_request(
        encoder,
        weights=weights,
        layer=layer,
        revision=revision,
        runtime=runtime,
        precision=precision,
        offline=offline,
    )
    return encoder_plan(request, voice) if request is not None else None


def _seconds(text: str, option: str) -> float:
    """Return a duration such as 500ms, 60s or 10min in seconds."""
    match = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*(ms|s|min|h)\s*", text)
    if match is None or float(match[1]) == 0:
        raise InputError(f"{option} must be a duration such as 60s or 10min, not {text!r}")
    return float(match[1]) * {"ms": 0.001, "s": 1, "min": 60, "h": 3600}[match[2]]


def _only_for(what: str, **options: object) -> None:
    """Raise `InputError` for an option that was given and means nothing here."""
    for name, value in options.items():
        if value is not None:
            raise InputError(f"--{name.strip('_').replace('_', '-')} is for {what} only")


def _osc_ports(text: str | None, *, host: str, to_host: str) -> "OscPorts":
    from musichal.commands.live import OscPorts

    if text is None:
        return OscPorts()
    match = re.fullmatch(r"\s*(\d{1,5})?(?::(\d{1,5}))?\s*", text)
    ports = [] if match is None else [None if port is None else int(port) for port in match.groups()]
    if not any(ports) or any(port is not None and not 0 < port < 1 << 16 for port in ports):
        raise InputError(f"--osc takes ports, IN, IN:OUT or :OUT, such as 9000:9001, not {text!r}")
    return OscPorts(listen=ports[0], send=ports[1], host=host, to_host=to_host)


def _resampler(text: str) -> str:
    if text not in RESAMPLERS:
        raise InputError(f"--resampler must be one of {', '.join(RESAMPLERS)}, not {text!r}")
    return text


def _policy(text: str) -> str:
    if text not in ("grid", "onset"):
        raise InputError(f"--policy must be 'grid' or 'onset', not {text!r}")
    return text


def _settings(pairs: list[str]) -> PartnerSettings:
    """Return partner settings from name=value pairs."""
    values: dict[str, int | float | str] = {}
    for pair in pairs:
        name, separator, text = (part.strip() for part in pair.partition("="))
        if not separator:
            raise InputError(f"--set takes NAME=VALUE, got {pair!r}")
        kind = setting(name).kind
        try:
            values[name] = text if kind == "words" else int(text) if re.fullmatch(r"[-+]?\d+", text) else float(text)
        except ValueError as error:
            raise InputError(f"{name} must be {'an integer' if kind == 'integer' else 'a number'}, got {text!r}") from error
    return PartnerSettings().changed(values)
