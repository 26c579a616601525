"""Recordings from disk: found, checked, and brought to the form that the front end takes.

That form is what `ingest` returns: mono, at most full scale, on a grid of 24 bits, for any file or sound card. Live
blocks and files pass through the same function, and FLAC of 24 bits holds its result without loss, so a partner keeps exactly
the samples that it was trained on.

What a file holds is found and decoded by `musichal.audio.decoding`, whatever its header says.
A file that is cut short is heard as far as it goes, with a warning that has both lengths.
"""

import hashlib
import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import soundfile

from musichal.arrays import Float32, Float64, SampleStore
from musichal.audio.decoding import Sound, UndecodableError, contents, decode, decode_foreign
from musichal.audio.files import flac_holds_rate
from musichal.audio.levels import LevelMeter, Levels, decibels
from musichal.audio.midi_take import MidiChoice, MidiTake
from musichal.audio.recording_files import FORMATS, FoundFiles, find_recordings, is_midi, say_passed_over
from musichal.audio.resample import StreamResampler
from musichal.audio.session_input import is_session, read_input, read_played
from musichal.audio.streams import Contents, Foreign, Part
from musichal.errors import InputError, MissingExtraError
from musichal.text import PathLike, counted, printable, reason

CUT = "is cut short or damaged"
"""So the warning begins that `strict` makes a refusal."""
LOWEST_RATE_HZ = 8_000
HIGHEST_RATE_HZ = 192_000
MAX_SAMPLES = 8 * 3600 * 192_000
"""Longest recording: eight hours at 192 kHz; what is longer than some minutes lies in a temporary file."""

