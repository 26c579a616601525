import dataclasses

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from musichal.errors import InputError
from musichal.live.engine import note_events, slice_events
from musichal.memory.memory import Memory
from musichal.note import HeardNote
from musichal.partner.decision import Decision
from musichal.partner.memory_pool import MemoryPool
from musichal.partner.partner import Partner
from musichal.partner.settings import VOICES, PartnerSettings, Region, VoiceSettings
from musichal.partner.voices import Voices, into_register, louder, notes_around, octaves_towards, unheard_voices
from partners_by_hand import gesture
from players_by_hand import answer, hear, percept

pytestmark = pytest.mark.usefixtures("heard_once")

BAND = PartnerSettings.from_dict({"voices": "melody,bass,chords"})


def memory_of(*states) -> Memory:
    """A state of a quarter of a second for each row of (offset, duration, pitch)."""
    memory = Memory(dims=2, threshold=0.5)
    for i, notes in enumerate(states):
        own = [HeardNote(0.25 * i + offset, duration, pitch, 80) for offset, duration, pitch in notes]
        memory.append(gesture(0.25 * i, 0.25, (i % 60, 0)), own, recording=0)
    return memory


def play(memory, state, chosen=BAND, *, voices=None, now_s=10.0, transposition=0, gain_db=0.0):
    voices = voices or Voices()
    parts = voices.share(
        MemoryPool(memory), state, transposition=transposition, now_s=now_s, duration_s=0.25, gain_db=gain_db, settings=chosen
    )
    parts = voices.strike(parts, chosen)
    return {v: [(n.pitch, round(n.onset_s - now_s, 3), round(n.duration_s, 3)) for n in notes] for v, notes in parts.items()}


def test_a_chord_is_shared_out_and_bass_and_chords_are_held():
    memory = memory_of([(0.0, 0.1, 40), (0.0, 0.1, 55), (0.0, 0.1, 59), (0.0, 0.1, 76), (0.13, 0.1, 79)])
    got = play(memory, 0)
    assert got["melody"] == [(76, 0.0, 0.1), (79, 0.13, 0.1)]
    assert got["bass"] == [(40, 0.0, 0.25)]
    assert {p % 12 for p, _, _ in got["chords"]} <= {55 % 12, 59 % 12, 76 % 12}
    assert {p % 12 for p, _, _ in got["chords"]} >= {55 % 12, 59 % 12}
    assert all(length == 0.25 for _, _, length in got["chords"])


def test_harmony_of_a_single_line_is_what_it_has_just_sounded():
    memory = memory_of([(0.0, 0.2, 60)], [(0.0, 0.2, 64)], [(0.0, 0.2, 67)])
    got = play(memory, 2)
    assert [p for p, _, _ in got["melody"]] == [67]
    assert {p % 12 for p, _, _ in got["chords"]} == {0, 4, 7}
    assert [p % 12 for p, _, _ in got["bass"]] == [0]
    assert {n.pitch for n in notes_around(MemoryPool(memory), 2)} == {60, 64, 67}
    assert {n.pitch for n in notes_around(MemoryPool(memory), 0)} == {60}


def test_a_single_low_note_is_the_bass_alone():
    got = play(memory_of([(0.0, 0.2, 40)]), 0)
    assert got["melody"] == []
    assert [p for p, _, _ in got["bass"]] == [40]


def test_each_voice_keeps_its_density_and_a_held_note_is_not_struck_again():
    memory = memory_of([(0.0, 2.0, 40), (0.0, 0.2, 70)])
    voices = Voices()
    struck = {"melody": 0, "bass": 0, "chords": 0}
    for i in range(8):
        for name, notes in play(memory, 0, voices=voices, now_s=10 + 0.25 * i).items():
            struck[name] += bool(notes)
    assert struck["melody"] == 8
    assert struck["bass"] == 1, "it still sounds"
    sparse = PartnerSettings.from_dict({"voices": "melody", "melody.most_per_s": 1.0})
    voices = Voices()
    assert sum(bool(play(memory, 0, sparse, voices=voices, now_s=0.25 * i)["melody"]) for i in range(17)) == 5


