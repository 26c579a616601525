"""What an archive takes: parts measured on this machine, a large partner written, opened and played from, and a plan of them.

Conventions
-----------
Each part runs in a process of its own with one BLAS thread; times are CPU seconds, which do not count what else runs. Of the
archive itself hearing is replaced by stored results: `heard_copies` of a recording that was really heard stand for its files,
each with a digest of its own, and `learn` does with them what it does with files that were heard.

The large partner has phrases that come back, as `music_like_memory`. Its oracle is one of a million gestures, again and
again; all that is derived of its memory is really built, each part in a process of its own. Vectors have `_DIMS` values instead
of the 146 of `spectral`, and recordings a frame a second, so that more fits into a small machine; both lie in the file and are
not searched.
"""

import hashlib
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figure import Figure
from benchmarks.memory_speed import token_string
from benchmarks.partner_speed import BUSY, TimedPartner, chroma_of, decided
from benchmarks.process import in_own_process, peak_memory_mb
from musichal.arrays import Columns, Records
from musichal.audio.recording import read_recording
from musichal.hearing.listener import resolve_spec
from musichal.hearing.percepts import SOURCES
from musichal.hearing.vocabulary import Vocabulary
from musichal.memory.audio_oracle import AudioOracle
from musichal.memory.beat_places import LAST_PHASE
from musichal.memory.container import read_container
from musichal.memory.memory import NOTE, STATE, Memory
from musichal.memory.partner_file import PartnerModel, StoredRecording, load_partner
from musichal.memory.ready import find_kept, keep, kept_path
from musichal.memory.token_index import TokenIndex
from musichal.partner.made_ready import save_ready
from musichal.partner.partner import Partner
from musichal.spec import PerceptionSpec
from musichal.training.heard import Heard, hear, ready_encoder, tokenise
from musichal.training.trainer import SAMPLE_FRAMES, learn

_MODULE = "benchmarks.archive_speed"
_DIMS = 8
_ORACLE = 1_000_000
_ARCHIVES = ((1, 1, 600), (10, 10, 700), (100, 20, 1200))
"""Archives that are learned: hours, those remembered of them, and how much memory that may take in MB."""
_GESTURES_PER_S = 4.9
_PLANNED_HOURS, _PLANNED_CORES = 1000, (1, 16, 256)


def measure_archive(recordings: Sequence[Path], *, gestures: int = 20_000_000, files: int = 15_000) -> tuple[Figure, ...]:
    """Measure the parts, write the large partner, open it and play from it, and plan a thousand hours.

    It takes half an hour of one core, 16 GB of memory and 25 GB under the system's folder for temporary files.
    """
    with tempfile.TemporaryDirectory(prefix="musichal-archive-") as folder:
        os.environ["MUSICHAL_CACHE"] = f"{folder}/cache"
        part = in_own_process(_MODULE, "hear", folder=folder, recording=str(recordings[0].resolve()))
        learned = {
            hours: in_own_process(_MODULE, "learn", folder=folder, hours=hours, remembered=kept) for hours, kept, _ in _ARCHIVES
        }
        size: dict[str, Any] = {"folder": folder, "gestures": gestures, "files": files}
        parts = [in_own_process(_MODULE, job, **size) for job in ("columns", "oracle")]
        parts += [in_own_process(_MODULE, "index", folder=folder, source=source) for source in range(len(SOURCES))]
        made, opened = (in_own_process(_MODULE, job, **size) for job in ("write", "open"))
    hours, kept, _ = _ARCHIVES[-1]
    all_ = learned[hours]
    per_hour = 3600 / part["sound_s"]
    hear_s, name_s = part["hear_s"] * per_hour, part["name_s"] * per_hour
    serial_s = all_["fit_s"] + all_["weigh_s"] + all_["remember_s"]
    serial_s += (all_["sample_s"] / hours) * _PLANNED_HOURS

    def planned_h(cores: int) -> float:
        return (_PLANNED_HOURS * (hear_s + name_s) / cores + serial_s) / 3600

    many = f"{gestures:,} gestures of {files:,} recordings"
    return (
        Figure("hearing an hour, one core", hear_s, "s"),
        Figure("naming its sounds", name_s, "s"),
        Figure("work folder for an hour, without sound", part["bytes"] * per_hour / 1e6, "MB"),
        Figure("memory of a worker that hears", part["peak_mb"], "MB"),
        Figure(f"choosing {SAMPLE_FRAMES:,} frames of each source in {hours:g} hours", all_["sample_s"], "s"),
        Figure("learning both vocabularies of them", all_["fit_s"], "s"),
        Figure(f"remembering {kept:g} hours", all_["remember_s"], "s"),
        Figure("weighing influences", all_["weigh_s"], "s"),
        *(
            Figure(
                f"peak memory of learning {of:,} h with its own sounds, {some} h remembered",
                learned[of]["peak_mb"],
                "MB",
                goal=goal,
            )
            for of, some, goal in _ARCHIVES
        ),
        *(
            Figure(f"{_PLANNED_HOURS:,} hours, {kept} remembered, on {cores} cores", planned_h(cores), "h")
            for cores in _PLANNED_CORES
        ),
        Figure(f"work folder for {_PLANNED_HOURS:,} hours", _PLANNED_HOURS * part["bytes"] * per_hour / 1e9, "GB"),
        Figure(f"building {many}", sum(one["build_s"] for one in parts), "s"),
        Figure("writing them and making them ready", made["write_s"], "s"),
        Figure("peak resident memory of that, maps included", max(one["peak_mb"] for one in (*parts, made)), "MB"),
        Figure("partner file", made["file_gb"], "GB"),
        Figure("what is kept ready of it", made["ready_gb"], "GB"),
        Figure(f"opening {many} as kept", opened["open_s"], "s", goal=5.0),
        Figure("the same, CPU", opened["open_cpu_s"], "s"),
        Figure(f"decision p99 at {gestures:,} gestures", opened["decide_p99_ms"], "ms", goal=3.0),
        Figure("decision median there", opened["decide_median_ms"], "ms"),
        Figure("resident memory after playing, maps included", opened["peak_mb"], "MB"),
    )


