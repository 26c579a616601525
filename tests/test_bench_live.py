"""The measuring itself, in short: through the real `musichal play` and a real JACK server."""

from dataclasses import replace

import numpy as np
import pytest

from jack_server import why_no_jack
from musichal.bench import live_speed
from musichal.memory.partner_file import save_partner

pytestmark = [pytest.mark.live, pytest.mark.skipif(why_no_jack() is not None, reason=str(why_no_jack()))]


def test_an_answer_is_what_was_decided_because_of_an_onset():
    """A later note of the same answer behind the second onset is no answer to that one, and the third sounds too late."""
    told = {
        "onsets": [11.0, 11.5, 12.0],
        "notes": [(11.02, 60, 0), (11.53, 64, 0), (11.9, 60, None), (12.02, 67, 2), (12.05, 60, None)],
    }
    received = [(1.03, 60), (1.54, 64), (1.91, 60), (2.21, 67), (2.06, 60)]
    found = live_speed.answers_s(told, np.array([1.0, 1.5, 2.0]), received)
    assert found == [1.03, None, None]
    assert live_speed.answers_s({"onsets": [], "notes": []}, np.array([1.0]), received) == [None]


def test_onsets_are_answered_and_figures_are_those_of_the_run(trained, tmp_path):
    path = tmp_path / "rock.hal"
    spec = replace(trained.spec, resampler="soxr-VR")
    save_partner(path, replace(trained, spec=spec))
    figures = {f.name.split(" (xruns")[0]: f.value for f in live_speed._latency("soxr-VR", path, spec, onsets=12)}
    assert figures["onsets without an answer, soxr-VR"] <= 6, "a loaded machine may lose some"
    assert 3 < figures["onset → MIDI, soxr-VR: median"] < 200
    assert figures["onset → MIDI, soxr-VR: least"] <= figures["onset → MIDI, soxr-VR: median"]
    assert figures["sound → tokens, soxr-VR: p99"] > 0


def test_some_seconds_on_stage_leave_no_note(trained_path):
    figures = {f.name.split(" in ")[0]: f.value for f in live_speed._keeping_up(trained_path, 6.0)}
    assert figures["notes left sounding"] == 0
    assert figures["hearing a segment on stage"] > 0
