"""A partner in a room in which it hears itself: a closed loop, block by block, with a soundfont for its sound."""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from musichal.audio.instrument import find_instrument, render_notes
from musichal.cli import app
from musichal.commands import evaluate
from musichal.errors import MusicHalError
from musichal.evaluate.feedback import LEVELS_DB, OUTPUT_S, Feedback, feedback, mean_feedback, play_in_a_room
from musichal.memory.memory import Memory
from musichal.note import Note
from musichal.partner.settings import PartnerSettings

pytestmark = pytest.mark.usefixtures("heard_once")

RATE = 44_100
PLAYER_S, SILENT_S = 10.0, 10.0


@pytest.fixture(scope="module")
def render():
    try:
        font = find_instrument()
    except MusicHalError as error:
        pytest.skip(str(error))

    @cache
    def sound(pitch: int, velocity: int, duration_s: float) -> np.ndarray:
        notes = [Note(0.0, duration_s, pitch, velocity, 0)]
        return render_notes(notes, font, sample_rate_hz=RATE, programs={0: 4}).mean(axis=1)

    return lambda note: sound(note.pitch, note.velocity, round(note.duration_s, 2))


def player(path, silent_s: float = SILENT_S) -> np.ndarray:
    samples, rate = soundfile.read(path, dtype="float32")
    assert rate == RATE
    played = samples[8 * rate : round((8 + PLAYER_S) * rate)]
    return np.concatenate([played, np.zeros(round(silent_s * rate), dtype=np.float32)])


def mode(name: str) -> PartnerSettings:
    return PartnerSettings.from_dict({"direction": {"mode": name}})


def in_rooms(trained, render, path, *, name="couple", seed=0, levels_db=(-10.0, 0.0), silent_s=SILENT_S, **changes):
    found = feedback(
        trained, player(path, silent_s), render, sample_rate_hz=RATE, player_s=PLAYER_S,
        settings=mode(name).changed(changes), seed=seed, levels_db=levels_db,
    )  # fmt: skip
    return {(f.level_db, f.knows): f for f in found}


def test_what_it_plays_sounds_in_the_room_and_later_than_it_decided(trained, rock_guitar, render):
    samples = player(rock_guitar)[: 6 * RATE]
    loop = play_in_a_room(trained, samples, render, sample_rate_hz=RATE, settings=mode("couple"), seed=0, gain=0.0)
    notes = [note for decision in loop.decisions for note in decision.notes]
    begins = np.flatnonzero(np.abs(loop.own) > 1e-6)[0] / RATE
    assert begins == pytest.approx(min(n.onset_s for n in notes) + OUTPUT_S, abs=0.015)
    assert loop.learned_own == 0, "at no gain there is nothing of its own in the room"
    alike = play_in_a_room(trained, samples, render, sample_rate_hz=RATE, settings=mode("couple"), seed=0, gain=0.0)
    assert alike.decisions == loop.decisions


@pytest.mark.slow
def test_it_answers_itself_for_ever_unless_it_knows_its_sound(trained, rock_guitar, render):
    """The player falls silent: it does too, as it would by itself. Its own gestures are mostly not learned."""
    found = in_rooms(trained, render, rock_guitar, levels_db=(0.0,))
    knows, does_not = found[0.0, True], found[0.0, False]
    assert does_not.on_s > SILENT_S - 1.5, "the loop is closed"
    assert knows.on_s < knows.alone_on_s + 3.0, "hardly longer than without feedback"
    assert does_not.learned_own > 0.15
    assert knows.learned_own < 0.5 * does_not.learned_own
    assert knows.kept > 0.15, "who learns nothing learns nothing wrong"
    # In the player's harmony its sound would be heard as theirs is: here it plays all a tritone off.
    notes = trained.memory.notes.copy()
    notes["pitch"] = np.where(notes["pitch"] > 66, notes["pitch"] - 6, notes["pitch"] + 6)
    off = Memory.restore(trained.memory.states, notes, trained.memory.oracle, hits=trained.memory.hits)
    apart = in_rooms(replace(trained, memory=off), render, rock_guitar, levels_db=(0.0,), silent_s=0.0, tension=1.0)
    assert apart[0.0, True].heard > apart[0.0, False].heard + 0.05, "what is taken off is its own"


@pytest.mark.slow(55)
@pytest.mark.parametrize("name", ["couple", "contrast"])
def test_in_every_mode_and_at_every_level(trained, rock_guitar, ballad_guitar, render, name):
    """Over players and seeds: it falls silent sooner, and learns less of itself."""
    runs = [
        in_rooms(trained, render, path, name=name, seed=seed, levels_db=(-20.0, -10.0, 0.0))
        for path in (rock_guitar, ballad_guitar)
        for seed in (0, 1)
    ]
    for level_db in (-20.0, -10.0, 0.0):
        knows, does_not = ([run[level_db, known] for run in runs] for known in (True, False))
        assert np.mean([f.on_s for f in knows]) < np.mean([f.on_s for f in does_not]) - 1.5
        assert np.mean([f.learned_own for f in knows]) < 0.75 * np.mean([f.learned_own for f in does_not])


def test_a_note_in_the_room_is_the_notes_own_sound(render):
    loud, soft = (render(Note(0.0, 0.5, 60, velocity)) for velocity in (120, 30))
    assert np.abs(loud).max() > 4 * np.abs(soft).max() > 0


def test_runs_at_one_level_are_told_by_their_mean_and_their_worst():
    alike = {"alone_on_s": 2.5, "harmony_at_best": 0.8}
    short = Feedback(
        level_db=-10.0, knows=True, on_s=2.0, longest_on_s=2.0, learned=10, learned_own=0.1, harmony=0.9, heard=0.9, kept=0.5,
        **alike,
    )  # fmt: skip
    long = Feedback(
        level_db=-10.0, knows=True, on_s=6.0, longest_on_s=6.0, learned=30, learned_own=0.5, harmony=0.7, heard=0.7, kept=1.0,
        **alike,
    )  # fmt: skip
    both = mean_feedback([short, long])
    assert (both.on_s, both.longest_on_s, both.learned) == (4.0, 6.0, 40)
    assert (both.learned_own, both.harmony) == (pytest.approx(16 / 40), pytest.approx(0.8))
    assert (both.heard, both.kept, both.alone_on_s) == (pytest.approx(0.8), pytest.approx(0.75), pytest.approx(2.5))


@pytest.mark.slow
def test_the_command_shows_how_it_hears_itself(trained_path, rock_guitar, ballad_guitar, monkeypatch):
    monkeypatch.setattr(evaluate, "_ROOM_S", 5.0)
    monkeypatch.setattr(evaluate, "_ROOM_SILENT_S", 3.0)
    arguments = ["evaluate", str(trained_path), str(rock_guitar), str(ballad_guitar), "--excerpt", "10", "--most", "4"]
    result = CliRunner().invoke(app, [*arguments, "--minutes", "0.5", "--mode", "couple", "--room", "--json"])
    assert result.exit_code == 0, result.output
    rooms = json.loads(result.stdout)["rooms"]
    assert [(r["way"], r["level_db"], r["knows"]) for r in rooms] == [
        ("couple", level_db, knows) for level_db in LEVELS_DB for knows in (True, False)
    ]
