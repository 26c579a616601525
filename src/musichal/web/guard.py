"""What is let in: the token in the address, Host and Origin, headers that keep a browser from doing more, and dropped files.

A page of another site cannot read the token; a name that such a site points at this machine (DNS rebinding) is not the Host
that we answer to; a browser says by Origin which page opened a socket.

A page that drops a file gives a name and bytes, never a path. Files go into the folder that the command line names, or a fresh
one that is made for the first file, under names of which none exists yet.
"""

import hmac
import ipaddress
import json
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal
from urllib.parse import urlsplit

from musichal.text import counted, printable, reason

Role = Literal["player", "stage"]
LONGEST_PATH = 300
LONGEST_MOMENT_S = 20.0


@dataclass(frozen=True)
class Guard:
    """Lets requests in.

    * `tokens`: Of the page with controls, and of the one to look at.
    * `host`: The address that is listened on.
    """

    tokens: tuple[str, str]
    host: str
    port: int

    def role(self, token: str) -> Role | None:
        """Return what a token allows; None for a wrong one."""
        found: Role | None = None
        roles: tuple[tuple[str, Role], ...] = ((self.tokens[0], "player"), (self.tokens[1], "stage"))
        for known, role in roles:
            if hmac.compare_digest(known.encode(), token.encode(errors="replace")):
                found = role
        return found

    def knows_host(self, values: Sequence[str]) -> bool:
        """Return whether the Host headers are one that names this machine by its address, or as localhost."""
        if len(values) != 1:
            return False
        try:
            parts = urlsplit(f"//{values[0]}")
            name, port = parts.hostname or "", parts.port
        except ValueError:
            return False
        if port != self.port and not (port is None and self.port == 80):
            return False
        if name in ("localhost", self.host):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        # Beyond loopback this machine has addresses of its own; a name that someone else owns is none.
        return address.is_loopback or not ipaddress.ip_address(self.host).is_loopback

    def knows_origin(self, origins: Sequence[str], hosts: Sequence[str]) -> bool:
        """Return whether a socket was opened by our own page."""
        return len(origins) == 1 and len(hosts) == 1 and origins[0] == f"http://{hosts[0]}"


def page_headers(host: str) -> Mapping[str, str]:
    """Return the headers of every answer; `host` has been checked."""
    policy = (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self';"
        f" connect-src 'self' ws://{host}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
        "Cache-Control": "no-store",
    }


def byte_range(header: str | None, length: int) -> tuple[int, int] | None:
    """Return the first byte and the one behind the last that a Range header asks for; None where it asks for none we know."""
    if header is None or not header.startswith("bytes=") or "," in header:
        return None
    first, dash, last = header.removeprefix("bytes=").partition("-")
    if not dash or not (first.isdecimal() or (not first and last.isdecimal())) or not (not last or last.isdecimal()):
        return None
    if not first:
        return max(0, length - int(last)), length
    begin, end = int(first), min(length, int(last) + 1) if last else length
    return (begin, end) if begin < end else None


def wanted_stretch(query: Mapping[str, Sequence[str]]) -> tuple[float, float] | None:
    """Return the stretch that a query asks for, ``from`` one second ``to`` another; None where it asks for anything else."""
    try:
        start_s, end_s = (float(query[name][0]) for name in ("from", "to"))
    except (KeyError, ValueError):
        return None
    return (start_s, end_s) if 0 <= start_s < end_s < 1e6 else None


def wanted_moment(query: Mapping[str, Sequence[str]]) -> tuple[int, float, float] | None:
    """Return the stretch that a query asks for: number of the ``recording``, ``from`` which second, ``for`` how many.

    None where it asks for anything else.
    """
    try:
        which, start_s, length_s = (float(query[name][0]) for name in ("recording", "from", "for"))
    except (KeyError, ValueError):
        return None
    inside = -1 <= which < 1e6 and 0 <= start_s < 1e6 and 0 < length_s <= LONGEST_MOMENT_S  # not so for NaN
    return (int(which), start_s, length_s) if inside else None


# ── files that are dropped on the page ────────────────────────────────────────

LARGEST_FILE, LARGEST_SUM, SPARE = 1 << 30, 4 << 30, 1 << 30
MOST_FILES = 200
PART_BYTES = 1 << 17
"""A part of a file is at most so large; the page sends 64 kB."""
_LONGEST_STEM = 80
_UNSAFE = frozenset('<>:"/\\|?*')
_MOST_FOLDERS = 1000


