"""Nothing of a recording is lost without a word: the kinds of files that other programs write, each with its true length."""

import io
import struct
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from musichal.audio.decoding import contents
from musichal.audio.flac_frames import FlacFrames
from musichal.audio.recording import read_recording
from musichal.audio.streams import Contents, Foreign, Spliced
from musichal.errors import InputError

RATE = 44_100
SECONDS = 2
FRAME = 1152
ID3V1 = b"TAG" + b"title".ljust(125, b"\0")
ID3V2 = b"ID3\x03\0\0\0\0\x10\0" + b"APIC" + b"\xff\xfb\x90\x64" * 511  # 2048 bytes, with what looks like frames
APE = b"APETAGEX" + struct.pack("<IIII", 2000, 100, 1, 0xA000_0000) + bytes(8) + bytes(100)
ZERO_SIZE = "its header says that it has no sound"


def encoded(samples: np.ndarray, rate: int = RATE, **how: object) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate, **how)
    return out.getvalue()


@pytest.fixture(scope="module")
def music(rock_guitar: Path) -> np.ndarray:
    return soundfile.read(rock_guitar, start=5 * RATE, frames=SECONDS * RATE)[0] * 0.5


@pytest.fixture(scope="module")
def files(music: np.ndarray) -> dict[str, bytes]:
    """One good file of each kind."""
    mp3 = encoded(music, format="MP3", bitrate_mode="VARIABLE", compression_level=0.5)
    kinds = ("WAV", "RF64", "W64", "AIFF", "CAF", "AU", "FLAC")
    good = {kind: encoded(music, format=kind, subtype="PCM_16") for kind in kinds}
    good["ADPCM"] = encoded(music, format="WAV", subtype="IMA_ADPCM")
    good["MP3"] = mp3
    good["Vorbis"] = encoded(music, format="OGG", subtype="VORBIS")
    good["Opus"] = encoded(music, 48_000, format="OGG", subtype="OPUS")
    return good


def heard(tmp_path: Path, data: bytes) -> tuple[float, tuple[str, ...]]:
    path = tmp_path / "a.bin"
    path.write_bytes(data)
    recording = read_recording(path)
    return recording.samples.size / recording.sample_rate_hz, recording.warnings


def put(data: bytes, *edits: tuple[int, bytes]) -> bytes:
    out = bytearray(data)
    for at, new in edits:
        out[at : at + len(new)] = new
    return bytes(out)


# ── MP3 ──────────────────────────────────────────────────────────────────────


def frames(mp3: bytes) -> bytes:
    """Return an MP3 file without its frame of Xing, which counts the others."""
    (part,) = contents(mp3).parts
    assert isinstance(part.pieces[0], bytes)
    return b"".join(piece if isinstance(piece, bytes) else mp3[slice(*piece)] for piece in part.pieces[1:])


def n_frames(mp3: bytes) -> int:
    at = mp3.index(b"Xing") if b"Xing" in mp3 else mp3.index(b"Info")
    return int.from_bytes(mp3[at + 8 : at + 12], "big")


def counts(mp3: bytes, number: int) -> bytes:
    at = mp3.index(b"Xing") if b"Xing" in mp3 else mp3.index(b"Info")
    return put(mp3, (at + 8, struct.pack(">I", number)))


def in_wav(mp3: bytes) -> bytes:
    fmt = struct.pack("<HHIIHHHHIHHH", 0x55, 1, RATE, 16_000, 1, 0, 12, 1, 2, 0x378, 1, 0x571)
    body = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", len(mp3)) + mp3
    return b"RIFF" + struct.pack("<I", len(body)) + body


