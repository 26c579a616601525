"""`musichal join`: the partner of what shards of an archive heard."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from musichal.commands.archive import ArchiveOptions, checked_select, entry_names, kept_entries, learn_archive, say_left_out
from musichal.commands.terminal import Terminal
from musichal.commands.train import say_trained
from musichal.errors import InputError
from musichal.hearing.listener import resolve_spec
from musichal.live.output.files import PARTNER, check_outputs
from musichal.machine import processors
from musichal.memory.partner_file import PartnerModel, save_partner
from musichal.spec import PerceptionSpec
from musichal.text import counted, parse_json, printable, reason
from musichal.training.archive import Found, heard_path, work_folder
from musichal.training.heard import Heard
from musichal.training.manifest import Entry
from musichal.training.trainer import SAMPLE_FRAMES
from musichal.training.workers import each

_MOST_JSON_DEPTH = 8


def join_command(
    *,
    works: Sequence[Path],
    output: Path,
    terminal: Terminal,
    sample_frames: int = SAMPLE_FRAMES,
    memory_hours: float | None = None,
    select: str | None = None,
    workers: int | None = None,
    allow_mixed: bool = False,
    force: bool = False,
) -> PartnerModel:
    """Make the partner of what shards heard into one work folder, or several.

    Raises `InputError` where a shard is missing or another's spec or arithmetic differs.
    """
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
        for field in ("spec", "entries", *(() if allow_mixed else ("probe",))):
            if values[field] != first[field] or values["shard"][1] != count:
                what = {"spec": "hears in another way", "entries": "is of another archive"}.get(field, "has another arithmetic")
                raise InputError(f"{printable(file)} {what} than {printable(first_file)}")
    if missing := sorted({*range(count)} - numbers):
        raise InputError(f"shard {missing[0] + 1} of {count} is missing: {len(missing)} of {count} were not heard")
    started_s = time.monotonic()
    spec = resolve_spec(PerceptionSpec.from_dict(first["spec"]))
    rows: dict[int, tuple[Path, dict[str, Any]]] = {}
    for _, folder, values in shards:
        for place, row in enumerate(values["rows"]):
            rows[values["shard"][0] + place * count] = (folder, row)
    entries, found, folders = [], [], []
    for _, (folder, row) in sorted(rows.items()):
        folders.append(folder)
        entries.append(Entry(Path(row["path"]), row["start_s"], row["end_s"], row["title"], tuple(row["tags"]), row["where"]))
        found.append(Found(key=row["key"], wrong=row["wrong"], duration_s=row["duration_s"]))
    of_key = {one.key: folder for one, folder in zip(found, folders, strict=True)}
    kept, left_out = kept_entries(entries, found)
    say_left_out(left_out, len(entries), terminal)
    if not kept:
        raise InputError(f"none of {counted(len(entries), 'recording')} could be heard")
    names = entry_names([entry for entry, _ in kept])
    workers = workers or processors()
    with terminal.progress("Joining") as progress, work_folder(works[0]):
        heard = [
            Heard.load(heard_path(of_key[one.key], one.key), name=name, tags=entry.tags)
            for (entry, one), name in zip(kept, names, strict=True)
        ]
        of_kept = [entry for entry, _ in kept]
        engine = partial(each, processes=workers)
        model = learn_archive(heard, of_kept, spec, works[0], engine, chosen, options, None, terminal, progress)
        save_partner(output, model)
    heard_s = sum(one.duration_s for _, one in kept)
    took_s = time.monotonic() - started_s
    say_trained(model, output, terminal, count=len(kept), heard_s=heard_s, took_s=took_s, learned=bool(spec.encoder.runtime))
    return model


def _read_shard(file: Path) -> dict[str, Any]:
    try:
        values = parse_json(file.read_bytes(), max_depth=_MOST_JSON_DEPTH)
        if not isinstance(values, dict) or {*values} != {"shard", "entries", "spec", "probe", "rows"}:
            raise ValueError
    except OSError as error:
        raise InputError(f"cannot read {printable(file)}: {reason(error)}") from error
    except ValueError as error:
        raise InputError(f"{printable(file)} is no shard") from error
    return values
