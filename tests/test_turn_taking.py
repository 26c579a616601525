"""Turn-taking, by hand: who speaks when, for how long, and what it says while it does not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musichal.partner.modes import PLAIN, Mode, built_in_modes
from musichal.partner.phrases import PhraseMap
from musichal.partner.player import PlayerState
from musichal.partner.turn_taking import TurnState, TurnTaker

PHRASES = PhraseMap(
    begins=np.array([True, False, False, True, False]),
    ends=np.array([False, False, True, False, True]),
    lengths_s=np.array([2.0]),
    breaths_s=np.array([0.5]),
)


def state(kind="playing", *, since_s=0.0, start_s=0.0, end_s=None, ending=0.0, ioi_s=0.25) -> PlayerState:
    return PlayerState(
        kind=kind, since_s=since_s, phrase_start_s=start_s, phrase_end_s=start_s if end_s is None else end_s, ending=ending,
        onset_rate_hz=4.0, ioi_s=ioi_s, level_db=-20.0, pitch=60.0,
    )  # fmt: skip


NOTHING = PlayerState("ended", 0.0, None, None, 1.0, 0.0, None, -120.0, None)


def taker() -> TurnTaker:
    return TurnTaker(PHRASES, rng=np.random.default_rng(0))


def floor(who: TurnTaker, now_s: float, mode: Mode, player: PlayerState, *, silent_s: float = 0.0, **kwargs) -> TurnState:
    return who.at(now_s, mode, player, silent_s=silent_s, rest_after_silence_s=3.0, **kwargs)


ALONG = Mode(name="x")
ANSWER = Mode(name="x", turn="answer", trigger="phrase end", breath=0.4)
ONSET = Mode(name="x", trigger="onset", breath=0.0)


def test_it_waits_for_the_first_sound_but_where_it_goes_its_own_way():
    assert floor(taker(), 0.0, ALONG, NOTHING).rest == "waiting"
    assert floor(taker(), 0.0, ANSWER, NOTHING).rest == "waiting"
    assert floor(taker(), 0.0, Mode(name="x", turn="own"), NOTHING).begins


def test_a_phrase_is_as_long_as_drawn_ends_where_its_recording_ends_one_and_is_followed_by_a_breath():
    who = taker()
    assert floor(who, 1.0, ALONG, state()).begins
    who.played(0)
    assert not floor(who, 2.0, ALONG, state()).closes
    who.played(1)
    late = floor(who, 3.1, ALONG, state())
    assert late.rest is None
    assert late.closes
    who.played(2)  # ends a phrase of the recording
    breath = floor(who, 3.3, ALONG, state())
    assert (breath.rest, breath.expected_s, breath.again_s) == ("breath", 0.5, 3.8)
    assert who.phrases_ended == 1
    assert floor(who, 3.8, ALONG, state()).begins


def test_a_phrase_that_finds_no_end_ends_in_overtime():
    who = taker()
    floor(who, 1.0, ALONG, state())
    who.played(0)
    assert floor(who, 3.4, ALONG, state()).rest is None
    assert floor(who, 3.6, ALONG, state()).rest == "breath"


@pytest.mark.parametrize(("phrase", "breath", "fullness"), [(2.0, 1.0, 1.0), (1.0, 3.0, 1.0), (1.0, 1.0, 2.0)])
def test_the_mode_and_the_form_make_phrases_and_breaths_longer(phrase, breath, fullness):
    who = taker()
    mode = Mode(name="x", phrase=phrase, breath=breath)
    floor(who, 0.0, mode, state(), fullness=fullness)
    over_s = 2.0 * phrase * fullness * 1.25
    assert floor(who, over_s - 0.05, mode, state(), fullness=fullness).rest is None
    rest = floor(who, over_s + 0.05, mode, state(), fullness=fullness)
    assert rest.expected_s == pytest.approx(0.5 * breath / fullness)


def test_it_rests_when_the_player_has_been_silent_for_long_enough():
    who = taker()
    assert floor(who, 0.0, ALONG, state()).rest is None
    assert floor(who, 1.0, ALONG, state("ended"), silent_s=2.9).rest is None
    assert floor(who, 1.2, ALONG, state("ended"), silent_s=3.1).rest == "silence"


def test_an_onset_releases_one_gesture_and_only_one():
    who = taker()
    assert floor(who, 0.3, ONSET, state()).rest == "next note"
    who.hear_onset(0.4)
    assert floor(who, 0.42, ONSET, state()).rest is None
    who.played(0)
    again = floor(who, 0.6, ONSET, state())
    assert (again.rest, again.expected_s) == ("next note", 0.25)
    who.hear_onset(0.65)
    assert floor(who, 0.67, ONSET, state()).rest is None


def test_a_player_who_sounds_without_onsets_is_followed_all_the_same():
    who = taker()
    who.hear_onset(0.1)
    assert floor(who, 0.12, ONSET, state()).rest is None
    who.played(0)
    assert floor(who, 1.0, ONSET, state()).rest is not None
    assert floor(who, 1.4, ONSET, state()).rest is None
    assert floor(who, 1.5, ONSET, state("ended")).rest is not None


def test_an_answer_waits_breathes_answers_as_long_and_then_it_is_the_players_turn():
    who = taker()
    assert floor(who, 1.0, ANSWER, state()).rest == "listening"
    ended = state("ended", since_s=5.0, start_s=1.0, end_s=4.0)
    breath = floor(who, 5.0, ANSWER, ended)
    assert breath.rest == "breath"
    assert breath.again_s == pytest.approx(5.2)
    first = floor(who, 5.2, ANSWER, ended)
    assert first.begins
    assert first.answers == (1.0, 4.0)
    who.played(0)
    middle = floor(who, 6.7, ANSWER, ended)
    assert middle.progress == pytest.approx(0.5)
    who.played(1)
    assert floor(who, 5.2 + 3 * 1.25 + 0.1, ANSWER, ended).rest is not None
    assert floor(who, 9.5, ANSWER, ended).rest == "your turn"


def test_an_answer_yields_to_a_player_who_begins_again():
    who = taker()
    ended = state("ended", since_s=5.0, start_s=1.0, end_s=4.0)
    floor(who, 5.0, ANSWER, ended)
    assert floor(who, 5.3, ANSWER, ended).begins
    who.played(0)
    assert floor(who, 6.0, ANSWER, state("playing", start_s=5.9)).rest == "yields"
    assert floor(who, 6.5, ANSWER, state("playing", start_s=5.9)).rest == "listening"


def test_a_player_who_never_stops_is_answered_when_patience_ends_at_the_next_breath():
    mode = Mode(name="x", turn="answer", trigger="phrase end", patience_s=5.0)
    who = taker()
    assert floor(who, 4.9, mode, state(end_s=4.9, ending=0.5)).rest == "listening"
    assert floor(who, 5.1, mode, state(end_s=5.1, ending=0.0)).rest == "listening"
    came_in = floor(who, 5.3, mode, state(end_s=5.3, ending=0.2))
    assert came_in.begins
    who.played(0)
    assert floor(who, 6.0, mode, state(end_s=6.0)).rest is None, "who comes in does not yield to one who was playing"
    other = taker()
    assert floor(other, 6.6, mode, state(end_s=6.6, ending=0.0)).begins, "patience ends at last"


def test_rest_rests_on_purpose():
    assert floor(taker(), 3.0, built_in_modes()["rest"], state()).rest == "on purpose"


def test_without_a_mode_a_phrase_never_ends():
    who = taker()
    assert floor(who, 0.0, PLAIN, state()).begins
    who.played(2)
    assert floor(who, 10_000.0, PLAIN, state()).rest is None


modes = st.sampled_from([*built_in_modes().values(), ALONG, ANSWER, ONSET, PLAIN])


@given(
    st.lists(
        st.tuples(modes, st.sampled_from(["playing", "pausing", "ended"]), st.floats(0.01, 3), st.booleans()), max_size=40
    ),
    st.floats(0.5, 2.0),
)
def test_what_holds_for_every_conversation(moments, fullness):
    who = taker()
    now_s, start_s = 0.0, 0.0
    for mode, kind, later_s, struck in moments:
        now_s += later_s
        if struck:
            who.hear_onset(now_s - 0.01)
        if kind == "playing":
            start_s = now_s - 0.5 * later_s
        said = floor(who, now_s, mode, state(kind, since_s=now_s - 0.1, start_s=start_s, end_s=now_s), fullness=fullness)
        if said.rest is None:
            assert mode.turn != "rest"
            assert said.rest is None
            assert 0 <= said.progress <= 1
            who.played(int(now_s * 100) % 5)
        else:
            assert said.rest is not None
            assert said.expected_s is None or said.expected_s >= 0
            assert said.again_s is None or said.again_s > now_s


# ── an answer in the player's rhythm ─────────────────────────────────────────

MIRROR = Mode(name="x", turn="answer", trigger="phrase end", breath=0.0, recall=1.0)


def answering(onsets, *, mode=MIRROR, ended_s=4.0, ready_s=5.0):
    """Return who has just begun to answer a phrase with these onsets, and what it was told then."""
    who = taker()
    for onset_s in onsets:
        who.hear_onset(onset_s)
    ended = state("ended", since_s=ready_s, start_s=1.0, end_s=ended_s)
    return who, floor(who, ready_s, mode, ended), ended


def test_an_answer_strikes_where_the_player_did_and_waits_between():
    who, first, ended = answering([1.0, 1.5, 1.54, 2.75])
    assert first.begins
    assert first.strikes
    assert first.until_s == pytest.approx(5.5)
    who.played(0, 5.0)
    waits = floor(who, 5.2, MIRROR, ended)
    assert (waits.rest, waits.again_s, waits.expected_s) == ("next note", pytest.approx(5.5), pytest.approx(0.3))
    second = floor(who, waits.again_s, MIRROR, ended)
    assert second.strikes
    assert second.until_s == pytest.approx(6.75), "a flam is one stroke"
    assert second.progress == pytest.approx(0.5 / 3)
    who.played(1, waits.again_s)
    assert floor(who, 5.6, MIRROR, ended).rest == "next note"
    last = floor(who, 6.75, MIRROR, ended)
    assert last.strikes
    assert last.until_s is None
    who.played(1, 6.75)
    assert floor(who, 7.0, MIRROR, ended).rest is None, "behind the player's last stroke it goes on by itself to its end"


def test_where_the_player_struck_nothing_for_long_the_answer_goes_on_by_itself():
    who, first, ended = answering([1.0, 3.5])
    assert first.until_s == pytest.approx(7.5)
    who.played(0, 5.0)
    between = floor(who, 5.8, MIRROR, ended)
    assert between.rest is None
    assert not between.strikes
    assert between.until_s == pytest.approx(7.5)
    who.played(1, 5.8)
    assert floor(who, 6.4, MIRROR, ended).rest == "next note"


def test_an_answer_without_recall_keeps_its_own_rhythm():
    _, first, _ = answering([1.0, 1.5, 2.75], mode=ANSWER, ready_s=6.0)
    assert first.rest is not None or (not first.strikes and first.until_s is None)
    who, first, ended = answering([1.0, 1.5, 2.75], mode=Mode(name="x", turn="answer", trigger="phrase end", breath=0.0))
    assert (first.strikes, first.until_s) == (False, None)
    who.played(0, 5.0)
    assert floor(who, 5.1, MIRROR, ended).rest is None


def test_an_answer_over_a_player_who_plays_on_goes_over_the_last_of_it_at_its_pace():
    mode = Mode(name="x", turn="answer", trigger="phrase end", patience_s=5.0, recall=1.0)
    who = taker()
    onsets = np.arange(0.0, 7.0, 0.5)
    for onset_s in onsets:
        who.hear_onset(float(onset_s))
    came_in = floor(who, 6.6, mode, state(end_s=6.6))
    # Phrases of the recordings last 2 s.
    assert came_in.answers == pytest.approx((4.6, 6.6))
    assert came_in.until_s == pytest.approx(7.0), "the stroke at 5.0, 2 s later"


@given(
    st.lists(st.floats(0.0, 4.0), max_size=30),
    st.floats(0.1, 1.0),
    st.floats(0.2, 5.0),
    st.lists(st.floats(0.02, 1.0), min_size=1, max_size=40),
)
def test_strokes_come_in_order_once_each_and_waiting_ends(onsets, recall, phrase, lengths):
    mode = Mode(name="x", turn="answer", trigger="phrase end", breath=0.0, recall=recall, phrase=phrase)
    who, said, ended = answering(sorted(onsets), mode=mode)
    now_s, struck = 5.0, []
    for length_s in lengths:
        if said.rest is None:
            assert said.until_s is None or said.until_s > now_s
            struck += [now_s] if said.strikes else []
            who.played(0, now_s)
            now_s = min(now_s + length_s, said.until_s or np.inf)
        else:
            if said.again_s is None:
                break
            assert said.again_s > now_s
            now_s = said.again_s
        said = floor(who, now_s, mode, ended)
    assert struck == sorted(set(struck))
    assert len(struck) <= len(set(onsets))
