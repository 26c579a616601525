"""Parity: whether live hearing is still what training heard, token by token.

A recording is pushed through the one `Listener` in random block sizes, as fast as it goes, and what comes out is laid beside
the stream that the partner keeps. Where they part, the first frame is shown with its distances to both centres, and the
likely cause is told from how they part.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import soxr

from musichal.arrays import Bool, Float32, Int16, Int64
from musichal.audio.recording import ingest
from musichal.errors import InputError
from musichal.evaluate.verification import Check
from musichal.hearing.encoders import Encoder, create_encoder
from musichal.hearing.listener import Listener, Tap
from musichal.hearing.percepts import SILENCE, SOURCES, Gesture, Note, Percept, frame_count
from musichal.memory.partner_file import PartnerModel
from musichal.spec import PerceptionSpec

DEVICE_RATES_HZ = (48_000, 44_100, 96_000, 22_050)
RATE_GOAL = 0.99
"""Share of tokens that another device rate should leave as they are."""

_LARGEST_BLOCK_S = 1.5
_LARGEST_LAG_FRAMES = 80
_SHARE_OF_A_SHIFT = 0.8
# Fewer frames than this share are a disturbance; sounds this many spreads away from every centre were not learned.
_FEW, _FAR = 0.2, 3.0
# Squared distances are sums of some hundred float32 products.
_ROUNDING = 1e-4


@dataclass(frozen=True)
class LiveStream:
    """What a live pass over a recording gave.

    `frame_samples` (n,) centres at the spec's rate, `tokens` and `audible` (sources, n), `features` one (n, dims) array per
    source, `segments` (n,) the index of each frame's segment; `gestures` and `notes` in the order in which they came.
    """

    frame_samples: Int64
    tokens: Int16
    audible: Bool
    features: tuple[Float32, ...]
    segments: Int64
    gestures: tuple[Gesture, ...]
    notes: tuple[Note, ...]


@dataclass(frozen=True)
class Difference:
    """The first frame in which live hearing and the stored stream part.

    `frame` is its number, `stored` and `live` its tokens; the distances are those of the live feature to the centres of
    both, squared and in units of the vocabulary's spread (None for SILENCE).
    """

    source: int
    frame: int
    time_s: float
    stored: int
    live: int
    distance_to_stored: float | None
    distance_to_live: float | None


def random_blocks(n_samples: int, *, largest: int, rng: np.random.Generator) -> Iterator[int]:
    """Yield block sizes from 1 to `largest`, evenly spread over orders of magnitude, that add up to `n_samples`."""
    left = n_samples
    while left:
        size = min(left, int(np.exp(rng.uniform(0.0, np.log(largest + 1)))))
        yield size
        left -= size


def hear_live(
    model: PartnerModel,
    samples: Float32,
    *,
    sample_rate_hz: int,
    blocks: Iterable[int],
    encoder: Encoder | None = None,
    tap: Tap | None = None,
    progress: Callable[[float], None] | None = None,
) -> LiveStream:
    """Push samples (n,) through the live path in blocks of the given sizes; `tap` is shown each window on its way.

    Raises
    ------
    InputError
        If there is not one whole frame of sound, or the encoder is not the partner's.
    """
    spec = model.spec
    listener = Listener(spec, encoder or create_encoder(spec), model.vocabularies, source_rate_hz=sample_rate_hz, tap=tap)
    percepts: list[Percept] = []
    first = 0
    for size in blocks:
        percepts += listener.push(samples[first : first + size]).percepts
        first += size
        if progress is not None:
            progress(first / samples.shape[0])
    rest = listener.flush()
    percepts += rest.percepts
    if not percepts:
        raise InputError("the recording is too short: there is not one whole frame of sound in it")
    return LiveStream(
        frame_samples=np.concatenate([p.heard.frame_samples for p in percepts]),
        tokens=np.concatenate([p.tokens for p in percepts], axis=1),
        audible=np.concatenate([p.heard.audible for p in percepts], axis=1),
        features=tuple(np.concatenate([p.heard.features[s] for p in percepts]) for s in range(len(SOURCES))),
        segments=np.concatenate([np.full(p.tokens.shape[1], p.heard.index, dtype=np.int64) for p in percepts]),
        gestures=tuple(g for p in percepts for g in p.gestures) + rest.gestures,
        notes=tuple(n for p in percepts for n in p.heard.notes) + rest.notes,
    )


def first_difference(
    model: PartnerModel, frame_samples: Int64, tokens: Int16, live: LiveStream, *, source: int
) -> Difference | None:
    """Return the first frame, of those that both streams have, with another position or token; None where there is none."""
    n = min(len(frame_samples), len(live.frame_samples))
    differs = (tokens[source, :n] != live.tokens[source, :n]) | (frame_samples[:n] != live.frame_samples[:n])
    if not differs.any():
        return None
    frame = int(differs.argmax())
    vocabulary = model.vocabularies[source]
    x = vocabulary.normalise(live.features[source][frame : frame + 1])
    distances = vocabulary.distances(x)[0] / vocabulary.spread
    stored, heard = int(tokens[source, frame]), int(live.tokens[source, frame])
    return Difference(
        source=source,
        frame=frame,
        time_s=float(frame_samples[frame]) / model.spec.sample_rate_hz,
        stored=stored,
        live=heard,
        distance_to_stored=None if stored == SILENCE else float(distances[stored]),
        distance_to_live=None if heard == SILENCE else float(distances[heard]),
    )


def parity_checks(
    model: PartnerModel, name: str, frame_samples: Int64, tokens: Int16, live: LiveStream, *, is_new: bool
) -> tuple[Check, ...]:
    """Return one check per source: live hearing in random blocks against the stream that was kept (n,), (sources, n)."""
    return tuple(
        _parity(model, name, frame_samples, tokens, live, source=source, is_new=is_new) for source in range(len(SOURCES))
    )


def _parity(
    model: PartnerModel, name: str, frame_samples: Int64, tokens: Int16, live: LiveStream, *, source: int, is_new: bool
) -> Check:
    n = min(len(frame_samples), len(live.frame_samples))
    longest = max(len(frame_samples), len(live.frame_samples))
    equal = (tokens[source, :n] == live.tokens[source, :n]) & (frame_samples[:n] == live.frame_samples[:n])
    same = int(equal.sum())
    passed = same == longest
    difference = first_difference(model, frame_samples, tokens, live, source=source)
    detail, cause = "", ""
    if difference is not None:
        detail = _describe(difference)
    if not passed:
        cause = likely_cause(model, frame_samples, tokens, live, source=source)
    against = "heard again" if is_new else "live"
    return Check(
        group="parity",
        name=f"{name}, {SOURCES[source]}, {against}",
        expected=f"{longest} of {longest}",
        found=f"{same} of {longest} ({same / longest:.4%})" if not passed else f"{same} of {longest}",
        passed=passed,
        detail=detail or ("new to the partner: heard twice, in other blocks" if is_new else "blocks of random sizes"),
        cause=cause,
        values={
            "frames": longest,
            "equal": same,
            "share": same / longest,
            "parts_at_s": None if passed else _parts_at_s(model, frame_samples, n, difference),
            "first_difference": None if difference is None else vars(difference) | {"source": SOURCES[source]},
        },
    )


def _parts_at_s(model: PartnerModel, frame_samples: Int64, n: int, difference: Difference | None) -> float:
    """Return where two streams part: at their first difference, or where the shorter, of `n` frames, ends."""
    if difference is not None:
        return difference.time_s
    return float(frame_samples[max(0, n - 1)]) / model.spec.sample_rate_hz if len(frame_samples) else 0.0


def _describe(difference: Difference) -> str:
    def token(number: int, distance: float | None) -> str:
        return "silence" if distance is None else f"token {number} (distance {distance:.4g})"

    return (
        f"first at frame {difference.frame} ({difference.time_s:.3f} s): stored"
        f" {token(difference.stored, difference.distance_to_stored)}, live"
        f" {token(difference.live, difference.distance_to_live)}; distances in units of the vocabulary's spread"
    )


def likely_cause(model: PartnerModel, frame_samples: Int64, tokens: Int16, live: LiveStream, *, source: int) -> str:
    """Return in words why two streams differ, judged from tokens alone; empty where they do not.

    Where hearing itself differs from stage to stage, the stages know better (`stages.StageDifference.cause`); this is
    what is left where they agree, and the stored stream is the one that is another.
    """
    stored, heard = tokens[source], live.tokens[source]
    n = min(len(stored), len(heard))
    same_frames = len(stored) == len(heard) and bool((frame_samples == live.frame_samples).all())
    if same_frames and (stored == heard).all():
        return ""
    usual, found = _segment_frames(model), int(np.bincount(live.segments).max())
    if model.spec.policy == "grid" and live.segments[-1] > 0 and found != usual:
        return f"segments have {found} frames, not {usual}: another segment length"
    if _share_constant(heard, live.segments) > _SHARE_OF_A_SHIFT > _share_constant(stored[:n], live.segments[:n]):
        return "every segment has one token: frames are averaged before a token is found"
    lag = _lag(stored, heard)
    if lag:
        return f"the streams agree again {abs(lag)} frames {'later' if lag > 0 else 'earlier'}: sound was lost on the way"
    if not same_frames:
        return f"live has {len(heard)} frames, training {len(stored)}: another rate, or sound was lost"
    return _cause_of_tokens(model, stored, live, source=source)


def _segment_frames(model: PartnerModel) -> int:
    sizes = model.spec.encoder
    return frame_count(model.spec.segment_samples, frame_samples=sizes.frame_samples, stride_samples=sizes.stride_samples)


def _cause_of_tokens(model: PartnerModel, stored: Int16, live: LiveStream, *, source: int) -> str:
    """Return why streams with the same frames, but not the same tokens, differ."""
    heard = live.tokens[source]
    differs = stored != heard
    if ((stored == SILENCE) != (heard == SILENCE))[differs].mean() > 0.5:
        return "mostly silence against sound: another level or another gate"
    vocabulary = model.vocabularies[source]
    sounding = np.flatnonzero(differs & (stored != SILENCE) & (heard != SILENCE))
    distances = vocabulary.distances(vocabulary.normalise(live.features[source][sounding])) / vocabulary.spread
    each = np.arange(sounding.size)
    to_stored, to_live = distances[each, stored[sounding]], distances[each, heard[sounding]]
    rounding = _ROUNDING * max(1.0, float(to_live.max(initial=0.0)))
    if float((to_live - distances.min(axis=1)).max(initial=0.0)) > rounding:
        return "live tokens are not the nearest sounds of this vocabulary: they were found with another recording's"
    if float((to_stored - to_live).max(initial=0.0)) <= rounding:
        return "rounding only: the libraries or the processor compute the last bits in another way than where it was trained"
    if float(differs.mean()) < _FEW:
        return "a few features are a little off: another resampler, blocks that do not join, or other library versions"
    nearest = vocabulary.distances(vocabulary.normalise(live.features[source][live.audible[source]])).min(axis=1)
    if float(nearest.mean()) > _FAR * vocabulary.spread:
        return "the sounds are far from all that was learned: another encoder, other stems, or another recording's vocabulary"
    return "features and vocabulary do not belong together: another encoder, other stems, or another recording's vocabulary"


def _share_constant(tokens: Int16, segments: Int64) -> float:
    """Return the share of segments that have only one token."""
    starts = np.flatnonzero(np.diff(segments, prepend=-1))
    return float(np.mean(np.maximum.reduceat(tokens, starts) == np.minimum.reduceat(tokens, starts)))


def _lag(stored: Int16, live: Int16) -> int:
    """Return by how many frames the later half of `live` must move to fit `stored`, 0 where no move makes them fit."""
    half = len(live) // 2
    tail = live[half:]
    best, best_share = 0, _SHARE_OF_A_SHIFT
    for lag in range(-_LARGEST_LAG_FRAMES, _LARGEST_LAG_FRAMES + 1):
        first = half + lag
        if first < 0:
            continue
        other = stored[first : first + len(tail)]
        if len(other) >= max(20, len(tail) // 2):
            share = float(np.mean(other == tail[: len(other)]))
            if share > best_share:
                best, best_share = lag, share
    return best


def at_rate(samples: Float32, *, source_rate_hz: int, target_rate_hz: int) -> Float32:
    """Return samples (n,) as a device of another rate would give them: soxr's best quality, on the 24-bit grid."""
    return ingest(soxr.resample(samples, source_rate_hz, target_rate_hz, quality="VHQ").astype(np.float32))


