"""Session folders: their names, and what a performance was asked to be. `session_log` has what is in them."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musichal import __version__
from musichal.errors import InputError
from musichal.live.output.midi_file import midi_bytes
from musichal.live.performance import note_events
from musichal.memory.container import parse_json
from musichal.note import PERCUSSION_CHANNEL
from musichal.partner.decision import Decision
from musichal.partner.settings import PartnerSettings
from musichal.text import printable, reason

SESSION_VERSION = 2
SETTINGS = "settings.json"


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


def read_settings(folder: Path) -> SessionSettings:
    """Return a session's settings; raises `InputError` for what is no session, or one that this MusicHal cannot read."""
    return _settings_from(folder, _read_settings(folder))


def settings_json(settings: SessionSettings) -> str:
    """Return the text of a session's `SETTINGS`."""
    table = {
        "version": SESSION_VERSION,
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
        try:
            values["partner"] = PartnerSettings.from_dict(values["partner"])
        except InputError as error:
            raise InputError(f"{printable(folder / SETTINGS)}: {error}") from error
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


def _read_settings(folder: Path) -> dict[str, Any]:
    if not (folder / SETTINGS).is_file():
        raise InputError(f"{printable(folder)} is not a session: it has no {SETTINGS}")
    try:
        table = parse_json(read_bytes(folder / SETTINGS), max_depth=8)
    except ValueError as error:
        raise InputError(f"{printable(folder / SETTINGS)} is damaged: {error}") from error
    if not isinstance(table, dict) or table.get("version") != SESSION_VERSION:
        raise InputError(f"{printable(folder)} is not a session of version {SESSION_VERSION}")
    return table


def read_bytes(path: Path) -> bytes:
    """Return what is in a file; `InputError` where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {printable(path)}: {reason(error)}") from error
