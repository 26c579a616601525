"""Whether live hearing is as diverse as training, and what averaging frames would cost.

Two ablations average: over a segment, and over a 350 ms window every 7 ms. Nothing else in MusicHal can average frames before a
token is found.
"""

from collections.abc import Callable, Sequence

import numpy as np

from musichal.arrays import AnyArray, Float32, Int16
from musichal.audio.recording import ingest
from musichal.audio.resample import StreamResampler
from musichal.evaluate.alignment import LiveStream, Parity, Subject
from musichal.evaluate.checks import Check
from musichal.evaluate.partner_stats import DiversityRow, diversity_row
from musichal.hearing.encoders import create_encoder
from musichal.hearing.percepts import SILENCE, SOURCES
from musichal.hearing.pitch import pitch_analyser
from musichal.hearing.separation import separate
from musichal.hearing.vocabulary import nearest
from musichal.memory.partner_file import PartnerModel
from musichal.spec import PerceptionSpec

DENSE_STRETCH_S = 10.0
"""How much of a recording the windows every 7 ms hear: they cost 50 times what hearing costs."""
WINDOW_HOP_S = 0.007


def diversity_checks(
    model: PartnerModel, asked: Sequence[Subject], heard: Sequence[Parity], quick: bool, progress: Callable[[float], None]
) -> tuple[tuple[DiversityRow, ...], list[Check]]:
    """Return how diverse training and live hearing are, and the checks of it; unless quick, of windows every 7 ms, too."""
    size, rate = model.spec.vocabulary.size, model.spec.sample_rate_hz
    # Training's own recordings stand for live hearing; new ones only if there are none.
    chosen = [n for n, p in enumerate(heard) if not p.heard.is_new] or list(range(len(heard)))
    is_new = heard[chosen[0]].heard.is_new
    lives, duration_s = [heard[n].live for n in chosen], sum(heard[n].heard.duration_s for n in chosen)
    stored = [r.tokens for r in model.recordings] if is_new else [heard[n].heard.stored_tokens for n in chosen]
    stored_s = sum(r.duration_s for r in model.recordings) if is_new else duration_s
    training = diversity_row("training", stored, size=size, duration_s=stored_s)
    live = diversity_row("live, all frames", [stream.tokens for stream in lives], size=size, duration_s=duration_s)
    means = [averaged_tokens(model, stream) for stream in lives]
    averaged = diversity_row("live, frames averaged", means, size=size, duration_s=duration_s)
    rows = [training, live, averaged]
    checks = [_diversity_check(training, live, is_new=is_new), _ablation_check(averaged, live)]
    if not quick:
        subject, stream = asked[chosen[0]], lives[0]
        length_s = min(DENSE_STRETCH_S, subject.duration_s)
        first_s = (subject.duration_s - length_s) / 2
        inside = (stream.frame_samples >= first_s * rate) & (stream.frame_samples < (first_s + length_s) * rate)
        label = f"live, all frames, {length_s:.0f} s"
        beside = diversity_row(label, [stream.tokens[:, inside]], size=size, duration_s=length_s)
        windows = windowed_tokens(model, subject, first_s=first_s, last_s=first_s + length_s, progress=progress)
        label = f"350 ms every 7 ms, averaged, {length_s:.0f} s"
        dense = diversity_row(label, [windows], size=size, duration_s=length_s)
        rows += [beside, dense]
        checks.append(_ablation_check(dense, beside))
    return tuple(rows), checks


def averaged_tokens(model: PartnerModel, live: LiveStream) -> Int16:
    """Return the tokens (sources, segments) of each segment's mean vector; SILENCE if no frame of it is audible."""
    starts = np.flatnonzero(np.diff(live.segments, prepend=-1))
    counts = np.diff(np.append(starts, len(live.segments)))[:, None]
    means = [(np.add.reduceat(f, starts, axis=0, dtype=np.float64) / counts).astype(np.float32) for f in live.features]
    return _tokens_of(model, means, [np.logical_or.reduceat(audible, starts) for audible in live.audible])


