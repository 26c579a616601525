"""The dashboard without a browser: what it lets in, what it sends, and that nobody can hold it up."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from rich.console import Console
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from musichal.commands.terminal import Terminal
from musichal.commands.web import _session, open_browser
from musichal.hearing.percepts import Onset
from musichal.live.control import Command
from musichal.live.session.event_log import Changed, DecisionLog, Struck
from musichal.live.session.session import Session, SessionSettings
from musichal.partner.settings import PartnerSettings
from musichal.web.dashboard import Dashboard, WebPlace
from musichal.web.guard import Guard, byte_range, wanted_moment
from musichal.web.hub import Hub
from musichal.web.messages import hello

STATIC = Path(__file__).resolve().parents[1] / "src" / "musichal" / "web" / "static"


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Dashboard, list[Command]]]:
    obeyed: list[Command] = []
    with Dashboard(obeyed.append) as dashboard:
        recordings = [{"name": "<b>take</b>.wav", "duration_s": 3.0}]
        dashboard.begin(
            hello(PartnerSettings(), recordings=recordings, live=True, title="x"), sample_rate_hz=100, input_rate_hz=100
        )
        yield dashboard, obeyed


def opened(address: str, **more: object) -> ClientConnection:
    parts = urlsplit(address)
    options = {"origin": f"http://{parts.netloc}", "proxy": None, "open_timeout": 60, **more}
    return connect(address.replace("http", "ws") + "socket", **options)  # type: ignore[arg-type]


def told(page: ClientConnection, kind: str, text: str = "", timeout_s: float = 60.0) -> dict[str, object]:
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        for message in json.loads(page.recv(timeout_s)):
            if message["k"] == kind and text in message.get("text", ""):
                return message
    raise AssertionError(f"no {kind}")


def status_of(address: str, **headers: str) -> int:
    request = urllib.request.Request(address, headers=headers)  # noqa: S310
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_the_page_and_its_files_are_served_with_a_policy(served) -> None:
    address = served[0].address
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address) as answer:
        text, policy = answer.read().decode(), answer.headers["Content-Security-Policy"]
    assert "script-src 'self'" in policy and "unsafe" not in policy and "default-src 'none'" in policy
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|style=", text)
    for name in re.findall(r'(?:src|href)="([^"]+)"', text):
        assert status_of(address + name) == 200


@pytest.mark.parametrize(
    "path",
    ["../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "..%2f..%2fetc/passwd", "//etc/passwd", "server.py", "static/main.js",
     "sound?recording=/etc/passwd&from=0&for=1", "sound?recording=nan&from=0&for=1", "sound?recording=0", "whole"],
)  # fmt: skip
def test_no_path_of_a_client_is_opened(served, path) -> None:
    assert status_of(served[0].address + path) in (403, 404)


def test_only_the_token_this_host_and_our_own_page_are_let_in(served) -> None:
    address = served[0].address
    parts = urlsplit(address)
    assert status_of(f"http://{parts.netloc}/") == 403
    assert status_of(f"http://{parts.netloc}/wrong-token/") == 403
    assert status_of(address, Host=f"evil.example:{parts.port}") == 403  # DNS rebinding
    assert status_of(address, Host="") == 403
    for origin in ("http://evil.example", "null", f"http://localhost:{parts.port}", f"https://{parts.netloc}", None):
        with pytest.raises(InvalidStatus):
            opened(address, origin=origin)
    with pytest.raises(InvalidStatus):
        opened(f"http://{parts.netloc}/wrong/")


def test_commands_come_back_by_their_names_and_what_was_refused_is_told(served) -> None:
    dashboard, obeyed = served
    with opened(dashboard.address) as page:
        assert told(page, "hello")["recordings"] == [{"name": "<b>take</b>.wav", "duration_s": 3.0}]
        page.send(json.dumps({"id": 1, "name": "temperature", "values": [0.2]}))
        page.send(json.dumps({"id": 2, "name": "no_such_thing", "values": []}))
        answer = told(page, "answer")
        assert answer["id"] == 2 and "no_such_thing" in str(answer["text"])
        assert obeyed[-1].name == "temperature" and obeyed[-1].value == 0.2 and obeyed[-1].moment_s is not None
        assert obeyed[-1].answer is not None
        obeyed[-1].answer(False, "too hot")
        assert told(page, "answer", "too hot")["id"] == 1


def test_the_page_to_look_at_can_ask_for_nothing(served) -> None:
    dashboard, obeyed = served
    before = len(obeyed)
    with opened(dashboard.stage_address) as page:
        assert told(page, "you")["may_play"] is False
        page.send(json.dumps({"id": 1, "name": "panic", "values": []}))
        dashboard.event(1.0, "control", "a sign of life")
        told(page, "event", "a sign")
    assert len(obeyed) == before


def test_rubbish_and_floods_are_dropped_but_for_panic(served) -> None:
    dashboard, obeyed = served
    with opened(dashboard.address) as page:
        told(page, "ready")
        rubbish = ["", "[]", "{}", "null", '{"id":1}', '{"id":1,"name":"mute","values":{}}', "[" * 3000, b"\xff\xfe",
                   '{"id":1,"name":"mute","values":[[1]]}', '{"id":-1,"name":"mute","values":[]}']  # fmt: skip
        for text in rubbish:
            page.send(text)
        before, began = len(obeyed), time.monotonic()
        for _ in range(300):
            page.send(json.dumps({"id": 1, "name": "temperature", "values": [0.1]}))
        page.send(json.dumps({"id": 2, "name": "panic", "values": []}))
        until = time.monotonic() + 60
        while not any(c.name == "panic" for c in obeyed[before:]) and time.monotonic() < until:
            time.sleep(0.01)
        assert obeyed[-1].name == "panic"
        assert len(obeyed) - before <= 50 * (1 + time.monotonic() - began) + 1, "so many at once, and a second, and panic"
    with opened(dashboard.address) as page:
        told(page, "ready")
        with contextlib.suppress(ConnectionClosed):
            page.send("x" * 1_000_000)
        with contextlib.suppress(ConnectionClosed):
            while page.recv(60):
                pass
        assert page.close_code == 1009


def test_a_page_that_stands_still_and_hundreds_of_connections_hold_up_nobody(served) -> None:
    dashboard, _ = served
    parts = urlsplit(dashboard.address)
    still = opened(dashboard.address, max_queue=1)
    many = []
    for _ in range(300):
        with contextlib.suppress(OSError):
            many.append(socket.create_connection((parts.hostname, parts.port), 1))
    for one in many:
        one.close()
    time.sleep(0.1)
    with opened(dashboard.address) as page:
        told(page, "ready")
        for number in range(3000):
            dashboard.event(float(number), "test", "x" * 2000)
            if number % 500 == 0:
                time.sleep(0.05)
        dashboard.event(9.0, "test", "the last")
        told(page, "event", "the last")
    still.close_socket()


def test_the_engine_side_never_waits_and_drops_the_oldest() -> None:
    dashboard = Dashboard(most_waiting=10)
    for number in range(25):
        dashboard.entry(Struck(number, Onset(number, number)))
    assert dashboard.dropped == 15
    dashboard.sound(np.zeros(4, dtype=np.float32))  # before it has begun


def test_a_process_that_is_killed_is_told_and_harms_nobody() -> None:
    said: list[str] = []
    with Dashboard() as dashboard:
        dashboard.on_end = said.append
        dashboard.begin(hello(PartnerSettings(), recordings=[], live=True), sample_rate_hz=100, input_rate_hz=100)
        assert dashboard.pid is not None
        os.kill(dashboard.pid, signal.SIGKILL)
        until = time.monotonic() + 60
        while not said and time.monotonic() < until:
            dashboard.event(0.0, "test", "the music goes on")
            time.sleep(0.01)
    assert "goes on without the page" in said[0]


def test_a_process_that_hangs_is_ended(monkeypatch) -> None:
    monkeypatch.setattr("musichal.web.dashboard._PATIENCE_S", 0.2)
    with Dashboard() as dashboard:
        dashboard.begin(hello(PartnerSettings(), recordings=[], live=True), sample_rate_hz=100, input_rate_hz=100)
        assert dashboard.pid is not None
        os.kill(dashboard.pid, signal.SIGSTOP)
        for _ in range(3000):
            dashboard.event(0.0, "test", "x" * 2000)
        began = time.monotonic()
    assert time.monotonic() - began < 5
    assert not dashboard.is_serving


def test_what_cannot_be_told_is_reported() -> None:
    said: list[str] = []
    with Dashboard() as dashboard:
        dashboard.on_end = said.append
        dashboard.begin(hello(PartnerSettings(), recordings=[], live=True), sample_rate_hz=100, input_rate_hz=100)
        dashboard.say({"k": "event", ("no", "name"): 1})
        until = time.monotonic() + 60
        while not said and time.monotonic() < until:
            time.sleep(0.01)
    assert "TypeError" in said[0]


def test_everywhere_is_shown_as_addresses_that_a_browser_can_open() -> None:
    with Dashboard(place=WebPlace(host="0.0.0.0")) as dashboard:  # noqa: S104
        assert dashboard.place.is_everywhere and urlsplit(dashboard.address).hostname == "127.0.0.1"
        assert status_of(dashboard.address) == 200
        own = dashboard.place.own_address()
        assert own != "0.0.0.0"  # noqa: S104
    with Dashboard(place=WebPlace(host="localhost")) as dashboard:
        assert dashboard.place.is_local and status_of(dashboard.address.replace("127.0.0.1", "localhost")) == 200


def test_the_token_is_no_argument_of_the_browser(monkeypatch, tmp_path) -> None:
    asked: list[str] = []

    def opening(address: str) -> bool:
        path = Path(urlsplit(address).path)
        assert path.stat().st_mode & 0o077 == 0
        asked.extend([address, path.read_text("utf-8")])
        return True

    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    monkeypatch.setattr("webbrowser.open", opening)
    open_browser("http://127.0.0.1:1/secret/")
    assert "secret" not in asked[0] and "url=http://127.0.0.1:1/secret/" in asked[1]


def test_a_session_is_sent_no_faster_than_it_is_read() -> None:
    dashboard, stop, made = Dashboard(most_waiting=10), threading.Event(), []

    def messages() -> Iterator[dict[str, object]]:
        for number in range(100):
            made.append(number)
            yield {"k": "event", "text": str(number)}

    dashboard._process = subprocess.Popen(["sleep", "60"])  # noqa: S607
    threading.Timer(0.3, stop.set).start()
    dashboard.say_all(messages(), stop)
    dashboard._process.kill()
    dashboard._process.wait()
    assert len(made) < 10 and not dashboard.dropped


def test_a_session_without_its_partner_keeps_its_time(monkeypatch, tmp_path) -> None:
    (tmp_path / "decisions.jsonl").touch()
    settings = SessionSettings(
        str(tmp_path / "moved.hal"), "", PartnerSettings(), 0, 0, 0, sample_rate_hz=48_000, input_name="x"
    )
    entries = (Struck(24_000, Onset(24_000, 24_000)),)
    session = Session(tmp_path, settings, entries, DecisionLog(tmp_path / "decisions.jsonl"), 96_000, None, ())
    monkeypatch.setattr("musichal.commands.web.read_session", lambda _: session)
    first, messages = _session(tmp_path, None, Terminal(Console(file=io.StringIO()), Console(file=io.StringIO())))
    assert (first["duration_s"], set(first["files"])) == (2.0, {"session"})
    assert [message["onset"] for message in messages] == [1.0]


def test_a_page_is_told_of_no_key_that_its_engine_does_not_take() -> None:
    first = hello(PartnerSettings(), recordings=[])
    assert set(first["keys"].values()) <= set(first["commands"])


def _told(hub: Hub) -> list[dict[str, object]]:
    """Return all that a new page is told of the past, in order."""
    first, later = hub.past()
    return [message for part in [*first, *later] for message in json.loads(part)]


def test_a_later_page_gets_what_has_happened_and_no_more_than_is_kept() -> None:
    hub = Hub(lambda _: None)
    hub.spread([{"k": "hello", "live": True}, {"k": "level", "at": 0.0}, {"k": "entry", "at": 1.0}, {"k": "statistics"}])
    hub.spread([{"k": "level", "at": 100.0}, {"k": "entry", "at": 2.0, "change": {"mode": "mirror"}}])
    for _ in range(12):
        hub.spread([{"k": "event", "text": "x" * (1 << 20)}])
    told = _told(hub)
    assert [message["k"] for message in told] == ["hello", "entry", "level", "ready", *["event"] * 7]
    assert told[1]["change"] == {"mode": "mirror"}  # what was set long ago still holds


def test_a_fader_that_never_rests_pushes_out_nothing_that_holds() -> None:
    hub = Hub(lambda _: None)
    hub.spread([{"k": "hello", "live": True}, {"k": "memory"}, {"k": "entry", "at": 1.0, "stage": "mute"}])
    hub.spread([{"k": "entry", "at": 2.0, "change": {"mode": "mirror", "pause": None}}])
    hub.spread([{"k": "entry", "at": 3.0, "change": {"pause": None}}])
    hub.spread([{"k": "entry", "at": number / 50, "change": {"temperature": number}} for number in range(30_000)])
    told = _told(hub)
    assert [message["k"] for message in told] == ["hello", *["entry"] * 5, "ready", "memory"]
    assert [message["change"] for message in told if "change" in message] == [
        {"mode": "mirror"}, {"temperature": 29_999}, {"pause": None}, {"pause": None},
    ]  # fmt: skip
    replay = Hub(lambda _: None)
    replay.spread([{"k": "hello", "live": False}])
    replay.spread([{"k": "entry", "at": number / 50, "change": {"temperature": number}} for number in range(30_000)])
    assert len(_told(replay)) == 30_002  # of a session, every moment can be shown
    assert _told(replay)[-1] == {"k": "ready"}


def test_a_later_page_is_told_of_the_present_first() -> None:
    hub = Hub(lambda _: None)
    hub.spread([{"k": "hello", "live": True}, *({"k": "event", "number": n, "text": "x" * 1000} for n in range(1000))])
    told = _told(hub)
    ready = told.index({"k": "ready"})
    newest, before = ([message["number"] for message in some if "number" in message] for some in (told[:ready], told[ready:]))
    assert before + newest == list(range(1000)) and 100 < len(newest) < 300


def test_a_page_that_was_full_is_told_everything_anew() -> None:
    hub = Hub(lambda _: None)
    page = hub.open(may_play=True)
    assert page is not None
    page.is_behind = False
    hub.spread([{"k": "event", "text": "x" * (1 << 20)}])
    assert not page.is_behind and len(page.waiting) == 1
    for _ in range(8):
        hub.spread([{"k": "event", "text": "x" * (1 << 20)}])
    assert page.is_behind and not page.waiting


def modelled(messages: list[dict[str, object]], what: str) -> object:
    """Return what the page's model makes of messages."""
    script = (STATIC / "model.js").read_text("utf-8") + (
        f"const m = new Model(); for (const message of {json.dumps(messages)}) m.take(message);"
        f"console.log(JSON.stringify({what}));"
    )
    command = [str(shutil.which("node")), "--input-type=module"]
    return json.loads(subprocess.run(command, input=script, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_page_forgets_old_changes_but_not_what_holds() -> None:
    changes = [{"k": "entry", "at": number / 10, "change": {"temperature": number}} for number in range(20_000)]
    messages = [
        {"k": "hello", "live": True, "settings": {"window_s": 4}},
        {"k": "entry", "at": 1.0, "change": {"mode": "mirror"}},
        *changes,
        {"k": "level", "at": 2000.0, "rms_db": -20.0},
    ]
    settings = 'm.setting("mode", 2000), m.setting("temperature", 1500), m.setting("window_s", 9)'
    mode, temperature, window, kept = modelled(messages, f'[{settings}, m.changes.get("temperature").length]')  # type: ignore[misc]
    assert (mode, temperature, window) == ("mirror", 15_000, 4)
    assert kept < 9100


def test_a_host_is_an_address_of_this_machine_or_none() -> None:
    local = Guard(("a", "b"), "127.0.0.1", 8000)
    assert all(local.knows_host([host]) for host in ("127.0.0.1:8000", "localhost:8000", "[::1]:8000"))
    wrong = (
        ["127.0.0.1:8001"],
        ["127.0.0.1"],
        ["10.0.0.5:8000"],
        ["evil.example:8000"],
        [],
        ["localhost:8000"] * 2,
        ["a@localhost:x"],
    )
    assert not any(local.knows_host(hosts) for hosts in wrong)
    everywhere = Guard(("a", "b"), "0.0.0.0", 8000)  # noqa: S104
    assert everywhere.knows_host(["10.0.0.5:8000"]) and not everywhere.knows_host(["evil.example:8000"])
    assert [local.role(token) for token in ("a", "b", "c", "")] == ["player", "stage", None, None]


def test_a_moment_is_three_numbers() -> None:
    good = {"recording": ["2"], "from": ["1.5"], "for": ["3"]}
    assert wanted_moment(good) == (2, 1.5, 3.0)
    for name, value in (("recording", "x"), ("recording", "-2"), ("from", "nan"), ("from", "-1"), ("for", "0"), ("for", "inf")):
        assert wanted_moment({**good, name: [value]}) is None
    assert wanted_moment({"recording": ["1"]}) is None


def test_byte_ranges() -> None:
    assert byte_range("bytes=2-5", 10) == (2, 6)
    assert byte_range("bytes=2-", 10) == (2, 10)
    assert byte_range("bytes=-3", 10) == (7, 10)
    assert [byte_range(text, 10) for text in (None, "bytes=", "bytes=5-2", "bytes=1-2,4-5", "lines=1-2", "bytes=x-")] == [
        None
    ] * 6


def test_the_page_is_small_and_fetches_nothing_from_elsewhere() -> None:
    files = sorted(STATIC.iterdir())
    assert sum(path.stat().st_size for path in files) <= 500_000
    assert sum(path.stat().st_size for path in files if path.suffix == ".js") <= 150_000
    for path in files:
        found = re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", path.read_text(encoding="utf-8"))
        assert [f for f in found if "w3.org" not in f] == [], path.name
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(|new Function", path.read_text("utf-8")
        )


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_page_goes_by_the_place_in_the_form_that_the_engine_tells() -> None:
    sections = [{"start_s": 0, "end_s": 10, "mode": None}, {"start_s": 10, "end_s": 20, "mode": None}]
    first = {"k": "hello", "settings": {}, "form": {"sections": sections, "end_s": 20}}
    asked = {"k": "entry", "at": 15.0, "change": {"next_section": True}}  # in the last section: the end

    def stage(at: float, paused: bool = False, **place: object) -> dict[str, object]:
        form = {"number": 2, "left_s": 3.0, "held": False, "closing": False, "has_ended": False, **place}
        return {"k": "stage", "at": at, "partner": {"paused": paused, "form": form}}

    def course(*messages: dict[str, object], live: bool = True) -> object:
        return modelled([{**first, "live": live}, asked, *messages], "m.course(16)")

    assert course(stage(15.5, left_s=2.0)) == {"at": 18.5, "paused": False, "held": False, "end": None}
    assert course(stage(15.5, paused=True)) == {"at": 17.0, "paused": True, "held": False, "end": None}
    assert course(stage(15.5, closing=True))["end"] == 15.5  # type: ignore[index]
    assert course(stage(15.5, number=1, left_s=None, held=True)) == {
        "at": 10 - 1e-6,
        "paused": False,
        "held": True,
        "end": None,
    }
    assert course() == course(live=False) == {"at": 16, "paused": False, "held": False, "end": None}


def test_a_change_is_told_in_seconds(served) -> None:
    dashboard, _ = served
    with opened(dashboard.address) as page:
        told(page, "ready")
        dashboard.entry(Changed(250, {"temperature": 0.4}))
        assert told(page, "entry") == {"k": "entry", "at": 2.5, "change": {"temperature": 0.4}}
        threading.Thread(target=dashboard.statistics, args=({"time_s": 2.5},)).start()
        assert told(page, "statistics")["time_s"] == 2.5
