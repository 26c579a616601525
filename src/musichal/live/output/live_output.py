"""The answer's way out on stage: decisions become notes for the scheduler, by the routes of their voices."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

from musichal.errors import MusicHalError
from musichal.live.output.messages import LONGEST_NOTE_S, Sent, Trouble
from musichal.live.output.routing import Routing
from musichal.live.output.scheduler import Scheduler
from musichal.machine import now_s
from musichal.partner.decision import Decision

_ALIVE_S = 0.1
_RESTART_S = 2.0


class SchedulerOutput:
    """Plays on the ports of a scheduler; starts it anew where it ended.

    Parameters
    ----------
    scheduler : Scheduler
        Entered; its ports are those of all routings.
    routings : sequence of Routing
        Every note goes the way that each of them says.
    clock : callable
        The machine's clock.
    """

    def __init__(self, scheduler: Scheduler, routings: Sequence[Routing], *, clock: Callable[[], float] = now_s) -> None:
        self._scheduler, self._routings, self._clock = scheduler, tuple(routings), clock
        self._alive_s = self._restarted_s = -math.inf
        self._muted = False
        self._unrouted: set[str] = set()
        self._news: list[tuple[str, str]] = []
        self.sent = 0
        self.lateness_s = 0.0
        """Of the last note that left."""

    @property
    def opened(self) -> dict[str, str]:
        """What its ports are, in words, by their names."""
        return self._scheduler.opened

    def play(self, decision: Decision, moment_of: Callable[[float], float]) -> int:
        """Ask for the notes of a decision; returns how many were taken. A voice without a route is not heard, and told of."""
        voice = str(getattr(decision, "voice", "") or "")
        routings = [routing for routing in self._routings if routing.has(voice)]
        if len(routings) < len(self._routings) and voice not in self._unrouted:
            self._unrouted.add(voice)
            self._news.append(("voice", f"the voice {voice!r} has no place in the table of voices: it is not heard there"))
        messages = []
        for note in decision.notes:
            due_s = moment_of(note.onset_s)
            for routing in routings:
                message = routing.route(voice, due_s, note, tag=decision.number & 0xFFFFFFFF)
                if message is not None and message.duration_s <= LONGEST_NOTE_S:
                    messages.append(message)
        return self._scheduler.play(messages) if messages else 0

    def mute(self, muted: bool) -> None:
        """End what sounds and strike nothing, until it is lifted."""
        self._muted = muted
        self._scheduler.mute(muted)

    def panic(self) -> None:
        """End everything, and drop what was to come."""
        self._scheduler.panic()

    def tend(self) -> Sequence[tuple[str, str]]:
        """Say that the engine is alive, and return what went wrong since the last call."""
        now = self._clock()
        if now - self._alive_s < _ALIVE_S:
            return ()
        self._alive_s = now
        news, self._news = self._news, []
        anew: list[tuple[str, str]] = []
        if not self._scheduler.alive() and now - self._restarted_s > _RESTART_S:
            self._restarted_s = now
            try:
                self._scheduler.restart()
                self._scheduler.mute(self._muted)
                anew.append(("scheduler", "the scheduler is started anew"))
            except (MusicHalError, OSError) as error:
                anew.append(("scheduler", f"the scheduler cannot be started anew: {error}"))
        for event in self._scheduler.events():
            if isinstance(event, Sent):
                self.sent += 1
                self.lateness_s = event.lateness_s
            elif isinstance(event, Trouble):
                news.append((event.kind, event.text))
        return [*news, *anew]

    def statistics(self) -> Mapping[str, object]:
        """Return the scheduler's figures, those in seconds as milliseconds."""
        values: dict[str, object] = {}
        for name, value in asdict(self._scheduler.statistics()).items():
            seconds = name.endswith("_s")
            values[f"midi_{name.removesuffix('_s')}" + ("_ms" if seconds else "")] = (
                round(1000 * value, 3) if seconds else value
            )
        return values


class Outputs:
    """Several outputs as one: each gets everything, and tells of itself; figures are those of the first."""

    def __init__(self, outputs: Sequence[SchedulerOutput]) -> None:
        self._outputs = tuple(outputs)

    def play(self, decision: Decision, moment_of: Callable[[float], float]) -> int:
        """Play a decision everywhere; returns how much was taken."""
        return sum([output.play(decision, moment_of) for output in self._outputs])

    def mute(self, muted: bool) -> None:
        """End what sounds and strike nothing, until it is lifted."""
        for output in self._outputs:
            output.mute(muted)

    def panic(self) -> None:
        """End everything, and drop what was to come."""
        for output in self._outputs:
            output.panic()

    def tend(self) -> Sequence[tuple[str, str]]:
        """Say everywhere that the engine is alive, and return what went wrong."""
        return [news for output in self._outputs for news in output.tend()]

    def statistics(self) -> Mapping[str, object]:
        """Return the figures of the first."""
        return self._outputs[0].statistics()
