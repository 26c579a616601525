"""The measuring itself, in short: through the real `musichal play` and a real JACK server."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import live_speed
from benchmarks.live_speed import ANSWERED, RESTED, SHARED, UNHEARD, UNRECEIVED, Answer
from jack_server import why_no_jack
from musichal.errors import InputError
from musichal.hearing.front_end import FrontEnd
from musichal.hearing.percepts import Onset
from musichal.live.session.event_log import Perceived, Struck
from musichal.memory.partner_file import save_partner
from musichal.note import Note
from musichal.partner.decision import Decision
from musichal.spec import PerceptionSpec

pytestmark = [pytest.mark.live, pytest.mark.skipif(why_no_jack() is not None, reason=str(why_no_jack()))]


def test_an_answer_is_what_was_decided_because_of_an_onset():
    """A later note of the same answer behind the second onset is no answer to that one, and the third sounds too late."""
    told = {
        "onsets": [11.0, 11.5, 12.0],
        "became": [UNRECEIVED, SHARED, UNRECEIVED],
        "notes": [(11.02, 60, 0), (11.53, 64, 0), (11.9, 60, None), (12.02, 67, 2), (12.05, 60, None)],
    }
    received = [(1.03, 60), (1.54, 64), (1.91, 60), (2.21, 67), (2.06, 60)]
    found = live_speed.find_answers(told, np.array([1.0, 1.5, 2.0, 2.4]), received)
    assert found == [Answer(ANSWERED, 1.03), Answer(SHARED), Answer(UNRECEIVED), Answer(UNHEARD)]
    nothing = {"onsets": [], "became": [], "notes": []}
    assert live_speed.find_answers(nothing, np.array([1.0]), received) == [Answer(UNHEARD)]


def test_what_becomes_of_an_onset_is_told_apart():
    """A rest, a rest that goes on, an answer, a stroke that the answer before is for, and a note that nobody asked for."""
    told = live_speed.OnsetAnswers(sample_rate_hz=1000)
    place = {"state": 0, "recording": 0, "source_start_s": 0.0}

    def strike(at: int) -> None:
        told.entry(Struck(at, Onset(at - 20, at - 5)))

    def decide(number: int, at_s: float, rest: str | None = None) -> None:
        notes = () if rest else (Note(at_s, 0.1, 60, 90),)
        kind = {"rest": rest} if rest else {"duration_s": 0.1, "notes": notes, **place}
        told.decision(Decision(number, at_s, "rest" if rest else "play", **kind))

    strike(1000)
    decide(0, 1.0, "no match")
    strike(2000)
    strike(3000)
    decide(1, 3.0)
    strike(3050)
    decide(2, 3.1, "next note")
    told.entry(Perceived(3200, 7, ""))
    decide(3, 3.2)
    decide(4, 3.3, "next note")
    strike(3350)
    values = told.to_dict()
    resting = f"{RESTED} (no match)"
    assert values["became"] == [resting, resting, UNRECEIVED, SHARED, SHARED]
    assert [because for _, _, because in values["notes"]] == [2, None]


def test_the_sound_of_the_measurement_has_an_onset_where_it_says_and_nowhere_else():
    """Notes that were cut off clicked, and one in twelve onsets was answered by what the click had released."""
    rng = np.random.default_rng(3)
    places = (np.cumsum(rng.uniform(0.25, 0.45, 24)) * 48_000).astype(np.int64)
    sound = live_speed.plucked(places, rate_hz=48_000, length=int(places[-1]) + 48_000, rng=rng)
    spec = PerceptionSpec()
    found = FrontEnd(spec, source_rate_hz=48_000).push(sound).onsets
    at_s = np.array([onset.sample for onset in found]) / spec.sample_rate_hz
    assert len(at_s) == len(places)
    assert np.abs(at_s - places / 48_000).max() < 0.02


def test_onsets_are_answered_and_figures_are_those_of_the_run(trained, tmp_path):
    path = tmp_path / "rock.hal"
    spec = replace(trained.spec, resampler="soxr-VR")
    save_partner(path, replace(trained, spec=spec))
    for attempt in range(3):
        try:
            named = {f.name: f for f in live_speed._latency("soxr-VR", path, spec, onsets=12)}
        except InputError:  # not one was answered in time
            if attempt == 2:
                raise
            continue
        figures = {name.split(" (xruns")[0]: figure.value for name, figure in named.items()}
        # A machine that loses sound loses onsets; then it is measured again.
        if figures["onsets without an answer, soxr-VR"] <= 3 or any("(xruns: 0)" in name for name in named) or attempt == 2:
            break
    assert figures["onsets without an answer, soxr-VR"] <= 6, "a loaded machine may lose some"
    of_those = [
        figure.value for name, figure in named.items() if name.startswith("onsets ") and "without an answer" not in name
    ]
    assert sum(of_those) == figures["onsets without an answer, soxr-VR"]
    assert 3 < figures["onset → MIDI, soxr-VR: median"] < 200
    assert figures["onset → MIDI, soxr-VR: least"] <= figures["onset → MIDI, soxr-VR: median"]
    assert figures["sound → tokens, soxr-VR: p99"] > 0


def test_some_seconds_on_stage_leave_no_note(trained_path):
    figures = {f.name.split(" in ")[0]: f.value for f in live_speed._keeping_up(trained_path, 6.0)}
    assert figures["notes left sounding"] == 0
    assert figures["hearing a segment on stage"] > 0
