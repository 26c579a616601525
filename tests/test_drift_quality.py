"""The drift benchmark: its splits, its faults, and its figures by hand; one split for real."""

import dataclasses

import numpy as np
import pytest

from benchmarks.drift_quality import Heard, Split, cut, drift_figures, faults, hear_split, measure_drift, splits
from musichal.audio.recording import read_recording
from musichal.errors import InputError
from musichal.live.drift import CAUSES, DriftFigures, DriftReport

FIGURES = DriftFigures((None, None), -20.0, 1.0, 0.0, 0.3, 0.2, 5)


@pytest.fixture(scope="module")
def guitar(rock_guitar):
    return read_recording(rock_guitar)


def test_what_is_played_was_never_learned(guitar):
    long = dataclasses.replace(guitar, name="long.wav", samples=np.zeros(120 * guitar.sample_rate_hz, np.float32))
    mix = dataclasses.replace(guitar, name="rock140_mix.ogg")
    found = list(splits([long, guitar, mix]))
    assert [s.kind for s in found].count("a half, after the other") == 2
    assert [s.kind for s in found].count("a third, after the other two") == 3
    assert [s.kind for s in found].count("two thirds, after the other") == 3
    takes = [s for s in found if s.kind == "another take"]
    assert [(s.learned[0][0].name, s.played[0][0].name) for s in takes] == [
        ("rock140_guitar.ogg", "rock140_mix.ogg"), ("rock140_mix.ogg", "rock140_guitar.ogg")
    ]  # fmt: skip
    for split in found:
        for learned, a, b in split.learned:
            assert all(played is not learned or d <= a or c >= b for played, c, d in split.played)
        if split.kind != "another take":
            assert sum(b - a for _, a, b in [*split.learned, *split.played]) == pytest.approx(120)


def test_a_cut_is_its_stretch(guitar):
    part = cut(guitar, 2.0, 5.5)
    rate = guitar.sample_rate_hz
    assert np.array_equal(part.samples, guitar.samples[2 * rate : round(5.5 * rate)])
    assert part.digest != guitar.digest


def test_each_fault_is_what_it_says(guitar):
    sound = cut(guitar, 10, 14).samples
    made = {what: (cause, x) for cause, what, x in faults(sound, guitar.sample_rate_hz)}
    assert {cause for cause, _ in made.values()} == set(CAUSES) - {"other instrument"}
    assert {len(x) for _, x in made.values()} == {len(sound)}

    def rms_db(x):
        return 10 * np.log10(np.mean(np.square(x, dtype=np.float64)))

    assert rms_db(made["40 dB down"][1]) == pytest.approx(rms_db(sound) - 40, abs=0.01)
    for what, level in (("white noise", -25), ("pink noise", -25), ("the noise of a preamplifier", -75)):
        assert rms_db(made[what][1]) == pytest.approx(level, abs=0.01)
    assert np.abs(made["20 dB over full scale"][1]).max() == 1
    assert np.mean(np.abs(made["20 dB over full scale"][1]) == 1) > np.mean(np.abs(made["12 dB over full scale"][1]) == 1) > 0
    spectrum = np.abs(np.fft.rfft(made["pink noise"][1])) ** 2
    octaves = [spectrum[n : 2 * n].sum() for n in (1000, 4000, 16000)]
    assert max(octaves) / min(octaves) < 1.3  # the same power in each octave


def test_figures_by_hand(guitar):
    split = Split("a half, after the other", [(guitar, 0, 17)], [(guitar, 17, 34)])
    alarm = DriftReport(9.0, "raised", "other instrument", FIGURES)
    heard = [
        Heard(split, 120.0, (), (("clipped", "x", ("clipped",)), ("too quiet", "x", ()))),
        Heard(split, 360.0, (alarm,), (("clipped", "x", ("noise only",)), ("too quiet", "x", ("noise only", "too quiet")))),
    ]
    values = {f.name: (f.value, f.met) for f in drift_figures(heard)}
    assert values["false alarms, a half, after the other (1 in 8.0 min)"] == (0.5, False)
    assert values["clipped, detected (2 of 2)"] == (1.0, True)
    assert values["clipped, named (1 of 2)"] == (0.5, False)
    assert values["too quiet, detected (1 of 2)"] == (0.5, False)
    assert values["too quiet, named (1 of 2)"] == (0.5, False)
    (told,) = [name for name in values if name.startswith("false alarm,")]
    assert "rock140_guitar.ogg 0-17 s learned" in told
    assert values[told][0] == 9.0
    assert not any(name.startswith("noise") for name in values)


@pytest.mark.slow
def test_a_split_for_real(guitar, ballad_mix):
    split = Split("a half, after the other", [(guitar, 0, 17)], [(guitar, 17, 34)])
    heard = hear_split(split, [guitar, read_recording(ballad_mix)])
    assert heard.played_s == 17
    assert [cause for cause, _, _ in heard.trials].count("other instrument") == 1
    silent = next(causes for _, what, causes in heard.trials if what == "no signal")
    assert silent == ("wrong channel",)
    assert next(causes for _, what, causes in heard.trials if what == "white noise") == ("noise only",)


def test_what_cannot_be_split_is_refused(rock_guitar):
    with pytest.raises(InputError, match="needs a --recording"):
        measure_drift([rock_guitar])
