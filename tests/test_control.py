"""Commands by OSC, controllers and keys: bounded whatever comes, and nothing but numbers and short words."""

import contextlib
import random
import socket
import struct
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.jack_midi import wait_for
from midi_receiver import MidiSender, UdpReceiver
from musichal.errors import InputError
from musichal.live.control import CcMapping, Command, CommandQueue, cc_map_toml, command, partner_changes, read_cc_map, told
from musichal.live.input import osc
from musichal.live.input.osc import LARGEST_DATAGRAM, OscInput, OscOutput, osc_message, read_datagram

TEXT = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=20)


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda b: b"#bundle\0" + bytes(8) + b))
def test_any_bytes_are_read_or_refused(data):
    with contextlib.suppress(ValueError):
        for address, _ in read_datagram(data):
            assert address.startswith("/")


@given(TEXT.map(lambda t: "/" + t), st.lists(st.integers(-(1 << 40), 1 << 40) | st.booleans() | TEXT, max_size=6))
def test_what_is_written_is_read_again_and_by_python_osc(address, arguments):
    assert read_datagram(osc_message(address, arguments)) == [(address, tuple(arguments))]
    osc = pytest.importorskip("pythonosc.osc_message", reason="python-osc is not installed (the extra `dev`)")
    message = osc.OscMessage(osc_message(address, arguments))
    assert (message.address, list(message.params)) == (address, arguments)


def test_bundles_of_python_osc_are_read():
    builder = pytest.importorskip("pythonosc.osc_bundle_builder", reason="python-osc is not installed (the extra `dev`)")
    from pythonosc.osc_message_builder import OscMessageBuilder

    inner = builder.OscBundleBuilder(builder.IMMEDIATELY)
    for name in ("a", "b"):
        message = OscMessageBuilder(f"/{name}")
        message.add_arg(0.5)
        inner.add_content(message.build())
    outer = builder.OscBundleBuilder(builder.IMMEDIATELY)
    outer.add_content(inner.build())
    assert read_datagram(outer.build().dgram) == [("/a", (0.5,)), ("/b", (0.5,))]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"/a",
        b"abc\0",
        b"/a\0\0,i\0\0",
        b"/a\0\0,q\0\0",
        b"/a\0\0,s\0\0xxxx",
        b"/a\0\0,b\0\0\xff\xff\xff\xff",
        b"/a\0\0,\0\0\0more",
        b"#bundle\0" + bytes(8) + struct.pack(">i", -4),
        (b"#bundle\0" + bytes(8) + struct.pack(">i", 100)) * 3,
        b"/a\0\0" + b"," + b"i" * 400,
        bytes(LARGEST_DATAGRAM + 4),
        b"/\xff\xfe\0,\0\0\0",
    ],
)
def test_malformed_datagrams_are_refused(data):
    with pytest.raises(ValueError, match=r"."):
        read_datagram(data)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("", ()),
        ("Mute", ()),
        ("../../etc/passwd", ()),
        ("mode", ("x" * 201,)),
        ("mode", ("two\nlines",)),
        ("temperature", (float("nan"),)),
        ("temperature", (b"blob",)),
        ("temperature", (1 << 60,)),
        ("temperature", ()),
        ("temperature", (1.0,) * 9),
        ("mute", ("yes",)),
        ("mute", (1, 2)),
        ("bass.low.pitch", (1,)),
        ("no_such_thing", (1,)),
        ("direction", ("mirror",)),
        ("bass.part", ("melody",)),
    ],
)
def test_what_no_command_looks_like_is_refused_in_a_line(name, arguments):
    with pytest.raises(InputError) as caught:
        command(name, arguments)
    assert str(caught.value).isprintable()


def test_changes_are_in_the_types_of_the_partners_settings():
    assert partner_changes(command("no_repeat", (4.0,))) == {"no_repeat": 4}
    assert type(partner_changes(command("no_repeat", (4.0,)))["no_repeat"]) is int
    assert partner_changes(command("temperature", (1,))) == {"temperature": 1}
    assert partner_changes(command("bass.low_pitch", (40.0,))) == {"bass.low_pitch": 40}
    assert partner_changes(command("region", (3.0, 9.5))) == {"region": [3.0, 9.5]}
    assert partner_changes(command("region", (3.0,))) == {"region": 3}
    assert partner_changes(command("go_back")) == {"go_back": True}


