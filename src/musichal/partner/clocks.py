"""Clocks and taps: the pulse that the player sends, by MIDI clock, Link, a tempo, or a tap by hand.

Conventions
-----------
Times are seconds of the input stream. A pulse's `source` says who gave it: "midi", "link", "osc", "clock" (a tempo or a
pulse without a name), or "tap".

Who leads: a hand that tapped not more than 8 beats ago; then the clock that began first, until it stops. Among people who tap
along, phase is corrected tap by tap and tempo over several taps (Repp & Su, Psychonomic Bulletin & Review 2013); here a single
tap moves the phase alone, and a line through several gives the tempo.
"""

import dataclasses
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np

from musichal.errors import InputError
from musichal.pulse import LONGEST_PERIOD_S, SHORTEST_PERIOD_S, Pulse

TICKS_PER_BEAT = 24
"""Of MIDI clock."""
TICKS_PER_POSITION = 6
"""Of a step of MIDI's song position, a 16th."""
SOURCES = {"midi": "MIDI clock", "link": "Link", "osc": "the clock by OSC", "clock": "the tempo that was set", "tap": "the tap"}
"""Who can give a pulse, beside the player's sound, and what a player calls it."""

_LOST_S = 10.0  # a clock without news for so long is gone
_UNSURE = 0.3  # confidence of a tempo whose phase is not known
_SAME_METRE = 0.08  # a heard period that is so near to a clock's, to half or to twice of it
_ALIKE_PERIOD, _ALIKE_PHASE = 0.02, 0.1  # of a beat: two clocks that differ by more contradict each other
_TOLD_AGAIN_S = 60.0  # a contradiction is told again after so long without it
_TAP_BEATS, _FADING_BEATS = 8, 16


# ── values of changes ────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Clock:
    """What a clock says: its pulse, or None if it has stopped; `phase_known` is False where only the tempo is known."""

    source: str
    pulse: Pulse | None
    phase_known: bool = True


def read_clock(value: object, now_s: float) -> Clock:
    """Return what the value of a change "clock" says.

    It is a tempo from 6 to 600 beats per minute with a beat now, a `Pulse`, {"beat_s": …, "period_s": …} or None (every clock
    has stopped). A mapping may have "source" and "phase_known", and with "source" alone that clock has stopped. Raises
    `InputError` for anything else.
    """
    if value is None:
        return Clock("", None)
    if isinstance(value, Pulse):
        return Clock("clock", dataclasses.replace(value, source="clock"))
    if _is_number(value) and 6 <= value <= 600:
        return Clock("clock", Pulse(now_s, 60 / value, 1.0, "clock"))
    if isinstance(value, Mapping) and set(value) <= {"beat_s", "period_s", "source", "phase_known"}:
        source, known = value.get("source", "clock"), value.get("phase_known", True)
        times = [value[name] for name in ("beat_s", "period_s") if name in value]
        if source in ("midi", "link", "osc", "clock") and isinstance(known, bool) and all(map(_is_number, times)):
            if not times and "source" in value:
                return Clock(source, None)
            if len(times) == 2:
                return Clock(source, Pulse(float(times[0]), float(times[1]), 1.0, source), known)
    raise InputError(
        "clock must be a tempo in [6, 600] beats per minute, {'beat_s': second, 'period_s': seconds per beat}, or None,"
        f" got {value!r}"
    )


def read_tap(value: object, now_s: float) -> float | None:
    """Return the time of a tap from the value of a change "tap", None for a button that was let go.

    It is True for a tap now, or {"at_s": second of the stream}. Raises `InputError` for anything else.
    """
    if isinstance(value, bool):
        return now_s if value else None
    if isinstance(value, Mapping) and set(value) == {"at_s"} and _is_number(at_s := value["at_s"]) and math.isfinite(at_s):
        return float(at_s)
    raise InputError(f"tap must be true, or {{'at_s': second}}, got {value!r}")


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


# ── MIDI clock ───────────────────────────────────────────────────────────────

_STEADY_TICKS = TICKS_PER_BEAT // 2  # before there is a pulse
_CHECKED_TICKS, _KEPT_TICKS = 4, 2 * TICKS_PER_BEAT
_LOST_TICKS_S, _LOST_TICKS = 0.6, 4.0
_EDGE = 1.03  # so far beyond the range of a pulse a clock that trembles may go
_SHIFTED, _SPREAD, _OFF = 0.7, 0.2, 0.25  # of a tick


