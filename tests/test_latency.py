"""What an output takes to sound is taken off notes in time: in the partner's plan, at every port, and through a real server."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.live_timing import beats_heard, plucking_player
from musichal.commands.devices import clicks_heard, measured, taps_after
from musichal.live.live_performance import LiveRequest, _routings, _sent_early
from musichal.live.output.routing import LiveOutput, Routing, VoiceRoute, largest_latency_s
from musichal.live.output.scheduler_protocol import PortSettings
from musichal.note import Note
from musichal.partner.decision import Decision
from musichal.partner.settings import PartnerSettings


class Kept:
    """A scheduler that keeps when notes leave."""

    def __init__(self, latencies_s: dict[str, float]) -> None:
        self._latencies_s, self.left_s, self.ports = latencies_s, {}, tuple(latencies_s)

    def begin(self, origin_s):
        pass

    def play(self, port, events, *, tag):
        self.left_s[port] = [event.onset_s - self._latencies_s[port] for event in events]
        return len(events)


def test_ports_of_different_latencies_sound_together_and_the_slowest_gets_its_notes_at_once():
    latencies_s = {"piano": 0.01, "sampler": 0.08}
    routings = [Routing((PortSettings(name, "none:", latency_s=s),), {}, VoiceRoute(name)) for name, s in latencies_s.items()]
    kept = Kept(latencies_s)
    decision = Decision(0, 5.0, "play", duration_s=1.0, notes=(Note(5.0, 0.5, 60, 90), Note(5.02, 0.5, 62, 90)), state=0)
    LiveOutput(kept, routings).play(decision, lambda time_s: time_s + 100)
    assert kept.left_s["sampler"] == pytest.approx([105.0, 105.02])
    assert kept.left_s["piano"] == pytest.approx([105.07, 105.09])
    assert largest_latency_s(routings) == 0.08


def test_one_latency_holds_for_every_port_but_those_with_their_own(tmp_path):
    table = tmp_path / "voices.toml"
    table.write_text(
        "[port.a]\nto = 'none:'\nlatency_ms = 12\n[port.b]\nto = 'osc:localhost:9'\n"
        "[voice.melody]\nport = 'a'\n[voice.bass]\nport = 'b'\n"
    )
    (routing,) = _routings(LiveRequest(partner=tmp_path, voices=table, latency_s=0.05))
    assert {port.name: port.latency_s for port in routing.ports} == {"a": 0.012, "b": 0.05}


def test_the_partner_knows_it_unless_the_player_sets_it():
    assert _sent_early(PartnerSettings(), 0.0234).latency_ms == 23.4
    assert _sent_early(PartnerSettings(), 4.0).latency_ms == 1000
    assert _sent_early(PartnerSettings().changed({"latency_ms": 7}), 0.05).latency_ms == 7


@pytest.mark.live
@pytest.mark.slow
@pytest.mark.usefixtures("jack_starts")
def test_notes_leave_so_much_before_the_beat_as_the_output_takes(trained_path):
    """Through a real server: what is received lies where it was planned, by the latency that was stated."""
    for _ in range(4):
        found = beats_heard(trained_path, plucking_player(14), latency_ms=80.0)
        assert found["latency_ms"] >= 80
        if len(found["added_ms"]) >= 4:
            break
    else:
        pytest.skip(f"JACK lost sound {found['xruns']} times in a quarter of a minute: this computer is too busy")
    assert abs(np.median(found["added_ms"])) < 2


# ── to measure it ────────────────────────────────────────────────────────────


@pytest.mark.parametrize("attack_s", [0.0, 0.004, 0.02])
def test_clicks_are_found_in_noise_whatever_the_instrument(attack_s):
    rng, rate = np.random.default_rng(0), 48_000
    samples = 1e-3 * rng.standard_normal(10 * rate).astype(np.float32)
    sent = 4800 + rate * np.arange(9) * 0.75
    true_s = 0.031 + rng.uniform(-0.001, 0.001, 9)
    t = np.arange(round(0.1 * rate)) / rate
    tone = 0.3 * np.sin(2 * np.pi * 523 * t) * np.exp(-t * 30) * np.minimum(1, t / max(attack_s, 1e-6))
    for place, late_s in zip(sent, true_s, strict=True):
        begin = round(place + late_s * rate)
        samples[begin : begin + len(tone)] += tone.astype(np.float32)
    found = measured(clicks_heard(samples, sent, rate_hz=rate))
    assert found.number == 9
    assert 0.030 < found.median_s < 0.032 + 0.25 * attack_s
    assert found.spread_s < 0.002
    silent = clicks_heard(1e-3 * rng.standard_normal(10 * rate).astype(np.float32), sent, rate_hz=rate)
    assert len(silent) == 0


def test_taps_belong_to_the_click_before_them_and_the_first_ones_are_practice():
    clicks_s = 100 + 0.6 * np.arange(20)
    taps_s = np.concatenate([[99.0], clicks_s + 0.045, [130.0]])
    late_s = taps_after(taps_s, clicks_s)
    assert len(late_s) == 16
    assert late_s == pytest.approx(0.045)
    assert len(taps_after(np.zeros(0), clicks_s)) == 0


@pytest.mark.live
@pytest.mark.slow
def test_a_loopback_is_measured_to_the_millisecond(jack_server):
    """An instrument that takes 20 ms: in this server's graph its sound is a period before the one of a real capture port."""
    program = [sys.executable, str(Path(__file__).with_name("click_loopback.py")), "0.020"]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as loopback:
        while "ready" not in (line := loopback.stdout.readline()):
            assert line
        for _ in range(3):
            command = ["devices", "--latency", "--input", "loopback", "--midi-out", "jack:MusicHal>loopback:in", "--json"]
            done = subprocess.run(
                [sys.executable, "-m", "musichal", *command], capture_output=True, text=True, check=False, timeout=60
            )
            assert done.returncode == 0, done.stderr
            found = json.loads(done.stdout)
            if found["spread_ms"] < 1:  # a busy computer loses sound
                break
        loopback.stdin.close()
    assert found["method"] == "loopback"
    assert found["median_ms"] == pytest.approx(20 - 1000 * jack_server.period / jack_server.rate_hz, abs=1.5)
