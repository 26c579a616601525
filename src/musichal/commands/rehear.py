"""`musichal rehear`: a partner hears its own recordings again with what this machine computes in."""

from pathlib import Path

from musichal.commands.encoder_plan import measured_lines, windows_of
from musichal.commands.outputs import check_outputs
from musichal.commands.terminal import Terminal
from musichal.errors import InputError
from musichal.hearing.encoders import LEARNED
from musichal.hearing.encoders.learned import choose_runtime, graph_of
from musichal.hearing.encoders.runtimes import AUTO, Choice, candidates
from musichal.hearing.percepts import SOURCES
from musichal.memory.partner_file import PartnerModel, load_partner, save_partner
from musichal.spec import PerceptionSpec
from musichal.text import counted, printable
from musichal.training.rehearing import own_recordings, rehear
from musichal.training.workers import usual_processes


def rehear_command(
    partner: Path,
    output: Path,
    *,
    runtime: str,
    precision: str,
    refit: bool,
    processes: int | None,
    voice: Terminal,
) -> PartnerModel:
    """Hear a partner's recordings again, write the partner to `output` (which may be the same file), say what changed.

    Raises
    ------
    PartnerFileError
        If it does not hold its recordings.
    InputError
        If it hears without weights and nothing would change, or this machine cannot compute as was asked.
    """
    if partner.resolve() != output.resolve():
        check_outputs([output], inputs=[partner])
    with voice.progress("Loading the partner") as tell:
        model = load_partner(partner)
        spec = model.spec
        if spec.encoder.name not in LEARNED and not refit:
            raise InputError(
                f"{printable(partner)} hears with '{spec.encoder.name}', which is the same on every machine: nothing to do"
            )
        recordings = own_recordings(model)
        if spec.encoder.name in LEARNED:
            candidates(runtime, precision)
            tell("Measuring runtimes", 0.0)
            spec, measured = choose_runtime(
                spec,
                windows_of(recordings[0], spec),
                graph=lambda kind: graph_of(spec.encoder, kind),
                runtime=runtime,
                precision=precision,
            )
            for line in measured_lines(measured):
                voice.say(line)
        elif (runtime, precision) != (AUTO, AUTO):
            raise InputError(f"--runtime and --precision are for encoders with weights; '{spec.encoder.name}' has none")
        again = rehear(
            model,
            spec,
            refit=refit,
            processes=processes or usual_processes(sum(r.duration_s for r in recordings)),
            progress=tell,
        )
        tell(f"Writing {printable(output.name)}", 1.0)
        save_partner(output, again.model)
    voice.result(
        {
            "partner": str(output),
            "runtime": spec.encoder.runtime,
            "precision": spec.encoder.precision,
            "refit": refit,
            "frames": dict(zip(SOURCES, again.frames, strict=True)),
            "same": None if again.same is None else dict(zip(SOURCES, again.same, strict=True)),
        }
    )
    voice.say(f"Heard {counted(len(recordings), 'recording')} again{_by(spec)}; {_before(model.spec)}.")
    if again.same is not None:
        shares = ", ".join(
            f"{source} {same} of {frames}" for source, same, frames in zip(SOURCES, again.same, again.frames, strict=True)
        )
        voice.say(f"Tokens that are what they were: {shares}." + (" The partner is as it was." if again.unchanged else ""))
    voice.say(f"Wrote {printable(output)} ({output.stat().st_size / 1e6:.1f} MB).")
    return again.model


def _by(spec: PerceptionSpec) -> str:
    return f" by {Choice(spec.encoder.runtime, spec.encoder.precision)}" if spec.encoder.runtime else ""


def _before(spec: PerceptionSpec) -> str:
    return f"it was{_by(spec)} before" if spec.encoder.runtime else "its encoder has no runtime to choose"