MP3: dict[str, tuple[Callable[[bytes], bytes], Callable[[int], float]]] = {
    "as it is": (lambda d: d, lambda n: SECONDS * RATE),
    "no frame count": (frames, lambda n: n * FRAME),
    "tags around it": (lambda d: ID3V2 + ID3V2 + frames(d) + APE + ID3V1, lambda n: n * FRAME),
    "tags around a count": (lambda d: ID3V2 + d + ID3V1, lambda n: SECONDS * RATE),
    "zeros first": (lambda d: bytes(5000) + frames(d), lambda n: n * FRAME),
    "half a frame first": (lambda d: frames(d)[101:], lambda n: (n - 1) * FRAME),
    "junk first": (lambda d: b"HTTP/1.0 200 OK \xff\xfb\x90 " * 50 + frames(d), lambda n: n * FRAME),
    "counts 0": (lambda d: counts(d, 0), lambda n: SECONDS * RATE),
    "counts too few": (lambda d: counts(d, 7), lambda n: SECONDS * RATE),
    "joined": (lambda d: frames(d) + ID3V1 + ID3V2 + frames(d), lambda n: 2 * n * FRAME),
    "in WAV": (lambda d: in_wav(frames(d)), lambda n: n * FRAME),
}


@pytest.mark.parametrize(("make", "samples"), MP3.values(), ids=MP3)
def test_mp3(make, samples, files, tmp_path):
    seconds, warnings = heard(tmp_path, make(files["MP3"]))
    assert seconds * RATE == pytest.approx(samples(n_frames(files["MP3"])), abs=2)
    assert warnings == ()


def test_mp3_keeps_its_place(files, tmp_path, music):
    """What is heard of a file without a count lies where it lies in one with a count, which says what to cut off."""
    _, _ = heard(tmp_path, frames(files["MP3"]))
    without = read_recording(tmp_path / "a.bin").samples
    lags = np.correlate(without[:40_000], music[5_000:30_000].astype(np.float32), "valid")
    assert int(lags.argmax()) == 5_000 + 576 + 529  # the encoder's delay and the decoder's


