"""The stage board: what a player asks at a glance, in lines of at most 60 characters, large enough to read from two metres.

It changes once a second at most, but for what the partner does. At a terminal the lines stay in place; elsewhere, and where the
terminal can do no more, plain lines are printed when something happens.
"""

import contextlib
import textwrap
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from rich.live import Live
from rich.markup import escape
from rich.text import Text

from musichal.audio.levels import FLOOR_DB
from musichal.commands.terminal import Terminal
from musichal.hearing.percepts import SILENCE, Percept
from musichal.live.control import key_card
from musichal.live.drift import DriftReport
from musichal.live.engine import EngineObserver
from musichal.live.stage import StageState
from musichal.machine import now_s
from musichal.partner.decision import Decision
from musichal.text import clock

WIDTH = 60
"""No line of the board is longer."""
_ALARMS = {"lost": 120.0, "overload": 30.0, "jump": 10.0, "input-clipping": 15.0, "port": 30.0, "scheduler": 30.0}
_LASTING = ("session", "input-gone", "input-silent", "input-waiting", "drift", "port-lost", "gone", "unresponsive", "observer")
_SETTLES = {
    "lost-over": ("lost",),
    "input-returned": ("input-gone", "input-waiting", "input-silent"),
    "input-sound": ("input-silent",),
    "port-back": ("port-lost",),
    "scheduler": ("gone", "unresponsive"),
}
"""Which alarms an event settles; others stay for so many seconds, or for ever."""
_OF_ONE = ("input-gone", "port-lost")
"""Alarms of one port or input: several may stand."""
_EVENT_S = 8.0
_AWAKE_S = 3.0
_PLAIN_S = 10.0
_EVENTS, _SHOWN_ALARMS, _KEYS_WIDTH = 3, 2, 14
_CELLS, _FLOOR_DB, _GOOD_DB = 30, -60.0, (-30.0, -6.0)
_COLOURS = {"none": "red", "quiet": "yellow", "good": "green", "loud": "yellow", "too loud": "red"}
Line = tuple[str, str]
"""A line and its style."""


