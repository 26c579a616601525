"""Notices that the file of the partner that plays was replaced."""

import contextlib
from pathlib import Path

from musichal.errors import InputError
from musichal.live.session.session import file_sha256
from musichal.machine import now_s
from musichal.text import printable

_LOOK_S = 1.0


class PartnerWatch:
    """Notices that the partner's file was replaced; what plays stays what was loaded."""

    def __init__(self, path: Path, digest: str) -> None:
        self._path, self._digest = path, digest
        self._stamp, self._next_s = self._look(), 0.0
        self.replaced: str | None = None

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def news(self) -> str | None:
        """Return a sentence if the file was just replaced."""
        if now_s() < self._next_s:
            return None
        self._next_s = now_s() + _LOOK_S
        before, self._stamp = self._stamp, self._look()
        if self._stamp is None and before is not None:
            return f"{printable(self._path)} was moved or removed: what plays is what was loaded; `replay` asks for it again"
        if self._stamp is None or self._stamp == before:
            return None
        with contextlib.suppress(InputError):
            found = file_sha256(self._path)
            if found != self._digest:
                self.replaced = found
                return (
                    f"{printable(self._path)} was replaced while playing (SHA-256 now {found[:12]}…):"
                    f" what plays is what was loaded ({self._digest[:12]}…)"
                )
        return None
