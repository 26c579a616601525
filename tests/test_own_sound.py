"""The partner's own sound, rendered and mixed back into what it hears at several levels."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musichal.audio.instrument import find_instrument, render_notes
from musichal.errors import MusicHalError
from musichal.hearing.percepts import SILENCE
from musichal.live.engine import perform
from musichal.note import Note
from musichal.partner.self_cancellation import OWN_SHARE, SelfCancellation
from musichal.partner.settings import PartnerSettings
from players_by_hand import hear

pytestmark = pytest.mark.usefixtures("heard_once")

RATE = 44_100


@pytest.fixture(scope="module")
def render():
    """Give the sound of notes, of so many samples, at a root mean square."""
    try:
        font = find_instrument()
    except MusicHalError as error:
        pytest.skip(str(error))

    def rendered(notes, length, rms):
        sound = render_notes(notes, font, sample_rate_hz=RATE, programs={0: 4})
        sound = sound.mean(axis=1) if sound.ndim == 2 else sound
        sound = np.pad(sound, (0, max(0, length - len(sound))))[:length]
        return (sound * rms / np.sqrt(np.mean(sound**2))).astype(np.float32)

    return rendered


@pytest.fixture(scope="module")
def guitar(rock_guitar):
    samples, rate = soundfile.read(rock_guitar, dtype="float32")
    assert rate == RATE
    return samples[: 14 * RATE]


@pytest.fixture(scope="module")
def unison(guitar, render):
    """A guitar, a partner's answer to it in the same loudness, and the notes of that: often those of the guitar.

    The answer is kept in a file (second, duration, pitch, velocity), so that the bounds hold whatever partners decide.
    """
    rows = json.loads(Path(__file__).with_name("answer_notes.json").read_text(encoding="utf-8"))
    return answered(guitar, [Note(*row) for row in rows], render)


@pytest.fixture(scope="module")
def duo(unison, render):
    """The same with an answer a tritone off, so that what leaks is heard."""
    guitar, _, notes = unison
    return answered(guitar, [replace(note, pitch=note.pitch + 6) for note in notes], render)


def answered(guitar, notes, render):
    sound = render([replace(note, channel=0) for note in notes], len(guitar), np.sqrt(np.mean(guitar**2)))
    return guitar, sound, notes


def cleared(percepts, notes):
    own = SelfCancellation(sample_rate_hz=24_000)
    own.played(notes)
    return [own.without(p) for p in percepts], own


def harmony_of(percepts):
    """Return chroma, smoothed over half a second as the partner hears it."""
    chroma = np.concatenate([p.heard.chroma for p in percepts]).astype(np.float64)
    return np.stack([np.convolve(chroma[:, k], np.ones(40) / 40, "same") for k in range(12)], axis=1)


def likeness(a, b):
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    sizes = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1)[sizes > 1e-3] / sizes[sizes > 1e-3]).mean())


def test_without_leakage_nothing_is_taken_off(trained, duo):
    samples, _, notes = duo
    percepts = hear(trained, samples, RATE)
    kept, own = cleared(percepts, notes)
    assert own.gain == 0
    assert all(a is b for a, b in zip(percepts, kept, strict=True))


@pytest.mark.parametrize(("level_db", "least"), [(-20, 0.99), pytest.param(-10, 0.96, marks=pytest.mark.slow), (0, 0.80)])
def test_with_leakage_the_players_harmony_is_heard_better(trained, duo, level_db, least):
    samples, sound, notes = duo
    clean = harmony_of(hear(trained, samples, RATE))
    percepts = hear(trained, (samples + sound * 10 ** (level_db / 20)).astype(np.float32), RATE)
    kept, own = cleared(percepts, notes)
    before, after = likeness(clean, harmony_of(percepts)), likeness(clean, harmony_of(kept))
    assert after >= least
    assert after >= before - 0.002
    if level_db == 0:
        assert own.gain > 0
        assert 1 - after < 0.8 * (1 - before), "a good part of what leaked is gone"


@pytest.mark.parametrize(("level_db", "least"), [(-20, 0.99), pytest.param(-10, 0.98, marks=pytest.mark.slow), (0, 0.9)])
def test_in_unison_hardly_anything_of_the_players_harmony_is_taken_off(trained, unison, level_db, least):
    samples, sound, notes = unison
    clean = harmony_of(hear(trained, samples, RATE))
    percepts = hear(trained, (samples + sound * 10 ** (level_db / 20)).astype(np.float32), RATE)
    before, after = likeness(clean, harmony_of(percepts)), likeness(clean, harmony_of(cleared(percepts, notes)[0]))
    assert after >= max(least, before - 0.01)
    assert level_db < 0 or after > before


def alone_from_7_s(trained, duo):
    """What is heard where the player stops at 7 s and the partner goes on, and the partner's notes."""
    samples, sound, notes = duo
    alone = samples.copy()
    alone[7 * RATE :] = 0
    return hear(trained, (alone + 0.3 * sound).astype(np.float32), RATE), notes


def test_what_is_only_its_own_sound_is_mostly_not_learned(trained, duo):
    percepts, notes = alone_from_7_s(trained, duo)
    kept, _ = cleared(percepts, notes)

    def late(heard):
        return [g for p in heard for g in p.gestures if g.start_s > 8 and g.tokens != (SILENCE, SILENCE)]

    assert len(late(percepts)) >= 10
    assert len(late(kept)) <= 0.6 * len(late(percepts))


