"""MIDI clock from a port: its ticks become a pulse in the time of the stream, for the partner to play to."""

from collections.abc import Callable, Mapping

from musichal.partner.timing import Pulse, TickClock

TICK, START, CONTINUE, STOP = 0xF8, 0xFA, 0xFB, 0xFC
_AGAIN_S = 4.0  # the partner takes a clock for lost that it has not heard of for 10 s
_MOVED_S, _CHANGED = 0.004, 0.005


class MidiClock:
    """Reads the bytes of MIDI clock, and tells of the pulse where it is not as it was told, every few seconds, and of its end.

    Start and Continue put a beat on the next tick; a clock that ticks before any of them has beats too, counted from its first
    tick. After Stop, ticks are not counted until the next Start or Continue: many senders go on ticking.

    Parameters
    ----------
    stream_s : callable
        Gives the time of the stream for a moment of the machine's clock, None where there is none yet.
    tell : callable
        Takes {"beat_s": …, "period_s": …} in the time of the stream, or None where the clock has stopped.
    """

    def __init__(self, stream_s: Callable[[float], float | None], tell: Callable[[Mapping[str, float] | None], object]) -> None:
        self._stream_s, self._tell = stream_s, tell
        self._ticks = TickClock()
        self._stopped = False
        self._told: tuple[float, Pulse] | None = None

    def take(self, status: int, moment_s: float) -> None:
        """Take a byte of MIDI clock, which came at a moment of the machine's clock; any other byte says nothing."""
        if status in (START, CONTINUE):
            self._ticks.start()
            self._stopped = False
        elif status == STOP:
            if not self._stopped:
                self._stopped, self._told = True, None
                self._tell(None)
        elif status == TICK and not self._stopped:
            pulse = self._ticks.tick(moment_s)
            if pulse is not None and self._is_news(pulse, moment_s):
                beat_s = self._stream_s(pulse.beat_s)
                if beat_s is not None:
                    self._told = moment_s, pulse
                    self._tell({"beat_s": beat_s, "period_s": pulse.period_s})

    def _is_news(self, pulse: Pulse, moment_s: float) -> bool:
        if self._told is None:
            return True
        told_s, before = self._told
        moved_s = abs(before.nearest_s(pulse.beat_s) - pulse.beat_s)
        changed = abs(pulse.period_s / before.period_s - 1)
        return moment_s - told_s > _AGAIN_S or moved_s > _MOVED_S or changed > _CHANGED
