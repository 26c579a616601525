"""Ableton Link: the tempo and beat of a session on the local network become a pulse in the time of the stream.

`LinkSession` runs this module as a program (`main`) in a process of its own, which joins the session and writes one JSON object
a line to standard output: ``{"at_s", "beat", "tempo_bpm", "peers", "playing"}`` whenever something changed and every two
seconds, or ``{"failed": sentence}``. It ends when standard input ends. Link's threads and sockets, and `aalink` (GPL), are in
that process alone. A `LinkClock` turns the reports into the pulse that MIDI clock gives. MusicHal follows: it never sets the
tempo, beat or transport of a session.

Link uses multicast on every network interface, so it runs only where the player asked for it. Only numbers within bounds are
taken from it.
"""

import asyncio
import contextlib
import importlib.util
import json
import math
import os
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any, Self

from musichal.errors import MissingExtraError, install_hint
from musichal.machine import command, end_reader, end_with_stdin, now_s, own_output, starting_children

MODULE = "musichal.live.input.link"
_LOWEST_BPM, _HIGHEST_BPM = 6.0, 600.0  # what a pulse can be
_MOST_BEATS = 1e9
_AGAIN_S = 2.0
_CLOSE_S = 2.0
_LONGEST_LINE = 4096
_TEMPO_BPM = 120.0  # initial tempo; replaced by the session's tempo on joining
_SETTLE_S = 1.0  # a peer that joins in its first half second now and then brings its own tempo along
_LOOK_S, _REPORT_S = 0.05, 2.0
_LOOKS = 8
_MOVED_BEATS, _CHANGED = 0.001, 1e-5


def need_aalink() -> None:
    """Raise `MissingExtraError` where aalink is not installed; it is not imported."""
    if importlib.util.find_spec("aalink") is None:
        raise MissingExtraError(f"aalink, for Ableton Link, is not installed; {install_hint('link')}")


@dataclass(frozen=True)
class LinkReport:
    """The state of a session: the `beat` at the moment `at_s`, the number of other `peers`, and the shared transport."""

    at_s: float
    beat: float
    tempo_bpm: float
    peers: int
    playing: bool

    @property
    def is_playable(self) -> bool:
        """Return whether there are peers, at a tempo that a pulse can have."""
        return self.peers > 0 and _LOWEST_BPM <= self.tempo_bpm <= _HIGHEST_BPM and abs(self.beat) < _MOST_BEATS

    @property
    def last_beat_s(self) -> float:
        """Return the moment of the latest whole beat."""
        return self.at_s - (self.beat - math.floor(self.beat)) * self.period_s

    @property
    def period_s(self) -> float:
        """Return the duration of a beat."""
        return 60 / self.tempo_bpm


def link_report(line: bytes) -> LinkReport:
    """Parse a line of the process; raises `ValueError` for anything but a report."""
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
    """Reports the pulse of a session to the partner, and its state to the player.

    There is no pulse without peers, for then nobody chose the tempo, and none after the shared transport stopped, until it
    starts again. A session whose transport was never started has beats.

    * `stream_s`: Maps a moment to the time of the stream; None before the stream has one.
    * `tell`: Called with {"beat_s": …, "period_s": …} in the time of the stream, or None if there is no pulse (any more).
    * `say`: Called with a sentence for the player.
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
        """The latest report; None before the session was joined. Replaced as a whole, for any thread."""

    def take(self, report: LinkReport) -> None:
        """Take a report."""
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
        """Forget the session."""
        self._was_playing = self._stopped = False
        self._end_pulse()

    def _end_pulse(self) -> None:
        if self._told:
            self._told = False
            self._tell(None)

    def to_dict(self) -> dict[str, object]:
        """Return the state of the session, for a summary."""
        seen = self.latest
        if seen is None:
            return {"peers": 0, "tempo_bpm": None, "playing": False}
        return {"peers": seen.peers, "tempo_bpm": round(seen.tempo_bpm, 2), "playing": seen.playing}

    def _state(self, report: LinkReport) -> str:
        if not report.peers:
            return "Link: no peers in the session"
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
    """Takes part in the session of the local network while its context is open, in a process of its own.

    If that process ends by itself, the pulse ends, the player gets a sentence, and another process starts.

    * `clock`: Called with every report, on a thread of this object.
    * `say`: Called with a sentence for the player.
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

    def __exit__(self, *_: object) -> None:
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
                self._say(f"Link ended ({why}); restarting")
            self._closing.wait(_AGAIN_S)

    def _run_process(self) -> str:
        """Run one process to its end; return why it ended, as far as it reported that."""
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
    """Return the failure that a line reports, if any."""
    with contextlib.suppress(ValueError):
        values: Any = json.loads(line)
        if isinstance(values, dict) and isinstance(values.get("failed"), str):
            return values["failed"][:500]
    return None


def look(link: Any) -> dict[str, Any]:
    """Return the state of a Link object now; the beat is read between two readings of our clock, the closest of several."""
    pairs = []
    for _ in range(_LOOKS):
        before_s = now_s()
        beat = link.beat
        after_s = now_s()
        pairs.append((after_s - before_s, (before_s + after_s) / 2, beat))
    _, at_s, beat = min(pairs)
    return {"at_s": at_s, "beat": beat, "tempo_bpm": link.tempo, "peers": link.num_peers, "playing": bool(link.playing)}


def is_news(seen: dict[str, Any], told: dict[str, Any] | None) -> bool:
    """Return whether `seen` differs from what `told` predicts, or `told` is long ago."""
    if told is None or seen["at_s"] - told["at_s"] >= _REPORT_S:
        return True
    if (seen["peers"], seen["playing"]) != (told["peers"], told["playing"]):
        return True
    expected = told["beat"] + (seen["at_s"] - told["at_s"]) * told["tempo_bpm"] / 60
    return abs(seen["beat"] - expected) > _MOVED_BEATS or abs(seen["tempo_bpm"] / told["tempo_bpm"] - 1) > _CHANGED


async def follow(pipe: IO[bytes], ended: threading.Event) -> None:
    """Take part in the session and report it until `ended` is set; raises `MissingExtraError` without aalink."""
    need_aalink()
    import aalink

    link = aalink.Link(_TEMPO_BPM)
    link.start_stop_sync_enabled = True
    until_s = now_s() + _SETTLE_S
    while now_s() < until_s and not ended.is_set():
        await asyncio.sleep(_LOOK_S)
    link.enabled = True
    told = None
    while not ended.is_set():
        seen = look(link)
        if is_news(seen, told):
            told = seen
            pipe.write(json.dumps(seen).encode() + b"\n")
            pipe.flush()
        await asyncio.sleep(_LOOK_S)
    link.enabled = False  # the peers see it leave at once


def main() -> None:
    """Write reports to standard output until standard input ends."""
    pipe, ended = own_output(), threading.Event()
    end_with_stdin(ended.set, patience_s=_CLOSE_S / 2)
    try:
        asyncio.run(follow(pipe, ended))
    except BrokenPipeError:
        pass
    except Exception as error:
        with contextlib.suppress(OSError):
            text = str(error) if isinstance(error, MissingExtraError) else f"{type(error).__name__}: {error}"
            pipe.write(json.dumps({"failed": text}).encode() + b"\n")
            pipe.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
