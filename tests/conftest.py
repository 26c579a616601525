"""Fixtures that every test may use: where the real recordings are. What they are: tests/audio/LICENCE.md."""

from pathlib import Path

import pytest

AUDIO = Path(__file__).parent / "audio"


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
