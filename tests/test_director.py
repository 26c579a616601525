"""The partner under a director: modes keep what their names promise, wishes are obeyed, time is kept, bad input is borne."""

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musichal.errors import InputError
from musichal.hearing.percepts import SILENCE, Percept
from musichal.memory.partner_file import PartnerModel
from musichal.partner.decision import REST_REASONS, Decision
from musichal.partner.explanation import explain
from musichal.partner.mode_controller import AHEAD_S
from musichal.partner.partner import Partner
from musichal.partner.settings import PartnerSettings, Region
from musichal.partner.timing import ATTACK_S
from musichal.partner.voices import into_register
from players_by_hand import ONSET_LAG, RATE, SEGMENT, answer, hear, percept, plays
from test_partner import check_score

pytestmark = pytest.mark.usefixtures("heard_once")

SEGMENT_S = SEGMENT / RATE
MODES = ("shadow", "mirror", "couple", "lead", "contrast")


@pytest.fixture(scope="module")
def player(trained: PartnerModel, short_guitar: Path) -> list[Percept]:
    """Real guitar: 6 s, 3 s of silence, 5 s, 3 s of silence."""
    samples, rate = soundfile.read(short_guitar, dtype="float32")
    quiet = np.zeros(3 * rate, dtype=np.float32)
    return hear(trained, np.concatenate([samples[: 6 * rate], quiet, samples[3 * rate : 8 * rate], quiet]), rate)


def play(trained, player, mode="couple", *, seed=0, wishes=(), block=480, modes="", **changes) -> list[Decision]:
    settings = PartnerSettings.from_dict({"direction": {"mode": mode, "modes": modes}, **changes})
    return answer(trained.memory, player, settings, seed=seed, onsets=True, wishes=wishes, block=block)


def played(decisions: list[Decision]) -> list[Decision]:
    return [d for d in decisions if d.kind == "play"]


def audible_share(decisions: list[Decision], first_s: float, last_s: float) -> float:
    """Return how much of a stretch of time some note sounds."""
    notes = [note for d in played(decisions) for note in d.notes]
    grid = np.arange(first_s, last_s, 0.02)
    return float(np.mean([any(note.onset_s <= t < note.onset_s + note.duration_s for note in notes) for t in grid]))


# ── what the names promise ───────────────────────────────────────────────────


def test_shadow_answers_an_onset_in_the_step_that_decides_it(trained, player):
    decided = sorted({(o + ONSET_LAG) / RATE for p in player for o in p.heard.onset_samples})
    times = np.array([d.time_s for d in played(play(trained, player, "shadow"))])
    # In a roll, one gesture stands for all strokes within 80 ms.
    due = [t for t in decided if not ((times < t - 1e-9) & (times > t - 0.08)).any()]
    assert len(due) > 15
    assert np.mean([np.isclose(times, t, atol=1e-9).any() for t in due]) > 0.85
    # Between them it plays only what a sounding player without onsets gets, at a percept.
    extra = [t for t in times if not np.isclose(decided, t, atol=1e-9).any()]
    assert len(extra) < 0.3 * len(times)


def test_shadow_answers_with_sound_and_at_once(trained, player):
    """What an onset releases has a note, and its first note does not wait for its place in the recorded state."""
    shadowed = played(play(trained, player, "shadow"))
    assert len(shadowed) > 15
    assert all(d.notes for d in shadowed)
    assert all(min(n.onset_s for n in d.notes) == pytest.approx(d.time_s, abs=1e-9) for d in shadowed)
    states = trained.memory.states
    assert (states["note_count"] == 0).any(), "this memory leaves a choice"
    late = [
        d for d in played(play(trained, player, "couple")) if d.notes and min(n.onset_s for n in d.notes) > d.time_s + 0.005
    ]
    assert late, "in other modes a state keeps its own time"


def test_a_clock_that_is_told_again_leaves_what_shadow_prepared(trained, player):
    """An onset releases the same choice, whether a clock spoke in between or not."""
    answers = []
    for wish in ({}, {"clock": {"beat_s": 1.0, "period_s": 0.5}}):
        settings = PartnerSettings.from_dict({"direction": {"mode": "shadow"}, "time": "free"})
        partner = Partner(trained.memory, settings, rng=np.random.default_rng(0), sample_rate_hz=RATE)
        for heard in player[:8]:
            partner.hear(heard, heard.heard.available_at / RATE)
        now_s = player[7].heard.available_at / RATE
        partner.change(wish, now_s)
        partner.hear_onset(now_s + 0.01, now_s + 0.02)
        answers.append([d.state for d in partner.decide(now_s + 0.02)])
    assert answers[0] == answers[1] != [None]


