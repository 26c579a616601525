"""The live engine: blocks arrive, are analysed, and are answered as they come.

Front end, analysis and event loop are those of the offline engine; the difference is when events reach the partner: a percept
once a thread of its own has analysed it, an onset at once. Every event is written to the event log with its sample of the
stream, so that a replay decides the same again.

The engine runs in one thread and waits for nothing but the next block. One `step` takes in what arrived, passes on what was
analysed, and obeys commands; then it decides what is due until a little after the next block is expected, so that it can be
played on time. Every later event comes after what was decided.

A time of the stream becomes a moment by the clock fitted to the blocks' arrivals, plus the delay of the light path: a decision
at a sample can be sent at the earliest when that sample has come through the resampler. So what is to sound together with the
player is sent earlier, by this delay, that of the converter and that of the output (`input_latency_s`, the partner's
``latency_ms``). Moments of clocks and taps become times of the stream without them: `LiveEngine.stream_s`.
"""

import math
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np

from musichal.arrays import Float32
from musichal.audio.levels import LevelMeter
from musichal.errors import MusicHalError
from musichal.hearing.exact_notes import ExactNotes, KeyOnsets
from musichal.hearing.front_end import FrontEnd, light_path_delay_s
from musichal.hearing.percepts import Onset, Percept, Window
from musichal.live.control import Command, CommandQueue, partner_changes, told
from musichal.live.drift import DriftMonitor
from musichal.live.engine import EngineObserver, EventLoop
from musichal.live.input.blocks import Block, ClockFit, Line
from musichal.live.parts import AnalysedWindow, AnalysisThread, LiveCounts, LiveTimes, Output, Source, overload_advice
from musichal.live.session.event_log import (
    Changed,
    Ended,
    Entry,
    Lost,
    Marked,
    Perceived,
    Played,
    Skipped,
    Staged,
    Struck,
    percept_digest,
)
from musichal.live.stage import Losses, Stage, StageState
from musichal.machine import now_s, single_blas_thread, suspended_s
from musichal.partner.decision import Decision
from musichal.partner.explanation import PartnerStatus
from musichal.spec import PerceptionSpec
from musichal.text import clock

LONGEST_GAP_S = 60.0
"""A longer gap in the input is left out but for so much, so that a laptop that wakes up has no hour of silence to record."""
_GAP_STEP_S = 1.0
_JUMP_S = 2.0
_STATISTICS_S, _STAGE_S = 1.0, 0.25
_PULSE_S = 0.1
_OVERLOADED, _OVERLOAD_S, _OVERLOAD_AGAIN_S = 3, 10.0, 30.0
_REFUSALS_PER_S = 5
_MARGIN_S = 0.005


