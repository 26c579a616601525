"""`musichal train` on an archive, and `musichal join`: hours of recordings, on any number of processes or machines."""

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import numpy as np
import soundfile
import typer

from musichal.atomic import open_atomically
from musichal.audio.midi_take import MidiChoice
from musichal.audio.recording import Recording
from musichal.audio.recording_files import is_midi, say_passed_over
from musichal.audio.score import read_score
from musichal.audio.session_input import input_length, is_session
from musichal.commands.options import Processes
from musichal.commands.terminal import Terminal
from musichal.errors import InputError
from musichal.hearing.listener import resolve_spec
from musichal.live.output.files import PARTNER, check_outputs
from musichal.machine import processors
from musichal.memory.partner_file import PartnerModel, load_partner
from musichal.partner.made_ready import save_ready
from musichal.spec import PerceptionSpec
from musichal.text import clock, counted, printable
from musichal.training.archive import (
    Found,
    HearTask,
    changed_ns,
    choose_diverse,
    choose_recent,
    choose_tagged,
    hear_archive,
    heard_path,
    with_tags,
    work_folder,
)
from musichal.training.heard import Heard, Tokenised, hear, probe, ready_encoder
from musichal.training.manifest import Archive, Entry, distinct_names
from musichal.training.trainer import SAMPLE_FRAMES, learn
from musichal.training.workers import Engine, each

LONG_S = 3600.0
"""From so much sound on, recordings are an archive: heard into a work folder, so that a stopped training goes on."""
_SELECT = "diverse, recent or tags=NAME,NAME"
_DRY_S = 6.0
_WEIGHED_FOR = 1.1  # influences are weighed anew where a partner remembers so many times what it did
# Measured: see docs/how-to/archives.md.
_BASE_MB, _LEARNING_MB, _MEMORY_MB_PER_HOUR = 330, 100, 40
_FEATURE_BYTES_PER_S, _FRAMES_PER_S, _FRAME_BYTES = 52_000, 75, 292


@dataclass(frozen=True)
class ArchiveOptions:
    """The options of `musichal train` that make what is given an archive."""

    manifest: Sequence[Path] = ()
    exclude: Sequence[str] = ()
    work: Path | None = None
    sample_frames: int = SAMPLE_FRAMES
    memory_hours: float | None = None
    select: str | None = None
    sounds_of: Path | None = None
    shard: str | None = None
    engine: str | None = None
    allow_mixed: bool = False
    dry_run: bool = False

    @property
    def given(self) -> list[str]:
        """Return the names of the options that were given."""
        default = ArchiveOptions()
        return [name for name, value in vars(self).items() if value not in (getattr(default, name), None, [])]


def length_s(entry: Entry) -> float:
    """Return how long a recording is by its header or notes, or by the size of its file where that does not say."""
    end_s = entry.end_s
    if end_s is None:
        try:
            if is_session(entry.path):
                samples, rate_hz = input_length(entry.path)
                end_s = samples / rate_hz
            elif is_midi(entry.path):
                end_s = read_score(entry.path).duration_s
            elif entry.path.is_file():
                with entry.path.open("rb") as stream:  # which takes any name
                    end_s = float(soundfile.info(stream).duration)
        except (InputError, soundfile.SoundFileError, ArithmeticError, OSError, TypeError):
            end_s = 0.0
            with contextlib.suppress(OSError):
                end_s = entry.path.stat().st_size / 32_000  # as MP3 of 256 kbit/s
    return max(0.0, (end_s or 0.0) - entry.start_s)


