"""Replaying a session: the recorded input heard again, and given to a partner as the transcript says.

The same segments are left out, and percepts, onsets and changes reach the partner at the same samples of the stream, so it
decides the same. What is heard again is checked against what was heard.
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
    """What a replay found.

    `reply` is the answer as MIDI; `heard` percepts were heard again, `unlike` of them (by number) otherwise than on stage, and
    `onsets_unlike` onsets were not found again. `decisions_alike` is how many decisions are those of the session, from
    the first on. `missing` entries at the end of a killed session speak of sound that is not there.
    """

    decisions: tuple[Decision, ...]
    reply: bytes
    heard: int
    unlike: tuple[int, ...]
    onsets_unlike: int
    decisions_alike: int
    missing: int


class _Rehearsal:
    """The recorded input through the light path again, as far as it is asked for; `to_the_end` with what that holds back."""

    def __init__(self, listener: Listener, sound: Iterator[Float32], *, to_the_end: bool) -> None:
        self._intake = listener.front_end
        self._sound = sound
        self._flushes = to_the_end
        self._windows: dict[int, Window] = {}
        self._onsets: set[Onset] = set()

    def window(self, index: int) -> Window | None:
        """Return window number `index`, and forget those before it; None where the sound ends before it is complete."""
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
        """Hear the light path to its end, and return how many samples of the clock there are."""
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
    listener : Listener
        Fresh, as at the performance, at the rate of the session's input.
    partner : Player
        Fresh, as at the performance.
    sample_rate_hz : int
        Of the clock: the spec's.
    progress : callable, optional
        Told how much has been replayed, 0 to 1.
    """
    end = session.entries[-1] if session.entries else None
    rehearsal = _Rehearsal(listener, _blocks(session), to_the_end=isinstance(end, Ended) and end.plays_out)
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
        # Killed: what was decided behind the last entry depends on how far the clock had come, and a little ahead of it.
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