def test_changes_in_words():
    assert told({"temperature": 0.20000000298023224}) == "temperature 0.2"
    assert told({"go_back": True}) == "go back"
    assert told({"region": [0, 10.5, 20.25], "no_repeat": 12}) == "region 0, 10.5, 20.25, no_repeat 12"
    assert told({"voices": "melody,bass"}) == "voices melody,bass"


@given(st.lists(st.tuples(st.sampled_from([f"voice_{i}.gain_db" for i in range(100)] + ["mute", "panic"]), st.integers(0, 9))))
def test_the_box_stays_small_and_keeps_the_last_of_each(asked):
    box = CommandQueue(pace_s=0.0)
    last = {}
    for name, value in asked:
        if box.put(command(name, (value,))) and not (name == "panic" and value == 0):
            last[name] = value if name not in ("mute", "panic") else value > 0
    taken = box.take(0.0)
    assert len(taken) <= 64
    assert {c.name: c.value for c in taken} == last
    assert [c.name for c in taken].count("panic") == 0 or taken[0].name == "panic"
    assert box.take(0.0) == []


@given(st.integers(0, 30))
def test_every_press_of_a_switch_counts(presses):
    box, state = CommandQueue(pace_s=0.0), False
    for _ in range(presses):
        box.put(Command("mute"))
    for asked in box.take(0.0):
        state = not state if asked.value is None else asked.value
    assert state == bool(presses % 2)


def test_a_command_too_many_is_answered():
    box, said = CommandQueue(pace_s=0.0), []
    for number in range(66):
        box.put(Command(f"voice_{number}.gain_db", 1.0, lambda *answer: said.append(answer)))
    assert said == [(False, "too many commands at once")] * 2 and box.refused == 2


def test_settings_are_handed_out_at_a_pace_and_panic_at_once():
    box = CommandQueue(pace_s=0.02)
    box.put(command("temperature", (0.1,)))
    assert [c.name for c in box.take(0.0)] == ["temperature"]
    box.put(command("temperature", (0.2,)))
    box.put(command("panic"))
    assert [c.name for c in box.take(0.001)] == ["panic"]
    assert [(c.name, c.value) for c in box.take(0.03)] == [("temperature", 0.2)]


def test_a_map_of_controllers_goes_to_a_file_and_back(tmp_path):
    mappings = [
        CcMapping(20, "temperature", channel=0, high=2.0),
        CcMapping(21, "no_repeat", low=0.0, high=48.0, whole=True),
        CcMapping(64, "mute"),
        CcMapping(65, "panic", channel=15),
        CcMapping(1, "mode", choices=("shadow", "mirror", 'a "quoted" one')),
    ]
    path = tmp_path / "map.toml"
    path.write_text(cc_map_toml(mappings), encoding="utf-8")
    assert list(read_cc_map(path).mappings) == mappings
    found = read_cc_map(path)
    assert found.commands(0, 20, 127) == [Command("temperature", 2.0)]
    assert found.commands(1, 20, 127) == []
    assert found.commands(5, 21, 64) == [Command("no_repeat", 24)]
    assert [found.commands(3, 64, v) for v in (10, 100, 127, 0)] == [[], [Command("mute", True)], [], [Command("mute", False)]]
    assert [found.commands(15, 65, v) for v in (127, 0, 127)] == [[Command("panic", True)], [], [Command("panic", True)]]
    assert [found.commands(0, 1, v)[0].value for v in (0, 63, 127)] == ["shadow", "mirror", 'a "quoted" one']