class TickClock:
    """A pulse from MIDI clock: 24 ticks a beat, their jitter smoothed by a straight line through the last ones.

    A few ticks that were lost are counted by the line. After a longer stretch without ticks the tempo holds, but which tick
    is a beat is not known until the next Start, Continue or song position: see `phase_known`.
    """

    def __init__(self) -> None:
        self._numbers: deque[int] = deque(maxlen=_KEPT_TICKS)
        self._times: deque[float] = deque(maxlen=_KEPT_TICKS)
        self._beat: int | None = None  # number of a tick that is a beat
        self._position: int | None = None  # of the song, in ticks, while it stands
        self._next = 0
        self._placed = False  # a message put the next tick in its place
        self._step_s: float | None = None

    @property
    def phase_known(self) -> bool:
        """Whether it is known which tick is a beat."""
        return self._beat is not None

    def start(self) -> None:
        """Take MIDI's Start: the next tick is the first beat."""
        self._position = None
        self._beat, self._placed = self._next, True

    def go_on(self) -> None:
        """Take Continue: the next tick is the one at the song position, or a beat where that is not known."""
        self._beat, self._placed = self._next - (self._position or 0), True
        self._position = None

    def stop(self) -> None:
        """Take Stop: the song stands."""
        if self._position is None and self._beat is not None:
            self._position = self._next - self._beat

    def locate(self, sixteenths: int) -> None:
        """Take a song position in 16ths from the beginning; a running song goes on from there."""
        if self._position is None and self._beat is not None:
            self._beat, self._placed = self._next - sixteenths * TICKS_PER_POSITION, True
        else:
            self._position = sixteenths * TICKS_PER_POSITION

    def tick(self, time_s: float) -> Pulse | None:
        """Take a tick; return the pulse, or None while there are too few of them for one."""
        if self._times:
            gap_s = time_s - self._times[-1]
            if gap_s <= 0:
                self._forget()
            elif gap_s > max(_LOST_TICKS_S, _LOST_TICKS * (self._step_s or 0.0)):
                self._forget()
                self._beat = self._beat if self._placed else None
        self._placed = False
        self._times.append(time_s)
        self._numbers.append(self._next)
        self._next += 1
        self._correct()
        if len(self._times) >= _STEADY_TICKS:
            step_s, first_s = np.polyfit(np.array(self._numbers) - self._next, np.array(self._times), 1)
            self._step_s = float(step_s)
            now_s = float(first_s) - self._step_s
        elif self._step_s is not None:
            now_s = time_s
        else:
            return None
        period_s = self._step_s * TICKS_PER_BEAT
        if not SHORTEST_PERIOD_S / _EDGE <= period_s <= LONGEST_PERIOD_S * _EDGE:
            return None
        period_s = min(max(period_s, SHORTEST_PERIOD_S), LONGEST_PERIOD_S)
        since_beat = (self._next - 1 - (self._beat or 0)) % TICKS_PER_BEAT
        return Pulse(now_s - since_beat * self._step_s, period_s, 1.0 if self.phase_known else _UNSURE, "midi")

    def _forget(self) -> None:
        self._times.clear()
        self._numbers.clear()

    def _correct(self) -> None:
        """Count ticks that were lost, and leave an old tempo, where the last ticks show it."""
        few = _CHECKED_TICKS
        if len(self._times) < few + _STEADY_TICKS:
            return
        numbers, times = np.array(self._numbers), np.array(self._times)
        step_s, first_s = np.polyfit(numbers[:-few], times[:-few], 1)
        if step_s <= 0:
            self._forget()
            return
        late = (times[-few:] - first_s) / step_s - numbers[-few:]
        lost = round(float(np.median(late)))
        if lost >= 1 and late.min() > _SHIFTED and np.ptp(late) < _SPREAD and abs(np.median(late) - lost) < _OFF:
            # All of them are late by as much: those between were lost.
            for place in range(-few, 0):
                self._numbers[place] += lost
            self._next += lost
            return
        steps_s = np.diff(times[-few - 1 :])
        if abs(np.median(steps_s) / step_s - 1) > _OFF and np.ptp(steps_s) < _SPREAD * np.median(steps_s):
            for _ in range(len(self._times) - few):  # another tempo
                self._times.popleft()
                self._numbers.popleft()


# ── taps ─────────────────────────────────────────────────────────────────────

_MOST_TAPS = 8
_BOUNCE_S = 0.08
_ANEW_S, _ANEW_PERIODS = 3.0, 2.5
_ODD = 0.2  # of a period: a tap so far from where it was expected belongs to another tempo
_CONSISTENT = 0.1