def test_chords_are_led_by_octaves_to_where_the_last_one_was():
    chord, other = ([(0.0, 0.2, p) for p in pitches] for pitches in ((40, 60, 64, 67, 79), (41, 65, 69, 72, 84)))
    memory = memory_of(chord, *([[]] * 5), other)
    voices = Voices()
    chords = [sorted(p for p, _, _ in play(memory, state, voices=voices, now_s=10.0 + 5 * state)["chords"]) for state in (0, 6)]
    assert chords == [[60, 64, 67], [60, 65, 69]]
    higher = BAND.changed({"chords.high_pitch": 110})
    parts = voices.share(
        MemoryPool(memory), 6, transposition=24, now_s=20.0, duration_s=0.2, gain_db=0.0, settings=higher
    )  # fmt: skip
    high = [n.pitch for n in parts["chords"]]
    assert sorted(high) == [89, 93, 96], "another register is another place"


@given(st.integers(-30, 160), st.integers(0, 116), st.integers(11, 127))
def test_registers_move_by_octaves_only(pitch, low, span):
    high = min(127, low + span)
    got = into_register(pitch, low, high)
    assert (got - pitch) % 12 == 0
    assert low <= got <= high
    if low <= pitch <= high:
        assert got == pitch


@given(st.integers(1, 127), st.floats(-80, 80))
def test_louder_is_louder_and_stays_a_velocity(velocity, gain_db):
    got = louder(velocity, gain_db)
    assert 1 <= got <= 127
    assert (got >= velocity) if gain_db >= 0 else (got <= velocity)
    assert louder(velocity, 0.0) == velocity


@given(
    st.lists(st.lists(st.tuples(st.sampled_from([0.0, 0.1]), st.sampled_from([0.1, 1.5]), st.integers(0, 127)), max_size=6),
             min_size=1, max_size=6),
    st.integers(-6, 6),
)  # fmt: skip
def test_no_voice_plays_what_memory_did_not_have_there(states, transposition):
    memory = memory_of(*states)
    for state in range(len(memory)):
        classes = {(n.pitch + transposition) % 12 for n in notes_around(MemoryPool(memory), state)}
        own = {(int(n["pitch"]) + transposition) % 12 for n in memory.notes_of(state)}
        got = play(memory, state, transposition=transposition)
        for voice in BAND.voices:
            for pitch, onset, length in got[voice.name]:
                assert voice.low_pitch <= pitch <= voice.high_pitch
                assert pitch % 12 in (own if voice.part == "melody" else classes)
                assert onset >= 0
                assert length > 0


def test_a_band_on_real_music_belongs_together(trained, short_guitar):
    samples, rate = soundfile.read(short_guitar, dtype="float32")
    heard = hear(trained, samples, rate)
    decisions = [d for d in answer(trained.memory, heard, BAND) if d.kind == "play"]
    by_choice: dict[int, list] = {}
    for d in decisions:
        by_choice.setdefault(d.choice, []).append(d)
    assert {d.voice for d in decisions} == {"melody", "bass", "chords"}
    for together in by_choice.values():
        assert len({(d.time_s, d.state, d.transposition, d.duration_s, d.score) for d in together}) == 1
        assert len({d.voice for d in together}) == len(together)
    assert [d.number for d in decisions] == sorted({d.number for d in decisions})
    pitches = {v: [n.pitch for d in decisions if d.voice == v for n in d.notes] for v in ("melody", "bass", "chords")}
    assert np.mean(pitches["melody"]) > np.mean(pitches["chords"]) > np.mean(pitches["bass"])
    # One slice for each choice, however many voices.
    assert len(slice_events(decisions)) == len([c for c in by_choice.values() if not c[0].live])
    # The same choices as with one voice, where it need not tell its own sound, which is another one, from the player's.
    deaf_to_itself = [
        [d for d in answer(trained.memory, heard, s, knows_its_sound=False) if d.kind == "play"] for s in (None, BAND)
    ]
    alone, band = ({d.choice: d.state for d in decisions} for decisions in deaf_to_itself)
    assert alone == band


@pytest.mark.parametrize("ends", [("low_pitch", 40, 70), ("high_pitch", 70, 110), ("most_per_s", 0.5, 20.0),
                                  ("gain_db", -10.0, 10.0), ("hold", 0.0, 1.0)])  # fmt: skip
