"""The engine on stage: sound arrives, and is heard, decided on and answered as it comes.

It is the same intake, hearing and conductor as offline; what differs is when things reach the partner. A percept reaches it
once it has been heard, beside the engine, in a thread of its own; an onset at once. Whatever reaches it is put down in the
transcript with its sample of the stream, so that a replay can decide the same again.

The engine runs in one thread and never waits for anything but the next block of sound. One `step` takes in what arrived,
hands on what was heard, and obeys commands; then it decides what falls due until a little after the next block is expected,
so that what is played in order is played on time. Everything that happens later than a decision lies behind it.

Times of the stream become moments of the machine's clock by the filtered line through the blocks' arrivals, plus the delay of
the light path: what is decided at a sample can sound at the earliest when that sample has come through the resampler.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from musichal.arrays import AnyArray
from musichal.audio.recording import ingest
from musichal.audio.resample import StreamResampler
from musichal.errors import MusicHalError
from musichal.hearing.front_end import FrontEnd
from musichal.hearing.percepts import Onset, Percept, Window
from musichal.live.analysis_thread import HeardWindow, Hearing
from musichal.live.control import Command, CommandBox, partner_changes, told
from musichal.live.drift import DriftMonitor
from musichal.live.engine import EventLoop
from musichal.live.observer import EngineObserver
from musichal.live.session.event_log import Changed, Ended, Entry, Lost, Perceived, Skipped, Staged, Struck, percept_digest
from musichal.own_process import single_blas_thread
from musichal.partner.decision import Decision
from musichal.spec import PerceptionSpec

LONGEST_GAP_S = 60.0
"""Of a longer gap in the input the rest is left out: nobody wants an hour of silence when a laptop wakes up."""
_GAP_STEP_S = 1.0
_JUMP_S = 2.0
_STATISTICS_S = 1.0
_TIMES = 2048
_OVERLOADED = 3
_OVERLOAD_S = 10.0
_OVERLOAD_AGAIN_S = 30.0
_REFUSALS_PER_S = 5
_MARGIN_S = 0.005
_DELAY_S = 3.0  # bursts and blocks meet in all ways in this time


@dataclass(frozen=True)
class Arrived:
    """A block of the input: samples (n,) or (n, channels), how many were lost before them, and when the last one was there.

    `arrivals` says the same of its parts: places from the end of the block (0 is the end), and when each was there.
    """

    samples: AnyArray
    lost_before: int
    arrived_s: float
    arrivals: tuple[tuple[int, float], ...] = ()


class Source(Protocol):
    """Where sound comes from."""

    def read(self) -> Sequence[Arrived]:
        """Return what arrived since the last call, without waiting."""
        ...

    def wait(self, timeout_s: float) -> None:
        """Return as soon as something may have arrived, or the time is over."""
        ...


class Output(Protocol):
    """Where the answer goes. Moments are those of the machine's clock; nothing here may wait."""

    def play(self, decision: Decision, moment_of: Callable[[float], float]) -> int:
        """Play a decision; `moment_of` gives the moment of a time of the stream. Returns how many notes were taken."""
        ...

    def mute(self, muted: bool) -> None:
        """End what sounds and strike nothing, until it is lifted."""
        ...

    def panic(self) -> None:
        """End everything, and drop what was to come."""
        ...

    def tend(self) -> Sequence[tuple[str, str]]:
        """Do what is due, at least twice a second; return what a player should know: (kind, words)."""
        ...

    def statistics(self) -> Mapping[str, object]:
        """Return figures."""
        ...


class Clock(Protocol):
    """From positions in the input to moments of the machine's clock."""

    def update(self, sample: int, monotonic_s: float) -> object:
        """Take the position behind a block, and when it arrived."""
        ...

    def time_of(self, sample: float) -> float:
        """Return when a sample arrived, or will."""
        ...

    def sample_at(self, monotonic_s: float) -> float:
        """Return which sample arrived at a moment, or will."""
        ...


