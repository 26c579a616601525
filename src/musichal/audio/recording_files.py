"""Which files are recordings: those that are named, and what of folders is sound or MIDI by its name.

What a file holds is found by `musichal.audio.recording`, which reads it.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from musichal.audio.decoding import FOREIGN_SUFFIXES
from musichal.audio.session_input import is_session
from musichal.errors import InputError
from musichal.text import PathLike, counted, printable, reason

AUDIO_SUFFIXES = FOREIGN_SUFFIXES.union(
    (".8svx", ".aif", ".aifc", ".aiff", ".au", ".avr", ".bw64", ".bwf", ".caf", ".flac", ".ircam", ".mp2", ".mp3", ".mpga"),
    (".nist", ".oga", ".ogg", ".opus", ".paf", ".pvf", ".rf64", ".snd", ".sph", ".voc", ".w64", ".wav", ".wave"),
)
MIDI_SUFFIXES = frozenset((".mid", ".midi", ".smf", ".rmi", ".kar"))
"""What is taken from a folder. A file that is named is read whatever its suffix."""
WORK_MARKER = "musichal-work.json"
"""A folder with it is a work folder of training (see `musichal.training.archive`): no recordings of a user."""
_SOUND_HEADS = (b"RIFF", b"FORM", b"OggS", b"fLaC")
FORMATS = "WAV, AIFF, FLAC, OGG, MP3, CAF or AU"
_MOST_KINDS = 8


@dataclass(frozen=True)
class FoundFiles:
    """Sound files that were found: `named` ones were given themselves; of folders, `passed_over` counts the rest by suffix."""

    files: tuple[Path, ...] = ()
    named: frozenset[Path] = frozenset()
    passed_over: Mapping[str, int] = field(default_factory=dict)


def find_recordings(paths: Iterable[PathLike]) -> FoundFiles:
    """Return the sound files that `paths` name: files as given, folders searched, in a fixed order.

    Folders are searched to any depth, sorted by name, for known suffixes; hidden files and folders are passed over, as are
    work folders of training, and links to folders not followed. The folder of a session is one recording: what its player
    played. A file reached twice is taken once, at its first place. Raises `InputError` where nothing was given, a path does
    not exist, or a folder holds no recording.
    """
    found: dict[Path, Path] = {}
    named: set[Path] = set()
    passed_over: Counter[str] = Counter()
    for given in paths:
        path = Path(given)
        try:
            if path.is_dir() and is_session(path):
                files = [path if path.name else path.resolve()]
                named.update(files)
            elif path.is_dir():
                files = _search(path, passed_over)
                if not files:
                    raise InputError(f"{printable(path)}: the folder holds no recording ({FORMATS})")
            elif path.exists():
                files = [path]
                named.add(path)
            else:
                raise InputError(f"{printable(path)}: no such file or folder")
            for file in files:
                found.setdefault(Path(os.path.realpath(file)), file)  # which takes links that lead in a circle, too
        except OSError as error:
            raise InputError(f"{printable(path)}: {reason(error)}") from error
    if not found:
        raise InputError("no recording was given")
    return FoundFiles(tuple(found.values()), frozenset(named), passed_over)


def is_midi(file: Path) -> bool:
    """Return whether a file is a MIDI file: by its first bytes, and by its suffix where these are no sound's."""
    head = b""
    with contextlib.suppress(OSError):
        if file.exists() and not file.is_file():
            return False  # a pipe may wait for ever
        with file.open("rb") as stream:
            head = stream.read(12)
    if head[:4] == b"MThd" or (head[:4] == b"RIFF" and head[8:] == b"RMID"):
        return True
    return file.suffix.lower() in MIDI_SUFFIXES and head[:4] not in _SOUND_HEADS


def _search(folder: Path, passed_over: Counter[str]) -> list[Path]:
    files: list[Path] = []

    def stop(error: OSError) -> None:
        raise error

    for parent, folders, names in os.walk(folder, onerror=stop):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        sessions = [name for name in folders if is_session(Path(parent, name))]
        files += [Path(parent, name) for name in sessions]
        folders[:] = [name for name in folders if name not in sessions and not Path(parent, name, WORK_MARKER).exists()]
        for name in names:
            suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
            if suffix in AUDIO_SUFFIXES | MIDI_SUFFIXES and not name.startswith("."):
                files.append(Path(parent, name))
            elif not name.startswith("."):
                passed_over[suffix] += 1
    return sorted(files, key=lambda file: file.relative_to(folder).parts)


def say_passed_over(passed_over: Mapping[str, int], warn: Callable[[str], None]) -> None:
    """Say how many files of which kinds were passed over."""
    if passed := sum(passed_over.values()):
        kinds = sorted(passed_over, key=lambda suffix: (-passed_over[suffix], suffix))
        names = ", ".join(printable(kind) or "without suffix" for kind in kinds[:_MOST_KINDS])
        more = " …" if len(kinds) > _MOST_KINDS else ""
        warn(f"passed over {counted(passed, 'file')} that are no recordings by their names: {names}{more}")
