"""An archive is heard: file by file, on any number of processes or machines, into a work folder.

What was heard of a recording is kept there by the content of its file, the part of it, and how it was heard. So a run that was
stopped, at any moment, goes on where it was; a file that is moved or renamed is not heard again; and what workers find does not
depend on who found it, or when. What is damaged is heard again.
"""

import contextlib
import hashlib
import json
import platform
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from musichal.arrays import Float64, rounded
from musichal.audio.midi_take import MidiChoice
from musichal.audio.recording import CUT, Recording, read_recording
from musichal.audio.recording_files import WORK_MARKER, is_midi
from musichal.errors import InputError, MusicHalError, PartnerFileError
from musichal.machine import sha256_of, single_blas_thread
from musichal.memory.partner_file import StoredRecording
from musichal.spec import PerceptionSpec, VocabularySpec
from musichal.text import printable, reason
from musichal.training.heard import Heard, Tokenised, compacted, hear, probe, ready_encoder
from musichal.training.manifest import Entry
from musichal.training.workers import DiedError, Engine

_HEARD = "heard"
_STAYING, _PASSING = (json.dumps({"format": "musichal-work"} | more).encode() for more in ({}, {"passing": True}))
_STALE_S = 24 * 3600
_MOST_MEDOIDS, _BLOCK_ROWS = 1024, 128
_BLOCK_BYTES = 1 << 20
_FEW_BYTES = 1 << 30


@dataclass(frozen=True)
class HearTask:
    """A recording to be heard into a work folder; `probe` is what the arithmetic must give, None where that is not asked."""

    entry: Entry
    spec: PerceptionSpec
    folder: Path
    keep_audio: bool = True
    compact: bool = False
    strict: bool = False
    midi: MidiChoice = MidiChoice()  # noqa: RUF009 - frozen
    probe: str | None = None

    @property
    def words(self) -> str:
        """Return what to call it in a message."""
        return self.entry.words


@dataclass(frozen=True)
class Found:
    """What a task found: the key of what was heard, or why there is nothing; whether it `is_new`, and how long it took."""

    key: str = ""
    wrong: str = ""
    warnings: tuple[str, ...] = ()
    duration_s: float = 0.0
    is_new: bool = False
    took_s: float = 0.0


class OtherArithmeticError(InputError):
    """A worker's numbers are not those of the machine that asked."""


@single_blas_thread()
def hear_entry(task: HearTask) -> Found:
    """Hear a recording, unless it was heard already.

    Raises `OtherArithmeticError` where this machine's numbers are others, `InputError` where the work folder cannot be written.
    """
    started_s = time.monotonic()
    if task.probe not in (None, probe(task.spec)):
        raise OtherArithmeticError(
            f"{platform.node()} computes other numbers than the machine that asks: another processor, NumPy or SciPy;"
            " leave it out, or take what it hears with --allow-mixed"
        )
    entry = task.entry
    try:
        before = _state(entry.path)
        key = _key(task)
        if (known := _known(task, key)) is not None:
            return known
        recording = _read(task)
        if task.compact:
            recording = compacted(recording, task.spec.sample_rate_hz)
        if _state(entry.path) != before:
            return Found(wrong=f"{entry.words}: it changed while it was read")
    except InputError as error:
        return Found(wrong=_with_line(str(error), entry))
    except OSError as error:
        return Found(wrong=f"{entry.words}: {reason(error)}")
    remarks_ = {"probe": probe(task.spec), "warnings": list(recording.warnings)}
    try:
        path = heard_path(task.folder, key)
        hear(recording, task.spec, ready_encoder(task.spec), path, keep_audio=task.keep_audio, remarks=remarks_)
    except InputError as error:
        if isinstance(error.__cause__, OSError):
            raise
        return Found(wrong=_with_line(str(error), entry))
    took_s = time.monotonic() - started_s
    return Found(key, "", recording.warnings, recording.duration_s, is_new=True, took_s=took_s)


def _known(task: HearTask, key: str) -> Found | None:
    """Return what was found of a recording before, None where it is to be heard."""
    started_s = time.monotonic()
    with contextlib.suppress(PartnerFileError):
        heard = Heard.load(heard_path(task.folder, key), name=task.entry.words)
        remarks = tuple(heard.container.content["warnings"])
        refused = task.strict and any(remark.startswith(CUT) for remark in remarks)
        if task.probe in (None, heard.container.content.get("probe")) and not refused:
            heard.check()
            return Found(key, "", remarks, heard.duration_s, took_s=time.monotonic() - started_s)
    return None


def _with_line(text: str, entry: Entry) -> str:
    return text if entry.where in text else f"{text} ({entry.where})"