def test_mirror_listens_while_the_player_plays_and_answers_behind_the_phrase(trained, player):
    decisions = play(trained, player, "mirror")
    assert audible_share(decisions, 0.5, 6.0) < 0.1
    assert audible_share(decisions, 6.0, 9.0) > 0.4
    first = played(decisions)[0]
    assert first.answers is not None
    assert first.answers[0] == pytest.approx(0.0, abs=0.6)
    assert first.answers[1] == pytest.approx(6.0, abs=0.7)
    assert 6.0 < first.time_s < 8.0
    assert "it answers what you played from 0:0" in explain(first, ["rock"])
    assert {"listening"} <= {d.rest for d in decisions}


def test_mirror_yields_when_the_player_begins_again(trained, player):
    decisions = play(trained, player, "mirror", modes='[mirror]\nlike = "mirror"\nphrase = 4\n')
    again_s = 9.0
    answering = [d for d in played(decisions) if 6 < d.time_s < 12 and d.answers is not None and d.answers[1] < 7]
    assert max(d.time_s for d in answering) < again_s + 0.8
    assert "yields" in [d.rest for d in decisions]


def test_mirror_goes_over_the_phrase_from_its_beginning(trained, player):
    """With recall its states come from where the phrase was at the time, without it from its end."""
    heard = {}
    for recall in (0.0, 1.0):
        modes = f'[mirror]\nlike = "mirror"\nrecall = {recall}\nlive_weight = 0\ntemperature = 0\n'
        heard[recall] = [d.state for d in played(play(trained, player, "mirror", modes=modes)) if d.time_s < 9]
    assert heard[0.0]
    assert heard[1.0]
    assert heard[0.0] != heard[1.0]


def test_couple_plays_while_the_player_plays_and_breathes(trained, player):
    decisions = play(trained, player, "couple", seed=1)
    joined_s = played(decisions)[0].time_s
    assert joined_s < 3.1  # it listens for the pulse first
    assert audible_share(decisions, joined_s, 6.0) > 0.7
    breaths = [d for d in decisions if d.rest == "breath"]
    assert breaths
    for breath in breaths:
        assert breath.expected_s is not None
        later = [d for d in decisions if d.number > breath.number]
        if later and breath.time_s + breath.expected_s < player[-1].heard.available_at / RATE:
            # In time it decides ahead; a pulse may be found or lost while it breathes.
            assert later[0].time_s == pytest.approx(breath.time_s + breath.expected_s, abs=AHEAD_S + 1e-6)


def test_lead_proposes_before_anything_is_heard_and_goes_on_through_silence(trained, player):
    silent = [percept(i, audible=False) for i in range(20)]
    proposed = played(play(trained, silent, "lead"))
    assert proposed
    assert trained.memory.states["tokens"][proposed[0].state].tolist() != [SILENCE, SILENCE]
    assert audible_share(play(trained, player, "lead"), 6.5, 9.0) > 0.3


def test_lead_listens_less_than_shadow(trained, player):
    """The same partner with the same chances before two other players: shadow changes more than lead."""
    other = [
        dataclasses.replace(p, heard=dataclasses.replace(p.heard, chroma=np.roll(p.heard.chroma, 5, axis=1))) for p in player
    ]

    def carried(mode: str) -> float:
        shares = [
            sum(i.share for i in d.influences if i.name not in ("own", "continuity"))
            for d in played(play(trained, other, mode))
        ]
        return float(np.mean(shares))

    assert carried("shadow") > carried("couple") > carried("lead")


def test_contrast_is_soft_where_the_player_is_loud(trained, short_guitar):
    """What sounds counts: it also chooses what is soft as it was remembered, and that needs less gain."""
    samples, rate = soundfile.read(short_guitar, dtype="float32")

    def guitar(louder_db: float) -> list[Percept]:
        sound = np.concatenate([0.25 * samples[: 6 * rate], np.zeros(3 * rate)]).astype(np.float32)
        sound[int(1.75 * rate) : int(4.2 * rate)] *= 10 ** (louder_db / 20)
        return hear(trained, sound, rate)

    def velocity(mode: str, player: list[Percept]) -> float:
        decisions = played(play(trained, player, mode, time="free"))
        return float(np.mean([n.velocity for d in decisions if 2.5 < d.time_s < 4.5 for n in d.notes]))

    usual, loud = guitar(0), guitar(12)
    assert velocity("contrast", loud) < velocity("contrast", usual) - 10
    assert velocity("shadow", loud) > velocity("shadow", usual) + 10


