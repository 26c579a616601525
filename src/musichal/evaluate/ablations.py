"""Diversity as trained, as heard live, and as it would be if frames were averaged.

The two ablations are how a system of this kind once went deaf: the mean over a segment's frames, and that mean of a 350 ms
window every 7 ms. They live here alone; nothing else in MusicHal can average frames before a token is found.
"""

from collections.abc import Callable, Sequence

import numpy as np

from musichal.arrays import AnyArray, Float32, Int16
from musichal.audio.recording import ingest
from musichal.audio.resample import StreamResampler
from musichal.evaluate.parity import LiveStream
from musichal.evaluate.token_diversity import token_diversity, token_histogram
from musichal.evaluate.verification import Check, DiversityRow
from musichal.hearing.encoders import create_encoder
from musichal.hearing.percepts import SILENCE, SOURCES
from musichal.hearing.pitch import PitchAnalyser
from musichal.hearing.separation import separate
from musichal.hearing.vocabulary import nearest
from musichal.memory.partner_file import PartnerModel

WINDOW_S = 0.35
WINDOW_HOP_S = 0.007
STRETCH_S = 10.0
"""How much of a recording the windows every 7 ms are heard in: they cost 50 times what hearing costs."""


def diversity_row(label: str, sequences: Sequence[Int16], *, size: int, duration_s: float) -> DiversityRow:
    """Return the row of token streams (sources, n), one per recording, that are `duration_s` long together."""
    own = [[tokens[source] for tokens in sequences] for source in range(len(SOURCES))]
    return DiversityRow(
        label=label,
        stretch_s=duration_s,
        diversity=tuple(token_diversity(streams, size=size, duration_s=duration_s) for streams in own),
        histograms=tuple(tuple(np.sum([token_histogram(t, size=size) for t in streams], axis=0).tolist()) for streams in own),
    )


def averaged_tokens(model: PartnerModel, live: LiveStream) -> Int16:
    """Return the tokens (sources, segments) of each segment's mean vector; SILENCE where no frame of it is audible."""
    starts = np.flatnonzero(np.diff(live.segments, prepend=-1))
    counts = np.diff(np.append(starts, len(live.segments)))[:, None]
    rows = []
    for vocabulary, features, audible in zip(model.vocabularies, live.features, live.audible, strict=True):
        means = (np.add.reduceat(features, starts, axis=0, dtype=np.float64) / counts).astype(np.float32)
        tokens = nearest(vocabulary.distances(vocabulary.normalise(means)))
        rows.append(np.where(np.logical_or.reduceat(audible, starts), tokens, np.int16(SILENCE)))
    return np.stack(rows).astype(np.int16)


def windowed_tokens(
    model: PartnerModel,
    samples: Float32,
    *,
    sample_rate_hz: int,
    first_s: float,
    last_s: float,
    progress: Callable[[float], None] | None = None,
) -> Int16:
    """Return the tokens (sources, windows) of the mean vector of a window of 350 ms every 7 ms.

    Windows begin from `first_s` on and end by `last_s`; each is seen with the partner's own context and lookahead.
    """
    spec = model.spec
    rate = spec.sample_rate_hz
    resampler = StreamResampler(source_rate_hz=sample_rate_hz, target_rate_hz=rate, quality=spec.resampler)
    sound = np.concatenate([resampler.push(ingest(samples)), resampler.flush()])
    encoder, pitch = create_encoder(spec), PitchAnalyser(spec)
    padded = np.concatenate(
        [np.zeros(spec.context_samples, np.float32), sound, np.zeros(spec.lookahead_samples + spec.segment_samples, np.float32)]
    )
    last = min(round(last_s * rate), len(sound)) - spec.segment_samples
    starts = range(round(first_s * rate), max(last, 0) + 1, round(WINDOW_HOP_S * rate))
    vectors: list[list[Float32]] = [[] for _ in SOURCES]
    audible: list[list[bool]] = [[] for _ in SOURCES]
    segment = slice(spec.context_samples, spec.context_samples + spec.segment_samples)
    floor = 10 ** (spec.gate.open_db / 10)
    for number, start in enumerate(starts):
        stems = separate(padded[start : start + spec.window_samples], spec.separation)
        features = encoder.encode(stems, pitch.analyse(stems.harmonic))
        for source, stem in enumerate((stems.harmonic, stems.percussive)):
            vectors[source].append(features[source].mean(axis=0))
            audible[source].append(float(np.mean(np.square(stem[segment], dtype=np.float64))) > floor)
        if progress is not None:
            progress((number + 1) / len(starts))
    rows = []
    for vocabulary, means, heard in zip(model.vocabularies, vectors, audible, strict=True):
        tokens: AnyArray = np.zeros(0, np.int16)
        if means:
            tokens = nearest(vocabulary.distances(vocabulary.normalise(np.stack(means).astype(np.float32))))
        rows.append(np.where(np.array(heard, dtype=bool), tokens, np.int16(SILENCE)))
    return np.stack(rows).astype(np.int16)


def diversity_check(training: DiversityRow, live: DiversityRow) -> Check:
    """Return the check that live hearing of the training recordings has the histograms, and so the row, of training."""
    passed = training.histograms == live.histograms and training.diversity == live.diversity
    return Check(
        group="diversity",
        name="live, all frames",
        expected=describe(training),
        found=describe(live),
        passed=passed,
        detail="the row of training and the row of live hearing, token for token",
        cause="" if passed else "live hearing is not what was trained: see parity",
        values={"training": training.to_dict()["diversity"], "live": live.to_dict()["diversity"]},
    )


def ablation_check(row: DiversityRow, beside: DiversityRow) -> Check:
    """Return, for information, what averaging would leave of the diversity `beside` it."""
    share = [a.perplexity / b.perplexity if b.perplexity else 1.0 for a, b in zip(row.diversity, beside.diversity, strict=True)]
    return Check(
        group="diversity",
        name=row.label,
        expected="information",
        found=describe(row),
        passed=None,
        detail="an ablation: keeps "
        + ", ".join(f"{value:.0%} ({source})" for value, source in zip(share, SOURCES, strict=True))
        + f" of the perplexity of {beside.label} ({beside.stretch_s:.1f} s)",
        values={"diversity": row.to_dict()["diversity"], "perplexity_kept": share, "beside": beside.label},
    )


def describe(row: DiversityRow) -> str:
    """Return a row in words: sounds used and commonest sound of both sources."""
    return ", ".join(
        f"{source} {d.unique} of {d.size} (top {d.top_share:.1%})" for source, d in zip(SOURCES, row.diversity, strict=True)
    )
