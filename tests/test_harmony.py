"""Harmony: what memory expects to sound, in which key, and what is left out for it."""

import dataclasses

import numpy as np
import pytest

from musichal.memory.beat_places import NO_BEAT, BeatPlace
from musichal.memory.memory import Memory
from musichal.note import HeardNote, Note
from musichal.partner.chords import ChordFollower, chord_name, chords_of, key_name
from musichal.partner.expectation import FREE_PERIOD_S, MOST_STATES, HarmonyFollower, harmonic_cells
from musichal.partner.harmony import KeptTransposition, harmonic_fit
from musichal.partner.partner import Partner
from musichal.partner.settings import PartnerSettings
from musichal.partner.voices import without_clashes
from musichal.pulse import Pulse
from partners_by_hand import gesture
from players_by_hand import SEGMENT, answer, percept

RATE, SEGMENT_S = 24_000, SEGMENT / 24_000
C, F, G, AM, DM = (0, 4, 7), (5, 9, 0), (7, 11, 2), (9, 0, 4), (2, 5, 9)
SONG = (C, AM, DM, G)


def chroma(classes, moved: int = 0) -> np.ndarray:
    out = np.full(12, 0.05, dtype=np.float32)
    out[[(c + moved) % 12 for c in classes]] = 1
    return out


def band(
    chords=SONG, times: int = 6, beats: int = 4, *, foreign: bool = False, place: BeatPlace = NO_BEAT
) -> Memory:  # fmt: skip
    """Return a memory of a band whose every beat is a gesture of half a second with the notes of its chord."""
    memory, start_s = Memory(dims=2, threshold=0.5), 0.0
    for number, chord in enumerate(chords * times):
        for beat in range(beats):
            notes = [HeardNote(start_s, 0.4, 60 + c, 90) for c in (*chord, *((chord[0] + 1,) if foreign else ()))]
            own = gesture(start_s, FREE_PERIOD_S, (number % 7, beat))
            memory.append(dataclasses.replace(own, chroma=chroma(chord)), notes, recording=0, beat=place)
            start_s += FREE_PERIOD_S
    return memory


def line(seconds: float, chords=SONG, *, moved=lambda _bar: 0, size: float = 4 * FREE_PERIOD_S):
    """Return what is heard of a player who plays one note of the chord after the other, half a second each."""
    out = []
    for i in range(int(seconds / SEGMENT_S)):
        bar, beat = divmod(int(i * SEGMENT_S / FREE_PERIOD_S), int(size / FREE_PERIOD_S))
        out.append(percept(i, chroma=chroma([chords[bar % len(chords)][beat % 3]], moved(bar))))
    return out


def followed(memory: Memory, heard) -> list:
    follower = HarmonyFollower(harmonic_cells(memory), sample_rate_hz=RATE)
    out = []
    for p in heard:
        follower.hear(p, None)
        out.append(follower.expected(p.heard.chroma.sum(axis=0)))
    return out


def in_tune(expected, heard, chords=SONG, *, moved=lambda _bar: 0):
    """Return for each percept how many of the three likeliest pitch classes sound in the band just after it."""
    out = []
    for i, e in enumerate(expected):
        bar = int(((i + 1) * SEGMENT_S + 0.2) / (4 * FREE_PERIOD_S))
        there = {(c + moved(bar)) % 12 for c in chords[bar % len(chords)]}
        out.append(len(there & set(np.argsort(-e.classes)[:3].tolist())) / 3)
    return np.array(out)


def test_a_line_of_single_notes_finds_the_chords_that_memory_has_for_it():
    heard = line(24.0)
    fits = in_tune(followed(band(), heard), heard)
    assert fits[12:].mean() > 0.8
    # What was just played alone knows one note of three, and by chance one more.
    alone = in_tune(followed(Memory(dims=2, threshold=0.5), heard), heard)
    assert fits[12:].mean() > alone[12:].mean() + 0.2


@pytest.mark.parametrize("jump", [6, -1, 3])
def test_it_follows_a_modulation_within_four_beats(jump):
    heard = line(48.0, moved=lambda bar: jump * (bar >= 12))
    expected = followed(band(), heard)
    fits = in_tune(expected, heard, moved=lambda bar: jump * (bar >= 12))
    at = int(24.0 / SEGMENT_S) + 1
    four_beats = int(4 * FREE_PERIOD_S / SEGMENT_S) + 1
    assert fits[at + four_beats : at + 3 * four_beats].mean() >= 0.9 * fits[12:at].mean()
    assert expected[at - 2].transpositions.argmax() == 0
    assert expected[-1].transpositions.argmax() == jump % 12


