"""Drift: whether the live input is still like the music that the partner was trained on, and if not, why.

A `DriftMonitor` takes percepts and keeps the last ten seconds of them: per source a token histogram, compared with that of
training, and measures of the sound. How far music may stray is read from the partner's own recordings: each ten seconds of them
against the recordings without the passage around these. So a solo, a break or a quiet passage is no alarm. Faults of the input
show in the last six seconds. Music that is unlike the recordings is no fault: it is noted once. The monitor counts samples of
the stream, so it reports the same offline and live.

References
----------
Divergence: Lin, IEEE Trans. IT 37(1), 1991.
"""

import dataclasses
import json
from collections import deque
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from musichal.arrays import AnyArray, Float64, Int64
from musichal.hearing.percepts import SILENT_DB, SOURCES, Percept
from musichal.hearing.vocabulary import Vocabulary, jensen_shannon_divergence, perplexity, token_histogram, top_share
from musichal.memory.partner_file import PartnerModel
from musichal.text import clock

Cause = Literal["too quiet", "clipped", "other instrument", "noise only", "wrong channel"]
_ADVICE: dict[Cause, str] = {
    "too quiet": "the input is too quiet: turn the gain up",
    "clipped": "the input is clipped: turn the gain down",
    "other instrument": "the input is unlike the recordings (another instrument, or other music): exact matches will be rare",
    "noise only": "there is only noise at the input: is the instrument plugged in?",
    "wrong channel": "no music arrives at the input: is it the right channel?",
}
CAUSES: tuple[Cause, ...] = tuple(_ADVICE)

_STEADY = 0.9  # share of frames with the same token or pitch class, from which on it is not played music
_VARIED = 0.7  # of pitch classes, below which more than one note is played
_MAINS = (7, 8, 10, 11)  # pitch classes of 50 Hz, a little above G, and of 60 Hz, between B flat and B
_LOUDEST_HUM_DB = -25.0
_SOFT_HUM_DB = -40.0
_HUM_TONALITY = 0.29  # the mains are out of tune, so that their partials lie between pitch classes
_STRAYS_DB, _SOFT_STRAYS_DB = 1.8, 2.5
"""Frames of noise and hum are about equally loud, of soft deep noise less so; those of drums, cymbals and brushes are not."""
_NOISE_ONSETS = 20  # and so many are found in them at most
_SOME_ONSETS = 6  # in a window
_LEAST_MISFIT = 0.3  # sounds closer to their centres than in training count no less


@dataclass(frozen=True, kw_only=True)
class DriftSettings:
    """When drift is an alarm. The constants were chosen on rendered scores; `benchmarks drift` measures them on recordings.

    *Strangeness* of a source is how much further its tokens diverge from training than a new passage of the recordings usually
    does, plus `misfit_weight` times the logarithm of the quantisation error (1 in training). Usual is the median over the
    recordings' own windows, each compared with the recordings without the `left_out_share` of them around it.
    """

    window_s: float = 10.0
    fault_s: float = 6.0  # what faults of the input are told from
    hold_s: float = 3.0  # how long a fault of the input lasts before its alarm, and is gone before the alarm is cleared
    patience_s: float = 8.0  # how long sounds are strange before that is noted
    note_every_s: float = 1800.0
    least_audible_s: float = 2.0  # a source with less audible sound in the window is not judged
    left_out_share: float = 0.25
    misfit_weight: float = 0.2
    harmonic_strangeness: float = 0.4  # beyond these, in the window and in its later half, the sounds are strange
    percussive_strangeness: float = 0.7
    top_share_margin: float = 0.75  # tokens collapse: the top share is so much of the way from the training's largest to 1,
    perplexity_factor: float = 4.0  # and the perplexity this many times less than the training's least
    audible_factor: float = 0.5  # of the training's least audible share
    quiet_db: float = 6.0  # below the training's quietest window: strange or inaudible sounds are too quiet,
    far_too_quiet_db: float = 20.0  # any sounds are
    loud_db: float = -45.0  # nothing above is too quiet, however loud the training was
    noise_tonality: float = 0.17  # noise has less, unless the training was so toneless
    clipped_share: float = 0.02  # of samples at full scale
    rest_s: float = 30.0  # for so long after music, silence is a rest


