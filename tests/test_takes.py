"""What `inspect` says to musicians of a memory made by hand."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from musichal.cli import app
from musichal.evaluate.partner_stats import partner_stats
from musichal.evaluate.takes import enough_words, overview
from musichal.memory.partner_file import save_partner
from musichal.note import HeardNote
from musichal.partner.chords import key_name, keys_of
from partners_by_hand import partner, song


def scale(*pitches: int) -> list[HeardNote]:
    return [HeardNote(0.25 * n, 0.2, pitch, 90) for n, pitch in enumerate(pitches)]


@pytest.fixture(scope="module")
def two_takes():
    first = song("one.wav", [1, 2, 3, 4] * 4, [7] * 16, scale(*range(48, 64)))
    second = song("two.wav", [1, 2, 3, 9] * 4 + [-1] * 8, [7] * 16 + [-1] * 8, scale(60, 62, 64, 65))
    return partner([first, second])


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (20.0, "0:20 of music: enough to try it; 5 to 20 minutes make a partner"),
        (70.0, "1:10 of music: enough for a few minutes; 5 to 20 minutes make a partner"),
        (400.0, "6:40 of music: enough for a set"),
        (1500.0, "25:00 of music: plenty for an evening"),
    ],
)
def test_it_says_how_far_the_music_reaches(seconds, words):
    assert enough_words(seconds) == words


def test_each_take_has_its_share_range_and_density_and_silence_does_not_count(two_takes):
    known = overview(two_takes, partner_stats(two_takes))
    one, two = known.takes
    assert known.sounding_s == pytest.approx(8.0)
    assert (one.of_memory, two.of_memory) == pytest.approx((0.5, 0.5))
    assert (one.lowest, one.highest, two.lowest, two.highest) == (48, 63, 60, 65)
    assert one.middle[0] > 48 and one.middle[1] < 63
    assert one.notes_per_s == pytest.approx(4.0)
    assert two.notes_per_s == pytest.approx(1.0)
    (alike,) = known.alike
    assert alike.turns == pytest.approx(8 / 15), "of 15 turns, 4 times 1-2 and 2-3"
    assert "no drums were heard in it" in known.lacks


@pytest.mark.parametrize(("count", "words"), [(0, "no drums"), (1, "hardly any drums"), (4, "drums: it has kick")])
def test_a_misheard_hit_makes_no_drummer(count, words):
    hits = [HeardNote(0.25 * n, 0.05, 36, 90) for n in range(count)]
    heard = partner([song("long.wav", [1, 2] * 32, [7] * 64, scale(60, 62))], hits=hits)
    known = overview(heard, partner_stats(heard))
    assert [line.startswith(words) for line in known.suits + known.lacks].count(True) == 1
    assert ("drums: it has kick" in " ".join(known.suits)) == (count == 4)


def test_the_key_of_a_scale_is_its_own():
    for root in range(12):
        for intervals, key in (((0, 2, 4, 5, 7, 9, 11), root), ((0, 2, 3, 5, 7, 8, 11), root + 12)):
            weights = np.full(12, 0.01)
            weights[[(root + i) % 12 for i in intervals]] = 1.0
            weights[[root, (root + 7) % 12]] = 2.0
            likely = keys_of(np.tile(weights / weights.sum(), (20, 1)))
            assert key_name(int(likely[-1].argmax())) == key_name(key)


def test_inspect_speaks_to_musicians_and_keeps_figures_behind_an_option(two_takes, tmp_path):
    save_partner(tmp_path / "p.hal", two_takes)
    runner = CliRunner(env={"COLUMNS": "160"})
    shown = runner.invoke(app, ["inspect", str(tmp_path / "p.hal")])
    assert shown.exit_code == 0, shown.output
    assert "p.hal knows 2 takes. 0:08 of music: enough to try it" in shown.output
    assert "C3 to Eb4" in shown.output
    assert "53% of the turns of one.wav are in two.wav" in shown.output
    jargon = ("perplexity", "closed form", "bits per gesture", "fingerprint", "clusters")
    assert not any(word in shown.output for word in jargon)
    figures = runner.invoke(app, ["inspect", str(tmp_path / "p.hal"), "--figures"]).output
    assert all(word in figures for word in jargon)
    told = json.loads(runner.invoke(app, ["inspect", str(tmp_path / "p.hal"), "--json"]).stdout)
    assert told["overview"]["takes"][0]["name"] == "one.wav"
