"""Onset detection: causal, cut-independent, and right on real and rendered music."""

from itertools import pairwise
from types import ModuleType

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given
from hypothesis import strategies as st

from musichal.arrays import Float32
from musichal.errors import InputError
from musichal.hearing.onsets import OnsetDetector, log_filterbank
from musichal.hearing.percepts import Onset
from musichal.spec import OnsetSpec

RATE = 24000


def onsets(samples: Float32, cuts: list[int] | None = None, spec: OnsetSpec | None = None) -> list[Onset]:
    detector = OnsetDetector(spec or OnsetSpec(), sample_rate_hz=RATE)
    bounds = [0, *sorted(cuts or []), len(samples)]
    return [o for a, b in pairwise(bounds) for o in detector.push(samples[a:b]).onsets]


def seconds(found: list[Onset]) -> np.ndarray:
    return np.array([o.sample / RATE for o in found])


def clip(path: object, length_s: float = 30.0) -> Float32:
    samples, rate = soundfile.read(str(path), dtype="float32", frames=int(44100 * length_s))
    return np.asarray(soxr.resample(samples, rate, RATE), dtype=np.float32)


def tone(hz: float = 440.0, length_s: float = 4.0, level: float = 0.5) -> Float32:
    return (level * np.sin(2 * np.pi * hz * np.arange(int(RATE * length_s)) / RATE)).astype(np.float32)


@pytest.mark.parametrize("hz", [55, 110.3, 440, 1000, 4567.8])
@pytest.mark.parametrize("level", [0.9, 0.1, 0.01])
def test_a_steady_sine_has_its_beginning_and_nothing_else(hz: float, level: float) -> None:
    found = seconds(onsets(tone(hz, level=level)))
    assert len(found) <= 1
    assert (found < 0.05).all()


@pytest.mark.parametrize("depth_semitones", [0.25, 0.5, 1.0])
def test_vibrato_is_not_an_attack(depth_semitones: float) -> None:
    t = np.arange(4 * RATE) / RATE
    rate_hz, hz = 6.0, 440.0
    deviation_hz = hz * (2 ** (depth_semitones / 12) - 1)
    phase = 2 * np.pi * hz * t + deviation_hz / rate_hz * np.sin(2 * np.pi * rate_hz * t)
    harmonics = sum(0.3 / k * np.sin(k * phase) for k in range(1, 6))
    assert len(onsets(harmonics.astype(np.float32))) <= 1


def test_tremolo_and_a_swell_are_not_attacks() -> None:
    t = np.arange(4 * RATE) / RATE
    assert len(onsets(((0.3 + 0.15 * np.sin(2 * np.pi * 5 * t)) * np.sin(2 * np.pi * 440 * t)).astype(np.float32))) <= 1
    assert len(onsets((tone() * np.linspace(0, 1, 4 * RATE)).astype(np.float32))) <= 2


@pytest.mark.parametrize(("depth_db", "found"), [(14.0, 14), (4.0, 1)])
def test_a_tongued_tone_has_an_onset_at_each_return_from_a_deep_dip(depth_db: float, found: int) -> None:
    t = np.arange(4 * RATE) / RATE
    # Each 0.3 s, 60 ms down and 60 ms up again, as smooth as breath is.
    phase = np.clip(((t % 0.3) - 0.15) / 0.12 + 0.5, 0, 1)
    gain_db = -depth_db * np.sin(np.pi * phase) ** 2
    samples = (0.3 * 10 ** (gain_db / 20) * np.sin(2 * np.pi * 880 * t)).astype(np.float32)
    assert abs(len(onsets(samples)) - found) <= 1
    assert len(onsets(samples, spec=OnsetSpec(dip_db=0))) <= 1


def test_a_slow_attack_is_one_onset_not_several_while_it_lasts() -> None:
    """Four rushes of noise, each rising for 100 ms; only where the flux is at its height may an onset be."""
    rng = np.random.default_rng(0)
    samples = np.zeros(3 * RATE)
    rise = np.minimum(1, np.arange(int(0.6 * RATE)) / (0.1 * RATE)) ** 2
    for start in range(6000, 6000 + 4 * 17_000, 17_000):
        part = slice(start, min(start + len(rise), len(samples)))
        samples[part] += (0.3 * rng.standard_normal(len(rise)) * rise)[: part.stop - part.start]
    assert 4 <= len(onsets(samples.astype(np.float32))) <= 6


@pytest.mark.parametrize("level", [0.02, 0.1, 0.3])
def test_noise_has_few_onsets(level: float) -> None:
    noise = (level * np.random.default_rng(0).standard_normal(10 * RATE)).astype(np.float32)
    assert len(onsets(noise)) < 20


@pytest.mark.parametrize("samples", [np.zeros(5 * RATE), np.full(5 * RATE, 0.3), 1e-5 * np.sin(np.arange(5 * RATE))])
def test_silence_dc_and_what_cannot_be_heard_have_no_attacks(samples: np.ndarray) -> None:
    assert len(onsets(samples.astype(np.float32))) <= 1


@given(st.lists(st.integers(1200, 3 * RATE), min_size=1, max_size=12), st.sampled_from([0.05, 0.3, 0.9]))
def test_clicks_are_found_within_ten_milliseconds(places: list[int], level: float) -> None:
    kept = [p for i, p in enumerate(sorted(places)) if i == 0 or p - sorted(places)[i - 1] > 0.08 * RATE]
    kept = [p for i, p in enumerate(kept) if i == 0 or p - kept[i - 1] > 0.08 * RATE]
    samples = np.zeros(4 * RATE, dtype=np.float32)
    burst = (level * np.random.default_rng(1).standard_normal(240) * np.exp(-np.arange(240) / 60)).astype(np.float32)
    for place in kept:
        samples[place : place + 240] += burst
    found = seconds(onsets(samples))
    assert len(found) >= len(kept)
    for place in kept:
        assert np.abs(found - place / RATE).min() <= 0.010


