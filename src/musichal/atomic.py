"""Files that appear whole or not at all.

A file is written under another name in the same folder (``.NAME.XXXX.partial``), synced to the disk, and only then
renamed over the old one. Whatever goes wrong before that, Ctrl-C included, leaves the old file as it was.
"""

import contextlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from musichal.errors import InputError
from musichal.text import PathLike, printable, reason


@contextmanager
def open_atomically(path: PathLike) -> Iterator[BinaryIO]:
    """Open `path` for binary writing; the file appears, complete, when the block ends without an exception.

    A link is followed, and permissions of a replaced file are kept. Raises `InputError` naming the path and the reason
    where the system refuses to write; other exceptions of the block pass through. Either way nothing is left behind and
    an old file stays as it was.
    """
    target, partial = Path(path), None
    try:
        target = _target(path)
        partial = _partial(target)
        try:
            with partial.open("xb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            if target.exists():
                partial.chmod(stat.S_IMODE(target.stat().st_mode))
            partial.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise
    except OSError as error:
        if error.filename is not None and not _names(error.filename, target, partial):
            raise  # the block failed to open some other file: not for us to explain
        raise _cannot_write(path, reason(error)) from error
    _sync_folder(target.parent)


def write_atomically(path: PathLike, write: Callable[[BinaryIO], None]) -> None:
    """Let `write` fill a binary stream and put the result at `path`, whole or not at all: see `open_atomically`."""
    with open_atomically(path) as stream:
        write(stream)


def check_writable(path: PathLike) -> None:
    """Raise now the `InputError` that writing to `path` would raise after minutes of work; leaves nothing behind."""
    try:
        partial = _partial(_target(path))
        try:
            partial.open("xb").close()
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise _cannot_write(path, reason(error)) from error


def _cannot_write(path: PathLike, why: str) -> InputError:
    return InputError(f"cannot write {printable(path)}: {why}")


def _target(path: PathLike) -> Path:
    """Return where `path` really leads; raises `InputError` or `OSError` where no file can be put."""
    target = Path(os.path.realpath(path))
    try:
        mode = target.stat().st_mode  # also finds names that are too long, before the work
    except FileNotFoundError:
        if not target.parent.is_dir():
            raise _cannot_write(path, f"the folder {printable(target.parent)} does not exist") from None
        return target
    if stat.S_ISDIR(mode):
        raise _cannot_write(path, "it is a folder")
    if not stat.S_ISREG(mode):
        raise _cannot_write(path, "it is not an ordinary file")  # renaming over /dev/null would break the machine
    if not os.access(target, os.W_OK):
        raise _cannot_write(path, "permission denied")  # a rename would get round the protection
    return target


def _partial(target: Path) -> Path:
    # 40 characters of up to 4 bytes keep the name under the 255 bytes of common file systems.
    return target.with_name(f".{target.name[:40]}.{secrets.token_hex(8)}.partial")


def _names(filename: object, target: Path, partial: Path | None) -> bool:
    return filename in {str(path) for path in (target, partial) if path is not None}


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut, where the system can (not on Windows or some network disks)."""
    if os.name == "nt":
        return
    with contextlib.suppress(OSError):  # the file is complete and in place: too late to call it a failure
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
