"""The whole of `musichal verify`: every check of a partner, in order, and the verdict.

Besides parity (`musichal.evaluate.alignment`) it asks whether tokens keep at other device rates and on another grid, and
whether live hearing is as diverse as training (`musichal.evaluate.diversity`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from musichal.arrays import AnyArray, Bool, Float32, Int16, Int64
from musichal.audio.recording import Recording, ingest
from musichal.evaluate.alignment import HeardRecording, LiveStream, Parity, Subject, check_recording, hear_live, random_blocks
from musichal.evaluate.checks import (
    GROUPS,
    Check,
    Retrain,
    count_checks,
    identity_checks,
    repeatability_checks,
    same_installation,
    scaling_checks,
    version_checks,
)
from musichal.evaluate.diversity import at_spec_rate, diversity_checks
from musichal.evaluate.partner_stats import DiversityRow
from musichal.hearing.percepts import SILENCE, SOURCES
from musichal.memory.partner_file import PartnerModel
from musichal.spec import PerceptionSpec
from musichal.training.archive import spread_recordings

STRETCH_S = 60.0
"""How much of a recording is compared stage by stage, at other device rates and on other grids."""
DEVICE_RATES_HZ = (48_000, 44_100, 96_000, 22_050)
_LEAST_SOUNDING = 0.01
RATE_GOAL = 0.99
"""Share of tokens that another device rate should leave as they are."""
OFFSETS = 8
Progress = Callable[[str, float], None]
"""Called with what is being done and how far it is, from 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class ShiftRow:
    """How far tokens depend on the grid: for one offset, the share of frame pairs that agree, and their number, per source."""

    offset_samples: int
    offset_s: float
    shares: tuple[float, ...]
    pairs: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Everything together. `complete` is False if something was left out: with `quick`, or because nothing could be heard."""

    partner: str
    fingerprint: str
    sample_rate_hz: int
    complete: bool
    checks: tuple[Check, ...]
    recordings: tuple[HeardRecording, ...]
    diversity: tuple[DiversityRow, ...]
    shift: tuple[ShiftRow, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        """Return the checks that failed."""
        return tuple(check for check in self.checks if check.passed is False)

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    def group(self, name: str) -> tuple[Check, ...]:
        """Return the checks of one group, in order."""
        return tuple(check for check in self.checks if check.group == name)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        parts = ("checks", "recordings", "diversity", "shift")
        return {
            **{name: getattr(self, name) for name in ("partner", "fingerprint", "sample_rate_hz", "complete", "passed")},
            **{name: [item.to_dict() for item in getattr(self, name)] for name in parts},
        }


def subjects(model: PartnerModel, recordings: Sequence[Recording] = (), *, most_s: float = math.inf) -> tuple[Subject, ...]:
    """Return what to verify with: the given recordings, matched by digest, or else those whose sound the partner holds.

    Of the partner's own those of up to `most_s` in all are taken, evenly spread, but one at least.
    """
    if not recordings:
        own = spread_recordings([r for r in model.recordings if r.flac is not None], most_s=most_s)
        return tuple(Subject(r.name, r.sample_rate_hz, r.samples(), r) for r in own)
    known = {(r.digest, r.sample_rate_hz): r for r in model.recordings}
    held = [known.get((r.digest, r.sample_rate_hz)) for r in recordings]
    return tuple(Subject(r.name, r.sample_rate_hz, r.samples, own, r.take) for r, own in zip(recordings, held, strict=True))


def verify_partner(
    model: PartnerModel,
    asked: Sequence[Subject],
    *,
    name: str = "",
    quick: bool = False,
    seed: int = 0,
    partner: Path | None = None,
    retrain: Retrain | None = None,
    processors: int = 1,
    progress: Progress | None = None,
) -> Verification:
    """Return every check of a partner. Raises `MusicHalError` if a recording cannot be heard.

    * `asked`: What to push through the live path; nothing is heard if it is empty.
    * `name`: What to call the partner.
    * `quick`: Leave out what takes long: other device rates, other grids, windows every 7 ms, training again.
    * `seed`: Seed of the block sizes.
    * `partner`, `retrain`: Its file, and how to train it again; without them repeatability is not checked.
    * `processors`: Number of processors to run threads on.
    """
    tell = progress or (lambda _what, _share: None)

    def part(what: str, first: float, share: float) -> Callable[[float], None]:
        return lambda done: tell(what, first + share * done)

    identity = identity_checks(model.spec)
    checks = [*count_checks(model), *identity]
    heard: list[Parity] = []
    # Hearing itself refuses an encoder that is not the partner's: there is nothing to compare.
    if identity[0].passed:
        for number, subject in enumerate(asked):
            done = part(f"Hearing {subject.name}", 0.25 * number / len(asked), 0.25 / len(asked))
            always_s = STRETCH_S if number == 0 and not quick else 0.0
            blocks = random_blocks(subject, [seed, number])
            heard.append(check_recording(model, subject, blocks, always_s=always_s, progress=done))
            checks += heard[-1].checks
    if heard:
        checks += [_precision_check(heard[0].live), *scaling_checks(model.spec, _middle(model.spec, asked[0]))]
    else:
        why = "its sound was left out (--no-audio): name the recording to verify with"
        why = why if identity[0].passed else "this MusicHal cannot hear as the partner does: the encoder is another one"
        name_, expected = "live against training", "every token"
        checks.append(Check(group="parity", name=name_, expected=expected, found="not asked", passed=None, detail=why))
    verdicts = [c.passed for c in checks if c.group == "parity" and c.passed is not None]
    holds = all(verdicts) if verdicts else None
    diversity: tuple[DiversityRow, ...] = ()
    shift: tuple[ShiftRow, ...] = ()
    if heard:
        diversity, own = diversity_checks(model, asked, heard, quick, part("Averaging", 0.45, 0.1))
        checks += own
    if heard and not quick:
        rng = np.random.default_rng([seed, len(asked)])
        subject, beside = asked[0], heard[0].heard
        rates = rate_checks(model, subject, beside, rng=rng, progress=part("Hearing at other rates", 0.25, 0.2))
        # What is lost at the recording's own rate is lost at the others for the same reason.
        checks += [replace(c, cause="as at the recording's own rate") if c.cause and holds is False else c for c in rates]
        stretch_s = min(STRETCH_S, subject.duration_s)
        if stretch_s * model.spec.sample_rate_hz > 2 * model.spec.window_samples:
            done = part("Hearing from other offsets", 0.55, 0.2)
            shift = shift_rows(model, subject, beside, rng=rng, progress=done)
            checks += _shift_checks(shift, stretch_s=stretch_s)
    checks += version_checks(model, parity_holds=holds)
    if not quick and partner is not None and retrain is not None and identity[0].passed:
        tell("Training again, twice", 0.75)
        same = same_installation(model)
        checks += repeatability_checks(model, partner, retrain, same_installation=same, processors=processors)
    tell("Done", 1.0)
    return Verification(
        partner=name,
        fingerprint=model.spec.fingerprint(),
        sample_rate_hz=model.spec.sample_rate_hz,
        complete=not quick and bool(heard),
        checks=tuple(sorted(checks, key=lambda check: GROUPS.index(check.group))),
        recordings=tuple(parity.heard for parity in heard),
        diversity=diversity,
        shift=shift,
    )


def _middle(spec: PerceptionSpec, subject: Subject) -> Float32:
    """Return three seconds from the middle of a recording, where there is music, at the spec's rate."""
    first = max(0, round((subject.duration_s / 2 - 1) * subject.sample_rate_hz))
    return at_spec_rate(spec, subject.samples[first : first + 3 * subject.sample_rate_hz], subject.sample_rate_hz)


