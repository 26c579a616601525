"""The sessions and partners of `musichal web`: the shelf, what is dropped, tasks, and controllers learned from the page."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from musichal.commands.desk import Desk, Uploads
from musichal.errors import CheckFailedError, InputError
from musichal.live.control import CcMap, Command, read_cc_map
from musichal.live.input.controllers import LiveLearning, midi_commands
from musichal.partner.settings import PartnerSettings
from musichal.web.dashboard import Dashboard
from musichal.web.guard import Intake, RefusedError, safe_name, wanted_stretch
from musichal.web.hub import Hub
from musichal.web.messages import hello
from musichal.web.shelf import find_shelf, shelf_message

KINDS = (".wav", ".mid")


class Pages:
    """A dashboard that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []

    def say(self, message: dict[str, Any]) -> None:
        self.said.append(message)

    def say_all(self, messages: Any, stop: threading.Event) -> None:
        self.said.extend(messages)

    def last(self, kind: str) -> dict[str, Any]:
        return next(m for m in reversed(self.said) if m["k"] == kind)

    def until(self, kind: str, **wanted: object) -> dict[str, Any]:
        end = time.monotonic() + 60
        while not any(m["k"] == kind and wanted.items() <= m.items() for m in self.said):
            assert time.monotonic() < end, (kind, wanted)
            time.sleep(0.005)
        return self.last(kind)


# ── what is dropped ──────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("take.wav", "take.wav"),
        ("../../etc/x.wav", "x.wav"),
        ("C:\\a\\b.WAV", "b.wav"),
        ("a\u202eb<c>|.mid", None),
        ("...wav.wav", "wav.wav"),
        (".wav", None),
        ("x" * 300 + ".wav", "x" * 80 + ".wav"),
    ],
)
def test_a_dropped_file_gets_a_name_that_is_no_path(name, kept) -> None:
    if name == ".wav":
        with pytest.raises(RefusedError):
            safe_name(name, KINDS)
        return
    found = safe_name(name, KINDS)
    assert kept is None or found == kept
    assert not set(found) & set('<>:"/\\|?*\u202e') and not found.startswith(".") and len(found) < 100


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        b"x",
        '{"name":"a.exe","size":1}',
        '{"name":"a.wav"}',
        '{"name":"a.wav","size":0}',
        '{"name":"a.wav","size":-1}',
        '{"name":"a.wav","size":1,"path":"/etc"}',
        '{"name":"a.wav","size":9999999999}',
        '{"name":1,"size":1}',
        "[" * 3000,
    ],
)
def test_what_is_no_file_to_learn_from_is_refused(tmp_path, text) -> None:
    with pytest.raises(RefusedError):
        Intake(tmp_path / "in", is_fresh=True, suffixes=KINDS).begin(text)
    assert not list(tmp_path.iterdir())