class Board(EngineObserver):
    """Collects, on a thread of the performance, what the main thread displays; each value is replaced as a whole.

    `explain`: returns the reason of a decision in words; called by the thread that displays it.
    """

    def __init__(self, explain: Callable[[Decision], str] = lambda _: "") -> None:
        self.explain = explain
        self.title, self.duration_s = "", float("inf")
        self.modes: Sequence[str] = ()
        self.state: StageState | None = None
        self.values: dict[str, object] = {}
        self.news = 0
        """Counts what must be shown at once."""
        self.unsaid: deque[str] = deque(maxlen=100)
        self.wants_redraw = False
        self._card = self._figures = False
        self._latest: Decision | None = None
        self._tokens = self._link = ""
        self._moved: tuple[str, tuple[float, str], str] | None = None  # a controller, its event and its line
        self._alarms: dict[tuple[str, str], tuple[float, str]] = {}  # by kind, and by text where several may stand
        self._events: deque[tuple[float, str]] = deque(maxlen=_EVENTS)

    # ── what comes ───────────────────────────────────────────────────────────

    def percept(self, percept: Percept) -> None:
        """Keep the last tokens of a segment."""
        last = percept.tokens[:, -1].tolist() if percept.tokens.shape[1] else []
        self._tokens = " ".join("·" if token == SILENCE else str(token) for token in last)

    def decision(self, decision: Decision) -> None:
        """Keep the decision."""
        self._latest = decision

    def stage(self, state: StageState) -> None:
        """Keep the state, and say a mode, a section or advice that is new."""
        before, self.state = self.state, state
        if before is None or before.fixed != state.fixed:
            self.news += 1
        place, was = state.form, None if before is None else before.form
        if before is not None and state.partner.mode != before.partner.mode:
            self.unsaid.append(f"{clock(state.time_s)} now {state.partner.mode} ({state.partner.chosen_by})")
        if place is not None and place.name and (was is None or was.name != place.name):
            self.unsaid.append(f"{clock(state.time_s)} section {place.number} of {place.count}: {place.name}")
        if place is not None and place.has_ended and was is not None and not was.has_ended:
            over = "the form" if place.count else "the music"
            self.unsaid.append(f"{clock(state.time_s)} {over} is over: it plays no more and listens; a mode plays on, q quits")
        if state.advice and (before is None or before.advice != state.advice):
            self.unsaid.append(f"{clock(state.time_s)} {state.advice}")

    def statistics(self, values: dict[str, object]) -> None:
        """Keep the figures."""
        self.values = values

    def drift(self, report: DriftReport) -> None:
        """Keep an alarm while it stands."""
        self._alarms.pop(("drift", ""), None)
        if report.event == "raised":
            self._alarms["drift", ""] = (now_s(), report.text)
        self.unsaid.append(report.text)
        self.news += 1

    def event(self, at_s: float, kind: str, text: str) -> None:
        """Keep what happened: an alarm by its kind, of a controller that is moved where it is now, and anything else."""
        if kind == "link":
            self._link = text
        slept_s, _ = self._alarms.get(("jump", ""), (float("-inf"), ""))
        if kind in ("silent", "notice") and text.startswith("MusicHal") and now_s() - slept_s < _AWAKE_S:
            return  # the scheduler noticed it too
        for settled in _SETTLES.get(kind, ()):
            self._settle(settled, text)
        if kind in _ALARMS or kind in _LASTING:
            if not (kind == "port" and text.startswith("plays to")):
                self._alarms[kind, text if kind in _OF_ONE else ""] = (now_s(), text)
            self.unsaid.append(f"{clock(at_s)} {text}")
            self.news += 1
            return
        name = text.partition(" ")[0] if kind in ("control", "clock") else ""
        event, line, before = (now_s(), text), f"{clock(at_s)} {text}", self._moved
        if name and before is not None and before[0] == name:
            # Each step of a fader would push out what else should be seen.
            _drop_last(self._events, before[1])
            _drop_last(self.unsaid, before[2])
        self._moved = (name, event, line) if name else None
        self._events.append(event)
        self.unsaid.append(line)
        self.news += 1

    def _settle(self, kind: str, text: str) -> None:
        """Take back the alarms of a kind; of several ports or inputs those of the one that is back, where it can be told."""
        standing = [key for key in self._alarms if key[0] == kind]
        port, colon, _ = text.partition(": ")
        name = port + colon if colon else text.removesuffix("is back")
        for key in [key for key in standing if key[1].startswith(name)] or standing:
            self._alarms.pop(key, None)

    def say(self, text: str, *, for_s: float = _EVENT_S) -> None:
        """Show a sentence for a while."""
        self._events.append((now_s() + for_s - _EVENT_S, text))
        self.unsaid.append(text)
        self.news += 1

    def key(self, name: str) -> None:
        """Obey a command of the display."""
        if name == "help":
            self._card = not self._card
        elif name == "figures":
            self._figures = not self._figures
        elif name == "redraw":
            self.wants_redraw = True
        self.news += 1

    # ── what is seen ─────────────────────────────────────────────────────────

    def lines(self) -> list[Line]:
        """Return the lines to show now, none over `WIDTH`."""
        state = self.state
        found: list[Line] = [(self.title, "dim")]
        if state is not None:
            found += [self._mode(state), self._doing(state)]
            found += [] if state.form is None or state.form.has_ended else [self._section(state)]
            found += [("time      " + self._time(state), ""), self._level(state)]
        at_s = now_s()
        alarms = [(s, t) for (kind, _), (s, t) in list(self._alarms.items()) if at_s - s < _ALARMS.get(kind, float("inf"))]
        if state is not None and state.advice:
            alarms.append((at_s, state.advice))
        for _, text in sorted(alarms)[-_SHOWN_ALARMS:]:
            found += [(line, "bold red") for line in textwrap.wrap(text, WIDTH)]
        for said_s, text in list(self._events):
            if at_s - said_s < _EVENT_S:
                found += [(line, "") for line in textwrap.wrap(text, WIDTH)]
        if self._figures:
            found += [(line, "dim") for text in self._figure_lines() for line in textwrap.wrap(text, WIDTH)]
        if self._card:
            for keys, about in key_card(self.modes):
                parts = textwrap.wrap(about, WIDTH - _KEYS_WIDTH)
                found += [(f"{keys if not n else '':<{_KEYS_WIDTH}}{part}", "") for n, part in enumerate(parts)]
        if self.modes:
            found.append(("? keys · f figures · space pause · q twice: quit", "dim"))
        return [(line[: WIDTH - 1] + "…" if len(line) > WIDTH else line, style) for line, style in found]

    def plain(self) -> str:
        """Return the state as one line, for where lines do not stay in place."""
        state = self.state
        if state is None:
            return ""
        mode, does, level = self._mode(state)[0].split(), self._doing(state)[0], state.zone
        if state.form is not None and state.form.has_ended:
            return f"{self._time(state)} {' '.join(mode)}; level {level}"
        doing = " ".join(does.split())
        return f"{self._time(state)} {' '.join(mode)}, {doing.lower() if state.has_input else doing}; level {level}"

    def _mode(self, state: StageState) -> Line:
        status, place = state.partner, state.form
        if place is not None and place.has_ended:
            return ("DONE      it plays no more: a mode plays on, q quits", "bold")
        if not status.mode:
            return ("PLAYS BY ITS SETTINGS", "bold")
        left = "" if status.mode_left_s is None else f", {clock(status.mode_left_s, decimals=0)} more at least"
        chosen = {"you": "you chose it", "the form": "by the form"}.get(status.chosen_by, f"auto{left}")
        return (f"{status.mode.upper():<9} {chosen}", "bold")

    def _doing(self, state: StageState) -> Line:
        if not state.has_input:
            return ("NO INPUT  it waits for your sound to come back", "bold red")
        left = "" if state.left_s is None else f"{max(1, round(state.left_s))} s"
        if state.partner.paused:
            return ("PAUSED    space goes on", "bold yellow")
        if not state.listening:
            return ("DEAF      it does not listen to you: press l", "bold yellow")
        if state.muted:
            return (f"MUTED     {state.does}: press m", "bold yellow")
        if state.plays:
            return (f"PLAYS     {state.why}", "bold green")
        verb, _, rest = state.does.partition(" ")
        return (f"{verb.upper():<9} {', '.join(filter(None, (rest, left)))}", "bold")

    def _section(self, state: StageState) -> Line:
        place = state.form
        assert place is not None
        left = "" if place.left_s is None else f" {clock(place.left_s, decimals=0)} left"
        left = " held: h goes on" if place.held else left
        ending = " ends" if place.closing else ""
        following = f", then {place.next_name}" if place.next_name else ""
        number = f"{place.number}/{place.count} " if place.number else ""
        return (f"section   {number}{place.name}{ending}{left}{following}", "bold")

    def _time(self, state: StageState) -> str:
        place = state.form
        lefts = [self.duration_s - state.time_s]
        if place is not None and place.end_left_s is not None:
            lefts.append(place.end_left_s)
        left_s = min(lefts)
        return clock(state.time_s, decimals=0) + (f" · {clock(max(0.0, left_s), decimals=0)} left" if left_s < 1e9 else "")

    def _level(self, state: StageState) -> Line:
        if not state.has_input:
            return ("level     " + "·" * _CELLS + " NO INPUT", "bold red")
        filled, low, high = (_cells(db) for db in (state.peak_db if state.peak_db > FLOOR_DB else _FLOOR_DB, *_GOOD_DB))
        empty = "".join("─" if low <= cell < high else "·" for cell in range(filled, _CELLS))
        return (f"level     {'█' * filled}{empty} {state.zone}", _COLOURS[state.zone])

    def _figure_lines(self) -> list[str]:
        n = {name: float(value) for name, value in self.values.items() if isinstance(value, int | float)}
        figures = [
            f"{n.get('tokens_per_s', 0):.0f} tokens/s, {n.get('onsets', 0):.0f} onsets, {n.get('notes', 0):.0f} notes",
            f"hearing {n.get('hearing_p50_ms', 0):.0f} ms, {n.get('skipped', 0):.0f} segments skipped",
            f"99 % of notes at most {n.get('midi_lateness_p99_ms', 0):.1f} ms late",
            f"{n.get('lost_samples', 0):.0f} samples lost",
            f"hears {self._tokens}",
        ]
        latest = self._latest
        return [*figures, *([self._link] if self._link else []), "" if latest is None else self.explain(latest)]


