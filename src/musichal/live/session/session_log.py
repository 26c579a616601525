"""What is in a session folder: a performance, complete enough to play it again byte for byte.

On stage it is written while it is played; offline, once it is over, as a whole. The format and its reader are the same.

========================  ==========================================================================================
``settings.json``         what was asked for, and which partner (its path and SHA-256); live, written first
``input/``                the input as hearing gets it, silence where samples were lost: FLAC in chunks, the last one
                          raw if not closed
``transcript.jsonl``      what reached the partner when (`musichal.live.session.event_log`): what a replay follows
``percepts.jsonl``        what was heard: place, tokens, levels and onsets of each segment
``decisions.jsonl``       what was decided, and why
``drift.jsonl``           alarms about the input
``events.jsonl``          live: devices that went and came, segments skipped, trouble with ports and disks
``reply.mid``             the answer as it sounded; live, written at the end
``summary.json``          figures of the performance; live, written last: without it, MusicHal was killed while it played
========================  ==========================================================================================

A killed session lacks the last two, and perhaps half a line here and there; `read_session` says what it lacks, and a replay
makes the answer again.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from musichal.arrays import Float32
from musichal.atomic import open_atomically
from musichal.audio.flac import encode_flac
from musichal.audio.recording import ingest
from musichal.errors import InputError
from musichal.hearing.percepts import Percept
from musichal.live.drift import DriftReport
from musichal.live.input.recorded_input import INPUT_FOLDER, read_chunks
from musichal.live.observer import EngineObserver
from musichal.live.performance import Performance
from musichal.live.session.event_log import (
    Ended,
    Entry,
    Perceived,
    Struck,
    as_sounded,
    entry_from_json,
    entry_to_json,
    percept_to_json,
)
from musichal.live.session.recorder import CHUNK_S, TROUBLE, SessionRecorder
from musichal.live.session.session import SETTINGS, SessionSettings, read_bytes, read_settings, reply_bytes, settings_json
from musichal.memory.container import parse_json
from musichal.partner.decision import Decision
from musichal.text import printable

TRANSCRIPT, PERCEPTS, DECISIONS, DRIFT = "transcript.jsonl", "percepts.jsonl", "decisions.jsonl", "drift.jsonl"
EVENTS, REPLY, SUMMARY = "events.jsonl", "reply.mid", "summary.json"
_LONGEST_INPUT_SAMPLES = 4 * 3600 * 192_000


def write_session(folder: Path, settings: SessionSettings, samples: Float32, performance: Performance) -> None:
    """Write a performance offline into a `session_folder`, all of it or nothing; settings come last.

    A folder without settings is not a session, so that not even a power cut leaves something that can be taken for one.
    """
    written: list[Path] = []
    try:
        (folder / INPUT_FOLDER).mkdir()
        for name, data in _files(settings, ingest(samples), performance):
            written.append(folder / name)
            with open_atomically(folder / name) as stream:
                stream.write(data)
    except BaseException:
        for path in reversed(written):
            with contextlib.suppress(OSError):
                path.unlink()
        with contextlib.suppress(OSError):
            (folder / INPUT_FOLDER).rmdir()
        raise


def _files(settings: SessionSettings, samples: Float32, performance: Performance) -> Iterator[tuple[str, bytes]]:
    chunk = round(CHUNK_S * settings.sample_rate_hz)
    for number, first in enumerate(range(0, samples.shape[0], chunk)):
        yield f"{INPUT_FOLDER}/{number:05d}.flac", encode_flac(samples[first : first + chunk], settings.sample_rate_hz)
    for name, lines in (
        (TRANSCRIPT, [entry_to_json(entry) for entry in performance.entries]),
        (PERCEPTS, performance.percept_lines),
        (DECISIONS, [decision.to_json() for decision in performance.decisions]),
        (DRIFT, [report.to_json() for report in performance.drift]),
    ):
        yield name, "".join(line + "\n" for line in lines).encode()
    yield REPLY, reply_bytes(performance.decisions, channel=settings.channel, program=settings.program)
    yield SUMMARY, _summary_json({"duration_s": round(performance.duration_s, 3)}, trouble=None).encode()
    yield SETTINGS, settings_json(settings).encode()


def _summary_json(summary: dict[str, Any], *, trouble: str | None) -> str:
    return json.dumps({**summary, "trouble": trouble}, indent=2, allow_nan=False) + "\n"


class LiveSessionWriter(EngineObserver):
    """Keeps a performance while it is played: `open` writes the settings, `close` the answer and the summary.

    Parameters
    ----------
    folder : Path
        An empty one: see `musichal.live.session.session.session_folder`.
    settings : SessionSettings
    sample_rate_hz : int
        Of the clock: the spec's.
    recorder : SessionRecorder
    """

    def __init__(self, folder: Path, settings: SessionSettings, *, sample_rate_hz: int, recorder: SessionRecorder) -> None:
        self._folder, self._settings, self._rate_hz = folder, settings, sample_rate_hz
        self.recorder = recorder
        with open_atomically(folder / SETTINGS) as stream:
            stream.write(settings_json(settings).encode())

    @property
    def trouble(self) -> str | None:
        """Why nothing more is written, or None."""
        return self.recorder.trouble

    def sound(self, samples: Float32) -> None:
        """Keep samples of the input, as hearing gets them."""
        self.recorder.sound(samples)

    def entry(self, entry: Entry) -> None:
        """Keep what reached the partner."""
        self.recorder.line(TRANSCRIPT, entry_to_json(entry))

    def percept(self, percept: Percept) -> None:
        """Keep what was heard."""
        self.recorder.line(PERCEPTS, percept_to_json(percept))

    def decision(self, decision: Decision, reason: str) -> None:
        """Keep a decision; its reason is made from its record."""
        self.recorder.line(DECISIONS, decision.to_json())

    def drift(self, report: DriftReport) -> None:
        """Keep an alarm about the input."""
        self.recorder.line(DRIFT, report.to_json())

    def event(self, at_s: float, kind: str, text: str) -> None:
        """Keep what else happened, at a time of the stream."""
        self.recorder.line(EVENTS, json.dumps({"at_s": round(at_s, 3), "kind": kind, "text": text}))

    def close(self, summary: dict[str, Any]) -> None:
        """End the session: write what waits, then the answer and the summary.

        Raises `InputError` where those cannot be written; the rest of the session is whole then too.
        """
        self.recorder.close()
        # From the disk and not from memory, which a performance of hours need not hold.
        decisions, _ = _decisions(self._folder)
        sounded = as_sounded(decisions, _entries(self._folder)[0], sample_rate_hz=self._rate_hz)
        reply = reply_bytes(list(sounded), channel=self._settings.channel, program=self._settings.program)
        text = _summary_json(summary, trouble=self.trouble)
        for name, data in ((REPLY, reply), (SUMMARY, text.encode())):
            with open_atomically(self._folder / name) as stream:
                stream.write(data)


@dataclass(frozen=True)
class Session:
    """A session as it was found; `recovered` says in sentences what it lacks, and is empty for a whole one.

    `reply` is None where the session was killed. `decisions` may end earlier than the transcript then, or later.
    """

    folder: Path
    settings: SessionSettings
    entries: tuple[Entry, ...]
    decisions: tuple[Decision, ...]
    input_samples: int
    reply: bytes | None
    recovered: tuple[str, ...]

    def sound(self) -> Iterator[Float32]:
        """Return the input, chunk by chunk."""
        return read_chunks(self.folder, self.settings.sample_rate_hz)

    def samples(self) -> Float32:
        """Return the input at once, shape (n,); raises `InputError` where that is too much, or nothing."""
        if not 0 < self.input_samples <= _LONGEST_INPUT_SAMPLES:
            how_much = "more than four hours of sound: too much to read at once" if self.input_samples else "no sound"
            raise InputError(f"{printable(self.folder)} holds {how_much}")
        return np.concatenate(list(self.sound()))


def read_session(folder: Path) -> Session:
    """Return a session, also one whose MusicHal was killed while it played.

    Raises
    ------
    InputError
        If the folder is no session, or is damaged otherwise than by being cut off.
    """
    settings = read_settings(folder)
    recovered = []
    entries, cut = _entries(folder)
    if cut:
        recovered.append(f"the last line of {TRANSCRIPT} was cut off")
    decisions, cut = _decisions(folder)
    if cut:
        recovered.append(f"the last line of {DECISIONS} was cut off")
    input_samples = sum(chunk.shape[0] for chunk in read_chunks(folder, settings.sample_rate_hz))
    trouble = folder / TROUBLE
    if trouble.is_file():
        recovered.append(f"while it was recorded: {read_bytes(trouble).decode(errors='replace').strip()[:500]}")
    if not input_samples and any(isinstance(entry, Struck | Perceived) for entry in entries):
        raise InputError(f"{printable(folder / INPUT_FOLDER)} holds no sound, and {TRANSCRIPT} speaks of some")
    reply = read_bytes(folder / REPLY) if (folder / REPLY).is_file() else None
    if not (folder / SUMMARY).is_file() or not entries or not isinstance(entries[-1], Ended):
        duration_s = input_samples / settings.sample_rate_hz
        why = "the recording ended before the music" if trouble.is_file() else "MusicHal was ended while it played"
        recovered.append(f"{why}: {duration_s:.1f} s of its input are there")
    elif reply is None:
        recovered.append(f"{REPLY} is missing")
    return Session(folder, settings, tuple(entries), tuple(decisions), input_samples, reply, tuple(recovered))


def _entries(folder: Path) -> tuple[list[Entry], bool]:
    entries: list[Entry] = []
    lines, cut = _lines(folder / TRANSCRIPT)
    for number, line in enumerate(lines, start=1):
        try:
            entries.append(entry_from_json(line))
        except ValueError as error:
            raise InputError(f"{printable(folder / TRANSCRIPT)}: line {number} is not an entry: {error}") from error
        if len(entries) > 1 and entries[-1].at_sample < entries[-2].at_sample:
            raise InputError(f"{printable(folder / TRANSCRIPT)}: line {number} goes back in time")
    return entries, cut


def _decisions(folder: Path) -> tuple[list[Decision], bool]:
    decisions = []
    lines, cut = _lines(folder / DECISIONS)
    for number, line in enumerate(lines, start=1):
        try:
            decisions.append(Decision.from_json(line))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{printable(folder / DECISIONS)}: line {number} is not a decision") from error
    return decisions, cut


def _lines(path: Path) -> tuple[Sequence[str], bool]:
    """Return the whole lines of a file, and whether half a line follows them; nothing where there is no file."""
    if not path.is_file():
        return [], False
    text = read_bytes(path).decode(errors="replace")
    whole, _, rest = text.rpartition("\n")
    return whole.split("\n") if whole else [], bool(rest)


def read_summary(folder: Path) -> dict[str, Any]:
    """Return the summary of a session that was closed in order; raises `InputError` where it has none."""
    try:
        table = parse_json(read_bytes(folder / SUMMARY), max_depth=8)
    except ValueError as error:
        raise InputError(f"{printable(folder / SUMMARY)} is damaged: {error}") from error
    if not isinstance(table, dict):
        raise InputError(f"{printable(folder / SUMMARY)} is damaged")
    return table
