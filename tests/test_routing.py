"""Which voice plays where."""

import io
import tomllib
from pathlib import Path

import mido
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musichal.errors import InputError
from musichal.live.output.routing import VelocityCurve, VoiceRoute, parse_routing, read_routing, routed_parts, single_port
from musichal.live.output.scheduler_protocol import MpeZone, PortSettings
from musichal.live.session.export import TempoMap, score_bytes
from musichal.note import PERCUSSION_CHANNEL, Note
from musichal.partner.decision import Decision

WHOLE = """
[port.synth]
to = "virtual:MusicHal"
latency_ms = 12.5
mpe = true
mpe_members = 8
mpe_bend_semitones = 24

[voice.melody]
port = "synth"
channel = 2
transpose = -12
range = [40, 84]
outside = "drop"
program = 33
velocity = { gamma = 0.5, floor = 20, ceiling = 110 }

[voice.bass]
port = "file:bass.mid"
program = 34

[voice.low]
port = "file:bass.mid"
channel = 3
"""


def test_a_whole_table() -> None:
    routing = parse_routing(tomllib.loads(WHOLE))
    assert routing.ports == (
        PortSettings("synth", "virtual:MusicHal", 0.0125, MpeZone(8, 24), (bytes((0xC0, 32)),)),
        PortSettings("file:bass.mid", "file:bass.mid", setup=(bytes((0xC0, 33)),)),
    )
    assert routing.voices == {
        "melody": VoiceRoute("synth", 1, -12, 40, 84, "drop", 32, VelocityCurve(0.5, 20, 110), 1),
        "bass": VoiceRoute("file:bass.mid", program=33),
        "low": VoiceRoute("file:bass.mid", 2, drum_channel=2),
    }


def test_a_note_on_its_way() -> None:
    routing = parse_routing(tomllib.loads(WHOLE))
    note = Note(1.0, 0.5, 72, 127)
    melody = routing.route_of("melody")
    assert melody is not None
    assert melody.place(note, 100.0) == Note(100.0, 0.5, 60, 110, 1)
    assert melody.place(Note(1.0, 0.5, 30, 90), 100.0) is None
    assert routing.route_of("drums") is None


def test_the_tables_in_the_documents_are_valid() -> None:
    pages = sorted((Path(__file__).resolve().parents[1] / "docs").rglob("*.md"))
    blocks = [block.split("```")[0] for page in pages for block in page.read_text("utf-8").split("```toml\n")[1:]]
    tables = [block for block in blocks if "[voice." in block]
    assert tables
    for table in tables:
        assert parse_routing(tomllib.loads(table)).voices


def test_one_port_for_every_voice() -> None:
    routing = single_port("none:", channel=3)
    assert routing.ports == (PortSettings("out", "none:"),)
    assert routing.route_of("any") == VoiceRoute("out", 3)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "there is no voice"),
        ("[voices.a]\nport='x'", "the table: unknown key 'voices'. Valid keys: port, voice"),
        ("[voice.a]\nprot='x'", "voice.a: unknown key 'prot'. Valid keys: port, channel"),
        ("[voice.a]\nchannel=1", "voice.a needs port"),
        ("[voice.a]\nport=1", "voice.a: port must be text, got 1"),
        ("[voice.a]\nport='x'\nchannel=0", "voice.a: channel must be an integer in [1, 16], got 0"),
        ("[voice.a]\nport='x'\nchannel=true", "channel must be an integer in [1, 16], got True"),
        ("[voice.a]\nport='x'\nprogram=129", "program must be an integer in [1, 128]"),
        ("[voice.a]\nport='x'\nrange=[1]", "range must be the lowest and the highest"),
        ("[voice.a]\nport='x'\nrange=[90, 80]", "the range's highest must be an integer in [90, 127], got 80"),
        ("[voice.a]\nport='x'\nrange=['c', 80]", "the range's lowest must be an integer"),
        ("[voice.a]\nport='x'\noutside='wrap'", "outside must be 'fold' or 'drop', got 'wrap'"),
        ("[voice.a]\nport='x'\nvelocity={gama=1}", "voice.a.velocity: unknown key 'gama'. Valid keys: gamma, floor, ceiling"),
        ("[voice.a]\nport='x'\nvelocity={gamma=0}", "voice.a.velocity: gamma must be in [0.1, 10], got 0"),
        ("[voice.a]\nport='x'\nvelocity={floor=100, ceiling=20}", "floor must be an integer in [1, 20], got 100"),
        ("voice=3", "voice must be tables, such as"),
        ("[port.p]\nto='none:'\n[voice.a]\nport='x'", "port.p: no voice plays on it"),
        ("[port.p]\nlatency_ms=1\n[voice.a]\nport='p'", "port.p needs to"),
        ("[port.p]\nto='none:'\nlatency_ms=2000\n[voice.a]\nport='p'", "latency_ms must be in [0, 1000], got 2000"),
        ("[port.p]\nto='none:'\nlatency_ms=nan\n[voice.a]\nport='p'", "latency_ms must be in [0, 1000], got nan"),
        ("[port.p]\nto='none:'\nmpe=true\nmpe_members=16\n[voice.a]\nport='p'", "port.p: mpe_members must be"),
        ("[port.p]\nto='none:'\nmpe_members=3\n[voice.a]\nport='p'", "need mpe = true"),
        (
            "[port.p]\nto='none:'\nmpe=true\n[voice.a]\nport='p'\nprogram=1\n[voice.b]\nport='p'\nprogram=2\nchannel=2",
            "port.p: an MPE port has one program",
        ),
        ("[voice.a]\nport='x'\nprogram=1\n[voice.b]\nport='x'\nprogram=2", "different programs on channel 1 of x"),
    ],
)
def test_a_table_that_cannot_be_is_one_clear_line(text: str, says: str, tmp_path) -> None:
    path = tmp_path / "voices.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_routing(path)
    assert says in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"[voice", b"\xff\xfe", b"a=" + b"[" * 100_000])
