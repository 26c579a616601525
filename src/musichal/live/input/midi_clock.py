"""MIDI clock as a pulse in the time of the stream."""

from collections.abc import Callable, Mapping, Sequence

from musichal.partner.clocks import TickClock
from musichal.pulse import Pulse

POSITION, TICK, START, CONTINUE, STOP = 0xF2, 0xF8, 0xFA, 0xFB, 0xFC
_AGAIN_S = 4.0  # the partner drops a clock without news for 10 s
_MOVED_S, _CHANGED = 0.004, 0.005
_SOON_S, _FAR_S = 0.25, 0.02  # a clock that trembles is not told at every tick


class MidiClock:
    """Turns the messages of MIDI clock into a pulse, and reports it when it changes, every few seconds, and when it stops.

    Start puts a beat on the next tick, Continue goes on at the song position. Before any of them, and after a stretch without
    ticks, the tempo is known and the phase of the beat is not: `TickClock`. After Stop there is no pulse until the next Start
    or Continue, although many senders go on ticking.

    Parameters
    ----------
    stream_s : callable
        Maps a moment to the time of the stream; None before the stream has one.
    report : callable
        Called with {"beat_s": …, "period_s": …} in the time of the stream, with "phase_known": False where it is not, or None
        if the clock has stopped.
    """

    def __init__(
        self, stream_s: Callable[[float], float | None], report: Callable[[Mapping[str, object] | None], object]
    ) -> None:
        self._stream_s, self._report = stream_s, report
        self._ticks = TickClock()
        self._stopped = False
        self._reported: tuple[float, Pulse] | None = None

    def take(self, message: int | Sequence[int], moment_s: float) -> None:
        """Take a message of MIDI clock that arrived at a moment; any other is ignored."""
        data = (message,) if isinstance(message, int) else tuple(message)
        status = data[0] if data else 0
        if status in (START, CONTINUE):
            self._ticks.start() if status == START else self._ticks.go_on()
            self._stopped, self._reported = False, None
        elif status == POSITION and len(data) == 3:
            self._ticks.locate(data[1] + (data[2] << 7))
            self._reported = None
        elif status == STOP:
            self._ticks.stop()
            if not self._stopped:
                self._stopped, self._reported = True, None
                self._report(None)
        elif status == TICK:
            pulse = self._ticks.tick(moment_s)
            if pulse is not None and not self._stopped and self._is_news(pulse, moment_s):
                beat_s = self._stream_s(pulse.beat_s)
                if beat_s is not None:
                    self._reported = moment_s, pulse
                    unknown = {} if self._ticks.phase_known else {"phase_known": False}
                    self._report({"beat_s": beat_s, "period_s": pulse.period_s, **unknown})

    def _is_news(self, pulse: Pulse, moment_s: float) -> bool:
        if self._reported is None:
            return True
        reported_s, before = self._reported
        age_s = moment_s - reported_s
        moved_s = abs(before.nearest_s(pulse.beat_s) - pulse.beat_s)
        changed = abs(pulse.period_s / before.period_s - 1)
        if age_s > _AGAIN_S or pulse.confidence != before.confidence or moved_s > _FAR_S:
            return True
        return age_s > _SOON_S and (moved_s > _MOVED_S or changed > _CHANGED)
