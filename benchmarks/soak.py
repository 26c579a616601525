"""Hours on stage, sped up: whether anything grows, drifts, hangs or gets lost.

Conventions
-----------
The machine's clock is virtual; the engine, the light path, the conductor, the partner, the core of the scheduler, the clock of
the input and the writing of the session are those of the stage. Hearing is not: the percepts of one real passage come again
and again, moved in time, so that eight hours take minutes. The device is `_PPM` off its nominal rate, and blocks arrive with a
random delay of `_JITTER_S` on average. Memory is the resident set; what the first quarter of the run needs is no growth. A leak
of small things hides in it, so that the objects of MusicHal's own types are counted too.
"""

import gc
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.figure import Figure
from musichal.arrays import Float32
from musichal.audio.recording import read_recording
from musichal.audio.resample import StreamResampler
from musichal.commands.play import PLAYER, RECORDING
from musichal.hearing.encoders import create_encoder
from musichal.hearing.front_end import FrontEnd
from musichal.hearing.listener import Listener
from musichal.hearing.percepts import Percept, Window
from musichal.live.engine import EventLoop
from musichal.live.input.blocks import Block, ClockFit
from musichal.live.live_engine import LiveEngine
from musichal.live.output.note_scheduler import NoteScheduler
from musichal.live.parts import AnalysedWindow, AnalysisThread
from musichal.live.session.recorder import LiveSessionWriter, SessionRecorder
from musichal.live.session.session import SessionSettings
from musichal.memory.partner_file import PartnerModel
from musichal.note import Note
from musichal.partner.decision import Decision
from musichal.partner.partner import Partner
from musichal.partner.settings import PartnerSettings
from musichal.spec import PerceptionSpec
from musichal.training.trainer import train

HOURS = 8.0
_RATE_HZ = 8_000  # the session's size, not what is tested, goes with it
_BLOCK = 320
_PPM = 35.0
_JITTER_S = 0.0015
_PASSAGE_S = 20.0
_SETTLE_BLOCKS = 250
_LOOK_S = 60.0
_KEPT_CHUNKS = 4


def measure_soak(*, hours: float = HOURS) -> list[Figure]:
    """Measure a performance of so many hours on the virtual clock."""
    model = train([read_recording(RECORDING)], PerceptionSpec())
    guitar = read_recording(PLAYER)
    samples = guitar.samples[: round(_PASSAGE_S * guitar.sample_rate_hz)]
    found = soak(model, samples, sample_rate_hz=guitar.sample_rate_hz, hours=hours)
    name = f"{hours:g} h on the virtual clock"
    return [
        Figure(f"{name}: speed", found.speed, "× real time"),
        Figure(f"{name}: memory grown behind the first quarter", found.grown_mb, "MB", 32),
        Figure(f"{name}: objects more at most in the second half than in the first", found.objects_grown, "objects", 100),
        Figure(f"{name}: clock drift", abs(found.drift_ms_per_h), "ms/h", 1),
        Figure(f"{name}: clock error at most", found.clock_error_ms, "ms"),
        Figure(f"{name}: notes not ended", found.struck - found.ended, f"of {found.struck}", 0),
        Figure(f"{name}: segments lost", found.segments_lost, f"of {found.segments}", 0),
        Figure(f"{name}: samples not in the session", found.samples_missing, "samples", 0),
    ]


@dataclass(frozen=True)
class Soaked:
    """What a soak found."""

    speed: float
    grown_mb: float
    objects_grown: int
    drift_ms_per_h: float
    clock_error_ms: float
    struck: int
    ended: int
    decisions: int
    segments: int
    segments_lost: int
    samples_missing: int