def test_a_memory_in_another_key_is_played_in_the_players():
    decisions = answer(band(), line(12.0, moved=lambda _: 4), PartnerSettings(temperature=0))
    played = [d for d in decisions if d.kind == "play" and d.time_s > 4]
    assert {d.transposition for d in played if not d.live} == {4}
    assert not any(d.live and d.transposition for d in played)
    assert any("your" in d.harmony.moved for d in decisions if d.kind == "play" and d.transposition)


def test_a_player_in_another_key_and_mode_is_played_in_theirs():
    """The memory is in C major; the player's F minor has the notes of A flat major."""
    heard = line(16.0, ((5, 8, 0), (10, 1, 5), (3, 7, 10), (8, 0, 3)))
    decisions = answer(band(), heard, PartnerSettings(temperature=0, live_weight=0))
    classes = [n.pitch % 12 for d in decisions if d.time_s > 4 for n in d.notes]
    assert classes
    assert {*classes} <= {5, 7, 8, 10, 0, 1, 3}


def test_a_transposition_is_kept_unless_the_harmony_moves():
    allowed, likely = np.arange(-5, 7), np.full(12, 0.02)
    likely[[0, 2]] = 0.3, 0.5
    kept = KeptTransposition()
    assert kept.at(likely, allowed, penalty=0.0, begins=False).transposition == 0
    assert kept.at(likely, allowed, penalty=0.0, begins=True).transposition == 0, "not much likelier"
    likely[[0, 2]] = 0.1, 0.7
    begun = kept.at(likely, allowed, penalty=0.0, begins=True)
    moved = kept.at(likely, allowed, penalty=0.0, begins=False)
    assert begun.transposition == moved.transposition == 2
    assert "key" in begun.why
    assert "moved" in moved.why
    assert moved.at(likely, np.array([0]), penalty=0.0, begins=False).transposition == 0, "no other is allowed"
    assert kept.at(likely, allowed, penalty=0.5, begins=True).transposition == 0
    # What rested before it was played has still to say why; a phrase later nothing has changed.
    later = begun.at(likely, allowed, penalty=0.0, begins=True)
    assert later == begun.played(0) == begun
    assert begun.played(2).at(likely, allowed, penalty=0.0, begins=False).why == begun.why == begun.says(2)
    assert begun.played(2).at(likely, allowed, penalty=0.0, begins=True).why == begun.says(5) == ""


def test_a_note_fits_by_the_square_of_its_likelihood_and_one_that_clashes_not_at_all():
    likely = np.zeros(12)
    likely[[0, 4, 7]] = 0.8, 0.6, 0.2
    fit = harmonic_fit(np.eye(12)[[0, 4, 7, 1]], likely, np.array([0, 4]), least=0.5)
    assert np.allclose(fit[:, 0], [1, (0.6 / 0.8) ** 2, 0, 0])
    assert np.allclose(fit[:, 1], [(0.6 / 0.8) ** 2, 0, 0, 0])


def test_what_clashes_is_left_out_and_drums_never():
    notes = tuple(Note(0.0, 0.2, pitch, 80) for pitch in (60, 61, 64))
    drum = Note(0.0, 0.2, 37, 80, 9)
    parts, left_out = without_clashes({"all": (*notes, drum)}, chroma(C), least=0.5)
    assert ([n.pitch for n in parts["all"]], left_out) == ([60, 64, 37], (61,))
    assert without_clashes({"all": notes}, chroma(C), least=0.0) == ({"all": notes}, ())
    for strongest, unlikely in [(0.6, (61,)), (0.4, (60, 61, 64))]:
        assert without_clashes({"all": notes}, strongest * chroma(C), least=0.5, least_likely=0.5)[1] == unlikely


