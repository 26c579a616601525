"""Harmony measures of a duo, on notes made by hand."""

import dataclasses

import numpy as np
import pytest

from musichal.evaluate import harmony_together as ht
from musichal.evaluate.harmony_together import PitchedNotes, PitchTruth
from musichal.evaluate.time_together import BeatMap
from musichal.note import Note
from musichal.partner.decision import Alternative, Decision, Influence, chance_class

BEATS = BeatMap(np.arange(0, 65) * 0.5, "score")


def pitched(*rows):
    """Return notes from (onset, end, pitch)."""
    onsets_s, ends_s, pitches = np.array(rows, dtype=np.float64).reshape(-1, 3).T
    return PitchedNotes(onsets_s, ends_s, pitches.astype(np.int64))


CHORD = pitched((0, 2, 48), (0, 4, 52), (1, 3, 60), (6, 8, 55))


def test_time_inside_is_a_share_of_time_modulo_the_octave():
    """C sounds from 0 to 3 s (two notes that overlap), E to 4 s."""
    assert ht.time_inside(pitched((1, 5, 72)), CHORD) == pytest.approx(2 / 4)
    assert ht.time_inside(pitched((1, 5, 72), (3, 5, 40)), CHORD) == pytest.approx((2 + 1) / (4 + 2))
    assert ht.time_inside(pitched((0, 1, 61)), CHORD) == 0.0
    assert ht.time_inside(pitched((5, 7, 67)), CHORD) == pytest.approx(1 / 2)
    assert ht.time_inside(pitched(), CHORD) is None


def test_notes_agree_with_what_sounds_near_them_weighed_by_length():
    """A note of 4 s agrees, one of 2 s begins 0.2 s too late, one of 1 s ends 0.05 s too early, and one is another pitch."""
    notes = pitched((1, 5, 72), (3.2, 5.2, 60), (4.95, 5.95, 67), (0, 1, 61))
    assert ht.agreement(notes, CHORD) == pytest.approx((4 + 1) / 8)
    assert ht.agreement(pitched((0, 1, 60)), pitched()) == 0.0
    assert ht.agreement(pitched(), CHORD) is None


def test_what_is_moved_in_time_goes_around_the_end():
    """In 8 s with C in the first four: a note at 1 s, moved, begins as below, for one second."""
    begins_s = [4.1, 6.3, 0.7, 4.9, 6.7]
    assert ht.moved_agreement(pitched((1, 2, 60)), pitched((0, 4, 36)), duration_s=8.0) == pytest.approx(
        np.mean([begin < 4 for begin in begins_s])
    )
    moved = pitched((7, 8, 60), (1, 3, 62)).moved(5.5, duration_s=8.0)
    assert moved.onsets_s.tolist() == [4.5, 6.5]
    assert moved.ends_s.tolist() == [5.5, 8.0]


def test_support_of_a_melody():
    """Over C: E and G are consonant, F and D are not, and the last second has nothing below it."""
    melody = pitched((0, 1, 64), (1, 2, 67), (2, 3, 65), (3, 4, 62), (4, 5, 60))
    assert ht.support(melody, pitched((0, 4, 48))) == pytest.approx((2 / 5, 1 / 5))
    assert ht.support(melody, pitched((0, 4, 48), (2, 3, 53))) == pytest.approx((3 / 5, 1 / 5))
    assert ht.support(melody, pitched()) == (0.0, 1.0)
    assert ht.support(pitched(), melody) == (None, None)


