"""Live session folders: what a performance on stage was, written while it was played.

========================  ==========================================================================================
``settings.json``         what was asked for, and which partner; written first
``input/``                the input, silence where samples were lost: FLAC in chunks, the last one raw if not closed
``transcript.jsonl``      what reached the partner when (`musichal.stage.transcript`): what a replay follows
``percepts.jsonl``        what was heard: place, tokens, levels and onsets of each segment
``decisions.jsonl``       what was decided, and why
``drift.jsonl``           alarms about the input
``events.jsonl``          what else happened: devices that went and came, segments skipped, trouble with ports and disks
``reply.mid``             the answer as it sounded; written at the end
``summary.json``          figures of the performance; written last: without it, MusicHal was killed while it played
========================  ==========================================================================================

A killed session lacks the last two, and perhaps half a line here and there; `read_live_session` says what it lacks, and a
replay makes the answer again.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from musichal.arrays import Float32
from musichal.atomic import open_atomically, printable, reason
from musichal.errors import InputError
from musichal.hearing.percepts import Percept
from musichal.memory.container import parse_json
from musichal.partner.decision import Decision
from musichal.stage.drift import DriftReport
from musichal.stage.recorded_input import read_chunks
from musichal.stage.recorder import TROUBLE, SessionRecorder
from musichal.stage.session import (
    DECISIONS,
    DRIFT,
    LIVE_VERSION,
    REPLY,
    SETTINGS,
    SessionSettings,
    read_settings,
    reply_bytes,
    settings_json,
)
from musichal.stage.transcript import Ended, Entry, as_sounded, entry_from_json, entry_to_json
from musichal.stage.witness import Witness

TRANSCRIPT, PERCEPTS, EVENTS, SUMMARY = "transcript.jsonl", "percepts.jsonl", "events.jsonl", "summary.json"


def percept_digest(percept: Percept) -> str:
    """Return a digest of what a partner can tell of a percept: its frames, tokens, gestures, onsets and notes in place."""
    heard = percept.heard
    digest = hashlib.blake2b(digest_size=8)
    digest.update(np.ascontiguousarray(percept.tokens).tobytes())
    digest.update(np.ascontiguousarray(heard.frame_samples).tobytes())
    places = [
        [g.tokens for g in percept.gestures],
        [round(g.start_s, 6) for g in percept.gestures],
        list(heard.onset_samples),
        [(n.pitch, n.velocity) for n in heard.notes],
    ]
    digest.update(json.dumps(places).encode())
    return digest.hexdigest()


class LiveSessionWriter(Witness):
    """Keeps a performance while it is played: `open` writes the settings, `close` the answer and the summary.

    Parameters
    ----------
    folder : Path
        An empty one: see `musichal.stage.session.session_folder`.
    settings : SessionSettings
    sample_rate_hz : int
        Of the clock: the spec's.
    recorder : SessionRecorder
    """

    def __init__(self, folder: Path, settings: SessionSettings, *, sample_rate_hz: int, recorder: SessionRecorder) -> None:
        self._folder, self._settings, self._rate_hz = folder, settings, sample_rate_hz
        self.recorder = recorder
        with open_atomically(folder / SETTINGS) as stream:
            stream.write(settings_json(settings, version=LIVE_VERSION).encode())

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
        heard = percept.heard
        values = {
            "index": heard.index,
            "start_sample": heard.start_sample,
            "length_samples": heard.length_samples,
            "available_at": heard.available_at,
            "tokens": percept.tokens.tolist(),
            "level_db": [round(float(level), 1) for level in heard.level_db],
            "onset_samples": list(heard.onset_samples),
        }
        self.recorder.line(PERCEPTS, json.dumps(values, allow_nan=False, separators=(",", ":")))

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
        text = json.dumps({**summary, "trouble": self.trouble}, indent=2, allow_nan=False) + "\n"
        for name, data in ((REPLY, reply), (SUMMARY, text.encode())):
            with open_atomically(self._folder / name) as stream:
                stream.write(data)


@dataclass(frozen=True)
class LiveSession:
    """A live session as it was found; `recovered` says in sentences what it lacks, and is empty for a whole one.

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


def is_live_session(folder: Path) -> bool:
    """Return whether a session was played live; raises `InputError` for what is no session."""
    return read_settings(folder)[1] == LIVE_VERSION


def read_live_session(folder: Path) -> LiveSession:
    """Return a live session, also one whose MusicHal was killed.

    Raises
    ------
    InputError
        If the folder is no live session, or is damaged otherwise than by being cut off.
    """
    settings, version = read_settings(folder)
    if version != LIVE_VERSION:
        raise InputError(f"{printable(folder)} is a session that was not played live")
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
        recovered.append(_read(trouble).decode(errors="replace").strip()[:500])
    reply = _read(folder / REPLY) if (folder / REPLY).is_file() else None
    if not (folder / SUMMARY).is_file() or not entries or not isinstance(entries[-1], Ended):
        duration_s = input_samples / settings.sample_rate_hz
        recovered.append(f"MusicHal was ended while it played: {duration_s:.1f} s of its input are there")
    return LiveSession(folder, settings, tuple(entries), tuple(decisions), input_samples, reply, tuple(recovered))


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
    text = _read(path).decode(errors="replace")
    whole, _, rest = text.rpartition("\n")
    return whole.split("\n") if whole else [], bool(rest)


def read_summary(folder: Path) -> dict[str, Any]:
    """Return the summary of a session that was closed in order; raises `InputError` where it has none."""
    try:
        table = parse_json(_read(folder / SUMMARY), max_depth=8)
    except ValueError as error:
        raise InputError(f"{printable(folder / SUMMARY)} is damaged: {error}") from error
    if not isinstance(table, dict):
        raise InputError(f"{printable(folder / SUMMARY)} is damaged")
    return table


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {printable(path)}: {reason(error)}") from error
