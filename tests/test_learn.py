"""`musichal learn`: moving a controller puts it on the map."""

import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midi_receiver import MidiSender
from musichal.errors import InputError
from musichal.live.control import CcMapping, cc_map_toml, read_cc_map
from musichal.live.input.controllers import Mover, Wish, learned, parse_wish


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        ("mute", Wish(name="mute")),
        ("temperature", Wish(name="temperature", high=0.3)),
        ("temperature = 0:2", Wish(name="temperature", high=2.0)),
        ("bass.low_pitch=28:48", Wish(name="bass.low_pitch", low=28, high=48)),
        ("mode=shadow, mirror", Wish(name="mode", choices=("shadow", "mirror"))),
        ("clock=60:180", Wish(name="clock", low=60, high=180)),
        ("intensity", Wish(name="intensity")),
        ("intensity=0.2:0.8", Wish(name="intensity", low=0.2, high=0.8)),
        ("region=0:3", Wish(name="region", low=0, high=3)),
        ("region=all,0:0-10", Wish(name="region", choices=("all", "0:0-10"))),
        ("use=0:0-10", Wish(name="use", choices=("0:0-10",))),
        ("voices=all;melody,bass", Wish(name="voices", choices=("all", "melody,bass"))),
        ("scenario=C Am F G,Dm G", Wish(name="scenario", choices=("C Am F G", "Dm G"))),
    ],
)
def test_a_wish_in_words(text, wish):
    assert parse_wish(text) == wish


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("loudness=0:1", "unknown command 'loudness'"),
        ("panic=0:1", "button"),
        ("mode", "mode=shadow,mirror"),
        ("temperature=low:high", "one number to another"),
        ("mode=shadow,", "choices"),
        ("Bass.x\ny=0:1", "small letters"),
        ("mode=a\nb,c", "choices"),
        ("temperature=-1:2", r"temperature must be in \[0, 5\], got -1"),
        ("intensity=0:2", r"intensity must be in \[0, 1\], got 2"),
        ("bass.low_pitch=28:200", r"bass.low_pitch must be in \[0, 127\], got 200"),
        ("temperature=cold,hot", "one number to another"),
        ("voices=all;tenor", "unknown voice 'tenor'"),
        ("region=verse,chorus", "regions such as"),
        ("bass.colour=0:1", "unknown setting 'bass.colour'"),
    ],
)
def test_what_is_no_wish_is_refused_in_a_line(text, words):
    with pytest.raises(InputError, match=words):
        parse_wish(text)


BEFORE = """# my nanoKONTROL, second scene
[[cc]]
controller = 1  # the mod wheel
command = "temperature"
low = 0.0
high = 2.0

# feet
[[note]]
note = 36
command = "mute"
"""


def test_comments_and_order_survive(tmp_path):
    path = tmp_path / "map.toml"
    path.write_bytes(BEFORE.encode())
    mappings = read_cc_map(path).mappings
    assert cc_map_toml(mappings, before=BEFORE) == BEFORE
    more = learned(list(mappings), parse_wish("follow_density=0:1"), (0, 7))
    text = cc_map_toml(more, before=BEFORE)
    assert all(line in text for line in BEFORE.splitlines())
    path.write_text(text, encoding="utf-8")
    assert set(read_cc_map(path).mappings) == set(more)
    less = learned(more, parse_wish("mute"), (0, 1))
    text = cc_map_toml(less, before=text)
    assert "# my nanoKONTROL" not in text or "mod wheel" not in text
    path.write_text(text, encoding="utf-8")
    assert set(read_cc_map(path).mappings) == set(less)


@pytest.mark.parametrize("before", ['cc = [{controller = 1, command = "mute"}]\n', "", "note = []\n"])
def test_other_forms_of_a_map(before, tmp_path):
    path = tmp_path / "map.toml"
    path.write_text(before, encoding="utf-8")
    more = learned(list(read_cc_map(path).mappings), parse_wish("mute"), (2, 9), note=True)
    more = learned(more, parse_wish("mode=shadow,mirror"), (2, 9))
    path.write_text(cc_map_toml(more, before=before), encoding="utf-8")
    assert set(read_cc_map(path).mappings) == set(more)


def test_what_trembles_is_not_what_is_moved():
    mover = Mover(taken={(0, 7)})
    assert mover.take((0xB0, 20, 64)) is None
    assert [mover.take((0xB0, 20, 64 + k % 3)) for k in range(20)] == [None] * 20
    assert [mover.take((0xB0, 7, v)) for v in (0, 60, 127)] == [None] * 3, "still on its way from before"
    assert mover.take((0x90, 60, 127)) is None
    assert mover.take((0xB0, 123, 127)) is None
    assert [mover.take((0xB3, 21, v)) for v in (10, 14, 18)] == [None, None, (3, 21)]
    assert Mover().take((0xB5, 64, 127)) == (5, 64), "a button"


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.sampled_from(["mute", "temperature=0:2", "mode=a,b"]))))
def test_a_controller_does_one_thing_and_the_others_keep_theirs(tmp_path_factory, moves):
    mappings = [CcMapping(9, "panic")]
    for channel, controller, text in moves:
        mappings = learned(mappings, parse_wish(text), (channel, controller))
    places = [(m.channel, m.controller) for m in mappings]
    assert len(set(places)) == len(places)
    assert mappings[0] == CcMapping(9, "panic")
    for channel, controller, text in moves[-1:]:
        assert (mappings[-1].channel, mappings[-1].controller, mappings[-1].name) == (
            channel,
            controller,
            parse_wish(text).name,
        )
    path = tmp_path_factory.mktemp("map") / "map.toml"
    path.write_text(cc_map_toml(mappings))
    assert [(m.channel, m.controller, m.name) for m in read_cc_map(path).mappings] == [
        (m.channel, m.controller, m.name) for m in mappings
    ]


@pytest.mark.live
def test_moved_on_a_real_port_it_is_in_the_file(jack_server, tmp_path):
    path = tmp_path / "map.toml"
    path.write_text(cc_map_toml([CcMapping(1, "panic", 0)]))
    command = [sys.executable, "-m", "musichal", "learn", str(path), "temperature=0:2", "mute", "--control-in", "knobs"]
    with (
        MidiSender("knobs") as out,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as learning,
    ):
        until = time.monotonic() + 60
        while learning.poll() is None and time.monotonic() < until:
            # The first fader goes on moving while the second is asked for.
            for position in (0, 20, 60):
                out.send(0xB2, 20, position)
                time.sleep(0.02)
            if len(read_cc_map(path).mappings) > 1:
                out.send(0xB0, 64, 127)
            time.sleep(0.1)
        learning.kill()
        said = learning.communicate()
    assert learning.returncode == 0, said
    assert read_cc_map(path).mappings == (
        CcMapping(1, "panic", 0),
        CcMapping(20, "temperature", 2, 0.0, 2.0),
        CcMapping(64, "mute", 0),
    )