def train_archive(
    archive: Archive,
    spec: PerceptionSpec,
    options: ArchiveOptions,
    *,
    output: Path,
    workers: int | None,
    keep_audio: bool,
    compact: bool,
    strict: bool,
    midi: MidiChoice,
    named: frozenset[Path],
    terminal: Terminal,
    measured: Callable[[Recording], PerceptionSpec] | None,
    force: bool,
) -> PartnerModel | None:
    """Hear an archive into its work folder, and write the partner, and report what was learned.

    None is returned where no partner was asked for: of a shard, or on a dry run. `measured` gives the spec of a learned encoder
    by a recording. Raises `InputError` as `musichal train` does.
    """
    from musichal.commands.train import say_trained

    started_s = time.monotonic()
    shard = _shard(options.shard)
    select = checked_select(options, archive.entries)
    if archive.left_out and strict:
        raise InputError("; ".join(archive.left_out))
    if measured is not None:
        spec = measured(_first_readable(archive, spec, strict=strict, midi=midi))
    spec = resolve_spec(spec)
    before = None if options.sounds_of is None else _sounds_of(options.sounds_of, spec)
    workers = workers or processors()
    if options.dry_run:
        _say_plan(archive, spec, options, workers, keep_audio=keep_audio, output=output, terminal=terminal)
        return None
    check_outputs([(output, PARTNER)], inputs=[entry.path for entry in archive.entries], force=force)
    folder = (options.work or output.with_name(f"{output.name}.work")).absolute()  # for workers that run elsewhere
    entries = [entry for number, entry in enumerate(archive.entries) if number % shard[1] == shard[0]]
    if options.engine is not None and midi.soundfont is not None:
        midi = replace(midi, soundfont=midi.soundfont.absolute())
    with (
        work_folder(folder, alone=shard == (0, 1), passing=options.work is None and shard == (0, 1)),
        _engine(options.engine, workers) as (engine, count),
        terminal.progress("Listening") as progress,
    ):
        pace = _Pace(entries, count, progress)

        def came(entry: Entry, found: Found) -> None:
            if found.wrong and (strict or entry.path in named):
                raise InputError(found.wrong)
            for warning in found.warnings if not found.wrong else ():
                terminal.warn(f"{entry.words}: {warning}")
            pace.came(entry, found)

        def task(entry: Entry) -> HearTask:
            known = None if options.allow_mixed else probe(spec)
            entry = entry if options.engine is None else replace(entry, path=entry.path.absolute())
            return HearTask(entry, spec, folder, keep_audio=keep_audio, compact=compact, strict=strict, midi=midi, probe=known)

        found = hear_archive(entries, task, engine, each=came)
        kept, left_out = kept_entries(entries, found)
        say_left_out([*archive.left_out, *left_out], len(archive.entries) + len(archive.left_out), terminal)
        say_passed_over(archive.passed_over, terminal.warn)
        if shard != (0, 1):
            _write_shard(folder, shard, archive, spec, entries, found, options)
            terminal.say(f"Heard shard {shard[0] + 1} of {shard[1]}: {counted(len(kept), 'recording')} in {printable(folder)}.")
            terminal.result({"work": str(folder), "shard": options.shard, "recordings": len(kept)})
            return None
        if not kept:
            raise InputError(f"none of {counted(len(entries), 'recording')} can be heard: {left_out[0]}")
        model = learn_archive(kept, spec, folder, engine, select, options, terminal, progress, before=before)
        progress(f"Writing {printable(output.name)}", 1.0)
        save_ready(output, model)
    heard_s = sum(one.duration_s for _, one in kept)
    if pace.again:
        terminal.say(f"{counted(pace.again, 'recording')} of {len(kept)} had been heard before.")
    took_s = time.monotonic() - started_s
    say_trained(model, output, terminal, count=len(kept), heard_s=heard_s, took_s=took_s, learned=measured is not None)
    return model