def test_the_measures_of_an_answer():
    chords = pitched(*((0, 4, p) for p in (0, 4, 7)), *((4, 8, p) for p in (7, 11, 2)))
    truth = PitchTruth((pitched((0, 8, 36)), pitched((0, 4, 52))), pitched((0, 8, 67)), "score", chords=chords)
    answer = pitched((0, 2, 64), (4, 6, 67), (7, 10, 60))
    found = ht.harmony_together(answer, truth, BEATS, duration_s=8.0)
    assert found.notes == 3
    assert found.agreement == pytest.approx(1.0), "E with the second part, G with the player, C with the first part"
    assert found.band == pytest.approx((2 + 1) / 5)
    assert found.in_chord == pytest.approx(4 / 5), "C is not in G major"
    assert found.band_above_moved == pytest.approx(found.band - found.band_moved)
    assert (found.consonant, found.unsupported) == pytest.approx(((2 + 2 + 1) / 8, 3 / 8))
    assert found.entropy_bits == pytest.approx(-(2 / 3 * np.log2(2 / 3) + 1 / 3 * np.log2(1 / 3)))
    assert ht.harmony_together(answer, dataclasses.replace(truth, chords=None), None, duration_s=8.0).in_chord is None


def test_drums_have_no_pitch():
    notes = [Note(0.0, 1.0, 60, 90), Note(0.0, 1.0, 38, 90, channel=9)]
    assert PitchedNotes.of(notes).pitches.tolist() == [60]
    assert len(PitchedNotes.of([])) == 0


def test_the_push_test_counts_beats_until_agreement_is_back():
    """All is C until 8 s, F sharp until 20 s, then C; the answer is late by 2 s and by 5 beats."""
    truth = PitchTruth((pitched((0, 8, 48), (8, 20, 54), (20, 32, 48)),), pitched(), "score", jumps_s=(8.0, 20.0))
    answer = pitched((0, 10, 60), (10, 22.5, 66), (22.5, 32, 60))
    assert ht.beats_until_in_tune(answer, truth, BEATS, duration_s=32.0) == (4.0, 5.0)
    half = pitched((0, 4, 60), (4, 8, 61), (8, 22.5, 60), (22.5, 32, 66))  # half of it agreed before
    assert ht.beats_until_in_tune(half, truth, BEATS, duration_s=32.0) == (None, 0.0)
    assert ht.beats_until_in_tune(answer, dataclasses.replace(truth, jumps_s=()), BEATS, duration_s=32.0) == ()


def test_a_stretch_counts_from_its_start():
    part = pitched((0, 2, 60), (3, 5, 62), (7, 8, 64)).cut(1.0, 4.0)
    assert (part.onsets_s.tolist(), part.ends_s.tolist(), part.pitches.tolist()) == ([0.0, 2.0], [1.0, 3.0], [60, 62])
    assert PitchTruth((part,), part, "score", jumps_s=(2.0, 9.0)).cut(1.0, 4.0).jumps_s == (1.0,)


def choice(number, *, score=1.0, other=1.0, share=1.0, name="chroma", phrase=1, moved=0):
    alternatives = (Alternative(9, 0, 0.0, 0, other),)
    influences = (Influence(name, share, 1.0, share), Influence("rhythm", 0.0, 1.0, 0.0))
    return Decision(
        number, float(number), "play", choice=number, state=number, recording=0, source_start_s=0.0, score=score, phrase=phrase,
        transposition=moved, influences=influences, alternatives=alternatives, jumped=number == 2,
    )  # fmt: skip


def test_choices_have_a_class():
    assert chance_class(choice(0)) == "best"
    assert chance_class(choice(0, score=0.6)) == "lesser"
    assert chance_class(choice(0, score=0.4)) == "under half"
    assert chance_class(choice(0, score=0.0, share=0.0)) == "no support"
    assert chance_class(dataclasses.replace(choice(0), alternatives=())) == "best"


def test_measures_of_choices():
    class Memory(list):
        """Eight states."""

    made = [
        choice(0),
        choice(1, score=0.4, name="harmonic"),
        choice(2, score=0.0, share=0.0, moved=3),
        choice(3, phrase=2, name="percussive"),
    ]
    truth = PitchTruth((), pitched(), "score")
    found = ht.harmony_together(pitched(), truth, BEATS, duration_s=8.0, decisions=made, memory=Memory(range(8)))
    assert (found.learned, found.no_support, found.under_half) == (0.5, 0.25, 0.25)
    assert found.transposition_changes == 0.5, "of two choices that are not the first of their phrase"
    assert (found.longest_quote, found.memory_used) == (2.0, 0.5)
