"""Files that are written completely or not at all.

A file is written under another name in the same folder (``.NAME.XXXX.partial``), synced to disk and then renamed. An error
or interruption before that leaves an old file unchanged.
"""

import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from musichal.errors import InputError
from musichal.text import PathLike, printable, reason


@contextmanager
def open_atomically(path: PathLike) -> Iterator[BinaryIO]:
    """Open `path` for binary writing; the file appears when the block ends without an exception.

    Links are followed; a replaced file keeps its permissions. After an exception nothing is left behind, and an old file is
    unchanged. Raises `InputError` if the system refuses to write, with path and reason.
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
        if error.filename not in (None, str(target), str(partial)):
            raise  # the block failed to open another file
        raise _cannot_write(path, reason(error)) from error
    _sync_folder(target.parent)


def check_writable(path: PathLike) -> None:
    """Fail early: raise `InputError` if `path` is not writable. Creates no file."""
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
    """Return `path` with links resolved; raise `InputError` or `OSError` if no file can be there."""
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
        raise _cannot_write(path, "permission denied")  # a rename would ignore the file's protection
    return target


def _partial(target: Path) -> Path:
    # 40 characters of up to 4 bytes keep the name under the 255 bytes of common file systems.
    return target.with_name(f".{target.name[:40]}.{secrets.token_hex(8)}.partial")


def _sync_folder(folder: Path) -> None:
    """Make the rename survive a power cut, where the system supports it (not Windows, nor some network disks)."""
    if os.name == "nt":
        return
    with contextlib.suppress(OSError):  # the file is complete and in place
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder where there is none."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {printable(folder)}: {reason(error)}") from error


@contextmanager
def new_folder(path: PathLike) -> Iterator[Path]:
    """Give a folder to fill; it appears at `path`, whole, when the block ends without an exception, and else not at all.

    Raises `InputError` where `path` exists and is not an empty folder, or the system refuses.
    """
    target = Path(os.path.realpath(path))
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise _cannot_write(path, "it is not an empty folder; name a new one")
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = _partial(target)
        partial.mkdir()
    except OSError as error:
        raise _cannot_write(path, reason(error)) from error
    try:
        yield partial
        if target.exists():
            target.rmdir()
        partial.rename(target)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise _cannot_write(path, reason(error)) from error
        raise