def learn_archive(
    kept: Sequence[tuple[Entry, Found]],
    spec: PerceptionSpec,
    folder: Path,
    engine: Engine,
    select: Mapping[str, Any],
    options: ArchiveOptions,
    terminal: Terminal,
    progress: Callable[[str, float], None],
    *,
    before: PartnerModel | None = None,
    folder_of: Mapping[str, Path] | None = None,
) -> PartnerModel:
    """Return the partner of what was heard into a work folder, or into `folder_of` each key; say what is remembered.

    The sounds of a partner from `before` are kept, and what influences are worth to it while little is new.
    """
    entries = [entry for entry, _ in kept]
    heard = [
        Heard.load(heard_path((folder_of or {}).get(one.key, folder), one.key), name=name, tags=entry.tags)
        for (entry, one), name in zip(kept, entry_names(entries), strict=True)
    ]
    total_s = sum(item.duration_s for item in heard)
    most_s = None if options.memory_hours is None else 3600 * options.memory_hours
    tokens = folder / "tokens"
    tokens.mkdir(exist_ok=True)

    def choose(tokenised: Sequence[Tokenised]) -> Sequence[int]:
        assert most_s is not None
        durations_s = [item.heard.duration_s for item in tokenised]
        if sum(durations_s) <= most_s and select["how"] != "tags":
            return range(len(tokenised))
        if select["how"] == "recent":
            return choose_recent([select["changed"][entry.path] for entry in entries], durations_s, most_s=most_s)
        if select["how"] == "tags":
            return choose_tagged(entries, durations_s, select["tags"], most_s=most_s)
        return choose_diverse(tokenised, size=spec.vocabulary.size, most_s=most_s)

    model = learn(
        heard,
        spec,
        tokens,
        engine=engine,
        vocabularies=None if before is None else before.vocabularies,
        sample_frames=options.sample_frames,
        choose=None if most_s is None else choose,
        worth=lambda remembered: _kept_worth(before, remembered),
        progress=progress,
        warn=terminal.warn,
    )
    about = {"recordings": str(len(heard)), "hours": f"{total_s / 3600:.3f}", "sample_frames": str(options.sample_frames)}
    if before is not None and model.memory.worth is before.memory.worth:
        about["weighed_hours"] = f"{_weighed_hours(before):.3f}"
    if most_s is not None:
        kept_s = sum(stored.duration_s for stored in model.recordings)
        about["memory"] = f"{options.select or 'diverse'}, {options.memory_hours:g} h"
        some = f"{counted(len(model.recordings), 'recording')} ({kept_s / 3600:.2f} h) of {len(heard)} ({total_s / 3600:.2f} h)"
        terminal.say(f"Remembered {some}, by --select {options.select or 'diverse'}; all gave the sounds.")
    return replace(model, archive=about)


def entry_names(entries: Sequence[Entry]) -> list[str]:
    """Return a name for each entry: its title, or that of its file, with the start of a part; all different."""
    paths = list(dict.fromkeys(entry.path for entry in entries))
    of_file = dict(zip(paths, distinct_names(paths), strict=True))
    names: dict[str, None] = {}
    times = Counter[str]()
    for entry in entries:
        own = name = entry.title or of_file[entry.path] + (f" {clock(entry.start_s, decimals=0)}" if entry.is_part else "")
        while name in names:
            times[own] += 1
            name = f"{own} ({times[own] + 1})"
        names[name] = None
    return [*names]


def kept_entries(entries: Sequence[Entry], found: Sequence[Found]) -> tuple[list[tuple[Entry, Found]], list[str]]:
    """Return the entries that were heard, each content once, and why others were left out."""
    kept: dict[str, tuple[Entry, Found]] = {}
    left_out = []
    for entry, one in zip(entries, found, strict=True):
        if one.wrong:
            left_out.append(one.wrong)
        elif one.key in kept:
            left_out.append(f"{entry.words}: it is the same as {kept[one.key][0].words}")
        else:
            kept[one.key] = (entry, one)
    return list(kept.values()), left_out


def say_left_out(lines: Sequence[str], total: int, terminal: Terminal) -> None:
    """Name what was left out, a line each."""
    if lines:
        terminal.warn(f"left out {len(lines)} of {counted(total, 'recording')}:")
        for line in lines:
            terminal.warn(line)


