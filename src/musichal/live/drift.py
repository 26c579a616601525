"""Drift: whether what is heard on stage is still what the partner was trained on, and if not, why.

A `DriftMonitor` takes percepts and keeps the last ten seconds of them: per source a token histogram, compared with the
training's, and beside it what the cause can be told from. How far music may stray is read from the partner's own
recordings: each ten seconds of them against the recordings without the passage that they lie in, for what is played will be
a new passage too. So a solo, a break or a quiet passage is no alarm.

The monitor counts in samples of the stream, like the engine, so it says the same on the virtual clock and on stage.

References
----------
Divergence: Lin, IEEE Trans. IT 37(1), 1991.
"""

import dataclasses
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from musichal.arrays import AnyArray, Int64
from musichal.hearing.percepts import SILENT_DB, SOURCES, Percept
from musichal.hearing.vocabulary import Vocabulary, jensen_shannon_divergence, perplexity, token_histogram, top_share
from musichal.memory.partner_file import PartnerModel
from musichal.text import clock

Cause = Literal["too quiet", "clipped", "other instrument", "noise only", "wrong channel"]
CAUSES: tuple[Cause, ...] = ("too quiet", "clipped", "other instrument", "noise only", "wrong channel")

# Of frames: what has the same token, or the same strongest pitch class, for so long is not being played.
_STEADY = 0.9
# Sounds that lie closer to their centres than in training are no nearer to it for that.
_LEAST_MISFIT = 0.3
_ADVICE: dict[Cause, str] = {
    "too quiet": "the input is too quiet: turn the gain up",
    "clipped": "the input is clipped: turn the gain down",
    "other instrument": "the input sounds like nothing the partner was trained on: another instrument or another music?",
    "noise only": "there is only noise at the input: is the instrument plugged in?",
    "wrong channel": "no music arrives at the input: is it the right channel?",
}


@dataclass(frozen=True, kw_only=True)
class DriftSettings:
    """When drift is an alarm.

    Figures are of the last `window_s`; a source with less than `least_audible_s` of audible frames in it is not judged. A
    fault of the input (clipped, too quiet, noise, silence, hum) is an alarm once it has lasted for `hold_s`; sounds that
    are strange only after `patience_s`; an alarm is cleared after `hold_s` without its reason.

    *Strangeness* of a source is how much further its tokens diverge from training than a new passage of the recordings
    usually does, plus `misfit_weight` times the logarithm of the quantisation error (1 in training). What is usual is the
    median over the recordings' own windows, each held against the recordings without the `left_out_share` of them that it
    lies in. Beyond `harmonic_strangeness` or `percussive_strangeness`, in the window and in its later half, the sounds are
    strange. A source has collapsed where its commonest token has a share that goes `top_share_margin` of the way from the
    training's largest to 1 while its perplexity is the `perplexity_factor`-th part of the training's least.

    The audible share may be `audible_factor` of the training's least. Below the level of the training's quietest window by
    `quiet_db` strange or inaudible sounds are too quiet, by `far_too_quiet_db` any are. Noise is below `noise_tonality`, the
    mean share of a frame's chroma that its strongest pitch class has, unless the training was so toneless itself. A
    `clipped_share` of samples at full scale is clipping. After music, nothing but silence is taken for a rest for `rest_s`.

    The constants were chosen on rendered scores; `musichal bench drift` measures them on recordings.
    """

    window_s: float = 10.0
    hold_s: float = 3.0
    patience_s: float = 8.0
    least_audible_s: float = 2.0
    left_out_share: float = 0.25
    misfit_weight: float = 0.2
    harmonic_strangeness: float = 0.4
    percussive_strangeness: float = 0.7
    top_share_margin: float = 0.75
    perplexity_factor: float = 4.0
    audible_factor: float = 0.5
    quiet_db: float = 6.0
    far_too_quiet_db: float = 20.0
    noise_tonality: float = 0.17
    clipped_share: float = 0.02
    rest_s: float = 30.0

    def __post_init__(self) -> None:
        if not (self.window_s > 0 and 0 < self.least_audible_s <= self.window_s):
            raise ValueError("drift: window_s must be positive and least_audible_s within the window")
        if not 0 <= self.hold_s <= self.patience_s:
            raise ValueError("drift: hold_s must not be negative, and patience_s not less")
        if not (0 <= self.left_out_share < 1 and 0 <= self.top_share_margin <= 1):
            raise ValueError("drift: left_out_share and top_share_margin must be from 0 to 1")