def test_each_setting_of_a_voice_changes_what_it_plays(trained, short_guitar, ends):
    name, low, high = ends
    samples, rate = soundfile.read(short_guitar, dtype="float32")
    heard = hear(trained, samples[: 6 * rate], rate)
    base = BAND.changed({"melody.low_pitch": 40, "melody.high_pitch": 110, "tension": 1})
    notes = [
        [d.notes for d in answer(trained.memory, heard, base.changed({f"melody.{name}": value})) if d.voice == "melody"]
        for value in (low, high)
    ]
    assert notes[0] != notes[1]


def test_settings_of_voices_and_regions():
    chosen = PartnerSettings.from_dict({"voices": "bass,melody", "bass.most_per_s": 1, "use": "0:1-2.5, 3"})
    assert [v.name for v in chosen.voices] == ["bass", "melody"]
    assert chosen.voices[0].most_per_s == 1.0
    assert chosen.use == (Region(recording=0, start_s=1.0, end_s=2.5), Region(recording=3))
    assert PartnerSettings.from_dict(chosen.to_dict()) == chosen
    assert chosen.changed({"melody.hold": 0.5}).voices[1].hold == 0.5
    assert chosen.changed({"voices": "all"}).voices == VOICES[:1]
    assert dataclasses.replace(chosen).changed({}) == chosen


@pytest.mark.parametrize(
    "wrong",
    [{"voices": ""}, {"voices": "flute"}, {"voices": []}, {"voices": "bass,bass"}, {"voices": [{"name": "Ä"}]},
     {"voices": [{"part": "x"}]}, {"voices": [{"nothing": 1}]}, {"voices": 3}, {"bass.hold": 1}, {"all.nothing": 1},
     {"all.hold": 2}, {"all.hold": "x"}, {"all.low_pitch": 120}, {"low_pitch": 100, "high_pitch": 105}, {"use": "x"},
     {"use": "0:2-1"}, {"use": [{"start_s": 1}]}, {"avoid": "0:1"}, {"avoid": -5}, {"avoid": [0, 1, 2, 3]},
     {"avoid": True}, {"scenario": "H"}, {"scenario": 3}, {"follow_harmony": 2}, {"follow_density": -1.5},
     {"live_weight": 1.1}, {"live_gestures": 0}, {"activation_s": 0}, {"max_candidates": 10**9}, {"temperature": True},
     {"temperature": float("nan")}],
)  # fmt: skip
def test_what_is_out_of_range_is_refused_in_one_line(wrong):
    with pytest.raises(InputError) as caught:
        PartnerSettings.from_dict(wrong)
    assert "\n" not in str(caught.value)


def test_a_change_that_is_refused_changes_nothing(trained):
    partner = Partner(trained.memory, PartnerSettings(), rng=np.random.default_rng(0), sample_rate_hz=24_000)
    with pytest.raises(InputError):
        partner.change({"temperature": 0.5, "no_repeat": -1}, 0.0)
    assert partner.settings == PartnerSettings()
    partner.change({"temperature": 0.5, "voices": "melody,bass"}, 0.0)
    assert [v.name for v in partner.settings.voices] == ["melody", "bass"]
    assert isinstance(partner.settings.voices[0], VoiceSettings)


@given(st.floats(0, 127), st.floats(0, 127), st.floats(-1, 1))
def test_a_state_moves_by_an_octave_only_towards_what_is_wanted_and_only_if_that_is_nearer(wanted, middle, how):
    octaves = octaves_towards(wanted, middle, how)
    assert octaves in (-1, 0, 1)
    if octaves:
        assert abs(wanted - (middle + 12 * octaves)) < abs(wanted - middle)
        assert octaves_towards(wanted, middle, 1.0) == octaves, "with more strength no less"
    elif abs(how) == 1:
        assert abs(wanted - middle) <= 6
    assert octaves_towards(wanted, middle, 0.0) == octaves_towards(None, middle, how) == 0


