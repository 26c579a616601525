"""The measuring itself, in short: through the real `musichal play` and a real JACK server."""

from dataclasses import replace

import pytest

from jack_server import why_no_jack
from musichal.bench import live_speed
from musichal.memory.partner_file import save_partner

pytestmark = [pytest.mark.live, pytest.mark.skipif(why_no_jack() is not None, reason=str(why_no_jack()))]


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