@dataclass(frozen=True)
class SourceFigures:
    """A window of one source: tokens in use, the commonest one's share, perplexity over training's, divergence (bits).

    `misfit` is the mean squared distance of its audible frames to their centres over that of the training, `strangeness`
    what `DriftSettings` says.
    """

    unique: int
    top_share: float
    perplexity_ratio: float
    divergence: float
    misfit: float
    strangeness: float


@dataclass(frozen=True)
class SourceTraining:
    """One source of the training: its histogram, and what its own windows are like.

    Divergences are of each window against the recordings without the passage that it lies in: the median and the largest.
    """

    histogram: Int64
    perplexity: float
    usual_divergence: float
    largest_divergence: float
    largest_top_share: float
    least_perplexity_ratio: float


@dataclass(frozen=True)
class TrainingStatistics:
    """What live windows are held against. A source that was silent throughout is None: it cannot be judged."""

    sources: tuple[SourceTraining | None, SourceTraining | None]
    least_level_db: float
    least_audible_share: float
    least_tonality: float


@dataclass(frozen=True)
class DriftFigures:
    """A window: figures per source (None where too little was audible), and what its sound was like.

    `level_db` RMS in dBFS, `audible_share` of frames with a source above the gate, `full_scale_share` of samples,
    `tonality` the mean share of a frame's strongest pitch class in its chroma (1/12 where all are equal), `steadiness` how
    many of the frames have the same one.
    """

    sources: tuple[SourceFigures | None, SourceFigures | None]
    level_db: float
    audible_share: float
    full_scale_share: float
    tonality: float
    steadiness: float
    onsets: int


@dataclass(frozen=True)
class DriftReport:
    """An alarm that was raised or cleared, with the figures at that moment."""

    time_s: float
    event: Literal["raised", "cleared"]
    cause: Cause
    figures: DriftFigures

    @property
    def text(self) -> str:
        """One line for a person."""
        if self.event == "cleared":
            return f"at {clock(self.time_s)}: the input is as in training again (it was: {self.cause})"
        return f"at {clock(self.time_s)}: {self.cause} - {_ADVICE[self.cause]}"

    def to_dict(self) -> dict[str, object]:
        """Return plain values, figures by the name of their source."""
        figures = dataclasses.asdict(self.figures)
        figures["sources"] = dict(zip(SOURCES, figures["sources"], strict=True))
        return {"time_s": self.time_s, "event": self.event, "cause": self.cause, "figures": figures}

    def to_json(self) -> str:
        """Return one line of JSON."""
        return json.dumps(self.to_dict(), sort_keys=True, allow_nan=False)


Subscriber = Callable[[DriftReport], None]