@pytest.mark.parametrize(("how", "sign"), [(1.0, 1), (-1.0, -1)])
def test_register_is_followed_or_opposed_and_the_record_says_by_which_octave(trained, short_guitar, how, sign):
    """The same player, an octave and a half lower and higher as far as pitch goes."""
    samples, rate = soundfile.read(short_guitar, dtype="float32")
    heard = hear(trained, samples[: 8 * rate], rate)

    def moved(by):
        return [
            dataclasses.replace(p, heard=dataclasses.replace(
                p.heard, notes=tuple(dataclasses.replace(n, pitch=n.pitch + by) for n in p.heard.notes)
            ))
            for p in heard
        ]  # fmt: skip

    answers = [answer(trained.memory, moved(by), PartnerSettings(follow_register=how)) for by in (-18, 18)]
    low, high = (np.mean([n.pitch for d in own for n in d.notes]) for own in answers)
    assert sign * (high - low) > 6
    for decision in (d for own in answers for d in own if d.kind == "play"):
        pitches = [int(n["pitch"]) for n in trained.memory.notes_of(decision.state)] if not decision.live else []
        if pitches:
            moved_by = decision.transposition + 12 * decision.octaves
            kept = [p + moved_by for p in pitches if p + moved_by not in decision.harmony.left_out]
            assert [n.pitch for n in decision.notes] == kept


# ── drums ────────────────────────────────────────────────────────────────────

WITH_DRUMS = PartnerSettings.from_dict({"voices": "melody,drums"})


def memory_with_hits(*states) -> Memory:
    """A state of a quarter of a second for each pair of pitches and drum hits (offset, key, velocity)."""
    memory = Memory(dims=2, threshold=0.5)
    for i, (pitches, hits) in enumerate(states):
        notes = [HeardNote(0.25 * i, 0.2, pitch, 80) for pitch in pitches]
        struck = [HeardNote(0.25 * i + offset, 0.1, key, velocity) for offset, key, velocity in hits]
        memory.append(gesture(0.25 * i, 0.25, (i % 60, 0)), notes, recording=0, hits=struck)
    return memory


def test_drums_are_a_states_hits_at_their_own_keys_whatever_the_transposition_and_the_register():
    memory = memory_with_hits(([60], [(0.0, 36, 100), (0.004, 49, 90), (0.125, 42, 60)]))
    settings = WITH_DRUMS.changed({"low_pitch": 70, "high_pitch": 90, "drums.gain_db": -6.0})
    parts = Voices()
    got = parts.strike(
        parts.share(MemoryPool(memory), 0, transposition=7, now_s=5.0, duration_s=0.25, gain_db=0.0, settings=settings),
        settings,
    )
    assert [(n.pitch, round(n.onset_s, 3), n.channel) for n in got["drums"]] == [(36, 5.0, 9), (49, 5.004, 9), (42, 5.125, 9)]
    assert [n.velocity for n in got["drums"]] == [louder(v, -6.0) for v in (100, 90, 60)]
    assert [n.channel for n in got["melody"]] == [0]


def test_drums_count_strikes_not_hits():
    memory = memory_with_hits(([], [(0.0, 36, 100), (0.0, 42, 90), (0.1, 42, 60), (0.2, 42, 60)]))
    settings = WITH_DRUMS.changed({"drums.most_per_s": 5.5})
    voices = Voices()
    shared = voices.share(MemoryPool(memory), 0, transposition=0, now_s=0.0, duration_s=0.25, gain_db=0.0, settings=settings)
    assert [n.pitch for n in voices.strike(shared, settings)["drums"]] == [36, 42, 42]


def test_a_memory_of_drums_alone_plays_drums_and_says_what_other_voices_miss():
    memory = memory_with_hits(*[([], [(0.0, 36 if i % 2 else 38, 90)]) for i in range(40)])
    percepts = [percept(i, gestures=[gesture(0.35 * i, 0.35, (i, 0))]) for i in range(20)]
    decisions = answer(memory, percepts, PartnerSettings.from_dict({"voices": "drums"}))
    played = [d for d in decisions if d.kind == "play"]
    assert played
    assert {n.pitch for d in played for n in d.notes} <= {36, 38}
    assert all(n.channel == 9 for d in played for n in d.notes)
    assert [Decision.from_json(d.to_json()) for d in played] == played
    assert {n.channel for n in note_events(played, channel=2)} == {9}
    assert "hold drums and no notes" in unheard_voices(memory, PartnerSettings())
    few = memory_with_hits(([60], []), *[([], [(0.0, 36, 90)]) for _ in range(40)])
    assert "hardly any notes: only the voice drums" in unheard_voices(few, PartnerSettings())
    assert "hold no drums" in unheard_voices(memory_of([(0.0, 0.1, 60)]), WITH_DRUMS)
    assert unheard_voices(memory, WITH_DRUMS) == ""
