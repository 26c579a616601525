"""Sound files decoded from their start to their end: by libsndfile, and what it does not know by FFmpeg's libraries.

libsndfile decodes well and believes what headers say. It stops a WAV file at a length that a recorder without power never
wrote, an MP3 file at a length guessed from its first frame, and a chain of Ogg streams at its first link; it reads no FLAC in
Ogg and no BW64. So `contents` finds the sound, whatever the header says: frames of MPEG audio (ISO/IEC 11172-3), pages of Ogg
(RFC 3533), streams of FLAC (RFC 9639), the data chunk of WAV, RF64, BW64, Wave64, AIFF, CAF and AU. Each `Part` is made of
stretches of the file and of mended headers; `Spliced` is the file that a decoder sees of it.

libsndfile (LGPL, in soundfile's wheels for every system) decodes each `Part`. miniaudio, measured beside it, reads MP3 to the
end, but ends chained Ogg at its first link, believes a size of 0, and knows no Opus, CAF, AU or GSM. AAC, ALAC in MP4, WMA,
Speex and so on are read by PyAV where the extra ``av``, of 100 MB, is installed.
"""

import contextlib
import importlib
import math
import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, TypeVar

import numpy as np
import soundfile

from musichal.arrays import Float64
from musichal.audio.chunks import Chunks, au, chunked, of_old, riff
from musichal.audio.flac_frames import Data, whole_frame
from musichal.audio.streams import (
    FLAC_START,
    MP4_BOXES,
    MPEG_PROGRAM,
    Contents,
    Foreign,
    Part,
    Piece,
    Spliced,
    after_tags,
    flac,
    is_adts,
    mpeg,
    ogg,
)
from musichal.errors import MissingExtraError, install_hint
from musichal.machine import silent_stderr

_W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_MOST_JUNK_BYTES = 1 << 17
_W64_DATA = bytes.fromhex("64617461f3acd3118cd100c04f8edb8a")


def contents(data: Data) -> Contents | Foreign | None:
    """Return what a file holds; None where it is no sound that is known here."""
    start = after_tags(data, 0)
    head = bytes(data[start : start + 16])
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return riff(data, start)
    for magic, chunks in _CHUNKED.items():
        if head.startswith(magic) and (magic != b"FORM" or head[8:12] in (b"AIFF", b"AIFC")):
            return chunked(data, start, chunks)
    for magic, reader in ((b".snd", au), (b"dns.", au), (b"fLaC", flac), (b"OggS", ogg)):
        if head.startswith(magic):
            return reader(data, start)
    known: list[Contents | Foreign] = [of_old(kind, data, start) for kind in _matching(_OLD, head)]
    return next(iter((*_matching(_FOREIGN, head), *known)), None) or _found_within(data, start)


Kind = TypeVar("Kind")


def _matching(table: Iterable[tuple[int, bytes, Kind]], head: bytes) -> list[Kind]:
    return [kind for at, magic, kind in table if head[at : at + len(magic)] == magic]


def _found_within(data: Data, start: int) -> Contents | Foreign | None:
    """Return what a stream holds that was kept from its middle on, or has something before it."""
    if any(
        data[start + first : start + first + 2 * step + 1 : step] == b"GGG" for first, step in ((0, 188), (0, 192), (4, 192))
    ):
        return Foreign("an MPEG transport stream", "mpegts")
    page = data.find(b"OggS\0", start, start + _MOST_JUNK_BYTES)
    if page >= 0:
        return ogg(data, page)
    if (frames := mpeg(data, start, len(data))) is not None:
        return frames
    found = FLAC_START.search(data, start, min(len(data), start + _MOST_JUNK_BYTES))
    if found is not None:
        return flac(data, found.start())
    return Foreign("AAC", "aac") if is_adts(data, start) else None


