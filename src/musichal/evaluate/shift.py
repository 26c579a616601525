"""How far tokens depend on where the grid falls, and how many frames a segment of each length has.

Shift consistency: the same music again without its beginning, so that every segment starts elsewhere in it; the share of
frames, of those not silent in both, whose nearest frame in time keeps its token. The eight offsets are whole numbers of
frames, so that frames of the same segment hear the same moments and only the grid differs; where a segment of one meets
the next of the other, frames lie a little apart, for 350 ms is no whole number of strides. One more offset lies between
two frames: there every frame hears a moment up to half a stride (6.7 ms) away, and a drum's attack is another sound by then.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from musichal.arrays import Float32, Int16, Int64
from musichal.evaluate.parity import agreements, equal_shares, hear_live, heard_whole_before, random_blocks
from musichal.evaluate.verification import Check, ShiftRow
from musichal.hearing.encoders import create_encoder
from musichal.hearing.listener import FeatureExtractor
from musichal.hearing.percepts import SOURCES, frame_count
from musichal.memory.partner_file import PartnerModel
from musichal.spec import PerceptionSpec

OFFSETS = 8
FRAME_SCALING = ((0.1, 7), (0.2, 14), (0.35, 26), (0.5, 37), (1.0, 74))
"""Seconds of a segment, and the frames it must have at 24 kHz with frames of 400 samples every 320."""


def shift_rows(
    model: PartnerModel,
    samples: Float32,
    frame_samples: Int64,
    tokens: Int16,
    *,
    sample_rate_hz: int,
    rng: np.random.Generator,
    progress: Callable[[float], None] | None = None,
) -> tuple[ShiftRow, ...]:
    """Return the share of equal tokens for eight offsets, evenly spaced within a segment, and for one between two frames.

    `samples` (n,) may be the beginning of what the stored stream was heard in. Frames that would see behind it, or in front of
    what the shifted hearing begins with, are not asked: they differ by what is missing, not by the grid. The last offset
    is a whole segment: the same grid again.
    """
    spec = model.spec
    rate = spec.sample_rate_hz
    end = heard_whole_before(spec, samples, sample_rate_hz=sample_rate_hz)
    rows = []
    for number, wanted in enumerate(grid_offsets(spec)):
        dropped = round(wanted / rate * sample_rate_hz)
        offset = dropped / sample_rate_hz * rate
        part = samples[dropped:]
        live = hear_live(
            model,
            part,
            sample_rate_hz=sample_rate_hz,
            blocks=random_blocks(len(part), largest=sample_rate_hz, rng=rng),
        )
        asked = (frame_samples < end) & (frame_samples >= offset + spec.context_samples + spec.segment_samples)
        pairs = agreements(spec, frame_samples[asked], tokens[:, asked], live, offset_samples=offset)
        rows.append(
            ShiftRow(
                offset_samples=round(offset),
                offset_s=dropped / sample_rate_hz,
                shares=equal_shares(pairs),
                pairs=tuple(total for _, total in pairs),
            )
        )
        if progress is not None:
            progress((number + 1) / (OFFSETS + 1))
    return tuple(rows)


def grid_offsets(spec: PerceptionSpec) -> tuple[int, ...]:
    """Return eight offsets, in samples, of whole frames, and one that lies half a frame between the two in the middle."""
    stride = spec.encoder.stride_samples
    whole = tuple(max(1, round(k * spec.hop_samples / (OFFSETS + 1) / stride)) * stride for k in range(1, OFFSETS + 1))
    return (*whole, whole[OFFSETS // 2] - stride // 2)


def shift_checks(rows: tuple[ShiftRow, ...], *, stretch_s: float) -> tuple[Check, ...]:
    """Return one check per source, for information: how much depends on the grid is a property of hearing, not a fault."""
    checks = []
    for source, name in enumerate(SOURCES):
        *grid, between = rows
        shares = [row.shares[source] for row in grid]
        pairs = sum(row.pairs[source] for row in grid)
        checks.append(
            Check(
                group="shift",
                name=f"{name} tokens that stay",
                expected="information",
                found=f"{np.mean(shares):.1%} (least {min(shares):.1%})" if pairs else "nothing to compare",
                passed=None,
                detail=f"{len(grid)} offsets from {grid[0].offset_s * 1000:.0f} to {grid[-1].offset_s * 1000:.0f} ms,"
                f" {pairs} pairs of frames from {stretch_s:.1f} s; half a frame off: {between.shares[source]:.1%}",
                values={
                    "half_a_frame_off": between.shares[source],
                    "mean": float(np.mean(shares)),
                    "least": min(shares),
                    "pairs": pairs,
                },
            )
        )
    return tuple(checks)


def scaling_checks(spec: PerceptionSpec, samples: Float32) -> tuple[Check, ...]:
    """Return one check per length: frames that the real segmenter and encoder give for one segment of real sound.

    `samples` (n,) at the spec's rate; what is missing of a second is silence.
    """
    encoder_spec = spec.encoder
    usual = (spec.sample_rate_hz, encoder_spec.frame_samples, encoder_spec.stride_samples) == (24_000, 400, 320)
    checks = []
    for seconds, frames in FRAME_SCALING:
        length = round(seconds * spec.sample_rate_hz)
        if length < encoder_spec.frame_samples:
            continue
        sizes = {"frame_samples": encoder_spec.frame_samples, "stride_samples": encoder_spec.stride_samples}
        expected = frames if usual else frame_count(length, **sizes)
        found = [_frames_of_a_segment(spec, samples, length, source) for source in range(len(SOURCES))]
        passed = all(n == expected for n in found)
        checks.append(
            Check(
                group="frame scaling",
                name=f"a segment of {seconds * 1000:.0f} ms",
                expected=str(expected),
                found=str(found[0]) if len(set(found)) == 1 else ", ".join(map(str, found)),
                passed=passed,
                detail=f"{found[0] / seconds:.1f} frames per second, from segmenter and encoder",
                cause="" if passed else "the encoder does not give every frame",
                values={"seconds": seconds, "expected": expected, "found": found},
            )
        )
    return tuple(checks)


def _frames_of_a_segment(spec: PerceptionSpec, samples: Float32, length: int, source: int) -> int:
    policy = replace(
        spec,
        policy="grid",
        segment_samples=length,
        hop_samples=length,
        min_segment_samples=min(length, spec.min_segment_samples),
    )
    sound = np.zeros(length + spec.lookahead_samples, np.float32)
    part = samples[: len(sound)]
    sound[: len(part)] = part
    extractor = FeatureExtractor(policy, create_encoder(policy))
    first = next(extractor.stream(sound, source_rate_hz=spec.sample_rate_hz))
    return int(first.features[source].shape[0])
