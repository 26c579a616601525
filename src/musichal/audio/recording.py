"""Recordings from disk: found, checked, and brought to the form that the front end takes.

That form is what `ingest` returns: mono, at most full scale, on a grid of 24 bits, for any file or sound card. Live
blocks and files pass through the same function, and FLAC of 24 bits holds its result without loss, so a partner keeps exactly
the samples that it was trained on.

libsndfile reads a WAV file that was cut in half without an error, pads an MP3 file with silence, and plays over a hole in an
Ogg file. So `missing_bytes` compares what the container promises with what the file holds: the size of the data chunk (RIFF,
RF64, Wave64, AIFF, CAF, AU), the page numbers and the end-of-stream flag of Ogg (RFC 3533, section 6), the byte count of a
Xing header in MP3. An MP3 file without one promises nothing. FLAC names its length in samples.
"""

import hashlib
import math
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import soundfile

from musichal.arrays import Float32, Float64
from musichal.audio.files import flac_holds_rate
from musichal.audio.keyboard import MidiTake
from musichal.audio.levels import LevelMeter, Levels, decibels
from musichal.errors import InputError
from musichal.text import PathLike, printable, reason

AUDIO_SUFFIXES = frozenset(
    (".wav", ".wave", ".rf64", ".w64", ".aif", ".aiff", ".aifc", ".caf", ".au", ".flac", ".ogg", ".oga", ".opus", ".mp3")
)
MIDI_SUFFIXES = frozenset((".mid", ".midi", ".smf", ".rmi", ".kar"))
"""What is taken from a folder. A file that is named is read whatever its suffix."""
LOWEST_RATE_HZ = 8_000
HIGHEST_RATE_HZ = 192_000
MAX_SAMPLES = 4 * 3600 * 48_000
"""Longest recording: four hours at 48 kHz, 2.8 GB of memory."""