def test_rest_is_one_decision_with_its_reason(trained, player):
    decisions = play(trained, player, "rest")
    assert [(d.kind, d.rest) for d in decisions] == [("rest", "on purpose")]
    assert explain(decisions[0], ["rock"]) == "At 0:00.42 rested: its mode is to listen in silence."


def test_mirror_answers_in_the_rhythm_of_the_players_phrase(trained, player):
    """Its gestures begin where the player's notes did, as much later as it is behind, until the player begins again."""
    onsets = np.array([o / RATE for p in player for o in p.heard.onset_samples])
    answers = [d for d in played(play(trained, player, "mirror", temperature=0)) if d.answers is not None]
    for phrase in {d.phrase for d in answers}:
        own = [d for d in answers if d.phrase == phrase]
        begins_s, (start_s, end_s) = own[0].time_s, own[0].answers
        asked = onsets[(onsets >= start_s - 0.01) & (onsets <= start_s + own[-1].time_s - begins_s)]
        struck = np.array([d.time_s - begins_s + start_s for d in own])
        assert len(struck) >= 3
        near = np.abs(struck[:, None] - asked[None, :]).min(axis=1) < 0.03
        assert near.mean() >= 0.85
        # Flams are one stroke, and nothing fits now and then.
        assert (np.abs(asked[:, None] - struck[None, :]).min(axis=1) < 0.09).mean() > 0.7
        assert end_s - start_s > 1
    free = play(trained, player, "mirror", temperature=0, modes='[mirror]\nlike = "mirror"\nrecall = 0\n')
    assert [d.time_s for d in played(free)] != [d.time_s for d in answers]


@pytest.mark.parametrize(("pace", "slower"), [(1.0, "sparse"), (-1.0, "dense")])
def test_pace_goes_along_with_the_player_or_against(trained, player, pace, slower):
    """Onsets made by hand, 12 and 1.5 a second: the sound is the same."""

    def struck(every: int) -> list[Percept]:
        return [
            dataclasses.replace(
                p,
                heard=dataclasses.replace(
                    p.heard, onset_samples=tuple(o for o in range(start, start + SEGMENT) if o % every == 0)
                ),
            )
            for p in player[:16]
            for start in [p.heard.start_sample]
        ]

    modes = f'[x]\nlike = "couple"\npace = {pace}\nphrase = 0.3\nbreath = 0\n'
    stretch = {
        name: np.mean([d.stretch for d in played(play(trained, struck(every), "x", modes=modes)) if d.time_s > 2])
        for name, every in (("dense", 2000), ("sparse", 16_000))
    }
    assert max(stretch, key=stretch.__getitem__) == slower
    assert stretch["dense"] != stretch["sparse"]


@pytest.mark.parametrize("dynamics", [0.0, 0.5, 1.0, -1.0])
def test_dynamics_are_the_players_as_far_as_they_are_not_the_recordings(trained, player, dynamics):
    """A state's own level is taken off as far as the player's is put on; neither is more than 12 dB."""
    states = trained.memory.states
    audible = (states["tokens"] != SILENCE).any(axis=1)
    usual_db = float(np.mean(states["level_db"][audible], dtype=np.float64))
    decisions = [d for d in played(play(trained, player, "couple", dynamics=dynamics, gain_db=0.0)) if not d.live]
    own_db = np.clip([float(states["level_db"][d.state]) - usual_db for d in decisions], -12, 12)
    rest_db = np.array([d.gain_db for d in decisions]) + abs(dynamics) * own_db
    assert (np.abs(rest_db) <= 12 * abs(dynamics) + 1e-6).all()
    if dynamics:
        assert len({round(x, 3) for x in rest_db.tolist()}) > 3, "the player's own dynamics"


# ── records, chance, blocks ──────────────────────────────────────────────────


