"""Segments that were not heard: what a gap in the stream means for gates, notes and gestures."""

from dataclasses import replace

import numpy as np
import pytest
import soundfile

from musichal.hearing.encoders import create_encoder
from musichal.hearing.listener import Listener
from musichal.hearing.percepts import SILENCE


@pytest.fixture(scope="module", params=["grid", "onset", "overlapping"])
def heard(request, trained, short_guitar):
    """A listener's windows of real sound, and what makes a fresh listener for them."""
    spec = trained.spec
    if request.param == "onset":
        spec = replace(spec, policy="onset")
    if request.param == "overlapping":
        spec = replace(spec, hop_samples=2100)
    samples, rate = soundfile.read(short_guitar, dtype="float32", frames=4 * 44_100)

    def fresh() -> Listener:
        return Listener(spec, create_encoder(spec), trained.vocabularies, source_rate_hz=rate)

    return fresh, list(fresh().front_end.push(samples).windows)


@pytest.mark.parametrize("seed", range(4))
def test_gestures_stay_one_line_and_a_gap_is_silence(heard, seed):
    fresh, windows = heard
    listener = fresh()
    skipped = np.random.default_rng(seed).random(len(windows)) < 0.3
    percepts = {w.index: listener.step(w) for w, skip in zip(windows, skipped, strict=True) if not skip}
    gestures = [g for p in percepts.values() for g in p.gestures] + list(listener.flush().gestures)
    at_s = gestures[0].start_s
    for gesture in gestures:
        assert gesture.start_s == pytest.approx(at_s, abs=1e-9), "no overlap, no hole"
        at_s = gesture.start_s + gesture.duration_s
    for window, skip in zip(windows, skipped, strict=True):
        if skip and window.index < max(percepts):
            middle = window.start_sample + window.length_samples - 1000
            inside = [g for g in gestures if g.start_s * 24_000 <= middle < (g.start_s + g.duration_s) * 24_000]
            if window.length_samples > 4000:
                assert [g.tokens for g in inside] == [(SILENCE, SILENCE)]


def test_what_is_behind_a_gap_is_heard_as_if_the_stream_began_there(heard):
    """But for what a window itself shows of the past: gates, notes and gestures know nothing from before the gap."""
    fresh, windows = heard
    middle = len(windows) // 2
    after_gap, first_heard = fresh(), fresh()
    after_gap.step(windows[0])
    after_gap.step(windows[1])
    for window in windows[middle:]:
        a, b = after_gap.step(window), first_heard.step(window)
        assert np.array_equal(a.tokens, b.tokens)
        assert np.array_equal(a.heard.audible, b.heard.audible)
        assert a.heard.notes == b.heard.notes or window.index == middle
        assert [g.tokens for g in a.gestures if g.start_s > windows[middle].start_sample / 24_000] == [
            g.tokens for g in b.gestures if g.start_s > windows[middle].start_sample / 24_000
        ]
