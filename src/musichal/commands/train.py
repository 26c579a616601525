"""`musichal train` and `encoder`: from recordings to a partner, and the learned encoders it may hear with."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Annotated

import typer

from musichal.audio.midi_recording import read_take
from musichal.audio.midi_take import MidiChoice
from musichal.audio.pairs import read_pair
from musichal.audio.recording import Recording, read_found
from musichal.audio.recording_files import FoundFiles, find_recordings, is_midi
from musichal.audio.score import parse_midi_channels
from musichal.commands.archive import LONG_S, ArchiveOptions, length_s, train_archive
from musichal.commands.options import (
    Force,
    Layer,
    MemoryHours,
    Mixed,
    Offline,
    Precision,
    Processes,
    Revision,
    Runtime,
    SampleFrames,
    Select,
    Strict,
    check_choice,
)
from musichal.commands.terminal import Terminal, table_of
from musichal.errors import CheckFailedError, InputError
from musichal.evaluate.partner_stats import partner_stats
from musichal.evaluate.takes import enough_words, sounding_s
from musichal.evaluate.tempo_and_chords import tempo_stats
from musichal.hearing.encoders.checkpoint import Checkpoint, find_checkpoint
from musichal.hearing.encoders.conversion import convert as converted
from musichal.hearing.encoders.learned import (
    TOLERANCE,
    CheckpointReport,
    EncoderRequest,
    check_checkpoint,
    choose_runtime,
    find,
    frame_counts,
    parse_encoder,
    unmeasured_spec,
)
from musichal.hearing.encoders.runtimes import AUTO, LEAST_COSINE, Measured, candidates
from musichal.hearing.front_end import FrontEnd
from musichal.hearing.listener import resolve_spec
from musichal.hearing.percepts import Window
from musichal.live.output.files import PARTNER, check_outputs
from musichal.memory.memory import Memory
from musichal.memory.partner_file import PartnerModel
from musichal.partner.made_ready import save_ready
from musichal.partner.settings import PartnerSettings
from musichal.partner.voices import unheard_voices
from musichal.spec import RESAMPLERS, EncoderSpec, PerceptionSpec
from musichal.text import counted, parse_seconds, printable
from musichal.training.heard import compacted
from musichal.training.manifest import distinct_names, expanded, read_archive
from musichal.training.trainer import Progress, train
from musichal.training.workers import usual_processes

_MEASURED_S = 20.0
_MOST_TEMPI = 8  # said one by one; `inspect` has all


def train_command(
    *,
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
    terminal: Terminal,
) -> PartnerModel | None:
    """Train a partner on files and folders, write it to `output`, and report what was learned.

    Each of `notes` is the MIDI file of the recording in its place, and each `player` goes with the `others` in its place: see
    `musichal.audio.pairs`. More than an hour of recordings, and all with an option of `ArchiveOptions`, are an archive: see
    `musichal.commands.archive`. Raises `MusicHalError` for an option, a recording or an output that cannot be used.
    """
    check_choice(resampler, RESAMPLERS, "--resampler")
    check_choice(policy, ("grid", "onset"), "--policy")
    plan = encoder_plan(
        encoder,
        terminal,
        weights=weights,
        layer=layer,
        revision=revision,
        runtime=runtime,
        precision=precision,
        offline=offline,
    )
    base = replace(PerceptionSpec(), encoder=replace(EncoderSpec(), name=encoder)) if plan is None else plan.spec
    texts = {"segment": segment, "hop": hop, "context": context, "lookahead": lookahead}
    s = {name: None if text is None else parse_seconds(text, f"--{name}") for name, text in texts.items()}
    try:
        spec = base.varied(
            segment_s=s["segment"],
            hop_s=s["hop"],
            context_s=s["context"],
            lookahead_s=s["lookahead"],
            policy=policy,
            resampler=resampler,
            vocabulary=vocabulary,
        )
    except InputError as error:
        raise InputError(f"--{error}" if str(error).split()[0] in texts else str(error)) from error
    if plan is None:
        resolve_spec(spec)  # a mistake must show before minutes of listening
    asked = _asked_pairs(player or (), others or ())
    options = ArchiveOptions(
        manifest or (), exclude or (), work, sample_frames, memory_hours, select, sounds_of, shard, engine, allow_mixed, dry_run
    )
    paths = expanded(recordings or ())
    if not asked and not notes:
        listed = read_archive(paths, options.manifest, exclude=options.exclude)
        if options.given or any(so_far_s > LONG_S for so_far_s in accumulate(map(length_s, listed.entries))):
            return train_archive(
                listed,
                spec,
                options,
                output=output,
                workers=workers,
                keep_audio=not no_audio,
                compact=compact,
                strict=strict,
                midi=_midi_choice(tracks, channels, soundfont, [entry.path for entry in listed.entries]),
                named=frozenset(path for path in map(Path, recordings or ()) if path.is_file()),
                terminal=terminal,
                measured=None if plan is None else (lambda first: chosen_spec(plan, spec, [first], terminal)),
                force=force,
            )
    if options.given:
        raise InputError(f"--{options.given[0].replace('_', '-')} is for archives: without --player and --notes")
    found = find_recordings(paths) if paths or not asked else FoundFiles()
    sides = [Path(side) for pair in asked for side in pair if Path(side).is_file()]
    _check_once([*found.files, *sides])
    midi = _midi_choice(tracks, channels, soundfont, [*found.files, *(notes or ())])
    takes = [read_take(file, midi) for file in notes or ()]
    check_outputs([(output, PARTNER)], inputs=[*found.files, *sides], force=force)
    started_s = time.monotonic()
    with terminal.progress("Reading") as progress:
        least_s = spec.segment_samples / spec.sample_rate_hz
        read = read_found(found, warn=terminal.warn, min_duration_s=least_s, strict=strict, midi=midi, progress=progress)
        heard = _named(read, asked, sides, progress=progress)
        for recording in heard[len(read) :]:
            for warning in recording.warnings:
                terminal.warn(f"{recording.name}: {warning}")
        if len(takes) > len(read):
            raise InputError(f"--notes is given {len(takes)} times, for {counted(len(read), 'recording')}")
        if plan is not None:
            progress("Measuring runtimes", 0.0)
            spec = chosen_spec(plan, spec, heard, terminal)
        heard = [compacted(recording, spec.sample_rate_hz) for recording in heard] if compact else heard
        heard_s = sum(r.duration_s for r in heard)
        model = train(
            heard,
            spec,
            keep_audio=not no_audio,
            processes=workers or usual_processes(heard_s),
            notes=dict(enumerate(takes)),
            pairs=[(n, n + 1) for n in range(len(read), len(heard), 2)],
            progress=progress,
            warn=terminal.warn,
        )
        progress(f"Writing {printable(output.name)}", 1.0)
        save_ready(output, model)
    took_s = time.monotonic() - started_s
    say_trained(model, output, terminal, count=len(heard), heard_s=heard_s, took_s=took_s, learned=plan is not None)
    return model


def say_trained(
    model: PartnerModel, output: Path, terminal: Terminal, *, count: int, heard_s: float, took_s: float, learned: bool
) -> None:
    """Report what was learned of so many recordings, and where the partner is."""
    terminal.result({"partner": str(output), "took_s": took_s, "figures": partner_stats(model).to_dict()})
    speed = f"{heard_s / took_s:.{0 if heard_s >= 10 * took_s else 1}f}"
    terminal.say(f"Heard {counted(count, 'recording')} ({heard_s:.1f} s) in {took_s:.1f} s: {speed} times real time.")
    if learned:
        used = model.spec.encoder
        terminal.say(
            f"Encoder: layer {used.layer} of {used.weights}, computed by {used.runtime} in {used.precision}."
            f" Licence of the weights: {model.encoder_licence}."
        )
    size, memory = model.spec.vocabulary.size, model.memory
    terminal.say(f"Learned {size} harmonic and {size} percussive sounds.")
    say_held(memory, terminal)
    for line in pair_words(model):
        terminal.say(f"{line}.")
    for stored in model.recordings if len(model.recordings) <= _MOST_TEMPI else ():
        if stored.beats is not None:
            tempo = tempo_stats(stored.beats, duration_s=stored.duration_s)
            terminal.say(f"Tempo of {printable(stored.name)}: {tempo.words}.")
    terminal.say(f"Wrote {printable(output)} ({output.stat().st_size / 1e6:.1f} MB).")


def _midi_choice(tracks: str | None, channels: str | None, soundfont: Path | None, files: Sequence[Path]) -> MidiChoice:
    """Return what is learned of MIDI files; raises `InputError` where something is asked for and there is none."""
    choice = MidiChoice(
        tracks=() if tracks is None else tuple(tracks.split(",")),
        channels=frozenset() if channels is None else parse_midi_channels(channels),
        soundfont=soundfont,
    )
    if choice != MidiChoice() and not any(is_midi(file) for file in files):
        raise InputError("--tracks, --channels and --soundfont are for MIDI files, and there is none")
    return choice


def say_held(memory: Memory, terminal: Terminal) -> None:
    """Say what a memory holds, how long it lasts, and what of it no voice can play."""
    held = [counted(len(rows), noun) for rows, noun in ((memory.notes, "note"), (memory.hits, "drum hit"))]
    terminal.say(f"The memory holds {counted(len(memory), 'gesture')} with {' and '.join(held)}.")
    terminal.say(f"{enough_words(sounding_s(memory))}.")
    if unheard := unheard_voices(memory, PartnerSettings()):
        terminal.warn(unheard)


def _asked_pairs(players: Sequence[str], others: Sequence[Path]) -> list[tuple[str, Path]]:
    if len(players) != len(others):
        counts = f"there are {counted(len(players), 'player')} and {counted(len(others), 'recording')} of others"
        raise InputError(f"--player and --others go in pairs, and {counts}")
    return list(zip(players, others, strict=True))


def _named(
    read: Mapping[Path, Recording], pairs: Sequence[tuple[str, Path]], sides: Sequence[Path], *, progress: Progress
) -> list[Recording]:
    """Return recordings, and behind them both of each pair, all with names that tell them apart."""
    heard = list(read.values())
    for number, pair in enumerate(pairs):
        progress(f"Reading {printable(pair[1].name)}", number / len(pairs))
        heard += read_pair(*pair)
    names = distinct_names([*read, *sides])
    if len(heard) > len(names):  # two in one file have names of their own
        return heard
    return [replace(recording, name=name) for recording, name in zip(heard, names, strict=True)]


def _check_once(files: Sequence[Path]) -> None:
    found: set[str] = set()
    for file in files:
        if (real := os.path.realpath(file)) in found:
            raise InputError(f"{printable(file)} is given twice")
        found.add(real)


def pair_words(model: PartnerModel) -> list[str]:
    """Return a sentence on each pair, without its full stop."""
    past = model.memory.players
    words = []
    for pair in past.pairs if past is not None else ():
        player, others = (printable(model.recordings[n].name) for n in (pair.player, pair.others))
        later = "later" if pair.offset_s > 0 else "earlier"
        offset = f", where each moment is {abs(pair.offset_s):.2f} s {later}" if pair.offset_s else ""
        words.append(f"{player} is answered by {others}{offset}")
    return words


# ── learned encoders ─────────────────────────────────────────────────────────


@dataclass(frozen=True)
class EncoderPlan:
    """What was asked for, the weights that were found for it, and the default spec that goes with them."""

    request: EncoderRequest
    checkpoint: Checkpoint
    spec: PerceptionSpec


def encoder_plan(
    encoder: str,
    terminal: Terminal,
    *,
    weights: Path | None = None,
    layer: int | None = None,
    revision: str | None = None,
    runtime: str = AUTO,
    precision: str = AUTO,
    offline: bool = False,
) -> EncoderPlan | None:
    """Find the weights of a learned encoder and report their licence; return None for an encoder without weights."""
    request = parse_encoder(encoder)
    if request is None:
        given = {"weights": weights, "layer": layer, "revision": revision}
        options = [name for name, value in given.items() if value is not None]
        options += [name for name, value in (("runtime", runtime), ("precision", precision)) if value != AUTO]
        if options:
            raise InputError(f"--{options[0]} is for encoders with weights (mert, hf:…); '{encoder}' has none")
        return None
    if weights is not None:
        if request.name != "mert":
            raise InputError("--weights is for --encoder mert; name the folder as hf:FOLDER")
        if not weights.is_dir():
            raise InputError(f"--weights must be a folder with the files of a checkpoint, got {printable(weights)}")
        request = replace(request, source=str(weights))
    if layer is not None:
        if request.layer not in (None, layer):
            raise InputError(f"--layer {layer} and --encoder {encoder} ask for two layers")
        request = replace(request, layer=layer)
    request = replace(request, revision=revision, runtime=runtime, precision=precision, offline=offline)
    candidates(runtime, precision)
    checkpoint = find(request, say=terminal.warn)
    terminal.warn(f"the weights of {checkpoint.name} are under this licence: {checkpoint.licence}")
    return EncoderPlan(request, checkpoint, unmeasured_spec(request, checkpoint))


def chosen_spec(plan: EncoderPlan, spec: PerceptionSpec, heard: Sequence[Recording], terminal: Terminal) -> PerceptionSpec:
    """Return the spec with the fastest runtime for these recordings on this machine, and report what was measured."""
    chosen, measured = choose_runtime(
        spec,
        measured_windows(heard[0], spec),
        graph=lambda kind: converted(plan.checkpoint, layer=spec.encoder.layer, kind=kind, say=terminal.warn),
        runtime=plan.request.runtime,
        precision=plan.request.precision,
    )
    say_measured(measured, terminal)
    return chosen


def measured_windows(recording: Recording, spec: PerceptionSpec) -> list[Window]:
    """Return the windows of the middle of a recording."""
    length = round(_MEASURED_S * recording.sample_rate_hz)
    first = max(0, (recording.samples.shape[0] - length) // 2)
    front_end = FrontEnd(spec, source_rate_hz=recording.sample_rate_hz)
    results = front_end.stream(recording.samples[first : first + length])
    return [window for result in results for window in result.windows]


def say_measured(measured: Sequence[Measured], terminal: Terminal) -> None:
    """Say how fast each runtime was, and how near to the reference."""
    for m in measured:
        refused = "" if m.least_cosine >= LEAST_COSINE else f", less than {LEAST_COSINE:g}: not used"
        terminal.say(
            f"{m.choice}: {m.median_ms:.1f} ms per window of both sources, cosine to fp32 {m.least_cosine:.5f} or more{refused}"
        )


def encoder_command(
    *,
    name: Annotated[str, typer.Argument(help="A folder with a MERT, HuBERT or wav2vec 2.0 checkpoint, or OWNER/NAME of one.")],
    check: Annotated[bool, typer.Option("--check", help="Load and test it; needs the `mert` extra.")] = False,
    convert: Annotated[bool, typer.Option("--convert", help="Convert a layer for playing; it is kept in the cache.")] = False,
    layer: Layer = None,
    revision: Revision = None,
    offline: Offline = False,
    terminal: Terminal,
) -> CheckpointReport | None:
    """Find a checkpoint and describe it; with `check` load and test it, with `convert` prepare it for playing."""
    if layer is not None and not (check or convert):
        raise InputError("--layer needs --check or --convert")
    checkpoint = find_checkpoint(name, revision=revision, offline=offline, say=terminal.warn)
    if layer is not None:
        checkpoint.check_layer(layer)
    report = None
    if check:
        with terminal.progress("Loading") as progress:
            report = check_checkpoint(checkpoint, layer=layer, progress=progress)
    graph = None
    if convert:
        which = checkpoint.default_layer if layer is None else layer
        graph = converted(checkpoint, layer=which, kind="fp32", say=terminal.warn)
    counts = {f"{ms} ms": count for ms, count in frame_counts(checkpoint).items()}
    fields = [
        *("name", "revision", "architecture", "layers", "default_layer", "dims", "sample_rate_hz", "frame_samples"),
        *("stride_samples", "normalise", "normalise_source", "licence", "weights_sha256", "digest"),
    ]
    described = {field: getattr(checkpoint, field) for field in fields}
    described |= {"frame_counts": counts, "weights": str(checkpoint.weights_path)}
    if report is not None:
        described |= {
            "passed": report.passed,
            "findings": [asdict(finding) for finding in report.findings],
            "features": asdict(report.features) | {"tolerance": TOLERANCE},
        }
    terminal.result(described | ({"converted": str(graph.path)} if graph else {}))
    terminal.show(
        table_of("Checkpoint", ("", ""), [(k, printable(str(v))) for k, v in described.items() if k in (*fields, "weights")])
    )
    if graph is not None:
        terminal.say(f"Converted for playing: {printable(graph.path)} (SHA-256 {graph.sha256[:16]}).")
    if report is None:
        return None
    verdicts = {True: "passed", False: "FAILED", None: ""}
    rows = [(finding.name, verdicts[finding.passed], finding.found) for finding in report.findings]
    terminal.show(table_of("Checks", ("check", "", "found"), rows))
    known = report.features
    values = [(f"frame {frame}, dimension {dimension}", f"{value:+.5f}") for frame, dimension, value in known.values]
    summary = [*values, ("SHA-256 of all", known.sha256)]
    title = f"Known signal, layer {known.layer}, {known.shape[0]} frames of {known.shape[1]}"
    terminal.show(table_of(title, ("", ""), [*summary, ("computed by", known.runtime)]))
    failed = [finding.name for finding in report.findings if finding.passed is False]
    if failed:
        raise CheckFailedError(f"{checkpoint.name} failed: {', '.join(failed)}")
    return report
