"""Parity in real time: what comes through a real JACK server is heard as the training heard the file, token by token.

A partner is trained on a clip; a microphone plays the clip into the server; `LiveInput` takes it out and a `Listener` hears it
while it comes. Samples are compared first, then frames, then tokens, so that a failure names the stage.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from jack_server import FakeMicrophone, JackServer
from musichal.audio.recording import read_recording
from musichal.evaluate.verify import RATE_GOAL, at_rate, nearest_agreement
from musichal.hearing.encoders import create_encoder
from musichal.hearing.listener import Listener
from musichal.hearing.percepts import SOURCES, Percept
from musichal.live.input.live_input import LiveInput
from musichal.memory.partner_file import PartnerModel

pytestmark = pytest.mark.live

RATE = 48_000
ATTEMPTS = 5
LOG = logging.getLogger(__name__)  # shown by pytest --log-cli-level=INFO


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory, rock_mix: Path) -> Path:
    """Ten seconds of the rock band, as a file at the server's rate, whose first sample is not 0."""
    samples, rate = soundfile.read(rock_mix, dtype="float32")
    cut = at_rate(samples[8 * rate : 18 * rate], source_rate_hz=rate, target_rate_hz=RATE)
    path = tmp_path_factory.mktemp("clip") / "clip.wav"
    soundfile.write(path, cut[np.flatnonzero(cut)[0] :], RATE, subtype="PCM_24")
    return path


@pytest.fixture(scope="module")
def partner(clip: Path, partner_of: Callable[..., PartnerModel]) -> PartnerModel:
    return partner_of(clip)


@dataclass(frozen=True)
class Heard:
    """What came through the server, (n,), and what was heard of it; `xruns` of server, microphone and input together."""

    samples: np.ndarray
    frame_samples: np.ndarray
    tokens: np.ndarray
    xruns: int
    lost_samples: int


def hear_in_real_time(
    model: PartnerModel, file: Path, server: JackServer, plug_in: Callable[..., FakeMicrophone], *, name: str
) -> Heard:
    """Play a file into the server and hear it while it comes, from its first sample to its last."""
    n_samples = soundfile.info(file).frames
    microphone = plug_in(file, before_s=0.5, after_s=0.5, name=name, server=server)
    xruns_before = server.xruns()
    with LiveInput(name, block_samples=server.period) as live:
        listener = Listener(model.spec, create_encoder(model.spec), model.vocabularies, source_rate_hz=live.sample_rate_hz)
        percepts: list[Percept] = []
        parts: list[np.ndarray] = []
        microphone.go()
        left, until_s = n_samples, time.monotonic() + 60 + 2 * n_samples / server.rate_hz
        while left and time.monotonic() < until_s:
            live.wait(0.1)
            for block in live.read():
                samples = block.samples
                if not parts:
                    samples = samples[np.flatnonzero(samples)[0] :] if samples.any() else samples[:0]
                if len(samples):
                    part = samples[:left]
                    left -= len(part)
                    parts.append(part)
                    percepts += listener.push(part).percepts
        assert not left, f"{left} of {n_samples} samples did not come"
        finished = microphone.wait_until_finished()
        xruns, lost = live.xruns, live.lost_samples
    percepts += listener.flush().percepts
    microphone.close()
    return Heard(
        np.concatenate(parts),
        np.concatenate([p.heard.frame_samples for p in percepts]),
        np.concatenate([p.tokens for p in percepts], axis=1),
        xruns + finished.xruns + server.xruns() - xruns_before,
        lost,
    )


def hear_whole(
    model: PartnerModel, file: Path, server: JackServer, plug_in: Callable[..., FakeMicrophone], expected: np.ndarray
) -> Heard:
    """Hear it, and again where an xrun or the input says that sound was lost on the way.

    Samples that differ though nobody counted a loss are returned at once: that is what these tests are to find.
    """
    before = server.xruns()
    for attempt in range(ATTEMPTS):
        heard = hear_in_real_time(model, file, server, plug_in, name=f"mic{attempt}")
        if np.array_equal(heard.samples, expected) or not (heard.xruns or heard.lost_samples):
            return heard
    lost = f"in each of {ATTEMPTS} runs sound was lost: {heard.xruns} xruns, {heard.lost_samples} samples"
    if server.xruns() - before >= ATTEMPTS:
        pytest.skip(f"this machine is too busy: {lost}, of the server's own {server.xruns() - before} xruns")
    raise AssertionError(lost)


def check_parity(model: PartnerModel, clip: Path, heard: Heard) -> None:
    (stored,) = model.recordings
    LOG.info("%d frames, %d xruns, %d samples lost", len(heard.frame_samples), heard.xruns, heard.lost_samples)
    np.testing.assert_array_equal(heard.samples, read_recording(clip).samples, err_msg="the samples differ")
    np.testing.assert_array_equal(heard.frame_samples, stored.frame_samples, err_msg="the frames differ")
    for source, name in enumerate(SOURCES):
        equal = heard.tokens[source] == stored.tokens[source]
        assert equal.all(), f"{name}: {int(equal.sum())} of {len(equal)} tokens, first at frame {int(equal.argmin())}"


def test_through_a_real_server_every_token_is_that_of_training(
    jack_server: JackServer, fake_microphone: Callable[..., FakeMicrophone], partner: PartnerModel, clip: Path
) -> None:
    check_parity(partner, clip, hear_whole(partner, clip, jack_server, fake_microphone, read_recording(clip).samples))


@pytest.mark.slow
@pytest.mark.parametrize("period", [256, 512, 1024])
def test_whatever_the_period(
    jack_server_at: Callable[..., JackServer],
    fake_microphone: Callable[..., FakeMicrophone],
    partner: PartnerModel,
    clip: Path,
    period: int,
) -> None:
    server = jack_server_at(period=period)
    check_parity(partner, clip, hear_whole(partner, clip, server, fake_microphone, read_recording(clip).samples))


def test_a_server_of_another_rate_leaves_nearly_all_tokens(
    jack_server_at: Callable[..., JackServer],
    fake_microphone: Callable[..., FakeMicrophone],
    partner: PartnerModel,
    clip: Path,
    tmp_path: Path,
) -> None:
    """A sound card at 44.1 kHz gives the same sound; only what the resampler makes of it is a little different."""
    server = jack_server_at(rate_hz=44_100)
    other = at_rate(read_recording(clip).samples, source_rate_hz=RATE, target_rate_hz=44_100)
    first = int(np.flatnonzero(other)[0])
    soundfile.write(tmp_path / "clip44.wav", other[first:], 44_100, subtype="PCM_24")
    heard = hear_whole(partner, tmp_path / "clip44.wav", server, fake_microphone, other[first:])
    np.testing.assert_array_equal(heard.samples, other[first:], err_msg="the samples differ")
    (stored,) = partner.recordings
    offset = first / 44_100 * partner.spec.sample_rate_hz
    agreement = nearest_agreement(
        (stored.frame_samples, heard.frame_samples),
        (stored.tokens, heard.tokens),
        tolerance_samples=partner.spec.encoder.stride_samples / 2,
        offset_samples=offset,
    )
    for name, (equal, asked) in zip(SOURCES, agreement, strict=True):
        LOG.info("%s at 44100 Hz: %d of %d tokens (%.2f %%)", name, equal, asked, 100 * equal / asked)
        assert equal / asked >= RATE_GOAL, f"{name}: {equal} of {asked}"