class TapTempo:
    """A pulse from taps by hand.

    One tap gives no tempo. Two or more do, by the line through the last ones that agree; the more of them, the surer. After a
    pause of 2.5 periods (3 s after a first tap) taps begin anew. Two taps in a row that do not fit begin a tempo of their own.
    """

    def __init__(self) -> None:
        self._taps: deque[float] = deque(maxlen=_MOST_TAPS)
        self._odd = 0

    @property
    def count(self) -> int:
        """The number of taps in the present run."""
        return len(self._taps)

    @property
    def last_s(self) -> float:
        """The time of the last tap; minus infinity before any."""
        return self._taps[-1] if self._taps else -math.inf

    def tap(self, time_s: float) -> bool:
        """Take a tap; return False for one that is too close to the one before, a bounce of the switch."""
        since_s = time_s - self.last_s
        if abs(since_s) < _BOUNCE_S:
            return False
        pulse = self.pulse()
        if since_s < 0 or since_s > (_ANEW_S if pulse is None else _ANEW_PERIODS * pulse.period_s):
            self._taps.clear()
            self._odd = 0
        elif pulse is not None and len(self._taps) > 2:
            off = since_s / pulse.period_s
            self._odd = self._odd + 1 if abs(off - max(1, round(off))) > _ODD else 0
            if self._odd == 2:
                # The new tempo is between this tap and the last one, or the two before.
                self._taps = deque([*self._taps][-2:], maxlen=_MOST_TAPS)
                self._odd = 0
        self._taps.append(time_s)
        return True

    def pulse(self) -> Pulse | None:
        """Return the pulse; None before the second tap, or where no tempo from 6 to 600 fits."""
        if len(self._taps) < 2:
            return None
        times = np.array(self._taps)
        between_s = np.diff(times)
        usual_s = float(np.median(between_s))
        numbers = np.concatenate([[0.0], np.cumsum(np.maximum(1, np.round(between_s / usual_s)))])
        rows, columns = np.triu_indices(len(times), 1)
        # Theil–Sen: a tap that slipped does not move the line.
        period_s = float(np.median((times[columns] - times[rows]) / (numbers[columns] - numbers[rows])))
        if not SHORTEST_PERIOD_S <= period_s <= LONGEST_PERIOD_S:
            return None
        first_s = float(np.median(times - numbers * period_s))
        off = np.abs(times - first_s - numbers * period_s) / period_s
        consistent = int((off < _CONSISTENT).sum())
        confidence = max(_UNSURE, 1 - 0.8 * 0.5 ** (consistent - 1))
        return Pulse(first_s + float(numbers[-1]) * period_s, period_s, confidence, "tap")


# ── who leads ────────────────────────────────────────────────────────────────


@dataclass
class _Running:
    """A clock that runs: what it said last, and when."""

    clock: Clock
    said_s: float


