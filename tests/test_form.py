"""The form: what it says when, what it refuses, and that it is followed."""

import dataclasses
import itertools
import re

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from musichal.errors import InputError
from musichal.partner.form import Form, FormCourse, parse_form
from musichal.partner.modes import built_in_modes
from musichal.partner.settings import PartnerSettings
from musichal.text import clock
from players_by_hand import answer, hear

MODES = tuple(built_in_modes())
ARC = """
title = "Arc"
end = "0:12"
fade_s = 4

[[section]]
name = "opening"
from = "0:00"
mode = "couple"
intensity = 0.2

[[section]]
from = "0:04"
until = "0:05"
silence = true

[[section]]
from = "0:06"
mode = "shadow"
intensity = [0.5, 1.0]
use = "0:0-5"
"""


def form(text: str) -> Form:
    return parse_form(text, MODES, source="form.toml")


def test_what_a_form_says_when():
    arc = form(ARC)
    first = arc.at(0.0)
    assert (first.mode, first.name, first.until_s, first.number) == ("couple", "opening", 4.0, 0)
    assert first.gain_db == pytest.approx(-5.4)
    assert first.fullness == pytest.approx(2**-0.6)
    assert arc.at(4.5).silence
    gap = arc.at(5.5)
    assert (gap.mode, gap.number, gap.silence, gap.until_s) == (None, None, False, 6.0)
    assert arc.at(6.0).gain_db == pytest.approx(0.0)
    assert arc.at(7.9).gain_db > 1
    assert not arc.at(7.9).closing
    assert arc.at(8.0).closing
    assert arc.at(11.0).gain_db < arc.at(9.0).gain_db < arc.at(8.0).gain_db
    assert arc.at(11.9).gain_db < -10
    assert arc.at(12.0).has_ended
    assert dict(arc.at(6.5).regions) == {"use": "0:0-5"}


def test_a_form_without_an_end_goes_on():
    endless = form('[[section]]\nfrom = 0\nmode = "lead"')
    assert endless.at(5000).mode == "lead"
    assert not endless.at(5000).closing


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "at least one section"),
        ("section = 3", "at least one section"),
        ("tempo = 3\n[[section]]\nfrom = 0", "unknown key 'tempo'. Valid keys: title, end"),
        ('[[section]]\nmode = "lead"', "section 1 needs from"),
        ('[[section]]\nfrom = "1:75"', "must be a time such as"),
        ("[[section]]\nfrom = -3", "seconds in [0, 86400], got -3"),
        ('[[section]]\nfrom = 0\nmode = "loud"', "unknown mode 'loud'. Valid modes: shadow"),
        ("[[section]]\nfrom = 0\nvolume = 1", "section 1: unknown key 'volume'"),
        ("[[section]]\nfrom = 5\nuntil = 5", "section 1 would end at 0:05.00, but it begins at 0:05.00"),
        (
            "[[section]]\nfrom = 0\nuntil = 9\n[[section]]\nfrom = 5",
            "section 1 lasts until 0:09.00 and overlaps section 2, which begins at 0:05.00",
        ),
        (
            "[[section]]\nfrom = 5\n[[section]]\nfrom = 1",
            "section 2 begins at 0:01.00, before section 1 at 0:05.00: put them in order",
        ),
        ("[[section]]\nfrom = 5\nuntil = 6\n[[section]]\nfrom = 1", "put them in order"),
        ("end = 10\n[[section]]\nfrom = 12", "section 1 begins at 0:12.00, but the form ends at 0:10.00"),
        ("end = 10\n[[section]]\nfrom = 2\nuntil = 20", "section 1 lasts until 0:20.00, but the form ends at 0:10.00"),
        ("end = 0\n[[section]]\nfrom = 0", "end must be later than 0:00"),
        ("end = 10\nfade_s = 11\n[[section]]\nfrom = 0", "fade_s of 11 s contradicts end at 0:10.00"),
        ("fade_s = 3\n[[section]]\nfrom = 0", "fade_s needs end"),
        ('[[section]]\nfrom = 0\nsilence = true\nmode = "lead"', "silence contradicts mode"),
        ("[[section]]\nfrom = 0\nsilence = 1", "silence must be true or false"),
        ("[[section]]\nfrom = 0\nintensity = 2", "intensity must be in [0, 1], got 2"),
        ("[[section]]\nfrom = 0\nintensity = [0, 1, 0]", "or two as [first, last]"),
        ('[[section]]\nfrom = 0\nuse = "the middle"', "must be regions such as"),
        ("[[section]]\nfrom = nan", "must be a time"),
        ("[[section]]\nfrom = 0\nname = 4", "name must be text"),
        ("[[section", "not valid TOML"),
    ],
)
def test_what_contradicts_itself_is_refused_with_what_contradicts(text, says):
    with pytest.raises(InputError) as error:
        form(text)
    assert says in str(error.value)
    assert str(error.value).startswith("form.toml")