@pytest.mark.parametrize(
    "text",
    [
        "cc = 1",
        "[[cc]]\ncontroller = 1",
        "[[cc]]\ncommand = 'mute'",
        "[[cc]]\ncontroller = 128\ncommand = 'mute'",
        "[[cc]]\ncontroller = 1\ncommand = '../x'",
        "[[cc]]\ncontroller = 1\ncommand = 'tempratur'",
        "[[cc]]\ncontroller = 1\ncommand = 'mute'\nchannel = 0",
        "[[cc]]\ncontroller = 1\ncommand = 'mode'\nchoices = [1]",
        "[[cc]]\ncontroller = 1\ncommand = 'temperature'\nlow = nan",
        "[[cc]]\ncontroller = 1\ncommand = 'temperature'\nloud = 1",
        "[mute]\ncontroller = 1",
        "not TOML",
    ],
)
def test_a_wrong_map_is_refused_with_its_name(tmp_path, text):
    path = tmp_path / "map.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"map\.toml"):
        read_cc_map(path)


@pytest.fixture
def sender():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(20)
        yield sock


def wait_until(condition, timeout_s=30.0):
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_commands_come_in_over_a_real_socket_and_errors_go_back(sender):
    box = CommandQueue(pace_s=0.0)
    receiver = OscInput(0, box.put)
    try:
        to = ("127.0.0.1", receiver.port)
        sender.sendto(osc_message("/musichal/temperature", [0.25]), to)
        sender.sendto(osc_message("/musichal/bass/low_pitch", [40]), to)
        sender.sendto(b"rubbish!", to)
        sender.sendto(osc_message("/other/address", [1]), to)
        sender.sendto(osc_message("/musichal/temperature", ["x" * 500]), to)
        sender.sendto(osc_message("/musichal/tempratur", [0.5]), to)
        wait_until(lambda: receiver.received == 6)
        wait_until(lambda: receiver.malformed == 4)
        taken = box.take(0.0)
        assert {c.name: c.value for c in taken} == {"temperature": 0.25, "bass.low_pitch": 40}
        ((address, (text,)),) = read_datagram(sender.recv(4096))
        assert address == "/musichal/error"
        assert "temperature" in text
        ((address, (text,)),) = read_datagram(sender.recv(4096))
        assert address == "/musichal/error"
        assert text.startswith("unknown command 'tempratur'. Valid commands: temperature")
        taken[0].reply(True, "temperature 0.25")
        assert read_datagram(sender.recv(4096)) == [("/musichal/ok", ("temperature 0.25",))]
        with pytest.raises(InputError, match="another port"):
            OscInput(receiver.port, box.put)
    finally:
        receiver.close()


def test_it_is_loopback_that_is_listened_to():
    receiver = OscInput(0, lambda _: None)
    try:
        assert receiver._socket.getsockname()[0] == "127.0.0.1"
    finally:
        receiver.close()


def test_a_flood_is_thinned_out_and_panic_gets_through(sender):
    """Ten thousand messages as fast as they go: few are read closely, none is kept, and panic is still heard."""
    got: list[str] = []
    lock = threading.Lock()

    def put(asked: Command) -> None:
        with lock:
            got.append(asked.name)

    began = time.monotonic()
    receiver = OscInput(0, put)
    try:
        to = ("127.0.0.1", receiver.port)
        rng, names = random.Random(0), ["temperature", "gain_db", "no_repeat", "bass/gain_db", "dynamics"]  # noqa: S311 - for a test
        for number in range(10_000):
            sender.sendto(osc_message(f"/musichal/{rng.choice(names)}", [number]), to)
        # The system itself drops what its buffer cannot hold, so panic is sent until it is heard.
        wait_until(lambda: "panic" in got or not sender.sendto(osc_message("/musichal/panic"), to))
    finally:
        receiver.close()
    took_s = time.monotonic() - began
    assert receiver.malformed == 0
    assert len(got) + receiver.dropped == receiver.received, "each is obeyed, or counted as dropped"
    assert len([name for name in got if name != "panic"]) <= 500 * (1 + took_s), "so many at once, and a second"


def test_what_happens_goes_out():
    pytest.importorskip("pythonosc", reason="python-osc is not installed (the extra `dev`)")
    receiver = UdpReceiver()
    try:
        out = OscOutput(receiver.port, sample_rate_hz=24_000)
        out.event(1.5, "lost", "some samples")
        out.statistics({"notes": 3, "listening": True})
        wait_until(lambda: len(receiver.messages) >= 4)
        assert ("/musichal/event", [1.5, "lost", "some samples"]) in receiver.messages
        assert ("/musichal/statistics/notes", [3]) in receiver.messages
        out.close()
    finally:
        receiver.close()


