"""Session folders: what a performance was, complete enough to play it again byte for byte.

A session holds ``settings.json`` (what was asked for, and which partner), ``input.flac`` (the player, exactly as heard),
``percepts.safetensors`` (what was heard), ``decisions.jsonl`` (one decision a line), ``drift.jsonl`` (alarms about the
input, see `musichal.stage.drift`) and ``reply.mid``. The partner itself is named by its path and its SHA-256.
"""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from musichal import __version__
from musichal.arrays import Float32
from musichal.atomic import open_atomically, printable, reason
from musichal.audio.flac import decode_flac, encode_flac
from musichal.errors import InputError
from musichal.memory.container import pack_arrays, parse_json
from musichal.partner.decision import Decision
from musichal.partner.settings import PartnerSettings
from musichal.stage.events import PERCUSSION_CHANNEL
from musichal.stage.midi_file import midi_bytes
from musichal.stage.performance import Performance, note_events
from musichal.stage.recorded_input import read_chunks

SESSION_VERSION = 1
"""Of a performance offline, which is written once it is over."""
LIVE_VERSION = 2
"""Of one that was played live: see `musichal.stage.live_session`."""
SETTINGS, INPUT, PERCEPTS, DECISIONS, DRIFT, REPLY = (
    "settings.json",
    "input.flac",
    "percepts.safetensors",
    "decisions.jsonl",
    "drift.jsonl",
    "reply.mid",
)
SESSION_FILES = (SETTINGS, INPUT, PERCEPTS, DECISIONS, DRIFT, REPLY)
_LONGEST_INPUT_SAMPLES = 4 * 3600 * 192_000


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


def reply_bytes(decisions: Sequence[Decision], *, channel: int, program: int) -> bytes:
    """Return the answer as the bytes of a MIDI file."""
    return midi_bytes(note_events(decisions, channel=channel), programs={channel: program})


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file; InputError where it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {printable(path)}: {reason(error)}") from error


@contextmanager
def session_folder(folder: Path) -> Iterator[None]:
    """Make a session's folder for the block that will fill it; if the block fails, a folder made here goes again.

    Raises `InputError` where there is something in it already, or it cannot be made.
    """
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


def write_session(folder: Path, settings: SessionSettings, samples: Float32, performance: Performance) -> None:
    """Write a performance into a `session_folder`, all of it or nothing; settings come last.

    A folder without settings is not a session, so that not even a power cut leaves something that can be taken for one.
    """
    heard = performance.heard
    lines = "".join(decision.to_json() + "\n" for decision in performance.decisions)
    alarms = "".join(report.to_json() + "\n" for report in performance.drift)
    reply = reply_bytes(performance.decisions, channel=settings.channel, program=settings.program)
    arrays = {name: getattr(heard, name) for name in ("tokens", "frame_samples", "level_db", "chroma", "onset_samples")}
    written: list[Path] = []
    try:
        for name, data in (
            (INPUT, encode_flac(samples, settings.sample_rate_hz)),
            (PERCEPTS, pack_arrays(arrays)),
            (DECISIONS, lines.encode()),
            (DRIFT, alarms.encode()),
            (REPLY, reply),
            (SETTINGS, settings_json(settings, version=SESSION_VERSION).encode()),
        ):
            written.append(folder / name)
            with open_atomically(folder / name) as stream:
                stream.write(data)
    except BaseException:
        for path in reversed(written):
            with contextlib.suppress(OSError):
                path.unlink()
        raise


def read_session(folder: Path) -> tuple[SessionSettings, Float32, bytes]:
    """Return a session's settings, the player's samples and the answer's MIDI bytes.

    Raises
    ------
    InputError
        If the folder is no session, or one that this MusicHal cannot read.
    """
    table = _read_settings(folder)
    settings = _settings_from(folder, table)
    return settings, read_input(folder), _read_reply(folder)


