"""Session folders: a performance, complete enough to play it again byte for byte.

Live, a session is written during the performance; offline, at the end and as a whole. Format and reader are the same.

========================  ==========================================================================================
``settings.json``         what was asked for, and which partner (its path and SHA-256); live, written first
``input/``                the input as hearing gets it, silence for lost samples: chunks of FLAC. A chunk that was not
                          closed, or could not be encoded, is raw: 24-bit samples in little-endian 32-bit integers
``transcript.jsonl``      what reached the partner when (`musichal.live.session.event_log`): a replay follows it
``percepts.jsonl``        what was heard: place, tokens, levels and onsets of each segment
``decisions.jsonl``       what was decided, and why. A line with ``"as"`` is another voice of the choice on the line
                          before, and holds only what differs from that
``drift.jsonl``           alarms about the input
``events.jsonl``          live: devices that went and came, skipped segments, trouble with ports and disks
``reply.mid``             the answer as it sounded; live, written at the end
``summary.json``          statistics of the performance; live, written last: without it, MusicHal was killed
``trouble.txt``           live: why the recording ended before the music
========================  ==========================================================================================

A killed session lacks the answer and the summary, and its last lines may be cut off. `read_session` says what is missing,
and a replay makes the answer again.

`replay` hears the recorded input again, and gives it to a partner as the event log says: the same segments are skipped, and
percepts, onsets and changes reach the partner at the same samples, so it decides the same. All are checked against the log.
"""

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from musichal import __version__
from musichal.arrays import Float32, SampleStore
from musichal.audio.session_input import (
    EVENT_LOG,
    INPUT,
    SETTINGS,
    chunk_samples,
    chunks_of,
    read_bytes,
    read_chunk,
    read_chunks,
    whole_lines,
)
from musichal.errors import InputError
from musichal.hearing.exact_notes import ExactNotes
from musichal.hearing.listener import Listener
from musichal.hearing.percepts import Onset, Window
from musichal.live.engine import EventLoop, Player, note_events
from musichal.live.output.midi_file import midi_bytes
from musichal.live.session.event_log import (
    Changed,
    DecisionLog,
    Ended,
    Entry,
    Perceived,
    Played,
    Skipped,
    Struck,
    as_sounded,
    entry_from_json,
    percept_digest,
)
from musichal.machine import single_blas_thread
from musichal.note import PERCUSSION_CHANNEL
from musichal.partner.decision import Decision
from musichal.partner.settings import PartnerSettings
from musichal.text import parse_json, printable, reason

SESSION_VERSION = 2
TROUBLE = "trouble.txt"
PERCEPTS, DECISIONS, DRIFT = "percepts.jsonl", "decisions.jsonl", "drift.jsonl"
EVENTS, REPLY, SUMMARY = "events.jsonl", "reply.mid", "summary.json"
_BLOCK_SAMPLES = 4096
_LONGEST_INPUT_SAMPLES = 24 * 3600 * 48_000


@dataclass(frozen=True)
class SessionSettings:
    """What a performance was asked to be."""

    partner_path: str
    partner_sha256: str
    partner: PartnerSettings
    seed: int
    channel: int
    program: int
    sample_rate_hz: int
    input_name: str
    keys_beside: bool = False
    """Whether keys were played beside a sound."""
    stream_rate_hz: int = 24_000
    """Rate at which the event log counts samples: the spec's."""


