import dataclasses

import pytest

from musichal.partner.decision import REST_REASONS, Alternative, Context, Decision, Filter, HarmonyUse, Influence
from musichal.partner.explanation import explain, explain_briefly, summarise
from partners_by_hand import played, rested

NAMES = ["take1.wav", "take2.wav"]


@pytest.mark.parametrize("why", REST_REASONS)
def test_each_rest_has_its_reason_in_words(why):
    line = explain(rested(0, 1.5, why), NAMES)
    assert line.startswith("At 0:01.50 rested: ")
    assert REST_REASONS[why] in line
    assert REST_REASONS[why] in " ".join(summarise([rested(0, 1.5, why)] * 2, end_s=2.0))


def test_a_choice_names_its_notes_its_place_and_what_carried_it_strongest_first():
    decision = dataclasses.replace(
        played(3, 61.0, 12.25, 0.5, pitches=[60, 67], recording=1),
        transposition=-2,
        influences=(
            Influence("harmonic", 0.75, 1.0, 0.3),
            Influence("percussive", 0.0, 1.0, 0.0),
            Influence("chroma", 0.81, 1.0, 0.6),
            Influence("continuity", 1.0, 0.1, 0.1),
        ),
        contexts=(Context("harmonic", (5, 9, 9), 41, 1, 12.25),),
        alternatives=(Alternative(7, 0, 3.0, 0, 0.5),),
        score=1.25,
    )
    line = explain(decision, NAMES)
    assert line.startswith("At 1:01.00 played C4 G4 (0.50 s) from take2.wav 0:12.25, moved by -2 semitones: ")
    assert "(0.81) [60%]; the harmony of your last 3 sounds led there before, at take2.wav 0:12.25 [30%]; it goes on" in line
    assert "percussive" not in line, "what did not speak for it is not named"
    assert "1.25" in line
    assert "take1.wav 0:03.00" in line
    assert "\n" not in line
    assert ", moved by +1 semitone: " in explain(dataclasses.replace(decision, transposition=1), NAMES)


def test_why_a_transposition_changed_is_told_also_where_it_is_none_again():
    use = HarmonyUse("C", 0.5, "C major", 0.5, "G", 0.5, accounts=1.0, moved="your harmony has moved (70% likely)")
    moved = dataclasses.replace(played(0, 1.0, 0.0, 0.5, pitches=[60]), transposition=2, harmony=use)
    back = dataclasses.replace(moved, transposition=0)
    assert ", moved by +2 semitones because your harmony has moved (70% likely): " in explain(moved, NAMES)
    assert ", at its recorded pitch again because your harmony has moved (70% likely): " in explain(back, NAMES)
    assert "again" not in explain(dataclasses.replace(back, live=True), NAMES)


def test_what_is_next_to_nothing_is_not_told_as_nothing_and_drums_are_not_transposed():
    poor = dataclasses.replace(
        played(0, 0.0, 0.0, 0.5, pitches=[42]),
        transposition=3,
        filters=(Filter("beat", 0.001),),
        alternatives=(Alternative(7, 0, 3.0, 0, 0.001),),
        score=0.002,
    )
    told = explain(poor, NAMES)
    assert "moved by +3 semitones" in told
    assert "held back to less than 1% by" in told
    assert "It scored less than 0.01; the best other place, take1.wav 0:03.00, less than 0.01." in told
    assert "semitones" not in explain(dataclasses.replace(poor, voice="drums"), NAMES)


def test_long_chords_are_cut_short_and_one_sound_is_singular():
    base = played(0, 0.0, 0.0, 0.5, pitches=range(60, 70))
    long = dataclasses.replace(base, contexts=(Context("harmonic", tuple(range(20)), 4, 0, 1.0),))
    line = explain(long, NAMES)
    assert "the harmony of your last 20 sounds led there before" in line
    assert "C4 C#4 D4 Eb4 E4 F4 …" in line
    short = dataclasses.replace(base, contexts=(Context("harmonic", (7,), 4, 0, 1.0),))
    assert "the harmony of your last sound led" in explain(short, NAMES)


def test_reasons_are_words_not_symbols():
    base = played(0, 0.0, 0.0, 0.5, pitches=[60])
    told = []
    for source, symbols in (("percussive", (3, -1, 7)), ("rhythm", (4, 4, 6, 9, 0)), ("loudness", (3, 5, 0, 7))):
        carried = (Influence(source, 1.0, 1.0, 1.0),)
        told.append(
            explain(dataclasses.replace(base, influences=carried, contexts=(Context(source, symbols, 4, 0, 1.0),)), NAMES)
        )
    assert "the attack of your last 3 sounds led there" in told[0]
    assert "the rhythm of your last 6 notes (even, twice as long, a pause, much shorter) led there" in told[1]
    assert "the loudness of your last 5 sounds (the same, louder, softer, a pause) led there" in told[2]
    assert not any(symbol in line for line in told for symbol in ("×", "=", "·", "(3"))


def test_a_brief_line_has_the_strongest_reason_alone():
    decision = dataclasses.replace(
        played(3, 61.0, 12.25, 0.5, pitches=[60]),
        influences=(Influence("harmonic", 0.75, 1.0, 0.3), Influence("chroma", 0.81, 1.0, 0.6)),
        contexts=(Context("harmonic", (5, 9, 9), 41, 1, 12.25),),
    )
    assert explain_briefly(decision, NAMES) == "At 1:01.00 played C4 (0.50 s): its harmony fits what sounds (0.81)"
    assert explain_briefly(rested(0, 1.5, "breath"), NAMES) == "At 0:01.50 rested: it pauses between two phrases"


def test_a_choice_that_nothing_spoke_for_says_so():
    nothing = dataclasses.replace(played(0, 0.0, 0.0, 0.5), influences=())
    nothing = dataclasses.replace(nothing, influences=tuple(Influence(n, 0.0, 1.0, 0.0) for n in ("harmonic", "chroma")))
    assert "only place" in explain(nothing, NAMES)
    assert "without a note" in explain(nothing, NAMES)


def test_a_summary_counts_what_is_in_the_records():
    decisions = [
        played(0, 0.0, 0.0, 0.5, pitches=[60, 62], jumped=True),
        dataclasses.replace(played(1, 0.5, 0.5, 0.5, pitches=[64]), transposition=3),
        rested(2, 1.0, "silence"),
    ]
    text = "\n".join(summarise(decisions, end_s=10.0))
    assert "3 notes in 2 gestures" in text
    assert "harmony 70%" in text
    assert "jumped 1 time," in text
    assert "Transposed 1 gesture to" in text
    assert "Rested 1 time, 9.0 s in all:" in text
    assert summarise([rested(0, 1.0, "silence")], end_s=4.0)[0] == "Played nothing."
    assert summarise([], end_s=0.0) == ["Nothing was decided: the input was too short."]


def test_records_survive_json():
    decision = dataclasses.replace(
        played(3, 61.0, 12.25, 0.5, pitches=[60]),
        contexts=(Context("harmonic", (5, 9), 41, 0, 12.25),),
        alternatives=(Alternative(7, 0, 3.0, 0, 0.5),),
    )
    for record in (decision, rested(1, 2.0, "waiting")):
        line = record.to_json()
        assert "\n" not in line
        assert Decision.from_json(line) == record
