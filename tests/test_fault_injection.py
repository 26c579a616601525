"""Every way in which alignment was lost before is noticed, and the stage where it is lost is named."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import musichal.evaluate.parity
import musichal.evaluate.stages
from conftest import _cut
from faults import FAULTS, HEALTHY, Fault
from musichal.arrays import Float32
from musichal.evaluate import ablations
from musichal.evaluate import verify as procedure
from musichal.evaluate.parity import hear_live, likely_cause
from musichal.evaluate.stages import (
    STAGES,
    StageTrace,
    compare_live,
    compare_stages,
    live_traces,
    reference_traces,
    stage_checks,
)
from musichal.evaluate.verify import subjects, verify_partner
from musichal.hearing.listener import Tap, Vocabularies
from musichal.memory.partner_file import PartnerModel
from musichal.spec import PerceptionSpec

RATE = 44_100
BLOCK = 4096
UNSEEN_IN_TOKENS = {"resampling at very high quality"}
"""So small that ten seconds of tokens do not show it: what comparing samples is for."""


@pytest.fixture(scope="module")
def sound(trained: PartnerModel) -> Float32:
    return trained.recordings[0].samples()


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, ballad_mix: Path, partner_of: Callable[..., PartnerModel]) -> PartnerModel:
    """A partner of another recording, eight seconds long."""
    path = _cut(ballad_mix, tmp_path_factory.mktemp("other") / "ballad.wav", 8, 16)
    return partner_of(path)


@pytest.fixture(scope="module")
def reference(trained: PartnerModel, sound: Float32) -> list[StageTrace]:
    return list(reference_traces(trained, sound, sample_rate_hz=RATE))


def sizes(n_samples: int) -> Iterator[int]:
    for first in range(0, n_samples, BLOCK):
        yield min(BLOCK, n_samples - first)


def break_live_path(monkeypatch: pytest.MonkeyPatch, fault: Fault, model: PartnerModel, other: PartnerModel) -> None:
    """Put a broken listener where `verify` takes its live one; the reference is made of other parts."""

    def broken(
        _spec: PerceptionSpec, _encoder: object, _vocabularies: Vocabularies, *, source_rate_hz: int, tap: Tap | None = None
    ) -> object:
        return fault.listener(model, other, source_rate_hz=source_rate_hz, tap=tap)

    for module in (musichal.evaluate.parity, musichal.evaluate.stages):
        monkeypatch.setattr(module, "Listener", broken)


def suspect(model: PartnerModel, sound: Float32) -> list[StageTrace]:
    return list(live_traces(model, sound, sample_rate_hz=RATE, blocks=sizes(len(sound))))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_fault_is_noticed_and_its_stage_named(
    monkeypatch: pytest.MonkeyPatch,
    trained: PartnerModel,
    other: PartnerModel,
    sound: Float32,
    reference: list[StageTrace],
    fault: Fault,
) -> None:
    break_live_path(monkeypatch, fault, trained, other)
    traces = suspect(trained, sound)
    comparison = compare_stages(reference, traces, sample_rate_hz=24_000)
    assert comparison.first is not None
    assert comparison.first.stage == fault.stage
    # Nothing before the stage where they part, and that stage itself, differ.
    at = STAGES.index(fault.stage)
    assert [s.differing for s in comparison.stages[:at]] == [0] * at
    assert comparison.stages[at].differing > 0
    assert comparison.stages[at].first_segment == comparison.first.segment
    assert (comparison.stages[-1].differing == 0) == (fault.name in UNSEEN_IN_TOKENS)

    # Digests alone, all that a concert would keep, tell the same place.
    by_digest = compare_stages(reference, [t.digests() for t in traces], sample_rate_hz=24_000)
    assert by_digest.first is not None
    assert (by_digest.first.stage, by_digest.first.segment) == (comparison.first.stage, comparison.first.segment)
    assert [s.differing for s in by_digest.stages] == [s.differing for s in comparison.stages]
    assert by_digest.first.largest is None


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_quick_verify_fails_and_names_stage_and_cause(
    monkeypatch: pytest.MonkeyPatch, trained: PartnerModel, other: PartnerModel, fault: Fault
) -> None:
    break_live_path(monkeypatch, fault, trained, other)
    parity = verify_partner(trained, subjects(trained), quick=True).group("parity")
    checks = [c for c in parity if c.name.endswith("stage by stage")]
    whole = {c.name.split(", ")[1]: c for c in parity if c not in checks}
    # Over the whole recording: tokens unless they hide it, samples where the sound itself is another, all that is played.
    assert (whole["harmonic"].passed and whole["percussive"].passed) == (fault.name in UNSEEN_IN_TOKENS)
    assert whole["samples"].passed == (fault.stage != "samples")
    assert not whole["gestures"].passed
    assert not whole["notes"].passed
    assert [c.name for c in checks] == [f"mix.wav, {stage}, stage by stage" for stage in STAGES]
    at = STAGES.index(fault.stage)
    assert [c.passed for c in checks[: at + 1]] == [True] * at + [False]
    assert [c.values["parts_here"] for c in checks] == [stage == fault.stage for stage in STAGES]
    assert checks[at].detail.startswith("here they part: segment ")
    assert all(c.cause == f"follows from the {fault.stage}" for c in checks[at + 1 :] if not c.passed)
    # One cause, and the right one, wherever it is shown.
    assert fault.cause in checks[at].cause
    assert {c.cause for c in whole.values() if not c.passed} == {checks[at].cause}


def test_other_rates_fail_for_the_reason_of_the_recordings_own(
    monkeypatch: pytest.MonkeyPatch, trained: PartnerModel, other: PartnerModel
) -> None:
    monkeypatch.setattr(ablations, "STRETCH_S", 1.0)
    monkeypatch.setattr(procedure, "STRETCH_S", 1.4)
    break_live_path(monkeypatch, next(f for f in FAULTS if f.name == "mean over frames"), trained, other)
    verification = verify_partner(trained, subjects(trained))
    causes = {c.name: c.cause for c in verification.failed if c.name.endswith(" Hz")}
    assert causes == {f"mix.wav at {rate} Hz": "as at the recording's own rate" for rate in (48_000, 96_000)}


def test_a_healthy_live_path_differs_nowhere(
    monkeypatch: pytest.MonkeyPatch, trained: PartnerModel, other: PartnerModel, sound: Float32
) -> None:
    """The machinery of the faults breaks nothing by itself, whatever the blocks."""
    break_live_path(monkeypatch, HEALTHY, trained, other)
    blocks = [len(sound) // 2 + 1, len(sound) // 2]
    checks = stage_checks("mix.wav", compare_live(trained, sound, sample_rate_hz=RATE, blocks=blocks))
    assert [c.passed for c in checks] == [True] * 4
    assert {c.values["segments"] for c in checks} == {29}
    assert {c.values["largest"] for c in checks} == {0.0}
    assert verify_partner(trained, subjects(trained), quick=True).passed


def test_a_fault_late_in_a_recording_is_found_where_it_is(
    monkeypatch: pytest.MonkeyPatch, trained: PartnerModel, other: PartnerModel
) -> None:
    """Behind the stretch that is compared however it ends: 8.5 s in, with a stretch of 2 s."""
    monkeypatch.setattr(procedure, "STRETCH_S", 2.0)
    monkeypatch.setattr(procedure, "_BEYOND_S", 0.5)

    def late(block: Float32, before: int) -> Float32:
        """Swap the sign of what comes behind 8.5 s: it sounds the same, and is not."""
        from_s = np.arange(before, before + len(block)) >= 8.5 * RATE
        return np.where(from_s, -block, block).astype(np.float32)

    break_live_path(monkeypatch, Fault("late", "samples", deliver=late), trained, other)
    verification = verify_partner(trained, subjects(trained), quick=True)
    (check,) = (c for c in verification.group("parity") if c.values.get("parts_here"))
    assert check.name == "mix.wav, samples, stage by stage"
    assert check.values["first_segment"] == 24  # from 8.4 s on; the one before sees up to 8.47 s
    assert check.values["segments"] < 29


def test_the_causes_told_from_tokens_alone(trained: PartnerModel, other: PartnerModel, sound: Float32) -> None:
    """What is said where this installation's stages agree and only the kept stream is another."""
    stored = trained.recordings[0]

    def cause(name: str) -> str:
        fault = next(f for f in FAULTS if f.name == name)
        monkeypatch = pytest.MonkeyPatch()
        with monkeypatch.context() as patch:
            break_live_path(patch, fault, trained, other)
            live = hear_live(trained, sound, sample_rate_hz=RATE, blocks=sizes(len(sound)))
        return likely_cause(trained, stored.frame_samples, stored.tokens, live, source=1)

    assert "found with another recording's" in cause("vocabulary of another recording")
    assert cause("window of 1.5 s") == "segments have 112 frames, not 26: another segment length"
    assert "averaged" in cause("mean over frames")
    assert "far from all that was learned" in cause("masks instead of stems")
    assert "features are a little off" in cause("resampling at low quality")
    assert "features and vocabulary do not belong together" in cause("drum bands off by one")
    assert "sound was lost" in cause("dropped block")


