"""The one law: what is heard depends on the samples alone, and live hearing is training heard in real time."""

import dataclasses
from collections.abc import Sequence
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from musichal.arrays import Float32
from musichal.audio.recording import Recording, ingest, read_recording
from musichal.errors import InputError
from musichal.hearing.encoders import create_encoder
from musichal.hearing.front_end import HighPass
from musichal.hearing.listener import FeatureExtractor, Listener
from musichal.hearing.percepts import SILENCE, ListenerResult, Percept, stream_frame_count
from musichal.hearing.separation import separate
from musichal.memory.partner_file import PartnerModel, load_partner, save_partner
from musichal.spec import GestureSpec, PerceptionSpec

SPEC = PerceptionSpec()
SPECS = {
    "grid": SPEC,
    "overlap": dataclasses.replace(SPEC, hop_samples=2100),
    "onset": dataclasses.replace(SPEC, policy="onset"),
}


def bits(value: Any) -> Any:
    """Return a value in which equality means equality of every bit."""
    if isinstance(value, np.ndarray):
        return (str(value.dtype), value.shape, value.tobytes())
    if dataclasses.is_dataclass(value):
        return tuple((f.name, bits(getattr(value, f.name))) for f in dataclasses.fields(value))
    if isinstance(value, tuple | list):
        return tuple(bits(v) for v in value)
    return repr(value)


@pytest.fixture(scope="module")
def recording(short_mix: Path) -> Recording:
    return read_recording(short_mix)


@pytest.fixture(scope="module")
def model(trained: PartnerModel) -> PartnerModel:
    return trained


@pytest.fixture(scope="module")
def clips(rock_mix: Path, rock_guitar: Path) -> dict[int, Float32]:
    """Return 2 s of stereo per sample rate: the mix on one side, the guitar on the other."""
    sides = [soundfile.read(p, dtype="float32", start=500_000, frames=2 * 44_100)[0] for p in (rock_mix, rock_guitar)]
    stereo = np.stack(sides, axis=1)
    return {rate: np.asarray(soxr.resample(stereo, 44_100, rate), dtype=np.float32) for rate in (24_000, 44_100, 48_000)}


@pytest.fixture(scope="module")
def wholes() -> dict[tuple[int, bool, str], ListenerResult]:
    """What was heard in one block each, so that it is heard once."""
    return {}


def listen(
    model: PartnerModel, samples: Float32, sizes: Sequence[int], *, rate: int, spec: PerceptionSpec = SPEC
) -> ListenerResult:
    """Hear samples in blocks of these sizes, again from the first when all are used; no sizes means all at once."""
    spec = dataclasses.replace(spec, encoder=model.spec.encoder)
    listener = Listener(spec, create_encoder(spec), model.vocabularies, source_rate_hz=rate)
    results: list[ListenerResult] = []
    done, turn = 0, cycle(sizes or [max(1, len(samples))])
    while done < len(samples):
        size = next(turn)
        results.append(listener.push(samples[done : done + size]))
        done += size
    result = ListenerResult.joined([*results, listener.flush()])
    if rate == spec.sample_rate_hz:
        assert listener.samples_heard == len(samples)
    return result


# The law


@settings(deadline=None, max_examples=12)
@given(
    first=st.lists(st.integers(1, 48_000), max_size=12),
    small=st.lists(st.integers(1, 40), max_size=12),
    last=st.integers(300, 48_000),
    policy=st.sampled_from(sorted(SPECS)),
    rate=st.sampled_from([24_000, 44_100, 48_000]),
    stereo=st.booleans(),
)
def test_any_blocks_give_the_same_percepts(
    model: PartnerModel,
    wholes: dict[tuple[int, bool, str], ListenerResult],
    clips: dict[int, Float32],
    first: list[int],
    small: list[int],
    last: int,
    policy: str,
    rate: int,
    stereo: bool,
) -> None:
    samples = clips[rate] if stereo else clips[rate][:, 0]
    whole = wholes.get((rate, stereo, policy)) or listen(model, samples, [], rate=rate, spec=SPECS[policy])
    wholes[rate, stereo, policy] = whole
    cut = listen(model, samples, [*first, *small, last], rate=rate, spec=SPECS[policy])
    assert len(whole.percepts) >= 5
    assert bits(cut) == bits(whole)