@dataclass(frozen=True)
class SourceFigures:
    """A window of one source: tokens in use, top share, perplexity over training's, divergence (bits), misfit, strangeness.

    `misfit` is the mean squared distance of audible frames to their centres over that of training.
    """

    unique: int
    top_share: float
    perplexity_ratio: float
    divergence: float
    misfit: float
    strangeness: float


@dataclass(frozen=True)
class SourceTraining:
    """One source of the training: its histogram, and the extremes of its windows; divergences are against the rest of it."""

    histogram: Int64
    perplexity: float
    usual_divergence: float
    largest_top_share: float
    least_perplexity_ratio: float


@dataclass(frozen=True)
class TrainingStatistics:
    """What live windows are compared with. A source that was silent throughout is None and is not judged."""

    sources: tuple[SourceTraining | None, SourceTraining | None]
    least_level_db: float
    least_audible_share: float
    least_tonality: float


@dataclass(frozen=True)
class DriftFigures:
    """A window: statistics per source (None where too little was audible), and measures of its sound.

    `level_db` RMS in dBFS, `audible_share` of frames with a source above the gate, `full_scale_share` of samples, `tonality`
    the mean share of a frame's strongest pitch class in its chroma, `steadiness` the share of frames with the same one,
    `strays_db` the standard deviation of the frames' levels.
    """

    sources: tuple[SourceFigures | None, SourceFigures | None]
    level_db: float
    audible_share: float
    full_scale_share: float
    tonality: float
    steadiness: float
    onsets: int
    strays_db: float = 0.0


@dataclass(frozen=True)
class DriftReport:
    """An alarm that was raised or cleared, or what was noted without one, with the figures at that moment."""

    time_s: float
    event: Literal["raised", "cleared", "noted"]
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


# ── the training ─────────────────────────────────────────────────────────────

_MOST_WINDOWS = 20_000
_MOST_RECORDINGS = 1000
"""Of an archive so many windows and recordings are looked at, evenly spread."""