def soak(model: PartnerModel, samples: Float32, *, sample_rate_hz: int, hours: float, seed: int = 0) -> Soaked:
    """Play a passage again and again for so many hours of the virtual clock."""
    spec = model.spec
    resampler = StreamResampler(source_rate_hz=sample_rate_hz, target_rate_hz=_RATE_HZ)
    passage = np.concatenate([resampler.push(samples), resampler.flush()])
    listener = Listener(spec, create_encoder(spec), model.vocabularies, source_rate_hz=_RATE_HZ)
    percepts = listener.push(passage).percepts
    clock, output = _Clock(), _Output()
    source, stream = _Source(), ClockFit(_RATE_HZ)
    partner = Partner(model.memory, PartnerSettings(), rng=np.random.default_rng(seed), sample_rate_hz=spec.sample_rate_hz)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = SessionSettings("soak", "0" * 64, PartnerSettings(), seed, 0, 0, _RATE_HZ, "soak")
        writer = LiveSessionWriter(folder, settings, clock_rate_hz=spec.sample_rate_hz)
        engine = LiveEngine(
            source=source,
            front_end=FrontEnd(spec, source_rate_hz=_RATE_HZ),
            analysis=_Again(percepts),
            loop=EventLoop(partner, sample_rate_hz=spec.sample_rate_hz),
            output=output,
            clock=stream,
            spec=spec,
            source_rate_hz=_RATE_HZ,
            block=_BLOCK,
            observer=writer,
            now_s=clock,
            suspended_s=lambda: 0.0,
        )
        began_s = time.perf_counter()
        errors, memory_mb, objects = _run(
            engine, source, output, clock, stream, passage, writer, folder, hours=hours, seed=seed
        )
        engine.finish()
        output.panic()
        took_s = time.perf_counter() - began_s
        missing = _missing(folder, writer, engine.position)
    at_h, error_ms = np.array(errors).T
    late = at_h > min(0.1, hours / 2)
    drift = float(np.polyfit(at_h[late], error_ms[late], 1)[0]) if late.sum() > 2 else 0.0
    expected = max(0, int(engine.now_stream_s * spec.sample_rate_hz - spec.segment_samples - spec.lookahead_samples))
    segments = expected // spec.hop_samples + 1
    quarter = len(memory_mb) // 4
    return Soaked(
        speed=hours * 3600 / took_s,
        grown_mb=max(0.0, memory_mb[-1] - max(memory_mb[: quarter + 1])),
        objects_grown=max(0, max(objects[len(objects) // 2 :]) - max(objects[: len(objects) // 2])),
        drift_ms_per_h=drift,
        clock_error_ms=float(np.abs(error_ms[late]).max()) if late.any() else 0.0,
        struck=output.timeline.counts.struck,
        ended=output.timeline.counts.ended,
        decisions=engine.counts.decisions,
        segments=segments,
        segments_lost=segments - engine.counts.segments,
        samples_missing=missing,
    )


def _run(
    engine: LiveEngine,
    source: "_Source",
    output: "_Output",
    clock: "_Clock",
    stream: ClockFit,
    passage: Float32,
    recorder: SessionRecorder,
    folder: Path,
    *,
    hours: float,
    seed: int,
) -> tuple[list[tuple[float, float]], list[float], list[int]]:
    """Let blocks arrive; return errors of the input's clock (hour, ms), memory and objects in use, once a minute."""
    rng = np.random.default_rng(seed)
    period_s = (1 + _PPM * 1e-6) / _RATE_HZ
    blocks = round(hours * 3600 * _RATE_HZ / _BLOCK)
    errors, memory_mb, objects = [], [_memory_mb()], [_own_objects()]
    start_s, next_look_s = clock.now, _LOOK_S / 10
    for number in range(1, blocks + 1):
        first = (number - 1) * _BLOCK % passage.shape[0]
        part = passage[first : first + _BLOCK]
        if part.shape[0] < _BLOCK:
            part = np.concatenate([part, passage[: _BLOCK - part.shape[0]]])
        true_s = start_s + number * _BLOCK * period_s
        clock.now = max(clock.now, true_s + float(rng.exponential(_JITTER_S)))
        stream.observe(number * _BLOCK, clock.now)
        source.blocks.append(Block(part, clock.now, first_sample=(number - 1) * _BLOCK))
        engine.step()
        output.advance(clock.now)
        if number % _SETTLE_BLOCKS == 0:
            recorder.settle()
            for old in sorted((folder / "input").glob("*.flac"))[:-_KEPT_CHUNKS]:
                old.write_bytes(b"")  # heard of, and its room given back
        if clock.now - start_s >= next_look_s:
            next_look_s += _LOOK_S if hours > 1 else _LOOK_S / 10
            errors.append(((clock.now - start_s) / 3600, 1000 * (stream.time_of(number * _BLOCK) - true_s)))
            memory_mb.append(_memory_mb())
            objects.append(_own_objects())
    return errors, memory_mb, objects


def _missing(folder: Path, recorder: SessionRecorder, position: int) -> int:
    """Return how many samples of the input are not in the session, by the number of its chunks and what the last ones hold."""
    import soundfile

    recorder.close()
    chunks = sorted((folder / "input").glob("*.flac"))
    kept = [soundfile.info(chunk).frames if chunk.stat().st_size else 10 * _RATE_HZ for chunk in chunks]
    return position - sum(kept)


class _Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class _Source:
    def __init__(self) -> None:
        self.blocks: list[Block] = []

    def read(self) -> Sequence[Block]:
        blocks, self.blocks = self.blocks, []
        return blocks

    def wait(self, timeout_s: float) -> None:
        pass


class _Output:
    """The core of the scheduler on the virtual clock."""

    def __init__(self) -> None:
        self.timeline = NoteScheduler()
        self._now_s = 0.0

    def play(self, decision: Decision, moment_of: Callable[[float], float]) -> int:
        notes = [Note(moment_of(n.onset_s), n.duration_s, n.pitch, n.velocity) for n in decision.notes if n.duration_s > 0]
        return sum(self.timeline.play(note, self._now_s) for note in notes)

    def advance(self, now_s: float) -> None:
        self._now_s = now_s
        self.timeline.step(now_s)

    def follow(self, pulse: Callable[[], object], moment_of: Callable[[float], float]) -> None:
        pass

    def mute(self, muted: bool) -> None:
        self.timeline.mute(muted, self._now_s)

    def panic(self) -> None:
        self.timeline.panic(self._now_s)

    def tend(self) -> Sequence[tuple[str, str]]:
        return ()

    def statistics(self) -> Mapping[str, object]:
        return {}


class _Again(AnalysisThread):
    """Hears the same passage again and again: each window's percept is that of the window so many before, moved in time."""

    def __init__(self, percepts: Sequence[Percept]) -> None:
        self._percepts = tuple(percepts)
        self._heard: deque[AnalysedWindow] = deque()

    def submit(self, window: Window) -> list[int]:
        percept = self._percepts[window.index % len(self._percepts)]
        heard = percept.heard
        moved = window.start_sample - heard.start_sample
        moved_s = moved / 24_000
        new = replace(
            heard,
            index=window.index,
            start_sample=window.start_sample,
            available_at=window.available_at,
            frame_samples=heard.frame_samples + moved,
            onset_samples=window.onset_samples,
            notes=tuple(replace(note, onset_s=note.onset_s + moved_s) for note in heard.notes if note.onset_s + moved_s >= 0),
        )
        gestures = tuple(replace(g, start_s=g.start_s + moved_s) for g in percept.gestures if g.start_s + moved_s >= 0)
        self._heard.append(AnalysedWindow(Percept(new, percept.tokens, gestures), 0.0))
        return []

    def take(self) -> list[AnalysedWindow]:
        heard = list(self._heard)
        self._heard.clear()
        return heard

    def close(self, timeout_s: float = 0.0) -> bool:
        self._heard.clear()
        return True


def _memory_mb() -> float:
    status = Path("/proc/self/status")
    if not status.exists():
        import psutil

        return float(psutil.Process().memory_info().rss) / 1e6
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmRSS:")) / 1024


def _own_objects() -> int:
    """Return how many objects of MusicHal's own types there are."""
    kinds = Counter(map(type, gc.get_objects()))
    return sum(number for kind, number in kinds.items() if str(kind.__module__).startswith("musichal."))
