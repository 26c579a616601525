"""Where live hearing goes wrong, and the likely cause: samples, stems, features or tokens.

Tokens tell that two ways of hearing differ, but not why, and quantisation hides small faults. `SampleAudit` compares every
window of the live path with the recording, filtered and resampled by other objects. `compare_stages` compares the live path
with a second pass of this installation, in even blocks, segment by segment and bit for bit at each stage. The first stage
that differs is where they part; later ones inherit it. The likely cause is judged from the first segment that differs.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile, zip_longest
from typing import NamedTuple

import numpy as np

from musichal.arrays import AnyArray, Float32, Float64, Int16, Int64
from musichal.audio.recording import ingest
from musichal.audio.resample import StreamResampler
from musichal.evaluate.checks import Check
from musichal.hearing.encoders import create_encoder
from musichal.hearing.front_end import HighPass
from musichal.hearing.listener import FeatureExtractor, Listener, Tokenizer
from musichal.hearing.percepts import SILENCE, SOURCES, Percept, Stems, Window
from musichal.memory.partner_file import PartnerModel
from musichal.spec import PerceptionSpec

STAGES = ("samples", "stems", "features", "tokens")
"""On the way from sound to token."""
_USUAL_CAUSES = {
    "stems": "the separation into harmonic and percussive sound is another one",
    "features": "the encoder is another one, or something is done to its frames",
    "tokens": "the vocabulary or the gate is another one",
}
_BLOCK_S = 1.0
_RELATED = 0.5  # sounds that correlate less are not one another's
_LARGEST_ROLL = 4
_LONGEST_LOSS_S, _SURE = 5.0, 0.95  # a window's place is where it correlates so well with the sound
# Of pieces of 256 samples most fit with a gain of their own but for -25 dB, and the gain is not rounding.
_PIECE_SAMPLES, _GAIN_FITS_DB, _LEAST_GAIN_DB, _MOST = 256, -25.0, 0.3, 0.6
_SMALL_DB, _QUIET = -15.0, 1e-5


class Segment(NamedTuple):
    """A segment at every stage: the window it is heard in, its stems, the frames that are new in it, and what they became.

    `samples` and `stems` have shape (window,), `features` (n, dims) per source, `tokens` (sources, n).
    """

    start_sample: int
    length_samples: int
    frame_samples: Int64
    samples: tuple[Float32, ...]
    stems: tuple[Float32, ...]
    features: tuple[Float32, ...]
    tokens: tuple[Int16, ...]

    def differing(self, other: "Segment") -> list[str]:
        """Return the stages at which two segments differ in any bit; their place counts to the samples."""
        same_place = self[:2] == other[:2] and np.array_equal(self.frame_samples, other.frame_samples)
        stages = [stage for stage in STAGES if not _equal(getattr(self, stage), getattr(other, stage))]
        return stages if same_place or "samples" in stages else ["samples", *stages]


def _equal(a: Sequence[AnyArray], b: Sequence[AnyArray]) -> bool:
    return len(a) == len(b) and all(map(np.array_equal, a, b))


@dataclass(frozen=True)
class StageComparison:
    """Two ways of hearing, stage by stage: of `segments` segments, `differing` of each stage differ, the first at `first_at`.

    `largest` is the largest difference of each stage (for tokens, how many differ; None between other shapes). `stage`,
    `detail` and `cause` say where they part first and why; all are empty if nothing differs.
    """

    segments: int
    differing: dict[str, int]
    first_at: dict[str, int | None]
    largest: dict[str, float | None]
    stage: str
    detail: str
    cause: str

    def checks(self, name: str) -> tuple[Check, ...]:
        """Return a check per stage of a recording."""
        return tuple(self._check(name, stage) for stage in STAGES)

    def _check(self, name: str, stage: str) -> Check:
        differing = self.differing[stage]
        detail, cause = "bit for bit", ""
        if differing and stage == self.stage:
            detail, cause = f"here they part: {self.detail}", self.cause
        elif differing:
            detail, cause = f"from segment {self.first_at[stage]} on", f"follows from the {self.stage}"
        return Check(
            group="parity",
            name=f"{name}, {stage}, stage by stage",
            expected=f"{self.segments} of {self.segments} segments",
            found=f"{self.segments - differing} of {self.segments} segments",
            passed=not differing,
            detail=detail,
            cause=cause,
            values={
                "stage": stage,
                "segments": self.segments,
                "differing": differing,
                "first_segment": self.first_at[stage],
                "largest": self.largest[stage],
                "parts_here": stage == self.stage,
            },
        )


def reference_segments(model: PartnerModel, samples: Float32, *, sample_rate_hz: int) -> Iterator[Segment]:
    """Yield how this installation hears samples (n,) with a partner's spec, in even blocks."""
    seen: deque[tuple[Window, Stems]] = deque()
    extractor = FeatureExtractor(model.spec, create_encoder(model.spec), tap=lambda *stage: seen.append(stage))
    tokenizer = Tokenizer(model.spec, model.vocabularies)
    for features in extractor.stream(samples, source_rate_hz=sample_rate_hz, block_samples=sample_rate_hz):
        yield from _segments(seen, [tokenizer.step(features)])