@pytest.mark.parametrize("mode", [*MODES, "auto"])
def test_records_are_whole_and_everything_in_them_can_be_computed_again(trained, player, mode):
    decisions = play(trained, player, mode, seed=4)
    assert [d.number for d in decisions] == list(range(len(decisions)))
    for d in decisions:
        assert Decision.from_json(d.to_json()) == d
        assert d.mode in MODES
        if d.kind == "rest":
            assert d.rest in REST_REASONS
            continue
        total = sum(i.weight * i.value for i in d.influences)
        assert d.score == pytest.approx(d.filter * total)
        assert d.filter == pytest.approx(float(np.prod([f.factor for f in d.filters])))
        assert d.phrase >= 1
        own = None if d.live else list(trained.memory.notes_of(d.state))
        if own is not None:
            # What answers an onset begins with its first note; so does what goes over the player's phrase, at each stroke.
            fitting = [
                (offset_s, kept)
                for offset_s, kept in zip(struck_offsets_s(trained.memory, d.state), own, strict=True)
                if into_register(int(kept["pitch"]) + d.transposition + 12 * d.octaves, 0, 127) not in d.harmony.left_out
            ]
            first_s = min((offset_s for offset_s, _ in fitting), default=0.0)
            strikes = d.answers is not None and d.notes and d.notes[0].onset_s == pytest.approx(d.begin_s)
            waits_s = first_s if d.mode == "shadow" or strikes else 0.0
            held = 1.0
            if d.answers is not None:
                # Such an answer lasts until the next stroke, longer or shorter than it was remembered.
                held = max(1.0, d.duration_s / float(trained.memory.place(d.state).duration_s) / d.stretch)
            kept_notes = [
                (offset_s, kept)
                for offset_s, kept in fitting
                if d.answers is None or (offset_s - waits_s) * d.stretch < d.duration_s - 1e-9
            ]
            for note, (offset_s, kept) in zip(d.notes, kept_notes, strict=True):
                after_s = (offset_s - waits_s) * d.stretch
                if d.pulse is not None and offset_s - waits_s > ATTACK_S:
                    # What began without an attack begins on a part of the beat.
                    beats = d.pulse.got + after_s * d.tempo_bpm / 60
                    after_s += d.pulse.strength * (round(beats * 4) / 4 - beats) * 60 / d.tempo_bpm
                assert note.onset_s == pytest.approx(d.begin_s + after_s)
                assert note.duration_s == pytest.approx(float(kept["duration_s"]) * d.stretch * held)
    assert [d.phrase for d in played(decisions)] == sorted(d.phrase for d in played(decisions))


def test_the_plain_partner_is_scored_as_ever(trained, player):
    chosen = PartnerSettings(time="free")
    for d in played(answer(trained.memory, player, chosen)):
        check_score(json.loads(d.to_json()), chosen)
        assert (d.mode, d.stretch, d.returns, d.answers) == ("", 1.0, "", None)


@pytest.mark.parametrize("mode", ["shadow", pytest.param("mirror", marks=pytest.mark.slow), "auto"])
def test_the_same_seed_and_any_blocks_give_the_same_answer(trained, player, mode):
    first = play(trained, player, mode, seed=7)
    assert first == play(trained, player, mode, seed=7)
    assert first == play(trained, player, mode, seed=7, block=1237)
    assert plays(first) != plays(play(trained, player, mode, seed=9))


# ── the player's wishes ──────────────────────────────────────────────────────


def test_a_mode_is_taken_up_at_once(trained, player):
    decisions = play(trained, player, "rest", wishes=[(2.0, {"mode": "couple"})])
    assert played(decisions)[0].time_s == pytest.approx(2.0, abs=0.02)
    assert {d.mode for d in played(decisions)} == {"couple"}
    quiet = play(trained, player, "couple", wishes=[(2.0, {"mode": "rest"})])
    assert all(d.time_s < 2.0 for d in played(quiet))


def test_a_mode_can_be_chosen_where_there_was_none(trained, player):
    decisions = play(trained, player, "", wishes=[(2.0, {"mode": "rest"})])
    assert played(decisions)
    assert all(d.time_s < 2.0 for d in played(decisions))


def test_settings_by_hand_stay_whatever_the_mode(trained, player):
    decisions = play(trained, player, "shadow", wishes=[(0.0, {"gain_db": -15.0, "dynamics": 0.0}), (2.0, {"mode": "lead"})])
    assert {d.gain_db for d in played(decisions)} == {-15.0}
    assert {d.gain_db for d in played(play(trained, player, "lead", gain_db=-9.0, dynamics=0.0))} == {-9.0}


