"""`musichal play` with a live input: play until the end, and show what happens.

At a terminal a small board is shown, elsewhere plain lines.
"""

import contextlib
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from musichal.audio.levels import Levels
from musichal.commands.options import PlayOptions
from musichal.commands.play import settings_of
from musichal.commands.terminal import Poll, Terminal, keys
from musichal.hearing.percepts import SILENCE, Percept
from musichal.live.control import Command, key_command
from musichal.live.drift import DriftReport
from musichal.live.engine import EngineObserver
from musichal.live.live_performance import LivePerformance, LiveRequest, MakePlayer, OscPorts, live_player
from musichal.live.session.event_log import Changed, Entry
from musichal.partner.decision import Decision
from musichal.partner.mode_controller import directed_by
from musichal.text import clock, printable

_POLL_S = 0.12
_MOST_MODE_KEYS = 9


def live_command(
    options: PlayOptions,
    terminal: Terminal,
    *,
    make_player: MakePlayer = live_player,
    observers: Sequence[EngineObserver] = (),
    opened: Callable[[LivePerformance], object] = lambda _: None,
) -> dict[str, Any]:
    """Play until the player quits, the time is over, or Ctrl-C; then end every note and close the session whole.

    `opened` is called once all is open and plays.

    Raises `MusicHalError` for what cannot be opened, before a sound is heard; if the analysis fails, after all is closed.
    """
    board = Board()
    performance = LivePerformance(
        live_request(options),
        make_player=make_player,
        observers=[board, *observers],
        loading=lambda: terminal.progress("Loading the partner"),
        stop_event=stop_signals,
    )
    board.explain = performance.explain
    with performance:
        opened(performance)
        title = f"MusicHal listens to {printable(performance.input.device.label)}"
        modes = list(directed_by(performance.request.settings.direction)[0])[:_MOST_MODE_KEYS]
        level = lambda: performance.input.level  # noqa: E731
        shown = modes if sys.stdin.isatty() else ()
        with keys_to(performance.put, modes), Display(board, level, terminal, title=title, modes=shown) as display:
            while not performance.wait(_POLL_S):
                display.update()
            performance.stop()
    for warning in performance.warnings:
        terminal.warn(warning)
    _report(performance, terminal)
    return performance.summary