# ── the parts ────────────────────────────────────────────────────────────────


def _hear(folder: str, recording: str) -> dict[str, float]:
    spec, path = resolve_spec(PerceptionSpec()), Path(folder) / "heard"
    sound = read_recording(Path(recording))
    for _ in range(2):  # the second time all is warm
        start_s = time.process_time()
        hear(sound, spec, ready_encoder(spec), path, keep_audio=False)
        hear_s = time.process_time() - start_s
    heard, peak_mb = Heard.load(path, name="heard"), peak_memory_mb()
    model = learn([heard], spec, Path(folder), engine=_engine, progress=lambda _what, _share: None)
    start_s = time.process_time()
    tokenise(heard, spec, model.vocabularies, Path(folder) / "again")
    name_s = time.process_time() - start_s
    return {
        **{"hear_s": hear_s, "name_s": name_s, "sound_s": sound.duration_s, "peak_mb": peak_mb},
        "bytes": path.stat().st_size + (Path(folder) / "again").stat().st_size,
    }


def heard_copies(heard: Heard, hours: float) -> list[Heard]:
    """Return so many hours of what was heard once, each copy with a digest of its own."""
    count = int(np.ceil(hours * 3600 / heard.duration_s))
    contents = ({"digest": hashlib.sha256(str(n).encode()).hexdigest()} for n in range(count))
    boxes = (replace(heard.container, content={**heard.container.content, **content}) for content in contents)
    return [replace(heard, container=box, name=f"recording {n}") for n, box in enumerate(boxes)]