def live_segments(model: PartnerModel, samples: Float32, *, sample_rate_hz: int, blocks: Iterable[int]) -> Iterator[Segment]:
    """Yield how the live path hears samples (n,) in blocks of these sizes."""
    seen: deque[tuple[Window, Stems]] = deque()
    spec, tap = model.spec, lambda *stage: seen.append(stage)
    listener = Listener(spec, create_encoder(spec), model.vocabularies, source_rate_hz=sample_rate_hz, tap=tap)
    first = 0
    for size in blocks:
        yield from _segments(seen, listener.push(samples[first : first + size]).percepts)
        first += size
    yield from _segments(seen, listener.flush().percepts)


def _segments(seen: deque[tuple[Window, Stems]], percepts: Iterable[Percept]) -> Iterator[Segment]:
    for percept in percepts:
        window, stems = seen.popleft()
        yield Segment(
            window.start_sample,
            window.length_samples,
            percept.heard.frame_samples,
            (window.samples,),
            (stems.harmonic, stems.percussive),
            percept.heard.features,
            tuple(percept.tokens),
        )


def compare_stages(
    model: PartnerModel,
    samples: Float32,
    *,
    sample_rate_hz: int,
    blocks: Iterable[int],
    audit: "SampleAudit",
    until_s: float = np.inf,
    progress: Callable[[float], None] | None = None,
) -> StageComparison:
    """Compare the live path, over samples (n,) in blocks of these sizes, with the reference.

    Both begin at the beginning, as a difference may depend on all that came before it, and end with the segment that begins
    behind `until_s`. `audit` has seen the whole recording and judges samples that differ.
    """
    rate = model.spec.sample_rate_hz
    end_s = min(len(samples) / sample_rate_hz, until_s)

    def within(segments: Iterator[Segment]) -> Iterator[Segment]:
        return takewhile(lambda segment: segment.start_sample <= until_s * rate, segments)

    references = within(reference_segments(model, samples, sample_rate_hz=sample_rate_hz))
    lives = within(live_segments(model, samples, sample_rate_hz=sample_rate_hz, blocks=blocks))
    count, parts, detail, cause = 0, "", "", ""
    differing = dict.fromkeys(STAGES, 0)
    first_at: dict[str, int | None] = dict.fromkeys(STAGES)
    largest: dict[str, float | None] = dict.fromkeys(STAGES, 0.0)
    for number, (mine, theirs) in enumerate(zip_longest(references, lives)):
        count += 1
        stages = mine.differing(theirs) if mine and theirs else list(STAGES)
        for stage in stages:
            differing[stage] += 1
            first_at[stage] = number if first_at[stage] is None else first_at[stage]
            amount, so_far = _amount(mine, theirs, stage), largest[stage]
            largest[stage] = None if amount is None or so_far is None else max(so_far, amount)
        if stages and not parts:
            parts, detail = stages[0], _detail(mine, theirs, stages[0], number, model.spec)
            cause = audit.cause() if parts == "samples" else _cause(parts, mine, theirs) or _USUAL_CAUSES[parts]
        if progress is not None and mine:
            progress(min(1.0, (mine.start_sample + mine.length_samples) / rate / end_s))
    return StageComparison(count, differing, first_at, largest, parts, detail, cause)


