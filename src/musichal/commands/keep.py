"""`musichal keep`, `rehear` and `join`: partners of sessions, of a partner's own recordings, and of the shards of an archive.

What was learned while playing is gone when the performance ends. A session keeps what the partner heard; `keep` hears it
again, by the one front end, as a recording like any other. So the new partner is exact and can be verified.
"""

import math
import os
import re
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote_to_bytes

import typer

from musichal.audio.recording import Recording, read_recording
from musichal.commands.archive import ArchiveOptions, checked_select, kept_entries, learn_archive, say_left_out
from musichal.commands.options import (
    Force,
    MemoryHours,
    Mixed,
    MovedPartner,
    Precision,
    Processes,
    Runtime,
    SampleFrames,
    Select,
)
from musichal.commands.session import partner_path
from musichal.commands.terminal import Terminal
from musichal.commands.train import measured_windows, say_held, say_measured, say_trained
from musichal.errors import InputError
from musichal.hearing.encoders import LEARNED
from musichal.hearing.encoders.learned import (
    choose_runtime,
    graph_of,
)
from musichal.hearing.encoders.runtimes import AUTO, Choice, candidates
from musichal.hearing.listener import resolve_spec
from musichal.hearing.model_weights import model_digest
from musichal.hearing.percepts import SOURCES
from musichal.live.output.files import PARTNER, check_outputs
from musichal.live.session.session import Session, read_session
from musichal.machine import processors
from musichal.memory.container import safe_text
from musichal.memory.partner_file import PartnerModel, StoredRecording, load_partner, save_partner
from musichal.partner.made_ready import save_ready
from musichal.spec import PerceptionSpec
from musichal.text import counted, integer_in, number_in, parse_json, printable, reason, text_in
from musichal.training.archive import Found, work_folder
from musichal.training.manifest import Entry
from musichal.training.trainer import Progress, as_recording, own_recordings, rehear, tagged, train, with_beats
from musichal.training.workers import each, usual_processes


def keep_command(
    *,
    folders: Annotated[list[Path], typer.Argument(metavar="SESSION...", help="Session folders of one partner.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The partner file to write.")],
    partner: MovedPartner = None,
    alone: Annotated[bool, typer.Option("--alone", help="Leave out what the partner knew before.")] = False,
    processes: Processes = None,
    force: Force = False,
    terminal: Terminal,
) -> PartnerModel:
    """Write a partner of the sessions' own partner and what was played in them, or with `alone` of the latter alone.

    Vocabularies stay what they were, so that tokens mean the same; alone they are learned from the sessions.
    """
    sessions = [read_session(folder) for folder in folders]
    path = _one_partner(sessions, partner)
    inputs = [path, *(file for folder in folders for file in folder.rglob("*") if file.is_file())]
    check_outputs([(output, PARTNER)], inputs=inputs, force=force)
    for session in sessions:
        for sentence in session.recovered:
            terminal.warn(f"{printable(session.folder)}: {sentence}")
    with terminal.progress("Loading the partner") as progress:
        model = load_partner(path)
        least_s = model.spec.segment_samples / model.spec.sample_rate_hz
        heard = [read_recording(session.folder, min_duration_s=least_s) for session in sessions]
        every: list[Recording | StoredRecording] = [*(() if alone else own_recordings(model)), *heard]
        kept = train(
            every,
            model.spec,
            vocabularies=None if alone else model.vocabularies,
            pairs=() if alone else model.pairs,
            processes=processes or usual_processes(sum(r.duration_s for r in every)),
            progress=progress,
            warn=terminal.warn,
        )
        progress(f"Writing {printable(output.name)}", 1.0)
        kept = kept if alone else tagged(kept, model)
        save_partner(output, kept)
    before = 0 if alone else len(model.memory)
    new, heard_s = len(kept.memory) - before, sum(r.duration_s for r in heard)
    terminal.result(
        {"partner": str(output), "sessions": len(heard), "heard_s": heard_s, "gestures": len(kept.memory), "new": new}
    )
    terminal.say(f"Heard {counted(len(heard), 'session')} again ({heard_s:.1f} s): {counted(new, 'gesture')} to play from.")
    if not alone:
        terminal.say(f"The partner knew {counted(before, 'gesture')} before; its sounds are the same.")
    say_held(kept.memory, terminal)
    terminal.say(f"Wrote {printable(output)} ({output.stat().st_size / 1e6:.1f} MB).")
    return kept


