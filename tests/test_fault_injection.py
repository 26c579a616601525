"""Every way in which alignment was lost before is noticed, and the stage where it is lost is named."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from conftest import _cut
from faults import FAULTS, HEALTHY, Fault
from musichal.arrays import Float32
from musichal.evaluate import alignment, diversity, stages, verify
from musichal.evaluate.checks import Check
from musichal.evaluate.stages import STAGES, SampleAudit, Segment, StageComparison, compare_stages, reference_segments
from musichal.evaluate.verify import subjects, verify_partner
from musichal.hearing.listener import Tap, Vocabularies
from musichal.memory.partner_file import PartnerModel
from musichal.spec import PerceptionSpec

RATE = 44_100
UNSEEN_IN_TOKENS = {"resampling at very high quality"}
"""So small that ten seconds of tokens do not show it: what comparing samples is for."""


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, ballad_mix: Path, partner_of: Callable[..., PartnerModel]) -> PartnerModel:
    """A partner of another recording, eight seconds long."""
    return partner_of(_cut(ballad_mix, tmp_path_factory.mktemp("other") / "ballad.wav", 8, 16))


@pytest.fixture(scope="module")
def brief(tmp_path_factory: pytest.TempPathFactory, short_mix: Path, partner_of: Callable[..., PartnerModel]) -> PartnerModel:
    """A partner of five seconds, for faults that they show."""
    return partner_of(_cut(short_mix, tmp_path_factory.mktemp("brief") / "mix.wav", 0, 5))


def break_live_path(monkeypatch: pytest.MonkeyPatch, fault: Fault, model: PartnerModel, other: PartnerModel) -> None:
    """Put a broken listener where `verify` takes its live one; the reference is made of other parts."""

    def broken(
        _spec: PerceptionSpec,
        _encoder: object,
        _vocabularies: Vocabularies,
        *,
        source_rate_hz: int,
        tap: Tap | None = None,
        known: None = None,
    ) -> object:
        return fault.listener(model, other, source_rate_hz=source_rate_hz, tap=tap)

    for module in (alignment, stages):
        monkeypatch.setattr(module, "Listener", broken)


_FIRST = {fault.stage: fault.name for fault in reversed(FAULTS)}
"""One fault of each stage that five seconds show; the others are slow, and some of them need ten."""


@pytest.mark.parametrize(
    "fault", [pytest.param(f, id=f.name, marks=[pytest.mark.slow] * (_FIRST[f.stage] != f.name)) for f in FAULTS]
)
def test_a_quick_verify_names_stage_and_cause_of_every_fault(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, other: PartnerModel, fault: Fault
) -> None:
    model = request.getfixturevalue("brief" if _FIRST[fault.stage] == fault.name else "trained")
    break_live_path(monkeypatch, fault, model, other)
    parity = verify_partner(model, subjects(model), quick=True).group("parity")
    checks = [c for c in parity if c.name.endswith("stage by stage")]
    whole = {c.name.split(", ")[1]: c for c in parity if c not in checks}
    # Over the whole recording: tokens unless they hide it, samples where the sound itself is another, all that is played.
    unseen = fault.name in UNSEEN_IN_TOKENS
    assert (whole["harmonic"].passed and whole["percussive"].passed) == unseen
    assert whole["samples"].passed == (fault.stage != "samples")
    assert not whole["gestures"].passed
    assert not whole["notes"].passed
    assert [c.name for c in checks] == [f"mix.wav, {stage}, stage by stage" for stage in STAGES]
    # Nothing before the stage where they part differs.
    at = STAGES.index(fault.stage)
    assert [c.values["differing"] for c in checks[:at]] == [0] * at
    assert [c.passed for c in checks[: at + 1]] == [True] * at + [False]
    assert checks[-1].passed == unseen
    assert [c.values["parts_here"] for c in checks] == [stage == fault.stage for stage in STAGES]
    assert checks[at].detail.startswith(f"here they part: segment {checks[at].values['first_segment']}")
    assert all(c.cause == f"follows from the {fault.stage}" for c in checks[at + 1 :] if not c.passed)
    # One cause, and the right one, wherever it is shown.
    assert fault.cause in checks[at].cause
    assert {c.cause for c in whole.values() if not c.passed} == {checks[at].cause}


def test_other_rates_fail_for_the_reason_of_the_recordings_own(
    monkeypatch: pytest.MonkeyPatch, brief: PartnerModel, other: PartnerModel
) -> None:
    monkeypatch.setattr(diversity, "DENSE_STRETCH_S", 1.0)
    monkeypatch.setattr(verify, "STRETCH_S", 1.4)
    break_live_path(monkeypatch, next(f for f in FAULTS if f.name == "mean over frames"), brief, other)
    verification = verify_partner(brief, subjects(brief))
    causes = {c.name: c.cause for c in verification.failed if c.name.endswith(" Hz")}
    assert causes == {f"mix.wav at {rate} Hz": "as at the recording's own rate" for rate in (48_000, 96_000)}


def test_a_healthy_live_path_differs_nowhere(
    monkeypatch: pytest.MonkeyPatch, trained: PartnerModel, other: PartnerModel
) -> None:
    """The machinery of the faults breaks nothing by itself, whatever the blocks."""
    break_live_path(monkeypatch, HEALTHY, trained, other)
    (subject,) = subjects(trained)
    n = len(subject.samples)
    found = alignment.check_recording(trained, subject, [n // 2 + 1, n - n // 2 - 1], always_s=60.0)
    assert (found.agreement, found.stage, found.cause) == (1.0, "", "")
    assert all(c.passed for c in found.checks)
    staged = [c for c in found.checks if c.name.endswith("stage by stage")]
    assert [(c.values["segments"], c.values["largest"]) for c in staged] == [(29, 0.0)] * 4


def test_a_fault_late_in_a_recording_is_found_where_it_is(
    monkeypatch: pytest.MonkeyPatch, trained: PartnerModel, other: PartnerModel
) -> None:
    """Behind the stretch that is always compared: 8.5 s in, with a stretch of 2 s."""
    monkeypatch.setattr(verify, "STRETCH_S", 2.0)
    monkeypatch.setattr(alignment, "_BEYOND_S", 0.5)

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


def test_only_verify_can_look_between_the_stages() -> None:
    """No command and nothing live passes a tap: it costs nothing and cannot be reached from outside."""
    package = Path(stages.__file__).parents[1]
    passes = re.compile(r"\btap=(?!True|\{)")
    users = {path.relative_to(package).as_posix() for path in package.rglob("*.py") if passes.search(path.read_text("utf-8"))}
    assert users == {"hearing/listener.py", "evaluate/alignment.py", "evaluate/stages.py"}


# Single values


@pytest.fixture(scope="module")
def reference(trained: PartnerModel) -> list[Segment]:
    return list(reference_segments(trained, trained.recordings[0].samples(), sample_rate_hz=RATE))


@pytest.fixture
def compared(
    monkeypatch: pytest.MonkeyPatch, trained: PartnerModel, reference: list[Segment]
) -> Callable[[Sequence[Segment]], StageComparison]:
    """Compare the reference with segments that stand for the live path's."""
    samples = trained.recordings[0].samples()
    audit = SampleAudit(trained.spec, samples, sample_rate_hz=RATE)

    def compare(suspect: Sequence[Segment]) -> StageComparison:
        monkeypatch.setattr(stages, "live_segments", lambda *_, **__: iter(suspect))
        monkeypatch.setattr(stages, "reference_segments", lambda *_, **__: iter(reference))
        return compare_stages(trained, samples, sample_rate_hz=RATE, blocks=(), audit=audit)

    return compare


