"""The tempo of a grid of beats, in numbers and in words."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from musichal.cli import app
from musichal.evaluate.tempo_and_chords import tempo_curve, tempo_stats
from musichal.hearing.beats import BEAT
from musichal.memory.partner_file import load_partner, save_partner
from musichal.note import HeardNote
from partners_by_hand import as_version_1, partner, song


def grid(times_s, *, bar=0, confidence=0.9) -> np.ndarray:
    beats = np.zeros(len(times_s), dtype=BEAT)
    beats["time_s"], beats["confidence"] = times_s, confidence
    beats["bar_place"] = np.arange(len(times_s)) % bar if bar else -1
    return beats


def drifting(first_bpm: float, last_bpm: float, seconds: float) -> np.ndarray:
    times = [0.0]
    while times[-1] < seconds:
        times.append(times[-1] + 60 / (first_bpm + (last_bpm - first_bpm) * times[-1] / seconds))
    return np.array(times)


def there_and_back() -> np.ndarray:
    there = drifting(90, 140, 30)
    return np.concatenate([there, there[-1] + drifting(140, 90, 30)[1:]])


@pytest.mark.parametrize(
    ("beats", "words", "bpm", "per_bar"),
    [
        (grid(np.arange(0, 60, 60 / 140), bar=4), "about 140 BPM, steady, 4 beats to the bar", 140, 4),
        (grid(np.arange(0, 60, 0.5), bar=5), "about 120 BPM, steady, 5 beats to the bar", 120, 5),
        (grid(np.arange(0, 60, 0.3), bar=7), "about 200 BPM, steady, 7 beats to the bar", 200, 7),
        (grid(np.arange(0, 60, 0.5)), "about 120 BPM, steady", 120, None),
        (grid(drifting(90, 140, 60)), "93 to 138 BPM, getting faster", 118, None),
        (grid(drifting(140, 90, 60)), "93 to 138 BPM, getting slower", 118, None),
        (grid(there_and_back()), "93 to 138 BPM, going up and down", 118, None),
        (grid(np.arange(0, 30, 0.5)), "about 120 BPM, steady, free in between", 120, None),
        (grid(np.arange(0, 60, 0.5), confidence=0.1), "free, no steady beat", None, None),
        (grid(np.arange(0, 4, 0.5)), "free, no steady beat", None, None),
        (grid([]), "free, no steady beat", None, None),
        (grid([3.0]), "free, no steady beat", None, None),
    ],
)  # fmt: skip
def test_tempo_and_its_course_in_words(beats, words, bpm, per_bar):
    found = tempo_stats(beats, duration_s=60)
    assert found.words == words
    assert found.median_bpm == (None if bpm is None else pytest.approx(bpm, abs=2))
    assert (found.beats, found.beats_per_bar) == (len(beats), per_bar)
    assert 0 <= found.sure_share <= 1


def test_bars_of_no_common_length_have_no_metre():
    beats = grid(np.arange(0, 30, 0.5))
    beats["bar_place"] = [*(list(range(4)) * 8), *(list(range(7)) * 4)]
    assert tempo_stats(beats, duration_s=30).beats_per_bar == 4
    beats["bar_place"] = ([*range(3), *range(4), *range(5)] * 5)[:60]
    assert tempo_stats(beats, duration_s=30).beats_per_bar is None


def test_jitter_of_single_beats_is_no_change_of_tempo():
    beats = grid(np.arange(0, 60, 0.5) + np.random.default_rng(0).normal(scale=0.01, size=120))
    assert tempo_stats(beats, duration_s=60).words == "about 120 BPM, steady"


def test_the_curve_is_broken_where_no_beat_is_sure():
    beats = grid([0, 0.5, 1, 1.5, 2, 2.5, 3, 7, 8, 9])
    beats["confidence"][3] = 0.1
    curve = tempo_curve(beats)
    assert [times.tolist() for times, _ in curve] == [[0, 0.5, 1], [2, 2.5, 3], [7, 8, 9]]
    assert [bpm.tolist() for _, bpm in curve] == [[120] * 3, [120] * 3, [60] * 3]


def test_inspect_says_tempo_and_drums_and_what_an_old_file_lacks(tmp_path):
    beats = grid(np.arange(0, 2.5, 0.5), bar=4)
    hits = [HeardNote(0.01, 0.05, 36, 90), HeardNote(0.5, 0.05, 38, 90), HeardNote(1.0, 0.05, 36, 90)]
    path, old = tmp_path / "new.hal", tmp_path / "old.hal"
    save_partner(path, partner([song("song.wav", [1] * 10, [7] * 10, beats=beats)], hits=hits))
    as_version_1(path, old)
    run = CliRunner(env={"COLUMNS": "160"})
    shown = run.invoke(app, ["inspect", str(path)]).output
    assert "about 120 BPM, steady, 4 beats to the bar, sure 80% of the time" in shown
    assert "2 kick, 1 snare" in shown
    told = json.loads(run.invoke(app, ["inspect", str(path), "--json"]).stdout)["recordings"][0]
    assert (told["tempo"]["median_bpm"], told["tempo"]["sure_share"], told["hits"]) == (120, 0.8, {"kick": 2, "snare": 1})
    said = run.invoke(app, ["inspect", str(old)]).output
    assert "`musichal rehear` finds it" in said
    assert "were not looked for" in said
    assert not any(claim in said for claim in ("no drums", "without a steady beat")), "nothing is known of it"
    assert json.loads(run.invoke(app, ["inspect", str(old), "--json"]).stdout)["recordings"][0]["tempo"] is None


def test_a_memory_of_drums_alone_is_kept_whole(tmp_path):
    hits = [HeardNote(0.25 * i, 0.05, 42, 60) for i in range(10)]
    save_partner(tmp_path / "drums.hal", partner([song("drums.wav", [-1] * 10, [7, 3] * 5)], hits=hits))
    memory = load_partner(tmp_path / "drums.hal").memory
    assert (len(memory.notes), len(memory.hits)) == (0, 10)
    assert [memory.hits_of(state)["pitch"].tolist() for state in range(10)] == [[42]] * 10
