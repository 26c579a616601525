"""Counting: how many samples a vocabulary must have been trained on, and how many it was.

The closed form sums segments, frames per segment and sources, and takes the silent frames off; what is held and what the
vocabulary counted are held to it. Equal, not close: a difference of one frame is a failure with a cause.
"""

from musichal.evaluate.partner_stats import resampled_length
from musichal.evaluate.token_diversity import token_histogram
from musichal.evaluate.verification import Check
from musichal.hearing.percepts import SILENCE, SOURCES
from musichal.memory.partner_file import PartnerModel, StoredRecording
from musichal.spec import PerceptionSpec

# A frame between two centres may fall to either by the order of a sum; no other rounding moves one.
_MOST_MOVED_SHARE = 1e-3


def count_checks(model: PartnerModel) -> tuple[Check, ...]:
    """Return the checks of the frames of each recording, and of each source's and all samples of the vocabularies."""
    frames = [_frames(recording, model.spec) for recording in model.recordings]
    learned = [_learned(model, source) for source in range(len(SOURCES))]
    return (*frames, *(_source(model, *item) for item in learned), _total(model, learned))


def _frames(recording: StoredRecording, spec: PerceptionSpec) -> Check:
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
    n_samples = resampled_length(
        recording.n_samples, source_rate_hz=recording.sample_rate_hz, target_rate_hz=spec.sample_rate_hz
    )
    segments, per_segment, rest, expected = grid_frames(n_samples, spec)
    passed = held == expected
    return Check(
        group="count",
        name=name,
        expected=f"{segments} × {per_segment} + {rest} = {expected}",
        found=str(held),
        passed=passed,
        detail=f"{n_samples} samples at {spec.sample_rate_hz} Hz: whole segments × new frames of each + the rest",
        cause="" if passed else "frames were averaged or dropped, or the recording was heard at another rate or length",
        values={"segments": segments, "frames_per_segment": per_segment, "rest": rest, "expected": expected, "held": held},
    )


def grid_frames(n_samples: int, spec: PerceptionSpec) -> tuple[int, int, int, int]:
    """Return (whole segments, new frames of a later one, what the first and the last have besides, frames in all).

    Segment by segment from the conventions of the frame grid, on purpose: it audits `stream_frame_count`, which hearing's
    tests use too.
    """
    frame, stride = spec.encoder.frame_samples, spec.encoder.stride_samples
    overlap = spec.segment_samples - spec.hop_samples
    # Of an overlapping segment, the frames count whose centre lies behind the end of the segment before.
    known = sum(i * stride + frame // 2 < overlap for i in range(spec.segment_samples // stride + 1))
    counted, whole = [], 0
    for start in range(0, n_samples, spec.hop_samples):
        length = min(spec.segment_samples, n_samples - start)
        in_segment = (length - frame) // stride + 1 if length >= frame else 0
        counted.append(max(0, in_segment - (known if start else 0)))
        if length < spec.segment_samples:
            break
        whole += 1
    new = counted[whole - 1] if whole else 0
    return whole, new, sum(counted) - whole * new, sum(counted)


def _learned(model: PartnerModel, source: int) -> tuple[int, int, int, bool]:
    """Return (source, all frames, silent frames, whether it was learned from below the gate)."""
    total = sum(recording.tokens.shape[1] for recording in model.recordings)
    silent = sum(int((recording.tokens[source] == SILENCE).sum()) for recording in model.recordings)
    return source, total, silent, total - silent < model.spec.vocabulary.size


def _source(model: PartnerModel, source: int, total: int, silent: int, below: bool) -> Check:
    vocabulary = model.vocabularies[source]
    expected, found = total if below else total - silent, int(vocabulary.counts.sum())
    moved = 0
    if not below:
        held = sum(token_histogram(r.tokens[source], size=vocabulary.size) for r in model.recordings)
        moved = int(abs(held - vocabulary.counts).sum()) // 2
    passed = expected == found and moved <= _MOST_MOVED_SHARE * expected
    detail = (
        "learned from below the gate, as nearly all of it is silent: every frame counts"
        if below
        else f"{total} frames − {silent} silent; {moved} of them have another token than in training"
    )
    return Check(
        group="count",
        name=f"{SOURCES[source]} vocabulary",
        expected=str(expected) if below else f"{total} − {silent} = {expected}",
        found=str(found),
        passed=passed,
        detail=detail,
        cause="" if passed else "the vocabulary was learned from other frames than the partner holds",
        values={
            "frames": total,
            "silent": silent,
            "expected": expected,
            "found": found,
            "below_gate": below,
            "moved": moved,
        },
    )


def _total(model: PartnerModel, learned: list[tuple[int, int, int, bool]]) -> Check:
    """Return the check of both documents' sum: segments × frames × sources − silence = samples of the vocabularies."""
    frames = sum(len(r.frame_samples) for r in model.recordings)
    if model.spec.policy == "grid":
        lengths = [
            resampled_length(r.n_samples, source_rate_hz=r.sample_rate_hz, target_rate_hz=model.spec.sample_rate_hz)
            for r in model.recordings
        ]
        frames = sum(grid_frames(n, model.spec)[-1] for n in lengths)
    silent = sum(silent for _, _, silent, below in learned if not below)
    expected = len(SOURCES) * frames - silent
    found = sum(int(v.counts.sum()) for v in model.vocabularies)
    passed = expected == found
    return Check(
        group="count",
        name="samples of both vocabularies",
        expected=f"{frames} × {len(SOURCES)} − {silent} = {expected}",
        found=str(found),
        passed=passed,
        detail="frames by the closed form × sources − silent frames",
        cause="" if passed else f"{found - expected:+d} samples: training heard other frames than the closed form says",
        values={"frames": frames, "sources": len(SOURCES), "silent": silent, "expected": expected, "found": found},
    )
