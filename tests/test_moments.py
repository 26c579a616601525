"""What stands out in a performance, from records made by hand."""

from dataclasses import replace

import pytest

from musichal.evaluate.moments import find_moments, founded, stretches
from musichal.partner.decision import Alternative, Context, Influence
from partners_by_hand import played, rested


def line(first: int, start_s: float, count: int, **more: object) -> list:
    return [
        replace(played(first + n, start_s + 0.5 * n, 0.0, 0.5, pitches=[60]), choice=first + n, **more) for n in range(count)
    ]


def test_how_well_a_choice_is_founded_falls_with_what_spoke_for_it_and_with_better_places():
    choice = played(0, 0.0, 0.0, 0.5)
    strong = replace(choice, influences=(Influence("harmonic", 0.8, 1.0, 1.0),))
    assert founded(strong) == pytest.approx(0.8)
    passed_by = replace(strong, alternatives=(Alternative(1, 0, 0.0, 0, 2.0),))
    assert founded(passed_by) == pytest.approx(0.4)
    assert founded(replace(choice, influences=())) == 0.0


def test_a_stretch_ends_at_a_pause_and_at_a_phrase():
    decisions = [*line(0, 0.0, 4), *line(4, 4.0, 3), *line(7, 5.5, 3, phrase=1), *line(10, 20.0, 2)]
    assert [(s.start_s, s.end_s) for s in stretches(decisions)] == [(0.0, 2.0), (4.0, 5.5), (5.5, 7.0)]


def test_marks_agreement_returns_answers_endings_and_silence_together_are_found():
    alone = (Influence("continuity", 1.0, 1.0, 1.0),)
    decisions = [
        *line(0, 0.0, 4),
        *line(4, 2.0, 3, influences=alone),
        *line(7, 3.5, 10, contexts=(Context("harmonic", (1, 2, 3, 4, 5), 0, 0, 1.0),)),
        replace(rested(17, 10.0, "silence"), silent_s=1.5),
        *line(18, 12.0, 3, returns="your motif of 0:01"),
        *line(21, 20.0, 3, answers=(5.0, 8.0)),
    ]
    found = {m.kind: m for m in find_moments(decisions, [(1.0, "here")], end_s=30.0)}
    assert (found["mark"].start_s, found["mark"].why) == (1.0, "here")
    assert (found["agreement"].start_s, found["agreement"].end_s) == (3.5, 8.5)
    assert (found["return"].start_s, found["return"].end_s) == (12.0, 13.5)
    assert "0:05 to 0:08" in found["answer"].why
    assert found["together"].end_s == 8.5
    assert "5 sounds" in found["recognised"].why
    assert (found["ending"].start_s, found["ending"].end_s) == (20.0, 21.5)
    assert find_moments([], [], end_s=0.0) == []