_CHUNKED = {
    b"FORM": Chunks("AIFF", b"SSND", 12, ">I", before_sound=8, needed=(b"FVER", b"COMM")),
    b"caff": Chunks("CAF", b"data", 8, ">Q", alignment=1, before_sound=4, needed=(b"desc", b"kuki", b"pakt")),
    _W64_RIFF: Chunks("W64", _W64_DATA, 40, "<Q", size_includes_header=True, alignment=8, needed=(b"fmt ",)),
}
_FOREIGN = (
    *((4, box, Foreign("MP4 (AAC or ALAC)" if box == b"ftyp" else "QuickTime or MP4", "mov")) for box in MP4_BOXES),
    (0, bytes.fromhex("3026b2758e66cf11"), Foreign("WMA", "asf")),
    (0, b"\x1aE\xdf\xa3", Foreign("Matroska or WebM", "matroska")),
    (0, b"wvpk", Foreign("WavPack", "wv")),
    (0, b"MAC ", Foreign("Monkey's Audio", "ape")),
    (0, b"TTA1", Foreign("True Audio", "tta")),
    (0, b"MP+", Foreign("Musepack", "mpc")),
    (0, b"MPCK", Foreign("Musepack", "mpc8")),
    (0, b"#!AMR", Foreign("AMR", "amr")),
    (0, b"DSD ", Foreign("DSD", "dsf")),
    (0, b"FRM8", Foreign("DSD", "iff")),
    (0, b"ADIF", Foreign("AAC", "aac")),
    (0, b"\x0bw", Foreign("AC-3", "ac3")),
    (8, b"AVI ", Foreign("AVI", "avi")),
    (0, b"tBaK", Foreign("TAK", "tak")),
    (0, b"ajkg", Foreign("Shorten", "shn")),
    (0, b"FLV\1", Foreign("Flash video", "flv")),
    (0, b".RMF", Foreign("RealAudio", "rm")),
    (0, b".ra\xfd", Foreign("RealAudio", "rm")),
    (0, MPEG_PROGRAM, Foreign("MPEG video", "mpeg")),
    (0, bytes.fromhex("7ffe8001"), Foreign("DTS", "dts")),
    (4, bytes.fromhex("f8726fba"), Foreign("TrueHD", "truehd")),
    (4, bytes.fromhex("f8726fbb"), Foreign("MLP", "mlp")),
    *((0, b"\xff" + bytes([second]), Foreign("AAC", "aac")) for second in (0xF0, 0xF1, 0xF8, 0xF9)),
)
_OLD = (
    (0, b"Creative Voice F", "VOC"),
    (0, b"NIST_1A\n", "NIST"),
    *((0, b"\x64\xa3" + bytes([kind, 0]), "IRCAM") for kind in range(1, 5)),
    *((0, bytes([0, kind]) + b"\xa3\x64", "IRCAM") for kind in range(1, 5)),
    (0, b"2BIT", "AVR"),
    (0, b" paf", "PAF"),
    (0, b"fap ", "PAF"),
    (0, b"PVF1\n", "PVF"),
    (8, b"8SVX", "8SVX"),
    (8, b"16SV", "8SVX"),
)
"""What samplers, studios and laboratories of old wrote, and libsndfile reads: where its first bytes lie, and its name."""
FOREIGN_SUFFIXES = frozenset(
    {".3gp", ".aac", ".ac3", ".alac", ".amr", ".ape", ".asf", ".avi", ".dff", ".dsf", ".dts", ".flv", ".m2ts", ".m4a", ".m4b"}
    | {".m4v", ".mka", ".mkv", ".mov", ".mp4", ".mpc", ".mpeg", ".mpg", ".mts", ".ra", ".rm", ".shn", ".spx", ".tak", ".tta"}
    | {".vob", ".webm", ".wma", ".wv"}
)
"""What is taken from a folder, and read where FFmpeg's libraries are."""


_BLOCK_VALUES = 1 << 18
_LONGEST_VORBIS_BLOCK = 8192
_MOST_DAMAGED = 10_000  # frames: 15 minutes
_DURATION_SLACK = 0.98  # containers round, and count what encoders add
_FFMPEG_TOO = ("wav", "aiff", "caf", "w64", "au", "voc")  # with codecs that libsndfile does not know
_PCM_BITS = {"PCM_16": 16, "PCM_24": 24, "PCM_32": 32}


@dataclass(frozen=True)
class Sound:
    """Sound of one rate as it comes out of a decoder.

    `blocks` yields arrays of shape (n, channels), full scale 1. `full_scale` is the level of the highest code, 1 where there is
    none. `promised` is the number of samples that the file says it has, `share` tells how much of it was decoded, `silent` how
    many samples stand for what cannot be decoded, stretch by stretch.
    """

    rate_hz: int
    channels: int
    full_scale: float
    blocks: Iterator[Float64]
    promised: int | None
    share: Callable[[], float]
    silent: list[int] = field(default_factory=list)