def test_a_region_is_kept_and_given_up(trained, player):
    decisions = play(trained, player, "couple", live_weight=0.0, wishes=[(0.0, {"region": "0:0-4"}), (4.0, {"region": ""})])
    assert all(d.source_start_s < 4 for d in played(decisions) if d.time_s < 4)
    assert any(d.source_start_s >= 4 for d in played(decisions) if d.time_s > 4)


def test_other_voices_may_be_chosen_whatever_was_set_of_those_before(trained):
    settings = PartnerSettings.from_dict({"direction": {"mode": "couple"}, "voices": "melody, bass", "bass.low_pitch": 36})
    partner = Partner(trained.memory, settings, rng=np.random.default_rng(0), sample_rate_hz=RATE)
    partner.change({"melody.gain_db": 3.0}, 1.0)
    partner.change({"voices": "all"}, 2.0)
    assert [voice.name for voice in partner.settings.voices] == ["all"]
    partner.change({"voices": "bass", "bass.low_pitch": 30}, 3.0)
    assert [(voice.name, voice.low_pitch) for voice in partner.settings.voices] == [("bass", 30)]


@pytest.mark.parametrize(
    ("region", "kept"),
    [
        ("all", ()),
        ("", ()),
        (None, ()),
        (0, (Region(recording=0),)),
        ([0.0, 10.0, 20.5], (Region(recording=0, start_s=10.0, end_s=20.5),)),
        ([0, 4], (Region(recording=0, start_s=4.0),)),
    ],
)
def test_a_region_as_controllers_send_it(trained, region, kept):
    partner = Partner(trained.memory, PartnerSettings(), rng=np.random.default_rng(0), sample_rate_hz=RATE)
    partner.change({"region": "0:0-4"}, 1.0)
    partner.change({"region": region, "avoid": "none"}, 2.0)
    assert (partner.settings.use, partner.settings.avoid) == (kept, ())


def test_change_changes_and_more_like_this_stays_near(trained, player):
    plain = play(trained, player, "auto")
    changed = play(trained, player, "auto", wishes=[(3.0, {"change": True})])
    assert plays(plain) != plays(changed)
    assert {d.mode for d in changed if d.time_s > 3.05} != {"couple"}
    more = play(trained, player, "couple", live_weight=0.0, wishes=[(5.0, {"more_like_this": True})])
    after = [d for d in played(more) if d.time_s > 5.0]
    assert after
    assert all(any(f.name == "more like this" for f in d.filters) for d in after)


def test_less_like_this_keeps_away_for_a_while_and_says_so(trained, player):
    plain = play(trained, player, "couple", live_weight=0.0)
    less = play(trained, player, "couple", live_weight=0.0, wishes=[(5.0, {"less_like_this": True})])
    assert plays([d for d in less if d.time_s <= 5.0]) == plays([d for d in plain if d.time_s <= 5.0])
    after = [d for d in played(less) if d.time_s > 5.0]
    assert after
    assert all(any(f.name == "less like this" for f in d.filters) for d in after)
    before = [d.state for d in played(less) if d.time_s <= 5.0][-24:]
    near = [d for d in after if min(abs(d.state - s) for s in before) <= 24]
    factors = {id(d): next(f.factor for f in d.filters if f.name == "less like this") for d in after}
    assert all(factors[id(d)] == (0.3 if d in near else 1.0) for d in after)
    assert len(near) < len([d for d in played(plain) if d.time_s > 5.0 and min(abs(d.state - s) for s in before) <= 24])
    held = [f for d in near[:1] for f in d.filters if f.name == "less like this"]
    words = [explain(dataclasses.replace(d, filters=tuple(held)), ["rock"]) for d in near[:1]]
    assert all("held back to 30% by being near what you wanted less of" in text for text in words)


def test_go_back_brings_back_the_phrase_before_and_says_so(trained, player):
    decisions = play(trained, player, "couple", wishes=[(5.0, {"go_back": True})])
    back = [d for d in played(decisions) if d.returns and d.time_s >= 5.0]
    assert back
    assert back[0].time_s == pytest.approx(5.0, abs=0.9)
    before = [d.state for d in played(decisions) if d.time_s < 5.0]
    states = [d.state for d in back[:3]]
    assert any(before[i : i + len(states)] == states for i in range(len(before)))
    assert "it brings back its own motif of 0:0" in explain(back[0], ["rock"])