class ClockKeeper:
    """Keeps the clocks and taps of a performance, and says which pulse they give.

    Examples
    --------
    >>> keeper = ClockKeeper()
    >>> keeper.change({"clock": {"beat_s": 1.0, "period_s": 0.5, "source": "midi"}}, 1.2)
    ''
    >>> keeper.at(2.0)
    Pulse(beat_s=1.0, period_s=0.5, confidence=1.0, source='midi')
    """

    def __init__(self) -> None:
        self._running: dict[str, _Running] = {}  # in order of beginning
        self._taps = TapTempo()
        self._tapped: Pulse | None = None
        self._told_s: dict[tuple[str, str], float] = {}  # when two clocks contradicted each other last

    @staticmethod
    def check(changes: Mapping[str, object], now_s: float) -> None:
        """Raise `InputError` for a clock or a tap that cannot be; take nothing."""
        if "clock" in changes:
            read_clock(changes["clock"], now_s)
        if "tap" in changes:
            read_tap(changes["tap"], now_s)

    def change(self, changes: Mapping[str, object], now_s: float, *, heard: Pulse | None = None) -> str:
        """Take what changes say of "clock" and "tap"; return a sentence for the player, or an empty text.

        `heard` is the pulse that is heard or kept up: a single tap moves its phase.
        """
        self.check(changes, now_s)
        said = [""]
        if "clock" in changes:
            said.append(self._hear(read_clock(changes["clock"], now_s), now_s))
        if "tap" in changes and (at_s := read_tap(changes["tap"], now_s)) is not None:
            said.append(self._tap(at_s, now_s, heard))
        return "; ".join(filter(None, said))

    def at(self, now_s: float, *, heard: Pulse | None = None) -> Pulse | None:
        """Return the pulse of clocks and taps at a time, None where there is none.

        From 8 beats after the last tap on its confidence falls. Where a clock's phase is not known, that of the `heard` pulse
        counts if its tempo agrees.
        """
        tapped = self._tapped_at(now_s)
        running = self._leading(now_s)
        if tapped is not None and (running is None or self._is_by_hand(now_s)):
            return tapped
        return None if running is None else _pulse_of(running.clock, heard)

    def _hear(self, clock: Clock, now_s: float) -> str:
        if not clock.source:
            self._running.clear()
        elif clock.pulse is None:
            if self._running.pop(clock.source, None) is not None:
                return f"{SOURCES[clock.source]} has stopped"
        elif (running := self._running.get(clock.source)) is not None and now_s - running.said_s <= _LOST_S:
            running.clock, running.said_s = clock, now_s
        else:
            self._running.pop(clock.source, None)  # it begins anew, behind the others
            self._running[clock.source] = _Running(clock, now_s)
        return self._contradiction(now_s)

    def _contradiction(self, now_s: float) -> str:
        """Return a sentence if a clock contradicts the one that leads, and did not lately."""
        alive = [r.clock for r in self._running.values() if now_s - r.said_s <= _LOST_S]
        said = ""
        for other in alive[1:]:
            if not _alike(alive[0], other, now_s):
                pair = alive[0].source, other.source
                if now_s - self._told_s.get(pair, -math.inf) > _TOLD_AGAIN_S:
                    said = f"{_named(other)} contradicts {_named(alive[0])}, which came first and leads until it stops"
                self._told_s[pair] = now_s
        return said

    def _tap(self, at_s: float, now_s: float, heard: Pulse | None) -> str:
        before = self.at(now_s, heard=heard) or heard
        if not self._taps.tap(at_s):
            return ""
        pulse = self._taps.pulse()
        if pulse is not None:
            self._tapped = pulse
            running = self._leading(now_s)
            against = ""
            if self._taps.count == 2 and running is not None and not _alike(running.clock, Clock("tap", pulse), now_s):
                against = f", against {_named(running.clock)}, for {_TAP_BEATS} beats"
            return f"tap: {pulse.tempo_bpm:.1f} beats per minute{against}"
        if before is None:
            return "tap: one tap gives no tempo where there is no pulse; tap again"
        moved_s = at_s - before.nearest_s(at_s)
        self._tapped = Pulse(at_s, before.period_s, before.confidence, "tap")
        return f"tap: the beat moves by {1000 * moved_s:+.0f} ms"

    def _is_by_hand(self, now_s: float) -> bool:
        return self._tapped is not None and now_s - self._taps.last_s <= _TAP_BEATS * self._tapped.period_s

    def _tapped_at(self, now_s: float) -> Pulse | None:
        if self._tapped is None:
            return None
        beats = (now_s - self._taps.last_s) / self._tapped.period_s
        left = min(1.0, 1 - (beats - _TAP_BEATS) / _FADING_BEATS)
        return None if left <= 0 else dataclasses.replace(self._tapped, confidence=self._tapped.confidence * left)

    def _leading(self, now_s: float) -> _Running | None:
        return next((r for r in self._running.values() if now_s - r.said_s <= _LOST_S), None)


def _pulse_of(clock: Clock, heard: Pulse | None) -> Pulse:
    pulse = clock.pulse
    assert pulse is not None
    if clock.phase_known:
        return pulse
    if heard is not None and any(abs(heard.period_s / pulse.period_s / ratio - 1) < _SAME_METRE for ratio in (0.5, 1, 2)):
        beat_s = heard.nearest_s(pulse.beat_s)
        return dataclasses.replace(pulse, beat_s=beat_s, confidence=max(_UNSURE, heard.confidence))
    return dataclasses.replace(pulse, confidence=_UNSURE)


def _alike(a: Clock, b: Clock, now_s: float) -> bool:
    """Return whether two clocks say the same of the beats around a time."""
    assert a.pulse is not None and b.pulse is not None
    if abs(a.pulse.period_s / b.pulse.period_s - 1) > _ALIKE_PERIOD:
        return False
    off_s = a.pulse.nearest_s(now_s) - b.pulse.nearest_s(a.pulse.nearest_s(now_s))
    return not (a.phase_known and b.phase_known) or abs(off_s) <= _ALIKE_PHASE * a.pulse.period_s


def _named(clock: Clock) -> str:
    assert clock.pulse is not None
    return f"{SOURCES[clock.source]} ({clock.pulse.tempo_bpm:.1f} beats per minute)"