@dataclass(frozen=True)
class Session:
    """A session as found on disk.

    `recovered` says in sentences what is missing; it is empty for a whole session. `reply` is None for a killed one, whose
    `decisions` may end before the entries or after them.
    """

    folder: Path
    settings: SessionSettings
    entries: tuple[Entry, ...]
    decisions: DecisionLog
    input_samples: int
    reply: bytes | None
    recovered: tuple[str, ...]

    @property
    def known_onsets(self) -> tuple[Onset, ...]:
        """Return the onsets of a MIDI player, empty for sound."""
        return tuple(entry.onset for entry in self.entries if isinstance(entry, Struck) and entry.onset.pitches)

    @property
    def duration_s(self) -> float:
        """Return the length of the input."""
        return self.input_samples / self.settings.sample_rate_hz

    def sounded(self) -> Iterator[Decision]:
        """Yield the decisions with the notes that really sounded, one in memory at a time."""
        return as_sounded(self.decisions, self.entries, sample_rate_hz=self.settings.stream_rate_hz)

    def sound(self) -> Iterator[Float32]:
        """Yield the input chunk by chunk; raise `InputError` for a damaged one."""
        return read_chunks(self.folder, self.settings.sample_rate_hz)

    def stretch(self, first: int, last: int) -> Float32:
        """Return the input from sample `first` to `last`, as far as it goes; raise `InputError` for a damaged chunk."""
        parts, at = [np.zeros(0, np.float32)], 0
        for path in chunks_of(self.folder):
            end = at + chunk_samples(path, self.settings.sample_rate_hz)
            if end > first and at < last:
                parts.append(read_chunk(path, self.settings.sample_rate_hz)[max(0, first - at) : last - at])
            at = end
        return np.concatenate(parts)

    def samples(self) -> Float32:
        """Return the whole input, shape (n,), on the disk if long; raise `InputError` if there is none, or too much."""
        if not 0 < self.input_samples <= _LONGEST_INPUT_SAMPLES:
            how_much = "more sound than can be read at once" if self.input_samples else "no sound"
            raise InputError(f"{printable(self.folder)} holds {how_much}")
        store = SampleStore()
        for chunk in self.sound():
            store.append(chunk)
        return store.samples()


def read_session(folder: Path) -> Session:
    """Return a session, even if MusicHal was killed during it. The input is not decoded.

    Raises `InputError` if the folder is no session, or is damaged otherwise than by being cut off.
    """
    settings = read_settings(folder)
    recovered = [f"the last line of {name} was cut off" for name in (EVENT_LOG, DECISIONS) if _is_cut(folder / name)]
    entries, decisions = tuple(read_entries(folder)), DecisionLog(folder / DECISIONS)
    input_samples = sum(chunk_samples(path, settings.sample_rate_hz) for path in chunks_of(folder))
    trouble = folder / TROUBLE
    if trouble.is_file():
        recovered.append(f"while it was recorded: {read_bytes(trouble).decode(errors='replace').strip()[:500]}")
    if not input_samples and any(isinstance(entry, Struck | Perceived) for entry in entries):
        raise InputError(f"{printable(folder / INPUT)} contains no audio although {EVENT_LOG} lists input events")
    # Where the recording ended before the music, the answer goes on beyond what can be replayed.
    reply = read_bytes(folder / REPLY) if (folder / REPLY).is_file() and not trouble.is_file() else None
    if not (folder / SUMMARY).is_file() or not entries or not isinstance(entries[-1], Ended):
        duration_s = input_samples / settings.sample_rate_hz
        why = "the recording ended before the music" if trouble.is_file() else "MusicHal was ended while it played"
        recovered.append(f"{why}: {duration_s:.1f} s of its input are there")
    elif reply is None:
        recovered.append(f"{REPLY} is missing")
    return Session(folder, settings, entries, decisions, input_samples, reply, tuple(recovered))


def read_entries(folder: Path) -> Iterator[Entry]:
    """Yield the entries of a session's event log; raise `InputError` for a damaged line."""
    before = 0
    for number, line in whole_lines(folder / EVENT_LOG):
        try:
            entry = entry_from_json(line.decode(errors="replace"))
        except ValueError as error:
            raise InputError(f"{printable(folder / EVENT_LOG)}: line {number} is not an entry: {error}") from error
        if entry.at_sample < before:
            raise InputError(f"{printable(folder / EVENT_LOG)}: line {number} goes back in time")
        before = entry.at_sample
        yield entry


def _is_cut(path: Path) -> bool:
    """Return whether a file ends within a line."""
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as stream:
        stream.seek(-1, 2)
        return stream.read(1) != b"\n"


def reply_bytes(decisions: Iterable[Decision], *, channel: int, program: int) -> bytes:
    """Return the answer as the bytes of a MIDI file."""
    return midi_bytes(note_events(decisions, channel=channel), programs={channel: program}, percussion=True)


