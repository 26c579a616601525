"""Ableton Link: a session's beats in the time of the stream, from reports by hand and from real peers on this machine."""

import contextlib
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.jack_midi import JackReceiver, wait_for
from jack_server import JackServer
from musichal.errors import InputError, MissingExtraError
from musichal.live.input.link import LinkClock, LinkReport, LinkSession, is_news, link_report
from musichal.live.session.event_log import Changed
from musichal.live.session.session import read_session
from musichal.partner.clocks import read_clock
from musichal.partner.settings import PartnerSettings
from stage_by_hand import hand_stage
from test_play_live import playing, replayed

needs_aalink = pytest.mark.skipif(
    importlib.util.find_spec("aalink") is None, reason="aalink is not installed (the extra `link`)"
)


class Told:
    """What a `LinkClock` told, with a stream that began at moment 100."""

    def __init__(self, stream_s: Callable[[float], float | None] = lambda moment_s: moment_s - 100) -> None:
        self.pulses: list[dict[str, float] | None] = []
        self.said: list[str] = []
        self.clock = LinkClock(stream_s, self.pulses.append, self.said.append)

    @property
    def period_s(self) -> float:
        """Of the pulse that was told last; nan where that was that there is none."""
        return math.nan if self.pulses[-1] is None else self.pulses[-1]["period_s"]

    def take(self, at_s: float, beat: float, bpm: float = 120.0, peers: int = 1, playing: bool = False) -> None:
        self.clock.take(LinkReport(at_s, beat, bpm, peers, playing))


def test_a_session_with_peers_gives_its_beats_and_its_tempo():
    told = Told()
    told.take(110.0, 7.25)
    assert told.pulses == [{"beat_s": pytest.approx(10.0 - 0.125), "period_s": 0.5}]
    told.take(112.0, -2.5, bpm=60.0)  # beats before the session's own first one
    assert told.pulses[-1] == {"beat_s": pytest.approx(11.5), "period_s": 1.0}
    assert told.said == ["Link: 1 peer, 120.0 beats per minute", "Link: 1 peer, 60.0 beats per minute"]
    assert told.clock.to_dict() == {"peers": 1, "tempo_bpm": 60.0, "playing": False}


def test_alone_there_is_no_pulse():
    """A tempo of 120 that nobody chose must not be played to."""
    told = Told()
    told.take(110.0, 7.25, peers=0)
    assert told.pulses == []
    told.take(111.0, 9.25, peers=2)
    told.take(112.0, 11.25, peers=0)
    told.take(113.0, 13.25, peers=0)
    assert [pulse is None for pulse in told.pulses] == [False, True]
    nobody = "Link: no peers in the session"
    assert told.said == [nobody, "Link: 2 peers, 120.0 beats per minute", nobody]


def test_a_transport_that_is_stopped_stops_the_pulse_until_it_is_started():
    told = Told()
    told.take(110.0, 0.0)  # never started: it has beats
    told.take(111.0, 2.0, playing=True)
    told.take(112.0, 4.0)
    told.take(113.0, 6.0)
    told.take(114.0, 8.0, playing=True)
    assert [pulse is None for pulse in told.pulses] == [False, False, True, False]
    assert "Link: 1 peer, 120.0 beats per minute, stopped" in told.said


def test_a_tempo_that_no_pulse_can_have_is_told_and_not_followed():
    told = Told()
    told.take(110.0, 0.0)
    told.take(111.0, 2.0, bpm=999.0)
    assert told.pulses[-1] is None
    assert "cannot be followed (999 beats" in told.said[-1]


def test_before_any_sound_there_is_nothing_to_tell():
    told = Told(lambda moment_s: None)
    told.take(110.0, 0.0)
    assert told.pulses == []


@given(
    st.lists(
        st.builds(
            LinkReport,
            st.floats(0, 1e6),
            st.floats(-1e12, 1e12),
            st.floats(1e-3, 1e4),
            st.integers(0, 100),
            st.booleans(),
        )
    )
)
def test_whatever_a_session_says_the_partner_can_take(reports):
    told = Told()
    for report in reports:
        told.clock.take(report)
    for value in told.pulses:
        pulse = read_clock(value, 0.0).pulse
        assert pulse is None or math.isfinite(pulse.beat_s)
    assert all(a is not None or b is not None for a, b in zip(told.pulses, told.pulses[1:], strict=False)), "lost once"


JSON = st.recursive(st.none() | st.floats() | st.text(), st.lists).map(lambda value: json.dumps(value).encode())


@given(st.binary(max_size=200) | JSON)
def test_a_line_that_is_no_report_is_refused(line):
    with pytest.raises(ValueError):  # noqa: PT011 - whichever
        link_report(line)


def test_a_line_that_is_one_is_read():
    seen = {"at_s": 1.5, "beat": 2, "tempo_bpm": 97.25, "peers": 3, "playing": True}
    assert link_report(json.dumps(seen).encode()) == LinkReport(1.5, 2.0, 97.25, 3, True)
    for name, wrong in [("at_s", "1"), ("beat", math.nan), ("tempo_bpm", True), ("peers", -1), ("playing", 1)]:
        with pytest.raises(ValueError):  # noqa: PT011 - whichever
            link_report(json.dumps({**seen, name: wrong}).encode())


