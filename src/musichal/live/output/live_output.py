"""The engine's output: decisions become notes and slices for the scheduler, by the routes of their voices."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

from musichal.errors import MusicHalError
from musichal.live.engine import slice_events
from musichal.live.output.routing import Routing
from musichal.live.output.scheduler import Scheduler
from musichal.live.output.scheduler_protocol import Trouble
from musichal.machine import now_s
from musichal.partner.decision import Decision

_ALIVE_S = 0.1
_RESTART_S = 2.0


class LiveOutput:
    """Plays decisions on the ports of a scheduler, and restarts it where it ended.

    Parameters
    ----------
    scheduler : Scheduler
        Entered; its ports are those of all routings.
    routings : sequence of Routing
        Every note is played by each of them.
    slices : Scheduler, optional
        A second one, entered, with one port ``slices:PARTNER.hal``: plays the recording of each decision too.
    recordings : int
        How many recordings the partner has. What the player played, learned live, is not among them.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        routings: Sequence[Routing],
        *,
        slices: Scheduler | None = None,
        recordings: int = 0,
    ) -> None:
        self._scheduler, self._slices, self._routings = scheduler, slices, tuple(routings)
        self._schedulers = (scheduler,) if slices is None else (scheduler, slices)
        self._recordings = recordings
        self._alive_s = -math.inf
        self._restarted_s = [-math.inf for _ in self._schedulers]
        self._muted = False
        self._unrouted: set[str] = set()
        self._news: list[tuple[str, str]] = []
        self._last_slice: tuple[int, float] | None = None

    def play(self, decision: Decision, moment_of: Callable[[float], float]) -> int:
        """Schedule the notes of a decision, and its slice; returns how many were taken.

        A voice without a route is not played, and reported once.
        """
        taken = 0
        for routing in self._routings:
            route = routing.route_of(decision.voice)
            if route is None:
                self._report_unrouted(decision.voice)
                continue
            placed = [route.place(note, moment_of(note.onset_s)) for note in decision.notes]
            notes = [note for note in placed if note is not None]
            taken += self._scheduler.play(route.port, notes, tag=_tag(decision))
        return taken + (0 if self._slices is None else self._play_slice(self._slices, decision, moment_of))

    def _report_unrouted(self, voice: str) -> None:
        if voice not in self._unrouted:
            self._unrouted.add(voice)
            self._news.append(("voice", f"the voice {voice!r} has no route in the table of voices: it is not played there"))

    def _play_slice(self, scheduler: Scheduler, decision: Decision, moment_of: Callable[[float], float]) -> int:
        """Schedule the slice of a decision; voices that share a state are one slice."""
        events = slice_events([decision])
        place = decision.choice, decision.time_s
        if not events or place == self._last_slice or events[0].recording >= self._recordings:
            return 0
        self._last_slice = place
        return scheduler.play(scheduler.ports[0], [events[0].at(moment_of(events[0].onset_s))], tag=_tag(decision))

    def mute(self, muted: bool) -> None:
        """While muted, strike no note; what sounds ends."""
        self._muted = muted
        for scheduler in self._schedulers:
            scheduler.mute(muted)

    def panic(self) -> None:
        """End everything, and drop what is scheduled."""
        for scheduler in self._schedulers:
            scheduler.panic()

    def tend(self) -> Sequence[tuple[str, str]]:
        """Report to the schedulers that the engine is alive; returns what went wrong since the last call."""
        now = now_s()
        if now - self._alive_s < _ALIVE_S:
            return ()
        self._alive_s = now
        news, self._news = self._news, []
        for index, scheduler in enumerate(self._schedulers):
            restarted = self._keep_alive(index, scheduler, now)
            news += [(event.kind, event.text) for event in scheduler.events() if isinstance(event, Trouble)]
            news += restarted
        return news

    def _keep_alive(self, index: int, scheduler: Scheduler, now: float) -> list[tuple[str, str]]:
        if scheduler.alive() or now - self._restarted_s[index] <= _RESTART_S:
            return []
        self._restarted_s[index] = now
        try:
            scheduler.restart()
            scheduler.mute(self._muted)
        except (MusicHalError, OSError) as error:
            return [("scheduler", f"the scheduler cannot be restarted: {error}")]
        return [("scheduler", "the scheduler is restarted")]

    def statistics(self) -> Mapping[str, object]:
        """Return the figures of the first scheduler, those in seconds as milliseconds."""
        values: dict[str, object] = {}
        for name, value in asdict(self._scheduler.statistics()).items():
            seconds = name.endswith("_s")
            values[f"midi_{name.removesuffix('_s')}" + ("_ms" if seconds else "")] = (
                round(1000 * value, 3) if seconds else value
            )
        return values


def _tag(decision: Decision) -> int:
    return decision.number & 0xFFFFFFFF