def test_the_reference_is_what_the_partner_keeps(trained: PartnerModel, reference: list[StageTrace]) -> None:
    stored = trained.recordings[0]
    assert np.array_equal(np.concatenate([t.tokens for t in reference], axis=1), stored.tokens)
    assert np.array_equal(np.concatenate([t.frame_samples for t in reference]), stored.frame_samples)


def test_only_verify_can_look_between_the_stages() -> None:
    """No command, and nothing on stage, passes a tap: it costs nothing and cannot be reached from outside."""
    package = Path(musichal.evaluate.stages.__file__).parents[1]
    users = {path.relative_to(package).as_posix() for path in package.rglob("*.py") if "tap=" in path.read_text("utf-8")}
    assert users == {"hearing/listener.py", "evaluate/parity.py", "evaluate/stages.py", "evaluate/verify.py"}


def _changed(trace: StageTrace, stage: str) -> StageTrace:
    """Return a trace with one value of one stage moved, the third one or that of the third frame."""
    if stage == "samples":
        samples = trace.samples.copy()
        samples[2] += np.float32(0.25)
        return dataclasses.replace(trace, samples=samples)
    if stage == "tokens":
        tokens = trace.tokens.copy()
        tokens[1, 2] = -1 if tokens[1, 2] >= 0 else 0
        return dataclasses.replace(trace, tokens=tokens)
    first, second = (a.copy() for a in trace.arrays(stage))
    second[2] += np.float32(0.25)
    return dataclasses.replace(trace, **{stage: (first, second)})