def test_tension_is_heard_as_notes_outside_of_the_harmony():
    """Memory has a note a semitone above each chord's root: at 0 it is left out, at 1 it is played."""
    memory = band(foreign=True)
    heard = line(12.0)

    def outside(tension: float) -> float:
        chosen = PartnerSettings(tension=tension, max_transposition=0, live_weight=0, rest_below=0)
        classes = [n.pitch % 12 for d in answer(memory, heard, chosen) for n in d.notes]
        return float(np.mean([c in (1, 3, 6, 8, 10) for c in classes]))

    assert outside(0.0) < 0.05
    assert outside(1.0) > outside(0.0) + 0.15


def noise(rng) -> np.ndarray:
    return (1 + 0.1 * rng.random(12)).astype(np.float32)


def test_hard_memories_and_players_are_followed_without_harm():
    """One chord, no chord, noise; two keys at once, a modulation each bar: whatever comes, it is a probability."""
    rng = np.random.default_rng(0)
    drums = Memory(dims=2, threshold=0.5)
    for i in range(40):
        drums.append(dataclasses.replace(gesture(0.25 * i, 0.25, (-1, i % 3)), chroma=noise(rng)), [], recording=0)
    assert harmonic_cells(drums) is None
    players = {
        "every bar another key": line(6.0, moved=lambda bar: 5 * bar),
        "two keys at once": [percept(i, chroma=chroma(C) + chroma((6, 10, 1))) for i in range(15)],
        "noise": [percept(i, chroma=noise(rng)) for i in range(15)],
        "a quarter tone off": [percept(i, chroma=(chroma(C) + chroma(C, 1)) / 2) for i in range(15)],
        "a spoken voice": [percept(i, chroma=chroma((i % 12, (i + 1) % 12))) for i in range(15)],
        "silence": [percept(i, audible=False) for i in range(15)],
    }
    for memory in (band((C,), times=2), band(times=1), drums, Memory(dims=2, threshold=0.5), band((C,), times=1, beats=1)):
        for name, heard in players.items():
            for e in followed(memory, heard):
                for likely in (e.transpositions, e.key, e.chord, e.next_chord):
                    assert likely.sum() == pytest.approx(1, abs=1e-6), name
                assert ((e.classes >= 0) & (e.classes <= 1)).all(), name
            for d in answer(memory, heard) if len(memory) else ():
                assert d.kind == "rest" or all(0 <= n.pitch <= 127 for n in d.notes), name


def test_noise_leaves_nothing_out_and_moves_nothing():
    rng = np.random.default_rng(1)
    decisions = answer(band(), [percept(i, chroma=noise(rng)) for i in range(30)], PartnerSettings(rest_below=0))
    assert all(d.harmony.left_out == () and d.transposition == 0 for d in decisions if d.kind == "play")


def test_a_player_outside_of_all_that_memory_has_is_not_clashed_with():
    """A memory of one chord, held untransposed, and a player a tritone away: what does not fit is not played."""
    heard = line(12.0, (C,), moved=lambda _: 6)
    decisions = answer(band((C,)), heard, PartnerSettings(max_transposition=0, live_weight=0))
    classes = [n.pitch % 12 for d in decisions if d.time_s > 2 for n in d.notes]
    assert sum(c not in (6, 10, 1) for c in classes) <= 0.1 * max(1, len(classes)) or not classes