_GRID = 2.0**23
_BLOCK_VALUES = 1 << 18
_CLIPPED_SHARE = 1e-5
_DC_OFFSET = 0.005
_QUIET_DB = -40.0
_CANCELLED_RATIO = 0.01
_MAX_CHUNKS = 10_000  # a hostile file of empty chunks must not keep us for hours
_MP3_SLACK_BYTES = 2_048  # encoders disagree on what they count, by up to about two frames
_W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_W64_DATA = bytes.fromhex("64617461f3acd3118cd100c04f8edb8a")
_PCM_BITS = {"PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
_FORMATS = "WAV, AIFF, FLAC, OGG, MP3, CAF or AU"


@dataclass(frozen=True)
class Recording:
    """A recording as it will be heard.

    `samples` has shape (n,): float32 mono on the 24-bit grid. `warnings` are sentences for the user on what is wrong with
    the source, most important first. `take` is what a MIDI file says of it, None for sound.
    """

    name: str
    sample_rate_hz: int
    samples: Float32
    warnings: tuple[str, ...] = ()
    take: MidiTake | None = None

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.samples.size / self.sample_rate_hz

    @cached_property
    def digest(self) -> str:
        """`samples_digest` of the samples."""
        return samples_digest(self.samples)


def ingest(block: npt.NDArray[np.float32] | Float64) -> Float32:
    """Return a block of sound in the form that the front end takes: mono, in [-1, 1), on the 24-bit grid.

    The mean over the channels, in float64 and always added in their order, is limited to [-1, 1 - 2**-23] and rounded to the
    nearest multiple of 2**-23 (ties to even). Each frame depends on itself alone, so a stream may be cut anywhere. Raises
    `InputError` where a sample is NaN or infinite.

    Parameters
    ----------
    block
        Shape (frames,) or (frames, channels), float32 or float64, full scale 1; `frames` may be 0.

    Returns
    -------
    Shape (frames,), float32. Applying `ingest` again changes nothing.
    """
    if block.dtype not in (np.float32, np.float64):
        raise TypeError(f"samples must be float32 or float64, got {block.dtype}")
    if block.ndim not in (1, 2) or (block.ndim == 2 and block.shape[1] == 0):
        raise ValueError(f"samples must have shape (frames,) or (frames, channels), got {block.shape}")
    if not np.isfinite(block).all():
        raise InputError("the sound has NaN or infinite samples")
    if block.ndim == 1:
        mono = block.astype(np.float64)
    else:
        # One channel after the other: numpy's own mean adds in an order that depends on the memory layout.
        mono = block[:, 0].astype(np.float64)
        with np.errstate(over="ignore"):  # near 1e308 a sum may reach infinity, and is limited like any other
            for channel in range(1, block.shape[1]):
                mono += block[:, channel]
        mono /= block.shape[1]
    np.clip(mono, -1.0, 1.0 - 1.0 / _GRID, out=mono)
    mono *= _GRID
    np.rint(mono, out=mono)
    mono /= _GRID
    mono += 0.0  # -0.0 becomes 0.0, which integers, and so FLAC, can hold
    return mono.astype(np.float32)


def samples_digest(samples: Float32) -> str:
    """Return the SHA-256 of samples (n,) on the 24-bit grid, as integers in little-endian int32."""
    digest = hashlib.sha256()
    for start in range(0, len(samples), _BLOCK_VALUES):
        digest.update((samples[start : start + _BLOCK_VALUES] * np.float32(_GRID)).astype("<i4").tobytes())
    return digest.hexdigest()


def collect_recordings(paths: Iterable[PathLike]) -> list[Path]:
    """Return the sound files that `paths` name: files as given, folders searched, in a fixed order.

    Folders are searched to any depth, sorted by name, for known suffixes; hidden files and folders are passed over, and
    links to folders not followed. A file reached twice is taken once, at its first place. Raises `InputError` where
    nothing was given, a path does not exist, or a folder holds no recording.
    """
    found: dict[Path, Path] = {}
    for given in paths:
        path = Path(given)
        with _clear_errors(path):
            if path.is_dir():
                files = _search(path)
                if not files:
                    raise InputError(f"{printable(path)}: the folder holds no recording ({_FORMATS})")
            elif path.exists():
                files = [path]
            else:
                raise InputError(f"{printable(path)}: no such file or folder")
            for file in files:
                found.setdefault(file.resolve(), file)
    if not found:
        raise InputError("no recording was given")
    return list(found.values())


def read_recording(path: PathLike, *, min_duration_s: float = 0.0, max_samples: int = MAX_SAMPLES) -> Recording:
    """Read a sound file, block by block, into the form in which it is heard.

    Any number of channels, 8 to 192 kHz and every sample format of libsndfile are heard; so are clipped recordings and
    those with a DC offset, with a warning. Raises `InputError`, one line naming the file, where it is missing, a folder,
    empty, not sound, cut short or damaged, shorter than `min_duration_s`, longer than `max_samples`, silent throughout,
    or has NaN or infinite samples. A MIDI file is rendered.
    """
    file = Path(path)
    if file.suffix.lower() in MIDI_SUFFIXES and file.is_file():
        from musichal.audio.midi_recording import read_midi_recording

        return _long_enough(read_midi_recording(file), file, min_duration_s)
    with _clear_errors(file):
        _check_file(file)
        with soundfile.SoundFile(os.fspath(file)) as source:
            rate = source.samplerate
            _check_rate(rate)
            recording = _read(source, printable(file.name), max_samples)
    return _long_enough(recording, file, min_duration_s)


def _long_enough(recording: Recording, file: Path, min_duration_s: float) -> Recording:
    if recording.duration_s < min_duration_s:
        raise _refused(file, f"lasts {recording.duration_s:.3g} s; a recording must last at least {min_duration_s:.3g} s")
    return recording


class _RefusedError(Exception):
    """Why a file is refused, without its name yet."""


def _refused(path: Path, why: str) -> InputError:
    return InputError(f"{printable(path)}: {why}")


@contextmanager
def _clear_errors(path: Path) -> Iterator[None]:
    """Turn whatever reading a file may raise into one line that names it."""
    try:
        yield
    except _RefusedError as error:
        raise _refused(path, str(error)) from error
    except soundfile.SoundFileError as error:
        raise _refused(path, "its sound cannot be read: damaged, cut short or of an unknown kind") from error
    except MemoryError as error:
        raise _refused(path, "does not fit into the memory of this machine: cut it into parts") from error
    except OSError as error:
        raise _refused(path, reason(error)) from error


def _search(folder: Path) -> list[Path]:
    files: list[Path] = []

    def stop(error: OSError) -> None:
        raise error

    for parent, folders, names in os.walk(folder, onerror=stop):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [
            Path(parent, name)
            for name in names
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES | MIDI_SUFFIXES  # noqa: PTH122
        ]
    return sorted(files, key=lambda file: file.relative_to(folder).parts)


def _check_file(file: Path) -> None:
    """Refuse what libsndfile would accept silently, or refuse with an error number."""
    if file.is_dir():
        raise _RefusedError("is a folder, not a recording")
    if not file.is_file():
        raise _RefusedError("is not an ordinary file" if file.exists() else "no such file")
    if file.suffix.lower() == ".raw":
        raise _RefusedError("raw samples do not say what they are: save them as WAV")
    with file.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        if size == 0:
            raise _RefusedError("the file is empty")
        stream.seek(0)
        if not looks_like_audio(stream.read(16)):
            raise _RefusedError(f"is not a recording in a known format ({_FORMATS})")
        if missing_bytes(stream, size):
            raise _RefusedError("the file is cut short or damaged: part of the sound that it promises is missing")


def _check_rate(rate: int) -> None:
    if not LOWEST_RATE_HZ <= rate <= HIGHEST_RATE_HZ:
        raise _RefusedError(f"has a sample rate of {rate} Hz; supported are {LOWEST_RATE_HZ} to {HIGHEST_RATE_HZ} Hz")
    if not flac_holds_rate(rate):  # the partner could not keep it
        raise _RefusedError(f"has a sample rate of {rate} Hz; above 65535 Hz it must be a multiple of 10 Hz")


def _read(source: soundfile.SoundFile, name: str, max_samples: int) -> Recording:
    rate, channels, promised = source.samplerate, source.channels, source.frames
    if promised > 1 << 48:  # libsndfile cannot read FLAC that came out of a pipe
        raise _RefusedError("does not say how long it is: convert it to WAV or encode it again")
    if promised > max_samples:
        minutes = max_samples / rate / 60
        raise _RefusedError(f"is longer than the {minutes:.4g} minutes supported at {rate} Hz: cut it into parts")
    samples = np.empty(promised, dtype=np.float32)
    block: Float64 = np.empty((max(1, _BLOCK_VALUES // channels), channels))
    meter = LevelMeter(full_scale=_full_scale(source.subtype))
    done = 0
    while True:
        block.fill(np.nan)  # libsndfile does not tell how much it decoded before it failed: the block does
        try:
            part: Float64 = source.read(out=block)
        except soundfile.SoundFileError as error:
            done += int(np.count_nonzero(~np.isnan(block).any(axis=1)))
            where = f"{done / rate:.1f} of {promised / rate:.1f} s can be read"
            raise _RefusedError(f"is damaged or cut short: {where}") from error
        if not len(part):
            break
        part = part[: promised - done]
        bad = ~np.isfinite(part).all(axis=1)
        if bad.any():
            first_s = (done + int(bad.argmax())) / rate
            raise _RefusedError(f"has NaN or infinite samples, the first at {first_s:.3f} s")
        mono = ingest(part)
        samples[done : done + len(mono)] = mono
        meter.see(part, mono)
        done += len(part)
        if done == promised:
            break
    if done == 0:
        raise _RefusedError("holds no sound: its length is zero")
    if done < promised and source.format != "MP3":  # the length of an MP3 file may be an estimate
        raise _RefusedError(f"is damaged or cut short: {done / rate:.1f} of {promised / rate:.1f} s can be read")
    if done < samples.size:
        samples = samples[:done].copy()
    samples.flags.writeable = False
    levels = meter.take()
    if levels.mono_peak == 0:
        raise _RefusedError(
            "is digital silence throughout" if levels.peak < 1 / _GRID else "is silent in mono: its channels cancel one another"
        )
    return Recording(name, rate, samples, tuple(_warnings(levels)))


def _warnings(levels: Levels) -> Iterator[str]:
    share = levels.clipped / levels.samples
    if levels.peak > 1:
        yield f"peaks at {levels.peak_db:+.1f} dBFS: what is above full scale is cut off"
    elif share > _CLIPPED_SHARE:
        yield f"clipped: {100 * share:.2g} % of it is flat at full scale"
    if abs(levels.dc_offset) > _DC_OFFSET:
        yield f"DC offset of {levels.dc_offset:+.3f}"
    if decibels(levels.mono_peak) < _QUIET_DB:
        yield f"very quiet: its peak is {decibels(levels.mono_peak):.0f} dBFS"
    if levels.mono_power < _CANCELLED_RATIO * levels.power:
        yield "its channels almost cancel one another in mono: is one of them inverted?"


def _full_scale(subtype: str) -> float:
    """Return the level of the highest code; float and lossy files have none, and reach 1 or more."""
    if subtype in ("PCM_S8", "PCM_U8"):
        return math.inf  # steps so coarse that any loud wave stays on the last one
    bits = _PCM_BITS.get(subtype)
    return 1.0 if bits is None else 1.0 - 2.0 ** (1 - bits)


@dataclass(frozen=True)
class _Chunks:
    """How a family of containers lays out its chunks."""

    data_id: bytes
    first: int
    size_format: str
    size_includes_header: bool = False
    alignment: int = 2
    unknown_sizes: tuple[int, ...] = (0, 0xFFFFFFFF)  # what a program writes that streams into a pipe


_FAMILIES = {
    b"RIFF": _Chunks(b"data", 12, "<I"),
    b"RF64": _Chunks(b"data", 12, "<I"),
    b"RIFX": _Chunks(b"data", 12, ">I"),
    b"FORM": _Chunks(b"SSND", 12, ">I"),
    b"caff": _Chunks(b"data", 8, ">q", alignment=1, unknown_sizes=(-1,)),
    b"riff": _Chunks(_W64_DATA, 40, "<Q", size_includes_header=True, alignment=8, unknown_sizes=(0, 24)),
}


def looks_like_audio(head: bytes) -> bool:
    """Return whether the first bytes of a file (16 or more) are those of a format that is read here."""
    if head[:4] in (b"RIFF", b"RIFX", b"RF64"):
        return head[8:12] == b"WAVE"
    if head[:4] == b"FORM":
        return head[8:12] in (b"AIFF", b"AIFC")
    if head[:4] in (b"fLaC", b"OggS", b"caff", b".snd") or head[:3] == b"ID3":
        return True
    return head[:16] == _W64_RIFF or _is_mpeg_frame(head)


def missing_bytes(stream: BinaryIO, size: int) -> int:
    """Return how many bytes a sound file of `size` bytes lacks of what it promises; 0 where it promises nothing.

    For Ogg, which numbers its pages and says which is the last, the answer is 1 where one is missing.
    """
    stream.seek(0)
    head = stream.read(16)
    chunks = _FAMILIES.get(head[:4])
    if chunks is not None:
        return _missing_of_chunk(stream, size, chunks)
    if head[:4] == b"OggS":
        return _missing_of_ogg(stream, size)
    if head[:4] == b".snd":
        offset, length = struct.unpack(">II", head[4:12].ljust(8, b"\0"))
        return 0 if length == 0xFFFFFFFF else max(0, offset + length - size)
    return _missing_of_mp3(stream, size)


def _missing_of_chunk(stream: BinaryIO, size: int, chunks: _Chunks) -> int:
    id_bytes, size_bytes = len(chunks.data_id), struct.calcsize(chunks.size_format)
    header_bytes, position, long_size = id_bytes + size_bytes, chunks.first, None
    for _ in range(_MAX_CHUNKS):
        stream.seek(position)
        header = stream.read(header_bytes)
        if len(header) < header_bytes:
            return 0
        (length,) = struct.unpack(chunks.size_format, header[id_bytes:])
        if header[:4] == b"ds64":  # RF64 keeps its 64-bit sizes here: the file's, then the data's
            sizes = stream.read(16)
            long_size = int.from_bytes(sizes[8:16], "little") if len(sizes) == 16 else None
        if header[:id_bytes] == chunks.data_id:
            if length == 0xFFFFFFFF and long_size is not None:
                length = long_size
            if length in chunks.unknown_sizes:
                return 0
            end = position + length + (0 if chunks.size_includes_header else header_bytes)
            return max(0, end - size)
        step = length if chunks.size_includes_header else header_bytes + length
        position += max(header_bytes, -(-step // chunks.alignment) * chunks.alignment)
        if position >= size:
            return 0
    return 0


def _missing_of_ogg(stream: BinaryIO, size: int) -> int:
    """Walk the pages: one behind the other, numbered without a gap in each logical stream, the last marked as last."""
    position, ended = 0, False
    expected: dict[bytes, int] = {}
    while position < size:
        stream.seek(position)
        page = stream.read(27 + 255)
        if page[:5] != b"OggS\0" or len(page) < 27:
            break
        lengths = page[27 : 27 + page[26]]
        position += 27 + len(lengths) + sum(lengths)
        serial, (number,) = page[14:18], struct.unpack("<I", page[18:22])
        first = bool(page[5] & 2)
        if len(lengths) < page[26] or position > size or (not first and number != expected.get(serial)):
            return 1
        expected[serial], ended = number + 1, bool(page[5] & 4)
    return 0 if ended else 1  # a tag may follow the last page


def _missing_of_mp3(stream: BinaryIO, size: int) -> int:
    stream.seek(0)
    tag = stream.read(10)
    start = 0
    if tag[:3] == b"ID3" and len(tag) == 10:  # its size has seven bits in each byte
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(tag[6:10], (21, 14, 7, 0), strict=True))
    stream.seek(start)
    frame = stream.read(64)
    if not _is_mpeg_frame(frame):
        return 0
    for name in (b"Xing", b"Info"):
        at = frame.find(name)
        if at < 0 or at + 16 > len(frame):
            continue
        (flags,) = struct.unpack(">I", frame[at + 4 : at + 8])
        if flags & 2:
            field = at + 8 + (4 if flags & 1 else 0)
            (promised,) = struct.unpack(">I", frame[field : field + 4])
            missing: int = start + promised - size
            return missing if missing > _MP3_SLACK_BYTES else 0
    return 0


def _is_mpeg_frame(head: bytes) -> bool:
    """Eleven bits of sync, then no reserved version, layer, bit rate or sample rate."""
    return (
        len(head) >= 4
        and head[0] == 0xFF
        and head[1] & 0xE0 == 0xE0
        and head[1] & 0x18 != 0x08
        and head[1] & 0x06 != 0
        and head[2] & 0xF0 != 0xF0
        and head[2] & 0x0C != 0x0C
    )
