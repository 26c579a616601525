"""How well the drift alarm keeps quiet, and names what is wrong: recordings cut into what is learned and what is played.

Conventions
-----------
A partner learns one part of a recording and hears another, which it has never heard: the other half, a third after the
other two, two thirds after the other one, or another take. Takes are recordings whose names agree up to the last "_", as
``song_mix`` and ``song_guitar``. No alarm is right there; each one that is raised counts, per four minutes of what was
played. Recordings of less than `LEAST_S` are not cut: they are played whole to takes of them.

Then the same partner hears what is wrong: a stretch of what is played through each fault, and each recording that is no take
of the one it learned, for `STRETCH_S`. It is *detected* if anything is raised or noted, and *named* if the right cause is
among them.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.figure import Figure
from benchmarks.tokens_alone import without_notes
from musichal.arrays import Float32
from musichal.audio.recording import Recording, read_recording
from musichal.errors import InputError
from musichal.hearing.encoders import create_encoder
from musichal.hearing.listener import FeatureExtractor, Tokenizer
from musichal.live.drift import CAUSES, Cause, DriftMonitor, DriftReport
from musichal.memory.partner_file import PartnerModel
from musichal.spec import PerceptionSpec
from musichal.training.trainer import train

LEAST_S = 90.0
STRETCH_S = 24.0
_SEED = 1
_NOISE_DB = -25.0
_PER_S = 240.0
# Kinds of splits, and whether their false alarms have a goal: a third of a song, or a part of a band, is little to know.
_KINDS = {
    "a half, after the other": 0.0,
    "a third, after the other two": 0.0,
    "two thirds, after the other": None,
    "another take": None,
}
_DETECTED_GOAL = 0.9


@dataclass(frozen=True)
class Split:
    """What is learned, and what is played: stretches of recordings, in seconds."""

    kind: str
    learned: Sequence[tuple[Recording, float, float]]
    played: Sequence[tuple[Recording, float, float]]


@dataclass(frozen=True)
class Heard:
    """What one split raised: false alarms in `played_s`, and the alarms of each trial, (cause, what was done, raised)."""

    split: Split
    played_s: float
    false_alarms: tuple[DriftReport, ...]
    trials: tuple[tuple[Cause, str, tuple[Cause, ...]], ...]


def splits(recordings: Sequence[Recording]) -> Iterator[Split]:
    """Yield every split of the recordings."""
    for recording in recordings:
        end = recording.duration_s
        if end >= LEAST_S:
            for first in (0, 1):
                halves = [(recording, 0.0, end / 2), (recording, end / 2, end)]
                yield Split("a half, after the other", [halves[first]], [halves[1 - first]])
            thirds = [(recording, n * end / 3, (n + 1) * end / 3) for n in range(3)]
            for n in range(3):
                others = [thirds[m] for m in range(3) if m != n]
                yield Split("a third, after the other two", others, [thirds[n]])
                yield Split("two thirds, after the other", [thirds[n]], others)
        takes = [(other, 0.0, other.duration_s) for other in recordings if _take(other, recording)]
        if takes:
            yield Split("another take", [(recording, 0.0, end)], takes)


def _song(recording: Recording) -> str:
    return Path(recording.name).stem.rpartition("_")[0] or Path(recording.name).stem


def _take(one: Recording, other: Recording) -> bool:
    return one is not other and _song(one) == _song(other)


def hear_split(split: Split, recordings: Sequence[Recording]) -> Heard:
    """Learn and play one split, then everything that is wrong."""
    model = train([cut(*stretch) for stretch in split.learned], PerceptionSpec(), keep_audio=False)
    false_alarms: list[DriftReport] = []
    for stretch in split.played:
        part = cut(*stretch)
        false_alarms += [r for r in told(model, part.samples, part.sample_rate_hz) if r.event == "raised"]
    recording, first_s, last_s = split.played[0]
    sample = cut(recording, first_s, min(last_s, first_s + STRETCH_S))
    rate = sample.sample_rate_hz
    sounds = [(cause, what, sound, rate) for cause, what, sound in faults(sample.samples, rate)]
    for other in recordings:
        if _song(other) != _song(split.learned[0][0]):
            middle_s = max(0.0, other.duration_s / 2 - STRETCH_S / 2)
            part = cut(other, middle_s, middle_s + STRETCH_S)
            sounds.append(("other instrument", f"{other.name}", part.samples, part.sample_rate_hz))
    trials = tuple(
        (cause, what, tuple(r.cause for r in told(model, sound, own_rate))) for cause, what, sound, own_rate in sounds
    )
    played_s = sum(last - first for _, first, last in split.played)
    return Heard(split, played_s, tuple(false_alarms), trials)


def cut(recording: Recording, first_s: float, last_s: float) -> Recording:
    """Return a stretch of a recording as a recording."""
    rate = recording.sample_rate_hz
    samples = np.ascontiguousarray(recording.samples[round(first_s * rate) : round(last_s * rate)])
    return replace(recording, samples=samples)


def told(model: PartnerModel, samples: Float32, sample_rate_hz: int) -> list[DriftReport]:
    """Return the alarms that a partner raises while it hears samples (n,), and what it notes."""
    reports: list[DriftReport] = []
    monitor, tokenizer = DriftMonitor(model), Tokenizer(model.spec, model.vocabularies)
    extractor = without_notes(FeatureExtractor(model.spec, create_encoder(model.spec)))
    for heard in extractor.stream(samples, source_rate_hz=sample_rate_hz, block_samples=sample_rate_hz):
        reports += monitor.step(tokenizer.step(heard))
    return [report for report in reports if report.event != "cleared"]


def faults(samples: Float32, sample_rate_hz: int) -> Iterator[tuple[Cause, str, Float32]]:
    """Yield (cause, what was done, sound) for each way in which an input goes wrong, as long as the samples (n,)."""
    n = len(samples)
    peak = float(np.abs(samples).max(initial=1e-9))
    yield "too quiet", "40 dB down", samples * np.float32(1e-2)
    yield "too quiet", "60 dB down", samples * np.float32(1e-3)
    for gain_db in (12, 20):
        loud = samples * np.float32(10 ** (gain_db / 20) / peak)
        yield "clipped", f"{gain_db} dB over full scale", np.clip(loud, -1, 1)
    yield "noise only", "white noise", noise(n, exponent=0)
    yield "noise only", "pink noise", noise(n, exponent=1)
    yield "wrong channel", "no signal", np.zeros(n, np.float32)
    t = np.arange(n) / sample_rate_hz
    partials = np.arange(1, 6)[:, np.newaxis]
    hum = (np.sin(2 * np.pi * 50 * partials * t) / partials).sum(axis=0)
    yield "wrong channel", "hum", (0.05 * hum).astype(np.float32)
    yield "wrong channel", "the noise of a preamplifier", noise(n, exponent=0) * np.float32(10 ** (-50 / 20))


def noise(n: int, *, exponent: float) -> Float32:
    """Return n samples at -25 dBFS with a power spectrum of 1 / f ** exponent."""
    spectrum = np.fft.rfft(np.random.default_rng(_SEED).standard_normal(n))
    spectrum[1:] /= np.arange(1, len(spectrum)) ** (exponent / 2)
    spectrum[0] = 0
    sound = np.fft.irfft(spectrum, n)
    return (sound / sound.std() * 10 ** (_NOISE_DB / 20)).astype(np.float32)


def measure_drift(paths: Sequence[Path]) -> list[Figure]:
    """Return false alarms per four minutes for each kind of split, and per cause the shares detected and named.

    Raises `InputError` where there is nothing to split: no recording of `LEAST_S`, and no takes of one another.
    """
    recordings = [read_recording(path) for path in paths]
    heard = [hear_split(split, recordings) for split in splits(recordings)]
    if not heard:
        raise InputError(f"the drift benchmark needs a --recording of at least {LEAST_S:.0f} s, or takes: song_a, song_b")
    return drift_figures(heard)


def drift_figures(heard: Sequence[Heard]) -> list[Figure]:
    """Return the figures of splits that were heard; a kind of split or a cause that was not asked has none."""
    figures = []
    for kind, goal in _KINDS.items():
        own = [h for h in heard if h.split.kind == kind]
        played_s = sum(h.played_s for h in own)
        if own:
            count = sum(len(h.false_alarms) for h in own)
            name = f"false alarms, {kind} ({count} in {played_s / 60:.1f} min)"
            figures.append(Figure(name, count * _PER_S / played_s, "per 4 min", goal=goal))
    figures += [
        Figure(f"false alarm, {report.cause}: {_words(h.split)}; after", report.time_s, "s")
        for h in heard
        for report in h.false_alarms
    ]
    trials = Counter((cause, cause in causes, bool(causes)) for h in heard for cause, _, causes in h.trials)
    for cause in CAUSES:
        total = sum(count for (c, _, _), count in trials.items() if c == cause)
        if total:
            detected = sum(count for (c, _, any_at_all), count in trials.items() if c == cause and any_at_all)
            named = sum(count for (c, right, _), count in trials.items() if c == cause and right)
            figures.append(
                Figure(f"{cause}, detected ({detected} of {total})", detected / total, "", goal=_DETECTED_GOAL, at_least=True)
            )
            figures.append(
                Figure(f"{cause}, named ({named} of {total})", named / total, "", goal=_DETECTED_GOAL, at_least=True)
            )
    return figures


def _words(split: Split) -> str:
    def stretches(parts: Sequence[tuple[Recording, float, float]]) -> str:
        return " and ".join(f"{recording.name} {first:.0f}-{last:.0f} s" for recording, first, last in parts)

    return f"{stretches(split.learned)} learned, {stretches(split.played)} played"
