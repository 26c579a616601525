"""Phrases of the player: by hand, where every number is known, and on real guitars."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musichal.audio.recording import read_recording
from musichal.hearing.percepts import Percept
from musichal.partner.player import PhraseTracker, PlayerState
from partners_by_hand import gesture
from players_by_hand import RATE, SEGMENT, hear, percept

pytestmark = pytest.mark.usefixtures("heard_once")

SEGMENT_S = SEGMENT / RATE


def heard(index: int, *, level_db: float | Sequence[float] = -20.0, onsets_s: Sequence[float] = (), **kwargs) -> Percept:
    """Return a percept at this level with those of `onsets_s` (of the whole stream) that lie in it."""
    plain = percept(index, **kwargs)
    inside = [o for o in onsets_s if index * SEGMENT_S <= o < (index + 1) * SEGMENT_S]
    levels = np.broadcast_to(np.asarray(level_db, dtype=np.float32), plain.heard.level_db.shape).copy()
    return dataclasses.replace(
        plain, heard=dataclasses.replace(plain.heard, level_db=levels, onset_samples=tuple(round(o * RATE) for o in inside))
    )


def follow(percepts: Sequence[Percept], *, every_s: float = 0.05, until_s: float = 0.0) -> list[tuple[float, PlayerState]]:
    """Return the state at every percept, every `every_s` between them, and at onsets, each 30 ms behind itself as live."""
    tracker = PhraseTracker(sample_rate_hz=RATE)
    ends = [(p.heard.available_at / RATE, 1, p) for p in percepts]
    onsets = [(sample / RATE + 0.03, 0, sample / RATE) for p in percepts for sample in p.heard.onset_samples]
    last_s = max([until_s, *(at_s for at_s, _, _ in ends)])
    ticks = [(float(t), 2, None) for t in np.arange(0, last_s, every_s)]
    out: list[tuple[float, PlayerState]] = []
    for now_s, _, what in sorted([*ends, *onsets, *ticks], key=lambda e: e[:2]):
        if isinstance(what, Percept):
            tracker.hear(what, now_s)
        elif what is not None:
            tracker.hear_onset(what, now_s)
        out.append((now_s, tracker.at(now_s)))
    return out


def kinds(states: Sequence[tuple[float, PlayerState]]) -> list[str]:
    """Return the kinds in order, each once until it changes."""
    out: list[str] = []
    for _, state in states:
        if not out or out[-1] != state.kind:
            out.append(state.kind)
    return out


def test_nothing_heard_is_no_phrase():
    states = follow([percept(i, audible=False) for i in range(10)])
    assert kinds(states) == ["ended"]
    assert not any(s.heard for _, s in states)
    assert states[-1][1].phrase_s == 0


def test_a_phrase_ends_after_a_gap_that_its_pace_does_not_explain():
    onsets = np.arange(0.1, 4.0, 0.25)
    playing = [heard(i, onsets_s=onsets) for i in range(12)]
    silent = [heard(i, audible=False, level_db=-90) for i in range(12, 18)]
    states = follow([*playing, *silent])
    ended = [(t, s) for t, s in states if s.kind == "ended" and s.heard]
    last = onsets[onsets < 12 * SEGMENT_S].max()
    # Three times the usual interval, and the silence has to be heard: a segment at most.
    assert last + 0.5 < ended[0][0] < last + 0.25 * 3 + SEGMENT_S
    assert states[-1][1].kind == "ended"
    assert states[-1][1].phrase_start_s == pytest.approx(0.0, abs=0.12)
    assert states[-1][1].phrase_end_s == pytest.approx(12 * SEGMENT_S, abs=0.05)


def test_the_same_gap_is_no_end_for_a_slow_player():
    slow = np.arange(0.1, 30.0, 0.9)

    def staccato(i: int) -> Percept:
        near = [o for o in slow if i * SEGMENT_S - 0.12 <= o < (i + 1) * SEGMENT_S]
        return heard(i, onsets_s=slow, audible=bool(near), level_db=-20 if near else -90)

    states = follow([staccato(i) for i in range(60)])
    later = [s.kind for t, s in states if t > 4]
    assert "ended" not in later


def test_a_drum_roll_is_one_phrase_even_where_its_strokes_are_not_told_apart():
    def roll(every_s: float, until_s: float) -> list[str]:
        onsets = np.arange(0.1, until_s, every_s)
        return kinds(follow([heard(i, onsets_s=onsets) for i in range(30)]))

    assert roll(0.05, 11) == ["ended", "playing"]
    # From 2 s on no onset is found any more; it stays as loud.
    assert roll(0.05, 2) == ["ended", "playing"]


def test_a_legato_run_without_attacks_does_not_end_while_its_tokens_change():
    onsets = [0.1, 0.3, 0.5]
    percepts = []
    for i in range(24):
        level = -20 - 0.6 * i  # and it grows softer all the time
        own = dataclasses.replace(gesture(i * SEGMENT_S, SEGMENT_S, (i % 7, 0)), level_db=level)
        percepts.append(heard(i, onsets_s=onsets, level_db=level, gestures=[own]))
    assert kinds(follow(percepts)) == ["ended", "playing"]


def test_a_held_note_ends_when_it_has_died_away_not_when_it_is_long():
    onsets = [0.1, 0.4, 0.7, 1.0]
    held = [heard(i, onsets_s=onsets) for i in range(12)]
    assert kinds(follow(held)) == ["ended", "playing"]
    dying = [heard(i, onsets_s=onsets, level_db=-20 - 3.0 * max(0, i - 3)) for i in range(12)]
    states = follow(dying)
    assert kinds(states)[-1] == "ended"
    first = next(t for t, s in states if s.kind == "ended" and s.heard)
    assert 4 * SEGMENT_S < first <= 9 * SEGMENT_S  # 12 dB below its peak at the latest


def test_an_onset_begins_a_phrase_at_once_and_not_only_with_its_percept():
    tracker = PhraseTracker(sample_rate_hz=RATE)
    for i in range(10):
        tracker.hear(percept(i, audible=False), (i + 1) * SEGMENT_S)
    tracker.hear_onset(3.61, 3.64)
    state = tracker.at(3.64)
    assert (state.kind, state.phrase_start_s, state.since_s) == ("playing", 3.61, 3.61)


def test_pace_level_and_pitch_are_what_was_played():
    onsets = np.arange(0.1, 7, 0.2)
    states = follow([heard(i, onsets_s=onsets, level_db=-27) for i in range(18)])
    last = states[-1][1]
    assert last.ioi_s == pytest.approx(0.2, abs=0.001)
    assert last.onset_rate_hz == pytest.approx(5, abs=0.5)
    assert last.level_db == pytest.approx(-27, abs=0.1)
    assert last.pitch is None


def with_pauses(samples: np.ndarray, rate: int, pieces: Sequence[tuple[float, float]], pause_s: float) -> np.ndarray:
    """Return pieces of a recording with a pause behind each: its own sound, faded out in 0.3 s, then a room's hiss."""
    rng = np.random.default_rng(0)
    out = []
    for first_s, last_s in pieces:
        piece = samples[round(first_s * rate) : round(last_s * rate)].copy()
        fade = round(0.3 * rate)
        piece[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32) ** 2
        out += [piece, np.zeros(round(pause_s * rate), dtype=np.float32)]
    whole = np.concatenate(out)
    return whole + (1e-5 * rng.standard_normal(len(whole))).astype(np.float32)