class RefusedError(Exception):
    """Says in a sentence why a file is not taken."""


def safe_name(name: str, suffixes: Collection[str]) -> str:
    """Return the name under which a file is kept: no path, no sign that a system could take for one.

    Raises `RefusedError` for a kind of file that cannot be learned from.
    """
    last = printable(name).replace("\\", "/").rpartition("/")[2]
    stem, suffix = os.path.splitext(last)  # noqa: PTH122 - a name, not a path
    if suffix.lower() not in suffixes:
        raise RefusedError(f"{last[:60]!r} is neither a recording nor a MIDI file")
    stem = "".join("_" if c in _UNSAFE or not c.isprintable() else c for c in stem).strip(" .")[:_LONGEST_STEM]
    return (stem or "recording") + suffix.lower()


class Upload:
    """A file on its way in; `keep` makes it one of the folder's, `drop` leaves nothing."""

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.size, self.taken = path, size, 0
        self._partial = path.with_name(f".{path.name}.partial")
        self._stream: BinaryIO = self._partial.open("xb")

    def write(self, part: bytes) -> bool:
        """Write a part; return whether that was all."""
        self.taken += len(part)
        if self.taken > self.size:
            raise RefusedError("it is longer than it said")
        self._stream.write(part)
        return self.taken == self.size

    def keep(self) -> Path:
        """Give the file its name, or another where that has been taken in the meantime; return the path."""
        self._stream.close()
        for path in _names(self.path):
            try:
                path.touch(exist_ok=False)
            except FileExistsError:
                continue
            self._partial.replace(path)
            return path
        raise RefusedError("there are too many files of this name")

    def drop(self) -> None:
        """Remove what was written."""
        self._stream.close()
        self._partial.unlink(missing_ok=True)


class Intake:
    """Takes files.

    * `folder`: Where they go.
    * `is_fresh`: Whether a new folder is made, of this name or of one with a number.
    * `suffixes`: What can be learned from.
    """

    def __init__(self, folder: Path, *, is_fresh: bool, suffixes: Collection[str]) -> None:
        self._wanted, self._is_fresh, self._suffixes = folder, is_fresh, frozenset(suffixes)
        self._folder: Path | None = None
        self._sum = self._count = 0

    def begin(self, text: str | bytes) -> Upload:
        """Return the file that a page wants to send: ``{"name": …, "size": …}``. Raises `RefusedError`."""
        try:
            values: Any = json.loads(text) if isinstance(text, str) else None
        except (ValueError, RecursionError):
            values = None
        match values:
            case {"name": str(name), "size": int(size), **rest} if not rest and 0 < len(name) <= 1000:
                pass
            case _:
                raise RefusedError("a file has a name and a size")
        name = safe_name(name, self._suffixes)
        if not 0 < size <= LARGEST_FILE:
            raise RefusedError(f"{name} is empty" if size <= 0 else f"{name} is larger than {LARGEST_FILE >> 30} GB")
        if self._sum + size > LARGEST_SUM or self._count >= MOST_FILES:
            raise RefusedError(f"that is more than {counted(MOST_FILES, 'file')} or {LARGEST_SUM >> 30} GB in all")
        try:
            folder = self._made()
            if shutil.disk_usage(folder).free < size + SPARE:
                raise RefusedError("there is no room for it on the disk")
            upload = Upload(next(path for path in _names(folder / name) if not path.exists()), size)
        except FileExistsError as error:
            raise RefusedError(f"{name} is on its way already") from error
        except OSError as error:
            raise RefusedError(f"it cannot be written: {reason(error)}") from error
        self._sum += size
        self._count += 1
        return upload

    def drop(self, upload: Upload) -> None:
        """Forget a file that did not come whole."""
        upload.drop()
        self._sum -= upload.size
        self._count -= 1

    def _made(self) -> Path:
        if self._folder is None:
            if not self._is_fresh:
                self._wanted.mkdir(parents=True, exist_ok=True)
                self._folder = self._wanted
            else:
                for path in _names(self._wanted):
                    try:
                        path.mkdir(parents=True)
                    except FileExistsError:
                        continue
                    self._folder = path
                    break
                else:
                    raise RefusedError("there are too many folders of this name")
        return self._folder


def _names(path: Path) -> list[Path]:
    """Return a path, and others like it with a number."""
    return [path, *(path.with_name(f"{path.stem}-{number}{path.suffix}") for number in range(2, _MOST_FOLDERS))]