@contextmanager
def session_folder(folder: Path) -> Iterator[None]:
    """Make a session folder for the block that fills it; remove it again if the block fails."""
    try:
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise InputError(f"the session folder {printable(folder)} is not empty; name a new one")
    except OSError as error:
        raise InputError(f"cannot make the session folder {printable(folder)}: {reason(error)}") from error
    try:
        yield
    except BaseException:
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def settings_json(settings: SessionSettings) -> str:
    """Return the text of a session's `SETTINGS`."""
    values = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    table = {"version": SESSION_VERSION, "musichal": __version__, **values, "partner": settings.partner.to_dict()}
    return json.dumps(table, indent=2, sort_keys=True) + "\n"


def read_settings(folder: Path) -> SessionSettings:
    """Return a session's settings; raise `InputError` if the folder is no session, or one of another version."""
    path = folder / SETTINGS
    if not path.is_file():
        raise InputError(f"{printable(folder)} is not a session: it has no {SETTINGS}")
    try:
        table: Any = parse_json(read_bytes(path), max_depth=8)
    except ValueError as error:
        raise InputError(f"{printable(path)} is damaged: {error}") from error
    if not isinstance(table, dict) or table.get("version") != SESSION_VERSION:
        raise InputError(f"{printable(folder)} is not a session of version {SESSION_VERSION}")
    values = {}
    for field in dataclasses.fields(SessionSettings):
        if field.name not in table and field.default is not dataclasses.MISSING:
            continue  # from before the setting was kept
        if field.name not in table:
            raise InputError(f"{printable(path)} is not a session's: it lacks {field.name!r}")
        values[field.name] = table[field.name]
        if type(values[field.name]) is not (dict if field.name == "partner" else field.type):
            raise InputError(f"{printable(path)}: {field.name} is of the wrong type")
    try:
        settings = SessionSettings(**{**values, "partner": PartnerSettings.from_dict(values["partner"])})
    except InputError as error:
        raise InputError(f"{printable(path)}: {error}") from error
    for name, inside in (
        ("seed", settings.seed >= 0),
        ("program", 0 <= settings.program <= 127),
        ("channel", 0 <= settings.channel <= 15 and settings.channel != PERCUSSION_CHANNEL),
        ("stream_rate_hz", settings.stream_rate_hz > 0),
        ("partner_path", len(settings.partner_path) > 0 and "\0" not in settings.partner_path),
        ("input_name", settings.input_name == printable(settings.input_name)),
    ):
        if not inside:
            raise InputError(f"{printable(path)}: {name} is out of range")
    return settings


@dataclass(frozen=True)
class Replay:
    """The result of a replay.

    `decided` decisions were made; `reply` is the answer as MIDI. `heard` percepts were heard again; those numbered `unlike`
    differ, and `onsets_unlike` onsets were not found again. The first `decisions_alike` decisions are those of the session.
    `missing` entries at the end of a killed session refer to sound that is not there.
    """

    decided: int
    reply: bytes
    heard: int
    unlike: tuple[int, ...]
    onsets_unlike: int
    decisions_alike: int
    missing: int