@pytest.mark.parametrize("name", ["rock140_guitar", "ballad95_guitar"])
def test_pauses_of_a_real_guitar_are_found_and_nothing_else(audio_dir: Path, trained, name):
    recording = read_recording(audio_dir / f"{name}.ogg")
    pieces = [(2.0, 6.0), (9.0, 12.0), (14.0, 19.0)]
    sound = with_pauses(recording.samples.reshape(-1), recording.sample_rate_hz, pieces, 2.5)
    states = follow(hear(trained, sound, recording.sample_rate_hz))
    pauses, start = [], 0.0
    for first_s, last_s in pieces:
        pauses.append((start + last_s - first_s, start + last_s - first_s + 2.5))
        start = pauses[-1][1]
    for begin, end in pauses:
        inside = [t for t, s in states if begin - 0.3 < t < end and s.kind == "ended"]
        assert inside, f"the pause at {begin} s was not heard"
        assert inside[0] < begin + 2.0
        assert any(s.kind != "ended" for t, s in states if end < t < end + 0.6) or end == pauses[-1][1]
    outside = [t for t, s in states if s.kind == "ended" and s.heard and not any(b - 0.3 < t < e + 0.5 for b, e in pauses)]
    assert outside == []


def test_the_break_of_the_ballad_is_the_only_end_in_it(ballad_guitar: Path, trained):
    """The guitar strikes its last chord at 25.2 s, lets it ring, and comes in again at 27.0 s."""
    recording = read_recording(ballad_guitar)
    states = follow(hear(trained, recording.samples, recording.sample_rate_hz))
    ended = [t for t, s in states if s.kind == "ended" and s.heard]
    assert ended
    assert min(ended) > 25.5
    assert max(ended) < 27.4


@given(st.lists(st.tuples(st.booleans(), st.floats(-60, -5), st.integers(0, 4)), min_size=1, max_size=30))
def test_what_holds_for_every_player(segments):
    onsets = [i * SEGMENT_S + SEGMENT_S * k / 5 for i, (_, _, n) in enumerate(segments) for k in range(n)]
    percepts = [heard(i, audible=a, level_db=level, onsets_s=onsets) for i, (a, level, _) in enumerate(segments)]
    before: PlayerState | None = None
    for now_s, state in follow(percepts, until_s=len(segments) * SEGMENT_S + 5):
        assert 0 <= state.ending <= 1
        assert state.since_s <= now_s
        assert state.onset_rate_hz >= 0
        assert state.phrase_s >= 0
        if before is not None and before.phrase_start_s is not None:
            assert state.phrase_start_s is not None
            assert state.phrase_start_s >= before.phrase_start_s
        before = state
    assert before is not None
    # Five seconds behind the last sound that could be heard, nobody plays any more, unless a sound still stood.
    if before.heard and not segments[-1][0]:
        assert before.kind == "ended" or before.ending < 0.75
