"""`mh.Live`: from a JACK microphone to decisions with reasons, and a session that replays."""

import time
from pathlib import Path

import pytest
import soundfile
import soxr
from typer.testing import CliRunner

import musichal as mh
from musichal.cli import app

pytestmark = pytest.mark.live


def test_it_plays_obeys_and_leaves_a_session_that_replays(
    jack_server, fake_microphone, trained_path: Path, short_guitar: Path, tmp_path: Path
) -> None:
    session, take = tmp_path / "session", tmp_path / "take.wav"
    samples, rate = soundfile.read(short_guitar, dtype="float32")
    soundfile.write(take, soxr.resample(samples, rate, 48_000), 48_000, subtype="PCM_16")
    fake_microphone(take, loop=True).go()
    with (
        mh.Live(trained_path, input="fakemic", output=f"file:{tmp_path / 'reply.mid'}", mode="shadow", session=session) as live,
    ):
        with pytest.raises(mh.InputError, match="temperature"):
            live.set(temperature=99)
        live.set(temperature=0.2)
        until_s = time.monotonic() + 20
        while not any(d.kind == "play" for d in live.decisions) and time.monotonic() < until_s:
            assert not live.wait(0.2)
        live.panic()
    played = [d for d in live.decisions if d.kind == "play"]
    assert played
    assert played[0].source is not None
    assert live.state["notes"] >= len(played[0].notes)  # type: ignore[operator]
    result = CliRunner().invoke(app, ["replay", str(session)])
    assert result.exit_code == 0, result.output
