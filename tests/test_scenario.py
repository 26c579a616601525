import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musichal.commands.play import read_scenario, recording_tokens
from musichal.errors import InputError, MusicHalError
from musichal.hearing.percepts import SILENCE
from musichal.memory.memory import Memory
from musichal.note import HeardNote
from musichal.partner.candidates import transpositions
from musichal.partner.chords import chord_labels, chord_number
from musichal.partner.decision import Decision
from musichal.partner.explanation import explain
from musichal.partner.harmony import unit_chroma
from musichal.partner.memory_pool import MemoryPool
from musichal.partner.scenario import Guide, Scenario
from musichal.partner.settings import PartnerSettings
from partners_by_hand import gesture
from players_by_hand import SEGMENT, answer, percept

SEGMENT_S = SEGMENT / 24_000
FREE = PartnerSettings(no_repeat=0, live_weight=0, temperature=0)


def triad(number: int) -> np.ndarray:
    chroma = np.zeros(12, np.float32)
    third = 3 if number >= 12 else 4
    chroma[[(number + step) % 12 for step in (0, third, 7)]] = 1
    return chroma


def chords(*names: str) -> Memory:
    """Two states for each chord, a quarter of a second each."""
    memory = Memory(dims=2, threshold=0.5)
    for i, name in enumerate(n for n in names for _ in range(2)):
        number = chord_number(name)
        own = dataclasses.replace(gesture(0.25 * i, 0.25, (i % 60, 0)), chroma=triad(number))
        memory.append(own, [HeardNote(0.25 * i, 0.2, 48 + number % 12, 90)], recording=0)
    return memory


def tokens(*harmonic: int) -> Memory:
    memory = Memory(dims=2, threshold=0.5)
    for i, token in enumerate(harmonic):
        memory.append(gesture(0.25 * i, 0.25, (token, 0)), [HeardNote(0.25 * i, 0.2, 60, 90)], recording=0)
    return memory


def player(segments: int):
    return [percept(i, gestures=[gesture(i * SEGMENT_S, 0.3, (59, SILENCE))], chroma=np.eye(12)[6]) for i in range(segments)]


@pytest.mark.parametrize(
    ("name", "number"),
    [("C", 0), ("Bb", 10), ("B#", 0), ("Cb", 11), ("F#m", 18), ("Ebmaj7", 3), ("Dm7", 14), ("G7", 7), ("A-", 21),
     ("Bdim", 23), ("Bm", 23), ("Amin", 21), ("Abmaj9", 8), ("CM7", 0), ("Cma9", 0), ("CMI7", 12), ("Cmadd9", 12), ("F##m", 19),
     ("Bbb", 9), ("Bbb5", 10), ("Esus4", 4)],
)  # fmt: skip
def test_names_of_chords(name, number):
    assert chord_number(name) == number


@pytest.mark.parametrize("name", ["c", "cm", "AB", "EB7", "CmB", "H"])
def test_what_is_no_chord_is_refused(name):
    with pytest.raises(InputError, match="no chord"):
        chord_number(name)


def test_states_are_labelled_by_the_chord_that_they_sound():
    chroma = np.stack([triad(n) for n in range(24)] + [np.zeros(12), np.ones(12)])
    assert chord_labels(unit_chroma(chroma)).tolist() == [*range(24), 24, 24]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.lists(st.integers(0, 4), min_size=1, max_size=8))
def test_a_plan_is_where_memory_goes_on_as_asked_for_longest(memory, asked):
    guide = Guide(Scenario(kind="harmonic", labels=tuple(asked)), MemoryPool(tokens(*memory)))
    plan = guide.ask(0.0, np.arange(-5, 7))
    longest = max(n for n in range(len(asked) + 1) if not n or any(memory[i : i + n] == asked[:n] for i in range(len(memory))))
    if not longest:
        assert plan is None
        return
    assert set(plan.lengths.tolist()) == {longest}
    assert set(plan.transpositions.tolist()) == {0}
    places = [i for i in range(len(memory)) if memory[i : i + longest] == asked[:longest]]
    assert plan.states.tolist() == places


def test_chords_are_followed_in_another_key_where_memory_has_them_only_there():
    memory = chords("D", "G", "F#m", "A")
    guide = Guide(Scenario(kind="chords", labels=tuple(chord_number(c) for c in ("C", "F", "Em"))), MemoryPool(memory))
    plan = guide.ask(0.0, transpositions(PartnerSettings()))
    best = plan.lengths.argmax()
    assert (plan.states[best], plan.transpositions[best], plan.lengths[best]) == (0, -2, 3)