def _drop_last(kept: deque[Any], last: object) -> None:
    with contextlib.suppress(IndexError):  # another thread may take it meanwhile
        if kept[-1] is last:
            kept.pop()


def _cells(db: float) -> int:
    return round(_CELLS * min(1.0, max(0.0, 1 - db / _FLOOR_DB)))


class Display:
    """Shows a board on the error stream: in place at a terminal, else as plain lines."""

    def __init__(self, board: Board, terminal: Terminal) -> None:
        self._board, self._terminal = board, terminal
        self._in_place = terminal.err.is_terminal and not terminal.err.is_dumb_terminal
        self._live: Live | None = None
        self._shown = (-1, -1.0)  # news and moment
        self._next_plain_s = _PLAIN_S

    def __enter__(self) -> "Display":
        if self._in_place:
            self._begin()
        else:
            self._say(self._board.title)
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
        self._say_unsaid()

    def update(self) -> None:
        """Show what is new: at once what the partner does, all else once a second."""
        if not self._in_place:
            self._say_unsaid()
            state = self._board.state
            if state is not None and state.time_s >= self._next_plain_s:
                self._next_plain_s = state.time_s + _PLAIN_S
                self._say(self._board.plain())
            return
        if self._board.wants_redraw and self._live is not None:
            # Something else was printed meanwhile, by a shell that had the terminal.
            self._board.wants_redraw = False
            self._live.transient = False
            self._live.stop()
            self._begin()
        news, at_s = self._board.news, now_s()
        if self._live is not None and (news != self._shown[0] or at_s - self._shown[1] >= 1):
            self._shown = news, at_s
            text = Text("\n").join(Text(line, style=style) for line, style in self._board.lines())
            self._live.update(text, refresh=True)

    def _begin(self) -> None:
        self._live = Live(console=self._terminal.err, transient=True, auto_refresh=False)
        self._live.start()
        self._shown = (-1, -1.0)

    def _say_unsaid(self) -> None:
        while self._board.unsaid:
            text = self._board.unsaid.popleft()
            if not self._in_place:
                self._say(text)

    def _say(self, text: str) -> None:
        self._terminal.err.print(escape(text), highlight=False, soft_wrap=True)