class LiveEngine:
    """Lets a partner answer a live input.

    * `front_end`: Fresh, at the source's rate.
    * `analysis`: Analyses the windows of the front end.
    * `clock`: Of the positions of the source's blocks.
    * `source_rate_hz`, `block`: Rate of the source, and the size of its blocks.
    * `capture_s`: What converter and system take from a sound to its arrival.
    * `observer`: Called from the engine's thread: see `musichal.live.engine.ObserverThread`.
    * `status`: Returns the partner's status at a time.
    * `news`: Events that any thread appends; each is sent to the observer with the next step.
    * `now_s`: The machine's clock.
    * `suspended_s`: How long the system was suspended so far.
    """

    def __init__(
        self,
        *,
        source: Source,
        front_end: FrontEnd,
        analysis: AnalysisThread,
        loop: EventLoop,
        output: Output,
        clock: ClockFit | Line,
        spec: PerceptionSpec,
        source_rate_hz: int,
        block: int,
        capture_s: float = 0.0,
        drift: DriftMonitor | None = None,
        commands: CommandQueue | None = None,
        observer: EngineObserver | None = None,
        status: Callable[[float], PartnerStatus] | None = None,
        news: deque[tuple[str, str]] | None = None,
        now_s: Callable[[], float] = now_s,
        suspended_s: Callable[[], float] = suspended_s,
    ) -> None:
        self.counts, self.times = LiveCounts(), LiveTimes()
        self.listening, self.muted, self.paused = True, False, False
        self.quitting = threading.Event()
        self.error: BaseException | None = None
        self._source, self._front_end, self._analysis = source, front_end, analysis
        self._loop, self._output, self._clock = loop, output, clock
        self._spec, self._source_rate_hz, self._block_s = spec, source_rate_hz, block / source_rate_hz
        self._drift, self._observer = drift, observer or EngineObserver()
        self._commands = commands or CommandQueue()
        self._now_s, self._suspended_s = now_s, suspended_s
        self._rate_hz = spec.sample_rate_hz
        self._capture_s = capture_s
        self._delay_s, most_s = light_path_delay_s(spec, source_rate_hz=source_rate_hz, block=block)
        self._lead_samples = round((most_s - self._delay_s + self._block_s + _MARGIN_S) * self._rate_hz)
        self._position = self._left_out = 0
        self._in_gap = False
        self._last_at = 0
        self._available: dict[int, int] = {}
        self._last_s: tuple[float, float] | None = None
        self._told_s = -math.inf
        self._late_segments: deque[float] = deque(maxlen=_OVERLOADED)
        self._overload_told_s = -math.inf
        self._refused_s: deque[float] = deque(maxlen=_REFUSALS_PER_S)
        self._news = news if news is not None else deque(maxlen=64)
        self._exact = ExactNotes(beside=front_end.known is not None and front_end.known.beside)
        self._key_onsets = KeyOnsets(spec)
        self._status, self._timed_s = status, -math.inf
        self._losses = Losses(self._event, block=block)
        self._stage, self._staged_s, self._stage_is_new = Stage(), -math.inf, True
        self._silence = LevelMeter().take()

    @property
    def now_stream_s(self) -> float:
        """Return how much of the stream came through the front end, in seconds."""
        return self._front_end.samples_heard / self._rate_hz

    @property
    def position(self) -> int:
        """Return the position in the recorded input: lost samples count, those that were left out do not."""
        return self._position

    def stream_s(self, moment_s: float) -> float | None:
        """Return the time in the stream of a sound at the microphone at a moment, on any thread; None before the first block.

        A beat of a clock, or a tap, at a moment is at that time, beside the beats that are heard.
        """
        try:
            return (self._clock.position_at(moment_s + self._capture_s) - self._left_out) / self._source_rate_hz
        except ValueError:
            return None

    def tell(self, kind: str, text: str) -> None:
        """Send an event to the observer with the next step. For any thread."""
        self._news.append((kind, text))

    @single_blas_thread()
    def run(self, stop: threading.Event) -> None:
        """Play until `stop` is set or the player quits, then finish. An exception is kept in `error`."""
        try:
            while not (stop.is_set() or self.quitting.is_set()):
                self._source.wait(max(0.01, 2 * self._block_s))
                self.step()
            self.finish()
        except BaseException as error:  # raised by the thread that waits for this one
            self.error = error
            self._output.panic()
        finally:
            self.quitting.set()
            if not self._analysis.close():
                self._event("analysis", "the analysis of a segment hangs: it was left behind")
            self._observer.pass_on()

    def step(self) -> None:
        """Take in what arrived, pass on what was analysed, obey commands, and decide what is due until the next block."""
        began_s = self._now_s()
        self._watch_clock(began_s)
        for block in self._source.read():
            if block.lost_before:
                self._fill_gap(block.lost_before)
            self._take(block)
        for heard in self._analysis.take():
            self._perceive(heard)
        for asked in self._commands.take(began_s):
            self._obey(asked)
        while self._news:
            self._event(*self._news.popleft())
        self._play(self._loop.until(max(self._last_at, self._front_end.samples_heard + self._lead_samples)))
        for kind, text in self._output.tend():
            self._event(kind, text)
        self._losses.step(began_s)
        if (status := self._status) is not None and began_s - self._timed_s >= _PULSE_S:
            self._timed_s = began_s
            self._output.follow(lambda: status(self.now_stream_s).pulse, self._moment_of)
        self._show(began_s)
        self.times.step.append(self._now_s() - began_s)
        if began_s - self._told_s >= _STATISTICS_S:
            self._told_s = began_s
            values = self.statistics()
            self._observer.statistics(values)
        self._observer.pass_on()

    def finish(self) -> None:
        """Log the end; nothing is decided after it."""
        at = self._at()
        self._play(self._loop.until(at))
        self._note(Ended(at))
        self._observer.pass_on()

    def statistics(self) -> dict[str, object]:
        """Return statistics of the performance so far, by name."""
        heard_s = max(self.now_stream_s, 1e-9)
        values: dict[str, object] = {
            "time_s": round(self.now_stream_s, 3),
            **asdict(self.counts),
            "tokens_per_s": round(self.counts.tokens / heard_s, 2),
            "listening": self.listening,
            "muted": self.muted,
            "commands_merged": self._commands.merged,
            "commands_refused": self._commands.refused,
        }
        return values | self.times.percentiles() | dict(self._output.statistics())

    def stage(self) -> StageState:
        """Return what a player wants to know now. For the engine's thread."""
        source, status = self._source, self._status
        at_s = self.now_stream_s
        has_input = bool(getattr(source, "is_connected", True))
        if not has_input:  # the stream stands still; it will go on where the time is
            at_s = max(at_s, self.stream_s(self._now_s()) or 0.0)
        return self._stage.at(
            at_s,
            PartnerStatus() if status is None else status(self.now_stream_s),
            level=getattr(source, "level", self._silence),
            has_input=has_input,
            muted=self.muted,
            listening=self.listening,
        )

    def _show(self, now_s: float) -> None:
        """Send the state of the stage, four times a second and at once after something new."""
        if self._stage_is_new or now_s - self._staged_s >= _STAGE_S:
            self._stage_is_new, self._staged_s = False, now_s
            self._observer.stage(self.stage())

    # ── sound ────────────────────────────────────────────────────────────────

    def _take(self, block: Block) -> None:
        self._left_out = block.end_sample - self._position - len(block.samples)
        self._position += len(block.samples)
        if self.listening:
            self._take_notes(block)
        self._listen(block.samples)

    def _take_notes(self, block: Block) -> None:
        """Take what a MIDI player played in a block, which is at the rate of the clock, before its sound."""
        block = block.earlier(self._left_out / self._source_rate_hz, rate_hz=self._rate_hz)
        if self._front_end.known is not None:
            self._front_end.known.add(self._key_onsets.of(block.pressed))
        if block.ended or block.ended_hits or block.controls:
            self._exact.end(block.ended, block.ended_hits)
            self._note(Played(self._at(), block.ended, block.ended_hits, block.controls))

    def _listen(self, samples: Float32) -> None:
        self._observer.sound(samples)
        found = self._front_end.push(samples)
        # Onsets come first: an analysis beside a decision takes turns with it, and doubles its time.
        for onset in found.onsets:
            self._strike(onset)
        for window in found.windows:
            self._submit(window)

    def _fill_gap(self, lost: int) -> None:
        """Put silence in the place of lost samples; of a long gap, leave out the beginning."""
        longest, longest_step = round(LONGEST_GAP_S * self._source_rate_hz), round(_GAP_STEP_S * self._source_rate_hz)
        if lost > longest:
            self._lose(lost - longest, left_out=True)
            lost = longest
        self._lose(lost)
        # A long gap need not be analysed.
        self._in_gap = lost >= longest_step
        while lost:
            part = min(lost, longest_step)
            self._position += part
            self._listen(np.zeros(part, dtype=np.float32))
            lost -= part
            for kind, text in self._output.tend():
                self._event(kind, text)
            self._observer.pass_on()
        self._in_gap = False

    def _lose(self, samples: int, *, left_out: bool = False) -> None:
        self.counts.lost_samples += samples
        self.counts.gaps += 1
        self._note(Lost(self._at(), samples, left_out))
        self._losses.add(self._now_s(), samples / self._source_rate_hz, left_out=left_out)

    def _watch_clock(self, began_s: float) -> None:
        """End all notes if the system was suspended, or this program stood still."""
        now = began_s, self._suspended_s()
        if self._last_s is not None:
            passed_s, asleep_s = (after - before for after, before in zip(now, self._last_s, strict=True))
            if max(passed_s, asleep_s) > _JUMP_S:
                self.counts.jumps += 1
                self._end_notes()
                # Ignore the backlog caused by suspend when detecting overload.
                self._overload_told_s = max(self._overload_told_s, self.now_stream_s + _OVERLOAD_S - _OVERLOAD_AGAIN_S)
                self._event(
                    "jump", f"the system slept or stood still for {max(passed_s, asleep_s):.1f} s: all notes were ended"
                )
        self._last_s = now

    # ── what reaches the partner ─────────────────────────────────────────────

    def _at(self) -> int:
        """Return the sample of an event that comes now: not before earlier events, and after what was decided."""
        decided = math.floor(self._loop.decided_s * self._rate_hz) + 1
        self._last_at = max(self._last_at, self._front_end.samples_heard, decided)
        return self._last_at

    def _strike(self, onset: Onset) -> None:
        if not self.listening:
            return
        at = self._at()
        self.counts.onsets += 1
        self._note(Struck(at, onset))
        self._exact.strike(onset.sample / self._rate_hz, onset)
        self._play(self._loop.respond(onset, at))
        self.times.onset.append(max(0.0, self._now_s() - self._arrived_s(onset.sample)))

    def _submit(self, window: Window) -> None:
        if self._in_gap or not self.listening:
            self.counts.deaf += 1
            self._note(Skipped(self._at(), window.index, "lost" if self._in_gap else "deaf"))
            return
        self._available[window.index] = window.available_at
        for index in self._analysis.submit(window):
            self._available.pop(index, None)
            self.counts.skipped += 1
            self._note(Skipped(self._at(), index, "late"))
            self._overload()

    def _perceive(self, heard: AnalysedWindow) -> None:
        percept = replace(heard.percept, heard=self._exact.put_in(heard.percept.heard))
        at = self._at()
        self.counts.segments += 1
        self.counts.tokens += percept.tokens.size
        self.times.hearing.append(heard.took_s)
        complete = self._available.pop(percept.heard.index, percept.heard.available_at)
        self.times.percept.append(max(0.0, self._now_s() - self._arrived_s(complete)))
        self._note(Perceived(at, percept.heard.index, percept_digest(percept)))
        self._observer.percept(percept)
        self._play(self._loop.respond(percept, at))
        self._watch_drift(percept)

    def _watch_drift(self, percept: Percept) -> None:
        for report in () if self._drift is None else self._drift.step(percept):
            self.counts.alarms += report.event == "raised"
            self._observer.drift(report)

    def _obey(self, asked: Command) -> None:
        self._stage_is_new = True
        if not asked.concerns_stage:
            self._change(asked)
        elif asked.name == "panic":
            self._end_notes()
            self._done(asked, "panic: every note was ended")
        elif asked.name == "pause":
            self._pause(asked)
        elif asked.name == "quit":
            self.quitting.set()
            asked.reply(True, "ends")
        elif asked.name == "mark":
            self._mark(asked)
        elif asked.name == "mute":
            self.muted = not self.muted if asked.value is None else bool(asked.value)
            self._note(Staged(self._at(), "mute" if self.muted else "unmute"))
            self._output.mute(self.muted)
            self._done(asked, "muted" if self.muted else "no longer muted")
        elif asked.name == "listen":
            self.listening = not self.listening if asked.value is None else bool(asked.value)
            self._note(Staged(self._at(), "listen" if self.listening else "deaf"))
            self._done(asked, "listening" if self.listening else "not listening")

    def _end_notes(self) -> None:
        self._note(Staged(self._at(), "panic"))
        self._output.panic()

    def _pause(self, asked: Command) -> None:
        self.paused = not self.paused if asked.value is None else bool(asked.value)
        self._change(replace(asked, value=self.paused))
        if self.paused:
            self._note(Staged(self._at(), "pause"))
            self._output.panic()

    def _mark(self, asked: Command) -> None:
        self.counts.marks += 1
        text = asked.value if isinstance(asked.value, str) else ""
        self._note(Marked(self._at(), text))
        self._done(asked, f"mark {self.counts.marks} at {clock(self.now_stream_s, decimals=0)} {text}".rstrip(), kind="mark")

    def _done(self, asked: Command, text: str, *, kind: str = "control") -> None:
        """Say what a command did, to the player and to its sender."""
        self._event(kind, text)
        asked.reply(True, text)

    def _change(self, asked: Command) -> None:
        changes = partner_changes(asked)
        if asked.name == "tap" and asked.moment_s is not None and (tapped_s := self.stream_s(asked.moment_s)) is not None:
            changes = {"tap": {"at_s": tapped_s}}
        at = self._at()
        # What is due before the change is decided before it, even if the change is refused.
        self._play(self._loop.until(at))
        try:
            decisions = self._loop.respond(changes, at)
        except MusicHalError as error:
            self.counts.refused_changes += 1
            self._refused(str(error))
            asked.reply(False, str(error))
            return
        self.counts.changes += 1
        self._note(Changed(at, changes))
        if self._loop.said:
            self._done(asked, self._loop.said, kind="clock" if asked.name in ("clock", "tap") else "control")
        elif not isinstance(asked.value, Mapping):  # a clock repeats its beats
            self._done(asked, told(changes))
        self._play(decisions)

    def _refused(self, text: str) -> None:
        """Send an event about a refused change, at most `_REFUSALS_PER_S` a second."""
        now_s = self._now_s()
        if len(self._refused_s) < _REFUSALS_PER_S or now_s - self._refused_s[0] >= 1:
            self._refused_s.append(now_s)
            self._event("refused", text)

    # ── what comes of it ─────────────────────────────────────────────────────

    def _play(self, decisions: Sequence[Decision]) -> None:
        for decision in decisions:
            self.counts.decisions += 1
            self.counts.plays += decision.kind == "play"
            self.counts.notes += len(decision.notes)
            self._output.play(decision, self._moment_of)
            self._observer.decision(decision)
            self._stage.decided(decision)
            self._stage_is_new = True

    def _moment_of(self, time_s: float) -> float:
        """Return the moment at which what is decided for a time of the stream is sent, at the earliest."""
        try:
            return self._clock.time_of(time_s * self._source_rate_hz + self._left_out) + self._delay_s
        except ValueError:  # before the first block
            return self._now_s()

    def _arrived_s(self, sample: int) -> float:
        return self._moment_of(sample / self._rate_hz) - self._delay_s

    def _note(self, entry: Entry) -> None:
        self._observer.entry(entry)

    def _event(self, kind: str, text: str) -> None:
        self._observer.event(self.now_stream_s, kind, text)

    def _overload(self) -> None:
        """Send an event that segments are skipped and what would help, after several of them and at most twice a minute."""
        now_s = self.now_stream_s
        self._late_segments.append(now_s)
        if now_s - self._overload_told_s < _OVERLOAD_AGAIN_S:
            return
        if len(self._late_segments) == _OVERLOADED and now_s - self._late_segments[0] < _OVERLOAD_S:
            self._overload_told_s = now_s
            hearing_s = float(np.median(list(self.times.hearing))) if self.times.hearing else math.nan
            self._event("overload", overload_advice(self._spec, hearing_s))