def windowed_tokens(
    model: PartnerModel, subject: Subject, *, first_s: float, last_s: float, progress: Callable[[float], None]
) -> Int16:
    """Return the tokens (sources, windows) of the mean vector of a window of 350 ms every 7 ms.

    Windows begin from `first_s` on and end by `last_s`; each has the partner's own context and lookahead.
    """
    spec = model.spec
    rate = spec.sample_rate_hz
    sound = at_spec_rate(spec, subject.samples, subject.sample_rate_hz)
    padded = np.pad(sound, (spec.context_samples, spec.lookahead_samples + spec.segment_samples))
    encoder, pitch = create_encoder(spec), pitch_analyser(spec)
    last = min(round(last_s * rate), len(sound)) - spec.segment_samples
    starts = range(round(first_s * rate), max(last, 0) + 1, round(WINDOW_HOP_S * rate))
    means = [np.zeros((len(starts), v.dims), np.float32) for v in model.vocabularies]
    audible = [np.zeros(len(starts), dtype=bool) for _ in SOURCES]
    segment = slice(spec.context_samples, spec.context_samples + spec.segment_samples)
    floor = 10 ** (spec.gate.open_db / 10)
    for number, start in enumerate(starts):
        stems = separate(padded[start : start + spec.window_samples], spec.separation)
        features = encoder.encode(stems, pitch.analyse(stems.harmonic))
        for source, stem in enumerate((stems.harmonic, stems.percussive)):
            means[source][number] = features[source].mean(axis=0)
            audible[source][number] = float(np.mean(np.square(stem[segment], dtype=np.float64))) > floor
        progress((number + 1) / len(starts))
    return _tokens_of(model, means, audible)


def _tokens_of(model: PartnerModel, means: Sequence[Float32], audible: Sequence[AnyArray]) -> Int16:
    rows = [
        np.where(heard, nearest(v.distances(v.normalise(x))) if len(x) else np.zeros(0, np.int16), np.int16(SILENCE))
        for v, x, heard in zip(model.vocabularies, means, audible, strict=True)
    ]
    return np.stack(rows).astype(np.int16)


def _diversity_check(training: DiversityRow, live: DiversityRow, *, is_new: bool) -> Check:
    """Return the check that live hearing of the training recordings has the statistics of training, token for token."""
    passed = (training.histograms, training.diversity) == (live.histograms, live.diversity)
    return Check(
        group="diversity",
        name="live, all frames",
        expected="information" if is_new else _diversity_words(training),
        found=_diversity_words(live),
        passed=None if is_new else passed,
        detail="a recording that is new to the partner, as it was heard"
        if is_new
        else "the row of training and the row of live hearing, token for token",
        cause="" if passed or is_new else "live hearing is not what was trained: see parity",
        values={"training": training.to_dict()["diversity"], "live": live.to_dict()["diversity"]},
    )


def _ablation_check(row: DiversityRow, beside: DiversityRow) -> Check:
    """Return, for information, what averaging would leave of the diversity `beside` it."""
    share = [a.perplexity / b.perplexity if b.perplexity else 1.0 for a, b in zip(row.diversity, beside.diversity, strict=True)]
    kept = ", ".join(f"{value:.0%} ({source})" for value, source in zip(share, SOURCES, strict=True))
    return Check(
        group="diversity",
        name=row.label,
        expected="information",
        found=_diversity_words(row),
        passed=None,
        detail=f"an ablation: keeps {kept} of the perplexity of {beside.label} ({beside.stretch_s:.1f} s)",
        values={"diversity": row.to_dict()["diversity"], "perplexity_kept": share, "beside": beside.label},
    )


def _diversity_words(row: DiversityRow) -> str:
    return ", ".join(
        f"{source} {d.unique} of {d.size} (top {d.top_share:.1%})" for source, d in zip(SOURCES, row.diversity, strict=True)
    )


def at_spec_rate(spec: PerceptionSpec, samples: Float32, rate_hz: int) -> Float32:
    """Return samples (n,) at the rate of the spec, by its own resampler."""
    resampler = StreamResampler(source_rate_hz=rate_hz, target_rate_hz=spec.sample_rate_hz, quality=spec.resampler)
    return np.concatenate([resampler.push(ingest(samples)), resampler.flush()])