def training_statistics(model: PartnerModel, settings: DriftSettings) -> TrainingStatistics:
    """Return how far the music of a partner's own recordings strays, from their stored tokens."""
    least_tonality = _least_tonality(model, settings)
    model = replace(model, recordings=tuple(model.recordings[n] for n in _looked_at(model)))
    frames = max(1, round(settings.window_s * _frames_per_s(model)))
    step = max(1, frames // 40, sum(recording.tokens.shape[1] for recording in model.recordings) // _MOST_WINDOWS)
    levels, audible = [], []
    for recording in model.recordings:
        heard = np.asarray((recording.tokens >= 0).any(axis=0))
        for window in _windows(heard.shape[0], frames, step):
            audible.append(float(heard[window].mean()))
            levels.append(_mean_db(np.power(10.0, recording.level_db[window].astype(np.float64) / 10).mean()))
    first, second = (_source_training(model, number, settings, frames, step) for number in range(len(SOURCES)))
    return TrainingStatistics((first, second), min(levels), min(audible), least_tonality)


def _least_tonality(model: PartnerModel, settings: DriftSettings) -> float:
    """Return the least of the training's windows; a state's chroma is a mean, and so a little flatter than its frames."""
    least, edges = 1.0, np.searchsorted(model.memory.states["recording"], np.arange(len(model.recordings) + 1)).tolist()
    step_s = max(1.0, sum(model.recordings[n].duration_s for n in _looked_at(model)) / _MOST_WINDOWS)
    for number in _looked_at(model):
        states = model.memory.states[edges[number] : edges[number + 1]]
        chroma = states["chroma"].astype(np.float64)
        total = chroma.sum(axis=1)
        tonality = chroma.max(axis=1) / np.where(total > 0, total, np.inf)
        own = total > 0
        starts, weights, values = states["start_s"][own], states["duration_s"][own], tonality[own]
        for first_s in np.arange(0.0, max(1.0, float(starts.max(initial=0.0)) - settings.window_s), step_s):
            inside = (starts >= first_s) & (starts < first_s + settings.window_s)
            if weights[inside].sum() > 0:
                least = min(least, float(np.average(values[inside], weights=weights[inside])))
    return least


def _looked_at(model: PartnerModel) -> range:
    n = len(model.recordings)
    return range(0, n, -(-n // _MOST_RECORDINGS))


def _windows(n: int, frames: int, step: int) -> list[slice]:
    return [slice(first, first + frames) for first in range(0, max(1, n - frames + 1), step)]


def _frames_per_s(model: PartnerModel) -> float:
    return model.spec.sample_rate_hz / model.spec.encoder.stride_samples


def _least_frames(model: PartnerModel, settings: DriftSettings) -> int:
    return max(1, round(settings.least_audible_s * _frames_per_s(model)))


def _source_training(
    model: PartnerModel, number: int, settings: DriftSettings, frames: int, step: int
) -> SourceTraining | None:
    tokens, size = [recording.tokens[number] for recording in model.recordings], model.vocabularies[number].size
    least = _least_frames(model, settings)
    total = np.sum([token_histogram(row, size=size) for row in tokens], axis=0)
    if total.sum() < least:
        return None
    whole = perplexity(total)
    passage = round(settings.left_out_share * sum(row.shape[0] for row in tokens))
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
    # A recording of one window does not show how far music strays: half-way is as good as any value.
    divergences, shares, ratios = divergences or [0.5], shares or [0.5], ratios or [0.5]
    return SourceTraining(total, whole, float(np.median(divergences)), max(shares), min(ratios))


def passage_around(window: slice, n: int, *, length: int) -> slice:
    """Return the passage of `length` frames, at least the window, around the window, moved inside the `n` frames."""
    length = min(n, max(length, window.stop - window.start))
    first = min(max(0, (window.start + window.stop - length) // 2), n - length)
    return slice(first, first + length)


# ── the monitor ──────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Evidence:
    """What one percept adds to a window; `sums` holds all that is simply added up."""

    end_sample: int
    length_samples: int
    histograms: tuple[Int64, Int64]
    pitch_classes: Int64
    # frames, power, audible frames, samples at full scale, samples, tonality, onsets, levels, their squares, squared distances
    # of both sources
    sums: Float64


class DriftMonitor:
    """Watches percepts for drift."""

    def __init__(self, model: PartnerModel) -> None:
        self._settings = DriftSettings()
        self.training = training_statistics(model, self._settings)
        self.figures: DriftFigures | None = None
        """Of the latest full window."""
        self.alarm: Cause | None = None
        """The cause of the alarm that stands."""
        self._vocabularies = model.vocabularies
        self._rate_hz = model.spec.sample_rate_hz
        self._least_frames = _least_frames(model, self._settings)
        self._window: deque[_Evidence] = deque()
        self._suspected: Cause | None = None
        self._since = self._strange_since = 0
        self._noted_until = 0.0
        self._music_until: int | None = None

    def step(self, percept: Percept) -> tuple[DriftReport, ...]:
        """Take the next percept and return the alarms that it raised or cleared, and what is to be noted."""
        self._window.append(self._evidence(percept))
        now, length = self._window[-1].end_sample, self._settings.window_s * self._rate_hz
        while len(self._window) > 1 and now - self._window[1].end_sample + self._window[1].length_samples >= length:
            self._window.popleft()
        heard = now - self._window[0].end_sample + self._window[0].length_samples
        if heard < self._settings.fault_s * self._rate_hz:
            return ()
        recent = self._last(self._settings.fault_s)
        whole = self._measure(list(self._window))
        if heard >= length:
            self.figures = whole
        time_s = percept.heard.available_at / self._rate_hz
        suspected, hold_s = self._suspect(recent, whole if heard >= length else None, now)
        if suspected != self._suspected:
            self._suspected, self._since = suspected, now
        if suspected is not None or self.alarm is not None or not self._is_strange(whole, heard >= length):
            self._strange_since = now
        if now - self._strange_since >= self._settings.patience_s * self._rate_hz and time_s >= self._noted_until:
            self._noted_until = time_s + self._settings.note_every_s
            return (DriftReport(time_s, "noted", "other instrument", whole),)
        if suspected == self.alarm or now - self._since < hold_s * self._rate_hz:
            return ()
        cleared = [] if self.alarm is None else [DriftReport(time_s, "cleared", self.alarm, whole)]
        raised = [] if suspected is None else [DriftReport(time_s, "raised", suspected, whole)]
        self.alarm = suspected
        return tuple(cleared + raised)

    def _last(self, length_s: float) -> DriftFigures:
        now, length = self._window[-1].end_sample, length_s * self._rate_hz
        return self._measure([e for e in self._window if now - e.end_sample < length])

    def _suspect(self, recent: DriftFigures, window: DriftFigures | None, now: int) -> tuple[Cause | None, float]:
        """Return what is wrong, and how long it must last before it is reported, in seconds; `window` is None until full."""
        settings, training = self._settings, self.training
        # An alarm that stands is cleared by less than would raise it.
        ease = 0.5 if self.alarm is not None else 1.0
        hold_s, patience_s = settings.hold_s, settings.patience_s
        clipped = recent.full_scale_share > settings.clipped_share * ease
        silent = recent.audible_share < training.least_audible_share * settings.audible_factor / ease**0.5
        rests = self._music_until is not None and now - self._music_until < settings.rest_s * self._rate_hz
        quiet = recent.level_db < min(training.least_level_db - settings.quiet_db, settings.loud_db)
        most_db = _SOFT_STRAYS_DB if quiet else _STRAYS_DB
        even = recent.strays_db < most_db / ease**0.5 and recent.onsets <= _NOISE_ONSETS / ease
        toneless = recent.tonality < settings.noise_tonality and even
        far_db = training.least_level_db - settings.far_too_quiet_db * ease**0.5
        beats = recent.onsets >= _SOME_ONSETS and recent.level_db > settings.loud_db  # clicks, hats: short, nothing between
        strange = window is not None and self._is_strange(window, True)
        if not (clipped or silent):
            self._music_until = now
        causes: tuple[tuple[bool, Cause | None, float], ...] = (
            (clipped, "clipped", hold_s),
            (silent and not quiet, self.alarm, hold_s),  # notes with long rests between them: all stays as it is
            (silent and beats, None, hold_s),
            (silent and recent.tonality >= settings.noise_tonality and recent.steadiness < _STEADY, "too quiet", hold_s),
            (silent and rests, self.alarm, hold_s),
            (silent or self._is_hum(recent), "wrong channel", hold_s),
            (toneless and settings.noise_tonality < training.least_tonality, "noise only", hold_s),
            (quiet and recent.level_db < far_db, "too quiet", hold_s),
            (strange and toneless, "noise only", patience_s),
            (strange and quiet, "too quiet", patience_s),
            (window is not None and self._is_collapsed(window, ease), "other instrument", patience_s),
        )
        return next(((cause, lasts_s) for holds, cause, lasts_s in causes if holds), (None, hold_s))

    def _is_hum(self, figures: DriftFigures) -> bool:
        """Return whether one soft steady sound, as training has none, may be the hum of the mains at 50 or 60 Hz."""
        own, known = figures.sources[0], self.training.sources[0]
        if own is None or known is None or figures.onsets or not known.largest_top_share < _STEADY < own.top_share:
            return False
        pitch_class = int(np.sum([e.pitch_classes for e in self._window], axis=0).argmax())
        loudest_db = _LOUDEST_HUM_DB if figures.tonality < _HUM_TONALITY else _SOFT_HUM_DB
        even = figures.strays_db < _STRAYS_DB  # a soft long tone swells
        return even and pitch_class in _MAINS and figures.level_db < loudest_db

    def _is_collapsed(self, figures: DriftFigures, ease: float) -> bool:
        """Return whether different notes get one token: the vocabulary does not tell them apart."""
        settings, own, known = self._settings, figures.sources[0], self.training.sources[0]
        if own is None or known is None or figures.steadiness > _VARIED or figures.onsets < _SOME_ONSETS:
            return False
        margin = settings.top_share_margin * ease
        return (
            own.top_share > known.largest_top_share + margin * (1.0 - known.largest_top_share)
            and own.perplexity_ratio * settings.perplexity_factor * ease < known.least_perplexity_ratio
        )

    def _is_strange(self, whole: DriftFigures, full: bool) -> bool:
        """Return whether sounds are unlike the recordings, throughout the window and in its later half.

        The older half may still be what was played before.
        """
        settings = self._settings
        limits = (settings.harmonic_strangeness, settings.percussive_strangeness)

        def beyond(figures: DriftFigures) -> bool:
            return any(
                own is not None and known is not None and own.strangeness > limit
                for own, known, limit in zip(figures.sources, self.training.sources, limits, strict=True)
            )

        return full and beyond(whole) and beyond(self._last(settings.window_s / 2))

    def _evidence(self, percept: Percept) -> _Evidence:
        heard = percept.heard
        chroma = heard.chroma.astype(np.float64)
        total = chroma.sum(axis=1)
        sounding = (total > 0) & (heard.level_db > SILENT_DB)
        sources = list(zip(self._vocabularies, heard.features, percept.tokens, strict=True))
        first, second = (token_histogram(tokens, size=vocabulary.size) for vocabulary, _, tokens in sources)
        sums = [
            heard.level_db.shape[0],
            np.power(10.0, heard.level_db.astype(np.float64) / 10).sum(),
            (percept.tokens >= 0).any(axis=0).sum(),
            heard.full_scale_share * heard.length_samples,
            heard.length_samples,
            (chroma.max(axis=1)[sounding] / total[sounding]).sum(),
            len(heard.onset_samples),
            heard.level_db.sum(dtype=np.float64),
            np.square(heard.level_db, dtype=np.float64).sum(),
            *(_squared_distance(*source) for source in sources),
        ]
        pitch_classes = np.bincount(chroma.argmax(axis=1)[sounding], minlength=12)
        end = heard.start_sample + heard.length_samples
        return _Evidence(end, heard.length_samples, (first, second), pitch_classes, np.array(sums, dtype=np.float64))

    def _measure(self, window: list[_Evidence]) -> DriftFigures:
        frames, power, audible, full_scale, samples, tonality, onsets, levels, squares, *errors = np.sum(
            [e.sums for e in window], axis=0
        ).tolist()
        pitch_classes = np.sum([e.pitch_classes for e in window], axis=0)
        sounding = int(pitch_classes.sum())
        first, second = (self._source(number, window, error) for number, error in enumerate(errors))
        return DriftFigures(
            sources=(first, second),
            level_db=_mean_db(power / max(1, frames)),
            audible_share=audible / max(1, frames),
            full_scale_share=full_scale / max(1, samples),
            tonality=tonality / sounding if sounding else 0.0,
            steadiness=top_share(pitch_classes),
            onsets=int(onsets),
            strays_db=float(max(0.0, squares / max(1, frames) - (levels / max(1, frames)) ** 2) ** 0.5),
        )

    def _source(self, number: int, window: list[_Evidence], error: float) -> SourceFigures | None:
        training = self.training.sources[number]
        histogram = np.sum([e.histograms[number] for e in window], axis=0)
        audible = int(histogram.sum())
        if training is None or audible < self._least_frames:
            return None
        divergence = jensen_shannon_divergence(histogram, training.histogram)
        misfit = error / audible / self._vocabularies[number].spread
        beyond = self._settings.misfit_weight * float(np.log(max(misfit, _LEAST_MISFIT)))
        return SourceFigures(
            unique=int(np.count_nonzero(histogram)),
            top_share=top_share(histogram),
            perplexity_ratio=perplexity(histogram) / training.perplexity,
            divergence=divergence,
            misfit=misfit,
            strangeness=divergence - training.usual_divergence + beyond,
        )


def _squared_distance(vocabulary: Vocabulary, features: AnyArray, tokens: AnyArray) -> float:
    """Return the sum of the squared distances of audible frames to the centres of their tokens."""
    audible = tokens >= 0
    if not audible.any():
        return 0.0
    difference = vocabulary.normalise(features[audible]) - vocabulary.centres[tokens[audible]]
    return float(np.einsum("nd,nd->", difference, difference))


def _mean_db(power: float) -> float:
    return float(10 * np.log10(max(power, 10 ** (SILENT_DB / 10))))