def test_a_fresh_folder_is_fresh_and_nothing_is_overwritten(tmp_path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").write_bytes(b"mine")
    intake = Intake(tmp_path / "in", is_fresh=True, suffixes=KINDS)
    for number in range(2):
        upload = intake.begin('{"name":"a.wav","size":3}')
        assert upload.write(b"ab") is False and upload.write(b"c") is True
        assert upload.keep() == tmp_path / "in-2" / ("a.wav" if not number else "a-2.wav")
    broken = intake.begin('{"name":"b.wav","size":3}')
    with pytest.raises(RefusedError):
        broken.write(b"abcd")
    intake.drop(broken)
    assert sorted(p.name for p in (tmp_path / "in-2").iterdir()) == ["a-2.wav", "a.wav"]
    assert (tmp_path / "in" / "a.wav").read_bytes() == b"mine"
    named = Intake(tmp_path / "in", is_fresh=False, suffixes=KINDS).begin('{"name":"a.wav","size":1}')
    named.write(b"x")
    assert named.keep().name == "a-2.wav" and (tmp_path / "in" / "a.wav").read_bytes() == b"mine"


@pytest.fixture(scope="module")
def shown(tmp_path_factory) -> Iterator[tuple[Dashboard, Desk, Path]]:
    folder = tmp_path_factory.mktemp("shown")
    with Dashboard() as dashboard:
        uploads = Uploads(folder / "in", is_fresh=True)
        dashboard.desk = desk = Desk(dashboard, find_shelf([folder], beside=True), _nothing, uploads)
        dashboard.begin(hello(PartnerSettings(), recordings=[], live=False, nothing=True), sample_rate_hz=1, input_rate_hz=1)
        desk.say_shelf()
        yield dashboard, desk, folder


def _nothing(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    return {"k": "hello", "title": path.name, "live": False, "recordings": []}, [{"k": "event", "text": path.name}]


def opened(address: str, name: str = "socket", **more: object) -> ClientConnection:
    options = {"origin": f"http://{urlsplit(address).netloc}", "proxy": None, **more}
    return connect(address.replace("http", "ws") + name, **options)  # type: ignore[arg-type]


def told(page: ClientConnection, kind: str, **wanted: object) -> dict[str, Any]:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for message in json.loads(page.recv(60)):
            if message["k"] == kind and wanted.items() <= message.items():
                return message
    raise AssertionError(kind)


def test_a_dropped_file_comes_whole_or_not_at_all(shown) -> None:
    dashboard, _, folder = shown
    with opened(dashboard.address) as page:
        assert told(page, "shelf")["can_train"] is True
        with opened(dashboard.address, "upload") as upload:
            upload.send(json.dumps({"name": "../take <1>.wav", "size": 100_000}))
            upload.send(b"x" * 60_000)
            upload.send(b"y" * 40_000)
            assert json.loads(upload.recv(60)) == {"kept": "take _1_.wav"}
        files = told(page, "dropped")["files"]
        assert [(f["name"], f["size"]) for f in files] == [("take _1_.wav", 100_000)]
        assert "in" not in json.dumps(files)  # a page is not told where
        with opened(dashboard.address, "upload") as upload:
            upload.send(json.dumps({"name": "half.wav", "size": 100}))
            upload.send(b"x" * 50)
        for wrong in ('{"name":"a.sh","size":1}', "rubbish"):
            with opened(dashboard.address, "upload") as upload:
                upload.send(wrong)
                assert "refused" in json.loads(upload.recv(60))
        with opened(dashboard.address, "upload") as upload:
            upload.send(json.dumps({"name": "big.wav", "size": 1_000_000}))
            with contextlib.suppress(ConnectionClosed):
                upload.send(b"x" * 1_000_000)
                upload.recv(60)
            assert upload.close_code == 1009
    until = time.monotonic() + 60
    while len(list((folder / "in").iterdir())) > 1 and time.monotonic() < until:
        time.sleep(0.01)
    assert [path.name for path in (folder / "in").iterdir()] == ["take _1_.wav"]


def test_only_our_own_page_with_controls_may_drop_files(shown) -> None:
    dashboard, _, _ = shown
    own = f"http://{urlsplit(dashboard.address).netloc}"
    wrong = [(dashboard.stage_address, own), (dashboard.address, "http://evil.example"), (dashboard.address[:-3] + "/", own)]
    for address, origin in wrong:
        with pytest.raises(InvalidStatus):
            opened(address, "upload", origin=origin)
    with Dashboard() as other:  # where nothing is to be dropped, as beside a performance
        other.begin(hello(PartnerSettings(), recordings=[], live=True), sample_rate_hz=1, input_rate_hz=1)
        with opened(other.address) as page:
            told(page, "ready")
            with pytest.raises(InvalidStatus):
                opened(other.address, "upload")


# ── the shelf ────────────────────────────────────────────────────────────────


def test_the_shelf_holds_what_is_named_and_what_lies_beside_it_only_here(tmp_path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "settings.json").write_text("{}", encoding="utf-8")
    (tmp_path / "a.hal").write_bytes(b"x")
    (tmp_path / "other").mkdir()
    near = find_shelf([tmp_path / "one"], beside=True)
    assert sorted(p.name for p in near.sessions) == ["one", "two"] and [p.name for p in near.partners] == ["a.hal"]
    far = find_shelf([tmp_path / "one"], beside=False)
    assert [p.name for p in far.sessions] == ["one"] and not far.partners
    assert len(find_shelf([tmp_path], beside=False).sessions) == 2
    with pytest.raises(InputError):
        find_shelf([tmp_path / "nothing"], beside=True)
    row = shelf_message(near, None)["sessions"][0]
    assert "not a session of version" in row["trouble"] and str(tmp_path) not in json.dumps(row)


def test_another_thing_that_is_shown_replaces_the_first_on_every_page() -> None:
    hub = Hub(lambda _: None)
    page = hub.open(may_play=True)
    assert page is not None
    hub.spread([{"k": "hello", "live": False, "title": "a"}, {"k": "shelf"}, {"k": "memory"}, {"k": "event", "text": "of a"}])
    page.is_behind = False
    hub.spread([{"k": "hello", "live": False, "title": "b"}, {"k": "event", "text": "of b"}])
    assert page.is_behind and not page.waiting
    told = [message for part in hub.past()[0] for message in json.loads(part)]
    assert [m["k"] for m in told] == ["hello", "shelf", "event", "ready"]
    assert told[0]["title"] == "b" and told[2]["text"] == "of b"


def _desk(tmp_path: Path) -> tuple[Pages, Desk, list[str]]:
    for name in ("a.hal", "b.hal"):
        (tmp_path / name).write_bytes(b"x")
    pages, answers = Pages(), []
    desk = Desk(pages, find_shelf([tmp_path], beside=False), _nothing, Uploads(tmp_path / "in", is_fresh=False))  # type: ignore[arg-type]
    return pages, desk, answers


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("open", []),
        ("open", ["partner", 9]),
        ("open", ["partner", "a.hal"]),
        ("open", ["partner", -1]),
        ("open", ["file", 0]),
        ("open", ["partner", 0.0]),
        ("open", ["partner", True]),
        ("compare", [0]),
        ("compare", [0, 0]),
        ("verify", []),
        ("verify", [7]),
        ("train", ["x"]),
        ("train", []),
        ("drop_out", [3]),
    ],
)
def test_what_there_is_not_is_refused_in_words(tmp_path, name, values) -> None:
    pages, desk, answers = _desk(tmp_path)
    desk.take(name, values, lambda obeyed, text: answers.append((obeyed, text)))
    assert len(answers) == 1 and answers[0][0] is False and len(answers[0][1]) > 5
    assert not pages.said