def _pairs(mine: Segment | None, theirs: Segment | None, stage: str) -> list[tuple[AnyArray, AnyArray]]:
    """Return the arrays of both beside each other; nothing if their shapes differ."""
    pairs = list(zip(getattr(mine, stage, ()), getattr(theirs, stage, ()), strict=False))
    return pairs if all(a.shape == b.shape for a, b in pairs) else []


def _amount(mine: Segment | None, theirs: Segment | None, stage: str) -> float | None:
    pairs = _pairs(mine, theirs, stage)
    if not pairs:
        return None
    if stage == "tokens":
        return float(sum(np.count_nonzero(a != b) for a, b in pairs))
    return max(float(np.abs(b.astype(np.float64) - a).max(initial=0.0)) for a, b in pairs)


def _detail(mine: Segment | None, theirs: Segment | None, stage: str, number: int, spec: PerceptionSpec) -> str:
    """Return in words where and by how much two segments differ."""
    if mine is None or theirs is None:
        return f"segment {number} {'is missing' if theirs is None else 'should not be there'}"
    pairs = _pairs(mine, theirs, stage)
    if not pairs:
        if mine.length_samples != theirs.length_samples:
            return f"segment {number}: it is {theirs.length_samples} samples long, not {mine.length_samples}"
        shapes = [" and ".join("×".join(map(str, a.shape)) for a in getattr(s, stage)) for s in (theirs, mine)]
        return f"segment {number}: its {stage} are {shapes[0]} values, not {shapes[1]}"
    which = next((i for i, (a, b) in enumerate(pairs) if not np.array_equal(a, b)), None)
    if which is None:
        return f"segment {number} starts at sample {theirs.start_sample}, not {mine.start_sample}, or has other frames"
    a, b = pairs[which]
    row = int(np.argmax((a != b) if a.ndim == 1 else (a != b).any(axis=1)))
    by_frame = stage in ("features", "tokens")
    position = int(mine.frame_samples[row]) if by_frame else mine.start_sample - spec.context_samples + row
    where = f"segment {number}, {position / spec.sample_rate_hz:.3f} s"
    where += "" if stage == "samples" else f", {SOURCES[which]} source"
    where += f", frame {row}" if by_frame else ""
    amount = _amount(mine, theirs, stage)
    if stage == "tokens":
        return f"{where}: {token_words(b[row])} instead of {token_words(a[row])}; {amount:.0f} tokens of the segment differ"
    return f"{where}: off by up to {amount:.3g}"


def token_words(token: int) -> str:
    """Return a token in words."""
    return "silence" if token == SILENCE else f"token {token}"


def _cause(stage: str, mine: Segment | None, theirs: Segment | None) -> str:
    """Return in words why a segment heard in two ways, `mine` the right one, parts at a stage; empty if not known."""
    pairs = _pairs(mine, theirs, stage)
    if not pairs:
        return ""
    which = [n for n, (a, b) in enumerate(pairs) if not np.array_equal(a, b)]
    where = "both sources" if len(which) == len(SOURCES) else f"the {SOURCES[which[0]]} source only"
    likeness = ", ".join(f"{SOURCES[n]} {_correlation(*pairs[n]):.2f}" for n in which)
    if stage == "stems":
        if min(_correlation(*pair) for pair in pairs) < _RELATED:
            return f"what is taken for stems is not the separated sound: masks, or the wrong source (correlation {likeness})"
        return f"the separation has other settings (correlation with the right stems: {likeness})"
    if stage == "features":
        return _feature_cause([pairs[n] for n in which], where, likeness)
    differs = np.concatenate([a != b for a, b in pairs])
    silence = np.concatenate([(a == SILENCE) != (b == SILENCE) for a, b in pairs])
    if silence[differs].mean() > _RELATED:
        return "the same features, but silence against sound: the gate is another one"
    return "the same features, but other tokens: the vocabulary is another one, such as another recording's"


