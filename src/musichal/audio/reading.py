"""Recordings in files and folders, read with a word on all that is not heard."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from musichal.audio.midi_take import MidiChoice
from musichal.audio.recording import FoundFiles, Recording, find_recordings, read_recording
from musichal.errors import InputError
from musichal.text import PathLike, counted, printable

_MOST_KINDS = 8


def read_recordings(
    paths: Sequence[PathLike],
    *,
    warn: Callable[[str], None],
    min_duration_s: float = 0.0,
    strict: bool = False,
    midi: MidiChoice = MidiChoice(),  # noqa: B008 - frozen
    progress: Callable[[str, float], None] | None = None,
) -> list[Recording]:
    """Read files and folders of recordings, and say what is wrong with them; raises as `read_found` does."""
    found = find_recordings(paths)
    heard = read_found(found, warn=warn, min_duration_s=min_duration_s, strict=strict, midi=midi, progress=progress)
    return list(heard.values())


def read_found(
    found: FoundFiles,
    *,
    warn: Callable[[str], None],
    min_duration_s: float = 0.0,
    strict: bool = False,
    midi: MidiChoice = MidiChoice(),  # noqa: B008 - frozen
    progress: Callable[[str, float], None] | None = None,
) -> Mapping[Path, Recording]:
    """Read recordings, and say what is wrong with them, and what of folders was passed over.

    A file of a folder that cannot be heard is left out, with a warning that names all such. Raises `InputError` with all
    names where it is one that was named itself, or all cannot be heard, or any where `strict`.
    """
    tell = progress or (lambda _what, _share: None)
    heard: dict[Path, Recording] = {}
    bad: dict[Path, str] = {}
    for number, file in enumerate(found.files):
        name = printable(file.name)

        def tell_part(share: float, *, name: str = name, number: int = number) -> None:
            tell(f"Reading {name}", (number + share) / len(found.files))

        try:
            heard[file] = read_recording(file, min_duration_s=min_duration_s, strict=strict, midi=midi, progress=tell_part)
        except InputError as error:
            bad[file] = str(error)
    if bad and (strict or not heard or any(file in found.named for file in bad)):
        raise InputError("; ".join(bad.values()))
    if bad:
        warn(f"left out {counted(len(bad), 'file')}: {'; '.join(bad.values())}")
    say_passed_over(found.passed_over, warn)
    for recording in heard.values():
        for warning in recording.warnings:
            warn(f"{recording.name}: {warning}")
    return heard


def say_passed_over(passed_over: Mapping[str, int], warn: Callable[[str], None]) -> None:
    """Say how many files of which kinds were passed over."""
    if passed := sum(passed_over.values()):
        kinds = sorted(passed_over, key=lambda suffix: (-passed_over[suffix], suffix))
        names = ", ".join(printable(kind) or "without suffix" for kind in kinds[:_MOST_KINDS])
        more = " …" if len(kinds) > _MOST_KINDS else ""
        warn(f"passed over {counted(passed, 'file')} that are no recordings by their names: {names}{more}")
