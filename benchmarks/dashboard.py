"""`python -m benchmarks.dashboard SESSION PARTNER`: what the dashboard costs the music, and how quick and steady its page is.

SESSION is a session that PARTNER played; it is played over and over, as if it were live. Needs chromium and playwright (the
extra `dev`), and for ``--pages`` a JACK server that it starts itself.
"""

import argparse
import contextlib
import json
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import soxr
from playwright.sync_api import sync_playwright
from websockets.sync.client import connect
from websockets.typing import Origin

from benchmarks.jack_microphone import JackMicrophone
from benchmarks.jack_midi import private_server
from musichal.commands.session import names_of
from musichal.live.input.osc import read_datagram
from musichal.live.session.session import Session, read_session
from musichal.memory.partner_file import load_partner
from musichal.web.dashboard import Dashboard
from musichal.web.messages import hello, session_messages

_LEVEL_S = 0.05
_PROBES = 500
_WATCHED = ("step_p99_ms", "onset_p99_ms", "percept_p99_ms", "midi_lateness_p99_ms")
_READY = "Boolean(window.app && app.model.ready && app.model.hello)"
_PROBE = """() => { window.lag = []; let waiting = []; const take = app.model.take.bind(app.model), frame = app.frame.bind(app);
  app.model.take = (m) => { take(m); if (m.k === "event" && m.kind === "probe") waiting.push(Number(m.text)); };
  app.frame = () => { frame(); const now = performance.timeOrigin + performance.now();
    for (const then of waiting) lag.push(now - then); waiting = []; }; }"""


def _say(words: str) -> None:
    sys.stdout.write(words + "\n")
    sys.stdout.flush()


@contextlib.contextmanager
def _chromium() -> Iterator[Any]:
    with sync_playwright() as driver:
        found = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = driver.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--disable-gpu", "--enable-precise-memory-info"]
        )
        yield browser
        browser.close()


def _page(browser: Any, address: str) -> Any:
    page = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="dark").new_page()
    page.goto(address)
    while not page.evaluate(_READY):
        time.sleep(0.02)
    return page


class _Evening:
    """A session that is played over and over, as if it were live."""

    def __init__(self, session: Session, partner: Path) -> None:
        model = load_partner(partner)
        names = names_of(session.decisions, model)
        every = session_messages(session, names, session.settings.stream_rate_hz)
        self.messages = sorted((m for m in every if "end" not in m), key=_at)
        self.length_s = _at(self.messages[-1]) + 0.5
        recordings = [{"name": r.name, "duration_s": r.duration_s} for r in model.recordings]
        files = {"partner": str(partner.resolve())}
        self.hello = hello(session.settings.partner, recordings=recordings, live=True, title="virtual", files=files)

    def tell(self, dashboard: Dashboard, number: int) -> None:
        """Tell the whole of it at once, for the `number`-th time."""
        from_s = number * self.length_s
        for message in self.messages:
            dashboard.say(_moved(message, from_s))
        for step in range(int(self.length_s / _LEVEL_S)):
            dashboard.say({"k": "level", "at": from_s + step * _LEVEL_S, "rms_db": -20.0, "peak_db": -12.0})
        while dashboard._waiting:
            time.sleep(0.01)

    def play(self, dashboard: Dashboard, from_s: float, stop: threading.Event) -> None:
        """Tell it in time."""
        began_s, loop, number = time.monotonic(), 0, 0
        while not stop.wait(_LEVEL_S):
            now_s = time.monotonic() - began_s
            dashboard.say({"k": "level", "at": from_s + now_s, "rms_db": -20.0, "peak_db": -12.0})
            while _at(self.messages[number]) + loop * self.length_s <= now_s:
                dashboard.say(_moved(self.messages[number], from_s + loop * self.length_s))
                number += 1
                if number == len(self.messages):
                    number, loop = 0, loop + 1


def _at(message: dict[str, Any]) -> float:
    return float(message.get("at", message.get("time_s", message.get("at_s", 0.0))))


def _moved(message: dict[str, Any], by_s: float) -> dict[str, Any]:
    times = {
        k: message[k] + by_s for k in ("at", "time_s", "at_s", "start_s", "onset") if isinstance(message.get(k), float | int)
    }
    moved = {**message, **times}
    if "notes" in message:
        notes = message["notes"]
        moved["notes"] = [
            [n[0] + by_s, *n[1:]] if isinstance(n, list) else {**n, "onset_s": n["onset_s"] + by_s} for n in notes
        ]
    return moved


