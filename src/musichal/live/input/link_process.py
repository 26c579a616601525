"""The process that takes part in an Ableton Link session and says what it hears; run as a program by `stage.link`.

It follows: it joins the session that is there, and never sets its tempo, its beat or its transport. Link's own threads and
sockets are in this process alone, as is `aalink`, which is under the GPL; neither is anywhere else in MusicHal.

Standard output carries one JSON object a line: `{"at_s", "beat", "tempo_bpm", "peers", "playing"}`, the beat at a moment of
`musichal.machine.now_s`, whenever something changed and every two seconds; or `{"failed": sentence}`. When standard input
ends, it leaves the session and ends.

The beat of a moment is read between two looks at our clock, the closest of a few pairs, so that it is known to within half
their distance whatever clock Link itself runs on.
"""

import asyncio
import contextlib
import importlib.util
import json
import os
import threading
from typing import IO, Any

from musichal.errors import MissingExtraError, install_hint
from musichal.machine import now_s
from musichal.own_process import end_with_stdin, own_output

MODULE = "musichal.live.input.link_process"

_TEMPO_BPM = 120.0  # of a session of our own, which nobody hears: whoever is there first has the tempo
_SETTLE_S = 1.0  # a peer that joins in its first half second now and then brings its own tempo along
_LOOK_S, _AGAIN_S = 0.05, 2.0
_LOOKS = 8
_MOVED_BEATS, _CHANGED = 0.001, 1e-5
_LEAVE_S = 1.0


def need_aalink() -> None:
    """Raise `MissingExtraError` where aalink is not installed; it is not imported."""
    if importlib.util.find_spec("aalink") is None:
        raise MissingExtraError(f"aalink, for Ableton Link, is not installed; {install_hint('link')}")


def look(link: Any) -> dict[str, Any]:
    """Return what a Link object says of this moment."""
    pairs = []
    for _ in range(_LOOKS):
        before_s = now_s()
        beat = link.beat
        after_s = now_s()
        pairs.append((after_s - before_s, (before_s + after_s) / 2, beat))
    _, at_s, beat = min(pairs)
    return {"at_s": at_s, "beat": beat, "tempo_bpm": link.tempo, "peers": link.num_peers, "playing": bool(link.playing)}


def is_news(seen: dict[str, Any], told: dict[str, Any] | None) -> bool:
    """Return whether what is seen is not what was to be expected from what was told last, or that is long ago."""
    if told is None or seen["at_s"] - told["at_s"] >= _AGAIN_S:
        return True
    if (seen["peers"], seen["playing"]) != (told["peers"], told["playing"]):
        return True
    expected = told["beat"] + (seen["at_s"] - told["at_s"]) * told["tempo_bpm"] / 60
    return abs(seen["beat"] - expected) > _MOVED_BEATS or abs(seen["tempo_bpm"] / told["tempo_bpm"] - 1) > _CHANGED


async def follow(pipe: IO[bytes], ended: threading.Event) -> None:
    """Take part until `ended` is set; raises `MissingExtraError` without aalink."""
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
    link.enabled = False  # the others see it go at once


def main() -> None:
    """Speak on standard output until standard input ends."""
    pipe, ended = own_output(), threading.Event()
    end_with_stdin(ended.set, patience_s=_LEAVE_S)
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