class _Stream(soundfile.SoundFile):  # type: ignore[misc]
    """A sound that is only read on: soundfile would seek after each block, and libsndfile lose its place."""

    def seekable(self) -> bool:
        return False


def decode(data: Data, part: Part) -> Sound:
    """Open a part; what libsndfile refuses, FFmpeg's libraries may read.

    Raises `soundfile.SoundFileError` where nothing can. Damage ends the blocks early.
    """
    spliced = Spliced(data, part.pieces)
    try:
        with silent_stderr() if part.kind == "MP3" else contextlib.nullcontext():
            stream = _Stream(spliced)
    except soundfile.SoundFileError as error:
        if part.kind.lower() not in _FFMPEG_TOO:
            raise
        try:
            return decode_foreign(Spliced(data, part.pieces), Foreign(part.kind, part.kind.lower()))
        except MissingExtraError:
            way = f"if it is of a rare kind, {install_hint('av')} to read it"
            raise UndecodableError(f"its sound cannot be read: damaged, cut short or of an unknown kind; {way}") from error
    most = None
    if part.bounded:
        with _Stream(Spliced(data, part.bounded)) as bounded:
            most = bounded.frames
    blocks = _blocks(stream, delay=part.delay, most=most, loud=part.kind == "MP3")
    sound = Sound(stream.samplerate, stream.channels, _full_scale(stream.subtype), blocks, part.promised, spliced.share)
    return replace(sound, blocks=_resumed(sound, data, part)) if part.frames[0] else sound


def _resumed(sound: Sound, data: Data, part: Part) -> Iterator[Float64]:
    """Yield the blocks of FLAC, also those behind damage, where the decoder stops; silence stands for what is damaged."""
    blocks, (places, samples), head = sound.blocks, part.frames, part.pieces[0]
    done = least = samples[0]
    assert isinstance(head, bytes)
    head = head[:4] + b"\x80" + head[5:]  # frames follow it, no other metadata
    checked = 0
    while True:
        held = np.zeros((0, sound.channels))
        with contextlib.suppress(soundfile.SoundFileError):
            for block in blocks:
                yield held
                held, done = block, done + len(block)
        # At an error the decoder may have gone on to a later frame: what it gave last is good up to the first damaged one.
        good = done if done >= samples[-1] else _good(data, part, done - len(held), done)
        yield held[: len(held) - (done - good)]
        done = good
        row = bisect_left(samples, max(least, done))
        while row < len(samples) - 1 and not whole_frame(data, places[row], places[row + 1]):
            row, checked = row + 1, checked + 1
            if checked > _MOST_DAMAGED:
                return
        if row >= len(samples) - 1:
            return
        least, checked = samples[row] + 1, checked + 1
        for first in range(done, samples[row], _BLOCK_VALUES):
            silent = min(_BLOCK_VALUES, samples[row] - first)
            sound.silent.append(silent)
            yield np.zeros((silent, sound.channels))
        done = max(done, samples[row])
        stretches = [(max(piece[0], places[row]), piece[1]) for piece in part.pieces[1:] if not isinstance(piece, bytes)]
        pieces: list[Piece] = [head, *(stretch for stretch in stretches if stretch[0] < stretch[1])]
        blocks = iter(())
        with contextlib.suppress(soundfile.SoundFileError):
            blocks = _blocks(_Stream(Spliced(data, pieces)), delay=0, most=None, loud=False)


def _good(data: Data, part: Part, first: int, end: int) -> int:
    """Return the first sample from `first` to `end` whose frame is damaged, or `end`."""
    places, samples = part.frames
    for row in range(max(0, bisect_left(samples, first) - 1), bisect_left(samples[:-1], end)):
        if not whole_frame(data, places[row], places[row + 1]):
            return max(first, samples[row])
    return end