@given(cuts=st.lists(st.integers(0, 5 * RATE), max_size=40))
def test_the_blocks_change_nothing(rock: Float32, cuts: list[int]) -> None:
    part = rock[: 5 * RATE]
    assert onsets(part, cuts) == onsets(part)


def test_single_samples_change_nothing(rock: Float32) -> None:
    part = rock[: RATE // 2]
    assert onsets(part, list(range(len(part)))) == onsets(part)


@pytest.fixture(scope="module")
def rock(audio_dir: object) -> Float32:
    return clip(f"{audio_dir}/rock140_mix.ogg")


@given(n=st.integers(0, 5 * RATE), seed=st.integers(0, 5))
def test_the_past_is_never_changed_by_the_future(rock: Float32, n: int, seed: int) -> None:
    other = rock[: 5 * RATE].copy()
    other[n:] = 0.5 * np.random.default_rng(seed).standard_normal(len(other) - n)
    known = [o for o in onsets(rock[: 5 * RATE]) if o.decided_at <= n]
    assert [o for o in onsets(other) if o.decided_at <= n] == known
    assert onsets(rock[:n]) == known


@given(cuts=st.lists(st.integers(0, 5 * RATE), max_size=40, unique=True))
def test_onsets_come_at_once_in_order_and_never_before_what_was_said_to_be_known(rock: Float32, cuts: list[int]) -> None:
    detector, known, last, spec = OnsetDetector(OnsetSpec(), sample_rate_hz=RATE), 0, -1, OnsetSpec()
    bounds = [0, *sorted(cuts), 5 * RATE]
    for a, b in pairwise(bounds):
        block = detector.push(rock[a:b])
        for onset in block.onsets:
            assert a < onset.decided_at <= b
            assert onset.decided_at - onset.sample == spec.report_lag_samples or onset.sample == 0
            assert onset.sample >= known
            assert onset.sample - last >= spec.min_ioi_s * RATE or last < 0
            last = onset.sample
        assert block.decided_until >= known
        known = block.decided_until


@pytest.mark.parametrize(
    ("name", "least"), [("rock140_mix", 0.87), ("rock140_guitar", 0.77), ("ballad95_mix", 0.90), ("ballad95_guitar", 0.90)]
)
@pytest.mark.slow
def test_agrees_with_librosa_on_real_music(audio_dir: object, name: str, least: float) -> None:
    librosa, mir_eval = pytest.importorskip("librosa"), pytest.importorskip("mir_eval")
    samples = clip(f"{audio_dir}/{name}.ogg")
    peer = librosa.onset.onset_detect(y=samples, sr=RATE, hop_length=160, units="time")
    f_measure, _, _ = mir_eval.onset.f_measure(peer, seconds(onsets(samples)), window=0.05)
    assert f_measure >= least


def test_drums_are_found() -> None:
    pieces = rendered().drum_loops("test")
    scores = [f_measure(piece.samples, [hit.onset_s for hit in piece.drum_hits]) for piece in pieces]
    assert min(f for f, _, _ in scores) >= 0.97


@pytest.mark.slow
def test_tunes_are_found() -> None:
    """Measured on the test split, 50 ms: mean F 0.96 over ten instruments."""
    pieces = rendered().single_lines("test", per_instrument=1)
    scores = [f_measure(piece.samples, [note.onset_s for note in piece.notes]) for piece in pieces]
    assert np.mean([f for f, _, _ in scores]) >= 0.92


@pytest.mark.slow
def test_chords_without_attacks_are_partly_found() -> None:
    """Measured: organ and strings hide soft onsets, mean F 0.63, but what is found is right."""
    pieces = rendered().chorales("test", limit=4)
    scores = [f_measure(piece.samples, [note.onset_s for note in piece.notes]) for piece in pieces]
    assert np.mean([f for f, _, _ in scores]) >= 0.55
    assert np.mean([precision for _, precision, _ in scores]) >= 0.9


def rendered() -> ModuleType:
    for module in ("music21", "pretty_midi", "mir_eval"):
        pytest.importorskip(module)
    from benchmarks import scores

    return scores


def f_measure(samples: Float32, onsets_s: list[float]) -> tuple[float, float, float]:
    """Return F measure, precision and recall of the onsets that are found, within 50 ms."""
    import mir_eval

    found: tuple[float, float, float] = mir_eval.onset.f_measure(np.unique(onsets_s), seconds(onsets(samples)), window=0.05)
    return found


def test_the_filterbank_covers_its_range_without_holes() -> None:
    bank = log_filterbank(OnsetSpec(), sample_rate_hz=RATE).toarray()
    np.testing.assert_allclose(bank.sum(axis=1), 1, atol=1e-6)
    covered = np.flatnonzero(bank.sum(axis=0))
    assert np.array_equal(covered, np.arange(covered[0], covered[-1] + 1))
    assert covered[0] * RATE / 1024 < 60
    assert covered[-1] * RATE / 1024 > 10_000
    assert (np.diff(bank.argmax(axis=1)) > 0).all()


def test_bands_that_no_bin_falls_into_are_refused() -> None:
    with pytest.raises(InputError, match="onset bands"):
        OnsetDetector(OnsetSpec(low_hz=1, high_hz=20), sample_rate_hz=RATE)
    with pytest.raises(InputError, match="onset bands"):
        OnsetDetector(OnsetSpec(low_hz=9000), sample_rate_hz=8000)
