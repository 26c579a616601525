"""`musichal rehear`: a partner hears its recordings again."""

import os
from pathlib import Path

from musichal.commands.terminal import Terminal
from musichal.commands.train import measured_windows, say_measured
from musichal.errors import InputError
from musichal.hearing.drums import drum_model_digest
from musichal.hearing.encoders import LEARNED
from musichal.hearing.encoders.learned import (
    choose_runtime,
    graph_of,
)
from musichal.hearing.encoders.runtimes import AUTO, Choice, candidates
from musichal.hearing.notes import note_model_digest
from musichal.hearing.percepts import SOURCES
from musichal.live.output.files import PARTNER, check_outputs
from musichal.memory.partner_file import PartnerModel, load_partner, save_partner
from musichal.spec import PerceptionSpec
from musichal.text import counted, printable
from musichal.training.trainer import Progress, own_recordings, rehear, with_beats
from musichal.training.workers import usual_processes


def rehear_command(
    *,
    partner: Path,
    terminal: Terminal,
    output: Path | None = None,
    runtime: str = AUTO,
    precision: str = AUTO,
    refit: bool = False,
    processes: int | None = None,
    force: bool = False,
) -> PartnerModel:
    """Hear a partner's own recordings again, write the partner to `output` (default: the same file), report what changed.

    A partner that hears without weights, from before beats or this drum model, gets its beats and drum hits; all else stays.
    One that hears notes by another network than this MusicHal's gets this one's notes, too. Raises `PartnerFileError` if it
    does not hold its recordings; `InputError` if it hears without weights and nothing would change, or this machine cannot
    compute as was asked.
    """
    output = output or partner
    if os.path.realpath(partner) != os.path.realpath(output):
        check_outputs([(output, PARTNER)], inputs=[partner], force=force)
    with terminal.progress("Loading the partner") as progress:
        model = load_partner(partner)
        spec = model.spec
        name = spec.encoder.name
        workers = processes or usual_processes(sum(r.duration_s for r in model.recordings))
        other_notes = spec.notes.digest not in ("", note_model_digest())
        if name not in LEARNED and not refit and not other_notes:
            if model.knows_beats and spec.drum_digest == drum_model_digest():
                raise InputError(f"{printable(partner)} hears with '{name}', which is the same on every machine: nothing to do")
            return _find_beats_again(model, output, terminal, processes=workers, progress=progress)
        recordings = own_recordings(model)
        if name in LEARNED:
            candidates(runtime, precision)
            progress("Measuring runtimes", 0.0)
            spec, measured = choose_runtime(
                spec,
                measured_windows(recordings[0], spec),
                graph=lambda kind: graph_of(spec.encoder, kind),
                runtime=runtime,
                precision=precision,
            )
            say_measured(measured, terminal)
        elif (runtime, precision) != (AUTO, AUTO):
            raise InputError(f"--runtime and --precision are for encoders with weights; '{name}' has none")
        again = rehear(model, spec, refit=refit, processes=workers, progress=progress)
        progress(f"Writing {printable(output.name)}", 1.0)
        save_partner(output, again.model)
    terminal.result(
        {
            "partner": str(output),
            "runtime": spec.encoder.runtime,
            "precision": spec.encoder.precision,
            "refit": refit,
            "frames": dict(zip(SOURCES, again.frames, strict=True)),
            "same": None if again.same is None else dict(zip(SOURCES, again.same, strict=True)),
        }
    )
    before = f"before{_by(model.spec)}" if model.spec.encoder.runtime else "its encoder has no runtime to choose"
    terminal.say(f"Heard {counted(len(recordings), 'recording')} again{_by(spec)}; {before}.")
    if other_notes:
        notes = f"{counted(len(again.model.memory.notes), 'note')}, {len(model.memory.notes)} before"
        terminal.say(f"This MusicHal hears notes in another way than the partner did: {notes}.")
    if again.same is not None:
        shares = [f"{s} {same} of {n}" for s, same, n in zip(SOURCES, again.same, again.frames, strict=True)]
        unchanged = " The partner is unchanged." if again.unchanged and not other_notes else ""
        terminal.say(f"Tokens that stayed the same: {', '.join(shares)}.{unchanged}")
    terminal.say(f"Wrote {printable(output)} ({output.stat().st_size / 1e6:.1f} MB).")
    return again.model


def _find_beats_again(
    model: PartnerModel, output: Path, terminal: Terminal, *, processes: int, progress: Progress
) -> PartnerModel:
    """Write a partner with its beats and drum hits as they are found now, and all else as it was."""
    found = with_beats(model, processes=processes, progress=progress)
    progress(f"Writing {printable(output.name)}", 1.0)
    save_partner(output, found)
    beats, hits = sum(len(r.beats) for r in found.recordings if r.beats is not None), len(found.memory.hits)
    terminal.result({"partner": str(output), "beats": beats, "hits": hits})
    heard = counted(len(found.recordings), "recording")
    terminal.say(f"Heard {heard} again: found {counted(beats, 'beat')} and {counted(hits, 'drum hit')}; all else is unchanged.")
    terminal.say(f"Wrote {printable(output)} ({output.stat().st_size / 1e6:.1f} MB).")
    return found


def _by(spec: PerceptionSpec) -> str:
    return f" by {Choice(spec.encoder.runtime, spec.encoder.precision)}" if spec.encoder.runtime else ""