def _one_partner(sessions: Sequence[Session], partner: Path | None) -> Path:
    """Return the partner file of all sessions; raises `InputError` where they have several."""
    names = {session.folder.resolve() for session in sessions}
    if len(names) < len(sessions):
        raise InputError("a session is given twice")
    other = next((s for s in sessions if s.settings.partner_sha256 != sessions[0].settings.partner_sha256), None)
    if other is not None:
        folders = " and ".join(printable(s.folder) for s in (sessions[0], other))
        raise InputError(f"{folders} were played with different partners: keep them in one each")
    return partner_path(sessions[0].settings, partner)


# ── rehear ───────────────────────────────────────────────────────────────────


def rehear_command(
    *,
    partner: Annotated[Path, typer.Argument(help="The partner file; it must hold its recordings.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The file to write; default: the same.")] = None,
    runtime: Runtime = "auto",
    precision: Precision = "auto",
    refit: Annotated[bool, typer.Option("--refit", help="Learn the vocabularies again, too.")] = False,
    processes: Processes = None,
    force: Force = False,
    terminal: Terminal,
) -> PartnerModel:
    """Hear a partner's own recordings again, write the partner to `output` (default: the same file), report what changed.

    A partner that hears without weights, from before beats or this drum model, gets its beats and drum hits; all else
    stays. One that hears notes by another network than this MusicHal's gets this one's notes, too.
    """
    output = output or partner
    if os.path.realpath(partner) != os.path.realpath(output):
        check_outputs([(output, PARTNER)], inputs=[partner], force=force)
    with terminal.progress("Loading the partner") as progress:
        model = load_partner(partner)
        spec = model.spec
        name = spec.encoder.name
        workers = processes or usual_processes(sum(r.duration_s for r in model.recordings))
        other_notes = spec.notes.digest not in ("", model_digest("note"))
        if name not in LEARNED and not refit and not other_notes:
            if model.knows_beats and spec.drum_digest == model_digest("drum"):
                raise InputError(f"{printable(partner)} hears with '{name}', which is the same on every machine: nothing to do")
            return _find_beats_again(model, output, terminal, processes=workers, progress=progress)
        recordings = own_recordings(model)
        if name in LEARNED:
            candidates(runtime, precision)
            progress("Measuring runtimes", 0.0)
            spec, measured = choose_runtime(
                spec,
                measured_windows(as_recording(recordings[0]), spec),
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


# ── join ─────────────────────────────────────────────────────────────────────

_MOST_JSON_DEPTH = 8
_KEY = re.compile("[0-9a-f]{40}")


def join_command(
    *,
    works: Annotated[list[Path], typer.Argument(help="Work folders of `musichal train --shard`.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The partner file to write.")],
    sample_frames: SampleFrames = 2_000_000,
    memory_hours: MemoryHours = None,
    select: Select = None,
    workers: Processes = None,
    allow_mixed: Mixed = False,
    force: Force = False,
    terminal: Terminal,
) -> PartnerModel:
    """Make the partner of what shards heard into one work folder, or several."""
    options = ArchiveOptions(sample_frames=sample_frames, memory_hours=memory_hours, select=select, allow_mixed=allow_mixed)
    chosen = checked_select(options)
    if chosen["how"] == "recent":
        raise InputError("--select recent asks the recordings when they were changed, and join has only what was heard of them")
    check_outputs([(output, PARTNER)], inputs=works, force=force)
    shards = [(file, folder, _read_shard(file)) for folder in works for file in sorted(folder.glob("shard-*-of-*.json"))]
    if not shards:
        raise InputError(f"{printable(works[0])} holds no shard: `musichal train --shard 1/2 --work FOLDER` makes them")
    first_file, _, first = shards[0]
    count = first["shard"][1]
    numbers = {values["shard"][0] for _, _, values in shards}
    for file, _, values in shards:
        if values["shard"][1] != count:
            raise InputError(f"{printable(file)} is one of {values['shard'][1]} shards, {printable(first_file)} one of {count}")
        for field in ("spec", "entries", *(() if allow_mixed else ("probe",))):
            if values[field] != first[field]:
                what = {"spec": "hears in another way", "entries": "is of another archive"}.get(field, "has another arithmetic")
                raise InputError(f"{printable(file)} {what} than {printable(first_file)}")
    if missing := sorted({*range(count)} - numbers):
        raise InputError(f"shard {missing[0] + 1} of {count} is missing: {len(missing)} of {count} were not heard")
    started_s = time.monotonic()
    spec = resolve_spec(PerceptionSpec.from_dict(first["spec"]))
    rows: dict[int, tuple[Path, tuple[Entry, Found]]] = {}
    for _, folder, values in shards:
        for place, row in enumerate(values["rows"]):
            rows[values["shard"][0] + place * count] = (folder, row)
    entries, found, folders = [], [], []
    for _, (folder, (entry, one)) in sorted(rows.items()):
        folders.append(folder)
        entries.append(entry)
        found.append(one)
    of_key = {one.key: folder for one, folder in zip(found, folders, strict=True)}
    kept, left_out = kept_entries(entries, found)
    say_left_out(left_out, len(entries), terminal)
    if not kept:
        raise InputError(f"none of {counted(len(entries), 'recording')} could be heard")
    engine = partial(each, processes=workers or processors())
    with terminal.progress("Joining") as progress, work_folder(works[0]):
        model = learn_archive(kept, spec, works[0], engine, chosen, options, terminal, progress, folder_of=of_key)
        save_ready(output, model)
    heard_s = sum(one.duration_s for _, one in kept)
    took_s = time.monotonic() - started_s
    say_trained(model, output, terminal, count=len(kept), heard_s=heard_s, took_s=took_s, learned=bool(spec.encoder.runtime))
    return model


def _read_shard(file: Path) -> dict[str, Any]:
    try:
        values = parse_json(file.read_bytes(), max_depth=_MOST_JSON_DEPTH)
        if not isinstance(values, dict) or {*values} != {"shard", "entries", "spec", "probe", "rows"}:
            raise ValueError
        number, count = values["shard"]
        entries = integer_in(values["entries"], 1, sys.maxsize, "entries")
        values["rows"] = [_row(row) for row in values["rows"]]
        if len(values["rows"]) != len(range(integer_in(number, 0, count - 1, "number"), entries, count)):
            raise ValueError
    except OSError as error:
        raise InputError(f"cannot read {printable(file)}: {reason(error)}") from error
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{printable(file)} is no shard") from error
    return values


def _row(row: Any) -> tuple[Entry, Found]:
    """Return the entry of a row of a shard, and what was found; raises some error for what is no row."""
    path = Path(os.fsdecode(unquote_to_bytes(text_in(row["path"], "path"))))
    start_s, duration_s = (number_in(row[name], 0, math.inf, name) for name in ("start_s", "duration_s"))
    end_s = None if row["end_s"] is None else number_in(row["end_s"], 0, math.inf, "end_s")
    wrong, key = printable(row["wrong"]), text_in(row["key"], "key")
    if not wrong and not _KEY.fullmatch(key):
        raise ValueError
    title, *tags, where = map(safe_text, (row["title"], *row["tags"], row["where"]))
    return Entry(path, start_s, end_s, title, tuple(tags), where), Found(key, wrong, duration_s=duration_s)
