"""The dashboard in a real browser (Debian's chromium, by playwright), beside a performance in a real JACK server."""

import contextlib
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile
import soxr
from websockets.sync.client import connect

from jack_server import JackServer
from midi_receiver import MidiSender
from test_play_live import Playing, playing, replayed

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (the extra `dev`)")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core is not installed (the extra `dev`)")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)"),
]
FORM = """
[[section]]
name = "opening"
from = "0:00"
[[section]]
name = "answers"
from = "5:00"
mode = "mirror"
"""
# Where pictures are kept, if anybody asks for them.
PICTURES = os.environ.get("MUSICHAL_PICTURES")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        options = ["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"]
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=options)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def take(tmp_path_factory, short_guitar) -> Path:
    samples, rate = soundfile.read(short_guitar, dtype="float32")
    path = tmp_path_factory.mktemp("take") / "take.wav"
    soundfile.write(path, soxr.resample(samples[: 10 * rate], rate, 48_000), 48_000, subtype="PCM_16")
    return path


def until(holds: Callable[[], Any], timeout_s: float = 60.0, what: str = "") -> Any:
    end = time.monotonic() + timeout_s
    while not (found := holds()):
        assert time.monotonic() < end, f"never: {what or holds}"
        time.sleep(0.05)
    return found


