"""How loud the partner's own sound is, learned from what it is heard together with."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musichal.note import Note
from musichal.partner.self_cancellation import SelfLevel

STEP_S = 320 / 24_000
SEGMENT = 26


def sound_of(notes, times_s, *, fades_s, loud=0.02):
    """Return the power of notes that are struck, fade while they are held, and are damped within 50 ms."""
    power = np.zeros(len(times_s))
    for note in notes:
        since_s = times_s - note.onset_s - 0.02
        held = np.exp(-2 * np.maximum(since_s, 0) / fades_s) * (since_s >= 0)
        damped = np.exp(-2 * np.maximum(since_s - note.duration_s, 0) / 0.05)
        power += loud * (note.velocity / 127) ** 3 * held * damped
    return power


def heard_for(duration_s, notes, power, *, level=None):
    level = level or SelfLevel()
    times_s = np.arange(round(duration_s / STEP_S)) * STEP_S
    for first in range(0, len(times_s), SEGMENT):
        part = slice(first, first + SEGMENT)
        level.hear(times_s[part], 10 * np.log10(power[part] + 1e-12), notes)
    return level, times_s


def some_notes(rng, duration_s):
    at = np.cumsum(rng.uniform(0.15, 0.7, size=60))
    return [
        Note(float(t), float(rng.uniform(0.1, 1.2)), int(rng.integers(40, 80)), int(rng.integers(50, 120)))
        for t in at[at < duration_s - 2]
    ]  # fmt: skip


def off_db(level, notes, times_s, power):
    late = times_s > 8
    return 10 * np.log10(level.expected(times_s[late], notes).sum() / power[late].sum())


@pytest.mark.parametrize("fades_s", [0.3, 1.0, 20.0])
def test_alone_its_level_is_known_whatever_its_instrument(fades_s):
    rng = np.random.default_rng(1)
    notes = some_notes(rng, 16)
    times_s = np.arange(round(16 / STEP_S)) * STEP_S
    own = sound_of(notes, times_s, fades_s=fades_s)
    level, _ = heard_for(16, notes, own)
    assert -3 < off_db(level, notes, times_s, own) < 1.5, "what fades within a step comes out too low rather than too high"


@pytest.mark.parametrize("player_db", [-6.0, 0.0, 6.0])
def test_a_player_who_sounds_too_is_not_taken_for_it(player_db):
    rng = np.random.default_rng(2)
    notes, theirs = some_notes(rng, 20), some_notes(rng, 20)
    times_s = np.arange(round(20 / STEP_S)) * STEP_S
    own, player = sound_of(notes, times_s, fades_s=0.6), sound_of(theirs, times_s, fades_s=0.6)
    player *= own.mean() / player.mean() * 10 ** (player_db / 10)
    level, _ = heard_for(20, notes, own + player)
    # What goes along with the partner by chance is counted for it, what is steady of the partner for the player.
    assert -5.0 < off_db(level, notes, times_s, own) < 4.0


@given(st.integers(0, 10_000), st.floats(-60, 0))
def test_it_is_never_negative_and_scales_with_what_is_heard(seed, by_db):
    rng = np.random.default_rng(seed)
    notes = some_notes(rng, 6)
    times_s = np.arange(round(6 / STEP_S)) * STEP_S
    own = sound_of(notes, times_s, fades_s=0.6, loud=0.5) + 1e-3
    level, _ = heard_for(6, notes, own)
    expected = level.expected(times_s, notes)
    assert (expected >= 0).all()
    assert np.isfinite(expected).all()
    quieter, _ = heard_for(6, notes, own * 10 ** (by_db / 10))
    assert quieter.expected(times_s, notes).sum() <= expected.sum() * 1.01


def test_nothing_is_expected_of_no_notes_and_of_no_time():
    level, times_s = heard_for(3, [], np.full(225, 1e-3))
    note = Note(1.0, 0.5, 60, 100)
    assert not level.expected(times_s, []).any()
    assert level.expected(np.zeros(0), [note]).shape == (0,)
    assert not level.expected(times_s, [note]).any(), "what was never heard has no level"
