"""The options of `musichal play`, and what several commands do with theirs. Quick to import."""

import inspect as signatures
import re
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from musichal.commands.terminal import open_terminal
from musichal.errors import InputError
from musichal.parameters import NUMBERS, WORDS, setting
from musichal.partner.settings import PartnerSettings
from musichal.text import parse_seconds

LOOPBACK = "127.0.0.1"

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for a program instead of text.")]
SettingPairs = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help=f"Set a parameter; repeatable. {', '.join((*NUMBERS, *WORDS))}, and of a voice as bass.hold. "
        "`musichal parameters` explains each.",
    ),
]
ModeTableFile = Annotated[Path | None, typer.Option(help="Your own table of modes (TOML).")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the partner's choices.")]
Force = Annotated[bool, typer.Option("--force", help="Replace files that MusicHal did not write, too.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at a recording that is cut short or cannot be heard.")]
Report = Annotated[Path | None, typer.Option(help="Write a report with pictures: an HTML file, or a folder to put it in.")]

WebPort = Annotated[int, typer.Option(min=0, max=65535, help="Port of the dashboard; 0: a free one.")]
WebHost = Annotated[
    str, typer.Option(help="Address to serve the dashboard at; any but loopback is open to other machines, with the token.")
]
NoBrowser = Annotated[bool, typer.Option("--no-browser", help="Print the dashboard's address, and open no browser.")]

PartnerFile = Annotated[Path, typer.Argument(help="The partner file.")]
SessionFolder = Annotated[Path, typer.Argument(help="A session folder that `musichal play --session` wrote.")]
MovedPartner = Annotated[Path | None, typer.Option(help="The partner file, if it has moved since.")]
SoundFontFile = Annotated[Path | None, typer.Option(help="SoundFont 2 file; default: an installed one, else the built-in one.")]
Picture = Annotated[Path | None, typer.Option(help="Draw it (PNG, SVG or PDF).")]
Runtime = Annotated[str, typer.Option(help="Learned encoders: what computes them; 'auto' measures the fastest here.")]
Precision = Annotated[str, typer.Option(help="Learned encoders: 'auto', 'fp32', 'int8', 'bf16' or 'bf16-int8'.")]
Layer = Annotated[int | None, typer.Option(min=0, help="Learned encoders: the layer; default: the middle one.")]
Revision = Annotated[str | None, typer.Option(help="Learned encoders: a commit, tag or branch on the hub.")]
Offline = Annotated[bool, typer.Option("--offline", help="Learned encoders: stay off the network.")]
Processes = Annotated[
    int | None,
    typer.Option("--workers", "--processes", min=1, help="Number of processes that listen; default: as many as pay."),
]
SampleFrames = Annotated[int, typer.Option(min=1000, help="Archives: frames that each source's sounds are learned from.")]
MemoryHours = Annotated[float | None, typer.Option(min=0.001, help="Archives: remember so much of it; default: all.")]
Select = Annotated[
    str | None,
    typer.Option(help="Archives: what --memory-hours keeps, 'diverse', 'recent' or 'tags=NAME,NAME'; default: diverse."),
]
Mixed = Annotated[bool, typer.Option("--allow-mixed", help="Archives: take what machines with another arithmetic hear.")]


@dataclass(frozen=True, kw_only=True)
class PlayOptions:
    """What `musichal play` is asked for; each field is an option of the command line."""

    partner: Annotated[Path, typer.Argument(help="The partner file.")]
    input: Annotated[
        str | None,
        typer.Option(
            help="A recording of the player, sound or MIDI; live, an audio input (number or part of its name), a MIDI input, as"
            " midi:Keystation, or both, as 'Scarlett + midi:Keystation'."
        ),
    ] = None
    midi_out: Annotated[
        str | None, typer.Option(help="Write the answer as MIDI: a file; live, a port too (`musichal devices` lists them).")
    ] = None
    audio_out: Annotated[
        str | None,
        typer.Option(
            help="Play the answer as sound: a file (WAV, FLAC, OGG, MP3 …); live, 'default', or for slices an output's name."
        ),
    ] = None
    mix_out: Annotated[Path | None, typer.Option(help="Write player and answer together (WAV, FLAC, OGG, MP3 …).")] = None
    picture: Annotated[Path | None, typer.Option(help="Draw the performance (PNG, SVG or PDF).")] = None
    force: Force = False
    strict: Strict = False
    session: Annotated[Path | None, typer.Option(help="Record the session in this new folder, for `musichal replay`.")] = None
    sound: Annotated[str, typer.Option(help="Sound of the answer: 'soundfont', or 'slices' of the recordings.")] = "soundfont"
    soundfont: Annotated[
        Path | None,
        typer.Option(help="SoundFont 2 file of the answer, and of a MIDI player; default: one that is installed, or none."),
    ] = None
    program: Annotated[int, typer.Option(min=1, max=128, help="General MIDI program; 5 is an electric piano.")] = 5
    seed: Seed = 0
    set_: SettingPairs = None
    mode: Annotated[str, typer.Option(help="One of `musichal modes`, or 'auto': the partner changes modes.")] = "auto"
    modes: ModeTableFile = None
    form: Annotated[Path | None, typer.Option(help="A form: sections with modes, silences and an ending (TOML).")] = None
    scenario: Annotated[
        Path | None, typer.Option(help="Chords to follow (a text as '| Dm7 | G7 | C |', MIDI, MusicXML), or a scenario (TOML).")
    ] = None
    for_: Annotated[str | None, typer.Option("--for", help="Live: how long to play, as 60s.")] = None
    channel: Annotated[str | None, typer.Option(help="Live: input channels, as 1 or 1,2 or all.")] = None
    block: Annotated[int, typer.Option(min=0, max=8192, help="Live: input block size in frames; 0: the driver's.")] = 256
    latency: Annotated[
        float,
        typer.Option(
            min=0,
            max=1000,
            metavar="MS",
            help="Live: what instrument and sound card take to sound, in ms; `musichal devices --latency` measures it.",
        ),
    ] = 0.0
    voices: Annotated[Path | None, typer.Option(help="Ports (live), channels, ranges and programs of the voices (TOML).")] = (
        None
    )
    osc: Annotated[str | None, typer.Option(help="Live: OSC ports, IN or IN:OUT, as 9000:9001.")] = None
    osc_host: Annotated[
        str, typer.Option(help="Live: address to receive OSC at; any but loopback is open to other machines.")
    ] = LOOPBACK
    osc_to: Annotated[str, typer.Option(help="Live: address to send OSC to.")] = LOOPBACK
    control_in: Annotated[str | None, typer.Option(help="Live: MIDI input of controllers and MIDI clock.")] = None
    clock_in: Annotated[str | None, typer.Option(help="Live: MIDI input of MIDI clock, if another.")] = None
    clock_out: Annotated[
        str | None, typer.Option(help="Live: MIDI port that gets MIDI clock, start and stop, at the pulse that is played.")
    ] = None
    monitor: Annotated[
        str | None, typer.Option(help="Live: play what a MIDI player plays as sound, on 'default' or an output's name.")
    ] = None
    link: Annotated[bool, typer.Option("--link", help="Live: follow Ableton Link (extra `link`, GPL).")] = False
    control_map: Annotated[Path | None, typer.Option("--map", help="Live: what the controllers do (TOML).")] = None
    web: Annotated[bool, typer.Option("--web", help="Live: show the dashboard, a page on this machine.")] = False
    web_port: WebPort = 0
    web_host: WebHost = LOOPBACK
    no_browser: NoBrowser = False
    settings: PartnerSettings | None = None
    """Not an option: the settings, where a program has made them; they replace `set_`, `mode`, `modes`, `form`, `scenario`."""

    @property
    def is_live(self) -> bool:
        """Return whether `input` names an audio input rather than a recording."""
        path = Path(self.input or "")
        if self.input is None or path.exists():  # a file whose name is that of a port, too, is the file
            return self.input is None
        return self.is_midi_port or " + midi:" in self.input or not (_is_audio_file(path) or len(path.parts) > 1)

    @property
    def is_midi_port(self) -> bool:
        """Return whether `input` names a MIDI input."""
        if self.input is None or Path(self.input).exists():
            return False
        from musichal.live.input.midi_input import MIDI_SCHEME

        return self.input.startswith(MIDI_SCHEME)

    @property
    def duration_s(self) -> float | None:
        """Return how long to play live, None without end."""
        return None if self.for_ is None else positive_seconds(self.for_, "--for")

    @property
    def channels(self) -> tuple[int, ...] | None:
        """Return the input channels, empty for all, None where none are named."""
        if self.channel is None:
            return None
        from musichal.live.input.live_input import parse_channels

        return parse_channels(self.channel)

    def osc_ports(self) -> tuple[int | None, int | None]:
        """Return the ports that OSC is received at and sent to."""
        if self.osc is None:
            return None, None
        match = re.fullmatch(r"\s*(\d{1,5})?(?::(\d{1,5}))?\s*", self.osc)
        listen, send = [None, None] if match is None else [None if port is None else int(port) for port in match.groups()]
        if not (listen or send) or any(port is not None and not 0 < port < 1 << 16 for port in (listen, send)):
            raise InputError(f"--osc must be ports, IN, IN:OUT or :OUT, such as 9000:9001, got {self.osc!r}")
        return listen, send

    def check(self) -> None:
        """Raise `InputError` for an option that does not go with the kind of input."""
        check_choice(self.sound, ("soundfont", "slices"), "--sound")
        live_only: tuple[str, ...] = ("for_", "channel", "latency", "osc", "control_in", "control_map", "web")
        live_only += ("clock_in", "clock_out", "monitor", "link")
        names = ("mix_out", "picture") if self.is_live else live_only
        for name in names:
            if getattr(self, name):
                option = "map" if name == "control_map" else name.strip("_").replace("_", "-")
                raise InputError(f"--{option} is only for {'a recording' if self.is_live else 'live input'}")
        if self.is_live:
            # Read for their errors only, before anything is opened.
            _ = self.duration_s, self.channels, self.osc_ports()
        if self.is_live and self.audio_out is not None:
            if _is_audio_file(Path(self.audio_out)):
                raise InputError("live, sound goes to an audio output, not to a file: --audio-out default")
            if self.sound == "soundfont" and self.audio_out != "default":
                raise InputError("live, a soundfont plays on the system's default output: --audio-out default")


def _is_audio_file(path: Path) -> bool:
    from musichal.audio.recording_files import AUDIO_SUFFIXES, MIDI_SUFFIXES

    return path.suffix.lower() in AUDIO_SUFFIXES | MIDI_SUFFIXES


def positive_seconds(text: str, option: str) -> float:
    """Return a duration that is not 0, in seconds; raises `InputError` naming the option."""
    seconds = parse_seconds(text, option)
    if not seconds > 0:
        raise InputError(f"{option} must be longer than 0 s, got {text!r}")
    return seconds


def check_choice(value: str, choices: Iterable[str], option: str) -> None:
    """Raise `InputError` for a value that is none of an option's."""
    if value not in (names := tuple(choices)):
        raise InputError(f"{option} must be one of {', '.join(names)}, got {value!r}")


def settings_from(pairs: Iterable[str]) -> PartnerSettings:
    """Return partner settings from ``NAME=VALUE`` pairs; their names are `explicit`."""
    values: dict[str, int | float | str] = {}
    for pair in pairs:
        name, separator, text = (part.strip() for part in pair.partition("="))
        if not separator:
            raise InputError(f"--set must be NAME=VALUE, got {pair!r}")
        kind = setting(name).kind
        try:
            values[name] = text if kind == "words" else int(text) if re.fullmatch(r"[-+]?\d+", text) else float(text)
        except ValueError as error:
            raise InputError(
                f"{name} must be {'an integer' if kind == 'integer' else 'a number'}, got {text[:40]!r}"
            ) from error
    return PartnerSettings().changed(values)


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """What `musichal evaluate` is asked for; each field is an option of the command line."""

    partner: Annotated[Path, typer.Argument(help="The partner file; with --duo, the first recording or MIDI file.")]
    recordings: Annotated[
        list[Path] | None, typer.Argument(help="Recordings of players, or folders of them; with --duo, files of duos.")
    ] = None
    duo: Annotated[
        bool,
        typer.Option(
            "--duo",
            help="Measure whether answers are together with a band: the files are pairs, PLAYER BAND, or multitrack MIDI files."
            " A partner learns the first part of each band.",
        ),
    ] = False
    beats: Annotated[Path | None, typer.Option(help="Duo: the true beats of a pair, seconds in a text file.")] = None
    player_track: Annotated[
        str | None, typer.Option(help="Duo: name or number of the player's track in MIDI files; default: the most melodic.")
    ] = None
    push: Annotated[
        float,
        typer.Option(min=-25, max=25, help="Duo: change the tempo of MIDI files by so many percent, in what is answered."),
    ] = 0
    jump: Annotated[
        int, typer.Option(min=-11, max=11, help="Duo: change the key of MIDI files by so many semitones, for a while.")
    ] = 0
    exact: Annotated[
        bool, typer.Option("--exact", help="Duo: learn MIDI files and let them play with their own notes, not as recordings.")
    ] = False
    train_share: Annotated[float, typer.Option(min=0.2, max=0.8, help="Duo: part of the band that is learned.")] = 0.5
    pairs: Annotated[bool, typer.Option("--pairs", help="Duo: learn the band beside the player, as `train --player`.")] = False
    excerpt: Annotated[float, typer.Option(min=10, max=300, help="Length of an excerpt, in seconds.")] = 30.0
    most: Annotated[int, typer.Option(min=4, max=200, help="Largest number of excerpts.")] = 24
    pause: Annotated[
        float, typer.Option(min=0, max=60, help="Insert a pause of this many seconds after each 5 s of playing.")
    ] = 0
    minutes: Annotated[float, typer.Option(min=0.5, max=120, help="Length of the run that measures memory use.")] = 15
    mode: Annotated[
        list[str] | None, typer.Option(help="A mode to play in; repeatable. Default: all that play; couple in duos.")
    ] = None
    effects: Annotated[bool, typer.Option("--effects", help="Measure each parameter's effect; takes long.")] = False
    effect: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Measure this one's effect; repeatable.")] = None
    processes: Annotated[int, typer.Option(min=1, max=64, help="Number of processes that measure effects.")] = 1
    room: Annotated[bool, typer.Option("--room", help="Measure how it plays where it hears itself.")] = False
    report: Report = None
    seed: Seed = 0
    set_: SettingPairs = None
    modes: ModeTableFile = None
    force: Force = False


def command_of(run: Callable[..., object], *, with_json: bool = True) -> Callable[..., None]:
    """Return a function for typer that gives `run` a terminal, and the options that are declared there.

    Its parameters are those of `run`, or the fields of a dataclass that `run` takes as `options`; and ``--json``.
    """
    hints = get_type_hints(run, include_extras=True)
    kind = hints.get("options")
    if kind is None:
        defaults = {name: p.default for name, p in signatures.signature(run).parameters.items() if name != "terminal"}
    else:
        hints = get_type_hints(kind, include_extras=True)
        declared = [f for f in fields(kind) if hasattr(hints[f.name], "__metadata__")]
        defaults = {f.name: signatures.Parameter.empty if f.default is MISSING else f.default for f in declared}
    if with_json:
        hints, defaults = hints | {"as_json": Json}, defaults | {"as_json": False}

    def command(*, as_json: bool = False, **values: Any) -> None:
        with open_terminal(as_json) as terminal:
            run(terminal=terminal, **(values if kind is None else {"options": kind(**values)}))

    command.__signature__ = signatures.Signature(  # type: ignore[attr-defined]
        [
            signatures.Parameter(name, signatures.Parameter.KEYWORD_ONLY, annotation=hints[name], default=default)
            for name, default in defaults.items()
        ]
    )
    command.__annotations__ = {name: hints[name] for name in defaults}
    command.__doc__ = run.__doc__
    return command
