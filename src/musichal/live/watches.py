"""What a player is told of while playing: losses of the input, and a partner file that was replaced."""

import contextlib
import math
from collections import deque
from collections.abc import Callable
from pathlib import Path

from musichal.errors import InputError
from musichal.live.session.session import file_sha256
from musichal.machine import now_s
from musichal.text import counted, printable

_LOOK_S = 1.0
_WINDOW_S = 60.0
_JOINS_S = 0.5  # what is lost within so long is told together
_WHOLE_S = 0.5  # a longer gap is told by itself: the input was away


class Losses:
    """Collects losses; tells them through `tell` (a kind and a sentence) once a minute at most, and when they are over.

    `block`: frames in a block of the input.
    """

    def __init__(self, tell: Callable[[str, str], None], *, block: int) -> None:
        self._tell, self._block = tell, block
        self._lost: deque[tuple[float, float]] = deque()
        self._first_s: float | None = None
        self._told_s = -math.inf

    @property
    def stand(self) -> bool:
        """Whether losses were told and are not over."""
        return self._told_s > -math.inf

    def add(self, now_s: float, lost_s: float, *, left_out: bool = False) -> None:
        """Take a loss at a time of the machine."""
        if lost_s >= _WHOLE_S or left_out:
            self._tell("lost", f"{lost_s:.3g} s of the input were lost" + (" and left out" if left_out else ""))
            return
        self._lost.append((now_s, lost_s))
        self._first_s = now_s if self._first_s is None else self._first_s

    def step(self, now_s: float) -> None:
        """Tell what is due, at most once a minute."""
        while self._lost and now_s - self._lost[0][0] > _WINDOW_S:
            self._lost.popleft()
        if self.stand and not self._lost:
            self._told_s = -math.inf
            self._tell("lost-over", "no more of the input is lost")
        if self._first_s is None or now_s - self._first_s < _JOINS_S or now_s - self._told_s < _WINDOW_S:
            return
        self._first_s, self._told_s = None, now_s
        lost_s = sum(lost for _, lost in self._lost)
        share = f"{100 * lost_s / _WINDOW_S:.1f} %" if len(self._lost) > 1 else f"{1000 * lost_s:.0f} ms"
        places = f"lost in {counted(len(self._lost), 'place')}"
        larger = 1 << max(self._block, 128).bit_length()
        self._tell("lost", f"{share} of the last minute {places}: raise the period, --block {larger}")


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