def _engine(work: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """Do tasks here, those of copies once."""
    for number, task in enumerate(tasks):
        yield number, None if task.path.exists() else work(task)


def _learn(folder: str, hours: int, remembered: int) -> dict[str, float]:
    took_s: defaultdict[str, float] = defaultdict(float)
    doing, since_s = "", time.process_time()

    def tell(what: str, _share: float) -> None:
        nonlocal doing, since_s
        now_s = time.process_time()
        took_s[doing] += now_s - since_s
        doing, since_s = " ".join(what.split()[: 2 if what.startswith("Choosing") else 1]), now_s

    every = heard_copies(Heard.load(Path(folder) / "heard", name="heard"), hours)
    chosen = range(int(len(every) * remembered / hours))
    tokens = Path(folder) / f"tokens-{hours}"
    tokens.mkdir(exist_ok=True)
    learn(every, resolve_spec(PerceptionSpec()), tokens, engine=_engine, choose=lambda _all: chosen, progress=tell)
    return {
        "sample_s": took_s[""] + took_s["Choosing frames"],
        "fit_s": took_s["Learning"],
        "remember_s": took_s["Choosing the"] + took_s["Remembering"],
        "weigh_s": took_s["Weighing"],
        "peak_mb": peak_memory_mb(),
    }


# ── the large partner ────────────────────────────────────────────────────────


def large_columns(gestures: int, files: int, *, rng: np.random.Generator) -> tuple[Records, Records]:
    """Return the states and notes of so many gestures in so many recordings of equal length."""
    unit = min(gestures, _ORACLE)
    n = gestures // unit * unit
    states = np.zeros(n, dtype=STATE)
    harmonic = token_string("phrases", n, rng=rng)
    states["tokens"][:, 0] = harmonic
    for first in range(0, n, unit):  # a Markov chain is slow to draw
        states["tokens"][first : first + unit, 1] = np.roll(token_string("phrases", unit, rng=rng), first)
        part = slice(first, first + unit)
        states["chroma"][part] = chroma_of(harmonic[part], key=(np.arange(unit) // 200 * 7) % 12, rng=rng)
    states["recording"] = np.arange(n) * files // n
    states["duration_s"] = states["ioi_s"] = 1 / _GESTURES_PER_S
    begins = np.flatnonzero(np.diff(states["recording"], prepend=-1))
    states["ioi_s"][begins] = 0
    place = np.arange(n) - np.repeat(begins, np.diff(begins, append=n))
    states["start_s"] = place / _GESTURES_PER_S
    states["level_db"] = -20 + 3 * (harmonic % 5)
    states["starts_at_onset"] = True
    states["beat_phase"] = np.minimum((states["start_s"] / 0.5 % 1).astype(np.float32), LAST_PHASE)
    states["beat_period_s"] = 0.5
    states["bar_place"], states["beat_confidence"] = -1, 0.9
    states["note_count"] = harmonic % 4
    states["first_note"] = np.concatenate([[0], np.cumsum(states["note_count"])[:-1]])
    notes = np.zeros(int(states["note_count"].sum()), dtype=NOTE)
    notes["pitch"] = 40 + np.arange(len(notes)) % 48
    notes["duration_s"], notes["velocity"] = 0.2, 80
    return states, notes


def large_oracle(gestures: int, *, rng: np.random.Generator) -> AudioOracle:
    """Return an oracle of so many gestures, grown for the first of them and repeated."""
    unit = min(gestures, _ORACLE)
    copies = gestures // unit
    vectors = np.zeros((copies * unit, _DIMS), np.float32)
    vectors[:, 0] = np.tile(token_string("phrases", unit, rng=rng), copies)
    small = AudioOracle.from_vectors(vectors[:unit], threshold=0.5).to_arrays()
    # A copy's clusters are those of the first one: its roots hang on theirs.
    suffix, firsts = small["suffix_links"].astype(np.int64), np.arange(1, unit + 1)
    roots = suffix == 0
    shifts = unit * np.arange(copies)[:, None]
    later = np.where(roots, firsts, suffix + shifts)
    later[0] = suffix
    repeat = np.where(roots & (shifts > 0), 1, small["repeat_lengths"])
    inner = small["forward_links"][small["forward_links"][:, 0] > 0]
    pairs = np.concatenate([small["forward_links"], *(inner + np.int32(unit * copy) for copy in range(1, copies))])
    arrays = {"vectors": vectors, "threshold": small["threshold"], "forward_links": pairs}
    arrays |= {"suffix_links": later.ravel().astype(np.int32), "repeat_lengths": repeat.ravel().astype(np.int32)}
    return AudioOracle.from_arrays(arrays)


def _columns(folder: str, gestures: int, files: int) -> dict[str, float]:
    start_s = time.process_time()
    for name, column in zip(("states", "notes"), large_columns(gestures, files, rng=np.random.default_rng(0)), strict=True):
        np.save(Path(folder) / f"{name}.npy", column)
    return {"build_s": time.process_time() - start_s, "peak_mb": peak_memory_mb()}


def _oracle(folder: str, gestures: int, files: int) -> dict[str, float]:
    start_s = time.process_time()
    oracle = large_oracle(gestures, rng=np.random.default_rng(0))
    oracle.stop_growing()
    keep("oracle", {"oracle": oracle})
    return {"build_s": time.process_time() - start_s, "peak_mb": peak_memory_mb()}


def _index(folder: str, source: int) -> dict[str, float]:
    start_s = time.process_time()
    states, index = np.load(Path(folder) / "states.npy", mmap_mode="r"), TokenIndex()
    for part in np.split(states["tokens"][:, source], np.flatnonzero(np.diff(states["recording"])) + 1):
        index.start_sequence()
        index.extend(part)
    keep(f"index {source}", {"index": index.compact()})
    return {"build_s": time.process_time() - start_s, "peak_mb": peak_memory_mb()}


def _part(name: str) -> Any:
    found = find_kept(name)
    assert found is not None, "it was kept before"
    return found.get(name.split(maxsplit=1)[0])


def _write(folder: str, gestures: int, files: int) -> dict[str, float]:
    """Put parts that lie in files together, write the partner and make it ready."""
    start_s = time.process_time()
    spec, rng = resolve_spec(PerceptionSpec()), np.random.default_rng(0)
    oracle = _part("oracle")
    memory = Memory(dims=_DIMS, threshold=oracle.threshold)
    memory.oracle, memory.indexes = oracle, tuple(_part(f"index {source}") for source in range(len(SOURCES)))
    columns = (Columns.of(np.load(Path(folder) / f"{name}.npy", mmap_mode="r")) for name in ("states", "notes"))
    memory.states_column, memory.notes_column = columns
    none, rate_hz = np.zeros(0, np.float32), spec.sample_rate_hz
    counts = np.ones(spec.vocabulary.size, np.int64)
    centres = rng.normal(size=(2, spec.vocabulary.size, _DIMS // 2)).astype(np.float32)
    vocabularies = [Vocabulary("scale", own, 1.0, none, none.reshape(0, 0), 1.0, counts) for own in centres]
    seconds = int(np.ceil((gestures / files + 1) / _GESTURES_PER_S))
    frames, zeros = np.arange(seconds, dtype=np.int64) * rate_hz, np.zeros(seconds, np.float32)
    stored = [
        StoredRecording(
            name=f"recording {n}",
            sample_rate_hz=rate_hz,
            n_samples=seconds * rate_hz,
            digest=f"{n:064x}",
            flac=None,
            tokens=np.zeros((2, seconds), np.int16),
            frame_samples=frames,
            level_db=zeros,
            onset_samples=frames,
        )
        for n in range(files)
    ]
    path = Path(folder) / "large.hal"
    save_ready(path, PartnerModel(spec, (vocabularies[0], vocabularies[1]), memory, tuple(stored), "", {}))
    ready = kept_path(read_container(path).digest).stat().st_size
    return {
        **{"write_s": time.process_time() - start_s, "peak_mb": peak_memory_mb()},
        **{"file_gb": path.stat().st_size / 1e9, "ready_gb": ready / 1e9},
    }


def _open(folder: str, gestures: int, files: int, decisions: int = 2000) -> dict[str, float]:
    start_s, cpu_s = time.perf_counter(), time.process_time()
    model = load_partner(Path(folder) / "large.hal")
    settings = BUSY.changed({"time": "pulse"})
    rate_hz = model.spec.sample_rate_hz
    partner = Partner(model.memory, settings, rng=np.random.default_rng(0), sample_rate_hz=rate_hz)
    found = {"open_s": time.perf_counter() - start_s, "open_cpu_s": time.process_time() - cpu_s}
    assert model.memory.kept is not None, "it was made ready"
    assert (len(model.memory), len(model.recordings)) == (gestures, files)
    timed = TimedPartner(partner, time.process_time)
    return {**found, **decided(timed, decisions, rng=np.random.default_rng(7), dims=_DIMS), "peak_mb": peak_memory_mb()}


_JOBS: dict[str, Callable[..., dict[str, float]]] = {
    **{"hear": _hear, "learn": _learn, "columns": _columns, "oracle": _oracle},
    **{"index": _index, "write": _write, "open": _open},
}

if __name__ == "__main__":
    given: dict[str, Any] = json.loads(sys.argv[1])
    sys.stdout.write(json.dumps(_JOBS[given.pop("job")](**given)))
