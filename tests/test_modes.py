"""Modes: the table, how long they stay, and what each of their columns changes of what is heard."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from musichal.cli import app
from musichal.errors import InputError
from musichal.parameters import MODE_NUMBERS
from musichal.partner.memory_pool import MemoryPool
from musichal.partner.mode_controller import ModeController
from musichal.partner.modes import AUTO, TRIGGERS, ModeKeeper, built_in_modes, parse_modes, read_modes
from musichal.partner.settings import Direction, PartnerSettings
from players_by_hand import answer, hear, plays

pytestmark = pytest.mark.usefixtures("heard_once")

NAMES = ("shadow", "mirror", "couple", "lead", "contrast", "rest")


def test_the_table_has_the_modes_that_are_promised():
    table = built_in_modes()
    assert tuple(table) == NAMES
    assert {name: mode.turn for name, mode in table.items()} == {
        "shadow": "along", "mirror": "answer", "couple": "along", "lead": "own", "contrast": "along", "rest": "rest",
    }  # fmt: skip
    assert table["shadow"].trigger == "onset"
    assert table["mirror"].trigger == "phrase end"
    assert all(mode.about and mode.next for mode in table.values())
    assert all(mode.stay_s[0] >= 30 and mode.stay_s[1] <= 90 for name, mode in table.items() if name != "rest")


def test_contrast_opposes_and_shadow_follows_what_they_name():
    table = built_in_modes()
    for name in ("follow_register", "follow_density", "follow_loudness", "dynamics"):
        assert dict(table["contrast"].settings)[name] < 0 < dict(table["shadow"].settings)[name]


def test_a_table_of_ones_own_adds_to_the_table_and_may_copy_a_mode(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text('[ghost]\nlike = "shadow"\nabout = "far away"\ngain_db = -12\n[rest]\nturn = "rest"\ntrigger = "never"\n')
    table = read_modes(path)
    assert set(table) == {*NAMES, "ghost"}
    assert table["ghost"].trigger == "onset"
    assert dict(table["ghost"].settings)["gain_db"] == -12
    assert dict(table["ghost"].settings)["pace"] == dict(table["shadow"].settings)["pace"]
    assert table["rest"].next == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[x]\nturn = "alone"', "turn must be one of 'along', 'answer', 'own', 'rest', got 'alone'"),
        ('[x]\nturn = "along"\ntrigger = "never"', "turn 'along' contradicts trigger 'never'"),
        ('[x]\nturn = "answer"\ntrigger = "onset"', "turn 'answer' contradicts trigger 'onset'; it goes with 'phrase end'"),
        ('[x]\nturn = "rest"\ntrigger = "never"\nphrase = 2', "turn 'rest' plays nothing: phrase contradicts it"),
        ("[x]\nrecall = 0.5", "recall needs turn 'answer', got 'along'"),
        ("[x]\npatience_s = 5", "patience_s contradicts it"),
        ("[x]\nphrase = 0", "phrase must be in [0.1, 10], got 0"),
        ("[x]\nbreath = nan", "breath must be in [0, 10], got nan"),
        ('[x]\nbreath = "long"', "breath must be a number, got 'long'"),
        ("[x]\nreturns = 2", "returns must be in [0, 1], got 2"),
        ("[x]\nstay_s = 30", "stay_s must be two numbers"),
        ("[x]\nstay_s = [60, 30]", "the shorter stay first"),
        ("[x]\nnext = { y = 1 }", "next: unknown mode 'y'"),
        ("[x]\nnext = { x = 1 }", "next must not name 'x' itself"),
        ("[x]\nnext = { couple = 0 }", "must make one of its modes possible"),
        ("[x]\nvolume = 3", "unknown setting 'volume'"),
        ("[x]\nvolume = 3", "columns of a mode: about, turn, trigger"),
        ("[x]\npace = 3", "pace must be in [-1, 1], got 3"),
        ('[x]\ntemperature = "hot"', "temperature must be a number"),
        ('[x]\nlike = "nobody"', "got 'nobody'"),
        ("x = 3", "'x' is outside a mode"),
        ("[auto]\nphrase = 1", "must not be 'auto'"),
        ("[x\n", "not valid TOML"),
        ("[x]\ndirection = {}", "cannot set the direction"),
        ("[x]\nabout = 3", "about must be text"),
    ],
)
def test_what_is_wrong_in_a_table_is_named(text, says):
    with pytest.raises(InputError) as error:
        parse_modes(text, built_in_modes(), source="mine.toml")
    assert says in str(error.value)
    assert str(error.value).startswith("mine.toml")


def test_a_table_that_cannot_be_read_is_one_line(tmp_path: Path):
    with pytest.raises(InputError, match="cannot read"):
        read_modes(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        read_modes(tmp_path / "binary.toml")


def test_settings_by_hand_go_before_the_mode():
    shadow = built_in_modes()["shadow"]
    assert shadow.applied(PartnerSettings(), {}).pace == 1.0
    assert shadow.applied(PartnerSettings(), {"pace": 0.25}).pace == 0.25
    with pytest.raises(InputError, match="mode shadow"):
        shadow.applied(PartnerSettings(), {"pace": 7})


# ── how long modes stay ──────────────────────────────────────────────────────


def keeper(start: str = AUTO, seed: int = 0) -> ModeKeeper:
    return ModeKeeper(built_in_modes(), start, rng=np.random.default_rng(seed))


@given(st.integers(0, 200))
def test_by_itself_it_stays_as_long_as_the_mode_says_and_leaves_at_the_end_of_a_phrase(seed):
    kept = keeper(seed=seed)
    table, since_s = built_in_modes(), 0.0
    for now_s in np.arange(0, 400, 0.5).tolist():
        before = kept.mode.name
        phrase_ended = now_s % 7 == 0
        if kept.step(now_s, phrase_ended=phrase_ended):
            assert phrase_ended
            least, most = table[before].stay_s
            assert least <= now_s - since_s <= most + 7
            assert kept.mode.name in dict(table[before].next)
            since_s = now_s
    assert since_s


def test_a_mode_that_was_asked_for_stays():
    kept = keeper("lead")
    assert kept.until_s == math.inf
    assert not any(kept.step(float(t), phrase_ended=True) for t in range(1000))
    assert kept.mode.name == "lead"


def test_the_hand_goes_before_time_and_auto_gives_it_back():
    kept = keeper()
    kept.choose("shadow", 3.0)
    assert (kept.mode.name, kept.user_override) == ("shadow", True)
    assert not any(kept.step(float(t), phrase_ended=True) for t in range(3, 1000))
    kept.choose(AUTO, 1000.0)
    assert any(kept.step(1000.0 + t, phrase_ended=True) for t in range(100))
    with pytest.raises(InputError, match=r"unknown mode 'loud'. Valid modes: shadow"):
        kept.choose("loud", 1100.0)


def test_the_hand_goes_before_the_form_until_the_section_ends():
    kept = keeper()
    assert kept.step(0.0, phrase_ended=False, section=0, form_mode="mirror")
    kept.choose("lead", 5.0)
    assert not kept.step(6.0, phrase_ended=True, section=0, form_mode="mirror")
    assert kept.mode.name == "lead"
    assert kept.step(10.0, phrase_ended=False, section=1, form_mode="couple")
    assert (kept.mode.name, kept.user_override) == ("couple", False)


def test_change_goes_on_and_back_returns():
    kept = keeper("couple")
    kept.another(10.0)
    assert kept.mode.name != "couple"
    changed = kept.mode.name
    kept.another(20.0)
    kept.back(30.0)
    assert kept.mode.name == changed
    kept.back(31.0)
    assert kept.mode.name == "couple"
    kept.back(32.0)
    assert kept.mode.name == "couple"


def test_more_like_this_stays_longer():
    kept = keeper()
    before = kept.until_s
    kept.stay(10.0)
    assert kept.until_s > before + 30


# ── every column changes what is heard ───────────────────────────────────────


@pytest.fixture(scope="module")
def player(trained, short_guitar):
    """Real guitar with silence before it, in the middle, and behind it: phrases end, and begin again."""
    samples, rate = soundfile.read(short_guitar, dtype="float32")
    quiet = np.zeros(2 * rate, dtype=np.float32)
    whole = np.concatenate([quiet, samples[: 3 * rate], quiet, samples[3 * rate : 7 * rate], quiet])
    return hear(trained, whole, rate)


def played_with(trained, player, table: str, mode: str = "x", *, seed: int = 0):
    direction = {"mode": mode, "modes": table}
    return plays(answer(trained.memory, player, PartnerSettings.from_dict({"direction": direction}), seed=seed, onsets=True))


COUPLE = '[x]\nlike = "couple"\n'
MIRROR = '[x]\nlike = "mirror"\n'
ENDS = {
    "turn": (COUPLE + 'rest_below = 0\nturn = "along"\n', COUPLE + 'rest_below = 0\nturn = "own"\n'),
    "trigger": (COUPLE + 'trigger = "onset"\n', COUPLE + 'trigger = "own end"\n'),
    "phrase": (COUPLE + "phrase = 0.1\n", COUPLE + "phrase = 5\n"),
    "breath": (COUPLE + "breath = 0\n", COUPLE + "breath = 10\n"),
    "patience_s": (MIRROR + "patience_s = 1\n", MIRROR + "patience_s = 60\n"),
    "recall": (MIRROR + "recall = 0\n", MIRROR + "recall = 1\n"),
    "like": ('[x]\nlike = "couple"\n', '[x]\nlike = "lead"\n'),
}


@pytest.mark.parametrize("column", ENDS)
def test_each_column_changes_what_is_heard(trained, player, column):
    low, high = (played_with(trained, player, table) for table in ENDS[column])
    assert low
    assert high
    assert low != high


def test_the_modes_play_differently_and_rest_not_at_all(trained, player):
    heard = {name: played_with(trained, player, "", name) for name in NAMES}
    assert heard["rest"] == []
    playing = [tuple(map(repr, p)) for name, p in heard.items() if name != "rest"]
    assert all(playing)
    assert len(set(playing)) == len(playing)


def test_how_long_a_mode_stays_and_what_comes_next_are_heard(trained, player):
    """Sooner than a real mode would go, for the player is short."""

    def modes(stay: str, following: str) -> list[str]:
        table = f'[x]\nlike = "couple"\nphrase = 0.1\nstay_s = {stay}\nnext = {{ {following} = 1 }}\n'
        direction = {"mode": "couple", "modes": table.replace("[x]", "[couple]").replace('like = "couple"\n', "")}
        settings = PartnerSettings.from_dict({"direction": {**direction, "mode": AUTO}})
        return list(dict.fromkeys(d.mode for d in answer(trained.memory, player, settings, onsets=True)))

    assert modes("[1, 2]", "lead")[:2] == ["couple", "lead"]
    assert modes("[1, 2]", "rest")[:2] == ["couple", "rest"]
    assert modes("[60, 90]", "lead") == ["couple"]


def test_returns_bring_something_back(trained, player):
    def returned(share: float) -> set[str]:
        table = f"[x]\nreturns = {share}\nphrase = 0.3\nbreath = 0\n"
        settings = PartnerSettings.from_dict({"direction": {"mode": "x", "modes": table}})
        return {d.returns for d in answer(trained.memory, [*player, *later(player)], settings, onsets=True)} - {""}

    assert returned(0.0) == set()
    assert returned(1.0)


def later(player):
    """Return the same player once more, behind the first time."""
    first = player[-1].heard
    shift = first.start_sample + first.length_samples
    out = []
    for p in player:
        heard = dataclasses.replace(
            p.heard,
            start_sample=p.heard.start_sample + shift,
            available_at=p.heard.available_at + shift,
            frame_samples=p.heard.frame_samples + shift,
            onset_samples=tuple(o + shift for o in p.heard.onset_samples),
            notes=tuple(dataclasses.replace(n, onset_s=n.onset_s + shift / 24_000) for n in p.heard.notes),
        )
        gestures = tuple(dataclasses.replace(g, start_s=g.start_s + shift / 24_000) for g in p.gestures)
        out.append(dataclasses.replace(p, heard=heard, gestures=gestures))
    return out


# ── the document ─────────────────────────────────────────────────────────────

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "reference" / "modes.md"


def test_the_document_has_every_mode_and_every_column():
    text = DOCUMENT.read_text(encoding="utf-8")
    for name in (*built_in_modes(), *TRIGGERS, *(trigger for own in TRIGGERS.values() for trigger in own)):
        assert f"`{name}`" in text
    for column in ("turn", "trigger", *MODE_NUMBERS, "stay_s", "next"):
        assert f"| `{column}` |" in text
    for column, parameter in MODE_NUMBERS.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{column}` |"))
        assert row.endswith(f"| {parameter.low:g} … {parameter.high:g} |")


def test_modes_are_listed_checked_and_copied(tmp_path: Path):
    listed = CliRunner().invoke(app, ["modes", "--json"])
    assert json.loads(listed.stdout)["modes"].keys() == set(NAMES)
    copied = CliRunner().invoke(app, ["modes", "--toml"])
    (tmp_path / "mine.toml").write_text(copied.stdout, encoding="utf-8")
    assert read_modes(tmp_path / "mine.toml") == built_in_modes()
    assert "goes its own way" in CliRunner().invoke(app, ["modes", str(tmp_path / "mine.toml")]).stdout.replace("\n", " ")
    (tmp_path / "wrong.toml").write_text("[x]\nvolume = 3\n")
    wrong = CliRunner().invoke(app, ["modes", str(tmp_path / "wrong.toml")])
    assert wrong.exit_code == 2
    assert "volume" in wrong.stderr


def test_a_setting_that_was_given_holds_in_every_mode_even_at_its_default(trained):
    def held(settings: PartnerSettings) -> float:
        controller = ModeController(MemoryPool(trained.memory), settings, rng=np.random.default_rng(0), sample_rate_hz=24_000)
        return controller.settings(settings).chroma_weight

    assert built_in_modes()["shadow"].applied(PartnerSettings(), {}).chroma_weight == 2.0
    shadow = PartnerSettings(direction=Direction(mode="shadow"))
    for value in (PartnerSettings().chroma_weight, 1.1):
        given = shadow.changed({"chroma_weight": value})
        assert given.explicit == {"chroma_weight"}
        assert held(given) == value
        assert held(PartnerSettings.from_dict(given.to_dict())) == value
        # A session from before names were kept: only what differs from the defaults counts as given.
        old = {name: v for name, v in given.to_dict().items() if name != "explicit"}
        assert held(PartnerSettings.from_dict(old)) == (2.0 if value == PartnerSettings().chroma_weight else value)
    voices = shadow.changed({"voices": "melody, bass", "bass.low_pitch": 36})
    assert voices.explicit == {"voices"}
    with pytest.raises(InputError, match="explicit must be names of settings, got direction"):
        PartnerSettings.from_dict({"explicit": ["direction"]})


def test_play_takes_a_mode_a_table_and_a_form_and_replays_them(tmp_path: Path, trained_path: Path, short_guitar: Path):
    (tmp_path / "mine.toml").write_text('[ghost]\nlike = "couple"\ngain_db = -12\n')
    (tmp_path / "form.toml").write_text('end = 6\nfade_s = 2\n[[section]]\nfrom = 0\nmode = "ghost"\n')
    played = CliRunner().invoke(
        app,
        ["play", str(trained_path), "--input", str(short_guitar), "--session", str(tmp_path / "s"),
         "--modes", str(tmp_path / "mine.toml"), "--form", str(tmp_path / "form.toml"), "--set", "chroma_weight=1"],
    )  # fmt: skip
    assert played.exit_code == 0, played.stderr
    assert json.loads((tmp_path / "s" / "settings.json").read_text())["partner"]["explicit"] == ["chroma_weight"]
    decisions = [json.loads(line) for line in (tmp_path / "s" / "decisions.jsonl").read_text().splitlines()]
    assert {d["mode"] for d in decisions if d["kind"] == "play"} == {"ghost"}
    assert decisions[-1]["rest"] == "ended"
    assert CliRunner().invoke(app, ["replay", str(tmp_path / "s")]).exit_code == 0
    for arguments, says in (
        (["--mode", "loud"], "unknown mode 'loud'"),
        (["--modes", str(tmp_path / "none.toml")], "cannot read"),
        (["--form", str(tmp_path / "mine.toml")], "unknown key 'ghost'"),
    ):
        refused = CliRunner().invoke(
            app, ["play", str(trained_path), "--input", str(short_guitar), "--midi-out", str(tmp_path / "r.mid"), *arguments]
        )
        assert refused.exit_code == 2
        assert says in refused.stderr.replace("\n", " ")
        assert not (tmp_path / "r.mid").exists()