@given(st.floats(0, 86000))
def test_times_are_shown_so_that_they_can_be_read(time_s):
    text = clock(time_s)
    assert re.fullmatch(r"\d+:\d\d\.\d\d", text)
    first = parse_form(f'[[section]]\nfrom = "{text}"', MODES, source="f").sections[0]
    assert first.start_s == pytest.approx(time_s, abs=0.006)


@given(st.lists(st.floats(0.1, 50), min_size=1, max_size=6), st.floats(0, 400))
def test_every_moment_lies_in_at_most_one_section_and_time_moves_on(lengths, now_s):
    starts = [0.0, *itertools.accumulate(lengths)]
    sections = "".join(
        f'[[section]]\nfrom = {start}\nmode = "{mode}"\n' for start, mode in zip(starts, itertools.cycle(MODES), strict=False)
    )
    arc = form(f"end = {starts[-1] + 5}\n" + sections)
    moment = arc.at(now_s)
    if moment.has_ended:
        assert now_s >= starts[-1] + 5
        return
    assert moment.number is not None
    assert starts[moment.number] <= now_s < moment.until_s


# ── it is followed ───────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def player(trained, short_guitar):
    samples, rate = soundfile.read(short_guitar, dtype="float32")
    return hear(trained, np.concatenate([samples[: 8 * rate], samples[: 8 * rate]]), rate)


def follow(trained, player, text: str, *, wishes=(), mode: str = "couple", seed: int = 0):
    settings = PartnerSettings.from_dict({"direction": {"mode": mode, "form": text}})
    return answer(trained.memory, player, settings, seed=seed, onsets=True, wishes=wishes)


def test_modes_silence_and_ending_come_when_the_form_says(trained, player):
    decisions = follow(trained, player, ARC)
    for d in decisions:
        if d.kind == "play":
            assert not 4.0 <= d.time_s < 5.0
            assert d.time_s < 12.0
            if d.time_s < 4:
                assert d.mode == "couple"
            if 6 <= d.time_s < 8:
                assert d.mode == "shadow"
                assert d.live or d.source_start_s < 5
    silence = next(d for d in decisions if d.rest == "score")
    assert silence.time_s == pytest.approx(4.0, abs=0.6)  # what it was playing is played to its end
    assert silence.expected_s == pytest.approx(5.0 - silence.time_s)
    assert decisions[-1].rest == "ended"
    assert decisions[-1].time_s == pytest.approx(12.0, abs=0.01)


def test_the_ending_is_a_real_one(trained, player):
    """The last thing is the end of a phrase of the recording, rings on, and is the softest."""
    from musichal.partner.phrases import find_phrases

    marks = find_phrases(trained.memory)
    decisions = follow(trained, player, ARC)
    played = [d for d in decisions if d.kind == "play"]
    last = played[-1]
    assert 12 - 1.6 <= last.time_s < 12
    assert marks.ends_with(last.state)
    assert last.gain_db < min(d.gain_db for d in played if d.time_s < 8)
    row = trained.memory.notes_of(last.state)
    for note, kept in zip(last.notes, row, strict=True):
        assert note.duration_s > 2 * float(kept["duration_s"]) * min(1.0, last.stretch)
    assert "ending" in [d.rest for d in decisions]


def test_it_ends_whatever_its_mode_and_even_if_the_player_is_silent(trained, player):
    text = 'end = 10\nfade_s = 4\n[[section]]\nfrom = 0\nmode = "rest"'
    quiet = [
        dataclasses.replace(p, heard=dataclasses.replace(p.heard, audible=np.zeros_like(p.heard.audible), onset_samples=()))
        for p in player
    ]
    for heard in (player, quiet):
        played = [d for d in follow(trained, heard, text) if d.kind == "play"]
        assert played
        assert min(d.time_s for d in played) >= 6.0


def test_intensity_is_heard(trained, player):
    form = '[[section]]\nfrom = 0\nmode = "couple"\nintensity = '
    heard = [follow(trained, player, form + intensity) for intensity in ("0.0", "0.5", "1.0")]
    gains = [np.mean([d.gain_db for d in decisions if d.kind == "play"]) for decisions in heard]
    silence = [sum(d.expected_s or 0 for d in decisions if d.rest == "breath") for decisions in heard]
    assert gains[2] > gains[1] > gains[0]
    assert silence[0] > silence[2]


def test_the_players_hand_goes_before_the_form_until_the_section_ends(trained, player):
    decisions = follow(trained, player, ARC, wishes=[(2.0, {"mode": "lead"})])
    modes = {d.mode for d in decisions if 2.6 < d.time_s < 4.0}
    assert modes == {"lead"}
    assert {d.mode for d in decisions if 6.5 < d.time_s < 8.0} == {"shadow"}


