"""The embedded encoder and the registry: pure, digested, the same on any number of threads."""

import dataclasses
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import scores
from musichal.errors import InputError
from musichal.hearing import encoders as registry
from musichal.hearing.encoders.spectral import SpectralEncoder, SpectralSettings
from musichal.hearing.percepts import Stems
from musichal.hearing.pitch import PitchAnalyser, PitchSettings
from musichal.hearing.separation import separate
from musichal.spec import EncoderSpec, PerceptionSpec

HERE = Path(__file__).parent
SPEC = PerceptionSpec()
LENGTH = SPEC.window_samples
ENCODER = SpectralEncoder(SPEC)
PITCH = PitchAnalyser(SPEC)


def encode(stems: Stems, encoder: SpectralEncoder = ENCODER) -> tuple[np.ndarray, ...]:
    return encoder.encode(stems, PITCH.analyse(stems.harmonic))


def noise(seed: int, level: float = 0.1) -> np.ndarray:
    return (level * np.random.default_rng(seed).standard_normal(LENGTH)).astype(np.float32)


def test_frames_and_types() -> None:
    harmonic, percussive = encode(Stems(noise(1), noise(2)))
    assert harmonic.shape == (26, 73)
    assert percussive.shape == (26, 80)
    assert harmonic.dtype == percussive.dtype == np.float32
    assert harmonic.flags.c_contiguous
    assert percussive.flags.c_contiguous


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), level=st.sampled_from([0.0, 1e-30, 1e-4, 1.0, 100.0]))
def test_pure_and_finite(seed: int, level: float) -> None:
    stems = Stems(noise(seed, level), noise(seed + 1, level))
    first, _, again = encode(stems), encode(Stems(noise(3), noise(4))), encode(stems)
    for a, b in zip(first, again, strict=True):
        assert np.isfinite(a).all()
        np.testing.assert_array_equal(a, b)
    for a, b in zip(first, encode(stems, SpectralEncoder(SPEC)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_silence_gives_zeros() -> None:
    silent = np.zeros(LENGTH, np.float32)
    for features in encode(Stems(silent, silent)):
        assert not features.any()


def test_the_harmonic_view_ignores_level_and_the_percussive_one_does_not() -> None:
    stems, quieter = Stems(noise(1), noise(2)), Stems(0.1 * noise(1), 0.1 * noise(2))
    loud, quiet = encode(stems), encode(quieter)
    np.testing.assert_allclose(loud[0], quiet[0], atol=1e-4)
    assert (loud[1][:, :40] > quiet[1][:, :40]).all()


def test_the_percussive_view_sees_an_attack_once() -> None:
    stem = np.zeros(LENGTH, np.float32)
    start = SPEC.context_samples + 320 * 10 + 200
    stem[start:] = 0.1 * np.random.default_rng(5).standard_normal(LENGTH - start)
    bands, rise = np.split(encode(Stems(np.zeros(LENGTH, np.float32), stem))[1], 2, axis=1)
    assert abs(int(rise.sum(axis=1).argmax()) - 11) <= 2
    assert rise[18:].sum(axis=1).max() < 0.5 * rise.sum(axis=1).max()
    assert bands[15:].sum(axis=1).min() > 5 * bands[:8].sum(axis=1).max()


def test_drums_differ() -> None:
    def struck(kind: scores.DrumKind) -> np.ndarray:
        samples = scores.render_notes((), (scores.DrumHit(0.4, kind, 100),))
        window = np.zeros(LENGTH, np.float32)
        window[: len(samples[:LENGTH])] = samples[:LENGTH]
        percussive = separate(window, SPEC.separation).percussive
        return encode(Stems(np.zeros(LENGTH, np.float32), percussive))[1]

    hat, snare, kick = (struck(kind) for kind in ("hat", "snare", "kick"))
    top = {name: int(x[:, 40:].max(axis=0).argmax()) for name, x in (("hat", hat), ("kick", kick))}
    assert top["kick"] < 8
    assert top["hat"] > 25
    assert np.abs(snare - kick).max() > 0.5


def test_real_music_through_separation() -> None:
    samples, rate = soundfile.read(HERE / "audio/rock140_guitar.ogg", dtype="float32", frames=5 * 48000)
    mono = samples if samples.ndim == 1 else samples.mean(axis=1)
    step = max(1, round(rate / SPEC.sample_rate_hz))
    window = np.ascontiguousarray(mono[rate : rate + LENGTH * step : step][:LENGTH])
    harmonic, percussive = encode(separate(window, SPEC.separation))
    assert len(np.unique(harmonic, axis=0)) > 3
    assert len(np.unique(percussive, axis=0)) == 26


def test_the_same_bits_on_any_number_of_threads() -> None:
    threads = "4"  # conftest has one
    code = (
        "import hashlib, numpy as np, test_spectral as t\n"
        "x = t.encode(t.Stems(t.noise(7), t.noise(8)))\n"
        "print(hashlib.sha256(b''.join(a.tobytes() for a in x)).hexdigest())"
    )
    env = os.environ | {"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    env["PYTHONPATH"] = os.pathsep.join([str(HERE), env.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    here = hashlib.sha256(b"".join(a.tobytes() for a in encode(Stems(noise(7), noise(8))))).hexdigest()
    assert done.stdout.strip() == here


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(SpectralSettings) if f.name != "pitch"])
def test_every_constant_changes_the_digest(field: str) -> None:
    plain = SpectralSettings()
    assert dataclasses.replace(plain, **{field: getattr(plain, field) + 1}).digest() != plain.digest()
    assert SpectralSettings().digest() == plain.digest() == ENCODER.digest
    assert len(plain.digest()) == 64


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(PitchSettings)])
def test_every_constant_of_the_pitch_view_changes_the_digest(field: str) -> None:
    plain = PitchSettings()
    value = getattr(plain, field)
    changed = value[:-1] if isinstance(value, tuple) else value + 1
    assert SpectralSettings(pitch=dataclasses.replace(plain, **{field: changed})).digest() != ENCODER.digest


def test_registry() -> None:
    assert "spectral" in registry.encoder_names()
    spec = registry.pinned(SPEC)
    encoder = registry.create_encoder(spec)
    assert (encoder.name, encoder.digest, encoder.sample_rate_hz) == ("spectral", spec.encoder.digest, 24000)
    assert spec.vocabulary.normalisation == encoder.normalisation == "scale"
    assert registry.pinned(spec) == spec
    assert "no weights" in encoder.licence


def test_an_unknown_encoder_is_refused_with_the_known_names() -> None:
    spec = dataclasses.replace(SPEC, encoder=EncoderSpec(name="mret"))
    with pytest.raises(InputError, match=r"unknown encoder 'mret'; known: .*spectral"):
        registry.create_encoder(spec)


def test_another_digest_is_refused_and_both_are_shown() -> None:
    spec = dataclasses.replace(SPEC, encoder=EncoderSpec(digest="0" * 64))
    with pytest.raises(InputError, match=f"{'0' * 64}.*{ENCODER.digest}"):
        registry.create_encoder(spec)