@pytest.mark.parametrize("stage", STAGES)
def test_the_place_and_size_of_a_difference_are_told(reference: list[StageTrace], stage: str) -> None:
    traces = [*reference[:4], _changed(reference[4], stage), *reference[5:]]
    comparison = compare_stages(reference, traces, sample_rate_hz=24_000)
    first = comparison.first
    assert first is not None
    assert (first.stage, first.segment) == (stage, 4)
    assert [s.differing for s in comparison.stages] == [int(s == stage) for s in STAGES]
    assert first.source == (None if stage == "samples" else "percussive")
    start = 4 * 8400
    expected = start + 2 * 320 + 200 if stage in ("features", "tokens") else start - 8400 + 2
    assert first.position_s == expected / 24_000
    assert first.frame == (2 if stage in ("features", "tokens") else None)
    assert first.largest == (1 if stage == "tokens" else pytest.approx(0.25, abs=1e-6))
    assert comparison.to_dict()["first"]["meaning"] == first.meaning


def test_the_earlier_stage_is_blamed_and_the_earlier_segment_first(reference: list[StageTrace]) -> None:
    both = _changed(_changed(reference[4], "tokens"), "stems")
    first = compare_stages(reference, [*reference[:4], both, *reference[5:]], sample_rate_hz=24_000).first
    assert first is not None
    assert first.stage == "stems"
    earlier = [*reference[:2], _changed(reference[2], "tokens"), reference[3], both, *reference[5:]]
    first = compare_stages(reference, earlier, sample_rate_hz=24_000).first
    assert first is not None
    assert (first.stage, first.segment) == ("tokens", 2)


def test_missing_and_surplus_segments_and_a_moved_grid_are_differences(reference: list[StageTrace]) -> None:
    missing = compare_stages(reference, reference[:-1], sample_rate_hz=24_000).first
    surplus = compare_stages(reference[:-1], reference, sample_rate_hz=24_000).first
    assert missing is not None and surplus is not None
    assert (missing.stage, missing.segment, missing.detail) == ("samples", 28, "segment 28 is missing")
    assert surplus.detail == "segment 28 should not be there"
    moved = dataclasses.replace(reference[0], start_sample=10)
    first = compare_stages(reference, [moved, *reference[1:]], sample_rate_hz=24_000).first
    assert first is not None
    assert (first.stage, first.largest) == ("samples", 0.0)
    assert compare_stages([], [], sample_rate_hz=24_000).agrees