def test_a_file_that_is_no_table(content: bytes, tmp_path) -> None:
    path = tmp_path / "voices.toml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"not valid TOML|there is no voice") as caught:
        read_routing(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"cannot read"):
        read_routing(tmp_path / "none.toml")
    path.write_bytes(b"#" * 2_000_000)
    with pytest.raises(InputError, match=r"too large"):
        read_routing(path)


@given(st.integers(0, 127), st.integers(-96, 96), st.integers(0, 127), st.integers(0, 127), st.sampled_from(["fold", "drop"]))
def test_a_pitch_stays_in_its_range_and_in_its_class(pitch, transpose, one, other, outside) -> None:
    route = VoiceRoute("p", transpose=transpose, lowest=min(one, other), highest=max(one, other), outside=outside)
    played = route.pitch(pitch)
    inside = route.lowest <= pitch + transpose <= route.highest
    if inside:
        assert played == pitch + transpose
    elif outside == "drop":
        assert played is None
    elif played is None:
        assert all((p - pitch - transpose) % 12 for p in range(route.lowest, route.highest + 1))
    else:
        assert route.lowest <= played <= route.highest
        assert (played - pitch - transpose) % 12 == 0
        nearer = range(min(played, pitch + transpose) + 1, max(played, pitch + transpose))
        assert not any((p - played) % 12 == 0 and route.lowest <= p <= route.highest for p in nearer)


@given(st.floats(0.1, 10), st.integers(1, 127), st.integers(1, 127))
def test_a_velocity_curve_never_falls_and_reaches_both_ends(gamma, one, other) -> None:
    curve = VelocityCurve(gamma, min(one, other), max(one, other))
    sent = [curve(velocity) for velocity in range(1, 128)]
    assert sent == sorted(sent)
    assert (sent[0], sent[-1]) == (curve.floor, curve.ceiling)


def test_without_a_curve_velocities_stay_as_they_are() -> None:
    assert [VelocityCurve()(velocity) for velocity in range(1, 128)] == list(range(1, 128))
    assert [VelocityCurve(gamma=2.0)(velocity) for velocity in (1, 64, 127)] == [1, round(1 + 0.25 * 126), 127]


def test_drums_are_on_channel_10_unless_the_table_says_another() -> None:
    hit = Note(1.0, 0.1, 38, 90, PERCUSSION_CHANNEL)
    table = '[voice.drums]\nport = "none:"\n[voice.kit]\nport = "none:"\nchannel = 3\n[voice.bass]\nport = "none:"'
    routing = parse_routing(tomllib.loads(table))
    placed = {name: routing.voices[name].place(hit, 2.0) for name in ("drums", "kit")}
    assert placed == {"drums": Note(2.0, 0.1, 38, 90, 9), "kit": Note(2.0, 0.1, 38, 90, 2)}
    shared = single_port("none:", channel=4).route_of("drums")
    assert shared is not None
    assert shared.place(hit, 2.0) == placed["drums"]
    assert routing.voices["bass"].place(Note(1.0, 0.1, 38, 90), 2.0) == Note(2.0, 0.1, 38, 90, 0)


def test_offline_each_voice_sounds_with_its_own_program_and_drums_with_none() -> None:
    table = '[voice.melody]\nport = "a"\nprogram = 5\n[voice.bass]\nport = "b"\nprogram = 34\n[voice.drums]\nport = "a"\n'
    routing = parse_routing(tomllib.loads(table))
    kick, low = Note(0.0, 0.1, 36, 90, PERCUSSION_CHANNEL), Note(0.5, 0.5, 40, 90)
    heard = {"drums": [kick], "bass": [kick, low], "melody": [low]}
    decisions = [
        Decision(number=n, time_s=0.0, kind="play", voice=v, notes=tuple(own)) for n, (v, own) in enumerate(heard.items())
    ]
    parts = routed_parts(decisions, routing, program=1)
    assert [(part.name, part.channel, part.program) for part in parts] == [
        ("drums", PERCUSSION_CHANNEL, None),
        ("bass", 0, 33),
        ("melody", 1, 4),
    ]
    file = mido.MidiFile(file=io.BytesIO(score_bytes(parts, TempoMap())))
    assert [(m.channel, m.program) for track in file.tracks for m in track if m.type == "program_change"] == [(0, 33), (1, 4)]