def opened(browser: Any, address: str, *, width: int = 1280, height: int = 800, scheme: str = "dark") -> tuple[Any, list[str]]:
    """Return a page and the list that its errors go to."""
    shown = {"viewport": {"width": width, "height": height}, "color_scheme": scheme, "reduced_motion": "reduce"}
    page = browser.new_context(**shown).new_page()  # what fades is pale while it does
    page.set_default_timeout(120_000)
    errors: list[str] = []
    page.on("console", lambda m: errors.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    until(lambda: page.evaluate("Boolean(window.app && app.model.ready && app.model.hello)"), what="the page is ready")
    return page, errors


def pictured(page: Any, name: str) -> None:
    if PICTURES:
        page.screenshot(path=str(Path(PICTURES) / f"{name}.png"))


def address_in(running: Playing) -> tuple[str, str]:
    page = running.wait_to_hear("The dashboard: ").split()[-1]
    return page, running.wait_to_hear("look at only").split()[-1]


def clipped(page: Any) -> list[str]:
    """Return what of the page cannot be seen, or is too small to touch."""
    return page.evaluate("""() => {
        const wide = document.documentElement.scrollWidth > innerWidth + 1 ? ["the page scrolls sideways"] : [];
        const bad = (b) => b.offsetParent && (b.offsetHeight < 32 || !b.textContent.trim());
        const small = [...document.querySelectorAll("button")].filter(bad);
        return [...wide, ...small.map((b) => `small or without words: ${b.textContent}`)];
    }""")  # fmt: skip


def unfair(page: Any, *, where: str) -> list[str]:
    """Return the serious faults that axe-core finds: what a keyboard, a screen reader or weak eyes cannot use."""
    found = axe.Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    serious = [v for v in found if v["impact"] in ("serious", "critical")]
    return [f"{where}: {v['id']}: {v['help']}: {[n['target'] for n in v['nodes']][:4]}" for v in serious]


def test_a_performance_with_the_page_open(  # noqa: PLR0915 - one long evening
    jack_server: JackServer, fake_microphone, take, trained_path, tmp_path, browser
) -> None:
    """Every control works and shows what came of it; the page comes back; others stall or talk rubbish; the replay is alike."""
    form, session = tmp_path / "form.toml", tmp_path / "session"
    form.write_text(FORM, encoding="utf-8")
    microphone = fake_microphone(take, loop=True)
    wanted = [trained_path, "--input", microphone.name, "--midi-out", "jack:MusicHal", "--web", "--no-browser", "--form", form]
    wanted += ["--control-in", "knobs"]
    with MidiSender("knobs") as knobs, playing(*wanted, "--json", "--set", "rest_below=0.02", "--session", session) as concert:
        address, look_only = address_in(concert)
        page, errors = opened(browser, address)
        concert.wait_to_hear("MusicHal listens to")
        microphone.go()
        until(lambda: page.evaluate("app.model.plays.length > 5 && app.model.onsets.length > 5"), 40, "it plays")
        until(lambda: page.evaluate("app.model.memory !== null"), 60, "the memory is shown")
        pictured(page, "stage-dark-desktop")
        assert clipped(page) == []
        assert unfair(page, where="stage, dark") == []
        # The clock of the page is that of the stream, and pictures come.
        until(lambda: -1.0 < page.evaluate("app.model.level.at - app.now()") < 0.5, what="the page has the time")
        frames = page.evaluate("app.frames")
        until(lambda: page.evaluate("app.frames") - frames >= 15, what="pictures come")

        # Every button that is shown is obeyed, and the page learns of it from the event log or from what happened.
        names = page.evaluate("[...app.controls.buttons.keys()]")
        assert {"change", "go_back", "more_like_this", "tap", "panic"} <= set(names)
        pausing = "pause" if "pause" in names else "mute"
        for name in (n for n in names if n not in (pausing, "end")):
            now = "[...app.model.changes.values()].flat().length + app.model.stages.length + app.model.marks.length"
            seen = page.evaluate(now)
            page.click(f'[data-command="{name}"]')
            until(lambda seen=seen, now=now: page.evaluate(now) > seen, what=f"{name} is done")
        page.click(f'[data-command="{pausing}"]')
        until(lambda: page.inner_text(f'[data-command="{pausing}"] span') == "Go on", what="it is paused")
        until(lambda: page.inner_text(".state") in ("paused", "is paused"), what="the state says so")
        page.keyboard.press("m" if pausing == "mute" else "p")
        until(lambda: page.inner_text(f'[data-command="{pausing}"] span') == "Pause", what="it goes on, by the key")
        page.click('[data-mode="mirror"]')
        until(lambda: page.inner_text(".mode") == "mirror" and page.inner_text(".by") == "you chose it", what="mirror")
        page.click('[data-mode="auto"]')
        page.click('[data-voice="melody"]')
        until(lambda: page.evaluate("app.model.setting('voices', 1e9)") == "melody", what="a voice")
        page.click('[data-voice="all"]')
        until(lambda: page.get_attribute('[data-voice="all"]', "aria-pressed") == "true", what="all voices")

        # A note is explained, beside pause and panic, which stay within reach; its source can be heard.
        page.evaluate("app.explain.show(app.model.plays.findLast((p) => !p.live && p.notes.length))")
        assert " from " in page.inner_text(".explain .words")
        page.click('[data-command="tap"]')
        page.click(".explain .hear >> nth=0")
        until(lambda: page.evaluate("app.explain.audio.duration > 0.3"), what="the sound of the source")
        pictured(page, "explain-dark-desktop")
        assert unfair(page, where="explanation, dark") == []
        page.keyboard.press("Escape")
        assert not page.is_visible(".explain")

        # Workshop: settings show what is realised; what is not possible is told in words.
        page.click('[data-view="workshop"]')
        page.fill('input[type="search"]', "temperature")
        page.locator('input[aria-label="temperature"]').fill("0.5")
        until(lambda: page.inner_text('.setting:has([aria-label="temperature"]) output') == "0.5", what="the temperature")
        page.evaluate("app.controls.send('temperature', [99])")
        until(lambda: "temperature" in page.inner_text(".toast") and page.is_visible(".toast.bad"), what="99 is refused")
        until(lambda: page.locator(".shares tr").count() > 5, what="the shares")

        # The next knob that moves sets it; a preset brings it back; a stretch of the memory is kept away from.
        page.click('.setting:has([aria-label="temperature"]) .learn')
        until(lambda: page.evaluate("app.model.controllers.waits_for") == "temperature", what="it waits for a knob")

        def turned() -> bool:
            for position in (0, 40, 127):
                knobs.send(0xB0, 21, position)
            return bool(page.inner_text('.setting:has([aria-label="temperature"]) output') == "0.3")

        until(turned, what="the knob turns the temperature")
        assert page.inner_text('.setting:has([aria-label="temperature"]) .learn') == "CC 21"
        page.click('[data-preset="as it began"]')
        until(lambda: page.inner_text('.setting:has([aria-label="temperature"]) output') == "0.03", what="as it began")
        page.fill('input[type="search"]', "")
        page.select_option('[aria-label="Recording"]', "0")
        page.fill('[aria-label="From second"]', "1")
        page.fill('[aria-label="To second"]', "2.5")
        page.keyboard.press("Tab")
        page.click('[data-region="avoid"]')
        until(lambda: "0:1" in str(page.evaluate("app.model.setting('avoid', 1e9)")), what="a stretch is avoided")
        page.click('[data-region="all"]')
        page.click('[data-time="free"]')
        until(lambda: page.get_attribute('[data-time="free"]', "aria-pressed") == "true", what="free time")
        pictured(page, "workshop-dark-desktop")
        assert clipped(page) == []
        assert unfair(page, where="workshop, dark") == []

        # Other pages: a phone by day, a projector that can ask for nothing, ten more, one that stalls, one with rubbish.
        phone, phone_errors = opened(browser, address, width=390, height=844, scheme="light")
        until(lambda: phone.evaluate("app.offset !== null"), what="the phone has the time")
        time.sleep(0.5)
        pictured(phone, "stage-light-phone")
        assert clipped(phone) == []
        assert unfair(phone, where="stage, light, phone") == []
        projector, projector_errors = opened(browser, look_only, width=1920, height=1080)
        assert not projector.is_visible("button[data-command]")
        before = page.evaluate("app.model.stages.length")
        projector.evaluate("app.link.send('panic')")
        projector.keyboard.press("Backspace")
        pictured(projector, "projector-dark")
        origin = f"http://{urlsplit(address).netloc}"
        with contextlib.ExitStack() as stack:
            others = [
                stack.enter_context(connect(address.replace("http", "ws") + "socket", origin=origin, proxy=None, max_queue=1))
                for _ in range(8)
            ]
            for text in ("", "[1", '{"id":1}', "null"):
                others[1].send(text)
            time.sleep(1.0)
            assert page.evaluate("app.model.stages.length") == before
            at = page.evaluate("app.model.level.at")
            until(lambda: page.evaluate("app.model.level.at") > at + 0.3, what="the page is still told")
            for other in others:
                other.close_socket()

        # A page that loses its socket comes back, and has what it missed.
        plays = page.evaluate("app.model.plays.length")
        number = page.evaluate("app.model.page")
        page.evaluate("app.link.socket.close()")
        again = "app.link.connected && app.model.ready && app.model.page"
        until(lambda: page.evaluate(again) not in (False, number), what="it is connected again, as another")
        until(lambda: page.evaluate("app.model.plays.length") >= plays, what="it has what it missed")
        said = json.loads(concert.end())
        until(lambda: "ended" in page.inner_text(".state") or not page.evaluate("app.link.connected"), what="the end")
    assert said["error"] is None
    lost = [e for e in [*errors, *phone_errors, *projector_errors] if "WebSocket" not in e and "ERR_CONNECTION" not in e]
    assert lost == []
    assert json.loads(replayed(session).stdout)["identical"]
    _look_at_session(browser, session, take)


def _look_at_session(browser: Any, session: Path, take: Path) -> None:
    """The session on the same page: it plays with its sound in step, and a note that is clicked on is explained."""
    shutil.copytree(session, session.with_name("again"))
    with playing(session, "--no-browser", command="web") as web:
        page, errors = opened(browser, address_in(web)[0], scheme="light")
        page.click(".play")
        until(lambda: page.evaluate("app.transport.audio.currentTime > 0.3"), 240, "the sound plays")
        until(lambda: page.evaluate("Math.abs(app.now() - app.transport.audio.currentTime)") < 0.1, what="it is in step")
        page.click(".play")
        page.evaluate("app.transport.seek(app.model.plays.find((p) => p.notes.length && p.begin > 3).begin + 0.5)")
        box = page.locator(".roll").bounding_box()

        def explained() -> bool:  # the picture moves until it fits
            found = "app.roll.drawn.filter((r) => r.by.kind === 'play' && r.x > 20).map((r) => [r.x, r.y])[0]"
            if spot := page.evaluate(found):
                page.mouse.click(box["x"] + spot[0] + 3, box["y"] + spot[1] + 4)
            return bool(page.is_visible(".explain"))

        until(explained, what="the note is explained")
        pictured(page, "session-light-desktop")
        assert unfair(page, where="session, light") == []
        page.keyboard.press("Escape")
        _keep_a_stretch(page)
        _compare_and_train(page, take)
        assert errors == []
        assert clipped(page) == []


def _keep_a_stretch(page: Any) -> None:
    """A stretch is chosen by dragging, and kept as MIDI, sound and picture."""
    box = page.locator(".strip").bounding_box()
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 9)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 9)
    page.mouse.up()
    start_s, end_s = page.evaluate("[app.transport.stretch.from, app.transport.stretch.to]")
    kept = {}
    for kind in ("midi", "wav", "picture"):
        with page.expect_download() as coming:
            page.click(f'[data-keep="{kind}"]')
        kept[kind] = Path(coming.value.path()).read_bytes()
    assert kept["midi"].startswith(b"MThd") and kept["picture"].startswith(b"\x89PNG")
    samples, rate = soundfile.read(io.BytesIO(kept["wav"]))
    assert abs(len(samples) / rate - (end_s - start_s)) < 0.01 and np.abs(samples).max() > 0.01