def test_mp3_with_a_hole_or_an_end_too_early(files, tmp_path):
    whole = frames(files["MP3"])
    hole = whole[:8_000] + bytes(2_000) + whole[10_000:]
    seconds, warnings = heard(tmp_path, hole)
    assert seconds == pytest.approx(SECONDS * (1 - 2_000 / len(whole)), rel=0.1)
    assert warnings[0] == "damaged at 1 place: what is left is heard"
    seconds, warnings = heard(tmp_path, files["MP3"][: len(files["MP3"]) // 2])
    assert seconds == pytest.approx(SECONDS / 2, rel=0.1)
    assert warnings[0].startswith("is cut short or damaged: 0.9 of 2.0 s")
    seconds, warnings = heard(tmp_path, counts(files["MP3"], 10 * n_frames(files["MP3"])))
    assert warnings[0].startswith("is cut short or damaged: 2.0 of 20.")


def test_mp3_joined_of_two_rates(files, music, tmp_path):
    second = encoded(np.stack([music, music], axis=1), 48_000, format="MP3")
    seconds, warnings = heard(tmp_path, files["MP3"] + second)
    assert seconds == pytest.approx(SECONDS + SECONDS * RATE / 48_000, abs=0.002)
    assert warnings == ("part 2 of 2 has 48000 Hz: resampled to 44100 Hz",)


# ── Ogg ──────────────────────────────────────────────────────────────────────


def pages(ogg: bytes) -> list[bytes]:
    out, at = [], 0
    while at < len(ogg):
        end = at + 27 + ogg[at + 26]
        end += sum(ogg[at + 27 : end])
        out.append(ogg[at:end])
        at = end
    return out


def ogg_crc(page: bytes) -> bytes:
    crc = 0
    for byte in put(page, (22, bytes(4))):
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1) ^ (0x04C11DB7 if crc & 0x80000000 else 0)
        crc &= 0xFFFFFFFF
    return put(page, (22, struct.pack("<I", crc)))


def ogg_flac(flac: bytes, *, serial: int = 7) -> bytes:
    """Return FLAC in Ogg: the mapping's head and STREAMINFO in the first packet, then packets of 40 kB."""
    out = []
    packets = [b"\x7fFLAC\x01\0\0\0" + flac[:42], *(flac[at : at + 40_000] for at in range(42, len(flac), 40_000))]
    for number, packet in enumerate(packets):
        lacing = bytes([255] * (len(packet) // 255) + [len(packet) % 255])
        flags = 2 * (number == 0) + 4 * (number == len(packets) - 1)
        head = b"OggS\0" + struct.pack("<BqIIIB", flags, number, serial, number, 0, len(lacing))
        out.append(ogg_crc(head + lacing + packet))
    return b"".join(out)


@pytest.mark.parametrize("kind", ["Vorbis", "Opus", "FLAC"])
@pytest.mark.parametrize("links", [1, 2, 3])
def test_chained_ogg(kind, links, files, tmp_path):
    one = ogg_flac(files["FLAC"]) if kind == "FLAC" else files[kind]
    seconds, warnings = heard(tmp_path, one * links)  # with one serial number in all links, as some recorders write
    assert seconds == pytest.approx(links * SECONDS * (RATE / 48_000 if kind == "Opus" else 1), abs=0.001)
    assert warnings == ()


def test_a_chain_of_several_codecs_and_rates(files, music, tmp_path):
    other = encoded(np.stack([music, music], axis=1), 48_000, format="OGG", subtype="VORBIS")
    seconds, warnings = heard(tmp_path, ID3V2 + files["Vorbis"] + other + files["Opus"] + ID3V1)
    assert seconds == pytest.approx(SECONDS + 2 * SECONDS * RATE / 48_000, abs=0.002)
    assert warnings[0] == "part 2 of 3 has 48000 Hz: resampled to 44100 Hz"


def test_two_streams_at_the_same_time(files, tmp_path):
    first, second = pages(files["Vorbis"]), pages(files["Vorbis"])
    second = [ogg_crc(put(page, (14, b"\1\2\3\4"))) for page in second]
    mixed = b"".join(page for pair in zip(first, second, strict=True) for page in pair)
    assert heard(tmp_path, mixed) == (SECONDS, ("it holds several sounds at the same time: the first is heard",))


@pytest.mark.parametrize("kind", ["Vorbis", "Opus"])
def test_ogg_cut_without_coding_it_anew(kind, files, tmp_path):
    """From a later page on: the granule positions still count from the old start."""
    every = pages(files[kind])
    total = struct.unpack("<q", every[-1][6:14])[0]
    heads = 2
    kept = every[:heads] + every[heads + (len(every) - heads) // 2 :]
    before = struct.unpack("<q", every[heads + (len(every) - heads) // 2 - 1][6:14])[0]
    seconds, warnings = heard(tmp_path, b"".join(kept))
    rate = 48_000 if kind == "Opus" else RATE
    assert seconds * rate == pytest.approx(total - before, abs=2_500)
    assert warnings == ()


def test_vorbis_whose_granule_positions_begin_anew(files, tmp_path):
    """As FFmpeg writes it: the positions say 1 s, and the sound has 2."""
    every = [
        ogg_crc(put(page, (6, struct.pack("<q", max(0, struct.unpack("<q", page[6:14])[0] - RATE)))))
        for page in pages(files["Vorbis"])
    ]
    assert heard(tmp_path, b"".join(every))[0] == pytest.approx(SECONDS, abs=0.05)


@pytest.mark.parametrize("kind", ["Vorbis", "Opus"])
@pytest.mark.parametrize("first", [1, -2, -1])
def test_pages_that_stand_there_twice_are_heard_once(kind, first, files, tmp_path):
    every = pages(files[kind])
    twice = every[first:][:2]
    whole, warnings = heard(tmp_path, b"".join([*every[: first % len(every)], *twice, *every[first:]]))
    assert whole == heard(tmp_path, files[kind])[0]
    assert warnings == (f"{len(twice)} page{'s are' if len(twice) > 1 else ' is'} there twice: heard once",)


@pytest.mark.parametrize("kind", ["Vorbis", "Opus"])
@pytest.mark.parametrize("number", [-2, -1])
def test_a_damaged_page_is_left_out_with_a_word(kind, number, files, tmp_path):
    every = pages(files[kind])
    every[number] = put(every[number], (len(every[number]) // 2, b"\x5a\xa5\x5a"))
    seconds, warnings = heard(tmp_path, b"".join(every))
    assert 0.5 < seconds < SECONDS
    assert any("pages are missing or damaged at 1 place" in warning for warning in warnings)


@pytest.mark.parametrize("kind", ["Vorbis", "Opus"])
def test_ogg_without_its_end(kind, files, tmp_path):
    every = pages(files[kind])
    seconds, warnings = heard(tmp_path, b"".join(every[:-1]))
    assert 0.5 < seconds < SECONDS
    assert "the last of its pages is missing" in warnings[0]


# ── FLAC ─────────────────────────────────────────────────────────────────────


def flac_frames(flac: bytes) -> list[int]:
    """Return where the frames begin; the last is the end."""
    return list(FlacFrames(flac, 0, len(flac)).places)


@pytest.mark.parametrize("number", [0, 3, 7, -3])
@pytest.mark.parametrize("behind", [1, 40, 1500])
def test_a_damaged_flac_frame_alone_is_silent(number, behind, files, tmp_path):
    """The decoder ends there, or gives the frame behind it in its place."""
    whole, at = files["FLAC"], flac_frames(files["FLAC"])
    (tmp_path / "whole").write_bytes(whole)
    (tmp_path / "damaged").write_bytes(put(whole, (at[number] + 20 + behind, b"\x5a\xa5")))
    right, ours = (read_recording(tmp_path / name) for name in ("whole", "damaged"))
    differ = np.flatnonzero(ours.samples != right.samples)
    assert len(ours.samples) == len(right.samples)
    assert differ.max() - differ.min() < 4096 and not ours.samples[differ].any()
    assert "s cannot be heard, and silence stands there" in ours.warnings[0]
    with pytest.raises(InputError, match="is cut short or damaged"):
        read_recording(tmp_path / "damaged", strict=True)


def test_flac_frames_that_are_lost_twice_there_or_the_wrong_way_round(files, tmp_path):
    whole, at = files["FLAC"], flac_frames(files["FLAC"])
    piece = [whole[: at[0]], *(whole[a:b] for a, b in pairwise(at))]
    seconds, warnings = heard(tmp_path, b"".join(piece[:4] + piece[6:]))
    assert seconds == SECONDS and "0.186 of" in warnings[0]
    twice = b"".join(piece[:6] + piece[3:])
    assert heard(tmp_path, twice) == (SECONDS, ("3 frames are there twice: heard once",))
    (tmp_path / "a").write_bytes(b"".join([*piece[:4], piece[5], piece[4], *piece[6:]]))
    (tmp_path / "b").write_bytes(whole)
    assert np.array_equal(*(read_recording(tmp_path / name).samples for name in "ab"))


@pytest.mark.parametrize("kept", range(1, 16))
def test_flac_that_ends_in_the_header_of_a_frame(kept, files, tmp_path):
    """Five bytes need not be a header, and a frame of silence may be shorter than the longest header."""
    whole, at = files["FLAC"], flac_frames(files["FLAC"])
    seconds, warnings = heard(tmp_path, whole[: at[4] + kept])
    assert 0 < seconds < SECONDS and warnings


def declares(flac: bytes, samples: int) -> bytes:
    return put(flac, (21, bytes([flac[21] & 0xF0])), (22, struct.pack(">I", samples)))


FLAC: dict[str, tuple[Callable[[bytes], bytes], float, str]] = {
    "tag behind": (lambda d: d + ID3V1, SECONDS, ""),
    "tags around": (lambda d: ID3V2 + d + APE + ID3V1, SECONDS, ""),
    "padding behind": (lambda d: d + bytes(70_000), SECONDS, ""),
    "noise behind": (lambda d: d + np.random.default_rng(0).bytes(30_000), SECONDS, ""),
    "from a pipe": (lambda d: declares(d, 0), SECONDS, ""),
    "from a pipe, tag behind": (lambda d: declares(d, 0) + ID3V1, SECONDS, ""),
    "more than declared": (lambda d: declares(d, RATE), SECONDS, ""),
    "less than declared": (lambda d: declares(d, 3 * RATE), SECONDS, "is cut short or damaged: 2.0 of 3.0 s"),
    "joined": (lambda d: d + d, 2 * SECONDS, ""),
}


@pytest.mark.parametrize(("make", "seconds", "says"), FLAC.values(), ids=FLAC)
def test_flac(make, seconds, says, files, tmp_path):
    found, warnings = heard(tmp_path, make(files["FLAC"]))
    assert found == seconds
    assert len(warnings) == bool(says)
    assert not says or warnings[0].startswith(says)


# ── headers whose size is wrong ──────────────────────────────────────────────

FIELDS = {  # of the size of the sound: what it follows, how far behind, its format
    "WAV": (b"data", 4, "<I"),
    "ADPCM": (b"data", 4, "<I"),
    "RF64": (b"ds64", 16, "<Q"),
    "W64": (b"data\xf3\xac", 16, "<Q"),
    "AIFF": (b"SSND", 4, ">I"),
    "CAF": (b"data", 4, ">Q"),
    "AU": (b".snd", 8, ">I"),
}


def sized(kind: str, data: bytes, size: int) -> bytes:
    mark, offset, form = FIELDS[kind]
    return put(data, (data.index(mark) + offset, struct.pack(form, size % (1 << 8 * struct.calcsize(form)))))


@pytest.mark.parametrize("kind", FIELDS)
@pytest.mark.parametrize("size", [0, -1, 0x7FFFFFFF, 0x7FFFF000, 0x80000000, -16])
def test_sizes_that_recorders_and_pipes_leave(kind, size, files, tmp_path):
    if size > 0 and FIELDS[kind][2][1] == "Q":
        size <<= 32
    seconds, warnings = heard(tmp_path, sized(kind, files[kind], size))
    assert seconds == pytest.approx(SECONDS, abs=0.05 if kind == "ADPCM" else 0.001)  # its blocks are padded
    assert [w[: len(ZERO_SIZE)] for w in warnings] == [ZERO_SIZE] * (size == 0)


@pytest.mark.parametrize(("kind", "size"), [("AIFF", 8), ("CAF", 4)])
def test_a_chunk_of_its_own_header_alone_is_one_that_was_never_closed(kind, size, files, tmp_path):
    seconds, warnings = heard(tmp_path, sized(kind, files[kind], size))
    assert (seconds, [w[: len(ZERO_SIZE)] for w in warnings]) == (pytest.approx(SECONDS, abs=0.001), [ZERO_SIZE])


@pytest.mark.parametrize("size", [0, -1, 1 << 40])
def test_64_bit_sizes_beside_a_right_one_of_32_bits(size, files, tmp_path):
    data = sized("RF64", files["RF64"], size)
    length = struct.pack("<I", len(data) - data.index(b"data") - 8)
    assert heard(tmp_path, put(data, (data.index(b"data") + 4, length))) == (SECONDS, ())


def test_bw64(files, tmp_path):
    for size in (2 * SECONDS * RATE, 0, -1):
        data = sized("RF64", put(files["RF64"], (0, b"BW64")), size)
        assert heard(tmp_path, data)[0] == SECONDS


def test_a_header_at_the_start_only(files, tmp_path):
    """The samples are what they are, whatever the header says, and what follows the sound is none."""
    good = files["WAV"] + b"LIST" + struct.pack("<I", 10) + b"INFOabcdef"
    assert heard(tmp_path, good) == (SECONDS, ())
    reference = read_recording(tmp_path / "a.bin").digest
    heard(tmp_path, sized("WAV", files["WAV"], 0))
    assert read_recording(tmp_path / "a.bin").digest == reference
    empty = encoded(np.zeros(0), format="WAV", subtype="PCM_16") + b"LIST" + struct.pack("<I", 10) + b"INFOabcdef"
    with pytest.raises(InputError, match="its length is zero"):
        heard(tmp_path, empty)
    seconds, warnings = heard(tmp_path, sized("WAV", files["WAV"], RATE))
    assert seconds == 0.5
    assert warnings == ("more lies behind the end that its header gives, and is not heard",)


def test_chunks_without_padding_are_read_and_a_second_sound_is_told_of(files, tmp_path):
    wav = files["WAV"]
    whole, _ = heard(tmp_path, wav)
    assert heard(tmp_path, wav[:12] + b"JUNK\3\0\0\0abc" + wav[12:]) == (whole, ())
    assert heard(tmp_path, wav[:12] + b"JUNK\3\0\0\0abc\0" + wav[12:]) == (whole, ())
    assert heard(tmp_path, wav + wav[36:]) == (whole, ("has sound in a second chunk, which is not heard",))
    assert heard(tmp_path, wav + wav) == (whole, ("another recording lies behind its end, and is not heard",))


def test_ogg_from_its_middle_on(tmp_path):
    """A stream that somebody tuned in to: the rest of a page, then a link from its start."""
    link = encoded(np.zeros(RATE) + 0.1 * np.sin(np.arange(RATE) * 0.1), format="OGG", subtype="VORBIS")
    whole, _ = heard(tmp_path, link)
    assert heard(tmp_path, link[-500:-1] + link)[0] == whole


def test_more_than_4_gib(files, tmp_path):
    """Sizes of 32 bits start anew: only found, because reading takes minutes."""
    path = tmp_path / "long.wav"
    head = sized("WAV", files["WAV"], 6)[: files["WAV"].index(b"data") + 8]
    with path.open("wb") as stream:
        stream.write(head)
        stream.truncate(len(head) + (1 << 32) + 6)
    import mmap

    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        (part,) = contents(data).parts
        with soundfile.SoundFile(Spliced(data, part.pieces)) as sound:
            assert sound.frames == (1 << 31) + 3


@pytest.mark.parametrize("kind", ["VOC", "NIST", "AVR", "SVX", "IRCAM", "PAF", "PVF"])
def test_what_samplers_and_studios_of_old_wrote(kind, music, tmp_path):
    data = encoded(music, format=kind, subtype="PCM_16")
    assert heard(tmp_path, data) == (pytest.approx(SECONDS, abs=0.01), ())
    seconds, warnings = heard(tmp_path, data[: len(data) // 2])
    assert seconds == pytest.approx(SECONDS / 2, abs=0.03)
    if kind in ("VOC", "NIST", "AVR", "SVX"):  # the others do not say how long they are
        assert warnings == (f"is cut short or damaged: {seconds:.1f} of 2.0 s can be heard",)


def chunk(name: bytes, content: bytes, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(content) if size is None else size) + content


def test_a_chunk_whose_size_cannot_be_and_chunks_without_padding(files, tmp_path):
    wav, aiff, caf = files["WAV"], files["AIFF"], files["CAF"]
    data = wav.index(b"data")
    lost = wav[:data] + chunk(b"LIST", b"INFOabcd", 0x7FFF_FFFF) + wav[data:]
    unpadded = wav[:12] + chunk(b"iXML", b"<a>") + chunk(b"note", b"abcde") + wav[12:]
    unpadded_aiff = aiff[:12] + b"NAME" + struct.pack(">I", 5) + b"abcde" + aiff[12:]
    at = caf.index(b"data")
    for whole in (lost, unpadded, unpadded_aiff, caf[:at] + b"free" + struct.pack(">q", -1) + caf[at:]):
        assert heard(tmp_path, whole) == (SECONDS, ())


def test_a_tag_longer_than_its_file(files, tmp_path):
    assert heard(tmp_path, b"ID3\3\0\0\x7f\x7f\x7f\x7f" + files["MP3"])[0] == pytest.approx(SECONDS, abs=0.1)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x08free\0\0\0\x08wide", "QuickTime or MP4"),
        (b"\0\0\1\xba" + bytes(100), "MPEG video"),
        ((b"G" + bytes(187)) * 3, "an MPEG transport stream"),
        ((bytes(4) + b"G" + bytes(187)) * 3, "an MPEG transport stream"),
        (b"\x21\x1b" * 50 + (b"\xff\xf1\x50\x80\x04\x1f\xfc" + bytes(25)) * 4, "AAC"),
        (b"FLV\1\4" + bytes(100), "Flash video"),
    ],
)
def test_sound_of_cameras_and_streams_is_named(data, name):
    found = contents(data)
    assert isinstance(found, Foreign) and found.name == name


# ── the rest ─────────────────────────────────────────────────────────────────


def test_what_libsndfile_does_not_know_is_named_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    for head, name in (
        (b"\0\0\0\x20ftypM4A ", "MP4"),
        (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "WMA"),
        (b"\xff\xf1\x50\x80", "AAC"),
    ):
        with pytest.raises(
            InputError, match=rf'is {name}.*pip install "musichal\[av\]" to read it, or convert it: ffmpeg'
        ) as caught:
            heard(tmp_path, head + bytes(500))
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "aac"), ("mp4", "alac"), ("matroska", "flac"), ("caf", "alac")])
def test_foreign_files_are_read_where_the_extra_is(suffix, codec, music, tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "a.xyz"
    with av.open(str(path), "w", format=suffix) as out:
        stream = out.add_stream(codec, rate=RATE, layout="mono")
        kind = stream.codec_context.codec.audio_formats[0].name
        whole = (music * 2**15).astype(np.int16)[None, :]
        frame = av.AudioFrame.from_ndarray(whole, format="s16", layout="mono")
        frame.rate, frame.pts = RATE, 0
        resampler = av.AudioResampler(format=kind, layout="mono", rate=RATE, frame_size=stream.codec_context.frame_size or 1024)
        for part in (*resampler.resample(frame), *resampler.resample(None), None):
            out.mux(stream.encode(part))
    if suffix == "caf":  # as of a recorder that never knew how long it would be
        path.write_bytes(sized("CAF", path.read_bytes(), -1))
    recording = read_recording(path)
    assert recording.sample_rate_hz == RATE
    assert recording.duration_s == pytest.approx(SECONDS, abs=0.08)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError):
        read_recording(path)


@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"RIFF\0\0\0\0WAVE", b"OggS\0", b"caff\0\0\0\0", b".snd", b"ID3", b"\xff\xfb\x90"]),
)
def test_any_bytes(data, start):
    found = contents(start + data)
    if isinstance(found, Contents):
        for part in found.parts:
            spliced = Spliced(start + data, part.pieces)
            size = spliced.seek(0, 2)
            spliced.seek(0)
            assert len(spliced.read()) == size


def test_pieces_are_one_file():
    whole = bytes(range(256))
    spliced = Spliced(whole, [(10, 20), b"abc", (0, 0), (250, 256)])
    expected = whole[10:20] + b"abc" + whole[250:]
    assert spliced.read() == expected
    for at in range(len(expected) + 2):
        assert spliced.seek(at) == at
        assert spliced.read(4) == expected[at : at + 4]
