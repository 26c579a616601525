"""The pages that are open, and what each still has to be sent.

Every page has a bounded queue, whose oldest entries go where it is full: a page that stands still is told less, and holds up
nobody. A page that is opened later first gets what has happened lately, and every change of a setting before that, so that it
looks as if it had been there.
"""

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MOST_PAGES = 16
_QUEUE_FRAMES = 90
_KEPT_LIVE_BYTES, _KEPT_BYTES = 8 << 20, 1 << 29
_MOST_LASTING = 20_000
_KEPT_LEVELS_S = 12.0
_PER_S, _BURST = 50.0, 50.0
_LONGEST_NAME, _MOST_VALUES, _LONGEST_VALUE = 80, 8, 200
_PART_BYTES = 1 << 18


@dataclass(eq=False)
class Page:
    """A page that is open: what waits for it, and how much it may still ask for."""

    number: int
    may_play: bool
    waiting: deque[str] = field(default_factory=lambda: deque(maxlen=_QUEUE_FRAMES))
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    allowance: float = _BURST
    asked_s: float = field(default_factory=time.monotonic)
    dropped: int = 0

    def tell(self, text: str) -> None:
        """Queue a message; the oldest goes where there are too many."""
        self.dropped += len(self.waiting) == self.waiting.maxlen
        self.waiting.append(text)
        self.wake.set()

    def allows(self, now_s: float) -> bool:
        """Return whether one more command is within the rate."""
        self.allowance = min(_BURST, self.allowance + (now_s - self.asked_s) * _PER_S)
        self.asked_s = now_s
        if self.allowance < 1:
            return False
        self.allowance -= 1
        return True


class Hub:
    """Passes messages to pages, and commands of pages to `ask`.

    Parameters
    ----------
    ask : callable
        Takes a command as a table: page ``to``, ``id``, ``name`` and ``values``.
    """

    def __init__(self, ask: Callable[[dict[str, Any]], object]) -> None:
        self.pages: dict[int, Page] = {}
        self.hello = ""
        self._most_bytes = _KEPT_LIVE_BYTES
        self.refused = 0
        self._ask = ask
        self._kept: deque[str] = deque()
        self._lasting: deque[str] = deque(maxlen=_MOST_LASTING)
        self._kept_bytes = 0
        self._levels: deque[tuple[float, str]] = deque()
        self._numbers = 0

    def spread(self, messages: list[dict[str, Any]]) -> None:
        """Pass messages to every page, and keep what a later page needs."""
        common = []
        for message in messages:
            kind = message.get("k")
            if kind == "answer":
                page = self.pages.get(message.get("to", -1))
                if page is not None:
                    page.tell("[" + json.dumps(message) + "]")
                continue
            text = json.dumps(message, separators=(",", ":"))
            common.append(text)
            if kind == "hello":
                self.hello = text
                self._most_bytes = _KEPT_LIVE_BYTES if message.get("live") else _KEPT_BYTES
            elif kind == "level":
                self._levels.append((message["at"], text))
                while self._levels[0][0] < message["at"] - _KEPT_LEVELS_S:
                    self._levels.popleft()
            elif kind == "memory" or (kind == "entry" and message.keys() & {"change", "stage", "mark"}):
                if "clock" not in message.get("change", ()):  # which repeats its beats
                    self._lasting.append(text)
            elif kind not in ("statistics", "stage"):
                self._kept.append(text)
                self._kept_bytes += len(text)
        while self._kept_bytes > self._most_bytes:
            self._kept_bytes -= len(self._kept.popleft())
        if common:
            frame = "[" + ",".join(common) + "]"
            for page in self.pages.values():
                page.tell(frame)

    def past(self) -> list[str]:
        """Return what a new page is told first, in parts."""
        parts: list[str] = []
        part: list[str] = []
        size = 0
        for text in [*([self.hello] if self.hello else []), *self._lasting, *self._kept, *(text for _, text in self._levels)]:
            part.append(text)
            size += len(text)
            if size > _PART_BYTES:
                parts.append("[" + ",".join(part) + "]")
                part, size = [], 0
        return [*parts, "[" + ",".join([*part, '{"k":"ready"}']) + "]"]

    def open(self, *, may_play: bool) -> Page | None:
        """Return a new page; None where there are too many."""
        if len(self.pages) >= MOST_PAGES:
            return None
        self._numbers += 1
        page = Page(self._numbers, may_play)
        self.pages[page.number] = page
        return page

    def close(self, page: Page) -> None:
        """Forget a page."""
        self.pages.pop(page.number, None)

    def take(self, page: Page, text: str | bytes, now_s: float) -> None:
        """Take what a page sent: a command, or rubbish, which is counted. Beyond its rate, only panic is obeyed."""
        asked = _command_of(text)
        within = page.allows(now_s)
        if asked is None or not page.may_play or not (within or asked["name"] == "panic"):
            self.refused += 1
            return
        self._ask({"to": page.number, **asked})


def _command_of(text: str | bytes) -> dict[str, Any] | None:
    """Return the command in a message of a page; None for anything else."""
    if isinstance(text, bytes):
        return None
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None
    match values:
        case {"id": int() as number, "name": str() as name, "values": list() as given, **rest} if not rest:
            plain = all(isinstance(v, int | float | str) and len(str(v)) <= _LONGEST_VALUE for v in given)
            if (
                plain
                and len(given) <= _MOST_VALUES
                and 0 < len(name) <= _LONGEST_NAME
                and name.isprintable()
                and 0 <= number < 1 << 31
            ):
                return {"id": number, "name": name, "values": given}
    return None