def _blocks(stream: _Stream, *, delay: int, most: int | None, loud: bool) -> Iterator[Float64]:
    """Yield blocks to the end; what is behind `most` samples only if it is more than a decoder adds there."""
    if delay:
        yield np.zeros((delay, stream.channels))
    done, held = 0, np.zeros((0, stream.channels))
    with stream:
        more = True
        while more:
            block: Float64 = np.full((max(1, _BLOCK_VALUES // stream.channels), stream.channels), np.nan)
            try:
                with silent_stderr() if loud else contextlib.nullcontext():
                    count = len(stream.read(out=block))
                more = count > 0
            except soundfile.SoundFileError:  # how much it decoded before, the block tells
                count, more = int(np.count_nonzero(~np.isnan(block).any(axis=1))), False
            part = block[:count]
            if most is not None:
                held = np.concatenate([held, part[max(0, most - done) :]])
                done, part = done + count, part[: max(0, most - done)]
                if len(held) > _LONGEST_VORBIS_BLOCK:
                    part, held, most = np.concatenate([part, held]), held[:0], None
            if len(part):
                yield part


def _full_scale(subtype: str) -> float:
    """Return the level of the highest code; float and lossy files have none, and reach 1 or more."""
    if subtype in ("PCM_S8", "PCM_U8"):
        return math.inf  # steps so coarse that any loud wave stays on the last one
    bits = _PCM_BITS.get(subtype)
    return 1.0 if bits is None else 1.0 - 2.0 ** (1 - bits)


# ── what libsndfile does not know ────────────────────────────────────────────


def decode_foreign(file: BinaryIO | Spliced, foreign: Foreign) -> Sound:
    """Open what FFmpeg's libraries read: the first sound in it.

    Raises `MissingExtraError` where they are not installed, `UndecodableError` where they find no sound.
    """
    try:
        av: Any = importlib.import_module("av")
    except ImportError as error:
        way = f"{install_hint('av')} to read it, or convert it: ffmpeg -i INPUT OUTPUT.wav"
        raise MissingExtraError(f"is {foreign.name}; {way}") from error
    size = max(1, file.seek(0, os.SEEK_END))
    file.seek(0)
    try:
        container = av.open(file, format=foreign.demuxer, **({} if _lenient(av) else {"metadata_errors": "ignore"}))
        frames = _frames(av, container)
        first = next(frames)
    except (av.FFmpegError, StopIteration, IndexError, ValueError) as error:
        raise UndecodableError(f"is {foreign.name} without sound that can be read: damaged, protected or cut short") from error
    stream = container.streams.audio[0]
    promised = None
    if stream.duration and stream.time_base:
        promised = int(stream.duration * stream.time_base * first.rate * _DURATION_SLACK)
    elif container.duration and foreign.demuxer == "matroska":  # others guess it from their size
        promised = int(container.duration / av.time_base * first.rate * _DURATION_SLACK)
    return Sound(first.rate, first.layout.nb_channels, 1.0, _arrays(av, [first], frames), promised, lambda: file.tell() / size)


def _lenient(av: Any) -> bool:
    """Tell whether this PyAV reads tags of any encoding unasked: from 19 on, and then without the option."""
    return int(av.__version__.partition(".")[0]) >= 19


class UndecodableError(Exception):
    """Why a sound cannot be decoded, without the name of its file."""


def _frames(av: Any, container: Any) -> Iterator[Any]:
    """Yield the frames of the first sound; damage inside is passed over as FFmpeg does."""
    resampler, kind = None, None
    for packet in container.demux(container.streams.audio[0]):
        try:
            decoded = packet.decode()
        except av.InvalidDataError:
            continue
        for frame in decoded:
            if resampler is None or kind != (frame.format.name, frame.layout.name, frame.rate):
                if resampler is None:
                    first = (frame.layout, frame.rate)
                kind = (frame.format.name, frame.layout.name, frame.rate)
                resampler = av.AudioResampler(format="dbl", layout=first[0], rate=first[1])
            yield from resampler.resample(frame)


def _arrays(av: Any, begun: list[Any], frames: Iterator[Any]) -> Iterator[Float64]:
    """Yield arrays of about a block, (n, channels)."""

    def samples(frame: Any) -> Float64:
        # Interleaved: planes behind the eighth channel crash in PyAV.
        return np.asarray(frame.to_ndarray()).reshape(-1, frame.layout.nb_channels)

    parts, size = [samples(frame) for frame in begun], 0
    with contextlib.suppress(av.FFmpegError):  # the end of a file that is cut short
        for frame in frames:
            parts.append(samples(frame))
            size += parts[-1].size
            if size >= _BLOCK_VALUES:
                yield np.concatenate(parts)
                parts, size = [], 0
    if parts:
        yield np.concatenate(parts)
