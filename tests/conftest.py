"""Fixtures that every test may use: where the real recordings are. What they are: tests/audio/LICENCE.md."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

# As the program does (`own_process.use_one_thread`), before numpy is loaded: on a busy machine tests take half the time.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, settings

from benchmarks.random_checkpoint import write_random_checkpoint
from jack_server import fake_microphone, jack_server, jack_server_at  # noqa: F401 - fixtures for every test
from musichal.audio.recording import read_recording
from musichal.memory.partner_file import PartnerModel, save_partner
from musichal.spec import PerceptionSpec
from musichal.training.trainer import train

AUDIO = Path(__file__).parent / "audio"

# A busy machine is no counterexample.
settings.register_profile("musichal", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("musichal")


def pytest_configure() -> None:
    """Let programs that tests start hear Ctrl-C, also where a shell that runs the tests behind itself has it ignored."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def audio_dir() -> Path:
    """Folder of the clips: OGG Vorbis, 44.1 kHz, among them {rock140, ballad95}_{guitar, backing, mix}.ogg, mono."""
    return AUDIO


@pytest.fixture(scope="session")
def rock_guitar(audio_dir: Path) -> Path:
    return audio_dir / "rock140_guitar.ogg"


@pytest.fixture(scope="session")
def rock_mix(audio_dir: Path) -> Path:
    return audio_dir / "rock140_mix.ogg"


@pytest.fixture(scope="session")
def ballad_guitar(audio_dir: Path) -> Path:
    return audio_dir / "ballad95_guitar.ogg"


@pytest.fixture(scope="session")
def ballad_mix(audio_dir: Path) -> Path:
    return audio_dir / "ballad95_mix.ogg"


def _cut(source: Path, target: Path, first_s: float, last_s: float) -> Path:
    samples, rate = soundfile.read(source, dtype="float32")
    soundfile.write(target, samples[round(first_s * rate) : round(last_s * rate)], rate, subtype="PCM_16")
    return target


@pytest.fixture(scope="session")
def short_mix(tmp_path_factory: pytest.TempPathFactory, rock_mix: Path) -> Path:
    """Ten seconds of the rock band: what `trained` was trained on."""
    return _cut(rock_mix, tmp_path_factory.mktemp("mix") / "mix.wav", 8, 18)


@pytest.fixture(scope="session")
def short_guitar(tmp_path_factory: pytest.TempPathFactory, rock_guitar: Path) -> Path:
    """Nine seconds of its guitar, the last second of them digital silence."""
    path = _cut(rock_guitar, tmp_path_factory.mktemp("guitar") / "guitar.wav", 8, 17)
    samples, rate = soundfile.read(path, dtype="float32")
    samples[-rate:] = np.float32(0)
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return path


@pytest.fixture(scope="session")
def trained(short_mix: Path) -> PartnerModel:
    """A real partner. Not to be changed: its memory grows by `append`."""
    return train([read_recording(short_mix)], PerceptionSpec())


@pytest.fixture(scope="session")
def trained_path(tmp_path_factory: pytest.TempPathFactory, trained: PartnerModel) -> Path:
    """The file of `trained`. Not to be changed."""
    path = tmp_path_factory.mktemp("partner") / "rock.hal"
    save_partner(path, trained)
    return path


@pytest.fixture(scope="session")
def tiny_mert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint in the layout of MERT-v1-95M, two narrow layers; writing it needs no torch."""
    folder = tmp_path_factory.mktemp("mert") / "tiny-mert"
    write_random_checkpoint(folder, tiny=True, safe=True)
    return folder


@pytest.fixture(scope="session", autouse=True)
def learned_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """MusicHal's cache for the tests that convert encoders: converted once, never in the user's own folder."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("MUSICHAL_CACHE")
    os.environ["MUSICHAL_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["MUSICHAL_CACHE"]
    else:
        os.environ["MUSICHAL_CACHE"] = before
