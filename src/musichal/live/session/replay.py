"""Replay a session: hear the recorded input again, and give it to a partner as the event log says.

The same segments are skipped, and percepts, onsets and changes reach the partner at the same samples of the stream, so it
decides the same. Every percept and onset is checked against the log.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from musichal.arrays import Float32
from musichal.hearing.listener import Listener
from musichal.hearing.percepts import Onset, Window
from musichal.live.engine import EventLoop, Player
from musichal.live.session.event_log import Changed, Ended, Perceived, Struck, as_sounded, percept_digest
from musichal.live.session.session import Session, reply_bytes
from musichal.own_process import single_blas_thread
from musichal.partner.decision import Decision

_BLOCK_SAMPLES = 4096


@dataclass(frozen=True)
class Replay:
    """The result of a replay.

    `reply` is the answer as MIDI. `heard` percepts were heard again; those numbered `unlike` differ, and `onsets_unlike`
    onsets were not found again. The first `decisions_alike` decisions are those of the session. `missing` entries at the end
    of a killed session refer to sound that is not there.
    """

    decisions: tuple[Decision, ...]
    reply: bytes
    heard: int
    unlike: tuple[int, ...]
    onsets_unlike: int
    decisions_alike: int
    missing: int


class _RecordedFrontEnd:
    """Runs resampler and onset detection again, up to a position; `to_the_end` also flushes them."""

    def __init__(self, listener: Listener, sound: Iterator[Float32], *, to_the_end: bool) -> None:
        self._intake = listener.front_end
        self._sound = sound
        self._flushes = to_the_end
        self._windows: dict[int, Window] = {}
        self._onsets: set[Onset] = set()

    def window(self, index: int) -> Window | None:
        """Return window number `index`, and forget earlier ones; None if the sound ends before it is complete."""
        while index not in self._windows:
            if not self._advance():
                return None
        self._windows = {number: window for number, window in self._windows.items() if number >= index}
        return self._windows[index]

    def found(self, onset: Onset) -> bool:
        """Return whether an onset is found again."""
        while self._intake.samples_heard < onset.decided_at and self._advance():
            pass
        alike = onset in self._onsets
        self._onsets = {other for other in self._onsets if other.sample > onset.sample}
        return alike

    def _advance(self) -> bool:
        block = next(self._sound, None)
        if block is not None:
            taken = self._intake.push(block)
        elif self._flushes:
            self._flushes = False
            taken = self._intake.flush()
        else:
            return False
        self._windows.update((window.index, window) for window in taken.windows)
        self._onsets.update(taken.onsets)
        return True

    def rest(self) -> int:
        """Run to the end, and return the length of the stream in samples of the clock."""
        while self._advance():
            pass
        return self._intake.samples_heard


@single_blas_thread()
def replay(
    session: Session,
    listener: Listener,
    partner: Player,
    *,
    sample_rate_hz: int,
    progress: Callable[[float], None] | None = None,
) -> Replay:
    """Play a session again.

    Parameters
    ----------
    session : Session
    listener, partner
        As they were at the beginning of the performance.
    sample_rate_hz : int
        Of the clock: the spec's.
    progress : callable, optional
        Called with the share that has been replayed, 0 to 1.
    """
    end = session.entries[-1] if session.entries else None
    rehearsal = _RecordedFrontEnd(listener, _blocks(session), to_the_end=isinstance(end, Ended) and end.plays_out)
    loop = EventLoop(partner, sample_rate_hz=sample_rate_hz)
    decisions: list[Decision] = []
    unlike: list[int] = []
    heard = onsets_unlike = missing = 0
    last = 0
    for number, entry in enumerate(session.entries):
        match entry:
            case Struck(at, onset):
                onsets_unlike += not rehearsal.found(onset)
                decisions += loop.respond(onset, at)
            case Perceived(at, index, digest):
                window = rehearsal.window(index)
                if window is None:
                    missing = len(session.entries) - number
                    break
                percept = listener.step(window)
                heard += 1
                if percept_digest(percept) != digest:
                    unlike.append(index)
                decisions += loop.respond(percept, at)
            case Changed(at, changes):
                decisions += loop.respond(changes, at)
            case Ended(at):
                decisions += loop.until(at)
            case _:
                pass
        last = entry.at_sample
        if progress is not None and number % 64 == 0:
            progress(number / len(session.entries))
    if not isinstance(end, Ended):
        # Killed: what was decided after the last entry depends on how far the clock had come, and a little ahead of it.
        latest_s = session.decisions[-1].time_s if session.decisions else 0.0
        decisions += loop.until(max(last, rehearsal.rest(), math.floor(latest_s * sample_rate_hz) + 1))
    sounded = as_sounded(decisions, session.entries, sample_rate_hz=sample_rate_hz)
    reply = reply_bytes(sounded, channel=session.settings.channel, program=session.settings.program)
    alike = 0
    for ours, theirs in zip(decisions, session.decisions, strict=False):
        if ours.to_json() != theirs.to_json():
            break
        alike += 1
    return Replay(tuple(decisions), reply, heard, tuple(unlike), onsets_unlike, alike, missing)


def _blocks(session: Session) -> Iterator[Float32]:
    for chunk in session.sound():
        for first in range(0, chunk.shape[0], _BLOCK_SAMPLES):
            yield chunk[first : first + _BLOCK_SAMPLES]