def test_rubbish_never_ends_the_reader():
    rng = random.Random(0)  # noqa: S311 - for a test
    receiver = OscInput(0, lambda _: None)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for number in range(100):
            sock.sendto(rng.randbytes(rng.randint(1, 100)), ("127.0.0.1", receiver.port))
            wait_until(lambda n=number: receiver.received == n + 1)
        sock.sendto(osc_message("/musichal/mute", [1]), ("127.0.0.1", receiver.port))
        wait_until(lambda: receiver.received == 101)
    assert receiver.malformed == 100
    receiver.close()


@pytest.mark.live
def test_controllers_arrive_from_a_real_midi_port(jack_server):
    from musichal.live.output.midi_ports import open_midi_input

    got: list[tuple[int, ...]] = []
    with MidiSender("knobs") as out:
        with pytest.raises(InputError, match=r"'no such' in the name\. Available: .*knobs"), open_midi_input("no such", print):
            pass
        with open_midi_input("knobs", lambda data: got.append(tuple(data))) as port:
            assert "knobs" in port.name
            time.sleep(0.2)
            for _ in range(5):  # a cycle that a busy server misses takes what is in it with it, or brings it twice
                out.send(0xB2, 20, 127)
                if wait_for(lambda: got, 5.0):
                    break
        assert set(got) == {(0xB2, 20, 127)}


def test_a_receiver_that_does_not_resolve_is_refused_and_one_that_does_is_resolved_once(monkeypatch):
    with pytest.raises(InputError, match=r"cannot resolve the OSC receiver 'no\.such\.host\.invalid'"):
        OscOutput(9000, host="no.such.host.invalid", sample_rate_hz=24_000)
    looked_up: list[object] = []
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: looked_up.append(args) or resolve(*args, **options))
    out = OscOutput(9, host="localhost", sample_rate_hz=24_000)
    for number in range(10):
        out.event(0.0, "count", str(number))
    assert len(looked_up) == 1
    assert out._to[0] != "localhost", "datagrams go to an address, never to a name"
    out.close()


@pytest.mark.parametrize(
    ("address", "told"),
    [("127.0.0.1", True), ("::1", True), ("::ffff:127.0.0.1", True), ("192.168.1.7", False), ("fe80::1%eth0", False)],
)
def test_only_loopback_is_told_in_full_why_a_command_is_refused(address, told):
    """The address of a datagram can be forged: an answer beyond this machine must not be larger than what asked for it."""
    sent: list[bytes] = []

    class Socket:
        def sendto(self, data, _to):
            sent.append(data)

    receiver = OscInput(0, lambda _: None)
    receiver.close()
    receiver._socket = Socket()
    asked = osc_message("/musichal/tempratur", [0.5])
    receiver._take(asked, (address, 9000))
    ((_, (text,)),) = read_datagram(sent[0])
    assert ("tempratur" in text) == told
    receiver._put = lambda asked: asked.reply(True, "temperature 0.5, as you asked")
    receiver._take(osc_message("/musichal/temperature", [0.5]), (address, 9000))
    assert told or all(len(answer) <= len(asked) for answer in sent)
    assert len(sent) == 2


def test_a_socket_that_is_broken_for_good_does_not_keep_the_thread_busy(monkeypatch):
    tried: list[float] = []

    class Broken:
        def recvfrom(self, _size):
            tried.append(time.monotonic())
            raise OSError("broken")

        def close(self):
            pass

    receiver = OscInput(0, lambda _: None)
    receiver.close()
    receiver._socket = Broken()
    receiver._closing.clear()
    monkeypatch.setattr(osc.select, "select", lambda *_: ([1], [], []))
    thread = threading.Thread(target=receiver._run, daemon=True)
    began = time.monotonic()
    thread.start()
    wait_until(lambda: len(tried) > 20)
    receiver._closing.set()
    thread.join()
    assert len(tried) <= 9 * (1 + (time.monotonic() - began) / 0.1), "nine, and a rest of a tenth of a second"
