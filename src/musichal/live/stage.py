"""What a player on stage wants to know at a glance: mode, what the partner does and until when, section, level, one short why.

`Stage` gathers it from the decisions and the partner's status; board, OSC and dashboard show the same `StageState`.
"""

from collections import deque
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from musichal.audio.levels import FLOOR_DB, Levels
from musichal.partner.decision import Decision
from musichal.partner.explanation import PartnerStatus, short_reason
from musichal.partner.form import FormPlace

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
        self._played_until_s = -1.0
        self._levels: deque[tuple[float, float]] = deque()
        self._waits: deque[tuple[float, float]] = deque()  # (from, until) of rests that wait for a phrase to end
        self._waits_from_s: float | None = None

    def decided(self, decision: Decision) -> None:
        """Take a decision."""
        self._latest = decision
        if decision.kind == "play":
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
            why="" if self._latest is None or not plays else short_reason(self._latest),
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