@contextmanager
def keys_to(put: Callable[[Command], object], modes: Sequence[str]) -> Iterator[None]:
    """Turn the keys that are pressed into commands while the block runs, on a thread: a tap must not wait for the display."""
    ended = threading.Event()

    def read(poll: Poll) -> None:
        while not ended.is_set():
            for key in poll(_POLL_S):
                if (command := key_command(key, modes)) is not None:
                    put(command)

    with keys() as poll:
        thread = threading.Thread(target=read, args=(poll,), name="keys", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def live_request(options: PlayOptions) -> LiveRequest:
    """Return the options of a live performance, files of settings read and checked."""
    listen, send = options.osc_ports()
    return LiveRequest(
        partner=options.partner,
        input=options.input,
        channels=options.channels,
        midi_out=options.midi_out,
        audio_out=options.audio_out or ("default" if options.sound == "slices" else None),
        sound=options.sound,
        soundfont=options.soundfont,
        program=options.program - 1,
        voices=options.voices,
        session=options.session,
        osc=OscPorts(listen=listen, send=send, host=options.osc_host, to_host=options.osc_to),
        control_in=options.control_in,
        control_map=options.control_map,
        clock_in=options.clock_in,
        link=options.link,
        duration_s=options.duration_s,
        block=options.block,
        latency_s=options.latency / 1000,
        seed=options.seed,
        force=options.force,
        settings=settings_of(options),
    )


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Give an event that Ctrl-C and other signals to end set; they interrupt nothing while the block runs."""
    stop = threading.Event()
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for name in names:
            number = signal.Signals[name]
            before[number] = signal.signal(number, lambda *_: stop.set())
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _report(performance: LivePerformance, terminal: Terminal) -> None:
    terminal.result(performance.summary)
    counts = performance.engine.counts
    terminal.say(
        f"Played {counts.notes} notes in {performance.summary['duration_s']:.1f} s; heard {counts.segments} segments"
        f" ({counts.skipped} skipped), {counts.onsets} onsets."
    )
    if counts.lost_samples:
        terminal.say(f"{counts.lost_samples} samples of the input were lost, in {counts.gaps} places.")
    session = performance.request.session
    if session is not None:
        terminal.say(f"Wrote {printable(session)}; `musichal replay {printable(session)}` plays it again.")


_PLAIN_S = 10.0
_EVENTS = 5
_METER_CELLS = 30
_METER_FLOOR_DB = -60.0
KEYS_TEXT = "q quit · p panic · m mute · l listen · n change · b go back · + more like this · t tap · 1 to {} {} · 0 auto"


class Board(EngineObserver):
    """Collects on the engine's thread what the main thread displays; each value is replaced as a whole.

    Parameters
    ----------
    explain : callable
        Returns the reason of a decision in words; called by the thread that displays it.
    """

    def __init__(self, explain: Callable[[Decision], str] = lambda _: "") -> None:
        self.explain = explain
        self.values: dict[str, object] = {}
        self.latest: Decision | None = None
        self.mode = ""
        self.alarm = ""
        self.link = ""
        self.tokens = ""
        self.events: deque[str] = deque(maxlen=_EVENTS)
        self.unsaid: deque[str] = deque(maxlen=100)
        self._moved = ""

    def percept(self, percept: Percept) -> None:
        """Keep the last tokens of a segment."""
        last = percept.tokens[:, -1].tolist() if percept.tokens.shape[1] else []
        self.tokens = " ".join("·" if token == SILENCE else str(token) for token in last)

    @property
    def reason(self) -> str:
        """Return the reason of the latest decision in words."""
        return "" if self.latest is None else self.explain(self.latest)

    def decision(self, decision: Decision) -> None:
        """Keep the decision, and its mode."""
        self.latest = decision
        self.mode = str(getattr(decision, "mode", "") or self.mode)

    def entry(self, entry: Entry) -> None:
        """Keep a mode that was chosen by hand."""
        if isinstance(entry, Changed) and isinstance(entry.changes.get("mode"), str):
            self.mode = str(entry.changes["mode"])

    def drift(self, report: DriftReport) -> None:
        """Keep an alarm while it stands."""
        self.alarm = report.text if report.event == "raised" else ""
        self._add(report.text)

    def event(self, at_s: float, kind: str, text: str) -> None:
        """Keep what happened, and how a Link session is; of a controller that is moved, where it is now."""
        if kind == "link":
            self.link = text
        name = text.partition(" ")[0] if kind in ("control", "clock") else ""
        if name and name == self._moved:
            # Each step of a fader would push out what else should be seen.
            for kept in (self.events, self.unsaid):
                with contextlib.suppress(IndexError):
                    kept.pop()
        self._add(f"{clock(at_s)} {text}")
        self._moved = name

    def statistics(self, values: dict[str, object]) -> None:
        """Keep the figures."""
        self.values = values

    def _add(self, text: str) -> None:
        self._moved = ""
        self.events.append(text)
        self.unsaid.append(text)


class Display:
    """Shows a board on the error stream, eight times a second at a terminal, else a line where something happens.

    Parameters
    ----------
    level : callable
        Gives the level of the input.
    modes : sequence of str
        Those that keys choose from; empty where no keys are read.
    """

    def __init__(
        self, board: Board, level: Callable[[], Levels], terminal: Terminal, *, title: str, modes: Sequence[str]
    ) -> None:
        self._board, self._level, self._terminal = board, level, terminal
        self._title = title
        self._keys = KEYS_TEXT.format(len(modes), ", ".join(modes)) if modes else ""
        self._live = Live(console=terminal.err, refresh_per_second=8, transient=True, auto_refresh=False)
        self._next_plain_s = _PLAIN_S

    def __enter__(self) -> "Display":
        if self._terminal.err.is_terminal:
            self._live.start()
        else:
            self._say(self._title)
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal.err.is_terminal:
            self._live.stop()
        self._say_unsaid()

    def update(self) -> None:
        """Show what is new."""
        if self._terminal.err.is_terminal:
            self._live.update(self._render(), refresh=True)
            return
        self._say_unsaid()
        time_s = self._number("time_s")
        if time_s >= self._next_plain_s:
            self._next_plain_s = time_s + _PLAIN_S
            self._say(f"{clock(time_s)} {self._figures()}; {self._board.reason}")

    def _say_unsaid(self) -> None:
        while self._board.unsaid:
            text = self._board.unsaid.popleft()
            if not self._terminal.err.is_terminal:
                self._say(text)

    def _say(self, text: str) -> None:
        self._terminal.err.print(escape(text), highlight=False, soft_wrap=True)

    def _number(self, name: str) -> float:
        value = self._board.values.get(name, 0)
        return float(value) if isinstance(value, int | float) else 0.0

    def _figures(self) -> str:
        b = self._board
        parts = [
            f"{self._number('tokens_per_s'):.0f} tokens/s",
            f"{self._number('onsets'):.0f} onsets",
            f"{self._number('notes'):.0f} notes",
            f"hearing {self._number('hearing_p50_ms'):.0f} ms",
            f"99 % of notes at most {self._number('midi_lateness_p99_ms'):.1f} ms late",
        ]
        if self._number("skipped"):
            parts.append(f"{self._number('skipped'):.0f} segments skipped")
        if self._number("lost_samples"):
            parts.append(f"{self._number('lost_samples'):.0f} samples lost")
        if b.mode:
            parts.insert(0, b.mode)
        if b.values.get("muted"):
            parts.append("MUTED")
        if b.values.get("listening") is False:
            parts.append("NOT LISTENING")
        return ", ".join(parts)

    def _render(self) -> Group:
        level = self._level()
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold", no_wrap=True)
        table.add_column(ratio=1)
        table.add_row("input", _meter(level))
        table.add_row("now", f"{clock(self._number('time_s'))}  {escape(self._figures())}")
        table.add_row("hears", escape(self._board.tokens))
        table.add_row("why", escape(self._board.reason))
        if self._board.link:
            table.add_row("clock", escape(self._board.link))
        if self._board.alarm:
            table.add_row("alarm", Text(self._board.alarm, style="bold red"))
        for text in list(self._board.events):
            table.add_row("", Text(text, style="dim"))
        parts: list[Text | Table] = [Text(self._title, style="bold"), table]
        if self._keys:
            parts.append(Text(self._keys, style="dim"))
        return Group(*parts)


def _meter(level: Levels) -> Text:
    def cells(db: float) -> int:
        return round(_METER_CELLS * min(1.0, max(0.0, 1 - db / _METER_FLOOR_DB)))

    loud, peak = cells(level.rms_db), max(cells(level.peak_db), cells(level.rms_db))
    colour = "red" if level.peak_db > -1 else "yellow" if level.peak_db > -6 else "green"
    text = Text("█" * loud, style=colour)
    text.append("─" * (peak - loud), style=colour)
    text.append(" " * (_METER_CELLS - peak))
    return text.append(f" {level.peak_db:6.1f} dBFS", style="")