def _precision_check(live: LiveStream) -> Check:
    found = [str(features.dtype) for features in live.features]
    passed = set(found) == {"float32"}
    return Check(
        group="spec",
        name="precision of features",
        expected="float32",
        found=", ".join(dict.fromkeys(found)),
        passed=passed,
        detail="vocabularies are learned from float32 and kept in it",
        cause="" if passed else "an encoder of another precision",
        values=dict(zip(SOURCES, found, strict=True)),
    )


def at_rate(samples: Float32, *, source_rate_hz: int, target_rate_hz: int) -> Float32:
    """Return samples (n,) as a device of another rate would give them: soxr's best quality, on the 24-bit grid."""
    return ingest(soxr.resample(samples, source_rate_hz, target_rate_hz, quality="VHQ").astype(np.float32))


def nearest_agreement(
    positions: tuple[Int64, Int64],
    tokens: tuple[Int16, Int16],
    *,
    tolerance_samples: float,
    offset_samples: float = 0.0,
    alike: Sequence[Bool] | None = None,
) -> tuple[tuple[int, int], ...]:
    """Return (equal, pairs) per source over the frames of two streams that lie nearest to each other.

    Positions (n,) and tokens (sources, n) of both; the second stream counts from `offset_samples` of the first. Pairs in
    which both are silent say nothing and are left out. `alike` says per source which tokens are one sound (size, size).
    """
    first, second = positions[0].astype(np.float64), positions[1] + offset_samples
    after = np.clip(np.searchsorted(second, first), min(1, len(second) - 1), len(second) - 1)
    before = np.maximum(after - 1, 0)
    match = np.where(first - second[before] < second[after] - first, before, after)
    near = np.abs(second[match] - first) <= tolerance_samples
    found = []
    for source, (mine, others) in enumerate(zip(tokens[0], tokens[1][:, match], strict=True)):
        sounding = near & ((mine != SILENCE) | (others != SILENCE))
        same = mine == others
        if alike is not None:
            same |= (mine != SILENCE) & (others != SILENCE) & alike[source][mine, others]
        found.append((int(same[sounding].sum()), int(sounding.sum())))
    return tuple(found)