def test_decisions_with_a_little_leakage_are_as_many_and_in_the_same_harmony(trained, duo):
    samples, sound, _ = duo
    answers = []
    for gain in (0.0, 0.1):
        decisions = perform(
            trained, (samples + gain * sound).astype(np.float32), sample_rate_hz=RATE, settings=PartnerSettings(), seed=0
        ).decisions
        classes = np.bincount([n.pitch % 12 for d in decisions for n in d.notes], minlength=12).astype(float)
        answers.append((sum(d.duration_s for d in decisions), classes / np.linalg.norm(classes)))
    (clean_s, clean), (leaky_s, leaky) = answers
    assert leaky_s == pytest.approx(clean_s, rel=0.25)
    assert clean @ leaky > 0.85


def onsets_of(percepts):
    """Return the seconds of all onsets after the first five: what leaks is known by then."""
    found = np.array([sample / 24_000 for p in percepts for sample in p.heard.onset_samples])
    return found[found > 5]


def near(times_s, others_s, within_s=0.03):
    return np.array([len(others_s) > 0 and np.abs(others_s - t).min() <= within_s for t in times_s], dtype=bool)


def test_the_players_strikes_stay_onsets_where_the_partner_strikes_right_behind_them(trained, rock_guitar, render):
    """No sound is heard before it is made: a stroke that the partner's follows, as it does in shadow, is the player's."""
    behind_s = 0.03
    guitar, _ = soundfile.read(rock_guitar, dtype="float32", frames=22 * RATE)
    players = np.array([sample / 24_000 for p in hear(trained, guitar, RATE) for sample in p.heard.onset_samples])
    apart = players[np.diff(players, prepend=-1.0) > 0.18]  # the others may be covered by the answer to the one before
    notes = [Note(float(t) + behind_s, 0.1, 52 + 5 * (k % 4), 90) for k, t in enumerate(apart)]
    events = [Note(n.onset_s, n.duration_s, n.pitch, n.velocity, 0) for n in notes]
    sound = render(events, len(guitar), np.sqrt(np.mean(guitar**2)))
    percepts = hear(trained, (guitar + sound).astype(np.float32), RATE)
    kept, own = cleared(percepts, notes)
    assert own.gain > 0
    heard = onsets_of(percepts)
    heard = heard[near(heard, apart, 0.015)]
    assert len(heard) >= 25
    assert near(heard, onsets_of(kept), 0.001).mean() >= 0.95


def test_its_own_strikes_are_no_onsets(trained, duo):
    percepts, notes = alone_from_7_s(trained, duo)
    kept, _ = cleared(percepts, notes)
    before, after = onsets_of(percepts), onsets_of(kept)
    assert (before > 7.3).sum() >= 8
    assert (after > 7.3).sum() <= 0.2 * (before > 7.3).sum()


def test_its_own_notes_are_none_of_the_players(trained, duo):
    samples, sound, notes = duo
    percepts = hear(trained, (samples + sound).astype(np.float32), RATE)
    kept, own = cleared(percepts, notes)
    warm = [i for i, p in enumerate(percepts) if p.heard.start_sample > 5 * 24_000]
    for i in warm:
        assert set(kept[i].heard.notes) <= set(percepts[i].heard.notes)
    assert sum(len(kept[i].heard.notes) for i in warm) < sum(len(percepts[i].heard.notes) for i in warm)
    for p in kept:
        assert (p.heard.chroma >= 0).all()
    assert all(own.own_share(g) < OWN_SHARE for g in kept[-1].gestures)


def test_a_partner_alone_with_its_sound_counts_the_player_as_silent_and_a_player_beside_it_as_there(trained, duo):
    """The player stops at 7 s, the partner goes on: from then on there is nothing but its own."""
    percepts, notes = alone_from_7_s(trained, duo)
    kept, own = cleared(percepts, notes)
    assert own.gain > 0

    def audible(heard, first_s, last_s):
        inside = [p for p in heard if first_s * 24_000 <= p.heard.start_sample < last_s * 24_000]
        return float(np.mean([p.heard.audible.any(axis=0).mean() for p in inside]))

    assert audible(percepts, 8.5, 13.5) > 0.6
    assert audible(kept, 8.5, 13.5) < 0.5 * audible(percepts, 8.5, 13.5)
    assert audible(kept, 3.0, 7.0) > 0.9
    for before, after in zip(percepts, kept, strict=True):
        gone = before.heard.audible.any(axis=0) & ~after.heard.audible.any(axis=0)
        assert (after.heard.level_db[gone] <= -100).all()


@pytest.mark.parametrize("mode", [pytest.param("shadow", marks=pytest.mark.slow), "couple"])
def test_with_headphones_hardly_anything_of_the_player_is_taken_for_its_own(trained, rock_guitar, mode, monkeypatch):
    """Who plays in harmony, and strikes when the partner does, may look like leakage now and then."""
    samples, rate = soundfile.read(rock_guitar, dtype="float32")
    lost, without = [], SelfCancellation.without

    def spy(self, percept):
        kept = without(self, percept)
        lost.append(percept.heard.audible.any(axis=0) & ~kept.heard.audible.any(axis=0))
        return kept

    monkeypatch.setattr(SelfCancellation, "without", spy)
    perform(
        trained, samples[: 20 * rate], sample_rate_hz=rate, seed=0,
        settings=PartnerSettings.from_dict({"direction": {"mode": mode}}),
    )  # fmt: skip
    assert np.concatenate(lost).mean() < 0.05
