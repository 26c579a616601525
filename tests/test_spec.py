"""The perception spec: strict, complete, and fingerprinted."""

import dataclasses
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musichal.errors import InputError
from musichal.spec import (
    EncoderSpec,
    GateSpec,
    GestureSpec,
    OnsetSpec,
    PerceptionSpec,
    SeparationSpec,
    VocabularySpec,
    hop_range,
)

PARTS = (SeparationSpec, EncoderSpec, GateSpec, VocabularySpec, OnsetSpec, GestureSpec)

specs = st.builds(
    PerceptionSpec,
    segment_samples=st.integers(2400, 24000),
    hop_samples=st.integers(600, 2400),
    context_samples=st.integers(0, 48000),
    resampler=st.sampled_from(["soxr-HQ", "soxr-VHQ"]),
    gate=st.builds(GateSpec, open_db=st.floats(-60, 0), close_db=st.floats(-120, -60)),
    vocabulary=st.builds(VocabularySpec, size=st.integers(2, 1024), seed=st.integers(0, 2**40)),
    gestures=st.builds(GestureSpec, penalty=st.floats(0, 1e6), max_s=st.floats(1, 20), min_s=st.floats(0, 0.5)),
)


def leaves(values: dict[str, Any], prefix: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """Return every (path, value) below nested tables."""
    out: list[tuple[tuple[str, ...], Any]] = []
    for key, value in values.items():
        out += leaves(value, (*prefix, key)) if isinstance(value, dict) else [((*prefix, key), value)]
    return out


def with_leaf(values: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Return a deep copy of a table with one value exchanged."""
    copy: dict[str, Any] = json.loads(json.dumps(values))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copy


LEAVES = leaves(PerceptionSpec().to_dict())


@given(specs)
def test_a_spec_survives_json_unchanged(spec: PerceptionSpec) -> None:
    again = PerceptionSpec.from_dict(json.loads(spec.canonical_json()))
    assert again == spec
    assert again.fingerprint() == spec.fingerprint()
    assert again.canonical_json() == spec.canonical_json()


@given(specs, specs)
def test_fingerprints_agree_exactly_where_nothing_differs(a: PerceptionSpec, b: PerceptionSpec) -> None:
    assert (a.fingerprint() == b.fingerprint()) == (a.differences(b) == [])


def test_the_canonical_json_is_one_sorted_line() -> None:
    text = PerceptionSpec().canonical_json()
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
    assert re.fullmatch(r"[0-9a-f]{64}", PerceptionSpec().fingerprint())


def test_differences_name_nested_fields_with_both_values() -> None:
    other = PerceptionSpec(gate=GateSpec(open_db=-50.0), context_samples=0)
    assert PerceptionSpec().differences(other) == [("context_samples", 8400, 0), ("gate.open_db", -54.0, -50.0)]


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PerceptionSpec().hop_samples = 1  # type: ignore[misc]


@pytest.mark.parametrize("path", [path for path, _ in LEAVES], ids=".".join)
def test_every_number_is_in_the_fingerprint(path: tuple[str, ...]) -> None:
    """A number that shapes a token but not the fingerprint would let two ways of hearing pass for one."""
    value = dict(LEAVES)[path]
    changes: tuple[Any, ...] = ("soxr-VHQ", "onset", "l2-pca", "another")
    if isinstance(value, int):
        changes = (value + 1, value + 2, value - 1, value * 2, value // 2)
    elif isinstance(value, float):
        changes = (value * 1.5, value * 0.5)
    seen = 0
    for change in [c for c in changes if c != value]:
        try:
            other = PerceptionSpec.from_dict(with_leaf(PerceptionSpec().to_dict(), path, change))
        except InputError:
            continue
        seen += 1
        assert other.fingerprint() != PerceptionSpec().fingerprint()
        assert [name for name, _, _ in PerceptionSpec().differences(other)] == [".".join(path)]
    assert seen or path in {("version",), ("input_bits",)}


@pytest.mark.parametrize("path", [path for path, _ in LEAVES], ids=".".join)
@pytest.mark.parametrize("bad", [None, [], True, "0", {"a": 1}, -1e30, 10**30])
def test_nonsense_in_any_field_is_refused(path: tuple[str, ...], bad: Any) -> None:
    """A spec comes from a file of a stranger: whatever is wrong in it ends as an InputError, not as anything else."""
    if path[-1] in ("name", "digest") and isinstance(bad, str):
        return
    # Without bounds of their own, for they cost neither memory nor time in hearing.
    unbounded = {"seed", "restarts", "max_iterations", "threshold", "compression", "penalty", "percussive_weight", "high_hz"}
    free = path[-1] in unbounded | {"silence_cost", "power", "margin_harmonic", "margin_percussive"}
    if free and isinstance(bad, int | float) and not isinstance(bad, bool):
        return
    with pytest.raises(InputError, match="perception spec"):
        PerceptionSpec.from_dict(with_leaf(PerceptionSpec().to_dict(), path, bad))


@pytest.mark.parametrize("path", [path for path, value in LEAVES if isinstance(value, float)], ids=".".join)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_refused(path: tuple[str, ...], bad: float) -> None:
    values = PerceptionSpec().to_dict()
    inner = values
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = bad
    with pytest.raises(InputError):
        PerceptionSpec.from_dict(values)


@pytest.mark.parametrize("part", [PerceptionSpec, *PARTS])
def test_unknown_and_missing_fields_are_refused(part: Any) -> None:
    values = part().to_dict()
    with pytest.raises(InputError, match="unknown"):
        part.from_dict(values | {"surprise": 1})
    joined_later = {f.name for f in dataclasses.fields(part) if "later" in f.metadata}
    for name in values:
        without = {k: v for k, v in values.items() if k != name}
        if name in joined_later:
            assert part.from_dict(without).to_dict() == without
            continue
        with pytest.raises(InputError, match="lacks"):
            part.from_dict(without)
    with pytest.raises(InputError, match="table"):
        part.from_dict([values])


def test_a_whole_number_may_stand_for_a_float_but_not_the_other_way() -> None:
    values = GateSpec().to_dict()
    assert GateSpec.from_dict(values | {"open_db": -54}) == GateSpec()
    with pytest.raises(InputError, match="int"):
        GateSpec.from_dict(values | {"window_samples": 1024.0})


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        (SeparationSpec, {"n_fft": 1000}),
        (SeparationSpec, {"n_fft": 1 << 20, "hop_samples": 1 << 19}),
        (SeparationSpec, {"hop_samples": 1025}),
        (SeparationSpec, {"hop_samples": 1}),
        (SeparationSpec, {"kernel_time_frames": 16}),
        (SeparationSpec, {"margin_harmonic": 0.5}),
        (EncoderSpec, {"stride_samples": 401}),
        (EncoderSpec, {"name": ""}),
        (GateSpec, {"open_db": -61.0}),
        (GateSpec, {"open_db": 1.0}),
        (VocabularySpec, {"size": 1}),
        (VocabularySpec, {"normalisation": "zscore"}),
        (OnsetSpec, {"low_hz": 12000.0}),
        (OnsetSpec, {"max_filter_bins": 2}),
        (OnsetSpec, {"average_s": 1e9}),
        (OnsetSpec, {"bands_per_octave": 10**9}),
        (GestureSpec, {"penalty": -1.0}),
        (GestureSpec, {"min_s": 0.5, "max_s": 0.9}),
        (PerceptionSpec, {"version": 2}),
        (PerceptionSpec, {"policy": "random"}),
        (PerceptionSpec, {"policy": "onset", "hop_samples": 2100}),
        (PerceptionSpec, {"hop_samples": 8401}),
        (PerceptionSpec, {"min_segment_samples": 399}),
        (PerceptionSpec, {"segment_samples": 300, "hop_samples": 300}),
    ],
)
def test_values_that_contradict_each_other_are_refused(part: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="perception spec"):
        part(**wrong)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"segment_samples": 399, "hop_samples": 399}, "segment_samples must be in [400, 480000] (16.667 to 20000 ms)"),
        ({"hop_samples": 0}, "hop_samples must be in [200, 8400] (8.3333 to 350 ms)"),
        ({"context_samples": -1}, "context_samples must be in [0, 480000] (0 to 20000 ms)"),
        ({"lookahead_samples": 24001}, "lookahead_samples must be in [0, 24000] (0 to 1000 ms)"),
        ({"min_segment_samples": 8401}, "min_segment_samples must be in [400, 8400] (16.667 to 350 ms)"),
        ({"sample_rate_hz": 96000, "segment_samples": 1310721}, "segment_samples must be in [400, 1310720] "),
    ],
)
def test_a_length_out_of_range_is_refused_with_the_range(wrong: dict[str, int], says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        PerceptionSpec(**wrong)  # type: ignore[arg-type]


@given(segment=st.integers(400, 20_000), stride=st.integers(5, 400))
def test_the_limits_themselves_are_accepted_and_nothing_beyond(segment: int, stride: int) -> None:
    encoder = EncoderSpec(stride_samples=stride)
    shortest, longest = hop_range(encoder, segment)
    lengths: dict[str, Any] = {"encoder": encoder, "segment_samples": segment, "min_segment_samples": 400}
    for hop in (shortest, longest):
        PerceptionSpec(**lengths, hop_samples=hop)
    for hop in (shortest - 1, longest + 1):
        with pytest.raises(InputError, match="hop_samples"):
            PerceptionSpec(**lengths, hop_samples=hop)


def test_a_hop_without_a_new_frame_is_refused() -> None:
    """The last frame of a segment is centred 200 samples before its end, so a shorter hop would hear nothing, for ever."""
    PerceptionSpec(hop_samples=200)
    with pytest.raises(InputError, match="no new frame"):
        PerceptionSpec(hop_samples=199)


LATER = {
    "weights": "m-a-p/MERT-v1-95M",
    "revision": "12af15f",
    "weights_digest": "0" * 64,
    "layer": 6,
    "normalise": True,
    "runtime": "openvino",
    "precision": "bf16",
}


def test_a_spec_from_before_a_field_joined_is_read_and_keeps_its_fingerprint() -> None:
    values = PerceptionSpec().to_dict()
    assert set(values["encoder"]) == {"name", "digest", "frame_samples", "stride_samples"}, "as partners of old have it"
    spec = PerceptionSpec.from_dict(values)
    assert spec.encoder.weights == spec.encoder.runtime == ""
    assert spec.fingerprint() == PerceptionSpec().fingerprint()


def test_a_spec_from_before_dips_were_heard_hears_none_and_keeps_its_fingerprint() -> None:
    values = PerceptionSpec().to_dict()
    del values["onsets"]["dip_db"]
    old = PerceptionSpec.from_dict(values)
    assert old.onsets.dip_db == 0
    assert old.to_dict() == values
    assert old.fingerprint() != PerceptionSpec().fingerprint()
    assert PerceptionSpec.from_dict(PerceptionSpec().to_dict()).onsets.dip_db > 0


@given(st.sets(st.sampled_from(sorted(LATER))))
def test_fields_that_joined_later_are_kept_and_count(names: set[str]) -> None:
    encoder = EncoderSpec(name="mert", **{name: LATER[name] for name in names})
    spec = dataclasses.replace(PerceptionSpec(), encoder=encoder)
    assert PerceptionSpec.from_dict(json.loads(spec.canonical_json())) == spec
    assert names <= set(spec.to_dict()["encoder"])
    for name in names:
        without = dataclasses.replace(spec, encoder=dataclasses.replace(encoder, **{name: type(LATER[name])()}))
        assert without.fingerprint() != spec.fingerprint()
        assert spec.differences(without) == [(f"encoder.{name}", LATER[name], type(LATER[name])())]


@pytest.mark.parametrize(
    "wrong", [{"layer": -1}, {"layer": 257}, {"layer": True}, {"normalise": 1}, {"weights": "a\nb"}, {"runtime": "x" * 257}]
)
def test_nonsense_in_a_later_field_is_refused(wrong: dict[str, Any]) -> None:
    values = PerceptionSpec().to_dict()
    values["encoder"] |= LATER | wrong
    with pytest.raises(InputError, match="perception spec"):
        PerceptionSpec.from_dict(values)
