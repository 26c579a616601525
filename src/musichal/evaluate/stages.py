"""Hearing compared stage by stage: samples, stems, features, tokens.

Tokens tell that two ways of hearing differ, but not why, and a small fault may hide behind them: quantisation swallows most
of what another resampler does. Here each segment is compared at every stage on its way, bit for bit, and the first stage
that differs is named. A partner keeps tokens only, so the reference is this installation's own hearing of the stored
recording; the suspect is whatever another path delivered, in full or as digests.

Conventions
-----------
Segments are compared in order of their index, one at a time, so that an hour needs no more memory than a minute. Positions
count samples from the start of the stream at the spec's rate. Of stages that differ in one segment, the first on the way
from sound to token is where they part; what follows only inherits it.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import takewhile, zip_longest
from typing import Any

import numpy as np

from musichal.arrays import AnyArray, Float32, Float64, Int16, Int64
from musichal.evaluate.causes import MEANING, cause_of
from musichal.evaluate.verification import Check
from musichal.hearing.encoders import create_encoder
from musichal.hearing.listener import FeatureExtractor, Listener, Tokenizer
from musichal.hearing.percepts import SILENCE, SOURCES, Percept, Stems, Window
from musichal.memory.partner_file import PartnerModel
from musichal.spec import PerceptionSpec

STAGES = ("samples", "stems", "features", "tokens")
"""On the way from sound to token."""

_BLOCK_S = 1.0


@dataclass(frozen=True)
class StageDigests:
    """A segment at every stage as digests, in the order of `STAGES`: small enough to keep for a whole concert."""

    index: int
    digests: tuple[str, ...]


@dataclass(frozen=True)
class StageTrace:
    """A segment at every stage.

    `samples` (window,) is what the segment was heard in, from position `first_sample` on (below 0 before the stream);
    the segment itself starts at `start_sample` and is `length_samples` long, its new frames are centred on
    `frame_samples` (n,). `stems` and `features` hold an array per source, (window,) and (n, dims); `tokens` is (sources, n).
    """

    index: int
    first_sample: int
    start_sample: int
    length_samples: int
    frame_samples: Int64
    samples: Float32
    stems: tuple[Float32, ...]
    features: tuple[Float32, ...]
    tokens: Int16

    def arrays(self, stage: str) -> tuple[AnyArray, ...]:
        """Return what a stage holds: one array for samples, one per source for the others."""
        values: dict[str, tuple[AnyArray, ...]] = {
            "samples": (self.samples,),
            "stems": self.stems,
            "features": self.features,
            "tokens": tuple(self.tokens),
        }
        return values[stage]

    def digests(self) -> StageDigests:
        """Return the SHA-256 of each stage; where the segment and its frames lie counts to its samples."""
        place = f"{self.first_sample} {self.start_sample} {self.length_samples}".encode() + self.frame_samples.tobytes()
        return StageDigests(self.index, tuple(_digest(self.arrays(s), place if s == "samples" else b"") for s in STAGES))


@dataclass(frozen=True)
class StageDifference:
    """Where two ways of hearing part.

    `segment` is its index, `position_s` where in the stream the first differing value lies, `source` and `frame` (in the
    segment) whose it is, `largest` the largest absolute difference in the segment (for tokens: how many differ) and
    `relative_db` the level of the difference beside the reference's. What cannot be known from digests, or between arrays
    of other shapes, is None. `detail` says it all in a sentence.
    """

    stage: str
    segment: int
    position_s: float | None
    source: str | None
    frame: int | None
    largest: float | None
    relative_db: float | None
    detail: str
    cause: str = ""

    @property
    def meaning(self) -> str:
        """What can be wrong."""
        return MEANING[self.stage]


@dataclass(frozen=True)
class StageFigures:
    """One stage over all segments: in how many it differs, in which first, and by how much at most (None if not known)."""

    stage: str
    segments: int
    differing: int
    first_segment: int | None
    largest: float | None


@dataclass(frozen=True)
class StageComparison:
    """The four stages, and where the two first differ; `first` is None where all agree."""

    stages: tuple[StageFigures, ...]
    first: StageDifference | None

    @property
    def agrees(self) -> bool:
        """Whether every stage of every segment is the same, bit for bit."""
        return self.first is None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        first = None if self.first is None else {**vars(self.first), "meaning": self.first.meaning}
        return {"agrees": self.agrees, "stages": [dict(vars(s)) for s in self.stages], "first": first}


class StageTracer:
    """Collects traces from a listener: give it `tap`, then hand it every percept that comes out, in order."""

    def __init__(self, spec: PerceptionSpec) -> None:
        self._context = spec.context_samples
        self._seen: deque[tuple[Window, Stems]] = deque()

    def tap(self, window: Window, stems: Stems) -> None:
        """Take what a segment was before its features."""
        self._seen.append((window, stems))

    def take(self, percepts: Iterable[Percept]) -> list[StageTrace]:
        """Return the traces of the next percepts."""
        return [self._trace(*self._seen.popleft(), percept) for percept in percepts]

    def _trace(self, window: Window, stems: Stems, percept: Percept) -> StageTrace:
        return StageTrace(
            index=window.index,
            first_sample=window.start_sample - self._context,
            start_sample=window.start_sample,
            length_samples=window.length_samples,
            frame_samples=percept.heard.frame_samples,
            samples=window.samples,
            stems=(stems.harmonic, stems.percussive),
            features=percept.heard.features,
            tokens=percept.tokens,
        )


def reference_traces(model: PartnerModel, samples: Float32, *, sample_rate_hz: int) -> Iterator[StageTrace]:
    """Yield how this installation hears samples of shape (n,) with a partner's ears: what a suspect is compared with.

    Raises
    ------
    InputError
        For a rate that cannot be heard, or an encoder that is not the partner's.
    """
    tracer = StageTracer(model.spec)
    extractor = FeatureExtractor(model.spec, create_encoder(model.spec), tap=tracer.tap)
    tokenizer = Tokenizer(model.spec, model.vocabularies)
    size = max(1, round(_BLOCK_S * sample_rate_hz))
    for segment in extractor.stream(samples, source_rate_hz=sample_rate_hz, block_samples=size):
        yield from tracer.take([tokenizer.step(segment)])


def live_traces(model: PartnerModel, samples: Float32, *, sample_rate_hz: int, blocks: Iterable[int]) -> Iterator[StageTrace]:
    """Yield how the live path hears samples of shape (n,) in blocks of these sizes; raises as `reference_traces` does."""
    tracer = StageTracer(model.spec)
    encoder = create_encoder(model.spec)
    listener = Listener(model.spec, encoder, model.vocabularies, source_rate_hz=sample_rate_hz, tap=tracer.tap)
    first = 0
    for size in blocks:
        yield from tracer.take(listener.push(samples[first : first + size]).percepts)
        first += size
    yield from tracer.take(listener.flush().percepts)


def compare_live(
    model: PartnerModel,
    samples: Float32,
    *,
    sample_rate_hz: int,
    blocks: Iterable[int],
    until_s: float | None = None,
    progress: Callable[[float], None] | None = None,
) -> StageComparison:
    """Compare the live path, over samples (n,) in blocks of these sizes, with the reference.

    Both are heard from the beginning, as what went wrong at a place may depend on all that came before it, and no further
    than to the segment that begins behind `until_s`. `progress` is told how much of that is done, 0 to 1.
    """
    rate = model.spec.sample_rate_hz
    end_s = min(samples.shape[0] / sample_rate_hz, until_s if until_s is not None else np.inf)

    def within(traces: Iterator[StageTrace]) -> Iterator[StageTrace]:
        return takewhile(lambda trace: until_s is None or trace.start_sample <= until_s * rate, traces)

    def told(traces: Iterator[StageTrace]) -> Iterator[StageTrace]:
        for trace in traces:
            if progress is not None:
                progress(min(1.0, (trace.start_sample + trace.length_samples) / rate / end_s))
            yield trace

    return compare_stages(
        told(within(reference_traces(model, samples, sample_rate_hz=sample_rate_hz))),
        within(live_traces(model, samples, sample_rate_hz=sample_rate_hz, blocks=blocks)),
        sample_rate_hz=rate,
    )


def stage_checks(name: str, comparison: StageComparison, *, cause: str = "") -> tuple[Check, ...]:
    """Return a check per stage; `cause` where more is known of it than the comparison tells."""
    return tuple(_check(name, figures, comparison.first, cause) for figures in comparison.stages)


def _check(name: str, figures: StageFigures, first: StageDifference | None, known: str) -> Check:
    same = figures.segments - figures.differing
    detail, cause = "bit for bit", ""
    if figures.differing and first is not None:
        if first.stage == figures.stage:
            detail, cause = f"here they part: {first.detail}", known or first.cause
        else:
            detail, cause = f"from segment {figures.first_segment} on", f"follows from the {first.stage}"
    return Check(
        group="parity",
        name=f"{name}, {figures.stage}, stage by stage",
        expected=f"{figures.segments} of {figures.segments} segments",
        found=f"{same} of {figures.segments} segments",
        passed=not figures.differing,
        detail=detail,
        cause=cause,
        values=vars(figures) | {"parts_here": first is not None and first.stage == figures.stage},
    )


def compare_stages(
    reference: Iterable[StageTrace], suspect: Iterable[StageTrace | StageDigests], *, sample_rate_hz: int
) -> StageComparison:
    """Compare two ways of hearing the same sound, segment by segment and stage by stage.

    Parameters
    ----------
    reference : iterable of StageTrace
    suspect : iterable of StageTrace or StageDigests
        Digests tell where, but not by how much.
    sample_rate_hz : int
        The spec's rate, for positions in seconds.
    """
    segments = 0
    first: StageDifference | None = None
    differing = dict.fromkeys(STAGES, 0)
    first_segment: dict[str, int | None] = dict.fromkeys(STAGES)
    largest: dict[str, float | None] = dict.fromkeys(STAGES, 0.0)
    for number, (mine, theirs) in enumerate(zip_longest(reference, suspect)):
        segments += 1
        stages = _differing(mine, theirs)
        for stage in stages:
            differing[stage] += 1
            if first_segment[stage] is None:
                first_segment[stage] = number
            amount = _amount(mine, theirs, stage) if mine is not None and isinstance(theirs, StageTrace) else None
            so_far = largest[stage]
            largest[stage] = None if amount is None or so_far is None else max(so_far, amount)
        if stages and first is None:
            first = _difference(mine, theirs, stages[0], number, sample_rate_hz)
            whole = mine is not None and isinstance(theirs, StageTrace)
            first = replace(first, cause=cause_of(stages[0], mine, theirs) if whole else MEANING[stages[0]])  # type: ignore[arg-type]
    figures = tuple(StageFigures(s, segments, differing[s], first_segment[s], largest[s]) for s in STAGES)
    return StageComparison(figures, first)


def _digest(arrays: tuple[AnyArray, ...], place: bytes) -> str:
    h = hashlib.sha256(place)
    for array in arrays:
        h.update(f"{array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return h.hexdigest()


def _differing(mine: StageTrace | None, theirs: StageTrace | StageDigests | None) -> list[str]:
    if mine is None or theirs is None:
        return list(STAGES)
    other = theirs.digests() if isinstance(theirs, StageTrace) else theirs
    return [s for s, a, b in zip(STAGES, mine.digests().digests, other.digests, strict=True) if a != b]


def _pairs(mine: StageTrace, theirs: StageTrace, stage: str) -> list[tuple[AnyArray, AnyArray]] | None:
    """Return the arrays of both side by side; None where their shapes differ."""
    pairs = list(zip(mine.arrays(stage), theirs.arrays(stage), strict=False))
    same = len(mine.arrays(stage)) == len(theirs.arrays(stage)) and all(a.shape == b.shape for a, b in pairs)
    return pairs if same else None


def _amount(mine: StageTrace, theirs: StageTrace, stage: str) -> float | None:
    pairs = _pairs(mine, theirs, stage)
    if pairs is None:
        return None
    if stage == "tokens":
        return float(sum(np.count_nonzero(a != b) for a, b in pairs))
    return max(float(np.abs(_subtract(a, b)).max(initial=0.0)) for a, b in pairs)


def _subtract(a: AnyArray, b: AnyArray) -> Float64:
    return b.astype(np.float64) - a.astype(np.float64)


def _difference(
    mine: StageTrace | None, theirs: StageTrace | StageDigests | None, stage: str, number: int, rate_hz: int
) -> StageDifference:
    if mine is None or theirs is None:
        present = mine or theirs
        at_s = present.start_sample / rate_hz if isinstance(present, StageTrace) else None
        detail = f"segment {number} is missing" if theirs is None else f"segment {number} should not be there"
        return StageDifference("samples", number, at_s, None, None, None, None, detail)
    start_s = mine.start_sample / rate_hz
    if isinstance(theirs, StageDigests):
        detail = f"the {stage} of segment {number} have another digest"
        return StageDifference(stage, number, start_s, None, None, None, None, detail)
    pairs = _pairs(mine, theirs, stage)
    if pairs is None:
        detail = f"segment {number}: {_shape_text(mine, theirs, stage)}"
        return StageDifference(stage, number, start_s, None, None, None, None, detail)
    which = next((i for i, (a, b) in enumerate(pairs) if not np.array_equal(a, b)), None)
    if which is None:  # the same numbers in another place: the grid has moved
        detail = f"segment {number} starts at sample {theirs.start_sample}, not {mine.start_sample}, or has other frames"
        return StageDifference(stage, number, start_s, None, None, 0.0, None, detail)
    a, b = pairs[which]
    row = int(np.argmax((a != b) if a.ndim == 1 else (a != b).any(axis=1)))
    by_frame = stage in ("features", "tokens")
    position = int(mine.frame_samples[row]) if by_frame else mine.first_sample + row
    source = None if stage == "samples" else SOURCES[which]
    amount = _amount(mine, theirs, stage)
    assert amount is not None
    relative = None if stage == "tokens" else _relative_db(a, b)
    where = f"segment {number}, {position / rate_hz:.3f} s" + (f", {source} source" if source else "")
    if by_frame:
        where += f", frame {row}"
    if stage == "tokens":
        detail = f"{where}: {_token(b[row])} instead of {_token(a[row])}; {amount:.0f} tokens of the segment differ"
    else:
        assert relative is not None
        detail = f"{where}: off by up to {amount:.3g} ({relative:+.0f} dB beside what it should be)"
    return StageDifference(stage, number, position / rate_hz, source, row if by_frame else None, amount, relative, detail)


def _shape_text(mine: StageTrace, theirs: StageTrace, stage: str) -> str:
    if stage == "samples":
        if mine.length_samples != theirs.length_samples:
            return f"it is {theirs.length_samples} samples long, not {mine.length_samples}"
        return f"it is heard in a window of {theirs.samples.shape[0]} samples, not {mine.samples.shape[0]}"
    shapes = [" and ".join("×".join(map(str, a.shape)) for a in t.arrays(stage)) for t in (theirs, mine)]
    return f"its {stage} are {shapes[0]} values, not {shapes[1]}"


def _token(token: np.int16) -> str:
    return "silence" if token == SILENCE else f"token {token}"


def _relative_db(a: AnyArray, b: AnyArray) -> float:
    """Return the level of the difference beside that of `a`, limited to ±200 dB, where either vanishes."""
    power, error = float(np.square(a.astype(np.float64)).sum()), float(np.square(_subtract(a, b)).sum())
    return float(np.clip(10 * np.log10(max(error, 1e-60) / max(power, 1e-60)), -200, 200))
