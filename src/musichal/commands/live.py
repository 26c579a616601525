"""`musichal play` with a live input: play until the end, and show what happens.

At a terminal the stage board is shown, elsewhere plain lines.
"""

import math
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from musichal.commands.board import Board, Display
from musichal.commands.options import PlayOptions
from musichal.commands.play import settings_of
from musichal.commands.terminal import RETAKEN, Poll, Terminal, keys
from musichal.live.control import DISPLAY_COMMANDS, KEY_NAMES, Command, key_command
from musichal.live.engine import EngineObserver
from musichal.live.live_performance import LivePerformance, LiveRequest, MakePlayer, OscPorts, live_player
from musichal.machine import now_s
from musichal.partner.mode_controller import directed_by
from musichal.text import printable

_POLL_S = 0.12
_MOST_MODE_KEYS = 9
QUITS_WITHIN_S = 2.0
"""A key quits if it was pressed so shortly before: one stroke by mistake must not end a concert."""


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
        board.title = f"MusicHal listens to {printable(performance.input.device.label)}"
        board.duration_s = performance.request.duration_s or board.duration_s
        modes = list(directed_by(performance.request.settings.direction)[0])[:_MOST_MODE_KEYS]
        board.modes = modes if sys.stdin.isatty() else ()
        with keys_to(performance.put, modes, board), Display(board, terminal) as display:
            while not performance.wait(_POLL_S):
                display.update()
            performance.stop()
    for warning in performance.warnings:
        terminal.warn(warning)
    _report(performance, terminal)
    return performance.summary


@contextmanager
def keys_to(put: Callable[[Command], object], modes: Sequence[str], board: Board) -> Iterator[None]:
    """Turn the keys that are pressed into commands while the block runs, on a thread: a tap must not wait for the display."""
    ended = threading.Event()

    def read(poll: Poll) -> None:
        quit_until_s = -math.inf
        while not ended.is_set():
            for key in poll(_POLL_S):
                asked = key_command(key, modes)
                if key == RETAKEN:
                    board.key("redraw")
                elif asked is None:
                    board.say(f"the key {key!r} does nothing: ? shows the keys")
                elif asked.name in DISPLAY_COMMANDS:
                    board.key(asked.name)
                elif asked.name == "quit" and now_s() >= quit_until_s:
                    quit_until_s = now_s() + QUITS_WITHIN_S
                    board.say(f"press {KEY_NAMES.get(key, key)} again to end", for_s=QUITS_WITHIN_S)
                else:
                    put(asked)

    with keys() as poll:
        thread = threading.Thread(target=read, args=(poll,), name="keys", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def live_request(options: PlayOptions) -> LiveRequest:
    """Return the options of a live performance, files of settings read and checked; what has the same name is the same."""
    listen, send = options.osc_ports()
    other: dict[str, Any] = {
        "audio_out": options.audio_out or ("default" if options.sound == "slices" else None),
        "program": options.program - 1,
        "osc": OscPorts(listen=listen, send=send, host=options.osc_host, to_host=options.osc_to),
        "latency_s": options.latency / 1000,
        "settings": settings_of(options),
    }
    same = {field.name: getattr(options, field.name) for field in fields(LiveRequest) if field.name not in other}
    return LiveRequest(**same, **other)


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
    if session is not None and not performance.is_cut_short:
        terminal.say(f"Wrote {printable(session)}; `musichal replay {printable(session)}` plays it again.")