_GRID = 2.0**23
_BLOCK_VALUES = 1 << 18
_PEAK_SAMPLES = 1024
_CLICK_RATIO = 32.0
_CLIPPED_SHARE = 1e-5
_DC_OFFSET = 0.005
_QUIET_DB = -40.0
_CANCELLED_RATIO = 0.01


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

    * `block`: Shape (frames,) or (frames, channels), float32 or float64, full scale 1; `frames` may be 0.
    """
    if block.dtype not in (np.float32, np.float64):
        raise TypeError(f"samples must be float32 or float64, got {block.dtype}")
    if block.ndim not in (1, 2) or (block.ndim == 2 and block.shape[1] == 0):
        raise ValueError(f"samples must have shape (frames,) or (frames, channels), got {block.shape}")
    if not np.isfinite(block).all():
        raise InputError("the sound has NaN or infinite samples")
    mono = mean_of_channels(block)
    np.clip(mono, -1.0, 1.0 - 1.0 / _GRID, out=mono)
    mono *= _GRID
    np.rint(mono, out=mono)
    mono /= _GRID
    mono += 0.0  # -0.0 becomes 0.0, which integers, and so FLAC, can hold
    return mono.astype(np.float32)


def mean_of_channels(block: npt.NDArray[np.float32] | Float64) -> Float64:
    """Return the mean over the channels of a block (frames,) or (frames, channels), always added in their order."""
    if block.ndim == 1:
        return block.astype(np.float64)
    # One channel after the other: numpy's own mean adds in an order that depends on the memory layout.
    mono = block[:, 0].astype(np.float64)
    with np.errstate(over="ignore"):  # near 1e308 a sum may reach infinity, and is limited like any other
        for channel in range(1, block.shape[1]):
            mono += block[:, channel]
    mono /= block.shape[1]
    return mono


def samples_digest(samples: Float32) -> str:
    """Return the SHA-256 of samples (n,) on the 24-bit grid, as integers in little-endian int32."""
    digest = hashlib.sha256()
    for start in range(0, len(samples), _BLOCK_VALUES):
        digest.update((samples[start : start + _BLOCK_VALUES] * np.float32(_GRID)).astype("<i4").tobytes())
    return digest.hexdigest()


def read_recording(
    path: PathLike,
    *,
    min_duration_s: float = 0.0,
    max_samples: int = MAX_SAMPLES,
    strict: bool = False,
    channels: Callable[[Float64], Float64] | None = None,
    progress: Callable[[float], None] | None = None,
    midi: MidiChoice = MidiChoice(),  # noqa: B008 - frozen
) -> Recording:
    """Read a sound file, block by block, into the form in which it is heard.

    Any number of channels, 8 to 192 kHz and every sample format of libsndfile are heard; so are clipped recordings, those
    with a DC offset, and what can be read of those that are cut short or damaged, with a warning. What is above full scale is
    turned down as a whole. Raises `InputError`, one line naming the file, where it is missing, a folder, empty, not sound,
    shorter than `min_duration_s`, longer than `max_samples`, silent throughout, or has NaN or infinite samples; where `strict`,
    also if it is cut short. Of a MIDI file, what `midi` chooses is rendered.
    `channels` takes blocks of shape (n, channels) and returns what shall be heard of them; `progress` receives the share that
    is done. The folder of a session is read as what its player played.
    """
    file = Path(path)
    if is_midi(file) and file.is_file():
        from musichal.audio.midi_recording import read_midi_recording

        return _long_enough(read_midi_recording(file, midi), file, min_duration_s)
    with _clear_errors(file):
        if file.is_dir() and is_session(file):
            return _long_enough(_of_session(file, max_samples), file, min_duration_s)
        _check_file(file)
        how = _How(max_samples, channels or (lambda block: block), progress or (lambda _share: None))
        recording = _read(file, how, strict=strict)
    return _long_enough(recording, file, min_duration_s)


def _of_session(folder: Path, max_samples: int) -> Recording:
    samples, rate_hz = read_input(folder, max_samples=max_samples)
    if not samples.any():
        raise _RefusedError("nothing was played in this session")
    return Recording(printable(folder.resolve().name), rate_hz, samples, take=read_played(folder))


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
    except (UndecodableError, MissingExtraError) as error:
        raise _refused(path, str(error)) from error
    except soundfile.SoundFileError as error:
        raise _refused(path, "its sound cannot be read: damaged, cut short or of an unknown kind") from error
    except MemoryError as error:
        raise _refused(path, "does not fit into the memory of this machine: cut it into parts") from error
    except OSError as error:
        raise _refused(path, reason(error)) from error


def _check_file(file: Path) -> None:
    """Refuse what is no file with sound in it, before it is opened."""
    if file.is_dir():
        raise _RefusedError("is a folder, not a recording")
    if not file.is_file():
        raise _RefusedError("is not an ordinary file" if file.exists() else "no such file")
    if file.suffix.lower() == ".raw":
        raise _RefusedError("raw samples do not say what they are: save them as WAV")
    if file.stat().st_size == 0:
        raise _RefusedError("the file is empty")


def _check_rate(rate: int) -> None:
    if not LOWEST_RATE_HZ <= rate <= HIGHEST_RATE_HZ:
        raise _RefusedError(f"has a sample rate of {rate} Hz; supported are {LOWEST_RATE_HZ} to {HIGHEST_RATE_HZ} Hz")
    if not flac_holds_rate(rate):  # the partner could not keep it
        raise _RefusedError(f"has a sample rate of {rate} Hz; above 65535 Hz it must be a multiple of 10 Hz")


@dataclass
class _Heard:
    """What was heard of a file, as it came: samples, peaks of stretches, lengths in seconds, and what was wrong."""

    rate_hz: int = 0
    store: SampleStore = field(default_factory=SampleStore)
    peaks: list[Float64] = field(default_factory=list)
    meter: LevelMeter = field(default_factory=LevelMeter)
    promised_s: float = 0.0
    silent_s: float = 0.0
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _How:
    """What is read at most, which channels, and who is told how far it is; all is multiplied by `gain`."""

    max_samples: int
    channels: Callable[[Float64], Float64]
    progress: Callable[[float], None]
    gain: float = 1.0


def _read(file: Path, how: _How, *, strict: bool) -> Recording:
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        held = contents(data)
        if held is None:
            raise _RefusedError(f"is not a recording in a known format ({FORMATS})")
        heard = _hear(held, data, stream, how)
        gain = _gain(heard.peaks)
        if gain < 1:
            heard = _hear(held, data, stream, replace(how, gain=gain))
    rate, length_s = heard.rate_hz, heard.store.length / max(1, heard.rate_hz)
    wrong = list(held.remarks) if isinstance(held, Contents) else []
    wrong += heard.remarks
    cut = _cut(length_s, heard.promised_s, endless=isinstance(held, Contents) and held.endless)
    if cut is None and heard.silent_s:
        cut = f"{CUT}: {heard.silent_s:.3g} of {length_s:.1f} s cannot be heard, and silence stands there"
    if heard.store.length == 0:
        raise _RefusedError(f"holds no sound: {wrong[0] if wrong else 'it is cut short' if cut else 'its length is zero'}")
    if cut is not None and strict:
        raise _RefusedError(cut)
    levels = heard.meter.take()
    if levels.mono_peak == 0:
        raise _RefusedError(
            "is digital silence throughout" if levels.peak < 1 / _GRID else "is silent in mono: its channels cancel one another"
        )
    warnings = (*filter(None, [cut]), *wrong, *_warnings(levels, gain))
    return Recording(printable(file.name), rate, heard.store.samples(), warnings)


def _hear(held: Contents | Foreign, data: mmap.mmap, stream: BinaryIO, how: _How) -> _Heard:
    """Decode all parts of a file, one behind the other, at the rate of the first."""
    heard = _Heard()
    parts: tuple[Part | Foreign, ...] = held.parts if isinstance(held, Contents) else (held,)
    for number, part in enumerate(parts):
        try:
            sound = decode(data, part) if isinstance(part, Part) else decode_foreign(stream, part)
        except (soundfile.SoundFileError, UndecodableError):
            if len(parts) == 1:
                raise
            heard.remarks.append(f"part {number + 1} of {len(parts)} cannot be read")
            continue
        _check_rate(sound.rate_hz)
        if not heard.rate_hz:
            heard.rate_hz, heard.meter = sound.rate_hz, LevelMeter(full_scale=sound.full_scale)
        if sound.rate_hz != heard.rate_hz:
            heard.remarks.append(f"part {number + 1} of {len(parts)} has {sound.rate_hz} Hz: resampled to {heard.rate_hz} Hz")
        before_s = heard.store.length / heard.rate_hz
        _hear_part(sound, heard, how)
        part_s = heard.store.length / heard.rate_hz - before_s
        silent = max(sum(sound.silent), part.lost if isinstance(part, Part) else 0)
        heard.silent_s += silent / sound.rate_hz
        promised_s = (sound.promised or 0) / sound.rate_hz
        heard.promised_s += max(part_s / part.share if isinstance(part, Part) else part_s, promised_s)
    if parts and not heard.rate_hz:
        raise _RefusedError("holds no sound that can be read")
    return heard


def _hear_part(sound: Sound, heard: _Heard, how: _How) -> None:
    resampler = StreamResampler(source_rate_hz=sound.rate_hz, target_rate_hz=heard.rate_hz)
    done = 0
    for whole in sound.blocks:
        block = how.channels(whole)
        bad = ~np.isfinite(block).all(axis=1)
        if bad.any():
            first_s = heard.store.length / heard.rate_hz + int(bad.argmax()) / sound.rate_hz
            raise _RefusedError(f"has NaN or infinite samples, the first at {first_s:.3f} s")
        part = block if how.gain == 1 else block * how.gain
        mono = ingest(part)
        high = np.abs(mean_of_channels(block)) if how.gain == 1 else np.zeros(0)
        if heard.peaks or (len(high) and high.max() > 1):
            heard.peaks.append(np.maximum.reduceat(high, np.arange(0, len(high), _PEAK_SAMPLES)))
        heard.meter.see(part, mono)
        done += len(block)
        heard.store.append(ingest(resampler.push(mono)))
        if heard.store.length > how.max_samples:
            minutes = how.max_samples / heard.rate_hz / 60
            raise _RefusedError(f"is longer than the {minutes:.4g} minutes supported at {heard.rate_hz} Hz: cut it into parts")
        how.progress(sound.share())
    heard.store.append(ingest(resampler.flush()))


def _gain(peaks: Sequence[Float64]) -> float:
    """Return the gain that brings what is above full scale down to it; a click that stands out by 30 dB may be cut off."""
    if not peaks:
        return 1.0
    every = np.sort(np.concatenate(list(peaks)))[::-1]
    usual = every[min(len(every) - 1, 1 + len(every) // 100)]
    level = float(every[0] if every[0] <= _CLICK_RATIO * usual else usual)
    return min(1.0, (1.0 - 1.0 / _GRID) / level) if level > 0 else 1.0


def _cut(heard_s: float, promised_s: float, *, endless: bool) -> str | None:
    """Return a sentence on what is missing at the end of a file, or None."""
    if promised_s > heard_s * (1 + 1e-9):
        decimals = next((d for d in (1, 3) if round(promised_s, d) > round(heard_s, d)), 6)
        return f"{CUT}: {heard_s:.{decimals}f} of {promised_s:.{decimals}f} s can be heard"
    if endless:
        return f"{CUT}: the last of its pages is missing, {heard_s:.1f} s can be heard"
    return None


def _warnings(levels: Levels, gain: float) -> Iterator[str]:
    share = levels.clipped / levels.samples
    if gain < 1:
        yield f"peaks at {decibels(levels.peak / gain):+.1f} dBFS: turned down by {-decibels(gain):.1f} dB to full scale"
    elif levels.peak > 1:
        yield f"peaks at {levels.peak_db:+.1f} dBFS: what is above full scale is cut off"
    elif share > _CLIPPED_SHARE:
        yield f"clipped: {100 * share:.2g} % of it is flat at full scale"
    if abs(levels.dc_offset) > _DC_OFFSET:
        yield f"DC offset of {levels.dc_offset:+.3f}"
    if decibels(levels.mono_peak) < _QUIET_DB:
        yield f"very quiet: its peak is {decibels(levels.mono_peak):.0f} dBFS"
    if levels.mono_power < _CANCELLED_RATIO * levels.power:
        yield "its channels almost cancel one another in mono: is one of them inverted?"


def read_recordings(
    paths: Sequence[PathLike],
    *,
    warn: Callable[[str], None],
    min_duration_s: float = 0.0,
    strict: bool = False,
    midi: MidiChoice = MidiChoice(),  # noqa: B008 - frozen
    progress: Callable[[str, float], None] | None = None,
) -> list[Recording]:
    """Read files and folders of recordings, and say what is wrong with them; raises as `read_found` does."""
    found = find_recordings(paths)
    heard = read_found(found, warn=warn, min_duration_s=min_duration_s, strict=strict, midi=midi, progress=progress)
    return list(heard.values())


def read_found(
    found: FoundFiles,
    *,
    warn: Callable[[str], None],
    min_duration_s: float = 0.0,
    strict: bool = False,
    midi: MidiChoice = MidiChoice(),  # noqa: B008 - frozen
    progress: Callable[[str, float], None] | None = None,
) -> Mapping[Path, Recording]:
    """Read recordings, and say what is wrong with them, and what of folders was passed over.

    A file of a folder that cannot be heard is left out, with a warning that names all such. Raises `InputError` with all
    names where it is one that was named itself, or all cannot be heard, or any where `strict`.
    """
    tell = progress or (lambda _what, _share: None)
    heard: dict[Path, Recording] = {}
    bad: dict[Path, str] = {}
    for number, file in enumerate(found.files):
        name = printable(file.name)

        def tell_part(share: float, *, name: str = name, number: int = number) -> None:
            tell(f"Reading {name}", (number + share) / len(found.files))

        try:
            heard[file] = read_recording(file, min_duration_s=min_duration_s, strict=strict, midi=midi, progress=tell_part)
        except InputError as error:
            bad[file] = str(error)
    if bad and (strict or not heard or any(file in found.named for file in bad)):
        raise InputError("; ".join(bad.values()))
    if bad:
        warn(f"left out {counted(len(bad), 'file')}: {'; '.join(bad.values())}")
    say_passed_over(found.passed_over, warn)
    for recording in heard.values():
        for warning in recording.warnings:
            warn(f"{recording.name}: {warning}")
    return heard
