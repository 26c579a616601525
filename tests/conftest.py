"""Fixtures for every test: recordings (tests/audio/LICENCE.md says what they are) and partners trained on them."""

import gc
import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# One BLAS thread, set before numpy is loaded: with a test on each core, tests take half the time.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest
import soundfile
from _pytest.runner import runtestprotocol
from filelock import FileLock
from hypothesis import HealthCheck, settings

from benchmarks.random_checkpoint import write_random_checkpoint
from heard_once import hear_once
from jack_server import fake_microphone, jack_server, jack_server_at, jack_starts  # noqa: F401 - fixtures for every test
from musichal.audio.recording import read_recording
from musichal.memory.partner_file import PartnerModel, load_partner, save_partner
from musichal.spec import PerceptionSpec
from musichal.training.trainer import train

AUDIO = Path(__file__).parent / "audio"
_NO_TIME = 0.5  # the share of a test that some process waited for a processor, above which the machine kept no time

# No deadlines: a busy machine is no counterexample. `--hypothesis-profile ci` tries more.
_UNCHECKED = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("fast", deadline=None, suppress_health_check=_UNCHECKED, max_examples=20)
settings.register_profile("ci", deadline=None, suppress_health_check=_UNCHECKED, max_examples=100)
settings.load_profile("fast")

Once = Callable[[str, Callable[[Path], object]], Path]


def pytest_configure() -> None:
    """Restore SIGINT for the programs that tests start, which a shell ignores for jobs in the background; wait for no disk."""
    os.fsync = lambda _descriptor: None  # thousands of files are written, and no power cut comes
    # Bytecode is kept, as by `run.py test`: each of the hundreds of programs that tests start would compile MusicHal again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that take longest: one that began last would go on alone, beside idle workers."""
    items.sort(key=lambda item: -max((seconds for mark in item.iter_markers("slow") for seconds in mark.args), default=0))


def pytest_collection_finish() -> None:
    """Spare the garbage collector the four thousand tests that were collected."""
    gc.collect()
    gc.freeze()


class RunAnewWarning(pytest.PytestWarning):
    """A live test failed while the machine kept no time, and was run anew."""


def _waited_s() -> float:
    """Return for how long processes waited for a processor so far, and for how long other machines had it, by Linux."""
    try:
        pressure = Path("/proc/pressure/cpu").read_text().partition("total=")[2].split()[0]
        stolen = Path("/proc/stat").read_text().split()[8]
    except (OSError, IndexError):
        return 0.0
    return int(pressure) / 1e6 + int(stolen) / os.sysconf("SC_CLK_TCK")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run a live test that failed while the machine kept no time anew, up to twice; warnings at the end of the run say so.

    The machine kept none where its JACK servers counted xruns, or where some process waited for a processor more than half of
    the time. Elsewhere a failure is a failure, and so is the third.
    """
    if item.get_closest_marker("live") is None:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for tries_left in (2, 1, 0):
        item.user_properties.clear()
        began_s, waited_s = time.monotonic(), _waited_s()
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        share = (_waited_s() - waited_s) / (time.monotonic() - began_s)
        xruns = sum(int(str(value)) for name, value in item.user_properties if name == "xruns")
        failed = [str(report.longrepr) for report in reports if report.failed]
        if not failed or not tries_left or not (xruns or share > _NO_TIME):
            break
        why = f"{xruns} xruns, processes waited for a processor {share:.0%} of the time"
        item.warn(RunAnewWarning(f"it failed, and was run anew ({why}):\n{failed[0][-1000:]}"))
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


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


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Once:
    """Make a file once in a run of the tests, whichever worker is first: ``once(name, make)`` returns its path.

    `make` gets the path to write to. The file is shared: it must not be changed.
    """
    folder = tmp_path_factory.getbasetemp()
    shared = (folder if worker_id == "master" else folder.parent) / "shared"
    shared.mkdir(exist_ok=True)

    def make_once(name: str, make: Callable[[Path], object]) -> Path:
        path = shared / name
        with FileLock(f"{path}.lock"):
            if not path.exists():
                part = shared / f"part-{name}"
                make(part)
                part.rename(path)
        return path

    return make_once


@pytest.fixture(scope="session")
def partner_of(once: Once) -> Callable[..., PartnerModel]:
    """Train a partner once in a run: ``partner_of(path, spec)``. It must not be changed: its memory grows by `append`."""

    def train_once(recording: Path, spec: PerceptionSpec | None = None) -> PartnerModel:
        spec = spec or PerceptionSpec()
        content = hashlib.sha256(recording.read_bytes() + spec.fingerprint().encode()).hexdigest()[:16]
        return load_partner(once(f"{content}.hal", lambda path: save_partner(path, train([read_recording(recording)], spec))))

    return train_once


@pytest.fixture(scope="module")
def heard_once() -> Iterator[None]:
    """Hear the same sound once (tests/heard_once.py); for tests of other things than hearing."""
    with pytest.MonkeyPatch.context() as patch:
        hear_once(patch)
        yield


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
def trained_path(once: Once, short_mix: Path) -> Path:
    """The file of a real partner, as its training leaves it. Not to be changed."""
    return once("rock.hal", lambda path: save_partner(path, train([read_recording(short_mix)], PerceptionSpec())))


@pytest.fixture(scope="session")
def trained(trained_path: Path) -> PartnerModel:
    """A real partner. Not to be changed: its memory grows by `append`."""
    return load_partner(trained_path)


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
