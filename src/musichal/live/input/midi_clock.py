"""MIDI clock as a pulse in the time of the stream."""

from collections.abc import Callable, Mapping

from musichal.partner.clocks import TickClock
from musichal.pulse import Pulse

TICK, START, CONTINUE, STOP = 0xF8, 0xFA, 0xFB, 0xFC
_AGAIN_S = 4.0  # the partner drops a clock without news for 10 s
_MOVED_S, _CHANGED = 0.004, 0.005


class MidiClock:
    """Turns the bytes of MIDI clock into a pulse, and reports it when it changes, every few seconds, and when it stops.

    Start and Continue put a beat on the next tick; before any of them, beats are counted from the first tick. After Stop, ticks
    are ignored until the next Start or Continue: many senders go on ticking.

    Parameters
    ----------
    stream_s : callable
        Maps a moment to the time of the stream; None before the stream has one.
    report : callable
        Called with {"beat_s": …, "period_s": …} in the time of the stream, or None if the clock has stopped.
    """

    def __init__(
        self, stream_s: Callable[[float], float | None], report: Callable[[Mapping[str, float] | None], object]
    ) -> None:
        self._stream_s, self._report = stream_s, report
        self._ticks = TickClock()
        self._stopped = False
        self._reported: tuple[float, Pulse] | None = None

    def take(self, status: int, moment_s: float) -> None:
        """Take a byte of MIDI clock that arrived at a moment; any other byte is ignored."""
        if status in (START, CONTINUE):
            self._ticks.start()
            self._stopped = False
        elif status == STOP:
            if not self._stopped:
                self._stopped, self._reported = True, None
                self._report(None)
        elif status == TICK and not self._stopped:
            pulse = self._ticks.tick(moment_s)
            if pulse is not None and self._is_news(pulse, moment_s):
                beat_s = self._stream_s(pulse.beat_s)
                if beat_s is not None:
                    self._reported = moment_s, pulse
                    self._report({"beat_s": beat_s, "period_s": pulse.period_s})

    def _is_news(self, pulse: Pulse, moment_s: float) -> bool:
        if self._reported is None:
            return True
        reported_s, before = self._reported
        moved_s = abs(before.nearest_s(pulse.beat_s) - pulse.beat_s)
        changed = abs(pulse.period_s / before.period_s - 1)
        return moment_s - reported_s > _AGAIN_S or moved_s > _MOVED_S or changed > _CHANGED