@pytest.mark.parametrize(
    "wish",
    [
        {"mode": "loud"}, {"mode": 3}, {"region": "middle"}, {"region": [0.5]},
        {"region": [0, 9, 4]}, {"region": [True]},
        {"region": 1}, {"avoid": "0, 7:0-4"}, {"clock": 5}, {"volume": 1}, {"pace": 9.0},
        {"direction": {"mode": "lead"}}, {"mode": "lead", "pace": 9.0},
        {"pause": True, "next_section": True}, {"pause": True, "mode": "loud"}, {"pause": True, "mode": 3},
    ],
)  # fmt: skip
def test_a_wish_that_is_not_possible_is_refused_and_changes_nothing(trained, player, wish):
    partner = Partner(
        trained.memory,
        PartnerSettings.from_dict({"direction": {"mode": "couple"}}),
        rng=np.random.default_rng(0),
        sample_rate_hz=RATE,
    )
    before = partner.settings
    with pytest.raises(InputError):
        partner.change(wish, 1.0)
    assert partner.settings == before
    partner.hear(player[0], 1.0)
    assert {(d.mode, d.rest == "paused") for d in partner.decide(1.1)} == {("couple", False)}


# ── time ─────────────────────────────────────────────────────────────────────


def test_its_time_is_stretched_to_the_players_pace(trained, player):
    slow = slowed(player, 1.8)
    fast = [d.stretch for d in played(play(trained, player, "shadow"))]
    late = [d.stretch for d in played(play(trained, slow, "shadow"))]
    assert np.median(late[10:]) > 1.2 * np.median(fast[10:])
    assert max(late) <= PartnerSettings().pace_limit


def struck_offsets_s(memory, state) -> list[float]:
    """Return the offsets of a state's notes; those that it was struck with begin with it."""
    together_s = 0.05 if memory.states["starts_at_onset"][state] else 0.0
    return [0.0 if offset <= together_s else float(offset) for offset in memory.notes_of(state)["offset_s"]]


def slowed(player: list[Percept], factor: float) -> list[Percept]:
    """Return the same player with onsets so many times further apart, and nothing else changed."""
    onsets = sorted({round(o * factor) for p in player for o in p.heard.onset_samples})
    out = []
    for p in player:
        first, last = p.heard.start_sample, p.heard.start_sample + p.heard.length_samples
        own = tuple(o for o in onsets if first <= o < last)
        out.append(dataclasses.replace(p, heard=dataclasses.replace(p.heard, onset_samples=own)))
    return out


def test_notes_fall_on_a_clock_where_that_is_asked_for(trained, player):
    clock = {"clock": {"beat_s": 0.1, "period_s": 0.5}}
    wishes = [(float(t), clock) for t in range(0, 17, 2)]
    strict = play(trained, player, "couple", quantise=1.0, subdivision=2, wishes=wishes)
    places = np.array([note.onset_s for d in played(strict) for note in d.notes if d.time_s > 0.5])
    off = np.abs((places - 0.1 + 0.125) % 0.25 - 0.125)
    assert len(places) > 20
    assert off.max() < 1e-6
    assert {d.tempo_bpm for d in played(strict) if d.time_s > 0.5} == {120.0}
    free = play(trained, player, "couple", wishes=wishes)
    loose = np.array([note.onset_s for d in played(free) for note in d.notes])
    assert np.abs((loose - 0.1 + 0.125) % 0.25 - 0.125).max() > 0.05


def test_a_clock_that_is_lost_is_not_followed(trained, player):
    gone = play(trained, player, "couple", quantise=1.0, pulse_confidence=1.0, wishes=[(0.1, {"clock": 120})])
    assert {d.tempo_bpm for d in played(gone) if 0.5 < d.time_s < 10} == {120.0}
    assert {d.pulse.source for d in played(gone) if d.pulse and 0.5 < d.time_s < 10} == {"clock"}
    assert "clock" not in {d.pulse.source for d in played(gone) if d.pulse and d.time_s > 10.2}


# ── bad input ────────────────────────────────────────────────────────────────


def partner_with(trained, direction) -> Partner:
    settings = PartnerSettings.from_dict({"direction": direction})
    return Partner(trained.memory, settings, rng=np.random.default_rng(0), sample_rate_hz=RATE)