def training_statistics(model: PartnerModel, settings: DriftSettings) -> TrainingStatistics:
    """Return what a partner's own recordings say about how far its music strays, from their stored tokens.

    A window is compared with everything but the passage that it lies in: live music was not in the training either.
    """
    rate = model.spec.sample_rate_hz
    frames = max(1, round(settings.window_s * rate / model.spec.encoder.stride_samples))
    step = max(1, frames // 40)
    levels, audible = [], []
    for recording in model.recordings:
        heard = np.asarray((recording.tokens >= 0).any(axis=0))
        for window in _windows(heard.shape[0], frames, step):
            audible.append(float(heard[window].mean()))
            levels.append(_mean_db(np.power(10.0, recording.level_db[window].astype(np.float64) / 10).mean()))
    first, second = (
        _source_training(
            [r.tokens[number] for r in model.recordings],
            size=model.vocabularies[number].size,
            frames=frames,
            step=step,
            least=_least_frames(model, settings),
            left_out_share=settings.left_out_share,
        )
        for number in range(len(SOURCES))
    )
    return TrainingStatistics((first, second), min(levels), min(audible), _least_tonality(model, settings))


def _least_tonality(model: PartnerModel, settings: DriftSettings) -> float:
    """Return the least of the training's windows; a state's chroma is a mean, and so a little flatter than its frames."""
    states = model.memory.states
    chroma = states["chroma"].astype(np.float64)
    total = chroma.sum(axis=1)
    tonality = chroma.max(axis=1) / np.where(total > 0, total, np.inf)
    least = 1.0
    for recording in range(len(model.recordings)):
        own = (states["recording"] == recording) & (total > 0)
        starts, weights, values = states["start_s"][own], states["duration_s"][own], tonality[own]
        for first_s in np.arange(0.0, max(1.0, float(starts.max(initial=0.0)) - settings.window_s), 1.0):
            inside = (starts >= first_s) & (starts < first_s + settings.window_s)
            if weights[inside].sum() > 0:
                least = min(least, float(np.average(values[inside], weights=weights[inside])))
    return least


def _windows(n: int, frames: int, step: int) -> list[slice]:
    return [slice(first, first + frames) for first in range(0, max(1, n - frames + 1), step)]


def _least_frames(model: PartnerModel, settings: DriftSettings) -> int:
    return max(1, round(settings.least_audible_s * model.spec.sample_rate_hz / model.spec.encoder.stride_samples))


def _source_training(
    tokens: list[AnyArray], *, size: int, frames: int, step: int, least: int, left_out_share: float
) -> SourceTraining | None:
    total = np.zeros(size, dtype=np.int64)
    for row in tokens:
        total += token_histogram(row, size=size)
    if total.sum() < least:
        return None
    whole = perplexity(total)
    passage = round(left_out_share * sum(row.shape[0] for row in tokens))
    divergences, shares, ratios = [], [], []
    for row in tokens:
        for window in _windows(row.shape[0], frames, step):
            own = token_histogram(row[window], size=size)
            if own.sum() < least:
                continue
            shares.append(top_share(own))
            ratios.append(perplexity(own) / whole)
            rest = total - token_histogram(row[passage_around(window, row.shape[0], length=passage)], size=size)
            if rest.sum() >= least:
                divergences.append(jensen_shannon_divergence(own, rest))
    # Of a recording that is one window long nothing is known but that music strays: half-way is as good as any.
    divergences, shares, ratios = divergences or [0.5], shares or [0.5], ratios or [0.5]
    return SourceTraining(total, whole, float(np.median(divergences)), max(divergences), max(shares), min(ratios))


def passage_around(window: slice, n: int, *, length: int) -> slice:
    """Return the passage of `length` frames, or as long as the window, that has the window in its middle.

    At the ends of the `n` frames it is moved inwards; where there are fewer than `length`, it is all of them.
    """
    length = min(n, max(length, window.stop - window.start))
    first = min(max(0, (window.start + window.stop - length) // 2), n - length)
    return slice(first, first + length)


@dataclass(frozen=True)
class _Evidence:
    """What one percept adds to a window."""

    end_sample: int
    length_samples: int
    frames: int
    histograms: tuple[Int64, Int64]
    squared_distances: tuple[float, float]
    power: float
    audible: int
    full_scale_samples: float
    tonality: float
    pitch_classes: Int64
    onsets: int


class DriftMonitor:
    """Watches percepts for drift.

    Parameters
    ----------
    model : PartnerModel
    settings : DriftSettings
    subscribers : sequence of callables
        Each is told every report as it comes; `step` returns them too.
    """

    def __init__(
        self, model: PartnerModel, settings: DriftSettings | None = None, *, subscribers: tuple[Subscriber, ...] = ()
    ) -> None:
        self._settings = settings or DriftSettings()
        self._training = training_statistics(model, self._settings)
        self._vocabularies = model.vocabularies
        self._rate_hz = model.spec.sample_rate_hz
        self._least_frames = _least_frames(model, self._settings)
        self._subscribers = subscribers
        self._window: deque[_Evidence] = deque()
        self._figures: DriftFigures | None = None
        self._alarm: Cause | None = None
        self._suspected: Cause | None = None
        self._since = 0
        self._music_until: int | None = None

    @property
    def training(self) -> TrainingStatistics:
        """Return what is held against."""
        return self._training

    @property
    def figures(self) -> DriftFigures | None:
        """Return the figures of the latest full window; None while there is none."""
        return self._figures

    @property
    def alarm(self) -> Cause | None:
        """Return the cause of the alarm that stands."""
        return self._alarm

    def step(self, percept: Percept) -> tuple[DriftReport, ...]:
        """Take the next percept and return the alarms that it raised or cleared."""
        settings = self._settings
        self._window.append(self._evidence(percept))
        now = self._window[-1].end_sample
        length = settings.window_s * self._rate_hz
        while len(self._window) > 1 and now - self._window[1].end_sample + self._window[1].length_samples >= length:
            self._window.popleft()
        oldest = self._window[0]
        if now - oldest.end_sample + oldest.length_samples < length:
            return ()
        self._figures = figures = self._measure(list(self._window))
        suspected, hold_s = self._suspect(figures, now)
        if suspected != self._suspected:
            self._suspected, self._since = suspected, now
        if suspected == self._alarm or now - self._since < hold_s * self._rate_hz:
            return ()
        reports = []
        time_s = percept.heard.available_at / self._rate_hz
        if self._alarm is not None:
            reports.append(DriftReport(time_s, "cleared", self._alarm, figures))
        if suspected is not None:
            reports.append(DriftReport(time_s, "raised", suspected, figures))
        self._alarm = suspected
        for report in reports:
            for tell in self._subscribers:
                tell(report)
        return tuple(reports)

    def _evidence(self, percept: Percept) -> _Evidence:
        heard = percept.heard
        level = np.power(10.0, heard.level_db.astype(np.float64) / 10)
        chroma = heard.chroma.astype(np.float64)
        total = chroma.sum(axis=1)
        sounding = (total > 0) & (heard.level_db > SILENT_DB)
        errors = [
            _squared_distance(vocabulary, heard.features[number], percept.tokens[number])
            for number, vocabulary in enumerate(self._vocabularies)
        ]
        histograms = [token_histogram(percept.tokens[n], size=v.size) for n, v in enumerate(self._vocabularies)]
        return _Evidence(
            end_sample=heard.start_sample + heard.length_samples,
            length_samples=heard.length_samples,
            frames=level.shape[0],
            histograms=(histograms[0], histograms[1]),
            squared_distances=(errors[0], errors[1]),
            power=float(level.sum()),
            audible=int((percept.tokens >= 0).any(axis=0).sum()),
            full_scale_samples=heard.full_scale_share * heard.length_samples,
            tonality=float((chroma.max(axis=1)[sounding] / total[sounding]).sum()),
            pitch_classes=np.bincount(chroma.argmax(axis=1)[sounding], minlength=12),
            onsets=len(heard.onset_samples),
        )

    def _measure(self, window: list[_Evidence]) -> DriftFigures:
        frames = max(1, sum(e.frames for e in window))
        pitch_classes = np.sum([e.pitch_classes for e in window], axis=0)
        sounding = int(pitch_classes.sum())
        return DriftFigures(
            sources=(self._source(window, 0), self._source(window, 1)),
            level_db=_mean_db(sum(e.power for e in window) / frames),
            audible_share=sum(e.audible for e in window) / frames,
            full_scale_share=sum(e.full_scale_samples for e in window) / max(1, sum(e.length_samples for e in window)),
            tonality=sum(e.tonality for e in window) / sounding if sounding else 0.0,
            steadiness=top_share(pitch_classes),
            onsets=sum(e.onsets for e in window),
        )

    def _source(self, window: list[_Evidence], number: int) -> SourceFigures | None:
        training = self._training.sources[number]
        histogram = np.sum([e.histograms[number] for e in window], axis=0)
        audible = int(histogram.sum())
        if training is None or audible < self._least_frames:
            return None
        error = sum(e.squared_distances[number] for e in window) / audible
        divergence = jensen_shannon_divergence(histogram, training.histogram)
        misfit = error / self._vocabularies[number].spread
        beyond = self._settings.misfit_weight * float(np.log(max(misfit, _LEAST_MISFIT)))
        return SourceFigures(
            unique=int(np.count_nonzero(histogram)),
            top_share=top_share(histogram),
            perplexity_ratio=perplexity(histogram) / training.perplexity,
            divergence=divergence,
            misfit=misfit,
            strangeness=divergence - training.usual_divergence + beyond,
        )

    def _recent(self) -> DriftFigures:
        """Return what the cause is told from: the older half of the window may still be what was played before."""
        now, half = self._window[-1].end_sample, self._settings.window_s * self._rate_hz / 2
        return self._measure([e for e in self._window if now - e.end_sample < half])

    def _suspect(self, figures: DriftFigures, now: int) -> tuple[Cause | None, float]:
        """Return what is wrong, and how long that must last before it is told, in seconds."""
        settings, training = self._settings, self._training
        # An alarm that stands is cleared by less than would raise it.
        ease = 0.5 if self._alarm is not None else 1.0
        if figures.full_scale_share > settings.clipped_share * ease:
            return "clipped", settings.hold_s
        if figures.audible_share < training.least_audible_share * settings.audible_factor / ease**0.5:
            return self._why_silent(now), settings.hold_s
        self._music_until = now
        recent = self._recent()
        fault = self._fault(figures, recent, ease)
        if fault is None and self._strange(figures, ease) and self._strange(recent, ease):
            return self._why_strange(recent), settings.patience_s
        return fault, settings.hold_s

    def _fault(self, figures: DriftFigures, recent: DriftFigures, ease: float) -> Cause | None:
        """Return what is wrong with the input where it can be told from its sound alone."""
        settings, training = self._settings, self._training
        if self._steady(figures) and self._steady(recent):
            return "wrong channel"  # hum: one steady sound, and nobody plays
        if max(figures.tonality, recent.tonality) < settings.noise_tonality < training.least_tonality:
            return "noise only"
        level_db = max(figures.level_db, recent.level_db)
        return "too quiet" if level_db < training.least_level_db - settings.far_too_quiet_db * ease**0.5 else None

    def _steady(self, figures: DriftFigures) -> bool:
        harmonic, known = figures.sources[0], self._training.sources[0]
        steady = figures.onsets == 0 and harmonic is not None and harmonic.top_share > _STEADY
        return steady and known is not None and known.largest_top_share < _STEADY

    def _why_strange(self, recent: DriftFigures) -> Cause:
        settings = self._settings
        if recent.tonality < settings.noise_tonality:
            return "noise only"
        if recent.level_db < self._training.least_level_db - settings.quiet_db:
            return "too quiet"
        return "other instrument"

    def _why_silent(self, now: int) -> Cause | None:
        """Below the gate: music that is too quiet has pitches that change, a channel without music silence, noise or hum."""
        recent = self._recent()
        if recent.level_db >= self._training.least_level_db - self._settings.quiet_db:
            return self._alarm  # what is there is loud enough: notes with long rests between them
        if recent.tonality >= self._settings.noise_tonality and recent.steadiness < _STEADY:
            return "too quiet"
        rests = self._music_until is not None and now - self._music_until < self._settings.rest_s * self._rate_hz
        return self._alarm if rests else "wrong channel"

    def _strange(self, figures: DriftFigures, ease: float) -> bool:
        settings = self._settings
        limits = (settings.harmonic_strangeness, settings.percussive_strangeness)
        for own, known, limit in zip(figures.sources, self._training.sources, limits, strict=True):
            if own is not None and known is not None:
                eased = limit * (0.8 if ease < 1 else 1.0)
                if own.strangeness > eased or self._collapsed(own, known, ease):
                    return True
        return False

    def _collapsed(self, own: SourceFigures, known: SourceTraining, ease: float) -> bool:
        settings = self._settings
        return (
            own.top_share > _towards_one(known.largest_top_share, settings.top_share_margin * ease)
            and own.perplexity_ratio * settings.perplexity_factor * ease < known.least_perplexity_ratio
        )


def _squared_distance(vocabulary: Vocabulary, features: AnyArray, tokens: AnyArray) -> float:
    """Return the sum of the squared distances of audible frames to the centres of their tokens."""
    audible = tokens >= 0
    if not audible.any():
        return 0.0
    difference = vocabulary.normalise(features[audible]) - vocabulary.centres[tokens[audible]]
    return float(np.einsum("nd,nd->", difference, difference))


def _towards_one(value: float, part: float) -> float:
    return value + part * (1.0 - value)


def _mean_db(power: float) -> float:
    return float(10 * np.log10(max(power, 10 ** (SILENT_DB / 10))))
