"""Files that are written: each has the format of its suffix, and replaces nothing that MusicHal did not write."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from musichal.atomic import check_writable
from musichal.audio.decoding import contents
from musichal.audio.files import SOUND_FORMATS
from musichal.audio.recording_files import AUDIO_SUFFIXES, MIDI_SUFFIXES
from musichal.errors import InputError
from musichal.memory.container import FORMAT, MANIFEST
from musichal.text import PathLike, printable

_MARK = b"MusicHal"
_READ_BYTES = 1 << 22


@dataclass(frozen=True)
class Kind:
    """A kind of file: what it is called, and the suffixes that mean it."""

    name: str
    suffixes: tuple[str, ...]


PARTNER = Kind("a partner", (".hal",))
MIDI = Kind("a MIDI file", (".mid", ".midi"))
SOUND = Kind("a recording", tuple(SOUND_FORMATS))
PICTURE = Kind("a picture", (".png", ".svg", ".pdf"))
REPORT = Kind("a report", (".html", ".htm"))
MAP = Kind("a map of controllers", (".toml",))
_OTHER_SUFFIXES = frozenset((".toml", ".txt", ".csv", ".json", ".sf2", ".sf3", ".jpg", ".jpeg", ".zip", ".py", ".md"))


def check_outputs(
    outputs: Iterable[tuple[PathLike | None, Kind]],
    *,
    inputs: Iterable[PathLike] = (),
    force: bool = False,
    remedy: str = "--force",
) -> list[Path]:
    """Return the paths that are given, checked before the work.

    Raises `InputError` where an output cannot be written, is named twice, would replace an input, has the suffix of another
    kind, or, unless `force`, would replace what MusicHal did not write. `remedy` is how the caller is told to force it.
    """
    read = {os.path.realpath(path) for path in inputs}
    checked: dict[str, Path] = {}
    for given, kind in outputs:
        if given is None:
            continue
        path, real = Path(given), os.path.realpath(given)
        if real in read:
            raise InputError(f"cannot write {printable(path)}: it is read by this command")
        if real in checked:
            raise InputError(f"cannot write {printable(path)}: two outputs have this name")
        _check_suffix(path, kind)
        check_writable(path)
        if not force and Path(real).is_file():
            _check_replaced(path, kind, remedy)
        checked[real] = path
    return list(checked.values())


def _check_suffix(path: Path, kind: Kind) -> None:
    suffix = path.suffix.lower()
    others = {s for other in (PARTNER, MIDI, SOUND, PICTURE, REPORT) for s in other.suffixes}
    strict = kind in (SOUND, PICTURE) and suffix  # their suffix says in which format to write
    if suffix not in kind.suffixes and (strict or suffix in others | AUDIO_SUFFIXES | MIDI_SUFFIXES | _OTHER_SUFFIXES):
        raise InputError(f"cannot write {printable(path)}: {kind.name} is a {' or '.join(kind.suffixes)} file")


def _check_replaced(path: Path, kind: Kind, remedy: str) -> None:
    """Refuse to replace a file of another kind, or one that lacks our mark."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_READ_BYTES)
            stream.seek(max(len(head), stream.seek(0, os.SEEK_END) - _READ_BYTES))
            tail = stream.read()
    except OSError:  # it may be written, but not read
        head, tail = b"?", b""
    if not head:
        return
    found = _kind_of(head)
    if found is not None and found != kind:
        what = f"it is {found.name}, not {kind.name}"
        raise InputError(f"cannot write {printable(path)}: {what}; give another name, or {remedy}")
    ours = FORMAT.encode() in head if kind is PARTNER else _MARK in head or _MARK in tail
    if found is None or not ours:
        raise InputError(
            f"cannot write {printable(path)}: MusicHal did not write what is there; give another name, or {remedy}"
        )


def _kind_of(head: bytes) -> Kind | None:
    if head[:4] == b"PK\3\4" and MANIFEST.encode() in head[:100]:
        return PARTNER
    if head[:4] == b"MThd" or (head[:4] == b"RIFF" and head[8:12] == b"RMID"):
        return MIDI
    if head[:8] == b"\x89PNG\r\n\x1a\n" or head[:5] == b"%PDF-" or b"<svg" in head[:1000]:
        return PICTURE
    if b"<html" in head[:1000].lower() or head[:15].lower() == b"<!doctype html>":
        return REPORT
    return None if contents(head) is None else SOUND