def _feature_cause(pairs: Sequence[tuple[AnyArray, AnyArray]], where: str, likeness: str) -> str:
    if all(len(b) > 1 and not np.ptp(b, axis=0).any() and np.ptp(a, axis=0).any() for a, b in pairs):
        return f"every frame of a segment has the same features: frames are averaged ({where})"
    for shift in (sign * k for k in range(1, _LARGEST_ROLL + 1) for sign in (1, -1)):
        if all(np.array_equal(np.roll(a, shift, axis=1), b) for a, b in pairs):
            return f"the features are the right ones, moved by {shift:+d}: a band or layer off by {abs(shift)} ({where})"
    return f"the encoder is another one, or has other constants or another layer: {where} (correlation {likeness})"


def _correlation(a: AnyArray, b: AnyArray) -> float:
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / norm if norm else 0.0


class SampleAudit:
    """Compares the windows of a live path with the recording itself, samples (n,), bit for bit: give the path its `tap`."""

    def __init__(self, spec: PerceptionSpec, samples: Float32, *, sample_rate_hz: int) -> None:
        self._spec = spec
        self._sound = resampled(spec, samples, sample_rate_hz=sample_rate_hz)
        self._windows = self._differing = 0
        self._largest = 0.0
        self._first: Window | None = None
        self._latest: Window | None = None

    def tap(self, window: Window, _stems: Stems) -> None:
        """Take the next window."""
        self._windows += 1
        expected = self._expected(window)
        if window.samples.shape[0] == self._spec.window_samples and np.array_equal(window.samples, expected):
            return
        self._differing += 1
        self._largest = max(self._largest, float(np.abs(window.samples - expected).max(initial=0.0)))
        self._first = self._first or window
        self._latest = window

    def _expected(self, window: Window) -> Float32:
        """Return the sound at the place that a window claims, shape (window,), silence outside."""
        first = window.start_sample - self._spec.context_samples
        out = np.zeros(window.samples.shape[0], dtype=np.float32)
        begin, end = max(0, first), min(first + window.real_samples, len(self._sound))
        if end > begin:
            out[begin - first : end - first] = self._sound[begin:end]
        return out

    @property
    def first_s(self) -> float | None:
        """Where the first window that differs starts, in seconds; None if none does."""
        return None if self._first is None else self._first.start_sample / self._spec.sample_rate_hz

    def check(self, name: str) -> Check:
        """Return the check that every window is the sound itself."""
        same = self._windows - self._differing
        detail = "filtered and resampled once more, sample by sample"
        if self._first is not None:
            detail = f"first in window {self._first.index} ({self.first_s:.3f} s): off by up to {self._largest:.3g}"
        return Check(
            group="parity",
            name=f"{name}, samples, live",
            expected=f"{self._windows} of {self._windows} windows",
            found=f"{same} of {self._windows} windows",
            passed=not self._differing,
            detail=detail,
            cause=self.cause(),
            values={
                "windows": self._windows,
                "equal": same,
                "first_window": None if self._first is None else self._first.index,
                "largest": self._largest,
            },
        )

    def cause(self) -> str:
        """Return in words why samples differ; empty if they do not."""
        first, latest, spec = self._first, self._latest, self._spec
        if first is None or latest is None:
            return ""
        rate = spec.sample_rate_hz
        if first.samples.shape[0] != spec.window_samples:
            now, usual = (1000 * n / rate for n in (first.length_samples, spec.segment_samples))
            return f"another segment length: {now:.0f} ms instead of {usual:.0f} ms"
        lag = self._lag(latest)
        if lag:
            words = "were lost" if lag > 0 else "came twice, or from elsewhere,"
            return f"{abs(lag)} samples ({1000 * abs(lag) / rate:.0f} ms) {words} on the way, near {self.first_s:.1f} s"
        expected = self._expected(first)
        gains = _gains_db(expected, first.samples)
        if gains is not None:
            return f"the level is another one: gains from {gains[0]:+.1f} to {gains[1]:+.1f} dB within one window"
        error, power = np.square(first.samples - expected).sum(), np.square(expected).sum()
        if error <= power * 10 ** (_SMALL_DB / 10):
            return "another resampler, or another quality of it: the same sound, a little off everywhere"
        return "the sound itself is another one: another file or channel, gain, or lost blocks"

    def _lag(self, window: Window) -> int:
        """Return by how many samples the sound of a window lies behind its place; 0 if it is found nowhere else."""
        from scipy.signal import correlate

        context, real = self._spec.context_samples, window.real_samples
        piece = window.samples[max(context, real - self._spec.segment_samples) : real]
        if len(piece) < _PIECE_SAMPLES or float(np.abs(piece).max()) < _QUIET:
            return 0
        place = window.start_sample - context + real - len(piece)
        reach = round(_LONGEST_LOSS_S * self._spec.sample_rate_hz)
        begin = max(0, place - reach)
        around = self._sound[begin : place + len(piece) + reach]
        if len(around) < len(piece):
            return 0
        products = correlate(around.astype(np.float64), piece.astype(np.float64), mode="valid", method="fft")
        sums = np.concatenate([[0.0], np.cumsum(np.square(around, dtype=np.float64))])
        norms = np.sqrt(np.maximum(sums[len(piece) :] - sums[: -len(piece)], 1e-12) * np.square(piece, dtype=np.float64).sum())
        likeness = products / norms
        best = int(likeness.argmax())
        at_its_place = float(likeness[place - begin]) if place - begin < len(likeness) else 0.0
        return begin + best - place if likeness[best] > _SURE and at_its_place < _SURE else 0


