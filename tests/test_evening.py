"""`musichal check`: each line is green or says what to do."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from musichal.audio.levels import LevelMeter
from musichal.cli import app
from musichal.commands.evening import disk, governor, leakage, player_finding, power, room_finding
from musichal.live.live_performance import LiveRequest


def levels(db: float):
    meter = LevelMeter()
    sound = (10 ** (db / 20) * np.sin(np.arange(4800))).astype(np.float32)
    meter.see(sound[:, None], sound)
    return meter.take()


@pytest.mark.parametrize(
    ("finding", "good", "words"),
    [
        (room_finding(levels(-70), -50), True, "quiet enough"),
        (room_finding(levels(-40), -50), False, "closer microphone"),
        (player_finding(levels(-12), levels(-70)), True, "good"),
        (player_finding(levels(-40), levels(-70)), False, "turn the gain up"),
        (player_finding(levels(-0.5), levels(-70)), False, "turn the gain down"),
        (player_finding(levels(-64), levels(-66)), False, "nobody is heard"),
        (player_finding(levels(-12), levels(-12)), False, "no louder than the room"),
        (leakage(levels(-69), levels(-70), levels(-12), played=True), True, "none comes back"),
        (leakage(levels(-50), levels(-70), levels(-12), played=True), True, "38 dB below you"),
        (leakage(levels(-18), levels(-70), levels(-12), played=True), False, "headphones"),
        (leakage(levels(-18), levels(-70), levels(-12), played=False), None, "it played nothing"),
    ],
)
def test_levels_are_good_or_say_what_to_do(finding, good, words):
    assert finding.good is good
    assert words in finding.text
    assert len(finding.text) <= 110


def test_the_machine_is_good_or_says_what_to_do(tmp_path):
    cpu, battery = tmp_path / "devices/system/cpu/cpu0/cpufreq", tmp_path / "class/power_supply/BAT0"
    assert governor(tmp_path).good is power(tmp_path).good is None
    for folder in (cpu, battery):
        folder.mkdir(parents=True)
    for text, good in (("powersave", False), ("performance", True)):
        (cpu / "scaling_governor").write_text(text + "\n")
        assert governor(tmp_path).good is good
    for text, good in (("Discharging", False), ("Charging", True)):
        (battery / "status").write_text(text + "\n")
        assert power(tmp_path).good is good
    partner = Path("x.hal")
    assert disk(LiveRequest(partner=partner)).good is None
    assert disk(LiveRequest(partner=partner, session=tmp_path / "new", duration_s=60.0)).good
    assert "make room" in disk(LiveRequest(partner=partner, session=tmp_path / "new", duration_s=1e9)).text
    assert "exists and is not empty" in disk(LiveRequest(partner=partner, session=tmp_path)).text


def test_a_recording_needs_no_check(trained_path, short_guitar):
    result = CliRunner().invoke(app, ["check", str(trained_path), "--input", str(short_guitar)])
    assert result.exit_code == 2
    assert "a recording needs none" in result.stderr


@pytest.mark.live
def test_an_evening_is_looked_over_in_ten_lines(jack_server, fake_microphone, trained_path, tmp_path):
    rate = 48_000
    soundfile.write(tmp_path / "take.wav", (0.3 * np.sin(np.arange(rate) * 0.05)).astype(np.float32), rate)
    microphone = fake_microphone(tmp_path / "take.wav", loop=True)
    command = [sys.executable, "-m", "musichal", "check", str(trained_path), "--input", "fakemic"]
    command += [
        "--midi-out",
        "jack:MusicHal",
        "--control-in",
        "knobs",
        "--session",
        str(tmp_path / "tonight"),
        "--for",
        "20min",
    ]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        assert process.stdout is not None
        lines = []
        while line := process.stdout.readline():
            lines.append(line.strip())
            if line.startswith("Now play"):
                microphone.go()
        said = process.stderr.read() if process.stderr is not None else ""
    found = {line.split()[1]: line for line in lines if line.startswith(("good", "DO", "?"))}
    assert list(found) == [
        "partner", "output", "priority", "controllers", "disk", "CPU", "power", "load", "input", "room", "player", "own",
    ], lines  # fmt: skip
    assert found["controllers"].startswith("DO")
    for name in ("partner", "output", "disk", "room", "player", "own"):
        assert found[name].startswith("good"), found[name]
    assert "nothing lost in 10 s" in found["input"] or "raise the period" in found["input"]
    assert process.returncode == 1
    assert said.startswith("musichal: before you play, look after: ")
    assert not (tmp_path / "tonight").exists()