class _Pace:
    """Tells how far listening is: its rate, the time that is left, and how busy the workers are."""

    def __init__(self, entries: Sequence[Entry], workers: int, progress: Callable[[str, float], None]) -> None:
        self._left_s = {id(entry): length_s(entry) for entry in entries}
        self._remaining_s = sum(self._left_s.values())
        self._total_s = max(1.0, self._remaining_s)
        self._workers, self._progress = workers, progress
        self._started_s = time.monotonic()
        self._heard_s = self._busy_s = 0.0
        self.again = 0

    def came(self, entry: Entry, found: Found) -> None:
        self._remaining_s -= self._left_s.pop(id(entry), 0.0)
        left_s = max(0.0, self._remaining_s)
        self.again += not (found.is_new or found.wrong)
        self._busy_s += found.took_s
        self._heard_s += found.duration_s if found.is_new else 0.0
        passed_s = max(1e-3, time.monotonic() - self._started_s)
        words = f"Listening to {printable(entry.path.name)}"
        if self._heard_s:
            rate = self._heard_s / passed_s
            load = min(1.0, self._busy_s / passed_s / self._workers)
            left = clock(left_s / rate, decimals=0)
            words += f": {rate:.0f} times real time, {left} left, {counted(self._workers, 'worker')} {100 * load:.0f} % busy"
        self._progress(words, 1 - left_s / self._total_s)


@contextlib.contextmanager
def _engine(name: str | None, workers: int) -> Iterator[tuple[Engine, int]]:
    if name is None:
        yield partial(each, processes=workers), workers
        return
    from musichal.training.workers import dask_engine

    with dask_engine(name) as (engine, count):
        yield engine, count


def _first_readable(archive: Archive, spec: PerceptionSpec, *, strict: bool, midi: MidiChoice) -> Recording:
    from musichal.audio.recording import read_recording

    least_s, wrong = spec.segment_samples / spec.sample_rate_hz, ""
    for entry in archive.entries:
        try:
            return read_recording(entry.path, min_duration_s=least_s, strict=strict, midi=midi)
        except InputError as error:
            wrong = str(error)
    raise InputError(f"none of {counted(len(archive.entries), 'recording')} can be heard: {wrong}")


def _sounds_of(path: Path, spec: PerceptionSpec) -> PartnerModel:
    model = load_partner(path)
    if differences := spec.differences(model.spec):
        field, mine, theirs = differences[0]
        raise InputError(f"--sounds-of {printable(path)} hears in another way: its {field} is {theirs}, here it is {mine}")
    return model


def _kept_worth(before: PartnerModel | None, remembered: Sequence[Heard]) -> Mapping[str, float]:
    """Return what influences are worth to a partner, where all that it remembers is here, and little more; empty elsewhere."""
    if before is None or not {stored.digest for stored in before.recordings} <= {item.digest for item in remembered}:
        return {}
    hours = sum(item.duration_s for item in remembered) / 3600
    return before.memory.worth if hours <= _WEIGHED_FOR * _weighed_hours(before) else {}


def _weighed_hours(model: PartnerModel) -> float:
    """Return how many hours a partner remembered when its influences were weighed."""
    with contextlib.suppress(ValueError):
        return float(model.archive.get("weighed_hours") or sum(stored.duration_s for stored in model.recordings) / 3600)
    return 0.0


def checked_select(options: ArchiveOptions, entries: Sequence[Entry] = ()) -> Mapping[str, Any]:
    """Return how --select chooses, by which tags, and when files were changed; raises `InputError`."""
    text = options.select or "diverse"
    if options.select is not None and options.memory_hours is None:
        raise InputError("--select needs --memory-hours: how much is remembered")
    how, _, names = text.partition("=")
    tags = frozenset(filter(None, names.split(",")))
    if how not in ("diverse", "recent", "tags") or bool(tags) != (how == "tags"):
        raise InputError(f"--select must be {_SELECT}, got {printable(text)!r}")
    if entries and tags:
        with_tags(entries, tags)  # a mistake must show before hours of listening
    return {"how": how, "tags": tags, "changed": {entry.path: changed_ns(entry.path) for entry in entries}}


# ── what it would take ───────────────────────────────────────────────────────