def test_a_region_by_hand_is_kept(trained, player):
    text = '[[section]]\nfrom = 0\nmode = "couple"'
    decisions = follow(trained, player, text, wishes=[(0.1, {"region": "0:0-3", "live_weight": 0.0})])
    played = [d for d in decisions if d.kind == "play" and not d.live and d.time_s > 0.5]
    assert played
    assert all(d.source_start_s < 3 for d in played)


def test_a_player_holds_a_section_goes_on_and_ends():
    """The form's clock stands still while a section is held or all is paused; next and end move it."""
    course = FormCourse(form(ARC))
    assert course.change({"hold_section": None}, 3.0) == "holds opening"
    assert (course.at(60.0).name, course.at(60.0).until_s) == ("opening", None)
    place = course.place(60.0)
    assert place is not None
    assert (place.number, place.count, place.next_name, place.left_s, place.held) == (1, 3, "section 2", None, True)
    course.change({"pause": True}, 60.0)
    assert course.change({"hold_section": False}, 70.0) == "opening goes on"
    course.change({"pause": None}, 80.0)
    assert course.at(80.5).until_s == pytest.approx(81.0)
    assert course.change({"next_section": True}, 80.5) == "now section 2"
    assert course.at(80.5).silence
    assert course.at(81.4).until_s == pytest.approx(81.5)
    assert course.change({"next_section": True}, 81.0) == "now section 3"
    assert course.at(81.0).mode == "shadow"
    assert course.change({"end": True}, 82.0) == "comes to its end with a last phrase"
    assert (course.at(82.0).mode, course.at(82.0).closing, course.at(82.0).until_s) == ("shadow", True, pytest.approx(86.0))
    with pytest.raises(InputError, match="it is coming to its end"):
        course.change({"end": True}, 83.0)
    assert course.at(86.1).has_ended
    assert course.revive(87.0)
    assert course.place(87.0) is None


def test_without_a_form_there_is_an_end_and_no_section():
    course = FormCourse(Form())
    for wish in ("hold_section", "next_section"):
        with pytest.raises(InputError, match="section"):
            course.change({wish: True}, 3.0)
    course.change({"end": True}, 10.0)
    assert course.at(10.0).closing
    assert course.at(14.1).has_ended


def test_an_intensity_by_hand_holds_until_the_section_is_over_or_it_is_given_back():
    course = FormCourse(form(ARC))
    assert course.change({"intensity": 1}, 1.0) == "intensity 1.00"
    assert (course.at(3.9).gain_db, course.at(3.9).fullness) == (pytest.approx(9.0), pytest.approx(2.0))
    course.change({"intensity": 0.25}, 5.5)
    assert course.at(5.5).fullness == pytest.approx(2**-0.5)
    assert course.at(6.0).gain_db == form(ARC).at(6.0).gain_db
    course.change({"intensity": 1.0}, 6.5)
    assert course.change({"intensity": "auto"}, 7.0) == "intensity as the form has it"
    assert course.at(7.5) == form(ARC).at(7.5)
    for wrong in (1.1, -0.1, "loud", True, None, [0.5]):
        with pytest.raises(InputError, match="intensity"):
            course.change({"intensity": wrong, "pause": True}, 8.0)
    assert not course.paused


def test_without_a_form_an_intensity_by_hand_is_heard_and_lasts_to_the_end(trained, player):
    settings = PartnerSettings.from_dict({"direction": {"mode": "couple"}})

    def gain(value: float) -> float:
        wishes = [(0.1, {"intensity": value})]
        decisions = answer(trained.memory, player, settings, seed=0, onsets=True, wishes=wishes)
        return float(np.mean([d.gain_db for d in decisions if d.kind == "play" and d.time_s > 0.2]))

    assert gain(1.0) > gain(0.0) + 9
    course = FormCourse(Form())
    course.change({"intensity": 1.0}, 1.0)
    course.change({"end": True}, 10.0)
    assert course.at(12.0).gain_db == pytest.approx(9.0 - 12.0)
    assert course.revive(15.0)
    assert course.at(15.0).fullness == pytest.approx(2.0)


def test_it_ends_with_a_last_phrase_when_asked_and_plays_on_when_a_mode_is_chosen(trained, player):
    decisions = follow(trained, player, ARC, wishes=[(2.0, {"end": True}), (8.0, {"mode": "couple"})])
    assert "ended" in {d.rest for d in decisions if 2 < d.time_s < 8}
    assert not [d for d in decisions if d.kind == "play" and 6.5 < d.time_s < 8.0]
    assert [d for d in decisions if d.kind == "play" and d.time_s > 8.0]


def test_a_pause_stops_it_until_it_goes_on(trained, player):
    decisions = follow(trained, player, ARC, wishes=[(2.0, {"pause": True}), (8.0, {"pause": False})])
    assert not [d for d in decisions if d.kind == "play" and 2.0 < d.time_s < 8.0]
    assert "paused" in {d.rest for d in decisions}
    assert {d.mode for d in decisions if d.kind == "play" and 8.0 < d.time_s < 9.5} == {"couple"}, "where it stood"