def test_a_partner_is_opened_by_its_number(tmp_path) -> None:
    pages, desk, _ = _desk(tmp_path)
    desk.take("open", ["partner", 1], print)
    assert pages.until("event")["text"] == pages.last("hello")["title"]
    assert [row["open"] for row in pages.last("shelf")["partners"]] == [False, True]


def test_a_training_tells_how_far_it_is_and_can_be_stopped(tmp_path, monkeypatch) -> None:
    pages, desk, answers = _desk(tmp_path)
    going, asked = threading.Event(), []

    def train(*, output: Path, terminal: Any, recordings: Any) -> None:
        asked.append((output, recordings))
        terminal.say("hears <b>")
        with terminal.progress("Listening") as tell:
            tell("Listening", 0.5)
            assert going.wait(60)
            tell("Listening", 0.6)
        output.write_bytes(b"partner")

    monkeypatch.setattr("musichal.commands.desk.train_command", train)
    monkeypatch.setattr("musichal.commands.desk.load_partner", lambda path: path)
    monkeypatch.setattr("musichal.commands.desk.overview_lines", lambda _: ["It suits: any key."])
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "take.wav").write_bytes(b"x")
    desk.received(tmp_path / "in" / "take.wav")
    desk.take("train", ["../new"], print)
    pages.until("task", share=0.5)
    desk.take("verify", [0], lambda obeyed, text: answers.append(text))
    assert "one task at a time" in answers[0]
    desk.take("stop", [], print)
    going.set()
    assert pages.until("task", state="stopped")["lines"] == [["say", "hears <b>"]]
    until = time.monotonic() + 60
    while desk._task is not None and time.monotonic() < until:
        time.sleep(0.005)
    desk.take("train", ["../new"], print)
    assert pages.until("task", state="done")["lines"][-1] == ["say", "It suits: any key."]
    assert asked[-1] == (tmp_path / "in" / "new.hal", [tmp_path / "in" / "take.wav"])
    assert pages.last("shelf")["partners"][0]["name"] == "new.hal" and pages.last("dropped")["files"] == []