def _agreement(
    model: PartnerModel, heard: HeardRecording, live: LiveStream, asked: AnyArray, offset_samples: float = 0.0
) -> tuple[tuple[int, int], ...]:
    """Return the `nearest_agreement` of the stored frames where `asked` (n,) with another stream."""
    return nearest_agreement(
        (heard.frame_samples[asked], live.frame_samples),
        (heard.stored_tokens[:, asked], live.tokens),
        tolerance_samples=model.spec.encoder.stride_samples / 2,
        offset_samples=offset_samples,
        alike=[vocabulary.alike() for vocabulary in model.vocabularies],
    )


def _shares(pairs: Sequence[tuple[int, int]]) -> tuple[float, ...]:
    return tuple(equal / total if total else 1.0 for equal, total in pairs)


def _heard_whole(spec: PerceptionSpec, heard: HeardRecording, stretch_s: float) -> AnyArray:
    """Return which stored frames see nothing behind `stretch_s`, shape (n,)."""
    end = stretch_s * spec.sample_rate_hz - spec.segment_samples - spec.lookahead_samples
    return np.asarray(heard.frame_samples < end)


def rate_checks(
    model: PartnerModel,
    subject: Subject,
    heard: HeardRecording,
    *,
    rng: np.random.Generator,
    progress: Callable[[float], None] = lambda _share: None,
) -> tuple[Check, ...]:
    """Return one check per device rate other than the recording's: the share of tokens that it leaves as they are."""
    spec, own_rate = model.spec, subject.sample_rate_hz
    sound = subject.beginning(min(STRETCH_S, subject.duration_s))
    stretch_s = len(sound) / own_rate
    asked = _heard_whole(spec, heard, stretch_s)
    asked = asked if asked.any() else np.ones(len(asked), dtype=bool)
    checks = []
    rates = [rate for rate in DEVICE_RATES_HZ if rate != own_rate]
    for number, rate in enumerate(rates):
        other = Subject("", rate, at_rate(sound, source_rate_hz=own_rate, target_rate_hz=rate), None)
        blocks = random_blocks(other, rng)
        live = hear_live(model, other.samples, sample_rate_hz=rate, blocks=blocks, with_beats=False)
        pairs = _agreement(model, heard, live, asked)
        shares = _shares(pairs)
        # Below its own rate hearing lacks what it was trained on, and no resampler brings it back.
        lossy = rate < min(spec.sample_rate_hz, own_rate)
        # A source that is all but silent has a frame or two at its gate, which say nothing.
        told = [share for share, (_, total) in zip(shares, pairs, strict=True) if total >= _LEAST_SOUNDING * asked.sum()]
        passed = None if lossy else min(told, default=1.0) >= RATE_GOAL
        checks.append(
            Check(
                group="parity",
                name=f"{subject.name} at {rate} Hz",
                expected="information" if lossy else f"≥ {RATE_GOAL:.0%}",
                found=", ".join(f"{source} {share:.2%}" for source, share in zip(SOURCES, shares, strict=True)),
                passed=passed,
                detail=f"{pairs[0][1]} frames of the first {stretch_s:.1f} s"
                + (f"; a device at {rate} Hz has nothing above {rate / 2000:.1f} kHz" if lossy else ""),
                cause="resampling changes what is near a border between two sounds" if passed is False else "",
                values={"rate_hz": rate, "shares": list(shares), "frames": [total for _, total in pairs]},
            )
        )
        progress((number + 1) / len(rates))
    return tuple(checks)