def _compare_and_train(page: Any, take: Path) -> None:
    """Two sessions beside each other; a partner that learns what is dropped, as its figures say; and its memory."""
    page.click('[data-view="sessions"]')
    for name in ("session", "again"):
        page.check(f'[aria-label="compare {name}"]')
    page.click("text=Compare the two")
    until(lambda: page.locator(".figures-table tbody tr").count() > 5, what="the two are compared")
    assert "differs" not in str(page.get_attribute(".figures-table tbody tr >> nth=3", "class"))
    page.click(".compared button >> nth=0")
    until(lambda: page.evaluate("app.shelf.compared.audios[0].currentTime > 0.2"), 240, "a take plays")
    pictured(page, "sessions-light-desktop")
    assert clipped(page) == [] and unfair(page, where="sessions, light") == []
    page.click('[data-view="partners"]')
    page.set_input_files("#files", [str(take), __file__])
    until(lambda: "neither a recording" in page.inner_text(".toast.bad.shown"), what="no program is taken")
    page.fill('[aria-label="Name of the partner"]', "../mine")
    page.click('.bench button:has-text("Train")')
    until(lambda: page.evaluate("(app.model.task || {}).state") == "done", 120, "it is trained")
    assert "Learned 64 harmonic" in page.inner_text(".task")
    pictured(page, "partners-light-desktop")
    assert clipped(page) == [] and unfair(page, where="partners, light") == []
    page.click('button.opener:has-text("mine.hal")')
    until(lambda: page.inner_text(".mode") == "mine.hal" and page.is_visible(".enough"), 60, "what it learned is shown")
    until(lambda: page.evaluate("app.model.memory !== null"), 60, "its memory is shown")
    pictured(page, "memory-light-desktop")
    assert unfair(page, where="memory, light") == []
