"""What the board and marks cost, in two minutes through a JACK server: ``python -m benchmarks.board_cost [PARTNER.hal]``.

The demo's guitar, its spans of `_SPAN_S` in turn with the board, drawn on a pseudo terminal with its figures,
and a mark each second, and without both. *Decision* is the time that the partner takes to decide, *onset* from a note's arrival
to what was decided because of it, *lateness* the scheduler's own. The ratio of the two halves holds on a busy machine too.
"""

import contextlib
import os
import pty
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import soxr
from rich.console import Console

from benchmarks.jack_microphone import JackMicrophone
from benchmarks.jack_midi import private_server
from musichal.audio.recording import read_recording
from musichal.commands.board import Board, Display
from musichal.commands.play import PLAYER, RECORDING
from musichal.commands.terminal import Terminal
from musichal.live.control import Command
from musichal.live.live_performance import LivePerformance, LiveRequest
from musichal.live.stage import StageState
from musichal.memory.partner_file import PartnerModel, save_partner
from musichal.partner.decision import Decision
from musichal.partner.partner import Partner
from musichal.partner.settings import PartnerSettings
from musichal.spec import PerceptionSpec
from musichal.training.trainer import train

_RATE_HZ, _SPAN_S, _SPANS, _SETTLE_S, _FRAME_S = 48_000, 10.0, 12, 6.0, 0.12


class _Timed(Partner):
    """Keeps how long each decision took in `took_s`."""

    took_s: list[float]

    def decide(self, now_s: float) -> tuple[Decision, ...]:
        """Decide, and keep how long it took."""
        began_s = time.perf_counter()
        decided = super().decide(now_s)
        self.took_s.append(time.perf_counter() - began_s)
        return decided


class _Switched(Board):
    """A board that looks away while it is off."""

    is_on = False

    def decision(self, decision: Decision) -> None:
        """Keep the decision."""
        if self.is_on:
            super().decision(decision)

    def stage(self, state: StageState) -> None:
        """Keep the state."""
        if self.is_on:
            super().stage(state)


def measure(partner: Path) -> dict[str, dict[bool, list[float]]]:
    """Return the durations in seconds by what took them, with the board and without."""
    guitar = read_recording(PLAYER)
    sound = np.asarray(soxr.resample(guitar.samples, guitar.sample_rate_hz, _RATE_HZ), dtype=np.float32)
    found: dict[str, dict[bool, list[float]]] = {name: {True: [], False: []} for name in ("decision", "onset", "lateness")}
    board, took_s = _Switched(), list[float]()

    def make(model: PartnerModel, settings: PartnerSettings, seed: int) -> Partner:
        player = _Timed(model.memory, settings, rng=np.random.default_rng(seed), sample_rate_hz=model.spec.sample_rate_hz)
        player.took_s = took_s
        return player

    with tempfile.TemporaryDirectory() as folder, private_server(rate_hz=_RATE_HZ), JackMicrophone(sound) as microphone:
        screen = _screen()
        request = LiveRequest(
            partner=partner, input=microphone.name, midi_out="jack:MusicHal", session=Path(folder) / "session",
        )  # fmt: skip
        with LivePerformance(request, make_player=make, observers=[board]) as live, Display(board, screen) as display:
            board.key("figures")
            board.explain = live.explain
            microphone.go()
            live.wait(_SETTLE_S)
            for span in range(_SPANS):
                board.is_on = span % 2 == 0
                kept = {"decision": took_s, "onset": live.engine.times.onset, "lateness": live._scheduler._latenesses}
                for durations in kept.values():
                    durations.clear()
                until_s, marks_s = time.monotonic() + _SPAN_S, time.monotonic()
                while time.monotonic() < until_s:
                    live.wait(_FRAME_S)
                    if board.is_on:
                        display.update()
                        if time.monotonic() >= marks_s:
                            marks_s += 1.0
                            live.put(Command("mark", True))
                for name, durations in kept.items():
                    found[name][board.is_on] += list(durations)
    return found


def _screen() -> Terminal:
    """Return a terminal whose screen is a pseudo terminal that somebody reads."""
    ours, theirs = pty.openpty()

    def look() -> None:
        with contextlib.suppress(OSError):  # it is closed
            while os.read(ours, 65_536):
                pass

    threading.Thread(target=look, daemon=True).start()
    stream = os.fdopen(theirs, "w", encoding="utf-8")
    screen = Console(file=stream, force_terminal=True, width=80, height=40)
    return Terminal(screen, screen)


def main(partner: Path | None) -> None:
    """Measure, and print p50 and p99 with and without the board, and their ratio."""
    with tempfile.TemporaryDirectory() as folder:
        if partner is None:
            partner = Path(folder) / "partner.hal"
            save_partner(partner, train([read_recording(RECORDING)], PerceptionSpec()))
        for name, (on, off) in ((name, (both[True], both[False])) for name, both in measure(partner).items()):
            (on50, on99), (off50, off99) = (1000 * np.percentile(durations, [50, 99]) for durations in (on, off))
            sys.stdout.write(
                f"{name:9} with {on50:.3f} / {on99:.3f} ms ({len(on)}), without {off50:.3f} / {off99:.3f} ms ({len(off)});"
                f" p99 ratio {on99 / off99 if off99 else 1.0:.2f}\n"
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