def resampled(spec: PerceptionSpec, samples: Float32, *, sample_rate_hz: int) -> Float32:
    """Return a recording (n,) as hearing begins with it: filtered, at the spec's rate."""
    highpass = HighPass(cutoff_hz=spec.highpass_hz, sample_rate_hz=sample_rate_hz)
    resampler = StreamResampler(source_rate_hz=sample_rate_hz, target_rate_hz=spec.sample_rate_hz, quality=spec.resampler)
    block = max(1, round(_BLOCK_S * sample_rate_hz))
    parts = [
        resampler.push(highpass.push(ingest(samples[first : first + block]))) for first in range(0, samples.shape[0], block)
    ]
    return np.concatenate([*parts, resampler.flush()])


def _gains_db(expected: Float32, found: Float32) -> tuple[float, float] | None:
    """Return the least and the greatest gain if most pieces are their counterparts at another level, else None."""
    n = len(expected) // _PIECE_SAMPLES * _PIECE_SAMPLES
    a: Float64 = expected[:n].reshape(-1, _PIECE_SAMPLES).astype(np.float64)
    b: Float64 = found[:n].reshape(-1, _PIECE_SAMPLES).astype(np.float64)
    sounding = (np.square(a).mean(axis=1) > _QUIET**2) & (np.square(b).mean(axis=1) > _QUIET**2)
    if not sounding.any():
        return None
    a, b = a[sounding], b[sounding]
    gains = (a * b).sum(axis=1) / np.square(a).sum(axis=1)
    rest = np.square(b - gains[:, None] * a).sum(axis=1) / np.square(b).sum(axis=1)
    fits = (rest < 10 ** (_GAIN_FITS_DB / 10)) & (gains > 0)
    if fits.mean() < _MOST:
        return None
    levels = 20 * np.log10(gains[fits])
    return (float(levels.min()), float(levels.max())) if np.abs(levels).max() > _LEAST_GAIN_DB else None
