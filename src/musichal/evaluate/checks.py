"""Checks of a partner that need no live pass: frame counts, digests, versions, and training again.

Counts are exact: segments × frames per segment × sources − silent frames = samples of the vocabularies. One frame of
difference is a failure.

Conventions
-----------
A check says what was expected and what was found, as short texts; `values` has the same as numbers for programs. `passed` is
None where a check only informs. Shares are from 0 to 1, sources in the order of `SOURCES`.
"""

import dataclasses
import filecmp
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from musichal.arrays import Float32
from musichal.audio.resample import resampled_length
from musichal.errors import InputError
from musichal.hearing.encoders import create_encoder
from musichal.hearing.listener import FeatureExtractor
from musichal.hearing.model_weights import model_digest
from musichal.hearing.percepts import SILENCE, SOURCES, frame_count, stream_frame_count
from musichal.hearing.vocabulary import token_histogram
from musichal.machine import installed
from musichal.memory.container import read_container
from musichal.memory.partner_file import PartnerModel, StoredRecording, load_partner
from musichal.spec import PerceptionSpec

GROUPS = ("count", "parity", "diversity", "shift", "frame scaling", "repeatability", "spec")
"""The groups of checks, in the order in which they are shown."""
FRAME_SCALING = ((0.1, 7), (0.2, 14), (0.35, 26), (0.5, 37), (1.0, 74))
"""Seconds of a segment, and the frames it must have at 24 kHz with frames of 400 samples every 320."""
# A frame between two centres may fall to either by the order of a sum; nothing else moves one.
_MOST_MOVED_SHARE = 1e-3
_SHOWN_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check: `group` is one of `GROUPS`, `detail` one more sentence, `cause` the likely cause of a failure."""

    group: str
    name: str
    expected: str
    found: str
    passed: bool | None
    detail: str = ""
    cause: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dataclasses.asdict(self) | {"values": dict(self.values)}


def count_checks(model: PartnerModel) -> tuple[Check, ...]:
    """Return the checks of the frames of each recording, of each vocabulary and of all samples together."""
    sources = [_vocabulary_count(model, source) for source in range(len(SOURCES))]
    return (*(_frame_count(recording, model.spec) for recording in model.recordings), *sources, _total(model, sources))


class GridCounts(NamedTuple):
    """Counts of a recording on the grid, all exact: `samples` at the spec's rate, `segments` that bring frames, `whole` ones.

    `per_segment` is the number of new frames of a later segment, `frames` that of all.
    """

    samples: int
    segments: int
    whole: int
    per_segment: int
    frames: int


def grid_counts(recording: StoredRecording, spec: PerceptionSpec) -> GridCounts:
    """Return the closed forms of a recording."""
    n = resampled_length(recording.n_samples, source_rate_hz=recording.sample_rate_hz, target_rate_hz=spec.sample_rate_hz)
    whole = max(0, (n - spec.segment_samples) // spec.hop_samples + 1)

    def up_to(segments: int) -> int:
        return stream_frame_count(spec.segment_samples + (segments - 1) * spec.hop_samples, spec) if segments else 0

    frames, in_whole = stream_frame_count(n, spec), up_to(whole)
    return GridCounts(n, whole + (frames > in_whole), whole, in_whole - up_to(whole - 1) if whole else 0, frames)


def _frame_count(recording: StoredRecording, spec: PerceptionSpec) -> Check:
    held = len(recording.frame_samples)
    name = f"frames of {recording.name}"
    if spec.policy != "grid":
        return Check(
            group="count",
            name=name,
            expected="no closed form",
            found=str(held),
            passed=None,
            detail="segments follow onsets, so their number depends on the music; parity counts them",
            values={"held": held},
        )
    n, _, segments, per_segment, expected = grid_counts(recording, spec)
    rest = expected - segments * per_segment
    passed = held == expected
    return Check(
        group="count",
        name=name,
        expected=f"{segments} × {per_segment} + {rest} = {expected}",
        found=str(held),
        passed=passed,
        detail=f"{n} samples at {spec.sample_rate_hz} Hz: whole segments × new frames of each + the rest",
        cause="" if passed else "frames were averaged or dropped, or the recording was heard at another rate or length",
        values={"segments": segments, "frames_per_segment": per_segment, "rest": rest, "expected": expected, "held": held},
    )


def _vocabulary_count(model: PartnerModel, source: int) -> Check:
    vocabulary, streams = model.vocabularies[source], [r.tokens[source] for r in model.recordings]
    total, silent = sum(map(len, streams)), sum(int((tokens == SILENCE).sum()) for tokens in streams)
    below = total - silent < vocabulary.size
    expected, found = total if below else total - silent, int(vocabulary.counts.sum())
    moved = 0
    if not below:
        held = sum(token_histogram(tokens, size=vocabulary.size) for tokens in streams)
        moved = int(abs(held - vocabulary.counts).sum()) // 2
    passed = expected == found and moved <= _MOST_MOVED_SHARE * expected
    return Check(
        group="count",
        name=f"{SOURCES[source]} vocabulary",
        expected=str(expected) if below else f"{total} − {silent} = {expected}",
        found=str(found),
        passed=passed,
        detail="learned from below the gate, as nearly all of it is silent: every frame counts"
        if below
        else f"{total} frames − {silent} silent; {moved} of them have another token than in training",
        cause="" if passed else "the vocabulary was learned from other frames than the partner holds",
        values={"frames": total, "silent": silent, "expected": expected, "found": found, "below_gate": below, "moved": moved},
    )


def _total(model: PartnerModel, sources: list[Check]) -> Check:
    if model.spec.policy == "grid":
        frames = sum(grid_counts(recording, model.spec).frames for recording in model.recordings)
    else:
        frames = sum(len(recording.frame_samples) for recording in model.recordings)
    silent = sum(check.values["silent"] for check in sources if not check.values["below_gate"])
    expected = len(SOURCES) * frames - silent
    found = sum(check.values["found"] for check in sources)
    return Check(
        group="count",
        name="samples of both vocabularies",
        expected=f"{frames} × {len(SOURCES)} − {silent} = {expected}",
        found=str(found),
        passed=expected == found,
        detail="frames by the closed form × sources − silent frames",
        cause="" if expected == found else f"{found - expected:+d} samples: training heard other frames than the closed form",
        values={"frames": frames, "sources": len(SOURCES), "silent": silent, "expected": expected, "found": found},
    )


def scaling_checks(spec: PerceptionSpec, samples: Float32) -> tuple[Check, ...]:
    """Return one check per length: the frames that the real front end and encoder give for one segment of real sound.

    `samples` (n,) at the spec's rate; what is missing of a second is silence.
    """
    sizes = {"frame_samples": spec.encoder.frame_samples, "stride_samples": spec.encoder.stride_samples}
    usual = (spec.sample_rate_hz, *sizes.values()) == (24_000, 400, 320)
    checks = []
    for seconds, frames in FRAME_SCALING:
        length = round(seconds * spec.sample_rate_hz)
        if length < spec.encoder.frame_samples:
            continue
        expected = frames if usual else frame_count(length, **sizes)
        shortest = min(length, spec.min_segment_samples)
        policy = replace(spec, policy="grid", segment_samples=length, hop_samples=length, min_segment_samples=shortest)
        sound = np.zeros(length + spec.lookahead_samples, np.float32)
        sound[: len(samples)] = samples[: len(sound)]
        segment = next(FeatureExtractor(policy, create_encoder(policy)).stream(sound, source_rate_hz=spec.sample_rate_hz))
        found = [len(features) for features in segment.features]
        passed = set(found) == {expected}
        checks.append(
            Check(
                group="frame scaling",
                name=f"a segment of {seconds * 1000:.0f} ms",
                expected=str(expected),
                found=", ".join(map(str, dict.fromkeys(found))),
                passed=passed,
                detail=f"{found[0] / seconds:.1f} frames per second, from segmenter and encoder",
                cause="" if passed else "the encoder does not give every frame",
                values={"seconds": seconds, "expected": expected, "found": found},
            )
        )
    return tuple(checks)


def same_installation(model: PartnerModel) -> bool:
    """Return whether everything that trained the partner is installed here in the same version."""
    return all(installed(name) == there for name, there in model.versions.items())


def identity_checks(spec: PerceptionSpec) -> tuple[Check, ...]:
    """Return the checks of the digests that hearing is identified by: of the encoder, the note model and the drum model."""
    here, cause = "none", "this MusicHal's encoder hears in another way"
    try:
        here = create_encoder(replace(spec, encoder=replace(spec.encoder, digest=""))).digest
    except InputError as error:
        cause = str(error)
    checks = (
        _digest_check(f"encoder {spec.encoder.name}", spec.encoder.digest, here, cause),
        _digest_check("note model", spec.notes.digest, model_digest("note"), "another model hears notes; tokens are equal"),
        _digest_check("drum model", spec.drum_digest, model_digest("drum"), "another model hears drums; tokens are equal"),
    )
    # A partner from before the drum model's digest was kept says nothing about it.
    return checks if spec.drum_digest else checks[:2]


def _digest_check(name: str, there: str, here: str, cause: str) -> Check:
    return Check(
        group="spec",
        name=name,
        expected=there[:_SHOWN_DIGITS] or "none",
        found=here[:_SHOWN_DIGITS] or "none",
        passed=there == here,
        detail="digest in the partner and digest here",
        cause="" if there == here else cause,
        values={"partner": there, "here": here},
    )


def version_checks(model: PartnerModel, *, parity_holds: bool | None) -> tuple[Check, ...]:
    """Return one check per part of the installation, for information: parity says whether a difference matters."""
    verdict = {
        True: "does not matter: tokens are the same",
        False: "may be why tokens differ",
        None: "whether it matters is not known: parity was not asked",
    }[parity_holds]
    return tuple(
        Check(
            group="spec",
            name=name,
            expected=there,
            found=here,
            passed=None,
            detail="the same" if here == there else verdict,
            values={"trained_with": there, "here": here, "differs": here != there},
        )
        for name, there in sorted(model.versions.items())
        for here in [installed(name)]
    )


Retrain = Callable[[int], Path]
"""Train again with so many threads, in a process of its own, and return the new partner file."""


def repeatability_checks(
    model: PartnerModel, partner: Path, retrain: Retrain, *, same_installation: bool, processors: int
) -> tuple[Check, Check]:
    """Return the checks of training again with one thread and with two.

    `retrain` makes partners with the `trained_with` of the first, so that equal training gives equal bytes. On another
    installation than the one that trained the partner, other bytes only inform.
    """
    once, twice = retrain(1), retrain(2)
    differs = differing_members(partner, once)
    excuse = "" if same_installation else "; this is not the installation that trained it"
    if not model.knows_beats:
        same_installation, excuse = False, "; it is from before beats were kept"
    bytes_check = Check(
        group="repeatability",
        name="trained again",
        expected="the same bytes",
        found="other bytes" if differs else "the same bytes",
        passed=(False if same_installation else None) if differs else True,
        detail=f"differs in {', '.join(differs)}{excuse}" if differs else f"{partner.stat().st_size} bytes",
        cause="training depends on something beside recordings, spec and versions" if differs and same_installation else "",
        values={"identical": not differs, "differs_in": list(differs)},
    )
    first, second = load_partner(once), load_partner(twice)
    same = [
        np.array_equal(a.tokens, b.tokens) and np.array_equal(a.frame_samples, b.frame_samples)
        for a, b in zip(first.recordings, second.recordings, strict=True)
    ]
    asked = processors > 1
    files = "the files differ otherwise" if differing_members(once, twice) else "the same bytes, too"
    threads_check = Check(
        group="repeatability",
        name="trained with one thread and with two",
        expected="the same tokens",
        found="the same tokens" if all(same) else f"other tokens in {same.count(False)} of {len(same)} recordings",
        passed=all(same) if asked or not all(same) else None,
        detail=files if asked else "there is one processor here, and libraries may use no second thread on it",
        cause="" if all(same) else "a sum whose order depends on the number of threads decides a token",
        values={"same": same, "processors": processors, "frames": sum(len(r.frame_samples) for r in model.recordings)},
    )
    return bytes_check, threads_check


def differing_members(first: Path, second: Path) -> tuple[str, ...]:
    """Return the names of what differs between two partner files, the manifest last; empty for the same bytes."""
    if filecmp.cmp(first, second, shallow=False):
        return ()
    one, other = (read_container(path) for path in (first, second))
    digests = [{name: member.sha256 for name, member in opened.members.items()} for opened in (one, other)]
    names = sorted(name for name in digests[0].keys() | digests[1] if digests[0].get(name) != digests[1].get(name))
    return (*names, *(["manifest"] if one.content != other.content or not names else []))