def _read(task: HearTask) -> Recording:
    """Return the recording of an entry, or its part."""
    entry, least_s = task.entry, task.spec.segment_samples / task.spec.sample_rate_hz
    whole = read_recording(entry.path, min_duration_s=least_s, strict=task.strict, midi=task.midi)
    if not entry.is_part:
        return whole
    if whole.take is not None:
        raise InputError(f"{entry.words}: of a MIDI file all is heard, or nothing")
    rate = whole.sample_rate_hz
    end_s = whole.duration_s if entry.end_s is None else entry.end_s
    if end_s > whole.duration_s + 1:
        raise InputError(f"{entry.words}: the file ends at {whole.duration_s:.1f} s")
    samples = whole.samples[round(entry.start_s * rate) : round(end_s * rate)]
    if len(samples) < least_s * rate:
        raise InputError(f"{entry.words}: lasts {len(samples) / rate:.3g} s; it must last at least {least_s:.3g} s")
    return replace(whole, samples=samples)


def _state(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_size, state.st_mtime_ns


def _key(task: HearTask) -> str:
    """Return the name of what is heard: by content, part, and what shapes hearing."""
    digest = hashlib.sha256()
    files = (
        sorted(file for file in task.entry.path.rglob("*") if file.is_file()) if task.entry.path.is_dir() else [task.entry.path]
    )
    for file in filter(Path.is_file, files):
        with file.open("rb") as stream:
            for block in iter(lambda: stream.read(_BLOCK_BYTES), b""):
                digest.update(block)
    vocabulary = replace(VocabularySpec(), normalisation=task.spec.vocabulary.normalisation)
    hearing = replace(task.spec, vocabulary=vocabulary).fingerprint()
    how = [task.entry.start_s, task.entry.end_s, hearing, task.keep_audio, task.compact, *_chosen(task)]
    digest.update(json.dumps(how).encode())
    return digest.hexdigest()[:40]


def _chosen(task: HearTask) -> list[object]:
    font = task.midi.soundfont if is_midi(task.entry.path) else None
    return [list(task.midi.tracks), sorted(task.midi.channels), None if font is None else sha256_of(font)]


def heard_path(folder: Path, key: str) -> Path:
    """Return where in a work folder a recording's file is."""
    return folder / _HEARD / key


@contextmanager
def work_folder(folder: Path, *, alone: bool = True, passing: bool = False) -> Iterator[Path]:
    """Make a work folder, or take one up again; `alone` keeps other runs out while the block runs.

    A `passing` one is removed when its block ends well, unless a run that was not `passing` has had it. Raises `InputError`
    where another run has it, it is a folder of something else, or it cannot be written.
    """
    marker = folder / WORK_MARKER
    try:
        if folder.is_dir() and not marker.exists() and any(folder.iterdir()):
            raise InputError(f"{printable(folder)} is not a work folder of MusicHal, and not empty")
        (folder / _HEARD).mkdir(parents=True, exist_ok=True)
        passing = passing and (not marker.exists() or marker.read_bytes() == _PASSING)
        marker.write_bytes(_PASSING if passing else _STAYING)
    except OSError as error:
        raise InputError(f"cannot use the work folder {printable(folder)}: {reason(error)}") from error
    with _locked(folder, alone=alone):
        if alone:
            _remove_stale(folder / _HEARD)
        yield folder
        if passing:
            shutil.rmtree(folder, ignore_errors=True)  # before another run can have it
    if passing and sys.platform == "win32":
        shutil.rmtree(folder, ignore_errors=True)  # where what is open stays


@contextmanager
def _locked(folder: Path, *, alone: bool) -> Iterator[None]:
    try:
        with contextlib.closing(sqlite3.connect(folder / "lock.sqlite", timeout=0, isolation_level=None)) as lock:
            lock.execute("BEGIN EXCLUSIVE" if alone else "BEGIN")
            if not alone:
                lock.execute("SELECT count(*) FROM sqlite_master")
            yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
            text = f"another run of MusicHal works in {printable(folder)}: wait for it, or name another --work"
        else:
            text = f"cannot lock the work folder {printable(folder)}: {printable(str(error))}"
        raise InputError(text) from error


def _remove_stale(folder: Path) -> None:
    """Remove what runs that were killed left behind; what is young may be another machine's."""
    for path in (*folder.glob("part-*"), *folder.glob(".*.partial")):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _STALE_S:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def hear_archive(
    entries: Sequence[Entry], task: Callable[[Entry], HearTask], engine: Engine, *, each: Callable[[Entry, Found], None]
) -> list[Found]:
    """Hear entries by an engine; return what was found of each, and tell `each` as it comes. Raises as `hear_entry` does."""
    tasks = [task(entry) for entry in entries]
    found: dict[int, Found] = {}

    def came(number: int, one: Found) -> None:
        found[number] = one
        each(entries[number], one)

    # What was heard before is found here where that takes less than to start processes for it.
    if tasks and any(heard_path(tasks[0].folder, "").iterdir()) and sum(map(_bytes, entries)) <= _FEW_BYTES:
        for number, one in enumerate(tasks):
            with contextlib.suppress(OSError, InputError):  # it is told when it is heard
                if (known := _known(one, _key(one))) is not None:
                    came(number, known)
    left = [number for number in range(len(tasks)) if number not in found]
    for n, result in engine(hear_entry, [tasks[number] for number in left]):
        if isinstance(result, DiedError):
            came(left[n], Found(wrong=f"{entries[left[n]].words}: {result}"))
        elif isinstance(result, MusicHalError):
            raise result
        else:
            came(left[n], result)
    return [found.get(number, Found()) for number in range(len(tasks))]


def _bytes(entry: Entry) -> int:
    with contextlib.suppress(OSError):
        return _state(entry.path)[0]
    return 0


# Which recordings a partner remembers, of all that its vocabularies were learned from.


def changed_ns(path: Path) -> int:
    """Return when a file was changed, 0 where it is gone."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def choose_recent(changed: Sequence[int], durations_s: Sequence[float], *, most_s: float) -> list[int]:
    """Return the recordings whose files were `changed` last, as many as fit, in order."""
    return _fitting(sorted(range(len(changed)), key=lambda n: (-changed[n], -n)), durations_s, most_s=most_s)


def choose_tagged(entries: Sequence[Entry], durations_s: Sequence[float], tags: frozenset[str], *, most_s: float) -> list[int]:
    """Return the recordings with one of these tags, as many as fit, in order; raises `InputError` where there is none."""
    return _fitting(with_tags(entries, tags), durations_s, most_s=most_s)


def with_tags(entries: Sequence[Entry], tags: frozenset[str]) -> list[int]:
    """Return the numbers of the entries with one of these tags; raises `InputError` where there is none."""
    tagged = [number for number, entry in enumerate(entries) if tags & {*entry.tags}]
    if not tagged:
        raise InputError(f"no recording has a tag of --select tags={printable(','.join(sorted(tags)))}")
    return tagged


def choose_diverse(tokenised: Sequence[Tokenised], *, size: int, most_s: float) -> list[int]:
    """Return the recordings that stand for all best, as many as fit, in order: greedy medoids of how often tokens occur.

    Each next one is that which brings most, for its length, to how alike every recording is to the nearest one chosen (facility
    location). Of a large archive evenly spread recordings stand for all.
    """
    counts = np.stack([item.token_counts(size).ravel() for item in tokenised]).astype(np.float64)
    vectors = np.sqrt(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    durations_s = np.array([item.heard.duration_s for item in tokenised])
    spread = np.unique(np.linspace(0, len(vectors) - 1, min(len(vectors), _MOST_MEDOIDS)).astype(np.int64))
    alike: Float64 = rounded(vectors @ vectors[spread].T)
    nearest = np.zeros(len(spread))
    left = np.ones(len(vectors), np.bool_)
    chosen: list[int] = []
    room_s = most_s
    while (fits := left & (durations_s <= room_s)).any():
        blocks = (alike[first : first + _BLOCK_ROWS] for first in range(0, len(alike), _BLOCK_ROWS))
        gain = rounded(np.concatenate([np.maximum(block - nearest, 0).sum(axis=1) for block in blocks]) / durations_s)
        best = int(np.argmax(np.where(fits, gain, -1.0)))
        chosen.append(best)
        left[best], room_s = False, room_s - durations_s[best]
        nearest = np.maximum(nearest, alike[best])
    return sorted(chosen) or [int(np.argmin(durations_s))]


def _fitting(numbers: Sequence[int], durations_s: Sequence[float], *, most_s: float) -> list[int]:
    chosen: list[int] = []
    room_s = most_s
    for number in numbers:
        if durations_s[number] <= room_s:
            chosen.append(number)
            room_s -= durations_s[number]
    return sorted(chosen) or [min(numbers, key=lambda number: durations_s[number])]


def spread_recordings(recordings: Sequence[StoredRecording], *, most_s: float) -> list[StoredRecording]:
    """Return recordings of up to `most_s` in all, evenly spread, but one at least."""
    count = len(recordings)
    chosen = list(recordings)
    while count > 1 and sum(recording.duration_s for recording in chosen) > most_s:
        count -= max(1, count // 20)
        chosen = [recordings[n * len(recordings) // count] for n in range(count)]
    return chosen