@pytest.mark.parametrize(("rate", "policy"), [(24_000, "onset"), (24_000, "overlap"), (44_100, "grid")])
def test_single_samples_give_the_same_percepts(model: PartnerModel, clips: dict[int, Float32], rate: int, policy: str) -> None:
    samples = clips[rate][: rate // 2, 0]
    whole = listen(model, samples, [], rate=rate, spec=SPECS[policy])
    assert len(whole.percepts) >= 2
    assert bits(listen(model, samples, [1], rate=rate, spec=SPECS[policy])) == bits(whole)


def test_live_tokens_are_the_trained_ones(model: PartnerModel, recording: Recording) -> None:
    """100 %, not within 1 %: tokens, times, levels and onsets of the whole recording, from a sound card's blocks."""
    live = listen(model, recording.samples, [1024], rate=recording.sample_rate_hz)
    stored = model.recordings[0]
    assert bits(np.concatenate([p.tokens for p in live.percepts], axis=1)) == bits(stored.tokens)
    assert bits(np.concatenate([p.heard.frame_samples for p in live.percepts])) == bits(stored.frame_samples)
    assert bits(np.concatenate([p.heard.level_db for p in live.percepts])) == bits(stored.level_db)
    assert [o for p in live.percepts for o in p.heard.onset_samples] == stored.onset_samples.tolist()
    gestures = [g for p in live.percepts for g in p.gestures] + list(live.gestures)
    assert [g.tokens for g in gestures] == [tuple(t) for t in model.memory.states["tokens"].tolist()]
    assert [g.start_s for g in gestures] == model.memory.states["start_s"].tolist()
    assert np.unique(stored.tokens[stored.tokens != SILENCE]).size == 64


def test_a_saved_partner_hears_as_the_trained_one(model: PartnerModel, clips: dict[int, Float32], tmp_path: Path) -> None:
    save_partner(tmp_path / "a.hal", model)
    loaded = load_partner(tmp_path / "a.hal")
    samples = clips[44_100]
    assert bits(listen(loaded, samples, [4096], rate=44_100)) == bits(listen(model, samples, [], rate=44_100))


def test_two_listeners_do_not_disturb_each_other(model: PartnerModel, clips: dict[int, Float32]) -> None:
    one, two = clips[44_100][:, 0], clips[44_100][::-1, 1].copy()
    alone = listen(model, one, [5000], rate=44_100)
    listeners = [Listener(model.spec, create_encoder(model.spec), model.vocabularies, source_rate_hz=44_100) for _ in range(2)]
    percepts: list[Percept] = []
    for first in range(0, len(one), 5000):
        percepts += listeners[0].push(one[first : first + 5000]).percepts
        listeners[1].push(two[first : first + 5000])
    assert bits((*percepts, *listeners[0].flush().percepts)) == bits(alone.percepts)


# Counts and times


@given(n=st.integers(0, 24_000), policy=st.sampled_from(["grid", "overlap"]))
def test_the_frames_are_as_many_as_the_closed_form_says(
    model: PartnerModel, clips: dict[int, Float32], n: int, policy: str
) -> None:
    out = listen(model, clips[24_000][:n], [3000], rate=24_000, spec=SPECS[policy])
    assert sum(p.tokens.shape[1] for p in out.percepts) == stream_frame_count(n, SPECS[policy])


@pytest.mark.parametrize("policy", sorted(SPECS))
def test_every_moment_is_heard_once_and_in_order(model: PartnerModel, clips: dict[int, Float32], policy: str) -> None:
    out = listen(model, clips[44_100], [777], rate=44_100, spec=SPECS[policy])
    times = np.concatenate([p.heard.frame_samples for p in out.percepts])
    assert np.diff(times).min() > 0
    assert np.diff(times).max() <= 200 + 319 + 320
    assert [p.heard.index for p in out.percepts] == list(range(len(out.percepts)))
    assert [p.heard.available_at for p in out.percepts] == sorted(p.heard.available_at for p in out.percepts)
    for percept in out.percepts:
        n = percept.tokens.shape[1]
        heard = percept.heard
        assert percept.tokens.shape == heard.audible.shape == heard.source_level_db.shape == (2, n)
        assert [f.shape[0] for f in heard.features] == [n, n]
        assert heard.chroma.shape == (n, 12)
        assert heard.salience.shape == (n, 61)
        assert heard.level_db.shape == heard.frame_samples.shape == (n,)
    gestures = [g for p in out.percepts for g in p.gestures] + list(out.gestures)
    for a, b in pairwise(gestures):
        assert a.start_s + a.duration_s == pytest.approx(b.start_s, abs=1e-9)
    assert gestures[0].start_s == 0
    assert gestures[-1].start_s + gestures[-1].duration_s == pytest.approx(len(clips[44_100]) / 44_100, abs=1e-3)


@settings(deadline=None, max_examples=8)
@given(size=st.integers(300, 9000), policy=st.sampled_from(sorted(SPECS)))
def test_a_percept_comes_exactly_when_it_is_complete(
    model: PartnerModel, clips: dict[int, Float32], size: int, policy: str
) -> None:
    """Never before `available_at` samples are in, and with the very block that brings them: at 24 kHz nothing is held back."""
    spec = dataclasses.replace(SPECS[policy], encoder=model.spec.encoder)
    listener = Listener(spec, create_encoder(spec), model.vocabularies, source_rate_hz=24_000)
    samples = clips[24_000]
    for first in range(0, len(samples), size):
        for percept in listener.push(samples[first : first + size]).percepts:
            assert first < percept.heard.available_at <= min(first + size, len(samples))
            assert percept.heard.start_sample + percept.heard.length_samples <= percept.heard.available_at
            assert all(o <= percept.heard.available_at for o in percept.heard.onset_samples)
            assert all(n.onset_s * 24_000 <= percept.heard.available_at for n in percept.heard.notes)
        assert listener.samples_heard == min(first + size, len(samples))
    assert all(p.heard.available_at <= len(samples) for p in listener.flush().percepts)


@pytest.mark.parametrize("policy", sorted(SPECS))
def test_the_future_never_changes_what_was_heard(model: PartnerModel, clips: dict[int, Float32], policy: str) -> None:
    samples = clips[24_000][:, 0]
    cut = 30_001
    other = samples.copy()
    other[cut:] = 0.3 * np.random.default_rng(0).standard_normal(len(other) - cut)
    known = [
        [p for p in listen(model, x, [], rate=24_000, spec=SPECS[policy]).percepts if p.heard.available_at <= cut]
        for x in (samples, other)
    ]
    assert len(known[0]) >= 3
    assert bits(known[0]) == bits(known[1])


# Silence, and what cannot be heard


def test_quiet_frames_are_silence_counted_and_never_quantised(model: PartnerModel, clips: dict[int, Float32]) -> None:
    loud = clips[24_000][:24_000, 0]
    samples = np.concatenate([np.zeros(24_000), loud, 1e-4 * loud]).astype(np.float32)
    out = listen(model, samples, [5000], rate=24_000)
    tokens = np.concatenate([p.tokens for p in out.percepts], axis=1)
    audible = np.concatenate([p.heard.audible for p in out.percepts], axis=1)
    times = np.concatenate([p.heard.frame_samples for p in out.percepts])
    assert tokens.shape[1] == stream_frame_count(len(samples), SPEC)
    np.testing.assert_array_equal(tokens == SILENCE, ~audible)
    assert (tokens[:, (times < 23_000) | (times > 50_000)] == SILENCE).all()
    assert (tokens[0, (times > 26_000) & (times < 46_000)] != SILENCE).mean() > 0.9
    gestures = [g for p in out.percepts for g in p.gestures] + list(out.gestures)
    assert gestures[0].tokens == gestures[-1].tokens == (SILENCE, SILENCE)


def test_the_gate_has_hysteresis_on_the_way(model: PartnerModel) -> None:
    """A tone at -57 dBFS lies between the thresholds: audible after a louder one, not after silence."""
    t = np.arange(24_000) / 24_000
    tone = np.sqrt(2) * np.sin(2 * np.pi * 440 * t)
    quiet, loud = 10 ** (-57 / 20) * tone, 10 ** (-40 / 20) * tone
    shares = []
    for before in (loud, np.zeros(24_000)):
        out = listen(model, np.concatenate([before, quiet]).astype(np.float32), [], rate=24_000)
        audible = np.concatenate([p.heard.audible[0] for p in out.percepts])
        times = np.concatenate([p.heard.frame_samples for p in out.percepts])
        shares.append(float(audible[times > 26_000].mean()))
    assert shares == [1.0, 0.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_is_refused_and_does_no_harm(model: PartnerModel, clips: dict[int, Float32], bad: float) -> None:
    samples = clips[24_000]
    listener = Listener(model.spec, create_encoder(model.spec), model.vocabularies, source_rate_hz=24_000)
    percepts = listener.push(samples[:20_000]).percepts
    broken = samples[:500].copy()
    broken[77, 1] = bad
    with pytest.raises(InputError, match="NaN"):
        listener.push(broken)
    percepts += listener.push(samples[20_000:]).percepts
    assert bits((*percepts, *listener.flush().percepts)) == bits(listen(model, samples, [], rate=24_000).percepts)


def test_a_block_of_nothing_changes_nothing(model: PartnerModel, clips: dict[int, Float32]) -> None:
    listener = Listener(model.spec, create_encoder(model.spec), model.vocabularies, source_rate_hz=44_100)
    samples = clips[44_100]
    nothing = samples[:0]
    percepts = listener.push(nothing).percepts
    for first in range(0, len(samples), 10_000):
        percepts += listener.push(samples[first : first + 10_000]).percepts
        assert listener.push(nothing) == ListenerResult()
    rest = listener.flush()
    whole = listen(model, samples, [], rate=44_100)
    assert bits((*percepts, *rest.percepts)) == bits(whole.percepts)
    assert bits(rest.gestures) == bits(whole.gestures)


@pytest.mark.parametrize("rate", [24_000, 44_100])
def test_an_empty_stream_ends(model: PartnerModel, rate: int) -> None:
    listener = Listener(model.spec, create_encoder(model.spec), model.vocabularies, source_rate_hz=rate)
    rest = listener.flush()
    assert (rest.percepts, rest.gestures, rest.notes, listener.samples_heard) == ((), (), (), 0)


@pytest.mark.parametrize(("n", "frames"), [(1, 0), (399, 0), (400, 1), (720, 2), (5000, 15), (8399, 25)])
def test_a_stream_shorter_than_a_segment_is_heard_as_far_as_frames_fit(
    model: PartnerModel, clips: dict[int, Float32], n: int, frames: int
) -> None:
    out = listen(model, clips[24_000][:n], [], rate=24_000)
    assert sum(p.tokens.shape[1] for p in out.percepts) == frames
    assert len(out.gestures) >= (frames > 0)
    if out.gestures:
        gestures = [g for p in out.percepts for g in p.gestures] + list(out.gestures)
        assert sum(g.duration_s for g in gestures) == pytest.approx(n / 24_000)


# The parts of the front end


def test_the_encoder_is_given_stems_and_every_frame_is_kept(model: PartnerModel, clips: dict[int, Float32]) -> None:
    """What comes out of the ear is, bit for bit, the encoder's output for the separated window: no mean, no second path."""
    samples = ingest(clips[24_000][: 3 * 8400 + model.spec.lookahead_samples])
    extractor = FeatureExtractor(model.spec, create_encoder(model.spec))
    heard = list(extractor.stream(samples, source_rate_hz=24_000))[2]
    from musichal.hearing.pitch import PitchAnalyser

    filtered = HighPass(cutoff_hz=model.spec.highpass_hz, sample_rate_hz=24_000).push(samples)
    stems = separate(filtered[8400:], model.spec.separation)
    pitch = PitchAnalyser(model.spec).analyse(stems.harmonic)
    expected = create_encoder(model.spec).encode(stems, pitch)
    assert bits(heard.features) == bits(tuple(np.ascontiguousarray(f) for f in expected))
    assert heard.features[0].shape[0] == 26
    assert bits(heard.chroma) == bits(np.ascontiguousarray(pitch.chroma))


def test_mono_is_the_mean_of_the_channels(model: PartnerModel, clips: dict[int, Float32]) -> None:
    stereo = clips[24_000]
    mono = ingest(stereo)
    assert bits(listen(model, stereo, [3000], rate=24_000)) == bits(listen(model, mono, [], rate=24_000))
    doubled = np.stack([mono, mono], axis=1)
    assert bits(listen(model, doubled, [], rate=24_000)) == bits(listen(model, mono, [], rate=24_000))


def test_the_input_may_be_reused_by_the_caller(model: PartnerModel, clips: dict[int, Float32]) -> None:
    """A sound card's callback gets the same buffer again and again."""
    samples = clips[24_000][:, 0].copy()
    listener = Listener(model.spec, create_encoder(model.spec), model.vocabularies, source_rate_hz=24_000)
    buffer, percepts = np.zeros(1000, dtype=np.float32), []
    for first in range(0, len(samples), 1000):
        buffer[:] = samples[first : first + 1000]
        percepts += listener.push(buffer).percepts
        buffer[:] = np.float32(0.9)
    assert bits((*percepts, *listener.flush().percepts)) == bits(listen(model, samples, [], rate=24_000).percepts)


def test_an_encoder_for_another_rate_is_refused(model: PartnerModel) -> None:
    other = dataclasses.replace(model.spec, sample_rate_hz=16_000)
    with pytest.raises(InputError, match="24000 Hz"):
        FeatureExtractor(other, create_encoder(model.spec))


def test_a_vocabulary_for_other_features_is_refused(model: PartnerModel, clips: dict[int, Float32]) -> None:
    swapped = (model.vocabularies[1], model.vocabularies[0])
    listener = Listener(model.spec, create_encoder(model.spec), swapped, source_rate_hz=24_000)
    with pytest.raises(InputError, match="the vocabulary was learned from"):
        listener.push(clips[24_000])


def test_smoothing_is_part_of_the_spec(model: PartnerModel, clips: dict[int, Float32]) -> None:
    counts = []
    for penalty in (0.0, 20.0, 500.0):
        spec = dataclasses.replace(SPEC, gestures=GestureSpec(penalty=penalty))
        out = listen(model, clips[44_100], [], rate=44_100, spec=spec)
        counts.append(sum(len(p.gestures) for p in out.percepts) + len(out.gestures))
    assert counts[0] > counts[1] >= counts[2]


def test_the_padding_of_a_last_segment_does_not_count_as_quiet(model: PartnerModel) -> None:
    wave = np.where(np.arange(5000) // 30 % 2, 0.1, -0.1).astype(np.float32)
    (percept,) = listen(model, wave, [], rate=24_000).percepts
    # Before the stream there is silence, and its first value is taken for an offset that fades within some frames.
    np.testing.assert_allclose(percept.heard.level_db[4:], -20, atol=0.05)
