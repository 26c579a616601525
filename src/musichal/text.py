"""Small texts: names and times as a person reads and writes them, and the one reader each of TOML and JSON.

Every message of the package is made with these, so that one thing is written in one way everywhere.
"""

import difflib
import errno
import json
import math
import os
import re
import stat
import tomllib
from collections.abc import Iterable, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import unquote_to_bytes

from musichal.errors import InputError

PathLike = str | os.PathLike[str]

LARGEST_TABLE_BYTES = 1_000_000
"""A TOML file may be this large."""
_MOST_NAMES = 12
_PITCH_CLASSES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
_UNITS_S = {"ms": 0.001, "s": 1.0, "": 1.0, "min": 60.0, "h": 3600.0}
_NUMBER = r"(\d{1,9}(?:\.\d{1,9})?)"
_JSON_PARTS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)
_REASONS = {
    errno.ENOENT: "no such file or folder",
    errno.ENOTDIR: "part of the path is not a folder",
    errno.EISDIR: "it is a folder",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the disk is read-only",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than the system allows",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "its links go round in a circle",
    errno.EPIPE: "nobody reads it any more",
    errno.EIO: "the disk reports an error",
}


# What moves the cursor, ends a line, is half a character, or turns the direction of what follows. Spaces and joiners of every
# script are part of a name, and what a version of Unicode does not know yet is in one that comes from elsewhere.
_IMPROPER = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(path: PathLike) -> str:
    """Return `path` as text for one line of any terminal: controls and undecodable bytes escaped, all else as it is."""
    return _IMPROPER.sub(lambda found: found[0].encode("unicode_escape").decode(), os.fspath(path))


def path_text(path: PathLike) -> str:
    """Return an absolute path as text in UTF-8: itself, or a file URI where it has bytes that are none."""
    text = os.fspath(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        return Path(text).as_uri()
    return text


def text_path(text: str) -> Path:
    """Return the path of a `path_text`."""
    if text.startswith("file://"):
        return Path(os.fsdecode(unquote_to_bytes(text.removeprefix("file://"))))
    return Path(text)


def shortened(name: str) -> str:
    """Return a name cut to 200 bytes in UTF-8, so that something fits behind it."""
    return os.fsencode(name)[:200].decode(errors="ignore") if len(os.fsencode(name)) > 200 else name


def reason(error: OSError) -> str:
    """Return in plain words why the system refused."""
    return _REASONS.get(error.errno or 0) or error.strerror or str(error) or type(error).__name__


def counted(number: int, noun: str) -> str:
    """Return "1 note", "2 notes"."""
    return f"{number} {noun}{'s' * (number != 1)}"


def pitch_name(pitch: int) -> str:
    """Return the name of a MIDI pitch; 60 is C4."""
    return f"{_PITCH_CLASSES[pitch % 12]}{pitch // 12 - 1}"


def clock(seconds: float, *, decimals: int = 2) -> str:
    """Return minutes:seconds, as 1:02.50."""
    whole, part = divmod(round(seconds * 10**decimals), 10**decimals)
    return f"{whole // 60}:{whole % 60:02d}" + (f".{part:0{decimals}d}" if decimals else "")


def parse_seconds(text: str, what: str) -> float:
    """Return a time in seconds: 350ms, 0.35s, 10min, 2h, 83, 1:23.5 or 1:02:03.

    Raises `InputError` for anything else; `what` names the option or key that the text was given for.
    """
    text = text.strip()
    if match := re.fullmatch(_NUMBER + r"\s*(ms|s|min|h|)", text, re.ASCII):
        return float(match[1]) * _UNITS_S[match[2]]
    match = re.fullmatch(r"(?:(\d{1,3}):)?(\d{1,4}):([0-5]?\d(?:\.\d{1,6})?)", text, re.ASCII)
    if match is None or (match[1] is not None and int(match[2]) > 59):
        raise InputError(f"{what} must be a time such as 350ms, 10s, 2min or 1:23.5, got {printable(text)!r}")
    return 3600 * int(match[1] or 0) + 60 * int(match[2]) + float(match[3])


def unknown_name(kind: str, name: object, valid: Iterable[str], *, hint: str = "", where: str = "") -> InputError:
    """Return the error for a name that does not exist: it lists the valid names, of many the nearest.

    `hint` says where to find all, `where` in which file.
    """
    names = list(valid)
    given = printable(name) if isinstance(name, str) else name
    if len(names) > _MOST_NAMES and isinstance(name, str):
        nearest = difflib.get_close_matches(name, names, n=5, cutoff=0.5)
        listed = f"{', '.join(nearest or names[:5])}, … ({len(names)} in all{hint and f'; {hint}'})"
    else:
        listed = f"{', '.join(names)}{hint and f' ({hint})'}"
    return InputError(f"{where and f'{where}: '}unknown {kind} {given!r}. Valid {kind}s: {listed}")


def open_file(path: PathLike) -> BufferedReader:
    """Open a file to read it, or what a shell passes as one; raises `OSError` for other pipes and devices, which may wait."""
    mode, target = os.stat(path).st_mode, os.path.realpath(path)  # noqa: PTH116 - a path of any kind
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or target == os.devnull or target.startswith("/proc/")):
        raise OSError(errno.ESPIPE, "it is not an ordinary file")
    return open(path, "rb")  # noqa: PTH123 - a path of any kind