def agreement(
    positions: Sequence[Int64], tokens: Sequence[Int16], *, source: int, tolerance_samples: float, offset_samples: float = 0.0
) -> tuple[int, int]:
    """Return (equal, pairs) over frames of two streams that lie nearest to one another.

    The second stream's positions count from `offset_samples` of the first. Pairs in which both are silent say nothing and
    are left out.
    """
    first, second = positions[0].astype(np.float64), positions[1] + offset_samples
    after = np.clip(np.searchsorted(second, first), 1, max(1, len(second) - 1))
    after = np.minimum(after, len(second) - 1)
    before = np.maximum(after - 1, 0)
    match = np.where(first - second[before] < second[after] - first, before, after)
    near = np.abs(second[match] - first) <= tolerance_samples
    mine, others = tokens[0][source], tokens[1][source][match]
    asked = near & ((mine != SILENCE) | (others != SILENCE))
    return int((mine == others)[asked].sum()), int(asked.sum())


def heard_whole_before(spec: PerceptionSpec, samples: Float32, *, sample_rate_hz: int) -> float:
    """Return a place in samples of the spec's rate: frames before it see nothing behind the end of `samples` (n,)."""
    return samples.shape[0] / sample_rate_hz * spec.sample_rate_hz - spec.segment_samples - spec.lookahead_samples


