"""`musichal train`: recordings in, a partner file out."""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePath

from musichal.audio.recording import collect_recordings, read_recording
from musichal.commands.encoder_plan import EncoderPlan, chosen_spec
from musichal.commands.outputs import check_outputs
from musichal.commands.terminal import Terminal
from musichal.evaluate.partner_stats import partner_stats
from musichal.hearing.listener import resolve_spec
from musichal.memory.partner_file import PartnerModel, save_partner
from musichal.spec import PerceptionSpec
from musichal.text import counted, printable
from musichal.training.trainer import train
from musichal.training.workers import usual_processes


def train_command(
    paths: Sequence[Path],
    output: Path,
    spec: PerceptionSpec,
    *,
    keep_audio: bool,
    voice: Terminal,
    plan: EncoderPlan | None = None,
    processes: int | None = None,
) -> PartnerModel:
    """Train a partner on files and folders, write it to `output`, and say what was learned.

    Parameters
    ----------
    paths, output, spec, keep_audio, voice
    plan : EncoderPlan, optional
        Of an encoder with weights, whose runtime is yet to be chosen.
    processes : int, optional
        How many may listen with such an encoder; by `usual_processes` if not given.

    Raises
    ------
    InputError
        For a recording that cannot be heard or an output that cannot be written.
    """
    # A mistake in the last argument should not show after minutes of listening.
    if plan is None:
        resolve_spec(spec)
    files = collect_recordings(paths)
    check_outputs([output], inputs=files)
    started_s = time.monotonic()
    least_s = spec.segment_samples / spec.sample_rate_hz
    recordings = []
    with voice.progress("Reading") as tell:
        for number, (file, name) in enumerate(zip(files, distinct_names(files), strict=True)):
            tell(f"Reading {name}", number / len(files))
            recordings.append(replace(read_recording(file, min_duration_s=least_s), name=name))
        for recording in recordings:
            for warning in recording.warnings:
                voice.warn(f"{recording.name}: {warning}")
        if plan is not None:
            tell("Measuring runtimes", 0.0)
            spec = chosen_spec(plan, spec, recordings, voice)
        model = train(
            recordings,
            spec,
            keep_audio=keep_audio,
            processes=processes or usual_processes(sum(r.duration_s for r in recordings)),
            progress=tell,
            warn=voice.warn,
        )
        tell(f"Writing {printable(output.name)}", 1.0)
        save_partner(output, model)
    took_s = time.monotonic() - started_s
    heard_s = sum(r.duration_s for r in recordings)
    stats = partner_stats(model)
    voice.result({"partner": str(output), "took_s": took_s, "figures": stats.to_dict()})
    states, notes = len(model.memory), len(model.memory.notes)
    voice.say(
        f"Chandra listened to {counted(len(recordings), 'recording')} ({heard_s:.1f} s) in {took_s:.1f} s:"
        f" {heard_s / took_s:.{0 if heard_s >= 10 * took_s else 1}f} times real time."
    )
    if plan is not None:
        voice.say(
            f"It hears with layer {spec.encoder.layer} of {spec.encoder.weights}, by {spec.encoder.runtime} in"
            f" {spec.encoder.precision}. Licence of the weights: {model.encoder_licence}."
        )
    voice.say(
        f"Learned {spec.vocabulary.size} harmonic and {spec.vocabulary.size} percussive sounds,"
        f" and remembers {counted(states, 'gesture')} with {counted(notes, 'note')}."
    )
    voice.say(f"Wrote {printable(output)} ({output.stat().st_size / 1e6:.1f} MB).")
    return model


def distinct_names(files: Sequence[PurePath]) -> list[str]:
    """Return a name for each file: its own, and where names are equal with as many parent folders as tell them apart.

    The folders are those that were given: no more of where a recording lay is written into a partner. Folders are parted
    by "/" on every system. Different paths get different names.
    """
    alike: dict[str, list[int]] = defaultdict(list)
    for number, file in enumerate(files):
        alike[file.name].append(number)
    names = [""] * len(files)
    for group in alike.values():
        depth = 1
        while len({files[n].parts[-depth:] for n in group}) < len(group):
            depth += 1
        for number in group:
            names[number] = printable(PurePath(*files[number].parts[-depth:]).as_posix())
    return names