def read_input(folder: Path) -> Float32:
    """Return what the player of a session played, mono or (n, channels); raises `InputError` where it cannot be read."""
    table = _read_settings(folder)
    settings = _settings_from(folder, table)
    if table["version"] == LIVE_VERSION:
        return _live_input(folder, settings)
    try:
        samples, rate = decode_flac(_read(folder / INPUT), max_samples=_LONGEST_INPUT_SAMPLES)
    except InputError as error:
        raise InputError(f"{printable(folder / INPUT)}: {error}") from error
    if rate != settings.sample_rate_hz:
        raise InputError(f"{printable(folder / INPUT)} has another sample rate than the session")
    return samples


def _live_input(folder: Path, settings: SessionSettings) -> Float32:
    chunks, length = [np.zeros(0, dtype=np.float32)], 0
    for chunk in read_chunks(folder, settings.sample_rate_hz):
        chunks.append(chunk)
        length += chunk.shape[0]
        if length > _LONGEST_INPUT_SAMPLES:
            raise InputError(f"{printable(folder)} holds more than four hours of sound: too much to read at once")
    if not length:
        raise InputError(f"{printable(folder)} holds no sound")
    return np.concatenate(chunks)


def _read_reply(folder: Path) -> bytes:
    if not (folder / REPLY).is_file():
        raise InputError(f"{printable(folder)} has no {REPLY}: MusicHal was killed while it played; `musichal replay` makes it")
    return _read(folder / REPLY)


def read_settings(folder: Path) -> tuple[SessionSettings, int]:
    """Return a session's settings and the version of its format; raises `InputError` for what is no session."""
    table = _read_settings(folder)
    return _settings_from(folder, table), table["version"]


def settings_json(settings: SessionSettings, *, version: int) -> str:
    """Return the text of a session's `SETTINGS`."""
    table = {
        "version": version,
        "musichal": __version__,
        **{f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)},
        "partner": settings.partner.to_dict(),
    }
    return json.dumps(table, indent=2, sort_keys=True) + "\n"


def _settings_from(folder: Path, table: dict[str, Any]) -> SessionSettings:
    try:
        values = {f.name: table[f.name] for f in dataclasses.fields(SessionSettings)}
        for field in dataclasses.fields(SessionSettings):
            expected = dict if field.name == "partner" else field.type
            if type(values[field.name]) is not expected:
                raise InputError(f"{printable(folder / SETTINGS)}: {field.name} is of the wrong type")
        values["partner"] = PartnerSettings.from_dict(values["partner"])
        settings = SessionSettings(**values)
    except KeyError as error:
        raise InputError(f"{printable(folder / SETTINGS)} is not a session's: it lacks {error}") from error
    for name, inside in (
        ("seed", settings.seed >= 0),
        ("program", 0 <= settings.program <= 127),
        ("channel", 0 <= settings.channel <= 15 and settings.channel != PERCUSSION_CHANNEL),
        ("partner_path", settings.partner_path == printable(settings.partner_path)),
        ("input_name", settings.input_name == printable(settings.input_name)),
    ):
        if not inside:
            raise InputError(f"{printable(folder / SETTINGS)}: {name} is out of range")
    return settings


def read_decisions(folder: Path) -> list[Decision]:
    """Return a session's decisions; raises `InputError` for a line that is none."""
    decisions = []
    for number, line in enumerate(_read(folder / DECISIONS).decode(errors="replace").splitlines(), start=1):
        try:
            decisions.append(Decision.from_json(line))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{printable(folder / DECISIONS)}: line {number} is not a decision") from error
    return decisions


def _read_settings(folder: Path) -> dict[str, Any]:
    if not (folder / SETTINGS).is_file():
        raise InputError(f"{printable(folder)} is not a session: it has no {SETTINGS}")
    try:
        table = parse_json(_read(folder / SETTINGS), max_depth=8)
    except ValueError as error:
        raise InputError(f"{printable(folder / SETTINGS)} is damaged: {error}") from error
    if not isinstance(table, dict) or table.get("version") not in (SESSION_VERSION, LIVE_VERSION):
        raise InputError(f"{printable(folder)} is not a session of version {SESSION_VERSION} or {LIVE_VERSION}")
    return table


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {printable(path)}: {reason(error)}") from error