class _RecordedFrontEnd:
    """Runs resampler and onset detection again, up to a position; `to_the_end` also flushes them."""

    def __init__(self, listener: Listener, sound: Iterator[Float32], *, sample_rate_hz: int, to_the_end: bool) -> None:
        self._intake = listener.front_end
        self._rate_hz = sample_rate_hz
        self._sound = sound
        self._flushes = to_the_end
        self._windows: dict[int, Window] = {}
        self._skipped: set[int] = set()
        self._onsets: set[Onset] = set()
        known = listener.front_end.known
        self.exact = ExactNotes(beside=known is not None and known.beside)

    def know(self, entry: Entry) -> None:
        """Take what a MIDI player is known to have played; forget what was skipped."""
        if isinstance(entry, Struck):
            self.exact.strike(entry.onset.sample / self._rate_hz, entry.onset)
        elif isinstance(entry, Played):
            self.exact.end(entry.notes, entry.hits)
        elif isinstance(entry, Skipped):
            self._skipped.add(entry.index)
            self._windows.pop(entry.index, None)

    def window(self, index: int) -> Window | None:
        """Return window number `index`, and forget earlier ones; None if the sound ends before it is complete."""
        while index not in self._windows:
            if not self._advance():
                return None
        self._windows = {number: window for number, window in self._windows.items() if number >= index}
        return self._windows[index]

    def found(self, onset: Onset) -> bool:
        """Return whether an onset is found again; one of a MIDI player is known, not found."""
        if onset.pitches:
            return True
        while self._intake.samples_heard < onset.decided_at and self._advance():
            pass
        alike = onset in self._onsets
        self._onsets = {other for other in self._onsets if other.sample > onset.sample}
        return alike

    def _advance(self) -> bool:
        block = next(self._sound, None)
        if block is not None:
            taken = self._intake.push(block)
        elif self._flushes:
            self._flushes = False
            taken = self._intake.flush()
        else:
            return False
        self._windows.update((window.index, window) for window in taken.windows if window.index not in self._skipped)
        self._onsets.update(taken.onsets)
        return True

    def rest(self) -> int:
        """Run to the end, and return the length of the stream in samples of the clock."""
        while self._advance():
            pass
        return self._intake.samples_heard


@single_blas_thread()
def replay(
    session: Session,
    listener: Listener,
    partner: Player,
    *,
    sample_rate_hz: int,
    progress: Callable[[float], None] | None = None,
) -> Replay:
    """Play a session again.

    * `listener`, `partner`: As they were at the beginning of the performance.
    * `sample_rate_hz`: Of the clock: the spec's.
    * `progress`: Called with the share that has been replayed, 0 to 1.
    """
    end = session.entries[-1] if session.entries else None
    plays_out = isinstance(end, Ended) and end.plays_out
    rehearsal = _RecordedFrontEnd(listener, _blocks(session), sample_rate_hz=sample_rate_hz, to_the_end=plays_out)
    loop = EventLoop(partner, sample_rate_hz=sample_rate_hz)
    unlike: list[int] = []
    heard = onsets_unlike = missing = 0

    def decisions() -> Iterator[Decision]:
        nonlocal heard, onsets_unlike, missing
        last = 0
        for number, entry in enumerate(session.entries):
            rehearsal.know(entry)
            match entry:
                case Struck(at, onset):
                    onsets_unlike += not rehearsal.found(onset)
                    yield from loop.respond(onset, at)
                case Perceived(at, index, digest):
                    window = rehearsal.window(index)
                    if window is None:
                        missing = len(session.entries) - number
                        break
                    percept = listener.step(window)
                    percept = dataclasses.replace(percept, heard=rehearsal.exact.put_in(percept.heard))
                    heard += 1
                    if percept_digest(percept) != digest:
                        unlike.append(index)
                    yield from loop.respond(percept, at)
                case Changed(at, changes):
                    yield from loop.respond(changes, at)
                case Ended(at):
                    yield from loop.until(at)
                case _:
                    pass
            last = entry.at_sample
            if progress is not None and number % 64 == 0:
                progress(number / len(session.entries))
        if not isinstance(end, Ended):
            # Killed: what was decided after the last entry depends on how far the clock had come, and a little ahead of it.
            latest_s = session.decisions[-1].time_s if session.decisions else 0.0
            yield from loop.until(max(last, rehearsal.rest(), math.floor(latest_s * sample_rate_hz) + 1))

    decided = alike = 0

    def compared() -> Iterator[Decision]:
        nonlocal decided, alike
        kept = iter(session.decisions)
        for ours in decisions():
            theirs = next(kept, None) if alike == decided else None
            alike += theirs is not None and ours.to_json() == theirs.to_json()
            decided += 1
            yield ours

    sounded = as_sounded(compared(), session.entries, sample_rate_hz=sample_rate_hz)
    reply = reply_bytes(sounded, channel=session.settings.channel, program=session.settings.program)
    return Replay(decided, reply, heard, tuple(unlike), onsets_unlike, alike, missing)


def _blocks(session: Session) -> Iterator[Float32]:
    for chunk in session.sound():
        for first in range(0, chunk.shape[0], _BLOCK_SAMPLES):
            yield chunk[first : first + _BLOCK_SAMPLES]