@dataclass
class LiveCounts:
    """What happened so far."""

    segments: int = 0
    skipped: int = 0
    deaf: int = 0
    onsets: int = 0
    decisions: int = 0
    plays: int = 0
    notes: int = 0
    changes: int = 0
    refused_changes: int = 0
    lost_samples: int = 0
    gaps: int = 0
    jumps: int = 0
    alarms: int = 0
    tokens: int = 0


@dataclass
class LiveTimes:
    """The latest so many durations, in seconds."""

    hearing: deque[float] = field(default_factory=lambda: deque(maxlen=_TIMES))
    percept: deque[float] = field(default_factory=lambda: deque(maxlen=_TIMES))
    onset: deque[float] = field(default_factory=lambda: deque(maxlen=_TIMES))
    step: deque[float] = field(default_factory=lambda: deque(maxlen=_TIMES))


def light_path_delay_s(spec: PerceptionSpec, *, source_rate_hz: int, block: int) -> tuple[float, float]:
    """Return by how much what has come through the intake lags behind what arrived, at least and at most."""
    resampler = StreamResampler(source_rate_hz=source_rate_hz, target_rate_hz=spec.sample_rate_hz, quality=spec.resampler)
    silence, delays, given = np.zeros(block, dtype=np.float32), [], 0
    for number in range(1, max(16, round(_DELAY_S * source_rate_hz / block)) + 1):
        given += resampler.push(silence).shape[0]
        delays.append(number * block / source_rate_hz - given / spec.sample_rate_hz)
    settled = delays[len(delays) // 4 :]
    return max(0.0, min(settled)), max(0.0, *settled)


class LiveEngine:
    """Lets a partner listen and answer on stage.

    Parameters
    ----------
    source : Source
    intake : FrontEnd
        Fresh, at the source's rate; `hearing` hears its windows.
    hearing : Hearing
    conductor : EventLoop
    output : Output
    clock : Clock
        Of positions in the input, as the intake gets it.
    spec : PerceptionSpec
    source_rate_hz, block : int
        Rate of the source, and how many samples come at once.
    explain : callable
        Gives the reason of a decision in words.
    drift : DriftMonitor, optional
    commands : CommandBox, optional
    witnesses : sequence of EngineObserver
    now_s : callable
        The machine's clock.
    wall_s : callable
        The calendar's, to notice that the machine slept.
    """

    def __init__(
        self,
        *,
        source: Source,
        intake: FrontEnd,
        hearing: Hearing,
        conductor: EventLoop,
        output: Output,
        clock: Clock,
        spec: PerceptionSpec,
        source_rate_hz: int,
        block: int,
        explain: Callable[[Decision], str] = lambda _: "",
        drift: DriftMonitor | None = None,
        commands: CommandBox | None = None,
        witnesses: Sequence[EngineObserver] = (),
        now_s: Callable[[], float] = time.monotonic,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self.counts, self.times = LiveCounts(), LiveTimes()
        self.listening, self.muted = True, False
        self.quitting = threading.Event()
        self.error: BaseException | None = None
        self._source, self._intake, self._hearing = source, intake, hearing
        self._conductor, self._output, self._clock = conductor, output, clock
        self._spec, self._source_rate_hz, self._block_s = spec, source_rate_hz, block / source_rate_hz
        self._explain, self._drift = explain, drift
        self._commands = commands or CommandBox()
        self._witnesses = tuple(witnesses)
        self._now_s, self._wall_s = now_s, wall_s
        self._rate_hz = spec.sample_rate_hz
        self._delay_s, most_s = light_path_delay_s(spec, source_rate_hz=source_rate_hz, block=block)
        self._lead_samples = round((most_s - self._delay_s + self._block_s + _MARGIN_S) * self._rate_hz)
        self._position = 0
        self._deafened = False
        self._last_at = 0
        self._available: dict[int, int] = {}
        self._last_s: tuple[float, float] | None = None
        self._told_s = -math.inf
        self._late_segments: deque[float] = deque(maxlen=_OVERLOADED)
        self._overload_told_s = -math.inf
        self._refused_s: deque[float] = deque(maxlen=_REFUSALS_PER_S)
        self._news: deque[tuple[str, str]] = deque(maxlen=64)

    @property
    def now_stream_s(self) -> float:
        """Return how much of the stream has come through the light path, in seconds."""
        return self._intake.samples_heard / self._rate_hz

    @property
    def position(self) -> int:
        """Return how many samples of the input there are, lost ones included."""
        return self._position

    def stream_s(self, moment_s: float) -> float | None:
        """Return the time of the stream that a moment of the machine's clock is, None before anything came in; any thread."""
        try:
            # What came through the light path at a moment is what arrived the delay before.
            return self._clock.sample_at(moment_s - self._delay_s) / self._source_rate_hz
        except ValueError:
            return None

    def tell(self, kind: str, text: str) -> None:
        """Let the witnesses know of something, from any thread, at the next step."""
        self._news.append((kind, text))

    @single_blas_thread()
    def run(self, stop: threading.Event) -> None:
        """Play until `stop` is set or the player quits; then end in order. What goes wrong is kept in `error`."""
        try:
            while not (stop.is_set() or self.quitting.is_set()):
                self._source.wait(max(0.01, 2 * self._block_s))
                self.step()
            self.finish()
        except BaseException as error:  # handed to the thread that waits for this one
            self.error = error
            self._output.panic()
        finally:
            self.quitting.set()
            self._hearing.close()

    def step(self) -> None:
        """Take in what arrived, hand on what was heard, obey, and decide what falls due until the next block."""
        began_s = self._now_s()
        self._watch_clock(began_s)
        for block in self._source.read():
            if block.lost_before:
                self._fill_gap(block.lost_before)
            self._take(block)
        for heard in self._hearing.take():
            self._perceive(heard)
        for asked in self._commands.take(began_s):
            self._obey(asked)
        while self._news:
            self._event(*self._news.popleft())
        self._play(self._conductor.until(max(self._last_at, self._intake.samples_heard + self._lead_samples)))
        for kind, text in self._output.tend():
            self._event(kind, text)
        self.times.step.append(self._now_s() - began_s)
        if began_s - self._told_s >= _STATISTICS_S:
            self._told_s = began_s
            values = self.statistics()
            for witness in self._witnesses:
                witness.statistics(values)

    def finish(self) -> None:
        """Note the end in the transcript; nothing is decided behind it."""
        at = self._at()
        self._play(self._conductor.until(at))
        self._note(Ended(at))

    def statistics(self) -> dict[str, object]:
        """Return figures of the performance so far, by their names."""
        heard_s = max(self.now_stream_s, 1e-9)
        values: dict[str, object] = {
            "time_s": round(self.now_stream_s, 3),
            **{name: getattr(self.counts, name) for name in self.counts.__dataclass_fields__},
            "tokens_per_s": round(self.counts.tokens / heard_s, 2),
            "listening": self.listening,
            "muted": self.muted,
            "commands_merged": self._commands.merged,
            "commands_refused": self._commands.refused,
        }
        for name in self.times.__dataclass_fields__:
            durations = getattr(self.times, name)
            if durations:
                p50, p99, most = np.percentile(list(durations), [50, 99, 100])
                values |= {f"{name}_p50_ms": _ms(p50), f"{name}_p99_ms": _ms(p99), f"{name}_max_ms": _ms(most)}
        return values | dict(self._output.statistics())

    # ── sound ────────────────────────────────────────────────────────────────

    def _take(self, block: Arrived) -> None:
        samples = ingest(np.nan_to_num(block.samples, nan=0.0, posinf=1.0, neginf=-1.0))
        self._position += samples.shape[0]
        for place, moment_s in block.arrivals or ((0, block.arrived_s),):
            self._clock.update(self._position + place, moment_s)
        self._listen(samples)

    def _listen(self, block: AnyArray) -> None:
        for witness in self._witnesses:
            witness.sound(block)
        taken = self._intake.push(block)
        # An onset comes before the window that is complete at the same sample: sorting keeps that order.
        events: list[tuple[int, Onset | Window]] = [(onset.decided_at, onset) for onset in taken.onsets]
        events += [(window.available_at, window) for window in taken.windows]
        for _, event in sorted(events, key=lambda e: e[0]):
            if isinstance(event, Onset):
                self._strike(event)
            else:
                self._submit(event)

    def _fill_gap(self, lost: int) -> None:
        """Put silence in the place of lost samples, of very many in the place of the first."""
        longest, longest_step = round(LONGEST_GAP_S * self._source_rate_hz), round(_GAP_STEP_S * self._source_rate_hz)
        if lost > longest:
            self._lose(lost - longest, left_out=True)
            lost = longest
        self._lose(lost)
        # What is long enough to be a gap in hearing needs no hearing.
        self._deafened = lost >= longest_step
        while lost:
            part = min(lost, longest_step)
            self._position += part
            self._listen(np.zeros(part, dtype=np.float32))
            lost -= part
            for kind, text in self._output.tend():
                self._event(kind, text)
        self._deafened = False

    def _lose(self, samples: int, *, left_out: bool = False) -> None:
        self.counts.lost_samples += samples
        self.counts.gaps += 1
        self._note(Lost(self._at(), samples, left_out))
        lost_s = samples / self._source_rate_hz
        self._event("lost", f"{lost_s:.3g} s of the input were lost" + (" and left out" if left_out else ""))

    def _watch_clock(self, began_s: float) -> None:
        wall_s = self._wall_s()
        if self._last_s is not None:
            passed_s, on_wall_s = began_s - self._last_s[0], wall_s - self._last_s[1]
            if passed_s > _JUMP_S or abs(on_wall_s - passed_s) > _JUMP_S:
                self.counts.jumps += 1
                self._panic()
                asleep_s = max(passed_s, on_wall_s - passed_s)
                # What piles up meanwhile is no sign of a slow machine.
                self._overload_told_s = max(self._overload_told_s, self.now_stream_s + _OVERLOAD_S - _OVERLOAD_AGAIN_S)
                self._event("jump", f"the machine slept, or its clock was set ({asleep_s:+.1f} s): all notes were ended")
        self._last_s = (began_s, wall_s)

    # ── what reaches the partner ─────────────────────────────────────────────

    def _at(self) -> int:
        """Return the sample at which something happens now: never before what has happened, and behind what was decided."""
        decided = math.floor(self._conductor.decided_s * self._rate_hz) + 1
        self._last_at = max(self._last_at, self._intake.samples_heard, decided)
        return self._last_at

    def _strike(self, onset: Onset) -> None:
        if not self.listening:
            return
        at = self._at()
        self.counts.onsets += 1
        self._note(Struck(at, onset))
        self._play(self._conductor.onset(onset, at))
        self.times.onset.append(max(0.0, self._now_s() - self._arrived_s(onset.sample)))

    def _submit(self, window: Window) -> None:
        if self._deafened or not self.listening:
            self.counts.deaf += 1
            self._note(Skipped(self._at(), window.index, "lost" if self._deafened else "deaf"))
            return
        self._available[window.index] = window.available_at
        for index in self._hearing.submit(window):
            self._available.pop(index, None)
            self.counts.skipped += 1
            self._note(Skipped(self._at(), index, "late"))
            self._overload()

    def _perceive(self, heard: HeardWindow) -> None:
        percept = heard.percept
        at = self._at()
        self.counts.segments += 1
        self.counts.tokens += percept.tokens.size
        self.times.hearing.append(heard.took_s)
        complete = self._available.pop(percept.heard.index, percept.heard.available_at)
        self.times.percept.append(max(0.0, self._now_s() - self._arrived_s(complete)))
        self._note(Perceived(at, percept.heard.index, percept_digest(percept)))
        for witness in self._witnesses:
            witness.percept(percept)
        self._play(self._conductor.percept(percept, at))
        self._watch_drift(percept)

    def _watch_drift(self, percept: Percept) -> None:
        for report in () if self._drift is None else self._drift.step(percept):
            self.counts.alarms += report.event == "raised"
            for witness in self._witnesses:
                witness.drift(report)

    def _obey(self, asked: Command) -> None:
        if not asked.concerns_stage:
            self._change(asked)
        elif asked.name == "panic":
            self._panic()
        elif asked.name == "quit":
            self.quitting.set()
        elif asked.name == "mute":
            self.muted = not self.muted if asked.value is None else bool(asked.value)
            self._note(Staged(self._at(), "mute" if self.muted else "unmute"))
            self._output.mute(self.muted)
            self._event("control", "muted" if self.muted else "no longer muted")
        elif asked.name == "listen":
            self.listening = not self.listening if asked.value is None else bool(asked.value)
            self._note(Staged(self._at(), "listen" if self.listening else "deaf"))
            self._event("control", "listening" if self.listening else "not listening")

    def _panic(self) -> None:
        self._note(Staged(self._at(), "panic"))
        self._output.panic()
        self._event("control", "panic: every note was ended")

    def _change(self, asked: Command) -> None:
        changes = partner_changes(asked)
        at = self._at()
        # What is due before the change is decided before it, even if the change is refused.
        self._play(self._conductor.until(at))
        try:
            decisions = self._conductor.change(changes, at)
        except MusicHalError as error:
            self.counts.refused_changes += 1
            self._refused(str(error))
            if asked.answer is not None:
                asked.answer(str(error))
            return
        self.counts.changes += 1
        self._note(Changed(at, changes))
        if not isinstance(asked.value, Mapping):  # a clock goes on telling where its beats are
            self._event("control", told(changes))
        self._play(decisions)

    def _refused(self, text: str) -> None:
        """Tell what was refused; of a flood of it, so much a second."""
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
            reason = self._explain(decision)
            for witness in self._witnesses:
                witness.decision(decision, reason)

    def _moment_of(self, time_s: float) -> float:
        """Return the moment at which what is decided for a time of the stream is to sound."""
        try:
            return self._clock.time_of(time_s * self._source_rate_hz) + self._delay_s
        except ValueError:  # nothing came in yet
            return self._now_s()

    def _arrived_s(self, sample: int) -> float:
        return self._moment_of(sample / self._rate_hz) - self._delay_s

    def _note(self, entry: Entry) -> None:
        for witness in self._witnesses:
            witness.entry(entry)

    def _event(self, kind: str, text: str) -> None:
        for witness in self._witnesses:
            witness.event(self.now_stream_s, kind, text)

    def _overload(self) -> None:
        """Say that segments are being skipped, and what would help; not for each of them, and not the whole time."""
        now_s = self.now_stream_s
        self._late_segments.append(now_s)
        if now_s - self._overload_told_s < _OVERLOAD_AGAIN_S:
            return
        if len(self._late_segments) == _OVERLOADED and now_s - self._late_segments[0] < _OVERLOAD_S:
            self._overload_told_s = now_s
            hearing_s = float(np.median(list(self.times.hearing))) if self.times.hearing else math.nan
            self._event("overload", overload_advice(self._spec, hearing_s))


def overload_advice(spec: PerceptionSpec, hearing_s: float) -> str:
    """Return what would let a machine keep up that takes `hearing_s` for a segment (NaN if none was heard yet)."""
    rate = spec.sample_rate_hz
    hop_s = spec.hop_samples / rate
    if math.isnan(hearing_s):
        return "hearing does not keep up: not one segment was heard in time; is the machine busy with something else?"
    found = f"hearing takes {1000 * hearing_s:.0f} ms for each {1000 * hop_s:.0f} ms of sound, and segments are skipped"
    if hearing_s < 0.5 * hop_s:
        return f"{found}: by itself it would keep up, so the machine is busy with something else: end that"
    if spec.encoder.precision == "fp32":
        found += ": `musichal rehear` finds the quickest runtime of this machine, or"
    else:
        found += ":"
    if spec.hop_samples < spec.segment_samples:
        return f"{found} train without --hop, so that segments do not overlap"
    # The encoder's work grows with its window; two thirds of the time is what a stage can spare.
    beside_s = (spec.context_samples + spec.lookahead_samples) / rate
    each = hearing_s / (beside_s + spec.segment_samples / rate)
    if each < 0.6:
        segment_s = each * beside_s / (0.66 - each)
        if segment_s < 5.0 and segment_s > hop_s:
            return f"{found} train with --segment {10 * math.ceil(100 * segment_s)}ms, or with a shorter --context"
    return f"{found} train with a faster encoder or runtime (spectral is the fastest), or a shorter --context"


def _ms(duration_s: float) -> float:
    return round(1000 * float(duration_s), 3)
