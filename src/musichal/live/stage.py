"""What a player wants to know while playing: at a glance, what was lost of the input, whether the partner file was replaced.

`Stage` gathers mode, what the partner does and until when, section, level and one short why from the decisions and the
partner's status; board, OSC and dashboard show the same `StageState`.
"""

import contextlib
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from musichal.audio.levels import FLOOR_DB, Levels
from musichal.errors import InputError
from musichal.machine import now_s, sha256_of
from musichal.partner.decision import Decision
from musichal.partner.explanation import PartnerStatus, short_reason
from musichal.partner.form import FormPlace
from musichal.text import counted, printable

Zone = Literal["none", "quiet", "good", "loud", "too loud"]

DOES = MappingProxyType(
    {
        "waiting": "waits for you to begin",
        "silence": "rests while you are silent",
        "listening": "waits for your phrase to end",
        "your turn": "waits: it is your turn",
        "yields": "yields to you",
        "breath": "breathes",
        "pulse": "listens for your pulse",
        "beat": "waits for the beat",
        "next note": "waits for your next note",
        "on purpose": "listens in silence",
        "score": "keeps silent, as the form says",
        "ending": "rests: that was its last phrase",
        "ended": "listens: it plays no more",
        "paused": "is paused",
    }
)
"""What it does in a rest, by its reason; in any other rest nothing fits."""
_GOOD_DB, _LOUD_DB, _TOO_LOUD_DB, _NONE_DB = -30.0, -6.0, -1.0, -60.0
_LEVEL_S = 3.0
_BETWEEN_S = 2.0  # so long a rest between two notes is still playing
_WAITS_S, _WAITS_SHARE = 25.0, 0.9


@dataclass(frozen=True, kw_only=True)
class StageState:
    """The stage at `time_s` of the stream.

    `does` is what the partner does, in words, `left_s` for how long still, `why` the short reason. `plays` says that it plays,
    `has_input` that the input is there. `peak_db` is the highest level of the last seconds, `zone` what it is worth. `advice`
    is a sentence about a mode that cannot act on this player, or an empty one.
    """

    time_s: float
    does: str
    left_s: float | None = None
    why: str = ""
    plays: bool = False
    partner: PartnerStatus = PartnerStatus()  # noqa: RUF009 - frozen
    has_input: bool = True
    peak_db: float = FLOOR_DB
    zone: Zone = "none"
    muted: bool = False
    listening: bool = True
    advice: str = ""

    @property
    def form(self) -> FormPlace | None:
        """Where the form is."""
        return self.partner.form

    @property
    def fixed(self) -> tuple[object, ...]:
        """What is shown at once when it changes; all else may wait for the next second."""
        place = self.form
        section = None if place is None else (place.number, place.held, place.closing, place.has_ended)
        status = self.partner
        return (self.does, status.mode, status.chosen_by, section, self.has_input, self.muted, self.listening, self.advice)


def zone_of(peak_db: float) -> Zone:
    """Return what a peak over the last seconds is worth."""
    limits: tuple[tuple[float, Zone], ...] = (
        (_TOO_LOUD_DB, "too loud"), (_LOUD_DB, "loud"), (_GOOD_DB, "good"), (_NONE_DB, "quiet"),
    )  # fmt: skip
    return next((zone for low_db, zone in limits if peak_db >= low_db), "none")


class Stage:
    """Follows the partner's decisions and the level."""

    def __init__(self) -> None:
        self._latest: Decision | None = None
        self._played: Decision | None = None
        self._played_until_s = -1.0
        self._levels: deque[tuple[float, float]] = deque()
        self._waits: deque[tuple[float, float]] = deque()  # (from, until) of rests that wait for a phrase to end
        self._waits_from_s: float | None = None

    def decided(self, decision: Decision) -> None:
        """Take a decision."""
        self._latest = decision
        if decision.kind == "play":
            self._played = decision
            self._played_until_s = max(self._played_until_s, decision.begin_s + decision.duration_s)
        waits = decision.rest == "listening"
        if waits and self._waits_from_s is None:
            self._waits_from_s = decision.time_s
        elif not waits and self._waits_from_s is not None:
            self._waits.append((self._waits_from_s, decision.time_s))
            self._waits_from_s = None

    def at(
        self, now_s: float, partner: PartnerStatus, *, level: Levels, has_input: bool = True, muted: bool = False,
        listening: bool = True,
    ) -> StageState:  # fmt: skip
        """Return the state at a time of the stream."""
        peak_db = self._peak_db(now_s, level.peak_db if has_input else FLOOR_DB)
        does, left_s, plays = self._does(now_s, partner)
        return StageState(
            time_s=now_s,
            does=does,
            left_s=left_s,
            why="" if self._played is None or not plays else short_reason(self._played),
            plays=plays,
            partner=partner,
            has_input=has_input,
            peak_db=peak_db,
            zone=zone_of(peak_db),
            muted=muted,
            listening=listening,
            advice=self._advice(now_s, partner),
        )

    def _does(self, now_s: float, partner: PartnerStatus) -> tuple[str, float | None, bool]:
        latest = self._latest
        if partner.paused:
            return DOES["paused"], None, False
        if partner.form is not None and partner.form.has_ended and now_s >= self._played_until_s:
            return DOES["ended"], None, False
        if latest is None:
            return DOES["waiting"], None, False
        between = latest.rest in ("next note", "beat") and now_s - self._played_until_s < _BETWEEN_S
        if latest.kind == "play" or now_s < self._played_until_s or between:
            return "plays", None, True
        left_s = None if latest.expected_s is None else latest.time_s + latest.expected_s - now_s
        return DOES.get(latest.rest or "", "rests: nothing fits"), left_s if left_s is None or left_s > 0 else None, False

    def _peak_db(self, now_s: float, peak_db: float) -> float:
        self._levels.append((now_s, peak_db))
        while self._levels[0][0] < now_s - _LEVEL_S:
            self._levels.popleft()
        return max(db for _, db in self._levels)

    def _advice(self, now_s: float, partner: PartnerStatus) -> str:
        """Return what to say about a mode that waits for pauses of a player who makes none."""
        if not partner.waits_for_pauses:
            self._waits.clear()
            self._waits_from_s = None
            return ""
        while self._waits and self._waits[0][1] < now_s - _WAITS_S:
            self._waits.popleft()
        spans = [*self._waits, *([] if self._waits_from_s is None else [(self._waits_from_s, now_s)])]
        waited_s = sum(until_s - max(from_s, now_s - _WAITS_S) for from_s, until_s in spans)
        if waited_s < _WAITS_SHARE * _WAITS_S:
            return ""
        return f"{partner.mode} waits for your pauses: make one, or press n"


# ── losses, and a partner that was replaced ───────────────────────────────────

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
            found = sha256_of(self._path)
            if found != self._digest:
                self.replaced = found
                return (
                    f"{printable(self._path)} was replaced while playing (SHA-256 now {found[:12]}…):"
                    f" what plays is what was loaded ({self._digest[:12]}…)"
                )
        return None
