"""The pages that are open, and what each still has to be sent.

Every page has a bounded queue. A page that stands still until it is full is told everything anew once it reads again: it holds
up nobody, and shows nothing that no longer holds. A page that is opened later first gets what happened last, and how every
setting stands, so that it shows the present at once; what happened before follows. Of a session it gets all at once.
"""

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MOST_PAGES = 16
_QUEUE_BYTES = 8 << 20
_KEPT_LIVE_BYTES, _KEPT_BYTES = 8 << 20, 1 << 29
_MOST_LASTING = 20_000
_COURSE = ("pause", "hold_section", "next_section", "end")  # of which each counts, not only the last
_KEPT_LEVELS_S = 12.0
_LATEST = ("memory", "shelf", "dropped", "task", "compared", "controllers")  # of which only the last counts
_PER_S, _BURST = 50.0, 50.0
_LONGEST_NAME, _MOST_VALUES, _LONGEST_VALUE = 80, 8, 200
_PART_BYTES, _LATER_BYTES = 1 << 18, 1 << 16


@dataclass(eq=False)
class Page:
    """A page that is open: what waits for it, and how much it may still ask for."""

    number: int
    may_play: bool
    waiting: deque[str] = field(default_factory=deque)
    waiting_bytes: int = 0
    is_behind: bool = True
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    allowance: float = _BURST
    asked_s: float = field(default_factory=time.monotonic)

    @property
    def is_full(self) -> bool:
        """Return whether one more message may be too much."""
        return not self.is_behind and self.waiting_bytes > _QUEUE_BYTES // 2

    def tell(self, text: str) -> None:
        """Queue a message; where there are too many, the page has to be told everything anew."""
        self.waiting.append(text)
        self.waiting_bytes += len(text)
        if self.waiting_bytes > _QUEUE_BYTES:
            self.is_behind = True
        if self.is_behind:
            self.forget()
        self.wake.set()

    def next(self) -> str:
        """Return the message that has waited longest."""
        text = self.waiting.popleft()
        self.waiting_bytes -= len(text)
        return text

    def forget(self) -> None:
        """Drop what waits."""
        self.waiting.clear()
        self.waiting_bytes = 0

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

    * `ask`: Takes a command as a table: page ``to``, ``id``, ``name`` and ``values``.
    """

    def __init__(self, ask: Callable[[dict[str, Any]], object]) -> None:
        self.pages: dict[int, Page] = {}
        self.hello = ""
        self.is_live = True
        self.refused = 0
        self._ask = ask
        self._kept: deque[str] = deque()
        self._settings: dict[str, str] = {}
        self._lasting: deque[str] = deque(maxlen=_MOST_LASTING)
        self._latest: dict[str, str] = {}
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
                self._begin(text, is_live=bool(message.get("live")))
            elif kind == "level":
                self._levels.append((message["at"], text))
                while self._levels[0][0] < message["at"] - _KEPT_LEVELS_S:
                    self._levels.popleft()
            elif kind in _LATEST:
                self._latest[kind] = text
            elif self.is_live and kind == "entry" and message.keys() & {"change", "stage", "mark"}:
                self._keep_lasting(message)
            elif kind not in ("statistics", "stage"):
                self._kept.append(text)
                self._kept_bytes += len(text)
        while self._kept_bytes > (_KEPT_LIVE_BYTES if self.is_live else _KEPT_BYTES):
            self._kept_bytes -= len(self._kept.popleft())
        if common:
            frame = "[" + ",".join(common) + "]"
            for page in self.pages.values():
                page.tell(frame)

    def _begin(self, hello: str, *, is_live: bool) -> None:
        """Show something else from here on: every page is told it from its beginning."""
        if self.hello:
            self._latest.pop("memory", None)
            for kept in (self._kept, self._settings, self._lasting, self._levels):
                kept.clear()
            self._kept_bytes = 0
            for page in self.pages.values():
                page.is_behind = True
        self.hello, self.is_live = hello, is_live

    def _keep_lasting(self, message: dict[str, Any]) -> None:
        """Keep what holds on; of a setting how it stands now: a fader may change one fifty times a second, all evening."""
        changes = message.get("change", {"": None})
        for name, value in changes.items():
            text = json.dumps({**message, "change": {name: value}} if name else message, separators=(",", ":"))
            if not name or name in _COURSE:
                self._lasting.append(text)
            elif name != "clock":  # which repeats its beats
                self._settings[name] = text

    def past(self) -> tuple[list[str], list[str]]:
        """Return what a new page is told first, in parts, and what can follow: the memory, and what was before."""
        before, newest, size = list(self._kept), list[str](), 0
        while before and (not self.is_live or size + len(before[-1]) <= _PART_BYTES):
            size += len(before[-1])
            newest.append(before.pop())
        latest = dict(self._latest)
        memory = [latest.pop("memory")] if self.is_live and "memory" in latest else []
        hello = [self.hello] if self.hello else []
        lasting = [*self._settings.values(), *self._lasting, *reversed(newest), *(text for _, text in self._levels)]
        return _parts([*hello, *latest.values(), *lasting, '{"k":"ready"}'], _PART_BYTES), _parts(
            [*memory, *before], _LATER_BYTES
        )

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


def _parts(texts: list[str], most_bytes: int) -> list[str]:
    """Return messages joined to parts of about so many bytes."""
    parts: list[list[str]] = [[]]
    size = 0
    for text in texts:
        if size > most_bytes:
            parts.append([])
            size = 0
        parts[-1].append(text)
        size += len(text)
    return ["[" + ",".join(part) + "]" for part in parts if part]


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
