"""`musichal join`: the partner of what shards of an archive heard."""

import math
import os
import re
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from musichal.commands.archive import ArchiveOptions, checked_select, entry_names, kept_entries, learn_archive, say_left_out
from musichal.commands.terminal import Terminal
from musichal.commands.train import say_trained
from musichal.errors import InputError
from musichal.hearing.listener import resolve_spec
from musichal.live.output.files import PARTNER, check_outputs
from musichal.machine import processors
from musichal.memory.container import safe_text
from musichal.memory.partner_file import PartnerModel, save_partner
from musichal.spec import PerceptionSpec
from musichal.text import counted, integer_in, number_in, parse_json, printable, reason, text_in
from musichal.training.archive import Found, heard_path, work_folder
from musichal.training.heard import Heard
from musichal.training.manifest import Entry
from musichal.training.trainer import SAMPLE_FRAMES
from musichal.training.workers import each

_MOST_JSON_DEPTH = 8
_KEY = re.compile("[0-9a-f]{40}")


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