def _changed(segment: Segment, stage: str) -> Segment:
    """Return a segment with one value of one stage moved, the third one or that of the third frame of the last source."""
    *others, last = getattr(segment, stage)
    last = last.copy()
    last[2] = (-1 if last[2] >= 0 else 0) if stage == "tokens" else last[2] + np.float32(0.25)
    return segment._replace(**{stage: (*others, last)})


@pytest.mark.parametrize("stage", STAGES)
def test_the_place_and_size_of_a_difference_are_told(
    reference: list[Segment], compared: Callable[[Sequence[Segment]], StageComparison], stage: str
) -> None:
    found = compared([*reference[:4], _changed(reference[4], stage), *reference[5:]])
    assert found.stage == stage
    assert list(found.differing.values()) == [int(s == stage) for s in STAGES]
    assert found.first_at[stage] == 4
    assert found.largest[stage] == (1 if stage == "tokens" else pytest.approx(0.25, abs=1e-6))
    start = 4 * 8400
    position = start + 2 * 320 + 200 if stage in ("features", "tokens") else start - 8400 + 2
    assert found.detail.startswith(f"segment 4, {position / 24_000:.3f} s")
    assert ("percussive source" in found.detail) == (stage != "samples")
    assert ("frame 2" in found.detail) == (stage in ("features", "tokens"))


def test_the_earlier_stage_is_blamed_and_the_earlier_segment_first(
    reference: list[Segment], compared: Callable[[Sequence[Segment]], StageComparison]
) -> None:
    both = _changed(_changed(reference[4], "tokens"), "stems")
    assert compared([*reference[:4], both, *reference[5:]]).stage == "stems"
    found = compared([*reference[:2], _changed(reference[2], "tokens"), reference[3], both, *reference[5:]])
    assert (found.stage, found.first_at["tokens"]) == ("tokens", 2)


def test_missing_and_surplus_segments_and_a_moved_grid_are_differences(
    reference: list[Segment], compared: Callable[[Sequence[Segment]], StageComparison]
) -> None:
    for suspect, detail in (
        (reference[:-1], "segment 28 is missing"),
        ([*reference, reference[-1]], "segment 29 should not be there"),
        ([reference[0]._replace(start_sample=10), *reference[1:]], "segment 0 starts at sample 10, not 0"),
    ):
        found = compared(suspect)
        assert found.stage == "samples"
        assert found.detail.startswith(detail)


def test_a_check_says_what_follows_from_what() -> None:
    counts = dict.fromkeys(STAGES, 0) | {"stems": 1, "tokens": 1}
    places = dict.fromkeys(STAGES) | {"stems": 0, "tokens": 3}
    found = StageComparison(4, counts, places, dict.fromkeys(STAGES, 0.0), "stems", "there", "masks")
    assert [(c.passed, c.cause) for c in found.checks("x")] == [
        (True, ""), (False, "masks"), (True, ""), (False, "follows from the stems"),
    ]  # fmt: skip
    assert isinstance(found.checks("x")[0], Check)