def test_a_large_memory_is_followed_in_stretches_of_it():
    memory = band(times=MOST_STATES // 16 + 1)
    cells = harmonic_cells(memory)
    assert len(memory) > MOST_STATES
    assert 0 < len(cells.strengths) <= 5 * MOST_STATES
    assert (~cells.goes_on).sum() == 8
    heard = line(24.0)
    assert in_tune(followed(memory, heard), heard)[12:].mean() > 0.8


def changing(seconds: float, later_s: float) -> list:
    """Return what is heard of a player who goes through a song's chords, one in each beat, so much later than on the beat."""
    out = []
    for i in range(int(seconds / SEGMENT_S)):
        heard = percept(i).heard
        beats = np.floor((heard.frame_samples / RATE - later_s) / FREE_PERIOD_S).astype(int)
        rows = np.stack([chroma(SONG[beat % len(SONG)]) for beat in beats])
        out.append(dataclasses.replace(percept(i), heard=dataclasses.replace(heard, chroma=rows)))
    return out


@pytest.mark.parametrize("part", [0, 1, 2, 3])
def test_the_harmony_tells_where_in_memorys_beat_the_player_is(part):
    beat = BeatPlace(0.0, FREE_PERIOD_S, -1, 0.9)
    pulse, later_s = Pulse(0.0, FREE_PERIOD_S), part * FREE_PERIOD_S / 4
    follower = HarmonyFollower(harmonic_cells(band(beats=1, times=24, place=beat)), sample_rate_hz=RATE)
    chances = followed_chances(follower, changing(16.0, later_s), pulse)
    placed = chances.later(pulse, chances.likeliest(pulse))
    assert (placed.beat_s - later_s) % FREE_PERIOD_S == pytest.approx(0.0, abs=1e-4)
    assert chances.of(placed) > 0.7
    assert placed.source == ("memory" if part else "heard")
    # On another level of the metre, and where memory's beats are not known, it tells nothing.
    assert follower.beat_chances(Pulse(0.0, 2 * FREE_PERIOD_S)) is None
    unknown = HarmonyFollower(harmonic_cells(band(beats=1, times=24)), sample_rate_hz=RATE)
    assert followed_chances(unknown, changing(4.0, later_s), pulse) is None


@pytest.mark.parametrize("latency_ms", [20.0, 62.5, 100.0])
def test_the_latency_of_the_output_moves_no_harmony(latency_ms):
    def heard(late_ms: float) -> dict:
        memory = band(beats=1, times=24, place=BeatPlace(0.0, FREE_PERIOD_S, -1, 0.9))
        chosen = PartnerSettings(latency_ms=late_ms)
        partner, said = Partner(memory, chosen, rng=np.random.default_rng(0), sample_rate_hz=RATE), {}
        for p in changing(16.0, 0.0):
            now_s = p.heard.available_at / RATE
            partner.change({"clock": {"beat_s": 0.0, "period_s": FREE_PERIOD_S}}, now_s)
            partner.hear(p, now_s)
            found = next((d.harmony for d in partner.decide(now_s)), None)
            if found is not None:
                said[now_s] = found.accounts, found.chord_chance, found.expected, found.expected_chance
        return said

    early, late = heard(0.0), heard(latency_ms)
    both = early.keys() & late.keys()
    assert len(both) > 10
    assert all(early[now_s] == late[now_s] for now_s in both)


def followed_chances(follower: HarmonyFollower, heard, pulse: Pulse):
    for p in heard:
        follower.hear(p, pulse)
    return follower.beat_chances(pulse)


def test_chords_and_keys_are_named():
    played = np.zeros((16, 12))
    for row, chord in enumerate((C, C, C, C, F, F, F, F, G, G, G, G, C, C, C, C)):
        played[row, list(chord)] = 1 / 3
    follower = ChordFollower()
    live = []
    for row in played:
        follower.step(row)
        live.append(chord_name(int(follower.chords.argmax())))
    assert live[3::4] == ["C", "F", "G", "C"]
    assert key_name(int(follower.keys.argmax())) == "C major"
    # With all of it in view, each cell at once.
    assert [chord_name(int(c)) for c in chords_of(played).argmax(axis=1)] == 4 * ["C"] + 4 * ["F"] + 4 * ["G"] + 4 * ["C"]
    assert chord_name(21) == "Am"


def test_keys_of_a_drum_kit_have_no_harmony():
    partner = Partner(band(), PartnerSettings(), rng=np.random.default_rng(0), sample_rate_hz=RATE)
    for heard in line(3.0):
        partner.hear(heard, heard.heard.available_at / RATE)
    before = partner.harmony
    partner.hear_onset(3.2, 3.2, (37,), is_drum=True)
    assert (partner.harmony == before).all()
    partner.hear_onset(3.4, 3.4, (37,))
    assert partner.harmony.argmax() == 37 % 12


def test_what_is_in_no_key_of_memory_is_known():
    def foreign(heard) -> bool:
        follower = HarmonyFollower(harmonic_cells(band()), sample_rate_hz=RATE)
        for p in heard:
            follower.hear(p, None)
        return follower.foreign

    assert not foreign(line(24.0))
    assert not foreign(line(24.0, moved=lambda bar: 6 * (bar > 4)))
    clusters = [[(chord[0] + step) % 12 for step in (0, 1, 2)] for chord in SONG]
    assert foreign([percept(i, chroma=chroma(clusters[int(i * SEGMENT_S / 2) % 4])) for i in range(int(24.0 / SEGMENT_S))])
