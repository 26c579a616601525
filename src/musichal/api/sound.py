"""Sound as it goes in: bundled examples, files, and arrays of any usual layout."""

import warnings
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from musichal.arrays import AnyArray, Float32
from musichal.audio.recording import Recording, ingest, read_recordings
from musichal.errors import InputError
from musichal.text import PathLike

Audio = npt.NDArray[Any]
_MOST_CHANNELS = 64
_EXAMPLES = {"band": "rock140_mix.ogg", "guitar": "rock140_guitar.ogg", "backing": "rock140_backing.ogg"}


def example(name: str) -> Path:
    """Return the path of a bundled recording.

    Parameters
    ----------
    name : {"band", "guitar", "backing"}
        34 s of a rock band, the solo guitar of the same song, or the band without it (C. Viola Iborra, MIT licence).

    Returns
    -------
    pathlib.Path

    Raises
    ------
    InputError
        For another name.

    Examples
    --------
    >>> import musichal as mh
    >>> mh.example("guitar").name
    'rock140_guitar.ogg'
    """
    if name not in _EXAMPLES:
        raise InputError(f"unknown example {name!r}. Available: {', '.join(_EXAMPLES)}")
    return Path(str(files("musichal") / "demo" / _EXAMPLES[name]))


def read_audio(path: PathLike) -> tuple[Float32, int]:
    """Read a sound file as MusicHal hears it: mono, on a grid of 24 bits.

    Parameters
    ----------
    path : str or path-like
        WAV, AIFF, FLAC, OGG, MP3, CAF or AU.

    Returns
    -------
    y : ndarray of shape (n,), float32
    sr : int
        Sample rate in Hz.

    Raises
    ------
    InputError
        If the file cannot be read, is empty or is damaged.

    Examples
    --------
    >>> import musichal as mh
    >>> y, sr = mh.read_audio(mh.example("guitar"))
    >>> y.dtype, sr
    (dtype('float32'), 44100)
    """
    (recording,) = read_recordings([path], warn=warn_of)
    return recording.samples, recording.sample_rate_hz


def warn_of(text: str) -> None:
    """Warn of what is wrong with a recording that is heard."""
    warnings.warn(text, UserWarning, stacklevel=4)


def floats_of(y: Audio) -> AnyArray:
    """Return an array of sound as floats of shape (n,) or (n, channels); integers are scaled to full scale."""
    y = np.asarray(y)
    if y.ndim not in (1, 2) or not np.issubdtype(y.dtype, np.number) or np.issubdtype(y.dtype, np.complexfloating):
        raise InputError(f"sound must be an array of shape (n,) or (n, channels), got shape {y.shape} of {y.dtype}")
    if y.ndim == 2 and y.shape[0] < y.shape[1] and y.shape[0] <= _MOST_CHANNELS:
        y = y.T
    if np.issubdtype(y.dtype, np.integer):
        y = y / float(np.iinfo(y.dtype).max + 1)
    return y if y.dtype == np.float32 else y.astype(np.float64)


def sound_of(y: Audio) -> Float32:
    """Return sound as hearing takes it; raises `InputError` where there is none, or it is not finite."""
    samples = ingest(floats_of(y))
    if not samples.size:
        raise InputError("the sound is empty")
    return samples


def rate_of(sr: int) -> int:
    """Return a sample rate, checked."""
    if isinstance(sr, bool) or int(sr) != sr or sr <= 0:
        raise InputError(f"sr must be a positive whole number of Hz, got {sr!r}")
    return int(sr)


def seed_of(seed: int) -> int:
    """Return a seed, checked."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed must be a whole number from 0, got {seed!r}")
    return int(seed)


def as_recording(y: Audio, sr: int, *, name: str) -> Recording:
    """Return sound as a recording, for the trainer."""
    return Recording(name, rate_of(sr), sound_of(y))
