"""The answer's way out as sound: decisions become slices of the partner's recordings, on a scheduler of their own."""

from collections.abc import Callable

from musichal.live.output.live_output import SchedulerOutput
from musichal.live.output.messages import LONGEST_NOTE_S, SliceSource, slice_note
from musichal.live.output.scheduler import Scheduler
from musichal.live.performance import slice_events
from musichal.partner.decision import Decision


class SliceOutput(SchedulerOutput):
    """Plays decisions on a port ``slices:PARTNER.hal`` of a scheduler; the player's own sound is not in there.

    Parameters
    ----------
    scheduler : Scheduler
        Entered, with the port.
    port : str
        Its name.
    recordings : int
        How many recordings the partner has.
    """

    def __init__(self, scheduler: Scheduler, port: str, *, recordings: int) -> None:
        super().__init__(scheduler, ())
        self._port, self._recordings = port, recordings
        self._last: tuple[int, float] | None = None

    def play(self, decision: Decision, moment_of: Callable[[float], float]) -> int:
        """Ask for the slice of a decision; returns 1 if it was taken. Voices that share a state are one slice."""
        events = slice_events([decision])
        place = decision.choice, decision.time_s
        if not events or place == self._last:
            return 0
        (event,) = events
        if event.recording >= self._recordings or event.duration_s > LONGEST_NOTE_S:
            return 0
        self._last = place
        source = SliceSource(event.recording, event.source_start_s, event.transposition_semitones)
        due_s = moment_of(event.onset_s)
        note = slice_note(due_s, event.duration_s, self._port, source, tag=decision.number & 0xFFFFFFFF)
        return self._scheduler.play([note])