def agreements(
    spec: PerceptionSpec, frame_samples: Int64, tokens: Int16, live: LiveStream, *, offset_samples: float = 0.0
) -> tuple[tuple[int, int], ...]:
    """Return `agreement` of frames (n,) and tokens (sources, n) with a live stream per source, half a stride apart at most."""
    return tuple(
        agreement(
            (frame_samples, live.frame_samples),
            (tokens, live.tokens),
            source=source,
            tolerance_samples=spec.encoder.stride_samples / 2,
            offset_samples=offset_samples,
        )
        for source in range(len(SOURCES))
    )


def equal_shares(pairs: Sequence[tuple[int, int]]) -> tuple[float, ...]:
    """Return the share of each (equal, pairs) that is equal, 1 where nothing was paired."""
    return tuple(equal / total if total else 1.0 for equal, total in pairs)


def rate_checks(
    model: PartnerModel,
    name: str,
    samples: Float32,
    frame_samples: Int64,
    tokens: Int16,
    *,
    sample_rate_hz: int,
    rng: np.random.Generator,
    progress: Callable[[float], None] | None = None,
) -> tuple[Check, ...]:
    """Return one check per device rate other than the recording's: the share of tokens that it leaves as they are.

    `samples` may be the beginning of what the stored stream was heard in; frames that would see behind it are not asked.
    """
    spec = model.spec
    checks = []
    rates = [rate for rate in DEVICE_RATES_HZ if rate != sample_rate_hz]
    asked = frame_samples < heard_whole_before(spec, samples, sample_rate_hz=sample_rate_hz)
    asked = asked if asked.any() else np.ones(len(frame_samples), dtype=bool)
    for number, rate in enumerate(rates):
        other = at_rate(samples, source_rate_hz=sample_rate_hz, target_rate_hz=rate)
        blocks = random_blocks(len(other), largest=round(_LARGEST_BLOCK_S * rate), rng=rng)
        live = hear_live(model, other, sample_rate_hz=rate, blocks=blocks)
        pairs = agreements(spec, frame_samples[asked], tokens[:, asked], live)
        shares = equal_shares(pairs)
        # Below its own rate hearing lacks what it was trained on, and no resampler brings it back.
        lossy = rate < min(spec.sample_rate_hz, sample_rate_hz)
        passed = None if lossy else min(shares) >= RATE_GOAL
        checks.append(
            Check(
                group="parity",
                name=f"{name} at {rate} Hz",
                expected=f"≥ {RATE_GOAL:.0%}" if not lossy else "information",
                found=", ".join(f"{source} {share:.2%}" for source, share in zip(SOURCES, shares, strict=True)),
                passed=passed,
                detail=f"{pairs[0][1]} frames of the first {samples.shape[0] / sample_rate_hz:.1f} s"
                + (f"; a device at {rate} Hz has nothing above {rate / 2000:.1f} kHz" if lossy else ""),
                cause="" if passed is not False else "resampling changes what is near a border between two sounds",
                values={"rate_hz": rate, "shares": list(shares), "frames": [total for _, total in pairs]},
            )
        )
        if progress is not None:
            progress((number + 1) / len(rates))
    return tuple(checks)
