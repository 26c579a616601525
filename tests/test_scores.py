"""Rendered scores: the truth is where the sound is, nothing is shared between train and test, nothing is random."""

import dataclasses
import itertools
import sys

import numpy as np
import pytest

from benchmarks import scores
from musichal.errors import MissingExtraError

RATE = scores.SAMPLE_RATE_HZ


def magnitude_at(samples: np.ndarray, hz: float) -> float:
    window = np.hanning(len(samples))
    time_s = np.arange(len(samples)) / RATE
    return float(np.abs(np.sum(samples * window * np.exp(-2j * np.pi * hz * time_s))))


def test_rendering_is_deterministic() -> None:
    first, again = (scores.single_lines("test", instruments=scores.INSTRUMENTS[3:4], per_instrument=1)[0] for _ in range(2))
    assert first.notes == again.notes
    np.testing.assert_array_equal(first.samples, again.samples)
    assert first.samples.dtype == np.float32
    assert first.samples.ndim == 1


@pytest.mark.parametrize("instrument", scores.INSTRUMENTS + scores.OTHER_INSTRUMENTS, ids=lambda i: i.name)
def test_notes_sound_at_their_pitch_and_time(instrument: scores.Instrument) -> None:
    pitch = 69 + 12 * instrument.octaves
    notes = (scores.ScoreNote(0.5, 0.5, pitch, 90, instrument.program),)
    samples = scores.render_notes(notes)
    assert np.abs(samples[: int(0.5 * RATE)]).max() == 0.0
    assert np.abs(samples[int(0.5 * RATE) : int(0.6 * RATE)]).max() > 0.02
    sounding = samples[int(0.55 * RATE) : int(0.95 * RATE)]

    def partials(midi: float) -> float:
        hz = 440 * 2 ** ((midi - 69) / 12)
        return sum(magnitude_at(sounding, k * hz) for k in (1, 2, 3))

    assert max(range(-3, 4), key=lambda semitones: partials(pitch + semitones)) == 0


@pytest.mark.parametrize("pieces", [scores._TUNES, scores._CHORALES, scores._ENSEMBLES, scores._PATTERNS])
def test_splits_share_no_piece(pieces: dict) -> None:
    def names(split: str) -> set:
        return {piece[:2] if isinstance(piece, tuple) else piece for piece in pieces[split]}

    assert len(names("train")) == len(pieces["train"])
    assert not names("train") & names("test")


def test_lines_are_lines_in_all_keys() -> None:
    lines = scores.single_lines("test", per_instrument=1, length_s=6.0)
    assert {n.pitch % 12 for r in lines for n in r.notes} == set(range(12))
    for line in lines:
        for note, following in itertools.pairwise(line.notes):
            assert note.onset_s + note.duration_s <= following.onset_s + 1e-9


def test_drums_over_every_second_piece() -> None:
    pieces = scores.chorales("train", limit=2, drums=True, length_s=4.0)
    assert [bool(piece.drum_hits) for piece in pieces] == [False, True]
    plain = scores.chorales("train", limit=2, length_s=4.0)
    np.testing.assert_array_equal(plain[0].samples, pieces[0].samples)
    assert np.abs(plain[1].samples - pieces[1].samples[: len(plain[1].samples)]).max() > 0.1


def test_each_drum_is_heard_at_its_hit() -> None:
    loop = scores.drum_loops("test")[0]
    assert {hit.kind for hit in loop.drum_hits} == {"hat", "snare", "kick"}
    for hit in loop.drum_hits[:30]:
        at = round(hit.onset_s * RATE)
        assert np.abs(loop.samples[at : at + 1200]).max() > 0.01


def test_detuned_and_noisy_versions_keep_the_truth_in_place() -> None:
    line = scores.single_lines("test", instruments=scores.INSTRUMENTS[2:3], per_instrument=1)[0]
    sharp = scores.detuned(line, cents=35.0)
    ratio = 2 ** (35 / 1200)
    assert abs(len(sharp.samples) * ratio - len(line.samples)) < 4
    note, before = sharp.notes[-1], line.notes[-1]
    assert note.onset_s * ratio == pytest.approx(before.onset_s)
    noisy = scores.with_pink_noise(line, snr_db=10.0, rng=np.random.default_rng(1))
    noise = noisy.samples.astype(float) - line.samples
    assert 10 * np.log10(np.mean(line.samples.astype(float) ** 2) / np.mean(noise**2)) == pytest.approx(10, abs=0.01)
    power = np.abs(np.fft.rfft(noise)) ** 2
    hz = np.fft.rfftfreq(len(noise), 1 / RATE)
    octaves = [power[(hz >= low) & (hz < 2 * low)].sum() for low in (200, 400, 800, 1600, 3200)]
    assert max(octaves) / min(octaves) < 1.5


def test_a_missing_extra_names_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pretty_midi", None)
    scores._font.cache_clear()
    with pytest.raises(MissingExtraError, match=r'run: .* -m pip install "musichal\[bench\]"$'):
        scores.render_notes((scores.ScoreNote(0.0, 1.0, 60, 80),))


def test_nothing_to_render_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to render"):
        scores.render_notes(())


def test_values_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        scores.ScoreNote(0.0, 1.0, 60, 80).pitch = 61  # type: ignore[misc]