def measure_virtual(evening: _Evening, hours: float) -> None:
    """Say how large the page is over so many hours of a virtual performance."""
    with Dashboard(lambda _: None) as dashboard, _chromium() as browser:
        dashboard.begin(evening.hello, sample_rate_hz=24_000, input_rate_hz=24_000)
        page = _page(browser, dashboard.address)
        tools = page.context.new_cdp_session(page)
        loops = round(hours * 3600 / evening.length_s)
        for number in range(loops + 1):
            evening.tell(dashboard, number)
            time.sleep(0.03)
            if number % max(1, loops // 6) == 0:
                time.sleep(1)
                tools.send("HeapProfiler.collectGarbage")
                heap_mb = page.evaluate("performance.memory.usedJSHeapSize") / 1e6
                nodes = page.evaluate("document.getElementsByTagName('*').length")
                at_min = number * evening.length_s / 60
                _say(f"after {at_min:.0f} min: {heap_mb:.1f} MB, {nodes} elements, {dashboard.dropped} dropped")


def measure_page(evening: _Evening) -> None:
    """Say how soon an event is drawn, how many frames a second there are, and how soon a page is ready, ten minutes in."""
    with Dashboard(lambda _: None) as dashboard, _chromium() as browser:
        dashboard.begin(evening.hello, sample_rate_hz=24_000, input_rate_hz=24_000)
        behind = round(600 / evening.length_s)
        for number in range(behind):
            evening.tell(dashboard, number)
        stop = threading.Event()
        playing = threading.Thread(target=evening.play, args=(dashboard, behind * evening.length_s, stop))
        playing.start()
        began_s = time.monotonic()
        page = _page(browser, dashboard.address)
        ready_s = time.monotonic() - began_s
        loaded_ms = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
        _say(f"page with ten minutes behind it: loaded {loaded_ms:.0f} ms, ready {ready_s:.2f} s by a driver")
        for view in ("stage", "workshop"):
            page.click(f'[data-view="{view}"]')
            before = page.evaluate("app.frames")
            time.sleep(5)
            _say(f"frames a second, {view}: {(page.evaluate('app.frames') - before) / 5:.0f}")
        page.click('[data-view="stage"]')
        page.evaluate(_PROBE)
        for _ in range(_PROBES):
            dashboard.event(1.0, "probe", repr(time.time() * 1000))
            time.sleep(random.uniform(0.02, 0.08))  # noqa: S311
        time.sleep(1)
        stop.set()
        playing.join()
        lags = page.evaluate("lag")
        middle, late = np.percentile(lags, (50, 99))
        _say(f"event to drawn, {len(lags)} events: median {middle:.0f} ms, 99 % {late:.0f} ms, at most {max(lags):.0f} ms")


def measure_pages(session: Session, partner: Path, phase_s: float) -> None:
    """Say what 0, 1 and 5 pages cost a performance through JACK, one of the five standing still."""
    rate = session.settings.sample_rate_hz
    sound = soxr.resample(session.samples(), rate, 48_000) if rate != 48_000 else session.samples()
    with private_server(), contextlib.ExitStack() as stack:
        microphone = stack.enter_context(JackMicrophone(sound, name="player"))
        receiver = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        receiver.bind(("127.0.0.1", 0))
        told: list[dict[str, Any]] = []
        threading.Thread(target=_listen, args=(receiver, told), daemon=True).start()
        command = [sys.executable, "-m", "musichal", "play", str(partner), "--input", "player", "--midi-out", "jack:MusicHal"]
        command += ["--osc", f":{receiver.getsockname()[1]}", "--web", "--no-browser"]
        playing = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)  # noqa: S603 - our own
        stack.callback(playing.wait)
        stack.callback(playing.terminate)
        assert playing.stderr is not None
        address = next(found[0] for line in playing.stderr if (found := re.search(r"http://\S+", line)))
        threading.Thread(target=list, args=(playing.stderr,), daemon=True).start()
        origin = Origin(f"http://{urlsplit(address).netloc}")
        microphone.go()
        time.sleep(10)
        with _chromium() as browser:
            for pages, stalls in ((0, False), (1, False), (4, True), (0, False)):
                open_pages = [_page(browser, address) for _ in range(pages)]
                there = address.replace("http", "ws") + "socket"
                still = connect(there, origin=origin, proxy=None, max_queue=1) if stalls else None
                time.sleep(3)
                told.clear()
                time.sleep(phase_s)
                rows = told[-12:]
                figures = ", ".join(
                    f"{name} {statistics.median(row[name] for row in rows):.1f}"
                    for name in _WATCHED
                    if rows and name in rows[0]
                )
                _say(f"{pages + stalls} pages{', one standing still' if stalls else ''}: {figures}")
                for page in open_pages:
                    page.context.close()
                if still is not None:
                    still.close_socket()


def _listen(receiver: socket.socket, told: list[dict[str, Any]]) -> None:
    with contextlib.suppress(OSError):
        while True:
            for address, values in read_datagram(receiver.recv(65536)):
                if address == "/musichal/statistics":
                    told.append(json.loads(str(values[0])))


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("session", type=Path)
    parser.add_argument("partner", type=Path)
    parser.add_argument("--hours", type=float, default=0.0, help="of a virtual performance")
    parser.add_argument("--pages", type=float, default=0.0, help="seconds with each number of pages, through JACK")
    asked = parser.parse_args()
    session = read_session(asked.session)
    evening = _Evening(session, asked.partner)
    measure_page(evening)
    if asked.hours:
        measure_virtual(evening, asked.hours)
    if asked.pages:
        measure_pages(session, asked.partner, asked.pages)


if __name__ == "__main__":
    main()
