"""The input of a session folder (see `musichal.live.session.session`): chunks of sound that are one recording."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from musichal.arrays import Float32, SampleStore
from musichal.audio.files import decode_flac
from musichal.audio.midi_take import Control, MidiTake, played_of
from musichal.errors import InputError
from musichal.note import HeardNote
from musichal.text import open_file, parse_json, printable, reason

SETTINGS, INPUT, EVENT_LOG = "settings.json", "input", "transcript.jsonl"
FULL_SCALE = np.float32(2.0**23)
LARGEST_CHUNK_SAMPLES = 120 * 192_000


def is_session(folder: Path) -> bool:
    """Return whether a folder is a session's."""
    return (folder / SETTINGS).is_file() and (folder / INPUT).is_dir()


def read_input(folder: Path, *, max_samples: int) -> tuple[Float32, int]:
    """Return the whole input of a session, shape (n,), maybe empty, and its rate in Hz.

    Raises `InputError` where the session is damaged, or its input is longer than `max_samples`.
    """
    declared, rate_hz = input_length(folder)
    if declared > max_samples:
        raise InputError(f"{printable(folder)} holds more sound than can be read at once")
    store = SampleStore()
    for chunk in read_chunks(folder, rate_hz):
        store.append(chunk)
    return store.samples(), rate_hz


def input_length(folder: Path) -> tuple[int, int]:
    """Return how many samples the input of a session declares, and its rate in Hz; raises `InputError` where it is damaged."""
    try:
        table: Any = parse_json(read_bytes(folder / SETTINGS), max_depth=8)
        rate_hz = table["sample_rate_hz"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{printable(folder / SETTINGS)} is not a session's") from error
    if type(rate_hz) is not int:
        raise InputError(f"{printable(folder / SETTINGS)}: sample_rate_hz is of the wrong type")
    return sum(chunk_samples(path, rate_hz) for path in chunks_of(folder)), rate_hz


def read_played(folder: Path) -> MidiTake | None:
    """Return what a MIDI player played in a session, exactly; None where onsets were found in the sound.

    Raises `InputError` where the log is damaged otherwise than by being cut off.
    """
    notes: list[HeardNote] = []
    hits: list[HeardNote] = []
    controls: list[Control] = []
    is_midi = False
    for number, line in whole_lines(folder / EVENT_LOG):
        if b'"notes":' not in line and b'"onset":' not in line:
            continue
        try:
            values: Any = parse_json(line, max_depth=6)
            if "onset" in values and len(values["onset"]) == 2:
                return None  # of a sound, or of one beside the keys
            if "notes" in values:
                is_midi = True
                played = played_of(values["notes"], values)
                notes += played[0]
                hits += played[1]
                controls += played[2]
        except (ValueError, TypeError) as error:
            raise InputError(f"{printable(folder / EVENT_LOG)}: line {number} is not an entry: {error}") from error
    if not is_midi:
        return None
    struck, beaten = (tuple(sorted(some, key=lambda note: (note.onset_s, note.pitch))) for some in (notes, hits))
    return MidiTake(struck, beaten, np.zeros(0), np.zeros(0), controls=tuple(controls))


def whole_lines(path: Path, *, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield number, from 1, and content of each whole line from byte `start` on; nothing where there is no file."""
    if not path.is_file():
        return
    try:
        with path.open("rb") as stream:
            stream.seek(start)
            for number, line in enumerate(stream, start=1):
                if line.endswith(b"\n"):
                    yield number, line[:-1]
    except OSError as error:
        raise InputError(f"cannot read {printable(path)}: {reason(error)}") from error


def read_bytes(path: Path) -> bytes:
    """Return the content of a file; raise `InputError` if it cannot be read."""
    try:
        with open_file(path) as stream:
            return stream.read()
    except OSError as error:
        raise InputError(f"cannot read {printable(path)}: {reason(error)}") from error


def read_chunks(folder: Path, sample_rate_hz: int) -> Iterator[Float32]:
    """Yield the input of a session chunk by chunk, the last one as far as it was written.

    Raises `InputError` for what is damaged otherwise than by being cut off.
    """
    for path in chunks_of(folder):
        yield read_chunk(path, sample_rate_hz)


def read_chunk(path: Path, sample_rate_hz: int) -> Float32:
    """Return the sound of a chunk; raise `InputError` where it is damaged."""
    chunk_samples(path, sample_rate_hz)
    if path.suffix == ".flac":
        try:
            return decode_flac(read_bytes(path), max_samples=LARGEST_CHUNK_SAMPLES)[0]
        except InputError as error:
            raise InputError(f"{printable(path)}: {error}") from error
    data = read_bytes(path)
    grid = np.frombuffer(data[: len(data) // 4 * 4], dtype="<i4")
    if np.abs(grid.astype(np.int64)).max(initial=0) > 1 << 23:
        raise InputError(f"{printable(path)} does not hold samples of 24 bits")
    return (grid / FULL_SCALE).astype(np.float32)


def chunks_of(folder: Path) -> Iterator[Path]:
    """Yield the files of the chunks, in order."""
    number = 0
    while True:
        paths = [folder / INPUT / f"{number:05d}{suffix}" for suffix in (".flac", ".raw")]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            return
        yield path
        number += 1


def chunk_samples(path: Path, sample_rate_hz: int) -> int:
    """Return how many samples a chunk declares, without decoding it; raise `InputError` if they cannot be the session's."""
    if path.suffix == ".raw":
        count = path.stat().st_size // 4
    else:
        try:
            with path.open("rb") as stream, soundfile.SoundFile(stream) as info:  # which takes any name
                count = int(info.frames)
        except (soundfile.SoundFileError, OSError) as error:
            raise InputError(f"{printable(path)} is not FLAC data, or is damaged") from error
        if info.format != "FLAC":
            raise InputError(f"{printable(path)} is not FLAC data")
        if info.samplerate != sample_rate_hz:
            raise InputError(f"{printable(path)} has another sample rate than the session")
    if count > LARGEST_CHUNK_SAMPLES:
        raise InputError(f"{printable(path)} is longer than a chunk of a session can be")
    return count