def test_a_verification_that_fails_says_which_check(tmp_path, monkeypatch) -> None:
    pages, desk, _ = _desk(tmp_path)

    def verify(*, partner: Path, quick: bool, terminal: Any) -> None:
        check = {"group": "parity", "name": "tokens", "passed": not quick, "found": "3 of 9", "cause": "unknown"}
        terminal.result({"checks": [check]})
        if quick:
            raise CheckFailedError("1 of 1 checks failed")

    monkeypatch.setattr("musichal.commands.desk.verify_command", verify)
    desk.take("verify", [0, "quick"], print)
    task = pages.until("task", state="failed")
    assert "1 of 1" in task["why"]
    assert task["checks"] == [{"group": "parity", "name": "tokens", "passed": False, "found": "3 of 9"}]


def test_a_stretch_is_two_numbers() -> None:
    assert wanted_stretch({"from": ["1"], "to": ["2.5"]}) == (1.0, 2.5)
    for first, last in (("2", "1"), ("-1", "2"), ("nan", "2"), ("1", "inf"), ("x", "2")):
        assert wanted_stretch({"from": [first], "to": [last]}) is None
    assert wanted_stretch({"from": ["1"]}) is None


# ── controllers ──────────────────────────────────────────────────────────────


def _learn(learning: LiveLearning, wanted: object, name: str = "learn_controller") -> list[tuple[bool, str]]:
    answers: list[tuple[bool, str]] = []
    learning.obey(Command(name, wanted, lambda obeyed, text: answers.append((obeyed, text))))  # type: ignore[arg-type]
    return answers


def _until(holds: Any) -> None:
    end = time.monotonic() + 60
    while not holds() and time.monotonic() < end:
        time.sleep(0.005)
    assert holds()


def test_the_next_controller_that_moves_gives_what_was_asked_for(tmp_path) -> None:
    path = tmp_path / "map.toml"
    path.write_text('# mine\n[[cc]]\ncontroller = 1\ncommand = "mute"\n', encoding="utf-8")
    control_map = read_cc_map(path)
    learning, given = LiveLearning(control_map, path, ["shadow", "mirror"]), []

    class Box:
        def put(self, asked: Command) -> None:
            given.append((asked.name, asked.value))

    take = midi_commands(control_map, Box().put, None, learning)
    _learn(learning, "temperature")
    for position in (10, 12, 40):
        take((0xB2, 7, position))
    _until(lambda: "temperature" in path.read_text("utf-8"))
    assert not given and "# mine" in path.read_text("utf-8") and learning.waits_for is None
    take((0xB2, 7, 127))
    assert given[-1][0] == "temperature"
    _learn(learning, "change")
    take((0x99, 36, 90))
    _until(lambda: "[[note]]" in path.read_text("utf-8"))
    _learn(learning, "mode")
    take((0xB0, 9, 127))
    _until(lambda: len(read_cc_map(path).mappings) == 4)
    assert set(read_cc_map(path).mappings) == set(learning.mappings)
    assert next(m for m in learning.mappings if m.name == "mode").choices == ("auto", "shadow", "mirror")
    _learn(learning, "temperature", "forget_controller")
    assert "temperature" not in [m.name for m in read_cc_map(path).mappings]
    _learn(learning, "mute")
    _learn(learning, "")
    assert learning.waits_for is None


def test_what_no_controller_can_give_is_refused() -> None:
    learning = LiveLearning(CcMap([]), None)
    for wanted in ("no_such_thing", "use", 3, "scenario"):
        assert _learn(learning, wanted)[0][0] is False
    without = _learn(LiveLearning(CcMap([]), None, works=False), "temperature")
    assert "--control-in" in without[0][1]