def _say_plan(
    archive: Archive,
    spec: PerceptionSpec,
    options: ArchiveOptions,
    workers: int,
    *,
    keep_audio: bool,
    output: Path,
    terminal: Terminal,
) -> None:
    """Say how long training would take, and how much memory and disk, by a measurement of some seconds."""
    hours = sum(length_s(entry) for entry in archive.entries) / 3600
    rng, rate_hz = np.random.default_rng(0), spec.sample_rate_hz
    whole = np.round(rng.normal(0, 0.1, round(_DRY_S * rate_hz)) * 2**15).astype(np.float32)
    noise = Recording("noise", rate_hz, whole / np.float32(2**15))
    ready_encoder(spec)
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="musichal-") as folder:
        hear(noise, spec, ready_encoder(spec), Path(folder) / "noise", keep_audio=False)
    rate = _DRY_S / (time.monotonic() - started_s)
    remembered = min(hours, options.memory_hours or hours)
    memory_mb = max(_BASE_MB, _LEARNING_MB + _MEMORY_MB_PER_HOUR * remembered)
    sound = hours * 3600 * 95_000 if keep_audio else 0
    sample = min(options.sample_frames, hours * 3600 * _FRAMES_PER_S) * _FRAME_BYTES
    disk_gb = (hours * 3600 * _FEATURE_BYTES_PER_S + sound + sample) / 1e9
    place = options.work or output.parent
    free_gb = shutil.disk_usage(place if place.is_dir() else Path(place).absolute().parent).free / 1e9
    needed_s = hours * 3600 / (rate * workers)
    values = {
        "recordings": len(archive.entries),
        "left_out": len(archive.left_out),
        "hours": round(hours, 2),
        "times_real_time": round(rate * workers, 1),
        "needed_s": round(needed_s),
        "memory_mb": round(memory_mb),
        "disk_gb": round(disk_gb, 1),
        "free_gb": round(free_gb, 1),
    }
    terminal.result(values)
    say_left_out(archive.left_out, len(archive.entries) + len(archive.left_out), terminal)
    say_passed_over(archive.passed_over, terminal.warn)
    terminal.say(f"{counted(len(archive.entries), 'recording')}, {hours:.2f} hours.")
    terminal.say(f"About {needed_s / 3600:.2f} hours with {counted(workers, 'worker')}, {rate * workers:.0f} times real time.")
    terminal.say(f"About {memory_mb:.0f} MB of memory for the main process, {_BASE_MB} MB for each worker.")
    terminal.say(f"About {disk_gb:.1f} GB in the work folder; {free_gb:.1f} GB are free.")


# ── shards and workers ───────────────────────────────────────────────────────


def _shard(text: str | None) -> tuple[int, int]:
    if text is None:
        return 0, 1
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count) <= 100_000):
        raise InputError(f"--shard must be NUMBER/COUNT, such as 2/8, got {printable(text)!r}")
    return int(number) - 1, int(count)


def _write_shard(
    folder: Path,
    shard: tuple[int, int],
    archive: Archive,
    spec: PerceptionSpec,
    entries: Sequence[Entry],
    found: Sequence[Found],
    options: ArchiveOptions,
) -> None:
    """Write what a shard heard, for `musichal join`; paths are quoted as in URIs, for they may have bytes that are no text."""
    rows = [
        {**asdict(one), "path": quote(os.fsencode(entry.path.as_posix())), "start_s": entry.start_s, "end_s": entry.end_s,
         "title": entry.title, "tags": list(entry.tags), "where": entry.where}
        for entry, one in zip(entries, found, strict=True)
    ]  # fmt: skip
    values = {
        "shard": list(shard),
        "entries": len(archive.entries),
        "spec": spec.to_dict(),
        "probe": None if options.allow_mixed else probe(spec),
        "rows": rows,
    }
    with open_atomically(folder / f"shard-{shard[0] + 1}-of-{shard[1]}.json") as stream:
        stream.write(json.dumps(values).encode())


def worker_command(
    *,
    scheduler: Annotated[str, typer.Argument(help="The Dask scheduler: dask://HOST:PORT, or dask://FILE.json.")],
    workers: Processes = None,
    terminal: Terminal,
) -> None:
    """Hear for others: work for a Dask scheduler until it ends. Raises `MusicHalError` where that cannot be."""
    from musichal.training.workers import run_worker

    count = workers or processors()
    terminal.say(f"Works for {printable(scheduler)} in {count if count > 1 else 'one'} process{'es' if count > 1 else ''}.")
    run_worker(scheduler, processes=count)