def test_news_is_what_was_not_to_be_expected():
    first = {"at_s": 10.0, "beat": 4.0, "tempo_bpm": 120.0, "peers": 1, "playing": False}
    assert is_news(first, None)
    assert not is_news({**first, "at_s": 10.5, "beat": 5.0}, first)
    assert is_news({**first, "at_s": 10.5, "beat": 5.01}, first)
    assert is_news({**first, "at_s": 12.0, "beat": 8.0}, first), "so that the partner knows that it is still there"
    for changed in ({"tempo_bpm": 120.1}, {"peers": 2}, {"playing": True}):
        assert is_news({**first, **changed}, first)


def test_what_is_planned_for_a_beat_sounds_on_it(trained):
    """A beat at the moment at which a time of the stream sounds is a beat at that time, resampler and all."""
    stage = hand_stage(trained, rate_hz=48_000, settings=PartnerSettings())
    for _ in range(100):
        stage.send(np.zeros(480, dtype=np.float32))
    told = Told(stage.engine.stream_s)
    at_s = stage.clock.now
    told.take(at_s, 12.75, bpm=100.0)
    (pulse,) = told.pulses
    assert pulse is not None
    # The partner takes the way of a sound through the front end off, by its setting `latency_ms`.
    way_s = stage.engine._delay_s
    for k in range(-3, 4):
        moment_s = stage.engine._moment_of(pulse["beat_s"] + k * pulse["period_s"] - way_s)
        assert moment_s == pytest.approx(at_s + (k - 0.75) * 0.6, abs=1e-6)


def test_without_the_extra_the_command_is_named_before_anything_is_made(monkeypatch, tmp_path, trained_path):
    from musichal.live.live_performance import LivePerformance, LiveRequest

    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    told = Told()
    with pytest.raises(MissingExtraError, match=r'pip install "musichal\[link\]"'), LinkSession(told.clock, told.said.append):
        pass
    request = LiveRequest(partner=trained_path, link=True, session=tmp_path / "session")
    with pytest.raises(MissingExtraError, match=r'pip install "musichal\[link\]"'):
        LivePerformance(request)
    assert not (tmp_path / "session").exists()


def test_one_clock_at_a_time(trained_path):
    from musichal.live.live_performance import LivePerformance, LiveRequest

    with pytest.raises(InputError, match="--link or --clock-in"):
        LivePerformance(LiveRequest(partner=trained_path, link=True, clock_in="x"))


# ── real peers ───────────────────────────────────────────────────────────────