def read_text(path: PathLike, *, limit: int = LARGEST_TABLE_BYTES) -> str:
    """Return the text of a small file in UTF-8, or in UTF-16 with a byte order mark, with lines that end in a line feed.

    Raises `InputError` if the file cannot be read, has more than `limit` bytes, or another encoding.
    """
    try:
        with open_file(path) as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise InputError(f"cannot read {printable(path)}: {reason(error)}") from error
    if len(data) > limit:
        raise InputError(f"{printable(path)} is too large: more than {limit} bytes")
    try:
        return decoded(data)
    except InputError as error:
        raise InputError(f"{printable(path)} {error}") from error


def decoded(data: bytes) -> str:
    """Return bytes as `read_text` does; raises `InputError` saying what they are instead, such as "is text in UTF-32; …"."""
    name, encoding = ("UTF-16", "utf-16") if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ("UTF-8", "utf-8-sig")
    if data[:4] in (b"\xff\xfe\0\0", b"\0\0\xfe\xff"):
        raise InputError("is text in UTF-32; save it as UTF-8")
    if name == "UTF-8" and b"\0" in data:
        raise InputError("is not text in UTF-8: it has bytes of zero, as UTF-16 without its mark; save it as UTF-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(f"is not text in {name}; save it as UTF-8") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_toml(text: str, *, source: str) -> dict[str, Any]:
    """Return the table of a TOML text; raises `InputError` naming `source` and the line where it is not valid."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{source} is not valid TOML: {printable(str(error))}") from error
    except RecursionError as error:
        raise InputError(f"{source} is not valid TOML: too many nested brackets") from error


def read_toml(path: PathLike) -> dict[str, Any]:
    """Return the table of a TOML file; raises `InputError` as `read_text` and `parse_toml` do."""
    return parse_toml(read_text(path), source=printable(path))


def parse_json(data: bytes, *, max_depth: int) -> Any:
    """Parse JSON strictly: UTF-8, each key once, finite numbers, at most `max_depth` levels, text that can be written.

    Raises `ValueError` for anything else (RFC 8259 leaves all of these to the reader).
    """
    text = data.decode("utf-8")
    depth = 0
    for part in _JSON_PARTS.finditer(text):  # before the parser, whose own limit is the stack
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(part[0], 0)
        if depth > max_depth:
            raise ValueError(f"more than {max_depth} levels")
    value = json.loads(text, object_pairs_hook=_once, parse_constant=_not_finite, parse_float=_finite)
    json.dumps(value, ensure_ascii=False).encode("utf-8")  # refuses half surrogates, which no terminal can print
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key twice")
    return values


def _not_finite(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a finite number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _not_finite(text)


# ── the values of a table ────────────────────────────────────────────────────


def check_keys(table: Mapping[str, Any], valid: Iterable[str], where: str) -> None:
    """Raise `InputError` for a key that is none of the valid ones; `where` names the table."""
    names = tuple(valid)
    for key in table:
        if key not in names:
            raise unknown_name("key", key, names, where=where)


def number_in(value: object, low: float, high: float, where: str) -> float:
    """Return a number of a table; raises `InputError` if it is none, or not in [`low`, `high`]."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:  # not so for NaN either
        raise InputError(f"{where} must be in [{low:g}, {high:g}], got {value!r}")
    return float(value)


def integer_in(value: object, low: int, high: int, where: str) -> int:
    """Return an integer of a table; raises `InputError` if it is none, or not in [`low`, `high`]."""
    if type(value) is not int or not low <= value <= high:
        raise InputError(f"{where} must be an integer in [{low}, {high}], got {value!r}")
    return value


def text_in(value: object, where: str) -> str:
    """Return a text of a table; raises `InputError` if it is none."""
    if not isinstance(value, str):
        raise InputError(f"{where} must be text, got {value!r}")
    return value