def test_an_unknown_mode_or_a_wrong_table_is_refused_at_the_beginning(trained):
    for direction, says in (
        ({"mode": "loud"}, "unknown mode 'loud'"),
        ({"mode": "couple", "modes": "[x]\nvolume = 1"}, "volume"),
        ({"mode": "couple", "form": "[[section]]\nfrom = -1"}, r"seconds in \["),
        ({"mode": 3}, "direction must be a table of texts"),
        ({"tempo": "x"}, "direction must be a table of texts"),
    ):
        with pytest.raises(InputError, match=says):
            partner_with(trained, direction)


def over_and_over(of: list[Percept], *, minutes: float) -> list[Percept]:
    """Return percepts over and over, for some minutes of stream."""
    segments = int(60 * minutes / SEGMENT_S)
    out = []
    for index in range(segments):
        like = of[index % len(of)]
        shift = index * SEGMENT - like.heard.start_sample
        heard = dataclasses.replace(
            like.heard,
            index=index,
            start_sample=index * SEGMENT,
            available_at=like.heard.available_at + shift,
            frame_samples=like.heard.frame_samples + shift,
            onset_samples=tuple(o + shift for o in like.heard.onset_samples),
            notes=tuple(dataclasses.replace(n, onset_s=n.onset_s + shift / RATE) for n in like.heard.notes),
        )
        gestures = tuple(dataclasses.replace(g, start_s=g.start_s + shift / RATE) for g in like.gestures)
        out.append(dataclasses.replace(like, heard=heard, gestures=gestures))
    return out


def test_a_player_who_is_silent_for_two_minutes_is_waited_for_and_lead_gives_up(trained):
    silent = [percept(i, audible=False) for i in range(int(120 / SEGMENT_S))]
    for mode in ("shadow", "mirror", "couple", "contrast"):
        decisions = play(trained, silent, mode, block=RATE)
        assert [(d.kind, d.rest) for d in decisions] == [("rest", "waiting")]
    lead = play(trained, silent, "lead", block=RATE)
    assert played(lead)
    assert played(lead)[-1].time_s < 25
    assert lead[-1].rest == "silence"


def test_a_player_who_falls_silent_is_let_go(trained, player):
    silent = [percept(len(player) + i, audible=False) for i in range(60)]
    for mode in (*MODES, "auto"):
        decisions = play(trained, [*player, *silent], mode)
        assert decisions[-1].kind == "rest"
        last = max(d.time_s for d in played(decisions))
        assert last < 17 + 21


@pytest.fixture(scope="module")
def noise(trained) -> list[Percept]:
    rng = np.random.default_rng(0)
    return hear(trained, (0.1 * rng.standard_normal(8 * 44_100)).astype(np.float32), 44_100)[:-1]


@pytest.mark.slow
@pytest.mark.parametrize("mode", [*MODES, "auto"])
def test_white_noise_for_five_minutes_is_borne(trained, noise, mode):
    decisions = play(trained, over_and_over(noise, minutes=5), mode, block=RATE)
    assert len(decisions) < 3000
    for d in played(decisions):
        # What is played has a place, and noise has no harmony to speak for it.
        assert d.live or d.state < len(trained.memory)
        assert next(i.value for i in d.influences if i.name == "chroma") == pytest.approx(0.0, abs=0.2)


@pytest.mark.slow
def test_ten_minutes_of_music_leave_time_for_every_mode_and_nothing_grows_out_of_bounds(trained, player):
    settings = PartnerSettings.from_dict({"direction": {"mode": "auto"}})
    decisions = answer(trained.memory, over_and_over(player, minutes=10), settings, onsets=True, block=RATE)
    modes = list(dict.fromkeys(d.mode for d in decisions))
    assert len(modes) >= 3
    changes = [a.time_s for a, b in zip(decisions[1:], decisions[:-1], strict=True) if a.mode != b.mode]
    assert all(later - earlier >= 8 for earlier, later in itertools.pairwise(changes))
    assert any(d.returns for d in decisions)


@pytest.mark.parametrize("mode", MODES)
def test_a_player_in_another_key_is_answered_in_it(trained, player, mode):
    other = [
        dataclasses.replace(p, heard=dataclasses.replace(p.heard, chroma=np.roll(p.heard.chroma, 3, axis=1))) for p in player
    ]
    decisions = play(trained, other, mode, live_weight=0.0)
    assert played(decisions)
    if mode in ("shadow", "couple"):
        moved = [d.transposition for d in played(decisions)]
        assert np.mean([t != 0 for t in moved]) > 0.4
