"""What a command is about to write, checked before the work."""

import os
from collections.abc import Iterable
from pathlib import Path

from musichal.atomic import check_writable
from musichal.errors import InputError
from musichal.text import printable


def check_outputs(outputs: Iterable[Path], *, inputs: Iterable[Path]) -> None:
    """Raise `InputError` where an output cannot be written, is named twice, or would replace what the command reads."""
    read = {os.path.realpath(path) for path in inputs}
    seen: set[str] = set()
    for path in outputs:
        real = os.path.realpath(path)
        if real in read:
            raise InputError(f"cannot write {printable(path)}: it is read by this command")
        if real in seen:
            raise InputError(f"cannot write {printable(path)}: two outputs have this name")
        seen.add(real)
        check_writable(path)