def test_what_is_played_has_the_chord_that_is_asked_for_whatever_the_player_does():
    memory = chords("C", "F", "G", "Am", "D", "E", "A", "Dm", "Em", "C")
    asked = Scenario.from_value("Am D G C")
    chosen = dataclasses.replace(FREE, scenario=dataclasses.replace(asked, seconds=1.0))
    decisions = [d for d in answer(memory, player(14), chosen) if d.kind == "play"]
    labels = chord_labels(unit_chroma(memory.states["chroma"]))
    start_s = decisions[0].time_s
    guided = [d for d in decisions if d.time_s < start_s + 4.0 - 1e-6]
    assert len(guided) >= 12
    for d in guided:
        assert Decision.from_json(d.to_json()) == d
        step = int((d.time_s - start_s) / 1.0 + 1e-9)
        label = int(labels[d.state])
        sounding = (label % 12 + d.transposition) % 12 + 12 * (label >= 12)
        assert sounding == asked.labels[step], "in the transposition played"
        assert d.scenario == f"step {step + 1} of 4: {('Am', 'D', 'G', 'C')[step]}"
        assert [f.factor for f in d.filters if f.name == "scenario"] == [1.0]
        total = sum(i.weight * i.value for i in d.influences)
        assert d.score == pytest.approx(d.filter * total)
        assert "the scenario asks for it" in explain(d, ["a.wav"])
    after = [d for d in decisions if d.time_s >= start_s + 4.0]
    assert all(d.scenario == "all 4 steps of the scenario were played; free from there on" for d in after)
    assert not any(f.name == "scenario" for d in after for f in d.filters)


def test_tokens_are_followed_one_after_the_other_by_the_longest_stretch_there_is():
    memory = tokens(1, 2, 9, 1, 2, 3, 4, 9, 5, 6)
    chosen = dataclasses.replace(FREE, scenario=Scenario(kind="harmonic", labels=(1, 2, 3, 4, 5, 6)))
    decisions = [d for d in answer(memory, player(6), chosen) if d.kind == "play"]
    assert [d.state for d in decisions[:6]] == [3, 4, 5, 6, 8, 9]


def test_a_scenario_that_memory_cannot_follow_says_how_far_it_got_and_plays_on_freely():
    memory = tokens(1, 2, 3, 4, 5, 6, 7, 8)
    free = dataclasses.replace(FREE, rest_below=0.0)
    chosen = dataclasses.replace(free, scenario=Scenario(kind="harmonic", labels=(3, 4, 77, 5)))
    decisions = [d for d in answer(memory, player(8), chosen) if d.kind == "play"]
    assert [d.state for d in decisions[:2]] == [2, 3]
    rest = decisions[2:]
    assert rest, "it plays on"
    assert {d.scenario for d in rest} == {
        "the scenario got to step 3 of 4 (harmonic 77), which nothing in memory fits; free from there on"
    }
    assert "which nothing in memory fits" in explain(rest[0], ["a.wav"])


def test_a_scenario_goes_on_in_silence_and_repeats_if_asked():
    memory = chords("C", "F", "G")
    chosen = dataclasses.replace(
        FREE, rest_after_silence_s=0.3, scenario=dataclasses.replace(Scenario.from_value("C F"), seconds=0.5, repeat=True)
    )
    heard = [*player(2), *(percept(i, audible=False) for i in range(2, 14))]
    decisions = answer(memory, heard, chosen)
    late = [d for d in decisions if d.time_s > 3.0]
    assert late
    assert {d.kind for d in late} == {"play"}
    assert {d.scenario for d in late} == {"step 1 of 2: C", "step 2 of 2: F"}


def test_scenarios_survive_settings():
    chosen = PartnerSettings.from_dict({"scenario": "C Am, F G7"})
    assert chosen.scenario.labels == (0, 21, 5, 7)
    assert PartnerSettings.from_dict(chosen.to_dict()) == chosen
    assert PartnerSettings.from_dict({"scenario": ""}).scenario is None


def test_files(tmp_path, trained, trained_path):
    path = tmp_path / "scenario.toml"
    path.write_text('chords = ["C", "Am"]\nseconds = 1.5\nrepeat = true')
    assert read_scenario(path, trained_path) == Scenario(kind="chords", labels=(0, 21), seconds=1.5, repeat=True)
    path.write_text('tokens = [3, 5]\nsource = "percussive"')
    assert read_scenario(path, trained_path) == Scenario(kind="percussive", labels=(3, 5))
    for text in ("recording = 0", f'recording = "{trained.recordings[0].name}"', f'recording = 0\npartner = "{trained_path}"'):
        path.write_text(text)
        assert list(read_scenario(path, trained_path).labels) == recording_tokens(trained, 0, "harmonic")


@pytest.mark.parametrize(
    "text",
    ["", "chords = 3", "chords = []", 'chords = ["H"]', "tokens = [1]\nchords = []", "tokens = [2000]", "tokens = [true]",
     'tokens = ["a"]', "recording = 7", 'recording = "x"', "recording = [1]", 'chords = ["C"]\nseconds = -1',
     'chords = ["C"]\nseconds = nan', 'chords = ["C"]\nseconds = "2"', 'chords = ["C"]\nrepeat = 1', "tokens = [1]\nsource = 3",
     'chords = ["C"]\nnonsense = 1', "chords = [", "\x00", 'recording = 0\npartner = "none.hal"'],
)  # fmt: skip
def test_bad_files_are_one_line(text, tmp_path, trained_path):
    path = tmp_path / "scenario.toml"
    path.write_text(text)
    with pytest.raises(MusicHalError) as caught:
        read_scenario(path, trained_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="cannot read"):
        read_scenario(tmp_path / "none.toml", trained_path)