def shift_rows(
    model: PartnerModel,
    subject: Subject,
    heard: HeardRecording,
    *,
    rng: np.random.Generator,
    progress: Callable[[float], None] = lambda _share: None,
) -> tuple[ShiftRow, ...]:
    """Return the share of equal tokens when the music starts later, for eight offsets and for one between two frames.

    Offsets are whole numbers of frames, evenly spaced within a segment, so that only the grid differs; the last but one is
    a whole segment. Half a frame off, each frame hears a moment up to half a stride away. Frames that would see behind the
    stretch, or in front of the shifted start, are left out.
    """
    spec, rate = model.spec, subject.sample_rate_hz
    sound = subject.beginning(min(STRETCH_S, subject.duration_s))
    whole = _heard_whole(spec, heard, len(sound) / rate)
    rows = []
    for number, wanted in enumerate(grid_offsets(spec)):
        dropped = round(wanted / spec.sample_rate_hz * rate)
        offset = dropped / rate * spec.sample_rate_hz
        part = Subject("", rate, sound[dropped:], None)
        blocks = random_blocks(part, rng, largest_s=1.0)
        live = hear_live(model, part.samples, sample_rate_hz=rate, blocks=blocks, with_beats=False)
        asked = whole & (heard.frame_samples >= offset + spec.context_samples + spec.segment_samples)
        pairs = _agreement(model, heard, live, asked, offset)
        counts = tuple(total for _, total in pairs)
        rows.append(ShiftRow(offset_samples=round(offset), offset_s=dropped / rate, shares=_shares(pairs), pairs=counts))
        progress((number + 1) / (OFFSETS + 1))
    return tuple(rows)


def grid_offsets(spec: PerceptionSpec) -> tuple[int, ...]:
    """Return eight offsets, in samples, of whole frames, and one that lies half a frame between the two in the middle."""
    stride = spec.encoder.stride_samples
    whole = tuple(max(1, round(k * spec.hop_samples / (OFFSETS + 1) / stride)) * stride for k in range(1, OFFSETS + 1))
    return (*whole, whole[OFFSETS // 2] - stride // 2)


def _shift_checks(rows: tuple[ShiftRow, ...], *, stretch_s: float) -> tuple[Check, ...]:
    """Return one check per source, for information: how much depends on the grid is a property of hearing, not a fault."""
    *grid, between = rows
    checks = []
    for source, name in enumerate(SOURCES):
        shares, pairs = [row.shares[source] for row in grid], sum(row.pairs[source] for row in grid)
        mean, half = float(np.mean(shares)), between.shares[source]
        checks.append(
            Check(
                group="shift",
                name=f"{name} tokens that stay",
                expected="information",
                found=f"{mean:.1%} (least {min(shares):.1%})" if pairs else "nothing to compare",
                passed=None,
                detail=f"{len(grid)} offsets from {grid[0].offset_s * 1000:.0f} to {grid[-1].offset_s * 1000:.0f} ms,"
                f" {pairs} pairs of frames from {stretch_s:.1f} s; half a frame off: {half:.1%}",
                values={"half_a_frame_off": half, "mean": mean, "least": min(shares), "pairs": pairs},
            )
        )
    return tuple(checks)
