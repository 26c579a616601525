"""Ableton Link: the tempo and beat of a session on the local network become a pulse in the time of the stream.

`LinkSession` runs the process that takes part (`stage.link_process`), a `LinkClock` turns what it says into the same pulse
that MIDI clock gives. MusicHal follows: it never changes a session's tempo.

Link works by multicast on every network interface, so it is the one part of MusicHal that others reach unasked; it runs only
where the player asked for it. What comes from it is numbers, and nothing but a pulse within bounds is made of them.
"""

import contextlib
import json
import math
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from musichal.live.input.link_process import MODULE, need_aalink
from musichal.own_process import command, end_reader, starting_children

_LOWEST_BPM, _HIGHEST_BPM = 6.0, 600.0  # what a pulse can be
_MOST_BEATS = 1e9
_AGAIN_S = 2.0
_CLOSE_S = 2.0
_LONGEST_LINE = 4096


@dataclass(frozen=True)
class LinkReport:
    """What was seen of a session: the `beat` at a moment `at_s` of the machine's clock, and how the session is.

    `peers` are the others in it; `playing` is its transport, where they share one.
    """

    at_s: float
    beat: float
    tempo_bpm: float
    peers: int
    playing: bool

    @property
    def is_playable(self) -> bool:
        """Return whether there is somebody to follow, at a tempo that a pulse can have."""
        return self.peers > 0 and _LOWEST_BPM <= self.tempo_bpm <= _HIGHEST_BPM and abs(self.beat) < _MOST_BEATS

    @property
    def last_beat_s(self) -> float:
        """Return when the latest whole beat was, as a moment of the machine's clock."""
        return self.at_s - (self.beat - math.floor(self.beat)) * self.period_s

    @property
    def period_s(self) -> float:
        """Return the seconds of a beat."""
        return 60 / self.tempo_bpm


def link_report(line: bytes) -> LinkReport:
    """Return what a line of the process says; raises `ValueError` for anything else."""
    values = json.loads(line)
    if not isinstance(values, dict):
        raise ValueError("not a report")
    numbers = [values.get(name) for name in ("at_s", "beat", "tempo_bpm")]
    peers, playing = values.get("peers"), values.get("playing")
    if not all(isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in numbers):
        raise ValueError("a moment, a beat and a tempo are numbers")
    if type(peers) is not int or peers < 0 or not isinstance(playing, bool):
        raise ValueError("peers are counted, and the transport runs or does not")
    at_s, beat, tempo_bpm = (float(n) for n in numbers if n is not None)
    return LinkReport(at_s, beat, tempo_bpm, peers, playing)


class LinkClock:
    """Tells a partner the pulse of a session, and the player what becomes of it.

    There is no pulse while nobody else is in the session, for then its tempo is nobody's; none either after somebody stopped
    the shared transport, until it is started again. A session whose transport was never started has beats all the same.

    Parameters
    ----------
    stream_s : callable
        Gives the time of the stream for a moment of the machine's clock, None where there is none yet.
    tell : callable
        Takes {"beat_s": …, "period_s": …} in the time of the stream, or None where there is no pulse (any more).
    say : callable
        Takes a sentence for the player.
    """

    def __init__(
        self,
        stream_s: Callable[[float], float | None],
        tell: Callable[[Mapping[str, float] | None], object],
        say: Callable[[str], object],
    ) -> None:
        self._stream_s, self._tell, self._say = stream_s, tell, say
        self._told = self._stopped = self._was_playing = False
        self._said = ""
        self.latest: LinkReport | None = None
        """What was seen last, None before the session was joined; replaced as a whole, for any thread."""

    def take(self, report: LinkReport) -> None:
        """Take what was seen."""
        if report.playing or not report.peers:
            self._stopped = False
        elif self._was_playing:
            self._stopped = True
        self._was_playing, self.latest = report.playing and report.peers > 0, report
        beat_s = self._stream_s(report.last_beat_s) if report.is_playable and not self._stopped else None
        if beat_s is not None:
            self._told = True
            self._tell({"beat_s": beat_s, "period_s": report.period_s})
        elif not report.is_playable or self._stopped:
            self._end_pulse()
        self._say_once(self._state(report))

    def lose(self) -> None:
        """Forget the session: what is seen next is seen for the first time."""
        self._was_playing = self._stopped = False
        self._end_pulse()

    def _end_pulse(self) -> None:
        if self._told:
            self._told = False
            self._tell(None)

    def to_dict(self) -> dict[str, object]:
        """Return how the session is, for a summary."""
        seen = self.latest
        if seen is None:
            return {"peers": 0, "tempo_bpm": None, "playing": False}
        return {"peers": seen.peers, "tempo_bpm": round(seen.tempo_bpm, 2), "playing": seen.playing}

    def _state(self, report: LinkReport) -> str:
        if not report.peers:
            return "Link: nobody else is in the session"
        others = "1 peer" if report.peers == 1 else f"{report.peers} peers"
        if not report.is_playable:
            return f"Link: {others}, at a tempo that cannot be followed ({report.tempo_bpm:.4g} beats per minute)"
        stopped = ", stopped" if self._stopped else ""
        return f"Link: {others}, {report.tempo_bpm:.1f} beats per minute{stopped}"

    def _say_once(self, text: str) -> None:
        if text != self._said:
            self._said = text
            self._say(text)


class LinkSession:
    """Takes part in the session of the local network while its block runs, in a process of its own.

    Where that process ends unasked, the pulse is lost, the player is told, and another one is started.

    Parameters
    ----------
    clock : LinkClock
        Given every report, in a thread of this object's own.
    say : callable
        Takes a sentence for the player.
    """

    def __init__(self, clock: LinkClock, say: Callable[[str], object]) -> None:
        self._clock, self._say = clock, say
        self._closing = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._take_part, name="link", daemon=True)

    def __enter__(self) -> Self:
        """Join; raises `MissingExtraError` without aalink."""
        need_aalink()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closing.set()
        end_reader(self._thread, lambda: self._process, patience_s=_CLOSE_S, killed_s=_CLOSE_S)

    def _take_part(self) -> None:
        said = ""
        while not self._closing.is_set():
            why = self._run_process()
            self._clock.lose()
            if self._closing.is_set():
                return
            if why != said:
                said = why
                self._say(f"Link ended ({why}); it is started again")
            self._closing.wait(_AGAIN_S)

    def _run_process(self) -> str:
        """Run one process from its start to its end; return why it ended, as far as it said so."""
        with starting_children():
            self._process = subprocess.Popen(command(MODULE), stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603 - our own
        with self._process as process:
            assert process.stdout is not None
            why = "its process ended"
            if self._closing.is_set() and process.stdin is not None:
                process.stdin.close()
            while line := process.stdout.readline(_LONGEST_LINE):
                try:
                    self._clock.take(link_report(line))
                except ValueError:
                    why = _failure(line) or why
        return why


def _failure(line: bytes) -> str | None:
    """Return what a line says went wrong, None where it says nothing."""
    with contextlib.suppress(ValueError):
        values: Any = json.loads(line)
        if isinstance(values, dict) and isinstance(values.get("failed"), str):
            return values["failed"][:500]
    return None