class Peer:
    """A `link_peer.py` in a process of its own."""

    def __init__(self, tempo_bpm: float) -> None:
        command = [sys.executable, str(Path(__file__).with_name("link_peer.py")), str(tempo_bpm)]
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, text=True, bufsize=1, env=environ, **pipes)
        self.seen: deque[LinkReport] = deque(maxlen=400)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.seen.append(link_report(line.encode()))

    def tell(self, words: str) -> None:
        self.process.stdin.write(words + "\n")
        self.process.stdin.flush()

    def sees_peers(self, number: int) -> bool:
        return bool(self.seen) and self.seen[-1].peers == number

    def beat_at(self, moment_s: float) -> float:
        """Return its beat at a moment near one that it has seen."""
        near = min(self.seen, key=lambda report: abs(report.at_s - moment_s))
        return near.beat + (moment_s - near.at_s) / near.period_s

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let no two runs of these tests on one machine meet: Link has one session for a whole network."""
    import fcntl

    with (Path(tempfile.gettempdir()) / "musichal-link-tests.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="module")
def network() -> Iterator[None]:
    """A network on which peers find each other, and nobody else is."""
    if sys.platform == "win32":
        pytest.skip("no lock against other runs of these tests here")
    with one_at_a_time(), contextlib.ExitStack() as stack:
        first = a_peer(stack)
        if first.seen[-1].peers:
            pytest.skip("somebody else is in the Link session of this network: a test must not change their tempo")
        other = Peer(97.0)
        stack.callback(other.end)
        if not wait_for(lambda: first.sees_peers(1), 10):
            pytest.skip("Link's multicast does not work here: two plain peers do not find each other")
        other.end()
        assert wait_for(lambda: first.sees_peers(0), 20), "a peer that is gone is forgotten"
        first.end()
        yield


@pytest.fixture
def peer(network) -> Iterator[Peer]:
    """A peer at 97 beats per minute, alone."""
    with contextlib.ExitStack() as stack:
        first = a_peer(stack)
        assert wait_for(lambda: first.sees_peers(0), 20), "those of the test before are forgotten"
        yield first


def a_peer(stack: contextlib.ExitStack) -> Peer:
    peer = Peer(97.0)
    stack.callback(peer.end)
    assert wait_for(lambda: len(peer.seen) > 20, 30), "aalink does not run"
    return peer


@needs_aalink
@pytest.mark.live
def test_a_session_is_joined_followed_and_left(peer):
    """It takes the tempo that is there, hears of changes, agrees with the other about every beat, and leaves in order."""
    reports: list[LinkReport] = []
    told = Told()
    taken = told.clock.take
    told.clock.take = lambda report: (reports.append(report), taken(report))
    with LinkSession(told.clock, told.said.append) as session:
        assert wait_for(lambda: told.pulses != [], 20)
        assert peer.seen[-1].tempo_bpm == pytest.approx(97.0, abs=0.01), "it brought no tempo of its own"
        assert wait_for(lambda: told.period_s == pytest.approx(60 / 97, rel=1e-4), 10)
        peer.tell("tempo 140")
        assert wait_for(lambda: told.period_s == pytest.approx(60 / 140, rel=1e-4), 20)
        assert wait_for(lambda: len(reports) >= 2 and reports[-1].at_s > reports[0].at_s + 2.5, 10)
        time.sleep(0.3)  # the peer's own look at the same time is in
        steady = [report for report in reports if report.tempo_bpm == pytest.approx(140, abs=0.01) and report.peers == 1]
        apart = [math.remainder(report.beat - peer.beat_at(report.at_s), 1) for report in steady[1:]]
        # Two programs that read one timeline on one clock: a benchmark has the figure. A busy one may spoil single looks.
        assert apart
        assert np.median(np.abs(apart)) < 0.005
        peer.tell("start")
        assert wait_for(lambda: reports[-1].playing, 10)
        assert told.pulses[-1] is not None
        peer.tell("stop")
        assert wait_for(lambda: told.pulses[-1] is None, 10)
        peer.tell("start")
        assert wait_for(lambda: told.pulses[-1] is not None, 10)
        assert session._process is not None
        session._process.send_signal(signal.SIGKILL)
        assert wait_for(lambda: told.pulses[-1] is None, 10)
        assert wait_for(lambda: told.pulses[-1] is not None, 20), "it is started again"
        process = session._process
    assert process.poll() is not None
    assert any(text.startswith("Link ended (its process ended)") for text in told.said)
    assert wait_for(lambda: peer.sees_peers(0), 20), "the others see it go"


@needs_aalink
@pytest.mark.live
def test_a_partner_plays_to_the_beat_of_a_session(
    jack_server: JackServer, fake_microphone, short_guitar, trained_path, tmp_path, peer
) -> None:
    """Its notes are planned for the session's beats, and a replay without Link plays the same."""
    samples, rate = soundfile.read(short_guitar, dtype="float32")
    soundfile.write(tmp_path / "take.wav", soxr.resample(samples[: 8 * rate], rate, 48_000), 48_000, subtype="PCM_16")
    microphone, session = fake_microphone(tmp_path / "take.wav", loop=True), tmp_path / "session"
    wanted = [trained_path, "--input", microphone.name, "--midi-out", "jack:MusicHal", "--json", "--link", "--session", session]
    with JackReceiver() as receiver, playing(*wanted, "--set", "quantise=1", "--set", "rest_below=0.02") as concert:
        concert.wait_to_hear("Link: 1 peer, 97.0 beats per minute")
        receiver.connect("MusicHal")
        microphone.go()
        assert wait_for(lambda: len(receiver.messages()) > 30, 40)
        summary = json.loads(concert.end())
    assert summary["link"] == {"peers": 1, "tempo_bpm": pytest.approx(97.0, abs=0.1), "playing": False}
    played = read_session(session)
    rate_hz = played.settings.stream_rate_hz
    clocks = [(entry.at_sample / rate_hz, entry.changes["clock"]) for entry in played.entries if isinstance(entry, Changed)]
    assert {clock["source"] for _, clock in clocks} == {"link"}
    told = [clock for _, clock in clocks if "beat_s" in clock]
    assert told
    assert all(clock["period_s"] == pytest.approx(60 / 97, rel=1e-3) for clock in told)

    def is_led(at_s: float) -> bool:
        """A busy machine may stop the peer for so long that the session forgets it, and Link gives no pulse meanwhile."""
        before = [(at_s - told_s, clock) for told_s, clock in clocks if told_s <= at_s]
        return bool(before) and before[-1][0] < 10 and "beat_s" in before[-1][1]

    decisions = [decision for decision in played.decisions if decision.tempo_bpm and is_led(decision.time_s)]
    assert decisions
    assert all(decision.tempo_bpm == pytest.approx(97.0, rel=1e-3) for decision in decisions)
    step_s = 60 / 97 / PartnerSettings().subdivision
    beats_s = np.array([clock["beat_s"] for clock in told])
    sent_s = played.settings.partner.latency_ms / 1000  # so much before the beat
    off_s = [
        np.abs((note.onset_s + sent_s - beats_s + step_s / 2) % step_s - step_s / 2).min()
        for decision in decisions
        for note in decision.notes
    ]
    assert len(off_s) > 5
    assert np.median(off_s) < 0.002
    assert replayed(session).returncode == 0
